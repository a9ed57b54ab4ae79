//! Leases of outside addresses and ports.

mod ports;
mod retake;

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use shunt_dpdk::{huge_pages, prefetch};
use shunt_p4::{Tuple, VpcId};

use super::Rules;
use super::addresses::candidates;
use crate::conntrack::{Index, Key, KeyHasher, address, hasher};
use crate::policy::{Masquerade, PortRange};

use ports::{Blocks, PARITY, PortSet};
pub use ports::{PORT_BLOCK, PortShare};
pub use retake::RetakeError;

/// A share in a mapping. Not `Copy`: it is given back once, to [`Nat::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is not given back keeps its port for ever"]
pub struct Lease(NonZeroU32);

impl Lease {
    /// `None` for the largest number, which is no mapping's.
    fn new(at: u32) -> Option<Self> {
        NonZeroU32::new(at.wrapping_add(1)).map(Self)
    }

    fn at(&self) -> u32 {
        self.0.get() - 1
    }
}

/// A lease and what it is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Leased {
    /// To be given back.
    pub lease: Lease,
    /// Outside address.
    pub address: IpAddr,
    /// Outside port, or echo identifier.
    pub port: u16,
    /// Nobody else had the mapping yet.
    pub fresh: bool,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The pool has no address of the packet's family.
    #[error("the pool has no address of this family")]
    NoAddress,
    /// All ports of every address tried are leased.
    #[error("all ports of the pool are leased")]
    Exhausted,
    /// As many mappings as connections are allowed.
    #[error("the mapping table is full")]
    Full,
}

/// How much of an outside address is leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PoolUse {
    /// The address's VPC.
    pub vpc: VpcId,
    /// The address.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Ports, or echo identifiers, that are leased.
    pub leased: u32,
}

/// The inside end of a mapping, and the VPC that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inside {
    address: [u64; 2],
    /// VPC, VPC of the outside, port (16 bits each), protocol, and 1 for IPv6.
    rest: u64,
}

impl Inside {
    #[inline]
    fn new(vpc: VpcId, to: VpcId, tuple: &Tuple) -> Self {
        Self::of(to, &Key::new(vpc, tuple))
    }

    /// The source of a packet that leaves through `to`.
    #[inline]
    fn of(to: VpcId, packet: &Key) -> Self {
        Self {
            address: packet.src(),
            rest: u64::from(packet.vpc().get()) << 48
                | u64::from(to.get()) << 32
                | u64::from(packet.port_pair().0) << 16
                | u64::from(packet.proto()) << 8
                | u64::from(packet.is_ipv6()),
        }
    }

    #[inline]
    fn hash(&self, hasher: &KeyHasher) -> u64 {
        hasher.words(self.address, [self.rest, 0], 0)
    }

    fn vpc(&self) -> u16 {
        (self.rest >> 48) as u16
    }

    fn port(&self) -> u16 {
        (self.rest >> 16) as u16
    }

    fn proto(&self) -> u8 {
        (self.rest >> 8) as u8
    }

    fn is_ipv4(&self) -> bool {
        self.rest & 1 == 0
    }

    fn address(&self) -> IpAddr {
        address(self.address, self.rest & 1 == 1)
    }
}

/// Where a lease is looked for first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    inside: Inside,
    hash: u64,
    home: u64,
    /// The set of the first address.
    set: u32,
    /// The first port.
    start: u16,
}

/// No mapping.
const NOBODY: u32 = u32::MAX;

/// `Inside` without what its port set says.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    /// The inside address, or of IPv6 its place in [`Sixes`].
    address: u32,
    /// The outside address, its VPC and the protocol.
    set: u32,
    /// Connections that have it; 0: the slot is free.
    holders: u32,
    vpc: u16,
    inside_port: u16,
    port: u16,
    /// Found by its inside. Not if its pool was changed under it.
    indexed: bool,
}

const _: () = assert!(size_of::<Mapping>() == 20);

/// Inside addresses of IPv6 mappings, which are few: those of IPv4 would carry twelve bytes for
/// nothing.
#[derive(Debug, Default)]
struct Sixes {
    addresses: Vec<[u64; 2]>,
    free: Vec<u32>,
}

impl Sixes {
    fn add(&mut self, address: [u64; 2]) -> u32 {
        if let Some(at) = self.free.pop()
            && let Some(place) = self.addresses.get_mut(at as usize)
        {
            *place = address;
            return at;
        }
        self.addresses.push(address);
        (self.addresses.len() - 1) as u32
    }

    fn get(&self, at: u32) -> [u64; 2] {
        self.addresses.get(at as usize).copied().unwrap_or_default()
    }

    fn remove(&mut self, at: u32) {
        self.free.push(at);
    }
}

impl Mapping {
    /// The outside address, if the rule could have given it and the port.
    fn address_of(&self, sets: &[PortSet], rule: &Masquerade) -> Option<IpAddr> {
        let address = sets.get(self.set as usize)?.address;
        rule.gives(address, self.port).then_some(address)
    }

    fn inside(&self, sets: &[PortSet], sixes: &Sixes) -> Inside {
        let set = sets.get(self.set as usize);
        let (to, proto, v6) = set.map_or((0, 0, false), |set| {
            (set.vpc.get(), set.proto, set.address.is_ipv6())
        });
        Inside {
            address: match v6 {
                true => sixes.get(self.address),
                false => [0, u64::from(self.address)],
            },
            rest: u64::from(self.vpc) << 48
                | u64::from(to) << 32
                | u64::from(self.inside_port) << 16
                | u64::from(proto) << 8
                | u64::from(v6),
        }
    }
}

/// Sets that are remembered: one for the last bits of an address.
const RECENT: usize = 256;

/// All leases of one worker.
#[derive(Debug)]
pub struct Nat {
    /// Made at the first use of an address and protocol, and kept.
    sets: Vec<PortSet>,
    /// As many.
    blocks: Blocks,
    set_of: HashMap<(VpcId, IpAddr, u8), u32, ahash::RandomState>,
    /// Sets that were asked for not long ago.
    recent: Box<[u32; RECENT]>,
    mappings: Vec<Mapping>,
    sixes: Sixes,
    /// The first free mapping below the end; `set` links it to the next.
    free: u32,
    /// Mappings that are held.
    held: usize,
    index: Index,
    hasher: KeyHasher,
    capacity: usize,
    /// Where ports start follows from it.
    salt: u64,
    share: PortShare,
}

impl Nat {
    /// Room for `capacity` mappings, of all ports. Where a port is looked for first follows from the
    /// inside socket and a secret made of `seed` (as in RFC 6056 section 3.3.3).
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self::shared(capacity, seed, PortShare::ALL)
    }

    /// As [`Nat::new`], of a worker's share of the ports. Workers with the same seed pair
    /// inside and outside addresses alike.
    pub fn shared(capacity: u32, seed: u64, share: PortShare) -> Self {
        let capacity = capacity.max(1) as usize;
        let mut mappings = Vec::with_capacity(capacity);
        huge_pages(&mut mappings);
        Self {
            sets: Vec::new(),
            blocks: Blocks::default(),
            set_of: HashMap::with_hasher(hasher(seed)),
            recent: Box::new([0; RECENT]),
            mappings,
            sixes: Sixes::default(),
            free: NOBODY,
            held: 0,
            index: Index::new(capacity),
            hasher: KeyHasher::new(seed),
            capacity,
            salt: seed,
            share,
        }
    }

    /// Asks for where the mapping of a packet's source is found.
    #[inline]
    pub fn prefetch(&self, packet: &Key, to: VpcId) {
        self.index
            .prefetch(Inside::of(to, packet).hash(&self.hasher));
    }

    /// Asks for the mapping of a lease.
    #[inline]
    pub fn prefetch_lease(&self, lease: &Lease) {
        if let Some(mapping) = self.mappings.get(lease.at() as usize) {
            prefetch(mapping);
        }
    }

    /// Asks for the port of a lease, when its mapping has come.
    #[inline]
    pub fn prefetch_port(&self, lease: &Lease) {
        if let Some(mapping) = self.mappings.get(lease.at() as usize) {
            self.blocks.prefetch(mapping.set, mapping.port);
        }
    }

    /// A share in the mapping of the tuple's source; a new mapping if it has none yet.
    /// `rules` says which ports are forwarded and so not to be had.
    ///
    /// # Errors
    /// [`LeaseError`]; nothing was leased.
    pub fn lease(
        &mut self,
        rules: &Rules,
        rule: &Masquerade,
        tuple: &Tuple,
    ) -> Result<Leased, LeaseError> {
        let ask = self.ask(rule, &Key::new(rule.vpc, tuple))?;
        self.grant(rules, rule, &ask)
    }

    /// Decides where a lease for that packet's source will be looked for, and asks for the memory:
    /// with several packets at hand, first ask for all, then [`Nat::grant`].
    ///
    /// # Errors
    /// The pool has no address of the family.
    pub(crate) fn ask(&mut self, rule: &Masquerade, packet: &Key) -> Result<Ask, LeaseError> {
        let inside = Inside::of(rule.to, packet);
        let hash = inside.hash(&self.hasher);
        self.index.prefetch(hash);
        let home = self.home(&inside);
        let address = candidates(rule, !packet.is_ipv6(), home)?.next();
        let set = self.set(
            rule.to,
            address.ok_or(LeaseError::NoAddress)?,
            packet.proto(),
        );
        let span = u64::from(rule.ports.count());
        let random = self
            .hasher
            .words(inside.address, [inside.rest, self.salt], 2);
        let offset = (((random >> 32) * span) >> 32) as u16;
        // Within the range: its first port plus less than its length.
        let start = rule.ports.first().saturating_add(offset);
        self.blocks.prefetch(set, start);
        Ok(Ask {
            inside,
            hash,
            home,
            set,
            start,
        })
    }

    /// A lease as it was asked for.
    ///
    /// # Errors
    /// [`LeaseError`]; nothing was leased.
    pub(crate) fn grant(
        &mut self,
        rules: &Rules,
        rule: &Masquerade,
        ask: &Ask,
    ) -> Result<Leased, LeaseError> {
        let Ask { inside, hash, .. } = ask;
        if let Some(leased) = self.share(inside, *hash, rule) {
            return Ok(leased);
        }
        let at = self.next_mapping().ok_or(LeaseError::Full)?;
        let lease = Lease::new(at).ok_or(LeaseError::Full)?;
        let (set, port) = self.find_port(rules, rule, ask, at)?;
        let address = self
            .sets
            .get(set as usize)
            .map(|set| set.address)
            .ok_or(LeaseError::NoAddress)?;
        self.hold(at, inside, *hash, set, port);
        Ok(Leased {
            lease,
            address,
            port,
            fresh: true,
        })
    }

    /// Where the next mapping will be.
    fn next_mapping(&self) -> Option<u32> {
        match self.free {
            NOBODY if self.mappings.len() < self.capacity => Some(self.mappings.len() as u32),
            NOBODY => None,
            free => Some(free),
        }
    }

    /// A new mapping, held once, in its place.
    fn hold(&mut self, at: u32, inside: &Inside, hash: u64, set: u32, port: u16) {
        let mapping = Mapping {
            address: match inside.is_ipv4() {
                true => inside.address[1] as u32,
                false => self.sixes.add(inside.address),
            },
            set,
            holders: 1,
            vpc: inside.vpc(),
            inside_port: inside.port(),
            port,
            indexed: self.index.insert(hash, at),
        };
        match self.mappings.get_mut(at as usize) {
            Some(slot) => {
                self.free = slot.set;
                *slot = mapping;
            }
            None => self.mappings.push(mapping),
        }
        self.held += 1;
    }

    /// Who has leased an outside address and port: inside VPC, address and port.
    pub fn inside(
        &self,
        to: VpcId,
        address: IpAddr,
        proto: u8,
        port: u16,
    ) -> Option<(VpcId, IpAddr, u16)> {
        let at = self.mapping_of(to, address, proto, port)?;
        let mapping = self.mappings.get(at as usize)?;
        let inside = mapping.inside(&self.sets, &self.sixes);
        Some((
            VpcId::new(mapping.vpc)?,
            inside.address(),
            mapping.inside_port,
        ))
    }

    /// Takes a share in the mapping that has leased an outside address and port. Whether there
    /// is one.
    pub fn join(&mut self, to: VpcId, address: IpAddr, proto: u8, port: u16) -> bool {
        let at = self.mapping_of(to, address, proto, port);
        match at.and_then(|at| self.mappings.get_mut(at as usize)) {
            Some(mapping) => {
                mapping.holders += 1;
                true
            }
            None => false,
        }
    }

    /// Gives back the share that [`Nat::join`] took; the port has been leased ever since.
    pub fn leave(&mut self, to: VpcId, address: IpAddr, proto: u8, port: u16) {
        if let Some(lease) = self
            .mapping_of(to, address, proto, port)
            .and_then(Lease::new)
        {
            self.release(lease);
        }
    }

    fn mapping_of(&self, to: VpcId, address: IpAddr, proto: u8, port: u16) -> Option<u32> {
        let set = *self.set_of.get(&(to, address, proto))?;
        self.blocks.owner(set, port)
    }

    /// The outside address that [`Nat::lease`] would give, and the port if it is one that the
    /// tuple's source has already; leases nothing.
    ///
    /// # Errors
    /// As [`Nat::lease`].
    pub fn would_lease(
        &self,
        rules: &Rules,
        rule: &Masquerade,
        tuple: &Tuple,
    ) -> Result<(IpAddr, Option<u16>), LeaseError> {
        let inside = Inside::new(rule.vpc, rule.to, tuple);
        if let Some(mapping) = self
            .find(&inside, inside.hash(&self.hasher))
            .and_then(|at| self.mappings.get(at as usize))
            && let Some(address) = mapping.address_of(&self.sets, rule)
        {
            return Ok((address, Some(mapping.port)));
        }
        if self.free == NOBODY && self.mappings.len() >= self.capacity {
            return Err(LeaseError::Full);
        }
        let proto = inside.proto();
        for address in candidates(rule, tuple.src.is_ipv4(), self.home(&inside))? {
            let usable = |port: &u16| !rules.is_forwarded(rule.to, address, proto, *port);
            let set = self.set_of.get(&(rule.to, address, proto));
            let free = |port: &u16| {
                self.share.has_block(usize::from(port / PORT_BLOCK))
                    && set.is_none_or(|set| !self.blocks.is_leased(*set, *port))
            };
            let mut ports = rule.ports.first()..=rule.ports.last();
            if ports.any(|port| free(&port) && usable(&port)) {
                return Ok((address, None));
            }
        }
        Err(LeaseError::Exhausted)
    }

    /// Gives a share back. The port is free when it was the last one.
    pub fn release(&mut self, lease: Lease) {
        let at = lease.at();
        let Some(mapping) = self.mappings.get_mut(at as usize) else {
            return;
        };
        mapping.holders = mapping.holders.saturating_sub(1);
        if mapping.holders > 0 {
            return;
        }
        let gone = *mapping;
        if gone.indexed {
            let inside = gone.inside(&self.sets, &self.sixes);
            self.index.remove(inside.hash(&self.hasher), at);
        }
        let freed = self.blocks.mark(gone.set, gone.port, false);
        self.blocks.own(gone.set, gone.port, NOBODY);
        if let Some(set) = self.sets.get_mut(gone.set as usize) {
            set.leased -= u32::from(freed);
            if set.address.is_ipv6() {
                self.sixes.remove(gone.address);
            }
        }
        if let Some(mapping) = self.mappings.get_mut(at as usize) {
            mapping.set = self.free;
            self.free = at;
        }
        self.held -= 1;
    }

    /// Mappings that are held.
    pub fn mappings(&self) -> usize {
        self.held
    }

    /// Outside addresses that have leases.
    pub fn pool_use(&self) -> impl Iterator<Item = PoolUse> {
        self.sets
            .iter()
            .filter(|set| set.leased > 0)
            .map(|set| PoolUse {
                vpc: set.vpc,
                address: set.address,
                protocol: set.proto,
                leased: set.leased,
            })
    }

    /// Leased ports of an outside address within a range.
    pub fn leased_in(&self, vpc: VpcId, address: IpAddr, protocol: u8, ports: PortRange) -> u32 {
        self.set_of
            .get(&(vpc, address, protocol))
            .map_or(0, |set| self.blocks.leased_in(*set, ports))
    }

    fn find(&self, inside: &Inside, hash: u64) -> Option<u32> {
        self.index.find(hash, |at| {
            self.mappings
                .get(at as usize)
                .is_some_and(|mapping| mapping.inside(&self.sets, &self.sixes) == *inside)
        })
    }

    /// By which an inside address has its outside address.
    fn home(&self, inside: &Inside) -> u64 {
        self.hasher
            .words(inside.address, [u64::from(inside.vpc()), 0], 1)
    }

    fn share(&mut self, inside: &Inside, hash: u64, rule: &Masquerade) -> Option<Leased> {
        let at = self.find(inside, hash)?;
        let mapping = self.mappings.get_mut(at as usize)?;
        if let Some(address) = mapping.address_of(&self.sets, rule) {
            mapping.holders += 1;
            return Some(Leased {
                lease: Lease::new(at)?,
                address,
                port: mapping.port,
                fresh: false,
            });
        }
        // The configuration took its address or port away: it lives on for its holders only.
        mapping.indexed = false;
        self.index.remove(hash, at);
        None
    }

    /// The set of an outside address, made at its first use.
    fn set(&mut self, vpc: VpcId, address: IpAddr, proto: u8) -> u32 {
        let low = match address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => address.to_bits() as u32,
        };
        let recent = &mut self.recent[low as usize % RECENT];
        if let Some(set) = self.sets.get(*recent as usize)
            && (set.vpc, set.address, set.proto) == (vpc, address, proto)
        {
            return *recent;
        }
        let (sets, blocks) = (&mut self.sets, &mut self.blocks);
        *recent = *self.set_of.entry((vpc, address, proto)).or_insert_with(|| {
            sets.push(PortSet {
                vpc,
                address,
                proto,
                leased: 0,
            });
            blocks.add();
            (sets.len() - 1) as u32
        });
        *recent
    }

    /// A free port. All connections of an inside address start at the same outside address
    /// (RFC 4787 REQ-2, "paired"), and go on to the next only when that is used up.
    /// Where in the range nobody outside can tell; the port's parity is kept if it can be (RFC 4787 REQ-4).
    fn find_port(
        &mut self,
        rules: &Rules,
        rule: &Masquerade,
        ask: &Ask,
        mapping: u32,
    ) -> Result<(u32, u16), LeaseError> {
        if let Some(port) = self.port_of(ask.set, rules, rule, ask, mapping) {
            return Ok((ask.set, port));
        }
        let proto = ask.inside.proto();
        for address in candidates(rule, ask.inside.is_ipv4(), ask.home)?.skip(1) {
            let set = self.set(rule.to, address, proto);
            if let Some(port) = self.port_of(set, rules, rule, ask, mapping) {
                return Ok((set, port));
            }
        }
        Err(LeaseError::Exhausted)
    }

    #[inline]
    fn port_of(
        &mut self,
        set: u32,
        rules: &Rules,
        rule: &Masquerade,
        ask: &Ask,
        mapping: u32,
    ) -> Option<u16> {
        let (blocks, share) = (&mut self.blocks, self.share);
        let of = self.sets.get_mut(set as usize)?;
        let (address, proto) = (of.address, of.proto);
        let usable = |port| !rules.is_forwarded(rule.to, address, proto, port);
        let parity = PARITY[usize::from(ask.inside.port() % 2)];
        let mut masks = [parity, !parity].into_iter();
        let lease = |mask| blocks.lease(set, rule.ports, ask.start, share, mask, usable);
        let port = masks.find_map(lease)?;
        of.leased += 1;
        self.blocks.own(set, port, mapping);
        Some(port)
    }
}
