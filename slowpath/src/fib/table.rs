//! One copy of the tables.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use shunt_p4::{Interface, InterfaceId, MacAddr, NetworkOp, Nexthop, NexthopId, Route, Vpc, VpcId};

use super::review::{Leaves, Reviews, Scope};
use super::{Never, PolicySnapshot};
use crate::conntrack::TimeoutTable;
use crate::nat::Rules;
use crate::policy::Policy;

type Map<K, V> = HashMap<K, V, ahash::RandomState>;

/// Routes of one VPC.
#[derive(Clone, Debug, Default)]
struct Routes {
    v4: PrefixMap<Ipv4Net, Route>,
    v6: PrefixMap<Ipv6Net, Route>,
}

/// Network and policy as a worker reads them.
#[derive(Clone, Debug, Default)]
pub struct Fib {
    // Indexed by id: ids are small numbers from the configuration, and every packet asks.
    interfaces: Vec<Option<Interface>>,
    vpcs: Vec<Option<Vpc>>,
    routes: Map<VpcId, Routes>,
    nexthops: Map<NexthopId, Nexthop>,
    neighbors: Map<(InterfaceId, IpAddr), MacAddr>,
    policy: Arc<PolicySnapshot>,
    generation: u64,
    reviews: Reviews,
}

/// Where a destination leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution<'a> {
    /// Out, by a next hop.
    Via(NextHop<'a>),
    /// To the gateway itself.
    Local,
    /// Dropped silently.
    Blackhole,
    /// Nowhere: no route, an unreachable one, or one whose next hop does not exist.
    Unreachable,
}

/// The chosen path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop<'a> {
    /// Egress interface.
    pub interface: &'a Interface,
    /// Whose MAC address is needed: the gateway, or the destination itself.
    pub address: IpAddr,
    /// Largest IP packet, bytes: by the interface, or by the route where that is less.
    pub mtu: u16,
}

impl Fib {
    /// The interface of that number.
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.interfaces.get(usize::from(id.get()))?.as_ref()
    }

    /// The VPC of that number.
    pub fn vpc(&self, id: VpcId) -> Option<&Vpc> {
        self.vpcs.get(usize::from(id.get()))?.as_ref()
    }

    /// All VPCs.
    pub fn vpcs(&self) -> impl Iterator<Item = &Vpc> {
        self.vpcs.iter().flatten()
    }

    /// The longest prefix of the VPC's table that has the destination; of several paths the one
    /// that `hash` picks, in proportion to their weights.
    pub fn resolve(&self, vpc: VpcId, dst: IpAddr, hash: u32) -> Resolution<'_> {
        let Some(route) = self.route(vpc, dst) else {
            return Resolution::Unreachable;
        };
        let paths = match route {
            Route::Nexthops(paths) => paths,
            Route::Local => return Resolution::Local,
            Route::Blackhole => return Resolution::Blackhole,
            Route::Unreachable => return Resolution::Unreachable,
        };
        // The one that the switch's action selector takes (CRC-32 of the flow hash, modulo the
        // weights' sum, members in order of their ids), so that a connection stays on its path
        // when it is offloaded, and its SYN and FIN, which software forwards, go where the rest goes.
        choose(paths, crc32(hash))
            .and_then(|id| self.nexthops.get(&id))
            .and_then(|nexthop| {
                let interface = self.interface(nexthop.interface)?;
                Some(Resolution::Via(NextHop {
                    interface,
                    address: nexthop.gateway.unwrap_or(dst),
                    mtu: nexthop
                        .mtu
                        .map_or(interface.mtu, |mtu| interface.mtu.min(mtu.get())),
                }))
            })
            .unwrap_or(Resolution::Unreachable)
    }

    /// The longest prefix's route.
    pub fn route(&self, vpc: VpcId, dst: IpAddr) -> Option<&Route> {
        let routes = self.routes.get(&vpc)?;
        match dst {
            IpAddr::V4(dst) => Some(routes.v4.get_lpm(&Ipv4Net::from(dst))?.1),
            IpAddr::V6(dst) => Some(routes.v6.get_lpm(&Ipv6Net::from(dst))?.1),
        }
    }

    /// The longest prefix of the VPC's table that has the destination.
    pub fn prefix(&self, vpc: VpcId, dst: IpAddr) -> Option<IpNet> {
        let routes = self.routes.get(&vpc)?;
        Some(match dst {
            IpAddr::V4(dst) => IpNet::V4(routes.v4.get_lpm(&Ipv4Net::from(dst))?.0),
            IpAddr::V6(dst) => IpNet::V6(routes.v6.get_lpm(&Ipv6Net::from(dst))?.0),
        })
    }

    /// Whether [`Fib::resolve`] gives the same path whatever the hash.
    pub fn has_one_path(&self, vpc: VpcId, dst: IpAddr) -> bool {
        match self.route(vpc, dst) {
            Some(Route::Nexthops(paths)) => paths.len() == 1,
            _ => true,
        }
    }

    /// All routes of a VPC.
    pub fn routes(&self, vpc: VpcId) -> impl Iterator<Item = (IpNet, &Route)> {
        self.routes.get(&vpc).into_iter().flat_map(|routes| {
            let v4 = routes.v4.iter().map(|(net, route)| (net.into(), route));
            let v6 = routes.v6.iter().map(|(net, route)| (net.into(), route));
            v4.chain(v6)
        })
    }

    /// The MAC address of a neighbour.
    pub fn neighbor(&self, interface: InterfaceId, address: IpAddr) -> Option<MacAddr> {
        self.neighbors.get(&(interface, address)).copied()
    }

    /// The policy as configured.
    pub fn policy(&self) -> &Policy {
        &self.policy.policy
    }

    /// The policy's NAT rules and peerings.
    pub fn rules(&self) -> &Rules {
        &self.policy.rules
    }

    /// The policy's timeouts, for lookup.
    #[inline]
    pub(crate) fn timeouts(&self) -> &TimeoutTable {
        &self.policy.timeouts
    }

    /// The ports whose connections stay in software, for lookup.
    #[inline]
    pub(crate) fn never(&self) -> &Never {
        &self.policy.never
    }

    /// Rises with every publish that changes something.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What changed after a generation that may contradict connections made until then.
    pub fn to_review(&self, since: u64) -> Vec<Scope> {
        self.reviews.since(since)
    }

    pub(super) fn review(&mut self) {
        self.reviews.all();
    }

    pub(super) fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
        self.reviews.publish(generation);
    }

    pub(super) fn set_policy(&mut self, policy: Arc<PolicySnapshot>) {
        if !self
            .policy
            .policy
            .makes_the_same_connections(&policy.policy)
        {
            self.reviews.all();
        }
        self.policy = policy;
    }

    /// How packets leave that a prefix covers, as far as no longer prefix has them.
    fn leaves(&self, vpc: VpcId, prefix: &IpNet) -> Leaves {
        let Some(routes) = self.routes.get(&vpc) else {
            return Leaves::No;
        };
        let route = match prefix {
            IpNet::V4(prefix) => routes.v4.get_lpm(prefix).map(|(_, route)| route),
            IpNet::V6(prefix) => routes.v6.get_lpm(prefix).map(|(_, route)| route),
        };
        let Some(Route::Nexthops(paths)) = route else {
            return Leaves::No;
        };
        let egress = |id: &NexthopId| Some(self.interface(self.nexthops.get(id)?.interface)?.vpc);
        let mut leaves = Leaves::No;
        for by in paths.iter().filter_map(|(id, _)| egress(id)) {
            leaves = match leaves {
                Leaves::No => Leaves::By(by),
                Leaves::By(other) if other == by => leaves,
                _ => Leaves::Several,
            };
        }
        leaves
    }

    pub(super) fn apply(&mut self, op: NetworkOp) {
        match op {
            NetworkOp::SetVpc(vpc) => {
                let id = vpc.id.get();
                if self
                    .vpc(vpc.id)
                    .is_some_and(|old| old.stateless != vpc.stateless)
                {
                    self.reviews.all();
                }
                put(&mut self.vpcs, id, vpc);
            }
            NetworkOp::RemoveVpc(id) => {
                take(&mut self.vpcs, id.get());
                self.routes.remove(&id);
                self.reviews.all();
            }
            NetworkOp::SetInterface(interface) => {
                let id = interface.id.get();
                if self
                    .interface(interface.id)
                    .is_some_and(|old| old.vpc != interface.vpc)
                {
                    self.reviews.all();
                }
                put(&mut self.interfaces, id, interface);
            }
            NetworkOp::RemoveInterface(id) => {
                take(&mut self.interfaces, id.get());
                self.neighbors.retain(|(interface, _), _| *interface != id);
            }
            NetworkOp::SetNexthop(id, nexthop) => {
                let vpc = |nexthop: &Nexthop| Some(self.interface(nexthop.interface)?.vpc);
                let old = self.nexthops.get(&id);
                if old.is_some_and(|old| vpc(old) != vpc(&nexthop)) {
                    self.reviews.all();
                }
                self.nexthops.insert(id, nexthop);
            }
            NetworkOp::RemoveNexthop(id) => {
                self.nexthops.remove(&id);
            }
            NetworkOp::SetRoute(vpc, prefix, mut route) => {
                if let Route::Nexthops(paths) = &mut route {
                    // The order of the switch's groups.
                    paths.sort_unstable();
                }
                let before = self.leaves(vpc, &prefix);
                let routes = self.routes.entry(vpc).or_default();
                match prefix {
                    IpNet::V4(prefix) => drop(routes.v4.insert(prefix.trunc(), route)),
                    IpNet::V6(prefix) => drop(routes.v6.insert(prefix.trunc(), route)),
                }
                let now = self.leaves(vpc, &prefix);
                self.reviews.route(vpc, prefix.trunc(), before, now);
            }
            NetworkOp::RemoveRoute(vpc, prefix) => {
                let before = self.leaves(vpc, &prefix);
                if let Some(routes) = self.routes.get_mut(&vpc) {
                    match prefix {
                        IpNet::V4(prefix) => drop(routes.v4.remove(&prefix.trunc())),
                        IpNet::V6(prefix) => drop(routes.v6.remove(&prefix.trunc())),
                    }
                }
                let now = self.leaves(vpc, &prefix);
                self.reviews.route(vpc, prefix.trunc(), before, now);
            }
            NetworkOp::SetNeighbor(interface, address, mac) => {
                self.neighbors.insert((interface, address), mac);
            }
            NetworkOp::RemoveNeighbor(interface, address) => {
                self.neighbors.remove(&(interface, address));
            }
        }
    }
}

fn put<T>(table: &mut Vec<Option<T>>, id: u16, value: T) {
    let at = usize::from(id);
    if table.len() <= at {
        table.resize_with(at + 1, || None);
    }
    if let Some(slot) = table.get_mut(at) {
        *slot = Some(value);
    }
}

fn take<T>(table: &mut [Option<T>], id: u16) {
    if let Some(slot) = table.get_mut(usize::from(id)) {
        *slot = None;
    }
}

/// One of the paths, by weight. `None` for an empty list.
fn choose(paths: &[(NexthopId, u16)], hash: u32) -> Option<NexthopId> {
    if let [(only, _)] = paths {
        return Some(*only);
    }
    let total: u32 = paths.iter().map(|(_, weight)| u32::from(*weight)).sum();
    let mut at = hash.checked_rem(total)?;
    for (id, weight) in paths {
        match at.checked_sub(u32::from(*weight)) {
            Some(rest) => at = rest,
            None => return Some(*id),
        }
    }
    None
}

/// CRC-32 (IEEE 802.3) of the number's bytes in network order.
const fn crc32(number: u32) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    // The first four bytes and the initial value meet in the register at once.
    let mut crc = number.swap_bytes() ^ u32::MAX;
    let mut bit = 0;
    while bit < u32::BITS {
        crc = (crc >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(crc & 1));
        bit += 1;
    }
    crc ^ u32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shunt_p4::{Encap, SwitchIndex, SwitchPort};

    fn nexthop_id(n: u32) -> NexthopId {
        NexthopId::new(n).unwrap()
    }

    fn vpc(n: u16) -> VpcId {
        VpcId::new(n).unwrap()
    }

    fn interface(n: u16) -> Interface {
        Interface {
            id: InterfaceId::new(n).unwrap(),
            name: format!("i{n}"),
            vpc: vpc(n),
            switch: SwitchIndex::MIN,
            port: SwitchPort::new(n).unwrap(),
            encap: Encap::Untagged,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            addresses: Vec::new(),
        }
    }

    fn via(paths: &[(u32, u16)]) -> Route {
        Route::Nexthops(
            paths
                .iter()
                .map(|&(id, weight)| (nexthop_id(id), weight))
                .collect(),
        )
    }

    #[test]
    fn the_longest_prefix_of_the_right_vpc_wins() {
        let mut fib = Fib::default();
        let hop = Nexthop {
            interface: interface(1).id,
            gateway: None,
            mtu: None,
        };
        for op in [
            NetworkOp::SetInterface(interface(1)),
            NetworkOp::SetNexthop(nexthop_id(1), hop),
            NetworkOp::SetRoute(vpc(1), "10.0.0.0/8".parse().unwrap(), via(&[(1, 1)])),
            NetworkOp::SetRoute(vpc(1), "10.1.0.0/16".parse().unwrap(), Route::Blackhole),
            NetworkOp::SetRoute(vpc(2), "0.0.0.0/0".parse().unwrap(), Route::Local),
            NetworkOp::SetRoute(vpc(1), "2001:db8::/32".parse().unwrap(), Route::Unreachable),
        ] {
            fib.apply(op);
        }
        let ask = |n, dst: &str| fib.resolve(vpc(n), dst.parse().unwrap(), 0);
        let Resolution::Via(hop) = ask(1, "10.2.3.4") else {
            panic!("no next hop")
        };
        assert_eq!(hop.address, "10.2.3.4".parse::<IpAddr>().unwrap());
        assert_eq!(ask(1, "10.1.3.4"), Resolution::Blackhole);
        assert_eq!(ask(1, "11.0.0.1"), Resolution::Unreachable);
        assert_eq!(ask(2, "10.1.3.4"), Resolution::Local);
        assert_eq!(ask(1, "2001:db8::1"), Resolution::Unreachable);
        assert_eq!(ask(3, "10.1.3.4"), Resolution::Unreachable);
    }

    #[test]
    fn the_smaller_mtu_counts() {
        let mut fib = Fib::default();
        fib.apply(NetworkOp::SetInterface(interface(1)));
        for (route, limit) in [(None, 1500), (Some(1300), 1300), (Some(9000), 1500)] {
            let hop = Nexthop {
                interface: interface(1).id,
                gateway: None,
                mtu: route.and_then(std::num::NonZeroU16::new),
            };
            fib.apply(NetworkOp::SetNexthop(nexthop_id(1), hop));
            let prefix = "10.0.0.0/8".parse().unwrap();
            fib.apply(NetworkOp::SetRoute(vpc(1), prefix, via(&[(1, 1)])));
            match fib.resolve(vpc(1), "10.2.3.4".parse().unwrap(), 0) {
                Resolution::Via(hop) => assert_eq!(hop.mtu, limit),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_route_without_its_next_hop_is_unreachable() {
        let mut fib = Fib::default();
        fib.apply(NetworkOp::SetRoute(
            vpc(1),
            "0.0.0.0/0".parse().unwrap(),
            via(&[(9, 1)]),
        ));
        assert_eq!(
            fib.resolve(vpc(1), "1.2.3.4".parse().unwrap(), 0),
            Resolution::Unreachable
        );
    }

    #[test]
    fn crc32_is_that_of_ieee_802_3() {
        assert_eq!(crc32(0x0102_0304), 0xb63c_fbcd);
        assert_eq!(crc32(0), 0x2144_df1c);
    }

    /// Regression: a flow changed its next hop when it was offloaded, since the kernel's order of
    /// the paths and the switch's differed, and so did the hashes.
    #[test]
    fn the_order_of_paths_does_not_matter() {
        let chosen = |paths: &[(u32, u16)]| {
            let mut fib = Fib::default();
            fib.apply(NetworkOp::SetRoute(
                vpc(1),
                "10.0.0.0/8".parse().unwrap(),
                via(paths),
            ));
            match fib.route(vpc(1), "10.0.0.1".parse().unwrap()) {
                Some(Route::Nexthops(paths)) => paths.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(chosen(&[(7, 2), (3, 1)]), chosen(&[(3, 1), (7, 2)]));
        assert_eq!(chosen(&[(7, 2), (3, 1)])[0].0, nexthop_id(3));
    }

    proptest! {
        #[test]
        fn paths_are_chosen_by_weight(weights in prop::collection::vec(1u16..20, 1..8)) {
            let paths: Vec<_> = (1u32..).zip(&weights).map(|(n, w)| (nexthop_id(n), *w)).collect();
            let total: u32 = weights.iter().map(|w| u32::from(*w)).sum();
            let mut counts = vec![0u16; weights.len()];
            for hash in 0..total {
                let id = choose(&paths, hash).unwrap();
                counts[id.get() as usize - 1] += 1;
            }
            prop_assert_eq!(counts, weights);
        }
    }
}
