//! Which updates have to go before which: a switch may reorder the updates of one
//! Write (P4Runtime 12.2), so that what depends on each other goes into separate,
//! sequential ones.
//!
//! What depends on what is declared by the pipeline: `@refers_to(table, field)`
//! on match fields and parameters, a table's action profile, direct counters and
//! meters; and by the caller, where the program says nothing. What is referred to
//! is written before who refers to it, and removed after.
//!
//! ```
//! use p4runtime::named::{Purpose, parse_line};
//! use p4runtime::order::References;
//! use p4runtime::p4::v1::{Update, update::Type};
//! use p4runtime::p4info::P4InfoIndex;
//!
//! let index = P4InfoIndex::from_text(
//!     r#"
//!     tables {
//!       preamble { id: 1 name: "route" }
//!       match_fields { id: 1 name: "dst" bitwidth: 32 match_type: EXACT }
//!       action_refs { id: 3 }
//!     }
//!     tables {
//!       preamble { id: 2 name: "nexthop" }
//!       match_fields { id: 1 name: "id" bitwidth: 16 match_type: EXACT }
//!       action_refs { id: 4 }
//!     }
//!     actions {
//!       preamble { id: 3 name: "via" }
//!       params { id: 1 name: "nexthop" bitwidth: 16 annotations: "@refers_to(nexthop, id)" }
//!     }
//!     actions { preamble { id: 4 name: "send" } }
//!     "#,
//! )?;
//! let insert = |line| -> Result<Update, p4runtime::named::NamedError> {
//!     Ok(Update {
//!         r#type: Type::Insert.into(),
//!         entity: Some(parse_line(line, &index, Purpose::Write)?),
//!     })
//! };
//! let updates = [insert("route dst=10.0.0.1 do via nexthop=7")?, insert("nexthop id=7 do send")?];
//! assert_eq!(References::of(&index).waves(&updates), [vec![1], vec![0]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::p4::v1 as pb;
use crate::p4::v1::entity::Entity as Kind;
use crate::p4info::{P4InfoError, P4InfoIndex, Reference, ReferredTo};
use crate::value::EntryKey;

/// A kind of thing that entries may refer to, or may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Object {
    Table(u32),
    Members(u32),
    Groups(u32),
    Multicast,
    Clones,
    Direct(u32),
    Other,
}

/// What of a pipeline refers to what.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// Who refers, to what.
    edges: HashMap<Object, HashSet<Object>>,
    ranks: HashMap<Object, usize>,
}

impl References {
    /// What the P4Info declares.
    pub fn of(index: &P4InfoIndex) -> Self {
        let mut this = Self::default();
        for table in index.tables() {
            let from = Object::Table(table.id);
            let fields = table.match_fields.iter().flat_map(|field| &field.refers_to);
            let actions = table.actions.iter();
            let actions = actions.filter_map(|action| index.action_by_id(action.id).ok());
            let params = actions.flat_map(|action| &action.params);
            let params = params.flat_map(|param| &param.refers_to);
            // The actions of a table with an action profile are its members'.
            let holder = table.implementation.map_or(from, Object::Members);
            for reference in fields {
                this.add(from, object_of(reference, index));
            }
            for reference in params {
                this.add(holder, object_of(reference, index));
                // One-shot actions are in the entry itself.
                this.add(from, object_of(reference, index));
            }
            if let Some(profile) = table.implementation {
                this.add(from, Some(Object::Groups(profile)));
                this.add(from, Some(Object::Members(profile)));
                this.add(Object::Groups(profile), Some(Object::Members(profile)));
            }
        }
        this.rank();
        this
    }

    /// Adds that entries of one table refer to entries of another, where the
    /// program does not say so.
    ///
    /// # Errors
    /// [`P4InfoError::UnknownName`].
    pub fn declare(
        mut self,
        index: &P4InfoIndex,
        from: &str,
        to: &str,
    ) -> Result<Self, P4InfoError> {
        let from = Object::Table(index.table(from)?.id);
        let to = Object::Table(index.table(to)?.id);
        self.add(from, Some(to));
        self.rank();
        Ok(self)
    }

    fn add(&mut self, from: Object, to: Option<Object>) {
        if let Some(to) = to.filter(|to| *to != from) {
            self.edges.entry(from).or_default().insert(to);
        }
    }

    /// The longest chain of references from each object. Objects that refer to
    /// each other in a circle have no order among themselves.
    fn rank(&mut self) {
        let mut ranks = HashMap::new();
        let mut objects: Vec<Object> = self.edges.keys().copied().collect();
        objects.sort_unstable();
        for object in objects {
            self.rank_of(object, &mut ranks, &mut HashSet::new());
        }
        self.ranks = ranks;
    }

    fn rank_of(
        &self,
        object: Object,
        ranks: &mut HashMap<Object, usize>,
        open: &mut HashSet<Object>,
    ) -> usize {
        if let Some(rank) = ranks.get(&object) {
            return *rank;
        }
        if !open.insert(object) {
            return 0;
        }
        let mut targets: Vec<Object> = self
            .edges
            .get(&object)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        targets.sort_unstable();
        let below = targets
            .into_iter()
            .map(|to| self.rank_of(to, ranks, open) + 1);
        let rank = below.max().unwrap_or(0);
        open.remove(&object);
        ranks.insert(object, rank);
        rank
    }

    /// The updates' places in waves: within a wave no update depends on another,
    /// and every wave depends only on those before. One wave if nothing does.
    /// A second update of one key waits for the first.
    pub fn waves(&self, updates: &[pb::Update]) -> Vec<Vec<usize>> {
        let mut waves = Vec::new();
        let mut run: Vec<usize> = Vec::new();
        let mut keys = HashSet::new();
        for (at, update) in updates.iter().enumerate() {
            if let Some(key) = key_of(update)
                && !keys.insert(key)
            {
                waves.extend(self.waves_of_run(updates, &std::mem::take(&mut run)));
                keys.clear();
                keys.extend(key_of(update));
            }
            run.push(at);
        }
        waves.extend(self.waves_of_run(updates, &run));
        waves
    }

    /// Of updates with a key each of their own.
    fn waves_of_run(&self, updates: &[pb::Update], run: &[usize]) -> Vec<Vec<usize>> {
        let mut waves: BTreeMap<(bool, usize), Vec<usize>> = BTreeMap::new();
        let deepest = self.ranks.values().copied().max().unwrap_or(0);
        for at in run {
            let Some(update) = updates.get(*at) else {
                continue;
            };
            let object = object_of_update(update);
            let wave = match self.ranks.get(&object).copied() {
                // After the entries that they are of.
                _ if matches!(object, Object::Direct(_)) => (false, deepest + 1),
                // Neither refers nor is referred to: any wave will do.
                None => (false, 0),
                Some(rank) if update.r#type() == pb::update::Type::Delete => (true, deepest - rank),
                Some(rank) => (false, rank),
            };
            waves.entry(wave).or_default().push(*at);
        }
        waves.into_values().collect()
    }
}

fn object_of(reference: &Reference, index: &P4InfoIndex) -> Option<Object> {
    match &reference.to {
        ReferredTo::Table(name) => index.table(name).ok().map(|table| Object::Table(table.id)),
        ReferredTo::MulticastGroups => Some(Object::Multicast),
        ReferredTo::CloneSessions => Some(Object::Clones),
    }
}

fn object_of_update(update: &pb::Update) -> Object {
    use pb::packet_replication_engine_entry::Type;
    match update
        .entity
        .as_ref()
        .and_then(|entity| entity.entity.as_ref())
    {
        Some(Kind::TableEntry(entry)) => Object::Table(entry.table_id),
        Some(Kind::ActionProfileMember(member)) => Object::Members(member.action_profile_id),
        Some(Kind::ActionProfileGroup(group)) => Object::Groups(group.action_profile_id),
        Some(Kind::DirectCounterEntry(counter)) => direct(counter.table_entry.as_ref()),
        Some(Kind::DirectMeterEntry(meter)) => direct(meter.table_entry.as_ref()),
        Some(Kind::PacketReplicationEngineEntry(entry)) => match entry.r#type {
            Some(Type::MulticastGroupEntry(_)) => Object::Multicast,
            Some(Type::CloneSessionEntry(_)) => Object::Clones,
            None => Object::Other,
        },
        _ => Object::Other,
    }
}

fn direct(entry: Option<&pb::TableEntry>) -> Object {
    entry.map_or(Object::Other, |entry| Object::Direct(entry.table_id))
}

/// What two updates have in common that are about one thing.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Entry(Object, EntryKey),
    Numbered(Object, u32),
}

fn key_of(update: &pb::Update) -> Option<Key> {
    use pb::packet_replication_engine_entry::Type;
    let object = object_of_update(update);
    let entry = |entry: &pb::TableEntry| Key::Entry(object, EntryKey::of(entry));
    match update.entity.as_ref()?.entity.as_ref()? {
        Kind::TableEntry(wire) => Some(entry(wire)),
        Kind::DirectCounterEntry(wire) => wire.table_entry.as_ref().map(entry),
        Kind::DirectMeterEntry(wire) => wire.table_entry.as_ref().map(entry),
        Kind::ActionProfileMember(wire) => Some(Key::Numbered(object, wire.member_id)),
        Kind::ActionProfileGroup(wire) => Some(Key::Numbered(object, wire.group_id)),
        Kind::PacketReplicationEngineEntry(wire) => match wire.r#type.as_ref()? {
            Type::MulticastGroupEntry(group) => {
                Some(Key::Numbered(object, group.multicast_group_id))
            }
            Type::CloneSessionEntry(session) => Some(Key::Numbered(object, session.session_id)),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
