//! Headers with a field of variable length, between the wire and the packet state.
//!
//! On the wire the field stands between the fixed ones; in the state it has a place of its own, so
//! that the fixed ones stay where they are.

use super::Packet;
use crate::bits::copy_bits;
use crate::program::layout::{Header, Varbit};

/// Copies bits; bytes if both sides are aligned.
fn copy(from: &[u8], from_bit: usize, to: &mut [u8], to_bit: usize, count: usize) {
    let aligned = [from_bit, to_bit, count]
        .iter()
        .all(|n| n.is_multiple_of(8));
    if !aligned {
        copy_bits(from, from_bit, to, to_bit, count);
        return;
    }
    let (from_byte, to_byte, len) = (from_bit / 8, to_bit / 8, count / 8);
    if let (Some(to), Some(from)) = (
        to.get_mut(to_byte..to_byte + len),
        from.get(from_byte..from_byte + len),
    ) {
        to.copy_from_slice(from);
    }
}

/// Takes a header from the wire, its varbit `len` bytes long.
pub(super) fn extract(header: &Header, varbit: Varbit, len: usize, data: &[u8], buf: &mut [u8]) {
    let (before, start) = (varbit.before, header.start * 8);
    let rest = (header.fixed_bytes * 8).saturating_sub(before);
    copy(data, 0, buf, start, before);
    copy(data, before, buf, varbit.start * 8, len * 8);
    copy(data, before + len * 8, buf, start + before, rest);
    varbit.length.store(buf, len as i128);
}

/// Appends a header to the frame.
pub(super) fn emit(header: &Header, varbit: Varbit, buf: &[u8], out: &mut Vec<u8>) {
    let len = length(varbit, buf);
    let at = out.len();
    out.resize(at + header.fixed_bytes + len, 0);
    let (before, start) = (varbit.before, header.start * 8);
    let rest = (header.fixed_bytes * 8).saturating_sub(before);
    copy(buf, start, out, at * 8, before);
    copy(buf, varbit.start * 8, out, at * 8 + before, len * 8);
    copy(buf, start + before, out, at * 8 + before + len * 8, rest);
}

/// Bytes of the varbit now.
pub(super) fn length(varbit: Varbit, buf: &[u8]) -> usize {
    (varbit.length.load_raw(buf) as usize).min(varbit.max_bytes)
}

/// Zeroes the varbit; its length stays, as in bmv2.
pub(super) fn clear(varbit: Varbit, packet: &mut Packet) {
    let len = length(varbit, &packet.buf);
    let value = packet.buf.get_mut(varbit.start..varbit.start + len);
    value.unwrap_or_default().fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::{Field, GUARD_BYTES};

    #[test]
    fn a_varbit_may_start_within_a_byte() {
        // 12 fixed bits, the varbit, 4 more fixed bits.
        let header = Header {
            name: "h".into(),
            kind: 0,
            metadata: false,
            start: GUARD_BYTES,
            fixed_bytes: 2,
            valid: 0,
            varbit: None,
            siblings: Vec::new(),
        };
        let varbit = Varbit {
            before: 12,
            start: GUARD_BYTES + 4,
            length: Field::at((GUARD_BYTES + 2) * 8, 16, false),
            max_bytes: 8,
        };
        let wire = [0x12, 0x3a, 0xbc, 0xde, 0xf4];
        let mut buf = vec![0; GUARD_BYTES * 2 + 12];
        extract(&header, varbit, 3, &wire, &mut buf);
        assert_eq!(buf[GUARD_BYTES..GUARD_BYTES + 2], [0x12, 0x34]);
        assert_eq!(buf[GUARD_BYTES + 4..GUARD_BYTES + 7], [0xab, 0xcd, 0xef]);
        let mut out = vec![7];
        emit(&header, varbit, &buf, &mut out);
        assert_eq!(out[1..], wire);
    }
}
