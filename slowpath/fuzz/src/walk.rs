//! The whole walk: frames of all kinds, events of the offload engine, time, changes of the tables.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use shunt_offload::{ConnectionId, HardwareCount, OffloadCommand, OffloadEvent, RefuseReason};
use shunt_p4::{FlowKey, NetworkOp, ShuntHeader};
use shunt_slowpath::policy::{Filtering, PortRange};
use shunt_slowpath::worker::Verdict;
use shunt_slowpath::{DropReason, FlowFilter, FlowView};

use super::common::*;
use super::input::Input;
use super::{fix_header, traced};

/// Steps of one input.
const STEPS: usize = 64;
const VPCS: [u16; 4] = [RED, BLUE, PLAIN, WAN];
const SOURCES: [&str; 6] = [
    "10.0.0.2",
    "10.0.0.3",
    "10.4.0.2",
    "192.0.2.80",
    "2001:db8:1::2",
    "2001:db8:ffff::1",
];
const TARGETS: [&str; 10] = [
    "192.0.2.80",
    "203.0.113.10",
    "203.0.113.30",
    "203.0.113.1",
    "10.0.0.1",
    "10.4.0.9",
    "2001:db8:ffff::1",
    "2001:db8:9::10",
    "2001:db8:1::1",
    "2001:db8:4::9",
];
const FLAGS: [&str; 6] = ["S", "SA", "A", "FA", "R", "SF"];

#[derive(Clone, Copy, PartialEq)]
enum Hardware {
    Asked,
    There,
    Leaving,
}

/// The offload engine, as its seam describes it.
#[derive(Default)]
struct Engine {
    units: Vec<(ConnectionId, Hardware)>,
    keys: HashMap<FlowKey, ConnectionId>,
}

impl Engine {
    fn take(&mut self, world: &mut World) {
        while let Some(command) = world.installer.take() {
            match command {
                OffloadCommand::Install(unit) => {
                    for entry in unit.flows.entries() {
                        let owner = self.keys.insert(entry.key, unit.id);
                        assert_eq!(owner, None, "two connections with one key");
                    }
                    self.units.push((unit.id, Hardware::Asked));
                }
                OffloadCommand::Remove { id, .. } => {
                    match self.units.iter_mut().find(|(unit, _)| *unit == id) {
                        Some((_, state)) => {
                            assert!(*state != Hardware::Leaving, "removed twice");
                            *state = Hardware::Leaving;
                        }
                        None => self.units.push((id, Hardware::Leaving)),
                    }
                }
            }
        }
    }

    fn act(&mut self, world: &mut World, at: usize, what: u8) {
        let Some(&(id, state)) = self.units.get(at) else {
            return;
        };
        let (event, gone) = match (state, what % 6) {
            (Hardware::Leaving, _) => (OffloadEvent::Removed(id), true),
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

/// Everything, in any order.
pub fn walk(data: &[u8]) {
    let mut input = Input::new(data);
    let mut policy = policy();
    let how = input.byte();
    for rule in &mut policy.masquerades {
        rule.ports = PortRange::new(5000, 5006).unwrap();
        if how & 1 == 1 {
            rule.filtering = Filtering::EndpointIndependent;
        }
    }
    if how & 2 == 2 {
        policy.limits.connections_per_source = Some(4);
        policy.limits.new_per_second_per_vpc = Some(50);
        policy.limits.half_open_per_vpc = Some(3);
    }
    policy.limits.icmp_errors_per_second = 100;
    let mut world = World::with(policy, 12, 4);
    let mut engine = Engine::default();
    for _ in 0..STEPS {
        let Some(op) = input.next() else { break };
        step(&mut world, &mut engine, op, &mut input);
        engine.take(&mut world);
        check(&world);
    }
    // In the end, with an engine that answers, nothing is left of all that.
    for _ in 0..4 {
        for at in (0..engine.units.len()).rev() {
            engine.act(&mut world, at, 1);
            if engine
                .units
                .get(at)
                .is_some_and(|(_, state)| *state != Hardware::Leaving)
            {
                engine.act(&mut world, at, 1);
            }
        }
        // In one jump: polling every ten seconds of it would take most of the time.
        world.now += 3 * HOUR;
        world.pass(0);
        engine.take(&mut world);
    }
    assert_eq!(engine.units.len(), 0);
    assert_eq!(world.worker.connections(), 0);
    assert_eq!(world.leased(), 0);
}

fn step(world: &mut World, engine: &mut Engine, op: u8, input: &mut Input<'_>) {
    let flows = world.flows();
    let chosen = |input: &mut Input<'_>| {
        let at = usize::from(input.byte());
        (!flows.is_empty()).then(|| flows[at % flows.len()])
    };
    match op % 16 {
        0..6 => {
            let frame = template(input);
            send(world, VPCS[usize::from(op >> 4) % 4], &frame);
        }
        6 => {
            let len = usize::from(input.byte());
            let frame = input.take(len).to_vec();
            send(world, VPCS[usize::from(op >> 4) % 4], &frame);
        }
        7 => {
            let len = usize::from(input.byte());
            let whole = input.take(len).to_vec();
            judged(world, &whole);
        }
        8 | 9 => {
            if let Some(flow) = chosen(input) {
                let frame = from_other_side(&flow, input.byte());
                let verdict = send(world, flow.reply.vpc.get(), &frame);
                assert_ne!(verdict, Verdict::Drop(DropReason::NoConnection));
            }
        }
        10 => {
            if let Some(flow) = chosen(input) {
                let mut frame = error_about(&flow);
                if input.byte() & 1 == 1 {
                    let at = usize::from(input.word()) % frame.len();
                    frame[at] = input.byte();
                    fix_header(&mut frame);
                }
                send(world, flow.reply.vpc.get(), &frame);
            }
        }
        11 => {
            let longer = if op & 16 != 0 { 60 } else { 1 };
            world.pass(u64::from(input.byte()) * SECOND * longer / 4);
        }
        12 => {
            let (at, what) = (usize::from(input.byte()), input.byte());
            if !engine.units.is_empty() {
                engine.act(world, at % engine.units.len(), what);
            }
        }
        13 => {
            let (interface, address) = (interface_id(WAN), ip("203.0.113.2"));
            let op = match input.byte() & 3 {
                0 => NetworkOp::RemoveNeighbor(interface, address),
                _ => NetworkOp::SetNeighbor(interface, address, host_mac(address)),
            };
            world.fib.apply([op]);
            world.fib.publish();
            world.pass(0);
        }
        14 => {
            let port = Some(u16::from(input.byte()));
            let filter = FlowFilter {
                port,
                ..FlowFilter::default()
            };
            world.worker.delete_flows(world.now, &filter, 0, u32::MAX);
        }
        _ => {
            let len = usize::from(input.byte());
            let frame = input.take(len).to_vec();
            let _ = world.sender.send(interface_id(RED), frame);
            world.pass(0);
        }
    }
}

/// A packet that is mostly right.
fn template(input: &mut Input<'_>) -> Vec<u8> {
    let (kind, shape) = (input.byte(), input.byte());
    let src = ip(SOURCES[usize::from(input.byte()) % SOURCES.len()]);
    let dst = TARGETS.iter().map(|text| ip(text));
    let dst: Vec<_> = dst.filter(|dst| dst.is_ipv4() == src.is_ipv4()).collect();
    let dst = dst[usize::from(input.byte()) % dst.len()];
    let from = SocketAddr::new(src, u16::from(input.byte()));
    let to = SocketAddr::new(
        dst,
        [53, 80, 8080, 5000, 5003, 5006][usize::from(shape & 7) % 6],
    );
    let ttl = if shape & 0xc0 == 0xc0 { 1 } else { 64 };
    let payload = vec![7; if shape & 0x30 == 0x30 { 1480 } else { 24 }];
    let mut frame = match kind % 4 {
        0 => udp_with(from, to, ttl, &payload),
        1 => echo(
            &src.to_string(),
            &dst.to_string(),
            from.port(),
            shape & 8 == 0,
        ),
        _ => tcp_with(from, to, FLAGS[usize::from(kind >> 4) % 6], ttl, &payload),
    };
    if kind & 8 != 0 {
        let parts = fragment::fragments(&frame, u32::from(shape), 16);
        frame = parts[usize::from(input.byte()) % parts.len()].clone();
    }
    if kind & 4 != 0 {
        for _ in 0..input.byte() % 4 {
            let at = usize::from(input.byte()) % frame.len();
            frame[at] = input.byte();
        }
        if shape & 8 != 0 {
            fix_header(&mut frame);
        }
    }
    frame
}

fn from_other_side(flow: &FlowView, flags: u8) -> Vec<u8> {
    let tuple = &flow.reply.tuple;
    let src = SocketAddr::new(tuple.src, tuple.src_port);
    let dst = SocketAddr::new(tuple.dst, tuple.dst_port);
    match tuple.proto {
        6 => tcp_with(src, dst, FLAGS[usize::from(flags) % 6], 64, b"reply"),
        17 => udp_with(src, dst, 64, b"reply"),
        _ => echo(
            &tuple.src.to_string(),
            &tuple.dst.to_string(),
            tuple.dst_port,
            false,
        ),
    }
}

fn error_about(flow: &FlowView) -> Vec<u8> {
    let sent = flow.forward.translated;
    let src = SocketAddr::new(sent.src, sent.src_port);
    let dst = SocketAddr::new(sent.dst, sent.dst_port);
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
    let (router, kind) = match sent.src.is_ipv4() {
        true => ("203.0.113.2", 3),
        false => ("2001:db8:9::2", 1),
    };
    icmp_error(router, &sent.src.to_string(), kind, 1, &quoted[14..])
}

fn send(world: &mut World, interface: u16, frame: &[u8]) -> Verdict {
    judged(world, &from_switch(interface, frame))
}

/// Every frame is counted once, under what became of it.
fn judged(world: &mut World, framed: &[u8]) -> Verdict {
    let count = |world: &World| {
        let stats = world.worker.stats();
        let reasons = DropReason::ALL.iter();
        let drops: u64 = reasons.map(|reason| stats.dropped(*reason)).sum();
        [
            stats.received.packets,
            stats.sent.packets,
            drops,
            stats.exceptions_up.packets,
            stats.held,
        ]
    };
    let before = count(world);
    let (verdict, out) = traced(world, framed);
    let after = count(world);
    let wanted = match verdict {
        Verdict::Transmit => [1, 1, 0, 0, 0],
        Verdict::Answered(_) => [1, 1, 1, 0, 0],
        Verdict::Drop(_) => [1, 0, 1, 0, 0],
        Verdict::Exception => [1, 0, 0, 1, 0],
        Verdict::Held => [1, 0, 0, 0, 1],
        Verdict::Handover(worker) | Verdict::Hairpin(worker) => {
            panic!("there is no worker {worker}")
        }
    };
    let found: Vec<_> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    assert_eq!(found, wanted, "{verdict:?}");
    if verdict.is_transmit() {
        let header = ShuntHeader::parse(&out).expect("a frame for the switch");
        assert!(VPCS.contains(&header.interface));
    }
    verdict
}

/// No two connections look alike, and no outside port has two owners.
fn check(world: &World) {
    let flows = world.flows();
    let mut keys = HashSet::new();
    let mut outside = HashMap::new();
    for flow in &flows {
        for side in [flow.forward, flow.reply] {
            assert!(keys.insert((side.vpc, side.tuple)), "{:?}", side.tuple);
        }
        assert_eq!(flow.forward.translated, flow.reply.tuple.reversed());
        assert_eq!(flow.reply.translated, flow.forward.tuple.reversed());
        let (from, to) = (&flow.forward.tuple, &flow.forward.translated);
        if (from.src, from.src_port) != (to.src, to.src_port) {
            let public = (flow.reply.vpc, to.src, to.src_port, from.proto);
            let inside = (flow.forward.vpc, from.src, from.src_port);
            assert_eq!(*outside.entry(public).or_insert(inside), inside);
        }
    }
    assert_eq!(flows.len(), world.worker.connections());
}
