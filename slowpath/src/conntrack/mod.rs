//! The connection table: what the hardware is a cache of.
//!
//! ```text
//!   packet (vpc, tuple) ── keyed hash ──▶ Index ──▶ slot × 2 + direction
//!                                                      │
//!   slots: Vec<Slot> ◀──────────────────────────────────┘      Wheel: one timer a slot
//! ```
//!
//! A connection lies in one slot and is found by either direction's key. Its translation is not
//! stored: what one direction's packets are turned into is the other direction's key reversed.
//! The hash is keyed with a random seed, so that nobody outside can choose tuples that collide.
//! Everything is sized when the table is made; on the packet path nothing is allocated.

mod index;
mod state;
mod timer;
mod window;

use shunt_offload::ConnectionId;
use shunt_p4::{FlowKey, Tuple, VpcId};

pub(crate) use index::Index;
pub use state::{Direction, State, Tracker};
use timer::Wheel;

use crate::nat::Lease;

/// Most connections that a table can hold: slot × 2 + direction fits 32 bits.
pub const MAX_CONNECTIONS: u32 = 1 << 26;

/// Where a connection's two entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Offload {
    /// Not in hardware.
    Software,
    /// Asked for.
    Installing,
    /// Both acknowledged.
    Installed,
    /// To be removed, as soon as the queue has room.
    RemoveQueued,
    /// Removal asked for.
    Removing,
}

impl Offload {
    /// Its name in output and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Offload::Software => "software",
            Offload::Installing => "installing",
            Offload::Installed => "installed",
            Offload::RemoveQueued | Offload::Removing => "removing",
        }
    }
}

/// What a packet's tuple becomes, and where it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The VPC whose table has the new destination.
    pub route_vpc: VpcId,
    /// The VPC of the interface that it has to leave by.
    pub egress_vpc: VpcId,
    /// The new tuple.
    pub tuple: Tuple,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// What each direction's packets look like on arrival.
    pub keys: [FlowKey; 2],
    /// The VPC that each direction is routed in.
    pub route_vpcs: [VpcId; 2],
    /// Its state.
    pub tracker: Tracker,
    /// Its place in hardware.
    pub offload: Offload,
    /// It is over: gone as soon as the hardware has let go of it.
    pub ending: bool,
    /// The port that it has of a pool.
    pub lease: Option<Lease>,
    /// Its share in the port that it is addressed to, of somebody else inside.
    pub peer_lease: Option<Lease>,
    /// It is counted for its source, not for its VPC only.
    pub counted: bool,
    /// Its first packet.
    pub created_ns: u64,
    /// Its first packet since it is in software (again); none since.
    pub software_since_ns: Option<u64>,
    /// Its last packet in software, or the last that hardware told of.
    pub last_seen_ns: u64,
    /// Not offered to hardware before.
    pub offload_after_ns: u64,
    /// Packets in software, each direction.
    pub packets: [u64; 2],
    /// Bytes of IP in software, each direction.
    pub bytes: [u64; 2],
}

impl Connection {
    /// What a direction's packets are turned into.
    pub fn translation(&self, direction: Direction) -> Translation {
        let [forward, reply] = &self.keys;
        let [forward_vpc, reply_vpc] = self.route_vpcs;
        match direction {
            Direction::Forward => Translation {
                route_vpc: forward_vpc,
                egress_vpc: reply.vpc,
                tuple: reply.tuple.reversed(),
            },
            Direction::Reply => Translation {
                route_vpc: reply_vpc,
                egress_vpc: forward.vpc,
                tuple: forward.tuple.reversed(),
            },
        }
    }

    /// A direction's key.
    pub fn key(&self, direction: Direction) -> &FlowKey {
        let [forward, reply] = &self.keys;
        match direction {
            Direction::Forward => forward,
            Direction::Reply => reply,
        }
    }

    /// Whether any address or port changes.
    pub fn is_translated(&self) -> bool {
        let [forward, reply] = &self.keys;
        forward.tuple.reversed() != reply.tuple
    }
}

/// Why a connection was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// As many connections as configured.
    #[error("the connection table is full")]
    Full,
    /// Another connection has one of the keys.
    #[error("another connection has the tuple")]
    TupleInUse,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// The table of one worker.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: Index,
    wheel: Wheel,
    hasher: ahash::RandomState,
    capacity: usize,
    live: usize,
}

impl Table {
    /// Room for `capacity` connections (at least 1, at most [`MAX_CONNECTIONS`]), hashed with a
    /// secret made of `seed`.
    pub fn new(capacity: u32, seed: u64) -> Self {
        let capacity = capacity.clamp(1, MAX_CONNECTIONS) as usize;
        Self {
            slots: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            index: Index::new(2 * capacity),
            wheel: Wheel::new(capacity),
            hasher: hasher(seed),
            capacity,
            live: 0,
        }
    }

    /// The connection that a packet belongs to, and in which direction.
    pub fn find(&self, key: &FlowKey) -> Option<(u32, Direction)> {
        let found = self.index.find(self.hasher.hash_one(key), |value| {
            self.key_of(value).is_some_and(|seen| seen == key)
        })?;
        Some(split(found))
    }

    /// Adds a connection and returns its slot.
    ///
    /// # Errors
    /// [`InsertError`]; nothing was added, and the connection comes back with its lease.
    pub fn insert(
        &mut self,
        connection: Connection,
    ) -> Result<u32, (InsertError, Box<Connection>)> {
        let [forward, reply] = connection.keys;
        if forward == reply || self.find(&forward).is_some() || self.find(&reply).is_some() {
            return Err((InsertError::TupleInUse, Box::new(connection)));
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.capacity => {
                self.slots.push(Slot::default());
                (self.slots.len() - 1) as u32
            }
            None => return Err((InsertError::Full, Box::new(connection))),
        };
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.connection = Some(connection);
        }
        // Never refused: the index has room for both keys of every slot.
        self.index.insert(self.hasher.hash_one(forward), slot * 2);
        self.index.insert(self.hasher.hash_one(reply), slot * 2 + 1);
        self.live += 1;
        Ok(slot)
    }

    /// Takes a connection out.
    pub fn remove(&mut self, slot: u32) -> Option<Connection> {
        let [forward, reply] = self.get(slot)?.keys;
        self.wheel.cancel(slot);
        for (key, value) in [(forward, slot * 2), (reply, slot * 2 + 1)] {
            let Self {
                index,
                slots,
                hasher,
                ..
            } = self;
            index.remove(hasher.hash_one(key), value, |other| {
                key_in(slots, other).map_or(0, |key| hasher.hash_one(key))
            });
        }
        let entry = self.slots.get_mut(slot as usize)?;
        let connection = entry.connection.take();
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        self.live -= 1;
        connection
    }

    /// The connection in a slot.
    pub fn get(&self, slot: u32) -> Option<&Connection> {
        self.slots.get(slot as usize)?.connection.as_ref()
    }

    /// The connection in a slot.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.connection.as_mut()
    }

    /// How others call the connection in a slot.
    pub fn id(&self, slot: u32) -> ConnectionId {
        let generation = self
            .slots
            .get(slot as usize)
            .map_or(0, |slot| slot.generation);
        ConnectionId::new(slot, generation)
    }

    /// The slot of a connection that is still there.
    pub fn slot_of(&self, id: ConnectionId) -> Option<u32> {
        let slot = self.slots.get(id.slot as usize)?;
        (slot.generation == id.generation && slot.connection.is_some()).then_some(id.slot)
    }

    /// Connections in it.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether it has as many as it can.
    pub fn is_full(&self) -> bool {
        self.live >= self.capacity
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Slots ever used: the end of a walk over all connections.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Sets the connection's timer.
    pub fn arm(&mut self, slot: u32, deadline_ns: u64) {
        self.wheel.arm(slot, deadline_ns);
    }

    /// Sets the timer only if it would fire later than needed: a timer that fires early is put
    /// back, so that a packet of a long-lived connection costs none of this.
    pub fn arm_by(&mut self, slot: u32, deadline_ns: u64) {
        if self.wheel.due_ns(slot).is_none_or(|due| due > deadline_ns) {
            self.wheel.arm(slot, deadline_ns);
        }
    }

    /// Takes out one timer that is due.
    pub fn expire(&mut self, now_ns: u64) -> Option<u32> {
        self.wheel.expire(now_ns)
    }

    /// Timers that are set: one a connection.
    pub fn timers(&self) -> usize {
        self.wheel.armed()
    }

    fn key_of(&self, value: u32) -> Option<&FlowKey> {
        key_in(&self.slots, value)
    }
}

/// The hash that all of a worker's tables use.
pub(crate) fn hasher(seed: u64) -> ahash::RandomState {
    // Distinct odd multiples, so that one seed gives four different keys.
    let part = |n: u64| seed.rotate_left(17 * n as u32) ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ahash::RandomState::with_seeds(part(1), part(2), part(3), part(4))
}

fn split(value: u32) -> (u32, Direction) {
    let direction = if value & 1 == 0 {
        Direction::Forward
    } else {
        Direction::Reply
    };
    (value >> 1, direction)
}

fn key_in(slots: &[Slot], value: u32) -> Option<&FlowKey> {
    let (slot, direction) = split(value);
    Some(
        slots
            .get(slot as usize)?
            .connection
            .as_ref()?
            .key(direction),
    )
}

/// Issue of memory: a slot, its timer, its share of the free list and of the index (2 keys at
/// a load of at most one half, 8 bytes a bucket, up to twice that by rounding up).
const _: () = assert!(size_of::<Slot>() <= 240);

#[cfg(test)]
mod tests;
