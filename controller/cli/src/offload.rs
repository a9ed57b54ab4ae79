//! `shunt offload`.

use std::fmt::Write as _;

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{GetOffloadRequest, GetOffloadResponse, Latency, Restart, SwitchOffload};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::{Output, counts, duration_ms};
use crate::status::by_switch;
use crate::watch::Watch;

/// How it is looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) watch: Watch,
}

pub(crate) async fn run(daemon: &mut ShuntClient<Channel>, out: &Output) -> Result<(), Error> {
    let offload = daemon.get_offload(GetOffloadRequest {}).await?.into_inner();
    out.object(&offload, || text(&offload, out))
}

fn text(offload: &GetOffloadResponse, out: &Output) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "offload      {}\nconnections  {} in the switch, {} on their way\nrestart      {}\n\
         since start  \
         {} installed, {} refused ({}), {} evicted ({}), {} removed, {} lost\nengine       {}\n",
        if offload.enabled { "on" } else { "off" },
        offload.connections_offloaded,
        offload.connections_pending,
        restart(&offload.restart.clone().unwrap_or_default()),
        offload.connections_installed,
        offload.connections_refused,
        counts(&offload.refusals),
        offload.connections_evicted,
        counts(&offload.evictions),
        offload.connections_removed,
        offload.connections_lost,
        counts(&offload.counts),
    );
    for problem in &offload.problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    if !offload.problems.is_empty() {
        text.push('\n');
    }
    if offload.switches.len() > 1 {
        text += &out.table(
            &[
                "switch",
                "state",
                "in the switch",
                "on their way",
                "installed",
                "refused",
                "evicted",
                "removed",
                "lost",
            ],
            offload.switches.iter().map(of_switch),
        );
        text.push('\n');
    }
    let each = |rows: fn(&SwitchOffload) -> Vec<Vec<String>>| -> Vec<_> {
        let switches = offload.switches.iter();
        switches
            .map(|switch| (switch.switch.as_str(), rows(switch)))
            .collect()
    };
    text += &by_switch(
        out,
        &[
            "latency (µs)",
            "count",
            "mean",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
        ],
        each(latencies),
    );
    text.push('\n');
    text += &by_switch(out, &["table", "entries", "size"], each(tables));
    if !offload.shares.is_empty() {
        text.push('\n');
        text += &by_switch(out, &["vpc", "connections", "share"], each(shares));
    }
    text
}

fn of_switch(switch: &SwitchOffload) -> Vec<String> {
    let counts = [
        switch.connections_offloaded,
        switch.connections_pending,
        switch.connections_installed,
        switch.connections_refused,
        switch.connections_evicted,
        switch.connections_removed,
        switch.connections_lost,
    ];
    let words = [switch.switch.clone(), switch.state.clone()];
    words
        .into_iter()
        .chain(counts.iter().map(u64::to_string))
        .collect()
}

fn latencies(switch: &SwitchOffload) -> Vec<Vec<String>> {
    let latency = switch.latency.unwrap_or_default();
    let (install, removal) = (
        latency.install.unwrap_or_default(),
        latency.removal.unwrap_or_default(),
    );
    let stages = [
        ("install: in the queue", install.queued),
        ("install: until in a batch", install.batched),
        ("install: on the wire", install.on_wire),
        ("install: from the decision", install.total),
        (
            "install: from the first packet",
            latency.first_packet_to_acknowledged,
        ),
        ("removal: in the queue", removal.queued),
        ("removal: until in a batch", removal.batched),
        ("removal: on the wire", removal.on_wire),
        ("removal: from the decision", removal.total),
    ];
    stages
        .into_iter()
        .map(|(name, latency)| row(name, latency.unwrap_or_default()))
        .collect()
}

fn tables(switch: &SwitchOffload) -> Vec<Vec<String>> {
    let tables = switch.tables.iter();
    tables
        .map(|table| {
            vec![
                table.table.clone(),
                table.entries.to_string(),
                size(table.size),
            ]
        })
        .collect()
}

fn shares(switch: &SwitchOffload) -> Vec<Vec<String>> {
    let shares = switch.shares.iter();
    shares
        .map(|share| {
            vec![
                share.vpc.clone(),
                share.connections.to_string(),
                size(share.max),
            ]
        })
        .collect()
}

fn size(size: u64) -> String {
    if size == u64::MAX {
        "not known".to_owned()
    } else {
        size.to_string()
    }
}

/// What was taken back of the daemon before.
pub(crate) fn restart(restart: &Restart) -> String {
    let how = match restart.stage.as_str() {
        "done" => format!("done in {}", duration_ms(restart.took_ms)),
        "entries" => format!(
            "adopting {} of {} entries",
            restart.entries_done, restart.entries
        ),
        "read_back" => "waiting for the switch's entries".to_owned(),
        "state_file" => "reading the state file".to_owned(),
        _ => "waiting for the kernel's routes".to_owned(),
    };
    format!(
        "{how}: {} connections from the state file, {} adopted in the switch, refused {}",
        restart.restored,
        restart.adopted,
        counts(&restart.refused)
    )
}

fn row(name: &str, latency: Latency) -> Vec<String> {
    let numbers = [
        latency.count,
        latency.mean_us,
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us,
    ];
    std::iter::once(name.to_owned())
        .chain(numbers.iter().map(u64::to_string))
        .collect()
}
