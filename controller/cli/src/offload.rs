//! `shunt offload`.

use std::fmt::Write as _;

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{GetOffloadRequest, GetOffloadResponse, Latency};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::{Output, counts};

pub(crate) async fn run(daemon: &mut ShuntClient<Channel>, out: &Output) -> Result<(), Error> {
    let offload = daemon.get_offload(GetOffloadRequest {}).await?.into_inner();
    out.object(&offload, || text(&offload, out))
}

fn text(offload: &GetOffloadResponse, out: &Output) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "offload      {}\nconnections  {} in the switch, {} on their way\nsince start  \
         {} installed, {} refused ({}), {} removed, {} lost\nengine       {}\n",
        if offload.enabled { "on" } else { "off" },
        offload.connections_offloaded,
        offload.connections_pending,
        offload.connections_installed,
        offload.connections_refused,
        counts(&offload.refusals),
        offload.connections_removed,
        offload.connections_lost,
        counts(&offload.counts),
    );
    let latency = offload.latency.unwrap_or_default();
    let stages = [
        ("queued to batched", latency.queued_to_batched),
        ("batched to acknowledged", latency.batched_to_acknowledged),
        (
            "first packet to acknowledged",
            latency.first_packet_to_acknowledged,
        ),
    ];
    text += &out.table(
        &["latency (µs)", "count", "p50", "p90", "p99", "max"],
        stages
            .into_iter()
            .map(|(name, latency)| row(name, latency.unwrap_or_default())),
    );
    text.push('\n');
    text += &out.table(
        &["table", "entries", "size"],
        offload.tables.iter().map(|table| {
            vec![
                table.table.clone(),
                table.entries.to_string(),
                table.size.to_string(),
            ]
        }),
    );
    text
}

fn row(name: &str, latency: Latency) -> Vec<String> {
    let numbers = [
        latency.count,
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.max_us,
    ];
    std::iter::once(name.to_owned())
        .chain(numbers.iter().map(u64::to_string))
        .collect()
}
