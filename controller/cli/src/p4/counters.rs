//! `shunt p4 counters`.

use p4runtime::named::Named;

use super::P4Error;
use super::cells::{COUNTERS, place};
use super::connect::Connection;
use super::read::{entities, named};
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Examples:
  shunt p4 counters
  shunt p4 counters drops --nonzero
  shunt p4 counters drops 3
  shunt p4 counters flow4          (the counters of a table's entries)";

/// Counters, indexed and of tables' entries. `modify` sets them.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// A counter, or a table with a direct counter; all without.
    name: Option<String>,
    /// One cell of an indexed counter.
    #[arg(requires = "name")]
    index: Option<i64>,
    /// Only those that have counted something.
    #[arg(long)]
    nonzero: bool,
}

pub(super) async fn run(to: &Connection, out: &Output, which: Arguments) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    let kinds = COUNTERS.selection(&index, which.name.as_deref(), which.index)?;
    let found = named(&entities(&client, &index, kinds).await?, &index)?;
    let count = |named: &Named| match named {
        Named::Counter(cell) => cell.count.clone(),
        Named::DirectCounter(entry) => entry.counter.clone(),
        _ => None,
    };
    let counted = |named: &Named| {
        let count = count(named).unwrap_or_default();
        !which.nonzero || count.packets != 0 || count.bytes != 0
    };
    let found: Vec<Named> = found.into_iter().filter(counted).collect();
    Ok(
        out.list(&found, &["counter", "cell", "packets", "bytes"], |named| {
            let (name, cell) = place(named);
            let count = count(named).unwrap_or_default();
            vec![
                name,
                cell,
                count.packets.to_string(),
                count.bytes.to_string(),
            ]
        })?,
    )
}
