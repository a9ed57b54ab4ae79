//! The smallest gateway that forwards an established IPv4 NAT flow: two interfaces, a next hop
//! with its neighbour, a default route.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use etherparse::PacketBuilder;
use shunt_p4::tables::{
    AnyEntry, ClassifyPort, ClassifyPortAction, ClassifyPortKey, EgressInterface,
    EgressInterfaceAction, EgressInterfaceKey, Neighbor4, Neighbor4Action, Neighbor4Key,
    NexthopAction, NexthopEntry, NexthopKey, Route4, Route4Action, Route4Key,
};
use shunt_p4::{FlowAction, FlowEntry, FlowKey, InterfaceId, MacAddr, NexthopId, Tuple, VpcId};

use super::report::BenchError;

/// The port that packets come in at.
pub(crate) const INSIDE: u16 = 1;
/// The port that they leave by.
pub(crate) const OUTSIDE: u16 = 2;

/// The clients' network, 10.0.0.0/8, and the address that they are translated to.
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const NEXT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const TCP: u8 = 6;
/// Long enough that no entry is idle while it is measured.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn missing(what: &str) -> BenchError {
    BenchError::failed(format!("{what} is out of range"))
}

/// What the controller writes before there is any flow.
pub(crate) fn entries() -> Result<Vec<AnyEntry>, BenchError> {
    let port = |value| shunt_p4::SwitchPort::new(value).ok_or_else(|| missing("port"));
    let interface = |value| InterfaceId::new(value).ok_or_else(|| missing("interface"));
    let vpc = vpc()?;
    let nexthop = NexthopId::new(1).ok_or_else(|| missing("next hop"))?;
    let mut entries: Vec<AnyEntry> = Vec::new();
    for (at, own) in [(INSIDE, mac(1)), (OUTSIDE, mac(2))] {
        let key = ClassifyPortKey {
            port: port(at)?,
            outer_vid: None,
            inner_vid: None,
        };
        let action = ClassifyPortAction::SetInterface {
            interface: interface(at)?,
            vpc,
            mac: own,
            stateless: false,
        };
        entries.push(ClassifyPort { key, action }.into());
        let key = EgressInterfaceKey {
            interface: interface(at)?,
        };
        let action = EgressInterfaceAction::Untagged {
            port: port(at)?,
            mac: own,
            mtu: 1500,
        };
        entries.push(EgressInterface { key, action }.into());
    }
    let outside = interface(OUTSIDE)?;
    let key = NexthopKey { nexthop };
    let action = NexthopAction::Via4 {
        interface: outside,
        mtu: u16::MAX,
        gateway: NEXT,
    };
    entries.push(NexthopEntry { key, action }.into());
    let key = Neighbor4Key {
        interface: outside,
        address: NEXT,
    };
    let action = Neighbor4Action::SetNeighbor { mac: mac(9) };
    entries.push(Neighbor4 { key, action }.into());
    let any = ipnet::Ipv4Net::default();
    let key = Route4Key { vpc, dst: any };
    let action = Route4Action::ToNexthop { nexthop };
    entries.push(Route4 { key, action }.into());
    Ok(entries)
}

fn vpc() -> Result<VpcId, BenchError> {
    VpcId::new(1).ok_or_else(|| missing("VPC"))
}

fn client(number: u32) -> Ipv4Addr {
    // 10.0.0.0/8 has room for 2^24 of them.
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() | (number & 0x00ff_ffff))
}

/// The flow of this number: a client of its own, translated to a public address and port.
pub(crate) fn flow(number: u32) -> Result<FlowEntry, BenchError> {
    let vpc = vpc()?;
    let port = 1024 + (number % 60_000) as u16;
    Ok(FlowEntry {
        key: FlowKey {
            vpc,
            tuple: Tuple {
                src: client(number).into(),
                dst: SERVER.into(),
                proto: TCP,
                src_port: port,
                dst_port: 443,
            },
        },
        action: FlowAction {
            vpc,
            src: Some((IpAddr::V4(PUBLIC), port)),
            dst: None,
        },
        idle_timeout: IDLE_TIMEOUT,
    })
}

/// A packet of that flow, as it comes in at [`INSIDE`].
pub(crate) fn frame(number: u32) -> Result<Vec<u8>, BenchError> {
    let port = flow(number)?.key.tuple.src_port;
    segment(mac(7), mac(1), (client(number), port), 64)
}

/// The same packet as it leaves by [`OUTSIDE`].
pub(crate) fn translated(number: u32) -> Result<Vec<u8>, BenchError> {
    let port = flow(number)?.key.tuple.src_port;
    segment(mac(2), mac(9), (PUBLIC, port), 63)
}

/// 64 bytes, as they are handed to a port.
fn segment(
    src: MacAddr,
    dst: MacAddr,
    from: (Ipv4Addr, u16),
    ttl: u8,
) -> Result<Vec<u8>, BenchError> {
    let builder = PacketBuilder::ethernet2(src.0, dst.0)
        .ipv4(from.0.octets(), SERVER.octets(), ttl)
        .tcp(from.1, 443, 1000, 65_000)
        .ack(2000);
    let payload = [0x5a; 10];
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder
        .write(&mut frame, &payload)
        .map_err(BenchError::failed)?;
    Ok(frame)
}
