//! A mapping: an inside address and port, kept at the outside port that they have.

use std::net::IpAddr;

use shunt_p4::{Tuple, VpcId};

use crate::conntrack::{Key, KeyHasher, address};

/// The inside end of a mapping, and the VPC that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) address: [u64; 2],
    /// VPC, VPC of the outside, port (16 bits each), protocol, and 1 for IPv6.
    pub(super) rest: u64,
}

impl Inside {
    /// Nobody's.
    pub(super) const NONE: Self = Self {
        address: [0; 2],
        rest: 0,
    };

    #[inline]
    pub(super) fn new(vpc: VpcId, to: VpcId, tuple: &Tuple) -> Self {
        Self::of(to, &Key::new(vpc, tuple))
    }

    /// The source of a packet that leaves through `to`.
    #[inline]
    pub(super) fn of(to: VpcId, packet: &Key) -> Self {
        Self {
            address: packet.src(),
            rest: u64::from(packet.vpc().get()) << 48
                | u64::from(packet.port_pair().0) << 16
                | Self::shared(to, packet.proto(), packet.is_ipv6()),
        }
    }

    /// What all insides of an outside address and protocol have in common, in its place in `rest`.
    #[inline]
    pub(super) fn shared(to: VpcId, proto: u8, v6: bool) -> u64 {
        u64::from(to.get()) << 32 | u64::from(proto) << 8 | u64::from(v6)
    }

    #[inline]
    pub(super) fn hash(&self, hasher: &KeyHasher) -> u64 {
        hasher.words(self.address, [self.rest, 0], 0)
    }

    #[inline]
    pub(super) fn vpc(&self) -> u16 {
        (self.rest >> 48) as u16
    }

    #[inline]
    pub(super) fn port(&self) -> u16 {
        (self.rest >> 16) as u16
    }

    #[inline]
    pub(super) fn proto(&self) -> u8 {
        (self.rest >> 8) as u8
    }

    #[inline]
    pub(super) fn is_ipv4(&self) -> bool {
        self.rest & 1 == 0
    }

    pub(super) fn address(&self) -> IpAddr {
        address(self.address, self.rest & 1 == 1)
    }
}

/// Words of a [`Mapping`].
pub(super) const WORDS: usize = 3;

/// An `Inside` without what its port set says, and who has it:
///
/// 1. the inside address, or of IPv6 its place in [`Sixes`];
/// 2. VPC and inside port, 16 bits each;
/// 3. `INDEXED`, and the connections that have it.
///
/// Words, so that memory as the kernel gives it, all zero, is mappings that nobody has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapping(pub(super) [u32; WORDS]);

/// It is found by its inside. Not if its pool was changed under it.
const INDEXED: u32 = 1 << 31;

impl Mapping {
    /// Held once.
    #[inline]
    pub(super) fn new(address: u32, inside: &Inside, indexed: bool) -> Self {
        let ends = u32::from(inside.vpc()) << 16 | u32::from(inside.port());
        Self([address, ends, 1 | (u32::from(indexed) * INDEXED)])
    }

    #[inline]
    pub(super) fn address(&self) -> u32 {
        self.0[0]
    }

    #[inline]
    pub(super) fn holders(&self) -> u32 {
        self.0[2] & !INDEXED
    }

    /// Somebody has it.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        self.holders() > 0
    }

    #[inline]
    pub(super) fn is_indexed(&self) -> bool {
        self.0[2] & INDEXED != 0
    }

    /// One more has it: no more than there are connections, so fewer than 2^31.
    #[inline]
    pub(super) fn joined(self) -> Self {
        let [address, ends, held] = self.0;
        Self([address, ends, held + 1])
    }

    /// One less has it, of at least one.
    #[inline]
    pub(super) fn left(self) -> Self {
        let [address, ends, held] = self.0;
        Self([address, ends, held - 1])
    }

    /// It is not found by its inside any more.
    pub(super) fn forgotten(self) -> Self {
        let [address, ends, held] = self.0;
        Self([address, ends, held & !INDEXED])
    }

    /// `shared`: see [`Inside::shared`].
    #[inline]
    pub(super) fn inside(&self, shared: u64, sixes: &Sixes) -> Inside {
        let [at, ends, _] = self.0;
        let address = match shared & 1 {
            0 => [0, u64::from(at)],
            _ => sixes.get(at),
        };
        let (vpc, port) = (u64::from(ends >> 16), u64::from(ends & 0xffff));
        let rest = vpc << 48 | port << 16 | shared;
        Inside { address, rest }
    }
}

/// Inside addresses of IPv6 mappings, which are few: those of IPv4 would carry twelve bytes for
/// nothing.
#[derive(Debug, Default)]
pub(super) struct Sixes {
    addresses: Vec<[u64; 2]>,
    free: Vec<u32>,
}

impl Sixes {
    pub(super) fn add(&mut self, address: [u64; 2]) -> u32 {
        if let Some(at) = self.free.pop()
            && let Some(place) = self.addresses.get_mut(at as usize)
        {
            *place = address;
            return at;
        }
        self.addresses.push(address);
        (self.addresses.len() - 1) as u32
    }

    fn get(&self, at: u32) -> [u64; 2] {
        self.addresses.get(at as usize).copied().unwrap_or_default()
    }

    pub(super) fn remove(&mut self, at: u32) {
        self.free.push(at);
    }
}
