//! Mappings that connections had before the daemon was started: had again as they were, or not at
//! all.

use std::net::IpAddr;

use shunt_p4::Tuple;

use super::{Inside, Lease, Nat};
use crate::policy::Masquerade;

/// Why a mapping cannot be had again as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetakeError {
    /// The port is another's, or its inside has another one.
    #[error("the port is leased, or its inside has another one")]
    Taken,
    /// The port is another worker's.
    #[error("the port is another worker's")]
    Elsewhere,
    /// As many mappings as connections are allowed, or as many outside addresses as can be.
    #[error("the mapping table is full")]
    Full,
}

impl Nat {
    /// A share in the mapping of the tuple's source to that very address and port, which the
    /// rule's pool has: of a connection that had it before we were started.
    ///
    /// # Errors
    /// [`RetakeError`]; nothing was leased.
    pub fn retake(
        &mut self,
        rule: &Masquerade,
        tuple: &Tuple,
        address: IpAddr,
        port: u16,
    ) -> Result<Lease, RetakeError> {
        let inside = Inside::new(rule.vpc, rule.to, tuple);
        let hash = inside.hash(&self.hasher);
        if let Some(lease) = self.find(&inside, hash) {
            let (set, its_port) = lease.at();
            if its_port != port || self.given(set, port, rule) != Some(address) {
                return Err(RetakeError::Taken);
            }
            self.join_at(set, port);
            return Ok(lease);
        }
        if !self.ports.has(port) {
            return Err(RetakeError::Elsewhere);
        }
        if self.held >= self.capacity {
            return Err(RetakeError::Full);
        }
        let key = (rule.to, address, tuple.proto);
        let set = self.set(key).ok_or(RetakeError::Full)?;
        if self.ports.mapping(set, port).is_held() {
            return Err(RetakeError::Taken);
        }
        Ok(self.hold(set, port, &inside, hash))
    }

    /// Has ports start elsewhere than the seed says: one that is used again must not repeat them.
    pub fn start_anew(&mut self, seed: u64) {
        self.salt = seed;
    }
}
