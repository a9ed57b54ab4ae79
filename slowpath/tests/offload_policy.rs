//! Which connections are offered to hardware, when again, and what is kept of what hardware
//! counted; the test plays the offload engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use shunt_offload::{
    ConnectionId, HardwareCount, OffloadCommand, OffloadEvent, OffloadUnit, RefuseReason,
};
use shunt_p4::flow::proto;
use shunt_slowpath::policy::{NeverPorts, OffloadAfter, OffloadPolicy, PortRange};
use shunt_slowpath::{Offload, Policy};

const CLIENT: &str = "10.0.0.2:1234";
const SERVER: &str = "192.0.2.80:80";

fn world(change: impl FnOnce(&mut OffloadPolicy)) -> World {
    let mut policy = policy();
    change(&mut policy.offload);
    World::with(policy, 64, 64)
}

/// A connection that has had packets in both directions; where its replies go.
fn udp_replied(world: &mut World) -> String {
    let outside = world.forwarded(RED, &udp(CLIENT, SERVER)).src.to_string();
    world.forwarded(WAN, &udp(SERVER, &outside));
    outside
}

/// Packets of an established connection until it is offered.
fn packets_until_offered(world: &mut World, frame: &[u8]) -> usize {
    for n in 1..1000 {
        world.forwarded(RED, frame);
        match world.installer.take() {
            None => {}
            Some(OffloadCommand::Install(_)) => return n,
            Some(other) => panic!("{other:?}"),
        }
    }
    panic!("it is never offered");
}

#[test]
fn tcp_after_so_many_packets_or_bytes_once_it_is_established() {
    let mut packets = world(|offload| offload.tcp = OffloadAfter::Packets(10));
    packets.open_tcp(CLIENT, SERVER);
    assert_eq!(packets.installer.take(), None);
    // Three of the handshake.
    let data = tcp(CLIENT, SERVER, "A");
    assert_eq!(packets_until_offered(&mut packets, &data), 7);

    let len = data.len() as u64 - 14;
    let mut bytes = world(|offload| offload.tcp = OffloadAfter::Bytes(10 * len));
    bytes.open_tcp(CLIENT, SERVER);
    assert_eq!(packets_until_offered(&mut bytes, &data), 7);

    // Packets do not make up for a handshake.
    let mut opening = world(|offload| offload.tcp = OffloadAfter::Packets(1));
    opening.forwarded(RED, &tcp(CLIENT, SERVER, "S"));
    opening.forwarded(RED, &tcp(CLIENT, SERVER, "S"));
    assert_eq!(opening.installer.take(), None);

    let mut never = world(|offload| offload.tcp = OffloadAfter::Never);
    never.open_tcp(CLIENT, SERVER);
    for _ in 0..50 {
        never.forwarded(RED, &data);
    }
    assert_eq!(never.installer.take(), None);
}

#[test]
fn udp_and_echo_after_so_many_bytes() {
    let frame = udp(CLIENT, SERVER);
    let len = frame.len() as u64 - 14;
    let mut world = world(|offload| {
        offload.udp = OffloadAfter::Bytes(4 * len + 1);
        offload.icmp = OffloadAfter::Bytes(1);
    });
    assert_eq!(packets_until_offered(&mut world, &frame), 5);
    let ping = echo("10.0.0.2", "192.0.2.80", 7, true);
    assert_eq!(packets_until_offered(&mut world, &ping), 1);
}

#[test]
fn slow_connections_stay_in_software() {
    let frame = udp(CLIENT, SERVER);
    let len = frame.len() as u32 - 14;
    let mut world = world(|offload| offload.min_bytes_per_second = 10 * len);
    udp_replied(&mut world);
    // Eight packets a second, for long.
    for _ in 0..100 {
        world.now += SECOND / 8;
        world.forwarded(RED, &frame);
        assert_eq!(world.installer.take(), None);
    }
    // Ten within one.
    world.now += 2 * SECOND;
    assert_eq!(packets_until_offered(&mut world, &frame), 10);
}

/// The window of a slot's last user would count for the next one.
#[test]
fn a_rate_is_one_connection_s_own() {
    let frame = udp(CLIENT, SERVER);
    let len = frame.len() as u32 - 14;
    let mut world = world(|offload| offload.min_bytes_per_second = 10 * len);
    udp_replied(&mut world);
    for _ in 0..8 {
        world.forwarded(RED, &frame);
    }
    let all = shunt_slowpath::FlowFilter::default();
    assert_eq!(world.worker.delete_flows(world.now, &all, 0, u32::MAX).0, 1);
    world.now += SECOND / 10;
    udp_replied(&mut world);
    for _ in 0..8 {
        world.forwarded(RED, &frame);
        assert_eq!(world.installer.take(), None);
    }
    assert_eq!(packets_until_offered(&mut world, &frame), 1);
}

#[test]
fn ports_that_never_go() {
    let ports = |protocol, first, last| NeverPorts {
        protocol,
        ports: PortRange::new(first, last).unwrap(),
    };
    let mut world = world(|offload| {
        offload.never_ports = vec![
            ports(None, 53, 53),
            ports(Some(proto::UDP), 6000, 6010),
            // The inside port of a port forward (8080 outside).
            ports(Some(proto::TCP), 80, 80),
        ];
    });
    let mut offered = |client: &str, server: &str| {
        let outside = world.forwarded(RED, &udp(client, server)).src.to_string();
        world.forwarded(WAN, &udp(server, &outside));
        world.installer.take().is_some()
    };
    assert!(!offered("10.0.0.2:1", "192.0.2.80:53"));
    assert!(!offered("10.0.0.2:1", "192.0.2.80:6010"));
    assert!(offered("10.0.0.2:1", "192.0.2.80:6011"));
    assert!(offered("10.0.0.2:1", "192.0.2.80:80"), "TCP's port");
    assert!(offered("10.0.0.2:53", "192.0.2.80:2"), "the opener's own");

    world.open_tcp(CLIENT, "192.0.2.80:6000");
    assert!(world.installer.take().is_some(), "UDP's port");
    world.open_tcp(CLIENT, SERVER);
    assert_eq!(world.installer.take(), None);
    let (peer, forward) = ("192.0.2.80:999", "203.0.113.10:8080");
    world.forwarded(WAN, &tcp(peer, forward, "S"));
    world.forwarded(RED, &tcp("10.0.0.2:80", peer, "SA"));
    world.forwarded(WAN, &tcp(peer, forward, "A"));
    assert_eq!(world.installer.take(), None, "its port behind translation");
}

fn refuse(world: &mut World, unit: &OffloadUnit, reason: RefuseReason) {
    world.event(OffloadEvent::Refused(unit.id, reason));
}

/// Seconds until a connection is offered again.
fn wait(world: &mut World) -> u64 {
    let before = world.now;
    for _ in 0..1000 {
        world.pass(SECOND);
        world.forwarded(RED, &udp(CLIENT, SERVER));
        if let Some(OffloadCommand::Install(_)) = world.installer.take() {
            return (world.now - before) / SECOND;
        }
    }
    panic!("it is never offered again");
}

#[test]
fn refusals_in_a_row_double_the_wait() {
    let mut world = world(|offload| {
        offload.retry_after = Duration::from_secs(4);
        offload.retry_after_max = Duration::from_secs(30);
    });
    udp_replied(&mut world);
    let unit = world.install();
    let mut waits = Vec::new();
    for _ in 0..6 {
        refuse(&mut world, &unit, RefuseReason::TableFull);
        waits.push(wait(&mut world));
    }
    assert_eq!(waits, [4, 8, 16, 30, 30, 30]);
    // A switch that is away is no fault of the connection.
    refuse(&mut world, &unit, RefuseReason::Unavailable);
    assert_eq!(wait(&mut world), 4);
    // Once it was in, it starts anew.
    world.event(OffloadEvent::Installed(unit.id));
    world.event(OffloadEvent::Lost(unit.id));
    world.forwarded(RED, &udp(CLIENT, SERVER));
    let unit = world.install();
    refuse(&mut world, &unit, RefuseReason::VpcShare);
    assert_eq!(wait(&mut world), 4);
}

fn count(packets: [u64; 2], last_hit_ns: u64) -> HardwareCount {
    HardwareCount {
        packets,
        bytes: packets.map(|packets| 100 * packets),
        last_hit_ns,
    }
}

#[test]
fn evicted_is_in_software_with_lease_and_counts_and_may_come_again() {
    let mut world = world(|offload| offload.retry_after = Duration::from_secs(4));
    let outside = udp_replied(&mut world);
    let unit = world.install();
    world.event(OffloadEvent::Installed(unit.id));
    let hit = world.now + 10 * SECOND;
    world.pass(20 * SECOND);
    world.event(OffloadEvent::Counted(unit.id, count([7, 3], hit)));
    world.event(OffloadEvent::Evicted(unit.id));
    let flow = world.flows()[0];
    assert_eq!(flow.offload, Offload::Software);
    assert_eq!(flow.hardware, count([7, 3], hit));
    assert_eq!((flow.forward.packets, flow.reply.packets), (1, 1));
    assert_eq!(flow.idle, Duration::from_secs(10), "since the last hit");
    assert_eq!(world.leased(), 1);
    assert_eq!(world.worker.stats().offload_evicted, 1);
    let again = world.forwarded(RED, &udp(CLIENT, SERVER));
    assert_eq!(again.src.to_string(), outside, "the same mapping");
    assert_eq!(world.installer.take(), None, "cooling down");
    assert_eq!(wait(&mut world), 4);

    // Its second time in hardware adds up.
    world.event(OffloadEvent::Installed(unit.id));
    let hit = world.now;
    world.event(OffloadEvent::Counted(unit.id, count([1, 1], hit)));
    world.event(OffloadEvent::Evicted(unit.id));
    assert_eq!(world.flows()[0].hardware, count([8, 4], hit));

    // Without a packet it ends by its own timeout, and the slot's next user begins at nothing.
    world.pass(HOUR);
    assert_eq!((world.worker.connections(), world.leased()), (0, 0));
    udp_replied(&mut world);
    assert_eq!(world.flows()[0].hardware, HardwareCount::default());
}

/// An eviction that crosses a removal: the removal's answer ends it.
#[test]
fn an_eviction_may_cross_a_removal() {
    let mut world = World::new();
    let outside = world.open_tcp(CLIENT, SERVER).to_string();
    let unit = world.install();
    world.event(OffloadEvent::Installed(unit.id));
    world.forwarded(WAN, &tcp(SERVER, &outside, "R"));
    assert!(matches!(
        world.installer.take(),
        Some(OffloadCommand::Remove { .. })
    ));
    world.event(OffloadEvent::Evicted(unit.id));
    world.pass(HOUR);
    assert_eq!((world.worker.connections(), world.leased()), (1, 1));
    world.event(OffloadEvent::Removed(unit.id));
    assert_eq!((world.worker.connections(), world.leased()), (0, 0));
}

/// An eviction makes a removal needless that waits for room in the queue.
#[test]
fn an_eviction_may_overtake_a_removal_that_is_not_sent() {
    let mut world = World::with(policy(), 64, 1);
    let outside = world.open_tcp("10.0.0.2:1", SERVER).to_string();
    let unit = world.install();
    world.event(OffloadEvent::Installed(unit.id));
    // The ring is full of another's installation.
    world.open_tcp("10.0.0.2:2", SERVER);
    world.forwarded(WAN, &tcp(SERVER, &outside, "R"));
    world.event(OffloadEvent::Evicted(unit.id));
    let other = world.install();
    assert_ne!(other.id, unit.id);
    world.pass(0);
    assert_eq!(world.installer.take(), None, "nothing is there to remove");
    world.pass(60 * SECOND);
    assert_eq!(world.worker.connections(), 1);
}

/// Every event in every state of a connection: what the worker holds afterwards is what the
/// engine holds, and a lease is free only when no entry can use its port.
#[test]
fn every_pair_of_events_in_every_state() {
    type Event = fn(ConnectionId) -> OffloadEvent;
    let events: [Event; 8] = [
        OffloadEvent::Installed,
        |id| OffloadEvent::Refused(id, RefuseReason::TableFull),
        OffloadEvent::Removed,
        OffloadEvent::Idle,
        OffloadEvent::Active,
        OffloadEvent::Lost,
        OffloadEvent::Evicted,
        |id| OffloadEvent::Counted(id, count([1, 1], 0)),
    ];
    for (n, first) in events.iter().enumerate() {
        for (m, second) in events.iter().enumerate() {
            for end in [false, true] {
                for queue in [1, 8] {
                    let mut world = World::with(policy(), 8, queue);
                    let outside = udp_replied(&mut world);
                    let unit = world.install();
                    if queue == 1 {
                        // The ring is full of another's installation.
                        world.open_tcp("10.0.0.2:2", SERVER);
                    }
                    if end {
                        let all = shunt_slowpath::FlowFilter {
                            protocol: Some(proto::UDP),
                            ..Default::default()
                        };
                        world.worker.delete_flows(world.now, &all, 0, u32::MAX);
                    }
                    world.event(first(unit.id));
                    world.event(second(unit.id));
                    let flow = world.flows().into_iter().find(|flow| flow.id == unit.id);
                    let leased = flow.is_some();
                    let others = usize::from(queue == 1);
                    let context = format!("{n}, {m}, end {end}, queue {queue}: {flow:?}");
                    assert_eq!(
                        world.worker.connections(),
                        others + usize::from(leased),
                        "{context}"
                    );
                    assert_eq!(
                        world.leased() as usize,
                        others + usize::from(leased),
                        "{context}"
                    );
                    // What has not been answered as gone is not given back.
                    let gone = |n: usize| matches!(n, 1 | 5 | 6) || (n == 2 && (end || n == m));
                    if !gone(n) && !gone(m) && m != 2 && n != 2 {
                        assert!(flow.is_some(), "{context}");
                    }
                    if let Some(flow) = flow
                        && flow.offload == Offload::Software
                    {
                        assert!(!end, "an ended connection stays: {context}");
                        let again = world.forwarded(RED, &udp(CLIENT, SERVER));
                        assert_eq!(again.src.to_string(), outside, "{context}");
                    }
                }
            }
        }
    }
}

/// What the policy is by default.
#[test]
fn the_default_offers_at_once() {
    assert_eq!(Policy::default().offload.min_bytes_per_second, 0);
    let mut world = World::new();
    udp_replied(&mut world);
    world.install();
}
