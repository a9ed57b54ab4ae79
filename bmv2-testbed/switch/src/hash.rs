//! The hash algorithms that simple_switch knows, bit for bit.

/// A hash algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Crc8,
    Crc16,
    CrcCcitt,
    Crc32,
    Crc64,
    Csum16,
    Xor16,
    Xor32,
    Identity,
}

impl Algorithm {
    /// The algorithm that the JSON calls so.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "crc8" | "crc8_custom" => Self::Crc8,
            "crc16" | "crc16_custom" => Self::Crc16,
            "crcCCITT" => Self::CrcCcitt,
            "crc32" | "crc32_custom" => Self::Crc32,
            "crc64" | "crc64_custom" => Self::Crc64,
            "csum16" | "cksum16" => Self::Csum16,
            "xor16" => Self::Xor16,
            "xor32" => Self::Xor32,
            "identity" => Self::Identity,
            _ => return None,
        })
    }

    /// The hash of `data`.
    pub(crate) fn hash(self, data: &[u8]) -> u64 {
        match self {
            Self::Crc8 => data.iter().fold(0_u8, |crc, b| {
                CRC8.get(usize::from(crc ^ b)).copied().unwrap_or(0)
            }) as u64,
            Self::Crc16 => u64::from(data.iter().fold(0_u16, |crc, b| {
                (crc >> 8) ^ CRC16.get(usize::from(crc as u8 ^ b)).copied().unwrap_or(0)
            })),
            Self::CrcCcitt => u64::from(data.iter().fold(0xffff_u16, |crc, b| {
                let index = usize::from((crc >> 8) as u8 ^ b);
                (crc << 8) ^ CCITT.get(index).copied().unwrap_or(0)
            })),
            Self::Crc32 => u64::from(crc32(data)),
            Self::Crc64 => data.iter().fold(0_u64, |crc, b| {
                (crc >> 8) ^ CRC64.get(usize::from(crc as u8 ^ b)).copied().unwrap_or(0)
            }),
            Self::Csum16 => u64::from(internet_checksum(data)),
            Self::Xor16 => xor::<2>(data),
            Self::Xor32 => xor::<4>(data),
            // The first eight bytes, as bmv2 takes them.
            Self::Identity => {
                let mut bytes = [0; 8];
                let len = data.len().min(8);
                if let (Some(to), Some(from)) = (bytes.get_mut(8 - len..), data.get(..len)) {
                    to.copy_from_slice(from);
                }
                u64::from_be_bytes(bytes)
            }
        }
    }
}

/// The ones' complement of the ones' complement sum of 16-bit words (RFC 1071).
pub(crate) fn internet_checksum(data: &[u8]) -> u16 {
    let mut sum = InternetSum::default();
    sum.add(data);
    sum.finish()
}

/// An internet checksum in the making.
#[derive(Default)]
pub(crate) struct InternetSum(u64);

impl InternetSum {
    /// Adds bytes; but for the last, their number is to be even.
    #[inline]
    pub(crate) fn add(&mut self, data: &[u8]) {
        // Two words at a time: carries out of the lower one are folded in at the end.
        let (pairs, rest) = data.as_chunks::<4>();
        for pair in pairs {
            self.0 += u64::from(u32::from_be_bytes(*pair));
        }
        self.0 += u64::from(match *rest {
            [] => 0,
            [a] => u16::from_be_bytes([a, 0]),
            [a, b] => u16::from_be_bytes([a, b]),
            [a, b, c, ..] => {
                self.0 += u64::from(u16::from_be_bytes([c, 0]));
                u16::from_be_bytes([a, b])
            }
        });
    }

    pub(crate) fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

/// Eight bytes at a time, by a table for each of them ("slicing by 8").
fn crc32(data: &[u8]) -> u32 {
    let entry = |table: usize, byte: u8| CRC32_AHEAD[table][usize::from(byte)];
    let (words, rest) = data.as_chunks::<8>();
    let mut crc = u32::MAX;
    for [a, b, c, d, e, f, g, h] in words {
        let [w, x, y, z] = (crc ^ u32::from_le_bytes([*a, *b, *c, *d])).to_le_bytes();
        crc = entry(7, w) ^ entry(6, x) ^ entry(5, y) ^ entry(4, z);
        crc ^= entry(3, *e) ^ entry(2, *f) ^ entry(1, *g) ^ entry(0, *h);
    }
    !rest
        .iter()
        .fold(crc, |crc, byte| (crc >> 8) ^ entry(0, crc as u8 ^ byte))
}

fn xor<const N: usize>(data: &[u8]) -> u64 {
    let mut out = [0_u8; N];
    for chunk in data.chunks(N) {
        for (out, byte) in out.iter_mut().zip(chunk) {
            *out ^= byte;
        }
    }
    out.iter().fold(0, |acc, b| acc << 8 | u64::from(*b))
}

const CRC8: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x80 != 0 {
                (crc << 1) ^ 0x07
            } else {
                crc << 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

const CCITT: [u16; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 {
                (crc << 1) ^ 0x1021
            } else {
                crc << 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// The table of a reflected CRC (least significant bit first) by its reflected polynomial.
macro_rules! reflected {
    ($word:ty, $polynomial:literal) => {{
        let mut table: [$word; 256] = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as $word;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 != 0 {
                    (crc >> 1) ^ $polynomial
                } else {
                    crc >> 1
                };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    }};
}

const CRC16: [u16; 256] = reflected!(u16, 0xa001);
const CRC32: [u32; 256] = reflected!(u32, 0xedb8_8320);
/// `CRC32_AHEAD[n]`: what a byte does to the CRC when `n` more bytes follow.
const CRC32_AHEAD: [[u32; 256]; 8] = {
    let mut tables = [CRC32; 8];
    let mut n = 1;
    while n < 8 {
        let mut i = 0;
        while i < 256 {
            let before = tables[n - 1][i];
            tables[n][i] = (before >> 8) ^ CRC32[(before & 0xff) as usize];
            i += 1;
        }
        n += 1;
    }
    tables
};
const CRC64: [u64; 256] = reflected!(u64, 0xd800_0000_0000_0000);

#[cfg(test)]
mod tests {
    use super::*;

    // The catalogue's check values, over "123456789".
    #[test]
    fn check_values() {
        let data = b"123456789";
        assert_eq!(Algorithm::Crc8.hash(data), 0xf4);
        assert_eq!(Algorithm::Crc16.hash(data), 0xbb3d);
        assert_eq!(Algorithm::CrcCcitt.hash(data), 0x29b1);
        assert_eq!(Algorithm::Crc32.hash(data), 0xcbf4_3926);
    }

    #[test]
    fn long_inputs_hash_as_byte_by_byte() {
        let data: Vec<u8> = (0..100_u8).map(|i| i.wrapping_mul(37) ^ 0xa5).collect();
        for len in 0..data.len() {
            let data = &data[..len];
            let crc = !data.iter().fold(u32::MAX, |crc, b| {
                (crc >> 8) ^ CRC32[usize::from(crc as u8 ^ b)]
            });
            assert_eq!(Algorithm::Crc32.hash(data), u64::from(crc));
            let mut sum: u32 = data
                .chunks(2)
                .map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |b| u32::from(*b)))
                .sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            assert_eq!(Algorithm::Csum16.hash(data), u64::from(!(sum as u16)));
        }
    }

    #[test]
    fn checksums_and_folds() {
        // RFC 1071's example.
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Algorithm::Csum16.hash(&data), 0x220d);
        assert_eq!(Algorithm::Csum16.hash(&[0xff]), 0x00ff);
        assert_eq!(Algorithm::Xor16.hash(&[1, 2, 3]), 0x0202);
        assert_eq!(Algorithm::Identity.hash(&[1, 2]), 0x0102);
    }
}
