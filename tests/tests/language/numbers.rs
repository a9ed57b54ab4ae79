//! Numbers of more than 128 bits.

use crate::device::{Device, on_both};

/// Bytes behind the headers; real ports take no frames shorter than an Ethernet header.
const REST: &[u8] = b"and the rest of it";

/// The `wide` header of `language.p4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wide {
    a: [u8; 32],
    b: [u8; 32],
    s: [u8; 25],
    t: [u8; 25],
    n: u8,
}

/// `top` in the highest byte, `low` at the end.
fn unsigned(top: u8, low: u64) -> [u8; 32] {
    let mut out = [0; 32];
    out[0] = top;
    out[24..].copy_from_slice(&low.to_be_bytes());
    out
}

/// Sign-extended.
fn signed(value: i64) -> [u8; 25] {
    let mut out = [if value < 0 { 0xff } else { 0 }; 25];
    out[17..].copy_from_slice(&value.to_be_bytes());
    out
}

/// The ends of 200-bit two's complement.
fn end(highest: bool) -> [u8; 25] {
    let mut out = [if highest { 0xff } else { 0 }; 25];
    out[0] = if highest { 0x7f } else { 0x80 };
    out
}

const ONES: [u8; 32] = [0xff; 32];

impl Wide {
    fn new(a: [u8; 32], b: [u8; 32], s: [u8; 25], t: [u8; 25], n: u8) -> Self {
        Self { a, b, s, t, n }
    }

    fn frame(&self, op: u8) -> Vec<u8> {
        let parts: [&[u8]; 7] = [
            &[op, 0],
            &self.a,
            &self.b,
            &self.s,
            &self.t,
            &[self.n],
            REST,
        ];
        parts.concat()
    }
}

#[track_caller]
fn check(device: &mut Device, op: u8, sent: Wide, expected: Wide) {
    device.send(1, &sent.frame(op));
    assert_eq!(device.next(2), expected.frame(op), "op {op} of {sent:02x?}");
}

#[test]
fn arithmetic_wraps() {
    on_both("numbers::arithmetic_wraps", "language", |device| {
        let sent = Wide::new(
            unsigned(0x80, 5),
            unsigned(0x80, 7),
            end(true),
            signed(1),
            0,
        );
        // Adds, subtracts.
        let sum = Wide {
            a: unsigned(0, 12),
            s: end(false),
            ..sent
        };
        check(device, 1, sent, sum);
        let mut difference = ONES;
        difference[31] = 0xfe;
        let mut low = end(true);
        low[24] = 0xfe;
        check(
            device,
            2,
            sent,
            Wide {
                a: difference,
                s: low,
                ..sent
            },
        );
        // (2^255 + 5) (2^255 + 7) = 2^510 + 12 * 2^255 + 35; -3 * 7 = -21.
        let sent = Wide {
            s: signed(-3),
            t: signed(7),
            ..sent
        };
        let product = Wide {
            a: unsigned(0, 35),
            s: signed(-21),
            ..sent
        };
        check(device, 3, sent, product);
    });
}

#[test]
fn saturation_and_bits() {
    on_both("numbers::saturation_and_bits", "language", |device| {
        let sent = Wide::new(
            unsigned(0x80, 5),
            unsigned(0x80, 7),
            end(false),
            signed(1),
            9,
        );
        check(device, 4, sent, Wide { a: ONES, ..sent });
        let mut inside = Wide::new(unsigned(1, 5), unsigned(2, 7), signed(5), signed(9), 0);
        let expected = Wide {
            a: unsigned(3, 12),
            s: signed(-4),
            ..inside
        };
        check(device, 4, inside, expected);
        inside.n = 0xff;
        let mut and = ONES;
        and[31] = !5;
        let expected = Wide {
            a: and,
            b: unsigned(2, 7 ^ 0xff),
            ..inside
        };
        check(device, 5, inside, expected);
    });
}

#[test]
fn shifts() {
    on_both("numbers::shifts", "language", |device| {
        let sent = Wide::new(
            unsigned(1, 1),
            unsigned(0x80, 0),
            signed(-16),
            signed(0),
            192,
        );
        let mut left = [0; 32];
        left[7] = 1;
        let mut right = [0; 32];
        right[24] = 0x80;
        let expected = Wide {
            a: left,
            b: right,
            s: signed(-1),
            ..sent
        };
        check(device, 6, sent, expected);
        let sent = Wide { n: 3, ..sent };
        let expected = Wide {
            a: unsigned(8, 8),
            b: unsigned(0x10, 0),
            s: signed(-2),
            ..sent
        };
        check(device, 6, sent, expected);
        let sent = Wide {
            s: end(false),
            n: 255,
            ..sent
        };
        let mut top = [0; 32];
        top[0] = 0x80;
        let mut one = [0; 32];
        one[31] = 1;
        let expected = Wide {
            a: top,
            b: one,
            s: signed(-1),
            ..sent
        };
        check(device, 6, sent, expected);
    });
}

#[test]
fn comparisons_slices_and_choices() {
    on_both(
        "numbers::comparisons_slices_and_choices",
        "language",
        |device| {
            let base = Wide::new(unsigned(1, 9), unsigned(2, 3), signed(-1), signed(1), 0);
            check(device, 7, base, Wide { n: 1 | 2, ..base });
            let same = Wide {
                b: base.a,
                s: signed(4),
                ..base
            };
            check(device, 7, same, Wide { n: 4 | 8, ..same });
            // The product's highest byte within 256 bits, and a sign that is extended.
            let sent = Wide {
                a: unsigned(0, 0x50),
                b: unsigned(3, 0),
                ..base
            };
            let expected = Wide {
                n: 0xf0,
                t: signed(-16),
                ..sent
            };
            check(device, 8, sent, expected);
            let sent = Wide {
                a: unsigned(0xaa, 0x1234),
                b: ONES,
                ..base
            };
            let mut a = [0xff; 32];
            a[16..].fill(0);
            a[16] = 0xaa;
            // Bits 199 to 100 become the low 100 bits of the new `a`.
            let mut b = ONES;
            // Bits 127 to 120 of `a` are 0xaa, above the slice; the low 100 bits are 0.
            for byte in &mut b[7..19] {
                *byte = 0;
            }
            b[19] = 0x0f;
            let expected = Wide { a, b, ..sent };
            check(device, 9, sent, expected);
            let mut constant = [0; 32];
            constant[7] = 1;
            let sent = Wide { n: 5, ..base };
            check(
                device,
                10,
                sent,
                Wide {
                    a: constant,
                    ..sent
                },
            );
            let sent = Wide { n: 6, ..base };
            check(device, 10, sent, Wide { a: base.b, ..sent });
        },
    );
}

#[test]
fn long_registers_and_hashes() {
    on_both("numbers::long_registers_and_hashes", "language", |device| {
        let sent = Wide::new(unsigned(7, 9), unsigned(1, 1), signed(0), signed(0), 2);
        let first = Wide {
            a: unsigned(0, 0),
            b: unsigned(0, 0),
            ..sent
        };
        check(device, 11, sent, first);
        // What was written is a + 2^128.
        let mut stored = unsigned(7, 9);
        stored[15] = 1;
        let second = Wide {
            a: unsigned(0, 1),
            b: stored,
            ..sent
        };
        check(device, 11, sent, second);
        // Another cell, then one out of bounds: what is read stays what it was, here nothing.
        let other = Wide { n: 3, ..sent };
        check(device, 11, other, Wide { n: 3, ..first });
        let sent = Wide { b: [0; 32], ..sent };
        // CRC-32 of 32 zero bytes, plus one.
        let expected = Wide {
            a: unsigned(0, 0x190a_55ad + 1),
            ..sent
        };
        check(device, 12, sent, expected);
        check(device, 13, sent, sent);
    });
}
