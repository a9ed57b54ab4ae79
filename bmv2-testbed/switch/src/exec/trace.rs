//! What happens to one received frame, recorded as it runs.
//!
//! Events hold indices and raw bytes only, so that recording is cheap; [`crate::log`] turns them
//! into names and values, outside the packet's way. Without a listener nothing is made.

use crate::bits::Field;
use crate::program::action::{Instruction, WideStep};
use crate::program::table::Pattern;

/// The most events of one frame; a frame that goes round and round makes more, which are counted.
const MAX_EVENTS: usize = 1 << 14;

/// Where a statement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Index of the action.
    Action(usize),
    /// Index of the parser state.
    State(usize),
    Deparser,
}

/// What a table's lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No key to look up, one constant action.
    Nothing,
    Miss,
    Entry(Pattern, Via),
}

/// How an entry led to its action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Action,
    Member(u32),
    /// The group, and the member chosen; none if it is empty.
    Group(u32, Option<u32>),
    /// Index of the chosen action of a one-shot entry's set.
    OneShot(Option<u32>),
}

/// An array of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Counter(usize),
    Meter(usize),
    Register(usize),
}

/// Why a copy ended without being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drop {
    /// The egress specification was the drop port at the end of ingress.
    Ingress,
    /// The same at the end of egress.
    Egress,
    /// The multicast group has no copies, or does not exist.
    EmptyGroup,
    /// Its priority is that of no queue.
    NoQueue,
    /// The frame made too many passes.
    Looped,
}

/// What became of a frame that was handed to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Sent,
    /// To the controller, as a packet-in.
    Controller,
    /// There is no such port.
    NoPort,
    /// The port is full, closed or broken.
    Refused,
}

/// One event. Indices are into the program's arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A pass through parser and ingress begins.
    Ingress {
        /// `instance_type`.
        instance: u8,
        port: u32,
        bytes: usize,
    },
    /// A pass through egress begins.
    Egress {
        instance: u8,
        port: u32,
        rid: u32,
        bytes: usize,
    },
    State(usize),
    /// The header's bytes as they were on the wire.
    Extract {
        header: usize,
        bytes: Box<[u8]>,
    },
    ParserError(u32),
    /// A checksum was verified (index in `verify`).
    Verify {
        checksum: usize,
        ok: bool,
    },
    Condition {
        node: usize,
        holds: bool,
    },
    Lookup {
        table: usize,
        key: Box<[u8]>,
        found: Found,
    },
    /// No entry and no default action.
    NoAction,
    /// The table's direct meter, and its colour.
    DirectMeter {
        meter: usize,
        colour: u8,
    },
    /// An action starts, with its packed arguments.
    Action {
        action: usize,
        args: Box<[u8]>,
    },
    /// Statement `at` of a block was executed; `value` is what it wrote, if it writes a field.
    Step {
        block: Block,
        at: usize,
        value: Box<[u8]>,
    },
    /// A cell of an array was used; `ok` says whether the index was within bounds.
    Cell {
        cell: Cell,
        index: usize,
        ok: bool,
    },
    /// A `log_msg`.
    Message(String),
    /// An assertion failed.
    Failed(String),
    /// The action took too many steps.
    Endless(usize),
    /// To egress at this port.
    Forward(u32),
    /// The copies of a clone session (port and replication id); none if it does not exist.
    Clone {
        session: u32,
        copies: Option<Vec<(u32, u32)>>,
    },
    /// A digest (the list's id).
    Digest(u32),
    Resubmit,
    Recirculate,
    Multicast {
        group: u32,
        copies: Vec<(u32, u32)>,
    },
    /// A checksum was updated (index in `update`).
    Update {
        checksum: usize,
        value: u64,
    },
    Dropped(Drop),
    Transmitted {
        port: u32,
        frame: Box<[u8]>,
        delivery: Delivery,
    },
}

/// The events of one frame.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) events: Vec<Event>,
    /// Events beyond [`MAX_EVENTS`].
    pub(crate) lost: usize,
}

impl Trace {
    /// Notes an event.
    pub(crate) fn push(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        } else {
            self.lost += 1;
        }
    }
}

/// Notes an event; it is only made if someone listens.
macro_rules! trace {
    ($context:expr, $event:expr) => {
        if let Some(trace) = $context.trace.as_mut() {
            trace.push($event);
        }
    };
}
pub(crate) use trace;

/// The value that an instruction has just written to a field; empty if it writes none.
pub(crate) fn written(instruction: &Instruction, buf: &[u8]) -> Box<[u8]> {
    let field = match instruction {
        Instruction::Set(to, _)
        | Instruction::SetBytes(to, _)
        | Instruction::Copy { to, .. }
        | Instruction::Meter { to, .. }
        | Instruction::ReadRegister { to, .. }
        | Instruction::Hash { to, .. }
        | Instruction::Random { to, .. } => Some(*to),
        Instruction::SetElement(element, _) => element.field(buf),
        Instruction::Wide(step) => match &**step {
            WideStep::Set(to, _) | WideStep::ReadRegister { to, .. } => Some(*to),
            WideStep::SetElement(element, _) => element.field(buf),
            WideStep::WriteRegister { .. } => None,
        },
        _ => None,
    };
    field.map_or_else(Box::default, |field| value_of(field, buf))
}

/// A field's value, as bytes.
pub(crate) fn value_of(field: Field, buf: &[u8]) -> Box<[u8]> {
    let mut out = vec![0; field.bytes()];
    field.export(buf, &mut out);
    out.into()
}
