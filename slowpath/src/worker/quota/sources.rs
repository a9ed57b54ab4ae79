//! What each source has, of all workers together: a table without a lock.
//!
//! ```text
//!   (VPC, address) ── keyed hash ──▶ two buckets of four slots, a cache line each
//!   slot: [ tag | pending | uses | live ]  [ when its next connection would be on time ]
//! ```
//!
//! A source is its hash's 31 bits in one of its two buckets, so that two sources are taken for one
//! once in 500 million times. Every change of a slot is one compare-and-swap of its first word,
//! whose uses are counted: what was idle when it was looked at is still so when it is taken.
//!
//! Two workers that meet a source for the first time at once must not both have a slot for it.
//! Each takes one as *pending*, then looks again; who sees another slot of that source gives its
//! own up. Of two, one at least sees the other.

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use shunt_p4::VpcId;

use crate::conntrack::{KeyHasher, words};

/// Slots of a bucket.
const WAYS: usize = 4;
/// Slots for each source that is to be known: a source has a choice of eight.
const SLOTS_EACH: usize = 2;
/// How often a slot is tried for that other workers change meanwhile.
const TRIES: usize = 64;

/// Connections: 24 bits.
const LIVE: u64 = 0xff_ffff;
/// Counts the word's changes, 8 bits.
const USE: u64 = 1 << 24;
const USES: u64 = 0xff * USE;
/// A worker looks whether another one has begun with the same source.
const PENDING: u64 = 1 << 32;
const TAG_SHIFT: u32 = 33;

pub(super) type Source = (VpcId, IpAddr);

#[derive(Debug, Default)]
struct Slot {
    /// Tag, pending, uses, live; 0: free.
    word: AtomicU64,
    /// See [`pass`].
    due_ns: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([Slot; WAYS]);

const _: () = assert!(size_of::<Bucket>() == 64);

/// The word with one connection more, or one less.
const fn with_live(word: u64, live: u64) -> u64 {
    word & !(LIVE | USES) | word.wrapping_add(USE) & USES | live
}

/// Where a source is, or could be.
enum Place<'a> {
    Known(&'a Slot, u64),
    Free(&'a Slot, u64),
    /// Another worker is about to begin with it.
    Pending,
    Nowhere,
}

/// What became of a connection that was to be counted.
pub(super) enum Entered<'a> {
    /// Counted.
    In(Counting<'a>),
    /// The source has as many as it may.
    Full,
    /// Too many sources are known of.
    NoRoom,
}

/// A source that has a connection at least.
pub(super) struct Counting<'a>(&'a Slot);

impl Counting<'_> {
    /// Whether one more connection keeps to the source's rate; counts it if so.
    pub(super) fn pass(&self, now_ns: u64, rate: u32) -> bool {
        pass(&self.0.due_ns, now_ns, rate, true)
    }

    /// One connection less.
    pub(super) fn leave(&self) {
        let less = |word| Some(with_live(word, (word & LIVE).saturating_sub(1)));
        // The closure never refuses.
        let _ = self.0.word.fetch_update(SeqCst, Relaxed, less);
    }
}

/// Sources and what they have.
#[derive(Debug)]
pub(super) struct Sources {
    buckets: Box<[Bucket]>,
    hasher: KeyHasher,
}

impl Sources {
    pub(super) fn new(sources: u32, seed: u64) -> Self {
        let buckets = (sources as usize * SLOTS_EACH).div_ceil(WAYS).max(1);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            hasher: KeyHasher::new(seed),
        }
    }

    /// Its slots, and its tag where that stands in a word.
    fn slots(&self, (vpc, address): Source) -> (impl Iterator<Item = &Slot>, u64) {
        let rest = u64::from(vpc.get()) << 1 | u64::from(address.is_ipv6());
        let hash = self.hasher.words(words(address), [rest, 0], 3);
        let upper = (hash >> 32) as u32;
        let of = |part: u32| ((u64::from(part) * self.buckets.len() as u64) >> 32) as usize;
        let first = of(upper);
        let second = Some(of(upper.wrapping_mul(0x9e37_79b1))).filter(|at| *at != first);
        let places = std::iter::once(first).chain(second);
        let slots = places.filter_map(|at| self.buckets.get(at));
        let tag = (hash & 0x7fff_ffff).max(1) << TAG_SHIFT;
        (slots.flat_map(|bucket| &bucket.0), tag)
    }

    fn find(&self, now_ns: u64, source: Source) -> Place<'_> {
        let (slots, tag) = self.slots(source);
        let mut free = None;
        for slot in slots {
            let word = slot.word.load(SeqCst);
            if is_of(word, tag) {
                return match word & PENDING {
                    0 => Place::Known(slot, word),
                    _ => Place::Pending,
                };
            }
            // It says nothing that a free one would not.
            let idle = word & (LIVE | PENDING) == 0 && slot.due_ns.load(SeqCst) <= now_ns;
            if free.is_none() && (word == 0 || idle) {
                free = Some((slot, word));
            }
        }
        free.map_or(Place::Nowhere, |(slot, word)| Place::Free(slot, word))
    }

    /// Counts a connection of a source that may have `max`.
    pub(super) fn enter(&self, now_ns: u64, max: Option<u32>, source: Source) -> Entered<'_> {
        let max = max.map_or(LIVE, |max| u64::from(max).min(LIVE));
        for _ in 0..TRIES {
            match self.find(now_ns, source) {
                Place::Known(_, word) if word & LIVE >= max => return Entered::Full,
                Place::Known(slot, word) => {
                    let more = with_live(word, (word & LIVE) + 1);
                    if swap(slot, word, more) {
                        return Entered::In(Counting(slot));
                    }
                }
                Place::Free(..) if max == 0 => return Entered::Full,
                Place::Free(slot, word) => {
                    let (all, tag) = self.slots(source);
                    if !swap(slot, word, tag | PENDING) {
                        continue;
                    }
                    let mut others = all.filter(|other| !std::ptr::eq(*other, slot));
                    if others.any(|other| is_of(other.word.load(SeqCst), tag)) {
                        slot.word.store(0, SeqCst);
                        continue;
                    }
                    slot.word.store(tag | 1, SeqCst);
                    return Entered::In(Counting(slot));
                }
                Place::Pending => std::hint::spin_loop(),
                Place::Nowhere => return Entered::NoRoom,
            }
        }
        // Refused rather than not counted: its sender tries again.
        Entered::Full
    }

    /// A connection that was counted has ended.
    pub(super) fn leave(&self, source: Source) {
        let (mut slots, tag) = self.slots(source);
        if let Some(slot) = slots.find(|slot| is_of(slot.word.load(SeqCst), tag)) {
            Counting(slot).leave();
        }
    }

    /// Connections of a source, and whether one more would keep to `rate`; those of a new one if
    /// it is not known. `None`: there is no room for it.
    pub(super) fn ask(
        &self,
        now_ns: u64,
        rate: Option<u32>,
        source: Source,
    ) -> Option<(u32, bool)> {
        match self.find(now_ns, source) {
            Place::Known(slot, word) => {
                let on_time = |rate| pass(&slot.due_ns, now_ns, rate, false);
                Some(((word & LIVE) as u32, rate.is_none_or(on_time)))
            }
            Place::Free(..) | Place::Pending => Some((0, rate != Some(0))),
            Place::Nowhere => None,
        }
    }
}

fn is_of(word: u64, tag: u64) -> bool {
    word >> TAG_SHIFT == tag >> TAG_SHIFT
}

fn swap(slot: &Slot, from: u64, to: u64) -> bool {
    let swapped = slot.word.compare_exchange(from, to, SeqCst, Relaxed);
    swapped.is_ok()
}

/// Whether one more keeps to a rate a second; counts it if so, and if `takes`. A tenth of a
/// second's may come at once. `due_ns`: when the next one would be on time, had all been evenly
/// spaced (the generic cell rate algorithm of ITU-T I.371, in its virtual-scheduling form).
pub(super) fn pass(due_ns: &AtomicU64, now_ns: u64, rate: u32, takes: bool) -> bool {
    if rate == 0 {
        return false;
    }
    // Rounded up, so that never more than the rate go: a thousandth less at 3 million a second.
    let spacing_ns = 1_000_000_000u64.div_ceil(rate.into());
    let early_ns = u64::from((rate / 10).max(1) - 1) * spacing_ns;
    let next = |due: u64| {
        let due = due.max(now_ns);
        (due - now_ns <= early_ns).then_some(due + spacing_ns)
    };
    match takes {
        true => due_ns.fetch_update(SeqCst, SeqCst, next).is_ok(),
        false => next(due_ns.load(SeqCst)).is_some(),
    }
}
