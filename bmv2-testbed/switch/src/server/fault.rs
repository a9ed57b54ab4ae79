//! What a request is refused with.

use p4runtime::google::rpc;
use p4runtime::p4::v1 as pb;
use prost::Message;
use tonic::{Code, Status};

use super::deviation::Deviations;

/// The type URL of one update's error in a batch's details.
const ERROR_URL: &str = "type.googleapis.com/p4.v1.Error";

/// A status for one update or a whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// What PI answers, where that is another code.
    pi: Option<Code>,
}

impl Fault {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            pi: None,
        }
    }

    /// Notes that PI answers with another code.
    pub(crate) fn pi(mut self, code: Code) -> Self {
        self.pi = Some(code);
        self
    }

    /// The fault as a server tells it that departs from the specification so.
    pub(crate) fn told(mut self, deviations: Deviations) -> Self {
        if let (true, Some(code)) = (deviations.pi, self.pi) {
            self.code = code;
        }
        self
    }

    pub(crate) fn aborted(message: impl Into<String>) -> Self {
        Self::new(Code::Aborted, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(crate) fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(Code::OutOfRange, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub(crate) fn exists(message: impl Into<String>) -> Self {
        Self::new(Code::AlreadyExists, message)
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, message)
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    pub(crate) fn precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        Self::new(fault.code, fault.message)
    }
}

/// The status of a batch: OK if every part was, else `UNKNOWN` with one `p4.v1.Error` for each
/// update or read, in order (P4Runtime, "Batching of updates").
pub(crate) fn batch_status(results: &[Result<(), Fault>]) -> Result<(), Status> {
    let failed = results.iter().filter(|r| r.is_err()).count();
    if failed == 0 {
        return Ok(());
    }
    let message = format!("{failed} of {} failed", results.len());
    let details = results
        .iter()
        .map(|result| {
            let (code, message) = match result {
                Ok(()) => (Code::Ok, String::new()),
                Err(fault) => (fault.code, fault.message.clone()),
            };
            let error = pb::Error {
                canonical_code: code as i32,
                message,
                ..pb::Error::default()
            };
            prost_types::Any {
                type_url: ERROR_URL.into(),
                value: error.encode_to_vec(),
            }
        })
        .collect();
    let status = rpc::Status {
        code: Code::Unknown as i32,
        message: message.clone(),
        details,
    };
    Err(Status::with_details(
        Code::Unknown,
        message,
        status.encode_to_vec().into(),
    ))
}
