//! The P4Runtime server.
//!
//! ```text
//! gRPC -- service --+-- write, replication --> state        (one request at a time)
//!                   +-- read ----------------- state        (streamed in bounded messages)
//!                   +-- pipeline ------------> loaded
//!                   +-- stream -- arbitration
//!                          ^----- events task <-- packet-in, digests, idle entries
//! ```

mod arbitration;
mod core;
#[allow(
    deprecated,
    reason = "clients in use still send what the specification deprecates"
)]
mod entry;
#[allow(
    deprecated,
    reason = "clients in use still send what the specification deprecates"
)]
mod events;
mod fault;
mod local;
mod packet;
mod pipeline;
#[allow(
    deprecated,
    reason = "clients in use still send what the specification deprecates"
)]
mod read;
#[allow(
    deprecated,
    reason = "clients in use still send what the specification deprecates"
)]
mod replication;
mod run;
mod service;
mod value;
#[allow(
    deprecated,
    reason = "clients in use still send what the specification deprecates"
)]
mod write;

pub use local::Local;
pub use run::{Config, Handle, RunError, Tls, run};
