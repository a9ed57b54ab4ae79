//! Packets that wait until the kernel has resolved their next hop.

use std::net::IpAddr;

use shunt_p4::InterfaceId;

use crate::policy::Limits;

/// Packets that wait, over all neighbours.
pub const MAX_HELD: usize = 256;
/// Neighbours that are being resolved; one more is asked for without being remembered.
pub const MAX_RESOLVING: usize = 64;
/// The kernel is asked for the same neighbour at most this often.
pub const RESOLVE_INTERVAL_NS: u64 = 1_000_000_000;

/// A packet, finished but for its destination MAC, header for the switch in front.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) interface: InterfaceId,
    pub(super) address: IpAddr,
    pub(super) deadline_ns: u64,
    pub(super) frame: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Oldest first.
    held: Vec<Held>,
    /// Buffers of packets that have left: in the long run nothing is allocated.
    spare: Vec<Vec<u8>>,
    asked: Vec<(InterfaceId, IpAddr, u64)>,
}

impl Hold {
    /// Whether so many more packets may wait for that neighbour.
    pub(super) fn has_room(
        &self,
        limits: &Limits,
        interface: InterfaceId,
        address: IpAddr,
        more: usize,
    ) -> bool {
        let same = |held: &&Held| held.interface == interface && held.address == address;
        let waiting = self.held.iter().filter(same).count();
        self.held.len() + more <= MAX_HELD && waiting + more <= limits.held_per_neighbor.into()
    }

    /// Keeps a copy of the frame. `false`: too many wait, for this neighbour or in all.
    pub(super) fn push(
        &mut self,
        now_ns: u64,
        limits: &Limits,
        interface: InterfaceId,
        address: IpAddr,
        frame: &[u8],
    ) -> bool {
        if !self.has_room(limits, interface, address, 1) {
            return false;
        }
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(frame);
        let wait = u64::try_from(limits.hold_timeout.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = now_ns.saturating_add(wait);
        self.held.push(Held {
            interface,
            address,
            deadline_ns,
            frame: copy,
        });
        true
    }

    /// Whether it is time to ask the kernel for this neighbour, and notes that it was asked.
    pub(super) fn should_resolve(
        &mut self,
        now_ns: u64,
        interface: InterfaceId,
        address: IpAddr,
    ) -> bool {
        self.asked
            .retain(|(_, _, at)| now_ns.saturating_sub(*at) < RESOLVE_INTERVAL_NS);
        if self
            .asked
            .iter()
            .any(|(i, a, _)| *i == interface && *a == address)
        {
            return false;
        }
        if self.asked.len() < MAX_RESOLVING {
            self.asked.push((interface, address, now_ns));
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether the oldest packet has waited long enough.
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.held
            .first()
            .is_some_and(|held| held.deadline_ns <= now_ns)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Held> {
        self.held.get_mut(at)
    }

    /// Takes the frame out; the others keep their order.
    pub(super) fn take(&mut self, at: usize) -> Vec<u8> {
        if at < self.held.len() {
            self.held.remove(at).frame
        } else {
            Vec::new()
        }
    }

    pub(super) fn recycle(&mut self, frame: Vec<u8>) {
        if self.spare.len() < MAX_HELD {
            self.spare.push(frame);
        }
    }
}
