//! Why a program was refused.

use crate::json::HexError;

/// Why the JSON could not be loaded. Every variant names the construct and where it stands.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not JSON, or not shaped like p4c's output.
    #[error("the JSON cannot be read: {0}")]
    Json(String),
    /// A construct that this switch does not execute.
    #[error("{what} is not supported: {place}")]
    Unsupported {
        /// The construct.
        what: String,
        /// Where it stands.
        place: String,
    },
    /// A name that nothing in the document bears.
    #[error("unknown {what} `{name}` in {place}")]
    Unknown {
        /// The kind of object.
        what: &'static str,
        /// The name.
        name: String,
        /// Where it is used.
        place: String,
    },
    /// Two objects of one name.
    #[error("{what} `{name}` is defined twice")]
    Duplicate {
        /// The kind of object.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A part that breaks the format's rules.
    #[error("{place}: {why}")]
    Malformed {
        /// Where it stands.
        place: String,
        /// What is wrong.
        why: String,
    },
}

/// Shorthand for [`LoadError::Unsupported`].
pub(crate) fn unsupported(what: impl Into<String>, place: impl Into<String>) -> LoadError {
    LoadError::Unsupported {
        what: what.into(),
        place: place.into(),
    }
}

/// Shorthand for [`LoadError::Malformed`].
pub(crate) fn malformed(place: impl Into<String>, why: impl Into<String>) -> LoadError {
    LoadError::Malformed {
        place: place.into(),
        why: why.into(),
    }
}

/// Says where a bad number stood.
pub(crate) fn at(place: &str) -> impl Fn(HexError) -> LoadError + '_ {
    move |error| malformed(place, error.to_string())
}
