//! What the operator configured that the packet path needs besides the network: NAT rules,
//! peerings, timeouts, limits, what is offloaded.
//!
//! Plain data. The controller builds it from its validated document; [`crate::fib::FibWriter`]
//! lowers it into the tables that workers read.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;
use shunt_p4::VpcId;

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Source NAT from pools.
    pub masquerades: Vec<Masquerade>,
    /// Inside addresses one for one with outside addresses.
    pub static_nat: Vec<StaticNat>,
    /// Destination NAT of ports.
    pub port_forwards: Vec<PortForward>,
    /// Which VPC may open connections into which without NAT.
    pub peerings: Vec<Peering>,
    /// How long a connection lives without packets.
    pub timeouts: Timeouts,
    /// Bounds of what packets can cost.
    pub limits: Limits,
    /// When a connection goes into hardware.
    pub offload: OffloadPolicy,
    /// VPCs' shares of an overloaded worker, 1 to [`crate::worker::fair::MAX_WEIGHT`]; others
    /// have [`crate::worker::fair::DEFAULT_WEIGHT`].
    pub weights: Vec<(VpcId, u16)>,
}

impl Policy {
    /// A VPC's share of an overloaded worker.
    pub fn weight(&self, vpc: VpcId) -> u16 {
        let found = self.weights.iter().find(|(id, _)| *id == vpc);
        found.map_or(crate::worker::fair::DEFAULT_WEIGHT, |(_, weight)| *weight)
    }

    /// Whether a connection that one of the two allows is the same by the other, and goes into
    /// hardware by the same rules. Timeouts, limits and weights are for what comes.
    pub fn makes_the_same_connections(&self, other: &Self) -> bool {
        self.masquerades == other.masquerades
            && self.static_nat == other.static_nat
            && self.port_forwards == other.port_forwards
            && self.peerings == other.peerings
            && self.offload == other.offload
    }
}

/// Source NAT: connections from `vpc` that leave through `to` get an address and a port of
/// the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Masquerade {
    /// Its name in the configuration.
    pub name: String,
    /// Where the connections come from.
    pub vpc: VpcId,
    /// The VPC of the interface they leave by, and of the pool's addresses.
    pub to: VpcId,
    /// Sources that it is for; none: all.
    pub sources: Vec<IpNet>,
    /// Outside addresses.
    pub pool: Vec<AddressRange>,
    /// Outside ports (and echo identifiers).
    pub ports: PortRange,
    /// Who may send to a leased port.
    pub filtering: Filtering,
    /// What happens when all are leased.
    pub when_exhausted: WhenExhausted,
}

impl Masquerade {
    /// Whether its pool has that address and port.
    pub fn gives(&self, address: IpAddr, port: u16) -> bool {
        self.ports.contains(port) && self.pool.iter().any(|range| range.contains(address))
    }

    /// Whether it is for that inside address.
    #[inline]
    pub fn hides(&self, source: IpAddr) -> bool {
        let covers = |net: &IpNet| match (net, source) {
            // As `contains`, which works out both ends of the net.
            (IpNet::V4(net), IpAddr::V4(source)) => {
                let differ = net.addr().to_bits() ^ source.to_bits();
                u64::from(differ) >> (32 - net.prefix_len()) == 0
            }
            _ => net.contains(&source),
        };
        self.sources.is_empty() || self.sources.iter().any(covers)
    }
}

/// What a masquerade does with a packet from outside to an outside port that is leased, but that
/// belongs to no connection (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// It is not let in.
    #[default]
    AddressAndPortDependent,
    /// It opens a connection to the inside address and port that have leased it.
    EndpointIndependent,
}

/// What becomes of a connection for which a pool has no port left. It is counted in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenExhausted {
    /// Its packet is dropped: its sender tries again.
    #[default]
    Drop,
    /// Its sender is told that communication is administratively prohibited (ICMP type 3 code 13,
    /// ICMPv6 type 1 code 1).
    Reject,
}

/// How static NAT finds an address's counterpart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StaticMethod {
    /// The same position in the other prefix.
    #[default]
    SamePosition,
    /// IPv6 prefix translation, which leaves checksums as they are (RFC 6296).
    Nptv6,
}

/// Inside addresses of `vpc` are outside addresses of `to`, one for one, ports unchanged, both
/// ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StaticNat {
    /// Its name in the configuration.
    pub name: String,
    /// The inside address's VPC.
    pub vpc: VpcId,
    /// The outside address's VPC.
    pub to: VpcId,
    /// Inside addresses.
    pub inside: IpNet,
    /// Outside addresses, of the same family and as many, in no pool.
    pub outside: IpNet,
    /// Which is whose.
    pub method: StaticMethod,
}

/// Destination NAT: connections from `vpc` to `address` and `ports` go to `to_address`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortForward {
    /// Its name in the configuration.
    pub name: String,
    /// Where the connections come from.
    pub vpc: VpcId,
    /// The address they are for.
    pub address: IpAddr,
    /// IP protocol number: TCP or UDP.
    pub protocol: u8,
    /// The ports they are for.
    pub ports: PortRange,
    /// The service's VPC.
    pub to_vpc: VpcId,
    /// The service's address, of the same family.
    pub to_address: IpAddr,
    /// The service's ports: as many as `ports`, taken one for one, or one for all.
    pub to_ports: PortRange,
}

/// Connections may be opened from one VPC into another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Peering {
    /// The opener's VPC.
    pub from: VpcId,
    /// The VPC of the interface that they leave by.
    pub to: VpcId,
    /// The destinations that `to` exposes; none: all.
    pub prefixes: Vec<IpNet>,
}

/// Addresses from `first` to `last`, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// `None` if the families differ or `last` is before `first`.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// The lowest address.
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub const fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether the address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// How many addresses; saturates.
    pub fn count(&self) -> u64 {
        let width = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => u128::from(last.to_bits() - first.to_bits()),
            (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits() - first.to_bits(),
            _ => 0,
        };
        u64::try_from(width).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Address number `n`, counted from 0.
    pub fn nth(&self, n: u64) -> Option<IpAddr> {
        let address = match self.first {
            IpAddr::V4(first) => {
                IpAddr::V4(first.to_bits().checked_add(u32::try_from(n).ok()?)?.into())
            }
            IpAddr::V6(first) => IpAddr::V6(first.to_bits().checked_add(u128::from(n))?.into()),
        };
        self.contains(address).then_some(address)
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Ports from `first` to `last`, both included, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// What a masquerade uses unless configured: the ports above the well-known ones.
    pub const UNPRIVILEGED: PortRange = PortRange {
        first: 1024,
        last: 65535,
    };

    /// `None` if `last` is before `first`, or the range has port 0, which is none.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first >= 1 && first <= last {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// The lowest port.
    pub const fn first(&self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(&self) -> u16 {
        self.last
    }

    /// Whether the port is one of them.
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// How many ports.
    pub const fn count(&self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// How long a connection lives without packets, by its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// TCP, open in both directions. RFC 5382 REQ-5: at least 2 h 4 min.
    pub tcp_established: Duration,
    /// TCP that opens or closes. RFC 5382 REQ-5: at least 4 min.
    pub tcp_transitory: Duration,
    /// TCP closed from both sides (TIME_WAIT).
    pub tcp_time_wait: Duration,
    /// TCP after a reset.
    pub tcp_closed: Duration,
    /// UDP without a reply. RFC 4787 REQ-5: at least 2 min.
    pub udp: Duration,
    /// UDP with replies. RFC 4787 REQ-5 recommends 5 min.
    pub udp_stream: Duration,
    /// Echo. RFC 5508 REQ-2: at least 60 s.
    pub icmp: Duration,
    /// Fragments of one packet belong together for so long. RFC 4787 leaves it open; Linux waits
    /// 30 s.
    pub fragment: Duration,
    /// A hardware entry that no packet hits is reported after so long.
    pub offload_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            tcp_established: Duration::from_secs(124 * MINUTE),
            tcp_transitory: Duration::from_secs(4 * MINUTE),
            tcp_time_wait: Duration::from_secs(2 * MINUTE),
            tcp_closed: Duration::from_secs(10),
            udp: Duration::from_secs(2 * MINUTE),
            udp_stream: Duration::from_secs(5 * MINUTE),
            icmp: Duration::from_secs(MINUTE),
            fragment: Duration::from_secs(30),
            offload_idle: Duration::from_secs(30),
        }
    }
}

/// Bounds. Those on connections hold for all workers together, the others for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// ICMP errors that a worker sends a second (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4).
    pub icmp_errors_per_second: u32,
    /// Connections of one VPC; none: as many as fit.
    pub connections_per_vpc: Option<u32>,
    /// Connections of one source address of a VPC.
    pub connections_per_source: Option<u32>,
    /// New connections of one VPC a second.
    pub new_per_second_per_vpc: Option<u32>,
    /// New connections of one source address of a VPC a second.
    pub new_per_second_per_source: Option<u32>,
    /// TCP connections of one VPC that are opening (RFC 4987).
    pub half_open_per_vpc: Option<u32>,
    /// Packets that wait for one neighbour.
    pub held_per_neighbor: u16,
    /// How long a packet waits for its neighbour.
    pub hold_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            icmp_errors_per_second: 1000,
            connections_per_vpc: None,
            connections_per_source: None,
            new_per_second_per_vpc: None,
            new_per_second_per_source: None,
            half_open_per_vpc: None,
            held_per_neighbor: 32,
            hold_timeout: Duration::from_secs(3),
        }
    }
}

/// How far a connection has to be to go into hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum OffloadAfter {
    /// TCP: when it is established; others: at the first packet from the other side.
    FirstReply,
    /// At the n-th packet in software, either way; TCP: when it is established as well, others
    /// with a reply or without.
    Packets(u32),
    /// As [`OffloadAfter::Packets`], after so many bytes of IP.
    Bytes(u64),
    /// Never.
    Never,
}

/// Connections that never go into hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NeverPorts {
    /// IP protocol number, TCP or UDP; none: both.
    pub protocol: Option<u8>,
    /// The ports that they are opened to, before or after translation.
    pub ports: PortRange,
}

/// When a connection goes into hardware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OffloadPolicy {
    /// Off: all stay in software.
    pub enabled: bool,
    /// TCP.
    pub tcp: OffloadAfter,
    /// UDP.
    pub udp: OffloadAfter,
    /// ICMP and ICMPv6 echo.
    pub icmp: OffloadAfter,
    /// Besides, it has to carry so many bytes of IP within a second; 0: any will do.
    pub min_bytes_per_second: u32,
    /// Those stay in software.
    pub never_ports: Vec<NeverPorts>,
    /// How long a refused or evicted connection stays in software before it is offered again.
    /// Refusals in a row double it.
    pub retry_after: Duration,
    /// The longest such time.
    pub retry_after_max: Duration,
}

impl Default for OffloadPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            tcp: OffloadAfter::FirstReply,
            udp: OffloadAfter::FirstReply,
            icmp: OffloadAfter::FirstReply,
            min_bytes_per_second: 0,
            never_ports: Vec::new(),
            retry_after: Duration::from_secs(5),
            retry_after_max: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_and_index_their_addresses() {
        let range = AddressRange::new("10.0.0.250".parse().unwrap(), "10.0.1.4".parse().unwrap());
        let range = range.unwrap();
        assert_eq!(range.count(), 11);
        assert_eq!(range.nth(6), Some("10.0.1.0".parse().unwrap()));
        assert_eq!(range.nth(11), None);
        assert!(range.contains("10.0.1.4".parse().unwrap()));
        assert!(!range.contains("::1".parse().unwrap()));
        assert_eq!(range.to_string(), "10.0.0.250-10.0.1.4");
    }

    #[test]
    fn empty_ranges_do_not_exist() {
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap());
        assert_eq!(AddressRange::new(a, b), None);
        assert_eq!(AddressRange::new(a, "::1".parse().unwrap()), None);
        assert_eq!(PortRange::new(0, 5), None);
        assert_eq!(PortRange::new(6, 5), None);
        assert_eq!(PortRange::UNPRIVILEGED.count(), 64512);
    }
}
