//! What is asked every second while somebody looks: cheap, and bounded whatever the workers have.

use super::{FlowCursor, FlowPage, ManagerError, ManagerHandle, Workers};
use crate::stats::WorkerStats;
use crate::worker::FlowFilter;

/// Commands to workers that one glance takes at most, each of [`super::SCAN_SLOTS`] slots: 131,072 of
/// them, three milliseconds of a worker in parts of a tenth.
pub const GLANCE_SCANS: u64 = 32;

/// What is known without a look at any connection.
#[derive(Clone, Debug, Default)]
pub struct Glance {
    /// All workers' together.
    pub counters: WorkerStats,
    /// Connections now.
    pub connections: u64,
    /// Connections that fit.
    pub capacity: u64,
}

impl ManagerHandle {
    /// All workers' counters together, and how many connections they have and may have; without a
    /// look at any connection.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn counters(&self) -> Result<Glance, ManagerError> {
        self.run(|workers| workers.counters()).await
    }

    /// As [`ManagerHandle::list_flows`], but of at most [`GLANCE_SCANS`] times
    /// [`super::SCAN_SLOTS`] slots, however few of them the filter wants.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn glance(
        &self,
        filter: FlowFilter,
        from: FlowCursor,
        limit: usize,
    ) -> Result<FlowPage, ManagerError> {
        self.run(move |workers| workers.list(&filter, from, limit.max(1), GLANCE_SCANS))
            .await
    }
}

impl Workers {
    fn counters(&self) -> Result<Glance, ManagerError> {
        let mut all = Glance {
            capacity: self.capacity,
            ..Glance::default()
        };
        for n in self.numbers() {
            let (counters, connections) = self.ask(n, |worker, _| {
                (worker.stats().clone(), worker.connections() as u64)
            })?;
            all.counters.merge(&counters);
            all.connections += connections;
        }
        Ok(all)
    }
}
