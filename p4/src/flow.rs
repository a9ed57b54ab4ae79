//! One direction of an offloaded connection: what the tables `flow4` and `flow6` hold.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::types::VpcId;

/// IP protocol numbers (IANA) that a flow can have.
pub mod proto {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}

/// The five-tuple of a packet.
///
/// Of an ICMP echo, the requester's "port" is the identifier and the responder's is 0:
/// a request is (id, 0), its reply (0, id). So a reply is the request reversed, and a
/// request from the other side is never taken for a reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Source address; of the same family as `dst`.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Source port, or the identifier of an echo request.
    pub src_port: u16,
    /// Destination port, or the identifier of an echo reply.
    pub dst_port: u16,
}

impl Tuple {
    /// The tuple of the opposite direction, before any translation.
    pub const fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            proto: self.proto,
            src_port: self.dst_port,
            dst_port: self.src_port,
        }
    }

    /// Whether it is IPv6 (table `flow6`).
    pub const fn is_ipv6(&self) -> bool {
        self.src.is_ipv6()
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.proto {
            proto::ICMP => "icmp",
            proto::TCP => "tcp",
            proto::UDP => "udp",
            proto::ICMPV6 => "icmpv6",
            other => return write!(f, "proto {other} {} -> {}", self.src, self.dst),
        };
        let source = std::net::SocketAddr::new(self.src, self.src_port);
        let destination = std::net::SocketAddr::new(self.dst, self.dst_port);
        write!(f, "{name} {source} -> {destination}")
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a packet has to look like on arrival (after decapsulation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// The VPC of the ingress interface.
    pub vpc: VpcId,
    /// The packet's tuple as it arrives.
    pub tuple: Tuple,
}

/// What the switch does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowAction {
    /// Where it is routed: another VPC than the key's when it crosses a peering.
    pub vpc: VpcId,
    /// New source address and port (or echo identifier).
    pub src: Option<(IpAddr, u16)>,
    /// New destination address and port (or echo identifier).
    pub dst: Option<(IpAddr, u16)>,
}

/// One table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEntry {
    /// The match.
    pub key: FlowKey,
    /// The action.
    pub action: FlowAction,
    /// The switch reports the entry when no packet has hit it for so long.
    pub idle_timeout: Duration,
}

/// Both directions of a connection: what one's packets become is the other's key reversed. Half the
/// size of its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPair {
    /// What each direction's packets look like on arrival, the originator's first.
    pub keys: [FlowKey; 2],
    /// Where each direction is routed.
    pub vpcs: [VpcId; 2],
    /// As of both entries.
    pub idle_timeout: Duration,
}

impl FlowPair {
    /// Both entries, the originator's first.
    pub fn entries(&self) -> [FlowEntry; 2] {
        [self.forward(), self.reply()]
    }

    /// The originator's.
    #[inline]
    pub fn forward(&self) -> FlowEntry {
        let [key, back] = &self.keys;
        self.entry(key, back, self.vpcs[0])
    }

    /// The other one.
    #[inline]
    pub fn reply(&self) -> FlowEntry {
        let [back, key] = &self.keys;
        self.entry(key, back, self.vpcs[1])
    }

    #[inline]
    fn entry(&self, key: &FlowKey, back: &FlowKey, vpc: VpcId) -> FlowEntry {
        let (old, new) = (&key.tuple, back.tuple.reversed());
        let changed = |from: (IpAddr, u16), to: (IpAddr, u16)| (from != to).then_some(to);
        FlowEntry {
            key: *key,
            action: FlowAction {
                vpc,
                src: changed((old.src, old.src_port), (new.src, new.src_port)),
                dst: changed((old.dst, old.dst_port), (new.dst, new.dst_port)),
            },
            idle_timeout: self.idle_timeout,
        }
    }
}
