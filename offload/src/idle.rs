//! From reports about single entries to a verdict about the connection.
//!
//! The switch reports an entry that no packet hit for its idle timeout, and again each timeout
//! as long as none does. Reports may be lost and may come twice. The two directions report at
//! different times, so each is remembered as an interval in which the direction was quiet; the
//! connection is idle when both were quiet *together* for the timeout.

use std::time::Duration;

use crate::clock::as_ns;

/// How late a report may be: bmv2 looks at its entries once a second.
pub(crate) const REPORT_DELAY_MAX: Duration = Duration::from_millis(1_500);

/// Signed: a report may reach back to before the clock's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quiet {
    from_ns: i64,
    to_ns: i64,
}

/// What is known about the two directions of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdlePair {
    quiet: [Option<Quiet>; 2],
    watch: Option<Watch>,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    other: usize,
    since_ns: i64,
    until_ns: u64,
}

/// What a report means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Both directions were quiet for the timeout.
    Idle,
    /// Ask [`IdlePair::expire`] at that time whether the other direction is alive.
    AskAt(u64),
    /// Nothing new.
    Nothing,
}

impl IdlePair {
    /// `direction` (0 or 1) was reported; `timeouts` are those of the entries.
    pub(crate) fn report(
        &mut self,
        direction: usize,
        now_ns: u64,
        timeouts: [Duration; 2],
    ) -> Verdict {
        let [own, other] = match direction {
            0 => [timeouts[0], timeouts[1]],
            _ => [timeouts[1], timeouts[0]],
        };
        let direction = direction.min(1);
        let slack_ns = signed(slack(own.min(other)));
        let to_ns = i64::try_from(now_ns).unwrap_or(i64::MAX);
        let from_ns = to_ns.saturating_sub(signed(own));
        let quiet = match self.quiet[direction] {
            Some(before) if from_ns <= before.to_ns.saturating_add(slack_ns) => Quiet {
                from_ns: before.from_ns,
                to_ns,
            },
            _ => Quiet { from_ns, to_ns },
        };
        self.quiet[direction] = Some(quiet);
        if let Some(opposite) = self.quiet[1 - direction] {
            let until_ns = quiet.to_ns.min(opposite.to_ns);
            let together_ns = until_ns.saturating_sub(quiet.from_ns.max(opposite.from_ns));
            if together_ns.saturating_add(slack_ns) >= signed(own.min(other)) {
                *self = Self::default();
                return Verdict::Idle;
            }
        }
        if self.watch.is_some() {
            return Verdict::Nothing;
        }
        let until_ns = now_ns.saturating_add(as_ns(other + slack(own.min(other))));
        self.watch = Some(Watch {
            other: 1 - direction,
            since_ns: to_ns,
            until_ns,
        });
        Verdict::AskAt(until_ns)
    }

    /// Whether a direction was reported and the other was not since: that one is alive.
    pub(crate) fn expire(&mut self, now_ns: u64) -> bool {
        let Some(watch) = self.watch.filter(|watch| watch.until_ns <= now_ns) else {
            return false;
        };
        self.watch = None;
        let other = self.quiet[watch.other];
        other.is_none_or(|other| other.to_ns < watch.since_ns)
    }
}

/// How much reports may differ; of short timeouts, half.
fn slack(timeout: Duration) -> Duration {
    REPORT_DELAY_MAX.min(timeout / 2)
}

fn signed(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const TIMEOUT: [Duration; 2] = [Duration::from_secs(30); 2];

    #[test]
    fn both_at_the_same_time() {
        let mut pair = IdlePair::default();
        assert_eq!(
            pair.report(0, 100 * S, TIMEOUT),
            Verdict::AskAt(131_500_000_000)
        );
        assert_eq!(pair.report(1, 100 * S, TIMEOUT), Verdict::Idle);
    }

    #[test]
    fn soon_after_the_start() {
        let mut pair = IdlePair::default();
        pair.report(0, S, TIMEOUT);
        assert_eq!(pair.report(1, S, TIMEOUT), Verdict::Idle);
    }

    /// Directions that were last hit at 0 and at 15 s are idle together at 45 s; the first
    /// report that can know it is the other's, at 60 s.
    #[test]
    fn staggered_reports_count_from_the_later_packet() {
        let mut pair = IdlePair::default();
        pair.report(0, 30 * S, TIMEOUT);
        assert_eq!(pair.report(1, 45 * S, TIMEOUT), Verdict::Nothing);
        assert!(!pair.expire(62 * S), "the other was reported since");
        assert_eq!(pair.report(0, 60 * S, TIMEOUT), Verdict::Idle);
    }

    #[test]
    fn a_packet_between_two_reports_starts_anew() {
        let mut pair = IdlePair::default();
        pair.report(0, 30 * S, TIMEOUT);
        pair.report(1, 45 * S, TIMEOUT);
        // Direction 0 was hit at 50 s.
        assert_ne!(pair.report(0, 80 * S, TIMEOUT), Verdict::Idle);
        // Direction 1 never was: both have been quiet since 50 s, known until 75 s.
        assert_ne!(pair.report(1, 75 * S, TIMEOUT), Verdict::Idle);
        assert_eq!(pair.report(1, 105 * S, TIMEOUT), Verdict::Idle);
    }

    #[test]
    fn one_way_traffic_is_active() {
        let mut pair = IdlePair::default();
        assert_eq!(
            pair.report(1, 30 * S, TIMEOUT),
            Verdict::AskAt(61_500_000_000)
        );
        assert!(!pair.expire(61 * S));
        assert!(pair.expire(62 * S));
        assert!(!pair.expire(63 * S), "said once");
        assert_eq!(
            pair.report(1, 60 * S, TIMEOUT),
            Verdict::AskAt(91_500_000_000)
        );
    }

    #[test]
    fn the_same_report_twice_is_one() {
        let mut pair = IdlePair::default();
        pair.report(0, 30 * S, TIMEOUT);
        assert_eq!(pair.report(0, 30 * S, TIMEOUT), Verdict::Nothing);
        assert!(pair.expire(62 * S));
    }

    #[test]
    fn a_lost_report_only_delays() {
        let mut pair = IdlePair::default();
        pair.report(0, 30 * S, TIMEOUT);
        // 1's reports at 30 and 60 s are lost, and 0's at 60 s.
        pair.report(0, 90 * S, TIMEOUT);
        assert_eq!(pair.report(1, 90 * S, TIMEOUT), Verdict::Idle);
    }
}
