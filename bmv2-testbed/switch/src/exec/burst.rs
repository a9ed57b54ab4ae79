//! Runs packets side by side through ingress.
//!
//! An entry of a large table is in no cache, and a packet that looks it up does nothing until it
//! has come from memory. So the packets of a burst all run up to such a table, their entries are
//! fetched together, and then they go on. After ingress each packet is finished in turn: frames
//! leave in the order in which they came.

use super::traffic::Outcome;
use super::{Context, Packet, Sink, Worker};
use crate::code::{At, Op};
use crate::program::Program;
use crate::program::action::Instruction;
use crate::program::parser;

/// Packets side by side at most: their entries and states stay in the nearest caches.
const PACKETS: usize = 32;

/// A packet and where its ingress goes on; nowhere if it is done.
pub(crate) struct Halted {
    packet: Box<Packet>,
    at: Option<At>,
}

/// Whether packets may take turns: not without code, and not if one can leave something for the next in a register.
pub(crate) fn may_take_turns(program: &Program) -> bool {
    let keeps = |instruction: &Instruction| {
        matches!(
            instruction,
            Instruction::ReadRegister { .. } | Instruction::WriteRegister { .. }
        )
    };
    let mut actions = program.actions.iter().flat_map(|action| &action.code);
    let mut parser = program.parser.states.iter().flat_map(|state| &state.ops);
    program.code.ingress.is_some()
        && !actions.any(keeps)
        && !parser.any(|op| matches!(op, parser::Op::Run(i) if keeps(i)))
}

impl Worker {
    /// Runs frames, and all that comes of them, to completion.
    pub(crate) fn process_burst<'f>(
        &mut self,
        context: &mut Context<'_>,
        port: u32,
        frames: &mut impl Iterator<Item = &'f [u8]>,
        sink: &mut impl Sink,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let ingress = context.program.code.ingress;
        let mut halted = std::mem::take(&mut self.halted);
        loop {
            for frame in frames.by_ref().take(PACKETS) {
                let mut packet = self.receive(context, port, frame);
                context.parse_all(&mut packet);
                let mut at = ingress;
                if packet.exited {
                    context.pipeline(context.program.ingress, at.take(), &mut packet);
                }
                halted.push(Halted { packet, at });
            }
            if halted.is_empty() {
                break;
            }
            context.large = context.state.large();
            let mut resume = false;
            loop {
                for Halted { packet, at } in &mut halted {
                    if let Some(start) = *at {
                        // Nothing but a parser ends with an error.
                        *at = context.execute(start, resume, packet).unwrap_or(None);
                    }
                }
                if halted.iter().all(|halted| halted.at.is_none()) {
                    break;
                }
                self.fetch(context, &halted);
                resume = true;
            }
            context.large = 0;
            for Halted { packet, .. } in halted.drain(..) {
                self.finish(context, packet, sink, &mut outcome);
            }
        }
        self.halted = halted;
        outcome
    }

    /// Fetches the entries of the tables that packets wait at.
    fn fetch(&mut self, context: &Context<'_>, halted: &[Halted]) {
        let table_of = |halted: &Halted| match context.program.code.ops.get(halted.at? as usize)? {
            Op::Table(index) => Some(*index as usize),
            _ => None,
        };
        let mut waits = 0_u128;
        for table in halted.iter().filter_map(table_of) {
            waits |= 1 << table;
        }
        while waits != 0 {
            let index = waits.trailing_zeros() as usize;
            waits &= waits - 1;
            let tables = (
                context.program.tables.get(index),
                context.state.tables.get(index),
            );
            let (Some(table), Some(state)) = tables else {
                continue;
            };
            self.keys.clear();
            for halted in halted.iter().filter(|h| table_of(h) == Some(index)) {
                let from = self.keys.len();
                self.keys.resize(from + table.key_bytes, 0);
                if let Some(key) = self.keys.get_mut(from..) {
                    super::control::build_key(table, &halted.packet, key);
                }
            }
            self.fetched = self
                .fetched
                .wrapping_add(state.fetch(&self.keys, table.key_bytes));
        }
    }
}
