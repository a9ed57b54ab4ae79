//! Writing in batches, with one result for each update (P4Runtime 12).
//!
//! A request is encoded straight from the caller's updates, so that nothing is
//! cloned for the sake of a retry.

use prost::Message as _;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Status};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::limits::{ABORTED_ROUNDS_MAX, ABORTED_ROUNDS_WITHOUT_PROGRESS_MAX};
use super::{BatchError, Client, ClientError, WriteError};
use crate::google::rpc;
use crate::p4::v1 as pb;

const RPC: &str = "Write";
const PATH: &str = "/p4.v1.P4Runtime/Write";
/// `WriteRequest.updates`.
const UPDATES_TAG: u32 = 4;
/// A length-delimited field's tag and length, at most.
const UPDATE_FRAME_BYTES: usize = 6;

/// The status code of an update's result.
pub fn code_of(error: &pb::Error) -> Code {
    Code::from_i32(error.canonical_code)
}

/// Cuts updates, in order, into batches of at most `updates_max` updates and
/// `bytes_max` encoded bytes. An update that is larger goes alone.
pub fn batches(
    updates: &[pb::Update],
    updates_max: usize,
    bytes_max: usize,
) -> impl Iterator<Item = &[pb::Update]> {
    let mut rest = updates;
    std::iter::from_fn(move || {
        let mut bytes = 0usize;
        let fitting = rest.iter().take(updates_max.max(1)).take_while(|update| {
            bytes = bytes.saturating_add(update.encoded_len() + UPDATE_FRAME_BYTES);
            bytes <= bytes_max
        });
        let count = fitting.count().max(1).min(rest.len());
        let (batch, after) = rest.split_at(count);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

impl Client {
    /// Writes updates, in as many requests as `batch_updates_max` and
    /// `request_bytes_max` make of them, one after the other. Within a request
    /// the switch may reorder: updates that depend on one another go into
    /// separate calls. `ABORTED` updates are written again, a bounded number of
    /// times. Any number of calls may be in flight at once.
    ///
    /// # Errors
    /// [`WriteError::Batch`] with a result for each update, or
    /// [`WriteError::Failed`] if a request failed as a whole.
    pub async fn write(&self, updates: impl AsRef<[pb::Update]> + Send) -> Result<(), WriteError> {
        let updates = updates.as_ref();
        let config = &self.0.config;
        // Allocated with the first refusal: most writes have none.
        let mut results: Vec<pb::Error> = Vec::new();
        let mut done = 0;
        for batch in batches(updates, config.batch_updates_max, config.request_bytes_max) {
            let answer = self.write_batch(batch).await;
            let failed = match answer {
                Ok(None) => None,
                Ok(Some(errors)) => {
                    results.resize_with(done, pb::Error::default);
                    results.extend(errors);
                    None
                }
                Err(error) => Some(error),
            };
            if let Some(source) = failed {
                results.resize_with(done, pb::Error::default);
                return Err(WriteError::Failed {
                    decided: results,
                    source,
                });
            }
            done += batch.len();
        }
        if results.is_empty() {
            return Ok(());
        }
        results.resize_with(done, pb::Error::default);
        Err(WriteError::Batch(BatchError { errors: results }))
    }

    /// Writes one batch until no update is `ABORTED`, or it has been tried
    /// enough. `None` if all went well, else a result for each update.
    async fn write_batch(
        &self,
        updates: &[pb::Update],
    ) -> Result<Option<Vec<pb::Error>>, ClientError> {
        let Some(mut results) = self.request(updates.iter(), updates.len()).await? else {
            return Ok(None);
        };
        let mut stuck = 0;
        for _ in 0..ABORTED_ROUNDS_MAX {
            let aborted: Vec<usize> = (0..results.len())
                .filter(|at| results.get(*at).is_some_and(is_aborted))
                .collect();
            if aborted.is_empty() || stuck >= ABORTED_ROUNDS_WITHOUT_PROGRESS_MAX {
                break;
            }
            let again = aborted.iter().filter_map(|at| updates.get(*at));
            let answers = self.request(again, aborted.len()).await?;
            let answers = answers.unwrap_or_else(|| vec![pb::Error::default(); aborted.len()]);
            let progress = answers.iter().any(|answer| !is_aborted(answer));
            stuck = if progress { 0 } else { stuck + 1 };
            for (at, answer) in aborted.into_iter().zip(answers) {
                if let Some(result) = results.get_mut(at) {
                    *result = answer;
                }
            }
        }
        let all_well = results.iter().all(|result| code_of(result) == Code::Ok);
        Ok((!all_well).then_some(results))
    }

    /// One Write. `None` if all went well, else a result for each update.
    async fn request<'a>(
        &self,
        updates: impl Iterator<Item = &'a pb::Update> + Clone + Send,
        count: usize,
    ) -> Result<Option<Vec<pb::Error>>, ClientError> {
        let request = self.encode_write(updates);
        let mut grpc = tonic::client::Grpc::new(self.0.channel.clone());
        let response = async {
            grpc.ready()
                .await
                .map_err(|error| Status::from_error(error.into()))?;
            let path = PathAndQuery::from_static(PATH);
            grpc.unary(tonic::Request::new(request), path, WriteCodec)
                .await
        };
        match self
            .within(RPC, self.0.config.rpc_timeout, response)
            .await?
        {
            Ok(_) => Ok(None),
            Err(status) => match decode_batch(&status, count) {
                Ok(Some(results)) => Ok(Some(results)),
                Ok(None) => Err(self.translate(RPC, &status)),
                Err(fault) => Err(ClientError::Protocol { rpc: RPC, fault }),
            },
        }
    }

    fn encode_write<'a>(&self, updates: impl Iterator<Item = &'a pb::Update> + Clone) -> Bytes {
        let head = pb::WriteRequest {
            device_id: self.0.config.device_id,
            role: self.role(),
            election_id: self.wire_election_id(),
            ..Default::default()
        };
        let body = |update: &pb::Update| update.encoded_len() + UPDATE_FRAME_BYTES;
        let bytes = head.encoded_len() + updates.clone().map(body).sum::<usize>();
        let mut buffer = BytesMut::with_capacity(bytes);
        // A protobuf message is the concatenation of its fields.
        head.encode_raw(&mut buffer);
        for update in updates {
            prost::encoding::message::encode(UPDATES_TAG, update, &mut buffer);
        }
        buffer.freeze()
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
