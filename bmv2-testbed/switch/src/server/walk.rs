//! Decodes `Write` requests of plain updates by hand, without a message in between.
//!
//! What it takes are table entries of plain tables (see `format`) in the form that clients send:
//! every field once, numbers before what they number, nothing but what such an entry has, all of
//! it valid. Everything else, the invalid in particular, is left to the generated messages: one
//! unusual update and the request is theirs. So this decoder never has to say what is wrong.

use p4runtime::p4::v1 as pb;
use pb::update::Type;

use super::fault::Fault;
use super::format::{ActionFormat, Format, Formats, Part};
use super::write::failed;
use crate::state::State;
use crate::state::entry::{Entry, Key, Rare, Spec};

/// A request, decoded.
#[derive(Debug)]
pub(crate) struct Plan<'f> {
    pub(crate) device_id: u64,
    pub(crate) election_id: Option<pb::Uint128>,
    updates: Vec<(&'f Format, Change)>,
    /// The keys of entries to delete, one after another.
    keys: Vec<u8>,
}

#[derive(Debug)]
enum Change {
    Insert(Entry),
    Modify(Entry),
    /// Where its key starts.
    Delete(usize),
}

impl Plan<'_> {
    /// Applies the updates in order, with a result for each.
    pub(crate) fn apply(self, state: &State) -> Vec<Result<(), Fault>> {
        let keys = self.keys;
        let one = |(format, change): (&Format, Change)| {
            let table = state.tables.get(format.index);
            let table = table.ok_or_else(|| Fault::not_found("the table is gone"))?;
            let done = match change {
                Change::Insert(entry) => table.insert(entry),
                Change::Modify(entry) => table.modify(&entry).map(drop),
                Change::Delete(at) => {
                    let value = keys.get(at..at + usize::from(format.key_bytes));
                    let key = Key {
                        value: value.unwrap_or_default(),
                        mask: &[],
                        prefix: 0,
                        priority: 0,
                    };
                    table.remove(key).map(drop)
                }
            };
            done.map_err(|error| failed(&format.name, error))
        };
        self.updates.into_iter().map(one).collect()
    }
}

/// Decodes a `WriteRequest`; none if the generated messages have to.
pub(crate) fn plan<'f>(bytes: &[u8], formats: &'f Formats, now_ns: u64) -> Option<Plan<'f>> {
    let mut plan = Plan {
        device_id: 0,
        election_id: None,
        updates: Vec::with_capacity(bytes.len() / SMALL_UPDATE_BYTES),
        keys: Vec::new(),
    };
    let mut walk = Walk {
        formats,
        now_ns,
        last: None,
        packed: Vec::new(),
    };
    let mut wire = Wire(bytes);
    while let Some(field) = wire.field()? {
        match field {
            DEVICE_ID if plan.device_id == 0 => plan.device_id = wire.varint()?,
            ELECTION_ID if plan.election_id.is_none() => {
                plan.election_id = Some(election_id(wire.bytes()?)?);
            }
            UPDATES => {
                let update = walk.update(wire.bytes()?, &mut plan.keys)?;
                plan.updates.push(update);
            }
            _ => return None,
        }
    }
    Some(plan)
}

/// A short update, for a guess of how many there are.
const SMALL_UPDATE_BYTES: usize = 64;

// Field numbers of p4runtime.proto, shifted, with their wire types.
const DEVICE_ID: u64 = 1 << 3;
const ELECTION_ID: u64 = 3 << 3 | 2;
const UPDATES: u64 = 4 << 3 | 2;
const HIGH: u64 = 1 << 3;
const LOW: u64 = 2 << 3;
const TYPE: u64 = 1 << 3;
const ENTITY: u64 = 2 << 3 | 2;
const TABLE_ENTRY: u64 = 2 << 3 | 2;
const TABLE_ID: u64 = 1 << 3;
const MATCH: u64 = 2 << 3 | 2;
const TABLE_ACTION: u64 = 3 << 3 | 2;
const CONTROLLER_METADATA: u64 = 5 << 3;
const IDLE_TIMEOUT_NS: u64 = 9 << 3;
const METADATA: u64 = 11 << 3 | 2;
const FIELD_ID: u64 = 1 << 3;
const EXACT: u64 = 2 << 3 | 2;
const EXACT_VALUE: u64 = 1 << 3 | 2;
const ACTION: u64 = 1 << 3 | 2;
const ACTION_ID: u64 = 1 << 3;
const PARAM: u64 = 4 << 3 | 2;
const PARAM_ID: u64 = 2 << 3;
const PARAM_VALUE: u64 = 3 << 3 | 2;

/// Bytes of a message that have not been read.
struct Wire<'b>(&'b [u8]);

impl<'b> Wire<'b> {
    /// The next field's number and wire type; `Some(None)` at the end.
    #[inline]
    fn field(&mut self) -> Option<Option<u64>> {
        if self.0.is_empty() {
            return Some(None);
        }
        self.varint().map(Some)
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        if *first < 0x80 {
            self.0 = rest;
            return Some(u64::from(*first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (i, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                // The tenth byte has the one bit that is left.
                if i == 9 && *byte > 1 {
                    return None;
                }
                self.0 = self.0.get(i + 1..)?;
                return Some(value);
            }
        }
        None
    }

    /// What stands behind a length.
    #[inline]
    fn bytes(&mut self) -> Option<&'b [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (found, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(found)
    }

    /// The one field of a message that has only this one, once.
    #[inline]
    fn only(bytes: &'b [u8], field: u64) -> Option<&'b [u8]> {
        let mut wire = Self(bytes);
        if wire.field()?? != field {
            return None;
        }
        let found = wire.bytes()?;
        wire.0.is_empty().then_some(found)
    }
}

fn election_id(bytes: &[u8]) -> Option<pb::Uint128> {
    let mut id = pb::Uint128::default();
    let mut wire = Wire(bytes);
    while let Some(field) = wire.field()? {
        match field {
            HIGH => id.high = wire.varint()?,
            LOW => id.low = wire.varint()?,
            _ => return None,
        }
    }
    Some(id)
}

/// Finds parts by id; they mostly come in the order of the P4Info.
struct Finder<'f> {
    parts: &'f [Part],
    /// Where the next one is expected.
    next: usize,
    /// One bit each.
    seen: u64,
}

impl<'f> Finder<'f> {
    fn new(parts: &'f [Part]) -> Self {
        Self {
            parts,
            next: 0,
            seen: 0,
        }
    }

    /// Puts a part's value where it belongs: each part once, with a value that fits.
    #[inline]
    fn put(&mut self, id: u32, value: &[u8], packed: &mut [u8]) -> Option<()> {
        let at = match self.parts.get(self.next) {
            Some(part) if part.id == id => self.next,
            _ => self.parts.iter().position(|p| p.id == id)?,
        };
        let part = self.parts.get(at)?;
        let bit = 1 << at;
        if self.seen & bit != 0 {
            return None;
        }
        self.seen |= bit;
        self.next = at + 1;

        let zeros = value.iter().take_while(|b| **b == 0).count();
        let significant = value.get(zeros..)?;
        match significant.first() {
            // Nothing but zeros; the value must not be empty.
            None if zeros == 0 => return None,
            None => return Some(()),
            Some(first) => {
                let bits = significant.len() * 8 - first.leading_zeros() as usize;
                if bits > part.limit {
                    return None;
                }
            }
        }
        let end = part.offset + part.bytes;
        let to = packed.get_mut(end.checked_sub(significant.len())?..end)?;
        to.copy_from_slice(significant);
        Some(())
    }

    fn complete(&self) -> bool {
        self.seen.count_ones() as usize == self.parts.len()
    }
}

struct Walk<'f> {
    formats: &'f Formats,
    now_ns: u64,
    /// The table of the update before: mostly that of the next.
    last: Option<&'f Format>,
    /// Key and arguments of the entry at hand.
    packed: Vec<u8>,
}

impl<'f> Walk<'f> {
    fn update(&mut self, bytes: &[u8], keys: &mut Vec<u8>) -> Option<(&'f Format, Change)> {
        let (mut kind, mut entity) = (0, None);
        let mut wire = Wire(bytes);
        while let Some(field) = wire.field()? {
            match field {
                TYPE if kind == 0 => kind = wire.varint()?,
                ENTITY if entity.is_none() => entity = Some(wire.bytes()?),
                _ => return None,
            }
        }
        let kind = Type::try_from(i32::try_from(kind).ok()?).ok()?;
        let bytes = Wire::only(entity?, TABLE_ENTRY)?;
        self.entry(kind, bytes, keys)
    }

    fn format(&mut self, id: u32) -> Option<&'f Format> {
        match self.last {
            Some(last) if last.id == id => {}
            _ => self.last = Some(self.formats.get(id)?),
        }
        self.last
    }

    fn entry(
        &mut self,
        kind: Type,
        bytes: &[u8],
        keys: &mut Vec<u8>,
    ) -> Option<(&'f Format, Change)> {
        let mut wire = Wire(bytes);
        if wire.field()?? != TABLE_ID {
            return None;
        }
        let format = self.format(wire.varint()? as u32)?;
        self.packed.clear();
        self.packed.resize(format.key_bytes.into(), 0);
        let mut fields = Finder::new(&format.fields);
        let mut slot = None;
        let mut idle_timeout_ns = 0;
        let mut rare = Rare::default();
        while let Some(field) = wire.field()? {
            match field {
                MATCH => {
                    let (id, value) = field_match(wire.bytes()?)?;
                    fields.put(id, value, &mut self.packed)?;
                }
                TABLE_ACTION if slot.is_none() => {
                    let action = Wire::only(wire.bytes()?, ACTION)?;
                    slot = Some(self.action(format, action)?);
                }
                CONTROLLER_METADATA => rare.controller_metadata = wire.varint()?,
                IDLE_TIMEOUT_NS if idle_timeout_ns == 0 => idle_timeout_ns = wire.varint()?,
                METADATA => rare.metadata = wire.bytes()?.into(),
                _ => return None,
            }
        }
        let refused = idle_timeout_ns > 0 && !format.idle_timeout;
        if !fields.complete() || refused || i64::try_from(idle_timeout_ns).is_err() {
            return None;
        }
        let change = match (kind, slot) {
            (Type::Delete, None) => {
                let at = keys.len();
                keys.extend_from_slice(&self.packed);
                Change::Delete(at)
            }
            (Type::Insert, Some(slot)) => {
                Change::Insert(self.made(format, slot, idle_timeout_ns, rare))
            }
            (Type::Modify, Some(slot)) => {
                Change::Modify(self.made(format, slot, idle_timeout_ns, rare))
            }
            _ => return None,
        };
        Some((format, change))
    }

    fn made(&self, format: &Format, slot: u16, idle_timeout_ns: u64, rare: Rare) -> Entry {
        Entry::new(Spec {
            bytes: &self.packed,
            key_bytes: format.key_bytes,
            slot,
            idle_timeout_ns,
            rare: rare.needed().then(|| Box::new(rare)),
            now_ns: self.now_ns,
            ..Spec::default()
        })
    }

    /// Appends the arguments of an action to the key; returns its slot.
    fn action(&mut self, format: &Format, bytes: &[u8]) -> Option<u16> {
        let mut wire = Wire(bytes);
        if wire.field()?? != ACTION_ID {
            return None;
        }
        let id = wire.varint()? as u32;
        let mut actions = format.actions.iter();
        let action: &ActionFormat = actions.find(|a| a.id == id && a.usable)?;
        let key_bytes = usize::from(format.key_bytes);
        self.packed.resize(key_bytes + action.bytes, 0);
        let args = self.packed.get_mut(key_bytes..)?;
        let mut params = Finder::new(&action.params);
        while let Some(field) = wire.field()? {
            if field != PARAM {
                return None;
            }
            let mut param = Wire(wire.bytes()?);
            if param.field()?? != PARAM_ID {
                return None;
            }
            let id = param.varint()? as u32;
            let value = Wire::only(param.0, PARAM_VALUE)?;
            params.put(id, value, args)?;
        }
        params.complete().then_some(action.slot)
    }
}

/// Field id and value of an exact match.
#[inline]
fn field_match(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut wire = Wire(bytes);
    if wire.field()?? != FIELD_ID {
        return None;
    }
    let id = wire.varint()? as u32;
    let exact = Wire::only(wire.0, EXACT)?;
    Some((id, Wire::only(exact, EXACT_VALUE)?))
}

#[cfg(test)]
mod tests;
