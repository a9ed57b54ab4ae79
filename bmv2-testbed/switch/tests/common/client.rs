//! A plain P4Runtime client, and a switch to talk to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use p4runtime::google::rpc;
use p4runtime::p4::config::v1::P4Info;
use p4runtime::p4::v1 as pb;
use pb::p4_runtime_client::P4RuntimeClient;
use pb::stream_message_response::Update as Response;
use pb::update::Type;
use prost::Message;
use shunt_switch::{Config, Handle, ManualClock, run};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running switch and what tests need to know of its program.
pub struct Served {
    pub handle: Handle,
    pub clock: Arc<ManualClock>,
    pub info: P4Info,
    pub json: Vec<u8>,
}

impl Served {
    /// A switch without a program, but with the named one at hand.
    pub async fn start(name: &str) -> Self {
        Self::deviating(name, []).await
    }

    /// One that departs from the specification.
    pub async fn deviating(
        name: &str,
        deviations: impl IntoIterator<Item = shunt_switch::Deviation>,
    ) -> Self {
        let (mut options, clock) = super::options();
        options.deviations = deviations.into_iter().collect();
        let (json, info) = super::program(name);
        let handle = run(Config {
            options,
            ..Config::default()
        })
        .await
        .unwrap();
        Self {
            handle,
            clock,
            info,
            json,
        }
    }

    pub async fn client(&self) -> Client {
        let channel = Channel::from_shared(format!("http://{}", self.handle.addr()))
            .unwrap()
            .http2_max_header_list_size(8 << 20)
            .connect()
            .await
            .unwrap();
        let mut rpc = P4RuntimeClient::new(channel).max_decoding_message_size(256 << 20);
        let (requests, received) = mpsc::channel(16);
        let stream = rpc.stream_channel(ReceiverStream::new(received));
        let responses = stream.await.unwrap().into_inner();
        Client {
            rpc,
            election_id: None,
            requests,
            responses,
            waiting: VecDeque::new(),
        }
    }

    /// A primary that has set the pipeline.
    pub async fn primary(&self) -> Client {
        let mut client = self.client().await;
        client.arbitrate(1).await;
        client.set_pipeline(&self.info, &self.json).await.unwrap();
        client
    }

    pub fn table(&self, name: &str) -> u32 {
        let head = self
            .info
            .tables
            .iter()
            .map(|t| t.preamble.as_ref().unwrap());
        head.into_iter().find(|p| p.alias == name).unwrap().id
    }

    pub fn action(&self, name: &str) -> u32 {
        let head = self
            .info
            .actions
            .iter()
            .map(|t| t.preamble.as_ref().unwrap());
        head.into_iter().find(|p| p.alias == name).unwrap().id
    }

    pub fn profile(&self) -> u32 {
        self.info.action_profiles[0].preamble.as_ref().unwrap().id
    }

    pub fn call(&self, name: &str, args: &[&[u8]]) -> pb::Action {
        let params = args.iter().enumerate().map(|(i, value)| pb::action::Param {
            param_id: i as u32 + 1,
            value: value.to_vec(),
        });
        pb::Action {
            action_id: self.action(name),
            params: params.collect(),
        }
    }

    /// An entry with matches in the order of the key; `None` leaves a field out.
    pub fn entry(
        &self,
        table: &str,
        matches: Vec<Option<pb::field_match::FieldMatchType>>,
        priority: i32,
        action: pb::Action,
    ) -> pb::TableEntry {
        let matches = matches.into_iter().enumerate().filter_map(|(i, kind)| {
            Some(pb::FieldMatch {
                field_id: i as u32 + 1,
                field_match_type: Some(kind?),
            })
        });
        pb::TableEntry {
            table_id: self.table(table),
            r#match: matches.collect(),
            action: Some(pb::TableAction {
                r#type: Some(pb::table_action::Type::Action(action)),
            }),
            priority,
            ..Default::default()
        }
    }
}

pub fn exact(value: &[u8]) -> Option<pb::field_match::FieldMatchType> {
    let value = value.to_vec();
    Some(pb::field_match::FieldMatchType::Exact(
        pb::field_match::Exact { value },
    ))
}

pub fn lpm(value: &[u8], prefix_len: i32) -> Option<pb::field_match::FieldMatchType> {
    let value = value.to_vec();
    Some(pb::field_match::FieldMatchType::Lpm(pb::field_match::Lpm {
        value,
        prefix_len,
    }))
}

pub fn ternary(value: &[u8], mask: &[u8]) -> Option<pb::field_match::FieldMatchType> {
    Some(pb::field_match::FieldMatchType::Ternary(
        pb::field_match::Ternary {
            value: value.to_vec(),
            mask: mask.to_vec(),
        },
    ))
}

pub fn range(low: &[u8], high: &[u8]) -> Option<pb::field_match::FieldMatchType> {
    Some(pb::field_match::FieldMatchType::Range(
        pb::field_match::Range {
            low: low.to_vec(),
            high: high.to_vec(),
        },
    ))
}

pub fn optional(value: &[u8]) -> Option<pb::field_match::FieldMatchType> {
    let value = value.to_vec();
    Some(pb::field_match::FieldMatchType::Optional(
        pb::field_match::Optional { value },
    ))
}

pub fn update(kind: Type, entity: pb::entity::Entity) -> pb::Update {
    pb::Update {
        r#type: kind as i32,
        entity: Some(pb::Entity {
            entity: Some(entity),
        }),
    }
}

pub fn table_update(kind: Type, entry: &pb::TableEntry) -> pb::Update {
    update(kind, pb::entity::Entity::TableEntry(entry.clone()))
}

/// The code and message of each update, from a batch's status.
pub fn batch_errors(status: &Status) -> Vec<(Code, String)> {
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    let status = rpc::Status::decode(status.details()).unwrap();
    let errors = status.details.iter().map(|any| {
        let error = pb::Error::decode(any.value.as_slice()).unwrap();
        (Code::from(error.canonical_code), error.message)
    });
    errors.collect()
}

pub struct Client {
    pub rpc: P4RuntimeClient<Channel>,
    pub election_id: Option<pb::Uint128>,
    pub requests: mpsc::Sender<pb::StreamMessageRequest>,
    responses: tonic::Streaming<pb::StreamMessageResponse>,
    waiting: VecDeque<Response>,
}

impl Client {
    pub async fn send(&self, update: pb::stream_message_request::Update) {
        let update = Some(update);
        let request = pb::StreamMessageRequest { update };
        self.requests.send(request).await.unwrap();
    }

    pub async fn say_hello(&mut self, id: Option<u64>) {
        self.election_id = id.map(|low| pb::Uint128 { high: 0, low });
        let hello = pb::MasterArbitrationUpdate {
            device_id: 1,
            election_id: self.election_id,
            ..Default::default()
        };
        let hello = pb::stream_message_request::Update::Arbitration(hello);
        self.send(hello).await;
    }

    /// The next stream message that `pick` wants; others wait their turn.
    pub async fn next<T>(
        &mut self,
        mut pick: impl FnMut(&Response) -> Option<T>,
    ) -> Result<T, Status> {
        if let Some(at) = self.waiting.iter().position(|w| pick(w).is_some()) {
            return Ok(pick(&self.waiting.remove(at).unwrap()).unwrap());
        }
        loop {
            let message = tokio::time::timeout(PATIENCE, self.responses.message())
                .await
                .expect("no stream message in time")?
                .ok_or_else(|| Status::cancelled("the stream ended"))?;
            let update = message.update.unwrap();
            if let Some(found) = pick(&update) {
                return Ok(found);
            }
            self.waiting.push_back(update);
        }
    }

    /// The code of the next arbitration message.
    pub async fn arbitration(&mut self) -> Result<Code, Status> {
        self.next(|r| match r {
            Response::Arbitration(a) => Some(Code::from(a.status.as_ref().unwrap().code)),
            _ => None,
        })
        .await
    }

    pub async fn arbitrate(&mut self, id: u64) {
        self.say_hello(Some(id)).await;
        assert_eq!(self.arbitration().await.unwrap(), Code::Ok);
    }

    pub async fn set_pipeline(&mut self, info: &P4Info, json: &[u8]) -> Result<(), Status> {
        use pb::set_forwarding_pipeline_config_request::Action;
        let config = pb::ForwardingPipelineConfig {
            p4info: Some(info.clone()),
            p4_device_config: json.to_vec(),
            cookie: Some(pb::forwarding_pipeline_config::Cookie { cookie: 77 }),
        };
        self.pipeline(Action::VerifyAndCommit, Some(config)).await
    }

    pub async fn pipeline(
        &mut self,
        action: pb::set_forwarding_pipeline_config_request::Action,
        config: Option<pb::ForwardingPipelineConfig>,
    ) -> Result<(), Status> {
        let request = pb::SetForwardingPipelineConfigRequest {
            device_id: 1,
            election_id: self.election_id,
            action: action as i32,
            config,
            ..Default::default()
        };
        let answer = self.rpc.set_forwarding_pipeline_config(request).await;
        answer.map(|_| ())
    }

    pub async fn write(&mut self, updates: Vec<pb::Update>) -> Result<(), Status> {
        let request = pb::WriteRequest {
            device_id: 1,
            election_id: self.election_id,
            updates,
            ..Default::default()
        };
        self.rpc.write(request).await.map(|_| ())
    }

    /// Writes one update and gives its own code and message.
    pub async fn one(&mut self, update: pb::Update) -> Result<(), (Code, String)> {
        match self.write(vec![update]).await {
            Ok(()) => Ok(()),
            Err(status) => Err(batch_errors(&status).remove(0)),
        }
    }

    pub async fn insert(&mut self, entry: &pb::TableEntry) {
        self.one(table_update(Type::Insert, entry)).await.unwrap();
    }

    pub async fn read(
        &mut self,
        entity: pb::entity::Entity,
    ) -> Result<Vec<pb::entity::Entity>, Status> {
        let request = pb::ReadRequest {
            device_id: 1,
            entities: vec![pb::Entity {
                entity: Some(entity),
            }],
            ..Default::default()
        };
        let mut stream = self.rpc.read(request).await?.into_inner();
        let mut out = Vec::new();
        while let Some(message) = stream.message().await? {
            assert!(message.entities.len() <= 1000, "unbounded message");
            out.extend(message.entities.into_iter().map(|e| e.entity.unwrap()));
        }
        Ok(out)
    }

    /// The code and message that a read of one entity is refused with.
    pub async fn unread(&mut self, entity: pb::entity::Entity) -> (Code, String) {
        let status = self.read(entity).await.unwrap_err();
        batch_errors(&status).remove(0)
    }

    pub async fn write_as(
        &mut self,
        atomicity: pb::write_request::Atomicity,
        updates: Vec<pb::Update>,
    ) -> Result<(), Status> {
        let request = pb::WriteRequest {
            device_id: 1,
            election_id: self.election_id,
            updates,
            atomicity: atomicity as i32,
            ..Default::default()
        };
        self.rpc.write(request).await.map(|_| ())
    }

    pub async fn entries(&mut self, filter: pb::TableEntry) -> Result<Vec<pb::TableEntry>, Status> {
        let found = self.read(pb::entity::Entity::TableEntry(filter)).await?;
        let entries = found.into_iter().map(|e| match e {
            pb::entity::Entity::TableEntry(entry) => entry,
            other => panic!("{other:?}"),
        });
        Ok(entries.collect())
    }
}
