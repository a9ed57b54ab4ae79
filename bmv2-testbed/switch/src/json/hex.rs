//! Hexadecimal strings as the JSON writes them: `0x…`, perhaps with a sign.

use num_bigint::BigInt;

/// Why a hexadecimal string was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum HexError {
    #[error("`{0}` is not a hexadecimal number")]
    Digits(String),
    #[error("`{0}` does not fit in 128 bits")]
    Wide(String),
    #[error("`{text}` does not fit in {bytes} bytes")]
    Long { text: String, bytes: usize },
    #[error("`{0}` is negative")]
    Negative(String),
}

/// Splits the sign and the digits (without `0x`) of `text`.
fn split(text: &str) -> Result<(bool, &str), HexError> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digits = rest
        .strip_prefix("0x")
        .or_else(|| rest.strip_prefix("0X"))
        .unwrap_or(rest);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(HexError::Digits(text.to_owned()));
    }
    Ok((negative, digits))
}

/// The bytes (most significant first, no leading zeros beyond one byte) of a non-negative number.
fn raw_bytes(text: &str) -> Result<Vec<u8>, HexError> {
    let (negative, digits) = split(text)?;
    if negative {
        return Err(HexError::Negative(text.to_owned()));
    }
    let padded = if digits.len() % 2 == 1 {
        format!("0{digits}")
    } else {
        digits.to_owned()
    };
    let mut out = Vec::with_capacity(padded.len() / 2);
    for pair in padded.as_bytes().chunks(2) {
        let pair = std::str::from_utf8(pair).map_err(|_| HexError::Digits(text.to_owned()))?;
        let byte = u8::from_str_radix(pair, 16).map_err(|_| HexError::Digits(text.to_owned()))?;
        out.push(byte);
    }
    let zeros = out.iter().take_while(|b| **b == 0).count();
    let zeros = zeros.min(out.len().saturating_sub(1));
    out.drain(..zeros);
    Ok(out)
}

/// A non-negative number as exactly `len` bytes, most significant first.
pub(crate) fn bytes_of(text: &str, len: usize) -> Result<Vec<u8>, HexError> {
    let raw = raw_bytes(text)?;
    let significant = if raw == [0] { &[][..] } else { &raw[..] };
    if significant.len() > len {
        return Err(HexError::Long {
            text: text.to_owned(),
            bytes: len,
        });
    }
    let mut out = vec![0; len - significant.len()];
    out.extend_from_slice(significant);
    Ok(out)
}

/// A number's 128-bit pattern and the bits it takes (without its sign).
pub(crate) fn integer_of(text: &str) -> Result<(i128, u16, bool), HexError> {
    let (negative, digits) = split(text)?;
    let trimmed = digits.trim_start_matches('0');
    if trimmed.len() > 32 {
        return Err(HexError::Wide(text.to_owned()));
    }
    let magnitude = if trimmed.is_empty() {
        0
    } else {
        u128::from_str_radix(trimmed, 16).map_err(|_| HexError::Digits(text.to_owned()))?
    };
    let bits = (128 - magnitude.leading_zeros()) as u16;
    let pattern = if negative {
        magnitude.wrapping_neg()
    } else {
        magnitude
    };
    Ok((pattern as i128, bits, negative && magnitude != 0))
}

/// A number of any length.
pub(crate) fn big_integer_of(text: &str) -> Result<BigInt, HexError> {
    let (negative, digits) = split(text)?;
    let magnitude = BigInt::parse_bytes(digits.as_bytes(), 16);
    let magnitude = magnitude.ok_or_else(|| HexError::Digits(text.to_owned()))?;
    Ok(if negative { -magnitude } else { magnitude })
}

/// How many bits a mask of low ones has, if the number is one (and fits in 65535 bits).
pub(crate) fn low_ones(text: &str) -> Option<u16> {
    let bytes = raw_bytes(text).ok()?;
    let (first, rest) = bytes.split_first()?;
    let ones = first.trailing_ones();
    let is_mask = *first != 0 && u32::from(*first).count_ones() == ones;
    let is_mask = is_mask && first.leading_zeros() + ones == 8;
    if !is_mask || rest.iter().any(|b| *b != 0xff) {
        return None;
    }
    u16::try_from(rest.len() * 8 + ones as usize).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_sign_and_width() {
        assert_eq!(integer_of("0x0a"), Ok((10, 4, false)));
        assert_eq!(integer_of("-0x80"), Ok((-128, 8, true)));
        assert_eq!(integer_of("0x00"), Ok((0, 0, false)));
        assert!(integer_of("0xzz").is_err());
        assert_eq!(big_integer_of("-0x80"), Ok((-128).into()));
        let long = format!("0x1{}", "0".repeat(50));
        assert_eq!(big_integer_of(&long), Ok(BigInt::from(1) << 200));
        assert!(integer_of(&format!("0x1{}", "0".repeat(32))).is_err());
    }

    #[test]
    fn masks_of_any_width() {
        assert_eq!(low_ones("0x01"), Some(1));
        assert_eq!(low_ones("0x00ffff"), Some(16));
        assert_eq!(low_ones(&format!("0x7{}", "f".repeat(40))), Some(163));
        assert_eq!(low_ones("0x00"), None);
        assert_eq!(low_ones("0xfe"), None);
        assert_eq!(low_ones("0x0ff1ff"), None);
    }

    #[test]
    fn bytes_are_padded_and_bounded() {
        assert_eq!(bytes_of("0x800", 2), Ok(vec![8, 0]));
        assert_eq!(bytes_of("0x01", 3), Ok(vec![0, 0, 1]));
        assert_eq!(bytes_of("0x0000", 1), Ok(vec![0]));
        assert!(bytes_of("0x100", 1).is_err());
        assert!(bytes_of("-0x1", 4).is_err());
        assert!(bytes_of("", 4).is_err());
    }
}
