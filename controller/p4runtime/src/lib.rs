//! P4Runtime protocol: messages, P4Info model, canonical values and an async client.
//!
//! Knows nothing of any particular pipeline. Cargo features: `client` (default)
//! and `server`, the generated service; without either, only the messages, the
//! P4Info model and the values are built, with no transport, which is what a
//! build script wants.

#[cfg(feature = "client")]
pub mod client;
pub mod p4info;
mod proto;
pub mod value;

pub use proto::{FILE_DESCRIPTOR_SET, google, p4};
