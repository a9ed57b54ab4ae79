//! `shunt p4 read`, and reading for the other verbs.

use p4runtime::client::{Client, ClientError};
use p4runtime::named::{Choice, Entry, Named, NamedError, Purpose};
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4info::{P4InfoIndex, Table};
use p4runtime::value::canonicalize_entity;

use super::P4Error;
use super::connect::Connection;
use super::words::Words;
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Without words, the entries of every table. Fields that are given narrow it down to the
entries that have exactly these.

Examples:
  shunt p4 read flow4
  shunt p4 read flow4 vpc=1 src=10.0.0.2 --counters --idle
  shunt p4 read default acl
  shunt p4 read group ecmp_selector
  shunt p4 read multicast";

/// Entries of a table, or any other entities.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    words: Words,
    /// With direct counters.
    #[arg(long)]
    counters: bool,
    /// With the rates of direct meters.
    #[arg(long)]
    meters: bool,
    /// With the time since the last packet.
    #[arg(long)]
    idle: bool,
    /// At most so many; 0 for all.
    #[arg(long, default_value_t = 0, value_name = "N")]
    limit: usize,
}

pub(super) async fn run(to: &Connection, out: &Output, which: Arguments) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    let mut wanted = match which.words.is_empty() {
        true => pb::Entity {
            entity: Some(Kind::TableEntry(pb::TableEntry::default())),
        },
        false => which.words.entity(&index, Purpose::Read)?,
    };
    let mut filter = None;
    let mut only = None;
    if let Some(Kind::TableEntry(entry)) = &mut wanted.entity {
        let table = index.table_by_id(entry.table_id).ok();
        only = table;
        if table.is_some_and(|table| entry.r#match.len() < table.match_fields.len()) {
            filter = Some(entry.clone());
            *entry = pb::TableEntry {
                table_id: entry.table_id,
                is_default_action: entry.is_default_action,
                ..Default::default()
            };
        }
        ask(entry, table, &index, &which);
    }
    let mut found = Vec::new();
    let mut stream = client.read_stream(vec![wanted]).await?;
    'parts: while let Some(part) = stream.next_part().await? {
        for mut entity in part {
            canonicalize_entity(&mut entity, &index).map_err(NamedError::from)?;
            if filter
                .as_ref()
                .is_none_or(|filter| matches(filter, &entity))
            {
                found.push(entity);
            }
            if which.limit > 0 && found.len() >= which.limit {
                break 'parts;
            }
        }
    }
    super::order::sort(&mut found, &index);
    show(out, &named(&found, &index)?, only)
}

/// Asks for what is only told when it is asked for.
fn ask(entry: &mut pb::TableEntry, table: Option<&Table>, index: &P4InfoIndex, which: &Arguments) {
    // A wildcard of all tables takes no other fields (P4Runtime 11.1).
    let Some(table) = table else { return };
    if which.counters && index.direct_counter_of(table).is_some() {
        entry.counter_data = Some(pb::CounterData::default());
    }
    if which.meters && index.direct_meter_of(table).is_some() {
        entry.meter_config = Some(pb::MeterConfig::default());
    }
    if which.idle && table.idle_timeout {
        entry.time_since_last_hit = Some(pb::table_entry::IdleTimeout::default());
    }
}

/// Whether an entry has all that the filter gives.
fn matches(filter: &pb::TableEntry, entity: &pb::Entity) -> bool {
    let Some(Kind::TableEntry(entry)) = &entity.entity else {
        return true;
    };
    filter.r#match.iter().all(|one| entry.r#match.contains(one))
        && (filter.priority == 0 || filter.priority == entry.priority)
        && (filter.action.is_none() || filter.action == entry.action)
}

/// Entities as lines; entries of one table in columns.
fn show(out: &Output, found: &[Named], only: Option<&Table>) -> Result<(), P4Error> {
    let Some(table) = only else {
        return Ok(out.lines(found, ToString::to_string)?);
    };
    let entry = |named: &Named| match named {
        Named::Table(entry) | Named::Default(entry) => Some(entry.clone()),
        _ => None,
    };
    let entries: Vec<Entry> = found.iter().filter_map(entry).collect();
    let has = |what: fn(&Entry) -> bool| entries.iter().any(what);
    let mut header: Vec<&str> = table
        .match_fields
        .iter()
        .map(|field| field.name.as_str())
        .collect();
    header.push("action");
    /// A column: its title, whether any entry fills it, and its text.
    type Column = (&'static str, bool, fn(&Entry) -> String);
    let extras: [Column; 7] = [
        ("priority", has(|e| e.priority != 0), |e| {
            e.priority.to_string()
        }),
        ("idle timeout", has(|e| e.idle_timeout.is_some()), |e| {
            text(&e.idle_timeout)
        }),
        ("idle for", has(|e| e.idle_for.is_some()), |e| {
            text(&e.idle_for)
        }),
        ("metadata", has(|e| e.metadata.is_some()), |e| {
            text(&e.metadata)
        }),
        ("meter", has(|e| e.meter.is_some()), |e| text(&e.meter)),
        ("packets", has(|e| e.counter.is_some()), |e| {
            text(&e.counter.as_ref().map(|counter| counter.packets))
        }),
        ("bytes", has(|e| e.counter.is_some()), |e| {
            text(&e.counter.as_ref().map(|counter| counter.bytes))
        }),
    ];
    let extras: Vec<_> = extras.into_iter().filter(|(_, there, _)| *there).collect();
    header.extend(extras.iter().map(|(name, _, _)| *name));
    Ok(out.list(found, &header, |named| {
        let entry = entry(named).unwrap_or_default();
        let fields = table.match_fields.iter();
        let mut row: Vec<String> = fields
            .map(|field| entry.matches.get(&field.name).unwrap_or("*").to_owned())
            .collect();
        row.push(match &entry.action {
            Some(Choice::Call(call)) => call.to_string(),
            Some(other) => other.to_string(),
            None => String::new(),
        });
        row.extend(extras.iter().map(|(_, _, cell)| cell(&entry)));
        row
    })?)
}

fn text<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(String::new, ToString::to_string)
}

/// What the entities select, canonical and in order.
pub(super) async fn entities(
    client: &Client,
    index: &P4InfoIndex,
    kinds: Vec<Kind>,
) -> Result<Vec<pb::Entity>, P4Error> {
    let wanted = kinds
        .into_iter()
        .map(|kind| pb::Entity { entity: Some(kind) });
    let mut found = client.read(wanted.collect()).await?;
    for entity in &mut found {
        canonicalize_entity(entity, index).map_err(NamedError::from)?;
    }
    super::order::sort(&mut found, index);
    Ok(found)
}

/// As [`entities`]; `None` where the switch does not offer to read these.
pub(super) async fn offered(
    client: &Client,
    index: &P4InfoIndex,
    kind: Kind,
) -> Result<Option<Vec<pb::Entity>>, P4Error> {
    match entities(client, index, vec![kind]).await {
        Err(P4Error::Client(ClientError::Refused {
            code: tonic::Code::Unimplemented,
            ..
        })) => Ok(None),
        other => other.map(Some),
    }
}

/// By name.
pub(super) fn named(entities: &[pb::Entity], index: &P4InfoIndex) -> Result<Vec<Named>, P4Error> {
    let one = |entity: &pb::Entity| Named::of(entity, index).map_err(P4Error::from);
    entities.iter().map(one).collect()
}
