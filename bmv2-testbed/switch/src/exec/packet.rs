//! A packet on its way.

use crate::program::Program;

/// A packet with its state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packet {
    /// The packet-state buffer; see [`crate::bits`].
    pub(crate) buf: Vec<u8>,
    /// The bytes as they came in.
    pub(crate) data: Vec<u8>,
    /// Where the unparsed rest of `data` starts.
    pub(crate) parsed: usize,
    pub(crate) ingress_port: u32,
    /// Length that counters and meters take.
    pub(crate) ingress_length: usize,
    /// Length with headers added and removed since; what egress sees as `packet_length`.
    pub(crate) length: usize,
    pub(crate) parser_error: u32,
    pub(crate) checksum_error: bool,
    pub(crate) exited: bool,
    pub(crate) clone: Option<(u32, u32)>,
    pub(crate) digest: Option<u32>,
    pub(crate) resubmit: Option<u32>,
    pub(crate) recirculate: Option<u32>,
    /// The frame is cut to this many bytes when it leaves.
    pub(crate) truncate: Option<usize>,
}

impl Packet {
    /// Starts over with `data`, all else cleared.
    pub(crate) fn reset(&mut self, program: &Program, data: &[u8]) {
        let template = &program.layout.template;
        // Arguments are written before they are read: what they were does not matter.
        let args = program.layout.args_start;
        let same_program = self.buf.len() == template.len();
        match (self.buf.get_mut(..args), template.get(..args)) {
            (Some(buf), Some(fresh)) if same_program => buf.copy_from_slice(fresh),
            _ => template.clone_into(&mut self.buf),
        }
        self.data.clear();
        self.data.extend_from_slice(data);
        self.parsed = 0;
        self.ingress_length = data.len();
        self.length = data.len();
        self.parser_error = program.errors.none;
        self.checksum_error = false;
        self.truncate = None;
        self.clear_marks();
    }

    /// Forgets what the last pipeline asked for.
    pub(crate) fn clear_marks(&mut self) {
        self.exited = false;
        self.clone = None;
        self.digest = None;
        self.resubmit = None;
        self.recirculate = None;
    }

    /// Zeroes all metadata.
    pub(crate) fn reset_metadata(&mut self, program: &Program) {
        for (start, len) in &program.metadata {
            if let Some(bytes) = self.buf.get_mut(*start..start + len) {
                bytes.fill(0);
            }
        }
    }

    /// Copies the fields of a list from another packet; an unknown list is empty.
    pub(crate) fn preserve(&mut self, program: &Program, list: u32, from: &Self) {
        let Some(fields) = program.field_lists.get(&list) else {
            return;
        };
        let mut bytes = Vec::new();
        for field in fields {
            bytes.clear();
            bytes.resize(field.bytes(), 0);
            field.export(&from.buf, &mut bytes);
            field.import(&mut self.buf, &bytes);
        }
    }

    /// The bytes behind the parsed headers.
    pub(crate) fn payload(&self) -> &[u8] {
        self.data.get(self.parsed..).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn is_valid(&self, flag: usize) -> bool {
        self.buf.get(flag).copied().unwrap_or(0) != 0
    }

    #[inline]
    pub(crate) fn set_valid(&mut self, flag: usize, valid: bool) {
        if let Some(byte) = self.buf.get_mut(flag) {
            *byte = u8::from(valid);
        }
    }
}
