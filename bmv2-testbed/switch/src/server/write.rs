//! Executes updates, one at a time, in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::update::Type;
use tonic::Code;

use super::entry::{self, counts, rates};
use super::fault::Fault;
use crate::info::{ArrayInfo, ProfileInfo, TableInfo};
use crate::program::table::Default as DefaultAction;
use crate::state::entry::{Entry, Key, Target};
use crate::state::profile::{Group, Watch};
use crate::state::table::TableError;
use crate::state::{lock, read, write};
use crate::switch::Loaded;

/// What updates are applied to.
pub(crate) struct Writer<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) now_ns: u64,
}

fn no_index(what: &str, index: i64) -> Fault {
    Fault::out_of_range(format!("{what}: there is no index {index}"))
}

impl Writer<'_> {
    /// Applies one update.
    pub(crate) fn update(&self, update: &pb::Update) -> Result<(), Fault> {
        let kind = Type::try_from(update.r#type).unwrap_or(Type::Unspecified);
        if kind == Type::Unspecified {
            return Err(Fault::invalid("the update has no type"));
        }
        let entity = update.entity.as_ref().and_then(|e| e.entity.as_ref());
        let entity = entity.ok_or_else(|| Fault::invalid("the update has no entity"))?;
        match entity {
            Entity::TableEntry(wire) => self.table_entry(kind, wire),
            Entity::ActionProfileMember(wire) => self.member(kind, wire),
            Entity::ActionProfileGroup(wire) => self.group(kind, wire),
            Entity::PacketReplicationEngineEntry(wire) => self.replication(kind, wire),
            Entity::CounterEntry(wire) => {
                only_modify(kind, "a counter")?;
                self.counter(wire)
            }
            Entity::DirectCounterEntry(wire) => {
                only_modify(kind, "a direct counter")?;
                self.direct_counter(wire)
            }
            Entity::MeterEntry(wire) => {
                only_modify(kind, "a meter")?;
                self.meter(wire)
            }
            Entity::DirectMeterEntry(wire) => {
                only_modify(kind, "a direct meter")?;
                self.direct_meter(wire)
            }
            Entity::RegisterEntry(wire) => {
                only_modify(kind, "a register")?;
                self.register(wire)
            }
            Entity::DigestEntry(wire) => {
                // Digests are sent as they come, one a message; there is nothing to configure.
                let known = self.loaded.info.digests.values();
                if known.into_iter().any(|d| d.0 == wire.digest_id) {
                    Ok(())
                } else {
                    Err(Fault::not_found(format!(
                        "there is no digest of id {:#x}",
                        wire.digest_id
                    )))
                }
            }
            Entity::ValueSetEntry(_) => Err(Fault::unimplemented("value sets")),
            Entity::ExternEntry(_) => Err(Fault::unimplemented("extern entries")),
        }
    }

    fn table_entry(&self, kind: Type, wire: &pb::TableEntry) -> Result<(), Fault> {
        let table = entry::table(&self.loaded.info, wire.table_id)?;
        if wire.time_since_last_hit.is_some() {
            return Err(Fault::invalid("time_since_last_hit cannot be written"));
        }
        if wire.is_default_action {
            return self.default_entry(kind, table, wire);
        }
        if table.is_const {
            return Err(Fault::denied(format!("table {} is constant", table.name)));
        }
        let state = self.loaded.state.tables.get(table.index);
        let state = state.ok_or_else(|| Fault::not_found("the table is gone"))?;
        let failed = |error: TableError| match error {
            TableError::Exists => {
                Fault::exists(format!("table {}: the entry exists already", table.name))
            }
            TableError::NotFound => {
                Fault::not_found(format!("table {}: there is no such entry", table.name))
            }
            TableError::Full => Fault::new(
                Code::ResourceExhausted,
                format!("table {} is full", table.name),
            ),
        };
        match kind {
            Type::Insert => {
                let entry = entry::entry(self.loaded, table, wire, self.now_ns)?;
                self.check_target(table, entry.target())?;
                state.insert(entry.clone()).map_err(failed)?;
                self.count_use(table, entry.target(), true);
            }
            Type::Modify => {
                let entry = entry::entry(self.loaded, table, wire, self.now_ns)?;
                self.check_target(table, entry.target())?;
                let old = state.modify(&entry).map_err(failed)?;
                self.keep_meter(&entry, &old, wire);
                if let Some(data) = &wire.counter_data {
                    let (packets, bytes) = counts(data, &table.name)?;
                    entry.counter().set(packets, bytes);
                }
                self.count_use(table, entry.target(), true);
                self.count_use(table, old.target(), false);
            }
            Type::Delete => {
                let pattern = entry::pattern(self.loaded, table, &wire.r#match, wire.priority)?;
                let old = state.remove(Key::from(&pattern)).map_err(failed)?;
                self.count_use(table, old.target(), false);
            }
            Type::Unspecified => {}
        }
        Ok(())
    }

    /// A modified entry without rates keeps none: its meter is back at the default.
    fn keep_meter(&self, new: &Entry, old: &Entry, wire: &pb::TableEntry) {
        if let (Some(new), Some(old), Some(_)) = (new.meter(), old.meter(), &wire.meter_config) {
            let unchanged = lock(new).rates() == lock(old).rates();
            if unchanged {
                // The same rates: the buckets go on as they are.
                std::mem::swap(&mut *lock(new), &mut *lock(old));
            }
        }
    }

    fn default_entry(
        &self,
        kind: Type,
        table: &TableInfo,
        wire: &pb::TableEntry,
    ) -> Result<(), Fault> {
        let refused = |why: &str| Err(Fault::invalid(format!("table {}: {why}", table.name)));
        if kind != Type::Modify {
            return refused("a default entry can only be modified");
        }
        if !wire.r#match.is_empty() || wire.priority != 0 {
            return refused("a default entry has neither matches nor a priority");
        }
        if wire.idle_timeout_ns != 0 {
            return refused("a default entry has no idle timeout");
        }
        if table.const_default {
            return Err(Fault::denied(format!(
                "table {}: its default action is constant",
                table.name
            )));
        }
        let compiled = self.loaded.program.tables.get(table.index);
        let state = self.loaded.state.tables.get(table.index);
        let (Some(compiled), Some(state)) = (compiled, state) else {
            return Err(Fault::not_found("the table is gone"));
        };
        let action = match wire.action.as_ref().and_then(|a| a.r#type.as_ref()) {
            None => compiled.default.clone(),
            Some(pb::table_action::Type::Action(action)) => {
                let call = entry::call(&self.loaded.info, table, action, true)?;
                Some(DefaultAction {
                    slot: call.slot,
                    args: call.args,
                })
            }
            Some(_) => return refused("a default entry takes an action, not a member or group"),
        };
        state.default.store(action.map(Arc::new));
        Ok(())
    }

    fn profile(&self, id: u32) -> Result<&ProfileInfo, Fault> {
        let found = self.loaded.info.profiles.get(&id);
        found.ok_or_else(|| Fault::not_found(format!("there is no action profile of id {id:#x}")))
    }

    fn profile_of(&self, table: &TableInfo) -> Option<&ProfileInfo> {
        table
            .profile
            .and_then(|p| self.loaded.info.profiles.get(&p))
    }

    /// A member or group that an entry refers to has to exist.
    fn check_target(&self, table: &TableInfo, target: Target<'_>) -> Result<(), Fault> {
        let (Target::Member(id) | Target::Group(id)) = target else {
            return Ok(());
        };
        let Some(profile) = self.profile_of(table) else {
            return Ok(());
        };
        let Some(state) = self.loaded.state.profiles.get(profile.index) else {
            return Ok(());
        };
        let state = read(state);
        let (what, known) = match target {
            Target::Member(_) => ("member", state.members.contains_key(&id)),
            _ => ("group", state.groups.contains_key(&id)),
        };
        if known {
            Ok(())
        } else {
            Err(Fault::not_found(format!(
                "action profile {}: there is no {what} {id}",
                profile.name
            )))
        }
    }

    fn count_use(&self, table: &TableInfo, target: Target<'_>, more: bool) {
        let Some(state) = self
            .profile_of(table)
            .and_then(|p| self.loaded.state.profiles.get(p.index))
        else {
            return;
        };
        match target {
            Target::Member(id) => write(state).use_member(id, more),
            Target::Group(id) => write(state).use_group(id, more),
            Target::Call { .. } | Target::OneShot(_) => {}
        }
    }

    fn member(&self, kind: Type, wire: &pb::ActionProfileMember) -> Result<(), Fault> {
        let profile = self.profile(wire.action_profile_id)?;
        let table = entry::table(&self.loaded.info, profile.table)?;
        let state = self.loaded.state.profiles.get(profile.index);
        let state = state.ok_or_else(|| Fault::not_found("the action profile is gone"))?;
        let what = || format!("action profile {}, member {}", profile.name, wire.member_id);
        if wire.member_id == 0 {
            return Err(Fault::invalid(format!("{}: the id must not be 0", what())));
        }
        let call = || {
            let action = wire
                .action
                .as_ref()
                .ok_or_else(|| Fault::invalid(format!("{}: it has no action", what())))?;
            entry::call(&self.loaded.info, table, action, false).map(Arc::new)
        };
        let mut state = write(state);
        match kind {
            Type::Insert => {
                let call = call()?;
                if state.members.contains_key(&wire.member_id) {
                    return Err(Fault::exists(format!("{}: it exists already", what())));
                }
                if state.members.len() >= profile.size {
                    return Err(Fault::new(
                        Code::ResourceExhausted,
                        format!("action profile {} is full", profile.name),
                    ));
                }
                state.members.insert(wire.member_id, call);
            }
            Type::Modify => {
                let call = call()?;
                let found = state.members.get_mut(&wire.member_id);
                *found.ok_or_else(|| Fault::not_found(format!("{}: unknown", what())))? = call;
            }
            _ => {
                if state.member_uses.contains_key(&wire.member_id) {
                    return Err(Fault::precondition(format!("{}: it is in use", what())));
                }
                let removed = state.members.remove(&wire.member_id);
                removed.ok_or_else(|| Fault::not_found(format!("{}: unknown", what())))?;
            }
        }
        Ok(())
    }

    fn group(&self, kind: Type, wire: &pb::ActionProfileGroup) -> Result<(), Fault> {
        let profile = self.profile(wire.action_profile_id)?;
        let what = || format!("action profile {}, group {}", profile.name, wire.group_id);
        if !profile.with_selector {
            return Err(Fault::invalid(format!("{}: it has no selector", what())));
        }
        if wire.group_id == 0 {
            return Err(Fault::invalid(format!("{}: the id must not be 0", what())));
        }
        let state = self.loaded.state.profiles.get(profile.index);
        let mut state = write(state.ok_or_else(|| Fault::not_found("the profile is gone"))?);
        if kind == Type::Delete {
            if state.group_uses.contains_key(&wire.group_id) {
                return Err(Fault::precondition(format!("{}: it is in use", what())));
            }
            let removed = state.groups.remove(&wire.group_id);
            let removed =
                removed.ok_or_else(|| Fault::not_found(format!("{}: unknown", what())))?;
            for member in removed.members.keys() {
                state.use_member(*member, false);
            }
            return Ok(());
        }
        let mut members = BTreeMap::new();
        let mut total = 0_usize;
        for member in &wire.members {
            use pb::action_profile_group::member::WatchKind;
            let watch = match &member.watch_kind {
                None => Watch::None,
                Some(WatchKind::Watch(port)) => Watch::Number(*port),
                Some(WatchKind::WatchPort(port)) => {
                    Watch::Bytes(super::value::port(port, "watch_port")?)
                }
            };
            let weight = entry::weight(member.weight, watch, &what())?;
            total += weight.weight as usize;
            if !state.members.contains_key(&member.member_id) {
                return Err(Fault::not_found(format!(
                    "{}: there is no member {}",
                    what(),
                    member.member_id
                )));
            }
            if members.insert(member.member_id, weight).is_some() {
                return Err(Fault::invalid(format!(
                    "{}: member {} is given twice",
                    what(),
                    member.member_id
                )));
            }
        }
        let limits = [
            usize::try_from(wire.max_size).unwrap_or(0),
            profile.max_group_size,
        ];
        if let Some(limit) = limits
            .into_iter()
            .find(|limit| *limit > 0 && total > *limit)
        {
            return Err(Fault::new(
                Code::ResourceExhausted,
                format!("{}: the weights sum to {total}, over {limit}", what()),
            ));
        }
        let known = state.groups.contains_key(&wire.group_id);
        if kind == Type::Insert && known {
            return Err(Fault::exists(format!("{}: it exists already", what())));
        }
        if kind == Type::Modify && !known {
            return Err(Fault::not_found(format!("{}: unknown", what())));
        }
        for member in members.keys() {
            state.use_member(*member, true);
        }
        let group = Group::new(members, wire.max_size);
        if let Some(old) = state.groups.insert(wire.group_id, group) {
            for member in old.members.keys() {
                state.use_member(*member, false);
            }
        }
        Ok(())
    }

    fn array<'i>(
        &self,
        of: &'i HashMap<u32, ArrayInfo>,
        id: u32,
        what: &str,
    ) -> Result<&'i ArrayInfo, Fault> {
        of.get(&id)
            .ok_or_else(|| Fault::not_found(format!("there is no {what} of id {id:#x}")))
    }

    fn counter(&self, wire: &pb::CounterEntry) -> Result<(), Fault> {
        let array = self.array(&self.loaded.info.counters, wire.counter_id, "counter")?;
        let data = wire.data.as_ref();
        let data = data.ok_or_else(|| Fault::invalid(format!("{}: no data", array.name)))?;
        let (packets, bytes) = counts(data, &array.name)?;
        let cells = self.loaded.state.counters.get(array.index);
        for cell in select(cells, wire.index, &array.name)? {
            cell.set(packets, bytes);
        }
        Ok(())
    }

    fn meter(&self, wire: &pb::MeterEntry) -> Result<(), Fault> {
        let array = self.array(&self.loaded.info.meters, wire.meter_id, "meter")?;
        let rates = match &wire.config {
            None => None,
            Some(config) => Some(rates(config, &array.name)?),
        };
        let cells = self.loaded.state.meters.get(array.index);
        for cell in select(cells, wire.index, &array.name)? {
            lock(cell).configure(rates, self.now_ns);
        }
        Ok(())
    }

    fn register(&self, wire: &pb::RegisterEntry) -> Result<(), Fault> {
        let array = self.array(&self.loaded.info.registers, wire.register_id, "register")?;
        let data = wire.data.as_ref().and_then(|d| d.data.as_ref());
        let Some(pb::p4_data::Data::Bitstring(value)) = data else {
            return Err(Fault::unimplemented(format!(
                "register {}: data other than a bit string",
                array.name
            )));
        };
        let name = || format!("register {}", array.name);
        let bytes = super::value::padded(value, array.width, array.width, name)?;
        let value = bytes.iter().fold(0_u128, |v, b| v << 8 | u128::from(*b));
        let Some(cells) = self.loaded.state.registers.get(array.index) else {
            return Ok(());
        };
        let mut cells = lock(cells);
        match wire.index {
            None => cells.fill(value),
            Some(pb::Index { index }) => {
                let cell = usize::try_from(index).ok().and_then(|i| cells.get_mut(i));
                *cell.ok_or_else(|| no_index(&array.name, index))? = value;
            }
        }
        Ok(())
    }

    /// The entry that a direct resource belongs to.
    fn direct(
        &self,
        wire: Option<&pb::TableEntry>,
        what: &str,
    ) -> Result<(&TableInfo, Entry), Fault> {
        let wire = wire.ok_or_else(|| Fault::invalid(format!("{what} without a table entry")))?;
        let table = entry::table(&self.loaded.info, wire.table_id)?;
        if wire.is_default_action {
            return Err(Fault::unimplemented(format!("{what} of a default entry")));
        }
        let pattern = entry::pattern(self.loaded, table, &wire.r#match, wire.priority)?;
        let state = self.loaded.state.tables.get(table.index);
        let found = state.and_then(|s| s.get(Key::from(&pattern)));
        let found = found.ok_or_else(|| {
            Fault::not_found(format!("table {}: there is no such entry", table.name))
        })?;
        Ok((table, found))
    }

    fn direct_counter(&self, wire: &pb::DirectCounterEntry) -> Result<(), Fault> {
        let (table, entry) = self.direct(wire.table_entry.as_ref(), "direct counter")?;
        if !table.has_counter {
            return Err(Fault::invalid(format!(
                "table {}: it has no direct counter",
                table.name
            )));
        }
        let data = wire.data.as_ref();
        let data = data.ok_or_else(|| Fault::invalid("direct counter without data"))?;
        let (packets, bytes) = counts(data, &table.name)?;
        entry.counter().set(packets, bytes);
        Ok(())
    }

    fn direct_meter(&self, wire: &pb::DirectMeterEntry) -> Result<(), Fault> {
        let (table, entry) = self.direct(wire.table_entry.as_ref(), "direct meter")?;
        let Some(meter) = entry.meter() else {
            return Err(Fault::invalid(format!(
                "table {}: it has no direct meter",
                table.name
            )));
        };
        let rates = match &wire.config {
            None => None,
            Some(config) => Some(rates(config, &table.name)?),
        };
        lock(meter).configure(rates, self.now_ns);
        Ok(())
    }
}

fn only_modify(kind: Type, what: &str) -> Result<(), Fault> {
    if kind == Type::Modify {
        Ok(())
    } else {
        Err(Fault::invalid(format!("{what} can only be modified")))
    }
}

/// The cell of an index, or all.
fn select<'c, T>(
    cells: Option<&'c Vec<T>>,
    index: Option<pb::Index>,
    what: &str,
) -> Result<&'c [T], Fault> {
    let cells = cells.map_or(&[][..], Vec::as_slice);
    match index {
        None => Ok(cells),
        Some(pb::Index { index }) => usize::try_from(index)
            .ok()
            .and_then(|i| cells.get(i..=i))
            .ok_or_else(|| no_index(what, index)),
    }
}
