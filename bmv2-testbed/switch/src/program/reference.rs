//! What expressions refer to: fields and slices of them, headers, stack elements.

use serde_json::Value;

use super::error::{LoadError, unsupported};
use super::expr::Expressions;
use super::layout::Varbit;
use crate::bits::Field;
use crate::exec::expr::{Element, Expr, HeaderRef};
use crate::json::{integer_of, low_ones};

/// How deep references may nest.
const MAX_DEPTH: usize = 200;

impl Expressions<'_> {
    /// The field that a `field`, `local` or `runtime_data` object names, of any width.
    pub(crate) fn field_ref(&self, value: &Value) -> Result<Field, LoadError> {
        let inner = value.get("value").unwrap_or(&Value::Null);
        match str_of(value, "type") {
            Some("field") => {
                let (header, field) =
                    pair_of(inner).ok_or_else(|| self.bad("a field is not a pair of names"))?;
                self.layout.field(header, field, self.place)
            }
            Some("local" | "runtime_data") => inner
                .as_u64()
                .and_then(|i| self.args.get(usize::try_from(i).ok()?))
                .copied()
                .ok_or_else(|| self.bad("an action has no such argument")),
            _ => Err(self.bad("a field was expected")),
        }
    }

    /// The field meant by `value`, if it is nothing but a field or a slice of one.
    pub(crate) fn as_slice(&self, value: &Value) -> Option<Field> {
        let inner = value.get("value")?;
        match str_of(value, "type")? {
            "field" | "local" | "runtime_data" => self.field_ref(value).ok(),
            "expression" if inner.get("op").is_none() => self.as_slice(inner),
            "expression" => {
                let left = inner.get("left")?;
                let right = inner.get("right")?;
                let field = self.as_slice(left)?;
                if field.signed {
                    return None;
                }
                match str_of(inner, "op")? {
                    ">>" => {
                        let by = u16::try_from(self.constant(right)?).ok();
                        Some(shifted(field, by.filter(|by| *by < field.width)?))
                    }
                    "&" => {
                        let ones = low_ones(hex_text(right)?)?;
                        let whole = field.width <= ones;
                        Some(Field {
                            width: field.width.min(ones),
                            own: if whole { field.own } else { 0 },
                            ..field
                        })
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The value of a constant.
    pub(super) fn constant(&self, value: &Value) -> Option<i128> {
        integer_of(hex_text(value)?).ok().map(|n| n.0)
    }

    /// The last element pushed to a stack.
    pub(crate) fn last_element(&self, stack: &str, field: &str) -> Result<Element, LoadError> {
        let stack = self.layout.stack(stack, self.place)?;
        let stack = self
            .layout
            .stacks
            .get(stack)
            .ok_or_else(|| self.bad("no such stack"))?;
        let first = self
            .layout
            .field_of(stack.first, field)
            .ok_or_else(|| unsupported(format!("stack field `{field}`"), self.place))?;
        Ok(Element {
            first,
            stride: stack.stride,
            len: stack.len,
            index: Expr::LastIndex(stack.next),
        })
    }

    /// A field of a member of the last union pushed to a stack: stack, member and field by name.
    pub(crate) fn last_union(&self, names: &Value) -> Result<Element, LoadError> {
        let name = |i: usize| names.get(i).and_then(Value::as_str);
        let (Some(stack), Some(member), Some(field)) = (name(0), name(1), name(2)) else {
            return Err(self.bad("a union stack's field is not three names"));
        };
        let stack = self.layout.stack(stack, self.place)?;
        let (stack, member) = self.layout.member(stack, member, self.place)?;
        let first = self.layout.field_of(stack.first + member, field);
        Ok(Element {
            first: first.ok_or_else(|| self.bad(format!("unknown field `{field}`")))?,
            stride: stack.stride,
            len: stack.len,
            index: Expr::LastIndex(stack.next),
        })
    }

    /// A header, or an element of a stack.
    pub(crate) fn header_ref(&self, value: &Value) -> Result<HeaderRef, LoadError> {
        self.header_ref_at(value, 0)
    }

    fn header_ref_at(&self, value: &Value, depth: usize) -> Result<HeaderRef, LoadError> {
        if depth > MAX_DEPTH {
            return Err(unsupported("expression nested over 200 deep", self.place));
        }
        let inner = value.get("value").unwrap_or(&Value::Null);
        match str_of(value, "type") {
            Some("header") => {
                let name = inner
                    .as_str()
                    .ok_or_else(|| self.bad("a header has no name"))?;
                let index = self.layout.header(name, self.place)?;
                self.plain(index, None)
            }
            Some("expression") => match str_of(inner, "op") {
                None => self.header_ref_at(inner, depth + 1),
                Some("dereference_header_stack") => {
                    let stack = inner
                        .get("left")
                        .filter(|l| str_of(l, "type") == Some("header_stack"))
                        .and_then(|l| str_of(l, "value"))
                        .ok_or_else(|| self.bad("a stack was expected"))?;
                    let stack = self.layout.stack(stack, self.place)?;
                    let stack = self
                        .layout
                        .stacks
                        .get(stack)
                        .ok_or_else(|| self.bad("no such stack"))?;
                    let index = inner
                        .get("right")
                        .ok_or_else(|| self.bad("a stack index is missing"))?;
                    let index = self.number(index)?;
                    self.plain(stack.first, Some((stack.len, stack.stride, index)))
                }
                Some(op) => Err(unsupported(format!("header operator `{op}`"), self.place)),
            },
            Some(other) => Err(unsupported(
                format!("operand of type `{other}` where a header is meant"),
                self.place,
            )),
            None => Err(self.bad("a header was expected")),
        }
    }

    fn plain(
        &self,
        index: usize,
        element: Option<(usize, usize, Expr)>,
    ) -> Result<HeaderRef, LoadError> {
        let header = self
            .layout
            .headers
            .get(index)
            .ok_or_else(|| self.bad("no such header"))?;
        Ok(HeaderRef {
            header: index,
            valid: header.valid,
            start: header.start,
            bytes: header.fixed_bytes,
            element,
        })
    }

    /// The field of a stack element chosen at run time (`access_field`), if `value` is one.
    pub(crate) fn element(&self, value: &Value) -> Option<Result<Element, LoadError>> {
        let inner = value.get("value")?;
        match str_of(value, "type")? {
            "expression" if inner.get("op").is_none() => self.element(inner),
            "expression" if str_of(inner, "op") == Some("access_field") => {
                Some(self.access_field(inner))
            }
            "stack_field" => {
                let (stack, name) = pair_of(inner)?;
                Some(self.last_element(stack, name))
            }
            _ => None,
        }
    }

    pub(super) fn access_field(&self, operation: &Value) -> Result<Element, LoadError> {
        let left = operation
            .get("left")
            .ok_or_else(|| self.bad("access_field without a header"))?;
        let header = self.header_ref(left)?;
        let position = operation
            .get("right")
            .and_then(Value::as_u64)
            .and_then(|p| usize::try_from(p).ok())
            .ok_or_else(|| self.bad("access_field without a position"))?;
        let first = self
            .layout
            .field_at(header.header, position)
            .ok_or_else(|| unsupported(format!("access to field {position}"), self.place))?;
        let (len, stride, index) = header.element.unwrap_or((1, 0, Expr::Const(0)));
        Ok(Element {
            first,
            stride,
            len,
            index,
        })
    }

    pub(super) fn is_header(&self, value: &Value) -> bool {
        match str_of(value, "type") {
            Some("header") => true,
            Some("expression") => {
                value
                    .get("value")
                    .is_some_and(|inner| match str_of(inner, "op") {
                        Some(op) => op == "dereference_header_stack",
                        None => inner.get("type").is_some() && self.is_header(inner),
                    })
            }
            _ => false,
        }
    }

    /// The varbit that a `field` object names, if it is one.
    pub(super) fn varbit(&self, value: &Value) -> Option<Varbit> {
        let (header, field) = pair_of(value.get("value")?)?;
        let index = self.layout.header(header, self.place).ok()?;
        let header = self.layout.headers.get(index)?;
        header
            .varbit
            .filter(|_| self.layout.is_varbit(index, field))
    }
}

/// The text of a `hexstr`, wrapped or not.
fn hex_text(value: &Value) -> Option<&str> {
    let inner = value.get("value")?;
    match str_of(value, "type")? {
        "hexstr" => inner.as_str(),
        "expression" if inner.get("op").is_none() => hex_text(inner),
        _ => None,
    }
}

/// The field without its lowest `by` bits.
fn shifted(field: Field, by: u16) -> Field {
    let low = u32::from(field.shift) + u32::from(by);
    Field {
        last: field.last - low / 8,
        shift: (low % 8) as u8,
        width: field.width - by,
        signed: false,
        own: if by == 0 { field.own } else { 0 },
    }
}

/// A member that is a string.
pub(crate) fn str_of<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

/// A pair of strings.
pub(crate) fn pair_of(value: &Value) -> Option<(&str, &str)> {
    Some((value.get(0)?.as_str()?, value.get(1)?.as_str()?))
}
