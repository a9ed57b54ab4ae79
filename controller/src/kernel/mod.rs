//! The kernel's side: taps, addresses and rules ([`setup`]), and the mirror of its routes and
//! neighbours ([`Mirror`]). Everything over netlink (`rtnetlink(7)`).

pub mod setup;

mod change;
mod choice;
mod decode;
mod keeper;
mod leftover;
mod message;
mod mirror;
mod nexthop_ids;
mod nexthop_message;
mod output;
mod requests;
mod rib;
mod rules;
mod settings;
mod snapshot;
mod socket;
mod state;
mod upkeep;
#[cfg(test)]
mod vrf_tests;
mod wire;

pub use keeper::RESOLVE_INTERVAL;
pub use mirror::{
    BATCH_LIMIT, Batch, BatchReason, Mirror, MirrorConfig, MirrorHandle, MirrorStats,
    RECEIVE_BUFFER_BYTES, RESYNC_INTERVAL, Stopped, TapInterface,
};
pub use rules::RULE_PROTOCOL;
pub use setup::{KernelSetup, SetupError, Tap, TapConfig};
pub use snapshot::{NeighborView, PathView, RouteView, Snapshot};
pub use socket::SocketError;
