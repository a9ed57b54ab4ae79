//! New connections a second through everything, in one process: generator → switch → slow path →
//! both entries in the switch, acknowledged → the next packet hits them.
//!
//! ```text
//!   main: client ──▶ switch ──▶ slow path (a thread) ──▶ switch ──▶ server (a thread): answers
//!        ◀──────────────────────────┴── decides: offload engine ══ gRPC ══▶ switch's flow table
//! ```
//! Each connection is one of UDP through a masquerade: a packet out and one back by the slow path,
//! whose reply decides for hardware. Whoever hands a frame to the switch runs its pipeline.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use shunt_controller::config::{PuntMeter, Switch};
use shunt_controller::switch::{Connected, Scope, SessionParts, SwitchHandle};
use shunt_offload::{Clock, Engine, EngineConfig, EngineHandle, P4RuntimeSink};
use shunt_p4::{
    Encap, Interface, InterfaceId, MacAddr, NetworkOp, Nexthop, NexthopId, PuntReason, Route,
    SwitchIndex, SwitchPort, Vpc, VpcId,
};
use shunt_slowpath::exception;
use shunt_slowpath::packet::{PacketBuf as _, VecBuf};
use shunt_slowpath::policy::{AddressRange, Masquerade, PortRange};
use shunt_slowpath::worker::{Worker, WorkerConfig};
use shunt_slowpath::{FibWriter, Policy};
use shunt_switch::{ChannelPort, Config, run as run_switch};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::report::{BenchError, Report, median};

const INSIDE: u16 = 1;
const OUTSIDE: u16 = 2;
const SLOW_PATH: u16 = 3;
/// Connections of one run, all alive at its end.
const CONNECTIONS: u32 = 300_000;
const RUNS: usize = 3;
/// Opened but not in hardware yet, at most.
const WINDOW: u64 = 4096;
/// Frames that wait at a port: all of the window.
const QUEUE: usize = 2 * WINDOW as usize;
const BURST: usize = 32;
/// A punt meter that lets everything through.
const NO_LIMIT_PPS: u32 = 1_000_000_000;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_micros(50);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 80);

fn missing() -> BenchError {
    BenchError::failed("an identifier is out of range")
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::failed(error)
}

fn mac(n: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n as u8])
}

fn host_mac(n: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, n as u8])
}

fn network() -> Result<Vec<NetworkOp>, BenchError> {
    let mut ops = Vec::new();
    for (n, router) in [(INSIDE, "10.255.0.1"), (OUTSIDE, "203.0.113.254")] {
        let router = router.parse().map_err(failed)?;
        let vpc = VpcId::new(n).ok_or_else(missing)?;
        let interface = InterfaceId::new(n).ok_or_else(missing)?;
        let nexthop = NexthopId::new(n.into()).ok_or_else(missing)?;
        ops.push(NetworkOp::SetVpc(Vpc {
            id: vpc,
            name: format!("vpc{n}"),
            stateless: false,
        }));
        ops.push(NetworkOp::SetInterface(Interface {
            id: interface,
            name: format!("if{n}"),
            vpc,
            switch: SwitchIndex::MIN,
            port: SwitchPort::new(n).ok_or_else(missing)?,
            encap: Encap::Untagged,
            mac: mac(n),
            mtu: 1500,
            addresses: Vec::new(),
        }));
        let hop = Nexthop {
            interface,
            gateway: Some(router),
            mtu: None,
        };
        ops.push(NetworkOp::SetNexthop(nexthop, hop));
        ops.push(NetworkOp::SetNeighbor(interface, router, host_mac(n)));
    }
    let route = |vpc: u16, net: &str, to: u16| -> Result<NetworkOp, BenchError> {
        let hop = NexthopId::new(to.into()).ok_or_else(missing)?;
        let vpc = VpcId::new(vpc).ok_or_else(missing)?;
        let net = net.parse().map_err(failed)?;
        Ok(NetworkOp::SetRoute(
            vpc,
            net,
            Route::Nexthops(vec![(hop, 1)]),
        ))
    };
    ops.push(route(INSIDE, "10.0.0.0/8", INSIDE)?);
    ops.push(route(INSIDE, "0.0.0.0/0", OUTSIDE)?);
    ops.push(route(OUTSIDE, "0.0.0.0/0", OUTSIDE)?);
    Ok(ops)
}

fn policy() -> Result<Policy, BenchError> {
    let first = Ipv4Addr::new(203, 0, 113, 0).into();
    let last = Ipv4Addr::new(203, 0, 113, 15).into();
    let vpc = |n| VpcId::new(n).ok_or_else(missing);
    Ok(Policy {
        masquerades: vec![Masquerade {
            name: "out".into(),
            vpc: vpc(INSIDE)?,
            to: vpc(OUTSIDE)?,
            sources: Vec::new(),
            pool: vec![AddressRange::new(first, last).ok_or_else(missing)?],
            ports: PortRange::UNPRIVILEGED,
            filtering: Default::default(),
            when_exhausted: Default::default(),
        }],
        ..Policy::default()
    })
}

/// The first packet of connection `n`, 64 bytes.
fn frame(n: u32) -> Result<Vec<u8>, BenchError> {
    let client = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + n % 65_536);
    let builder = PacketBuilder::ethernet2(host_mac(INSIDE).0, mac(INSIDE).0)
        .ipv4(client.octets(), SERVER.octets(), 64)
        .udp(1024 + (n / 65_536) as u16, 53);
    let mut frame = Vec::with_capacity(64);
    builder.write(&mut frame, &[0x5a; 22]).map_err(failed)?;
    Ok(frame)
}

/// Turns a frame into its answer; no checksum changes.
fn answer(frame: &mut [u8]) {
    for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        for n in 0..len {
            if a + n < frame.len() && b + n < frame.len() {
                frame.swap(a + n, b + n);
            }
        }
    }
}

/// What the threads tell each other.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Frames that the slow path got.
    punted: AtomicU64,
    /// Connections whose entries are acknowledged, as far as the worker has heard.
    installed: AtomicU64,
}

/// A burst of what the switch has sent; waits a moment for the first.
fn take(port: &ChannelPort) -> Vec<Vec<u8>> {
    let first = port.try_receive().or_else(|| port.receive(IDLE));
    let rest = std::iter::from_fn(|| port.try_receive());
    first.into_iter().chain(rest.take(BURST - 1)).collect()
}

fn slow_path(mut worker: Worker, port: &ChannelPort, clock: &Clock, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut frames: Vec<VecBuf> = take(port).into_iter().map(VecBuf::from).collect();
        if !frames.is_empty() {
            shared
                .punted
                .fetch_add(frames.len() as u64, Ordering::Relaxed);
            let mut send = [false; BURST];
            worker.burst(clock.now_ns(), &mut frames, |n, verdict| {
                if let Some(send) = send.get_mut(n) {
                    *send = verdict.is_transmit();
                }
            });
            let sent = frames.iter().zip(send).filter(|(_, send)| *send);
            port.inject_burst(sent.map(|(frame, _)| frame.data()));
        }
        let mut out: Vec<Vec<u8>> = Vec::new();
        worker.poll(clock.now_ns(), &mut out);
        port.inject_burst(out.iter().map(Vec::as_slice));
        let installed = worker.stats().offload_installed;
        shared.installed.store(installed, Ordering::Relaxed);
    }
}

fn server(port: &ChannelPort, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut frames = take(port);
        frames.iter_mut().for_each(|frame| answer(frame));
        port.inject_burst(frames.iter().map(Vec::as_slice));
    }
}

/// A run's figures.
struct Run {
    /// Connections a second until both entries were acknowledged.
    rate: f64,
    /// Packets of established connections a second, out and back, that hit in the switch.
    hits: f64,
    /// First packet to both entries acknowledged, nanoseconds.
    p50_ns: u64,
    p99_ns: u64,
}

async fn session(
    address: String,
    stop: &CancellationToken,
    ops: Vec<NetworkOp>,
) -> Result<(SwitchHandle, p4runtime::client::Client), BenchError> {
    let switch = Switch {
        name: "bench".to_owned(),
        address,
        device_id: 1,
        slow_path_port: SwitchPort::new(SLOW_PATH).ok_or_else(missing)?,
        role: None,
        device: String::new(),
        take_over: true,
    };
    let connected = Connected::open(&switch, PATIENCE).await.map_err(failed)?;
    let client = connected.client().clone();
    let meter = |reason: &PuntReason| PuntMeter {
        reason: *reason,
        rate_pps: NO_LIMIT_PPS,
        burst: NO_LIMIT_PPS,
        per_interface: false,
    };
    let parts = SessionParts {
        meters: PuntReason::ALL.iter().map(meter).collect(),
        scope: Scope::All,
        peerings: None,
        engine: None,
        resolver: Arc::new(|_, _| {}),
        stop: stop.clone(),
    };
    let (handle, _) = SwitchHandle::start(connected, parts);
    handle.apply(ops).await;
    handle.complete().await;
    let begun = Instant::now();
    while !handle.is_converged() {
        if begun.elapsed() > PATIENCE {
            return Err(BenchError::failed(format!("{:?}", handle.view())));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok((handle, client))
}

/// Sends `frames` from inside and takes the answers; never more than [`WINDOW`] that `done` has
/// not counted yet.
fn exchange(
    inside: &ChannelPort,
    frames: &[Vec<u8>],
    mut done: impl FnMut(u64) -> u64,
) -> Result<(), BenchError> {
    let (mut sent, mut answered) = (0, 0);
    let mut last = Instant::now();
    loop {
        let finished = done(answered);
        if finished == frames.len() as u64 && answered == finished {
            return Ok(());
        }
        let mut moved = false;
        let room = WINDOW.saturating_sub(sent as u64 - finished.min(answered)) as usize;
        let next = frames.get(sent..(sent + room.min(BURST)).min(frames.len()));
        if let Some(next) = next.filter(|next| !next.is_empty()) {
            inside.inject_burst(next.iter().map(Vec::as_slice));
            sent += next.len();
            moved = true;
        }
        while inside.try_receive().is_some() {
            answered += 1;
            moved = true;
        }
        if moved {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            return Err(BenchError::failed(format!(
                "stuck: {sent} sent, {answered} answered, {finished} done"
            )));
        } else {
            std::thread::sleep(IDLE);
        }
    }
}

fn measure(frames: &[Vec<u8>]) -> Result<Run, BenchError> {
    let runtime = Runtime::new().map_err(failed)?;
    let switch = runtime
        .block_on(run_switch(Config::default()))
        .map_err(failed)?;
    let [inside, outside, slow] =
        [INSIDE, OUTSIDE, SLOW_PATH].map(|port| switch.switch().attach_channel(port.into(), QUEUE));
    let ops = network()?;
    let stop = CancellationToken::new();
    let address = switch.addr().to_string();
    let (_handle, client) = runtime.block_on(session(address, &stop, ops.clone()))?;

    let (mut fib, readers) = FibWriter::new();
    fib.apply(ops);
    fib.set_policy(policy()?);
    fib.publish();
    let (offload, installer) = shunt_offload::channel(shunt_offload::QUEUE_CAPACITY);
    let (exception, _up, _down) = exception::channel();
    let config = WorkerConfig {
        max_connections: 2 * CONNECTIONS,
        seed: 7,
    };
    let worker = Worker::new(config, readers.reader(), offload, exception);
    let clock = Clock::system();
    let engine: EngineHandle = runtime.block_on(async {
        Engine::start(
            EngineConfig::default(),
            vec![installer],
            P4RuntimeSink::new(client),
        )
    });
    runtime.block_on(engine.settled()).map_err(failed)?;

    let shared = Shared::default();
    let run = std::thread::scope(|scope| {
        scope.spawn(|| slow_path(worker, &slow, &clock, &shared));
        scope.spawn(|| server(&outside, &shared));
        let run = (|| {
            let start = Instant::now();
            exchange(&inside, frames, |_| {
                shared.installed.load(Ordering::Relaxed)
            })?;
            let rate = frames.len() as f64 / start.elapsed().as_secs_f64();
            let latencies = runtime.block_on(engine.stats()).map_err(failed)?.latencies;
            let first = latencies.first_packet;
            // Once more: every packet, and every answer, hits.
            let punted = shared.punted.load(Ordering::Relaxed);
            let start = Instant::now();
            exchange(&inside, frames, |answered| answered)?;
            let hits = 2.0 * frames.len() as f64 / start.elapsed().as_secs_f64();
            let missed = shared.punted.load(Ordering::Relaxed) - punted;
            if missed > 0 {
                return Err(BenchError::failed(format!(
                    "{missed} packets of offloaded connections came to the slow path"
                )));
            }
            Ok(Run {
                rate,
                hits,
                p50_ns: first.p50_ns,
                p99_ns: first.p99_ns,
            })
        })();
        shared.stop.store(true, Ordering::Relaxed);
        run
    });
    stop.cancel();
    runtime.block_on(engine.shutdown());
    run
}

/// Runs the benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    let frames = (0..CONNECTIONS).map(frame).collect::<Result<Vec<_>, _>>()?;
    let runs = (0..RUNS)
        .map(|_| measure(&frames))
        .collect::<Result<Vec<_>, _>>()?;
    let of = |pick: fn(&Run) -> f64| median(runs.iter().map(pick).collect());
    report.metric(
        "connections, first packet to hit",
        of(|run| run.rate),
        "connections/s",
    );
    report.metric(
        "first packet to acknowledged: p50",
        of(|run| run.p50_ns as f64 / 1e3),
        "µs",
    );
    report.metric(
        "first packet to acknowledged: p99",
        of(|run| run.p99_ns as f64 / 1e3),
        "µs",
    );
    report.metric(
        "packets that hit, after that",
        of(|run| run.hits),
        "packets/s",
    );
    Ok(())
}
