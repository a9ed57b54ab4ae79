//! Network address translation: rules, and the ports that masquerades lease.
//!
//! ```text
//!   Connection ── owns ──▶ Lease = number of (VPC, outside address, protocol), and outside port
//!                            │ there lies
//!                            ▼
//!                          Mapping: inside VPC, address and port ◀── Index, by their hash
//!                            counted: one a connection
//! ```
//!
//! Mappings are endpoint-independent (RFC 4787 REQ-1): all connections of one inside address
//! and port through one pool have the same outside address and port. A port belongs to one
//! mapping at a time, and is free again when the last connection has given back its [`Lease`],
//! which the worker does only after the hardware has let go of it.

mod addresses;
mod origin;
mod pool;
mod prefix;
mod rules;

pub use addresses::MAX_ADDRESSES_TRIED;
pub use origin::Origin;
pub(crate) use pool::Ask;
pub use pool::{
    Lease, LeaseError, Leased, MAX_SETS, Nat, PORT_BLOCK, PoolUse, PortShare, RetakeError,
};
pub use prefix::NPTV6_PREFIX_MAX;
pub(crate) use rules::Hidden;
pub use rules::{Destination, Rules, SourceRule};

#[cfg(test)]
mod tests;
