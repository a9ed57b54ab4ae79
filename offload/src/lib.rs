//! From a worker's decision to an acknowledged hardware entry and back.
//!
//! ```text
//!   worker thread        [queue]          engine's task                        switch
//!   WorkerPort ──Install, Remove──▶ [installer] ─▶ [ledger] ──batches──▶ [sink] ──▶ P4Runtime
//!              ◀──Installed, …────               ◀──outcomes, read-back────
//! ```
//!
//! `queue` is what a worker sees; `unit` the life of one connection's two entries, a pure state
//! machine; `ledger` all units and who owns which key; `installer` the task that moves batches;
//! `sink` the switch behind it, `p4rt` the real one; `idle` turns reports of idle entries into
//! verdicts about connections; `adopt` what the switch still has of the daemon before. One engine a switch: a slow one holds back no other.

mod adopt;
pub mod clock;
pub mod engine;
mod idle;
mod installer;
mod lasting;
mod ledger;
pub mod p4rt;
pub mod queue;
pub mod sink;
pub mod stats;
mod unit;

pub use adopt::{ReadBack, pairs};
pub use clock::Clock;
pub use engine::{
    Engine, EngineConfig, EngineEnded, EngineHandle, EnginePolicy, EngineRef, TableSizes, VpcShare,
};
pub use ledger::{BUSIEST_MAX, BusyFlow};
pub use p4rt::P4RuntimeSink;
pub use queue::{
    ConnectionId, EvictReason, Full, HardwareCount, InstallerPort, OffloadCommand, OffloadEvent,
    OffloadUnit, QUEUE_CAPACITY, RefuseReason, WorkerPort, channel,
};
pub use sink::{FlowReading, FlowSink, Outcome, SinkError};
pub use stats::{
    BUCKETS_NS, Latencies, LatencySummary, LinkState, OffloadStats, ShareUse, StageLatencies,
    TableUse, Trouble, TroubleKind,
};
