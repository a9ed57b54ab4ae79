//! Where revisions of the configuration are kept.
//!
//! A store is an append-only log. Each entry is a whole document, with who made it, when and why,
//! and how it differs from the one before: read backwards, that is the inverse change. The one
//! way to write is compare-and-append: an entry says which revision it follows, and is refused
//! when another has been there first. That is all a backend for several nodes has to offer too;
//! `conformance` holds every backend to it.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash_tests;
mod memory;
mod sqlite;
#[cfg(test)]
mod sqlite_tests;

use std::path::PathBuf;

pub use memory::MemoryStore;
pub use sqlite::SqliteStore;

use crate::config::Change;

/// Longest author, bytes; what is longer is cut.
pub const AUTHOR_MAX: usize = 128;
/// Longest comment, bytes.
pub const COMMENT_MAX: usize = 4096;

/// What is to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRevision {
    /// Who made it.
    pub author: String,
    /// Milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// Why; may be empty.
    pub comment: String,
    /// How it differs from the revision before.
    pub changes: Vec<Change>,
    /// The whole document, as JSON.
    pub document: String,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// From 1, without gaps.
    pub number: u64,
    /// The rest.
    pub entry: NewRevision,
}

/// An append-only log of revisions.
pub trait Store: Send {
    /// The newest revision's number; 0 when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    fn head(&self) -> Result<u64, StoreError>;

    /// A revision; `None`: there is no such.
    ///
    /// # Errors
    /// [`StoreError`].
    fn get(&self, number: u64) -> Result<Option<Revision>, StoreError>;

    /// At most `limit` revisions before `before`, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn log(&self, before: u64, limit: usize) -> Result<Vec<Revision>, StoreError>;

    /// Appends after `expected`, which has to be the head. When it returns `Ok` the revision
    /// is there for good; when not, nothing of it is.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the head is another.
    fn append(&mut self, expected: u64, entry: NewRevision) -> Result<u64, StoreError>;

    /// Where revisions are kept; `None`: only as long as the daemon runs.
    fn path(&self) -> Option<PathBuf>;
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else was first.
    #[error("revision {head} is there already, and this change was made to revision {expected}")]
    Conflict {
        /// The revision that the change was made to.
        expected: u64,
        /// The newest one.
        head: u64,
    },
    /// It is not a store of ours.
    #[error("{} is not a configuration store of shunt: name another with --store", .0.display())]
    Foreign(PathBuf),
    /// A newer shunt has written it.
    #[error(
        "{} has format {found}, and this shuntd knows up to {known}: a newer one has written it; \
         run that one", path.display()
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that we know.
        known: i64,
    },
    /// Another process has it open.
    #[error("{} is in use: another shuntd runs with it", .0.display())]
    InUse(PathBuf),
    /// No space left.
    #[error(
        "{}: no space is left, nothing was changed; make room on its file system", .0.display()
    )]
    Full(PathBuf),
    /// It, or its directory, cannot be written.
    #[error("{} cannot be written, nothing was changed: {reason}", path.display())]
    ReadOnly {
        /// Which.
        path: PathBuf,
        /// In the system's words.
        reason: String,
    },
    /// Its content is damaged.
    #[error(
        "{} is damaged ({reason}): nothing was written to it; put a copy in its place, or move it \
         away and start from a file with --config", path.display()
    )]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Anything else.
    #[error("{}: {reason}", path.display())]
    Other {
        /// Which.
        path: PathBuf,
        /// In its words.
        reason: String,
    },
}
