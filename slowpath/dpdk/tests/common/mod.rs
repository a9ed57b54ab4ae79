//! One EAL for a test binary: it starts only once a process.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::OnceLock;

use shunt_dpdk::{DEFAULT_DATA_ROOM, Eal, EalConfig, Pool};

pub fn eal() -> Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    *EAL.get_or_init(|| {
        Eal::init(EalConfig {
            memory_mib: 64,
            ..EalConfig::default()
        })
        .expect("DPDK starts")
    })
}

/// A pool that no other test takes from.
pub fn pool(name: &str, count: u32) -> Pool {
    Pool::new(&eal(), name, count, DEFAULT_DATA_ROOM).expect("a pool")
}
