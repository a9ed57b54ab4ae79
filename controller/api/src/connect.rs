//! A client on the daemon's unix socket, or over TCP with mutual TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

use crate::v1::shunt_client::ShuntClient;

/// The daemon answers at once or is stuck.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// To the answer's head; a long list may stream for longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a daemon is.
#[derive(Clone, Debug)]
pub enum Target {
    /// At a unix socket.
    Socket(PathBuf),
    /// At an address (`daemon.api_tls`).
    Tls(TlsTarget),
}

/// A daemon over TCP. The files are PEM.
#[derive(Clone, Debug)]
pub struct TlsTarget {
    /// `host:port`.
    pub address: String,
    /// The authority that signed the daemon's certificate.
    pub ca: PathBuf,
    /// The client's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The name in the daemon's certificate, where it is not the address's host.
    pub name: Option<String>,
}

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
    /// An address that is none.
    #[error("{0:?} is not host:port, such as gateway.example.net:9463")]
    Address(String),
    /// A file of a certificate or a key.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What they have in them.
    #[error("the certificates cannot be used: {0}; they and the key have to be PEM")]
    Certificates(String),
    /// Over TCP.
    #[error("no daemon at {address}: {reason}")]
    Tls {
        /// Where.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
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
pub async fn connect(target: &Target) -> Result<ShuntClient<Channel>, ConnectError> {
    let channel = match target {
        Target::Socket(path) => to_socket(path).await?,
        Target::Tls(target) => over_tls(target).await?,
    };
    Ok(ShuntClient::new(channel))
}

async fn to_socket(path: &Path) -> Result<Channel, ConnectError> {
    // Once by hand, for an error that says what is wrong.
    translate(path, UnixStream::connect(path).await)?;
    let owned = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = owned.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://shuntd.invalid")
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|error| ConnectError::Other {
            path: path.to_owned(),
            source: io::Error::other(error),
        })
}

async fn over_tls(target: &TlsTarget) -> Result<Channel, ConnectError> {
    let address = &target.address;
    let not_one = |_| ConnectError::Address(address.clone());
    let uri: Uri = format!("https://{address}").parse().map_err(not_one)?;
    let (Some(_), Some(_), "/" | "") = (uri.host(), uri.port(), uri.path()) else {
        return Err(ConnectError::Address(address.clone()));
    };
    let file = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| ConnectError::File {
            path: path.clone(),
            source,
        })
    };
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(file(&target.ca)?))
        .identity(Identity::from_pem(
            file(&target.certificate)?,
            file(&target.key)?,
        ));
    if let Some(name) = &target.name {
        tls = tls.domain_name(name);
    }
    let endpoint = Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .tls_config(tls)
        .map_err(|error| ConnectError::Certificates(innermost(&error)))?;
    endpoint.connect().await.map_err(|error| {
        let reason = innermost(&error);
        ConnectError::Tls {
            address: address.clone(),
            reason: format!("{reason}{}", remedy(&reason)),
        }
    })
}

/// What is behind an error of the transport, which itself says little.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// What to do, by the words of TLS and of the system.
fn remedy(reason: &str) -> &'static str {
    let is = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if is(&["UnknownIssuer", "BadSignature"]) {
        ". Its certificate is not signed by --api-ca"
    } else if is(&["NotValidForName", "not valid for name"]) {
        ". Its certificate has another name: give it with --api-name"
    } else if is(&["xpired", "NotValidYet", "not valid yet"]) {
        ". Renew it, or look at the clock"
    } else if is(&["refused"]) {
        ". Start shuntd with daemon.api_tls, or look at the address"
    } else {
        ""
    }
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
