//! Which daemon is asked.

use std::path::PathBuf;

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::{Target, TlsTarget};
use tonic::transport::Channel;

use crate::error::Error;

/// How to reach the daemon. The names are not those of `shunt p4`'s options: both are global.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Daemon")]
pub(crate) struct Daemon {
    /// The daemon's unix socket.
    #[arg(
        long,
        global = true,
        env = "SHUNT_SOCKET",
        value_name = "FILE",
        default_value = shunt_api::DEFAULT_SOCKET
    )]
    socket: PathBuf,

    /// The daemon at another machine (its daemon.api_tls), in place of a socket.
    #[arg(
        long = "api",
        global = true,
        env = "SHUNT_API",
        value_name = "HOST:PORT"
    )]
    api: Option<String>,

    /// With --api: the authority that signed the daemon's certificate, in PEM.
    #[arg(long, global = true, env = "SHUNT_API_CA", value_name = "FILE")]
    api_ca: Option<PathBuf>,

    /// With --api: your certificate, in PEM.
    #[arg(long, global = true, env = "SHUNT_API_CERT", value_name = "FILE")]
    api_cert: Option<PathBuf>,

    /// With --api: your certificate's key, in PEM.
    #[arg(long, global = true, env = "SHUNT_API_KEY", value_name = "FILE")]
    api_key: Option<PathBuf>,

    /// With --api: the name in the daemon's certificate, where it is not the address's host.
    #[arg(long, global = true, env = "SHUNT_API_NAME", value_name = "NAME")]
    api_name: Option<String>,
}

impl Daemon {
    /// Connects.
    pub(crate) async fn connect(&self) -> Result<ShuntClient<Channel>, Error> {
        Ok(shunt_api::connect(&self.target()?).await?)
    }

    fn target(&self) -> Result<Target, Error> {
        let Some(address) = &self.api else {
            return Ok(Target::Socket(self.socket.clone()));
        };
        let file = |given: &Option<PathBuf>, what: &str| {
            given.clone().ok_or_else(|| {
                Error::Usage(format!(
                    "--api needs {what} too: the daemon and you show each other certificates \
                     (mutual TLS)"
                ))
            })
        };
        Ok(Target::Tls(TlsTarget {
            address: address.clone(),
            ca: file(&self.api_ca, "--api-ca")?,
            certificate: file(&self.api_cert, "--api-cert")?,
            key: file(&self.api_key, "--api-key")?,
            name: self.api_name.clone(),
        }))
    }
}
