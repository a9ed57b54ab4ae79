//! What can be wrong with a line about an entity.

use crate::p4info::P4InfoError;
use crate::value::{EntityError, FormatError};

/// A line that does not say what to do, or says what the pipeline has not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamedError {
    /// A name or id that the P4Info does not have.
    #[error(transparent)]
    Unknown(#[from] P4InfoError),
    /// A value that does not fit its field or parameter.
    #[error("{place}: {source}")]
    Value {
        /// Such as `table "flow4", field "vpc"`.
        place: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// An entity that does not fit the P4Info.
    #[error(transparent)]
    Entity(#[from] EntityError),
    /// Anything else, with the remedy.
    #[error("{0}")]
    Fault(String),
}

pub(super) fn fault<T>(what: impl Into<String>) -> Result<T, NamedError> {
    Err(NamedError::Fault(what.into()))
}

/// `; did you mean "x"?` for the nearest of the known names, or nothing.
pub(super) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    crate::p4info::nearest(name, known)
        .map(|near| format!("; did you mean {near:?}?"))
        .unwrap_or_default()
}
