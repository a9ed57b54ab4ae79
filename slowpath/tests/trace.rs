//! A trace tells what the walk then does, whatever the packet and the state.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::{IpAddr, SocketAddr};

use common::fragment::fragments;
use common::*;
use proptest::prelude::*;
use shunt_offload::{OffloadCommand, OffloadEvent};
use shunt_p4::frame::ENCAP_LEN;
use shunt_p4::{NetworkOp, NexthopId, Route, ShuntHeader};
use shunt_slowpath::DropReason;
use shunt_slowpath::packet::{Packet, VecBuf};
use shunt_slowpath::policy::{Filtering, Peering, PortRange, WhenExhausted};
use shunt_slowpath::worker::{Trace, Verdict};

const SERVER: &str = "192.0.2.80:53";

/// Few of everything, so that it runs out; every kind of rule.
fn narrow(limit: u8, connections: u32) -> World {
    let mut policy = policy();
    for rule in &mut policy.masquerades {
        rule.ports = PortRange::new(5000, 5003).unwrap();
        rule.filtering = Filtering::EndpointIndependent;
    }
    policy.masquerades[0].when_exhausted = WhenExhausted::Reject;
    policy.peerings.push(Peering {
        from: vpc(BLUE),
        to: vpc(PLAIN),
        prefixes: vec!["10.4.0.0/25".parse().unwrap()],
    });
    policy.limits.icmp_errors_per_second = 20;
    policy.limits.held_per_neighbor = 2;
    match limit {
        1 => policy.limits.connections_per_source = Some(4),
        2 => policy.limits.half_open_per_vpc = Some(3),
        3 => policy.limits.new_per_second_per_source = Some(10),
        4 => policy.limits.connections_per_vpc = Some(5),
        5 => policy.limits.new_per_second_per_vpc = Some(20),
        _ => {}
    }
    let mut world = World::with(policy, connections, 64);
    let hop = NexthopId::new(u32::from(PLAIN)).unwrap();
    let to_plain = |from| {
        let route = Route::Nexthops(vec![(hop, 1)]);
        NetworkOp::SetRoute(vpc(from), "10.4.0.0/24".parse().unwrap(), route)
    };
    let blackhole = NetworkOp::SetRoute(
        vpc(RED),
        "198.51.100.0/24".parse().unwrap(),
        Route::Blackhole,
    );
    world.fib.apply([to_plain(RED), to_plain(BLUE), blackhole]);
    world.fib.publish();
    world
}

/// Traces a frame, then has it walked: what was told has to happen.
fn same(world: &mut World, framed: &[u8]) -> Trace {
    let told = world.worker.trace(world.now, framed);
    assert_eq!(
        told,
        world.worker.trace(world.now, framed),
        "it changes something"
    );
    let mut buffer = VecBuf::from(framed.to_vec());
    let verdict = world.worker.process(world.now, &mut buffer);
    let out = buffer.into_vec();
    let about = format!("{:#?}", told.steps);
    if told.any_port && verdict == Verdict::Drop(DropReason::TupleInUse) {
        // The ports that it tried belong to connections without NAT.
        return told;
    }
    assert_eq!(told.verdict, verdict, "{about}");
    assert!(told.steps.len() > 1, "{about}");
    assert_eq!(told.steps.last().unwrap().stage, "verdict");
    if verdict.is_transmit() {
        let header = ShuntHeader::parse(&out).unwrap();
        assert_eq!(
            Some(header.interface),
            told.egress.map(|id| id.get()),
            "{about}"
        );
    }
    if verdict == Verdict::Transmit
        && let Some(mut translated) = told.translated
    {
        let packet = Packet::parse(&out[ENCAP_LEN..]).unwrap();
        if let Some(seen) = packet.tuple() {
            if told.any_port {
                translated.src_port = seen.src_port;
            }
            assert_eq!(translated, seen, "{about}");
        } else {
            assert_eq!(
                (translated.src, translated.dst),
                (packet.src, packet.dst),
                "{about}"
            );
        }
    }
    told
}

#[derive(Clone, Debug)]
struct Shape {
    from: u16,
    src: usize,
    dst: usize,
    src_port: u16,
    dst_port: usize,
    kind: u8,
    flags: usize,
    ttl: u8,
    len: usize,
    /// Which fragment of the packet; none: the packet, if it is not too long.
    part: Option<usize>,
}

const FLAGS: [&str; 6] = ["S", "SA", "A", "FA", "R", "SF"];
const SOURCES: [&str; 8] = [
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.77",
    "10.4.0.2",
    "192.0.2.80",
    "127.0.0.1",
    "169.254.1.1",
    "203.0.113.2",
];
const DESTINATIONS: [&str; 13] = [
    "192.0.2.80",
    "192.0.2.81",
    "203.0.113.10",
    "203.0.113.30",
    "203.0.113.1",
    "203.0.113.99",
    "10.0.0.1",
    "10.0.0.2",
    "10.4.0.2",
    "10.4.0.200",
    "198.51.100.1",
    "224.0.0.5",
    "169.254.1.1",
];
const SOURCES6: [&str; 3] = ["2001:db8:1::2", "2001:db8:ffff::1", "fe80::1"];
const DESTINATIONS6: [&str; 4] = [
    "2001:db8:ffff::1",
    "2001:db8:9::10",
    "2001:db8:1::1",
    "ff02::1",
];
const PORTS: [u16; 6] = [53, 80, 8080, 5000, 5003, 5005];

/// Mostly one of the first `few`.
fn often(few: usize, all: usize) -> impl Strategy<Value = usize> {
    prop_oneof![2 => 0..few, 1 => 0..all]
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        prop_oneof![4 => Just(RED), 3 => Just(BLUE), 1 => Just(PLAIN), 3 => Just(WAN), 1 => Just(55u16)],
        (often(2, SOURCES.len()), often(5, DESTINATIONS.len())),
        (1000u16..1012, 0..PORTS.len()),
        (0u8..10, often(1, FLAGS.len())),
        prop_oneof![6 => Just(64u8), 1 => 0u8..3],
        prop_oneof![6 => Just(20usize), 1 => Just(1800), 1 => Just(1472)],
        prop_oneof![5 => Just(None), 1 => (0usize..3).prop_map(Some)],
    )
        .prop_map(|(from, (src, dst), (src_port, dst_port), (kind, flags), ttl, len, part)| Shape {
            from,
            src,
            dst,
            src_port,
            dst_port,
            kind,
            flags,
            ttl,
            len,
            part,
        })
}

fn ends(shape: &Shape) -> (IpAddr, IpAddr) {
    if shape.kind < 7 {
        (ip(SOURCES[shape.src]), ip(DESTINATIONS[shape.dst]))
    } else {
        let (src, dst) = (shape.src % SOURCES6.len(), shape.dst % DESTINATIONS6.len());
        (ip(SOURCES6[src]), ip(DESTINATIONS6[dst]))
    }
}

/// Without the don't-fragment bit that etherparse sets.
fn may_be_cut(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [8, 0] {
        frame[20] &= !0x40;
        frame[24..26].fill(0);
        let sum = shunt_slowpath::packet::checksum::of(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

fn frame(shape: &Shape) -> Vec<u8> {
    let (src, dst) = ends(shape);
    let from = SocketAddr::new(src, shape.src_port);
    let to = SocketAddr::new(dst, PORTS[shape.dst_port]);
    let payload = vec![7; shape.len];
    let whole = match shape.kind {
        0..3 | 7 => tcp_with(from, to, FLAGS[shape.flags], shape.ttl, &payload),
        3 | 4 | 8 => udp_with(from, to, shape.ttl, &payload),
        6 => {
            let mut frame = udp_with(from, to, shape.ttl, &payload);
            // Neither TCP nor UDP: with the header's sum put right below, or wrong.
            frame[23] = 47;
            frame
        }
        _ => echo(
            &src.to_string(),
            &dst.to_string(),
            shape.src_port,
            shape.flags > 0,
        ),
    };
    let whole = if shape.flags % 2 == 1 {
        may_be_cut(whole)
    } else {
        whole
    };
    match shape.part {
        Some(part) if whole.len() > 100 => {
            let parts = fragments(&whole, u32::from(shape.src_port), 800);
            parts[part.min(parts.len() - 1)].clone()
        }
        _ => whole,
    }
}

#[derive(Clone, Debug)]
enum Act {
    Send(Shape),
    /// All fragments of a packet, from the n-th on.
    Parts(Shape, usize),
    /// The n-th connection gets a packet from its other side.
    Reply(prop::sample::Index, usize),
    /// About the n-th connection's packet, from its other side.
    Error(prop::sample::Index, bool),
    Pass(u64),
    /// What waits for the engine is installed.
    Engine,
    Neighbor(bool),
    Junk(Vec<u8>),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => shape().prop_map(Act::Send),
        2 => (shape(), 0usize..3).prop_map(|(shape, first)| Act::Parts(shape, first)),
        6 => (any::<prop::sample::Index>(), 0..FLAGS.len()).prop_map(|(n, f)| Act::Reply(n, f)),
        2 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(n, right)| Act::Error(n, right)),
        2 => (0u64..20_000_000_000).prop_map(Act::Pass),
        1 => Just(Act::Engine),
        1 => prop::bool::weighted(0.8).prop_map(Act::Neighbor),
        1 => prop::collection::vec(any::<u8>(), 0..120).prop_map(Act::Junk),
    ]
}

fn reply_frame(flow: &shunt_slowpath::FlowView, flags: usize) -> Vec<u8> {
    let tuple = &flow.reply.tuple;
    let (src, dst) = (
        SocketAddr::new(tuple.src, tuple.src_port),
        SocketAddr::new(tuple.dst, tuple.dst_port),
    );
    match tuple.proto {
        6 => tcp_with(src, dst, FLAGS[flags], 64, b"reply"),
        17 => udp_with(src, dst, 64, b"reply"),
        _ => echo(
            &tuple.src.to_string(),
            &tuple.dst.to_string(),
            tuple.dst_port,
            false,
        ),
    }
}

/// A router on the way is told that the packet of a connection, as we sent it, has no route.
fn error_frame(flow: &shunt_slowpath::FlowView, right: bool) -> Vec<u8> {
    let sent = flow.forward.translated;
    let (src, dst) = (
        SocketAddr::new(sent.src, sent.src_port),
        SocketAddr::new(sent.dst, sent.dst_port),
    );
    let quoted = match sent.proto {
        6 => tcp_with(src, dst, "A", 63, b""),
        17 => udp_with(src, dst, 63, b""),
        _ => echo(
            &sent.src.to_string(),
            &sent.dst.to_string(),
            sent.src_port,
            true,
        ),
    };
    let (router, kind) = if sent.src.is_ipv4() {
        ("203.0.113.2", 3)
    } else {
        ("2001:db8:9::2", 1)
    };
    let mut frame = icmp_error(router, &sent.src.to_string(), kind, 1, &quoted[14..]);
    if !right {
        let last = frame.len() - 1;
        frame[last] ^= 1;
    }
    frame
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_trace_tells_what_happens(
        acts in prop::collection::vec(act(), 1..120),
        limit in 0u8..9,
        connections in prop_oneof![Just(6u32), Just(64)],
    ) {
        let mut world = narrow(limit, connections);
        for act in acts {
            let flows = world.flows();
            match act {
                Act::Send(shape) => {
                    let framed = from_switch(shape.from, &frame(&shape));
                    same(&mut world, &framed);
                }
                Act::Parts(mut shape, first) => {
                    shape.len = 1800;
                    for n in 0..3 {
                        shape.part = Some((first + n) % 3);
                        same(&mut world, &from_switch(shape.from, &frame(&shape)));
                    }
                }
                Act::Reply(n, flags) if !flows.is_empty() => {
                    let flow = n.get(&flows);
                    let framed = from_switch(flow.reply.vpc.get(), &reply_frame(flow, flags));
                    let told = same(&mut world, &framed);
                    prop_assert!(told.known);
                }
                Act::Error(n, right) if !flows.is_empty() => {
                    let flow = n.get(&flows);
                    let frame = error_frame(flow, right);
                    same(&mut world, &from_switch(flow.reply.vpc.get(), &frame));
                    // Nobody there has sent that.
                    same(&mut world, &from_switch(flow.forward.vpc.get(), &frame));
                }
                Act::Reply(..) | Act::Error(..) => {}
                Act::Pass(ns) => drop(world.pass(ns)),
                Act::Engine => {
                    while let Some(command) = world.installer.take() {
                        let event = match command {
                            OffloadCommand::Install(unit) => OffloadEvent::Installed(unit.id),
                            OffloadCommand::Remove { id, .. } => OffloadEvent::Removed(id),
                        };
                        world.event(event);
                    }
                }
                Act::Neighbor(known) => {
                    let (interface, address) = (interface_id(WAN), ip("203.0.113.2"));
                    let op = match known {
                        true => NetworkOp::SetNeighbor(interface, address, host_mac(address)),
                        false => NetworkOp::RemoveNeighbor(interface, address),
                    };
                    world.fib.apply([op]);
                    world.fib.publish();
                }
                Act::Junk(bytes) => {
                    same(&mut world, &bytes);
                    same(&mut world, &from_switch(RED, &bytes));
                }
            }
        }
    }
}

/// The stages and texts that an operator sees, for the plainest case.
#[test]
fn the_steps_of_a_new_connection() {
    let mut world = World::new();
    let told = same(
        &mut world,
        &from_switch(RED, &tcp("10.0.0.2:1234", SERVER, "S")),
    );
    let lines: Vec<_> = told
        .steps
        .iter()
        .map(|step| format!("{}: {}", step.stage, step.text))
        .collect();
    assert_eq!(
        lines,
        [
            "ingress: interface if1, VPC vpc1 (stateful), sent by the switch for flow_miss",
            "parse: tcp 10.0.0.2:1234 -> 192.0.2.80:53, flags S, TTL 64, 44 bytes of IP",
            "connection: it belongs to none that is known",
            "connection: it begins one",
            "route: 192.0.2.80 in VPC vpc1: 0.0.0.0/0, out of if9 (VPC vpc9) by way of 203.0.113.2",
            "nat: masquerade out1: its source becomes one of 203.0.113.10, 2001:db8:9::10, ports \
             1024-65535",
            "ttl: 64 becomes 63",
            "mtu: 44 bytes of at most 1500",
            "limits: within those of its VPC and of its source",
            "nat: it leaves as tcp from 203.0.113.10, a free port in place of 1234, -> \
             192.0.2.80:53",
            "offload: not yet: TCP goes to the switch when it is open in both directions",
            "neighbor: 203.0.113.2 on if9 is 02:00:00:00:aa:02",
            "verdict: sent out of if9",
        ]
    );
}

/// Each reason is told in words, at the stage that found it.
#[test]
fn the_reason_is_told_where_it_is_found() {
    let mut world = narrow(0, 64);
    let cases: [(u16, Vec<u8>, &str, &str); 9] = [
        (
            RED,
            tcp("10.0.0.2:1", SERVER, "A"),
            "connection",
            "SYN alone",
        ),
        (
            RED,
            udp("10.0.0.2:1", "198.51.100.1:5"),
            "route",
            "198.51.100.0/24: a blackhole",
        ),
        (
            RED,
            udp("10.0.0.2:1", "10.4.0.2:5"),
            "nat",
            "neither a NAT rule nor a peering",
        ),
        (
            BLUE,
            udp("10.0.0.2:1", "10.4.0.2:5"),
            "nat",
            "a peering lets it cross",
        ),
        (
            RED,
            udp("10.0.0.2:1", "10.0.0.1:5"),
            "route",
            "the gateway itself",
        ),
        (
            WAN,
            tcp("192.0.2.80:1", "203.0.113.10:8081", "S"),
            "nat",
            "port forward web",
        ),
        (
            WAN,
            udp("192.0.2.80:1", "203.0.113.30:53"),
            "nat",
            "static NAT static",
        ),
        (
            RED,
            udp_with(sock("10.0.0.2:1"), sock(SERVER), 1, b""),
            "ttl",
            "used up",
        ),
        (
            RED,
            udp_with(sock("10.0.0.2:1"), sock(SERVER), 9, &[0; 1500]),
            "mtu",
            "1528 bytes",
        ),
    ];
    for (from, frame, stage, text) in cases {
        let told = same(&mut world, &from_switch(from, &frame));
        let found =
            |step: &shunt_slowpath::worker::Step| step.stage == stage && step.text.contains(text);
        assert!(
            told.steps.iter().any(found),
            "{stage}: {text}: {:#?}",
            told.steps
        );
    }
}
