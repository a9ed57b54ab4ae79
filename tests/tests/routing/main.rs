//! Real routing daemons, real tools and real floods through the gateway: what a kernel with
//! physical ports would do with them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod bgp;
mod ecmp;
mod flood;
mod lab;
mod moves;
mod probe;
mod stream;
mod tools;
