//! The mirror's task: sockets and timers around [`State`].
//!
//! ```text
//!   kernel ── notifications ──┐                     ┌── batches ──> switch and workers
//!   kernel <─ dumps ──────────┤  one task, State    ├── snapshots, statistics
//!   kernel <─ resolve, keep ──┘                     └<─ commands (resolve, resync, stop)
//! ```
//!
//! It subscribes before it dumps, so that nothing falls between. Whatever was lost (an overrun,
//! an unreadable message, the kernel's silent removals) is found by dumping again and comparing;
//! what did not change is not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use shunt_p4::{Interface, InterfaceId, NetworkOp, VpcId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::decode::parse;
use super::keeper::Keeper;
use super::message::Message;
use super::nexthop_message::GetNexthops;
use super::snapshot::Snapshot;
use super::socket::{DumpEnd, NetlinkSocket, SocketError};
use super::state::{DumpKind, State};
use super::wire::Frame;

/// Prefixes, and as many neighbours, in one batch.
pub const BATCH_LIMIT: usize = 4096;
/// Receive buffer that 20,000 changes a second do not overrun while a full table is dumped.
pub const RECEIVE_BUFFER_BYTES: usize = 32 << 20;
/// How often everything is compared with the kernel, whatever the load.
pub const RESYNC_INTERVAL: Duration = Duration::from_secs(30);
/// Commands that may wait.
const COMMANDS: usize = 4096;
/// Datagrams taken at one wake-up, so that batches and commands get their turn.
const DATAGRAMS_PER_WAKE: usize = 512;
/// A dump that something changed under is asked for again so many times.
const DUMP_ATTEMPTS: usize = 4;
/// The kernel announces that a link is down before it drops the routes: look again after this.
const SETTLE: Duration = Duration::from_millis(300);
/// The pause between dumps is at least this, and [`DUMP_SHARE`] times what the last one took.
const DUMP_PAUSE: Duration = Duration::from_millis(50);
const DUMP_SHARE: u32 = 3;
/// The pause after a dump that failed.
const DUMP_RETRY: Duration = Duration::from_secs(1);
/// How often next hops without an answer are asked for.
const KEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Multicast groups (`RTNLGRP_*`): link, neigh, IPv4 and IPv6 ifaddr and route, nexthop.
const GROUPS: [u32; 7] = [1, 3, 5, 7, 9, 11, 32];

/// An interface with the tap that stands for it in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapInterface {
    /// As configured.
    pub interface: Interface,
    /// The tap's name.
    pub tap: String,
    /// The tap's number in the kernel.
    pub ifindex: u32,
}

/// What to mirror.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    /// The interfaces.
    pub interfaces: Vec<TapInterface>,
    /// Each VPC's kernel table (1 to 2³² − 1; 254 is main).
    pub tables: Vec<(VpcId, u32)>,
    /// Receive buffer, bytes ([`RECEIVE_BUFFER_BYTES`]).
    pub receive_buffer: usize,
    /// See [`RESYNC_INTERVAL`].
    pub resync_interval: Duration,
}

/// Why a batch was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchReason {
    /// The first load.
    Start,
    /// The kernel told of changes, or a comparison found some.
    Change,
}

/// Changes in an order in which they can be applied one by one: what is added comes before what
/// uses it, what is removed after. A batch refers to nothing that a later one brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The changes; empty only in the last batch of the first load.
    pub ops: Vec<NetworkOp>,
    /// Why.
    pub reason: BatchReason,
    /// Nothing more is known to be due. The first such batch ends the first load.
    pub complete: bool,
    /// How many calls of [`MirrorHandle::configure`] it, and those before it, do justice to.
    pub configured: u64,
}

/// What the mirror has seen and done since it started, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MirrorStats {
    /// Messages from the kernel outside dumps.
    pub events: u64,
    /// Batches sent.
    pub batches: u64,
    /// Changes in them.
    pub ops: u64,
    /// Times that the receive buffer overran.
    pub overruns: u64,
    /// Unreadable messages.
    pub malformed: u64,
    /// Dumps of one family.
    pub dumps: u64,
    /// Dumps that the kernel or a malformed message cut short.
    pub dump_failures: u64,
    /// How long the last round of dumps took, microseconds.
    pub last_dump_us: u64,
    /// Times that everything was compared because it was time.
    pub resyncs: u64,
    /// Differences that dumps after the first found.
    pub corrections: u64,
    /// Requests to resolve an address that went to the kernel.
    pub resolve_sent: u64,
    /// Those that came too soon after another, or too many at once.
    pub resolve_limited: u64,
    /// Those for what cannot be resolved (no such interface, multicast), or that the kernel refused.
    pub resolve_refused: u64,
    /// Receive buffer as the kernel accounts it, bytes.
    pub receive_buffer: u64,
    /// Prefixes published.
    pub routes: u64,
    /// Next hops published.
    pub nexthops: u64,
    /// Neighbours published.
    pub neighbors: u64,
    /// Prefixes unreachable because they lead through a device that is none of ours.
    pub foreign: u64,
    /// Prefixes unreachable because shunt cannot do what they ask.
    pub unsupported: u64,
    /// Prefixes unreachable because every path is down.
    pub down: u64,
}

enum Command {
    Resolve(InterfaceId, IpAddr),
    Resync,
    Configure(Vec<TapInterface>, Vec<(VpcId, u32)>),
    Ping(oneshot::Sender<()>),
    Snapshot(oneshot::Sender<Snapshot>),
    Shutdown,
}

/// The mirror stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel mirror has stopped")]
pub struct Stopped;

/// Speaks to the mirror's task; it stops when every handle is gone, or by `shutdown`.
#[derive(Clone, Debug)]
pub struct MirrorHandle {
    commands: mpsc::Sender<Command>,
    stats: watch::Receiver<MirrorStats>,
}

impl MirrorHandle {
    /// What the kernel has, for display.
    pub async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        let (answer, wait) = oneshot::channel();
        let sent = self.commands.send(Command::Snapshot(answer)).await;
        sent.map_err(|_| Stopped)?;
        wait.await.map_err(|_| Stopped)
    }

    /// Answers when its task does.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn ping(&self) -> Result<(), Stopped> {
        let (answer, wait) = oneshot::channel();
        let sent = self.commands.send(Command::Ping(answer)).await;
        sent.map_err(|_| Stopped)?;
        wait.await.map_err(|_| Stopped)
    }

    /// Asks the kernel to resolve a neighbour. Never waits; a request that is too much is
    /// dropped: the next packet asks again.
    pub fn resolve(&self, interface: InterfaceId, address: IpAddr) {
        let _ = self.commands.try_send(Command::Resolve(interface, address));
    }

    /// Mirrors these devices and tables from now on. What that changes comes in batches; the last
    /// of them counts it in [`Batch::configured`].
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn configure(
        &self,
        interfaces: Vec<TapInterface>,
        tables: Vec<(VpcId, u32)>,
    ) -> Result<(), Stopped> {
        let command = Command::Configure(interfaces, tables);
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    /// Compares everything with the kernel soon.
    pub async fn resync(&self) -> Result<(), Stopped> {
        let sent = self.commands.send(Command::Resync).await;
        sent.map_err(|_| Stopped)
    }

    /// Counters and sizes, as of the last change.
    pub fn stats(&self) -> MirrorStats {
        *self.stats.borrow()
    }

    /// Stops the task and waits for it.
    pub async fn shutdown(&self) {
        let _ = self.commands.send(Command::Shutdown).await;
        self.commands.closed().await;
    }
}

/// The kernel mirror.
#[derive(Debug)]
pub struct Mirror {
    state: State,
    events: NetlinkSocket,
    requests: NetlinkSocket,
    keeper: Keeper,
    stats: MirrorStats,
    publish: watch::Sender<MirrorStats>,
    loaded: bool,
    /// Calls of [`MirrorHandle::configure`], and those that batches have told of.
    configured: (u64, u64),
    /// Not before this is dumped again.
    dump_pause: Instant,
    /// What to look at once more, each kind some time after it was last asked for.
    settle: BTreeMap<DumpKind, Instant>,
}

impl Mirror {
    /// Subscribes, dumps everything once, and starts the task, which sends the first load and
    /// then every change. When `ops` is full the mirror waits with sending, not with listening.
    pub async fn start(
        config: MirrorConfig,
        ops: mpsc::Sender<Batch>,
    ) -> Result<MirrorHandle, SocketError> {
        let taps = config.interfaces.iter().map(numbered);
        let state = State::new(taps, config.tables.iter().copied());
        let events = NetlinkSocket::subscribe(&GROUPS, config.receive_buffer)?;
        let (publish, stats) = watch::channel(MirrorStats::default());
        let mut mirror = Self {
            state,
            requests: NetlinkSocket::open()?,
            keeper: Keeper::new(NetlinkSocket::open()?, devices(&config.interfaces)),
            stats: MirrorStats {
                receive_buffer: events.receive_buffer() as u64,
                ..MirrorStats::default()
            },
            events,
            publish,
            loaded: false,
            configured: (0, 0),
            dump_pause: Instant::now(),
            settle: BTreeMap::new(),
        };
        mirror.state.request_dump(DumpKind::ALL);
        // The first one must succeed: what fails here fails always.
        for kind in mirror.state.take_dumps() {
            mirror.dump(kind).await?;
        }
        mirror.stats.corrections = 0;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        tokio::spawn(mirror.run(inbox, ops, config.resync_interval));
        Ok(MirrorHandle { commands, stats })
    }

    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        ops: mpsc::Sender<Batch>,
        resync_interval: Duration,
    ) {
        let first = Instant::now() + resync_interval;
        let mut resync = tokio::time::interval_at(first, resync_interval);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut keep = tokio::time::interval(KEEP_INTERVAL);
        keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let dump_due = self.state.needs_dump();
            let settle_at = self.settle.values().min().copied();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Shutdown) | None => return,
                    Some(command) => self.command(command).await,
                },
                ready = self.events.readable() => {
                    if ready.is_err() {
                        self.stats.overruns += 1;
                        self.state.request_dump(DumpKind::ALL);
                    }
                    self.drain();
                }
                permit = ops.reserve(), if self.is_due() => {
                    let Ok(permit) = permit else { return };
                    self.drain();
                    if let Some(batch) = self.batch() {
                        self.keeper.note(&batch.ops);
                        permit.send(batch);
                    }
                }
                () = tokio::time::sleep_until(self.dump_pause), if dump_due => {
                    self.redump(BTreeSet::new()).await;
                }
                () = sleep_until(settle_at), if settle_at.is_some() => {
                    let now = Instant::now();
                    let due = self.settle.iter().filter(|(_, at)| **at <= now);
                    let due: BTreeSet<_> = due.map(|(kind, _)| *kind).collect();
                    self.settle.retain(|kind, _| !due.contains(kind));
                    self.redump(due).await;
                }
                _ = resync.tick() => {
                    self.stats.resyncs += 1;
                    self.settle.clear();
                    self.redump(DumpKind::ALL.into()).await;
                }
                _ = keep.tick() => self.keeper.refresh(self.state.neighbors()),
            }
            self.keeper.work(self.state.neighbors()).await;
            self.publish_stats();
        }
    }

    /// Whether a batch has to go out.
    fn is_due(&self) -> bool {
        let (asked, told) = self.configured;
        self.state.is_dirty() || !self.loaded || (asked > told && !self.state.needs_dump())
    }

    fn batch(&mut self) -> Option<Batch> {
        let ops = self.state.flush(BATCH_LIMIT);
        let complete = !self.state.is_dirty();
        let reason = if self.loaded {
            BatchReason::Change
        } else {
            BatchReason::Start
        };
        let (asked, told) = self.configured;
        let tells = complete && asked > told && !self.state.needs_dump();
        if ops.is_empty() && !tells && (self.loaded || !complete) {
            return None;
        }
        if tells {
            self.configured.1 = asked;
        }
        self.loaded |= complete;
        self.stats.batches += 1;
        self.stats.ops += ops.len() as u64;
        Some(Batch {
            ops,
            reason,
            complete,
            configured: self.configured.1,
        })
    }

    /// Takes what has arrived, within a limit.
    fn drain(&mut self) {
        for _ in 0..DATAGRAMS_PER_WAKE {
            let (state, stats) = (&mut self.state, &mut self.stats);
            let error = match self.events.try_receive() {
                Ok(None) => return,
                Ok(Some(frames)) => {
                    for frame in frames {
                        stats.events += 1;
                        match frame.ok().and_then(|frame| parse(&frame)) {
                            Some(message) => {
                                tracing::trace!(?message, "from the kernel");
                                state.apply(message);
                            }
                            None => {
                                stats.malformed += 1;
                                state.request_dump(DumpKind::ALL);
                            }
                        }
                    }
                    continue;
                }
                Err(error) => error,
            };
            // Something was lost: what it was, only dumps can tell.
            self.state.request_dump(DumpKind::ALL);
            match error {
                SocketError::Overrun => self.stats.overruns += 1,
                SocketError::Malformed => self.stats.malformed += 1,
                error => {
                    self.stats.overruns += 1;
                    tracing::warn!(%error, "kernel notifications");
                    return;
                }
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Resolve(interface, address) => {
                self.keeper.resolve(interface, address, Instant::now());
            }
            Command::Resync => self.state.request_dump(DumpKind::ALL),
            Command::Configure(interfaces, tables) => {
                self.keeper.set_devices(devices(&interfaces));
                self.state
                    .configure(interfaces.iter().map(numbered), tables);
                self.configured.0 += 1;
                // At once: somebody waits.
                self.redump(BTreeSet::new()).await;
            }
            Command::Ping(answer) => {
                let _ = answer.send(());
            }
            Command::Snapshot(answer) => {
                let _ = answer.send(self.state.snapshot());
            }
            Command::Shutdown => {}
        }
    }

    /// Dumps what is asked for, and `again` what was dumped before. What is asked for gets a second
    /// look later, even if the second look of others comes just now.
    async fn redump(&mut self, again: BTreeSet<DumpKind>) {
        let asked = self.state.take_dumps();
        let start = Instant::now();
        let mut pause = DUMP_PAUSE;
        for &kind in asked.union(&again) {
            if let Err(error) = self.dump(kind).await {
                self.stats.dump_failures += 1;
                tracing::warn!(?kind, %error, "kernel dump failed; trying again");
                self.state.request_dump([kind]);
                pause = DUMP_RETRY;
                // What is left of the answer is not for the next request.
                if let Ok(fresh) = NetlinkSocket::open() {
                    self.requests = fresh;
                }
            }
        }
        let took = start.elapsed();
        self.stats.last_dump_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.dump_pause = Instant::now() + pause.max(took * DUMP_SHARE);
        // Asked for again and again, it is looked at again and again: the last time counts.
        let at = Instant::now() + SETTLE;
        self.settle.extend(asked.into_iter().map(|kind| (kind, at)));
    }

    async fn dump(&mut self, kind: DumpKind) -> Result<(), SocketError> {
        for attempt in 1..=DUMP_ATTEMPTS {
            let mut dump = self.state.begin_dump(kind);
            self.stats.dumps += 1;
            let state = &mut self.state;
            let mut malformed = 0;
            let each = |frame: &Frame<'_>| match parse(frame) {
                Some(Message::Ignored) => {}
                Some(message) => {
                    tracing::trace!(?message, "in a dump");
                    state.add_to_dump(&mut dump, message);
                }
                // It would be no better the next time.
                None => malformed += 1,
            };
            let end = match question(kind) {
                Some(question) => self.requests.dump(question, each).await,
                None => self.requests.dump(GetNexthops, each).await,
            };
            self.stats.malformed += malformed;
            let end = match end {
                // A kernel without IPv6, or older than next-hop objects.
                Err(error) if is_absent(kind, error.errno()) => DumpEnd::Complete,
                other => other?,
            };
            if end == DumpEnd::Interrupted && attempt < DUMP_ATTEMPTS {
                continue;
            }
            if end == DumpEnd::Interrupted {
                // It may lack something: what notifications say counts, and the next dump.
                self.state.request_dump([kind]);
            }
            self.stats.corrections += self.state.end_dump(dump) as u64;
            return Ok(());
        }
        Ok(())
    }

    fn publish_stats(&mut self) {
        let gauges = self.state.gauges();
        let keeper = self.keeper.counts();
        self.stats.routes = gauges.routes as u64;
        self.stats.nexthops = gauges.nexthops as u64;
        self.stats.neighbors = gauges.neighbors as u64;
        self.stats.foreign = gauges.foreign as u64;
        self.stats.unsupported = gauges.unsupported as u64;
        self.stats.down = gauges.down as u64;
        self.stats.resolve_sent = keeper.sent;
        self.stats.resolve_limited = keeper.limited;
        self.stats.resolve_refused = keeper.refused;
        self.publish.send_replace(self.stats);
    }
}

/// The kernel's number of a tap, its interface and its VPC.
fn numbered(tap: &TapInterface) -> (u32, InterfaceId, VpcId) {
    (tap.ifindex, tap.interface.id, tap.interface.vpc)
}

fn devices(interfaces: &[TapInterface]) -> std::collections::HashMap<InterfaceId, u32> {
    let numbered = interfaces.iter().map(numbered);
    numbered.map(|(index, id, _)| (id, index)).collect()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether the kernel does not know that kind at all.
fn is_absent(kind: DumpKind, errno: Option<Errno>) -> bool {
    matches!(kind, DumpKind::Nexthops | DumpKind::RoutesV6)
        && matches!(errno, Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT))
}

/// What asks for one kind, but for next-hop objects.
fn question(kind: DumpKind) -> Option<RouteNetlinkMessage> {
    let routes = |family| {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        RouteNetlinkMessage::GetRoute(message)
    };
    match kind {
        DumpKind::Links => Some(RouteNetlinkMessage::GetLink(LinkMessage::default())),
        DumpKind::Nexthops => None,
        DumpKind::Neighbors => {
            let message = NeighbourMessage::default();
            Some(RouteNetlinkMessage::GetNeighbour(message))
        }
        DumpKind::RoutesV4 => Some(routes(AddressFamily::Inet)),
        DumpKind::RoutesV6 => Some(routes(AddressFamily::Inet6)),
    }
}
