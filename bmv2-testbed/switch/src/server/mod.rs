//! The P4Runtime server.
//!
//! ```text
//! gRPC -- service --+-- write, replication --> state        (one request at a time)
//!                   +-- read ----------------- state        (streamed in bounded messages)
//!                   +-- pipeline ------------> loaded
//!                   +-- stream -- arbitration
//!                          ^----- events task <-- packet-in, digests, idle entries
//! ```

#![allow(
    deprecated,
    reason = "clients in use still send what the specification deprecates"
)]

mod answer;
mod arbitration;
mod atomic;
mod core;
mod deviation;
mod digest;
mod entry;
mod events;
mod fault;
mod local;
mod packet;
mod pad;
mod pi;
mod pipeline;
mod profile;
mod read;
mod reconcile;
mod replication;
mod resource;
mod run;
mod service;
mod value;
mod write;

pub use deviation::{Deviation, Deviations};
pub use local::Local;
pub use run::{Config, Handle, RunError, Tls, run};
