//! The switches: a session with each, and everything in their tables but the flows, which are
//! the offload engine's.
//!
//! ```text
//!  NetworkOp ──▶ Lowering ──▶ Ledger (wanted / held) ──▶ writes in an order that misleads
//!  (mirror,      (pure)       (pure)         ▲           no packet (plan)
//!   config)                                  └── answers, read-back
//! ```
//! [`Switches`] hands every change to every switch's session; each has its own lowering,
//! ledger, task and state, so that none waits for another.

mod book;
mod connect;
mod diff;
mod error;
mod fleet;
mod groups;
mod handle;
mod ledger;
mod lower;
mod pipeline;
mod plan;
mod reach;
mod row;
mod session;
mod tables;
mod view;

pub use connect::Connected;
pub use diff::{Comparison, Difference, Found, Kind, NotNow, REFUSALS_MAX, Repair};
pub use error::SwitchError;
pub use fleet::{Member, Switches, UnknownSwitch};
pub use handle::SwitchHandle;
pub use lower::Scope;
pub use session::{Resolver, SessionParts};
pub use view::{SwitchState, SwitchView};
