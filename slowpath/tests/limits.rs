//! Floods: what one VPC, or one source, sends too much of costs nobody else anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use shunt_slowpath::policy::Limits;
use shunt_slowpath::worker::Verdict;
use shunt_slowpath::{DropReason, FlowFilter, State};

const SERVER: &str = "192.0.2.80:80";

fn world(limits: Limits) -> World {
    let mut policy = policy();
    policy.limits = limits;
    World::with(policy, 256, 4096)
}

fn client(host: usize, port: usize) -> String {
    format!("10.0.0.{}:{}", 10 + host % 200, 1024 + port)
}

/// Sends `count` packets and says how many were let through, and why the last was not.
fn flood(
    world: &mut World,
    interface: u16,
    count: usize,
    frame: impl Fn(usize) -> Vec<u8>,
) -> (usize, Option<DropReason>) {
    let mut through = 0;
    let mut why = None;
    for n in 0..count {
        match world.verdict(interface, &frame(n)) {
            Verdict::Transmit => through += 1,
            Verdict::Drop(reason) => why = Some(reason),
            other => panic!("{other:?}"),
        }
    }
    (through, why)
}

/// A connection that exists before the flood, and one of another VPC that is opened during it.
fn untouched(world: &mut World, outside: std::net::SocketAddr) {
    world.forwarded(RED, &tcp("10.0.0.2:1000", SERVER, "A"));
    world.forwarded(WAN, &tcp(SERVER, &outside.to_string(), "A"));
    world.forwarded(BLUE, &udp("10.0.0.2:7", SERVER));
    let blue = world.forwarded(BLUE, &tcp("10.0.0.2:8", SERVER, "S")).src;
    world.forwarded(WAN, &tcp(SERVER, &blue.to_string(), "SA"));
}

#[test]
fn a_syn_flood_leaves_connections_and_other_vpcs_alone() {
    let mut world = world(Limits {
        half_open_per_vpc: Some(100),
        ..Limits::default()
    });
    let outside = world.open_tcp("10.0.0.2:1000", SERVER);
    let (through, why) = flood(&mut world, RED, 5000, |n| tcp(&client(n, n), SERVER, "S"));
    assert_eq!((through, why), (100, Some(DropReason::HalfOpen)));
    untouched(&mut world, outside);
    // Other protocols of the same VPC go on as well.
    world.forwarded(RED, &udp("10.0.0.2:7", SERVER));
    // When the flood's have timed out, there is room again.
    world.pass(5 * 60 * SECOND);
    world.forwarded(RED, &tcp("10.0.0.2:1001", SERVER, "S"));
}

#[test]
fn half_open_is_what_has_not_been_answered() {
    let mut world = world(Limits {
        half_open_per_vpc: Some(1),
        ..Limits::default()
    });
    // One after the other, each open before the next: no limit on those.
    for n in 0..5 {
        world.open_tcp(&format!("10.0.0.2:{}", 2000 + n), SERVER);
    }
    let outside = world.forwarded(RED, &tcp("10.0.0.2:1000", SERVER, "S")).src;
    let refused = Verdict::Drop(DropReason::HalfOpen);
    let next = tcp("10.0.0.2:1001", SERVER, "S");
    assert_eq!(world.verdict(RED, &next), refused);
    // A retransmitted SYN is of the connection that there is.
    world.forwarded(RED, &tcp("10.0.0.2:1000", SERVER, "S"));
    world.forwarded(WAN, &tcp(SERVER, &outside.to_string(), "SA"));
    assert_eq!(world.verdict(RED, &next), refused);
    // The reset of a closed port ends it.
    world.forwarded(WAN, &tcp(SERVER, &outside.to_string(), "RA"));
    world.forwarded(RED, &next);
    let closed = FlowFilter {
        state: Some(State::SynSent),
        ..FlowFilter::default()
    };
    world.worker.delete_flows(world.now, &closed, 0, u32::MAX);
    world.forwarded(RED, &tcp("10.0.0.2:1002", SERVER, "S"));
}

#[test]
fn a_port_scan_fills_its_source_s_share_only() {
    let mut world = world(Limits {
        connections_per_source: Some(50),
        ..Limits::default()
    });
    let outside = world.open_tcp("10.0.0.2:1000", SERVER);
    let (through, why) = flood(&mut world, RED, 2000, |n| {
        tcp("10.0.0.66:1024", &format!("192.0.2.80:{}", 1 + n), "S")
    });
    assert_eq!((through, why), (50, Some(DropReason::SourceConnections)));
    untouched(&mut world, outside);
    world.forwarded(RED, &udp("10.0.0.2:7", SERVER));
    assert_eq!(
        world
            .flows()
            .iter()
            .filter(|flow| flow.forward.tuple.src == ip("10.0.0.66"))
            .count(),
        50
    );
}

#[test]
fn one_vpc_cannot_fill_the_table() {
    let mut world = world(Limits {
        connections_per_vpc: Some(200),
        ..Limits::default()
    });
    let outside = world.open_tcp("10.0.0.2:1000", SERVER);
    let (through, why) = flood(&mut world, RED, 5000, |n| udp(&client(n, n), SERVER));
    assert_eq!((through, why), (199, Some(DropReason::VpcConnections)));
    untouched(&mut world, outside);
    world.pass(3 * 60 * SECOND);
    let (through, _) = flood(&mut world, RED, 10, |n| udp(&client(n, n), SERVER));
    assert_eq!(through, 10);
}

#[test]
fn rates_hold_over_time() {
    let mut world = world(Limits {
        new_per_second_per_vpc: Some(100),
        new_per_second_per_source: Some(20),
        ..Limits::default()
    });
    let mut through = [0; 2];
    for ms in 0..2000 {
        world.now += 1_000_000;
        for (host, count) in through.iter_mut().enumerate() {
            let frame = udp(&client(host, ms), SERVER);
            *count += usize::from(world.verdict(RED, &frame) == Verdict::Transmit);
        }
        if ms % 100 == 0 {
            world.pass(0);
        }
    }
    // Two seconds at 20 a second, and a burst of 2.
    for count in through {
        assert!((40..=42).contains(&count), "{through:?}");
    }
    assert!(world.worker.stats().dropped(DropReason::SourceRate) > 3000);
    assert_eq!(world.worker.stats().dropped(DropReason::VpcRate), 0);
}
