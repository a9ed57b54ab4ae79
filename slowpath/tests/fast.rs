//! A burst knows a short way for plain packets; one frame at a time goes the long way. Both have
//! the same outcome, to the byte and to the count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use proptest::prelude::*;
use shunt_p4::frame::ShuntHeader;
use shunt_p4::{NetworkOp, PuntReason};
use shunt_slowpath::DropReason;
use shunt_slowpath::packet::VecBuf;
use shunt_slowpath::policy::PortRange;
use shunt_slowpath::worker::Verdict;

/// A frame from one side of a connection: which connection, from inside or outside, TCP flags,
/// TTL, payload, damage.
#[derive(Debug, Clone)]
struct Shot {
    host: u8,
    port: u8,
    kind: u8,
    outside: bool,
    flags: usize,
    ttl: u8,
    payload: u16,
    damage: u8,
}

#[derive(Debug, Clone)]
enum Step {
    Burst(Vec<Shot>),
    /// The wan router's MAC changes, or goes.
    Router(Option<u8>),
    Mtu(u16),
    Pass(u64),
}

const FLAGS: [&str; 7] = ["S", "SA", "A", "A", "A", "FA", "R"];

fn shot() -> impl Strategy<Value = Shot> {
    (
        (0u8..3, 0u8..3, 0u8..4, any::<bool>()),
        (
            0..FLAGS.len(),
            prop_oneof![4 => Just(64u8), 1 => 0u8..3],
            prop_oneof![4 => 0u16..80, 1 => 1400u16..1480],
            prop_oneof![6 => Just(0u8), 1 => 1u8..9],
        ),
    )
        .prop_map(
            |((host, port, kind, outside), (flags, ttl, payload, damage))| Shot {
                host,
                port,
                kind,
                outside,
                flags,
                ttl,
                payload,
                damage,
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(shot(), 1..80).prop_map(Step::Burst),
        1 => prop::option::of(any::<u8>()).prop_map(Step::Router),
        1 => (1300u16..1500).prop_map(Step::Mtu),
        1 => (0u64..200).prop_map(|s| Step::Pass(s * SECOND)),
    ]
}

/// The frame as the switch sends it. Replies are to what was seen of their connection.
fn frame(world: &World, shot: &Shot) -> Vec<u8> {
    let v6 = shot.kind >= 2;
    let (client, server) = match v6 {
        false => ("10.0.0.2".to_owned(), format!("192.0.2.{}", 80 + shot.host)),
        true => (
            "[2001:db8:1::2]".to_owned(),
            format!("[2001:db8:ffff::{}]", 1 + shot.host),
        ),
    };
    let mut src = sock(&format!("{client}:{}", 1000 + u16::from(shot.port)));
    let mut dst = sock(&format!("{server}:53"));
    let mut interface = RED;
    if shot.outside {
        let flows = world.flows();
        let proto = if shot.kind.is_multiple_of(2) { 6 } else { 17 };
        let Some(flow) = flows.iter().find(|flow| {
            let tuple = flow.forward.tuple;
            (tuple.src, tuple.src_port, tuple.proto) == (src.ip(), src.port(), proto)
                && tuple.dst == dst.ip()
        }) else {
            return Vec::new();
        };
        let reply = flow.reply.tuple;
        src = (reply.src, reply.src_port).into();
        dst = (reply.dst, reply.dst_port).into();
        interface = WAN;
    }
    let payload = vec![shot.payload as u8; usize::from(shot.payload)];
    let mut frame = match shot.kind % 2 {
        0 => tcp_with(src, dst, FLAGS[shot.flags], shot.ttl, &payload),
        _ => udp_with(src, dst, shot.ttl, &payload),
    };
    let l4 = if v6 { 54 } else { 34 };
    match shot.damage {
        // Padding.
        1 => frame.extend([0xee; 9]),
        2 if shot.kind % 2 == 1 => frame[l4 + 6..l4 + 8].fill(0),
        3 => frame[l4 + 5] ^= 0x40,
        4 => frame[14] ^= 1,
        5 => frame[0] |= 1,
        6 => frame.truncate(frame.len() - 3),
        7 => frame[24] ^= 1,
        8 if shot.kind.is_multiple_of(2) => frame[l4 + 12] = 0x30,
        _ => {}
    }
    let header = ShuntHeader {
        reason: PuntReason::FlowMiss as u8,
        interface,
        vpc: interface,
        port: 1,
        flow_hash: u32::from(shot.port),
    };
    [header.encode().as_slice(), &frame].concat()
}

fn counts(world: &World) -> Vec<u64> {
    let stats = world.worker.stats();
    let drops = DropReason::ALL
        .iter()
        .flat_map(|reason| [stats.dropped(*reason), stats.dropped_in(vpc(RED), *reason)]);
    drops
        .chain([
            stats.received.packets,
            stats.received.bytes,
            stats.sent.packets,
            stats.sent.bytes,
            stats.held,
            stats.icmp_errors,
            stats.connections_created,
            stats.offload_installs,
            stats.offload_removals,
            stats.tcp_ignored,
            stats.punted(PuntReason::FlowMiss),
        ])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_burst_is_its_frames_one_by_one(
        steps in prop::collection::vec(step(), 1..20),
        most in prop::option::of(0u32..12),
    ) {
        let mut policy = policy();
        policy.limits.connections_per_vpc = most;
        let world = || World::with(policy.clone(), 1024, 1024);
        let (mut short, mut long) = (world(), world());
        for step in steps {
            match step {
                Step::Burst(shots) => {
                    let frames: Vec<_> = shots.iter().map(|shot| frame(&long, shot)).collect();
                    let mut burst: Vec<_> = frames.iter().map(|frame| VecBuf::new(frame)).collect();
                    let mut verdicts = vec![Verdict::Held; frames.len()];
                    short.worker.burst(short.now, &mut burst, |n, verdict| verdicts[n] = verdict);
                    for (n, (frame, burst)) in frames.iter().zip(burst).enumerate() {
                        let mut one = VecBuf::new(frame);
                        let verdict = long.worker.process(long.now, &mut one);
                        prop_assert_eq!(verdicts[n], verdict, "frame {}", n);
                        if verdict.is_transmit() {
                            prop_assert_eq!(burst.into_vec(), one.into_vec(), "frame {}", n);
                        }
                    }
                }
                Step::Router(mac) => {
                    for world in [&mut short, &mut long] {
                        for router in ["203.0.113.2", "2001:db8:9::2"] {
                            let (wan, router) = (interface_id(WAN), ip(router));
                            world.fib.apply([match mac {
                                Some(last) => NetworkOp::SetNeighbor(wan, router, shunt_p4::MacAddr([2, 0, 0, 0, 7, last])),
                                None => NetworkOp::RemoveNeighbor(wan, router),
                            }]);
                        }
                        world.fib.publish();
                    }
                }
                Step::Mtu(mtu) => {
                    for world in [&mut short, &mut long] {
                        for op in network() {
                            if let NetworkOp::SetInterface(mut interface) = op {
                                interface.mtu = mtu;
                                world.fib.apply([NetworkOp::SetInterface(interface)]);
                            }
                        }
                        world.fib.publish();
                    }
                }
                Step::Pass(ns) => prop_assert_eq!(short.pass(ns), long.pass(ns)),
            }
            prop_assert_eq!(short.flows(), long.flows());
            prop_assert_eq!(counts(&short), counts(&long));
            loop {
                let command = short.installer.take();
                prop_assert_eq!(command, long.installer.take());
                if command.is_none() { break }
            }
        }
    }

    /// Translation of plain packets is right by an independent reading, whatever the bytes.
    #[test]
    fn short_rewrites_have_right_checksums(
        ports in prop::collection::vec((any::<u16>(), 1u16.., any::<bool>()), 1..32), payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut world = World::new();
        for v6 in [false, true] {
            let (client, server) = if v6 { ("2001:db8:1::2", "2001:db8:ffff::1") } else { ("10.0.0.2", "192.0.2.80") };
            let shots: Vec<_> = ports.iter().map(|(a, b, _)| {
                let (src, dst) = ((ip(client), (*a).max(1)).into(), (ip(server), *b).into());
                let header = ShuntHeader { reason: 1, interface: RED, vpc: RED, port: 1, flow_hash: 0 };
                [header.encode().as_slice(), &udp_with(src, dst, 64, &payload)].concat()
            }).collect();
            // The first time they begin their connections, the second time they have them.
            for _ in 0..2 {
                let mut burst: Vec<_> = shots.iter().map(|frame| VecBuf::new(frame)).collect();
                let mut sent = 0;
                world.worker.burst(world.now, &mut burst, |_, verdict| sent += usize::from(verdict == Verdict::Transmit));
                prop_assert_eq!(sent, shots.len());
                for frame in burst {
                    // Reads it with etherparse, and checks the sums.
                    let seen = Seen::new(&frame.into_vec());
                    prop_assert_eq!(seen.ttl, 63);
                    prop_assert_eq!(&seen.payload, &payload);
                }
            }
        }
    }
}

/// More begin within a burst than there are ports, some of them twice: as many are begun as there
/// are ports, and all ports come back.
#[test]
fn a_burst_of_more_connections_than_ports() {
    let mut policy = policy();
    policy.masquerades[0].ports = PortRange::new(5000, 5019).unwrap();
    let mut world = World::with(policy, 1024, 1024);
    let ports = 20u16;
    let header = ShuntHeader {
        reason: 1,
        interface: RED,
        vpc: RED,
        port: 1,
        flow_hash: 0,
    };
    let frames: Vec<_> = (0..ports + 25)
        .flat_map(|n| [n, n])
        .map(|n| {
            let src = sock(&format!("10.0.0.2:{}", 1000 + n));
            [
                header.encode().as_slice(),
                &udp_with(src, sock("192.0.2.80:53"), 64, b"x"),
            ]
            .concat()
        })
        .collect();
    // The first one by itself: where its destination leads is known from then on.
    let mut seen = Vec::new();
    for frames in [&frames[..1], &frames[1..]] {
        let mut burst: Vec<_> = frames.iter().map(|frame| VecBuf::new(frame)).collect();
        world
            .worker
            .burst(world.now, &mut burst, |_, verdict| seen.push(verdict));
    }
    let sent = seen.iter().filter(|verdict| verdict.is_transmit()).count();
    let refused = Verdict::Drop(DropReason::PoolExhausted);
    let refusals = seen.iter().filter(|verdict| **verdict == refused).count();
    assert_eq!((sent, refusals), (2 * usize::from(ports), 50));
    assert_eq!(world.flows().len(), usize::from(ports));
    world.pass(600 * SECOND);
    assert_eq!(world.worker.connections(), 0);
    assert!(world.worker.pool_use().is_empty());
}
