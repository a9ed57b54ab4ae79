//! What can go wrong between a client and a switch, in words that name the thing
//! and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};

use super::session::Arbitration;
use super::{ClientConfig, code_of};
use crate::p4::v1 as pb;

/// How many refused updates a [`BatchError`] spells out.
const REFUSED_SHOWN_MAX: usize = 3;

/// An RPC or a stream that failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The configuration cannot be used.
    #[error("P4Runtime client: {fault}")]
    Config {
        /// What is wrong with it.
        fault: String,
    },
    /// No connection to the server, or it broke.
    #[error(
        "cannot reach the switch at {address}: {reason}; check that its P4Runtime server runs and listens there"
    )]
    Unreachable {
        /// The server's address.
        address: String,
        /// Why, in the words of the transport.
        reason: String,
    },
    /// No answer in time. What was asked may have been done.
    #[error("{rpc}: no answer from {address} within {timeout:?}")]
    Timeout {
        /// The RPC.
        rpc: &'static str,
        /// The server's address.
        address: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// Another client is the primary, or none is.
    #[error("not the primary of {} on device {device_id} with election id {election_id}: {}", role_name(.role), primary_name(.primary))]
    NotPrimary {
        /// The device.
        device_id: u64,
        /// The role; `None` is the default role.
        role: Option<String>,
        /// The election id in use.
        election_id: u128,
        /// The primary's election id, as far as it is known.
        primary: Option<u128>,
    },
    /// Another client of the role has the same election id (P4Runtime 5.2).
    #[error(
        "election id {election_id} is in use by another client of device {device_id}; use another ({message})"
    )]
    DuplicateElectionId {
        /// The device.
        device_id: u64,
        /// The election id in use.
        election_id: u128,
        /// The server's words.
        message: String,
    },
    /// The stream is closed, and with it the primary role.
    #[error("the P4Runtime stream is closed: {reason}; reconnect before writing")]
    StreamLost {
        /// Why it closed.
        reason: String,
    },
    /// The server refused the RPC.
    #[error("{rpc} refused: {}: {message}{}", code_name(*.code), remedy(.rpc, *.code))]
    Refused {
        /// The RPC.
        rpc: &'static str,
        /// The status code.
        code: Code,
        /// The server's words.
        message: String,
    },
    /// An answer that breaks the protocol.
    #[error("{rpc}: the switch's answer is not P4Runtime: {fault}")]
    Protocol {
        /// The RPC.
        rpc: &'static str,
        /// What is wrong with the answer.
        fault: String,
    },
    /// More entities than one collected Read may return.
    #[error("the read returned more than {limit} entities; read in parts or as a stream")]
    TooManyEntities {
        /// The limit, `read_entities_max`.
        limit: usize,
    },
}

impl ClientError {
    pub(super) fn unreachable(address: &str, error: &(dyn StdError + 'static)) -> Self {
        Self::Unreachable {
            address: address.to_owned(),
            reason: chain(error),
        }
    }

    /// Whether the same call may work later, after reconnecting or not.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::StreamLost { .. } => true,
            // A restarting switch may hold on to the dead stream for a while.
            Self::DuplicateElectionId { .. } => true,
            Self::Refused { code, .. } => {
                matches!(
                    code,
                    Code::Aborted | Code::ResourceExhausted | Code::Cancelled
                )
            }
            Self::Config { .. }
            | Self::NotPrimary { .. }
            | Self::Protocol { .. }
            | Self::TooManyEntities { .. } => false,
        }
    }

    /// Translates the status of an RPC (or of the stream) once, here.
    pub(super) fn from_status(
        rpc: &'static str,
        config: &ClientConfig,
        election_id: u128,
        known: &Arbitration,
        status: &Status,
    ) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::Unavailable => Self::Unreachable {
                address: config.address.clone(),
                reason: match status.source() {
                    Some(source) => chain(source),
                    None => message,
                },
            },
            Code::DeadlineExceeded => Self::Timeout {
                rpc,
                address: config.address.clone(),
                timeout: config.rpc_timeout,
            },
            Code::PermissionDenied => Self::NotPrimary {
                device_id: config.device_id,
                role: config.role.clone(),
                election_id,
                primary: match known {
                    Arbitration::Backup { primary } => *primary,
                    _ => None,
                },
            },
            // The one thing in an arbitration of ours that can be invalid.
            Code::InvalidArgument if rpc == "StreamChannel" => Self::DuplicateElectionId {
                device_id: config.device_id,
                election_id,
                message,
            },
            // What the transport itself reports carries its error as the source.
            Code::Unknown | Code::Internal | Code::Cancelled if status.source().is_some() => {
                Self::Unreachable {
                    address: config.address.clone(),
                    reason: status.source().map(chain).unwrap_or(message),
                }
            }
            code => Self::Refused { rpc, code, message },
        }
    }
}

/// The result of a batch of which some updates were refused (P4Runtime 12.3).
#[derive(Clone, Debug, PartialEq)]
pub struct BatchError {
    /// One for each update, in the order of the updates; code 0 went well.
    pub errors: Vec<pb::Error>,
}

impl BatchError {
    /// The updates that were refused: their place in the batch, and why.
    pub fn refused(&self) -> impl Iterator<Item = (usize, &pb::Error)> {
        refused_of(&self.errors)
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        spell(f, self.errors.len(), self.refused())
    }
}

/// The first refusals, and how many more.
fn spell<'a>(
    f: &mut fmt::Formatter<'_>,
    all: usize,
    refused: impl Iterator<Item = (usize, &'a pb::Error)>,
) -> fmt::Result {
    let refused: Vec<_> = refused.collect();
    write!(f, "{} of {all} updates were refused", refused.len())?;
    for (at, error) in refused.iter().take(REFUSED_SHOWN_MAX) {
        let code = code_name(code_of(error));
        write!(f, "; update {at}: {code}: {}", error.message)?;
    }
    match refused.len().checked_sub(REFUSED_SHOWN_MAX) {
        None | Some(0) => Ok(()),
        Some(more) => write!(f, "; and {more} more"),
    }
}

impl StdError for BatchError {}

/// A Write of which not everything went well.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WriteError {
    /// Every update was decided, some were refused.
    #[error(transparent)]
    Batch(BatchError),
    /// A request failed as a whole; its updates, and those after it, may have
    /// been done or not.
    #[error("{source} ({} updates were decided before)", .decided.len())]
    Failed {
        /// One for each update of the requests before, in order.
        decided: Vec<pb::Error>,
        /// Why it failed.
        source: ClientError,
    },
}

impl WriteError {
    /// The updates known to be refused: their place, and why.
    pub fn refused(&self) -> impl Iterator<Item = (usize, &pb::Error)> {
        match self {
            Self::Batch(batch) => refused_of(&batch.errors),
            Self::Failed { decided, .. } => refused_of(decided),
        }
    }
}

/// A Write in waves of which not everything went well.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderedWriteError {
    /// One for each update, in their order; code 0 went well, `None` was not
    /// decided: it may have been done or not.
    pub results: Vec<Option<pb::Error>>,
    /// Why the rest was not decided.
    pub source: Option<ClientError>,
}

impl OrderedWriteError {
    /// The updates known to be refused: their place, and why.
    pub fn refused(&self) -> impl Iterator<Item = (usize, &pb::Error)> {
        let results = self.results.iter().enumerate();
        results
            .filter_map(|(at, result)| Some((at, result.as_ref()?)))
            .filter(|(_, error)| error.canonical_code != Code::Ok as i32)
    }
}

impl fmt::Display for OrderedWriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        spell(f, self.results.len(), self.refused())?;
        match &self.source {
            Some(source) => {
                let open = self
                    .results
                    .iter()
                    .filter(|result| result.is_none())
                    .count();
                write!(f, "; {open} were not decided: {source}")
            }
            None => Ok(()),
        }
    }
}

impl StdError for OrderedWriteError {}

fn refused_of(errors: &[pb::Error]) -> impl Iterator<Item = (usize, &pb::Error)> {
    errors
        .iter()
        .enumerate()
        .filter(|(_, error)| error.canonical_code != Code::Ok as i32)
}

/// An error with its causes, which tonic hides in its sources.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn role_name(role: &Option<String>) -> String {
    match role {
        Some(role) => format!("role {role:?}"),
        None => "the default role".to_owned(),
    }
}

fn primary_name(primary: &Option<u128>) -> String {
    match primary {
        Some(primary) => {
            format!("the primary has election id {primary}; take over with a higher one")
        }
        None => "the switch has no primary that is known; arbitrate first".to_owned(),
    }
}

fn remedy(rpc: &str, code: Code) -> &'static str {
    match (rpc, code) {
        ("Write" | "Read", Code::FailedPrecondition) => "; push a pipeline first",
        ("SetForwardingPipelineConfig", Code::NotFound) => {
            "; check the device id and the role, and before a commit save a pipeline"
        }
        (_, Code::NotFound) => "; check the device id and the role",
        (_, Code::Unimplemented) => "; this switch does not offer it",
        _ => "",
    }
}

/// The name of the code in the specification, such as `ALREADY_EXISTS`.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
