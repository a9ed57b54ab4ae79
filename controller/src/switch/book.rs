//! One table: what it should hold, and where the switch differs from it.
//!
//! What is as it should be is kept once, as the typed entry itself (16 bytes for a route), so
//! that a million entries that are in order cost little; only differences are kept twice.

use ahash::RandomState;
use hashbrown::hash_table::Entry as Slot;
use hashbrown::{HashMap, HashTable};
use shunt_p4::tables::P4Table;
use tokio::time::{Duration, Instant};

use super::row::Row;

/// The first wait before a refused update is tried again; doubles each time.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(200);
/// The longest.
pub(super) const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Differences that are worth giving their memory back when they have gone.
const SHRINK_ABOVE: usize = 4096;

/// What the switch holds under a key, where that is not what is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Held<T> {
    /// Nothing.
    Nothing,
    /// This.
    Entry(T),
    /// There is an entry, but what it says is not known.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    delay: Duration,
    /// Neither did the switch let it be parked.
    unparked: bool,
}

impl Retry {
    fn after(now: Instant, delay: Duration) -> Self {
        Self {
            at: now + delay,
            delay,
            unparked: false,
        }
    }
}

fn longer(delay: Duration) -> Duration {
    (delay * 2).clamp(RETRY_FIRST, RETRY_LONGEST)
}

fn count_of<'c, T: Row>(counts: &'c mut [usize], key: &T::Key) -> Option<&'c mut usize> {
    counts.get_mut(usize::from(T::length(key)))
}

/// The same in every run, so that a failing test can be replayed.
pub(super) fn hasher() -> RandomState {
    RandomState::with_seeds(0x51, 0x7c, 0xc1, 0xb7)
}

/// What is wanted of a table, and what the switch holds instead.
#[derive(Debug)]
pub(super) struct Book<T: P4Table> {
    hasher: RandomState,
    wanted: HashTable<T>,
    differs: HashMap<T::Key, Held<T>, RandomState>,
    /// Refused, and when they are due again.
    retries: HashMap<T::Key, Retry, RandomState>,
    /// Entries that nobody here wants and that another role does not let go.
    others: HashMap<T::Key, T, RandomState>,
    /// Entries on the switch.
    held: usize,
    /// Keys to write next, and those of the write under way with what they will hold then.
    pub(super) plan: Vec<T::Key>,
    sent: Vec<(T::Key, Option<T>)>,
    /// Wanted prefixes by length, and those on the switch, for tables that have some.
    wanted_lengths: Vec<usize>,
    held_lengths: Vec<usize>,
}

impl<T: Row> Default for Book<T> {
    fn default() -> Self {
        let lengths = if T::LONGEST > 0 {
            usize::from(T::LONGEST) + 1
        } else {
            0
        };
        Self {
            hasher: hasher(),
            wanted: HashTable::new(),
            differs: HashMap::with_hasher(hasher()),
            retries: HashMap::with_hasher(hasher()),
            others: HashMap::with_hasher(hasher()),
            held: 0,
            plan: Vec::new(),
            sent: Vec::new(),
            wanted_lengths: vec![0; lengths],
            held_lengths: vec![0; lengths],
        }
    }
}

impl<T: Row> Book<T> {
    /// What is wanted under a key.
    pub(super) fn wanted(&self, key: &T::Key) -> Option<&T> {
        let hash = self.hasher.hash_one(key);
        self.wanted.find(hash, |entry| entry.key() == *key)
    }

    /// The longest prefix that is wanted and covers a key.
    pub(super) fn longest(&self, key: &T::Key) -> Option<&T> {
        let lengths = (0..=T::length(key)).rev();
        let mut lengths = lengths.filter(|length| self.wants_length(*length));
        lengths.find_map(|length| self.wanted(&T::cover(key, length)))
    }

    /// What the switch holds under a key, as far as that is known.
    pub(super) fn held(&self, key: &T::Key) -> Held<T> {
        if let Some(held) = self.differs.get(key) {
            return held.clone();
        }
        let known = self.wanted(key).or_else(|| self.others.get(key));
        known.cloned().map_or(Held::Nothing, Held::Entry)
    }

    /// Notes what is wanted from now on.
    pub(super) fn set(&mut self, entry: T) {
        let key = entry.key();
        let held = self.held(&key);
        self.others.remove(&key);
        let Self { hasher, wanted, .. } = self;
        let hash = hasher.hash_one(key);
        match wanted.entry(hash, |old| old.key() == key, |e| hasher.hash_one(e.key())) {
            Slot::Occupied(mut slot) => *slot.get_mut() = entry,
            Slot::Vacant(slot) => {
                slot.insert(entry);
                if let Some(count) = count_of::<T>(&mut self.wanted_lengths, &key) {
                    *count += 1;
                }
            }
        }
        self.retries.remove(&key);
        self.compare(key, held);
    }

    /// Notes that nothing is wanted under a key from now on.
    pub(super) fn unset(&mut self, key: &T::Key) {
        if self.others.contains_key(key) {
            return;
        }
        let held = self.held(key);
        let hash = self.hasher.hash_one(key);
        if let Ok(slot) = self.wanted.find_entry(hash, |entry| entry.key() == *key) {
            slot.remove();
            if let Some(count) = count_of::<T>(&mut self.wanted_lengths, key) {
                *count = count.saturating_sub(1);
            }
        }
        self.retries.remove(key);
        self.compare(*key, held);
    }

    /// Notes a difference, or that there is none.
    fn compare(&mut self, key: T::Key, held: Held<T>) {
        let as_wanted = match (self.wanted(&key), &held) {
            (Some(wanted), Held::Entry(held)) => wanted == held,
            (None, Held::Nothing) => true,
            _ => false,
        };
        if as_wanted {
            self.differs.remove(&key);
            if self.differs.is_empty() && self.differs.capacity() > SHRINK_ABOVE {
                self.differs.shrink_to_fit();
            }
        } else {
            self.differs.insert(key, held);
        }
    }

    /// Notes what the switch holds under a key from now on.
    fn settle(&mut self, key: T::Key, held: Held<T>) {
        let before = match self.differs.get(&key) {
            Some(held) => *held != Held::Nothing,
            None => self.wanted(&key).is_some(),
        };
        let count = count_of::<T>(&mut self.held_lengths, &key);
        let all = std::iter::once(&mut self.held).chain(count);
        match (before, held != Held::Nothing) {
            (false, true) => all.for_each(|count| *count += 1),
            (true, false) => all.for_each(|count| *count = count.saturating_sub(1)),
            _ => {}
        }
        self.compare(key, held);
    }

    /// Compares everything wanted with everything held, and says where they differ.
    pub(super) fn differences(&self, held: &[T], mut say: impl FnMut(T::Key, Held<T>)) {
        let mut seen = vec![0_u64; self.wanted.num_buckets().div_ceil(64)];
        for entry in held {
            let key = entry.key();
            let hash = self.hasher.hash_one(key);
            let found = self.wanted.find_bucket_index(hash, |w| w.key() == key);
            if let Some(index) = found {
                if let Some(word) = seen.get_mut(index / 64) {
                    *word |= 1 << (index % 64);
                }
                if self.wanted.get_bucket(index) == Some(entry) {
                    continue;
                }
            }
            say(key, Held::Entry(entry.clone()));
        }
        for (index, word) in seen.iter().enumerate() {
            for bit in 0..64 {
                if word >> bit & 1 == 0
                    && let Some(missing) = self.wanted.get_bucket(index * 64 + bit)
                {
                    say(missing.key(), Held::Nothing);
                }
            }
        }
    }

    /// Takes the switch's word for what it holds.
    pub(super) fn read_back(&mut self, held: &[T]) {
        let others = std::mem::replace(&mut self.others, HashMap::with_hasher(hasher()));
        let mut left = HashMap::with_hasher(hasher());
        let mut differs = HashMap::with_hasher(hasher());
        self.differences(held, |key, held| match held {
            Held::Entry(entry)
                if others.get(&key) == Some(&entry) && self.wanted(&key).is_none() =>
            {
                left.insert(key, entry);
            }
            held => {
                differs.insert(key, held);
            }
        });
        self.others = left;
        self.differs = differs;
        self.held = held.len();
        self.held_lengths.fill(0);
        for entry in held {
            if let Some(count) = count_of::<T>(&mut self.held_lengths, &entry.key()) {
                *count += 1;
            }
        }
        self.retries.clear();
        self.plan.clear();
        self.sent.clear();
    }

    /// Forgets what another role did not let go: roles may have changed.
    pub(super) fn forget_others(&mut self) {
        self.others.clear();
    }

    /// Entries wanted.
    pub(super) fn wanted_count(&self) -> usize {
        self.wanted.len()
    }

    /// Entries on the switch.
    pub(super) const fn held_count(&self) -> usize {
        self.held
    }

    /// Differences.
    pub(super) fn pending_count(&self) -> usize {
        self.differs.len()
    }

    /// Those of them that the switch has refused.
    pub(super) fn refused_count(&self) -> usize {
        self.retries.len()
    }

    /// Whether this is an entry that another role does not let go.
    pub(super) fn is_left(&self, key: &T::Key, held: &Held<T>) -> bool {
        matches!(held, Held::Entry(entry) if self.others.get(key) == Some(entry))
    }

    /// Entries left to another role.
    pub(super) fn others_count(&self) -> usize {
        self.others.len()
    }

    /// Whether the switch holds under a key what is wanted there.
    pub(super) fn is_settled(&self, key: &T::Key) -> bool {
        !self.differs.contains_key(key)
    }

    /// What the switch holds as it is wanted.
    pub(super) fn settled(&self) -> impl Iterator<Item = &T> {
        let wanted = self.wanted.iter();
        wanted.filter(|entry| self.is_settled(&entry.key()))
    }

    /// What is wanted and not there.
    pub(super) fn missing(&self) -> impl Iterator<Item = &T::Key> {
        let missing = self.pending().filter(|(_, held)| **held == Held::Nothing);
        missing.map(|(key, _)| key)
    }

    /// Every difference.
    pub(super) fn pending(&self) -> impl Iterator<Item = (&T::Key, &Held<T>)> {
        self.differs.iter()
    }

    /// Whether a key may be written now.
    pub(super) fn is_due(&self, key: &T::Key, now: Instant) -> bool {
        self.retries.get(key).is_none_or(|retry| retry.at <= now)
    }

    /// Whether the switch has refused what is wanted under a key.
    pub(super) fn is_refused(&self, key: &T::Key) -> bool {
        self.retries.contains_key(key)
    }

    /// Whether a key may be parked now.
    pub(super) fn may_park(&self, key: &T::Key, now: Instant) -> bool {
        let retry = self.retries.get(key);
        retry.is_none_or(|retry| !retry.unparked || retry.at <= now)
    }

    /// When the next refused update is due after a moment. What was due then, and was not
    /// written, waits for others.
    pub(super) fn next_retry(&self, after: Instant) -> Option<Instant> {
        let due = self.retries.values().map(|retry| retry.at);
        due.filter(|at| *at > after).min()
    }

    /// Nothing is due: forgets refusals to park what need not be parked any more.
    pub(super) fn forget_needless_retries(&mut self, now: Instant) {
        let Self {
            retries, differs, ..
        } = self;
        retries.retain(|key, retry| retry.at > now || differs.contains_key(key));
    }

    /// Whether any prefix of that length is wanted or on the switch.
    pub(super) fn has_length(&self, length: u8) -> bool {
        self.wants_length(length) || self.holds_length(length)
    }

    fn wants_length(&self, length: u8) -> bool {
        let wanted = self.wanted_lengths.get(usize::from(length));
        wanted.is_some_and(|count| *count > 0)
    }

    /// Whether any prefix of that length is on the switch.
    pub(super) fn holds_length(&self, length: u8) -> bool {
        let held = self.held_lengths.get(usize::from(length));
        held.is_some_and(|count| *count > 0)
    }

    /// Notes a write under way.
    pub(super) fn send(&mut self, key: T::Key, entry: Option<T>) {
        self.sent.push((key, entry));
    }

    /// The write under way, once.
    pub(super) fn take_sent(&mut self) -> Vec<(T::Key, Option<T>)> {
        std::mem::take(&mut self.sent)
    }

    /// An update was done.
    pub(super) fn done(&mut self, key: T::Key, entry: Option<T>) {
        self.retries.remove(&key);
        self.parked(key, entry);
    }

    /// An entry was parked: what the switch has refused to do with it is no nearer.
    pub(super) fn parked(&mut self, key: T::Key, entry: Option<T>) {
        self.settle(key, entry.map_or(Held::Nothing, Held::Entry));
    }

    /// The switch has no entry there, or one of unknown content, whatever was thought. The
    /// first time that is tried again at once.
    pub(super) fn mistaken(&mut self, key: T::Key, held: Held<T>, now: Instant) {
        let before = self.retries.remove(&key).map(|retry| retry.delay);
        self.settle(key, held);
        if !self.is_settled(&key) {
            let delay = before.map_or(Duration::ZERO, longer);
            self.retries.insert(key, Retry::after(now, delay));
        }
    }

    /// The switch refused; returns after how long it is tried again.
    pub(super) fn refused(&mut self, key: T::Key, now: Instant) -> Duration {
        let before = self.retries.get(&key);
        let delay = before.map_or(RETRY_FIRST, |retry| longer(retry.delay));
        self.retries.insert(key, Retry::after(now, delay));
        delay
    }

    /// The switch did not let an entry be parked. It is tried again when the entry itself is.
    pub(super) fn unparked(&mut self, key: T::Key, now: Instant) -> Duration {
        if self.is_due(&key, now) {
            self.refused(key, now);
        }
        let Some(retry) = self.retries.get_mut(&key) else {
            return RETRY_FIRST;
        };
        retry.unparked = true;
        retry.at.duration_since(now)
    }

    /// Another role does not let go of an entry that nobody here wants: it stays.
    pub(super) fn leave(&mut self, key: T::Key) {
        self.retries.remove(&key);
        if let Some(Held::Entry(entry)) = self.differs.remove(&key) {
            self.others.insert(key, entry);
        }
    }
}
