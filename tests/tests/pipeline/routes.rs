//! From the translated destination to the next hop's MAC address.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use shunt_p4::PuntReason::{FlowMiss, Local, Mtu, Ttl, Unreachable, Unresolved};
use shunt_p4::tables::{Ecmp, EcmpAction, EcmpKey, NexthopAction, Route4Action};
use shunt_p4::{EcmpGroupId, FlowAction, InterfaceId, MacAddr, NexthopId};

use crate::dut::{Drop, forward, run};
use crate::gateway::{
    BLUE, CLIENT, CLIENT6, GATEWAY, GREEN, NO_MTU, OTHER, OTHER6, PUBLIC, PUBLIC6, RED, SERVER,
    SERVER6, STATELESS, VIA4, VIA6, WAN, neighbor, nexthop, route, route4,
};
use crate::packet::{Packet, other, tcp, udp};

/// Behind a prefix that the tests route.
const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const PREFIX: &str = "198.51.100.0/24";

fn id(nexthop: u32) -> NexthopId {
    NexthopId::new(nexthop).unwrap()
}

fn request() -> Packet {
    udp((CLIENT, 1234), (SERVER, 80))
}

/// Both ends of `request` translated, the new destination being `TARGET`.
fn to_target() -> FlowAction {
    FlowAction {
        vpc: RED.vpc(),
        src: Some((PUBLIC, 5000)),
        dst: Some((TARGET, 81)),
    }
}

fn at_target() -> Packet {
    request().src(PUBLIC, 5000).dst(TARGET, 81).ttl(63)
}

/// What is punted after the flow stage reaches the slow path as it arrived.
#[test]
fn punted_packets_are_not_translated() {
    run("routes::punted_packets_are_not_translated", |dut| {
        let entry = dut.offload(&RED, &request(), to_target());
        let to = |nexthop| Route4Action::ToNexthop { nexthop };
        dut.insert(nexthop(9998, NexthopAction::Unreachable));
        for (action, reason) in [
            (Route4Action::Local, Local),
            (Route4Action::Unreachable, Unreachable),
            (to(id(9999)), Unreachable), // there is no such next hop
            (to(id(9998)), Unreachable),
            (to(RED.attached()), Unresolved),
        ] {
            let route = route4(RED.vpc(), PREFIX, action);
            dut.insert(route);
            dut.send(&RED, &request());
            dut.expect_punt(reason, &RED, &request());
            dut.remove(route);
        }
        dut.unload(entry);
        // In a VPC without routes.
        dut.offload(&RED, &request(), forward(WAN.vpc()));
        dut.send(&RED, &request());
        dut.expect_punt(Unreachable, &RED, &request());
    });
}

#[test]
fn blackholes_and_missing_interfaces() {
    run("routes::blackholes_and_missing_interfaces", |dut| {
        dut.offload(&RED, &request(), to_target());
        let bytes = RED.inbound(&request()).bytes();
        let blackhole = route4(RED.vpc(), PREFIX, Route4Action::Blackhole);
        dut.insert(blackhole);
        dut.expect_drop(Drop::Blackhole, 1, &bytes);
        let interface = InterfaceId::new(99).unwrap();
        let mtu = NO_MTU;
        dut.insert(nexthop(9997, NexthopAction::Attached { interface, mtu }));
        dut.insert(shunt_p4::tables::Neighbor4 {
            key: shunt_p4::tables::Neighbor4Key {
                interface,
                address: Ipv4Addr::new(198, 51, 100, 7),
            },
            action: shunt_p4::tables::Neighbor4Action::SetNeighbor { mac: WAN.host() },
        });
        let nexthop = id(9997);
        dut.modify(route4(
            RED.vpc(),
            PREFIX,
            Route4Action::ToNexthop { nexthop },
        ));
        dut.expect_drop(Drop::NoEgress, 1, &bytes);
    });
}

#[test]
fn the_longest_prefix_wins() {
    run("routes::the_longest_prefix_wins", |dut| {
        dut.offload(&RED, &request(), to_target());
        dut.insert(neighbor(&BLUE, TARGET, BLUE.host()));
        dut.insert(neighbor(&RED, TARGET, RED.host()));
        dut.insert(neighbor(&WAN, TARGET, MacAddr([2, 0xaa, 0, 0, 0, 0x77])));
        for (prefix, link) in [
            ("198.0.0.0/7", BLUE),
            ("198.51.100.0/25", RED),
            ("198.51.0.0/16", BLUE),
        ] {
            dut.insert(route(RED.vpc(), prefix, link.attached()));
        }
        dut.send(&RED, &request());
        dut.expect(&RED, &at_target());
        let host = route(RED.vpc(), "198.51.100.7/32", WAN.attached());
        dut.insert(host.clone());
        dut.send(&RED, &request());
        let mut frame = WAN.outbound(&at_target());
        frame.dst = MacAddr([2, 0xaa, 0, 0, 0, 0x77]);
        dut.expect(&WAN, &frame);
        dut.remove(host);
        dut.send(&RED, &request());
        dut.expect(&RED, &at_target());
        // Another VPC's routes are nothing to this one.
        dut.insert(route(GREEN.vpc(), "198.51.100.7/32", WAN.attached()));
        dut.send(&RED, &request());
        dut.expect(&RED, &at_target());
    });
}

#[test]
fn the_longest_ipv6_prefix_wins() {
    run("routes::the_longest_ipv6_prefix_wins", |dut| {
        let packet = tcp((CLIENT6, 1234), (SERVER6, 80));
        dut.offload(&RED, &packet, forward(RED.vpc()));
        dut.insert(neighbor(&BLUE, SERVER6, BLUE.host()));
        dut.insert(neighbor(&GREEN, SERVER6, GREEN.host()));
        dut.insert(route(RED.vpc(), "2001:db8:ffff::/64", BLUE.attached()));
        dut.send(&RED, &packet);
        dut.expect(&BLUE, &packet.clone().ttl(63));
        dut.insert(route(RED.vpc(), "2001:db8:ffff::80/128", GREEN.attached()));
        dut.send(&RED, &packet);
        dut.expect(&GREEN, &packet.clone().ttl(63));
        dut.insert(route(RED.vpc(), "::/0", RED.attached()));
        dut.send(&RED, &packet);
        dut.expect(&GREEN, &packet.ttl(63));
    });
}

/// RFC 5549: an IPv4 route by way of an IPv6 gateway.
#[test]
fn an_ipv6_gateway_of_an_ipv4_route() {
    run("routes::an_ipv6_gateway_of_an_ipv4_route", |dut| {
        dut.offload(&RED, &request(), to_target());
        let (interface, gateway) = (WAN.interface(), "fe80::77".parse().unwrap());
        let action = NexthopAction::Via6 {
            interface,
            mtu: NO_MTU,
            gateway,
        };
        dut.insert(nexthop(777, action));
        dut.insert(route(RED.vpc(), PREFIX, id(777)));
        dut.send(&RED, &request());
        dut.expect_punt(Unresolved, &RED, &request());
        let mac = MacAddr([2, 0xaa, 0, 0, 0, 0x77]);
        dut.insert(neighbor(&WAN, gateway.into(), mac));
        let mut frame = WAN.outbound(&at_target());
        frame.dst = mac;
        dut.send(&RED, &request());
        dut.expect(&WAN, &frame);
    });
}

/// A next hop may change under the routes that use it.
#[test]
fn a_changed_next_hop_takes_its_routes_along() {
    run("routes::a_changed_next_hop_takes_its_routes_along", |dut| {
        let packet = request();
        dut.offload(&RED, &packet, forward(RED.vpc()));
        dut.send(&RED, &packet);
        dut.expect(&WAN, &packet.clone().ttl(63));
        let interface = BLUE.interface();
        let mtu = NO_MTU;
        dut.modify(nexthop(VIA4, NexthopAction::Attached { interface, mtu }));
        dut.insert(neighbor(&BLUE, SERVER, BLUE.host()));
        dut.send(&RED, &packet);
        dut.expect(&BLUE, &packet.ttl(63));
    });
}

fn group(number: u16, members: &[(NexthopId, u16)]) -> Ecmp {
    let group = EcmpGroupId::new(number).unwrap();
    let members = members.iter().map(|&(nexthop, weight)| {
        let weight = NonZeroU16::new(weight).unwrap();
        (EcmpAction::ToNexthop { nexthop }, weight)
    });
    Ecmp {
        key: EcmpKey { group },
        members: members.collect(),
    }
}

#[test]
fn ecmp_spreads_by_weight_and_keeps_a_flow_together() {
    run(
        "routes::ecmp_spreads_by_weight_and_keeps_a_flow_together",
        |dut| {
            dut.insert(neighbor(&BLUE, TARGET, BLUE.host()));
            dut.insert(group(5, &[(id(VIA4), 3), (BLUE.attached(), 1)]));
            let group = EcmpGroupId::new(5).unwrap();
            dut.insert(route4(RED.vpc(), PREFIX, Route4Action::ToEcmp { group }));
            let mut by_wan = 0;
            for port in 2000..2100 {
                let packet = udp((CLIENT, port), (TARGET, 80));
                dut.offload(&RED, &packet, forward(RED.vpc()));
                dut.send(&RED, &packet);
                let first = dut
                    .expect_at_either([&WAN, &BLUE], &packet.clone().ttl(63))
                    .id;
                dut.send(&RED, &packet);
                let second = dut.expect_at_either([&WAN, &BLUE], &packet.ttl(63)).id;
                assert_eq!(first, second, "one flow, one path");
                by_wan += u32::from(first == WAN.id);
            }
            assert!(
                (60..=90).contains(&by_wan),
                "{by_wan} of 100 instead of about 75"
            );
        },
    );
}

#[test]
fn ecmp_groups_change_and_go() {
    run("routes::ecmp_groups_change_and_go", |dut| {
        let packet = udp((CLIENT, 1), (TARGET, 80));
        dut.offload(&RED, &packet, forward(RED.vpc()));
        dut.insert(neighbor(&BLUE, TARGET, BLUE.host()));
        let number = EcmpGroupId::new(6).unwrap();
        let to_group = Route4Action::ToEcmp { group: number };
        dut.insert(route4(RED.vpc(), PREFIX, to_group));
        dut.send(&RED, &packet);
        dut.expect_punt(Unreachable, &RED, &packet); // not there yet
        dut.insert(group(6, &[(BLUE.attached(), 1)]));
        dut.send(&RED, &packet);
        dut.expect(&BLUE, &packet.clone().ttl(63));
        dut.modify(group(6, &[(id(VIA4), 1)]));
        dut.send(&RED, &packet);
        dut.expect(&WAN, &packet.clone().ttl(63));
        dut.remove(group(6, &[(id(VIA4), 1)]));
        dut.send(&RED, &packet);
        dut.expect_punt(Unreachable, &RED, &packet);
    });
}

/// A packet as large as the egress MTU leaves; one byte more, and software has to answer.
#[test]
fn the_mtu_of_the_way_out() {
    run("routes::the_mtu_of_the_way_out", |dut| {
        for (client, server, public, other) in [
            (CLIENT, SERVER, PUBLIC, OTHER),
            (CLIENT6, SERVER6, PUBLIC6, OTHER6),
        ] {
            let packet = udp((client, 1234), (server, 80));
            let (src, dst) = (Some((public, 5000)), Some((other, 81)));
            let vpc = RED.vpc();
            dut.offload(&RED, &packet, FlowAction { vpc, src, dst });
            let largest = packet.clone().length(WAN.mtu.into());
            dut.send(&RED, &largest);
            dut.expect(&WAN, &largest.src(public, 5000).dst(other, 81).ttl(63));
            let larger = packet.length(usize::from(WAN.mtu) + 1);
            dut.send(&RED, &larger);
            dut.expect_punt(Mtu, &RED, &larger);
        }
    });
}

/// A route's own MTU counts where it is smaller than the interface's, whatever the kind of next
/// hop.
#[test]
fn the_mtu_of_a_route() {
    run("routes::the_mtu_of_a_route", |dut| {
        const SMALL: u16 = 1300;
        let (interface, gateway4) = (WAN.interface(), Ipv4Addr::new(203, 0, 113, 2));
        let gateway6 = "fe80::6".parse().unwrap();
        dut.insert(neighbor(&WAN, SERVER, WAN.host()));
        dut.insert(neighbor(&WAN, SERVER6, WAN.host()));
        for mtu in [SMALL, NO_MTU] {
            let attached = NexthopAction::Attached { interface, mtu };
            let via4 = NexthopAction::Via4 {
                interface,
                mtu,
                gateway: gateway4,
            };
            let via6 = NexthopAction::Via6 {
                interface,
                mtu,
                gateway: gateway6,
            };
            for (client, server, kinds) in [
                (CLIENT, SERVER, [attached, via4, via6]),
                (CLIENT6, SERVER6, [attached, via6, via6]),
            ] {
                for action in kinds {
                    let (hop, prefix) = (nexthop(888, action), format!("{server}/128"));
                    let prefix = match server {
                        IpAddr::V4(_) => prefix.replace("/128", "/32"),
                        IpAddr::V6(_) => prefix,
                    };
                    let route = route(STATELESS.vpc(), &prefix, id(888));
                    dut.insert(hop);
                    dut.insert(route.clone());
                    let packet = udp((client, 1234), (server, 80));
                    let limit = mtu.min(WAN.mtu);
                    let largest = packet.clone().length(limit.into());
                    dut.send(&STATELESS, &largest);
                    dut.expect(&WAN, &largest.ttl(63));
                    let larger = packet.length(usize::from(limit) + 1);
                    dut.send(&STATELESS, &larger);
                    dut.expect_punt(Mtu, &STATELESS, &larger);
                    dut.remove(route);
                    dut.remove(hop);
                }
            }
        }
    });
}

/// Without connection tracking routes alone forward, whatever the packet.
#[test]
fn stateless_vpcs() {
    run("routes::stateless_vpcs", |dut| {
        let mut icmp_error = vec![3, 1, 0, 0, 0, 0, 0, 0];
        icmp_error.extend(request().bytes());
        for packet in [
            tcp((CLIENT, 1), (SERVER, 2)).flags("S"),
            tcp((CLIENT6, 1), (SERVER6, 2)).flags("FA"),
            udp((CLIENT, 1), (SERVER, 2)),
            other(CLIENT, SERVER, 47, b"GRE"),
            other(CLIENT, SERVER, 1, &icmp_error),
            other(CLIENT6, SERVER6, 44, &[17, 0, 0, 1, 0, 0, 0, 9, 1, 2]),
        ] {
            dut.send(&STATELESS, &packet);
            dut.expect(&WAN, &packet.ttl(63));
        }
        // Out where it came in.
        let packet = udp((CLIENT, 1), (CLIENT, 2));
        dut.send(&STATELESS, &packet);
        dut.expect(&STATELESS, &packet.ttl(63));
        let local = udp((CLIENT, 1), (GATEWAY, 2));
        dut.insert(route4(STATELESS.vpc(), "10.0.0.1/32", Route4Action::Local));
        dut.send(&STATELESS, &local);
        dut.expect_punt(Local, &STATELESS, &local);
        let nobody = udp((CLIENT, 1), (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 77)), 2));
        dut.send(&STATELESS, &nobody);
        dut.expect_punt(Unresolved, &STATELESS, &nobody);
        let expired = udp((CLIENT, 1), (SERVER, 2)).ttl(1);
        dut.send(&STATELESS, &expired);
        dut.expect_punt(Ttl, &STATELESS, &expired);
    });
}

/// Routes alone do not let a stateful VPC's packet through, also when they are there.
#[test]
fn a_route_is_no_permission() {
    run("routes::a_route_is_no_permission", |dut| {
        dut.insert(route(RED.vpc(), "192.0.2.80/32", id(VIA6)));
        dut.send(&RED, &request());
        dut.expect_punt(FlowMiss, &RED, &request());
    });
}
