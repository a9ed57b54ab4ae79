//! `shunt p4 import`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use p4runtime::named::{Named, Purpose, parse_line};
use p4runtime::order::References;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4info::P4InfoIndex;
use serde::Serialize;

use super::P4Error;
use super::cells::METERS;
use super::connect::{Connection, text_file};
use super::diff::{Change, Item, diff};
use super::state::{Extent, gather};
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Only differences are written, what is referred to before who refers to it; a second
import of the same file changes nothing. What the file does not name stays, unless
--prune is given. Needs the primary role, --dry-run does not.

A file may hold every kind of entity; `export` says which it writes. A counter or a meter
of an entry is in its line (--packets, --cir) or has a line of its own (direct-counter,
direct-meter). What the switch does not offer to read is written without a comparison.

Examples:
  shunt p4 import backup.p4rt --dry-run      (+ insert, ~ modify, - remove)
  shunt p4 import backup.p4rt
  shunt p4 import backup.p4rt --prune";

/// Brings the switch to the state of a file: what `export` wrote, or lines by hand.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The file; `#` begins a comment.
    file: PathBuf,
    /// Shows the differences and writes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Removes what the file does not name: entries, members, groups, sessions, digests,
    /// externs, rates of meters, members of value sets.
    #[arg(long)]
    prune: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    change: &'static str,
    #[serde(flatten)]
    entity: &'a Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a str>,
}

pub(super) async fn run(to: &Connection, out: &Output, what: Arguments) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    let want = load(&what.file, &index)?;
    let has = |kind: fn(&Named) -> bool| want.iter().any(|item| kind(&item.named));
    let extent = Extent {
        registers: has(|named| matches!(named, Named::Register(_))),
        counters: has(|named| matches!(named, Named::Counter(_) | Named::DirectCounter(_))),
        direct_meters: has(|named| matches!(named, Named::DirectMeter(_))),
    };
    let have = gather(&client, &index, extent).await?;
    let changes = diff(have.items, want, what.prune);
    if !what.dry_run && !changes.is_empty() {
        let updates: Vec<pb::Update> = changes.iter().map(Change::update).collect();
        let line_of = |at: usize| {
            let change = changes.get(at);
            change.map_or_else(String::new, |change| change.item.line.clone())
        };
        let writing = async {
            let written = client
                .write_ordered(&updates, &References::of(&index))
                .await;
            written.map_err(|error| P4Error::refused(&error, line_of))
        };
        to.as_primary(&client, writing).await?;
    }
    let shown: Vec<Shown<'_>> = changes
        .iter()
        .map(|change| Shown {
            change: change.word(),
            entity: &change.item.named,
            before: change.before.as_deref(),
        })
        .collect();
    let mut lines = changes.iter().map(Change::line);
    out.lines(&shown, |_| lines.next().unwrap_or_default())?;
    if out.is_text() {
        let count = |word| {
            changes
                .iter()
                .filter(|change| change.word() == word)
                .count()
        };
        let verb = if what.dry_run { "would be " } else { "" };
        out.text(&format!(
            "{} {verb}inserted, {} {verb}modified, {} {verb}removed\n",
            count("insert"),
            count("modify"),
            count("delete")
        ))?;
    }
    Ok(())
}

/// The file's entities, each once.
fn load(path: &Path, index: &P4InfoIndex) -> Result<Vec<Item>, P4Error> {
    let text = text_file(path)?;
    let mut items = Vec::new();
    let mut lines_of: HashMap<String, usize> = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let line_number = at + 1;
        let wrong = |fault| P4Error::Line {
            path: path.to_path_buf(),
            line: line_number,
            source: Box::new(fault),
        };
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let mut entity = parse_line(content, index, Purpose::Write).map_err(wrong)?;
        let counter = counter_of(&mut entity);
        for entity in std::iter::once(entity).chain(counter) {
            let item = Item::new(entity, index).map_err(wrong)?;
            // The rates are part of the entry, and so is their lack.
            let meter = match &item.named {
                Named::Table(entry) => match index.table(&entry.table) {
                    Ok(table) if METERS.is_of(index, table) => {
                        Some(format!("direct-meter {}", entry.key()))
                    }
                    _ => None,
                },
                _ => None,
            };
            for key in std::iter::once(item.key.clone()).chain(meter) {
                if let Some(first) = lines_of.insert(key.clone(), line_number) {
                    let remedy = match key.starts_with("direct-meter") {
                        true => " (rates belong into the line of the entry, where there is one)",
                        false => "",
                    };
                    return Err(P4Error::Usage(format!(
                        "{}, line {line_number}: {key} is in line {first} already{remedy}",
                        path.display(),
                    )));
                }
            }
            items.push(item);
        }
    }
    Ok(items)
}

/// The counter in an entry's line, as an entity of its own: packets change it, and the entry is
/// compared without.
fn counter_of(entity: &mut pb::Entity) -> Option<pb::Entity> {
    let Some(Kind::TableEntry(entry)) = &mut entity.entity else {
        return None;
    };
    let data = entry.counter_data.take()?;
    let key = pb::TableEntry {
        table_id: entry.table_id,
        r#match: entry.r#match.clone(),
        priority: entry.priority,
        is_default_action: entry.is_default_action,
        ..Default::default()
    };
    Some(pb::Entity {
        entity: Some(Kind::DirectCounterEntry(pb::DirectCounterEntry {
            table_entry: Some(key),
            data: Some(data),
        })),
    })
}
