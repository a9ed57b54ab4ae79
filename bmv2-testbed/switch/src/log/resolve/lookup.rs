//! Tables, actions and headers: keys, entries, arguments and fields by name.

use super::super::record::{Fields, KeyField, Step};
use super::super::value::Format;
use super::{MANY_BITS, Resolver};
use crate::exec::trace::{Found, Via};
use crate::program::table::{Lookup, Match, Pattern, Table};

fn kind(kind: Match) -> &'static str {
    match kind {
        Match::Exact => "exact",
        Match::Lpm => "lpm",
        Match::Ternary => "ternary",
        Match::Range => "range",
        Match::Optional => "optional",
    }
}

impl Resolver<'_> {
    pub(super) fn lookup(&mut self, index: usize, key: &[u8], found: &Found) {
        let program = &self.loaded.program;
        let Some(table) = program.tables.get(index) else {
            return;
        };
        if *found == Found::Nothing {
            // A bare statement of the program: its action says all, or the condition before it.
            return;
        }
        let source = program.sources.tables.get(&table.name);
        let (pattern, via) = match found {
            Found::Entry(pattern, via) => (Some(pattern), Some(*via)),
            _ => (None, None),
        };
        let empty = matches!(via, Some(Via::Group(_, None) | Via::OneShot(None)));
        let result = match pattern {
            _ if empty => "empty_group",
            Some(_) => "hit",
            None => "miss",
        };
        let (group, member) = match via {
            Some(Via::Member(member)) => (None, Some(member)),
            Some(Via::Group(group, member)) => (Some(group), member),
            Some(Via::OneShot(member)) => (None, member),
            _ => (None, None),
        };
        self.cause = Some(format!("table {} {result}", table.name));
        let key = self.key(index, table, key, pattern);
        let ternary = table.lookup == Lookup::Ternary;
        self.step(Step::Table {
            table: table.name.clone(),
            source: source.and_then(|s| s.place()),
            key,
            result,
            priority: pattern.filter(|_| ternary).map(|p| p.priority),
            member,
            group,
            counted: pattern.is_some() && table.with_counters,
        });
    }

    fn key(
        &self,
        index: usize,
        table: &Table,
        key: &[u8],
        pattern: Option<&Pattern>,
    ) -> Vec<KeyField> {
        let info = &self.loaded.info;
        let id = info.table_by_index.get(&index);
        let wire = id.and_then(|id| info.p4info.tables.iter().find(|t| has_id(&t.preamble, *id)));
        let fields = table.key.iter().map(|part| {
            let format = wire
                .and_then(|t| t.match_fields.iter().find(|f| f.name == part.name))
                .and_then(|f| Format::annotated(&f.annotations))
                .unwrap_or_else(|| Format::guess(&part.name, part.field.width));
            let bytes = |of: &'_ [u8]| {
                let range = part.offset..part.offset + part.bytes;
                of.get(range).unwrap_or_default().to_vec()
            };
            let entry = pattern.map(|pattern| {
                let value = bytes(&pattern.value);
                let mask = bytes(&pattern.mask);
                let wild = mask.iter().all(|b| *b == 0);
                match part.kind {
                    Match::Exact => format.write(&value),
                    Match::Lpm if table.lookup == Lookup::Lpm => {
                        format!("{}/{}", format.write(&value), pattern.prefix)
                    }
                    Match::Range => format!("{}..{}", format.write(&value), format.write(&mask)),
                    _ if wild => "*".to_owned(),
                    Match::Optional => format.write(&value),
                    Match::Lpm => {
                        let ones: u32 = mask.iter().map(|b| b.count_ones()).sum();
                        format!("{}/{ones}", format.write(&value))
                    }
                    Match::Ternary => {
                        let format = match format {
                            Format::Decimal => Format::Hex,
                            other => other,
                        };
                        format!("{} &&& {}", format.write(&value), format.write(&mask))
                    }
                }
            });
            KeyField {
                name: part.name.clone(),
                kind: kind(part.kind),
                value: format.write(&bytes(key)),
                entry,
            }
        });
        fields.collect()
    }

    pub(super) fn action(&mut self, index: usize, args: &[u8]) {
        let program = &self.loaded.program;
        let Some(action) = program.actions.get(index) else {
            return;
        };
        let wire = self.loaded.info.p4info.actions.iter();
        let wire = wire.clone().find(|a| {
            let preamble = a.preamble.as_ref();
            preamble.is_some_and(|p| p.name == action.name)
        });
        let mut at = 0;
        let arguments = action.params.iter().map(|(name, width)| {
            let bytes = usize::from(*width).div_ceil(8);
            let value = args.get(at..at + bytes).unwrap_or_default();
            at += bytes;
            let format = wire
                .and_then(|a| a.params.iter().find(|p| p.name == *name))
                .and_then(|p| Format::annotated(&p.annotations))
                .unwrap_or_else(|| Format::guess(name, *width));
            (name.clone(), format.write(value))
        });
        let arguments = Fields(arguments.collect());
        self.action = Some(action.name.clone());
        self.step(Step::Action {
            action: action.name.clone(),
            arguments,
        });
    }

    /// A header's fields from its bytes on the wire.
    pub(super) fn header(&self, index: usize, bytes: &[u8]) -> Fields {
        let fields = self.loaded.program.layout.wire_fields(index, bytes.len());
        let fields = fields.into_iter().map(|(name, bit, bits)| {
            let mut value = vec![0; bits.div_ceil(8)];
            let padding = value.len() * 8 - bits;
            crate::bits::copy_bits(bytes, bit, &mut value, padding, bits);
            let width = u16::try_from(bits).unwrap_or(MANY_BITS);
            let written = Format::guess(&name, width).write(&value);
            (name, written)
        });
        Fields(fields.collect())
    }
}

fn has_id(preamble: &Option<p4runtime::p4::config::v1::Preamble>, id: u32) -> bool {
    preamble.as_ref().is_some_and(|p| p.id == id)
}
