//! `slowpath-new`: new connections a second of one worker, each with its whole life.
//!
//! Every packet is the first of a UDP connection through masquerade: both directions are tracked,
//! a port is leased, the offload is queued at once and acknowledged; 30 s later it is reported
//! idle, removed and acknowledged, and after 2 min in all the connection expires and its port is
//! free again. Time passes as fast as that takes the wanted number of connections.

use std::time::{Duration, Instant};

use shunt_offload::ConnectionId;
use shunt_slowpath::policy::{OffloadAfter, Timeouts};
use shunt_slowpath::record::StateFile;

use super::{Bench, on_worker, packets};
use crate::report::{BenchError, Report, median};
use crate::switch_writes::server::resident_bytes;

/// Live connections, most first.
const LIVE: [u32; 2] = [4_000_000, 100_000];
/// Room beside them, one to so many: what expires in the tick of the timer wheel that is not over
/// yet.
const ROOM: u32 = 320;
const RUNS: usize = 5;
/// A run opens at least so many connections.
const RUN: u32 = 1 << 20;

struct Figures {
    live: u32,
    rate: f64,
    rings: f64,
    alive: f64,
    /// Bytes that the process grew by, rings and buffers included.
    grown: f64,
}

/// `written`: with each connection written down, as the daemon does for the next one.
fn measure(eal: &shunt_dpdk::Eal, live: u32, written: bool) -> Result<Figures, BenchError> {
    let before = resident_bytes(std::process::id())?;
    let capacity = live + live / ROOM;
    let name = format!("new{live}{}", if written { "w" } else { "" });
    let mut bench = Bench::new(eal, &name, capacity, OffloadAfter::Packets(1))?;
    // In memory, as under /run.
    let folder = tempfile::tempdir_in("/dev/shm").map_err(BenchError::failed)?;
    if written {
        let path = folder.path().join("state");
        let state = StateFile::begin(&path, 1, capacity, 1, bench.now_ns, &[]);
        let state = state.map_err(BenchError::failed)?;
        bench.runner.worker().keep_records(state.records(0), 1);
    }
    let lifetime = Timeouts::default().udp.as_nanos() as u64;
    let pass_ns = lifetime * shunt_dpdk::CAPACITY as u64 / u64::from(live);
    let mut flows = (0u32..).map(packets::opener);
    // Until the first have expired, and a tick more.
    let fill = (lifetime + Duration::from_secs(1).as_nanos() as u64) / pass_ns;
    for _ in 0..fill {
        bench.burst(&mut flows, pass_ns, |_| {})?;
    }
    bench.lossless()?;
    let alive = bench.runner.worker().connections();
    if alive.abs_diff(live as usize) > live as usize / 50 {
        return Err(BenchError::failed(format!("{alive} connections live")));
    }
    // What stands for the switch remembers some of them, too.
    let others = bench.engine.installed.capacity() * size_of::<(ConnectionId, u64)>();
    let grown = resident_bytes(std::process::id())?.saturating_sub(before + others as u64);
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let bursts = RUN / shunt_dpdk::CAPACITY as u32;
        let start = Instant::now();
        for _ in 0..bursts {
            bench.burst(&mut flows, pass_ns, |_| {})?;
        }
        rates.push(f64::from(RUN) / start.elapsed().as_secs_f64());
    }
    bench.lossless()?;
    check(&mut bench, live)?;
    let rings = bench.rings_alone(&mut flows, RUN)?;
    end(&mut bench)?;
    Ok(Figures {
        live,
        rate: median(rates),
        rings,
        alive: alive as f64,
        grown: grown as f64,
    })
}

/// Every connection was offloaded and taken out again, and as many live as are to.
fn check(bench: &mut Bench, live: u32) -> Result<(), BenchError> {
    let worker = bench.runner.worker();
    let stats = worker.stats();
    let alive = worker.connections() as u64;
    let leased: u64 = worker.pool_use().iter().map(|p| u64::from(p.leased)).sum();
    let right = stats.connections_created == stats.received.packets
        && stats.offload_installs == stats.connections_created
        && stats.offload_queue_full == 0
        && stats.connections_ended + alive == stats.connections_created
        && leased == alive
        && alive.abs_diff(live.into()) <= u64::from(live) / 50;
    if right {
        Ok(())
    } else {
        Err(BenchError::failed(format!(
            "{alive} live, {leased} leased, {stats:?}"
        )))
    }
}

/// Nobody sends any more: all connections end and all ports come back.
fn end(bench: &mut Bench) -> Result<(), BenchError> {
    let tick = Duration::from_millis(100).as_nanos() as u64;
    let until = bench.now_ns + 2 * Timeouts::default().udp.as_nanos() as u64;
    while bench.now_ns < until {
        bench.idle(tick)?;
    }
    let worker = bench.runner.worker();
    match (worker.connections(), worker.pool_use().len()) {
        (0, 0) => Ok(()),
        (connections, pools) => Err(BenchError::failed(format!(
            "{connections} connections and leases of {pools} addresses are left"
        ))),
    }
}

/// The benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    let figures = on_worker("slowpath-new", |eal| {
        let measured = |written| {
            LIVE.map(|live| measure(&eal, live, written))
                .into_iter()
                .collect::<Result<Vec<_>, _>>()
        };
        Ok::<_, BenchError>((measured(false)?, measured(true)?))
    })?;
    let (figures, written) = figures;
    for figures in &figures {
        report.metric(
            format!("new connections, {} live", figures.live),
            figures.rate,
            "connections/s",
        );
    }
    for figures in &written {
        report.metric(
            format!("the same written down, {} live", figures.live),
            figures.rate,
            "connections/s",
        );
    }
    if let Some(most) = figures.first() {
        report.metric("time", 1e9 / most.rate, "ns/connection");
        report.metric("rings and packets alone", 1e9 / most.rings, "ns/packet");
    }
    if let [most, least] = figures.as_slice() {
        // Rings, buffers and the pool's ports are the same for both.
        let memory = (most.grown - least.grown) / (most.alive - least.alive);
        report.metric("memory", memory, "bytes/connection");
        // The memory of a pool's ports is there, however many of them are leased.
        let all = most.grown / most.alive;
        report.metric("memory, pool and buffers too", all, "bytes/connection");
    }
    Ok(())
}
