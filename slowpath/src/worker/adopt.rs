//! Connections of the daemon before: taken back after a restart, exactly as they were.
//!
//! ```text
//!   state file ──▶ Former ──┐ judged by the rules, lease re-taken, counted       hardware has it?
//!   pair of entries ────────┴──────────▶ Installing ──────────────────────▶ yes: Installed
//!                                        (it may be in hardware)            no:  Software
//! ```
//!
//! Until all are taken back the worker is *starting*: it makes no connection, because a port or a
//! tuple may be theirs, and answers nothing, because routes may be missing.
//! What is in hardware is known later, from the switch. Until then a connection is taken for
//! installed, so that its port is not given back while an entry may use it.

use shunt_offload::{ConnectionId, OffloadUnit};
use shunt_p4::{FlowEntry, FlowKey, SwitchIndex, VpcId};

use super::hairpin::has_half;
use super::{Core, Worker};
use crate::conntrack::{InsertError, Key, Offload, Packets, Tracker};
use crate::fib::{Fib, Resolution};
use crate::nat::{Origin, RetakeError};
use crate::record::{Counters, Record};

/// A connection that was there before the daemon was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    keys: [FlowKey; 2],
    route_vpcs: [VpcId; 2],
    tracker: Tracker,
    /// When its last packet was, at the latest.
    last_seen_ns: u64,
    /// The switch that may have its entries; `None`: none that there is.
    switch: Option<SwitchIndex>,
    counted: Counters,
}

/// What a connection is taken back from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The state file.
    Record(Former),
    /// Its two entries in a switch; which one is the opener's is found out. Since the last packet
    /// that hit one of them, nanoseconds.
    Entries([FlowEntry; 2], u64, SwitchIndex),
}

impl Source {
    /// The switch that may have the connection's entries.
    pub const fn switch(&self) -> Option<SwitchIndex> {
        match self {
            Source::Record(former) => former.switch,
            Source::Entries(_, _, switch) => Some(*switch),
        }
    }
}

/// Why a connection is not taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Refusal {
    /// The configuration does not allow it any more, or would translate it otherwise.
    NotAsConfigured,
    /// Its outside port is another connection's, or its inside socket has another one.
    PortTaken,
    /// Another connection has one of its tuples.
    TupleInUse,
    /// As many connections as configured.
    TableFull,
    /// Its port is one worker's, its inside socket another's: their number or secret changed.
    Apart,
    /// An entry without its counterpart.
    Half,
}

impl Refusal {
    /// Every reason, in the order of its number.
    pub const ALL: [Refusal; 6] = [
        Refusal::NotAsConfigured,
        Refusal::PortTaken,
        Refusal::TupleInUse,
        Refusal::TableFull,
        Refusal::Apart,
        Refusal::Half,
    ];

    /// Its name in output and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::NotAsConfigured => "not_as_configured",
            Refusal::PortTaken => "port_taken",
            Refusal::TupleInUse => "tuple_in_use",
            Refusal::TableFull => "table_full",
            Refusal::Apart => "apart",
            Refusal::Half => "half",
        }
    }
}

/// What became of a connection that was to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It is here, and may be in hardware.
    Here(ConnectionId),
    /// It is that worker's.
    Elsewhere(u16),
    /// It is not taken back.
    Refused(Refusal),
}

impl Former {
    /// As its record has it; when its last packet was, at the latest, and the switch that may have
    /// its entries.
    pub fn new(record: &Record, last_seen_ns: u64, switch: Option<SwitchIndex>) -> Self {
        Self {
            keys: record.keys.each_ref().map(Key::flow_key),
            route_vpcs: record.route_vpcs,
            tracker: record.tracker,
            last_seen_ns,
            switch,
            counted: record.counted,
        }
    }

    fn of_entries(
        now_ns: u64,
        [forward, reply]: &[FlowEntry; 2],
        idle_ns: u64,
        switch: SwitchIndex,
    ) -> Self {
        Self {
            keys: [forward.key, reply.key],
            route_vpcs: [forward.action.vpc, reply.action.vpc],
            tracker: Tracker::in_hardware(forward.key.tuple.proto),
            last_seen_ns: now_ns.saturating_sub(idle_ns),
            switch: Some(switch),
            counted: Counters::default(),
        }
    }
}

impl From<RetakeError> for Refusal {
    fn from(error: RetakeError) -> Self {
        match error {
            RetakeError::Taken => Refusal::PortTaken,
            RetakeError::Elsewhere => Refusal::Apart,
            RetakeError::Full => Refusal::TableFull,
        }
    }
}

impl Worker {
    /// From now on it makes connections and answers, or (`true`) does not: see the module.
    pub fn set_starting(&mut self, starting: bool) {
        self.core.starting = starting;
    }

    /// Whether it takes connections of the daemon before back, and makes none.
    pub fn is_starting(&self) -> bool {
        self.core.starting
    }

    /// Takes connections back. `None`: it has no tables.
    pub fn restore(&mut self, now_ns: u64, sources: &[Source]) -> Option<Vec<Restored>> {
        let Self { reader, core } = self;
        let fib = reader.enter()?;
        let each = sources.iter().map(|source| {
            let restored = match source {
                Source::Record(former) => core.restore(&fib, now_ns, former),
                Source::Entries(pair, idle_ns, switch) => {
                    let former = oriented(&fib, now_ns, pair, *idle_ns, *switch);
                    former.and_then(|former| core.restore(&fib, now_ns, &former))
                }
            };
            restored.unwrap_or_else(Restored::Refused)
        });
        Some(each.collect())
    }

    /// What of these connections hardware would have; those that are gone are left out.
    pub fn units(&self, ids: &[ConnectionId]) -> Vec<OffloadUnit> {
        let Some(fib) = self.reader.enter() else {
            return Vec::new();
        };
        let idle_timeout = fib.policy().timeouts.offload_idle;
        let table = &self.core.table;
        let unit = |id: &ConnectionId| {
            let connection = table.get(table.slot_of(*id)?)?;
            Some(OffloadUnit {
                id: *id,
                flows: super::offload::flows(connection, idle_timeout),
                first_packet_ns: 0,
                decided_ns: 0,
            })
        };
        ids.iter().filter_map(unit).collect()
    }

    /// Whether connections that were taken back are in hardware, as the switch says.
    pub fn settle(&mut self, now_ns: u64, found: &[(ConnectionId, bool)]) {
        let Self { reader, core } = self;
        let Some(fib) = reader.enter() else { return };
        for (id, in_hardware) in found {
            core.settle(&fib, now_ns, *id, *in_hardware);
        }
    }
}

impl Core {
    /// Whether a packet that belongs to no connection has to be dropped, because the one that it
    /// belongs to may not be taken back yet. What is for the gateway itself is none's.
    pub(super) fn may_be_former(&self, fib: &Fib, key: &FlowKey, hash: u32) -> bool {
        self.starting
            && (fib.resolve(key.vpc, key.tuple.dst, hash) != Resolution::Local
                || fib.rules().is_outside(key.vpc, key.tuple.dst))
    }

    fn restore(&mut self, fib: &Fib, now_ns: u64, former: &Former) -> Result<Restored, Refusal> {
        let Former {
            keys, route_vpcs, ..
        } = former;
        let [forward, _] = keys;
        let rules = fib.rules();
        let origin = rules
            .origin(keys, *route_vpcs)
            .ok_or(Refusal::NotAsConfigured)?;
        match self.owner_of(rules, keys, &origin) {
            Some(owner) if owner == self.share.worker => {}
            Some(owner) => return Ok(Restored::Elsewhere(owner)),
            None => return Err(Refusal::Apart),
        }
        let half = has_half(rules, keys);
        // Alone, it would be one with its other half; or two with others (hairpin.rs).
        let apart = match self.share.workers {
            1 => half,
            _ => origin.hairpin && origin.peer.is_none(),
        };
        if apart {
            return Err(Refusal::Apart);
        }
        let source = (forward.vpc, forward.tuple.src);
        let slot = self.put_back(now_ns, former, &origin)?;
        let (limits, opens) = (&fib.policy().limits, former.tracker.state().is_half_open());
        let counted = self.quotas.readmit(now_ns, limits, source, opens);
        let id = self.id(slot);
        if let Some(connection) = self.table.get_mut(slot) {
            connection.set_counted(counted.source);
            connection.set_peer_vpc(origin.peer.map(|(vpc, _)| vpc));
            connection.set_half(half);
            if let Some(switch) = former.switch {
                connection.place.set_switch(switch);
                connection.place.set_offload(Offload::Installing);
            }
            connection.last_seen_ns = former.last_seen_ns.min(now_ns);
            connection.packets = Packets::new(former.counted.packets);
            connection.bytes = former.counted.bytes;
            let timeout = super::offload::timeout_ns(fib, connection);
            self.table.arm(slot, now_ns.saturating_add(timeout));
        }
        self.record(slot);
        self.write_counts(slot);
        Ok(Restored::Here(id))
    }

    /// Into the table, with its ports.
    fn put_back(
        &mut self,
        now_ns: u64,
        former: &Former,
        origin: &Origin<'_>,
    ) -> Result<u32, Refusal> {
        let [forward, reply] = &former.keys;
        let (outside, inside) = (&reply.tuple, reply.tuple.reversed());
        let lease = match origin.source {
            Some(rule) => {
                let (address, port) = (outside.dst, outside.dst_port);
                Some(self.nat.retake(rule, &forward.tuple, address, port)?)
            }
            None => None,
        };
        // The share that it has in the port that it is addressed to, whose inside is its end.
        let peer = match origin.peer {
            Some((_, rule)) => {
                let tuple = inside.reversed();
                let (address, port) = (forward.tuple.dst, forward.tuple.dst_port);
                self.nat.retake(rule, &tuple, address, port).map(Some)
            }
            None => Ok(None),
        };
        let placed = peer.map_err(Refusal::from).and_then(|peer| {
            let slot = self
                .table
                .insert(now_ns, &former.keys, former.route_vpcs, former.tracker);
            match slot {
                // The share is given back by the port's name, not by its lease.
                Ok(slot) => Ok(slot),
                Err(error) => {
                    peer.into_iter().for_each(|lease| self.nat.release(lease));
                    Err(match error {
                        InsertError::Full => Refusal::TableFull,
                        InsertError::TupleInUse => Refusal::TupleInUse,
                    })
                }
            }
        });
        match placed {
            Ok(slot) => {
                if let Some(connection) = self.table.get_mut(slot) {
                    connection.lease = lease;
                }
                Ok(slot)
            }
            Err(refusal) => {
                lease.into_iter().for_each(|lease| self.nat.release(lease));
                Err(refusal)
            }
        }
    }

    fn settle(&mut self, fib: &Fib, now_ns: u64, id: ConnectionId, in_hardware: bool) {
        let Some(slot) = self.table.slot_of(id) else {
            return;
        };
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        // Otherwise its removal is under way, and has an answer of its own.
        if connection.place.offload() != Offload::Installing {
            return;
        }
        if !in_hardware {
            self.back_in_software(fib, now_ns, slot);
            return;
        }
        connection.place.set_offload(Offload::Installed);
        if !connection.tracker.state().is_open() {
            // It was being taken out when the daemon was killed.
            self.remove_entries(now_ns, slot);
        }
    }
}

/// A connection from its two entries. The direction whose source a masquerade hides is the
/// opener's; of two that may be, the one from the higher port.
fn oriented(
    fib: &Fib,
    now_ns: u64,
    pair: &[FlowEntry; 2],
    idle_ns: u64,
    switch: SwitchIndex,
) -> Result<Former, Refusal> {
    let [first, second] = pair;
    let ways = [[*first, *second], [*second, *first]];
    let judged = ways.map(|pair| {
        let former = Former::of_entries(now_ns, &pair, idle_ns, switch);
        let origin = fib.rules().origin(&former.keys, former.route_vpcs)?;
        let tuple = &pair[0].key.tuple;
        let rank = (origin.source.is_some(), tuple.src_port > tuple.dst_port);
        Some((rank, former))
    });
    let best = judged.into_iter().flatten().max_by_key(|(rank, _)| *rank);
    best.map(|(_, former)| former)
        .ok_or(Refusal::NotAsConfigured)
}
