//! The life of one unit: both entries of a connection, in hardware together or not at all.
//!
//! A unit has a *goal*, what is known about each entry in *hardware*, and perhaps a write *in
//! flight*. Every write follows from the first two; every answer to the worker follows from
//! what the acknowledgements say. No time, no I/O, no tables: the tests walk through every state
//! with every event against a model of the switch.
//!
//! ```text
//!            sent             both acknowledged
//!   Queued ───────▶ Installing ───────▶ Installed ──── read back: missing ──▶ Queued
//!     │               │      │              │
//!     │        Remove │      │ refused      │ Remove
//!     │ Remove        ▼      ▼              ▼
//!     │  (waits for the   Undoing        Removing     (deletes, until both are known gone)
//!     │    answer)           │              │
//!     ▼                      ▼              ▼
//!    Gone                 Refused          Gone
//! ```
//!
//! An installed unit whose place is wanted for others is evicted: Removing as well, but it ends
//! as `Evicted`, unless the worker's `Remove` comes in between.

use crate::queue::RefuseReason;

/// Writes that may fail for an install before it is given up; removals never are.
pub(crate) const INSTALL_ATTEMPTS_MAX: u8 = 8;
/// As [`INSTALL_ATTEMPTS_MAX`], when the switch answers that it failed.
pub(crate) const FAILED_ATTEMPTS_MAX: u8 = 2;

/// What is known about an entry in hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Presence {
    /// Not there.
    Absent,
    /// There, as wanted.
    Present,
    /// There, with another content.
    Stale,
    /// A write got no answer.
    Unknown,
}

/// What a unit is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Goal {
    /// In hardware.
    In,
    /// Out, because it cannot be installed.
    Undo(RefuseReason),
    /// Out, because others need its place more.
    Evict,
    /// Out, because the worker said so.
    Out,
}

/// A write of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Insert,
    Modify,
    Delete,
}

/// The switch's answer to one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done.
    Done,
    /// An insert: the key is there already.
    AlreadyExists,
    /// A modify or delete: the key is not there.
    NotFound,
    /// An insert: no room. Nothing was changed.
    TableFull,
    /// Refused for good. Nothing was changed.
    Rejected,
    /// Nothing was changed; the same write may succeed later.
    Retry,
    /// The switch says that it failed, and neither why nor whether anything was done. PI (bmv2)
    /// says so of all that its target refuses, a full table among it.
    Failed,
    /// No answer: done or not.
    Unknown,
}

/// What follows from an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing to do now.
    Wait,
    /// Write, as soon as possible.
    Write,
    /// Write again, after a delay.
    WriteLater,
    /// Tell the worker that it is installed.
    Installed,
    /// Forget the unit; tell the worker that it is refused.
    Refused(RefuseReason),
    /// Forget the unit; tell the worker that it was lost.
    Lost,
    /// Forget the unit; tell the worker that it was evicted.
    Evicted,
    /// Forget the unit; tell the worker that it is removed.
    Gone,
}

/// Names for what a unit is doing, in statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    Queued,
    Installing,
    Installed,
    Removing,
}

/// A unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Unit {
    goal: Goal,
    hardware: [Presence; 2],
    flight: Option<[Option<Op>; 2]>,
    /// `Installed` was said.
    announced: bool,
    attempts: u8,
}

impl Unit {
    /// To be installed; nothing of it is in hardware.
    pub(crate) const fn new() -> Self {
        Self {
            goal: Goal::In,
            hardware: [Presence::Absent; 2],
            flight: None,
            announced: false,
            attempts: 0,
        }
    }

    /// Installed before the engine was started; the first read-back says whether it is.
    pub(crate) const fn adopted() -> Self {
        Self {
            hardware: [Presence::Present; 2],
            announced: true,
            ..Self::new()
        }
    }

    /// One entry that nobody wants, to be removed.
    pub(crate) const fn orphan() -> Self {
        Self {
            goal: Goal::Out,
            hardware: [Presence::Stale, Presence::Absent],
            ..Self::new()
        }
    }

    pub(crate) const fn is_leaving(&self) -> bool {
        !matches!(self.goal, Goal::In)
    }

    #[cfg(test)]
    const fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    #[cfg(test)]
    const fn is_announced(&self) -> bool {
        self.announced
    }

    pub(crate) const fn attempts(&self) -> u8 {
        self.attempts
    }

    /// Wanted, and no write has been tried yet.
    pub(crate) fn is_untouched(&self) -> bool {
        *self == Self::new()
    }

    pub(crate) fn life(&self) -> Life {
        match (self.goal, self.flight) {
            (Goal::In, Some(_)) => Life::Installing,
            (Goal::In, None) if self.hardware == [Presence::Present; 2] => Life::Installed,
            (Goal::In, None) => Life::Queued,
            (Goal::Undo(_) | Goal::Evict | Goal::Out, _) => Life::Removing,
        }
    }

    /// The writes that lead to the goal.
    fn plan(&self) -> [Option<Op>; 2] {
        self.hardware.map(|presence| match (self.goal, presence) {
            (Goal::In, Presence::Absent | Presence::Unknown) => Some(Op::Insert),
            (Goal::In, Presence::Stale) => Some(Op::Modify),
            (Goal::In, Presence::Present) => None,
            (Goal::Undo(_) | Goal::Evict | Goal::Out, Presence::Absent) => None,
            (Goal::Undo(_) | Goal::Evict | Goal::Out, _) => Some(Op::Delete),
        })
    }

    /// Puts the unit in a batch; `None`: nothing is to be written, or a write is in flight.
    pub(crate) fn send(&mut self) -> Option<[Option<Op>; 2]> {
        let plan = self.plan();
        if self.flight.is_some() || plan == [None; 2] {
            return None;
        }
        self.flight = Some(plan);
        self.flight
    }

    /// The worker wants it out.
    pub(crate) fn remove(&mut self) -> Step {
        if self.goal == Goal::Out {
            return Step::Wait;
        }
        self.goal = Goal::Out;
        self.attempts = 0;
        self.settle()
    }

    /// Others need its place more; only of what is installed.
    pub(crate) fn evict(&mut self) -> Step {
        if self.life() != Life::Installed {
            return Step::Wait;
        }
        self.goal = Goal::Evict;
        self.attempts = 0;
        self.settle()
    }

    /// The switch does not answer: what was not sent yet is refused.
    pub(crate) fn give_up(&mut self) -> Step {
        if !self.is_untouched() {
            return Step::Wait;
        }
        self.goal = Goal::Undo(RefuseReason::Unavailable);
        self.settle()
    }

    /// The batch came back; an outcome for each entry that was written.
    pub(crate) fn acknowledge(&mut self, outcomes: [Outcome; 2]) -> Step {
        let Some(ops) = self.flight.take() else {
            return Step::Wait;
        };
        let mut refused = None;
        let mut again = false;
        let mut failed = false;
        for ((presence, op), outcome) in self.hardware.iter_mut().zip(ops).zip(outcomes) {
            let Some(op) = op else { continue };
            match (op, outcome) {
                (Op::Insert | Op::Modify, Outcome::Done) => *presence = Presence::Present,
                (Op::Delete, Outcome::Done | Outcome::NotFound) => *presence = Presence::Absent,
                (Op::Insert, Outcome::AlreadyExists) => {
                    *presence = Presence::Stale;
                    self.attempts = self.attempts.saturating_add(1);
                }
                (Op::Modify, Outcome::NotFound) => {
                    *presence = Presence::Absent;
                    self.attempts = self.attempts.saturating_add(1);
                }
                (Op::Insert | Op::Modify, Outcome::TableFull) => {
                    refused = Some(RefuseReason::TableFull);
                }
                (Op::Insert | Op::Modify, Outcome::Rejected) => {
                    refused = Some(RefuseReason::Rejected);
                }
                (_, Outcome::Unknown | Outcome::Failed) => {
                    *presence = Presence::Unknown;
                    again = true;
                    failed |= outcome == Outcome::Failed;
                }
                // Retry, and answers that make no sense for the write.
                _ => again = true,
            }
        }
        if again {
            self.attempts = self.attempts.saturating_add(1);
        }
        if self.goal == Goal::In {
            if let Some(reason) = refused {
                self.goal = Goal::Undo(reason);
                self.attempts = 0;
            } else if failed && self.attempts > FAILED_ATTEMPTS_MAX {
                self.goal = Goal::Undo(RefuseReason::Failed);
                self.attempts = 0;
            } else if self.attempts > INSTALL_ATTEMPTS_MAX {
                self.goal = Goal::Undo(RefuseReason::Unavailable);
                self.attempts = 0;
            }
        }
        match self.settle() {
            Step::Write if again => Step::WriteLater,
            step => step,
        }
    }

    /// What the switch holds was read while no write was in flight.
    pub(crate) fn read_back(&mut self, hardware: [Presence; 2]) -> Step {
        if self.flight.is_some() {
            return Step::Wait;
        }
        self.hardware = hardware;
        self.attempts = 0;
        self.settle()
    }

    fn settle(&mut self) -> Step {
        if self.flight.is_some() {
            return Step::Wait;
        }
        if self.plan() != [None; 2] {
            return Step::Write;
        }
        self.attempts = 0;
        match self.goal {
            Goal::In if self.announced => Step::Wait,
            Goal::In => {
                self.announced = true;
                Step::Installed
            }
            Goal::Undo(_) if self.announced => Step::Lost,
            Goal::Undo(reason) => Step::Refused(reason),
            Goal::Evict => Step::Evicted,
            Goal::Out => Step::Gone,
        }
    }
}

#[cfg(test)]
mod tests;
