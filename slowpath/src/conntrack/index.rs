//! From hashes to small numbers; the keys stay with whoever owns the numbers.

use shunt_dpdk::{equal_to, huge_pages, prefetch};

/// Entries of a line.
const WAYS: usize = 10;

/// All ways of a line, a bit each.
const ALL_WAYS: u16 = (1 << WAYS) - 1;

/// Cache lines of ten entries. An entry lies in the line that its hash names, or, when that is
/// full, in the first one behind it that is not. A line counts the entries that went past it, in
/// four classes, so a look-up ends at the first line past which none of its class did: it touches
/// one line, seldom two. Removal leaves no tombstone, nothing is ever moved, and nobody's key is
/// looked at. Its size is fixed.
///
/// F14 (Folly) probes so, too, with one class. Four are worth it: after entries have come and gone
/// for long, a line that was full at any time has let some pass.
#[derive(Debug)]
pub(crate) struct Index {
    lines: Vec<Line>,
    limit: usize,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line {
    /// Parts of the hashes that do not name the line.
    tags: [u16; WAYS],
    /// The ways that are taken, a bit each.
    used: u16,
    /// Entries that found this line full and lie behind it, four bits a class. What has come to
    /// 15 stays so: look-ups are slower then, not wrong.
    passed: u16,
    values: [u32; WAYS],
}

const _: () = assert!(size_of::<Line>() == 64);

const FREE: Line = Line {
    tags: [0; WAYS],
    used: 0,
    passed: 0,
    values: [0; WAYS],
};

/// Where the class of a tag is counted.
#[inline]
const fn class(tag: u16) -> u16 {
    (tag & 3) * 4
}

const PASSED_MAX: u16 = 15;

impl Line {
    /// The ways that may have the entry, a bit each.
    #[inline]
    fn alike(&self, tag: u16) -> u32 {
        equal_to(&self.tags, tag) & u32::from(self.used)
    }

    #[inline(always)]
    fn find(&self, tag: u16, is: impl Fn(u32) -> bool) -> Option<u32> {
        let mut alike = self.alike(tag);
        while alike != 0 {
            let value = *self.values.get(alike.trailing_zeros() as usize)?;
            if is(value) {
                return Some(value);
            }
            alike &= alike - 1;
        }
        None
    }

    /// Entries of the tag's class that lie behind it.
    #[inline]
    fn passed(&self, tag: u16) -> u16 {
        self.passed >> class(tag) & PASSED_MAX
    }

    /// One more, or one less, of them.
    #[inline]
    fn count(&mut self, tag: u16, one: impl Fn(u16, u16) -> u16) {
        if self.passed(tag) < PASSED_MAX {
            self.passed = one(self.passed, 1 << class(tag));
        }
    }

    /// `false`: it is full.
    #[inline]
    fn put(&mut self, tag: u16, value: u32) -> bool {
        let way = (!self.used).trailing_zeros() as usize;
        match (self.tags.get_mut(way), self.values.get_mut(way)) {
            (Some(seen), Some(place)) => {
                (*seen, *place) = (tag, value);
                self.used |= 1 << way;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn take(&mut self, tag: u16, value: u32) -> bool {
        let mut alike = self.alike(tag);
        while alike != 0 {
            let way = alike.trailing_zeros() as usize;
            if self.values.get(way) == Some(&value) {
                self.used &= ALL_WAYS & !(1 << way);
                return true;
            }
            alike &= alike - 1;
        }
        false
    }
}

impl Index {
    /// Room for `entries` at a load of one half. At two thirds one in six looks past its line, which
    /// nobody asked for in time.
    pub(crate) fn new(entries: usize) -> Self {
        let limit = entries.max(1);
        let size = (2 * limit + 1).div_ceil(WAYS);
        let mut lines = Vec::with_capacity(size);
        huge_pages(&mut lines);
        lines.resize(size, FREE);
        Self {
            lines,
            limit,
            len: 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// An entry's line.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }

    /// The line behind that one.
    #[inline]
    fn next(&self, at: usize) -> usize {
        let next = at + 1;
        if next == self.lines.len() { 0 } else { next }
    }

    /// Asks for an entry's line.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(line) = self.lines.get(self.home(hash)) {
            prefetch(line);
        }
    }

    /// The number that was added under that hash and for which `is` says so.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let home = self.home(hash);
        let line = self.lines.get(home)?;
        match line.find(hash as u16, &is) {
            None if line.passed(hash as u16) > 0 => self.find_behind(home, hash as u16, is),
            found => found,
        }
    }

    #[inline(never)] // seldom
    fn find_behind(&self, home: usize, tag: u16, is: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.next(home);
        while at != home {
            let line = self.lines.get(at)?;
            match line.find(tag, &is) {
                None if line.passed(tag) > 0 => at = self.next(at),
                found => return found,
            }
        }
        None
    }

    /// Adds a number. `false` when full.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, value: u32) -> bool {
        if self.len >= self.limit {
            return false;
        }
        // There is a line that is not full.
        self.len += 1;
        let (mut at, tag) = (self.home(hash), hash as u16);
        while let Some(line) = self.lines.get_mut(at) {
            if line.put(tag, value) {
                return true;
            }
            line.count(tag, u16::wrapping_add);
            at = self.next(at);
        }
        false
    }

    /// Takes out the number that was added under that hash.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u64, value: u32) -> bool {
        let (home, tag) = (self.home(hash), hash as u16);
        let Some(line) = self.lines.get_mut(home) else {
            return false;
        };
        let gone =
            line.take(tag, value) || line.passed(tag) > 0 && self.remove_behind(home, tag, value);
        self.len -= usize::from(gone);
        gone
    }

    #[inline(never)]
    fn remove_behind(&mut self, home: usize, tag: u16, value: u32) -> bool {
        let mut at = self.next(home);
        while let Some(line) = self.lines.get_mut(at)
            && !line.take(tag, value)
        {
            if line.passed(tag) == 0 || at == home {
                return false;
            }
            at = self.next(at);
        }
        let mut past = home;
        while past != at {
            if let Some(line) = self.lines.get_mut(past) {
                line.count(tag, u16::wrapping_sub);
            }
            past = self.next(past);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// Few distinct hashes, so that lines overflow and entries stray.
    fn hash(value: u32) -> u64 {
        (u64::from(value % 3) * 0x5555_5555) << 32
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(ops in prop::collection::vec((any::<bool>(), 0u32..24), 1..200)) {
            let mut index = Index::new(24);
            let mut model = HashSet::new();
            for (insert, value) in ops {
                let found = index.find(hash(value), |v| v == value).is_some();
                prop_assert_eq!(found, model.contains(&value));
                if insert && !found {
                    prop_assert!(index.insert(hash(value), value));
                    model.insert(value);
                } else if !insert {
                    prop_assert_eq!(index.remove(hash(value), value), model.remove(&value));
                }
                prop_assert_eq!(index.len(), model.len());
                for v in 0..24 {
                    prop_assert_eq!(index.find(hash(v), |x| x == v).is_some(), model.contains(&v));
                }
            }
        }
    }

    #[test]
    fn a_full_index_refuses() {
        let mut index = Index::new(8);
        for value in 0..8 {
            assert!(index.insert(hash(1), value));
        }
        assert!(!index.insert(hash(1), 9));
        assert_eq!(index.find(hash(1), |_| false), None);
    }

    /// So many went past a line that it has lost count.
    #[test]
    fn a_line_that_lost_count_still_finds_all() {
        let entries = 1000;
        let mut index = Index::new(entries as usize);
        for value in 0..entries {
            assert!(index.insert(0, value));
        }
        for value in 0..entries - 1 {
            assert!(index.remove(0, value));
        }
        assert_eq!(index.find(0, |_| true), Some(entries - 1));
        assert!(index.remove(0, entries - 1));
        assert_eq!(index.find(0, |_| true), None);
    }

    /// Spread as a keyed hash spreads them, hardly an entry looks past its line, also after they have
    /// come and gone for long.
    #[test]
    fn half_full_lines_hardly_overflow() {
        let hasher = crate::conntrack::KeyHasher::new(7);
        let spread = |value: u32| hasher.words([u64::from(value), 0], [0; 2], 0);
        let mut index = Index::new(100_000);
        let past = |index: &Index| {
            let counts = index.lines.iter();
            let counts = counts.flat_map(|line| (0..4).map(|class| line.passed(class)));
            counts.filter(|passed| *passed > 0).count() as f64 / (4 * index.lines.len()) as f64
        };
        for value in 0..100_000 {
            assert!(index.insert(spread(value), value));
        }
        for value in 0..300_000 {
            assert!(index.remove(spread(value), value));
            assert!(index.insert(spread(value + 100_000), value + 100_000));
        }
        let share = past(&index);
        assert!(share < 0.03, "{share}");
        assert_eq!(index.find(spread(350_000), |v| v == 350_000), Some(350_000));
        for value in 300_000..400_000 {
            assert!(index.remove(spread(value), value));
        }
        assert_eq!(past(&index), 0.0);
        assert!(index.lines.iter().all(|line| line.used == 0));
    }
}
