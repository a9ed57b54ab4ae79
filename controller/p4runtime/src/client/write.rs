//! Writing in batches, with one result for each update (P4Runtime 12).
//!
//! A request is encoded straight from the caller's updates, each once, so that
//! nothing is cloned for the sake of a retry.

use std::collections::VecDeque;

use prost::Message as _;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Status};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::limits::ABORTED_ROUNDS_WITHOUT_PROGRESS_MAX;
use super::{BatchError, Client, ClientError, OrderedWriteError, WriteError};
use crate::google::rpc;
use crate::order::References;
use crate::p4::v1 as pb;
use crate::wire::WireUpdate;

const RPC: &str = "Write";
const PATH: &str = "/p4.v1.P4Runtime/Write";
/// What an update takes, to begin with: an IPv4 flow with both ends rewritten.
const UPDATE_BYTES_EXPECTED: usize = 192;

/// The status code of an update's result.
pub fn code_of(error: &pb::Error) -> Code {
    Code::from_i32(error.canonical_code)
}

impl Client {
    /// Writes updates, in as many requests as `batch_updates_max` and
    /// `request_bytes_max` make of them, one after the other. Within a request
    /// the switch may reorder: updates that depend on one another go into
    /// separate calls, or through [`Client::write_ordered`]. `ABORTED` updates are
    /// written again, as long as each time some are decided. Any number of calls may be in
    /// flight at once.
    ///
    /// # Errors
    /// [`WriteError::Batch`] with a result for each update, or
    /// [`WriteError::Failed`] if a request failed as a whole.
    pub async fn write(&self, updates: impl AsRef<[pb::Update]> + Send) -> Result<(), WriteError> {
        self.write_wire(updates.as_ref()).await
    }

    /// As [`Client::write`], of updates that are no messages but write themselves:
    /// for whoever keeps a million entries in types of their own.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn write_wire<U: WireUpdate + Sync>(&self, updates: &[U]) -> Result<(), WriteError> {
        // Allocated with the first refusal: most writes have none.
        let mut results: Vec<pb::Error> = Vec::new();
        let mut rest = updates;
        while !rest.is_empty() {
            let done = updates.len() - rest.len();
            let (request, count) = self.encode(rest.iter());
            let (batch, after) = rest.split_at(count);
            rest = after;
            match self.write_batch(request, batch).await {
                Ok(None) => {}
                Ok(Some(errors)) => {
                    results.resize_with(done, pb::Error::default);
                    results.extend(errors);
                }
                Err(source) => {
                    results.resize_with(done, pb::Error::default);
                    return Err(WriteError::Failed {
                        decided: results,
                        source,
                    });
                }
            }
        }
        if results.is_empty() {
            return Ok(());
        }
        results.resize_with(updates.len(), pb::Error::default);
        Err(WriteError::Batch(BatchError { errors: results }))
    }

    /// Writes updates that may depend on one another: in waves, each its own
    /// Write, as `references` orders them. A wave is sent also when updates of
    /// the one before were refused; the switch refuses what cannot stand.
    ///
    /// # Errors
    /// [`OrderedWriteError`] with a result for every update that was decided, in
    /// the order of `updates`.
    pub async fn write_ordered(
        &self,
        updates: &[pb::Update],
        references: &References,
    ) -> Result<(), OrderedWriteError> {
        let waves = references.waves(updates);
        let mut results: Vec<Option<pb::Error>> = vec![None; updates.len()];
        for wave in &waves {
            let batch: Vec<pb::Update> = wave
                .iter()
                .filter_map(|at| updates.get(*at))
                .cloned()
                .collect();
            let (decided, source) = match self.write(&batch).await {
                Ok(()) => (vec![pb::Error::default(); batch.len()], None),
                Err(WriteError::Batch(batch)) => (batch.errors, None),
                Err(WriteError::Failed { decided, source }) => (decided, Some(source)),
            };
            for (at, result) in wave.iter().zip(decided) {
                if let Some(place) = results.get_mut(*at) {
                    *place = Some(result);
                }
            }
            if let Some(source) = source {
                return Err(OrderedWriteError {
                    results,
                    source: Some(source),
                });
            }
        }
        let fine = |result: &Option<pb::Error>| {
            result
                .as_ref()
                .is_some_and(|error| code_of(error) == Code::Ok)
        };
        match results.iter().all(fine) {
            true => Ok(()),
            false => Err(OrderedWriteError {
                results,
                source: None,
            }),
        }
    }

    /// Writes one batch until no update is `ABORTED`, or none is decided any more.
    /// `None` if all went well, else a result for each update.
    async fn write_batch<U: WireUpdate + Sync>(
        &self,
        request: Bytes,
        updates: &[U],
    ) -> Result<Option<Vec<pb::Error>>, ClientError> {
        let Some(mut results) = self.request(request, updates.len()).await? else {
            self.0.metrics.updates(updates.len(), None);
            return Ok(None);
        };
        let aborted = results.iter().enumerate();
        let aborted = aborted.filter(|(_, result)| is_aborted(result));
        let mut open: VecDeque<usize> = aborted.map(|(at, _)| at).collect();
        // A server that stops at the first error decides as many as came before it: about as
        // many again are worth sending, or a batch full of errors costs its square.
        let mut some = next_part(results.len() - open.len(), open.len());
        let mut stuck = 0;
        while !open.is_empty() && stuck < ABORTED_ROUNDS_WITHOUT_PROGRESS_MAX {
            let part: Vec<usize> = open.drain(..some.min(open.len())).collect();
            let (request, count) = self.encode(part.iter().filter_map(|at| updates.get(*at)));
            let (part, later) = part.split_at_checked(count).unwrap_or((&part, &[]));
            self.0.metrics.updates_retried.increment(count as u64);
            let answers = self.request(request, count).await?;
            let answers = answers.unwrap_or_else(|| vec![pb::Error::default(); count]);
            let decided = answers.iter().filter(|answer| !is_aborted(answer)).count();
            stuck = if decided == 0 { stuck + 1 } else { 0 };
            some = next_part(decided, part.len());
            for at in later.iter().rev() {
                open.push_front(*at);
            }
            for (at, answer) in part.iter().zip(answers).rev() {
                if is_aborted(&answer) {
                    open.push_front(*at);
                }
                if let Some(result) = results.get_mut(*at) {
                    *result = answer;
                }
            }
        }
        self.0.metrics.updates(results.len(), Some(&results));
        let all_well = results.iter().all(|result| code_of(result) == Code::Ok);
        Ok((!all_well).then_some(results))
    }

    /// One Write. `None` if all went well, else a result for each update.
    async fn request(
        &self,
        request: Bytes,
        count: usize,
    ) -> Result<Option<Vec<pb::Error>>, ClientError> {
        let bytes = request.len() as u64;
        self.0.metrics.write_bytes.increment(bytes);
        let mut grpc = tonic::client::Grpc::new(self.0.channel.clone());
        let response = async {
            grpc.ready()
                .await
                .map_err(|error| Status::from_error(error.into()))?;
            let path = PathAndQuery::from_static(PATH);
            grpc.unary(tonic::Request::new(request), path, WriteCodec)
                .await
        };
        let config = &self.0.config;
        let mut call = self.call(RPC).with_updates(count);
        let answer = call.within(config, config.rpc_timeout, response).await?;
        match answer {
            Ok(_) => {
                call.end();
                Ok(None)
            }
            Err(status) => match decode_batch(&status, count) {
                Ok(Some(results)) => Ok(Some(results)),
                Ok(None) => Err(self.translate(RPC, &status)),
                Err(fault) => Err(ClientError::Protocol { rpc: RPC, fault }),
            },
        }
    }

    /// The next request, and how many of the updates it takes.
    fn encode<'a, U: WireUpdate + 'a>(
        &self,
        updates: impl Iterator<Item = &'a U>,
    ) -> (Bytes, usize) {
        let config = &self.0.config;
        let head = pb::WriteRequest {
            device_id: config.device_id,
            role: self.role(),
            election_id: self.wire_election_id(),
            ..Default::default()
        };
        fill(
            &head,
            updates,
            config.batch_updates_max,
            config.request_bytes_max,
        )
    }
}

/// A request with as many of the updates, from the first on, as fit into
/// `updates_max` and `bytes_max`; at least one, however large. And how many.
fn fill<'a, U: WireUpdate + 'a>(
    head: &pb::WriteRequest,
    updates: impl Iterator<Item = &'a U>,
    updates_max: usize,
    bytes_max: usize,
) -> (Bytes, usize) {
    let expected = updates.size_hint().0.min(updates_max);
    let bytes = expected
        .saturating_mul(UPDATE_BYTES_EXPECTED)
        .min(bytes_max);
    let mut buffer = BytesMut::with_capacity(head.encoded_len() + bytes);
    // A protobuf message is the concatenation of its fields.
    head.encode_raw(&mut buffer);
    let most = buffer.len().saturating_add(bytes_max);
    let mut count = 0;
    for update in updates.take(updates_max.max(1)) {
        let before = buffer.len();
        update.append_to(&mut buffer);
        if buffer.len() > most && count > 0 {
            buffer.truncate(before);
            break;
        }
        count += 1;
    }
    (buffer.freeze(), count)
}

/// How many updates to send again, after `decided` of `sent` were decided.
fn next_part(decided: usize, sent: usize) -> usize {
    match decided {
        // Nothing to go by: the server may be busy.
        0 => sent.max(1),
        _ => decided.saturating_mul(2),
    }
}

fn is_aborted(error: &pb::Error) -> bool {
    code_of(error) == Code::Aborted
}

/// The results in the details of an `UNKNOWN` status (P4Runtime 12.3); `None` if
/// the status carries none and so is about the whole request.
pub(super) fn decode_batch(
    status: &Status,
    count: usize,
) -> Result<Option<Vec<pb::Error>>, String> {
    if status.details().is_empty() {
        return Ok(None);
    }
    let details = rpc::Status::decode(status.details())
        .map_err(|error| format!("its status details do not decode: {error}"))?
        .details;
    if details.is_empty() || status.code() != Code::Unknown {
        return Ok(None);
    }
    if details.len() != count {
        let got = details.len();
        return Err(format!("{got} results for {count} updates"));
    }
    let one = |any: &prost_types::Any| match any.type_url.rsplit('/').next() {
        Some("p4.v1.Error") => pb::Error::decode(any.value.as_slice())
            .map_err(|error| format!("a result does not decode: {error}")),
        _ => Err(format!("a result is a {:?}", any.type_url)),
    };
    details
        .iter()
        .map(one)
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
}

/// A request that is encoded already; the response as usual.
struct WriteCodec;

impl Codec for WriteCodec {
    type Encode = Bytes;
    type Decode = pb::WriteResponse;
    type Encoder = Encoded;
    type Decoder = ProstDecoder<pb::WriteResponse>;

    fn encoder(&mut self) -> Encoded {
        Encoded
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<pb::WriteRequest, pb::WriteResponse>::raw_decoder(BufferSettings::default())
    }
}

struct Encoded;

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // At once: else the buffer doubles, and is copied, until a batch fits.
        buffer.reserve(item.len());
        buffer.put(item);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
