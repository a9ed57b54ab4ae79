//! `slowpath-established`: packets a second of one worker that belong to UDP connections through
//! masquerade which stay in software: as many of one direction as of the other, of connections
//! chosen at random.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use shunt_slowpath::policy::OffloadAfter;

use super::packets::{self, Flow};
use super::{Bench, on_worker};
use crate::report::{BenchError, Report, median};

const CONNECTIONS: [u32; 2] = [1_000_000, 10_000];
/// Packets that are gone through in turn: so many, or as many as there are connections. A list
/// that is larger than it has to be takes the cache that the connections want.
const PACKETS: usize = 1 << 15;
const RUNS: usize = 7;
/// Packets of one run.
const RUN: u32 = 1 << 22;
/// Time that a burst takes, simulated: of 10 Mpps.
const PASS_NS: u64 = 3200;

struct Figures {
    connections: u32,
    rate: f64,
    rings: f64,
}

/// Opens the connections and has each of them answered once; both directions of each.
fn open(bench: &mut Bench, connections: u32) -> Result<Vec<[Flow; 2]>, BenchError> {
    let burst = shunt_dpdk::CAPACITY as u32;
    let mut both = Vec::with_capacity(connections as usize);
    let mut next = 0;
    while next < connections {
        let flows: Vec<_> = (next..next + burst).map(packets::opener).collect();
        next += burst;
        let mut replies = Vec::new();
        bench.burst(&mut flows.iter().copied(), PASS_NS, |frame| {
            replies.extend(packets::answer(frame));
        })?;
        if replies.len() != flows.len() || replies.iter().any(|reply| !super::is_public(reply.dst))
        {
            return Err(BenchError::failed("a connection was not translated"));
        }
        let mut back = Vec::new();
        bench.burst(&mut replies.iter().copied(), PASS_NS, |frame| {
            back.extend(packets::answer(frame));
        })?;
        // What the client answers to the reply is its first packet again.
        if back != flows {
            return Err(BenchError::failed("a reply did not find its connection"));
        }
        both.extend(flows.into_iter().zip(replies).map(|(a, b)| [a, b]));
    }
    Ok(both)
}

fn measure(eal: &shunt_dpdk::Eal, connections: u32) -> Result<Figures, BenchError> {
    let name = format!("est{connections}");
    let mut bench = Bench::new(eal, &name, connections + 64, OffloadAfter::Never)?;
    let both = open(&mut bench, connections)?;
    let mut random = StdRng::seed_from_u64(super::SEED);
    let wanted = PACKETS.max(connections as usize);
    let mut packets: Vec<Flow> = Vec::with_capacity(wanted);
    while packets.len() < wanted {
        let at = random.random_range(0..both.len());
        let side = usize::from(random.random::<bool>());
        packets.extend(both.get(at).and_then(|both| both.get(side)));
    }
    packets.shuffle(&mut random);
    drop(both);
    let mut flows = packets.iter().copied().cycle();
    let mut rates = Vec::new();
    for _ in 0..=RUNS {
        let start = Instant::now();
        for _ in 0..RUN / shunt_dpdk::CAPACITY as u32 {
            bench.burst(&mut flows, PASS_NS, |_| {})?;
        }
        rates.push(f64::from(RUN) / start.elapsed().as_secs_f64());
    }
    bench.lossless()?;
    // The first run brought everything into the caches.
    rates.remove(0);
    let rings = bench.rings_alone(&mut flows, RUN)?;
    Ok(Figures {
        connections,
        rate: median(rates),
        rings,
    })
}

/// The benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    let figures = on_worker("slowpath-est", |eal| {
        CONNECTIONS
            .map(|connections| measure(&eal, connections))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    })?;
    for figures in &figures {
        report.metric(
            format!("packets of {} connections", figures.connections),
            figures.rate,
            "packets/s",
        );
    }
    for figures in &figures {
        report.metric(
            format!("time, {} connections", figures.connections),
            1e9 / figures.rate,
            "ns/packet",
        );
        report.metric("rings and packets alone", 1e9 / figures.rings, "ns/packet");
    }
    Ok(())
}
