//! A switch that has another pipeline and does not take ours: a scripted P4Runtime server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use p4runtime::p4::config::v1::P4Info;
use p4runtime::p4::v1::p4_runtime_server::{P4Runtime, P4RuntimeServer};
use p4runtime::p4::v1::{self as pb, stream_message_request, stream_message_response};
use p4runtime::p4info::parse_p4info_text;
use shunt_controller::config;
use shunt_controller::switch::{Connected, SwitchError};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Everybody is the primary; the pipeline is fixed.
struct Fixed(P4Info);

type Replies<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl P4Runtime for Fixed {
    type ReadStream = Replies<pb::ReadResponse>;
    type StreamChannelStream = Replies<pb::StreamMessageResponse>;

    async fn write(
        &self,
        _: Request<pb::WriteRequest>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        Err(Status::unimplemented("scripted"))
    }

    async fn read(
        &self,
        _: Request<pb::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        Err(Status::unimplemented("scripted"))
    }

    async fn set_forwarding_pipeline_config(
        &self,
        _: Request<pb::SetForwardingPipelineConfigRequest>,
    ) -> Result<Response<pb::SetForwardingPipelineConfigResponse>, Status> {
        Err(Status::unimplemented("the program is burnt in"))
    }

    async fn get_forwarding_pipeline_config(
        &self,
        _: Request<pb::GetForwardingPipelineConfigRequest>,
    ) -> Result<Response<pb::GetForwardingPipelineConfigResponse>, Status> {
        let config = pb::ForwardingPipelineConfig {
            p4info: Some(self.0.clone()),
            ..Default::default()
        };
        Ok(Response::new(pb::GetForwardingPipelineConfigResponse {
            config: Some(config),
        }))
    }

    async fn stream_channel(
        &self,
        request: Request<Streaming<pb::StreamMessageRequest>>,
    ) -> Result<Response<Self::StreamChannelStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        let mut bids = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = bids.next().await {
                let Some(stream_message_request::Update::Arbitration(mut won)) = message.update
                else {
                    continue;
                };
                won.status = Some(p4runtime::google::rpc::Status::default());
                let update = Some(stream_message_response::Update::Arbitration(won));
                let answer = pb::StreamMessageResponse { update };
                if sender.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn capabilities(
        &self,
        _: Request<pb::CapabilitiesRequest>,
    ) -> Result<Response<pb::CapabilitiesResponse>, Status> {
        Err(Status::unimplemented("scripted"))
    }
}

/// What comes of connecting to a switch with that P4Info.
async fn connect(p4info: P4Info) -> Result<Connected, SwitchError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder()
        .add_service(P4RuntimeServer::new(Fixed(p4info)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let text = include_str!("../src/config/testdata/good.toml");
    let text = text.replace("127.0.0.1:9559", &address);
    let config = config::validate(&config::document_of(&text).unwrap()).unwrap();
    let result = Connected::open(&config.switches[0], Duration::from_secs(10)).await;
    server.abort();
    result
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_programs_p4info_is_refused_in_words() {
    let mut other = parse_p4info_text(shunt_p4::P4INFO).unwrap();
    other
        .tables
        .retain(|table| table.preamble.as_ref().unwrap().alias != "flow4");
    let error = connect(other).await.unwrap_err();
    assert!(matches!(error, SwitchError::Pipeline { .. }), "{error}");
    let text = error.to_string();
    for part in [
        "switch sw1",
        "the program is burnt in",
        "no table ShuntIngress.flow.flow4",
        "Load the shunt.json that belongs to this shuntd",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_program_burnt_in_is_taken() {
    let ours = parse_p4info_text(shunt_p4::P4INFO).unwrap();
    assert!(connect(ours).await.is_ok());
}
