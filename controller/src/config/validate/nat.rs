//! NAT rules and peerings.

use std::net::IpAddr;

use shunt_p4::{VpcId, flow::proto};
use shunt_slowpath::policy::{
    AddressRange, Filtering, Masquerade, Peering, PortForward, StaticNat, WhenExhausted,
};

use super::super::document::Document;
use super::super::fault::Faults;
use super::super::values::{self, addresses_overlap, ports_overlap};
use super::interfaces::Found;
use super::{Names, Unique, name};

/// Addresses that one rule's pool can have; each is an address of a tap.
const POOL_ADDRESSES_MAX: u64 = 4096;

pub(super) fn masquerades(
    document: &Document,
    vpcs: &Names<'_>,
    interfaces: &[Found],
    faults: &mut Faults,
) -> Vec<Masquerade> {
    let mut names = Unique::new("the name");
    let mut found: Vec<(usize, Masquerade)> = Vec::new();
    for (index, section) in document.masquerade.iter().enumerate() {
        let at = |field: &str| format!("masquerade[{index}].{field}");
        name(at("name"), &section.name, faults);
        names.claim(at("name"), section.name.clone(), faults);
        let vpc = vpcs.vpc(at("vpc"), &section.vpc, faults);
        let to = vpcs.vpc(at("to"), &section.to, faults);
        different(at("to"), vpc, to, faults);
        let mut sources = Vec::new();
        for (position, text) in section.sources.iter().flatten().enumerate() {
            let path = at(&format!("sources[{position}]"));
            sources.extend(faults.check(path, values::prefix(text)));
        }
        if section.sources.as_ref().is_some_and(Vec::is_empty) {
            faults.add(
                at("sources"),
                "it is empty, so the rule serves nobody: leave it out for all sources",
            );
        }
        let ports = faults.check(at("ports"), values::port_range(&section.ports));
        let mut pool: Vec<AddressRange> = Vec::new();
        if section.pool.is_empty() {
            faults.add(at("pool"), "it is empty: name at least one address");
        }
        for (position, text) in section.pool.iter().enumerate() {
            let path = at(&format!("pool[{position}]"));
            let Some(range) = faults.check(path.clone(), values::address_range(text)) else {
                continue;
            };
            if let Some(to) = to {
                not_the_gateways(path.clone(), range, to, interfaces, faults);
            }
            let earlier = found.iter().filter(|(_, rule)| {
                Some(rule.to) == to && ports.is_none_or(|ports| ports_overlap(ports, rule.ports))
            });
            for (other, rule) in earlier {
                if rule
                    .pool
                    .iter()
                    .any(|taken| addresses_overlap(taken, &range))
                {
                    faults.add(
                        path.clone(),
                        format!(
                            "{range} overlaps the pool of masquerade[{other}] ({}): give them \
                             other addresses or other ports",
                            rule.name
                        ),
                    );
                }
            }
            if pool.iter().any(|taken| addresses_overlap(taken, &range)) {
                faults.add(path, format!("{range} is in this pool already"));
            } else {
                pool.push(range);
            }
        }
        let size = pool
            .iter()
            .fold(0u64, |sum, range| sum.saturating_add(range.count()));
        if size > POOL_ADDRESSES_MAX {
            faults.add(
                at("pool"),
                format!("it has more than {POOL_ADDRESSES_MAX} addresses"),
            );
            continue;
        }
        let filtering = faults.check(at("filtering"), filtering(&section.filtering));
        let when_exhausted = faults.check(
            at("when_exhausted"),
            when_exhausted(&section.when_exhausted),
        );
        let (Some(vpc), Some(to), Some(ports)) = (vpc, to, ports) else {
            continue;
        };
        let (Some(filtering), Some(when_exhausted)) = (filtering, when_exhausted) else {
            continue;
        };
        let families =
            [true, false].map(|v4| pool.iter().any(|range| range.first().is_ipv4() == v4));
        for (position, source) in sources.iter().enumerate() {
            let [v4, v6] = families;
            if !pool.is_empty() && !(if source.addr().is_ipv4() { v4 } else { v6 }) {
                faults.add(
                    at(&format!("sources[{position}]")),
                    format!("the pool has no address of the family of {source}"),
                );
            }
        }
        found.push((
            index,
            Masquerade {
                name: section.name.clone(),
                vpc,
                to,
                sources,
                pool,
                ports,
                filtering,
                when_exhausted,
            },
        ));
    }
    found.into_iter().map(|(_, rule)| rule).collect()
}

fn filtering(text: &str) -> Result<Filtering, String> {
    match text {
        "address-and-port-dependent" => Ok(Filtering::AddressAndPortDependent),
        "endpoint-independent" => Ok(Filtering::EndpointIndependent),
        other => Err(format!(
            "{other:?} is neither \"address-and-port-dependent\" nor \"endpoint-independent\""
        )),
    }
}

fn when_exhausted(text: &str) -> Result<WhenExhausted, String> {
    match text {
        "drop" => Ok(WhenExhausted::Drop),
        "reject" => Ok(WhenExhausted::Reject),
        other => Err(format!("{other:?} is neither \"drop\" nor \"reject\"")),
    }
}

pub(super) fn port_forwards(
    document: &Document,
    vpcs: &Names<'_>,
    static_nats: &[StaticNat],
    faults: &mut Faults,
) -> Vec<PortForward> {
    let mut names = Unique::new("the name");
    let mut found: Vec<PortForward> = Vec::new();
    for (index, section) in document.port_forward.iter().enumerate() {
        let at = |field: &str| format!("port_forward[{index}].{field}");
        name(at("name"), &section.name, faults);
        names.claim(at("name"), section.name.clone(), faults);
        let vpc = vpcs.vpc(at("vpc"), &section.vpc, faults);
        let to_vpc = vpcs.vpc(at("to_vpc"), &section.to_vpc, faults);
        let address = host(at("address"), &section.address, faults);
        let to_address = host(at("to_address"), &section.to_address, faults);
        let protocol = match section.protocol.as_str() {
            "tcp" => Some(proto::TCP),
            "udp" => Some(proto::UDP),
            other => {
                faults.add(at("protocol"), format!("{other:?} is neither tcp nor udp"));
                None
            }
        };
        let ports = faults.check(at("ports"), values::port_range(&section.ports));
        let to_ports = match &section.to_ports {
            Some(text) => faults.check(at("to_ports"), values::port_range(text)),
            None => ports,
        };
        let (Some(vpc), Some(to_vpc), Some(address), Some(to_address)) =
            (vpc, to_vpc, address, to_address)
        else {
            continue;
        };
        let (Some(protocol), Some(ports), Some(to_ports)) = (protocol, ports, to_ports) else {
            continue;
        };
        same_family(at("to_address"), address, to_address, faults);
        if to_ports.count() != 1 && to_ports.count() != ports.count() {
            faults.add(
                at("to_ports"),
                format!(
                    "{to_ports} has {} ports and ports ({ports}) has {}: as many or one are needed",
                    to_ports.count(),
                    ports.count()
                ),
            );
        }
        for rule in &found {
            if (rule.vpc, rule.address, rule.protocol) == (vpc, address, protocol)
                && ports_overlap(rule.ports, ports)
            {
                faults.add(
                    at("ports"),
                    format!("{address} {ports} overlaps the port forward {}", rule.name),
                );
            }
        }
        if let Some(rule) = static_nats
            .iter()
            .find(|rule| rule.to == vpc && rule.outside.contains(&address))
        {
            faults.add(
                at("address"),
                format!(
                    "{address} is wholly translated by the static NAT {}",
                    rule.name
                ),
            );
        }
        found.push(PortForward {
            name: section.name.clone(),
            vpc,
            address,
            protocol,
            ports,
            to_vpc,
            to_address,
            to_ports,
        });
    }
    found
}

pub(super) fn peerings(document: &Document, vpcs: &Names<'_>, faults: &mut Faults) -> Vec<Peering> {
    let mut found = Vec::new();
    for (index, section) in document.peering.iter().enumerate() {
        let at = |field: &str| format!("peering[{index}].{field}");
        let from = vpcs.vpc(at("from"), &section.from, faults);
        let to = vpcs.vpc(at("to"), &section.to, faults);
        different(at("to"), from, to, faults);
        let (Some(from), Some(to)) = (from, to) else {
            continue;
        };
        let mut prefixes = Vec::new();
        for (position, text) in section.prefixes.iter().flatten().enumerate() {
            let path = at(&format!("prefixes[{position}]"));
            prefixes.extend(faults.check(path, values::prefix(text)));
        }
        if section.prefixes.as_ref().is_some_and(Vec::is_empty) {
            faults.add(
                at("prefixes"),
                "it is empty, so nothing is exposed: leave it out for all destinations",
            );
        }
        if found
            .iter()
            .any(|other: &Peering| (other.from, other.to) == (from, to))
        {
            faults.add(
                format!("peering[{index}]"),
                format!("{} to {} is there already", section.from, section.to),
            );
        } else {
            found.push(Peering { from, to, prefixes });
        }
    }
    found
}

pub(super) fn different(
    path: String,
    one: Option<VpcId>,
    other: Option<VpcId>,
    faults: &mut Faults,
) {
    if one.is_some() && one == other {
        faults.add(path, "it is the same VPC: name another one");
    }
}

pub(super) fn host(path: String, text: &str, faults: &mut Faults) -> Option<IpAddr> {
    let address = faults.check(path.clone(), values::address(text))?;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        faults.add(path, format!("{address} is not a host's address"));
        return None;
    }
    Some(address)
}

pub(super) fn same_family(path: String, one: IpAddr, other: IpAddr, faults: &mut Faults) {
    if one.is_ipv4() != other.is_ipv4() {
        faults.add(
            path,
            format!("{one} and {other} are of different families: NAT keeps the family"),
        );
    }
}

/// The gateway's own connections would collide with translated ones.
pub(super) fn not_the_gateways(
    path: String,
    range: AddressRange,
    vpc: VpcId,
    interfaces: &[Found],
    faults: &mut Faults,
) {
    for Found { config, .. } in interfaces {
        let interface = &config.interface;
        let own = interface.addresses.iter().map(|net| net.addr());
        for address in own.filter(|address| interface.vpc == vpc && range.contains(*address)) {
            faults.add(
                path.clone(),
                format!(
                    "{address} is the gateway's own address on {:?}: take another one of the link",
                    interface.name
                ),
            );
        }
    }
}
