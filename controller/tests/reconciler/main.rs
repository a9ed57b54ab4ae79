//! The reconciler against the embedded switch in bad weather, over gRPC, in simulated time.
//!
//! Requests are lost before, in the middle of and after being done, updates are reordered and
//! refused, streams break, the switch restarts empty, and so does the daemon, which then has
//! other numbers for the same next hops. After every update packets are sent through the
//! switch: each goes where it went before, or where what is wanted has it, or to the slow
//! path; never elsewhere, and nowhere only if that is wanted, or if interfaces move. When all
//! is done but what does not fit into the switch, every packet goes where it should or to the
//! slow path. When the weather clears, the switch holds what is wanted.
//!
//! `SHUNT_RECONCILER_SEEDS=5000` runs more seeds than usual. A failing run prints its seed and
//! how to run it again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    missing_docs
)]

mod lab;
mod network;
mod proxy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lab::Lab;
use network::Network;
use proxy::Weather;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use shunt_controller::config::{PuntMeter, Switch};
use shunt_controller::switch::{Connected, Scope, SessionParts, SwitchHandle, SwitchState};
use shunt_p4::{NetworkOp, PuntReason, SwitchPort};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const SEEDS: u64 = 200;
const STEPS: u32 = 40;
/// Of simulated time; refusals are tried again every thirty seconds at the latest.
const CONVERGED_WITHIN: Duration = Duration::from_secs(180);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")))
}

/// Names the seed when a check fails.
struct OnPanic(u64);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "again: SHUNT_RECONCILER_SEED={} cargo test -p shunt-controller --test reconciler",
                self.0
            );
        }
    }
}

fn simulate<F: Future<Output = ()>>(seed: u64, run: impl FnOnce(StdRng) -> F) {
    let _seed = OnPanic(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run(StdRng::seed_from_u64(seed)));
}

/// A session's task, and what it was told.
struct Daemon {
    handle: SwitchHandle,
    stop: CancellationToken,
    task: JoinHandle<()>,
    batches: u64,
}

impl Daemon {
    fn start(lab: &Arc<Lab>) -> Self {
        let switch = Switch {
            name: "lab".to_owned(),
            address: "switch.invalid:1".to_owned(),
            device_id: 1,
            slow_path_port: SwitchPort::new(network::SLOW_PATH).unwrap(),
            role: None,
            device: String::new(),
            take_over: true,
        };
        let meter = |reason: &PuntReason| PuntMeter {
            reason: *reason,
            rate_pps: 1_000_000,
            burst: 1_000_000,
            per_interface: false,
        };
        let stop = CancellationToken::new();
        let parts = SessionParts {
            meters: PuntReason::ALL.iter().map(meter).collect(),
            scope: Scope::All,
            peerings: None,
            engine: None,
            resolver: Arc::new(|_, _| {}),
            stop: stop.clone(),
        };
        let (handle, task) = SwitchHandle::start(Connected::over(lab.client(), &switch), parts);
        Self {
            handle,
            stop,
            task,
            batches: 0,
        }
    }

    async fn apply(&mut self, ops: Vec<NetworkOp>) {
        self.batches += 1;
        self.handle.apply(ops).await;
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

struct Run {
    lab: Arc<Lab>,
    network: Network,
    daemon: Daemon,
}

impl Run {
    async fn start(seed: u64, weather: Weather, moves: bool, random: &mut StdRng) -> Self {
        let mut network = Network::new(moves);
        let lab = Lab::new(seed, weather, &network);
        let mut daemon = Daemon::start(&lab);
        let ops = network.begin(random);
        lab.wants(&network);
        daemon.apply(ops).await;
        daemon.handle.complete().await;
        Self {
            lab,
            network,
            daemon,
        }
    }

    async fn change(&mut self, random: &mut StdRng) {
        let ops = self.network.change(random);
        self.lab.wants(&self.network);
        self.daemon.apply(ops).await;
    }

    /// The daemon is killed, and another one takes its place.
    async fn restart_daemon(&mut self, random: &mut StdRng) {
        let successor = Daemon::start(&self.lab);
        std::mem::replace(&mut self.daemon, successor).stop().await;
        let ops = self.network.begin(random);
        self.lab.wants(&self.network);
        self.daemon.apply(ops).await;
        self.daemon.handle.complete().await;
    }

    /// Some time passes. What can be done is done before the clock moves: see
    /// [`tokio::time::pause`].
    async fn pass(&mut self, random: &mut StdRng) {
        let longest = match random.random_ratio(1, 8) {
            true => 40_000,
            false => 300,
        };
        tokio::time::sleep(Duration::from_millis(random.random_range(1..longest))).await;
        let weather = self.lab.sky().weather;
        let view = self.daemon.handle.view();
        let all = view.applied == self.daemon.batches && view.state == SwitchState::Ready;
        if all && weather.loses_nothing() && weather.lets_park() {
            self.lab.leaves_nothing_wrong();
        }
    }

    /// The weather clears: in time the switch holds what is wanted, and packets say so too.
    async fn converges(&mut self) {
        self.lab.heal();
        let handle = &self.daemon.handle;
        let deadline = Instant::now() + CONVERGED_WITHIN;
        // What was done behind an error shows when the switch is read, and a stream that broke
        // in the storm ends the session now.
        loop {
            if handle.is_converged()
                && let Ok(repair) = handle.reconcile().await
                && (repair.left, repair.found.len()) == (0, 0)
                && let Ok(comparison) = handle.diff().await
            {
                assert_eq!(comparison.differences, [], "after it converged");
                break;
            }
            let now = Instant::now();
            assert!(now < deadline, "it does not converge: {:?}", handle.view());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.lab.holds_exactly(&self.network).await;
    }
}

fn weather(random: &mut StdRng) -> Weather {
    let loses = random.random_bool(0.6);
    let often = |random: &mut StdRng, share: f64, may_be: bool| match may_be {
        true if random.random_bool(0.7) => random.random_range(0.0..share),
        _ => 0.0,
    };
    Weather {
        lost_before: often(random, 0.1, loses),
        lost_after: often(random, 0.1, loses),
        cut_short: often(random, 0.2, loses),
        refused: often(random, 0.4, true),
        stubborn: random.random_bool(0.4).then(|| random.random()),
        full: random.random_bool(0.4),
        lose_rpc: None,
    }
}

async fn storm(seed: u64, mut random: StdRng) {
    let weather = weather(&mut random);
    let moves = random.random_bool(0.4);
    let mut run = Run::start(seed, weather, moves, &mut random).await;
    for _ in 0..STEPS {
        match random.random_range(0..100_u32) {
            0..45 => run.change(&mut random).await,
            45..48 => run.lab.restart(),
            48..52 => run.lab.cut_streams(),
            // Whether it can be done now or not.
            52..56 => drop(run.daemon.handle.diff().await),
            56..60 => drop(run.daemon.handle.reconcile().await),
            60..64 => run.restart_daemon(&mut random).await,
            _ => run.pass(&mut random).await,
        }
    }
    run.converges().await;
    run.daemon.stop().await;
}

#[test]
fn every_storm_passes_and_no_packet_is_misled() {
    if let Some(seed) = number("SHUNT_RECONCILER_SEED") {
        return simulate(seed, |random| storm(seed, random));
    }
    let seeds = number("SHUNT_RECONCILER_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    simulate(seed, |random| storm(seed, random));
                }
            });
        }
    });
}

/// The same changes again and again; each time another request is lost, before it is done or
/// after it.
#[test]
fn any_one_lost_request_is_made_good() {
    const SEED: u64 = 7;
    for after in [false, true] {
        for lost in 0.. {
            let seen = AtomicU64::new(0);
            let count = &seen;
            simulate(SEED, |mut random| async move {
                let weather = Weather {
                    lose_rpc: Some((lost, after)),
                    ..Weather::default()
                };
                let mut run = Run::start(SEED, weather, true, &mut random).await;
                for _ in 0..4 {
                    run.change(&mut random).await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                count.store(run.lab.rpcs(), Ordering::SeqCst);
                run.converges().await;
                run.daemon.stop().await;
            });
            let seen = seen.into_inner();
            if lost >= seen {
                assert!(seen > 10, "only {seen} requests were there to be lost");
                break;
            }
        }
    }
}

/// The checks can fail: packets that nobody wants to go anywhere are found out.
#[test]
fn a_packet_that_goes_elsewhere_is_noticed() {
    simulate(1, |mut random| async move {
        let mut run = Run::start(1, Weather::default(), false, &mut random).await;
        for _ in 0..10 {
            run.change(&mut random).await;
        }
        run.converges().await;
        let faults = run.lab.find_faults();
        assert!(faults.contains("elsewhere: Out"), "{faults}");
        run.daemon.stop().await;
    });
}
