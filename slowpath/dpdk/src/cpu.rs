//! What the CPU offers a worker: its time stamp counter, and prefetching.

use crate::eal::Eal;
use crate::ffi;

/// Ticks since some moment; constant rate on every CPU DPDK supports.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: reads a register.
    unsafe { ffi::shunt_tsc() }
}

/// Ticks a second, as EAL measured at start.
pub fn tsc_hz(_eal: &Eal) -> u64 {
    // SAFETY: EAL runs, by `_eal`; reads a variable set at start.
    unsafe { ffi::shunt_tsc_hz() }
}

/// Asks for the first cache line of `value` before it is needed.
#[inline]
pub fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, whatever the address; this one is even valid.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
