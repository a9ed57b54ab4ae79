//! Topologies in network namespaces, traffic and the demo.
//!
//! Everything runs in a [`sandbox`]: namespaces of its own that vanish with its first process,
//! as root or without. Inside it, hosts are network namespaces ([`netns`]), programs are
//! [`service`]s with a log file, [`topology`] is the demo's network, [`traffic`] what hosts run.

pub mod binaries;
pub mod certificates;
pub mod demo;
pub mod error;
pub mod netns;
pub mod rough_link;
pub mod sandbox;
pub mod service;
pub mod topology;
pub mod traffic;
pub mod vlan_shim;

pub use error::{Error, Result};
