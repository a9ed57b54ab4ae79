//! Open addressing from hashes to small numbers; the keys stay with whoever owns the numbers.

/// No entry.
const EMPTY: u32 = u32::MAX;

/// Linear probing with backward-shift deletion: no tombstones, so lookups stay short however
/// long it runs. Its size is fixed.
#[derive(Debug)]
pub(crate) struct Index {
    /// (upper half of the hash, number); a bucket of `EMPTY` ends a probe.
    buckets: Vec<(u32, u32)>,
    mask: usize,
    len: usize,
}

impl Index {
    /// Room for `entries` at a load of one half at most.
    pub(crate) fn new(entries: usize) -> Self {
        let size = (entries.max(4) * 2).next_power_of_two();
        Self {
            buckets: vec![(0, EMPTY); size],
            mask: size - 1,
            len: 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number under that hash for which `is` says yes.
    pub(crate) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut at = hash as usize & self.mask;
        loop {
            let &(seen, value) = self.buckets.get(at)?;
            if value == EMPTY {
                return None;
            }
            if seen == tag && is(value) {
                return Some(value);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Adds a number, which is not `u32::MAX`. `false` when half full, so that probes stay
    /// short and always end.
    pub(crate) fn insert(&mut self, hash: u64, value: u32) -> bool {
        if self.len * 2 >= self.buckets.len() || value == EMPTY {
            return false;
        }
        let mut at = hash as usize & self.mask;
        while let Some(bucket) = self.buckets.get_mut(at) {
            if bucket.1 == EMPTY {
                *bucket = (tag(hash), value);
                self.len += 1;
                return true;
            }
            at = (at + 1) & self.mask;
        }
        false
    }

    /// Takes out the number that was added under that hash. `rehash` gives the hash of any
    /// other number in the index, to move it into the gap.
    pub(crate) fn remove(&mut self, hash: u64, value: u32, rehash: impl Fn(u32) -> u64) -> bool {
        let mut gap = hash as usize & self.mask;
        loop {
            match self.buckets.get(gap) {
                None | Some(&(_, EMPTY)) => return false,
                Some(&(_, seen)) if seen == value => break,
                Some(_) => gap = (gap + 1) & self.mask,
            }
        }
        self.len -= 1;
        let mut at = gap;
        loop {
            at = (at + 1) & self.mask;
            let bucket = match self.buckets.get(at) {
                Some(&bucket) if bucket.1 != EMPTY => bucket,
                _ => break,
            };
            let home = rehash(bucket.1) as usize & self.mask;
            // It may move unless its home lies behind the gap on its way.
            let from_home = at.wrapping_sub(home) & self.mask;
            let from_gap = at.wrapping_sub(gap) & self.mask;
            if from_home >= from_gap {
                if let Some(slot) = self.buckets.get_mut(gap) {
                    *slot = bucket;
                }
                gap = at;
            }
        }
        if let Some(slot) = self.buckets.get_mut(gap) {
            *slot = (0, EMPTY);
        }
        true
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// Few distinct hashes, so that probes run into each other and around the end.
    fn hash(value: u32) -> u64 {
        u64::from(value % 5) * 0x1_0000_0003 + 12
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
                    prop_assert_eq!(index.remove(hash(value), value, hash), model.remove(&value));
                }
                prop_assert_eq!(index.len(), model.len());
                for value in &model {
                    prop_assert_eq!(index.find(hash(*value), |v| v == *value), Some(*value));
                }
            }
        }
    }

    #[test]
    fn it_is_full_at_half_and_says_so() {
        let mut index = Index::new(4);
        assert!((0..4).all(|value| index.insert(u64::from(value), value)));
        assert!(!index.insert(9, 9));
        assert_eq!(index.find(9, |value| value == 9), None);
    }
}
