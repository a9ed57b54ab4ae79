//! What happened to packets, for people and programs to read.
//!
//! ```text
//! exec --events--> PacketTrace --sink--> Logger queue --thread--> resolve -> Record -> text, JSON
//! ```
//!
//! Only the events are made in the packet's way, and only if [`crate::Options::trace`] asks for
//! them.

mod record;
mod resolve;
mod text;
mod value;
mod writer;

use std::sync::Arc;

pub use record::{Fields, KeyField, Outcome, Pass, Record, Step};
pub use writer::{Form, LogError, Logger, Rotation, Target};

use crate::exec::trace::Trace;
use crate::switch::Loaded;
use resolve::Resolver;

/// What one received frame went through, as recorded.
pub struct PacketTrace {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) number: u64,
    pub(crate) time_ns: u64,
    pub(crate) port: u32,
    pub(crate) frame: Box<[u8]>,
    pub(crate) trace: Trace,
}

impl std::fmt::Debug for PacketTrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PacketTrace({})", self.number)
    }
}

impl PacketTrace {
    /// Resolves all names and values. Shows at most `dump` bytes of each frame.
    pub fn record(&self, dump: usize) -> Record {
        let mut data = String::new();
        let shown = self.frame.get(..self.frame.len().min(dump));
        value::digits(shown.unwrap_or_default(), &mut data);
        let record = Record {
            packet: self.number,
            time_ns: self.time_ns,
            port: self.port,
            bytes: self.frame.len(),
            data,
            steps_lost: self.trace.lost,
            ..Record::default()
        };
        let mut resolver = Resolver::new(&self.loaded, record, dump);
        for event in &self.trace.events {
            resolver.event(event);
        }
        resolver.finish()
    }
}
