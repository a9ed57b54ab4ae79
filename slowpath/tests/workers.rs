//! Many workers behave as one: whatever worker a packet arrives at, it is forwarded as a single
//! worker would, but for the outside ports that are chosen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use common::cluster::Cluster;
use common::*;
use proptest::prelude::*;
use shunt_p4::{PuntReason, ShuntHeader};
use shunt_slowpath::nat::PORT_BLOCK;
use shunt_slowpath::packet::VecBuf;
use shunt_slowpath::policy::Peering;
use shunt_slowpath::worker::{Verdict, Worker};
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

/// A frame of a burst: from where, to where.
#[derive(Debug, Clone)]
enum Shot {
    /// From an inside host to the world, over IPv6: (VPC, client, server).
    Out(u16, u8, u8, bool),
    /// To the pool's address, the static one, or past them.
    In(u8, u16),
    Across(u8, u8),
    /// Of the n-th connection: either direction.
    Known(prop::sample::Index, bool),
}

#[derive(Debug, Clone)]
enum Turn {
    Burst(Vec<Shot>),
    /// Masquerades, static NAT, forwarded ports: there or not.
    Rules(bool, bool, bool),
    /// The world is reached from red through: wan, blue, either.
    Route(u8),
    Pass(u64),
}

fn turn() -> impl Strategy<Value = (Turn, prop::sample::Index)> {
    let shot = prop_oneof![
        4 => (prop_oneof![Just(RED), Just(BLUE)], 0u8..8, 0u8..3, any::<bool>())
            .prop_map(|(v, c, s, six)| Shot::Out(v, c, s, six)),
        2 => (0u8..4, prop_oneof![8080u16..8092, 1000u16..1300]).prop_map(|(w, p)| Shot::In(w, p)),
        2 => (0u8..4, 0u8..3).prop_map(|(c, s)| Shot::Across(c, s)),
        6 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(n, d)| Shot::Known(n, d)),
    ];
    let turn = prop_oneof![
        8 => prop::collection::vec(shot, 1..48).prop_map(Turn::Burst),
        1 => any::<[bool; 3]>().prop_map(|[m, s, f]| Turn::Rules(m, s, f)),
        1 => (0u8..3).prop_map(Turn::Route),
        1 => (0u64..40).prop_map(|s| Turn::Pass(s * SECOND)),
    ];
    (turn, any::<prop::sample::Index>())
}

/// The frame and its interface.
fn shoot(cluster: &Cluster, shot: &Shot) -> Option<(u16, Vec<u8>)> {
    let socket = |host: &str, port| SocketAddr::new(ip(host), port);
    Some(match shot {
        Shot::Out(vpc, client, server, v6) => {
            let (hosts, server) = match v6 {
                true => (["2001:db8:1::2"; 3], format!("2001:db8:ffff::{server}")),
                // Masqueraded, of static NAT, neither.
                false => (
                    ["10.0.0.2", "10.0.0.3", "10.8.0.9"],
                    format!("192.0.2.{server}"),
                ),
            };
            let host = hosts[usize::from(client % 3)];
            let src = socket(host, 1000 + u16::from(*client));
            (*vpc, udp_with(src, socket(&server, 80), 64, b"data"))
        }
        Shot::In(which, port) => {
            let to = ["203.0.113.10", "203.0.113.30", "203.0.113.77", "10.0.0.2"];
            let dst = socket(to[usize::from(*which)], *port);
            (WAN, tcp_with(sock("192.0.2.1:4000"), dst, "A", 64, b"data"))
        }
        Shot::Across(client, server) => {
            let src = socket("10.8.0.2", 2000 + u16::from(*client));
            let dst = socket(&format!("172.16.0.{}", 10 + server), 80);
            (RED, udp_with(src, dst, 64, b"data"))
        }
        Shot::Known(n, forward) => {
            let flows = cluster.flows();
            if flows.is_empty() {
                return None;
            }
            let flow = &n.get(&flows).1;
            let side = if *forward { flow.forward } else { flow.reply };
            let tuple = side.tuple;
            let ends = [(tuple.src, tuple.src_port), (tuple.dst, tuple.dst_port)];
            let [src, dst] = ends.map(SocketAddr::from);
            (
                side.vpc.get(),
                frame_of(src, dst, tuple.proto, "A", forward == &true),
            )
        }
    })
}

impl Cluster {
    /// Frames that arrive at a worker, together or one by one, and what they are there and, handed
    /// over, elsewhere.
    fn burst(&mut self, at: usize, frames: &[Vec<u8>], together: bool) -> Vec<(Verdict, Vec<u8>)> {
        let now = self.now;
        let mut seen: Vec<_> = frames.iter().map(|_| Verdict::Held).collect();
        let mut buffers: Vec<_> = frames.iter().map(|frame| VecBuf::new(frame)).collect();
        if together {
            self.workers[at].burst(now, &mut buffers, |n, verdict| seen[n] = verdict);
        } else {
            for (buffer, seen) in buffers.iter_mut().zip(&mut seen) {
                *seen = self.workers[at].process(now, buffer);
            }
        }
        let mut out = Vec::new();
        for (n, (mut buffer, mut verdict)) in buffers.into_iter().zip(seen).enumerate() {
            if let Verdict::Handover(to) = verdict {
                assert_eq!(
                    buffer.clone().into_vec(),
                    frames[n],
                    "handed over as it came"
                );
                self.handovers += 1;
                let one = std::slice::from_mut(&mut buffer);
                self.workers[usize::from(to)].burst_handed(now, one, |_, seen| verdict = seen);
                out.push((Verdict::Handover(to), Vec::new()));
            }
            out.push((verdict, buffer.into_vec()));
        }
        out
    }

    fn counts(&self) -> Vec<(u64, u64, u64, u64)> {
        let stats = self.workers.iter().map(Worker::stats);
        let counts = stats.map(|stats| {
            let punted = stats.punted(PuntReason::FlowMiss);
            (
                stats.received.packets,
                stats.handed_over,
                punted,
                stats.connections_created,
            )
        });
        counts.collect()
    }

    fn change(&mut self, turn: &Turn) {
        match turn {
            Turn::Rules(masquerades, statics, forwards) => {
                let mut policy = two_inside();
                if !masquerades {
                    policy.masquerades.clear();
                }
                if !statics {
                    policy.static_nat.clear();
                }
                if !forwards {
                    policy.port_forwards.clear();
                }
                self.fib.set_policy(policy);
            }
            Turn::Route(by) => {
                let hop = |n| (shunt_p4::NexthopId::new(n).unwrap(), 1);
                let hops = match by {
                    0 => vec![hop(100)],
                    1 => vec![hop(u32::from(BLUE))],
                    _ => vec![hop(100), hop(u32::from(BLUE))],
                };
                self.fib.apply([shunt_p4::NetworkOp::SetRoute(
                    vpc(RED),
                    "0.0.0.0/0".parse().unwrap(),
                    shunt_p4::Route::Nexthops(hops),
                )]);
            }
            Turn::Burst(_) | Turn::Pass(_) => return,
        }
        self.fib.publish();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whose a packet is, a burst tells early where it can: always what the walk says, whatever
    /// changes while connections live.
    #[test]
    fn a_burst_hands_over_what_its_frames_would_be(
        turns in prop::collection::vec(turn(), 1..24), count in 2u16..5,
    ) {
        let mut short = Cluster::new(two_inside(), count);
        let mut long = Cluster::new(two_inside(), count);
        for cluster in [&mut short, &mut long] {
            // Inside hosts are reached from outside, too: hidden they are when they begin.
            let red = shunt_p4::NexthopId::new(u32::from(RED)).unwrap();
            cluster.fib.apply([shunt_p4::NetworkOp::SetRoute(
                vpc(WAN),
                "10.0.0.0/24".parse().unwrap(),
                shunt_p4::Route::Nexthops(vec![(red, 1)]),
            )]);
            routes(&mut cluster.fib);
        }
        for (turn, at) in turns {
            let at = at.index(usize::from(count));
            match &turn {
                Turn::Burst(shots) => {
                    let shots = shots.iter().enumerate();
                    let frames: Vec<_> = shots.filter_map(|(n, shot)| {
                        let (interface, frame) = shoot(&long, shot)?;
                        let header = ShuntHeader {
                            reason: PuntReason::FlowMiss as u8,
                            interface,
                            vpc: interface,
                            port: interface,
                            flow_hash: (n as u32).wrapping_mul(0x9e37_79b9),
                        };
                        Some([header.encode().as_slice(), &frame].concat())
                    }).collect();
                    let (ours, theirs) = (short.burst(at, &frames, true), long.burst(at, &frames, false));
                    prop_assert_eq!(ours, theirs);
                }
                Turn::Pass(ns) => {
                    short.pass(*ns);
                    long.pass(*ns);
                }
                turn => {
                    short.change(turn);
                    long.change(turn);
                }
            }
            prop_assert_eq!(short.flows(), long.flows());
            prop_assert_eq!(short.counts(), long.counts());
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
