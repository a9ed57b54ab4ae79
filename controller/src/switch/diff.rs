//! Where a switch is not as it should be, to be shown.

use std::time::Duration;

use p4runtime::p4::v1::TableEntry;
use shunt_p4::tables::{AnyEntry, TableError};

/// One difference between what is wanted and what a switch holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What should be there.
    pub wanted: Option<AnyEntry>,
    /// What is.
    pub found: Found,
}

/// What a switch holds where something else is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Another entry of that key, or one where none is wanted.
    Entry(AnyEntry),
    /// An entry that no type of ours can say, and why.
    Foreign(Box<TableEntry>, TableError),
}

/// Which way they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Wanted, and not there.
    Missing,
    /// There, and otherwise.
    Different,
    /// There, and not wanted.
    Surplus,
    /// There, and nothing that this program could have written.
    Foreign,
}

impl Kind {
    /// Its name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Missing => "missing",
            Kind::Different => "different",
            Kind::Surplus => "surplus",
            Kind::Foreign => "foreign",
        }
    }
}

impl Difference {
    /// Which way they differ.
    pub const fn kind(&self) -> Kind {
        match (&self.wanted, &self.found) {
            (_, Found::Foreign(..)) => Kind::Foreign,
            (Some(_), Found::Nothing) => Kind::Missing,
            (Some(_), Found::Entry(_)) => Kind::Different,
            (None, _) => Kind::Surplus,
        }
    }
}

/// A switch as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Entries wanted.
    pub wanted: u64,
    /// Entries read.
    pub held: u64,
    /// Entries of another role, left alone.
    pub others: u64,
    /// Where they differ, by table.
    pub differences: Vec<Difference>,
}

/// What putting a switch right came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Entries wanted.
    pub wanted: u64,
    /// Differences found, by kind.
    pub found: Vec<(Kind, u64)>,
    /// Differences that are left: refused, or waiting for what was refused.
    pub left: u64,
    /// Entries of another role, left alone.
    pub others: u64,
    /// What the switch refused, in its words; at most [`REFUSALS_MAX`].
    pub refusals: Vec<String>,
    /// Refusals in all.
    pub refused: u64,
    /// How long it took to read the switch.
    pub read_in: Duration,
    /// To compare what was read with what is wanted.
    pub compared_in: Duration,
    /// To write.
    pub written_in: Duration,
}

/// Refusals of a [`Repair`] that are kept in words.
pub const REFUSALS_MAX: usize = 100;

/// Why a switch can be neither compared nor put right now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// There is no session.
    #[error("switch {name} is {state}{because}; try again when it is ready")]
    NotReady {
        /// Which.
        name: String,
        /// Its state.
        state: &'static str,
        /// What went wrong last.
        because: String,
    },
    /// Too many wait for it already.
    #[error("switch {0} is busy with other comparisons; try again later")]
    Busy(String),
    /// The daemon is stopping.
    #[error("the session with switch {0} has ended")]
    Ended(String),
}
