//! After a start: the connections of the daemon before are taken back, from the state file and
//! from the switches.
//!
//! ```text
//!   kernel's first dump ─▶ state file ─▶ workers          each switch's first read-back
//!                             │  every connection            │
//!                             ▼                              ▼
//!                       workers make connections ──▶ what of them is in it is its engine's,
//!                       (without a state file           pairs of entries without a connection
//!                        only now)            ◀──────   become one, the rest is removed
//! ```
//!
//! The state file has every connection, and the switch that its entries were on, so workers may
//! begin others as soon as those of the file are back. Without it only the switches know which
//! ports are in use; one that does not answer is waited for, but not for ever ([`ADOPT_WITHIN`]).
//! No switch waits for another one's read-back.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use shunt_offload::{ConnectionId, EngineRef, ReadBack, pairs};
use shunt_p4::{FlowKey, MAX_SWITCHES, SwitchIndex};
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
    engines: Vec<(EngineRef, oneshot::Receiver<ReadBack>)>,
    routes: watch::Receiver<bool>,
    taken_back: watch::Sender<u64>,
    stop: CancellationToken,
) -> (watch::Receiver<Restart>, JoinHandle<()>) {
    let begun = Restart {
        starting: true,
        ..Restart::default()
    };
    let (told, restart) = watch::channel(begun);
    let adopter = Adopter {
        slow_path,
        told,
        taken_back,
        began: Instant::now(),
    };
    let task = tokio::spawn(async move {
        if let Some(Err(error)) = stop.run_until_cancelled(adopter.run(engines, routes)).await {
            tracing::error!(%error, "not all connections could be taken back");
        }
    });
    (restart, task)
}

/// A switch whose entries are taken over.
struct Switch {
    place: SwitchIndex,
    engine: EngineRef,
}

/// Connections by the worker that has them.
type ByWorker = Vec<Vec<ConnectionId>>;

struct Adopter {
    slow_path: ManagerHandle,
    told: watch::Sender<Restart>,
    /// Counts what the pump is to look at again.
    taken_back: watch::Sender<u64>,
    began: Instant,
}

impl Adopter {
    async fn run(
        &self,
        engines: Vec<(EngineRef, oneshot::Receiver<ReadBack>)>,
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
        self.looked_at();
        let mut restored = restored.into_iter();
        let each = engines.into_iter().enumerate().map(|(n, (engine, read))| {
            let of = restored.next().unwrap_or_default();
            let switch = Switch {
                place: SwitchIndex::of(n),
                engine,
            };
            async move {
                // Otherwise the engine has ended.
                if let Ok(found) = read.await {
                    self.take_over(&switch, of, found, has_all).await?;
                    self.looked_at();
                }
                Ok::<_, ManagerError>(())
            }
        });
        let mut each: FuturesUnordered<_> = each.collect();
        let all = async {
            while let Some(done) = each.next().await {
                done?;
            }
            Ok::<_, ManagerError>(())
        };
        tokio::pin!(all);
        match tokio::time::timeout(ADOPT_WITHIN, &mut all).await {
            Ok(done) => done?,
            Err(_) => {
                if !has_all {
                    tracing::warn!("not every switch answers: connections are begun all the same");
                    self.started().await?;
                }
                all.await?;
            }
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

    fn looked_at(&self) {
        self.taken_back.send_modify(|count| *count += 1);
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

    /// All of the state file; who has what now, by the switch that may have its entries.
    async fn restore(&self) -> Result<Vec<ByWorker>, ManagerError> {
        let mut restored = vec![ByWorker::default(); MAX_SWITCHES];
        let mut from = Some(RestoreCursor::default());
        while let Some(cursor) = from {
            let page = self.slow_path.restore(cursor).await?;
            self.tell(|restart| {
                restart.restored += page.adopted.here.len() as u64;
                refuse(restart, &page.adopted);
            });
            by_switch(&mut restored, page.adopted);
            from = page.next;
        }
        Ok(restored)
    }

    async fn take_over(
        &self,
        switch: &Switch,
        restored: ByWorker,
        found: ReadBack,
        has_all: bool,
    ) -> Result<(), ManagerError> {
        let entries = found.entries.len() as u64;
        self.tell(|restart| {
            restart.stage = Stage::Entries;
            restart.entries += entries;
        });
        let mut keys: HashSet<FlowKey, ahash::RandomState> =
            found.entries.iter().map(|entry| entry.key).collect();
        for (worker, ids) in (0u16..).zip(restored) {
            for ids in ids.chunks(RESTORE_PAGE) {
                self.claim(switch, worker, ids.to_vec(), &mut keys).await?;
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
            let adopted = self.slow_path.adopt(switch.place, taken).await?;
            if !has_all {
                self.tell(|restart| refuse(restart, &adopted));
            }
            let mut here = ByWorker::default();
            adopted
                .here
                .iter()
                .for_each(|(worker, id, _)| push(&mut here, *worker, *id));
            for (worker, ids) in (0u16..).zip(here) {
                self.claim(switch, worker, ids, &mut keys).await?;
            }
        }
        // What nobody has claimed has been looked at too.
        self.tell(|restart| restart.entries_done += keys.len() as u64);
        Ok(())
    }

    /// Which of a worker's connections are in hardware: what is, is the engine's from now on.
    async fn claim(
        &self,
        switch: &Switch,
        worker: u16,
        ids: Vec<ConnectionId>,
        keys: &mut HashSet<FlowKey, ahash::RandomState>,
    ) -> Result<(), ManagerError> {
        let mut units = self.slow_path.units(worker, ids).await?;
        let mut settled = Vec::with_capacity(units.len());
        let mut seen = 0;
        units.retain(|unit| {
            let there = unit.flows.keys.map(|key| keys.remove(&key));
            seen += there.iter().filter(|there| **there).count() as u64;
            let in_hardware = there.contains(&true);
            settled.push((unit.id, in_hardware));
            in_hardware
        });
        let adopted = units.len() as u64;
        // The engine first: it takes no removal before it has heard all.
        if switch.engine.adopt(worker.into(), units).await.is_err() {
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

fn by_switch(all: &mut [ByWorker], adopted: Adopted) {
    for (worker, id, switch) in adopted.here {
        let of = switch.and_then(|switch| all.get_mut(switch.place()));
        if let Some(of) = of {
            push(of, worker, id);
        }
    }
}

fn push(all: &mut ByWorker, worker: u16, id: ConnectionId) {
    let worker = usize::from(worker);
    if all.len() <= worker {
        all.resize(worker + 1, Vec::new());
    }
    if let Some(ids) = all.get_mut(worker) {
        ids.push(id);
    }
}
