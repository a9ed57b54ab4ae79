//! The engine's rules one by one, against a switch that answers when told to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use p4runtime::p4::v1::TableEntry;
use shunt_offload::{
    Clock, ConnectionId, Engine, EngineConfig, EngineHandle, EnginePolicy, FlowReading, FlowSink,
    LinkState, OffloadCommand, OffloadEvent, OffloadUnit, Outcome, RefuseReason, SinkError,
    TableSizes, Trouble, TroubleKind, WorkerPort, channel,
};
use shunt_p4::tables::FlowUpdate;
use shunt_p4::{FlowKey, FlowPair, Tuple, VpcId};
use tokio::sync::Semaphore;

/// A switch that accepts everything, one permit a write.
#[derive(Clone)]
struct Gate(Arc<Inner>);

struct Inner {
    permits: Semaphore,
    started: Mutex<Vec<usize>>,
    finished: Mutex<usize>,
    down: Mutex<bool>,
    /// It does not give its counters.
    mute: Mutex<bool>,
    /// What it says of every entry.
    counters: Mutex<Option<FlowReading>>,
}

impl Gate {
    fn new(permits: usize) -> Self {
        Self(Arc::new(Inner {
            permits: Semaphore::new(permits),
            started: Mutex::default(),
            finished: Mutex::default(),
            down: Mutex::default(),
            mute: Mutex::default(),
            counters: Mutex::default(),
        }))
    }

    /// Updates of each write so far.
    fn started(&self) -> Vec<usize> {
        self.0.started.lock().unwrap().clone()
    }

    fn finished(&self) -> usize {
        *self.0.finished.lock().unwrap()
    }

    fn set_down(&self, down: bool) {
        *self.0.down.lock().unwrap() = down;
    }

    /// From now on every entry has had no packet.
    fn answer_counters(&self) {
        *self.0.counters.lock().unwrap() = Some(FlowReading::default());
    }

    fn set_mute(&self, mute: bool) {
        *self.0.mute.lock().unwrap() = mute;
    }

    fn answer(&self) -> Result<(), SinkError> {
        match *self.0.down.lock().unwrap() {
            true => Err(SinkError::Unavailable("down".to_owned())),
            false => Ok(()),
        }
    }
}

impl FlowSink for Gate {
    async fn write(&self, updates: Vec<FlowUpdate>) -> Result<Vec<Outcome>, SinkError> {
        self.0.started.lock().unwrap().push(updates.len());
        self.0.permits.acquire().await.unwrap().forget();
        *self.0.finished.lock().unwrap() += 1;
        self.answer()?;
        Ok(vec![Outcome::Done; updates.len()])
    }

    async fn delete(&self, keys: Vec<TableEntry>) -> Result<Vec<Outcome>, SinkError> {
        panic!("nothing was read, and {keys:?} is to be deleted");
    }

    async fn read_flows(&self) -> Result<Vec<TableEntry>, SinkError> {
        self.answer()?;
        Ok(Vec::new())
    }

    async fn read_counters(
        &self,
        keys: Vec<FlowKey>,
    ) -> Result<Vec<Option<FlowReading>>, SinkError> {
        self.answer()?;
        match *self.0.mute.lock().unwrap() {
            true => Err(SinkError::Unavailable("no counters".to_owned())),
            false => Ok(vec![*self.0.counters.lock().unwrap(); keys.len()]),
        }
    }
}

fn unit(n: u16) -> OffloadUnit {
    let vpc = VpcId::MIN;
    let tuple = Tuple {
        src: "10.0.0.2".parse().unwrap(),
        dst: "192.0.2.80".parse().unwrap(),
        proto: 17,
        src_port: n,
        dst_port: 53,
    };
    OffloadUnit {
        id: ConnectionId::new(u32::from(n), 0),
        flows: FlowPair {
            keys: [tuple, tuple.reversed()].map(|tuple| FlowKey { vpc, tuple }),
            vpcs: [vpc; 2],
            idle_timeout: Duration::from_secs(30),
        },
        first_packet_ns: 0,
        decided_ns: 0,
    }
}

fn install(worker: &mut WorkerPort, n: u16) {
    worker.submit(OffloadCommand::Install(unit(n))).unwrap();
}

fn start(gate: &Gate, capacity: usize, in_flight_max: usize) -> (WorkerPort, EngineHandle) {
    let (worker, port) = channel(capacity);
    let config = EngineConfig {
        in_flight_max,
        clock: Clock::tokio(),
        ..EngineConfig::default()
    };
    let engine = Engine::start(config, vec![port], gate.clone());
    (worker, engine)
}

/// Lets the engine do all that it can do now; time stands still but for this.
async fn breathe() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

#[tokio::test(start_paused = true)]
async fn idle_writes_at_once_and_busy_fills_batches() {
    let gate = Gate::new(0);
    let (mut worker, engine) = start(&gate, 1024, 1);
    breathe().await;
    install(&mut worker, 0);
    breathe().await;
    assert_eq!(gate.started(), [2], "a single unit waits for company");
    for n in 1..=600 {
        install(&mut worker, n);
    }
    breathe().await;
    assert_eq!(gate.started(), [2], "more in flight than allowed");
    gate.0.permits.add_permits(10);
    engine.settled().await.unwrap();
    assert_eq!(gate.started(), [2, 1_000, 200]);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_being_removed_is_waited_for() {
    let gate = Gate::new(1);
    let (mut worker, engine) = start(&gate, 16, 4);
    install(&mut worker, 1);
    engine.settled().await.unwrap();
    worker
        .submit(OffloadCommand::Remove {
            id: unit(1).id,
            decided_ns: 0,
        })
        .unwrap();
    let heir = OffloadUnit {
        id: ConnectionId::new(9, 9),
        ..unit(1)
    };
    worker.submit(OffloadCommand::Install(heir)).unwrap();
    breathe().await;
    assert_eq!(
        gate.started(),
        [2, 2],
        "the key is written while it is removed"
    );
    gate.0.permits.add_permits(2);
    engine.settled().await.unwrap();
    let told: Vec<_> = std::iter::from_fn(|| worker.poll()).collect();
    assert_eq!(
        told,
        [
            OffloadEvent::Installed(unit(1).id),
            OffloadEvent::Removed(unit(1).id),
            OffloadEvent::Installed(heir.id),
        ]
    );
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_in_use_is_refused() {
    let gate = Gate::new(100);
    let (mut worker, engine) = start(&gate, 16, 4);
    install(&mut worker, 1);
    let thief = OffloadUnit {
        id: ConnectionId::new(9, 9),
        ..unit(1)
    };
    worker.submit(OffloadCommand::Install(thief)).unwrap();
    let same_twice = OffloadUnit {
        flows: FlowPair {
            keys: [unit(2).flows.keys[0]; 2],
            ..unit(2).flows
        },
        ..unit(2)
    };
    worker.submit(OffloadCommand::Install(same_twice)).unwrap();
    engine.settled().await.unwrap();
    let told: Vec<_> = std::iter::from_fn(|| worker.poll()).collect();
    assert_eq!(
        told,
        [
            OffloadEvent::Refused(thief.id, RefuseReason::KeyInUse),
            OffloadEvent::Refused(same_twice.id, RefuseReason::Rejected),
            OffloadEvent::Installed(unit(1).id),
        ]
    );
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_room() {
    let gate = Gate::new(100);
    let (mut worker, engine) = start(&gate, 2, 4);
    for n in 0..20 {
        while worker.submit(OffloadCommand::Install(unit(n))).is_err() {
            breathe().await;
        }
    }
    engine.settled().await.unwrap();
    assert!(engine.stats().await.unwrap().events_pending >= 18);
    let mut told = Vec::new();
    while told.len() < 20 {
        match worker.poll() {
            Some(event) => told.push(event),
            None => breathe().await,
        }
    }
    let wanted: Vec<_> = (0..20)
        .map(|n| OffloadEvent::Installed(unit(n).id))
        .collect();
    assert_eq!(told, wanted);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_not_written_to() {
    let gate = Gate::new(100);
    let (mut worker, engine) = start(&gate, 16, 4);
    engine.settled().await.unwrap();
    engine.lost();
    breathe().await;
    install(&mut worker, 1);
    breathe().await;
    assert_eq!(gate.started(), [0; 0]);
    assert_eq!(engine.stats().await.unwrap().link, LinkState::Held);
    engine.resync();
    engine.settled().await.unwrap();
    assert_eq!(worker.poll(), Some(OffloadEvent::Installed(unit(1).id)));
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_switch_degrades_to_software_and_recovers_by_itself() {
    let gate = Gate::new(100);
    gate.set_down(true);
    let (mut worker, engine) = start(&gate, 16, 4);
    install(&mut worker, 1);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(worker.poll(), None, "given up too early");
    tokio::time::sleep(Duration::from_secs(2)).await;
    install(&mut worker, 2);
    breathe().await;
    for n in [1, 2] {
        let refused = OffloadEvent::Refused(unit(n).id, RefuseReason::Unavailable);
        assert_eq!(worker.poll(), Some(refused));
    }
    let stats = engine.stats().await.unwrap();
    assert!(stats.last_error.is_some_and(|words| words.contains("down")));
    gate.set_down(false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    install(&mut worker, 3);
    engine.settled().await.unwrap();
    assert_eq!(worker.poll(), Some(OffloadEvent::Installed(unit(3).id)));
    engine.shutdown().await;
}

/// What is wrong is said with its kind, and for how long; none of it has to be cleared by hand.
#[tokio::test(start_paused = true)]
async fn troubles_are_told_and_are_over_by_themselves() {
    let gate = Gate::new(100);
    let (mut worker, port) = channel(8);
    let config = EngineConfig {
        in_flight_max: 1,
        tables: TableSizes { flow4: 4, flow6: 4 },
        clock: Clock::tokio(),
        ..EngineConfig::default()
    };
    let engine = Engine::start(config, vec![port], gate.clone());
    engine.settled().await.unwrap();
    let troubles = async || engine.stats().await.unwrap().troubles;
    let kinds = async || -> Vec<_> { troubles().await.iter().map(|it| it.kind).collect() };
    assert_eq!(kinds().await, []);

    // The table has room for two.
    for n in 0..3 {
        install(&mut worker, n);
    }
    engine.settled().await.unwrap();
    assert_eq!(kinds().await, [TroubleKind::Flow4Full]);
    let told: Vec<_> = std::iter::from_fn(|| worker.poll()).collect();
    let refused = OffloadEvent::Refused(unit(2).id, RefuseReason::TableFull);
    assert!(told.contains(&refused), "{told:?}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let lasts = troubles().await[0].lasts;
    assert!((Duration::from_secs(4)..Duration::from_secs(5)).contains(&lasts));
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(kinds().await, []);

    // The ring is full.
    for n in 10..18 {
        install(&mut worker, n);
    }
    breathe().await;
    assert!(kinds().await.contains(&TroubleKind::QueueFull));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(kinds().await, []);

    // The switch is away, and then for long.
    gate.set_down(true);
    let id = unit(0).id;
    worker
        .submit(OffloadCommand::Remove { id, decided_ns: 0 })
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(kinds().await.contains(&TroubleKind::SwitchAway));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(kinds().await.contains(&TroubleKind::Refusing));
    gate.set_down(false);
    engine.settled().await.unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(kinds().await, []);
    engine.shutdown().await;
}

/// Regression: a sweep that ended before room was wanted put the next one off for its whole
/// interval, so that nobody made room until then.
#[tokio::test(start_paused = true)]
async fn wanted_room_hastens_the_sweep() {
    let gate = Gate::new(100);
    let (mut worker, port) = channel(64);
    let config = EngineConfig {
        tables: TableSizes { flow4: 6, flow6: 6 },
        sweep_interval: Duration::from_secs(3_600),
        policy: EnginePolicy {
            shares: Vec::new(),
            evict_idle: Some(Duration::from_secs(2)),
        },
        clock: Clock::tokio(),
        ..EngineConfig::default()
    };
    let engine = Engine::start(config, vec![port], gate.clone());
    gate.answer_counters();
    install(&mut worker, 1);
    engine.settled().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(engine.stats().await.unwrap().sweeps >= 1);
    for n in 2..=3 {
        install(&mut worker, n);
    }
    engine.settled().await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let evicted = engine.stats().await.unwrap().evicted;
    assert!(evicted.iter().sum::<u64>() > 0, "{evicted:?}");
    engine.shutdown().await;
}

/// A switch that gives no counters: nobody is evicted, a connection reported idle is idle.
#[tokio::test(start_paused = true)]
async fn without_counters_idle_reports_are_believed() {
    let gate = Gate::new(100);
    gate.set_mute(true);
    let (mut worker, engine) = start(&gate, 16, 4);
    install(&mut worker, 1);
    engine.settled().await.unwrap();
    assert_eq!(worker.poll(), Some(OffloadEvent::Installed(unit(1).id)));
    tokio::time::sleep(Duration::from_secs(40)).await;
    let stats = engine.stats().await.unwrap();
    assert!(stats.failed_reads > 0);
    let unread = |it: &Trouble| it.kind == TroubleKind::CountersUnread;
    assert!(stats.troubles.iter().any(unread));
    engine.idle(unit(1).flows.keys.to_vec());
    breathe().await;
    assert_eq!(worker.poll(), Some(OffloadEvent::Idle(unit(1).id)));
    gate.set_mute(false);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(engine.stats().await.unwrap().troubles, []);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_what_is_in_flight() {
    let gate = Gate::new(0);
    let (mut worker, engine) = start(&gate, 16, 4);
    install(&mut worker, 1);
    breathe().await;
    assert_eq!((gate.started().len(), gate.finished()), (1, 0));
    let opener = gate.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        opener.0.permits.add_permits(1);
    });
    engine.shutdown().await;
    assert_eq!(gate.finished(), 1, "cut off in the middle of a write");
    assert!(worker.is_closed());
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_a_dead_switch() {
    let gate = Gate::new(0);
    let (mut worker, engine) = start(&gate, 16, 4);
    install(&mut worker, 1);
    breathe().await;
    tokio::time::timeout(Duration::from_secs(10), engine.shutdown())
        .await
        .expect("waits for ever");
    breathe().await;
    assert!(worker.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_does_not_stop_the_others() {
    let gate = Gate::new(100);
    let (first, first_port) = channel(4);
    let (mut second, second_port) = channel(4);
    let config = EngineConfig {
        clock: Clock::tokio(),
        ..EngineConfig::default()
    };
    let engine = Engine::start(config, vec![first_port, second_port], gate.clone());
    drop(first);
    breathe().await;
    install(&mut second, 1);
    engine.settled().await.unwrap();
    assert_eq!(second.poll(), Some(OffloadEvent::Installed(unit(1).id)));
    engine.shutdown().await;
}
