//! The P4Runtime server.
//!
//! ```text
//! gRPC -- service --+-- walk ----------------> state        (plain entries, several requests)
//!                   +-- write, replication --> state        (all else, one request at a time)
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
mod codec;
mod core;
mod deviation;
mod digest;
mod entry;
mod events;
mod fault;
mod format;
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
mod value_set;
mod walk;
mod wide;
mod wire;
mod write;

pub(crate) use atomic::UndoLog;
pub use deviation::{Deviation, Deviations};
pub(crate) use format::Formats;
pub use local::Local;
pub use run::{Config, Handle, RunError, Tls, run};
pub(crate) use write::Writer;

/// The service, as `build.rs` has it generated.
mod rpc {
    #![allow(
        unreachable_pub,
        clippy::default_constructed_unit_structs,
        reason = "generated"
    )]
    include!(concat!(env!("OUT_DIR"), "/p4.v1.P4Runtime.rs"));
}
