//! Ops in, changes out.

use ipnet::Ipv4Net;
use shunt_p4::tables::Numbers;
use shunt_p4::{PuntReason, Vni};

use super::*;

fn vpc_id(n: u16) -> VpcId {
    VpcId::new(n).unwrap()
}

fn interface_id(n: u16) -> InterfaceId {
    InterfaceId::new(n).unwrap()
}

fn nexthop_id(n: u32) -> NexthopId {
    NexthopId::new(n).unwrap()
}

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n])
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn vpc(n: u16, stateless: bool) -> NetworkOp {
    NetworkOp::SetVpc(Vpc {
        id: vpc_id(n),
        name: format!("vpc{n}"),
        stateless,
    })
}

fn interface(n: u16, vpc: u16, encap: Encap) -> Interface {
    Interface {
        id: interface_id(n),
        name: format!("if{n}"),
        vpc: vpc_id(vpc),
        switch: SwitchIndex::MIN,
        port: SwitchPort::new(n).unwrap(),
        encap,
        mac: mac(n as u8),
        mtu: 1500,
        addresses: Vec::new(),
    }
}

/// A lowering, with the routes that it has said.
struct Lab {
    lowering: Lowering,
    routes: HashMap<(VpcId, Ipv4Net), Route4Action>,
}

impl Lab {
    fn apply(&mut self, ops: Vec<NetworkOp>) -> Vec<Change> {
        let mut changes = self.lowering.apply(ops);
        for change in &changes {
            match change {
                Change::Set(AnyEntry::Route4(route)) => {
                    let key = (route.key.vpc, route.key.dst);
                    self.routes.insert(key, route.action);
                }
                Change::Remove(AnyEntry::Route4(route)) => {
                    self.routes.remove(&(route.key.vpc, route.key.dst));
                }
                _ => {}
            }
        }
        let routing = |vpc, to: Ipv4Addr| {
            let covers = self.routes.iter();
            let covers = covers.filter(|((of, dst), _)| *of == vpc && dst.contains(&to));
            let longest = covers.max_by_key(|((_, dst), _)| dst.prefix_len());
            longest.map(|(_, action)| *action)
        };
        changes.extend(self.lowering.tunnels(&routing));
        changes
    }
}

impl std::ops::Deref for Lab {
    type Target = Lowering;

    fn deref(&self) -> &Lowering {
        &self.lowering
    }
}

fn lowering() -> Lab {
    lowering_of(Scope::All)
}

fn lowering_of(scope: Scope) -> Lab {
    lowering_with(scope, None)
}

fn lowering_with(scope: Scope, peerings: Option<Vec<Peering>>) -> Lab {
    let meter = |reason, per_interface| PuntMeter {
        reason,
        rate_pps: 1000,
        burst: 100,
        per_interface,
    };
    Lab {
        lowering: Lowering::new(
            SwitchPort::new(10).unwrap(),
            vec![meter(PuntReason::Arp, true), meter(PuntReason::Ttl, false)],
            scope,
            peerings,
        ),
        routes: HashMap::new(),
    }
}

/// Table and key; of a group also how many paths it has.
fn describe(entry: &AnyEntry) -> String {
    let shown = entry.shown(&Numbers);
    let key: Vec<String> = shown
        .key
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    match entry {
        AnyEntry::Ecmp(group) => {
            format!(
                "{} {} ({} paths)",
                shown.table,
                key.join(" "),
                group.members.len()
            )
        }
        _ => format!("{} {}", shown.table, key.join(" ")),
    }
}

/// `+ route4 …` and `- route4 …`, sorted.
fn texts(changes: &[Change]) -> Vec<String> {
    let mut texts: Vec<String> = changes
        .iter()
        .map(|change| match change {
            Change::Set(entry) => format!("+ {}", describe(entry)),
            Change::Remove(entry) => format!("- {}", describe(entry)),
        })
        .collect();
    texts.sort();
    texts
}

#[test]
fn the_slow_path_port_and_a_meter_for_every_reason_are_always_there() {
    assert_eq!(
        texts(&lowering().fixed()),
        [
            "+ classify_port port=10 outer_vid=none inner_vid=none",
            "+ punt reason=arp interface=any",
            "+ punt reason=ttl interface=any",
        ]
    );
}

#[test]
fn an_interface_waits_for_its_vpc_and_takes_its_mode() {
    let mut lowering = lowering();
    let vlan = Encap::Vlan(VlanId::new(20).unwrap());
    let set = NetworkOp::SetInterface(interface(1, 7, vlan));
    assert_eq!(texts(&lowering.apply(vec![set])), [""; 0]);
    let changes = lowering.apply(vec![vpc(7, true)]);
    assert_eq!(
        texts(&changes),
        [
            "+ classify_port port=1 outer_vid=20 inner_vid=none",
            "+ egress_interface interface=1",
            "+ punt reason=arp interface=1",
        ]
    );
    let stateless = changes.iter().any(|change| {
        matches!(
            change,
            Change::Set(AnyEntry::ClassifyPort(ClassifyPort {
                action: ClassifyPortAction::SetInterface {
                    stateless: true,
                    ..
                },
                ..
            }))
        )
    });
    assert!(stateless);
    // Only what the mode changes.
    assert_eq!(
        texts(&lowering.apply(vec![vpc(7, false)])),
        ["+ classify_port port=1 outer_vid=20 inner_vid=none"]
    );
}

#[test]
fn an_interface_that_moves_leaves_nothing_behind() {
    let mut lowering = lowering();
    let qinq = Encap::Qinq {
        outer: VlanId::new(5).unwrap(),
        inner: VlanId::new(6).unwrap(),
    };
    lowering.apply(vec![
        vpc(1, false),
        NetworkOp::SetInterface(interface(1, 1, Encap::Untagged)),
    ]);
    assert_eq!(
        texts(&lowering.apply(vec![NetworkOp::SetInterface(interface(1, 1, qinq))])),
        [
            "+ classify_port port=1 outer_vid=5 inner_vid=6",
            "+ egress_interface interface=1",
            "- classify_port port=1 outer_vid=none inner_vid=none",
        ]
    );
    assert_eq!(
        texts(&lowering.apply(vec![NetworkOp::RemoveInterface(interface_id(1))])),
        [
            "- classify_port port=1 outer_vid=5 inner_vid=6",
            "- egress_interface interface=1",
            "- punt reason=arp interface=1",
        ]
    );
}

/// Regression: the entry of the port that one had taken was removed as the other's.
#[test]
fn two_interfaces_that_change_places_both_keep_a_port() {
    let mut lowering = lowering();
    let at = |n: u16, port: u16| {
        NetworkOp::SetInterface(Interface {
            port: SwitchPort::new(port).unwrap(),
            ..interface(n, 1, Encap::Untagged)
        })
    };
    lowering.apply(vec![vpc(1, false), at(1, 1), at(2, 2)]);
    let changes = lowering.apply(vec![at(1, 2), at(2, 1)]);
    let mut texts = texts(&changes);
    texts.retain(|text| text.contains("classify_port"));
    assert_eq!(
        texts,
        [
            "+ classify_port port=1 outer_vid=none inner_vid=none",
            "+ classify_port port=2 outer_vid=none inner_vid=none",
            "- classify_port port=1 outer_vid=none inner_vid=none",
        ]
    );
    // The removal comes before its place is taken.
    let last = changes.iter().rev().find_map(|change| match change {
        Change::Set(AnyEntry::ClassifyPort(entry))
        | Change::Remove(AnyEntry::ClassifyPort(entry))
            if entry.key.port.get() == 1 =>
        {
            Some(matches!(change, Change::Set(_)))
        }
        _ => None,
    });
    assert_eq!(last, Some(true));
}

#[test]
fn one_path_is_a_next_hop_and_several_are_a_shared_group() {
    let mut lowering = lowering();
    let to = |paths: &[u32]| Route::Nexthops(paths.iter().map(|n| (nexthop_id(*n), 1)).collect());
    let route = |prefix, route| NetworkOp::SetRoute(vpc_id(1), net(prefix), route);
    let changes = lowering.apply(vec![
        route("10.0.0.0/8", to(&[1])),
        route("10.1.0.0/16", to(&[1, 2])),
        route("2001:db8::/32", to(&[2, 1])),
        route("10.9.0.0/16", Route::Blackhole),
    ]);
    assert_eq!(
        texts(&changes),
        [
            "+ ecmp group=1 (2 paths)",
            "+ route4 vpc=1 dst=10.0.0.0/8",
            "+ route4 vpc=1 dst=10.1.0.0/16",
            "+ route4 vpc=1 dst=10.9.0.0/16",
            "+ route6 vpc=1 dst=2001:db8::/32",
        ]
    );
    // One of the two moves away: the group stays. The last one: it goes.
    assert_eq!(
        texts(&lowering.apply(vec![route("10.1.0.0/16", to(&[2]))])),
        ["+ route4 vpc=1 dst=10.1.0.0/16"]
    );
    let gone = NetworkOp::RemoveRoute(vpc_id(1), net("2001:db8::/32"));
    assert_eq!(
        texts(&lowering.apply(vec![gone])),
        [
            "- ecmp group=1 (2 paths)",
            "- route6 vpc=1 dst=2001:db8::/32"
        ]
    );
    // Rewritten with the same paths: the group is kept.
    lowering.apply(vec![route("10.2.0.0/16", to(&[1, 2]))]);
    assert_eq!(
        texts(&lowering.apply(vec![route("10.2.0.0/16", to(&[1, 2]))])),
        ["+ route4 vpc=1 dst=10.2.0.0/16"]
    );
}

#[test]
fn next_hops_have_their_gateways_family() {
    let mut lowering = lowering();
    let hop = |n, gateway: Option<&str>, mtu| {
        let nexthop = Nexthop {
            interface: interface_id(1),
            gateway: gateway.map(|text| text.parse().unwrap()),
            mtu: NonZeroU16::new(mtu),
        };
        NetworkOp::SetNexthop(nexthop_id(n), nexthop)
    };
    let changes = lowering.apply(vec![
        hop(1, None, 0),
        hop(2, Some("10.0.0.2"), 1300),
        hop(3, Some("fe80::2"), 1280),
    ]);
    let actions: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Set(AnyEntry::NexthopEntry(entry)) => entry.action,
            other => panic!("{other:?}"),
        })
        .collect();
    let interface = interface_id(1);
    assert_eq!(
        actions,
        [
            NexthopAction::Attached {
                interface,
                mtu: u16::MAX
            },
            NexthopAction::Via4 {
                interface,
                mtu: 1300,
                gateway: Ipv4Addr::new(10, 0, 0, 2)
            },
            NexthopAction::Via6 {
                interface,
                mtu: 1280,
                gateway: "fe80::2".parse().unwrap()
            },
        ]
    );
}

#[test]
fn a_tunnel_sends_once_its_underlays_next_hop_is_known() {
    let mut lowering = lowering();
    let remote = Ipv4Addr::new(172, 16, 9, 2);
    let tunnel = Encap::Vxlan {
        vni: Vni::new(5001).unwrap(),
        underlay: interface_id(3),
        local: Ipv4Addr::new(172, 16, 0, 1),
        remote,
    };
    let underlay = Encap::Vlan(VlanId::new(7).unwrap());
    let changes = lowering.apply(vec![
        vpc(1, false),
        vpc(2, false),
        NetworkOp::SetInterface(interface(3, 2, underlay)),
        NetworkOp::SetInterface(interface(5, 1, tunnel)),
    ]);
    let texts_of_five = |changes: &[Change]| -> Vec<String> {
        let mut texts = texts(changes);
        texts.retain(|text| text.contains("interface=5") || text.contains("vni="));
        texts
    };
    assert_eq!(
        texts_of_five(&changes),
        [
            "+ classify_vxlan vpc=2 underlay_dst=172.16.0.1 vni=5001",
            "+ punt reason=arp interface=5",
        ]
    );
    assert_eq!(lowering.unresolved()[&interface_id(5)], None, "no way yet");

    let gateway: IpAddr = "172.16.0.254".parse().unwrap();
    lowering.apply(vec![
        NetworkOp::SetNexthop(
            nexthop_id(1),
            Nexthop {
                interface: interface_id(3),
                gateway: Some(gateway),
                mtu: None,
            },
        ),
        NetworkOp::SetRoute(
            vpc_id(2),
            net("172.16.9.0/24"),
            Route::Nexthops(vec![(nexthop_id(1), 1)]),
        ),
    ]);
    assert_eq!(
        lowering.unresolved()[&interface_id(5)],
        Some((interface_id(3), gateway)),
        "the gateway is to be resolved"
    );

    let changes = lowering.apply(vec![NetworkOp::SetNeighbor(
        interface_id(3),
        gateway,
        mac(99),
    )]);
    assert!(lowering.unresolved().is_empty());
    let egress = changes.iter().find_map(|change| match change {
        Change::Set(AnyEntry::EgressInterface(entry)) => Some(entry.action),
        _ => None,
    });
    assert_eq!(
        egress,
        Some(EgressInterfaceAction::Vxlan {
            port: SwitchPort::new(3).unwrap(),
            mac: mac(5),
            mtu: 1500,
            vid: VlanId::new(7),
            id: Vni::new(5001).unwrap(),
            src: Ipv4Addr::new(172, 16, 0, 1),
            dst: remote,
            src_mac: mac(3),
            dst_mac: mac(99),
        })
    );

    // A more specific blackhole: no way any more, and nothing is sent to the old one.
    let hole = NetworkOp::SetRoute(vpc_id(2), net("172.16.9.2/32"), Route::Blackhole);
    let changes = lowering.apply(vec![hole]);
    assert_eq!(texts_of_five(&changes), ["- egress_interface interface=5"]);
    // And back.
    let gone = NetworkOp::RemoveRoute(vpc_id(2), net("172.16.9.2/32"));
    assert_eq!(
        texts_of_five(&lowering.apply(vec![gone])),
        ["+ egress_interface interface=5"]
    );
    // The neighbour fails.
    let failed = NetworkOp::RemoveNeighbor(interface_id(3), gateway);
    assert_eq!(
        texts_of_five(&lowering.apply(vec![failed])),
        ["- egress_interface interface=5"]
    );
}

/// Of several switches each gets what is its own; what leaves by another one's interface goes
/// to the slow path.
#[test]
fn an_interface_of_another_switch_is_reached_by_the_slow_path() {
    let mut lowering = lowering_of(Scope::Of(SwitchIndex::MIN));
    let hop = |n: u16| Nexthop {
        interface: interface_id(n),
        gateway: Some([10, 0, 0, n as u8].into()),
        mtu: None,
    };
    let other = Interface {
        switch: SwitchIndex::of(1),
        ..interface(2, 1, Encap::Untagged)
    };
    let changes = lowering.apply(vec![
        vpc(1, false),
        NetworkOp::SetInterface(interface(1, 1, Encap::Untagged)),
        NetworkOp::SetInterface(other),
        NetworkOp::SetNexthop(nexthop_id(1), hop(1)),
        NetworkOp::SetNexthop(nexthop_id(2), hop(2)),
        NetworkOp::SetNeighbor(interface_id(1), [10, 0, 0, 1].into(), mac(8)),
        NetworkOp::SetNeighbor(interface_id(2), [10, 0, 0, 2].into(), mac(9)),
        NetworkOp::SetRoute(
            vpc_id(1),
            net("10.9.0.0/16"),
            Route::Nexthops(vec![(nexthop_id(1), 1), (nexthop_id(2), 1)]),
        ),
    ]);
    assert_eq!(
        texts(&changes),
        [
            "+ classify_port port=1 outer_vid=none inner_vid=none",
            "+ ecmp group=1 (2 paths)",
            "+ egress_interface interface=1",
            "+ neighbor4 interface=1 address=10.0.0.1",
            "+ nexthop nexthop=1",
            "+ nexthop nexthop=2",
            "+ punt reason=arp interface=1",
            "+ route4 vpc=1 dst=10.9.0.0/16",
        ]
    );
    let action = |n: u32| {
        changes.iter().find_map(|change| match change {
            Change::Set(AnyEntry::NexthopEntry(e)) if e.key.nexthop == nexthop_id(n) => {
                Some(e.action)
            }
            _ => None,
        })
    };
    assert!(matches!(action(1), Some(NexthopAction::Via4 { .. })));
    assert_eq!(action(2), Some(NexthopAction::Unreachable));
    // What was never there is not taken away.
    let gone = NetworkOp::RemoveNeighbor(interface_id(2), [10, 0, 0, 2].into());
    assert_eq!(texts(&lowering.apply(vec![gone])), [""; 0]);
}

/// Without connections the switch decides by routes alone: those that lead into another VPC need
/// a peering that exposes all that they reach.
#[test]
fn a_stateless_vpc_s_routes_cross_only_where_a_peering_allows_all_of_it() {
    let peering = Peering {
        from: vpc_id(1),
        to: vpc_id(2),
        prefixes: vec!["10.2.0.0/16".parse().unwrap()],
    };
    let mut lowering = lowering_with(Scope::All, Some(vec![peering]));
    let hop = |n: u16| Nexthop {
        interface: interface_id(n),
        gateway: None,
        mtu: None,
    };
    let route = |vpc, text, hops: &[u32]| {
        let hops = hops.iter().map(|n| (nexthop_id(*n), 1)).collect();
        NetworkOp::SetRoute(vpc_id(vpc), net(text), Route::Nexthops(hops))
    };
    lowering.apply(vec![
        vpc(1, true),
        vpc(2, true),
        vpc(3, false),
        NetworkOp::SetInterface(interface(1, 1, Encap::Untagged)),
        NetworkOp::SetInterface(interface(2, 2, Encap::Untagged)),
        NetworkOp::SetInterface(interface(3, 3, Encap::Untagged)),
        NetworkOp::SetNexthop(nexthop_id(1), hop(1)),
        NetworkOp::SetNexthop(nexthop_id(2), hop(2)),
        NetworkOp::SetNexthop(nexthop_id(3), hop(3)),
        route(1, "10.1.0.0/16", &[1]),
        route(1, "10.2.3.0/24", &[2]),
        route(1, "10.0.0.0/8", &[2]),
        route(1, "10.2.4.0/24", &[1, 2]),
        route(1, "10.2.5.0/24", &[2, 3]),
        route(2, "10.1.0.0/16", &[1]),
        // It has connections: what has no flow goes to the slow path anyway.
        route(3, "10.2.0.0/16", &[2]),
    ]);
    let crosses = |vpc, text: &str| {
        let key = (vpc_id(vpc), text.parse().unwrap());
        lowering.routes[&key] != Route4Action::Unreachable
    };
    assert!(crosses(1, "10.1.0.0/16"), "its own");
    assert!(crosses(1, "10.2.3.0/24"), "exposed");
    assert!(!crosses(1, "10.0.0.0/8"), "exposed in part");
    assert!(crosses(1, "10.2.4.0/24"));
    assert!(!crosses(1, "10.2.5.0/24"), "one path is not");
    assert!(!crosses(2, "10.1.0.0/16"), "the other way round");
    assert!(crosses(3, "10.2.0.0/16"));
}

/// What the configuration says beside the network may change while it is there.
#[test]
fn other_meters_and_peerings_reach_what_is_there() {
    let mut lab = lowering_with(Scope::All, Some(Vec::new()));
    let (one, two) = (
        interface(1, 1, Encap::Untagged),
        interface(2, 2, Encap::Untagged),
    );
    let nexthop = Nexthop {
        interface: interface_id(2),
        gateway: None,
        mtu: None,
    };
    let route = NetworkOp::SetRoute(vpc_id(1), net("10.2.0.0/16"), {
        Route::Nexthops(vec![(nexthop_id(1), 1)])
    });
    let network = vec![
        vpc(1, true),
        vpc(2, true),
        NetworkOp::SetInterface(one),
        NetworkOp::SetInterface(two),
        NetworkOp::SetNexthop(nexthop_id(1), nexthop),
        route.clone(),
    ];
    let held_back = |changes: &[Change]| {
        let mut routes = changes.iter().filter_map(|change| match change {
            Change::Set(AnyEntry::Route4(route)) => Some(route.action),
            _ => None,
        });
        routes.next() == Some(Route4Action::Unreachable)
    };
    assert!(held_back(&lab.apply(network)));
    let peering = Peering {
        from: vpc_id(1),
        to: vpc_id(2),
        prefixes: Vec::new(),
    };
    let meters = lab.lowering.meters.clone();
    assert_eq!(lab.lowering.configure(meters.clone(), vec![peering]), []);
    assert!(!held_back(&lab.apply(vec![route.clone()])));
    let mut slower = meters;
    slower.iter_mut().for_each(|meter| meter.rate_pps = 7);
    let changes = texts(&lab.lowering.configure(slower, Vec::new()));
    // One for all of each reason, and the interfaces' own of the reason that is per interface.
    let punts = changes.iter().filter(|text| text.starts_with("+ punt"));
    assert_eq!(punts.count(), 4, "{changes:#?}");
    assert!(
        changes.iter().all(|text| text.starts_with('+')),
        "{changes:#?}"
    );
    assert!(held_back(&lab.apply(vec![route])));
}
