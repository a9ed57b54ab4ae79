//! A frame in one line, read by etherparse: nothing of the crate describes itself.

use std::fmt::Write as _;
use std::net::IpAddr;

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header,
    TcpHeader, UdpHeader,
};

const ETHERNET: usize = 14;

pub fn frame(bytes: &[u8]) -> String {
    ip(&bytes[ETHERNET..])
}

/// Of an IP header.
struct Ip {
    src: IpAddr,
    dst: IpAddr,
    proto: IpNumber,
    /// For checksums.
    v4: Option<Ipv4Header>,
    v6: Option<Ipv6Header>,
    /// Offset in bytes, and whether more follow.
    fragment: Option<(u16, bool)>,
}

/// A packet; a quoted one may be cut, and then its checksum is of the whole one.
fn ip(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (ip, payload, whole) = if bytes[0] >> 4 == 4 {
        let (header, rest) = Ipv4Header::from_slice(bytes).unwrap();
        let end = usize::from(header.total_len) - header.header_len();
        let sum = header.header_checksum == header.calc_header_checksum();
        let _ = write!(text, "ttl {} len {}", header.time_to_live, header.total_len);
        text += if header.dont_fragment { " DF" } else { "" };
        text += if sum { "" } else { " HEADER SUM WRONG" };
        let fragment = header
            .is_fragmenting_payload()
            .then(|| (header.fragment_offset.byte_offset(), header.more_fragments));
        if fragment.is_some() {
            let _ = write!(text, " id {}", header.identification);
        }
        let ip = Ip {
            src: header.source.into(),
            dst: header.destination.into(),
            proto: header.protocol,
            v4: Some(header),
            v6: None,
            fragment,
        };
        (ip, &rest[..end.min(rest.len())], rest.len() >= end)
    } else {
        let (header, rest) = Ipv6Header::from_slice(bytes).unwrap();
        let end = usize::from(header.payload_length);
        let _ = write!(text, "hop limit {} len {}", header.hop_limit, 40 + end);
        let whole = rest.len() >= end;
        let mut rest = &rest[..end.min(rest.len())];
        let (mut proto, mut fragment) = (header.next_header, None);
        if proto == IpNumber::IPV6_FRAGMENTATION_HEADER {
            let field = u16::from_be_bytes([rest[2], rest[3]]);
            let id = u32::from_be_bytes(rest[4..8].try_into().unwrap());
            let _ = write!(text, " id {id}");
            fragment = Some((field & 0xfff8, field & 1 == 1));
            proto = IpNumber(rest[0]);
            rest = &rest[8..];
        }
        let ip = Ip {
            src: header.source.into(),
            dst: header.destination.into(),
            proto,
            v4: None,
            v6: Some(header),
            fragment,
        };
        (ip, rest, whole)
    };
    if let Some((offset, more)) = ip.fragment {
        let last = if more { "" } else { ", the last" };
        let _ = write!(text, " fragment at {offset}{last}");
        if offset > 0 {
            return format!("{} > {} {text}", ip.src, ip.dst);
        }
    }
    // The sum of a part is that of the whole.
    let judged = whole && ip.fragment.is_none();
    format!("{} {text}", transport(&ip, payload, judged))
}

fn end(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

fn sum(judged: bool, found: u16, wanted: impl FnOnce() -> u16) -> &'static str {
    match judged {
        false => "",
        true if found == wanted() => " sum ok",
        true => " SUM WRONG",
    }
}

fn transport(ip: &Ip, payload: &[u8], judged: bool) -> String {
    match ip.proto {
        IpNumber::TCP if payload.len() >= 20 => {
            let (tcp, data) = TcpHeader::from_slice(payload).unwrap();
            let flags = [
                (tcp.syn, 'S'),
                (tcp.fin, 'F'),
                (tcp.rst, 'R'),
                (tcp.ack, 'A'),
            ];
            let flags: String = flags
                .iter()
                .filter(|(set, _)| *set)
                .map(|(_, c)| c)
                .collect();
            let sum = sum(judged, tcp.checksum, || match (&ip.v4, &ip.v6) {
                (Some(ip), _) => tcp.calc_checksum_ipv4(ip, data).unwrap(),
                (_, Some(ip)) => tcp.calc_checksum_ipv6(ip, data).unwrap(),
                _ => unreachable!(),
            });
            let (from, to) = (
                end(ip.src, tcp.source_port),
                end(ip.dst, tcp.destination_port),
            );
            format!("{from} > {to} tcp {flags} seq {}{sum}", tcp.sequence_number)
        }
        IpNumber::UDP if payload.len() >= 8 => {
            let (udp, data) = UdpHeader::from_slice(payload).unwrap();
            let sum = match udp.checksum {
                0 => " sum none",
                found => sum(judged, found, || match (&ip.v4, &ip.v6) {
                    (Some(ip), _) => udp.calc_checksum_ipv4(ip, data).unwrap(),
                    (_, Some(ip)) => udp.calc_checksum_ipv6(ip, data).unwrap(),
                    _ => unreachable!(),
                }),
            };
            let (from, to) = (
                end(ip.src, udp.source_port),
                end(ip.dst, udp.destination_port),
            );
            format!("{from} > {to} udp{sum}")
        }
        IpNumber::ICMP if payload.len() >= 8 => {
            let (icmp, data) = Icmpv4Header::from_slice(payload).unwrap();
            let sum = sum(judged, icmp.checksum, || icmp.icmp_type.calc_checksum(data));
            let what = match icmp.icmp_type {
                Icmpv4Type::EchoRequest(echo) => format!("echo request id {}", echo.id),
                Icmpv4Type::EchoReply(echo) => format!("echo reply id {}", echo.id),
                _ => error(payload, data),
            };
            format!("{} > {} icmp {what}{sum}", ip.src, ip.dst)
        }
        IpNumber::IPV6_ICMP if payload.len() >= 8 => {
            let (icmp, data) = Icmpv6Header::from_slice(payload).unwrap();
            let header = ip.v6.as_ref().unwrap();
            let sum = sum(judged, icmp.checksum, || {
                let kind = &icmp.icmp_type;
                kind.calc_checksum(header.source, header.destination, data)
                    .unwrap()
            });
            let what = match icmp.icmp_type {
                Icmpv6Type::EchoRequest(echo) => format!("echo request id {}", echo.id),
                Icmpv6Type::EchoReply(echo) => format!("echo reply id {}", echo.id),
                _ => error(payload, data),
            };
            format!("{} > {} icmp6 {what}{sum}", ip.src, ip.dst)
        }
        other => format!("{} > {} protocol {}", ip.src, ip.dst, other.0),
    }
}

fn error(payload: &[u8], quoted: &[u8]) -> String {
    let value = u32::from_be_bytes(payload[4..8].try_into().unwrap());
    let value = match value {
        0 => String::new(),
        mtu => format!(" mtu {mtu}"),
    };
    format!(
        "type {} code {}{value} about [{}]",
        payload[0],
        payload[1],
        ip(quoted)
    )
}
