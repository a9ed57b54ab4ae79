//! From a worker's decision to an acknowledged hardware entry and back.

pub mod clock;
pub mod queue;

pub use clock::Clock;
pub use queue::{
    ConnectionId, Full, InstallerPort, OffloadCommand, OffloadEvent, OffloadUnit, QUEUE_CAPACITY,
    RefuseReason, WorkerPort, channel,
};
