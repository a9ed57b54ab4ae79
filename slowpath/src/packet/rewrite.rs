//! Changes to a parsed packet, in place, checksums updated by the difference (RFC 1624).

use std::net::IpAddr;

use shunt_p4::flow::proto;
use shunt_p4::{MacAddr, Tuple};

use super::checksum::{self, Delta};
use super::{Fragment, Packet, Transport, read_u16};

/// Where the checksum lies in each transport header.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;
/// Where the checksum lies in the IPv4 header.
const IPV4_CHECKSUM: usize = 10;

/// Turns the packet's tuple `from` into `to`: addresses, ports or echo identifier, and all
/// checksums that cover them. A UDP checksum of zero stays (RFC 768). Of a quoted packet, a
/// checksum that was cut off is left out.
///
/// `None`, with the frame in an unknown state, if `packet` was not parsed from this frame, or
/// the tuples are of another family.
#[must_use]
pub fn translate(frame: &mut [u8], packet: &Packet, from: &Tuple, to: &Tuple) -> Option<()> {
    let addresses = addresses(frame, packet, to.src, to.dst)?;
    let ports = Delta::default()
        .word(from.src_port, to.src_port)
        .word(from.dst_port, to.dst_port);
    let l4 = frame.get_mut(packet.l4..packet.end)?;
    match packet.transport {
        Transport::Tcp { .. } => {
            put_u16(l4, 0, to.src_port)?;
            put_u16(l4, 2, to.dst_port)?;
            update(l4, TCP_CHECKSUM, ports.and(addresses));
        }
        Transport::Udp { .. } => {
            put_u16(l4, 0, to.src_port)?;
            put_u16(l4, 2, to.dst_port)?;
            if read_u16(l4, UDP_CHECKSUM).is_some_and(|checksum| checksum != 0) {
                update(l4, UDP_CHECKSUM, ports.and(addresses));
                if read_u16(l4, UDP_CHECKSUM) == Some(0) {
                    put_u16(l4, UDP_CHECKSUM, 0xffff)?;
                }
            }
        }
        Transport::EchoRequest { .. } => {
            put_u16(l4, 4, to.src_port)?;
            echo_checksum(l4, packet, ports, addresses);
        }
        Transport::EchoReply { .. } => {
            put_u16(l4, 4, to.dst_port)?;
            echo_checksum(l4, packet, ports, addresses);
        }
        // Ports and checksum went with the first fragment.
        _ if matches!(packet.fragment, Fragment::Later { .. }) => {}
        _ => return None,
    }
    Some(())
}

/// ICMPv6 has a pseudo header, ICMP has none.
fn echo_checksum(l4: &mut [u8], packet: &Packet, id: Delta, addresses: Delta) {
    let delta = if packet.is_ipv6() {
        id.and(addresses)
    } else {
        id
    };
    update(l4, ICMP_CHECKSUM, delta);
}

/// Writes both addresses, and says how a checksum with a pseudo header changes.
/// `None` as for [`translate`].
#[must_use]
pub fn addresses(frame: &mut [u8], packet: &Packet, src: IpAddr, dst: IpAddr) -> Option<Delta> {
    let delta = Delta::default()
        .address(packet.src, src)
        .address(packet.dst, dst);
    let l3 = frame.get_mut(packet.l3..packet.end)?;
    match (packet.is_ipv6(), src, dst) {
        (false, IpAddr::V4(src), IpAddr::V4(dst)) => {
            l3.get_mut(12..16)?.copy_from_slice(&src.octets());
            l3.get_mut(16..20)?.copy_from_slice(&dst.octets());
            update(l3, IPV4_CHECKSUM, delta);
        }
        (true, IpAddr::V6(src), IpAddr::V6(dst)) => {
            l3.get_mut(8..24)?.copy_from_slice(&src.octets());
            l3.get_mut(24..40)?.copy_from_slice(&dst.octets());
        }
        _ => return None,
    }
    Some(delta)
}

/// Takes one from the TTL or hop limit, which must not be 0.
pub fn decrement_ttl(frame: &mut [u8], packet: &Packet) -> Option<()> {
    let l3 = frame.get_mut(packet.l3..packet.end)?;
    if packet.is_ipv6() {
        let hop_limit = l3.get_mut(7)?;
        *hop_limit = hop_limit.checked_sub(1)?;
    } else {
        let old = read_u16(l3, 8)?;
        let new = old.checked_sub(0x0100)?;
        put_u16(l3, 8, new)?;
        update(l3, IPV4_CHECKSUM, Delta::default().word(old, new));
    }
    Some(())
}

/// Writes both Ethernet addresses.
pub fn set_macs(frame: &mut [u8], dst: MacAddr, src: MacAddr) -> Option<()> {
    frame.get_mut(..6)?.copy_from_slice(&dst.0);
    frame.get_mut(6..12)?.copy_from_slice(&src.0);
    Some(())
}

/// The checksum of the packet's whole ICMP or ICMPv6 message: 0 when the one in it is right.
pub fn icmp_checksum(frame: &[u8], packet: &Packet) -> Option<u16> {
    let message = frame.get(packet.l4..packet.end)?;
    let pseudo = match (packet.src, packet.dst) {
        (IpAddr::V6(_), IpAddr::V6(_)) => {
            let len = u32::try_from(message.len()).ok()?;
            checksum::pseudo_header(packet.src, packet.dst, proto::ICMPV6, len)
        }
        _ => 0,
    };
    Some(!checksum::fold(pseudo + checksum::sum(message)))
}

/// Writes the checksum of the packet's ICMP message anew; `src` and `dst` are what the IP
/// header says by now.
pub fn write_icmp_checksum(
    frame: &mut [u8],
    packet: &Packet,
    src: IpAddr,
    dst: IpAddr,
) -> Option<()> {
    put_u16(frame.get_mut(packet.l4..packet.end)?, ICMP_CHECKSUM, 0)?;
    let now = Packet {
        src,
        dst,
        ..*packet
    };
    let checksum = icmp_checksum(frame, &now)?;
    put_u16(
        frame.get_mut(packet.l4..packet.end)?,
        ICMP_CHECKSUM,
        checksum,
    )
}

fn update(bytes: &mut [u8], at: usize, delta: Delta) {
    if let Some(old) = read_u16(bytes, at) {
        // It was just read there.
        let _ = put_u16(bytes, at, delta.apply(old));
    }
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    bytes
        .get_mut(at..at.checked_add(2)?)?
        .copy_from_slice(&value.to_be_bytes());
    Some(())
}
