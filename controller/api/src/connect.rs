//! A client on the daemon's unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::v1::shunt_client::ShuntClient;

/// The daemon answers at once or is stuck.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// To the answer's head; a long list may stream for longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection. Each message names the socket and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No such socket.
    #[error(
        "no daemon at {}: there is no such socket. Start shuntd, or name its socket with \
         --socket or SHUNT_SOCKET", .0.display()
    )]
    Missing(PathBuf),
    /// Nobody listens on it.
    #[error(
        "no daemon at {}: nobody listens there (it was killed, or is just starting). Start \
         shuntd, or look at its log", .0.display()
    )]
    Refused(PathBuf),
    /// Not ours to open.
    #[error(
        "{} may not be opened by you: run as root, or as a member of the socket's group",
        .0.display()
    )]
    Denied(PathBuf),
    /// Anything else.
    #[error("{} cannot be reached: {source}", path.display())]
    Other {
        /// Which socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Connects.
///
/// # Errors
/// As [`ConnectError`] says.
pub async fn connect(path: &Path) -> Result<ShuntClient<Channel>, ConnectError> {
    // Once by hand, for an error that says what is wrong.
    translate(path, UnixStream::connect(path).await)?;
    let owned = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = owned.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://shuntd.invalid")
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|error| ConnectError::Other {
            path: path.to_owned(),
            source: io::Error::other(error),
        })?;
    Ok(ShuntClient::new(channel))
}

fn translate<T>(path: &Path, result: io::Result<T>) -> Result<T, ConnectError> {
    result.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConnectError::Missing(path.to_owned()),
        io::ErrorKind::ConnectionRefused => ConnectError::Refused(path.to_owned()),
        io::ErrorKind::PermissionDenied => ConnectError::Denied(path.to_owned()),
        _ => ConnectError::Other {
            path: path.to_owned(),
            source,
        },
    })
}
