//! The exception path: frames between the kernel's taps and the workers.
//!
//! ```text
//!                  ┌────────── one task a worker ─────────┐
//!   worker ──ring──┤ frame → tap of its interface          │──> kernel (ARP, ND, BGP, ping…)
//!                  │ unresolved neighbour → mirror.resolve │
//!                  └───────────────────────────────────────┘
//!                  ┌── one task a tap ──┐   ┌─ one task ─┐
//!   kernel ──tap───┤ read a frame       │──>│ round robin│──ring──> worker ──> switch
//!                  └────────────────────┘   └────────────┘
//! ```
//!
//! Nothing waits for anything: what does not fit is dropped and counted, as a network does. A tap
//! has a share of the way down of its own, so that a busy one does not silence the others.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use shunt_p4::InterfaceId;
use shunt_slowpath::exception::{ExceptionEvent, ExceptionReceiver, ExceptionSender};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tun_rs::AsyncDevice;

use crate::kernel::Tap;

/// Frames from one tap that may wait for the workers.
pub const TAP_QUEUE: usize = 128;
/// Frames from all taps that may.
pub const TAPS_QUEUE: usize = 16_384;
/// Largest frame from a tap: an MTU of 65,535 and the Ethernet header with two tags.
const FRAME_BYTES: usize = 65_535 + 22;
/// Smallest: an Ethernet header (IEEE 802.3).
const FRAME_BYTES_MIN: usize = 14;

/// What went over the exception path, frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ExceptionStats {
    /// Handed to the kernel.
    pub to_kernel: u64,
    /// Not taken by the kernel: the tap is down, or its queue full.
    pub to_kernel_refused: u64,
    /// For an interface without tap, or too short for an Ethernet header.
    pub to_kernel_invalid: u64,
    /// Handed to a worker.
    pub from_kernel: u64,
    /// Dropped because the workers were busy.
    pub from_kernel_dropped: u64,
    /// Neighbours that the workers asked for.
    pub resolves: u64,
}

#[derive(Debug, Default)]
struct Counters {
    to_kernel: AtomicU64,
    to_kernel_refused: AtomicU64,
    to_kernel_invalid: AtomicU64,
    from_kernel: AtomicU64,
    from_kernel_dropped: AtomicU64,
    resolves: AtomicU64,
}

/// Asks for a neighbour; never waits. The mirror's handle is one.
pub trait Resolver: Clone + Send + 'static {
    /// Asks the kernel to resolve an address on an interface.
    fn resolve(&self, interface: InterfaceId, address: IpAddr);
}

impl Resolver for crate::kernel::MirrorHandle {
    fn resolve(&self, interface: InterfaceId, address: IpAddr) {
        crate::kernel::MirrorHandle::resolve(self, interface, address);
    }
}

/// The running exception path. Dropping it stops it too.
pub struct ExceptionPath {
    counters: Arc<Counters>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    devices: Devices,
    /// The task that reads each of them.
    downs: HashMap<InterfaceId, AbortHandle>,
    /// Towards the workers.
    queue: mpsc::Sender<Queued>,
}

impl std::fmt::Debug for ExceptionPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExceptionPath")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Reads its counters from elsewhere.
#[derive(Clone, Debug)]
pub struct ExceptionCounters(Arc<Counters>);

impl ExceptionCounters {
    /// As of now.
    pub fn stats(&self) -> ExceptionStats {
        let counters = &self.0;
        ExceptionStats {
            to_kernel: counters.to_kernel.load(Relaxed),
            to_kernel_refused: counters.to_kernel_refused.load(Relaxed),
            to_kernel_invalid: counters.to_kernel_invalid.load(Relaxed),
            from_kernel: counters.from_kernel.load(Relaxed),
            from_kernel_dropped: counters.from_kernel_dropped.load(Relaxed),
            resolves: counters.resolves.load(Relaxed),
        }
    }
}

/// Shared by the tasks; written when taps come and go.
type Devices = Arc<RwLock<HashMap<InterfaceId, Arc<AsyncDevice>>>>;

/// Starts the tasks; `workers` has each worker's two ends.
pub fn run(
    taps: &[Tap],
    workers: Vec<(ExceptionReceiver, ExceptionSender)>,
    resolver: impl Resolver,
) -> ExceptionPath {
    let counters = Arc::new(Counters::default());
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let devices = Devices::default();
    let mut senders = Vec::with_capacity(workers.len());
    for (receiver, sender) in workers {
        let up = Up {
            devices: Arc::clone(&devices),
            resolver: resolver.clone(),
            counters: Arc::clone(&counters),
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(up.run(receiver)).await;
        });
        senders.push(sender);
    }
    let (queue, frames) = mpsc::channel(TAPS_QUEUE);
    let (to_workers, stopping) = (Arc::clone(&counters), stop.clone());
    tasks.spawn(async move {
        stopping
            .run_until_cancelled(distribute(frames, senders, to_workers))
            .await;
    });
    let mut path = ExceptionPath {
        counters,
        stop,
        tasks,
        devices,
        downs: HashMap::new(),
        queue,
    };
    path.set_taps(taps);
    path
}

impl ExceptionPath {
    /// Frames go to and come from these taps from now on; the devices of others are let go of.
    pub fn set_taps(&mut self, taps: &[Tap]) {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |id: InterfaceId, device: &Arc<AsyncDevice>| {
            let mut taps = taps.iter();
            taps.any(|tap| tap.interface.interface.id == id && Arc::ptr_eq(&tap.device, device))
        };
        let downs = &mut self.downs;
        devices.retain(|id, device| {
            let kept = is_kept(*id, device);
            if !kept && let Some(down) = downs.remove(id) {
                down.abort();
            }
            kept
        });
        // Those that have ended.
        while self.tasks.try_join_next().is_some() {}
        for tap in taps {
            let interface = tap.interface.interface.id;
            if devices.contains_key(&interface) {
                continue;
            }
            devices.insert(interface, Arc::clone(&tap.device));
            let down = Down {
                interface,
                device: Arc::clone(&tap.device),
                share: Arc::new(tokio::sync::Semaphore::new(TAP_QUEUE)),
                queue: self.queue.clone(),
                counters: Arc::clone(&self.counters),
            };
            let stop = self.stop.clone();
            let task = self.tasks.spawn(async move {
                stop.run_until_cancelled(down.run()).await;
            });
            downs.insert(interface, task);
        }
    }

    /// Counters, as of now.
    pub fn stats(&self) -> ExceptionStats {
        self.counters().stats()
    }

    /// Reads the counters from elsewhere.
    pub fn counters(&self) -> ExceptionCounters {
        ExceptionCounters(Arc::clone(&self.counters))
    }

    /// Stops every task and waits for them: nothing holds the taps any more.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A worker's frames, upwards.
struct Up<R> {
    devices: Devices,
    resolver: R,
    counters: Arc<Counters>,
}

impl<R: Resolver> Up<R> {
    async fn run(self, mut receiver: ExceptionReceiver) {
        while let Some(event) = receiver.recv().await {
            match event {
                ExceptionEvent::Frame(frame) => self.deliver(frame.interface, &frame.frame),
                ExceptionEvent::Resolve(interface, address) => {
                    self.counters.resolves.fetch_add(1, Relaxed);
                    self.resolver.resolve(interface, address);
                }
            }
            // A flood upwards leaves room for others on this thread.
            tokio::task::consume_budget().await;
        }
    }

    fn deliver(&self, interface: InterfaceId, frame: &[u8]) {
        let counters = &self.counters;
        let devices = self.devices.read().unwrap_or_else(PoisonError::into_inner);
        let device = devices.get(&interface);
        let counter = match device.filter(|_| frame.len() >= FRAME_BYTES_MIN) {
            None => &counters.to_kernel_invalid,
            Some(device) if device.try_send(frame).is_ok() => &counters.to_kernel,
            Some(_) => &counters.to_kernel_refused,
        };
        counter.fetch_add(1, Relaxed);
    }
}

type Queued = (InterfaceId, Vec<u8>, tokio::sync::OwnedSemaphorePermit);

/// A tap's frames, downwards.
struct Down {
    interface: InterfaceId,
    device: Arc<AsyncDevice>,
    share: Arc<tokio::sync::Semaphore>,
    queue: mpsc::Sender<Queued>,
    counters: Arc<Counters>,
}

impl Down {
    async fn run(self) {
        let mut buffer = vec![0; FRAME_BYTES];
        loop {
            let frame = match self.device.recv(&mut buffer).await {
                Ok(len) => buffer.get(..len).unwrap_or(&[]),
                Err(error) if transient(&error) => continue,
                Err(error) => {
                    tracing::error!(interface = %self.interface, %error, "tap lost");
                    return;
                }
            };
            let queued = Arc::clone(&self.share)
                .try_acquire_owned()
                .ok()
                .is_some_and(|place| {
                    let item = (self.interface, frame.to_vec(), place);
                    self.queue.try_send(item).is_ok()
                });
            if !queued {
                self.counters.from_kernel_dropped.fetch_add(1, Relaxed);
            }
        }
    }
}

/// A tap that is set down answers so; it may come up again.
fn transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// Hands frames to the workers, those of one tap always to the same one, in order.
async fn distribute(
    mut frames: mpsc::Receiver<Queued>,
    mut workers: Vec<ExceptionSender>,
    counters: Arc<Counters>,
) {
    let count = workers.len().max(1);
    while let Some((interface, frame, place)) = frames.recv().await {
        let worker = workers.get_mut(usize::from(interface.get()) % count);
        let counter = match worker.map(|worker| worker.send(interface, frame)) {
            Some(Ok(())) => &counters.from_kernel,
            _ => &counters.from_kernel_dropped,
        };
        counter.fetch_add(1, Relaxed);
        drop(place);
    }
}
