//! Numbers of more than 128 bits, computed as bmv2 computes all: without bounds.
//!
//! Slow, and only used where 128 bits do not do.

use num_bigint::{BigInt, BigUint};

use super::expr::{Binary, Compare, Element, Expr};
use super::trace::Cell;
use super::{Context, Packet};
use crate::bits::Field;
use crate::program::action::WideStep;
use crate::program::layout::Varbit;
use crate::state::lock;

/// A left shift by more gives 0, so that no packet makes a number of any size.
const MAX_SHIFT: u64 = 1 << 16;

/// An expression over numbers of any size.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wide {
    Const(BigInt),
    Field(Field),
    /// A varbit's present value.
    Varbit(Varbit),
    Element(Element),
    /// A number that fits in 128 bits, and whether it is signed.
    Narrow(Expr, bool),
    Binary(Binary, Box<Wide>, Box<Wide>),
    Not(Box<Wide>),
    /// Condition, then, else.
    Choice(Box<(Expr, Wide, Wide)>),
    /// Two's complement value of this many bits.
    Wrap(u16, Box<Wide>),
    /// Saturating cast to signed, of this many bits.
    Saturate(u16, Box<Wide>),
    /// Saturating cast to unsigned, of this many bits.
    SaturateUnsigned(u16, Box<Wide>),
}

/// What such a number gives where 128 bits are wanted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Narrowed {
    /// Its low 128 bits.
    Low(Wide),
    Compare(Compare, Wide, Wide),
    IsNotZero(Wide),
}

impl Narrowed {
    /// The value.
    pub(crate) fn eval(&self, buf: &[u8]) -> i128 {
        match self {
            Self::Low(number) => low_bits(&number.eval(buf)),
            Self::Compare(op, left, right) => {
                i128::from(op.apply(left.eval(buf).cmp(&right.eval(buf))))
            }
            Self::IsNotZero(number) => i128::from(number.eval(buf) != BigInt::ZERO),
        }
    }
}

impl Wide {
    /// The value.
    pub(crate) fn eval(&self, buf: &[u8]) -> BigInt {
        match self {
            Self::Const(value) => value.clone(),
            Self::Field(field) => load(*field, buf),
            Self::Varbit(varbit) => {
                let bytes = varbit.length.load(buf) as usize;
                let value = buf.get(varbit.start..varbit.start + bytes);
                BigUint::from_bytes_be(value.unwrap_or_default()).into()
            }
            Self::Element(element) => element
                .field(buf)
                .map_or(BigInt::ZERO, |field| load(field, buf)),
            Self::Narrow(number, signed) => {
                let value = number.eval(buf);
                if *signed {
                    value.into()
                } else {
                    (value as u128).into()
                }
            }
            Self::Binary(op, left, right) => apply(*op, left.eval(buf), right.eval(buf)),
            Self::Not(number) => !number.eval(buf),
            Self::Choice(parts) => {
                if parts.0.test(buf) {
                    parts.1.eval(buf)
                } else {
                    parts.2.eval(buf)
                }
            }
            Self::Wrap(width, number) => wrap(number.eval(buf), *width),
            Self::Saturate(width, number) => {
                let top = power(width.saturating_sub(1));
                number.eval(buf).clamp(-top.clone(), top - 1)
            }
            Self::SaturateUnsigned(width, number) => {
                number.eval(buf).clamp(BigInt::ZERO, power(*width) - 1)
            }
        }
    }
}

impl Context<'_> {
    /// Runs one step.
    pub(super) fn wide_step(&mut self, step: &WideStep, packet: &mut Packet) {
        match step {
            WideStep::Set(to, value) => {
                let value = value.eval(&packet.buf);
                store(*to, &mut packet.buf, &value);
            }
            WideStep::SetElement(element, value) => {
                let value = value.eval(&packet.buf);
                if let Some(to) = element.field(&packet.buf) {
                    store(to, &mut packet.buf, &value);
                }
            }
            WideStep::ReadRegister {
                register,
                index,
                to,
            } => {
                let at = index.eval(&packet.buf) as u32 as usize;
                let wide = self.state.wide_registers.get(*register);
                let wide = wide.and_then(|r| lock(r).get(at).cloned());
                let narrow = self.state.registers.get(*register);
                let narrow = || narrow.and_then(|r| lock(r).get(at).map(|v| BigUint::from(*v)));
                let value = wide.or_else(narrow);
                if let Some(value) = &value {
                    store(*to, &mut packet.buf, &value.clone().into());
                }
                self.trace_cell(Cell::Register(*register), at, value.is_some());
            }
            WideStep::WriteRegister {
                register,
                index,
                value,
            } => {
                let at = index.eval(&packet.buf) as u32 as usize;
                let width = self.program.registers.get(*register).map_or(0, |r| r.width);
                let value: BigInt = value.eval(&packet.buf) & (power(width) - 1);
                let Some(cells) = self.state.wide_registers.get(*register) else {
                    return;
                };
                // What is masked is not negative.
                let value = value.into_parts().1;
                let written = lock(cells).get_mut(at).map(|cell| *cell = value);
                self.trace_cell(Cell::Register(*register), at, written.is_some());
            }
        }
    }
}

fn power(exponent: u16) -> BigInt {
    BigInt::from(1) << exponent
}

fn wrap(value: BigInt, width: u16) -> BigInt {
    let span = power(width);
    let low: BigInt = value & (span.clone() - 1);
    if width > 0 && low.bit(u64::from(width) - 1) {
        low - span
    } else {
        low
    }
}

fn apply(op: Binary, left: BigInt, right: BigInt) -> BigInt {
    match op {
        Binary::Add => left + right,
        Binary::Subtract => left - right,
        Binary::Multiply => left * right,
        // By zero bmv2 stops; here it is 0, as for narrow numbers.
        Binary::Divide => left.checked_div(&right).unwrap_or(BigInt::ZERO),
        Binary::Modulo if right == BigInt::ZERO => BigInt::ZERO,
        Binary::Modulo => left % right,
        Binary::And => left & right,
        Binary::Or => left | right,
        Binary::Xor => left ^ right,
        Binary::ShiftLeft => match u64::try_from(&right) {
            Ok(by) if by <= MAX_SHIFT => left << by,
            _ => BigInt::ZERO,
        },
        Binary::ShiftRight | Binary::ShiftRightSigned => {
            // No number here has more bits than the largest field shifted by the most.
            left >> u64::try_from(&right).unwrap_or(u64::MAX).min(2 * MAX_SHIFT)
        }
    }
}

fn load(field: Field, buf: &[u8]) -> BigInt {
    let mut bytes = vec![0; field.bytes()];
    field.export(buf, &mut bytes);
    let value = BigInt::from(BigUint::from_bytes_be(&bytes));
    if field.signed {
        wrap(value, field.width)
    } else {
        value
    }
}

/// Writes the number's low bits to a field of any width.
pub(crate) fn store(field: Field, buf: &mut [u8], value: &BigInt) {
    let bytes = value.to_signed_bytes_be();
    let fill = if value.sign() == num_bigint::Sign::Minus {
        0xff
    } else {
        0
    };
    let mut out = vec![fill; field.bytes()];
    let len = bytes.len().min(out.len());
    let (from, to) = (bytes.len() - len, out.len() - len);
    if let (Some(to), Some(from)) = (out.get_mut(to..), bytes.get(from..)) {
        to.copy_from_slice(from);
    }
    field.import(buf, &out);
}

fn low_bits(value: &BigInt) -> i128 {
    let fill = if value.sign() == num_bigint::Sign::Minus {
        0xff
    } else {
        0
    };
    let mut out = [fill; 16];
    for (out, byte) in out.iter_mut().zip(value.to_signed_bytes_le()) {
        *out = byte;
    }
    i128::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::GUARD_BYTES;
    use proptest::prelude::*;

    fn number(value: i64) -> Box<Wide> {
        Box::new(Wide::Const(value.into()))
    }

    #[test]
    fn casts_wrap_and_saturate() {
        let eval = |wide: Wide| wide.eval(&[]);
        assert_eq!(eval(Wide::Wrap(8, number(-129))), 127.into());
        assert_eq!(eval(Wide::Wrap(8, number(255))), (-1).into());
        assert_eq!(eval(Wide::Saturate(8, number(200))), 127.into());
        assert_eq!(eval(Wide::Saturate(8, number(-200))), (-128).into());
        assert_eq!(eval(Wide::SaturateUnsigned(8, number(300))), 255.into());
        assert_eq!(eval(Wide::SaturateUnsigned(8, number(-1))), 0.into());
    }

    #[test]
    fn operators_have_no_bounds() {
        let binary = |op, a: i64, b: i64| Wide::Binary(op, number(a), number(b)).eval(&[]);
        let huge = binary(Binary::ShiftLeft, 1, 300);
        assert_eq!(huge, BigInt::from(1) << 300);
        assert_eq!(apply(Binary::ShiftRight, huge, 299.into()), 2.into());
        assert_eq!(binary(Binary::ShiftRightSigned, -5, 1_000_000), (-1).into());
        assert_eq!(binary(Binary::ShiftLeft, 1, i64::MAX), 0.into());
        assert_eq!(binary(Binary::Divide, 7, 0), 0.into());
        assert_eq!(binary(Binary::Modulo, 7, 0), 0.into());
        assert_eq!(binary(Binary::Modulo, 7, 4), 3.into());
        assert_eq!(low_bits(&(-1).into()), -1);
        assert_eq!(low_bits(&(BigInt::from(3) << 127)), i128::MIN);
    }

    proptest! {
        #[test]
        fn what_is_stored_is_loaded(
            bit in (GUARD_BYTES * 8)..400usize,
            width in 1u16..600,
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            signed: bool,
        ) {
            let field = Field::at(bit, width, signed);
            let mut buf = vec![0; 160];
            let value = BigInt::from_signed_bytes_be(&bytes);
            store(field, &mut buf, &value);
            let expected = if signed {
                wrap(value, width)
            } else {
                value & (power(width) - 1)
            };
            prop_assert_eq!(load(field, &buf), expected);
        }
    }
}
