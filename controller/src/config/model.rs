//! A configuration that holds together: every value in range, every reference resolved.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use shunt_offload::EnginePolicy;
use shunt_p4::{Interface, InterfaceId, PuntReason, SwitchIndex, SwitchPort, Vpc, VpcId};
use shunt_slowpath::policy::{AddressRange, Policy};

use super::values::addresses_of;

/// Outside addresses of one static NAT rule that can be on a link.
pub(super) const STATIC_ADDRESSES_MAX: u64 = 4096;

/// The whole of it. Made by [`super::validate`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the API listens.
    pub api: ApiConfig,
    /// Where Prometheus finds the metrics.
    pub metrics: Option<SocketAddr>,
    /// The switches; interfaces have their places among them.
    pub switches: Vec<Switch>,
    /// The DPDK side.
    pub slow_path: SlowPath,
    /// The VPCs, by id.
    pub vpcs: Vec<VpcConfig>,
    /// The interfaces, by id.
    pub interfaces: Vec<InterfaceConfig>,
    /// What the slow path needs besides: NAT, peerings, timeouts, limits, offload.
    pub policy: Policy,
    /// What the offload engine is to keep to.
    pub engine: EnginePolicy,
    /// What the switch may send to the slow path.
    pub punt_meters: Vec<PuntMeter>,
}

/// Where the API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Path of the unix socket for those who may do everything.
    pub socket: PathBuf,
    /// Path of the one for everybody, who may look.
    pub read_only_socket: Option<PathBuf>,
    /// Over TCP.
    pub tls: Option<ApiTls>,
}

/// The API over TCP, with mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTls {
    /// Where it listens.
    pub address: SocketAddr,
    /// The daemon's certificate chain (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The authorities of the clients' certificates (PEM).
    pub client_ca: PathBuf,
    /// Names in certificates whose owners may do everything.
    pub admins: BTreeSet<String>,
}

impl Config {
    /// What a daemon that was started with this does when the configuration becomes `new`, and
    /// the sections that wait for its next start. Interfaces of switches that come with that start
    /// are on none until then.
    pub fn changed_to(&self, mut new: Config) -> (Config, Vec<String>) {
        let Config {
            api,
            metrics,
            switches,
            slow_path,
            ..
        } = self.clone();
        for found in &mut new.interfaces {
            let place = switches
                .iter()
                .position(|switch| switch.name == found.switch);
            found.interface.switch = place.map_or(SwitchIndex::ABSENT, SwitchIndex::of);
        }
        let devices = |switches: &[Switch]| -> Vec<String> {
            let switches = switches.iter();
            switches.map(|switch| switch.device.clone()).collect()
        };
        let slow_path_differs =
            slow_path != new.slow_path || devices(&switches) != devices(&new.switches);
        let mut same_devices = new.switches.clone();
        for (new, old) in same_devices.iter_mut().zip(&switches) {
            new.device.clone_from(&old.device);
        }
        let differs = [
            ("daemon", (&api, metrics) != (&new.api, new.metrics)),
            ("switch", switches != same_devices),
            ("slow_path", slow_path_differs),
        ];
        let waiting = differs.iter().filter(|(_, differs)| *differs);
        let waiting = waiting.map(|(section, _)| (*section).to_owned()).collect();
        let config = Config {
            api,
            metrics,
            switches,
            slow_path,
            ..new
        };
        (config, waiting)
    }

    /// The interface of that id.
    pub fn interface(&self, id: InterfaceId) -> Option<&InterfaceConfig> {
        self.interfaces
            .iter()
            .find(|interface| interface.interface.id == id)
    }

    /// The VPC of that id.
    pub fn vpc(&self, id: VpcId) -> Option<&VpcConfig> {
        self.vpcs.iter().find(|vpc| vpc.vpc.id == id)
    }

    /// A VPC's name, for output.
    pub fn vpc_name(&self, id: VpcId) -> String {
        self.vpc(id)
            .map_or_else(|| format!("vpc {id}"), |vpc| vpc.vpc.name.clone())
    }

    /// A switch's name, for output; empty for none.
    pub fn switch_name(&self, place: SwitchIndex) -> String {
        let switch = self.switches.get(place.place());
        switch.map(|switch| switch.name.clone()).unwrap_or_default()
    }

    /// An interface's name, for output.
    pub fn interface_name(&self, id: InterfaceId) -> String {
        self.interface(id).map_or_else(
            || format!("interface {id}"),
            |interface| interface.interface.name.clone(),
        )
    }

    /// NAT addresses that lie on the link of an interface of their VPC: the gateway has to
    /// answer ARP and ND for them there.
    pub fn nat_addresses_on(&self, interface: &Interface) -> Vec<IpAddr> {
        let on_link = |address: &IpAddr| {
            interface.addresses.iter().any(|net| net.contains(address))
                && !interface.addresses.iter().any(|net| net.addr() == *address)
        };
        let pools = self
            .policy
            .masquerades
            .iter()
            .filter(|rule| rule.to == interface.vpc)
            .flat_map(|rule| rule.pool.iter().flat_map(addresses_of));
        let statics = self
            .policy
            .static_nat
            .iter()
            .filter(|rule| rule.to == interface.vpc)
            .filter_map(|rule| AddressRange::new(rule.outside.network(), rule.outside.broadcast()))
            // More than that are on no link: validation has seen to it.
            .filter(|range| range.count() <= STATIC_ADDRESSES_MAX)
            .flat_map(|range| addresses_of(&range));
        let forwards = self
            .policy
            .port_forwards
            .iter()
            .filter(|rule| rule.vpc == interface.vpc)
            .map(|rule| rule.address);
        let mut addresses: Vec<IpAddr> = pools
            .chain(statics)
            .chain(forwards)
            .filter(on_link)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// A P4Runtime target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Its name.
    pub name: String,
    /// `host:port` of its server.
    pub address: String,
    /// P4Runtime device id.
    pub device_id: u64,
    /// The port that leads to the slow path.
    pub slow_path_port: SwitchPort,
    /// Linux interface at the other end of it.
    pub device: String,
    /// P4Runtime role; `None`: the default one.
    pub role: Option<String>,
    /// Whether to take the role from a controller that has it, or to wait until it leaves.
    pub take_over: bool,
}

/// The DPDK side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowPath {
    /// Memory, MiB.
    pub memory_mb: u32,
    /// Threads that forward packets.
    pub workers: u16,
    /// The CPUs of the first of them, each another one.
    pub cpus: Vec<usize>,
    /// Connections at most.
    pub connections: u32,
    /// Where they are written down for the next daemon; nowhere if none.
    pub state_file: Option<PathBuf>,
}

/// A VPC and the kernel table that is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpcConfig {
    /// What the packet path needs.
    pub vpc: Vpc,
    /// Kernel route table.
    pub table: u32,
    /// Its share of an overloaded slow path.
    pub weight: u16,
}

/// An interface and its tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// What the packet path needs.
    pub interface: Interface,
    /// Name of the kernel tap.
    pub tap: String,
    /// Name of its switch.
    pub switch: String,
}

/// A limit on what the switch sends to the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PuntMeter {
    /// For packets of this reason.
    pub reason: PuntReason,
    /// Packets a second.
    pub rate_pps: u32,
    /// Packets at once.
    pub burst: u32,
    /// Each interface has its own, as opposed to one for the whole switch.
    pub per_interface: bool,
}
