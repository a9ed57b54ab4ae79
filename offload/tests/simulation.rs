//! The whole engine against a switch with faults, in simulated time.
//!
//! Workers install and remove connections at random; the switch is slow, full, refuses, loses
//! answers, restarts empty. A failing run prints its seed:
//! `SHUNT_SIM_SEED=<seed> cargo test -p shunt-offload --test simulation`.
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
use shunt_offload::{Clock, Engine, EngineConfig, LinkState, OffloadStats, channel};
use simulation::switch::{Faults, Switch};
use simulation::worker::Worker;

const SEEDS: u64 = 60;
const STEPS: u32 = 2_000;

fn seeds() -> Vec<u64> {
    match std::env::var("SHUNT_SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("SHUNT_SIM_SEED is not a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

fn steps() -> u32 {
    std::env::var("SHUNT_SIM_STEPS").map_or(STEPS, |steps| steps.parse().unwrap())
}

/// Names the seed when a check fails.
struct OnPanic(u64);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failing run is SHUNT_SIM_SEED={}", self.0);
        }
    }
}

fn simulate(seed: u64, faults: Faults, steps: u32) -> OffloadStats {
    let _seed = OnPanic(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run(seed, faults, steps))
}

async fn run(seed: u64, faults: Faults, steps: u32) -> OffloadStats {
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
    let config = EngineConfig {
        batch_updates_max: random.random_range(2..40),
        in_flight_max: random.random_range(1..6),
        units_max: random.random_range(40..300),
        give_up_after: Duration::from_secs(2),
        clock,
        ..EngineConfig::default()
    };
    let engine = Engine::start(config, ports, switch.clone());

    for _ in 0..steps {
        let worker = random.random_range(0..workers.len());
        let worker = &mut workers[worker];
        match random.random_range(0..100_u32) {
            0..40 => worker.install(&mut random),
            40..60 => worker.remove(&mut random),
            60..80 => worker.poll(),
            80..98 => {
                let longest = if random.random_ratio(1, 20) {
                    2_000_000
                } else {
                    3_000
                };
                let pause = Duration::from_micros(random.random_range(0..longest));
                tokio::time::sleep(pause).await;
            }
            98 if faults.restarts => {
                switch.restart(&mut random);
                // The session notices sooner or later, or the engine's own writes do first.
                if random.random_bool(0.5) {
                    engine.lost();
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
                engine.resync();
            }
            _ => {
                let key = worker.some_key(&mut random);
                engine.idle(key.into_iter().collect());
            }
        }
    }

    // The weather clears.
    switch.heal();
    engine.resync();
    rest(&engine, &mut workers).await;
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
    rest(&engine, &mut workers).await;
    assert_eq!(switch.entries(), [], "something is left");
    for worker in &workers {
        worker.check_nothing_is_open();
    }
    let stats = engine.stats().await.unwrap();
    assert_eq!(
        stats.in_hardware + stats.queued + stats.installing + stats.removing,
        0
    );
    engine.shutdown().await;
    stats
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
        let stats = simulate(seed, Faults::NONE, steps());
        assert_eq!(stats.failed_batches, 0);
        assert_eq!(stats.lost, 0);
        assert!(stats.installs > 0);
    }
}

#[test]
fn a_faulty_switch() {
    let mut total = OffloadStats::default();
    for seed in seeds() {
        let stats = simulate(seed, Faults::ALL, steps());
        total.installs += stats.installs;
        total.removals += stats.removals;
        total.retries += stats.retries;
        total.failed_batches += stats.failed_batches;
        total.orphans += stats.orphans;
        total.lost += stats.lost;
        for (sum, count) in total.refused.iter_mut().zip(stats.refused) {
            *sum += count;
        }
    }
    if std::env::var("SHUNT_SIM_SEED").is_err() {
        // The faults have to happen for the checks to mean something.
        assert!(total.retries > 0 && total.failed_batches > 0 && total.orphans > 0);
        assert!(
            total.lost > 0 && total.refused.iter().all(|count| *count > 0),
            "{total:?}"
        );
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let runs: Vec<_> = (0..2).map(|_| simulate(7, Faults::ALL, 1_000)).collect();
    assert_eq!(runs[0], runs[1]);
}
