//! What the engine did and how long it took, as plain data.

use hdrhistogram::Histogram;

use crate::queue::RefuseReason;

/// The longest time that a histogram tells apart: a minute.
const LONGEST_NS: u64 = 60_000_000_000;
/// Significant decimal digits of a histogram.
const DIGITS: u8 = 2;

/// A distribution of times, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencySummary {
    /// How many.
    pub count: u64,
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
}

/// Latencies by stage. Installs, but for the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// The worker's decision → in a batch.
    pub decided_to_batched: LatencySummary,
    /// In a batch → both entries acknowledged.
    pub batched_to_acknowledged: LatencySummary,
    /// The worker's decision → both entries acknowledged.
    pub decided_to_acknowledged: LatencySummary,
    /// The connection's first packet → both entries acknowledged.
    pub first_packet_to_acknowledged: LatencySummary,
    /// A removal: command taken from the queue → both entries acknowledged gone.
    pub removal: LatencySummary,
}

/// Whether the switch answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// Reading back what the switch holds.
    #[default]
    Reading,
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
            LinkState::Up => "up",
            LinkState::Down => "down",
            LinkState::Held => "held",
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
    /// `Removed` answered so far.
    pub removals: u64,
    /// Refused so far, in the order of [`RefuseReason::ALL`].
    pub refused: [u64; RefuseReason::ALL.len()],
    /// Lost by the switch and not put back, so far.
    pub lost: u64,
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
        LatencySummary {
            count: histogram.len(),
            mean_ns: histogram.mean() as u64,
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        }
    }
}

/// The recorders behind [`Latencies`].
#[derive(Debug, Default)]
pub(crate) struct Recorders {
    decided_to_batched: Recorder,
    batched_to_acknowledged: Recorder,
    decided_to_acknowledged: Recorder,
    first_packet_to_acknowledged: Recorder,
    removal: Recorder,
}

impl Recorders {
    pub(crate) fn installed(
        &mut self,
        first_packet_ns: u64,
        decided_ns: u64,
        batched_ns: u64,
        now_ns: u64,
    ) {
        self.decided_to_batched.record(decided_ns, batched_ns);
        self.batched_to_acknowledged.record(batched_ns, now_ns);
        self.decided_to_acknowledged.record(decided_ns, now_ns);
        self.first_packet_to_acknowledged
            .record(first_packet_ns, now_ns);
    }

    pub(crate) fn removed(&mut self, taken_ns: u64, now_ns: u64) {
        self.removal.record(taken_ns, now_ns);
    }

    pub(crate) fn summaries(&self) -> Latencies {
        Latencies {
            decided_to_batched: self.decided_to_batched.summary(),
            batched_to_acknowledged: self.batched_to_acknowledged.summary(),
            decided_to_acknowledged: self.decided_to_acknowledged.summary(),
            first_packet_to_acknowledged: self.first_packet_to_acknowledged.summary(),
            removal: self.removal.summary(),
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
    fn a_clock_that_goes_back_and_an_endless_wait_are_recorded() {
        let mut recorder = Recorder::default();
        recorder.record(10, 0);
        recorder.record(0, u64::MAX);
        assert_eq!(recorder.summary().count, 2);
    }
}
