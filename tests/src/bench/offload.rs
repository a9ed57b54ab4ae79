//! The offload engine against the embedded switch over real gRPC: entry updates a second, and
//! the time from a worker's decision to the switch's acknowledgement.
//!
//! The switch is a process of its own, the engine runs on a runtime as the daemon's, and this
//! program's main thread is the worker.

mod bmv2;
mod latency;
mod rate;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use p4runtime::client::{Client, ClientConfig, PipelineAction};
use p4runtime::p4info::parse_p4info_text;
use shunt_offload::{
    Clock, ConnectionId, Engine, EngineConfig, EngineHandle, OffloadCommand, OffloadEvent,
    OffloadStats, OffloadUnit, P4RuntimeSink, WorkerPort,
};
use shunt_p4::{FlowKey, FlowPair, Tuple, VpcId};
use tokio::runtime::Runtime;

use crate::bmv2::Bmv2;
use crate::report::BenchError;
use crate::switch_writes::server::Server;

pub(crate) use bmv2::run as bmv2;
pub(crate) use latency::run as latency;
pub(crate) use rate::run as rate;

/// Entries of a connection.
const ENTRIES: u64 = 2;
/// Connections have numbers below it, and then the same again: so many clients there are.
const CLIENTS: u32 = 1 << 24;
/// Outside ports of one outside address.
const PORTS: u32 = 60_000;
/// Longest wait for an event, before the engine counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough that no entry is idle while it is measured.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Both entries of a masqueraded TCP connection.
fn unit(number: u32, now_ns: u64) -> OffloadUnit {
    let vpc = VpcId::MIN;
    let number = number % CLIENTS;
    let client = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number);
    let outside = Ipv4Addr::new(100, 64, 0, 0).to_bits() + number / PORTS;
    let outside = IpAddr::V4(Ipv4Addr::from_bits(outside));
    let port = 1024 + (number % PORTS) as u16;
    let there = Tuple {
        src: client.into(),
        dst: Ipv4Addr::new(192, 0, 2, 80).into(),
        proto: shunt_p4::flow::proto::TCP,
        src_port: 40_000,
        dst_port: 443,
    };
    let back = Tuple {
        src: outside,
        src_port: port,
        ..there
    }
    .reversed();
    OffloadUnit {
        id: ConnectionId::new(number, 0),
        flows: FlowPair {
            keys: [there, back].map(|tuple| FlowKey { vpc, tuple }),
            vpcs: [vpc; 2],
            idle_timeout: IDLE_TIMEOUT,
        },
        first_packet_ns: now_ns,
        decided_ns: now_ns,
    }
}

/// A switch in a process of its own.
enum Switch {
    Embedded(Server),
    Bmv2(Bmv2),
}

impl From<Bmv2> for Switch {
    fn from(switch: Bmv2) -> Self {
        Self::Bmv2(switch)
    }
}

impl Switch {
    fn address(&self) -> &str {
        match self {
            Switch::Embedded(server) => &server.address,
            Switch::Bmv2(bmv2) => &bmv2.address,
        }
    }

    fn id(&self) -> u32 {
        match self {
            Switch::Embedded(server) => server.id(),
            Switch::Bmv2(bmv2) => bmv2.id(),
        }
    }
}

/// A worker with its engine and its switch.
struct Lab {
    runtime: Runtime,
    switch: Switch,
    client: Client,
    engine: EngineHandle,
    worker: WorkerPort,
    clock: Clock,
    /// Installed, the oldest first.
    live: VecDeque<ConnectionId>,
    next: u32,
    installing: u64,
    removing: u64,
    installed: u64,
    removed: u64,
}

impl Lab {
    fn new() -> Result<Self, BenchError> {
        Self::on(Switch::Embedded(Server::start()?))
    }

    fn on(switch: impl Into<Switch>) -> Result<Self, BenchError> {
        let switch = switch.into();
        let runtime = Runtime::new().map_err(BenchError::failed)?;
        let client = runtime.block_on(connect(switch.address().to_owned()))?;
        let (worker, port) = shunt_offload::channel(shunt_offload::QUEUE_CAPACITY);
        let clock = Clock::system();
        let config = EngineConfig {
            clock: clock.clone(),
            ..EngineConfig::default()
        };
        let sink = P4RuntimeSink::new(client.clone());
        let engine = runtime.block_on(async { Engine::start(config, vec![port], sink) });
        runtime
            .block_on(engine.settled())
            .map_err(BenchError::failed)?;
        Ok(Self {
            runtime,
            switch,
            client,
            engine,
            worker,
            clock,
            live: VecDeque::new(),
            next: 0,
            installing: 0,
            removing: 0,
            installed: 0,
            removed: 0,
        })
    }

    /// Decides that a new connection goes into hardware. `false`: the queue is full.
    fn install(&mut self) -> bool {
        let unit = unit(self.next, self.clock.now_ns());
        if self.worker.submit(OffloadCommand::Install(unit)).is_err() {
            return false;
        }
        self.next = self.next.wrapping_add(1);
        self.installing += 1;
        true
    }

    /// Decides that the oldest connection leaves hardware. `false`: there is none, or the queue
    /// is full.
    fn remove(&mut self) -> bool {
        let Some(&id) = self.live.front() else {
            return false;
        };
        let decided_ns = self.clock.now_ns();
        let remove = OffloadCommand::Remove { id, decided_ns };
        if self.worker.submit(remove).is_err() {
            return false;
        }
        self.live.pop_front();
        self.removing += 1;
        true
    }

    /// Takes the engine's answers; how many.
    fn poll(&mut self) -> Result<u64, BenchError> {
        let mut seen = 0;
        while let Some(event) = self.worker.poll() {
            seen += 1;
            match event {
                OffloadEvent::Installed(id) => {
                    self.live.push_back(id);
                    self.installing -= 1;
                    self.installed += 1;
                }
                OffloadEvent::Removed(_) => {
                    self.removing -= 1;
                    self.removed += 1;
                }
                other => return Err(BenchError::failed(format!("the engine says {other:?}"))),
            }
        }
        Ok(seen)
    }

    /// Runs until `done`, which also submits; gives the cores away while there is nothing to do.
    fn run(
        &mut self,
        mut done: impl FnMut(&mut Self) -> Result<bool, BenchError>,
    ) -> Result<(), BenchError> {
        let mut last = Instant::now();
        loop {
            let seen = self.poll()?;
            if done(self)? {
                return Ok(());
            }
            if seen > 0 {
                last = Instant::now();
            } else if last.elapsed() > PATIENCE && self.installing + self.removing > 0 {
                return Err(BenchError::failed("the engine no longer answers"));
            } else {
                std::thread::sleep(IDLE);
            }
        }
    }

    /// Has so many connections in hardware.
    fn fill(&mut self, connections: u64) -> Result<(), BenchError> {
        self.run(|lab| {
            while lab.live.len() as u64 + lab.installing < connections && lab.install() {}
            Ok(lab.live.len() as u64 >= connections)
        })
    }

    fn stats(&self) -> Result<OffloadStats, BenchError> {
        let stats = self.runtime.block_on(self.engine.stats());
        stats.map_err(BenchError::failed)
    }

    /// Everything that was decided is done, and the switch has what the worker has.
    fn finish(&mut self) -> Result<(), BenchError> {
        self.run(|lab| Ok(lab.installing + lab.removing == 0))?;
        let (engine, client) = (&self.engine, &self.client);
        let read = async {
            engine.settled().await.map_err(BenchError::failed)?;
            let sink = P4RuntimeSink::new(client.clone());
            let entries = shunt_offload::FlowSink::read_flows(&sink).await;
            entries.map_err(BenchError::failed)
        };
        let entries = self.runtime.block_on(read)?.len() as u64;
        let wanted = ENTRIES * self.live.len() as u64;
        if entries != wanted {
            return Err(BenchError::failed(format!(
                "the switch has {entries} entries and should have {wanted}"
            )));
        }
        Ok(())
    }
}

/// How long a worker without work sleeps: the slow path's default.
const IDLE: Duration = Duration::from_micros(50);

async fn connect(address: String) -> Result<Client, BenchError> {
    let client = Client::connect(ClientConfig::new(address, 1, 1))
        .await
        .map_err(BenchError::failed)?;
    client.become_primary().await.map_err(BenchError::failed)?;
    let p4info = parse_p4info_text(shunt_p4::P4INFO).map_err(BenchError::failed)?;
    let json = shunt_p4::PIPELINE_JSON.to_vec();
    let (action, cookie) = (PipelineAction::VerifyAndCommit, shunt_p4::pipeline_cookie());
    client
        .set_pipeline(action, p4info, json, cookie)
        .await
        .map_err(BenchError::failed)?;
    Ok(client)
}

/// Processor time of a process so far.
fn cpu_time(process: u32) -> Result<Duration, BenchError> {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).map_err(BenchError::failed)?;
    // The name, in brackets, may have spaces; user and system time are the 12th and 13th behind.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(), ticks()) else {
        return Err(BenchError::failed(format!("what does {path} mean")));
    };
    // Linux counts in hundredths of a second towards programs.
    Ok(Duration::from_millis(10 * (user + system)))
}
