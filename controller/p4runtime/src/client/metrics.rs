//! What a client counts, told to the `metrics` facade.
//!
//! Whoever installs a recorder (`metrics-exporter-prometheus`, or another) before
//! the client is made gets these; without one they cost next to nothing. Each has
//! the labels `address` and `device`.
//!
//! | name | kind | other labels | what |
//! |---|---|---|---|
//! | `p4runtime_client_rpcs_total` | counter | `rpc`, `code` | RPCs that are over; `CANCELLED` also where the caller gave up |
//! | `p4runtime_client_rpc_duration_seconds` | histogram | `rpc` | how long they took, from the call to the end of the answer |
//! | `p4runtime_client_updates_total` | counter | `code` | updates that the switch decided, written (`OK`) or refused |
//! | `p4runtime_client_updates_retried_total` | counter | | updates written again because they came back `ABORTED` |
//! | `p4runtime_client_write_bytes_total` | counter | | encoded bytes of Write requests |
//! | `p4runtime_client_entities_read_total` | counter | | entities that came with Reads |
//! | `p4runtime_client_streams_opened_total` | counter | | streams opened; more than one are reconnects |
//! | `p4runtime_client_streams_lost_total` | counter | | streams that ended without being closed here |
//! | `p4runtime_client_reconnect_tries_total` | counter | | tries to open another stream |
//! | `p4runtime_client_primary` | gauge | | 1 while this client is the primary, else 0 |
//! | `p4runtime_client_stream_sent_total` | counter | `kind`: `arbitration`, `packet`, `digest_ack` | messages given to the stream |
//! | `p4runtime_client_stream_received_total` | counter | `kind`: `arbitration`, `packet`, `digest`, `idle_timeout`, `error`, `other` | messages from the stream |
//! | `p4runtime_client_stream_dropped_total` | counter | `kind` | of these, dropped because their queue was full |

use std::time::Duration;

use metrics::{
    Counter, Gauge, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use tonic::Code;

use super::{ClientConfig, code_name, code_of};
use crate::p4::v1 as pb;
use crate::p4::v1::stream_message_request::Update as Outgoing;
use crate::p4::v1::stream_message_response::Update as Incoming;

/// RPCs that are over.
pub const RPCS: &str = "p4runtime_client_rpcs_total";
/// How long RPCs took.
pub const RPC_DURATION: &str = "p4runtime_client_rpc_duration_seconds";
/// Updates that the switch decided.
pub const UPDATES: &str = "p4runtime_client_updates_total";
/// Updates written again.
pub const UPDATES_RETRIED: &str = "p4runtime_client_updates_retried_total";
/// Bytes of Write requests.
pub const WRITE_BYTES: &str = "p4runtime_client_write_bytes_total";
/// Entities that came with Reads.
pub const ENTITIES_READ: &str = "p4runtime_client_entities_read_total";
/// Streams opened.
pub const STREAMS_OPENED: &str = "p4runtime_client_streams_opened_total";
/// Streams that ended without being closed here.
pub const STREAMS_LOST: &str = "p4runtime_client_streams_lost_total";
/// Tries to open another stream.
pub const RECONNECT_TRIES: &str = "p4runtime_client_reconnect_tries_total";
/// Whether this client is the primary.
pub const PRIMARY: &str = "p4runtime_client_primary";
/// Messages given to the stream.
pub const STREAM_SENT: &str = "p4runtime_client_stream_sent_total";
/// Messages from the stream.
pub const STREAM_RECEIVED: &str = "p4runtime_client_stream_received_total";
/// Messages from the stream that nobody took in time.
pub const STREAM_DROPPED: &str = "p4runtime_client_stream_dropped_total";

/// Tells the recorder what each metric is, for its help texts. Call it once the
/// recorder is installed.
pub fn describe() {
    describe_counter!(RPCS, "P4Runtime RPCs that are over, by status code");
    describe_histogram!(
        RPC_DURATION,
        Unit::Seconds,
        "From the call of a P4Runtime RPC to the end of its answer"
    );
    describe_counter!(UPDATES, "Updates that the switch decided, by status code");
    describe_counter!(
        UPDATES_RETRIED,
        "Updates written again because they came back ABORTED"
    );
    describe_counter!(WRITE_BYTES, Unit::Bytes, "Encoded bytes of Write requests");
    describe_counter!(ENTITIES_READ, "Entities that came with Reads");
    describe_counter!(
        STREAMS_OPENED,
        "Streams opened; more than one are reconnects"
    );
    describe_counter!(
        STREAMS_LOST,
        "Streams that ended without being closed by the client"
    );
    describe_counter!(RECONNECT_TRIES, "Tries to open another stream");
    describe_gauge!(PRIMARY, "1 while the client is the primary, else 0");
    describe_counter!(STREAM_SENT, "Messages given to the stream, by kind");
    describe_counter!(STREAM_RECEIVED, "Messages from the stream, by kind");
    describe_counter!(
        STREAM_DROPPED,
        "Messages from the stream dropped because their queue was full, by kind"
    );
}

/// The handles of one client.
#[derive(Debug)]
pub(super) struct Metrics {
    labels: [Label; 2],
    updates_written: Counter,
    pub(super) updates_retried: Counter,
    pub(super) write_bytes: Counter,
    pub(super) entities_read: Counter,
    pub(super) streams_opened: Counter,
    pub(super) streams_lost: Counter,
    pub(super) reconnect_tries: Counter,
    pub(super) primary: Gauge,
    sent: [Counter; 3],
    received: [Counter; 6],
    dropped: [Counter; 4],
}

impl Metrics {
    pub(super) fn new(config: &ClientConfig) -> Self {
        let labels = [
            Label::new("address", config.address.clone()),
            Label::new("device", config.device_id.to_string()),
        ];
        let plain = |name| counter!(name, labels.iter());
        let of = |name, kind: &'static str| counter!(name, with(&labels, "kind", kind));
        Self {
            updates_written: counter!(UPDATES, with(&labels, "code", code_name(Code::Ok))),
            updates_retried: plain(UPDATES_RETRIED),
            write_bytes: plain(WRITE_BYTES),
            entities_read: plain(ENTITIES_READ),
            streams_opened: plain(STREAMS_OPENED),
            streams_lost: plain(STREAMS_LOST),
            reconnect_tries: plain(RECONNECT_TRIES),
            primary: gauge!(PRIMARY, labels.iter()),
            sent: ["arbitration", "packet", "digest_ack"].map(|kind| of(STREAM_SENT, kind)),
            received: [
                "arbitration",
                "packet",
                "digest",
                "idle_timeout",
                "error",
                "other",
            ]
            .map(|kind| of(STREAM_RECEIVED, kind)),
            dropped: ["packet", "digest", "idle_timeout", "error"]
                .map(|kind| of(STREAM_DROPPED, kind)),
            labels,
        }
    }

    /// Where the drops of packets, digests, idle timeouts and errors are counted.
    pub(super) fn dropped(&self) -> [Counter; 4] {
        self.dropped.clone()
    }

    /// An RPC that is over.
    pub(super) fn rpc(&self, rpc: &'static str, code: Code, took: Duration) {
        let mut labels = with(&self.labels, "rpc", rpc);
        histogram!(RPC_DURATION, labels.clone()).record(took);
        labels.push(Label::from_static_parts("code", code_name(code)));
        counter!(RPCS, labels).increment(1);
    }

    /// The results of a batch; `None`: all went well.
    pub(super) fn updates(&self, count: usize, results: Option<&[pb::Error]>) {
        let refused = results.unwrap_or_default().iter().map(code_of);
        let mut by_code: Vec<(Code, u64)> = Vec::new();
        for code in refused.filter(|code| *code != Code::Ok) {
            match by_code.iter_mut().find(|(known, _)| *known == code) {
                Some((_, times)) => *times += 1,
                None => by_code.push((code, 1)),
            }
        }
        let refused: u64 = by_code.iter().map(|(_, times)| times).sum();
        self.updates_written
            .increment((count as u64).saturating_sub(refused));
        for (code, times) in by_code {
            counter!(UPDATES, with(&self.labels, "code", code_name(code))).increment(times);
        }
    }

    /// A message given to the stream.
    pub(super) fn sent(&self, update: Option<&Outgoing>) {
        let [arbitration, packet, digest_ack] = &self.sent;
        match update {
            Some(Outgoing::Arbitration(_)) => arbitration.increment(1),
            Some(Outgoing::Packet(_)) => packet.increment(1),
            Some(Outgoing::DigestAck(_)) => digest_ack.increment(1),
            Some(Outgoing::Other(_)) | None => {}
        }
    }

    /// A message from the stream.
    pub(super) fn received(&self, update: Option<&Incoming>) {
        let [arbitration, packet, digest, idle_timeout, error, other] = &self.received;
        match update {
            Some(Incoming::Arbitration(_)) => arbitration.increment(1),
            Some(Incoming::Packet(_)) => packet.increment(1),
            Some(Incoming::Digest(_)) => digest.increment(1),
            Some(Incoming::IdleTimeoutNotification(_)) => idle_timeout.increment(1),
            Some(Incoming::Error(_)) => error.increment(1),
            Some(Incoming::Other(_)) | None => other.increment(1),
        }
    }
}

fn with(labels: &[Label], key: &'static str, value: &'static str) -> Vec<Label> {
    let mut labels = labels.to_vec();
    labels.push(Label::from_static_parts(key, value));
    labels
}
