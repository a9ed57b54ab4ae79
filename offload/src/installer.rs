//! The engine's task: from the workers' rings to batches in flight, and back.
//!
//! ```text
//!   ports ──commands──▶ ┌────────┐ ──batch──▶ sink.write ─┐  at most `in_flight_max`
//!         ◀──events──── │ ledger │ ◀──outcomes────────────┘
//!   control ───────────▶└────────┘ ◀──entries── sink.read_flows   (only when nothing is in flight)
//!
//!   Reading ──read──▶ Up ──no answer──▶ Down ──backoff──▶ Reading
//!      ▲                └───lost()───▶ Held ──resync()──▶ Reading
//! ```
//!
//! A batch leaves as soon as something is to be written and a place is free: an idle system
//! writes single units at once, a busy one fills batches while it waits for a place.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use p4runtime::p4::v1::TableEntry;
use shunt_p4::FlowKey;
use tokio::sync::{mpsc, oneshot, watch};

use crate::adopt::ReadBack;
use crate::clock::as_ns;
use crate::engine::{EngineConfig, EnginePolicy};
use crate::lasting::Lasting;
use crate::ledger::{BusyFlow, Ledger, READ_UNITS_MAX, Read, Share};
use crate::queue::{InstallerPort, OffloadUnit};
use crate::sink::{FlowReading, FlowSink, Outcome, SinkError};
use crate::stats::{LinkState, OffloadStats, Trouble, TroubleKind};

/// Commands taken from one port before the others have their turn.
const DRAIN_MAX: usize = 4_096;
/// Units that wait to be written before commands are left in the rings.
const BACKLOG_MAX: usize = 128 * 1024;
/// Events that wait for room in a worker's ring before its commands are left in theirs.
const EVENTS_PENDING_MAX: usize = 128 * 1024;
/// How often a full event ring is tried again.
const EVENTS_RETRY: Duration = Duration::from_millis(1);
/// The longest sleep: a clock that is not tokio's is looked at now and then.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Readings of counters in flight, of the engine's own and of those that somebody asked for: they
/// share the switch with the writes.
const READS_IN_FLIGHT_MAX: usize = 2;
/// See [`READS_IN_FLIGHT_MAX`].
const ASKED_IN_FLIGHT_MAX: usize = 4;

/// Messages from the engine's handle.
#[derive(Debug)]
pub(crate) enum Control {
    Adopt(usize, Vec<OffloadUnit>),
    Idle(Vec<FlowKey>),
    Settled(oneshot::Sender<()>),
    Stats(oneshot::Sender<OffloadStats>),
    Policy(EnginePolicy),
    Read(Vec<FlowKey>, oneshot::Sender<Vec<Option<FlowReading>>>),
    Busiest(usize, oneshot::Sender<Vec<BusyFlow>>),
    Shutdown,
}

/// What the session's owner said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    Lost,
    Resync,
}

/// A request that came back.
enum Answer {
    Write(Vec<Share>, Result<Vec<Outcome>, SinkError>),
    Read(Result<Vec<TableEntry>, SinkError>),
    /// Whoever was told of these has adopted what is to be kept.
    Adopted(Vec<TableEntry>),
    /// Deletion of entries that are no flows.
    Foreign(Result<Vec<Outcome>, SinkError>),
}

type Found = Result<Vec<Option<FlowReading>>, SinkError>;

/// Counters that came back. They wait for no write, and no write waits for them.
enum Counters {
    Own(Read, Found),
    Asked(
        Vec<FlowKey>,
        oneshot::Sender<Vec<Option<FlowReading>>>,
        Found,
    ),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// To be read as soon as nothing is in flight; `asked`: it is being read.
    Reading {
        asked: bool,
    },
    Up,
    Down {
        until_ns: u64,
    },
    Held,
}

/// What becomes of entries that were there before.
#[derive(Debug)]
enum Adoption {
    /// The first read-back is to be told.
    Wanted(oneshot::Sender<ReadBack>),
    /// It was; units are adopted.
    UnderWay,
    /// Entries that no worker wants are removed.
    Over,
}

pub(crate) struct Installer<S> {
    config: EngineConfig,
    ports: Vec<Port>,
    sink: Arc<S>,
    control: mpsc::Receiver<Control>,
    session: watch::Receiver<Session>,
    ledger: Ledger,
    requests: FuturesUnordered<BoxFuture<'static, Answer>>,
    batches_in_flight: usize,
    reads: FuturesUnordered<BoxFuture<'static, Counters>>,
    /// Of them, those that somebody asked for.
    asked: usize,
    /// A worker's ring was found full, or the engine has as much to write as it keeps.
    queue_full: Lasting,
    link: Link,
    adoption: Adoption,
    /// Since when the switch has not answered.
    silent_since_ns: Option<u64>,
    backoff: Duration,
    last_error: Option<String>,
    waiting: Vec<oneshot::Sender<()>>,
    ending: bool,
}

struct Port {
    port: InstallerPort,
    /// The worker has gone: nobody to listen to or to talk to.
    closed: bool,
    /// The worker does not take its events: it is not listened to until it does.
    deaf: bool,
}

/// What woke the task.
enum Wake {
    Answer(Answer),
    Counters(Counters),
    Control(Option<Control>),
    Session,
    Timer,
    Ports,
}

impl<S: FlowSink> Installer<S> {
    pub(crate) fn new(
        config: EngineConfig,
        ports: Vec<InstallerPort>,
        sink: S,
        control: mpsc::Receiver<Control>,
        session: watch::Receiver<Session>,
        first: Option<oneshot::Sender<ReadBack>>,
    ) -> Self {
        let now_ns = config.clock.now_ns();
        Self {
            ledger: Ledger::new(ports.len(), &config),
            ports: ports
                .into_iter()
                .map(|port| Port {
                    port,
                    closed: false,
                    deaf: false,
                })
                .collect(),
            sink: Arc::new(sink),
            control,
            session,
            requests: FuturesUnordered::new(),
            batches_in_flight: 0,
            reads: FuturesUnordered::new(),
            asked: 0,
            queue_full: Lasting::default(),
            link: Link::Reading { asked: false },
            adoption: first.map_or(Adoption::Over, Adoption::Wanted),
            silent_since_ns: Some(now_ns),
            backoff: config.backoff_min,
            last_error: None,
            waiting: Vec::new(),
            ending: false,
            config,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let now_ns = self.config.clock.now_ns();
            self.check_link(now_ns);
            self.ledger.advance(now_ns);
            self.take_commands(now_ns);
            self.send_batches(now_ns);
            self.start_reads(now_ns);
            self.hand_over_events();
            self.answer_waiting();
            if self.ending && self.requests.is_empty() {
                return;
            }
            match self.wake(now_ns).await {
                Wake::Answer(answer) => self.answered(answer),
                Wake::Counters(counters) => self.counted(counters),
                Wake::Session => self.session_changed(),
                Wake::Control(Some(control)) => self.controlled(control),
                // Every handle has gone.
                Wake::Control(None) => self.ending = true,
                // Busy ports must not keep a runtime of one thread from its sockets.
                Wake::Ports => tokio::task::consume_budget().await,
                Wake::Timer => {}
            }
        }
    }

    /// Sleeps until there is something to do.
    async fn wake(&mut self, now_ns: u64) -> Wake {
        let sleep = tokio::time::sleep(self.sleep_for(now_ns));
        let listening = self.is_listening();
        tokio::select! {
            // In this order: what came back makes room for what waits.
            biased;
            Some(answer) = self.requests.next(), if !self.requests.is_empty() => {
                Wake::Answer(answer)
            }
            Some(counters) = self.reads.next(), if !self.reads.is_empty() => {
                Wake::Counters(counters)
            }
            Ok(()) = self.session.changed(), if !self.ending => Wake::Session,
            control = self.control.recv(), if !self.ending => Wake::Control(control),
            () = sleep => Wake::Timer,
            () = ports_ready(&mut self.ports), if listening => Wake::Ports,
        }
    }

    fn sleep_for(&self, now_ns: u64) -> Duration {
        let retry_ns = match self.link {
            Link::Down { until_ns } => Some(until_ns),
            _ => None,
        };
        let give_up_ns = self.silent_since_ns.map(|since_ns| {
            let at_ns = since_ns.saturating_add(as_ns(self.config.give_up_after));
            if at_ns > now_ns { at_ns } else { u64::MAX }
        });
        let read_ns = self.may_read().then(|| self.ledger.read_due());
        let due = [self.ledger.next_due(), retry_ns, give_up_ns, read_ns];
        let due_ns = due.into_iter().flatten().min().unwrap_or(u64::MAX);
        let mut sleep = Duration::from_nanos(due_ns.saturating_sub(now_ns)).min(SLEEP_MAX);
        if self.ledger.has_events() {
            sleep = sleep.min(EVENTS_RETRY);
        }
        sleep
    }

    /// Whether commands are taken: not when the switch is so slow that they pile up here, nor
    /// before it is known which units there are.
    fn is_listening(&self) -> bool {
        !self.ending
            && matches!(self.adoption, Adoption::Over)
            && self.ledger.backlog() < BACKLOG_MAX
    }

    fn take_commands(&mut self, now_ns: u64) {
        if !matches!(self.adoption, Adoption::Over) {
            return;
        }
        let full = self.ports.iter().any(|port| port.port.is_full());
        if full || self.ledger.backlog() >= BACKLOG_MAX {
            self.queue_full.see(now_ns);
        }
        for (index, port) in self.ports.iter_mut().enumerate() {
            if port.closed || self.ending {
                continue;
            }
            for _ in 0..DRAIN_MAX {
                let pending = self.ledger.events(index).map_or(0, |events| events.len());
                port.deaf = pending >= EVENTS_PENDING_MAX;
                if self.ledger.backlog() >= BACKLOG_MAX || port.deaf {
                    break;
                }
                let Some(command) = port.port.take() else {
                    break;
                };
                self.ledger.command(index, command, now_ns);
            }
            port.closed = port.port.is_closed();
        }
    }

    fn send_batches(&mut self, now_ns: u64) {
        if self.link != Link::Up || self.ending {
            return;
        }
        while self.batches_in_flight < self.config.in_flight_max.max(1) {
            // A unit has at most two updates and is never split.
            let updates_max = self.config.batch_updates_max.saturating_sub(1).max(1);
            let Some(batch) = self.ledger.batch(updates_max, now_ns) else {
                return;
            };
            self.batches_in_flight += 1;
            let sink = Arc::clone(&self.sink);
            self.requests.push(Box::pin(async move {
                Answer::Write(batch.shares, sink.write(batch.updates).await)
            }));
        }
    }

    fn own_reads(&self) -> usize {
        self.reads.len().saturating_sub(self.asked)
    }

    fn may_read(&self) -> bool {
        self.link == Link::Up && !self.ending && self.own_reads() < READS_IN_FLIGHT_MAX
    }

    fn start_reads(&mut self, now_ns: u64) {
        let busy = self.ledger.backlog() > READ_UNITS_MAX
            || self.batches_in_flight >= self.config.in_flight_max;
        while self.may_read() {
            let Some(read) = self.ledger.next_read(now_ns, busy) else {
                return;
            };
            let sink = Arc::clone(&self.sink);
            self.reads.push(Box::pin(async move {
                let found = sink.read_counters(read.keys.clone()).await;
                Counters::Own(read, found)
            }));
        }
    }

    /// Somebody wants to know what the switch counts.
    fn read_for(&mut self, keys: Vec<FlowKey>, answer: oneshot::Sender<Vec<Option<FlowReading>>>) {
        if self.link != Link::Up || self.asked >= ASKED_IN_FLIGHT_MAX {
            let _ = answer.send(self.last_readings(&keys));
            return;
        }
        self.asked += 1;
        let sink = Arc::clone(&self.sink);
        self.reads.push(Box::pin(async move {
            let found = sink.read_counters(keys.clone()).await;
            Counters::Asked(keys, answer, found)
        }));
    }

    fn last_readings(&self, keys: &[FlowKey]) -> Vec<Option<FlowReading>> {
        let now_ns = self.config.clock.now_ns();
        let last = |key| self.ledger.last_reading(key, now_ns);
        keys.iter().map(last).collect()
    }

    fn counted(&mut self, counters: Counters) {
        let now_ns = self.config.clock.now_ns();
        match counters {
            Counters::Own(read, Ok(found)) => self.ledger.was_read(&read, &found, now_ns),
            Counters::Own(read, Err(error)) => {
                tracing::debug!(%error, "offload: the switch does not give its counters");
                self.ledger.was_not_read(&read, now_ns);
            }
            Counters::Asked(keys, answer, found) => {
                self.asked -= 1;
                let found = found.unwrap_or_else(|_| self.last_readings(&keys));
                let _ = answer.send(found);
            }
        }
    }

    fn answered(&mut self, answer: Answer) {
        let now_ns = self.config.clock.now_ns();
        match answer {
            Answer::Write(shares, Ok(outcomes)) => {
                self.batches_in_flight -= 1;
                self.backoff = self.config.backoff_min;
                if self.link == Link::Up {
                    self.answers_again();
                }
                self.ledger.acknowledge(&shares, &outcomes, now_ns);
            }
            Answer::Write(shares, Err(error)) => {
                self.batches_in_flight -= 1;
                self.ledger.lost_answer(&shares, now_ns);
                self.failed(&error, now_ns);
            }
            Answer::Read(Ok(entries)) => {
                if let Some(entries) = self.tell(entries) {
                    self.read_back(&entries, now_ns);
                }
            }
            Answer::Adopted(entries) => {
                // What was adopted before the end is in the queue.
                while let Ok(control) = self.control.try_recv() {
                    self.controlled(control);
                }
                self.adoption = Adoption::Over;
                self.read_back(&entries, now_ns);
            }
            Answer::Read(Err(error)) | Answer::Foreign(Err(error)) => self.failed(&error, now_ns),
            Answer::Foreign(Ok(_)) => {}
        }
    }

    /// Tells of the first read-back, and waits for what is adopted of it. The entries back: nobody
    /// wants to know.
    fn tell(&mut self, entries: Vec<TableEntry>) -> Option<Vec<TableEntry>> {
        let first = match std::mem::replace(&mut self.adoption, Adoption::Over) {
            Adoption::Wanted(first) => first,
            other => {
                self.adoption = other;
                return Some(entries);
            }
        };
        let (told, dropped) = ReadBack::new(&entries);
        if first.send(told).is_err() {
            return Some(entries);
        }
        self.adoption = Adoption::UnderWay;
        self.requests.push(Box::pin(async move {
            // Its end is told by the sender's.
            let _ = dropped.await;
            Answer::Adopted(entries)
        }));
        None
    }

    fn read_back(&mut self, entries: &[TableEntry], now_ns: u64) {
        let foreign = self.ledger.resync(entries, now_ns);
        // Unless the session was lost meanwhile.
        if let Link::Reading { asked: true } = self.link {
            tracing::info!(
                entries = entries.len(),
                foreign = foreign.len(),
                "offload: read back the switch"
            );
            self.link = Link::Up;
            self.delete_foreign(foreign);
            // A switch that is read but not written is not there yet.
            if self.ledger.backlog() == 0 {
                self.answers_again();
            }
        }
    }

    fn answers_again(&mut self) {
        self.silent_since_ns = None;
        self.last_error = None;
        self.ledger.accept();
    }

    fn delete_foreign(&mut self, keys: Vec<TableEntry>) {
        for keys in keys.chunks(self.config.batch_updates_max.max(1)) {
            let keys = keys.to_vec();
            let sink = Arc::clone(&self.sink);
            self.requests.push(Box::pin(
                async move { Answer::Foreign(sink.delete(keys).await) },
            ));
        }
    }

    /// The switch did not answer, or takes no writes: wait, then read it back.
    fn failed(&mut self, error: &SinkError, now_ns: u64) {
        self.last_error = Some(error.to_string());
        if matches!(self.link, Link::Down { .. } | Link::Held) {
            return;
        }
        tracing::warn!(%error, retry_in = ?self.backoff, "offload: the switch takes no writes");
        self.silent_since_ns.get_or_insert(now_ns);
        self.link = Link::Down {
            until_ns: now_ns.saturating_add(as_ns(self.backoff)),
        };
        self.backoff = (self.backoff * 2).min(self.config.backoff_max);
    }

    fn check_link(&mut self, now_ns: u64) {
        if let Link::Down { until_ns } = self.link
            && until_ns <= now_ns
        {
            self.link = Link::Reading { asked: false };
        }
        if self.link == (Link::Reading { asked: false }) && self.requests.is_empty() && !self.ending
        {
            self.link = Link::Reading { asked: true };
            let sink = Arc::clone(&self.sink);
            self.requests.push(Box::pin(
                async move { Answer::Read(sink.read_flows().await) },
            ));
        }
        let give_up_after_ns = as_ns(self.config.give_up_after);
        if !self.ledger.is_refusing()
            && self
                .silent_since_ns
                .is_some_and(|since_ns| now_ns.saturating_sub(since_ns) >= give_up_after_ns)
        {
            self.ledger.give_up(now_ns);
        }
    }

    fn controlled(&mut self, control: Control) {
        let now_ns = self.config.clock.now_ns();
        match control {
            Control::Adopt(port, units) => {
                for unit in &units {
                    self.ledger.adopt(port, unit, now_ns);
                }
            }
            Control::Idle(keys) => self.ledger.idle(&keys, now_ns),
            Control::Settled(done) => self.waiting.push(done),
            Control::Stats(answer) => {
                let _ = answer.send(self.stats());
            }
            Control::Policy(policy) => self.ledger.set_policy(&policy),
            Control::Read(keys, answer) => self.read_for(keys, answer),
            Control::Busiest(most, answer) => {
                let _ = answer.send(self.ledger.busiest(most, now_ns));
            }
            Control::Shutdown => self.ending = true,
        }
    }

    fn session_changed(&mut self) {
        let now_ns = self.config.clock.now_ns();
        self.silent_since_ns.get_or_insert(now_ns);
        self.link = match *self.session.borrow_and_update() {
            Session::Lost => Link::Held,
            Session::Resync => Link::Reading { asked: false },
        };
        self.backoff = self.config.backoff_min;
    }

    fn stats(&self) -> OffloadStats {
        let now_ns = self.config.clock.now_ns();
        let mut stats = self.ledger.stats(now_ns);
        let since = |kind| move |since_ns| Trouble::new(kind, since_ns, now_ns);
        let away = match (self.ledger.is_refusing(), self.link) {
            (true, _) => self.silent_since_ns.map(since(TroubleKind::Refusing)),
            (false, Link::Down { .. } | Link::Held) => {
                self.silent_since_ns.map(since(TroubleKind::SwitchAway))
            }
            (false, Link::Up | Link::Reading { .. }) => None,
        };
        let queue_full = self.queue_full.since_ns(now_ns);
        let queue_full = queue_full.map(since(TroubleKind::QueueFull));
        stats.troubles.extend(away.into_iter().chain(queue_full));
        OffloadStats {
            link: match self.link {
                Link::Reading { .. } if matches!(self.adoption, Adoption::UnderWay) => {
                    LinkState::Adopting
                }
                Link::Reading { .. } => LinkState::Reading,
                Link::Up => LinkState::Up,
                Link::Down { .. } => LinkState::Down,
                Link::Held => LinkState::Held,
            },
            batches_in_flight: self.batches_in_flight as u64,
            last_error: self.last_error.clone(),
            ..stats
        }
    }

    fn hand_over_events(&mut self) {
        for (index, port) in self.ports.iter_mut().enumerate() {
            let Some(events) = self.ledger.events(index) else {
                continue;
            };
            if port.closed {
                events.clear();
                continue;
            }
            while let Some(event) = events.pop_front() {
                if let Err(event) = port.port.send(event) {
                    events.push_front(event);
                    break;
                }
            }
        }
    }

    fn answer_waiting(&mut self) {
        let queued = self.ports.iter().any(|port| port.port.queued() > 0);
        if self.link == Link::Up && !queued && self.requests.is_empty() && self.ledger.is_settled()
        {
            for done in self.waiting.drain(..) {
                let _ = done.send(());
            }
        }
    }
}

/// Until a port has a command, or its worker has gone.
async fn ports_ready(ports: &mut [Port]) {
    if ports.iter().all(|port| port.closed || port.deaf) {
        return pending().await;
    }
    poll_fn(|cx: &mut Context<'_>| {
        let mut ready = Poll::Pending;
        // All of them, so that each wakes the task.
        for port in ports.iter_mut().filter(|port| !port.closed && !port.deaf) {
            if port.port.poll_ready(cx).is_ready() {
                ready = Poll::Ready(());
            }
        }
        ready
    })
    .await
}
