//! What a switch would do with a packet: its program, run on entries read back from it.
//!
//! ```text
//!   packet ──▶ interpreter (shunt-switch) ──▶ look-ups: table, key ──▶ is it known what is there?
//!                  ▲                                                      │ no
//!                  └────── entries ◀── Read of just those keys ◀──────────┘
//! ```
//!
//! The program decides which tables are asked, and with which keys; each look-up whose key was not
//! read yet is read, and the packet runs again, until nothing is unknown. So a table of a million
//! entries costs as much as one of ten. Entries that change meanwhile may be seen before or after.
//! Meters are taken for green, and nothing is counted.

mod question;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use p4runtime::client::{Client, ClientError};
use p4runtime::p4::v1::{Entity, entity};
use p4runtime::p4info::P4InfoIndex;
use prost::Message as _;
use shunt_switch::log::{Outcome, PacketTrace, Record, Step};
use shunt_switch::{Options, Switch};

use question::Question;

/// Runs of one packet at most: more look-ups than any program has one after the other.
const RUNS_MAX: usize = 64;
/// Entries that are read for one packet at most: of tables that have to be read whole.
const ENTRIES_MAX: usize = 65_536;

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The switch does not answer, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The program is not to be run.
    #[error("the program cannot be run here: {0}")]
    Program(String),
    /// The switch has an entry that the interpreter refuses.
    #[error("an entry of the switch cannot be run here: {0}")]
    Entry(String),
    /// A look-up that cannot be put as a question.
    #[error("table {table} cannot be read by its key: {why}")]
    Key {
        /// Which.
        table: String,
        /// Why.
        why: String,
    },
    /// More than is read for a packet.
    #[error("a packet needs more than {ENTRIES_MAX} entries to be read")]
    TooMany,
    /// The packet's way changes with every reading.
    #[error("the switch's tables change faster than they are read; try again")]
    Restless,
}

/// A packet's way.
#[derive(Debug)]
pub struct Walk {
    /// Every step.
    pub record: Record,
    /// Entries that were read for it.
    pub entries: usize,
}

impl Walk {
    /// The frame that an outcome is about, as it leaves.
    pub fn frame(outcome: &Outcome) -> Vec<u8> {
        let digits = outcome.data.as_bytes().chunks(2);
        let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
        digits.filter_map(byte).collect()
    }
}

/// A pipeline that packets are run through here.
#[derive(Debug)]
struct Interpreter {
    switch: Switch,
    last: Arc<Mutex<Option<PacketTrace>>>,
}

impl Interpreter {
    fn new(json: &[u8], index: &P4InfoIndex) -> Result<Self, WalkError> {
        let last = Arc::new(Mutex::new(None));
        let sink = Arc::clone(&last);
        let switch = Switch::new(Options {
            trace: Some(Arc::new(move |trace| {
                *sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(trace);
            })),
            ..Options::default()
        });
        switch
            .load(json, index.p4info().clone())
            .map_err(|error| WalkError::Program(error.to_string()))?;
        Ok(Self { switch, last })
    }

    fn run(&self, port: u32, frame: &[u8]) -> Record {
        self.switch.inject(port, frame);
        let last = self.last.lock();
        let trace = last.unwrap_or_else(PoisonError::into_inner).take();
        trace
            .map(|trace| trace.record(usize::MAX))
            .unwrap_or_default()
    }
}

/// Finds a frame's way through the pipeline that came in at `port`.
///
/// # Errors
/// [`WalkError`].
pub async fn walk(
    client: &Client,
    pipeline: (&[u8], &P4InfoIndex),
    port: u32,
    frame: &[u8],
) -> Result<Walk, WalkError> {
    let (json, index) = pipeline;
    let interpreter = Interpreter::new(json, index)?;
    let mut asked: HashSet<Question> = HashSet::new();
    let mut known: HashSet<Vec<u8>> = HashSet::new();
    for _ in 0..RUNS_MAX {
        let record = interpreter.run(port, frame);
        let mut entities = Vec::new();
        for (table, key) in lookups(&record) {
            let question = Question::of(index, table, &key)?;
            if !asked.contains(&question) {
                entities.extend(question.entities());
                asked.insert(question);
            }
        }
        if entities.is_empty() {
            let entries = known.len();
            return Ok(Walk { record, entries });
        }
        let found = question::answer(client, index, entities).await?;
        for entity in found {
            if known.insert(entity.encode_to_vec()) {
                interpreter
                    .switch
                    .insert(entity)
                    .map_err(WalkError::Entry)?;
            }
        }
        if known.len() > ENTRIES_MAX {
            return Err(WalkError::TooMany);
        }
    }
    Err(WalkError::Restless)
}

/// The look-ups of a packet: table and key by name.
fn lookups(record: &Record) -> impl Iterator<Item = (&str, BTreeMap<&str, &str>)> {
    let steps = record.passes.iter().flat_map(|pass| &pass.steps);
    steps.filter_map(|step| match step {
        Step::Table { table, key, .. } => {
            let fields = key.iter();
            let fields = fields.map(|field| (field.name.as_str(), field.value.as_str()));
            Some((table.as_str(), fields.collect()))
        }
        _ => None,
    })
}

/// Which kind an entity is, for the order in which entities are put in.
fn rank(entity: &Entity) -> u8 {
    match entity.entity {
        Some(entity::Entity::ActionProfileMember(_)) => 0,
        Some(entity::Entity::ActionProfileGroup(_)) => 1,
        _ => 2,
    }
}
