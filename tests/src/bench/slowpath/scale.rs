//! `slowpath-scale`: one worker and two, each with its CPU, its rings, its packets and its engine.
//!
//! Packets of established connections arrive at the worker that has the connection (`in place`),
//! as a NIC that spreads by the same rule would have it, or at any (`anywhere`), so that with two
//! workers every second one is handed over. So do the first packets of new connections.

use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shunt_slowpath::fib::FibReaderFactory;
use shunt_slowpath::nat::PortShare;
use shunt_slowpath::policy::{OffloadAfter, Timeouts};
use shunt_slowpath::worker::Verdict;
use shunt_slowpath::worker::run::Peers;

use super::packets::{self, Flow};
use super::{Bench, join, network, start};
use crate::report::{BenchError, Report, median};

/// Connections, and new ones that are live, over all workers.
const CONNECTIONS: u32 = 1 << 20;
const PACKETS: usize = 1 << 19;
const RUN: Duration = Duration::from_millis(700);
const RUNS: usize = 5;
const PASS_NS: u64 = 3200;

/// What the workers of a run share.
struct Shared {
    barrier: Barrier,
    /// Both directions of each worker's connections.
    flows: Mutex<Vec<[Flow; 2]>>,
}

/// Rates a second of one worker, a run each.
#[derive(Default)]
struct Rates {
    in_place: Vec<f64>,
    anywhere: Vec<f64>,
    new_in_place: Vec<f64>,
    new_anywhere: Vec<f64>,
}

struct Seat {
    share: PortShare,
    peers: Peers,
    factory: FibReaderFactory,
    shared: Arc<Shared>,
}

/// Until everybody is here, and a little longer, for what was handed over.
fn settle(bench: &mut Bench, shared: &Shared) -> Result<(), BenchError> {
    shared.barrier.wait();
    let end = Instant::now() + Duration::from_millis(50);
    while Instant::now() < end {
        bench.burst(&mut std::iter::empty(), 0, |_| {})?;
    }
    shared.barrier.wait();
    Ok(())
}

/// Packets that left a second, in each run.
fn run_packets(
    bench: &mut Bench,
    shared: &Shared,
    flows: &mut impl Iterator<Item = Flow>,
) -> Result<Vec<f64>, BenchError> {
    let mut rates = Vec::new();
    for _ in 0..=RUNS {
        settle(bench, shared)?;
        let before = bench.left;
        let begin = Instant::now();
        while begin.elapsed() < RUN {
            for _ in 0..64 {
                bench.burst(flows, PASS_NS, |_| {})?;
            }
        }
        rates.push((bench.left - before) as f64 / begin.elapsed().as_secs_f64());
    }
    // The first one brought everything into the caches.
    rates.remove(0);
    Ok(rates)
}

fn picked(random: &mut StdRng, of: &[[Flow; 2]]) -> Vec<Flow> {
    let mut packets = Vec::with_capacity(PACKETS);
    while packets.len() < PACKETS && !of.is_empty() {
        let at = random.random_range(0..of.len());
        let side = usize::from(random.random::<bool>());
        packets.extend(of.get(at).and_then(|both| both.get(side)));
    }
    packets
}

fn established(eal: &shunt_dpdk::Eal, seat: Seat, rates: &mut Rates) -> Result<(), BenchError> {
    let Seat {
        share,
        peers,
        factory,
        shared,
    } = seat;
    let name = format!("scale{}-{}", share.workers, share.worker);
    let mut bench = Bench::among(eal, &name, CONNECTIONS + 64, &factory, (share, peers))?;
    let mine = CONNECTIONS / u32::from(share.workers);
    let first = mine * u32::from(share.worker);
    let mut replies = Vec::new();
    shared.barrier.wait();
    let mut openers = (first..first + mine).map(packets::opener);
    for _ in 0..mine / 32 {
        bench.burst(&mut openers, PASS_NS, |frame| {
            replies.extend(packets::answer(frame));
        })?;
    }
    // What the other one still hands over.
    for _ in 0..2 {
        shared.barrier.wait();
        let end = Instant::now() + Duration::from_millis(100);
        while Instant::now() < end {
            bench.burst(&mut std::iter::empty(), 0, |frame| {
                replies.extend(packets::answer(frame));
            })?;
        }
    }
    let mut own = Vec::with_capacity(replies.len());
    for chunk in replies.chunks(32) {
        let mut back = Vec::new();
        bench.burst(&mut chunk.iter().copied(), PASS_NS, |frame| {
            back.extend(packets::answer(frame));
        })?;
        if back.len() != chunk.len() {
            return Err(BenchError::failed("a reply did not find its connection"));
        }
        own.extend(back.into_iter().zip(chunk).map(|(a, b)| [a, *b]));
    }
    let lock = || shared.flows.lock().unwrap_or_else(PoisonError::into_inner);
    lock().extend_from_slice(&own);
    let random = &mut StdRng::seed_from_u64(super::SEED + u64::from(share.worker));
    let mut flows = picked(random, &own).into_iter().cycle();
    rates.in_place = run_packets(&mut bench, &shared, &mut flows)?;
    let all = picked(random, &lock());
    let mut flows = all.into_iter().cycle();
    rates.anywhere = run_packets(&mut bench, &shared, &mut flows)?;
    settle(&mut bench, &shared)
}

fn new(eal: &shunt_dpdk::Eal, seat: Seat, rates: &mut Rates) -> Result<(), BenchError> {
    let Seat {
        share,
        peers,
        factory,
        shared,
    } = seat;
    let name = format!("scnew{}-{}", share.workers, share.worker);
    let workers = u32::from(share.workers);
    let live = CONNECTIONS / workers;
    let mut bench = Bench::among(eal, &name, live * 2, &factory, (share, peers))?;
    let lifetime = Timeouts::default().udp.as_nanos() as u64;
    let pass_ns = lifetime * shunt_dpdk::CAPACITY as u64 / u64::from(live);
    // Numbers of openers that are a worker's own: so many that one has ended when it comes again.
    let wanted = 2 * live as usize;
    let mut own = Vec::with_capacity(wanted);
    let mut openers = (0..).map(packets::opener);
    while own.len() < wanted
        && let Some(opener) = openers.next()
    {
        if is_own(&mut bench, &opener)? {
            own.push(opener);
        }
    }
    let mut in_place = own.iter().copied().cycle();
    let number = u32::from(share.worker);
    let mut anywhere = (0u32..).map(|n| packets::opener(n * workers + number));
    rates.new_in_place = run_new(&mut bench, &shared, &mut in_place, pass_ns)?;
    rates.new_anywhere = run_new(&mut bench, &shared, &mut anywhere, pass_ns)?;
    settle(&mut bench, &shared)
}

/// Whether a connection that begins so is the worker's.
fn is_own(bench: &mut Bench, opener: &Flow) -> Result<bool, BenchError> {
    let mut mbuf = bench.pool.alloc().ok_or_else(super::missing)?;
    packets::write(&mut mbuf, opener, packets::PAYLOAD)?;
    let told = bench.runner.worker().trace(bench.now_ns, mbuf.data());
    Ok(told.verdict == Verdict::Transmit)
}

/// Connections that were made a second, in each run.
fn run_new(
    bench: &mut Bench,
    shared: &Shared,
    flows: &mut impl Iterator<Item = Flow>,
    pass_ns: u64,
) -> Result<Vec<f64>, BenchError> {
    let lifetime = Timeouts::default().udp.as_nanos() as u64;
    shared.barrier.wait();
    for _ in 0..lifetime / pass_ns + 1000 {
        bench.burst(flows, pass_ns, |_| {})?;
    }
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        settle(bench, shared)?;
        let created = |bench: &mut Bench| bench.runner.worker().stats().connections_created;
        let before = created(bench);
        let begin = Instant::now();
        while begin.elapsed() < RUN {
            for _ in 0..64 {
                bench.burst(flows, pass_ns, |_| {})?;
            }
        }
        let made = created(bench) - before;
        rates.push(made as f64 / begin.elapsed().as_secs_f64());
    }
    Ok(rates)
}

type Measure = fn(&shunt_dpdk::Eal, Seat, &mut Rates) -> Result<(), BenchError>;

/// Runs so many workers, each on a CPU, and says what each did.
fn cluster(workers: u16, udp: OffloadAfter, measure: Measure) -> Result<Vec<Rates>, BenchError> {
    let (_fib, factory) = network(udp, Timeouts::default().udp)?;
    let shared = Arc::new(Shared {
        barrier: Barrier::new(workers.into()),
        flows: Mutex::new(Vec::new()),
    });
    let threads: Vec<_> = (0..workers)
        .zip(Peers::mesh(workers))
        .map(|(worker, peers)| {
            let seat = Seat {
                share: PortShare { worker, workers },
                peers,
                factory: factory.clone(),
                shared: Arc::clone(&shared),
            };
            start(
                &format!("scale-{worker}"),
                Some(worker.into()),
                move |eal| {
                    let mut rates = Rates::default();
                    measure(&eal, seat, &mut rates).map(|()| rates)
                },
            )
        })
        .collect::<Result<_, _>>()?;
    threads.into_iter().map(join).collect()
}

fn total(all: &[Rates], which: impl Fn(&Rates) -> &Vec<f64>) -> f64 {
    all.iter().map(|rates| median(which(rates).clone())).sum()
}

/// The benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cpus < 2 {
        return Err(BenchError::Skipped("two workers want two CPUs".into()));
    }
    let one = cluster(1, OffloadAfter::Never, established)?;
    let two = cluster(2, OffloadAfter::Never, established)?;
    let one_new = cluster(1, OffloadAfter::Packets(1), new)?;
    let two_new = cluster(2, OffloadAfter::Packets(1), new)?;
    let pairs = [
        (
            "packets in place",
            total(&one, |r| &r.in_place),
            total(&two, |r| &r.in_place),
            "packets/s",
        ),
        (
            "packets anywhere",
            total(&one, |r| &r.anywhere),
            total(&two, |r| &r.anywhere),
            "packets/s",
        ),
        (
            "new connections in place",
            total(&one_new, |r| &r.new_in_place),
            total(&two_new, |r| &r.new_in_place),
            "connections/s",
        ),
        (
            "new connections anywhere",
            total(&one_new, |r| &r.new_anywhere),
            total(&two_new, |r| &r.new_anywhere),
            "connections/s",
        ),
    ];
    for (name, one, two, _) in pairs {
        report.metric(format!("two workers to one, {name}"), two / one, "times");
    }
    for (name, one, two, unit) in pairs {
        report.metric(format!("one worker, {name}"), one, unit);
        report.metric(format!("two workers, {name}"), two, unit);
    }
    Ok(())
}
