//! `shunt p4 meters`.

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
Rates are a second, in the meter's unit (bytes or packets). A meter without rates takes
everything for green.

Examples:
  shunt p4 meters
  shunt p4 meters limits 0
  shunt p4 meters punt             (the meters of a table's entries)";

/// Meters, indexed and of tables' entries. `modify` sets them.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// A meter, or a table with a direct meter; all without.
    name: Option<String>,
    /// One cell of an indexed meter.
    #[arg(requires = "name")]
    index: Option<i64>,
}

pub(super) async fn run(to: &Connection, out: &Output, which: Arguments) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    let kinds = selection(&index, &which)?;
    let found = named(&entities(&client, &index, kinds).await?, &index)?;
    let header = ["meter", "cell", "cir", "cburst", "pir", "pburst"];
    Ok(out.list(&found, &header, |named| {
        let (name, cell) = place(named);
        let rates = match named {
            Named::Meter(cell) => cell.rates.clone(),
            Named::DirectMeter(entry) => entry.meter.clone(),
            _ => None,
        };
        let mut row = vec![name, cell];
        match rates {
            Some(rates) => row.extend(
                [rates.cir, rates.cburst, rates.pir, rates.pburst].map(|rate| rate.to_string()),
            ),
            None => row.extend(["-", "-", "-", "-"].map(str::to_owned)),
        }
        row
    })?)
}

fn selection(index: &P4InfoIndex, which: &Arguments) -> Result<Vec<Kind>, P4Error> {
    let indexed = |id: u32, cell: Option<i64>| {
        Kind::MeterEntry(pb::MeterEntry {
            meter_id: id,
            index: cell.map(|index| pb::Index { index }),
            ..Default::default()
        })
    };
    let direct = |table_id: u32| {
        Kind::DirectMeterEntry(pb::DirectMeterEntry {
            table_entry: Some(pb::TableEntry {
                table_id,
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    let Some(name) = &which.name else {
        let all = index.meters().iter().map(|meter| indexed(meter.id, None));
        let directs = index.direct_meters().iter();
        return Ok(all.chain(directs.map(|one| direct(one.table_id))).collect());
    };
    if let Ok(table) = index.table(name) {
        let there = index.direct_meter_of(table).is_some();
        return match (there, index.meter(name)) {
            (true, _) => Ok(vec![direct(table.id)]),
            (false, Ok(meter)) => Ok(vec![indexed(meter.id, which.index)]),
            (false, Err(_)) => Err(P4Error::Usage(format!(
                "table {name:?} has no direct meter"
            ))),
        };
    }
    if let Ok(meter) = index.direct_meter(name) {
        return Ok(vec![direct(meter.table_id)]);
    }
    let meter = index.meter(name)?;
    in_range("meter", name, which.index, meter.size)?;
    Ok(vec![indexed(meter.id, which.index)])
}

/// Refuses an index that the array does not have.
pub(super) fn in_range(
    what: &str,
    name: &str,
    index: Option<i64>,
    size: u64,
) -> Result<(), P4Error> {
    match index {
        Some(index) if index < 0 || (size > 0 && index.unsigned_abs() >= size) => {
            Err(P4Error::Usage(format!(
                "{what} {name:?}: the index {index} is out of range: it is 0 to {}",
                size.saturating_sub(1)
            )))
        }
        _ => Ok(()),
    }
}

/// Whose it is, and which: an index or the entry's key.
pub(super) fn place(named: &Named) -> (String, String) {
    let cell = |index: Option<i64>| index.map_or_else(String::new, |index| index.to_string());
    match named {
        Named::Counter(counter) => (counter.counter.clone(), cell(counter.index)),
        Named::Meter(meter) => (meter.meter.clone(), cell(meter.index)),
        Named::Register(register) => (register.register.clone(), cell(register.index)),
        Named::DirectCounter(entry) | Named::DirectMeter(entry) => {
            let key = entry.key();
            let key = key.strip_prefix(&entry.table).unwrap_or(&key).trim();
            (entry.table.clone(), key.to_owned())
        }
        other => (String::new(), other.to_string()),
    }
}
