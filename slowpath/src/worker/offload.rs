//! A connection's life: what packets, timers and the offload engine make of it.
//!
//! ```text
//!              Install           Installed
//!   Software ──────────▶ Installing ──────▶ Installed
//!      ▲  ▲    Refused       │                │ │
//!      │  └──────────────────┤◀───────────────┘ └────▶ Software (Lost, Evicted)
//!      │       Removed       ▼  closing, idle, deleted
//!      └──────────────── Removing (RemoveQueued while the queue is full)
//! ```
//!
//! A connection leaves the table, and gives its port back, only from `Software`. `wants.rs` says
//! when one is offered.

use std::time::Duration;

use shunt_offload::{ConnectionId, OffloadCommand, OffloadEvent, OffloadUnit, RefuseReason};
use shunt_p4::{FlowKey, FlowPair, Interface, InterfaceId, SwitchIndex};

use super::quota::Counted;
use super::wants::{retry_ns, wants_offload};
use super::{Core, POLL_BUDGET, TIMER_BUDGET};
use crate::conntrack::{Connection, Direction, Offload, State};
use crate::fib::Fib;
use crate::packet::{Packet, Transport};

/// Events whose connections are asked for together.
const EVENTS: usize = 16;
/// Timers that are taken out together.
const TIMERS: usize = 32;
/// Timers of which what their ends need is asked for together, while as many others end.
const TOGETHER: usize = 8;

/// What a connection takes into account of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived<'a> {
    pub(super) transport: &'a Transport,
    /// Bytes of the IP packet.
    pub(super) len: usize,
    pub(super) fragment: bool,
    /// The interfaces that it came from and leaves by, by number.
    pub(super) from: u16,
    pub(super) to: InterfaceId,
}

impl<'a> Arrived<'a> {
    pub(super) fn new(packet: &'a Packet, from: &Interface, to: &Interface) -> Self {
        Self {
            transport: &packet.transport,
            len: packet.len(),
            fragment: packet.is_fragment(),
            from: from.id.get(),
            to: to.id,
        }
    }
}

impl Core {
    /// Takes a packet of a connection into account.
    #[inline]
    pub(super) fn seen(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        slot: u32,
        direction: Direction,
        packet: &Arrived<'_>,
    ) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let before = connection.tracker.state();
        if connection.place.is_in_hardware() {
            // Others pass unseen: what one says of sequence numbers is soon no longer so.
            connection.tracker.forget_window();
        }
        if !connection.tracker.see(direction, packet.transport) {
            self.stats.tcp_ignored += 1;
        }
        if packet.fragment {
            // The first one does not say how much follows.
            connection.tracker.forget_window();
        }
        connection.packets.count(direction);
        connection.bytes[direction.index()] += packet.len as u64;
        let state = connection.tracker.state();
        if state.is_half_open() != before.is_half_open() {
            let vpc = connection.key(Direction::Forward).vpc;
            self.quotas.half_open(vpc, state.is_half_open());
        }
        let anew = state == State::SynSent && before != State::SynSent;
        if anew {
            // The tuple was opened anew.
            connection.begin_again();
        }
        // A reset connection is not kept by what still arrives for it.
        if state != State::Closed || before != State::Closed {
            connection.last_seen_ns = now_ns;
        }
        connection.offered_since_ns(now_ns);
        let deadline = deadline_ns(fib, connection);
        let offload = connection.place.offload();
        let wanted = offload == Offload::Software && wants_offload(fib, now_ns, connection);
        self.table.arm_by(slot, deadline);
        if anew {
            self.table.begin(slot, now_ns);
        }
        if state != before {
            self.note(slot);
        }
        if offload == Offload::Installed {
            // Few come this way then.
            self.write_counts(slot);
        }
        match offload {
            Offload::Software if wanted && self.fast_enough(fib, now_ns, slot, packet.len) => {
                self.install(fib, now_ns, slot, packet.from, packet.to);
            }
            Offload::Installing | Offload::Installed if !state.is_open() => {
                self.remove_entries(now_ns, slot)
            }
            _ => {}
        }
    }

    /// As [`Core::seen`], of a packet of UDP, of so many bytes, whose connection is in software and
    /// stays in its state. `false`: it is not so, and nothing was counted.
    #[inline(always)]
    pub(super) fn seen_again(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        (slot, direction): (u32, Direction),
        (from, to): (u16, InterfaceId),
        len: usize,
    ) -> bool {
        let Some(connection) = self.table.get_mut(slot) else {
            return false;
        };
        let state = connection.tracker.state();
        let stays =
            state == State::Replied || state == State::New && direction == Direction::Forward;
        if !stays || connection.place.offload() != Offload::Software {
            return false;
        }
        connection.packets.count(direction);
        connection.bytes[direction.index()] += len as u64;
        connection.last_seen_ns = now_ns;
        connection.offered_since_ns(now_ns);
        let deadline_ns = now_ns.saturating_add(fib.timeouts().of(state, true));
        let wanted = wants_offload(fib, now_ns, connection);
        self.table.arm_by(slot, deadline_ns);
        if wanted && self.fast_enough(fib, now_ns, slot, len) {
            self.install(fib, now_ns, slot, from, to);
        }
        true
    }

    /// Into the switch that its packets come from and leave to. A connection between two switches
    /// stays in software: it is offered again when its routes may have changed. So does a half of
    /// one (`hairpin.rs`).
    #[inline(never)] // once a connection
    fn install(&mut self, fib: &Fib, now_ns: u64, slot: u32, from: u16, to: InterfaceId) {
        let id = self.id(slot);
        let from = InterfaceId::new(from).and_then(|id| fib.interface(id));
        let from = from.map_or(SwitchIndex::ABSENT, |from| from.switch);
        let to = fib.interface(to).map(|to| to.switch);
        let there = to == Some(from) && self.ways.has(from);
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        if !there || connection.is_half() {
            match connection.is_half() {
                true => self.stats.offload_hairpin += 1,
                false => self.stats.offload_across += 1,
            }
            let refusals = connection.refusals();
            let wait_ns = retry_ns(&fib.policy().offload, refusals, slot);
            connection.set_refusals(refusals + 1);
            connection.not_offered_before(now_ns.saturating_add(wait_ns));
            return;
        }
        if connection.place.switch() != from {
            connection.place.set_switch(from);
            // Before an entry can be there.
            self.note(slot);
        }
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let unit = OffloadUnit {
            id,
            flows: flows(connection, fib.policy().timeouts.offload_idle),
            first_packet_ns: connection.offered_since_ns(now_ns),
            decided_ns: now_ns,
        };
        match self.ways.submit(from, OffloadCommand::Install(unit)) {
            Ok(()) => {
                connection.place.set_offload(Offload::Installing);
                connection.tracker.forget_window();
                self.stats.offload_installs += 1;
            }
            // It stays in software, and is offered again at a later packet.
            Err(shunt_offload::Full) => self.stats.offload_queue_full += 1,
        }
    }

    /// Asks for both entries to be removed, once.
    pub(super) fn remove_entries(&mut self, now_ns: u64, slot: u32) {
        let id = self.id(slot);
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        if !connection.place.is_in_hardware() {
            return;
        }
        let remove = OffloadCommand::Remove {
            id,
            decided_ns: now_ns,
        };
        let switch = connection.place.switch();
        let offload = match self.ways.submit(switch, remove) {
            Ok(()) => {
                self.stats.offload_removals += 1;
                Offload::Removing
            }
            Err(shunt_offload::Full) => {
                self.stats.offload_queue_full += 1;
                self.ways.keep(switch, slot, now_ns);
                Offload::RemoveQueued
            }
        };
        connection.place.set_offload(offload);
    }

    /// Ends a connection: at once, or as soon as the hardware has let go of it.
    pub(super) fn end(&mut self, now_ns: u64, slot: u32) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        match connection.place.offload() {
            Offload::Software => {
                if let Some(records) = &self.records {
                    // Before its port is anybody's.
                    records.clear(slot);
                }
                self.give_back(slot);
                self.table.remove(slot);
                if !self.hardware.is_empty() {
                    self.hardware.remove(&slot);
                }
                self.stats.connections_ended += 1;
            }
            Offload::Installing | Offload::Installed => {
                connection.end();
                self.remove_entries(now_ns, slot);
            }
            Offload::RemoveQueued | Offload::Removing => connection.end(),
        }
    }

    /// What a connection had taken of pools and limits is free again.
    fn give_back(&mut self, slot: u32) {
        let Some(gone) = self.table.get_mut(slot) else {
            return;
        };
        let FlowKey { vpc, tuple } = gone.key(Direction::Forward);
        let source = gone.is_counted();
        self.quotas.release(Counted { source }, (vpc, tuple.src));
        if gone.tracker.state().is_half_open() {
            self.quotas.half_open(vpc, false);
        }
        let lease = gone.lease.take();
        if let Some(peer) = gone.peer_vpc() {
            self.nat.leave(peer, tuple.dst, tuple.proto, tuple.dst_port);
        }
        if let Some(lease) = lease {
            self.nat.release(lease);
        }
    }

    /// The engines' events, then removals that did not fit before (an event may have made one
    /// needless).
    pub(super) fn poll_offload(&mut self, fib: &Fib, now_ns: u64) -> usize {
        let mut events = 0;
        for switch in self.ways.switches() {
            events += self.poll_switch(fib, now_ns, switch);
            self.submit_removals(switch);
        }
        events
    }

    fn poll_switch(&mut self, fib: &Fib, now_ns: u64, switch: SwitchIndex) -> usize {
        let mut events = 0;
        let mut batches = [[None; EVENTS]; 2];
        let [mut batch, mut next] = batches.each_mut();
        let mut taken = self.ask_events(switch, batch);
        while taken > 0 {
            events += taken;
            // What the next ones need comes while these have their turn.
            let more = match events < POLL_BUDGET {
                true => self.ask_events(switch, next),
                false => 0,
            };
            for event in batch.iter_mut().filter_map(Option::take) {
                self.offload_event(fib, now_ns, switch, event);
            }
            std::mem::swap(&mut batch, &mut next);
            taken = more;
        }
        events
    }

    /// Takes events, and asks for the connections that they are about.
    #[inline]
    fn ask_events(
        &mut self,
        switch: SwitchIndex,
        batch: &mut [Option<OffloadEvent>; EVENTS],
    ) -> usize {
        let taken = self.ways.poll(switch, batch);
        for event in batch.iter().flatten() {
            self.table.prefetch_state(id_of(event).slot);
        }
        taken
    }

    fn submit_removals(&mut self, switch: SwitchIndex) {
        while let Some((slot, decided_ns)) = self.ways.kept(switch) {
            let id = self.id(slot);
            if let Some(connection) = self.table.get_mut(slot)
                && connection.place.offload() == Offload::RemoveQueued
                && connection.place.switch() == switch
            {
                let remove = OffloadCommand::Remove { id, decided_ns };
                if self.ways.submit(switch, remove).is_err() {
                    return;
                }
                self.stats.offload_removals += 1;
                connection.place.set_offload(Offload::Removing);
            }
            self.ways.forget_kept(switch);
        }
    }

    fn offload_event(&mut self, fib: &Fib, now_ns: u64, switch: SwitchIndex, event: OffloadEvent) {
        let Some(slot) = self.table.slot_of(id_of(&event)) else {
            return;
        };
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        if connection.place.switch() != switch {
            return; // it went elsewhere since
        }
        let in_hardware = connection.place.is_in_hardware();
        match event {
            OffloadEvent::Installed(_) => {
                self.stats.offload_installed += 1;
                if connection.place.offload() == Offload::Installing {
                    connection.place.set_offload(Offload::Installed);
                    connection.set_refusals(0);
                    self.write_counts(slot);
                }
            }
            OffloadEvent::Refused(_, reason) => {
                self.stats.refuse(reason);
                // If a removal is under way, its own answer is still to come.
                if in_hardware || connection.place.offload() == Offload::RemoveQueued {
                    let refusals = connection.refusals();
                    let doublings = match reason {
                        // Over for all at once, however often they tried.
                        RefuseReason::Unavailable | RefuseReason::KeyInUse => 0,
                        _ => refusals,
                    };
                    let wait_ns = retry_ns(&fib.policy().offload, doublings, slot);
                    connection.set_refusals(refusals + 1);
                    self.back_in_software(fib, now_ns, slot);
                    self.not_offered_before(slot, now_ns.saturating_add(wait_ns));
                }
            }
            OffloadEvent::Removed(_) => {
                if connection.place.offload() == Offload::Removing {
                    self.back_in_software(fib, now_ns, slot);
                }
            }
            OffloadEvent::Idle(_) if in_hardware => {
                // No packet for that long. A connection whose own timeout is longer than the
                // hardware's (TCP: 2 h 4 min, RFC 5382) lives on in software until then.
                let idle = nanos(fib.policy().timeouts.offload_idle);
                let last = now_ns.saturating_sub(idle);
                connection.last_seen_ns = connection.last_seen_ns.max(last);
                if deadline_ns(fib, connection) <= now_ns {
                    connection.end();
                }
                self.remove_entries(now_ns, slot);
            }
            OffloadEvent::Active(_) if in_hardware => connection.last_seen_ns = now_ns,
            OffloadEvent::Lost(_)
                if in_hardware || connection.place.offload() == Offload::RemoveQueued =>
            {
                self.stats.offload_lost += 1;
                // Its last packet in hardware is not known: it gets a whole timeout.
                connection.last_seen_ns = now_ns;
                self.back_in_software(fib, now_ns, slot);
            }
            OffloadEvent::Evicted(_)
                if in_hardware || connection.place.offload() == Offload::RemoveQueued =>
            {
                self.stats.offload_evicted += 1;
                let wait_ns = retry_ns(&fib.policy().offload, 0, slot);
                self.back_in_software(fib, now_ns, slot);
                self.not_offered_before(slot, now_ns.saturating_add(wait_ns));
            }
            OffloadEvent::Counted(_, count) => {
                connection.last_seen_ns =
                    connection.last_seen_ns.max(count.last_hit_ns.min(now_ns));
                if !connection.is_ending() {
                    self.hardware.entry(slot).or_default().add(&count);
                    self.write_counts(slot);
                }
            }
            // What a removal that is under way has crossed.
            OffloadEvent::Idle(_)
            | OffloadEvent::Active(_)
            | OffloadEvent::Lost(_)
            | OffloadEvent::Evicted(_) => {}
        }
    }

    fn not_offered_before(&mut self, slot: u32, ns: u64) {
        if let Some(connection) = self.table.get_mut(slot) {
            connection.not_offered_before(ns);
        }
    }

    /// None of its entries is in hardware: it ends if it was to, else its timer counts again.
    pub(super) fn back_in_software(&mut self, fib: &Fib, now_ns: u64, slot: u32) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        if connection.back_in_software() {
            self.review.left(connection.place.switch());
        }
        if connection.is_ending() {
            self.end(now_ns, slot);
        } else {
            // Seldom another one than it had.
            let deadline = deadline_ns(fib, connection);
            self.table.arm_by(slot, deadline);
        }
    }

    /// Ends connections that were silent for too long.
    pub(super) fn poll_timers(&mut self, fib: &Fib, now_ns: u64) -> usize {
        let mut fired = 0;
        let mut batch = [0; TIMERS];
        while fired < TIMER_BUDGET {
            let mut taken = 0;
            for slot in &mut batch {
                let Some(due) = self.table.expire(now_ns) else {
                    break;
                };
                *slot = due;
                taken += 1;
            }
            let due = batch.get(..taken).unwrap_or_default();
            let mut groups = due.chunks(TOGETHER);
            let mut ready = groups.next().unwrap_or_default();
            self.prefetch_ends(ready);
            while !ready.is_empty() {
                // What the next ones need comes while these end.
                let next = groups.next().unwrap_or_default();
                self.prefetch_ends(next);
                for slot in ready {
                    self.timer_fired(fib, now_ns, *slot);
                }
                ready = next;
            }
            fired += taken;
            if taken < TIMERS {
                break;
            }
        }
        fired
    }

    /// Asks for what [`Core::end`] will touch, of so many connections at most. Where that is, is
    /// found out first: see [`Core::grants`].
    fn prefetch_ends(&self, slots: &[u32]) {
        let mut ends = [const { None }; TOGETHER];
        for (slot, end) in slots.iter().zip(&mut ends) {
            let Some(connection) = self.table.get(*slot) else {
                continue;
            };
            let inside = connection.lease.as_ref().map(|_| {
                let to = connection.raw_key(Direction::Reply).vpc();
                self.nat.hash(connection.raw_key(Direction::Forward), to)
            });
            let lease = connection.lease.as_ref();
            *end = Some((self.table.hashes(connection), inside, lease));
        }
        for (hashes, inside, lease) in ends.iter().flatten() {
            for hash in hashes {
                self.table.prefetch_hash(*hash);
            }
            if let Some(hash) = inside {
                self.nat.prefetch(*hash);
            }
            if let Some(lease) = lease {
                self.nat.prefetch_lease(lease);
            }
        }
    }

    fn timer_fired(&mut self, fib: &Fib, now_ns: u64, slot: u32) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let deadline = deadline_ns(fib, connection);
        match connection.place.offload() {
            _ if deadline > now_ns => self.table.arm(slot, deadline),
            Offload::Software => self.end(now_ns, slot),
            // Its packets do not come here: the hardware tells when they stop.
            Offload::Installing | Offload::Installed => {
                let timeout = timeout_ns(fib, connection);
                self.table.arm(slot, now_ns.saturating_add(timeout));
            }
            Offload::RemoveQueued | Offload::Removing => connection.end(),
        }
    }
}

/// What hardware does with a connection.
pub(super) fn flows(connection: &Connection, idle_timeout: Duration) -> FlowPair {
    FlowPair {
        keys: [
            connection.key(Direction::Forward),
            connection.key(Direction::Reply),
        ],
        vpcs: connection.route_vpcs(),
        idle_timeout,
    }
}

pub(super) fn timeout_ns(fib: &Fib, connection: &Connection) -> u64 {
    let tracker = &connection.tracker;
    fib.timeouts().of(tracker.state(), tracker.is_udp())
}

fn deadline_ns(fib: &Fib, connection: &Connection) -> u64 {
    connection
        .last_seen_ns
        .saturating_add(timeout_ns(fib, connection))
}

fn id_of(event: &OffloadEvent) -> ConnectionId {
    let (OffloadEvent::Installed(id)
    | OffloadEvent::Refused(id, _)
    | OffloadEvent::Removed(id)
    | OffloadEvent::Idle(id)
    | OffloadEvent::Active(id)
    | OffloadEvent::Lost(id)
    | OffloadEvent::Evicted(id)
    | OffloadEvent::Counted(id, _)) = event;
    *id
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
