//! The policy's NAT rules and peerings, lowered for one lookup a new connection.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use shunt_p4::{Tuple, VpcId};

use ipnet::IpNet;

use super::prefix::PrefixMap;
use crate::policy::{AddressRange, Filtering, Masquerade, Policy, PortForward, PortRange};

type Map<K, V> = HashMap<K, V, ahash::RandomState>;

/// Where a connection to a NAT address goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The VPC of the new destination.
    pub vpc: VpcId,
    /// New destination address.
    pub address: IpAddr,
    /// New destination port.
    pub port: u16,
}

/// How a connection's source is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRule<'a> {
    /// By an address and port of the rule's pool.
    Masquerade(&'a Masquerade),
    /// By this address; the port stays.
    Static(IpAddr),
}

/// Which sources masquerades hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// None.
    None,
    /// Those of an IPv4 prefix; all, of either family, if it is of no length.
    Net { bits: u32, len: u8 },
    /// [`Rules::source`] knows.
    Ask,
}

#[derive(Clone, Debug)]
struct Pool {
    range: AddressRange,
    ports: PortRange,
    /// Anybody may send to what it has leased.
    open: bool,
}

/// The lowered rules.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// (from, to) → rules in the order of the configuration.
    masquerades: Map<(VpcId, VpcId), Vec<Masquerade>>,
    /// (vpc, to, inside) → outside.
    hosts_out: Map<(VpcId, VpcId, IpAddr), IpAddr>,
    /// (to, outside) → (vpc, inside).
    hosts_in: Map<(VpcId, IpAddr), (VpcId, IpAddr)>,
    /// (vpc, to) → prefixes, the longest first; few each.
    prefixes_out: Map<(VpcId, VpcId), Vec<PrefixMap>>,
    /// to → prefixes and their VPCs, the longest first; few each.
    prefixes_in: Map<VpcId, Vec<(VpcId, PrefixMap)>>,
    /// (vpc, address, protocol) → rules; few each.
    port_forwards: Map<(VpcId, IpAddr, u8), Vec<PortForward>>,
    /// to → the pools of its addresses; few each.
    pools: Map<VpcId, Vec<Pool>>,
    /// Addresses that have forwarded ports.
    forwarded: HashSet<(VpcId, IpAddr), ahash::RandomState>,
    /// (from, to) → what `to` exposes; empty: all.
    peerings: Map<(VpcId, VpcId), Vec<IpNet>>,
    /// VPCs that have addresses of pools, of static NAT or of forwarded ports; few.
    outsides: Vec<VpcId>,
}

impl Rules {
    /// Lowers a policy.
    pub fn new(policy: &Policy) -> Self {
        let mut rules = Self::default();
        for rule in &policy.masquerades {
            let pools = rules.pools.entry(rule.to).or_default();
            pools.extend(rule.pool.iter().map(|range| Pool {
                range: *range,
                ports: rule.ports,
                open: rule.filtering == Filtering::EndpointIndependent,
            }));
            rules
                .masquerades
                .entry((rule.vpc, rule.to))
                .or_default()
                .push(rule.clone());
        }
        for rule in &policy.static_nat {
            let (vpc, to) = (rule.vpc, rule.to);
            if rule.inside.prefix_len() == rule.inside.max_prefix_len() {
                let (inside, outside) = (rule.inside.addr(), rule.outside.addr());
                rules.hosts_out.insert((vpc, to, inside), outside);
                rules.hosts_in.insert((to, outside), (vpc, inside));
                continue;
            }
            let out = rules.prefixes_out.entry((vpc, to)).or_default();
            out.push(PrefixMap::outwards(rule));
            out.sort_by_key(|map| std::cmp::Reverse(map.prefix_len()));
            let back = rules.prefixes_in.entry(to).or_default();
            back.push((vpc, PrefixMap::inwards(rule)));
            back.sort_by_key(|(_, map)| std::cmp::Reverse(map.prefix_len()));
        }
        for rule in &policy.port_forwards {
            rules.forwarded.insert((rule.vpc, rule.address));
            let key = (rule.vpc, rule.address, rule.protocol);
            rules
                .port_forwards
                .entry(key)
                .or_default()
                .push(rule.clone());
        }
        for peering in &policy.peerings {
            let key = (peering.from, peering.to);
            rules.peerings.insert(key, peering.prefixes.clone());
        }
        let masquerades = policy.masquerades.iter().map(|rule| rule.to);
        let statics = policy.static_nat.iter().map(|rule| rule.to);
        let forwards = policy.port_forwards.iter().map(|rule| rule.vpc);
        rules.outsides = masquerades.chain(statics).chain(forwards).collect();
        rules.outsides.sort_unstable();
        rules.outsides.dedup();
        rules
    }

    /// Whether a new connection's destination is to be translated: port forwards first, then
    /// static NAT.
    pub fn destination(&self, vpc: VpcId, tuple: &Tuple) -> Option<Destination> {
        if let Some(rule) = self.port_forward(vpc, tuple.dst, tuple.proto, tuple.dst_port) {
            let offset = match rule.to_ports.count() {
                1 => 0,
                _ => tuple.dst_port - rule.ports.first(),
            };
            return Some(Destination {
                vpc: rule.to_vpc,
                address: rule.to_address,
                port: rule.to_ports.first().checked_add(offset)?,
            });
        }
        let (inside_vpc, inside) = self.inside(vpc, tuple.dst)?;
        Some(Destination {
            vpc: inside_vpc,
            address: inside,
            port: tuple.dst_port,
        })
    }

    /// Whether the source of a new connection from `vpc` that leaves through `to` is to be
    /// translated: static NAT first, then the first masquerade whose sources have it.
    pub fn source(&self, vpc: VpcId, to: VpcId, src: IpAddr) -> Option<SourceRule<'_>> {
        if let Some(outside) = self.outside(vpc, to, src) {
            return Some(SourceRule::Static(outside));
        }
        let rules = self.masquerades.get(&(vpc, to))?;
        let rule = rules.iter().find(|rule| rule.hides(src));
        rule.map(SourceRule::Masquerade)
    }

    /// The masquerades of what leaves one VPC through another, in their order: the first that
    /// hides a source is [`Rules::source`]'s answer. `None` if static NAT may have another one.
    pub(crate) fn only_masquerades(&self, vpc: VpcId, to: VpcId) -> Option<&[Masquerade]> {
        if !self.hosts_out.is_empty() || self.prefixes_out.contains_key(&(vpc, to)) {
            return None;
        }
        let rules = self.masquerades.get(&(vpc, to));
        Some(rules.map_or(&[], Vec::as_slice))
    }

    /// Whose sources masquerades hide that leave one VPC through another, by address family.
    pub(crate) fn hidden_sources(&self, vpc: VpcId, to: VpcId, v6: bool) -> Hidden {
        let Some(rules) = self.only_masquerades(vpc, to) else {
            return Hidden::Ask;
        };
        let mut found = Hidden::None;
        for rule in rules {
            if rule.sources.is_empty() {
                // Whoever the others hide is among them.
                return Hidden::Net { bits: 0, len: 0 };
            }
            for net in &rule.sources {
                found = match (net, found) {
                    (IpNet::V4(_), found) if v6 => found,
                    (IpNet::V6(_), found) if !v6 => found,
                    (IpNet::V4(net), Hidden::None) => Hidden::Net {
                        bits: net.network().to_bits(),
                        len: net.prefix_len(),
                    },
                    _ => Hidden::Ask,
                };
            }
        }
        found
    }

    /// Whether a port of an outside address is a forwarded one, and so is never leased.
    pub fn is_forwarded(&self, vpc: VpcId, address: IpAddr, proto: u8, port: u16) -> bool {
        self.port_forward(vpc, address, proto, port).is_some()
    }

    fn outside(&self, vpc: VpcId, to: VpcId, src: IpAddr) -> Option<IpAddr> {
        if let Some(&outside) = self.hosts_out.get(&(vpc, to, src)) {
            return Some(outside);
        }
        let maps = self.prefixes_out.get(&(vpc, to))?;
        maps.iter().find(|map| map.contains(src))?.apply(src)
    }

    /// Whose an outside address is by static NAT: VPC and inside address.
    pub fn inside(&self, vpc: VpcId, dst: IpAddr) -> Option<(VpcId, IpAddr)> {
        if let Some(&found) = self.hosts_in.get(&(vpc, dst)) {
            return Some(found);
        }
        let maps = self.prefixes_in.get(&vpc)?;
        let (to, map) = maps.iter().find(|(_, map)| map.contains(dst))?;
        Some((*to, map.apply(dst)?))
    }

    /// Whether connections may be opened from one VPC to an address in the other without NAT.
    pub fn may_cross(&self, from: VpcId, to: VpcId, dst: IpAddr) -> bool {
        from == to
            || self.peerings.get(&(from, to)).is_some_and(|exposed| {
                exposed.is_empty() || exposed.iter().any(|net| net.contains(&dst))
            })
    }

    /// Whether anybody may send to an outside address and port that is leased.
    pub fn is_open(&self, to: VpcId, address: IpAddr, port: u16) -> bool {
        self.pools_of(to, address)
            .any(|pool| pool.open && pool.ports.contains(port))
    }

    /// Whether masquerades lease that port of an outside address.
    pub fn is_pooled(&self, to: VpcId, address: IpAddr, port: u16) -> bool {
        self.pools_of(to, address)
            .any(|pool| pool.ports.contains(port))
    }

    /// The ports that masquerades lease of an address, if all lease the same ones, and if it is
    /// not static NAT's.
    pub(crate) fn leased_ports(&self, to: VpcId, address: IpAddr) -> Option<PortRange> {
        if self.inside(to, address).is_some() {
            return None;
        }
        let mut pools = self.pools_of(to, address);
        let ports = pools.next()?.ports;
        pools.all(|pool| pool.ports == ports).then_some(ports)
    }

    fn pools_of(&self, to: VpcId, address: IpAddr) -> impl Iterator<Item = &Pool> {
        let pools = self.pools.get(&to).into_iter().flatten();
        pools.filter(move |pool| pool.range.contains(address))
    }

    /// Whether packets to this address may belong to translated connections.
    pub fn is_outside(&self, vpc: VpcId, address: IpAddr) -> bool {
        self.forwarded.contains(&(vpc, address))
            || self.pools_of(vpc, address).next().is_some()
            || self.inside(vpc, address).is_some()
    }

    /// VPCs in which packets may be addressed to what NAT hides.
    pub fn outsides(&self) -> &[VpcId] {
        &self.outsides
    }

    /// All masquerades, for a pool's use.
    pub fn masquerades(&self) -> impl Iterator<Item = &Masquerade> {
        self.masquerades.values().flatten()
    }

    fn port_forward(
        &self,
        vpc: VpcId,
        address: IpAddr,
        proto: u8,
        port: u16,
    ) -> Option<&PortForward> {
        self.port_forwards
            .get(&(vpc, address, proto))?
            .iter()
            .find(|rule| rule.ports.contains(port))
    }
}
