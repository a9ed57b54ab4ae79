//! Connections of the daemon before: from the state file, and from the switch's entries, to the
//! workers, in slices between which packets are forwarded.

use std::time::Duration;

use shunt_offload::{ConnectionId, OffloadUnit};
use shunt_p4::{FlowEntry, SwitchIndex};
use tokio::sync::oneshot;

use super::{ManagerError, ManagerHandle, Request, Workers};
use crate::worker::{Former, Refusal, Restored, Source};

/// Connections that one command to a worker takes back: some 200 µs.
pub const RESTORE_SLICE: usize = 256;
/// Connections that one request to the manager takes back.
pub const RESTORE_PAGE: usize = 16 * 1024;

/// Where taking back goes on in the state file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreCursor {
    worker: u16,
    slot: u32,
}

/// What became of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// By which worker, how it calls them, and the switch that may have their entries.
    pub here: Vec<(u16, ConnectionId, Option<SwitchIndex>)>,
    /// How many were refused, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
}

/// What became of a part of the state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestorePage {
    /// Of its connections.
    pub adopted: Adopted,
    /// Where the rest begins; none: this was the last.
    pub next: Option<RestoreCursor>,
}

impl ManagerHandle {
    /// Takes the next connections of the state file back. They are taken for installed until
    /// [`ManagerHandle::settle`].
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn restore(&self, from: RestoreCursor) -> Result<RestorePage, ManagerError> {
        self.run(move |workers| workers.restore(from)).await
    }

    /// Takes connections back by their two entries in a switch, at most [`RESTORE_PAGE`]; with
    /// each, since when no packet hit it, nanoseconds.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn adopt(
        &self,
        switch: SwitchIndex,
        pairs: Vec<([FlowEntry; 2], u64)>,
    ) -> Result<Adopted, ManagerError> {
        let sources = pairs
            .into_iter()
            .map(|(pair, idle_ns)| Source::Entries(pair, idle_ns, switch))
            .collect();
        self.run(move |workers| workers.take_back(0, sources)).await
    }

    /// All that can be taken back without the switch has been: what the state file says is the
    /// new daemon's now. Whether there was one of the daemon before.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn restored(&self) -> Result<bool, ManagerError> {
        self.run(|workers| Ok(workers.restored())).await
    }

    /// Workers make connections from now on.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn started(&self) -> Result<(), ManagerError> {
        self.run(|workers| {
            for n in workers.numbers() {
                workers.ask(n, |worker, _| worker.set_starting(false))?;
            }
            Ok(())
        })
        .await
    }

    /// What hardware would have of a worker's connections; those that are gone are left out.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn units(
        &self,
        worker: u16,
        ids: Vec<ConnectionId>,
    ) -> Result<Vec<OffloadUnit>, ManagerError> {
        self.run(move |workers| {
            let mut units = Vec::with_capacity(ids.len());
            for ids in ids.chunks(RESTORE_SLICE) {
                let ids = ids.to_vec();
                units.extend(workers.ask(worker, move |worker, _| worker.units(&ids))?);
            }
            Ok(units)
        })
        .await
    }

    /// Which of a worker's connections that were taken back are in hardware.
    ///
    /// # Errors
    /// As [`ManagerHandle::list_flows`].
    pub async fn settle(
        &self,
        worker: u16,
        found: Vec<(ConnectionId, bool)>,
    ) -> Result<(), ManagerError> {
        self.run(move |workers| {
            for found in found.chunks(RESTORE_SLICE) {
                let found = found.to_vec();
                workers.ask(worker, move |worker, now_ns| worker.settle(now_ns, &found))?;
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Workers) -> Result<T, ManagerError> + Send + 'static,
    ) -> Result<T, ManagerError> {
        self.ask(|reply: oneshot::Sender<Result<T, ManagerError>>| {
            Request::Run(Box::new(move |workers| {
                let _ = reply.send(work(workers));
            }))
        })
        .await
    }
}

impl Workers {
    fn restore(&mut self, from: RestoreCursor) -> Result<RestorePage, ManagerError> {
        let former = self.state.as_ref().and_then(|state| state.former.as_ref());
        let Some(former) = former.filter(|former| from.worker < former.workers()) else {
            return Ok(RestorePage::default());
        };
        let (records, slot) = former.records(from.worker, from.slot, RESTORE_PAGE);
        let away_ns = nanos(former.away);
        let next = match slot {
            Some(slot) => RestoreCursor { slot, ..from },
            None => RestoreCursor {
                worker: from.worker + 1,
                slot: 0,
            },
        };
        let next = (next.worker < former.workers()).then_some(next);
        let last_ns = self.clock.now_ns().saturating_sub(away_ns);
        let sources = records
            .iter()
            .map(|record| {
                let switch = former.switch(record.switch, &self.switches);
                Source::Record(Former::new(record, last_ns, switch))
            })
            .collect();
        let adopted = self.take_back(from.worker, sources)?;
        Ok(RestorePage { adopted, next })
    }

    /// Asks one worker, then those that it names.
    fn take_back(&self, first: u16, sources: Vec<Source>) -> Result<Adopted, ManagerError> {
        let first = if self.numbers().contains(&first) {
            first
        } else {
            0
        };
        let mut adopted = Adopted::default();
        let mut others: Vec<Vec<Source>> = vec![Vec::new(); self.workers.len()];
        self.take_back_by(first, &sources, &mut adopted, |owner, source| {
            if let Some(sources) = others.get_mut(usize::from(owner)) {
                sources.push(source);
            }
        })?;
        for (n, sources) in (0u16..).zip(&others) {
            let mut apart = 0;
            self.take_back_by(n, sources, &mut adopted, |_, _| apart += 1)?;
            adopted.refused[Refusal::Apart as usize] += apart;
        }
        Ok(adopted)
    }

    fn take_back_by(
        &self,
        n: u16,
        sources: &[Source],
        adopted: &mut Adopted,
        mut elsewhere: impl FnMut(u16, Source),
    ) -> Result<(), ManagerError> {
        for sources in sources.chunks(RESTORE_SLICE) {
            let slice = sources.to_vec();
            let answer = self.ask(n, move |worker, now_ns| worker.restore(now_ns, &slice))?;
            let answer = answer.ok_or(ManagerError::Worker(n))?;
            for (restored, source) in answer.into_iter().zip(sources) {
                match restored {
                    Restored::Here(id) => adopted.here.push((n, id, source.switch())),
                    Restored::Elsewhere(owner) => elsewhere(owner, *source),
                    Restored::Refused(refusal) => adopted.refused[refusal as usize] += 1,
                }
            }
        }
        Ok(())
    }

    fn restored(&mut self) -> bool {
        let Some(state) = &mut self.state else {
            return false;
        };
        let had = state.former.is_some();
        if let Err(error) = state.finish() {
            tracing::error!(%error, "the state file cannot be put in its place");
        }
        had
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
