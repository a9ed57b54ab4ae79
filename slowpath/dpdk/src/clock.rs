//! The CPU's time stamp counter.

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
