//! The index over a whole P4Info, and the checks on the way in.

use std::collections::HashSet;
use std::sync::Arc;

use super::model::*;
use super::objects::{Named, Objects};
use super::{Object, P4InfoError, parse_p4info_text};
use crate::p4::config::v1 as pb;

/// A P4Info that has been checked (ids and names unique, references resolved,
/// widths given), with its objects by id, full name and alias. Cheap to clone.
#[derive(Clone, Debug)]
pub struct P4InfoIndex(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    info: pb::P4Info,
    tables: Objects<Table>,
    actions: Objects<Action>,
    action_profiles: Objects<ActionProfile>,
    counters: Objects<Counter>,
    direct_counters: Objects<DirectCounter>,
    meters: Objects<Meter>,
    direct_meters: Objects<DirectMeter>,
    registers: Objects<Register>,
    digests: Objects<Digest>,
    value_sets: Objects<ValueSet>,
    packet_headers: Objects<PacketHeader>,
}

macro_rules! lookups {
    ($($type:ident: $all:ident, $name:ident, $id:ident;)*) => {
        impl P4InfoIndex {
            $(
                /// All of this kind, in the program's order.
                pub fn $all(&self) -> &[$type] {
                    self.0.$all.items()
                }

                /// Finds one by its full name or alias.
                ///
                /// # Errors
                /// [`P4InfoError::UnknownName`], with the nearest name.
                pub fn $name(&self, name: &str) -> Result<&$type, P4InfoError> {
                    self.0.$all.by_name(name)
                }

                /// Finds one by its id.
                ///
                /// # Errors
                /// [`P4InfoError::UnknownId`].
                pub fn $id(&self, id: u32) -> Result<&$type, P4InfoError> {
                    self.0.$all.by_id(id)
                }
            )*
        }
    };
}

lookups! {
    Table: tables, table, table_by_id;
    Action: actions, action, action_by_id;
    ActionProfile: action_profiles, action_profile, action_profile_by_id;
    Counter: counters, counter, counter_by_id;
    DirectCounter: direct_counters, direct_counter, direct_counter_by_id;
    Meter: meters, meter, meter_by_id;
    DirectMeter: direct_meters, direct_meter, direct_meter_by_id;
    Register: registers, register, register_by_id;
    Digest: digests, digest, digest_by_id;
    ValueSet: value_sets, value_set, value_set_by_id;
    PacketHeader: packet_headers, packet_header, packet_header_by_id;
}

impl P4InfoIndex {
    /// Reads, checks and indexes a P4Info in protobuf text format.
    ///
    /// # Errors
    /// [`P4InfoError`]: what is wrong with the text or with the P4Info.
    pub fn from_text(text: &str) -> Result<Self, P4InfoError> {
        Self::new(parse_p4info_text(text)?)
    }

    /// Checks and indexes a P4Info.
    ///
    /// # Errors
    /// [`P4InfoError`]: the first thing that is wrong with it.
    pub fn new(info: pb::P4Info) -> Result<Self, P4InfoError> {
        let inner = Inner {
            tables: convert(&info.tables, table)?,
            actions: convert(&info.actions, action)?,
            action_profiles: convert(&info.action_profiles, action_profile)?,
            counters: convert(&info.counters, counter)?,
            direct_counters: convert(&info.direct_counters, direct_counter)?,
            meters: convert(&info.meters, meter)?,
            direct_meters: convert(&info.direct_meters, direct_meter)?,
            registers: convert(&info.registers, register)?,
            digests: convert(&info.digests, digest)?,
            value_sets: convert(&info.value_sets, value_set)?,
            packet_headers: convert(&info.controller_packet_metadata, packet_header)?,
            info,
        };
        inner.check_references()?;
        Ok(Self(Arc::new(inner)))
    }

    /// The P4Info itself.
    pub fn p4info(&self) -> &pb::P4Info {
        &self.0.info
    }

    /// The direct counter of a table, if it has one.
    pub fn direct_counter_of(&self, table: &Table) -> Option<&DirectCounter> {
        let of = |id: &u32| self.0.direct_counters.by_id(*id).ok();
        table.direct_resources.iter().find_map(of)
    }

    /// The direct meter of a table, if it has one.
    pub fn direct_meter_of(&self, table: &Table) -> Option<&DirectMeter> {
        let of = |id: &u32| self.0.direct_meters.by_id(*id).ok();
        table.direct_resources.iter().find_map(of)
    }
}

impl Inner {
    fn check_references(&self) -> Result<(), P4InfoError> {
        for table in self.tables.items() {
            let fault = |fault: P4InfoError| invalid(table, fault.to_string());
            for action in &table.actions {
                self.actions.by_id(action.id).map_err(fault)?;
            }
            if let Some(id) = table.const_default_action {
                self.actions.by_id(id).map_err(fault)?;
            }
            if let Some(id) = table.implementation {
                self.action_profiles.by_id(id).map_err(fault)?;
            }
        }
        for counter in self.direct_counters.items() {
            self.tables
                .by_id(counter.table_id)
                .map_err(|fault| invalid(counter, fault.to_string()))?;
        }
        for meter in self.direct_meters.items() {
            self.tables
                .by_id(meter.table_id)
                .map_err(|fault| invalid(meter, fault.to_string()))?;
        }
        Ok(())
    }
}

fn convert<P, T: Named>(
    messages: &[P],
    one: fn(&P) -> Result<T, P4InfoError>,
) -> Result<Objects<T>, P4InfoError> {
    Objects::new(messages.iter().map(one).collect::<Result<Vec<T>, _>>()?)
}

fn invalid<T: Named>(item: &T, fault: String) -> P4InfoError {
    fault_of(T::OBJECT, item.name(), fault)
}

fn fault_of(object: Object, name: &str, fault: impl Into<String>) -> P4InfoError {
    P4InfoError::Invalid {
        object,
        name: name.to_owned(),
        fault: fault.into(),
    }
}

/// Id, name and alias. A P4Info without an alias gets the name for one.
fn preamble(
    object: Object,
    preamble: Option<&pb::Preamble>,
) -> Result<(u32, String, String), P4InfoError> {
    let preamble = preamble.ok_or_else(|| fault_of(object, "", "no preamble"))?;
    if preamble.id == 0 {
        return Err(fault_of(object, &preamble.name, "its id is 0"));
    }
    if preamble.name.is_empty() {
        return Err(fault_of(object, &format!("{:#x}", preamble.id), "no name"));
    }
    let alias = match preamble.alias.as_str() {
        "" => preamble.name.clone(),
        alias => alias.to_owned(),
    };
    Ok((preamble.id, preamble.name.clone(), alias))
}

/// A width in bits. Only a type that the controller sees as a string has none.
fn bitwidth(
    object: Object,
    name: &str,
    bits: i32,
    type_name: Option<&pb::P4NamedType>,
) -> Result<u32, P4InfoError> {
    match u32::try_from(bits) {
        Ok(0) if type_name.is_none() => Err(fault_of(object, name, "its width is 0 bits")),
        Ok(bits) => Ok(bits),
        Err(_) => Err(fault_of(object, name, format!("its width is {bits} bits"))),
    }
}

fn size(object: Object, name: &str, size: i64) -> Result<u64, P4InfoError> {
    u64::try_from(size).map_err(|_| fault_of(object, name, format!("its size is {size}")))
}

/// Ids of fields and parameters are unique within their owner.
fn unique_parts<T: Named>(owner: &str, parts: &[T]) -> Result<(), P4InfoError> {
    let mut ids = HashSet::with_capacity(parts.len());
    match parts
        .iter()
        .find(|part| part.id() == 0 || !ids.insert(part.id()))
    {
        None => Ok(()),
        Some(part) => Err(P4InfoError::DuplicateId {
            object: T::OBJECT,
            name: format!("{owner}.{}", part.name()),
            id: part.id(),
        }),
    }
}

fn match_field(field: &pb::MatchField) -> Result<MatchField, P4InfoError> {
    use pb::match_field::{Match, MatchType};
    let kind = match &field.r#match {
        Some(Match::OtherMatchType(kind)) => MatchKind::Other(kind.clone()),
        Some(Match::MatchType(kind)) => match MatchType::try_from(*kind) {
            Ok(MatchType::Exact) => MatchKind::Exact,
            Ok(MatchType::Lpm) => MatchKind::Lpm,
            Ok(MatchType::Ternary) => MatchKind::Ternary,
            Ok(MatchType::Range) => MatchKind::Range,
            Ok(MatchType::Optional) => MatchKind::Optional,
            Ok(MatchType::Unspecified) | Err(_) => {
                let fault = format!("match type {kind} is not one");
                return Err(fault_of(Object::MatchField, &field.name, fault));
            }
        },
        None => return Err(fault_of(Object::MatchField, &field.name, "no match type")),
    };
    Ok(MatchField {
        id: field.id,
        name: field.name.clone(),
        bitwidth: bitwidth(
            Object::MatchField,
            &field.name,
            field.bitwidth,
            field.type_name.as_ref(),
        )?,
        kind,
        type_name: field.type_name.as_ref().map(|named| named.name.clone()),
    })
}

fn table(table: &pb::Table) -> Result<Table, P4InfoError> {
    use pb::action_ref::Scope;
    let (id, name, alias) = preamble(Object::Table, table.preamble.as_ref())?;
    let match_fields = table
        .match_fields
        .iter()
        .map(match_field)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|fault| fault_of(Object::Table, &name, fault.to_string()))?;
    unique_parts(&name, &match_fields)?;
    let actions = table.action_refs.iter().map(|action| ActionRef {
        id: action.id,
        scope: match action.scope() {
            Scope::TableAndDefault => ActionScope::TableAndDefault,
            Scope::TableOnly => ActionScope::TableOnly,
            Scope::DefaultOnly => ActionScope::DefaultOnly,
            Scope::GroupAction => ActionScope::GroupAction,
        },
    });
    Ok(Table {
        id,
        size: size(Object::Table, &name, table.size)?,
        name,
        alias,
        match_fields,
        actions: actions.collect(),
        const_default_action: nonzero(table.const_default_action_id),
        idle_timeout: table.idle_timeout_behavior()
            == pb::table::IdleTimeoutBehavior::NotifyControl,
        is_const: table.is_const_table,
        has_initial_entries: table.has_initial_entries,
        implementation: nonzero(table.implementation_id),
        direct_resources: table.direct_resource_ids.clone(),
    })
}

fn nonzero(id: u32) -> Option<u32> {
    (id != 0).then_some(id)
}

fn action(action: &pb::Action) -> Result<Action, P4InfoError> {
    let (id, name, alias) = preamble(Object::Action, action.preamble.as_ref())?;
    let params = action
        .params
        .iter()
        .map(|param| {
            Ok(Param {
                id: param.id,
                name: param.name.clone(),
                bitwidth: bitwidth(
                    Object::Param,
                    &param.name,
                    param.bitwidth,
                    param.type_name.as_ref(),
                )?,
                type_name: param.type_name.as_ref().map(|named| named.name.clone()),
            })
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|fault: P4InfoError| fault_of(Object::Action, &name, fault.to_string()))?;
    unique_parts(&name, &params)?;
    Ok(Action {
        id,
        name,
        alias,
        params,
    })
}

fn action_profile(profile: &pb::ActionProfile) -> Result<ActionProfile, P4InfoError> {
    let (id, name, alias) = preamble(Object::ActionProfile, profile.preamble.as_ref())?;
    Ok(ActionProfile {
        id,
        size: size(Object::ActionProfile, &name, profile.size)?,
        max_group_size: u32::try_from(profile.max_group_size)
            .map_err(|_| fault_of(Object::ActionProfile, &name, "its group size is negative"))?,
        name,
        alias,
        table_ids: profile.table_ids.clone(),
        with_selector: profile.with_selector,
    })
}

fn counter_unit(spec: Option<&pb::CounterSpec>) -> pb::counter_spec::Unit {
    spec.map(pb::CounterSpec::unit).unwrap_or_default()
}

fn meter_unit(spec: Option<&pb::MeterSpec>) -> pb::meter_spec::Unit {
    spec.map(pb::MeterSpec::unit).unwrap_or_default()
}

fn counter(counter: &pb::Counter) -> Result<Counter, P4InfoError> {
    let (id, name, alias) = preamble(Object::Counter, counter.preamble.as_ref())?;
    Ok(Counter {
        id,
        size: size(Object::Counter, &name, counter.size)?,
        name,
        alias,
        unit: counter_unit(counter.spec.as_ref()),
    })
}

fn direct_counter(counter: &pb::DirectCounter) -> Result<DirectCounter, P4InfoError> {
    let (id, name, alias) = preamble(Object::DirectCounter, counter.preamble.as_ref())?;
    Ok(DirectCounter {
        id,
        name,
        alias,
        unit: counter_unit(counter.spec.as_ref()),
        table_id: counter.direct_table_id,
    })
}

fn meter(meter: &pb::Meter) -> Result<Meter, P4InfoError> {
    let (id, name, alias) = preamble(Object::Meter, meter.preamble.as_ref())?;
    Ok(Meter {
        id,
        size: size(Object::Meter, &name, meter.size)?,
        name,
        alias,
        unit: meter_unit(meter.spec.as_ref()),
    })
}

fn direct_meter(meter: &pb::DirectMeter) -> Result<DirectMeter, P4InfoError> {
    let (id, name, alias) = preamble(Object::DirectMeter, meter.preamble.as_ref())?;
    Ok(DirectMeter {
        id,
        name,
        alias,
        unit: meter_unit(meter.spec.as_ref()),
        table_id: meter.direct_table_id,
    })
}

fn register(register: &pb::Register) -> Result<Register, P4InfoError> {
    let (id, name, alias) = preamble(Object::Register, register.preamble.as_ref())?;
    Ok(Register {
        id,
        size: size(Object::Register, &name, register.size.into())?,
        name,
        alias,
    })
}

fn digest(digest: &pb::Digest) -> Result<Digest, P4InfoError> {
    let (id, name, alias) = preamble(Object::Digest, digest.preamble.as_ref())?;
    Ok(Digest { id, name, alias })
}

fn value_set(set: &pb::ValueSet) -> Result<ValueSet, P4InfoError> {
    let (id, name, alias) = preamble(Object::ValueSet, set.preamble.as_ref())?;
    Ok(ValueSet {
        id,
        size: size(Object::ValueSet, &name, set.size.into())?,
        name,
        alias,
    })
}

fn packet_header(header: &pb::ControllerPacketMetadata) -> Result<PacketHeader, P4InfoError> {
    let (id, name, alias) = preamble(Object::PacketHeader, header.preamble.as_ref())?;
    let fields = header
        .metadata
        .iter()
        .map(|field| {
            Ok(PacketField {
                id: field.id,
                name: field.name.clone(),
                bitwidth: bitwidth(
                    Object::PacketField,
                    &field.name,
                    field.bitwidth,
                    field.type_name.as_ref(),
                )?,
            })
        })
        .collect::<Result<Vec<_>, P4InfoError>>()?;
    unique_parts(&name, &fields)?;
    Ok(PacketHeader {
        id,
        name,
        alias,
        fields,
    })
}
