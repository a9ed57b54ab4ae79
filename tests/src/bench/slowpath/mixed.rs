//! `slowpath-mixed`: 8,000 sources that send 100 bytes a hundred times a second, beside 200,000
//! new connections a second, in real time through one worker: what is lost, how long packets
//! take from when they are due until they have left, and how much of the CPU that takes.
//!
//! The thread that is measured also makes the packets and takes them out. It never sleeps; what
//! counts as work are the rounds in which something was due.

use std::time::{Duration, Instant};

use shunt_slowpath::nat::PortShare;
use shunt_slowpath::policy::OffloadAfter;
use shunt_slowpath::worker::run::Peers;

use super::packets::{self, Flow};
use super::{Bench, network, on_worker};
use crate::report::{BenchError, Report};

const SOURCES: u32 = 8000;
const UPDATES_PER_SECOND: u64 = 800_000;
const NEW_PER_SECOND: u64 = 200_000;
/// So that a second's connections are gone in the seconds that are measured.
const UDP_TIMEOUT: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_secs(3);
const RUN: Duration = Duration::from_secs(10);
/// Live connections at most.
const CAPACITY: u32 = 2_000_000;
/// Frames of a round at most, all kinds together.
const ROUND: usize = shunt_dpdk::CAPACITY;

#[derive(Default)]
struct Figures {
    sent: u64,
    lost: u64,
    latencies_ns: Vec<u32>,
    busy: Duration,
    wall: Duration,
}

/// Packets of a kind that are due at a steady rate.
struct Schedule {
    every_ns: f64,
    sent: u64,
}

impl Schedule {
    fn new(per_second: u64) -> Self {
        Self {
            every_ns: 1e9 / per_second as f64,
            sent: 0,
        }
    }

    /// When the next one is due.
    fn next_ns(&self) -> u64 {
        (self.sent as f64 * self.every_ns) as u64
    }
}

fn measure(eal: &shunt_dpdk::Eal) -> Result<Figures, BenchError> {
    let (fib, factory) = network(OffloadAfter::Packets(1), UDP_TIMEOUT)?;
    let alone = (PortShare::ALL, Peers::default());
    let mut bench = Bench::among(eal, "mixed", CAPACITY, &factory, alone)?;
    bench._fib = Some(fib);
    bench.payload = 100;
    bench.engine.idle_ns = Duration::from_secs(1).as_nanos() as u64;
    let mut figures = Figures::default();
    let (mut updates, mut new) = (
        Schedule::new(UPDATES_PER_SECOND),
        Schedule::new(NEW_PER_SECOND),
    );
    let begin = Instant::now();
    let base_ns = bench.now_ns;
    let mut last_ns = 0;
    let (mut before, mut dues) = ((0, 0), Vec::with_capacity(ROUND));
    let mut measured = false;
    loop {
        let now_ns = begin.elapsed().as_nanos() as u64;
        if !measured && now_ns >= WARM_UP.as_nanos() as u64 {
            measured = true;
            before = (bench.sent, bench.left);
        }
        if now_ns >= (WARM_UP + RUN).as_nanos() as u64 {
            break;
        }
        // What is due, in the order in which it is.
        dues.clear();
        let mut flows: Vec<Flow> = Vec::with_capacity(ROUND);
        while flows.len() < ROUND {
            let (update_ns, new_ns) = (updates.next_ns(), new.next_ns());
            if update_ns.min(new_ns) > now_ns {
                break;
            }
            if update_ns <= new_ns {
                flows.push(packets::opener((updates.sent % u64::from(SOURCES)) as u32));
                updates.sent += 1;
            } else {
                let number = SOURCES as u64 + new.sent % (u64::from(u32::MAX) - u64::from(SOURCES));
                flows.push(packets::opener(number as u32));
                new.sent += 1;
            }
            dues.push(update_ns.min(new_ns));
        }
        let due = !flows.is_empty();
        bench.now_ns = base_ns + last_ns;
        bench.burst(&mut flows.into_iter(), now_ns - last_ns, |_| {})?;
        last_ns = now_ns;
        let end_ns = begin.elapsed().as_nanos() as u64;
        if measured && due {
            figures.busy += Duration::from_nanos(end_ns - now_ns);
            figures
                .latencies_ns
                .extend(dues.iter().map(|due| (end_ns - due) as u32));
        }
    }
    figures.wall = RUN;
    figures.sent = bench.sent - before.0;
    figures.lost = figures.sent - (bench.left - before.1).min(figures.sent);
    let stats = bench.runner.worker().stats();
    if stats.connections_created < NEW_PER_SECOND * RUN.as_secs() {
        return Err(BenchError::failed("connections were not made in time"));
    }
    Ok(figures)
}

/// The benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    let mut figures = on_worker("slowpath-mixed", |eal| measure(&eal))?;
    figures.latencies_ns.sort_unstable();
    let at = |share: f64| {
        let last = figures.latencies_ns.len().saturating_sub(1);
        let latency = figures.latencies_ns.get((last as f64 * share) as usize);
        latency.map_or(0.0, |ns| f64::from(*ns) / 1000.0)
    };
    report.metric("latency, 99th percentile", at(0.99), "µs");
    report.metric("latency, median", at(0.5), "µs");
    report.metric("latency, 99.9th percentile", at(0.999), "µs");
    report.metric("lost packets", figures.lost as f64, "packets");
    let rate = figures.sent as f64 / figures.wall.as_secs_f64();
    report.metric("packets", rate, "packets/s");
    let share = figures.busy.as_secs_f64() / figures.wall.as_secs_f64();
    report.metric(
        "CPU, packets made and taken out included",
        share * 100.0,
        "%",
    );
    Ok(())
}
