//! The slow path: workers, packet walk, connection tracking, NAT.

pub mod conntrack;
pub mod exception;
pub mod fib;
pub mod icmp;
pub mod nat;
pub mod packet;
pub mod policy;
pub mod stats;
pub mod worker;
