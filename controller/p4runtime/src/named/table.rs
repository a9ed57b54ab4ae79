//! Lines about entries of tables: match, action, and what else they carry.

use super::error::{fault, hint};
use super::words::Words;
use super::{NamedError, Purpose};
use crate::p4::v1 as pb;
use crate::p4::v1::table_action::Type as ActionKind;
use crate::p4info::{Action, ActionScope, MatchKind, P4InfoIndex, Table};
use crate::value::{describe_field, expected, parse_match, parse_value};

/// Options of an entry.
pub(super) const OPTIONS: &[&str] = &[
    "priority",
    "idle-timeout",
    "metadata",
    "cir",
    "cburst",
    "pir",
    "pburst",
    "eburst",
    "packets",
    "bytes",
];

/// `TABLE field=value … do ACTION param=value … --option value`
pub(super) fn table_entry(
    table: &Table,
    mut words: Words<'_>,
    index: &P4InfoIndex,
    purpose: Purpose,
    is_default: bool,
) -> Result<pb::TableEntry, NamedError> {
    let label = format!("table {:?}", table.alias);
    let (key, actions) = parts(&words.words);
    let mut entry = pb::TableEntry {
        table_id: table.id,
        is_default_action: is_default,
        ..Default::default()
    };
    if let (true, Purpose::Write, Some(id)) = (is_default, purpose, table.const_default_action) {
        let action = index.action_by_id(id)?;
        return fault(format!(
            "{label}: the program fixes its default action (const default_action = {})",
            action.alias
        ));
    }
    if is_default && !key.is_empty() {
        return fault(format!(
            "{label}: the default entry has no match, and {:?} is one; write `default {} do ACTION`",
            key.join(" "),
            table.alias
        ));
    }
    entry.r#match = key_of(table, &key, &label)?;
    let whole_key = purpose != Purpose::Read && !is_default;
    if whole_key {
        all_exact(table, &entry.r#match, &label)?;
    }
    entry.priority = priority(table, &mut words, whole_key, &label)?;
    entry.action = match (actions.as_slice(), purpose) {
        ([], Purpose::Write) if !is_default => {
            return fault(format!(
                "{label}: the action is missing; write `do ACTION`, one of {}",
                action_names(table, index, is_default).join(", ")
            ));
        }
        ([], _) => None,
        // A key is all that counts.
        (_, Purpose::Delete) => None,
        (actions, _) => Some(action_of(table, actions, index, is_default, &label)?),
    };
    if let Some(timeout) = words.duration("idle-timeout")? {
        if !table.idle_timeout {
            return fault(format!(
                "{label} has no idle timeouts: the program does not set support_timeout"
            ));
        }
        entry.idle_timeout_ns = timeout;
    }
    if let Some(text) = words.take("metadata") {
        entry.metadata = metadata(text)?;
    }
    entry.meter_config = meter(&mut words)?;
    entry.counter_data = count(&mut words)?;
    if entry.meter_config.is_some() && index.direct_meter_of(table).is_none() {
        return fault(format!("{label} has no direct meter: it takes no --cir"));
    }
    if entry.counter_data.is_some() && index.direct_counter_of(table).is_none() {
        return fault(format!(
            "{label} has no direct counter: it takes no --packets"
        ));
    }
    words.done(&label, OPTIONS)?;
    Ok(entry)
}

/// The words before the first `do`, and after each.
fn parts<'a>(words: &[&'a str]) -> (Vec<&'a str>, Vec<Vec<&'a str>>) {
    let mut parts = words
        .split(|word| matches!(*word, "do" | "->"))
        .map(<[&str]>::to_vec);
    let key = parts.next().unwrap_or_default();
    (key, parts.collect())
}

pub(super) fn pair<'a>(word: &'a str, label: &str) -> Result<(&'a str, &'a str), NamedError> {
    match word.split_once('=') {
        Some(pair) => Ok(pair),
        None => fault(format!("{label}: {word:?} is not name=value")),
    }
}

fn key_of(table: &Table, words: &[&str], label: &str) -> Result<Vec<pb::FieldMatch>, NamedError> {
    let mut matches: Vec<pb::FieldMatch> = Vec::with_capacity(words.len());
    let mut given = Vec::with_capacity(words.len());
    for word in words {
        let (name, text) = pair(word, label)?;
        let field = table.field(name)?;
        if given.contains(&field.id) {
            return fault(format!("{label}: the field {name:?} is given twice"));
        }
        given.push(field.id);
        let value = parse_match(text, field).map_err(|source| NamedError::Value {
            place: format!("{label}, field {name:?}"),
            source,
        })?;
        matches.extend(value.map(|value| pb::FieldMatch {
            field_id: field.id,
            field_match_type: Some(value),
        }));
    }
    matches.sort_by_key(|one| one.field_id);
    Ok(matches)
}

fn all_exact(table: &Table, given: &[pb::FieldMatch], label: &str) -> Result<(), NamedError> {
    let missing = table.match_fields.iter().find(|field| {
        field.kind == MatchKind::Exact && given.iter().all(|one| one.field_id != field.id)
    });
    match missing {
        None => Ok(()),
        Some(field) => fault(format!(
            "{label}: the field {:?} is missing; it takes {}",
            field.name,
            describe_field(field)
        )),
    }
}

fn priority(
    table: &Table,
    words: &mut Words<'_>,
    whole_key: bool,
    label: &str,
) -> Result<i32, NamedError> {
    match words.number("priority", 1)? {
        Some(_) if !table.needs_priority() => fault(format!(
            "{label} has no priorities: all of its fields are exact or LPM"
        )),
        None if whole_key && table.needs_priority() => fault(format!(
            "{label}: --priority is missing: some of its fields are ternary, range or optional; \
             it takes a number from 1 to 2147483647; the largest wins"
        )),
        priority => Ok(priority.unwrap_or(0)),
    }
}

/// The names of the actions that may stand here.
fn action_names<'a>(table: &Table, index: &'a P4InfoIndex, is_default: bool) -> Vec<&'a str> {
    let allowed = table.actions.iter().filter(|action| match action.scope {
        ActionScope::TableAndDefault => true,
        ActionScope::TableOnly => !is_default,
        ActionScope::DefaultOnly => is_default,
        ActionScope::GroupAction => false,
    });
    let found = allowed.filter_map(|action| index.action_by_id(action.id).ok());
    found.map(|action| action.alias.as_str()).collect()
}

fn action_of(
    table: &Table,
    actions: &[Vec<&str>],
    index: &P4InfoIndex,
    is_default: bool,
    label: &str,
) -> Result<pb::TableAction, NamedError> {
    let shared = table.implementation.is_some() && !is_default;
    let kind = match actions {
        [only]
            if let [word] = only.as_slice()
                && let Some((name @ ("member" | "group"), id)) = word.split_once('=') =>
        {
            if !shared {
                return fault(format!("{label} has no action profile: it takes no {name}"));
            }
            let id = id_of(id, &format!("{label}, {name}"))?;
            match name {
                "member" => ActionKind::ActionProfileMemberId(id),
                _ => ActionKind::ActionProfileGroupId(id),
            }
        }
        actions if shared => {
            let member = |words: &Vec<&str>| one_shot_member(table, words, index, label);
            ActionKind::ActionProfileActionSet(pb::ActionProfileActionSet {
                action_profile_actions: actions.iter().map(member).collect::<Result<_, _>>()?,
                ..Default::default()
            })
        }
        [only] => ActionKind::Action(call(table, only, index, is_default, label)?),
        _ => {
            return fault(format!(
                "{label} has no action profile: an entry has one action, not {}",
                actions.len()
            ));
        }
    };
    Ok(pb::TableAction { r#type: Some(kind) })
}

/// `[WEIGHTx[@PORT]] ACTION param=value …`
fn one_shot_member(
    table: &Table,
    words: &[&str],
    index: &P4InfoIndex,
    label: &str,
) -> Result<pb::ActionProfileAction, NamedError> {
    let mut words = words;
    let mut member = pb::ActionProfileAction {
        weight: 1,
        ..Default::default()
    };
    if let [first, rest @ ..] = words
        && first.starts_with(|letter: char| letter.is_ascii_digit())
    {
        let (weight, port) = first.split_once('@').unwrap_or((first, ""));
        let weight = weight
            .strip_suffix('x')
            .and_then(|weight| weight.parse().ok());
        let Some(weight) = weight.filter(|weight: &i32| *weight > 0) else {
            return fault(format!(
                "{label}: {first:?} is not a weight, such as 2x, or 2x@7 to watch port 7"
            ));
        };
        member.weight = weight;
        if !port.is_empty() {
            let port = port_bytes(port, &format!("{label}, watch port"))?;
            member.watch_kind = Some(pb::action_profile_action::WatchKind::WatchPort(port));
        }
        words = rest;
    }
    member.action = Some(call(table, words, index, false, label)?);
    Ok(member)
}

fn call(
    table: &Table,
    words: &[&str],
    index: &P4InfoIndex,
    is_default: bool,
    label: &str,
) -> Result<pb::Action, NamedError> {
    let [name, arguments @ ..] = words else {
        return fault(format!(
            "{label}: the name of an action is missing after `do`"
        ));
    };
    let allowed = action_names(table, index, is_default);
    let ours = |action: &&crate::p4info::ActionRef| {
        let found = index.action_by_id(action.id);
        found.is_ok_and(|found| found.alias == *name || found.name == *name)
    };
    let Some(found) = table.actions.iter().find(ours) else {
        return fault(format!(
            "{label} has no action {name:?}{}; its actions are {}",
            hint(name, allowed.iter().copied()),
            allowed.join(", ")
        ));
    };
    let action = index.action_by_id(found.id)?;
    if !allowed.contains(&action.alias.as_str()) {
        let place = if is_default {
            "an entry"
        } else {
            "the default entry"
        };
        return fault(format!(
            "{label}: the action {name:?} is only for {place}; here may stand {}",
            allowed.join(", ")
        ));
    }
    arguments_of(action, arguments)
}

/// An action with its parameters, every one once.
pub(super) fn arguments_of(action: &Action, words: &[&str]) -> Result<pb::Action, NamedError> {
    let label = format!("action {:?}", action.alias);
    let mut params: Vec<pb::action::Param> = Vec::with_capacity(words.len());
    for word in words {
        let (name, text) = pair(word, &label)?;
        let param = action.param(name)?;
        if params.iter().any(|one| one.param_id == param.id) {
            return fault(format!("{label}: the parameter {name:?} is given twice"));
        }
        let value = parse_value(text, param.bitwidth, param.format).map_err(|source| {
            NamedError::Value {
                place: format!("{label}, parameter {name:?}"),
                source,
            }
        })?;
        params.push(pb::action::Param {
            param_id: param.id,
            value,
        });
    }
    let missing = action
        .params
        .iter()
        .find(|param| params.iter().all(|one| one.param_id != param.id));
    if let Some(param) = missing {
        return fault(format!(
            "{label}: the parameter {:?} is missing; it takes {}",
            param.name,
            expected(param.bitwidth, param.format)
        ));
    }
    params.sort_by_key(|one| one.param_id);
    Ok(pb::Action {
        action_id: action.id,
        params,
    })
}

/// An id, which is not 0 where it names one thing.
pub(super) fn id_of(text: &str, place: &str) -> Result<u32, NamedError> {
    match text.parse() {
        Ok(0) | Err(_) => fault(format!(
            "{place}: {text:?} is not an id from 1 to {}",
            u32::MAX
        )),
        Ok(id) => Ok(id),
    }
}

/// A port number; P4Info gives ports no width where they stand by themselves.
pub(super) fn port_bytes(text: &str, place: &str) -> Result<Vec<u8>, NamedError> {
    parse_value(text, 32, crate::value::Format::Decimal).map_err(|source| NamedError::Value {
        place: place.to_owned(),
        source,
    })
}

fn metadata(text: &str) -> Result<Vec<u8>, NamedError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    bytes_of_hex(digits).ok_or_else(|| {
        NamedError::Fault(format!(
            "--metadata: {text:?} is not bytes in hex, two digits each"
        ))
    })
}

pub(super) fn bytes_of_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

/// The rates, if any of them is given; all of the four then.
pub(super) fn meter(words: &mut Words<'_>) -> Result<Option<pb::MeterConfig>, NamedError> {
    let mut given = [None; 5];
    for (value, name) in given
        .iter_mut()
        .zip(["cir", "cburst", "pir", "pburst", "eburst"])
    {
        *value = words.number(name, 0)?;
    }
    match given {
        [None, None, None, None, None] => Ok(None),
        [Some(cir), Some(cburst), Some(pir), Some(pburst), eburst] => Ok(Some(pb::MeterConfig {
            cir,
            cburst,
            pir,
            pburst,
            eburst: eburst.unwrap_or(0),
        })),
        _ => fault("a meter takes --cir, --cburst, --pir and --pburst, all four"),
    }
}

/// The counts, if any is given.
pub(super) fn count(words: &mut Words<'_>) -> Result<Option<pb::CounterData>, NamedError> {
    let packets = words.number("packets", 0)?;
    let bytes = words.number("bytes", 0)?;
    if packets.is_none() && bytes.is_none() {
        return Ok(None);
    }
    Ok(Some(pb::CounterData {
        packet_count: packets.unwrap_or(0),
        byte_count: bytes.unwrap_or(0),
    }))
}
