//! Floods: what one VPC, or one source, sends too much of costs nobody else anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::cluster::Cluster;
use common::*;
use proptest::prelude::*;
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

/// A limit that comes while connections are there holds for those as well.
#[test]
fn limits_that_come_later_know_what_there_is() {
    let mut world = World::with(policy(), 2048, 4096);
    for port in 0..1000 {
        world.forwarded(RED, &udp(&format!("10.0.0.2:{}", 2000 + port), SERVER));
    }
    world.forwarded(RED, &tcp("10.0.0.3:5", SERVER, "S"));
    let mut limit = |limits| {
        let mut policy = policy();
        policy.limits = limits;
        world.fib.set_policy(policy);
        world.fib.publish();
        world.pass(0);
        let of = |world: &mut World, client: &str| world.verdict(RED, &tcp(client, SERVER, "S"));
        [of(&mut world, "10.0.0.2:1"), of(&mut world, "10.0.0.77:1")]
    };
    let refused = Verdict::Drop;
    let by_vpc = Limits {
        connections_per_vpc: Some(1001),
        ..Limits::default()
    };
    assert_eq!(limit(by_vpc), [refused(DropReason::VpcConnections); 2]);
    let half_open = Limits {
        half_open_per_vpc: Some(1),
        ..Limits::default()
    };
    assert_eq!(limit(half_open), [refused(DropReason::HalfOpen); 2]);
    let by_source = Limits {
        connections_per_source: Some(1000),
        ..Limits::default()
    };
    let wanted = [refused(DropReason::SourceConnections), Verdict::Transmit];
    assert_eq!(limit(by_source), wanted);
    // What was counted late is given back as all else.
    world.pass(10 * 60 * SECOND);
    assert_eq!(world.flows().len(), 0);
    for port in 0..1000 {
        world.forwarded(RED, &udp(&format!("10.0.0.2:{}", 2000 + port), SERVER));
    }
    let one_more = world.verdict(RED, &udp("10.0.0.2:1", SERVER));
    assert_eq!(one_more, refused(DropReason::SourceConnections));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whichever workers packets arrive at, and however many there are, the same are let in.
    #[test]
    fn limits_hold_for_all_workers_together(
        openers in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<bool>(), 0u64..60), 1..200),
        count in 1u16..5,
        which in 0u8..5,
    ) {
        let mut policy = policy();
        let limits = &mut policy.limits;
        match which {
            0 => limits.connections_per_vpc = Some(20),
            1 => limits.connections_per_source = Some(7),
            2 => limits.half_open_per_vpc = Some(5),
            3 => limits.new_per_second_per_vpc = Some(30),
            _ => limits.new_per_second_per_source = Some(20),
        }
        let mut one = World::with(policy.clone(), 1024, 1024);
        let mut many = Cluster::new(policy, count);
        for (n, (at, host, tcp, wait_ms)) in (0u16..).zip(openers) {
            one.now += wait_ms * 1_000_000;
            many.now = one.now;
            let client = format!("10.0.0.{}:{}", 20 + host, 2000 + n);
            let frame = match tcp {
                true => common::tcp(&client, SERVER, "S"),
                false => udp(&client, SERVER),
            };
            let (verdict, _) = many.frame(at.index(usize::from(count)), RED, &frame);
            prop_assert_eq!(verdict, one.verdict(RED, &frame));
        }
        prop_assert_eq!(many.flows().len(), one.flows().len());
        many.pass(HOUR);
        one.pass(HOUR);
        prop_assert_eq!((many.flows().len(), one.flows().len()), (0, 0));
    }
}
