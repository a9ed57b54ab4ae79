//! `[offload]`, and the VPCs' shares of the switch's flow tables.

use shunt_offload::{EnginePolicy, VpcShare};
use shunt_p4::VpcId;
use shunt_p4::flow::proto::{TCP, UDP};
use shunt_slowpath::policy::{NeverPorts, OffloadAfter, OffloadPolicy};

use super::super::document::{OffloadSection, VpcSection};
use super::super::fault::Faults;
use super::super::values::{duration, port_range};
use super::within;

/// Packets of a connection before it is offloaded, at most.
const PACKETS_MAX: u32 = 1_000_000;
/// Bytes of a connection before it is offloaded, at most: more is `never`.
const BYTES_MAX: u64 = 1 << 40;
/// Bytes within a second that a connection may be asked for: 34 Gbit/s.
const BYTES_PER_SECOND: std::ops::RangeInclusive<i64> = 0..=u32::MAX as i64;
/// Connections of a VPC in the switch.
const SHARE: std::ops::RangeInclusive<i64> = 0..=1_000_000_000;
const PERCENT: std::ops::RangeInclusive<i64> = 0..=100;

pub(super) fn policy(section: &OffloadSection, faults: &mut Faults) -> Option<OffloadPolicy> {
    let tcp = after("offload.tcp", &section.tcp, "established", faults);
    let udp = after("offload.udp", &section.udp, "first-reply", faults);
    let icmp = after("offload.icmp", &section.icmp, "first-reply", faults);
    let min_bytes_per_second = within(
        "offload.min_bytes_per_second",
        section.min_bytes_per_second,
        BYTES_PER_SECOND,
        faults,
    );
    let never_ports = never_ports(&section.never_ports, faults);
    let retry_after = faults.check("offload.retry_after", duration(&section.retry_after));
    let retry_after_max = faults.check(
        "offload.retry_after_max",
        duration(&section.retry_after_max),
    );
    if let (Some(first), Some(longest)) = (retry_after, retry_after_max)
        && longest < first
    {
        faults.add(
            "offload.retry_after_max",
            format!(
                "{} is less than offload.retry_after, {}",
                section.retry_after_max, section.retry_after
            ),
        );
    }
    Some(OffloadPolicy {
        enabled: section.enabled,
        tcp: tcp?,
        udp: udp?,
        icmp: icmp?,
        min_bytes_per_second: min_bytes_per_second?,
        never_ports: never_ports?,
        retry_after: retry_after?,
        retry_after_max: retry_after_max?,
    })
}

/// What the engine is told; `ids` has a VPC's number by its name.
pub(super) fn engine(
    section: &OffloadSection,
    vpcs: &[VpcSection],
    ids: impl Fn(&str) -> Option<VpcId>,
    faults: &mut Faults,
) -> Option<EnginePolicy> {
    let evict_idle = match section.evict_idle.as_str() {
        "never" => None,
        text => match duration(text) {
            Ok(idle) => Some(idle),
            Err(error) => {
                faults.add("offload.evict_idle", format!("{error}, or \"never\""));
                return None;
            }
        },
    };
    let mut shares = Vec::new();
    for (n, vpc) in vpcs.iter().enumerate() {
        let connections = vpc.offload_max.map(|value| {
            let path = format!("vpc[{n}].offload_max");
            within::<u32>(path, value, SHARE, faults)
        });
        let percent = vpc.offload_max_percent.map(|value| {
            let path = format!("vpc[{n}].offload_max_percent");
            within::<u8>(path, value, PERCENT, faults)
        });
        if connections.is_none() && percent.is_none() {
            continue;
        }
        if vpc.stateless {
            let field = match connections {
                Some(_) => "offload_max",
                None => "offload_max_percent",
            };
            faults.add(
                format!("vpc[{n}].{field}"),
                "a stateless VPC has no connections in the switch",
            );
        }
        let share = VpcShare {
            connections: connections.flatten(),
            percent: percent.flatten(),
        };
        shares.extend(ids(&vpc.name).map(|id| (id, share)));
    }
    Some(EnginePolicy { shares, evict_idle })
}

/// `begun`: what that is called when the connection's beginning is enough.
fn after(path: &str, text: &str, begun: &str, faults: &mut Faults) -> Option<OffloadAfter> {
    let number = |prefix: &str| text.strip_prefix(prefix)?.trim().parse::<u64>().ok();
    let packets = number("packets=")
        .and_then(|packets| u32::try_from(packets).ok())
        .filter(|packets| (1..=PACKETS_MAX).contains(packets));
    let bytes = number("bytes=").filter(|bytes| (1..=BYTES_MAX).contains(bytes));
    match (packets, bytes) {
        (Some(packets), _) => Some(OffloadAfter::Packets(packets)),
        (_, Some(bytes)) => Some(OffloadAfter::Bytes(bytes)),
        _ if text == begun => Some(OffloadAfter::FirstReply),
        _ if text == "never" => Some(OffloadAfter::Never),
        _ => {
            faults.add(
                path,
                format!(
                    "{text:?} is none of {begun:?}, \"packets=N\" with N from 1 to {PACKETS_MAX}, \
                     \"bytes=N\" with N from 1 to {BYTES_MAX}, and \"never\""
                ),
            );
            None
        }
    }
}

/// `53`, `udp/53`, `tcp/6000-6010`.
fn never_ports(texts: &[String], faults: &mut Faults) -> Option<Vec<NeverPorts>> {
    let mut rules = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        let path = format!("offload.never_ports[{n}]");
        let (protocol, ports) = match text.split_once('/') {
            Some(("tcp", ports)) => (Some(TCP), ports),
            Some(("udp", ports)) => (Some(UDP), ports),
            Some((other, _)) => {
                faults.add(
                    path,
                    format!("{other:?} has no ports here: write tcp/{{ports}} or udp/{{ports}}"),
                );
                continue;
            }
            None => (None, text.as_str()),
        };
        let ports = faults.check(path, port_range(ports));
        rules.extend(ports.map(|ports| NeverPorts { protocol, ports }));
    }
    (rules.len() == texts.len()).then_some(rules)
}
