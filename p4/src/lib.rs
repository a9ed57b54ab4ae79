//! Domain types of shunt and one typed Rust file per P4 table.
//!
//! The P4 program is `shunt.p4` beside this crate; [`frame`] is the header between switch
//! and slow path, [`flow`] an offloaded direction of a connection.

pub mod flow;
pub mod frame;
pub mod network;
pub mod types;

pub use flow::{FlowAction, FlowEntry, FlowKey, Tuple};
pub use frame::{Command, PuntReason, ShuntHeader};
pub use network::{Encap, Interface, NetworkOp, Nexthop, Route, Vpc};
pub use types::{
    EcmpGroupId, InterfaceId, MacAddr, NexthopId, SwitchPort, TypeError, VlanId, Vni, VpcId,
};
