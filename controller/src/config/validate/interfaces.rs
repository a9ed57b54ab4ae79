//! VPCs and interfaces.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use shunt_p4::{
    Encap, Interface, InterfaceId, MacAddr, SwitchIndex, SwitchPort, VlanId, Vni, Vpc, VpcId,
};

use super::super::document::{Document, InterfaceSection};
use super::super::fault::{Faults, known};
use super::super::model::{InterfaceConfig, Switch, VpcConfig};
use super::super::values;
use super::{Names, Unique, device_name, name, number, within};

/// Largest IP packet of an interface, bytes: RFC 791's 576 that every host takes, to a jumbo frame.
const MTU: std::ops::RangeInclusive<i64> = 576..=9216;
/// A VPC's share of an overloaded slow path.
const WEIGHT: std::ops::RangeInclusive<i64> = 1..=shunt_slowpath::worker::fair::MAX_WEIGHT as i64;
/// RFC 8200, section 5.
const IPV6_MIN_MTU: u16 = 1280;
/// What Ethernet without tunnel carries.
const DEFAULT_MTU: u16 = 1500;
/// Bytes that a tunnel adds to an IP packet: inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20.
const VXLAN_OVERHEAD: u16 = 50;
/// Kernel tables that are not for a VPC: unspec (0), default (253), local (255).
const RESERVED_TABLES: [i64; 3] = [0, 253, 255];

/// An interface and where the document has it.
pub(super) struct Found {
    pub(super) index: usize,
    pub(super) config: InterfaceConfig,
}

/// The VPCs whose own values are right.
pub(super) fn vpcs(document: &Document, faults: &mut Faults) -> Vec<VpcConfig> {
    let mut names = Unique::new("the name");
    let mut ids = Unique::new("the id");
    let mut tables = Unique::new("the kernel table");
    if document.vpc.is_empty() {
        faults.add("vpc", "no VPC is configured: add a [[vpc]] section");
    }
    let mut found = Vec::new();
    for (index, section) in document.vpc.iter().enumerate() {
        let at = |field: &str| format!("vpc[{index}].{field}");
        name(at("name"), &section.name, faults);
        names.claim(at("name"), section.name.clone(), faults);
        let id = number::<VpcId>(at("id"), section.id, faults);
        ids.claim(at("id"), section.id, faults);
        tables.claim(at("table"), section.table, faults);
        let table = u32::try_from(section.table)
            .ok()
            .filter(|_| !RESERVED_TABLES.contains(&section.table));
        if table.is_none() {
            faults.add(
                at("table"),
                format!(
                    "{} cannot be a VPC's kernel table: 1 to {}, but not 253 and 255",
                    section.table,
                    u32::MAX
                ),
            );
        }
        let weight = within(at("weight").as_str(), section.weight, WEIGHT, faults);
        if let (Some(id), Some(table)) = (id, table) {
            found.push(VpcConfig {
                vpc: Vpc {
                    id,
                    name: section.name.clone(),
                    stateless: section.stateless,
                },
                table,
                // A wrong one is a fault already, and no reason not to know the VPC.
                weight: weight.unwrap_or_default(),
            });
        }
    }
    found.sort_by_key(|vpc| vpc.vpc.id);
    found
}

/// The interfaces whose own values and references are right.
pub(super) fn interfaces(
    document: &Document,
    vpcs: &Names<'_>,
    switches: &[Option<Switch>],
    faults: &mut Faults,
) -> Vec<Found> {
    if document.interface.is_empty() {
        faults.add(
            "interface",
            "no interface is configured: add an [[interface]] section",
        );
    }
    let mut names = Unique::new("the name");
    let mut ids = Unique::new("the id");
    let mut taps = Unique::new("the tap");
    let mut found: Vec<Found> = Vec::new();
    // Ports first, so that tunnels find their underlay wherever it is written.
    let sections = document.interface.iter().enumerate();
    let (tunnels, ports): (Vec<_>, Vec<_>) = sections.partition(|(_, section)| is_tunnel(section));
    for (index, section) in ports.into_iter().chain(tunnels) {
        let at = |field: &str| format!("interface[{index}].{field}");
        name(at("name"), &section.name, faults);
        names.claim(at("name"), section.name.clone(), faults);
        let id = number::<InterfaceId>(at("id"), section.id, faults);
        ids.claim(at("id"), section.id, faults);
        let vpc = vpcs.vpc(at("vpc"), &section.vpc, faults);
        let tap = section
            .tap
            .clone()
            .unwrap_or_else(|| format!("sh-{}", section.name));
        device_name(at("tap"), &tap, faults);
        taps.claim(at("tap"), tap.clone(), faults);
        let mac = mac(at("mac"), &section.mac, faults);
        let addresses = addresses(index, section, faults);
        let carrier = if is_tunnel(section) {
            tunnel(index, section, document, &found, faults)
        } else {
            port(index, section, document, switches, faults)
        };
        let mtu = mtu(index, section, carrier.as_ref(), &addresses, faults);
        let (Some(id), Some(vpc), Some(mac), Some(mtu), Some(carrier)) =
            (id, vpc, mac, mtu, carrier)
        else {
            continue;
        };
        found.push(Found {
            index,
            config: InterfaceConfig {
                interface: Interface {
                    id,
                    name: section.name.clone(),
                    vpc,
                    switch: carrier.switch,
                    port: carrier.port,
                    encap: carrier.encap,
                    mac,
                    mtu,
                    addresses,
                },
                tap,
                switch: switch_name(document, carrier.switch),
            },
        });
    }
    found.sort_by_key(|found| found.index);
    disjoint(&found, faults);
    found.sort_by_key(|found| found.config.interface.id);
    found
}

/// What carries an interface's frames.
struct Carrier {
    switch: SwitchIndex,
    port: SwitchPort,
    encap: Encap,
    default_mtu: u16,
    /// Of an underlay less the tunnel's headers.
    max_mtu: Option<(u16, String)>,
}

fn is_tunnel(section: &InterfaceSection) -> bool {
    section.vni.is_some()
        || section.underlay.is_some()
        || section.local.is_some()
        || section.remote.is_some()
}

fn port(
    index: usize,
    section: &InterfaceSection,
    document: &Document,
    switches: &[Option<Switch>],
    faults: &mut Faults,
) -> Option<Carrier> {
    let at = |field: &str| format!("interface[{index}].{field}");
    let place = switch_of(index, section, document, faults);
    let switch = place.and_then(|place| switches.get(place)?.as_ref());
    let port = match section.port {
        Some(port) => number::<SwitchPort>(at("port"), port, faults),
        None => {
            faults.add(
                format!("interface[{index}]"),
                "it has neither a port nor a tunnel (vni, underlay, local, remote)",
            );
            None
        }
    };
    if let (Some(port), Some(place), Some(switch)) = (port, place, switch)
        && port == switch.slow_path_port
    {
        faults.add(
            at("port"),
            format!("port {port} is the slow path's (switch[{place}].slow_path_port)"),
        );
    }
    let encap = match (section.vlan, section.vlans.as_deref()) {
        (None, None) => Some(Encap::Untagged),
        (Some(vlan), None) => number::<VlanId>(at("vlan"), vlan, faults).map(Encap::Vlan),
        (None, Some(&[outer, inner])) => {
            let outer = number::<VlanId>(at("vlans[0]"), outer, faults);
            let inner = number::<VlanId>(at("vlans[1]"), inner, faults);
            outer
                .zip(inner)
                .map(|(outer, inner)| Encap::Qinq { outer, inner })
        }
        (None, Some(other)) => {
            faults.add(
                at("vlans"),
                format!("{} tags: write the outer and the inner one", other.len()),
            );
            None
        }
        (Some(_), Some(_)) => {
            faults.add(at("vlans"), "vlan is there already: one of the two");
            None
        }
    };
    Some(Carrier {
        switch: SwitchIndex::of(place?),
        port: port?,
        encap: encap?,
        default_mtu: DEFAULT_MTU,
        max_mtu: None,
    })
}

/// The place of an interface's switch in the document.
fn switch_of(
    index: usize,
    section: &InterfaceSection,
    document: &Document,
    faults: &mut Faults,
) -> Option<usize> {
    let switches = document.switch.as_slice();
    let path = format!("interface[{index}].switch");
    let there_are = || known(switches.iter().map(|switch| switch.name.as_str()));
    match &section.switch {
        Some(named) => {
            let place = switches.iter().position(|switch| switch.name == *named);
            // Without any there is a fault already.
            if place.is_none() && !switches.is_empty() {
                faults.add(path, format!("no switch named {named:?} {}", there_are()));
            }
            place
        }
        None if switches.len() > 1 => {
            let message = format!("there are several switches: say which {}", there_are());
            faults.add(path, message);
            None
        }
        // A port without a switch is looked at all the same.
        None => Some(0),
    }
}

fn switch_name(document: &Document, place: SwitchIndex) -> String {
    let switch = document.switch.get(place.place());
    switch.map(|switch| switch.name.clone()).unwrap_or_default()
}

fn tunnel(
    index: usize,
    section: &InterfaceSection,
    document: &Document,
    found: &[Found],
    faults: &mut Faults,
) -> Option<Carrier> {
    let at = |field: &str| format!("interface[{index}].{field}");
    let own = format!("interface[{index}]");
    for (field, given) in [
        ("port", section.port.is_some()),
        ("vlan", section.vlan.is_some()),
        ("vlans", section.vlans.is_some()),
    ] {
        if given {
            faults.add(at(field), "a tunnel has none: it takes its underlay's");
        }
    }
    let vni = match section.vni {
        Some(vni) => number::<Vni>(at("vni"), vni, faults),
        None => missing(&own, "vni", faults),
    };
    let end_point = |field: &str, text: &Option<String>, faults: &mut Faults| match text {
        None => missing(&own, field, faults),
        Some(text) => match text.parse::<Ipv4Addr>() {
            Ok(address)
                if !address.is_unspecified()
                    && !address.is_multicast()
                    && !address.is_broadcast() =>
            {
                Some(address)
            }
            Ok(address) => {
                faults.add(at(field), format!("{address} cannot be an end point"));
                None
            }
            Err(_) => {
                faults.add(
                    at(field),
                    format!("{text:?} is not an IPv4 address (the underlay is IPv4)"),
                );
                None
            }
        },
    };
    let local = end_point("local", &section.local, faults);
    let remote = end_point("remote", &section.remote, faults);
    if let (Some(local), Some(remote)) = (local, remote)
        && local == remote
    {
        faults.add(at("remote"), format!("{remote} is the local end point"));
    }
    let Some(underlay_name) = &section.underlay else {
        return missing(&own, "underlay", faults);
    };
    let Some(underlay) = found
        .iter()
        .map(|found| &found.config.interface)
        .find(|interface| interface.name == *underlay_name)
    else {
        let named = document.interface.iter().find(|i| i.name == *underlay_name);
        match named {
            Some(other) if is_tunnel(other) => faults.add(
                at("underlay"),
                format!("{underlay_name:?} is itself a tunnel: name an interface with a port"),
            ),
            // Its own faults are named where it stands.
            Some(_) => {}
            None => {
                let ports = document.interface.iter().filter(|i| !is_tunnel(i));
                faults.add(
                    at("underlay"),
                    format!(
                        "no interface named {underlay_name:?} {}",
                        known(ports.map(|i| i.name.as_str()))
                    ),
                );
            }
        }
        return None;
    };
    if matches!(underlay.encap, Encap::Qinq { .. }) {
        faults.add(
            at("underlay"),
            format!("{underlay_name:?} has two tags, and tunnels support at most one"),
        );
    }
    if let Some(local) = local
        && !underlay
            .addresses
            .iter()
            .any(|net| net.addr() == IpAddr::V4(local))
    {
        faults.add(
            at("local"),
            format!("{local} is not an address of the underlay {underlay_name:?}"),
        );
    }
    let max = underlay.mtu.saturating_sub(VXLAN_OVERHEAD);
    let on = switch_name(document, underlay.switch);
    if let Some(named) = &section.switch
        && *named != on
    {
        faults.add(
            at("switch"),
            format!("a tunnel is on its underlay's switch, and {underlay_name:?} is on {on:?}"),
        );
    }
    Some(Carrier {
        switch: underlay.switch,
        port: underlay.port,
        encap: Encap::Vxlan {
            vni: vni?,
            underlay: underlay.id,
            local: local?,
            remote: remote?,
        },
        default_mtu: max,
        max_mtu: Some((max, underlay_name.clone())),
    })
}

fn missing<T>(path: &str, field: &str, faults: &mut Faults) -> Option<T> {
    faults.add(
        path,
        format!(
            "it is a tunnel and has no {field}: vni, underlay, local and remote belong together"
        ),
    );
    None
}

fn mac(path: String, text: &str, faults: &mut Faults) -> Option<MacAddr> {
    let mac = faults.check(path.clone(), text.parse::<MacAddr>())?;
    if mac.is_multicast() || mac == MacAddr::default() {
        faults.add(path, format!("{mac} is not a station's address"));
        return None;
    }
    Some(mac)
}

fn addresses(index: usize, section: &InterfaceSection, faults: &mut Faults) -> Vec<IpNet> {
    let mut addresses = Vec::new();
    for (position, text) in section.addresses.iter().enumerate() {
        let path = format!("interface[{index}].addresses[{position}]");
        let Some(net) = faults.check(path.clone(), values::interface_prefix(text)) else {
            continue;
        };
        let address = net.addr();
        let is_host = match net {
            IpNet::V4(v4) => {
                v4.prefix_len() >= 31 || (v4.addr() != v4.network() && v4.addr() != v4.broadcast())
            }
            IpNet::V6(_) => true,
        };
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() || !is_host {
            faults.add(
                path,
                format!("{address} cannot be a gateway's address in {net}"),
            );
        } else {
            addresses.push(net);
        }
    }
    addresses
}

fn mtu(
    index: usize,
    section: &InterfaceSection,
    carrier: Option<&Carrier>,
    addresses: &[IpNet],
    faults: &mut Faults,
) -> Option<u16> {
    let path = format!("interface[{index}].mtu");
    let mtu = match section.mtu {
        Some(mtu) => within::<u16>(path.clone(), mtu, MTU, faults)?,
        None => carrier.map_or(DEFAULT_MTU, |carrier| carrier.default_mtu),
    };
    if mtu < IPV6_MIN_MTU && addresses.iter().any(|net| net.addr().is_ipv6()) {
        faults.add(
            path.clone(),
            format!("{mtu} is too little for IPv6: {IPV6_MIN_MTU} at least"),
        );
    }
    if let Some((max, underlay)) = carrier.and_then(|carrier| carrier.max_mtu.as_ref())
        && mtu > *max
    {
        faults.add(
            path,
            format!(
                "{mtu} does not fit the underlay {underlay:?}: {max} at most \
                 (its MTU less {VXLAN_OVERHEAD} for the tunnel)"
            ),
        );
    }
    Some(mtu)
}

/// What classification and the link need to be unique between interfaces.
fn disjoint(found: &[Found], faults: &mut Faults) {
    let mut wires = Unique::new("");
    let mut tunnels = Unique::new("");
    let mut macs = Unique::new("");
    for Found { index, config } in found {
        let interface = &config.interface;
        let vpc = interface.vpc;
        macs.claim(
            format!("interface[{index}].mac"),
            Spelled(
                (vpc, interface.mac),
                format!("the MAC address {} in the same VPC", interface.mac),
            ),
            faults,
        );
        match interface.encap {
            Encap::Vxlan {
                vni,
                underlay,
                local,
                ..
            } => {
                // Tunnels are told apart by (underlay VPC, local end point, VNI).
                let underlay_vpc = found
                    .iter()
                    .find(|other| other.config.interface.id == underlay)
                    .map(|other| other.config.interface.vpc);
                tunnels.claim(
                    format!("interface[{index}].vni"),
                    Spelled(
                        (underlay_vpc, local, vni),
                        format!("VNI {vni} at end point {local}"),
                    ),
                    faults,
                );
            }
            Encap::Untagged => {
                claim_wire(&mut wires, *index, interface, "port", "untagged", faults)
            }
            Encap::Vlan(vid) => {
                claim_wire(
                    &mut wires,
                    *index,
                    interface,
                    "vlan",
                    &format!("VLAN {vid}"),
                    faults,
                );
            }
            Encap::Qinq { outer, inner } => claim_wire(
                &mut wires,
                *index,
                interface,
                "vlans",
                &format!("VLANs {outer} and {inner}"),
                faults,
            ),
        }
    }
    overlaps(found, faults);
}

fn claim_wire(
    wires: &mut Unique<Spelled<(SwitchIndex, SwitchPort, String)>>,
    index: usize,
    interface: &Interface,
    field: &str,
    tags: &str,
    faults: &mut Faults,
) {
    let port = interface.port;
    wires.claim(
        format!("interface[{index}].{field}"),
        Spelled(
            (interface.switch, port, tags.to_owned()),
            format!("port {port}, {tags},"),
        ),
        faults,
    );
}

/// Prefixes of one VPC's links.
fn overlaps(found: &[Found], faults: &mut Faults) {
    let links: Vec<(usize, usize, VpcId, IpNet)> = found
        .iter()
        .flat_map(|found| {
            let interface = &found.config.interface;
            let nets = interface.addresses.iter().enumerate();
            nets.map(move |(position, net)| (found.index, position, interface.vpc, *net))
        })
        .collect();
    for (at, (index, position, vpc, net)) in links.iter().enumerate() {
        for (other_index, other_position, other_vpc, other) in links.iter().take(at) {
            // Every link has fe80::/64.
            if vpc != other_vpc || is_link_local(net) {
                continue;
            }
            let first = format!("interface[{other_index}].addresses[{other_position}]");
            let path = format!("interface[{index}].addresses[{position}]");
            if net.addr() == other.addr() {
                faults.add(path, format!("{} is taken by {first}", net.addr()));
            } else if index != other_index
                && (net.contains(&other.trunc()) || other.contains(&net.trunc()))
            {
                faults.add(
                    path,
                    format!("{net} overlaps {other} of {first} in the same VPC"),
                );
            }
        }
    }
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// A key with its text.
struct Spelled<K>(K, String);

impl<K: PartialEq> PartialEq for Spelled<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K: Eq> Eq for Spelled<K> {}

impl<K: std::hash::Hash> std::hash::Hash for Spelled<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<K> fmt::Display for Spelled<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}
