//! Compiles parsers into state machines.

use std::collections::HashMap;

use serde_json::Value;

use super::action::{Instruction, Names, Primitives};
use super::error::{LoadError, at, malformed, unsupported};
use super::expr::Expressions;
use super::layout::{HeaderIndex, Layout};
use super::reference::{pair_of, str_of};
use crate::bits::{Field, MAX_VALUE_BITS};
use crate::exec::expr::{Element, Expr};
use crate::json::{self, bytes_of};

/// The longest select key, in bytes.
const MAX_KEY_BYTES: usize = 512;

/// A parser, ready to run.
#[derive(Debug)]
pub(crate) struct Parser {
    pub(crate) states: Vec<State>,
    /// None if the parser takes every packet as it is.
    pub(crate) start: Option<usize>,
}

/// One parser state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) ops: Vec<Op>,
    pub(crate) key: Vec<KeyPart>,
    pub(crate) cases: Vec<Case>,
    /// Where to go if no case matches; none accepts.
    pub(crate) default: Option<usize>,
}

/// What a state does on entry.
#[derive(Debug)]
pub(crate) enum Op {
    Extract(HeaderIndex),
    /// The length of the varbit, in bits.
    ExtractVarbit(HeaderIndex, Expr),
    /// Extracts the stack's next element.
    ExtractNext(usize),
    /// As [`Op::ExtractNext`], for stacks of headers with a varbit and of header unions.
    ExtractElement(Box<ExtractElement>),
    Advance(Expr),
    /// The packet's bits at an offset, into a field.
    SetFromPacket {
        to: Field,
        offset: usize,
        width: u16,
    },
    Verify {
        condition: Expr,
        error: Expr,
    },
    Run(Instruction),
}

/// Extracts a header into a stack's next element.
#[derive(Debug)]
pub(crate) struct ExtractElement {
    pub(crate) stack: usize,
    /// Which member of the union; 0 in a stack of headers.
    pub(crate) member: usize,
    /// Of the varbit, in bits.
    pub(crate) length: Option<Expr>,
}

/// A part of a select key.
#[derive(Debug)]
pub(crate) enum KeyPart {
    Field(Field),
    Element(Box<Element>),
    Lookahead { offset: usize, width: u16 },
}

impl KeyPart {
    /// Bytes of the key that the part takes.
    pub(crate) fn bytes(&self) -> usize {
        usize::from(self.width()).div_ceil(8)
    }

    /// In bits.
    pub(crate) fn width(&self) -> u16 {
        match self {
            Self::Field(field) => field.width,
            Self::Element(element) => element.first.width,
            Self::Lookahead { width, .. } => *width,
        }
    }
}

/// One case of a select.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) test: Test,
    /// None accepts.
    pub(crate) next: Option<usize>,
}

/// What a select key is compared with.
#[derive(Debug)]
pub(crate) enum Test {
    /// The value is stored masked.
    Value { value: Box<[u8]>, mask: Box<[u8]> },
    /// The members of a value set, by its index.
    Set(usize),
}

/// Compiles one parser.
pub(crate) fn compile(
    parser: &json::Parser,
    layout: &Layout,
    names: &Names,
) -> Result<Parser, LoadError> {
    let mut index = HashMap::new();
    for (i, state) in parser.parse_states.iter().enumerate() {
        if index.insert(state.name.as_str(), i).is_some() {
            return Err(LoadError::Duplicate {
                what: "parser state",
                name: state.name.clone(),
            });
        }
    }
    let find = |name: &Option<String>| match name {
        None => Ok(None),
        Some(name) => {
            index
                .get(name.as_str())
                .map(|i| Some(*i))
                .ok_or_else(|| LoadError::Unknown {
                    what: "parser state",
                    name: name.clone(),
                    place: format!("parser {}", parser.name),
                })
        }
    };
    let mut states = Vec::new();
    for state in &parser.parse_states {
        let place = format!("parser state {}", state.name);
        let compiler = StateCompiler {
            primitives: Primitives {
                expressions: Expressions {
                    layout,
                    args: &[],
                    place: &place,
                },
                names,
            },
        };
        states.push(compiler.compile(state, &find)?);
    }
    Ok(Parser {
        start: find(&parser.init_state)?,
        states,
    })
}

struct StateCompiler<'a> {
    primitives: Primitives<'a>,
}

impl StateCompiler<'_> {
    fn place(&self) -> &str {
        self.primitives.expressions.place
    }

    fn layout(&self) -> &Layout {
        self.primitives.expressions.layout
    }

    fn bad(&self, why: impl Into<String>) -> LoadError {
        malformed(self.place(), why)
    }

    fn compile(
        &self,
        state: &json::ParseState,
        find: &impl Fn(&Option<String>) -> Result<Option<usize>, LoadError>,
    ) -> Result<State, LoadError> {
        let mut ops = Vec::new();
        for op in &state.parser_ops {
            ops.push(self.op(op)?);
        }
        let mut key = Vec::new();
        for part in &state.transition_key {
            key.push(self.key_part(part)?);
        }
        let key_bytes: usize = key.iter().map(KeyPart::bytes).sum();
        if key_bytes > MAX_KEY_BYTES {
            return Err(unsupported("select key over 512 bytes", self.place()));
        }
        let mut cases = Vec::new();
        let mut default = None;
        for transition in &state.transitions {
            let next = find(&transition.next_state)?;
            match (transition.kind.as_deref(), transition.value.as_deref()) {
                (Some("default"), _) | (None, Some("default") | None) => {
                    // As in bmv2, cases after a default still count; the last default wins.
                    default = next;
                }
                (Some("parse_vset"), name) => {
                    if transition.mask.is_some() {
                        return Err(unsupported("mask on a value set", self.place()));
                    }
                    let name = name.unwrap_or_default();
                    let set = self.primitives.names.value_sets.get(name);
                    let set = set.ok_or_else(|| LoadError::Unknown {
                        what: "value set",
                        name: name.to_owned(),
                        place: self.place().to_owned(),
                    })?;
                    cases.push(Case {
                        test: Test::Set(*set),
                        next,
                    });
                }
                (_, Some(value)) => {
                    let place = self.place();
                    let mask = match &transition.mask {
                        None => vec![0xff; key_bytes],
                        Some(mask) => bytes_of(mask, key_bytes).map_err(at(place))?,
                    };
                    let mut value = bytes_of(value, key_bytes).map_err(at(place))?;
                    for (value, mask) in value.iter_mut().zip(&mask) {
                        *value &= mask;
                    }
                    cases.push(Case {
                        test: Test::Value {
                            value: value.into(),
                            mask: mask.into(),
                        },
                        next,
                    });
                }
                (_, None) => return Err(self.bad("a transition has no value")),
            }
        }
        Ok(State {
            name: state.name.clone(),
            ops,
            key,
            cases,
            default,
        })
    }

    fn key_part(&self, part: &Value) -> Result<KeyPart, LoadError> {
        let inner = part.get("value").unwrap_or(&Value::Null);
        match str_of(part, "type") {
            Some("field") => {
                let field = self.primitives.expressions.field_ref(part)?;
                Ok(KeyPart::Field(field))
            }
            Some("stack_field") => {
                let (stack, field) =
                    pair_of(inner).ok_or_else(|| self.bad("a stack field has no name"))?;
                let element = self.primitives.expressions.last_element(stack, field)?;
                Ok(KeyPart::Element(Box::new(element)))
            }
            Some("union_stack_field") => {
                let element = self.primitives.expressions.last_union(inner)?;
                Ok(KeyPart::Element(Box::new(element)))
            }
            Some("lookahead") => {
                let (offset, width) = self.lookahead(inner)?;
                Ok(KeyPart::Lookahead { offset, width })
            }
            Some(other) => Err(unsupported(
                format!("select key of type `{other}`"),
                self.place(),
            )),
            None => Err(self.bad("a select key has no type")),
        }
    }

    fn lookahead(&self, value: &Value) -> Result<(usize, u16), LoadError> {
        let number = |i: usize| value.get(i).and_then(Value::as_u64);
        match (number(0), number(1)) {
            (Some(offset), Some(width)) if offset <= 1 << 16 && (1..=2048).contains(&width) => {
                Ok((offset as usize, width as u16))
            }
            _ => Err(self.bad("a lookahead is not an offset and a width")),
        }
    }

    fn op(&self, op: &json::ParserOp) -> Result<Op, LoadError> {
        let expressions = &self.primitives.expressions;
        let param = |i: usize| {
            op.parameters
                .get(i)
                .ok_or_else(|| self.bad(format!("`{}` lacks an argument", op.op)))
        };
        match op.op.as_str() {
            "extract" => self.extract(param(0)?, None),
            "extract_VL" => self.extract(param(0)?, Some(param(1)?)),
            "set" => self.set(param(0)?, param(1)?),
            "verify" => Ok(Op::Verify {
                condition: expressions.condition(param(0)?)?,
                error: expressions.number(param(1)?)?,
            }),
            "shift" => {
                let bytes = param(0)?
                    .as_u64()
                    .or_else(|| param(0).ok()?.get("value")?.as_u64());
                let bytes = bytes.ok_or_else(|| self.bad("shift without a number"))?;
                Ok(Op::Advance(Expr::Const(i128::from(bytes) * 8)))
            }
            "advance" => Ok(Op::Advance(expressions.number(param(0)?)?)),
            "primitive" => {
                let call = param(0)?;
                let name = str_of(call, "op").ok_or_else(|| self.bad("a call has no name"))?;
                let empty = Vec::new();
                let params = call.get("parameters").and_then(Value::as_array);
                let instruction = self.primitives.compile(name, params.unwrap_or(&empty))?;
                if matches!(
                    instruction,
                    Instruction::Jump(_) | Instruction::JumpIfZero(..)
                ) {
                    return Err(unsupported("jump in a parser", self.place()));
                }
                Ok(Op::Run(instruction))
            }
            other => Err(unsupported(
                format!("parser operation `{other}`"),
                self.place(),
            )),
        }
    }

    fn extract(&self, target: &Value, length: Option<&Value>) -> Result<Op, LoadError> {
        let value = target.get("value").unwrap_or(&Value::Null);
        let names = match str_of(target, "type") {
            Some("union_stack") => pair_of(value),
            _ => value.as_str().map(|name| (name, "")),
        };
        let (name, member) = names.ok_or_else(|| self.bad("no header to extract"))?;
        let layout = self.layout();
        let mut found = None;
        let header = match str_of(target, "type").unwrap_or_default() {
            "regular" => layout.header(name, self.place())?,
            "stack" | "union_stack" => {
                let index = layout.stack(name, self.place())?;
                let (stack, member) = layout.member(index, member, self.place())?;
                found = Some((index, member));
                stack.first + member
            }
            kind => {
                return Err(unsupported(format!("extracting to `{kind}`"), self.place()));
            }
        };
        let varbit = layout.headers.get(header).and_then(|h| h.varbit);
        let length = match (length, varbit) {
            (None, None) => None,
            (Some(length), Some(_)) => Some(self.primitives.expressions.number(length)?),
            (None, Some(_)) => {
                return Err(self.bad(format!("{name} is extracted without its varbit's length")));
            }
            (Some(_), None) => return Err(self.bad(format!("{name} has no varbit"))),
        };
        Ok(match (found, length) {
            (None, None) => Op::Extract(header),
            (None, Some(length)) => Op::ExtractVarbit(header, length),
            (Some((stack, 0)), None)
                if layout.stacks.get(stack).is_some_and(|s| s.members == 1) =>
            {
                Op::ExtractNext(stack)
            }
            (Some((stack, member)), length) => Op::ExtractElement(Box::new(ExtractElement {
                stack,
                member,
                length,
            })),
        })
    }

    fn set(&self, to: &Value, from: &Value) -> Result<Op, LoadError> {
        let to = self.primitives.expressions.field_ref(to)?;
        if str_of(from, "type") == Some("lookahead") {
            let (offset, width) = self.lookahead(from.get("value").unwrap_or(&Value::Null))?;
            if width > to.width && to.width > MAX_VALUE_BITS {
                return Err(unsupported("lookahead longer than its field", self.place()));
            }
            return Ok(Op::SetFromPacket { to, offset, width });
        }
        Ok(Op::Run(self.primitives.assign_to(to, from)?))
    }
}
