//! Runs packets through a compiled program, to completion, in the calling thread.
//!
//! ```text
//! frame -> parse -> ingress -> traffic manager -> egress -> deparse -> port
//!            ^                   |  |  |            |          |
//!            +---- resubmit -----+  |  +- clone --> |          |
//!            +---------------------------- recirculate --------+
//! ```

mod action;
mod control;
mod deparse;
pub(crate) mod expr;
mod packet;
mod parse;
mod traffic;

pub(crate) use packet::Packet;
pub(crate) use traffic::{Outcome, Worker};

use crate::program::Program;
use crate::state::State;

/// What leaves the program.
pub(crate) trait Sink {
    /// A frame for a port.
    fn transmit(&mut self, port: u32, frame: &[u8]);
    /// A digest: the list's id and the fields' values.
    fn digest(&mut self, id: u32, values: Vec<Vec<u8>>);
}

/// What a packet's run needs to know.
pub(crate) struct Context<'a> {
    pub(crate) program: &'a Program,
    pub(crate) state: &'a State,
    /// Egress port that means "drop".
    pub(crate) drop_port: u32,
    pub(crate) now_ns: u64,
    /// Lines that tell the packet's way, if anyone wants them.
    pub(crate) trace: Option<Vec<String>>,
}

/// Adds a line to the trace. The text is only made if there is one.
macro_rules! trace {
    ($context:expr, $($text:tt)*) => {
        if let Some(lines) = $context.trace.as_mut() {
            lines.push(format!($($text)*));
        }
    };
}
pub(crate) use trace;
