//! One client on one gRPC channel, with several requests in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::{BufMut as _, Bytes};
use p4runtime::client::{Client, ClientConfig, PipelineAction};
use p4runtime::p4::v1 as pb;
use p4runtime::p4info::parse_p4info_text;
use pb::entity::Entity;
use pb::update::Type;
use prost::Message;
use shunt_p4::tables::{Flow4, FlowUpdate, P4Table as _, flow_key_entry, flow_to_entry};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use crate::gateway;
use crate::report::BenchError;

/// Updates of one request.
pub(crate) const BATCH: u32 = 1000;
/// Requests in flight.
pub(crate) const IN_FLIGHT: usize = 4;

const DEVICE: u64 = 1;
const ELECTION: u64 = 1;

/// The client, and the channel under it.
pub(crate) struct Writer {
    client: Client,
    channel: Channel,
}

fn words(error: impl std::fmt::Display) -> BenchError {
    BenchError::failed(error)
}

/// The update that adds (or removes) a flow.
fn update(number: u32, kind: Type) -> Result<pb::Update, BenchError> {
    let flow = gateway::flow(number)?;
    let entry = match kind {
        Type::Delete => flow_key_entry(&flow.key),
        _ => flow_to_entry(&flow),
    };
    let entry = entry.ok_or_else(|| words("the flow has two address families"))?;
    Ok(pb::Update {
        r#type: kind as i32,
        entity: Some(pb::Entity {
            entity: Some(Entity::TableEntry(entry)),
        }),
    })
}

/// Requests that add (or remove) the flows 1 to `count`, encoded.
pub(crate) fn encoded(count: u32, kind: Type) -> Result<Vec<Bytes>, BenchError> {
    let batch = |first: u32| {
        let last = (first + BATCH).min(count + 1);
        let updates = (first..last).map(|number| update(number, kind));
        let request = pb::WriteRequest {
            device_id: DEVICE,
            election_id: Some(pb::Uint128 {
                high: 0,
                low: ELECTION,
            }),
            updates: updates.collect::<Result<_, _>>()?,
            ..pb::WriteRequest::default()
        };
        Ok(request.encode_to_vec().into())
    };
    (1..=count).step_by(BATCH as usize).map(batch).collect()
}

/// The same as lists of updates.
pub(crate) fn typed(count: u32, kind: Type) -> Result<Vec<Vec<pb::Update>>, BenchError> {
    let batch = |first: u32| {
        let last = (first + BATCH).min(count + 1);
        (first..last).map(|number| update(number, kind)).collect()
    };
    (1..=count).step_by(BATCH as usize).map(batch).collect()
}

impl Writer {
    /// Connects, becomes primary, sets the pipeline, and makes the switch a gateway that knows
    /// flow 0.
    pub(crate) async fn connect(address: &str) -> Result<Self, BenchError> {
        let config = ClientConfig::new(address, DEVICE, ELECTION.into());
        let endpoint = config.endpoint().map_err(words)?;
        let channel = endpoint.connect().await.map_err(words)?;
        let client = Client::over(channel.clone(), config);
        client.become_primary().await.map_err(words)?;
        let p4info = parse_p4info_text(shunt_p4::P4INFO).map_err(words)?;
        let action = PipelineAction::VerifyAndCommit;
        let json = shunt_p4::PIPELINE_JSON.to_vec();
        let set = client.set_pipeline(action, p4info, json, shunt_p4::pipeline_cookie());
        set.await.map_err(words)?;
        let entries = gateway::entries()?.into_iter().map(|entry| pb::Update {
            r#type: Type::Insert as i32,
            entity: Some(pb::Entity {
                entity: Some(Entity::TableEntry(entry.to_entry())),
            }),
        });
        let mut updates: Vec<_> = entries.collect();
        updates.push(update(0, Type::Insert)?);
        client.write(&updates).await.map_err(words)?;
        Ok(Self { client, channel })
    }

    /// Sends encoded requests; returns how many a second.
    pub(crate) async fn send(&self, requests: &Arc<Vec<Bytes>>) -> Result<f64, BenchError> {
        self.all(requests, |writer, request| async move {
            let mut grpc = tonic::client::Grpc::new(writer);
            grpc.ready().await.map_err(words)?;
            let path = PathAndQuery::from_static("/p4.v1.P4Runtime/Write");
            let sent = grpc.unary(tonic::Request::new(request), path, Raw);
            sent.await.map(drop).map_err(words)
        })
        .await
    }

    /// Sends lists of updates by way of the client; returns how many requests a second.
    pub(crate) async fn write(
        &self,
        requests: &Arc<Vec<Vec<pb::Update>>>,
    ) -> Result<f64, BenchError> {
        let client = self.client.clone();
        self.all(requests, move |_, updates| {
            let client = client.clone();
            async move { client.write(&updates).await.map(drop).map_err(words) }
        })
        .await
    }

    /// Sends flows by way of the client, which encodes them; returns how many requests a second.
    pub(crate) async fn write_flows(
        &self,
        requests: &Arc<Vec<Arc<Vec<FlowUpdate>>>>,
    ) -> Result<f64, BenchError> {
        let client = self.client.clone();
        self.all(requests, move |_, updates| {
            let client = client.clone();
            async move { client.write_wire(&updates).await.map_err(words) }
        })
        .await
    }

    /// Runs `one` for every request, `IN_FLIGHT` at a time.
    async fn all<T, F>(
        &self,
        requests: &Arc<Vec<T>>,
        one: impl Fn(Channel, T) -> F + Clone + Send + Sync + 'static,
    ) -> Result<f64, BenchError>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<(), BenchError>> + Send,
    {
        let start = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..IN_FLIGHT)
            .map(|_| {
                let (next, requests) = (Arc::clone(&next), Arc::clone(requests));
                let (channel, one) = (self.channel.clone(), one.clone());
                tokio::spawn(async move {
                    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                        one(channel.clone(), request.clone()).await?;
                    }
                    Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await.map_err(words)??;
        }
        Ok(requests.len() as f64 / start.elapsed().as_secs_f64())
    }

    /// Reads the flow table; returns how many entries there are, and how many a second.
    pub(crate) async fn read(&self) -> Result<(usize, f64), BenchError> {
        let wanted = Entity::TableEntry(pb::TableEntry {
            table_id: Flow4::ID,
            ..pb::TableEntry::default()
        });
        let wanted = pb::Entity {
            entity: Some(wanted),
        };
        let start = Instant::now();
        let mut stream = self.client.read_stream(vec![wanted]).await.map_err(words)?;
        let mut count = 0;
        while let Some(part) = stream.next_part().await.map_err(words)? {
            count += part.len();
        }
        Ok((count, count as f64 / start.elapsed().as_secs_f64()))
    }
}

/// A request that is encoded already; the response is not looked at.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        buffer.reserve(item.len());
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = tonic::Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, tonic::Status> {
        Ok(Some(()))
    }
}
