//! Finds what reads ask for. Nothing is locked while answers are made of it.

use std::collections::HashMap;
use std::sync::Arc;

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use tonic::Code;

use super::digest;
use super::entry;
use super::fault::Fault;
use super::replication;
use super::resource::{self, indices};
use super::value::{canonical, wire_data};
use super::wire::{self, Wanted};
use crate::info::{ArrayInfo, ProfileInfo, TableInfo};
use crate::state::entry::{Entry, Key, Target};
use crate::state::profile::Watch;
use crate::state::{lock, read};
use crate::switch::Loaded;

/// What reads are answered from.
pub(crate) struct Reader<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) now_ns: u64,
    /// Whether tables without a default action have a default entry too, without an action.
    pub(crate) all_defaults: bool,
}

/// A part of what was asked for. Entries of tables, which may be many, are put on the wire one
/// by one.
pub(crate) enum Found<'a> {
    Entity(Box<Entity>),
    Entries(&'a TableInfo, Vec<Entry>, As),
}

impl Found<'_> {
    fn one(entity: Entity) -> Self {
        Self::Entity(Box::new(entity))
    }
}

/// What entries are answered as.
#[derive(Clone, Copy)]
pub(crate) enum As {
    Entries(Wanted),
    Counters,
    /// With or without the counts of the colours.
    Meters(bool),
}

type Out<'o, 'a> = &'o mut Vec<Found<'a>>;

impl<'a> Reader<'a> {
    /// Finds what one entity of a read request means.
    pub(crate) fn find(&self, wanted: &pb::Entity) -> Result<Vec<Found<'a>>, Fault> {
        let wanted = wanted.entity.as_ref();
        let wanted = wanted.ok_or_else(|| {
            let fault = Fault::invalid("an entity is empty");
            fault.pi(Code::Unknown)
        })?;
        let mut out = Vec::new();
        match wanted {
            Entity::TableEntry(wire) => self.table_entries(wire, &mut out)?,
            Entity::ActionProfileMember(wire) => self.members(wire, &mut out)?,
            Entity::ActionProfileGroup(wire) => self.groups(wire, &mut out)?,
            Entity::CounterEntry(wire) => self.counters(wire, &mut out)?,
            Entity::DirectCounterEntry(wire) => {
                let filter = wire.table_entry.as_ref();
                let with = |table: &TableInfo| table.has_counter;
                self.direct(filter, "direct counter", with, As::Counters, &mut out)?;
            }
            Entity::MeterEntry(wire) => self.meters(wire, &mut out)?,
            Entity::DirectMeterEntry(wire) => {
                let filter = wire.table_entry.as_ref();
                let with = |table: &TableInfo| table.has_meter;
                let kind = As::Meters(wire.counter_data.is_some());
                self.direct(filter, "direct meter", with, kind, &mut out)?;
            }
            Entity::RegisterEntry(wire) => self.registers(wire, &mut out)?,
            Entity::PacketReplicationEngineEntry(wire) => {
                let entries = replication::read_entries(&self.loaded.state, wire)?.into_iter();
                let entity = Entity::PacketReplicationEngineEntry;
                out.extend(entries.map(|entry| Found::one(entity(entry))));
            }
            Entity::DigestEntry(wire) => {
                let digests = lock(&self.loaded.state.digests);
                let entries = digest::read_entries(&self.loaded.info, &digests, wire)?;
                out.extend(
                    entries
                        .into_iter()
                        .map(|e| Found::one(Entity::DigestEntry(e))),
                );
            }
            Entity::ValueSetEntry(wire) => {
                let entries = super::value_set::read_entries(self.loaded, wire)?;
                let entity = Entity::ValueSetEntry;
                out.extend(entries.into_iter().map(|entry| Found::one(entity(entry))));
            }
            // There are no externs, so that all of them are none.
            Entity::ExternEntry(wire) if *wire == pb::ExternEntry::default() => {}
            Entity::ExternEntry(_) => return Err(Fault::unimplemented("extern entries")),
        }
        Ok(out)
    }

    /// Answers with what was found, entity by entity, until `emit` fails.
    pub(crate) fn answer<E>(
        &self,
        found: Found<'_>,
        emit: &mut dyn FnMut(Entity) -> Result<(), E>,
    ) -> Result<(), E> {
        let (table, entries, kind) = match found {
            Found::Entity(entity) => return emit(*entity),
            Found::Entries(table, entries, kind) => (table, entries, kind),
        };
        for entry in entries {
            emit(match kind {
                As::Entries(wanted) => {
                    let info = &self.loaded.info;
                    Entity::TableEntry(wire::entry(info, table, &entry, wanted, self.now_ns))
                }
                As::Counters => Entity::DirectCounterEntry(pb::DirectCounterEntry {
                    table_entry: Some(wire::key(table, &entry)),
                    data: Some(wire::counts(entry.counter().get())),
                }),
                As::Meters(colours) => {
                    let meter = entry.meter().map(|m| lock(m));
                    let rates = meter.as_ref().and_then(|m| m.rates());
                    let counts = meter.map(|m| m.counts()).filter(|_| colours);
                    Entity::DirectMeterEntry(pb::DirectMeterEntry {
                        table_entry: Some(wire::key(table, &entry)),
                        config: rates.map(wire::rates),
                        counter_data: counts.map(wire::colours),
                    })
                }
            })?;
        }
        Ok(())
    }

    fn table_entries(&self, wire: &pb::TableEntry, out: Out<'_, 'a>) -> Result<(), Fault> {
        let wanted = Wanted {
            counter: wire.counter_data.is_some(),
            meter: wire.meter_config.is_some(),
            colours: wire.meter_counter_data.is_some(),
            idle: wire.time_since_last_hit.is_some(),
        };
        for table in self.tables(wire)? {
            let refused = |why: &str| Fault::invalid(format!("table {}: {why}", table.name));
            if wire.is_default_action {
                if wanted.idle {
                    return Err(refused("time_since_last_hit of a default entry"));
                }
                if let Some(entry) = self.default_entry(table) {
                    out.push(Found::one(Entity::TableEntry(entry)));
                }
                continue;
            }
            if wanted.idle && !table.idle_timeout && wire.table_id != 0 {
                return Err(refused("time_since_last_hit, without an idle timeout"));
            }
            let entries = self.entries(table, wire)?;
            out.push(Found::Entries(table, entries, As::Entries(wanted)));
        }
        Ok(())
    }

    /// The tables that a filter means: one, or all if its id is 0.
    fn tables(&self, wire: &pb::TableEntry) -> Result<Vec<&'a TableInfo>, Fault> {
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
        let Some(default) = default.as_deref() else {
            return self.all_defaults.then(|| pb::TableEntry {
                table_id: table.id,
                is_default_action: true,
                ..pb::TableEntry::default()
            });
        };
        let info = &self.loaded.info;
        let action = wire::action(info, table, default.slot, &default.args);
        let note = lock(self.loaded.state.defaults.get(table.index)?).clone();
        Some(pb::TableEntry {
            table_id: table.id,
            is_default_action: true,
            controller_metadata: note.controller_metadata,
            metadata: note.metadata,
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
        let all = |found: &mut Vec<Entry>| {
            state.scan(|entry| found.push(entry.clone()), || Ok::<_, Fault>(()))
        };
        if wire.r#match.is_empty() {
            all(&mut found)?;
        } else if table.needs_priority && wire.priority == 0 {
            // The key at any priority.
            let pattern = entry::pattern(self.loaded, table, &wire.r#match, 1)?;
            all(&mut found)?;
            found.retain(|e| (e.value(), e.mask()) == (&*pattern.value, &*pattern.mask));
        } else {
            let pattern = entry::pattern(self.loaded, table, &wire.r#match, wire.priority)?;
            found.extend(state.get(Key::from(&pattern)));
        }
        if wire.priority != 0 {
            found.retain(|e| e.priority() == wire.priority);
        }
        if let Some(action) = &wire.action {
            let id = action_filter(table, action)?;
            let of = |slot: u16| table.action_ids.get(usize::from(slot)).copied();
            found.retain(
                |e| matches!(e.target(), Target::Call { slot, .. } if of(slot) == Some(id)),
            );
        }
        if wire.controller_metadata != 0 {
            found.retain(|e| e.controller_metadata() == wire.controller_metadata);
        }
        if !wire.metadata.is_empty() {
            found.retain(|e| *e.metadata() == *wire.metadata);
        }
        Ok(found)
    }

    /// Direct counters or meters, of one entry or of all.
    fn direct(
        &self,
        filter: Option<&pb::TableEntry>,
        what: &str,
        with: impl Fn(&TableInfo) -> bool,
        kind: As,
        out: Out<'_, 'a>,
    ) -> Result<(), Fault> {
        let filter = filter.cloned().unwrap_or_default();
        for table in self.tables(&filter)? {
            if !with(table) {
                if filter.table_id == 0 {
                    continue;
                }
                return Err(entry::no_resource(table, what));
            }
            if filter.is_default_action {
                return Err(entry::default_resource(table));
            }
            let entries = self.entries(table, &filter)?;
            if entries.is_empty() && !filter.r#match.is_empty() {
                let why = format!("table {}: there is no such entry", table.name);
                return Err(Fault::not_found(why).pi(Code::InvalidArgument));
            }
            out.push(Found::Entries(table, entries, kind));
        }
        Ok(())
    }

    fn profiles(&self, id: u32) -> Result<Vec<&'a ProfileInfo>, Fault> {
        let profiles = &self.loaded.info.profiles;
        if id == 0 {
            let mut all: Vec<_> = profiles.values().collect();
            all.sort_by_key(|p| p.id);
            return Ok(all);
        }
        let found = profiles.get(&id);
        let found = found.ok_or_else(|| {
            let fault = Fault::not_found(format!("there is no action profile of id {id:#x}"));
            fault.pi(Code::InvalidArgument)
        })?;
        Ok(vec![found])
    }

    fn members(&self, wire: &pb::ActionProfileMember, out: Out<'_, 'a>) -> Result<(), Fault> {
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
                out.push(Found::one(Entity::ActionProfileMember(
                    pb::ActionProfileMember {
                        action_profile_id: profile.id,
                        member_id,
                        action: Some(wire::action(
                            &self.loaded.info,
                            table,
                            call.slot,
                            &call.args,
                        )),
                    },
                )));
            }
        }
        Ok(())
    }

    fn groups(&self, wire: &pb::ActionProfileGroup, out: Out<'_, 'a>) -> Result<(), Fault> {
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
                    weight: weight.given,
                    watch_kind: match weight.watch {
                        Watch::None => None,
                        Watch::Number(port) => Some(WatchKind::Watch(port)),
                        Watch::Bytes(port) => {
                            Some(WatchKind::WatchPort(canonical(&port.to_be_bytes())))
                        }
                    },
                });
                out.push(Found::one(Entity::ActionProfileGroup(
                    pb::ActionProfileGroup {
                        action_profile_id: profile.id,
                        group_id,
                        members: members.collect(),
                        max_size: group.max_size,
                    },
                )));
            }
        }
        Ok(())
    }

    fn counters(&self, wire: &pb::CounterEntry, out: Out<'_, 'a>) -> Result<(), Fault> {
        let counters = &self.loaded.info.counters;
        for (id, array) in arrays(counters, wire.counter_id, wire.index, "counter")? {
            let cells = self.loaded.state.counters.get(array.index);
            for index in indices(array, wire.index)? {
                let cell = cells.and_then(|c| c.get(index));
                out.push(Found::one(Entity::CounterEntry(pb::CounterEntry {
                    counter_id: id,
                    index: wire_index(index),
                    data: cell.map(|c| wire::counts(c.get())),
                })));
            }
        }
        Ok(())
    }

    fn meters(&self, wire: &pb::MeterEntry, out: Out<'_, 'a>) -> Result<(), Fault> {
        let meters = &self.loaded.info.meters;
        for (id, array) in arrays(meters, wire.meter_id, wire.index, "meter")? {
            let cells = self.loaded.state.meters.get(array.index);
            for index in indices(array, wire.index)? {
                let cell = cells.and_then(|c| c.get(index)).map(|c| lock(c));
                let rates = cell.as_ref().and_then(|c| c.rates());
                let wanted = wire.counter_data.is_some();
                let counts = cell.map(|c| c.counts()).filter(|_| wanted);
                out.push(Found::one(Entity::MeterEntry(pb::MeterEntry {
                    meter_id: id,
                    index: wire_index(index),
                    config: rates.map(wire::rates),
                    counter_data: counts.map(wire::colours),
                })));
            }
        }
        Ok(())
    }

    fn registers(&self, wire: &pb::RegisterEntry, out: Out<'_, 'a>) -> Result<(), Fault> {
        let registers = &self.loaded.info.registers;
        for (id, array) in arrays(registers, wire.register_id, wire.index, "register")? {
            let state = &self.loaded.state;
            let narrow = state.registers.get(array.index);
            let data = |index: usize| match narrow {
                _ if array.is_wide() => super::wide::register_data(state, array, index),
                Some(cells) => wire_data(lock(cells).get(index).copied().unwrap_or(0), array),
                None => wire_data(0, array),
            };
            for index in indices(array, wire.index)? {
                out.push(Found::one(Entity::RegisterEntry(pb::RegisterEntry {
                    register_id: id,
                    index: wire_index(index),
                    data: Some(data(index)),
                })));
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
    Ok(vec![(id, resource::array(of, id, what)?)])
}

/// The action that entries are to have.
fn action_filter(table: &TableInfo, action: &pb::TableAction) -> Result<u32, Fault> {
    match &action.r#type {
        Some(pb::table_action::Type::Action(action)) if table.profile.is_none() => {
            Ok(action.action_id)
        }
        _ => Err(Fault::invalid(format!(
            "table {}: entries are chosen by an action's id only",
            table.name
        ))),
    }
}
