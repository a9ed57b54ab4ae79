//! A switch that goes wrong in every way that the sink's contract allows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p4runtime::p4::v1::{TableEntry, update};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use shunt_offload::{FlowReading, FlowSink, Outcome, SinkError};
use shunt_p4::tables::{FlowUpdate, flow_to_entry};
use shunt_p4::{FlowEntry, FlowKey};

/// What may go wrong.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Of 1,000 updates, so many are refused or put off.
    pub update_permille: u32,
    /// Of 1,000 requests, so many fail as a whole, done or not.
    pub request_permille: u32,
    /// Entries that fit.
    pub capacity: usize,
    /// Of 1,000 readings of counters, so many fail.
    pub read_permille: u32,
    /// It restarts empty now and then.
    pub restarts: bool,
    /// The daemon is killed now and then, and the next one adopts.
    pub kills: bool,
}

impl Faults {
    pub const NONE: Self = Self {
        update_permille: 0,
        request_permille: 0,
        capacity: usize::MAX,
        read_permille: 0,
        restarts: false,
        kills: false,
    };
    /// It has too little room for all, and no other fault.
    pub const SMALL: Self = Self {
        capacity: 120,
        ..Self::NONE
    };
    pub const ALL: Self = Self {
        update_permille: 30,
        request_permille: 20,
        capacity: 160,
        read_permille: 50,
        restarts: true,
        kills: true,
    };
}

#[derive(Clone)]
pub struct Switch(Arc<Mutex<State>>);

struct State {
    faults: Faults,
    random: StdRng,
    table: BTreeMap<FlowKey, FlowEntry>,
    /// Of each entry: its packets, and the last hit or its insert.
    counters: BTreeMap<FlowKey, (u64, tokio::time::Instant)>,
    /// Of each key the entry that was deleted last, and its time without packets then.
    left: BTreeMap<FlowKey, (FlowEntry, Duration)>,
    /// Connections of VPC 1 that it may have to hold at most.
    share: usize,
    /// Times that it had no room.
    full: u64,
    writing: BTreeSet<FlowKey>,
    reading: bool,
    epoch: u64,
    /// Until then it does not answer; then, until the second time, it takes no writes.
    dead_until: tokio::time::Instant,
    not_ready_until: tokio::time::Instant,
}

pub fn flow(n: u16, reply: bool) -> FlowKey {
    use shunt_p4::{Tuple, VpcId};
    let tuple = Tuple {
        src: "10.0.0.2".parse().unwrap(),
        dst: "192.0.2.80".parse().unwrap(),
        proto: 6,
        src_port: n,
        dst_port: 80,
    };
    FlowKey {
        vpc: VpcId::new(1 + u16::from(reply)).unwrap(),
        tuple: if reply { tuple.reversed() } else { tuple },
    }
}

impl Switch {
    /// Call within a runtime.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let now = tokio::time::Instant::now();
        Self(Arc::new(Mutex::new(State {
            faults,
            random: StdRng::seed_from_u64(seed),
            table: BTreeMap::new(),
            counters: BTreeMap::new(),
            left: BTreeMap::new(),
            share: usize::MAX,
            full: 0,
            writing: BTreeSet::new(),
            reading: false,
            epoch: 0,
            dead_until: now,
            not_ready_until: now,
        })))
    }

    /// Entries of an earlier life, some under keys that the workers will use.
    pub fn add_left_overs(&self, count: u16) {
        let mut state = self.0.lock().unwrap();
        for n in 0..count {
            let key = flow(n * 7, n % 2 == 0);
            let action = shunt_p4::FlowAction {
                vpc: key.vpc,
                src: None,
                dst: None,
            };
            let idle_timeout = Duration::from_secs(1);
            state.table.insert(
                key,
                FlowEntry {
                    key,
                    action,
                    idle_timeout,
                },
            );
            let now = tokio::time::Instant::now();
            state.counters.insert(key, (0, now));
        }
    }

    pub fn is_left_over(entry: &FlowEntry) -> bool {
        entry.action.src.is_none() && entry.action.dst.is_none()
    }

    pub fn restart(&self, random: &mut StdRng) {
        let mut state = self.0.lock().unwrap();
        state.table.clear();
        state.counters.clear();
        state.epoch += 1;
        let now = tokio::time::Instant::now();
        state.dead_until = now + Duration::from_millis(random.random_range(0..200));
        let long = if random.random_ratio(1, 8) {
            6_000
        } else {
            200
        };
        state.not_ready_until =
            state.dead_until + Duration::from_millis(random.random_range(0..long));
    }

    /// Whoever was writing or reading is gone: what was under way is done or not.
    pub fn killed(&self) {
        let mut state = self.0.lock().unwrap();
        state.writing.clear();
        state.reading = false;
    }

    pub fn heal(&self) {
        let mut state = self.0.lock().unwrap();
        state.faults = Faults::NONE;
        state.dead_until = tokio::time::Instant::now();
        state.not_ready_until = state.dead_until;
    }

    /// From now on it checks that VPC 1 has no more than its share.
    pub fn expect_share(&self, connections: usize) {
        self.0.lock().unwrap().share = connections;
    }

    /// How long it had had no packet for an entry when that was deleted, if it knows still.
    pub fn idle_when_deleted(&self, entry: &FlowEntry) -> Option<Duration> {
        let (left, idle) = *self.0.lock().unwrap().left.get(&entry.key)?;
        (left == *entry).then_some(idle)
    }

    /// How often it had no room.
    pub fn full(&self) -> u64 {
        self.0.lock().unwrap().full
    }

    /// A packet for that entry; `false`: it misses.
    pub fn hit(&self, entry: &FlowEntry) -> bool {
        let mut state = self.0.lock().unwrap();
        if state.table.get(&entry.key) != Some(entry) {
            return false;
        }
        let now = tokio::time::Instant::now();
        let counter = state.counters.get_mut(&entry.key).unwrap();
        *counter = (counter.0 + 1, now);
        true
    }

    pub fn entries(&self) -> Vec<FlowEntry> {
        self.0.lock().unwrap().table.values().copied().collect()
    }

    pub fn holds(&self, key: &FlowKey) -> Option<FlowEntry> {
        self.0.lock().unwrap().table.get(key).copied()
    }

    pub fn epoch(&self) -> u64 {
        self.0.lock().unwrap().epoch
    }

    fn latency(&self) -> Duration {
        let random = &mut self.0.lock().unwrap().random;
        let longest = if random.random_ratio(1, 50) {
            50_000
        } else {
            2_000
        };
        Duration::from_micros(random.random_range(0..longest))
    }
}

impl State {
    fn unavailable(&self) -> Option<SinkError> {
        let now = tokio::time::Instant::now();
        if now < self.dead_until {
            Some(SinkError::Unavailable("restarting".to_owned()))
        } else if now < self.not_ready_until {
            Some(SinkError::NotReady("no pipeline".to_owned()))
        } else {
            None
        }
    }

    fn apply(&mut self, kind: update::Type, entry: &FlowEntry) -> Outcome {
        if self.random.random_ratio(self.faults.update_permille, 1_000) {
            return match self.random.random_range(0..8) {
                0 => Outcome::Rejected,
                1 => Outcome::TableFull,
                // Done, but the answer says nothing.
                2 => {
                    self.really_apply(kind, entry);
                    Outcome::Unknown
                }
                3 => Outcome::Unknown,
                4 => {
                    self.really_apply(kind, entry);
                    Outcome::Failed
                }
                5 => Outcome::Failed,
                _ => Outcome::Retry,
            };
        }
        self.really_apply(kind, entry)
    }

    fn really_apply(&mut self, kind: update::Type, entry: &FlowEntry) -> Outcome {
        let key = entry.key;
        let there = self.table.contains_key(&key);
        match kind {
            update::Type::Insert if there => Outcome::AlreadyExists,
            update::Type::Insert if self.table.len() >= self.faults.capacity => {
                self.full += 1;
                Outcome::TableFull
            }
            update::Type::Modify | update::Type::Delete if !there => Outcome::NotFound,
            update::Type::Insert | update::Type::Modify => {
                self.table.insert(key, *entry);
                let now = tokio::time::Instant::now();
                self.counters.entry(key).or_insert((0, now));
                let of_share =
                    |entry: &&FlowEntry| entry.key.vpc.get() == 1 && !Switch::is_left_over(entry);
                let held = self.table.values().filter(of_share).count();
                assert!(held <= self.share, "more than the share: {held}");
                Outcome::Done
            }
            update::Type::Delete => {
                let entry = self.table.remove(&key);
                let counter = self.counters.remove(&key);
                if let Some((entry, (_, last))) = entry.zip(counter) {
                    let idle = tokio::time::Instant::now() - last;
                    self.left.insert(key, (entry, idle));
                }
                Outcome::Done
            }
            update::Type::Unspecified => panic!("an update of no type"),
        }
    }
}

impl FlowSink for Switch {
    async fn write(&self, updates: Vec<FlowUpdate>) -> Result<Vec<Outcome>, SinkError> {
        let keys: Vec<_> = updates.iter().map(|update| update.flow().key).collect();
        {
            let mut state = self.0.lock().unwrap();
            assert!(!state.reading, "a write while the tables are read");
            for key in &keys {
                assert!(
                    state.writing.insert(*key),
                    "two writes in flight for {key:?}"
                );
            }
        }
        tokio::time::sleep(self.latency()).await;
        let answer = {
            let mut state = self.0.lock().unwrap();
            let whole = state.faults.request_permille;
            let lost = state.random.random_ratio(whole, 1_000);
            if let Some(error) = state.unavailable() {
                Err(error)
            } else if lost && state.random.random_bool(0.3) {
                Err(SinkError::Unavailable("lost on the way there".to_owned()))
            } else {
                let mut outcomes = vec![Outcome::Unknown; updates.len()];
                let mut order: Vec<_> = (0..updates.len()).collect();
                order.shuffle(&mut state.random);
                for index in order {
                    // Some of a request is done when the connection breaks.
                    if lost && state.random.random_bool(0.3) {
                        continue;
                    }
                    let update = &updates[index];
                    outcomes[index] = state.apply(update.kind(), update.flow());
                }
                if lost {
                    Err(SinkError::Unavailable("lost on the way back".to_owned()))
                } else {
                    Ok(outcomes)
                }
            }
        };
        tokio::time::sleep(self.latency()).await;
        let mut state = self.0.lock().unwrap();
        for key in &keys {
            state.writing.remove(key);
        }
        answer
    }

    async fn delete(&self, keys: Vec<TableEntry>) -> Result<Vec<Outcome>, SinkError> {
        panic!("all entries are flows, and {keys:?} is to be deleted");
    }

    async fn read_counters(
        &self,
        keys: Vec<FlowKey>,
    ) -> Result<Vec<Option<FlowReading>>, SinkError> {
        tokio::time::sleep(self.latency()).await;
        let found = {
            let mut state = self.0.lock().unwrap();
            if let Some(error) = state.unavailable() {
                return Err(error);
            }
            let permille = state.faults.read_permille;
            if state.random.random_ratio(permille, 1_000) {
                return Err(SinkError::Unavailable("the counters are lost".to_owned()));
            }
            let now = tokio::time::Instant::now();
            let reading = |(packets, last): &(u64, tokio::time::Instant)| FlowReading {
                packets: *packets,
                bytes: *packets * 100,
                idle: Some(now - *last),
            };
            keys.iter()
                .map(|key| state.counters.get(key).map(reading))
                .collect()
        };
        tokio::time::sleep(self.latency()).await;
        Ok(found)
    }

    async fn read_flows(&self) -> Result<Vec<TableEntry>, SinkError> {
        {
            let mut state = self.0.lock().unwrap();
            assert!(
                state.writing.is_empty(),
                "a read while writes are in flight"
            );
            state.reading = true;
        }
        tokio::time::sleep(self.latency()).await;
        let mut state = self.0.lock().unwrap();
        state.reading = false;
        if let Some(error) = state.unavailable() {
            return Err(error);
        }
        Ok(state
            .table
            .values()
            .map(|entry| flow_to_entry(entry).unwrap())
            .collect())
    }
}
