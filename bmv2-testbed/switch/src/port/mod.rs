//! Ports: in-process channels and network interfaces.

mod burst;
mod capture;
mod channel;
mod interface;

pub use capture::{CaptureError, Captures};
pub use channel::ChannelPort;
pub use interface::{InterfaceError, InterfacePort};

pub(crate) use burst::Burst;
pub(crate) use capture::Way;
pub(crate) use channel::Outgoing;

/// The longest frame that a port takes, in bytes.
pub const MAX_FRAME_BYTES: usize = 9216;

/// Why a frame could not leave. It is dropped and counted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortError {
    /// The port's queue is full.
    #[error("the queue is full")]
    Full,
    /// Nobody is at the other end any more.
    #[error("the port is closed")]
    Closed,
    /// The interface refused the frame.
    #[error("the interface refused the frame: {0}")]
    Interface(String),
}

/// Where frames leave. Called from whichever thread ran the packet.
pub trait Port: Send + Sync {
    /// Sends one frame, at once or not at all.
    ///
    /// # Errors
    /// See [`PortError`].
    fn transmit(&self, frame: &[u8]) -> Result<(), PortError>;

    /// Sends frames in their order; returns how many it took.
    fn transmit_burst(&self, frames: &[&[u8]]) -> usize {
        let taken = frames.iter().filter(|frame| self.transmit(frame).is_ok());
        taken.count()
    }
}
