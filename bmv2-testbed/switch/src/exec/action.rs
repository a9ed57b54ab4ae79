//! Runs actions.

use rand::Rng;

use super::expr::HeaderRef;
use super::trace::{Block, Cell, Event, trace, written};
use super::{Context, Packet, varbit};
use crate::bits::Field;
use crate::program::action::Instruction;
use crate::state::lock;

/// An action that takes more steps than this loops.
const MAX_STEPS: usize = 100_000;

impl Context<'_> {
    /// Runs a whole action; its arguments are in the packet's state already.
    pub(crate) fn run(&mut self, index: usize, packet: &mut Packet) {
        let Some(action) = self.program.actions.get(index) else {
            return;
        };
        if self.trace.is_some() {
            let start = self.program.layout.args_start;
            let args = packet.buf.get(start..start + action.args_bytes);
            let args = args.unwrap_or_default().into();
            trace!(
                self,
                Event::Action {
                    action: index,
                    args
                }
            );
        }
        let mut at = 0;
        let mut steps = 0;
        while let Some(instruction) = action.code.get(at) {
            steps += 1;
            if steps > MAX_STEPS {
                trace!(self, Event::Endless(index));
                return;
            }
            at = match instruction {
                Instruction::Jump(to) => *to,
                Instruction::JumpIfZero(condition, to) => {
                    let holds = condition.test(&packet.buf);
                    self.trace_step(index, at, || [u8::from(holds)].into());
                    if holds { at + 1 } else { *to }
                }
                _ => {
                    self.step(instruction, packet);
                    self.trace_step(index, at, || written(instruction, &packet.buf));
                    at + 1
                }
            };
        }
    }

    /// Runs one instruction other than a jump.
    pub(crate) fn step(&mut self, instruction: &Instruction, packet: &mut Packet) {
        match instruction {
            Instruction::Set(to, from) => {
                let value = from.eval(&packet.buf);
                to.store(&mut packet.buf, value);
            }
            Instruction::Copy { to, from } => copy(*to, *from, &mut packet.buf),
            Instruction::SetBytes(to, bytes) => to.import(&mut packet.buf, bytes),
            Instruction::SetElement(element, from) => {
                let value = from.eval(&packet.buf);
                if let Some(to) = element.field(&packet.buf) {
                    to.store(&mut packet.buf, value);
                }
            }
            Instruction::AddHeader(header) => self.add_header(header, packet),
            Instruction::RemoveHeader(header) => self.remove_header(header, packet),
            Instruction::AssignHeader(to, from) => self.assign_header(to, from, packet),
            Instruction::AssignHeaders(pairs, counters) => {
                for (to, from) in pairs {
                    self.assign_header(to, from, packet);
                }
                if let Some((to, from)) = counters {
                    let count = packet.buf.get(*from).copied().unwrap_or(0);
                    if let Some(to) = packet.buf.get_mut(*to) {
                        *to = count;
                    }
                }
            }
            Instruction::AssignVarbit(to, from) => self.copy_varbit(*to, *from, packet),
            Instruction::Push(stack, by) => self.shift(*stack, by.eval(&packet.buf), true, packet),
            Instruction::Pop(stack, by) => self.shift(*stack, by.eval(&packet.buf), false, packet),
            Instruction::MarkToDrop => self.mark_to_drop(packet),
            Instruction::Wide(step) => self.wide_step(step, packet),
            Instruction::Exit => packet.exited = true,
            Instruction::Digest(id) => packet.digest = Some(*id),
            Instruction::CloneIngress { session, list }
            | Instruction::CloneEgress { session, list } => {
                let session = session.eval(&packet.buf) as u32 & 0x7fff;
                packet.clone = Some((session, *list));
            }
            Instruction::Resubmit(list) => packet.resubmit = Some(*list),
            Instruction::Recirculate(list) => packet.recirculate = Some(*list),
            Instruction::Truncate(len) => {
                let len = usize::try_from(len.eval(&packet.buf)).unwrap_or(usize::MAX);
                packet.truncate = Some(packet.truncate.unwrap_or(usize::MAX).min(len));
            }
            Instruction::Log { text, values } => {
                if self.trace.is_some() {
                    let line =
                        log_line(text, values.iter().map(|v| v.eval(&packet.buf).to_string()));
                    trace!(self, Event::Message(line));
                }
            }
            Instruction::Assert { condition, place } => {
                // bmv2 stops the whole switch here; a packet is reason enough to drop the packet.
                if !condition.test(&packet.buf) {
                    tracing::error!("{place} failed");
                    trace!(self, Event::Failed(place.clone()));
                    self.step(&Instruction::MarkToDrop, packet);
                    packet.exited = true;
                }
            }
            Instruction::Jump(_) | Instruction::JumpIfZero(..) | Instruction::Nothing => {}
            other => self.externs(other, packet),
        }
    }

    pub(super) fn mark_to_drop(&self, packet: &mut Packet) {
        let standard = &self.program.standard;
        let port = i128::from(self.drop_port);
        standard.egress_spec.store(&mut packet.buf, port);
        if let Some(group) = standard.mcast_grp {
            group.store(&mut packet.buf, 0);
        }
    }

    /// Counters, meters, registers, hashes and random numbers.
    fn externs(&mut self, instruction: &Instruction, packet: &mut Packet) {
        // As in bmv2, 32 bits of an index count.
        let index = |value: i128| value as u32 as usize;
        match instruction {
            Instruction::Count { counter, index: at } => {
                let at = index(at.eval(&packet.buf));
                let cell = self.state.counters.get(*counter).and_then(|c| c.get(at));
                if let Some(cell) = cell {
                    cell.count(1, packet.ingress_length as u64);
                }
                self.trace_cell(Cell::Counter(*counter), at, cell.is_some());
            }
            Instruction::Meter {
                meter,
                index: at,
                to,
            } => {
                let at = index(at.eval(&packet.buf));
                let bytes = self.program.meters.get(*meter).is_some_and(|m| m.bytes);
                let units = if bytes {
                    packet.ingress_length as u64
                } else {
                    1
                };
                let cell = self.state.meters.get(*meter).and_then(|m| m.get(at));
                if let Some(cell) = cell {
                    let colour = lock(cell).execute(units, packet.ingress_length, self.now_ns);
                    to.store(&mut packet.buf, i128::from(colour));
                }
                self.trace_cell(Cell::Meter(*meter), at, cell.is_some());
            }
            Instruction::ReadRegister {
                register,
                index: at,
                to,
            } => {
                let at = index(at.eval(&packet.buf));
                let value = self
                    .state
                    .registers
                    .get(*register)
                    .and_then(|r| lock(r).get(at).copied());
                if let Some(value) = value {
                    to.store(&mut packet.buf, value as i128);
                }
                self.trace_cell(Cell::Register(*register), at, value.is_some());
            }
            Instruction::WriteRegister {
                register,
                index: at,
                value,
            } => {
                let at = index(at.eval(&packet.buf));
                let width = self.program.registers.get(*register).map_or(0, |r| r.width);
                let value = value.eval(&packet.buf) as u128 & crate::bits::mask(width);
                let Some(cells) = self.state.registers.get(*register) else {
                    return;
                };
                let written = lock(cells).get_mut(at).map(|cell| *cell = value);
                self.trace_cell(Cell::Register(*register), at, written.is_some());
            }
            Instruction::Hash {
                to,
                base,
                calculation,
                size,
            } => {
                let base = base.eval(&packet.buf) as u64;
                let size = (size.eval(&packet.buf) as u64).max(1);
                let hash = self.calculate(*calculation, packet);
                let value = (hash % size).wrapping_add(base);
                to.store(&mut packet.buf, i128::from(value));
            }
            Instruction::Random { to, low, high } => {
                let (low, high) = (low.eval(&packet.buf) as u64, high.eval(&packet.buf) as u64);
                if low <= high {
                    let value = rand::rng().random_range(low..=high);
                    to.store(&mut packet.buf, i128::from(value));
                }
            }
            _ => {}
        }
    }

    #[inline]
    fn trace_step(&mut self, action: usize, at: usize, value: impl FnOnce() -> Box<[u8]>) {
        trace!(
            self,
            Event::Step {
                block: Block::Action(action),
                at,
                value: value(),
            }
        );
    }

    #[inline]
    pub(super) fn trace_cell(&mut self, cell: Cell, index: usize, ok: bool) {
        trace!(self, Event::Cell { cell, index, ok });
    }

    fn add_header(&mut self, header: &HeaderRef, packet: &mut Packet) {
        let Some(offset) = header.offset(&packet.buf) else {
            return;
        };
        let index = header.header + offset;
        let Some(place) = self.program.layout.headers.get(index) else {
            return;
        };
        if !packet.is_valid(place.valid) {
            if let Some(bytes) = packet
                .buf
                .get_mut(place.start..place.start + place.fixed_bytes)
            {
                bytes.fill(0);
            }
            if let Some(place) = place.varbit {
                varbit::clear(place, packet);
            }
            self.make_valid(packet, index);
            packet.length += self.header_bytes(index, packet);
        }
    }

    fn remove_header(&mut self, header: &HeaderRef, packet: &mut Packet) {
        let Some(offset) = header.offset(&packet.buf) else {
            return;
        };
        let index = header.header + offset;
        let Some(place) = self.program.layout.headers.get(index) else {
            return;
        };
        if packet.is_valid(place.valid) {
            let bytes = self.header_bytes(index, packet);
            packet.length = packet.length.saturating_sub(bytes);
            packet.set_valid(place.valid, false);
        }
    }

    fn assign_header(&mut self, to: &HeaderRef, from: &HeaderRef, packet: &mut Packet) {
        let (Some(to_offset), Some(from_offset)) =
            (to.offset(&packet.buf), from.offset(&packet.buf))
        else {
            return;
        };
        let headers = &self.program.layout.headers;
        let (to, from) = (to.header + to_offset, from.header + from_offset);
        let (Some(target), Some(source)) = (headers.get(to), headers.get(from)) else {
            return;
        };
        if !packet.is_valid(source.valid) {
            packet.set_valid(target.valid, false);
            return;
        }
        let end = source.start + source.fixed_bytes;
        if end <= packet.buf.len() && target.start + source.fixed_bytes <= packet.buf.len() {
            packet.buf.copy_within(source.start..end, target.start);
        }
        self.copy_varbit(to, from, packet);
        self.make_valid(packet, to);
    }

    fn copy_varbit(&self, to: usize, from: usize, packet: &mut Packet) {
        let headers = &self.program.layout.headers;
        let varbit = |i: usize| headers.get(i).and_then(|h| h.varbit);
        if let (Some(to), Some(from)) = (varbit(to), varbit(from)) {
            let len = from.length.load(&packet.buf);
            let bytes = (len as usize).min(to.max_bytes).min(from.max_bytes);
            packet
                .buf
                .copy_within(from.start..from.start + bytes, to.start);
            to.length.store(&mut packet.buf, bytes as i128);
        }
    }
}

fn copy(to: Field, from: Field, buf: &mut [u8]) {
    let mut source = vec![0; from.bytes()];
    from.export(buf, &mut source);
    let mut target = vec![0; to.bytes()];
    let len = source.len().min(target.len());
    let (from_start, to_start) = (source.len() - len, target.len() - len);
    if let (Some(target), Some(source)) = (target.get_mut(to_start..), source.get(from_start..)) {
        target.copy_from_slice(source);
    }
    to.import(buf, &target);
}

/// The text with each `{}` replaced by the next value. Escaped braces stay, without their escape.
fn log_line(text: &str, mut values: impl Iterator<Item = String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('\\', Some('{' | '}')) => out.extend(rest.next()),
            ('{', Some('}')) => {
                rest.next();
                out.push_str(values.next().as_deref().unwrap_or("{}"));
            }
            _ => out.push(c),
        }
    }
    out
}
