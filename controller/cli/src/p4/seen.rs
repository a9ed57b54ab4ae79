//! A table's entries as they were seen last, against which the next read is compared entry by
//! entry. Keys and what they lead to are kept as encoded messages: one compact copy.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;

use p4runtime::named::NamedError;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4::v1::update::Type;
use p4runtime::p4info::P4InfoIndex;
use prost::Message as _;

use super::diff::{Change, Item};

type Bytes = Box<[u8]>;

/// What was seen, by key.
#[derive(Debug, Default)]
pub(super) struct Seen {
    entries: HashMap<Bytes, Last>,
    /// Which read this is; reads alternate.
    odd: bool,
}

#[derive(Debug)]
struct Last {
    rest: Bytes,
    /// The read that saw it last.
    odd: bool,
}

impl Seen {
    /// Takes a canonical entity of the read that is under way; what it changes, if anything.
    pub(super) fn entity(
        &mut self,
        entity: pb::Entity,
        index: &P4InfoIndex,
    ) -> Result<Option<Change>, NamedError> {
        let Some(Kind::TableEntry(mut entry)) = entity.entity else {
            return Ok(None);
        };
        // What packets change is no change of the table.
        entry.counter_data = None;
        entry.meter_counter_data = None;
        entry.time_since_last_hit = None;
        let key = pb::TableEntry {
            table_id: entry.table_id,
            priority: entry.priority,
            is_default_action: entry.is_default_action,
            r#match: std::mem::take(&mut entry.r#match),
            ..Default::default()
        };
        entry.table_id = 0;
        entry.priority = 0;
        entry.is_default_action = false;
        let rest: Bytes = entry.encode_to_vec().into();
        let (r#type, before) = match self.entries.entry(key.encode_to_vec().into()) {
            Place::Vacant(place) => {
                place.insert(Last {
                    rest: rest.clone(),
                    odd: self.odd,
                });
                (Type::Insert, None)
            }
            Place::Occupied(mut place) => {
                let last = place.get_mut();
                last.odd = self.odd;
                if last.rest == rest {
                    return Ok(None);
                }
                let before = std::mem::replace(&mut last.rest, rest.clone());
                (Type::Modify, Some(before))
            }
        };
        let item = |rest: &[u8]| Item::new(whole(&key.encode_to_vec(), rest), index);
        Ok(Some(Change {
            r#type,
            before: before
                .map(|rest| item(&rest))
                .transpose()?
                .map(|item| item.line),
            item: item(&rest)?,
        }))
    }

    /// The read is over: what it did not see is gone.
    pub(super) fn end(&mut self, index: &P4InfoIndex) -> Result<Vec<Change>, NamedError> {
        let odd = self.odd;
        let gone = self.entries.extract_if(|_, last| last.odd != odd);
        let mut gone: Vec<pb::Entity> = gone.map(|(key, last)| whole(&key, &last.rest)).collect();
        self.odd = !odd;
        super::order::sort(&mut gone, index);
        let removed = gone.into_iter().map(|entity| {
            Ok(Change {
                r#type: Type::Delete,
                item: Item::new(entity, index)?,
                before: None,
            })
        });
        removed.collect()
    }
}

/// The entry that was taken apart: messages merge by being one after the other.
fn whole(key: &[u8], rest: &[u8]) -> pb::Entity {
    // Both were encoded here.
    let entry = pb::TableEntry::decode([key, rest].concat().as_slice()).unwrap_or_default();
    pb::Entity {
        entity: Some(Kind::TableEntry(entry)),
    }
}

#[cfg(test)]
mod tests {
    use p4runtime::named::{Purpose, parse_line};
    use proptest::prelude::*;

    use super::super::diff::diff;
    use super::*;

    fn index() -> P4InfoIndex {
        P4InfoIndex::from_text(
            r#"
            tables {
              preamble { id: 1 name: "acl" }
              match_fields { id: 1 name: "port" bitwidth: 8 match_type: TERNARY }
              action_refs { id: 2 }
            }
            actions { preamble { id: 2 name: "send" } params { id: 1 name: "to" bitwidth: 8 } }
            "#,
        )
        .unwrap()
    }

    /// A table by its keys: port (0: any) and priority to an action's argument.
    type Content = std::collections::BTreeMap<(u8, u8), u8>;

    fn entities(content: &Content, index: &P4InfoIndex) -> Vec<pb::Entity> {
        let entity = |((port, priority), to): (&(u8, u8), &u8)| {
            let port = match port {
                0 => "*".to_owned(),
                port => port.to_string(),
            };
            let line = format!(
                "acl port={port} do send to={to} --priority {}",
                priority + 1
            );
            parse_line(&line, index, Purpose::Write).unwrap()
        };
        content.iter().map(entity).collect()
    }

    fn lines(changes: Vec<Change>) -> Vec<String> {
        let mut lines: Vec<_> = changes.iter().map(Change::line).collect();
        lines.sort();
        lines
    }

    proptest! {
        /// Entry by entry, it finds what a comparison of two whole copies finds.
        #[test]
        fn every_change_is_seen(
            reads in prop::collection::vec(
                prop::collection::btree_map((0u8..3, 0u8..3), 0u8..3, 0..8), 1..6),
        ) {
            let index = index();
            let mut seen = Seen::default();
            let mut before = Vec::new();
            for content in reads {
                let now = entities(&content, &index);
                let mut changes = Vec::new();
                for entity in now.iter().rev() {
                    changes.extend(seen.entity(entity.clone(), &index).unwrap());
                }
                changes.extend(seen.end(&index).unwrap());
                let items = |entities: &[pb::Entity]| {
                    let items = entities.iter().map(|one| Item::new(one.clone(), &index).unwrap());
                    items.collect::<Vec<_>>()
                };
                let wanted = diff(items(&before), items(&now), true);
                prop_assert_eq!(lines(changes), lines(wanted));
                before = now;
            }
        }
    }
}
