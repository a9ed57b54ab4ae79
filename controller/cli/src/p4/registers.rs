//! `shunt p4 registers`.

use p4runtime::named::Named;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;

use super::P4Error;
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
    let all = match &which.name {
        Some(name) => {
            let register = index.register(name)?;
            super::meters::in_range("register", name, which.index, register.size)?;
            vec![register.id]
        }
        None => index
            .registers()
            .iter()
            .map(|register| register.id)
            .collect(),
    };
    let kinds = all.into_iter().map(|register_id| {
        Kind::RegisterEntry(pb::RegisterEntry {
            register_id,
            index: which.index.map(|index| pb::Index { index }),
            data: None,
        })
    });
    let found = named(&entities(&client, &index, kinds.collect()).await?, &index)?;
    Ok(out.list(&found, &["register", "cell", "value"], |named| {
        let (name, cell) = super::meters::place(named);
        let value = match named {
            Named::Register(register) => register.value.clone().unwrap_or_default(),
            _ => String::new(),
        };
        vec![name, cell, value]
    })?)
}
