//! Compiles tables: keys at fixed places of a packed key, actions by slot, next nodes by slot.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::action::Action;
use super::error::{LoadError, at, malformed, unsupported};
use super::layout::Layout;
use super::reference::pair_of;
use crate::bits::Field;
use crate::json::{self, bytes_of};

/// The longest packed key, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 512;

/// How a table finds its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// By hashing the whole key.
    Exact,
    /// By hashing the masked key, longest prefix first.
    Lpm,
    /// By priority, over values with masks and ranges.
    Ternary,
}

/// How one field of a key matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Exact,
    Lpm,
    Ternary,
    Range,
    Optional,
}

/// One field of a table's key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) kind: Match,
    pub(crate) field: Field,
    /// The validity byte of the field's header: fields of invalid headers match as zero.
    pub(crate) valid: Option<usize>,
    /// Where the field stands in the packed key.
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    /// A mask that the program applies before matching.
    pub(crate) mask: Option<Box<[u8]>>,
}

/// How a part of a packed key is made of the packet state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyStep {
    /// Bytes as they are: from, to, how many, unless the header with this validity byte is
    /// invalid.
    Copy {
        from: usize,
        to: usize,
        len: usize,
        valid: Option<usize>,
    },
    /// The field of this position in the key.
    Field(usize),
}

/// The steps that build a key, fields that follow each other joined.
fn steps(key: &[Key]) -> Box<[KeyStep]> {
    let mut steps: Vec<KeyStep> = Vec::new();
    for (position, part) in key.iter().enumerate() {
        let field = part.field;
        let whole = field.shift == 0 && field.width % 8 == 0;
        let own = usize::from(field.own) >= part.bytes;
        if part.mask.is_some() || !(whole || own) {
            steps.push(KeyStep::Field(position));
            continue;
        }
        let start = field.last as usize + 1 - part.bytes;
        match steps.last_mut() {
            Some(KeyStep::Copy {
                from, len, valid, ..
            }) if *valid == part.valid && *from + *len == start => *len += part.bytes,
            _ => steps.push(KeyStep::Copy {
                from: start,
                to: part.offset,
                len: part.bytes,
                valid: part.valid,
            }),
        }
    }
    steps.into()
}

/// Matches of an entry, packed: for a range field `value` and `mask` are its ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pattern {
    pub(crate) value: Box<[u8]>,
    /// Empty for an exact table.
    pub(crate) mask: Box<[u8]>,
    /// Of the LPM field, for an LPM table.
    pub(crate) prefix: u16,
    /// Higher wins; 0 in exact and LPM tables.
    pub(crate) priority: i32,
}

/// An entry that the program itself brings.
#[derive(Clone, Debug)]
pub(crate) struct ConstEntry {
    pub(crate) pattern: Pattern,
    pub(crate) slot: u16,
    pub(crate) args: Box<[u8]>,
}

/// The default action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Default {
    pub(crate) slot: u16,
    pub(crate) args: Box<[u8]>,
}

/// A table, ready to run.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) lookup: Lookup,
    pub(crate) key: Vec<Key>,
    pub(crate) key_bytes: usize,
    pub(crate) steps: Box<[KeyStep]>,
    /// Indices of the actions; a slot is a position here.
    pub(crate) actions: Vec<usize>,
    pub(crate) next: Next,
    pub(crate) profile: Option<usize>,
    pub(crate) max_size: usize,
    pub(crate) support_timeout: bool,
    pub(crate) with_counters: bool,
    /// Meter array and the field that takes the colour.
    pub(crate) meter: Option<(usize, Field)>,
    pub(crate) default: Option<Default>,
    pub(crate) const_default: bool,
    pub(crate) entries: Vec<ConstEntry>,
}

/// Where a packet goes after the table.
#[derive(Debug, std::default::Default)]
pub(crate) struct Next {
    pub(crate) hit: Option<Option<usize>>,
    pub(crate) miss: Option<Option<usize>>,
    pub(crate) by_slot: Vec<Option<usize>>,
    /// When no action ran.
    pub(crate) base: Option<usize>,
}

impl Next {
    /// The next node, by whether the table hit and which action ran.
    #[inline]
    pub(crate) fn after(&self, hit: bool, slot: Option<u16>) -> Option<usize> {
        let fixed = if hit { self.hit } else { self.miss };
        match (fixed, slot) {
            (Some(next), _) => next,
            (None, Some(slot)) => self.by_slot.get(usize::from(slot)).copied().flatten(),
            (None, None) => self.base,
        }
    }
}

/// What tables refer to.
pub(crate) struct Context<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) actions: &'a [Action],
    /// Action index by the document's id.
    pub(crate) action_by_id: &'a HashMap<u32, usize>,
    pub(crate) nodes: &'a HashMap<String, usize>,
    pub(crate) profiles: &'a HashMap<String, usize>,
    /// Index and result field of each direct meter array.
    pub(crate) meters: &'a HashMap<String, (usize, Option<Field>)>,
}

impl Context<'_> {
    fn node(&self, name: &Option<String>, place: &str) -> Result<Option<usize>, LoadError> {
        match name {
            None => Ok(None),
            Some(name) => {
                self.nodes
                    .get(name)
                    .map(|n| Some(*n))
                    .ok_or_else(|| LoadError::Unknown {
                        what: "control node",
                        name: name.clone(),
                        place: place.to_owned(),
                    })
            }
        }
    }

    /// Compiles a table.
    pub(crate) fn table(&self, table: &json::Table) -> Result<Table, LoadError> {
        let name = format!("table {}", table.name);
        let place = json::placed(name, table.source_info.as_ref());
        let mut key = Vec::new();
        let mut key_bytes = 0;
        for part in &table.key {
            let part = self.key(part, key_bytes, &place)?;
            key_bytes += part.bytes;
            key.push(part);
        }
        if key_bytes > MAX_KEY_BYTES {
            return Err(unsupported("key over 512 bytes", &place));
        }
        let lookup = lookup_of(&table.match_type, &key, &place)?;
        let mut actions = Vec::new();
        for id in &table.action_ids {
            actions.push(
                *self
                    .action_by_id
                    .get(id)
                    .ok_or_else(|| malformed(&place, format!("there is no action of id {id}")))?,
            );
        }
        let meter = match &table.direct_meters {
            None => None,
            Some(name) => {
                let (meter, target) = self.meters.get(name).ok_or_else(|| LoadError::Unknown {
                    what: "meter array",
                    name: name.clone(),
                    place: place.clone(),
                })?;
                let target = target.ok_or_else(|| {
                    malformed(&place, format!("direct meter {name} has no result field"))
                })?;
                Some((*meter, target))
            }
        };
        let profile = match (table.kind.as_str(), &table.action_profile) {
            ("simple" | "", _) => None,
            ("indirect" | "indirect_ws", Some(name)) => {
                Some(*self.profiles.get(name).ok_or_else(|| LoadError::Unknown {
                    what: "action profile",
                    name: name.clone(),
                    place: place.clone(),
                })?)
            }
            (kind, _) => return Err(unsupported(format!("table type `{kind}`"), &place)),
        };
        let mut out = Table {
            name: table.name.clone(),
            lookup,
            steps: steps(&key),
            key,
            key_bytes,
            next: self.next(table, &actions, &place)?,
            actions,
            profile,
            max_size: usize::try_from(table.max_size.unwrap_or(1024)).unwrap_or(usize::MAX),
            support_timeout: table.support_timeout,
            with_counters: table.with_counters,
            meter,
            default: None,
            const_default: false,
            entries: Vec::new(),
        };
        if let Some(default) = &table.default_entry {
            let (slot, args) = self.call(&out, default.action_id, &default.action_data, &place)?;
            out.default = Some(Default { slot, args });
            out.const_default = default.action_const || default.action_entry_const;
        }
        if out.profile.is_some() && !table.entries.is_empty() {
            return Err(unsupported("const entries with an action profile", &place));
        }
        let mut known = HashSet::new();
        for entry in &table.entries {
            let place = json::placed(
                format!("const entry of table {}", table.name),
                entry.source_info.as_ref(),
            );
            let entry = self.entry(&out, entry, &place)?;
            if !known.insert(entry.pattern.clone()) {
                return Err(malformed(place, "it has the key of another"));
            }
            out.entries.push(entry);
        }
        Ok(out)
    }

    fn next(&self, table: &json::Table, actions: &[usize], place: &str) -> Result<Next, LoadError> {
        let mut next = Next {
            base: self.node(&table.base_default_next, place)?,
            ..Next::default()
        };
        let keys = &table.next_tables;
        let by_hit = keys.contains_key("__HIT__") || keys.contains_key("__MISS__");
        if by_hit
            && !(keys.len() == 2 && keys.contains_key("__HIT__") && keys.contains_key("__MISS__"))
        {
            return Err(malformed(
                place,
                "next_tables has `__HIT__` or `__MISS__` without the other, or more beside them",
            ));
        }
        for (slot, action) in actions.iter().enumerate() {
            let name = table
                .actions
                .get(slot)
                .map(String::as_str)
                .or_else(|| self.actions.get(*action).map(|a| a.name.as_str()));
            let to = match name.and_then(|n| table.next_tables.get(n)) {
                Some(to) => self.node(to, place)?,
                None if by_hit => next.base,
                None => {
                    return Err(malformed(
                        place,
                        format!("next_tables lacks action {}", name.unwrap_or_default()),
                    ));
                }
            };
            next.by_slot.push(to);
        }
        if let Some(to) = table.next_tables.get("__HIT__") {
            next.hit = Some(self.node(to, place)?);
        }
        if let Some(to) = table.next_tables.get("__MISS__") {
            next.miss = Some(self.node(to, place)?);
        }
        Ok(next)
    }

    fn key(&self, key: &json::TableKey, offset: usize, place: &str) -> Result<Key, LoadError> {
        let (field, valid, text) = match &key.target {
            Value::String(header) => {
                let field = self.layout.field(header, "$valid$", place)?;
                (field, None, header.clone())
            }
            target => {
                let (header, field) = pair_of(target)
                    .ok_or_else(|| malformed(place, "a key is neither a field nor a header"))?;
                let index = self.layout.header(header, place)?;
                let hidden = field == "$valid$";
                let valid = self
                    .layout
                    .headers
                    .get(index)
                    .filter(|h| !h.metadata && !hidden)
                    .map(|h| h.valid);
                let text = format!("{header}.{field}");
                (self.layout.field(header, field, place)?, valid, text)
            }
        };
        let kind = match_kind(&key.match_type).ok_or_else(|| {
            unsupported(format!("match kind `{}` of {text}", key.match_type), place)
        })?;
        let bytes = field.bytes();
        let mask = match &key.mask {
            None => None,
            Some(mask) => Some(bytes_of(mask, bytes).map_err(at(place))?.into()),
        };
        Ok(Key {
            name: key.name.clone().unwrap_or(text),
            kind,
            field,
            valid,
            offset,
            bytes,
            mask,
        })
    }

    /// Slot and packed arguments of an action call.
    fn call(
        &self,
        table: &Table,
        id: u32,
        data: &[String],
        place: &str,
    ) -> Result<(u16, Box<[u8]>), LoadError> {
        let index = self
            .action_by_id
            .get(&id)
            .ok_or_else(|| malformed(place, format!("there is no action of id {id}")))?;
        let slot = table
            .actions
            .iter()
            .position(|a| a == index)
            .and_then(|s| u16::try_from(s).ok())
            .ok_or_else(|| malformed(place, format!("action {id} is not among its actions")))?;
        let action = self
            .actions
            .get(*index)
            .ok_or_else(|| malformed(place, "no such action"))?;
        if data.len() != action.params.len() {
            return Err(malformed(
                place,
                format!("action {} gets {} arguments", action.name, data.len()),
            ));
        }
        let mut args = Vec::with_capacity(action.args_bytes);
        for (text, (_, width)) in data.iter().zip(&action.params) {
            let bytes = usize::from(*width).div_ceil(8);
            args.extend(bytes_of(text, bytes).map_err(at(place))?);
        }
        Ok((slot, args.into()))
    }

    fn entry(
        &self,
        table: &Table,
        entry: &json::ConstEntry,
        place: &str,
    ) -> Result<ConstEntry, LoadError> {
        if entry.match_key.len() != table.key.len() {
            return Err(malformed(place, "a const entry's key has another length"));
        }
        let mut value = vec![0; table.key_bytes];
        let mut mask = vec![0xff; table.key_bytes];
        let mut prefix = 0;
        for (key, found) in table.key.iter().zip(&entry.match_key) {
            if match_kind(&found.match_type) != Some(key.kind) {
                return Err(malformed(
                    place,
                    format!(
                        "match `{}` on {}, which the key matches as {:?}",
                        found.match_type, key.name, key.kind
                    ),
                ));
            }
            let range = key.offset..key.offset + key.bytes;
            let (Some(value), Some(mask)) = (value.get_mut(range.clone()), mask.get_mut(range))
            else {
                continue;
            };
            const_match(key, found, value, mask, &mut prefix).map_err(|e| match e {
                ConstError::Hex(e) => malformed(place, e.to_string()),
                ConstError::Kind => malformed(
                    place,
                    format!(
                        "a const entry's match `{}` on {}",
                        found.match_type, key.name
                    ),
                ),
            })?;
        }
        for (value, mask) in value.iter_mut().zip(&mask) {
            let ranged = table.key.iter().any(|k| k.kind == Match::Range);
            if !ranged {
                *value &= mask;
            }
        }
        let (slot, args) = self.call(
            table,
            entry.action_entry.action_id,
            &entry.action_entry.action_data,
            place,
        )?;
        let ternary = table.lookup == Lookup::Ternary;
        // In the JSON a small number comes first; in P4Runtime a large one does.
        let rank = entry
            .priority
            .unwrap_or(1)
            .clamp(0, i64::from(i32::MAX) - 1);
        Ok(ConstEntry {
            pattern: Pattern {
                value: value.into(),
                mask: if table.lookup == Lookup::Exact {
                    Box::default()
                } else {
                    mask.into()
                },
                prefix,
                priority: if ternary { i32::MAX - rank as i32 } else { 0 },
            },
            slot,
            args,
        })
    }
}

/// The match kind that the JSON calls so.
fn match_kind(name: &str) -> Option<Match> {
    Some(match name {
        "exact" | "valid" => Match::Exact,
        "lpm" => Match::Lpm,
        "ternary" => Match::Ternary,
        "range" => Match::Range,
        "optional" => Match::Optional,
        _ => return None,
    })
}

enum ConstError {
    Hex(json::HexError),
    Kind,
}

impl From<json::HexError> for ConstError {
    fn from(error: json::HexError) -> Self {
        Self::Hex(error)
    }
}

fn const_match(
    key: &Key,
    found: &json::ConstMatch,
    value: &mut [u8],
    mask: &mut [u8],
    prefix: &mut u16,
) -> Result<(), ConstError> {
    let bytes = key.bytes;
    let text = match &found.key {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Bool(flag)) => Some(format!("0x{}", u8::from(*flag))),
        _ => None,
    };
    let kind = match found.match_type.as_str() {
        "exact" | "valid" => Some(Match::Exact),
        "lpm" => Some(Match::Lpm),
        "ternary" => Some(Match::Ternary),
        "range" => Some(Match::Range),
        "optional" => Some(Match::Optional),
        _ => None,
    };
    // An optional field is a ternary one with two masks.
    let like = |kind| match kind {
        Some(Match::Optional) => Some(Match::Ternary),
        other => other,
    };
    if like(kind) != like(Some(key.kind)) || found.prefix_length > Some(key.field.width) {
        return Err(ConstError::Kind);
    }
    match (found.match_type.as_str(), text) {
        ("exact" | "valid" | "optional", Some(text)) if found.mask.is_none() => {
            value.copy_from_slice(&bytes_of(&text, bytes)?);
            prefix_mask(mask, key.field.width, key.field.width);
        }
        ("lpm", Some(text)) => {
            value.copy_from_slice(&bytes_of(&text, bytes)?);
            *prefix = found.prefix_length.unwrap_or(0);
            prefix_mask(mask, key.field.width, *prefix);
        }
        ("ternary" | "optional", Some(text)) => {
            value.copy_from_slice(&bytes_of(&text, bytes)?);
            if let Some(text) = &found.mask {
                mask.copy_from_slice(&bytes_of(text, bytes)?);
            }
        }
        ("optional" | "ternary", None) => mask.fill(0),
        ("range", _) => match (&found.start, &found.end) {
            (Some(start), Some(end)) => {
                value.copy_from_slice(&bytes_of(start, bytes)?);
                mask.copy_from_slice(&bytes_of(end, bytes)?);
            }
            _ => return Err(ConstError::Kind),
        },
        _ => return Err(ConstError::Kind),
    }
    Ok(())
}

/// Sets `mask` (of a field `width` bits wide) to the mask of a prefix.
pub(crate) fn prefix_mask(mask: &mut [u8], width: u16, prefix: u16) {
    let padding = mask.len() * 8 - usize::from(width);
    let end = padding + usize::from(prefix);
    for (i, byte) in mask.iter_mut().enumerate() {
        let from = (i * 8).max(padding);
        let to = ((i + 1) * 8).min(end);
        *byte = if from >= to {
            0
        } else {
            let ones = 0xff_u8 >> (8 - (to - from));
            ones << ((i + 1) * 8 - to)
        };
    }
}

fn lookup_of(match_type: &str, key: &[Key], place: &str) -> Result<Lookup, LoadError> {
    let count = |kind| key.iter().filter(|k| k.kind == kind).count();
    let ternary = count(Match::Ternary) + count(Match::Optional) + count(Match::Range);
    if !matches!(match_type, "exact" | "lpm" | "ternary" | "range") {
        return Err(unsupported(
            format!("table match type `{match_type}`"),
            place,
        ));
    }
    if ternary > 0 || matches!(match_type, "ternary" | "range") {
        return Ok(Lookup::Ternary);
    }
    match count(Match::Lpm) {
        0 => Ok(Lookup::Exact),
        1 => Ok(Lookup::Lpm),
        _ => Err(unsupported("key with two LPM fields", place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_masks_respect_padding() {
        let mut mask = [0; 4];
        prefix_mask(&mut mask, 32, 20);
        assert_eq!(mask, [0xff, 0xff, 0xf0, 0]);
        prefix_mask(&mut mask, 32, 0);
        assert_eq!(mask, [0; 4]);
        let mut mask = [0; 2];
        prefix_mask(&mut mask, 9, 1);
        assert_eq!(mask, [1, 0]);
        prefix_mask(&mut mask, 9, 9);
        assert_eq!(mask, [1, 0xff]);
    }
}
