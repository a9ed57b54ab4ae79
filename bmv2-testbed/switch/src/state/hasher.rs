//! Hashes packed keys, which are short.
//!
//! Sixteen bytes take one multiplication to 128 bits, both halves of which count. Secrets of each
//! table keep strangers from choosing keys that collide.

use super::entry::Key;

/// An odd constant without a pattern: the golden ratio's fraction.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// A table's hash function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher {
    secrets: [u64; 2],
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

/// At most 16 bytes as two numbers, which may share bytes.
#[inline]
fn ends(bytes: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return (first.into(), last.into());
    }
    let all = bytes
        .iter()
        .fold(0, |all, byte| all << 8 | u64::from(*byte));
    (all, 0)
}

impl Hasher {
    /// One with secrets of its own.
    pub(crate) fn new() -> Self {
        Self {
            secrets: rand::random(),
        }
    }

    /// The hash of a packed value.
    #[inline]
    pub(crate) fn hash(&self, value: &[u8]) -> u64 {
        let [start, other] = self.secrets;
        let mut hash = start ^ (value.len() as u64).wrapping_mul(MIX);
        let mut rest = value;
        while let Some((block, behind)) = rest.split_first_chunk::<16>()
            && !behind.is_empty()
        {
            let (low, high) = ends(block);
            hash = fold(hash ^ low, other ^ high);
            rest = behind;
        }
        let (low, high) = ends(rest);
        fold(fold(hash ^ low, other ^ high), MIX)
    }

    /// The hash of all that identifies an entry.
    pub(crate) fn hash_key(&self, key: Key<'_>) -> u64 {
        let rest = u64::from(key.prefix) << 32 | u64::from(key.priority.cast_unsigned());
        let value = self.hash(key.value);
        fold(value ^ rest, self.hash(key.mask) | 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_byte_counts_whatever_the_length() {
        let hasher = Hasher::new();
        let mut seen = HashSet::new();
        for len in 0..=70 {
            let zeros = vec![0_u8; len];
            assert!(seen.insert(hasher.hash(&zeros)), "zeros, {len}");
            for at in 0..len {
                let mut key = zeros.clone();
                for value in [1, 0x80, 0xff] {
                    key[at] = value;
                    assert!(seen.insert(hasher.hash(&key)), "{value} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn counted_keys_spread_over_the_bits_that_are_used() {
        let hasher = Hasher::new();
        for shift in [0, 32, 57] {
            let mut counts = [0_u32; 64];
            for number in 0..64_000_u32 {
                let mut key = [0; 15];
                key[3..7].copy_from_slice(&number.to_be_bytes());
                counts[(hasher.hash(&key) >> shift) as usize % 64] += 1;
            }
            // 1000 each, give or take six deviations.
            let fair = counts.iter().all(|count| (800..1200).contains(count));
            assert!(fair, "{shift}: {counts:?}");
        }
    }
}
