//! What the engine did and how long it took, as plain data.

use std::time::Duration;

use hdrhistogram::Histogram;
use shunt_p4::VpcId;

use crate::queue::{EvictReason, RefuseReason};

/// The longest time that a histogram tells apart: a minute.
const LONGEST_NS: u64 = 60_000_000_000;
/// Significant decimal digits of a histogram.
const DIGITS: u8 = 2;

/// Upper ends of the buckets of [`LatencySummary::buckets`], nanoseconds: from a batch on a local
/// switch to one that waits for a switch that restarts.
pub const BUCKETS_NS: [u64; 14] = [
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    2_000_000_000,
    10_000_000_000,
];

/// A distribution of times, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencySummary {
    /// How many.
    pub count: u64,
    /// All of them together.
    pub sum_ns: u64,
    /// Mean.
    pub mean_ns: u64,
    /// Half of them took no longer.
    pub p50_ns: u64,
    /// 90 %.
    pub p90_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many took no longer than each of [`BUCKETS_NS`].
    pub buckets: [u64; BUCKETS_NS.len()],
}

/// The stages of a command, from the worker's decision to the switch's last word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageLatencies {
    /// The worker's decision → taken from its ring.
    pub queued: LatencySummary,
    /// Taken from the ring → in a batch that leaves. Waits here: for a place in flight, for a
    /// key that another connection still has, of a removal for the answer to its install.
    pub batched: LatencySummary,
    /// In a batch → both entries acknowledged, writes that had to be repeated included.
    pub on_wire: LatencySummary,
    /// The worker's decision → both entries acknowledged.
    pub total: LatencySummary,
}

/// Latencies by stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Of installs that were acknowledged.
    pub install: StageLatencies,
    /// Of removals that workers asked for, and for which something was to be written.
    pub removal: StageLatencies,
    /// The connection's first packet → both entries acknowledged.
    pub first_packet: LatencySummary,
}

/// Whether the switch answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// Reading back what the switch holds.
    #[default]
    Reading,
    /// Connections of the daemon before are taken back.
    Adopting,
    /// Writing.
    Up,
    /// The switch does not answer, or refuses to be written; trying again.
    Down,
    /// Told to wait for [`crate::EngineRef::resync`].
    Held,
}

impl LinkState {
    /// Its name in output and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            LinkState::Reading => "reading",
            LinkState::Adopting => "adopting",
            LinkState::Up => "up",
            LinkState::Down => "down",
            LinkState::Held => "held",
        }
    }
}

/// How full one of the switch's tables is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableUse {
    /// Entries that connections have, on their way in and out included.
    pub entries: u64,
    /// Entries that it takes, as far as is known; `u64::MAX`: not known.
    pub limit: u64,
}

/// A VPC's share of the switch's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareUse {
    /// Whose.
    pub vpc: VpcId,
    /// Connections that it has in hardware or on their way, now.
    pub connections: u64,
    /// Connections that it may have.
    pub max: u64,
}

/// What keeps connections in software that would be in hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TroubleKind {
    /// The switch does not answer, or takes no writes; [`OffloadStats::last_error`] says why.
    SwitchAway,
    /// As that, and for so long that new connections are refused.
    Refusing,
    /// Connections find no room in `flow4`.
    Flow4Full,
    /// Connections find no room in `flow6`.
    Flow6Full,
    /// Commands come faster than the switch takes them: a worker's ring is full.
    QueueFull,
    /// The switch does not give its counters: nobody is evicted, counts are old.
    CountersUnread,
}

/// One such thing, as it is now. Each is over by itself when its cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub kind: TroubleKind,
    /// For how long it has been so.
    pub lasts: Duration,
}

impl Trouble {
    pub(crate) const fn new(kind: TroubleKind, since_ns: u64, now_ns: u64) -> Self {
        Self {
            kind,
            lasts: Duration::from_nanos(now_ns.saturating_sub(since_ns)),
        }
    }
}

/// A snapshot of the engine. Counts are of units (connections) unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffloadStats {
    /// Whether the switch answers.
    pub link: LinkState,
    /// Known to be in hardware, now.
    pub in_hardware: u64,
    /// To be installed, not in flight, now; also what waits for another's key.
    pub queued: u64,
    /// Being installed, now.
    pub installing: u64,
    /// Being removed or undone, now.
    pub removing: u64,
    /// Batches in flight, now.
    pub batches_in_flight: u64,
    /// Events that wait for room in a worker's ring, now.
    pub events_pending: u64,
    /// Installed so far.
    pub installs: u64,
    /// Taken over at the start, in hardware or not.
    pub adopted: u64,
    /// `Removed` answered so far.
    pub removals: u64,
    /// Refused so far, in the order of [`RefuseReason::ALL`].
    pub refused: [u64; RefuseReason::ALL.len()],
    /// Lost by the switch and not put back, so far.
    pub lost: u64,
    /// Evicted so far, in the order of [`EvictReason::ALL`].
    pub evicted: [u64; EvictReason::ALL.len()],
    /// Chosen to be evicted, and then found to have had packets a moment ago, so far.
    pub spared: u64,
    /// Sweeps over all counters so far.
    pub sweeps: u64,
    /// Entries whose counters were read, so far.
    pub entries_read: u64,
    /// Readings of counters that the switch did not answer, so far.
    pub failed_reads: u64,
    /// `flow4` and `flow6`.
    pub tables: [TableUse; 2],
    /// The VPCs that have a share.
    pub shares: Vec<ShareUse>,
    /// What is not as it should be, now.
    pub troubles: Vec<Trouble>,
    /// Batches written so far.
    pub batches: u64,
    /// Entry updates written so far.
    pub updates: u64,
    /// Entry updates that had to be written again, so far.
    pub retries: u64,
    /// Batches whose answer was lost, so far.
    pub failed_batches: u64,
    /// Times the tables were read back.
    pub resyncs: u64,
    /// Entries of the switch that nobody wanted, so far.
    pub orphans: u64,
    /// Idle reports of entries.
    pub idle_reports: u64,
    /// Connections reported idle.
    pub idle_connections: u64,
    /// Latencies by stage.
    pub latencies: Latencies,
    /// The switch's last words, when it does not answer.
    pub last_error: Option<String>,
}

/// A histogram that cannot fail.
#[derive(Debug, Default)]
struct Recorder(Option<Histogram<u64>>);

impl Recorder {
    fn record(&mut self, from_ns: u64, to_ns: u64) {
        if self.0.is_none() {
            self.0 = Histogram::new_with_max(LONGEST_NS, DIGITS).ok();
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(to_ns.saturating_sub(from_ns).min(LONGEST_NS));
        }
    }

    fn summary(&self) -> LatencySummary {
        let Some(histogram) = &self.0 else {
            return LatencySummary::default();
        };
        let count = histogram.len();
        let mut summary = LatencySummary {
            count,
            max_ns: histogram.max(),
            ..LatencySummary::default()
        };
        // One walk for everything.
        let rank = |permille: u64| (count * permille).div_ceil(1000);
        let mut quantiles = [
            (rank(500), &mut summary.p50_ns),
            (rank(900), &mut summary.p90_ns),
            (rank(990), &mut summary.p99_ns),
            (rank(999), &mut summary.p999_ns),
        ];
        let mut seen = 0;
        let mut sum = 0u128;
        for value in histogram.iter_recorded() {
            let (ns, counted) = (value.value_iterated_to(), value.count_at_value());
            seen += counted;
            sum += u128::from(histogram.median_equivalent(ns)) * u128::from(counted);
            for (rank, quantile) in &mut quantiles {
                if **quantile == 0 && seen >= *rank {
                    **quantile = ns;
                }
            }
            for (bound, bucket) in BUCKETS_NS.iter().zip(&mut summary.buckets) {
                if ns <= *bound {
                    *bucket = seen;
                }
            }
        }
        // Between two recorded values the count stays what it was.
        let mut below = 0;
        for bucket in &mut summary.buckets {
            below = below.max(*bucket);
            *bucket = below;
        }
        summary.sum_ns = u64::try_from(sum).unwrap_or(u64::MAX);
        summary.mean_ns = summary.sum_ns.checked_div(count).unwrap_or(0);
        summary
    }
}

/// When a command went from one stage to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    decided_ns: u64,
    taken_ns: u64,
    /// 0: not yet.
    batched_ns: u64,
}

impl Times {
    pub(crate) const fn new(decided_ns: u64, taken_ns: u64) -> Self {
        Self {
            decided_ns,
            taken_ns,
            batched_ns: 0,
        }
    }

    /// When the engine took it.
    pub(crate) const fn taken_ns(&self) -> u64 {
        self.taken_ns
    }

    /// Something of it is in a batch that leaves.
    pub(crate) const fn batched(&mut self, now_ns: u64) {
        if self.batched_ns == 0 {
            self.batched_ns = now_ns;
        }
    }
}

#[derive(Debug, Default)]
struct Stages {
    queued: Recorder,
    batched: Recorder,
    on_wire: Recorder,
    total: Recorder,
}

impl Stages {
    fn record(&mut self, times: &Times, now_ns: u64) {
        self.queued.record(times.decided_ns, times.taken_ns);
        self.batched.record(times.taken_ns, times.batched_ns);
        self.on_wire.record(times.batched_ns, now_ns);
        self.total.record(times.decided_ns, now_ns);
    }

    fn summaries(&self) -> StageLatencies {
        StageLatencies {
            queued: self.queued.summary(),
            batched: self.batched.summary(),
            on_wire: self.on_wire.summary(),
            total: self.total.summary(),
        }
    }
}

/// The recorders behind [`Latencies`].
#[derive(Debug, Default)]
pub(crate) struct Recorders {
    install: Stages,
    removal: Stages,
    first_packet: Recorder,
}

impl Recorders {
    pub(crate) fn installed(&mut self, first_packet_ns: u64, times: &Times, now_ns: u64) {
        self.install.record(times, now_ns);
        self.first_packet.record(first_packet_ns, now_ns);
    }

    /// What was never in hardware leaves without a write, and counts for no latency.
    pub(crate) fn removed(&mut self, times: &Times, now_ns: u64) {
        if times.batched_ns > 0 {
            self.removal.record(times, now_ns);
        }
    }

    pub(crate) fn summaries(&self) -> Latencies {
        Latencies {
            install: self.install.summaries(),
            removal: self.removal.summaries(),
            first_packet: self.first_packet.summary(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut recorder = Recorder::default();
        assert_eq!(recorder.summary(), LatencySummary::default());
        for us in 1..=1_000_u64 {
            recorder.record(5_000, 5_000 + us * 1_000);
        }
        let summary = recorder.summary();
        assert_eq!(summary.count, 1_000);
        let near = |value: u64, wanted: u64| value.abs_diff(wanted) <= wanted / 50;
        assert!(near(summary.p50_ns, 500_000), "{summary:?}");
        assert!(near(summary.p99_ns, 990_000), "{summary:?}");
        assert!(near(summary.max_ns, 1_000_000), "{summary:?}");
    }

    #[test]
    fn buckets_count_what_took_no_longer() {
        let mut recorder = Recorder::default();
        for ms in 1..=100_u64 {
            recorder.record(0, ms * 1_000_000);
        }
        let summary = recorder.summary();
        let at_most = |ns: u64| {
            let at = BUCKETS_NS.iter().position(|bound| *bound == ns).unwrap();
            summary.buckets[at]
        };
        assert_eq!(at_most(500_000), 0);
        // Two significant digits: a value on the bound may be just above it.
        assert!((9..=10).contains(&at_most(10_000_000)), "{summary:?}");
        assert!((49..=50).contains(&at_most(50_000_000)), "{summary:?}");
        assert_eq!(at_most(10_000_000_000), 100);
        let exact = 5_050_000_000_u64;
        assert!(summary.sum_ns.abs_diff(exact) < exact / 50, "{summary:?}");
    }

    #[test]
    fn stages_add_up_to_the_total() {
        let mut recorders = Recorders::default();
        let mut times = Times::new(1_000_000, 2_000_000);
        recorders.removed(&times, 3_000_000);
        assert_eq!(recorders.summaries().removal.total.count, 0, "not written");
        times.batched(5_000_000);
        times.batched(9_000_000);
        recorders.removed(&times, 13_000_000);
        let removal = recorders.summaries().removal;
        let near = |value: u64, wanted: u64| value.abs_diff(wanted) <= wanted / 50;
        assert!(near(removal.queued.max_ns, 1_000_000), "{removal:?}");
        assert!(near(removal.batched.max_ns, 3_000_000), "{removal:?}");
        assert!(near(removal.on_wire.max_ns, 8_000_000), "{removal:?}");
        assert!(near(removal.total.max_ns, 12_000_000), "{removal:?}");
    }

    #[test]
    fn a_clock_that_goes_back_and_an_endless_wait_are_recorded() {
        let mut recorder = Recorder::default();
        recorder.record(10, 0);
        recorder.record(0, u64::MAX);
        assert_eq!(recorder.summary().count, 2);
    }
}
