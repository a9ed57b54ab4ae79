//! Up to 32 packet buffers at once, without allocation.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::ffi::{self, RawMbuf};
use crate::mbuf::Mbuf;

/// Most mbufs in a [`Burst`].
pub const CAPACITY: usize = 32;

/// An array of at most [`CAPACITY`] owned mbufs, in order. Reads as a slice;
/// what is left in it is freed together when it is dropped.
pub struct Burst {
    // Invariant: the first `len` are mbufs this burst owns.
    mbufs: [MaybeUninit<Mbuf>; CAPACITY],
    len: usize,
}

impl Burst {
    /// An empty burst.
    pub const fn new() -> Self {
        Self {
            mbufs: [const { MaybeUninit::uninit() }; CAPACITY],
            len: 0,
        }
    }

    /// Mbufs in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds [`CAPACITY`].
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len == CAPACITY
    }

    /// Adds an mbuf at the end, or hands it back when the burst is full.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        match self.mbufs.get_mut(self.len) {
            Some(slot) => {
                slot.write(mbuf);
                self.len += 1;
                Ok(())
            }
            None => Err(mbuf),
        }
    }

    /// Takes the last mbuf.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        let last = self.len.checked_sub(1)?;
        self.len = last;
        // SAFETY: below the old `len`, so initialised and owned; no longer in it.
        Some(unsafe { self.mbufs.get(last)?.assume_init_read() })
    }

    /// Takes mbuf `index`, and puts the last one in its place.
    #[inline]
    pub fn swap_remove(&mut self, index: usize) -> Option<Mbuf> {
        if index >= self.len {
            return None;
        }
        let last = self.len - 1;
        self.swap(index, last);
        self.pop()
    }

    /// Takes all mbufs, in order; those not asked for are freed.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_> {
        // The iterator owns them from here.
        let len = std::mem::take(&mut self.len);
        Drain {
            burst: self,
            next: 0,
            len,
        }
    }

    /// Moves mbufs from the front of `other` to the end of this one, as many as fit.
    #[inline]
    pub fn append(&mut self, other: &mut Self) -> usize {
        let n = other.len.min(CAPACITY - self.len);
        // SAFETY: n initialised mbufs are copied into n spare slots, and then
        // forgotten where they came from.
        unsafe {
            std::ptr::copy_nonoverlapping(other.ptr(), self.spare_ptr(), n);
            self.grow(n);
            other.forget_front(n);
        }
        n
    }

    /// Frees the mbufs for which `keep` says no; the others keep their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut Mbuf) -> bool) {
        let len = std::mem::take(&mut self.len);
        for index in 0..len {
            let Some(slot) = self.mbufs.get(index) else {
                break;
            };
            // SAFETY: it was below `len`, and is read once. Should `keep`
            // panic, the rest leaks.
            let mut mbuf = unsafe { slot.assume_init_read() };
            if keep(&mut mbuf) {
                // At most as many as came before: the slot is free.
                let _ = self.push(mbuf);
            }
        }
    }

    /// Frees all mbufs.
    #[inline]
    pub fn clear(&mut self) {
        let len = std::mem::take(&mut self.len);
        // SAFETY: the first `len` were owned, and are out of the burst now.
        unsafe { free(self.mbufs.as_mut_ptr(), len) }
    }

    #[inline]
    pub(crate) fn ptr(&mut self) -> *mut *mut RawMbuf {
        // Mbuf is a transparent NonNull, so the layout is that of a pointer.
        self.mbufs.as_mut_ptr().cast()
    }

    #[inline]
    pub(crate) fn spare_ptr(&mut self) -> *mut *mut RawMbuf {
        // SAFETY: len <= CAPACITY, so at most one past the end.
        unsafe { self.ptr().add(self.len) }
    }

    #[inline]
    pub(crate) fn spare(&self) -> usize {
        CAPACITY - self.len
    }

    /// # Safety
    /// `n` mbufs, ours and as [`Mbuf`] wants them, were written at `spare_ptr`.
    #[inline]
    pub(crate) unsafe fn grow(&mut self, n: usize) {
        debug_assert!(n <= self.spare());
        self.len += n;
    }

    /// # Safety
    /// The first `n` now belong to somebody else.
    #[inline]
    pub(crate) unsafe fn forget_front(&mut self, n: usize) {
        debug_assert!(n <= self.len);
        let rest = self.len - n;
        let ptr = self.ptr();
        // SAFETY: n + rest == len <= CAPACITY; the ranges may overlap.
        unsafe { std::ptr::copy(ptr.add(n), ptr, rest) };
        self.len = rest;
    }
}

/// # Safety
/// `len` owned mbufs at `mbufs`, which the caller forgets.
unsafe fn free(mbufs: *mut MaybeUninit<Mbuf>, len: usize) {
    if len > 0 {
        // SAFETY: by the contract; a MaybeUninit<Mbuf> has the layout of a pointer.
        unsafe { ffi::shunt_free_bulk(mbufs.cast(), len as u32) }
    }
}

impl Default for Burst {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Burst {
    type Target = [Mbuf];

    #[inline]
    fn deref(&self) -> &[Mbuf] {
        // SAFETY: the first `len` are initialised.
        unsafe { std::slice::from_raw_parts(self.mbufs.as_ptr().cast::<Mbuf>(), self.len) }
    }
}

impl DerefMut for Burst {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Mbuf] {
        // SAFETY: the first `len` are initialised; exclusive by `&mut self`.
        unsafe { std::slice::from_raw_parts_mut(self.mbufs.as_mut_ptr().cast::<Mbuf>(), self.len) }
    }
}

impl Drop for Burst {
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}

impl std::fmt::Debug for Burst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The mbufs of a burst, in order: [`Burst::drain`].
pub struct Drain<'a> {
    // Invariant: slots `next..len` of the burst are owned here; its own `len` is 0.
    burst: &'a mut Burst,
    next: usize,
    len: usize,
}

impl Iterator for Drain<'_> {
    type Item = Mbuf;

    #[inline]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.len {
            return None;
        }
        let slot = self.burst.mbufs.get(self.next)?;
        self.next += 1;
        // SAFETY: it was in `next..len`, and is no longer.
        Some(unsafe { slot.assume_init_read() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.len - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `next..len` are owned and forgotten here; next <= len <= CAPACITY.
        unsafe {
            free(
                self.burst.mbufs.as_mut_ptr().add(self.next),
                self.len - self.next,
            )
        }
    }
}

const _: () = {
    // The casts above rest on this.
    assert!(size_of::<Mbuf>() == size_of::<NonNull<RawMbuf>>());
};
