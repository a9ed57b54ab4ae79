//! Runs a program's code; see [`crate::code`].

use super::parse::MAX_STATES;
use super::{Context, Packet};
use crate::bits::Field;
use crate::code::{At, Case, Op, REGISTERS, Reg, Targets};

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

/// The `N` bytes at a place; zeros outside the buffer, where no operation points.
#[inline(always)]
fn bytes<const N: usize>(buf: &[u8], at: At) -> [u8; N] {
    let bytes = buf.get(at as usize..).and_then(|b| b.first_chunk::<N>());
    bytes.copied().unwrap_or([0; N])
}

#[inline(always)]
fn put<const N: usize>(buf: &mut [u8], at: At, value: [u8; N]) {
    let place = buf.get_mut(at as usize..);
    if let Some(place) = place.and_then(|b| b.first_chunk_mut::<N>()) {
        *place = value;
    }
}

#[inline(always)]
fn copy<const N: usize>(buf: &mut [u8], to: At, from: At) {
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

impl Context<'_> {
    /// Runs the code from a place to its end.
    ///
    /// # Errors
    /// The parser's error.
    pub(crate) fn execute(&mut self, start: At, packet: &mut Packet) -> Result<(), u32> {
        let program = self.program;
        let code = &program.code;
        let mut at = start as usize;
        let mut visited = 0;
        loop {
            let Some(op) = code.ops.get(at) else {
                return Ok(());
            };
            at += 1;
            let buf = packet.buf.as_mut_slice();
            let regs = &mut self.registers;
            let (condition, to) = match op {
                Op::Jump(to) => (true, *to),
                Op::IfEqual1(place, mask, value, to) => {
                    (bytes::<1>(buf, *place)[0] & mask == *value, *to)
                }
                Op::UnlessEqual1(place, mask, value, to) => {
                    (bytes::<1>(buf, *place)[0] & mask != *value, *to)
                }
                Op::IfEqual2(place, mask, value, to) => {
                    (u16::from_ne_bytes(bytes(buf, *place)) & mask == *value, *to)
                }
                Op::UnlessEqual2(place, mask, value, to) => {
                    (u16::from_ne_bytes(bytes(buf, *place)) & mask != *value, *to)
                }
                Op::IfEqual4(place, mask, value, to) => {
                    (u32::from_ne_bytes(bytes(buf, *place)) & mask == *value, *to)
                }
                Op::UnlessEqual4(place, mask, value, to) => {
                    (u32::from_ne_bytes(bytes(buf, *place)) & mask != *value, *to)
                }
                Op::IfEqual8(place, mask, value, to) => {
                    (u64::from_ne_bytes(bytes(buf, *place)) & mask == *value, *to)
                }
                Op::UnlessEqual8(place, mask, value, to) => {
                    (u64::from_ne_bytes(bytes(buf, *place)) & mask != *value, *to)
                }
                Op::IfSame(a, b, to) => (regs.get(*a) == regs.get(*b), *to),
                Op::UnlessSame(a, b, to) => (regs.get(*a) != regs.get(*b), *to),
                Op::IfLess(a, b, to) => (regs.get(*a) < regs.get(*b), *to),
                Op::UnlessLess(a, b, to) => (regs.get(*a) >= regs.get(*b), *to),
                Op::IfConst(a, value, to) => (regs.get(*a) == *value, *to),
                Op::UnlessConst(a, value, to) => (regs.get(*a) != *value, *to),
                Op::IfLessConst(a, value, to) => (regs.get(*a) < *value, *to),
                Op::UnlessLessConst(a, value, to) => (regs.get(*a) >= *value, *to),
                Op::Test(condition, when, to) => (condition.test(buf) == *when, *to),
                Op::Switch(key, cases, default) => (true, select(cases, regs.get(*key), *default)),
                Op::Table(index) => (true, self.found(*index as usize, packet)),

                Op::Const(to, value) => {
                    regs.set(*to, *value);
                    continue;
                }
                Op::Load1(to, place, shift, mask) => {
                    let value = (bytes::<1>(buf, *place)[0] >> shift) & mask;
                    regs.set(*to, value.into());
                    continue;
                }
                Op::Load2(to, place, shift, mask) => {
                    let value = (u16::from_be_bytes(bytes(buf, *place)) >> shift) & mask;
                    regs.set(*to, value.into());
                    continue;
                }
                Op::Load4(to, place, shift, mask) => {
                    let value = (u32::from_be_bytes(bytes(buf, *place)) >> shift) & mask;
                    regs.set(*to, value.into());
                    continue;
                }
                Op::Load8(to, place, shift, mask) => {
                    let value = (u64::from_be_bytes(bytes(buf, *place)) >> shift) & mask;
                    regs.set(*to, value);
                    continue;
                }
                Op::Add(to, a, b) => {
                    regs.set(*to, regs.get(*a).wrapping_add(regs.get(*b)));
                    continue;
                }
                Op::Subtract(to, a, b) => {
                    regs.set(*to, regs.get(*a).wrapping_sub(regs.get(*b)));
                    continue;
                }
                Op::Multiply(to, a, b) => {
                    regs.set(*to, regs.get(*a).wrapping_mul(regs.get(*b)));
                    continue;
                }
                Op::And(to, a, b) => {
                    regs.set(*to, regs.get(*a) & regs.get(*b));
                    continue;
                }
                Op::Or(to, a, b) => {
                    regs.set(*to, regs.get(*a) | regs.get(*b));
                    continue;
                }
                Op::Xor(to, a, b) => {
                    regs.set(*to, regs.get(*a) ^ regs.get(*b));
                    continue;
                }
                Op::AddConst(to, a, value) => {
                    regs.set(*to, regs.get(*a).wrapping_add(*value));
                    continue;
                }
                Op::AndConst(to, a, value) => {
                    regs.set(*to, regs.get(*a) & value);
                    continue;
                }
                Op::OrConst(to, a, value) => {
                    regs.set(*to, regs.get(*a) | value);
                    continue;
                }
                Op::XorConst(to, a, value) => {
                    regs.set(*to, regs.get(*a) ^ value);
                    continue;
                }
                Op::ShiftLeft(to, a, value) => {
                    regs.set(*to, regs.get(*a).wrapping_shl((*value).into()));
                    continue;
                }
                Op::ShiftRight(to, a, value) => {
                    regs.set(*to, regs.get(*a).wrapping_shr((*value).into()));
                    continue;
                }
                Op::Store1(to, reg) => {
                    put(buf, *to, [regs.get(*reg) as u8]);
                    continue;
                }
                Op::Store2(to, reg) => {
                    put(buf, *to, (regs.get(*reg) as u16).to_be_bytes());
                    continue;
                }
                Op::Store4(to, reg) => {
                    put(buf, *to, (regs.get(*reg) as u32).to_be_bytes());
                    continue;
                }
                Op::Store8(to, reg) => {
                    put(buf, *to, regs.get(*reg).to_be_bytes());
                    continue;
                }
                Op::StoreField(to, reg) => {
                    to.store(buf, i128::from(regs.get(*reg)));
                    continue;
                }
                Op::Put1(to, value) => {
                    put(buf, *to, [*value]);
                    continue;
                }
                Op::Put2(to, value) => {
                    put(buf, *to, *value);
                    continue;
                }
                Op::Put4(to, value) => {
                    put(buf, *to, *value);
                    continue;
                }
                Op::Put8(to, value) => {
                    put(buf, *to, *value);
                    continue;
                }
                Op::Put(to, value) => {
                    let to = *to as usize;
                    if let Some(to) = buf.get_mut(to..to + value.len()) {
                        copy_short(to, value);
                    }
                    continue;
                }
                Op::Zero(to, len) => {
                    let to = *to as usize;
                    if let Some(to) = buf.get_mut(to..to + *len as usize) {
                        to.fill(0);
                    }
                    continue;
                }
                Op::PutField(to, value) => {
                    to.store(buf, i128::from(*value));
                    continue;
                }
                Op::Copy1(to, from) => {
                    copy::<1>(buf, *to, *from);
                    continue;
                }
                Op::Copy2(to, from) => {
                    copy::<2>(buf, *to, *from);
                    continue;
                }
                Op::Copy4(to, from) => {
                    copy::<4>(buf, *to, *from);
                    continue;
                }
                Op::Copy6(to, from) => {
                    copy::<6>(buf, *to, *from);
                    continue;
                }
                Op::Copy8(to, from) => {
                    copy::<8>(buf, *to, *from);
                    continue;
                }
                Op::Copy16(to, from) => {
                    copy::<16>(buf, *to, *from);
                    continue;
                }
                Op::Copy(to, from, len) => {
                    copy_within(buf, *to, *from, *len as usize);
                    continue;
                }
                Op::Extract { to, len, valid } => {
                    if !extract(*to, *len, *valid, packet) {
                        return Err(program.errors.packet_too_short);
                    }
                    continue;
                }
                Op::Peek { to, offset, len } => {
                    if !peek(*to, *offset, *len, packet) {
                        return Err(program.errors.packet_too_short);
                    }
                    continue;
                }
                Op::Visit => {
                    visited += 1;
                    if visited > MAX_STATES {
                        return Err(program.errors.invalid_argument);
                    }
                    continue;
                }
                Op::End => return Ok(()),
                Op::EndIfExited if packet.exited => return Ok(()),
                Op::Verify(index) => {
                    self.verify(*index as usize, packet);
                    continue;
                }
                Op::Update(index) => {
                    self.update(*index as usize, packet);
                    continue;
                }
                Op::Select(index) => match program.parser.states.get(*index as usize) {
                    None => return Ok(()),
                    Some(state) => match self.select(state, packet)? {
                        None => return Ok(()),
                        Some(next) => (true, code.states.get(next).copied().unwrap_or(0)),
                    },
                },
                other => {
                    self.seldom(other, packet)?;
                    continue;
                }
            };
            if condition {
                at = to as usize;
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
    fn found(&mut self, index: usize, packet: &mut Packet) -> At {
        let program = self.program;
        let (Some(table), Some(targets)) =
            (program.tables.get(index), program.code.tables.get(index))
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
    fn after(&self, hit: bool, slot: Option<u16>) -> At {
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
    put(&mut packet.buf, valid, [1]);
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
