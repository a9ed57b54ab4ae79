//! Leases of outside addresses and ports.
//!
//! A mapping lies at its port, and a lease is the port's number: whoever has the lease knows where
//! all of it is. What a connection's lease and its release touch of memory that is not in the
//! cache is one line each for the mapping and for the entry by which its inside finds it.

mod mapping;
mod ports;
mod retake;
mod sets;

use std::net::IpAddr;
use std::num::NonZeroU32;

use shunt_p4::{Tuple, VpcId};

use super::Rules;
use super::addresses::{candidates, home_address};
use crate::conntrack::{Index, Key, KeyHasher};
use crate::policy::{Masquerade, PortRange};

use mapping::{Inside, Mapping, Sixes};
use ports::{PARITY, Ports};
pub use ports::{PORT_BLOCK, PortShare};
pub use retake::RetakeError;
pub use sets::MAX_SETS;
use sets::{Found, PortSet, SetKey, Sets};

/// A share in a mapping. Not `Copy`: it is given back once, to [`Nat::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a lease that is not given back keeps its port for ever"]
pub struct Lease(NonZeroU32);

impl Lease {
    fn new(set: u32, port: u16) -> Self {
        // No set's number is 65,535: never the fallback.
        let number = NonZeroU32::new((set << 16 | u32::from(port)).wrapping_add(1));
        Self(number.unwrap_or(NonZeroU32::MIN))
    }

    /// Of a number that the index has.
    fn numbered(number: u32) -> Option<Self> {
        NonZeroU32::new(number.wrapping_add(1)).map(Self)
    }

    /// What the index has: the set, and the port in the lower half.
    #[inline]
    fn number(&self) -> u32 {
        self.0.get() - 1
    }

    /// The set and the port.
    #[inline]
    fn at(&self) -> (u32, u16) {
        (self.number() >> 16, self.number() as u16)
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
    /// Leases of [`MAX_SETS`] addresses, and all ports of those among them that were tried.
    #[error("ports of as many addresses are leased as can be")]
    TooManyAddresses,
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

/// Where a lease is looked for first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    inside: Inside,
    hash: u64,
    home: u64,
    /// The set of the first address, or `NO_SET`.
    set: u32,
    /// The first port.
    start: u16,
    /// [`Sets::replaced`]: the set is still that one's if it is the same.
    replaced: u16,
}

/// There was none without taking another's place.
const NO_SET: u32 = u32::MAX;

impl Ask {
    /// To be written.
    pub(crate) const NONE: Self = Self {
        inside: Inside::NONE,
        hash: 0,
        home: 0,
        set: NO_SET,
        start: 0,
        replaced: 0,
    };
}

/// All leases of one worker.
#[derive(Debug)]
pub struct Nat {
    sets: Sets,
    /// Of as many.
    ports: Ports,
    sixes: Sixes,
    /// Mappings that are held.
    held: usize,
    index: Index,
    hasher: KeyHasher,
    capacity: usize,
    /// Where ports start follows from it.
    salt: u64,
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
        Self {
            sets: Sets::new(seed),
            ports: Ports::new(share, capacity),
            sixes: Sixes::default(),
            held: 0,
            index: Index::new(capacity),
            hasher: KeyHasher::new(seed),
            capacity,
            salt: seed,
        }
    }

    /// By which the mapping of a packet's source is found.
    #[inline]
    pub(crate) fn hash(&self, packet: &Key, to: VpcId) -> u64 {
        Inside::of(to, packet).hash(&self.hasher)
    }

    /// Asks for where the mapping of that hash is found.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Asks for the port of a lease and its mapping.
    #[inline]
    pub fn prefetch_lease(&self, lease: &Lease) {
        let (set, port) = lease.at();
        self.ports.prefetch(set, port);
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
        let mut ask = Ask::NONE;
        self.ask(rule, &Key::new(rule.vpc, tuple), &mut ask)?;
        self.grant(rules, rule, &ask)
    }

    /// Decides where a lease for that packet's source will be looked for: with several packets at
    /// hand, first ask for all, then [`Nat::look`] for all, then [`Nat::grant`], and between them
    /// ask for the memory of the next step.
    ///
    /// # Errors
    /// The pool has no address of the family; `ask` is as it was.
    #[inline(always)] // written where it is read from
    pub(crate) fn ask(
        &mut self,
        rule: &Masquerade,
        packet: &Key,
        ask: &mut Ask,
    ) -> Result<(), LeaseError> {
        let inside = Inside::of(rule.to, packet);
        let home = self.home(&inside);
        let address = home_address(rule, !packet.is_ipv6(), home)?;
        let set = self.set_in_advance((rule.to, address, packet.proto()));
        let span = u64::from(rule.ports.count());
        let random = self
            .hasher
            .words(inside.address, [inside.rest, self.salt], 2);
        let offset = (((random >> 32) * span) >> 32) as u16;
        // Within the range: its first port plus less than its length.
        let start = rule.ports.first().saturating_add(offset);
        let start = self.ports.near(rule.ports, start);
        self.ports.prefetch_leased(set, start);
        ask.hash = inside.hash(&self.hasher);
        ask.inside = inside;
        ask.home = home;
        ask.set = set;
        ask.start = start;
        ask.replaced = self.sets.replaced();
        Ok(())
    }

    /// Asks for where the mapping of an inside that asked is found.
    #[inline(always)]
    pub(crate) fn prefetch_asked(&self, ask: &Ask) {
        self.index.prefetch(ask.hash);
    }

    /// Asks for the port at which the search will start.
    #[inline(always)]
    pub(crate) fn prefetch_start(&self, ask: &Ask) {
        self.ports.prefetch_mapping(ask.set, ask.start);
    }

    /// Has the search start at the port that it will probably find: a step between asking and
    /// [`Nat::grant`] that changes nothing else.
    #[inline]
    pub(crate) fn look(&self, rule: &Masquerade, ask: &mut Ask) {
        let parity = PARITY[usize::from(ask.inside.port() % 2)];
        ask.start = self.ports.likely(ask.set, rule.ports, ask.start, parity);
    }

    /// A lease as it was asked for.
    ///
    /// # Errors
    /// [`LeaseError`]; nothing was leased.
    #[inline(always)] // so that a lease is read where it is found, not from a copy
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
        if self.held >= self.capacity {
            return Err(LeaseError::Full);
        }
        let (set, port) = self.find_port(rules, rule, ask)?;
        let address = self.sets.get(set).map(PortSet::address);
        let address = address.ok_or(LeaseError::NoAddress)?;
        Ok(Leased {
            lease: self.hold(set, port, inside, *hash),
            address,
            port,
            fresh: true,
        })
    }

    /// A new mapping, held once, at its port, which nobody has.
    fn hold(&mut self, set: u32, port: u16, inside: &Inside, hash: u64) -> Lease {
        let lease = Lease::new(set, port);
        let address = match inside.is_ipv4() {
            true => inside.address[1] as u32,
            false => self.sixes.add(inside.address),
        };
        let indexed = self.index.insert(hash, lease.number());
        let mapping = Mapping::new(address, inside, indexed);
        self.ports.lease(set, port, mapping);
        if let Some(set) = self.sets.get_mut(set) {
            set.leased += 1;
        }
        self.held += 1;
        lease
    }

    /// Who has leased an outside address and port: inside VPC, address and port.
    pub fn inside(
        &self,
        to: VpcId,
        address: IpAddr,
        proto: u8,
        port: u16,
    ) -> Option<(VpcId, IpAddr, u16)> {
        let (set, port) = self.leased_at(to, address, proto, port)?.at();
        let mapping = self.ports.mapping(set, port);
        let inside = mapping.inside(self.sets.get(set)?.shared, &self.sixes);
        Some((VpcId::new(inside.vpc())?, inside.address(), inside.port()))
    }

    /// Takes a share in the mapping that has leased an outside address and port. Whether there
    /// is one.
    pub fn join(&mut self, to: VpcId, address: IpAddr, proto: u8, port: u16) -> bool {
        let Some(lease) = self.leased_at(to, address, proto, port) else {
            return false;
        };
        let (set, port) = lease.at();
        self.join_at(set, port);
        true
    }

    fn join_at(&mut self, set: u32, port: u16) {
        let mapping = self.ports.mapping(set, port);
        self.ports.put(set, port, mapping.joined());
    }

    /// Gives back the share that [`Nat::join`] took; the port has been leased ever since.
    pub fn leave(&mut self, to: VpcId, address: IpAddr, proto: u8, port: u16) {
        if let Some(lease) = self.leased_at(to, address, proto, port) {
            self.release(lease);
        }
    }

    /// The lease of a port that somebody has.
    fn leased_at(&self, to: VpcId, address: IpAddr, proto: u8, port: u16) -> Option<Lease> {
        let set = self.sets.number(&(to, address, proto))?;
        let mapping = self.ports.mapping(set, port);
        mapping.is_held().then(|| Lease::new(set, port))
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
        if let Some(lease) = self.find(&inside, inside.hash(&self.hasher)) {
            let (set, port) = lease.at();
            if let Some(address) = self.given(set, port, rule) {
                return Ok((address, Some(port)));
            }
        }
        if self.held >= self.capacity {
            return Err(LeaseError::Full);
        }
        let (proto, mut none) = (inside.proto(), LeaseError::Exhausted);
        for address in candidates(rule, inside.is_ipv4(), self.home(&inside))? {
            let set = self.sets.number(&(rule.to, address, proto));
            if set.is_none() && !self.sets.has_room() {
                none = LeaseError::TooManyAddresses;
                continue;
            }
            let usable = |port| !rules.is_forwarded(rule.to, address, proto, port);
            let (range, first) = (rule.ports, rule.ports.first());
            if self
                .ports
                .find(set, range, first, u64::MAX, usable)
                .is_some()
            {
                return Ok((address, None));
            }
        }
        Err(none)
    }

    /// Gives a share back. The port is free when it was the last one.
    pub fn release(&mut self, lease: Lease) {
        let (set, port) = lease.at();
        let mapping = self.ports.mapping(set, port);
        match mapping.holders() {
            0 => return,
            1 => {}
            _ => return self.ports.put(set, port, mapping.left()),
        }
        if let Some(set) = self.sets.get_mut(set) {
            set.leased -= 1;
            if mapping.is_indexed() {
                let inside = mapping.inside(set.shared, &self.sixes);
                self.index.remove(inside.hash(&self.hasher), lease.number());
            }
            if set.address().is_ipv6() {
                self.sixes.remove(mapping.address());
            }
        }
        self.ports.free(set, port);
        self.held -= 1;
    }

    /// Mappings that are held.
    pub fn mappings(&self) -> usize {
        self.held
    }

    /// Outside addresses that have leases.
    pub fn pool_use(&self) -> impl Iterator<Item = PoolUse> {
        self.sets.iter().filter(|set| set.leased > 0).map(|set| {
            let (vpc, address, protocol) = set.key;
            PoolUse {
                vpc,
                address,
                protocol,
                leased: set.leased,
            }
        })
    }

    /// Leased ports of an outside address within a range.
    pub fn leased_in(&self, vpc: VpcId, address: IpAddr, protocol: u8, ports: PortRange) -> u32 {
        self.sets
            .number(&(vpc, address, protocol))
            .map_or(0, |set| self.ports.leased_in(set, ports))
    }

    #[inline]
    fn find(&self, inside: &Inside, hash: u64) -> Option<Lease> {
        let number = self.index.find(hash, |number| {
            Lease::numbered(number).is_some_and(|lease| {
                let (set, port) = lease.at();
                let shared = self.sets.get(set).map_or(0, |set| set.shared);
                let mapping = self.ports.mapping(set, port);
                mapping.inside(shared, &self.sixes) == *inside
            })
        })?;
        Lease::numbered(number)
    }

    /// The address of a leased port, if the rule could have given both.
    fn given(&self, set: u32, port: u16, rule: &Masquerade) -> Option<IpAddr> {
        let address = self.sets.get(set)?.address();
        rule.gives(address, port).then_some(address)
    }

    /// By which an inside address has its outside address.
    fn home(&self, inside: &Inside) -> u64 {
        self.hasher
            .words(inside.address, [u64::from(inside.vpc()), 0], 1)
    }

    #[inline]
    fn share(&mut self, inside: &Inside, hash: u64, rule: &Masquerade) -> Option<Leased> {
        let lease = self.find(inside, hash)?;
        let (set, port) = lease.at();
        if let Some(address) = self.given(set, port, rule) {
            self.join_at(set, port);
            return Some(Leased {
                lease,
                address,
                port,
                fresh: false,
            });
        }
        // The configuration took its address or port away: it lives on for its holders only.
        let mapping = self.ports.mapping(set, port);
        self.ports.put(set, port, mapping.forgotten());
        self.index.remove(hash, lease.number());
        None
    }

    /// The set of an outside address, made at its first use; `NO_SET` if that would take the
    /// place of another one, which somebody may have in mind.
    #[inline]
    fn set_in_advance(&mut self, key: SetKey) -> u32 {
        match self.sets.known(&key) {
            Some(set) => set,
            None if self.sets.is_full() => self.sets.number(&key).unwrap_or(NO_SET),
            None => self.set(key).unwrap_or(NO_SET),
        }
    }

    /// The set of an outside address, made at its first use.
    fn set(&mut self, key: SetKey) -> Option<u32> {
        match self.sets.make(key)? {
            Found::Old(set) => Some(set),
            Found::New(set) => {
                self.ports.add();
                Some(set)
            }
        }
    }

    /// A free port. All connections of an inside address start at the same outside address
    /// (RFC 4787 REQ-2, "paired"), and go on to the next only when that is used up.
    /// Where in the range nobody outside can tell; the port's parity is kept if it can be (RFC 4787 REQ-4).
    #[inline]
    fn find_port(
        &mut self,
        rules: &Rules,
        rule: &Masquerade,
        ask: &Ask,
    ) -> Result<(u32, u16), LeaseError> {
        let known = ask.set != NO_SET && ask.replaced == self.sets.replaced();
        if known && let Some(port) = self.port_of(ask.set, rules, rule, ask) {
            return Ok((ask.set, port));
        }
        self.find_elsewhere(rules, rule, ask, usize::from(known))
    }

    /// The same, of the addresses after so many.
    #[cold]
    fn find_elsewhere(
        &mut self,
        rules: &Rules,
        rule: &Masquerade,
        ask: &Ask,
        tried: usize,
    ) -> Result<(u32, u16), LeaseError> {
        let (proto, mut none) = (ask.inside.proto(), LeaseError::Exhausted);
        for address in candidates(rule, ask.inside.is_ipv4(), ask.home)?.skip(tried) {
            let Some(set) = self.set((rule.to, address, proto)) else {
                none = LeaseError::TooManyAddresses;
                continue;
            };
            if let Some(port) = self.port_of(set, rules, rule, ask) {
                return Ok((set, port));
            }
        }
        Err(none)
    }

    #[inline]
    fn port_of(&self, set: u32, rules: &Rules, rule: &Masquerade, ask: &Ask) -> Option<u16> {
        let (_, address, proto) = self.sets.get(set)?.key;
        let usable = |port| !rules.is_forwarded(rule.to, address, proto, port);
        let parity = PARITY[usize::from(ask.inside.port() % 2)];
        let ports = &self.ports;
        let find = |mask| ports.find(Some(set), rule.ports, ask.start, mask, usable);
        find(parity).or_else(|| find(!parity))
    }
}

#[cfg(test)]
mod tests;
