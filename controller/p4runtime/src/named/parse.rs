//! From a line to the entity that it means.

use super::error::{fault, hint};
use super::words::{Words, split};
use super::{NamedError, others, table};
use crate::p4::v1 as pb;
use crate::p4::v1::entity::Entity as Kind;
use crate::p4info::P4InfoIndex;
use crate::value::canonicalize_entity;

/// What a line is for: how much of the entity it has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// INSERT or MODIFY: the whole entity.
    Write,
    /// DELETE: the key; what else is given is left out.
    Delete,
    /// Read: what is given is a filter, nothing is everything.
    Read,
}

/// The first words of a line, besides the names of tables.
const KEYWORDS: [&str; 14] = [
    "table",
    "default",
    "member",
    "group",
    "counter",
    "direct-counter",
    "meter",
    "direct-meter",
    "register",
    "multicast",
    "clone",
    "digest",
    "value-set",
    "extern",
];

/// The canonical entity of a line, see [`crate::named`].
///
/// # Errors
/// [`NamedError`], naming the field and what it takes.
pub fn parse_line(
    line: &str,
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<pb::Entity, NamedError> {
    parse_words(&split(line)?, index, purpose)
}

/// As [`parse_line`], of a line that is split already, such as a command's
/// arguments.
///
/// # Errors
/// [`NamedError`].
pub fn parse_words(
    words: &[String],
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<pb::Entity, NamedError> {
    let mut words = Words::new(words)?;
    let Some(first) = words.words.first().copied() else {
        return fault("what to do it with is missing: a table, or one of the words of --help");
    };
    // A table may be named like a keyword; `table counter …` is then the table.
    let is_keyword = KEYWORDS.contains(&first);
    let mut keyword = "table";
    if is_keyword {
        keyword = first;
        words.words.remove(0);
    }
    let kind = match keyword {
        "table" | "default" | "direct-counter" | "direct-meter" => {
            table_kind(keyword, is_keyword, words, index, purpose)?
        }
        "member" => Kind::ActionProfileMember(others::member(words, index, purpose)?),
        "group" => Kind::ActionProfileGroup(others::group(words, index, purpose)?),
        "counter" => Kind::CounterEntry(others::counter(words, index, purpose)?),
        "meter" => Kind::MeterEntry(others::meter(words, index, purpose)?),
        "register" => Kind::RegisterEntry(others::register(words, index, purpose)?),
        "multicast" => replication(others::multicast(words, purpose)?),
        "clone" => replication(others::clone_session(words, purpose)?),
        "digest" => Kind::DigestEntry(others::digest(words, index, purpose)?),
        "value-set" => Kind::ValueSetEntry(others::value_set(words, index, purpose)?),
        _ => Kind::ExternEntry(others::extern_entry(words, index, purpose)?),
    };
    let mut entity = pb::Entity { entity: Some(kind) };
    canonicalize_entity(&mut entity, index)?;
    Ok(entity)
}

fn replication(r#type: pb::packet_replication_engine_entry::Type) -> Kind {
    Kind::PacketReplicationEngineEntry(pb::PacketReplicationEngineEntry {
        r#type: Some(r#type),
    })
}

fn table_kind(
    keyword: &str,
    is_keyword: bool,
    mut words: Words<'_>,
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<Kind, NamedError> {
    if words.words.is_empty() {
        if purpose == Purpose::Read {
            words.done(&format!("`{keyword}` without a table"), &[])?;
            let every = pb::TableEntry {
                is_default_action: keyword == "default",
                ..Default::default()
            };
            return Ok(wrap(keyword, every));
        }
        return fault(format!("`{keyword}`: the name of a table is missing"));
    }
    let name = words.words.remove(0);
    let table = match index.table(name) {
        Ok(table) => table,
        // Neither a table nor a keyword: the nearest of both.
        Err(error) if !is_keyword => {
            let near = hint(name, KEYWORDS);
            let tables = index.tables().iter().map(|table| table.alias.as_str());
            return match hint(name, tables).as_str() {
                "" if !near.is_empty() => fault(format!("no table {name:?}{near}")),
                _ => Err(error.into()),
            };
        }
        Err(error) => return Err(error.into()),
    };
    let is_default = keyword == "default";
    let direct = match keyword {
        "direct-counter" => Some(index.direct_counter_of(table).is_some()),
        "direct-meter" => Some(index.direct_meter_of(table).is_some()),
        _ => None,
    };
    match direct {
        None if table.is_const && purpose != Purpose::Read && !is_default => fault(format!(
            "table {:?} is constant: its entries are the program's (const entries)",
            table.alias
        )),
        None => {
            let entry = table::table_entry(table, words, index, purpose, is_default)?;
            Ok(wrap(keyword, entry))
        }
        Some(false) => fault(format!("table {:?} has no {keyword}", table.alias)),
        Some(true) => {
            // The key alone: the entry itself stays as it is.
            let purpose = match purpose {
                Purpose::Write => Purpose::Delete,
                other => other,
            };
            let entry = table::table_entry(table, words, index, purpose, false)?;
            Ok(wrap(keyword, entry))
        }
    }
}

fn wrap(keyword: &str, mut entry: pb::TableEntry) -> Kind {
    match keyword {
        "direct-counter" => Kind::DirectCounterEntry(pb::DirectCounterEntry {
            data: entry.counter_data.take(),
            table_entry: Some(entry),
        }),
        "direct-meter" => Kind::DirectMeterEntry(pb::DirectMeterEntry {
            config: entry.meter_config.take(),
            counter_data: None,
            table_entry: Some(entry),
        }),
        _ => Kind::TableEntry(entry),
    }
}
