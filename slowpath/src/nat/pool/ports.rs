//! The ports of an outside address, and whose they are.

use std::net::IpAddr;

use shunt_dpdk::{huge_pages, prefetch};
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

/// Ports that belong to the same worker: one word.
pub const PORT_BLOCK: u16 = 64;

/// Blocks of one outside address and protocol.
const BLOCKS: usize = (1 << 16) / PORT_BLOCK as usize;

/// Ports that follow each other: one bit each, and which mapping has it. Both beside each other:
/// who wants one wants the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    leased: u64,
    owners: [u32; PORT_BLOCK as usize],
}

const FREE: Block = Block {
    leased: 0,
    owners: [NOBODY; PORT_BLOCK as usize],
};

/// Sets whose blocks lie together, so that they may lie in huge pages: 17 MB, of which none is
/// there before it is used.
const TOGETHER: usize = 64;

/// The blocks of all sets.
#[derive(Debug, Default)]
pub(super) struct Blocks(Vec<Vec<Block>>);

impl Blocks {
    /// Of one more set.
    pub(super) fn add(&mut self) {
        let room = TOGETHER * BLOCKS;
        if self.0.last().is_none_or(|last| last.len() >= room) {
            let mut blocks = Vec::with_capacity(room);
            huge_pages(&mut blocks);
            self.0.push(blocks);
        }
        if let Some(last) = self.0.last_mut() {
            last.resize(last.len() + BLOCKS, FREE);
        }
    }

    #[inline]
    fn at(set: u32, port: u16) -> (usize, usize) {
        let (set, block) = (set as usize, usize::from(port / PORT_BLOCK));
        (set / TOGETHER, set % TOGETHER * BLOCKS + block)
    }

    #[inline]
    fn get(&self, set: u32, port: u16) -> Option<&Block> {
        let (together, at) = Self::at(set, port);
        self.0.get(together)?.get(at)
    }

    #[inline]
    fn get_mut(&mut self, set: u32, port: u16) -> Option<&mut Block> {
        let (together, at) = Self::at(set, port);
        self.0.get_mut(together)?.get_mut(at)
    }

    /// Asks for a port of a set.
    #[inline]
    pub(super) fn prefetch(&self, set: u32, port: u16) {
        if let Some(block) = self.get(set, port) {
            prefetch(&block.leased);
            prefetch(&block.owners[usize::from(port % PORT_BLOCK)]);
        }
    }

    /// The mapping that has a port of a set.
    pub(super) fn owner(&self, set: u32, port: u16) -> Option<u32> {
        let owner = self.get(set, port)?.owners[usize::from(port % PORT_BLOCK)];
        (owner != NOBODY).then_some(owner)
    }

    pub(super) fn own(&mut self, set: u32, port: u16, mapping: u32) {
        if let Some(block) = self.get_mut(set, port) {
            block.owners[usize::from(port % PORT_BLOCK)] = mapping;
        }
    }

    pub(super) fn is_leased(&self, set: u32, port: u16) -> bool {
        let block = self.get(set, port);
        block.is_some_and(|block| block.leased & 1 << (port % PORT_BLOCK) != 0)
    }

    /// Marks a port; whether that is a change.
    pub(super) fn mark(&mut self, set: u32, port: u16, leased: bool) -> bool {
        let Some(block) = self.get_mut(set, port) else {
            return false;
        };
        let bit = 1 << (port % PORT_BLOCK);
        let before = block.leased & bit != 0;
        block.leased = block.leased & !bit | if leased { bit } else { 0 };
        before != leased
    }

    /// Leased ports of a set within a range.
    pub(super) fn leased_in(&self, set: u32, range: PortRange) -> u32 {
        (range.first() / PORT_BLOCK..=range.last() / PORT_BLOCK)
            .map(|at| {
                let (first, last) = (at * PORT_BLOCK, at * PORT_BLOCK + (PORT_BLOCK - 1));
                let word = self.get(set, first).map_or(0, |block| block.leased);
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
        set: u32,
        range: PortRange,
        start: u16,
        share: PortShare,
        mask: u64,
        mut usable: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        self.lease_between(set, start..=range.last(), share, mask, &mut usable)
            .or_else(|| {
                let end = start.checked_sub(1).filter(|end| *end >= range.first())?;
                self.lease_between(set, range.first()..=end, share, mask, &mut usable)
            })
    }

    fn lease_between(
        &mut self,
        set: u32,
        range: std::ops::RangeInclusive<u16>,
        share: PortShare,
        mask: u64,
        usable: &mut impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        let (block_len, last) = (u32::from(PORT_BLOCK), *range.end());
        let mut port = u32::from(*range.start());
        while port <= u32::from(last) {
            let at = u16::try_from(port).ok()?;
            let block = self.get_mut(set, at)?;
            let free = (!block.leased & mask) >> (port % block_len);
            if free == 0 || !share.has_block(usize::from(at / PORT_BLOCK)) {
                port = (port / block_len + 1) * block_len;
                continue;
            }
            port += free.trailing_zeros();
            let candidate = u16::try_from(port).ok().filter(|port| *port <= last)?;
            if usable(candidate) {
                block.leased |= 1 << (candidate % PORT_BLOCK);
                return Some(candidate);
            }
            port += 1;
        }
        None
    }
}

/// One outside address and protocol.
#[derive(Debug)]
pub(super) struct PortSet {
    pub(super) vpc: VpcId,
    pub(super) address: IpAddr,
    pub(super) proto: u8,
    /// Ports that are leased.
    pub(super) leased: u32,
}

/// Every second port, the even ones first.
pub(super) const PARITY: [u64; 2] = [0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa];
