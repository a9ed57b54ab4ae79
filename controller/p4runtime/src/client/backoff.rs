//! Delays between tries: doubling up to a limit, each drawn between half and
//! the whole of its step so that many clients do not return in one moment.

use std::time::Duration;

use super::limits::{BACKOFF_FIRST, BACKOFF_LONGEST};

/// The delays between tries, in order. Same seed, same delays.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries_max: Option<u32>,
    tries: u32,
    step: Duration,
    random: u64,
}

impl Backoff {
    /// Delays from `first` to `longest`, drawn from `seed`, without an end.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self {
            first,
            longest,
            tries_max: None,
            tries: 0,
            step: first,
            random: seed,
        }
    }

    /// Ends after this many delays.
    #[must_use]
    pub fn with_tries_max(mut self, tries_max: u32) -> Self {
        self.tries_max = Some(tries_max);
        self
    }

    /// The next delay, or `None` when there have been enough.
    pub fn next_delay(&mut self) -> Option<Duration> {
        if self.tries_max.is_some_and(|most| self.tries >= most) {
            return None;
        }
        self.tries = self.tries.saturating_add(1);
        let step = self.step.min(self.longest);
        self.step = step.saturating_mul(2).min(self.longest);
        // 1/2 to 1 of the step, in 1/512ths.
        let part = 256 + (self.draw() >> 56) as u32;
        Some(step.saturating_mul(part) / 512)
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
        self.step = self.first;
    }

    /// SplitMix64: the next of a well-mixed sequence.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(
            BACKOFF_FIRST,
            BACKOFF_LONGEST,
            u64::from(std::process::id()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(400), 7);
        for step in [100, 200, 400, 400, 400] {
            let delay = backoff.next_delay().unwrap();
            assert!(delay >= ms(step / 2) && delay <= ms(step), "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay().unwrap() <= ms(100));
    }

    #[test]
    fn tries_end_and_a_seed_repeats() {
        let delays = |seed| {
            let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST, seed).with_tries_max(3);
            std::iter::from_fn(move || backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays(1).len(), 3);
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }
}
