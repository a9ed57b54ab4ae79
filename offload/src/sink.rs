//! The engine's whole view of a switch.

use std::future::Future;
use std::time::Duration;

use p4runtime::p4::v1::TableEntry;
use shunt_p4::FlowKey;
use shunt_p4::tables::FlowUpdate;

pub use crate::unit::Outcome;

/// A whole request failed: of a write, any part may have been done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The connection is gone, the switch restarts, or it took too long.
    #[error("the switch does not answer: {0}")]
    Unavailable(String),
    /// Not the primary controller, or the switch has no pipeline: nothing was done.
    #[error("the switch does not take writes: {0}")]
    NotReady(String),
}

/// What the switch counts at an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowReading {
    /// Packets that hit it since it was inserted.
    pub packets: u64,
    /// Their bytes, frames as they arrived.
    pub bytes: u64,
    /// Since the last hit, or the insert; `None`: the switch does not say.
    pub idle: Option<Duration>,
}

/// Writes flow entries into one switch, and reads them.
pub trait FlowSink: Send + Sync + 'static {
    /// Writes a batch; updates of different keys, so that the switch may reorder them.
    ///
    /// # Errors
    /// [`SinkError`]: there is no answer for the single updates.
    fn write(
        &self,
        updates: Vec<FlowUpdate>,
    ) -> impl Future<Output = Result<Vec<Outcome>, SinkError>> + Send;

    /// Removes entries of the flow tables that are no flows, by their keys as they were read.
    ///
    /// # Errors
    /// [`SinkError`]: there is no answer for the single keys.
    fn delete(
        &self,
        keys: Vec<TableEntry>,
    ) -> impl Future<Output = Result<Vec<Outcome>, SinkError>> + Send;

    /// Reads every entry of `flow4` and `flow6`, default entries excluded.
    ///
    /// # Errors
    /// [`SinkError`]: nothing can be said about what the switch holds.
    fn read_flows(&self) -> impl Future<Output = Result<Vec<TableEntry>, SinkError>> + Send;

    /// Reads the counters of entries by their keys, in the keys' order; `None`: there is no such
    /// entry. Other writes and reads may be in flight.
    ///
    /// # Errors
    /// [`SinkError`]: nothing is known of any.
    fn read_counters(
        &self,
        keys: Vec<FlowKey>,
    ) -> impl Future<Output = Result<Vec<Option<FlowReading>>, SinkError>> + Send;
}
