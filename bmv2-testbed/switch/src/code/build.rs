//! Puts operations one after the other: labels, registers, and what registers hold already.

use std::collections::HashMap;

use super::{At, Op, Pure, Reg, Size};
use crate::bits::Field;

/// A jump's target that may not be known yet. Jumps hold labels until [`Builder::finish`].
pub(super) type Label = At;

/// Registers that one statement may use; one that needs more stays in its written form.
const MAX_REGISTERS: u8 = super::REGISTERS as u8;

#[derive(Default)]
pub(super) struct Builder {
    ops: Vec<Op>,
    /// Where each label is.
    labels: Vec<At>,
    /// Where the last label is: operations before it and behind it are not joined.
    bound: usize,
    /// Which register holds the result of which operation.
    known: HashMap<Pure, Reg>,
    next: Reg,
}

/// What [`Builder::rewind`] goes back to.
pub(super) struct Mark(usize);

impl Builder {
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(0);
        (self.labels.len() - 1) as Label
    }

    /// A label here.
    pub(super) fn here(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    /// Places a label here. Jumps may come from anywhere: nothing is known of the registers.
    pub(super) fn bind(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label as usize) {
            *place = self.ops.len() as At;
            self.bound = self.ops.len();
        }
        self.forget();
    }

    /// Forgets what was read from these bytes, which are written now. What was computed from
    /// them before stays what it was.
    fn written(&mut self, at: At, len: u32) {
        self.known.retain(|pure, _| {
            pure.read()
                .is_none_or(|(from, bytes)| from + bytes <= at || at + len <= from)
        });
    }

    /// Forgets what the registers hold, since any field may have changed.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.next = 0;
    }

    pub(super) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// The last operation, if no jump leads behind it.
    fn last(&self) -> Option<&Op> {
        self.ops.last().filter(|_| self.bound < self.ops.len())
    }

    /// Copies bytes of the packet state; together with the last copy if they follow it.
    pub(super) fn copy(&mut self, mut to: At, mut from: At, mut len: u32) {
        if let Some((last_to, last_from, last_len)) = self.last().and_then(Op::as_copy)
            && (last_to + last_len, last_from + last_len) == (to, from)
            // The last one did not write what this one reads.
            && (last_to + last_len + len <= last_from || last_from + last_len + len <= last_to)
        {
            self.ops.pop();
            (to, from, len) = (last_to, last_from, last_len + len);
        }
        self.push(match len {
            1 => Op::Copy1(to, from),
            2 => Op::Copy2(to, from),
            4 => Op::Copy4(to, from),
            6 => Op::Copy6(to, from),
            8 => Op::Copy8(to, from),
            16 => Op::Copy16(to, from),
            _ => Op::Copy(to, from, len),
        });
        self.written(to, len);
    }

    /// Writes a register to bytes that are a field's own.
    pub(super) fn store(&mut self, size: Size, at: At, reg: Reg) {
        self.push(match size {
            Size::One => Op::Store1(at, reg),
            Size::Two => Op::Store2(at, reg),
            Size::Four => Op::Store4(at, reg),
            Size::Eight => Op::Store8(at, reg),
        });
        self.written(at, size.bytes() as u32);
    }

    /// Writes to a field that shares its bytes.
    pub(super) fn mix(&mut self, field: Field, op: Op) {
        self.push(op);
        let bytes = (u32::from(field.width) + u32::from(field.shift)).div_ceil(8);
        self.written(field.last + 1 - bytes, bytes);
    }

    /// Goes to `to` unless these bytes, masked, are `value`; together with the last such jump if
    /// they follow its bytes.
    pub(super) fn unless_equal(&mut self, mut at: At, mask: &[u8], value: &[u8], to: Label) {
        let (mut masks, mut values) = (Vec::new(), Vec::new());
        if let Some((last_at, last_mask, last_value, last_to)) = self.last().and_then(Op::as_unless)
            && last_at + last_mask.len() as u32 == at
            && last_to == to
            && matches!(last_mask.len() + mask.len(), 2 | 4 | 8)
        {
            self.ops.pop();
            (at, masks, values) = (last_at, last_mask, last_value);
        }
        masks.extend_from_slice(mask);
        values.extend_from_slice(value);
        self.push(match (masks.as_slice(), values.as_slice()) {
            ([mask], [value]) => Op::UnlessEqual1(at, *mask, *value, to),
            (mask, value) if mask.len() == 2 => {
                Op::UnlessEqual2(at, number(mask) as u16, number(value) as u16, to)
            }
            (mask, value) if mask.len() == 4 => {
                Op::UnlessEqual4(at, number(mask) as u32, number(value) as u32, to)
            }
            (mask, value) => Op::UnlessEqual8(at, number(mask), number(value), to),
        });
    }

    /// Writes constant bytes; together with the last ones if they follow them.
    pub(super) fn put(&mut self, mut at: At, bytes: &[u8]) {
        let mut all = Vec::new();
        if let Some((last_at, last)) = self.last().and_then(Op::as_put)
            && last_at as usize + last.len() == at as usize
        {
            self.ops.pop();
            at = last_at;
            all = last;
        }
        all.extend_from_slice(bytes);
        self.push(match all.as_slice() {
            [one] => Op::Put1(at, *one),
            [a, b] => Op::Put2(at, [*a, *b]),
            [a, b, c, d] => Op::Put4(at, [*a, *b, *c, *d]),
            [a, b, c, d, e, f, g, h] => Op::Put8(at, [*a, *b, *c, *d, *e, *f, *g, *h]),
            zeros if zeros.iter().all(|byte| *byte == 0) => Op::Zero(at, zeros.len() as u32),
            bytes => Op::Put(at, bytes.into()),
        });
        self.written(at, all.len() as u32);
    }

    /// The register that holds the result of `pure`.
    pub(super) fn value(&mut self, pure: Pure) -> Option<Reg> {
        if let Some(reg) = self.known.get(&pure) {
            return Some(*reg);
        }
        if self.next >= MAX_REGISTERS {
            return None;
        }
        let reg = self.next;
        self.next += 1;
        self.push(Op::set(reg, pure));
        self.known.insert(pure, reg);
        Some(reg)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.ops.len())
    }

    /// Takes back what was pushed since the mark, which was no label and no jump.
    pub(super) fn rewind(&mut self, mark: &Mark) {
        self.ops.truncate(mark.0);
        self.forget();
    }

    /// How many operations there are.
    pub(super) fn len(&self) -> usize {
        self.ops.len()
    }

    /// The operations, the first of which will be at `base`, with labels replaced by their places.
    pub(super) fn finish(mut self, base: At) -> (Vec<Op>, impl Fn(Label) -> At) {
        let labels = self.labels;
        let place = move |label: Label| labels.get(label as usize).copied().unwrap_or(0) + base;
        for op in &mut self.ops {
            if let Op::Switch(_, cases, _) = op {
                for case in cases {
                    case.to = place(case.to);
                }
            }
            if let Some(to) = op.target() {
                *to = place(*to);
            }
        }
        (self.ops, place)
    }
}

impl Op {
    /// Place, mask, value and target of a jump unless up to four bytes are equal.
    fn as_unless(&self) -> Option<(At, Vec<u8>, Vec<u8>, Label)> {
        let test = self.test().filter(|t| !t.jumps_if && t.masks.len() < 8)?;
        Some((test.at, test.masks, test.values, test.to))
    }
}

impl Pure {
    /// The bytes that it reads: place and number.
    fn read(&self) -> Option<(At, u32)> {
        match self {
            Self::Load1(at, ..) => Some((*at, 1)),
            Self::Load2(at, ..) => Some((*at, 2)),
            Self::Load4(at, ..) => Some((*at, 4)),
            Self::Load8(at, ..) => Some((*at, 8)),
            _ => None,
        }
    }
}

/// Bytes as a number as the machine itself would read it.
fn number(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}
