//! The slow path: workers, packet walk, connection tracking, NAT.
//!
//! ```text
//!  controller                    manager                       worker (a thread on DPDK)
//!  ──────────                    ───────                       ────────────────────────
//!  FibWriter ═══ left-right: routes, neighbours, policy ═════▶ FibReader
//!  ManagerHandle ──▶ Manager ── commands between bursts ─────▶ Worker { Table, Nat, Hold }
//!  ExceptionReceiver ◀── frames for the kernel, resolve ────── ExceptionPort
//!  ExceptionSender ──── frames from the kernel ──────────────▶
//!                        shunt_offload::Engine ◀── install, remove ── WorkerPort
//!                                              ── what became of it ─▶
//! ```
//!
//! The worker owns its connections; hardware is a cache of them. [`worker`] has the packet walk.

pub mod config;
pub mod conntrack;
pub mod exception;
pub mod fib;
pub mod icmp;
pub mod manager;
pub mod nat;
pub mod packet;
pub mod policy;
pub mod record;
pub mod stats;
pub mod worker;

pub use config::{PortDevice, SlowPathConfig, SwitchSide};
pub use conntrack::{Direction, Offload, State};
pub use exception::{
    ExceptionEvent, ExceptionFrame, ExceptionPort, ExceptionReceiver, ExceptionSender,
};
pub use fib::{FibReaderFactory, FibWriter};
pub use manager::{
    Adopted, FlowCursor, FlowPage, Glance, Manager, ManagerError, ManagerHandle, NatStats,
    RESTORE_PAGE, RestoreCursor, SlowPathStats,
};
pub use nat::PoolUse;
pub use policy::Policy;
pub use stats::DropReason;
pub use worker::{FlowFilter, FlowSide, FlowView, Refusal, RuleUse, Step, Trace};
