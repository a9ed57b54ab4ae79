//! What the kernel says, as plain values: links, addresses, neighbours, next-hop objects, routes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use shunt_p4::MacAddr;

use super::wire::{self, Frame, address, attributes, u8_at, u16_at, u32_at};

/// `IFF_UP`.
pub(crate) const IFF_UP: u32 = 0x1;
/// `IFF_LOWER_UP`: there is a carrier.
pub(crate) const IFF_LOWER_UP: u32 = 0x1_0000;
/// `RTNH_F_DEAD`: the device is down.
pub(crate) const RTNH_F_DEAD: u32 = 1;
/// `RTNH_F_LINKDOWN`: the device has no carrier.
pub(crate) const RTNH_F_LINKDOWN: u32 = 16;
/// `RTM_F_CLONED`: a cached exception, not a route.
const RTM_F_CLONED: u32 = 0x200;

/// States of a neighbour (`NUD_*`).
pub(crate) const NUD_REACHABLE: u16 = 0x02;
pub(crate) const NUD_STALE: u16 = 0x04;
pub(crate) const NUD_DELAY: u16 = 0x08;
pub(crate) const NUD_PROBE: u16 = 0x10;
pub(crate) const NUD_NOARP: u16 = 0x40;
pub(crate) const NUD_PERMANENT: u16 = 0x80;
/// `NTF_EXT_LEARNED`: kept by a control plane.
pub(crate) const NTF_EXT_LEARNED: u8 = 0x10;
/// `NTF_PROXY`: an address that the kernel answers for.
const NTF_PROXY: u8 = 0x08;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) flags: u32,
}

/// A neighbour (ARP or ND entry).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NeighborInfo {
    pub(crate) index: u32,
    pub(crate) address: IpAddr,
    pub(crate) state: u16,
    pub(crate) flags: u8,
    pub(crate) mac: Option<MacAddr>,
}

/// One way of a route or of a next-hop object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Path {
    pub(crate) index: u32,
    pub(crate) gateway: Option<IpAddr>,
    /// 1 or more.
    pub(crate) weight: u32,
    /// `RTNH_F_*`.
    pub(crate) flags: u32,
    /// Has a lightweight tunnel (MPLS, segment routing), which shunt cannot do.
    pub(crate) encapsulated: bool,
}

/// What a next-hop object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NexthopKind {
    Path(Path),
    /// Ids of other objects with their weights.
    Group(Vec<(u32, u32)>),
    Blackhole,
}

/// A next-hop object (`ip nexthop`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NexthopInfo {
    pub(crate) id: u32,
    pub(crate) kind: NexthopKind,
}

/// The kernel's type of a route (`RTN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RouteType {
    Unicast,
    Local,
    Broadcast,
    Anycast,
    Multicast,
    Blackhole,
    Unreachable,
    Prohibit,
    Throw,
    Other,
}

impl RouteType {
    fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Unicast,
            2 => Self::Local,
            3 => Self::Broadcast,
            4 => Self::Anycast,
            5 => Self::Multicast,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            8 => Self::Prohibit,
            9 => Self::Throw,
            _ => Self::Other,
        }
    }

    /// As `ip route` prints it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Local => "local",
            Self::Broadcast => "broadcast",
            Self::Anycast => "anycast",
            Self::Multicast => "multicast",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
            Self::Throw => "throw",
            Self::Other => "other",
        }
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteInfo {
    pub(crate) table: u32,
    pub(crate) prefix: IpNet,
    pub(crate) tos: u8,
    pub(crate) metric: u32,
    pub(crate) kind: RouteType,
    pub(crate) protocol: u8,
    pub(crate) nexthop: Option<u32>,
    /// What else makes it another route than one that leads the same way: scope, preferred
    /// source, metrics, realm; hashed.
    pub(crate) extras: u64,
    pub(crate) paths: Vec<Path>,
}

/// How a message about a route places it among those of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Before the others of its metric (`ip route add`, `prepend`).
    First,
    /// Behind them (`append`).
    Last,
    /// In the place of the first of them (`replace`).
    Replace,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    NewLink(LinkInfo),
    DelLink(LinkInfo),
    /// An address came or went. Going takes routes with it without a word.
    Address {
        removed: bool,
        family: u8,
    },
    NewNeighbor(NeighborInfo),
    DelNeighbor(NeighborInfo),
    NewNexthop(NexthopInfo),
    DelNexthop(u32),
    NewRoute(RouteInfo, Placement),
    DelRoute(RouteInfo),
    /// Of no interest: another family, a cached route, a bridge's entry.
    Ignored,
}

/// Parses one message; `None` when it is cut short or contradicts itself.
pub(crate) fn parse(frame: &Frame<'_>) -> Option<Message> {
    match frame.kind {
        wire::RTM_NEWLINK => link(frame.payload).map(Message::NewLink),
        wire::RTM_DELLINK => link(frame.payload).map(Message::DelLink),
        wire::RTM_NEWADDR | wire::RTM_DELADDR => Some(Message::Address {
            removed: frame.kind == wire::RTM_DELADDR,
            family: u8_at(frame.payload, 0)?,
        }),
        wire::RTM_NEWNEIGH | wire::RTM_DELNEIGH => neighbor(frame),
        wire::RTM_NEWNEXTHOP | wire::RTM_DELNEXTHOP => nexthop(frame),
        wire::RTM_NEWROUTE | wire::RTM_DELROUTE => route(frame),
        _ => Some(Message::Ignored),
    }
}

fn link(payload: &[u8]) -> Option<LinkInfo> {
    let name = attributes(payload.get(16..)?)
        .find(|&(kind, _)| kind == IFLA_IFNAME)
        .map(|(_, value)| text(value))
        .unwrap_or_default();
    Some(LinkInfo {
        index: u32_at(payload, 4)?,
        name,
        flags: u32_at(payload, 8)?,
    })
}

/// `IFLA_IFNAME`.
const IFLA_IFNAME: u16 = 3;

/// Text ended by a zero byte.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or(value)).into_owned()
}

fn neighbor(frame: &Frame<'_>) -> Option<Message> {
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    let payload = frame.payload;
    let family = u8_at(payload, 0)?;
    let flags = u8_at(payload, 10)?;
    if !matches!(family, wire::AF_INET | wire::AF_INET6) || flags & NTF_PROXY != 0 {
        return Some(Message::Ignored);
    }
    let (mut to, mut mac) = (None, None);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            NDA_DST => to = address(value),
            NDA_LLADDR => mac = value.try_into().ok().map(MacAddr),
            _ => {}
        }
    }
    let info = NeighborInfo {
        index: u32_at(payload, 4)?,
        address: to?,
        state: u16_at(payload, 8)?,
        flags,
        mac,
    };
    Some(if frame.kind == wire::RTM_NEWNEIGH {
        Message::NewNeighbor(info)
    } else {
        Message::DelNeighbor(info)
    })
}

fn nexthop(frame: &Frame<'_>) -> Option<Message> {
    const NHA_ID: u16 = 1;
    const NHA_GROUP: u16 = 2;
    const NHA_BLACKHOLE: u16 = 4;
    const NHA_OIF: u16 = 5;
    const NHA_GATEWAY: u16 = 6;
    const NHA_ENCAP_TYPE: u16 = 7;
    const NHA_FDB: u16 = 11;
    let payload = frame.payload;
    let mut id = None;
    let mut group = None;
    let mut blackhole = false;
    let mut path = Path {
        index: 0,
        gateway: None,
        weight: 1,
        flags: u32_at(payload, 4)?,
        encapsulated: false,
    };
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            NHA_ID => id = u32_at(value, 0),
            NHA_GROUP => {
                let members = value.chunks_exact(8).filter_map(|member| {
                    let low = u32::from(u8_at(member, 4)?);
                    let high = u32::from(u8_at(member, 5)?);
                    Some((u32_at(member, 0)?, (high << 8 | low) + 1))
                });
                group = Some(members.collect());
            }
            NHA_BLACKHOLE => blackhole = true,
            NHA_OIF => path.index = u32_at(value, 0)?,
            NHA_GATEWAY => path.gateway = Some(address(value)?),
            NHA_ENCAP_TYPE => path.encapsulated = u16_at(value, 0)? != 0,
            NHA_FDB => return Some(Message::Ignored),
            _ => {}
        }
    }
    let id = id?;
    if frame.kind == wire::RTM_DELNEXTHOP {
        return Some(Message::DelNexthop(id));
    }
    let kind = match group {
        Some(members) => NexthopKind::Group(members),
        None if blackhole => NexthopKind::Blackhole,
        None => NexthopKind::Path(path),
    };
    Some(Message::NewNexthop(NexthopInfo { id, kind }))
}

/// Attributes of routes and of their paths (`RTA_*`).
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_FLOW: u16 = 11;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_NH_ID: u16 = 30;

fn route(frame: &Frame<'_>) -> Option<Message> {
    let payload = frame.payload;
    let (family, dst_len, src_len) = (u8_at(payload, 0)?, u8_at(payload, 1)?, u8_at(payload, 2)?);
    let flags = u32_at(payload, 8)?;
    // Source-specific routes (src_len) have no place in a table that looks at destinations.
    if !matches!(family, wire::AF_INET | wire::AF_INET6) || flags & RTM_F_CLONED != 0 || src_len > 0
    {
        return Some(Message::Ignored);
    }
    let mut destination: IpAddr = if family == wire::AF_INET {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let mut info = RouteInfo {
        table: u8_at(payload, 4)?.into(),
        prefix: IpNet::default(),
        tos: u8_at(payload, 3)?,
        metric: 0,
        kind: RouteType::from_u8(u8_at(payload, 7)?),
        protocol: u8_at(payload, 5)?,
        nexthop: None,
        extras: 0,
        paths: Vec::new(),
    };
    let mut extras = DefaultHasher::new();
    extras.write_u8(u8_at(payload, 6)?);
    let mut single = Path {
        index: 0,
        gateway: None,
        weight: 1,
        flags: flags & 0xff,
        encapsulated: false,
    };
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            RTA_DST => destination = address(value)?,
            RTA_PRIORITY => info.metric = u32_at(value, 0)?,
            RTA_MULTIPATH => info.paths = multipath(value)?,
            RTA_TABLE => info.table = u32_at(value, 0)?,
            RTA_NH_ID => info.nexthop = Some(u32_at(value, 0)?),
            RTA_PREFSRC | RTA_METRICS | RTA_FLOW => (kind, value).hash(&mut extras),
            _ => path_attribute(&mut single, kind, value)?,
        }
    }
    info.prefix = match destination {
        IpAddr::V4(v4) => Ipv4Net::new(v4, dst_len).ok()?.trunc().into(),
        IpAddr::V6(v6) => Ipv6Net::new(v6, dst_len).ok()?.trunc().into(),
    };
    if info.paths.is_empty() && single.index != 0 {
        info.paths.push(single);
    }
    info.extras = extras.finish();
    if frame.kind == wire::RTM_DELROUTE {
        return Some(Message::DelRoute(info));
    }
    let placement = if frame.flags & wire::NLM_F_REPLACE != 0 {
        Placement::Replace
    } else if frame.flags & wire::NLM_F_APPEND != 0 {
        Placement::Last
    } else {
        Placement::First
    };
    Some(Message::NewRoute(info, placement))
}

fn path_attribute(path: &mut Path, kind: u16, value: &[u8]) -> Option<()> {
    match kind {
        RTA_OIF => path.index = u32_at(value, 0)?,
        RTA_GATEWAY => path.gateway = Some(address(value)?),
        // struct rtvia: the family, then the address.
        RTA_VIA => path.gateway = Some(address(value.get(2..)?)?),
        RTA_ENCAP_TYPE => path.encapsulated = u16_at(value, 0)? != 0,
        _ => {}
    }
    Some(())
}

/// `struct rtnexthop` one behind the other, each with its attributes.
fn multipath(mut bytes: &[u8]) -> Option<Vec<Path>> {
    let mut paths = Vec::new();
    while !bytes.is_empty() {
        let len = usize::from(u16_at(bytes, 0)?);
        let mut path = Path {
            index: u32_at(bytes, 4)?,
            gateway: None,
            weight: u32::from(u8_at(bytes, 3)?) + 1,
            flags: u8_at(bytes, 2)?.into(),
            encapsulated: false,
        };
        for (kind, value) in attributes(bytes.get(8..len)?) {
            path_attribute(&mut path, kind, value)?;
        }
        paths.push(path);
        bytes = bytes.get(wire::align(len)..).unwrap_or(&[]);
    }
    Some(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let fixed = [2, 24, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0];
        let bytes = wire::Request::new(wire::RTM_NEWROUTE, wire::NLM_F_REPLACE, &fixed)
            .attribute(RTA_DST, &[198, 51, 100, 0])
            .u32(RTA_TABLE, 300)
            .u32(RTA_PRIORITY, 7)
            .attribute(RTA_MULTIPATH, &hops)
            .finish(1);
        let frame = wire::frames(&bytes).next().unwrap().unwrap();
        let Some(Message::NewRoute(info, placement)) = parse(&frame) else {
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
}
