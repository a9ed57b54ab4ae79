//! Turns recorded events into a [`Record`]: indices into names, bytes into values, and for each
//! copy the statement that decided where it went.

mod lookup;

use super::record::{Outcome, Pass, Record, Step};
use super::value::{Format, digits};
use crate::exec::trace::{Block, Cell, Delivery, Drop, Event};
use crate::program::Node;
use crate::program::source::Statement;
use crate::switch::Loaded;

/// Widths beyond that are not decimal anyway.
const MANY_BITS: u16 = u16::MAX;

/// The fields that decide where a packet goes.
const EGRESS_SPEC: &str = "egress_spec";
const GROUP: &str = "mcast_grp";

/// Builds a record from events.
pub(super) struct Resolver<'a> {
    loaded: &'a Loaded,
    /// Bytes of frames to show.
    dump: usize,
    record: Record,
    /// The table whose action runs, and how it came to it.
    cause: Option<String>,
    /// The action that runs.
    action: Option<String>,
    /// What last set the egress specification in this pass.
    decided: Option<String>,
    /// What last set the multicast group in this pass.
    grouped: Option<String>,
    /// Why the copies of this pass go where they go.
    sent_by: Vec<(u32, String)>,
}

fn instance(number: u8) -> &'static str {
    match number {
        1 => "ingress_clone",
        2 => "egress_clone",
        4 => "recirculated",
        5 => "replication",
        6 => "resubmitted",
        _ => "normal",
    }
}

fn colour(number: u8) -> String {
    match number {
        0 => "green".into(),
        1 => "yellow".into(),
        2 => "red".into(),
        other => other.to_string(),
    }
}

/// A statement's text: its source, or else what it is.
fn text_of(statement: &Statement) -> String {
    if !statement.source.text.is_empty() && statement.source.text != "=" {
        return statement.source.text.clone();
    }
    match &statement.target {
        Some((header, field)) => format!("{} {header}.{field}", statement.op),
        None => statement.op.clone(),
    }
}

impl<'a> Resolver<'a> {
    pub(super) fn new(loaded: &'a Loaded, record: Record, dump: usize) -> Self {
        Self {
            loaded,
            dump,
            record,
            cause: None,
            action: None,
            decided: None,
            grouped: None,
            sent_by: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Record {
        self.record
    }

    fn step(&mut self, step: Step) {
        if let Some(pass) = self.record.passes.last_mut() {
            pass.steps.push(step);
        }
    }

    fn pass(&mut self, pass: Pass) {
        self.cause = None;
        self.action = None;
        self.decided = None;
        self.grouped = None;
        self.record.passes.push(pass);
    }

    fn reason(&self, otherwise: &str) -> String {
        self.decided.clone().unwrap_or_else(|| otherwise.to_owned())
    }

    fn dropped(&mut self, reason: String) {
        self.record.outcomes.push(Outcome {
            result: "dropped",
            port: None,
            bytes: None,
            reason,
            data: String::new(),
        });
    }

    /// Adds one event.
    pub(super) fn event(&mut self, event: &Event) {
        let program = &self.loaded.program;
        match event {
            Event::Ingress {
                instance: number,
                port,
                bytes,
            } => self.pass(Pass {
                pipeline: "ingress",
                instance: instance(*number),
                port: *port,
                replication_id: None,
                bytes: *bytes,
                steps: Vec::new(),
            }),
            Event::Egress {
                instance: number,
                port,
                rid,
                bytes,
            } => {
                self.pass(Pass {
                    pipeline: "egress",
                    instance: instance(*number),
                    port: *port,
                    replication_id: (*number != 0).then_some(*rid),
                    bytes: *bytes,
                    steps: Vec::new(),
                });
            }
            Event::State(state) => {
                let state = program.parser.states.get(*state);
                let state = state.map(|s| s.name.clone()).unwrap_or_default();
                self.step(Step::ParserState { state });
            }
            Event::Extract { header, bytes } => {
                let name = program.layout.headers.get(*header);
                let name = name.map(|h| h.name.clone()).unwrap_or_default();
                let fields = self.header(*header, bytes);
                self.step(Step::Extract {
                    header: name,
                    fields,
                });
            }
            Event::ParserError(error) => {
                let name = program.errors.names.get(error).cloned();
                let error = name.unwrap_or_else(|| error.to_string());
                self.step(Step::ParserError { error });
            }
            Event::Verify { checksum, ok } => {
                let checksum = program.verify.get(*checksum);
                let field = self.checksum(checksum.map_or("", |c| &c.name));
                self.step(Step::VerifyChecksum {
                    field,
                    correct: *ok,
                });
            }
            Event::Update { checksum, value } => {
                let checksum = program.update.get(*checksum);
                let field = self.checksum(checksum.map_or("", |c| &c.name));
                self.step(Step::UpdateChecksum {
                    field,
                    value: format!("{value:#06x}"),
                });
            }
            Event::Condition { node, holds } => self.condition(*node, *holds),
            Event::Lookup { table, key, found } => self.lookup(*table, key, found),
            Event::NoAction => self.step(Step::NoAction),
            Event::DirectMeter {
                meter,
                colour: number,
            } => {
                let name = program.meters.get(*meter).map(|m| m.name.clone());
                self.step(Step::Meter {
                    meter: name.unwrap_or_default(),
                    index: None,
                    colour: colour(*number),
                });
            }
            Event::Action { action, args } => self.action(*action, args),
            Event::Step { block, at, value } => self.statement(*block, *at, value),
            Event::Cell { cell, index, ok } => {
                let (arrays, at) = match cell {
                    Cell::Counter(at) => (&program.counters, at),
                    Cell::Meter(at) => (&program.meters, at),
                    Cell::Register(at) => (&program.registers, at),
                };
                let array = arrays.get(*at).map(|a| a.name.clone());
                self.step(Step::Array {
                    array: array.unwrap_or_default(),
                    index: *index,
                    in_bounds: *ok,
                });
            }
            Event::Message(text) => self.step(Step::Message { text: text.clone() }),
            Event::Failed(place) => {
                let text = format!("{place} failed");
                self.decided = Some(text.clone());
                self.step(Step::Failed { text });
            }
            Event::Endless(action) => {
                let name = program.actions.get(*action).map_or("", |a| a.name.as_str());
                let text = format!("action {name} takes too many steps and was stopped");
                self.step(Step::Failed { text });
            }
            Event::Forward(_)
            | Event::Clone { .. }
            | Event::Digest(_)
            | Event::Resubmit
            | Event::Recirculate
            | Event::Multicast { .. }
            | Event::Dropped(_)
            | Event::Transmitted { .. } => self.traffic(event),
        }
    }

    fn traffic(&mut self, event: &Event) {
        match event {
            Event::Forward(port) => {
                let reason = self.reason("egress_spec was never set");
                self.sent_by.push((*port, reason.clone()));
                self.step(Step::Forward {
                    port: *port,
                    reason,
                });
            }
            Event::Clone { session, copies } => {
                for (port, _) in copies.iter().flatten() {
                    self.sent_by
                        .push((*port, format!("clone session {session}")));
                }
                self.step(Step::Clone {
                    session: *session,
                    copies: copies.clone(),
                });
            }
            Event::Multicast { group, copies } => {
                let mut reason = format!("multicast group {group}");
                if let Some(why) = &self.grouped {
                    reason = format!("{reason}, {why}");
                }
                for (port, _) in copies {
                    self.sent_by.push((*port, reason.clone()));
                }
                self.step(Step::Multicast {
                    group: *group,
                    copies: copies.clone(),
                    reason: self.grouped.clone().unwrap_or_default(),
                });
            }
            Event::Digest(id) => {
                let digest = self.loaded.program.digests.get(id);
                let digest = digest.map(|d| d.0.clone()).unwrap_or_default();
                self.step(Step::Digest { digest });
            }
            Event::Resubmit => self.step(Step::Resubmit),
            Event::Recirculate => self.step(Step::Recirculate),
            Event::Dropped(drop) => {
                let reason = match drop {
                    Drop::Ingress => self.reason("egress_spec is the drop port") + ", in ingress",
                    Drop::Egress => self.reason("egress_spec is the drop port") + ", in egress",
                    Drop::EmptyGroup => "the multicast group has no copies".to_owned(),
                    Drop::NoQueue => "the priority is that of no queue".to_owned(),
                    Drop::Looped => "the frame went round too often".to_owned(),
                };
                self.dropped(reason);
            }
            Event::Transmitted {
                port,
                frame,
                delivery,
            } => {
                let at = self.sent_by.iter().position(|(to, _)| to == port);
                let reason = at.map(|at| self.sent_by.remove(at).1);
                let mut data = String::new();
                let shown = frame.len().min(self.dump);
                digits(frame.get(..shown).unwrap_or_default(), &mut data);
                self.record.outcomes.push(Outcome {
                    result: match delivery {
                        Delivery::Sent => "sent",
                        Delivery::Controller => "to_controller",
                        Delivery::NoPort => "no_port",
                        Delivery::Refused => "port_refused",
                    },
                    port: Some(*port),
                    bytes: Some(frame.len()),
                    reason: reason.unwrap_or_default(),
                    data,
                });
            }
            _ => {}
        }
    }

    /// The field that a checksum is in.
    fn checksum(&self, name: &str) -> String {
        let fields = &self.loaded.program.sources.checksums;
        fields.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    fn condition(&mut self, node: usize, holds: bool) {
        let Some(Node::Condition { name, .. }) = self.loaded.program.nodes.get(node) else {
            return;
        };
        let source = self.loaded.program.sources.conditions.get(name);
        let text = source.map(|s| s.text.clone()).filter(|t| !t.is_empty());
        let text = text.unwrap_or_else(|| name.clone());
        self.cause = Some(format!("since `{text}` is {holds}"));
        self.step(Step::Condition {
            text,
            source: source.and_then(|s| s.place()),
            holds,
        });
    }

    fn statement(&mut self, block: Block, at: usize, value: &[u8]) {
        let sources = &self.loaded.program.sources;
        let statements = match block {
            Block::Action(action) => sources.actions.get(action),
            Block::State(state) => sources.states.get(state),
            Block::Deparser => Some(&sources.deparser),
        };
        let Some(statement) = statements.and_then(|s| s.get(at)) else {
            return;
        };
        let text = text_of(statement);
        let source = statement.source.place();
        if statement.op == "execute_meter" {
            // Its array and index stand in the step before.
            if let Some(Step::Array { array, index, .. }) =
                self.record.passes.last_mut().and_then(|p| p.steps.pop())
            {
                self.step(Step::Meter {
                    meter: array,
                    index: Some(index),
                    colour: colour(value.last().copied().unwrap_or(0)),
                });
            }
            return;
        }
        let target = statement.target.as_ref().filter(|_| !value.is_empty());
        let written = target.map(|(header, field)| {
            let width = u16::try_from(value.len() * 8).unwrap_or(MANY_BITS);
            let name = format!("{header}.{field}");
            (Format::guess(&name, width).write(value), name)
        });
        let drops = matches!(statement.op.as_str(), "mark_to_drop" | "drop");
        let sets = |name: &str| target.is_some_and(|(_, field)| field == name);
        if drops || sets(EGRESS_SPEC) || sets(GROUP) {
            let mut reason = text.clone();
            for part in [
                self.action.as_ref().map(|a| format!(" in action {a}")),
                source.as_ref().map(|s| format!(" ({s})")),
                self.cause.as_ref().map(|c| format!(", {c}")),
            ] {
                reason.push_str(part.as_deref().unwrap_or_default());
            }
            if sets(GROUP) {
                self.grouped = Some(reason);
            } else {
                self.decided = Some(reason);
            }
        }
        let (value, field) = written.unzip();
        self.step(Step::Statement {
            op: statement.op.clone(),
            text,
            source,
            field,
            value,
        });
    }
}
