//! The wiring of the daemon: everything that runs, and who talks to whom.
//!
//! ```text
//!        taps ◀─────────────▶ exception ◀═══ rings ═══▶ worker ◀── DPDK ──▶ slow-path port
//!          ▲                      │ resolve               ▲ ║                (of each switch)
//!   kernel │ netlink              ▼                  fib  ║ ║ offload rings
//!   ───────┴──────▶ mirror ──▶ pump ──┬── left-right ═════╝ ▼
//!                     ▲    batches    │                  engine ──────┐ flow4, flow6
//!                     │ resolve       └─▶ gate ──▶ session ─────────┐ │
//!                     └──────────────────────────────┘              ▼ ▼
//!   shunt ◀── unix, TLS ── api (asks all of them)                 P4Runtime ──▶ switch
//! ```
//! Gate, session and engine are there once for each switch, and wait for no other one's.
//!
//! | task        | runs as               | ends when                          |
//! |-------------|-----------------------|------------------------------------|
//! | mirror      | tokio task            | `MirrorHandle::shutdown`           |
//! | pump        | tokio task            | the mirror's channel closes        |
//! | gates       | tokio tasks           | `stop`                             |
//! | sessions    | tokio tasks           | `stop`                             |
//! | engines     | tokio tasks           | `EngineHandle::shutdown`           |
//! | exception   | tokio tasks           | `ExceptionPath::shutdown`          |
//! | worker      | thread (DPDK)         | `Manager::shutdown`                |
//! | pools       | tokio task            | `stop`                             |
//! | adopter     | tokio task            | all is taken back, or `stop`       |
//! | api         | tokio task            | `stop`                             |
//! | metrics     | tokio task            | `stop`                             |
//!
//! Started in the order configuration, socket, taps, slow path, switch, mirror, engine, session,
//! exception, API; stopped in the reverse, within [`STOP_WITHIN`]. Entries stay in the switch:
//! what it forwards goes on while the daemon is away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use p4runtime::p4info::parse_p4info_text;
use shunt_offload::{Engine, EngineConfig, EngineHandle, P4RuntimeSink, TableSizes};
use shunt_p4::SwitchIndex;
use shunt_p4::tables::{Flow4, Flow6, P4Table as _};
use shunt_slowpath::{FibWriter, Manager, ManagerError, PortDevice, SlowPathConfig, SwitchSide};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::adopt;
use crate::api::{self, Api, ApiSocket, Listeners, SocketMode, TlsListener};
use crate::config::{ApiConfig, Config, Configuration};
use crate::exception;
use crate::gates::Gates;
use crate::kernel::{
    KernelSetup, Mirror, MirrorConfig, MirrorHandle, RECEIVE_BUFFER_BYTES, RESYNC_INTERVAL,
    SetupError,
};
use crate::logging::LogLevel;
use crate::metrics::{Exporter, MetricsError};
use crate::pools;
use crate::pump::{Applied, Convergence, Pump};
use crate::service;
use crate::switch::{Connected, Member, Scope, SessionParts, SwitchError, SwitchHandle, Switches};
use crate::taps::{Taps, tap_configs};

/// Everything has stopped by then, or is left to the process's end.
const STOP_WITHIN: Duration = Duration::from_millis(1800);
/// Batches of the mirror that wait for the pump.
const BATCH_QUEUE: usize = 16;

/// Why the daemon did not start; each message names the thing and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The API's socket.
    #[error(transparent)]
    Socket(#[from] api::SocketError),
    /// The API over TCP.
    #[error(transparent)]
    Tls(#[from] api::TlsError),
    /// The metrics' address.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The slow path's device is not there.
    #[error(
        "there is no network device {0:?} (slow_path.device, or slow_path_device of a switch): \
         create it, or name the one that leads to the switch's slow-path port"
    )]
    NoDevice(String),
    /// The kernel's side of the interfaces.
    #[error(transparent)]
    Kernel(#[from] SetupError),
    /// The slow path.
    #[error("the slow path on {devices} did not start: {source}")]
    SlowPath {
        /// Its devices.
        devices: String,
        /// Why.
        source: ManagerError,
    },
    /// The switch.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The kernel mirror.
    #[error("the kernel's routes cannot be mirrored: {0}")]
    Mirror(crate::kernel::SocketError),
    /// A signal came first.
    #[error("stopped while starting")]
    Stopped,
}

/// Runs until `stop`.
///
/// # Errors
/// [`StartError`]; nothing is left behind then.
pub async fn run(
    configuration: Configuration,
    log: LogLevel,
    switch_timeout: Duration,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let configuration = Arc::new(configuration);
    let config = configuration.current().config;
    let entrances = Entrances::open(&config.api).await?;
    let exporter = match config.metrics {
        Some(address) => Some(Exporter::start(address).await?),
        None => None,
    };
    for device in config.switches.iter().map(|switch| &switch.device) {
        if nix::net::if_::if_nametoindex(device.as_str()).is_err() {
            return Err(StartError::NoDevice(device.clone()));
        }
    }
    let kernel = KernelSetup::create(&tap_configs(&config)).await?;
    for warning in &kernel.warnings {
        tracing::warn!("{warning}");
    }
    let taps = Taps::new(kernel);

    let starting = Running::start(
        &configuration,
        log,
        &taps,
        entrances,
        exporter,
        switch_timeout,
    );
    let result = match stop.run_until_cancelled(starting).await {
        None => Err(StartError::Stopped),
        Some(Err(error)) => Err(error),
        Some(Ok(running)) => {
            tracing::info!(socket = %config.api.socket.display(), "ready");
            service::ready();
            stop.cancelled().await;
            tracing::info!("stopping");
            service::stopping();
            if tokio::time::timeout(STOP_WITHIN, running.stop())
                .await
                .is_err()
            {
                tracing::warn!("not everything stopped in {STOP_WITHIN:?}; ending all the same");
            }
            Ok(())
        }
    };
    taps.remove().await;
    result
}

/// Where the API listens; the sockets' files are removed when it is dropped.
struct Entrances {
    socket: ApiSocket,
    read_only_socket: Option<ApiSocket>,
    tls: Option<TlsListener>,
}

impl Entrances {
    async fn open(config: &ApiConfig) -> Result<Self, StartError> {
        Ok(Self {
            socket: ApiSocket::bind(&config.socket, SocketMode::Group).await?,
            read_only_socket: match &config.read_only_socket {
                Some(path) => Some(ApiSocket::bind(path, SocketMode::Everybody).await?),
                None => None,
            },
            tls: match &config.tls {
                Some(config) => Some(TlsListener::bind(config).await?),
                None => None,
            },
        })
    }

    /// The listeners, for the first who asks.
    fn take_listeners(&mut self) -> Option<Listeners> {
        let read_only = self.read_only_socket.as_mut();
        Some(Listeners {
            socket: self.socket.take_listener()?,
            read_only_socket: read_only.and_then(ApiSocket::take_listener),
            tls: self.tls.take(),
        })
    }
}

/// Everything that runs.
struct Running {
    stop: CancellationToken,
    slow_path: Manager,
    mirror: MirrorHandle,
    engines: Vec<EngineHandle>,
    taps: Taps,
    tasks: Vec<JoinHandle<()>>,
    /// Removed when dropped.
    _entrances: Entrances,
}

impl Running {
    async fn start(
        configuration: &Arc<Configuration>,
        log: LogLevel,
        taps: &Taps,
        mut entrances: Entrances,
        exporter: Option<Exporter>,
        switch_timeout: Duration,
    ) -> Result<Self, StartError> {
        let started = Instant::now();
        let stop = CancellationToken::new();
        let config = &configuration.current().config;

        // The slow path: its tables are empty and drop everything until the pump has filled them.
        let (fib, readers) = FibWriter::new();
        let mut worker_ports = Vec::new();
        let mut installer_ports: Vec<_> = config.switches.iter().map(|_| Vec::new()).collect();
        let (mut exception_ports, mut exception_ends) = (Vec::new(), Vec::new());
        for _ in 0..config.slow_path.workers {
            let ports = installer_ports.iter_mut().map(|installers| {
                let (worker, installer) = shunt_offload::channel(shunt_offload::QUEUE_CAPACITY);
                installers.push(installer);
                worker
            });
            worker_ports.push(ports.collect());
            let (port, up, down) = shunt_slowpath::exception::channel();
            exception_ports.push(port);
            exception_ends.push((up, down));
        }
        let slow_path = start_slow_path(config, readers, worker_ports, exception_ports).await?;

        // The switches: refuses to start without any.
        let connected = match Connected::open_all(&config.switches, switch_timeout).await {
            Ok(connected) => connected,
            Err(error) => {
                slow_path.shutdown().await;
                return Err(error.into());
            }
        };

        // The kernel's view, from here on in batches.
        let (batches_in, batches) = mpsc::channel(BATCH_QUEUE);
        let mirror = match Mirror::start(mirror_config(config, taps).await, batches_in).await {
            Ok(mirror) => mirror,
            Err(error) => {
                slow_path.shutdown().await;
                return Err(StartError::Mirror(error));
            }
        };

        let (mut engines, mut members) = (Vec::new(), Vec::new());
        let (mut read_backs, mut sessions) = (Vec::new(), Vec::new());
        let each = connected.into_iter().zip(installer_ports);
        for (place, (connected, installer_ports)) in each.enumerate() {
            let sink = P4RuntimeSink::new(connected.client().clone());
            let engine_config = EngineConfig {
                tables: flow_tables(),
                policy: config.engine.clone(),
                ..EngineConfig::default()
            };
            let (engine, read_back) = Engine::start_adopting(engine_config, installer_ports, sink);
            let resolver = mirror.clone();
            let parts = SessionParts {
                meters: config.punt_meters.clone(),
                scope: Scope::Of(SwitchIndex::of(place)),
                peerings: Some(config.policy.peerings.clone()),
                engine: Some(engine.engine()),
                resolver: Arc::new(move |interface, address| resolver.resolve(interface, address)),
                stop: stop.clone(),
            };
            let switch = connected.switch().clone();
            let (handle, session) = SwitchHandle::start(connected, parts);
            members.push(Member {
                switch,
                handle,
                engine: Some(engine.engine()),
            });
            read_backs.push((engine.engine(), read_back));
            engines.push(engine);
            sessions.push(session);
        }
        let switches = Switches::new(members);
        let (gates, keepers) = Gates::start(&switches, &slow_path.handle(), &stop);
        let (synchronised_in, synchronised) = watch::channel(false);
        let (applied_in, applied) = watch::channel(Applied::default());
        let (refused_in, refused) = watch::channel(None);
        let (taken_back_in, taken_back) = watch::channel(0);
        let pump = Pump {
            taken_back,
            fib,
            contradicting: 0,
            switches: switches.clone(),
            gates: gates.clone(),
            configuration: configuration.watch(),
            taps: taps.clone(),
            mirror: mirror.clone(),
            batches,
            synchronised: synchronised_in,
            applied: applied_in,
            refused: refused_in,
        };
        let pump = tokio::spawn(pump.run());
        let convergence = Convergence {
            refused,
            applied,
            slow_path: slow_path.handle(),
            switches: switches.clone(),
            gates,
        };
        let resolver = mirror.clone();
        taps.serve(|taps| exception::run(taps, exception_ends, resolver))
            .await;
        let (restart, adopter) = adopt::start(
            slow_path.handle(),
            read_backs,
            synchronised.clone(),
            taken_back_in,
            stop.clone(),
        );

        let (pools, pools_task) =
            pools::start(configuration.watch(), slow_path.handle(), stop.clone());
        let listeners = entrances.take_listeners();
        let api = Api {
            configuration: Arc::clone(configuration),
            convergence,
            log,
            started,
            switches,
            mirror: mirror.clone(),
            synchronised,
            slow_path: slow_path.handle(),
            pools,
            restart,
            top: api::Top::default(),
        };
        let metrics =
            exporter.map(|exporter| tokio::spawn(exporter.serve(Some(api.clone()), stop.clone())));
        let stop_api = stop.clone();
        let api = tokio::spawn(async move {
            let Some(listeners) = listeners else { return };
            if let Err(error) = api::serve(api, listeners, stop_api).await {
                tracing::error!(%error, "the API has ended");
            }
        });
        let watch = service::watchdog().map(|every| {
            let (slow_path, mirror) = (slow_path.handle(), mirror.clone());
            tokio::spawn(service::watch(every, slow_path, mirror, stop.clone()))
        });
        Ok(Self {
            stop,
            slow_path,
            mirror,
            engines,
            taps: taps.clone(),
            tasks: [api, pump, pools_task, adopter]
                .into_iter()
                .chain(sessions)
                .chain(keepers)
                .chain(metrics)
                .chain(watch)
                .collect(),
            _entrances: entrances,
        })
    }

    /// From the edges inwards: nobody is asked who has stopped.
    async fn stop(self) {
        self.taps.silence().await;
        self.slow_path.shutdown().await;
        self.mirror.shutdown().await;
        self.stop.cancel();
        let engines = self.engines.into_iter().map(EngineHandle::shutdown);
        futures::future::join_all(engines).await;
        for task in self.tasks {
            let _ = task.await; // a panic there is in the log
        }
    }
}

/// The sizes of the flow tables, by the program that the switch is given.
fn flow_tables() -> TableSizes {
    let info = parse_p4info_text(shunt_p4::P4INFO).unwrap_or_default();
    let size = |id: u32| {
        let table = info.tables.iter().find(|table| {
            let preamble = table.preamble.as_ref();
            preamble.is_some_and(|preamble| preamble.id == id)
        });
        table.and_then(|table| u64::try_from(table.size).ok())
    };
    TableSizes {
        flow4: size(Flow4::ID).unwrap_or(TableSizes::UNKNOWN.flow4),
        flow6: size(Flow6::ID).unwrap_or(TableSizes::UNKNOWN.flow6),
    }
}

async fn mirror_config(config: &Config, taps: &Taps) -> MirrorConfig {
    let vpcs = config.vpcs.iter();
    MirrorConfig {
        interfaces: taps.interfaces().await,
        tables: vpcs.map(|vpc| (vpc.vpc.id, vpc.table)).collect(),
        receive_buffer: RECEIVE_BUFFER_BYTES,
        resync_interval: RESYNC_INTERVAL,
    }
}

async fn start_slow_path(
    config: &Config,
    readers: shunt_slowpath::FibReaderFactory,
    offload: Vec<Vec<shunt_offload::WorkerPort>>,
    exception: Vec<shunt_slowpath::ExceptionPort>,
) -> Result<Manager, StartError> {
    let slow_path = &config.slow_path;
    let switches = config.switches.iter().map(|switch| SwitchSide {
        name: switch.name.clone(),
        device: PortDevice::Interface(switch.device.clone()),
    });
    let settings = SlowPathConfig {
        memory_mib: slow_path.memory_mb,
        max_connections: slow_path.connections,
        workers: slow_path.workers,
        cpus: slow_path.cpus.clone(),
        state_file: slow_path.state_file.clone(),
        restores: true,
        ..SlowPathConfig::of(switches.collect())
    };
    // DPDK takes its time, and must not hold up signals.
    let started = tokio::task::spawn_blocking(move || {
        Manager::start(&settings, &readers, offload, exception)
    });
    let failed = |source| StartError::SlowPath {
        devices: config
            .switches
            .iter()
            .map(|switch| format!("{:?}", switch.device))
            .collect::<Vec<_>>()
            .join(", "),
        source,
    };
    match started.await {
        Ok(manager) => manager.map_err(failed),
        Err(_) => Err(failed(ManagerError::Stopped)),
    }
}
