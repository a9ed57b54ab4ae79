//! Header stacks: `push_front` and `pop_front`, and extraction to the next element.

use super::{Context, Packet};
use crate::program::layout::Stack;
use crate::program::parser::ExtractElement;

impl Context<'_> {
    /// Extracts to a stack's next element.
    pub(super) fn extract_element(
        &mut self,
        to: &ExtractElement,
        packet: &mut Packet,
    ) -> Result<(), u32> {
        let errors = &self.program.errors;
        let Some(stack) = self.program.layout.stacks.get(to.stack) else {
            return Ok(());
        };
        let next = packet.buf.get(stack.next).copied().unwrap_or(0);
        if usize::from(next) >= stack.len {
            return Err(errors.stack_out_of_bounds);
        }
        let header = stack.first + usize::from(next) * stack.members + to.member;
        let length = match &to.length {
            None => None,
            Some(bits) => match usize::try_from(bits.eval(&packet.buf)) {
                Ok(bits) if bits % 8 == 0 => Some(bits / 8),
                _ => return Err(errors.invalid_argument),
            },
        };
        self.extract(header, packet, length)?;
        if let Some(counter) = packet.buf.get_mut(stack.next) {
            *counter = next + 1;
        }
        Ok(())
    }

    /// Moves a stack's elements by `by`: the ones that come in are invalid.
    pub(super) fn shift(&self, stack: usize, by: i128, push: bool, packet: &mut Packet) {
        let layout = &self.program.layout;
        let Some(stack) = layout.stacks.get(stack) else {
            return;
        };
        let Some(first) = layout.headers.get(stack.first) else {
            return;
        };
        let by = usize::try_from(by).unwrap_or(stack.len).min(stack.len);
        let next = usize::from(packet.buf.get(stack.next).copied().unwrap_or(0));
        let next = if push {
            (next + by).min(stack.len)
        } else {
            next.saturating_sub(by)
        };
        if let Some(counter) = packet.buf.get_mut(stack.next) {
            *counter = next as u8;
        }
        let flags = first.valid;
        let is_union = !stack.names.is_empty();
        if is_union || first.varbit.is_some() {
            exchange(stack, by, push, (first.start, flags), packet);
        } else if by < stack.len {
            let keep = stack.len - by;
            let bytes = stack.stride * keep;
            let (from, to) = if push { (0, by) } else { (by, 0) };
            let start = first.start + stack.stride * from;
            packet
                .buf
                .copy_within(start..start + bytes, first.start + stack.stride * to);
            let start = flags + from;
            packet.buf.copy_within(start..start + keep, flags + to);
        }
        if !is_union {
            let first = if push { 0 } else { stack.len - by };
            for i in first..first + by {
                packet.set_valid(flags + i, false);
            }
        }
    }
}

/// Moves elements as bmv2 does, by exchanging them. A header that comes in keeps the length of
/// the varbit that goes out, and is made invalid later; a union that comes in stays as it was
/// (the compiler moves unions by assignments, which do not lead here).
fn exchange(
    stack: &Stack,
    by: usize,
    push: bool,
    (start, flags): (usize, usize),
    packet: &mut Packet,
) {
    let mut swap_elements = |a: usize, b: usize| {
        for i in 0..stack.stride {
            swap(
                &mut packet.buf,
                start + a * stack.stride + i,
                start + b * stack.stride + i,
            );
        }
        for i in 0..stack.members {
            swap(
                &mut packet.buf,
                flags + a * stack.members + i,
                flags + b * stack.members + i,
            );
        }
    };
    if push {
        (by..stack.len).rev().for_each(|i| swap_elements(i, i - by));
    } else {
        (0..stack.len - by).for_each(|i| swap_elements(i, i + by));
    }
}

fn swap(buf: &mut [u8], a: usize, b: usize) {
    if a < buf.len() && b < buf.len() {
        buf.swap(a, b);
    }
}
