//! The exception path: frames between a worker and the controller, which holds the taps.
//!
//! ```text
//!   worker                 frames for the kernel           controller
//!   ExceptionPort  ──────────────────────────────────▶  ExceptionReceiver::recv().await
//!                  ───── neighbours to be resolved ───▶
//!                  ◀────── frames from the kernel ─────  ExceptionSender::send
//! ```
//!
//! Bounded rings, one producer and one consumer each. The worker never waits: what does not fit
//! is dropped and counted. The controller's end sleeps until the worker rings, once a burst.

use std::net::IpAddr;
use std::sync::Arc;

use shunt_p4::InterfaceId;
use tokio::sync::Notify;

/// Frames, and resolve requests, that wait in each direction.
pub const QUEUE_CAPACITY: usize = 1024;

/// Why a frame goes to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExceptionReason {
    /// ARP or neighbour discovery.
    Neighbor,
    /// For one of the gateway's own addresses.
    Local,
    /// Multicast or broadcast.
    Multicast,
    /// Neither IP nor ARP.
    OtherL2,
}

impl ExceptionReason {
    /// Its name in output and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            ExceptionReason::Neighbor => "neighbor",
            ExceptionReason::Local => "local",
            ExceptionReason::Multicast => "multicast",
            ExceptionReason::OtherL2 => "other_l2",
        }
    }
}

/// A frame for the tap of an interface, from its Ethernet header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExceptionFrame {
    /// The interface that it arrived on.
    pub interface: InterfaceId,
    /// Why.
    pub reason: ExceptionReason,
    /// The frame.
    pub frame: Vec<u8>,
}

/// What the worker has for the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExceptionEvent {
    /// Write this frame to the interface's tap.
    Frame(ExceptionFrame),
    /// Have the kernel resolve this neighbour.
    Resolve(InterfaceId, IpAddr),
}

/// The ring is full: the frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the exception queue is full")]
pub struct Full;

/// The rings of one worker: its own end, and the controller's two.
pub fn channel() -> (ExceptionPort, ExceptionReceiver, ExceptionSender) {
    let (up, events) = rtrb::RingBuffer::new(QUEUE_CAPACITY);
    let (frames, down) = rtrb::RingBuffer::new(QUEUE_CAPACITY);
    let bell = Arc::new(Notify::new());
    (
        ExceptionPort {
            up: Some(up),
            down,
            bell: Arc::clone(&bell),
            ring: false,
        },
        ExceptionReceiver { events, bell },
        ExceptionSender { frames },
    )
}

/// The worker's end.
#[derive(Debug)]
pub struct ExceptionPort {
    up: Option<rtrb::Producer<ExceptionEvent>>, // None only while dropping
    down: rtrb::Consumer<(InterfaceId, Vec<u8>)>,
    bell: Arc<Notify>,
    ring: bool,
}

impl ExceptionPort {
    /// Queues an event; the controller wakes up at the next [`ExceptionPort::flush`].
    ///
    /// # Errors
    /// [`Full`].
    pub fn push(&mut self, event: ExceptionEvent) -> Result<(), Full> {
        let up = self.up.as_mut().ok_or(Full)?;
        up.push(event).map_err(|_| Full)?;
        self.ring = true;
        Ok(())
    }

    /// Whether an event would be refused now.
    pub fn is_full(&self) -> bool {
        self.up.as_ref().is_none_or(rtrb::Producer::is_full)
    }

    /// Wakes the controller if something was queued since.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.ring) {
            self.bell.notify_one();
        }
    }

    /// The next frame from the controller.
    pub fn pop(&mut self) -> Option<(InterfaceId, Vec<u8>)> {
        self.down.pop().ok()
    }
}

impl Drop for ExceptionPort {
    fn drop(&mut self) {
        // The ring first, so that the receiver that wakes up finds it abandoned.
        self.up = None;
        self.bell.notify_one();
    }
}

/// Where the controller gets a worker's events.
#[derive(Debug)]
pub struct ExceptionReceiver {
    events: rtrb::Consumer<ExceptionEvent>,
    bell: Arc<Notify>,
}

impl ExceptionReceiver {
    /// The next event; `None` when the worker has gone. Safe to cancel: nothing is lost.
    pub async fn recv(&mut self) -> Option<ExceptionEvent> {
        loop {
            // Asked before the pop, so that what it queued last is not missed.
            let gone = self.events.is_abandoned();
            if let Ok(event) = self.events.pop() {
                return Some(event);
            }
            if gone {
                return None;
            }
            self.bell.notified().await;
        }
    }

    /// The next event if there is one now.
    pub fn try_recv(&mut self) -> Option<ExceptionEvent> {
        self.events.pop().ok()
    }
}

/// Where the controller puts frames from the taps.
#[derive(Debug)]
pub struct ExceptionSender {
    frames: rtrb::Producer<(InterfaceId, Vec<u8>)>,
}

impl ExceptionSender {
    /// Has the switch send a frame out of an interface, as it is.
    ///
    /// # Errors
    /// [`Full`]: the worker is busy or has gone; the frame is dropped.
    pub fn send(&mut self, interface: InterfaceId, frame: Vec<u8>) -> Result<(), Full> {
        self.frames.push((interface, frame)).map_err(|_| Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_receiver_wakes_up_for_a_flush_and_for_the_end() {
        let (mut port, mut receiver, _sender) = channel();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let worker = tokio::task::spawn_blocking(move || {
            for _ in 0..3 {
                port.push(ExceptionEvent::Resolve(InterfaceId::MIN, address))
                    .unwrap();
                port.flush();
            }
        });
        let limit = Duration::from_secs(10);
        for _ in 0..3 {
            let event = tokio::time::timeout(limit, receiver.recv()).await.unwrap();
            assert_eq!(
                event,
                Some(ExceptionEvent::Resolve(InterfaceId::MIN, address))
            );
        }
        assert_eq!(
            tokio::time::timeout(limit, receiver.recv()).await.unwrap(),
            None
        );
        worker.await.unwrap();
    }

    #[test]
    fn a_full_ring_refuses() {
        let (mut port, _receiver, mut sender) = channel();
        for _ in 0..QUEUE_CAPACITY {
            sender.send(InterfaceId::MIN, vec![0; 14]).unwrap();
        }
        assert_eq!(sender.send(InterfaceId::MIN, vec![]), Err(Full));
        assert!(port.pop().is_some());
        assert!(sender.send(InterfaceId::MIN, vec![]).is_ok());
    }
}
