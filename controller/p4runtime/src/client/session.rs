//! One stream, from its opening to its loss: the arbitration and what the switch
//! sends of its own accord.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::Counter;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tracing::Instrument as _;

use super::call::Call;
use super::limits::STREAM_OUT_QUEUE;
use super::metrics::Metrics;
use super::{ClientConfig, ClientError, Queues, lock, number, uint128};
use crate::p4::v1 as pb;
use crate::p4::v1::p4_runtime_client::P4RuntimeClient;
use crate::p4::v1::stream_message_response::Update;

const RPC: &str = "StreamChannel";

/// Where a client stands with the switch (P4Runtime 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arbitration {
    /// No stream has been opened yet.
    Pending,
    /// This client is the primary: it may write.
    Primary,
    /// Another client is the primary, or none is.
    Backup {
        /// The highest election id that the switch has seen, if there is a
        /// primary.
        primary: Option<u128>,
    },
    /// The stream has ended, and the primary role with it.
    Lost {
        /// Why.
        reason: String,
    },
}

/// Where the client stands, for whoever watches.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    state: watch::Sender<Arbitration>,
    metrics: Arc<Metrics>,
}

impl Standing {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        Self {
            state: watch::Sender::new(Arbitration::Pending),
            metrics: Arc::clone(metrics),
        }
    }

    pub(super) fn publish(&self, state: Arbitration) {
        let primary = state == Arbitration::Primary;
        self.metrics.primary.set(if primary { 1 } else { 0 });
        self.state.send_replace(state);
    }

    pub(super) fn now(&self) -> Arbitration {
        self.state.borrow().clone()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arbitration> {
        self.state.subscribe()
    }
}

/// Messages of the stream that were dropped because their queue was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamDrops {
    /// Packets in.
    pub packet_ins: u64,
    /// Digest lists.
    pub digests: u64,
    /// Idle-timeout notifications.
    pub idle_timeouts: u64,
    /// Stream errors.
    pub stream_errors: u64,
}

/// The sending ends of the queues. They outlive every session.
#[derive(Clone, Debug)]
pub(super) struct Events {
    packet_ins: Queue<pb::PacketIn>,
    digests: Queue<pb::DigestList>,
    idle_timeouts: Queue<pb::IdleTimeoutNotification>,
    stream_errors: Queue<pb::StreamError>,
}

impl Events {
    pub(super) fn new(config: &ClientConfig, metrics: &Metrics) -> (Self, Queues) {
        let [packets, lists, notices, errors] = metrics.dropped();
        let (packet_ins, packet_ins_out) = Queue::new(config.packet_in_queue, packets);
        let (digests, digests_out) = Queue::new(config.digest_queue, lists);
        let (idle_timeouts, idle_timeouts_out) = Queue::new(config.idle_timeout_queue, notices);
        let (stream_errors, stream_errors_out) = Queue::new(config.stream_error_queue, errors);
        let queues = Queues {
            packet_ins: Some(packet_ins_out),
            digests: Some(digests_out),
            idle_timeouts: Some(idle_timeouts_out),
            stream_errors: Some(stream_errors_out),
        };
        let events = Self {
            packet_ins,
            digests,
            idle_timeouts,
            stream_errors,
        };
        (events, queues)
    }

    pub(super) fn drops(&self) -> StreamDrops {
        StreamDrops {
            packet_ins: self.packet_ins.dropped.load(Ordering::Relaxed),
            digests: self.digests.dropped.load(Ordering::Relaxed),
            idle_timeouts: self.idle_timeouts.dropped.load(Ordering::Relaxed),
            stream_errors: self.stream_errors.dropped.load(Ordering::Relaxed),
        }
    }
}

/// A bounded queue that drops the newest and counts, because an arbitration
/// update must never wait behind packets that nobody takes.
#[derive(Debug)]
struct Queue<T> {
    sender: mpsc::Sender<T>,
    dropped: Arc<AtomicU64>,
    metric: Counter,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            dropped: Arc::clone(&self.dropped),
            metric: self.metric.clone(),
        }
    }
}

impl<T> Queue<T> {
    fn new(limit: usize, metric: Counter) -> (Self, mpsc::Receiver<T>) {
        let (sender, receiver) = mpsc::channel(limit.max(1));
        let queue = Self {
            sender,
            dropped: Arc::default(),
            metric,
        };
        (queue, receiver)
    }

    fn push(&self, message: T) {
        if self.sender.try_send(message).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.metric.increment(1);
        }
    }
}

/// The answer to an arbitration request, when it comes.
pub(super) type Answer = oneshot::Receiver<Result<Arbitration, ClientError>>;

/// An open stream. Dropping it closes the stream.
#[derive(Debug)]
pub(super) struct Session {
    outgoing: mpsc::Sender<pb::StreamMessageRequest>,
    waiting: Arc<Mutex<Waiting>>,
    task: JoinHandle<()>,
}

/// Who waits for an answer; the switch answers in order.
#[derive(Debug, Default)]
struct Waiting {
    /// Set when the stream has ended or was replaced: it publishes no more.
    closed: bool,
    /// The election id of the last bid.
    election_id: u128,
    bids: VecDeque<Bid>,
}

/// A bid that has no answer yet.
#[derive(Debug)]
struct Bid {
    election_id: u128,
    answer: oneshot::Sender<Result<Arbitration, ClientError>>,
}

impl Bid {
    fn new(election_id: u128) -> (Self, Answer) {
        let (answer, waits) = oneshot::channel();
        let bid = Self {
            election_id,
            answer,
        };
        (bid, waits)
    }

    /// Whether the update can be the answer to this bid. One that names a lower
    /// primary tells of an election from before the bid was counted.
    fn is_answered_by(&self, state: &Arbitration) -> bool {
        !matches!(state, Arbitration::Backup { primary: Some(primary) } if *primary < self.election_id)
    }
}

impl Session {
    /// Opens a stream with an arbitration request as its first message: many
    /// servers send nothing at all before they have one.
    pub(super) async fn open(
        mut stub: P4RuntimeClient<Channel>,
        mut call: Call,
        config: &ClientConfig,
        first: pb::StreamMessageRequest,
        standing: Standing,
        events: Events,
    ) -> Result<(Self, Answer), ClientError> {
        let translator = Translator {
            config: config.clone(),
            election_id: election_id_of(&first).unwrap_or(config.election_id),
        };
        standing.metrics.sent(first.update.as_ref());
        let (outgoing, requests) = mpsc::channel(STREAM_OUT_QUEUE);
        // Cannot fail: the queue is empty, and its other end is held here.
        let _ = outgoing.try_send(first);
        let opening = stub.stream_channel(ReceiverStream::new(requests));
        let opened = call.within(config, config.rpc_timeout, opening).await?;
        let incoming = opened
            .map_err(|status| translator.translate(&status))?
            .into_inner();
        standing.metrics.streams_opened.increment(1);

        let (bid, answer) = Bid::new(translator.election_id);
        let waiting = Arc::new(Mutex::new(Waiting {
            closed: false,
            election_id: translator.election_id,
            bids: VecDeque::from([bid]),
        }));
        let span = call.span();
        let task = run(
            incoming,
            call,
            translator,
            Arc::clone(&waiting),
            standing,
            events,
        );
        let task = tokio::spawn(task.instrument(span));
        let session = Self {
            outgoing,
            waiting,
            task,
        };
        Ok((session, answer))
    }

    /// Where to send an arbitration request, and where its answer will be; `None`
    /// if the stream has ended.
    pub(super) fn ask(
        &self,
        election_id: u128,
    ) -> Option<(mpsc::Sender<pb::StreamMessageRequest>, Answer)> {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            return None;
        }
        let (bid, answer) = Bid::new(election_id);
        waiting.bids.push_back(bid);
        waiting.election_id = election_id;
        Some((self.outgoing.clone(), answer))
    }

    /// Whether the stream is open, and its last bid was with this election id.
    pub(super) fn has_bid(&self, election_id: u128) -> bool {
        let waiting = lock(&self.waiting);
        !waiting.closed && waiting.election_id == election_id
    }

    /// Where to send anything else; `None` if the stream has ended.
    pub(super) fn outgoing(&self) -> Option<mpsc::Sender<pb::StreamMessageRequest>> {
        // Tonic drops its end of the queue somewhat later than it reports the end.
        (!lock(&self.waiting).closed).then(|| self.outgoing.clone())
    }

    /// Closes this client's side of the stream and waits until the switch has closed
    /// its own, and so knows that the client is gone; at most for `patience`.
    pub(super) async fn finish(mut self, patience: Duration) {
        lock(&self.waiting).closed = true;
        // The last sender: without any, the request stream ends.
        self.outgoing = mpsc::channel(1).0;
        let _ = tokio::time::timeout(patience, &mut self.task).await; // or it is aborted
    }

    /// Closes the stream; from here on it publishes nothing.
    pub(super) fn retire(self) {
        lock(&self.waiting).closed = true;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the stream task needs to put a status into words.
struct Translator {
    config: ClientConfig,
    election_id: u128,
}

impl Translator {
    fn translate(&self, status: &tonic::Status) -> ClientError {
        let known = Arbitration::Pending;
        ClientError::from_status(RPC, &self.config, self.election_id, &known, status)
    }
}

/// The stream task: sorts what comes, until nothing comes any more.
async fn run(
    mut incoming: Streaming<pb::StreamMessageResponse>,
    call: Call,
    translator: Translator,
    waiting: Arc<Mutex<Waiting>>,
    standing: Standing,
    events: Events,
) {
    let error = loop {
        let update = match incoming.message().await {
            Ok(Some(response)) => response.update,
            Ok(None) => {
                call.end();
                break ClientError::StreamLost {
                    reason: format!("the switch at {} closed it", translator.config.address),
                };
            }
            Err(status) => {
                call.failed(status.code());
                break translator.translate(&status);
            }
        };
        standing.metrics.received(update.as_ref());
        match update {
            Some(Update::Arbitration(update)) => {
                let state = arbitration_state(&update);
                tracing::debug!(?state, "P4Runtime arbitration");
                let mut waiting = lock(&waiting);
                if waiting.closed {
                    return;
                }
                standing.publish(state.clone());
                let answered = |bid: &mut Bid| bid.is_answered_by(&state);
                if let Some(bid) = waiting.bids.pop_front_if(answered) {
                    let _ = bid.answer.send(Ok(state)); // the asker may have given up
                }
            }
            Some(Update::Packet(packet)) => events.packet_ins.push(packet),
            Some(Update::Digest(digest)) => events.digests.push(digest),
            Some(Update::IdleTimeoutNotification(idle)) => events.idle_timeouts.push(idle),
            Some(Update::Error(error)) => {
                tracing::debug!(?error, "P4Runtime stream error");
                events.stream_errors.push(error);
            }
            Some(Update::Other(_)) | None => {}
        }
    };
    let mut waiting = lock(&waiting);
    if waiting.closed {
        return;
    }
    tracing::warn!(%error, "P4Runtime stream lost");
    waiting.closed = true;
    standing.metrics.streams_lost.increment(1);
    standing.publish(Arbitration::Lost {
        reason: error.to_string(),
    });
    for bid in waiting.bids.drain(..) {
        let _ = bid.answer.send(Err(error.clone())); // the asker may have given up
    }
}

/// The election's outcome for this client: OK is the primary, `ALREADY_EXISTS` a
/// backup, `NOT_FOUND` says that there is no primary (P4Runtime 5.3).
fn arbitration_state(update: &pb::MasterArbitrationUpdate) -> Arbitration {
    let code = update.status.as_ref().map_or(0, |status| status.code);
    match Code::from_i32(code) {
        Code::Ok => Arbitration::Primary,
        Code::NotFound => Arbitration::Backup { primary: None },
        _ => Arbitration::Backup {
            primary: update.election_id.as_ref().map(number),
        },
    }
}

/// The first message of a stream, and of every further bid on it.
pub(super) fn arbitration_request(
    config: &ClientConfig,
    election_id: u128,
) -> pb::StreamMessageRequest {
    let role = config.role.as_ref().map(|name| pb::Role {
        name: name.clone(),
        ..Default::default()
    });
    pb::StreamMessageRequest {
        update: Some(pb::stream_message_request::Update::Arbitration(
            pb::MasterArbitrationUpdate {
                device_id: config.device_id,
                role,
                election_id: Some(uint128(election_id)),
                status: None,
            },
        )),
    }
}

fn election_id_of(request: &pb::StreamMessageRequest) -> Option<u128> {
    match &request.update {
        Some(pb::stream_message_request::Update::Arbitration(update)) => {
            update.election_id.as_ref().map(number)
        }
        _ => None,
    }
}
