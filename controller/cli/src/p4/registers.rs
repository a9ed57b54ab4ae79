//! `shunt p4 registers`.

use p4runtime::named::Named;

use super::P4Error;
use super::cells::{REGISTERS, place};
use super::connect::Connection;
use super::read::{entities, named};
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Examples:
  shunt p4 registers
  shunt p4 registers cells 3";

/// Registers. `modify` sets them.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// A register; all without.
    name: Option<String>,
    /// One cell.
    #[arg(requires = "name")]
    index: Option<i64>,
}

pub(super) async fn run(to: &Connection, out: &Output, which: Arguments) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    let kinds = REGISTERS.selection(&index, which.name.as_deref(), which.index)?;
    let found = named(&entities(&client, &index, kinds).await?, &index)?;
    Ok(out.list(&found, &["register", "cell", "value"], |named| {
        let (name, cell) = place(named);
        let value = match named {
            Named::Register(register) => register.value.clone().unwrap_or_default(),
            _ => String::new(),
        };
        vec![name, cell, value]
    })?)
}
