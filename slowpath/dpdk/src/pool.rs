//! Pools of packet buffers.

use std::ffi::CString;
use std::ptr::NonNull;

use crate::burst::{Burst, CAPACITY};
use crate::eal::{Eal, control};
use crate::ffi::{self, RawPool};
use crate::mbuf::Mbuf;

/// Room before a fresh frame, in bytes (`RTE_PKTMBUF_HEADROOM`).
pub const HEADROOM: usize = 128;

/// Room for one frame with VLAN tags and an outer header at the Ethernet MTU,
/// and what net_af_packet asks for with its default frame size, in bytes.
pub const DEFAULT_DATA_ROOM: u16 = 2048;

/// Smallest room for data, in bytes.
pub const MIN_DATA_ROOM: u16 = 64;

/// Largest room for data, in bytes: with the headroom it has to fit 16 bits.
pub const MAX_DATA_ROOM: u16 = u16::MAX - HEADROOM as u16;

/// Most mbufs in a pool: some 9 GB at the default room.
pub const MAX_MBUFS: u32 = 1 << 22;

/// Mbufs that each registered thread keeps at hand, at most.
pub const CACHE_MBUFS: u32 = 256;

/// Longest pool or ring name, in bytes (`RTE_MEMPOOL_NAMESIZE` less its prefixes).
pub const MAX_NAME: usize = 20;

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The name is empty, too long, or has a NUL byte.
    #[error("pool name {0:?} must have 1 to {MAX_NAME} bytes and no NUL")]
    Name(String),
    /// The count is out of range.
    #[error("a pool has 1 to {MAX_MBUFS} packet buffers, not {0}")]
    Count(u32),
    /// The data room is out of range.
    #[error("a packet buffer has {MIN_DATA_ROOM} to {MAX_DATA_ROOM} bytes, not {0}")]
    DataRoom(u16),
    /// DPDK refused, mostly for lack of memory.
    #[error(
        "no pool `{name}` of {count} packet buffers of {data_room} bytes: {source}; give DPDK more memory, or the pool another name"
    )]
    Create {
        /// The pool's name.
        name: String,
        /// How many mbufs were asked for.
        count: u32,
        /// Bytes for data in each.
        data_room: u16,
        /// DPDK's error number.
        source: std::io::Error,
    },
}

/// A pool of mbufs, usable from any thread; fastest from
/// [registered](crate::register_thread) ones, which have a cache of their own.
///
/// Never freed: mbufs carry a bare pointer to their pool, and may outlive every
/// handle inside a driver. Make pools at start, not per connection.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    raw: NonNull<RawPool>,
    count: u32,
    data_room: u16,
}

// SAFETY: a mempool with the ring_mp_mc handler takes and gives objects from
// any thread; caches are per registered thread. The memory is never freed.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// Makes a pool of `count` mbufs with `data_room` bytes each for data,
    /// besides [`HEADROOM`]. Some of the `count` may sit in the caches of other
    /// threads, [`CACHE_MBUFS`] times 1.5 a thread.
    pub fn new(eal: &Eal, name: &str, count: u32, data_room: u16) -> Result<Self, PoolError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(PoolError::Name(name.to_owned()));
        }
        let c_name = CString::new(name).map_err(|_| PoolError::Name(name.to_owned()))?;
        if !(1..=MAX_MBUFS).contains(&count) {
            return Err(PoolError::Count(count));
        }
        if !(MIN_DATA_ROOM..=MAX_DATA_ROOM).contains(&data_room) {
            return Err(PoolError::DataRoom(data_room));
        }
        // DPDK asks for cache * 1.5 <= count.
        let cache = CACHE_MBUFS.min(count / 2);
        let room = data_room + HEADROOM as u16;
        let mut raw = std::ptr::null_mut();
        let _control = control();
        // SAFETY: the name is NUL-terminated and copied; `raw` is written on success.
        let ret = unsafe {
            ffi::shunt_pool_create(
                c_name.as_ptr(),
                count,
                cache,
                room,
                i32::from(!eal.no_huge()),
                &mut raw,
            )
        };
        let failed = |source| PoolError::Create {
            name: name.to_owned(),
            count,
            data_room,
            source,
        };
        if ret < 0 {
            return Err(failed(ffi::os_error(ret)));
        }
        let raw =
            NonNull::new(raw).ok_or_else(|| failed(std::io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self {
            raw,
            count,
            data_room,
        })
    }

    /// An empty mbuf with [`HEADROOM`] bytes before it, or `None` when the pool is empty.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pool lives for ever; one pointer is written on success.
        let ret = unsafe { ffi::shunt_alloc_bulk(self.raw.as_ptr(), &mut raw, 1) };
        if ret < 0 {
            return None;
        }
        // SAFETY: a fresh mbuf is direct, unshared, one segment, and ours.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// An mbuf with a copy of `frame`, or `None` when the pool is empty or the
    /// frame longer than [`data_room`](Self::data_room).
    pub fn alloc_copy(&self, frame: &[u8]) -> Option<Mbuf> {
        let mut mbuf = self.alloc()?;
        mbuf.extend_from_slice(frame)?;
        Some(mbuf)
    }

    /// Adds `n` empty mbufs to `burst`, all or none. `false` when the pool has
    /// fewer, or the burst no room for them.
    pub fn alloc_into(&self, burst: &mut Burst, n: usize) -> bool {
        if n == 0 {
            return true;
        }
        if n > CAPACITY - burst.len() {
            return false;
        }
        // SAFETY: the spare part of the burst has room for n pointers, all
        // written on success with fresh mbufs: direct, unshared, one segment, ours.
        unsafe {
            if ffi::shunt_alloc_bulk(self.raw.as_ptr(), burst.spare_ptr(), n as u32) < 0 {
                return false;
            }
            burst.grow(n);
        }
        true
    }

    /// Mbufs in the pool and in its caches. Walks all caches: not for the packet path.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives for ever; counters are read without a lock, and
        // the sum is approximate while others allocate.
        unsafe { ffi::shunt_pool_available(self.raw.as_ptr()) }
    }

    /// Mbufs in all.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes for data in each mbuf, besides the headroom.
    pub fn data_room(&self) -> usize {
        usize::from(self.data_room)
    }

    pub(crate) fn as_ptr(&self) -> *mut RawPool {
        self.raw.as_ptr()
    }
}
