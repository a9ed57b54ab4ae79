//! Every unit, who owns which key, and what is to be written next.
//!
//! Time and the switch's answers come in as arguments; batches, and events for the workers, go
//! out. A key belongs to one unit at a time, from before its first write until it is known
//! gone, so two writes of one key are never in flight together. A new unit whose key belongs
//! to one that is leaving waits for it.

mod busiest;
mod entries;
mod idleness;
mod reading;
mod resync;
mod room;
mod units;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use shunt_p4::FlowKey;
use shunt_p4::tables::FlowUpdate;

use crate::clock::as_ns;
use crate::engine::{EngineConfig, EnginePolicy};
use crate::idle::IdlePair;
use crate::queue::{
    ConnectionId, EvictReason, OffloadCommand, OffloadEvent, OffloadUnit, RefuseReason,
};
use crate::stats::{OffloadStats, Recorders, ShareUse, TableUse, Times, Trouble, TroubleKind};
use crate::unit::{Life, Outcome, Step, Unit};

pub use busiest::{BUSIEST_MAX, BusyFlow};
use entries::{Entries, is_writable};
use reading::Readings;
pub(crate) use reading::{READ_UNITS_MAX, Read};
use room::{Family, Room};
use units::{Held, Units};

/// Delay before a write is tried again; doubles with each attempt.
pub(crate) const RETRY_DELAY_MIN: Duration = Duration::from_millis(1);
/// The longest such delay.
pub(crate) const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

type Map<K, V> = HashMap<K, V, ahash::RandomState>;

/// A unit's place; the generation tells apart the users of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UnitRef {
    slot: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Owner {
    port: usize,
    id: ConnectionId,
}

/// What a batch writes, in the order of its updates: one unit's share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    unit: UnitRef,
    wrote: [bool; 2],
}

/// Updates to be written in one request.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) shares: Vec<Share>,
    pub(crate) updates: Vec<FlowUpdate>,
}

/// The ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    units_max: usize,
    units: Units,
    /// Who waits for a unit to end.
    waiters: Map<UnitRef, Vec<UnitRef>>,
    /// Entries that leave go before entries that come.
    removals: VecDeque<UnitRef>,
    installs: VecDeque<UnitRef>,
    delayed: BinaryHeap<Reverse<(u64, UnitRef)>>,
    idle: Map<UnitRef, IdlePair>,
    idle_watch: BinaryHeap<Reverse<(u64, UnitRef)>>,
    /// By port, for the workers.
    events: Vec<VecDeque<OffloadEvent>>,
    /// New units are refused: the switch does not answer.
    refusing: bool,
    room: Room,
    readings: Readings,
    /// Units that are evicted, not gone yet.
    evicting: Map<UnitRef, EvictReason>,
    recorders: Recorders,
    stats: OffloadStats,
}

impl Ledger {
    pub(crate) fn new(ports: usize, config: &EngineConfig) -> Self {
        let units_max = config.units_max;
        let mut ledger = Self {
            units_max,
            units: Units::new(ports, units_max),
            waiters: Map::default(),
            removals: VecDeque::new(),
            installs: VecDeque::new(),
            delayed: BinaryHeap::new(),
            idle: Map::default(),
            idle_watch: BinaryHeap::new(),
            events: vec![VecDeque::new(); ports],
            refusing: false,
            room: Room::new(config.tables),
            readings: Readings::new(config.sweep_interval, config.sweep_rate),
            evicting: Map::default(),
            recorders: Recorders::default(),
            stats: OffloadStats::default(),
        };
        ledger.set_policy(&config.policy);
        ledger
    }

    /// Shares and idleness, from now on.
    pub(crate) fn set_policy(&mut self, policy: &EnginePolicy) {
        self.room.set_shares(policy);
        self.readings.set_evict_idle(policy.evict_idle);
    }

    /// Takes a worker's command.
    pub(crate) fn command(&mut self, port: usize, command: OffloadCommand, now_ns: u64) {
        match command {
            OffloadCommand::Install(unit) => self.install(port, &unit, now_ns),
            OffloadCommand::Remove { id, decided_ns } => {
                self.remove(Owner { port, id }, decided_ns, now_ns);
            }
        }
    }

    fn install(&mut self, port: usize, unit: &OffloadUnit, now_ns: u64) {
        let owner = Owner { port, id: unit.id };
        let refusal = if self.units.is_taken(owner) {
            Some(RefuseReason::KeyInUse)
        } else if !is_writable(unit) {
            Some(RefuseReason::Rejected)
        } else if self.refusing {
            Some(RefuseReason::Unavailable)
        } else if self.units.owned() >= self.units_max {
            Some(RefuseReason::Limit)
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.refuse(owner, reason);
            return;
        }
        let at = self.hold(Held {
            unit: Unit::new(),
            entries: Entries::Pair(unit.flows),
            owner: Some(owner),
            waits: true,
            first_packet_ns: unit.first_packet_ns,
            times: Times::new(unit.decided_ns, now_ns),
        });
        self.admit(at, now_ns);
    }

    /// A unit of which its worker knows that it was installed before the engine was started. What
    /// the switch has of it, [`Ledger::resync`] finds out next.
    pub(crate) fn adopt(&mut self, port: usize, unit: &OffloadUnit, now_ns: u64) {
        let owner = Owner { port, id: unit.id };
        let mut keys = unit.flows.keys.iter();
        let held = keys.any(|key| self.units.holder(key).is_some());
        if held || self.units.is_taken(owner) || !is_writable(unit) {
            // Its worker offers it again, and is refused in words.
            self.stats.lost += 1;
            self.tell(port, OffloadEvent::Lost(unit.id));
            return;
        }
        let at = self.hold(Held {
            unit: Unit::adopted(),
            entries: Entries::Pair(unit.flows),
            owner: Some(owner),
            waits: false,
            first_packet_ns: unit.first_packet_ns,
            times: Times::new(unit.decided_ns, now_ns),
        });
        if let Some(place) = self.units.get(at).map(|held| held.entries.place()) {
            self.room.occupy(&place);
        }
        self.units.claim(at);
        self.stats.adopted += 1;
    }

    fn remove(&mut self, owner: Owner, decided_ns: u64, now_ns: u64) {
        let Some(at) = self.units.of(owner) else {
            self.stats.removals += 1;
            self.tell(owner.port, OffloadEvent::Removed(owner.id));
            return;
        };
        if let Some(held) = self.units.get_mut(at) {
            held.times = Times::new(decided_ns, now_ns);
        }
        self.change(at, now_ns, Unit::remove);
    }

    /// Gives a waiting unit its keys, if nobody has them any more.
    fn admit(&mut self, at: UnitRef, now_ns: u64) {
        let Some(held) = self.units.get(at).filter(|held| held.waits) else {
            return;
        };
        let (owner, place) = (held.owner, held.entries.place());
        let holder = |key: Option<FlowKey>| Some(self.units.holder(&key?)?.0);
        let holders = held.entries.keys().map(holder);
        let mut wait_for = None;
        for holder in holders.into_iter().flatten() {
            if self
                .units
                .get(holder)
                .is_some_and(|held| held.unit.is_leaving())
            {
                wait_for = Some(holder);
            } else {
                if let Some(owner) = owner {
                    self.refuse(owner, RefuseReason::KeyInUse);
                }
                self.forget(at, now_ns);
                return;
            }
        }
        if let Some(holder) = wait_for {
            self.waiters.entry(holder).or_default().push(at);
            return;
        }
        if let Err(reason) = self.room.take(&place, now_ns) {
            if let Some(owner) = owner {
                self.refuse(owner, reason);
            }
            self.forget(at, now_ns);
            return;
        }
        self.units.claim(at);
        if let Some(held) = self.units.get_mut(at) {
            held.waits = false;
        }
        self.installs.push_back(at);
    }

    /// The next batch of at most about `updates_max` updates; `None`: nothing to write now.
    pub(crate) fn batch(&mut self, updates_max: usize, now_ns: u64) -> Option<Batch> {
        let mut batch = Batch {
            shares: Vec::new(),
            updates: Vec::new(),
        };
        while batch.updates.len() < updates_max {
            let Some(at) = self
                .removals
                .pop_front()
                .or_else(|| self.installs.pop_front())
            else {
                break;
            };
            self.send(at, &mut batch, now_ns);
        }
        if batch.updates.is_empty() {
            return None;
        }
        self.stats.batches += 1;
        self.stats.updates += batch.updates.len() as u64;
        Some(batch)
    }

    fn send(&mut self, at: UnitRef, batch: &mut Batch, now_ns: u64) {
        let Some(held) = self.units.get_mut(at).filter(|held| !held.waits) else {
            return;
        };
        let before = held.unit.life();
        // Queued twice, or overtaken by an event: nothing to write then.
        let Some(ops) = held.unit.send() else {
            return;
        };
        held.times.batched(now_ns);
        let mut wrote = [false; 2];
        for (index, (op, wrote)) in ops.into_iter().zip(&mut wrote).enumerate() {
            if let Some(update) = op.and_then(|op| held.entries.update(index, op)) {
                batch.updates.push(update);
                *wrote = true;
            }
        }
        let (attempts, after) = (held.unit.attempts(), held.unit.life());
        batch.shares.push(Share { unit: at, wrote });
        self.count(before, after);
        if attempts > 0 {
            self.stats.retries += wrote.into_iter().filter(|wrote| *wrote).count() as u64;
        }
    }

    /// The answers to a batch, in the order of its updates; a missing one is unknown.
    pub(crate) fn acknowledge(&mut self, shares: &[Share], outcomes: &[Outcome], now_ns: u64) {
        let mut outcomes = outcomes.iter().copied();
        for share in shares {
            let outcomes = share.wrote.map(|wrote| match wrote {
                true => outcomes.next().unwrap_or(Outcome::Unknown),
                false => Outcome::Done,
            });
            self.change(share.unit, now_ns, |unit| unit.acknowledge(outcomes));
        }
    }

    /// A batch's answer was lost.
    pub(crate) fn lost_answer(&mut self, shares: &[Share], now_ns: u64) {
        self.stats.failed_batches += 1;
        self.acknowledge(shares, &[], now_ns);
    }

    /// Writes that were delayed and directions that were watched until `now_ns`.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        while let Some(&Reverse((due_ns, at))) = self.delayed.peek() {
            if due_ns > now_ns {
                break;
            }
            self.delayed.pop();
            self.enqueue(at);
        }
        self.expire_watches(now_ns);
        self.room.advance(now_ns);
    }

    /// When [`Ledger::advance`] has something to do.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let delayed = self.delayed.peek().map(|Reverse((due_ns, _))| *due_ns);
        let watched = self.idle_watch.peek().map(|Reverse((due_ns, _))| *due_ns);
        [delayed, watched].into_iter().flatten().min()
    }

    /// The switch has not answered for long: refuses what was never sent, and all that comes
    /// until [`Ledger::accept`].
    pub(crate) fn give_up(&mut self, now_ns: u64) {
        self.refusing = true;
        for at in std::mem::take(&mut self.installs) {
            self.change(at, now_ns, Unit::give_up);
            if self.units.get(at).is_some() {
                self.installs.push_back(at);
            }
        }
    }

    /// Between [`Ledger::give_up`] and [`Ledger::accept`].
    pub(crate) const fn is_refusing(&self) -> bool {
        self.refusing
    }

    /// The switch answers again.
    pub(crate) fn accept(&mut self) {
        self.refusing = false;
    }

    /// Units that wait to be written.
    pub(crate) fn backlog(&self) -> usize {
        self.installs.len() + self.removals.len()
    }

    /// Nothing to write, nothing in flight, nobody waits.
    pub(crate) fn is_settled(&self) -> bool {
        self.stats.queued + self.stats.installing + self.stats.removing == 0
    }

    /// Events for a worker, oldest first.
    pub(crate) fn events(&mut self, port: usize) -> Option<&mut VecDeque<OffloadEvent>> {
        self.events.get_mut(port)
    }

    /// Whether an event waits for its worker.
    pub(crate) fn has_events(&self) -> bool {
        self.events.iter().any(|events| !events.is_empty())
    }

    /// A snapshot; the caller adds what it knows of the link.
    pub(crate) fn stats(&self, now_ns: u64) -> OffloadStats {
        OffloadStats {
            latencies: self.recorders.summaries(),
            troubles: self.troubles(now_ns),
            shares: self
                .room
                .share_use()
                .map(|(vpc, connections, max)| ShareUse {
                    vpc,
                    connections,
                    max,
                })
                .collect(),
            tables: Family::ALL.map(|family| {
                let (entries, limit) = self.room.occupancy(family);
                TableUse { entries, limit }
            }),
            events_pending: self.events.iter().map(|events| events.len() as u64).sum(),
            ..self.stats.clone()
        }
    }

    fn troubles(&self, now_ns: u64) -> Vec<Trouble> {
        let full = Family::ALL.into_iter().filter_map(|family| {
            let since_ns = self.room.full_since_ns(family, now_ns)?;
            let kind = match family {
                Family::V4 => TroubleKind::Flow4Full,
                Family::V6 => TroubleKind::Flow6Full,
            };
            Some(Trouble::new(kind, since_ns, now_ns))
        });
        let unread = self.readings.failing_since_ns();
        let unread = unread.map(|ns| Trouble::new(TroubleKind::CountersUnread, ns, now_ns));
        full.chain(unread).collect()
    }

    /// Applies an event to a unit and does what follows.
    fn change(&mut self, at: UnitRef, now_ns: u64, event: impl FnOnce(&mut Unit) -> Step) {
        let Some(held) = self.units.get_mut(at) else {
            return;
        };
        let before = held.unit.life();
        let step = event(&mut held.unit);
        let after = held.unit.life();
        self.count(before, after);
        match step {
            Step::Wait => {}
            Step::Write => self.enqueue(at),
            Step::WriteLater => {
                let attempts = self.units.get(at).map_or(0, |held| held.unit.attempts());
                let due_ns = now_ns.saturating_add(as_ns(retry_delay(attempts)));
                self.delayed.push(Reverse((due_ns, at)));
            }
            Step::Installed => {
                self.stats.installs += 1;
                if let Some(held) = self.units.get(at) {
                    self.recorders
                        .installed(held.first_packet_ns, &held.times, now_ns);
                }
                self.tell_owner(at, OffloadEvent::Installed);
            }
            Step::Refused(reason) => {
                if let Some(owner) = self.units.get(at).and_then(|held| held.owner) {
                    self.refuse(owner, reason);
                }
                let family = self.units.get(at).map(|held| held.entries.place().family);
                self.forget(at, now_ns);
                if let Some(family) = family
                    && matches!(reason, RefuseReason::TableFull | RefuseReason::Failed)
                {
                    self.room.learn_full(family, now_ns);
                }
            }
            Step::Evicted => {
                if let Some(reason) = self.evicting.get(&at)
                    && let Some(count) = self.stats.evicted.get_mut(*reason as usize)
                {
                    *count += 1;
                }
                self.tell_count(at);
                self.tell_owner(at, OffloadEvent::Evicted);
                self.forget(at, now_ns);
            }
            Step::Lost => {
                self.stats.lost += 1;
                self.tell_count(at);
                self.tell_owner(at, OffloadEvent::Lost);
                self.forget(at, now_ns);
            }
            Step::Gone => {
                if let Some(held) = self.units.get(at).filter(|held| held.owner.is_some()) {
                    self.recorders.removed(&held.times, now_ns);
                    self.stats.removals += 1;
                }
                self.tell_count(at);
                self.tell_owner(at, OffloadEvent::Removed);
                self.forget(at, now_ns);
            }
        }
    }

    fn enqueue(&mut self, at: UnitRef) {
        match self.units.get(at) {
            Some(held) if held.unit.is_leaving() => self.removals.push_back(at),
            Some(_) => self.installs.push_back(at),
            None => {}
        }
    }

    fn refuse(&mut self, owner: Owner, reason: RefuseReason) {
        if let Some(count) = self.stats.refused.get_mut(reason as usize) {
            *count += 1;
        }
        self.tell(owner.port, OffloadEvent::Refused(owner.id, reason));
    }

    fn tell_owner(&mut self, at: UnitRef, event: impl FnOnce(ConnectionId) -> OffloadEvent) {
        if let Some(owner) = self.units.get(at).and_then(|held| held.owner) {
            self.tell(owner.port, event(owner.id));
        }
    }

    fn tell(&mut self, port: usize, event: OffloadEvent) {
        if let Some(events) = self.events.get_mut(port) {
            events.push_back(event);
        }
    }

    fn hold(&mut self, held: Held) -> UnitRef {
        *self.population(held.unit.life()) += 1;
        self.units.hold(held)
    }

    /// The unit ended: its keys are free for those that wait.
    fn forget(&mut self, at: UnitRef, now_ns: u64) {
        let Some(held) = self.units.take(at) else {
            return;
        };
        *self.population(held.unit.life()) -= 1;
        self.idle.remove(&at);
        if !held.waits {
            let place = held.entries.place();
            self.room.give_back(&place);
            if self.evicting.remove(&at).is_some() {
                self.room.evicted(&place);
            }
        }
        for waiter in self.waiters.remove(&at).unwrap_or_default() {
            self.admit(waiter, now_ns);
        }
    }

    fn count(&mut self, before: Life, after: Life) {
        *self.population(before) -= 1;
        *self.population(after) += 1;
    }

    fn population(&mut self, life: Life) -> &mut u64 {
        match life {
            Life::Queued => &mut self.stats.queued,
            Life::Installing => &mut self.stats.installing,
            Life::Installed => &mut self.stats.in_hardware,
            Life::Removing => &mut self.stats.removing,
        }
    }
}

fn retry_delay(attempts: u8) -> Duration {
    let doublings = u32::from(attempts.saturating_sub(1)).min(10);
    (RETRY_DELAY_MIN * (1 << doublings)).min(RETRY_DELAY_MAX)
}
