//! The session with one switch, from the first connection to the daemon's end.
//!
//! ```text
//!           ┌────────────── stream lost ◀───────────────┐
//!           ▼                                           │
//!   connect, arbitrate ─▶ compare cookie, push ─▶ read back, diff ─▶ write what differs,
//!           ▲                                           ▲            then what comes
//!           └── the other primary left ◀── backup ◀─────┴── on a timer ──┘
//! ```
//! One task owns the wanted and the held state. Whatever it waits for, it goes on taking over
//! changes, so that nobody waits for a switch that is slow or away.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use p4runtime::client::{
    Arbitration, Backoff, Client, ClientConfig, ClientError, PipelineParts, WriteError,
};
use p4runtime::p4::v1::{Entity, IdleTimeoutNotification, TableEntry, entity};
use shunt_offload::EngineRef;
use shunt_p4::tables::{AnyEntry, Flow4, Flow6, P4Table, flow_key_from_entry};
use shunt_p4::{FlowKey, InterfaceId, NetworkOp};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::error::SwitchError;
use super::ledger::{Ledger, Phase};
use super::lower::Lowering;
use super::pipeline::{self, Loaded};
use super::view::{SwitchState, SwitchView};
use crate::config::{PuntMeter, Switch};

/// Between two comparisons of everything with the switch.
const RESYNC_INTERVAL: Duration = Duration::from_secs(300);
/// Between two questions whether the switch still answers: a hung one keeps its connection.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// Without an answer for so long, the session is lost.
const HEARTBEAT_WITHIN: Duration = Duration::from_secs(10);
/// Between two requests to resolve a tunnel's remote end point.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);
/// Refusals of one write that are logged; the others are counted.
const REFUSALS_LOGGED_MAX: usize = 8;

/// Asks the kernel for a neighbour.
pub type Resolver = Arc<dyn Fn(InterfaceId, IpAddr) + Send + Sync>;

/// A switch that has our pipeline and takes our writes.
#[derive(Debug)]
pub struct Connected {
    client: Client,
    switch: Switch,
}

impl Connected {
    /// Connects, becomes the primary and pushes the pipeline; tries for `timeout`.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn open(switch: &Switch, timeout: Duration) -> Result<Self, SwitchError> {
        let begun = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            let tried = tokio::time::timeout(left, Self::once(switch)).await;
            let error = match tried {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(SwitchError::Refused { source, .. })) if source.is_transient() => source,
                Ok(Err(error)) => return Err(error),
                Err(_) => ClientError::Timeout {
                    rpc: "connecting",
                    address: switch.address.clone(),
                    timeout: left,
                },
            };
            let left = timeout.saturating_sub(begun.elapsed());
            let delay = backoff.next_delay().filter(|delay| *delay < left);
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => {
                    return Err(SwitchError::Unreachable {
                        name: switch.name.clone(),
                        address: switch.address.clone(),
                        tried: Duration::from_millis(millis(begun.elapsed())),
                        source: error,
                    });
                }
            }
        }
    }

    async fn once(switch: &Switch) -> Result<Self, SwitchError> {
        let refused = |source| SwitchError::Refused {
            name: switch.name.clone(),
            address: switch.address.clone(),
            source,
        };
        let config = ClientConfig::new(&switch.address, switch.device_id, election_id(0));
        let client = Client::connect(config).await.map_err(refused)?;
        // Somebody started this daemon: it takes over, once.
        match client.become_primary().await {
            Err(ClientError::NotPrimary {
                primary: Some(primary),
                ..
            }) => {
                tracing::warn!(
                    switch = switch.name,
                    primary,
                    "another controller is the primary: taking over"
                );
                let id = primary.saturating_add(1);
                client.become_primary_as(id).await.map_err(refused)?;
            }
            other => other.map_err(refused)?,
        }
        let loaded = pipeline::load(&client, switch).await?;
        tracing::info!(switch = switch.name, pipeline = ?loaded, "connected");
        Ok(Self {
            client,
            switch: switch.clone(),
        })
    }

    /// The client: clones share connection and role.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Starts the session's task.
    pub fn run(
        self,
        meters: Vec<PuntMeter>,
        engine: EngineRef,
        resolver: Resolver,
        ops: mpsc::Receiver<Vec<NetworkOp>>,
        view: watch::Sender<SwitchView>,
        stop: CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        let lowering = Lowering::new(self.switch.slow_path_port, meters);
        let mut ledger = Ledger::default();
        ledger.want(lowering.fixed());
        let session = Session {
            arbitration: self.client.arbitration(),
            client: self.client,
            switch: self.switch,
            lowering,
            ledger,
            engine,
            resolver,
            ops,
            view,
            stop,
            applied: 0,
            rival: 0,
        };
        tokio::spawn(session.run())
    }
}

/// Above every id that this host's daemons have used before: microseconds since 1970.
fn election_id(above: u128) -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| now.as_micros())
        .max(above.saturating_add(1))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why the session's present part is over.
enum End {
    Stopped,
    Lost(String),
    /// Another controller has taken over.
    Demoted(Option<u128>),
}

struct Session {
    client: Client,
    switch: Switch,
    arbitration: watch::Receiver<Arbitration>,
    lowering: Lowering,
    ledger: Ledger,
    engine: EngineRef,
    resolver: Resolver,
    ops: mpsc::Receiver<Vec<NetworkOp>>,
    view: watch::Sender<SwitchView>,
    stop: CancellationToken,
    applied: u64,
    /// The highest election id of another controller: the next bid has to be above it, also
    /// when that one has gone (P4Runtime 5.3).
    rival: u128,
}

impl Session {
    async fn run(mut self) {
        if let Some(mut idle) = self.client.take_idle_timeouts() {
            let engine = self.engine.clone();
            let stop = self.stop.clone();
            tokio::spawn(async move {
                while let Some(Some(notification)) = stop.run_until_cancelled(idle.recv()).await {
                    let keys = idle_keys(&notification);
                    if !engine.idle(keys) {
                        // The switch says it again.
                        tracing::debug!("the engine is too busy for idle notifications");
                    }
                }
            });
        }
        self.view.send_modify(|view| view.sessions = 1);
        loop {
            let end = self.attend().await;
            self.engine.lost();
            let mut reason = match end {
                End::Stopped => return,
                End::Lost(reason) => reason,
                End::Demoted(primary) => {
                    if self.stand_by(primary).await.is_err() {
                        return;
                    }
                    "the other controller has left".to_owned()
                }
            };
            tracing::warn!(switch = self.switch.name, reason, "session lost");
            let mut backoff = Backoff::default();
            loop {
                self.view.send_modify(|view| {
                    view.state = SwitchState::Connecting;
                    view.last_error = Some(reason.clone());
                });
                match self.begin().await {
                    Err(End::Stopped) => return,
                    Err(End::Lost(error)) => reason = error,
                    Err(End::Demoted(primary)) => {
                        if self.stand_by(primary).await.is_err() {
                            return;
                        }
                        reason = "the other controller has left".to_owned();
                    }
                    Ok(()) => break,
                }
                let delay = backoff.next_delay().unwrap_or(RESOLVE_INTERVAL);
                if self.during(tokio::time::sleep(delay)).await.is_err() {
                    return;
                }
            }
            self.view.send_modify(|view| view.sessions += 1);
        }
    }

    /// Awaits something that is not ours while changes are taken over. `Err`: stopped.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return Ok(result),
                ops = self.ops.recv() => self.take(ops)?,
                () = self.stop.cancelled() => return Err(End::Stopped),
            }
        }
    }

    fn take(&mut self, ops: Option<Vec<NetworkOp>>) -> Result<(), End> {
        let Some(ops) = ops else {
            return Err(End::Stopped);
        };
        let changes = self.lowering.apply(ops);
        self.ledger.want(changes);
        self.applied += 1;
        self.resolve();
        Ok(())
    }

    fn resolve(&self) {
        for (interface, address) in self.lowering.unresolved().values().flatten() {
            (self.resolver)(*interface, *address);
        }
    }

    fn publish(&self, state: SwitchState) {
        self.view.send_modify(|view| {
            view.state = state;
            view.entries = self.ledger.wanted_count() as u64;
            view.pending = self.ledger.pending_count() as u64;
            view.refused = self.ledger.refused_count() as u64;
            view.tables = self
                .ledger
                .held_by_table()
                .iter()
                .map(|(t, n)| (*t, *n))
                .collect();
            view.applied = self.applied;
            view.unresolved = self.lowering.unresolved().keys().copied().collect();
            view.unresolved.sort_unstable();
            if state == SwitchState::Ready {
                view.pipeline_cookie = Some(shunt_p4::pipeline_cookie());
                if view.refused == 0 {
                    view.last_error = None;
                }
            }
        });
    }

    /// A new stream, the primary role, the pipeline.
    async fn begin(&mut self) -> Result<(), End> {
        let client = self.client.clone();
        let id = election_id(client.election_id().max(self.rival));
        client.close_stream("reconnecting");
        let primary = async { client.become_primary_as(id).await };
        match self.during(primary).await? {
            Ok(()) => {}
            Err(ClientError::NotPrimary { primary, .. }) => return Err(End::Demoted(primary)),
            Err(error) => return Err(End::Lost(error.to_string())),
        }
        self.publish(SwitchState::Pushing);
        let client = self.client.clone();
        let switch = self.switch.clone();
        let loaded = self.during(async move { pipeline::load(&client, &switch).await });
        match loaded.await? {
            Ok(loaded) => {
                if loaded == Loaded::Pushed {
                    tracing::info!(switch = self.switch.name, "the pipeline was pushed again");
                }
                Ok(())
            }
            Err(error) => Err(End::Lost(error.to_string())),
        }
    }

    /// Reads back, repairs, and then writes what comes, until something ends it.
    async fn attend(&mut self) -> End {
        match self.attended().await {
            Ok(()) => End::Stopped,
            Err(end) => end,
        }
    }

    async fn attended(&mut self) -> Result<(), End> {
        self.read_back().await?;
        self.engine.resync();
        let mut resync = tokio::time::interval(RESYNC_INTERVAL);
        resync.reset();
        let mut resolve = tokio::time::interval(RESOLVE_INTERVAL);
        let mut heartbeat = tokio::time::interval(HEARTBEAT_INTERVAL);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.flush().await?;
            self.publish(SwitchState::Ready);
            let retry = self.ledger.next_retry();
            tokio::select! {
                ops = self.ops.recv() => self.take(ops)?,
                () = self.stop.cancelled() => return Err(End::Stopped),
                changed = self.arbitration.changed() => {
                    if changed.is_err() {
                        return Err(End::Stopped);
                    }
                    self.role_changed()?;
                }
                _ = resync.tick() => self.read_back().await?,
                _ = resolve.tick() => self.resolve(),
                _ = heartbeat.tick() => self.probe().await?,
                () = until(retry) => {}
            }
        }
    }

    /// Asks for the pipeline's cookie, the cheapest question there is.
    async fn probe(&mut self) -> Result<(), End> {
        let client = self.client.clone();
        let ask = async move { client.get_pipeline(PipelineParts::CookieOnly).await };
        let answer = tokio::time::timeout(HEARTBEAT_WITHIN, ask);
        match self.during(answer).await? {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(End::Lost(error.to_string())),
            Err(_) => {
                let seconds = HEARTBEAT_WITHIN.as_secs();
                Err(End::Lost(format!("it has not answered for {seconds} s")))
            }
        }
    }

    fn role_changed(&mut self) -> Result<(), End> {
        match self.arbitration.borrow_and_update().clone() {
            Arbitration::Primary | Arbitration::Pending => Ok(()),
            Arbitration::Lost { reason } => Err(End::Lost(reason)),
            Arbitration::Backup { primary } => Err(End::Demoted(primary)),
        }
    }

    async fn read_back(&mut self) -> Result<(), End> {
        self.publish(SwitchState::Repairing);
        let client = self.client.clone();
        let entries = self.during(async move { read_own_tables(&client).await });
        let entries = entries
            .await?
            .map_err(|error| End::Lost(error.to_string()))?;
        self.ledger.read_back(entries);
        if self.ledger.pending_count() > 0 {
            tracing::info!(
                switch = self.switch.name,
                differences = self.ledger.pending_count(),
                "read back"
            );
        }
        Ok(())
    }

    /// Writes until nothing is due.
    async fn flush(&mut self) -> Result<(), End> {
        while let Some(phase) = self.ledger.next_phase(Instant::now()) {
            let Phase { updates, sent } = phase;
            let client = self.client.clone();
            let written = self.during(async move { client.write(&updates).await });
            let refusals = match written.await? {
                Ok(()) => self.ledger.answered(sent, None, Instant::now()),
                Err(WriteError::Batch(batch)) => {
                    self.ledger
                        .answered(sent, Some(&batch.errors), Instant::now())
                }
                // What was done of it is not known: read back.
                Err(WriteError::Failed { source, .. }) => {
                    return Err(match source {
                        ClientError::NotPrimary { primary, .. } => End::Demoted(primary),
                        other => End::Lost(other.to_string()),
                    });
                }
            };
            self.report(refusals);
        }
        Ok(())
    }

    fn report(&self, refusals: Vec<String>) {
        for refusal in refusals.iter().take(REFUSALS_LOGGED_MAX) {
            tracing::warn!(switch = self.switch.name, "refused: {refusal}");
        }
        if refusals.len() > REFUSALS_LOGGED_MAX {
            tracing::warn!(
                switch = self.switch.name,
                "refused: {} more",
                refusals.len() - REFUSALS_LOGGED_MAX
            );
        }
        if let Some(last) = refusals.into_iter().next_back() {
            self.view.send_modify(|view| view.last_error = Some(last));
        }
    }

    /// Another controller has taken over, and means it: wait until it leaves.
    async fn stand_by(&mut self, primary: Option<u128>) -> Result<(), End> {
        let Some(mut id) = primary else {
            return Ok(());
        };
        loop {
            self.rival = self.rival.max(id);
            let reason = format!("another controller (election id {id}) has taken over");
            tracing::warn!(switch = self.switch.name, reason, "standing by");
            self.publish(SwitchState::Backup);
            self.view.send_modify(|view| view.last_error = Some(reason));
            let mut arbitration = self.arbitration.clone();
            let changed = self.during(async move {
                arbitration
                    .changed()
                    .await
                    .map(|()| arbitration.borrow_and_update().clone())
            });
            match changed.await? {
                Err(_) => return Err(End::Stopped),
                Ok(Arbitration::Backup { primary: Some(now) }) => id = now,
                Ok(_) => return Ok(()),
            }
            self.arbitration.mark_unchanged();
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn idle_keys(notification: &IdleTimeoutNotification) -> Vec<FlowKey> {
    let entries = notification.table_entry.iter();
    entries
        .filter_map(|entry| flow_key_from_entry(entry).ok())
        .collect()
}

/// All entries but the flows, without default entries.
async fn read_own_tables(client: &Client) -> Result<Vec<TableEntry>, ClientError> {
    let own = AnyEntry::TABLES
        .iter()
        .map(|(_, id)| *id)
        .filter(|id| *id != Flow4::ID && *id != Flow6::ID);
    let wildcards = own
        .map(|table_id| Entity {
            entity: Some(entity::Entity::TableEntry(TableEntry {
                table_id,
                ..Default::default()
            })),
        })
        .collect();
    let entities = client.read(wildcards).await?;
    Ok(entities
        .into_iter()
        .filter_map(|entity| match entity.entity {
            Some(entity::Entity::TableEntry(entry)) if !entry.is_default_action => Some(entry),
            _ => None,
        })
        .collect())
}
