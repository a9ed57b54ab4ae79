//! `shunt p4 info`.

use std::fmt::Write as _;

use p4runtime::client::{ClientError, PipelineParts};
use p4runtime::p4info::P4InfoIndex;
use serde::Serialize;

use super::P4Error;
use super::connect::Connection;
use crate::output::Output;

/// What a switch is and runs.
#[derive(Serialize)]
struct Info {
    address: String,
    device_id: u64,
    api_version: Option<String>,
    /// Decimal text: JSON's numbers end at 53 bits.
    primary_election_id: Option<String>,
    highest_election_id: Option<String>,
    pipeline: Option<Pipeline>,
}

#[derive(Serialize)]
struct Pipeline {
    cookie: Option<String>,
    name: String,
    version: String,
    arch: String,
    tables: usize,
    actions: usize,
    action_profiles: usize,
    counters: usize,
    direct_counters: usize,
    meters: usize,
    direct_meters: usize,
    registers: usize,
    digests: usize,
    value_sets: usize,
    externs: usize,
    packet_in: bool,
    packet_out: bool,
}

pub(super) async fn run(to: &Connection, out: &Output) -> Result<(), P4Error> {
    let client = to.client().await?;
    let api_version = match client.capabilities().await {
        Ok(capabilities) => Some(capabilities.p4runtime_api_version),
        // Servers before 1.1 have no Capabilities.
        Err(ClientError::Refused { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let election = client.election().await?;
    let pipeline = client.get_pipeline(PipelineParts::P4InfoAndCookie).await?;
    let cookie = pipeline.cookie();
    let info = Info {
        address: to.address().to_owned(),
        device_id: to.device_id(),
        api_version,
        primary_election_id: election.primary.map(|id| id.to_string()),
        highest_election_id: election.highest.map(|id| id.to_string()),
        pipeline: match pipeline.p4info() {
            Some(p4info) => Some(describe(&P4InfoIndex::new(p4info.clone())?, cookie)),
            None => None,
        },
    };
    Ok(out.object(&info, || text(&info))?)
}

fn describe(index: &P4InfoIndex, cookie: Option<u64>) -> Pipeline {
    let package = index.p4info().pkg_info.clone().unwrap_or_default();
    Pipeline {
        cookie: cookie.map(|cookie| format!("{cookie:#018x}")),
        name: package.name,
        version: package.version,
        arch: package.arch,
        tables: index.tables().len(),
        actions: index.actions().len(),
        action_profiles: index.action_profiles().len(),
        counters: index.counters().len(),
        direct_counters: index.direct_counters().len(),
        meters: index.meters().len(),
        direct_meters: index.direct_meters().len(),
        registers: index.registers().len(),
        digests: index.digests().len(),
        value_sets: index.value_sets().len(),
        externs: index.externs().len(),
        packet_in: index.packet_header("packet_in").is_ok(),
        packet_out: index.packet_header("packet_out").is_ok(),
    }
}

fn text(info: &Info) -> String {
    let mut text = String::new();
    let version = info.api_version.as_deref().unwrap_or("not told");
    let primary = match (&info.primary_election_id, &info.highest_election_id) {
        (Some(id), _) => format!("a controller with election id {id}"),
        (None, Some(id)) if id != "0" => format!("none (the last had election id {id})"),
        (None, _) => "none".to_owned(),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "address   {}\ndevice    {}\napi       {version}\nprimary   {primary}",
        info.address, info.device_id
    );
    let Some(pipeline) = &info.pipeline else {
        text += "pipeline  none; load one with `shunt p4 pipeline set`\n";
        return text;
    };
    let name = match pipeline.name.as_str() {
        "" => "without a name",
        name => name,
    };
    let cookie = pipeline.cookie.as_deref().unwrap_or("none");
    let _ = writeln!(
        text,
        "pipeline  {name} {}({}), cookie {cookie}",
        match pipeline.version.as_str() {
            "" => String::new(),
            version => format!("{version} "),
        },
        pipeline.arch
    );
    let counts = [
        (pipeline.tables, "tables"),
        (pipeline.actions, "actions"),
        (pipeline.action_profiles, "action profiles"),
        (pipeline.counters, "counters"),
        (pipeline.direct_counters, "direct counters"),
        (pipeline.meters, "meters"),
        (pipeline.direct_meters, "direct meters"),
        (pipeline.registers, "registers"),
        (pipeline.digests, "digests"),
        (pipeline.value_sets, "value sets"),
        (pipeline.externs, "externs"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| match count {
            1 => format!("1 {}", what.trim_end_matches('s')),
            _ => format!("{count} {what}"),
        })
        .collect();
    let _ = writeln!(text, "          {}", counts.join(", "));
    let packets = match (pipeline.packet_in, pipeline.packet_out) {
        (true, true) => "in and out, with metadata",
        (true, false) => "in, with metadata",
        (false, true) => "out, with metadata",
        (false, false) => "without metadata",
    };
    let _ = writeln!(text, "packets   {packets}");
    text
}
