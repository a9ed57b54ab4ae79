//! A port whose other end is in this process.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Port, PortError};
use crate::exec::Worker;
use crate::state::lock;
use crate::switch::Inner;

/// The sending half of a channel port.
pub(crate) struct Outgoing(pub(crate) SyncSender<Vec<u8>>);

impl Port for Outgoing {
    fn transmit(&self, frame: &[u8]) -> Result<(), PortError> {
        self.0.try_send(frame.to_vec()).map_err(|e| match e {
            TrySendError::Full(_) => PortError::Full,
            TrySendError::Disconnected(_) => PortError::Closed,
        })
    }
}

/// The outside of an in-process port: frames are injected and received here.
pub struct ChannelPort {
    pub(crate) port: u32,
    pub(crate) inner: Arc<Inner>,
    pub(crate) frames: Mutex<Receiver<Vec<u8>>>,
    pub(crate) worker: Mutex<Worker>,
}

impl std::fmt::Debug for ChannelPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChannelPort({})", self.port)
    }
}

impl ChannelPort {
    /// Sends a frame into the switch; when this returns, all that comes of it has left.
    pub fn inject(&self, frame: &[u8]) {
        self.inject_burst([frame]);
    }

    /// Sends frames into the switch together, as a driver hands them over in bursts; when this
    /// returns, all that comes of them has left. They have one time stamp.
    pub fn inject_burst<'f>(&self, frames: impl IntoIterator<Item = &'f [u8]>) {
        let worker = &mut lock(&self.worker);
        self.inner.process(worker, self.port, frames.into_iter());
    }

    /// Takes a frame that the switch sent, waiting at most `timeout`.
    pub fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        lock(&self.frames).recv_timeout(timeout).ok()
    }

    /// Takes a frame that the switch sent, if there is one.
    pub fn try_receive(&self) -> Option<Vec<u8>> {
        lock(&self.frames).try_recv().ok()
    }
}
