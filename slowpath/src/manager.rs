//! The manager: owns the workers' life, and is what the controller talks to.
//!
//! ```text
//!   controller tasks (tokio)                 manager thread              worker thread (DPDK)
//!   ManagerHandle ── Request, bounded ──▶ one at a time ── Command ──▶ between two bursts
//!        ▲                                      │    ◀── answer ───────────┘
//!        └──────────── oneshot ─────────────────┘
//! ```
//!
//! A walk over all connections is cut into commands of [`SCAN_SLOTS`] slots, so that packets
//! never wait for a listing.

mod adopt;
mod glance;
mod ports;

use std::sync::{Arc, mpsc as sync};
use std::thread::JoinHandle;
use std::time::Duration;

use shunt_dpdk::{
    DEFAULT_DATA_ROOM, Eal, EalConfig, EalError, Pool, PoolError, Port, PortError, PortStats,
    ThreadError,
};
use shunt_offload::{Clock, WorkerPort};
use shunt_p4::MAX_SWITCHES;
use tokio::sync::{mpsc, oneshot};

use crate::config::{MAX_WORKERS, SlowPathConfig};
use crate::conntrack::State;
use crate::exception::ExceptionPort;
use crate::fib::FibReaderFactory;
use crate::nat::{PoolUse, PortShare};
use crate::record::StateFile;
use crate::stats::WorkerStats;
use crate::worker::run::{Command, Peers, Queues, run};
use crate::worker::{
    Census, FlowFilter, FlowView, MAX_HANDOVERS, Reviewed, RuleUse, SharedQuotas, Trace, Verdict,
    Worker, WorkerConfig,
};

use ports::{open, wires};

pub use adopt::{Adopted, RESTORE_PAGE, RESTORE_SLICE, RestoreCursor, RestorePage};
pub use glance::{GLANCE_SCANS, Glance};

/// Requests that wait for the manager.
pub const REQUESTS: usize = 64;
/// Commands that wait for a worker.
pub const COMMANDS: usize = 16;
/// Slots of a connection table that one command walks: some 100 µs.
pub const SCAN_SLOTS: u32 = 4096;
/// Most flows in one page.
pub const MAX_PAGE: usize = 10_000;
/// How long a worker may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no slow path, or no answer from it.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The number of workers is out of range.
    #[error("the slow path runs 1 to {MAX_WORKERS} workers, not {0}")]
    Workers(u16),
    /// A queue pair or an exception port is missing for a worker.
    #[error(
        "{workers} workers need as many exception ports, and offload ports for each of {switches} \
         switches"
    )]
    Ports {
        /// Workers asked for.
        workers: u16,
        /// Switches.
        switches: usize,
    },
    /// The number of switches is out of range.
    #[error("the slow path has 1 to {MAX_SWITCHES} switches, not {0}")]
    Switches(usize),
    /// The port's queue is held by somebody else.
    #[error("queue {0} of the slow-path port is in use")]
    Queue(u16),
    /// DPDK did not start, or the device could not be created.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// No packet buffers.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The port does not open.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A worker thread did not start.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// The manager's own thread did not start.
    #[error("the slow path's manager thread could not be started: {0}")]
    Spawn(#[source] std::io::Error),
    /// A worker did not answer in time, or has ended.
    #[error("worker {0} of the slow path does not answer")]
    Worker(u16),
    /// The slow path was shut down.
    #[error("the slow path is shut down")]
    Stopped,
}

/// Where a listing goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCursor {
    /// Worker, counted from 0.
    pub worker: u16,
    /// Slot in its table.
    pub slot: u32,
}

/// Part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowPage {
    /// Connections.
    pub flows: Vec<FlowView>,
    /// Where the rest begins; none: this was the last.
    pub next: Option<FlowCursor>,
}

/// The whole slow path's counters.
#[derive(Clone, Debug, Default)]
pub struct SlowPathStats {
    /// All workers' together.
    pub counters: WorkerStats,
    /// Connections now, and how many are in hardware.
    pub census: Census,
    /// Connections that fit, over all workers.
    pub capacity: u64,
    /// Leased ports by outside address.
    pub pools: Vec<PoolUse>,
    /// The ports' own counters by switch, where their drivers have them.
    pub ports: Vec<Option<PortStats>>,
}

impl SlowPathStats {
    /// Connections now.
    pub fn connections(&self) -> u64 {
        self.census.by_state.iter().sum()
    }

    /// Connections in a state.
    pub fn in_state(&self, state: State) -> u64 {
        self.census.by_state[state as usize]
    }
}

/// What masquerades use of their pools.
#[derive(Clone, Debug, Default)]
pub struct NatStats {
    /// Leased ports by rule, address and protocol, of all workers together; those without a
    /// lease are left out.
    pub used: Vec<RuleUse>,
    /// All workers' counters; they have the exhaustions.
    pub counters: WorkerStats,
}

enum Request {
    List(FlowFilter, FlowCursor, usize, Reply<FlowPage>),
    Delete(FlowFilter, Reply<u64>),
    Stats(Reply<SlowPathStats>),
    Nat(Reply<NatStats>),
    Trace(Vec<u8>, Reply<(u16, Trace)>),
    /// Something that a file of its own knows.
    Run(Job),
    Reviewed(Reply<Reviewed>),
    Shutdown(oneshot::Sender<()>),
}

type Job = Box<dyn FnOnce(&mut Workers) + Send>;

type Reply<T> = oneshot::Sender<Result<T, ManagerError>>;

/// Asks the manager; cheap to clone.
#[derive(Clone, Debug)]
pub struct ManagerHandle {
    requests: mpsc::Sender<Request>,
}

impl ManagerHandle {
    /// Connections that the filter wants, from a cursor on, at most `limit` (and [`MAX_PAGE`]).
    /// A listing of several pages is no snapshot: connections come and go between them.
    ///
    /// # Errors
    /// [`ManagerError::Worker`], [`ManagerError::Stopped`].
    pub async fn list_flows(
        &self,
        filter: FlowFilter,
        from: FlowCursor,
        limit: usize,
    ) -> Result<FlowPage, ManagerError> {
        self.ask(|reply| Request::List(filter, from, limit.clamp(1, MAX_PAGE), reply))
            .await
    }

    /// Ends the connections that the filter wants, and says how many. Those in hardware are
    /// gone when the switch has acknowledged it.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn delete_flows(&self, filter: FlowFilter) -> Result<u64, ManagerError> {
        self.ask(|reply| Request::Delete(filter, reply)).await
    }

    /// All counters.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn stats(&self) -> Result<SlowPathStats, ManagerError> {
        self.ask(Request::Stats).await
    }

    /// What masquerades use of their pools.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn nat(&self) -> Result<NatStats, ManagerError> {
        self.ask(Request::Nat).await
    }

    /// What would become of a frame from the switch, shunt header in front; and which worker
    /// said so: the one that has its connection, or would begin it. Nothing is changed.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn trace(&self, frame: Vec<u8>) -> Result<(u16, Trace), ManagerError> {
        self.ask(|reply| Request::Trace(frame, reply)).await
    }

    /// How far the workers are with their connections after a change of the tables: the least
    /// generation, and what all of them have still to take out of hardware.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn reviewed(&self) -> Result<Reviewed, ManagerError> {
        self.ask(Request::Reviewed).await
    }

    /// Stops the workers and closes the port; returns when that is done, also if it was already.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        if self.requests.send(Request::Shutdown(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, ManagerError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .await
            .map_err(|_| ManagerError::Stopped)?;
        answer.await.map_err(|_| ManagerError::Stopped)?
    }
}

/// A running slow path. It stops at [`ManagerHandle::shutdown`], or when this and every handle
/// is dropped.
#[derive(Debug)]
pub struct Manager {
    handle: ManagerHandle,
    thread: JoinHandle<()>,
}

impl Manager {
    /// Starts DPDK (once a process), opens the ports, and starts the workers. Blocks for some
    /// hundred milliseconds. `offload`: by worker, then by switch.
    ///
    /// # Errors
    /// [`ManagerError`], each naming what it is about.
    pub fn start(
        config: &SlowPathConfig,
        fib: &FibReaderFactory,
        offload: Vec<Vec<WorkerPort>>,
        exception: Vec<ExceptionPort>,
    ) -> Result<Self, ManagerError> {
        check(config, &offload, &exception)?;
        let devices = || config.switches.iter().map(|switch| &switch.device);
        let numbered = devices().enumerate();
        let eal = Eal::init(EalConfig {
            memory_mib: config.memory_mib,
            vdevs: numbered
                .map(|(n, device)| device.vdev(n, config.workers))
                .collect(),
            ..EalConfig::default()
        })?;
        let pool = Pool::new(&eal, "slowpath", config.buffers, DEFAULT_DATA_ROOM)?;
        let ports = devices().enumerate();
        let ports = ports.map(|(n, device)| open(&eal, &device.name(n), &pool, config.workers));
        let ports = ports.collect::<Result<_, _>>()?;
        Self::start_on(&eal, ports, pool, config, fib, offload, exception)
    }

    /// Starts the workers on ports that are open already, one for each switch; the configuration's
    /// devices, memory and buffers are those of the ports.
    ///
    /// # Errors
    /// As [`Manager::start`].
    pub fn start_on(
        eal: &Eal,
        ports: Vec<Port>,
        pool: Pool,
        config: &SlowPathConfig,
        fib: &FibReaderFactory,
        offload: Vec<Vec<WorkerPort>>,
        exception: Vec<ExceptionPort>,
    ) -> Result<Self, ManagerError> {
        check(config, &offload, &exception)?;
        let clock = Clock::system();
        let mut workers = Vec::new();
        // Workers agree on whose a connection is only if they hash alike.
        let mut seed = config.seed.unwrap_or_else(rand::random);
        let state = begin_records(config, seed, clock.now_ns());
        if let Some(state) = &state {
            seed = state.seed;
        }
        let quotas = SharedQuotas::new(config.workers, config.max_connections, seed);
        let quotas = Arc::new(quotas);
        let wires = wires(&ports, config.workers)?;
        let rings = wires.into_iter().zip(Peers::mesh(config.workers));
        let ends = rings.zip(offload.into_iter().zip(exception));
        for (n, ((wires, peers), (offload, exception))) in (0u16..).zip(ends) {
            let queues = Queues {
                wires,
                peers,
                pool,
                tables: fib.reader(),
            };
            let mut worker = Worker::shared(
                WorkerConfig {
                    max_connections: config.max_connections,
                    seed,
                },
                PortShare {
                    worker: n,
                    workers: config.workers,
                },
                Arc::clone(&quotas),
                fib.reader(),
                offload,
                exception,
            );
            worker.set_starting(config.restores);
            if let Some(state) = &state {
                let ports = config.seed.unwrap_or_else(rand::random);
                worker.keep_records(state.records(n), ports.wrapping_add(n.into()));
            }
            let (commands, inbox) = sync::sync_channel::<Command>(COMMANDS);
            let (clock, idle_sleep) = (clock.clone(), config.idle_sleep);
            let cpu = config.cpus.get(usize::from(n)).copied();
            let thread = shunt_dpdk::spawn_worker(eal, &format!("worker-{n}"), cpu, move |_| {
                run(worker, queues, &inbox, &clock, idle_sleep);
            })?;
            workers.push(WorkerThread { commands, thread });
        }
        let switches = names(config);
        let capacity = u64::from(config.max_connections) * u64::from(config.workers);
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let thread = std::thread::Builder::new()
            .name("slowpath".into())
            .spawn(move || {
                serve(
                    inbox,
                    Workers {
                        workers,
                        ports,
                        switches,
                        capacity,
                        clock,
                        state,
                    },
                )
            })
            .map_err(ManagerError::Spawn)?;
        Ok(Self {
            handle: ManagerHandle { requests },
            thread,
        })
    }

    /// What tasks ask with.
    pub fn handle(&self) -> ManagerHandle {
        self.handle.clone()
    }

    /// Stops the workers and waits until the port is closed.
    pub async fn shutdown(self) {
        self.handle.shutdown().await;
        let Self { handle, thread } = self;
        drop(handle);
        // It has answered: what is left of it is a return.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

fn names(config: &SlowPathConfig) -> Vec<String> {
    let switches = config.switches.iter();
    switches.map(|switch| switch.name.clone()).collect()
}

/// The file that connections are written down in; none if it cannot be had: forwarding is worth
/// more.
fn begin_records(config: &SlowPathConfig, seed: u64, now_ns: u64) -> Option<StateFile> {
    let path = config.state_file.as_ref()?;
    let (workers, connections) = (config.workers, config.max_connections);
    match StateFile::begin(path, workers, connections, seed, now_ns, &names(config)) {
        Ok(state) => Some(state),
        Err(error) => {
            tracing::error!(
                path = %path.display(),
                %error,
                "no state file: connections that are not in hardware will not outlive the daemon"
            );
            None
        }
    }
}

fn check(
    config: &SlowPathConfig,
    offload: &[Vec<WorkerPort>],
    exception: &[ExceptionPort],
) -> Result<(), ManagerError> {
    if !(1..=MAX_WORKERS).contains(&config.workers) {
        return Err(ManagerError::Workers(config.workers));
    }
    let switches = config.switches.len();
    if !(1..=MAX_SWITCHES).contains(&switches) {
        return Err(ManagerError::Switches(switches));
    }
    let wanted = usize::from(config.workers);
    let complete = offload.iter().all(|ports| ports.len() == switches);
    if offload.len() != wanted || !complete || exception.len() != wanted {
        return Err(ManagerError::Ports {
            workers: config.workers,
            switches,
        });
    }
    Ok(())
}

struct WorkerThread {
    commands: sync::SyncSender<Command>,
    thread: shunt_dpdk::Worker<()>,
}

struct Workers {
    workers: Vec<WorkerThread>,
    /// By switch.
    ports: Vec<Port>,
    /// Their names.
    switches: Vec<String>,
    capacity: u64,
    clock: Clock,
    /// Where connections are written down.
    state: Option<StateFile>,
}

fn serve(mut requests: mpsc::Receiver<Request>, mut workers: Workers) {
    let mut shutdown = None;
    while let Some(request) = requests.blocking_recv() {
        // Nobody may be left to hear the answer.
        match request {
            Request::List(filter, from, limit, reply) => {
                let _ = reply.send(workers.list(&filter, from, limit, u64::MAX));
            }
            Request::Delete(filter, reply) => {
                let _ = reply.send(workers.delete(&filter));
            }
            Request::Stats(reply) => {
                let _ = reply.send(workers.stats());
            }
            Request::Nat(reply) => {
                let _ = reply.send(workers.nat());
            }
            Request::Trace(frame, reply) => {
                let _ = reply.send(workers.trace(&frame));
            }
            Request::Run(job) => job(&mut workers),
            Request::Reviewed(reply) => {
                let _ = reply.send(workers.reviewed());
            }
            Request::Shutdown(reply) => {
                shutdown = Some(reply);
                break;
            }
        }
    }
    workers.stop();
    if let Some(reply) = shutdown {
        let _ = reply.send(());
    }
}

impl Workers {
    /// Has a worker do something between two bursts.
    fn ask<T: Send + 'static>(
        &self,
        n: u16,
        work: impl FnOnce(&mut Worker, u64) -> T + Send + 'static,
    ) -> Result<T, ManagerError> {
        let gone = ManagerError::Worker(n);
        let Some(worker) = self.workers.get(usize::from(n)) else {
            return Err(gone);
        };
        let (reply, answer) = sync::sync_channel(1);
        let command: Command = Box::new(move |worker, now_ns| {
            let _ = reply.try_send(work(worker, now_ns));
        });
        if worker.commands.try_send(command).is_err() {
            return Err(gone);
        }
        answer.recv_timeout(ANSWER_TIMEOUT).map_err(|_| gone)
    }

    fn numbers(&self) -> std::ops::Range<u16> {
        0..u16::try_from(self.workers.len()).unwrap_or(u16::MAX)
    }

    /// With at most so many scans.
    fn list(
        &self,
        filter: &FlowFilter,
        from: FlowCursor,
        limit: usize,
        mut scans: u64,
    ) -> Result<FlowPage, ManagerError> {
        let mut page = FlowPage::default();
        let mut slot = from.slot;
        for n in self.numbers().skip(usize::from(from.worker)) {
            loop {
                if scans == 0 {
                    page.next = Some(FlowCursor { worker: n, slot });
                    return Ok(page);
                }
                scans -= 1;
                let (filter, room) = (filter.clone(), limit - page.flows.len());
                let (flows, next) = self.ask(n, move |worker, now_ns| {
                    worker.list_flows(now_ns, &filter, slot, SCAN_SLOTS, room)
                })?;
                page.flows
                    .extend(flows.into_iter().map(|flow| FlowView { worker: n, ..flow }));
                let Some(next) = next else { break };
                slot = next;
                if page.flows.len() >= limit {
                    page.next = Some(FlowCursor { worker: n, slot });
                    return Ok(page);
                }
            }
            slot = 0;
            if page.flows.len() >= limit && usize::from(n) + 1 < self.workers.len() {
                page.next = Some(FlowCursor {
                    worker: n + 1,
                    slot: 0,
                });
                return Ok(page);
            }
        }
        Ok(page)
    }

    fn delete(&self, filter: &FlowFilter) -> Result<u64, ManagerError> {
        let mut deleted = 0;
        for n in self.numbers() {
            let mut from = Some(0);
            while let Some(slot) = from {
                let filter = filter.clone();
                let (count, next) = self.ask(n, move |worker, now_ns| {
                    worker.delete_flows(now_ns, &filter, slot, SCAN_SLOTS)
                })?;
                deleted += count;
                from = next;
            }
        }
        Ok(deleted)
    }

    fn stats(&self) -> Result<SlowPathStats, ManagerError> {
        let mut all = SlowPathStats {
            capacity: self.capacity,
            ..SlowPathStats::default()
        };
        for n in self.numbers() {
            let (counters, pools) =
                self.ask(n, |worker, _| (worker.stats().clone(), worker.pool_use()))?;
            let mut from = Some(0);
            while let Some(slot) = from {
                let (census, next) =
                    self.ask(n, move |worker, _| worker.census(slot, SCAN_SLOTS))?;
                all.census.merge(&census);
                from = next;
            }
            all.counters.merge(&counters);
            all.pools.extend(pools);
        }
        all.pools
            .sort_by_key(|pool| (pool.vpc, pool.address, pool.protocol));
        // Workers share addresses, not ports.
        all.pools.dedup_by(|next, first| {
            let of = |pool: &PoolUse| (pool.vpc, pool.address, pool.protocol);
            let same = of(next) == of(first);
            first.leased += if same { next.leased } else { 0 };
            same
        });
        all.ports = self.ports.iter().map(|port| port.stats().ok()).collect();
        Ok(all)
    }

    fn trace(&self, frame: &[u8]) -> Result<(u16, Trace), ManagerError> {
        let mut first = None;
        for n in self.numbers() {
            let frame = frame.to_vec();
            let trace = self.ask(n, move |worker, now_ns| worker.trace(now_ns, &frame))?;
            if trace.known {
                return Ok((n, trace));
            }
            first.get_or_insert(trace);
        }
        let (mut at, mut trace) = (0, first.ok_or(ManagerError::Worker(0))?);
        // Where the first one would have it go; fragments by way of where they meet.
        for _ in 0..MAX_HANDOVERS {
            let Verdict::Handover(owner) = trace.verdict else {
                break;
            };
            let frame = frame.to_vec();
            at = owner;
            trace = self.ask(at, move |worker, now_ns| {
                worker.trace_handed(now_ns, &frame)
            })?;
        }
        Ok((at, trace))
    }

    fn reviewed(&self) -> Result<Reviewed, ManagerError> {
        let mut all = Reviewed {
            generation: u64::MAX,
            ..Reviewed::default()
        };
        for n in self.numbers() {
            let one = self.ask(n, |worker, _| worker.reviewed())?;
            all.generation = all.generation.min(one.generation);
            for (sum, leaving) in all.leaving.iter_mut().zip(one.leaving) {
                *sum += leaving;
            }
        }
        Ok(all)
    }

    fn nat(&self) -> Result<NatStats, ManagerError> {
        let mut all = NatStats::default();
        for n in self.numbers() {
            let (used, counters) =
                self.ask(n, |worker, _| (worker.nat_use(), worker.stats().clone()))?;
            all.counters.merge(&counters);
            all.used.extend(used);
        }
        all.used.sort_by(|a, b| {
            (&a.rule, a.address, a.protocol).cmp(&(&b.rule, b.address, b.protocol))
        });
        all.used.dedup_by(|next, first| {
            let same = (&next.rule, next.address, next.protocol)
                == (&first.rule, first.address, first.protocol);
            first.leased += if same { next.leased } else { 0 };
            same
        });
        Ok(all)
    }

    fn stop(self) {
        for WorkerThread { commands, thread } in self.workers {
            drop(commands);
            if thread.join().is_err() {
                tracing::error!("a slow-path worker had panicked");
            }
        }
    }
}
