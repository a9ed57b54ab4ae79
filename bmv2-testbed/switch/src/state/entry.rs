//! A table entry: its head and its bytes (key, mask, arguments) in one allocation.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use triomphe::ThinArc;

use super::Counter;
use super::meter::Meter;
use super::profile::{Call, OneShot};
use crate::program::table::Pattern;

/// What identifies an entry in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key<'a> {
    pub(crate) value: &'a [u8],
    /// Empty in an exact table.
    pub(crate) mask: &'a [u8],
    /// Of the LPM field, in an LPM table.
    pub(crate) prefix: u16,
    /// 0 in exact and LPM tables.
    pub(crate) priority: i32,
}

impl<'a> From<&'a Pattern> for Key<'a> {
    fn from(pattern: &'a Pattern) -> Self {
        Self {
            value: &pattern.value,
            mask: &pattern.mask,
            prefix: pattern.prefix,
            priority: pattern.priority,
        }
    }
}

/// What an entry does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// The action at this slot of the table, with packed arguments.
    Call {
        slot: u16,
        args: &'a [u8],
    },
    Member(u32),
    Group(u32),
    OneShot(&'a OneShot),
}

/// What an entry of a table with an action profile does.
#[derive(Debug)]
pub(crate) enum Indirect {
    Member(u32),
    Group(u32),
    OneShot(OneShot),
}

/// What few entries have.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) controller_metadata: u64,
    pub(crate) metadata: Box<[u8]>,
    /// Brought by the program.
    pub(crate) is_const: bool,
    /// Only in a table with a direct meter.
    pub(crate) meter: Option<Mutex<Meter>>,
    /// Only in a table with an action profile.
    pub(crate) indirect: Option<Indirect>,
}

impl Rare {
    /// Whether there is anything of it.
    pub(crate) fn needed(&self) -> bool {
        self.controller_metadata != 0
            || !self.metadata.is_empty()
            || self.is_const
            || self.meter.is_some()
            || self.indirect.is_some()
    }
}

#[derive(Debug)]
struct Head {
    counter: Counter,
    /// When a packet last used the entry (at first: when it was written).
    last_hit_ns: AtomicU64,
    /// 0 never times out.
    idle_timeout_ns: u64,
    priority: i32,
    prefix: u16,
    slot: u16,
    key_bytes: u16,
    /// As long as the key, or 0.
    mask_bytes: u16,
    rare: Option<Box<Rare>>,
}

/// How an entry is made.
#[derive(Debug, Default)]
pub(crate) struct Spec<'a> {
    /// The key's value, its mask if it has one, and the arguments, one after another.
    pub(crate) bytes: &'a [u8],
    pub(crate) key_bytes: u16,
    pub(crate) mask_bytes: u16,
    pub(crate) prefix: u16,
    pub(crate) priority: i32,
    pub(crate) slot: u16,
    pub(crate) idle_timeout_ns: u64,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) now_ns: u64,
}

/// One entry. Clones are the same entry.
#[derive(Clone)]
pub(crate) struct Entry(ThinArc<Head, u8>);

impl Entry {
    /// A fresh entry.
    pub(crate) fn new(spec: Spec<'_>) -> Self {
        let head = Head {
            counter: Counter::default(),
            last_hit_ns: AtomicU64::new(spec.now_ns),
            idle_timeout_ns: spec.idle_timeout_ns,
            priority: spec.priority,
            prefix: spec.prefix,
            slot: spec.slot,
            key_bytes: spec.key_bytes,
            mask_bytes: spec.mask_bytes,
            rare: spec.rare,
        };
        Self(ThinArc::from_header_and_slice(head, spec.bytes))
    }

    /// A fresh entry that calls an action; of an indirect one the call is empty.
    pub(crate) fn with_call(pattern: &Pattern, call: &Call, spec: Spec<'_>) -> Self {
        let bytes = [&*pattern.value, &*pattern.mask, &*call.args].concat();
        Self::new(Spec {
            bytes: &bytes,
            // A key is at most MAX_KEY_BYTES long.
            key_bytes: pattern.value.len() as u16,
            mask_bytes: pattern.mask.len() as u16,
            prefix: pattern.prefix,
            priority: pattern.priority,
            slot: call.slot,
            ..spec
        })
    }

    #[inline]
    fn head(&self) -> &Head {
        &self.0.header.header
    }

    #[inline]
    fn part(&self, from: u16, bytes: u16) -> &[u8] {
        let from = usize::from(from);
        let all = &self.0.slice;
        all.get(from..from + usize::from(bytes)).unwrap_or_default()
    }

    /// The packed values of the match fields.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        self.part(0, self.head().key_bytes)
    }

    /// The packed masks; empty in an exact table. Of a range field it is the upper end.
    #[inline]
    pub(crate) fn mask(&self) -> &[u8] {
        self.part(self.head().key_bytes, self.head().mask_bytes)
    }

    pub(crate) fn prefix(&self) -> u16 {
        self.head().prefix
    }

    pub(crate) fn priority(&self) -> i32 {
        self.head().priority
    }

    /// What identifies it.
    pub(crate) fn key(&self) -> Key<'_> {
        Key {
            value: self.value(),
            mask: self.mask(),
            prefix: self.prefix(),
            priority: self.priority(),
        }
    }

    /// What identifies it, as a value of its own.
    pub(crate) fn pattern(&self) -> Pattern {
        Pattern {
            value: self.value().into(),
            mask: self.mask().into(),
            prefix: self.prefix(),
            priority: self.priority(),
        }
    }

    /// What it does.
    #[inline]
    pub(crate) fn target(&self) -> Target<'_> {
        let head = self.head();
        match head.rare.as_ref().and_then(|r| r.indirect.as_ref()) {
            None => {
                let from = usize::from(head.key_bytes) + usize::from(head.mask_bytes);
                Target::Call {
                    slot: head.slot,
                    args: self.0.slice.get(from..).unwrap_or_default(),
                }
            }
            Some(Indirect::Member(id)) => Target::Member(*id),
            Some(Indirect::Group(id)) => Target::Group(*id),
            Some(Indirect::OneShot(set)) => Target::OneShot(set),
        }
    }

    pub(crate) fn counter(&self) -> &Counter {
        &self.head().counter
    }

    /// Its direct meter, in a table that has one.
    #[inline]
    pub(crate) fn meter(&self) -> Option<&Mutex<Meter>> {
        self.head().rare.as_ref()?.meter.as_ref()
    }

    pub(crate) fn is_const(&self) -> bool {
        self.head().rare.as_ref().is_some_and(|r| r.is_const)
    }

    pub(crate) fn controller_metadata(&self) -> u64 {
        let rare = self.head().rare.as_ref();
        rare.map_or(0, |r| r.controller_metadata)
    }

    pub(crate) fn metadata(&self) -> &[u8] {
        let rare = self.head().rare.as_ref();
        rare.map_or(&[], |r| &r.metadata)
    }

    /// 0 never times out.
    pub(crate) fn idle_timeout_ns(&self) -> u64 {
        self.head().idle_timeout_ns
    }

    /// Counts packets with their bytes, if the table `counts`, and notes when they came.
    #[inline]
    pub(crate) fn hit(&self, counts: bool, packets: u64, bytes: u64, now_ns: u64) {
        let head = self.head();
        if counts {
            head.counter.count(packets, bytes);
        }
        head.last_hit_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Nanoseconds since the last packet.
    pub(crate) fn idle_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.head().last_hit_ns.load(Ordering::Relaxed))
    }

    /// When it is idle for as long as its timeout, if no packet comes; never: `u64::MAX`.
    pub(crate) fn due_ns(&self) -> u64 {
        match self.head().idle_timeout_ns {
            0 => u64::MAX,
            timeout => {
                let last = self.head().last_hit_ns.load(Ordering::Relaxed);
                last.saturating_add(timeout)
            }
        }
    }

    /// Takes over the counts and the last packet's time of the entry it replaces.
    pub(crate) fn inherit(&self, old: &Self) {
        let (packets, bytes) = old.counter().get();
        self.counter().set(packets, bytes);
        let last = old.head().last_hit_ns.load(Ordering::Relaxed);
        self.head().last_hit_ns.store(last, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key())
            .field("target", &self.target())
            .finish_non_exhaustive()
    }
}
