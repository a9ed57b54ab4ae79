//! Flow keys as the tables keep them: forty bytes without padding, hashed with a secret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shunt_p4::{FlowKey, Tuple, VpcId};

/// A flow key that is cheap to compare, to hash and to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Key {
    src: [u64; 2],
    dst: [u64; 2],
    /// Source port, destination port, VPC (16 bits each), protocol, and 1 for IPv6.
    rest: u64,
}

/// A key with its hash, which is computed once a packet.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    pub(crate) key: Key,
    pub(crate) hash: u64,
}

impl Hashed {
    /// Of nothing, to be written.
    pub(crate) const NONE: Hashed = Hashed {
        key: Key::NONE,
        hash: 0,
    };
}

pub(crate) const fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [0, address.to_bits() as u64],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    }
}

pub(crate) const fn address([high, low]: [u64; 2], v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::from_bits((high as u128) << 64 | low as u128))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(low as u32))
    }
}

impl Key {
    /// Of nothing, to be written.
    pub(crate) const NONE: Key = Key {
        src: [0; 2],
        dst: [0; 2],
        rest: 0,
    };

    /// The key of packets with that tuple in that VPC.
    #[inline]
    pub fn new(vpc: VpcId, tuple: &Tuple) -> Self {
        let rest = (tuple.src_port as u64) << 48
            | (tuple.dst_port as u64) << 32
            | (vpc.get() as u64) << 16
            | (tuple.proto as u64) << 8
            | tuple.is_ipv6() as u64;
        Self {
            src: words(tuple.src),
            dst: words(tuple.dst),
            rest,
        }
    }

    /// As [`Key::new`], of addresses in words and both ports in one, the source's above.
    #[inline]
    pub(crate) const fn of_words(
        vpc: VpcId,
        src: [u64; 2],
        dst: [u64; 2],
        proto: u8,
        ports: u32,
        v6: bool,
    ) -> Self {
        let rest =
            (ports as u64) << 32 | (vpc.get() as u64) << 16 | (proto as u64) << 8 | v6 as u64;
        Self { src, dst, rest }
    }

    /// As five words: source, destination, and the rest.
    #[inline]
    pub(crate) const fn to_words(self) -> [u64; 5] {
        let ([a, b], [c, d]) = (self.src, self.dst);
        [a, b, c, d, self.rest]
    }

    /// The reverse of [`Key::to_words`]; `None`: no key has such words.
    pub(crate) fn from_words([a, b, c, d, rest]: [u64; 5]) -> Option<Self> {
        let (src, dst) = ([a, b], [c, d]);
        let v6 = rest & 1 == 1;
        let is_ipv4 = |[high, low]: [u64; 2]| high == 0 && low >> 32 == 0;
        if VpcId::new((rest >> 16) as u16).is_none()
            || rest & 0xfe != 0
            || !(v6 || is_ipv4(src) && is_ipv4(dst))
        {
            return None;
        }
        Some(Self { src, dst, rest })
    }

    /// The source address in words.
    #[inline]
    pub(crate) const fn src(&self) -> [u64; 2] {
        self.src
    }

    /// The destination address in words.
    #[inline]
    pub(crate) const fn dst(&self) -> [u64; 2] {
        self.dst
    }

    /// Both ports, the source's above.
    #[inline]
    pub(crate) const fn ports(&self) -> u32 {
        (self.rest >> 32) as u32
    }

    /// Source and destination port.
    #[inline]
    pub(crate) const fn port_pair(&self) -> (u16, u16) {
        ((self.rest >> 48) as u16, (self.rest >> 32) as u16)
    }

    /// Whether the addresses are of IPv6.
    #[inline]
    pub(crate) const fn is_ipv6(&self) -> bool {
        self.rest & 1 == 1
    }

    /// The VPC that the packets arrive in.
    #[inline]
    pub fn vpc(&self) -> VpcId {
        // Made from one, so never the fallback.
        VpcId::new((self.rest >> 16) as u16).unwrap_or(VpcId::MIN)
    }

    /// IP protocol number.
    #[inline]
    pub const fn proto(&self) -> u8 {
        (self.rest >> 8) as u8
    }

    /// The packets' tuple on arrival.
    #[inline]
    pub const fn tuple(&self) -> Tuple {
        let v6 = self.is_ipv6();
        Tuple {
            src: address(self.src, v6),
            dst: address(self.dst, v6),
            proto: self.proto(),
            src_port: (self.rest >> 48) as u16,
            dst_port: (self.rest >> 32) as u16,
        }
    }

    /// Both, as everybody else has them.
    #[inline]
    pub fn flow_key(&self) -> FlowKey {
        FlowKey {
            vpc: self.vpc(),
            tuple: self.tuple(),
        }
    }
}

impl From<&FlowKey> for Key {
    #[inline]
    fn from(key: &FlowKey) -> Self {
        Self::new(key.vpc, &key.tuple)
    }
}

/// Hashes with a secret: whoever does not know it cannot choose keys that collide.
///
/// Multiplications of 64 by 64 bits whose halves are folded together, as wyhash and ahash's
/// portable form have them; the first two do not wait for each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyHasher([u64; 6]);

impl KeyHasher {
    /// The secret is made of `seed` by splitmix64.
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self([(); 6].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        }))
    }

    /// Of three pairs of words.
    #[inline]
    pub(crate) fn words(&self, a: [u64; 2], b: [u64; 2], c: u64) -> u64 {
        let [k0, k1, k2, k3, k4, k5] = self.0;
        let first = fold(a[0] ^ k0, a[1] ^ k1);
        let second = fold(b[0] ^ k2, b[1] ^ k3);
        fold(first ^ c ^ k4, second ^ k5)
    }

    #[inline]
    pub(crate) fn hash(&self, key: &Key) -> u64 {
        self.words(key.src, key.dst, key.rest)
    }

    /// The key with its hash.
    #[inline]
    pub(crate) fn hashed(&self, key: Key) -> Hashed {
        Hashed {
            hash: self.hash(&key),
            key,
        }
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_round_trip(
            src: [u8; 16], dst: [u8; 16], ports: [u16; 2], proto: u8, vpc in 1u16.., v6: bool,
        ) {
            let address = |bytes: [u8; 16]| -> IpAddr {
                if v6 { bytes.into() } else { <[u8; 4]>::try_from(&bytes[..4]).unwrap().into() }
            };
            let tuple = Tuple {
                src: address(src), dst: address(dst), proto, src_port: ports[0], dst_port: ports[1],
            };
            let key = FlowKey { vpc: VpcId::new(vpc).unwrap(), tuple };
            let kept = Key::from(&key);
            prop_assert_eq!(kept.flow_key(), key);
            prop_assert_eq!(Key::from_words(kept.to_words()), Some(kept));
        }
    }

    #[test]
    fn families_and_seeds_differ() {
        let tuple = |address: &str| Tuple {
            src: address.parse().unwrap(),
            dst: address.parse().unwrap(),
            proto: 17,
            src_port: 1,
            dst_port: 2,
        };
        let (v4, v6) = (tuple("0.0.0.1"), tuple("::1"));
        let (v4, v6) = (Key::new(VpcId::MIN, &v4), Key::new(VpcId::MIN, &v6));
        assert_ne!(v4, v6);
        let (one, two) = (KeyHasher::new(1), KeyHasher::new(2));
        assert_ne!(one.hash(&v4), one.hash(&v6));
        assert_ne!(one.hash(&v4), two.hash(&v4));
    }

    /// Keys that differ in few bits only spread over all of the hash's upper half.
    #[test]
    fn counting_keys_spread() {
        let hasher = KeyHasher::new(3);
        let mut seen = std::collections::HashSet::new();
        for n in 0..1u32 << 16 {
            let tuple = Tuple {
                src: Ipv4Addr::from_bits(0x0a00_0000 | n >> 8).into(),
                dst: Ipv4Addr::new(192, 0, 2, 1).into(),
                proto: 17,
                src_port: n as u16 & 0xff,
                dst_port: 53,
            };
            seen.insert(hasher.hash(&Key::new(VpcId::MIN, &tuple)) >> 44);
        }
        // 65,536 balls into 2^20 bins: 63,530 expected.
        assert!(seen.len() > 63_000, "{}", seen.len());
    }
}
