//! What one VPC, and one source, may take of a worker: connections, new ones a second, half-open
//! TCP. A flood fills its own share and nobody else's; connections that exist are not touched.

use std::collections::HashMap;
use std::net::IpAddr;

use shunt_p4::VpcId;

use crate::conntrack::{Index, hasher};
use crate::icmp::RateLimit;
use crate::policy::Limits;
use crate::stats::DropReason;

/// Sources whose use is known of at a time, at most; beyond them only the VPC's limits hold.
pub const MAX_SOURCES: u32 = 1 << 20;
/// Sources that each new one looks at, whether they can be forgotten.
const SWEEP: usize = 2;

#[derive(Debug, Default)]
struct Usage {
    live: u32,
    half_open: u32,
    rate: RateLimit,
}

/// Of whom nothing was seen.
const IDLE: Usage = Usage {
    live: 0,
    half_open: 0,
    rate: RateLimit::NEW,
};

type Source = (VpcId, IpAddr);

#[derive(Debug)]
struct SourceUsage {
    /// `None`: free.
    source: Option<Source>,
    usage: Usage,
}

/// How many there are, for one worker.
#[derive(Debug)]
pub(super) struct Quotas {
    vpcs: HashMap<VpcId, Usage, ahash::RandomState>,
    sources: Option<Sources>,
    capacity: u32,
    seed: u64,
}

/// Made at the first new connection under a limit by source: most gateways have none.
#[derive(Debug)]
struct Sources {
    entries: Vec<SourceUsage>,
    free: Vec<u32>,
    index: Index,
    hasher: ahash::RandomState,
    capacity: usize,
    /// The next entry that is looked at, whether it can be forgotten.
    sweep: usize,
}

/// What a new connection was counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// Its source too, not its VPC only.
    pub(super) source: bool,
}

impl Quotas {
    /// For a worker that tracks so many connections.
    pub(super) fn new(max_connections: u32, seed: u64) -> Self {
        Self {
            vpcs: HashMap::with_hasher(hasher(seed)),
            sources: None,
            capacity: max_connections.min(MAX_SOURCES),
            seed,
        }
    }

    /// Counts a new connection, or says which limit it is over. Nothing is counted then, but
    /// for the rates: what is refused for one reason is not offered to the next.
    pub(super) fn admit(
        &mut self,
        now_ns: u64,
        limits: &Limits,
        source: Source,
        tcp: bool,
    ) -> Result<Counted, DropReason> {
        let usage = self.vpcs.entry(source.0).or_default();
        if limits
            .connections_per_vpc
            .is_some_and(|max| usage.live >= max)
        {
            return Err(DropReason::VpcConnections);
        }
        if tcp
            && limits
                .half_open_per_vpc
                .is_some_and(|max| usage.half_open >= max)
        {
            return Err(DropReason::HalfOpen);
        }
        // The source first: what one source sends too much is not taken from its VPC's rate.
        let by_source =
            limits.connections_per_source.is_some() || limits.new_per_second_per_source.is_some();
        let mut of_source = None;
        if by_source {
            let sources = self
                .sources
                .get_or_insert_with(|| Sources::new(self.capacity, self.seed));
            of_source = sources.find_or_add(now_ns, limits, source);
        }
        if let Some(found) = &mut of_source {
            if limits
                .connections_per_source
                .is_some_and(|max| found.live >= max)
            {
                return Err(DropReason::SourceConnections);
            }
            if let Some(rate) = limits.new_per_second_per_source
                && !found.rate.allow(now_ns, rate)
            {
                return Err(DropReason::SourceRate);
            }
        }
        if let Some(rate) = limits.new_per_second_per_vpc
            && !usage.rate.allow(now_ns, rate)
        {
            return Err(DropReason::VpcRate);
        }
        usage.live += 1;
        if let Some(found) = &mut of_source {
            found.live += 1;
        }
        Ok(Counted {
            source: of_source.is_some(),
        })
    }

    /// Counts a connection that was admitted before we were started, whatever the limits.
    pub(super) fn readmit(&mut self, now_ns: u64, limits: &Limits, source: Source) -> Counted {
        self.vpcs.entry(source.0).or_default().live += 1;
        let by_source =
            limits.connections_per_source.is_some() || limits.new_per_second_per_source.is_some();
        let mut counted = false;
        if by_source {
            let sources = self
                .sources
                .get_or_insert_with(|| Sources::new(self.capacity, self.seed));
            if let Some(found) = sources.find_or_add(now_ns, limits, source) {
                found.live += 1;
                counted = true;
            }
        }
        Counted { source: counted }
    }

    /// Whether [`Quotas::admit`] would count such a connection; counts nothing.
    pub(super) fn check(
        &self,
        now_ns: u64,
        limits: &Limits,
        source: Source,
        tcp: bool,
    ) -> Result<(), DropReason> {
        let usage = self.vpcs.get(&source.0).unwrap_or(&IDLE);
        let over = |max: Option<u32>, live: u32| max.is_some_and(|max| live >= max);
        let slow = |rate: Option<u32>, of: &Usage| {
            rate.is_some_and(|rate| !of.rate.clone().allow(now_ns, rate))
        };
        if over(limits.connections_per_vpc, usage.live) {
            return Err(DropReason::VpcConnections);
        }
        if tcp && over(limits.half_open_per_vpc, usage.half_open) {
            return Err(DropReason::HalfOpen);
        }
        let known = match &self.sources {
            Some(sources) => sources.usage(now_ns, limits, source),
            None => Some(&IDLE),
        };
        if let Some(found) = known {
            if over(limits.connections_per_source, found.live) {
                return Err(DropReason::SourceConnections);
            }
            if slow(limits.new_per_second_per_source, found) {
                return Err(DropReason::SourceRate);
            }
        }
        match slow(limits.new_per_second_per_vpc, usage) {
            true => Err(DropReason::VpcRate),
            false => Ok(()),
        }
    }

    /// A connection has ended, or was not made after all.
    pub(super) fn release(&mut self, counted: Counted, source: Source) {
        if let Some(usage) = self.vpcs.get_mut(&source.0) {
            usage.live = usage.live.saturating_sub(1);
        }
        if counted.source
            && let Some(found) = self.sources.as_mut().and_then(|all| all.find(source))
        {
            found.live = found.live.saturating_sub(1);
        }
    }

    /// A TCP connection began to open, or does so no longer.
    pub(super) fn half_open(&mut self, vpc: VpcId, opens: bool) {
        let usage = self.vpcs.entry(vpc).or_default();
        usage.half_open = if opens {
            usage.half_open + 1
        } else {
            usage.half_open.saturating_sub(1)
        };
    }

    /// Connections, and half-open ones, of every VPC that has or had some.
    #[cfg(test)]
    pub(super) fn by_vpc(&self) -> impl Iterator<Item = (VpcId, u32, u32)> {
        self.vpcs
            .iter()
            .map(|(vpc, usage)| (*vpc, usage.live, usage.half_open))
    }
}

impl Sources {
    fn new(capacity: u32, seed: u64) -> Self {
        let capacity = capacity.max(1) as usize;
        Self {
            entries: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            index: Index::new(capacity),
            hasher: hasher(seed),
            capacity,
            sweep: 0,
        }
    }

    fn find(&mut self, source: Source) -> Option<&mut Usage> {
        let at = self.at(source)?;
        Some(&mut self.entries.get_mut(at as usize)?.usage)
    }

    fn at(&self, source: Source) -> Option<u32> {
        self.index.find(self.hasher.hash_one(source), |at| {
            self.entries
                .get(at as usize)
                .is_some_and(|entry| entry.source == Some(source))
        })
    }

    /// `None`: there is no room.
    fn find_or_add(&mut self, now_ns: u64, limits: &Limits, source: Source) -> Option<&mut Usage> {
        if let Some(at) = self.at(source) {
            return Some(&mut self.entries.get_mut(at as usize)?.usage);
        }
        for _ in 0..SWEEP {
            self.forget_one(now_ns, limits.new_per_second_per_source.unwrap_or(0));
        }
        let entry = SourceUsage {
            source: Some(source),
            usage: Usage::default(),
        };
        let at = match self.free.pop() {
            Some(at) => {
                *self.entries.get_mut(at as usize)? = entry;
                at
            }
            None if self.entries.len() < self.capacity => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
            None => return None,
        };
        self.index.insert(self.hasher.hash_one(source), at);
        Some(&mut self.entries.get_mut(at as usize)?.usage)
    }

    /// The use of a source, or that of a new one; `None`: there is no room for it.
    fn usage(&self, now_ns: u64, limits: &Limits, source: Source) -> Option<&Usage> {
        if let Some(at) = self.at(source) {
            return Some(&self.entries.get(at as usize)?.usage);
        }
        let rate = limits.new_per_second_per_source.unwrap_or(0);
        let mut swept = (0..SWEEP).map(|n| (self.sweep + n) % self.entries.len().max(1));
        let room = !self.free.is_empty()
            || self.entries.len() < self.capacity
            || swept.any(|at| self.forgettable(at, now_ns, rate).is_some());
        room.then_some(&IDLE)
    }

    /// The source of an entry that says nothing that a new one would not.
    fn forgettable(&self, at: usize, now_ns: u64, rate: u32) -> Option<Source> {
        let entry = self.entries.get(at)?;
        let idle = entry.usage.live == 0 && entry.usage.rate.is_full(now_ns, rate);
        entry.source.filter(|_| idle)
    }

    /// Looks at one entry; it goes if it says nothing that a new one would not.
    fn forget_one(&mut self, now_ns: u64, rate: u32) {
        if self.entries.is_empty() {
            return;
        }
        let at = self.sweep % self.entries.len();
        self.sweep = at + 1;
        let Some(source) = self.forgettable(at, now_ns, rate) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(at) {
            entry.source = None;
        }
        self.index.remove(self.hasher.hash_one(source), at as u32);
        self.free.push(at as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(vpc: u16, host: u8) -> Source {
        (VpcId::new(vpc).unwrap(), IpAddr::from([10, 0, 0, host]))
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn each_limit_has_its_own_reason_and_holds_for_its_own() {
        let mut quotas = Quotas::new(100, 1);
        let mut limits = Limits {
            connections_per_vpc: Some(3),
            connections_per_source: Some(2),
            ..Limits::default()
        };
        let mut admit = |limits: &Limits, vpc, host| {
            quotas
                .admit(SECOND, limits, source(vpc, host), true)
                .map(|_| ())
        };
        assert_eq!(admit(&limits, 1, 1), Ok(()));
        assert_eq!(admit(&limits, 1, 1), Ok(()));
        assert_eq!(admit(&limits, 1, 1), Err(DropReason::SourceConnections));
        assert_eq!(admit(&limits, 1, 2), Ok(()));
        assert_eq!(admit(&limits, 1, 2), Err(DropReason::VpcConnections));
        // The same address in another VPC is another source.
        assert_eq!(admit(&limits, 2, 1), Ok(()));
        limits.half_open_per_vpc = Some(0);
        assert_eq!(admit(&limits, 2, 2), Err(DropReason::HalfOpen));
    }

    #[test]
    fn a_source_over_its_rate_takes_nothing_of_its_vpc_s() {
        let mut quotas = Quotas::new(1000, 1);
        let limits = Limits {
            new_per_second_per_source: Some(10),
            new_per_second_per_vpc: Some(100),
            ..Limits::default()
        };
        let mut count = |host, n| {
            (0..n)
                .filter(|_| {
                    quotas
                        .admit(SECOND, &limits, source(1, host), false)
                        .is_ok()
                })
                .count()
        };
        // A burst is a tenth of a second's.
        assert_eq!(count(1, 500), 1);
        assert_eq!((2..20).map(|host| count(host, 3)).sum::<usize>(), 9);
    }

    proptest! {
        #[test]
        fn what_was_counted_is_given_back(
            ops in prop::collection::vec((any::<bool>(), 1u16..3, 0u8..6, 0u64..SECOND), 1..300),
            by_source: bool,
        ) {
            // Fewer entries than sources: some are not counted, and none twice.
            let mut quotas = Quotas::new(4, 1);
            let limits = Limits {
                connections_per_source: by_source.then_some(3),
                new_per_second_per_source: by_source.then_some(50),
                ..Limits::default()
            };
            let mut now = SECOND;
            let mut live: Vec<(Source, Counted)> = Vec::new();
            for (open, vpc, host, wait) in ops {
                now += wait;
                let source = source(vpc, host);
                if open {
                    let foretold = quotas.check(now, &limits, source, false);
                    let admitted = quotas.admit(now, &limits, source, false);
                    prop_assert_eq!(foretold, admitted.map(|_| ()));
                    if let Ok(counted) = admitted {
                        live.push((source, counted));
                    }
                } else if let Some(at) = live.iter().position(|(other, _)| *other == source) {
                    let (source, counted) = live.remove(at);
                    quotas.release(counted, source);
                }
                for (vpc, count, _) in quotas.by_vpc() {
                    let wanted = live.iter().filter(|((other, _), _)| *other == vpc).count();
                    prop_assert_eq!(count as usize, wanted);
                }
                let Some(sources) = &mut quotas.sources else { continue };
                prop_assert!(sources.entries.len() <= 4);
                for vpc in 1..3 {
                    for host in 0..6 {
                        let key = self::source(vpc, host);
                        let wanted = live.iter().filter(|(other, counted)| *other == key && counted.source).count();
                        prop_assert_eq!(sources.find(key).map_or(0, |usage| usage.live as usize), wanted);
                        prop_assert!(wanted <= 3);
                    }
                }
            }
            for (source, counted) in live {
                quotas.release(counted, source);
            }
            prop_assert!(quotas.by_vpc().all(|(_, live, _)| live == 0));
        }
    }
}
