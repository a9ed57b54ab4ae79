//! What the switch should hold, what it holds, and the writes that lead from one to the other.
//! Pure: time comes as an argument, and the writes are somebody else's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use p4runtime::p4::v1::{self as pb, TableEntry, update};
use shunt_p4::tables::AnyEntry;

use super::describe;
use super::lower::Change;

/// The first wait before a refused update is tried again; doubles each time.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// The longest.
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// gRPC codes that say that the switch's table is not as it was thought to be.
const NOT_FOUND: i32 = 5;
const ALREADY_EXISTS: i32 = 6;

/// A canonical key entry, encoded: the table and the match.
type Key = Box<[u8]>;

/// Stages of the dependency order: what comes later refers to what comes earlier. Traffic is
/// let in last.
const STAGES: [&[&str]; 5] = [
    &["egress_interface", "neighbor4", "neighbor6", "punt"],
    &["nexthop"],
    &["ecmp"],
    &["route4", "route6"],
    &["classify_port", "classify_vxlan"],
];

fn stage(table: &str) -> usize {
    STAGES
        .iter()
        .position(|tables| tables.contains(&table))
        .unwrap_or(0)
}

/// One update, and what becomes of the ledger when the switch acknowledges it.
#[derive(Debug)]
pub(crate) struct Sent {
    key: Key,
    entry: Option<AnyEntry>,
    /// For messages.
    what: String,
}

/// Updates that can be written together, in any order.
#[derive(Debug)]
pub(crate) struct Phase {
    /// What goes to the switch.
    pub(crate) updates: Vec<pb::Update>,
    /// What its answer is about, for [`Ledger::answered`].
    pub(crate) sent: Vec<Sent>,
}

/// An entry of the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Entry(AnyEntry),
    /// There is one of that key, but what it says is not known.
    Something,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    delay: Duration,
}

/// Wanted against held.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    wanted: HashMap<Key, AnyEntry>,
    held: HashMap<Key, Held>,
    /// Where they may differ.
    dirty: HashSet<Key>,
    retries: HashMap<Key, Retry>,
    /// Entries of the switch that no type of ours can say; to be removed.
    foreign: Vec<TableEntry>,
    /// Entries known to be held, by table.
    counts: BTreeMap<&'static str, u64>,
}

impl Ledger {
    /// Notes what is wanted from now on.
    pub(crate) fn want(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let (key, entry) = match change {
                Change::Set(entry) => (key_of(&entry.key_entry()), Some(entry)),
                Change::Remove(entry) => (key_of(&entry.key_entry()), None),
            };
            let held = match &entry {
                Some(entry) => self.held.get(&key) == Some(&Held::Entry(entry.clone())),
                None => !self.held.contains_key(&key),
            };
            match entry {
                Some(entry) => {
                    self.wanted.insert(key.clone(), entry);
                }
                None => {
                    self.wanted.remove(&key);
                }
            }
            // A change is worth a try at once.
            self.retries.remove(&key);
            if held {
                self.dirty.remove(&key);
            } else {
                self.dirty.insert(key);
            }
        }
    }

    /// Takes the switch's word for what it holds: everything, from now on.
    pub(crate) fn read_back(&mut self, entries: Vec<TableEntry>) {
        self.held.clear();
        self.counts.clear();
        self.retries.clear();
        self.foreign.clear();
        for raw in entries {
            match AnyEntry::from_entry(&raw) {
                Ok(entry) => {
                    self.hold(key_of(&entry.key_entry()), Some(Held::Entry(entry)));
                }
                Err(error) => {
                    tracing::warn!(%error, "an entry of the switch that is none of ours goes");
                    self.foreign.push(raw);
                }
            }
        }
        let wanted = self.wanted.iter();
        let missing = wanted
            .filter(|(key, entry)| match self.held.get(*key) {
                Some(Held::Entry(held)) => held != *entry,
                _ => true,
            })
            .map(|(key, _)| key.clone());
        let surplus = self
            .held
            .keys()
            .filter(|key| !self.wanted.contains_key(*key))
            .cloned();
        self.dirty = missing.chain(surplus).collect();
    }

    /// Entries wanted.
    pub(crate) fn wanted_count(&self) -> usize {
        self.wanted.len()
    }

    /// Entries that are not as they should be, or not known to be.
    pub(crate) fn pending_count(&self) -> usize {
        self.dirty.len() + self.foreign.len()
    }

    /// Those of them that the switch has refused.
    pub(crate) fn refused_count(&self) -> usize {
        self.retries.len()
    }

    /// Entries that the switch is known to hold, by table.
    pub(crate) fn held_by_table(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    fn hold(&mut self, key: Key, held: Option<Held>) {
        if let Some(Held::Entry(entry)) = &held {
            *self.counts.entry(entry.table()).or_default() += 1;
        }
        let before = match held {
            Some(held) => self.held.insert(key, held),
            None => self.held.remove(&key),
        };
        if let Some(Held::Entry(entry)) = before
            && let Some(count) = self.counts.get_mut(entry.table())
        {
            *count = count.saturating_sub(1);
        }
    }

    /// When the next refused update is due.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        self.retries.values().map(|retry| retry.at).min()
    }

    /// The next writes, or none. Entries are made from what they refer to upwards, changed in
    /// the same order, and removed in the reverse; what a refusal holds back waits.
    pub(crate) fn next_phase(&self, now: Instant) -> Option<Phase> {
        if !self.foreign.is_empty() {
            return Some(self.foreign_phase());
        }
        let due = |key: &&Key| self.retries.get(*key).is_none_or(|retry| retry.at <= now);
        // Additions by stage, then removals by stage backwards; the lowest number goes first.
        let order = |key: &Key| match self.wanted.get(key) {
            Some(entry) => Some(stage(entry.table())),
            None => match self.held.get(key)? {
                Held::Entry(entry) => Some(2 * STAGES.len() - stage(entry.table())),
                Held::Something => Some(STAGES.len()),
            },
        };
        let mut first = None;
        let mut keys: Vec<&Key> = Vec::new();
        for key in self.dirty.iter().filter(due) {
            let Some(order) = order(key) else { continue };
            if first.is_none_or(|first| order < first) {
                first = Some(order);
                keys.clear();
            }
            if first == Some(order) {
                keys.push(key);
            }
        }
        let mut phase = Phase {
            updates: Vec::with_capacity(keys.len()),
            sent: Vec::with_capacity(keys.len()),
        };
        for key in keys {
            let (kind, raw, entry) = match (self.wanted.get(key), self.held.get(key)) {
                (Some(entry), None) => (update::Type::Insert, entry.to_entry(), Some(entry)),
                (Some(entry), Some(_)) => (update::Type::Modify, entry.to_entry(), Some(entry)),
                (None, Some(Held::Entry(entry))) => (update::Type::Delete, entry.key_entry(), None),
                (None, _) => match decode_key(key) {
                    Some(raw) => (update::Type::Delete, raw, None),
                    None => continue,
                },
            };
            let what = match entry.or(match self.held.get(key) {
                Some(Held::Entry(entry)) => Some(entry),
                _ => None,
            }) {
                Some(entry) => format!("{} {}", verb(kind), describe::entry(entry)),
                None => format!("{} an entry of table {}", verb(kind), raw.table_id),
            };
            phase.updates.push(update_of(kind, raw));
            phase.sent.push(Sent {
                key: key.clone(),
                entry: entry.cloned(),
                what,
            });
        }
        (!phase.updates.is_empty()).then_some(phase)
    }

    fn foreign_phase(&self) -> Phase {
        Phase {
            updates: self
                .foreign
                .iter()
                .map(|raw| update_of(update::Type::Delete, raw.clone()))
                .collect(),
            sent: Vec::new(),
        }
    }

    /// Notes what the switch said to a phase: nothing when all went well, else one answer for
    /// each update. Returns the refusals in words.
    pub(crate) fn answered(
        &mut self,
        sent: Vec<Sent>,
        errors: Option<&[pb::Error]>,
        now: Instant,
    ) -> Vec<String> {
        let mut refusals = Vec::new();
        if sent.is_empty() {
            // Foreign entries: what could not be removed comes back with the next reading.
            self.foreign.clear();
            for error in errors.unwrap_or_default() {
                if error.canonical_code != 0 && error.canonical_code != NOT_FOUND {
                    refusals.push(format!("a foreign entry stays: {}", error.message));
                }
            }
            return refusals;
        }
        for (at, sent) in sent.into_iter().enumerate() {
            let error = errors
                .and_then(|errors| errors.get(at))
                .filter(|error| error.canonical_code != 0);
            let Some(error) = error else {
                self.acknowledged(sent);
                continue;
            };
            match error.canonical_code {
                ALREADY_EXISTS if sent.entry.is_some() && !self.held.contains_key(&sent.key) => {
                    self.hold(sent.key, Some(Held::Something));
                    continue;
                }
                NOT_FOUND if self.held.contains_key(&sent.key) => {
                    if !self.wanted.contains_key(&sent.key) {
                        self.dirty.remove(&sent.key);
                    }
                    self.hold(sent.key, None);
                    continue;
                }
                _ => {}
            }
            let delay = self
                .retries
                .get(&sent.key)
                .map_or(RETRY_FIRST, |retry| (retry.delay * 2).min(RETRY_LONGEST));
            self.retries.insert(
                sent.key,
                Retry {
                    at: now + delay,
                    delay,
                },
            );
            refusals.push(format!(
                "{}: {} (code {}); tried again in {delay:?}",
                sent.what, error.message, error.canonical_code
            ));
        }
        refusals
    }

    fn acknowledged(&mut self, sent: Sent) {
        let done = self.wanted.get(&sent.key) == sent.entry.as_ref();
        self.hold(sent.key.clone(), sent.entry.map(Held::Entry));
        self.retries.remove(&sent.key);
        if done {
            self.dirty.remove(&sent.key);
        } else {
            // Wanted otherwise meanwhile.
            self.dirty.insert(sent.key);
        }
    }
}

fn key_of(key_entry: &TableEntry) -> Key {
    prost::Message::encode_to_vec(key_entry).into_boxed_slice()
}

fn decode_key(key: &Key) -> Option<TableEntry> {
    prost::Message::decode(key.as_ref()).ok()
}

fn update_of(kind: update::Type, entry: TableEntry) -> pb::Update {
    pb::Update {
        r#type: kind.into(),
        entity: Some(pb::Entity {
            entity: Some(pb::entity::Entity::TableEntry(entry)),
        }),
    }
}

const fn verb(kind: update::Type) -> &'static str {
    match kind {
        update::Type::Insert => "insert",
        update::Type::Modify => "modify",
        update::Type::Delete => "delete",
        update::Type::Unspecified => "unspecified",
    }
}

#[cfg(test)]
mod tests;
