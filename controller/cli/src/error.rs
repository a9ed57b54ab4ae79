//! What can go wrong between the user and the daemon.

use tonic::{Code, Status};

/// A failure, in words that say what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] shunt_api::ConnectError),
    /// The daemon's own words.
    #[error("{}", said(.0))]
    Daemon(Box<Status>),
    /// Standard output.
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
    /// A value that JSON cannot carry.
    #[error("cannot print as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Error::Daemon(Box::new(status))
    }
}

fn said(status: &Status) -> String {
    match status.code() {
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
            Error::Daemon(status)
                if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) =>
            {
                3
            }
            _ => 1,
        }
    }
}
