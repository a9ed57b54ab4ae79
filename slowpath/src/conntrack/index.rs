//! From hashes to small numbers; the keys stay with whoever owns the numbers.

use shunt_dpdk::{equal_to, huge_pages, prefetch};

/// No entry.
const EMPTY: u32 = u32::MAX;

/// Entries of a line.
const WAYS: usize = 8;

/// Entries that found no place in their lines; there is hardly ever one.
const MAX_STRAYS: usize = 64;

/// Two-choice hashing: an entry lies in one of two cache lines of eight. A look-up touches these
/// two and no other, however full it is, and so do insertion and removal, which leaves no
/// tombstone; an insertion that finds both full moves one entry to its other line. A line keeps
/// as much of each hash as tells both lines, so nobody's key is looked at. Its size is fixed.
#[derive(Debug)]
pub(crate) struct Index {
    lines: Vec<Line>,
    strays: Vec<(u32, u32)>,
    limit: usize,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line {
    /// Upper halves of the hashes.
    hashes: [u32; WAYS],
    /// The numbers, or `EMPTY`.
    values: [u32; WAYS],
}

const FREE: Line = Line {
    hashes: [0; WAYS],
    values: [EMPTY; WAYS],
};

impl Line {
    /// Its free ways, a bit each.
    #[inline]
    fn free(&self) -> u32 {
        equal_to(&self.values, EMPTY)
    }

    #[inline]
    fn put(&mut self, hash: u32, value: u32) -> bool {
        let way = self.free().trailing_zeros() as usize;
        match (self.hashes.get_mut(way), self.values.get_mut(way)) {
            (Some(seen), Some(place)) => {
                (*seen, *place) = (hash, value);
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn take(&mut self, value: u32) -> bool {
        let way = equal_to(&self.values, value).trailing_zeros() as usize;
        match self.values.get_mut(way) {
            Some(place) => {
                *place = EMPTY;
                true
            }
            None => false,
        }
    }
}

impl Index {
    /// Room for `entries` at a load of five sixths: with more, too many find both lines full.
    pub(crate) fn new(entries: usize) -> Self {
        let limit = entries.max(WAYS);
        let size = (limit + limit / 5).div_ceil(WAYS).max(2);
        let mut lines = Vec::with_capacity(size);
        huge_pages(&mut lines);
        lines.resize(size, FREE);
        Self {
            lines,
            strays: Vec::with_capacity(MAX_STRAYS),
            limit,
            len: 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// An entry's two lines.
    #[inline]
    fn places(&self, hash: u32) -> [usize; 2] {
        let of = |hash: u32| ((u64::from(hash) * self.lines.len() as u64) >> 32) as usize;
        [of(hash), of(hash.wrapping_mul(0x9e37_79b1))]
    }

    /// Asks for both lines of a hash.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        for place in self.places(upper(hash)) {
            if let Some(line) = self.lines.get(place) {
                prefetch(line);
            }
        }
    }

    /// The number under that hash for which `is` says yes.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = upper(hash);
        let [first, second] = self.places(hash);
        let lines = [self.lines.get(first)?, self.lines.get(second)?];
        // Both at once, and then it is known which: no branch has to be guessed.
        let mut same = equal_to(&lines[0].hashes, hash) | equal_to(&lines[1].hashes, hash) << WAYS;
        while same != 0 {
            let at = same.trailing_zeros() as usize;
            let value = lines[at / WAYS % 2].values[at % WAYS];
            if value != EMPTY && is(value) {
                return Some(value);
            }
            same &= same - 1;
        }
        let stray = self
            .strays
            .iter()
            .find(|(seen, value)| *seen == hash && is(*value));
        stray.map(|(_, value)| *value)
    }

    /// Adds a number, which is not `u32::MAX`. `false` when full.
    pub(crate) fn insert(&mut self, hash: u64, value: u32) -> bool {
        if self.len >= self.limit || value == EMPTY {
            return false;
        }
        let hash = upper(hash);
        let places = self.places(hash);
        let put = self.put(places, hash, value)
            || self.make_room(places) && self.put(places, hash, value);
        if !put {
            if self.strays.len() >= MAX_STRAYS {
                return false;
            }
            self.strays.push((hash, value));
        }
        self.len += 1;
        true
    }

    /// Into the emptier line of both: then hardly one is full before all are.
    #[inline]
    fn put(&mut self, [first, second]: [usize; 2], hash: u32, value: u32) -> bool {
        let free = |place: usize| {
            self.lines
                .get(place)
                .map_or(0, |line| line.free().count_ones())
        };
        let place = match free(second) > free(first) {
            true => second,
            false => first,
        };
        self.lines
            .get_mut(place)
            .is_some_and(|line| line.put(hash, value))
    }

    /// Makes a place in one of two full lines: an entry moves to its other line, if need be
    /// after one of that line has moved.
    #[inline(never)]
    fn make_room(&mut self, full: [usize; 2]) -> bool {
        for from in full {
            for line in (0..WAYS).filter_map(|way| self.lines.get(self.other(from, way)?)) {
                prefetch(line);
            }
        }
        if full.iter().any(|from| self.move_one(*from)) {
            return true;
        }
        for from in full {
            for way in 0..WAYS {
                if let Some(to) = self.other(from, way)
                    && self.move_one(to)
                {
                    return self.move_way(from, way);
                }
            }
        }
        false
    }

    /// The other line of an entry.
    fn other(&self, from: usize, way: usize) -> Option<usize> {
        let hash = *self.lines.get(from)?.hashes.get(way)?;
        let [first, second] = self.places(hash);
        let to = if first == from { second } else { first };
        (to != from).then_some(to)
    }

    /// Moves one of a line's entries to its other line.
    fn move_one(&mut self, from: usize) -> bool {
        (0..WAYS).any(|way| self.move_way(from, way))
    }

    fn move_way(&mut self, from: usize, way: usize) -> bool {
        let Some(to) = self.other(from, way) else {
            return false;
        };
        let Some(&Line { hashes, values }) = self.lines.get(from) else {
            return false;
        };
        let (hash, value) = (hashes[way], values[way]);
        let moved = value != EMPTY
            && self
                .lines
                .get_mut(to)
                .is_some_and(|line| line.put(hash, value));
        moved
            && self
                .lines
                .get_mut(from)
                .is_some_and(|line| line.take(value))
    }

    /// Takes out the number that was added under that hash.
    pub(crate) fn remove(&mut self, hash: u64, value: u32) -> bool {
        let hash = upper(hash);
        let places = self.places(hash);
        let mut gone = places.iter().any(|place| {
            self.lines
                .get_mut(*place)
                .is_some_and(|line| line.take(value))
        });
        if !gone && let Some(at) = self.strays.iter().position(|(_, stray)| *stray == value) {
            self.strays.swap_remove(at);
            gone = true;
        }
        self.len -= usize::from(gone);
        gone
    }
}

#[inline]
fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
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
        assert!(!index.insert(hash(2), EMPTY));
    }

    /// Spread as a keyed hash spreads them, hardly an entry finds no place in its lines.
    #[test]
    fn five_sixths_fit_without_strays() {
        let hasher = crate::conntrack::KeyHasher::new(7);
        let spread = |value: u32| hasher.words([u64::from(value), 0], [0; 2], 0);
        let mut index = Index::new(100_000);
        for value in 0..100_000 {
            assert!(index.insert(spread(value), value));
        }
        assert!(index.strays.len() < 4, "{}", index.strays.len());
        // And stay so while they come and go.
        for value in 0..300_000 {
            assert!(index.remove(spread(value), value));
            assert!(index.insert(spread(value + 100_000), value + 100_000));
        }
        assert!(index.strays.len() < 4, "{}", index.strays.len());
        assert_eq!(index.find(spread(350_000), |v| v == 350_000), Some(350_000));
    }
}
