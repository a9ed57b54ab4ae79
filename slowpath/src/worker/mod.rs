//! A worker: everything that one thread does with packets, without a lock and without DPDK.
//!
//! ```text
//!   frame from the switch
//!     │ burst.rs    all frames of a burst are read before the first takes its way:
//!     │ early.rs    whose a plain packet is, with several workers (owner.rs: any packet)
//!     │ fast.rs     the short way of plain packets of connections that we have;
//!     │ fresh.rs    that of plain packets that begin one; else:
//!     │ walk.rs     shunt header → interface, VPC → parse → connection, or
//!     │ admit.rs      new: policy, NAT, route → connection → table
//!     │ egress.rs   route → TTL, MTU → rewrite → neighbour → header for the switch
//!     │ related.rs  ICMP errors, through the connection that they quote
//!     │ fragment.rs fragments, by the ports of the first one
//!     │ hairpin.rs  from inside to an outside address that is another worker's
//!     │ cut.rs      packets that are too big for the way out
//!     │ offload.rs  what the connection's hardware entries need now (wants.rs: when)
//!     │ adopt.rs    connections of the daemon before, after a restart
//!     │ review.rs   connections that a change of the tables contradicts
//!     ▼
//!   Verdict: transmit · dropped · to the kernel · held for a neighbour
//! ```
//!
//! [`Worker::process`] takes one frame, [`Worker::burst`] many, [`Worker::poll`] everything that
//! no frame brings: events of the offload engine, timers, held packets, frames from the kernel.
//! Time is an argument, so a test lives through a connection's two hours in a microsecond.
//! [`run`] drives a worker on DPDK. [`Worker::trace`] says what a frame would meet.

mod admit;
mod adopt;
mod burst;
mod cut;
mod early;
mod egress;
pub mod fair;
mod fast;
mod fragment;
mod fresh;
mod hairpin;
mod hold;
mod hops;
mod nat_use;
mod offload;
mod owner;
mod peers;
mod quota;
mod related;
mod review;
pub mod run;
mod trace;
mod view;
mod walk;
mod wants;
mod ways;

use std::collections::HashMap;
use std::sync::Arc;

use shunt_offload::{ConnectionId, HardwareCount, WorkerPort};
use shunt_p4::frame::{ENCAP_LEN, ShuntHeader};
use shunt_p4::{SwitchIndex, Tuple, VpcId};

use crate::conntrack::{KeyHasher, Offload, State, Table};
use crate::exception::ExceptionPort;
use crate::fib::{Fib, FibReader};
use crate::icmp::RateLimit;
use crate::nat::{Nat, PoolUse, PortShare};
use crate::packet::PacketBuf;
use crate::record::{Counters, Records};
use crate::stats::{DropReason, WorkerStats};

pub use adopt::{Former, Refusal, Restored, Source};
pub use cut::MAX_CUT;
pub use early::MAX_DESTINATIONS;
pub use fragment::{MAX_FRAGMENTED, MAX_HELD_FRAGMENTS, MAX_HELD_PER_PACKET};
pub use hold::{MAX_HELD, MAX_RESOLVING, RESOLVE_INTERVAL_NS};
pub use hops::{MAX_HOPS, MAX_NUMBERED};
pub use nat_use::RuleUse;
pub use quota::{MAX_SOURCES, SharedQuotas};
pub use review::{REVIEW_SLOTS, Reviewed};
pub use trace::{Step, Trace};
pub use view::{FlowFilter, FlowSide, FlowView};

/// Offload events and kernel frames that one poll takes, each, so that none starves the
/// packets.
pub const POLL_BUDGET: usize = 256;

/// Timers that one poll takes. When a tick of the wheel is over many fire together; packets
/// are not to wait for all of them, but connections must end as fast as a burst makes them.
pub const TIMER_BUDGET: usize = 64;

/// Ports tried for a masqueraded connection whose translated tuple another connection has.
pub const MAX_PORT_TRIES: u32 = 4;

/// How often a frame is handed over at most, as it came: see `fragment.rs`.
pub const MAX_HANDOVERS: usize = 2;

/// What a worker is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Connections that it tracks at most.
    pub max_connections: u32,
    /// Keys the hash and starts the ports. Random in production.
    pub seed: u64,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The buffer now has the frame to send to the switch.
    Transmit,
    /// The packet was dropped; the buffer has an ICMP error for its sender, to send.
    Answered(DropReason),
    /// Nothing is to be sent.
    Drop(DropReason),
    /// It went to the kernel.
    Exception,
    /// It waits for its next hop's MAC.
    Held,
    /// It belongs to that worker; the buffer is as the switch sent it.
    Handover(u16),
    /// It goes to another host inside, by way of that worker; the buffer is for
    /// [`Worker::burst_handed`] there.
    Hairpin(u16),
}

impl Verdict {
    /// Whether the buffer is to be sent to the switch.
    pub const fn is_transmit(self) -> bool {
        matches!(self, Verdict::Transmit | Verdict::Answered(_))
    }
}

/// Where frames go that no received frame brought along.
pub trait Output {
    /// Sends `head` followed by `frame` to the switch. `false`: no buffer for it.
    fn transmit(&mut self, head: &[u8], frame: &[u8]) -> bool;

    /// Hands a frame of the switch to another worker. `false`: that takes none.
    fn hand_over(&mut self, _worker: u16, _frame: &[u8]) -> bool {
        false
    }
}

impl Output for Vec<Vec<u8>> {
    fn transmit(&mut self, head: &[u8], frame: &[u8]) -> bool {
        self.push([head, frame].concat());
        true
    }
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    reader: FibReader,
    core: Core,
}

/// Everything but the tables, so that both can be borrowed at once.
#[derive(Debug)]
struct Core {
    table: Table,
    nat: Nat,
    quotas: quota::Quotas,
    hold: hold::Hold,
    hops: hops::Hops,
    destinations: early::Destinations,
    fragments: fragment::Fragments,
    outbox: cut::Outbox,
    ways: ways::Ways,
    exception: ExceptionPort,
    /// What hardware counted of connections that have been in it and left it, by slot.
    hardware: HashMap<u32, HardwareCount, ahash::RandomState>,
    /// Bytes in the second at hand, by slot, while the policy asks for a rate.
    windows: Vec<wants::Window>,
    icmp_limit: RateLimit,
    /// Which of how many workers it is.
    share: PortShare,
    /// Spreads connections over workers; all have the same.
    spread: KeyHasher,
    /// The frames at hand were handed over by other workers, who have counted them.
    handed: bool,
    /// The frame at hand is known to belong to nobody else.
    ours: bool,
    /// The frame at hand is from inside, by way of its first half (`hairpin.rs`).
    hairpinned: bool,
    /// The switch that the frames at hand came from; none where that has been looked at already.
    arrival: Option<SwitchIndex>,
    /// Connections of the daemon before are not all taken back yet.
    starting: bool,
    /// Where connections are written down, for the next daemon.
    records: Option<Records>,
    stats: WorkerStats,
    review: review::Review,
    /// The tables' generation at the last poll.
    generation: u64,
}

impl Worker {
    /// A worker without connections, alone, with one switch.
    pub fn new(
        config: WorkerConfig,
        reader: FibReader,
        offload: WorkerPort,
        exception: ExceptionPort,
    ) -> Self {
        let quotas = Arc::new(SharedQuotas::new(1, config.max_connections, config.seed));
        let share = PortShare::ALL;
        Self::shared(config, share, quotas, reader, vec![offload], exception)
    }

    /// One of several workers, which all have the same seed and quotas. `offload`: by switch.
    pub fn shared(
        config: WorkerConfig,
        share: PortShare,
        quotas: Arc<SharedQuotas>,
        reader: FibReader,
        offload: Vec<WorkerPort>,
        exception: ExceptionPort,
    ) -> Self {
        Self {
            reader,
            core: Core {
                table: Table::new(config.max_connections, config.seed),
                nat: Nat::shared(config.max_connections, config.seed, share),
                quotas: quota::Quotas::new(quotas, share.worker),
                hold: hold::Hold::default(),
                hops: hops::Hops::new(config.seed),
                destinations: early::Destinations::new(config.seed, share),
                fragments: fragment::Fragments::new(config.seed),
                outbox: cut::Outbox::default(),
                ways: ways::Ways::new(offload),
                exception,
                hardware: HashMap::default(),
                windows: Vec::new(),
                icmp_limit: RateLimit::default(),
                share,
                spread: KeyHasher::new(config.seed),
                handed: false,
                ours: false,
                hairpinned: false,
                arrival: None,
                starting: false,
                records: None,
                stats: WorkerStats::default(),
                review: review::Review::default(),
                generation: 0,
            },
        }
    }

    /// Writes its connections down there from now on. Ports start elsewhere than the seed says,
    /// which may be the one of the daemon before.
    pub fn keep_records(&mut self, records: Records, ports: u64) {
        self.core.records = Some(records);
        self.core.nat.start_anew(ports);
    }

    /// Takes one frame from the first switch. If the verdict says so, the buffer is to be sent. It goes
    /// the long way ([`Worker::burst`] knows a short one, with the same outcome).
    pub fn process<B: PacketBuf>(&mut self, now_ns: u64, frame: &mut B) -> Verdict {
        let Self { reader, core } = self;
        let fib = reader.enter();
        core.arrival = Some(SwitchIndex::MIN);
        core.stats.received.add(frame.data().len());
        let seen = match &fib {
            Some(fib) => core.process(fib, now_ns, frame),
            None => {
                core.stats.drop(DropReason::NoTables, None);
                Verdict::Drop(DropReason::NoTables)
            }
        };
        if seen.is_transmit() {
            core.stats.sent.add(frame.data().len());
        }
        drop(fib);
        core.exception.flush();
        core.ways.ring();
        seen
    }

    /// As [`Worker::burst_from`] the first switch.
    pub fn burst<B: PacketBuf>(
        &mut self,
        now_ns: u64,
        frames: &mut [B],
        verdict: impl FnMut(usize, Verdict),
    ) {
        self.burst_from(SwitchIndex::MIN, now_ns, frames, verdict);
    }

    /// Takes frames from a switch, with the same tables for all of them; tells the verdict on
    /// each, by its number. A frame that names an interface of another switch is dropped.
    pub fn burst_from<B: PacketBuf>(
        &mut self,
        switch: SwitchIndex,
        now_ns: u64,
        frames: &mut [B],
        verdict: impl FnMut(usize, Verdict),
    ) {
        self.core.arrival = Some(switch);
        self.bursts(now_ns, frames, verdict);
    }

    fn bursts<B: PacketBuf>(
        &mut self,
        now_ns: u64,
        frames: &mut [B],
        mut verdict: impl FnMut(usize, Verdict),
    ) {
        let Self { reader, core } = self;
        let fib = reader.enter();
        let mut first = 0;
        for frames in frames.chunks_mut(burst::STAGED) {
            match &fib {
                Some(fib) => core.burst(fib, now_ns, frames, |n, seen| verdict(first + n, seen)),
                None => {
                    for (n, frame) in frames.iter().enumerate() {
                        core.count_received(frame.data().len());
                        core.stats.drop(DropReason::NoTables, None);
                        verdict(first + n, Verdict::Drop(DropReason::NoTables));
                    }
                }
            }
            first += frames.len();
        }
        drop(fib);
        core.exception.flush();
        core.ways.ring();
    }

    /// As [`Worker::burst`], of frames that other workers handed over.
    pub fn burst_handed<B: PacketBuf>(
        &mut self,
        now_ns: u64,
        frames: &mut [B],
        verdict: impl FnMut(usize, Verdict),
    ) {
        self.core.handed = true;
        self.core.arrival = None;
        self.bursts(now_ns, frames, verdict);
        self.core.handed = false;
    }

    /// Does what no frame brings along, a bounded amount of it: events of the offload engine,
    /// timers, packets whose neighbour became known, frames from the kernel. Says how much.
    pub fn poll<O: Output>(&mut self, now_ns: u64, output: &mut O) -> usize {
        let Self { reader, core } = self;
        let Some(fib) = reader.enter() else {
            return 0;
        };
        // What waited was looked at when it came.
        core.arrival = None;
        let mut work = core.poll_offload(&fib, now_ns);
        work += core.poll_review(&fib, now_ns);
        work += core.poll_uncounted(&fib, now_ns);
        work += core.poll_timers(&fib, now_ns);
        work += core.poll_outbox(output);
        work += core.poll_held(&fib, now_ns, output);
        work += core.poll_fragments(&fib, now_ns, output);
        drop(fib);
        work += core.poll_kernel(output);
        core.exception.flush();
        core.ways.ring();
        if let Some(records) = &core.records {
            records.beat(now_ns);
        }
        work
    }

    /// What it counted so far.
    pub fn stats(&self) -> &WorkerStats {
        &self.core.stats
    }

    /// Frames that were to be sent and could not be.
    pub fn count_unsent(&mut self, reason: DropReason, frames: usize) {
        for _ in 0..frames {
            self.core.stats.drop(reason, None);
        }
    }

    /// A frame was dropped before it was walked, because its VPC sends too many.
    pub fn count_queue_full(&mut self, vpc: u16, len: usize) {
        self.core.stats.received.add(len);
        self.core
            .stats
            .drop(DropReason::VpcQueueFull, VpcId::new(vpc));
    }

    /// Frames of a VPC that are walked in one turn, when more wait than there is time for.
    pub fn weight(&self, vpc: u16) -> u16 {
        let fib = self.reader.enter();
        let weight = |fib: &Fib| Some(fib.policy().weight(VpcId::new(vpc)?));
        fib.and_then(|fib| weight(&fib))
            .unwrap_or(fair::DEFAULT_WEIGHT)
    }

    /// How far it is with its connections after a change of the tables.
    pub fn reviewed(&self) -> Reviewed {
        self.core.review.done()
    }

    /// Connections that it tracks.
    pub fn connections(&self) -> usize {
        self.core.table.len()
    }

    /// Connections in each state, and how many are in hardware, among at most `scan` slots from
    /// `from` on; and the slot to go on from, `None` at the end.
    pub fn census(&self, from: u32, scan: u32) -> (Census, Option<u32>) {
        let table = &self.core.table;
        let end = from.saturating_add(scan).min(table.slots());
        let mut census = Census::default();
        for connection in (from..end).filter_map(|slot| table.get(slot)) {
            census.by_state[connection.tracker.state() as usize] += 1;
            census.offloaded += u64::from(connection.place.offload() == Offload::Installed);
        }
        (census, (end < table.slots()).then_some(end))
    }

    /// Ports that its connections lease.
    pub fn pool_use(&self) -> Vec<PoolUse> {
        self.core.nat.pool_use().collect()
    }
}

/// How many connections are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// In the order of [`State::ALL`].
    pub by_state: [u64; State::ALL.len()],
    /// With both entries in hardware.
    pub offloaded: u64,
}

impl Census {
    /// Adds another worker's.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.by_state.iter_mut().zip(other.by_state) {
            *mine += theirs;
        }
        self.offloaded += other.offloaded;
    }
}

/// Why a packet goes no further, and where it does go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Drop(DropReason),
    /// Dropped, and its sender is told why.
    Answer(DropReason, crate::icmp::IcmpError),
    /// To the kernel, as it arrived.
    Kernel(crate::exception::ExceptionReason),
    /// To the worker that it belongs to, as it arrived.
    Handover(u16),
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Self {
        Stop::Drop(reason)
    }
}

/// Where a packet came in.
#[derive(Clone, Copy, Debug)]
struct Ingress<'a> {
    /// As the switch said it.
    header: ShuntHeader,
    interface: &'a shunt_p4::Interface,
    vpc: VpcId,
    stateless: bool,
    hash: u32,
}

impl Core {
    #[inline]
    fn count_received(&mut self, len: usize) {
        if !self.handed {
            self.stats.received.add(len);
        }
    }

    /// Why the switch sent a packet.
    #[inline]
    fn count_punt(&mut self, reason: u8) {
        if !self.handed {
            self.stats.punt(reason);
        }
    }

    fn poll_kernel<O: Output>(&mut self, output: &mut O) -> usize {
        let mut frames = 0;
        while frames < POLL_BUDGET {
            let Some((interface, frame)) = self.exception.pop() else {
                break;
            };
            frames += 1;
            self.stats.exceptions_down.add(frame.len());
            let head = ShuntHeader::egress(interface).encode();
            self.send(output, &head, &frame);
        }
        frames
    }

    fn send<O: Output>(&mut self, output: &mut O, head: &[u8], frame: &[u8]) {
        if output.transmit(head, frame) {
            self.stats.sent.add(head.len() + frame.len());
        } else {
            self.stats.drop(DropReason::NoBuffer, None);
        }
    }

    /// Writes a new connection down.
    #[inline]
    fn record(&self, slot: u32) {
        if let Some(records) = &self.records
            && let Some(connection) = self.table.get(slot)
        {
            records.write(slot, connection);
        }
    }

    /// Writes a connection's state down, which has changed.
    #[inline]
    fn note(&self, slot: u32) {
        if let Some(records) = &self.records
            && let Some(connection) = self.table.get(slot)
        {
            records.note(slot, connection);
        }
    }

    /// Writes down what was counted of a connection, but in what is in hardware now.
    fn write_counts(&self, slot: u32) {
        let (Some(records), Some(connection)) = (&self.records, self.table.get(slot)) else {
            return;
        };
        let mut counted = Counters {
            packets: connection.packets.both(),
            bytes: connection.bytes,
        };
        if let Some(left) = self.hardware.get(&slot) {
            let sums = counted.packets.iter_mut().chain(&mut counted.bytes);
            for (sum, more) in sums.zip(left.packets.iter().chain(&left.bytes)) {
                *sum = sum.saturating_add(*more);
            }
        }
        records.count(slot, &counted);
    }

    /// How the offload engine calls the connection in a slot.
    fn id(&self, slot: u32) -> ConnectionId {
        self.table.id(slot)
    }
}

/// A packet's tuple, and what it is turned into.
#[derive(Clone, Copy, Debug)]
struct Rewrite {
    from: Tuple,
    to: Tuple,
}

/// Bytes of the destination MAC in a frame on its way to the switch.
const DST_MAC: std::ops::Range<usize> = ENCAP_LEN..ENCAP_LEN + 6;

/// A worker is made on one thread and runs on another.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Worker>();
};
