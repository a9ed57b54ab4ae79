//! What the benchmarks of the slow path share: a worker on in-process rings, the network that it
//! forwards in, the offload engine's answers, and packets.
//!
//! ```text
//!   Traffic ──▶ mbuf ──▶ ring ──▶ [ Runner: rx burst, Worker, tx burst, poll ] ──▶ ring ──▶ freed
//!                                      │ offload ring, answered by Engine
//! ```
//!
//! One thread does all of it, so a figure has the price of making the packets and of freeing them
//! in it; `rings alone` says how much that is. Time is simulated: a burst advances it by as much
//! as the wanted number of live connections asks for.

mod established;
mod mixed;
mod new;
mod packets;
mod scale;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use shunt_dpdk::{Burst, DEFAULT_DATA_ROOM, Eal, EalConfig, Pool, RingEnd, RingPort, spawn_worker};
use shunt_offload::{ConnectionId, InstallerPort, OffloadCommand, OffloadEvent};
use shunt_p4::{
    Encap, Interface, InterfaceId, MacAddr, NetworkOp, Nexthop, NexthopId, Route, SwitchIndex,
    SwitchPort, Vpc, VpcId,
};
use shunt_slowpath::exception::{self, ExceptionReceiver, ExceptionSender};
use shunt_slowpath::fib::FibReaderFactory;
use shunt_slowpath::nat::PortShare;
use shunt_slowpath::policy::{AddressRange, Masquerade, OffloadAfter, PortRange, Timeouts};
use shunt_slowpath::worker::run::{Peers, Queues, Runner, Wire};
use shunt_slowpath::worker::{SharedQuotas, Worker, WorkerConfig};
use shunt_slowpath::{FibWriter, Policy};

use crate::report::BenchError;

pub(crate) use established::run as established;
pub(crate) use mixed::run as mixed;
pub(crate) use new::run as new;
use packets::Flow;
pub(crate) use scale::run as scale;

/// The clients' VPC and interface, and those of the world.
const INSIDE: u16 = 1;
const OUTSIDE: u16 = 2;
/// Frames in each ring: a burst in and one out, and some air.
const RING: u32 = 256;
const BUFFERS: u32 = 4095;
const MEMORY_MIB: u32 = 128;
/// Outside addresses: 96 times 64,512 ports.
const POOL_FIRST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);
const POOL_LAST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 95);
/// Where both sides' packets are sent on to.
const INSIDE_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
const OUTSIDE_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// Routes that lead nowhere in particular, so that the table is not a single one.
const MORE_ROUTES: u32 = 1000;
/// Commands and events of the offload ring.
const OFFLOAD_QUEUE: usize = shunt_offload::QUEUE_CAPACITY;
const SEED: u64 = 6;

fn missing() -> BenchError {
    BenchError::failed("an identifier is out of range")
}

/// DPDK, once a process.
fn eal() -> Result<Eal, BenchError> {
    static EAL: OnceLock<Result<Eal, String>> = OnceLock::new();
    let started = EAL.get_or_init(|| {
        Eal::init(EalConfig {
            memory_mib: MEMORY_MIB,
            ..EalConfig::default()
        })
        .map_err(|error| error.to_string())
    });
    started.clone().map_err(BenchError::failed)
}

/// Runs on a thread that DPDK knows.
fn on_worker<T: Send + 'static>(
    name: &str,
    work: impl FnOnce(Eal) -> Result<T, BenchError> + Send + 'static,
) -> Result<T, BenchError> {
    join(start(name, None, work)?)
}

/// Starts a thread that DPDK knows, on a CPU.
fn start<T: Send + 'static>(
    name: &str,
    cpu: Option<usize>,
    work: impl FnOnce(Eal) -> Result<T, BenchError> + Send + 'static,
) -> Result<shunt_dpdk::Worker<Result<T, BenchError>>, BenchError> {
    let eal = eal()?;
    spawn_worker(&eal, name, cpu, move |_| work(eal)).map_err(BenchError::failed)
}

fn join<T>(worker: shunt_dpdk::Worker<Result<T, BenchError>>) -> Result<T, BenchError> {
    worker
        .join()
        .map_err(|_| BenchError::failed("the worker thread panicked"))?
}

/// Two VPCs with a router behind each, and a masquerade between them.
fn network(
    udp: OffloadAfter,
    timeout: Duration,
) -> Result<(FibWriter, FibReaderFactory), BenchError> {
    let vpc = |n| VpcId::new(n).ok_or_else(missing);
    let interface = |n| InterfaceId::new(n).ok_or_else(missing);
    let nexthop = |n| NexthopId::new(n).ok_or_else(missing);
    let mut ops = Vec::new();
    for (n, router) in [(INSIDE, INSIDE_ROUTER), (OUTSIDE, OUTSIDE_ROUTER)] {
        ops.push(NetworkOp::SetVpc(Vpc {
            id: vpc(n)?,
            name: format!("vpc{n}"),
            stateless: false,
        }));
        ops.push(NetworkOp::SetInterface(Interface {
            id: interface(n)?,
            name: format!("if{n}"),
            vpc: vpc(n)?,
            switch: SwitchIndex::MIN,
            port: SwitchPort::new(n).ok_or_else(missing)?,
            encap: Encap::Untagged,
            mac: MacAddr([2, 0, 0, 0, 0, n as u8]),
            mtu: 1500,
            addresses: Vec::new(),
        }));
        let hop = Nexthop {
            interface: interface(n)?,
            gateway: Some(router.into()),
            mtu: None,
        };
        ops.push(NetworkOp::SetNexthop(nexthop(n.into())?, hop));
        ops.push(NetworkOp::SetNeighbor(
            interface(n)?,
            router.into(),
            MacAddr([2, 0, 0, 0, 1, n as u8]),
        ));
    }
    let via = |n: u16| -> Result<Route, BenchError> {
        Ok(Route::Nexthops(vec![(nexthop(n.into())?, 1)]))
    };
    let default = "0.0.0.0/0".parse().map_err(BenchError::failed)?;
    let clients = "10.0.0.0/8".parse().map_err(BenchError::failed)?;
    for n in [INSIDE, OUTSIDE] {
        ops.push(NetworkOp::SetRoute(vpc(n)?, default, via(OUTSIDE)?));
        for more in 0..MORE_ROUTES {
            let net = Ipv4Addr::from_bits(Ipv4Addr::new(172, 16, 0, 0).to_bits() + (more << 8));
            let net = ipnet::Ipv4Net::new(net, 24).map_err(BenchError::failed)?;
            ops.push(NetworkOp::SetRoute(vpc(n)?, net.into(), via(OUTSIDE)?));
        }
    }
    ops.push(NetworkOp::SetRoute(vpc(INSIDE)?, clients, via(INSIDE)?));
    let pool = AddressRange::new(POOL_FIRST.into(), POOL_LAST.into()).ok_or_else(missing)?;
    let mut policy = Policy {
        masquerades: vec![Masquerade {
            name: "out".into(),
            vpc: vpc(INSIDE)?,
            to: vpc(OUTSIDE)?,
            sources: vec![clients],
            pool: vec![pool],
            ports: PortRange::UNPRIVILEGED,
            filtering: Default::default(),
            when_exhausted: Default::default(),
        }],
        ..Policy::default()
    };
    policy.offload.udp = udp;
    policy.timeouts.udp = timeout;
    let (mut writer, factory) = FibWriter::new();
    writer.apply(ops);
    writer.set_policy(policy);
    writer.publish();
    Ok((writer, factory))
}

/// The offload engine in front of a switch that does all it is asked, at once.
struct Engine {
    port: InstallerPort,
    /// Installed, oldest first, with the time at which they are reported idle.
    installed: VecDeque<(ConnectionId, u64)>,
    idle_ns: u64,
}

impl Engine {
    fn answer(&mut self, now_ns: u64) -> Result<(), BenchError> {
        let full = |_| BenchError::failed("the ring of events is full");
        while let Some(command) = self.port.take() {
            let sent = match command {
                OffloadCommand::Install(unit) => {
                    self.installed.push_back((unit.id, now_ns + self.idle_ns));
                    self.port.send(OffloadEvent::Installed(unit.id))
                }
                OffloadCommand::Remove { id, .. } => self.port.send(OffloadEvent::Removed(id)),
            };
            sent.map_err(full)?;
        }
        while let Some(&(id, at)) = self.installed.front()
            && at <= now_ns
        {
            self.port.send(OffloadEvent::Idle(id)).map_err(full)?;
            self.installed.pop_front();
        }
        Ok(())
    }
}

/// A worker and everything around it.
struct Bench {
    // Readers see nothing any more when it goes.
    _fib: Option<FibWriter>,
    // The worker rings nobody up when these go.
    _controller: (ExceptionReceiver, ExceptionSender),
    pool: Pool,
    end: RingEnd,
    runner: Runner,
    engine: Engine,
    now_ns: u64,
    /// Bytes behind the UDP header.
    payload: usize,
    sent: u64,
    left: u64,
}

impl Bench {
    fn new(eal: &Eal, name: &str, capacity: u32, udp: OffloadAfter) -> Result<Self, BenchError> {
        let (fib, factory) = network(udp, Timeouts::default().udp)?;
        let alone = (PortShare::ALL, Peers::default());
        let mut bench = Self::among(eal, name, capacity, &factory, alone)?;
        bench._fib = Some(fib);
        Ok(bench)
    }

    /// One worker of several, in a network that somebody else keeps.
    fn among(
        eal: &Eal,
        name: &str,
        capacity: u32,
        factory: &FibReaderFactory,
        (share, peers): (PortShare, Peers),
    ) -> Result<Self, BenchError> {
        let pool = Pool::new(eal, name, BUFFERS, DEFAULT_DATA_ROOM).map_err(BenchError::failed)?;
        let (port, mut ends) =
            RingPort::pair(eal, name, &pool, 1, RING).map_err(BenchError::failed)?;
        let end = ends.pop().ok_or_else(missing)?;
        let (offload, installer) = shunt_offload::channel(OFFLOAD_QUEUE);
        let (exception, receiver, sender) = exception::channel();
        let config = WorkerConfig {
            max_connections: capacity,
            seed: SEED,
        };
        // Without limits a worker touches nobody's words but its own.
        let quotas = Arc::new(SharedQuotas::new(share.workers, capacity, SEED));
        let (reader, offload) = (factory.reader(), vec![offload]);
        let worker = Worker::shared(config, share, quotas, reader, offload, exception);
        let queues = Queues {
            wires: vec![Wire::Port {
                rx: port.rx_queue(0).ok_or_else(missing)?,
                tx: port.tx_queue(0).ok_or_else(missing)?,
                others: Vec::new(),
            }],
            peers,
            pool,
            tables: factory.reader(),
        };
        Ok(Self {
            _fib: None,
            _controller: (receiver, sender),
            pool,
            end,
            runner: Runner::new(worker, queues),
            engine: Engine {
                port: installer,
                installed: VecDeque::new(),
                idle_ns: Duration::from_secs(30).as_nanos() as u64,
            },
            now_ns: 1_000_000_000,
            payload: packets::PAYLOAD,
            sent: 0,
            left: 0,
        })
    }

    /// A burst of packets in, and whatever comes out; time passes by `pass_ns`.
    fn burst(
        &mut self,
        flows: &mut impl Iterator<Item = Flow>,
        pass_ns: u64,
        mut see: impl FnMut(&[u8]),
    ) -> Result<(), BenchError> {
        self.now_ns += pass_ns;
        let mut burst = Burst::new();
        if !self.pool.alloc_into(&mut burst, shunt_dpdk::CAPACITY) {
            return Err(BenchError::failed("no packet buffer"));
        }
        let mut written = 0;
        for (mbuf, flow) in burst.iter_mut().zip(flows) {
            packets::write(mbuf, &flow, self.payload)?;
            written += 1;
        }
        while burst.len() > written {
            burst.pop();
        }
        self.sent += self.end.inject.burst(&mut burst) as u64;
        let now_ns = self.now_ns;
        self.runner.round(|| now_ns);
        let mut out = Burst::new();
        while self.end.drain.burst(&mut out) > 0 {
            self.left += out.len() as u64;
            out.iter().for_each(|mbuf| see(mbuf.data()));
            out.clear();
        }
        self.engine.answer(now_ns)
    }

    /// Time passes without packets.
    fn idle(&mut self, pass_ns: u64) -> Result<(), BenchError> {
        self.now_ns += pass_ns;
        let now_ns = self.now_ns;
        loop {
            let work = self.runner.round(|| now_ns);
            self.engine.answer(now_ns)?;
            if work == 0 {
                return Ok(());
            }
        }
    }

    /// Packets a second without a worker: what goes in comes out untouched.
    fn rings_alone(
        &mut self,
        flows: &mut impl Iterator<Item = Flow>,
        packets: u32,
    ) -> Result<f64, BenchError> {
        let start = Instant::now();
        for _ in 0..packets / shunt_dpdk::CAPACITY as u32 {
            let mut burst = Burst::new();
            if !self.pool.alloc_into(&mut burst, shunt_dpdk::CAPACITY) {
                return Err(BenchError::failed("no packet buffer"));
            }
            for (mbuf, flow) in burst.iter_mut().zip(&mut *flows) {
                packets::write(mbuf, &flow, self.payload)?;
            }
            self.end.inject.burst(&mut burst);
            self.runner.reflect();
            let mut out = Burst::new();
            self.end.drain.burst(&mut out);
        }
        Ok(f64::from(packets) / start.elapsed().as_secs_f64())
    }

    /// Every packet that went in came out.
    fn lossless(&mut self) -> Result<(), BenchError> {
        if self.sent == self.left {
            return Ok(());
        }
        let stats = self.runner.worker().stats();
        let drops = shunt_slowpath::DropReason::ALL
            .iter()
            .filter(|reason| stats.dropped(**reason) > 0)
            .map(|reason| format!("{} {}", reason.as_str(), stats.dropped(*reason)));
        Err(BenchError::failed(format!(
            "{} in, {} out; dropped: {:?}",
            self.sent,
            self.left,
            drops.collect::<Vec<_>>()
        )))
    }
}

/// Whether it is an address of the pool.
fn is_public(address: u32) -> bool {
    AddressRange::new(POOL_FIRST.into(), POOL_LAST.into())
        .is_some_and(|range| range.contains(Ipv4Addr::from_bits(address).into()))
}
