//! The ports of an outside address, and whose they are.

use std::net::IpAddr;

use shunt_dpdk::prefetch;
use shunt_p4::VpcId;

use super::NOBODY;
use crate::policy::PortRange;

/// Which ports are a worker's: every `workers`-th block of [`PORT_BLOCK`], so that two workers
/// never lease the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortShare {
    /// Counted from 0.
    pub worker: u16,
    /// At least 1.
    pub workers: u16,
}

impl PortShare {
    /// All of them.
    pub const ALL: PortShare = PortShare {
        worker: 0,
        workers: 1,
    };

    /// Whose port it is, of so many workers.
    pub const fn owner(port: u16, workers: u16) -> u16 {
        match (port / PORT_BLOCK).checked_rem(workers) {
            Some(worker) => worker,
            None => 0,
        }
    }

    pub(super) const fn has_block(self, block: usize) -> bool {
        self.workers <= 1 || block % self.workers as usize == self.worker as usize
    }
}

/// Ports that belong to the same worker: one word of a [`PortSet`].
pub const PORT_BLOCK: u16 = 64;

/// The ports of one outside address and protocol: one bit each, and which mapping has it.
#[derive(Debug)]
pub(super) struct PortSet {
    pub(super) vpc: VpcId,
    pub(super) address: IpAddr,
    pub(super) proto: u8,
    pub(super) words: Box<[u64; 1024]>,
    /// Which mapping has which port.
    pub(super) owners: Box<[u32]>,
    pub(super) leased: u32,
}

/// Every second port, the even ones first.
pub(super) const PARITY: [u64; 2] = [0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa];

impl PortSet {
    pub(super) fn new(vpc: VpcId, address: IpAddr, proto: u8) -> Self {
        Self {
            vpc,
            address,
            proto,
            words: Box::new([0; 1024]),
            owners: vec![NOBODY; 1 << 16].into_boxed_slice(),
            leased: 0,
        }
    }

    #[inline]
    pub(super) fn prefetch(&self, port: u16) {
        if let Some(word) = self.words.get(usize::from(port / PORT_BLOCK)) {
            prefetch(word);
        }
        if let Some(owner) = self.owners.get(usize::from(port)) {
            prefetch(owner);
        }
    }

    pub(super) fn release(&mut self, port: u16) {
        if let Some(word) = self.words.get_mut(usize::from(port / PORT_BLOCK)) {
            let bit = 1 << (port % PORT_BLOCK);
            self.leased -= u32::from(*word & bit != 0);
            *word &= !bit;
        }
        self.own(port, NOBODY);
    }

    pub(super) fn own(&mut self, port: u16, mapping: u32) {
        if let Some(owner) = self.owners.get_mut(usize::from(port)) {
            *owner = mapping;
        }
    }

    pub(super) fn contains(&self, port: u16) -> bool {
        let word = self.words.get(usize::from(port / PORT_BLOCK));
        word.is_some_and(|word| word & 1 << (port % PORT_BLOCK) != 0)
    }

    pub(super) fn leased_in(&self, range: PortRange) -> u32 {
        (range.first() / PORT_BLOCK..=range.last() / PORT_BLOCK)
            .map(|at| {
                let word = self.words.get(usize::from(at)).copied().unwrap_or(0);
                let (first, last) = (at * PORT_BLOCK, at * PORT_BLOCK + (PORT_BLOCK - 1));
                let low = u64::MAX << range.first().saturating_sub(first);
                let high = u64::MAX >> last.saturating_sub(range.last());
                (word & low & high).count_ones()
            })
            .sum()
    }

    /// Leases the first free port at or after `start`, around the end of `range`, that is ours
    /// and has one of the bits of `mask` in its block. A whole block is skipped at once.
    pub(super) fn lease(
        &mut self,
        range: PortRange,
        start: u16,
        share: PortShare,
        mask: u64,
        mut usable: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        self.lease_between(start, range.last(), share, mask, &mut usable)
            .or_else(|| {
                let end = start.checked_sub(1).filter(|end| *end >= range.first())?;
                self.lease_between(range.first(), end, share, mask, &mut usable)
            })
    }

    pub(super) fn lease_between(
        &mut self,
        first: u16,
        last: u16,
        share: PortShare,
        mask: u64,
        usable: &mut impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        let block_len = u32::from(PORT_BLOCK);
        let mut port = u32::from(first);
        while port <= u32::from(last) {
            let block = (port / block_len) as usize;
            let word = self.words.get_mut(block)?;
            let free = (!*word & mask) >> (port % block_len);
            if free == 0 || !share.has_block(block) {
                port = (port / block_len + 1) * block_len;
                continue;
            }
            port += free.trailing_zeros();
            let candidate = u16::try_from(port).ok().filter(|port| *port <= last)?;
            if usable(candidate) {
                *word |= 1 << (candidate % PORT_BLOCK);
                self.leased += 1;
                return Some(candidate);
            }
            port += 1;
        }
        None
    }
}
