//! The pipeline `p4/shunt.p4`, packet by packet: what goes in, what comes out.
//!
//! On the embedded switch, or with `SWITCH=bmv2` on the real one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod dut;
mod gateway;
mod packet;
mod ports;

mod classify;
mod drops;
mod egress;
mod flows;
mod meters;
mod punts;
mod routes;
mod slow_path;
