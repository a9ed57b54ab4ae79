//! Runs packets side by side through ingress.
//!
//! An entry of a large table is in no cache, and a packet that looks it up does nothing until it
//! has come from memory. So the packets of a burst all run up to such a table, are looked up
//! together, and then go on. After ingress each packet is finished in turn: frames
//! leave in the order in which they came.

use super::control::build_key;
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
    /// Whether `at` is behind the table that it waited at.
    found: bool,
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

impl Context<'_> {
    /// Goes on with ingress behind a parser that ended with an error.
    fn without_parser(&mut self, error: u32, packet: &mut Packet) -> Option<At> {
        let code = &self.program.code;
        if let Some(verify) = code.verify {
            self.parser_failed(error, verify, packet);
        }
        self.parsed(packet);
        // Nothing but a parser ends with an error.
        self.execute(code.ingress?, false, packet).unwrap_or(None)
    }
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
        let code = &context.program.code;
        let mut halted = std::mem::take(&mut self.halted);
        loop {
            for frame in frames.by_ref().take(PACKETS) {
                let mut packet = self.receive(context, port, frame);
                let mut at = code.whole;
                if at.is_none() {
                    context.parse_all(&mut packet);
                    at = code.ingress;
                    if packet.exited {
                        context.pipeline(context.program.ingress, at.take(), &mut packet);
                    }
                }
                halted.push(Halted {
                    packet,
                    at,
                    found: false,
                });
            }
            if halted.is_empty() {
                break;
            }
            context.large = context.state.large();
            let mut first = true;
            loop {
                for Halted { packet, at, found } in &mut halted {
                    if let Some(start) = *at {
                        let resume = !first && !*found;
                        *at = match context.execute(start, resume, packet) {
                            Ok(at) => at,
                            // Nothing but a parser ends with an error.
                            Err(error) => context.without_parser(error, packet),
                        };
                    }
                }
                if halted.iter().all(|halted| halted.at.is_none()) {
                    break;
                }
                self.look_up_all(context, &mut halted);
                first = false;
            }
            context.large = 0;
            for Halted { packet, .. } in halted.drain(..) {
                self.finish(context, packet, sink, &mut outcome);
            }
        }
        self.halted = halted;
        outcome
    }

    /// Looks up the packets that wait, table by table, and lets them go on behind it. One that
    /// was not looked up stays at its table.
    fn look_up_all(&mut self, context: &mut Context<'_>, halted: &mut [Halted]) {
        let (program, state) = (context.program, context.state);
        let tables_of = |halted: &Halted| match program.code.ops.get(halted.at? as usize)? {
            Op::Table(index, targets) => Some((*index as usize, *targets as usize)),
            _ => None,
        };
        let table_of = |halted: &Halted| Some(tables_of(halted)?.0);
        let mut waits = 0_u128;
        for halted in halted.iter_mut() {
            halted.found = false;
            waits |= table_of(halted).map_or(0, |table| 1 << table);
        }
        while waits != 0 {
            let index = waits.trailing_zeros() as usize;
            waits &= waits - 1;
            let (Some(table), Some(entries)) = (program.tables.get(index), state.tables.get(index))
            else {
                continue;
            };
            let waiting = halted.iter_mut().filter(|h| table_of(h) == Some(index));
            let mut waiting: Vec<_> = waiting.collect();
            let mut keys = std::mem::take(&mut self.keys);
            keys.clear();
            keys.resize(waiting.len() * table.key_bytes, 0);
            for (halted, key) in waiting
                .iter()
                .zip(keys.chunks_exact_mut(table.key_bytes.max(1)))
            {
                build_key(table, &halted.packet, key);
            }
            entries.look_up_all(&keys, table.key_bytes, |position, entry| {
                let from = position * table.key_bytes;
                let key = keys.get(from..from + table.key_bytes).unwrap_or_default();
                if let Some(halted) = waiting.get_mut(position) {
                    let slot = context.used(index, table, key, entry, &mut halted.packet);
                    let (hit, slot) = match slot {
                        None => context.miss(entries, &mut halted.packet),
                        slot => (true, slot),
                    };
                    let targets = tables_of(halted).and_then(|t| program.code.tables.get(t.1));
                    halted.at = targets.map(|targets| targets.after(hit, slot));
                    halted.found = true;
                }
            });
            self.keys = keys;
        }
    }
}
