//! Match fields as people write them: `10.0.0.0/8`, `0x10&&&0xf0`, `80..90`, `*`.

use super::format::{Format, FormatError, expected, format_value, parse_value};
use super::{decode, encode, prefix_mask};
use crate::p4::v1::field_match::{self, FieldMatchType};
use crate::p4info::{MatchField, MatchKind};

/// The match that a text means for a field, canonical; `None` is don't care,
/// which is left out of an entry.
///
/// | kind | forms |
/// |---|---|
/// | exact | `value` |
/// | LPM | `value/length`, `value` (all of it), `*` |
/// | ternary | `value&&&mask`, `value/mask` (a mask with a dot, a colon or `0x`), `value/length`, `value`, `*` |
/// | range | `low..high`, `value`, `*` |
/// | optional | `value`, `*` |
///
/// Bits of the value that the mask or the prefix does not cover are cleared.
///
/// # Errors
/// [`FormatError`], naming what is allowed.
pub fn parse_match(text: &str, field: &MatchField) -> Result<Option<FieldMatchType>, FormatError> {
    let (width, format) = (field.bitwidth, field.format);
    let value = |text: &str| parse_value(text.trim(), width, format);
    if text.trim() == "*" && field.kind != MatchKind::Exact {
        return Ok(None);
    }
    Ok(match &field.kind {
        MatchKind::Exact => Some(FieldMatchType::Exact(field_match::Exact {
            value: value(text)?,
        })),
        MatchKind::Optional => Some(FieldMatchType::Optional(field_match::Optional {
            value: value(text)?,
        })),
        MatchKind::Lpm => {
            let (text, length) = match text.split_once('/') {
                Some((text, length)) => (text, prefix_length(length, width)?),
                None => (text, width),
            };
            let value = masked(value(text)?, &mask_of(length, width), width);
            (length > 0).then_some(FieldMatchType::Lpm(field_match::Lpm {
                value,
                prefix_len: i32::try_from(length).unwrap_or(i32::MAX),
            }))
        }
        MatchKind::Ternary => {
            let (text, mask) = if let Some((text, mask)) = text.split_once("&&&") {
                (text, parse_value(mask.trim(), width, format)?)
            } else if let Some((text, mask)) = text.split_once('/') {
                if mask.contains(['.', ':', 'x']) {
                    (text, parse_value(mask, width, format)?)
                } else {
                    (text, mask_of(prefix_length(mask, width)?, width))
                }
            } else {
                (text, mask_of(width, width))
            };
            let value = masked(value(text)?, &mask, width);
            (mask != [0]).then_some(FieldMatchType::Ternary(field_match::Ternary {
                value,
                mask,
            }))
        }
        MatchKind::Range => {
            let (low, high) = match text.split_once("..") {
                Some((low, high)) => (value(low)?, value(high)?),
                None => (value(text)?, value(text)?),
            };
            if (low.len(), &low) > (high.len(), &high) {
                return Err(FormatError::EmptyRange {
                    text: text.to_owned(),
                });
            }
            let everything = low == [0] && high == mask_of(width, width);
            (!everything).then_some(FieldMatchType::Range(field_match::Range { low, high }))
        }
        MatchKind::Other(kind) => {
            return Err(FormatError::Syntax {
                text: text.to_owned(),
                expected: format!("something that can be written: it is of the kind {kind}"),
            });
        }
    })
}

/// The text of a match of a field; the reverse of [`parse_match`].
pub fn format_match(value: Option<&FieldMatchType>, field: &MatchField) -> String {
    let (width, format) = (field.bitwidth, field.format);
    let text = |bytes: &[u8]| format_value(bytes, width, format);
    match value {
        None => "*".to_owned(),
        Some(FieldMatchType::Exact(exact)) => text(&exact.value),
        Some(FieldMatchType::Optional(optional)) => text(&optional.value),
        Some(FieldMatchType::Lpm(lpm)) => format!("{}/{}", text(&lpm.value), lpm.prefix_len),
        Some(FieldMatchType::Ternary(ternary)) => match prefix_of(&ternary.mask, width) {
            Some(length) if length == width => text(&ternary.value),
            Some(length) => format!("{}/{length}", text(&ternary.value)),
            None => {
                let format = if format == Format::Decimal {
                    Format::Hex
                } else {
                    format
                };
                let text = |bytes: &[u8]| format_value(bytes, width, format);
                format!("{}&&&{}", text(&ternary.value), text(&ternary.mask))
            }
        },
        Some(FieldMatchType::Range(range)) if range.low == range.high => text(&range.low),
        Some(FieldMatchType::Range(range)) => {
            format!("{}..{}", text(&range.low), text(&range.high))
        }
        Some(FieldMatchType::Other(any)) => format!("{}:{:02x?}", any.type_url, any.value),
    }
}

/// What a field takes, for people: `an IPv4 address …, as value/length`.
pub fn describe_field(field: &MatchField) -> String {
    let value = expected(field.bitwidth, field.format);
    match field.kind {
        MatchKind::Exact | MatchKind::Other(_) => value,
        MatchKind::Lpm => format!("{value}, as value/length (0 to {})", field.bitwidth),
        MatchKind::Ternary => format!("{value}, as value&&&mask, or *"),
        MatchKind::Range => format!("{value}, as low..high, or *"),
        MatchKind::Optional => format!("{value}, or *"),
    }
}

/// What a parameter takes, for people.
pub fn describe_value(bitwidth: u32, format: Format) -> String {
    expected(bitwidth, format)
}

fn prefix_length(text: &str, width: u32) -> Result<u32, FormatError> {
    let length = text.trim().parse().ok().filter(|length| *length <= width);
    length.ok_or_else(|| FormatError::Prefix {
        length: text.trim().to_owned(),
        width,
    })
}

/// The canonical bytes of a prefix's mask, of any width.
fn mask_of(length: u32, width: u32) -> Vec<u8> {
    if width <= u128::BITS {
        return encode(prefix_mask(length, width), width.max(1)).unwrap_or_else(|_| vec![0]);
    }
    let bytes = width.div_ceil(8);
    let padding = bytes * 8 - width;
    let bit = |at: u32| at >= padding && at < padding + length;
    let byte = |byte: u32| (0..8).fold(0, |all, at| all << 1 | u8::from(bit(byte * 8 + at)));
    let all: Vec<u8> = (0..bytes).map(byte).collect();
    super::strip(&all).to_vec()
}

/// The length of the prefix whose mask this is, if it is one.
fn prefix_of(mask: &[u8], width: u32) -> Option<u32> {
    let mask = super::canonical(mask, width).ok()?;
    let ones = mask.iter().map(|byte| byte.count_ones()).sum();
    (mask == mask_of(ones, width)).then_some(ones)
}

fn masked(value: Vec<u8>, mask: &[u8], width: u32) -> Vec<u8> {
    if width <= u128::BITS
        && let (Ok(value), Ok(mask)) = (decode(&value, width), decode(mask, width))
        && let Ok(masked) = encode(value & mask, width)
    {
        return masked;
    }
    // Both end in the same bit; where one is shorter, it is 0.
    let mask = mask.iter().rev().chain(std::iter::repeat(&0));
    let mut bytes: Vec<u8> = value.iter().rev().zip(mask).map(|(v, m)| v & m).collect();
    bytes.reverse();
    super::strip(&bytes).to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::p4::v1 as pb;

    fn field(kind: MatchKind, bitwidth: u32, format: Format) -> MatchField {
        MatchField {
            id: 1,
            name: "f".to_owned(),
            bitwidth,
            kind,
            type_name: None,
            format,
            refers_to: Vec::new(),
        }
    }

    /// What is shown for what was written.
    fn shown(text: &str, field: &MatchField) -> String {
        match parse_match(text, field) {
            Ok(parsed) => format_match(parsed.as_ref(), field),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_kind_in_its_forms() {
        let lpm = field(MatchKind::Lpm, 32, Format::Ipv4);
        let ternary = field(MatchKind::Ternary, 32, Format::Ipv4);
        let bits = field(MatchKind::Ternary, 12, Format::Decimal);
        let range = field(MatchKind::Range, 16, Format::Decimal);
        let optional = field(MatchKind::Optional, 9, Format::Decimal);
        let exact = field(MatchKind::Exact, 48, Format::Mac);
        let wide = field(MatchKind::Ternary, 200, Format::Hex);
        for (field, text, want) in [
            (&lpm, "10.0.0.0/8", "10.0.0.0/8"),
            (&lpm, "10.1.2.3/8", "10.0.0.0/8"),
            (&lpm, "10.1.2.3", "10.1.2.3/32"),
            (&lpm, "10.1.2.3/0", "*"),
            (&lpm, "*", "*"),
            (
                &lpm,
                "10.0.0.0/33",
                "/33 is out of range: the prefix of a field of 32 bits is 0 to 32 long",
            ),
            (&ternary, "10.1.0.0&&&255.255.0.0", "10.1.0.0/16"),
            (&ternary, "10.1.0.7/255.0.0.255", "10.0.0.7&&&255.0.0.255"),
            (&ternary, "10.1.2.3 &&& 0xffffffff", "10.1.2.3"),
            (&ternary, "1.2.3.4&&&0", "*"),
            (&bits, "0x123/0xf0f", "0x103&&&0xf0f"),
            (&bits, "0x123/4", "256/4"),
            (&range, "80..90", "80..90"),
            (&range, "80", "80"),
            (&range, "0..65535", "*"),
            (
                &range,
                "90..80",
                "90..80: the low end is above the high end",
            ),
            (&optional, "7", "7"),
            (&optional, "*", "*"),
            (&exact, "2:0:0:0:0:1", "02:00:00:00:00:01"),
            (
                &exact,
                "*",
                r#""*" is not a MAC address, such as 02:00:00:00:00:01"#,
            ),
            (&wide, "0x10/8", "0x0/8"),
        ] {
            assert_eq!(shown(text, field), want, "{text}");
        }
    }

    /// A table with this one field.
    fn p4info(bitwidth: u32, kind: &MatchKind) -> crate::p4info::P4InfoIndex {
        use crate::p4::config::v1::{self as config, match_field};
        let kind = match kind {
            MatchKind::Exact => match_field::MatchType::Exact,
            MatchKind::Lpm => match_field::MatchType::Lpm,
            MatchKind::Ternary => match_field::MatchType::Ternary,
            MatchKind::Range => match_field::MatchType::Range,
            _ => match_field::MatchType::Optional,
        };
        let field = config::MatchField {
            id: 1,
            name: "f".to_owned(),
            bitwidth: bitwidth as i32,
            r#match: Some(match_field::Match::MatchType(kind.into())),
            ..Default::default()
        };
        let preamble = config::Preamble {
            id: 1,
            name: "t".to_owned(),
            ..Default::default()
        };
        let table = config::Table {
            preamble: Some(preamble),
            match_fields: vec![field],
            ..Default::default()
        };
        let info = config::P4Info {
            tables: vec![table],
            ..Default::default()
        };
        crate::p4info::P4InfoIndex::new(info).unwrap()
    }

    proptest! {
        /// Whatever is understood is canonical, and shown as it was meant.
        #[test]
        fn every_match_round_trips(a: u128, b: u128, width in 1u32..=128, kind in 0usize..5) {
            let kind = [
                MatchKind::Exact,
                MatchKind::Lpm,
                MatchKind::Ternary,
                MatchKind::Range,
                MatchKind::Optional,
            ][kind].clone();
            let cut = |value| format!("{:#x}", value & prefix_mask(width, width));
            let text = match kind {
                MatchKind::Exact | MatchKind::Optional => cut(a),
                MatchKind::Lpm => format!("{}/{}", cut(a), b % (u128::from(width) + 1)),
                MatchKind::Ternary => format!("{}&&&{}", cut(a), cut(b)),
                _ => {
                    let mask = prefix_mask(width, width);
                    format!("{:#x}..{:#x}", (a & mask).min(b & mask), (a & mask).max(b & mask))
                }
            };
            let field = field(kind, width, Format::guess(width, "src", None));
            let parsed = parse_match(&text, &field).unwrap();
            let shown = format_match(parsed.as_ref(), &field);
            if field.kind != MatchKind::Exact || parsed.is_some() {
                prop_assert_eq!(&parse_match(&shown, &field).unwrap(), &parsed);
            }
            let table = p4info(width, &field.kind);
            let entry = pb::TableEntry {
                table_id: 1,
                r#match: parsed.into_iter().map(|kind| pb::FieldMatch {
                    field_id: 1,
                    field_match_type: Some(kind),
                }).collect(),
                ..Default::default()
            };
            let mut canonical = entry.clone();
            crate::value::canonicalize_table_entry(&mut canonical, &table).unwrap();
            prop_assert_eq!(canonical, entry);
        }
    }
}
