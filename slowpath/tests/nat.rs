//! NAT rules one by one: hairpinning, filtering, prefixes, VPCs that see each other through NAT.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use shunt_p4::{NetworkOp, NexthopId, Route};
use shunt_slowpath::DropReason;
use shunt_slowpath::policy::{
    Filtering, Masquerade, Peering, Policy, PortRange, StaticMethod, StaticNat, WhenExhausted,
};
use shunt_slowpath::worker::Verdict;

const SERVER: &str = "192.0.2.80:53";

fn with(change: impl FnOnce(&mut Policy)) -> World {
    let mut policy = policy();
    change(&mut policy);
    World::with(policy, 1024, 1024)
}

fn static_nat(from: u16, to: u16, inside: &str, outside: &str) -> StaticNat {
    StaticNat {
        name: format!("{inside} is {outside}"),
        vpc: vpc(from),
        to: vpc(to),
        inside: inside.parse().unwrap(),
        outside: outside.parse().unwrap(),
        method: StaticMethod::SamePosition,
    }
}

/// A route of `vpc` to what is attached to another VPC's interface.
fn leak(world: &mut World, from: u16, prefix: &str, to: u16) {
    let hop = NexthopId::new(u32::from(to)).unwrap();
    let route = Route::Nexthops(vec![(hop, 1)]);
    let route = NetworkOp::SetRoute(vpc(from), prefix.parse().unwrap(), route);
    world.fib.apply([route]);
    world.fib.publish();
}

/// RFC 4787 REQ-9: an inside host reaches another one by its outside address and port, and sees
/// and shows outside addresses only.
#[test]
fn hairpin_to_a_forwarded_port() {
    let mut world = World::new();
    let client = "10.0.0.3:1234";
    // The client has a static address.
    let there = world.forwarded(RED, &tcp(client, "203.0.113.10:8080", "S"));
    assert_eq!((there.interface, there.dst), (RED, sock("10.0.0.2:80")));
    assert_eq!(there.src, sock("203.0.113.30:1234"));
    let back = world.forwarded(RED, &tcp("10.0.0.2:80", "203.0.113.30:1234", "SA"));
    assert_eq!((back.interface, back.dst), (RED, sock(client)));
    assert_eq!(back.src, sock("203.0.113.10:8080"));
    world.forwarded(RED, &tcp(client, "203.0.113.10:8080", "A"));
    // In hardware it is two entries of the inside VPC.
    let unit = world.install();
    for (entry, dst) in unit.flows.entries().iter().zip(["10.0.0.2", "10.0.0.3"]) {
        assert_eq!((entry.key.vpc, entry.action.vpc), (vpc(RED), vpc(RED)));
        assert_eq!(entry.action.dst.unwrap().0, ip(dst));
        assert!(entry.action.src.is_some());
    }
}

#[test]
fn hairpin_from_another_vpc_and_to_a_static_address() {
    let mut world = World::new();
    let there = world.forwarded(BLUE, &udp("10.0.0.2:1234", "203.0.113.30:53"));
    assert_eq!((there.interface, there.dst), (RED, sock("10.0.0.3:53")));
    assert_eq!(there.src.ip(), ip("203.0.113.10"));
    let back = world.forwarded(RED, &udp("10.0.0.3:53", &there.src.to_string()));
    assert_eq!((back.interface, back.dst), (BLUE, sock("10.0.0.2:1234")));
    assert_eq!(back.src, sock("203.0.113.30:53"));
}

/// Two hosts behind the same masquerade that have learnt each other's outside port.
#[test]
fn hairpin_between_masqueraded_hosts() {
    let mut world = with(|policy| policy.offload.enabled = false);
    let a = world.forwarded(RED, &udp("10.0.0.2:1000", SERVER)).src;
    let b = world.forwarded(BLUE, &udp("10.0.0.2:2000", SERVER)).src;
    let there = world.forwarded(RED, &udp("10.0.0.2:1000", &b.to_string()));
    assert_eq!((there.interface, there.dst), (BLUE, sock("10.0.0.2:2000")));
    assert_eq!(there.src, a, "endpoint-independent");
    let back = world.forwarded(BLUE, &udp("10.0.0.2:2000", &a.to_string()));
    assert_eq!(
        (back.interface, back.src, back.dst),
        (RED, b, sock("10.0.0.2:1000"))
    );
    // The port stays leased for as long as somebody inside is connected to it.
    let filter = shunt_slowpath::FlowFilter {
        prefix: Some("192.0.2.80/32".parse().unwrap()),
        ..Default::default()
    };
    world.worker.delete_flows(world.now, &filter, 0, u32::MAX);
    assert_eq!((world.flows().len(), world.leased()), (1, 2));
    world.pass(HOUR);
    assert_eq!((world.flows().len(), world.leased()), (0, 0));
    // Nobody has that port now: the packet goes where the world is.
    let lost = world.forwarded(RED, &udp("10.0.0.2:1000", &b.to_string()));
    assert_eq!(lost.interface, WAN);
}

#[test]
fn filtering_lets_in_whom_the_rule_says() {
    for filtering in [
        Filtering::AddressAndPortDependent,
        Filtering::EndpointIndependent,
    ] {
        let mut world = with(|policy| {
            policy.masquerades[0].filtering = filtering;
            policy.offload.enabled = false;
        });
        let outside = world.forwarded(RED, &udp("10.0.0.2:1234", SERVER)).src;
        let stranger = udp("192.0.2.99:7", &outside.to_string());
        if filtering == Filtering::AddressAndPortDependent {
            // The kernel says that nobody listens.
            assert_eq!(world.verdict(WAN, &stranger), Verdict::Exception);
            continue;
        }
        let there = world.forwarded(WAN, &stranger);
        assert_eq!((there.interface, there.dst), (RED, sock("10.0.0.2:1234")));
        let back = world.forwarded(RED, &udp("10.0.0.2:1234", "192.0.2.99:7"));
        assert_eq!(back.src, outside);
        assert_eq!(world.leased(), 1);
        // A port that nobody has leased, and one of the other rule.
        let free = format!("{}:{}", outside.ip(), outside.port() ^ 1);
        let verdict = world.verdict(WAN, &udp("192.0.2.99:7", &free));
        assert_eq!(verdict, Verdict::Exception);
        world.pass(HOUR);
        assert_eq!((world.flows().len(), world.leased()), (0, 0));
    }
}

#[test]
fn an_exhausted_pool_is_dropped_or_rejected_as_the_rule_says() {
    for (when_exhausted, v6) in [
        (WhenExhausted::Drop, false),
        (WhenExhausted::Reject, false),
        (WhenExhausted::Reject, true),
    ] {
        let mut world = with(|policy| {
            policy.masquerades[0].ports = PortRange::new(5000, 5000).unwrap();
            policy.masquerades[0].when_exhausted = when_exhausted;
        });
        let (a, b, server) = match v6 {
            false => ("10.0.0.2:1", "10.0.0.2:2", SERVER),
            true => (
                "[2001:db8:1::2]:1",
                "[2001:db8:1::2]:2",
                "[2001:db8:ffff::1]:53",
            ),
        };
        world.forwarded(RED, &udp(a, server));
        let (verdict, out) = world.frame(RED, &udp(b, server));
        let reason = DropReason::PoolExhausted;
        if when_exhausted == WhenExhausted::Drop {
            assert_eq!(verdict, Verdict::Drop(reason));
        } else {
            assert_eq!(verdict, Verdict::Answered(reason));
            let icmp = &out[26 + 14 + if v6 { 40 } else { 20 }..];
            assert_eq!(icmp[..2], if v6 { [1, 1] } else { [3, 13] });
            assert_eq!(Seen::new(&out).dst.ip(), sock(b).ip());
        }
        assert_eq!(world.worker.stats().dropped_in(vpc(RED), reason), 1);
        // What was refused has taken nothing.
        assert_eq!((world.flows().len(), world.leased()), (1, 1));
    }
}

#[test]
fn ipv6_prefixes_are_translated_both_ways() {
    let mut world = with(|policy| {
        policy.masquerades.clear();
        policy.static_nat = vec![StaticNat {
            method: StaticMethod::Nptv6,
            ..static_nat(RED, WAN, "2001:db8:1::/48", "2001:db8:77::/48")
        }];
    });
    let there = world.forwarded(
        RED,
        &tcp("[2001:db8:1::2]:1234", "[2001:db8:ffff::1]:80", "S"),
    );
    assert_eq!(there.interface, WAN);
    // 2001:db8:1 and 2001:db8:77 differ by 0x76.
    assert_eq!(there.src, sock("[2001:db8:77:ff89::2]:1234"));
    let back = world.forwarded(
        WAN,
        &tcp("[2001:db8:ffff::1]:80", &there.src.to_string(), "SA"),
    );
    assert_eq!(
        (back.interface, back.dst),
        (RED, sock("[2001:db8:1::2]:1234"))
    );
    // From outside to an inside host that never spoke.
    let there = world.forwarded(
        WAN,
        &echo("2001:db8:ffff::1", "2001:db8:77:ff89::2", 9, true),
    );
    assert_eq!(
        (there.interface, there.dst.ip()),
        (RED, ip("2001:db8:1::2"))
    );
    let back = world.forwarded(RED, &echo("2001:db8:1::2", "2001:db8:ffff::1", 9, false));
    assert_eq!(back.src.ip(), ip("2001:db8:77:ff89::2"));
    // A subnet that has no counterpart (RFC 6296 section 3.1).
    let frame = udp("[2001:db8:1:ffff::2]:1", "[2001:db8:ffff::1]:80");
    assert_eq!(
        world.verdict(RED, &frame),
        Verdict::Drop(DropReason::NoPeering)
    );
}

/// The checksums of a packet that RFC 6296 translates are not written at all.
#[test]
fn nptv6_leaves_the_transport_alone() {
    let mut world = with(|policy| {
        policy.masquerades.clear();
        policy.static_nat = vec![StaticNat {
            method: StaticMethod::Nptv6,
            ..static_nat(RED, WAN, "2001:db8:1::/64", "2001:db8:77::/64")
        }];
    });
    let frame = udp("[2001:db8:1::2]:1234", "[2001:db8:ffff::1]:80");
    let (verdict, out) = world.frame(RED, &frame);
    assert_eq!(verdict, Verdict::Transmit);
    assert_eq!(out[26 + 54..], frame[54..]);
}

#[test]
fn static_prefixes_keep_the_host_and_host_rules_go_first() {
    let mut world = with(|policy| {
        policy
            .static_nat
            .push(static_nat(RED, WAN, "10.0.0.0/28", "198.51.100.16/28"));
    });
    let there = world.forwarded(RED, &udp("10.0.0.2:1234", SERVER));
    assert_eq!(there.src, sock("198.51.100.18:1234"));
    let there = world.forwarded(RED, &udp("10.0.0.3:1234", SERVER));
    assert_eq!(there.src, sock("203.0.113.30:1234"));
    let there = world.forwarded(RED, &udp("10.0.0.77:1234", SERVER));
    assert_eq!(there.src.ip(), ip("203.0.113.10"));
    let inward = world.forwarded(WAN, &udp("192.0.2.9:1", "198.51.100.18:99"));
    assert_eq!((inward.interface, inward.dst), (RED, sock("10.0.0.2:99")));
}

/// Two VPCs with the same addresses reach each other by addresses that only NAT knows.
#[test]
fn vpcs_with_the_same_addresses_meet_through_nat() {
    let mut world = with(|policy| {
        policy.static_nat = vec![
            // What red calls 10.99.0.0/24 is blue's 10.0.0.0/24, and the other way round.
            static_nat(BLUE, RED, "10.0.0.0/24", "10.99.0.0/24"),
            static_nat(RED, BLUE, "10.0.0.0/24", "10.98.0.0/24"),
        ];
    });
    let there = world.forwarded(RED, &tcp("10.0.0.2:1234", "10.99.0.3:80", "S"));
    assert_eq!((there.interface, there.dst), (BLUE, sock("10.0.0.3:80")));
    assert_eq!(there.src, sock("10.98.0.2:1234"));
    let back = world.forwarded(BLUE, &tcp("10.0.0.3:80", "10.98.0.2:1234", "SA"));
    assert_eq!((back.interface, back.dst), (RED, sock("10.0.0.2:1234")));
    assert_eq!(back.src, sock("10.99.0.3:80"));
    // Opened from the other side too.
    let other = world.forwarded(BLUE, &udp("10.0.0.3:7", "10.98.0.2:9"));
    assert_eq!((other.interface, other.src), (RED, sock("10.99.0.3:7")));
    assert_eq!(other.dst, sock("10.0.0.2:9"));
}

/// A VPC's service for others: they see one address of theirs, it sees one address of its own.
#[test]
fn a_masquerade_into_another_vpc() {
    let mut world = with(|policy| {
        policy.static_nat = vec![static_nat(BLUE, RED, "10.0.0.3/32", "10.99.0.3/32")];
        policy.masquerades = vec![Masquerade {
            to: vpc(BLUE),
            pool: vec![ip("10.200.0.1").into()],
            ..policy.masquerades[0].clone()
        }];
    });
    let there = world.forwarded(RED, &udp("10.0.0.2:1234", "10.99.0.3:53"));
    assert_eq!((there.interface, there.dst), (BLUE, sock("10.0.0.3:53")));
    assert_eq!(there.src.ip(), ip("10.200.0.1"));
    let back = world.forwarded(BLUE, &udp("10.0.0.3:53", &there.src.to_string()));
    assert_eq!((back.interface, back.src), (RED, sock("10.99.0.3:53")));
}

#[test]
fn a_peering_exposes_the_prefixes_that_it_names() {
    let mut world = with(|policy| {
        policy.masquerades.clear();
        policy.peerings = vec![Peering {
            from: vpc(RED),
            to: vpc(BLUE),
            prefixes: vec![
                "10.0.0.3/32".parse().unwrap(),
                "10.7.0.0/16".parse().unwrap(),
            ],
        }];
    });
    for prefix in ["10.0.0.3/32", "10.0.0.4/32", "10.7.0.0/16"] {
        leak(&mut world, RED, prefix, BLUE);
    }
    leak(&mut world, BLUE, "10.0.0.2/32", RED);
    let there = world.forwarded(RED, &udp("10.0.0.2:5", "10.0.0.3:6"));
    assert_eq!(there.interface, BLUE);
    let back = world.forwarded(BLUE, &udp("10.0.0.3:6", "10.0.0.2:5"));
    assert_eq!(back.interface, RED);
    let hidden = world.verdict(RED, &udp("10.0.0.2:5", "10.0.0.4:6"));
    assert_eq!(hidden, Verdict::Drop(DropReason::NoPeering));
    assert_eq!(
        world.verdict(RED, &udp("10.0.0.2:5", "10.7.1.1:6")),
        Verdict::Held
    );
}
