//! After a start: the connections of the daemon before are taken back, from the state file and
//! from the switch.
//!
//! ```text
//!   kernel's first dump ─▶ state file ─▶ workers          switch's first read-back
//!                             │  every connection            │
//!                             ▼                              ▼
//!                       workers make connections ──▶ what of them is in hardware is the engine's,
//!                       (without a state file           pairs of entries without a connection
//!                        only now)            ◀──────   become one, the rest is removed
//! ```
//!
//! The state file has every connection, so workers may begin others as soon as those of the file
//! are back. Without it only the switch knows which ports are in use; a switch that does not
//! answer is waited for, but not for ever ([`ADOPT_WITHIN`]).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use shunt_offload::{ConnectionId, EngineRef, ReadBack, pairs};
use shunt_p4::FlowKey;
use shunt_slowpath::{Adopted, ManagerError, ManagerHandle, RESTORE_PAGE, Refusal, RestoreCursor};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The kernel's routes are waited for so long before workers begin without them.
pub const ROUTES_WITHIN: Duration = Duration::from_secs(30);
/// The switch is waited for so long before workers begin connections although their ports may be
/// those of entries; what cannot be adopted any more is removed then.
pub const ADOPT_WITHIN: Duration = Duration::from_secs(10);

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for the kernel's routes.
    #[default]
    Routes,
    /// Taking connections back from the state file.
    StateFile,
    /// Waiting for the switch's entries.
    ReadBack,
    /// Taking the switch's entries over.
    Entries,
    /// All is taken back.
    Done,
}

impl Stage {
    /// Its name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Routes => "routes",
            Stage::StateFile => "state_file",
            Stage::ReadBack => "read_back",
            Stage::Entries => "entries",
            Stage::Done => "done",
        }
    }
}

/// What was taken back so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restart {
    /// How far it is.
    pub stage: Stage,
    /// Whether no connection is begun yet.
    pub starting: bool,
    /// Connections from the state file.
    pub restored: u64,
    /// Entries that the switch had, and how many of them were looked at.
    pub entries: u64,
    /// See [`Restart::entries`].
    pub entries_done: u64,
    /// Connections in hardware that were taken over.
    pub adopted: u64,
    /// Connections that were not taken back, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// How long it took, as far as it is.
    pub took: Duration,
}

/// Starts taking back; what became of it so far can be asked.
pub fn start(
    slow_path: ManagerHandle,
    engine: EngineRef,
    read_back: oneshot::Receiver<ReadBack>,
    routes: watch::Receiver<bool>,
    stop: CancellationToken,
) -> (watch::Receiver<Restart>, JoinHandle<()>) {
    let begun = Restart {
        starting: true,
        ..Restart::default()
    };
    let (told, restart) = watch::channel(begun);
    let adopter = Adopter {
        slow_path,
        engine,
        told,
        began: Instant::now(),
    };
    let task = tokio::spawn(async move {
        if let Some(Err(error)) = stop
            .run_until_cancelled(adopter.run(read_back, routes))
            .await
        {
            tracing::error!(%error, "not all connections could be taken back");
        }
    });
    (restart, task)
}

struct Adopter {
    slow_path: ManagerHandle,
    engine: EngineRef,
    told: watch::Sender<Restart>,
    began: Instant,
}

impl Adopter {
    async fn run(
        &self,
        read_back: oneshot::Receiver<ReadBack>,
        mut routes: watch::Receiver<bool>,
    ) -> Result<(), ManagerError> {
        let synchronised = routes.wait_for(|known| *known);
        if tokio::time::timeout(ROUTES_WITHIN, synchronised)
            .await
            .is_err()
        {
            tracing::warn!("the kernel's routes are not known yet; connections are taken back");
        }
        self.tell(|restart| restart.stage = Stage::StateFile);
        let restored = self.restore().await?;
        // Only of a daemon that kept none are there connections that the file does not have.
        let has_all = self.slow_path.restored().await?;
        if has_all {
            self.started().await?;
        }
        self.tell(|restart| restart.stage = Stage::ReadBack);
        tokio::pin!(read_back);
        let mut found = tokio::time::timeout(ADOPT_WITHIN, &mut read_back).await;
        if found.is_err() {
            if !has_all {
                tracing::warn!("the switch does not answer: connections are begun all the same");
                self.started().await?;
            }
            found = Ok(read_back.await);
        }
        // Otherwise the engine has ended.
        if let Ok(Ok(found)) = found {
            self.take_over(restored, found, has_all).await?;
        }
        self.started().await?;
        self.tell(|restart| restart.stage = Stage::Done);
        let restart = self.told.borrow();
        tracing::info!(
            restored = restart.restored,
            adopted = restart.adopted,
            refused = restart.refused.iter().sum::<u64>(),
            took = ?restart.took,
            "connections of the daemon before are taken back"
        );
        Ok(())
    }

    fn tell(&self, change: impl FnOnce(&mut Restart)) {
        self.told.send_modify(|restart| {
            change(restart);
            restart.took = self.began.elapsed();
        });
    }

    async fn started(&self) -> Result<(), ManagerError> {
        if self.told.borrow().starting {
            self.slow_path.started().await?;
            self.tell(|restart| restart.starting = false);
        }
        Ok(())
    }

    /// All of the state file; who has what now, by worker.
    async fn restore(&self) -> Result<Vec<Vec<ConnectionId>>, ManagerError> {
        let mut restored = Vec::new();
        let mut from = Some(RestoreCursor::default());
        while let Some(cursor) = from {
            let page = self.slow_path.restore(cursor).await?;
            self.tell(|restart| {
                restart.restored += page.adopted.here.len() as u64;
                refuse(restart, &page.adopted);
            });
            by_worker(&mut restored, page.adopted);
            from = page.next;
        }
        Ok(restored)
    }

    async fn take_over(
        &self,
        restored: Vec<Vec<ConnectionId>>,
        found: ReadBack,
        has_all: bool,
    ) -> Result<(), ManagerError> {
        let entries = found.entries.len() as u64;
        self.tell(|restart| {
            restart.stage = Stage::Entries;
            restart.entries = entries;
        });
        let mut keys: HashSet<FlowKey, ahash::RandomState> =
            found.entries.iter().map(|entry| entry.key).collect();
        for (worker, ids) in (0u16..).zip(restored) {
            for ids in ids.chunks(RESTORE_PAGE) {
                self.claim(worker, ids.to_vec(), &mut keys).await?;
            }
        }
        let mut left = found.entries.clone();
        left.retain(|entry| keys.contains(&entry.key));
        let (pairs, halves) = pairs(&left);
        drop(left);
        if !has_all {
            self.tell(|restart| {
                restart.refused[Refusal::Half as usize] += halves.div_ceil(2) as u64;
            });
        }
        for pairs in pairs.chunks(RESTORE_PAGE) {
            let taken = pairs.iter().map(|pair| (*pair, 0)).collect();
            let adopted = self.slow_path.adopt(taken).await?;
            if !has_all {
                self.tell(|restart| refuse(restart, &adopted));
            }
            let mut here = Vec::new();
            by_worker(&mut here, adopted);
            for (worker, ids) in (0u16..).zip(here) {
                self.claim(worker, ids, &mut keys).await?;
            }
        }
        self.tell(|restart| restart.entries_done = entries);
        Ok(())
    }

    /// Which of a worker's connections are in hardware: what is, is the engine's from now on.
    async fn claim(
        &self,
        worker: u16,
        ids: Vec<ConnectionId>,
        keys: &mut HashSet<FlowKey, ahash::RandomState>,
    ) -> Result<(), ManagerError> {
        let mut units = self.slow_path.units(worker, ids).await?;
        let mut settled = Vec::with_capacity(units.len());
        let mut seen = 0;
        units.retain(|unit| {
            let there = unit.entries.map(|entry| keys.remove(&entry.key));
            seen += there.iter().filter(|there| **there).count() as u64;
            let in_hardware = there.contains(&true);
            settled.push((unit.id, in_hardware));
            in_hardware
        });
        let adopted = units.len() as u64;
        // The engine first: it takes no removal before it has heard all.
        if self.engine.adopt(worker.into(), units).await.is_err() {
            return Ok(());
        }
        self.slow_path.settle(worker, settled).await?;
        self.tell(|restart| {
            restart.adopted += adopted;
            restart.entries_done += seen;
        });
        Ok(())
    }
}

fn refuse(restart: &mut Restart, adopted: &Adopted) {
    for (sum, count) in restart.refused.iter_mut().zip(adopted.refused) {
        *sum += count;
    }
}

fn by_worker(all: &mut Vec<Vec<ConnectionId>>, adopted: Adopted) {
    for (worker, id) in adopted.here {
        let worker = usize::from(worker);
        if all.len() <= worker {
            all.resize(worker + 1, Vec::new());
        }
        if let Some(ids) = all.get_mut(worker) {
            ids.push(id);
        }
    }
}
