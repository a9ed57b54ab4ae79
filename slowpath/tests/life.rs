//! Whole lives of connections, in simulated time, with the offload engine played by the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use shunt_offload::{ConnectionId, OffloadCommand, OffloadEvent, RefuseReason};
use shunt_p4::flow::proto;
use shunt_slowpath::policy::OffloadAfter;
use shunt_slowpath::worker::Verdict;
use shunt_slowpath::{DropReason, FlowFilter, Offload, State};

const CLIENT: &str = "10.0.0.2:1234";
const SERVER: &str = "192.0.2.80:80";

fn removal(id: ConnectionId, decided_ns: u64) -> OffloadCommand {
    OffloadCommand::Remove { id, decided_ns }
}

#[test]
fn tcp_from_the_first_syn_to_the_last_lease() {
    let mut world = World::new();
    let start = world.now;
    let outside = world
        .forwarded(RED, &tcp(CLIENT, SERVER, "S"))
        .src
        .to_string();
    world.now += SECOND;
    world.forwarded(WAN, &tcp(SERVER, &outside, "SA"));
    assert_eq!(
        world.installer.take(),
        None,
        "not before the handshake is complete"
    );
    world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));

    let unit = world.install();
    assert_eq!((unit.first_packet_ns, unit.decided_ns), (start, world.now));
    let [forward, reply] = unit.flows.entries();
    assert_eq!((forward.key.vpc, forward.action.vpc), (vpc(RED), vpc(RED)));
    assert_eq!(
        forward.action.src,
        Some((sock(&outside).ip(), sock(&outside).port()))
    );
    assert_eq!(forward.action.dst, None);
    assert_eq!((reply.key.vpc, reply.action.vpc), (vpc(WAN), vpc(RED)));
    assert_eq!(reply.action.dst, Some((ip("10.0.0.2"), 1234)));
    assert_eq!(reply.action.src, None);
    assert_eq!(forward.idle_timeout, policy().timeouts.offload_idle);

    // A packet that overtakes the installation is just forwarded.
    world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));
    world.event(OffloadEvent::Installed(unit.id));
    world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));
    assert_eq!(world.installer.take(), None);
    assert_eq!(world.flows()[0].offload, Offload::Installed);

    // The hardware carries it for a day: no timer of ours ends it.
    world.pass(24 * HOUR);
    world.event(OffloadEvent::Active(unit.id));
    assert_eq!(world.worker.connections(), 1);

    // A FIN takes it out of the hardware at once; it goes on in software.
    world.forwarded(RED, &tcp(CLIENT, SERVER, "FA"));
    assert_eq!(world.installer.take(), Some(removal(unit.id, world.now)));
    world.forwarded(WAN, &tcp(SERVER, &outside, "A"));
    world.forwarded(WAN, &tcp(SERVER, &outside, "FA"));
    world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));
    assert_eq!(world.flows()[0].state, State::TimeWait);
    assert_eq!(world.installer.take(), None);

    // Its port is not free while the hardware may still use it, however long that takes.
    world.pass(HOUR);
    assert_eq!((world.worker.connections(), world.leased()), (1, 1));
    world.event(OffloadEvent::Removed(unit.id));
    assert_eq!((world.worker.connections(), world.leased()), (0, 0));
    let stats = world.worker.stats();
    assert_eq!((stats.connections_created, stats.connections_ended), (1, 1));
    assert_eq!((stats.offload_installs, stats.offload_removals), (1, 1));
}

/// Regression: what came by software while the entries were on their way was taken for all that
/// there was, so a FIN after data that the hardware had carried was ignored, and the connection
/// stayed in hardware, and open for two hours.
#[test]
fn a_fin_after_data_that_hardware_carried_counts() {
    let mut world = World::new();
    let outside = world.open_tcp(CLIENT, SERVER).to_string();
    let unit = world.install();
    // Overtaken by the installation, both ways.
    let at =
        |src: &str, dst: &str, flags: &str, numbers| tcp_at(src, dst, flags, numbers, 64, b"x");
    world.forwarded(RED, &at(CLIENT, SERVER, "A", (1001, 1001)));
    world.forwarded(WAN, &at(SERVER, &outside, "A", (1001, 1002)));
    world.event(OffloadEvent::Installed(unit.id));
    // A megabyte later.
    world.forwarded(RED, &at(CLIENT, SERVER, "FA", (1_000_000, 2_000_000)));
    let removed = world.installer.take();
    assert!(
        matches!(removed, Some(OffloadCommand::Remove { id, .. }) if id == unit.id),
        "{removed:?}"
    );
    assert_eq!(world.flows()[0].state, State::FinWait);
    assert_eq!(world.worker.stats().tcp_ignored, 0);
}

#[test]
fn timeouts_by_state() {
    let expect = |world: &mut World, lives: u64| {
        world.pass(lives - 20 * SECOND);
        assert_eq!(world.worker.connections(), 1, "too early");
        world.pass(40 * SECOND);
        assert_eq!(
            (world.worker.connections(), world.leased()),
            (0, 0),
            "too late"
        );
    };
    let mut no_offload = policy();
    no_offload.offload.enabled = false;
    let world = || World::with(no_offload.clone(), 64, 64);

    let mut syn = world();
    syn.forwarded(RED, &tcp(CLIENT, SERVER, "S"));
    expect(&mut syn, 240 * SECOND);

    let mut established = world();
    established.open_tcp(CLIENT, SERVER);
    assert_eq!(established.installer.take(), None);
    expect(&mut established, 124 * 60 * SECOND);

    let mut unreplied = world();
    unreplied.forwarded(RED, &udp(CLIENT, SERVER));
    expect(&mut unreplied, 120 * SECOND);

    let mut replied = world();
    let outside = replied.forwarded(RED, &udp(CLIENT, SERVER)).src;
    replied.forwarded(WAN, &udp(SERVER, &outside.to_string()));
    expect(&mut replied, 300 * SECOND);

    let mut ping = world();
    ping.forwarded(RED, &echo("10.0.0.2", "192.0.2.80", 7, true));
    expect(&mut ping, 60 * SECOND);
}

#[test]
fn a_packet_keeps_a_connection() {
    let mut world = World::new();
    for _ in 0..10 {
        world.forwarded(RED, &udp(CLIENT, SERVER));
        world.pass(100 * SECOND);
    }
    assert_eq!(world.worker.connections(), 1);
}

#[test]
fn a_reset_ends_it_soon_and_what_still_comes_does_not_keep_it() {
    let mut world = World::new();
    let outside = world.open_tcp(CLIENT, SERVER).to_string();
    let unit = world.install();
    world.event(OffloadEvent::Installed(unit.id));
    world.forwarded(WAN, &tcp(SERVER, &outside, "R"));
    assert_eq!(world.installer.take(), Some(removal(unit.id, world.now)));
    world.event(OffloadEvent::Removed(unit.id));
    for _ in 0..3 {
        world.pass(4 * SECOND);
        world.frame(RED, &tcp(CLIENT, SERVER, "A"));
    }
    assert_eq!((world.worker.connections(), world.leased()), (0, 0));
}

#[test]
fn the_same_tuple_opens_again_in_time_wait_and_goes_into_hardware_again() {
    let mut world = World::new();
    let outside = world.open_tcp(CLIENT, SERVER).to_string();
    let unit = world.install();
    for (interface, frame) in [
        (RED, tcp(CLIENT, SERVER, "FA")),
        (WAN, tcp(SERVER, &outside, "FA")),
        (RED, tcp(CLIENT, SERVER, "A")),
    ] {
        world.forwarded(interface, &frame);
    }
    assert_eq!(world.flows()[0].state, State::TimeWait);
    assert_eq!(world.installer.take(), Some(removal(unit.id, world.now)));
    let again = world.open_tcp(CLIENT, SERVER).to_string();
    assert_eq!(again, outside, "the same mapping");
    assert_eq!(
        world.installer.take(),
        None,
        "not while the old entries may be there"
    );
    world.event(OffloadEvent::Removed(unit.id));
    world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));
    assert_eq!(world.install().id, unit.id);
}

#[test]
fn refused_stays_in_software_and_is_offered_again() {
    let mut world = World::new();
    world.open_tcp(CLIENT, SERVER);
    let unit = world.install();
    world.event(OffloadEvent::Refused(unit.id, RefuseReason::TableFull));
    world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));
    assert_eq!(world.installer.take(), None, "cooling down");
    assert_eq!(world.worker.stats().refused(RefuseReason::TableFull), 1);
    world.pass(6 * SECOND);
    world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));
    assert_eq!(world.install().id, unit.id);
}

#[test]
fn lost_is_back_in_software_with_a_whole_timeout() {
    let mut world = World::new();
    world.open_tcp(CLIENT, SERVER);
    let unit = world.install();
    world.event(OffloadEvent::Installed(unit.id));
    world.pass(HOUR);
    world.event(OffloadEvent::Lost(unit.id));
    world.pass(2 * HOUR);
    assert_eq!(world.worker.connections(), 1);
    world.pass(HOUR);
    assert_eq!((world.worker.connections(), world.leased()), (0, 0));
}

#[test]
fn idle_in_hardware_returns_to_software_until_its_own_timeout() {
    let mut world = World::new();
    world.open_tcp(CLIENT, SERVER);
    let unit = world.install();
    world.event(OffloadEvent::Installed(unit.id));
    world.pass(HOUR);
    world.event(OffloadEvent::Idle(unit.id));
    assert_eq!(world.installer.take(), Some(removal(unit.id, world.now)));
    world.event(OffloadEvent::Removed(unit.id));
    assert_eq!(world.flows()[0].offload, Offload::Software);
    // Its next packet puts it back.
    world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));
    let unit = world.install();
    world.event(OffloadEvent::Idle(unit.id));
    world.event(OffloadEvent::Removed(unit.id));
    world.pass(3 * HOUR);
    assert_eq!((world.worker.connections(), world.leased()), (0, 0));
}

#[test]
fn idle_ends_what_has_no_time_left() {
    let mut policy = policy();
    policy.timeouts.udp_stream = Duration::from_secs(30);
    policy.timeouts.offload_idle = Duration::from_secs(30);
    let mut world = World::with(policy, 64, 64);
    let outside = world.forwarded(RED, &udp(CLIENT, SERVER)).src;
    world.forwarded(WAN, &udp(SERVER, &outside.to_string()));
    let unit = world.install();
    world.event(OffloadEvent::Installed(unit.id));
    world.pass(100 * SECOND);
    assert_eq!(world.worker.connections(), 1);
    world.event(OffloadEvent::Idle(unit.id));
    assert_eq!(world.leased(), 1, "until the hardware has let go");
    world.event(OffloadEvent::Removed(unit.id));
    assert_eq!((world.worker.connections(), world.leased()), (0, 0));
}

#[test]
fn a_full_queue_keeps_flows_in_software_and_loses_no_removal() {
    let mut world = World::with(policy(), 64, 1);
    let a = world.open_tcp("10.0.0.2:1", SERVER).to_string();
    world.open_tcp("10.0.0.2:2", SERVER);
    let unit = world.install();
    assert_eq!(world.installer.take(), None, "the second did not fit");
    world.event(OffloadEvent::Installed(unit.id));
    world.forwarded(RED, &tcp("10.0.0.2:2", SERVER, "A"));
    // The ring has the second's installation: the first's removal has to wait.
    let decided = world.now;
    world.forwarded(WAN, &tcp(SERVER, &a, "R"));
    world.pass(60 * SECOND);
    assert_eq!(world.worker.connections(), 2);
    let second = world.install();
    assert_ne!(second.id, unit.id);
    world.pass(0);
    assert_eq!(world.installer.take(), Some(removal(unit.id, decided)));
    world.event(OffloadEvent::Removed(unit.id));
    assert_eq!(world.worker.connections(), 1);
    assert!(world.worker.stats().offload_queue_full >= 2);
}

#[test]
fn udp_and_ping_are_offloaded_as_the_policy_says() {
    let mut world = World::new();
    let request = world.forwarded(RED, &udp(CLIENT, SERVER));
    assert_eq!(world.installer.take(), None);
    world.forwarded(WAN, &udp(SERVER, &request.src.to_string()));
    world.install();
    let ping = world.forwarded(RED, &echo("10.0.0.2", "192.0.2.80", 7, true));
    world.forwarded(
        WAN,
        &echo("192.0.2.80", "203.0.113.10", ping.src.port(), false),
    );
    let [forward, reply] = world.install().flows.entries();
    assert_eq!(
        (forward.key.tuple.src_port, forward.key.tuple.dst_port),
        (7, 0)
    );
    assert_eq!(
        forward.action.src,
        Some((ip("203.0.113.10"), ping.src.port()))
    );
    assert_eq!(reply.action.dst, Some((ip("10.0.0.2"), 7)));

    let mut third = policy();
    third.offload.udp = OffloadAfter::Packets(3);
    let mut world = World::with(third, 64, 64);
    for n in 1..=3 {
        assert_eq!(world.installer.take(), None, "packet {n}");
        world.forwarded(RED, &udp(CLIENT, SERVER));
    }
    world.install();

    let mut never = policy();
    never.offload.udp = OffloadAfter::Never;
    let mut world = World::with(never, 64, 64);
    let out = world.forwarded(RED, &udp(CLIENT, SERVER)).src;
    world.forwarded(WAN, &udp(SERVER, &out.to_string()));
    assert_eq!(world.installer.take(), None);
}

#[test]
fn an_inbound_connection_is_offloaded_as_the_seam_says() {
    let mut world = World::new();
    let client = "192.0.2.80:999";
    world.forwarded(WAN, &tcp(client, "203.0.113.10:8080", "S"));
    world.forwarded(RED, &tcp("10.0.0.2:80", client, "SA"));
    world.forwarded(WAN, &tcp(client, "203.0.113.10:8080", "A"));
    let [forward, reply] = world.install().flows.entries();
    assert_eq!((forward.key.vpc, forward.action.vpc), (vpc(WAN), vpc(RED)));
    assert_eq!(forward.action.dst, Some((ip("10.0.0.2"), 80)));
    assert_eq!((reply.key.vpc, reply.action.vpc), (vpc(RED), vpc(RED)));
    assert_eq!(reply.action.src, Some((ip("203.0.113.10"), 8080)));
}

#[test]
fn a_full_table_and_an_empty_pool_refuse_only_new_connections() {
    let mut world = World::with(policy(), 2, 64);
    world.forwarded(RED, &udp("10.0.0.2:1", SERVER));
    world.forwarded(RED, &udp("10.0.0.2:2", SERVER));
    let refused = world.verdict(RED, &udp("10.0.0.2:3", SERVER));
    assert_eq!(refused, Verdict::Drop(DropReason::TableFull));
    world.forwarded(RED, &udp("10.0.0.2:1", SERVER));
    assert_eq!(world.leased(), 2, "nothing was leased for the refused one");
    world.pass(200 * SECOND);
    world.forwarded(RED, &udp("10.0.0.2:3", SERVER));

    let mut small = policy();
    for rule in &mut small.masquerades {
        rule.ports = shunt_slowpath::policy::PortRange::new(5000, 5000).unwrap();
    }
    let mut world = World::with(small, 64, 64);
    world.forwarded(RED, &udp("10.0.0.2:1", SERVER));
    let refused = world.verdict(RED, &udp("10.0.0.2:2", SERVER));
    assert_eq!(refused, Verdict::Drop(DropReason::PoolExhausted));
    assert_eq!(world.worker.connections(), 1);
    let exhausted = |rule, ipv4| world.worker.stats().exhausted(rule, proto::UDP, ipv4);
    assert_eq!(exhausted("out1", true), 1);
    assert_eq!((exhausted("out1", false), exhausted("out2", true)), (0, 0));
    world.pass(200 * SECOND);
    world.forwarded(RED, &udp("10.0.0.2:2", SERVER));
}

#[test]
fn pools_are_told_by_rule() {
    let ports = |first, last| shunt_slowpath::policy::PortRange::new(first, last).unwrap();
    let mut shared = policy();
    shared.masquerades[0].ports = ports(1024, 9999);
    shared.masquerades[1].ports = ports(10_000, 19_999);
    let mut world = World::with(shared, 64, 64);
    assert_eq!(world.worker.nat_use(), []);
    for client in ["10.0.0.2:1", "10.0.0.2:2"] {
        world.forwarded(RED, &udp(client, SERVER));
    }
    world.forwarded(BLUE, &udp("10.0.0.2:1", SERVER));
    world.forwarded(BLUE, &tcp("10.0.0.2:1", SERVER, "S"));
    world.forwarded(BLUE, &udp("[2001:db8:1::2]:1", "[2001:db8:ffff::1]:53"));
    let mut found: Vec<_> = world.worker.nat_use();
    found.sort_by(|a, b| (&a.rule, a.address, a.protocol).cmp(&(&b.rule, b.address, b.protocol)));
    let found: Vec<_> = found
        .iter()
        .map(|used| (used.rule.as_str(), used.address, used.protocol, used.leased))
        .collect();
    let (v4, v6) = (ip("203.0.113.10"), ip("2001:db8:9::10"));
    assert_eq!(
        found,
        [
            ("out1", v4, proto::UDP, 2),
            ("out2", v4, proto::TCP, 1),
            ("out2", v4, proto::UDP, 1),
            ("out2", v6, proto::UDP, 1),
        ]
    );
}

#[test]
fn flows_are_listed_filtered_and_deleted() {
    let mut world = World::new();
    world.open_tcp(CLIENT, SERVER);
    let unit = world.install();
    world.event(OffloadEvent::Installed(unit.id));
    world.forwarded(BLUE, &udp("10.0.0.2:7", "192.0.2.80:53"));
    world.now += 5 * SECOND;

    let list = |world: &World, filter: FlowFilter| {
        world.worker.list_flows(world.now, &filter, 0, 99, 99).0
    };
    assert_eq!(world.flows().len(), 2);
    let offloaded = list(
        &world,
        FlowFilter {
            offloaded: Some(true),
            ..FlowFilter::default()
        },
    );
    assert_eq!(offloaded.len(), 1);
    let flow = offloaded[0];
    assert_eq!((flow.id, flow.state), (unit.id, State::Established));
    assert_eq!((flow.forward.vpc, flow.reply.vpc), (vpc(RED), vpc(WAN)));
    assert_eq!(flow.forward.translated, flow.reply.tuple.reversed());
    assert_eq!((flow.forward.packets, flow.reply.packets), (2, 1));
    assert_eq!(
        (flow.age, flow.idle),
        (Duration::from_secs(5), Duration::from_secs(5))
    );
    let count = |filter| list(&world, filter).len();
    assert_eq!(
        count(FlowFilter {
            vpc: Some(vpc(BLUE)),
            ..FlowFilter::default()
        }),
        1
    );
    assert_eq!(
        count(FlowFilter {
            vpc: Some(vpc(WAN)),
            ..FlowFilter::default()
        }),
        2
    );
    assert_eq!(
        count(FlowFilter {
            port: Some(53),
            ..FlowFilter::default()
        }),
        1
    );
    assert_eq!(
        count(FlowFilter {
            state: Some(State::New),
            ..FlowFilter::default()
        }),
        1
    );
    assert_eq!(
        count(FlowFilter {
            prefix: Some("203.0.113.0/24".parse().unwrap()),
            ..FlowFilter::default()
        }),
        2
    );
    assert_eq!(
        count(FlowFilter {
            min_age: Some(Duration::from_secs(6)),
            ..FlowFilter::default()
        }),
        0
    );

    let (page, next) = world
        .worker
        .list_flows(world.now, &FlowFilter::default(), 0, 99, 1);
    assert_eq!((page.len(), next), (1, Some(1)));

    let (deleted, _) = world
        .worker
        .delete_flows(world.now, &FlowFilter::default(), 0, 99);
    assert_eq!(deleted, 2);
    assert_eq!(
        world.worker.connections(),
        1,
        "what is in hardware goes after it"
    );
    assert_eq!(world.installer.take(), Some(removal(unit.id, world.now)));
    world.event(OffloadEvent::Removed(unit.id));
    assert_eq!((world.worker.connections(), world.leased()), (0, 0));
}

#[test]
fn lost_before_its_removal_fitted_into_the_queue_needs_none() {
    let mut world = World::with(policy(), 64, 1);
    let a = world.open_tcp("10.0.0.2:1", SERVER).to_string();
    let unit = world.install();
    world.event(OffloadEvent::Installed(unit.id));
    world.open_tcp("10.0.0.2:2", SERVER);
    // The ring has the second's installation.
    world.forwarded(WAN, &tcp(SERVER, &a, "R"));
    world.event(OffloadEvent::Lost(unit.id));
    assert_ne!(world.install().id, unit.id);
    world.pass(20 * SECOND);
    assert_eq!(world.installer.take(), None);
    assert_eq!((world.worker.connections(), world.leased()), (1, 1));
}
