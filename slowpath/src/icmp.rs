//! ICMP errors that the gateway sends (RFC 792, RFC 1812, RFC 4443), built in the buffer of
//! the packet that caused them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shunt_p4::flow::proto;
use shunt_p4::{Interface, MacAddr};

use crate::packet::rewrite::{put_u16, set_macs};
use crate::packet::{
    ETHERNET_LEN, Fragment, ICMP_LEN, IPV4_LEN, IPV6_LEN, Packet, PacketBuf, Transport, checksum,
    icmp4, icmp6,
};

/// Longest ICMP error: RFC 1812 section 4.3.2.3.
const MAX_ERROR4: usize = 576;
/// Longest ICMPv6 error: the minimum MTU, RFC 4443 section 2.4 (c).
const MAX_ERROR6: usize = 1280;
const TTL: u8 = 64;
/// Internetwork control: RFC 1812 section 4.3.2.5.
const PRECEDENCE: u8 = 0xc0;

/// What to tell the sender of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// TTL or hop limit used up.
    TimeExceeded,
    /// No route.
    Unreachable,
    /// Not let through by policy.
    Prohibited,
    /// The egress interface takes so many bytes at most.
    TooBig(u16),
}

impl IcmpError {
    /// (type, code, the last two of the header's 4 free bytes).
    fn fields(self, v6: bool) -> (u8, u8, u16) {
        match (self, v6) {
            (IcmpError::TimeExceeded, false) => (icmp4::TIME_EXCEEDED, 0, 0),
            (IcmpError::Unreachable, false) => (icmp4::UNREACHABLE, 0, 0),
            (IcmpError::Prohibited, false) => (icmp4::UNREACHABLE, 13, 0),
            (IcmpError::Prohibited, true) => (icmp6::UNREACHABLE, 1, 0),
            (IcmpError::TooBig(mtu), false) => (icmp4::UNREACHABLE, 4, mtu),
            (IcmpError::TimeExceeded, true) => (icmp6::TIME_EXCEEDED, 0, 0),
            (IcmpError::Unreachable, true) => (icmp6::UNREACHABLE, 0, 0),
            (IcmpError::TooBig(mtu), true) => (icmp6::TOO_BIG, 0, mtu),
        }
    }
}

/// Whether a packet may be answered with an error (RFC 1812 section 4.3.2.7, RFC 4443 section
/// 2.4 (e)): not an error itself, not a later fragment, from one host to one host.
pub fn may_answer(frame: &[u8], packet: &Packet) -> bool {
    let group_frame = frame.first().is_none_or(|byte| byte & 1 == 1);
    let hosts = match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            !is_martian4(src) && !dst.is_multicast() && !dst.is_broadcast()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => !is_martian6(src) && !dst.is_multicast(),
        _ => false,
    };
    let icmp = matches!(packet.proto, proto::ICMP | proto::ICMPV6);
    let echo = matches!(
        packet.transport,
        Transport::EchoRequest { .. } | Transport::EchoReply { .. }
    );
    let later = matches!(packet.fragment, Fragment::Later { .. });
    hosts && !group_frame && !later && (!icmp || echo)
}

/// Whether no host has the address as its source (RFC 1812 section 5.3.7).
pub fn is_martian(src: IpAddr) -> bool {
    match src {
        IpAddr::V4(src) => is_martian4(src),
        IpAddr::V6(src) => is_martian6(src),
    }
}

fn is_martian4(src: Ipv4Addr) -> bool {
    src.octets()[0] == 0 || src.is_loopback() || src.is_multicast() || src.octets()[0] >= 240
}

fn is_martian6(src: Ipv6Addr) -> bool {
    src.is_unspecified() || src.is_loopback() || src.is_multicast()
}

/// Turns the frame that arrived on `interface` into the answer to its sender, to leave by the
/// same interface to the same station. `None`, and the frame is of no use any more, if the
/// interface has no address of the family, or there is no room in front.
#[must_use]
pub fn answer<B: PacketBuf>(
    frame: &mut B,
    packet: &Packet,
    error: IcmpError,
    interface: &Interface,
) -> Option<()> {
    let v6 = packet.is_ipv6();
    let source = source_address(interface, v6)?;
    let station: [u8; 6] = *frame.data().get(6..12)?.first_chunk()?;
    let ethertype: [u8; 2] = *frame.data().get(12..14)?.first_chunk()?;
    let ip_len = if v6 { IPV6_LEN } else { IPV4_LEN };
    let limit = if v6 { MAX_ERROR6 } else { MAX_ERROR4 } - ip_len - ICMP_LEN;
    let quoted = packet.len().min(limit);

    frame.truncate(packet.l3 + quoted);
    frame.strip(packet.l3)?;
    let head = frame.prepend(ETHERNET_LEN + ip_len + ICMP_LEN)?;
    head.fill(0);
    set_macs(head, MacAddr(station), interface.mac)?;
    head.get_mut(12..14)?.copy_from_slice(&ethertype);
    let (_, ip) = head.split_at_mut(ETHERNET_LEN);
    let message = ICMP_LEN + quoted;
    let (ip, icmp) = ip.split_at_mut(ip_len);
    match (source, packet.src) {
        (IpAddr::V4(source), IpAddr::V4(sender)) => {
            ip[0] = 0x45;
            ip[1] = PRECEDENCE;
            put_u16(ip, 2, u16::try_from(ip_len + message).ok()?)?;
            // Whole and not to be cut: its identification means nothing (RFC 6864).
            put_u16(ip, 6, 0x4000)?;
            ip[8] = TTL;
            ip[9] = proto::ICMP;
            ip.get_mut(12..16)?.copy_from_slice(&source.octets());
            ip.get_mut(16..20)?.copy_from_slice(&sender.octets());
            let checksum = checksum::of(ip);
            put_u16(ip, 10, checksum)?;
        }
        (IpAddr::V6(source), IpAddr::V6(sender)) => {
            ip[0] = 0x60;
            put_u16(ip, 4, u16::try_from(message).ok()?)?;
            ip[6] = proto::ICMPV6;
            ip[7] = TTL;
            ip.get_mut(8..24)?.copy_from_slice(&source.octets());
            ip.get_mut(24..40)?.copy_from_slice(&sender.octets());
        }
        _ => return None,
    }
    let (kind, code, parameter) = error.fields(v6);
    icmp[0] = kind;
    icmp[1] = code;
    put_u16(icmp, 6, parameter)?;
    let start = ETHERNET_LEN + ip_len;
    let pseudo = match v6 {
        true => checksum::pseudo_header(
            source,
            packet.src,
            proto::ICMPV6,
            u32::try_from(message).ok()?,
        ),
        false => 0,
    };
    let bytes = frame.data_mut().get_mut(start..)?;
    let checksum = !checksum::fold(pseudo + checksum::sum(bytes));
    put_u16(bytes, 2, checksum)
}

/// The interface's first address of the family; a link-local one only if there is no other.
fn source_address(interface: &Interface, v6: bool) -> Option<IpAddr> {
    let link_local = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    interface
        .addresses
        .iter()
        .map(ipnet::IpNet::addr)
        .filter(|address| address.is_ipv6() == v6)
        .min_by_key(link_local)
}

/// A token bucket: so many a second, and a tenth of a second's worth at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct RateLimit {
    /// Tokens, in 1/10^9.
    credit: u64,
    last_ns: u64,
}

impl RateLimit {
    const TOKEN: u64 = 1_000_000_000;

    /// Whether one more may go now.
    pub(crate) fn allow(&mut self, now_ns: u64, per_second: u32) -> bool {
        let rate = u64::from(per_second);
        let burst = (rate / 10).max(1) * Self::TOKEN;
        let elapsed = now_ns.saturating_sub(self.last_ns);
        self.last_ns = self.last_ns.max(now_ns);
        self.credit = self
            .credit
            .saturating_add(elapsed.saturating_mul(rate))
            .min(burst);
        match self.credit.checked_sub(Self::TOKEN) {
            Some(rest) if rate > 0 => {
                self.credit = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time() {
        let mut limit = RateLimit::default();
        let mut allowed = 0;
        for ms in 1_000..11_000u64 {
            allowed += u32::from(limit.allow(ms * 1_000_000, 100));
        }
        // Ten seconds at 100 a second, and the first burst of 10.
        assert!((1000..=1010).contains(&allowed), "{allowed}");
        assert!(!RateLimit::default().allow(u64::MAX, 0));
    }
}
