//! Where destinations lead, remembered: the look-ups of route, next hop and neighbour that every
//! packet needs are done once a destination, until the tables change. A connection remembers its
//! next hops by number, so that its packets look at nothing else.

use std::collections::HashMap;
use std::net::IpAddr;

use shunt_p4::frame::{ENCAP_LEN, ShuntHeader};
use shunt_p4::{Interface, InterfaceId, MacAddr, VpcId};

use shunt_dpdk::{huge_pages, prefetch};

use crate::conntrack::{KeyHasher, address, hasher, words};
use crate::fib::{Fib, Resolution};

/// Destinations that are remembered, a worker: 640 KiB. One more takes the place of another.
pub const MAX_HOPS: usize = 1 << 14;

/// Next hops that have a number: connections remember theirs by it. Others are looked up among
/// the destinations at every packet.
pub const MAX_NUMBERED: usize = 4096;

/// A path out whose neighbour is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) interface: &'a Interface,
    mac: MacAddr,
    pub(super) mtu: u16,
    /// No NAT rule has anything to say about the destination.
    pub(super) clear: bool,
    /// See [`Hops::numbered`]; 0: it has none.
    pub(super) number: u16,
}

/// The same without the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Numbered {
    interface: InterfaceId,
    mac: MacAddr,
    mtu: u16,
}

/// Bytes in front of the ethertype of a frame that leaves.
pub(super) const WAY_LEN: usize = ENCAP_LEN + 12;

/// The same as a packet needs it, in a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Way {
    /// The header for the switch, and both Ethernet addresses.
    pub(super) head: [u8; WAY_LEN],
    /// Largest IP packet, bytes.
    pub(super) mtu: u16,
    pub(super) interface: InterfaceId,
}

impl Way {
    pub(super) fn new(known: &Known<'_>) -> Self {
        let mut head = [0; WAY_LEN];
        let (encap, macs) = head.split_at_mut(ENCAP_LEN);
        encap.copy_from_slice(&ShuntHeader::egress(known.interface.id).encode());
        let (dst, src) = macs.split_at_mut(6);
        dst.copy_from_slice(&known.mac.0);
        src.copy_from_slice(&known.interface.mac.0);
        Self {
            head,
            mtu: known.mtu,
            interface: known.interface.id,
        }
    }
}

/// Only paths that are the same for all flows, neighbour known.
#[derive(Clone, Copy, Debug)]
struct Entry {
    dst: [u64; 2],
    /// See [`stamp`], and `CLEAR`; 0: empty.
    stamp: u32,
    vpc: u16,
    interface: u16,
    mac: MacAddr,
    mtu: u16,
    number: u16,
}

/// The tables that something was looked up in, and the address's family; the lowest bit is free.
/// Their generation is cut to 30 bits, so it is taken for current after 2^30 publishes: twelve days
/// at a thousand a second. 0 for tables in which there is nothing to find yet.
#[inline]
pub(super) fn stamp(fib: &Fib, v6: bool) -> u32 {
    match fib.generation() as u32 & (u32::MAX >> 2) {
        0 => 0,
        generation => generation << 2 | u32::from(v6) << 1,
    }
}

/// In an entry's stamp: [`Known::clear`].
const CLEAR: u32 = 1;

const _: () = assert!(size_of::<Entry>() == 40);

const EMPTY: Entry = Entry {
    dst: [0; 2],
    stamp: 0,
    vpc: 0,
    interface: 0,
    mac: MacAddr([0; 6]),
    mtu: 0,
    number: 0,
};

/// Direct mapped: a destination has one place.
#[derive(Debug)]
pub(super) struct Hops {
    entries: Vec<Entry>,
    hasher: KeyHasher,
    /// The tables that the numbers are of.
    generation: u64,
    /// Next hops by their number, less one.
    ways: Vec<Way>,
    numbers: HashMap<Numbered, u16, ahash::RandomState>,
}

impl Hops {
    pub(super) fn new(seed: u64) -> Self {
        let mut entries = Vec::with_capacity(MAX_HOPS);
        huge_pages(&mut entries);
        entries.resize(MAX_HOPS, EMPTY);
        Self {
            entries,
            hasher: KeyHasher::new(seed),
            generation: 0,
            ways: Vec::with_capacity(MAX_NUMBERED),
            numbers: HashMap::with_capacity_and_hasher(MAX_NUMBERED, hasher(seed)),
        }
    }

    #[inline]
    fn place(&self, vpc: VpcId, dst: [u64; 2]) -> usize {
        let hash = self.hasher.words(dst, [u64::from(vpc.get()), 0], 2);
        // A power of two.
        hash as usize % MAX_HOPS
    }

    /// Asks for what is remembered of a destination.
    #[inline]
    pub(super) fn prefetch(&self, vpc: VpcId, dst: [u64; 2]) {
        if let Some(entry) = self.entries.get(self.place(vpc, dst)) {
            prefetch(entry);
        }
    }

    /// The next hop of that number, which a connection got in these tables.
    #[inline]
    pub(super) fn numbered(&self, number: u16) -> Option<&Way> {
        self.ways.get(usize::from(number).wrapping_sub(1))
    }

    /// The next hop of a destination that is remembered.
    #[inline]
    fn known<'a>(&self, fib: &'a Fib, vpc: VpcId, dst: [u64; 2], v6: bool) -> Option<Known<'a>> {
        let entry = self.entries.get(self.place(vpc, dst))?;
        let stamp = stamp(fib, v6);
        let current = entry.stamp & !CLEAR == stamp && stamp != 0;
        if entry.dst != dst || entry.vpc != vpc.get() || !current {
            return None;
        }
        Some(Known {
            interface: fib.interface(InterfaceId::new(entry.interface)?)?,
            mac: entry.mac,
            mtu: entry.mtu,
            clear: entry.stamp & CLEAR != 0,
            number: entry.number,
        })
    }

    /// The next hop of a destination, which is remembered.
    #[inline]
    pub(super) fn learn<'a>(
        &mut self,
        fib: &'a Fib,
        vpc: VpcId,
        dst: [u64; 2],
        v6: bool,
    ) -> Option<Known<'a>> {
        match self.known(fib, vpc, dst, v6) {
            Some(known) => Some(known),
            None => self.look_up(fib, vpc, address(dst, v6)),
        }
    }

    /// A number by which a next hop is found until the tables change; 0 for none.
    fn number(&mut self, fib: &Fib, known: &Known<'_>) -> u16 {
        if self.generation != fib.generation() {
            self.generation = fib.generation();
            self.ways.clear();
            self.numbers.clear();
        }
        let hop = Numbered {
            interface: known.interface.id,
            mac: known.mac,
            mtu: known.mtu,
        };
        if let Some(number) = self.numbers.get(&hop) {
            return *number;
        }
        if self.ways.len() >= MAX_NUMBERED {
            return 0;
        }
        self.ways.push(Way::new(known));
        let number = self.ways.len() as u16;
        self.numbers.insert(hop, number);
        number
    }

    #[inline(never)]
    fn look_up<'a>(&mut self, fib: &'a Fib, vpc: VpcId, dst: IpAddr) -> Option<Known<'a>> {
        if !fib.has_one_path(vpc, dst) {
            return None;
        }
        let Resolution::Via(hop) = fib.resolve(vpc, dst, 0) else {
            return None;
        };
        let (rules, to) = (fib.rules(), hop.interface.vpc);
        let mut known = Known {
            interface: hop.interface,
            mac: fib.neighbor(hop.interface.id, hop.address)?,
            mtu: hop.mtu,
            clear: !rules.is_outside(vpc, dst) && !rules.is_outside(to, dst),
            number: 0,
        };
        known.number = self.number(fib, &known);
        let place = self.place(vpc, words(dst));
        if let Some(entry) = self.entries.get_mut(place) {
            *entry = Entry {
                dst: words(dst),
                stamp: stamp(fib, dst.is_ipv6()) | (u32::from(known.clear) * CLEAR),
                vpc: vpc.get(),
                interface: known.interface.id.get(),
                mac: known.mac,
                mtu: known.mtu,
                number: known.number,
            };
        }
        Some(known)
    }
}
