//! The connections of which the switch forwards most, for who looks at them.
//!
//! Every sweep over the switch's counters remembers a few of them, by the bytes since the reading
//! before. While somebody looks, sweeps follow each other sooner; their rate stays what it is.

use std::collections::BTreeSet;
use std::time::Duration;

use shunt_p4::FlowKey;

use super::entries::Entries;
use super::{Ledger, UnitRef};
use crate::unit::Life;

/// Connections that are remembered of a sweep.
pub const BUSIEST_MAX: usize = 128;
/// Who looked so long ago looks no more.
const WATCHED_NS: u64 = 5_000_000_000;
/// Between the starts of two sweeps while somebody looks.
pub(super) const WATCHED_SWEEP_NS: u64 = 1_000_000_000;

/// A connection in hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyFlow {
    /// The port of the worker that has it.
    pub port: usize,
    /// The opener's direction, and the reply's.
    pub keys: [FlowKey; 2],
    /// Since its first packet.
    pub age: Duration,
}

/// Units by bytes between two readings.
type Ranking = BTreeSet<(u64, UnitRef)>;

#[derive(Debug, Default)]
pub(super) struct Busiest {
    /// Of the sweep under way, and of the one before it.
    rankings: [Ranking; 2],
    watched_until_ns: u64,
}

impl Busiest {
    pub(super) fn note(&mut self, bytes: u64, at: UnitRef) {
        let [ranking, _] = &mut self.rankings;
        let full = ranking.len() >= BUSIEST_MAX;
        let least = ranking.first().map_or(0, |(least, _)| *least);
        if bytes == 0 || (full && bytes <= least) {
            return;
        }
        ranking.insert((bytes, at));
        if ranking.len() > BUSIEST_MAX {
            ranking.pop_first();
        }
    }

    /// A sweep begins.
    pub(super) fn turn(&mut self) {
        let [now, before] = &mut self.rankings;
        *before = std::mem::take(now);
    }

    pub(super) const fn is_watched(&self, now_ns: u64) -> bool {
        now_ns < self.watched_until_ns
    }

    /// The busiest first, each once.
    fn ranked(&self) -> Vec<UnitRef> {
        let mut all: Vec<_> = self.rankings.iter().flatten().copied().collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let mut seen = BTreeSet::new();
        all.retain(|(_, at)| seen.insert(*at));
        all.into_iter().map(|(_, at)| at).collect()
    }
}

impl Ledger {
    /// The connections of which the switch forwarded most between the last readings, at most
    /// `most` and [`BUSIEST_MAX`]. Sweeps hurry for a while.
    pub(crate) fn busiest(&mut self, most: usize, now_ns: u64) -> Vec<BusyFlow> {
        let busiest = &mut self.readings.busiest;
        busiest.watched_until_ns = now_ns.saturating_add(WATCHED_NS);
        let flows = busiest.ranked().into_iter().filter_map(|at| {
            let held = self.units.get(at)?;
            let owner = held.owner?;
            match &held.entries {
                Entries::Pair(pair) if held.unit.life() == Life::Installed => Some(BusyFlow {
                    port: owner.port,
                    keys: pair.keys,
                    age: Duration::from_nanos(now_ns.saturating_sub(held.first_packet_ns)),
                }),
                _ => None,
            }
        });
        flows.take(most.min(BUSIEST_MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(slot: u32) -> UnitRef {
        UnitRef {
            slot,
            generation: 0,
        }
    }

    #[test]
    fn the_busiest_are_kept_and_no_more() {
        let mut busiest = Busiest::default();
        for n in 0..3 * BUSIEST_MAX as u32 {
            busiest.note(u64::from(n % 200), at(n));
        }
        busiest.note(1_000, at(9_999));
        let ranked = busiest.ranked();
        assert_eq!(ranked.len(), BUSIEST_MAX);
        assert_eq!(ranked[0], at(9_999));
        // The least that is left has more than those that are not.
        assert!(
            ranked
                .iter()
                .all(|at| at.slot % 200 >= 128 || at.slot == 9_999)
        );
    }

    #[test]
    fn two_sweeps_are_remembered_and_each_connection_is_named_once() {
        let mut busiest = Busiest::default();
        busiest.note(10, at(1));
        busiest.note(30, at(2));
        busiest.turn();
        busiest.note(20, at(1));
        busiest.note(0, at(3));
        assert_eq!(busiest.ranked(), [at(2), at(1)]);
        busiest.turn();
        assert_eq!(busiest.ranked(), [at(1)]);
    }
}
