//! `shunt p4 meters`.

use p4runtime::named::Named;

use super::P4Error;
use super::cells::{METERS, place};
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
    let kinds = METERS.selection(&index, which.name.as_deref(), which.index)?;
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
