//! What the network looks like: interfaces, routes, next hops, neighbours.
//!
//! The configuration and the kernel mirror say it in [`NetworkOp`]s; the same batch of them goes
//! to the workers' tables and, as table entries, to the switch. A batch is in dependency order
//! when it adds (interfaces, next hops, then routes) and in the reverse when it removes.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use ipnet::IpNet;

use crate::types::{InterfaceId, MacAddr, NexthopId, SwitchIndex, SwitchPort, VlanId, Vni, VpcId};

/// How frames of an interface look on the switch port.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Encap {
    /// Untagged.
    Untagged,
    /// One tag (IEEE 802.1Q).
    Vlan(VlanId),
    /// An outer service tag and an inner one (IEEE 802.1ad).
    Qinq {
        /// The tag next to the Ethernet addresses.
        outer: VlanId,
        /// The tag behind it.
        inner: VlanId,
    },
    /// A VXLAN tunnel (RFC 7348) to one remote end point.
    Vxlan {
        /// Network identifier.
        vni: Vni,
        /// The interface that carries the tunnel; gives port, tag and MAC of the underlay.
        underlay: InterfaceId,
        /// Our end point: an address of the underlay interface.
        local: Ipv4Addr,
        /// The peer's end point.
        remote: Ipv4Addr,
    },
}

/// A logical interface of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Interface {
    /// Its number in every table and in frames to and from the switch.
    pub id: InterfaceId,
    /// Its name in the configuration.
    pub name: String,
    /// The VPC that it belongs to.
    pub vpc: VpcId,
    /// The switch that it is on (a tunnel: that of its underlay).
    pub switch: SwitchIndex,
    /// The switch's port (a tunnel's: that of its underlay).
    pub port: SwitchPort,
    /// Tags or tunnel.
    pub encap: Encap,
    /// The gateway's MAC address on it.
    pub mac: MacAddr,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// The gateway's addresses on it, with the prefix of the link.
    pub addresses: Vec<IpNet>,
}

/// A VPC's properties that the packet path needs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Vpc {
    /// Its number.
    pub id: VpcId,
    /// Its name in the configuration.
    pub name: String,
    /// Without connection tracking: routes alone forward.
    pub stateless: bool,
}

/// Where a prefix leads.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Route {
    /// Paths with their weights (1 or more), at least one; more than one is ECMP.
    Nexthops(Vec<(NexthopId, u16)>),
    /// The gateway's own address (also broadcast addresses of its links).
    Local,
    /// Dropped silently.
    Blackhole,
    /// Answered with ICMP destination unreachable (kernel types unreachable and prohibit,
    /// and routes none of whose next hops works).
    Unreachable,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Nexthop {
    /// Egress interface; may belong to another VPC than the route's.
    pub interface: InterfaceId,
    /// The gateway (may be IPv6 for an IPv4 route, RFC 5549); none: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Largest IP packet, bytes, where a route says so (`ip route … mtu`); the interface's own
    /// MTU counts beside it.
    pub mtu: Option<NonZeroU16>,
}

/// One change of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkOp {
    /// Adds or replaces.
    SetVpc(Vpc),
    /// Removes.
    RemoveVpc(VpcId),
    /// Adds or replaces.
    SetInterface(Interface),
    /// Removes.
    RemoveInterface(InterfaceId),
    /// Adds or replaces. An id is never reused for another next hop while a route uses it.
    SetNexthop(NexthopId, Nexthop),
    /// Removes; no route uses it any more.
    RemoveNexthop(NexthopId),
    /// Adds or replaces.
    SetRoute(VpcId, IpNet, Route),
    /// Removes.
    RemoveRoute(VpcId, IpNet),
    /// Adds or replaces.
    SetNeighbor(InterfaceId, IpAddr, MacAddr),
    /// Removes: unknown or failed.
    RemoveNeighbor(InterfaceId, IpAddr),
}
