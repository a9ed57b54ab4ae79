//! The session with one switch, from the first connection to the daemon's end.
//!
//! ```text
//!           ┌────────────── stream lost ◀───────────────┐
//!           ▼                                           │
//!   connect, arbitrate ─▶ compare cookie, push ─▶ read back, diff ─▶ write what differs,
//!           ▲                                           ▲            then what comes
//!           └── the other primary left ◀── backup ◀─────┴── on a timer, on demand ──┘
//! ```
//! One task owns the wanted and the held state. Whatever it waits for, it goes on taking over
//! changes, so that nobody waits for a switch that is slow or away. It writes nothing before
//! the whole of the network has been said once: what a predecessor left in the switch is
//! right until then, as far as anybody knows.

mod commands;
mod standing;

use std::net::IpAddr;
use std::sync::Arc;

use p4runtime::client::{Arbitration, Backoff, Client, ClientError, PipelineParts, WriteError};
use p4runtime::p4::v1::{IdleTimeoutNotification, entity};
use shunt_offload::EngineRef;
use shunt_p4::tables::flow_key_from_entry;
use shunt_p4::{FlowKey, InterfaceId, NetworkOp};
use shunt_slowpath::policy::Peering;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::connect::Connected;
use super::diff::{Comparison, NotNow, REFUSALS_MAX, Repair};
use super::ledger::Ledger;
use super::lower::{Change, Lowering, Scope};
use super::tables::Reading;
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
/// Between two tries to begin a session: the first, and the longest.
const BEGIN_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Refusals of one write that are logged; the others are counted.
const REFUSALS_LOGGED_MAX: usize = 8;

/// Asks the kernel for a neighbour.
pub type Resolver = Arc<dyn Fn(InterfaceId, IpAddr) + Send + Sync>;

/// What a session's task is told.
#[derive(Debug)]
pub(super) enum Input {
    /// The configuration changes.
    Configure(Vec<PuntMeter>, Vec<Peering>),
    /// The network changes.
    Ops(Vec<NetworkOp>),
    /// The whole of the network has been said.
    Complete,
}

/// What a session's task is asked.
#[derive(Debug)]
pub(super) enum Command {
    /// Read and compare; change nothing.
    Diff(oneshot::Sender<Result<Comparison, NotNow>>),
    /// Read and put right.
    Reconcile(oneshot::Sender<Result<Repair, NotNow>>),
}

/// What a session is started with besides the switch.
pub struct SessionParts {
    /// What the switch may send to the slow path.
    pub meters: Vec<PuntMeter>,
    /// The switch's own interfaces.
    pub scope: Scope,
    /// Which VPC's routes may lead into which, where no connections are tracked; none given: all
    /// may.
    pub peerings: Option<Vec<Peering>>,
    /// The engine that owns its flows.
    pub engine: Option<EngineRef>,
    /// Whom to ask for the way to tunnels' end points.
    pub resolver: Resolver,
    /// Ends it.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for SessionParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionParts")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Why the session's present part is over.
enum End {
    Stopped,
    Lost(String),
    /// Another controller has taken over.
    Demoted(Option<u128>),
}

pub(super) struct Session {
    client: Client,
    switch: Switch,
    begun: bool,
    arbitration: watch::Receiver<Arbitration>,
    lowering: Lowering,
    ledger: Ledger,
    engine: Option<EngineRef>,
    resolver: Resolver,
    inputs: mpsc::Receiver<Input>,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<SwitchView>,
    stop: CancellationToken,
    applied: u64,
    /// The whole of the network has been said.
    complete: bool,
    /// Commands are taken by [`Session::attended`], and refused elsewhere.
    attending: bool,
    /// The session that is over got as far as [`SwitchState::Ready`].
    was_ready: bool,
    /// What a repair under way has been refused, and how often.
    refusals: Vec<String>,
    refused: u64,
    /// The highest election id of another controller: the next bid has to be above it, also
    /// when that one has gone (P4Runtime 5.3).
    rival: u128,
}

impl Session {
    pub(super) fn new(
        connected: Connected,
        parts: SessionParts,
        inputs: mpsc::Receiver<Input>,
        commands: mpsc::Receiver<Command>,
        view: watch::Sender<SwitchView>,
    ) -> Self {
        let Connected {
            client,
            switch,
            begun,
        } = connected;
        let lowering = Lowering::new(
            switch.slow_path_port,
            parts.meters,
            parts.scope,
            parts.peerings,
        );
        let mut ledger = Ledger::default();
        ledger.want(lowering.fixed());
        Self {
            arbitration: client.arbitration(),
            client,
            switch,
            begun,
            lowering,
            ledger,
            engine: parts.engine,
            resolver: parts.resolver,
            inputs,
            commands,
            view,
            stop: parts.stop,
            applied: 0,
            complete: false,
            attending: false,
            was_ready: false,
            refusals: Vec::new(),
            refused: 0,
            rival: 0,
        }
    }

    pub(super) async fn run(mut self) {
        self.forward_idle_reports();
        let seed = self.switch.name.bytes().map(u64::from).sum();
        let mut backoff = Backoff::new(BEGIN_AGAIN.0, BEGIN_AGAIN.1, seed);
        let mut reason = "not connected yet".to_owned();
        if self.begun {
            self.view.send_modify(|view| view.sessions = 1);
        } else {
            if let Some(engine) = &self.engine {
                engine.lost();
            }
            if self.begin_again(&mut backoff, &mut reason).await.is_err() {
                return;
            }
        }
        loop {
            self.was_ready = false;
            let end = self.attend().await;
            if let Some(engine) = &self.engine {
                engine.lost();
            }
            reason = match end {
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
            if self.was_ready {
                backoff.reset();
            } else if self.pause(&mut backoff, &reason).await.is_err() {
                return;
            }
            if self.begin_again(&mut backoff, &mut reason).await.is_err() {
                return;
            }
        }
    }

    fn forward_idle_reports(&self) {
        let (Some(engine), Some(mut idle)) =
            (self.engine.clone(), self.client.take_idle_timeouts())
        else {
            return;
        };
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

    /// Awaits something that is not ours while changes are taken over. `Err`: stopped.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(End::Stopped),
                input = self.inputs.recv() => self.take(input)?,
                Some(command) = self.commands.recv(), if !self.attending => self.decline(command),
                result = &mut work => return Ok(result),
            }
        }
    }

    fn take(&mut self, input: Option<Input>) -> Result<(), End> {
        match input {
            None => return Err(End::Stopped),
            Some(Input::Complete) => self.complete = true,
            Some(Input::Configure(meters, peerings)) => {
                let changes = self.lowering.configure(meters, peerings);
                self.want(changes);
            }
            Some(Input::Ops(ops)) => {
                let changes = self.lowering.apply(ops);
                self.want(changes);
            }
        }
        Ok(())
    }

    fn want(&mut self, changes: Vec<Change>) {
        self.ledger.want(changes);
        let routing = |vpc, to| self.ledger.routing(vpc, to);
        let changes = self.lowering.tunnels(&routing);
        self.ledger.want(changes);
        self.applied += 1;
        self.resolve();
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
            view.others = self.ledger.others_count() as u64;
            view.tables = self.ledger.held_by_table();
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

    /// Reads back, repairs, and then writes what comes, until something ends it.
    async fn attend(&mut self) -> End {
        self.attending = true;
        let end = match self.attended().await {
            Ok(()) => End::Stopped,
            Err(end) => end,
        };
        self.attending = false;
        end
    }

    async fn attended(&mut self) -> Result<(), End> {
        let mut resync = tokio::time::interval(RESYNC_INTERVAL);
        resync.reset();
        let mut resolve = tokio::time::interval(RESOLVE_INTERVAL);
        let mut heartbeat = tokio::time::interval(HEARTBEAT_INTERVAL);
        for timer in [&mut resync, &mut resolve, &mut heartbeat] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let (mut comparison_is_due, mut compared) = (true, false);
        loop {
            if self.complete && std::mem::take(&mut comparison_is_due) {
                self.read_back().await?;
                if let Some(engine) = self.engine.as_ref().filter(|_| !compared) {
                    engine.resync();
                }
                compared = true;
            }
            let mut retry = None;
            if self.complete {
                let done = self.flush().await?;
                self.was_ready = true;
                self.publish(SwitchState::Ready);
                retry = self.ledger.next_retry(done);
            } else {
                self.publish(SwitchState::Waiting);
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(End::Stopped),
                changed = self.arbitration.changed() => {
                    if changed.is_err() {
                        return Err(End::Stopped);
                    }
                    self.role_changed()?;
                }
                input = self.inputs.recv() => self.take(input)?,
                Some(command) = self.commands.recv() => self.obey(command).await?,
                _ = resync.tick() => comparison_is_due = true,
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

    async fn read(&mut self) -> Result<Reading, End> {
        let client = self.client.clone();
        let reading = self.during(async move { read(&client).await });
        reading.await?.map_err(|error| End::Lost(error.to_string()))
    }

    /// Reads the switch; returns how long it took, and how long to compare.
    async fn read_back(&mut self) -> Result<(Duration, Duration), End> {
        self.publish(SwitchState::Repairing);
        let begun = Instant::now();
        let reading = self.read().await?;
        let read_in = begun.elapsed();
        for (_, error) in &reading.foreign {
            tracing::warn!(switch = self.switch.name, %error, "an entry that is none of ours");
        }
        self.ledger.read_back(reading);
        let compared_in = begun.elapsed() - read_in;
        if self.ledger.pending_count() > 0 {
            tracing::info!(
                switch = self.switch.name,
                differences = self.ledger.pending_count(),
                "read back"
            );
        }
        Ok((read_in, compared_in))
    }

    /// Writes until nothing is due; returns when that was.
    async fn flush(&mut self) -> Result<Instant, End> {
        loop {
            let now = Instant::now();
            let Some(updates) = self.ledger.next_phase(now) else {
                return Ok(now);
            };
            let client = self.client.clone();
            let written = self.during(async move { client.write(&updates).await });
            let refusals = match written.await? {
                Ok(()) => self.ledger.answered(None, Instant::now()),
                Err(WriteError::Batch(batch)) => {
                    self.ledger.answered(Some(&batch.errors), Instant::now())
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
    }

    fn report(&mut self, refusals: Vec<String>) {
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
        if let Some(last) = refusals.last() {
            self.view
                .send_modify(|view| view.last_error = Some(last.clone()));
        }
        self.refused += refusals.len() as u64;
        let room = REFUSALS_MAX.saturating_sub(self.refusals.len());
        self.refusals.extend(refusals.into_iter().take(room));
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn idle_keys(notification: &IdleTimeoutNotification) -> Vec<FlowKey> {
    let entries = notification.table_entry.iter();
    entries
        .filter_map(|entry| flow_key_from_entry(entry).ok())
        .collect()
}

/// All entries but the flows. Typed as they come: as messages a million takes half a gigabyte.
async fn read(client: &Client) -> Result<Reading, ClientError> {
    let limit = client.config().read_entities_max;
    let mut stream = client.read_stream(Reading::question()).await?;
    let mut reading = Reading::default();
    while let Some(part) = stream.next_part().await? {
        for entity in part {
            if let Some(entity::Entity::TableEntry(entry)) = entity.entity {
                reading.add(entry);
            }
        }
        if reading.len() > limit {
            return Err(ClientError::TooManyEntities { limit });
        }
    }
    Ok(reading)
}
