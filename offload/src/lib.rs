//! From a worker's decision to an acknowledged hardware entry and back.

pub mod clock;
pub mod engine;
mod idle;
mod installer;
mod ledger;
pub mod p4rt;
pub mod queue;
pub mod sink;
pub mod stats;
mod unit;

pub use clock::Clock;
pub use engine::{Engine, EngineConfig, EngineEnded, EngineHandle, EngineRef};
pub use p4rt::P4RuntimeSink;
pub use queue::{
    ConnectionId, Full, InstallerPort, OffloadCommand, OffloadEvent, OffloadUnit, QUEUE_CAPACITY,
    RefuseReason, WorkerPort, channel,
};
pub use sink::{FlowSink, Outcome, SinkError};
pub use stats::{Latencies, LatencySummary, LinkState, OffloadStats};
