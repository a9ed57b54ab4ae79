//! An embedded v1model software switch.
//!
//! It executes the JSON that p4c's bmv2 backend writes, together with the P4Info, and serves
//! P4Runtime. The JSON is compiled when it is loaded; a packet then runs to completion in the
//! thread that received it.
//!
//! ```text
//! JSON --json--> document --program--> Program --+
//! P4Info -------------------------------info-----+--> Loaded { Program, State, Info }
//!                                                          ^               ^
//! port --frame--> exec (parse, ingress, egress, deparse) --+    server ----+-- P4Runtime
//! ```

mod bits;
mod clock;
mod code;
mod exec;
mod hash;
mod info;
mod json;
pub mod log;
mod port;
mod program;
mod server;
mod state;
mod switch;

pub use clock::{Clock, ManualClock, SystemClock};
pub use port::{
    CaptureError, Captures, ChannelPort, InterfaceError, InterfacePort, MAX_FRAME_BYTES, Port,
    PortError,
};
pub use program::error::LoadError;
pub use server::{Config, Deviation, Deviations, Handle, Local, RunError, Tls, run};
pub use switch::{DROP_PORT, Options, Stats, Switch, TraceSink};
