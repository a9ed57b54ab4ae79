//! What packets found last in each table.
//!
//! Most tables give many packets in a row the same answer: the port they came in at, the next hop,
//! its neighbour. So a worker keeps each table's last entry together with the table's version at
//! that time. As long as the version is the same and the key too, no lock is taken and nothing is
//! hashed. Packets that used an entry so are counted at it all at once, when their burst is done.

use crate::state::State;
use crate::state::entry::Entry;

/// Longer keys are not kept.
pub(super) const KEY_BYTES: usize = 64;
/// Tables numbered from here on are not kept.
const TABLES: usize = 128;

/// The last entry of one table.
struct Memo {
    /// Zero behind the key.
    key: [u8; KEY_BYTES],
    version: u64,
    /// None until a key has come twice in a row: one that comes once is not worth it.
    entry: Option<Entry>,
    /// What is to be counted.
    packets: u64,
    bytes: u64,
}

/// The last entries of a worker's tables.
#[derive(Default)]
pub(crate) struct Memos {
    /// The state that they are of.
    state: u64,
    tables: Vec<Memo>,
    /// By number, tables with something to be counted.
    uncounted: u128,
}

/// Whether the first `len` bytes are the same; what is behind them in the same word is zero in both.
#[inline]
fn same(a: &[u8; KEY_BYTES], b: &[u8; KEY_BYTES], len: usize) -> bool {
    let words = |bytes| <[u8]>::as_chunks::<8>(bytes).0.iter().take(len.div_ceil(8));
    words(a).zip(words(b)).all(|(a, b)| a == b)
}

impl Memos {
    /// Keeps entries of this state, and forgets those of another.
    pub(crate) fn of(mut self, state: &State) -> Self {
        if self.state != state.id {
            let memo = || Memo {
                key: [0; KEY_BYTES],
                version: 0,
                entry: None,
                packets: 0,
                bytes: 0,
            };
            let tables = state.tables.len().min(TABLES);
            self = Self {
                state: state.id,
                tables: std::iter::repeat_with(memo).take(tables).collect(),
                uncounted: 0,
            };
        }
        self
    }

    /// The entry that this key found last, if the table is what it was then; it is counted once
    /// more. To be given [back](Self::keep).
    #[inline]
    pub(super) fn take(
        &mut self,
        table: usize,
        version: u64,
        key: &[u8; KEY_BYTES],
        key_bytes: usize,
        frame_bytes: usize,
    ) -> Option<Entry> {
        let memo = self.tables.get_mut(table)?;
        if memo.version != version || !same(&memo.key, key, key_bytes) {
            return None;
        }
        let entry = memo.entry.take()?;
        memo.packets += 1;
        memo.bytes += frame_bytes as u64;
        self.uncounted |= 1 << table;
        Some(entry)
    }

    /// Puts back what was taken.
    #[inline]
    pub(super) fn keep(&mut self, table: usize, entry: Entry) {
        if let Some(memo) = self.tables.get_mut(table) {
            memo.entry = Some(entry);
        }
    }

    /// Notes what a key found at a version of the table.
    #[inline]
    pub(super) fn note(
        &mut self,
        table: usize,
        version: u64,
        key: &[u8; KEY_BYTES],
        key_bytes: usize,
        found: Option<&Entry>,
    ) {
        let Some(memo) = self.tables.get_mut(table) else {
            return;
        };
        memo.entry = found.filter(|_| same(&memo.key, key, key_bytes)).cloned();
        memo.version = version;
        memo.key = *key;
    }

    /// Counts what is still to be counted at a table's entry, which may be another soon.
    #[inline]
    pub(super) fn settle(&mut self, table: usize, state: &State, now_ns: u64) {
        if self.uncounted & (1 << (table % TABLES)) != 0 {
            self.count(table, state, now_ns);
        }
    }

    fn count(&mut self, table: usize, state: &State, now_ns: u64) {
        self.uncounted &= !(1 << (table % TABLES));
        let (Some(memo), Some(entries)) = (self.tables.get_mut(table), state.tables.get(table))
        else {
            return;
        };
        if let Some(entry) = &memo.entry {
            entries.count(entry.key(), memo.packets, memo.bytes, now_ns);
        }
        (memo.packets, memo.bytes) = (0, 0);
    }

    /// Counts what is still to be counted.
    pub(crate) fn settle_all(&mut self, state: &State, now_ns: u64) {
        while self.uncounted != 0 {
            self.count(self.uncounted.trailing_zeros() as usize, state, now_ns);
        }
    }
}
