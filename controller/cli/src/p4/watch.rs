//! `shunt p4 watch`.

use std::time::Duration;

use p4runtime::client::Client;
use p4runtime::named::{Named, NamedError};
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4info::P4InfoIndex;
use p4runtime::value::canonicalize_entity;
use serde::Serialize;

use super::P4Error;
use super::connect::Connection;
use super::diff::Change;
use super::seen::Seen;
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
P4Runtime has no notifications of changes, so the table is read again and again, each time
the interval after the last read ended: what comes and goes between two reads is not seen.
Entries are compared as they come; one copy of the table is kept. Needs no role.

Examples:
  shunt p4 watch flow4
  shunt p4 watch flow4 --interval 200ms --output jsonl";

/// Changes of a table as they happen: + inserted, ~ modified, - removed.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The table.
    table: String,
    /// From the end of a read to the next.
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
    let wanted = pb::Entity {
        entity: Some(Kind::TableEntry(pb::TableEntry {
            table_id: index.table(&which.table)?.id,
            ..Default::default()
        })),
    };
    let mut seen = Seen::default();
    if !which.initial {
        look(&client, &index, &wanted, &mut seen, |_| Ok(())).await?;
    }
    let mut left = which.changes;
    let watching = async {
        while left != Some(0) {
            let show = |change: &Change| {
                // A read may have more changes than are still wanted.
                if left == Some(0) {
                    return Ok(());
                }
                left = left.map(|left| left - 1);
                let event = Event {
                    change: change.word(),
                    entity: &change.item.named,
                };
                Ok(out.event(&event, || change.line() + "\n")?)
            };
            look(&client, &index, &wanted, &mut seen, show).await?;
            if left != Some(0) {
                tokio::time::sleep(which.interval).await;
            }
        }
        Ok(())
    };
    match which.duration {
        Some(duration) => tokio::time::timeout(duration, watching)
            .await
            .unwrap_or(Ok(())),
        None => watching.await,
    }
}

/// Reads the table once, and shows what has changed since the last time as it comes.
async fn look(
    client: &Client,
    index: &P4InfoIndex,
    wanted: &pb::Entity,
    seen: &mut Seen,
    mut show: impl FnMut(&Change) -> Result<(), P4Error>,
) -> Result<(), P4Error> {
    let mut stream = client.read_stream(vec![wanted.clone()]).await?;
    while let Some(part) = stream.next_part().await? {
        for mut entity in part {
            canonicalize_entity(&mut entity, index).map_err(NamedError::from)?;
            if let Some(change) = seen.entity(entity, index)? {
                show(&change)?;
            }
        }
    }
    for change in seen.end(index)? {
        show(&change)?;
    }
    Ok(())
}
