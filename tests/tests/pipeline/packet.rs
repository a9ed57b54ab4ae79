//! Packets as the tests write them; headers and checksums by etherparse, which knows nothing
//! of how the pipeline computes its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpFragOffset, IpNumber,
    Ipv4Header, Ipv6Header, TcpHeader, UdpHeader,
};
use shunt_p4::flow::proto;
use shunt_p4::{MacAddr, Tuple};

/// Of an odd length, so that checksums have a last half word.
pub const PAYLOAD: &[u8] = b"shunt payload, odd.";

/// What stands behind the IP header.
#[derive(Clone, Debug)]
pub enum L4 {
    /// TCP with these flags: a subset of "SFRA".
    Tcp {
        src: u16,
        dst: u16,
        flags: &'static str,
    },
    /// UDP, with a checksum or with zero.
    Udp { src: u16, dst: u16, checksum: bool },
    /// Echo request or reply, of the packet's IP version.
    Echo { reply: bool, id: u16 },
    /// Any other protocol; the payload is all of it.
    Other(u8),
}

/// An IP packet. IPv4 or IPv6 by its addresses.
#[derive(Clone, Debug)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    /// IPv4: more fragments, offset in 8 bytes.
    pub fragment: (bool, u16),
    /// IPv4 options, a multiple of 4 bytes.
    pub options: &'static [u8],
    pub l4: L4,
    pub payload: Vec<u8>,
}

fn packet(src: IpAddr, dst: IpAddr, l4: L4) -> Packet {
    Packet {
        src,
        dst,
        ttl: 64,
        fragment: (false, 0),
        options: &[],
        l4,
        payload: PAYLOAD.to_vec(),
    }
}

/// A TCP segment with ACK.
pub fn tcp(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Packet {
    let l4 = L4::Tcp {
        src: src.1,
        dst: dst.1,
        flags: "A",
    };
    packet(src.0, dst.0, l4)
}

/// A UDP datagram.
pub fn udp(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Packet {
    let l4 = L4::Udp {
        src: src.1,
        dst: dst.1,
        checksum: true,
    };
    packet(src.0, dst.0, l4)
}

/// A UDP datagram whose sender computed no checksum.
pub fn udp_without_checksum(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Packet {
    let l4 = L4::Udp {
        src: src.1,
        dst: dst.1,
        checksum: false,
    };
    packet(src.0, dst.0, l4)
}

/// An echo request.
pub fn echo_request(src: IpAddr, dst: IpAddr, id: u16) -> Packet {
    packet(src, dst, L4::Echo { reply: false, id })
}

/// An echo reply.
pub fn echo_reply(src: IpAddr, dst: IpAddr, id: u16) -> Packet {
    packet(src, dst, L4::Echo { reply: true, id })
}

/// A packet of another protocol.
pub fn other(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Packet {
    packet(src, dst, L4::Other(protocol)).payload(payload)
}

impl Packet {
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Of this length in all, IP header included.
    pub fn length(mut self, bytes: usize) -> Self {
        self.payload.clear();
        let headers = self.bytes().len();
        self.payload = (headers..bytes).map(|at| (at * 7) as u8).collect();
        self
    }

    pub fn flags(mut self, set: &'static str) -> Self {
        if let L4::Tcp { flags, .. } = &mut self.l4 {
            *flags = set;
        }
        self
    }

    pub fn fragment(mut self, more: bool, offset: u16) -> Self {
        self.fragment = (more, offset);
        self
    }

    pub fn options(mut self, options: &'static [u8]) -> Self {
        self.options = options;
        self
    }

    /// With another source; the port of an echo request is its identifier.
    pub fn src(mut self, address: IpAddr, port: u16) -> Self {
        self.src = address;
        match &mut self.l4 {
            L4::Tcp { src, .. } | L4::Udp { src, .. } => *src = port,
            L4::Echo { reply: false, id } => *id = port,
            L4::Echo { .. } | L4::Other(_) => assert_eq!(port, 0),
        }
        self
    }

    /// With another destination; the port of an echo reply is its identifier.
    pub fn dst(mut self, address: IpAddr, port: u16) -> Self {
        self.dst = address;
        match &mut self.l4 {
            L4::Tcp { dst, .. } | L4::Udp { dst, .. } => *dst = port,
            L4::Echo { reply: true, id } => *id = port,
            L4::Echo { .. } | L4::Other(_) => assert_eq!(port, 0),
        }
        self
    }

    fn protocol(&self) -> u8 {
        match self.l4 {
            L4::Tcp { .. } => proto::TCP,
            L4::Udp { .. } => proto::UDP,
            L4::Echo { .. } if self.src.is_ipv6() => proto::ICMPV6,
            L4::Echo { .. } => proto::ICMP,
            L4::Other(protocol) => protocol,
        }
    }

    /// Its flow key.
    pub fn tuple(&self) -> Tuple {
        let (src_port, dst_port) = match self.l4 {
            L4::Tcp { src, dst, .. } | L4::Udp { src, dst, .. } => (src, dst),
            L4::Echo { reply: false, id } => (id, 0),
            L4::Echo { reply: true, id } => (0, id),
            L4::Other(_) => (0, 0),
        };
        Tuple {
            src: self.src,
            dst: self.dst,
            proto: self.protocol(),
            src_port,
            dst_port,
        }
    }

    pub fn ether_type(&self) -> u16 {
        if self.src.is_ipv6() { 0x86dd } else { 0x0800 }
    }

    /// The whole packet from the IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ipv4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.ipv6(src, dst),
            _ => panic!("{self:?} mixes IP versions"),
        }
    }

    fn ipv4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let body = self.l4(src.octets(), dst.octets());
        let length = u16::try_from(body.len()).unwrap();
        let protocol = IpNumber(self.protocol());
        let mut header =
            Ipv4Header::new(length, self.ttl, protocol, src.octets(), dst.octets()).unwrap();
        header.identification = 99;
        header.dont_fragment = false;
        header.more_fragments = self.fragment.0;
        header.fragment_offset = IpFragOffset::try_new(self.fragment.1).unwrap();
        header.options = self.options.try_into().unwrap();
        header.total_len = length + u16::try_from(header.header_len()).unwrap();
        header.header_checksum = header.calc_header_checksum();
        [header.to_bytes().as_slice(), &body].concat()
    }

    fn ipv6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let body = self.l4(src.octets(), dst.octets());
        let header = Ipv6Header {
            payload_length: u16::try_from(body.len()).unwrap(),
            next_header: IpNumber(self.protocol()),
            hop_limit: self.ttl,
            source: src.octets(),
            destination: dst.octets(),
            ..Default::default()
        };
        [header.to_bytes().as_slice(), &body].concat()
    }

    fn l4<const N: usize>(&self, src: [u8; N], dst: [u8; N]) -> Vec<u8> {
        let v4 = || (src[..4].try_into().unwrap(), dst[..4].try_into().unwrap());
        let v6 = || (src[..].try_into().unwrap(), dst[..].try_into().unwrap());
        let header = match self.l4 {
            L4::Tcp {
                src: from,
                dst: to,
                flags,
            } => {
                let mut header = TcpHeader::new(from, to, 7, 8192);
                header.acknowledgment_number = 9;
                header.syn = flags.contains('S');
                header.fin = flags.contains('F');
                header.rst = flags.contains('R');
                header.ack = flags.contains('A');
                header.checksum = if N == 4 {
                    header.calc_checksum_ipv4_raw(v4().0, v4().1, &self.payload)
                } else {
                    header.calc_checksum_ipv6_raw(v6().0, v6().1, &self.payload)
                }
                .unwrap();
                header.to_bytes().to_vec()
            }
            L4::Udp {
                src: from,
                dst: to,
                checksum,
            } => {
                let length = u16::try_from(8 + self.payload.len()).unwrap();
                let mut header = UdpHeader {
                    source_port: from,
                    destination_port: to,
                    length,
                    checksum: 0,
                };
                if checksum {
                    header.checksum = if N == 4 {
                        header.calc_checksum_ipv4_raw(v4().0, v4().1, &self.payload)
                    } else {
                        header.calc_checksum_ipv6_raw(v6().0, v6().1, &self.payload)
                    }
                    .unwrap();
                }
                header.to_bytes().to_vec()
            }
            L4::Echo { reply, id } => {
                let echo = IcmpEchoHeader { id, seq: 3 };
                if N == 4 {
                    let kind = match reply {
                        true => Icmpv4Type::EchoReply(echo),
                        false => Icmpv4Type::EchoRequest(echo),
                    };
                    let header = Icmpv4Header::with_checksum(kind, &self.payload);
                    header.to_bytes().to_vec()
                } else {
                    let kind = match reply {
                        true => Icmpv6Type::EchoReply(echo),
                        false => Icmpv6Type::EchoRequest(echo),
                    };
                    let (src, dst) = v6();
                    let header = Icmpv6Header::with_checksum(kind, src, dst, &self.payload);
                    header.unwrap().to_bytes().to_vec()
                }
            }
            L4::Other(_) => Vec::new(),
        };
        [header, self.payload.clone()].concat()
    }
}

/// An Ethernet frame without tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub dst: MacAddr,
    pub src: MacAddr,
    pub ether_type: u16,
    pub body: Vec<u8>,
}

impl Frame {
    pub fn new(dst: MacAddr, src: MacAddr, ether_type: u16, body: &[u8]) -> Self {
        Self {
            dst,
            src,
            ether_type,
            body: body.to_vec(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.tagged(&[])
    }

    /// With tags (TPID, VLAN id) between addresses and ethertype.
    pub fn tagged(&self, tags: &[(u16, u16)]) -> Vec<u8> {
        let mut bytes = [self.dst.0, self.src.0].concat();
        for (tpid, vid) in tags {
            bytes.extend(tpid.to_be_bytes());
            bytes.extend(vid.to_be_bytes());
        }
        bytes.extend(self.ether_type.to_be_bytes());
        bytes.extend(&self.body);
        bytes
    }
}
