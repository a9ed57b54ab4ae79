//! Answers reads, entity by entity, without holding a lock while answers are made.

use std::collections::HashMap;
use std::sync::Arc;

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;

use super::entry::{self, Wanted, wire_counts, wire_entry, wire_key, wire_rates};
use super::fault::Fault;
use super::replication;
use super::value::canonical;
use crate::info::{ArrayInfo, ProfileInfo, TableInfo};
use crate::state::entry::{Entry, Key};
use crate::state::profile::Watch;
use crate::state::{lock, read};
use crate::switch::Loaded;

/// What reads are answered from.
pub(crate) struct Reader<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) now_ns: u64,
}

/// Takes one answer; an error means that the client is gone.
pub(crate) type Emit<'e> = &'e mut dyn FnMut(Entity) -> Result<(), Fault>;

impl Reader<'_> {
    /// Answers one entity of a read request.
    pub(crate) fn entity(&self, wanted: &pb::Entity, emit: Emit<'_>) -> Result<(), Fault> {
        let wanted = wanted.entity.as_ref();
        match wanted.ok_or_else(|| Fault::invalid("an entity is empty"))? {
            Entity::TableEntry(wire) => self.table_entries(wire, emit),
            Entity::ActionProfileMember(wire) => self.members(wire, emit),
            Entity::ActionProfileGroup(wire) => self.groups(wire, emit),
            Entity::CounterEntry(wire) => self.counters(wire, emit),
            Entity::DirectCounterEntry(wire) => self.direct_counters(wire, emit),
            Entity::MeterEntry(wire) => self.meters(wire, emit),
            Entity::DirectMeterEntry(wire) => self.direct_meters(wire, emit),
            Entity::RegisterEntry(wire) => self.registers(wire, emit),
            Entity::PacketReplicationEngineEntry(wire) => {
                for entry in replication::read_entries(&self.loaded.state, wire)? {
                    emit(Entity::PacketReplicationEngineEntry(entry))?;
                }
                Ok(())
            }
            Entity::DigestEntry(_) => Err(Fault::unimplemented("reading digest entries")),
            Entity::ValueSetEntry(_) => Err(Fault::unimplemented("value sets")),
            Entity::ExternEntry(_) => Err(Fault::unimplemented("extern entries")),
        }
    }

    fn table_entries(&self, wire: &pb::TableEntry, emit: Emit<'_>) -> Result<(), Fault> {
        let info = &self.loaded.info;
        let wanted = Wanted {
            counter: wire.counter_data.is_some(),
            meter: wire.meter_config.is_some(),
            idle: wire.time_since_last_hit.is_some(),
        };
        let tables = self.tables(wire)?;
        for table in tables {
            if wire.is_default_action {
                if let Some(entry) = self.default_entry(table) {
                    emit(Entity::TableEntry(entry))?;
                }
                continue;
            }
            for found in self.entries(table, wire)? {
                let entry = wire_entry(info, table, &found, wanted, self.now_ns);
                emit(Entity::TableEntry(entry))?;
            }
        }
        Ok(())
    }

    /// The tables that a filter means: one, or all if its id is 0.
    fn tables(&self, wire: &pb::TableEntry) -> Result<Vec<&TableInfo>, Fault> {
        let info = &self.loaded.info;
        if wire.table_id != 0 {
            return Ok(vec![entry::table(info, wire.table_id)?]);
        }
        if !wire.r#match.is_empty() || wire.priority != 0 || wire.action.is_some() {
            return Err(Fault::invalid(
                "a read of all tables takes no match, priority or action",
            ));
        }
        Ok(info
            .table_ids
            .iter()
            .filter_map(|id| info.tables.get(id))
            .collect())
    }

    fn default_entry(&self, table: &TableInfo) -> Option<pb::TableEntry> {
        let state = self.loaded.state.tables.get(table.index)?;
        let default = state.default.load();
        let default = default.as_deref()?;
        let info = &self.loaded.info;
        let action = entry::wire_action(info, table, default.slot, &default.args);
        Some(pb::TableEntry {
            table_id: table.id,
            is_default_action: true,
            is_const: table.const_default,
            action: Some(pb::TableAction {
                r#type: Some(pb::table_action::Type::Action(action)),
            }),
            ..pb::TableEntry::default()
        })
    }

    /// The entries of a table that a filter means.
    fn entries(&self, table: &TableInfo, wire: &pb::TableEntry) -> Result<Vec<Entry>, Fault> {
        let Some(state) = self.loaded.state.tables.get(table.index) else {
            return Ok(Vec::new());
        };
        let mut found: Vec<Entry> = Vec::new();
        if wire.r#match.is_empty() {
            state.scan(|entry| found.push(entry.clone()), || Ok(()))?;
        } else {
            let pattern = entry::pattern(self.loaded, table, &wire.r#match, wire.priority)?;
            found.extend(state.get(Key::from(&pattern)));
        }
        if wire.priority != 0 {
            found.retain(|e| e.priority() == wire.priority);
        }
        if wire.controller_metadata != 0 {
            found.retain(|e| e.controller_metadata() == wire.controller_metadata);
        }
        if !wire.metadata.is_empty() {
            found.retain(|e| *e.metadata() == *wire.metadata);
        }
        Ok(found)
    }

    fn profiles(&self, id: u32) -> Result<Vec<&ProfileInfo>, Fault> {
        let profiles = &self.loaded.info.profiles;
        if id == 0 {
            let mut all: Vec<_> = profiles.values().collect();
            all.sort_by_key(|p| p.id);
            return Ok(all);
        }
        let found = profiles.get(&id);
        let found = found
            .ok_or_else(|| Fault::not_found(format!("there is no action profile of id {id:#x}")))?;
        Ok(vec![found])
    }

    fn members(&self, wire: &pb::ActionProfileMember, emit: Emit<'_>) -> Result<(), Fault> {
        for profile in self.profiles(wire.action_profile_id)? {
            let table = entry::table(&self.loaded.info, profile.table)?;
            let Some(state) = self.loaded.state.profiles.get(profile.index) else {
                continue;
            };
            let mut members: Vec<_> = {
                let state = read(state);
                let wanted = |id: u32| wire.member_id == 0 || wire.member_id == id;
                let members = state.members.iter().filter(|(id, _)| wanted(**id));
                members.map(|(id, call)| (*id, Arc::clone(call))).collect()
            };
            members.sort_by_key(|m| m.0);
            for (member_id, call) in members {
                emit(Entity::ActionProfileMember(pb::ActionProfileMember {
                    action_profile_id: profile.id,
                    member_id,
                    action: Some(entry::wire_action(
                        &self.loaded.info,
                        table,
                        call.slot,
                        &call.args,
                    )),
                }))?;
            }
        }
        Ok(())
    }

    fn groups(&self, wire: &pb::ActionProfileGroup, emit: Emit<'_>) -> Result<(), Fault> {
        for profile in self.profiles(wire.action_profile_id)? {
            let Some(state) = self.loaded.state.profiles.get(profile.index) else {
                continue;
            };
            let mut groups: Vec<_> = {
                let state = read(state);
                let wanted = |id: u32| wire.group_id == 0 || wire.group_id == id;
                let groups = state.groups.iter().filter(|(id, _)| wanted(**id));
                groups.map(|(id, group)| (*id, group.clone())).collect()
            };
            groups.sort_by_key(|g| g.0);
            for (group_id, group) in groups {
                use pb::action_profile_group::{Member, member::WatchKind};
                let members = group.members.iter().map(|(id, weight)| Member {
                    member_id: *id,
                    weight: weight.weight as i32,
                    watch_kind: match weight.watch {
                        Watch::None => None,
                        Watch::Number(port) => Some(WatchKind::Watch(port)),
                        Watch::Bytes(port) => {
                            Some(WatchKind::WatchPort(canonical(&port.to_be_bytes())))
                        }
                    },
                });
                emit(Entity::ActionProfileGroup(pb::ActionProfileGroup {
                    action_profile_id: profile.id,
                    group_id,
                    members: members.collect(),
                    max_size: group.max_size,
                }))?;
            }
        }
        Ok(())
    }

    fn counters(&self, wire: &pb::CounterEntry, emit: Emit<'_>) -> Result<(), Fault> {
        let counters = &self.loaded.info.counters;
        for (id, array) in arrays(counters, wire.counter_id, wire.index, "counter")? {
            let cells = self.loaded.state.counters.get(array.index);
            for index in indices(array, wire.index)? {
                let cell = cells.and_then(|c| c.get(index));
                emit(Entity::CounterEntry(pb::CounterEntry {
                    counter_id: id,
                    index: wire_index(index),
                    data: cell.map(|c| wire_counts(c.get())),
                }))?;
            }
        }
        Ok(())
    }

    fn meters(&self, wire: &pb::MeterEntry, emit: Emit<'_>) -> Result<(), Fault> {
        let meters = &self.loaded.info.meters;
        for (id, array) in arrays(meters, wire.meter_id, wire.index, "meter")? {
            let cells = self.loaded.state.meters.get(array.index);
            for index in indices(array, wire.index)? {
                let rates = cells.and_then(|c| lock(c.get(index)?).rates());
                emit(Entity::MeterEntry(pb::MeterEntry {
                    meter_id: id,
                    index: wire_index(index),
                    config: rates.map(wire_rates),
                    counter_data: None,
                }))?;
            }
        }
        Ok(())
    }

    fn registers(&self, wire: &pb::RegisterEntry, emit: Emit<'_>) -> Result<(), Fault> {
        let registers = &self.loaded.info.registers;
        for (id, array) in arrays(registers, wire.register_id, wire.index, "register")? {
            let Some(cells) = self.loaded.state.registers.get(array.index) else {
                continue;
            };
            for index in indices(array, wire.index)? {
                let value = lock(cells).get(index).copied().unwrap_or(0);
                let value = pb::p4_data::Data::Bitstring(canonical(&value.to_be_bytes()));
                emit(Entity::RegisterEntry(pb::RegisterEntry {
                    register_id: id,
                    index: wire_index(index),
                    data: Some(pb::P4Data { data: Some(value) }),
                }))?;
            }
        }
        Ok(())
    }

    fn direct_counters(&self, wire: &pb::DirectCounterEntry, emit: Emit<'_>) -> Result<(), Fault> {
        let filter = wire.table_entry.clone().unwrap_or_default();
        for table in self.tables(&filter)? {
            if !table.has_counter {
                if filter.table_id == 0 {
                    continue;
                }
                return Err(Fault::invalid(format!(
                    "table {}: it has no direct counter",
                    table.name
                )));
            }
            for found in self.entries(table, &filter)? {
                emit(Entity::DirectCounterEntry(pb::DirectCounterEntry {
                    table_entry: Some(wire_key(table, &found)),
                    data: Some(wire_counts(found.counter().get())),
                }))?;
            }
        }
        Ok(())
    }

    fn direct_meters(&self, wire: &pb::DirectMeterEntry, emit: Emit<'_>) -> Result<(), Fault> {
        let filter = wire.table_entry.clone().unwrap_or_default();
        for table in self.tables(&filter)? {
            if !table.has_meter {
                if filter.table_id == 0 {
                    continue;
                }
                return Err(Fault::invalid(format!(
                    "table {}: it has no direct meter",
                    table.name
                )));
            }
            for found in self.entries(table, &filter)? {
                let rates = found.meter().and_then(|m| lock(m).rates());
                emit(Entity::DirectMeterEntry(pb::DirectMeterEntry {
                    table_entry: Some(wire_key(table, &found)),
                    config: rates.map(wire_rates),
                    counter_data: None,
                }))?;
            }
        }
        Ok(())
    }
}

fn wire_index(index: usize) -> Option<pb::Index> {
    Some(pb::Index {
        index: index as i64,
    })
}

/// The array of an id, or all if it is 0 (then without an index).
fn arrays<'i>(
    of: &'i HashMap<u32, ArrayInfo>,
    id: u32,
    index: Option<pb::Index>,
    what: &str,
) -> Result<Vec<(u32, &'i ArrayInfo)>, Fault> {
    if id == 0 {
        if index.is_some() {
            return Err(Fault::invalid(format!("an index without a {what}")));
        }
        let mut all: Vec<_> = of.iter().map(|(id, array)| (*id, array)).collect();
        all.sort_by_key(|a| a.0);
        return Ok(all);
    }
    match of.get(&id) {
        Some(array) => Ok(vec![(id, array)]),
        None => Err(Fault::not_found(format!(
            "there is no {what} of id {id:#x}"
        ))),
    }
}

fn indices(array: &ArrayInfo, index: Option<pb::Index>) -> Result<std::ops::Range<usize>, Fault> {
    match index {
        None => Ok(0..array.size),
        Some(pb::Index { index }) => usize::try_from(index)
            .ok()
            .filter(|i| *i < array.size)
            .map(|i| i..i + 1)
            .ok_or_else(|| {
                Fault::out_of_range(format!("{}: there is no index {index}", array.name))
            }),
    }
}
