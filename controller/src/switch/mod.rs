//! The switch: its session ([`Connected`]), and everything in its tables but the flows.
//!
//! ```text
//!  NetworkOp ──▶ Lowering ──▶ Ledger (wanted / held) ──▶ writes in dependency order
//!  (mirror,      (pure)       (pure)         ▲
//!   config)                                  └── answers, read-back
//! ```

mod describe;
mod error;
mod groups;
mod ledger;
mod lower;
mod pipeline;
mod session;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shunt_offload::EngineRef;
use shunt_p4::NetworkOp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use error::SwitchError;
pub use session::{Connected, Resolver};
pub use view::{SwitchState, SwitchView};

use crate::config::PuntMeter;

/// Batches of changes that wait for the session's task.
const OPS_QUEUE: usize = 64;

/// Speaks to a session; clones share it.
#[derive(Clone, Debug)]
pub struct SwitchHandle {
    ops: mpsc::Sender<Vec<NetworkOp>>,
    view: watch::Receiver<SwitchView>,
    submitted: Arc<AtomicU64>,
}

impl SwitchHandle {
    /// Starts a session's task.
    pub fn start(
        connected: Connected,
        meters: Vec<PuntMeter>,
        engine: EngineRef,
        resolver: Resolver,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (ops_in, ops) = mpsc::channel(OPS_QUEUE);
        let (view_in, view) = watch::channel(SwitchView::default());
        let task = connected.run(meters, engine, resolver, ops, view_in, stop);
        let handle = Self {
            ops: ops_in,
            view,
            submitted: Arc::default(),
        };
        (handle, task)
    }

    /// Hands over a batch; waits only when [`OPS_QUEUE`] batches wait already. Lost when the
    /// session has stopped.
    pub async fn apply(&self, ops: Vec<NetworkOp>) {
        self.submitted.fetch_add(1, Ordering::SeqCst);
        let _ = self.ops.send(ops).await;
    }

    /// The session now.
    pub fn view(&self) -> SwitchView {
        self.view.borrow().clone()
    }

    /// Whether the switch holds exactly what was handed over.
    pub fn is_converged(&self) -> bool {
        let submitted = self.submitted.load(Ordering::SeqCst);
        let view = self.view.borrow();
        view.state == SwitchState::Ready && view.pending == 0 && view.applied >= submitted
    }
}
