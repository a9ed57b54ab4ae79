//! What can go wrong between the user and a switch.

use std::path::PathBuf;

use p4runtime::client::{ClientError, OrderedWriteError, code_name, code_of};
use p4runtime::named::NamedError;
use p4runtime::p4::v1 as pb;
use p4runtime::p4info::P4InfoError;

/// How many refused updates an error spells out.
const REFUSED_SHOWN_MAX: usize = 10;

/// A failure, in words that say what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum P4Error {
    /// The connection, or an RPC as a whole.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A line that does not fit the pipeline.
    #[error(transparent)]
    Named(#[from] NamedError),
    /// A P4Info that cannot be used, or a name that it does not have.
    #[error(transparent)]
    P4Info(#[from] P4InfoError),
    /// Somebody else is primary.
    #[error(
        "a controller is the primary of {role}, with election id {primary}: writing would take \
         the role from it; add --take-over to do so, or change it through that controller"
    )]
    Taken {
        /// The role.
        role: String,
        /// The primary's election id.
        primary: u128,
    },
    /// The switch remembers a higher election id.
    #[error(
        "election id {given} is below {highest}, the highest that the switch has seen: \
         leave --election-id out, or give {highest} or more"
    )]
    Below {
        /// What was given.
        given: u128,
        /// What the switch has seen.
        highest: u128,
    },
    /// Refused updates, each by its line.
    #[error("{0}")]
    Refused(String),
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line of a file.
    #[error("{}, line {line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: Box<NamedError>,
    },
    /// Printing.
    #[error(transparent)]
    Print(#[from] Box<crate::error::Error>),
    /// Anything else, with the remedy.
    #[error("{0}")]
    Usage(String),
}

impl From<crate::error::Error> for P4Error {
    fn from(error: crate::error::Error) -> Self {
        Self::Print(Box::new(error))
    }
}

impl P4Error {
    /// Whether the switch cannot be reached at all.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Client(ClientError::Unreachable { .. } | ClientError::Timeout { .. })
        )
    }

    /// The refusals of a Write, each with what it was about.
    pub(crate) fn refused(error: &OrderedWriteError, line_of: impl Fn(usize) -> String) -> Self {
        let mut text = String::new();
        let refused: Vec<(usize, &pb::Error)> = error.refused().collect();
        for (at, refusal) in refused.iter().take(REFUSED_SHOWN_MAX) {
            if !text.is_empty() {
                text.push('\n');
            }
            text += &format!("{}: {}", line_of(*at), said(refusal));
        }
        if refused.len() > REFUSED_SHOWN_MAX {
            text += &format!("\nand {} more refusals", refused.len() - REFUSED_SHOWN_MAX);
        }
        if let Some(source) = &error.source {
            if !text.is_empty() {
                text.push('\n');
            }
            text += &source.to_string();
        }
        Self::Refused(text)
    }
}

/// The switch's own words, and what to do.
fn said(error: &pb::Error) -> String {
    use tonic::Code;
    let code = code_of(error);
    let remedy = match code {
        Code::AlreadyExists => "; `modify` changes it",
        Code::NotFound => "; `read` shows what there is",
        Code::ResourceExhausted => "; the table is full",
        _ => "",
    };
    match error.message.as_str() {
        "" => format!("{}{remedy}", code_name(code)),
        message => format!("{}: {message}{remedy}", code_name(code)),
    }
}
