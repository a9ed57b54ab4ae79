//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).

use std::net::IpAddr;

/// One's complement sum of `bytes` as big-endian words; an odd last byte is padded with zero.
/// Good for 128 KiB before it has to be folded.
pub fn sum(bytes: &[u8]) -> u32 {
    let (words, odd) = bytes.as_chunks::<2>();
    let whole: u32 = words
        .iter()
        .map(|&word| u32::from(u16::from_be_bytes(word)))
        .fold(0, u32::wrapping_add);
    match odd {
        [last] => whole.wrapping_add(u32::from(*last) << 8),
        _ => whole,
    }
}

/// Folds the carries of a one's complement sum.
pub fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// The checksum of `bytes`: 0 over bytes that contain their own right checksum.
pub fn of(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// The sum of the pseudo header (RFC 793, RFC 8200 section 8.1), to be added to that of the
/// transport header and its payload.
pub fn pseudo_header(src: IpAddr, dst: IpAddr, proto: u8, len: u32) -> u32 {
    let addresses = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        // Never asked for: a packet has one family.
        _ => 0,
    };
    addresses + u32::from(proto) + (len >> 16) + (len & 0xffff)
}

/// What a checksum has to change by when bytes that it covers change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(u32);

impl Delta {
    /// One 16-bit word changes.
    #[must_use]
    pub fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + u32::from(!old) + u32::from(new))
    }

    /// An address changes; both of one family.
    #[must_use]
    pub fn address(self, old: IpAddr, new: IpAddr) -> Self {
        match (old, new) {
            (IpAddr::V4(old), IpAddr::V4(new)) => self.bytes(&old.octets(), &new.octets()),
            (IpAddr::V6(old), IpAddr::V6(new)) => self.bytes(&old.octets(), &new.octets()),
            _ => self,
        }
    }

    fn bytes(self, old: &[u8], new: &[u8]) -> Self {
        let (old, _) = old.as_chunks::<2>();
        let (new, _) = new.as_chunks::<2>();
        old.iter().zip(new).fold(self, |delta, (&old, &new)| {
            delta.word(u16::from_be_bytes(old), u16::from_be_bytes(new))
        })
    }

    /// Both changes together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(u32::from(fold(self.0)) + u32::from(fold(other.0)))
    }

    /// The new checksum.
    pub fn apply(self, checksum: u16) -> u16 {
        !fold(u32::from(!checksum) + u32::from(fold(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: the case that the older equation gets wrong.
        assert_eq!(Delta::default().word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    proptest! {
        #[test]
        fn updating_equals_computing_anew(
            mut bytes in proptest::collection::vec(any::<u8>(), 2..200),
            at in any::<prop::sample::Index>(),
            new: u16,
        ) {
            if bytes.len() % 2 == 1 { bytes.pop(); }
            // All zero has two representations of its sum.
            bytes[0] |= 1;
            let at = at.index(bytes.len() / 2) * 2;
            let before = of(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            let after = of(&bytes);
            let updated = Delta::default().word(old, new).apply(before);
            // 0 and 0xffff are the same number in one's complement.
            prop_assert_eq!(updated % 0xffff, after % 0xffff);
        }
    }
}
