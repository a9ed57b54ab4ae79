//! Which addresses of a pool a connection may get.

use std::net::IpAddr;

use super::LeaseError;
use crate::policy::{AddressRange, Masquerade};

/// Addresses of a pool that are tried for one connection before it is refused.
pub const MAX_ADDRESSES_TRIED: u64 = 64;

/// The addresses of a pool's family that are tried, in turn, from where `hash` falls.
pub(super) fn candidates(
    rule: &Masquerade,
    ipv4: bool,
    hash: u64,
) -> Result<impl Iterator<Item = IpAddr> + '_, LeaseError> {
    let family = move |range: &&AddressRange| range.first().is_ipv4() == ipv4;
    let ranges = rule.pool.iter().filter(family);
    let total = ranges.fold(0u64, |sum, range| sum.saturating_add(range.count()));
    let home = hash.checked_rem(total).ok_or(LeaseError::NoAddress)?;
    Ok((0..total.min(MAX_ADDRESSES_TRIED)).filter_map(move |n| {
        let mut at = (home + n) % total;
        rule.pool
            .iter()
            .filter(family)
            .find_map(|range| match at.checked_sub(range.count()) {
                Some(rest) => {
                    at = rest;
                    None
                }
                None => range.nth(at),
            })
    }))
}
