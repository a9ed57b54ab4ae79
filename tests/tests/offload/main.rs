//! More connections than the switch has room for: switch, P4Runtime over gRPC, engine and two
//! workers, in one process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]

mod lab;
mod little_room;
