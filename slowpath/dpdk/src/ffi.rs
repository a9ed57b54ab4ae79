//! The C shim (`shim/shim.c`), and the first cache line of an mbuf.

use std::ffi::{c_char, c_int, c_uint};
use std::mem::offset_of;

/// `struct rte_mempool`, never looked into.
#[repr(C)]
pub(crate) struct RawPool {
    _opaque: [u8; 0],
}

/// `struct rte_ring`, never looked into.
#[repr(C)]
pub(crate) struct RawRing {
    _opaque: [u8; 0],
}

/// The first 64 bytes of `struct rte_mbuf` (128 bytes, 64-byte aligned). The
/// shim's assertions hold C to the same offsets.
#[repr(C)]
pub(crate) struct RawMbuf {
    pub(crate) buf_addr: *mut u8,
    _buf_iova: u64,
    pub(crate) data_off: u16,
    _refcnt: u16,
    _nb_segs: u16,
    _port: u16,
    _ol_flags: u64,
    _packet_type: u32,
    pub(crate) pkt_len: u32,
    pub(crate) data_len: u16,
    _vlan_tci: u16,
    _hash: [u8; 8],
    _vlan_tci_outer: u16,
    pub(crate) buf_len: u16,
    _pool: *mut RawPool,
}

const _: () = {
    assert!(offset_of!(RawMbuf, buf_addr) == 0);
    assert!(offset_of!(RawMbuf, data_off) == 16);
    assert!(offset_of!(RawMbuf, pkt_len) == 36);
    assert!(offset_of!(RawMbuf, data_len) == 40);
    assert!(offset_of!(RawMbuf, buf_len) == 54);
    assert!(offset_of!(RawMbuf, _pool) == 56);
    assert!(size_of::<RawMbuf>() == 64);
};

/// `struct shunt_port_config` of the shim.
#[repr(C)]
pub(crate) struct RawPortConfig {
    pub(crate) rx_queues: u16,
    pub(crate) tx_queues: u16,
    pub(crate) rx_descriptors: u16,
    pub(crate) tx_descriptors: u16,
    pub(crate) mtu: u16,
    pub(crate) promiscuous: u16,
}

unsafe extern "C" {
    pub(crate) fn shunt_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    pub(crate) fn shunt_runtime_dir() -> *const c_char;
    pub(crate) fn shunt_vdev_init(name: *const c_char, args: *const c_char) -> c_int;
    pub(crate) fn shunt_vdev_uninit(name: *const c_char) -> c_int;
    pub(crate) fn shunt_thread_is_registered() -> c_int;
    pub(crate) fn shunt_thread_register() -> c_int;
    pub(crate) fn shunt_thread_unregister();
    pub(crate) fn shunt_tsc() -> u64;
    pub(crate) fn shunt_tsc_hz() -> u64;

    pub(crate) fn shunt_pool_create(
        name: *const c_char,
        count: c_uint,
        cache: c_uint,
        data_room: u16,
        contiguous: c_int,
        out: *mut *mut RawPool,
    ) -> c_int;
    pub(crate) fn shunt_pool_available(pool: *const RawPool) -> c_uint;
    pub(crate) fn shunt_alloc_bulk(pool: *mut RawPool, out: *mut *mut RawMbuf, n: c_uint) -> c_int;
    pub(crate) fn shunt_free_bulk(mbufs: *mut *mut RawMbuf, n: c_uint);

    pub(crate) fn shunt_rx_burst(
        port: u16,
        queue: u16,
        out: *mut *mut RawMbuf,
        n: u16,
        dropped: *mut u64,
    ) -> u16;
    pub(crate) fn shunt_tx_burst(port: u16, queue: u16, mbufs: *mut *mut RawMbuf, n: u16) -> u16;

    pub(crate) fn shunt_port_by_name(name: *const c_char, port: *mut u16) -> c_int;
    pub(crate) fn shunt_port_max_queues(port: u16, rx: *mut u16, tx: *mut u16) -> c_int;
    pub(crate) fn shunt_port_start(
        port: u16,
        config: *const RawPortConfig,
        pool: *mut RawPool,
        step: *mut *const c_char,
    ) -> c_int;
    pub(crate) fn shunt_port_stop(port: u16) -> c_int;
    pub(crate) fn shunt_port_close(port: u16) -> c_int;
    pub(crate) fn shunt_port_stats(port: u16, out: *mut crate::port::PortStats) -> c_int;
    pub(crate) fn shunt_port_mac(port: u16, out: *mut u8) -> c_int;

    pub(crate) fn shunt_ring_create(
        name: *const c_char,
        depth: c_uint,
        out: *mut *mut RawRing,
    ) -> c_int;
    pub(crate) fn shunt_ring_free(ring: *mut RawRing);
    pub(crate) fn shunt_ring_enqueue(
        ring: *mut RawRing,
        mbufs: *mut *mut RawMbuf,
        n: c_uint,
    ) -> c_uint;
    pub(crate) fn shunt_ring_dequeue(
        ring: *mut RawRing,
        mbufs: *mut *mut RawMbuf,
        n: c_uint,
    ) -> c_uint;
    pub(crate) fn shunt_port_from_rings(
        name: *const c_char,
        rx: *mut *mut RawRing,
        tx: *mut *mut RawRing,
        n: c_uint,
    ) -> c_int;
}

/// What a negative return of the shim means.
pub(crate) fn os_error(ret: c_int) -> std::io::Error {
    std::io::Error::from_raw_os_error(ret.saturating_neg())
}
