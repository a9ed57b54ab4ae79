//! Keeps a change back from each switch until what it contradicts has left that switch.
//!
//! ```text
//!   pump ──queue──▶ gate ── workers have reviewed, nothing of this switch is leaving ──▶ session
//!         ──queue──▶ gate ── … ──▶ session
//! ```
//!
//! One gate a switch, so that a switch which lets go of flows slowly holds nobody else back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shunt_p4::{NetworkOp, SwitchIndex};
use shunt_slowpath::ManagerHandle;
use shunt_slowpath::policy::Peering;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::PuntMeter;
use crate::switch::{Member, Switches};

/// How long contradicting connections may take to leave a switch before the rest of a change goes
/// on without them (a switch that is away holds up nothing).
pub const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// How often the workers are asked.
pub const ASK_EVERY: Duration = Duration::from_millis(1);
/// Changes that wait at one gate; more hold up the pump.
pub const GATE_QUEUE: usize = 256;

/// What a switch is told when its gate opens.
#[derive(Clone, Debug)]
enum Step {
    Ops(Vec<NetworkOp>),
    Configure(Vec<PuntMeter>, Vec<Peering>),
    Complete,
}

/// The gates of all switches; clones share them.
#[derive(Clone, Debug)]
pub struct Gates(Arc<[Gate]>);

#[derive(Debug)]
struct Gate {
    name: String,
    steps: mpsc::Sender<(u64, Step)>,
    /// Steps that the switch's session has not been told.
    waiting: Arc<AtomicU64>,
}

impl Gates {
    /// One for each switch, until `stop`.
    pub fn start(
        switches: &Switches,
        slow_path: &ManagerHandle,
        stop: &CancellationToken,
    ) -> (Self, Vec<JoinHandle<()>>) {
        let gates = switches.iter().enumerate().map(|(place, member)| {
            let (steps_in, steps) = mpsc::channel(GATE_QUEUE);
            let waiting = Arc::<AtomicU64>::default();
            let keeper = Keeper {
                place: SwitchIndex::of(place),
                member: member.clone(),
                slow_path: slow_path.clone(),
                steps,
                waiting: Arc::clone(&waiting),
            };
            let stop = stop.clone();
            let task = tokio::spawn(async move {
                stop.run_until_cancelled(keeper.run()).await;
            });
            let gate = Gate {
                name: member.switch.name.clone(),
                steps: steps_in,
                waiting,
            };
            (gate, task)
        });
        let (gates, tasks): (Vec<_>, Vec<_>) = gates.unzip();
        (Self(gates.into()), tasks)
    }

    /// Every switch is to have these when what the tables of that generation contradict has left
    /// it.
    pub async fn apply(&self, generation: u64, ops: &[NetworkOp]) {
        self.tell(generation, &Step::Ops(ops.to_vec())).await;
    }

    /// As [`crate::switch::SwitchHandle::configure`], of every switch, in order and as late as
    /// [`Gates::apply`].
    pub async fn configure(&self, generation: u64, meters: &[PuntMeter], peerings: &[Peering]) {
        let step = Step::Configure(meters.to_vec(), peerings.to_vec());
        self.tell(generation, &step).await;
    }

    /// The whole of the network has been said.
    pub async fn complete(&self) {
        self.tell(0, &Step::Complete).await;
    }

    async fn tell(&self, generation: u64, step: &Step) {
        for gate in &*self.0 {
            gate.waiting.fetch_add(1, Ordering::SeqCst);
            // Lost when the daemon ends.
            let _ = gate.steps.send((generation, step.clone())).await;
        }
    }

    /// The names of the switches that have not been told everything.
    pub fn closed(&self) -> Vec<String> {
        let gates = self.0.iter();
        let closed = gates.filter(|gate| gate.waiting.load(Ordering::SeqCst) > 0);
        closed.map(|gate| gate.name.clone()).collect()
    }
}

struct Keeper {
    place: SwitchIndex,
    member: Member,
    slow_path: ManagerHandle,
    steps: mpsc::Receiver<(u64, Step)>,
    waiting: Arc<AtomicU64>,
}

impl Keeper {
    async fn run(mut self) {
        let mut passed = 0;
        while let Some((generation, step)) = self.steps.recv().await {
            if generation > passed {
                self.left(generation).await;
                passed = generation;
            }
            let handle = &self.member.handle;
            match step {
                Step::Ops(ops) => handle.apply(ops).await,
                Step::Configure(meters, peerings) => handle.configure(meters, peerings).await,
                Step::Complete => handle.complete().await,
            }
            // Only now: the session has counted it.
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Waits until the workers have held their connections against the tables, and what those
    /// contradict has left this switch.
    async fn left(&self, generation: u64) {
        let deadline = Instant::now() + LEAVE_WITHIN;
        loop {
            // It ends, or is in trouble of its own, which the status tells.
            let Ok(seen) = self.slow_path.reviewed().await else {
                return;
            };
            let leaving = seen.leaving.get(self.place.place());
            let leaving = leaving.copied().unwrap_or_default();
            let reviewed = seen.generation >= generation;
            if reviewed && (leaving == 0 || !self.member.handle.view().state.is_primary()) {
                return;
            }
            if Instant::now() >= deadline {
                tracing::warn!(
                    switch = self.member.switch.name,
                    connections = leaving,
                    "connections that a change contradicts are still in the switch after \
                     {LEAVE_WITHIN:?}; going on"
                );
                return;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}
