//! P4Runtime protocol: messages, P4Info model, canonical values and an async client.
//!
//! | module | what it gives |
//! |---|---|
//! | [`p4info`] | names for ids, with the nearest name for a misspelt one |
//! | [`value`] | canonical bytes; 10.0.0.1, 02:00:00:00:00:01, 80..90 and back |
//! | [`named`] | whole entities as lines of text and as values that serialize |
//! | [`order`] | which updates go before which |
//! | [`wire`] | updates straight to bytes, for a million a second |
//! | `client` | connection, arbitration, pipeline, Write, Read, packets, digests |
//!
//! Knows nothing of any particular pipeline. Cargo features: `client` (default)
//! and `server`, the generated service, and `serde`; without any, only the
//! messages, the P4Info model and the values are built, with no transport, which
//! is what a build script wants.

#[cfg(feature = "client")]
pub mod client;
pub mod named;
pub mod order;
pub mod p4info;
mod proto;
pub mod value;
pub mod wire;

pub use proto::{FILE_DESCRIPTOR_SET, google, p4};
