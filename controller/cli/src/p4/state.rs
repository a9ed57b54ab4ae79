//! What a switch has that can be written back.

use p4runtime::client::Client;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4info::{P4InfoIndex, Table};

use super::P4Error;
use super::cells::{COUNTERS, METERS, REGISTERS};
use super::diff::Item;
use super::read::offered;

/// What is read only if it is asked for: packets change it, or it is in entries already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    /// Every cell of every register.
    pub(super) registers: bool,
    /// Every cell of every counter, and those of entries.
    pub(super) counters: bool,
    /// Meters of entries by themselves, too. Those of constant tables always are.
    pub(super) direct_meters: bool,
}

/// What a switch has, and what it does not offer to read.
pub(super) struct State {
    pub(super) items: Vec<Item>,
    pub(super) not_offered: Vec<&'static str>,
}

/// One read: what it is called where it is not offered, and what of the answer counts.
struct Part {
    what: &'static str,
    kind: Kind,
    counts: fn(&pb::Entity) -> bool,
}

impl Part {
    fn new(what: &'static str, kind: Kind) -> Self {
        Self {
            what,
            kind,
            counts: |_| true,
        }
    }
}

/// Everything that can be written back, in the order of the P4Info, by key within it.
pub(super) async fn gather(
    client: &Client,
    index: &P4InfoIndex,
    extent: Extent,
) -> Result<State, P4Error> {
    let mut items = Vec::new();
    let mut not_offered = Vec::new();
    for part in parts(index, extent) {
        let Some(found) = offered(client, index, part.kind).await? else {
            if !not_offered.contains(&part.what) {
                not_offered.push(part.what);
            }
            continue;
        };
        for entity in found.into_iter().filter(|entity| (part.counts)(entity)) {
            items.push(Item::new(entity, index)?);
        }
    }
    Ok(State { items, not_offered })
}

fn parts(index: &P4InfoIndex, extent: Extent) -> Vec<Part> {
    let profiles = index.action_profiles().iter().map(|profile| profile.id);
    let groups = super::groups::selections(profiles, true);
    let mut parts: Vec<Part> = groups
        .into_iter()
        .map(|kind| {
            let what = match &kind {
                Kind::ActionProfileMember(_) => "action profile members",
                Kind::ActionProfileGroup(_) => "action profile groups",
                _ => "multicast groups and clone sessions",
            };
            Part::new(what, kind)
        })
        .collect();
    for table in index.tables() {
        of_table(table, index, extent, &mut parts);
    }
    let whole = |what, kinds: Vec<Kind>| kinds.into_iter().map(move |kind| Part::new(what, kind));
    parts.extend(whole("meters", METERS.every_array(index)));
    parts.extend(index.value_sets().iter().map(|set| {
        let wanted = pb::ValueSetEntry {
            value_set_id: set.id,
            ..Default::default()
        };
        Part::new("value sets", Kind::ValueSetEntry(wanted))
    }));
    parts.extend(index.digests().iter().map(|digest| {
        let wanted = pb::DigestEntry {
            digest_id: digest.id,
            config: None,
        };
        Part::new("digests", Kind::DigestEntry(wanted))
    }));
    parts.extend(index.externs().iter().map(|one| {
        let wanted = pb::ExternEntry {
            extern_type_id: one.type_id,
            extern_id: one.id,
            entry: None,
        };
        Part::new("externs", Kind::ExternEntry(wanted))
    }));
    if extent.registers {
        parts.extend(whole("registers", REGISTERS.every_array(index)));
    }
    if extent.counters {
        parts.extend(whole("counters", COUNTERS.every_array(index)));
    }
    parts
}

fn of_table(table: &Table, index: &P4InfoIndex, extent: Extent, parts: &mut Vec<Part>) {
    let entry = || pb::TableEntry {
        table_id: table.id,
        ..Default::default()
    };
    if table.const_default_action.is_none() {
        let default = pb::TableEntry {
            is_default_action: true,
            ..entry()
        };
        parts.push(Part {
            counts: |entity| matches!(&entity.entity, Some(Kind::TableEntry(entry)) if entry.action.is_some()),
            ..Part::new("default entries", Kind::TableEntry(default))
        });
    }
    let has_meters = METERS.is_of(index, table);
    if !table.is_const {
        let entries = pb::TableEntry {
            meter_config: has_meters.then(pb::MeterConfig::default),
            ..entry()
        };
        parts.push(Part {
            counts: |entity| match &entity.entity {
                // Some servers include the default entry in a wildcard read.
                Some(Kind::TableEntry(entry)) => !entry.is_const && !entry.is_default_action,
                _ => false,
            },
            ..Part::new("entries", Kind::TableEntry(entries))
        });
    }
    if has_meters && (table.is_const || extent.direct_meters) {
        parts.push(Part::new("meters of entries", METERS.of_table(table.id)));
    }
    if extent.counters && COUNTERS.is_of(index, table) {
        parts.push(Part::new(
            "counters of entries",
            COUNTERS.of_table(table.id),
        ));
    }
}
