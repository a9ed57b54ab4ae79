//! Leases of outside addresses and ports.

use std::collections::HashMap;
use std::net::IpAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shunt_p4::{Tuple, VpcId};

use super::Rules;
use crate::conntrack::{Index, hasher};
use crate::policy::{AddressRange, Masquerade, PortRange};

/// Addresses of a pool that are tried for one connection before it is refused.
pub const MAX_ADDRESSES_TRIED: u64 = 64;

/// A share in a mapping. Not `Copy`: it is given back once, to [`Nat::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is not given back keeps its port for ever"]
pub struct Lease(u32);

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

/// The inside end of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Inside {
    vpc: VpcId,
    to: VpcId,
    address: IpAddr,
    port: u16,
    proto: u8,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    inside: Inside,
    address: IpAddr,
    port: u16,
    /// Connections that have it; 0: the slot is free.
    holders: u32,
    /// Found by `inside`. Not if its pool was changed under it.
    indexed: bool,
}

impl Mapping {
    /// Whether the rule could have given it.
    fn is_of(&self, rule: &Masquerade) -> bool {
        rule.ports.contains(self.port) && rule.pool.iter().any(|range| range.contains(self.address))
    }
}

/// No mapping has the port.
const NOBODY: u32 = u32::MAX;

/// A set of ports: one bit each, and which mapping has it.
#[derive(Debug)]
struct PortSet {
    words: Box<[u64; 1024]>,
    owners: Box<[u32]>,
    leased: u32,
}

impl PortSet {
    fn new() -> Self {
        Self {
            words: Box::new([0; 1024]),
            owners: vec![NOBODY; 1 << 16].into_boxed_slice(),
            leased: 0,
        }
    }

    fn release(&mut self, port: u16) {
        if let Some(word) = self.words.get_mut(usize::from(port) / 64) {
            let bit = 1 << (port % 64);
            self.leased -= u32::from(*word & bit != 0);
            *word &= !bit;
        }
        self.own(port, NOBODY);
    }

    fn own(&mut self, port: u16, mapping: u32) {
        if let Some(owner) = self.owners.get_mut(usize::from(port)) {
            *owner = mapping;
        }
    }

    fn contains(&self, port: u16) -> bool {
        let word = self.words.get(usize::from(port) / 64);
        word.is_some_and(|word| word & 1 << (port % 64) != 0)
    }

    fn leased_in(&self, range: PortRange) -> u32 {
        (range.first() / 64..=range.last() / 64)
            .map(|at| {
                let word = self.words.get(usize::from(at)).copied().unwrap_or(0);
                let (first, last) = (at * 64, at * 64 + 63);
                let low = u64::MAX << range.first().saturating_sub(first);
                let high = u64::MAX >> last.saturating_sub(range.last());
                (word & low & high).count_ones()
            })
            .sum()
    }

    /// Leases the first free port at or after `start`, around the end of `range`. A whole word
    /// of leased ports is skipped at once.
    fn lease(
        &mut self,
        range: PortRange,
        start: u16,
        mut usable: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        self.lease_between(start, range.last(), &mut usable)
            .or_else(|| {
                let end = start.checked_sub(1).filter(|end| *end >= range.first())?;
                self.lease_between(range.first(), end, &mut usable)
            })
    }

    fn lease_between(
        &mut self,
        first: u16,
        last: u16,
        usable: &mut impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        let mut port = u32::from(first);
        while port <= u32::from(last) {
            let word = self.words.get_mut(port as usize / 64)?;
            let free = !*word >> (port % 64);
            if free == 0 {
                port = (port / 64 + 1) * 64;
                continue;
            }
            port += free.trailing_zeros();
            let candidate = u16::try_from(port).ok().filter(|port| *port <= last)?;
            if usable(candidate) {
                *word |= 1 << (candidate % 64);
                self.leased += 1;
                return Some(candidate);
            }
            port += 1;
        }
        None
    }
}

/// All leases of one worker.
#[derive(Debug)]
pub struct Nat {
    /// Made at the first use of an address and protocol, and kept.
    ports: HashMap<(VpcId, IpAddr, u8), PortSet, ahash::RandomState>,
    mappings: Vec<Mapping>,
    free: Vec<u32>,
    index: Index,
    hasher: ahash::RandomState,
    capacity: usize,
    rng: StdRng,
}

impl Nat {
    /// Room for `capacity` mappings. Ports start at random places that follow from `seed`
    /// (RFC 6056 section 3.3.1).
    pub fn new(capacity: u32, seed: u64) -> Self {
        let capacity = capacity.max(1) as usize;
        Self {
            ports: HashMap::with_hasher(hasher(seed)),
            mappings: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            index: Index::new(capacity),
            hasher: hasher(seed),
            capacity,
            rng: StdRng::seed_from_u64(seed),
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
        let inside = Inside {
            vpc: rule.vpc,
            to: rule.to,
            address: tuple.src,
            port: tuple.src_port,
            proto: tuple.proto,
        };
        if let Some(leased) = self.share(&inside, rule) {
            return Ok(leased);
        }
        let at = match self.free.last() {
            Some(&at) => at,
            None if self.mappings.len() < self.capacity => self.mappings.len() as u32,
            None => return Err(LeaseError::Full),
        };
        let (address, port) = self.find_port(rules, rule, &inside, at)?;
        let mapping = Mapping {
            inside,
            address,
            port,
            holders: 1,
            indexed: true,
        };
        self.free.pop();
        match self.mappings.get_mut(at as usize) {
            Some(slot) => *slot = mapping,
            None => self.mappings.push(mapping),
        }
        self.index.insert(self.hasher.hash_one(inside), at);
        Ok(Leased {
            lease: Lease(at),
            address,
            port,
            fresh: true,
        })
    }

    /// Who has leased an outside address and port: inside VPC, address and port.
    pub fn inside(
        &self,
        to: VpcId,
        address: IpAddr,
        proto: u8,
        port: u16,
    ) -> Option<(VpcId, IpAddr, u16)> {
        let inside = self.mapping_of(to, address, proto, port)?.1.inside;
        Some((inside.vpc, inside.address, inside.port))
    }

    /// A share in the mapping that has leased an outside address and port.
    pub fn join(&mut self, to: VpcId, address: IpAddr, proto: u8, port: u16) -> Option<Lease> {
        let (at, _) = self.mapping_of(to, address, proto, port)?;
        self.mappings.get_mut(at as usize)?.holders += 1;
        Some(Lease(at))
    }

    fn mapping_of(
        &self,
        to: VpcId,
        address: IpAddr,
        proto: u8,
        port: u16,
    ) -> Option<(u32, &Mapping)> {
        let set = self.ports.get(&(to, address, proto))?;
        let at = *set.owners.get(usize::from(port))?;
        let mapping = self.mappings.get(at as usize)?;
        (mapping.holders > 0).then_some((at, mapping))
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
        let inside = Inside {
            vpc: rule.vpc,
            to: rule.to,
            address: tuple.src,
            port: tuple.src_port,
            proto: tuple.proto,
        };
        if let Some(mapping) = self
            .find(&inside)
            .and_then(|at| self.mappings.get(at as usize))
            && mapping.is_of(rule)
        {
            return Ok((mapping.address, Some(mapping.port)));
        }
        if self.free.is_empty() && self.mappings.len() >= self.capacity {
            return Err(LeaseError::Full);
        }
        let hash = self.hasher.hash_one((inside.vpc, inside.address));
        for address in candidates(rule, inside.address.is_ipv4(), hash)? {
            let usable = |port: &u16| !rules.is_forwarded(rule.to, address, inside.proto, *port);
            let set = self.ports.get(&(rule.to, address, inside.proto));
            let free = |port: &u16| set.is_none_or(|set| !set.contains(*port));
            let mut ports = rule.ports.first()..=rule.ports.last();
            if ports.any(|port| free(&port) && usable(&port)) {
                return Ok((address, None));
            }
        }
        Err(LeaseError::Exhausted)
    }

    /// Gives a share back. The port is free when it was the last one.
    pub fn release(&mut self, lease: Lease) {
        let Some(mapping) = self.mappings.get_mut(lease.0 as usize) else {
            return;
        };
        mapping.holders = mapping.holders.saturating_sub(1);
        if mapping.holders > 0 {
            return;
        }
        let gone = *mapping;
        if let Some(set) = self
            .ports
            .get_mut(&(gone.inside.to, gone.address, gone.inside.proto))
        {
            set.release(gone.port);
        }
        if gone.indexed {
            self.unindex(lease.0, &gone.inside);
        }
        self.free.push(lease.0);
    }

    /// Mappings that are held.
    pub fn mappings(&self) -> usize {
        self.mappings.len() - self.free.len()
    }

    /// Outside addresses that have leases.
    pub fn pool_use(&self) -> impl Iterator<Item = PoolUse> {
        self.ports.iter().filter(|(_, set)| set.leased > 0).map(
            |(&(vpc, address, protocol), set)| PoolUse {
                vpc,
                address,
                protocol,
                leased: set.leased,
            },
        )
    }

    /// Leased ports of an outside address within a range.
    pub fn leased_in(&self, vpc: VpcId, address: IpAddr, protocol: u8, ports: PortRange) -> u32 {
        self.ports
            .get(&(vpc, address, protocol))
            .map_or(0, |set| set.leased_in(ports))
    }

    fn find(&self, inside: &Inside) -> Option<u32> {
        self.index.find(self.hasher.hash_one(inside), |at| {
            self.mappings
                .get(at as usize)
                .is_some_and(|mapping| mapping.inside == *inside)
        })
    }

    fn share(&mut self, inside: &Inside, rule: &Masquerade) -> Option<Leased> {
        let at = self.find(inside)?;
        let mapping = self.mappings.get_mut(at as usize)?;
        if mapping.is_of(rule) {
            mapping.holders += 1;
            return Some(Leased {
                lease: Lease(at),
                address: mapping.address,
                port: mapping.port,
                fresh: false,
            });
        }
        // The configuration took its address or port away: it lives on for its holders only.
        mapping.indexed = false;
        self.unindex(at, inside);
        None
    }

    fn unindex(&mut self, at: u32, inside: &Inside) {
        let Self {
            index,
            mappings,
            hasher,
            ..
        } = self;
        index.remove(hasher.hash_one(inside), at, |other| {
            mappings
                .get(other as usize)
                .map_or(0, |mapping| hasher.hash_one(mapping.inside))
        });
    }

    /// A free port. All connections of an inside address start at the same outside address
    /// (RFC 4787 REQ-2, "paired"), and go on to the next only when that is used up.
    fn find_port(
        &mut self,
        rules: &Rules,
        rule: &Masquerade,
        inside: &Inside,
        mapping: u32,
    ) -> Result<(IpAddr, u16), LeaseError> {
        let hash = self.hasher.hash_one((inside.vpc, inside.address));
        let addresses = candidates(rule, inside.address.is_ipv4(), hash)?;
        let span = rule.ports.count();
        let offset = self.rng.random_range(0..span) as u16;
        // Within the range: its first port plus less than its length.
        let start = rule.ports.first().saturating_add(offset);
        for address in addresses {
            let key = (rule.to, address, inside.proto);
            let set = self.ports.entry(key).or_insert_with(PortSet::new);
            let usable = |port| !rules.is_forwarded(rule.to, address, inside.proto, port);
            if let Some(port) = set.lease(rule.ports, start, usable) {
                set.own(port, mapping);
                return Ok((address, port));
            }
        }
        Err(LeaseError::Exhausted)
    }
}

/// The addresses of a pool's family that are tried, in turn, from where `hash` falls.
fn candidates(
    rule: &Masquerade,
    ipv4: bool,
    hash: u64,
) -> Result<impl Iterator<Item = IpAddr> + '_, LeaseError> {
    let family = move |range: &&AddressRange| range.first().is_ipv4() == ipv4;
    let ranges = rule.pool.iter().filter(family);
    let total = ranges.fold(0u64, |sum, range| sum.saturating_add(range.count()));
    let home = hash.checked_rem(total).ok_or(LeaseError::NoAddress)?;
    Ok((0..total.min(MAX_ADDRESSES_TRIED)).filter_map(move |n| {
        let mut at = (home + n) % total;
        rule.pool
            .iter()
            .filter(family)
            .find_map(|range| match at.checked_sub(range.count()) {
                Some(rest) => {
                    at = rest;
                    None
                }
                None => range.nth(at),
            })
    }))
}
