//! What all workers know of each other's connections: a word for each worker and VPC, written by
//! that worker alone.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use shunt_p4::VpcId;

use super::MAX_SOURCES;
use super::sources::{Sources, pass};

/// A connection, in a word of [`SharedQuotas`]; half-open ones are counted above them.
const HALF_SHIFT: u32 = 32;
/// One for each number that a VPC can have.
const VPCS: usize = VpcId::MAX.get() as usize + 1;

/// What one VPC has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) live: u32,
    pub(super) half_open: u32,
}

impl Count {
    const fn of(word: u64) -> Self {
        Self {
            live: word as u32,
            half_open: (word >> HALF_SHIFT) as u32,
        }
    }

    const fn word(self) -> u64 {
        (self.half_open as u64) << HALF_SHIFT | self.live as u64
    }
}

/// What limits are held against, of all workers together. Made once and given to each of them.
#[derive(Debug)]
pub struct SharedQuotas {
    /// By worker, then by VPC.
    counts: Vec<Box<[AtomicU64]>>,
    /// When each VPC's new connections would be on time again. Made at the first rate by VPC.
    rates: OnceLock<Box<[AtomicU64]>>,
    /// Made at the first limit by source: most gateways have none.
    sources: OnceLock<Sources>,
    /// Sources that may be told apart.
    capacity: u32,
    seed: u64,
}

fn words() -> Box<[AtomicU64]> {
    (0..VPCS).map(|_| AtomicU64::new(0)).collect()
}

impl SharedQuotas {
    /// For so many workers, each of which tracks so many connections; `seed` is theirs.
    pub fn new(workers: u16, max_connections: u32, seed: u64) -> Self {
        let workers = workers.max(1);
        Self {
            counts: (0..workers).map(|_| words()).collect(),
            rates: OnceLock::new(),
            sources: OnceLock::new(),
            capacity: max_connections
                .saturating_mul(workers.into())
                .min(MAX_SOURCES),
            seed,
        }
    }

    fn count(&self, worker: u16, vpc: VpcId) -> Option<&AtomicU64> {
        let counts = self.counts.get(usize::from(worker))?;
        counts.get(usize::from(vpc.get()))
    }

    /// Changes what a worker has, who alone may: so a load and a store are enough.
    #[inline]
    pub(super) fn change(&self, worker: u16, vpc: VpcId, change: impl FnOnce(&mut Count)) {
        if let Some(word) = self.count(worker, vpc) {
            let mut count = Count::of(word.load(Relaxed));
            change(&mut count);
            word.store(count.word(), Relaxed);
        }
    }

    /// What all workers have. Of two that have counted a connection each before they ask, one at
    /// least sees the other's: each has to judge by what it sees with its own.
    #[inline]
    pub(super) fn sum(&self, vpc: VpcId) -> Count {
        if self.counts.len() > 1 {
            fence(SeqCst);
        }
        let mut sum = Count::default();
        for worker in (0u16..).take(self.counts.len()) {
            let word = self
                .count(worker, vpc)
                .map_or(0, |count| count.load(Relaxed));
            let count = Count::of(word);
            sum.live = sum.live.saturating_add(count.live);
            sum.half_open = sum.half_open.saturating_add(count.half_open);
        }
        sum
    }

    /// Whether one more connection of a VPC keeps to its rate; counts it if so, and if `takes`.
    pub(super) fn vpc_rate(&self, now_ns: u64, vpc: VpcId, rate: u32, takes: bool) -> bool {
        let rates = match takes {
            true => Some(self.rates.get_or_init(words)),
            false => self.rates.get(),
        };
        match rates.and_then(|rates| rates.get(usize::from(vpc.get()))) {
            Some(due) => pass(due, now_ns, rate, takes),
            None => rate > 0,
        }
    }

    /// To be counted in. The first caller makes the table, of which there is one: a few
    /// milliseconds, once.
    pub(super) fn sources(&self) -> &Sources {
        self.sources
            .get_or_init(|| Sources::new(self.capacity, self.seed))
    }

    /// To be asked.
    pub(super) fn known_sources(&self) -> Option<&Sources> {
        self.sources.get()
    }
}
