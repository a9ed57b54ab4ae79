//! The difference between what a switch has and what it should have.

use std::collections::HashMap;

use p4runtime::named::{Named, NamedError};
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4::v1::update::Type;
use p4runtime::p4info::P4InfoIndex;

/// An entity, what identifies it, and all of it but what the switch itself changes.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) line: String,
    pub(super) named: Named,
    pub(super) entity: pb::Entity,
}

impl Item {
    pub(super) fn new(entity: pb::Entity, index: &P4InfoIndex) -> Result<Self, NamedError> {
        let mut named = Named::of(&entity, index)?;
        if let Named::Table(entry) | Named::Default(entry) = &mut named {
            entry.counter = None;
            entry.idle_for = None;
        }
        Ok(Self {
            key: key(&named),
            line: named.to_string(),
            named,
            entity,
        })
    }
}

fn key(named: &Named) -> String {
    let index = |index: Option<i64>| index.unwrap_or(-1);
    match named {
        Named::Table(entry) => format!("table {}", entry.key()),
        Named::Default(entry) => format!("default {}", entry.table),
        Named::DirectCounter(entry) => format!("direct-counter {}", entry.key()),
        Named::DirectMeter(entry) => format!("direct-meter {}", entry.key()),
        Named::Member(member) => format!("member {} {}", member.profile, member.id),
        Named::Group(group) => format!("group {} {}", group.profile, group.id),
        Named::Counter(cell) => format!("counter {} {}", cell.counter, index(cell.index)),
        Named::Meter(cell) => format!("meter {} {}", cell.meter, index(cell.index)),
        Named::Register(cell) => format!("register {} {}", cell.register, index(cell.index)),
        Named::Multicast(group) => format!("multicast {}", group.id),
        Named::Clone(session) => format!("clone {}", session.id),
        Named::Digest(digest) => format!("digest {}", digest.digest),
        Named::ValueSet(set) => format!("value-set {}", set.value_set),
        // What of the message is its key, only the switch knows.
        Named::Extern(_) => named.to_string(),
    }
}

/// One difference.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) r#type: Type,
    pub(super) item: Item,
    /// What was there before, for a change.
    pub(super) before: Option<String>,
}

impl Change {
    /// `+`, `~` or `-` and the line.
    pub(super) fn line(&self) -> String {
        match (self.r#type, &self.before) {
            (Type::Delete, _) => format!("- {}", self.item.line),
            (Type::Modify, Some(before)) => format!("~ {}\n    was {before}", self.item.line),
            (Type::Modify, None) => format!("~ {}", self.item.line),
            _ => format!("+ {}", self.item.line),
        }
    }

    /// For JSON.
    pub(super) fn word(&self) -> &'static str {
        match self.r#type {
            Type::Delete => "delete",
            Type::Modify => "modify",
            _ => "insert",
        }
    }

    pub(super) fn update(&self) -> pb::Update {
        pb::Update {
            r#type: self.r#type.into(),
            entity: Some(self.item.entity.clone()),
        }
    }
}

/// What leads from `have` to `want`; without `prune`, what is only in `have` stays. With it,
/// entries and the like are removed, meters lose their rates and value sets their members;
/// default entries, counters and registers stay, for nothing says what they started with.
pub(super) fn diff(have: Vec<Item>, want: Vec<Item>, prune: bool) -> Vec<Change> {
    let mut left: HashMap<String, (usize, Item)> = HashMap::with_capacity(have.len());
    for (at, item) in have.into_iter().enumerate() {
        left.insert(item.key.clone(), (at, item));
    }
    let mut changes = Vec::new();
    for item in want {
        match left.remove(&item.key) {
            Some((_, there)) if there.line == item.line => {}
            Some((_, there)) => changes.push(Change {
                r#type: Type::Modify,
                item,
                before: Some(there.line),
            }),
            None => changes.push(Change {
                r#type: if is_fixed(&item.named) {
                    Type::Modify
                } else {
                    Type::Insert
                },
                item,
                before: None,
            }),
        }
    }
    if prune {
        let mut surplus: Vec<(usize, Item)> = left.into_values().collect();
        surplus.sort_by_key(|(at, _)| *at);
        changes.extend(surplus.into_iter().filter_map(|(_, item)| removal(item)));
    }
    changes
}

/// How an item is removed that nobody wants, if it can be.
fn removal(mut item: Item) -> Option<Change> {
    let before = item.line.clone();
    let emptied = match (&mut item.named, item.entity.entity.as_mut()?) {
        (Named::Meter(cell), Kind::MeterEntry(wire)) => {
            wire.config = None;
            cell.rates.take().is_some()
        }
        (Named::ValueSet(set), Kind::ValueSetEntry(wire)) => {
            wire.members.clear();
            !std::mem::take(&mut set.members).is_empty()
        }
        (named, _) if is_fixed(named) => false,
        _ => {
            return Some(Change {
                r#type: Type::Delete,
                item,
                before: None,
            });
        }
    };
    item.line = item.named.to_string();
    emptied.then_some(Change {
        r#type: Type::Modify,
        item,
        before: Some(before),
    })
}

/// Whether it is there for as long as the pipeline is.
fn is_fixed(named: &Named) -> bool {
    matches!(
        named,
        Named::Default(_)
            | Named::Counter(_)
            | Named::DirectCounter(_)
            | Named::Meter(_)
            | Named::DirectMeter(_)
            | Named::Register(_)
            | Named::ValueSet(_)
    )
}

#[cfg(test)]
mod tests {
    use p4runtime::named::{Purpose, parse_line};

    use super::*;

    /// An extern's entry has no key that anybody but the switch knows: it is there or not.
    #[test]
    fn entries_of_externs_are_inserted_and_removed() {
        let index = P4InfoIndex::from_text(
            r#"externs {
              extern_type_id: 0x81 extern_type_name: "Cache"
              instances { preamble { id: 0x81000001 name: "in.cache" alias: "cache" } }
            }"#,
        )
        .unwrap();
        let items = |bytes: &[&str]| -> Vec<Item> {
            let item = |bytes: &&str| {
                let line =
                    format!("extern Cache.cache --type-url example.com/Entry --bytes-hex {bytes}");
                let entity = parse_line(&line, &index, Purpose::Write).unwrap();
                Item::new(entity, &index).unwrap()
            };
            bytes.iter().map(item).collect()
        };
        let changes = diff(items(&["01", "02"]), items(&["02", "03"]), true);
        let shown: Vec<_> = changes.iter().map(Change::line).collect();
        let line = |sign, bytes| {
            format!("{sign} extern Cache.cache --type-url example.com/Entry --bytes-hex {bytes}")
        };
        assert_eq!(shown, [line('+', "03"), line('-', "01")]);
        let kinds: Vec<_> = changes
            .iter()
            .map(|change| change.update().r#type)
            .collect();
        assert_eq!(kinds, [Type::Insert as i32, Type::Delete as i32]);
    }
}
