//! Expressions in resolved form, and their evaluation.
//!
//! bmv2 computes with unbounded integers and the compiler masks the results. Here a node is
//! computed in 128 bits where [`crate::program`] proves when it compiles that this gives the same
//! result (see `program/expr.rs`), and as a [`super::wide`] number elsewhere.

use std::cmp::Ordering;

use super::wide::Narrowed;
use crate::bits::{Field, sign_extend};

/// A resolved expression. Booleans are 0 and 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    Const(i128),
    Field(Field),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Compare(Compare, Sign, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    BitNot(Box<Expr>),
    ToBool(Box<Expr>),
    /// Condition, then, else.
    Choice(Box<(Expr, Expr, Expr)>),
    /// Two's complement value of this many bits.
    Wrap(u16, Box<Expr>),
    /// Saturating cast to signed, of this many bits.
    Saturate(u16, Box<Expr>),
    /// Saturating cast to unsigned, of this many bits.
    SaturateUnsigned(u16, Box<Expr>),
    Valid(Box<HeaderRef>),
    /// Whether one of the headers with these validity bytes is valid.
    AnyValid(Box<[usize]>),
    /// Whether two headers are valid and have the same bytes. To bmv2 invalid headers differ.
    SameHeader(Box<(HeaderRef, HeaderRef)>),
    /// A field of the stack element that the index selects.
    Element(Box<Element>),
    /// Index of the stack's last element.
    LastIndex(usize),
    /// What 128 bits do not do for.
    Wide(Box<Narrowed>),
}

/// A field of a stack element chosen at run time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Element {
    /// The field in the first element.
    pub(crate) first: Field,
    pub(crate) stride: usize,
    pub(crate) len: usize,
    pub(crate) index: Expr,
}

/// A header, known when compiled or chosen by a stack index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeaderRef {
    /// Index of the header (of the first element for a stack).
    pub(crate) header: usize,
    /// Its validity byte.
    pub(crate) valid: usize,
    /// Its first byte, and how many follow (without a varbit).
    pub(crate) start: usize,
    pub(crate) bytes: usize,
    /// Number of elements, bytes from one to the next, and the index, for an element of a stack.
    pub(crate) element: Option<(usize, usize, Expr)>,
}

impl HeaderRef {
    /// Which element is meant (0 without a stack); none if the stack index is out of bounds.
    #[inline]
    pub(crate) fn offset(&self, buf: &[u8]) -> Option<usize> {
        match &self.element {
            None => Some(0),
            Some((len, _, index)) => {
                let index = usize::try_from(index.eval(buf)).ok()?;
                (index < *len).then_some(index)
            }
        }
    }

    /// Whether the header is valid; an element out of bounds is not.
    #[inline]
    pub(crate) fn is_valid(&self, buf: &[u8]) -> bool {
        self.offset(buf)
            .is_some_and(|offset| flag(buf, self.valid + offset))
    }

    fn contents<'a>(&self, buf: &'a [u8]) -> Option<&'a [u8]> {
        let stride = self.element.as_ref().map_or(0, |e| e.1);
        let start = self.start + self.offset(buf)? * stride;
        buf.get(start..start + self.bytes)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
    Xor,
    ShiftLeft,
    /// Zeros come in.
    ShiftRight,
    /// The sign comes in.
    ShiftRightSigned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// How 128-bit patterns are to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Unsigned,
    Signed,
    /// Left unsigned of the full width, right signed.
    UnsignedSigned,
    /// Left signed, right unsigned of the full width.
    SignedUnsigned,
}

#[inline]
fn amount(value: i128) -> Option<u32> {
    u32::try_from(value).ok().filter(|a| *a < 128)
}

impl Binary {
    #[inline]
    fn apply(self, left: i128, right: i128) -> i128 {
        match self {
            Self::Add => left.wrapping_add(right),
            Self::Subtract => left.wrapping_sub(right),
            Self::Multiply => left.wrapping_mul(right),
            // P4 divides compile-time and non-negative values only; by zero bmv2 stops, here it is 0.
            Self::Divide => (left as u128).checked_div(right as u128).unwrap_or(0) as i128,
            Self::Modulo => (left as u128).checked_rem(right as u128).unwrap_or(0) as i128,
            Self::And => left & right,
            Self::Or => left | right,
            Self::Xor => left ^ right,
            Self::ShiftLeft => amount(right).map_or(0, |by| left << by),
            Self::ShiftRight => amount(right).map_or(0, |by| (left as u128 >> by) as i128),
            Self::ShiftRightSigned => left >> amount(right).unwrap_or(127),
        }
    }
}

impl Compare {
    #[inline]
    pub(super) fn apply(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order == Ordering::Equal,
            Self::NotEqual => order != Ordering::Equal,
            Self::Less => order == Ordering::Less,
            Self::LessEqual => order != Ordering::Greater,
            Self::Greater => order == Ordering::Greater,
            Self::GreaterEqual => order != Ordering::Less,
        }
    }
}

#[inline]
fn order(sign: Sign, left: i128, right: i128) -> Ordering {
    match sign {
        Sign::Unsigned => (left as u128).cmp(&(right as u128)),
        Sign::Signed => left.cmp(&right),
        Sign::UnsignedSigned if right < 0 => Ordering::Greater,
        Sign::SignedUnsigned if left < 0 => Ordering::Less,
        Sign::UnsignedSigned | Sign::SignedUnsigned => (left as u128).cmp(&(right as u128)),
    }
}

#[inline]
fn flag(buf: &[u8], index: usize) -> bool {
    buf.get(index).copied().unwrap_or(0) != 0
}

impl Element {
    /// The field itself; none if the index is out of bounds.
    #[inline]
    pub(crate) fn field(&self, buf: &[u8]) -> Option<Field> {
        let index = usize::try_from(self.index.eval(buf)).ok()?;
        (index < self.len).then(|| self.first.moved(index * self.stride))
    }
}

impl Expr {
    /// The value.
    #[inline]
    pub(crate) fn eval(&self, buf: &[u8]) -> i128 {
        match self {
            Self::Const(value) => *value,
            Self::Field(field) => field.load(buf),
            Self::Binary(op, left, right) => op.apply(left.eval(buf), right.eval(buf)),
            Self::Compare(op, sign, left, right) => {
                i128::from(op.apply(order(*sign, left.eval(buf), right.eval(buf))))
            }
            Self::And(left, right) => i128::from(left.test(buf) && right.test(buf)),
            Self::Or(left, right) => i128::from(left.test(buf) || right.test(buf)),
            Self::Not(inner) => i128::from(!inner.test(buf)),
            Self::BitNot(inner) => !inner.eval(buf),
            Self::ToBool(inner) => i128::from(inner.test(buf)),
            Self::Choice(parts) => {
                if parts.0.test(buf) {
                    parts.1.eval(buf)
                } else {
                    parts.2.eval(buf)
                }
            }
            Self::Wrap(width, inner) => sign_extend(inner.eval(buf) as u128, *width),
            Self::Saturate(width, inner) => {
                let top = if *width >= 128 {
                    i128::MAX
                } else {
                    (1_i128 << (width.saturating_sub(1))) - 1
                };
                inner.eval(buf).clamp(-top - 1, top)
            }
            Self::SaturateUnsigned(width, inner) => {
                let top = crate::bits::mask(*width);
                let value = inner.eval(buf);
                if value < 0 {
                    0
                } else {
                    (value as u128).min(top) as i128
                }
            }
            Self::Valid(header) => i128::from(header.is_valid(buf)),
            Self::SameHeader(pair) => {
                let (left, right) = (&pair.0, &pair.1);
                let valid = left.is_valid(buf) && right.is_valid(buf);
                i128::from(valid && left.contents(buf) == right.contents(buf))
            }
            Self::AnyValid(flags) => i128::from(flags.iter().any(|f| flag(buf, *f))),
            Self::Element(element) => element.field(buf).map_or(0, |f| f.load(buf)),
            Self::LastIndex(next) => i128::from(buf.get(*next).copied().unwrap_or(0)) - 1,
            Self::Wide(number) => number.eval(buf),
        }
    }

    /// Whether the value is not zero.
    #[inline]
    pub(crate) fn test(&self, buf: &[u8]) -> bool {
        self.eval(buf) != 0
    }
}
