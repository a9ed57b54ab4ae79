//! Connections after a change of policy or routes: what it contradicts ends, and leaves the
//! hardware first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use shunt_offload::{OffloadCommand, OffloadEvent, OffloadUnit};
use shunt_p4::{Interface, InterfaceId, NetworkOp, NexthopId, Route, Vpc};
use shunt_slowpath::policy::{Peering, PortRange};
use shunt_slowpath::worker::{Reviewed, Verdict};
use shunt_slowpath::{DropReason, Offload, Policy};

const CLIENT: &str = "10.0.0.2:1234";
const SERVER: &str = "192.0.2.80:80";

/// Shows a policy to the worker and lets it look through its connections.
fn change(world: &mut World, change: impl FnOnce(&mut Policy)) -> bool {
    let mut new = policy();
    change(&mut new);
    world.fib.set_policy(new);
    publish(world)
}

fn apply(world: &mut World, ops: Vec<NetworkOp>) -> bool {
    world.fib.apply(ops);
    publish(world)
}

fn publish(world: &mut World) -> bool {
    let concerns = world.fib.publish();
    world.pass(0);
    assert_eq!(world.worker.reviewed().generation, world.fib.generation());
    concerns
}

fn leaving(world: &World) -> u64 {
    world.worker.reviewed().leaving()
}

/// In hardware.
fn offloaded(world: &mut World) -> (OffloadUnit, String) {
    let outside = world.open_tcp(CLIENT, SERVER).to_string();
    let unit = world.install();
    world.event(OffloadEvent::Installed(unit.id));
    (unit, outside)
}

fn gone(world: &mut World, unit: OffloadUnit) {
    assert_eq!(leaving(world), 1);
    let Some(OffloadCommand::Remove { id, .. }) = world.installer.take() else {
        panic!("it stays in hardware");
    };
    assert_eq!(id, unit.id);
    world.event(OffloadEvent::Removed(unit.id));
    assert_eq!((leaving(world), world.worker.connections()), (0, 0));
    assert_eq!(world.leased(), 0);
}

#[test]
fn without_its_masquerade_a_connection_ends_at_once_and_leaves_the_hardware() {
    let mut world = World::new();
    let (unit, outside) = offloaded(&mut world);
    world.forwarded(RED, &udp("10.0.0.2:5000", "192.0.2.53:53"));
    assert_eq!((world.worker.connections(), world.leased()), (2, 2));

    assert!(change(&mut world, |policy| policy.masquerades.clear()));
    // Its port is not free while the hardware may use it.
    assert_eq!((world.worker.connections(), world.leased()), (1, 1));
    let revoked = Verdict::Drop(DropReason::Revoked);
    assert_eq!(world.verdict(RED, &tcp(CLIENT, SERVER, "A")), revoked);
    assert_eq!(world.verdict(WAN, &tcp(SERVER, &outside, "A")), revoked);
    // Nor is it opened anew before.
    assert_eq!(world.verdict(RED, &tcp(CLIENT, SERVER, "S")), revoked);
    gone(&mut world, unit);
    assert_eq!(world.worker.stats().connections_revoked, 2);
    let syn = world.verdict(RED, &tcp(CLIENT, SERVER, "S"));
    assert_eq!(syn, Verdict::Drop(DropReason::NoPeering));
}

/// The short way of plain packets has to know it too.
#[test]
fn bursts_drop_a_revoked_connection_s_packets() {
    let mut world = World::new();
    offloaded(&mut world);
    let burst = |world: &mut World| {
        let frame = from_switch(RED, &tcp(CLIENT, SERVER, "A"));
        let mut frames = [shunt_slowpath::packet::VecBuf::from(frame)];
        let mut seen = None;
        let now = world.now;
        world
            .worker
            .burst(now, &mut frames, |_, verdict| seen = Some(verdict));
        seen.unwrap()
    };
    assert_eq!(burst(&mut world), Verdict::Transmit);
    assert!(change(&mut world, |policy| policy.masquerades.clear()));
    assert_eq!(burst(&mut world), Verdict::Drop(DropReason::Revoked));
}

#[test]
fn what_a_change_does_not_touch_goes_on() {
    let mut world = World::new();
    offloaded(&mut world);
    let unchanged = |world: &mut World| {
        assert_eq!(leaving(world), 0);
        assert_eq!(world.flows()[0].offload, Offload::Installed);
        world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));
        assert_eq!(world.installer.take(), None);
    };
    // Not even looked through.
    let shorter = |policy: &mut Policy| policy.timeouts.udp /= 2;
    assert!(!change(&mut world, shorter));
    unchanged(&mut world);
    // Another rule's.
    assert!(change(&mut world, |policy| policy.port_forwards.clear()));
    unchanged(&mut world);
    // More addresses for the same.
    assert!(change(&mut world, |policy| {
        policy.masquerades[0].pool.push(ip("203.0.113.40").into());
    }));
    unchanged(&mut world);
}

#[test]
fn a_pool_without_its_address_or_port_revokes_a_connection() {
    let narrower = |policy: &mut Policy| {
        policy.masquerades[0].pool = vec![ip("203.0.113.40").into()];
    };
    let others = |policy: &mut Policy| {
        policy.masquerades[0].ports = PortRange::new(1, 1023).unwrap();
    };
    let sources = |policy: &mut Policy| {
        policy.masquerades[0].sources = vec!["10.0.0.128/25".parse().unwrap()];
    };
    let changes: [&dyn Fn(&mut Policy); 3] = [&narrower, &others, &sources];
    for what in changes {
        let mut world = World::new();
        let (unit, _) = offloaded(&mut world);
        assert!(change(&mut world, what));
        gone(&mut world, unit);
    }
}

#[test]
fn a_forwarded_port_that_leads_elsewhere_revokes_its_connections() {
    let mut world = World::new();
    let forwarded = world.forwarded(WAN, &tcp("192.0.2.7:999", "203.0.113.10:8080", "S"));
    assert_eq!(forwarded.dst, sock("10.0.0.2:80"));
    assert!(change(&mut world, |policy| {
        policy.port_forwards[0].to_address = ip("10.0.0.3");
    }));
    assert_eq!(world.worker.connections(), 0);
    let forwarded = world.forwarded(WAN, &tcp("192.0.2.7:999", "203.0.113.10:8080", "S"));
    assert_eq!(forwarded.dst, sock("10.0.0.3:80"));
}

#[test]
fn a_static_rule_that_goes_revokes_both_ways() {
    let mut world = World::new();
    world.forwarded(RED, &udp("10.0.0.3:7", "192.0.2.7:7"));
    world.forwarded(WAN, &udp("192.0.2.8:8", "203.0.113.30:8"));
    assert_eq!(world.worker.connections(), 2);
    assert!(change(&mut world, |policy| policy.static_nat.clear()));
    assert_eq!(world.worker.connections(), 0);
}

fn towards(vpc_of: u16, prefix: &str, nexthop: u32) -> NetworkOp {
    let nexthop = NexthopId::new(nexthop).unwrap();
    let route = Route::Nexthops(vec![(nexthop, 1)]);
    NetworkOp::SetRoute(vpc(vpc_of), prefix.parse().unwrap(), route)
}

#[test]
fn a_peering_that_goes_revokes_what_crossed_by_it() {
    let peered = |policy: &mut Policy| {
        policy.peerings = vec![Peering {
            from: vpc(RED),
            to: vpc(PLAIN),
            prefixes: Vec::new(),
        }];
    };
    let mut world = World::new();
    apply(
        &mut world,
        vec![towards(RED, "10.4.0.0/24", u32::from(PLAIN))],
    );
    change(&mut world, peered);
    world.forwarded(RED, &udp("10.0.0.2:7", "10.4.0.2:7"));
    assert!(change(&mut world, |policy| {
        peered(policy);
        policy.peerings[0].prefixes = vec!["10.4.0.128/25".parse().unwrap()];
    }));
    assert_eq!(world.worker.connections(), 0);
}

#[test]
fn a_route_into_another_vpc_revokes_and_one_that_flaps_does_not() {
    let mut world = World::new();
    let (unit, _) = offloaded(&mut world);
    let default = "0.0.0.0/0".parse().unwrap();
    assert!(!apply(
        &mut world,
        vec![NetworkOp::RemoveRoute(vpc(RED), default)]
    ));
    assert_eq!(world.flows()[0].offload, Offload::Installed);
    assert!(!apply(&mut world, vec![towards(RED, "0.0.0.0/0", 100)]));
    assert_eq!((leaving(&world), world.worker.connections()), (0, 1));
    // Another prefix.
    apply(
        &mut world,
        vec![towards(RED, "198.51.100.0/24", u32::from(BLUE))],
    );
    assert_eq!((leaving(&world), world.worker.connections()), (0, 1));
    // Blue is not masqueraded for, and not peered with.
    assert!(apply(
        &mut world,
        vec![towards(RED, "192.0.2.0/24", u32::from(BLUE))]
    ));
    gone(&mut world, unit);
}

/// Regression by construction: withdrawn, and then announced through another VPC.
#[test]
fn a_route_that_comes_back_through_another_vpc_revokes() {
    let mut world = World::new();
    let (unit, _) = offloaded(&mut world);
    let default = "0.0.0.0/0".parse().unwrap();
    apply(&mut world, vec![NetworkOp::RemoveRoute(vpc(RED), default)]);
    assert!(apply(
        &mut world,
        vec![towards(RED, "0.0.0.0/0", u32::from(BLUE))]
    ));
    gone(&mut world, unit);
}

#[test]
fn a_vpc_that_goes_takes_its_connections_along() {
    let mut world = World::new();
    let (unit, _) = offloaded(&mut world);
    assert!(apply(&mut world, vec![NetworkOp::RemoveVpc(vpc(RED))]));
    gone(&mut world, unit);
}

#[test]
fn a_vpc_that_becomes_stateless_forgets_its_connections() {
    let mut world = World::new();
    let (unit, _) = offloaded(&mut world);
    let stateless = Vpc {
        id: vpc(RED),
        name: "vpc1".into(),
        stateless: true,
    };
    assert!(apply(&mut world, vec![NetworkOp::SetVpc(stateless)]));
    gone(&mut world, unit);
}

#[test]
fn an_interface_that_changes_its_vpc_moves_routes_with_it() {
    let mut world = World::new();
    let (unit, _) = offloaded(&mut world);
    let id = InterfaceId::new(WAN).unwrap();
    let found = network().into_iter().find_map(|op| match op {
        NetworkOp::SetInterface(interface) if interface.id == id => Some(interface),
        _ => None,
    });
    let moved = Interface {
        vpc: vpc(BLUE),
        ..found.unwrap()
    };
    assert!(apply(&mut world, vec![NetworkOp::SetInterface(moved)]));
    gone(&mut world, unit);
}

#[test]
fn connections_to_ports_that_no_longer_go_leave_the_hardware_and_live_on() {
    let mut world = World::new();
    let (unit, _) = offloaded(&mut world);
    let port = |port| shunt_slowpath::policy::NeverPorts {
        protocol: None,
        ports: shunt_slowpath::policy::PortRange::new(port, port).unwrap(),
    };
    let other = port(unit.flows.entries()[0].key.tuple.dst_port + 1);
    change(&mut world, |policy| {
        policy.offload.never_ports = vec![other]
    });
    assert_eq!((leaving(&world), world.installer.take()), (0, None));
    let its_own = port(unit.flows.entries()[0].key.tuple.dst_port);
    change(&mut world, |policy| {
        policy.offload.never_ports = vec![its_own]
    });
    assert_eq!(leaving(&world), 1);
    assert!(world.installer.take().is_some());
    world.event(OffloadEvent::Removed(unit.id));
    assert_eq!((leaving(&world), world.worker.connections()), (0, 1));
}

#[test]
fn without_offload_connections_leave_the_hardware_and_live_on() {
    let mut world = World::new();
    let (unit, _) = offloaded(&mut world);
    assert!(change(&mut world, |policy| policy.offload.enabled = false));
    assert_eq!(leaving(&world), 1);
    let removal = world.installer.take();
    assert!(
        matches!(removal, Some(OffloadCommand::Remove { id, .. }) if id == unit.id),
        "{removal:?}"
    );
    world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));
    world.event(OffloadEvent::Removed(unit.id));
    assert_eq!((leaving(&world), world.worker.connections()), (0, 1));
    world.forwarded(RED, &tcp(CLIENT, SERVER, "A"));
    assert_eq!(world.installer.take(), None);
}

/// Many connections are looked through in parts; a second change meanwhile is not lost.
#[test]
fn a_change_during_the_search_is_looked_for_too() {
    let mut world = World::with(policy(), 4096, 4096);
    for port in 1..=1000u16 {
        world.forwarded(RED, &udp(&format!("10.0.0.2:{}", 2000 + port), SERVER));
        world.forwarded(BLUE, &udp(&format!("10.0.0.2:{}", 2000 + port), SERVER));
    }
    assert_eq!(world.worker.connections(), 2000);
    let mut first = policy();
    first.masquerades.remove(0);
    world.fib.set_policy(first);
    assert!(world.fib.publish());
    // One part of the search.
    world.worker.poll(world.now, &mut Vec::new());
    assert_eq!(world.worker.reviewed(), Reviewed::default());
    let between = world.worker.connections();
    assert!((1001..2000).contains(&between), "{between}");
    assert!(change(&mut world, |policy| policy.masquerades.clear()));
    assert_eq!((world.worker.connections(), world.leased()), (0, 0));
}
