//! Mappings that connections had before the daemon was started: had again as they were, or not at
//! all.

use std::net::IpAddr;

use shunt_p4::Tuple;

use super::{Inside, Lease, Nat, PORT_BLOCK};
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
    /// As many mappings as connections are allowed.
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
        if let Some(at) = self.find(&inside, hash) {
            let sets = &self.sets;
            let mapping = self.mappings.get_mut(at as usize);
            let same = mapping.filter(|mapping| {
                mapping.port == port && mapping.address_of(sets, rule) == Some(address)
            });
            let mapping = same.ok_or(RetakeError::Taken)?;
            mapping.holders += 1;
            return Lease::new(at).ok_or(RetakeError::Full);
        }
        if !self.share.has_block(usize::from(port / PORT_BLOCK)) {
            return Err(RetakeError::Elsewhere);
        }
        let number = self.set(rule.to, address, tuple.proto);
        let at = self.next_mapping().ok_or(RetakeError::Full)?;
        let lease = Lease::new(at).ok_or(RetakeError::Full)?;
        if !self.blocks.mark(number, port, true) {
            return Err(RetakeError::Taken);
        }
        self.blocks.own(number, port, at);
        if let Some(set) = self.sets.get_mut(number as usize) {
            set.leased += 1;
        }
        self.hold(at, &inside, hash, number, port);
        Ok(lease)
    }

    /// Has ports start elsewhere than the seed says: one that is used again must not repeat them.
    pub fn start_anew(&mut self, seed: u64) {
        self.salt = seed;
    }
}
