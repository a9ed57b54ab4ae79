//! The daemon's gRPC API: messages, client and server stubs, and how to reach it.

mod connect;

pub use connect::{ConnectError, Target, TlsTarget, connect, innermost};

/// Where the daemon listens when its configuration says nothing else.
pub const DEFAULT_SOCKET: &str = "/run/shunt/shuntd.sock";

/// The serialised `FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shunt.bin"));

/// Package `shunt.v1`; what each message means is said in `proto/shunt/v1/shunt.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/shunt.v1.rs"));
}
