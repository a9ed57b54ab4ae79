//! The packet walk: packets in, packets out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use shunt_p4::frame::ENCAP_LEN;
use shunt_p4::{MacAddr, NetworkOp, PuntReason, Route, ShuntHeader};
use shunt_slowpath::exception::{ExceptionEvent, ExceptionReason};
use shunt_slowpath::packet::VecBuf;
use shunt_slowpath::policy::Peering;
use shunt_slowpath::worker::Verdict;
use shunt_slowpath::{DropReason, State};

const SERVER: &str = "192.0.2.80:80";

#[test]
fn masquerade_there_and_back() {
    let mut world = World::new();
    let out = world.forwarded(RED, &tcp("10.0.0.2:1234", SERVER, "S"));
    assert_eq!(out.interface, WAN);
    assert_eq!(out.src.ip(), ip("203.0.113.10"));
    assert_eq!(out.dst, sock(SERVER));
    assert_eq!(out.ttl, 63);
    assert_eq!(out.src_mac, gateway_mac(WAN));
    assert_eq!(out.dst_mac, host_mac(ip("203.0.113.2")));
    let back = world.forwarded(WAN, &tcp(SERVER, &out.src.to_string(), "SA"));
    assert_eq!(back.interface, RED);
    assert_eq!((back.src, back.dst), (sock(SERVER), sock("10.0.0.2:1234")));
    assert_eq!(back.dst_mac, host_mac(ip("10.0.0.2")));
}

#[test]
fn red_and_blue_have_the_same_addresses_and_never_meet() {
    let mut world = World::new();
    let red = world.forwarded(RED, &udp("10.0.0.2:1234", "192.0.2.80:53"));
    let blue = world.forwarded(BLUE, &udp("10.0.0.2:1234", "192.0.2.80:53"));
    assert_ne!(red.src, blue.src);
    let to_blue = world.forwarded(WAN, &udp("192.0.2.80:53", &blue.src.to_string()));
    let to_red = world.forwarded(WAN, &udp("192.0.2.80:53", &red.src.to_string()));
    assert_eq!((to_red.interface, to_blue.interface), (RED, BLUE));
    assert_eq!(to_red.dst, to_blue.dst);
}

#[test]
fn mappings_are_endpoint_independent() {
    let mut world = World::new();
    let a = world.forwarded(RED, &udp("10.0.0.2:1234", "192.0.2.80:53"));
    let b = world.forwarded(RED, &udp("10.0.0.2:1234", "192.0.2.81:53"));
    assert_eq!(a.src, b.src);
    assert_eq!(world.leased(), 1);
}

#[test]
fn ping_both_families() {
    let mut world = World::new();
    for (inside, outside, server) in [
        ("10.0.0.2", "203.0.113.10", "192.0.2.80"),
        ("2001:db8:1::2", "2001:db8:9::10", "2001:db8:ffff::80"),
    ] {
        let request = world.forwarded(RED, &echo(inside, server, 77, true));
        assert_eq!(request.src.ip(), ip(outside));
        let id = request.src.port();
        let reply = world.forwarded(WAN, &echo(server, outside, id, false));
        assert_eq!(reply.dst, std::net::SocketAddr::new(ip(inside), 77));
        // A request from outside with that identifier is no reply.
        let other = world.frame(WAN, &echo(server, outside, id, true)).0;
        assert_ne!(other, Verdict::Transmit);
    }
}

#[test]
fn port_forward_and_its_reply() {
    let mut world = World::new();
    let inbound = world.forwarded(WAN, &tcp("192.0.2.80:999", "203.0.113.10:8081", "S"));
    assert_eq!((inbound.interface, inbound.dst), (RED, sock("10.0.0.2:81")));
    assert_eq!(inbound.src, sock("192.0.2.80:999"));
    let reply = world.forwarded(RED, &tcp("10.0.0.2:81", "192.0.2.80:999", "SA"));
    assert_eq!(
        (reply.interface, reply.src),
        (WAN, sock("203.0.113.10:8081"))
    );
}

#[test]
fn static_nat_both_ways() {
    let mut world = World::new();
    let out = world.forwarded(RED, &udp("10.0.0.3:5", "192.0.2.80:53"));
    assert_eq!(out.src, sock("203.0.113.30:5"));
    let inbound = world.forwarded(WAN, &udp("192.0.2.99:7", "203.0.113.30:1000"));
    assert_eq!(
        (inbound.interface, inbound.dst),
        (RED, sock("10.0.0.3:1000"))
    );
    assert_eq!(world.leased(), 0);
}

#[test]
fn a_udp_checksum_of_zero_stays() {
    let mut world = World::new();
    let mut frame = udp("10.0.0.2:1234", "192.0.2.80:53");
    frame[40] = 0;
    frame[41] = 0;
    let (verdict, out) = world.frame(RED, &frame);
    assert_eq!(verdict, Verdict::Transmit);
    assert_eq!(out[ENCAP_LEN + 40..ENCAP_LEN + 42], [0, 0]);
}

#[test]
fn padding_is_cut_off() {
    let mut world = World::new();
    let mut frame = udp("10.0.0.2:1234", "192.0.2.80:53");
    let len = frame.len();
    frame.extend_from_slice(b"secrets!");
    let (_, out) = world.frame(RED, &frame);
    assert_eq!(out.len(), ENCAP_LEN + len);
}

#[test]
fn what_belongs_to_the_gateway_goes_to_the_kernel() {
    let mut world = World::new();
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0xaa, 2], &[8, 6], &[0; 46]].concat();
    for (frame, reason) in [
        (arp, ExceptionReason::Neighbor),
        (
            echo("10.0.0.2", "10.0.0.1", 1, true),
            ExceptionReason::Local,
        ),
        (
            tcp("10.0.0.2:5", "10.0.0.1:179", "S"),
            ExceptionReason::Local,
        ),
        (
            udp("10.0.0.2:5", "224.0.0.5:89"),
            ExceptionReason::Multicast,
        ),
        (
            udp("10.0.0.2:68", "255.255.255.255:67"),
            ExceptionReason::Multicast,
        ),
        (
            udp("[fe80::2]:5", "[2001:db8:1::1]:6"),
            ExceptionReason::Local,
        ),
        (
            [&[2; 12][..], &[0x88, 0xcc], &[0; 46]].concat(),
            ExceptionReason::OtherL2,
        ),
    ] {
        assert_eq!(world.verdict(RED, &frame), Verdict::Exception);
        let Some(ExceptionEvent::Frame(seen)) = world.kernel() else {
            panic!("no frame")
        };
        assert_eq!((seen.interface, seen.reason), (interface_id(RED), reason));
        assert_eq!(seen.frame, frame, "as it arrived");
    }
    assert_eq!(world.worker.connections(), 0);
    // The pool's address is the gateway's too, but no connection and no rule asks for it.
    let scan = tcp("192.0.2.80:5", "203.0.113.10:22", "S");
    assert_eq!(world.verdict(WAN, &scan), Verdict::Exception);
}

#[test]
fn what_the_kernel_sends_leaves_as_it_is() {
    let mut world = World::new();
    let frame = echo("10.0.0.1", "10.0.0.2", 9, false);
    world.sender.send(interface_id(RED), frame.clone()).unwrap();
    let out = world.pass(0);
    assert_eq!(out.len(), 1);
    assert_eq!(
        ShuntHeader::parse(&out[0]),
        Some(ShuntHeader::egress(interface_id(RED)))
    );
    assert_eq!(out[0][ENCAP_LEN..], frame);
}

#[test]
fn an_unresolved_next_hop_is_asked_for_and_the_packet_held() {
    let mut world = World::new();
    let neighbor = ip("203.0.113.2");
    world
        .fib
        .apply([NetworkOp::RemoveNeighbor(interface_id(WAN), neighbor)]);
    world.fib.publish();
    let frame = tcp("10.0.0.2:1234", SERVER, "S");
    assert_eq!(world.verdict(RED, &frame), Verdict::Held);
    assert_eq!(world.verdict(RED, &frame), Verdict::Held);
    let asked = Some(ExceptionEvent::Resolve(interface_id(WAN), neighbor));
    assert_eq!(world.kernel(), asked);
    assert_eq!(world.kernel(), None, "asked once");
    assert!(world.pass(0).is_empty());
    let mac = MacAddr([2, 9, 9, 9, 9, 9]);
    world
        .fib
        .apply([NetworkOp::SetNeighbor(interface_id(WAN), neighbor, mac)]);
    world.fib.publish();
    let out = world.pass(0);
    assert_eq!(out.len(), 2);
    let seen = Seen::new(&out[0]);
    assert_eq!((seen.dst_mac, seen.interface, seen.ttl), (mac, WAN, 63));
    assert_eq!(seen.src.ip(), ip("203.0.113.10"));
}

#[test]
fn a_neighbour_that_never_answers_costs_a_bounded_number_of_packets() {
    let mut world = World::new();
    let unknown = "10.0.0.77:53";
    let held = usize::from(policy().limits.held_per_neighbor);
    for n in 0..held + 3 {
        let verdict = world.verdict(RED, &udp(&format!("10.0.0.2:{}", 1000 + n), unknown));
        let expected = if n < held {
            Verdict::Held
        } else {
            Verdict::Drop(DropReason::NeighborQueueFull)
        };
        assert_eq!(verdict, expected);
    }
    assert!(world.pass(5 * SECOND).is_empty());
    assert_eq!(
        world.worker.stats().dropped(DropReason::NeighborTimeout),
        held as u64
    );
    assert_eq!(
        world.verdict(RED, &udp("10.0.0.2:1000", unknown)),
        Verdict::Held
    );
    let asked = std::iter::from_fn(|| world.receiver.try_recv()).count();
    assert_eq!(asked, 2, "asked again after the interval");
}

#[test]
fn stateless_vpcs_route_and_track_nothing() {
    let mut world = World::new();
    let out = world.forwarded(PLAIN, &tcp("10.4.0.9:5", "10.4.0.2:6", "A"));
    assert_eq!((out.interface, out.ttl), (PLAIN, 63));
    assert_eq!(world.worker.connections(), 0);
}

#[test]
fn crossing_needs_a_peering() {
    let mut world = World::new();
    let route = Route::Nexthops(vec![(
        shunt_p4::NexthopId::new(u32::from(BLUE)).unwrap(),
        1,
    )]);
    let prefix = "10.0.0.3/32".parse().unwrap();
    world
        .fib
        .apply([NetworkOp::SetRoute(vpc(RED), prefix, route)]);
    world.fib.publish();
    let frame = udp("10.0.0.2:5", "10.0.0.3:6");
    assert_eq!(
        world.verdict(RED, &frame),
        Verdict::Drop(DropReason::NoPeering)
    );
    assert_eq!(
        world
            .worker
            .stats()
            .dropped_in(vpc(RED), DropReason::NoPeering),
        1
    );
    let mut policy = policy();
    policy.peerings.push(Peering {
        from: vpc(RED),
        to: vpc(BLUE),
        prefixes: Vec::new(),
    });
    world.fib.set_policy(policy);
    world.fib.publish();
    let out = world.forwarded(RED, &frame);
    assert_eq!((out.interface, out.src), (BLUE, sock("10.0.0.2:5")));
    // Back only as a reply.
    let route = Route::Nexthops(vec![(shunt_p4::NexthopId::new(u32::from(RED)).unwrap(), 1)]);
    let prefix = "10.0.0.2/32".parse().unwrap();
    world
        .fib
        .apply([NetworkOp::SetRoute(vpc(BLUE), prefix, route)]);
    world.fib.publish();
    let back = world.forwarded(BLUE, &udp("10.0.0.3:6", "10.0.0.2:5"));
    assert_eq!((back.interface, back.dst), (RED, sock("10.0.0.2:5")));
    let new = world.verdict(BLUE, &udp("10.0.0.3:7", "10.0.0.2:5"));
    assert_eq!(new, Verdict::Drop(DropReason::NoPeering));
}

#[test]
fn a_withdrawn_route_is_answered_and_restored() {
    let mut world = World::new();
    world.open_tcp("10.0.0.2:1234", SERVER);
    let net = "192.0.2.0/24".parse().unwrap();
    world
        .fib
        .apply([NetworkOp::SetRoute(vpc(RED), net, Route::Unreachable)]);
    world.fib.publish();
    let (verdict, out) = world.frame(RED, &tcp("10.0.0.2:1234", SERVER, "A"));
    assert_eq!(verdict, Verdict::Answered(DropReason::Unreachable));
    let answer = Seen::new(&out);
    assert_eq!((answer.interface, answer.dst.ip()), (RED, ip("10.0.0.2")));
    assert_eq!(answer.src.ip(), ip("10.0.0.1"));
    world.fib.apply([NetworkOp::RemoveRoute(vpc(RED), net)]);
    world.fib.publish();
    world.forwarded(RED, &tcp("10.0.0.2:1234", SERVER, "A"));
}

#[test]
fn what_the_switch_names_and_software_does_not_know_is_counted() {
    let mut world = World::new();
    let inner = udp("10.0.0.2:5", "192.0.2.80:53");
    let mut send = |interface: u16, vpc: u16| {
        let header = ShuntHeader {
            reason: PuntReason::FlowMiss as u8,
            interface,
            vpc,
            port: 1,
            flow_hash: 0,
        };
        let mut frame = VecBuf::from([header.encode().as_slice(), &inner].concat());
        world.worker.process(SECOND, &mut frame)
    };
    assert_eq!(send(RED, 77), Verdict::Drop(DropReason::UnknownVpc));
    assert_eq!(send(RED, BLUE), Verdict::Drop(DropReason::UnknownVpc));
    assert_eq!(send(77, RED), Verdict::Drop(DropReason::UnknownInterface));
    assert_eq!(send(0, 0), Verdict::Drop(DropReason::UnknownVpc));
    let mut plain = VecBuf::new(&inner);
    let verdict = world.worker.process(SECOND, &mut plain);
    assert_eq!(verdict, Verdict::Drop(DropReason::ShuntHeader));
}

#[test]
fn bad_packets_are_dropped_with_their_reason() {
    let mut world = World::new();
    let good = tcp("10.0.0.2:1234", SERVER, "S");
    let with = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        edit(&mut frame);
        frame
    };
    let cases = [
        (with(&|f| f.truncate(40)), DropReason::Truncated),
        (with(&|f| f.truncate(13)), DropReason::Truncated),
        (with(&|f| f[14] = 0x44), DropReason::Malformed),
        (with(&|f| f[14] = 0x65), DropReason::Malformed),
        (with(&|f| f[24] ^= 1), DropReason::Ipv4Checksum),
        (tcp("127.0.0.1:5", SERVER, "S"), DropReason::MartianSource),
        (tcp("10.0.0.2:1234", SERVER, "A"), DropReason::NoConnection),
        (tcp("10.0.0.2:1234", SERVER, "R"), DropReason::NoConnection),
        (
            echo("10.0.0.2", "192.0.2.80", 5, false),
            DropReason::NoConnection,
        ),
    ];
    for (frame, reason) in cases {
        assert_eq!(world.verdict(RED, &frame), Verdict::Drop(reason));
        assert!(world.worker.stats().dropped_in(vpc(RED), reason) > 0);
    }
    assert_eq!(world.worker.connections(), 0);
    assert_eq!(world.leased(), 0);
}

#[test]
fn an_untranslated_connection_is_adopted_in_mid_stream() {
    let mut world = World::new();
    world.fib.apply([NetworkOp::SetNeighbor(
        interface_id(RED),
        ip("10.0.0.9"),
        MacAddr([2; 6]),
    )]);
    world.fib.publish();
    world.forwarded(RED, &tcp("10.0.0.2:5", "10.0.0.9:6", "A"));
    assert_eq!(world.flows()[0].state, State::Adopted);
    world.forwarded(RED, &tcp("10.0.0.9:6", "10.0.0.2:5", "A"));
    assert_eq!(world.flows()[0].state, State::Established);
}

#[test]
fn a_connection_does_not_follow_a_route_into_another_vpc() {
    let mut world = World::new();
    world.open_tcp("10.0.0.2:1234", SERVER);
    let route = Route::Nexthops(vec![(
        shunt_p4::NexthopId::new(u32::from(BLUE)).unwrap(),
        1,
    )]);
    let prefix = "192.0.2.0/24".parse().unwrap();
    world
        .fib
        .apply([NetworkOp::SetRoute(vpc(RED), prefix, route)]);
    world.fib.publish();
    let verdict = world.verdict(RED, &tcp("10.0.0.2:1234", SERVER, "A"));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoPeering));
}

#[test]
fn options_travel_along_but_source_routes_do_not() {
    let mut world = World::new();
    let with_options = |options: [u8; 4]| {
        let mut frame = udp("10.0.0.2:5", "192.0.2.80:6");
        frame.splice(34..34, options);
        frame[14] = 0x46;
        let len = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        let mut header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        header.header_checksum = header.calc_header_checksum();
        frame[24..26].copy_from_slice(&header.header_checksum.to_be_bytes());
        frame
    };
    // Router alert (RFC 2113).
    let seen = world.forwarded(RED, &with_options([148, 4, 0, 0]));
    assert_eq!(seen.src.ip(), ip("203.0.113.10"));
    let verdict = world.verdict(RED, &with_options([131, 3, 4, 0]));
    assert_eq!(verdict, Verdict::Drop(DropReason::SourceRoute));
    let verdict = world.verdict(RED, &with_options([7, 9, 4, 0]));
    assert_eq!(verdict, Verdict::Drop(DropReason::Malformed));
}
