//! VRF devices, from messages as the kernel sends them where it has such devices: a tap that is
//! enslaved to one has its addresses and routes in the VRF's table, which is its VPC's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::link::{
    InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVrf, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use shunt_p4::{InterfaceId, NetworkOp, Nexthop, Route, VpcId};

use super::decode::parse;
use super::state::State;
use super::wire::{frames, request};

const TABLE: u32 = 101;
/// The kernel's numbers: of the VRF device, of the tap in it, and of a VRF that is no VPC's.
const VRF: u32 = 7;
const TAP: u32 = 8;
const OTHER_VRF: u32 = 9;

fn hear(state: &mut State, message: RouteNetlinkMessage) {
    let bytes = request(message, 0, 1);
    for frame in frames(&bytes) {
        state.apply(parse(&frame.unwrap()).unwrap());
    }
}

fn device(index: u32, name: &str, info: Vec<LinkInfo>) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
    message.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Mtu(1500),
        LinkAttribute::LinkInfo(info),
    ];
    RouteNetlinkMessage::NewLink(message)
}

fn vrf(index: u32, name: &str, table: u32) -> RouteNetlinkMessage {
    let data = InfoData::Vrf(vec![InfoVrf::TableId(table)]);
    let info = vec![LinkInfo::Kind(InfoKind::Vrf), LinkInfo::Data(data)];
    device(index, name, info)
}

/// A tap in the VRF.
fn port() -> RouteNetlinkMessage {
    let data = InfoPortData::VrfPort(vec![InfoVrf::TableId(TABLE)]);
    let info = vec![
        LinkInfo::Kind(InfoKind::Tun),
        LinkInfo::PortKind(InfoPortKind::Vrf),
        LinkInfo::PortData(data),
    ];
    let mut message = device(TAP, "sh-red", info);
    if let RouteNetlinkMessage::NewLink(link) = &mut message {
        link.attributes.push(LinkAttribute::Controller(VRF));
    }
    message
}

fn route(
    kind: RouteType,
    prefix: &str,
    device: Option<u32>,
    gateway: Option<&str>,
) -> RouteMessage {
    let prefix: ipnet::IpNet = prefix.parse().unwrap();
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.destination_prefix_length = prefix.prefix_len();
    header.table = TABLE as u8;
    header.kind = kind;
    header.protocol = RouteProtocol::Kernel;
    header.scope = match kind {
        RouteType::Local => RouteScope::Host,
        _ => RouteScope::Link,
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(TABLE));
    match prefix.network() {
        IpAddr::V4(network) => {
            header.address_family = AddressFamily::Inet;
            attributes.push(RouteAttribute::Destination(network.into()));
        }
        IpAddr::V6(network) => {
            header.address_family = AddressFamily::Inet6;
            attributes.push(RouteAttribute::Destination(network.into()));
        }
    }
    attributes.extend(device.map(RouteAttribute::Oif));
    let v4 = |text: &str| text.parse::<Ipv4Addr>().map(Into::into);
    let v6 = |text: &str| text.parse::<Ipv6Addr>().map(Into::into);
    let gateway = gateway.map(|text| v4(text).or_else(|_| v6(text)).unwrap());
    attributes.extend(gateway.map(RouteAttribute::Gateway));
    message
}

#[test]
fn a_tap_in_a_vrf_device() {
    let interface = InterfaceId::new(1).unwrap();
    let vpc = VpcId::new(1).unwrap();
    let mut state = State::new([(TAP, interface, vpc)], [(vpc, TABLE)]);
    hear(&mut state, vrf(VRF, "vrf-red", TABLE));
    hear(&mut state, vrf(OTHER_VRF, "vrf-mgmt", 500));
    hear(&mut state, port());
    // What `ip route show vrf vrf-red` has: no table 255 here.
    let mut unreachable = route(RouteType::Unreachable, "0.0.0.0/0", None, None);
    let last = RouteAttribute::Priority(4_278_198_272);
    unreachable.attributes.push(last);
    for message in [
        route(RouteType::Local, "10.0.0.1/32", Some(TAP), None),
        route(RouteType::Broadcast, "10.0.0.255/32", Some(TAP), None),
        route(RouteType::Unicast, "10.0.0.0/24", Some(TAP), None),
        // An address of the VRF itself.
        route(RouteType::Local, "10.99.0.1/32", Some(VRF), None),
        route(RouteType::Local, "fd00:a::1/128", Some(TAP), None),
        route(RouteType::Anycast, "fd00:a::/128", Some(TAP), None),
        route(RouteType::Multicast, "ff00::/8", Some(TAP), None),
        route(
            RouteType::Unicast,
            "fd00:b::/64",
            Some(TAP),
            Some("fd00:a::2"),
        ),
        unreachable,
        // Leaked into a VRF that shunt knows nothing of.
        route(RouteType::Unicast, "172.16.0.0/12", Some(OTHER_VRF), None),
    ] {
        hear(&mut state, RouteNetlinkMessage::NewRoute(message));
    }
    let (mut hops, mut routes) = (Vec::new(), Vec::new());
    for op in state.flush(100) {
        match op {
            NetworkOp::SetNexthop(_, hop) => hops.push(hop),
            NetworkOp::SetRoute(of, prefix, route) => {
                assert_eq!(of, vpc);
                let kind = match route {
                    Route::Nexthops(_) => "next hop",
                    Route::Local => "local",
                    Route::Unreachable => "unreachable",
                    Route::Blackhole => "blackhole",
                };
                routes.push((prefix.to_string(), kind));
            }
            other => panic!("{other:?}"),
        }
    }
    routes.sort();
    assert_eq!(
        routes,
        [
            ("0.0.0.0/0", "unreachable"),
            ("10.0.0.0/24", "next hop"),
            ("10.0.0.1/32", "local"),
            ("10.0.0.255/32", "local"),
            ("10.99.0.1/32", "local"),
            ("172.16.0.0/12", "unreachable"),
            ("fd00:a::/128", "local"),
            ("fd00:a::1/128", "local"),
            ("fd00:b::/64", "next hop"),
        ]
        .map(|(prefix, kind)| (prefix.to_owned(), kind))
    );
    let hop = |gateway: Option<&str>| Nexthop {
        interface,
        gateway: gateway.map(|text| text.parse().unwrap()),
        mtu: None,
    };
    hops.sort();
    assert_eq!(hops, [hop(None), hop(Some("fd00:a::2"))]);
    assert_eq!(state.gauges().foreign, 1);

    // Out of the VRF, the device goes down and up, and its addresses are in table 255 again.
    let mut local = route(RouteType::Local, "10.0.0.1/32", Some(TAP), None);
    hear(&mut state, RouteNetlinkMessage::DelRoute(local.clone()));
    assert!(
        state
            .flush(100)
            .contains(&NetworkOp::RemoveRoute(vpc, "10.0.0.1/32".parse().unwrap()))
    );
    local.header.table = 255;
    local
        .attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::Table(_)));
    local.attributes.push(RouteAttribute::Table(255));
    hear(&mut state, RouteNetlinkMessage::NewRoute(local));
    let back = NetworkOp::SetRoute(vpc, "10.0.0.1/32".parse().unwrap(), Route::Local);
    assert_eq!(state.flush(100), [back]);
}
