//! What one table holds: entries found by hash, by longest prefix or by priority.

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;

use super::entry::{Entry, Key, Rare, Spec};
use super::hasher::Hasher;
use super::profile::Call;
use super::shards::Shards;
use super::wide::{Levels, Priorities};
use super::{read, write};
use crate::program::table::{Default as DefaultAction, Lookup, Match, Table};

/// Why an entry could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableError {
    Exists,
    NotFound,
    Full,
}

#[derive(Debug)]
enum Store {
    Exact(Shards),
    Lpm(RwLock<Levels>),
    Ternary(RwLock<Priorities>),
}

/// What one table holds. Packets look up while entries are written; each waits for the other at
/// most as long as one entry takes.
#[derive(Debug)]
pub(crate) struct TableState {
    store: Store,
    hasher: Hasher,
    max_size: usize,
    len: AtomicUsize,
    /// Another after each change of the entries.
    version: AtomicU64,
    with_counters: bool,
    /// What a miss does.
    pub(crate) default: ArcSwapOption<DefaultAction>,
}

impl TableState {
    /// The table with its const entries.
    pub(crate) fn new(table: &Table) -> Self {
        // Const entries may be more than the declared size.
        let max_size = table.max_size.max(table.entries.len());
        let store = match table.lookup {
            Lookup::Exact => Store::Exact(Shards::new(max_size)),
            Lookup::Lpm => {
                let key = table.key.iter().find(|k| k.kind == Match::Lpm);
                let (offset, bytes) = key.map_or((0, 0), |k| (k.offset, k.bytes));
                let width = key.map_or(0, |k| k.field.width);
                Store::Lpm(RwLock::new(Levels::new(offset, bytes, width)))
            }
            Lookup::Ternary => {
                let ranges = table.key.iter().filter(|k| k.kind == Match::Range);
                let ranges = ranges.map(|k| (k.offset, k.bytes)).collect();
                Store::Ternary(RwLock::new(Priorities::new(ranges)))
            }
        };
        let state = Self {
            store,
            hasher: Hasher::new(),
            max_size,
            len: AtomicUsize::new(0),
            version: AtomicU64::new(0),
            with_counters: table.with_counters,
            default: ArcSwapOption::from_pointee(table.default.clone()),
        };
        for entry in &table.entries {
            let call = Call {
                slot: entry.slot,
                args: entry.args.clone(),
            };
            let rare = Rare {
                is_const: true,
                ..Rare::default()
            };
            let spec = Spec {
                rare: Some(Box::new(rare)),
                ..Spec::default()
            };
            // The compiler refuses duplicates; should one come, the first wins.
            let _ = state.insert(Entry::with_call(&entry.pattern, &call, spec));
        }
        state
    }

    /// Calls `f` with the entry that a packet's key matches; the entry stays in the table until
    /// `f` is done.
    #[inline]
    pub(crate) fn look_up<R>(&self, key: &[u8], f: impl FnOnce(Option<&Entry>) -> R) -> R {
        if self.len.load(Ordering::Relaxed) == 0 {
            return f(None);
        }
        match &self.store {
            Store::Exact(shards) => shards.look_up(self.hasher.hash(key), key, f),
            Store::Lpm(levels) => f(read(levels).look_up(&self.hasher, key)),
            Store::Ternary(order) => f(read(order).look_up(key)),
        }
    }

    /// Whether [`TableState::look_up_all`] helps, when that is from so many entries on.
    pub(crate) fn can_look_up_all(&self, entries: usize) -> bool {
        self.len.load(Ordering::Relaxed) >= entries && matches!(self.store, Store::Exact(_))
    }

    /// Looks up keys, each `key_bytes` long, together: calls `f` with each one's position and
    /// entry. Keys may be left out; they are to be looked up one by one.
    pub(crate) fn look_up_all(
        &self,
        keys: &[u8],
        key_bytes: usize,
        f: impl FnMut(usize, Option<&Entry>),
    ) {
        if let Store::Exact(shards) = &self.store {
            let keys = keys.chunks_exact(key_bytes.max(1));
            shards.look_up_all(keys.map(|key| (self.hasher.hash(key), key)), f);
        }
    }

    fn hash(&self, key: Key<'_>) -> u64 {
        match self.store {
            Store::Ternary(_) => self.hasher.hash_key(key),
            _ => self.hasher.hash(key.value),
        }
    }

    /// Which version of its entries this is: as long as it is the same, the same key finds the
    /// same entry. To be asked before the look-up.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Every change of the entries ends with this, before it is reported.
    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Counts packets of this key's entry, if it is there; the entry stays until that is done.
    pub(crate) fn count(&self, key: Key<'_>, packets: u64, bytes: u64, now_ns: u64) {
        self.with(key, |entry| {
            if let Some(entry) = entry {
                entry.hit(self.with_counters, packets, bytes, now_ns);
            }
        });
    }

    /// The entry of exactly this key.
    pub(crate) fn get(&self, key: Key<'_>) -> Option<Entry> {
        self.with(key, |entry| entry.cloned())
    }

    fn with<R>(&self, key: Key<'_>, f: impl FnOnce(Option<&Entry>) -> R) -> R {
        let hash = self.hash(key);
        match &self.store {
            Store::Exact(shards) => shards.get(hash, key, f),
            Store::Lpm(levels) => {
                let levels = read(levels);
                f(levels.index(key.prefix).and_then(|l| l.find(hash, key)))
            }
            Store::Ternary(order) => f(read(order).index().find(hash, key)),
        }
    }

    /// Takes a place, if there is one.
    fn reserve(&self) -> Result<(), TableError> {
        let more = |len: usize| (len < self.max_size).then_some(len + 1);
        self.len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map(drop)
            .map_err(|_| TableError::Full)
    }

    /// Adds an entry.
    pub(crate) fn insert(&self, entry: Entry) -> Result<(), TableError> {
        self.add(entry)?;
        self.changed();
        Ok(())
    }

    fn add(&self, entry: Entry) -> Result<(), TableError> {
        let hash = self.hash(entry.key());
        match &self.store {
            Store::Exact(shards) => {
                let added = shards.change(hash, |index| {
                    if index.find(hash, entry.key()).is_some() {
                        return Err(TableError::Exists);
                    }
                    self.reserve()?;
                    index.insert(hash, entry);
                    Ok(())
                });
                added.unwrap_or(Err(TableError::Full))
            }
            Store::Lpm(levels) => {
                let mut levels = write(levels);
                let level = levels.index(entry.prefix());
                if level.is_some_and(|l| l.find(hash, entry.key()).is_some()) {
                    return Err(TableError::Exists);
                }
                self.reserve()?;
                levels.insert(hash, entry);
                Ok(())
            }
            Store::Ternary(order) => {
                let mut order = write(order);
                if order.index().find(hash, entry.key()).is_some() {
                    return Err(TableError::Exists);
                }
                self.reserve()?;
                order.insert(hash, entry);
                Ok(())
            }
        }
    }

    /// Replaces the entry of the same key, which keeps its counts; returns the old one.
    pub(crate) fn modify(&self, entry: &Entry) -> Result<Entry, TableError> {
        let hash = self.hash(entry.key());
        let old = match &self.store {
            Store::Exact(shards) => shards.change(hash, |index| index.replace(hash, entry)),
            Store::Lpm(levels) => Some(write(levels).replace(hash, entry)),
            Store::Ternary(order) => Some(write(order).replace(hash, entry)),
        };
        let old = old.flatten().ok_or(TableError::NotFound)?;
        self.changed();
        Ok(old)
    }

    /// Removes the entry of this key.
    pub(crate) fn remove(&self, key: Key<'_>) -> Result<Entry, TableError> {
        let hash = self.hash(key);
        let removed = match &self.store {
            Store::Exact(shards) => shards.change(hash, |index| index.remove(hash, key)),
            Store::Lpm(levels) => Some(write(levels).remove(hash, key)),
            Store::Ternary(order) => Some(write(order).remove(hash, key)),
        };
        let removed = removed.flatten().ok_or(TableError::NotFound)?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.changed();
        Ok(removed)
    }

    /// Calls `visit` with all entries, ternary ones by priority, and now and then `between`
    /// while nothing is locked. An entry that is written meanwhile may be visited or not.
    pub(crate) fn scan<E>(
        &self,
        mut visit: impl FnMut(&Entry),
        mut between: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let copies: Vec<Entry> = match &self.store {
            Store::Exact(shards) => {
                for shard in shards.iter() {
                    read(shard).iter().for_each(&mut visit);
                    between()?;
                }
                return Ok(());
            }
            Store::Lpm(levels) => read(levels).iter().cloned().collect(),
            Store::Ternary(order) => read(order).iter().cloned().collect(),
        };
        for part in copies.chunks(SCAN_ENTRIES) {
            part.iter().for_each(&mut visit);
            between()?;
        }
        Ok(())
    }

    /// Calls `found` with the entries whose idleness is to be notified now, in groups of at most
    /// `limit`.
    pub(crate) fn sweep(&self, now_ns: u64, limit: usize, mut found: impl FnMut(Vec<Entry>)) {
        let mut idle = Vec::new();
        let mut pass_on = |idle: &mut Vec<Entry>, from: usize| {
            while idle.len() >= from.max(1) {
                let rest = idle.split_off(limit.min(idle.len()));
                found(std::mem::replace(idle, rest));
            }
        };
        match &self.store {
            Store::Exact(shards) => {
                for shard in shards.iter() {
                    if read(shard).is_due(now_ns) {
                        write(shard).sweep(now_ns, &mut idle);
                        pass_on(&mut idle, limit);
                    }
                }
            }
            Store::Lpm(levels) => write(levels).sweep(now_ns, &mut idle),
            Store::Ternary(order) => write(order).sweep(now_ns, &mut idle),
        }
        pass_on(&mut idle, 1);
    }
}

/// Entries that a scan of a table without shards visits at a time.
const SCAN_ENTRIES: usize = 1024;

#[cfg(test)]
mod tests;
