//! The entries of an exact table, in shards by hash.
//!
//! Each shard has a lock of its own and grows by itself, so that packets never wait for more
//! than one entry's write or one shard's growth, and writers of one table rarely for each other.

use std::sync::RwLock;

use super::entry::{Entry, Key};
use super::index::Index;
use super::{read, write};

/// Entries of a full table in one shard: its growth takes some ten microseconds.
const SHARD_ENTRIES: usize = 1024;
/// The most shards of a table.
const MAX_SHARDS: usize = 1024;

/// One shard has its cache line for itself.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(RwLock<Index>);

/// A sharded hash table.
#[derive(Debug)]
pub(crate) struct Shards {
    shards: Box<[Shard]>,
}

impl Shards {
    /// For a table of this many entries.
    pub(crate) fn new(max_size: usize) -> Self {
        let count = max_size.div_ceil(SHARD_ENTRIES).clamp(1, MAX_SHARDS);
        let count = count.next_power_of_two();
        Self {
            shards: (0..count).map(|_| Shard::default()).collect(),
        }
    }

    /// Inside a shard the lowest and the seven highest bits of a hash are used; between shards
    /// others.
    #[inline]
    fn shard(&self, hash: u64) -> Option<&RwLock<Index>> {
        let at = (hash >> 32) as usize & (self.shards.len() - 1);
        self.shards.get(at).map(|s| &s.0)
    }

    /// Calls `f` with the position and the entry of each value whose shard's lock is free at once;
    /// all stay as they are until the last `f` is done.
    ///
    /// First all locks, then all entries, then their use: a lock or a counter makes the processor
    /// wait for every read before it, and the reads, which miss the cache, are to overlap.
    pub(crate) fn look_up_all<'k>(
        &self,
        values: impl Iterator<Item = (u64, &'k [u8])>,
        mut f: impl FnMut(usize, Option<&Entry>),
    ) {
        let locked: Vec<_> = values
            .map(|(hash, value)| {
                let shard = self.shard(hash).and_then(|shard| shard.try_read().ok());
                (hash, value, shard)
            })
            .collect();
        let mut found = Vec::with_capacity(locked.len());
        for (hash, value, shard) in &locked {
            found.push(shard.as_ref().map(|shard| shard.find_value(*hash, value)));
        }
        for (position, entry) in found.into_iter().enumerate() {
            if let Some(entry) = entry {
                f(position, entry);
            }
        }
    }

    /// Calls `f` with the entry of this value; it stays as it is until `f` is done.
    #[inline]
    pub(crate) fn look_up<R>(
        &self,
        hash: u64,
        value: &[u8],
        f: impl FnOnce(Option<&Entry>) -> R,
    ) -> R {
        let Some(shard) = self.shard(hash) else {
            return f(None);
        };
        let shard = read(shard);
        f(shard.find_value(hash, value))
    }

    /// Calls `f` with the entry of this key; it stays as it is until `f` is done.
    pub(crate) fn get<R>(&self, hash: u64, key: Key<'_>, f: impl FnOnce(Option<&Entry>) -> R) -> R {
        match self.shard(hash) {
            Some(shard) => f(read(shard).find(hash, key)),
            None => f(None),
        }
    }

    /// Calls `f` with the one shard that has (or would have) entries of this hash.
    pub(crate) fn change<R>(&self, hash: u64, f: impl FnOnce(&mut Index) -> R) -> Option<R> {
        self.shard(hash).map(|shard| f(&mut write(shard)))
    }

    /// The shards one after another.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &RwLock<Index>> {
        self.shards.iter().map(|s| &s.0)
    }
}
