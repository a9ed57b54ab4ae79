//! P4Data (registers, digests) as text: `7`, `true`, `{a=1,c=2}`, `(1,2)`.

use super::NamedError;
use super::error::{fault, hint};
use crate::p4::v1 as pb;
use crate::p4::v1::p4_data::Data;
use crate::p4info::DataType;
use crate::value::{Format, decode, encode, format_value, hex, parse_value};

const INVALID: &str = "invalid";

/// Data of a type, as text.
pub fn format_data(data: &pb::P4Data, of: &DataType) -> String {
    match (&data.data, of) {
        (Some(Data::Bitstring(bytes)), DataType::Bits { bitwidth, format }) => {
            format_value(bytes, *bitwidth, *format)
        }
        (Some(Data::Bool(truth)), _) => truth.to_string(),
        (Some(Data::Varbit(varbit)), _) => {
            format!("{}:{}", hex(&varbit.bitstring), varbit.bitwidth)
        }
        (Some(Data::Tuple(tuple)), DataType::Tuple(types)) => {
            let members = tuple.members.iter().zip(types);
            let members = members.map(|(member, of)| format_data(member, of));
            format!("({})", members.collect::<Vec<_>>().join(","))
        }
        (Some(Data::Struct(data)), DataType::Struct(types)) => {
            let members = data.members.iter().zip(types);
            let members =
                members.map(|(member, (name, of))| format!("{name}={}", format_data(member, of)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        (Some(Data::Header(header)), DataType::Header(_)) if !header.is_valid => INVALID.to_owned(),
        (Some(Data::Header(header)), DataType::Header(types)) => {
            let members = header.bitstrings.iter().zip(types);
            let members = members.map(|(bytes, (name, of))| {
                let (width, format) = bits(of);
                format!("{name}={}", format_value(bytes, width, format))
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        (Some(Data::Enum(name) | Data::Error(name)), _) => name.clone(),
        (Some(Data::EnumValue(bytes)), DataType::Serializable { bitwidth, members }) => {
            let value = decode(bytes, *bitwidth);
            let same = |known: &[u8]| decode(known, *bitwidth) == value;
            let named = members
                .iter()
                .find(|(_, known)| value.is_ok() && same(known));
            named.map_or_else(|| hex(bytes), |(name, _)| name.clone())
        }
        (Some(Data::Bitstring(bytes) | Data::EnumValue(bytes)), _) => hex(bytes),
        (Some(_), DataType::Other(what)) => format!("<{what}>"),
        (Some(_), _) => "<of another type than the P4Info says>".to_owned(),
        (None, _) => "<empty>".to_owned(),
    }
}

fn bits(of: &DataType) -> (u32, Format) {
    match of {
        DataType::Bits { bitwidth, format } => (*bitwidth, *format),
        // No one's width: shown in hex.
        _ => (u32::MAX, Format::Hex),
    }
}

/// The reverse of [`format_data`]. `place` is what errors name, such as
/// `register "cells"`.
///
/// # Errors
/// [`NamedError`], naming the member and what it takes.
pub fn parse_data(text: &str, of: &DataType, place: &str) -> Result<pb::P4Data, NamedError> {
    let text = text.trim();
    let value = |text: &str, width, format, place: String| {
        parse_value(text, width, format).map_err(|source| NamedError::Value { place, source })
    };
    let data = match of {
        DataType::Bits { bitwidth, format } => {
            Data::Bitstring(value(text, *bitwidth, *format, place.to_owned())?)
        }
        DataType::Bool => match text {
            "true" | "1" => Data::Bool(true),
            "false" | "0" => Data::Bool(false),
            _ => return fault(format!("{place}: {text:?} is not true or false")),
        },
        DataType::Tuple(types) => {
            let members = members(text, '(', ')', types.len(), place)?;
            let members = members.iter().zip(types);
            let members = members.map(|(text, of)| parse_data(text, of, place));
            Data::Tuple(pb::P4StructLike {
                members: members.collect::<Result<_, _>>()?,
            })
        }
        DataType::Struct(types) => Data::Struct(pb::P4StructLike {
            members: named(text, types, place)?,
        }),
        DataType::Header(_) if text == INVALID => Data::Header(pb::P4Header::default()),
        DataType::Header(types) => {
            let bitstring = |data: pb::P4Data| match data.data {
                Some(Data::Bitstring(bytes)) => Ok(bytes),
                _ => fault(format!("{place}: a member of it cannot be written")),
            };
            let members = named(text, types, place)?.into_iter().map(bitstring);
            Data::Header(pb::P4Header {
                is_valid: true,
                bitstrings: members.collect::<Result<_, _>>()?,
            })
        }
        DataType::Enum(known) => Data::Enum(one_of(text, known, place)?),
        DataType::Error(known) => Data::Error(one_of(text, known, place)?),
        DataType::Serializable { bitwidth, members } => {
            match members.iter().find(|(name, _)| name == text) {
                Some((_, bytes)) => Data::EnumValue(
                    decode(bytes, *bitwidth)
                        .and_then(|value| encode(value, *bitwidth))
                        .unwrap_or_else(|_| bytes.clone()),
                ),
                None => {
                    let place = format!(
                        "{place}{}",
                        hint(text, members.iter().map(|(name, _)| name.as_str()))
                    );
                    Data::EnumValue(value(text, *bitwidth, Format::Decimal, place)?)
                }
            }
        }
        DataType::Varbit { .. } | DataType::Other(_) => {
            let what = match of {
                DataType::Other(what) => what,
                _ => "varbit",
            };
            return fault(format!("{place}: a {what} cannot be written"));
        }
    };
    Ok(pb::P4Data { data: Some(data) })
}

fn one_of(text: &str, known: &[String], place: &str) -> Result<String, NamedError> {
    if known.iter().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    fault(format!(
        "{place}: {text:?} is not one of {}{}",
        known.join(", "),
        hint(text, known.iter().map(String::as_str))
    ))
}

/// `{name=value,…}`, every member once.
fn named(
    text: &str,
    types: &[(String, DataType)],
    place: &str,
) -> Result<Vec<pb::P4Data>, NamedError> {
    let mut given = Vec::new();
    for member in members(text, '{', '}', types.len(), place)? {
        let Some((name, value)) = member.split_once('=') else {
            return fault(format!("{place}: {member:?} is not name=value"));
        };
        given.push((name.trim(), value));
    }
    let one = |(name, of): &(String, DataType)| {
        let mut found = given.iter().filter(|(given, _)| given == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => parse_data(value, of, &format!("{place}, {name}")),
            (Some(_), Some(_)) => fault(format!("{place}: {name} is given twice")),
            (None, _) => {
                let near = hint(name, given.iter().map(|(given, _)| *given));
                fault(format!("{place}: {name} is missing{near}"))
            }
        }
    };
    types.iter().map(one).collect()
}

/// Splits at commas that stand outside of inner parentheses.
fn members<'a>(
    text: &'a str,
    open: char,
    close: char,
    count: usize,
    place: &str,
) -> Result<Vec<&'a str>, NamedError> {
    let inner = text
        .strip_prefix(open)
        .and_then(|text| text.strip_suffix(close));
    let Some(inner) = inner else {
        return fault(format!(
            "{place}: {text:?} is not {open}…{close} with {count} members"
        ));
    };
    let mut depth = 0usize;
    let mut parts = inner.split(|letter| {
        match letter {
            '(' | '{' => depth += 1,
            ')' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    let parts: Vec<&str> = match inner.trim() {
        "" => Vec::new(),
        _ => parts.by_ref().collect(),
    };
    if parts.len() != count {
        return fault(format!(
            "{place}: {text:?} has {} members, and the type has {count}",
            parts.len()
        ));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(bitwidth: u32) -> DataType {
        DataType::Bits {
            bitwidth,
            format: Format::Decimal,
        }
    }

    fn shown(text: &str, of: &DataType) -> String {
        match parse_data(text, of, "register \"r\"") {
            Ok(data) => format_data(&data, of),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_type_round_trips_and_says_what_is_wrong() {
        let pair = vec![("a".to_owned(), bits(8)), ("ok".to_owned(), DataType::Bool)];
        let nested = DataType::Tuple(vec![DataType::Struct(pair.clone()), bits(4)]);
        let colors = DataType::Enum(vec!["RED".to_owned(), "GREEN".to_owned()]);
        let kinds = DataType::Serializable {
            bitwidth: 8,
            members: vec![("ONE".to_owned(), vec![0, 1])],
        };
        for (of, text, want) in [
            (&bits(8), "0xff", "255"),
            (
                &bits(8),
                "256",
                "register \"r\": 256 is out of range: 8 bits hold 0 to 255",
            ),
            (&nested, "({a=1,ok=true},3)", "({a=1,ok=true},3)"),
            (&nested, "({ok=0, a=1}, 3)", "({a=1,ok=false},3)"),
            (
                &nested,
                "(3)",
                "register \"r\": \"(3)\" has 1 members, and the type has 2",
            ),
            (
                &DataType::Struct(pair.clone()),
                "{a=1,oh=true}",
                "register \"r\": ok is missing",
            ),
            (
                &DataType::Struct(pair.clone()),
                "{a=300,ok=true}",
                "register \"r\", a: 300 is out of range: 8 bits hold 0 to 255",
            ),
            (
                &DataType::Header(vec![("a".to_owned(), bits(8))]),
                "{a=7}",
                "{a=7}",
            ),
            (&DataType::Header(pair), "invalid", "invalid"),
            (&colors, "RED", "RED"),
            (
                &colors,
                "GREN",
                "register \"r\": \"GREN\" is not one of RED, GREEN; did you mean \"GREEN\"?",
            ),
            (&kinds, "ONE", "ONE"),
            (&kinds, "1", "ONE"),
            (&kinds, "2", "0x2"),
            (
                &DataType::Other("header stack"),
                "x",
                "register \"r\": a header stack cannot be written",
            ),
        ] {
            assert_eq!(shown(text, of), want, "{text}");
        }
    }
}
