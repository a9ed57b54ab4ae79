//! Entries that match more than one key: by longest prefix, and by priority.

use super::entry::{Entry, Key};
use super::hasher::Hasher;
use super::index::Index;
use crate::program::table::{MAX_KEY_BYTES, prefix_mask};

/// Keys up to this length get a small buffer, which is quicker to clear.
const SHORT_KEY_BYTES: usize = 64;

/// The entries of one prefix length.
#[derive(Debug)]
struct Level {
    prefix: u16,
    /// Over the whole key.
    mask: Box<[u8]>,
    entries: Index,
}

/// The entries of an LPM table.
#[derive(Debug)]
pub(crate) struct Levels {
    /// Longest prefix first; none is empty.
    levels: Vec<Level>,
    /// The LPM field in the key.
    offset: usize,
    bytes: usize,
    width: u16,
}

impl Levels {
    pub(crate) fn new(offset: usize, bytes: usize, width: u16) -> Self {
        Self {
            levels: Vec::new(),
            offset,
            bytes,
            width,
        }
    }

    /// The entry of the longest prefix that the key has.
    #[inline]
    pub(crate) fn look_up(&self, hasher: &Hasher, key: &[u8]) -> Option<&Entry> {
        if key.len() <= SHORT_KEY_BYTES {
            self.longest(hasher, key, &mut [0; SHORT_KEY_BYTES])
        } else {
            self.longest(hasher, key, &mut [0; MAX_KEY_BYTES])
        }
    }

    fn longest(&self, hasher: &Hasher, key: &[u8], space: &mut [u8]) -> Option<&Entry> {
        let masked = space.get_mut(..key.len())?;
        self.levels.iter().find_map(|level| {
            for ((out, byte), mask) in masked.iter_mut().zip(key).zip(&level.mask) {
                *out = byte & mask;
            }
            let hash = hasher.hash(masked);
            level.entries.find_value(hash, masked)
        })
    }

    /// The entries of a prefix length.
    pub(crate) fn index(&self, prefix: u16) -> Option<&Index> {
        let found = self.levels.iter().find(|l| l.prefix == prefix);
        found.map(|l| &l.entries)
    }

    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) {
        let prefix = entry.prefix();
        let at = self.levels.partition_point(|l| l.prefix > prefix);
        if self.levels.get(at).is_none_or(|l| l.prefix != prefix) {
            let mut mask = vec![0xff; entry.value().len()];
            if let Some(mask) = mask.get_mut(self.offset..self.offset + self.bytes) {
                prefix_mask(mask, self.width, prefix);
            }
            let level = Level {
                prefix,
                mask: mask.into(),
                entries: Index::default(),
            };
            self.levels.insert(at, level);
        }
        if let Some(level) = self.levels.get_mut(at) {
            level.entries.insert(hash, entry);
        }
    }

    pub(crate) fn replace(&mut self, hash: u64, entry: &Entry) -> Option<Entry> {
        let prefix = entry.prefix();
        let level = self.levels.iter_mut().find(|l| l.prefix == prefix)?;
        level.entries.replace(hash, entry)
    }

    pub(crate) fn remove(&mut self, hash: u64, key: Key<'_>) -> Option<Entry> {
        let at = self.levels.iter().position(|l| l.prefix == key.prefix)?;
        let level = self.levels.get_mut(at)?;
        let removed = level.entries.remove(hash, key);
        if level.entries.is_empty() {
            self.levels.remove(at);
        }
        removed
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.levels.iter().flat_map(|l| l.entries.iter())
    }

    /// See [`Index::sweep`].
    pub(crate) fn sweep(&mut self, now_ns: u64, idle: &mut Vec<Entry>) {
        for level in &mut self.levels {
            level.entries.sweep(now_ns, idle);
        }
    }
}

/// The entries of a table with ternary, range or optional fields.
#[derive(Debug)]
pub(crate) struct Priorities {
    /// Highest priority first, older before newer.
    order: Vec<Entry>,
    /// By key and priority.
    index: Index,
    /// Which bytes of the key are ranges: offset and length.
    ranges: Vec<(usize, usize)>,
}

impl Priorities {
    pub(crate) fn new(ranges: Vec<(usize, usize)>) -> Self {
        Self {
            order: Vec::new(),
            index: Index::default(),
            ranges,
        }
    }

    /// The first entry that the key matches.
    #[inline]
    pub(crate) fn look_up(&self, key: &[u8]) -> Option<&Entry> {
        let matching = |e: &&Entry| matches(e, key, &self.ranges);
        self.order.iter().find(matching)
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) {
        let priority = entry.priority();
        let at = self.order.partition_point(|e| e.priority() >= priority);
        self.order.insert(at, entry.clone());
        self.index.insert(hash, entry);
    }

    /// Where the entry of this key stands.
    fn position(&self, key: Key<'_>) -> Option<usize> {
        let from = self.order.partition_point(|e| e.priority() > key.priority);
        let tail = self.order.get(from..)?;
        tail.iter().position(|e| e.key() == key).map(|at| from + at)
    }

    pub(crate) fn replace(&mut self, hash: u64, entry: &Entry) -> Option<Entry> {
        let old = self.index.replace(hash, entry)?;
        let at = self.position(entry.key());
        if let Some(place) = at.and_then(|at| self.order.get_mut(at)) {
            *place = entry.clone();
        }
        Some(old)
    }

    pub(crate) fn remove(&mut self, hash: u64, key: Key<'_>) -> Option<Entry> {
        let removed = self.index.remove(hash, key)?;
        if let Some(at) = self.position(key) {
            self.order.remove(at);
        }
        Some(removed)
    }

    /// By priority.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.order.iter()
    }

    /// See [`Index::sweep`].
    pub(crate) fn sweep(&mut self, now_ns: u64, idle: &mut Vec<Entry>) {
        self.index.sweep(now_ns, idle);
    }
}

/// Whether a packet's key matches a ternary entry. Elsewhere than in ranges the value is
/// stored masked.
fn matches(entry: &Entry, key: &[u8], ranges: &[(usize, usize)]) -> bool {
    let (value, mask) = (entry.value(), entry.mask());
    if ranges.is_empty() {
        let parts = key.iter().zip(value).zip(mask);
        return parts.into_iter().all(|((k, v), m)| k & m == *v);
    }
    let mut at = 0;
    for (offset, bytes) in ranges.iter().copied().chain([(key.len(), 0)]) {
        let plain = at..offset;
        let (k, v, m) = (
            key.get(plain.clone()).unwrap_or_default(),
            value.get(plain.clone()).unwrap_or_default(),
            mask.get(plain).unwrap_or_default(),
        );
        if !k.iter().zip(v).zip(m).all(|((k, v), m)| k & m == v & m) {
            return false;
        }
        let range = offset..offset + bytes;
        let (k, low, high) = (
            key.get(range.clone()).unwrap_or_default(),
            value.get(range.clone()).unwrap_or_default(),
            mask.get(range).unwrap_or_default(),
        );
        if k < low || k > high {
            return false;
        }
        at = offset + bytes;
    }
    true
}
