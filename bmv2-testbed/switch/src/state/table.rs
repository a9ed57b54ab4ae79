//! Table entries, found by hash, by longest prefix or by priority.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ahash::RandomState;
use hashbrown::HashTable;

use super::Counter;
use super::meter::Meter;
use super::profile::{Call, OneShot};
use crate::program::table::{
    Default as DefaultAction, Lookup, MAX_KEY_BYTES, Match, Pattern, Table, prefix_mask,
};

/// Keys up to this length get a small buffer, which is quicker to clear.
const SHORT_KEY_BYTES: usize = 64;

/// What an entry does.
#[derive(Debug)]
pub(crate) enum Target {
    Call(Call),
    Member(u32),
    Group(u32),
    OneShot(OneShot),
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) pattern: Pattern,
    pub(crate) target: Target,
    /// 0 never times out.
    pub(crate) idle_timeout_ns: u64,
    pub(crate) controller_metadata: u64,
    pub(crate) metadata: Box<[u8]>,
    /// Brought by the program.
    pub(crate) is_const: bool,
    pub(crate) counter: Counter,
    /// When a packet last used the entry (at first: when it was written).
    last_hit_ns: AtomicU64,
    /// When its idleness was last notified.
    notified_ns: AtomicU64,
    /// Only in a table with a direct meter.
    pub(crate) meter: Option<Box<Mutex<Meter>>>,
}

impl Entry {
    /// A fresh entry.
    pub(crate) fn new(pattern: Pattern, target: Target, now_ns: u64) -> Self {
        Self {
            pattern,
            target,
            idle_timeout_ns: 0,
            controller_metadata: 0,
            metadata: Box::default(),
            is_const: false,
            counter: Counter::default(),
            last_hit_ns: AtomicU64::new(now_ns),
            notified_ns: AtomicU64::new(0),
            meter: None,
        }
    }

    /// Notes a packet, and counts its bytes if the table counts.
    #[inline]
    pub(crate) fn hit(&self, bytes: Option<usize>, now_ns: u64) {
        if let Some(bytes) = bytes {
            self.counter.count(bytes);
        }
        self.last_hit_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Nanoseconds since the last packet.
    pub(crate) fn idle_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.last_hit_ns.load(Ordering::Relaxed))
    }

    /// Whether its idleness is to be notified now. It is notified again after another timeout.
    pub(crate) fn expire(&self, now_ns: u64) -> bool {
        if self.idle_timeout_ns == 0 {
            return false;
        }
        let since = self
            .last_hit_ns
            .load(Ordering::Relaxed)
            .max(self.notified_ns.load(Ordering::Relaxed));
        let due = now_ns.saturating_sub(since) >= self.idle_timeout_ns;
        if due {
            self.notified_ns.store(now_ns, Ordering::Relaxed);
        }
        due
    }

    /// Takes over the counts and the last packet's time of the entry it replaces.
    pub(crate) fn inherit(&self, old: &Self) {
        let (packets, bytes) = old.counter.get();
        self.counter.set(packets, bytes);
        self.last_hit_ns
            .store(old.last_hit_ns.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Why an entry could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableError {
    Exists,
    NotFound,
    Full,
}

type Index = HashTable<Arc<Entry>>;

#[derive(Debug)]
struct Level {
    prefix: u16,
    /// Over the whole key.
    mask: Box<[u8]>,
    entries: Index,
}

#[derive(Debug)]
enum Store {
    Exact(Index),
    /// Longest prefix first; no level is empty.
    Lpm {
        levels: Vec<Level>,
        offset: usize,
        bytes: usize,
        width: u16,
    },
    Ternary {
        /// Highest priority first, older before newer.
        order: Vec<Arc<Entry>>,
        /// By key and priority.
        index: Index,
        /// Which bytes of the key are ranges: offset and length.
        ranges: Vec<(usize, usize)>,
    },
}

/// What one table holds.
#[derive(Debug)]
pub(crate) struct TableState {
    store: Store,
    hasher: RandomState,
    max_size: usize,
    len: usize,
    pub(crate) default: Option<DefaultAction>,
}

impl TableState {
    /// The table with its const entries.
    pub(crate) fn new(table: &Table) -> Self {
        let store = match table.lookup {
            Lookup::Exact => Store::Exact(Index::new()),
            Lookup::Lpm => {
                let key = table.key.iter().find(|k| k.kind == Match::Lpm);
                Store::Lpm {
                    levels: Vec::new(),
                    offset: key.map_or(0, |k| k.offset),
                    bytes: key.map_or(0, |k| k.bytes),
                    width: key.map_or(0, |k| k.field.width),
                }
            }
            Lookup::Ternary => Store::Ternary {
                order: Vec::new(),
                index: Index::new(),
                ranges: table
                    .key
                    .iter()
                    .filter(|k| k.kind == Match::Range)
                    .map(|k| (k.offset, k.bytes))
                    .collect(),
            },
        };
        let mut state = Self {
            store,
            hasher: RandomState::new(),
            // Const entries may be more than the declared size.
            max_size: table.max_size.max(table.entries.len()),
            len: 0,
            default: table.default.clone(),
        };
        for entry in &table.entries {
            let call = Call {
                slot: entry.slot,
                args: entry.args.clone(),
            };
            let mut entry = Entry::new(entry.pattern.clone(), Target::Call(call), 0);
            entry.is_const = true;
            // The compiler refuses duplicates; should one come, the first wins.
            let _ = state.insert(Arc::new(entry));
        }
        state
    }

    /// The entry that a packet's key matches.
    #[inline]
    pub(crate) fn lookup(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        match &self.store {
            Store::Exact(index) => {
                let hash = self.hasher.hash_one(key);
                index.find(hash, |e| *e.pattern.value == *key)
            }
            Store::Lpm { levels, .. } => {
                if key.len() <= SHORT_KEY_BYTES {
                    self.longest(levels, key, &mut [0; SHORT_KEY_BYTES])
                } else {
                    self.longest(levels, key, &mut [0; MAX_KEY_BYTES])
                }
            }
            Store::Ternary { order, ranges, .. } => {
                order.iter().find(|e| matches(&e.pattern, key, ranges))
            }
        }
    }

    fn longest<'l>(
        &self,
        levels: &'l [Level],
        key: &[u8],
        space: &mut [u8],
    ) -> Option<&'l Arc<Entry>> {
        let masked = space.get_mut(..key.len())?;
        levels.iter().find_map(|level| {
            for ((out, byte), mask) in masked.iter_mut().zip(key).zip(&level.mask) {
                *out = byte & mask;
            }
            let hash = self.hasher.hash_one(&*masked);
            level.entries.find(hash, |e| *e.pattern.value == *masked)
        })
    }

    fn identity(&self, pattern: &Pattern) -> u64 {
        match self.store {
            Store::Ternary { .. } => self.hasher.hash_one(pattern),
            _ => self.hasher.hash_one(&*pattern.value),
        }
    }

    fn index(&self, pattern: &Pattern) -> Option<&Index> {
        match &self.store {
            Store::Exact(index) | Store::Ternary { index, .. } => Some(index),
            Store::Lpm { levels, .. } => levels
                .iter()
                .find(|l| l.prefix == pattern.prefix)
                .map(|l| &l.entries),
        }
    }

    /// The entry of exactly this key.
    pub(crate) fn get(&self, pattern: &Pattern) -> Option<&Arc<Entry>> {
        let hash = self.identity(pattern);
        self.index(pattern)?.find(hash, |e| e.pattern == *pattern)
    }

    /// Adds an entry.
    pub(crate) fn insert(&mut self, entry: Arc<Entry>) -> Result<(), TableError> {
        if self.get(&entry.pattern).is_some() {
            return Err(TableError::Exists);
        }
        if self.len >= self.max_size {
            return Err(TableError::Full);
        }
        let hash = self.identity(&entry.pattern);
        let hasher = &self.hasher;
        let by_value = |e: &Arc<Entry>| hasher.hash_one(&*e.pattern.value);
        match &mut self.store {
            Store::Exact(index) => {
                index.insert_unique(hash, entry, by_value);
            }
            Store::Lpm {
                levels,
                offset,
                bytes,
                width,
            } => {
                let prefix = entry.pattern.prefix;
                let at = levels.partition_point(|l| l.prefix > prefix);
                if levels.get(at).is_none_or(|l| l.prefix != prefix) {
                    let mut mask = vec![0xff; entry.pattern.value.len()];
                    if let Some(mask) = mask.get_mut(*offset..*offset + *bytes) {
                        prefix_mask(mask, *width, prefix);
                    }
                    let level = Level {
                        prefix,
                        mask: mask.into(),
                        entries: Index::new(),
                    };
                    levels.insert(at, level);
                }
                if let Some(level) = levels.get_mut(at) {
                    level.entries.insert_unique(hash, entry, by_value);
                }
            }
            Store::Ternary { order, index, .. } => {
                let priority = entry.pattern.priority;
                let at = order.partition_point(|e| e.pattern.priority >= priority);
                order.insert(at, Arc::clone(&entry));
                index.insert_unique(hash, entry, |e| hasher.hash_one(&e.pattern));
            }
        }
        self.len += 1;
        Ok(())
    }

    /// Replaces the entry of the same key, which keeps its counts; returns the old one.
    pub(crate) fn modify(&mut self, entry: Arc<Entry>) -> Result<Arc<Entry>, TableError> {
        let hash = self.identity(&entry.pattern);
        let same = |e: &Arc<Entry>| e.pattern == entry.pattern;
        let found = match &mut self.store {
            Store::Exact(index) => index.find_mut(hash, same),
            Store::Lpm { levels, .. } => levels
                .iter_mut()
                .find(|l| l.prefix == entry.pattern.prefix)
                .and_then(|l| l.entries.find_mut(hash, same)),
            Store::Ternary { order, index, .. } => {
                if let Some(place) = order.iter_mut().find(|e| same(e)) {
                    *place = Arc::clone(&entry);
                }
                index.find_mut(hash, same)
            }
        };
        let found = found.ok_or(TableError::NotFound)?;
        entry.inherit(found);
        Ok(std::mem::replace(found, Arc::clone(&entry)))
    }

    /// Removes the entry of this key.
    pub(crate) fn remove(&mut self, pattern: &Pattern) -> Result<Arc<Entry>, TableError> {
        let hash = self.identity(pattern);
        let take = |index: &mut Index| {
            let found = index.find_entry(hash, |e| e.pattern == *pattern);
            found.ok().map(|found| found.remove().0)
        };
        let removed = match &mut self.store {
            Store::Exact(index) => take(index),
            Store::Lpm { levels, .. } => {
                let at = levels.iter().position(|l| l.prefix == pattern.prefix);
                at.and_then(|at| {
                    let level = levels.get_mut(at)?;
                    let removed = take(&mut level.entries);
                    if level.entries.is_empty() {
                        levels.remove(at);
                    }
                    removed
                })
            }
            Store::Ternary { order, index, .. } => {
                let removed = take(index);
                let from = order.partition_point(|e| e.pattern.priority > pattern.priority);
                let tail = order.get(from..).unwrap_or_default();
                let at = tail.iter().position(|e| e.pattern == *pattern);
                if let (Some(at), Some(_)) = (at, &removed) {
                    order.remove(from + at);
                }
                removed
            }
        };
        let removed = removed.ok_or(TableError::NotFound)?;
        self.len -= 1;
        Ok(removed)
    }

    /// All entries; ternary ones by priority.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        match &self.store {
            Store::Exact(index) => index.iter().cloned().collect(),
            Store::Lpm { levels, .. } => levels
                .iter()
                .flat_map(|l| l.entries.iter().cloned())
                .collect(),
            Store::Ternary { order, .. } => order.clone(),
        }
    }
}

/// Whether a packet's key matches a ternary pattern. Elsewhere than in ranges the value is
/// stored masked.
fn matches(pattern: &Pattern, key: &[u8], ranges: &[(usize, usize)]) -> bool {
    if ranges.is_empty() {
        let parts = key.iter().zip(&pattern.value).zip(&pattern.mask);
        return parts.into_iter().all(|((k, v), m)| k & m == *v);
    }
    let mut at = 0;
    for (offset, bytes) in ranges.iter().copied().chain([(key.len(), 0)]) {
        let plain = at..offset;
        let (k, v, m) = (
            key.get(plain.clone()).unwrap_or_default(),
            pattern.value.get(plain.clone()).unwrap_or_default(),
            pattern.mask.get(plain).unwrap_or_default(),
        );
        if !k.iter().zip(v).zip(m).all(|((k, v), m)| k & m == v & m) {
            return false;
        }
        let range = offset..offset + bytes;
        let (k, low, high) = (
            key.get(range.clone()).unwrap_or_default(),
            pattern.value.get(range.clone()).unwrap_or_default(),
            pattern.mask.get(range).unwrap_or_default(),
        );
        if k < low || k > high {
            return false;
        }
        at = offset + bytes;
    }
    true
}
