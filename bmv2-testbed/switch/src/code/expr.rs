//! Expressions as 64-bit operations.
//!
//! The written form computes in 128 bits. Here a value is followed modulo 2^64, with what is
//! known of its true size beside it: sums, products and bitwise operators are right in their low
//! 64 bits whatever their operands' high bits are, comparisons and right shifts are only taken
//! over when the operands are known to be exact. Anything else is left to the written form.

use super::build::{Builder, Label};
use super::{At, Op, Pure, Reg, Size};
use crate::bits::Field;
use crate::exec::expr::{Binary, Compare, Expr};

/// A value modulo 2^64.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Reg(Reg),
    Const(u64),
}

/// A value, and how many bits its true value has at most; none if that may be negative or is
/// not known.
type Known = (Value, Option<u32>);

pub(super) fn ones(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

/// More than that may be negative in 128 bits.
fn positive(bits: u32) -> Option<u32> {
    Some(bits).filter(|bits| *bits <= 127)
}

/// The field without its lowest `by` bits, cut to 64.
fn slice(field: Field, by: u32) -> Option<Field> {
    let width = u32::from(field.width).checked_sub(by).filter(|w| *w > 0)?;
    let end = u32::from(field.shift) + by;
    Some(Field {
        last: field.last - end / 8,
        shift: (end % 8) as u8,
        width: width.min(64) as u16,
        signed: false,
        own: if by == 0 { field.own } else { 0 },
    })
}

/// The smallest number of bytes that holds the field, and where it starts.
pub(super) fn window(field: Field) -> Option<(Size, At)> {
    let bits = usize::from(field.width) + usize::from(field.shift);
    let size = Size::of(bits.div_ceil(8))?;
    Some((size, field.last + 1 - size.bytes() as u32))
}

impl Builder {
    pub(super) fn load(&mut self, field: Field) -> Option<Reg> {
        let (size, at) = window(field)?;
        let (shift, mask) = (field.shift, ones(field.width.into()));
        self.value(match size {
            Size::One => Pure::Load1(at, shift, mask as u8),
            Size::Two => Pure::Load2(at, shift, mask as u16),
            Size::Four => Pure::Load4(at, shift, mask as u32),
            Size::Eight => Pure::Load8(at, shift, mask),
        })
    }

    /// The value in a register.
    pub(super) fn reg(&mut self, value: Value) -> Option<Reg> {
        match value {
            Value::Reg(reg) => Some(reg),
            Value::Const(value) => self.value(Pure::Const(value)),
        }
    }

    /// The value of `expr`, shifted right by `by` bits with its sign.
    pub(super) fn low(&mut self, expr: &Expr, by: u32) -> Option<Known> {
        match expr {
            Expr::Const(value) => {
                let value = value >> by.min(127);
                let bits = (value >= 0).then(|| 128 - value.leading_zeros());
                Some((Value::Const(value as u64), bits))
            }
            Expr::Field(field) if !field.signed => match slice(*field, by) {
                None => Some((Value::Const(0), Some(0))),
                Some(part) => {
                    let reg = self.load(part)?;
                    let bits = u32::from(field.width) - by;
                    Some((Value::Reg(reg), Some(bits)))
                }
            },
            Expr::BitNot(inner) => {
                let (value, _) = self.low(inner, by)?;
                let value = match value {
                    Value::Const(value) => Value::Const(!value),
                    Value::Reg(reg) => Value::Reg(self.value(Pure::XorConst(reg, u64::MAX))?),
                };
                Some((value, None))
            }
            Expr::Binary(op, left, right) => self.binary(*op, left, right, by),
            _ => None,
        }
    }

    fn binary(&mut self, op: Binary, left: &Expr, right: &Expr, by: u32) -> Option<Known> {
        match (op, right) {
            (Binary::And, Expr::Const(mask)) if *mask >= 0 => self.masked(left, *mask, by),
            (Binary::And | Binary::Or | Binary::Xor, _) => {
                let (a, a_bits) = self.low(left, by)?;
                let (b, b_bits) = self.low(right, by)?;
                let bits = match (op, a_bits, b_bits) {
                    (Binary::And, Some(a), Some(b)) => Some(a.min(b)),
                    (Binary::And, Some(bits), None) | (Binary::And, None, Some(bits)) => Some(bits),
                    (_, Some(a), Some(b)) => Some(a.max(b)),
                    _ => None,
                };
                Some((self.bitwise(op, (a, a_bits), (b, b_bits))?, bits))
            }
            (Binary::ShiftRight, Expr::Const(more)) => {
                let more = u32::try_from(*more).ok().filter(|more| *more < 128)?;
                let found = self.low(left, by + more)?;
                // Of a negative value, ones would come in.
                found.1.map(|_| found)
            }
            _ if by > 0 => {
                let whole = Expr::Binary(op, Box::new(left.clone()), Box::new(right.clone()));
                let (value, bits) = self.low(&whole, 0)?;
                let bits = bits.filter(|bits| *bits <= 64)?;
                let value = match value {
                    Value::Const(value) => Value::Const(value.checked_shr(by).unwrap_or(0)),
                    Value::Reg(_) if by >= 64 => Value::Const(0),
                    Value::Reg(reg) => Value::Reg(self.value(Pure::ShiftRight(reg, by as u8))?),
                };
                Some((value, Some(bits.saturating_sub(by))))
            }
            (Binary::ShiftLeft, Expr::Const(up)) => {
                let up = u32::try_from(*up).ok().filter(|up| *up < 128)?;
                let (value, bits) = self.low(left, 0)?;
                let bits = bits.and_then(|bits| positive(bits + up));
                let value = match value {
                    _ if up >= 64 => Value::Const(0),
                    Value::Const(value) => Value::Const(value << up),
                    Value::Reg(reg) => Value::Reg(self.value(Pure::ShiftLeft(reg, up as u8))?),
                };
                Some((value, bits))
            }
            (Binary::Add | Binary::Subtract | Binary::Multiply, _) => {
                let (a, a_bits) = self.low(left, 0)?;
                let (b, b_bits) = self.low(right, 0)?;
                let bits = match (op, a_bits, b_bits) {
                    (Binary::Add, Some(a), Some(b)) => positive(a.max(b) + 1),
                    (Binary::Multiply, Some(a), Some(b)) => positive(a + b),
                    _ => None,
                };
                Some((self.sum(op, a, b)?, bits))
            }
            _ => None,
        }
    }

    /// `(expr & mask) >> by`.
    fn masked(&mut self, expr: &Expr, mask: i128, by: u32) -> Option<Known> {
        let shifted = mask >> by.min(127);
        let bits = 128 - shifted.leading_zeros();
        let (value, known) = match expr {
            Expr::Binary(Binary::And, inner, other) => {
                if let Expr::Const(other) = &**other {
                    return self.masked(inner, mask & other, by);
                }
                self.low(expr, by)?
            }
            // What is masked away of ~x is masked away of x.
            Expr::BitNot(inner) => {
                let (value, known) = self.masked(inner, mask, by)?;
                let flip = (Value::Const(shifted as u64), Some(bits));
                let value = self.bitwise(Binary::Xor, (value, known), flip)?;
                return Some((value, Some(bits)));
            }
            // Nothing but a slice.
            Expr::Field(field) if mask & (mask + 1) == 0 && !field.signed && mask > 0 => {
                let width = (128 - mask.leading_zeros()).min(field.width.into()) as u16;
                let own = if width == field.width { field.own } else { 0 };
                let part = Field {
                    width,
                    own,
                    ..*field
                };
                return self.low(&Expr::Field(part), by);
            }
            _ => self.low(expr, by)?,
        };
        let bits = known.map_or(bits, |known| known.min(bits));
        let mask = (Value::Const(shifted as u64), Some(bits));
        Some((self.bitwise(Binary::And, (value, known), mask)?, Some(bits)))
    }

    fn bitwise(&mut self, op: Binary, a: Known, b: Known) -> Option<Value> {
        let ((Value::Reg(reg), bits), Value::Const(value)) = (match (a.0, b.0) {
            (Value::Const(_), Value::Reg(_)) => (b, a.0),
            _ => (a, b.0),
        }) else {
            let pure = match (a.0, b.0) {
                (Value::Const(a), Value::Const(b)) => {
                    return Some(Value::Const(match op {
                        Binary::And => a & b,
                        Binary::Or => a | b,
                        _ => a ^ b,
                    }));
                }
                (a, b) => {
                    let (a, b) = (self.reg(a)?, self.reg(b)?);
                    match op {
                        Binary::And => Pure::And(a, b),
                        Binary::Or => Pure::Or(a, b),
                        _ => Pure::Xor(a, b),
                    }
                }
            };
            return self.value(pure).map(Value::Reg);
        };
        let pure = match op {
            Binary::And => {
                // A mask that takes nothing away.
                let range = ones(bits.unwrap_or(64));
                if value & range == range {
                    return Some(Value::Reg(reg));
                }
                Pure::AndConst(reg, value)
            }
            Binary::Or => Pure::OrConst(reg, value),
            _ => Pure::XorConst(reg, value),
        };
        self.value(pure).map(Value::Reg)
    }

    fn sum(&mut self, op: Binary, a: Value, b: Value) -> Option<Value> {
        let pure = match (op, a, b) {
            (_, Value::Const(a), Value::Const(b)) => {
                return Some(Value::Const(match op {
                    Binary::Add => a.wrapping_add(b),
                    Binary::Subtract => a.wrapping_sub(b),
                    _ => a.wrapping_mul(b),
                }));
            }
            (Binary::Add, Value::Reg(reg), Value::Const(value))
            | (Binary::Add, Value::Const(value), Value::Reg(reg)) => Pure::AddConst(reg, value),
            (Binary::Subtract, Value::Reg(reg), Value::Const(value)) => {
                Pure::AddConst(reg, value.wrapping_neg())
            }
            (_, a, b) => {
                let (a, b) = (self.reg(a)?, self.reg(b)?);
                match op {
                    Binary::Add => Pure::Add(a, b),
                    Binary::Subtract => Pure::Subtract(a, b),
                    _ => Pure::Multiply(a, b),
                }
            }
        };
        self.value(pure).map(Value::Reg)
    }

    /// The value, if 64 bits are known to hold it.
    fn exact(&mut self, expr: &Expr) -> Option<Value> {
        let (value, bits) = self.low(expr, 0)?;
        bits.filter(|bits| *bits <= 64).map(|_| value)
    }

    /// Goes to `to` if the condition is `when`; else on.
    pub(super) fn jump(&mut self, condition: &Expr, when: bool, to: Label) {
        match condition {
            Expr::Const(value) => {
                if (*value != 0) == when {
                    self.push(Op::Jump(to));
                }
            }
            Expr::Not(inner) => self.jump(inner, !when, to),
            Expr::ToBool(inner) => self.jump(inner, when, to),
            Expr::And(left, right) | Expr::Or(left, right) => {
                // What decides alone: a false side of an `and`, a true side of an `or`.
                let alone = matches!(condition, Expr::Or(..));
                if when == alone {
                    self.jump(left, when, to);
                    self.jump(right, when, to);
                } else {
                    let past = self.label();
                    self.jump(left, alone, past);
                    self.jump(right, when, to);
                    self.bind(past);
                }
            }
            Expr::Valid(header) if header.element.is_none() => {
                self.equal_one(header.valid as At, 0, !when, to);
            }
            Expr::AnyValid(flags) => {
                let past = self.label();
                for flag in flags {
                    let to = if when { to } else { past };
                    self.equal_one(*flag as At, 0, false, to);
                }
                if !when {
                    self.push(Op::Jump(to));
                }
                self.bind(past);
            }
            Expr::Field(field) if !field.signed && window(*field).is_some() => {
                self.equal(*field, 0, !when, to);
            }
            Expr::Compare(op, _, left, right) => {
                let compared = self.try_twice(|b| b.compare(*op, left, right, when, to));
                if compared.is_none() {
                    self.push(Op::Test(Box::new(condition.clone()), when, to));
                }
            }
            _ => self.push(Op::Test(Box::new(condition.clone()), when, to)),
        }
    }

    fn compare(
        &mut self,
        op: Compare,
        left: &Expr,
        right: &Expr,
        when: bool,
        to: Label,
    ) -> Option<()> {
        match op {
            Compare::Equal => self.same(left, right, when, to),
            Compare::NotEqual => self.same(left, right, !when, to),
            Compare::Less => self.less(left, right, when, to),
            Compare::GreaterEqual => self.less(left, right, !when, to),
            Compare::Greater => self.less(right, left, when, to),
            Compare::LessEqual => self.less(right, left, !when, to),
        }
    }

    /// Jumps if `(left == right) == when`.
    fn same(&mut self, left: &Expr, right: &Expr, when: bool, to: Label) -> Option<()> {
        if let (Expr::Field(field), Expr::Const(value)) | (Expr::Const(value), Expr::Field(field)) =
            (left, right)
            && !field.signed
            && window(*field).is_some()
        {
            match u64::try_from(*value) {
                Ok(value) if value <= ones(field.width.into()) => {
                    self.equal(*field, value, when, to);
                }
                // It never is.
                _ if when => {}
                _ => self.push(Op::Jump(to)),
            }
            return Some(());
        }
        let (a, b) = (self.exact(left)?, self.exact(right)?);
        let op = match (a, b) {
            (Value::Reg(reg), Value::Const(value)) | (Value::Const(value), Value::Reg(reg)) => {
                if when {
                    Op::IfConst(reg, value, to)
                } else {
                    Op::UnlessConst(reg, value, to)
                }
            }
            (a, b) => {
                let (a, b) = (self.reg(a)?, self.reg(b)?);
                if when {
                    Op::IfSame(a, b, to)
                } else {
                    Op::UnlessSame(a, b, to)
                }
            }
        };
        self.push(op);
        Some(())
    }

    /// Jumps if `(left < right) == when`.
    fn less(&mut self, left: &Expr, right: &Expr, when: bool, to: Label) -> Option<()> {
        // Less than a power of two: no bit from there on is set.
        let bits = match (left, right) {
            (Expr::Field(field), Expr::Const(limit)) => Some((field, *limit, when)),
            // value < field, that is, not field < value + 1.
            (Expr::Const(value), Expr::Field(field)) => {
                value.checked_add(1).map(|limit| (field, limit, !when))
            }
            _ => None,
        };
        if let Some((field, limit, when)) = bits
            && !field.signed
            && u64::try_from(limit).is_ok_and(u64::is_power_of_two)
            && let Some(above) = slice(*field, limit.trailing_zeros())
            && u32::from(above.width) + limit.trailing_zeros() == u32::from(field.width)
            && window(above).is_some()
        {
            self.equal(above, 0, when, to);
            return Some(());
        }
        let (a, b) = (self.exact(left)?, self.exact(right)?);
        let op = match (a, b) {
            (Value::Reg(reg), Value::Const(value)) => {
                if when {
                    Op::IfLessConst(reg, value, to)
                } else {
                    Op::UnlessLessConst(reg, value, to)
                }
            }
            // value < reg, that is, not reg < value + 1.
            (Value::Const(value), Value::Reg(reg)) if value < u64::MAX => {
                if when {
                    Op::UnlessLessConst(reg, value + 1, to)
                } else {
                    Op::IfLessConst(reg, value + 1, to)
                }
            }
            (a, b) => {
                let (a, b) = (self.reg(a)?, self.reg(b)?);
                if when {
                    Op::IfLess(a, b, to)
                } else {
                    Op::UnlessLess(a, b, to)
                }
            }
        };
        self.push(op);
        Some(())
    }

    /// Goes to `to` unless the header with this validity byte is valid.
    pub(super) fn unless_valid(&mut self, valid: usize, to: Label) {
        self.equal_one(valid as At, 0, true, to);
    }

    fn equal_one(&mut self, at: At, value: u8, when: bool, to: Label) {
        if when {
            self.push(Op::IfEqual1(at, u8::MAX, value, to));
        } else {
            self.unless_equal(at, &[u8::MAX], &[value], to);
        }
    }

    /// Jumps if `(field == value) == when`; the field has a window and is as wide as the value.
    pub(super) fn equal(&mut self, field: Field, value: u64, when: bool, to: Label) {
        let Some((size, at)) = window(field) else {
            return;
        };
        let (mask, value) = (
            ones(field.width.into()) << field.shift,
            value << field.shift,
        );
        if !when {
            let from = 8 - size.bytes();
            let (mask, value) = (mask.to_be_bytes(), value.to_be_bytes());
            let (mask, value) = (mask.get(from..), value.get(from..));
            self.unless_equal(at, mask.unwrap_or_default(), value.unwrap_or_default(), to);
            return;
        }
        // Numbers as a load in the machine's own byte order sees them.
        let two = |n: u64| (n as u16).to_be();
        let four = |n: u64| (n as u32).to_be();
        self.push(match size {
            Size::One => Op::IfEqual1(at, mask as u8, value as u8, to),
            Size::Two => Op::IfEqual2(at, two(mask), two(value), to),
            Size::Four => Op::IfEqual4(at, four(mask), four(value), to),
            Size::Eight => Op::IfEqual8(at, mask.to_be(), value.to_be(), to),
        });
    }

    /// Assigns to a field; none (and nothing done) if that has no operations.
    pub(super) fn set(&mut self, to: Field, from: &Expr) -> Option<()> {
        self.try_twice(|build| build.assign(to, from))
    }

    /// Does something that may run out of registers: then once more, with all of them.
    fn try_twice(&mut self, what: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        let mark = self.mark();
        for _ in 0..2 {
            if what(self).is_some() {
                return Some(());
            }
            self.rewind(&mark);
        }
        None
    }

    fn assign(&mut self, to: Field, from: &Expr) -> Option<()> {
        let aligned = |field: Field| field.shift == 0 && field.width.is_multiple_of(8);
        match from {
            Expr::Field(from) if from.width == to.width && aligned(to) && aligned(*from) => {
                self.copy_bytes(to.last, from.last, u32::from(to.width / 8));
                return Some(());
            }
            Expr::Field(from) if from.width == to.width && to.own > 0 && from.own == to.own => {
                self.copy_bytes(to.last, from.last, to.own.into());
                return Some(());
            }
            Expr::Const(value) if to.width <= 64 => {
                let value = *value as u64 & ones(to.width.into());
                return self.put_field(to, value);
            }
            _ => {}
        }
        if to.width > 64 {
            return None;
        }
        let mut from = from;
        // A mask that is as wide as the field, which is written whole.
        let exact = self
            .container(to)
            .is_none_or(|(size, _)| size.bytes() * 8 == usize::from(to.width));
        while let Expr::Binary(Binary::And, inner, mask) = from
            && let Expr::Const(mask) = **mask
            && exact
            && mask as u64 & ones(to.width.into()) == ones(to.width.into())
        {
            from = inner;
        }
        let (value, bits) = self.low(from, 0)?;
        let Value::Reg(mut reg) = value else {
            let Value::Const(value) = value else {
                return None;
            };
            return self.put_field(to, value & ones(to.width.into()));
        };
        let width = u32::from(to.width);
        match self.container(to) {
            Some((size, at)) => {
                if width < size.bytes() as u32 * 8 && bits.is_none_or(|bits| bits > width) {
                    reg = self.value(Pure::AndConst(reg, ones(width)))?;
                }
                self.store(size, at, reg);
            }
            None => {
                if to.width + u16::from(to.shift) > 64 {
                    return None;
                }
                self.mix(to, Op::StoreField(to, reg));
            }
        }
        Some(())
    }

    /// Bytes that hold nothing but the field.
    fn container(&self, field: Field) -> Option<(Size, At)> {
        let bytes = match field.own {
            0 if field.shift == 0 && field.width.is_multiple_of(8) => usize::from(field.width) / 8,
            own => own.into(),
        };
        let size = Size::of(bytes).filter(|size| size.bytes() == bytes)?;
        Some((size, field.last + 1 - bytes as u32))
    }

    fn put_field(&mut self, to: Field, value: u64) -> Option<()> {
        match self.container(to) {
            Some((size, at)) => {
                let bytes = value.to_be_bytes();
                self.put(at, bytes.get(8 - size.bytes()..)?);
            }
            None if to.width + u16::from(to.shift) <= 64 => {
                self.mix(to, Op::PutField(to, value));
            }
            None => return None,
        }
        Some(())
    }

    fn copy_bytes(&mut self, to_last: u32, from_last: u32, len: u32) {
        self.copy(to_last + 1 - len, from_last + 1 - len, len);
    }
}
