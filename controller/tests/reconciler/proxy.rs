//! A P4Runtime server in front of another: loses, cuts short, reorders and refuses.

use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt as _};
use p4runtime::google::rpc;
use p4runtime::p4::v1::p4_runtime_client::P4RuntimeClient;
use p4runtime::p4::v1::p4_runtime_server::P4Runtime;
use p4runtime::p4::v1::{self as pb, entity};
use prost::Message as _;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use shunt_p4::tables::{P4Table as _, Punt};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use super::lab::{Lab, Window};

/// How bad it is: each a probability.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// A request is lost before it is done.
    pub lost_before: f64,
    /// It is done, and the answer is lost.
    pub lost_after: f64,
    /// A Write or Read is cut short in the middle.
    pub cut_short: f64,
    /// An update is refused.
    pub refused: f64,
    /// Updates of some keys are refused as long as the weather lasts: which, by this.
    pub stubborn: Option<u32>,
    /// Nothing but insertions is refused: the tables are full.
    pub full: bool,
    /// Exactly that request is lost: its number, and whether after it was done.
    pub lose_rpc: Option<(u64, bool)>,
}

impl Weather {
    /// Whether all that is left undone is what was refused.
    pub fn loses_nothing(&self) -> bool {
        self.lost_before + self.lost_after + self.cut_short == 0.0
    }

    /// Whether whatever is there can be parked.
    pub fn lets_park(&self) -> bool {
        self.full || self.refused == 0.0 && self.stubborn.is_none()
    }
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The server; the lab has the weather and the switch.
#[derive(Clone)]
pub struct Proxy(pub Arc<Lab>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    LostBefore,
    LostAfter,
    CutShort,
}

fn lost() -> Status {
    Status::unavailable("lost by the weather")
}

impl Proxy {
    fn fate(&self) -> Fate {
        let mut sky = self.0.sky();
        let number = sky.rpcs;
        sky.rpcs += 1;
        let weather = sky.weather;
        if let Some((lose, after)) = weather.lose_rpc {
            return match (number == lose, after) {
                (false, _) => Fate::Done,
                (true, false) => Fate::LostBefore,
                (true, true) => Fate::LostAfter,
            };
        }
        let draw: f64 = sky.random.random();
        let mut below = weather.lost_before;
        if draw < below {
            return Fate::LostBefore;
        }
        below += weather.lost_after;
        if draw < below {
            return Fate::LostAfter;
        }
        below += weather.cut_short;
        if draw < below {
            Fate::CutShort
        } else {
            Fate::Done
        }
    }

    async fn write_within(
        &self,
        request: Request<pb::WriteRequest>,
        window: Window,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let fate = self.fate();
        if fate == Fate::LostBefore {
            return Err(lost());
        }
        let mut head = request.into_inner();
        let updates = std::mem::take(&mut head.updates);
        let mut order: Vec<usize> = (0..updates.len()).collect();
        // However it was planned: the same seed leads to the same order.
        order.sort_by_cached_key(|at| updates[*at].encode_to_vec());
        let until = {
            let mut sky = self.0.sky();
            order.shuffle(&mut sky.random);
            match fate {
                Fate::CutShort => sky.random.random_range(0..=updates.len()),
                _ => updates.len(),
            }
        };
        let mut writing = Writing {
            head,
            switch: self.0.service(),
            window,
        };
        let mut errors = vec![pb::Error::default(); updates.len()];
        for at in order.into_iter().take(until) {
            errors[at] = self.one(&mut writing, updates[at].clone()).await?;
        }
        match fate {
            Fate::Done => batch_status(errors),
            _ => Err(lost()),
        }
    }

    /// One update at a time, so that packets can be sent between any two.
    async fn one(&self, write: &mut Writing, update: pb::Update) -> Result<pb::Error, Status> {
        if self.refuses(&update) {
            return Ok(pb::Error {
                canonical_code: Code::ResourceExhausted as i32,
                message: "refused by the weather".to_owned(),
                ..Default::default()
            });
        }
        let text = format!("{update:?}");
        let request = pb::WriteRequest {
            updates: vec![update],
            ..write.head.clone()
        };
        let answer = write.switch.write(Request::new(request)).await;
        self.0.probe(&text, write.window);
        match answer {
            Ok(_) => Ok(pb::Error::default()),
            Err(status) => match rpc::Status::decode(status.details()) {
                Ok(details) if !details.details.is_empty() => {
                    Ok(pb::Error::decode(details.details[0].value.as_slice()).unwrap())
                }
                _ => Err(status),
            },
        }
    }

    fn refuses(&self, update: &pb::Update) -> bool {
        let entity = update.entity.as_ref().and_then(|e| e.entity.as_ref());
        let Some(entity::Entity::TableEntry(entry)) = entity else {
            return false;
        };
        let mut sky = self.0.sky();
        let weather = sky.weather;
        let draw = sky.random.random_bool(weather.refused);
        // Without them packets for the slow path are dropped, and nothing can be parked.
        let possible = entry.table_id != Punt::ID
            && (!weather.full || update.r#type() == pb::update::Type::Insert);
        let stubborn = weather
            .stubborn
            .is_some_and(|salt| hash(entry, salt).is_multiple_of(8));
        possible && (draw || stubborn)
    }
}

/// A Write under way.
struct Writing {
    head: pb::WriteRequest,
    /// The switch that it came to, whatever takes its place meanwhile.
    switch: P4RuntimeClient<Routes>,
    window: Window,
}

/// Of the key.
fn hash(entry: &pb::TableEntry, salt: u32) -> u32 {
    let key = pb::TableEntry {
        table_id: entry.table_id,
        r#match: entry.r#match.clone(),
        ..Default::default()
    };
    let bytes = key.encode_to_vec();
    let hash = bytes.iter().fold(salt, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    hash >> 16
}

fn batch_status(errors: Vec<pb::Error>) -> Result<Response<pb::WriteResponse>, Status> {
    if errors.iter().all(|error| error.canonical_code == 0) {
        return Ok(Response::new(pb::WriteResponse {}));
    }
    let details = errors.iter().map(|error| prost_types::Any {
        type_url: "type.googleapis.com/p4.v1.Error".to_owned(),
        value: error.encode_to_vec(),
    });
    let status = rpc::Status {
        code: Code::Unknown as i32,
        message: String::new(),
        details: details.collect(),
    };
    let details = status.encode_to_vec().into();
    Err(Status::with_details(
        Code::Unknown,
        "some were refused",
        details,
    ))
}

#[tonic::async_trait]
impl P4Runtime for Proxy {
    type ReadStream = Boxed<pb::ReadResponse>;
    type StreamChannelStream = Boxed<pb::StreamMessageResponse>;

    async fn write(
        &self,
        request: Request<pb::WriteRequest>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let window = self.0.window();
        let answer = self.write_within(request, window).await;
        self.0.answered();
        answer
    }

    async fn read(
        &self,
        request: Request<pb::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let fate = self.fate();
        if fate == Fate::LostBefore {
            return Err(lost());
        }
        let answers = self.0.service().read(request).await?.into_inner();
        self.0.answered();
        if fate == Fate::Done {
            return Ok(Response::new(Box::pin(answers)));
        }
        let until = self.0.sky().random.random_range(0..3);
        let cut = answers.take(until).chain(stream::iter([Err(lost())]));
        Ok(Response::new(Box::pin(cut)))
    }

    async fn set_forwarding_pipeline_config(
        &self,
        request: Request<pb::SetForwardingPipelineConfigRequest>,
    ) -> Result<Response<pb::SetForwardingPipelineConfigResponse>, Status> {
        let fate = self.fate();
        if fate == Fate::LostBefore {
            return Err(lost());
        }
        let answer = self
            .0
            .service()
            .set_forwarding_pipeline_config(request)
            .await;
        match fate {
            Fate::LostAfter => Err(lost()),
            _ => answer,
        }
    }

    async fn get_forwarding_pipeline_config(
        &self,
        request: Request<pb::GetForwardingPipelineConfigRequest>,
    ) -> Result<Response<pb::GetForwardingPipelineConfigResponse>, Status> {
        match self.fate() {
            Fate::LostBefore | Fate::LostAfter => Err(lost()),
            _ => {
                self.0
                    .service()
                    .get_forwarding_pipeline_config(request)
                    .await
            }
        }
    }

    async fn stream_channel(
        &self,
        request: Request<Streaming<pb::StreamMessageRequest>>,
    ) -> Result<Response<Self::StreamChannelStream>, Status> {
        if self.fate() == Fate::LostBefore {
            return Err(lost());
        }
        let cut = self.0.cut();
        let requests = request.into_inner();
        let requests = requests.filter_map(|request| std::future::ready(request.ok()));
        let answers = self
            .0
            .service()
            .stream_channel(requests)
            .await?
            .into_inner();
        let answers = answers
            .take_until(async move { cut.cancelled().await })
            .chain(stream::iter([Err(lost())]));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn capabilities(
        &self,
        request: Request<pb::CapabilitiesRequest>,
    ) -> Result<Response<pb::CapabilitiesResponse>, Status> {
        self.0.service().capabilities(request).await
    }
}
