//! A small gateway for our own program: a link of each kind, a route to the outside, one
//! masqueraded connection.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::Duration;

use p4runtime::p4::v1 as pb;
use shunt_p4::tables::{
    AnyEntry, ClassifyPort, ClassifyPortAction, ClassifyPortKey, ClassifyVxlan,
    ClassifyVxlanAction, ClassifyVxlanKey, EgressInterface, EgressInterfaceAction,
    EgressInterfaceKey, Neighbor4, Neighbor4Action, Neighbor4Key, NexthopAction, NexthopEntry,
    NexthopKey, Punt, PuntAction, PuntKey, Route4, Route4Action, Route4Key, flow_to_entry,
};
use shunt_p4::{
    FlowAction, FlowEntry, FlowKey, InterfaceId, MacAddr, NexthopId, PuntReason, SwitchPort, Tuple,
    VlanId, Vni, VpcId,
};

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const LOCAL: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
/// What is not forwarded goes here.
pub const SLOW_PATH: u16 = 10;

fn mac(interface: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, interface as u8])
}

fn host(interface: u16) -> MacAddr {
    MacAddr([2, 0xaa, 0, 0, 0, interface as u8])
}

fn interface(id: u16) -> InterfaceId {
    InterfaceId::new(id).unwrap()
}

fn vpc(id: u16) -> VpcId {
    VpcId::new(id).unwrap()
}

fn port(port: u16) -> SwitchPort {
    SwitchPort::new(port).unwrap()
}

fn nexthop(id: u32, action: NexthopAction) -> AnyEntry {
    let nexthop = NexthopId::new(id).unwrap();
    NexthopEntry {
        key: NexthopKey { nexthop },
        action,
    }
    .into()
}

fn neighbor(on: u16, address: Ipv4Addr, mac: MacAddr) -> AnyEntry {
    let interface = interface(on);
    Neighbor4 {
        key: Neighbor4Key { interface, address },
        action: Neighbor4Action::SetNeighbor { mac },
    }
    .into()
}

fn route(of: u16, prefix: &str, id: u32) -> AnyEntry {
    let nexthop = NexthopId::new(id).unwrap();
    Route4 {
        key: Route4Key {
            vpc: vpc(of),
            dst: prefix.parse().unwrap(),
        },
        action: Route4Action::ToNexthop { nexthop },
    }
    .into()
}

/// Interfaces: 1 untagged on port 1, 2 with VLAN 20 on port 2, 3 untagged on port 3 below the
/// tunnel 5, 4 the wan on port 4. Each has a VPC of its own number; 4 has no flows of its own.
fn links() -> Vec<AnyEntry> {
    let mut entries = Vec::new();
    for (id, on, vid) in [
        (1, 1, None),
        (2, 2, VlanId::new(20)),
        (3, 3, None),
        (4, 4, None),
    ] {
        let key = ClassifyPortKey {
            port: port(on),
            outer_vid: vid,
            inner_vid: None,
        };
        let action = ClassifyPortAction::SetInterface {
            interface: interface(id),
            vpc: vpc(id),
            mac: mac(id),
            stateless: false,
        };
        entries.push(ClassifyPort { key, action }.into());
        let (port, mac, mtu) = (port(on), mac(id), 1500);
        let action = match vid {
            Some(vid) => EgressInterfaceAction::Vlan {
                port,
                mac,
                mtu,
                vid,
            },
            None => EgressInterfaceAction::Untagged { port, mac, mtu },
        };
        let interface = interface(id);
        let key = EgressInterfaceKey { interface };
        entries.push(EgressInterface { key, action }.into());
    }
    let vni = Vni::new(5001).unwrap();
    let key = ClassifyVxlanKey {
        vpc: vpc(3),
        underlay_dst: LOCAL,
        vni,
    };
    let action = ClassifyVxlanAction::SetTunnelInterface {
        interface: interface(5),
        vpc: vpc(5),
        mac: mac(5),
        stateless: true,
    };
    entries.push(ClassifyVxlan { key, action }.into());
    let key = EgressInterfaceKey {
        interface: interface(5),
    };
    let action = EgressInterfaceAction::Vxlan {
        port: port(3),
        mac: mac(5),
        mtu: 1450,
        vid: None,
        id: vni,
        src: LOCAL,
        dst: REMOTE,
        src_mac: mac(3),
        dst_mac: host(3),
    };
    entries.push(EgressInterface { key, action }.into());
    let key = ClassifyPortKey {
        port: port(SLOW_PATH),
        outer_vid: None,
        inner_vid: None,
    };
    let action = ClassifyPortAction::FromSlowPath;
    entries.push(ClassifyPort { key, action }.into());
    entries
}

fn flow(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), of: u16, action: FlowAction) -> pb::TableEntry {
    let tuple = Tuple {
        src: src.0.into(),
        dst: dst.0.into(),
        proto: 17,
        src_port: src.1,
        dst_port: dst.1,
    };
    let key = FlowKey {
        vpc: vpc(of),
        tuple,
    };
    flow_to_entry(&FlowEntry {
        key,
        action,
        idle_timeout: Duration::ZERO,
    })
    .unwrap()
}

/// The updates that set the gateway up.
pub fn updates() -> Vec<pb::Update> {
    let mut entries = links();
    for &reason in PuntReason::ALL {
        let key = PuntKey {
            reason,
            interface: None,
        };
        let action = PuntAction::ToSlowPath {
            port: port(SLOW_PATH),
        };
        entries.push(
            Punt {
                key,
                priority: NonZeroU16::MIN,
                action,
                meter: None,
            }
            .into(),
        );
    }
    let gateway = Ipv4Addr::new(203, 0, 113, 2);
    let wan = interface(4);
    entries.push(nexthop(
        10,
        NexthopAction::Via4 {
            interface: wan,
            mtu: u16::MAX,
            gateway,
        },
    ));
    entries.push(neighbor(4, gateway, host(4)));
    for id in [1, 2, 5] {
        let attached = u32::from(id) + 100;
        let interface = interface(id);
        let mtu = u16::MAX;
        let action = NexthopAction::Attached { interface, mtu };
        entries.push(nexthop(attached, action));
        entries.push(neighbor(id, CLIENT, host(id)));
        entries.push(route(id, "10.0.0.0/24", attached));
        entries.push(route(id, "0.0.0.0/0", 10));
    }
    let vpc = vpc(1);
    let out = FlowAction {
        vpc,
        src: Some((PUBLIC.into(), 5000)),
        dst: None,
    };
    let back = FlowAction {
        vpc,
        src: None,
        dst: Some((CLIENT.into(), 1234)),
    };
    let flows = [
        flow((CLIENT, 1234), (SERVER, 80), 1, out),
        flow((SERVER, 80), (PUBLIC, 5000), 4, back),
    ];
    let entries = entries.iter().map(AnyEntry::to_entry);
    let update = |entry| pb::Update {
        r#type: pb::update::Type::Insert.into(),
        entity: Some(pb::Entity {
            entity: Some(pb::entity::Entity::TableEntry(entry)),
        }),
    };
    entries.chain(flows).map(update).collect()
}

/// An Ethernet frame with an IPv4 UDP datagram, checksums right.
pub fn udp(link: u16, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), ttl: u8) -> Vec<u8> {
    let sum = |bytes: &[u8], from: u32| {
        let words = bytes.chunks(2);
        let sum: u32 = from
            + words
                .map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)))
                .sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        !((folded & 0xffff) + (folded >> 16)) as u16
    };
    let mut udp = Vec::new();
    udp.extend(src.1.to_be_bytes());
    udp.extend(dst.1.to_be_bytes());
    udp.extend([0, 13, 0, 0]);
    udp.extend(b"hello");
    let addresses = [src.0.octets(), dst.0.octets()].concat();
    let pseudo = !sum(&addresses, 17 + 13);
    let checksum = sum(&udp, u32::from(pseudo));
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    let mut ip = vec![0x45, 0, 0, 33, 0, 0, 0x40, 0, ttl, 17, 0, 0];
    ip.extend(addresses);
    let checksum = sum(&ip, 0);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = mac(link).0.to_vec();
    frame.extend(host(link).0);
    frame.extend([8, 0]);
    frame.extend(ip);
    frame.extend(udp);
    frame
}
