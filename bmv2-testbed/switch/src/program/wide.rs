//! Compiles expressions over numbers of more than 128 bits.

use num_bigint::BigInt;
use serde_json::Value;

use super::error::{LoadError, at, unsupported};
use super::expr::{Expressions, MAX_DEPTH, Type};
use super::reference::{pair_of, str_of};
use crate::exec::expr::{Binary, Compare, Expr};
use crate::exec::wide::{Narrowed, Wide};
use crate::json::big_integer_of;

/// Counted for each change from narrow to wide numbers inside each other, on top of the nesting:
/// what is inside is compiled once more then.
const CHANGE_DEPTH: usize = 25;

impl Expressions<'_> {
    /// A number of any size.
    pub(crate) fn wide_number(&self, value: &Value) -> Result<Wide, LoadError> {
        self.wide(value, 0)
    }

    /// The low 128 bits of a number of any size.
    pub(super) fn low_bits(&self, value: &Value, depth: usize) -> Result<Expr, LoadError> {
        let number = self.wide(value, depth + CHANGE_DEPTH)?;
        Ok(Expr::Wide(Box::new(Narrowed::Low(number))))
    }

    /// Whether a number of any size is not zero.
    pub(super) fn is_not_zero(&self, value: &Value, depth: usize) -> Result<Expr, LoadError> {
        let number = self.wide(value, depth + CHANGE_DEPTH)?;
        Ok(Expr::Wide(Box::new(Narrowed::IsNotZero(number))))
    }

    /// A comparison of numbers of any size.
    pub(super) fn wide_comparison(
        &self,
        op: Compare,
        left: &Value,
        right: &Value,
        depth: usize,
    ) -> Result<Expr, LoadError> {
        let left = self.wide(left, depth + CHANGE_DEPTH)?;
        let right = self.wide(right, depth + CHANGE_DEPTH)?;
        Ok(Expr::Wide(Box::new(Narrowed::Compare(op, left, right))))
    }

    fn wide(&self, value: &Value, depth: usize) -> Result<Wide, LoadError> {
        if depth > MAX_DEPTH {
            return Err(unsupported("expression nested over 200 deep", self.place));
        }
        let inner = value.get("value").unwrap_or(&Value::Null);
        match str_of(value, "type").unwrap_or_default() {
            "expression" if inner.get("op").is_some() => self.wide_operation(value, depth + 1),
            "expression" => self.wide(inner, depth + 1),
            "hexstr" => {
                let text = inner
                    .as_str()
                    .ok_or_else(|| self.bad("a hexstr is not a string"))?;
                let number = big_integer_of(text).map_err(at(self.place))?;
                Ok(Wide::Const(number))
            }
            "field" | "local" | "runtime_data" => match self.varbit(value) {
                Some(varbit) => Ok(Wide::Varbit(varbit)),
                None => Ok(Wide::Field(self.field_ref(value)?)),
            },
            "stack_field" => {
                let (stack, name) = pair_of(inner).ok_or_else(|| self.bad("bad stack_field"))?;
                Ok(Wide::Element(self.last_element(stack, name)?))
            }
            _ => self.narrow_inside(value, depth),
        }
    }

    /// What is narrow whatever its operands: conditions, comparisons, stack sizes.
    fn narrow_inside(&self, value: &Value, depth: usize) -> Result<Wide, LoadError> {
        let (expr, kind) = self.compile(value, depth + CHANGE_DEPTH)?;
        let signed = matches!(kind, Type::Number(range) if range.is_signed());
        Ok(Wide::Narrow(expr, signed))
    }

    fn wide_operation(&self, value: &Value, depth: usize) -> Result<Wide, LoadError> {
        let operation = value.get("value").unwrap_or(&Value::Null);
        let op = str_of(operation, "op").ok_or_else(|| self.bad("an operator has no name"))?;
        let null = Value::Null;
        let left = operation.get("left").unwrap_or(&null);
        let right = operation.get("right").unwrap_or(&null);
        if matches!(op, "&" | ">>")
            && let Some(field) = self.as_slice(value)
        {
            return Ok(Wide::Field(field));
        }
        let binary = match op {
            "+" => Binary::Add,
            "-" => Binary::Subtract,
            "*" => Binary::Multiply,
            "/" => Binary::Divide,
            "%" => Binary::Modulo,
            "&" => Binary::And,
            "|" => Binary::Or,
            "^" => Binary::Xor,
            "<<" => Binary::ShiftLeft,
            ">>" => Binary::ShiftRight,
            "~" => return Ok(Wide::Not(Box::new(self.wide(right, depth)?))),
            "?" => {
                let condition = operation.get("cond").unwrap_or(&null);
                let condition = self.condition_at(condition, depth + CHANGE_DEPTH)?;
                let (yes, no) = (self.wide(left, depth)?, self.wide(right, depth)?);
                return Ok(Wide::Choice(Box::new((condition, yes, no))));
            }
            "two_comp_mod" | "sat_cast" | "usat_cast" => {
                let width = self.cast_width(op, right)?;
                let number = Box::new(self.wide(left, depth)?);
                return Ok(match op {
                    "two_comp_mod" => Wide::Wrap(width, number),
                    "sat_cast" => Wide::Saturate(width, number),
                    _ => Wide::SaturateUnsigned(width, number),
                });
            }
            "access_field" => return Ok(Wide::Element(self.access_field(operation)?)),
            _ => return self.narrow_inside(value, depth),
        };
        // Unary plus and minus have no left side.
        let left = if left.is_null() && matches!(op, "+" | "-") {
            Wide::Const(BigInt::ZERO)
        } else {
            self.wide(left, depth)?
        };
        let right = self.wide(right, depth)?;
        Ok(Wide::Binary(binary, Box::new(left), Box::new(right)))
    }
}
