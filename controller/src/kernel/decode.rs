//! From what the kernel sends to [`Message`]: read by `netlink-packet-route`, and taken from
//! its types what the mirror needs. Next-hop objects alone have a codec of their own.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU16, NonZeroU32};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{
    DefaultNla, NLM_F_APPEND, NLM_F_REPLACE, Nla as _, NlaBuffer, NlasIterator, Parseable as _,
    ParseableParametrized as _,
};
use netlink_packet_route::link::{LinkAttribute, LinkHeader, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage,
    RouteMetric, RouteNextHop, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use shunt_p4::MacAddr;

use super::message::{LinkInfo, Message, NeighborInfo, Path, Placement, RouteInfo};
use super::nexthop_message::{self, RTM_DELNEXTHOP, RTM_NEWNEXTHOP};
use super::wire::Frame;

/// The kinds that are read (`RTM_*`).
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;

/// Attributes of links, and of routes' metrics.
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const RTAX_MTU: u16 = 2;

/// Bytes before the attributes of links (`struct ifinfomsg`) and of routes (`struct rtmsg`).
const LINK_HEADER_LEN: usize = 16;
const ROUTE_HEADER_LEN: usize = 12;

/// Parses one message; `None` when it is cut short or contradicts itself.
pub(crate) fn parse(frame: &Frame<'_>) -> Option<Message> {
    let family = AddressFamily::from(frame.payload.first().copied().unwrap_or_default());
    match frame.kind {
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => return nexthop_message::parse(frame),
        RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => {}
        // A bridge's entries and multicast routing have the same kinds.
        RTM_NEWNEIGH | RTM_DELNEIGH | RTM_NEWROUTE | RTM_DELROUTE
            if matches!(family, AddressFamily::Inet | AddressFamily::Inet6) => {}
        RTM_NEWNEIGH | RTM_DELNEIGH | RTM_NEWROUTE | RTM_DELROUTE if !frame.payload.is_empty() => {
            return Some(Message::Ignored);
        }
        RTM_NEWNEIGH | RTM_DELNEIGH | RTM_NEWROUTE | RTM_DELROUTE => return None,
        _ => return Some(Message::Ignored),
    }
    let read = RouteNetlinkMessage::parse_with_param(frame.payload, frame.kind);
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::debug!(%error, "reading only what is needed");
            needed(frame)?
        }
    };
    match read {
        RouteNetlinkMessage::NewLink(message) => Some(Message::NewLink(link(message))),
        RouteNetlinkMessage::DelLink(message) => Some(Message::DelLink(link(message))),
        RouteNetlinkMessage::NewAddress(message) => Some(Message::Address {
            removed: false,
            family: message.header.family,
        }),
        RouteNetlinkMessage::DelAddress(message) => Some(Message::Address {
            removed: true,
            family: message.header.family,
        }),
        RouteNetlinkMessage::NewNeighbour(message) => neighbor(message, Message::NewNeighbor),
        RouteNetlinkMessage::DelNeighbour(message) => neighbor(message, Message::DelNeighbor),
        RouteNetlinkMessage::NewRoute(message) => {
            let placement = placement(frame.flags);
            route(message, |info| Message::NewRoute(info, placement))
        }
        RouteNetlinkMessage::DelRoute(message) => route(message, Message::DelRoute),
        _ => Some(Message::Ignored),
    }
}

/// Reads a link or a route once more, without the attributes that the mirror has no use for:
/// one that a newer kernel made longer must not hide the whole message.
fn needed(frame: &Frame<'_>) -> Option<RouteNetlinkMessage> {
    const LINK: [u16; 2] = [IFLA_IFNAME, IFLA_MTU];
    /// `RTA_*`: what [`route`] and [`path_attribute`] look at, an encapsulation by its type.
    const ROUTE: [u16; 11] = [1, 4, 5, 6, 7, 9, 11, 15, 18, 21, 30];
    const RTA_METRICS: u16 = 8;
    match frame.kind {
        RTM_NEWLINK | RTM_DELLINK => {
            let mut message = LinkMessage::default();
            message.header = LinkHeader::parse(frame.payload).ok()?;
            let family = message.header.interface_family;
            for attribute in NlasIterator::new(frame.payload.get(LINK_HEADER_LEN..)?) {
                let attribute = attribute.ok()?;
                if LINK.contains(&attribute.kind()) {
                    let read = LinkAttribute::parse_with_param(&attribute, family);
                    message.attributes.push(read.ok()?);
                }
            }
            Some(match frame.kind {
                RTM_NEWLINK => RouteNetlinkMessage::NewLink(message),
                _ => RouteNetlinkMessage::DelLink(message),
            })
        }
        RTM_NEWROUTE | RTM_DELROUTE => {
            let mut message = RouteMessage::default();
            message.header = RouteHeader::parse(frame.payload).ok()?;
            let header = &message.header;
            let about = (header.address_family, header.kind, RouteLwEnCapType::None);
            for attribute in NlasIterator::new(frame.payload.get(ROUTE_HEADER_LEN..)?) {
                let attribute = attribute.ok()?;
                if attribute.kind() == RTA_METRICS {
                    let metrics = NlasIterator::new(attribute.value())
                        .map(|metric| metric.ok().and_then(|metric| one_metric(&metric)));
                    let metrics = metrics.collect::<Option<_>>()?;
                    message.attributes.push(RouteAttribute::Metrics(metrics));
                } else if ROUTE.contains(&attribute.kind()) {
                    let read = RouteAttribute::parse_with_param(&attribute, about);
                    message.attributes.push(read.ok()?);
                }
            }
            Some(match frame.kind {
                RTM_NEWROUTE => RouteNetlinkMessage::NewRoute(message),
                _ => RouteNetlinkMessage::DelRoute(message),
            })
        }
        _ => None,
    }
}

/// A metric; one that `netlink-packet-route` takes for a number but is none (the name of a
/// congestion control) as it is.
fn one_metric(metric: &NlaBuffer<&[u8]>) -> Option<RouteMetric> {
    match RouteMetric::parse(metric) {
        Ok(metric) => Some(metric),
        Err(_) if metric.kind() == RTAX_MTU => None,
        Err(_) => DefaultNla::parse(metric).ok().map(RouteMetric::Other),
    }
}

/// MAC address and MTU of a link's message, which only a tap's owner asks for.
pub(crate) fn link_settings(frame: &Frame<'_>) -> Option<(MacAddr, u32)> {
    const IFLA_ADDRESS: u16 = 1;
    let (mut mac, mut mtu) = (None, None);
    for attribute in NlasIterator::new(frame.payload.get(LINK_HEADER_LEN..)?) {
        let attribute = attribute.ok()?;
        match attribute.kind() {
            IFLA_ADDRESS => mac = attribute.value().try_into().ok().map(MacAddr),
            IFLA_MTU => mtu = attribute.value().try_into().ok().map(u32::from_ne_bytes),
            _ => {}
        }
    }
    Some((mac?, mtu?))
}

fn link(message: LinkMessage) -> LinkInfo {
    let mut info = LinkInfo {
        index: message.header.index,
        name: String::new(),
        flags: message.header.flags.bits(),
        mtu: 0,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => info.name = name,
            LinkAttribute::Mtu(mtu) => info.mtu = mtu,
            _ => {}
        }
    }
    info
}

fn neighbor(
    message: NeighbourMessage,
    wrap: impl FnOnce(NeighborInfo) -> Message,
) -> Option<Message> {
    // An address that the kernel answers for.
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return Some(Message::Ignored);
    }
    let (mut to, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => to = Some(v4.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => to = Some(v6.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(MacAddr),
            _ => {}
        }
    }
    Some(wrap(NeighborInfo {
        index: message.header.ifindex,
        address: to?,
        state: message.header.state.into(),
        flags: message.header.flags.bits(),
        mac,
    }))
}

fn placement(flags: u16) -> Placement {
    if flags & NLM_F_REPLACE != 0 {
        Placement::Replace
    } else if flags & NLM_F_APPEND != 0 {
        Placement::Last
    } else {
        Placement::First
    }
}

fn route(message: RouteMessage, wrap: impl FnOnce(RouteInfo) -> Message) -> Option<Message> {
    let header = message.header;
    // A cached exception is no route; and source-specific ones have no place in a table that
    // looks at destinations.
    if header.flags.contains(RouteFlags::Cloned) || header.source_prefix_length > 0 {
        return Some(Message::Ignored);
    }
    let mut destination: IpAddr = if header.address_family == AddressFamily::Inet {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let mut info = RouteInfo {
        table: header.table.into(),
        prefix: IpNet::default(),
        tos: header.tos,
        metric: 0,
        kind: header.kind.into(),
        protocol: header.protocol.into(),
        nexthop: None,
        mtu: None,
        extras: 0,
        paths: Vec::new(),
    };
    let mut extras = DefaultHasher::new();
    extras.write_u8(header.scope.into());
    let mut single = Path {
        index: 0,
        gateway: None,
        weight: 1,
        flags: header.flags.bits() & 0xff,
        encapsulated: false,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = address(to)?,
            RouteAttribute::Priority(metric) => info.metric = *metric,
            RouteAttribute::MultiPath(hops) => {
                info.paths = hops.iter().map(multipath).collect::<Option<_>>()?;
            }
            RouteAttribute::Table(table) => info.table = *table,
            RouteAttribute::NhId(id) => info.nexthop = NonZeroU32::new(*id),
            RouteAttribute::PrefSource(_)
            | RouteAttribute::Metrics(_)
            | RouteAttribute::Realm(_) => {
                if let RouteAttribute::Metrics(metrics) = attribute {
                    info.mtu = metrics.iter().find_map(mtu);
                }
                let mut value = vec![0; attribute.value_len()];
                attribute.emit_value(&mut value);
                (attribute.kind(), value).hash(&mut extras);
            }
            _ => path_attribute(&mut single, attribute)?,
        }
    }
    let len = header.destination_prefix_length;
    info.prefix = match destination {
        IpAddr::V4(v4) => Ipv4Net::new(v4, len).ok()?.trunc().into(),
        IpAddr::V6(v6) => Ipv6Net::new(v6, len).ok()?.trunc().into(),
    };
    if info.paths.is_empty() && single.index != 0 {
        info.paths.push(single);
    }
    info.extras = extras.finish();
    Some(wrap(info))
}

/// What a route lets through; the kernel keeps it below 65,521 (`ip_metrics_convert`). Of the other
/// metrics none concerns a packet that is forwarded: `advmss` and its like are for the host's own
/// TCP.
fn mtu(metric: &RouteMetric) -> Option<NonZeroU16> {
    match metric {
        RouteMetric::Mtu(mtu) => NonZeroU16::new(u16::try_from(*mtu).unwrap_or(u16::MAX)),
        _ => None,
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn path_attribute(path: &mut Path, attribute: &RouteAttribute) -> Option<()> {
    match attribute {
        RouteAttribute::Oif(index) => path.index = *index,
        RouteAttribute::Gateway(gateway) => path.gateway = Some(address(gateway)?),
        RouteAttribute::Via(RouteVia::Inet(v4)) => path.gateway = Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => path.gateway = Some((*v6).into()),
        RouteAttribute::Via(_) => return None,
        RouteAttribute::EncapType(kind) => path.encapsulated = *kind != RouteLwEnCapType::None,
        _ => {}
    }
    Some(())
}

fn multipath(hop: &RouteNextHop) -> Option<Path> {
    let mut path = Path {
        index: hop.interface_index,
        gateway: None,
        weight: u32::from(hop.hops) + 1,
        flags: hop.flags.bits().into(),
        encapsulated: false,
    };
    for attribute in &hop.attributes {
        path_attribute(&mut path, attribute)?;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{DefaultNla, Emitable as _, NLA_F_NESTED};
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes, it is read or refused.
        #[test]
        fn any_bytes_are_read_or_refused(
            kind in 16u16..110,
            flags: u16,
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let frame = Frame { kind, flags, sequence: 0, payload: &payload };
            let _ = parse(&frame);
        }

        /// Nor does any attribute of the right outer shape, however deep its reader looks.
        #[test]
        fn any_attributes_are_read_or_refused(
            kind in prop::sample::select(vec![
                RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH, RTM_NEWNEXTHOP,
            ]),
            family in prop::sample::select(vec![0u8, 2, 7, 10]),
            header in prop::collection::vec(any::<u8>(), 7..=15),
            attributes in prop::collection::vec(
                (0u16..70, any::<bool>(), prop::collection::vec(0u8..40, 0..48)), 0..5,
            ),
        ) {
            let mut payload = vec![family];
            payload.extend(&header);
            payload.resize(match kind {
                RTM_NEWADDR | RTM_NEWNEXTHOP => 8,
                RTM_NEWLINK => 16,
                _ => 12,
            }, 0);
            for (kind, nested, value) in attributes {
                let kind = kind | if nested { NLA_F_NESTED } else { 0 };
                let attribute = DefaultNla::new(kind, value);
                let at = payload.len();
                payload.resize(at + attribute.buffer_len(), 0);
                attribute.emit(&mut payload[at..]);
            }
            let frame = Frame { kind, flags: 0, sequence: 0, payload: &payload };
            let _ = parse(&frame);
        }
    }

    /// A route's message with these attributes, as the kernel sends it.
    fn read(attributes: &[(u16, &[u8])]) -> Option<Message> {
        let mut payload = vec![2, 24, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0];
        for &(kind, value) in attributes {
            let attribute = DefaultNla::new(kind, value.to_vec());
            let at = payload.len();
            payload.resize(at + attribute.buffer_len(), 0);
            attribute.emit(&mut payload[at..]);
        }
        parse(&Frame {
            kind: RTM_NEWROUTE,
            flags: NLM_F_REPLACE,
            sequence: 1,
            payload: &payload,
        })
    }

    #[test]
    fn a_multipath_route_through_an_ipv6_gateway() {
        // ip route add 198.51.100.0/24 table 300 metric 7 \
        //   nexthop via 10.0.0.2 dev if4 weight 3 nexthop via inet6 fe80::2 dev if5
        let mut hops = Vec::new();
        hops.extend([16, 0, 0, 2, 4, 0, 0, 0]);
        hops.extend([8, 0, 5, 0, 10, 0, 0, 2]);
        hops.extend([32, 0, 0, 0, 5, 0, 0, 0]);
        hops.extend([22, 0, 18, 0, 10, 0]);
        hops.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2).octets());
        hops.extend([0, 0]);
        let (table, metric) = (300u32.to_ne_bytes(), 7u32.to_ne_bytes());
        let read = read(&[
            (1, &[198, 51, 100, 0]),
            (15, &table),
            (6, &metric),
            (9, &hops),
        ]);
        let Some(Message::NewRoute(info, placement)) = read else {
            panic!("not a route");
        };
        assert_eq!(placement, Placement::Replace);
        assert_eq!((info.table, info.metric, info.protocol), (300, 7, 4));
        assert_eq!(info.prefix.to_string(), "198.51.100.0/24");
        let paths: Vec<_> = info
            .paths
            .iter()
            .map(|path| (path.index, path.gateway.unwrap().to_string(), path.weight))
            .collect();
        assert_eq!(paths, [(4, "10.0.0.2".into(), 3), (5, "fe80::2".into(), 1)]);
    }

    /// Regression: `congctl`, which is a word among numbers, made a route unreadable.
    #[test]
    fn a_route_says_what_fits() {
        let metric = |kind: u16, value: &[u8]| {
            let metric = DefaultNla::new(kind, value.to_vec());
            let mut bytes = vec![0; metric.buffer_len()];
            metric.emit(&mut bytes);
            bytes
        };
        let number = |kind, value: u32| metric(kind, &value.to_ne_bytes());
        let (lock, advmss) = (number(1, 1 << 2), number(8, 1000));
        let limit = |metrics: &[Vec<u8>]| {
            let (to, device): (&[u8], &[u8]) = (&[198, 51, 100, 0], &4u32.to_ne_bytes());
            match read(&[(1, to), (4, device), (8, &metrics.concat())]) {
                Some(Message::NewRoute(info, _)) => {
                    Some((info.mtu.map(NonZeroU16::get), info.extras))
                }
                _ => None,
            }
        };
        let of = |metrics: &[Vec<u8>]| limit(metrics).and_then(|(mtu, _)| mtu);
        // ip route add … mtu 1300; mtu lock 1300 advmss 1000; advmss 1000
        assert_eq!(of(&[number(2, 1300)]), Some(1300));
        assert_eq!(of(&[lock, number(2, 1300), advmss.clone()]), Some(1300));
        assert_eq!(of(std::slice::from_ref(&advmss)), None);
        // ip route add … mtu 1300 congctl reno
        let named = [number(2, 1300), metric(16, b"reno\0")];
        assert_eq!(of(&named), Some(1300));
        // All of it makes another route of it, and an MTU cannot be half there.
        assert_ne!(limit(&named), limit(&[number(2, 1300)]));
        assert_eq!(limit(&[metric(2, &[5, 20]), metric(16, b"reno\0")]), None);
    }

    #[test]
    fn what_is_needed_must_be_whole_and_the_rest_need_not_be() {
        let (to, device): (&[u8], &[u8]) = (&[198, 51, 100, 0], &4u32.to_ne_bytes());
        let Some(Message::NewRoute(whole, _)) = read(&[(1, to), (4, device)]) else {
            panic!("not a route");
        };
        // RTA_UID and RTA_ENCAP are too short here; RTA_ENCAP_TYPE says seg6.
        let odd = read(&[(1, to), (25, &[1]), (4, device), (22, &[1]), (21, &[5, 0])]);
        let Some(Message::NewRoute(odd, _)) = odd else {
            panic!("not a route");
        };
        assert!(odd.paths[0].encapsulated);
        assert_eq!((odd.prefix, odd.extras), (whole.prefix, whole.extras));
        for cut in [
            (1, &to[..3]),
            (4, &device[..2]),
            (6, &[1][..]),
            (9, &[1; 7]),
        ] {
            assert_eq!(read(&[cut]), None, "{cut:?}");
        }
    }
}
