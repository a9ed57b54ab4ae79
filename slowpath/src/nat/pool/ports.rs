//! The ports of the outside addresses, which of them are leased, and the mappings at them.

use shunt_dpdk::{CACHE_LINE, huge_pages, prefetch};

use super::mapping::{Mapping, WORDS};
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
}

/// Ports that belong to the same worker: one word.
pub const PORT_BLOCK: u16 = 64;

/// Blocks of one outside address and protocol.
const BLOCKS: usize = (1 << 16) / PORT_BLOCK as usize;

/// A [`PortShare`] by which ports are found quickly. A worker has memory for its own blocks only:
/// the place of one is its number among them.
#[derive(Clone, Copy, Debug)]
struct Share {
    worker: usize,
    workers: usize,
    /// 2^32 divided by `workers`, rounded up: exact for numbers below 1,024, as those of blocks.
    reciprocal: u64,
    /// How many blocks it has.
    blocks: usize,
}

impl Share {
    fn new(share: PortShare) -> Self {
        let workers = usize::from(share.workers.max(1));
        let worker = usize::from(share.worker);
        Self {
            worker,
            workers,
            reciprocal: (1 << 32) / workers as u64 + 1,
            blocks: BLOCKS.saturating_sub(worker).div_ceil(workers),
        }
    }

    /// A port's block, divided by the workers: quotient and remainder.
    #[inline]
    fn divided(self, port: u16) -> (usize, usize) {
        let block = usize::from(port / PORT_BLOCK);
        let quotient = ((block as u64 * self.reciprocal) >> 32) as usize;
        (quotient, block - quotient * self.workers)
    }

    /// The place of a port's block, if it is the worker's.
    #[inline]
    fn place(self, port: u16) -> Option<usize> {
        let (place, worker) = self.divided(port);
        (worker == self.worker).then_some(place)
    }

    /// The places of the blocks that have a port of a range.
    #[inline]
    fn places(self, first: u16, last: u16) -> std::ops::Range<usize> {
        let (from, worker) = self.divided(first);
        let from = from + usize::from(worker > self.worker);
        let (to, worker) = self.divided(last);
        from..to + usize::from(worker >= self.worker)
    }

    /// The first port of the block in a place.
    #[inline]
    fn first_port(self, place: usize) -> u32 {
        (place * self.workers + self.worker) as u32 * u32::from(PORT_BLOCK)
    }

    /// The same port of the block of ours that is nearest by number.
    #[inline]
    fn near(self, port: u16) -> Option<u16> {
        let (place, _) = self.divided(port);
        let near = self.first_port(place) + u32::from(port % PORT_BLOCK);
        u16::try_from(near).ok()
    }
}

/// Mappings of a line of the cache.
const MAPPINGS: usize = CACHE_LINE / (WORDS * size_of::<u32>());

/// Words of a line of the cache.
const LINE: usize = CACHE_LINE / size_of::<u32>();

/// Sets whose ports lie together, so that they may lie in huge pages: 54 MB and half a megabyte
/// for one worker, of which none is there before it is used.
const TOGETHER: usize = 64;

/// Huge pages are for the first 256 sets, and for as many ports as this times the mappings that
/// there may be. Where leases are sparser, each would have a huge page of its own.
const HUGE_PORTS: usize = 8;
const HUGE_AT_LEAST: usize = 256 / TOGETHER;

#[derive(Debug)]
struct Together {
    /// A bit a port: so dense that what is looked at to find a free one stays in the cache.
    leased: Vec<u64>,
    /// Lines of five mappings, one a port. Only words come zeroed from the kernel, when they are
    /// first used.
    mappings: Vec<u32>,
    /// Where the first line begins that is one of the cache.
    first: usize,
}

impl Together {
    fn new(blocks: usize, huge: bool) -> Self {
        let lines = (blocks * usize::from(PORT_BLOCK)).div_ceil(MAPPINGS);
        // One more, as the first may begin in the middle of one.
        let mut mappings = vec![0; (lines + 1) * LINE];
        if huge {
            huge_pages(&mut mappings);
        }
        let first = mappings.as_ptr().align_offset(CACHE_LINE);
        Self {
            leased: vec![0; blocks],
            mappings,
            first: first.min(LINE),
        }
    }

    #[inline]
    fn line(&self, port: usize) -> usize {
        // In 32 bits, division by a constant is a multiplication.
        let port = port as u32;
        let (line, way) = (port / MAPPINGS as u32, port % MAPPINGS as u32);
        self.first + line as usize * LINE + way as usize * WORDS
    }

    #[inline]
    fn mapping(&self, port: usize) -> Option<&[u32; WORDS]> {
        self.mappings.get(self.line(port)..)?.first_chunk()
    }

    #[inline]
    fn mapping_mut(&mut self, port: usize) -> Option<&mut [u32; WORDS]> {
        let at = self.line(port);
        self.mappings.get_mut(at..)?.first_chunk_mut()
    }
}

/// The ports of all sets that are one worker's.
#[derive(Debug)]
pub(super) struct Ports {
    share: Share,
    sets: usize,
    together: Vec<Together>,
    /// How many of them are in huge pages.
    huge: usize,
}

impl Ports {
    /// Of no sets, for so many mappings.
    pub(super) fn new(share: PortShare, mappings: usize) -> Self {
        let share = Share::new(share);
        let ports = TOGETHER * share.blocks * usize::from(PORT_BLOCK);
        Self {
            share,
            sets: 0,
            together: Vec::new(),
            huge: (HUGE_PORTS * mappings)
                .div_ceil(ports.max(1))
                .max(HUGE_AT_LEAST),
        }
    }

    /// Of one more set.
    pub(super) fn add(&mut self) {
        if self.sets.is_multiple_of(TOGETHER) {
            let huge = self.together.len() < self.huge;
            let blocks = TOGETHER * self.share.blocks;
            self.together.push(Together::new(blocks, huge));
        }
        self.sets += 1;
    }

    /// Whether a port is the worker's.
    pub(super) fn has(&self, port: u16) -> bool {
        self.share.place(port).is_some()
    }

    /// Where a set's blocks begin.
    #[inline]
    fn base(&self, set: u32) -> usize {
        set as usize % TOGETHER * self.share.blocks
    }

    /// Where a port is: among which, and its number there.
    #[inline]
    fn at(&self, set: u32, port: u16) -> Option<(usize, usize)> {
        let block = self.base(set) + self.share.place(port)?;
        let port = block * usize::from(PORT_BLOCK) + usize::from(port % PORT_BLOCK);
        Some((set as usize / TOGETHER, port))
    }

    /// The mapping at a port. Nobody has it if there is none.
    #[inline]
    pub(super) fn mapping(&self, set: u32, port: u16) -> Mapping {
        let mapping = self
            .at(set, port)
            .and_then(|(among, port)| self.together.get(among)?.mapping(port));
        mapping.copied().map_or(Mapping::default(), Mapping)
    }

    /// Changes the mapping at a port of the worker's, which somebody has before and after.
    #[inline]
    pub(super) fn put(&mut self, set: u32, port: u16, mapping: Mapping) {
        if let Some((among, port)) = self.at(set, port)
            && let Some(together) = self.together.get_mut(among)
            && let Some(place) = together.mapping_mut(port)
        {
            *place = mapping.0;
        }
    }

    /// Leases a port of the worker's that nobody has.
    #[inline]
    pub(super) fn lease(&mut self, set: u32, port: u16, mapping: Mapping) {
        self.put(set, port, mapping);
        if let Some(word) = self.word_mut(set, port) {
            *word |= 1 << (port % PORT_BLOCK);
        }
    }

    /// Nobody has the port any more.
    #[inline]
    pub(super) fn free(&mut self, set: u32, port: u16) {
        self.put(set, port, Mapping::default());
        if let Some(word) = self.word_mut(set, port) {
            *word &= !(1 << (port % PORT_BLOCK));
        }
    }

    #[inline]
    fn word_mut(&mut self, set: u32, port: u16) -> Option<&mut u64> {
        let (among, port) = self.at(set, port)?;
        let together = self.together.get_mut(among)?;
        together.leased.get_mut(port / usize::from(PORT_BLOCK))
    }

    /// Asks for a port and its mapping.
    #[inline]
    pub(super) fn prefetch(&self, set: u32, port: u16) {
        self.prefetch_leased(set, port);
        self.prefetch_mapping(set, port);
    }

    /// Asks for a port's mapping.
    #[inline]
    pub(super) fn prefetch_mapping(&self, set: u32, port: u16) {
        if let Some((among, port)) = self.at(set, port)
            && let Some(together) = self.together.get(among)
            && let Some(mapping) = together.mapping(port)
        {
            prefetch(mapping);
        }
    }

    /// A port of ours in a range, as many by chance as any other; `start` if it is one.
    #[inline]
    pub(super) fn near(&self, range: PortRange, start: u16) -> u16 {
        let near = self.share.near(start);
        near.filter(|port| range.contains(*port)).unwrap_or(start)
    }

    /// Asks for what [`Ports::likely`] looks at.
    #[inline]
    pub(super) fn prefetch_leased(&self, set: u32, port: u16) {
        if let Some((among, port)) = self.at(set, port)
            && let Some(together) = self.together.get(among)
            && let Some(word) = together.leased.get(port / usize::from(PORT_BLOCK))
        {
            prefetch(word);
        }
    }

    /// Where in a range [`Ports::find`] shall start instead of at `start`: at the port that it
    /// will find, if that is nearby.
    #[inline]
    pub(super) fn likely(&self, set: u32, range: PortRange, start: u16, mask: u64) -> u16 {
        let Some((among, number)) = self.at(set, start) else {
            return start;
        };
        let (block, bit) = (number / usize::from(PORT_BLOCK), start % PORT_BLOCK);
        let Some(together) = self.together.get(among) else {
            return start;
        };
        let word = together.leased.get(block).map_or(u64::MAX, |word| *word);
        let ahead = (!word & mask) >> bit;
        if ahead == 0 {
            return start;
        }
        let ahead = ahead.trailing_zeros() as u16;
        // Within the block, so no more than the last port.
        Some(start + ahead)
            .filter(|port| range.contains(*port))
            .unwrap_or(start)
    }

    /// Leased ports of a set within a range.
    pub(super) fn leased_in(&self, set: u32, range: PortRange) -> u32 {
        self.words(Some(set), range.first(), range.last())
            .map(|(_, word, within)| (word & within).count_ones())
            .sum()
    }

    /// The blocks of ours that have a port of a range: first port, which are leased, and which
    /// are of the range. Those of a set that is not there yet are all free.
    fn words(
        &self,
        set: Option<u32>,
        first: u16,
        last: u16,
    ) -> impl Iterator<Item = (u32, u64, u64)> + '_ {
        let among = set.and_then(|set| self.together.get(set as usize / TOGETHER));
        let base = set.map_or(0, |set| self.base(set));
        let (first, last) = (u32::from(first), u32::from(last));
        let places = self.share.places(first as u16, last as u16);
        places.map(move |place| {
            let port = self.share.first_port(place);
            let word = among.and_then(|among| among.leased.get(base + place));
            let low = u64::MAX << first.saturating_sub(port);
            let high = u64::MAX >> (port + u32::from(PORT_BLOCK) - 1).saturating_sub(last);
            (port, word.copied().unwrap_or(0), low & high)
        })
    }

    /// The first free port at or after `start`, around the end of `range`, that is ours, usable,
    /// and has one of the bits of `mask` in its block. A whole block is skipped at once.
    pub(super) fn find(
        &self,
        set: Option<u32>,
        range: PortRange,
        start: u16,
        mask: u64,
        mut usable: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        self.find_between(set, (start, range.last()), mask, &mut usable)
            .or_else(|| {
                let end = start.checked_sub(1).filter(|end| *end >= range.first())?;
                self.find_between(set, (range.first(), end), mask, &mut usable)
            })
    }

    #[inline]
    fn find_between(
        &self,
        set: Option<u32>,
        (first, last): (u16, u16),
        mask: u64,
        usable: &mut impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        self.words(set, first, last)
            .find_map(|(port, word, within)| {
                let mut free = !word & within & mask;
                while free != 0 {
                    let candidate = (port + free.trailing_zeros()) as u16;
                    if usable(candidate) {
                        return Some(candidate);
                    }
                    free &= free - 1;
                }
                None
            })
    }
}

/// Every second port, the even ones first.
pub(super) const PARITY: [u64; 2] = [0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa];
