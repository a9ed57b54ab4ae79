//! Domain types of shunt and one typed Rust file per P4 table.
//!
//! The P4 program is `shunt.p4` beside this crate; [`frame`] is the header between switch
//! and slow path, [`flow`] an offloaded direction of a connection.

pub mod drops;
pub mod flow;
pub mod frame;
pub mod hash;
pub mod network;
pub mod tables;
pub mod types;

pub use drops::SwitchDrop;
pub use flow::{FlowAction, FlowEntry, FlowKey, FlowPair, Tuple};
pub use frame::{Command, PuntReason, ShuntHeader};
pub use hash::flow_hash;
pub use network::{Encap, Interface, NetworkOp, Nexthop, Route, Vpc};
pub use types::{
    EcmpGroupId, InterfaceId, MAX_SWITCHES, MacAddr, NexthopId, SwitchIndex, SwitchPort, TypeError,
    VlanId, Vni, VpcId,
};

/// The pipeline's P4Info in protobuf text format, as the compiler wrote it.
pub const P4INFO: &str = include_str!("../shunt.p4info.txtpb");

/// The pipeline for bmv2 (the `p4_device_config` of P4Runtime), as the compiler wrote it.
pub const PIPELINE_JSON: &[u8] = include_bytes!("../shunt.json");

/// Tells this pipeline from any other: a hash of [`P4INFO`] and [`PIPELINE_JSON`], the same on
/// every machine (`ForwardingPipelineConfig.cookie`).
pub const fn pipeline_cookie() -> u64 {
    include!(concat!(env!("OUT_DIR"), "/cookie.rs"))
}
