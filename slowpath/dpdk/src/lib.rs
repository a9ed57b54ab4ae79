//! A thin safe binding to DPDK 22.11, and the one crate of shunt with `unsafe`.
//!
//! ```text
//! Eal::init ── Pool::new ── Port::open ─┬─ rx_queue(i) ── burst(&mut Burst) ─┐
//!  (once)       (for ever)  (by name)   └─ tx_queue(i) ── burst(&mut Burst) ─┴─ 32 × Mbuf
//! ```
//!
//! Who owns what: EAL and pools live until the process ends. An [`Mbuf`] owns
//! its buffer, a [`Burst`] up to 32 of them. A queue handle is the only one to
//! its queue and keeps its [`Port`] up; the port closes after the last of them.
//! Rings live as long as the port and both ends of them.
//!
//! The binding is a C shim, `shim/shim.c`: no struct of DPDK's configuration
//! crosses over, and the mbuf fields read here are pinned by assertions there.
//! Workers call from threads of their own that are [registered](register_thread).

mod burst;
mod cpu;
mod eal;
mod ffi;
mod mapped;
mod mbuf;
mod pool;
mod port;
mod ring;
mod thread;

pub use burst::{Burst, CAPACITY, Drain};
pub use cpu::{
    CACHE_LINE, equal_to, huge_pages, prefetch, prefetch_all, prefetch_to_write, tsc, tsc_hz,
};
pub use eal::{DEFAULT_MEMORY_MIB, Eal, EalConfig, EalError, LogLevel, MAX_DEVICE_NAME};
pub use mapped::MappedWords;
pub use mbuf::{Mbuf, copy_short};
pub use pool::{
    CACHE_MBUFS, DEFAULT_DATA_ROOM, HEADROOM, MAX_DATA_ROOM, MAX_MBUFS, MAX_NAME, MIN_DATA_ROOM,
    Pool, PoolError,
};
pub use port::{MAX_PORTS, MAX_QUEUES, Port, PortConfig, PortError, PortStats, RxQueue, TxQueue};
pub use ring::{
    Inject, MAX_RING_DEPTH, MAX_RING_NAME, MAX_RING_QUEUES, RingDrain, RingEnd, RingError, RingPort,
};
pub use thread::{MAX_THREADS, Registered, ThreadError, Worker, register_thread, spawn_worker};
