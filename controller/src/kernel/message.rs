//! What the kernel says, as plain values: links, addresses, neighbours, next-hop objects, routes.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};

use ipnet::IpNet;
use netlink_packet_route::{AddressFamily, route};
use shunt_p4::MacAddr;

/// `IFF_UP`.
pub(crate) const IFF_UP: u32 = 0x1;
/// `IFF_LOWER_UP`: there is a carrier.
pub(crate) const IFF_LOWER_UP: u32 = 0x1_0000;
/// `RTNH_F_DEAD`: the device is down.
pub(crate) const RTNH_F_DEAD: u32 = 1;
/// `RTNH_F_LINKDOWN`: the device has no carrier.
pub(crate) const RTNH_F_LINKDOWN: u32 = 16;

/// States of a neighbour (`NUD_*`).
pub(crate) const NUD_REACHABLE: u16 = 0x02;
pub(crate) const NUD_STALE: u16 = 0x04;
pub(crate) const NUD_DELAY: u16 = 0x08;
pub(crate) const NUD_PROBE: u16 = 0x10;
pub(crate) const NUD_NOARP: u16 = 0x40;
pub(crate) const NUD_PERMANENT: u16 = 0x80;
/// `NTF_EXT_LEARNED`: kept by a control plane.
pub(crate) const NTF_EXT_LEARNED: u8 = 0x10;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) flags: u32,
    /// Largest IP packet, bytes; 0: not told.
    pub(crate) mtu: u32,
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

impl From<route::RouteType> for RouteType {
    fn from(kind: route::RouteType) -> Self {
        match kind {
            route::RouteType::Unicast => Self::Unicast,
            route::RouteType::Local => Self::Local,
            route::RouteType::Broadcast => Self::Broadcast,
            route::RouteType::Anycast => Self::Anycast,
            route::RouteType::Multicast => Self::Multicast,
            route::RouteType::BlackHole => Self::Blackhole,
            route::RouteType::Unreachable => Self::Unreachable,
            route::RouteType::Prohibit => Self::Prohibit,
            route::RouteType::Throw => Self::Throw,
            _ => Self::Other,
        }
    }
}

impl RouteType {
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
    pub(crate) nexthop: Option<NonZeroU32>,
    /// Largest IP packet. The kernel forwards no larger one, whether it is locked or not
    /// (`ip_dst_mtu_maybe_forward`; `ip6_forward` and, where it is not locked, `ip6_fragment`).
    pub(crate) mtu: Option<NonZeroU16>,
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
        family: AddressFamily,
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
