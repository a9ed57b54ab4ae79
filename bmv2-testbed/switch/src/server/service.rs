//! The gRPC service: checks requests, and leaves the work to the modules beside it.

use std::sync::Arc;

use p4runtime::p4::v1 as pb;
use pb::p4_runtime_server::P4Runtime;
use pb::stream_message_request::Update as Request;
use pb::stream_message_response::Update as Response;
use pb::write_request::Atomicity;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::arbitration::StreamId;
use super::core::{Core, Message, STREAM_QUEUE, message};
use super::fault::{Fault, batch_status};
use super::packet::packet_out;
use super::read::Reader;
use super::write::Writer;
use crate::exec::Worker;
use crate::state::lock;

/// The version of the P4Runtime API that is served.
const API_VERSION: &str = "1.5.0";
/// The most entities of one message of a read's answer.
const READ_CHUNK: usize = 1000;
/// Messages of a read's answer that wait for the client.
const READ_QUEUE: usize = 4;

/// The service; clones share everything.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Core>);

impl Service {
    fn write_all(&self, request: &pb::WriteRequest) -> Result<(), Status> {
        let core = &self.0;
        core.check_primary(
            request.device_id,
            &request.role,
            request.election_id.as_ref(),
        )?;
        let atomicity = Atomicity::try_from(request.atomicity);
        if atomicity != Ok(Atomicity::ContinueOnError) {
            return Err(Fault::unimplemented("atomicity other than CONTINUE_ON_ERROR").into());
        }
        let _writing = lock(&core.writing);
        let loaded = core.loaded()?;
        let writer = Writer {
            loaded: &loaded,
            now_ns: core.switch.options.clock.now_ns(),
        };
        let results: Vec<_> = request.updates.iter().map(|u| writer.update(u)).collect();
        batch_status(&results)
    }

    /// A message of a client other than arbitration; an answer if it was refused.
    fn stream_request(
        &self,
        stream: StreamId,
        worker: &mut Worker,
        request: Request,
    ) -> Result<(), pb::StreamError> {
        let core = &self.0;
        match request {
            Request::Packet(packet) => {
                let frame = self.frame(stream, &packet);
                match (frame, core.switch.options.cpu_port) {
                    (Ok(frame), Some(port)) => {
                        let frames = std::iter::once(frame.as_slice());
                        core.switch.process(worker, port, frames);
                        Ok(())
                    }
                    (Ok(_), None) => Err(stream_error(
                        Fault::precondition("the switch has no CPU port (--cpu-port)"),
                        pb::stream_error::Details::PacketOut(pb::PacketOutError {
                            packet_out: Some(packet),
                        }),
                    )),
                    (Err(fault), _) => Err(stream_error(
                        fault,
                        pb::stream_error::Details::PacketOut(pb::PacketOutError {
                            packet_out: Some(packet),
                        }),
                    )),
                }
            }
            // Digests are never repeated, so that acknowledging them changes nothing.
            Request::DigestAck(_) => Ok(()),
            Request::Other(other) => Err(stream_error(
                Fault::unimplemented("unknown stream message"),
                pb::stream_error::Details::Other(pb::StreamOtherError { other: Some(other) }),
            )),
            Request::Arbitration(_) => Ok(()),
        }
    }

    fn frame(&self, stream: StreamId, packet: &pb::PacketOut) -> Result<Vec<u8>, Fault> {
        if !self.0.control().arbitration.is_primary(stream) {
            return Err(Fault::denied("only the primary may send packets"));
        }
        let loaded = self.0.loaded()?;
        packet_out(&loaded.info.packet_out, packet)
    }
}

fn stream_error(fault: Fault, details: pb::stream_error::Details) -> pb::StreamError {
    pb::StreamError {
        canonical_code: fault.code as i32,
        message: fault.message,
        details: Some(details),
        ..pb::StreamError::default()
    }
}

async fn serve_stream(
    service: Service,
    mut requests: Streaming<pb::StreamMessageRequest>,
    sender: mpsc::Sender<Message>,
) {
    let core = Arc::clone(&service.0);
    let stream = core.join(sender.clone());
    // The sender that this task keeps would hold the stream open when the server stops.
    let sender = sender.downgrade();
    let mut worker = Worker::default();
    loop {
        let Some(alive) = sender.upgrade() else { break };
        let request = tokio::select! {
            request = requests.message() => request,
            () = alive.closed() => break,
        };
        drop(alive);
        let Ok(Some(request)) = request else { break };
        match request.update {
            None => {}
            Some(Request::Arbitration(request)) => {
                if let Err(fault) = core.arbitrate(stream, &request) {
                    if let Some(sender) = sender.upgrade() {
                        let _ = sender.send(Err(fault.into())).await;
                    }
                    break;
                }
            }
            Some(other) => {
                if let Err(error) = service.stream_request(stream, &mut worker, other) {
                    core.send(stream, message(Response::Error(error)));
                }
            }
        }
    }
    core.leave(stream);
}

#[tonic::async_trait]
impl P4Runtime for Service {
    type ReadStream = ReceiverStream<Result<pb::ReadResponse, Status>>;
    type StreamChannelStream = ReceiverStream<Message>;

    async fn write(
        &self,
        request: tonic::Request<pb::WriteRequest>,
    ) -> Result<tonic::Response<pb::WriteResponse>, Status> {
        self.write_all(request.get_ref())?;
        Ok(tonic::Response::new(pb::WriteResponse {}))
    }

    async fn read(
        &self,
        request: tonic::Request<pb::ReadRequest>,
    ) -> Result<tonic::Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        self.0.check_device(request.device_id)?;
        let loaded = self.0.loaded()?;
        let now_ns = self.0.switch.options.clock.now_ns();
        let (sender, receiver) = mpsc::channel(READ_QUEUE);
        tokio::task::spawn_blocking(move || {
            let reader = Reader {
                loaded: &loaded,
                now_ns,
            };
            let gone = || Fault::new(Code::Cancelled, "the client is gone");
            let mut chunk = Vec::new();
            let mut answer = |entity| {
                chunk.push(pb::Entity {
                    entity: Some(entity),
                });
                if chunk.len() < READ_CHUNK {
                    return Ok(());
                }
                let entities = std::mem::take(&mut chunk);
                let sent = sender.blocking_send(Ok(pb::ReadResponse { entities }));
                sent.map_err(|_| gone())
            };
            let result = request
                .entities
                .iter()
                .try_for_each(|entity| reader.entity(entity, &mut answer));
            let last = match result {
                Err(fault) => Some(Err(fault.into())),
                Ok(()) if chunk.is_empty() => None,
                Ok(()) => Some(Ok(pb::ReadResponse { entities: chunk })),
            };
            if let Some(last) = last {
                // A client that is gone wants no answer.
                let _ = sender.blocking_send(last);
            }
        });
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }

    async fn set_forwarding_pipeline_config(
        &self,
        request: tonic::Request<pb::SetForwardingPipelineConfigRequest>,
    ) -> Result<tonic::Response<pb::SetForwardingPipelineConfigResponse>, Status> {
        let core = Arc::clone(&self.0);
        let request = request.into_inner();
        tokio::task::spawn_blocking(move || core.set_pipeline(request))
            .await
            .map_err(|e| Status::internal(e.to_string()))??;
        Ok(tonic::Response::new(
            pb::SetForwardingPipelineConfigResponse {},
        ))
    }

    async fn get_forwarding_pipeline_config(
        &self,
        request: tonic::Request<pb::GetForwardingPipelineConfigRequest>,
    ) -> Result<tonic::Response<pb::GetForwardingPipelineConfigResponse>, Status> {
        let answer = self.0.get_pipeline(request.get_ref())?;
        Ok(tonic::Response::new(answer))
    }

    async fn stream_channel(
        &self,
        request: tonic::Request<Streaming<pb::StreamMessageRequest>>,
    ) -> Result<tonic::Response<Self::StreamChannelStream>, Status> {
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        tokio::spawn(serve_stream(self.clone(), request.into_inner(), sender));
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }

    async fn capabilities(
        &self,
        _request: tonic::Request<pb::CapabilitiesRequest>,
    ) -> Result<tonic::Response<pb::CapabilitiesResponse>, Status> {
        Ok(tonic::Response::new(pb::CapabilitiesResponse {
            p4runtime_api_version: API_VERSION.into(),
            ..pb::CapabilitiesResponse::default()
        }))
    }
}
