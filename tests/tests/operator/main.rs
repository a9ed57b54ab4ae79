//! The operator's commands against a running gateway: connections, NAT, what a packet would do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod access;
mod config;
mod floods;
mod flows;
mod lab;
mod malformed;
mod nat;
mod offload;
mod top;
mod trace;
mod workers;
