//! The ways from a worker into hardware, one for each switch: none waits for another.

use std::collections::VecDeque;

use shunt_offload::{Full, OffloadCommand, OffloadEvent, WorkerPort};
use shunt_p4::SwitchIndex;

/// The way into one switch.
#[derive(Debug)]
struct Way {
    port: WorkerPort,
    /// Connections whose removal did not fit into the queue, and when it was decided; each at
    /// most once.
    removals: VecDeque<(u32, u64)>,
    /// Something was asked that the engine has not heard of.
    to_ring: bool,
}

/// By switch.
#[derive(Debug)]
pub(super) struct Ways(Vec<Way>);

impl Ways {
    pub(super) fn new(ports: Vec<WorkerPort>) -> Self {
        let ways = ports.into_iter().map(|port| Way {
            port,
            removals: VecDeque::new(),
            to_ring: false,
        });
        Self(ways.collect())
    }

    /// The switches that there are.
    pub(super) fn switches(&self) -> impl Iterator<Item = SwitchIndex> + use<> {
        (0..self.0.len()).map(SwitchIndex::of)
    }

    /// Whether there is such a switch.
    #[inline]
    pub(super) fn has(&self, switch: SwitchIndex) -> bool {
        switch.place() < self.0.len()
    }

    #[inline]
    fn way(&mut self, switch: SwitchIndex) -> Option<&mut Way> {
        self.0.get_mut(switch.place())
    }

    /// Asks a switch's engine; never waits. It hears of it by [`Ways::ring`].
    #[inline]
    pub(super) fn submit(
        &mut self,
        switch: SwitchIndex,
        command: OffloadCommand,
    ) -> Result<(), Full> {
        let way = self.way(switch).ok_or(Full)?;
        way.port.queue(command)?;
        way.to_ring = true;
        Ok(())
    }

    /// Wakes the engines that were asked something since.
    #[inline]
    pub(super) fn ring(&mut self) {
        for way in &mut self.0 {
            if std::mem::take(&mut way.to_ring) {
                way.port.ring();
            }
        }
    }

    /// What a switch's engine has to say.
    #[inline]
    pub(super) fn poll(
        &mut self,
        switch: SwitchIndex,
        events: &mut [Option<OffloadEvent>],
    ) -> usize {
        self.way(switch).map_or(0, |way| way.port.poll_into(events))
    }

    /// Keeps a removal until there is room for it.
    pub(super) fn keep(&mut self, switch: SwitchIndex, slot: u32, decided_ns: u64) {
        if let Some(way) = self.way(switch) {
            way.removals.push_back((slot, decided_ns));
        }
    }

    /// The removal that has waited for longest.
    pub(super) fn kept(&mut self, switch: SwitchIndex) -> Option<(u32, u64)> {
        self.way(switch)?.removals.front().copied()
    }

    /// It waits no longer.
    pub(super) fn forget_kept(&mut self, switch: SwitchIndex) {
        if let Some(way) = self.way(switch) {
            way.removals.pop_front();
        }
    }
}
