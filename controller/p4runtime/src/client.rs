//! An async P4Runtime client.
//!
//! ```text
//!              Write, Read, pipeline                 arbitration, packets out, acks
//!   Client ───────────────────────────► switch ◄────────────────────────── Client
//!     │                                    │
//!     └── stream task (one a session) ◄────┘
//!            ├─► watch: Arbitration (primary, backup, lost)
//!            └─► bounded queues: packets in, digests, idle timeouts, stream errors
//! ```
//!
//! A [`Client`] is cheap to clone; all clones share one connection, one stream
//! and one election id. The connection repairs itself, the stream does not: its
//! owner sees [`Arbitration::Lost`] and calls [`Client::reconnect`] with a
//! [`Backoff`], because whoever lost the primary role must read the switch back
//! before writing again.
//!
//! Every RPC runs in a `tracing` span `p4runtime` (level debug) with the fields
//! `rpc`, `address`, `device`, for a Write `updates`, and at its end `code`. What
//! is counted goes to the `metrics` facade, see [`metrics`].
//!
//! ```no_run
//! use p4runtime::client::{Client, ClientConfig, PipelineAction, PipelineParts};
//! use p4runtime::p4info::parse_p4info_text;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ClientConfig::new("127.0.0.1:9559", 1, 1)).await?;
//! client.become_primary().await?;
//!
//! const COOKIE: u64 = 7;
//! if client.get_pipeline(PipelineParts::CookieOnly).await?.cookie() != Some(COOKIE) {
//!     let p4info = parse_p4info_text(&std::fs::read_to_string("shunt.p4info.txtpb")?)?;
//!     let device_config = std::fs::read("shunt.json")?;
//!     let action = PipelineAction::VerifyAndCommit;
//!     client.set_pipeline(action, p4info, device_config, COOKIE).await?;
//! }
//!
//! let updates = vec![/* p4runtime::p4::v1::Update */];
//! if let Err(error) = client.write(&updates).await {
//!     for (at, refused) in error.refused() {
//!         eprintln!("update {at}: {}", refused.message);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod call;
mod config;
mod election;
mod error;
pub mod limits;
pub mod metrics;
mod pipeline;
mod read;
mod session;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

pub use backoff::Backoff;
pub use config::{ClientConfig, Tls};
pub use election::Election;
pub use error::{BatchError, ClientError, OrderedWriteError, WriteError, code_name};
pub use pipeline::{Pipeline, PipelineAction, PipelineParts};
pub use read::EntityStream;
pub use session::{Arbitration, StreamDrops};
pub use write::code_of;

use crate::p4::v1 as pb;
use crate::p4::v1::p4_runtime_client::P4RuntimeClient;
use call::Call;
use metrics::Metrics;
use session::{Events, Session, Standing};

/// A connection to one device of a P4Runtime server. Clones share everything.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    channel: Channel,
    metrics: Arc<Metrics>,
    standing: Standing,
    events: Events,
    queues: Mutex<Queues>,
    session: Mutex<Option<Session>>,
    election_id: Mutex<u128>,
}

/// The receiving ends, until someone takes them.
#[derive(Debug)]
struct Queues {
    packet_ins: Option<mpsc::Receiver<pb::PacketIn>>,
    digests: Option<mpsc::Receiver<pb::DigestList>>,
    idle_timeouts: Option<mpsc::Receiver<pb::IdleTimeoutNotification>>,
    stream_errors: Option<mpsc::Receiver<pb::StreamError>>,
}

impl Client {
    /// Connects to the server at `config.address`. Opens no stream yet.
    ///
    /// # Errors
    /// [`ClientError::Config`], [`ClientError::Unreachable`].
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let channel = config
            .endpoint()?
            .connect()
            .await
            .map_err(|error| ClientError::unreachable(&config.address, &error))?;
        Ok(Self::over(channel, config))
    }

    /// A client over a channel that the caller made: a socket of another kind,
    /// or a server in the same process. The transport settings of `config`
    /// (TLS, keep-alive, header list size) are then the caller's to apply.
    pub fn over(channel: Channel, config: ClientConfig) -> Self {
        let metrics = Arc::new(Metrics::new(&config));
        let (events, queues) = Events::new(&config, &metrics);
        Self(Arc::new(Inner {
            channel,
            standing: Standing::new(&metrics),
            metrics,
            events,
            queues: Mutex::new(queues),
            session: Mutex::new(None),
            election_id: Mutex::new(config.election_id),
            config,
        }))
    }

    /// What this client was made with.
    pub fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    /// The election id in use.
    pub fn election_id(&self) -> u128 {
        *lock(&self.0.election_id)
    }

    /// Becomes the primary of the configured role: opens the stream if there is
    /// none, and asks with the current election id, unless it is the primary with
    /// that already (P4Runtime 5).
    ///
    /// # Errors
    /// [`ClientError::NotPrimary`] if another client has a higher election id;
    /// the stream then stays open as a backup, and [`Client::arbitration`] tells
    /// of a promotion. [`ClientError::DuplicateElectionId`] if another client
    /// uses the same id. Else whatever kept the stream from opening.
    pub async fn become_primary(&self) -> Result<(), ClientError> {
        let election_id = self.election_id();
        // bmv2's server does not answer a bid that changes nothing.
        let has_bid = lock(&self.0.session)
            .as_ref()
            .is_some_and(|session| session.has_bid(election_id));
        if has_bid && self.0.standing.now() == Arbitration::Primary {
            return Ok(());
        }
        let request = session::arbitration_request(&self.0.config, election_id);
        let open = lock(&self.0.session)
            .as_ref()
            .and_then(|session| session.ask(election_id));
        let answer = match open {
            Some((outgoing, answer)) => {
                self.0.metrics.sent(request.update.as_ref());
                // A full queue waits; a stream that ends meanwhile answers with the reason.
                let _ = outgoing.send(request).await;
                answer
            }
            None => {
                let (session, answer) = Session::open(
                    self.stub(),
                    self.call("StreamChannel"),
                    &self.0.config,
                    request,
                    self.0.standing.clone(),
                    self.0.events.clone(),
                )
                .await?;
                if let Some(former) = lock(&self.0.session).replace(session) {
                    former.retire();
                }
                answer
            }
        };
        let timeout = self.0.config.rpc_timeout;
        let Ok(answer) = tokio::time::timeout(timeout, answer).await else {
            // An answer that comes later would be taken for the next bid's.
            self.close_stream("no answer to the arbitration in time");
            return Err(ClientError::Timeout {
                rpc: "StreamChannel",
                address: self.0.config.address.clone(),
                timeout,
            });
        };
        match answer.unwrap_or_else(|_| Err(self.lost()))? {
            Arbitration::Backup { primary } => Err(ClientError::NotPrimary {
                device_id: self.0.config.device_id,
                role: self.0.config.role.clone(),
                election_id,
                primary,
            }),
            Arbitration::Lost { reason } => Err(ClientError::StreamLost { reason }),
            Arbitration::Primary | Arbitration::Pending => Ok(()),
        }
    }

    /// As [`Client::become_primary`], with another election id from now on: to
    /// take over from the primary that [`ClientError::NotPrimary`] names.
    ///
    /// # Errors
    /// As [`Client::become_primary`].
    pub async fn become_primary_as(&self, election_id: u128) -> Result<(), ClientError> {
        *lock(&self.0.election_id) = election_id;
        self.become_primary().await
    }

    /// Gives up the stream, if there is one, opens another and asks to be the
    /// primary. One try; see [`Client::reconnect_with`] for as many as it takes.
    ///
    /// # Errors
    /// As [`Client::become_primary`].
    pub async fn reconnect(&self) -> Result<(), ClientError> {
        self.0.metrics.reconnect_tries.increment(1);
        self.close_stream("reconnecting");
        self.become_primary().await
    }

    /// Reconnects until it works, with the delays of `backoff`, which is reset
    /// then.
    ///
    /// # Errors
    /// What no retry mends (see [`ClientError::is_transient`]), or the last
    /// error once `backoff` has no more delays.
    pub async fn reconnect_with(&self, backoff: &mut Backoff) -> Result<(), ClientError> {
        loop {
            let error = match self.reconnect().await {
                Ok(()) => {
                    backoff.reset();
                    return Ok(());
                }
                Err(error) => error,
            };
            let Some(delay) = backoff.next_delay().filter(|_| error.is_transient()) else {
                return Err(error);
            };
            tracing::info!(%error, ?delay, "P4Runtime stream: trying again");
            tokio::time::sleep(delay).await;
        }
    }

    /// Ends the stream, and with it the primary role. The reason is what
    /// [`Arbitration::Lost`] will say.
    pub fn close_stream(&self, reason: &str) {
        if let Some(session) = lock(&self.0.session).take() {
            session.retire();
            self.0.standing.publish(Arbitration::Lost {
                reason: reason.to_owned(),
            });
        }
    }

    /// As [`Client::close_stream`], and waits until the switch has taken note, so
    /// that the next client does not find this one's id in use.
    pub async fn leave(&self) {
        let session = lock(&self.0.session).take();
        if let Some(session) = session {
            session.finish(limits::LEAVE_PATIENCE).await;
            self.0.standing.publish(Arbitration::Lost {
                reason: "left".to_owned(),
            });
        }
    }

    /// The state of the arbitration, now and whenever it changes.
    pub fn arbitration(&self) -> watch::Receiver<Arbitration> {
        self.0.standing.subscribe()
    }

    /// Sends a packet to the data plane. An error about it comes back on the
    /// stream errors.
    ///
    /// # Errors
    /// [`ClientError::StreamLost`] without an open stream.
    pub async fn send_packet(&self, packet: pb::PacketOut) -> Result<(), ClientError> {
        self.send(pb::stream_message_request::Update::Packet(packet))
            .await
    }

    /// Acknowledges a digest list. Acks are for de-duplication: until one comes,
    /// the switch need not report the same digests again (P4Runtime 15).
    ///
    /// # Errors
    /// [`ClientError::StreamLost`] without an open stream.
    pub async fn ack_digest(&self, digest_id: u32, list_id: u64) -> Result<(), ClientError> {
        let ack = pb::DigestListAck { digest_id, list_id };
        self.send(pb::stream_message_request::Update::DigestAck(ack))
            .await
    }

    async fn send(&self, update: pb::stream_message_request::Update) -> Result<(), ClientError> {
        let outgoing = lock(&self.0.session).as_ref().and_then(Session::outgoing);
        let request = pb::StreamMessageRequest {
            update: Some(update),
        };
        let outgoing = outgoing.ok_or_else(|| self.lost())?;
        self.0.metrics.sent(request.update.as_ref());
        outgoing.send(request).await.map_err(|_| self.lost())
    }

    /// The packets in, for the first who asks; they outlive reconnections.
    /// Bounded by `packet_in_queue`: what nobody takes in time is dropped and
    /// counted in [`Client::stream_drops`].
    pub fn take_packet_ins(&self) -> Option<mpsc::Receiver<pb::PacketIn>> {
        lock(&self.0.queues).packet_ins.take()
    }

    /// The digest lists, for the first who asks, bounded by `digest_queue`.
    pub fn take_digests(&self) -> Option<mpsc::Receiver<pb::DigestList>> {
        lock(&self.0.queues).digests.take()
    }

    /// The idle-timeout notifications, for the first who asks, bounded by
    /// `idle_timeout_queue`. They are lossy anyhow, and re-armed by the switch
    /// (P4Runtime 9.1.8).
    pub fn take_idle_timeouts(&self) -> Option<mpsc::Receiver<pb::IdleTimeoutNotification>> {
        lock(&self.0.queues).idle_timeouts.take()
    }

    /// The switch's errors about packets and acks sent to it, for the first who
    /// asks, bounded by `stream_error_queue`.
    pub fn take_stream_errors(&self) -> Option<mpsc::Receiver<pb::StreamError>> {
        lock(&self.0.queues).stream_errors.take()
    }

    /// How many messages of the stream were dropped because their queue was full.
    pub fn stream_drops(&self) -> StreamDrops {
        self.0.events.drops()
    }

    /// The version of the API that the server speaks, such as `1.3.0`.
    ///
    /// # Errors
    /// [`ClientError`]; `UNIMPLEMENTED` from a server older than 1.1.
    pub async fn capabilities(&self) -> Result<pb::CapabilitiesResponse, ClientError> {
        let request = pb::CapabilitiesRequest {
            device_id: self.0.config.device_id,
        };
        let mut stub = self.stub();
        let response = stub.capabilities(request);
        self.unary("Capabilities", self.0.config.rpc_timeout, response)
            .await
    }

    fn stub(&self) -> P4RuntimeClient<Channel> {
        P4RuntimeClient::new(self.0.channel.clone())
            .max_decoding_message_size(self.0.config.message_bytes_max)
    }

    fn role(&self) -> String {
        self.0.config.role.clone().unwrap_or_default()
    }

    fn wire_election_id(&self) -> Option<pb::Uint128> {
        Some(uint128(self.election_id()))
    }

    /// An RPC that begins now.
    fn call(&self, rpc: &'static str) -> Call {
        Call::new(rpc, &self.0.config, &self.0.metrics)
    }

    /// Awaits a unary RPC for at most `timeout`.
    async fn unary<T>(
        &self,
        rpc: &'static str,
        timeout: Duration,
        response: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, ClientError> {
        let mut call = self.call(rpc);
        let answer = call.within(&self.0.config, timeout, response).await?;
        let answer = answer.map_err(|status| self.translate(rpc, &status))?;
        call.end();
        Ok(answer.into_inner())
    }

    fn translate(&self, rpc: &'static str, status: &tonic::Status) -> ClientError {
        let known = self.0.standing.now();
        ClientError::from_status(rpc, &self.0.config, self.election_id(), &known, status)
    }

    fn lost(&self) -> ClientError {
        let reason = match self.0.standing.now() {
            Arbitration::Lost { reason } => reason,
            _ => "no stream is open".to_owned(),
        };
        ClientError::StreamLost { reason }
    }
}

fn uint128(value: u128) -> pb::Uint128 {
    // The two halves, each without loss.
    pb::Uint128 {
        high: (value >> 64) as u64,
        low: value as u64,
    }
}

fn number(value: &pb::Uint128) -> u128 {
    (u128::from(value.high) << 64) | u128::from(value.low)
}

/// Nothing in here panics while it holds a lock; were it so, the value is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
