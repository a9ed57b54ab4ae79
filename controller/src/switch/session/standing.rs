//! The primary role: getting it, losing it, waiting for it.

use p4runtime::client::{Arbitration, Backoff, ClientError};

use super::{BEGIN_AGAIN, End, Session};
use crate::switch::connect::{election_id, election_id_below};
use crate::switch::pipeline::{self, Loaded};
use crate::switch::view::SwitchState;

impl Session {
    /// Tries to begin a session until it works. `Err`: stopped.
    pub(super) async fn begin_again(
        &mut self,
        backoff: &mut Backoff,
        reason: &mut String,
    ) -> Result<(), End> {
        loop {
            self.view.send_modify(|view| {
                view.state = SwitchState::Connecting;
                view.last_error = Some(reason.clone());
            });
            match self.begin().await {
                Err(End::Stopped) => return Err(End::Stopped),
                Err(End::Lost(error)) => *reason = error,
                Err(End::Demoted(primary)) => {
                    self.stand_by(primary).await?;
                    "the other controller has left".clone_into(reason);
                }
                Ok(()) => break,
            }
            self.pause(backoff, reason).await?;
        }
        self.ledger.forget_others();
        self.view.send_modify(|view| view.sessions += 1);
        Ok(())
    }

    pub(super) async fn pause(&mut self, backoff: &mut Backoff, reason: &str) -> Result<(), End> {
        self.view.send_modify(|view| {
            view.state = SwitchState::Connecting;
            view.last_error = Some(reason.to_owned());
        });
        let delay = backoff.next_delay().unwrap_or(BEGIN_AGAIN.1);
        self.during(tokio::time::sleep(delay)).await
    }

    /// A new stream, the primary role, the pipeline.
    async fn begin(&mut self) -> Result<(), End> {
        self.client.close_stream("reconnecting");
        if !self.switch.take_over {
            self.let_others_be().await?;
        }
        let client = self.client.clone();
        let id = election_id(client.election_id().max(self.rival));
        let primary = async { client.become_primary_as(id).await };
        match self.during(primary).await? {
            Ok(()) => {}
            Err(ClientError::NotPrimary { primary, .. }) => return Err(End::Demoted(primary)),
            Err(error) => return Err(End::Lost(error.to_string())),
        }
        self.publish(SwitchState::Pushing);
        let client = self.client.clone();
        let switch = self.switch.clone();
        let loaded = self.during(async move { pipeline::load(&client, &switch).await });
        match loaded.await? {
            Ok(loaded) => {
                if loaded == Loaded::Pushed {
                    tracing::info!(switch = self.switch.name, "the pipeline was pushed again");
                }
                Ok(())
            }
            Err(error) => Err(End::Lost(error.to_string())),
        }
    }

    /// `Err`: another controller has the role, and this one is told when it leaves.
    async fn let_others_be(&mut self) -> Result<(), End> {
        let client = self.client.clone();
        let asked = self.during(async move { client.election().await });
        let election = asked.await?.map_err(|error| End::Lost(error.to_string()))?;
        self.rival = self.rival.max(election.highest.unwrap_or(0));
        let Some(primary) = election.primary else {
            return Ok(());
        };
        let client = self.client.clone();
        let bid = async move { client.become_primary_as(election_id_below(primary)).await };
        match self.during(bid).await? {
            Err(ClientError::NotPrimary { primary: None, .. }) | Ok(()) => Ok(()),
            Err(ClientError::NotPrimary { primary, .. }) => Err(End::Demoted(primary)),
            Err(error) => Err(End::Lost(error.to_string())),
        }
    }

    pub(super) fn role_changed(&mut self) -> Result<(), End> {
        match self.arbitration.borrow_and_update().clone() {
            Arbitration::Primary | Arbitration::Pending => Ok(()),
            Arbitration::Lost { reason } => Err(End::Lost(reason)),
            Arbitration::Backup { primary } => Err(End::Demoted(primary)),
        }
    }

    /// Another controller is the primary, and means it: wait until it leaves.
    pub(super) async fn stand_by(&mut self, primary: Option<u128>) -> Result<(), End> {
        let Some(mut id) = primary else {
            return Ok(());
        };
        loop {
            self.rival = self.rival.max(id);
            let reason = format!("another controller (election id {id}) is the primary");
            tracing::warn!(switch = self.switch.name, reason, "standing by");
            self.publish(SwitchState::Backup);
            self.view.send_modify(|view| view.last_error = Some(reason));
            let mut arbitration = self.arbitration.clone();
            let changed = self.during(async move {
                arbitration
                    .changed()
                    .await
                    .map(|()| arbitration.borrow_and_update().clone())
            });
            match changed.await? {
                Err(_) => return Err(End::Stopped),
                Ok(Arbitration::Backup { primary: Some(now) }) => id = now,
                Ok(_) => return Ok(()),
            }
            self.arbitration.mark_unchanged();
        }
    }
}
