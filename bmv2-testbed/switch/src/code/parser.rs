//! The parser as code.

use super::build::Label;
use super::control::Compiler;
use super::expr::{ones, window};
use super::{Case, Op, Pure, Reg};
use crate::bits::Field;
use crate::program::action::Instruction;
use crate::program::parser::{self, KeyPart, State, Test};

impl Compiler<'_> {
    /// Compiles all states, `accept` goes on to the checksums; returns where the parser starts
    /// and where each state does.
    pub(super) fn parser(&mut self, accept: Label) -> (Option<Label>, Vec<Label>) {
        let program = self.program;
        let states: Vec<_> = program
            .parser
            .states
            .iter()
            .map(|_| self.build.label())
            .collect();
        let loops = loops(&program.parser.states);
        for (index, state) in program.parser.states.iter().enumerate() {
            if let Some(label) = states.get(index) {
                self.build.bind(*label);
            }
            if loops {
                self.build.push(Op::Visit);
            }
            for (at, op) in state.ops.iter().enumerate() {
                if !self.parser_op(op) {
                    self.build.push(Op::ParserStep(index as u32, at as u32));
                    self.build.forget();
                }
            }
            let label = |next: Option<usize>| match next {
                None => accept,
                Some(next) => states.get(next).copied().unwrap_or(accept),
            };
            if state.key.is_empty() {
                self.build.push(Op::Jump(label(state.default)));
            } else if self.select(state, label).is_none() {
                self.build.push(Op::Select(index as u32));
            }
        }
        let start = program.parser.start.and_then(|s| states.get(s).copied());
        (start, states)
    }

    fn parser_op(&mut self, op: &parser::Op) -> bool {
        match op {
            parser::Op::Extract(header) => {
                let Some((to, len, valid)) = self.header(*header) else {
                    return false;
                };
                self.build.push(Op::Extract { to, len, valid });
                self.build.forget();
                true
            }
            parser::Op::SetFromPacket { to, offset, width } => {
                let whole = to.shift == 0 && to.width == *width && width % 8 == 0;
                if !whole || offset % 8 != 0 {
                    return false;
                }
                let len = u32::from(width / 8);
                self.build.push(Op::Peek {
                    to: to.last + 1 - len,
                    offset: (offset / 8) as u32,
                    len,
                });
                self.build.forget();
                true
            }
            // What may drop the packet is left to the written form.
            parser::Op::Run(Instruction::Exit | Instruction::MarkToDrop) => false,
            parser::Op::Run(instruction) => self.instruction(instruction),
            _ => false,
        }
    }

    /// Compiles a select whose key fits a register.
    fn select(&mut self, state: &State, label: impl Fn(Option<usize>) -> Label) -> Option<()> {
        let mut fields = Vec::new();
        for part in &state.key {
            match part {
                KeyPart::Field(field) if window(*field).is_some() => fields.push(*field),
                _ => return None,
            }
        }
        if fields.iter().map(|field| field.bytes()).sum::<usize>() > 8 {
            return None;
        }
        let mut cases = Vec::new();
        for case in &state.cases {
            let Test::Value { value, mask } = &case.test else {
                return None;
            };
            cases.push(Case {
                value: number(value)?,
                mask: number(mask)?,
                to: label(case.next),
            });
        }
        let default = label(state.default);
        // What every case asks of a field is asked once, and is not in the key.
        for position in (0..fields.len()).rev() {
            let bits = fields.iter().map(|f| f.bytes() as u32 * 8);
            let below: u32 = bits.skip(position + 1).sum();
            let field = *fields.get(position)?;
            let part = |number: u64| number >> below & ones(u32::from(field.width));
            let asked = |case: &Case| (part(case.value), part(case.mask));
            let Some((value, mask)) = cases.first().map(asked) else {
                break;
            };
            let whole = mask == ones(u32::from(field.width));
            if fields.len() == 1 || !whole || cases.iter().any(|c| asked(c) != (value, mask)) {
                continue;
            }
            self.build.equal(field, value, false, default);
            fields.remove(position);
            // The bits above move down.
            let gap = field.bytes() as u32 * 8;
            let close = |number: u64| {
                let above = number.checked_shr(below + gap).unwrap_or(0);
                above << below | number & ones(below)
            };
            for case in &mut cases {
                (case.value, case.mask) = (close(case.value), close(case.mask));
            }
        }
        let key = self.key(&fields)?;
        self.build
            .push(Op::Switch(key, cases.into_boxed_slice(), default));
        Some(())
    }

    /// The fields one after the other, each in whole bytes.
    fn key(&mut self, fields: &[Field]) -> Option<Reg> {
        let mut key: Option<Reg> = None;
        for field in fields {
            let plain = Field {
                signed: false,
                ..*field
            };
            let part = self.build.load(plain)?;
            key = Some(match key {
                None => part,
                Some(key) => {
                    let up = (field.bytes() * 8) as u8;
                    let above = self.build.value(Pure::ShiftLeft(key, up))?;
                    self.build.value(Pure::Or(above, part))?
                }
            });
        }
        key
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    let mut all = [0; 8];
    let from = all.len().checked_sub(bytes.len())?;
    all.get_mut(from..)?.copy_from_slice(bytes);
    Some(u64::from_be_bytes(all))
}

/// Whether a packet may visit more states than there are.
fn loops(states: &[State]) -> bool {
    let next = |state: usize| {
        let state = states.get(state);
        let cases = state.into_iter().flat_map(|s| &s.cases).map(|c| c.next);
        cases.chain(state.map(|s| s.default)).flatten()
    };
    // A state that leads to none that is left can be on no loop.
    let mut left: Vec<usize> = (0..states.len()).collect();
    loop {
        let before = left.len();
        let now = left.clone();
        left.retain(|state| next(*state).any(|to| now.contains(&to)));
        if left.len() == before {
            return before > 0;
        }
    }
}
