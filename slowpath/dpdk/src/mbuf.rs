//! One packet buffer.

use std::ptr::NonNull;

use crate::ffi::{self, RawMbuf};

/// A packet buffer, owned: dropping it gives it back to its pool.
///
/// The frame is always one contiguous slice. Around it lies headroom and
/// tailroom, which [`prepend`](Self::prepend) and [`append`](Self::append) take
/// from.
///
/// Invariant: direct, not shared, one segment, `data_off + data_len <= buf_len`,
/// `pkt_len == data_len`.
#[repr(transparent)]
pub struct Mbuf(NonNull<RawMbuf>);

// SAFETY: an mbuf is owned by its handle alone, and may be freed on any thread.
unsafe impl Send for Mbuf {}
// SAFETY: `&Mbuf` only reads.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// # Safety
    /// `raw` is an mbuf that holds the type's invariant and belongs to nobody else.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<RawMbuf>) -> Self {
        Self(raw)
    }

    #[inline]
    fn raw(&self) -> &RawMbuf {
        // SAFETY: owned and valid until dropped; only this handle writes it.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn raw_mut(&mut self) -> &mut RawMbuf {
        // SAFETY: owned and valid until dropped; `&mut self` is exclusive.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    fn set_span(&mut self, offset: usize, len: usize) {
        let raw = self.raw_mut();
        debug_assert!(offset + len <= usize::from(raw.buf_len));
        // Both are at most buf_len, a u16: callers check.
        raw.data_off = offset as u16;
        raw.data_len = len as u16;
        raw.pkt_len = len as u32;
    }

    #[inline]
    fn offset(&self) -> usize {
        usize::from(self.raw().data_off)
    }

    /// Bytes in the frame.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.raw().data_len)
    }

    /// Whether the frame has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes free before the frame.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.offset()
    }

    /// Bytes free after the frame.
    #[inline]
    pub fn tailroom(&self) -> usize {
        usize::from(self.raw().buf_len) - self.offset() - self.len()
    }

    /// The frame, from its Ethernet header on, VLAN tags included, no FCS.
    #[inline]
    pub fn data(&self) -> &[u8] {
        let raw = self.raw();
        // SAFETY: the invariant puts the span inside the buffer, which is mapped
        // memory for as long as the mbuf is owned.
        unsafe {
            std::slice::from_raw_parts(
                raw.buf_addr.add(usize::from(raw.data_off)),
                usize::from(raw.data_len),
            )
        }
    }

    /// The frame, to write.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let raw = self.raw();
        // SAFETY: as for `data`; `&mut self` is exclusive, and the buffer is not shared.
        unsafe {
            std::slice::from_raw_parts_mut(
                raw.buf_addr.add(usize::from(raw.data_off)),
                usize::from(raw.data_len),
            )
        }
    }

    /// Grows the frame by `n` bytes at its front and returns those, to be
    /// written: they hold what was there before. `None` if the headroom is smaller.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        let offset = self.offset().checked_sub(n)?;
        // data_off + data_len stays, so it still fits the buffer.
        self.set_span(offset, self.len() + n);
        self.data_mut().get_mut(..n)
    }

    /// Grows the frame by `n` zero bytes at its end and returns those. `None`
    /// if the tailroom is smaller.
    #[inline]
    pub fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() {
            return None;
        }
        let len = self.len();
        self.set_span(self.offset(), len + n);
        let tail = self.data_mut().get_mut(len..)?;
        // An earlier packet's bytes must not leave as padding.
        tail.fill(0);
        Some(tail)
    }

    /// Appends `bytes`. `None` if the tailroom is smaller.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Option<()> {
        if bytes.len() > self.tailroom() {
            return None;
        }
        let len = self.len();
        self.set_span(self.offset(), len + bytes.len());
        copy_short(self.data_mut().get_mut(len..)?, bytes);
        Some(())
    }

    /// Cuts `n` bytes off the front. `None`, and nothing changed, if the frame is shorter.
    #[inline]
    pub fn adj(&mut self, n: usize) -> Option<()> {
        let len = self.len().checked_sub(n)?;
        self.set_span(self.offset() + n, len);
        Some(())
    }

    /// Cuts `n` bytes off the end. `None`, and nothing changed, if the frame is shorter.
    #[inline]
    pub fn trim(&mut self, n: usize) -> Option<()> {
        let len = self.len().checked_sub(n)?;
        self.set_span(self.offset(), len);
        Some(())
    }
}

/// `to.copy_from_slice(from)`. Most packets are short: of those the first 64 bytes and the last 64,
/// without a call.
#[inline]
pub fn copy_short(to: &mut [u8], from: &[u8]) {
    const PART: usize = 64;
    let (head, tail) = (from.first_chunk::<PART>(), from.last_chunk::<PART>());
    if from.len() <= 2 * PART
        && to.len() == from.len()
        && let (Some(head), Some(tail)) = (head, tail)
        && let Some(to_head) = to.first_chunk_mut()
    {
        *to_head = *head;
        if let Some(to_tail) = to.last_chunk_mut() {
            *to_tail = *tail;
        }
    } else {
        to.copy_from_slice(from);
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        let mut raw = self.0.as_ptr();
        // SAFETY: owned, so freed once; its pool lives for ever.
        unsafe { ffi::shunt_free_bulk(&mut raw, 1) }
    }
}

impl std::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .field("tailroom", &self.tailroom())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::copy_short;

    #[test]
    fn every_length_is_copied_whole() {
        let from: Vec<u8> = (0..=255).collect();
        for len in 0..from.len() {
            let mut to = vec![0xaa; len];
            copy_short(&mut to, &from[..len]);
            assert_eq!(to, from[..len]);
        }
    }
}
