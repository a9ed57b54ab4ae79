//! From the wire to names.

use super::words::show_duration;
use super::*;
use crate::p4::v1 as pb;
use crate::p4::v1::entity::Entity as Kind;
use crate::p4info::{MatchKind, P4InfoError, P4InfoIndex};
use crate::value::{Format, format_match, format_value, hex};

impl Named {
    /// An entity by name.
    ///
    /// # Errors
    /// [`NamedError::Unknown`] for an id that the P4Info does not have, and
    /// [`NamedError::Fault`] for an entity without content.
    pub fn of(entity: &pb::Entity, index: &P4InfoIndex) -> Result<Self, NamedError> {
        let empty = || NamedError::Fault("the entity is empty".to_owned());
        Ok(match entity.entity.as_ref().ok_or_else(empty)? {
            Kind::TableEntry(wire) => {
                let entry = entry(wire, index)?;
                match wire.is_default_action {
                    true => Self::Default(entry),
                    false => Self::Table(entry),
                }
            }
            Kind::DirectCounterEntry(wire) => {
                let mut entry = entry(&wire.table_entry.clone().unwrap_or_default(), index)?;
                entry.action = None;
                entry.counter = wire.data.as_ref().map(count).or(entry.counter);
                Self::DirectCounter(entry)
            }
            Kind::DirectMeterEntry(wire) => {
                let mut entry = entry(&wire.table_entry.clone().unwrap_or_default(), index)?;
                entry.action = None;
                entry.meter = wire.config.as_ref().map(rates).or(entry.meter);
                Self::DirectMeter(entry)
            }
            Kind::ActionProfileMember(wire) => Self::Member(Member {
                profile: profile(wire.action_profile_id, index)?,
                id: wire.member_id,
                call: wire
                    .action
                    .as_ref()
                    .map(|action| call(action, index))
                    .transpose()?,
            }),
            Kind::ActionProfileGroup(wire) => Self::Group(group(wire, index)?),
            Kind::CounterEntry(wire) => Self::Counter(CounterCell {
                counter: match wire.counter_id {
                    0 => String::new(),
                    id => index.counter_by_id(id)?.alias.clone(),
                },
                index: wire.index.map(|index| index.index),
                count: wire.data.as_ref().map(count),
            }),
            Kind::MeterEntry(wire) => Self::Meter(MeterCell {
                meter: match wire.meter_id {
                    0 => String::new(),
                    id => index.meter_by_id(id)?.alias.clone(),
                },
                index: wire.index.map(|index| index.index),
                rates: wire.config.as_ref().map(rates),
            }),
            Kind::RegisterEntry(wire) => {
                let register = index.register_by_id(wire.register_id)?;
                let value = wire.data.as_ref();
                Self::Register(RegisterCell {
                    register: register.alias.clone(),
                    index: wire.index.map(|index| index.index),
                    value: value.map(|value| format_data(value, &register.data)),
                })
            }
            Kind::PacketReplicationEngineEntry(wire) => {
                use pb::packet_replication_engine_entry::Type;
                match wire.r#type.as_ref().ok_or_else(empty)? {
                    Type::MulticastGroupEntry(group) => Self::Multicast(Multicast {
                        id: group.multicast_group_id,
                        ports: group.replicas.iter().map(replica).collect(),
                    }),
                    Type::CloneSessionEntry(session) => Self::Clone(CloneSession {
                        id: session.session_id,
                        ports: session.replicas.iter().map(replica).collect(),
                        length: session.packet_length_bytes,
                        class: session.class_of_service,
                    }),
                }
            }
            Kind::DigestEntry(wire) => {
                let config = wire.config.unwrap_or_default();
                Self::Digest(DigestConfig {
                    digest: index.digest_by_id(wire.digest_id)?.alias.clone(),
                    max_timeout: show_duration(config.max_timeout_ns),
                    max_list: config.max_list_size,
                    ack_timeout: show_duration(config.ack_timeout_ns),
                })
            }
            Kind::ValueSetEntry(wire) => {
                let set = index.value_set_by_id(wire.value_set_id)?;
                let member = |member: &pb::ValueSetMember| {
                    let mut pairs = matches(&member.r#match, |id| set.field_by_id(id))?;
                    // A member of anything is not the same as no member.
                    let mut fields = set.match_fields.iter();
                    if pairs.0.is_empty()
                        && let Some(field) = fields.find(|field| field.kind != MatchKind::Exact)
                    {
                        pairs.0.push((field.name.clone(), "*".to_owned()));
                    }
                    Ok::<_, NamedError>(pairs)
                };
                Self::ValueSet(ValueSetMembers {
                    value_set: set.alias.clone(),
                    members: wire.members.iter().map(member).collect::<Result<_, _>>()?,
                })
            }
            Kind::ExternEntry(wire) => {
                let found = index.extern_by_id(wire.extern_id)?;
                let any = wire.entry.clone().unwrap_or_default();
                Self::Extern(ExternEntry {
                    instance: format!("{}.{}", found.type_name, found.alias),
                    type_url: any.type_url,
                    bytes_hex: any.value.iter().map(|byte| format!("{byte:02x}")).collect(),
                })
            }
        })
    }
}

/// A table's entry, whatever it carries.
fn entry(wire: &pb::TableEntry, index: &P4InfoIndex) -> Result<Entry, NamedError> {
    let table = index.table_by_id(wire.table_id)?;
    let action = wire
        .action
        .as_ref()
        .and_then(|action| action.r#type.as_ref());
    let since = wire.time_since_last_hit.as_ref();
    Ok(Entry {
        table: table.alias.clone(),
        matches: matches(&wire.r#match, |id| table.field_by_id(id))?,
        action: action.map(|action| choice(action, index)).transpose()?,
        priority: wire.priority,
        idle_timeout: (wire.idle_timeout_ns != 0).then(|| show_duration(wire.idle_timeout_ns)),
        idle_for: since.map(|since| show_duration(since.elapsed_ns)),
        metadata: (!wire.metadata.is_empty()).then(|| metadata_hex(&wire.metadata)),
        meter: wire.meter_config.as_ref().map(rates),
        counter: wire.counter_data.as_ref().map(count),
    })
}

/// Every byte: metadata is opaque, and not a number.
fn metadata_hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

fn matches<'a>(
    wire: &[pb::FieldMatch],
    field: impl Fn(u32) -> Result<&'a crate::p4info::MatchField, P4InfoError>,
) -> Result<Pairs, NamedError> {
    let mut pairs = Vec::with_capacity(wire.len());
    for one in wire {
        let field = field(one.field_id)?;
        let text = format_match(one.field_match_type.as_ref(), field);
        pairs.push((field.id, (field.name.clone(), text)));
    }
    pairs.sort_by_key(|(id, _)| *id);
    Ok(Pairs(pairs.into_iter().map(|(_, pair)| pair).collect()))
}

fn choice(action: &pb::table_action::Type, index: &P4InfoIndex) -> Result<Choice, NamedError> {
    use pb::table_action::Type;
    Ok(match action {
        Type::Action(action) => Choice::Call(call(action, index)?),
        Type::ActionProfileMemberId(member) => Choice::Member { member: *member },
        Type::ActionProfileGroupId(group) => Choice::Group { group: *group },
        Type::ActionProfileActionSet(set) => {
            let member = |member: &pb::ActionProfileAction| {
                use pb::action_profile_action::WatchKind;
                #[allow(deprecated)] // servers before 1.4 still send the number
                let watch_port = member.watch_kind.as_ref().map(|kind| match kind {
                    WatchKind::WatchPort(port) => port_text(port),
                    WatchKind::Watch(port) => port.to_string(),
                });
                let action = member.action.as_ref();
                let action = action.map(|action| call(action, index)).transpose()?;
                Ok(Weighted {
                    weight: member.weight,
                    watch_port,
                    call: action.unwrap_or_default(),
                })
            };
            let members = set.action_profile_actions.iter().map(member);
            Choice::OneShot {
                one_shot: members.collect::<Result<_, NamedError>>()?,
            }
        }
    })
}

fn call(action: &pb::Action, index: &P4InfoIndex) -> Result<Call, NamedError> {
    let known = index.action_by_id(action.action_id)?;
    let mut params = Vec::with_capacity(action.params.len());
    for argument in &action.params {
        let param = known.param_by_id(argument.param_id)?;
        let text = format_value(&argument.value, param.bitwidth, param.format);
        params.push((param.id, (param.name.clone(), text)));
    }
    params.sort_by_key(|(id, _)| *id);
    Ok(Call {
        action: known.alias.clone(),
        params: Pairs(params.into_iter().map(|(_, pair)| pair).collect()),
    })
}

fn profile(id: u32, index: &P4InfoIndex) -> Result<String, P4InfoError> {
    match id {
        0 => Ok(String::new()),
        id => Ok(index.action_profile_by_id(id)?.alias.clone()),
    }
}

fn group(wire: &pb::ActionProfileGroup, index: &P4InfoIndex) -> Result<Group, NamedError> {
    let member = |member: &pb::action_profile_group::Member| {
        use pb::action_profile_group::member::WatchKind;
        #[allow(deprecated)] // servers before 1.4 still send the number
        let watch_port = member.watch_kind.as_ref().map(|kind| match kind {
            WatchKind::WatchPort(port) => port_text(port),
            WatchKind::Watch(port) => port.to_string(),
        });
        GroupMember {
            id: member.member_id,
            weight: member.weight,
            watch_port,
        }
    };
    Ok(Group {
        profile: profile(wire.action_profile_id, index)?,
        id: wire.group_id,
        members: wire.members.iter().map(member).collect(),
        max_size: wire.max_size,
    })
}

fn rates(wire: &pb::MeterConfig) -> Rates {
    Rates {
        cir: wire.cir,
        cburst: wire.cburst,
        pir: wire.pir,
        pburst: wire.pburst,
        eburst: wire.eburst,
    }
}

fn count(wire: &pb::CounterData) -> Count {
    Count {
        packets: wire.packet_count,
        bytes: wire.byte_count,
    }
}

/// `port`, or `port:instance` where the instance is not 0.
fn replica(wire: &pb::Replica) -> String {
    use pb::replica::PortKind;
    #[allow(deprecated)] // servers before 1.4 still send the number
    let port = match &wire.port_kind {
        Some(PortKind::Port(port)) => port_text(port),
        Some(PortKind::EgressPort(port)) => port.to_string(),
        None => "0".to_owned(),
    };
    match wire.instance {
        0 => port,
        instance => format!("{port}:{instance}"),
    }
}

/// A port has no width in P4Info where it stands by itself.
fn port_text(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=8 => format_value(bytes, 64, Format::Decimal),
        _ => hex(bytes),
    }
}
