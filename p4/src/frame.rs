//! Frames between the switch and the slow path.
//!
//! An Ethernet header of ethertype 0x88B5 (IEEE 802 local experimental), then this header,
//! then the decapsulated frame. See `include/headers.p4`, `shunt_h`.
//!
//! ```text
//!  0        1        2        4        6        8            12
//!  +--------+--------+--------+--------+--------+------------+
//!  | version| reason |interf. |  vpc   |  port  | flow hash  |   big endian
//!  +--------+--------+--------+--------+--------+------------+
//! ```

/// Ethertype of frames between switch and slow path.
pub const ETHERTYPE: u16 = 0x88b5;
/// Bytes of the outer Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of the shunt header.
pub const HEADER_LEN: usize = 12;
/// Bytes in front of the carried frame.
pub const ENCAP_LEN: usize = ETHERNET_LEN + HEADER_LEN;
/// The version that both sides speak.
pub const VERSION: u8 = 1;

const DST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
const SRC_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

macro_rules! punt_reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why the switch sent a packet to the slow path (`PUNT_*` in `headers.p4`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum PuntReason { $($(#[$doc])* $name = $value,)* }

        impl PuntReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [PuntReason] = &[$(PuntReason::$name,)*];

            /// The reason of that number.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value { $($value => Some(PuntReason::$name),)* _ => None }
            }

            /// Its name in output and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(PuntReason::$name => $text,)* }
            }
        }
    };
}

punt_reasons! {
    /// No entry in `flow4` or `flow6`.
    FlowMiss = 1, "flow_miss";
    /// ARP, any kind.
    Arp = 2, "arp";
    /// IPv6 neighbour or router discovery, redirect.
    Nd = 3, "nd";
    /// Addressed to the gateway itself.
    Local = 4, "local";
    /// TTL or hop limit of 1 or 0.
    Ttl = 5, "ttl";
    /// IPv4 options.
    Options = 6, "options";
    /// An IPv4 fragment.
    Fragment = 7, "fragment";
    /// TCP with SYN, FIN or RST.
    TcpFlags = 8, "tcp_flags";
    /// Larger than the egress interface's MTU.
    Mtu = 9, "mtu";
    /// The next hop's MAC is not known.
    Unresolved = 10, "unresolved";
    /// No route, or an unreachable one.
    Unreachable = 11, "unreachable";
    /// Multicast or broadcast.
    Multicast = 12, "multicast";
    /// An IP protocol (or ICMP type) of which no flow is made.
    OtherL4 = 13, "other_l4";
    /// Neither IP nor ARP.
    OtherL2 = 14, "other_l2";
}

/// What the slow path asks of the switch (`COMMAND_*` in `headers.p4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// Walk the pipeline as if the frame had arrived on `interface`.
    Pipeline = 0,
    /// Leave by `interface`, as it is, encapsulated.
    Egress = 1,
}

/// The header, either way; `reason` is a [`PuntReason`] or a [`Command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShuntHeader {
    /// Why (to the slow path) or what to do (from it).
    pub reason: u8,
    /// Ingress interface, or the egress interface on the way back; 0 for none.
    pub interface: u16,
    /// The ingress interface's VPC; 0 for none.
    pub vpc: u16,
    /// Ingress port of the switch.
    pub port: u16,
    /// Hash of the tuple, the same for both directions of an untranslated connection.
    pub flow_hash: u32,
}

impl ShuntHeader {
    /// A header for the way back.
    #[inline]
    pub const fn egress(interface: crate::InterfaceId) -> Self {
        Self {
            reason: Command::Egress as u8,
            interface: interface.get(),
            vpc: 0,
            port: 0,
            flow_hash: 0,
        }
    }

    /// Reads the header of a whole frame from the switch; the carried frame starts at
    /// [`ENCAP_LEN`]. `None`: too short, another ethertype, or another version.
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let head: &[u8; ENCAP_LEN] = frame.first_chunk()?;
        if u16::from_be_bytes([head[12], head[13]]) != ETHERTYPE || head[14] != VERSION {
            return None;
        }
        Some(Self {
            reason: head[15],
            interface: u16::from_be_bytes([head[16], head[17]]),
            vpc: u16::from_be_bytes([head[18], head[19]]),
            port: u16::from_be_bytes([head[20], head[21]]),
            flow_hash: u32::from_be_bytes([head[22], head[23], head[24], head[25]]),
        })
    }

    /// The [`ENCAP_LEN`] bytes that go in front of the carried frame, outer Ethernet included.
    #[inline]
    pub fn encode(&self) -> [u8; ENCAP_LEN] {
        let mut out = [0; ENCAP_LEN];
        out[..6].copy_from_slice(&DST_MAC);
        out[6..12].copy_from_slice(&SRC_MAC);
        out[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        out[14] = VERSION;
        out[15] = self.reason;
        out[16..18].copy_from_slice(&self.interface.to_be_bytes());
        out[18..20].copy_from_slice(&self.vpc.to_be_bytes());
        out[20..22].copy_from_slice(&self.port.to_be_bytes());
        out[22..26].copy_from_slice(&self.flow_hash.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn header_round_trips(reason: u8, interface: u16, vpc: u16, port: u16, flow_hash: u32) {
            let header = ShuntHeader { reason, interface, vpc, port, flow_hash };
            prop_assert_eq!(ShuntHeader::parse(&header.encode()), Some(header));
        }

        #[test]
        fn any_bytes_parse_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = ShuntHeader::parse(&bytes);
        }
    }

    #[test]
    fn another_version_or_ethertype_is_refused() {
        let good = ShuntHeader::egress(crate::InterfaceId::MIN).encode();
        for (at, value) in [(12, 0x08), (14, 2)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(ShuntHeader::parse(&bad), None);
        }
        assert_eq!(ShuntHeader::parse(&good[..25]), None);
    }

    #[test]
    fn reasons_round_trip() {
        for &reason in PuntReason::ALL {
            assert_eq!(PuntReason::from_u8(reason as u8), Some(reason));
        }
    }
}
