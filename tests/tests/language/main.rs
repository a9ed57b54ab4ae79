//! The language that the embedded switch executes, beside real bmv2: the same programs, entries and
//! packets, and the same expectations of outputs and read-backs.
//!
//! Each test runs on the embedded switch, and again on `simple_switch_grpc` where that is on PATH.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod device;
#[path = "../pipeline/ports.rs"]
mod ports;

mod detours;
mod numbers;
mod stacks;
mod state;
mod tables;
