//! `shunt status` and `shunt version`.

use std::fmt::Write as _;
use std::process::ExitCode;

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{GetStatusRequest, GetStatusResponse};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::{Output, counts, duration_ms};
use crate::watch::Watch;

/// Exit code of a daemon that is not converged or is degraded.
const DEGRADED: u8 = 4;

/// How the status is looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) watch: Watch,
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
) -> Result<ExitCode, Error> {
    let status = daemon.get_status(GetStatusRequest {}).await?.into_inner();
    out.object(&status, || text(&status, out))?;
    let well = status.converged && status.problems.is_empty();
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DEGRADED)
    })
}

pub(crate) async fn version(daemon: &mut ShuntClient<Channel>, out: &Output) -> Result<(), Error> {
    let status = daemon.get_status(GetStatusRequest {}).await?.into_inner();
    let versions = serde_json::json!({
        "shunt": env!("CARGO_PKG_VERSION"),
        "shuntd": status.version,
    });
    out.object(&versions, || {
        format!(
            "shunt   {}\nshuntd  {}\n",
            env!("CARGO_PKG_VERSION"),
            status.version
        )
    })
}

fn text(status: &GetStatusResponse, out: &Output) -> String {
    let mut text = String::new();
    let mirror = status.mirror.unwrap_or_default();
    let slow = status.slow_path.clone().unwrap_or_default();
    let offload = status.offload.unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}, up {}",
        if status.converged {
            "converged"
        } else {
            "NOT converged"
        },
        duration_ms(status.uptime_seconds.saturating_mul(1000)),
    );
    for problem in &status.problems {
        let _ = writeln!(text, "  problem: {problem}");
    }
    text.push('\n');
    for switch in &status.switches {
        let _ = writeln!(
            text,
            "switch     {} at {}: {}, {}; {} entries wanted, {} pending, {} refused",
            switch.name,
            switch.address,
            switch.state,
            switch.role,
            switch.entries,
            switch.pending,
            switch.refused
        );
        if !switch.last_error.is_empty() {
            let _ = writeln!(text, "           last error: {}", switch.last_error);
        }
    }
    let _ = writeln!(
        text,
        "mirror     {}; {} routes, {} neighbours, {} next hops; {} batches, {} overruns, {} resyncs",
        if mirror.synchronised {
            "in step"
        } else {
            "not in step yet"
        },
        mirror.routes,
        mirror.neighbors,
        mirror.nexthops,
        mirror.batches,
        mirror.overruns,
        mirror.resyncs
    );
    let _ = writeln!(
        text,
        "slow path  {}: {} of {} connections, {} NAT leases; {} packets in, {} out\n           \
         punts {}\n           drops {}",
        slow.device,
        slow.connections,
        slow.connections_max,
        slow.nat_leases,
        slow.rx_packets,
        slow.tx_packets,
        counts(&slow.punts),
        counts(&slow.drops)
    );
    let _ = writeln!(
        text,
        "offload    {}: {} connections in the switch, {} on their way\nrestart    {}\n",
        if offload.enabled { "on" } else { "off" },
        offload.installed,
        offload.pending,
        crate::offload::restart(&status.restart.clone().unwrap_or_default())
    );
    let tables = status.switches.iter().map(|switch| {
        let rows = switch.tables.iter().map(|table| {
            vec![
                table.table.clone(),
                table.entries.to_string(),
                table.size.to_string(),
            ]
        });
        (switch.name.as_str(), rows.collect())
    });
    text += &by_switch(out, &["table", "entries", "size"], tables.collect());
    text
}

/// A table of each switch's rows; which is whose is said where there are several.
pub(crate) fn by_switch(
    out: &Output,
    header: &[&str],
    switches: Vec<(&str, Vec<Vec<String>>)>,
) -> String {
    if let [(_, rows)] = switches.as_slice() {
        return out.table(header, rows.iter().cloned());
    }
    let header: Vec<&str> = std::iter::once("switch")
        .chain(header.iter().copied())
        .collect();
    let rows = switches.into_iter().flat_map(|(switch, rows)| {
        let rows = rows.into_iter();
        rows.map(move |row| std::iter::once(switch.to_owned()).chain(row).collect())
    });
    out.table(&header, rows)
}
