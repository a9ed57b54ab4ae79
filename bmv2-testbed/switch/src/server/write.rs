//! Executes updates, one at a time, in order. Table entries are here, the rest in the modules
//! beside it.

use std::sync::Arc;

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::update::Type;
use tonic::Code;

use super::atomic::UndoLog;
use super::entry;
use super::fault::Fault;
use crate::info::{ProfileInfo, TableInfo};
use crate::program::table::Default as DefaultAction;
use crate::state::entry::{Entry, Key, Target};
use crate::state::table::{TableError, TableState};
use crate::state::{DefaultNote, lock, read, write};
use crate::switch::Loaded;

/// What updates are applied to.
pub(crate) struct Writer<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) now_ns: u64,
    /// How to undo what was done.
    pub(crate) log: UndoLog,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(loaded: &'a Loaded, now_ns: u64, log: UndoLog) -> Self {
        Self {
            loaded,
            now_ns,
            log,
        }
    }

    /// Applies one update.
    pub(crate) fn update(&self, update: &pb::Update) -> Result<(), Fault> {
        let kind = Type::try_from(update.r#type).unwrap_or(Type::Unspecified);
        if kind == Type::Unspecified {
            return Err(Fault::invalid("the update has no type"));
        }
        let entity = update.entity.as_ref().and_then(|e| e.entity.as_ref());
        let entity = entity.ok_or_else(|| {
            let fault = Fault::invalid("the update has no entity");
            fault.pi(Code::Unknown)
        })?;
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
            Entity::DigestEntry(wire) => self.digest(kind, wire),
            Entity::ValueSetEntry(wire) => {
                only_modify(kind, "a value set")?;
                self.value_set(wire)
            }
            Entity::ExternEntry(_) => Err(Fault::unimplemented("extern entries")),
        }
    }

    fn table_entry(&self, kind: Type, wire: &pb::TableEntry) -> Result<(), Fault> {
        let table = entry::table(&self.loaded.info, wire.table_id)?;
        let refused = |why: &str| Fault::invalid(format!("table {}: {why}", table.name));
        if wire.is_const {
            return Err(refused("is_const cannot be written"));
        }
        if kind != Type::Delete && wire.time_since_last_hit.is_some() {
            return Err(refused("time_since_last_hit cannot be written"));
        }
        if wire.is_default_action {
            return self.default_entry(kind, table, wire);
        }
        let state = self.loaded.state.tables.get(table.index);
        let state = state.ok_or_else(|| Fault::not_found("the table is gone"))?;
        match kind {
            Type::Modify if wire.action.is_none() => self.modify_resources(table, state, wire),
            _ if table.is_const => Err(constant(table)),
            Type::Insert => self.insert(table, state, wire),
            Type::Modify => self.modify(table, state, wire),
            Type::Delete | Type::Unspecified => self.delete(table, state, wire),
        }
    }

    fn insert(
        &self,
        table: &TableInfo,
        state: &TableState,
        wire: &pb::TableEntry,
    ) -> Result<(), Fault> {
        if table.fields.is_empty() {
            return Err(Fault::invalid(format!(
                "table {}: it has no key, and so its default entry only",
                table.name
            )));
        }
        let entry = entry::entry(self.loaded, table, wire, self.now_ns)?;
        self.check_target(table, entry.target())?;
        let inserted = state.insert(entry.clone());
        inserted.map_err(|e| failed(&table.name, e))?;
        self.count_use(table, entry.target(), true);
        let id = table.id;
        self.log
            .note(|| move |w: &Writer<'_>| w.take_out(id, entry.key()));
        Ok(())
    }

    fn modify(
        &self,
        table: &TableInfo,
        state: &TableState,
        wire: &pb::TableEntry,
    ) -> Result<(), Fault> {
        let entry = entry::entry(self.loaded, table, wire, self.now_ns)?;
        self.check_target(table, entry.target())?;
        let (set, _) = entry::resources(table, wire)?;
        if state.get(entry.key()).is_some_and(|e| e.is_const()) {
            return Err(constant(table));
        }
        let old = state.modify(&entry).map_err(|e| failed(&table.name, e))?;
        keep_meter(&entry, &old);
        let clear = wire.meter_counter_data.is_some();
        if let Some(meter) = entry.meter().filter(|_| clear) {
            lock(meter).clear_counts();
        }
        let counted = set.map(|_| entry.counter().get());
        if let Some((packets, bytes)) = set {
            entry.counter().set(packets, bytes);
        }
        self.count_use(table, entry.target(), true);
        self.count_use(table, old.target(), false);
        let id = table.id;
        self.log
            .note(|| move |w: &Writer<'_>| w.put_back(id, &old, counted));
        Ok(())
    }

    fn delete(
        &self,
        table: &TableInfo,
        state: &TableState,
        wire: &pb::TableEntry,
    ) -> Result<(), Fault> {
        let pattern = entry::pattern(self.loaded, table, &wire.r#match, wire.priority)?;
        let key = Key::from(&pattern);
        if state.get(key).is_some_and(|e| e.is_const()) {
            return Err(constant(table));
        }
        let old = state.remove(key).map_err(|e| failed(&table.name, e))?;
        self.count_use(table, old.target(), false);
        let id = table.id;
        self.log.note(|| move |w: &Writer<'_>| w.put_in(id, old));
        Ok(())
    }

    /// A MODIFY without an action: the entry stays as it is, but for its direct resources.
    fn modify_resources(
        &self,
        table: &TableInfo,
        state: &TableState,
        wire: &pb::TableEntry,
    ) -> Result<(), Fault> {
        let pattern = entry::pattern(self.loaded, table, &wire.r#match, wire.priority)?;
        let (counts, rates) = entry::resources(table, wire)?;
        let found = state.get(Key::from(&pattern));
        let found = found.ok_or_else(|| failed(&table.name, TableError::NotFound))?;
        self.set_meter(&found, rates, wire.meter_counter_data.is_some());
        if let Some(counts) = counts {
            self.set_counts(&found, counts);
        }
        Ok(())
    }

    fn table_state(&self, id: u32) -> Option<(&TableInfo, &TableState)> {
        let table = self.loaded.info.tables.get(&id)?;
        Some((table, self.loaded.state.tables.get(table.index)?))
    }

    /// Undoes an insertion.
    fn take_out(&self, id: u32, key: Key<'_>) {
        if let Some((table, state)) = self.table_state(id)
            && let Ok(old) = state.remove(key)
        {
            self.count_use(table, old.target(), false);
        }
    }

    /// Undoes a removal.
    fn put_in(&self, id: u32, old: Entry) {
        if let Some((table, state)) = self.table_state(id)
            && state.insert(old.clone()).is_ok()
        {
            self.count_use(table, old.target(), true);
        }
    }

    /// Undoes a modification, with the counts before it if it changed them.
    fn put_back(&self, id: u32, old: &Entry, counted: Option<(u64, u64)>) {
        if let Some((table, state)) = self.table_state(id)
            && let Ok(new) = state.modify(old)
        {
            keep_meter(old, &new);
            if let Some((packets, bytes)) = counted {
                old.counter().set(packets, bytes);
            }
            self.count_use(table, old.target(), true);
            self.count_use(table, new.target(), false);
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
        let constant = |why: &str| Fault::denied(format!("table {}: {why}", table.name));
        if table.profile.is_some() {
            let fault = constant("with an action profile, its default action is constant");
            return Err(fault.pi(Code::InvalidArgument));
        }
        if table.const_default {
            return Err(constant("its default action is constant"));
        }
        if wire.counter_data.is_some() || wire.meter_config.is_some() {
            return Err(entry::default_resource(table));
        }
        let compiled = self.loaded.program.tables.get(table.index);
        let state = self.loaded.state.tables.get(table.index);
        let note = self.loaded.state.defaults.get(table.index);
        let (Some(compiled), Some(state), Some(note)) = (compiled, state, note) else {
            return Err(Fault::not_found("the table is gone"));
        };
        let (action, noted) = match wire.action.as_ref().and_then(|a| a.r#type.as_ref()) {
            None => (compiled.default.clone(), DefaultNote::default()),
            Some(pb::table_action::Type::Action(action)) => {
                let call = entry::call(&self.loaded.info, table, action, true)?;
                let action = DefaultAction {
                    slot: call.slot,
                    args: call.args,
                };
                let noted = DefaultNote {
                    controller_metadata: wire.controller_metadata,
                    metadata: wire.metadata.clone(),
                };
                (Some(action), noted)
            }
            Some(_) => return refused("a default entry takes an action, not a member or group"),
        };
        let old = state.default.swap(action.map(Arc::new));
        let old_note = std::mem::replace(&mut *lock(note), noted);
        let index = table.index;
        self.log.note(|| {
            move |w: &Writer<'_>| {
                let tables = &w.loaded.state;
                if let (Some(state), Some(note)) =
                    (tables.tables.get(index), tables.defaults.get(index))
                {
                    state.default.store(old);
                    *lock(note) = old_note;
                }
            }
        });
        Ok(())
    }

    pub(crate) fn profile_of(&self, table: &TableInfo) -> Option<&ProfileInfo> {
        table
            .profile
            .and_then(|p| self.loaded.info.profiles.get(&p))
    }

    /// A member or group that an entry refers to has to exist, and a selector is programmed
    /// either in one shot or not.
    fn check_target(&self, table: &TableInfo, target: Target<'_>) -> Result<(), Fault> {
        let Some(profile) = self.profile_of(table) else {
            return Ok(());
        };
        let Some(state) = self.loaded.state.profiles.get(profile.index) else {
            return Ok(());
        };
        let state = read(state);
        let (what, id, known) = match target {
            Target::Member(id) => ("member", id, state.members.contains_key(&id)),
            Target::Group(id) => ("group", id, state.groups.contains_key(&id)),
            Target::OneShot(_) if !state.members.is_empty() || !state.groups.is_empty() => {
                return Err(Fault::invalid(format!(
                    "action profile {}: it has members and groups, and so takes no action sets",
                    profile.name
                )));
            }
            Target::OneShot(_) | Target::Call { .. } => return Ok(()),
        };
        if known {
            return Ok(());
        }
        let fault = Fault::not_found(format!(
            "action profile {}: there is no {what} {id}",
            profile.name
        ));
        Err(fault.pi(Code::InvalidArgument))
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
            Target::OneShot(_) => write(state).use_one_shot(more),
            Target::Call { .. } => {}
        }
    }
}

fn constant(table: &TableInfo) -> Fault {
    let what = if table.is_const {
        "is"
    } else {
        "has an entry that is"
    };
    let fault = Fault::denied(format!("table {} {what} constant", table.name));
    fault.pi(Code::Unknown)
}

/// What a write that a table refuses gets.
pub(crate) fn failed(name: &str, error: TableError) -> Fault {
    match error {
        TableError::Exists => Fault::exists(format!("table {name}: the entry exists already")),
        TableError::NotFound => Fault::not_found(format!("table {name}: there is no such entry")),
        TableError::Full => {
            let fault = Fault::new(Code::ResourceExhausted, format!("table {name} is full"));
            fault.pi(Code::Unknown)
        }
    }
}

/// With the same rates the buckets go on as they are; colours are counted on in any case.
fn keep_meter(new: &Entry, old: &Entry) {
    if let (Some(new), Some(old)) = (new.meter(), old.meter()) {
        lock(new).inherit(&lock(old));
    }
}

fn only_modify(kind: Type, what: &str) -> Result<(), Fault> {
    if kind == Type::Modify {
        Ok(())
    } else {
        Err(Fault::invalid(format!("{what} can only be modified")))
    }
}
