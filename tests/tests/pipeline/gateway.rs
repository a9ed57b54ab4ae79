//! The gateway that every test starts from: links of each kind, a VPC each, the same addresses
//! on all of them, and routes to the outside by way of the wan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use shunt_p4::tables::{
    AnyEntry, ClassifyPort, ClassifyPortAction, ClassifyPortKey, ClassifyVxlan,
    ClassifyVxlanAction, ClassifyVxlanKey, EgressInterface, EgressInterfaceAction,
    EgressInterfaceKey, Neighbor4, Neighbor4Action, Neighbor4Key, Neighbor6, Neighbor6Action,
    Neighbor6Key, NexthopAction, NexthopEntry, NexthopKey, Punt, PuntAction, PuntKey, Route4,
    Route4Action, Route4Key, Route6, Route6Action, Route6Key,
};
use shunt_p4::{InterfaceId, MacAddr, NexthopId, PuntReason, SwitchPort, VlanId, Vni, VpcId};

use crate::packet::{Frame, Packet};

/// The host on every link but the wan.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
pub const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
/// The gateway's address on every link but the wan.
pub const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// A server behind the wan.
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80));
pub const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x80));
/// Another one.
pub const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99));
pub const OTHER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x99));
/// The gateway's public address.
pub const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
pub const PUBLIC6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10));

/// The port to the slow path.
pub const SLOW_PATH: u16 = 10;
/// The switch's ports; the last one only shows that everything before has been handled.
pub const PORTS: &[u16] = &[1, 2, 3, 4, SLOW_PATH, MARKER.port];

/// How frames of a link look.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Untagged,
    Vlan(u16),
    Qinq(u16, u16),
    /// VNI, underlay, our end point, the other one.
    Vxlan(u32, &'static Link, Ipv4Addr, Ipv4Addr),
}

/// An interface of the gateway with the host at its other end. Its VPC has its number.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub id: u16,
    pub port: u16,
    pub shape: Shape,
    pub mtu: u16,
    pub stateless: bool,
}

const fn link(id: u16, port: u16, shape: Shape, mtu: u16) -> Link {
    Link {
        id,
        port,
        shape,
        mtu,
        stateless: false,
    }
}

const LOCAL4: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
const REMOTE4: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);

pub const RED: Link = link(1, 1, Shape::Untagged, 1500);
pub const BLUE: Link = link(2, 2, Shape::Vlan(20), 1500);
pub const DOUBLE: Link = link(3, 2, Shape::Qinq(30, 40), 1500);
pub const FABRIC: Link = link(4, 3, Shape::Untagged, 1550);
pub const GREEN: Link = link(5, 3, Shape::Vxlan(5001, &FABRIC, LOCAL4, REMOTE4), 1450);
pub const WAN: Link = link(6, 4, Shape::Untagged, 1400);
pub const TAGGED_FABRIC: Link = link(8, 3, Shape::Vlan(50), 1550);
pub const LIME: Link = link(
    7,
    3,
    Shape::Vxlan(5002, &TAGGED_FABRIC, LOCAL4, REMOTE4),
    1450,
);
pub const STATELESS: Link = Link {
    stateless: true,
    ..link(9, 1, Shape::Vlan(99), 1500)
};
pub const MARKER: Link = link(200, 20, Shape::Untagged, 1500);

/// Every link, underlays before their tunnels.
pub const LINKS: &[Link] = &[
    RED,
    BLUE,
    DOUBLE,
    FABRIC,
    GREEN,
    WAN,
    TAGGED_FABRIC,
    LIME,
    STATELESS,
    MARKER,
];

/// What a link carries: an IP packet between gateway and host, or any frame.
#[derive(Clone, Debug)]
pub enum Carried {
    Packet(Packet),
    Frame(Frame),
}

impl From<&Packet> for Carried {
    fn from(packet: &Packet) -> Self {
        Self::Packet(packet.clone())
    }
}

impl From<&Frame> for Carried {
    fn from(frame: &Frame) -> Self {
        Self::Frame(frame.clone())
    }
}

impl Link {
    pub fn interface(&self) -> InterfaceId {
        InterfaceId::new(self.id).unwrap()
    }

    pub fn vpc(&self) -> VpcId {
        VpcId::new(self.id).unwrap()
    }

    /// The next hop "attached to this link".
    pub fn attached(&self) -> NexthopId {
        NexthopId::new(100 + u32::from(self.id)).unwrap()
    }

    /// The gateway's MAC address.
    pub fn mac(&self) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, self.id as u8])
    }

    /// The host's.
    pub fn host(&self) -> MacAddr {
        MacAddr([2, 0xaa, 0, 0, 0, self.id as u8])
    }

    /// The frame without encapsulation, from the host.
    pub fn inbound(&self, carried: impl Into<Carried>) -> Frame {
        match carried.into() {
            Carried::Packet(it) => {
                Frame::new(self.mac(), self.host(), it.ether_type(), &it.bytes())
            }
            Carried::Frame(frame) => frame,
        }
    }

    /// The frame without encapsulation, to the host.
    pub fn outbound(&self, carried: impl Into<Carried>) -> Frame {
        match carried.into() {
            Carried::Packet(it) => {
                Frame::new(self.host(), self.mac(), it.ether_type(), &it.bytes())
            }
            Carried::Frame(frame) => frame,
        }
    }

    /// The frame as it is on the switch's port, from the host.
    pub fn wire_in(&self, frame: &Frame) -> Vec<u8> {
        match self.shape {
            Shape::Vxlan(vni, underlay, local, remote) => {
                let outer = vxlan(frame, vni, 5555, remote, local);
                underlay.wire_in(&underlay.inbound(&Frame::new(
                    underlay.mac(),
                    underlay.host(),
                    0x0800,
                    &outer,
                )))
            }
            _ => self.tagged(frame),
        }
    }

    /// To the host. `src_port` is a tunnel's UDP source port.
    pub fn wire_out(&self, frame: &Frame, src_port: u16) -> Vec<u8> {
        match self.shape {
            Shape::Vxlan(vni, underlay, local, remote) => {
                let mut outer = vxlan(frame, vni, src_port, local, remote);
                // The switch numbers no packets, and says "don't fragment".
                outer[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
                outer[10..12].copy_from_slice(&[0, 0]);
                let header = etherparse::Ipv4Header::from_slice(&outer).unwrap().0;
                outer[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
                underlay.tagged(&Frame::new(underlay.host(), underlay.mac(), 0x0800, &outer))
            }
            _ => self.tagged(frame),
        }
    }

    fn tagged(&self, frame: &Frame) -> Vec<u8> {
        match self.shape {
            Shape::Vlan(vid) => frame.tagged(&[(0x8100, vid)]),
            Shape::Qinq(outer, inner) => frame.tagged(&[(0x88a8, outer), (0x8100, inner)]),
            Shape::Untagged | Shape::Vxlan(..) => frame.bytes(),
        }
    }

    /// Where a tunnel's UDP source port stands in what leaves the switch.
    pub fn entropy_at(&self) -> Option<usize> {
        match self.shape {
            Shape::Vxlan(_, underlay, ..) => Some(underlay.tagged_len() + 14 + 20),
            _ => None,
        }
    }

    const fn tagged_len(&self) -> usize {
        match self.shape {
            Shape::Vlan(_) => 4,
            Shape::Qinq(..) => 8,
            Shape::Untagged | Shape::Vxlan(..) => 0,
        }
    }
}

/// The underlay's IPv4 packet of a tunnelled frame (RFC 7348).
pub fn vxlan(frame: &Frame, vni: u32, src_port: u16, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    let mut payload = vec![8, 0, 0, 0];
    payload.extend((vni << 8).to_be_bytes());
    payload.extend(frame.bytes());
    crate::packet::udp_without_checksum((src.into(), src_port), (dst.into(), 4789))
        .payload(&payload)
        .bytes()
}

fn vid(value: u16) -> Option<VlanId> {
    VlanId::new(value)
}

fn port(value: u16) -> SwitchPort {
    SwitchPort::new(value).unwrap()
}

fn classify(link: &Link) -> AnyEntry {
    let (interface, vpc, mac) = (link.interface(), link.vpc(), link.mac());
    let stateless = link.stateless;
    let (outer_vid, inner_vid) = match link.shape {
        Shape::Untagged => (None, None),
        Shape::Vlan(outer) => (vid(outer), None),
        Shape::Qinq(outer, inner) => (vid(outer), vid(inner)),
        Shape::Vxlan(vni, underlay, local, _) => {
            let key = ClassifyVxlanKey {
                vpc: underlay.vpc(),
                underlay_dst: local,
                vni: Vni::new(vni).unwrap(),
            };
            let action = ClassifyVxlanAction::SetTunnelInterface {
                interface,
                vpc,
                mac,
                stateless,
            };
            return ClassifyVxlan { key, action }.into();
        }
    };
    let key = ClassifyPortKey {
        port: port(link.port),
        outer_vid,
        inner_vid,
    };
    let action = ClassifyPortAction::SetInterface {
        interface,
        vpc,
        mac,
        stateless,
    };
    ClassifyPort { key, action }.into()
}

fn egress(link: &Link) -> AnyEntry {
    let (port, mac, mtu) = (port(link.port), link.mac(), link.mtu);
    let action = match link.shape {
        Shape::Untagged => EgressInterfaceAction::Untagged { port, mac, mtu },
        Shape::Vlan(outer) => EgressInterfaceAction::Vlan {
            port,
            mac,
            mtu,
            vid: vid(outer).unwrap(),
        },
        Shape::Qinq(outer, inner) => EgressInterfaceAction::Qinq {
            port,
            mac,
            mtu,
            outer: vid(outer).unwrap(),
            inner: vid(inner).unwrap(),
        },
        Shape::Vxlan(vni, underlay, src, dst) => EgressInterfaceAction::Vxlan {
            port,
            mac,
            mtu,
            vid: match underlay.shape {
                Shape::Vlan(outer) => vid(outer),
                _ => None,
            },
            id: Vni::new(vni).unwrap(),
            src,
            dst,
            src_mac: underlay.mac(),
            dst_mac: underlay.host(),
        },
    };
    let key = EgressInterfaceKey {
        interface: link.interface(),
    };
    EgressInterface { key, action }.into()
}

/// A route; `prefix` says by its form which table.
pub fn route(vpc: VpcId, prefix: &str, nexthop: NexthopId) -> AnyEntry {
    match prefix.parse().unwrap() {
        ipnet::IpNet::V4(dst) => Route4 {
            key: Route4Key { vpc, dst },
            action: Route4Action::ToNexthop { nexthop },
        }
        .into(),
        ipnet::IpNet::V6(dst) => Route6 {
            key: Route6Key { vpc, dst },
            action: Route6Action::ToNexthop { nexthop },
        }
        .into(),
    }
}

/// A route to anything.
pub fn route4(vpc: VpcId, prefix: &str, action: Route4Action) -> Route4 {
    let dst = prefix.parse().unwrap();
    Route4 {
        key: Route4Key { vpc, dst },
        action,
    }
}

/// A neighbour on a link.
pub fn neighbor(link: &Link, address: IpAddr, mac: MacAddr) -> AnyEntry {
    let interface = link.interface();
    match address {
        IpAddr::V4(address) => Neighbor4 {
            key: Neighbor4Key { interface, address },
            action: Neighbor4Action::SetNeighbor { mac },
        }
        .into(),
        IpAddr::V6(address) => Neighbor6 {
            key: Neighbor6Key { interface, address },
            action: Neighbor6Action::SetNeighbor { mac },
        }
        .into(),
    }
}

/// A next hop.
pub fn nexthop(id: u32, action: NexthopAction) -> NexthopEntry {
    let nexthop = NexthopId::new(id).unwrap();
    NexthopEntry {
        key: NexthopKey { nexthop },
        action,
    }
}

/// The entry that sends a reason to the slow path.
pub fn punt(reason: PuntReason) -> Punt {
    Punt {
        key: PuntKey {
            reason,
            interface: None,
        },
        priority: NonZeroU16::MIN,
        action: PuntAction::ToSlowPath {
            port: port(SLOW_PATH),
        },
        meter: None,
    }
}

/// The next hops behind the wan: by an IPv4 gateway, and by an IPv6 one.
pub const VIA4: u32 = 206;
pub const VIA6: u32 = 306;
/// The MTU of a route that says nothing of it.
pub const NO_MTU: u16 = u16::MAX;

/// What the controller writes when it starts and the kernel has its routes.
pub fn entries() -> Vec<AnyEntry> {
    let mut entries: Vec<AnyEntry> = Vec::new();
    for link in LINKS {
        entries.extend([classify(link), egress(link)]);
    }
    let key = ClassifyPortKey {
        port: port(SLOW_PATH),
        outer_vid: None,
        inner_vid: None,
    };
    let action = ClassifyPortAction::FromSlowPath;
    entries.push(ClassifyPort { key, action }.into());
    entries.extend(PuntReason::ALL.iter().map(|&reason| punt(reason).into()));

    let interface = WAN.interface();
    let gateway4 = Ipv4Addr::new(203, 0, 113, 2);
    let gateway6 = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 6);
    let (via4, via6) = (NexthopId::new(VIA4).unwrap(), NexthopId::new(VIA6).unwrap());
    let action = NexthopAction::Via4 {
        interface,
        mtu: NO_MTU,
        gateway: gateway4,
    };
    entries.push(nexthop(VIA4, action).into());
    let action = NexthopAction::Via6 {
        interface,
        mtu: NO_MTU,
        gateway: gateway6,
    };
    entries.push(nexthop(VIA6, action).into());
    entries.push(neighbor(&WAN, gateway4.into(), WAN.host()));
    entries.push(neighbor(&WAN, gateway6.into(), WAN.host()));
    for link in LINKS {
        let interface = link.interface();
        let mtu = NO_MTU;
        let attached = NexthopAction::Attached { interface, mtu };
        entries.push(nexthop(link.attached().get(), attached).into());
    }
    for link in [RED, BLUE, DOUBLE, GREEN, LIME, STATELESS] {
        entries.push(neighbor(&link, CLIENT, link.host()));
        entries.push(neighbor(&link, CLIENT6, link.host()));
        entries.push(route(link.vpc(), "10.0.0.0/24", link.attached()));
        entries.push(route(link.vpc(), "2001:db8::/64", link.attached()));
        entries.push(route(link.vpc(), "0.0.0.0/0", via4));
        entries.push(route(link.vpc(), "2001:db8:ffff::/48", via6));
    }
    entries
}
