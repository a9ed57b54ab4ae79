//! Two-rate three-colour meters (RFC 2698, colour-blind).

/// Rates in units (packets or bytes) a second, bursts in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) cir: u64,
    pub(crate) cburst: u64,
    pub(crate) pir: u64,
    pub(crate) pburst: u64,
}

/// One meter. Without rates every packet is green.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    rates: Option<Rates>,
    /// Tokens in 10^-9 units, so that nothing is lost between packets.
    committed: u128,
    peak: u128,
    last_ns: u64,
    /// Packets and bytes by colour.
    counts: [(u64, u64); 3],
}

/// v1model's colours.
pub(crate) const GREEN: u8 = 0;
pub(crate) const YELLOW: u8 = 1;
pub(crate) const RED: u8 = 2;

const SCALE: u128 = 1_000_000_000;

impl Meter {
    /// Sets the rates (with full buckets), or none.
    pub(crate) fn configure(&mut self, rates: Option<Rates>, now_ns: u64) {
        self.rates = rates;
        if let Some(rates) = rates {
            self.committed = u128::from(rates.cburst) * SCALE;
            self.peak = u128::from(rates.pburst) * SCALE;
            self.last_ns = now_ns;
        }
    }

    /// The rates.
    pub(crate) fn rates(&self) -> Option<Rates> {
        self.rates
    }

    /// Takes over the counts of the meter that it replaces, and with the same rates its buckets.
    pub(crate) fn inherit(&mut self, old: &Self) {
        self.counts = old.counts;
        if self.rates == old.rates {
            self.clone_from(old);
        }
    }

    /// Packets and bytes that were green, yellow and red.
    pub(crate) fn counts(&self) -> [(u64, u64); 3] {
        self.counts
    }

    /// Starts counting colours anew.
    pub(crate) fn clear_counts(&mut self) {
        self.counts = Default::default();
    }

    /// Colours a packet of `bytes`, of which the meter counts `units` (1, or the bytes).
    pub(crate) fn execute(&mut self, units: u64, bytes: usize, now_ns: u64) -> u8 {
        let colour = self.colour(units, now_ns);
        if let Some(counts) = self.counts.get_mut(usize::from(colour)) {
            counts.0 += 1;
            counts.1 += bytes as u64;
        }
        colour
    }

    fn colour(&mut self, units: u64, now_ns: u64) -> u8 {
        let Some(rates) = self.rates else {
            return GREEN;
        };
        let elapsed = u128::from(now_ns.saturating_sub(self.last_ns));
        self.last_ns = self.last_ns.max(now_ns);
        let refill = |tokens: u128, rate: u64, burst: u64| {
            (tokens + elapsed * u128::from(rate)).min(u128::from(burst) * SCALE)
        };
        self.committed = refill(self.committed, rates.cir, rates.cburst);
        self.peak = refill(self.peak, rates.pir, rates.pburst);
        let need = u128::from(units) * SCALE;
        if self.peak < need {
            return RED;
        }
        self.peak -= need;
        if self.committed < need {
            return YELLOW;
        }
        self.committed -= need;
        GREEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_both_buckets() {
        let mut meter = Meter::default();
        assert_eq!(meter.execute(1, 10, 0), GREEN);
        let rates = Rates {
            cir: 10,
            cburst: 2,
            pir: 20,
            pburst: 4,
        };
        meter.configure(Some(rates), 0);
        let colours: Vec<u8> = (0..6).map(|_| meter.execute(1, 10, 0)).collect();
        assert_eq!(colours, [GREEN, GREEN, YELLOW, YELLOW, RED, RED]);
        // A tenth of a second later: one committed token, two peak tokens.
        let colours: Vec<u8> = (0..3).map(|_| meter.execute(1, 10, 100_000_000)).collect();
        assert_eq!(colours, [GREEN, YELLOW, RED]);
        assert_eq!(meter.counts(), [(4, 40), (3, 30), (3, 30)]);
        meter.clear_counts();
        assert_eq!(meter.counts(), [(0, 0); 3]);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let mut meter = Meter::default();
        let rates = Rates {
            cir: 1,
            cburst: 1,
            pir: 1,
            pburst: 1,
        };
        meter.configure(Some(rates), 1_000);
        assert_eq!(meter.execute(1, 10, 500), GREEN);
        assert_eq!(meter.execute(1, 10, 400), RED);
    }
}
