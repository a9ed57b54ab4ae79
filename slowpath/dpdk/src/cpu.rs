//! What CPU and kernel offer a worker's tables: time stamp counter, prefetching, huge pages.

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

/// Bytes of a cache line.
pub const CACHE_LINE: usize = 64;

/// Asks for every cache line of `value`.
#[inline]
pub fn prefetch_all<T>(value: &T) {
    let mut at = 0;
    while at < size_of::<T>() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, within the value.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast::<i8>().add(at));
        }
        at += CACHE_LINE;
    }
}

/// Asks for every cache line of `value` in order to write it: no other core has it then.
#[inline]
pub fn prefetch_to_write<T>(value: &T) {
    let mut at = 0;
    while at < size_of::<T>() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, within the value. The intrinsic becomes an ordinary prefetch for the
        // oldest CPUs; those that DPDK runs on have this instruction.
        unsafe {
            std::arch::asm!(
                "prefetchw [{}]",
                in(reg) std::ptr::from_ref(value).cast::<i8>().add(at),
                options(nostack, preserves_flags, readonly)
            );
        }
        at += CACHE_LINE;
    }
}

/// Which of the values are the wanted one, the first one's bit lowest. Without a branch: which one
/// it is cannot be predicted.
#[inline]
pub fn equal_to(values: &[u16; 10], wanted: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of x86-64; both loads, of eight values each, lie within the array.
    unsafe {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16,
            _mm_set1_epi16,
        };
        let wanted = _mm_set1_epi16(wanted as i16);
        let eight = |at: usize| {
            let values = _mm_loadu_si128(values.as_ptr().add(at).cast::<__m128i>());
            _mm_cmpeq_epi16(values, wanted)
        };
        let both = _mm_movemask_epi8(_mm_packs_epi16(eight(0), eight(2))) as u32;
        both & 0xff | both >> 8 << 2
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let bits = values.iter().enumerate();
        bits.fold(0, |all, (n, value)| all | u32::from(*value == wanted) << n)
    }
}

/// Bytes of a huge page (x86_64, and aarch64 with 4 KiB pages).
const HUGE_PAGE: usize = 2 << 20;

/// Asks the kernel to back a large vector's memory, spare capacity included, with huge pages:
/// a table that is read at random would miss the TLB at every look otherwise. Best before
/// anything is in it. A kernel that has none goes on with small ones.
pub fn huge_pages<T>(vec: &mut Vec<T>) {
    let start = vec.as_mut_ptr() as usize;
    let end = start + vec.capacity() * size_of::<T>();
    let (first, last) = (start.next_multiple_of(HUGE_PAGE), end - end % HUGE_PAGE);
    if first < last {
        // SAFETY: whole pages inside one allocation of ours; the advice changes no content.
        unsafe {
            nix::libc::madvise(first as *mut _, last - first, nix::libc::MADV_HUGEPAGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_their_bits() {
        let values = [7, 0, 7, u16::MAX, 1 << 15, 7, 8, 9, 7, 10];
        assert_eq!(equal_to(&values, 7), 0b01_0010_0101);
        assert_eq!(equal_to(&values, 6), 0);
        for (n, value) in values
            .into_iter()
            .enumerate()
            .filter(|(_, value)| *value != 7)
        {
            assert_eq!(equal_to(&values, value), 1 << n);
        }
        assert_eq!(equal_to(&[u16::MAX; 10], u16::MAX), 0x3ff);
    }

    #[test]
    fn any_vector_may_be_advised() {
        for capacity in [0, 1, HUGE_PAGE, 3 * HUGE_PAGE + 5] {
            let mut vec: Vec<u8> = Vec::with_capacity(capacity);
            huge_pages(&mut vec);
            vec.resize(capacity, 7);
            huge_pages(&mut vec);
            assert!(vec.iter().all(|byte| *byte == 7));
        }
    }
}
