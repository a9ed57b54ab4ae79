//! Compiles named calculations, checksums and field lists.

use std::collections::HashMap;

use serde_json::Value;

use super::error::{LoadError, at, malformed, unsupported};
use super::expr::Expressions;
use super::layout::{HeaderIndex, Layout};
use super::reference::str_of;
use crate::bits::{Field, MAX_VALUE_BITS};
use crate::exec::expr::Expr;
use crate::hash::Algorithm;
use crate::json::{self, bytes_of};

/// A hash over fields.
#[derive(Debug)]
pub(crate) struct Calculation {
    pub(crate) algorithm: Algorithm,
    pub(crate) input: Vec<Input>,
    /// Whether the packet's unparsed rest follows.
    pub(crate) payload: bool,
    /// The whole input, if it is nothing but whole bytes of headers.
    pub(crate) runs: Option<Box<[Run]>>,
}

/// Bytes of the packet-state buffer that are hashed as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// They are skipped while the header with this validity byte is invalid.
    pub(crate) valid: usize,
}

/// The longest input that is gathered from runs, in bytes.
pub(crate) const MAX_RUN_BYTES: usize = 128;

/// Joins fields that follow each other in the buffer as they do in the input.
fn runs(input: &[Input]) -> Option<Box<[Run]>> {
    let mut bits: Vec<(usize, usize, usize)> = Vec::new();
    for part in input {
        let Input::Field(field, valid) = part else {
            return None;
        };
        let (first, width) = (field.first_bit(), usize::from(field.width));
        match bits.last_mut() {
            Some((start, len, flag)) if *flag == *valid && *start + *len == first => *len += width,
            _ => bits.push((first, width, *valid)),
        }
    }
    let whole = bits
        .iter()
        .all(|(start, len, _)| start % 8 == 0 && len % 8 == 0);
    let total: usize = bits.iter().map(|(_, len, _)| len / 8).sum();
    let run = |(start, len, valid): (usize, usize, usize)| Run {
        start: start / 8,
        len: len / 8,
        valid,
    };
    (whole && total <= MAX_RUN_BYTES).then(|| bits.into_iter().map(run).collect())
}

/// One input of a calculation.
#[derive(Debug)]
pub(crate) enum Input {
    /// A field, skipped while the header with this validity byte is invalid.
    Field(Field, usize),
    /// Bytes and width in bits of a constant.
    Constant(Box<[u8]>, u16),
    Header(HeaderIndex),
    /// A header's varbit.
    Varbit(HeaderIndex),
}

/// A checksum to verify after parsing or to update before deparsing.
#[derive(Debug)]
pub(crate) struct Checksum {
    pub(crate) name: String,
    pub(crate) target: Field,
    /// Validity byte of the target's header.
    pub(crate) valid: usize,
    pub(crate) calculation: usize,
    pub(crate) condition: Option<Expr>,
}

fn field_input(layout: &Layout, value: &Value, place: &str) -> Result<Input, LoadError> {
    let inner = value.get("value").unwrap_or(&Value::Null);
    let (header, field) =
        super::reference::pair_of(inner).ok_or_else(|| malformed(place, "a field has no name"))?;
    let index = layout.header(header, place)?;
    if layout.is_varbit(index, field) {
        return Ok(Input::Varbit(index));
    }
    let valid = layout.headers.get(index).map_or(0, |h| h.valid);
    Ok(Input::Field(layout.field(header, field, place)?, valid))
}

/// The algorithm that the JSON names.
pub(crate) fn algorithm(value: &Value, place: &str) -> Result<Algorithm, LoadError> {
    let name = value.as_str().unwrap_or_default();
    Algorithm::by_name(name).ok_or_else(|| unsupported(format!("hash algorithm `{value}`"), place))
}

/// Compiles the input of a calculation or a selector.
pub(crate) fn inputs(
    layout: &Layout,
    input: &[Value],
    place: &str,
) -> Result<(Vec<Input>, bool), LoadError> {
    let mut out = Vec::new();
    let mut payload = false;
    for value in input {
        match str_of(value, "type") {
            Some("field") => out.push(field_input(layout, value, place)?),
            Some("header") => {
                let name = str_of(value, "value")
                    .ok_or_else(|| malformed(place, "a header has no name"))?;
                let index = layout.header(name, place)?;
                match layout.headers.get(index).filter(|h| h.metadata) {
                    // Metadata is not laid out as on the wire.
                    Some(header) => {
                        let fields = layout.fields(index).into_iter();
                        out.extend(fields.map(|field| Input::Field(field, header.valid)));
                    }
                    None => out.push(Input::Header(index)),
                }
            }
            Some("hexstr") => {
                let width = value
                    .get("bitwidth")
                    .and_then(Value::as_u64)
                    .and_then(|w| u16::try_from(w).ok())
                    .filter(|w| (1..=2048).contains(w))
                    .ok_or_else(|| malformed(place, "a constant has no usable bitwidth"))?;
                let text = str_of(value, "value").unwrap_or_default();
                let bytes = bytes_of(text, usize::from(width).div_ceil(8)).map_err(at(place))?;
                out.push(Input::Constant(bytes.into(), width));
            }
            Some("payload") => payload = true,
            other => {
                return Err(unsupported(
                    format!("input of type `{}`", other.unwrap_or_default()),
                    place,
                ));
            }
        }
    }
    Ok((out, payload))
}

/// Compiles the document's calculations.
pub(crate) fn calculations(
    doc: &json::Document,
    layout: &Layout,
) -> Result<Vec<Calculation>, LoadError> {
    doc.calculations
        .iter()
        .map(|calculation| {
            let name = format!("calculation {}", calculation.name);
            let place = json::placed(name, calculation.source_info.as_ref());
            let (input, payload) = inputs(layout, &calculation.input, &place)?;
            Ok(Calculation {
                algorithm: algorithm(&calculation.algo, &place)?,
                runs: runs(&input).filter(|_| !payload),
                input,
                payload,
            })
        })
        .collect()
}

/// Compiles the checksums: those to verify, those to update.
pub(crate) fn checksums(
    doc: &json::Document,
    layout: &Layout,
    calculations: &HashMap<String, usize>,
) -> Result<(Vec<Checksum>, Vec<Checksum>), LoadError> {
    let (mut verify, mut update) = (Vec::new(), Vec::new());
    for checksum in &doc.checksums {
        let name = format!("checksum {}", checksum.name);
        let place = json::placed(name, checksum.source_info.as_ref());
        let compile = || -> Result<Checksum, LoadError> {
            let (header, field) = (&checksum.target.0, &checksum.target.1);
            let target = layout.field(header, field, &place)?;
            if target.width > MAX_VALUE_BITS {
                return Err(unsupported("checksum wider than 128 bits", &place));
            }
            let index = layout.header(header, &place)?;
            let expressions = Expressions {
                layout,
                args: &[],
                place: &place,
            };
            let calculation = calculations.get(&checksum.calculation);
            Ok(Checksum {
                name: checksum.name.clone(),
                target,
                valid: layout.headers.get(index).map_or(0, |h| h.valid),
                calculation: *calculation.ok_or_else(|| LoadError::Unknown {
                    what: "calculation",
                    name: checksum.calculation.clone(),
                    place: place.clone(),
                })?,
                condition: match &checksum.if_cond {
                    None => None,
                    Some(condition) => Some(expressions.condition(condition)?),
                },
            })
        };
        if checksum.verify {
            verify.push(compile()?);
        }
        if checksum.update {
            update.push(compile()?);
        }
    }
    Ok((verify, update))
}

/// The fields of each list, by the list's id.
pub(crate) fn field_lists(
    lists: &[json::FieldList],
    layout: &Layout,
) -> Result<HashMap<u32, Vec<Field>>, LoadError> {
    let mut out = HashMap::new();
    for list in lists {
        let place = format!("field list {} ({})", list.name, list.id);
        let expressions = Expressions {
            layout,
            args: &[],
            place: &place,
        };
        let mut fields = Vec::new();
        for element in &list.elements {
            let slice = expressions.as_slice(element);
            fields.push(slice.ok_or_else(|| unsupported("element other than a field", &place))?);
        }
        out.insert(list.id, fields);
    }
    Ok(out)
}
