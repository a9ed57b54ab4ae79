//! Which addresses of a pool a connection may get.

use std::net::IpAddr;

use super::LeaseError;
use crate::policy::{AddressRange, Masquerade};

/// Addresses of a pool that are tried for one connection before it is refused.
pub const MAX_ADDRESSES_TRIED: u64 = 64;

/// How many addresses of a family a pool has.
#[inline]
fn total(rule: &Masquerade, ipv4: bool) -> u64 {
    let ranges = of_family(rule, ipv4);
    ranges.fold(0u64, |sum, range| sum.saturating_add(range.count()))
}

#[inline]
fn of_family(rule: &Masquerade, ipv4: bool) -> impl Iterator<Item = &AddressRange> {
    let ranges = rule.pool.iter();
    ranges.filter(move |range| range.first().is_ipv4() == ipv4)
}

/// Address number `n` of a family.
#[inline]
fn nth(rule: &Masquerade, ipv4: bool, mut n: u64) -> Option<IpAddr> {
    for range in of_family(rule, ipv4) {
        match n.checked_sub(range.count()) {
            Some(rest) => n = rest,
            None => return range.nth(n),
        }
    }
    None
}

/// The first of [`candidates`].
#[inline]
pub(super) fn home_address(rule: &Masquerade, ipv4: bool, hash: u64) -> Result<IpAddr, LeaseError> {
    let home = hash.checked_rem(total(rule, ipv4));
    home.and_then(|home| nth(rule, ipv4, home))
        .ok_or(LeaseError::NoAddress)
}

/// The addresses of a pool's family that are tried, in turn, from where `hash` falls.
pub(super) fn candidates(
    rule: &Masquerade,
    ipv4: bool,
    hash: u64,
) -> Result<impl Iterator<Item = IpAddr> + '_, LeaseError> {
    let total = total(rule, ipv4);
    let home = hash.checked_rem(total).ok_or(LeaseError::NoAddress)?;
    let tried = 0..total.min(MAX_ADDRESSES_TRIED);
    Ok(tried.filter_map(move |n| nth(rule, ipv4, home.wrapping_add(n) % total)))
}
