//! Puts operations one after the other: labels, registers, and what registers hold already.

use std::collections::HashMap;

use super::{At, Op, Pure, Reg};

/// A jump's target that may not be known yet. Jumps hold labels until [`Builder::finish`].
pub(super) type Label = At;

/// Registers that one statement may use; one that needs more stays in its written form.
const MAX_REGISTERS: u8 = super::REGISTERS as u8;

#[derive(Default)]
pub(super) struct Builder {
    ops: Vec<Op>,
    /// Where each label is.
    labels: Vec<At>,
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
        }
        self.forget();
    }

    /// Forgets what the registers hold, since fields may have changed.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.next = 0;
    }

    pub(super) fn push(&mut self, op: Op) {
        self.ops.push(op);
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
        self.push(Op::Set(reg, pure));
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

    /// The operations, with labels replaced by their places.
    pub(super) fn finish(mut self) -> (Vec<Op>, impl Fn(Label) -> At) {
        let labels = self.labels;
        let place = move |label: Label| labels.get(label as usize).copied().unwrap_or(0);
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
