//! `shunt p4 export`.

use std::fmt::Write as _;
use std::path::PathBuf;

use p4runtime::client::PipelineParts;
use p4runtime::named::Named;
use p4runtime::p4info::P4InfoIndex;

use super::P4Error;
use super::connect::Connection;
use super::state::{Extent, State, gather};
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Entries and default entries of every table (constant ones left out), members and groups
of action profiles, multicast groups, clone sessions, meters that have rates, value sets,
digests, entries of externs; with --registers every cell of registers, with --counters
the counters that have counted something. The same state gives the same file. What this
switch does not offer to read is named in the file's head.

P4Runtime cannot read, and so no file has: how much of a meter's burst is used up, how
long entries have been idle (idle timeouts start anew), digests that wait for an ack, a
pipeline that is saved and not committed. The pipeline itself: `shunt p4 pipeline get`.

Examples:
  shunt p4 export                     (to standard output)
  shunt p4 export backup.p4rt --registers";

/// The switch's whole state as a readable file: one entity a line, which is also what
/// `insert` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The file; standard output without.
    file: Option<PathBuf>,
    /// Registers too, every cell.
    #[arg(long)]
    registers: bool,
    /// Counters too, of which not every one is 0.
    #[arg(long)]
    counters: bool,
}

pub(super) async fn run(to: &Connection, out: &Output, what: Arguments) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    let extent = Extent {
        registers: what.registers,
        counters: what.counters,
        direct_meters: false,
    };
    let state = gather(&client, &index, extent).await?;
    let cookie = client
        .get_pipeline(PipelineParts::CookieOnly)
        .await?
        .cookie();
    let mut text = match out.is_text() {
        true => head(to.device_id(), cookie, &state, &index, extent),
        false => String::new(),
    };
    let named = state.items.into_iter().map(|item| item.named);
    let named: Vec<Named> = named.filter(says_something).collect();
    text += &out.render_lines(&named, ToString::to_string)?;
    match what.file {
        Some(path) => std::fs::write(&path, text).map_err(|source| P4Error::File { path, source }),
        None => Ok(out.text(&text)?),
    }
}

/// What the file is, and what it is without.
fn head(
    device: u64,
    cookie: Option<u64>,
    state: &State,
    index: &P4InfoIndex,
    extent: Extent,
) -> String {
    let cookie = cookie.map_or_else(|| "none".to_owned(), |cookie| format!("{cookie:#018x}"));
    let mut head = format!(
        "# P4Runtime state of device {device}, pipeline cookie {cookie}; `shunt p4 import` takes it\n"
    );
    let mut without = |what: &str, why: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(head, "# without {what}: {why}");
    };
    for what in &state.not_offered {
        without(what, "the switch does not offer to read them");
    }
    if !extent.registers && !index.registers().is_empty() {
        without("registers", "--registers was not given");
    }
    let counters = index.counters().len() + index.direct_counters().len();
    if !extent.counters && counters > 0 {
        without("counters", "--counters was not given");
    }
    head
}

/// Whether it is other than a switch starts with.
fn says_something(named: &Named) -> bool {
    match named {
        Named::Meter(cell) => cell.rates.is_some(),
        Named::DirectMeter(entry) => entry.meter.is_some(),
        Named::Counter(cell) => cell
            .count
            .iter()
            .any(|count| count.packets != 0 || count.bytes != 0),
        Named::DirectCounter(entry) => {
            let count = entry.counter.iter();
            count
                .clone()
                .any(|count| count.packets != 0 || count.bytes != 0)
        }
        _ => true,
    }
}
