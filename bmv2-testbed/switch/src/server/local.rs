//! P4Runtime without a network: for programs that hold the switch in their own process.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use super::core::Core;
use super::events::{EVENT_QUEUE, forward};
use super::rpc::p4_runtime_server::P4RuntimeServer;
use super::service::Service;
use crate::switch::Switch;

/// A P4Runtime server that is called rather than connected to. Dropping it ends its streams.
#[derive(Debug)]
pub struct Local {
    routes: Routes,
    events: JoinHandle<()>,
}

impl Local {
    /// Serves a switch; its packet-ins, digests and notifications go to this server's primary
    /// from now on. Needs a tokio runtime around it.
    pub fn new(switch: &Switch) -> Self {
        let core = Arc::new(Core::new(Arc::clone(&switch.0)));
        let (events, received) = mpsc::channel(EVENT_QUEUE);
        switch.0.listen(events);
        Self {
            routes: Routes::new(P4RuntimeServer::new(Service(Arc::clone(&core)))),
            events: tokio::spawn(forward(core, received)),
        }
    }

    /// The gRPC service, for requests by HTTP.
    pub fn routes(&self) -> Routes {
        self.routes.clone()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.events.abort();
    }
}
