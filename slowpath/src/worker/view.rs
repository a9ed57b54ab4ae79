//! Connections as the API shows them.

use std::time::Duration;

use ipnet::IpNet;
use shunt_offload::{ConnectionId, HardwareCount};
use shunt_p4::{SwitchIndex, Tuple, VpcId};

use super::Worker;
use crate::conntrack::{Connection, Direction, Offload, State};

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSide {
    /// The VPC that its packets arrive in.
    pub vpc: VpcId,
    /// Their tuple on arrival.
    pub tuple: Tuple,
    /// Their tuple when they leave.
    pub translated: Tuple,
    /// The VPC that they are routed in.
    pub route_vpc: VpcId,
    /// Those that software forwarded.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

/// A connection at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowView {
    /// The worker that has it, counted from 0.
    pub worker: u16,
    /// Its number there, as the offload engine knows it.
    pub id: ConnectionId,
    /// The opener's direction.
    pub forward: FlowSide,
    /// The reply's.
    pub reply: FlowSide,
    /// Where it is in its life.
    pub state: State,
    /// Whether it is in hardware.
    pub offload: Offload,
    /// The switch that its entries are on, where they are on one.
    pub switch: SwitchIndex,
    /// Since its first packet.
    pub age: Duration,
    /// Since its last packet in software, or the last that hardware told of.
    pub idle: Duration,
    /// What hardware counted of it before it left hardware last; what it counts of a connection
    /// that is in it now is the switch's to say.
    pub hardware: HardwareCount,
}

/// Which connections. Every field narrows; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// Either direction arrives in it.
    pub vpc: Option<VpcId>,
    /// It has an address of either tuple.
    pub prefix: Option<IpNet>,
    /// It is a port of either tuple.
    pub port: Option<u16>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// In this state.
    pub state: Option<State>,
    /// In hardware, or not.
    pub offloaded: Option<bool>,
    /// At least so old.
    pub min_age: Option<Duration>,
    /// With a packet in software within so long.
    pub max_idle: Option<Duration>,
}

impl FlowFilter {
    /// Whether the connection is one of them.
    pub fn matches(&self, connection: &Connection, age: Duration, now_ns: u64) -> bool {
        let idle = Duration::from_nanos(now_ns.saturating_sub(connection.last_seen_ns));
        if self.max_idle.is_some_and(|max| idle > max) {
            return false;
        }
        let keys = [Direction::Forward, Direction::Reply].map(|side| connection.key(side));
        self.vpc
            .is_none_or(|vpc| keys.iter().any(|key| key.vpc == vpc))
            && self.prefix.is_none_or(|net| {
                keys.iter()
                    .any(|key| net.contains(&key.tuple.src) || net.contains(&key.tuple.dst))
            })
            && self.port.is_none_or(|port| {
                keys.iter()
                    .any(|key| key.tuple.src_port == port || key.tuple.dst_port == port)
            })
            && self
                .protocol
                .is_none_or(|proto| keys.iter().any(|key| key.tuple.proto == proto))
            && self
                .state
                .is_none_or(|state| connection.tracker.state() == state)
            && self
                .offloaded
                .is_none_or(|yes| (connection.place.offload() == Offload::Installed) == yes)
            && self.min_age.is_none_or(|min| age >= min)
    }
}

impl Worker {
    /// Connections from slot `from` on that the filter wants, at most `limit`, out of at most
    /// `scan` slots; and the slot to go on from, `None` at the end.
    pub fn list_flows(
        &self,
        now_ns: u64,
        filter: &FlowFilter,
        from: u32,
        scan: u32,
        limit: usize,
    ) -> (Vec<FlowView>, Option<u32>) {
        let table = &self.core.table;
        let end = from.saturating_add(scan).min(table.slots());
        let mut flows = Vec::new();
        for slot in from..end {
            let Some(connection) = table.get(slot) else {
                continue;
            };
            let age = table.age(slot, now_ns);
            if !filter.matches(connection, age, now_ns) {
                continue;
            }
            if flows.len() >= limit {
                return (flows, Some(slot));
            }
            let hardware = self.core.hardware.get(&slot).copied().unwrap_or_default();
            flows.push(FlowView {
                hardware,
                ..view(connection, table.id(slot), age, now_ns)
            });
        }
        (flows, (end < table.slots()).then_some(end))
    }

    /// Ends connections from slot `from` on that the filter wants, out of at most `scan` slots;
    /// how many, and the slot to go on from. What is in hardware goes when that has let go.
    pub fn delete_flows(
        &mut self,
        now_ns: u64,
        filter: &FlowFilter,
        from: u32,
        scan: u32,
    ) -> (u64, Option<u32>) {
        let end = from.saturating_add(scan).min(self.core.table.slots());
        let mut deleted = 0;
        for slot in from..end {
            let table = &self.core.table;
            let wanted = table.get(slot).is_some_and(|connection| {
                !connection.is_ending()
                    && filter.matches(connection, table.age(slot, now_ns), now_ns)
            });
            if wanted {
                self.core.end(now_ns, slot);
                deleted += 1;
            }
        }
        (deleted, (end < self.core.table.slots()).then_some(end))
    }
}

fn view(connection: &Connection, id: ConnectionId, age: Duration, now_ns: u64) -> FlowView {
    let side = |direction: Direction| {
        let key = connection.key(direction);
        let translation = connection.translation(direction);
        FlowSide {
            vpc: key.vpc,
            tuple: key.tuple,
            translated: translation.tuple,
            route_vpc: translation.route_vpc,
            packets: connection.packets.both()[direction.index()],
            bytes: connection.bytes[direction.index()],
        }
    };
    FlowView {
        worker: 0,
        id,
        forward: side(Direction::Forward),
        reply: side(Direction::Reply),
        state: connection.tracker.state(),
        offload: connection.place.offload(),
        switch: connection.place.switch(),
        age,
        idle: Duration::from_nanos(now_ns.saturating_sub(connection.last_seen_ns)),
        hardware: HardwareCount::default(),
    }
}
