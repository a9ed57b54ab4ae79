//! Runs packets through a compiled program, to completion, in the calling thread.
//!
//! ```text
//! frame -> parse -> ingress -> traffic manager -> egress -> deparse -> port
//!            ^                   |  |  |            |          |
//!            +---- resubmit -----+  |  +- clone --> |          |
//!            +---------------------------- recirculate --------+
//! ```

mod action;
mod burst;
mod code;
mod control;
mod deparse;
pub(crate) mod expr;
mod memo;
mod packet;
mod parse;
mod stack;
pub(crate) mod trace;
mod traffic;
mod varbit;
pub(crate) mod wide;

pub(crate) use burst::may_take_turns;
pub(crate) use code::Registers;
pub(crate) use memo::Memos;
pub(crate) use packet::Packet;
pub(crate) use traffic::{Outcome, Worker};

use crate::program::Program;
use crate::state::State;
use trace::{Delivery, Trace};

/// What leaves the program.
pub(crate) trait Sink {
    /// A frame for a port.
    fn transmit(&mut self, port: u32, frame: &[u8]) -> Delivery;
    /// A digest: the list's id and the fields' values.
    fn digest(&mut self, id: u32, values: Vec<Vec<u8>>);
}

/// What a packet's run needs to know.
pub(crate) struct Context<'a> {
    pub(crate) program: &'a Program,
    pub(crate) state: &'a State,
    /// Egress port that means "drop".
    pub(crate) drop_port: u32,
    /// Queues of each port; a packet of another priority is dropped.
    pub(crate) priority_queues: u32,
    pub(crate) now_ns: u64,
    /// The packet's way, if anyone wants to know it.
    pub(crate) trace: Option<Trace>,
    /// By number, the tables before which a packet's code halts: see [`burst`].
    pub(crate) large: u128,
    /// What packets found last in each table.
    pub(crate) memos: Memos,
    /// Scratch space of the program's code.
    pub(crate) registers: Registers,
}
