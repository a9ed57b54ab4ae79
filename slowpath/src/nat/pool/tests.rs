use std::collections::HashSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use shunt_p4::flow::proto;

use super::*;
use crate::policy::AddressRange;

fn vpc(n: u16) -> VpcId {
    VpcId::new(n).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn masquerade(pool: &[(&str, &str)], (first, last): (u16, u16)) -> Masquerade {
    let range = |(first, last): &(&str, &str)| AddressRange::new(ip(first), ip(last)).unwrap();
    Masquerade {
        name: "out".into(),
        vpc: vpc(1),
        to: vpc(9),
        sources: Vec::new(),
        pool: pool.iter().map(range).collect(),
        ports: PortRange::new(first, last).unwrap(),
        filtering: Default::default(),
        when_exhausted: Default::default(),
    }
}

fn tuple(src: impl Into<IpAddr>, port: u16) -> Tuple {
    let src = src.into();
    Tuple {
        src,
        dst: ip(if src.is_ipv4() {
            "192.0.2.80"
        } else {
            "2001:db8:9::80"
        }),
        proto: proto::UDP,
        src_port: port,
        dst_port: 53,
    }
}

fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

#[test]
fn a_lease_is_the_number_of_set_and_port() {
    for (set, port) in [(0, 0), (0, 1), (1, 0), (7, 1024), (65_534, 65_535)] {
        let lease = Lease::new(set, port);
        assert_eq!(lease.at(), (set, port));
        assert_eq!(Lease::numbered(lease.number()), Some(lease));
    }
    assert_eq!(MAX_SETS, 65_535, "the largest number of the index is none");
    assert_eq!(Lease::numbered(u32::MAX), None);
}

#[test]
fn a_release_frees_its_own_port_only() {
    let rules = Rules::default();
    let rule = masquerade(&[("203.0.113.10", "203.0.113.12")], (1024, 65535));
    let mut nat = Nat::new(300, 7);
    let lease = |nat: &mut Nat, n: u8| nat.lease(&rules, &rule, &tuple(host(n), 500)).unwrap();
    let held: Vec<_> = (0..100).map(|n| lease(&mut nat, n)).collect();
    assert!(held.iter().any(|leased| leased.lease.at().0 > 0));
    let shared = lease(&mut nat, 50);
    assert!(nat.join(vpc(9), shared.address, proto::UDP, shared.port));
    let mut left: HashSet<u8> = (0..100).collect();
    for (n, leased) in (0u8..).zip(held) {
        let (address, port) = (leased.address, leased.port);
        nat.release(leased.lease);
        if n != 50 {
            left.remove(&n);
            assert_eq!(nat.inside(vpc(9), address, proto::UDP, port), None);
        }
        assert_eq!(nat.mappings(), left.len());
    }
    let inside = Some((vpc(1), host(50).into(), 500));
    let (address, port) = (shared.address, shared.port);
    assert_eq!(nat.inside(vpc(9), address, proto::UDP, port), inside);
    nat.release(shared.lease);
    assert_eq!(nat.mappings(), 1, "who joined still has it");
    nat.leave(vpc(9), address, proto::UDP, port);
    nat.leave(vpc(9), address, proto::UDP, port);
    assert_eq!((nat.mappings(), nat.pool_use().count()), (0, 0));
}

#[test]
fn families_lie_beside_each_other() {
    let rules = Rules::default();
    let pool = [
        ("203.0.113.10", "203.0.113.10"),
        ("2001:db8::10", "2001:db8::10"),
    ];
    let rule = masquerade(&pool, (2000, 2100));
    let mut nat = Nat::new(300, 3);
    let four = |n: u8| tuple(host(n), 500);
    // The same low bits as those of IPv4.
    let six = |n: u8| tuple(host(n).to_ipv6_compatible(), 500);
    for round in 0..3 {
        let mut held = Vec::new();
        for n in 0..40 {
            for tuple in [four(n), six(n)] {
                held.push((tuple, nat.lease(&rules, &rule, &tuple).unwrap()));
            }
        }
        for (tuple, leased) in &held {
            assert_eq!(leased.address.is_ipv4(), tuple.src.is_ipv4());
            let inside = nat.inside(vpc(9), leased.address, proto::UDP, leased.port);
            assert_eq!(inside, Some((vpc(1), tuple.src, 500)));
            let again = nat.lease(&rules, &rule, tuple).unwrap();
            assert!(!again.fresh && again.port == leased.port);
            nat.release(again.lease);
        }
        assert_eq!(nat.mappings(), 80);
        if round % 2 == 0 {
            held.reverse();
        }
        for (_, leased) in held {
            nat.release(leased.lease);
        }
        assert_eq!(nat.mappings(), 0);
    }
}

#[test]
fn beyond_the_limit_a_set_takes_the_place_of_one_without_leases() {
    let rules = Rules::default();
    let rule = masquerade(&[("203.0.113.10", "203.0.113.12")], (70, 70));
    let mut nat = Nat::new(8, 7);
    nat.sets.limit = 2;
    let lease = |nat: &mut Nat, n: u8| nat.lease(&rules, &rule, &tuple(host(n), 1));
    let first = lease(&mut nat, 1).unwrap();
    let second = lease(&mut nat, 2).unwrap();
    assert_ne!(first.address, second.address);
    let none = Err(LeaseError::TooManyAddresses);
    assert_eq!(lease(&mut nat, 3), none);
    assert_eq!(nat.mappings(), 2);
    let foretold = nat.would_lease(&rules, &rule, &tuple(host(3), 1));
    assert_eq!(foretold, Err(LeaseError::TooManyAddresses));
    let third = rule.pool[0];
    let third = (0..3).filter_map(|n| third.nth(n));
    let third = third.filter(|address| ![first.address, second.address].contains(address));
    let third: Vec<_> = third.collect();
    let retaken = nat.retake(&rule, &tuple(host(3), 1), third[0], 70);
    assert_eq!(retaken, Err(RetakeError::Full));

    nat.release(first.lease);
    // Both the address that is known and the one that is not can be had now.
    let (was, now) = (first.address, third[0]);
    assert!(nat.would_lease(&rules, &rule, &tuple(host(3), 1)).is_ok());
    let lease = nat.retake(&rule, &tuple(host(3), 1), now, 70).unwrap();
    let inside = |nat: &Nat, address| nat.inside(vpc(9), address, proto::UDP, 70);
    assert_eq!(inside(&nat, now), Some((vpc(1), host(3).into(), 1)));
    assert_eq!(inside(&nat, was), None);
    assert_eq!(
        inside(&nat, second.address),
        Some((vpc(1), host(2).into(), 1))
    );
    nat.release(second.lease);
    nat.release(lease);
    assert_eq!((nat.mappings(), nat.pool_use().count()), (0, 0));
}

/// Asked for together, as a burst's are.
#[test]
fn a_set_that_was_replaced_since_it_was_asked_for_is_not_taken_for_the_same() {
    let rules = Rules::default();
    let one = masquerade(&[("203.0.113.10", "203.0.113.10")], (70, 75));
    let other = masquerade(&[("203.0.113.20", "203.0.113.20")], (70, 75));
    let mut nat = Nat::new(8, 7);
    nat.sets.limit = 1;
    let key = |n| Key::new(vpc(1), &tuple(host(n), 1));
    let [mut first, mut second] = [Ask::NONE; 2];
    nat.ask(&one, &key(1), &mut first).unwrap();
    nat.ask(&other, &key(2), &mut second).unwrap();
    let second = nat.grant(&rules, &other, &second).unwrap();
    assert_eq!(second.address, ip("203.0.113.20"));
    let refused = nat.grant(&rules, &one, &first);
    assert_eq!(refused, Err(LeaseError::TooManyAddresses));
    nat.release(second.lease);
    let first = nat.grant(&rules, &one, &first).unwrap();
    assert_eq!(first.address, ip("203.0.113.10"));
}

#[test]
fn every_port_has_a_mapping_of_its_own() {
    for workers in [1, 3] {
        let share = PortShare {
            worker: 1 % workers,
            workers,
        };
        let mut ports = Ports::new(share, 1000);
        // Of two parts that lie together.
        let sets = [0, 1, 63, 64];
        (0..65).for_each(|_| ports.add());
        let all = || {
            sets.iter()
                .flat_map(|set| (0..=u16::MAX).map(move |port| (*set, port)))
        };
        let mapping = |set: u32, port: u16| Mapping([set << 16 | u32::from(port), set, 1]);
        for (set, port) in all() {
            assert!(!ports.mapping(set, port).is_held());
            if ports.has(port) {
                ports.lease(set, port, mapping(set, port));
            }
        }
        for (set, port) in all() {
            let mine = PortShare::owner(port, workers) == share.worker;
            assert_eq!(ports.has(port), mine);
            let wanted = if mine {
                mapping(set, port)
            } else {
                Mapping::default()
            };
            assert_eq!(ports.mapping(set, port), wanted);
            ports.free(set, port);
        }
        let range = PortRange::new(1, u16::MAX).unwrap();
        assert!(sets.iter().all(|set| ports.leased_in(*set, range) == 0));
    }
}

/// The reciprocal is exact.
#[test]
fn shares_are_what_their_owners_say() {
    for workers in (1..1100).chain([4096, 65_535]) {
        let worker = workers / 2;
        let ports = Ports::new(PortShare { worker, workers }, 1);
        for port in (0..=u16::MAX).step_by(usize::from(PORT_BLOCK)) {
            assert_eq!(ports.has(port), PortShare::owner(port, workers) == worker);
        }
    }
}

proptest! {
    /// Against going through the ports one by one.
    #[test]
    fn the_first_free_port_is_found(
        leased in prop::collection::hash_set(1000u16..1600, 0..500), workers in 1u16..4,
        worker in 0u16..4, (first, last) in (900u16..1700, 900u16..1700), at: prop::sample::Index,
        odd: bool, forwarded in 1000u16..1600,
    ) {
        let share = PortShare { worker: worker % workers, workers };
        let range = PortRange::new(first.min(last), first.max(last)).unwrap();
        let start = range.first() + at.index(range.count() as usize) as u16;
        let mask = PARITY[usize::from(odd)];
        let mut ports = Ports::new(share, 1);
        ports.add();
        let mine = |port: u16| PortShare::owner(port, workers) == share.worker;
        for port in leased.iter().filter(|port| mine(**port)) {
            ports.lease(0, *port, Mapping([0, 0, 1]));
        }
        let usable = |port: u16| port != forwarded;
        let around = (start..=range.last()).chain(range.first()..start);
        let free = |port: &u16| mine(*port) && !leased.contains(port) && usable(*port)
            && port % 2 == u16::from(odd);
        let wanted = around.clone().find(free);
        prop_assert_eq!(ports.find(Some(0), range, start, mask, usable), wanted);
        let count = around.filter(|port| mine(*port) && leased.contains(port)).count();
        prop_assert_eq!(ports.leased_in(0, range) as usize, count);
        // Where it starts instead, something is found as well; with one worker, the same.
        let likely = ports.likely(0, range, ports.near(range, start), mask);
        prop_assert!(range.contains(likely));
        let found = ports.find(Some(0), range, likely, mask, usable);
        prop_assert_eq!(found.is_some(), wanted.is_some());
        if workers == 1 {
            prop_assert_eq!(found, wanted);
        }
        prop_assert!(found.is_none_or(|port| free(&port) && range.contains(port)));
    }
}
