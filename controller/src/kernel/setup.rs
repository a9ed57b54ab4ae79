//! The kernel's side of every interface: a tap with its addresses, and the rules that tie it to
//! its VPC's table.
//!
//! A killed daemon leaves its taps behind, so that routes, and whoever speaks BGP over them, are not
//! disturbed; the next start takes them on ([`super::leftover`]). Rules stay too; they carry
//! [`RULE_PROTOCOL`], and the next start takes those away that belong to its own taps or to taps
//! that are gone. [`KernelSetup::remove`] leaves nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use shunt_p4::{Interface, VpcId};
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

use super::leftover;
use super::mirror::TapInterface;
use super::requests::{Requests, done};
use super::rules::{self, Rule};
use super::settings;
use super::socket::SocketError;
use super::upkeep::{self, Upkeep};

/// The kernel's main table, whose rules are there already.
pub const MAIN_TABLE: u32 = 254;
/// How often what the kernel may not tell of is looked at: settings of the taps, and their rules.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Longest name of a device (`IFNAMSIZ` less the zero byte).
pub const MAX_NAME: usize = 15;

/// What one interface needs in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// MAC, MTU and addresses come from here.
    pub interface: Interface,
    /// Device name, at most 15 bytes.
    pub tap: String,
    /// The VPC's table.
    pub table: u32,
    /// Addresses that the kernel shall also answer for on this link (NAT pools), as hosts.
    pub extra_addresses: Vec<IpAddr>,
}

impl TapConfig {
    /// The link's addresses, the first ones first, then those that are answered for as hosts.
    pub(super) fn all_addresses(&self) -> impl Iterator<Item = IpNet> {
        let own = self.interface.addresses.iter().copied();
        let hosts = self.extra_addresses.iter().map(|&ip| IpNet::from(ip));
        own.chain(hosts)
    }
}

/// A tap that is set up.
#[derive(Clone)]
pub struct Tap {
    /// What the mirror needs to know of it.
    pub interface: TapInterface,
    /// Frames to and from the kernel.
    pub device: Arc<AsyncDevice>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap")
            .field("interface", &self.interface)
            .finish_non_exhaustive()
    }
}

/// Why the kernel's side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The tap itself.
    #[error("tap {tap}: cannot be created: {source}; {remedy}")]
    Create {
        /// Its name.
        tap: String,
        /// The kernel's reason.
        source: std::io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Something of it.
    #[error("tap {tap}: {what}: {source}{}", hint(.source))]
    Configure {
        /// Its name.
        tap: String,
        /// What was to be done.
        what: String,
        /// The kernel's reason.
        source: SocketError,
    },
    /// Netlink as such.
    #[error("netlink: {source}{}", hint(.source))]
    Netlink {
        /// The kernel's reason.
        #[from]
        source: SocketError,
    },
}

fn hint(error: &SocketError) -> &'static str {
    match error.errno() {
        Some(Errno::EPERM | Errno::EACCES) => {
            "; run with CAP_NET_ADMIN (as root, or in a network namespace of your own)"
        }
        _ => "",
    }
}

/// The kernel's side of all interfaces. It stays when this is dropped, as when the process is
/// killed; [`KernelSetup::remove`] takes it away.
#[derive(Debug)]
pub struct KernelSetup {
    pub(super) taps: Vec<Tap>,
    /// What they are set up as, in the same order.
    pub(super) configs: Vec<TapConfig>,
    pub(super) check_interval: Duration,
    /// Ends with the setup.
    pub(super) upkeep: Option<Upkeep>,
    /// Things that work, but perhaps not as wished.
    pub warnings: Vec<String>,
}

impl KernelSetup {
    /// Creates and configures every tap, and keeps it as configured. On an error nothing is left
    /// behind.
    pub async fn create(configs: &[TapConfig]) -> Result<Self, SetupError> {
        Self::create_checked(configs, CHECK_INTERVAL).await
    }

    /// The same, with another [`CHECK_INTERVAL`].
    pub async fn create_checked(
        configs: &[TapConfig],
        check_interval: Duration,
    ) -> Result<Self, SetupError> {
        let requests = Requests::open()?;
        let mut setup = Self {
            taps: Vec::with_capacity(configs.len()),
            configs: configs.to_vec(),
            check_interval,
            upkeep: None,
            warnings: Vec::new(),
        };
        let names: BTreeSet<&str> = configs.iter().map(|config| config.tap.as_str()).collect();
        leftover::clear(&requests, configs).await?;
        rules::remove_leftovers(&requests, &names).await?;
        for config in configs {
            // An address leaves no room for a second tap of its VPC: all devices first.
            match create_tap(config) {
                Ok(tap) => {
                    setup.warnings.extend(settings::set(&config.tap).warnings);
                    setup.taps.push(tap);
                }
                Err(error) => {
                    setup.remove().await;
                    return Err(error);
                }
            }
        }
        if let Some(warning) = settings::strict_everywhere() {
            setup.warnings.push(warning);
        }
        let shared = shared_addresses(configs);
        let mut result = Ok(());
        for (config, tap) in configs.iter().zip(&setup.taps) {
            result = configure(&requests, config, tap.interface.ifindex, &shared).await;
            if result.is_err() {
                break;
            }
        }
        let keep = |()| setup.keep(requests);
        if let Err(error) = result.and_then(keep) {
            setup.remove().await;
            return Err(error);
        }
        Ok(setup)
    }

    /// From now on the taps outlive the process.
    fn outlive(&mut self) {
        for tap in &self.taps {
            if let Err(error) = tap.device.persist() {
                self.warnings.push(format!(
                    "tap {} goes if this daemon is killed, with the routes over it: {error}",
                    tap.interface.tap
                ));
            }
        }
    }

    /// The taps, in the order of the configuration.
    pub fn taps(&self) -> &[Tap] {
        &self.taps
    }

    /// Keeps the taps as they are set up from now on.
    pub(super) fn keep(&mut self, requests: Requests) -> Result<(), SetupError> {
        let indices = self.taps.iter().map(|tap| tap.interface.ifindex);
        let taps: Vec<_> = indices.zip(self.configs.iter().cloned()).collect();
        let rules = wanted_rules(&self.configs);
        let upkeep = upkeep::start(requests, taps, rules, self.check_interval)?;
        self.upkeep = Some(upkeep);
        self.outlive();
        Ok(())
    }

    /// Removes rules and taps.
    pub async fn remove(mut self) {
        self.upkeep = None;
        let names: BTreeSet<&str> = self
            .taps
            .iter()
            .map(|tap| tap.interface.tap.as_str())
            .collect();
        let Ok(requests) = Requests::open() else {
            return;
        };
        if let Err(error) = rules::remove_leftovers(&requests, &names).await {
            tracing::warn!(%error, "rules of the taps are left behind");
        }
        for tap in &self.taps {
            if let Err(error) = leftover::remove(&requests, tap.interface.ifindex).await {
                tracing::warn!(tap = tap.interface.tap, %error, "a tap is left behind");
            }
        }
    }
}

/// The mirror's part of a set of taps: interfaces, and tables of their VPCs.
pub fn tables(configs: &[TapConfig]) -> Vec<(VpcId, u32)> {
    let tables: BTreeSet<_> = configs
        .iter()
        .map(|config| (config.interface.vpc, config.table))
        .collect();
    tables.into_iter().collect()
}

pub(super) fn create_tap(config: &TapConfig) -> Result<Tap, SetupError> {
    let failed = |source: std::io::Error| SetupError::Create {
        tap: config.tap.clone(),
        remedy: remedy(&source),
        source,
    };
    if config.tap.is_empty() || config.tap.len() > MAX_NAME {
        return Err(failed(std::io::Error::from(Errno::ENAMETOOLONG)));
    }
    let device = DeviceBuilder::new()
        .name(config.tap.clone())
        .layer(Layer::L2)
        .packet_information(false)
        .offload(false)
        .build_async()
        .map_err(failed)?;
    let ifindex =
        nix::net::if_::if_nametoindex(config.tap.as_str()).map_err(|errno| failed(errno.into()))?;
    Ok(Tap {
        interface: TapInterface {
            interface: config.interface.clone(),
            tap: config.tap.clone(),
            ifindex,
        },
        device: Arc::new(device),
    })
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) => {
            "/dev/net/tun is missing: load the module \"tun\", or give the container that device"
        }
        Some(Errno::EPERM | Errno::EACCES) => {
            "it needs CAP_NET_ADMIN: run as root, or in a network namespace of your own"
        }
        Some(Errno::EBUSY | Errno::EEXIST) => {
            "a device of that name is in use: stop the other shuntd, or name the tap differently"
        }
        Some(Errno::EINVAL) => {
            "the name is taken by another kind of device, or is none: set \"tap\" of the interface"
        }
        Some(Errno::ENAMETOOLONG) => {
            "a device name has 1 to 15 bytes: set \"tap\" of the interface"
        }
        _ => "see the kernel's log",
    }
}

pub(super) async fn configure(
    requests: &Requests,
    config: &TapConfig,
    index: u32,
    shared: &BTreeSet<IpAddr>,
) -> Result<(), SetupError> {
    let failed = |what: String| {
        move |source| SetupError::Configure {
            tap: config.tap.clone(),
            what,
            source,
        }
    };
    let interface = &config.interface;
    set_link_up(requests, index, interface)
        .await
        .map_err(failed(format!(
            "setting MAC {} and MTU {}, and up",
            interface.mac, interface.mtu
        )))?;
    add_addresses(requests, config, index).await?;
    if config.table == MAIN_TABLE {
        return Ok(());
    }
    for rule in rules_of(config, shared) {
        rule.add(requests)
            .await
            .map_err(failed(format!("adding rule \"{rule}\"")))?;
    }
    Ok(())
}

/// Adds the addresses and their routes, those that are not there.
pub(crate) async fn add_addresses(
    requests: &Requests,
    config: &TapConfig,
    index: u32,
) -> Result<(), SetupError> {
    let failed = |what: String| {
        move |source| SetupError::Configure {
            tap: config.tap.clone(),
            what,
            source,
        }
    };
    let apart = config.table != MAIN_TABLE;
    let own = &config.interface.addresses;
    for address in config.all_addresses() {
        add_address(requests, index, address, apart)
            .await
            .map_err(failed(format!("adding address {address}")))?;
    }
    let is_net = |address: &&IpNet| address.prefix_len() < address.max_prefix_len();
    for &address in own.iter().filter(is_net).filter(|_| apart) {
        let route = connected_route(index, address, config.table);
        // Behind one that another tap of the VPC has: `rtnetlink` only adds or replaces.
        let added = requests.submit(
            RouteNetlinkMessage::NewRoute(route),
            NLM_F_CREATE | NLM_F_APPEND,
        );
        match added.await {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {}
            added => added.map_err(failed(format!(
                "adding route {} to table {}",
                address.trunc(),
                config.table
            )))?,
        }
    }
    Ok(())
}

/// The gateway's addresses that more than one VPC has.
pub(super) fn shared_addresses(configs: &[TapConfig]) -> BTreeSet<IpAddr> {
    let mut owner: HashMap<IpAddr, u32> = HashMap::new();
    let mut shared = BTreeSet::new();
    for config in configs {
        for address in &config.interface.addresses {
            let ip = address.addr();
            if *owner.entry(ip).or_insert(config.table) != config.table {
                shared.insert(ip);
            }
        }
    }
    shared
}

/// Every rule that the taps need; those of the main table are the kernel's own.
pub(super) fn wanted_rules(configs: &[TapConfig]) -> Vec<Rule> {
    let shared = shared_addresses(configs);
    let apart = configs.iter().filter(|config| config.table != MAIN_TABLE);
    apart.flat_map(|config| rules_of(config, &shared)).collect()
}

/// What arrives on the tap, what is bound to it, and what the gateway answers from an address
/// of it (a socket that is bound to no device) looks into the VPC's table. From an address that
/// VPCs share such an answer could reach the wrong one, so it is not sent: bind to the device.
fn rules_of(config: &TapConfig, shared: &BTreeSet<IpAddr>) -> Vec<Rule> {
    let tap = || config.tap.clone();
    let mut rules = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        rules.push(Rule::input(family, tap(), config.table));
        rules.push(Rule::output(family, tap(), config.table));
    }
    for address in &config.interface.addresses {
        let ip = address.addr();
        let table = (!shared.contains(&ip)).then_some(config.table);
        rules.push(Rule::source(ip, table));
    }
    rules
}

async fn set_link_up(
    requests: &Requests,
    index: u32,
    interface: &Interface,
) -> Result<(), SocketError> {
    let message = LinkUnspec::new_with_index(index)
        .address(interface.mac.0.to_vec())
        .mtu(interface.mtu.into())
        .up()
        .build();
    done(requests.handle().link().set(message).execute()).await
}

/// Sets MAC and MTU again, whether the tap is up or not.
pub(crate) async fn set_mac_and_mtu(
    requests: &Requests,
    index: u32,
    interface: &Interface,
) -> Result<(), SocketError> {
    let message = LinkUnspec::new_with_index(index)
        .address(interface.mac.0.to_vec())
        .mtu(interface.mtu.into())
        .build();
    done(requests.handle().link().set(message).execute()).await
}

pub(super) async fn add_address(
    requests: &Requests,
    index: u32,
    address: IpNet,
    no_route: bool,
) -> Result<(), SocketError> {
    let mut flags = AddressFlags::Nodad;
    if no_route {
        flags |= AddressFlags::Noprefixroute;
    }
    let addresses = requests.handle().address();
    let mut request = addresses.add(index, address.addr(), address.prefix_len());
    // The builder has no setter for flags.
    let attributes = &mut request.message_mut().attributes;
    attributes.push(AddressAttribute::Flags(flags));
    done(request.replace().execute()).await
}

/// What the kernel adds by itself to its main table, here in the VPC's.
pub(super) fn connected_route(index: u32, address: IpNet, table: u32) -> RouteMessage {
    match address {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .pref_source(net.addr())
            .scope(RouteScope::Link)
            .output_interface(index)
            .table_id(table)
            .protocol(RouteProtocol::Kernel)
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(index)
            .table_id(table)
            .protocol(RouteProtocol::Kernel)
            .build(),
    }
}
