//! Static NAT: addresses and prefixes, one for one.

use ipnet::IpNet;
use shunt_p4::VpcId;
use shunt_slowpath::nat::NPTV6_PREFIX_MAX;
use shunt_slowpath::policy::{AddressRange, Masquerade, StaticMethod, StaticNat};

use super::super::document::Document;
use super::super::fault::Faults;
use super::super::model::STATIC_ADDRESSES_MAX;
use super::super::values::{self, addresses_overlap};
use super::interfaces::Found;
use super::nat::{different, host, not_the_gateways, same_family};
use super::{Names, Unique, name};

pub(super) fn static_nats(
    document: &Document,
    vpcs: &Names<'_>,
    interfaces: &[Found],
    masquerades: &[Masquerade],
    faults: &mut Faults,
) -> Vec<StaticNat> {
    let mut names = Unique::new("the name");
    let mut found: Vec<StaticNat> = Vec::new();
    for (index, section) in document.static_nat.iter().enumerate() {
        let at = |field: &str| format!("static_nat[{index}].{field}");
        name(at("name"), &section.name, faults);
        names.claim(at("name"), section.name.clone(), faults);
        let vpc = vpcs.vpc(at("vpc"), &section.vpc, faults);
        let to = vpcs.vpc(at("to"), &section.to, faults);
        different(at("to"), vpc, to, faults);
        let inside = addresses(at("inside"), &section.inside, faults);
        let outside = addresses(at("outside"), &section.outside, faults);
        let (Some(vpc), Some(to), Some(inside), Some(outside)) = (vpc, to, inside, outside) else {
            continue;
        };
        same_family(at("outside"), inside.addr(), outside.addr(), faults);
        if inside.prefix_len() != outside.prefix_len()
            && inside.addr().is_ipv4() == outside.addr().is_ipv4()
        {
            faults.add(
                at("outside"),
                format!(
                    "{outside} has not as many addresses as {inside}: give both the same length"
                ),
            );
            continue;
        }
        if section.nptv6 && (inside.addr().is_ipv4() || inside.prefix_len() > NPTV6_PREFIX_MAX) {
            faults.add(
                at("nptv6"),
                format!(
                    "{inside} is not an IPv6 prefix of length {NPTV6_PREFIX_MAX} at most (RFC \
                     6296): leave nptv6 out"
                ),
            );
            continue;
        }
        let Some(range) = AddressRange::new(outside.network(), outside.broadcast()) else {
            continue;
        };
        not_the_gateways(at("outside"), range, to, interfaces, faults);
        too_many_on_a_link(at("outside"), range, to, interfaces, faults);
        for rule in masquerades.iter().filter(|rule| rule.to == to) {
            if rule.pool.iter().any(|pool| addresses_overlap(pool, &range)) {
                faults.add(
                    at("outside"),
                    format!(
                        "{} is in the pool of the masquerade {}",
                        section.outside, rule.name
                    ),
                );
            }
        }
        // A host may have a rule of its own inside a prefix's.
        let taken = |one: &IpNet, other: &IpNet| one == other || overlap_of_prefixes(one, other);
        for rule in &found {
            if rule.to == to && taken(&rule.outside, &outside) {
                faults.add(
                    at("outside"),
                    format!("{} is taken by {}", section.outside, rule.name),
                );
            }
            if (rule.vpc, rule.to) == (vpc, to) && taken(&rule.inside, &inside) {
                faults.add(
                    at("inside"),
                    format!("{} is translated by {}", section.inside, rule.name),
                );
            }
        }
        found.push(StaticNat {
            name: section.name.clone(),
            vpc,
            to,
            inside,
            outside,
            method: match section.nptv6 {
                true => StaticMethod::Nptv6,
                false => StaticMethod::SamePosition,
            },
        });
    }
    found
}

/// Whether two prefixes that are no single addresses have addresses in common.
fn overlap_of_prefixes(one: &IpNet, other: &IpNet) -> bool {
    let is_host = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
    !is_host(one) && !is_host(other) && (one.contains(other) || other.contains(one))
}

/// An address, or a prefix without bits behind its length.
fn addresses(path: String, text: &str, faults: &mut Faults) -> Option<IpNet> {
    if text.contains('/') {
        let net = faults.check(path.clone(), values::prefix(text))?;
        host(path, &net.addr().to_string(), faults)?;
        return Some(net);
    }
    host(path, text, faults).map(IpNet::from)
}

/// The gateway answers ARP and ND for outside addresses on its links, for each by itself.
fn too_many_on_a_link(
    path: String,
    range: AddressRange,
    vpc: VpcId,
    interfaces: &[Found],
    faults: &mut Faults,
) {
    for Found { config, .. } in interfaces {
        let interface = &config.interface;
        let mut links = interface.addresses.iter().filter(|_| interface.vpc == vpc);
        let on_link =
            links.find(|link| link.contains(&range.first()) || range.contains(link.addr()));
        if let Some(link) = on_link
            && range.count() > STATIC_ADDRESSES_MAX
        {
            faults.add(
                path.clone(),
                format!(
                    "more than {STATIC_ADDRESSES_MAX} addresses on the link {} of {:?}, each of \
                     which the gateway would have to answer for: route another prefix to it",
                    link.trunc(),
                    interface.name
                ),
            );
        }
    }
}
