//! The whole engine against a switch with faults, in simulated time.
//!
//! Workers install and remove connections at random and have packets; the switch is slow, full,
//! refuses, loses answers, restarts empty; VPCs have shares, idle connections are evicted; the
//! daemon is killed, and the next one adopts. A failing run prints the command that repeats it.
//! `SHUNT_SIM_STEPS` makes longer runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]

mod simulation {
    pub mod switch;
    pub mod worker;
}

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use shunt_offload::{
    Clock, Engine, EngineConfig, EngineHandle, EnginePolicy, InstallerPort, LinkState,
    OffloadStats, ReadBack, RefuseReason, TableSizes, VpcShare, channel,
};
use shunt_p4::VpcId;
use simulation::switch::{Faults, Switch};
use simulation::worker::Worker;
use tokio::sync::oneshot;

const SEEDS: u64 = 60;
const STEPS: u32 = 12_000;

fn seeds() -> Vec<u64> {
    match std::env::var("SHUNT_SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("SHUNT_SIM_SEED is not a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

fn steps() -> u32 {
    std::env::var("SHUNT_SIM_STEPS").map_or(STEPS, |steps| steps.parse().unwrap())
}

/// Says how to run it again when a check fails.
struct OnPanic {
    test: &'static str,
    seed: u64,
    steps: u32,
}

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed, steps } = self;
            eprintln!(
                "to run it again: SHUNT_SIM_SEED={seed} SHUNT_SIM_STEPS={steps} cargo test \
                 -p shunt-offload --test simulation {test} -- --exact"
            );
        }
    }
}

/// What a run came to.
#[derive(Debug, PartialEq)]
struct Run {
    stats: OffloadStats,
    /// Times that the switch had no room.
    full: u64,
    /// Packets in hardware, and what the workers were told of them.
    hits: u64,
    counted: u64,
}

fn simulate(test: &'static str, seed: u64, faults: Faults, steps: u32) -> Run {
    let _again = OnPanic { test, seed, steps };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run(seed, faults, steps))
}

/// What is started anew when the daemon is killed.
struct Daemon {
    engine: EngineHandle,
    /// Until it is adopted.
    read_back: Option<oneshot::Receiver<ReadBack>>,
    found: Option<ReadBack>,
}

impl Daemon {
    fn start(config: &EngineConfig, ports: Vec<InstallerPort>, switch: &Switch) -> Self {
        let (engine, read_back) = Engine::start_adopting(config.clone(), ports, switch.clone());
        Self {
            engine,
            read_back: Some(read_back),
            found: None,
        }
    }

    /// Hears of the first read-back, and some time later adopts what the workers know of it.
    async fn adopt(&mut self, workers: &mut [Worker], at_once: bool) {
        if let Some(read_back) = &mut self.read_back
            && let Ok(found) = read_back.try_recv()
        {
            self.read_back = None;
            self.found = Some(found);
        }
        if !at_once {
            return;
        }
        if let Some(found) = self.found.take() {
            for (port, worker) in workers.iter_mut().enumerate() {
                let units = worker.claim(&found.entries);
                self.engine.adopt(port, units).await.unwrap();
            }
        }
    }
}

async fn run(seed: u64, faults: Faults, steps: u32) -> Run {
    let mut random = StdRng::seed_from_u64(seed);
    let switch = Switch::new(random.random(), faults);
    switch.add_left_overs(5);
    let clock = Clock::tokio();
    let mut workers = Vec::new();
    let mut ports = Vec::new();
    for index in 0..2 {
        let (worker, port) = channel(1 << random.random_range(2..7));
        workers.push(Worker::new(index, worker, switch.clone(), clock.clone()));
        ports.push(port);
    }
    let mut config = EngineConfig {
        batch_updates_max: random.random_range(2..40),
        in_flight_max: random.random_range(1..6),
        units_max: random.random_range(40..300),
        give_up_after: Duration::from_secs(2),
        // Known, or to be found out.
        tables: match random.random_bool(0.5) {
            true => TableSizes {
                flow4: faults.capacity as u64,
                flow6: faults.capacity as u64,
            },
            false => TableSizes::UNKNOWN,
        },
        sweep_interval: Duration::from_millis(random.random_range(100..5_000)),
        sweep_rate: random.random_range(50..50_000),
        clock,
        ..EngineConfig::default()
    };
    let policy = policy(&mut random);
    for worker in &mut workers {
        // Faults delay evictions, and what is evicted may be hit meanwhile.
        worker.evict_idle = policy.evict_idle.filter(|_| faults.update_permille == 0);
    }
    let shares = policy.shares.iter();
    if let Some(connections) = shares.filter_map(|(_, share)| share.connections).min() {
        switch.expect_share(connections as usize);
    }
    config.policy = policy.clone();
    let mut daemon = Daemon::start(&config, ports, &switch);
    let mut sum = OffloadStats::default();

    for _ in 0..steps {
        daemon.adopt(&mut workers, random.random_ratio(1, 10)).await;
        let engine = &daemon.engine;
        let worker = random.random_range(0..workers.len());
        let worker = &mut workers[worker];
        match random.random_range(0..100_u32) {
            0..35 => worker.install(&mut random),
            35..45 => worker.remove(&mut random),
            45..65 => worker.packets(&mut random),
            65..80 => worker.poll(),
            80..98 => {
                let longest = if random.random_ratio(1, 20) {
                    2_000_000
                } else {
                    3_000
                };
                let pause = Duration::from_micros(random.random_range(0..longest));
                tokio::time::sleep(pause).await;
            }
            98 if faults.restarts && random.random() => {
                switch.restart(&mut random);
                // The session notices sooner or later, or the engine's own writes do first.
                if random.random_bool(0.5) {
                    engine.lost();
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
                engine.resync();
            }
            98 if faults.kills => {
                sum_up(&mut sum, &engine.stats().await.unwrap());
                drop(daemon);
                // The task ends, with all that it had in flight.
                tokio::time::sleep(Duration::from_micros(1)).await;
                switch.killed();
                let mut ports = Vec::new();
                for worker in &mut workers {
                    let (ring, port) = channel(1 << random.random_range(2..7));
                    worker.restart(ring);
                    ports.push(port);
                }
                daemon = Daemon::start(&config, ports, &switch);
            }
            _ => {
                let key = worker.some_key(&mut random);
                engine.idle(key.into_iter().collect());
            }
        }
    }

    // The weather clears, and nobody is evicted any more.
    switch.heal();
    let calm = EnginePolicy {
        evict_idle: None,
        ..policy
    };
    daemon.engine.set_policy(calm).await.unwrap();
    daemon.engine.resync();
    for _ in 0..200 {
        daemon.adopt(&mut workers, true).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        daemon.read_back.is_none(),
        "the first read-back is not told"
    );
    let engine = &daemon.engine;
    rest(engine, &mut workers).await;
    let mut wanted: Vec<_> = workers.iter().flat_map(Worker::installed_entries).collect();
    wanted.sort_by_key(|entry| entry.key);
    let held = switch.entries();
    let surplus: Vec<_> = held
        .iter()
        .filter(|entry| !wanted.contains(entry))
        .collect();
    let missing: Vec<_> = wanted
        .iter()
        .filter(|entry| !held.contains(entry))
        .collect();
    assert!(
        surplus.is_empty() && missing.is_empty(),
        "hardware holds {surplus:#?} too much and lacks {missing:#?}"
    );
    let stats = engine.stats().await.unwrap();
    assert_eq!(stats.in_hardware as usize, wanted.len() / 2);
    assert_eq!(stats.link, LinkState::Up);

    for worker in &mut workers {
        worker.remove_all();
    }
    rest(engine, &mut workers).await;
    assert_eq!(switch.entries(), [], "something is left");
    for worker in &workers {
        worker.check_nothing_is_open();
    }
    let mut stats = engine.stats().await.unwrap();
    assert_eq!(
        stats.in_hardware + stats.queued + stats.installing + stats.removing,
        0
    );
    daemon.engine.shutdown().await;
    sum_up(&mut stats, &sum);
    Run {
        stats,
        full: switch.full(),
        hits: workers.iter().map(|worker| worker.hits).sum(),
        counted: workers.iter().map(|worker| worker.counted).sum(),
    }
}

/// Shares and eviction in all combinations.
fn policy(random: &mut StdRng) -> EnginePolicy {
    let share = VpcShare {
        connections: Some(random.random_range(5..60)),
        percent: None,
    };
    let idle = Duration::from_millis(random.random_range(600..4_000));
    EnginePolicy {
        shares: match random.random_bool(0.5) {
            true => vec![(VpcId::MIN, share)],
            false => Vec::new(),
        },
        evict_idle: random.random_bool(0.7).then_some(idle),
    }
}

/// Counts of several engines together.
fn sum_up(total: &mut OffloadStats, stats: &OffloadStats) {
    total.installs += stats.installs;
    total.removals += stats.removals;
    total.retries += stats.retries;
    total.failed_batches += stats.failed_batches;
    total.failed_reads += stats.failed_reads;
    total.orphans += stats.orphans;
    total.adopted += stats.adopted;
    total.lost += stats.lost;
    add(&mut total.evicted, stats.evicted);
    add(&mut total.refused, stats.refused);
}

/// Until the engine has nothing to do and the workers have heard everything.
async fn rest(engine: &shunt_offload::EngineRef, workers: &mut [Worker]) {
    for _ in 0..200 {
        for worker in workers.iter_mut() {
            worker.send_unsent();
            worker.poll();
        }
        let settled = tokio::time::timeout(Duration::from_millis(500), engine.settled()).await;
        let heard = engine.stats().await.unwrap().events_pending == 0;
        let said = !workers.iter().any(Worker::has_unsent);
        if matches!(settled, Ok(Ok(()))) && heard && said {
            for worker in workers.iter_mut() {
                worker.poll();
            }
            return;
        }
    }
    panic!(
        "the engine does not come to rest: {:#?}",
        engine.stats().await
    );
}

#[test]
fn a_healthy_switch() {
    for seed in seeds() {
        let run = simulate("a_healthy_switch", seed, Faults::NONE, steps());
        assert_eq!(run.stats.failed_batches, 0);
        assert_eq!(run.stats.lost, 0);
        assert!(run.stats.installs > 0);
    }
}

#[test]
fn a_switch_with_little_room() {
    let (mut evicted, mut refused) = ([0; 2], [0; RefuseReason::ALL.len()]);
    let (mut spared, mut hits, mut counted) = (0, 0, 0);
    for seed in seeds() {
        let run = simulate("a_switch_with_little_room", seed, Faults::SMALL, steps());
        assert_eq!(run.stats.lost, 0);
        add(&mut evicted, run.stats.evicted);
        add(&mut refused, run.stats.refused);
        spared += run.stats.spared;
        hits += run.hits;
        counted += run.counted;
        if run.stats.tables[0].limit == Faults::SMALL.capacity as u64 && run.full > 0 {
            // Who knows the size never asks for more; the other half has found it out.
            assert!(run.stats.refused[RefuseReason::TableFull as usize] > 0);
        }
    }
    if std::env::var("SHUNT_SIM_SEED").is_err() {
        assert!(evicted.iter().all(|count| *count > 0), "{evicted:?}");
        assert!(refused[RefuseReason::TableFull as usize] > 0, "{refused:?}");
        assert!(refused[RefuseReason::VpcShare as usize] > 0, "{refused:?}");
        assert!(spared > 0);
        // What leaves at once takes its last packets along; nearly all are counted.
        assert!(counted * 10 > hits * 3, "{counted} of {hits} packets");
    }
}

#[test]
fn a_faulty_switch() {
    let mut total = OffloadStats::default();
    for seed in seeds() {
        let stats = simulate("a_faulty_switch", seed, Faults::ALL, steps()).stats;
        sum_up(&mut total, &stats);
    }
    if std::env::var("SHUNT_SIM_SEED").is_err() {
        // The faults have to happen for the checks to mean something.
        assert!(total.retries > 0 && total.failed_batches > 0 && total.orphans > 0);
        assert!(total.failed_reads > 0 && total.evicted.iter().all(|count| *count > 0));
        assert!(
            total.lost > 0 && total.refused.iter().all(|count| *count > 0),
            "{total:?}"
        );
    }
}

fn add<const N: usize>(sums: &mut [u64; N], counts: [u64; N]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count;
    }
}

/// The switch is well, so that nothing that was in hardware may be lost.
#[test]
fn a_daemon_that_is_killed() {
    let faults = Faults {
        kills: true,
        ..Faults::NONE
    };
    let mut total = OffloadStats::default();
    for seed in seeds() {
        let run = simulate("a_daemon_that_is_killed", seed, faults, steps());
        sum_up(&mut total, &run.stats);
    }
    assert_eq!(total.lost, 0);
    if std::env::var("SHUNT_SIM_SEED").is_err() {
        assert!(total.adopted > 0 && total.orphans > 0, "{total:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let test = "the_same_seed_is_the_same_run";
    for faults in [Faults::ALL, Faults::SMALL] {
        let runs: Vec<_> = (0..2).map(|_| simulate(test, 7, faults, 1_000)).collect();
        assert_eq!(runs[0], runs[1]);
    }
}
