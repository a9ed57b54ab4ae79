//! The outside addresses that ports are leased of, by number.

use std::collections::HashMap;
use std::net::IpAddr;

use shunt_p4::VpcId;

use super::mapping::Inside;
use crate::conntrack::hasher;

/// Outside addresses, of one VPC and protocol each, that a worker leases ports of at a time: with
/// a port, the number of one fits 32 bits, of which the largest is none.
pub const MAX_SETS: usize = 65_535;

/// Sets that are looked at, when there are so many, for one without leases to take its place.
const MAX_LOOKED_AT: usize = 64;

/// Sets that are remembered: one for the last bits of an address.
const RECENT: usize = 256;

/// An outside address of a VPC, and a protocol.
pub(super) type SetKey = (VpcId, IpAddr, u8);

/// One outside address and protocol.
#[derive(Debug)]
pub(super) struct PortSet {
    pub(super) key: SetKey,
    /// See [`Inside::shared`].
    pub(super) shared: u64,
    /// Ports that are leased.
    pub(super) leased: u32,
}

impl PortSet {
    fn new(key: SetKey) -> Self {
        let (vpc, address, proto) = key;
        Self {
            key,
            shared: Inside::shared(vpc, proto, address.is_ipv6()),
            leased: 0,
        }
    }

    #[inline]
    pub(super) fn address(&self) -> IpAddr {
        self.key.1
    }
}

/// A set by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is there.
    Old(u32),
    /// It was made: its ports are to be made too.
    New(u32),
}

/// Made at the first use of an address and protocol, and kept until their number is needed.
#[derive(Debug)]
pub(super) struct Sets {
    sets: Vec<PortSet>,
    set_of: HashMap<SetKey, u32, ahash::RandomState>,
    /// Sets that were asked for not long ago.
    recent: Box<[u32; RECENT]>,
    pub(super) limit: usize,
    /// Where the next one without leases is looked for.
    hand: usize,
    /// How many have taken another's place; for comparison with what it was a moment ago.
    replaced: u16,
}

impl Sets {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            sets: Vec::new(),
            set_of: HashMap::with_hasher(hasher(seed)),
            recent: Box::new([0; RECENT]),
            limit: MAX_SETS,
            hand: 0,
            replaced: 0,
        }
    }

    #[inline]
    pub(super) fn get(&self, set: u32) -> Option<&PortSet> {
        self.sets.get(set as usize)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, set: u32) -> Option<&mut PortSet> {
        self.sets.get_mut(set as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PortSet> {
        self.sets.iter()
    }

    /// The set of that key, if it was made.
    pub(super) fn number(&self, key: &SetKey) -> Option<u32> {
        self.set_of.get(key).copied()
    }

    #[inline]
    pub(super) fn replaced(&self) -> u16 {
        self.replaced
    }

    #[inline]
    fn recent(key: &SetKey) -> usize {
        let low = match key.1 {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => address.to_bits() as u32,
        };
        low as usize % RECENT
    }

    /// The set of that key, if it was asked for not long ago.
    #[inline]
    pub(super) fn known(&self, key: &SetKey) -> Option<u32> {
        let set = self.recent[Self::recent(key)];
        (self.get(set)?.key == *key).then_some(set)
    }

    /// The set of that key, made if need be; in place of another one, if there are as many as can
    /// be. `None`: of those that were looked at, none was without leases.
    #[inline(never)]
    pub(super) fn make(&mut self, key: SetKey) -> Option<Found> {
        let found = match self.number(&key) {
            Some(set) => Found::Old(set),
            None if !self.is_full() => {
                self.sets.push(PortSet::new(key));
                Found::New((self.sets.len() - 1) as u32)
            }
            None => {
                let at = self.unused();
                self.hand = (self.hand + MAX_LOOKED_AT) % self.sets.len().max(1);
                let set = self.sets.get_mut(at?)?;
                self.set_of.remove(&set.key);
                *set = PortSet::new(key);
                self.replaced = self.replaced.wrapping_add(1);
                Found::Old(at? as u32)
            }
        };
        let (Found::Old(set) | Found::New(set)) = found;
        self.set_of.insert(key, set);
        self.recent[Self::recent(&key)] = set;
        Some(found)
    }

    /// Whether a further set takes the place of another one.
    pub(super) fn is_full(&self) -> bool {
        self.sets.len() >= self.limit
    }

    /// Whether one more set can be made.
    pub(super) fn has_room(&self) -> bool {
        !self.is_full() || self.unused().is_some()
    }

    /// One without leases, if there is one soon after `hand`.
    fn unused(&self) -> Option<usize> {
        let len = self.sets.len();
        (0..MAX_LOOKED_AT.min(len))
            .map(|n| (self.hand + n) % len)
            .find(|at| self.sets.get(*at).is_some_and(|set| set.leased == 0))
    }
}
