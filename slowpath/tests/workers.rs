//! Many workers behave as one: whatever worker a packet arrives at, it is forwarded as a single
//! worker would, but for the outside ports that are chosen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use common::cluster::Cluster;
use common::*;
use proptest::prelude::*;
use shunt_slowpath::nat::PORT_BLOCK;
use shunt_slowpath::policy::Peering;
use shunt_slowpath::worker::Verdict;
use shunt_slowpath::{FibWriter, Policy};

#[derive(Debug, Clone)]
enum Step {
    /// From an inside host: (VPC, client, server, protocol).
    Out(u16, u8, u8, u8),
    /// To the forwarded ports, or the static address: (client, which, protocol).
    In(u8, u8, u8),
    /// From red into blue, which peers with it.
    Across(u8, u8),
    /// The n-th connection's other side answers.
    Reply(prop::sample::Index),
    /// A router on the way says that a packet of the n-th connection was too big.
    Error(prop::sample::Index),
    Pass(u64),
}

fn step() -> impl Strategy<Value = (Step, prop::sample::Index)> {
    let step = prop_oneof![
        5 => (prop_oneof![Just(RED), Just(BLUE)], 0u8..6, 0u8..3, 0u8..3)
            .prop_map(|(v, c, s, p)| Step::Out(v, c, s, p)),
        3 => (0u8..4, 0u8..3, 0u8..2).prop_map(|(c, w, p)| Step::In(c, w, p)),
        2 => (0u8..4, 0u8..3).prop_map(|(c, s)| Step::Across(c, s)),
        6 => any::<prop::sample::Index>().prop_map(Step::Reply),
        2 => any::<prop::sample::Index>().prop_map(Step::Error),
        1 => (0u64..200).prop_map(|s| Step::Pass(s * SECOND)),
    ];
    (step, any::<prop::sample::Index>())
}

fn frame_of(src: SocketAddr, dst: SocketAddr, proto: u8, flags: &str, request: bool) -> Vec<u8> {
    match proto {
        6 => tcp_with(src, dst, flags, 64, b"data"),
        17 => udp_with(src, dst, 64, b"data"),
        _ => {
            let id = if request { src.port() } else { dst.port() };
            echo(&src.ip().to_string(), &dst.ip().to_string(), id, request)
        }
    }
}

/// red may reach blue at addresses of its own.
fn two_inside() -> Policy {
    let mut policy = policy();
    policy.peerings = vec![Peering {
        from: vpc(RED),
        to: vpc(BLUE),
        prefixes: Vec::new(),
    }];
    policy
}

fn routes(fib: &mut FibWriter) {
    let hop = shunt_p4::NexthopId::new(u32::from(BLUE)).unwrap();
    let route = |n, net: &str, hop| {
        let net = net.parse().unwrap();
        shunt_p4::NetworkOp::SetRoute(vpc(n), net, shunt_p4::Route::Nexthops(vec![(hop, 1)]))
    };
    let red = shunt_p4::NexthopId::new(u32::from(RED)).unwrap();
    fib.apply([
        route(RED, "172.16.0.0/16", hop),
        route(BLUE, "172.16.0.0/16", hop),
        route(BLUE, "10.8.0.0/16", red),
    ]);
    for (n, address) in [
        (BLUE, "172.16.0.10"),
        (BLUE, "172.16.0.11"),
        (BLUE, "172.16.0.12"),
        (RED, "10.8.0.2"),
    ] {
        let (interface, address) = (interface_id(n), ip(address));
        let mac = host_mac(address);
        fib.apply([shunt_p4::NetworkOp::SetNeighbor(interface, address, mac)]);
    }
    fib.publish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn many_workers_behave_as_one(steps in prop::collection::vec(step(), 1..80), count in 2u16..5) {
        let mut one = World::with(two_inside(), 1024, 1024);
        let mut many = Cluster::new(two_inside(), count);
        routes(&mut one.fib);
        routes(&mut many.fib);
        // What one chose as outside port, by what many chose.
        let mut ports: HashMap<(u8, SocketAddr), SocketAddr> = HashMap::new();
        for (step, at) in steps {
            let at = at.index(usize::from(count));
            let (interface, ours, theirs) = match step {
                Step::Out(vpc, client, server, proto) => {
                    let proto = [6, 17, 1][usize::from(proto)];
                    let host = if client % 3 == 2 && vpc == RED { "10.0.0.3" } else { "10.0.0.2" };
                    let src = SocketAddr::new(ip(host), 1000 + u16::from(client));
                    let dst = sock(&format!("192.0.2.{}:80", 80 + server));
                    let frame = frame_of(src, dst, proto, "S", true);
                    (vpc, frame.clone(), frame)
                }
                Step::In(client, which, proto) => {
                    let proto = [6, 17][usize::from(proto)];
                    let src = sock(&format!("192.0.2.{}:4000", 90 + client));
                    let dst = match which {
                        2 => sock("203.0.113.30:22"),
                        port => sock(&format!("203.0.113.10:{}", 8080 + u16::from(port))),
                    };
                    let frame = frame_of(src, dst, proto, "S", true);
                    (WAN, frame.clone(), frame)
                }
                Step::Across(client, server) => {
                    let src = SocketAddr::new(ip("10.8.0.2"), 2000 + u16::from(client));
                    let dst = sock(&format!("172.16.0.{}:80", 10 + server));
                    let frame = frame_of(src, dst, 17, "", true);
                    (RED, frame.clone(), frame)
                }
                Step::Reply(n) | Step::Error(n) => {
                    let flows = many.flows();
                    if flows.is_empty() { continue }
                    let (_, flow) = n.get(&flows);
                    let tuple = flow.reply.tuple;
                    let key = (tuple.proto, SocketAddr::new(tuple.dst, tuple.dst_port));
                    let dst = ports.get(&key).copied().unwrap_or(key.1);
                    let src = SocketAddr::new(tuple.src, tuple.src_port);
                    let is_error = matches!(step, Step::Error(_));
                    let make = |dst: SocketAddr| match is_error {
                        false => frame_of(src, dst, tuple.proto, "SA", false),
                        true => {
                            let quoted = frame_of(dst, src, tuple.proto, "A", true);
                            icmp_error("192.0.2.200", &dst.ip().to_string(), 3, 4, &quoted[14..])
                        }
                    };
                    (flow.reply.vpc.get(), make(dst), make(key.1))
                }
                Step::Pass(ns) => {
                    one.pass(ns);
                    many.pass(ns);
                    continue;
                }
            };
            let (verdict, out) = one.frame(interface, &ours);
            let (verdict2, out2) = many.frame(at, interface, &theirs);
            prop_assert_eq!(verdict, verdict2, "{:?} at {}", &step, at);
            if matches!(step, Step::Reply(_) | Step::Error(_)) {
                prop_assert_eq!(verdict, Verdict::Transmit, "a reply finds its connection");
            }
            if verdict == Verdict::Transmit {
                let (seen, mut seen2) = (Seen::new(&out), Seen::new(&out2));
                let proto = out[shunt_p4::frame::ENCAP_LEN + 23];
                if matches!(step, Step::Out(..)) && seen.src.ip() == ip("203.0.113.10") {
                    let known = ports.insert((proto, seen2.src), seen.src);
                    prop_assert!(known.is_none_or(|known| known == seen.src), "{:?}", seen2.src);
                    seen2.src = seen.src;
                }
                prop_assert_eq!(seen, seen2);
            }
            let mut keys = HashSet::new();
            let flows = many.flows();
            for (worker, flow) in &flows {
                for side in [flow.forward, flow.reply] {
                    prop_assert!(keys.insert((side.vpc, side.tuple)), "two with {:?}", side.tuple);
                }
                let outside = flow.reply.tuple;
                if outside.dst == ip("203.0.113.10") && flow.forward.vpc != vpc(WAN) {
                    let owner = outside.dst_port / PORT_BLOCK % count;
                    prop_assert_eq!(usize::from(owner), *worker, "{:?}", outside);
                }
            }
            prop_assert_eq!(flows.len(), one.flows().len());
        }
    }
}

#[test]
fn fragments_follow_their_first_one_to_its_worker() {
    let mut many = Cluster::new(policy(), 2);
    let whole = udp_with(sock("10.0.0.2:7"), sock("192.0.2.80:9"), 64, &[7; 64]);
    let mut handed = 0;
    for port in 0..8u8 {
        let mut first = whole.clone();
        first[35] = port;
        first[18..20].copy_from_slice(&[0, port]);
        let mut later = first.clone();
        first[20] = 0x20;
        first.truncate(14 + 20 + 8 + 32);
        first[17] = 20 + 8 + 32;
        later[20..22].copy_from_slice(&[0, 5]);
        later.truncate(14 + 20 + 32);
        later[17] = 20 + 32;
        for frame in [&mut first, &mut later] {
            frame[24..26].fill(0);
            let sum = shunt_slowpath::packet::checksum::of(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        let before = many.handovers;
        assert_eq!(many.frame(0, RED, &first).0, Verdict::Transmit);
        assert_eq!(many.frame(0, RED, &later).0, Verdict::Transmit, "{port}");
        handed += many.handovers - before;
    }
    assert!(handed > 0 && handed % 2 == 0, "{handed}");
}
