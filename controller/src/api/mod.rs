//! The API: gRPC on a unix socket, with reflection and health.

mod configuration;
mod convert;
mod devices;
mod flows;
mod nat;
mod offload;
mod service;
mod socket;
mod status;
mod switches;
mod trace;

pub(crate) use nat::pools;
pub use service::{Api, serve};
pub use socket::{ApiSocket, SocketError};
