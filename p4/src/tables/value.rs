//! Values of match fields and parameters, and their canonical bytes (P4Runtime 8.4).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::frame::PuntReason;
use crate::types::{EcmpGroupId, InterfaceId, MacAddr, NexthopId, SwitchPort, VlanId, Vni, VpcId};

/// A type that a `bit<BITS>` can have.
pub trait P4Value: Copy + Eq {
    /// Its width.
    const BITS: u32;
    /// The number on the wire, smaller than 2^BITS.
    fn to_bits(self) -> u128;
    /// The reverse; `None`: the type excludes it.
    fn from_bits(bits: u128) -> Option<Self>;
}

/// A type that an LPM match field can have.
pub trait P4Prefix: Copy + Eq {
    /// Width of the address.
    const BITS: u32;
    /// The address with the bits behind the length cleared, and the length.
    fn to_prefix(self) -> (u128, u8);
    /// The reverse; `None`: the length is too large, or a bit behind it is set.
    fn from_prefix(bits: u128, length: u8) -> Option<Self>;
}

/// The shortest big-endian form, at least one byte.
pub(crate) fn canonical(bits: u128) -> Vec<u8> {
    let bytes = bits.to_be_bytes();
    let zeros = (bits.leading_zeros() / 8).min(15) as usize;
    bytes.get(zeros..).unwrap_or(&bytes).to_vec()
}

/// The number in a byte string; leading zeros are accepted. `None`: empty, or 2^width or more.
pub(crate) fn number(bytes: &[u8], width: u32) -> Option<u128> {
    if bytes.is_empty() {
        return None;
    }
    let mut value = 0_u128;
    for byte in bytes {
        if value >> 120 != 0 {
            return None;
        }
        value = value << 8 | u128::from(*byte);
    }
    (value <= all_ones(width)).then_some(value)
}

/// 2^width − 1.
pub(crate) const fn all_ones(width: u32) -> u128 {
    if width >= 128 {
        u128::MAX
    } else {
        (1 << width) - 1
    }
}

macro_rules! number {
    ($($type:ty: $repr:ty, $bits:literal;)*) => {$(
        impl P4Value for $type {
            const BITS: u32 = $bits;
            fn to_bits(self) -> u128 {
                u128::from(self.get())
            }
            fn from_bits(bits: u128) -> Option<Self> {
                <$repr>::try_from(bits).ok().and_then(Self::new)
            }
        }
    )*};
}

number! {
    VpcId: u16, 16;
    InterfaceId: u16, 16;
    NexthopId: u32, 32;
    EcmpGroupId: u16, 16;
    SwitchPort: u16, 9;
    VlanId: u16, 12;
    Vni: u32, 24;
}

macro_rules! integer {
    ($($type:ty;)*) => {$(
        impl P4Value for $type {
            const BITS: u32 = <$type>::BITS;
            fn to_bits(self) -> u128 {
                u128::from(self)
            }
            fn from_bits(bits: u128) -> Option<Self> {
                Self::try_from(bits).ok()
            }
        }
    )*};
}

integer! { u8; u16; }

impl P4Value for bool {
    const BITS: u32 = 1;
    fn to_bits(self) -> u128 {
        u128::from(self)
    }
    fn from_bits(bits: u128) -> Option<Self> {
        match bits {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

/// 0 is "no tag".
impl P4Value for Option<VlanId> {
    const BITS: u32 = VlanId::BITS;
    fn to_bits(self) -> u128 {
        self.map_or(0, P4Value::to_bits)
    }
    fn from_bits(bits: u128) -> Option<Self> {
        if bits == 0 {
            Some(None)
        } else {
            VlanId::from_bits(bits).map(Some)
        }
    }
}

impl P4Value for PuntReason {
    const BITS: u32 = 8;
    fn to_bits(self) -> u128 {
        u128::from(self as u8)
    }
    fn from_bits(bits: u128) -> Option<Self> {
        u8::try_from(bits).ok().and_then(Self::from_u8)
    }
}

impl P4Value for MacAddr {
    const BITS: u32 = 48;
    fn to_bits(self) -> u128 {
        let [a, b, c, d, e, f] = self.0;
        u128::from(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }
    fn from_bits(bits: u128) -> Option<Self> {
        let [0, 0, a, b, c, d, e, f] = u64::try_from(bits).ok()?.to_be_bytes() else {
            return None;
        };
        Some(Self([a, b, c, d, e, f]))
    }
}

impl P4Value for Ipv4Addr {
    const BITS: u32 = 32;
    fn to_bits(self) -> u128 {
        u128::from(u32::from(self))
    }
    fn from_bits(bits: u128) -> Option<Self> {
        u32::try_from(bits).ok().map(Self::from)
    }
}

impl P4Value for Ipv6Addr {
    const BITS: u32 = 128;
    fn to_bits(self) -> u128 {
        u128::from(self)
    }
    fn from_bits(bits: u128) -> Option<Self> {
        Some(Self::from(bits))
    }
}

impl P4Prefix for Ipv4Net {
    const BITS: u32 = 32;
    fn to_prefix(self) -> (u128, u8) {
        (self.network().to_bits().into(), self.prefix_len())
    }
    fn from_prefix(bits: u128, length: u8) -> Option<Self> {
        let net = Self::new(P4Value::from_bits(bits)?, length).ok()?;
        (net.trunc() == net).then_some(net)
    }
}

impl P4Prefix for Ipv6Net {
    const BITS: u32 = 128;
    fn to_prefix(self) -> (u128, u8) {
        (self.network().into(), self.prefix_len())
    }
    fn from_prefix(bits: u128, length: u8) -> Option<Self> {
        let net = Self::new(P4Value::from_bits(bits)?, length).ok()?;
        (net.trunc() == net).then_some(net)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_canonical() {
        assert_eq!(canonical(0), [0]);
        assert_eq!(canonical(0xff), [0xff]);
        assert_eq!(canonical(0x100), [1, 0]);
        assert_eq!(canonical(u128::MAX), [0xff; 16]);
    }

    #[test]
    fn empty_and_too_large_are_refused() {
        assert_eq!(number(&[], 8), None);
        assert_eq!(number(&[2, 0], 9), None);
        assert_eq!(number(&[0, 0, 1, 0xff], 9), Some(0x1ff));
        assert_eq!(number(&[1; 17], 128), None);
        assert_eq!(number(&[0; 40], 128), Some(0));
    }

    #[test]
    fn bits_behind_a_prefix_are_refused() {
        assert_eq!(Ipv4Net::from_prefix(0x0a00_0001, 8), None);
        assert_eq!(Ipv4Net::from_prefix(0x0a00_0000, 33), None);
        assert!(Ipv6Net::from_prefix(1, 128).is_some());
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value: u128) {
            prop_assert_eq!(number(&canonical(value), 128), Some(value));
        }
    }
}
