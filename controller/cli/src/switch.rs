//! `shunt switch`, `shunt switch diff` and `shunt switch reconcile`.

use std::fmt::Write as _;
use std::process::ExitCode;

use shunt_api::v1::diff_switch_response::Part;
use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{
    DiffSummary, DiffSwitchRequest, Difference, EntryAction, EntryValue, Field,
    ListSwitchesRequest, ReconcileSwitchRequest, ReconcileSwitchResponse,
};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::{Format, Output, counts};
use crate::watch::Watch;

/// Exit code of a switch that is not as it should be.
const DIFFERS: u8 = 4;
/// Exit code of a switch that could be neither compared nor put right.
const FAILED: u8 = 1;

/// What about the switches; without a command: their states.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Only the switch of this name.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Where a switch differs from what is wanted, read anew; changes nothing. Exit code 4
    /// when it differs. The flow tables are the offload engine's and are not compared.
    Diff {
        /// Which switch; all if none is named.
        name: Option<String>,
    },
    /// Read a switch anew and put it right; says what was found and what the switch refused.
    /// Exit code 4 when something is left.
    Reconcile {
        /// Which switch; all if none is named.
        name: Option<String>,
    },
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    arguments: &Arguments,
) -> Result<ExitCode, Error> {
    let named = |name: &Option<String>| name.clone().unwrap_or_default();
    match &arguments.what {
        None => list(daemon, out, named(&arguments.name))
            .await
            .map(|()| ExitCode::SUCCESS),
        Some(What::Diff { name }) => diff(daemon, out, named(name)).await,
        Some(What::Reconcile { name }) => reconcile(daemon, out, named(name)).await,
    }
}

async fn list(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    switch: String,
) -> Result<(), Error> {
    let switches = daemon.list_switches(ListSwitchesRequest { switch }).await?;
    out.list(
        &switches.into_inner().switches,
        &[
            "switch",
            "address",
            "state",
            "role",
            "wanted",
            "pending",
            "refused",
            "others",
            "sessions",
            "last error",
        ],
        |switch| {
            vec![
                switch.name.clone(),
                switch.address.clone(),
                switch.state.clone(),
                switch.role.clone(),
                switch.entries.to_string(),
                switch.pending.to_string(),
                switch.refused.to_string(),
                switch.others.to_string(),
                switch.sessions.to_string(),
                switch.last_error.clone(),
            ]
        },
    )
}

async fn diff(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    switch: String,
) -> Result<ExitCode, Error> {
    let request = DiffSwitchRequest { switch };
    let mut stream = daemon.diff_switch(request).await?.into_inner();
    let mut summaries: Vec<DiffSummary> = Vec::new();
    let mut differences: Vec<Difference> = Vec::new();
    while let Some(message) = stream.message().await? {
        match message.part {
            Some(Part::Summary(summary)) => summaries.push(summary),
            Some(Part::Difference(difference)) => differences.push(difference),
            None => {}
        }
    }
    match out.format() {
        Format::Table => out.text(&diff_text(out, &summaries, &differences))?,
        Format::Json => out.object(
            &serde_json::json!({ "switches": summaries, "differences": differences }),
            String::new,
        )?,
        Format::Jsonl => out.list(&differences, &[], |_| Vec::new())?,
    }
    for summary in summaries.iter().filter(|summary| !summary.error.is_empty()) {
        eprintln!("shunt: {}", summary.error);
    }
    let failed = summaries.iter().any(|summary| !summary.error.is_empty());
    Ok(exit_code(failed, !differences.is_empty()))
}

fn exit_code(failed: bool, differs: bool) -> ExitCode {
    match (failed, differs) {
        (true, _) => ExitCode::from(FAILED),
        (false, true) => ExitCode::from(DIFFERS),
        (false, false) => ExitCode::SUCCESS,
    }
}

fn diff_text(out: &Output, summaries: &[DiffSummary], differences: &[Difference]) -> String {
    let mut text = String::new();
    if !differences.is_empty() {
        text += &out.table(
            &["switch", "table", "key", "is", "wanted", "on the switch"],
            differences.iter().map(|difference| {
                vec![
                    difference.switch.clone(),
                    difference.table.clone(),
                    fields(&difference.key),
                    difference.kind.clone(),
                    difference.wanted.as_ref().map_or_else(dash, value),
                    match &difference.held {
                        Some(held) => value(held),
                        None if difference.fault.is_empty() => dash(),
                        None => difference.fault.clone(),
                    },
                ]
            }),
        );
        text.push('\n');
    }
    for summary in summaries.iter().filter(|summary| summary.error.is_empty()) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}: {} entries wanted, {} on the switch, {}{}",
            summary.switch,
            summary.wanted,
            summary.held,
            match summary.differences {
                0 => "no difference".to_owned(),
                1 => "1 difference".to_owned(),
                n => format!("{n} differences"),
            },
            others(summary.others),
        );
    }
    text.push_str("flow4 and flow6 are the offload engine's, and not compared\n");
    text
}

fn others(count: u64) -> String {
    match count {
        0 => String::new(),
        n => format!("; {n} of another role left alone"),
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// "name=value" words.
pub(crate) fn fields(fields: &[Field]) -> String {
    let words = fields.iter().map(|f| format!("{}={}", f.name, f.value));
    words.collect::<Vec<_>>().join(" ")
}

fn value(value: &EntryValue) -> String {
    let actions = value.actions.iter().map(action);
    let properties = value.properties.iter();
    let properties = properties.map(|f| format!("{}={}", f.name, f.value));
    actions.chain(properties).collect::<Vec<_>>().join(", ")
}

/// "name(param=value)".
pub(crate) fn action(action: &EntryAction) -> String {
    let params = action.params.iter();
    let params: Vec<_> = params.map(|f| format!("{}={}", f.name, f.value)).collect();
    let params = match params.len() {
        0 => String::new(),
        _ => format!("({})", params.join(", ")),
    };
    let weight = match action.weight {
        0 | 1 => String::new(),
        weight => format!(" weight {weight}"),
    };
    format!("{}{params}{weight}", action.name)
}

async fn reconcile(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    switch: String,
) -> Result<ExitCode, Error> {
    let request = ReconcileSwitchRequest { switch };
    let mut stream = daemon.reconcile_switch(request).await?.into_inner();
    let mut repairs: Vec<ReconcileSwitchResponse> = Vec::new();
    while let Some(repair) = stream.message().await? {
        repairs.push(repair);
    }
    match out.format() {
        Format::Table => out.text(&repair_text(&repairs))?,
        _ => out.list(&repairs, &[], |_| Vec::new())?,
    }
    for repair in repairs.iter().filter(|repair| !repair.error.is_empty()) {
        eprintln!("shunt: {}", repair.error);
    }
    let failed = repairs.iter().any(|repair| !repair.error.is_empty());
    let left = repairs.iter().any(|repair| repair.left > 0);
    Ok(exit_code(failed, left))
}

fn repair_text(repairs: &[ReconcileSwitchResponse]) -> String {
    let mut text = String::new();
    for repair in repairs.iter().filter(|repair| repair.error.is_empty()) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}: {} entries wanted; found {}; {} left{}",
            repair.switch,
            repair.wanted,
            match repair.found.is_empty() {
                true => "no difference".to_owned(),
                false => counts(&repair.found),
            },
            repair.left,
            others(repair.others),
        );
        for refusal in &repair.refusals {
            let _ = writeln!(text, "  refused: {refusal}");
        }
        let more = repair.refused.saturating_sub(repair.refusals.len() as u64);
        if more > 0 {
            let _ = writeln!(text, "  refused: {more} more");
        }
    }
    text
}
