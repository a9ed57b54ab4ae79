//! What PI, simple_switch_grpc's server, makes of requests: each is turned into one that means
//! the same to this server, or refused as PI refuses it. Where only a status code differs, it is
//! noted with the fault ([`Fault::pi`]).

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::field_match::FieldMatchType;
use pb::packet_replication_engine_entry::Type as Replication;
use pb::update::Type;
use tonic::Code;

use super::fault::Fault;
use crate::info::Info;
use crate::state::State;
use crate::state::read;

/// An update as PI takes it.
pub(crate) fn update(update: &pb::Update) -> Result<pb::Update, Fault> {
    let mut update = update.clone();
    let delete = update.r#type == Type::Delete as i32;
    let modify = update.r#type == Type::Modify as i32;
    let Some(entity) = update.entity.as_mut().and_then(|e| e.entity.as_mut()) else {
        return Ok(update);
    };
    let all = |what: &str| Err(Fault::unimplemented(format!("writing all {what}s at once")));
    let mut resets = false;
    match entity {
        Entity::RegisterEntry(_) => return Err(Fault::unimplemented("registers")),
        Entity::ValueSetEntry(_) => return Err(Fault::unimplemented("value sets")),
        Entity::TableEntry(entry) => {
            if modify && entry.action.is_none() && !entry.is_default_action {
                return Err(Fault::invalid("the action of a modified entry is missing"));
            }
            table_entry(entry);
        }
        Entity::ActionProfileMember(member) => member.action.iter_mut().for_each(action),
        Entity::CounterEntry(counter) if counter.index.is_none() => return all("counter"),
        Entity::CounterEntry(counter) => {
            counter.data = Some(counter.data.filter(|_| !delete).unwrap_or_default());
            resets = delete;
        }
        Entity::DirectCounterEntry(counter) => {
            counter.data = Some(counter.data.filter(|_| !delete).unwrap_or_default());
            counter.table_entry.iter_mut().for_each(table_entry);
            resets = delete;
        }
        Entity::MeterEntry(meter) if meter.index.is_none() => return all("meter"),
        Entity::MeterEntry(meter) => {
            meter.config = rates(meter.config);
            meter.counter_data = None;
        }
        Entity::DirectMeterEntry(meter) => {
            meter.config = rates(meter.config);
            meter.counter_data = None;
            meter.table_entry.iter_mut().for_each(table_entry);
        }
        Entity::PacketReplicationEngineEntry(entry) => {
            if let Some(Replication::CloneSessionEntry(session)) = &entry.r#type {
                if session.class_of_service != 0 {
                    return Err(Fault::unimplemented("a clone session's class of service"));
                }
                if session.packet_length_bytes != 0 && !delete {
                    let why = "bmv2 does not cut the copies of a clone session";
                    return Err(Fault::new(Code::Unknown, why));
                }
            }
        }
        Entity::ActionProfileGroup(_) | Entity::DigestEntry(_) | Entity::ExternEntry(_) => {}
    }
    if resets {
        update.r#type = Type::Modify as i32;
    }
    Ok(update)
}

/// An empty value is 0.
fn value(value: &mut Vec<u8>) {
    if value.is_empty() {
        value.push(0);
    }
}

fn action(action: &mut pb::Action) {
    action.params.iter_mut().for_each(|p| value(&mut p.value));
}

fn table_entry(entry: &mut pb::TableEntry) {
    entry.is_const = false;
    entry.meter_counter_data = None;
    entry.meter_config = rates(entry.meter_config);
    entry.r#match.retain(|field| !is_short_range_of_all(field));
    for field in &mut entry.r#match {
        match &mut field.field_match_type {
            Some(FieldMatchType::Exact(exact)) => value(&mut exact.value),
            Some(FieldMatchType::Lpm(lpm)) => value(&mut lpm.value),
            Some(FieldMatchType::Ternary(ternary)) => value(&mut ternary.value),
            Some(FieldMatchType::Range(range)) => value(&mut range.low),
            Some(FieldMatchType::Optional(optional)) => value(&mut optional.value),
            Some(FieldMatchType::Other(_)) | None => {}
        }
    }
    match entry.action.as_mut().and_then(|a| a.r#type.as_mut()) {
        Some(pb::table_action::Type::Action(call)) => action(call),
        Some(pb::table_action::Type::ActionProfileActionSet(set)) => {
            let actions = set.action_profile_actions.iter_mut();
            actions.flat_map(|a| &mut a.action).for_each(action);
        }
        _ => {}
    }
}

/// PI knows a range over all values by its bytes, of which the low end has to have all.
fn is_short_range_of_all(field: &pb::FieldMatch) -> bool {
    match &field.field_match_type {
        Some(FieldMatchType::Range(range)) => {
            range.low.len() < range.high.len()
                && range.low.iter().all(|b| *b == 0)
                && range.high.iter().all(|b| *b == 0xff)
        }
        _ => false,
    }
}

/// -1 is no limit, and there is no excess burst.
fn rates(config: Option<pb::MeterConfig>) -> Option<pb::MeterConfig> {
    let config = config?;
    let parts = [config.cir, config.cburst, config.pir, config.pburst];
    (parts != [-1; 4]).then_some(pb::MeterConfig {
        eburst: 0,
        ..config
    })
}

/// A read as PI takes it. It chooses entries by their table or by their key, not otherwise.
pub(crate) fn wanted(info: &Info, state: &State, wanted: &pb::Entity) -> Result<pb::Entity, Fault> {
    let mut wanted = wanted.clone();
    let unimplemented = |what: &str| Err(Fault::unimplemented(what));
    let direct = |entry: Option<&pb::TableEntry>| match entry {
        None => Err(Fault::invalid("the table entry is missing")),
        Some(entry) if entry.table_id == 0 => {
            Err(Fault::unimplemented("direct resources of all tables"))
        }
        Some(_) => Ok(()),
    };
    match &mut wanted.entity {
        Some(Entity::RegisterEntry(_)) => return unimplemented("registers"),
        Some(Entity::ValueSetEntry(_)) => return unimplemented("value sets"),
        Some(Entity::DigestEntry(digest)) if digest.digest_id == 0 => {
            return unimplemented("reading all digests");
        }
        Some(Entity::TableEntry(entry)) => {
            if entry.time_since_last_hit.is_some() && entry.table_id == 0 {
                check_idle(info)?;
            }
            entry.action = None;
            entry.controller_metadata = 0;
            entry.metadata.clear();
            entry.meter_counter_data = None;
            if entry.r#match.is_empty() {
                entry.priority = 0;
            }
            table_entry(entry);
        }
        Some(Entity::DirectCounterEntry(counter)) => direct(counter.table_entry.as_ref())?,
        Some(Entity::DirectMeterEntry(meter)) => {
            direct(meter.table_entry.as_ref())?;
            meter.counter_data = None;
        }
        Some(Entity::MeterEntry(meter)) => meter.counter_data = None,
        Some(Entity::PacketReplicationEngineEntry(entry)) => {
            check_replication(state, entry.r#type.as_ref())?;
        }
        _ => {}
    }
    Ok(wanted)
}

fn check_idle(info: &Info) -> Result<(), Fault> {
    let without = info.tables.values().find(|t| !t.idle_timeout);
    without.map_or(Ok(()), |table| {
        Err(Fault::invalid(format!(
            "table {} has no idle timeout, yet all tables' time_since_last_hit is read",
            table.name
        )))
    })
}

fn check_replication(state: &State, entry: Option<&Replication>) -> Result<(), Fault> {
    let state = read(&state.replication);
    let (id, known) = match entry {
        Some(Replication::MulticastGroupEntry(group)) => {
            let id = group.multicast_group_id;
            (id, state.groups.contains_key(&id))
        }
        Some(Replication::CloneSessionEntry(session)) => {
            let id = session.session_id;
            (id, state.sessions.contains_key(&id))
        }
        None => return Ok(()),
    };
    if id == 0 || known {
        return Ok(());
    }
    Err(Fault::not_found(format!(
        "there is no group or session {id}"
    )))
}

/// An answer as PI gives it: from a time before `is_const`.
pub(crate) fn answer(entity: &mut Entity) {
    if let Entity::TableEntry(entry) = entity {
        entry.is_const = false;
    }
}
