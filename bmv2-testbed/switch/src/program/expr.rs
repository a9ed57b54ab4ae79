//! Compiles expressions, and proves where 128 bits are enough.
//!
//! Each node gets a range (sign and bits). Sums, products, left shifts and bitwise operators are
//! right modulo 2^128 even when the true result is longer, which is all that a mask or a field
//! asks for. Comparisons, right shifts, divisions and saturating casts need the true value: over
//! an operand that may be longer they are computed without bounds (`program/wide.rs`). Slices and
//! copies of longer fields become plain field accesses.

use serde_json::Value;

use super::error::{LoadError, at, malformed, unsupported};
use super::layout::Layout;
use super::reference::{pair_of, str_of};
use crate::bits::{Field, MAX_VALUE_BITS};
use crate::exec::expr::{Binary, Compare, Element, Expr, HeaderRef, Sign};
use crate::json::{HexError, big_integer_of, integer_of};

/// How deep an expression may nest.
pub(super) const MAX_DEPTH: usize = 200;

/// More bits than that are not told apart, so that adding widths never overflows.
const MANY_BITS: u32 = 1 << 20;

/// What is known of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    signed: bool,
    /// Bits of the value, the sign included.
    bits: u32,
}

impl Range {
    const fn new(signed: bool, bits: u32) -> Self {
        let bits = if bits > MANY_BITS { MANY_BITS } else { bits };
        Self { signed, bits }
    }

    const fn unsigned(bits: u32) -> Self {
        Self::new(false, bits)
    }

    const fn signed(bits: u32) -> Self {
        Self::new(true, bits)
    }

    /// Bits as a signed number.
    fn signed_bits(self) -> u32 {
        if self.signed {
            self.bits
        } else {
            self.bits + 1
        }
    }

    pub(super) fn is_signed(self) -> bool {
        self.signed
    }

    /// Whether 128 bits hold every value.
    fn exact(self) -> bool {
        self.bits <= u32::from(MAX_VALUE_BITS)
    }
}

/// What an expression yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    Number(Range),
}

/// Compiles expressions in one context (an action with its arguments, or none).
#[derive(Clone, Copy)]
pub(crate) struct Expressions<'a> {
    pub(crate) layout: &'a Layout,
    /// The places of the action's arguments.
    pub(crate) args: &'a [Field],
    /// Where this stands, for messages.
    pub(crate) place: &'a str,
}

impl<'a> Expressions<'a> {
    /// A number, of which the low 128 bits are right.
    pub(crate) fn number(&self, value: &Value) -> Result<Expr, LoadError> {
        // bmv2 takes a boolean where a number is meant, as 0 or 1.
        self.compile(value, 0).map(|(expr, _)| expr)
    }

    /// A condition.
    pub(crate) fn condition(&self, value: &Value) -> Result<Expr, LoadError> {
        match self.compile(value, 0)? {
            (expr, Type::Bool) => Ok(expr),
            (expr, Type::Number(range)) if range.exact() => Ok(Expr::ToBool(Box::new(expr))),
            _ => self.is_not_zero(value, 0),
        }
    }

    pub(super) fn bad(&self, why: impl Into<String>) -> LoadError {
        malformed(self.place, why)
    }

    pub(super) fn compile(&self, value: &Value, depth: usize) -> Result<(Expr, Type), LoadError> {
        if depth > MAX_DEPTH {
            return Err(unsupported("expression nested over 200 deep", self.place));
        }
        let kind = str_of(value, "type").ok_or_else(|| self.bad("an expression has no type"))?;
        let inner = value.get("value").unwrap_or(&Value::Null);
        match kind {
            "expression" if inner.get("op").is_some() => self.operation(inner, depth + 1),
            "expression" => self.compile(inner, depth + 1),
            "bool" => {
                let value = inner
                    .as_bool()
                    .ok_or_else(|| self.bad("a bool is neither true nor false"))?;
                Ok((Expr::Const(i128::from(value)), Type::Bool))
            }
            "hexstr" => {
                let text = inner
                    .as_str()
                    .ok_or_else(|| self.bad("a hexstr is not a string"))?;
                let (constant, bits, negative) = match integer_of(text) {
                    Err(HexError::Wide(_)) => {
                        let bits = big_integer_of(text).map_or(0, |n| n.bits());
                        let bits = u32::try_from(bits).unwrap_or(MANY_BITS).saturating_add(1);
                        let range = Range::new(text.starts_with('-'), bits);
                        return Ok((self.low_bits(value, depth)?, Type::Number(range)));
                    }
                    other => other.map_err(at(self.place))?,
                };
                let range = if negative {
                    Range::signed(u32::from(bits) + 1)
                } else {
                    Range::unsigned(u32::from(bits))
                };
                Ok((Expr::Const(constant), Type::Number(range)))
            }
            "field" | "local" | "runtime_data" => {
                if self.varbit(value).is_some() {
                    let range = Range::unsigned(MANY_BITS);
                    return Ok((self.low_bits(value, depth)?, Type::Number(range)));
                }
                let field = self.field_ref(value)?;
                let expr = if field.width > MAX_VALUE_BITS {
                    self.low_bits(value, depth)?
                } else {
                    Expr::Field(field)
                };
                Ok((expr, Type::Number(range_of(field))))
            }
            "stack_field" => {
                let (stack, name) = pair_of(inner).ok_or_else(|| self.bad("bad stack_field"))?;
                let element = self.last_element(stack, name)?;
                self.element_number(element, value, depth)
            }
            other => Err(unsupported(
                format!("operand of type `{other}`"),
                self.place,
            )),
        }
    }

    fn operation(&self, operation: &Value, depth: usize) -> Result<(Expr, Type), LoadError> {
        let op = str_of(operation, "op").ok_or_else(|| self.bad("an operator has no name"))?;
        let null = Value::Null;
        let left = operation.get("left").unwrap_or(&null);
        let right = operation.get("right").unwrap_or(&null);
        let wrapped = serde_json::json!({"type": "expression", "value": operation});
        if matches!(op, "&" | ">>")
            && let Some(field) = self.as_slice(&wrapped)
            && field.width <= MAX_VALUE_BITS
        {
            return Ok((Expr::Field(field), Type::Number(range_of(field))));
        }
        match op {
            "valid" => {
                let header = self.header_ref(right)?;
                Ok((Expr::Valid(Box::new(header)), Type::Bool))
            }
            "valid_union" => self.valid_union(right),
            "not" => {
                let inner = self.condition_at(right, depth)?;
                Ok((Expr::Not(Box::new(inner)), Type::Bool))
            }
            "and" | "or" => {
                let left = Box::new(self.condition_at(left, depth)?);
                let right = Box::new(self.condition_at(right, depth)?);
                let expr = if op == "and" {
                    Expr::And(left, right)
                } else {
                    Expr::Or(left, right)
                };
                Ok((expr, Type::Bool))
            }
            "d2b" => {
                let inner = self.condition_at(right, depth)?;
                Ok((Expr::ToBool(Box::new(inner)), Type::Bool))
            }
            "b2d" => {
                let (inner, _) = self.compile(right, depth)?;
                Ok((inner, Type::Number(Range::unsigned(1))))
            }
            "~" => {
                let (inner, range) = self.number_at(right, depth)?;
                let range = Range::signed(range.signed_bits());
                Ok((Expr::BitNot(Box::new(inner)), Type::Number(range)))
            }
            "?" => self.choice(operation, left, right, depth),
            "==" | "!=" if self.is_header(left) => {
                let same = self.same_header(left, right)?;
                Ok((negate_if(op == "!=", same), Type::Bool))
            }
            "==" | "!=" | "<" | "<=" | ">" | ">=" => self.comparison(op, left, right, depth),
            "access_field" => {
                let element = self.access_field(operation)?;
                self.element_number(element, &wrapped, depth)
            }
            "last_stack_index" | "size_stack" => {
                let stack = str_of(right, "value").ok_or_else(|| self.bad("no stack"))?;
                let stack = self.layout.stack(stack, self.place)?;
                let stack = self.layout.stacks.get(stack);
                let stack = stack.ok_or_else(|| self.bad("no such stack"))?;
                let last = Expr::LastIndex(stack.next);
                if op == "size_stack" {
                    let one = Box::new(Expr::Const(1));
                    let size = Expr::Binary(Binary::Add, Box::new(last), one);
                    Ok((size, Type::Number(Range::unsigned(8))))
                } else {
                    Ok((last, Type::Number(Range::signed(9))))
                }
            }
            "two_comp_mod" | "sat_cast" | "usat_cast" => {
                self.cast(op, left, right, &wrapped, depth)
            }
            _ => self.arithmetic(op, left, right, &wrapped, depth),
        }
    }

    fn valid_union(&self, union: &Value) -> Result<(Expr, Type), LoadError> {
        let name = str_of(union, "value").ok_or_else(|| self.bad("a union has no name"))?;
        let members = self
            .layout
            .unions
            .iter()
            .find(|u| u.0 == name)
            .ok_or_else(|| self.bad(format!("unknown header union `{name}`")))?;
        let flags = members
            .1
            .iter()
            .filter_map(|m| self.layout.headers.get(*m).map(|h| h.valid))
            .collect();
        Ok((Expr::AnyValid(flags), Type::Bool))
    }

    /// A field of a stack element, at place `value` of the document.
    fn element_number(
        &self,
        element: Element,
        value: &Value,
        depth: usize,
    ) -> Result<(Expr, Type), LoadError> {
        let range = Type::Number(range_of(element.first));
        if element.first.width > MAX_VALUE_BITS {
            return Ok((self.low_bits(value, depth)?, range));
        }
        Ok((Expr::Element(Box::new(element)), range))
    }

    pub(super) fn condition_at(&self, value: &Value, depth: usize) -> Result<Expr, LoadError> {
        match self.compile(value, depth)? {
            (_, Type::Number(range)) if !range.exact() => self.is_not_zero(value, depth),
            (expr, _) => Ok(expr),
        }
    }

    fn number_at(&self, value: &Value, depth: usize) -> Result<(Expr, Range), LoadError> {
        match self.compile(value, depth)? {
            (expr, Type::Number(range)) => Ok((expr, range)),
            (expr, Type::Bool) => Ok((expr, Range::unsigned(1))),
        }
    }

    fn choice(
        &self,
        operation: &Value,
        left: &Value,
        right: &Value,
        depth: usize,
    ) -> Result<(Expr, Type), LoadError> {
        let condition = operation.get("cond").unwrap_or(&Value::Null);
        let condition = self.condition_at(condition, depth)?;
        let (yes, yes_type) = self.compile(left, depth)?;
        let (no, no_type) = self.compile(right, depth)?;
        let kind = match (yes_type, no_type) {
            (Type::Number(a), Type::Number(b)) => Type::Number(union(a, b)),
            (a, _) => a,
        };
        Ok((Expr::Choice(Box::new((condition, yes, no))), kind))
    }

    fn same_header(&self, left: &Value, right: &Value) -> Result<Expr, LoadError> {
        let (left, right) = (self.header_ref(left)?, self.header_ref(right)?);
        let header = |r: &HeaderRef| self.layout.headers.get(r.header);
        if header(&left).is_some_and(|h| h.varbit.is_some()) {
            return Err(unsupported("comparing headers with a varbit", self.place));
        }
        if header(&left).map(|h| h.kind) != header(&right).map(|h| h.kind) {
            return Err(self.bad("headers of different types are compared"));
        }
        Ok(Expr::SameHeader(Box::new((left, right))))
    }

    fn comparison(
        &self,
        op: &str,
        left: &Value,
        right: &Value,
        depth: usize,
    ) -> Result<(Expr, Type), LoadError> {
        let (left_expr, a) = self.number_at(left, depth)?;
        let (right_expr, b) = self.number_at(right, depth)?;
        let full = u32::from(MAX_VALUE_BITS);
        let sign = match (a.signed, b.signed) {
            (false, false) => Sign::Unsigned,
            (false, true) if a.bits == full => Sign::UnsignedSigned,
            (true, false) if b.bits == full => Sign::SignedUnsigned,
            _ => Sign::Signed,
        };
        let op = match op {
            "==" => Compare::Equal,
            "!=" => Compare::NotEqual,
            "<" => Compare::Less,
            "<=" => Compare::LessEqual,
            ">" => Compare::Greater,
            _ => Compare::GreaterEqual,
        };
        let expr = if a.exact() && b.exact() {
            Expr::Compare(op, sign, Box::new(left_expr), Box::new(right_expr))
        } else {
            self.wide_comparison(op, left, right, depth)?
        };
        Ok((expr, Type::Bool))
    }

    /// The width that a cast names.
    pub(super) fn cast_width(&self, op: &str, width: &Value) -> Result<u16, LoadError> {
        self.constant(width)
            .and_then(|w| u16::try_from(w).ok())
            .filter(|w| *w >= 1)
            .ok_or_else(|| self.bad(format!("`{op}` to no width")))
    }

    fn cast(
        &self,
        op: &str,
        left: &Value,
        right: &Value,
        whole: &Value,
        depth: usize,
    ) -> Result<(Expr, Type), LoadError> {
        let (inner, range) = self.number_at(left, depth)?;
        let width = self.cast_width(op, right)?;
        let inner = Box::new(inner);
        let bits = u32::from(width);
        let result = if op == "usat_cast" {
            Range::unsigned(bits)
        } else {
            Range::signed(bits)
        };
        let saturates = op != "two_comp_mod";
        let full = u32::from(MAX_VALUE_BITS);
        // Saturation takes a signed number of at most 128 bits.
        let too_wide = range.signed_bits() > full;
        let expr = match op {
            _ if bits > full || saturates && too_wide => self.low_bits(whole, depth)?,
            "two_comp_mod" => Expr::Wrap(width, inner),
            "sat_cast" => Expr::Saturate(width, inner),
            _ => Expr::SaturateUnsigned(width, inner),
        };
        Ok((expr, Type::Number(result)))
    }

    fn arithmetic(
        &self,
        op: &str,
        left: &Value,
        right: &Value,
        whole: &Value,
        depth: usize,
    ) -> Result<(Expr, Type), LoadError> {
        // Unary plus and minus have no left side.
        let (left_expr, a) = if left.is_null() && matches!(op, "+" | "-") {
            (Expr::Const(0), Range::unsigned(0))
        } else {
            self.number_at(left, depth)?
        };
        let constant = self.constant(right);
        let (right_expr, b) = self.number_at(right, depth)?;
        let both_unsigned = !a.signed && !b.signed;
        let longest = a.signed_bits().max(b.signed_bits());
        let exact = a.exact() && b.exact();
        let (binary, range) = match op {
            "+" if both_unsigned => (Binary::Add, Range::unsigned(a.bits.max(b.bits) + 1)),
            "+" => (Binary::Add, Range::signed(longest + 1)),
            "-" => (Binary::Subtract, Range::signed(longest + 1)),
            "*" if both_unsigned => (Binary::Multiply, Range::unsigned(a.bits + b.bits)),
            "*" => (
                Binary::Multiply,
                Range::signed(a.signed_bits() + b.signed_bits()),
            ),
            "/" | "%" if !exact || !both_unsigned => {
                // A quotient is no longer than what is divided, a remainder than the divisor.
                let range = Range::new(a.signed || b.signed, a.bits.max(b.bits) + 1);
                return Ok((self.low_bits(whole, depth)?, Type::Number(range)));
            }
            "/" => (Binary::Divide, a),
            "%" => (Binary::Modulo, Range::unsigned(a.bits.min(b.bits))),
            "&" => {
                let range = match (a.signed, b.signed) {
                    (false, false) => Range::unsigned(a.bits.min(b.bits)),
                    (false, true) => a,
                    (true, false) => b,
                    (true, true) => Range::signed(longest),
                };
                (Binary::And, range)
            }
            "|" | "^" => {
                let binary = if op == "|" { Binary::Or } else { Binary::Xor };
                let range = if both_unsigned {
                    Range::unsigned(a.bits.max(b.bits))
                } else {
                    Range::signed(longest)
                };
                (binary, range)
            }
            "<<" => {
                let grow = constant.map_or(u32::from(u16::MAX), |by| {
                    u32::try_from(by).unwrap_or(u32::from(u16::MAX))
                });
                let range = Range::new(a.signed, a.bits.saturating_add(grow));
                (Binary::ShiftLeft, range)
            }
            ">>" => {
                let by = constant.and_then(|by| u32::try_from(by).ok()).unwrap_or(0);
                let rest = a.bits.saturating_sub(by);
                if !exact {
                    let range = Range::new(a.signed, if a.signed { a.bits } else { rest });
                    return Ok((self.low_bits(whole, depth)?, Type::Number(range)));
                }
                if a.signed {
                    (Binary::ShiftRightSigned, a)
                } else {
                    (Binary::ShiftRight, Range::unsigned(rest))
                }
            }
            other => return Err(unsupported(format!("operator `{other}`"), self.place)),
        };
        let expr = match (&left_expr, &right_expr) {
            (Expr::Const(_), Expr::Const(_)) => {
                let folded = Expr::Binary(binary, Box::new(left_expr), Box::new(right_expr));
                Expr::Const(folded.eval(&[]))
            }
            _ => Expr::Binary(binary, Box::new(left_expr), Box::new(right_expr)),
        };
        Ok((expr, Type::Number(range)))
    }
}

fn negate_if(negate: bool, expr: Expr) -> Expr {
    if negate {
        Expr::Not(Box::new(expr))
    } else {
        expr
    }
}

fn union(a: Range, b: Range) -> Range {
    if a.signed || b.signed {
        Range::signed(a.signed_bits().max(b.signed_bits()))
    } else {
        Range::unsigned(a.bits.max(b.bits))
    }
}

fn range_of(field: Field) -> Range {
    Range {
        signed: field.signed,
        bits: u32::from(field.width),
    }
}
