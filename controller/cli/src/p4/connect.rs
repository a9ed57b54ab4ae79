//! The connection to a switch, its P4Info, and the primary role when it is needed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use p4runtime::client::{Client, ClientConfig, ClientError, PipelineParts, Tls};
use p4runtime::p4info::P4InfoIndex;

use super::P4Error;

/// How to reach the switch.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Switch")]
pub(crate) struct Connection {
    /// The switch's P4Runtime server.
    #[arg(
        long,
        global = true,
        env = "P4RT_ADDRESS",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9559"
    )]
    address: String,

    /// The device behind the server.
    #[arg(
        long,
        global = true,
        env = "P4RT_DEVICE_ID",
        value_name = "ID",
        default_value_t = 1
    )]
    device_id: u64,

    /// The role to read and write in; the default role without.
    #[arg(long, global = true, value_name = "NAME")]
    role: Option<String>,

    /// The election id to write with; without, the highest that the switch has seen.
    #[arg(long, global = true, value_name = "ID")]
    election_id: Option<u128>,

    /// Take the primary role from a running controller.
    #[arg(long, global = true)]
    take_over: bool,

    /// TLS: the authority that signed the switch's certificate, in PEM.
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Mutual TLS: this client's certificate, in PEM.
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// Mutual TLS: the certificate's key, in PEM.
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// TLS: the name in the switch's certificate, where it is not the address's.
    #[arg(long, global = true, value_name = "NAME", requires = "ca")]
    tls_name: Option<String>,

    /// How long to wait for the connection and for each answer, such as 10s or 500ms.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Names and formats from this P4Info (text format), not from the switch's.
    #[arg(long = "with-p4info", global = true, value_name = "FILE")]
    p4info: Option<PathBuf>,
}

pub(super) fn file(path: &Path) -> Result<Vec<u8>, P4Error> {
    std::fs::read(path).map_err(|source| P4Error::File {
        path: path.to_path_buf(),
        source,
    })
}

pub(super) fn text_file(path: &Path) -> Result<String, P4Error> {
    std::fs::read_to_string(path).map_err(|source| P4Error::File {
        path: path.to_path_buf(),
        source,
    })
}

impl Connection {
    /// Connects, without a stream: what reading needs.
    pub(super) async fn client(&self) -> Result<Client, P4Error> {
        let election_id = self.election_id.unwrap_or(1);
        let mut config = ClientConfig::new(&self.address, self.device_id, election_id);
        config.role = self.role.clone();
        config.connect_timeout = self.timeout;
        config.rpc_timeout = self.timeout;
        // Loading takes its time, however little an answer may take.
        config.pipeline_timeout = config.pipeline_timeout.max(self.timeout);
        if let Some(ca) = &self.ca {
            let identity_pem = match (&self.cert, &self.key) {
                (Some(cert), Some(key)) => Some((file(cert)?, file(key)?)),
                _ => None,
            };
            config.tls = Some(Tls {
                ca_pem: file(ca)?,
                identity_pem,
                domain: self.tls_name.clone(),
            });
        } else if self.cert.is_some() {
            return Err(P4Error::Usage("--cert needs --ca".to_owned()));
        }
        Ok(Client::connect(config).await?)
    }

    /// The P4Info to go by.
    pub(super) async fn index(&self, client: &Client) -> Result<P4InfoIndex, P4Error> {
        if let Some(path) = &self.p4info {
            return Ok(P4InfoIndex::from_text(&text_file(path)?)?);
        }
        let pipeline = client.get_pipeline(PipelineParts::P4InfoAndCookie).await?;
        match pipeline.p4info() {
            Some(info) => Ok(P4InfoIndex::new(info.clone())?),
            None => Err(P4Error::Usage(format!(
                "the switch at {} runs no pipeline; load one with `shunt p4 pipeline set`",
                self.address
            ))),
        }
    }

    /// Client and P4Info.
    pub(super) async fn open(&self) -> Result<(Client, P4InfoIndex), P4Error> {
        let client = self.client().await?;
        let index = self.index(&client).await?;
        Ok((client, index))
    }

    /// Becomes the primary, but never in the place of a running controller unless
    /// told to: asks first who is primary, without an election id of its own.
    async fn become_primary(&self, client: &Client) -> Result<(), P4Error> {
        let election = client.election().await?;
        let highest = election.highest.unwrap_or(0);
        let id = match election.primary {
            Some(primary) if !self.take_over => {
                return Err(P4Error::Taken {
                    role: match &self.role {
                        Some(role) => format!("role {role:?}"),
                        None => "the default role".to_owned(),
                    },
                    primary,
                });
            }
            Some(_) => self.election_id.unwrap_or(highest.saturating_add(1)),
            // As high as the last primary's, not higher: so it can come back.
            None => self.election_id.unwrap_or(highest.max(1)),
        };
        match client.become_primary_as(id).await {
            Ok(()) => Ok(()),
            Err(ClientError::NotPrimary { .. }) if id < highest => {
                Err(P4Error::Below { given: id, highest })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Does the work as the primary, and leaves before it returns: the next command
    /// finds nobody in its way.
    pub(super) async fn as_primary<T>(
        &self,
        client: &Client,
        work: impl Future<Output = Result<T, P4Error>>,
    ) -> Result<T, P4Error> {
        self.become_primary(client).await?;
        let done = work.await;
        client.leave().await;
        done
    }

    /// The address, for messages.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The device, for messages.
    pub(super) fn device_id(&self) -> u64 {
        self.device_id
    }
}
