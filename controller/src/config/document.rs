//! The document as it is written: text and numbers, nothing checked but its shape.
//!
//! Values stay as loose as TOML and JSON have them (numbers as `i64`, addresses as text), so
//! that [`super::validate`] can name every fault of a document at once instead of the first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A whole document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// `[daemon]`
    pub daemon: DaemonSection,
    /// `[slow_path]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_path: Option<SlowPathSection>,
    /// `[timeouts]`
    pub timeouts: TimeoutsSection,
    /// `[limits]`
    pub limits: LimitsSection,
    /// `[offload]`
    pub offload: OffloadSection,
    /// `[[switch]]`
    pub switch: Vec<SwitchSection>,
    /// `[[vpc]]`
    pub vpc: Vec<VpcSection>,
    /// `[[interface]]`
    pub interface: Vec<InterfaceSection>,
    /// `[[masquerade]]`
    pub masquerade: Vec<MasqueradeSection>,
    /// `[[static_nat]]`
    pub static_nat: Vec<StaticNatSection>,
    /// `[[port_forward]]`
    pub port_forward: Vec<PortForwardSection>,
    /// `[[peering]]`
    pub peering: Vec<PeeringSection>,
}

/// `[daemon]`: the daemon itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonSection {
    /// Path of the API's unix socket.
    pub api_socket: String,
    /// Path of a second one, which every user of the machine may open, but only to look; none
    /// without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only_socket: Option<String>,
    /// `address:port` where Prometheus finds the metrics; nowhere without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// `[daemon.api_tls]`: the API over TCP; nowhere without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_tls: Option<ApiTlsSection>,
}

impl Default for DaemonSection {
    fn default() -> Self {
        Self {
            api_socket: shunt_api::DEFAULT_SOCKET.to_owned(),
            read_only_socket: None,
            metrics: None,
            api_tls: None,
        }
    }
}

/// `[daemon.api_tls]`: the API over TCP, for clients that show a certificate (mutual TLS). The
/// files are PEM and read at the daemon's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiTlsSection {
    /// `address:port` to listen at.
    pub address: String,
    /// The daemon's certificate, and those up to its authority if there are any between.
    pub certificate: String,
    /// The certificate's key.
    pub key: String,
    /// The authorities that sign clients' certificates.
    pub client_ca: String,
    /// Who may change things: subject common names (CN) or alternative names (DNS, e-mail, URI) of
    /// clients' certificates. All other clients may look.
    #[serde(default)]
    pub admins: Vec<String>,
}

/// `[[switch]]`: a P4Runtime target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchSection {
    /// What interfaces call it.
    pub name: String,
    /// `host:port` of its P4Runtime server.
    pub address: String,
    /// P4Runtime device id, not 0.
    #[serde(default = "default_device_id")]
    pub device_id: i64,
    /// The switch port that leads to the slow path's device.
    pub slow_path_port: i64,
    /// Linux interface at the other end of that port; default `slow_path.device`, which only the
    /// one switch of a daemon can have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_path_device: Option<String>,
    /// The P4Runtime role to write as, where several controllers share a switch; default the
    /// role that may do everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Whether to take the role from a controller that has it. If not, this one waits until
    /// that one leaves, and then takes its place.
    #[serde(default = "default_take_over")]
    pub take_over: bool,
}

fn default_take_over() -> bool {
    true
}

fn default_device_id() -> i64 {
    1
}

/// `[slow_path]`: the DPDK side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowPathSection {
    /// Linux interface at the other end of the switch's slow-path port; not where there are several
    /// switches: each has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Memory for packet buffers and tables, MiB.
    #[serde(default = "default_memory_mb")]
    pub memory_mb: i64,
    /// Connections that it can hold, each worker.
    #[serde(default = "default_connections")]
    pub connections: i64,
    /// Threads that forward packets.
    #[serde(default = "default_workers")]
    pub workers: i64,
    /// The CPU of each worker, in their order; those without one run where the kernel puts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<i64>,
    /// Where connections are written down, so that the next daemon has them when this one was
    /// killed; default beside the API's socket, empty for nowhere. Best in memory (tmpfs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_file: Option<String>,
}

fn default_workers() -> i64 {
    1
}

fn default_memory_mb() -> i64 {
    256
}

fn default_connections() -> i64 {
    262_144
}

/// `[[vpc]]`: one address space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VpcSection {
    /// What everything else calls it.
    pub name: String,
    /// Its number in the switch, 1 to 65535.
    pub id: i64,
    /// The kernel's route table that is its own.
    pub table: i64,
    /// Without connection tracking: routes alone forward.
    #[serde(default)]
    pub stateless: bool,
    /// Its share of the slow path when that has more to do than it can, against the others'.
    #[serde(default = "default_weight")]
    pub weight: i64,
    /// Connections opened from it that may be in a switch at once; default as many as fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload_max: Option<i64>,
    /// The same in percent of what fits into the switch's flow table; the smaller one counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload_max_percent: Option<i64>,
}

fn default_weight() -> i64 {
    i64::from(shunt_slowpath::worker::fair::DEFAULT_WEIGHT)
}

/// `[[interface]]`: a port, tagged or not, or a tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceSection {
    /// Its name.
    pub name: String,
    /// Its number in the switch, 1 to 65535.
    pub id: i64,
    /// The VPC that it belongs to.
    pub vpc: String,
    /// Which switch; needed only where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<String>,
    /// Switch port; not for tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// One tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<i64>,
    /// Two tags, outer and inner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlans: Option<Vec<i64>>,
    /// VXLAN network identifier: makes it a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<i64>,
    /// A tunnel's underlay: the name of an interface with a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay: Option<String>,
    /// A tunnel's own end point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// A tunnel's remote end point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// The gateway's MAC address on it.
    pub mac: String,
    /// Largest IP packet, bytes; default 1500, for tunnels the underlay's less 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// The gateway's addresses with the link's prefix length.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Name of its kernel tap; default `sh-` and the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
}

/// `[[masquerade]]`: many sources behind a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasqueradeSection {
    /// Its name.
    pub name: String,
    /// Where the connections come from.
    pub vpc: String,
    /// The VPC that they leave to.
    pub to: String,
    /// Source prefixes; default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<String>>,
    /// Addresses, ranges `first-last` or prefixes.
    pub pool: Vec<String>,
    /// Source ports to use, `first-last`.
    #[serde(default = "default_pool_ports")]
    pub ports: String,
    /// Who may send to a leased port: `address-and-port-dependent` (whom it has sent to) or
    /// `endpoint-independent` (anybody; RFC 4787 section 5).
    #[serde(default = "default_filtering")]
    pub filtering: String,
    /// What a connection gets for which no port is left: `drop` or `reject` (an ICMP error).
    #[serde(default = "default_when_exhausted")]
    pub when_exhausted: String,
}

fn default_filtering() -> String {
    "address-and-port-dependent".to_owned()
}

fn default_when_exhausted() -> String {
    "drop".to_owned()
}

fn default_pool_ports() -> String {
    "1024-65535".to_owned()
}

/// `[[static_nat]]`: inside addresses one for one with outside addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticNatSection {
    /// Its name.
    pub name: String,
    /// The VPC of the inside address.
    pub vpc: String,
    /// The VPC of the outside address.
    pub to: String,
    /// Inside address or prefix.
    pub inside: String,
    /// Outside address, or prefix of the same length.
    pub outside: String,
    /// Of IPv6 prefixes: translate so that checksums stay as they are (RFC 6296).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nptv6: bool,
}

/// `[[port_forward]]`: a service inwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortForwardSection {
    /// Its name.
    pub name: String,
    /// The VPC that the clients come from.
    pub vpc: String,
    /// The address that they address.
    pub address: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The port or ports that they address.
    pub ports: String,
    /// The server's VPC.
    pub to_vpc: String,
    /// The server's address.
    pub to_address: String,
    /// The server's ports, as many; default the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<String>,
}

/// `[[peering]]`: connections may be opened from one VPC to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeeringSection {
    /// The VPC that opens.
    pub from: String,
    /// The VPC that answers.
    pub to: String,
    /// The destinations that it exposes; default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<Vec<String>>,
}

/// `[timeouts]`: how long an idle connection stays; `2h4m`, `30s`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsSection {
    /// TCP, established (RFC 5382: at least 2 h 4 min).
    pub tcp_established: String,
    /// TCP, opening or closing (RFC 5382: at least 4 min).
    pub tcp_transitory: String,
    /// TCP, closed from both sides.
    pub tcp_time_wait: String,
    /// TCP, after a reset.
    pub tcp_closed: String,
    /// UDP without a reply (RFC 4787: at least 2 min).
    pub udp: String,
    /// UDP, answered (RFC 4787 recommends 5 min).
    pub udp_stream: String,
    /// ICMP echo (RFC 5508: at least 60 s).
    pub icmp: String,
    /// Fragments of one packet belong together for so long.
    pub fragment: String,
    /// An entry of the switch that no packet hits is asked about after so long.
    pub offload_idle: String,
}

impl Default for TimeoutsSection {
    fn default() -> Self {
        Self {
            tcp_established: "2h 4m".to_owned(),
            tcp_transitory: "4m".to_owned(),
            tcp_time_wait: "2m".to_owned(),
            tcp_closed: "10s".to_owned(),
            udp: "2m".to_owned(),
            udp_stream: "5m".to_owned(),
            icmp: "60s".to_owned(),
            fragment: "30s".to_owned(),
            offload_idle: "30s".to_owned(),
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// ICMP errors that the slow path sends a second.
    pub icmp_errors_per_second: i64,
    /// Connections of one VPC, in all workers together as all that follow; default three quarters
    /// of what they can hold (`slow_path.connections` each), 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_vpc: Option<i64>,
    /// Connections of one source address of a VPC; 0 for no limit.
    pub connections_per_source: i64,
    /// New connections a second of one VPC; 0 for no limit.
    pub new_per_second_per_vpc: i64,
    /// New connections a second of one source address of a VPC; 0 for no limit.
    pub new_per_second_per_source: i64,
    /// TCP connections of one VPC that are opening; default a quarter of what the workers can
    /// hold, 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_open_per_vpc: Option<i64>,
    /// Packets that wait for one neighbour.
    pub held_per_neighbor: i64,
    /// How long they wait.
    pub hold_timeout: String,
    /// Packets a second that the switch may send to the slow path, by punt reason; `arp` and
    /// `nd` are per interface, the others per switch.
    pub punt_pps: BTreeMap<String, i64>,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            icmp_errors_per_second: 1000,
            connections_per_vpc: None,
            connections_per_source: 0,
            new_per_second_per_vpc: 0,
            new_per_second_per_source: 0,
            half_open_per_vpc: None,
            held_per_neighbor: 32,
            hold_timeout: "3s".to_owned(),
            punt_pps: BTreeMap::new(),
        }
    }
}

/// `[offload]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OffloadSection {
    /// Off: every packet is forwarded by software.
    pub enabled: bool,
    /// When a TCP connection is offloaded: `established`, once established and after so much in
    /// software `packets=N` or `bytes=N`, or `never`.
    pub tcp: String,
    /// When a UDP connection is offloaded: `first-reply`, `packets=N`, `bytes=N` or `never`.
    pub udp: String,
    /// The same for ICMP and ICMPv6 echo.
    pub icmp: String,
    /// Besides, a connection has to carry so many bytes of IP within a second; 0: any will do.
    pub min_bytes_per_second: i64,
    /// Connections to these ports stay in software: `53`, `udp/53`, `tcp/6000-6010`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never_ports: Vec<String>,
    /// How long a connection that the switch refused or evicted stays in software before it is
    /// offered again. Refusals in a row double it.
    pub retry_after: String,
    /// The longest such time.
    pub retry_after_max: String,
    /// When room in the switch is short, connections without a packet for so long leave it, the
    /// longest idle first; `never`: none does.
    pub evict_idle: String,
}

impl Default for OffloadSection {
    fn default() -> Self {
        Self {
            enabled: true,
            tcp: "established".to_owned(),
            udp: "first-reply".to_owned(),
            icmp: "first-reply".to_owned(),
            min_bytes_per_second: 0,
            never_ports: Vec::new(),
            retry_after: "5s".to_owned(),
            retry_after_max: "1m".to_owned(),
            evict_idle: "5s".to_owned(),
        }
    }
}
