//! Reading back what the switch counts, for listings, idleness and eviction.
//!
//! ```text
//!   idle reports ──▶ read once more ──▶ Idle or Active
//!   too little room ──▶ longest idle ones ──▶ read once more ──▶ still idle: evicted
//!   a slow sweep over all that is installed ──▶ counts, last hits ──▶ the longest idle ones
//! ```
//!
//! Entries are read by their keys, a few at a time, so that a million of them disturb nobody. A
//! unit's last hit is the moment of the reading that found its counts changed, less the time that
//! the switch gives since its last hit. Who is evicted was read a moment before: it is idle, not
//! believed to be.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::time::Duration;

use shunt_p4::{FlowKey, VpcId};

use super::busiest::{Busiest, WATCHED_SWEEP_NS};
use super::entries::Entries;
use super::room::{Family, Pressure};
use super::{Ledger, Map, UnitRef};
use crate::clock::as_ns;
use crate::queue::{EvictReason, HardwareCount, OffloadEvent};
use crate::sink::FlowReading;
use crate::unit::{Life, Unit};

/// Units of one reading: two keys each.
pub(crate) const READ_UNITS_MAX: usize = 128;
/// Slots that one step of the sweep passes at most to find them.
const SWEEP_SLOTS_MAX: u32 = 8_192;
/// How much slower the sweep is while the engine has writes to do.
const BUSY_FACTOR: u64 = 10;
/// The shortest time between two sweeps while room is wanted.
const PRESSED_SWEEP_NS: u64 = 500_000_000;
/// Between two looks for units to evict.
const EVICT_EVERY_NS: u64 = 1_000_000;
/// Idle units of a table or of a share that are remembered, the longest idle ones; the next sweep finds the others.
const CANDIDATES_MAX: usize = 32 * 1024;
/// Connections reported idle that wait for their last reading; of others the last sweep counts.
const IDLE_READS_MAX: usize = 64 * 1024;
/// After a switch did not give its counters, it is not asked for so long.
const PAUSE_NS: u64 = 5_000_000_000;

/// What a reading is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Sweep,
    Idle,
    Evict(EvictReason),
}

/// Keys to be read: of each unit the forward one, then the reply's.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) purpose: Purpose,
    pub(crate) units: Vec<UnitRef>,
    pub(crate) keys: Vec<FlowKey>,
}

/// Idle units by their last hit.
type Candidates = BTreeSet<(u64, UnitRef)>;

/// The state of reading.
#[derive(Debug)]
pub(super) struct Readings {
    sweep_interval_ns: u64,
    /// Entries a second.
    sweep_rate: u64,
    /// `None`: nobody is evicted.
    evict_idle_ns: Option<u64>,
    /// Where the sweep goes on, when its rate allows it, and when it began at the first slot.
    cursor: u32,
    pace_ns: u64,
    sweep_begun_ns: Option<u64>,
    /// Idle units of `flow4` and `flow6`, and of the VPCs that have a share.
    by_table: [Candidates; 2],
    by_vpc: Map<VpcId, Candidates>,
    evict_due_ns: u64,
    /// Candidates are being read once more.
    verifying: bool,
    idle: VecDeque<UnitRef>,
    pub(super) busiest: Busiest,
    paused_until_ns: u64,
    /// Since when the switch does not give its counters.
    failing_since_ns: Option<u64>,
}

impl Readings {
    pub(super) fn new(sweep_interval: Duration, sweep_rate: u32) -> Self {
        Self {
            sweep_interval_ns: as_ns(sweep_interval),
            sweep_rate: u64::from(sweep_rate.max(1)),
            evict_idle_ns: None,
            cursor: 0,
            pace_ns: 0,
            sweep_begun_ns: None,
            by_table: Default::default(),
            by_vpc: Map::default(),
            evict_due_ns: 0,
            verifying: false,
            idle: VecDeque::new(),
            busiest: Busiest::default(),
            paused_until_ns: 0,
            failing_since_ns: None,
        }
    }

    pub(super) const fn failing_since_ns(&self) -> Option<u64> {
        self.failing_since_ns
    }

    pub(super) fn set_evict_idle(&mut self, idle: Option<Duration>) {
        self.evict_idle_ns = idle.map(as_ns);
        self.by_table = Default::default();
        self.by_vpc.clear();
    }

    /// `share`: the VPC, if it has a share of its own.
    fn add_candidate(
        &mut self,
        family: Family,
        share: Option<VpcId>,
        last_hit_ns: u64,
        at: UnitRef,
    ) {
        let of_share = share.map(|vpc| self.by_vpc.entry(vpc).or_default());
        let of_table = match family {
            Family::V4 => &mut self.by_table[0],
            Family::V6 => &mut self.by_table[1],
        };
        for set in std::iter::once(of_table).chain(of_share) {
            set.insert((last_hit_ns, at));
            if set.len() > CANDIDATES_MAX {
                set.pop_last();
            }
        }
    }

    /// The longest idle one that helps against the pressure. It may have left, or be known by
    /// another last hit by now.
    fn pop_candidate(&mut self, pressure: &Pressure) -> Option<(u64, UnitRef)> {
        self.candidates_mut(pressure)?.pop_first()
    }

    fn candidates_mut(&mut self, pressure: &Pressure) -> Option<&mut Candidates> {
        match (pressure.family, pressure.vpc) {
            (Some(Family::V4), _) => self.by_table.first_mut(),
            (Some(Family::V6), _) => self.by_table.last_mut(),
            (None, Some(vpc)) => self.by_vpc.get_mut(&vpc),
            (None, None) => None,
        }
    }

    fn has_candidates(&self, pressure: &Pressure) -> bool {
        let set = match (pressure.family, pressure.vpc) {
            (Some(Family::V4), _) => self.by_table.first(),
            (Some(Family::V6), _) => self.by_table.last(),
            (None, Some(vpc)) => self.by_vpc.get(&vpc),
            (None, None) => None,
        };
        set.is_some_and(|set| !set.is_empty())
    }
}

impl Ledger {
    /// What is to be read now; `busy`: there are writes to do.
    pub(crate) fn next_read(&mut self, now_ns: u64, busy: bool) -> Option<Read> {
        if now_ns < self.readings.paused_until_ns {
            return None;
        }
        self.idle_read()
            .or_else(|| self.evict_read(now_ns))
            .or_else(|| self.sweep_read(now_ns, busy))
    }

    /// When [`Ledger::next_read`] has something.
    pub(crate) fn read_due(&self) -> u64 {
        let readings = &self.readings;
        let due = if !readings.idle.is_empty() {
            0
        } else if self.may_evict() {
            readings.evict_due_ns.min(self.sweep_due_ns())
        } else if self.stats.in_hardware > 0 {
            self.sweep_due_ns()
        } else {
            u64::MAX
        };
        due.max(readings.paused_until_ns)
    }

    /// When the sweep goes on or begins again: sooner when room is wanted.
    fn sweep_due_ns(&self) -> u64 {
        let readings = &self.readings;
        let Some(begun_ns) = readings.sweep_begun_ns.filter(|_| readings.cursor == 0) else {
            return readings.pace_ns;
        };
        let pressed = readings.evict_idle_ns.is_some() && self.room.pressures().next().is_some();
        let watched = readings
            .busiest
            .is_watched(begun_ns.saturating_add(WATCHED_SWEEP_NS));
        let interval_ns = match (pressed, watched) {
            (true, _) => PRESSED_SWEEP_NS.min(readings.sweep_interval_ns),
            (false, true) => WATCHED_SWEEP_NS.min(readings.sweep_interval_ns),
            (false, false) => readings.sweep_interval_ns,
        };
        readings.pace_ns.max(begun_ns.saturating_add(interval_ns))
    }

    fn may_evict(&self) -> bool {
        let readings = &self.readings;
        readings.evict_idle_ns.is_some()
            && !readings.verifying
            && self
                .room
                .pressures()
                .any(|pressure| readings.has_candidates(&pressure))
    }

    fn idle_read(&mut self) -> Option<Read> {
        let mut units = Vec::new();
        while units.len() < READ_UNITS_MAX {
            let Some(at) = self.readings.idle.pop_front() else {
                break;
            };
            units.push(at);
        }
        self.read_of(Purpose::Idle, units)
    }

    fn evict_read(&mut self, now_ns: u64) -> Option<Read> {
        if now_ns < self.readings.evict_due_ns || !self.may_evict() {
            return None;
        }
        self.readings.evict_due_ns = now_ns.saturating_add(EVICT_EVERY_NS);
        let pressures: Vec<_> = self.room.pressures().collect();
        for pressure in pressures {
            let mut units = Vec::new();
            let wanted = usize::try_from(pressure.units).unwrap_or(READ_UNITS_MAX);
            while units.len() < wanted.min(READ_UNITS_MAX) {
                let Some((last_hit_ns, at)) = self.readings.pop_candidate(&pressure) else {
                    break;
                };
                // It may have left, or been hit since.
                let still = self
                    .units
                    .count(at)
                    .is_some_and(|count| count.last_hit_ns == last_hit_ns);
                if still && self.is_installed(at) {
                    units.push(at);
                }
            }
            let read = self.read_of(Purpose::Evict(pressure.reason), units);
            if read.is_some() {
                self.readings.verifying = true;
                return read;
            }
        }
        None
    }

    fn sweep_read(&mut self, now_ns: u64, busy: bool) -> Option<Read> {
        if now_ns < self.sweep_due_ns() || self.stats.in_hardware == 0 {
            return None;
        }
        if self.readings.cursor == 0 {
            self.readings.sweep_begun_ns = Some(now_ns);
            self.readings.busiest.turn();
        }
        let mut units = Vec::new();
        let end = self
            .readings
            .cursor
            .saturating_add(SWEEP_SLOTS_MAX)
            .min(self.units.slots());
        while self.readings.cursor < end && units.len() < READ_UNITS_MAX {
            let at = self.units.at(self.readings.cursor);
            units.extend(at.filter(|at| self.is_installed(*at)));
            self.readings.cursor += 1;
        }
        let pace = if busy { BUSY_FACTOR } else { 1 };
        let entries = 2 * units.len().max(1) as u64;
        let pause_ns = entries * pace * 1_000_000_000 / self.readings.sweep_rate;
        self.readings.pace_ns = now_ns.saturating_add(pause_ns);
        if self.readings.cursor >= self.units.slots() {
            self.readings.cursor = 0;
            self.stats.sweeps += 1;
        }
        self.read_of(Purpose::Sweep, units)
    }

    fn is_installed(&self, at: UnitRef) -> bool {
        let held = self.units.get(at);
        held.is_some_and(|held| held.owner.is_some() && held.unit.life() == Life::Installed)
    }

    /// Of units that are installed; `None`: of none.
    fn read_of(&self, purpose: Purpose, mut units: Vec<UnitRef>) -> Option<Read> {
        let mut keys = Vec::with_capacity(2 * units.len());
        units.retain(|at| {
            let held = self.units.get(*at);
            let Some(held) = held.filter(|held| held.unit.life() == Life::Installed) else {
                return false;
            };
            let Entries::Pair(pair) = &held.entries else {
                return false;
            };
            keys.extend(pair.keys);
            true
        });
        (!units.is_empty()).then_some(Read {
            purpose,
            units,
            keys,
        })
    }

    /// What was read of a unit's keys, in their order. A reading that lacks one says nothing.
    pub(crate) fn was_read(&mut self, read: &Read, found: &[Option<FlowReading>], now_ns: u64) {
        self.stats.entries_read += found.len() as u64;
        self.readings.failing_since_ns = None;
        for (at, pair) in read.units.iter().zip(found.chunks(2)) {
            if let [Some(forward), Some(reply)] = pair {
                self.note_count(*at, [forward, reply], now_ns);
            }
            match read.purpose {
                Purpose::Sweep => {}
                Purpose::Idle => {
                    let since = pair.iter().flatten().filter_map(|reading| reading.idle);
                    self.tell_idle(*at, since.min());
                }
                Purpose::Evict(reason) => {
                    let known = pair.iter().all(Option::is_some);
                    self.evict(*at, known, reason, now_ns);
                }
            }
        }
        self.after_read(read.purpose);
    }

    /// The switch did not say; `error` is in its words.
    pub(crate) fn was_not_read(&mut self, read: &Read, now_ns: u64) {
        self.stats.failed_reads += 1;
        self.readings.failing_since_ns.get_or_insert(now_ns);
        self.readings.paused_until_ns = now_ns.saturating_add(PAUSE_NS);
        if read.purpose == Purpose::Idle {
            for at in &read.units {
                self.tell_idle(*at, None);
            }
        }
        for at in std::mem::take(&mut self.readings.idle) {
            self.tell_idle(at, None);
        }
        self.after_read(read.purpose);
    }

    const fn after_read(&mut self, purpose: Purpose) {
        if matches!(purpose, Purpose::Evict(_)) {
            self.readings.verifying = false;
        }
    }

    fn note_count(&mut self, at: UnitRef, pair: [&FlowReading; 2], now_ns: u64) {
        if !self.is_installed(at) {
            return;
        }
        let packets = pair.map(|reading| reading.packets);
        let since = pair.iter().filter_map(|reading| reading.idle).min();
        let before = self.units.count(at);
        let last_hit_ns = match before {
            // No packet since the reading before: the older estimate is as right.
            Some(before) if before.packets == packets => before.last_hit_ns,
            // No longer ago than it was installed: of entries that were never hit bmv2 says more.
            _ => {
                let installed = self.units.get(at).map_or(0, |held| held.times.taken_ns());
                now_ns
                    .saturating_sub(since.map_or(0, as_ns))
                    .max(installed.min(now_ns))
            }
        };
        let count = HardwareCount {
            packets,
            bytes: pair.map(|reading| reading.bytes),
            last_hit_ns,
        };
        self.units.set_count(at, count);
        let before = before.map_or(0, |before| before.bytes.iter().sum());
        let bytes: u64 = count.bytes.iter().sum();
        self.readings.busiest.note(bytes.saturating_sub(before), at);
        let idle_ns = now_ns.saturating_sub(last_hit_ns);
        if self
            .readings
            .evict_idle_ns
            .is_some_and(|min| idle_ns >= min)
            && let Some(place) = self.units.get(at).map(|held| held.entries.place())
            && let Some(vpc) = place.vpc
        {
            let share = self.room.has_share(vpc).then_some(vpc);
            self.readings
                .add_candidate(place.family, share, last_hit_ns, at);
        }
    }

    /// It was read a moment ago: evicted if it is idle still.
    fn evict(&mut self, at: UnitRef, known: bool, reason: EvictReason, now_ns: u64) {
        let Some(min_ns) = self.readings.evict_idle_ns else {
            return;
        };
        let count = self.units.count(at);
        let idle = count.is_some_and(|count| now_ns.saturating_sub(count.last_hit_ns) >= min_ns);
        if !known || !idle || !self.is_installed(at) {
            self.stats.spared += u64::from(known && !idle);
            return;
        }
        if let Some(place) = self.units.get(at).map(|held| held.entries.place()) {
            self.room.evicting(&place);
            self.evicting.insert(at, reason);
            self.change(at, now_ns, Unit::evict);
        }
    }

    /// Both directions of a connection are idle: its counts are read, then the worker is told.
    pub(super) fn idle_verdict(&mut self, at: UnitRef, now_ns: u64) {
        let readings = &mut self.readings;
        if readings.paused_until_ns <= now_ns && readings.idle.len() < IDLE_READS_MAX {
            readings.idle.push_back(at);
        } else {
            self.tell_idle(at, None);
        }
    }

    /// `since`: the last packet of either direction, if the switch says so.
    fn tell_idle(&mut self, at: UnitRef, since: Option<Duration>) {
        if !self.is_installed(at) {
            return;
        }
        let timeout = self.units.get(at).and_then(|held| match &held.entries {
            Entries::Pair(pair) => Some(pair.idle_timeout),
            Entries::Orphan(_) => None,
        });
        // The report may be older than the last packet.
        if since
            .zip(timeout)
            .is_some_and(|(since, timeout)| since < timeout / 2)
        {
            self.tell_owner(at, OffloadEvent::Active);
        } else {
            self.stats.idle_connections += 1;
            self.tell_owner(at, OffloadEvent::Idle);
        }
    }

    /// The worker is told what hardware counted of a unit, before it is told that it has left.
    pub(super) fn tell_count(&mut self, at: UnitRef) {
        let Some(count) = self.units.take_count(at) else {
            return;
        };
        if count.packets != [0; 2] {
            self.tell_owner(at, |id| OffloadEvent::Counted(id, count));
        }
    }

    /// The unit that holds each key, and what was read of its direction last.
    pub(crate) fn last_reading(&self, key: &FlowKey, now_ns: u64) -> Option<FlowReading> {
        let (at, side) = self.units.holder(key)?;
        let count = self.units.count(at)?;
        Some(FlowReading {
            packets: *count.packets.get(side)?,
            bytes: *count.bytes.get(side)?,
            idle: Some(Duration::from_nanos(
                now_ns.saturating_sub(count.last_hit_ns),
            )),
        })
    }
}
