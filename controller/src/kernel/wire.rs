//! The netlink wire: headers, attributes, requests (RFC 3549; `linux/netlink.h`, `rtnetlink.h`).
//!
//! Only what the mirror needs, and only read what it needs: an attribute that a newer kernel
//! adds is skipped, never an error. Everything is in host byte order, as netlink is, except
//! addresses.

use std::net::IpAddr;

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;

/// Answer kinds below the family's own (`NLMSG_*`).
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLMSG_OVERRUN: u16 = 4;

/// Message kinds (`RTM_*`).
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_GETROUTE: u16 = 26;
pub(crate) const RTM_NEWNEIGH: u16 = 28;
pub(crate) const RTM_GETNEIGH: u16 = 30;

/// Header flags (`NLM_F_*`); the upper byte means one thing in requests for a dump and another
/// in requests that create, which notifications repeat.
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_CREATE: u16 = 0x400;

/// Address families (`AF_*`).
pub(crate) const AF_UNSPEC: u8 = 0;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

/// The low bits of an attribute's type; the others are flags (`NLA_TYPE_MASK`).
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

/// The family number of an address.
pub(crate) fn family_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// Reads at `at`; `None` past the end.
pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// Reads at `at`; `None` past the end.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads at `at`; `None` past the end.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// One message inside a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram, in order. A length that does not fit ends it with `Err(())`.
pub(crate) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, ()>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let frame = split_frame(&mut bytes);
        if frame.is_none() {
            bytes = &[];
        }
        Some(frame.ok_or(()))
    })
}

fn split_frame<'a>(bytes: &mut &'a [u8]) -> Option<Frame<'a>> {
    let whole = *bytes;
    let len = usize::try_from(u32_at(whole, 0)?).ok()?;
    let frame = Frame {
        kind: u16_at(whole, 4)?,
        flags: u16_at(whole, 6)?,
        sequence: u32_at(whole, 8)?,
        payload: whole.get(HEADER_LEN..len)?,
    };
    *bytes = whole.get(align(len)..).unwrap_or(&[]);
    Some(frame)
}

/// The attributes behind a fixed part: type without its flags, and value. Stops at bytes that
/// are none.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & ATTRIBUTE_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(align(len)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// Rounded up to four bytes (`NLMSG_ALIGN`, `RTA_ALIGN`).
pub(crate) const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// A request that is being written.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Starts with the netlink header and the family's fixed part; the sequence number comes
    /// with [`Request::finish`].
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        let mut request = Self { bytes };
        request.pad();
        request
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    /// Adds an attribute; `value` is at most 64 KiB − 5, longer is cut.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let value = value.get(..usize::from(u16::MAX) - 4).unwrap_or(value);
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Adds a number.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds an address.
    pub(crate) fn ip(self, kind: u16, value: IpAddr) -> Self {
        match value {
            IpAddr::V4(v4) => self.attribute(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attribute(kind, &v6.octets()),
        }
    }

    /// The bytes to send.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        if let Some(at) = self.bytes.get_mut(0..4) {
            at.copy_from_slice(&len.to_ne_bytes());
        }
        if let Some(at) = self.bytes.get_mut(8..12) {
            at.copy_from_slice(&sequence.to_ne_bytes());
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_reads_back() {
        let bytes = Request::new(RTM_GETROUTE, NLM_F_ACK, &[9; 12])
            .u32(15, 101)
            .attribute(3, b"t\0")
            .ip(1, "10.0.0.1".parse().unwrap())
            .finish(7);
        let read: Vec<_> = frames(&bytes).collect();
        assert_eq!(read.len(), 1);
        let frame = read[0].unwrap();
        assert_eq!(
            (frame.kind, frame.flags, frame.sequence),
            (RTM_GETROUTE, NLM_F_ACK | NLM_F_REQUEST, 7)
        );
        let attributes: Vec<_> = attributes(&frame.payload[12..]).collect();
        assert_eq!(attributes[0], (15, &101u32.to_ne_bytes()[..]));
        assert_eq!(attributes[1], (3, &b"t\0"[..]));
        assert_eq!(attributes[2], (1, &[10, 0, 0, 1][..]));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(frames(&bytes).count() <= 17);
            prop_assert!(attributes(&bytes).count() <= 64);
        }

        #[test]
        fn a_length_of_zero_ends(tail in proptest::collection::vec(any::<u8>(), 12..64)) {
            let mut bytes = vec![0, 0, 0, 0];
            bytes.extend(tail);
            prop_assert_eq!(frames(&bytes).filter(Result::is_ok).count(), 0);
            prop_assert_eq!(attributes(&bytes).count(), 0);
        }
    }
}
