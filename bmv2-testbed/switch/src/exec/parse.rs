//! Runs the parser.

use super::trace::{Block, Event, trace, value_of, written};
use super::{Context, Packet, varbit};
use crate::bits::{Field, copy_bits};
use crate::code::At;
use crate::program::parser::{KeyPart, Op, State, Test};
use crate::state::read;

/// A parser that visits more states than this loops; bmv2 would not stop.
pub(super) const MAX_STATES: usize = 4096;

impl Context<'_> {
    /// Parses the packet and verifies checksums. An error ends the parser, not the packet.
    pub(crate) fn parse(&mut self, packet: &mut Packet) {
        packet.parser_error = self.program.errors.none;
        packet.checksum_error = false;
        packet.parsed = 0;
        let code = &self.program.code;
        if let (Some(parser), Some(verify), None) = (code.parser, code.verify, &self.trace) {
            if let Err(error) = self.execute(parser, false, packet) {
                self.parser_failed(error, verify, packet);
            }
            return;
        }
        self.walk(packet);
        self.verify_checksums(packet);
    }

    /// Notes the error that the parser ended with, and verifies what it has found until then.
    pub(super) fn parser_failed(&mut self, error: u32, verify: At, packet: &mut Packet) {
        packet.parser_error = error;
        // Nothing but a parser ends with an error.
        let _ = self.execute(verify, false, packet);
    }

    /// Goes from state to state.
    fn walk(&mut self, packet: &mut Packet) {
        let mut next = self.program.parser.start;
        let mut visited = 0;
        while let Some((index, state)) =
            next.and_then(|s| Some((s, self.program.parser.states.get(s)?)))
        {
            trace!(self, Event::State(index));
            visited += 1;
            let step = if visited > MAX_STATES {
                Err(self.program.errors.invalid_argument)
            } else {
                self.state(index, state, packet)
            };
            match step {
                Ok(to) => next = to,
                Err(error) => {
                    trace!(self, Event::ParserError(error));
                    packet.parser_error = error;
                    break;
                }
            }
        }
    }

    fn state(
        &mut self,
        index: usize,
        state: &State,
        packet: &mut Packet,
    ) -> Result<Option<usize>, u32> {
        for (at, op) in state.ops.iter().enumerate() {
            self.op(op, packet)?;
            if self.trace.is_some() {
                self.trace_op(Block::State(index), at, op, packet);
            }
        }
        self.select(state, packet)
    }

    /// Chooses the next state; none accepts.
    pub(super) fn select(&self, state: &State, packet: &Packet) -> Result<Option<usize>, u32> {
        if state.key.is_empty() {
            return Ok(state.default);
        }
        let mut key = [0_u8; 512];
        let mut len = 0;
        for part in &state.key {
            let bytes = part.bytes();
            let Some(out) = key.get_mut(len..len + bytes) else {
                break;
            };
            match part {
                KeyPart::Field(field) => field.export(&packet.buf, out),
                KeyPart::Element(element) => {
                    if let Some(field) = element.field(&packet.buf) {
                        field.export(&packet.buf, out);
                    }
                }
                KeyPart::Lookahead { offset, width } => {
                    let end = offset + usize::from(*width);
                    let ahead = packet.payload();
                    if ahead.len() * 8 < end {
                        return Err(self.program.errors.packet_too_short);
                    }
                    let padding = bytes * 8 - usize::from(*width);
                    copy_bits(ahead, *offset, out, padding, usize::from(*width));
                }
            }
            len += bytes;
        }
        let key = key.get(..len).unwrap_or_default();
        let case = state.cases.iter().find(|case| match &case.test {
            Test::Value { value, mask } => {
                let bytes = key.iter().zip(mask).zip(value);
                bytes.into_iter().all(|((k, m), v)| k & m == *v)
            }
            Test::Set(set) => {
                let set = self.state.value_sets.get(*set);
                set.is_some_and(|set| read(set).contains(key))
            }
        });
        Ok(case.map_or(state.default, |case| case.next))
    }

    fn trace_op(&mut self, block: Block, at: usize, op: &Op, packet: &Packet) {
        let value = match op {
            Op::SetFromPacket { to, .. } => value_of(*to, &packet.buf),
            Op::Run(instruction) => written(instruction, &packet.buf),
            _ => return,
        };
        trace!(self, Event::Step { block, at, value });
    }

    pub(super) fn op(&mut self, op: &Op, packet: &mut Packet) -> Result<(), u32> {
        let errors = &self.program.errors;
        match op {
            Op::Extract(header) => self.extract(*header, packet, None),
            Op::ExtractVarbit(header, length) => {
                let bits = length.eval(&packet.buf);
                match usize::try_from(bits) {
                    Ok(bits) if bits % 8 == 0 => self.extract(*header, packet, Some(bits / 8)),
                    _ => Err(errors.invalid_argument),
                }
            }
            Op::ExtractNext(stack) => {
                let Some(stack) = self.program.layout.stacks.get(*stack) else {
                    return Ok(());
                };
                let next = packet.buf.get(stack.next).copied().unwrap_or(0);
                if usize::from(next) >= stack.len {
                    return Err(errors.stack_out_of_bounds);
                }
                self.extract(stack.first + usize::from(next), packet, None)?;
                if let Some(counter) = packet.buf.get_mut(stack.next) {
                    *counter = next + 1;
                }
                Ok(())
            }
            Op::ExtractElement(to) => self.extract_element(to, packet),
            Op::Advance(bits) => match usize::try_from(bits.eval(&packet.buf)) {
                Ok(bits) if bits % 8 == 0 => {
                    if packet.payload().len() < bits / 8 {
                        return Err(errors.packet_too_short);
                    }
                    packet.parsed += bits / 8;
                    Ok(())
                }
                _ => Err(errors.invalid_argument),
            },
            Op::SetFromPacket { to, offset, width } => {
                let ahead = packet.data.get(packet.parsed..).unwrap_or_default();
                if ahead.len() * 8 < offset + usize::from(*width) {
                    return Err(errors.packet_too_short);
                }
                set_from(*to, &mut packet.buf, ahead, *offset, *width);
                Ok(())
            }
            Op::Verify { condition, error } => {
                if condition.test(&packet.buf) {
                    Ok(())
                } else {
                    Err(u32::try_from(error.eval(&packet.buf)).unwrap_or(errors.invalid_argument))
                }
            }
            Op::Run(instruction) => {
                self.step(instruction, packet);
                Ok(())
            }
        }
    }

    pub(super) fn extract(
        &mut self,
        index: usize,
        packet: &mut Packet,
        length: Option<usize>,
    ) -> Result<(), u32> {
        let errors = &self.program.errors;
        let Some(header) = self.program.layout.headers.get(index) else {
            return Ok(());
        };
        let more = length.unwrap_or(0);
        let data = packet.data.get(packet.parsed..).unwrap_or_default();
        if data.len() < header.fixed_bytes.saturating_add(more) {
            return Err(errors.packet_too_short);
        }
        match header.varbit {
            Some(place) => {
                if more > place.max_bytes {
                    return Err(errors.header_too_short);
                }
                varbit::extract(header, place, more, data, &mut packet.buf);
            }
            None => {
                let to = header.start..header.start + header.fixed_bytes;
                if let (Some(to), Some(from)) =
                    (packet.buf.get_mut(to), data.get(..header.fixed_bytes))
                {
                    to.copy_from_slice(from);
                }
            }
        }
        let bytes = header.fixed_bytes + more;
        trace!(
            self,
            Event::Extract {
                header: index,
                bytes: data.get(..bytes).unwrap_or_default().into(),
            }
        );
        packet.parsed += bytes;
        self.make_valid(packet, index);
        Ok(())
    }

    /// Marks a header valid, and the other members of its union invalid.
    pub(crate) fn make_valid(&self, packet: &mut Packet, index: usize) {
        let headers = &self.program.layout.headers;
        if let Some(header) = headers.get(index) {
            for sibling in &header.siblings {
                if let Some(sibling) = headers.get(*sibling) {
                    packet.set_valid(sibling.valid, false);
                }
            }
            packet.set_valid(header.valid, true);
        }
    }

    fn verify_checksums(&mut self, packet: &mut Packet) {
        for (index, checksum) in self.program.verify.iter().enumerate() {
            let condition = checksum.condition.as_ref();
            if packet.is_valid(checksum.valid) && condition.is_none_or(|c| c.test(&packet.buf)) {
                self.verify(index, packet);
            }
        }
    }

    /// Verifies one checksum.
    pub(super) fn verify(&mut self, index: usize, packet: &mut Packet) {
        let Some(checksum) = self.program.verify.get(index) else {
            return;
        };
        let expected = self.calculate(checksum.calculation, packet);
        // As in bmv2 all bits of the result count, whatever the field's width.
        let ok = checksum.target.load_raw(&packet.buf) as u64 == expected;
        packet.checksum_error |= !ok;
        trace!(
            self,
            Event::Verify {
                checksum: index,
                ok
            }
        );
    }

    /// Copies of the packet for a multicast group or clone session: port and replication id.
    pub(crate) fn replicas(&self, group: u32) -> Vec<(u32, u32)> {
        let replication = read(&self.state.replication);
        let group = replication.groups.get(&group);
        group.map_or_else(Vec::new, |group| {
            group
                .replicas
                .iter()
                .map(|r| (r.port, r.instance))
                .collect()
        })
    }
}

fn set_from(to: Field, buf: &mut [u8], ahead: &[u8], offset: usize, width: u16) {
    let bytes = usize::from(width).div_ceil(8);
    let mut value = vec![0; bytes.max(to.bytes())];
    let padding = value.len() * 8 - usize::from(width);
    copy_bits(ahead, offset, &mut value, padding, usize::from(width));
    to.import(buf, &value);
}
