//! The gRPC service: checks requests, and leaves the work to the modules beside it.

use std::sync::Arc;

use bytes::Bytes;
use p4runtime::p4::v1 as pb;
use pb::stream_message_request::Update as Request;
use pb::stream_message_response::Update as Response;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::answer::{Part, answer};
use super::arbitration::StreamId;
use super::atomic;
use super::core::{Core, Message, STREAM_QUEUE, message};
use super::deviation::Deviations;
use super::digest;
use super::fault::{Fault, batch_status};
use super::packet::packet_out;
use super::rpc::p4_runtime_server::P4Runtime;
use super::walk::plan;
use crate::exec::Worker;
use crate::state::{lock, read, write};

/// The version of the P4Runtime API that is served.
const API_VERSION: &str = "1.5.0";
/// The version that PI says.
const PI_API_VERSION: &str = "1.3.0";
/// Requests up to this length are executed at once, in a millisecond or two.
const SHORT_REQUEST_BYTES: usize = 512 << 10;
/// Messages of a read's answer that wait for the client.
const READ_QUEUE: usize = 4;

/// The service; clones share everything.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Core>);

impl Service {
    /// Executes a `WriteRequest`.
    fn write_all(&self, bytes: &[u8]) -> Result<(), Status> {
        let core = &self.0;
        let now_ns = core.switch.options.clock.now_ns();
        let sharing = read(&core.writing);
        if core.deviations() == Deviations::default()
            && let Ok(loaded) = core.loaded()
            && let Some(plan) = plan(bytes, &loaded.formats, now_ns)
        {
            core.check_primary(plan.device_id, "", plan.election_id.as_ref())?;
            return batch_status(&plan.apply(&loaded.state));
        }
        drop(sharing);
        let request = pb::WriteRequest::decode(bytes);
        // What the generated service answers.
        let request = request.map_err(|e| Status::internal(e.to_string()))?;
        self.write_any(&request)
    }

    /// Executes any request, alone.
    fn write_any(&self, request: &pb::WriteRequest) -> Result<(), Status> {
        let core = &self.0;
        let rules = core.deviations();
        let _writing = write(&core.writing);
        let checked = || {
            let id = request.election_id.as_ref();
            core.check_primary(request.device_id, &request.role, id)?;
            let atomicity = atomic::atomicity(request, rules)?;
            Ok::<_, Fault>((atomicity, core.loaded()?))
        };
        let (atomicity, loaded) = checked().map_err(|fault| fault.told(rules))?;
        let results = atomic::apply(core, &loaded, &request.updates, atomicity);
        let told = results.into_iter().map(|r| r.map_err(|f| f.told(rules)));
        batch_status(&told.collect::<Vec<_>>())
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
            Request::DigestAck(ack) => self.acknowledge(stream, &ack).map_err(|fault| {
                let details = pb::stream_error::Details::DigestListAck;
                let ack = pb::DigestListAckError {
                    digest_list_ack: Some(ack),
                };
                stream_error(fault, details(ack))
            }),
            Request::Other(other) => Err(stream_error(
                Fault::unimplemented("unknown stream message"),
                pb::stream_error::Details::Other(pb::StreamOtherError { other: Some(other) }),
            )),
            Request::Arbitration(_) => Ok(()),
        }
    }

    fn acknowledge(&self, stream: StreamId, ack: &pb::DigestListAck) -> Result<(), Fault> {
        if !self.0.control().arbitration.is_primary(stream) {
            return Err(Fault::denied("only the primary acknowledges digests"));
        }
        let loaded = self.0.running()?;
        digest::acknowledge(&loaded.info, &mut lock(&loaded.state.digests), ack)
    }

    fn frame(&self, stream: StreamId, packet: &pb::PacketOut) -> Result<Vec<u8>, Fault> {
        if !self.0.control().arbitration.is_primary(stream) {
            return Err(Fault::denied("only the primary may send packets"));
        }
        let loaded = self.0.running()?;
        let lenient = self.0.deviations().pi;
        packet_out(&loaded.info.packet_out, packet, lenient)
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

/// Off the runtime's threads, since it waits for writes.
async fn arbitrate(
    core: &Arc<Core>,
    stream: StreamId,
    request: pb::MasterArbitrationUpdate,
) -> Result<(), Fault> {
    let core = Arc::clone(core);
    tokio::task::spawn_blocking(move || core.arbitrate(stream, &request))
        .await
        .map_err(|e| Fault::new(Code::Internal, e.to_string()))?
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
                if let Err(fault) = arbitrate(&core, stream, request).await {
                    if let Some(sender) = sender.upgrade() {
                        let _ = sender.send(Err(fault.into())).await;
                    }
                    break;
                }
            }
            Some(other) => {
                // PI keeps errors to itself, unless it is told otherwise in its own way.
                let quiet = core.deviations().pi;
                if let Err(error) = service.stream_request(stream, &mut worker, other)
                    && !quiet
                {
                    core.send(stream, message(Response::Error(error)));
                }
            }
        }
    }
    core.leave(stream);
}

#[tonic::async_trait]
impl P4Runtime for Service {
    type ReadStream = ReceiverStream<Part>;
    type StreamChannelStream = ReceiverStream<Message>;

    async fn write(
        &self,
        request: tonic::Request<Bytes>,
    ) -> Result<tonic::Response<pb::WriteResponse>, Status> {
        let bytes = request.into_inner();
        if bytes.len() <= SHORT_REQUEST_BYTES {
            self.write_all(&bytes)?;
        } else {
            // So that the connections of others are served meanwhile. Once begun, a request is
            // executed to its end, whether or not its client waits.
            let service = self.clone();
            tokio::task::spawn_blocking(move || service.write_all(&bytes))
                .await
                .map_err(|e| Status::internal(e.to_string()))??;
        }
        Ok(tonic::Response::new(pb::WriteResponse {}))
    }

    async fn read(
        &self,
        request: tonic::Request<pb::ReadRequest>,
    ) -> Result<tonic::Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let core = Arc::clone(&self.0);
        let told = |fault: Fault| fault.told(core.deviations());
        core.check_device(request.device_id).map_err(told)?;
        let loaded = core.loaded().map_err(told)?;
        let (sender, receiver) = mpsc::channel(READ_QUEUE);
        tokio::task::spawn_blocking(move || answer(&core, &loaded, &request, &sender));
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }

    async fn set_forwarding_pipeline_config(
        &self,
        request: tonic::Request<pb::SetForwardingPipelineConfigRequest>,
    ) -> Result<tonic::Response<pb::SetForwardingPipelineConfigResponse>, Status> {
        let core = Arc::clone(&self.0);
        let request = request.into_inner();
        let set = move || {
            let told = |fault: Fault| fault.told(core.deviations());
            core.set_pipeline(request).map_err(told)
        };
        tokio::task::spawn_blocking(set)
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
        let told = |fault: Fault| fault.told(self.0.deviations());
        let answer = self.0.get_pipeline(request.get_ref()).map_err(told)?;
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
        request: tonic::Request<pb::CapabilitiesRequest>,
    ) -> Result<tonic::Response<pb::CapabilitiesResponse>, Status> {
        let pi = self.0.deviations().pi;
        // Without a device it is about the server.
        let device_id = request.get_ref().device_id;
        if device_id != 0 && !pi {
            self.0.check_device(device_id)?;
        }
        let version = if pi { PI_API_VERSION } else { API_VERSION };
        Ok(tonic::Response::new(pb::CapabilitiesResponse {
            p4runtime_api_version: version.into(),
            ..pb::CapabilitiesResponse::default()
        }))
    }
}
