//! The loop that drives a worker on DPDK, until it is told to stop.
//!
//! ```text
//!   rx burst ──▶ Worker::burst ──▶ tx burst ──▶ Worker::poll ──▶ commands ──▶ again
//!   of each switch in turn          to the switch of the interface that a frame leaves by
//!                     ▲  │ not mine                            └─ nothing to do for SPINS rounds: sleep
//!    other workers ───┘  └──▶ other workers (a ring for each pair)
//! ```
//!
//! A port may have fewer queues than there are workers. Then those without one send through the
//! first worker, which hands them what it receives for them.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use shunt_dpdk::{Burst, Mbuf, Pool, RxQueue, TxQueue};
use shunt_offload::Clock;
use shunt_p4::{InterfaceId, ShuntHeader, SwitchIndex};

pub use super::peers::{HANDOVER_COPIED, HANDOVER_FRAMES, Peers};

use super::fair::Fair;
use super::{Output, Verdict, Worker};
use crate::fib::FibReader;
use crate::stats::DropReason;

/// Rounds without work before the first sleep.
pub const SPINS: u32 = 64;

/// Times a full transmit queue is offered the rest of a burst before that is dropped.
pub const TX_TRIES: u32 = 16;

/// What the manager asks of a worker, between two bursts. It may look and change; it must be
/// short, because packets wait.
pub type Command = Box<dyn FnOnce(&mut Worker, u64) + Send>;

/// Bursts that are taken from an overloaded port between two that are walked, at most.
pub const SORTED_BURSTS: usize = 32;

/// The queues of one worker.
#[derive(Debug)]
pub struct Queues {
    /// Towards the switches, by switch.
    pub wires: Vec<Wire>,
    /// Towards the other workers.
    pub peers: Peers,
    /// Where buffers for our own frames come from.
    pub pool: Pool,
    /// Which switch an interface is on.
    pub tables: FibReader,
}

/// How a worker reaches a switch.
#[derive(Debug)]
pub enum Wire {
    /// By queues of its own.
    Port {
        /// From the switch.
        rx: RxQueue,
        /// To the switch.
        tx: TxQueue,
        /// Frames of workers without queues, to be sent for them.
        others: Vec<rtrb::Consumer<Mbuf>>,
    },
    /// Through a worker with queues: what it receives, that one hands over.
    Through(rtrb::Producer<Mbuf>),
}

/// A worker and its queues.
#[derive(Debug)]
pub struct Runner {
    worker: Worker,
    /// By switch.
    links: Vec<Link>,
    peers: Peers,
    pool: Pool,
    tables: FibReader,
    received: Burst,
}

/// A switch, from a worker's side.
#[derive(Debug)]
struct Link {
    wire: Wire,
    /// What came, sorted, when more comes than is walked.
    fair: Fair<Mbuf>,
    /// What is to be sent.
    burst: Burst,
}

/// What becomes of a frame of a burst.
#[derive(Clone, Copy)]
enum Fate {
    Free,
    Send,
    HandOver(u16),
}

impl From<Verdict> for Fate {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Handover(worker) | Verdict::Hairpin(worker) => Fate::HandOver(worker),
            verdict if verdict.is_transmit() => Fate::Send,
            _ => Fate::Free,
        }
    }
}

impl Runner {
    /// Nothing happens before the first [`Runner::round`].
    pub fn new(worker: Worker, queues: Queues) -> Self {
        Self {
            worker,
            links: links(queues.wires),
            peers: queues.peers,
            pool: queues.pool,
            tables: queues.tables,
            received: Burst::new(),
        }
    }

    /// One turn: a burst of each switch and one of each other worker, then what no frame brings
    /// along. Says how much it did.
    pub fn round(&mut self, clock: impl Fn() -> u64) -> usize {
        let Self {
            worker,
            links,
            peers,
            pool,
            tables,
            received,
        } = self;
        let sources = peers.sources();
        let mut sender = Sender {
            links,
            peers,
            pool,
            tables,
            unsent: 0,
            no_switch: 0,
            not_handed: 0,
        };
        let mut fates = [Fate::Free; shunt_dpdk::CAPACITY];
        let mut work = 0;
        for n in 0..sender.links.len() {
            let got = match sender.links.get_mut(n) {
                Some(Link {
                    wire: Wire::Port { rx, .. },
                    fair,
                    ..
                }) => receive(worker, rx, fair, received),
                _ => 0,
            };
            if got == 0 {
                continue;
            }
            work += got;
            worker.burst_from(SwitchIndex::of(n), clock(), received, |n, verdict| {
                if let Some(fate) = fates.get_mut(n) {
                    *fate = verdict.into();
                }
            });
            sender.take(received, &fates);
        }
        for ring in 0..sources {
            let got = sender.peers.receive(ring, received, sender.pool);
            if got == 0 {
                continue;
            }
            work += got;
            worker.burst_handed(clock(), received, |n, verdict| {
                if let Some(fate) = fates.get_mut(n) {
                    *fate = verdict.into();
                }
            });
            sender.take(received, &fates);
        }
        work += worker.poll(clock(), &mut sender);
        work += sender.send_for_others();
        sender.flush();
        let (unsent, not_handed) = (sender.unsent, sender.not_handed);
        let no_switch = sender.no_switch;
        worker.count_unsent(DropReason::NoSwitch, no_switch);
        worker.count_unsent(DropReason::TxFull, unsent);
        worker.count_unsent(DropReason::HandoverFull, not_handed);
        work
    }

    /// Sends what waits back as it came: what a round costs without the worker.
    pub fn reflect(&mut self) {
        for link in &mut self.links {
            if let Wire::Port { rx, tx, .. } = &mut link.wire {
                rx.burst(&mut self.received);
                tx.burst(&mut self.received);
            }
            self.received.clear();
        }
    }

    /// The worker, between two rounds.
    pub fn worker(&mut self) -> &mut Worker {
        &mut self.worker
    }
}

fn links(wires: Vec<Wire>) -> Vec<Link> {
    let wires = wires.into_iter();
    let link = |wire| Link {
        wire,
        fair: Fair::default(),
        burst: Burst::new(),
    };
    wires.map(link).collect()
}

/// A burst of the port. When more waits than one, all that waits is sorted by VPC first, and the
/// burst is what is in turn.
fn receive(
    worker: &mut Worker,
    rx: &mut RxQueue,
    fair: &mut Fair<Mbuf>,
    burst: &mut Burst,
) -> usize {
    rx.burst(burst);
    if fair.is_empty() {
        if !burst.is_full() {
            return burst.len();
        }
        let mut more = Burst::new();
        if rx.burst(&mut more) == 0 {
            return burst.len();
        }
        sort(worker, fair, burst);
        sort(worker, fair, &mut more);
    } else {
        sort(worker, fair, burst);
    }
    for _ in 0..SORTED_BURSTS {
        if rx.burst(burst) == 0 {
            break;
        }
        sort(worker, fair, burst);
    }
    while !burst.is_full() {
        let Some(mbuf) = fair.pop(|vpc| worker.weight(vpc)) else {
            break;
        };
        // There is room.
        let _ = burst.push(mbuf);
    }
    burst.len()
}

/// Each frame into its VPC's queue, or dropped.
fn sort(worker: &mut Worker, fair: &mut Fair<Mbuf>, burst: &mut Burst) {
    for mbuf in burst.drain() {
        let vpc = ShuntHeader::parse(mbuf.data()).map_or(0, |header| header.vpc);
        if let Err(mbuf) = fair.push(vpc, mbuf) {
            worker.count_queue_full(vpc, mbuf.len());
        }
    }
}

/// Moves frames from a ring into the burst, as many as it has room for.
fn fill(burst: &mut Burst, ring: &mut rtrb::Consumer<Mbuf>) -> usize {
    let mut taken = 0;
    while !burst.is_full() {
        let Ok(mbuf) = ring.pop() else { break };
        // There is room.
        let _ = burst.push(mbuf);
        taken += 1;
    }
    taken
}

/// Runs until the manager drops its end of `commands`. Then what waits is still sent.
pub fn run(
    worker: Worker,
    queues: Queues,
    commands: &Receiver<Command>,
    clock: &Clock,
    idle_sleep: Duration,
) {
    let mut runner = Runner::new(worker, queues);
    let mut idle = 0;
    loop {
        let mut work = runner.round(|| clock.now_ns());
        match commands.try_recv() {
            Ok(command) => {
                command(runner.worker(), clock.now_ns());
                work += 1;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
        if work > 0 {
            idle = 0;
        } else {
            idle += 1;
            if idle < SPINS {
                std::hint::spin_loop();
            } else if !idle_sleep.is_zero() {
                idle = SPINS;
                std::thread::sleep(idle_sleep);
            }
        }
    }
}

/// Collects frames into bursts for the transmit queues.
struct Sender<'a> {
    links: &'a mut [Link],
    peers: &'a mut Peers,
    pool: &'a Pool,
    tables: &'a FibReader,
    unsent: usize,
    no_switch: usize,
    not_handed: usize,
}

impl Sender<'_> {
    #[inline]
    fn push(&mut self, mbuf: Mbuf) {
        let link = match &mut *self.links {
            [link] => link,
            links => {
                let place = place(self.tables, mbuf.data());
                match place.and_then(|place| links.get_mut(place)) {
                    Some(link) => link,
                    None => {
                        self.no_switch += 1;
                        return;
                    }
                }
            }
        };
        if let Err(mbuf) = link.burst.push(mbuf) {
            self.unsent += link.flush();
            // Empty now, so it fits.
            let _ = link.burst.push(mbuf);
        }
    }

    /// All frames of a burst, each to where its fate says.
    fn take(&mut self, burst: &mut Burst, fates: &[Fate]) {
        let fates = fates.iter().take(burst.len());
        let all_leave = fates.clone().all(|fate| matches!(fate, Fate::Send));
        if let [link] = &mut *self.links
            && all_leave
        {
            self.unsent += link.flush();
            // Empty now, so they fit.
            link.burst.append(burst);
        }
        for (mbuf, fate) in burst.drain().zip(fates) {
            match fate {
                Fate::Send => self.push(mbuf),
                Fate::HandOver(worker) => self.not_handed += self.peers.push(*worker, mbuf),
                Fate::Free => {}
            }
        }
        self.flush();
    }

    /// Frames of workers that have no queue.
    fn send_for_others(&mut self) -> usize {
        let mut work = 0;
        for link in &mut *self.links {
            let Wire::Port { others, .. } = &mut link.wire else {
                continue;
            };
            let mut rings = std::mem::take(others);
            for ring in &mut rings {
                self.unsent += link.flush();
                work += fill(&mut link.burst, ring);
            }
            if let Wire::Port { others, .. } = &mut link.wire {
                *others = rings;
            }
        }
        work
    }

    fn flush(&mut self) {
        for link in &mut *self.links {
            self.unsent += link.flush();
        }
        self.not_handed += self.peers.flush();
    }

    fn copy(&self, head: &[u8], frame: &[u8]) -> Option<Mbuf> {
        let mut mbuf = self.pool.alloc()?;
        mbuf.extend_from_slice(head)?;
        mbuf.extend_from_slice(frame)?;
        Some(mbuf)
    }
}

/// The switch of the interface that a frame is to leave by.
#[inline(never)] // few have several switches, and all come by here
fn place(tables: &FibReader, frame: &[u8]) -> Option<usize> {
    let interface = InterfaceId::new(ShuntHeader::parse(frame)?.interface)?;
    let tables = tables.enter()?;
    Some(tables.interface(interface)?.switch.place())
}

impl Link {
    /// Sends what was collected; how many frames could not be.
    fn flush(&mut self) -> usize {
        if self.burst.is_empty() {
            return 0;
        }
        match &mut self.wire {
            Wire::Port { tx, .. } => {
                for _ in 0..TX_TRIES {
                    tx.burst(&mut self.burst);
                    if self.burst.is_empty() {
                        return 0;
                    }
                }
                let unsent = self.burst.len();
                self.burst.clear();
                unsent
            }
            Wire::Through(ring) => {
                let unsent = self.burst.drain().filter_map(|mbuf| ring.push(mbuf).err());
                unsent.count()
            }
        }
    }
}

impl Output for Sender<'_> {
    fn transmit(&mut self, head: &[u8], frame: &[u8]) -> bool {
        match self.copy(head, frame) {
            Some(mbuf) => {
                self.push(mbuf);
                true
            }
            None => false,
        }
    }

    fn hand_over(&mut self, worker: u16, frame: &[u8]) -> bool {
        let Some(mbuf) = self.copy(&[], frame) else {
            return false;
        };
        self.not_handed += self.peers.push(worker, mbuf);
        true
    }
}
