//! From the daemon's values to the API's messages.

use std::time::Duration;

use shunt_api::v1;
use shunt_offload::{FlowReading, Latencies, LatencySummary, StageLatencies};
use shunt_p4::{Encap, SwitchIndex, Tuple, VpcId, flow::proto};
use shunt_slowpath::{FlowView, Offload, Refusal, State};

use super::devices::Devices;
use crate::adopt::Restart;
use crate::config::{Config, InterfaceConfig, Switch};
use crate::kernel::{NeighborView, RouteView};
use crate::switch::SwitchView;

/// Characters of a text of the request's that an answer quotes.
const QUOTED_MAX: usize = 64;
/// Bytes that an answer says at most: a gRPC status is a header, and those have a limit.
const SAID_MAX: usize = 2_048;

/// A text as somebody sent it, cut where it is too long to be read.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        None => format!("{text:?}"),
        Some((at, _)) => format!("{:?}… ({} bytes)", &text[..at], text.len()),
    }
}

/// What is said, cut where it does not fit.
pub(super) fn said(mut text: String) -> String {
    if text.len() > SAID_MAX {
        text.truncate(text.floor_char_boundary(SAID_MAX));
        text.push('…');
    }
    text
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn count(name: impl Into<String>, value: u64) -> v1::Count {
    v1::Count {
        name: name.into(),
        value,
    }
}

pub(super) fn protocol(number: u8) -> String {
    match number {
        proto::TCP => "tcp".to_owned(),
        proto::UDP => "udp".to_owned(),
        proto::ICMP => "icmp".to_owned(),
        proto::ICMPV6 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

/// `tcp_established`, `udp_replied`: the state with its protocol.
pub(super) fn state_name(protocol_number: u8, state: State) -> String {
    format!("{}_{}", protocol(protocol_number), state.as_str())
}

pub(super) fn tuple(config: &Config, vpc: VpcId, tuple: &Tuple) -> v1::Tuple {
    v1::Tuple {
        vpc: config.vpc_name(vpc),
        protocol: protocol(tuple.proto),
        source: tuple.src.to_string(),
        source_port: tuple.src_port.into(),
        destination: tuple.dst.to_string(),
        destination_port: tuple.dst_port.into(),
    }
}

/// `now`: what the switch counts at both entries, if it is in the switch.
pub(super) fn flow(config: &Config, view: &FlowView, now: &[Option<FlowReading>; 2]) -> v1::Flow {
    let software = v1::Traffic {
        packets: view.forward.packets + view.reply.packets,
        bytes: view.forward.bytes + view.reply.bytes,
    };
    let hardware = hardware(config, view, now);
    let idle = now.iter().flatten().filter_map(|reading| reading.idle);
    v1::Flow {
        vpc: config.vpc_name(view.forward.vpc),
        to_vpc: config.vpc_name(view.reply.vpc),
        original: Some(tuple(config, view.forward.vpc, &view.forward.tuple)),
        reply: Some(tuple(config, view.reply.vpc, &view.reply.tuple)),
        state: state_name(view.forward.tuple.proto, view.state),
        offload: match view.offload {
            Offload::Software => "software",
            Offload::Installing => "pending",
            Offload::Installed => "hardware",
            Offload::RemoveQueued | Offload::Removing => "removing",
        }
        .to_owned(),
        age_ms: millis(view.age),
        idle_ms: millis(idle.fold(view.idle, Duration::min)),
        worker: view.worker.into(),
        switch: match view.offload {
            Offload::Software => String::new(),
            _ => config.switch_name(view.switch),
        },
        software: Some(software),
        hardware: Some(hardware),
        total: Some(v1::Traffic {
            packets: software.packets.saturating_add(hardware.packets),
            bytes: software.bytes.saturating_add(hardware.bytes),
        }),
    }
}

/// What it had counted when the connection left it, and what it counts now; IP alone.
fn hardware(config: &Config, view: &FlowView, now: &[Option<FlowReading>; 2]) -> v1::Traffic {
    let before = view.hardware.packets.into_iter().zip(view.hardware.bytes);
    let sides = [&view.forward, &view.reply].into_iter().zip(before);
    let mut all = v1::Traffic::default();
    for ((side, (packets, bytes)), now) in sides.zip(now) {
        let now = now.unwrap_or_default();
        let packets = packets.saturating_add(now.packets);
        let bytes = bytes.saturating_add(now.bytes);
        let headers = packets.saturating_mul(header_len(config, side.vpc));
        all.packets = all.packets.saturating_add(packets);
        all.bytes = all.bytes.saturating_add(bytes.saturating_sub(headers));
    }
    all
}

/// Bytes before the IP header of frames that arrive in a VPC: the least that one of its
/// interfaces has.
fn header_len(config: &Config, vpc: VpcId) -> u64 {
    let interfaces = config.interfaces.iter().map(|found| &found.interface);
    let of_vpc = interfaces.filter(|interface| interface.vpc == vpc);
    let lengths = of_vpc.map(|interface| match &interface.encap {
        Encap::Vxlan { underlay, .. } => {
            let under = config.interface(*underlay);
            let under = under.map_or(0, |found| tags_len(&found.interface.encap));
            ETHERNET_LEN + under + IPV4_LEN + UDP_LEN + VXLAN_LEN + ETHERNET_LEN
        }
        tagged => ETHERNET_LEN + tags_len(tagged),
    });
    lengths.min().unwrap_or(ETHERNET_LEN)
}

const ETHERNET_LEN: u64 = 14;
const IPV4_LEN: u64 = 20;
const UDP_LEN: u64 = 8;
const VXLAN_LEN: u64 = 8;

const fn tags_len(encap: &Encap) -> u64 {
    match encap {
        Encap::Untagged | Encap::Vxlan { .. } => 0,
        Encap::Vlan(_) => 4,
        Encap::Qinq { .. } => 8,
    }
}

pub(super) fn route(config: &Config, view: &RouteView) -> v1::Route {
    v1::Route {
        vpc: config.vpc_name(view.vpc),
        prefix: view.prefix.to_string(),
        kind: match (view.unreachable, view.kind) {
            (true, _) | (_, "prohibit") => "unreachable",
            (_, kind) => kind,
        }
        .to_owned(),
        paths: view
            .paths
            .iter()
            .map(|path| v1::Path {
                interface: match path.interface {
                    Some(interface) => config.interface_name(interface),
                    None => path.device.clone(),
                },
                gateway: path.gateway.map(|ip| ip.to_string()).unwrap_or_default(),
                weight: path.weight,
            })
            .collect(),
        protocol: view.protocol.clone(),
        metric: view.metric,
        mtu: view.mtu.unwrap_or(0).into(),
    }
}

pub(super) fn neighbor(config: &Config, view: &NeighborView) -> v1::Neighbor {
    v1::Neighbor {
        interface: config.interface_name(view.interface),
        vpc: config
            .interface(view.interface)
            .map(|interface| config.vpc_name(interface.interface.vpc))
            .unwrap_or_default(),
        address: view.address.to_string(),
        mac: view.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        state: view.state.to_lowercase(),
    }
}

pub(super) fn interface(
    config: &Config,
    switches: &[(Switch, SwitchView)],
    devices: &Devices,
    found: &InterfaceConfig,
) -> v1::Interface {
    let interface = &found.interface;
    let view = switches.get(interface.switch.place());
    let unresolved = view.is_some_and(|(_, view)| view.unresolved.contains(&interface.id));
    let state = match devices.fault(&found.tap) {
        Some(fault) => format!("tap {fault}"),
        None if unresolved => "remote end point unresolved".into(),
        None if interface.switch == SwitchIndex::ABSENT => {
            format!("switch {} comes when shuntd is started again", found.switch)
        }
        None => "up".into(),
    };
    v1::Interface {
        name: interface.name.clone(),
        id: interface.id.get().into(),
        vpc: config.vpc_name(interface.vpc),
        switch: found.switch.clone(),
        port: interface.port.get().into(),
        encap: encap(config, &interface.encap),
        mac: interface.mac.to_string(),
        mtu: interface.mtu.into(),
        addresses: interface
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
        tap: found.tap.clone(),
        state,
    }
}

fn encap(config: &Config, encap: &Encap) -> String {
    match encap {
        Encap::Untagged => "untagged".to_owned(),
        Encap::Vlan(vid) => format!("vlan {vid}"),
        Encap::Qinq { outer, inner } => format!("vlans {outer}.{inner}"),
        Encap::Vxlan {
            vni,
            underlay,
            local,
            remote,
        } => format!(
            "vxlan {vni} {local} -> {remote} over {}",
            config.interface_name(*underlay)
        ),
    }
}

pub(super) fn restart(restart: &Restart) -> v1::Restart {
    let refused = Refusal::ALL.iter().zip(restart.refused);
    v1::Restart {
        stage: restart.stage.as_str().to_owned(),
        starting: restart.starting,
        restored: restart.restored,
        adopted: restart.adopted,
        refused: refused
            .map(|(reason, value)| count(reason.as_str(), value))
            .collect(),
        entries: restart.entries,
        entries_done: restart.entries_done,
        took_ms: millis(restart.took),
    }
}

fn latency(summary: &LatencySummary) -> v1::Latency {
    // Rounded up: a fast stage is not 0.
    let us = |ns: u64| ns.div_ceil(1000);
    v1::Latency {
        count: summary.count,
        p50_us: us(summary.p50_ns),
        p90_us: us(summary.p90_ns),
        p99_us: us(summary.p99_ns),
        p999_us: us(summary.p999_ns),
        max_us: us(summary.max_ns),
        mean_us: us(summary.mean_ns),
    }
}

pub(super) fn latencies(latencies: &Latencies) -> v1::Latencies {
    let stages = |stages: &StageLatencies| v1::StageLatencies {
        queued: Some(latency(&stages.queued)),
        batched: Some(latency(&stages.batched)),
        on_wire: Some(latency(&stages.on_wire)),
        total: Some(latency(&stages.total)),
    };
    v1::Latencies {
        install: Some(stages(&latencies.install)),
        removal: Some(stages(&latencies.removal)),
        first_packet_to_acknowledged: Some(latency(&latencies.first_packet)),
    }
}
