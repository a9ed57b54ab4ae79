//! `shunt p4 watch`.

use std::time::Duration;

use p4runtime::client::Client;
use p4runtime::named::Named;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4info::{P4InfoIndex, Table};
use serde::Serialize;

use super::P4Error;
use super::connect::Connection;
use super::diff::{Item, diff};
use super::read::entities;
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
P4Runtime has no notifications of changes, so the table is read again and again; what
comes and goes between two reads is not seen. Needs no role.

Examples:
  shunt p4 watch flow4
  shunt p4 watch flow4 --interval 200ms --output jsonl";

/// Changes of a table as they happen: + inserted, ~ modified, - removed.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The table.
    table: String,
    /// Between two reads.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Shows first what is there, as if it was inserted.
    #[arg(long)]
    initial: bool,
    /// Ends after so many changes.
    #[arg(long, value_name = "N")]
    changes: Option<u64>,
    /// Ends after so long, such as 30s.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

#[derive(Serialize)]
struct Event<'a> {
    change: &'static str,
    #[serde(flatten)]
    entity: &'a Named,
}

pub(super) async fn run(to: &Connection, out: &Output, which: Arguments) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    let table = index.table(&which.table)?;
    let mut before = match which.initial {
        true => Vec::new(),
        false => items(&client, &index, table).await?,
    };
    let mut ticks = tokio::time::interval(which.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = 0;
    let watching = async {
        loop {
            ticks.tick().await;
            let now = items(&client, &index, table).await?;
            for change in diff(before, now.clone(), true) {
                let event = Event {
                    change: change.word(),
                    entity: &change.item.named,
                };
                out.event(&event, || change.line() + "\n")?;
                seen += 1;
                if which.changes.is_some_and(|most| seen >= most) {
                    return Ok(());
                }
            }
            before = now;
        }
    };
    match which.duration {
        Some(duration) => tokio::time::timeout(duration, watching)
            .await
            .unwrap_or(Ok(())),
        None => watching.await,
    }
}

async fn items(client: &Client, index: &P4InfoIndex, table: &Table) -> Result<Vec<Item>, P4Error> {
    let wanted = Kind::TableEntry(pb::TableEntry {
        table_id: table.id,
        ..Default::default()
    });
    let found = entities(client, index, vec![wanted]).await?;
    let items = found.into_iter().map(|entity| Item::new(entity, index));
    Ok(items.collect::<Result<_, _>>()?)
}
