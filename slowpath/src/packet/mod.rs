//! Frames as the slow path sees them: a checked view, and rewrites in place.
//!
//! [`Packet::parse`] reads a frame once, checks every length against the bytes that are there,
//! and remembers offsets; [`rewrite`] changes addresses, ports and TTL with incremental
//! checksums. Nothing here copies a payload.

pub mod buffer;
pub mod checksum;
pub mod rewrite;
mod view;

pub use buffer::{PacketBuf, VecBuf};
pub use view::{
    Fragment, MAX_EXTENSION_HEADERS, Packet, PacketError, Segment, TcpFlags, Transport,
};

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of an IPv4 header without options (RFC 791).
pub const IPV4_LEN: usize = 20;
/// Bytes of the IPv6 header (RFC 8200).
pub const IPV6_LEN: usize = 40;
/// Bytes of a TCP header without options (RFC 9293).
pub const TCP_LEN: usize = 20;
/// Bytes of the fixed part of an ICMP or ICMPv6 message.
pub const ICMP_LEN: usize = 8;

/// Ethertypes that the slow path tells apart.
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
}

/// ICMP types (RFC 792) that the slow path tells apart.
pub mod icmp4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 types (RFC 4443, RFC 4861) that the slow path tells apart.
pub mod icmp6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// First of the neighbour discovery types (router solicitation).
    pub const ND_FIRST: u8 = 133;
    /// Last of them (redirect).
    pub const ND_LAST: u8 = 137;
}

/// The ethertype of a frame; `None` when it is shorter than an Ethernet header.
pub fn ethertype_of(frame: &[u8]) -> Option<u16> {
    read_u16(frame, 12)
}

pub(crate) fn read_u16(data: &[u8], at: usize) -> Option<u16> {
    let bytes: &[u8; 2] = data.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}
