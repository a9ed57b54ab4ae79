//! What holds whatever comes: seeded random traffic, time and offload engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use common::*;
use proptest::prelude::*;
use shunt_offload::{ConnectionId, HardwareCount, OffloadCommand, OffloadEvent, RefuseReason};
use shunt_p4::frame::ENCAP_LEN;
use shunt_p4::{FlowKey, PuntReason, ShuntHeader, Tuple};
use shunt_slowpath::FlowFilter;
use shunt_slowpath::packet::{Packet, VecBuf, rewrite};
use shunt_slowpath::policy::{PortRange, Timeouts};
use shunt_slowpath::worker::Verdict;

#[derive(Debug, Clone)]
enum Step {
    /// (vpc, client, server, protocol, TCP flags)
    Send(u16, u8, u8, u8, usize),
    /// The n-th live connection gets a packet from the other side.
    Reply(prop::sample::Index, usize),
    Pass(u64),
    /// The operator deletes the connections of a port.
    Delete(u8),
    /// The engine does something about its n-th connection.
    Engine(prop::sample::Index, u8),
}

const FLAGS: [&str; 6] = ["S", "SA", "A", "FA", "R", "A"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop_oneof![Just(RED), Just(BLUE)], 0u8..6, 0u8..3, 0u8..3, 0..FLAGS.len())
            .prop_map(|(v, c, s, p, f)| Step::Send(v, c, s, p, f)),
        6 => (any::<prop::sample::Index>(), 0..FLAGS.len()).prop_map(|(n, f)| Step::Reply(n, f)),
        1 => (0u8..6).prop_map(Step::Delete),
        2 => (0u64..200).prop_map(|s| Step::Pass(s * SECOND)),
        6 => (any::<prop::sample::Index>(), 0u8..8).prop_map(|(n, what)| Step::Engine(n, what)),
    ]
}

/// The offload engine as the seam describes it: answers late, and in any order of connections.
#[derive(Default)]
struct Engine {
    units: Vec<(ConnectionId, Hardware)>,
    /// Keys that are, or may be, in hardware.
    keys: HashMap<FlowKey, ConnectionId>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Hardware {
    Asked,
    There,
    ToBeRemoved,
}

impl Engine {
    fn take(&mut self, world: &mut World) {
        while let Some(command) = world.installer.take() {
            match command {
                OffloadCommand::Install(unit) => {
                    for entry in unit.flows.entries() {
                        let owner = self.keys.insert(entry.key, unit.id);
                        assert_eq!(owner, None, "two connections with one key: {:?}", entry.key);
                    }
                    self.units.push((unit.id, Hardware::Asked));
                }
                OffloadCommand::Remove { id, .. } => {
                    match self.units.iter_mut().find(|(unit, _)| *unit == id) {
                        Some((_, state)) => {
                            assert_ne!(*state, Hardware::ToBeRemoved, "removed twice");
                            *state = Hardware::ToBeRemoved;
                        }
                        // It was lost or refused in the meantime: answered all the same.
                        None => self.units.push((id, Hardware::ToBeRemoved)),
                    }
                }
            }
        }
    }

    fn act(&mut self, world: &mut World, at: usize, what: u8) {
        let Some(&(id, state)) = self.units.get(at) else {
            return;
        };
        let (event, gone) = match (state, what) {
            (Hardware::ToBeRemoved, _) => (OffloadEvent::Removed(id), true),
            (Hardware::Asked, 0) => (OffloadEvent::Refused(id, RefuseReason::TableFull), true),
            (Hardware::Asked, _) => (OffloadEvent::Installed(id), false),
            (Hardware::There, 0) => (OffloadEvent::Lost(id), true),
            (Hardware::There, 1 | 2) => (OffloadEvent::Idle(id), false),
            (Hardware::There, 3) => (OffloadEvent::Evicted(id), true),
            (Hardware::There, 4) => (OffloadEvent::Counted(id, HardwareCount::default()), false),
            (Hardware::There, _) => (OffloadEvent::Active(id), false),
        };
        if gone {
            self.units.remove(at);
            self.keys.retain(|_, owner| *owner != id);
        } else if state == Hardware::Asked {
            self.units[at].1 = Hardware::There;
        }
        world.event(event);
        self.take(world);
    }
}

fn client_frame(client: u8, server: u8, protocol: u8, flags: usize) -> Vec<u8> {
    let client = format!("10.0.0.2:{}", 1000 + u16::from(client));
    let server = format!("192.0.2.{}:80", 80 + server);
    match protocol {
        0 => tcp(&client, &server, FLAGS[flags]),
        1 => udp(&client, &server),
        _ => {
            let id = sock(&client).port();
            echo("10.0.0.2", &sock(&server).ip().to_string(), id, true)
        }
    }
}

/// A packet with that tuple.
fn frame_of(tuple: &Tuple, flags: usize) -> Vec<u8> {
    let src = SocketAddr::new(tuple.src, tuple.src_port);
    let dst = SocketAddr::new(tuple.dst, tuple.dst_port);
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

fn check(world: &World) {
    let flows = world.flows();
    let mut keys = HashSet::new();
    let mut outside = HashMap::new();
    for flow in &flows {
        for side in [flow.forward, flow.reply] {
            assert!(
                keys.insert((side.vpc, side.tuple)),
                "two connections with {:?}",
                side.tuple
            );
        }
        assert_eq!(flow.forward.translated, flow.reply.tuple.reversed());
        assert_eq!(flow.reply.translated, flow.forward.tuple.reversed());
        // One inside socket an outside port.
        let public = (
            flow.reply.tuple.dst,
            flow.reply.tuple.dst_port,
            flow.forward.tuple.proto,
        );
        let inside = (
            flow.forward.vpc,
            flow.forward.tuple.src,
            flow.forward.tuple.src_port,
        );
        assert_eq!(
            *outside.entry(public).or_insert(inside),
            inside,
            "two owners of {public:?}"
        );
    }
    assert_eq!(world.leased() as usize, outside.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn connections_and_leases(steps in prop::collection::vec(step(), 1..120), queue in 1usize..8) {
        let mut policy = policy();
        for rule in &mut policy.masquerades {
            // So few that they run out.
            rule.ports = PortRange::new(5000, 5007).unwrap();
        }
        policy.timeouts.offload_idle = std::time::Duration::from_secs(60);
        let mut world = World::with(policy, 12, queue);
        let mut engine = Engine::default();
        for step in steps {
            match step {
                Step::Send(vpc, client, server, protocol, flags) => {
                    let frame = client_frame(client, server, protocol, flags);
                    let (verdict, out) = world.frame(vpc, &frame);
                    if verdict == Verdict::Transmit {
                        let seen = Seen::new(&out);
                        prop_assert_eq!(seen.interface, WAN);
                        prop_assert_eq!(seen.payload, Seen::inner(&frame).payload);
                    }
                }
                Step::Reply(n, flags) => {
                    let flows = world.flows();
                    if !flows.is_empty() {
                        let flow = n.get(&flows);
                        let (verdict, out) = world.frame(WAN, &frame_of(&flow.reply.tuple, flags));
                        prop_assert_eq!(verdict, Verdict::Transmit, "a reply finds its connection");
                        let seen = Seen::new(&out);
                        prop_assert_eq!(seen.interface, flow.forward.vpc.get());
                        let client = SocketAddr::new(flow.forward.tuple.src, flow.forward.tuple.src_port);
                        prop_assert_eq!(seen.dst, client);
                    }
                }
                Step::Pass(ns) => drop(world.pass(ns)),
                Step::Delete(client) => {
                    let port = Some(1000 + u16::from(client));
                    let filter = FlowFilter { port, ..FlowFilter::default() };
                    let (_, rest) = world.worker.delete_flows(world.now, &filter, 0, u32::MAX);
                    prop_assert_eq!(rest, None);
                }
                Step::Engine(n, what) => {
                    if !engine.units.is_empty() {
                        engine.act(&mut world, n.index(engine.units.len()), what);
                    }
                }
            }
            engine.take(&mut world);
            check(&world);
        }
        // Everything ends: the engine goes on answering, nobody sends.
        let longest = Timeouts::default().tcp_established.as_nanos() as u64 + HOUR;
        for _ in 0..4 {
            for at in (0..engine.units.len()).rev() {
                engine.act(&mut world, at, 1);
                if engine.units.get(at).is_some_and(|(_, state)| *state != Hardware::ToBeRemoved) {
                    engine.act(&mut world, at, 1);
                }
            }
            world.pass(longest);
            engine.take(&mut world);
        }
        prop_assert_eq!(engine.units.len(), 0);
        prop_assert_eq!(world.worker.connections(), 0);
        prop_assert_eq!(world.leased(), 0);
    }

    #[test]
    fn translating_there_and_back_is_nothing(
        src: [u8; 16], dst: [u8; 16], new_src: [u8; 16], new_dst: [u8; 16],
        ports: [u16; 4], v6: bool, kind in 0u8..3, payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let address = |bytes: [u8; 16]| -> std::net::IpAddr {
            if v6 { bytes.into() } else { <[u8; 4]>::try_from(&bytes[..4]).unwrap().into() }
        };
        let (src, dst) = (address(src), address(dst));
        let [a, b, c, d] = ports;
        let frame = match kind {
            0 => tcp_with(SocketAddr::new(src, a), SocketAddr::new(dst, b), "A", 64, &payload),
            1 => udp_with(SocketAddr::new(src, a), SocketAddr::new(dst, b), 64, &payload),
            _ => echo(&src.to_string(), &dst.to_string(), a, true),
        };
        let packet = Packet::parse(&frame).unwrap();
        let from = packet.tuple().unwrap();
        let to = Tuple {
            src: address(new_src),
            dst: address(new_dst),
            src_port: c,
            dst_port: if kind == 2 { 0 } else { d },
            ..from
        };
        let mut changed = frame.clone();
        rewrite::translate(&mut changed, &packet, &from, &to).unwrap();
        let seen = Seen::inner(&changed);
        prop_assert_eq!((seen.src, seen.dst), (SocketAddr::new(to.src, to.src_port), SocketAddr::new(to.dst, to.dst_port)));
        let packet = Packet::parse(&changed).unwrap();
        prop_assert_eq!(packet.tuple(), Some(to));
        rewrite::translate(&mut changed, &packet, &to, &from).unwrap();
        prop_assert_eq!(changed, frame);
    }

    #[test]
    fn any_bytes_are_survived(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let mut world = World::new();
        for frame in frames {
            let _ = world.worker.process(world.now, &mut VecBuf::new(&frame));
            world.frame(RED, &frame);
            for ethertype in [0x0800u16, 0x86dd] {
                let frame = [&[2; 12][..], &ethertype.to_be_bytes(), &frame].concat();
                world.frame(RED, &frame);
            }
        }
    }

    #[test]
    fn damaged_packets_are_survived(
        kind in 0usize..6,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        fix_checksum: bool,
    ) {
        let quoted = tcp("10.0.0.2:1000", "192.0.2.80:80", "S");
        let whole = [
            tcp("10.0.0.2:1000", "192.0.2.80:80", "S"),
            udp("[2001:db8:1::2]:5", "[2001:db8:ffff::1]:6"),
            echo("10.0.0.2", "192.0.2.80", 4, true),
            icmp_error("10.0.0.2", "192.0.2.80", 3, 4, &quoted[14..]),
            icmp_error("2001:db8:1::2", "2001:db8:ffff::1", 1, 4, &udp("[2001:db8::1]:5", "[2001:db8::2]:6")[14..]),
            udp("10.0.0.2:5", "192.0.2.80:6"),
        ];
        let mut frame = whole[kind].clone();
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(cut.index(frame.len()) + 1);
        if fix_checksum && frame.len() > 34 && frame[14] == 0x45 {
            frame[24..26].fill(0);
            let checksum = shunt_slowpath::packet::checksum::of(&frame[14..34]);
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        let mut world = World::new();
        world.frame(RED, &quoted);
        let len = frame.len();
        let header = ShuntHeader { reason: PuntReason::FlowMiss as u8, interface: RED, vpc: RED, port: 1, flow_hash: 0 };
        let mut buffer = VecBuf::from([header.encode().as_slice(), &frame].concat());
        let verdict = world.worker.process(world.now, &mut buffer);
        if verdict == Verdict::Transmit {
            prop_assert!(buffer.into_vec().len() <= ENCAP_LEN + len);
        }
    }
}
