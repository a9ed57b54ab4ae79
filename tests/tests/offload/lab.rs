//! The embedded switch with small flow tables, the engine, and two workers.
//!
//! ```text
//!   test: clients ──▶ switch ──▶ slow path (a thread, two workers) ──▶ switch ──▶ server (a thread)
//!        ◀───────────────────────────┴── engine ══ gRPC ══▶ the switch's flow tables
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use p4runtime::client::{Client, ClientConfig, PipelineAction};
use p4runtime::p4info::parse_p4info_text;
use shunt_controller::config::{PuntMeter, Switch};
use shunt_controller::switch::{Connected, Scope, SessionParts, SwitchHandle};
use shunt_offload::{
    Clock, Engine, EngineConfig, EngineHandle, FlowSink as _, OffloadStats, P4RuntimeSink,
};
use shunt_p4::tables::flow_key_from_entry;
use shunt_p4::{
    Encap, FlowKey, Interface, InterfaceId, MacAddr, NetworkOp, Nexthop, NexthopId, PuntReason,
    Route, SwitchIndex, SwitchPort, Vpc, VpcId,
};
use shunt_slowpath::nat::PortShare;
use shunt_slowpath::packet::{PacketBuf as _, VecBuf};
use shunt_slowpath::policy::{AddressRange, Masquerade, OffloadPolicy, PortRange};
use shunt_slowpath::worker::{SharedQuotas, Verdict, Worker, WorkerConfig};
use shunt_slowpath::{FibWriter, FlowFilter, FlowView, Policy, exception};
use shunt_switch::{ChannelPort, Config, run as run_switch};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Far more than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const INSIDE: u16 = 1;
const OUTSIDE: u16 = 2;
const SLOW_PATH: u16 = 3;
const WORKERS: u16 = 2;
const CONNECTIONS_MAX: u32 = 64 * 1024;
/// Sent and not answered, at most.
const WINDOW: usize = 1024;
const QUEUE: usize = 4 * WINDOW;
const BURST: usize = 32;
const IDLE: Duration = Duration::from_micros(100);
const NO_LIMIT_PPS: u32 = 1_000_000_000;
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 80);

type Work = Box<dyn FnOnce(&mut [Worker], u64) + Send>;

pub struct Lab {
    runtime: Runtime,
    client: Client,
    engine: EngineHandle,
    inside: ChannelPort,
    shared: Arc<Shared>,
    work: Mutex<mpsc::Sender<Work>>,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    // Ends when dropped.
    _switch: shunt_switch::Handle,
    _session: SwitchHandle,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Frames that the slow path got.
    punted: AtomicU64,
}

impl Lab {
    /// Flow tables of so many entries, whatever the engine is told.
    pub fn new(entries: u32, engine: EngineConfig, offload: OffloadPolicy) -> Self {
        let runtime = Runtime::new().unwrap();
        let switch = runtime.block_on(run_switch(Config::default())).unwrap();
        let ports = [INSIDE, OUTSIDE, SLOW_PATH];
        let [inside, outside, slow] =
            ports.map(|port| switch.switch().attach_channel(port.into(), QUEUE));
        let address = switch.addr().to_string();
        runtime.block_on(push_small(&address, entries));

        let (mut fib, readers) = FibWriter::new();
        fib.apply(network());
        fib.set_policy(Policy {
            offload,
            ..policy()
        });
        fib.publish();
        let (mut workers, mut installers) = (Vec::new(), Vec::new());
        let mut kernel = Vec::new();
        let quotas = Arc::new(SharedQuotas::new(WORKERS, CONNECTIONS_MAX, 7));
        for worker in 0..WORKERS {
            let (port, installer) = shunt_offload::channel(shunt_offload::QUEUE_CAPACITY);
            let (exception, up, down) = exception::channel();
            let config = WorkerConfig {
                max_connections: CONNECTIONS_MAX,
                seed: 7,
            };
            let share = PortShare {
                worker,
                workers: WORKERS,
            };
            let reader = readers.reader();
            let quotas = Arc::clone(&quotas);
            let ports = vec![port];
            workers.push(Worker::shared(
                config, share, quotas, reader, ports, exception,
            ));
            installers.push(installer);
            kernel.push((up, down));
        }
        let stop = CancellationToken::new();
        let started = start(&address, &stop, engine, installers);
        let (session, client, engine) = runtime.block_on(started);
        runtime.block_on(engine.settled()).unwrap();

        let shared = Arc::new(Shared::default());
        let (work, inbox) = mpsc::channel();
        let clock = Clock::system();
        let threads = vec![
            {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // The tables are there, and nobody talks to the kernel, as long as it runs.
                    let _kept = (fib, kernel);
                    slow_path(workers, &slow, &clock, &shared, &inbox);
                })
            },
            {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || server(&outside, &shared))
            },
        ];
        Self {
            runtime,
            client,
            engine,
            inside,
            shared,
            work: Mutex::new(work),
            threads,
            stop,
            _switch: switch,
            _session: session,
        }
    }

    /// Sends the packets of some connections and waits until all are answered; says how many of
    /// them, and of the answers, went through the slow path.
    pub fn exchange(&self, connections: impl IntoIterator<Item = u32>) -> u64 {
        let before = self.shared.punted.load(Ordering::Relaxed);
        let mut connections = connections.into_iter().peekable();
        let (mut sent, mut answered) = (0, 0);
        let mut last = Instant::now();
        while connections.peek().is_some() || answered < sent {
            let room = (WINDOW - (sent - answered)).min(BURST);
            let burst: Vec<_> = connections.by_ref().take(room).map(frame).collect();
            self.inside.inject_burst(burst.iter().map(Vec::as_slice));
            sent += burst.len();
            let mut moved = !burst.is_empty();
            while self.inside.try_receive().is_some() {
                answered += 1;
                moved = true;
            }
            if moved {
                last = Instant::now();
            } else {
                assert!(last.elapsed() < PATIENCE, "{answered} of {sent} answered");
                std::thread::sleep(IDLE);
            }
        }
        self.shared.punted.load(Ordering::Relaxed) - before
    }

    /// Asks the workers, between two bursts.
    pub fn workers<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut [Worker], u64) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = mpsc::channel();
        let work: Work = Box::new(move |workers, now_ns| {
            let _ = answer.send(ask(workers, now_ns));
        });
        self.work.lock().unwrap().send(work).unwrap();
        answered.recv_timeout(PATIENCE).unwrap()
    }

    pub fn connections(&self) -> usize {
        self.workers(|workers, _| workers.iter().map(Worker::connections).sum())
    }

    pub fn leased(&self) -> u32 {
        self.workers(|workers, _| {
            let pools = workers.iter().flat_map(Worker::pool_use);
            pools.map(|pool| pool.leased).sum()
        })
    }

    /// All connections.
    pub fn flows(&self) -> Vec<FlowView> {
        self.workers(|workers, now_ns| {
            let all = FlowFilter::default();
            let list = |worker: &Worker| worker.list_flows(now_ns, &all, 0, u32::MAX, usize::MAX).0;
            workers.iter().flat_map(list).collect()
        })
    }

    /// Ends all connections.
    pub fn delete_all(&self) {
        self.workers(|workers, now_ns| {
            for worker in workers {
                worker.delete_flows(now_ns, &FlowFilter::default(), 0, u32::MAX);
            }
        });
    }

    pub fn stats(&self) -> OffloadStats {
        self.runtime.block_on(self.engine.stats()).unwrap()
    }

    pub fn settled(&self) {
        let settled = async { tokio::time::timeout(PATIENCE, self.engine.settled()).await };
        let settled = self.runtime.block_on(settled);
        settled.expect("the engine does not come to rest").unwrap();
    }

    /// Until something is so, which is asked again and again.
    pub fn wait(&self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !so(self) {
            assert!(begun.elapsed() < PATIENCE, "{what}: {:#?}", self.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Keys of the flow entries that the switch has.
    pub fn entries(&self) -> BTreeSet<FlowKey> {
        let sink = P4RuntimeSink::new(self.client.clone());
        let entries = self.runtime.block_on(sink.read_flows()).unwrap();
        let key = |entry| flow_key_from_entry(entry).unwrap();
        entries.iter().map(key).collect()
    }

    pub fn engine(&self) -> (&Runtime, &EngineHandle) {
        (&self.runtime, &self.engine)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The pipeline with flow tables of another size, under the cookie of the one that sessions push.
async fn push_small(address: &str, entries: u32) {
    let client = Client::connect(ClientConfig::new(address, 1, 1))
        .await
        .unwrap();
    client.become_primary().await.unwrap();
    let json = String::from_utf8(shunt_p4::PIPELINE_JSON.to_vec()).unwrap();
    let small = json.replace("1048576", &entries.to_string());
    assert_ne!(small, json, "the flow tables have another size");
    let p4info = parse_p4info_text(shunt_p4::P4INFO).unwrap();
    let cookie = shunt_p4::pipeline_cookie();
    client
        .set_pipeline(
            PipelineAction::VerifyAndCommit,
            p4info,
            small.into_bytes(),
            cookie,
        )
        .await
        .unwrap();
}

async fn start(
    address: &str,
    stop: &CancellationToken,
    engine: EngineConfig,
    installers: Vec<shunt_offload::InstallerPort>,
) -> (SwitchHandle, Client, EngineHandle) {
    let switch = Switch {
        name: "small".to_owned(),
        address: address.to_owned(),
        device_id: 1,
        slow_path_port: SwitchPort::new(SLOW_PATH).unwrap(),
        role: None,
        device: String::new(),
        take_over: true,
    };
    let connected = Connected::open(&switch, PATIENCE).await.unwrap();
    let client = connected.client().clone();
    let engine = Engine::start(engine, installers, P4RuntimeSink::new(client.clone()));
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
        engine: Some(engine.engine()),
        resolver: Arc::new(|_, _| {}),
        stop: stop.clone(),
    };
    let (session, _) = SwitchHandle::start(connected, parts);
    session.apply(network()).await;
    session.complete().await;
    let begun = Instant::now();
    while !session.is_converged() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", session.view());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (session, client, engine)
}

fn mac(n: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n as u8])
}

fn host_mac(n: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, n as u8])
}

fn vpc(n: u16) -> VpcId {
    VpcId::new(n).unwrap()
}

fn network() -> Vec<NetworkOp> {
    let mut ops = Vec::new();
    for (n, router) in [(INSIDE, "10.255.0.1"), (OUTSIDE, "203.0.113.254")] {
        let router = router.parse().unwrap();
        let interface = InterfaceId::new(n).unwrap();
        ops.push(NetworkOp::SetVpc(Vpc {
            id: vpc(n),
            name: format!("vpc{n}"),
            stateless: false,
        }));
        ops.push(NetworkOp::SetInterface(Interface {
            id: interface,
            name: format!("if{n}"),
            vpc: vpc(n),
            switch: SwitchIndex::MIN,
            port: SwitchPort::new(n).unwrap(),
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
        ops.push(NetworkOp::SetNexthop(
            NexthopId::new(n.into()).unwrap(),
            hop,
        ));
        ops.push(NetworkOp::SetNeighbor(interface, router, host_mac(n)));
    }
    let route = |of: u16, net: &str, to: u16| {
        let hop = NexthopId::new(to.into()).unwrap();
        let net = net.parse().unwrap();
        NetworkOp::SetRoute(vpc(of), net, Route::Nexthops(vec![(hop, 1)]))
    };
    ops.push(route(INSIDE, "10.0.0.0/8", INSIDE));
    ops.push(route(INSIDE, "0.0.0.0/0", OUTSIDE));
    ops.push(route(OUTSIDE, "0.0.0.0/0", OUTSIDE));
    ops
}

fn policy() -> Policy {
    let first = Ipv4Addr::new(203, 0, 113, 0).into();
    let last = Ipv4Addr::new(203, 0, 113, 15).into();
    Policy {
        masquerades: vec![Masquerade {
            name: "out".into(),
            vpc: vpc(INSIDE),
            to: vpc(OUTSIDE),
            sources: Vec::new(),
            pool: vec![AddressRange::new(first, last).unwrap()],
            ports: PortRange::UNPRIVILEGED,
            filtering: Default::default(),
            when_exhausted: Default::default(),
        }],
        ..Policy::default()
    }
}

/// The client of connection 0; the others' follow.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

/// Which connection this is.
pub fn number(flow: &FlowView) -> Option<u32> {
    match flow.forward.tuple.src {
        IpAddr::V4(client) => client.to_bits().checked_sub(CLIENT.to_bits()),
        IpAddr::V6(_) => None,
    }
}

/// A packet of connection `n`.
fn frame(n: u32) -> Vec<u8> {
    let client = Ipv4Addr::from_bits(CLIENT.to_bits() + n);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(host_mac(INSIDE).0, mac(INSIDE).0)
        .ipv4(client.octets(), SERVER.octets(), 64)
        .udp(4000, 53)
        .write(&mut frame, &[0x5a; 22])
        .unwrap();
    frame
}

/// A burst of what the switch has sent; waits a moment for the first.
fn take(port: &ChannelPort) -> Vec<Vec<u8>> {
    let first = port.try_receive().or_else(|| port.receive(IDLE));
    let rest = std::iter::from_fn(|| port.try_receive());
    first.into_iter().chain(rest.take(BURST - 1)).collect()
}

fn slow_path(
    mut workers: Vec<Worker>,
    port: &ChannelPort,
    clock: &Clock,
    shared: &Shared,
    inbox: &mpsc::Receiver<Work>,
) {
    while !shared.stop.load(Ordering::Relaxed) {
        let frames: Vec<VecBuf> = take(port).into_iter().map(VecBuf::from).collect();
        let punted = frames.len() as u64;
        shared.punted.fetch_add(punted, Ordering::Relaxed);
        // All arrive at the first worker, which hands over what belongs to the other.
        let theirs = walk(&mut workers[0], port, clock, frames, false);
        walk(&mut workers[1], port, clock, theirs, true);
        for worker in &mut workers {
            let mut out: Vec<Vec<u8>> = Vec::new();
            worker.poll(clock.now_ns(), &mut out);
            port.inject_burst(out.iter().map(Vec::as_slice));
        }
        for work in inbox.try_iter() {
            work(&mut workers, clock.now_ns());
        }
    }
}

/// Has a worker walk frames and sends what it sends; returns what it hands over.
fn walk(
    worker: &mut Worker,
    port: &ChannelPort,
    clock: &Clock,
    mut frames: Vec<VecBuf>,
    handed: bool,
) -> Vec<VecBuf> {
    let mut verdicts = vec![None; frames.len()];
    let note = |n: usize, verdict| verdicts[n] = Some(verdict);
    match handed {
        true => worker.burst_handed(clock.now_ns(), &mut frames, note),
        false => worker.burst(clock.now_ns(), &mut frames, note),
    }
    let (mut sent, mut theirs) = (Vec::new(), Vec::new());
    for (frame, verdict) in frames.into_iter().zip(verdicts) {
        match verdict {
            Some(verdict) if Verdict::is_transmit(verdict) => sent.push(frame),
            Some(Verdict::Handover(_)) => theirs.push(frame),
            _ => {}
        }
    }
    port.inject_burst(sent.iter().map(|frame| frame.data()));
    theirs
}

/// Answers every packet; no checksum changes.
fn server(port: &ChannelPort, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut frames = take(port);
        for frame in &mut frames {
            for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
                for n in 0..len {
                    frame.swap(a + n, b + n);
                }
            }
        }
        port.inject_burst(frames.iter().map(Vec::as_slice));
    }
}
