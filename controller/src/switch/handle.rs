//! What others have of a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use p4runtime::client::Client;
use shunt_p4::NetworkOp;
use shunt_slowpath::policy::Peering;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::connect::Connected;
use super::diff::{Comparison, NotNow, Repair};
use super::session::{Command, Input, Session, SessionParts};
use super::view::{SwitchState, SwitchView};
use crate::config::PuntMeter;

/// Batches of changes that wait for the session's task.
const INPUT_QUEUE: usize = 64;
/// Comparisons and repairs that wait for it.
const COMMAND_QUEUE: usize = 8;

/// Speaks to a session; clones share it.
#[derive(Clone, Debug)]
pub struct SwitchHandle {
    name: Arc<str>,
    inputs: mpsc::Sender<Input>,
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<SwitchView>,
    submitted: Arc<AtomicU64>,
    client: Client,
}

impl SwitchHandle {
    /// Starts a session's task.
    pub fn start(connected: Connected, parts: SessionParts) -> (Self, JoinHandle<()>) {
        let (inputs_in, inputs) = mpsc::channel(INPUT_QUEUE);
        let (commands_in, commands) = mpsc::channel(COMMAND_QUEUE);
        let (view_in, view) = watch::channel(SwitchView::default());
        let handle = Self {
            name: connected.switch.name.as_str().into(),
            inputs: inputs_in,
            commands: commands_in,
            view,
            submitted: Arc::default(),
            client: connected.client().clone(),
        };
        let session = Session::new(connected, parts, inputs, commands, view_in);
        (handle, tokio::spawn(session.run()))
    }

    /// Hands over a batch; waits only when [`INPUT_QUEUE`] batches wait already, which the
    /// task takes over whatever its switch does. Lost when the session has stopped.
    pub async fn apply(&self, ops: Vec<NetworkOp>) {
        self.submitted.fetch_add(1, Ordering::SeqCst);
        let _ = self.inputs.send(Input::Ops(ops)).await;
    }

    /// Other meters and peerings; waits as [`SwitchHandle::apply`] does. Routes that a peering
    /// holds back, or no longer does, are to be applied again.
    pub async fn configure(&self, meters: Vec<PuntMeter>, peerings: Vec<Peering>) {
        self.submitted.fetch_add(1, Ordering::SeqCst);
        let _ = self.inputs.send(Input::Configure(meters, peerings)).await;
    }

    /// The whole of the network has been said: from now on what is not wanted goes, and before
    /// nothing is written.
    pub async fn complete(&self) {
        let _ = self.inputs.send(Input::Complete).await;
    }

    /// The session's client, to read with: reads need no role and wait for no write.
    pub fn client(&self) -> &Client {
        &self.client
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

    /// Reads the switch and compares it with what is wanted; changes nothing.
    ///
    /// # Errors
    /// [`NotNow`].
    pub async fn diff(&self) -> Result<Comparison, NotNow> {
        self.ask(Command::Diff).await
    }

    /// Reads the switch and puts it right.
    ///
    /// # Errors
    /// [`NotNow`].
    pub async fn reconcile(&self) -> Result<Repair, NotNow> {
        self.ask(Command::Reconcile).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, NotNow>>) -> Command,
    ) -> Result<T, NotNow> {
        let ended = || NotNow::Ended(self.name.to_string());
        let (answer, answered) = oneshot::channel();
        match self.commands.try_send(command(answer)) {
            Ok(()) => answered.await.map_err(|_| ended())?,
            Err(TrySendError::Full(_)) => Err(NotNow::Busy(self.name.to_string())),
            Err(TrySendError::Closed(_)) => Err(ended()),
        }
    }
}
