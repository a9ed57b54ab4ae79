//! Runs a program's code; see [`crate::code`].

use super::parse::MAX_STATES;
use super::{Context, Packet};
use crate::bits::Field;
use crate::code::{At, Case, Op, REGISTERS, Reg, Targets};
use crate::program::layout::{PLACES, STATE_BYTES};

/// The registers of [`crate::code`].
pub(crate) struct Registers([u64; REGISTERS]);

impl Default for Registers {
    fn default() -> Self {
        Self([0; REGISTERS])
    }
}

impl Registers {
    #[inline(always)]
    fn get(&self, reg: Reg) -> u64 {
        self.0[usize::from(reg) % REGISTERS]
    }

    #[inline(always)]
    fn set(&mut self, reg: Reg, value: u64) {
        self.0[usize::from(reg) % REGISTERS] = value;
    }
}

/// The state of a packet that has code: places are below [`PLACES`].
type Buffer = [u8; STATE_BYTES];

/// The `N` (at most 16) bytes at a place. Places are cut to their range, so that no check is
/// needed.
#[inline(always)]
fn bytes<const N: usize>(buf: &Buffer, at: At) -> [u8; N] {
    let at = at as usize % PLACES;
    let bytes = buf.get(at..).and_then(|b| b.first_chunk::<N>());
    bytes.copied().unwrap_or([0; N])
}

#[inline(always)]
fn put<const N: usize>(buf: &mut Buffer, at: At, value: [u8; N]) {
    let at = at as usize % PLACES;
    if let Some(place) = buf.get_mut(at..).and_then(|b| b.first_chunk_mut::<N>()) {
        *place = value;
    }
}

#[inline(always)]
fn copy<const N: usize>(buf: &mut Buffer, to: At, from: At) {
    put::<N>(buf, to, bytes::<N>(buf, from));
}

/// Copies between slices of the same length; short ones without a call.
#[inline(always)]
pub(super) fn copy_short(to: &mut [u8], from: &[u8]) {
    fn ends<const N: usize>(to: &mut [u8], from: &[u8]) {
        if let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) {
            if let Some(to) = to.first_chunk_mut::<N>() {
                *to = *first;
            }
            if let Some(to) = to.last_chunk_mut::<N>() {
                *to = *last;
            }
        }
    }
    match from.len() {
        len if len != to.len() => {}
        16..=32 => ends::<16>(to, from),
        8..=15 => ends::<8>(to, from),
        4..=7 => ends::<4>(to, from),
        _ => to.copy_from_slice(from),
    }
}

#[inline(always)]
fn select(cases: &[Case], key: u64, default: At) -> At {
    let case = cases.iter().find(|case| key & case.mask == case.value);
    case.map_or(default, |case| case.to)
}

/// The operations from a place on.
#[inline(always)]
fn from(ops: &[Op], at: At) -> std::slice::Iter<'_, Op> {
    ops.get(at as usize..).unwrap_or_default().iter()
}

impl Context<'_> {
    /// Runs the code from a place to its end, or to a table of [`Context::large`]: then it says
    /// where to `resume`, which begins with that table.
    ///
    /// # Errors
    /// The parser's error.
    pub(crate) fn execute(
        &mut self,
        start: At,
        mut resume: bool,
        packet: &mut Packet,
    ) -> Result<Option<At>, u32> {
        let program = self.program;
        let code = &program.code;
        let ops = code.ops.as_slice();
        // What comes next if nothing jumps.
        let mut rest = from(ops, start);
        let mut visited = 0;
        loop {
            let op = {
                let Some(buf) = packet.buf.first_chunk_mut::<STATE_BYTES>() else {
                    return Ok(None);
                };
                let regs = &mut self.registers;
                loop {
                    let Some(op) = rest.next() else {
                        return Ok(None);
                    };
                    match op {
                        Op::IfEqual1(place, mask, value, to) => {
                            if bytes::<1>(buf, *place)[0] & mask == *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::UnlessEqual1(place, mask, value, to) => {
                            if bytes::<1>(buf, *place)[0] & mask != *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::IfEqual2(place, mask, value, to) => {
                            if u16::from_ne_bytes(bytes(buf, *place)) & mask == *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::UnlessEqual2(place, mask, value, to) => {
                            if u16::from_ne_bytes(bytes(buf, *place)) & mask != *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::IfEqual4(place, mask, value, to) => {
                            if u32::from_ne_bytes(bytes(buf, *place)) & mask == *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::UnlessEqual4(place, mask, value, to) => {
                            if u32::from_ne_bytes(bytes(buf, *place)) & mask != *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::IfEqual8(place, mask, value, to) => {
                            if u64::from_ne_bytes(bytes(buf, *place)) & mask == *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::UnlessEqual8(place, mask, value, to) => {
                            if u64::from_ne_bytes(bytes(buf, *place)) & mask != *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::IfSame(a, b, to) => {
                            if regs.get(*a) == regs.get(*b) {
                                rest = from(ops, *to);
                            }
                        }
                        Op::UnlessSame(a, b, to) => {
                            if regs.get(*a) != regs.get(*b) {
                                rest = from(ops, *to);
                            }
                        }
                        Op::IfLess(a, b, to) => {
                            if regs.get(*a) < regs.get(*b) {
                                rest = from(ops, *to);
                            }
                        }
                        Op::UnlessLess(a, b, to) => {
                            if regs.get(*a) >= regs.get(*b) {
                                rest = from(ops, *to);
                            }
                        }
                        Op::IfConst(a, value, to) => {
                            if regs.get(*a) == *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::UnlessConst(a, value, to) => {
                            if regs.get(*a) != *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::IfLessConst(a, value, to) => {
                            if regs.get(*a) < *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::UnlessLessConst(a, value, to) => {
                            if regs.get(*a) >= *value {
                                rest = from(ops, *to);
                            }
                        }
                        Op::Jump(to) => rest = from(ops, *to),
                        Op::Switch(key, cases, default) => {
                            rest = from(ops, select(cases, regs.get(*key), *default))
                        }
                        Op::Test(condition, when, to) => {
                            if condition.test(buf.as_slice()) == *when {
                                rest = from(ops, *to);
                            }
                        }
                        Op::Const(to, value) => regs.set(*to, *value),
                        Op::Load1(to, place, shift, mask) => {
                            let value = (bytes::<1>(buf, *place)[0] >> (shift % 8)) & mask;
                            regs.set(*to, value.into());
                        }
                        Op::Load2(to, place, shift, mask) => {
                            let value =
                                (u16::from_be_bytes(bytes(buf, *place)) >> (shift % 16)) & mask;
                            regs.set(*to, value.into());
                        }
                        Op::Load4(to, place, shift, mask) => {
                            let value =
                                (u32::from_be_bytes(bytes(buf, *place)) >> (shift % 32)) & mask;
                            regs.set(*to, value.into());
                        }
                        Op::Load8(to, place, shift, mask) => {
                            let value =
                                (u64::from_be_bytes(bytes(buf, *place)) >> (shift % 64)) & mask;
                            regs.set(*to, value);
                        }
                        Op::Add(to, a, b) => regs.set(*to, regs.get(*a).wrapping_add(regs.get(*b))),
                        Op::Subtract(to, a, b) => {
                            regs.set(*to, regs.get(*a).wrapping_sub(regs.get(*b)))
                        }
                        Op::Multiply(to, a, b) => {
                            regs.set(*to, regs.get(*a).wrapping_mul(regs.get(*b)))
                        }
                        Op::And(to, a, b) => regs.set(*to, regs.get(*a) & regs.get(*b)),
                        Op::Or(to, a, b) => regs.set(*to, regs.get(*a) | regs.get(*b)),
                        Op::Xor(to, a, b) => regs.set(*to, regs.get(*a) ^ regs.get(*b)),
                        Op::AddConst(to, a, value) => {
                            regs.set(*to, regs.get(*a).wrapping_add(*value))
                        }
                        Op::AndConst(to, a, value) => regs.set(*to, regs.get(*a) & value),
                        Op::OrConst(to, a, value) => regs.set(*to, regs.get(*a) | value),
                        Op::XorConst(to, a, value) => regs.set(*to, regs.get(*a) ^ value),
                        Op::ShiftLeft(to, a, value) => {
                            regs.set(*to, regs.get(*a).wrapping_shl((*value).into()))
                        }
                        Op::ShiftRight(to, a, value) => {
                            regs.set(*to, regs.get(*a).wrapping_shr((*value).into()))
                        }
                        Op::Store1(to, reg) => put(buf, *to, [regs.get(*reg) as u8]),
                        Op::Store2(to, reg) => put(buf, *to, (regs.get(*reg) as u16).to_be_bytes()),
                        Op::Store4(to, reg) => put(buf, *to, (regs.get(*reg) as u32).to_be_bytes()),
                        Op::Store8(to, reg) => put(buf, *to, regs.get(*reg).to_be_bytes()),
                        Op::StoreField(to, reg) => to.store(buf, i128::from(regs.get(*reg))),
                        Op::Put1(to, value) => put(buf, *to, [*value]),
                        Op::Put2(to, value) => put(buf, *to, *value),
                        Op::Put4(to, value) => put(buf, *to, *value),
                        Op::Put8(to, value) => put(buf, *to, *value),
                        Op::PutField(to, value) => to.store(buf, i128::from(*value)),
                        Op::Put(to, value) => {
                            let to = *to as usize;
                            if let Some(to) = buf.get_mut(to..to + value.len()) {
                                copy_short(to, value);
                            }
                        }
                        Op::Zero(to, len) => {
                            let to = *to as usize;
                            if let Some(to) = buf.get_mut(to..to + *len as usize) {
                                to.fill(0);
                            }
                        }
                        Op::Copy1(to, from) => copy::<1>(buf, *to, *from),
                        Op::Copy2(to, from) => copy::<2>(buf, *to, *from),
                        Op::Copy4(to, from) => copy::<4>(buf, *to, *from),
                        Op::Copy6(to, from) => copy::<6>(buf, *to, *from),
                        Op::Copy8(to, from) => copy::<8>(buf, *to, *from),
                        Op::Copy16(to, from) => copy::<16>(buf, *to, *from),
                        Op::Copy(to, from, len) => copy_within(buf, *to, *from, *len as usize),
                        // All others by name: without a rest, no check is needed which operation it is.
                        Op::Table(..)
                        | Op::Parsed
                        | Op::End
                        | Op::EndIfExited
                        | Op::Visit
                        | Op::Select(_)
                        | Op::Extract { .. }
                        | Op::Peek { .. }
                        | Op::AddHeader { .. }
                        | Op::RemoveHeader { .. }
                        | Op::AssignHeader { .. }
                        | Op::MarkToDrop
                        | Op::Exit
                        | Op::Hash { .. }
                        | Op::Verify(_)
                        | Op::Update(_)
                        | Op::Step(..)
                        | Op::Run(_)
                        | Op::ParserStep(..) => break op,
                    }
                }
            };
            match op {
                Op::Table(index, targets) => {
                    if self.large & (1 << (index % 128)) != 0 && !resume {
                        return Ok(Some((ops.len() - rest.len() - 1) as At));
                    }
                    resume = false;
                    rest = from(ops, self.found(*index as usize, *targets as usize, packet));
                }
                Op::End => return Ok(None),
                Op::Parsed => self.parsed(packet),
                Op::EndIfExited if packet.exited => return Ok(None),
                Op::Extract { to, len, valid } => {
                    if !extract(*to, *len, *valid, packet) {
                        return Err(program.errors.packet_too_short);
                    }
                }
                Op::Peek { to, offset, len } => {
                    if !peek(*to, *offset, *len, packet) {
                        return Err(program.errors.packet_too_short);
                    }
                }
                Op::Visit => {
                    visited += 1;
                    if visited > MAX_STATES {
                        return Err(program.errors.invalid_argument);
                    }
                }
                Op::Select(index) => {
                    let state = program.parser.states.get(*index as usize);
                    let next = match state {
                        None => None,
                        Some(state) => self.select(state, packet)?,
                    };
                    let next = next.and_then(|next| code.states.get(next));
                    rest = from(ops, next.copied().unwrap_or(code.accept));
                }
                Op::Verify(index) => self.verify(*index as usize, packet),
                Op::Update(index) => self.update(*index as usize, packet),
                other => self.seldom(other, packet)?,
            }
        }
    }

    /// The operations that are long, or seldom.
    #[inline(never)]
    fn seldom(&mut self, op: &Op, packet: &mut Packet) -> Result<(), u32> {
        let program = self.program;
        match op {
            Op::AddHeader { start, len, valid } => {
                let (start, len) = (*start as usize, *len as usize);
                if !packet.is_valid(*valid as usize) {
                    if let Some(bytes) = packet.buf.get_mut(start..start + len) {
                        bytes.fill(0);
                    }
                    packet.set_valid(*valid as usize, true);
                    packet.length += len;
                }
            }
            Op::RemoveHeader { len, valid } if packet.is_valid(*valid as usize) => {
                packet.length = packet.length.saturating_sub(*len as usize);
                packet.set_valid(*valid as usize, false);
            }
            Op::AssignHeader { to, from, len } => {
                let valid = packet.is_valid(from.1 as usize);
                if valid {
                    copy_within(&mut packet.buf, to.0, from.0, *len as usize);
                }
                packet.set_valid(to.1 as usize, valid);
            }
            Op::MarkToDrop => self.mark_to_drop(packet),
            Op::Exit => packet.exited = true,
            Op::Hash {
                to,
                base,
                size,
                calculation,
            } => self.hash_to(*to, (*base, *size), *calculation as usize, packet),
            Op::Step(action, step) => {
                let action = program.actions.get(*action as usize);
                if let Some(step) = action.and_then(|a| a.code.get(*step as usize)) {
                    self.step(step, packet);
                }
            }
            Op::Run(action) => self.run(*action as usize, packet),
            Op::ParserStep(state, step) => {
                let state = program.parser.states.get(*state as usize);
                if let Some(op) = state.and_then(|s| s.ops.get(*step as usize)) {
                    return self.op(op, packet);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks the packet up in a table; returns where to go on.
    #[inline]
    fn found(&mut self, index: usize, targets: usize, packet: &mut Packet) -> At {
        let program = self.program;
        let (Some(table), Some(targets)) =
            (program.tables.get(index), program.code.tables.get(targets))
        else {
            return 0;
        };
        let (hit, slot) = self.look_up(index, table, packet);
        targets.after(hit, slot)
    }

    fn hash_to(
        &mut self,
        to: Field,
        (base, size): (u64, u64),
        calculation: usize,
        packet: &mut Packet,
    ) {
        let hash = self.calculate(calculation, packet);
        let value = (hash % size).wrapping_add(base);
        to.store(&mut packet.buf, i128::from(value));
    }
}

impl Targets {
    #[inline]
    pub(super) fn after(&self, hit: bool, slot: Option<u16>) -> At {
        let by_slot = if hit { &self.hit } else { &self.miss };
        let place = slot.and_then(|slot| by_slot.get(usize::from(slot)));
        place.copied().unwrap_or(self.nothing)
    }
}

fn copy_within(buf: &mut [u8], to: At, from: At, len: usize) {
    let (to, from) = (to as usize, from as usize);
    if from + len <= buf.len() && to + len <= buf.len() {
        buf.copy_within(from..from + len, to);
    }
}

#[inline]
fn extract(to: At, len: u32, valid: At, packet: &mut Packet) -> bool {
    let (to, len) = (to as usize, len as usize);
    let end = packet.parsed + len;
    let Some(from) = packet.data.get(packet.parsed..end) else {
        return false;
    };
    if let Some(to) = packet.buf.get_mut(to..to + len) {
        copy_short(to, from);
    }
    packet.parsed = end;
    packet.set_valid(valid as usize, true);
    true
}

#[inline]
fn peek(to: At, offset: u32, len: u32, packet: &mut Packet) -> bool {
    let (to, len) = (to as usize, len as usize);
    let start = packet.parsed + offset as usize;
    let Some(from) = packet.data.get(start..start + len) else {
        return false;
    };
    if let Some(to) = packet.buf.get_mut(to..to + len) {
        copy_short(to, from);
    }
    true
}
