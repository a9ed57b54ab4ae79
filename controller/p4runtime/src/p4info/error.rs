//! What can be wrong with a P4Info, or with a question to it.

use std::fmt;

/// The kinds of P4 object that have ids and names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Object {
    Table,
    Action,
    ActionProfile,
    Counter,
    DirectCounter,
    Meter,
    DirectMeter,
    Register,
    Digest,
    ValueSet,
    PacketHeader,
    MatchField,
    Param,
    PacketField,
    Extern,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Action => "action",
            Self::ActionProfile => "action profile",
            Self::Counter => "counter",
            Self::DirectCounter => "direct counter",
            Self::Meter => "meter",
            Self::DirectMeter => "direct meter",
            Self::Register => "register",
            Self::Digest => "digest",
            Self::ValueSet => "value set",
            Self::PacketHeader => "controller header",
            Self::MatchField => "match field",
            Self::Param => "action parameter",
            Self::PacketField => "controller header field",
            Self::Extern => "extern",
        })
    }
}

/// A P4Info that cannot be used, or a name or id that it does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum P4InfoError {
    /// The text is not a P4Info in protobuf text format.
    #[error("not a P4Info in text format: {0}")]
    Text(String),
    /// The descriptors built into this crate could not be used.
    #[error("cannot describe P4Info messages: {0}")]
    Descriptors(String),
    /// No object has this name; the nearest one, if any is near.
    #[error("no {object} {name:?}{}{}", within(.owner), hint(.suggestion, .known))]
    UnknownName {
        /// What was looked for.
        object: Object,
        /// The name that was asked for.
        name: String,
        /// The table, action or header that was looked into.
        owner: Option<String>,
        /// A name like it.
        suggestion: Option<String>,
        /// All names, if they are few.
        known: Option<Vec<String>>,
    },
    /// No object has this id.
    #[error("no {object} with id {id:#x}{}", within(.owner))]
    UnknownId {
        /// What was looked for.
        object: Object,
        /// The id that was asked for.
        id: u32,
        /// The table, action or header that was looked into.
        owner: Option<String>,
    },
    /// Two objects share an id (P4Runtime 6.3).
    #[error("{object} {name:?} has id {id:#x}, which is taken")]
    DuplicateId {
        /// The second object with this id.
        object: Object,
        /// Its name.
        name: String,
        /// The id.
        id: u32,
    },
    /// Two objects of a kind share a name or alias.
    #[error("two {object}s are named {name:?}")]
    DuplicateName {
        /// The kind.
        object: Object,
        /// The name or alias.
        name: String,
    },
    /// An object lacks what it must have.
    #[error("{object} {name:?}: {fault}")]
    Invalid {
        /// The kind.
        object: Object,
        /// The name, or `#n` for one without.
        name: String,
        /// What is wrong.
        fault: String,
    },
}

fn within(owner: &Option<String>) -> String {
    owner
        .as_ref()
        .map(|owner| format!(" in {owner}"))
        .unwrap_or_default()
}

fn hint(suggestion: &Option<String>, known: &Option<Vec<String>>) -> String {
    match (suggestion, known.as_deref()) {
        (Some(near), _) => format!("; did you mean {near:?}?"),
        (None, Some([])) => "; there are none".to_owned(),
        (None, Some([only])) => format!("; there is only {only:?}"),
        (None, Some(known)) => format!("; there are {}", known.join(", ")),
        (None, None) => String::new(),
    }
}
