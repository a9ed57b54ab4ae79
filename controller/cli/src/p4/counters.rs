//! `shunt p4 counters`.

use p4runtime::named::Named;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4info::P4InfoIndex;

use super::P4Error;
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
    let kinds = selection(&index, &which)?;
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
            let (name, cell) = super::meters::place(named);
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

fn selection(index: &P4InfoIndex, which: &Arguments) -> Result<Vec<Kind>, P4Error> {
    let indexed = |id: u32, cell: Option<i64>| {
        Kind::CounterEntry(pb::CounterEntry {
            counter_id: id,
            index: cell.map(|index| pb::Index { index }),
            data: None,
        })
    };
    let direct = |table_id: u32| {
        Kind::DirectCounterEntry(pb::DirectCounterEntry {
            table_entry: Some(pb::TableEntry {
                table_id,
                ..Default::default()
            }),
            data: None,
        })
    };
    let Some(name) = &which.name else {
        let all = index
            .counters()
            .iter()
            .map(|counter| indexed(counter.id, None));
        let directs = index.direct_counters().iter();
        return Ok(all.chain(directs.map(|one| direct(one.table_id))).collect());
    };
    if let Ok(table) = index.table(name) {
        let there = index.direct_counter_of(table).is_some();
        return match (there, index.counter(name)) {
            (true, _) => Ok(vec![direct(table.id)]),
            (false, Ok(counter)) => Ok(vec![indexed(counter.id, which.index)]),
            (false, Err(_)) => Err(P4Error::Usage(format!(
                "table {name:?} has no direct counter"
            ))),
        };
    }
    if let Ok(counter) = index.direct_counter(name) {
        return Ok(vec![direct(counter.table_id)]);
    }
    let counter = index.counter(name)?;
    super::meters::in_range("counter", name, which.index, counter.size)?;
    Ok(vec![indexed(counter.id, which.index)])
}
