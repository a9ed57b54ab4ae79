//! Fields as bit ranges of the packet-state buffer.
//!
//! Every header, metadata value, validity flag and action argument lives in one flat buffer, so a
//! field is nothing but a place: the index of its last byte, how many bits lie below it there, and
//! its width. Headers are kept in wire layout, so that extracting and deparsing copy whole headers.

/// Zero bytes in front of the first field, so that a field may be read by one wide load.
pub(crate) const GUARD_BYTES: usize = 24;

/// The widest field that expressions compute with, in bits.
pub(crate) const MAX_VALUE_BITS: u16 = 128;

/// Where a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Index of the byte that holds the field's lowest bit.
    pub(crate) last: u32,
    /// Bits of that byte below the field (0 to 7).
    pub(crate) shift: u8,
    /// In bits.
    pub(crate) width: u16,
    /// Two's complement.
    pub(crate) signed: bool,
    /// Bytes, `last` the last of them, that are this field's alone and zero above it; 0 if it
    /// shares its bytes or they are not known to be so.
    pub(crate) own: u8,
}

impl Field {
    /// The field of `width` bits whose first bit is `bit` (counted from the buffer's start).
    pub(crate) fn at(bit: usize, width: u16, signed: bool) -> Self {
        let end = bit + usize::from(width);
        let last = end.div_ceil(8).saturating_sub(1);
        Self {
            last: last as u32,
            shift: (((last + 1) * 8) - end) as u8,
            width,
            signed,
            own: 0,
        }
    }

    /// The field of `width` bits at the end of `own` bytes, the first of which is `byte`.
    pub(crate) fn alone(byte: usize, own: u8, width: u16, signed: bool) -> Self {
        let bit = (byte + usize::from(own)) * 8 - usize::from(width);
        Self {
            own,
            ..Self::at(bit, width, signed)
        }
    }

    /// The same field `bytes` further on.
    pub(crate) fn moved(self, bytes: usize) -> Self {
        Self {
            last: self.last + bytes as u32,
            ..self
        }
    }

    /// Bytes that the field's value takes, on its own.
    pub(crate) fn bytes(self) -> usize {
        usize::from(self.width).div_ceil(8)
    }

    pub(crate) fn first_bit(self) -> usize {
        (self.last as usize + 1) * 8 - usize::from(self.shift) - usize::from(self.width)
    }

    /// The value's bit pattern, zero above its width; the low bits of a field of more than 128.
    #[inline]
    pub(crate) fn load_raw(self, buf: &[u8]) -> u128 {
        let last = self.last as usize;
        let span = u32::from(self.width) + u32::from(self.shift);
        if span <= 64 {
            let word = match buf.get(last.wrapping_sub(7)..=last) {
                Some(bytes) => u64::from_be_bytes(bytes.try_into().unwrap_or_default()),
                None => 0,
            };
            return u128::from((word >> self.shift) & mask64(self.width));
        }
        let low = match buf.get(last.wrapping_sub(15)..=last) {
            Some(bytes) => u128::from_be_bytes(bytes.try_into().unwrap_or_default()),
            None => 0,
        };
        let mut value = low >> self.shift;
        if span > 128 {
            let top = buf.get(last.wrapping_sub(16)).copied().unwrap_or(0);
            value |= u128::from(top) << (128 - u32::from(self.shift));
        }
        value & mask(self.width)
    }

    /// The value; sign-extended when the field is signed.
    #[inline]
    pub(crate) fn load(self, buf: &[u8]) -> i128 {
        let raw = self.load_raw(buf);
        if self.signed {
            sign_extend(raw, self.width)
        } else {
            raw as i128
        }
    }

    /// Writes the value's low bits; a field of more than 128 bits gets the sign above them.
    #[inline]
    pub(crate) fn store(self, buf: &mut [u8], value: i128) {
        let last = self.last as usize;
        // Bytes of its own are written whole: no look at what was there.
        if self.own > 0 && self.width <= 64 {
            let value = value as u64 & mask64(self.width);
            return match self.own {
                1 => put(buf, last, [value as u8]),
                2 => put(buf, last, (value as u16).to_be_bytes()),
                4 => put(buf, last, (value as u32).to_be_bytes()),
                _ => put(buf, last, value.to_be_bytes()),
            };
        }
        self.mix(buf, value);
    }

    /// Writes the value among the bits of other fields.
    #[inline(never)]
    fn mix(self, buf: &mut [u8], value: i128) {
        let last = self.last as usize;
        let span = u32::from(self.width) + u32::from(self.shift);
        if span <= 64 {
            if let Some(bytes) = buf.get_mut(last.wrapping_sub(7)..=last) {
                let old = u64::from_be_bytes((&*bytes).try_into().unwrap_or_default());
                let mask = mask64(self.width) << self.shift;
                let new = ((value as u64) << self.shift) & mask;
                bytes.copy_from_slice(&((old & !mask) | new).to_be_bytes());
            }
            return;
        }
        if self.width > MAX_VALUE_BITS {
            let mut bytes = vec![if value < 0 { 0xff } else { 0 }; self.bytes()];
            let low = bytes.len() - 16;
            if let Some(low) = bytes.get_mut(low..) {
                low.copy_from_slice(&value.to_be_bytes());
            }
            self.import(buf, &bytes);
            return;
        }
        let value = value as u128 & mask(self.width);
        if let Some(bytes) = buf.get_mut(last.wrapping_sub(15)..=last) {
            let old = u128::from_be_bytes((&*bytes).try_into().unwrap_or_default());
            let mask = mask(self.width) << self.shift;
            bytes.copy_from_slice(&((old & !mask) | (value << self.shift)).to_be_bytes());
        }
        if span > 128 {
            let over = span - 128;
            if let Some(top) = buf.get_mut(last.wrapping_sub(16)) {
                let keep = 0xff_u8.checked_shl(over).unwrap_or(0);
                *top = (*top & keep) | (value >> (128 - u32::from(self.shift))) as u8;
            }
        }
    }

    /// Writes the value, most significant byte first, zero-padded in front, to `out`
    /// (which is [`Field::bytes`] long). Any width.
    #[inline]
    pub(crate) fn export(self, buf: &[u8], out: &mut [u8]) {
        if self.shift == 0 && self.width.is_multiple_of(8) {
            let end = self.last as usize + 1;
            if let Some(bytes) = buf.get(end.wrapping_sub(out.len())..end) {
                out.copy_from_slice(bytes);
            }
        } else if self.width <= MAX_VALUE_BITS {
            let bytes = self.load_raw(buf).to_be_bytes();
            let from = bytes.len().saturating_sub(out.len());
            if let Some(bytes) = bytes.get(from..)
                && bytes.len() == out.len()
            {
                out.copy_from_slice(bytes);
            }
        } else {
            out.fill(0);
            let to = out.len() * 8 - usize::from(self.width);
            copy_bits(buf, self.first_bit(), out, to, usize::from(self.width));
        }
    }

    /// The inverse of [`Field::export`]: `bytes` is [`Field::bytes`] long.
    pub(crate) fn import(self, buf: &mut [u8], bytes: &[u8]) {
        let skip = (bytes.len() * 8).saturating_sub(usize::from(self.width));
        let width = usize::from(self.width).min(bytes.len() * 8);
        copy_bits(bytes, skip, buf, self.first_bit(), width);
    }

    /// Appends the field's bits to `out`, which already holds `bits` bits; returns the new count.
    pub(crate) fn append(self, buf: &[u8], out: &mut Vec<u8>, bits: usize) -> usize {
        let end = bits + usize::from(self.width);
        out.resize(end.div_ceil(8), 0);
        if bits.is_multiple_of(8) && self.shift == 0 && self.width.is_multiple_of(8) {
            let stop = self.last as usize + 1;
            if let (Some(from), Some(to)) = (
                buf.get(stop - self.bytes()..stop),
                out.get_mut(bits / 8..end / 8),
            ) {
                to.copy_from_slice(from);
            }
        } else {
            copy_bits(buf, self.first_bit(), out, bits, usize::from(self.width));
        }
        end
    }
}

/// Writes bytes that end at `last`.
#[inline]
fn put<const N: usize>(buf: &mut [u8], last: usize, bytes: [u8; N]) {
    let upto = buf.get_mut(..last + 1);
    if let Some(place) = upto.and_then(|p| p.last_chunk_mut::<N>()) {
        *place = bytes;
    }
}

/// `width` one bits. At most 128.
#[inline]
pub(crate) fn mask(width: u16) -> u128 {
    if width >= 128 {
        u128::MAX
    } else {
        (1 << width) - 1
    }
}

/// As [`mask`], of at most 64 bits.
#[inline]
fn mask64(width: u16) -> u64 {
    let zeros = 64_u32.saturating_sub(width.into());
    u64::MAX.checked_shr(zeros).unwrap_or(0)
}

/// Reads the low `width` bits as two's complement.
#[inline]
pub(crate) fn sign_extend(raw: u128, width: u16) -> i128 {
    if width == 0 {
        return 0;
    }
    let up = u32::from(MAX_VALUE_BITS.saturating_sub(width));
    ((raw << up) as i128) >> up
}

/// Copies `count` bits between buffers; bits outside either buffer are skipped.
pub(crate) fn copy_bits(from: &[u8], from_bit: usize, to: &mut [u8], to_bit: usize, count: usize) {
    let mut done = 0;
    while done < count {
        let (source, target) = (from_bit + done, to_bit + done);
        let run = (8 - source % 8).min(8 - target % 8).min(count - done);
        let ones = 0xff_u8 >> (8 - run);
        if let (Some(byte), Some(out)) = (from.get(source / 8), to.get_mut(target / 8)) {
            let value = (byte >> (8 - source % 8 - run)) & ones;
            let up = 8 - target % 8 - run;
            *out = (*out & !(ones << up)) | (value << up);
        }
        done += run;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_stored_is_loaded_and_nothing_else_changes(
            mut buf in proptest::collection::vec(any::<u8>(), 80),
            bit in (GUARD_BYTES * 8)..500usize,
            width in 1u16..=128,
            value in any::<u128>(),
        ) {
            let before = buf.clone();
            let field = Field::at(bit, width, false);
            field.store(&mut buf, value as i128);
            prop_assert_eq!(field.load_raw(&buf), value & mask(width));
            let bit_of = |b: &[u8], i: usize| (b[i / 8] >> (7 - i % 8)) & 1;
            for i in 0..640 {
                if i < bit || i >= bit + usize::from(width) {
                    prop_assert_eq!(bit_of(&before, i), bit_of(&buf, i));
                }
            }
            let mut out = vec![0; field.bytes()];
            field.export(&buf, &mut out);
            let mut again = before.clone();
            field.import(&mut again, &out);
            prop_assert_eq!(again, buf);
        }
    }

    #[test]
    fn a_wide_field_goes_through_bytes() {
        let mut buf = vec![0; GUARD_BYTES + 64];
        let field = Field::at(GUARD_BYTES * 8 + 3, 200, false);
        let bytes: Vec<u8> = (1..=25).collect();
        field.import(&mut buf, &bytes);
        let mut out = vec![0; 25];
        field.export(&buf, &mut out);
        assert_eq!(out, bytes);
        assert_eq!(
            field.load_raw(&buf),
            u128::from_be_bytes(bytes[9..].try_into().unwrap())
        );
        field.store(&mut buf, 5);
        field.export(&buf, &mut out);
        assert_eq!(out, [&[0; 24][..], &[5]].concat());
    }

    #[test]
    fn signed_fields_extend_their_sign() {
        let mut buf = vec![0; GUARD_BYTES + 8];
        let field = Field::at(GUARD_BYTES * 8, 8, true);
        field.store(&mut buf, -3);
        assert_eq!(field.load(&buf), -3);
        assert_eq!(field.load_raw(&buf), 0xfd);
    }
}
