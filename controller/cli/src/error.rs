//! What can go wrong between the user and the daemon.

use tonic::{Code, Status};

use crate::p4::P4Error;

/// A failure, in words that say what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] shunt_api::ConnectError),
    /// The daemon's own words.
    #[error("{}", said(.0))]
    Daemon(Box<Status>),
    /// A switch, by `shunt p4`.
    #[error(transparent)]
    P4(#[from] Box<P4Error>),
    /// Arguments that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of captured frames.
    #[error("the capture {}: {what}", path.display())]
    Capture {
        /// Which.
        path: std::path::PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Standard output.
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
    /// A value that JSON cannot carry.
    #[error("cannot print as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<P4Error> for Error {
    /// A broken pipe is the same, whoever prints.
    fn from(error: P4Error) -> Self {
        match error {
            P4Error::Print(error) => *error,
            other => Error::P4(Box::new(other)),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Error::Daemon(Box::new(status))
    }
}

/// What broke the connection under a request, if that is what happened.
fn broken(status: &Status) -> Option<String> {
    std::error::Error::source(status).map(shunt_api::innermost)
}

fn said(status: &Status) -> String {
    match (status.code(), broken(status)) {
        // TLS 1.3: a client hears of it after its first request only.
        (_, Some(reason)) if reason.contains("alert") => format!(
            "the daemon does not take your certificate ({reason}): have it signed by an authority \
             of its daemon.api_tls.client_ca"
        ),
        // It is there, and silent: tonic's words of its own deadline.
        (code, Some(reason)) if reason == "Timeout expired" => without_cause(code, status),
        (_, Some(reason)) => format!("the daemon went away: {reason}"),
        (code, None) => without_cause(code, status),
    }
}

fn without_cause(code: Code, status: &Status) -> String {
    match code {
        Code::Unimplemented => {
            "the daemon does not know this command: it is of another version (`shunt version`)"
                .into()
        }
        Code::DeadlineExceeded | Code::Cancelled => {
            "the daemon does not answer: it hangs, or the socket is another program's; \
             look at its log"
                .into()
        }
        Code::Unavailable => format!("the daemon went away: {}", status.message()),
        _ => status.message().to_owned(),
    }
}

impl Error {
    /// The process's exit code for it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::Connect(_) => 3,
            Error::Usage(_) => 2,
            Error::P4(error) if error.is_unreachable() => 3,
            Error::Daemon(status)
                if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) =>
            {
                3
            }
            Error::Daemon(status) if broken(status).is_some() => 3,
            _ => 1,
        }
    }
}
