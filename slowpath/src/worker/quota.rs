//! What one VPC, and one source, may take of the slow path: connections, new ones a second,
//! half-open TCP. A flood fills its own share and nobody else's; connections that exist are not
//! touched.
//!
//! Limits hold for all workers together, without a lock:
//!
//! ```text
//!   by VPC     each worker counts what it has in a word of its own; who begins a connection counts
//!              it, then adds up all workers' words, and takes it back if that is too much
//!   by source  one table of all workers (sources.rs): a word for each source, compare-and-swap
//!   rates      a word for each VPC and source
//! ```
//!
//! So never more than a limit are begun, by however many workers. When several begin one at the
//! same moment, the last few of a VPC may be refused although there was room for one: as many as
//! there are other workers, at most. Nothing but a worker's own words is touched where no limit is
//! configured; as those are counted always, a limit that comes later knows what there is.

mod shared;
mod sources;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use shunt_p4::VpcId;

use super::Core;
use crate::conntrack::Direction;
use crate::fib::Fib;
use crate::policy::Limits;
use crate::stats::DropReason;

pub use shared::SharedQuotas;
use sources::{Entered, Source};

/// Sources whose use is known of at a time, at most; beyond them only the VPC's limits hold.
pub const MAX_SOURCES: u32 = 1 << 20;

/// Slots of the connection table that one poll looks at, whether they are counted by source.
const COUNTED_SLOTS: u32 = 256;

/// How many there are, as one worker counts them.
#[derive(Debug)]
pub(super) struct Quotas {
    shared: Arc<SharedQuotas>,
    worker: u16,
    /// Connections were begun that are not counted by source, for nothing asked for it.
    uncounted: bool,
    /// Such are looked for: the next slot.
    next: Option<u32>,
}

/// What a new connection was counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// Its source too, not its VPC only.
    pub(super) source: bool,
}

fn by_source(limits: &Limits) -> bool {
    limits.connections_per_source.is_some() || limits.new_per_second_per_source.is_some()
}

fn over(max: Option<u32>, count: u32) -> bool {
    max.is_some_and(|max| count > max)
}

impl Quotas {
    /// For one of the workers that `shared` is for.
    pub(super) fn new(shared: Arc<SharedQuotas>, worker: u16) -> Self {
        Self {
            shared,
            worker,
            uncounted: false,
            next: None,
        }
    }

    /// Counts a new connection, half-open if it `opens`, or says which limit it is over. Nothing
    /// is counted then, but for the rates: what is refused for one reason is not offered to the
    /// next.
    pub(super) fn admit(
        &mut self,
        now_ns: u64,
        limits: &Limits,
        source: Source,
        opens: bool,
    ) -> Result<Counted, DropReason> {
        self.count(source.0, opens);
        let judged = self.judge(now_ns, limits, source, opens);
        if judged.is_err() {
            self.discount(source.0, opens);
        }
        judged
    }

    fn judge(
        &mut self,
        now_ns: u64,
        limits: &Limits,
        source: Source,
        opens: bool,
    ) -> Result<Counted, DropReason> {
        let vpc = source.0;
        let half_open = limits.half_open_per_vpc.filter(|_| opens);
        if limits.connections_per_vpc.is_some() || half_open.is_some() {
            let all = self.shared.sum(vpc);
            if over(limits.connections_per_vpc, all.live) {
                return Err(DropReason::VpcConnections);
            }
            if over(half_open, all.half_open) {
                return Err(DropReason::HalfOpen);
            }
        }
        // The source first: what one source sends too much is not taken from its VPC's rate.
        let mut entered = None;
        if by_source(limits) {
            let sources = self.shared.sources();
            match sources.enter(now_ns, limits.connections_per_source, source) {
                Entered::In(counting) => entered = Some(counting),
                Entered::Full => return Err(DropReason::SourceConnections),
                Entered::NoRoom => {}
            }
        } else {
            self.uncounted = true;
        }
        let slow = if let (Some(counting), Some(rate)) =
            (&entered, limits.new_per_second_per_source)
            && !counting.pass(now_ns, rate)
        {
            Some(DropReason::SourceRate)
        } else if let Some(rate) = limits.new_per_second_per_vpc
            && !self.shared.vpc_rate(now_ns, vpc, rate, true)
        {
            Some(DropReason::VpcRate)
        } else {
            None
        };
        if let Some(reason) = slow {
            entered.inspect(|counting| counting.leave());
            return Err(reason);
        }
        Ok(Counted {
            source: entered.is_some(),
        })
    }

    /// Counts a connection that has been admitted already, whatever the limits: before we were
    /// started, or as another one's first half.
    pub(super) fn readmit(
        &mut self,
        now_ns: u64,
        limits: &Limits,
        source: Source,
        opens: bool,
    ) -> Counted {
        self.count(source.0, opens);
        let counted = by_source(limits) && self.count_source(now_ns, source);
        self.uncounted |= !by_source(limits);
        Counted { source: counted }
    }

    /// Whether there was room for it.
    fn count_source(&self, now_ns: u64, source: Source) -> bool {
        let entered = self.shared.sources().enter(now_ns, None, source);
        matches!(entered, Entered::In(_))
    }

    /// Whether [`Quotas::admit`] would count such a connection; counts nothing.
    pub(super) fn check(
        &self,
        now_ns: u64,
        limits: &Limits,
        source: Source,
        opens: bool,
    ) -> Result<(), DropReason> {
        let all = self.shared.sum(source.0);
        if over(limits.connections_per_vpc, all.live.saturating_add(1)) {
            return Err(DropReason::VpcConnections);
        }
        if opens && over(limits.half_open_per_vpc, all.half_open.saturating_add(1)) {
            return Err(DropReason::HalfOpen);
        }
        let rate = limits.new_per_second_per_source;
        let known = match self.shared.known_sources() {
            Some(sources) => sources.ask(now_ns, rate, source),
            None => Some((0, rate != Some(0))),
        };
        if let Some((live, on_time)) = known.filter(|_| by_source(limits)) {
            if over(limits.connections_per_source, live.saturating_add(1)) {
                return Err(DropReason::SourceConnections);
            }
            if !on_time {
                return Err(DropReason::SourceRate);
            }
        }
        match limits.new_per_second_per_vpc {
            Some(rate) if !self.shared.vpc_rate(now_ns, source.0, rate, false) => {
                Err(DropReason::VpcRate)
            }
            _ => Ok(()),
        }
    }

    /// A connection has ended, or was not made after all.
    pub(super) fn release(&mut self, counted: Counted, source: Source) {
        self.discount(source.0, false);
        if counted.source
            && let Some(sources) = self.shared.known_sources()
        {
            sources.leave(source);
        }
    }

    /// A TCP connection began to open, or does so no longer.
    pub(super) fn half_open(&mut self, vpc: VpcId, opens: bool) {
        self.shared.change(self.worker, vpc, |count| {
            count.half_open = match opens {
                true => count.half_open.saturating_add(1),
                false => count.half_open.saturating_sub(1),
            };
        });
    }

    #[inline]
    fn count(&self, vpc: VpcId, opens: bool) {
        self.shared.change(self.worker, vpc, |count| {
            count.live = count.live.saturating_add(1);
            count.half_open = count.half_open.saturating_add(opens.into());
        });
    }

    fn discount(&self, vpc: VpcId, opens: bool) {
        self.shared.change(self.worker, vpc, |count| {
            count.live = count.live.saturating_sub(1);
            count.half_open = count.half_open.saturating_sub(opens.into());
        });
    }

    /// Where connections that are not counted by source, and have to be by now, are to be looked
    /// for next.
    fn next_uncounted(&mut self, limits: &Limits) -> Option<u32> {
        if !by_source(limits) {
            self.uncounted |= self.next.take().is_some();
            return None;
        }
        if self.next.is_none() && self.uncounted {
            self.uncounted = false;
            self.next = Some(0);
        }
        self.next
    }
}

impl Core {
    /// Counts connections by source, some at a time, that were begun before a limit asked for it.
    pub(super) fn poll_uncounted(&mut self, fib: &Fib, now_ns: u64) -> usize {
        let Some(from) = self.quotas.next_uncounted(&fib.policy().limits) else {
            return 0;
        };
        let slots = self.table.slots();
        let end = from.saturating_add(COUNTED_SLOTS).min(slots);
        for slot in from..end {
            let Some(connection) = self.table.get_mut(slot) else {
                continue;
            };
            let key = connection.key(Direction::Forward);
            let source = (key.vpc, key.tuple.src);
            if !connection.is_counted() && self.quotas.count_source(now_ns, source) {
                connection.set_counted(true);
            }
        }
        self.quotas.next = (end < slots).then_some(end);
        1
    }
}
