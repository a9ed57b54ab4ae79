//! Where units lie, who holds which key, and whose they are.
//!
//! Made for a million entries that come and go: units lie in chunks that never move, and the
//! keys' table has its full size from the start, so that no growth holds up a batch. The keys
//! themselves are with the units; the table has only where.

use hashbrown::HashTable;
use shunt_p4::{FlowEntry, FlowKey};

use super::entries::Entries;
use super::{Owner, UnitRef};
use crate::queue::HardwareCount;
use crate::stats::Times;
use crate::unit::Unit;

/// Units of a chunk.
const CHUNK: usize = 1024;
/// Nobody's place.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Held {
    pub(super) unit: Unit,
    /// Forward, reply. An orphan has only the key of the first.
    pub(super) entries: Entries,
    pub(super) owner: Option<Owner>,
    /// Its keys belong to others still.
    pub(super) waits: bool,
    pub(super) first_packet_ns: u64,
    /// Of the worker's last command about it.
    pub(super) times: Times,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    held: Option<Held>,
    /// Of the keys that it has in the table.
    hashes: [Option<u64>; 2],
}

/// What was read of a unit's entries; kept apart, so that units that are not read need no room.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Of the slot's user that it is about, plus one; 0: of none.
    generation: u64,
    count: HardwareCount,
}

/// All units.
#[derive(Debug)]
pub(super) struct Units {
    chunks: Vec<Box<[Slot]>>,
    /// By chunk; made when one of its units is read.
    counts: Vec<Option<Box<[Counted]>>>,
    free: Vec<u32>,
    used: u32,
    /// Slot × 2 + which of the unit's keys.
    keys: HashTable<u32>,
    hasher: ahash::RandomState,
    /// By port and connection: the slot.
    owners: Vec<Vec<u32>>,
    owned: usize,
}

fn slot_in(chunks: &[Box<[Slot]>], slot: u32) -> Option<&Slot> {
    chunks
        .get(slot as usize / CHUNK)?
        .get(slot as usize % CHUNK)
}

fn key_in(chunks: &[Box<[Slot]>], place: u32) -> Option<FlowKey> {
    let held = slot_in(chunks, place / 2)?.held.as_ref()?;
    let [forward, reply] = held.entries.keys();
    if place.is_multiple_of(2) {
        forward
    } else {
        reply
    }
}

impl Units {
    pub(super) fn new(ports: usize, units_max: usize) -> Self {
        Self {
            chunks: Vec::new(),
            counts: Vec::new(),
            free: Vec::new(),
            used: 0,
            keys: HashTable::with_capacity(2 * units_max),
            hasher: ahash::RandomState::new(),
            owners: vec![Vec::new(); ports],
            owned: 0,
        }
    }

    /// Units that a worker has asked for.
    pub(super) const fn owned(&self) -> usize {
        self.owned
    }

    /// Takes in a unit, which holds no key yet.
    pub(super) fn hold(&mut self, held: Held) -> UnitRef {
        let slot = self.free.pop().unwrap_or_else(|| {
            if self.used as usize == self.chunks.len() * CHUNK {
                let chunk = std::iter::repeat_with(Slot::default).take(CHUNK);
                self.chunks.push(chunk.collect());
            }
            self.used += 1;
            self.used - 1
        });
        if let Some(owner) = held.owner {
            self.own(owner, slot);
            self.owned += 1;
        }
        let mut generation = 0;
        if let Some(place) = self.slot_mut(slot) {
            generation = place.generation;
            place.held = Some(held);
        }
        UnitRef { slot, generation }
    }

    /// Takes out a unit, with its keys.
    pub(super) fn take(&mut self, at: UnitRef) -> Option<Held> {
        let place = self.slot_mut(at.slot)?;
        if place.generation != at.generation {
            return None;
        }
        let held = place.held.take()?;
        place.generation = place.generation.wrapping_add(1);
        let hashes = std::mem::take(&mut place.hashes);
        for (side, hash) in (0u32..).zip(hashes) {
            let place = at.slot * 2 + side;
            if let Some(hash) = hash
                && let Ok(found) = self.keys.find_entry(hash, |other| *other == place)
            {
                found.remove();
            }
        }
        if let Some(owner) = held.owner {
            self.own(owner, NONE);
            self.owned -= 1;
        }
        self.free.push(at.slot);
        Some(held)
    }

    /// The unit holds its keys from now on; nobody else does.
    pub(super) fn claim(&mut self, at: UnitRef) {
        let Some(held) = self.get(at) else { return };
        let hashes = held
            .entries
            .keys()
            .map(|key| Some(self.hasher.hash_one(key?)));
        for (side, hash) in (0u32..).zip(hashes) {
            let Some(hash) = hash else { continue };
            let Self {
                keys,
                chunks,
                hasher,
                ..
            } = self;
            keys.insert_unique(hash, at.slot * 2 + side, |other| {
                key_in(chunks, *other).map_or(0, |key| hasher.hash_one(key))
            });
        }
        if let Some(place) = self.slot_mut(at.slot) {
            place.hashes = hashes;
        }
    }

    /// Who holds a key, and which of its two it is.
    pub(super) fn holder(&self, key: &FlowKey) -> Option<(UnitRef, usize)> {
        let place = *self.keys.find(self.hasher.hash_one(key), |other| {
            key_in(&self.chunks, *other).is_some_and(|held| held == *key)
        })?;
        let slot = place / 2;
        let generation = slot_in(&self.chunks, slot)?.generation;
        Some((UnitRef { slot, generation }, place as usize % 2))
    }

    /// The unit that a worker knows by that name. A worker uses a connection's place for the
    /// next one only when it has heard the last of the one before.
    pub(super) fn of(&self, owner: Owner) -> Option<UnitRef> {
        let slot = self.place_of(owner)?;
        let place = slot_in(&self.chunks, slot)?;
        let held = place.held.as_ref()?;
        (held.owner == Some(owner)).then_some(UnitRef {
            slot,
            generation: place.generation,
        })
    }

    /// Whether the worker has a unit in the same place.
    pub(super) fn is_taken(&self, owner: Owner) -> bool {
        self.place_of(owner).is_some()
    }

    fn place_of(&self, owner: Owner) -> Option<u32> {
        let places = self.owners.get(owner.port)?;
        let slot = *places.get(owner.id.slot as usize)?;
        (slot != NONE).then_some(slot)
    }

    fn own(&mut self, owner: Owner, slot: u32) {
        let Some(places) = self.owners.get_mut(owner.port) else {
            return;
        };
        let at = owner.id.slot as usize;
        if at >= places.len() {
            places.resize(at + 1, NONE);
        }
        if let Some(place) = places.get_mut(at) {
            *place = slot;
        }
    }

    pub(super) fn get(&self, at: UnitRef) -> Option<&Held> {
        let place = slot_in(&self.chunks, at.slot)?;
        let held = place.held.as_ref()?;
        (place.generation == at.generation).then_some(held)
    }

    pub(super) fn get_mut(&mut self, at: UnitRef) -> Option<&mut Held> {
        let place = self.slot_mut(at.slot)?;
        let held = place.held.as_mut()?;
        (place.generation == at.generation).then_some(held)
    }

    /// Slots ever used.
    pub(super) const fn slots(&self) -> u32 {
        self.used
    }

    /// The unit in a slot.
    pub(super) fn at(&self, slot: u32) -> Option<UnitRef> {
        let place = slot_in(&self.chunks, slot)?;
        place.held.as_ref()?;
        let generation = place.generation;
        Some(UnitRef { slot, generation })
    }

    /// What was read last of a unit.
    pub(super) fn count(&self, at: UnitRef) -> Option<HardwareCount> {
        let chunk = self.counts.get(at.slot as usize / CHUNK)?.as_ref()?;
        let counted = chunk.get(at.slot as usize % CHUNK)?;
        (counted.generation == u64::from(at.generation) + 1).then_some(counted.count)
    }

    pub(super) fn set_count(&mut self, at: UnitRef, count: HardwareCount) {
        let chunk = at.slot as usize / CHUNK;
        if chunk >= self.counts.len() {
            self.counts.resize(chunk + 1, None);
        }
        let Some(chunk) = self.counts.get_mut(chunk) else {
            return;
        };
        let chunk = chunk.get_or_insert_with(|| vec![Counted::default(); CHUNK].into());
        if let Some(counted) = chunk.get_mut(at.slot as usize % CHUNK) {
            *counted = Counted {
                generation: u64::from(at.generation) + 1,
                count,
            };
        }
    }

    /// As [`Units::count`], and it counts as not read from now on.
    pub(super) fn take_count(&mut self, at: UnitRef) -> Option<HardwareCount> {
        let count = self.count(at)?;
        let chunk = self.counts.get_mut(at.slot as usize / CHUNK)?.as_mut()?;
        chunk.get_mut(at.slot as usize % CHUNK)?.generation = 0;
        Some(count)
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.chunks
            .get_mut(slot as usize / CHUNK)?
            .get_mut(slot as usize % CHUNK)
    }

    /// All units that hold their keys, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (UnitRef, &Held)> {
        let slots = (0u32..).zip(self.chunks.iter().flatten());
        slots.filter_map(|(slot, place)| {
            let held = place.held.as_ref().filter(|held| !held.waits)?;
            let generation = place.generation;
            Some((UnitRef { slot, generation }, held))
        })
    }
}

/// A unit's own memory; a million of them is a quarter of a gigabyte.
const _: () = assert!(size_of::<Slot>() <= 2 * size_of::<FlowEntry>() + 104);
