//! What can go wrong in a testbed, in words that say what to do.

use std::path::PathBuf;

/// A testbed failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("cannot start {program}: {source}; {remedy}")]
    Start {
        /// Its name or path.
        program: String,
        /// The system's error.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A command failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A service ended, or did not become ready in time.
    #[error("{name}: {what}; its log is {}:\n{tail}", log.display())]
    Service {
        /// The service.
        name: String,
        /// What happened.
        what: String,
        /// Where its output went.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Something was awaited and did not come.
    #[error("{what} did not happen within {seconds} s")]
    Deadline {
        /// What was awaited.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// A testbed result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps a file's error.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::File { path, source }
    }
}
