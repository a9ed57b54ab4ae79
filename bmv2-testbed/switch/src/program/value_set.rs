//! Parser value sets: cases of a select whose values the control plane writes.

use super::error::{LoadError, malformed};
use super::parser::{Parser, Test};
use crate::json;

/// The largest value set, in members.
const MAX_MEMBERS: u64 = 1 << 16;

/// A value set.
#[derive(Debug)]
pub(crate) struct ValueSet {
    pub(crate) name: String,
    /// In members.
    pub(crate) max_size: usize,
    /// Widths of the select key's parts, in bits; none if no select uses the set.
    pub(crate) parts: Option<Vec<u16>>,
}

/// Compiles the value sets, and checks the selects that use them.
pub(crate) fn compile(doc: &json::Document, parser: &Parser) -> Result<Vec<ValueSet>, LoadError> {
    let mut sets: Vec<ValueSet> = doc
        .parse_vsets
        .iter()
        .map(|set| {
            let size = set.max_size.unwrap_or(MAX_MEMBERS).min(MAX_MEMBERS);
            ValueSet {
                name: set.name.clone(),
                max_size: size as usize,
                parts: None,
            }
        })
        .collect();
    for state in &parser.states {
        for case in &state.cases {
            let Test::Set(index) = case.test else {
                continue;
            };
            let (Some(set), Some(source)) = (sets.get_mut(index), doc.parse_vsets.get(index))
            else {
                continue;
            };
            let place = || format!("value set {} in parser state {}", set.name, state.name);
            let parts: Vec<u16> = state.key.iter().map(|part| part.width()).collect();
            let bits: u32 = parts.iter().map(|width| u32::from(*width)).sum();
            if bits != source.compressed_bitwidth {
                return Err(malformed(
                    place(),
                    format!(
                        "its members take {} bits, the select key {bits}",
                        source.compressed_bitwidth
                    ),
                ));
            }
            if set.parts.as_ref().is_some_and(|known| *known != parts) {
                return Err(malformed(
                    place(),
                    "another select compares it with a key of other parts",
                ));
            }
            set.parts = Some(parts);
        }
    }
    Ok(sets)
}
