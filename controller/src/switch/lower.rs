//! From what the network is to what the switch's tables hold. Pure: no I/O, no time.
//!
//! Everything but `flow4` and `flow6`, which are the offload engine's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use shunt_p4::tables::{
    AnyEntry, ClassifyPort, ClassifyPortAction, ClassifyPortKey, ClassifyVxlan,
    ClassifyVxlanAction, ClassifyVxlanKey, Ecmp, EcmpAction, EcmpKey, EgressInterface,
    EgressInterfaceAction, EgressInterfaceKey, Meter, Neighbor4, Neighbor4Action, Neighbor4Key,
    Neighbor6, Neighbor6Action, Neighbor6Key, NexthopAction, NexthopEntry, NexthopKey, Punt,
    PuntAction, PuntKey, Route4, Route4Action, Route4Key, Route6, Route6Action, Route6Key,
};
use shunt_p4::{
    EcmpGroupId, Encap, Interface, InterfaceId, MacAddr, NetworkOp, Nexthop, NexthopId, Route,
    SwitchIndex, SwitchPort, VlanId, Vpc, VpcId,
};

use shunt_slowpath::policy::Peering;

use super::groups::Groups;
use crate::config::PuntMeter;

/// Priorities in `punt`: an interface's own entry counts before the one for all.
const PUNT_PRIORITY_ALL: NonZeroU16 = NonZeroU16::MIN;
const PUNT_PRIORITY_INTERFACE: NonZeroU16 = NonZeroU16::MAX;

/// A table entry that is to be, or to be no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Adds or replaces.
    Set(AnyEntry),
    /// Removes the entry of that key.
    Remove(AnyEntry),
}

/// Which interfaces are a switch's own.
///
/// The others are another switch's: nothing of theirs is in this one's tables, and a next hop
/// on one of them is `unreachable` here, which is the slow path, the one place that can send
/// there. An interface that moves from one switch to another is removed first, with its next hops
/// and neighbours.
#[derive(Clone, Copy, Debug, Default)]
pub enum Scope {
    /// There is only this switch.
    #[default]
    All,
    /// Those of the switch at that place.
    Of(SwitchIndex),
}

/// The network as the ops so far have made it, and the entries of it that changes need.
#[derive(Debug)]
pub(crate) struct Lowering {
    slow_path_port: SwitchPort,
    meters: Vec<PuntMeter>,
    scope: Scope,
    peerings: Option<Vec<Peering>>,
    vpcs: HashMap<VpcId, Vpc>,
    interfaces: HashMap<InterfaceId, Interface>,
    /// What an interface has in the tables now.
    owned: HashMap<InterfaceId, Vec<AnyEntry>>,
    nexthops: HashMap<NexthopId, Nexthop>,
    neighbors: HashMap<(InterfaceId, IpAddr), MacAddr>,
    groups: Groups,
    grouped: HashMap<(VpcId, IpNet), EcmpGroupId>,
    /// Tunnels whose remote end point has no MAC address yet, and whom to ask.
    unresolved: HashMap<InterfaceId, Option<(InterfaceId, IpAddr)>>,
    /// Something has changed that tunnels may depend on.
    tunnels_affected: bool,
    changes: Vec<Change>,
}

/// How a VPC routes an address.
pub(crate) type Routing<'a> = &'a dyn Fn(VpcId, Ipv4Addr) -> Option<Route4Action>;

impl Lowering {
    /// A network of nothing. `peerings`: see [`super::session::SessionParts::peerings`].
    pub(crate) fn new(
        slow_path_port: SwitchPort,
        meters: Vec<PuntMeter>,
        scope: Scope,
        peerings: Option<Vec<Peering>>,
    ) -> Self {
        Self {
            slow_path_port,
            meters,
            scope,
            peerings,
            vpcs: HashMap::new(),
            interfaces: HashMap::new(),
            owned: HashMap::new(),
            nexthops: HashMap::new(),
            neighbors: HashMap::new(),
            groups: Groups::default(),
            grouped: HashMap::new(),
            unresolved: HashMap::new(),
            tunnels_affected: false,
            changes: Vec::new(),
        }
    }

    /// The entries that are there whatever the network is.
    pub(crate) fn fixed(&self) -> Vec<Change> {
        let port = ClassifyPort {
            key: ClassifyPortKey {
                port: self.slow_path_port,
                outer_vid: None,
                inner_vid: None,
            },
            action: ClassifyPortAction::FromSlowPath,
        };
        let punts = self
            .meters
            .iter()
            .map(|meter| self.punt(meter, None, PUNT_PRIORITY_ALL));
        std::iter::once(AnyEntry::from(port))
            .chain(punts)
            .map(Change::Set)
            .collect()
    }

    /// Other meters and peerings; returns what has to change in the tables but for the routes that
    /// the peerings hold back: those are to be applied again.
    pub(crate) fn configure(
        &mut self,
        meters: Vec<PuntMeter>,
        peerings: Vec<Peering>,
    ) -> Vec<Change> {
        self.peerings = Some(peerings);
        if self.meters != meters {
            self.meters = meters;
            self.changes = self.fixed();
            let ids: Vec<InterfaceId> = self.interfaces.keys().copied().collect();
            ids.into_iter().for_each(|id| self.refresh(id));
            self.tunnels_affected = true;
        }
        std::mem::take(&mut self.changes)
    }

    /// Applies ops in order; returns what has to change in the tables, in no particular order.
    /// Tunnels come after, in [`Lowering::tunnels`].
    pub(crate) fn apply(&mut self, ops: Vec<NetworkOp>) -> Vec<Change> {
        for op in ops {
            self.tunnels_affected |= !matches!(
                op,
                NetworkOp::SetRoute(_, IpNet::V6(_), _) | NetworkOp::RemoveRoute(_, IpNet::V6(_))
            );
            self.op(op);
        }
        std::mem::take(&mut self.changes)
    }

    /// What has to change for tunnels, which follow the routes of their underlay: asked of
    /// whoever has them, for there may be a million.
    pub(crate) fn tunnels(&mut self, routing: Routing<'_>) -> Vec<Change> {
        if std::mem::take(&mut self.tunnels_affected) {
            let ids: Vec<InterfaceId> = self
                .interfaces
                .values()
                .filter(|interface| is_tunnel(interface))
                .map(|interface| interface.id)
                .collect();
            for id in ids {
                self.refresh_routed(id, routing);
            }
        }
        std::mem::take(&mut self.changes)
    }

    /// Tunnels that cannot send yet because the MAC address of the way to their remote end
    /// point is not known; with the neighbour to be resolved, where there is a way at all.
    pub(crate) fn unresolved(&self) -> &HashMap<InterfaceId, Option<(InterfaceId, IpAddr)>> {
        &self.unresolved
    }

    fn op(&mut self, op: NetworkOp) {
        match op {
            NetworkOp::SetVpc(vpc) => {
                let id = vpc.id;
                self.vpcs.insert(id, vpc);
                self.refresh_vpc(id);
            }
            NetworkOp::RemoveVpc(id) => {
                self.vpcs.remove(&id);
                self.refresh_vpc(id);
            }
            NetworkOp::SetInterface(interface) => {
                let id = interface.id;
                self.interfaces.insert(id, interface);
                self.refresh(id);
            }
            NetworkOp::RemoveInterface(id) => {
                self.interfaces.remove(&id);
                self.refresh(id);
            }
            NetworkOp::SetNexthop(id, nexthop) => {
                self.nexthops.insert(id, nexthop);
                self.set(self.nexthop_entry(id, nexthop));
            }
            NetworkOp::RemoveNexthop(id) => {
                if let Some(nexthop) = self.nexthops.remove(&id) {
                    self.remove(self.nexthop_entry(id, nexthop));
                }
            }
            NetworkOp::SetRoute(vpc, prefix, route) => {
                self.set_route(vpc, prefix.trunc(), &route);
            }
            NetworkOp::RemoveRoute(vpc, prefix) => self.remove_route(vpc, prefix.trunc()),
            NetworkOp::SetNeighbor(interface, address, mac) => {
                if self.is_own(interface) {
                    self.neighbors.insert((interface, address), mac);
                    self.set(neighbor_entry(interface, address, mac));
                }
            }
            NetworkOp::RemoveNeighbor(interface, address) => {
                if let Some(mac) = self.neighbors.remove(&(interface, address)) {
                    self.remove(neighbor_entry(interface, address, mac));
                }
            }
        }
    }

    fn is_own(&self, interface: InterfaceId) -> bool {
        match self.scope {
            Scope::All => true,
            Scope::Of(switch) => {
                let interface = self.interfaces.get(&interface);
                interface.is_some_and(|interface| interface.switch == switch)
            }
        }
    }

    fn set(&mut self, entry: impl Into<AnyEntry>) {
        self.changes.push(Change::Set(entry.into()));
    }

    fn remove(&mut self, entry: impl Into<AnyEntry>) {
        self.changes.push(Change::Remove(entry.into()));
    }

    fn set_route(&mut self, vpc: VpcId, prefix: IpNet, route: &Route) {
        let former = self.grouped.remove(&(vpc, prefix));
        let target = match route {
            Route::Nexthops(paths) if self.is_held_back(vpc, prefix, paths) => Target::Unreachable,
            Route::Nexthops(paths) => self.target(vpc, prefix, paths),
            Route::Local => Target::Local,
            Route::Blackhole => Target::Blackhole,
            Route::Unreachable => Target::Unreachable,
        };
        self.set(route_entry(vpc, prefix, target));
        self.release(former);
    }

    /// Whether a route leads a stateless VPC's packets into another VPC, some of them without a
    /// peering that allows it: the slow path tells which. Of a VPC with connections it tells
    /// anyway, before there is a flow.
    fn is_held_back(&self, vpc: VpcId, prefix: IpNet, paths: &[(NexthopId, u16)]) -> bool {
        let Some(peerings) = &self.peerings else {
            return false;
        };
        let exposed = |to: VpcId| {
            peerings.iter().any(|peering| {
                (peering.from, peering.to) == (vpc, to)
                    && (peering.prefixes.is_empty()
                        || peering.prefixes.iter().any(|net| net.contains(&prefix)))
            })
        };
        let crosses = |id: &NexthopId| {
            let interface = self.nexthops.get(id)?.interface;
            let to = self.interfaces.get(&interface)?.vpc;
            (to != vpc).then_some(to)
        };
        self.vpcs.get(&vpc).is_some_and(|vpc| vpc.stateless)
            && paths
                .iter()
                .filter_map(|(id, _)| crosses(id))
                .any(|to| !exposed(to))
    }

    fn remove_route(&mut self, vpc: VpcId, prefix: IpNet) {
        let former = self.grouped.remove(&(vpc, prefix));
        self.remove(route_entry(vpc, prefix, Target::Unreachable));
        self.release(former);
    }

    /// One path leads to its next hop; several share a group with all routes of the same set.
    fn target(&mut self, vpc: VpcId, prefix: IpNet, paths: &[(NexthopId, u16)]) -> Target {
        match paths {
            [] => Target::Unreachable,
            [(nexthop, _)] => Target::Nexthop(*nexthop),
            [(first, _), ..] => {
                let Some((group, new)) = self.groups.acquire(paths) else {
                    tracing::warn!(%vpc, %prefix, "no ECMP group is left: one path carries all");
                    return Target::Nexthop(*first);
                };
                self.grouped.insert((vpc, prefix), group);
                if new {
                    // In the order that the slow path chooses by, whatever the route's is.
                    let paths = self.groups.paths(group).unwrap_or(paths).to_vec();
                    self.set(group_entry(group, &paths));
                }
                Target::Group(group)
            }
        }
    }

    fn release(&mut self, group: Option<EcmpGroupId>) {
        let ended = group.and_then(|group| Some((group, self.groups.release(group)?)));
        if let Some((group, paths)) = ended {
            self.remove(group_entry(group, &paths));
        }
    }

    fn refresh_vpc(&mut self, vpc: VpcId) {
        let ids: Vec<InterfaceId> = self
            .interfaces
            .values()
            .filter(|interface| interface.vpc == vpc)
            .map(|interface| interface.id)
            .collect();
        for id in ids {
            self.refresh(id);
        }
    }

    /// Makes an interface's entries what they should be; a tunnel's come later.
    fn refresh(&mut self, id: InterfaceId) {
        if !self.interfaces.get(&id).is_some_and(is_tunnel) {
            self.refresh_routed(id, &|_, _| None);
        }
    }

    fn refresh_routed(&mut self, id: InterfaceId, routing: Routing<'_>) {
        let wanted = self.interface_entries(id, routing);
        let former = self.owned.remove(&id).unwrap_or_default();
        for entry in &former {
            let key = entry.key_entry();
            let has_key = |entry: &AnyEntry| entry.key_entry() == key;
            // Another interface may have taken its place already, as when two change ports.
            if !wanted.iter().any(has_key) && !self.owned.values().flatten().any(has_key) {
                self.remove(entry.clone());
            }
        }
        for entry in &wanted {
            if !former.contains(entry) {
                self.set(entry.clone());
            }
        }
        if !wanted.is_empty() {
            self.owned.insert(id, wanted);
        }
    }

    fn interface_entries(&mut self, id: InterfaceId, routing: Routing<'_>) -> Vec<AnyEntry> {
        self.unresolved.remove(&id);
        let Some(interface) = self.interfaces.get(&id).cloned() else {
            return Vec::new();
        };
        if !self.is_own(id) {
            return Vec::new();
        }
        // Its VPC comes first, or says nothing about being stateless.
        let Some(vpc) = self.vpcs.get(&interface.vpc) else {
            return Vec::new();
        };
        let stateless = vpc.stateless;
        let mut entries: Vec<AnyEntry> = self
            .meters
            .iter()
            .filter(|meter| meter.per_interface)
            .map(|meter| self.punt(meter, Some(id), PUNT_PRIORITY_INTERFACE))
            .collect();
        entries.extend(self.classify(&interface, stateless));
        let egress = match self.egress(&interface, routing) {
            Egress::Ready(action) => Some(action),
            Egress::Unresolved(neighbor) => {
                self.unresolved.insert(id, neighbor);
                None
            }
        };
        entries.extend(egress.map(|action| {
            AnyEntry::from(EgressInterface {
                key: EgressInterfaceKey { interface: id },
                action,
            })
        }));
        entries
    }

    fn classify(&self, interface: &Interface, stateless: bool) -> Option<AnyEntry> {
        let Interface { id, vpc, mac, .. } = *interface;
        let (outer_vid, inner_vid) = match interface.encap {
            Encap::Untagged => (None, None),
            Encap::Vlan(vid) => (Some(vid), None),
            Encap::Qinq { outer, inner } => (Some(outer), Some(inner)),
            Encap::Vxlan {
                vni,
                underlay,
                local,
                ..
            } => {
                let underlay_vpc = self.interfaces.get(&underlay)?.vpc;
                return Some(AnyEntry::from(ClassifyVxlan {
                    key: ClassifyVxlanKey {
                        vpc: underlay_vpc,
                        underlay_dst: local,
                        vni,
                    },
                    action: ClassifyVxlanAction::SetTunnelInterface {
                        interface: id,
                        vpc,
                        mac,
                        stateless,
                    },
                }));
            }
        };
        Some(AnyEntry::from(ClassifyPort {
            key: ClassifyPortKey {
                port: interface.port,
                outer_vid,
                inner_vid,
            },
            action: ClassifyPortAction::SetInterface {
                interface: id,
                vpc,
                mac,
                stateless,
            },
        }))
    }

    fn egress(&self, interface: &Interface, routing: Routing<'_>) -> Egress {
        let Interface { port, mac, mtu, .. } = *interface;
        Egress::Ready(match interface.encap {
            Encap::Untagged => EgressInterfaceAction::Untagged { port, mac, mtu },
            Encap::Vlan(vid) => EgressInterfaceAction::Vlan {
                port,
                mac,
                mtu,
                vid,
            },
            Encap::Qinq { outer, inner } => EgressInterfaceAction::Qinq {
                port,
                mac,
                mtu,
                outer,
                inner,
            },
            Encap::Vxlan {
                vni,
                underlay,
                local,
                remote,
            } => {
                let Some(way) = self.way_to(underlay, remote, routing) else {
                    return Egress::Unresolved(None);
                };
                let Some(dst_mac) = self.neighbors.get(&(way.interface, way.neighbor)) else {
                    return Egress::Unresolved(Some((way.interface, way.neighbor)));
                };
                EgressInterfaceAction::Vxlan {
                    port: way.port,
                    mac,
                    mtu,
                    vid: way.vid,
                    id: vni,
                    src: local,
                    dst: remote,
                    src_mac: way.mac,
                    dst_mac: *dst_mac,
                }
            }
        })
    }

    /// How the underlay's VPC routes a tunnel's remote end point. Of several paths the first
    /// usable one: a tunnel's entry has one underlay.
    fn way_to(&self, underlay: InterfaceId, remote: Ipv4Addr, routing: Routing<'_>) -> Option<Way> {
        let vpc = self.interfaces.get(&underlay)?.vpc;
        let single;
        let paths = match routing(vpc, remote)? {
            Route4Action::ToNexthop { nexthop } => {
                single = [(nexthop, 1)];
                single.as_slice()
            }
            Route4Action::ToEcmp { group } => self.groups.paths(group)?,
            Route4Action::Local | Route4Action::Blackhole | Route4Action::Unreachable => {
                return None;
            }
        };
        paths.iter().find_map(|(id, _)| {
            let nexthop = self.nexthops.get(id)?;
            let interface = self.interfaces.get(&nexthop.interface)?;
            if !self.is_own(interface.id) {
                return None;
            }
            let vid = match interface.encap {
                Encap::Untagged => None,
                Encap::Vlan(vid) => Some(vid),
                Encap::Qinq { .. } | Encap::Vxlan { .. } => return None,
            };
            Some(Way {
                interface: interface.id,
                neighbor: nexthop.gateway.unwrap_or(remote.into()),
                port: interface.port,
                vid,
                mac: interface.mac,
            })
        })
    }

    fn nexthop_entry(&self, id: NexthopId, nexthop: Nexthop) -> NexthopEntry {
        let interface = nexthop.interface;
        let mtu = nexthop.mtu.map_or(u16::MAX, NonZeroU16::get);
        let action = match nexthop.gateway {
            _ if !self.is_own(interface) => NexthopAction::Unreachable,
            None => NexthopAction::Attached { interface, mtu },
            Some(IpAddr::V4(gateway)) => NexthopAction::Via4 {
                interface,
                mtu,
                gateway,
            },
            Some(IpAddr::V6(gateway)) => NexthopAction::Via6 {
                interface,
                mtu,
                gateway,
            },
        };
        NexthopEntry {
            key: NexthopKey { nexthop: id },
            action,
        }
    }

    fn punt(
        &self,
        meter: &PuntMeter,
        interface: Option<InterfaceId>,
        priority: NonZeroU16,
    ) -> AnyEntry {
        AnyEntry::from(Punt {
            key: PuntKey {
                reason: meter.reason,
                interface,
            },
            priority,
            action: PuntAction::ToSlowPath {
                port: self.slow_path_port,
            },
            meter: Some(Meter::single(meter.rate_pps, meter.burst)),
        })
    }
}

const fn is_tunnel(interface: &Interface) -> bool {
    matches!(interface.encap, Encap::Vxlan { .. })
}

enum Egress {
    Ready(EgressInterfaceAction),
    Unresolved(Option<(InterfaceId, IpAddr)>),
}

/// How a tunnel's packets leave the underlay.
struct Way {
    interface: InterfaceId,
    neighbor: IpAddr,
    port: SwitchPort,
    vid: Option<VlanId>,
    mac: MacAddr,
}

/// What a route's entry leads to; 8 bytes, for there may be a million.
#[derive(Clone, Copy, Debug)]
enum Target {
    Nexthop(NexthopId),
    Group(EcmpGroupId),
    Local,
    Blackhole,
    Unreachable,
}

fn route_entry(vpc: VpcId, prefix: IpNet, target: Target) -> AnyEntry {
    match prefix {
        IpNet::V4(dst) => AnyEntry::from(Route4 {
            key: Route4Key { vpc, dst },
            action: match target {
                Target::Nexthop(nexthop) => Route4Action::ToNexthop { nexthop },
                Target::Group(group) => Route4Action::ToEcmp { group },
                Target::Local => Route4Action::Local,
                Target::Blackhole => Route4Action::Blackhole,
                Target::Unreachable => Route4Action::Unreachable,
            },
        }),
        IpNet::V6(dst) => AnyEntry::from(Route6 {
            key: Route6Key { vpc, dst },
            action: match target {
                Target::Nexthop(nexthop) => Route6Action::ToNexthop { nexthop },
                Target::Group(group) => Route6Action::ToEcmp { group },
                Target::Local => Route6Action::Local,
                Target::Blackhole => Route6Action::Blackhole,
                Target::Unreachable => Route6Action::Unreachable,
            },
        }),
    }
}

fn group_entry(group: EcmpGroupId, paths: &[(NexthopId, u16)]) -> Ecmp {
    Ecmp {
        key: EcmpKey { group },
        members: paths
            .iter()
            .map(|&(nexthop, weight)| {
                let weight = NonZeroU16::new(weight).unwrap_or(NonZeroU16::MIN);
                (EcmpAction::ToNexthop { nexthop }, weight)
            })
            .collect(),
    }
}

fn neighbor_entry(interface: InterfaceId, address: IpAddr, mac: MacAddr) -> AnyEntry {
    match address {
        IpAddr::V4(address) => AnyEntry::from(Neighbor4 {
            key: Neighbor4Key { interface, address },
            action: Neighbor4Action::SetNeighbor { mac },
        }),
        IpAddr::V6(address) => AnyEntry::from(Neighbor6 {
            key: Neighbor6Key { interface, address },
            action: Neighbor6Action::SetNeighbor { mac },
        }),
    }
}

#[cfg(test)]
mod tests;
