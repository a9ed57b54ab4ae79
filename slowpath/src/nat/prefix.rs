//! Addresses translated one for one by prefix: static NAT, and IPv6 prefix translation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use crate::policy::{StaticMethod, StaticNat};

/// Longest prefix that RFC 6296 translates (section 3.2): the interface identifier stays out of it.
pub const NPTV6_PREFIX_MAX: u8 = 64;
/// Up to this length the adjustment goes into the subnet, word 3; behind it into the interface
/// identifier (RFC 6296 sections 3.4 and 3.5).
const NPTV6_SUBNET_MAX: u8 = 48;
/// A word of all ones stands for zero in one's complement: it cannot be told apart afterwards.
const UNUSABLE: u16 = 0xffff;

/// The way out or the way in of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrefixMap {
    from: IpNet,
    to: IpNet,
    method: StaticMethod,
}

impl PrefixMap {
    pub(super) const fn outwards(rule: &StaticNat) -> Self {
        Self {
            from: rule.inside,
            to: rule.outside,
            method: rule.method,
        }
    }

    pub(super) const fn inwards(rule: &StaticNat) -> Self {
        Self {
            from: rule.outside,
            to: rule.inside,
            method: rule.method,
        }
    }

    pub(super) fn prefix_len(&self) -> u8 {
        self.from.prefix_len()
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.from.contains(&address)
    }

    /// The other side's address. `None`: it is not the rule's, or one of those that RFC 6296
    /// cannot translate.
    pub(super) fn apply(&self, address: IpAddr) -> Option<IpAddr> {
        if !self.contains(address) {
            return None;
        }
        match (address, self.to, self.from, self.method) {
            (IpAddr::V4(address), IpNet::V4(to), _, _) => {
                let host = address.to_bits() & to.hostmask().to_bits();
                Some(Ipv4Addr::from_bits(to.network().to_bits() | host).into())
            }
            (IpAddr::V6(address), IpNet::V6(to), _, StaticMethod::SamePosition) => {
                Some(place(address, to).into())
            }
            (IpAddr::V6(address), IpNet::V6(to), IpNet::V6(from), StaticMethod::Nptv6) => {
                nptv6(address, from, to).map(IpAddr::V6)
            }
            _ => None,
        }
    }
}

/// The address with another prefix.
fn place(address: Ipv6Addr, to: Ipv6Net) -> Ipv6Addr {
    let host = address.to_bits() & to.hostmask().to_bits();
    Ipv6Addr::from_bits(to.network().to_bits() | host)
}

/// RFC 6296: the new prefix, and one word adjusted so that the one's complement sum over the
/// address, and with it every transport checksum, stays what it was.
fn nptv6(address: Ipv6Addr, from: Ipv6Net, to: Ipv6Net) -> Option<Ipv6Addr> {
    let mut words = place(address, to).segments();
    let adjustment = add(sum(from.network()), !sum(to.network()));
    let first = if from.prefix_len() <= NPTV6_SUBNET_MAX {
        3..4
    } else {
        4..8
    };
    let word = words
        .get_mut(first)?
        .iter_mut()
        .find(|word| **word != UNUSABLE)?;
    *word = match add(*word, adjustment) {
        UNUSABLE => 0,
        word => word,
    };
    Some(words.into())
}

fn sum(address: Ipv6Addr) -> u16 {
    address.segments().into_iter().fold(0, add)
}

/// One's complement addition.
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(from: &str, to: &str, method: StaticMethod) -> PrefixMap {
        PrefixMap {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            method,
        }
    }

    fn turned(map: &PrefixMap) -> PrefixMap {
        PrefixMap {
            from: map.to,
            to: map.from,
            method: map.method,
        }
    }

    /// RFC 6296 section 3.7.
    #[test]
    fn the_rfc_s_example() {
        let map = map("fd01:203:405::/48", "2001:db8:1::/48", StaticMethod::Nptv6);
        let inside: IpAddr = "fd01:203:405:1::1234".parse().unwrap();
        let outside: IpAddr = "2001:db8:1:d550::1234".parse().unwrap();
        assert_eq!(map.apply(inside), Some(outside));
        assert_eq!(turned(&map).apply(outside), Some(inside));
    }

    #[test]
    fn what_cannot_be_translated_is_not() {
        let subnet = map("fd01:203:405::/48", "2001:db8:1::/48", StaticMethod::Nptv6);
        assert_eq!(subnet.apply("fd01:203:405:ffff::1".parse().unwrap()), None);
        assert_eq!(subnet.apply("fd01:203:406::1".parse().unwrap()), None);
        assert_eq!(subnet.apply("10.0.0.1".parse().unwrap()), None);
        let host = map(
            "fd01:203:405:1::/64",
            "2001:db8:1:2::/64",
            StaticMethod::Nptv6,
        );
        let ones: IpAddr = "fd01:203:405:1:ffff:ffff:ffff:ffff".parse().unwrap();
        assert_eq!(host.apply(ones), None);
        // The first word is skipped, the second takes the adjustment.
        let one: IpAddr = "fd01:203:405:1:ffff::1".parse().unwrap();
        let found = host.apply(one).unwrap();
        assert_eq!(turned(&host).apply(found), Some(one));
    }

    #[test]
    fn the_position_in_the_prefix_stays() {
        let v4 = map("10.1.0.0/16", "198.18.0.0/16", StaticMethod::SamePosition);
        let found = v4.apply("10.1.2.3".parse().unwrap());
        assert_eq!(found, Some("198.18.2.3".parse().unwrap()));
        let host = map("10.1.0.9/32", "198.18.0.1/32", StaticMethod::SamePosition);
        let found = host.apply("10.1.0.9".parse().unwrap());
        assert_eq!(found, Some("198.18.0.1".parse().unwrap()));
        let v6 = map("fd00:1::/64", "fd00:2::/64", StaticMethod::SamePosition);
        let found = v6.apply("fd00:1::5".parse().unwrap());
        assert_eq!(found, Some("fd00:2::5".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn nptv6_is_neutral_to_checksums_and_reversible(
            inside: u128, outside: u128, host: u128, len in 1u8..=NPTV6_PREFIX_MAX,
        ) {
            let net = |bits: u128| Ipv6Net::new(bits.into(), len).unwrap().trunc();
            let (inside, outside) = (net(inside), net(outside));
            let map = PrefixMap { from: inside.into(), to: outside.into(), method: StaticMethod::Nptv6 };
            let address = place(host.into(), inside);
            if let Some(IpAddr::V6(found)) = map.apply(address.into()) {
                prop_assert!(outside.contains(&found));
                // Zero has two forms.
                prop_assert_eq!(sum(found) % 0xffff, sum(address) % 0xffff);
                prop_assert_eq!(turned(&map).apply(found.into()), Some(address.into()));
            } else {
                let words = address.segments();
                let lost = if len <= NPTV6_SUBNET_MAX { &words[3..4] } else { &words[4..8] };
                prop_assert!(lost.iter().all(|word| *word == UNUSABLE));
            }
        }
    }
}
