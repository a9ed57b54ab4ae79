//! How the plain tables' entries look on the wire, compiled when the program is loaded.
//!
//! A plain table matches exactly and its entries call actions directly, without meters: what
//! large tables are. Their entries are decoded (`walk`) and encoded (here) by hand; those of
//! all other tables by way of the generated messages (`entry`).

use super::wire::Wanted;
use crate::info::{Info, Scope, TableInfo};
use crate::program::Program;
use crate::program::table::{Lookup, Match};
use crate::state::entry::{Entry, Target};

/// The most fields and parameters of a plain table: a walk notes those seen in as many bits.
pub(crate) const MAX_PARTS: usize = 64;

/// A match field or an action parameter.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) id: u32,
    /// Its place in the packed key or arguments.
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    /// The most significant bits of a value.
    pub(crate) limit: usize,
}

/// An action of the table.
#[derive(Debug)]
pub(crate) struct ActionFormat {
    pub(crate) id: u32,
    pub(crate) slot: u16,
    /// Whether entries may have it: else it can only be the default.
    pub(crate) usable: bool,
    pub(crate) params: Vec<Part>,
    pub(crate) bytes: usize,
}

/// A plain table.
#[derive(Debug)]
pub(crate) struct Format {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// Index in the program.
    pub(crate) index: usize,
    /// In the order of the P4Info.
    pub(crate) fields: Vec<Part>,
    pub(crate) key_bytes: u16,
    /// Slots are positions.
    pub(crate) actions: Vec<ActionFormat>,
    pub(crate) idle_timeout: bool,
    has_counter: bool,
}

/// The plain tables by id.
#[derive(Debug, Default)]
pub(crate) struct Formats(Vec<Format>);

impl Formats {
    pub(crate) fn new(program: &Program, info: &Info) -> Self {
        let tables = info.tables.values();
        let mut formats: Vec<_> = tables
            .filter_map(|table| format(program, info, table))
            .collect();
        formats.sort_by_key(|f| f.id);
        Self(formats)
    }

    /// The table of this id, if it is plain.
    pub(crate) fn get(&self, id: u32) -> Option<&Format> {
        let at = self.0.binary_search_by_key(&id, |f| f.id).ok()?;
        self.0.get(at)
    }
}

fn format(program: &Program, info: &Info, table: &TableInfo) -> Option<Format> {
    let compiled = program.tables.get(table.index)?;
    let exact = table.fields.iter().all(|f| f.kind == Match::Exact);
    let few = (1..=MAX_PARTS).contains(&table.fields.len());
    if !exact || !few || compiled.lookup != Lookup::Exact {
        return None;
    }
    // Entries that the program brings are not all for clients to change.
    if table.is_const || !compiled.entries.is_empty() {
        return None;
    }
    if table.has_meter || table.profile.is_some() || table.needs_priority {
        return None;
    }
    let fields: Vec<_> = table
        .fields
        .iter()
        .map(|field| Part {
            id: field.id,
            offset: field.offset,
            bytes: field.bytes,
            limit: field.width.min(field.program_width).into(),
        })
        .collect();
    if fields.iter().map(|f| f.bytes).sum::<usize>() != compiled.key_bytes {
        return None;
    }
    let action = |(slot, id): (usize, &u32)| {
        let params = info.actions.get(id).map_or(&[][..], |a| &a.params);
        let mut bytes = 0;
        let params: Vec<_> = params
            .iter()
            .map(|param| {
                let offset = bytes;
                let own = usize::from(param.program_width).div_ceil(8);
                bytes += own;
                Part {
                    id: param.id,
                    offset,
                    bytes: own,
                    limit: param.width.min(param.program_width).into(),
                }
            })
            .collect();
        let scope = table.actions.get(id).map(|a| a.1);
        ActionFormat {
            id: *id,
            slot: slot as u16,
            usable: params.len() <= MAX_PARTS && scope.is_some_and(|s| s != Scope::DefaultOnly),
            params,
            bytes,
        }
    };
    Some(Format {
        id: table.id,
        name: table.name.clone(),
        index: table.index,
        key_bytes: u16::try_from(compiled.key_bytes).ok()?,
        fields,
        actions: table.action_ids.iter().enumerate().map(action).collect(),
        idle_timeout: table.idle_timeout,
        has_counter: table.has_counter,
    })
}

// Field numbers of p4runtime.proto, shifted, with their wire types.
const ENTITIES: u8 = 1 << 3 | 2;
const TABLE_ENTRY: u8 = 2 << 3 | 2;
const TABLE_ID: u8 = 1 << 3;
const MATCH: u8 = 2 << 3 | 2;
const FIELD_ID: u8 = 1 << 3;
const EXACT: u8 = 2 << 3 | 2;
const EXACT_VALUE: u8 = 1 << 3 | 2;
const TABLE_ACTION: u8 = 3 << 3 | 2;
const ACTION: u8 = 1 << 3 | 2;
const ACTION_ID: u8 = 1 << 3;
const PARAM: u8 = 4 << 3 | 2;
const PARAM_ID: u8 = 2 << 3;
const PARAM_VALUE: u8 = 3 << 3 | 2;
const CONTROLLER_METADATA: u8 = 5 << 3;
const COUNTER_DATA: u8 = 7 << 3 | 2;
const BYTE_COUNT: u8 = 1 << 3;
const PACKET_COUNT: u8 = 2 << 3;
const IDLE_TIMEOUT_NS: u8 = 9 << 3;
const TIME_SINCE_LAST_HIT: u8 = 10 << 3 | 2;
const ELAPSED_NS: u8 = 1 << 3;
const METADATA: u8 = 11 << 3 | 2;

/// The bytes of a varint.
fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// The bytes of a field with a length and this much after it.
fn field_bytes(content: usize) -> usize {
    1 + varint_bytes(content as u64) + content
}

/// The bytes of a number's field; numbers of 0 are left out.
fn number_bytes(value: u64) -> usize {
    if value == 0 {
        0
    } else {
        1 + varint_bytes(value)
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_head(out: &mut Vec<u8>, field: u8, content: usize) {
    out.push(field);
    put_varint(out, content as u64);
}

fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field);
        put_varint(out, value);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// The shortest form of a value (P4Runtime, "Bytestrings").
fn canonical<'v>(part: &Part, packed: &'v [u8]) -> &'v [u8] {
    let value = packed.get(part.offset..part.offset + part.bytes);
    let value = value.unwrap_or_default();
    let zeros = value.iter().take_while(|b| **b == 0).count();
    let zeros = zeros.min(value.len().saturating_sub(1));
    match value.get(zeros..) {
        Some(rest) if !rest.is_empty() => rest,
        _ => &[0],
    }
}

impl Part {
    /// The content of a `FieldMatch`.
    fn match_bytes(&self, value: &[u8]) -> usize {
        number_bytes(self.id.into()) + field_bytes(field_bytes(value.len()))
    }

    /// The content of a `Param`.
    fn param_bytes(&self, value: &[u8]) -> usize {
        number_bytes(self.id.into()) + field_bytes(value.len())
    }
}

/// What an entry has beside key and action.
struct Extras {
    counted: Option<(u64, u64)>,
    idle_ns: Option<u64>,
}

/// Numbers on the wire are signed.
fn signed(value: u64) -> u64 {
    value.min(i64::MAX as u64)
}

impl Format {
    /// Appends the entry as one of a `ReadResponse`'s entities, as `wire::entry` has it.
    pub(crate) fn encode(&self, entry: &Entry, wanted: Wanted, now_ns: u64, out: &mut Vec<u8>) {
        let key = entry.value();
        let (slot, args) = match entry.target() {
            Target::Call { slot, args } => (slot, args),
            // A plain table has no other entries.
            _ => return,
        };
        let Some(action) = self.actions.get(usize::from(slot)) else {
            return;
        };
        let counted = wanted.counter && self.has_counter;
        let extras = Extras {
            counted: counted.then(|| {
                let (packets, bytes) = entry.counter().get();
                (signed(packets), signed(bytes))
            }),
            idle_ns: (wanted.idle && self.idle_timeout).then(|| signed(entry.idle_ns(now_ns))),
        };
        let params = action.params.iter();
        let action_bytes = number_bytes(action.id.into())
            + params
                .map(|p| field_bytes(p.param_bytes(canonical(p, args))))
                .sum::<usize>();
        let matches = self.fields.iter();
        let entry_bytes = number_bytes(self.id.into())
            + matches
                .map(|f| field_bytes(f.match_bytes(canonical(f, key))))
                .sum::<usize>()
            + field_bytes(field_bytes(action_bytes))
            + extras.bytes(entry);

        put_head(out, ENTITIES, field_bytes(entry_bytes));
        put_head(out, TABLE_ENTRY, entry_bytes);
        put_number(out, TABLE_ID, self.id.into());
        for field in &self.fields {
            let value = canonical(field, key);
            put_head(out, MATCH, field.match_bytes(value));
            put_number(out, FIELD_ID, field.id.into());
            put_head(out, EXACT, field_bytes(value.len()));
            put_bytes(out, EXACT_VALUE, value);
        }
        put_head(out, TABLE_ACTION, field_bytes(action_bytes));
        put_head(out, ACTION, action_bytes);
        put_number(out, ACTION_ID, action.id.into());
        for param in &action.params {
            let value = canonical(param, args);
            put_head(out, PARAM, param.param_bytes(value));
            put_number(out, PARAM_ID, param.id.into());
            put_bytes(out, PARAM_VALUE, value);
        }
        extras.put(entry, out);
    }
}

impl Extras {
    fn bytes(&self, entry: &Entry) -> usize {
        let metadata = entry.metadata();
        let mut bytes = number_bytes(entry.controller_metadata())
            + number_bytes(signed(entry.idle_timeout_ns()));
        if let Some((packets, count)) = self.counted {
            bytes += field_bytes(number_bytes(packets) + number_bytes(count));
        }
        if let Some(idle_ns) = self.idle_ns {
            bytes += field_bytes(number_bytes(idle_ns));
        }
        if !metadata.is_empty() {
            bytes += field_bytes(metadata.len());
        }
        bytes
    }

    fn put(&self, entry: &Entry, out: &mut Vec<u8>) {
        put_number(out, CONTROLLER_METADATA, entry.controller_metadata());
        if let Some((packets, bytes)) = self.counted {
            put_head(
                out,
                COUNTER_DATA,
                number_bytes(packets) + number_bytes(bytes),
            );
            put_number(out, BYTE_COUNT, bytes);
            put_number(out, PACKET_COUNT, packets);
        }
        put_number(out, IDLE_TIMEOUT_NS, signed(entry.idle_timeout_ns()));
        if let Some(idle_ns) = self.idle_ns {
            put_head(out, TIME_SINCE_LAST_HIT, number_bytes(idle_ns));
            put_number(out, ELAPSED_NS, idle_ns);
        }
        if !entry.metadata().is_empty() {
            put_bytes(out, METADATA, entry.metadata());
        }
    }
}
