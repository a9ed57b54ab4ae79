//! A P4Runtime server that does what a test tells it to, well or badly.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p4runtime::google::rpc;
use p4runtime::p4::v1::p4_runtime_server::{P4Runtime, P4RuntimeServer};
use p4runtime::p4::v1::*;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

type Responder = mpsc::Sender<Result<StreamMessageResponse, Status>>;
type WriteRule = Box<dyn FnMut(&WriteRequest) -> Result<(), Status> + Send>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) writes: Vec<WriteRequest>,
    pub(crate) write_rule: Option<WriteRule>,
    pub(crate) reads: Vec<ReadRequest>,
    pub(crate) read_parts: Vec<ReadResponse>,
    /// What a read ends with, after its parts.
    pub(crate) read_status: Option<Status>,
    pub(crate) pipelines: Vec<SetForwardingPipelineConfigRequest>,
    pub(crate) pipeline_answers: VecDeque<Result<(), Status>>,
    pub(crate) pipeline: Option<Result<Option<ForwardingPipelineConfig>, Status>>,
    pub(crate) streams: Vec<Bidder>,
    pub(crate) requests: Vec<StreamMessageRequest>,
    /// Takes bids, and never answers.
    pub(crate) mute: bool,
}

#[derive(Clone)]
pub(crate) struct Bidder {
    pub(crate) election_id: u128,
    pub(crate) to: Responder,
}

/// A running server and its state.
#[derive(Clone)]
pub(crate) struct Switch {
    pub(crate) address: String,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Switch {
    pub(crate) async fn start() -> Self {
        Self::start_with(tonic::transport::Server::builder()).await
    }

    pub(crate) async fn start_with(mut server: tonic::transport::Server) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let switch = Self {
            address: listener.local_addr().unwrap().to_string(),
            state: Arc::default(),
        };
        let service = P4RuntimeServer::new(switch.clone()).max_decoding_message_size(64 << 20);
        let server = server.add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        switch
    }

    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.state.lock().unwrap())
    }

    /// Ends every stream.
    pub(crate) fn hang_up(&self, status: Option<Status>) {
        for stream in self.with(|state| std::mem::take(&mut state.streams)) {
            if let Some(status) = &status {
                stream.to.try_send(Err(status.clone())).unwrap();
            }
        }
    }

    /// Sends to the newest stream.
    pub(crate) async fn tell(&self, update: stream_message_response::Update) {
        let to = self.with(|state| state.streams.last().unwrap().to.clone());
        let message = StreamMessageResponse {
            update: Some(update),
        };
        to.send(Ok(message)).await.unwrap();
    }

    fn look_on(&self, to: &Responder) {
        self.with(|state| {
            state.streams.push(Bidder {
                election_id: 0,
                to: to.clone(),
            });
            let highest = state.streams.iter().map(|b| b.election_id).max().unwrap();
            let code = match highest {
                0 => Code::NotFound,
                _ => Code::AlreadyExists,
            };
            let _ = to.try_send(Ok(arbitration(highest, code)));
        });
    }

    fn bid(&self, election_id: u128, to: &Responder) -> Result<(), Status> {
        self.with(|state| {
            let taken = |bidder: &Bidder| {
                bidder.election_id == election_id
                    && !bidder.to.same_channel(to)
                    && !bidder.to.is_closed()
            };
            if state.streams.iter().any(taken) {
                return Err(Status::invalid_argument("Election id already exists"));
            }
            state.streams.retain(|bidder| !bidder.to.same_channel(to));
            state.streams.push(Bidder {
                election_id,
                to: to.clone(),
            });
            if state.mute {
                return Ok(());
            }
            let highest = state.streams.iter().map(|b| b.election_id).max().unwrap();
            for bidder in &state.streams {
                let code = match bidder.election_id == highest {
                    true => Code::Ok,
                    false => Code::AlreadyExists,
                };
                let _ = bidder.to.try_send(Ok(arbitration(highest, code)));
            }
            Ok(())
        })
    }
}

pub(crate) fn arbitration(highest: u128, code: Code) -> StreamMessageResponse {
    let update = MasterArbitrationUpdate {
        device_id: 1,
        role: None,
        election_id: Some(Uint128 {
            high: (highest >> 64) as u64,
            low: highest as u64,
        }),
        status: Some(rpc::Status {
            code: code as i32,
            ..Default::default()
        }),
    };
    StreamMessageResponse {
        update: Some(stream_message_response::Update::Arbitration(update)),
    }
}

/// A batch's status: one code and message for each update.
pub(crate) fn batch_status(results: &[(Code, &str)]) -> Status {
    let any = |(code, message): &(Code, &str)| prost_types::Any {
        type_url: "type.googleapis.com/p4.v1.Error".to_owned(),
        value: Error {
            canonical_code: *code as i32,
            message: (*message).to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
    };
    let details = rpc::Status {
        code: Code::Unknown as i32,
        message: String::new(),
        details: results.iter().map(any).collect(),
    };
    Status::with_details(Code::Unknown, "", details.encode_to_vec().into())
}

pub(crate) fn number(value: &Uint128) -> u128 {
    (u128::from(value.high) << 64) | u128::from(value.low)
}

type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl P4Runtime for Switch {
    async fn write(
        &self,
        request: Request<WriteRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let request = request.into_inner();
        self.with(|state| {
            let answer = match &mut state.write_rule {
                Some(rule) => rule(&request),
                None => Ok(()),
            };
            state.writes.push(request);
            answer
        })?;
        Ok(Response::new(WriteResponse {}))
    }

    type ReadStream = Parts<ReadResponse>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let parts = self.with(|state| {
            state.reads.push(request.into_inner());
            let parts = state.read_parts.clone().into_iter().map(Ok);
            let status = state.read_status.clone().map(Err);
            parts.chain(status).collect::<Vec<_>>()
        });
        let parts = tokio_stream::iter(parts);
        Ok(Response::new(Box::pin(parts)))
    }

    async fn set_forwarding_pipeline_config(
        &self,
        request: Request<SetForwardingPipelineConfigRequest>,
    ) -> Result<Response<SetForwardingPipelineConfigResponse>, Status> {
        self.with(|state| {
            state.pipelines.push(request.into_inner());
            state.pipeline_answers.pop_front().unwrap_or(Ok(()))
        })?;
        Ok(Response::new(SetForwardingPipelineConfigResponse {}))
    }

    async fn get_forwarding_pipeline_config(
        &self,
        _: Request<GetForwardingPipelineConfigRequest>,
    ) -> Result<Response<GetForwardingPipelineConfigResponse>, Status> {
        let config = self.with(|state| state.pipeline.clone().unwrap_or(Ok(None)))?;
        Ok(Response::new(GetForwardingPipelineConfigResponse {
            config,
        }))
    }

    type StreamChannelStream = Parts<StreamMessageResponse>;

    async fn stream_channel(
        &self,
        request: Request<Streaming<StreamMessageRequest>>,
    ) -> Result<Response<Self::StreamChannelStream>, Status> {
        let mut incoming = request.into_inner();
        let (to, from) = mpsc::channel(1024);
        // Like many servers: no headers before the first message.
        let first = incoming.next().await;
        let this = self.clone();
        // Weak, so that hanging up (dropping the bidder) ends the stream.
        let to = {
            let weak = to.downgrade();
            if let Some(Ok(first)) = &first {
                this.with(|state| state.requests.push(first.clone()));
                if let Some(stream_message_request::Update::Arbitration(bid)) = &first.update {
                    match &bid.election_id {
                        Some(id) => this.bid(number(id), &to)?,
                        // Never primary: told how things stand, and nothing else.
                        None => this.look_on(&to),
                    }
                } else {
                    this.with(|state| {
                        state.streams.push(Bidder {
                            election_id: 0,
                            to: to.clone(),
                        })
                    });
                }
            }
            weak
        };
        tokio::spawn(async move {
            loop {
                let Some(Ok(message)) = incoming.next().await else {
                    break;
                };
                this.with(|state| state.requests.push(message.clone()));
                let Some(to) = to.upgrade() else { break };
                if let Some(stream_message_request::Update::Arbitration(bid)) = &message.update
                    && let Err(status) = this.bid(number(bid.election_id.as_ref().unwrap()), &to)
                {
                    let _ = to.try_send(Err(status));
                    break;
                }
            }
            if let Some(to) = to.upgrade() {
                this.with(|state| state.streams.retain(|one| !one.to.same_channel(&to)));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(from))))
    }

    async fn capabilities(
        &self,
        _: Request<CapabilitiesRequest>,
    ) -> Result<Response<CapabilitiesResponse>, Status> {
        Ok(Response::new(CapabilitiesResponse {
            p4runtime_api_version: "1.3.0".to_owned(),
            experimental: None,
        }))
    }
}

/// An update that only its number tells from another.
pub(crate) fn update(number: u32) -> Update {
    Update {
        r#type: update::Type::Insert.into(),
        entity: Some(entity(number)),
    }
}

pub(crate) fn entity(number: u32) -> Entity {
    Entity {
        entity: Some(entity::Entity::TableEntry(TableEntry {
            table_id: number,
            ..Default::default()
        })),
    }
}

/// A write rule: updates of tables with even numbers are refused, and what follows is not tried.
pub(crate) fn stops_at_an_even_number(request: &WriteRequest) -> Result<(), Status> {
    let number = |update: &Update| match update.entity.clone().unwrap().entity {
        Some(entity::Entity::TableEntry(entry)) => entry.table_id,
        other => panic!("{other:?}"),
    };
    let stop = request.updates.iter().position(|u| number(u) % 2 == 0);
    let Some(stop) = stop else { return Ok(()) };
    let result = |at: usize| match at.cmp(&stop) {
        std::cmp::Ordering::Less => (Code::Ok, ""),
        std::cmp::Ordering::Equal => (Code::NotFound, "no such entry"),
        std::cmp::Ordering::Greater => (Code::Aborted, "not tried"),
    };
    let results: Vec<_> = (0..request.updates.len()).map(result).collect();
    Err(batch_status(&results))
}
