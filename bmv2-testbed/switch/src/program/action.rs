//! Compiles actions into instruction lists.

use std::collections::HashMap;

use serde_json::Value;

use super::error::{LoadError, malformed, unsupported};
use super::expr::Expressions;
use super::layout::Layout;
use super::reference::{pair_of, str_of};
use crate::bits::{Field, MAX_VALUE_BITS};
use crate::exec::expr::{Element, Expr, HeaderRef};
use crate::exec::wide::Wide;
use crate::json;

/// An action, ready to run.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) name: String,
    /// Name and width in bits of each parameter.
    pub(crate) params: Vec<(String, u16)>,
    /// Bytes that the arguments take, each padded to whole bytes.
    pub(crate) args_bytes: usize,
    pub(crate) code: Vec<Instruction>,
}

/// One step of an action. Indices are into the program's arrays.
#[derive(Debug)]
pub(crate) enum Instruction {
    Set(Field, Expr),
    /// Copies between fields of any width, extended with zeros.
    Copy {
        to: Field,
        from: Field,
    },
    /// A constant for a field of more than 128 bits.
    SetBytes(Field, Box<[u8]>),
    SetElement(Box<Element>, Expr),
    AddHeader(HeaderRef),
    RemoveHeader(HeaderRef),
    AssignHeader(HeaderRef, HeaderRef),
    /// Header by header, of two unions or stacks; the stacks' counters are copied too.
    AssignHeaders(Vec<(HeaderRef, HeaderRef)>, Option<(usize, usize)>),
    /// Copies a varbit's value: to, from (header indices).
    AssignVarbit(usize, usize),
    Push(usize, Expr),
    Pop(usize, Expr),
    MarkToDrop,
    Count {
        counter: usize,
        index: Expr,
    },
    Meter {
        meter: usize,
        index: Expr,
        to: Field,
    },
    ReadRegister {
        register: usize,
        index: Expr,
        to: Field,
    },
    WriteRegister {
        register: usize,
        index: Expr,
        value: Expr,
    },
    Hash {
        to: Field,
        base: Expr,
        calculation: usize,
        size: Expr,
    },
    Random {
        to: Field,
        low: Expr,
        high: Expr,
    },
    Digest(u32),
    CloneIngress {
        session: Expr,
        list: u32,
    },
    CloneEgress {
        session: Expr,
        list: u32,
    },
    Resubmit(u32),
    Recirculate(u32),
    Truncate(Expr),
    Log {
        text: String,
        values: Vec<Wide>,
    },
    Assert {
        condition: Expr,
        place: String,
    },
    /// A step with numbers of more than 128 bits.
    Wide(Box<WideStep>),
    Exit,
    Jump(usize),
    JumpIfZero(Expr, usize),
    Nothing,
}

/// Steps with numbers of more than 128 bits.
#[derive(Debug)]
pub(crate) enum WideStep {
    Set(Field, Wide),
    SetElement(Element, Wide),
    ReadRegister {
        register: usize,
        index: Expr,
        to: Field,
    },
    WriteRegister {
        register: usize,
        index: Expr,
        value: Wide,
    },
}

/// The names that actions refer to.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) counters: HashMap<String, usize>,
    pub(crate) meters: HashMap<String, usize>,
    pub(crate) registers: HashMap<String, usize>,
    /// Of each register array, in bits.
    pub(crate) register_widths: Vec<u16>,
    pub(crate) calculations: HashMap<String, usize>,
    pub(crate) value_sets: HashMap<String, usize>,
}

/// Compiles one action of the document.
pub(crate) fn compile(
    action: &json::Action,
    layout: &Layout,
    names: &Names,
) -> Result<Action, LoadError> {
    let mut args = Vec::new();
    let mut at = layout.args_start;
    let mut params = Vec::new();
    for datum in &action.runtime_data {
        let width = u16::try_from(datum.bitwidth)
            .ok()
            .filter(|w| *w >= 1)
            .ok_or_else(|| {
                malformed(
                    format!("action {}", action.name),
                    format!("parameter {} is {} bits wide", datum.name, datum.bitwidth),
                )
            })?;
        let bytes = usize::from(width).div_ceil(8);
        args.push(Field::at(
            (at + bytes) * 8 - usize::from(width),
            width,
            false,
        ));
        params.push((datum.name.clone(), width));
        at += bytes;
    }
    let mut code = Vec::new();
    for primitive in &action.primitives {
        let place = place_of(primitive, &format!("action {}", action.name));
        let compiler = Primitives {
            expressions: Expressions {
                layout,
                args: &args,
                place: &place,
            },
            names,
        };
        code.push(compiler.compile(&primitive.op, &primitive.parameters)?);
    }
    for instruction in &code {
        if let Instruction::Jump(to) | Instruction::JumpIfZero(_, to) = instruction
            && *to > code.len()
        {
            return Err(malformed(
                format!("action {}", action.name),
                "a jump leaves the action",
            ));
        }
    }
    Ok(Action {
        name: action.name.clone(),
        params,
        args_bytes: at - layout.args_start,
        code,
    })
}

/// "primitive `op` (file:line) of …".
fn place_of(primitive: &json::Primitive, of: &str) -> String {
    match &primitive.source_info {
        Some(source) if !source.filename.is_empty() => {
            format!(
                "primitive `{}` of {of} ({}:{})",
                primitive.op, source.filename, source.line
            )
        }
        _ => format!("primitive `{}` of {of}", primitive.op),
    }
}

/// Compiles primitives, of actions and of parser states.
pub(crate) struct Primitives<'a> {
    pub(crate) expressions: Expressions<'a>,
    pub(crate) names: &'a Names,
}

impl Primitives<'_> {
    fn place(&self) -> &str {
        self.expressions.place
    }

    fn bad(&self, why: impl Into<String>) -> LoadError {
        malformed(self.place(), why)
    }

    fn number(&self, params: &[Value], index: usize) -> Result<Expr, LoadError> {
        self.expressions.number(self.param(params, index)?)
    }

    fn param<'v>(&self, params: &'v [Value], index: usize) -> Result<&'v Value, LoadError> {
        params
            .get(index)
            .ok_or_else(|| self.bad(format!("argument {index} is missing")))
    }

    fn list(&self, params: &[Value], index: usize) -> Result<u32, LoadError> {
        match self.number(params, index)? {
            Expr::Const(id) => {
                u32::try_from(id).map_err(|_| self.bad("a field list's id is out of range"))
            }
            _ => Err(unsupported("field list chosen at run time", self.place())),
        }
    }

    fn named(
        &self,
        params: &[Value],
        index: usize,
        of: &HashMap<String, usize>,
        what: &'static str,
    ) -> Result<usize, LoadError> {
        let name = str_of(self.param(params, index)?, "value")
            .ok_or_else(|| self.bad(format!("{what} has no name")))?;
        of.get(name).copied().ok_or_else(|| LoadError::Unknown {
            what,
            name: name.to_owned(),
            place: self.place().to_owned(),
        })
    }

    fn field(&self, params: &[Value], index: usize) -> Result<Field, LoadError> {
        self.expressions.field_ref(self.param(params, index)?)
    }

    fn is_wide_register(&self, register: usize) -> bool {
        let width = self.names.register_widths.get(register);
        width.is_some_and(|width| *width > MAX_VALUE_BITS)
    }

    fn read_register(&self, params: &[Value]) -> Result<Instruction, LoadError> {
        let to = self.field(params, 0)?;
        let register = self.named(params, 1, &self.names.registers, "register array")?;
        let index = self.number(params, 2)?;
        Ok(
            if self.is_wide_register(register) || to.width > MAX_VALUE_BITS {
                Instruction::Wide(Box::new(WideStep::ReadRegister {
                    register,
                    index,
                    to,
                }))
            } else {
                Instruction::ReadRegister {
                    register,
                    index,
                    to,
                }
            },
        )
    }

    fn write_register(&self, params: &[Value]) -> Result<Instruction, LoadError> {
        let register = self.named(params, 0, &self.names.registers, "register array")?;
        let index = self.number(params, 1)?;
        Ok(if self.is_wide_register(register) {
            let value = self.expressions.wide_number(self.param(params, 2)?)?;
            Instruction::Wide(Box::new(WideStep::WriteRegister {
                register,
                index,
                value,
            }))
        } else {
            Instruction::WriteRegister {
                register,
                index,
                value: self.number(params, 2)?,
            }
        })
    }

    /// Compiles one primitive.
    pub(crate) fn compile(&self, op: &str, params: &[Value]) -> Result<Instruction, LoadError> {
        let header = |index| self.expressions.header_ref(self.param(params, index)?);
        Ok(match op {
            // The compiler writes `set` in deparsers.
            "assign" | "modify_field" | "set" => self.assign(params)?,
            "add_header" | "add_header_fast" => Instruction::AddHeader(header(0)?),
            "remove_header" => Instruction::RemoveHeader(header(0)?),
            "assign_header" | "copy_header" => self.assign_header(header(0)?, header(1)?)?,
            "assign_header_stack" | "assign_union_stack" => self.assign_stack(params)?,
            "assign_union" => self.assign_union(params)?,
            "assign_VL" => self.assign_varbit(params)?,
            "push" => Instruction::Push(self.stack(params)?, self.number(params, 1)?),
            "pop" => Instruction::Pop(self.stack(params)?, self.number(params, 1)?),
            "mark_to_drop" | "drop" => Instruction::MarkToDrop,
            "count" => Instruction::Count {
                counter: self.named(params, 0, &self.names.counters, "counter array")?,
                index: self.number(params, 1)?,
            },
            "execute_meter" => Instruction::Meter {
                meter: self.named(params, 0, &self.names.meters, "meter array")?,
                index: self.number(params, 1)?,
                to: self.field(params, 2)?,
            },
            "register_read" => self.read_register(params)?,
            "register_write" => self.write_register(params)?,
            "modify_field_with_hash_based_offset" => Instruction::Hash {
                to: self.field(params, 0)?,
                base: self.number(params, 1)?,
                calculation: self.named(params, 2, &self.names.calculations, "calculation")?,
                size: self.number(params, 3)?,
            },
            "modify_field_rng_uniform" => Instruction::Random {
                to: self.field(params, 0)?,
                low: self.number(params, 1)?,
                high: self.number(params, 2)?,
            },
            "generate_digest" => Instruction::Digest(self.list(params, 1)?),
            "clone_ingress_pkt_to_egress" => Instruction::CloneIngress {
                session: self.number(params, 0)?,
                list: self.list(params, 1)?,
            },
            "clone_egress_pkt_to_egress" => Instruction::CloneEgress {
                session: self.number(params, 0)?,
                list: self.list(params, 1)?,
            },
            "resubmit" => Instruction::Resubmit(self.list(params, 0)?),
            "recirculate" => Instruction::Recirculate(self.list(params, 0)?),
            "truncate" => Instruction::Truncate(self.number(params, 0)?),
            "log_msg" => self.log(params)?,
            "assert" | "assume" => Instruction::Assert {
                condition: self.expressions.condition(self.param(params, 0)?)?,
                place: self.place().to_owned(),
            },
            "exit" => Instruction::Exit,
            "no_op" => Instruction::Nothing,
            "_jump" => Instruction::Jump(self.target(params, 0)?),
            "_jump_if_zero" => {
                let condition = self.expressions.condition(self.param(params, 0)?)?;
                Instruction::JumpIfZero(condition, self.target(params, 1)?)
            }
            other => return Err(unsupported(format!("primitive `{other}`"), self.place())),
        })
    }

    fn target(&self, params: &[Value], index: usize) -> Result<usize, LoadError> {
        match self.number(params, index)? {
            Expr::Const(to) => {
                usize::try_from(to).map_err(|_| self.bad("a jump's target is out of range"))
            }
            _ => Err(unsupported("jump to a computed target", self.place())),
        }
    }

    fn stack(&self, params: &[Value]) -> Result<usize, LoadError> {
        let name = str_of(self.param(params, 0)?, "value")
            .ok_or_else(|| self.bad("a stack has no name"))?;
        self.expressions.layout.stack(name, self.place())
    }

    fn assign(&self, params: &[Value]) -> Result<Instruction, LoadError> {
        let to = self.param(params, 0)?;
        let from = self.param(params, 1)?;
        if let Some(element) = self.expressions.element(to) {
            let element = element?;
            if element.first.width > MAX_VALUE_BITS {
                let value = self.expressions.wide_number(from)?;
                return Ok(Instruction::Wide(Box::new(WideStep::SetElement(
                    element, value,
                ))));
            }
            return Ok(Instruction::SetElement(
                Box::new(element),
                self.expressions.number(from)?,
            ));
        }
        self.assign_to(self.expressions.field_ref(unwrap(to))?, from)
    }

    /// Assigns to a field of any width.
    pub(crate) fn assign_to(&self, to: Field, from: &Value) -> Result<Instruction, LoadError> {
        if let Some(source) = self.expressions.as_slice(from)
            && (to.width > MAX_VALUE_BITS || source.width > MAX_VALUE_BITS)
            && (!source.signed || to.width <= source.width)
        {
            return Ok(Instruction::Copy { to, from: source });
        }
        if to.width <= MAX_VALUE_BITS {
            return Ok(Instruction::Set(to, self.expressions.number(from)?));
        }
        let inner = unwrap(from);
        if str_of(inner, "type") == Some("hexstr")
            && let Some(text) = str_of(inner, "value")
            && let Ok(bytes) = json::bytes_of(text, to.bytes())
        {
            return Ok(Instruction::SetBytes(to, bytes.into()));
        }
        let value = self.expressions.wide_number(from)?;
        Ok(Instruction::Wide(Box::new(WideStep::Set(to, value))))
    }

    fn assign_header(&self, to: HeaderRef, from: HeaderRef) -> Result<Instruction, LoadError> {
        let kind = |r: &HeaderRef| {
            let header = self.expressions.layout.headers.get(r.header);
            header.map(|h| h.kind)
        };
        if kind(&to) != kind(&from) {
            return Err(self.bad("headers of different types are assigned"));
        }
        Ok(Instruction::AssignHeader(to, from))
    }

    fn fixed(&self, header: usize) -> Result<HeaderRef, LoadError> {
        let layout = self.expressions.layout;
        let found = layout.headers.get(header);
        let found = found.ok_or_else(|| self.bad("no such header"))?;
        Ok(HeaderRef {
            header,
            valid: found.valid,
            start: found.start,
            bytes: found.fixed_bytes,
            element: None,
        })
    }

    fn pairs(
        &self,
        to: &[usize],
        from: &[usize],
    ) -> Result<Vec<(HeaderRef, HeaderRef)>, LoadError> {
        if to.len() != from.len() {
            return Err(self.bad("the sides differ in length"));
        }
        to.iter()
            .zip(from)
            .map(|(to, from)| Ok((self.fixed(*to)?, self.fixed(*from)?)))
            .collect()
    }

    fn assign_stack(&self, params: &[Value]) -> Result<Instruction, LoadError> {
        let layout = self.expressions.layout;
        let find = |index| {
            let name = str_of(self.param(params, index)?, "value")
                .ok_or_else(|| self.bad("a stack has no name"))?;
            let stack = layout.stack(name, self.place())?;
            layout
                .stacks
                .get(stack)
                .ok_or_else(|| self.bad("no such stack"))
        };
        let (to, from) = (find(0)?, find(1)?);
        let members =
            |s: &super::layout::Stack| (s.first..s.first + s.len * s.members).collect::<Vec<_>>();
        let pairs = self.pairs(&members(to), &members(from))?;
        Ok(Instruction::AssignHeaders(
            pairs,
            Some((to.next, from.next)),
        ))
    }

    fn assign_union(&self, params: &[Value]) -> Result<Instruction, LoadError> {
        let find = |index| {
            let name = str_of(self.param(params, index)?, "value")
                .ok_or_else(|| self.bad("a union has no name"))?;
            let unions = &self.expressions.layout.unions;
            unions
                .iter()
                .find(|u| u.0 == name)
                .ok_or_else(|| self.bad(format!("unknown header union `{name}`")))
        };
        let pairs = self.pairs(&find(0)?.1, &find(1)?.1)?;
        Ok(Instruction::AssignHeaders(pairs, None))
    }

    fn assign_varbit(&self, params: &[Value]) -> Result<Instruction, LoadError> {
        let find = |index| {
            let value = unwrap(self.param(params, index)?);
            let (header, field) = value
                .get("value")
                .and_then(pair_of)
                .ok_or_else(|| self.bad("a varbit field was expected"))?;
            let layout = self.expressions.layout;
            let header = layout.header(header, self.place())?;
            if layout.is_varbit(header, field) {
                Ok(header)
            } else {
                Err(self.bad("a varbit field was expected"))
            }
        };
        Ok(Instruction::AssignVarbit(find(0)?, find(1)?))
    }

    fn log(&self, params: &[Value]) -> Result<Instruction, LoadError> {
        let text = str_of(self.param(params, 0)?, "value")
            .ok_or_else(|| self.bad("log_msg without a text"))?
            .to_owned();
        let values = params.get(1).and_then(|p| p.get("value"));
        let values = values
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let values = values
            .iter()
            .map(|v| self.expressions.wide_number(v))
            .collect::<Result<_, _>>()?;
        Ok(Instruction::Log { text, values })
    }
}

/// Takes the wrapping `expression` objects without an operator off.
fn unwrap(value: &Value) -> &Value {
    let mut value = value;
    while str_of(value, "type") == Some("expression")
        && let Some(inner) = value.get("value")
        && inner.get("op").is_none()
        && inner.get("type").is_some()
    {
        value = inner;
    }
    value
}
