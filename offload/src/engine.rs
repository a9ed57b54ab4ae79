//! Starting the engine of one switch, and talking to it.

use std::time::Duration;

use p4runtime::p4::v1::IdleTimeoutNotification;
use shunt_p4::tables::flow_key_from_entry;
use shunt_p4::{FlowKey, VpcId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::adopt::ReadBack;
use crate::clock::Clock;
use crate::installer::{Control, Installer, Session};
use crate::ledger::BusyFlow;
use crate::queue::{InstallerPort, OffloadUnit};
use crate::sink::{FlowReading, FlowSink};
use crate::stats::OffloadStats;

/// Updates in one batch, by default.
pub const BATCH_UPDATES_MAX: usize = 1_000;
/// Batches in flight, by default: more only makes the switch's queue longer.
pub const IN_FLIGHT_MAX: usize = 4;
/// Units that the engine keeps, by default: twice the size of `flow4`.
pub const UNITS_MAX: usize = 2 * 1024 * 1024;
/// How long the switch may not answer before new units are refused, by default.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(5);
/// The first delay before the switch is tried again, by default.
pub const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest such delay, by default.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Messages to the engine that wait: reports of idle entries beyond it are dropped, the switch
/// repeats them.
pub const CONTROL_QUEUE: usize = 256;

/// Between two sweeps over the switch's counters, by default.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Entries a second that a sweep reads, by default: a twentieth of a core; a million entries take
/// 50 s.
pub const SWEEP_RATE: u32 = 20_000;
/// Keys that [`EngineRef::read`] asks for in one request.
pub const READ_KEYS_MAX: usize = 1_024;

/// How long [`EngineHandle::shutdown`] waits for batches in flight.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);

/// Entries that the switch's tables take, by its P4Info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Of `flow4`.
    pub flow4: u64,
    /// Of `flow6`.
    pub flow6: u64,
}

impl TableSizes {
    /// The switch alone knows: it is asked until it refuses.
    pub const UNKNOWN: Self = Self {
        flow4: u64::MAX,
        flow6: u64::MAX,
    };
}

/// How much of the switch's tables a VPC may have. The smaller one counts if both are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VpcShare {
    /// Connections.
    pub connections: Option<u32>,
    /// Of what fits into the larger of both tables; at most 100.
    pub percent: Option<u8>,
}

/// What the operator wants of the engine; may change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnginePolicy {
    /// Shares, by the VPC that connections are opened from; others may fill the tables.
    pub shares: Vec<(VpcId, VpcShare)>,
    /// Who had no packet in hardware for so long may be evicted when room is wanted; `None`:
    /// nobody.
    pub evict_idle: Option<Duration>,
}

/// The engine's limits, and its clock.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Updates in one batch, at least 2 (one unit).
    pub batch_updates_max: usize,
    /// Batches in flight, at least 1.
    pub in_flight_max: usize,
    /// Units that the engine keeps.
    pub units_max: usize,
    /// How long the switch may not answer before new units are refused.
    pub give_up_after: Duration,
    /// The first delay before the switch is tried again; it doubles.
    pub backoff_min: Duration,
    /// The longest such delay.
    pub backoff_max: Duration,
    /// The size of the switch's tables.
    pub tables: TableSizes,
    /// Between the starts of two sweeps over the switch's counters.
    pub sweep_interval: Duration,
    /// Entries a second that a sweep reads; a tenth of them while there is much to write.
    pub sweep_rate: u32,
    /// What the operator wants at first.
    pub policy: EnginePolicy,
    /// The workers' clock.
    pub clock: Clock,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            batch_updates_max: BATCH_UPDATES_MAX,
            in_flight_max: IN_FLIGHT_MAX,
            units_max: UNITS_MAX,
            give_up_after: GIVE_UP_AFTER,
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
            tables: TableSizes::UNKNOWN,
            sweep_interval: SWEEP_INTERVAL,
            sweep_rate: SWEEP_RATE,
            policy: EnginePolicy::default(),
            clock: Clock::system(),
        }
    }
}

/// The engine has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the offload engine has ended")]
pub struct EngineEnded;

/// The offload engine of one switch.
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Starts the engine's task on the current tokio runtime. It first reads back what the
    /// switch holds, removes what nobody wants, and then installs; as long as the switch does
    /// not answer (or has no pipeline, or another primary), it tries again. Ports are numbered
    /// in their order.
    pub fn start<S: FlowSink>(
        config: EngineConfig,
        ports: Vec<InstallerPort>,
        sink: S,
    ) -> EngineHandle {
        Self::start_with(config, ports, sink, None)
    }

    /// As [`Engine::start`], but what the switch holds at first is told, and is kept as far as
    /// it is adopted ([`EngineRef::adopt`]) before the [`ReadBack`] is dropped. Until then no
    /// command of a worker is taken.
    pub fn start_adopting<S: FlowSink>(
        config: EngineConfig,
        ports: Vec<InstallerPort>,
        sink: S,
    ) -> (EngineHandle, oneshot::Receiver<ReadBack>) {
        let (first, read_back) = oneshot::channel();
        let engine = Self::start_with(config, ports, sink, Some(first));
        (engine, read_back)
    }

    fn start_with<S: FlowSink>(
        config: EngineConfig,
        ports: Vec<InstallerPort>,
        sink: S,
        first: Option<oneshot::Sender<ReadBack>>,
    ) -> EngineHandle {
        let (control, controls) = mpsc::channel(CONTROL_QUEUE);
        let (session, sessions) = watch::channel(Session::Resync);
        let installer = Installer::new(config, ports, sink, controls, sessions, first);
        EngineHandle {
            engine: EngineRef { control, session },
            task: tokio::spawn(installer.run()),
        }
    }
}

/// The engine's owner; derefs to what clones of [`EngineRef`] can do. Dropping it ends the
/// engine without waiting for what is in flight.
#[derive(Debug)]
pub struct EngineHandle {
    engine: EngineRef,
    task: JoinHandle<()>,
}

impl std::ops::Deref for EngineHandle {
    type Target = EngineRef;

    fn deref(&self) -> &EngineRef {
        &self.engine
    }
}

impl EngineHandle {
    /// A reference that can be cloned and sent.
    pub fn engine(&self) -> EngineRef {
        self.engine.clone()
    }

    /// Ends the engine: takes no more commands, waits for what is in flight, for at most
    /// [`SHUTDOWN_PATIENCE`]. Entries stay in hardware. Workers' ports are closed then.
    pub async fn shutdown(mut self) {
        if self.engine.control.send(Control::Shutdown).await.is_ok() {
            // A switch that is gone answers nothing; dropping the handle ends the task.
            let _ = tokio::time::timeout(SHUTDOWN_PATIENCE, &mut self.task).await;
        }
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A way to talk to the engine.
#[derive(Clone, Debug)]
pub struct EngineRef {
    control: mpsc::Sender<Control>,
    session: watch::Sender<Session>,
}

impl EngineRef {
    /// Reports entries that no packet hit for their idle timeout (P4Runtime 9.1.8). Never
    /// waits; returns whether there was room.
    pub fn idle(&self, keys: Vec<FlowKey>) -> bool {
        self.control.try_send(Control::Idle(keys)).is_ok()
    }

    /// As [`EngineRef::idle`], of a notification as it comes from the stream; entries of other
    /// tables are passed over.
    pub fn idle_notification(&self, notification: &IdleTimeoutNotification) -> bool {
        let entries = notification.table_entry.iter();
        let keys: Vec<_> = entries
            .filter_map(|entry| flow_key_from_entry(entry).ok())
            .collect();
        keys.is_empty() || self.idle(keys)
    }

    /// The session with the switch is lost: writes nothing until [`EngineRef::resync`].
    /// Never waits; of several calls the last one counts.
    pub fn lost(&self) {
        self.session.send_replace(Session::Lost);
    }

    /// The session is there (again), primary and with its pipeline: reads back what the switch
    /// holds and repairs it. Returns before that is done; see [`EngineRef::settled`].
    pub fn resync(&self) {
        self.session.send_replace(Session::Resync);
    }

    /// The worker of that port has these connections, which it takes for installed. As long as a
    /// [`ReadBack`] is held; what of them the switch lacks is installed.
    ///
    /// # Errors
    /// [`EngineEnded`].
    pub async fn adopt(&self, port: usize, units: Vec<OffloadUnit>) -> Result<(), EngineEnded> {
        self.send(Control::Adopt(port, units)).await
    }

    /// Returns once nothing is queued, in flight or leaving, and the switch answers.
    ///
    /// # Errors
    /// [`EngineEnded`].
    pub async fn settled(&self) -> Result<(), EngineEnded> {
        let (done, settled) = oneshot::channel();
        self.send(Control::Settled(done)).await?;
        settled.await.map_err(|_| EngineEnded)
    }

    /// A snapshot of counts and latencies.
    ///
    /// # Errors
    /// [`EngineEnded`].
    pub async fn stats(&self) -> Result<OffloadStats, EngineEnded> {
        let (answer, stats) = oneshot::channel();
        self.send(Control::Stats(answer)).await?;
        stats.await.map_err(|_| EngineEnded)
    }

    /// Changes shares and idleness. Who has more than its new share keeps it until it leaves, or
    /// is evicted for idleness.
    ///
    /// # Errors
    /// [`EngineEnded`].
    pub async fn set_policy(&self, policy: EnginePolicy) -> Result<(), EngineEnded> {
        self.send(Control::Policy(policy)).await
    }

    /// What the switch counts at these keys now, in their order; `None`: nothing is known. What
    /// it does not answer, or is asked by too many at once, is said as it was read last.
    ///
    /// # Errors
    /// [`EngineEnded`].
    pub async fn read(&self, keys: &[FlowKey]) -> Result<Vec<Option<FlowReading>>, EngineEnded> {
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(READ_KEYS_MAX) {
            let (answer, found) = oneshot::channel();
            self.send(Control::Read(keys.to_vec(), answer)).await?;
            all.append(&mut found.await.map_err(|_| EngineEnded)?);
        }
        Ok(all)
    }

    /// The connections of which the switch forwarded most between the last readings of its
    /// counters, at most `most` and [`BUSIEST_MAX`](crate::BUSIEST_MAX). Counters are read more
    /// often for some seconds, at no higher rate.
    ///
    /// # Errors
    /// [`EngineEnded`].
    pub async fn busiest(&self, most: usize) -> Result<Vec<BusyFlow>, EngineEnded> {
        let (answer, flows) = oneshot::channel();
        self.send(Control::Busiest(most, answer)).await?;
        flows.await.map_err(|_| EngineEnded)
    }

    async fn send(&self, control: Control) -> Result<(), EngineEnded> {
        self.control.send(control).await.map_err(|_| EngineEnded)
    }
}
