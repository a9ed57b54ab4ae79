//! The compiled program: what p4c's JSON becomes when it is loaded.
//!
//! Names are resolved to indices and fields to places once, here; a construct that the switch
//! does not execute is refused here, by name. What runs packets is [`crate::exec`], what tables
//! hold at run time is [`crate::state`].

pub(crate) mod action;
pub(crate) mod calculation;
mod check;
pub(crate) mod error;
pub(crate) mod expr;
pub(crate) mod layout;
pub(crate) mod parser;
pub(crate) mod reference;
pub(crate) mod source;
mod standard;
pub(crate) mod table;
pub(crate) mod value_set;
mod wide;

use std::collections::HashMap;

use action::{Action, Instruction, Names, Primitives};
use calculation::{Calculation, Checksum, Input};
use error::{LoadError, malformed, unsupported};
use expr::Expressions;
use layout::{HeaderIndex, Layout, MAX_FIELD_BITS};
use parser::Parser;
use source::Sources;
pub(crate) use standard::Standard;
use standard::Used;
use table::{Context, Table};
use value_set::ValueSet;

use crate::bits::{Field, MAX_VALUE_BITS};
use crate::code::Code;
use crate::exec::expr::Expr;
use crate::exec::may_take_turns;
use crate::hash::Algorithm;
use crate::json;

/// A whole program.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) layout: Layout,
    pub(crate) actions: Vec<Action>,
    pub(crate) parser: Parser,
    pub(crate) value_sets: Vec<ValueSet>,
    pub(crate) nodes: Vec<Node>,
    /// First nodes; none if the pipeline is empty.
    pub(crate) ingress: Option<usize>,
    pub(crate) egress: Option<usize>,
    pub(crate) tables: Vec<Table>,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) counters: Vec<Array>,
    pub(crate) meters: Vec<Array>,
    pub(crate) registers: Vec<Array>,
    pub(crate) calculations: Vec<Calculation>,
    pub(crate) verify: Vec<Checksum>,
    pub(crate) update: Vec<Checksum>,
    pub(crate) deparser: Vec<Instruction>,
    pub(crate) emit: Vec<HeaderIndex>,
    pub(crate) field_lists: HashMap<u32, Vec<Field>>,
    /// Name and fields of each digest, by id.
    pub(crate) digests: HashMap<u32, (String, Vec<Field>)>,
    pub(crate) errors: Errors,
    pub(crate) standard: Standard,
    /// What packets run that nobody traces.
    pub(crate) code: Code,
    /// Whether packets may take turns in running it.
    pub(crate) takes_turns: bool,
    /// Metadata fields, zeroed when a packet starts over.
    pub(crate) metadata: Vec<(usize, usize)>,
    pub(crate) sources: Sources,
}

/// A node of a control flow. `None` ends the pipeline.
#[derive(Debug)]
pub(crate) enum Node {
    Table(usize),
    Condition {
        name: String,
        condition: Expr,
        yes: Option<usize>,
        no: Option<usize>,
    },
    Call {
        action: usize,
        next: Option<usize>,
    },
}

/// A counter, meter or register array.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) name: String,
    pub(crate) size: usize,
    /// For a meter: whether it counts bytes rather than packets.
    pub(crate) bytes: bool,
    /// For a register: its width in bits.
    pub(crate) width: u16,
}

impl Array {
    /// Whether a register's cells take more than 128 bits.
    pub(crate) fn is_wide(&self) -> bool {
        self.width > MAX_VALUE_BITS
    }
}

/// An action profile or selector.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) max_size: usize,
    pub(crate) selector: Option<(Algorithm, Vec<Input>)>,
}

/// The core library's errors, as numbered by the compiler.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    pub(crate) none: u32,
    pub(crate) packet_too_short: u32,
    pub(crate) stack_out_of_bounds: u32,
    pub(crate) header_too_short: u32,
    pub(crate) invalid_argument: u32,
    /// Names, for traces.
    pub(crate) names: HashMap<u32, String>,
}

impl Program {
    /// Compiles the JSON text.
    pub(crate) fn load(text: &[u8]) -> Result<Self, LoadError> {
        let failed = |e: serde_json::Error| LoadError::Json(e.to_string());
        let doc: json::Document = serde_json::from_slice(text).map_err(failed)?;
        let used = Used::of(&serde_json::from_slice(text).map_err(failed)?);
        Self::compile(&doc, &used)
    }

    fn compile(doc: &json::Document, used: &Used) -> Result<Self, LoadError> {
        if let Some(meta) = &doc.meta
            && meta.version.first().is_some_and(|major| *major != 2)
        {
            return Err(unsupported(
                format!("format version {:?}", meta.version),
                "__meta__",
            ));
        }
        if let Some(instance) = doc.extern_instances.first() {
            return Err(unsupported("extern instance", &instance.name));
        }
        check::check(doc)?;
        let layout = Layout::compile(doc)?;
        let (counters, meters, registers) = arrays(doc)?;
        let index = |arrays: &[Array]| {
            let pairs = arrays.iter().enumerate();
            pairs.map(|(i, a)| (a.name.clone(), i)).collect()
        };
        let names = Names {
            counters: index(&counters),
            meters: index(&meters),
            registers: index(&registers),
            register_widths: registers.iter().map(|r| r.width).collect(),
            calculations: doc
                .calculations
                .iter()
                .enumerate()
                .map(|(i, c)| (c.name.clone(), i))
                .collect(),
            value_sets: doc
                .parse_vsets
                .iter()
                .enumerate()
                .map(|(i, s)| (s.name.clone(), i))
                .collect(),
        };
        let mut actions = Vec::new();
        let mut action_by_id = HashMap::new();
        for item in &doc.actions {
            action_by_id.insert(item.id, actions.len());
            actions.push(action::compile(item, &layout, &names)?);
        }
        let parser = match doc.parsers.as_slice() {
            [one] => {
                named("parser", &one.name)?;
                parser::compile(one, &layout, &names)?
            }
            [] => return Err(malformed("parsers", "there is none")),
            [_, second, ..] => return Err(unsupported("second parser", &second.name)),
        };
        let value_sets = value_set::compile(doc, &parser)?;
        let calculations = calculation::calculations(doc, &layout)?;
        let (verify, update) = calculation::checksums(doc, &layout, &names.calculations)?;
        let (emit, deparser) = deparser(doc, &layout, &names)?;
        let field_lists = calculation::field_lists(&doc.field_lists, &layout)?;
        let mut digests = HashMap::new();
        for list in &doc.learn_lists {
            let fields = calculation::field_lists(std::slice::from_ref(list), &layout)?;
            for (id, fields) in fields {
                digests.insert(id, (list.name.clone(), fields));
            }
        }
        let profiles = profiles(doc, &layout)?;
        let control = Control {
            doc,
            layout: &layout,
            actions: &actions,
            action_by_id: &action_by_id,
            meters: &meters,
            profiles: &profiles,
        };
        let (nodes, tables, ingress, egress) = control.compile()?;
        let metadata = layout.headers.iter().filter(|h| h.metadata);
        let metadata = metadata.map(|h| (h.start, h.fixed_bytes)).collect();
        let mut program = Self {
            standard: Standard::compile(doc, &layout, used)?,
            code: Code::default(),
            takes_turns: false,
            errors: Errors::compile(doc),
            sources: Sources::collect(doc),
            metadata,
            layout,
            actions,
            parser,
            value_sets,
            nodes,
            ingress,
            egress,
            tables,
            profiles,
            counters,
            meters,
            registers,
            calculations,
            verify,
            update,
            deparser,
            emit,
            field_lists,
            digests,
        };
        program.code = Code::new(&program);
        program.takes_turns = may_take_turns(&program);
        Ok(program)
    }
}

/// simple_switch finds parser, deparser and pipelines by their names, and crashes without them.
fn named(expected: &str, name: &str) -> Result<(), LoadError> {
    if name == expected {
        return Ok(());
    }
    Err(unsupported(
        format!("{expected} named `{name}`"),
        format!("simple_switch runs the one named `{expected}`"),
    ))
}

fn size_of(size: Option<u64>, direct: bool, name: &str) -> Result<usize, LoadError> {
    match size {
        _ if direct => Ok(0),
        // Checked before: there is room for all.
        Some(size) => Ok(size as usize),
        None => Err(malformed(name, "it has no size")),
    }
}

type Arrays = (Vec<Array>, Vec<Array>, Vec<Array>);

fn arrays(doc: &json::Document) -> Result<Arrays, LoadError> {
    let mut counters = Vec::new();
    for counter in &doc.counter_arrays {
        counters.push(Array {
            name: counter.name.clone(),
            size: size_of(
                counter.size,
                counter.is_direct,
                &json::placed(&counter.name, counter.source_info.as_ref()),
            )?,
            bytes: false,
            width: 64,
        });
    }
    let mut meters = Vec::new();
    for meter in &doc.meter_arrays {
        if meter.rate_count.is_some_and(|rates| rates != 2) {
            let place = json::placed(&meter.name, meter.source_info.as_ref());
            return Err(unsupported("meter without two rates", place));
        }
        meters.push(Array {
            name: meter.name.clone(),
            size: size_of(
                meter.size,
                meter.is_direct,
                &json::placed(&meter.name, meter.source_info.as_ref()),
            )?,
            bytes: meter.unit == "bytes",
            width: 2,
        });
    }
    let mut registers = Vec::new();
    for register in &doc.register_arrays {
        let place = json::placed(&register.name, register.source_info.as_ref());
        let width = register.bitwidth.and_then(|w| u16::try_from(w).ok());
        let width = width
            .filter(|w| (1..=MAX_FIELD_BITS).contains(&u64::from(*w)))
            .ok_or_else(|| unsupported("register of other than 1 to 2048 bits", &place))?;
        registers.push(Array {
            name: register.name.clone(),
            size: size_of(register.size, false, &place)?,
            bytes: false,
            width,
        });
    }
    Ok((counters, meters, registers))
}

fn deparser(
    doc: &json::Document,
    layout: &Layout,
    names: &Names,
) -> Result<(Vec<HeaderIndex>, Vec<Instruction>), LoadError> {
    let [deparser] = doc.deparsers.as_slice() else {
        return Err(malformed("deparsers", "there is not exactly one"));
    };
    named("deparser", &deparser.name)?;
    let place = format!("deparser {}", deparser.name);
    let mut emit = Vec::new();
    for name in &deparser.order {
        emit.push(layout.header(name, &place)?);
    }
    let mut code = Vec::new();
    for primitive in &deparser.primitives {
        let compiler = Primitives {
            expressions: Expressions {
                layout,
                args: &[],
                place: &place,
            },
            names,
        };
        // As in a parser, the call may be wrapped in an operation named `primitive`.
        let call = primitive
            .get("parameters")
            .and_then(|p| p.get(0))
            .filter(|_| reference::str_of(primitive, "op") == Some("primitive"))
            .unwrap_or(primitive);
        let op =
            reference::str_of(call, "op").ok_or_else(|| malformed(&place, "a call has no name"))?;
        let params = call.get("parameters").and_then(serde_json::Value::as_array);
        code.push(compiler.compile(op, params.unwrap_or(&Vec::new()))?);
    }
    Ok((emit, code))
}

fn profiles(doc: &json::Document, layout: &Layout) -> Result<Vec<Profile>, LoadError> {
    let mut out = Vec::new();
    for profile in doc.pipelines.iter().flat_map(|p| &p.action_profiles) {
        let name = format!("action profile {}", profile.name);
        let place = json::placed(name, profile.source_info.as_ref());
        let selector = match &profile.selector {
            None => None,
            Some(selector) => {
                let (input, payload) = calculation::inputs(layout, &selector.input, &place)?;
                if payload {
                    return Err(unsupported("payload in a selector", &place));
                }
                Some((calculation::algorithm(&selector.algo, &place)?, input))
            }
        };
        out.push(Profile {
            name: profile.name.clone(),
            max_size: usize::try_from(profile.max_size.unwrap_or(1024)).unwrap_or(usize::MAX),
            selector,
        });
    }
    Ok(out)
}

struct Control<'a> {
    doc: &'a json::Document,
    layout: &'a Layout,
    actions: &'a [Action],
    action_by_id: &'a HashMap<u32, usize>,
    meters: &'a [Array],
    profiles: &'a [Profile],
}

type Flow = (Vec<Node>, Vec<Table>, Option<usize>, Option<usize>);

impl Control<'_> {
    fn compile(&self) -> Result<Flow, LoadError> {
        // Nodes are numbered first, since they refer to each other in any order.
        let mut index = HashMap::new();
        let mut count = 0;
        for pipeline in &self.doc.pipelines {
            let tables = pipeline.tables.iter().map(|t| &t.name);
            let conditions = pipeline.conditionals.iter().map(|c| &c.name);
            let calls = pipeline.action_calls.iter().map(|c| &c.name);
            for name in tables.chain(conditions).chain(calls) {
                if index.insert(name.clone(), count).is_some() {
                    return Err(LoadError::Duplicate {
                        what: "control node",
                        name: name.clone(),
                    });
                }
                count += 1;
            }
        }
        let meters = self.doc.meter_arrays.iter().enumerate().map(|(i, m)| {
            let target = m.result_target.as_ref().map(|(header, field)| {
                self.layout
                    .field(header, field, &format!("meter array {}", m.name))
            });
            Ok((m.name.clone(), (i, target.transpose()?)))
        });
        let meters = meters.collect::<Result<HashMap<_, _>, LoadError>>()?;
        debug_assert_eq!(meters.len(), self.meters.len());
        let profiles = self.profiles.iter().enumerate();
        let profiles = profiles.map(|(i, p)| (p.name.clone(), i)).collect();
        let context = Context {
            layout: self.layout,
            actions: self.actions,
            action_by_id: self.action_by_id,
            nodes: &index,
            profiles: &profiles,
            meters: &meters,
        };
        let (mut nodes, mut tables) = (Vec::new(), Vec::new());
        let (mut ingress, mut egress) = (None, None);
        for pipeline in &self.doc.pipelines {
            let start = self.target(&pipeline.init_table, &index, &pipeline.name)?;
            match pipeline.name.as_str() {
                "ingress" => ingress = start,
                "egress" => egress = start,
                // Checked before: there is no other.
                _ => continue,
            }
            for table in &pipeline.tables {
                nodes.push(Node::Table(tables.len()));
                tables.push(context.table(table)?);
            }
            for condition in &pipeline.conditionals {
                let name = format!("condition {}", condition.name);
                let place = json::placed(name, condition.source_info.as_ref());
                let expressions = Expressions {
                    layout: self.layout,
                    args: &[],
                    place: &place,
                };
                nodes.push(Node::Condition {
                    name: condition.name.clone(),
                    condition: expressions.condition(&condition.expression)?,
                    yes: self.target(&condition.true_next, &index, &place)?,
                    no: self.target(&condition.false_next, &index, &place)?,
                });
            }
            for call in &pipeline.action_calls {
                let place = format!("action call {}", call.name);
                let action = self.action_by_id.get(&call.action_id);
                nodes.push(Node::Call {
                    action: *action.ok_or_else(|| malformed(&place, "there is no such action"))?,
                    next: self.target(&call.next_node, &index, &place)?,
                });
            }
        }
        Ok((nodes, tables, ingress, egress))
    }

    fn target(
        &self,
        name: &Option<String>,
        index: &HashMap<String, usize>,
        place: &str,
    ) -> Result<Option<usize>, LoadError> {
        match name {
            None => Ok(None),
            Some(name) => match index.get(name) {
                Some(node) => Ok(Some(*node)),
                None => Err(LoadError::Unknown {
                    what: "control node",
                    name: name.clone(),
                    place: place.to_owned(),
                }),
            },
        }
    }
}

impl Errors {
    fn compile(doc: &json::Document) -> Self {
        let find = |name: &str, or: u32| {
            let found = doc.errors.iter().find(|e| e.0 == name);
            found.map_or(or, |e| e.1)
        };
        Self {
            none: find("NoError", 0),
            packet_too_short: find("PacketTooShort", 1),
            stack_out_of_bounds: find("StackOutOfBounds", 3),
            header_too_short: find("HeaderTooShort", 4),
            invalid_argument: find("ParserInvalidArgument", 6),
            names: doc.errors.iter().map(|e| (e.1, e.0.clone())).collect(),
        }
    }
}
