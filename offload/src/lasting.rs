//! What is so now and then: it lasts until it has not been seen for a while.

/// How long after it was last seen.
pub(crate) const LASTS_NS: u64 = 10_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lasting {
    since_ns: u64,
    last_ns: Option<u64>,
}

impl Lasting {
    pub(crate) fn see(&mut self, now_ns: u64) {
        if self.since_ns(now_ns).is_none() {
            self.since_ns = now_ns;
        }
        self.last_ns = Some(now_ns);
    }

    /// Since when it is so, if it still is.
    pub(crate) fn since_ns(&self, now_ns: u64) -> Option<u64> {
        let last_ns = self.last_ns?;
        (now_ns.saturating_sub(last_ns) < LASTS_NS).then_some(self.since_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_it_was_not_seen_for_a_while() {
        let mut full = Lasting::default();
        assert_eq!(full.since_ns(5), None);
        full.see(5);
        full.see(5 + LASTS_NS - 1);
        assert_eq!(full.since_ns(5 + LASTS_NS), Some(5), "it goes on");
        assert_eq!(full.since_ns(4 + 2 * LASTS_NS), None);
        full.see(9 * LASTS_NS);
        assert_eq!(full.since_ns(9 * LASTS_NS), Some(9 * LASTS_NS), "anew");
    }
}
