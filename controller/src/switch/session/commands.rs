//! What a session is asked to do out of turn.

use tokio::time::Instant;

use super::{Command, End, Session};
use crate::switch::diff::{Comparison, NotNow, Repair};
use crate::switch::tables::Reading;
use crate::switch::view::SwitchState;

impl Session {
    pub(super) async fn obey(&mut self, command: Command) -> Result<(), End> {
        if !self.complete {
            self.decline(command);
            return Ok(());
        }
        let result = match command {
            Command::Diff(answer) => match self.read().await {
                Ok(reading) => {
                    let _ = answer.send(Ok(self.compare(&reading)));
                    return Ok(());
                }
                Err(end) => (Command::Diff(answer), end),
            },
            Command::Reconcile(answer) => match self.repair().await {
                Ok(repair) => {
                    let _ = answer.send(Ok(repair));
                    return Ok(());
                }
                Err(end) => (Command::Reconcile(answer), end),
            },
        };
        let (command, end) = result;
        if let End::Lost(reason) = &end {
            self.view.send_modify(|view| {
                view.state = SwitchState::Connecting;
                view.last_error = Some(reason.clone());
            });
        }
        self.decline(command);
        Err(end)
    }

    fn compare(&self, reading: &Reading) -> Comparison {
        Comparison {
            wanted: self.ledger.wanted_count() as u64,
            held: reading.len() as u64,
            others: self.ledger.others_count() as u64,
            differences: self.ledger.differences(reading),
        }
    }

    async fn repair(&mut self) -> Result<Repair, End> {
        (self.refusals, self.refused) = (Vec::new(), 0);
        let (read_in, compared_in) = self.read_back().await?;
        let found = self.ledger.pending_kinds();
        let begun = Instant::now();
        self.flush().await?;
        let written_in = begun.elapsed();
        self.publish(SwitchState::Ready);
        Ok(Repair {
            wanted: self.ledger.wanted_count() as u64,
            found,
            left: self.ledger.pending_count() as u64,
            others: self.ledger.others_count() as u64,
            refusals: std::mem::take(&mut self.refusals),
            refused: self.refused,
            read_in,
            compared_in,
            written_in,
        })
    }

    pub(super) fn decline(&self, command: Command) {
        let view = self.view.borrow();
        let because = view.last_error.as_ref();
        let not_now = NotNow::NotReady {
            name: self.switch.name.clone(),
            state: view.state.as_str(),
            because: because
                .map(|error| format!(": {error}"))
                .unwrap_or_default(),
        };
        match command {
            Command::Diff(answer) => drop(answer.send(Err(not_now))),
            Command::Reconcile(answer) => drop(answer.send(Err(not_now))),
        }
    }
}
