//! The connection table: what the hardware is a cache of.
//!
//! ```text
//!   packet (vpc, tuple) ── keyed hash ──▶ Index ──▶ slot × 2 + direction
//!                                                      │
//!   slots: Vec<Slot> ◀──────────────────────────────────┘      Wheel: one timer a slot
//! ```
//!
//! A connection lies in one slot, of three cache lines, and is found by either direction's key.
//! Its translation is not stored: what one direction's packets are turned into is the other
//! direction's key reversed. The hash is keyed with a random seed, so that nobody outside can
//! choose tuples that collide. Everything is sized when the table is made; on the packet path
//! nothing is allocated.
//!
//! Of millions of connections none is in a cache. So a caller that has several packets asks for
//! all their buckets ([`Table::prefetch`]), then for all their slots
//! ([`Table::prefetch_connection`]), before it takes the first one.

mod connection;
mod index;
mod key;
mod place;
mod state;
mod timer;
mod window;

use shunt_dpdk::{huge_pages, prefetch, prefetch_all};
use shunt_offload::ConnectionId;
use shunt_p4::{FlowKey, VpcId};

pub use connection::{Connection, Packets, Translation};
pub(crate) use index::Index;
pub use key::{Hashed, Key};
pub(crate) use key::{KeyHasher, address, words};
pub use place::{Offload, Place};
pub(crate) use state::TimeoutTable;
pub use state::{Direction, State, Tracker};
use timer::{Link, Links, UNARMED, Wheel};

/// Most connections that a table can hold: slot × 2 + direction fits 32 bits.
pub const MAX_CONNECTIONS: u32 = 1 << 26;

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

/// No slot.
const NONE: u32 = u32::MAX;

/// Three cache lines.
#[derive(Debug)]
#[repr(C, align(64))]
struct Slot {
    connection: Option<Connection>,
    /// The tables that `hops` is of.
    hop_generation: u32,
    /// Counts its connections.
    generation: u32,
    /// Its first packet's time in hundredths of a second; 497 days and they start anew.
    created: u32,
    /// Its timer; the next free slot while it is free.
    link: Link,
}

const HUNDREDTH_NS: u64 = 10_000_000;

/// Issue of memory: 192 for the slot; two keys in the index take 6.4 bytes each at a load of one
/// half, 26; its place in the wheel 4; a mapping's key 13, and 12 at each port of its pool
/// (`nat::pool`). No more than 256 bytes a connection while two thirds of the ports are leased.
const _: () = assert!(size_of::<Slot>() == 192);

impl Links for Vec<Slot> {
    #[inline]
    fn link(&mut self, slot: u32) -> Option<&mut Link> {
        self.get_mut(slot as usize).map(|slot| &mut slot.link)
    }

    #[inline]
    fn prefetch_link(&self, slot: u32) {
        if let Some(slot) = self.get(slot as usize) {
            prefetch(&slot.link);
        }
    }

    #[inline]
    fn prefetch(&self, slot: u32) {
        prefetch_slot(self, slot);
    }
}

/// Asks for all of a slot.
#[inline]
fn prefetch_slot(slots: &[Slot], slot: u32) {
    if let Some(slot) = slots.get(slot as usize) {
        prefetch_all(slot);
    }
}

/// The table of one worker.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Slot>,
    /// The first free slot below the end; others are linked to it.
    free: u32,
    index: Index,
    wheel: Wheel,
    hasher: KeyHasher,
    capacity: usize,
    live: usize,
}

impl Table {
    /// Room for `capacity` connections (at least 1, at most [`MAX_CONNECTIONS`]), hashed with a
    /// secret made of `seed`.
    pub fn new(capacity: u32, seed: u64) -> Self {
        let capacity = capacity.clamp(1, MAX_CONNECTIONS) as usize;
        let mut slots = Vec::with_capacity(capacity);
        huge_pages(&mut slots);
        Self {
            slots,
            free: NONE,
            index: Index::new(2 * capacity),
            wheel: Wheel::new(capacity),
            hasher: KeyHasher::new(seed),
            capacity,
            live: 0,
        }
    }

    /// A key with its hash, for the functions that take one.
    #[inline]
    pub fn hashed(&self, key: &FlowKey) -> Hashed {
        self.hasher.hashed(Key::from(key))
    }

    /// Writes the hash of the key.
    #[inline]
    pub(crate) fn hash_in_place(&self, flow: &mut Hashed) {
        flow.hash = self.hasher.hash(&flow.key);
    }

    /// The connection that a packet belongs to, and in which direction.
    pub fn find(&self, key: &FlowKey) -> Option<(u32, Direction)> {
        self.find_hashed(&self.hashed(key))
    }

    /// As [`Table::find`].
    #[inline]
    pub fn find_hashed(&self, wanted: &Hashed) -> Option<(u32, Direction)> {
        let found = self.index.find(wanted.hash, |value| {
            let (slot, direction) = split(value);
            self.get(slot)
                .is_some_and(|connection| *connection.raw_key(direction) == wanted.key)
        })?;
        Some(split(found))
    }

    /// Asks for the bucket of a key.
    #[inline]
    pub fn prefetch(&self, wanted: &Hashed) {
        self.index.prefetch(wanted.hash);
    }

    /// Asks for the connection that a key probably leads to, and says which: its hash was
    /// compared, its key was not.
    #[inline]
    pub fn prefetch_connection(&self, wanted: &Hashed) -> Option<(u32, Direction)> {
        let value = self.index.find(wanted.hash, |_| true)?;
        prefetch_slot(&self.slots, value >> 1);
        Some(split(value))
    }

    /// The hashes of a connection's keys.
    #[inline]
    pub(crate) fn hashes(&self, connection: &Connection) -> [u64; 2] {
        let [forward, reply] = connection.keys();
        [self.hasher.hash(forward), self.hasher.hash(reply)]
    }

    /// Asks for what [`Table::remove`] needs besides the slot itself.
    #[inline]
    pub(crate) fn prefetch_hash(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Asks for what timers and the offload engine want of the connection in a slot.
    #[inline]
    pub fn prefetch_state(&self, slot: u32) {
        self.slots.prefetch_link(slot);
    }

    /// Asks for the connection in a slot.
    #[inline]
    pub fn prefetch_slot(&self, slot: u32) {
        prefetch_slot(&self.slots, slot);
    }

    /// The connection in a slot, and the number of a direction's next hop in the tables of that
    /// generation; 0: it has none.
    #[inline]
    pub(crate) fn seat(
        &self,
        slot: u32,
        direction: Direction,
        generation: u32,
    ) -> Option<(&Connection, u16)> {
        let slot = self.slots.get(slot as usize)?;
        let connection = slot.connection.as_ref()?;
        let hop = match slot.hop_generation == generation {
            true => connection.hops[direction.index()],
            false => 0,
        };
        Some((connection, hop))
    }

    /// Remembers the number of a direction's next hop in the tables of that generation.
    pub(crate) fn set_hop(&mut self, slot: u32, direction: Direction, generation: u32, hop: u16) {
        let Some(slot) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let Some(connection) = &mut slot.connection else {
            return;
        };
        if slot.hop_generation != generation {
            slot.hop_generation = generation;
            connection.hops = [0; 2];
        }
        connection.hops[direction.index()] = hop;
    }

    /// Adds a connection whose packets arrive as `keys` say and are routed in those VPCs, and
    /// returns its slot. It has had no packet yet, and no lease.
    ///
    /// # Errors
    /// [`InsertError`]; nothing was added.
    pub fn insert(
        &mut self,
        now_ns: u64,
        keys: &[FlowKey; 2],
        route_vpcs: [VpcId; 2],
        tracker: Tracker,
    ) -> Result<u32, InsertError> {
        let [forward, reply] = keys.each_ref().map(|key| self.hashed(key));
        if self.find_hashed(&forward).is_some() {
            return Err(InsertError::TupleInUse);
        }
        self.insert_hashed(now_ns, [&forward, &reply], route_vpcs, tracker)
    }

    /// As [`Table::insert`], where no connection has the first key.
    ///
    /// # Errors
    /// [`InsertError`]; nothing was added.
    #[inline(always)] // what it is given would be written for it, and read before it is there
    pub(crate) fn insert_hashed(
        &mut self,
        now_ns: u64,
        [forward, reply]: [&Hashed; 2],
        route_vpcs: [VpcId; 2],
        tracker: Tracker,
    ) -> Result<u32, InsertError> {
        if forward.key == reply.key || self.find_hashed(reply).is_some() {
            return Err(InsertError::TupleInUse);
        }
        let new = Connection::new(route_vpcs, tracker, now_ns);
        let used = self.slots.len();
        let slot = match self.slots.get_mut(self.free as usize) {
            Some(entry) => {
                let slot = std::mem::replace(&mut self.free, entry.link.next());
                entry.link = UNARMED;
                entry.connection = Some(new);
                // The next one's.
                prefetch_slot(&self.slots, self.free);
                slot
            }
            None if used < self.capacity => {
                self.slots.push(Slot {
                    connection: Some(new),
                    hop_generation: 0,
                    generation: 0,
                    created: 0,
                    link: UNARMED,
                });
                used as u32
            }
            None => return Err(InsertError::Full),
        };
        if let Some(connection) = self.get_mut(slot) {
            connection.set_keys([&forward.key, &reply.key]);
        }
        self.begin(slot, now_ns);
        self.live += 1;
        if self.index.insert(forward.hash, slot * 2) && self.index.insert(reply.hash, slot * 2 + 1)
        {
            return Ok(slot);
        }
        // Too many strays in the index: it hardly ever happens.
        self.remove(slot);
        Err(InsertError::Full)
    }

    /// Takes a connection out. What it had leased is the caller's to give back, before.
    pub fn remove(&mut self, slot: u32) -> bool {
        let Some([forward, reply]) = self.get(slot).map(|connection| self.hashes(connection))
        else {
            return false;
        };
        self.wheel.cancel(&mut self.slots, slot);
        self.index.remove(forward, slot * 2);
        self.index.remove(reply, slot * 2 + 1);
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.generation = entry.generation.wrapping_add(1);
            entry.connection = None;
            entry.link.set_next(self.free);
            self.free = slot;
        }
        self.live -= 1;
        true
    }

    /// The connection in a slot.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Connection> {
        self.slots.get(slot as usize)?.connection.as_ref()
    }

    /// The connection in a slot.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.connection.as_mut()
    }

    /// How others call the connection in a slot.
    pub fn id(&self, slot: u32) -> ConnectionId {
        let entry = self.slots.get(slot as usize);
        ConnectionId::new(slot, entry.map_or(0, |entry| entry.generation))
    }

    /// The slot of a connection that is still there.
    pub fn slot_of(&self, id: ConnectionId) -> Option<u32> {
        let entry = self.slots.get(id.slot as usize)?;
        (entry.generation == id.generation && entry.connection.is_some()).then_some(id.slot)
    }

    /// The connection in the slot begins now (again).
    pub fn begin(&mut self, slot: u32, now_ns: u64) {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.created = (now_ns / HUNDREDTH_NS) as u32;
        }
    }

    /// Since the first packet of the connection in a slot, in hundredths of a second.
    pub fn age(&self, slot: u32, now_ns: u64) -> std::time::Duration {
        let now = (now_ns / HUNDREDTH_NS) as u32;
        let entry = self.slots.get(slot as usize);
        let created = entry.map_or(now, |entry| entry.created);
        std::time::Duration::from_nanos(u64::from(now.wrapping_sub(created)) * HUNDREDTH_NS)
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
        self.wheel.arm(&mut self.slots, slot, deadline_ns);
    }

    /// Sets the timer only if it would fire later than needed: a timer that fires early is put
    /// back, so that a packet of a long-lived connection costs none of this.
    #[inline]
    pub fn arm_by(&mut self, slot: u32, deadline_ns: u64) {
        let link = self.slots.get(slot as usize).map(|slot| &slot.link);
        if !link.is_some_and(|link| link.fires_by(deadline_ns)) {
            self.arm(slot, deadline_ns);
        }
    }

    /// Takes out one timer that is due.
    pub fn expire(&mut self, now_ns: u64) -> Option<u32> {
        self.wheel.expire(&mut self.slots, now_ns)
    }

    /// Timers that are set: one a connection.
    pub fn timers(&self) -> usize {
        self.wheel.armed()
    }
}

/// The hash of small tables whose keys are not flows.
pub(crate) fn hasher(seed: u64) -> ahash::RandomState {
    // Distinct odd multiples, so that one seed gives four different keys.
    let part = |n: u64| seed.rotate_left(17 * n as u32) ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ahash::RandomState::with_seeds(part(1), part(2), part(3), part(4))
}

#[inline]
fn split(value: u32) -> (u32, Direction) {
    let direction = if value & 1 == 0 {
        Direction::Forward
    } else {
        Direction::Reply
    };
    (value >> 1, direction)
}

#[cfg(test)]
mod tests;
