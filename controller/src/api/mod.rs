//! The API: gRPC with reflection and health, on unix sockets and over TCP with mutual TLS.

mod access;
mod configuration;
mod convert;
mod devices;
mod filters;
mod flows;
mod hardware;
mod nat;
mod offload;
mod service;
mod socket;
mod status;
mod switches;
mod tls;
mod top;
mod trace;

pub(crate) use nat::pools;
pub use service::{Api, Listeners, serve};
pub use socket::{ApiSocket, SocketError, SocketMode};
pub use tls::{TlsError, TlsListener};
pub use top::Top;
