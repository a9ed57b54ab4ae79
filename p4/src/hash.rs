//! The hash that the switch gives a packet (`FlowHash` in `p4/include/classify.p4`).

use std::net::IpAddr;

use crate::Tuple;

/// The flow hash of a packet: the same for both directions of an untranslated connection. Of a
/// packet without ports those are 0.
pub fn flow_hash(tuple: &Tuple) -> u32 {
    let mut crc = Crc32::new();
    match (tuple.src, tuple.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let (src, dst) = (src.to_bits(), dst.to_bits());
            crc.add(&(src ^ dst).to_be_bytes());
            crc.add(&src.wrapping_add(dst).to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let (src, dst) = (src.to_bits(), dst.to_bits());
            crc.add(&(src ^ dst).to_be_bytes());
            crc.add(&src.wrapping_add(dst).to_be_bytes());
        }
        // No packet is of two families.
        _ => {}
    }
    crc.add(&(tuple.src_port ^ tuple.dst_port).to_be_bytes());
    crc.add(&[tuple.proto]);
    // v1model's hash: modulo the largest number.
    crc.finish() % u32::MAX
}

/// CRC-32 of IEEE 802.3.
struct Crc32(u32);

impl Crc32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;

    const fn new() -> Self {
        Self(u32::MAX)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..8 {
                self.0 = (self.0 >> 1) ^ (Self::POLYNOMIAL & 0u32.wrapping_sub(self.0 & 1));
            }
        }
    }

    const fn finish(self) -> u32 {
        self.0 ^ u32::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_is_that_of_ieee_802_3() {
        let mut crc = Crc32::new();
        crc.add(b"123456789");
        assert_eq!(crc.finish(), 0xcbf4_3926);
    }

    #[test]
    fn both_directions_have_the_same() {
        for (src, dst) in [("10.0.0.2", "192.0.2.80"), ("2001:db8::1", "2001:db8:1::2")] {
            let tuple = Tuple {
                src: src.parse().unwrap(),
                dst: dst.parse().unwrap(),
                proto: 17,
                src_port: 1234,
                dst_port: 53,
            };
            assert_eq!(flow_hash(&tuple), flow_hash(&tuple.reversed()));
        }
    }
}
