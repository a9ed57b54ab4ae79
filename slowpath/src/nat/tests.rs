use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use shunt_p4::flow::proto;
use shunt_p4::{Tuple, VpcId};

use super::*;
use crate::policy::{AddressRange, Masquerade, Policy, PortForward, PortRange, StaticNat};

fn vpc(n: u16) -> VpcId {
    VpcId::new(n).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(first: &str, last: &str) -> AddressRange {
    AddressRange::new(ip(first), ip(last)).unwrap()
}

fn masquerade(pool: Vec<AddressRange>, first: u16, last: u16) -> Masquerade {
    Masquerade {
        name: "out".into(),
        vpc: vpc(1),
        to: vpc(9),
        sources: Vec::new(),
        pool,
        ports: PortRange::new(first, last).unwrap(),
        filtering: Default::default(),
        when_exhausted: Default::default(),
    }
}

fn tuple(host: u8, port: u16) -> Tuple {
    Tuple {
        src: Ipv4Addr::new(10, 0, 0, host).into(),
        dst: ip("192.0.2.80"),
        proto: proto::UDP,
        src_port: port,
        dst_port: 53,
    }
}

#[test]
fn one_inside_socket_has_one_outside_port_until_the_last_lease_is_back() {
    let rule = masquerade(vec![range("203.0.113.10", "203.0.113.12")], 1024, 65535);
    let mut nat = Nat::new(8, 7);
    let rules = Rules::default();
    let a = nat.lease(&rules, &rule, &tuple(2, 500)).unwrap();
    let b = nat.lease(&rules, &rule, &tuple(2, 500)).unwrap();
    assert_eq!((a.address, a.port), (b.address, b.port));
    assert!(a.fresh && !b.fresh);
    let other = nat.lease(&rules, &rule, &tuple(2, 501)).unwrap();
    assert_eq!(other.address, a.address, "paired");
    assert_ne!(other.port, a.port);
    nat.release(a.lease);
    assert_eq!(nat.mappings(), 2);
    nat.release(b.lease);
    nat.release(other.lease);
    assert_eq!(nat.mappings(), 0);
    assert_eq!(nat.pool_use().count(), 0);
}

#[test]
fn a_pool_is_used_up_before_it_is_refused() {
    let rule = masquerade(vec![range("203.0.113.10", "203.0.113.11")], 70, 71);
    let mut nat = Nat::new(100, 3);
    let leases: Vec<_> = (0..4)
        .map(|n| nat.lease(&Rules::default(), &rule, &tuple(2, n)).unwrap())
        .collect();
    let refused = nat.lease(&Rules::default(), &rule, &tuple(2, 4));
    assert_eq!(refused, Err(LeaseError::Exhausted));
    for leased in leases {
        nat.release(leased.lease);
    }
    assert!(nat.lease(&Rules::default(), &rule, &tuple(2, 4)).is_ok());
}

#[test]
fn another_family_has_no_address() {
    let rule = masquerade(vec![range("2001:db8::1", "2001:db8::2")], 1024, 65535);
    let refused = Nat::new(4, 1).lease(&Rules::default(), &rule, &tuple(2, 1));
    assert_eq!(refused, Err(LeaseError::NoAddress));
}

#[test]
fn a_forwarded_port_is_never_leased() {
    let forward = PortForward {
        name: "web".into(),
        vpc: vpc(9),
        address: ip("203.0.113.10"),
        protocol: proto::UDP,
        ports: PortRange::new(2000, 2002).unwrap(),
        to_vpc: vpc(1),
        to_address: ip("10.0.0.2"),
        to_ports: PortRange::new(80, 82).unwrap(),
    };
    let rules = Rules::new(&Policy {
        port_forwards: vec![forward],
        ..Policy::default()
    });
    let rule = masquerade(vec![ip("203.0.113.10").into()], 2000, 2003);
    let mut nat = Nat::new(10, 5);
    assert_eq!(nat.lease(&rules, &rule, &tuple(2, 1)).unwrap().port, 2003);
    assert_eq!(
        nat.lease(&rules, &rule, &tuple(2, 2)),
        Err(LeaseError::Exhausted)
    );

    let to = Tuple {
        dst: ip("203.0.113.10"),
        dst_port: 2001,
        ..tuple(9, 1)
    };
    let found = rules.destination(vpc(9), &to).unwrap();
    assert_eq!((found.address, found.port), (ip("10.0.0.2"), 81));
    assert_eq!(rules.destination(vpc(1), &to), None);
}

#[test]
fn a_mapping_outside_a_changed_pool_is_not_shared() {
    let mut nat = Nat::new(8, 7);
    let rules = Rules::default();
    let old = masquerade(vec![ip("203.0.113.10").into()], 1024, 65535);
    let new = masquerade(vec![ip("203.0.113.20").into()], 1024, 65535);
    let before = nat.lease(&rules, &old, &tuple(2, 500)).unwrap();
    let after = nat.lease(&rules, &new, &tuple(2, 500)).unwrap();
    assert_eq!(after.address, ip("203.0.113.20"));
    nat.release(before.lease);
    let again = nat.lease(&rules, &new, &tuple(2, 500)).unwrap();
    assert_eq!((again.address, again.port), (after.address, after.port));
}

#[test]
fn static_nat_works_both_ways_and_before_masquerade() {
    let rules = Rules::new(&Policy {
        masquerades: vec![masquerade(vec![ip("203.0.113.10").into()], 1024, 65535)],
        static_nat: vec![StaticNat {
            name: "s".into(),
            vpc: vpc(1),
            to: vpc(9),
            inside: ip("10.0.0.9").into(),
            outside: ip("203.0.113.30").into(),
            method: Default::default(),
        }],
        ..Policy::default()
    });
    let source = |src: &str| rules.source(vpc(1), vpc(9), ip(src));
    assert_eq!(
        source("10.0.0.9"),
        Some(SourceRule::Static(ip("203.0.113.30")))
    );
    assert!(matches!(
        source("10.0.0.8"),
        Some(SourceRule::Masquerade(_))
    ));
    let inbound = Tuple {
        dst: ip("203.0.113.30"),
        ..tuple(1, 7)
    };
    let destination = rules.destination(vpc(9), &inbound).unwrap();
    assert_eq!(
        (destination.vpc, destination.address, destination.port),
        (vpc(1), ip("10.0.0.9"), 53)
    );
}

proptest! {
    #[test]
    fn leased_ports_of_a_range_are_counted(
        ports in prop::collection::hash_set(1u16.., 0..60), first in 1u16.., length: u16,
    ) {
        let range = PortRange::new(first, first.saturating_add(length)).unwrap();
        let mut nat = Nat::new(64, 1);
        for port in &ports {
            let single = masquerade(vec![ip("203.0.113.10").into()], *port, *port);
            prop_assert!(nat.lease(&Rules::default(), &single, &tuple(2, *port)).is_ok());
        }
        let wanted = ports.iter().filter(|port| range.contains(**port)).count();
        let counted = nat.leased_in(vpc(9), ip("203.0.113.10"), proto::UDP, range);
        prop_assert_eq!(counted as usize, wanted);
        prop_assert_eq!(nat.leased_in(vpc(9), ip("203.0.113.11"), proto::UDP, range), 0);
    }

    #[test]
    fn no_port_has_two_owners_and_all_come_back(
        ops in prop::collection::vec((any::<bool>(), 0u8..4, 0u16..40), 1..400), seed: u64,
    ) {
        let rule = masquerade(vec![range("203.0.113.10", "203.0.113.11")], 1000, 1039);
        let mut nat = Nat::new(64, seed);
        let mut held: HashMap<(u8, u16), Vec<Leased>> = HashMap::new();
        for (lease, host, port) in ops {
            let mine = held.entry((host, port)).or_default();
            if lease {
                let foretold = nat.would_lease(&Rules::default(), &rule, &tuple(host, port));
                let leased = nat.lease(&Rules::default(), &rule, &tuple(host, port));
                let known = |leased: &Leased| (!leased.fresh).then_some(leased.port);
                prop_assert_eq!(foretold, leased.as_ref().map(|l| (l.address, known(l))).map_err(|e| *e));
                match leased {
                    Ok(leased) => mine.push(leased),
                    Err(error) => prop_assert!(matches!(error, LeaseError::Full | LeaseError::Exhausted)),
                }
            } else if let Some(leased) = mine.pop() {
                nat.release(leased.lease);
            }
            let mut owners = HashMap::new();
            for (socket, leases) in &held {
                for leased in leases {
                    let owner = owners.entry((leased.address, leased.port)).or_insert(*socket);
                    prop_assert_eq!(*owner, *socket, "two owners of {}:{}", leased.address, leased.port);
                }
            }
            let distinct = held.values().filter(|leases| !leases.is_empty()).count();
            prop_assert_eq!(nat.mappings(), distinct);
        }
        for leased in held.into_values().flatten() {
            nat.release(leased.lease);
        }
        prop_assert_eq!(nat.mappings(), 0);
        prop_assert_eq!(nat.pool_use().count(), 0);
    }
}
