//! What a client is made with, and every limit it keeps.

use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::ClientError;
use super::limits::*;

/// HTTP/2 flow-control windows: a large read should not wait for the window.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// TLS towards the server, all in PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// The authority that signed the server's certificate.
    pub ca_pem: Vec<u8>,
    /// This client's certificate and key, for mutual TLS.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// The name in the server's certificate, where it is not the address's.
    pub domain: Option<String>,
}

impl std::fmt::Debug for Tls {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("domain", &self.domain)
            .field("mutual", &self.identity_pem.is_some())
            .finish_non_exhaustive()
    }
}

/// What a [`super::Client`] is made with.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port`, an IPv6 host in brackets.
    pub address: String,
    /// The device; 1 or more (P4Runtime 1.5 refuses 0).
    pub device_id: u64,
    /// The election id; the highest of a role is its primary. After a restart
    /// it has to be above the last one: servers may remember.
    pub election_id: u128,
    /// The role; `None` is the default role, which is left unset on the wire.
    pub role: Option<String>,
    /// TLS, or plain text.
    pub tls: Option<Tls>,
    /// Waiting for a connection.
    pub connect_timeout: Duration,
    /// Waiting for the answer to an RPC.
    pub rpc_timeout: Duration,
    /// Waiting for a pipeline to be loaded.
    pub pipeline_timeout: Duration,
    /// Silence before the kernel probes the peer.
    pub tcp_keep_alive: Option<Duration>,
    /// HTTP/2 pings so often; a connection that does not answer one within the same time is
    /// dead. Off by default: gRPC's C++ server, which most switches
    /// use, closes a connection that pings more than once in five minutes.
    pub http2_keep_alive: Option<Duration>,
    /// Updates in one Write.
    pub batch_updates_max: usize,
    /// Encoded bytes of one Write.
    pub request_bytes_max: usize,
    /// Bytes of one message from the server.
    pub message_bytes_max: usize,
    /// Entities that a collected Read may return.
    pub read_entities_max: usize,
    /// Packets in that nobody has taken yet.
    pub packet_in_queue: usize,
    /// Digest lists that nobody has taken yet.
    pub digest_queue: usize,
    /// Idle-timeout notifications that nobody has taken yet.
    pub idle_timeout_queue: usize,
    /// Stream errors that nobody has taken yet.
    pub stream_error_queue: usize,
}

impl ClientConfig {
    /// Plain text, default role and default limits.
    pub fn new(address: impl Into<String>, device_id: u64, election_id: u128) -> Self {
        Self {
            address: address.into(),
            device_id,
            election_id,
            role: None,
            tls: None,
            connect_timeout: CONNECT_TIMEOUT,
            rpc_timeout: RPC_TIMEOUT,
            pipeline_timeout: PIPELINE_TIMEOUT,
            tcp_keep_alive: Some(TCP_KEEP_ALIVE),
            http2_keep_alive: None,
            batch_updates_max: BATCH_UPDATES_MAX,
            request_bytes_max: REQUEST_BYTES_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            read_entities_max: READ_ENTITIES_MAX,
            packet_in_queue: PACKET_IN_QUEUE,
            digest_queue: DIGEST_QUEUE,
            idle_timeout_queue: IDLE_TIMEOUT_QUEUE,
            stream_error_queue: STREAM_ERROR_QUEUE,
        }
    }

    /// The transport with these settings, unconnected: for [`super::Client::over`]
    /// with another kind of socket.
    ///
    /// # Errors
    /// [`ClientError::Config`] for an address, device id or certificate that
    /// cannot be used.
    pub fn endpoint(&self) -> Result<Endpoint, ClientError> {
        let fault = |fault: String| ClientError::Config { fault };
        if self.device_id == 0 {
            return Err(fault("the device id is 0; it starts at 1".to_owned()));
        }
        if self.role.as_deref() == Some("") {
            return Err(fault(
                "the role is empty; the default role is unset".to_owned(),
            ));
        }
        if self.batch_updates_max == 0 {
            return Err(fault("batch_updates_max is 0".to_owned()));
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.address))
            .ok()
            .filter(|endpoint| endpoint.uri().port_u16().is_some())
            .filter(|endpoint| endpoint.uri().path() == "/")
            .ok_or_else(|| {
                fault(format!(
                    "the address {:?} is not host:port, such as 127.0.0.1:9559",
                    self.address
                ))
            })?;
        let trailers = TRAILER_BYTES_BASE
            .saturating_add(TRAILER_BYTES_PER_UPDATE.saturating_mul(self.batch_updates_max));
        let mut endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_max_header_list_size(u32::try_from(trailers).unwrap_or(u32::MAX));
        // The interval alone would turn it on.
        if let Some(silence) = self.tcp_keep_alive {
            endpoint = endpoint
                .tcp_keepalive(Some(silence))
                .tcp_keepalive_interval(Some(TCP_KEEP_ALIVE_INTERVAL))
                .tcp_keepalive_retries(Some(TCP_KEEP_ALIVE_RETRIES));
        }
        if let Some(interval) = self.http2_keep_alive {
            endpoint = endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(interval)
                .keep_alive_while_idle(true);
        }
        if let Some(tls) = &self.tls {
            endpoint = endpoint
                .tls_config(tls.config())
                .map_err(|error| fault(format!("TLS: {}", super::error::chain(&error))))?;
        }
        Ok(endpoint)
    }
}

impl Tls {
    fn config(&self) -> ClientTlsConfig {
        let mut config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.ca_pem.clone()));
        if let Some((certificate, key)) = &self.identity_pem {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        if let Some(domain) = &self.domain {
            config = config.domain_name(domain);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["127.0.0.1:9559", "[::1]:9559", "switch.example:50051"] {
            assert!(ClientConfig::new(good, 1, 1).endpoint().is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1",
            "http://127.0.0.1:1",
            "host:99999",
            "host:1/x",
        ] {
            let error = ClientConfig::new(bad, 1, 1).endpoint().unwrap_err();
            assert!(error.to_string().contains("host:port"), "{bad}: {error}");
        }
    }

    #[test]
    fn device_zero_is_refused() {
        let error = ClientConfig::new("127.0.0.1:1", 0, 1).endpoint();
        assert!(error.unwrap_err().to_string().contains("device id"));
    }
}
