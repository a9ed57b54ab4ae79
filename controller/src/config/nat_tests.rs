//! Faults of static NAT by prefix, of peerings with prefixes, and of limits.

use shunt_slowpath::policy::{Filtering, StaticMethod, WhenExhausted};

use super::tests::{fault, good};
use super::*;

#[test]
fn static_nat_by_prefix() {
    fault(
        "static_nat[0].outside: 198.51.100.0/25 has not as many addresses as 10.0.0.0/24: give both the same length",
        |d| {
            d.static_nat[0].inside = "10.0.0.0/24".into();
            d.static_nat[0].outside = "198.51.100.0/25".into();
        },
    );
    fault(
        "static_nat[0].inside: 10.0.0.1/24 has bits behind its length: write 10.0.0.0/24",
        |d| d.static_nat[0].inside = "10.0.0.1/24".into(),
    );
    fault(
        "static_nat[0].outside: 203.0.113.16/28 is in the pool of the masquerade red-out",
        |d| {
            d.static_nat[0].inside = "10.0.0.16/28".into();
            d.static_nat[0].outside = "203.0.113.16/28".into();
        },
    );
    fault(
        "static_nat[0].outside: 203.0.113.1 is the gateway's own address on \"wan\": take another one of the link",
        |d| {
            d.static_nat[0].inside = "10.0.0.0/29".into();
            d.static_nat[0].outside = "203.0.113.0/29".into();
        },
    );
    fault(
        "static_nat[1].outside: 198.51.100.0/26 is taken by red-mail\n\
         static_nat[1].inside: 10.0.0.0/26 is translated by red-mail",
        |d| {
            d.static_nat[0].inside = "10.0.0.0/24".into();
            d.static_nat[0].outside = "198.51.100.0/24".into();
            let mut twin = d.static_nat[0].clone();
            twin.name = "twin".into();
            twin.inside = "10.0.0.0/26".into();
            twin.outside = "198.51.100.0/26".into();
            d.static_nat.push(twin);
        },
    );
    // A host inside it has a rule of its own.
    fault("none", |d| {
        let mut prefix = d.static_nat[0].clone();
        prefix.name = "prefix".into();
        prefix.inside = "10.0.0.0/24".into();
        prefix.outside = "198.51.100.0/24".into();
        d.static_nat.push(prefix);
    });
}

#[test]
fn ipv6_prefix_translation() {
    let prefix = |inside: &'static str, outside: &'static str| {
        move |d: &mut Document| {
            d.static_nat[0].inside = inside.into();
            d.static_nat[0].outside = outside.into();
            d.static_nat[0].nptv6 = true;
        }
    };
    fault(
        "static_nat[0].nptv6: 10.0.0.0/24 is not an IPv6 prefix of length 64 at most (RFC 6296): leave nptv6 out",
        prefix("10.0.0.0/24", "198.51.100.0/24"),
    );
    fault(
        "static_nat[0].nptv6: fd00::/96 is not an IPv6 prefix of length 64 at most (RFC 6296): leave nptv6 out",
        prefix("fd00::/96", "2001:db8:5::/96"),
    );
    fault(
        "static_nat[0].outside: more than 4096 addresses on the link 2001:db8:ffff::/64 of \"wan\", each of which the gateway would have to answer for: route another prefix to it",
        |d| {
            d.static_nat[0].inside = "fd00::/65".into();
            d.static_nat[0].outside = "2001:db8:ffff:0:8000::/65".into();
        },
    );
    let mut document = good();
    prefix("fd00:1::/48", "2001:db8:5::/48")(&mut document);
    let config = validate(&document).unwrap();
    assert_eq!(config.policy.static_nat[0].method, StaticMethod::Nptv6);
    assert!(config.interfaces.iter().all(|found| {
        let extra = config.nat_addresses_on(&found.interface);
        extra.iter().all(|address| address.is_ipv4())
    }));
}

#[test]
fn a_small_static_prefix_on_a_link_is_answered_for() {
    let mut document = good();
    document.static_nat[0].inside = "10.0.0.64/30".into();
    document.static_nat[0].outside = "203.0.113.64/30".into();
    let config = validate(&document).unwrap();
    let wan = config
        .interface(shunt_p4::InterfaceId::new(4).unwrap())
        .unwrap();
    let extra = config.nat_addresses_on(&wan.interface);
    for last in 64..68 {
        assert!(extra.contains(&[203, 0, 113, last].into()), "{extra:?}");
    }
}

#[test]
fn what_a_masquerade_lets_in_and_does_when_exhausted() {
    fault(
        "masquerade[0].filtering: \"all\" is neither \"address-and-port-dependent\" nor \"endpoint-independent\"",
        |d| d.masquerade[0].filtering = "all".into(),
    );
    fault(
        "masquerade[0].when_exhausted: \"panic\" is neither \"drop\" nor \"reject\"",
        |d| d.masquerade[0].when_exhausted = "panic".into(),
    );
    let mut document = good();
    document.masquerade[0].filtering = "endpoint-independent".into();
    document.masquerade[0].when_exhausted = "reject".into();
    let config = validate(&document).unwrap();
    let [first, second] = config.policy.masquerades.as_slice() else {
        panic!("two masquerades");
    };
    assert_eq!(first.filtering, Filtering::EndpointIndependent);
    assert_eq!(first.when_exhausted, WhenExhausted::Reject);
    assert_eq!(second.filtering, Filtering::AddressAndPortDependent);
    assert_eq!(second.when_exhausted, WhenExhausted::Drop);
}

#[test]
fn peerings_with_prefixes() {
    fault(
        "peering[0].prefixes: it is empty, so nothing is exposed: leave it out for all destinations",
        |d| d.peering[0].prefixes = Some(vec![]),
    );
    fault(
        "peering[0].prefixes[0]: \"10.1\" is not a prefix: write address/length, like 10.0.0.1/24",
        |d| d.peering[0].prefixes = Some(vec!["10.1".into()]),
    );
    let mut document = good();
    document.peering[0].prefixes = Some(vec!["10.1.0.0/24".into()]);
    let config = validate(&document).unwrap();
    assert_eq!(config.policy.peerings[0].prefixes.len(), 1);
}

#[test]
fn limits_on_connections() {
    fault(
        "limits.connections_per_source: -1 is out of range: 0 to 1000000000",
        |d| d.limits.connections_per_source = -1,
    );
    // Unless said otherwise, no VPC can take the whole table.
    let limits = |edit: fn(&mut Document)| {
        let mut document = good();
        edit(&mut document);
        validate(&document).unwrap().policy.limits
    };
    let default = limits(|_| ());
    assert_eq!(default.connections_per_vpc, Some(196_608));
    assert_eq!(default.half_open_per_vpc, Some(65_536));
    assert_eq!(default.connections_per_source, None);
    assert_eq!(default.new_per_second_per_vpc, None);
    // They hold for all workers together.
    let two = limits(|d| d.slow_path.as_mut().unwrap().workers = 2);
    assert_eq!(two.connections_per_vpc, Some(2 * 196_608));
    assert_eq!(two.half_open_per_vpc, Some(2 * 65_536));
    let off = limits(|d| {
        d.limits.connections_per_vpc = Some(0);
        d.limits.half_open_per_vpc = Some(0);
    });
    assert_eq!(
        (off.connections_per_vpc, off.half_open_per_vpc),
        (None, None)
    );
    let given = limits(|d| {
        d.limits.connections_per_source = 500;
        d.limits.new_per_second_per_source = 50;
    });
    assert_eq!(given.connections_per_source, Some(500));
    assert_eq!(given.new_per_second_per_source, Some(50));
}
