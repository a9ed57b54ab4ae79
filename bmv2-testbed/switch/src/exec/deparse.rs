//! Calculates hashes and checksums, and writes the frame.

use super::code::copy_short;
use super::trace::{Block, Event, trace, written};
use super::{Context, Packet, varbit};
use crate::bits::copy_bits;
use crate::code::{EMIT_HEADERS, Emit};
use crate::hash::{Algorithm, InternetSum};
use crate::program::calculation::{Input, MAX_RUN_BYTES, Run};

/// Appends the headers whose validity bytes from `valid` on are not zero.
fn emit_plain(valid: usize, parts: &[(usize, usize)], packet: &Packet, out: &mut Vec<u8>) {
    let flags = packet.buf.get(valid..).and_then(|b| b.first_chunk());
    let flags = u64::from_le_bytes(flags.copied().unwrap_or_default());
    let others = EMIT_HEADERS.saturating_sub(parts.len()) * 8;
    let mut left = flags << others >> others;
    while left != 0 {
        let header = left.trailing_zeros() as usize / 8;
        left &= !(0xff << (header * 8));
        if let Some((start, len)) = parts.get(header) {
            let bytes = packet.buf.get(*start..start + len);
            out.extend_from_slice(bytes.unwrap_or_default());
        }
    }
}

/// Hashes bytes of the packet state, without those of invalid headers.
fn hash_runs(algorithm: Algorithm, runs: &[Run], packet: &Packet) -> u64 {
    if algorithm == Algorithm::Csum16 && runs.iter().all(|run| run.len.is_multiple_of(2)) {
        let mut sum = InternetSum::default();
        for run in runs.iter().filter(|run| packet.is_valid(run.valid)) {
            let bytes = packet.buf.get(run.start..run.start + run.len);
            sum.add(bytes.unwrap_or_default());
        }
        return sum.finish().into();
    }
    let mut bytes = [0; MAX_RUN_BYTES];
    let mut len = 0;
    for run in runs {
        if packet.is_valid(run.valid) {
            let from = packet.buf.get(run.start..run.start + run.len);
            if let (Some(to), Some(from)) = (bytes.get_mut(len..len + run.len), from) {
                copy_short(to, from);
                len += run.len;
            }
        }
    }
    algorithm.hash(bytes.get(..len).unwrap_or_default())
}

impl Context<'_> {
    /// The result of a named calculation.
    pub(crate) fn calculate(&self, index: usize, packet: &Packet) -> u64 {
        let Some(calculation) = self.program.calculations.get(index) else {
            return 0;
        };
        if let Some(runs) = &calculation.runs {
            return hash_runs(calculation.algorithm, runs, packet);
        }
        // What is cut off does not count either.
        let limit = packet.truncate.unwrap_or(usize::MAX);
        let payload = packet.payload();
        let payload = payload.get(..limit.min(payload.len()));
        let payload = payload.filter(|_| calculation.payload);
        self.hash(calculation.algorithm, &calculation.input, payload, packet)
    }

    /// Hashes inputs; invalid headers are left out.
    pub(crate) fn hash(
        &self,
        algorithm: Algorithm,
        input: &[Input],
        payload: Option<&[u8]>,
        packet: &Packet,
    ) -> u64 {
        let mut bytes = Vec::with_capacity(64);
        let mut bits = 0;
        for input in input {
            match input {
                Input::Field(field, valid) => {
                    if packet.is_valid(*valid) {
                        bits = field.append(&packet.buf, &mut bytes, bits);
                    }
                }
                Input::Constant(value, width) => {
                    let width = usize::from(*width);
                    bytes.resize((bits + width).div_ceil(8), 0);
                    let padding = value.len() * 8 - width;
                    copy_bits(value, padding, &mut bytes, bits, width);
                    bits += width;
                }
                Input::Header(header) => {
                    bytes.resize(bits.div_ceil(8), 0);
                    self.emit(*header, packet, &mut bytes);
                    bits = bytes.len() * 8;
                }
                Input::Varbit(header) => {
                    let header = self.program.layout.headers.get(*header);
                    if let Some((header, varbit)) = header.and_then(|h| Some((h, h.varbit?)))
                        && packet.is_valid(header.valid)
                    {
                        let len = varbit::length(varbit, &packet.buf);
                        let value = packet.buf.get(varbit.start..varbit.start + len);
                        let value = value.unwrap_or_default();
                        bytes.resize((bits + len * 8).div_ceil(8), 0);
                        copy_bits(value, 0, &mut bytes, bits, len * 8);
                        bits += len * 8;
                    }
                }
            }
        }
        if let Some(payload) = payload {
            bytes.extend_from_slice(payload);
        }
        algorithm.hash(&bytes)
    }

    /// Appends a header as it goes on the wire, if it is valid.
    fn emit(&self, index: usize, packet: &Packet, out: &mut Vec<u8>) {
        let Some(header) = self.program.layout.headers.get(index) else {
            return;
        };
        if !packet.is_valid(header.valid) {
            return;
        }
        match header.varbit {
            None => {
                let bytes = header.start..header.start + header.fixed_bytes;
                out.extend_from_slice(packet.buf.get(bytes).unwrap_or_default());
            }
            Some(place) => varbit::emit(header, place, &packet.buf, out),
        }
    }

    /// Bytes that a header takes on the wire now.
    pub(crate) fn header_bytes(&self, index: usize, packet: &Packet) -> usize {
        self.program.layout.headers.get(index).map_or(0, |header| {
            let more = header.varbit.map_or(0, |v| varbit::length(v, &packet.buf));
            header.fixed_bytes + more
        })
    }

    /// Updates one checksum.
    pub(super) fn update(&mut self, index: usize, packet: &mut Packet) {
        let Some(checksum) = self.program.update.get(index) else {
            return;
        };
        let value = self.calculate(checksum.calculation, packet);
        checksum.target.store(&mut packet.buf, i128::from(value));
        trace!(
            self,
            Event::Update {
                checksum: index,
                value
            }
        );
    }

    fn update_checksums(&mut self, packet: &mut Packet) {
        if let (Some(code), None) = (self.program.code.update, &self.trace) {
            // Nothing but a parser ends with an error.
            let _ = self.execute(code, false, packet);
            return;
        }
        for (index, checksum) in self.program.update.iter().enumerate() {
            let condition = checksum.condition.as_ref();
            if condition.is_none_or(|c| c.test(&packet.buf)) {
                self.update(index, packet);
            }
        }
    }

    /// Updates checksums, runs the deparser and writes the whole frame to `out`.
    pub(crate) fn deparse(&mut self, packet: &mut Packet, out: &mut Vec<u8>) {
        self.update_checksums(packet);
        for (at, instruction) in self.program.deparser.iter().enumerate() {
            self.step(instruction, packet);
            trace!(
                self,
                Event::Step {
                    block: Block::Deparser,
                    at,
                    value: written(instruction, &packet.buf),
                }
            );
        }
        out.clear();
        for emit in &self.program.code.emit {
            match emit {
                Emit::Plain { valid, parts } => emit_plain(*valid, parts, packet, out),
                Emit::Header(header) => self.emit(*header, packet, out),
            }
        }
        out.extend_from_slice(packet.payload());
    }
}
