//! The NAT rules, and what masquerades use of their pools.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use shunt_api::v1;
use shunt_p4::VpcId;
use shunt_p4::flow::proto::{TCP, UDP};
use shunt_slowpath::NatStats;
use shunt_slowpath::policy::{AddressRange, Masquerade, Policy, StaticMethod};

use super::convert::protocol;
use crate::config::Config;
use crate::pools::KINDS;

/// Every masquerade's pools, by protocol and family, used or not.
pub(crate) fn pools(config: &Config, stats: &NatStats) -> Vec<v1::NatPool> {
    let mut used: HashMap<(&str, u8), Vec<(IpAddr, u32)>> = HashMap::new();
    for found in &stats.used {
        used.entry((&found.rule, found.protocol))
            .or_default()
            .push((found.address, found.leased));
    }
    let mut pools = Vec::new();
    for rule in &config.policy.masquerades {
        for (number, ipv4) in KINDS {
            let ranges = || {
                let ranges = rule.pool.iter();
                ranges.filter(move |range| range.first().is_ipv4() == ipv4)
            };
            if ranges().next().is_none() {
                continue;
            }
            let addresses: Vec<_> = used
                .get(&(rule.name.as_str(), number))
                .into_iter()
                .flatten()
                .filter(|(address, _)| address.is_ipv4() == ipv4)
                .map(|&(address, leased)| v1::NatAddress {
                    address: address.to_string(),
                    leased: leased.into(),
                    capacity: capacity(&config.policy, rule, number, address.into()),
                })
                .collect();
            let text: Vec<_> = ranges().map(ToString::to_string).collect();
            pools.push(v1::NatPool {
                rule: rule.name.clone(),
                vpc: config.vpc_name(rule.vpc),
                to: config.vpc_name(rule.to),
                addresses: text.join(", "),
                protocol: protocol(number),
                leased: addresses.iter().map(|address| address.leased).sum(),
                capacity: ranges()
                    .map(|range| capacity(&config.policy, rule, number, *range))
                    .sum(),
                refused: stats.counters.exhausted(&rule.name, number, ipv4),
                used: addresses,
            });
        }
    }
    pools
}

/// Ports of a rule's addresses without those that are forwarded.
fn capacity(policy: &Policy, rule: &Masquerade, protocol: u8, addresses: AddressRange) -> u64 {
    let all = addresses.count() * u64::from(rule.ports.count());
    if !matches!(protocol, TCP | UDP) {
        return all;
    }
    let forwarded = policy.port_forwards.iter().filter(|forward| {
        forward.vpc == rule.to
            && forward.protocol == protocol
            && addresses.contains(forward.address)
    });
    let taken = forwarded.map(|forward| {
        let first = forward.ports.first().max(rule.ports.first());
        let last = forward.ports.last().min(rule.ports.last());
        u64::from((last + 1).saturating_sub(first))
    });
    all - taken.sum::<u64>()
}

/// Every rule, in words.
pub(super) fn rules(config: &Config) -> Vec<v1::NatRule> {
    let policy = &config.policy;
    let rule = |kind: &str, name: &str, vpc: VpcId, to: VpcId, original, translated| v1::NatRule {
        kind: kind.to_owned(),
        name: name.to_owned(),
        vpc: config.vpc_name(vpc),
        to: config.vpc_name(to),
        original,
        translated,
    };
    let masquerades = policy.masquerades.iter().map(|found| {
        let pool: Vec<_> = found.pool.iter().map(ToString::to_string).collect();
        let sources = found.sources.iter().map(ToString::to_string);
        let sources: Vec<_> = sources.collect();
        rule(
            "masquerade",
            &found.name,
            found.vpc,
            found.to,
            if sources.is_empty() {
                "any source".to_owned()
            } else {
                sources.join(", ")
            },
            format!("{} ports {}", pool.join(", "), found.ports),
        )
    });
    let statics = policy.static_nat.iter().map(|found| {
        let kind = match found.method {
            StaticMethod::SamePosition => "static",
            StaticMethod::Nptv6 => "nptv6",
        };
        let (inside, outside) = (network(found.inside), network(found.outside));
        rule(kind, &found.name, found.vpc, found.to, inside, outside)
    });
    let forwards = policy.port_forwards.iter().map(|found| {
        let service = |address: IpAddr, ports: &dyn std::fmt::Display| match address {
            IpAddr::V4(_) => format!("{} {address}:{ports}", protocol(found.protocol)),
            IpAddr::V6(_) => format!("{} [{address}]:{ports}", protocol(found.protocol)),
        };
        rule(
            "port_forward",
            &found.name,
            found.vpc,
            found.to_vpc,
            service(found.address, &found.ports),
            service(found.to_address, &found.to_ports),
        )
    });
    masquerades.chain(statics).chain(forwards).collect()
}

/// A prefix; a host without its length.
fn network(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shunt_slowpath::RuleUse;

    use super::*;

    /// The demo's with a forwarded range within green's ports, and a static address.
    fn config() -> Config {
        let text = shunt_testbed::topology::configuration(Path::new("/tmp/s.sock"))
            + "\n[[port_forward]]\nname = \"games\"\nvpc = \"wan\"\naddress = \"203.0.113.12\"\n\
               protocol = \"udp\"\nports = \"1000-1033\"\nto_vpc = \"green\"\n\
               to_address = \"10.1.0.2\"\n\
               [[static_nat]]\nname = \"mail\"\nvpc = \"red\"\nto = \"wan\"\n\
               inside = \"10.0.0.9\"\noutside = \"203.0.113.30\"\n\
               [[static_nat]]\nname = \"six\"\nvpc = \"red\"\nto = \"wan\"\nnptv6 = true\n\
               inside = \"fd00:1::/48\"\noutside = \"2001:db8:1::/48\"\n";
        crate::config::validate(&crate::config::document_of(&text).unwrap()).unwrap()
    }

    #[test]
    fn pools_have_their_use_and_capacity() {
        let used = |rule: &str, address: &str, protocol, leased| RuleUse {
            rule: rule.into(),
            address: address.parse().unwrap(),
            protocol,
            leased,
        };
        let mut stats = NatStats {
            used: vec![
                used("green-out", "203.0.113.12", UDP, 3),
                used("green-out", "203.0.113.13", UDP, 4),
                used("red-out", "203.0.113.10", TCP, 1),
            ],
            ..NatStats::default()
        };
        stats.counters.exhaust("green-out", UDP, true);
        let pools = pools(&config(), &stats);
        assert_eq!(pools.len(), 9, "three rules, three protocols, one family");
        let find = |rule: &str, protocol: &str| {
            let found = |pool: &&v1::NatPool| pool.rule == rule && pool.protocol == protocol;
            pools.iter().find(found).unwrap()
        };
        let green = find("green-out", "udp");
        assert_eq!(green.addresses, "203.0.113.12-203.0.113.13");
        // 1024 to 1033 of one address are forwarded.
        assert_eq!(green.capacity, 2 * (65_536 - 1024) - 10);
        assert_eq!((green.leased, green.refused), (7, 1));
        let first = &green.used[0];
        assert_eq!((first.leased, first.capacity), (3, 65_536 - 1024 - 10));
        assert_eq!(green.used[1].capacity, 65_536 - 1024);
        let icmp = find("green-out", "icmp");
        assert_eq!((icmp.leased, icmp.capacity), (0, 2 * (65_536 - 1024)));
        assert_eq!(find("red-out", "tcp").leased, 1);
        assert_eq!(find("red-out", "udp").leased, 0);
        assert_eq!(find("red-out", "udp").refused, 0);
    }

    #[test]
    fn rules_are_in_words() {
        let rules = rules(&config());
        let words: Vec<_> = rules
            .iter()
            .map(|rule| {
                format!(
                    "{} {} {} {}: {} -> {}",
                    rule.kind, rule.name, rule.vpc, rule.to, rule.original, rule.translated
                )
            })
            .collect();
        for line in [
            "masquerade red-out red wan: any source -> 203.0.113.10 ports 1024-40000",
            "static mail red wan: 10.0.0.9 -> 203.0.113.30",
            "nptv6 six red wan: fd00:1::/48 -> 2001:db8:1::/48",
            "port_forward red-web wan red: tcp 203.0.113.10:60080 -> tcp 10.0.0.2:80",
            "port_forward games wan green: udp 203.0.113.12:1000-1033 -> udp 10.1.0.2:1000-1033",
        ] {
            assert!(words.iter().any(|word| word == line), "{line}: {words:#?}");
        }
    }
}
