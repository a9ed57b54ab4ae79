//! Values as P4Runtime carries them: big-endian byte strings in their shortest
//! form, at least one byte long (P4Runtime 8.3). Receivers accept zero padding,
//! so both sides are made canonical before they are compared.
//!
//! ```
//! use p4runtime::value::{canonical, decode, encode};
//!
//! assert_eq!(encode(0, 9)?, [0]);
//! assert_eq!(encode(0x1ff, 9)?, [1, 0xff]);
//! assert!(encode(0x200, 9).is_err());
//! assert_eq!(decode(&[0, 0, 1, 0xff], 9)?, 0x1ff);
//! assert_eq!(canonical(&[0, 0, 7], 9)?, [7]);
//! # Ok::<(), p4runtime::value::ValueError>(())
//! ```

mod entity;
mod format;
mod matching;

pub use entity::{
    EntityError, EntryKey, canonicalize_action, canonicalize_entity, canonicalize_table_entry,
};
pub use format::{Format, FormatError, format_value, parse_value};
pub(crate) use format::{expected, hex};
pub use matching::{describe_field, describe_value, format_match, parse_match};

/// The widest value, in bits, that [`encode`] and [`decode`] handle.
pub const NUMBER_BITS_MAX: u32 = u128::BITS;

/// A value that cannot be carried, or that should not have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A byte string has at least one byte.
    #[error("the byte string is empty")]
    Empty,
    /// The value needs more bits than the field has.
    #[error("the value takes {bits} bits and the field has {width}")]
    OutOfRange {
        /// Bits that the value takes.
        bits: u32,
        /// Bits that the field has.
        width: u32,
    },
    /// A width of 0, or one too wide for a number.
    #[error("a width of {width} bits is not between 1 and {NUMBER_BITS_MAX}")]
    Width {
        /// The width.
        width: u32,
    },
    /// A prefix longer than the field, or of negative length.
    #[error("a prefix of {prefix_len} bits does not fit a field of {width}")]
    PrefixLength {
        /// The length.
        prefix_len: i32,
        /// Bits that the field has.
        width: u32,
    },
    /// A range whose low end is above its high end.
    #[error("the range's low end is above its high end")]
    EmptyRange,
}

/// The canonical byte string of a number in a field of `width` bits (1 to 128).
///
/// # Errors
/// [`ValueError::OutOfRange`] if it does not fit, [`ValueError::Width`].
pub fn encode(value: u128, width: u32) -> Result<Vec<u8>, ValueError> {
    check_number_width(width)?;
    let bits = u128::BITS - value.leading_zeros();
    if bits > width {
        return Err(ValueError::OutOfRange { bits, width });
    }
    Ok(strip(&value.to_be_bytes()).to_vec())
}

/// The number that a byte string, canonical or zero-padded, stands for in a
/// field of `width` bits (1 to 128).
///
/// # Errors
/// [`ValueError::Empty`], [`ValueError::OutOfRange`], [`ValueError::Width`].
pub fn decode(bytes: &[u8], width: u32) -> Result<u128, ValueError> {
    check_number_width(width)?;
    let shift_in = |value: u128, byte: &u8| (value << 8) | u128::from(*byte);
    Ok(canonical(bytes, width)?.iter().fold(0, shift_in))
}

/// The canonical form of a byte string of a field of `width` bits, any width.
///
/// # Errors
/// [`ValueError::Empty`], [`ValueError::OutOfRange`].
pub fn canonical(bytes: &[u8], width: u32) -> Result<&[u8], ValueError> {
    if bytes.is_empty() {
        return Err(ValueError::Empty);
    }
    let bytes = strip(bytes);
    let bits = bit_length(bytes);
    if bits > width {
        return Err(ValueError::OutOfRange { bits, width });
    }
    Ok(bytes)
}

/// Whether a byte string is in its shortest form.
pub fn is_canonical(bytes: &[u8]) -> bool {
    matches!(bytes, [_] | [1..=u8::MAX, _, ..])
}

/// The mask of the first `prefix_len` bits of a field of `width` bits (at most
/// 128); what is too long counts as the whole field.
pub fn prefix_mask(prefix_len: u32, width: u32) -> u128 {
    let width = width.min(u128::BITS);
    let ones = |bits: u32| u128::MAX.checked_shr(u128::BITS - bits).unwrap_or(0);
    let low = width.saturating_sub(prefix_len);
    ones(width) & !ones(low)
}

fn check_number_width(width: u32) -> Result<(), ValueError> {
    match width {
        1..=NUMBER_BITS_MAX => Ok(()),
        _ => Err(ValueError::Width { width }),
    }
}

/// Drops leading zero bytes, but never the last byte.
fn strip(bytes: &[u8]) -> &[u8] {
    let mut bytes = bytes;
    while let [0, rest @ ..] = bytes
        && !rest.is_empty()
    {
        bytes = rest;
    }
    bytes
}

/// Bits from the first set one on; of a stripped byte string.
fn bit_length(stripped: &[u8]) -> u32 {
    let Some(first) = stripped.first() else {
        return 0;
    };
    let rest = u32::try_from(stripped.len() - 1).unwrap_or(u32::MAX / 8);
    rest.saturating_mul(8)
        .saturating_add(u8::BITS - first.leading_zeros())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zero_is_one_byte_and_empty_is_nothing() {
        assert_eq!(encode(0, 1).unwrap(), [0]);
        assert_eq!(decode(&[0], 1).unwrap(), 0);
        assert_eq!(decode(&[], 8), Err(ValueError::Empty));
        assert!(!is_canonical(&[]));
        assert!(is_canonical(&[0]));
        assert!(!is_canonical(&[0, 1]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let too_wide = ValueError::OutOfRange { bits: 10, width: 9 };
        assert_eq!(encode(512, 9), Err(too_wide));
        assert_eq!(decode(&[2, 0], 9), Err(too_wide));
        assert_eq!(encode(0, 0), Err(ValueError::Width { width: 0 }));
        assert_eq!(encode(0, 129), Err(ValueError::Width { width: 129 }));
    }

    #[test]
    fn prefix_masks() {
        assert_eq!(prefix_mask(24, 32), 0xffff_ff00);
        assert_eq!(prefix_mask(0, 32), 0);
        assert_eq!(prefix_mask(32, 32), 0xffff_ffff);
        assert_eq!(prefix_mask(128, 128), u128::MAX);
        assert_eq!(prefix_mask(1, 128), 1 << 127);
    }

    proptest! {
        #[test]
        fn every_number_round_trips(value: u128, width in 1u32..=128, pad in 0usize..4) {
            let value = value & prefix_mask(width, width);
            let bytes = encode(value, width).unwrap();
            prop_assert!(is_canonical(&bytes));
            let padded = [vec![0; pad], bytes.clone()].concat();
            prop_assert_eq!(decode(&padded, width).unwrap(), value);
            prop_assert_eq!(canonical(&padded, width).unwrap(), &bytes[..]);
        }

        #[test]
        fn encode_refuses_exactly_what_is_too_large(value: u128, width in 1u32..=128) {
            let fits = width == 128 || value >> width == 0;
            prop_assert_eq!(encode(value, width).is_ok(), fits);
            prop_assert_eq!(decode(&value.to_be_bytes(), width).is_ok(), fits);
        }
    }
}
