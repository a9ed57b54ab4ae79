//! A checked view of an IP packet: where its headers are, and what the walk asks of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shunt_p4::Tuple;
use shunt_p4::flow::proto;

use super::{
    ETHERNET_LEN, ICMP_LEN, IPV4_LEN, IPV6_LEN, TCP_LEN, checksum, ethertype, ethertype_of, icmp4,
    icmp6, read_u16,
};

/// Most IPv6 extension headers that are walked to find the transport.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Why a frame is not a packet that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Neither IPv4 nor IPv6.
    #[error("not an IP packet")]
    NotIp,
    /// It ends before a header does, or before the length that a header claims.
    #[error("truncated")]
    Truncated,
    /// A version, header length or total length that no sender may write.
    #[error("a malformed header")]
    Malformed,
    /// The IPv4 header checksum is wrong.
    #[error("a wrong IPv4 header checksum")]
    Checksum,
    /// IPv4 source route option, or IPv6 routing header type 0 (RFC 7126, RFC 5095).
    #[error("a source route")]
    SourceRoute,
    /// More than [`MAX_EXTENSION_HEADERS`].
    #[error("too many IPv6 extension headers")]
    ExtensionHeaders,
}

/// Whether the packet is part of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    No,
    /// The first fragment: it has the transport header.
    First {
        /// What all fragments of its packet share, besides addresses (RFC 791, RFC 8200).
        id: u32,
    },
    /// A later one: it has none.
    Later {
        /// As the first one's.
        id: u32,
    },
}

/// The flags of a TCP segment that connection tracking reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;

    /// No more data from the sender.
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }
    /// Opens a connection.
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }
    /// Aborts the connection.
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }
    /// Acknowledges.
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }
}

/// Where a TCP segment lies in its connection (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; means something only with the ACK flag.
    pub ack: u32,
    /// Window as it is in the header, not scaled.
    pub window: u16,
    /// Bytes of payload.
    pub len: u16,
    /// The SYN flag, which takes a sequence number.
    pub syn: bool,
    /// The FIN flag, which takes one too.
    pub fin: bool,
    /// A SYN's window scale option (RFC 7323).
    pub scale: Option<u8>,
}

impl Segment {
    /// The sequence number behind it.
    pub const fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.len as u32)
            .wrapping_add(self.syn as u32 + self.fin as u32)
    }
}

/// What is behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
        /// Flags.
        flags: TcpFlags,
        /// Sequence numbers; zeros where a quoted packet was cut off.
        segment: Segment,
    },
    /// UDP.
    Udp {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
    },
    /// ICMP or ICMPv6 echo request.
    EchoRequest {
        /// Identifier.
        id: u16,
    },
    /// ICMP or ICMPv6 echo reply.
    EchoReply {
        /// Identifier.
        id: u16,
    },
    /// An ICMP or ICMPv6 error: it quotes the packet that caused it.
    IcmpError,
    /// IPv6 neighbour or router discovery, redirect.
    NeighborDiscovery,
    /// Another ICMP or ICMPv6 type.
    OtherIcmp,
    /// Another protocol, or a fragment.
    Other,
}

/// Offsets and fields of an IP packet inside a frame. Every offset was checked against the
/// bytes that it was made from.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Where the IP header starts.
    pub l3: usize,
    /// Where the transport header starts.
    pub l4: usize,
    /// Where the IP packet ends; bytes behind it are padding.
    pub end: usize,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// IP protocol number of the transport.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4: the bit; IPv6: always.
    pub dont_fragment: bool,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// The transport.
    pub transport: Transport,
}

impl Packet {
    /// Reads the IP packet of an Ethernet frame without tags.
    ///
    /// # Errors
    /// [`PacketError`], see there.
    pub fn parse(frame: &[u8]) -> Result<Self, PacketError> {
        match ethertype_of(frame).ok_or(PacketError::Truncated)? {
            ethertype::IPV4 => ipv4(frame, ETHERNET_LEN, false),
            ethertype::IPV6 => ipv6(frame, ETHERNET_LEN, false),
            _ => Err(PacketError::NotIp),
        }
    }

    /// Reads the start of a packet that an ICMP error of the same family quotes at `l3`. It may
    /// be cut behind the first 8 bytes of its transport header (RFC 792, RFC 4443).
    ///
    /// # Errors
    /// [`PacketError`], see there.
    pub fn parse_quoted(frame: &[u8], l3: usize, v6: bool) -> Result<Self, PacketError> {
        if v6 {
            ipv6(frame, l3, true)
        } else {
            ipv4(frame, l3, true)
        }
    }

    /// Whether it is a part of a packet.
    pub const fn is_fragment(&self) -> bool {
        !matches!(self.fragment, Fragment::No)
    }

    /// Whether it is IPv6.
    pub const fn is_ipv6(&self) -> bool {
        self.src.is_ipv6()
    }

    /// Bytes of the IP packet.
    pub const fn len(&self) -> usize {
        self.end - self.l3
    }

    /// Never: a packet has a header.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Its five-tuple, if its transport can have a flow.
    pub fn tuple(&self) -> Option<Tuple> {
        let (src_port, dst_port) = match self.transport {
            Transport::Tcp {
                src_port, dst_port, ..
            }
            | Transport::Udp { src_port, dst_port } => (src_port, dst_port),
            Transport::EchoRequest { id } => (id, 0),
            Transport::EchoReply { id } => (0, id),
            _ => return None,
        };
        Some(Tuple {
            src: self.src,
            dst: self.dst,
            proto: self.proto,
            src_port,
            dst_port,
        })
    }
}

fn ipv4(frame: &[u8], l3: usize, quoted: bool) -> Result<Packet, PacketError> {
    let bytes = frame.get(l3..).ok_or(PacketError::Truncated)?;
    let head: &[u8; IPV4_LEN] = bytes.first_chunk().ok_or(PacketError::Truncated)?;
    let header_len = usize::from(head[0] & 0x0f) * 4;
    if head[0] >> 4 != 4 || header_len < IPV4_LEN {
        return Err(PacketError::Malformed);
    }
    let header = bytes.get(..header_len).ok_or(PacketError::Truncated)?;
    let total_len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if total_len < header_len {
        return Err(PacketError::Malformed);
    }
    let len = if quoted {
        total_len.min(bytes.len())
    } else {
        total_len
    };
    if len > bytes.len() {
        return Err(PacketError::Truncated);
    }
    if !quoted {
        if checksum::of(header) != 0 {
            return Err(PacketError::Checksum);
        }
        options(header.get(IPV4_LEN..).unwrap_or_default())?;
    }
    let flags = u16::from_be_bytes([head[6], head[7]]);
    let id = u32::from(u16::from_be_bytes([head[4], head[5]]));
    let fragment = match (flags & 0x1fff, flags & 0x2000 != 0) {
        (0, false) => Fragment::No,
        (0, true) => Fragment::First { id },
        // It would overwrite the flags of the first one (RFC 3128).
        (1, _) if head[9] == proto::TCP => return Err(PacketError::Malformed),
        _ => Fragment::Later { id },
    };
    let l4 = l3 + header_len;
    let mut packet = Packet {
        l3,
        l4,
        end: l3 + len,
        src: Ipv4Addr::new(head[12], head[13], head[14], head[15]).into(),
        dst: Ipv4Addr::new(head[16], head[17], head[18], head[19]).into(),
        proto: head[9],
        ttl: head[8],
        dont_fragment: flags & 0x4000 != 0,
        fragment,
        transport: Transport::Other,
    };
    packet.transport = transport(frame, &packet, quoted)?;
    Ok(packet)
}

/// Refuses source routes; the other options travel along unread.
fn options(mut options: &[u8]) -> Result<(), PacketError> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let Some((&kind, rest)) = options.split_first() {
        match kind {
            END => return Ok(()),
            NOP => options = rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(PacketError::SourceRoute),
            _ => {
                let len = usize::from(*rest.first().ok_or(PacketError::Malformed)?);
                if len < 2 {
                    return Err(PacketError::Malformed);
                }
                options = options.get(len..).ok_or(PacketError::Malformed)?;
            }
        }
    }
    Ok(())
}

fn ipv6(frame: &[u8], l3: usize, quoted: bool) -> Result<Packet, PacketError> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;

    let bytes = frame.get(l3..).ok_or(PacketError::Truncated)?;
    let head: &[u8; IPV6_LEN] = bytes.first_chunk().ok_or(PacketError::Truncated)?;
    if head[0] >> 4 != 6 {
        return Err(PacketError::Malformed);
    }
    let total_len = IPV6_LEN + usize::from(u16::from_be_bytes([head[4], head[5]]));
    let len = if quoted {
        total_len.min(bytes.len())
    } else {
        total_len
    };
    let bytes = bytes.get(..len).ok_or(PacketError::Truncated)?;
    let (_, addresses) = head.split_at(8);
    let address = |at: usize| -> Option<Ipv6Addr> {
        let octets: &[u8; 16] = addresses.get(at..)?.first_chunk()?;
        Some(Ipv6Addr::from(*octets))
    };
    let src = address(0).ok_or(PacketError::Truncated)?;
    let dst = address(16).ok_or(PacketError::Truncated)?;

    let mut next = head[6];
    let mut at = IPV6_LEN;
    let mut fragment = Fragment::No;
    let mut headers = 0;
    while matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
        headers += 1;
        if headers > MAX_EXTENSION_HEADERS {
            return Err(PacketError::ExtensionHeaders);
        }
        let header: &[u8; 8] = bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(PacketError::Truncated)?;
        if next == FRAGMENT {
            let field = u16::from_be_bytes([header[2], header[3]]);
            // An atomic fragment (RFC 6946) is a whole packet.
            let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            fragment = match (field >> 3, field & 1 == 1) {
                (0, false) => Fragment::No,
                (0, true) => Fragment::First { id },
                _ => Fragment::Later { id },
            };
            at += 8;
        } else {
            if next == ROUTING && header[2] == 0 && header[3] > 0 {
                return Err(PacketError::SourceRoute);
            }
            at += (usize::from(header[1]) + 1) * 8;
        }
        next = header[0];
        if at > bytes.len() {
            return Err(PacketError::Truncated);
        }
        if matches!(fragment, Fragment::Later { .. }) {
            break;
        }
    }
    let mut packet = Packet {
        l3,
        l4: l3 + at,
        end: l3 + len,
        src: src.into(),
        dst: dst.into(),
        proto: next,
        ttl: head[7],
        dont_fragment: true,
        fragment,
        transport: Transport::Other,
    };
    packet.transport = transport(frame, &packet, quoted)?;
    Ok(packet)
}

fn transport(frame: &[u8], packet: &Packet, quoted: bool) -> Result<Transport, PacketError> {
    // A first fragment's lengths speak of the whole packet.
    let part = match packet.fragment {
        Fragment::No => quoted,
        Fragment::First { .. } => true,
        Fragment::Later { .. } => return Ok(Transport::Other),
    };
    let v6 = packet.is_ipv6();
    let bytes = frame
        .get(packet.l4..packet.end)
        .ok_or(PacketError::Truncated)?;
    let icmp = if v6 { proto::ICMPV6 } else { proto::ICMP };
    match packet.proto {
        proto::TCP | proto::UDP => {}
        other if other == icmp => {}
        _ => return Ok(Transport::Other),
    }
    let head: &[u8; 8] = bytes.first_chunk().ok_or(PacketError::Truncated)?;
    let src_port = u16::from_be_bytes([head[0], head[1]]);
    let dst_port = u16::from_be_bytes([head[2], head[3]]);
    Ok(match packet.proto {
        proto::TCP => {
            let (flags, segment) = match bytes.first_chunk() {
                Some(header) => tcp_header(header, bytes, part)?,
                // Of a fragment that small nothing good is meant (RFC 1858).
                None if quoted => Default::default(),
                None => return Err(PacketError::Truncated),
            };
            Transport::Tcp {
                src_port,
                dst_port,
                flags,
                segment,
            }
        }
        proto::UDP => {
            let len = usize::from(u16::from_be_bytes([head[4], head[5]]));
            if !quoted && len < 8 {
                return Err(PacketError::Malformed);
            }
            if !part && len > bytes.len() {
                return Err(PacketError::Truncated);
            }
            Transport::Udp { src_port, dst_port }
        }
        _ => icmp_message(v6, head[0], head[1], read_u16(head, 4).unwrap_or_default()),
    })
}

/// Flags and sequence numbers of the segment in `bytes`, which starts with `header`.
fn tcp_header(
    header: &[u8; TCP_LEN],
    bytes: &[u8],
    part: bool,
) -> Result<(TcpFlags, Segment), PacketError> {
    let data_offset = usize::from(header[12] >> 4) * 4;
    if !part && data_offset < TCP_LEN {
        return Err(PacketError::Malformed);
    }
    if !part && data_offset > bytes.len() {
        return Err(PacketError::Truncated);
    }
    let flags = TcpFlags(header[13]);
    let number = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let options = match flags.syn() {
        true => bytes.get(TCP_LEN..data_offset).unwrap_or_default(),
        false => &[],
    };
    let len = bytes.len().saturating_sub(data_offset);
    let segment = Segment {
        seq: number(4),
        ack: number(8),
        window: u16::from_be_bytes([header[14], header[15]]),
        // An IP packet has fewer than 2^16 bytes.
        len: u16::try_from(len).unwrap_or(u16::MAX),
        syn: flags.syn(),
        fin: flags.fin(),
        scale: window_scale(options),
    };
    Ok((flags, segment))
}

/// The window scale among a SYN's options. Broken options end the search: what they mean is the
/// receiver's affair.
fn window_scale(mut options: &[u8]) -> Option<u8> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    loop {
        let (&kind, rest) = options.split_first()?;
        match kind {
            END => return None,
            NOP => options = rest,
            _ => {
                let len = usize::from(*rest.first()?);
                if kind == WINDOW_SCALE && len == 3 {
                    return rest.get(1).copied();
                }
                options = options.get(len.max(2)..)?;
            }
        }
    }
}

fn icmp_message(v6: bool, kind: u8, code: u8, id: u16) -> Transport {
    if v6 {
        match kind {
            icmp6::ECHO_REQUEST if code == 0 => Transport::EchoRequest { id },
            icmp6::ECHO_REPLY if code == 0 => Transport::EchoReply { id },
            icmp6::UNREACHABLE..=icmp6::PARAMETER_PROBLEM => Transport::IcmpError,
            icmp6::ND_FIRST..=icmp6::ND_LAST => Transport::NeighborDiscovery,
            _ => Transport::OtherIcmp,
        }
    } else {
        match kind {
            icmp4::ECHO_REQUEST if code == 0 => Transport::EchoRequest { id },
            icmp4::ECHO_REPLY if code == 0 => Transport::EchoReply { id },
            icmp4::UNREACHABLE | icmp4::TIME_EXCEEDED | icmp4::PARAMETER_PROBLEM => {
                Transport::IcmpError
            }
            _ => Transport::OtherIcmp,
        }
    }
}

const _: () = assert!(
    ICMP_LEN == 8,
    "an echo's identifier lies within the fixed part"
);
