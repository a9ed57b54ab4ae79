//! What the server's requests share: who is connected, who is primary, which pipeline is set.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use p4runtime::p4::v1 as pb;
use tokio::sync::mpsc::Sender;
use tonic::{Code, Status};

use super::arbitration::{Arbitration, Notices, StreamId};
use super::deviation::Deviations;
use super::fault::Fault;
use super::pipeline::Saved;
use crate::state::{lock, write};
use crate::switch::{Inner, Loaded};

/// One message to a client.
pub(crate) type Message = Result<pb::StreamMessageResponse, Status>;

/// Messages that wait for one client; one that falls further behind loses packet-ins, and its
/// stream if it misses an arbitration message.
pub(crate) const STREAM_QUEUE: usize = 4096;

/// Guarded together, since arbitration decides who may change the pipeline.
pub(crate) struct Control {
    pub(crate) arbitration: Arbitration,
    streams: HashMap<StreamId, Sender<Message>>,
    next_stream: StreamId,
    /// Saved and not committed; reads and writes are about it.
    pub(crate) saved: Option<Saved>,
    /// The committed configuration, as the client sent it.
    pub(crate) config: Option<pb::ForwardingPipelineConfig>,
}

/// Shared by all requests.
pub(crate) struct Core {
    pub(crate) switch: Arc<Inner>,
    control: Mutex<Control>,
    /// Held while updates are applied: shared by requests of plain entries, which lock what they
    /// touch; alone by all others, by a read that takes its snapshot, and by a change of the
    /// pipeline. Taken before `control`.
    pub(crate) writing: RwLock<()>,
}

fn arbitration_message(update: pb::MasterArbitrationUpdate) -> pb::StreamMessageResponse {
    message(pb::stream_message_response::Update::Arbitration(update))
}

/// Wraps a stream message.
pub(crate) fn message(update: pb::stream_message_response::Update) -> pb::StreamMessageResponse {
    pb::StreamMessageResponse {
        update: Some(update),
    }
}

impl Core {
    pub(crate) fn new(switch: Arc<Inner>) -> Self {
        let control = Control {
            arbitration: Arbitration::new(switch.options.deviations),
            streams: HashMap::new(),
            next_stream: 0,
            saved: None,
            config: None,
        };
        Self {
            switch,
            control: Mutex::new(control),
            writing: RwLock::default(),
        }
    }

    pub(crate) fn deviations(&self) -> Deviations {
        self.switch.options.deviations
    }

    pub(crate) fn device_id(&self) -> u64 {
        self.switch.options.device_id
    }

    pub(crate) fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    /// The program that reads and writes are about: the saved one, else the one that runs.
    pub(crate) fn loaded(&self) -> Result<Arc<Loaded>, Fault> {
        let saved = self.control().saved.as_ref().map(|s| Arc::clone(&s.loaded));
        saved.map_or_else(|| self.running(), Ok)
    }

    /// The program that packets run through, or what a request without one gets.
    pub(crate) fn running(&self) -> Result<Arc<Loaded>, Fault> {
        let loaded = self.switch.loaded.load_full();
        loaded.ok_or_else(|| Fault::precondition("no forwarding pipeline is set"))
    }

    /// The checks that every changing request goes through, in the specification's order.
    pub(crate) fn check_primary(
        &self,
        device_id: u64,
        role: &str,
        election_id: Option<&pb::Uint128>,
    ) -> Result<(), Fault> {
        self.check_device(device_id).map_err(|fault| {
            // To PI an unknown device is one without a primary.
            fault.pi(match election_id {
                Some(_) => Code::PermissionDenied,
                None => Code::FailedPrecondition,
            })
        })?;
        self.control().arbitration.check(role, election_id)
    }

    pub(crate) fn check_device(&self, device_id: u64) -> Result<(), Fault> {
        if device_id == self.device_id() {
            return Ok(());
        }
        let fault = Fault::not_found(format!(
            "device {device_id} is unknown; this is device {}",
            self.device_id()
        ));
        // To PI it is a device without a pipeline.
        Err(fault.pi(Code::FailedPrecondition))
    }

    /// A client opened a stream.
    pub(crate) fn join(&self, sender: Sender<Message>) -> StreamId {
        let mut control = self.control();
        control.next_stream += 1;
        let id = control.next_stream;
        control.streams.insert(id, sender);
        id
    }

    /// A client's stream ended.
    pub(crate) fn leave(&self, stream: StreamId) {
        let mut control = self.control();
        control.streams.remove(&stream);
        let notices = control.arbitration.leave(stream, self.device_id());
        control.notify(notices);
    }

    /// A client's arbitration message. Blocks until requests in progress are done: a new primary
    /// is told so when the old one's writes have ended.
    pub(crate) fn arbitrate(
        &self,
        stream: StreamId,
        request: &pb::MasterArbitrationUpdate,
    ) -> Result<(), Fault> {
        let _writing = write(&self.writing);
        let mut control = self.control();
        let notices = control
            .arbitration
            .update(stream, request, self.device_id())?;
        control.notify(notices);
        Ok(())
    }

    /// Sends to one client, if it is there and keeps up.
    pub(crate) fn send(&self, stream: StreamId, message: pb::StreamMessageResponse) -> bool {
        let sender = self.control().streams.get(&stream).cloned();
        sender.is_some_and(|s| s.try_send(Ok(message)).is_ok())
    }

    /// Sends to every role's primary; whether one took it.
    pub(crate) fn send_primaries(&self, message: &pb::StreamMessageResponse) -> bool {
        let primaries = self.control().arbitration.primaries();
        let mut sent = false;
        for stream in primaries {
            sent |= self.send(stream, message.clone());
        }
        sent
    }

    /// Ends every client's stream.
    pub(crate) fn close(&self) {
        self.control().streams.clear();
    }
}

impl Control {
    fn notify(&mut self, notices: Notices) {
        for (stream, update) in notices {
            let sender = self.streams.get(&stream);
            let sent = sender.is_none_or(|s| s.try_send(Ok(arbitration_message(update))).is_ok());
            if !sent {
                // The client would not know whether it is primary: its stream ends instead.
                self.streams.remove(&stream);
            }
        }
    }
}
