//! A frame that can be rewritten, grown at the front and cut, wherever its bytes live.

use std::collections::VecDeque;

/// A packet buffer: a DPDK mbuf on the packet path, [`VecBuf`] elsewhere.
pub trait PacketBuf {
    /// The frame.
    fn data(&self) -> &[u8];
    /// The frame, to write.
    fn data_mut(&mut self) -> &mut [u8];
    /// Grows the frame by `n` bytes in front (their content is undefined) and returns those;
    /// `None`, and nothing changed, without the room.
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]>;
    /// Cuts `n` bytes off the front; `None`, and nothing changed, if it is shorter.
    fn strip(&mut self, n: usize) -> Option<()>;
    /// Cuts the frame to its first `len` bytes; longer ones only.
    fn truncate(&mut self, len: usize);
}

impl PacketBuf for shunt_dpdk::Mbuf {
    #[inline]
    fn data(&self) -> &[u8] {
        self.data()
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        self.data_mut()
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.prepend(n)
    }

    #[inline]
    fn strip(&mut self, n: usize) -> Option<()> {
        self.adj(n)
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        if let Some(excess) = self.len().checked_sub(len) {
            // Not longer than the frame, so it is always granted.
            let _ = self.trim(excess);
        }
    }
}

/// A frame in ordinary memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VecBuf(VecDeque<u8>);

impl VecBuf {
    /// A copy of `frame`.
    pub fn new(frame: &[u8]) -> Self {
        Self::from(frame.to_vec())
    }

    /// The frame's bytes.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into()
    }
}

impl From<Vec<u8>> for VecBuf {
    fn from(frame: Vec<u8>) -> Self {
        // A deque made of a vector is contiguous; `prepend` keeps it so.
        Self(frame.into())
    }
}

impl PacketBuf for VecBuf {
    fn data(&self) -> &[u8] {
        self.0.as_slices().0
    }

    fn data_mut(&mut self) -> &mut [u8] {
        self.0.make_contiguous()
    }

    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        for _ in 0..n {
            self.0.push_front(0);
        }
        self.0.make_contiguous().get_mut(..n)
    }

    fn strip(&mut self, n: usize) -> Option<()> {
        if n > self.0.len() {
            return None;
        }
        self.0.drain(..n);
        self.0.make_contiguous();
        Some(())
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vec_buffer_stays_in_one_piece() {
        let mut buffer = VecBuf::new(&[1, 2, 3, 4]);
        buffer.strip(2).unwrap();
        buffer.prepend(3).unwrap().copy_from_slice(&[7, 8, 9]);
        assert_eq!(buffer.data(), &[7, 8, 9, 3, 4]);
        buffer.truncate(4);
        assert_eq!(buffer.data_mut(), &[7, 8, 9, 3]);
        assert_eq!(buffer.strip(5), None);
        assert_eq!(buffer.into_vec(), vec![7, 8, 9, 3]);
    }
}
