//! The policy's NAT rules and peerings, lowered for one lookup a new connection.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use shunt_p4::{Tuple, VpcId};

use crate::policy::{Masquerade, Peering, Policy, PortForward};

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

/// The lowered rules.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// (from, to) → rules in the order of the configuration.
    masquerades: Map<(VpcId, VpcId), Vec<Masquerade>>,
    /// (vpc, to, inside) → outside.
    static_out: Map<(VpcId, VpcId, IpAddr), IpAddr>,
    /// (to, outside) → (vpc, inside).
    static_in: Map<(VpcId, IpAddr), (VpcId, IpAddr)>,
    /// (vpc, address, protocol) → rules; few each.
    port_forwards: Map<(VpcId, IpAddr, u8), Vec<PortForward>>,
    peerings: HashSet<Peering, ahash::RandomState>,
}

impl Rules {
    /// Lowers a policy.
    pub fn new(policy: &Policy) -> Self {
        let mut rules = Self::default();
        for rule in &policy.masquerades {
            rules
                .masquerades
                .entry((rule.vpc, rule.to))
                .or_default()
                .push(rule.clone());
        }
        for rule in &policy.static_nat {
            rules
                .static_out
                .insert((rule.vpc, rule.to, rule.inside), rule.outside);
            rules
                .static_in
                .insert((rule.to, rule.outside), (rule.vpc, rule.inside));
        }
        for rule in &policy.port_forwards {
            let key = (rule.vpc, rule.address, rule.protocol);
            rules
                .port_forwards
                .entry(key)
                .or_default()
                .push(rule.clone());
        }
        rules.peerings.extend(policy.peerings.iter().copied());
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
        let &(inside_vpc, inside) = self.static_in.get(&(vpc, tuple.dst))?;
        Some(Destination {
            vpc: inside_vpc,
            address: inside,
            port: tuple.dst_port,
        })
    }

    /// Whether the source of a new connection from `vpc` that leaves through `to` is to be
    /// translated: static NAT first, then the first masquerade whose sources have it.
    pub fn source(&self, vpc: VpcId, to: VpcId, src: IpAddr) -> Option<SourceRule<'_>> {
        if let Some(&outside) = self.static_out.get(&(vpc, to, src)) {
            return Some(SourceRule::Static(outside));
        }
        self.masquerades
            .get(&(vpc, to))?
            .iter()
            .find(|rule| {
                rule.sources.is_empty() || rule.sources.iter().any(|net| net.contains(&src))
            })
            .map(SourceRule::Masquerade)
    }

    /// Whether a port of an outside address is a forwarded one, and so is never leased.
    pub fn is_forwarded(&self, vpc: VpcId, address: IpAddr, proto: u8, port: u16) -> bool {
        self.port_forward(vpc, address, proto, port).is_some()
    }

    /// Whether connections may be opened from one VPC into the other without NAT.
    pub fn may_cross(&self, from: VpcId, to: VpcId) -> bool {
        from == to || self.peerings.contains(&Peering { from, to })
    }

    /// Whether packets to this address may belong to translated connections.
    pub fn is_outside(&self, vpc: VpcId, address: IpAddr) -> bool {
        let pooled = |rule: &Masquerade| {
            rule.to == vpc && rule.pool.iter().any(|range| range.contains(address))
        };
        self.static_in.contains_key(&(vpc, address))
            || self.masquerades().any(pooled)
            || self
                .port_forwards
                .keys()
                .any(|(to, outside, _)| (*to, *outside) == (vpc, address))
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
