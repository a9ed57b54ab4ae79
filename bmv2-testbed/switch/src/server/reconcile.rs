//! RECONCILE_AND_COMMIT: the forwarding state of one program carried over to the next, by what
//! a client would read and write.

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::p4_data::Data;
use pb::packet_replication_engine_entry::Type as Replication;
use pb::update::Type;

use super::atomic::UndoLog;
use super::core::Core;
use super::fault::Fault;
use super::read::Reader;
use super::write::Writer;
use crate::switch::Loaded;

/// What is carried over, in an order in which nothing refers to what comes later.
fn everything() -> Vec<Entity> {
    let with_resources = pb::TableEntry {
        counter_data: Some(pb::CounterData::default()),
        meter_config: Some(pb::MeterConfig::default()),
        ..pb::TableEntry::default()
    };
    let defaults = pb::TableEntry {
        is_default_action: true,
        ..pb::TableEntry::default()
    };
    let replication = |kind| {
        Entity::PacketReplicationEngineEntry(pb::PacketReplicationEngineEntry {
            r#type: Some(kind),
        })
    };
    vec![
        Entity::ActionProfileMember(pb::ActionProfileMember::default()),
        Entity::ActionProfileGroup(pb::ActionProfileGroup::default()),
        Entity::TableEntry(with_resources),
        Entity::TableEntry(defaults),
        replication(Replication::MulticastGroupEntry(Default::default())),
        replication(Replication::CloneSessionEntry(Default::default())),
        Entity::CounterEntry(pb::CounterEntry::default()),
        Entity::MeterEntry(pb::MeterEntry::default()),
        Entity::RegisterEntry(pb::RegisterEntry::default()),
        Entity::DigestEntry(pb::DigestEntry::default()),
        Entity::ValueSetEntry(pb::ValueSetEntry::default()),
    ]
}

/// The update that brings an entity of the old program into the new one, unless it is as both
/// programs start with it. `there` is what the new program has of default entries.
fn carried(entity: Entity, there: &[Entity]) -> Option<pb::Update> {
    let (kind, initial) = match &entity {
        Entity::TableEntry(entry) if entry.is_const => return None,
        Entity::TableEntry(entry) if entry.is_default_action => {
            (Type::Modify, there.contains(&entity))
        }
        Entity::CounterEntry(counter) => {
            let none = counter.data.unwrap_or_default() == pb::CounterData::default();
            (Type::Modify, none)
        }
        Entity::MeterEntry(meter) => (Type::Modify, meter.config.is_none()),
        Entity::RegisterEntry(register) => (Type::Modify, is_zero(register)),
        Entity::ValueSetEntry(set) => (Type::Modify, set.members.is_empty()),
        _ => (Type::Insert, false),
    };
    let entity = Some(pb::Entity {
        entity: Some(entity),
    });
    (!initial).then_some(pb::Update {
        r#type: kind as i32,
        entity,
    })
}

fn is_zero(register: &pb::RegisterEntry) -> bool {
    match register.data.as_ref().and_then(|d| d.data.as_ref()) {
        Some(Data::Bitstring(value) | Data::EnumValue(value)) => value.iter().all(|b| *b == 0),
        Some(Data::Bool(value)) => !value,
        _ => false,
    }
}

impl Core {
    /// Brings the running program's state into `new`, or says what cannot be kept.
    pub(crate) fn reconcile(&self, new: &Loaded) -> Result<(), Fault> {
        let Ok(old) = self.running() else {
            return Ok(());
        };
        let now_ns = self.switch.options.clock.now_ns();
        let all = |loaded: &Loaded, wanted: &Entity| {
            let reader = Reader {
                loaded,
                now_ns,
                all_defaults: false,
            };
            let mut out = Vec::new();
            let wanted = pb::Entity {
                entity: Some(wanted.clone()),
            };
            for found in reader.find(&wanted)? {
                reader.answer(found, &mut |entity| {
                    out.push(entity);
                    Ok(())
                })?;
            }
            Ok::<_, Fault>(out)
        };
        let writer = Writer::new(new, now_ns, UndoLog::default());
        for wanted in everything() {
            let defaults = matches!(&wanted, Entity::TableEntry(e) if e.is_default_action);
            let there = match defaults {
                true => all(new, &wanted)?,
                false => Vec::new(),
            };
            for entity in all(&old, &wanted)? {
                let Some(update) = carried(entity, &there) else {
                    continue;
                };
                writer.update(&update).map_err(|fault| {
                    Fault::invalid(format!(
                        "the forwarding state cannot be kept: {}",
                        fault.message
                    ))
                })?;
            }
        }
        Ok(())
    }
}
