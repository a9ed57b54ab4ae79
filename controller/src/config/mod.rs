//! The configuration: one typed TOML document, checked as a whole.
//!
//! ```text
//!   file ──toml──▶ Document ──validate──▶ Config ──▶ Interface, Vpc (shunt-p4)
//!                 (as written)            (holds     Policy (shunt-slowpath)
//!                                         together)
//! ```
//! Kernel routes are never in it: the kernel is their source of truth.

pub mod change;
pub mod document;
pub mod edit;
mod fault;
mod model;
#[cfg(test)]
mod nat_tests;
#[cfg(test)]
mod offload_tests;
mod revisions;
#[cfg(test)]
pub(crate) mod switch_tests;
#[cfg(test)]
pub(crate) mod tests;
mod validate;
mod values;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

pub use change::{Change, ChangeError, diff};
pub use document::Document;
pub use edit::EditError;
pub use fault::Fault;
pub use model::{
    ApiConfig, ApiTls, Config, InterfaceConfig, PuntMeter, SlowPath, Switch, VpcConfig,
};
pub use revisions::{By, Configuration, ConfigurationError, Current, Edit, Made};
pub use validate::validate;

/// A document cannot be larger, bytes.
const DOCUMENT_MAX: usize = 16 << 20;

/// A text that is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// From 1, characters.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("the configuration file {} does not exist: name one with --config", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not TOML, or not of the document's shape.
    #[error("{}, {error}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and what.
        error: SyntaxError,
    },
    /// Its values don't hold together.
    #[error("{}", faulty(path, faults))]
    Faulty {
        /// Which.
        path: PathBuf,
        /// Everything that is wrong.
        faults: Vec<Fault>,
    },
}

fn faulty(path: &Path, faults: &[Fault]) -> String {
    let mut text = format!(
        "{} has {} fault{}:",
        path.display(),
        faults.len(),
        if faults.len() == 1 { "" } else { "s" }
    );
    for fault in faults {
        let _ = write!(text, "\n  {fault}");
    }
    text
}

/// Reads and checks a file.
///
/// # Errors
/// One message that names the file, the place and what is wrong.
pub fn load(path: &Path) -> Result<Document, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing(path.to_owned()),
        _ => unreadable(error),
    })?;
    if metadata.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    if metadata.len() > DOCUMENT_MAX as u64 {
        return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let document = document_of(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        error,
    })?;
    validate(&document).map_err(|faults| ConfigError::Faulty {
        path: path.to_owned(),
        faults,
    })?;
    Ok(document)
}

/// A document's text (TOML), nothing checked but its shape.
///
/// # Errors
/// [`SyntaxError`].
pub fn document_of(text: &str) -> Result<Document, SyntaxError> {
    if text.len() > DOCUMENT_MAX {
        return Err(SyntaxError {
            line: 1,
            column: 1,
            message: format!("a configuration has at most {DOCUMENT_MAX} bytes"),
        });
    }
    toml::from_str(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        SyntaxError {
            line,
            column,
            message: error.message().trim().replace('\n', ", "),
        }
    })
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |tail| tail.chars().count())
        + 1;
    (line, column)
}
