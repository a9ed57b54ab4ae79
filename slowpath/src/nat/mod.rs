//! Network address translation: rules, and the ports that masquerades lease.
//!
//! ```text
//!   Connection ── owns ──▶ Lease ──▶ Mapping (inside address, port) ↔ (outside address, port)
//!                                      │ counted: one a connection
//!                                      └──▶ one bit in the PortSet of (VPC, address, protocol)
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
pub use pool::{Lease, LeaseError, Leased, Nat, PORT_BLOCK, PoolUse, PortShare, RetakeError};
pub use prefix::NPTV6_PREFIX_MAX;
pub(crate) use rules::Hidden;
pub use rules::{Destination, Rules, SourceRule};

#[cfg(test)]
mod tests;
