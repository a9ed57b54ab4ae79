//! Monotonic nanoseconds, the one time that workers and engine share.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the system's clock reaches back to before the process.
pub const BEFORE: Duration = Duration::from_secs(24 * 3600);

/// A source of monotonic nanoseconds. Clones, and all system clocks of a process, agree.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Instant),
    Tokio(tokio::time::Instant),
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's monotonic clock, counted from [`BEFORE`] the process's first use of it: what
    /// happened before the process has a time too.
    pub fn system() -> Self {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        Self(Source::System(*EPOCH.get_or_init(Instant::now)))
    }

    /// Tokio's clock, counted from now: it stands still where a test paused time.
    pub fn tokio() -> Self {
        Self(Source::Tokio(tokio::time::Instant::now()))
    }

    /// A clock that only moves by [`Clock::advance`], from 0.
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::default()))
    }

    /// Nanoseconds since the clock's start; never smaller than before. Lasts 584 years.
    pub fn now_ns(&self) -> u64 {
        match &self.0 {
            Source::System(start) => as_ns(start.elapsed() + BEFORE),
            Source::Tokio(start) => as_ns(start.elapsed()),
            Source::Manual(ns) => ns.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock and all its clones; any other clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(ns) = &self.0 {
            ns.fetch_add(as_ns(by), Ordering::Relaxed);
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

/// Saturates instead of wrapping.
pub(crate) fn as_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clocks_share_their_start() {
        let (a, b) = (Clock::system(), Clock::system());
        let first = a.now_ns();
        let second = b.now_ns();
        assert!(second >= first);
        assert!(second - first < 1_000_000_000);
    }

    #[test]
    fn a_manual_clock_moves_with_its_clones() {
        let clock = Clock::manual();
        let clone = clock.clone();
        clock.advance(Duration::from_micros(3));
        assert_eq!(clone.now_ns(), 3_000);
    }
}
