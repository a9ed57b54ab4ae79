//! Pipelines and actions as code.

use std::collections::{HashMap, HashSet};

use super::build::{Builder, Label};
use super::{At, Code, EMIT_HEADERS, Emit, Op, Targets};
use crate::exec::expr::{Expr, HeaderRef};
use crate::program::action::Instruction;
use crate::program::calculation::Checksum;
use crate::program::layout::PLACES;
use crate::program::table::Table;
use crate::program::{Node, Program};

/// A program whose code is longer than this runs in its written form.
const MAX_OPS: usize = 1 << 20;

/// Labels of [`Targets`] until the code is finished.
struct Pending {
    hit: Vec<Label>,
    miss: Vec<Label>,
    nothing: Label,
}

pub(super) struct Compiler<'p> {
    pub(super) program: &'p Program,
    pub(super) build: Builder,
    /// Where each node starts, once it is asked for, and which are still to be compiled.
    nodes: HashMap<usize, Label>,
    todo: Vec<usize>,
    done: HashSet<usize>,
    tables: HashMap<usize, Pending>,
    end: Label,
}

impl Code {
    /// The code of a program.
    pub(crate) fn new(program: &Program) -> Self {
        let mut compiler = Compiler {
            program,
            build: Builder::default(),
            nodes: HashMap::new(),
            todo: Vec::new(),
            done: HashSet::new(),
            tables: HashMap::new(),
            end: 0,
        };
        compiler.end = compiler.build.here();
        compiler.build.push(Op::End);
        let verify = compiler.checksums(&program.verify, Op::Verify);
        let update = compiler.checksums(&program.update, Op::Update);
        let (parser, states) = compiler.parser(verify);
        let ingress = program.ingress.map(|start| compiler.pipeline(start));
        let egress = program.egress.map(|start| compiler.pipeline(start));
        let pending = compiler.tables;
        let emit = emits(program);
        let (ops, place) = compiler.build.finish(0);
        let reached = program.layout.state_bytes <= PLACES;
        if ops.len() > MAX_OPS || !reached || loops(program) {
            return Self {
                emit,
                ..Self::default()
            };
        }
        let all = |labels: &[Label]| labels.iter().map(|l| place(*l)).collect();
        let tables = (0..program.tables.len()).map(|table| {
            pending
                .get(&table)
                .map_or_else(Targets::default, |found| Targets {
                    hit: all(&found.hit),
                    miss: all(&found.miss),
                    nothing: place(found.nothing),
                })
        });
        let mut code = Self {
            tables: tables.collect(),
            parser: parser.map(&place),
            verify: Some(place(verify)),
            accept: place(verify),
            update: Some(place(update)),
            states: states.into_iter().map(&place).collect(),
            ingress: ingress.map(&place),
            egress: egress.map(&place),
            whole: None,
            ops,
            emit,
        };
        code.specialise(program);
        code
    }
}

/// The headers of the frame, grouped.
fn emits(program: &Program) -> Vec<Emit> {
    let mut emits: Vec<Emit> = Vec::new();
    for index in &program.emit {
        let header = program.layout.headers.get(*index);
        let Some(header) = header.filter(|header| header.varbit.is_none()) else {
            emits.push(Emit::Header(*index));
            continue;
        };
        let part = (header.start, header.fixed_bytes);
        match emits.last_mut() {
            Some(Emit::Plain { valid, parts })
                if *valid + parts.len() == header.valid && parts.len() < EMIT_HEADERS =>
            {
                parts.push(part);
            }
            _ => emits.push(Emit::Plain {
                valid: header.valid,
                parts: vec![part],
            }),
        }
    }
    emits
}

/// Whether a packet could come back to a node that it has been to. p4c writes no such flow.
fn loops(program: &Program) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        Above,
        Done,
    }
    let mut seen = vec![Seen::No; program.nodes.len()];
    // Nodes on the way, each with the successors that are left.
    let mut way: Vec<(usize, Vec<usize>)> = Vec::new();
    for start in 0..program.nodes.len() {
        if seen.get(start) != Some(&Seen::No) {
            continue;
        }
        way.push((start, successors(program, start)));
        seen[start] = Seen::Above;
        while let Some((node, left)) = way.last_mut() {
            let Some(next) = left.pop() else {
                seen[*node] = Seen::Done;
                way.pop();
                continue;
            };
            match seen.get(next).copied() {
                Some(Seen::Above) => return true,
                Some(Seen::No) => {
                    seen[next] = Seen::Above;
                    way.push((next, successors(program, next)));
                }
                _ => {}
            }
        }
    }
    false
}

fn successors(program: &Program, node: usize) -> Vec<usize> {
    let next: Vec<Option<usize>> = match program.nodes.get(node) {
        None => Vec::new(),
        Some(Node::Condition { yes, no, .. }) => vec![*yes, *no],
        Some(Node::Call { next, .. }) => vec![*next],
        Some(Node::Table(table)) => match program.tables.get(*table) {
            None => Vec::new(),
            Some(table) => {
                let fixed = [table.next.hit.flatten(), table.next.miss.flatten()];
                let slots = table.next.by_slot.iter().copied();
                slots.chain(fixed).chain([table.next.base]).collect()
            }
        },
    };
    next.into_iter().flatten().collect()
}

impl Compiler<'_> {
    /// Handles each checksum whose condition holds and, if it is to be verified, whose header is
    /// there.
    fn checksums(&mut self, checksums: &[Checksum], handle: fn(u32) -> Op) -> Label {
        let label = self.build.here();
        for (index, checksum) in checksums.iter().enumerate() {
            let past = self.build.label();
            let op = handle(index as u32);
            if matches!(op, Op::Verify(_)) {
                self.build.unless_valid(checksum.valid, past);
            }
            if let Some(condition) = &checksum.condition {
                self.build.jump(condition, false, past);
            }
            self.build.push(op);
            self.build.bind(past);
        }
        self.build.push(Op::End);
        label
    }

    /// Compiles what can be reached from a node.
    fn pipeline(&mut self, start: usize) -> Label {
        let label = self.node(Some(start));
        while let Some(node) = self.todo.pop() {
            self.chain(node);
        }
        label
    }

    /// The label of a node, or of the end.
    fn node(&mut self, node: Option<usize>) -> Label {
        let Some(node) = node.filter(|node| *node < self.program.nodes.len()) else {
            return self.end;
        };
        *self.nodes.entry(node).or_insert_with(|| {
            self.todo.push(node);
            self.build.label()
        })
    }

    /// Compiles a node, and those after it as long as there is one that is not compiled yet.
    fn chain(&mut self, first: usize) {
        let mut node = Some(first);
        loop {
            let label = self.node(node);
            let Some(fresh) = node.filter(|node| !self.done.contains(node)) else {
                self.build.push(Op::Jump(label));
                return;
            };
            self.done.insert(fresh);
            self.build.bind(label);
            match self.compile(fresh) {
                Some(next) => node = next,
                None => return,
            }
        }
    }

    /// Compiles one node; returns which one comes next, or none if the code has gone there.
    fn compile(&mut self, node: usize) -> Option<Option<usize>> {
        let program = self.program;
        match program.nodes.get(node) {
            Some(Node::Condition {
                condition, yes, no, ..
            }) => {
                let otherwise = self.node(*no);
                self.build.jump(condition, false, otherwise);
                return Some(*yes);
            }
            Some(Node::Call { action, next }) => {
                self.action(*action);
                return Some(*next);
            }
            Some(Node::Table(index)) => {
                if let Some(table) = program.tables.get(*index) {
                    return self.table(*index, table);
                }
            }
            None => {}
        }
        self.build.push(Op::End);
        None
    }

    fn table(&mut self, index: usize, table: &Table) -> Option<Option<usize>> {
        if table.key.is_empty()
            && table.const_default
            && let Some(default) = &table.default
        {
            self.arguments(&default.args);
            if let Some(action) = table.actions.get(usize::from(default.slot)) {
                self.action(*action);
            }
            return Some(table.next.after(false, Some(default.slot)));
        }
        self.build.push(Op::Table(index as u32, index as u32));
        let slots = 0..table.actions.len() as u16;
        let mut code = |hit| {
            let labels = slots.clone().map(|slot| {
                let label = self.build.here();
                if let Some(action) = table.actions.get(usize::from(slot)) {
                    self.action(*action);
                }
                let next = self.node(table.next.after(hit, Some(slot)));
                self.build.push(Op::Jump(next));
                label
            });
            labels.collect::<Vec<_>>()
        };
        let hit = code(true);
        let same = table.next.hit.is_none() && table.next.miss.is_none();
        let miss = if same { hit.clone() } else { code(false) };
        let nothing = self.node(table.next.after(false, None));
        self.tables.insert(index, Pending { hit, miss, nothing });
        None
    }

    /// Puts a constant call's arguments where the action reads them.
    fn arguments(&mut self, args: &[u8]) {
        if !args.is_empty() {
            self.build.put(self.program.layout.args_start as At, args);
        }
    }

    fn action(&mut self, index: usize) {
        let Some(action) = self.program.actions.get(index) else {
            return;
        };
        let backward = action.code.iter().enumerate().any(|(at, i)| match i {
            Instruction::Jump(to) | Instruction::JumpIfZero(_, to) => *to <= at,
            _ => false,
        });
        if backward {
            self.build.push(Op::Run(index as u32));
            self.build.push(Op::EndIfExited);
            self.build.forget();
            return;
        }
        let mut labels: HashMap<usize, Label> = HashMap::new();
        for instruction in &action.code {
            if let Instruction::Jump(to) | Instruction::JumpIfZero(_, to) = instruction {
                labels.entry(*to).or_insert_with(|| self.build.label());
            }
        }
        for (at, instruction) in action.code.iter().enumerate() {
            if let Some(label) = labels.get(&at) {
                self.build.bind(*label);
            }
            let target = |to: &usize| labels.get(to).copied().unwrap_or(self.end);
            match instruction {
                Instruction::Jump(to) => {
                    let to = target(to);
                    self.build.push(Op::Jump(to));
                }
                Instruction::JumpIfZero(condition, to) => {
                    let to = target(to);
                    self.build.jump(condition, false, to);
                }
                _ if self.instruction(instruction) => {}
                _ => {
                    self.build.push(Op::Step(index as u32, at as u32));
                    self.build.forget();
                }
            }
        }
        if let Some(label) = labels.get(&action.code.len()) {
            self.build.bind(*label);
        }
        let exits = |i: &Instruction| matches!(i, Instruction::Exit | Instruction::Assert { .. });
        if action.code.iter().any(exits) {
            self.build.push(Op::EndIfExited);
        }
    }

    /// Compiles an instruction; false if it has no operations.
    pub(super) fn instruction(&mut self, instruction: &Instruction) -> bool {
        let op = match instruction {
            Instruction::Nothing => return true,
            Instruction::Set(to, from) => return self.build.set(*to, from).is_some(),
            Instruction::AddHeader(header) => self
                .plain(header)
                .map(|(start, len, valid)| Op::AddHeader { start, len, valid }),
            Instruction::RemoveHeader(header) => self
                .plain(header)
                .map(|(_, len, valid)| Op::RemoveHeader { len, valid }),
            Instruction::AssignHeader(to, from) => match (self.plain(to), self.plain(from)) {
                (Some(to), Some(from)) if to.1 == from.1 => Some(Op::AssignHeader {
                    to: (to.0, to.2),
                    from: (from.0, from.2),
                    len: to.1,
                }),
                _ => None,
            },
            Instruction::MarkToDrop => Some(Op::MarkToDrop),
            Instruction::Exit => Some(Op::Exit),
            Instruction::Hash {
                to,
                base: Expr::Const(base),
                calculation,
                size: Expr::Const(size),
            } => Some(Op::Hash {
                to: *to,
                base: *base as u64,
                size: (*size as u64).max(1),
                calculation: *calculation as u32,
            }),
            _ => None,
        };
        let Some(op) = op else {
            return false;
        };
        self.build.push(op);
        self.build.forget();
        true
    }

    /// Start, length and validity byte of a header without varbit, union and index.
    pub(super) fn plain(&self, header: &HeaderRef) -> Option<(At, u32, At)> {
        if header.element.is_some() {
            return None;
        }
        self.header(header.header)
    }

    pub(super) fn header(&self, index: usize) -> Option<(At, u32, At)> {
        let header = self.program.layout.headers.get(index)?;
        (header.varbit.is_none() && header.siblings.is_empty()).then_some((
            header.start as At,
            header.fixed_bytes as u32,
            header.valid as At,
        ))
    }
}
