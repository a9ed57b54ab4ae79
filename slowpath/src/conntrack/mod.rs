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

mod index;
mod key;
mod place;
mod state;
mod timer;
mod window;

use shunt_dpdk::{huge_pages, prefetch_all};
use shunt_offload::ConnectionId;
use shunt_p4::{FlowKey, Tuple, VpcId};

pub(crate) use index::Index;
pub use key::{Hashed, Key};
pub(crate) use key::{KeyHasher, address, words};
pub use place::{Offload, Place};
pub(crate) use state::TimeoutTable;
pub use state::{Direction, State, Tracker};
use timer::{Link, Links, UNARMED, Wheel};

use crate::nat::Lease;

/// Most connections that a table can hold: slot × 2 + direction fits 32 bits.
pub const MAX_CONNECTIONS: u32 = 1 << 26;

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

/// A connection. Its fields lie in the order in which a packet needs them.
#[derive(Debug)]
#[repr(C)]
pub struct Connection {
    /// What each direction's packets look like on arrival.
    keys: [Key; 2],
    /// The VPC that each direction is routed in.
    route_vpcs: [VpcId; 2],
    /// Its state.
    pub tracker: Tracker,
    /// Its place in hardware.
    pub place: Place,
    /// `ENDING`, `COUNTED`, `REVOKED`, `LEAVING`, `HALF`, and refusals by hardware.
    flags: u8,
    /// It has a share in the port that it is addressed to, of somebody else inside: the VPC of
    /// that outside address; 0: it has none.
    peer_vpc: u16,
    /// The port that it has of a pool.
    pub lease: Option<Lease>,
    /// Each direction's next hop as the worker numbers it.
    hops: [u16; 2],
    /// Its last packet in software, or the last that hardware told of.
    pub last_seen_ns: u64,
    offload_from_ns: u64,
    /// Packets in software, each direction.
    pub packets: [u64; 2],
    /// Bytes of IP in software, each direction.
    pub bytes: [u64; 2],
}

/// It is over.
const ENDING: u8 = 1;
/// It is counted for its source.
const COUNTED: u8 = 2;
/// What it was made by does not hold any more.
const REVOKED: u8 = 4;
/// A change of the tables takes it out of hardware.
const LEAVING: u8 = 8;
/// Refusals by hardware in a row, three bits.
const REFUSALS_SHIFT: u8 = 4;
const REFUSALS_MAX: u8 = 7;

/// The other half of its way is another connection's.
const HALF: u8 = 128;

/// In `offload_from_ns`: not before the next packet, whenever that comes.
const NEXT_PACKET: u64 = u64::MAX;

impl Connection {
    #[inline]
    fn new(keys: [Key; 2], route_vpcs: [VpcId; 2], tracker: Tracker, now_ns: u64) -> Self {
        Self {
            keys,
            route_vpcs,
            tracker,
            place: Place::SOFTWARE,
            flags: 0,
            peer_vpc: 0,
            lease: None,
            hops: [0; 2],
            last_seen_ns: now_ns,
            offload_from_ns: NEXT_PACKET,
            packets: [0; 2],
            bytes: [0; 2],
        }
    }

    /// What a direction's packets are turned into.
    #[inline]
    pub fn translation(&self, direction: Direction) -> Translation {
        let [forward, reply] = &self.keys;
        let [forward_vpc, reply_vpc] = self.route_vpcs;
        match direction {
            Direction::Forward => Translation {
                route_vpc: forward_vpc,
                egress_vpc: reply.vpc(),
                tuple: reply.tuple().reversed(),
            },
            Direction::Reply => Translation {
                route_vpc: reply_vpc,
                egress_vpc: forward.vpc(),
                tuple: forward.tuple().reversed(),
            },
        }
    }

    /// What a direction's packets look like on arrival.
    #[inline]
    pub fn key(&self, direction: Direction) -> FlowKey {
        self.raw_key(direction).flow_key()
    }

    /// As [`Connection::key`], as it is kept.
    #[inline]
    pub(crate) fn raw_key(&self, direction: Direction) -> &Key {
        // No branch: which direction comes next is anybody's guess.
        &self.keys[direction.index()]
    }

    /// The VPC that each direction is routed in.
    #[inline]
    pub(crate) fn route_vpcs(&self) -> [VpcId; 2] {
        self.route_vpcs
    }

    /// Of both directions: IP protocol number.
    #[inline]
    pub fn proto(&self) -> u8 {
        let [forward, _] = &self.keys;
        forward.proto()
    }

    /// Whether any address or port changes.
    pub fn is_translated(&self) -> bool {
        let [forward, reply] = &self.keys;
        forward.tuple().reversed() != reply.tuple()
    }

    /// It is over: gone as soon as the hardware has let go of it.
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.flags & ENDING != 0
    }

    /// See [`Connection::is_ending`].
    pub fn end(&mut self) {
        self.flags |= ENDING;
    }

    /// The configuration or the routes contradict it: nothing is forwarded for it any more, and
    /// it is gone as soon as the hardware has let go of it.
    #[inline]
    pub fn is_revoked(&self) -> bool {
        self.flags & REVOKED != 0
    }

    /// See [`Connection::is_revoked`].
    pub fn revoke(&mut self) {
        self.flags |= ENDING | REVOKED;
    }

    /// A change of the tables takes it out of hardware. Says whether that is new.
    pub(crate) fn leave_hardware(&mut self) -> bool {
        let new = self.place.offload() != Offload::Software && self.flags & LEAVING == 0;
        self.flags |= if new { LEAVING } else { 0 };
        new
    }

    /// It is counted for its source, not for its VPC only.
    pub fn is_counted(&self) -> bool {
        self.flags & COUNTED != 0
    }

    /// See [`Connection::is_counted`].
    pub fn set_counted(&mut self, counted: bool) {
        self.flags = self.flags & !COUNTED | if counted { COUNTED } else { 0 };
    }

    /// It is between two hosts inside, whose packets belong to two workers: its own way is from
    /// one of them to what NAT shows of the other.
    #[inline]
    pub fn is_half(&self) -> bool {
        self.flags & HALF != 0
    }

    /// See [`Connection::is_half`].
    pub fn set_half(&mut self, half: bool) {
        self.flags = self.flags & !HALF | if half { HALF } else { 0 };
    }

    /// Whether none of its packets takes a worker's short way.
    #[inline]
    pub(crate) fn takes_the_walk(&self) -> bool {
        self.flags & (REVOKED | HALF) != 0
    }

    /// It has a share in the outside port that it is addressed to, of somebody else inside: the
    /// VPC of that address.
    pub fn peer_vpc(&self) -> Option<VpcId> {
        VpcId::new(self.peer_vpc)
    }

    /// See [`Connection::peer_vpc`].
    pub fn set_peer_vpc(&mut self, vpc: Option<VpcId>) {
        self.peer_vpc = vpc.map_or(0, VpcId::get);
    }

    /// Its tuple was opened anew.
    pub fn begin_again(&mut self) {
        self.offload_from_ns = NEXT_PACKET;
        self.flags &= !ENDING;
        self.set_refusals(0);
    }

    /// How often in a row hardware has refused it, at most 7.
    pub fn refusals(&self) -> u8 {
        self.flags >> REFUSALS_SHIFT & REFUSALS_MAX
    }

    /// See [`Connection::refusals`].
    pub fn set_refusals(&mut self, refusals: u8) {
        let bits = refusals.min(REFUSALS_MAX) << REFUSALS_SHIFT;
        self.flags = self.flags & !(REFUSALS_MAX << REFUSALS_SHIFT) | bits;
    }

    /// It is in software (again) and may be offered to hardware from its next packet on. Says
    /// whether that is because of a change of the tables.
    pub fn back_in_software(&mut self) -> bool {
        let leaving = self.flags & LEAVING != 0;
        self.flags &= !LEAVING;
        self.place.set_offload(Offload::Software);
        self.offload_from_ns = NEXT_PACKET;
        leaving
    }

    /// It is not offered to hardware before that moment.
    pub fn not_offered_before(&mut self, ns: u64) {
        self.offload_from_ns = ns;
    }

    /// Since when it could be in hardware: its first packet in software, or the end of the wait
    /// after a refusal. Asked at every packet.
    #[inline]
    pub fn offered_since_ns(&mut self, now_ns: u64) -> u64 {
        if self.offload_from_ns == NEXT_PACKET {
            self.offload_from_ns = now_ns;
        }
        self.offload_from_ns
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

/// No slot.
const NONE: u32 = u32::MAX;

/// Three cache lines.
#[derive(Debug)]
#[repr(C, align(64))]
struct Slot {
    connection: Option<Connection>,
    /// The tables that `hops` is of.
    hop_generation: u32,
    /// Its timer; the next free slot while it is free.
    link: Link,
}

/// What no packet asks of a slot.
#[derive(Debug)]
struct Cold {
    /// Counts its connections.
    generation: u32,
    /// Its first packet's time in hundredths of a second; 497 days and they start anew.
    created: u32,
}

const HUNDREDTH_NS: u64 = 10_000_000;

/// Issue of memory: 200 for the slot; two keys in the index take 8 bytes each at a load of five
/// sixths, 19; its place in the wheel 4; a mapping, its key and its port's owner (`nat::pool`) 20,
/// 10 and 4 at least. No more than 256 bytes a connection.
const _: () = assert!(size_of::<Slot>() == 192);

impl Links for Vec<Slot> {
    #[inline]
    fn link(&mut self, slot: u32) -> Option<&mut Link> {
        self.get_mut(slot as usize).map(|slot| &mut slot.link)
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
    /// As many.
    cold: Vec<Cold>,
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
        let mut cold = Vec::with_capacity(capacity);
        huge_pages(&mut cold);
        Self {
            slots,
            cold,
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

    /// As [`Table::hashed`].
    #[inline]
    pub(crate) fn hash(&self, key: Key) -> Hashed {
        self.hasher.hashed(key)
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

    /// Asks for all that [`Table::remove`] needs besides the slot itself.
    #[inline]
    pub fn prefetch_removal(&self, slot: u32) {
        if let Some(connection) = self.get(slot) {
            for key in &connection.keys {
                self.index.prefetch(self.hasher.hash(key));
            }
        }
    }

    /// Asks for the connection in a slot.
    #[inline]
    pub fn prefetch_slot(&self, slot: u32) {
        prefetch_slot(&self.slots, slot);
        if let Some(cold) = self.cold.get(slot as usize) {
            prefetch_all(cold);
        }
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

    /// The connection in a slot, and when its timer is due.
    #[inline]
    pub(crate) fn timed(&mut self, slot: u32) -> Option<(&mut Connection, Option<u64>)> {
        let slot = self.slots.get_mut(slot as usize)?;
        Some((slot.connection.as_mut()?, slot.link.due_ns()))
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
        let connection = Connection::new([forward.key, reply.key], route_vpcs, tracker, now_ns);
        let used = self.slots.len();
        let slot = match self.slots.get_mut(self.free as usize) {
            Some(entry) => {
                let slot = std::mem::replace(&mut self.free, entry.link.next());
                entry.link = UNARMED;
                entry.connection = Some(connection);
                slot
            }
            None if used < self.capacity => {
                self.slots.push(Slot {
                    connection: Some(connection),
                    hop_generation: 0,
                    link: UNARMED,
                });
                self.cold.push(Cold {
                    generation: 0,
                    created: 0,
                });
                used as u32
            }
            None => return Err(InsertError::Full),
        };
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
        let Some([forward, reply]) = self.get(slot).map(|connection| {
            let [forward, reply] = &connection.keys;
            [self.hasher.hash(forward), self.hasher.hash(reply)]
        }) else {
            return false;
        };
        self.wheel.cancel(&mut self.slots, slot);
        self.index.remove(forward, slot * 2);
        self.index.remove(reply, slot * 2 + 1);
        if let Some(cold) = self.cold.get_mut(slot as usize) {
            cold.generation = cold.generation.wrapping_add(1);
        }
        if let Some(entry) = self.slots.get_mut(slot as usize) {
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
        let generation = self
            .cold
            .get(slot as usize)
            .map_or(0, |slot| slot.generation);
        ConnectionId::new(slot, generation)
    }

    /// The slot of a connection that is still there.
    pub fn slot_of(&self, id: ConnectionId) -> Option<u32> {
        let cold = self.cold.get(id.slot as usize)?;
        (cold.generation == id.generation && self.get(id.slot).is_some()).then_some(id.slot)
    }

    /// The connection in the slot begins now (again).
    pub fn begin(&mut self, slot: u32, now_ns: u64) {
        if let Some(cold) = self.cold.get_mut(slot as usize) {
            cold.created = (now_ns / HUNDREDTH_NS) as u32;
        }
    }

    /// Since the first packet of the connection in a slot, in hundredths of a second.
    pub fn age(&self, slot: u32, now_ns: u64) -> std::time::Duration {
        let now = (now_ns / HUNDREDTH_NS) as u32;
        let created = self
            .cold
            .get(slot as usize)
            .map_or(now, |cold| cold.created);
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
        let due = self
            .slots
            .get(slot as usize)
            .and_then(|slot| slot.link.due_ns());
        if due.is_none_or(|due| due > deadline_ns) {
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
