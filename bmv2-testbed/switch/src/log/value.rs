//! Writes values as people read them: addresses as addresses, ports as decimal numbers.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// How a value is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Mac,
    Ipv4,
    Ipv6,
    Decimal,
    Hex,
}

/// Words of a 32-bit field's name that mean an address.
const ADDRESS_WORDS: &[&str] = &[
    "ip",
    "ipv",
    "addr",
    "address",
    "src",
    "dst",
    "source",
    "destination",
    "sip",
    "dip",
    "gateway",
    "prefix",
];
/// Words that mean a bit pattern rather than a number.
const PATTERN_WORDS: &[&str] = &[
    "type",
    "ethertype",
    "checksum",
    "csum",
    "chksum",
    "hash",
    "flags",
    "mask",
    "cookie",
    "crc",
];
/// Words that make 48 bits a time rather than a MAC address.
const TIME_WORDS: &[&str] = &["timestamp", "tstamp", "time"];

impl Format {
    /// What a P4Info annotation says (`@format(IPV4_ADDRESS)`), if one does.
    pub(crate) fn annotated(annotations: &[String]) -> Option<Self> {
        annotations.iter().find_map(|text| {
            let inner = text.strip_prefix("@format(")?.strip_suffix(')')?;
            match inner.trim().trim_matches('"') {
                "MAC_ADDRESS" => Some(Self::Mac),
                "IPV4_ADDRESS" => Some(Self::Ipv4),
                "IPV6_ADDRESS" => Some(Self::Ipv6),
                "HEX_STRING" => Some(Self::Hex),
                _ => None,
            }
        })
    }

    /// What name and width suggest.
    pub(crate) fn guess(name: &str, width: u16) -> Self {
        let words = words(name);
        let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
        match width {
            48 if !has(TIME_WORDS) => Self::Mac,
            128 => Self::Ipv6,
            32 if has(ADDRESS_WORDS) => Self::Ipv4,
            9.. if has(PATTERN_WORDS) => Self::Hex,
            0..=64 => Self::Decimal,
            _ => Self::Hex,
        }
    }

    /// Writes a value: bytes, most significant first, padded in front.
    pub(crate) fn write(self, bytes: &[u8]) -> String {
        match (self, bytes) {
            (Self::Mac, [a, b, c, d, e, f]) => {
                format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
            }
            (Self::Ipv4, [a, b, c, d]) => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
            (Self::Ipv6, _) => match <[u8; 16]>::try_from(bytes) {
                Ok(bytes) => Ipv6Addr::from(bytes).to_string(),
                Err(_) => hex(bytes),
            },
            (Self::Decimal, _) if bytes.len() <= 8 => bytes
                .iter()
                .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
                .to_string(),
            _ => hex(bytes),
        }
    }
}

/// The words of `snake_case`, `camelCase` and dotted names, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut lower = false;
    for c in name.chars() {
        let ends = !c.is_ascii_alphabetic() || (c.is_ascii_uppercase() && lower);
        if ends {
            out.push(String::new());
        }
        if c.is_ascii_alphabetic()
            && let Some(word) = out.last_mut()
        {
            word.push(c.to_ascii_lowercase());
        }
        lower = c.is_ascii_lowercase();
    }
    out
}

/// `0x` and all digits.
fn hex(bytes: &[u8]) -> String {
    let mut out = "0x".to_owned();
    digits(bytes, &mut out);
    out
}

/// Bytes as hexadecimal digits.
pub(crate) fn digits(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, width: u16, bytes: &[u8]) -> String {
        Format::guess(name, width).write(bytes)
    }

    #[test]
    fn values_read_as_they_are_meant() {
        assert_eq!(
            written("dst_mac", 48, &[2, 0, 0, 0, 0, 0xa]),
            "02:00:00:00:00:0a"
        );
        assert_eq!(
            written("ingress_global_timestamp", 48, &[0, 0, 0, 0, 1, 0]),
            "256"
        );
        assert_eq!(written("underlay_dst", 32, &[10, 0, 0, 1]), "10.0.0.1");
        assert_eq!(
            written("metadata_t.new_src4", 32, &[10, 0, 0, 1]),
            "10.0.0.1"
        );
        assert_eq!(written("hdr.ipv4.srcAddr", 32, &[10, 0, 0, 1]), "10.0.0.1");
        assert_eq!(written("nexthop", 32, &[0, 0, 1, 0]), "256");
        assert_eq!(written("ether_type", 16, &[8, 0]), "0x0800");
        assert_eq!(written("dst_port", 16, &[0, 80]), "80");
        assert_eq!(written("port", 9, &[1, 0xff]), "511");
        let mut v6 = [0; 16];
        v6[0] = 0xfd;
        v6[15] = 1;
        assert_eq!(written("anything", 128, &v6), "fd00::1");
        assert_eq!(written("key", 72, &[0; 9]), "0x000000000000000000");
    }

    #[test]
    fn annotations_say_it_better() {
        let annotation = |text: &str| Format::annotated(&[text.to_owned()]);
        assert_eq!(annotation("@format(IPV4_ADDRESS)"), Some(Format::Ipv4));
        assert_eq!(annotation("@format(MAC_ADDRESS)"), Some(Format::Mac));
        assert_eq!(annotation("@id(4)"), None);
    }
}
