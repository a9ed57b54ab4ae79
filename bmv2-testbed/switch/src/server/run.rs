//! Starts and stops a whole switch: ports, server, idle sweep.
//!
//! Tasks: the gRPC server (one task a request, one more a stream), the events task, the sweep;
//! threads: one a network interface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use p4runtime::p4::config::v1::P4Info;
use p4runtime::p4::v1::ForwardingPipelineConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::core::Core;
use super::events::{EVENT_QUEUE, MAX_IDLE_ENTRIES, forward};
use super::rpc::p4_runtime_server::P4RuntimeServer;
use super::service::Service;
use crate::port::{InterfaceError, InterfacePort};
use crate::program::error::LoadError;
use crate::switch::{Options, Switch};

/// How often idle entries are looked for.
const SWEEP: Duration = Duration::from_millis(250);
/// The longest request, in bytes: a batch of some 300,000 entries.
const MAX_REQUEST_BYTES: usize = 64 << 20;
/// HTTP/2 flow control: what a client may send before it hears from the server. Several large
/// requests, so that none waits for a round trip.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The longest HTTP/2 frame that is taken.
const FRAME_BYTES: u32 = 128 << 10;
/// How long open requests are waited for when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// What a switch is started with.
#[derive(Clone, Default)]
pub struct Config {
    /// Where P4Runtime is served, `host:port`; port 0 takes a free one. Empty:
    /// `127.0.0.1:0`.
    pub grpc_addr: String,
    /// Port numbers and interface names.
    pub interfaces: Vec<(u32, String)>,
    /// The switch itself.
    pub options: Options,
    /// Serve P4Runtime over TLS only.
    pub tls: Option<Tls>,
    /// A program to start with: the JSON's text and its P4Info.
    pub program: Option<(Vec<u8>, P4Info)>,
}

/// Certificates in PEM form.
#[derive(Clone)]
pub struct Tls {
    /// The server's certificate chain.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// Clients need a certificate that this authority signed; none: they need no certificate.
    pub client_authority: Option<Vec<u8>>,
}

/// Why a switch did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The device id is 0.
    #[error("the device id must not be 0 (--device-id)")]
    DeviceId,
    /// Two interfaces have one port number.
    #[error("port {0} is given twice (-i)")]
    DuplicatePort(u32),
    /// An interface could not be opened.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The program was refused.
    #[error("the program was refused: {0}")]
    Program(#[from] LoadError),
    /// The certificates are of no use.
    #[error("TLS: {0} (see --grpc-server-cert, --grpc-server-key and --grpc-server-cacert)")]
    Tls(String),
    /// The server's address could not be listened on.
    #[error("cannot serve P4Runtime on {addr}: {why}")]
    Listen {
        /// The address.
        addr: String,
        /// What the system says.
        why: std::io::Error,
    },
}

/// A running switch. Dropping it stops the switch without waiting.
#[derive(Debug)]
pub struct Handle {
    switch: Switch,
    addr: SocketAddr,
    interfaces: Vec<InterfacePort>,
    stop: watch::Sender<bool>,
    server: Option<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
    core: CoreHandle,
}

struct CoreHandle(Arc<Core>);

impl std::fmt::Debug for CoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Core")
    }
}

/// Starts a switch on the current tokio runtime.
///
/// # Errors
/// See [`RunError`]; nothing is left running then.
pub async fn run(config: Config) -> Result<Handle, RunError> {
    if config.options.device_id == 0 {
        return Err(RunError::DeviceId);
    }
    for (i, (port, _)) in config.interfaces.iter().enumerate() {
        if config.interfaces.iter().skip(i + 1).any(|o| o.0 == *port) {
            return Err(RunError::DuplicatePort(*port));
        }
    }
    let switch = Switch::new(config.options);
    let core = Arc::new(Core::new(Arc::clone(&switch.0)));
    if let Some((json, p4info)) = config.program {
        switch.load(&json, p4info.clone())?;
        core.adopt(ForwardingPipelineConfig {
            p4info: Some(p4info),
            p4_device_config: json,
            cookie: None,
        });
    }
    let wanted = if config.grpc_addr.is_empty() {
        "127.0.0.1:0".to_owned()
    } else {
        config.grpc_addr
    };
    let refused = |why| RunError::Listen {
        addr: wanted.clone(),
        why,
    };
    let server = server(config.tls)?;
    let listener = TcpListener::bind(&wanted).await.map_err(refused)?;
    let addr = listener.local_addr().map_err(refused)?;
    let mut interfaces = Vec::new();
    for (port, interface) in &config.interfaces {
        interfaces.push(switch.attach_interface(*port, interface)?);
    }
    let (events, received) = mpsc::channel(EVENT_QUEUE);
    switch.0.listen(events);
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(serve(server, Arc::clone(&core), listener, stopped));
    let tasks = vec![
        tokio::spawn(forward(Arc::clone(&core), received)),
        tokio::spawn(sweep(switch.clone())),
    ];
    Ok(Handle {
        switch,
        addr,
        interfaces,
        stop,
        server: Some(server),
        tasks,
        core: CoreHandle(core),
    })
}

fn server(tls: Option<Tls>) -> Result<Server, RunError> {
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES);
    let Some(tls) = tls else {
        return Ok(server);
    };
    let identity = Identity::from_pem(tls.certificate, tls.key);
    let mut config = ServerTlsConfig::new().identity(identity);
    if let Some(authority) = tls.client_authority {
        config = config.client_ca_root(Certificate::from_pem(authority));
    }
    server.tls_config(config).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        RunError::Tls(cause.unwrap_or_else(|| error.to_string()))
    })
}

async fn serve(
    mut server: Server,
    core: Arc<Core>,
    listener: TcpListener,
    mut stopped: watch::Receiver<bool>,
) {
    let service = P4RuntimeServer::new(Service(core))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(usize::MAX);
    let stop = async move {
        // An error means that the handle is gone, which stops the server too.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    // The server's own setting does not reach a listener that it is given. Without it a small answer
    // waits for the peer's acknowledgement of the one before (RFC 1122 section 4.2.3.4), which Linux
    // delays by 40 ms.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = server
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the P4Runtime server failed");
    }
}

async fn sweep(switch: Switch) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let switch = switch.clone();
        // Large tables take a while to look through.
        let _ = tokio::task::spawn_blocking(move || switch.0.sweep(MAX_IDLE_ENTRIES)).await;
    }
}

impl Handle {
    /// Where P4Runtime is served.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The switch, to attach ports to and to look at counts.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Stops: streams end, requests finish or are cut off after a second, ports close.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        self.core.0.close();
        if let Some(server) = self.server.take() {
            let abort = server.abort_handle();
            if tokio::time::timeout(STOP_PATIENCE, server).await.is_err() {
                abort.abort();
            }
        }
        let interfaces = std::mem::take(&mut self.interfaces);
        let _ = tokio::task::spawn_blocking(move || drop(interfaces)).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        self.core.0.close();
        for task in &self.tasks {
            task.abort();
        }
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}
