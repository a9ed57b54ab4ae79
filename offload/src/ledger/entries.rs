//! What a unit writes: table entries and their updates.

use p4runtime::p4::v1::{Entity, TableEntry, Update, entity, update};
use shunt_p4::tables::{flow_key_entry, flow_to_entry};
use shunt_p4::{FlowEntry, FlowKey};

use crate::queue::OffloadUnit;
use crate::unit::Op;

#[derive(Debug)]
pub(super) enum Entries {
    Pair(Box<[FlowEntry; 2]>),
    Orphan(FlowKey),
}

impl Entries {
    pub(super) fn keys(&self) -> [Option<FlowKey>; 2] {
        match self {
            Self::Pair(entries) => entries.each_ref().map(|entry| Some(entry.key)),
            Self::Orphan(key) => [Some(*key), None],
        }
    }

    /// The table entry for a write; `None` cannot be: addresses were checked at the start.
    pub(super) fn update(&self, index: usize, op: Op) -> Option<Update> {
        let (entry, kind) = match (self, op) {
            (Self::Pair(pair), Op::Insert) => (pair.get(index).and_then(flow_to_entry), op),
            (Self::Pair(pair), Op::Modify) => (pair.get(index).and_then(flow_to_entry), op),
            (Self::Pair(pair), Op::Delete) => (
                pair.get(index).and_then(|entry| flow_key_entry(&entry.key)),
                op,
            ),
            (Self::Orphan(key), _) => (flow_key_entry(key), Op::Delete),
        };
        let kind = match kind {
            Op::Insert => update::Type::Insert,
            Op::Modify => update::Type::Modify,
            Op::Delete => update::Type::Delete,
        };
        entry.map(|entry| to_update(kind, entry))
    }
}

/// An update of a table entry.
pub(crate) fn to_update(kind: update::Type, entry: TableEntry) -> Update {
    Update {
        r#type: kind as i32,
        entity: Some(Entity {
            entity: Some(entity::Entity::TableEntry(entry)),
        }),
    }
}

/// Two different keys, addresses of one family each.
pub(super) fn is_writable(unit: &OffloadUnit) -> bool {
    let [forward, reply] = &unit.entries;
    forward.key != reply.key
        && unit
            .entries
            .iter()
            .all(|entry| flow_to_entry(entry).is_some())
}
