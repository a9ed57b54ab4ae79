//! A look-up as a Read: by the key where that is possible, else the table as a whole.

use std::collections::BTreeMap;

use p4runtime::client::Client;
use p4runtime::p4::v1::{
    ActionProfileGroup, ActionProfileMember, Entity, FieldMatch, TableEntry, entity, field_match,
    table_action,
};
use p4runtime::p4info::{MatchField, MatchKind, P4InfoIndex, Table};
use p4runtime::value::{decode, encode, parse_value, prefix_mask};

use super::{ENTRIES_MAX, WalkError, rank};

/// Match fields: id, value, and the length of a prefix.
type Key = Vec<(u32, Vec<u8>, Option<i32>)>;

/// Entries of a table that a key may hit: the match fields of each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    table: u32,
    /// None: of the whole table.
    keys: Option<Vec<Key>>,
}

impl Question {
    pub(super) fn of(
        index: &P4InfoIndex,
        table: &str,
        key: &BTreeMap<&str, &str>,
    ) -> Result<Self, WalkError> {
        let refused = |why: String| WalkError::Key {
            table: table.to_owned(),
            why,
        };
        let found = index
            .table(table)
            .map_err(|error| refused(error.to_string()))?;
        let whole = Self {
            table: found.id,
            keys: None,
        };
        // A table without a key has its default entry only, which the program brings.
        if found.match_fields.is_empty() || found.is_const {
            return Ok(Self {
                table: found.id,
                keys: Some(Vec::new()),
            });
        }
        let Some(longest) = longest_prefix(found) else {
            return Ok(whole);
        };
        let mut keys = Vec::new();
        for length in 0..=longest {
            let mut fields = Vec::new();
            for field in &found.match_fields {
                let text = key.get(field.name.as_str()).copied().unwrap_or_default();
                let bytes = parse_value(text, field.bitwidth, field.format)
                    .map_err(|error| refused(format!("{} {text:?}: {error}", field.name)))?;
                match field.kind {
                    MatchKind::Exact => fields.push((field.id, bytes, None)),
                    // A prefix of no bits is left out (P4Runtime 9.1.1).
                    _ if length == 0 => {}
                    _ => {
                        let bytes = masked(field, &bytes, length).map_err(refused)?;
                        let length = i32::try_from(length).unwrap_or(i32::MAX);
                        fields.push((field.id, bytes, Some(length)));
                    }
                }
            }
            keys.push(fields);
        }
        Ok(Self {
            table: found.id,
            keys: Some(keys),
        })
    }

    /// What is asked of the switch.
    pub(super) fn entities(&self) -> Vec<Entity> {
        let entry = |fields: &[(u32, Vec<u8>, Option<i32>)]| {
            let matches = fields.iter().map(|(id, value, length)| FieldMatch {
                field_id: *id,
                field_match_type: Some(match length {
                    None => field_match::FieldMatchType::Exact(field_match::Exact {
                        value: value.clone(),
                    }),
                    Some(length) => field_match::FieldMatchType::Lpm(field_match::Lpm {
                        value: value.clone(),
                        prefix_len: *length,
                    }),
                }),
            });
            wrapped(entity::Entity::TableEntry(TableEntry {
                table_id: self.table,
                r#match: matches.collect(),
                ..Default::default()
            }))
        };
        match &self.keys {
            Some(keys) => keys.iter().map(|fields| entry(fields)).collect(),
            None => vec![entry(&[])],
        }
    }
}

/// The bits of the one field that is matched by its prefix, 0 if all are matched exactly; none:
/// entries cannot be told by the key.
fn longest_prefix(table: &Table) -> Option<u32> {
    let mut longest = 0;
    for field in &table.match_fields {
        match field.kind {
            MatchKind::Exact => {}
            MatchKind::Lpm if longest == 0 => longest = field.bitwidth,
            _ => return None,
        }
    }
    Some(longest)
}

fn masked(field: &MatchField, bytes: &[u8], length: u32) -> Result<Vec<u8>, String> {
    let value = decode(bytes, field.bitwidth).map_err(|error| error.to_string())?;
    let masked = value & prefix_mask(length, field.bitwidth);
    encode(masked, field.bitwidth).map_err(|error| error.to_string())
}

fn wrapped(entity: entity::Entity) -> Entity {
    Entity {
        entity: Some(entity),
    }
}

/// What the switch has of it, and what that refers to; in an order in which it can be inserted.
pub(super) async fn answer(
    client: &Client,
    index: &P4InfoIndex,
    asked: Vec<Entity>,
) -> Result<Vec<Entity>, WalkError> {
    let mut found = Vec::new();
    let (mut groups, mut members) = (Vec::new(), Vec::new());
    for mut entry in entries(client, asked).await? {
        let profile = index.table_by_id(entry.table_id).ok();
        let profile = profile.and_then(|table| table.implementation);
        let action = entry
            .action
            .as_ref()
            .and_then(|action| action.r#type.as_ref());
        match (profile, action) {
            (Some(profile), Some(table_action::Type::ActionProfileGroupId(group))) => {
                groups.push((profile, *group));
            }
            (Some(profile), Some(table_action::Type::ActionProfileMemberId(member))) => {
                members.push((profile, *member));
            }
            _ => {}
        }
        // What it says besides is nothing to a packet.
        entry.meter_config = None;
        entry.counter_data = None;
        entry.meter_counter_data = None;
        entry.time_since_last_hit = None;
        found.push(wrapped(entity::Entity::TableEntry(entry)));
    }
    let asked = groups.into_iter().map(|(action_profile_id, group_id)| {
        wrapped(entity::Entity::ActionProfileGroup(ActionProfileGroup {
            action_profile_id,
            group_id,
            ..Default::default()
        }))
    });
    let asked: Vec<_> = asked.collect();
    if !asked.is_empty() {
        for entity in client.read(asked).await? {
            if let Some(entity::Entity::ActionProfileGroup(group)) = &entity.entity {
                let of_group = group.members.iter();
                members.extend(of_group.map(|one| (group.action_profile_id, one.member_id)));
            }
            found.push(entity);
        }
    }
    members.sort_unstable();
    members.dedup();
    let asked = members.into_iter().map(|(action_profile_id, member_id)| {
        wrapped(entity::Entity::ActionProfileMember(ActionProfileMember {
            action_profile_id,
            member_id,
            ..Default::default()
        }))
    });
    let asked: Vec<_> = asked.collect();
    if !asked.is_empty() {
        found.extend(client.read(asked).await?);
    }
    found.sort_by_key(rank);
    Ok(found)
}

/// The entries that are there; defaults and those that the program brings are here already.
async fn entries(client: &Client, asked: Vec<Entity>) -> Result<Vec<TableEntry>, WalkError> {
    let mut stream = client.read_stream(asked).await?;
    let mut all = Vec::new();
    while let Some(part) = stream.next_part().await? {
        for one in part {
            if let Some(entity::Entity::TableEntry(entry)) = one.entity
                && !entry.is_default_action
                && !entry.is_const
            {
                all.push(entry);
            }
        }
        if all.len() > ENTRIES_MAX {
            return Err(WalkError::TooMany);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(table: &str, key: &[(&str, &str)]) -> Result<Question, String> {
        let index = P4InfoIndex::from_text(shunt_p4::P4INFO).unwrap();
        let key = key.iter().copied().collect();
        Question::of(&index, table, &key).map_err(|error| error.to_string())
    }

    #[test]
    fn a_look_up_is_read_by_its_key() {
        let flow = [
            ("vpc", "1"),
            ("src", "10.0.0.2"),
            ("dst", "192.0.2.80"),
            ("proto", "6"),
            ("src_port", "1234"),
            ("dst_port", "80"),
        ];
        let entities = question("flow4", &flow).unwrap().entities();
        let Some(entity::Entity::TableEntry(entry)) = &entities[0].entity else {
            panic!("{entities:?}");
        };
        assert_eq!((entities.len(), entry.r#match.len()), (1, 6));
        // What cannot be told by the key is read whole.
        let punt = question("punt", &[("reason", "1"), ("interface", "1")]).unwrap();
        assert_eq!(punt.keys, None);
        let said = question("nothing", &[]).unwrap_err();
        assert!(said.contains("nothing"), "{said}");
        let said = question("nexthop", &[("nexthop", "red")]).unwrap_err();
        assert!(said.contains("nexthop cannot be read by its key"), "{said}");
    }

    #[test]
    fn a_prefix_is_read_in_every_length() {
        let route = question("route4", &[("vpc", "1"), ("dst", "10.1.2.3")]).unwrap();
        let keys = route.keys.unwrap();
        assert_eq!(keys.len(), 33);
        assert_eq!(keys[0].len(), 1, "a prefix of no bits is left out");
        let dst = |length: usize| (&keys[length][1].1[..], keys[length][1].2);
        assert_eq!(dst(8), (&[10, 0, 0, 0][..], Some(8)));
        assert_eq!(dst(24), (&[10, 1, 2, 0][..], Some(24)));
        assert_eq!(dst(32), (&[10, 1, 2, 3][..], Some(32)));
        let route = question("route6", &[("vpc", "1"), ("dst", "2001:db8::1")]).unwrap();
        assert_eq!(route.keys.unwrap().len(), 129);
    }
}
