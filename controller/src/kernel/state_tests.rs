//! The state without a kernel: what it publishes, in which order, and what it asks for.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};

use proptest::prelude::*;
use shunt_p4::{Nexthop, NexthopId, Route};

use super::*;
use crate::kernel::message::Placement;
use crate::kernel::message::{Path, RTNH_F_DEAD};
use crate::kernel::rib::RouteKey;

const LIMIT: usize = 1000;

fn interface(id: u16) -> InterfaceId {
    InterfaceId::new(id).unwrap()
}

fn vpc(id: u16) -> VpcId {
    VpcId::new(id).unwrap()
}

/// Devices 1 to 3 are taps of interfaces 1 to 3 in VPCs 1 to 3, device 9 is none; tables 101 to 103.
fn state() -> State {
    let mut state = State::new(
        (1..=3).map(|n| (n.into(), interface(n), vpc(n))),
        (1..=3).map(|n| (vpc(n), 100 + u32::from(n))),
    );
    for index in [1, 2, 3, 9] {
        state.apply(link(index, true));
    }
    state
}

fn link(index: u32, up: bool) -> Message {
    Message::NewLink(LinkInfo {
        index,
        name: format!("dev{index}"),
        flags: if up { IFF_UP | IFF_LOWER_UP } else { 0 },
        mtu: 1500,
    })
}

fn path(index: u32, gateway: Option<&str>, weight: u32) -> Path {
    Path {
        index,
        gateway: gateway.map(|text| text.parse().unwrap()),
        weight,
        flags: 0,
        encapsulated: false,
    }
}

fn route(table: u32, prefix: &str, metric: u32, paths: Vec<Path>) -> RouteInfo {
    RouteInfo {
        table,
        prefix: prefix.parse().unwrap(),
        tos: 0,
        metric,
        kind: RouteType::Unicast,
        protocol: 4,
        nexthop: None,
        mtu: None,
        extras: 0,
        paths,
    }
}

fn add(info: RouteInfo) -> Message {
    Message::NewRoute(info, Placement::First)
}

/// The only route of a batch, its next hops resolved.
#[derive(Debug, Default)]
struct Consumer {
    nexthops: BTreeMap<NexthopId, Nexthop>,
    routes: BTreeMap<(VpcId, IpNet), Route>,
    neighbors: BTreeMap<(InterfaceId, IpAddr), MacAddr>,
}

impl Consumer {
    /// Applies a batch; panics where a step could not be applied.
    fn apply(&mut self, ops: &[NetworkOp]) {
        for op in ops {
            match op {
                NetworkOp::SetNexthop(id, nexthop) => {
                    assert_eq!(self.nexthops.insert(*id, *nexthop), None);
                }
                NetworkOp::RemoveNexthop(id) => {
                    assert!(self.nexthops.remove(id).is_some());
                    assert!(!self.uses(*id), "{id} is still used");
                }
                NetworkOp::SetRoute(vpc, prefix, route) => {
                    if let Route::Nexthops(paths) = route {
                        assert!(paths.iter().all(|path| self.nexthops.contains_key(&path.0)));
                    }
                    self.routes.insert((*vpc, *prefix), route.clone());
                }
                NetworkOp::RemoveRoute(vpc, prefix) => {
                    assert!(self.routes.remove(&(*vpc, *prefix)).is_some());
                }
                NetworkOp::SetNeighbor(interface, address, mac) => {
                    self.neighbors.insert((*interface, *address), *mac);
                }
                NetworkOp::RemoveNeighbor(interface, address) => {
                    assert!(self.neighbors.remove(&(*interface, *address)).is_some());
                }
                other => panic!("not the mirror's: {other:?}"),
            }
        }
    }

    fn uses(&self, id: NexthopId) -> bool {
        self.routes.values().any(|route| match route {
            Route::Nexthops(paths) => paths.iter().any(|path| path.0 == id),
            _ => false,
        })
    }

    fn ways(&self) -> BTreeMap<(VpcId, IpNet), Vec<(Nexthop, u16)>> {
        let resolve = |route: &Route| match route {
            Route::Nexthops(paths) => {
                let mut ways: Vec<_> = paths
                    .iter()
                    .map(|(id, weight)| (self.nexthops[id], *weight))
                    .collect();
                ways.sort();
                ways
            }
            _ => Vec::new(),
        };
        self.routes
            .iter()
            .map(|(key, route)| (*key, resolve(route)))
            .collect()
    }
}

#[test]
fn a_change_of_next_hop_makes_before_it_breaks() {
    let mut state = state();
    state.apply(add(route(
        101,
        "10.0.0.0/8",
        0,
        vec![path(1, Some("10.0.0.2"), 1)],
    )));
    let ops = state.flush(LIMIT);
    assert!(
        matches!(
            ops.as_slice(),
            [NetworkOp::SetNexthop(..), NetworkOp::SetRoute(..)]
        ),
        "{ops:?}"
    );
    let info = route(101, "10.0.0.0/8", 0, vec![path(3, Some("10.0.0.3"), 1)]);
    state.apply(Message::NewRoute(info, Placement::Replace));
    let ops = state.flush(LIMIT);
    assert!(
        matches!(
            ops.as_slice(),
            [
                NetworkOp::SetNexthop(..),
                NetworkOp::SetRoute(..),
                NetworkOp::RemoveNexthop(..)
            ]
        ),
        "{ops:?}"
    );
    assert!(!state.is_dirty());
}

#[test]
fn what_changes_and_changes_back_costs_nothing() {
    let mut state = state();
    let info = route(101, "10.0.0.0/8", 0, vec![path(1, None, 1)]);
    state.apply(add(info.clone()));
    state.flush(LIMIT);
    for _ in 0..100 {
        state.apply(Message::DelRoute(info.clone()));
        state.apply(add(info.clone()));
    }
    assert_eq!(state.flush(LIMIT), []);
}

#[test]
fn a_batch_has_a_limit_and_stands_by_itself() {
    let mut state = state();
    for n in 0..10 {
        let prefix = format!("10.{n}.0.0/16");
        state.apply(add(route(
            101,
            &prefix,
            0,
            vec![path(1, Some("10.0.0.2"), 1)],
        )));
    }
    let mut consumer = Consumer::default();
    let mut batches = 0;
    while state.is_dirty() {
        let ops = state.flush(3);
        assert!(ops.len() <= 4);
        consumer.apply(&ops);
        batches += 1;
    }
    assert_eq!(
        (batches, consumer.routes.len(), consumer.nexthops.len()),
        (4, 10, 1)
    );
}

#[test]
fn no_route_is_stale() {
    let mut state = state();
    let key: (VpcId, IpNet) = (vpc(1), "10.0.0.0/8".parse().unwrap());
    let mut consumer = Consumer::default();
    let mut now = |state: &mut State| {
        consumer.apply(&state.flush(LIMIT));
        consumer.routes.get(&key).cloned()
    };
    state.apply(add(route(
        101,
        "10.0.0.0/8",
        0,
        vec![path(9, Some("10.0.0.2"), 1)],
    )));
    assert_eq!(now(&mut state), Some(Route::Unreachable));
    assert_eq!(state.gauges().foreign, 1);
    let info = route(
        101,
        "10.0.0.0/8",
        0,
        vec![path(1, None, 1), path(2, None, 1)],
    );
    state.apply(Message::NewRoute(info, Placement::Replace));
    assert!(matches!(now(&mut state), Some(Route::Nexthops(paths)) if paths.len() == 2));
    assert_eq!(state.gauges().foreign, 0);
    // A device down counts at once, before the kernel takes the route away without a word.
    state.apply(link(1, false));
    assert!(matches!(now(&mut state), Some(Route::Nexthops(paths)) if paths.len() == 1));
    assert!(state.take_dumps().contains(&DumpKind::RoutesV4));
    state.apply(link(2, false));
    assert_eq!(now(&mut state), Some(Route::Unreachable));
    assert_eq!(state.gauges().down, 1);
    let mut tunnel = path(3, None, 1);
    tunnel.encapsulated = true;
    let info = route(101, "10.0.0.0/8", 0, vec![tunnel]);
    state.apply(Message::NewRoute(info, Placement::Replace));
    assert_eq!(now(&mut state), Some(Route::Unreachable));
    assert_eq!((state.gauges().down, state.gauges().unsupported), (0, 1));
    let dump = state.begin_dump(DumpKind::RoutesV4);
    assert_eq!(state.end_dump(dump), 1);
    assert_eq!(now(&mut state), None);
    assert_eq!(state.gauges().unsupported, 0);
}

#[test]
fn the_kernel_passes_over_dead_routes() {
    let mut state = state();
    let mut dead = path(1, None, 1);
    dead.flags = RTNH_F_DEAD;
    state.apply(add(route(101, "10.0.0.0/8", 0, vec![dead])));
    state.apply(add(route(101, "10.0.0.0/8", 10, vec![path(2, None, 1)])));
    let mut consumer = Consumer::default();
    consumer.apply(&state.flush(LIMIT));
    let ways = consumer.ways();
    let way = &ways[&(vpc(1), "10.0.0.0/8".parse().unwrap())];
    assert_eq!(way[0].0.interface, interface(2));
}

#[test]
fn own_addresses_come_first_and_stay_apart() {
    let mut state = state();
    for index in [1, 2] {
        let mut info = route(LOCAL_TABLE, "10.0.0.1/32", 0, vec![path(index, None, 1)]);
        info.kind = RouteType::Local;
        state.apply(Message::NewRoute(info, Placement::Last));
    }
    state.apply(add(route(101, "10.0.0.1/32", 0, vec![path(3, None, 1)])));
    let mut consumer = Consumer::default();
    consumer.apply(&state.flush(LIMIT));
    let key = |n| (vpc(n), "10.0.0.1/32".parse::<IpNet>().unwrap());
    assert_eq!(consumer.routes.get(&key(1)), Some(&Route::Local));
    assert_eq!(consumer.routes.get(&key(2)), Some(&Route::Local));
    assert_eq!(consumer.routes.get(&key(3)), None);
    let mut info = route(LOCAL_TABLE, "10.0.0.1/32", 0, vec![path(1, None, 1)]);
    info.kind = RouteType::Local;
    state.apply(Message::DelRoute(info));
    consumer.apply(&state.flush(LIMIT));
    assert!(matches!(
        consumer.routes.get(&key(1)),
        Some(Route::Nexthops(_))
    ));
    assert_eq!(consumer.routes.get(&key(2)), Some(&Route::Local));
}

#[test]
fn neighbours_are_used_as_the_kernel_uses_them() {
    const NUD_FAILED: u16 = 0x20;
    const NUD_INCOMPLETE: u16 = 0x01;
    let mut state = state();
    let mut consumer = Consumer::default();
    let address: IpAddr = "10.0.0.2".parse().unwrap();
    let mut hear = |index, state_bits, last: u8| {
        let info = NeighborInfo {
            index,
            address,
            state: state_bits,
            flags: 0,
            mac: (last != 0).then_some(MacAddr([2, 0, 0, 0, 0, last])),
        };
        state.apply(Message::NewNeighbor(info));
        let ops = state.flush(LIMIT);
        consumer.apply(&ops);
        (
            ops.len(),
            consumer
                .neighbors
                .get(&(interface(1), address))
                .map(|mac| mac.0[5]),
        )
    };
    assert_eq!(hear(1, NUD_INCOMPLETE, 0), (0, None));
    assert_eq!(hear(1, NUD_REACHABLE, 7), (1, Some(7)));
    assert_eq!(hear(1, NUD_STALE, 7), (0, Some(7)));
    // A move is one change.
    assert_eq!(hear(1, NUD_STALE, 8), (1, Some(8)));
    assert_eq!(hear(1, NUD_PROBE, 8), (0, Some(8)));
    assert_eq!(hear(1, NUD_FAILED, 8), (1, None));
    assert_eq!(hear(9, NUD_REACHABLE, 9), (0, None));
}

#[test]
fn a_nexthop_object_takes_its_routes_along() {
    let mut state = state();
    let object = |id, kind| Message::NewNexthop(NexthopInfo { id, kind });
    state.apply(object(1, NexthopKind::Path(path(1, Some("10.0.0.2"), 1))));
    state.apply(object(2, NexthopKind::Path(path(2, None, 1))));
    state.apply(object(10, NexthopKind::Group(vec![(1, 3), (2, 5)])));
    let mut info = route(101, "10.0.0.0/8", 0, Vec::new());
    info.nexthop = NonZeroU32::new(10);
    state.apply(add(info));
    let mut consumer = Consumer::default();
    consumer.apply(&state.flush(LIMIT));
    let key = (vpc(1), "10.0.0.0/8".parse::<IpNet>().unwrap());
    let weights = |consumer: &Consumer| -> Vec<u16> {
        consumer.ways()[&key].iter().map(|way| way.1).collect()
    };
    assert_eq!(weights(&consumer), [3, 5]);
    // No word of the route itself.
    state.apply(object(2, NexthopKind::Path(path(3, None, 1))));
    consumer.apply(&state.flush(LIMIT));
    assert_eq!(consumer.ways()[&key][1].0.interface, interface(3));
    state.apply(Message::DelNexthop(10));
    consumer.apply(&state.flush(LIMIT));
    assert!(consumer.routes.is_empty() && consumer.nexthops.is_empty());
}

#[test]
fn a_routes_mtu_makes_another_next_hop_of_it() {
    let mut state = state();
    let mut consumer = Consumer::default();
    let gateway = |mtu| {
        let mut info = route(101, "10.0.0.0/8", 0, vec![path(1, Some("10.9.0.1"), 1)]);
        info.mtu = NonZeroU16::new(mtu);
        info.extras = mtu.into();
        Message::NewRoute(info, Placement::Replace)
    };
    let mut other = route(101, "10.1.0.0/16", 0, vec![path(1, Some("10.9.0.1"), 1)]);
    state.apply(add(other.clone()));
    for mtu in [0, 1300, 1200, 0] {
        state.apply(gateway(mtu));
        consumer.apply(&state.flush(LIMIT));
        let ways = consumer.ways();
        let limit = |prefix: &str| ways[&(vpc(1), prefix.parse().unwrap())][0].0.mtu;
        assert_eq!(limit("10.0.0.0/8"), NonZeroU16::new(mtu));
        assert_eq!(limit("10.1.0.0/16"), None);
        let hops = if mtu == 0 { 1 } else { 2 };
        assert_eq!(consumer.nexthops.len(), hops, "mtu {mtu}");
    }
    // With a next-hop object and with several paths it is the route's as well.
    state.apply(Message::NewNexthop(NexthopInfo {
        id: 7,
        kind: NexthopKind::Path(path(2, Some("10.9.0.2"), 1)),
    }));
    other.nexthop = NonZeroU32::new(7);
    other.mtu = NonZeroU16::new(1400);
    state.apply(Message::NewRoute(other, Placement::Replace));
    let both = vec![path(1, Some("10.9.0.1"), 1), path(2, None, 2)];
    let mut several = route(101, "10.2.0.0/16", 0, both);
    several.mtu = NonZeroU16::new(1350);
    state.apply(add(several));
    consumer.apply(&state.flush(LIMIT));
    let ways = consumer.ways();
    let limits = |prefix: &str| -> Vec<_> {
        let way = &ways[&(vpc(1), prefix.parse().unwrap())];
        way.iter()
            .filter_map(|(hop, _)| Some(hop.mtu?.get()))
            .collect()
    };
    assert_eq!(limits("10.1.0.0/16"), [1400]);
    assert_eq!(limits("10.2.0.0/16"), [1350, 1350]);
}

/// IPv6 changes routes' MTU with the device's, without a word.
#[test]
fn a_devices_mtu_has_ipv6_routes_read_again() {
    let mut state = state();
    state.take_dumps();
    state.apply(link(1, true));
    assert!(!state.needs_dump());
    state.apply(Message::NewLink(LinkInfo {
        index: 1,
        name: "dev1".into(),
        flags: IFF_UP | IFF_LOWER_UP,
        mtu: 1400,
    }));
    assert_eq!(state.take_dumps(), [DumpKind::RoutesV6].into());
}

/// A message about a few prefixes, paths, objects and devices.
fn message() -> impl Strategy<Value = Message> {
    let prefixes = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "0.0.0.0/0",
        "2001:db8::/32",
        "::/0",
    ];
    let paths = prop::collection::vec((1u32..5, 0usize..3, 1u32..4), 1..3);
    let info = (101u32..105, 0usize..5, 0u32..3, paths, 0u32..12).prop_map(
        move |(table, prefix, metric, paths, object)| {
            let v6 = prefix > 2;
            let gateways = if v6 {
                [None, Some("fe80::1"), Some("fe80::2")]
            } else {
                [None, Some("10.9.0.1"), Some("10.9.0.2")]
            };
            let paths = paths
                .into_iter()
                .map(|(index, gateway, weight)| path(index, gateways[gateway], weight));
            let mut info = route(table, prefixes[prefix], metric, paths.collect());
            info.nexthop = (object < 4).then(|| NonZeroU32::MIN.saturating_add(object));
            info.kind = match object {
                10 => RouteType::Blackhole,
                11 => RouteType::Unreachable,
                _ => RouteType::Unicast,
            };
            info
        },
    );
    let placement = prop_oneof![
        Just(Placement::First),
        Just(Placement::Last),
        Just(Placement::Replace)
    ];
    prop_oneof![
        6 => (info.clone(), placement).prop_map(|(info, placement)| Message::NewRoute(info, placement)),
        4 => info.prop_map(Message::DelRoute),
        2 => (1u32..5, 1u32..5).prop_map(|(id, index)| Message::NewNexthop(NexthopInfo {
            id,
            kind: if id == 4 { NexthopKind::Group(vec![(1, 1), (2, 2)]) } else { NexthopKind::Path(path(index, None, 1)) },
        })),
        1 => (1u32..5).prop_map(Message::DelNexthop),
        1 => (1u32..5, any::<bool>()).prop_map(|(index, up)| link(index, up)),
    ]
}

proptest! {
    /// Batches of any size at any time lead to the same as one batch at the end, each step
    /// applies, and nothing is left over.
    #[test]
    fn batches_do_not_matter(messages in prop::collection::vec((message(), 0usize..4), 0..60)) {
        let (mut often, mut once) = (state(), state());
        let (mut consumer, mut last) = (Consumer::default(), Consumer::default());
        for (message, limit) in messages {
            once.apply(message.clone());
            often.apply(message);
            if limit > 0 {
                consumer.apply(&often.flush(limit));
            }
        }
        while often.is_dirty() {
            consumer.apply(&often.flush(2));
        }
        last.apply(&once.flush(usize::MAX));
        prop_assert_eq!(consumer.ways(), last.ways());
        for id in consumer.nexthops.keys() {
            prop_assert!(consumer.uses(*id), "{} is left over", id);
        }
    }

    /// A dump that says what is known already changes nothing; an empty one removes all.
    #[test]
    fn dumps_replace(messages in prop::collection::vec(message(), 0..60)) {
        let mut state = state();
        let mut consumer = Consumer::default();
        for message in messages {
            state.apply(message);
        }
        consumer.apply(&state.flush(usize::MAX));
        for kind in [DumpKind::RoutesV4, DumpKind::RoutesV6] {
            let mut dump = state.begin_dump(kind);
            let of_kind = |key: &RouteKey| matches!(key.1, IpNet::V4(_)) == (kind == DumpKind::RoutesV4);
            let known: Vec<RouteInfo> = state
                .rib()
                .iter()
                .filter(|(key, _)| of_kind(key))
                .flat_map(|(key, list)| list.iter().map(|entry| entry.info(*key)))
                .collect();
            for info in known {
                state.add_to_dump(&mut dump, Message::NewRoute(info, Placement::First));
            }
            prop_assert_eq!(state.end_dump(dump), 0);
        }
        prop_assert_eq!(state.flush(usize::MAX), vec![]);
        for kind in [DumpKind::RoutesV4, DumpKind::RoutesV6] {
            let dump = state.begin_dump(kind);
            state.end_dump(dump);
        }
        consumer.apply(&state.flush(usize::MAX));
        prop_assert!(consumer.routes.is_empty() && consumer.nexthops.is_empty());
    }
}
