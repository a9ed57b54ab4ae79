//! Entries by hash, with the time at which each is to be looked at for idleness.

use hashbrown::HashTable;

use super::entry::{Entry, Key};

/// The hash stands beside the entry, so that neither a search nor a growing table has to touch
/// entries that are not meant.
#[derive(Debug)]
struct Slot {
    hash: u64,
    /// Not before then is the entry idle; it may have been hit since this was noted.
    due_ns: u64,
    entry: Entry,
}

/// A hash table of entries.
#[derive(Debug)]
pub(crate) struct Index {
    slots: HashTable<Slot>,
    /// No entry is due before.
    next_due_ns: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            slots: HashTable::new(),
            next_due_ns: u64::MAX,
        }
    }
}

impl Index {
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The entry of this value: the key of an exact table, or one masked for a prefix.
    #[inline]
    pub(crate) fn find_value(&self, hash: u64, value: &[u8]) -> Option<&Entry> {
        let same = |s: &Slot| s.hash == hash && s.entry.value() == value;
        self.slots.find(hash, same).map(|s| &s.entry)
    }

    /// The entry of this key.
    pub(crate) fn find(&self, hash: u64, key: Key<'_>) -> Option<&Entry> {
        let same = |s: &Slot| s.hash == hash && s.entry.key() == key;
        self.slots.find(hash, same).map(|s| &s.entry)
    }

    /// Adds an entry that is not there yet.
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) {
        let due_ns = entry.due_ns();
        self.next_due_ns = self.next_due_ns.min(due_ns);
        let slot = Slot {
            hash,
            due_ns,
            entry,
        };
        self.slots.insert_unique(hash, slot, |s| s.hash);
    }

    /// Replaces the entry of the same key, which passes its counts on; returns the old one.
    pub(crate) fn replace(&mut self, hash: u64, entry: &Entry) -> Option<Entry> {
        let key = entry.key();
        let same = |s: &Slot| s.hash == hash && s.entry.key() == key;
        let slot = self.slots.find_mut(hash, same)?;
        entry.inherit(&slot.entry);
        slot.due_ns = entry.due_ns();
        self.next_due_ns = self.next_due_ns.min(slot.due_ns);
        Some(std::mem::replace(&mut slot.entry, entry.clone()))
    }

    /// Takes the entry of this key out.
    pub(crate) fn remove(&mut self, hash: u64, key: Key<'_>) -> Option<Entry> {
        let same = |s: &Slot| s.hash == hash && s.entry.key() == key;
        let found = self.slots.find_entry(hash, same).ok()?;
        Some(found.remove().0.entry)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().map(|s| &s.entry)
    }

    /// Whether a sweep at this time could find an idle entry.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        self.next_due_ns <= now_ns
    }

    /// Appends the entries whose idleness is to be notified now. Each is notified again after
    /// another timeout.
    pub(crate) fn sweep(&mut self, now_ns: u64, idle: &mut Vec<Entry>) {
        if !self.is_due(now_ns) {
            return;
        }
        let mut next = u64::MAX;
        for slot in &mut self.slots {
            if slot.due_ns <= now_ns {
                let due = slot.entry.due_ns();
                slot.due_ns = if due > now_ns {
                    due
                } else {
                    idle.push(slot.entry.clone());
                    now_ns.saturating_add(slot.entry.idle_timeout_ns())
                };
            }
            next = next.min(slot.due_ns);
        }
        self.next_due_ns = next;
    }
}
