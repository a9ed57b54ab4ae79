//! Lines about everything but tables.

use super::error::fault;
use super::table::{arguments_of, bytes_of_hex, count, id_of, pair, port_bytes};
use super::words::Words;
use super::{NamedError, Purpose, parse_data};
use crate::p4::v1 as pb;
use crate::p4::v1::packet_replication_engine_entry::Type as Replication;
use crate::p4info::P4InfoIndex;
use crate::value::parse_match;

/// The next word, or what is missing; nothing where a read may do without.
fn next<'a>(
    words: &mut Words<'a>,
    what: &str,
    purpose: Purpose,
) -> Result<Option<&'a str>, NamedError> {
    if words.words.is_empty() {
        return match purpose {
            Purpose::Read => Ok(None),
            _ => fault(format!("{what} is missing")),
        };
    }
    Ok(Some(words.words.remove(0)))
}

fn id(words: &mut Words<'_>, what: &str, purpose: Purpose) -> Result<u32, NamedError> {
    match next(words, &format!("the id of the {what}"), purpose)? {
        Some(text) => id_of(text, what),
        None => Ok(0),
    }
}

/// The cell of a counter, meter or register; without one, a read is of all.
fn cell(
    words: &mut Words<'_>,
    label: &str,
    size: u64,
    purpose: Purpose,
) -> Result<Option<pb::Index>, NamedError> {
    let most = size.saturating_sub(1);
    let Some(text) = next(words, &format!("{label}: the index (0 to {most})"), purpose)? else {
        return Ok(None);
    };
    match text.parse::<i64>() {
        // A size of 0 says nothing.
        Ok(index) if index >= 0 && (size == 0 || index.unsigned_abs() < size) => {
            Ok(Some(pb::Index { index }))
        }
        _ => fault(format!(
            "{label}: the index {text:?} is out of range: it is 0 to {most}"
        )),
    }
}

/// Nothing may be left over.
fn end(words: &Words<'_>, what: &str, options: &[&str]) -> Result<(), NamedError> {
    words.done(what, options)?;
    match words.words.first() {
        None => Ok(()),
        Some(word) => fault(format!("{what}: {word:?} is one word too many")),
    }
}

/// `PROFILE ID do ACTION param=value …`
pub(super) fn member(
    mut words: Words<'_>,
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<pb::ActionProfileMember, NamedError> {
    let mut wire = pb::ActionProfileMember::default();
    let Some(profile) = next(&mut words, "member: the action profile", purpose)? else {
        return end(&words, "member", &[]).map(|()| wire);
    };
    let profile = index.action_profile(profile)?;
    let label = format!("action profile {:?}", profile.alias);
    wire.action_profile_id = profile.id;
    wire.member_id = id(&mut words, "member", purpose)?;
    let words_left = std::mem::take(&mut words.words);
    wire.action = match (words_left.as_slice(), purpose) {
        ([], Purpose::Write) => {
            return fault(format!(
                "{label}: the member's action is missing; write `do ACTION`"
            ));
        }
        ([], _) | (_, Purpose::Delete) => None,
        (["do" | "->", name, arguments @ ..], _) => {
            let action = index.action(name)?;
            // The tables that share the profile say which actions it may have.
            let tables = profile
                .table_ids
                .iter()
                .filter_map(|id| index.table_by_id(*id).ok());
            let mut tables = tables.peekable();
            if tables.peek().is_some() && !tables.any(|table| table.action_ref(action.id).is_some())
            {
                return fault(format!(
                    "{label}: no table that uses it has the action {name:?}"
                ));
            }
            Some(arguments_of(action, arguments)?)
        }
        _ => return fault(format!("{label}: after the member's id comes `do ACTION`")),
    };
    end(&words, "member", &[]).map(|()| wire)
}

/// `PROFILE ID member=ID member=WEIGHTxID[@PORT] … --max-size N`
pub(super) fn group(
    mut words: Words<'_>,
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<pb::ActionProfileGroup, NamedError> {
    let mut wire = pb::ActionProfileGroup::default();
    let Some(profile) = next(&mut words, "group: the action profile", purpose)? else {
        return end(&words, "group", &[]).map(|()| wire);
    };
    let profile = index.action_profile(profile)?;
    let label = format!("action profile {:?}", profile.alias);
    if !profile.with_selector {
        return fault(format!("{label} has no selector, and so no groups"));
    }
    wire.action_profile_id = profile.id;
    wire.group_id = id(&mut words, "group", purpose)?;
    for word in std::mem::take(&mut words.words) {
        let ("member", text) = pair(word, &label)? else {
            return fault(format!(
                "{label}: {word:?} is not member=ID or member=WEIGHTxID"
            ));
        };
        let (text, port) = text.split_once('@').unwrap_or((text, ""));
        let (weight, member) = match text.split_once('x') {
            Some((weight, member)) if !weight.is_empty() => (weight, member),
            _ => ("1", text),
        };
        let Some(weight) = weight.parse().ok().filter(|weight: &i32| *weight > 0) else {
            return fault(format!(
                "{label}: the weight {weight:?} is not a number from 1 to {}",
                i32::MAX
            ));
        };
        let mut member = pb::action_profile_group::Member {
            member_id: id_of(member, &format!("{label}, member"))?,
            weight,
            ..Default::default()
        };
        if !port.is_empty() {
            let port = port_bytes(port, &format!("{label}, watch port"))?;
            member.watch_kind = Some(pb::action_profile_group::member::WatchKind::WatchPort(port));
        }
        if wire
            .members
            .iter()
            .any(|known| known.member_id == member.member_id)
        {
            return fault(format!(
                "{label}: member {} is given twice",
                member.member_id
            ));
        }
        wire.members.push(member);
    }
    wire.max_size = words.number("max-size", 1)?.unwrap_or(0);
    if purpose == Purpose::Delete {
        wire.members.clear();
        wire.max_size = 0;
    }
    end(&words, "group", &["max-size"]).map(|()| wire)
}

/// `COUNTER INDEX --packets N --bytes N`
pub(super) fn counter(
    mut words: Words<'_>,
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<pb::CounterEntry, NamedError> {
    let mut wire = pb::CounterEntry::default();
    if let Some(name) = next(&mut words, "counter: its name", purpose)? {
        let counter = index.counter(name)?;
        let label = format!("counter {:?}", counter.alias);
        wire.counter_id = counter.id;
        wire.index = cell(&mut words, &label, counter.size, purpose)?;
        wire.data = count(&mut words)?;
        if purpose == Purpose::Write && wire.data.is_none() {
            return fault(format!("{label}: --packets and --bytes are missing"));
        }
    }
    end(&words, "counter", &["packets", "bytes"]).map(|()| wire)
}

/// `METER INDEX --cir N --cburst N --pir N --pburst N`; without rates, it is
/// reset and everything is green.
pub(super) fn meter(
    mut words: Words<'_>,
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<pb::MeterEntry, NamedError> {
    let mut wire = pb::MeterEntry::default();
    if let Some(name) = next(&mut words, "meter: its name", purpose)? {
        let meter = index.meter(name)?;
        let label = format!("meter {:?}", meter.alias);
        wire.meter_id = meter.id;
        wire.index = cell(&mut words, &label, meter.size, purpose)?;
        wire.config = super::table::meter(&mut words)?;
    }
    let options = ["cir", "cburst", "pir", "pburst", "eburst"];
    end(&words, "meter", &options).map(|()| wire)
}

/// `REGISTER INDEX --value DATA`
pub(super) fn register(
    mut words: Words<'_>,
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<pb::RegisterEntry, NamedError> {
    let mut wire = pb::RegisterEntry::default();
    if let Some(name) = next(&mut words, "register: its name", purpose)? {
        let register = index.register(name)?;
        let label = format!("register {:?}", register.alias);
        wire.register_id = register.id;
        wire.index = cell(&mut words, &label, register.size, purpose)?;
        wire.data = match words.take("value") {
            Some(text) => Some(parse_data(text, &register.data, &label)?),
            None if purpose == Purpose::Write => {
                return fault(format!("{label}: --value is missing"));
            }
            None => None,
        };
    }
    end(&words, "register", &["value"]).map(|()| wire)
}

fn replicas(words: &mut Words<'_>, label: &str) -> Result<Vec<pb::Replica>, NamedError> {
    let mut replicas = Vec::new();
    for word in std::mem::take(&mut words.words) {
        let ("port", text) = pair(word, label)? else {
            return fault(format!(
                "{label}: {word:?} is not port=PORT or port=PORT:INSTANCE"
            ));
        };
        let (port, instance) = text.split_once(':').unwrap_or((text, "0"));
        let Ok(instance) = instance.parse() else {
            return fault(format!(
                "{label}: the instance {instance:?} is not a number from 0 to {}",
                u32::MAX
            ));
        };
        replicas.push(pb::Replica {
            port_kind: Some(pb::replica::PortKind::Port(port_bytes(
                port,
                &format!("{label}, port"),
            )?)),
            instance,
            ..Default::default()
        });
    }
    Ok(replicas)
}

/// `ID port=PORT port=PORT:INSTANCE …`
pub(super) fn multicast(mut words: Words<'_>, purpose: Purpose) -> Result<Replication, NamedError> {
    let id = id(&mut words, "multicast group", purpose)?;
    let mut replicas = replicas(&mut words, &format!("multicast group {id}"))?;
    if purpose == Purpose::Delete {
        replicas.clear();
    }
    end(&words, "multicast", &[])?;
    Ok(Replication::MulticastGroupEntry(pb::MulticastGroupEntry {
        multicast_group_id: id,
        replicas,
        ..Default::default()
    }))
}

/// `ID port=PORT … --length BYTES --class N`
pub(super) fn clone_session(
    mut words: Words<'_>,
    purpose: Purpose,
) -> Result<Replication, NamedError> {
    let id = id(&mut words, "clone session", purpose)?;
    let mut session = pb::CloneSessionEntry {
        session_id: id,
        replicas: replicas(&mut words, &format!("clone session {id}"))?,
        class_of_service: words.number("class", 0)?.unwrap_or(0),
        packet_length_bytes: words.number("length", 0)?.unwrap_or(0),
    };
    if purpose == Purpose::Delete {
        session = pb::CloneSessionEntry {
            session_id: id,
            ..Default::default()
        };
    }
    end(&words, "clone", &["length", "class"])?;
    Ok(Replication::CloneSessionEntry(session))
}

/// `DIGEST --max-timeout 1s --max-list N --ack-timeout 1s`
pub(super) fn digest(
    mut words: Words<'_>,
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<pb::DigestEntry, NamedError> {
    let mut wire = pb::DigestEntry::default();
    if let Some(name) = next(&mut words, "digest: its name", purpose)? {
        wire.digest_id = index.digest(name)?.id;
        let config = pb::digest_entry::Config {
            max_timeout_ns: words.duration("max-timeout")?.unwrap_or(0),
            max_list_size: words.number("max-list", 0)?.unwrap_or(0),
            ack_timeout_ns: words.duration("ack-timeout")?.unwrap_or(0),
        };
        wire.config = (purpose == Purpose::Write).then_some(config);
    }
    end(
        &words,
        "digest",
        &["max-timeout", "max-list", "ack-timeout"],
    )
    .map(|()| wire)
}

/// `VALUE-SET field=value … or field=value …`
pub(super) fn value_set(
    mut words: Words<'_>,
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<pb::ValueSetEntry, NamedError> {
    let mut wire = pb::ValueSetEntry::default();
    let Some(name) = next(&mut words, "value-set: its name", purpose)? else {
        return end(&words, "value-set", &[]).map(|()| wire);
    };
    let set = index.value_set(name)?;
    let label = format!("value set {:?}", set.alias);
    wire.value_set_id = set.id;
    let words_left = std::mem::take(&mut words.words);
    for member in words_left
        .split(|word| *word == "or")
        .filter(|words| !words.is_empty())
    {
        let mut matches = Vec::new();
        for word in member {
            let (name, text) = pair(word, &label)?;
            let known = set.match_fields.iter().map(|field| field.name.as_str());
            let Some(field) = set.match_fields.iter().find(|field| field.name == name) else {
                let near = super::error::hint(name, known);
                return fault(format!("{label} has no field {name:?}{near}"));
            };
            let value = parse_match(text, field).map_err(|source| NamedError::Value {
                place: format!("{label}, field {name:?}"),
                source,
            })?;
            matches.extend(value.map(|value| pb::FieldMatch {
                field_id: field.id,
                field_match_type: Some(value),
            }));
        }
        matches.sort_by_key(|one: &pb::FieldMatch| one.field_id);
        wire.members.push(pb::ValueSetMember { r#match: matches });
    }
    end(&words, "value-set", &[]).map(|()| wire)
}

/// `TYPE.INSTANCE --type-url URL --bytes-hex HEX`
pub(super) fn extern_entry(
    mut words: Words<'_>,
    index: &P4InfoIndex,
    purpose: Purpose,
) -> Result<pb::ExternEntry, NamedError> {
    let Some(text) = next(&mut words, "extern: its Type.instance", purpose)? else {
        return fault("extern: its Type.instance is missing");
    };
    let name = text.split_once('.').map_or(text, |(_, name)| name);
    // A full name has dots of its own.
    let found = index
        .extern_instance(text)
        .or_else(|_| index.extern_instance(name))?;
    let type_url = words.take("type-url").unwrap_or_default().to_owned();
    let value = words.take("bytes-hex").unwrap_or_default();
    let Some(value) = bytes_of_hex(value) else {
        return fault(format!(
            "extern {text:?}: --bytes-hex {value:?} is not bytes in hex, two digits each"
        ));
    };
    end(&words, "extern", &["type-url", "bytes-hex"])?;
    let entry = prost_types::Any { type_url, value };
    Ok(pb::ExternEntry {
        extern_type_id: found.type_id,
        extern_id: found.id,
        entry: (!entry.type_url.is_empty()).then_some(entry),
    })
}
