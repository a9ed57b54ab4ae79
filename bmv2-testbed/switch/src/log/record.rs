//! A packet's way with all names resolved: the schema of the JSON log.
//!
//! One object a received frame, on one line. Members that are `null` or empty are left out, so
//! that a reader may ignore what it does not know.
//!
//! | member | |
//! |---|---|
//! | `packet` | number, counted from 0 |
//! | `time_ns` | nanoseconds since the switch started |
//! | `port`, `bytes` | where it came in, and its length |
//! | `data` | its first bytes in hexadecimal (`--dump-packet-data`) |
//! | `passes` | each run through `ingress` or `egress`, with `steps` (see [`Step`]: the member `step` says which) |
//! | `outcomes` | what became of each copy, and why (see [`Outcome`]) |
//! | `steps_lost` | steps that a packet beyond all measure took and that are not listed |

use serde::{Serialize, Serializer};

/// Names and written values, in order; an object in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// What happened to one received frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Counted from 0.
    pub packet: u64,
    /// Nanoseconds since the switch started.
    pub time_ns: u64,
    /// Where it came in.
    pub port: u32,
    /// Its length.
    pub bytes: usize,
    /// Its first bytes in hexadecimal, if asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Each run through ingress or egress.
    pub passes: Vec<Pass>,
    /// What became of each copy.
    pub outcomes: Vec<Outcome>,
    /// Steps that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub steps_lost: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A run through a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pass {
    /// `ingress` (parser and ingress) or `egress` (egress and deparser).
    pub pipeline: &'static str,
    /// `normal`, `ingress_clone`, `egress_clone`, `recirculated`, `replication` or `resubmitted`.
    pub instance: &'static str,
    /// The ingress or egress port.
    pub port: u32,
    /// `egress_rid` of a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_id: Option<u32>,
    /// Length, with headers added and removed so far.
    pub bytes: usize,
    /// In order.
    pub steps: Vec<Step>,
}

/// One field of a table's key, as the packet had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyField {
    /// As in the P4Info.
    pub name: String,
    /// `exact`, `lpm`, `ternary`, `range` or `optional`.
    pub kind: &'static str,
    /// The packet's value.
    pub value: String,
    /// What the entry that was hit asks for: `value`, `value/prefix`, `value &&& mask`,
    /// `low..high` or `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
}

/// A step of a pass. `source` is `file:line`, `text` the P4 source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the members are named in the log's schema")]
pub enum Step {
    /// The parser enters a state.
    ParserState { state: String },
    /// A header was extracted.
    Extract { header: String, fields: Fields },
    /// The parser stopped with an error; the packet goes on.
    ParserError { error: String },
    /// A checksum was verified after parsing.
    VerifyChecksum { field: String, correct: bool },
    /// A condition of the control flow.
    Condition {
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        holds: bool,
    },
    /// A lookup. `result` is `hit`, `miss` or `empty_group`.
    Table {
        table: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        key: Vec<KeyField>,
        result: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<i32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        member: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        group: Option<u32>,
        /// A counter of the entry counted the packet.
        counted: bool,
    },
    /// The lookup found neither an entry nor a default action.
    NoAction,
    /// An action starts.
    Action { action: String, arguments: Fields },
    /// A statement was executed. `value` is what it wrote to `field`.
    Statement {
        op: String,
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<String>,
    },
    /// A meter coloured the packet; no index for a direct meter.
    Meter {
        meter: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<usize>,
        colour: String,
    },
    /// A counter, meter or register was used.
    Array {
        array: String,
        index: usize,
        in_bounds: bool,
    },
    /// A `log_msg`.
    Message { text: String },
    /// An assertion failed, or an action never ended: the packet is dropped.
    Failed { text: String },
    /// The packet goes to egress at this port.
    Forward { port: u32, reason: String },
    /// Copies, as port and replication id; none if the session does not exist.
    Clone {
        session: u32,
        copies: Option<Vec<(u32, u32)>>,
    },
    /// Copies, as port and replication id.
    Multicast {
        group: u32,
        copies: Vec<(u32, u32)>,
        #[serde(skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// A digest to the controller.
    Digest { digest: String },
    /// The frame starts over as it came in.
    Resubmit,
    /// The frame starts over as it would have left.
    Recirculate,
    /// A checksum was written before deparsing.
    UpdateChecksum { field: String, value: String },
}

/// What became of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// `sent`, `to_controller`, `no_port`, `port_refused` or `dropped`.
    pub result: &'static str,
    /// The port; none if dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// The length sent; none if dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    /// Which statement decided it, and where that stands.
    pub reason: String,
    /// The first bytes sent in hexadecimal, if asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data: String,
}
