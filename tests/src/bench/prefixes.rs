//! Prefixes as the Internet's routing tables have them.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::Rng;
use rand::rngs::StdRng;

use crate::report::BenchError;

/// Prefix lengths of the Internet's routing tables, roughly: length and share in a thousand.
const V4_LENGTHS: [(u8, u32); 9] = [
    (24, 610),
    (23, 100),
    (22, 115),
    (21, 50),
    (20, 45),
    (19, 30),
    (18, 15),
    (17, 10),
    (16, 25),
];
const V6_LENGTHS: [(u8, u32); 6] = [
    (48, 480),
    (44, 130),
    (40, 120),
    (36, 70),
    (32, 140),
    (29, 60),
];

fn length(random: &mut StdRng, lengths: &[(u8, u32)]) -> u8 {
    let total = lengths.iter().map(|(_, share)| share).sum();
    let mut at = random.random_range(0..total);
    for (length, share) in lengths {
        match at.checked_sub(*share) {
            Some(rest) => at = rest,
            None => return *length,
        }
    }
    0
}

/// Different prefixes, by chance.
pub(crate) fn prefixes(
    random: &mut StdRng,
    count: usize,
    mut make: impl FnMut(&mut StdRng) -> Result<IpNet, BenchError>,
) -> Result<Vec<IpNet>, BenchError> {
    let mut seen = HashSet::with_capacity(count);
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let prefix = make(random)?;
        if seen.insert(prefix) {
            all.push(prefix);
        }
    }
    Ok(all)
}

pub(crate) fn v4(random: &mut StdRng) -> Result<IpNet, BenchError> {
    let length = length(random, &V4_LENGTHS);
    // 1.0.0.0 to 223.255.255.255: unicast.
    let address = Ipv4Addr::from_bits(random.random_range(0x0100_0000..0xe000_0000));
    let net = Ipv4Net::new(address, length).map_err(BenchError::failed)?;
    Ok(IpNet::V4(net.trunc()))
}

pub(crate) fn v6(random: &mut StdRng) -> Result<IpNet, BenchError> {
    let length = length(random, &V6_LENGTHS);
    // 2000::/3, global unicast.
    let address = random.random::<u128>() >> 3 | 1 << 125;
    let net = Ipv6Net::new(Ipv6Addr::from_bits(address), length).map_err(BenchError::failed)?;
    Ok(IpNet::V6(net.trunc()))
}
