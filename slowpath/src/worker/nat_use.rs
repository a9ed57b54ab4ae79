//! What masquerades use of their pools.

use std::net::IpAddr;

use super::Worker;

/// How much of an outside address a masquerade has leased.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RuleUse {
    /// The masquerade's name.
    pub rule: String,
    /// An address of its pool.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Ports, or echo identifiers, that are leased.
    pub leased: u32,
}

impl Worker {
    /// This worker's leases by rule. Rules that share an address have different ports of it, and
    /// each is told its own. A lease that a changed configuration has in no pool is nobody's.
    pub fn nat_use(&self) -> Vec<RuleUse> {
        let Some(fib) = self.reader.enter() else {
            return Vec::new();
        };
        let nat = &self.core.nat;
        let mut found = Vec::new();
        for pool in nat.pool_use() {
            let (vpc, address, protocol) = (pool.vpc, pool.address, pool.protocol);
            let rules = || {
                fib.policy().masquerades.iter().filter(move |rule| {
                    rule.to == vpc && rule.pool.iter().any(|range| range.contains(address))
                })
            };
            let alone = rules().nth(1).is_none();
            found.extend(rules().map(|rule| RuleUse {
                rule: rule.name.clone(),
                address,
                protocol,
                // Counting the ports of a range is work; mostly all are of one rule.
                leased: if alone {
                    pool.leased
                } else {
                    nat.leased_in(vpc, address, protocol, rule.ports)
                },
            }));
        }
        found.retain(|used| used.leased > 0);
        found
    }
}
