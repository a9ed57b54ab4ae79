//! Values as people write them: 10.0.0.1, 02:00:00:00:00:01, 0x1f, 80.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{NUMBER_BITS_MAX, canonical, decode, encode, prefix_mask, strip};

/// How a value is shown. Any form that fits the width is understood, whatever
/// the format: `0x0a000001` is an IPv4 address too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 80
    Decimal,
    /// 0x1f
    Hex,
    /// 02:00:00:00:00:01
    Mac,
    /// 192.0.2.1
    Ipv4,
    /// 2001:db8::1
    Ipv6,
    /// A type that the controller sees as a string (`sdn_string`).
    Text,
}

impl Format {
    /// By the name of `@format(…)` in P4Info, as the pipelines of SONiC use it.
    pub fn by_annotation(argument: &str) -> Option<Self> {
        Some(match argument {
            "MAC_ADDRESS" | "MAC" => Self::Mac,
            "IPV4_ADDRESS" | "IPV4" => Self::Ipv4,
            "IPV6_ADDRESS" | "IPV6" => Self::Ipv6,
            "HEX_STRING" | "HEX_STR" | "HEX" => Self::Hex,
            "DECIMAL" | "UNSIGNED_INT" => Self::Decimal,
            "STRING" => Self::Text,
            _ => return None,
        })
    }

    /// By its name as a user writes it: `decimal`, `hex`, `mac`, `ipv4`, `ipv6`.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "decimal" => Self::Decimal,
            "hex" => Self::Hex,
            "mac" => Self::Mac,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            _ => return None,
        })
    }

    /// Whether values of this width can be shown so.
    pub fn fits(self, width: u32) -> bool {
        match self {
            Self::Decimal => width <= NUMBER_BITS_MAX,
            Self::Hex => true,
            Self::Mac => width == 48,
            Self::Ipv4 => width == 32,
            Self::Ipv6 => width == 128,
            Self::Text => width == 0,
        }
    }

    /// Where P4Info says nothing: 48 bits are a MAC address, 128 an IPv6 address,
    /// and 32 an IPv4 address if the name of the field or of its type says so.
    pub fn guess(width: u32, name: &str, type_name: Option<&str>) -> Self {
        match width {
            0 => Self::Text,
            48 => Self::Mac,
            128 => Self::Ipv6,
            32 if says_address(name) || type_name.is_some_and(says_address) => Self::Ipv4,
            1..=64 => Self::Decimal,
            _ => Self::Hex,
        }
    }
}

/// Whether a word of a name is one that names an address: `src`, `dst`,
/// `underlay_dst`, `hdr.ipv4.srcAddr`, `ipv4_address_t`.
fn says_address(name: &str) -> bool {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.flat_map(capitals).any(|word| {
        matches!(
            word.as_str(),
            "src"
                | "dst"
                | "source"
                | "destination"
                | "addr"
                | "address"
                | "ip"
                | "ipv4"
                | "ip4"
                | "gateway"
                | "sip"
                | "dip"
                | "saddr"
                | "daddr"
                | "prefix"
        )
    })
}

/// `srcAddr` is the words `src` and `addr`.
fn capitals(word: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in word.chars() {
        if letter.is_ascii_uppercase() && words.last().is_some_and(|last| !last.is_empty()) {
            words.push(String::new());
        }
        if let Some(last) = words.last_mut() {
            last.push(letter.to_ascii_lowercase());
        }
    }
    words
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decimal => "decimal",
            Self::Hex => "hex",
            Self::Mac => "mac",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Text => "text",
        })
    }
}

/// A text that is not a value of the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A number above what the width holds.
    #[error("{text} is out of range: {width} bits hold 0 to {}", largest(*.width))]
    Range {
        /// What was written.
        text: String,
        /// Bits that the field has.
        width: u32,
    },
    /// An address in a field of another width.
    #[error("{text} is {what} of {bits} bits, and the field has {width} (0 to {})", largest(*.width))]
    Address {
        /// What was written.
        text: String,
        /// What it is.
        what: &'static str,
        /// The address's bits.
        bits: u32,
        /// Bits that the field has.
        width: u32,
    },
    /// Not a value at all.
    #[error("{text:?} is not {expected}")]
    Syntax {
        /// What was written.
        text: String,
        /// What would have been right.
        expected: String,
    },
    /// A prefix longer than the field.
    #[error(
        "/{length} is out of range: the prefix of a field of {width} bits is 0 to {width} long"
    )]
    Prefix {
        /// The length.
        length: String,
        /// Bits that the field has.
        width: u32,
    },
    /// A range whose low end is above its high end.
    #[error("{text}: the low end is above the high end")]
    EmptyRange {
        /// What was written.
        text: String,
    },
}

/// The largest value of a width, for people.
fn largest(width: u32) -> String {
    match width {
        0 => "0".to_owned(),
        1..=64 => prefix_mask(width, width).to_string(),
        65..=NUMBER_BITS_MAX => format!("{:#x}", prefix_mask(width, width)),
        _ => format!("2^{width} - 1"),
    }
}

/// What a field of this width and format takes, for people.
pub(crate) fn expected(width: u32, format: Format) -> String {
    match format {
        Format::Text => "a text".to_owned(),
        Format::Mac => "a MAC address, such as 02:00:00:00:00:01".to_owned(),
        Format::Ipv4 => "an IPv4 address, such as 192.0.2.1".to_owned(),
        Format::Ipv6 => "an IPv6 address, such as 2001:db8::1".to_owned(),
        Format::Decimal | Format::Hex => format!("a number from 0 to {}", largest(width)),
    }
}

/// The canonical bytes of a value as people write it: a decimal number, `0x…`,
/// `0b…` (each with `_` between digits where it helps), a MAC address, an IPv4 or
/// IPv6 address, `true` or `false` for one bit.
///
/// # Errors
/// [`FormatError`], naming what is allowed.
///
/// ```
/// use p4runtime::value::{Format, format_value, parse_value};
///
/// assert_eq!(parse_value("10.0.0.2", 32, Format::Ipv4)?, [10, 0, 0, 2]);
/// assert_eq!(parse_value("0x1f", 9, Format::Decimal)?, [0x1f]);
/// assert_eq!(format_value(&[0x1f], 9, Format::Decimal), "31");
/// assert_eq!(
///     parse_value("512", 9, Format::Decimal).unwrap_err().to_string(),
///     "512 is out of range: 9 bits hold 0 to 511"
/// );
/// # Ok::<(), p4runtime::value::FormatError>(())
/// ```
pub fn parse_value(text: &str, width: u32, format: Format) -> Result<Vec<u8>, FormatError> {
    let syntax = || FormatError::Syntax {
        text: text.to_owned(),
        expected: expected(width, format),
    };
    if format == Format::Text || width == 0 {
        return match text {
            "" => Err(syntax()),
            text => Ok(text.as_bytes().to_vec()),
        };
    }
    if let Some((what, bits, value)) = address(text) {
        if bits != width {
            return Err(FormatError::Address {
                text: text.to_owned(),
                what,
                bits,
                width,
            });
        }
        return encode(value, width).map_err(|_| syntax());
    }
    let range = || FormatError::Range {
        text: text.to_owned(),
        width,
    };
    let digits = text.replace('_', "");
    let bytes = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        from_hex(hex).ok_or_else(syntax)?
    } else if let Some(binary) = digits.strip_prefix("0b") {
        let value = u128::from_str_radix(binary, 2).map_err(|_| syntax())?;
        value.to_be_bytes().to_vec()
    } else if width == 1 && (text == "true" || text == "false") {
        vec![u8::from(text == "true")]
    } else if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        let value: u128 = digits.parse().map_err(|_| range())?;
        value.to_be_bytes().to_vec()
    } else {
        return Err(syntax());
    };
    canonical(&bytes, width)
        .map(<[u8]>::to_vec)
        .map_err(|_| range())
}

/// The value as people write it; bytes that do not fit are shown in hex.
pub fn format_value(bytes: &[u8], width: u32, format: Format) -> String {
    if format == Format::Text || width == 0 {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let number = decode(bytes, width).ok().filter(|_| format.fits(width));
    match (number, format) {
        (Some(value), Format::Decimal) => value.to_string(),
        (Some(value), Format::Ipv4) => u32::try_from(value)
            .map_or_else(|_| hex(bytes), |value| Ipv4Addr::from(value).to_string()),
        (Some(value), Format::Ipv6) => Ipv6Addr::from(value).to_string(),
        (Some(value), Format::Mac) => {
            let [.., a, b, c, d, e, f] = value.to_be_bytes();
            format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
        }
        _ => hex(bytes),
    }
}

/// What an address is, its width and its value.
fn address(text: &str) -> Option<(&'static str, u32, u128)> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(("an IPv4 address", 32, u32::from(address).into()));
    }
    if let Some(mac) = mac(text) {
        return Some(("a MAC address", 48, mac));
    }
    let address = text.parse::<Ipv6Addr>().ok()?;
    Some(("an IPv6 address", 128, u128::from(address)))
}

fn mac(text: &str) -> Option<u128> {
    let separator = if text.contains(':') { ':' } else { '-' };
    let mut value = 0;
    let mut count = 0;
    for part in text.split(separator) {
        if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        value = value << 8 | u128::from_str_radix(part, 16).ok()?;
        count += 1;
    }
    (count == 6).then_some(value)
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let odd = if digits.len() % 2 == 1 { "0" } else { "" };
    let digits = format!("{odd}{digits}");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

/// `0x` and the digits of the canonical form.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = "0x".to_owned();
    for (at, byte) in strip(bytes).iter().enumerate() {
        let digits = if at == 0 {
            format!("{byte:x}")
        } else {
            format!("{byte:02x}")
        };
        text.push_str(&digits);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Format; 5] = [
        Format::Decimal,
        Format::Hex,
        Format::Mac,
        Format::Ipv4,
        Format::Ipv6,
    ];

    fn said(text: &str, width: u32, format: Format) -> String {
        parse_value(text, width, format).unwrap_err().to_string()
    }

    #[test]
    fn every_form_is_understood_where_it_fits() {
        for (text, width, bytes) in [
            ("0", 1, vec![0]),
            ("true", 1, vec![1]),
            ("65_535", 16, vec![0xff, 0xff]),
            ("0x0001", 16, vec![1]),
            ("0b1_0000_0001", 9, vec![1, 1]),
            ("192.0.2.1", 32, vec![192, 0, 2, 1]),
            ("0.0.0.1", 32, vec![1]),
            ("02:00:00:00:00:0a", 48, vec![2, 0, 0, 0, 0, 0xa]),
            ("02-00-00-00-00-0A", 48, vec![2, 0, 0, 0, 0, 0xa]),
            ("::1", 128, vec![1]),
        ] {
            assert_eq!(
                parse_value(text, width, Format::Decimal),
                Ok(bytes),
                "{text}"
            );
        }
        let wide = format!("0x1{}", "0".repeat(64));
        assert_eq!(parse_value(&wide, 257, Format::Hex).unwrap().len(), 33);
        assert!(parse_value(&wide, 256, Format::Hex).is_err());
        assert_eq!(
            parse_value("Ethernet0", 0, Format::Text).unwrap(),
            b"Ethernet0"
        );
    }

    #[test]
    fn errors_name_what_is_allowed() {
        assert_eq!(
            said("70000", 16, Format::Decimal),
            "70000 is out of range: 16 bits hold 0 to 65535"
        );
        assert_eq!(
            said("10.0.0.1", 16, Format::Decimal),
            "10.0.0.1 is an IPv4 address of 32 bits, and the field has 16 (0 to 65535)"
        );
        assert_eq!(
            said("10.0.0", 32, Format::Ipv4),
            r#""10.0.0" is not an IPv4 address, such as 192.0.2.1"#
        );
        assert_eq!(
            said("-1", 9, Format::Decimal),
            r#""-1" is not a number from 0 to 511"#
        );
        assert_eq!(
            said("340282366920938463463374607431768211456", 128, Format::Hex),
            "340282366920938463463374607431768211456 is out of range: 128 bits hold 0 to \
             0xffffffffffffffffffffffffffffffff"
        );
        assert_eq!(
            said("02:00", 48, Format::Mac),
            r#""02:00" is not a MAC address, such as 02:00:00:00:00:01"#
        );
        assert!(parse_value("", 8, Format::Decimal).is_err());
        assert!(parse_value("0x", 8, Format::Hex).is_err());
        assert!(parse_value("", 0, Format::Text).is_err());
    }

    #[test]
    fn names_say_which_numbers_are_addresses() {
        let guess = |name| Format::guess(32, name, None);
        for address in ["src", "underlay_dst", "hdr.ipv4.dstAddr", "address"] {
            assert_eq!(guess(address), Format::Ipv4, "{address}");
        }
        for number in ["nexthop", "meta.tunnel_id", "vni", "description", "zip"] {
            assert_eq!(guess(number), Format::Decimal, "{number}");
        }
        assert_eq!(Format::guess(32, "a", Some("ipv4_addr_t")), Format::Ipv4);
        assert_eq!(Format::guess(48, "a", None), Format::Mac);
        assert_eq!(Format::guess(128, "a", None), Format::Ipv6);
        assert_eq!(Format::guess(0, "port", None), Format::Text);
        assert_eq!(Format::guess(200, "a", None), Format::Hex);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(value: u128, width in 1u32..=128, which in 0usize..5) {
            let format = ALL[which];
            let bytes = encode(value & prefix_mask(width, width), width).unwrap();
            let text = format_value(&bytes, width, format);
            prop_assert_eq!(parse_value(&text, width, format).unwrap(), bytes);
        }

        #[test]
        fn no_text_panics(text: String, width in 0u32..300) {
            for format in ALL {
                if let Ok(bytes) = parse_value(&text, width, format)
                    && width > 0
                {
                    prop_assert!(crate::value::is_canonical(&bytes));
                }
            }
        }
    }
}
