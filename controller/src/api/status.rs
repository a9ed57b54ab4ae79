//! Whether everything is as it should be, and what is not.

use shunt_api::v1;
use shunt_offload::OffloadStats;
use shunt_p4::{Encap, PuntReason};
use shunt_slowpath::{DropReason, SlowPathStats, State};

use super::convert::{self, count};
use super::devices::Devices;
use super::offload::{self, Engines};
use super::service::Api;
use super::switches;
use crate::adopt::{Restart, Stage};
use crate::config::{Config, Current, Switch};
use crate::kernel::MirrorStats;
use crate::switch::{SwitchState, SwitchView};

/// Everything that the status is made of, as of one moment.
pub(super) struct Parts {
    pub(super) current: Current,
    /// What the newest revision still asks for.
    pub(super) missing: Option<String>,
    /// In the order of the switches.
    pub(super) switches: Vec<(Switch, SwitchView)>,
    pub(super) switches_converged: bool,
    pub(super) mirror: MirrorStats,
    pub(super) synchronised: bool,
    pub(super) slow_path: Option<SlowPathStats>,
    /// Of the engines that run.
    pub(super) offload: Engines,
    pub(super) restart: Restart,
}

pub(super) fn status(api: &Api, parts: &Parts) -> v1::GetStatusResponse {
    let taken_back = parts.restart.stage == Stage::Done;
    let converged =
        parts.switches_converged && parts.synchronised && parts.missing.is_none() && taken_back;
    let config = &parts.current.config;
    let switches = parts.switches.iter();
    let switches: Vec<_> = switches
        .map(|(switch, view)| switches::state(switch, view, api.tables(&view.tables)))
        .collect();
    let devices = parts
        .switches
        .iter()
        .map(|(switch, _)| switch.device.as_str());
    let device = devices.collect::<Vec<_>>().join(", ");
    let sum = |of: fn(&OffloadStats) -> u64| parts.offload.iter().map(|(_, stats)| of(stats)).sum();
    v1::GetStatusResponse {
        restart: Some(convert::restart(&parts.restart)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: api.started.elapsed().as_secs(),
        converged,
        problems: problems(api, parts),
        switch: switches.first().cloned(),
        switches,
        mirror: Some(v1::MirrorStatus {
            synchronised: parts.synchronised,
            routes: parts.mirror.routes,
            neighbors: parts.mirror.neighbors,
            nexthops: parts.mirror.nexthops,
            batches: parts.mirror.batches,
            overruns: parts.mirror.overruns,
            resyncs: parts.mirror.resyncs,
        }),
        slow_path: parts
            .slow_path
            .as_ref()
            .map(|stats| slow_path(device, stats)),
        offload: Some(v1::OffloadSummary {
            enabled: config.policy.offload.enabled,
            installed: sum(|stats| stats.in_hardware),
            pending: sum(|stats| stats.queued + stats.installing),
        }),
    }
}

fn problems(api: &Api, parts: &Parts) -> Vec<String> {
    let mut problems = Vec::new();
    let config = &parts.current.config;
    for (switch, view) in &parts.switches {
        problems.extend(switch_problems(config, &switch.name, view));
    }
    let revision = parts.current.revision;
    let waiting = &parts.current.waiting;
    if !waiting.is_empty() {
        problems.push(format!(
            "revision {revision} of the configuration: {} takes effect when shuntd is started again",
            waiting.join(", ")
        ));
    }
    // A switch that is not ready has been told of.
    let ready = |(_, view): &(Switch, SwitchView)| view.state == SwitchState::Ready;
    let all_ready = parts.switches.iter().all(ready);
    let missing = parts.missing.as_ref();
    if let Some(missing) = missing.filter(|_| all_ready) {
        problems.push(format!(
            "revision {revision} of the configuration: {missing}"
        ));
    }
    let devices = Devices::now();
    let taps = config.interfaces.iter();
    let taps = taps.map(|found| (found.tap.as_str(), "no routes lead over it"));
    let slow_path = config.switches.iter();
    let slow_path =
        slow_path.map(|switch| (switch.device.as_str(), "no new connection gets through"));
    for (device, effect) in taps.chain(slow_path) {
        match devices.fault(device) {
            Some("down") => problems.push(format!(
                "device {device} is down: {effect}; `ip link set {device} up`"
            )),
            Some(fault) => problems.push(format!(
                "device {device} is {fault}: {effect}; start shuntd again"
            )),
            None => {}
        }
    }
    if !parts.synchronised {
        problems.push("the kernel's routes are not loaded yet".to_owned());
    }
    problems.extend(starting(&parts.restart));
    if parts.mirror.unsupported > 0 {
        problems.push(format!(
            "{} prefixes are unreachable because their routes ask for what shunt does not do",
            parts.mirror.unsupported
        ));
    }
    problems.extend(offload::problems(&parts.offload));
    if parts.offload.len() < parts.switches.len() {
        problems.push("the offload engine has ended".to_owned());
    }
    let exhausted = api.pools.exhausted(std::time::Instant::now());
    problems.extend(exhausted.iter().map(|pool| pool.text(config)));
    if parts.slow_path.is_none() {
        problems.push("the slow path does not answer".to_owned());
    }
    problems
}

fn switch_problems(config: &Config, name: &str, view: &SwitchView) -> Vec<String> {
    let mut problems = Vec::new();
    let because = view
        .last_error
        .as_ref()
        .map(|error| format!(": {error}"))
        .unwrap_or_default();
    match view.state {
        SwitchState::Ready if view.refused > 0 => problems.push(format!(
            "switch {name} refused {} entries, last{because}",
            view.refused
        )),
        SwitchState::Ready => {}
        state => problems.push(format!("switch {name} is {}{because}", state.as_str())),
    }
    for id in &view.unresolved {
        let Some(found) = config.interface(*id) else {
            continue;
        };
        if let Encap::Vxlan { remote, .. } = found.interface.encap {
            problems.push(format!(
                "interface {} cannot send: the way to {remote} is not resolved in the \
                 underlay's VPC",
                found.interface.name
            ));
        }
    }
    problems
}

/// What a restart still waits for.
fn starting(restart: &Restart) -> Option<String> {
    let what = match restart.stage {
        // A problem of its own.
        Stage::Routes | Stage::Done => return None,
        Stage::StateFile => format!("{} connections are back", restart.restored),
        Stage::ReadBack => "no switch has told what it has".to_owned(),
        Stage::Entries if restart.entries_done >= restart.entries => {
            "not every switch has told what it has".to_owned()
        }
        Stage::Entries => format!(
            "adopting {} of {} entries",
            restart.entries_done, restart.entries
        ),
    };
    let effect = match restart.starting {
        true => "; no connection is begun meanwhile",
        false => "",
    };
    Some(format!(
        "connections of the daemon before are taken back: {what}{effect}"
    ))
}

fn slow_path(device: String, stats: &SlowPathStats) -> v1::SlowPathStatus {
    let counters = &stats.counters;
    let punts = PuntReason::ALL.iter();
    let drops = DropReason::ALL.iter();
    let states = State::ALL.iter();
    v1::SlowPathStatus {
        device,
        connections: stats.connections(),
        connections_max: stats.capacity,
        rx_packets: counters.received.packets,
        rx_bytes: counters.received.bytes,
        tx_packets: counters.sent.packets,
        tx_bytes: counters.sent.bytes,
        punts: punts
            .map(|reason| count(reason.as_str(), counters.punted(*reason)))
            .collect(),
        drops: drops
            .map(|reason| count(reason.as_str(), counters.dropped(*reason)))
            .collect(),
        states: states
            .map(|state| count(state.as_str(), stats.in_state(*state)))
            .collect(),
        nat_leases: stats.pools.iter().map(|pool| u64::from(pool.leased)).sum(),
    }
}
