//! The API's TCP listener, for clients that show a certificate.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, ServerTlsConfig, TcpConnectInfo};
use tonic::transport::{Certificate, Identity};

use crate::config::ApiTls;

/// TCP connections at a time; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 128;
/// Who has not shown a certificate by then is cut off.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// After the system gave no connection (no descriptors left), it is asked again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why there is no API over TCP.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be had.
    #[error("{} cannot be read: {source}; check daemon.api_tls.{what}", path.display())]
    File {
        /// The setting that names it.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file has something else in it.
    #[error("{} has no {wanted} in PEM; check daemon.api_tls.{what}", path.display())]
    NotPem {
        /// The setting that names it.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
    },
    /// They do not fit together.
    #[error(
        "{} and {} are no certificate with its key: {source}; check daemon.api_tls",
        certificate.display(),
        key.display()
    )]
    Unfit {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
        /// What TLS says.
        source: tonic::transport::Error,
    },
    /// Not to be listened at.
    #[error("the API cannot listen at {address}: {source}; check daemon.api_tls.address")]
    Address {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// What listens, and whom it lets in.
#[derive(Debug)]
pub struct TlsListener {
    listener: TcpListener,
    pub(super) identity: ServerTlsConfig,
    pub(super) config: ApiTls,
}

impl TlsListener {
    /// Reads the certificates and listens.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn bind(config: &ApiTls) -> Result<Self, TlsError> {
        let certificate = pem("certificate", &config.certificate, "CERTIFICATE")?;
        let key = pem("key", &config.key, "PRIVATE KEY")?;
        let client_ca = pem("client_ca", &config.client_ca, "CERTIFICATE")?;
        let identity = ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, key))
            .client_ca_root(Certificate::from_pem(client_ca))
            .timeout(HANDSHAKE_MAX);
        // Once by hand: what does not fit is told before anything runs.
        let fits = tonic::transport::Server::builder().tls_config(identity.clone());
        fits.map_err(|source| TlsError::Unfit {
            certificate: config.certificate.clone(),
            key: config.key.clone(),
            source,
        })?;
        let address = config.address;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| TlsError::Address { address, source })?;
        Ok(Self {
            listener,
            identity,
            config: config.clone(),
        })
    }

    /// Its connections, so many at a time.
    pub(super) fn incoming(self) -> impl Stream<Item = io::Result<Counted>> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        futures::stream::unfold(self.listener, move |listener| {
            let places = Arc::clone(&places);
            async move {
                let place = places.acquire_owned().await.ok()?;
                let stream = loop {
                    match listener.accept().await {
                        Ok((stream, _)) => break stream,
                        Err(error) => {
                            tracing::warn!(%error, "the API gets no connection");
                            tokio::time::sleep(ACCEPT_RETRY).await;
                        }
                    }
                };
                // What it says is small and waited for.
                let _ = stream.set_nodelay(true);
                let counted = Counted {
                    stream,
                    _place: place,
                };
                Some((Ok(counted), listener))
            }
        })
    }
}

fn pem(what: &'static str, path: &Path, wanted: &'static str) -> Result<Vec<u8>, TlsError> {
    let text = std::fs::read(path).map_err(|source| TlsError::File {
        what,
        path: path.to_owned(),
        source,
    })?;
    // "RSA PRIVATE KEY" and "EC PRIVATE KEY" are keys too.
    let end = format!("{wanted}-----");
    let lines = text.split(|byte| *byte == b'\n');
    let begins = |line: &[u8]| {
        let line = line.trim_ascii();
        line.starts_with(b"-----BEGIN ") && line.ends_with(end.as_bytes())
    };
    if lines.into_iter().any(begins) {
        return Ok(text);
    }
    Err(TlsError::NotPem {
        what,
        path: path.to_owned(),
        wanted,
    })
}

/// A connection that has a place among [`CONNECTIONS_MAX`].
#[derive(Debug)]
pub(super) struct Counted {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Connected for Counted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use shunt_testbed::certificates::Authority;

    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_told_before_anything_runs() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path();
        let authority = Authority::new(folder, "authority").unwrap();
        let [own, other] = ["own", "other"].map(|name| authority.sign(name, &[]).unwrap());
        let good = ApiTls {
            address: "127.0.0.1:0".parse().unwrap(),
            certificate: own.certificate.clone(),
            key: own.key.clone(),
            client_ca: authority.certificate.clone(),
            admins: BTreeSet::new(),
        };
        let listens = TlsListener::bind(&good).await.unwrap();
        let address = listens.listener.local_addr().unwrap();

        let missing = folder.join("missing.pem");
        for (config, wanted) in [
            (
                ApiTls {
                    key: missing.clone(),
                    ..good.clone()
                },
                "missing.pem cannot be read: No such file or directory (os error 2); check \
                 daemon.api_tls.key",
            ),
            (
                ApiTls {
                    client_ca: own.key.clone(),
                    ..good.clone()
                },
                "own.key has no CERTIFICATE in PEM; check daemon.api_tls.client_ca",
            ),
            (
                ApiTls {
                    key: other.key,
                    ..good.clone()
                },
                "are no certificate with its key",
            ),
            (ApiTls { address, ..good }, "check daemon.api_tls.address"),
        ] {
            let error = TlsListener::bind(&config).await.unwrap_err().to_string();
            assert!(error.contains(wanted), "{error:?} lacks {wanted:?}");
        }
    }
}
