//! The bounded rings between one worker and the installer.
//!
//! ```text
//!   worker thread            commands             installer task
//!   WorkerPort::submit  ──────────────────────▶  InstallerPort::take
//!   WorkerPort::poll    ◀──────────────────────  InstallerPort::send
//!                             events
//! ```
//!
//! Single producer, single consumer, no locks: the worker never waits. A command that finds
//! the ring full is refused ([`Full`]), and the flow stays in software. The installer sleeps
//! when the ring is empty; the worker pays for a wake-up only when it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use shunt_p4::FlowPair;

/// The usual capacity of [`channel`], commands and events each.
pub const QUEUE_CAPACITY: usize = 16 * 1024;

/// A connection as its worker numbers it; the generation tells apart the users of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Index in the worker's table.
    pub slot: u32,
    /// Counts the connections that had the slot.
    pub generation: u32,
}

impl ConnectionId {
    /// Both parts.
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self { slot, generation }
    }

    /// As one number: the generation in the upper half.
    pub const fn as_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The reverse of [`ConnectionId::as_u64`].
    pub const fn from_u64(value: u64) -> Self {
        Self {
            slot: value as u32,
            generation: (value >> 32) as u32,
        }
    }
}

/// Both directions of a connection; they are in hardware together or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadUnit {
    /// Whose.
    pub id: ConnectionId,
    /// Both directions; their keys differ.
    pub flows: FlowPair,
    /// When the connection's first packet arrived ([`crate::Clock`]).
    pub first_packet_ns: u64,
    /// When the worker decided to offload it.
    pub decided_ns: u64,
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // half of all commands are the large one
pub enum OffloadCommand {
    /// Both entries into hardware. Answered with `Installed` or `Refused`, unless a `Remove`
    /// overtakes it; then only with `Removed`.
    Install(OffloadUnit),
    /// Both entries out of hardware. Always answered with `Removed`.
    Remove {
        /// Whose.
        id: ConnectionId,
        /// When the worker decided it ([`crate::Clock`]).
        decided_ns: u64,
    },
}

/// Why a unit is not in hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RefuseReason {
    /// The switch's table is full.
    TableFull,
    /// The switch does not accept the entry.
    Rejected,
    /// The switch could not be reached, or kept failing.
    Unavailable,
    /// Another connection of this or another worker holds one of the keys, or the same
    /// connection is already offloaded.
    KeyInUse,
    /// The engine's own limit of units.
    Limit,
    /// Its VPC has its share of the switch's table ([`crate::EnginePolicy`]).
    VpcShare,
    /// The switch says that it failed, and not why; a full table may be behind it.
    Failed,
}

impl RefuseReason {
    /// Every reason, in the order of its number.
    pub const ALL: [RefuseReason; 7] = [
        RefuseReason::TableFull,
        RefuseReason::Rejected,
        RefuseReason::Unavailable,
        RefuseReason::KeyInUse,
        RefuseReason::Limit,
        RefuseReason::VpcShare,
        RefuseReason::Failed,
    ];

    /// Its name in output and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            RefuseReason::TableFull => "table_full",
            RefuseReason::Rejected => "rejected",
            RefuseReason::Unavailable => "unavailable",
            RefuseReason::KeyInUse => "key_in_use",
            RefuseReason::Limit => "limit",
            RefuseReason::VpcShare => "vpc_share",
            RefuseReason::Failed => "failed",
        }
    }
}

/// Why an idle unit had to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EvictReason {
    /// The switch's table is (nearly) full.
    TableFull,
    /// Its VPC has (nearly) its share of the table.
    VpcShare,
}

impl EvictReason {
    /// Every reason, in the order of its number.
    pub const ALL: [EvictReason; 2] = [EvictReason::TableFull, EvictReason::VpcShare];

    /// Its name in output and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            EvictReason::TableFull => "table_full",
            EvictReason::VpcShare => "vpc_share",
        }
    }
}

/// What hardware counted of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardwareCount {
    /// Packets of the originator's direction and of the reply's.
    pub packets: [u64; 2],
    /// Bytes of each, as the switch counts them: frames as they arrived, all headers included.
    pub bytes: [u64; 2],
    /// The last packet of either, as far as is known ([`crate::Clock`]).
    pub last_hit_ns: u64,
}

impl HardwareCount {
    /// Both together: counts add up, the later packet counts.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.packets.iter_mut().zip(other.packets) {
            *mine = mine.saturating_add(theirs);
        }
        for (mine, theirs) in self.bytes.iter_mut().zip(other.bytes) {
            *mine = mine.saturating_add(theirs);
        }
        self.last_hit_ns = self.last_hit_ns.max(other.last_hit_ns);
    }
}

/// What the engine tells the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadEvent {
    /// Both entries are acknowledged.
    Installed(ConnectionId),
    /// None of them is in hardware (what was, was undone); the worker may release what they use.
    Refused(ConnectionId, RefuseReason),
    /// Both are acknowledged gone. The answer to every `Remove`, also of a unit that never was.
    Removed(ConnectionId),
    /// No packet hit either entry for the idle timeout: the worker ends the connection and
    /// sends `Remove`.
    Idle(ConnectionId),
    /// One direction was idle, the other was not: the connection lives.
    Active(ConnectionId),
    /// The hardware lost both, and they could not be put back.
    Lost(ConnectionId),
    /// Others needed its place more, as it was idle: none of its entries is in hardware.
    Evicted(ConnectionId),
    /// What hardware counted since it was installed or since the last `Counted`. Comes before
    /// what takes it out of hardware (`Removed`, `Lost`, `Evicted`), and after the switch has
    /// lost its counters. Packets between the last reading and the removal are not in it.
    Counted(ConnectionId, HardwareCount),
}

/// The ring was full: nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the offload queue is full")
    }
}

impl std::error::Error for Full {}

/// Wakes the installer, but only if it sleeps.
#[derive(Debug, Default)]
struct Doorbell {
    asleep: AtomicBool,
    waker: AtomicWaker,
}

impl Doorbell {
    /// After a push. The fence pairs with the one in [`InstallerPort::poll_ready`]: either the
    /// worker sees that the installer sleeps, or the installer sees the command.
    fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.waker.wake();
        }
    }
}

/// Rings of `capacity` commands and as many events (at least 1), and their two ends.
pub fn channel(capacity: usize) -> (WorkerPort, InstallerPort) {
    let capacity = capacity.max(1);
    let (command_tx, command_rx) = rtrb::RingBuffer::new(capacity);
    let (event_tx, event_rx) = rtrb::RingBuffer::new(capacity);
    let bell = Arc::new(Doorbell::default());
    (
        WorkerPort {
            commands: Some(command_tx),
            events: event_rx,
            bell: Arc::clone(&bell),
        },
        InstallerPort {
            commands: command_rx,
            events: event_tx,
            bell,
        },
    )
}

/// The worker's end; lives on its thread.
#[derive(Debug)]
pub struct WorkerPort {
    commands: Option<rtrb::Producer<OffloadCommand>>, // None only while dropping
    events: rtrb::Consumer<OffloadEvent>,
    bell: Arc<Doorbell>,
}

impl WorkerPort {
    /// Queues a command; never waits. The ring is also full when the engine has gone.
    ///
    /// # Errors
    /// [`Full`]: the flow stays in software, or a `Remove` is to be submitted again.
    pub fn submit(&mut self, command: OffloadCommand) -> Result<(), Full> {
        self.queue(command)?;
        self.ring();
        Ok(())
    }

    /// As [`WorkerPort::submit`], but an engine that sleeps hears of it by [`WorkerPort::ring`]
    /// only: once for several commands, because it waits until memory has taken all of them.
    ///
    /// # Errors
    /// As [`WorkerPort::submit`].
    #[inline]
    pub fn queue(&mut self, command: OffloadCommand) -> Result<(), Full> {
        let commands = self.commands.as_mut().ok_or(Full)?;
        commands.push(command).map_err(|_| Full)
    }

    /// Wakes the engine if it sleeps.
    #[inline]
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// The next event, if there is one.
    pub fn poll(&mut self) -> Option<OffloadEvent> {
        self.events.pop().ok()
    }

    /// As many events as there are and fit, from the first one on; how many.
    #[inline]
    pub fn poll_into(&mut self, events: &mut [Option<OffloadEvent>]) -> usize {
        let there = self.events.slots().min(events.len());
        let Ok(chunk) = self.events.read_chunk(there) else {
            return 0;
        };
        for (event, place) in chunk.into_iter().zip(events) {
            *place = Some(event);
        }
        there
    }

    /// How many more commands fit now.
    pub fn free(&self) -> usize {
        self.commands.as_ref().map_or(0, rtrb::Producer::slots)
    }

    /// Whether the engine has gone: nothing will be answered any more.
    pub fn is_closed(&self) -> bool {
        self.events.is_abandoned()
    }
}

impl Drop for WorkerPort {
    fn drop(&mut self) {
        // The ring first, so that the installer that wakes up finds it abandoned.
        self.commands = None;
        self.bell.ring();
    }
}

/// The installer's end.
#[derive(Debug)]
pub struct InstallerPort {
    commands: rtrb::Consumer<OffloadCommand>,
    events: rtrb::Producer<OffloadEvent>,
    bell: Arc<Doorbell>,
}

impl InstallerPort {
    /// The next command, if there is one.
    #[inline]
    pub fn take(&mut self) -> Option<OffloadCommand> {
        self.commands.pop().ok()
    }

    /// Whether [`InstallerPort::take`] has something, or the worker has gone; if neither, the
    /// task is woken when that changes.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_ready() {
            return Poll::Ready(());
        }
        self.bell.waker.register(cx.waker());
        self.bell.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.is_ready() {
            self.bell.asleep.store(false, Ordering::Relaxed);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn is_ready(&self) -> bool {
        !self.commands.is_empty() || self.commands.is_abandoned()
    }

    /// Hands an event to the worker.
    ///
    /// # Errors
    /// The event back when the ring is full.
    #[inline] // else it would be written twice
    pub fn send(&mut self, event: OffloadEvent) -> Result<(), OffloadEvent> {
        self.events
            .push(event)
            .map_err(|rtrb::PushError::Full(event)| event)
    }

    /// Whether the next command of the worker would find no room.
    pub fn is_full(&self) -> bool {
        self.commands.slots() >= self.commands.buffer().capacity()
    }

    /// Commands that wait.
    pub fn queued(&self) -> usize {
        self.commands.slots()
    }

    /// Whether the worker has gone and everything that it asked for was taken.
    pub fn is_closed(&self) -> bool {
        self.commands.is_abandoned() && self.commands.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remove(n: u64) -> OffloadCommand {
        OffloadCommand::Remove {
            id: ConnectionId::from_u64(n),
            decided_ns: 0,
        }
    }

    #[test]
    fn ids_round_trip() {
        let id = ConnectionId::new(7, u32::MAX);
        assert_eq!(ConnectionId::from_u64(id.as_u64()), id);
    }

    #[test]
    fn a_full_ring_gives_the_command_back() {
        let (mut worker, mut installer) = channel(2);
        worker.submit(remove(1)).unwrap();
        worker.submit(remove(2)).unwrap();
        assert_eq!(worker.submit(remove(3)), Err(Full));
        assert_eq!(installer.take(), Some(remove(1)));
        worker.submit(remove(3)).unwrap();
        assert_eq!(installer.queued(), 2);
    }

    #[test]
    fn the_worker_s_last_commands_are_not_lost() {
        let (mut worker, mut installer) = channel(4);
        worker.submit(remove(1)).unwrap();
        drop(worker);
        assert!(!installer.is_closed());
        assert_eq!(installer.take(), Some(remove(1)));
        assert!(installer.is_closed());
    }

    /// Every command arrives although the installer falls asleep whenever the ring is empty.
    #[test]
    fn no_wake_up_is_lost() {
        const COMMANDS: u64 = 200_000;
        let (mut worker, mut installer) = channel(64);
        let producer = std::thread::spawn(move || {
            for n in 0..COMMANDS {
                while worker.queue(remove(n)).is_err() {
                    worker.ring();
                    std::thread::yield_now();
                }
                // Now and then for several.
                if n % 5 != 0 {
                    worker.ring();
                }
                if n % 97 == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut next = 0;
            while next < COMMANDS {
                let ready = std::future::poll_fn(|cx| installer.poll_ready(cx));
                tokio::time::timeout(std::time::Duration::from_secs(20), ready)
                    .await
                    .expect("a wake-up was lost");
                while let Some(command) = installer.take() {
                    assert_eq!(command, remove(next));
                    next += 1;
                }
            }
        });
        producer.join().unwrap();
    }

    #[test]
    fn events_reach_the_worker_in_order() {
        let (mut worker, mut installer) = channel(1);
        let id = ConnectionId::new(1, 1);
        installer.send(OffloadEvent::Installed(id)).unwrap();
        assert_eq!(
            installer.send(OffloadEvent::Removed(id)),
            Err(OffloadEvent::Removed(id))
        );
        assert_eq!(worker.poll(), Some(OffloadEvent::Installed(id)));
        assert_eq!(worker.poll(), None);
        drop(installer);
        assert!(worker.is_closed());
    }
}
