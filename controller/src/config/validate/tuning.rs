//! Timeouts and limits.

use shunt_p4::PuntReason;
use shunt_slowpath::policy::{Limits, Timeouts};

use super::super::document::{LimitsSection, TimeoutsSection};
use super::super::fault::{Faults, known};
use super::super::model::PuntMeter;
use super::super::values::duration;
use super::within;

/// Rates that a meter can have, packets a second.
const PPS: std::ops::RangeInclusive<i64> = 1..=1_000_000_000;
/// A meter's burst is this part of a second's packets, and `BURST_MIN` at least.
const BURST_DIVISOR: u32 = 10;
const BURST_MIN: u32 = 64;
/// ICMP errors a second.
const ICMP_ERRORS: std::ops::RangeInclusive<i64> = 0..=1_000_000;
/// Connections, or new ones a second; 0: no limit.
const CONNECTIONS: std::ops::RangeInclusive<i64> = 0..=1_000_000_000;
/// Packets that wait for one neighbour.
const HELD: std::ops::RangeInclusive<i64> = 1..=1024;

/// Packets a second by reason, where the document says nothing. What forwards (a flow's first
/// packets, TCP's flags) is not to be starved; what an attacker can send for nothing is.
const fn default_pps(reason: PuntReason) -> u32 {
    match reason {
        PuntReason::FlowMiss | PuntReason::TcpFlags => 2_000_000,
        PuntReason::Fragment | PuntReason::OtherL4 | PuntReason::Unresolved => 200_000,
        PuntReason::Local => 100_000,
        PuntReason::Options | PuntReason::Mtu | PuntReason::Ttl | PuntReason::Unreachable => 10_000,
        PuntReason::Arp | PuntReason::Nd | PuntReason::Multicast | PuntReason::OtherL2 => 1_000,
    }
}

/// ARP and ND on one link must not silence another's.
const fn per_interface(reason: PuntReason) -> bool {
    matches!(reason, PuntReason::Arp | PuntReason::Nd)
}

pub(super) fn timeouts(section: &TimeoutsSection, faults: &mut Faults) -> Option<Timeouts> {
    let mut read =
        |field: &str, text: &str| faults.check(format!("timeouts.{field}"), duration(text));
    let tcp_established = read("tcp_established", &section.tcp_established);
    let tcp_transitory = read("tcp_transitory", &section.tcp_transitory);
    let tcp_time_wait = read("tcp_time_wait", &section.tcp_time_wait);
    let tcp_closed = read("tcp_closed", &section.tcp_closed);
    let udp = read("udp", &section.udp);
    let udp_stream = read("udp_stream", &section.udp_stream);
    let icmp = read("icmp", &section.icmp);
    let fragment = read("fragment", &section.fragment);
    let offload_idle = read("offload_idle", &section.offload_idle);
    Some(Timeouts {
        tcp_established: tcp_established?,
        tcp_transitory: tcp_transitory?,
        tcp_time_wait: tcp_time_wait?,
        tcp_closed: tcp_closed?,
        udp: udp?,
        udp_stream: udp_stream?,
        icmp: icmp?,
        fragment: fragment?,
        offload_idle: offload_idle?,
    })
}

/// `connections`: as many as the slow path can hold.
pub(super) fn limits(
    section: &LimitsSection,
    connections: u32,
    faults: &mut Faults,
) -> Option<Limits> {
    let mut most = |field: &str, value: i64| {
        let found = within(format!("limits.{field}"), value, CONNECTIONS, faults);
        found.map(|number: u32| (number > 0).then_some(number))
    };
    // One VPC's flood leaves a quarter of the table to the others, and its half-open
    // connections leave three quarters to everything else.
    let share = |given: Option<i64>, default: u32| given.unwrap_or_else(|| default.max(1).into());
    let per_vpc = share(section.connections_per_vpc, connections / 4 * 3);
    let connections_per_vpc = most("connections_per_vpc", per_vpc);
    let connections_per_source = most("connections_per_source", section.connections_per_source);
    let new_per_second_per_vpc = most("new_per_second_per_vpc", section.new_per_second_per_vpc);
    let new_per_second_per_source = most(
        "new_per_second_per_source",
        section.new_per_second_per_source,
    );
    let half_open = share(section.half_open_per_vpc, connections / 4);
    let half_open_per_vpc = most("half_open_per_vpc", half_open);
    let icmp_errors_per_second = within(
        "limits.icmp_errors_per_second",
        section.icmp_errors_per_second,
        ICMP_ERRORS,
        faults,
    );
    let held_per_neighbor = within(
        "limits.held_per_neighbor",
        section.held_per_neighbor,
        HELD,
        faults,
    );
    let hold_timeout = faults.check("limits.hold_timeout", duration(&section.hold_timeout));
    Some(Limits {
        icmp_errors_per_second: icmp_errors_per_second?,
        connections_per_vpc: connections_per_vpc?,
        connections_per_source: connections_per_source?,
        new_per_second_per_vpc: new_per_second_per_vpc?,
        new_per_second_per_source: new_per_second_per_source?,
        half_open_per_vpc: half_open_per_vpc?,
        held_per_neighbor: held_per_neighbor?,
        hold_timeout: hold_timeout?,
    })
}

pub(super) fn punt_meters(section: &LimitsSection, faults: &mut Faults) -> Vec<PuntMeter> {
    for (name, rate) in &section.punt_pps {
        let path = format!("limits.punt_pps.{name}");
        if !PuntReason::ALL.iter().any(|reason| reason.as_str() == name) {
            let names = PuntReason::ALL.iter().map(|reason| reason.as_str());
            faults.add(path, format!("no such reason {}", known(names)));
        } else if !PPS.contains(rate) {
            faults.add(
                path,
                format!("{rate} is out of range: {} to {}", PPS.start(), PPS.end()),
            );
        }
    }
    PuntReason::ALL
        .iter()
        .map(|&reason| {
            let given = section.punt_pps.get(reason.as_str());
            let rate_pps = given
                .and_then(|rate| u32::try_from(*rate).ok())
                .unwrap_or_else(|| default_pps(reason));
            PuntMeter {
                reason,
                rate_pps,
                burst: (rate_pps / BURST_DIVISOR).max(BURST_MIN),
                per_interface: per_interface(reason),
            }
        })
        .collect()
}
