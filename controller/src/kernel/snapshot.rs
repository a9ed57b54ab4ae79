//! The mirror's view for people: what the kernel has, with where it comes from.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};

use ipnet::IpNet;
use shunt_p4::{InterfaceId, MacAddr, VpcId};

use super::choice::{Context, Desired, choose};
use super::message::{
    NUD_DELAY, NUD_NOARP, NUD_PERMANENT, NUD_PROBE, NUD_REACHABLE, NUD_STALE, NexthopKind, Path,
    RTNH_F_DEAD, RTNH_F_LINKDOWN,
};
use super::rib::Entry;
use super::state::{LOCAL_TABLE, State};

/// Everything that is mirrored, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Sorted by VPC, prefix, metric.
    pub routes: Vec<RouteView>,
    /// Sorted by interface, address.
    pub neighbors: Vec<NeighborView>,
}

/// A route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RouteView {
    /// The VPC whose table it is in.
    pub vpc: VpcId,
    /// Destination.
    pub prefix: IpNet,
    /// As `ip route` calls it: unicast, local, blackhole…
    pub kind: &'static str,
    /// Its paths; empty for types that lead nowhere.
    pub paths: Vec<PathView>,
    /// Who added it, as `ip route` calls it: kernel, static, bgp…
    pub protocol: String,
    /// The lower, the better.
    pub metric: u32,
    /// The kernel's table.
    pub table: u32,
    /// The kernel's next-hop object that it uses.
    pub nexthop_object: Option<u32>,
    /// Largest IP packet that it lets through, bytes, where it says so.
    pub mtu: Option<u16>,
    /// Whether it is the one that counts for its prefix.
    pub active: bool,
    /// Whether it counts but cannot be used: every path down or outside the gateway.
    pub unreachable: bool,
}

/// A path of a route.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PathView {
    /// The kernel's device.
    pub device: String,
    /// The interface whose tap that is.
    pub interface: Option<InterfaceId>,
    /// The gateway; none: on the link.
    pub gateway: Option<IpAddr>,
    /// Share of the traffic.
    pub weight: u32,
    /// Whether the device is down.
    pub down: bool,
}

/// A neighbour of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NeighborView {
    /// The interface on whose tap it is.
    pub interface: InterfaceId,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC; none: not resolved.
    pub mac: Option<MacAddr>,
    /// As `ip neigh` calls it.
    pub state: &'static str,
}

impl State {
    /// The view for people.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let context = Context {
            taps: self.taps(),
            links: self.links(),
            nexthops: self.nexthops(),
        };
        let mut routes = Vec::new();
        for (&(table, prefix), list) in self.rib().iter() {
            for &vpc in self.tables().get(&table).into_iter().flatten() {
                let mut chosen = false;
                for entry in list {
                    let alone = choose(std::slice::from_ref(entry), context);
                    let unreachable = matches!(alone, Some(Desired::Unreachable(_)));
                    let active = !chosen && alone.is_some();
                    chosen |= active && !unreachable;
                    let view = self.route_view(vpc, table, prefix, entry);
                    routes.push(RouteView {
                        active,
                        unreachable,
                        ..view
                    });
                }
            }
            if table == LOCAL_TABLE {
                for entry in list {
                    let tap = entry
                        .paths
                        .iter()
                        .find_map(|path| context.taps.get(&path.index));
                    if let Some(&(_, vpc)) = tap {
                        routes.push(self.route_view(vpc, table, prefix, entry));
                    }
                }
            }
        }
        routes.sort_by_key(|route| (route.vpc, route.prefix, route.table, route.metric));
        let mut neighbors: Vec<NeighborView> = self
            .neighbors()
            .values()
            .filter_map(|info| {
                let &(interface, _) = self.taps().get(&info.index)?;
                Some(NeighborView {
                    interface,
                    address: info.address,
                    mac: info.mac,
                    state: state_name(info.state),
                })
            })
            .collect();
        neighbors.sort_by_key(|neighbor| (neighbor.interface, neighbor.address));
        Snapshot { routes, neighbors }
    }

    fn route_view(&self, vpc: VpcId, table: u32, prefix: IpNet, entry: &Entry) -> RouteView {
        RouteView {
            vpc,
            prefix,
            kind: entry.kind.as_str(),
            paths: self.paths_of(entry),
            protocol: protocol_name(entry.protocol),
            metric: entry.metric,
            table,
            nexthop_object: entry.nexthop.map(NonZeroU32::get),
            mtu: entry.mtu.map(NonZeroU16::get),
            active: true,
            unreachable: false,
        }
    }

    fn paths_of(&self, entry: &Entry) -> Vec<PathView> {
        let object = entry.nexthop.and_then(|id| self.nexthops().get(&id.get()));
        match object.map(|object| &object.kind) {
            Some(NexthopKind::Blackhole) => Vec::new(),
            Some(NexthopKind::Path(path)) => vec![self.path_view(path, 1)],
            Some(NexthopKind::Group(members)) => members
                .iter()
                .filter_map(|&(id, weight)| match &self.nexthops().get(&id)?.kind {
                    NexthopKind::Path(path) => Some(self.path_view(path, weight)),
                    _ => None,
                })
                .collect(),
            None => entry
                .paths
                .iter()
                .map(|path| self.path_view(path, path.weight))
                .collect(),
        }
    }

    fn path_view(&self, path: &Path, weight: u32) -> PathView {
        let link = self.links().get(&path.index);
        PathView {
            device: link.map_or_else(|| format!("if{}", path.index), |link| link.name.clone()),
            interface: self.taps().get(&path.index).map(|tap| tap.0),
            gateway: path.gateway,
            weight,
            down: path.flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0,
        }
    }
}

/// As `ip neigh` prints it.
fn state_name(state: u16) -> &'static str {
    match state {
        0x01 => "INCOMPLETE",
        NUD_REACHABLE => "REACHABLE",
        NUD_STALE => "STALE",
        NUD_DELAY => "DELAY",
        NUD_PROBE => "PROBE",
        0x20 => "FAILED",
        NUD_NOARP => "NOARP",
        NUD_PERMANENT => "PERMANENT",
        _ => "NONE",
    }
}

/// As `ip route` prints it (`rt_protos`).
fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        17 => "mrouted",
        18 => "keepalived",
        42 => "babel",
        84 => "ovn",
        99 => "openr",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        other => return other.to_string(),
    };
    name.to_owned()
}
