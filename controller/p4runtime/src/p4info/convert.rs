//! From the messages of a P4Info to the model, checked.

use std::collections::{HashMap, HashSet};

use super::annotation::references;
use super::data::{Types, data_type, format_of, new_type_formats};
use super::model::*;
use super::objects::{Named, Objects};
use super::{Object, P4InfoError};
use crate::p4::config::v1 as pb;
use crate::value::Format;

/// What the program says about its types.
pub(super) struct Context {
    types: Types,
    new_types: HashMap<String, Vec<Format>>,
}

impl Context {
    pub(super) fn new(types: Option<&Types>) -> Self {
        Self {
            types: types.cloned().unwrap_or_default(),
            new_types: new_type_formats(types),
        }
    }

    /// `@format` of the field itself, of its type, or a guess.
    fn format(
        &self,
        bitwidth: u32,
        name: &str,
        (plain, structured): (&[String], &[pb::StructuredAnnotation]),
        type_name: Option<&pb::P4NamedType>,
    ) -> Format {
        let type_name = type_name.map(|named| named.name.as_str());
        let of_type = || {
            let formats = self.new_types.get(type_name?)?;
            formats.iter().copied().find(|format| format.fits(bitwidth))
        };
        format_of(plain, structured, bitwidth)
            .or_else(of_type)
            .unwrap_or_else(|| Format::guess(bitwidth, name, type_name))
    }
}

pub(super) fn convert<P, T: Named>(
    messages: &[P],
    one: impl Fn(&P) -> Result<T, P4InfoError>,
) -> Result<Objects<T>, P4InfoError> {
    Objects::new(messages.iter().map(one).collect::<Result<Vec<T>, _>>()?)
}

pub(super) fn invalid<T: Named>(item: &T, fault: String) -> P4InfoError {
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

fn match_field(field: &pb::MatchField, context: &Context) -> Result<MatchField, P4InfoError> {
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
    let type_name = field.type_name.as_ref();
    let bitwidth = bitwidth(Object::MatchField, &field.name, field.bitwidth, type_name)?;
    let annotations = (&field.annotations[..], &field.structured_annotations[..]);
    Ok(MatchField {
        id: field.id,
        name: field.name.clone(),
        bitwidth,
        kind,
        type_name: type_name.map(|named| named.name.clone()),
        format: context.format(bitwidth, &field.name, annotations, type_name),
        refers_to: references(annotations.0, annotations.1),
    })
}

pub(super) fn table(table: &pb::Table, context: &Context) -> Result<Table, P4InfoError> {
    use pb::action_ref::Scope;
    let (id, name, alias) = preamble(Object::Table, table.preamble.as_ref())?;
    let match_fields = table
        .match_fields
        .iter()
        .map(|field| match_field(field, context))
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

pub(super) fn action(action: &pb::Action, context: &Context) -> Result<Action, P4InfoError> {
    let (id, name, alias) = preamble(Object::Action, action.preamble.as_ref())?;
    let params = action
        .params
        .iter()
        .map(|param| {
            let type_name = param.type_name.as_ref();
            let bitwidth = bitwidth(Object::Param, &param.name, param.bitwidth, type_name)?;
            let annotations = (&param.annotations[..], &param.structured_annotations[..]);
            Ok(Param {
                id: param.id,
                name: param.name.clone(),
                bitwidth,
                type_name: type_name.map(|named| named.name.clone()),
                format: context.format(bitwidth, &param.name, annotations, type_name),
                refers_to: references(annotations.0, annotations.1),
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

pub(super) fn action_profile(profile: &pb::ActionProfile) -> Result<ActionProfile, P4InfoError> {
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

pub(super) fn counter(counter: &pb::Counter) -> Result<Counter, P4InfoError> {
    let (id, name, alias) = preamble(Object::Counter, counter.preamble.as_ref())?;
    Ok(Counter {
        id,
        size: size(Object::Counter, &name, counter.size)?,
        name,
        alias,
        unit: counter_unit(counter.spec.as_ref()),
    })
}

pub(super) fn direct_counter(counter: &pb::DirectCounter) -> Result<DirectCounter, P4InfoError> {
    let (id, name, alias) = preamble(Object::DirectCounter, counter.preamble.as_ref())?;
    Ok(DirectCounter {
        id,
        name,
        alias,
        unit: counter_unit(counter.spec.as_ref()),
        table_id: counter.direct_table_id,
    })
}

pub(super) fn meter(meter: &pb::Meter) -> Result<Meter, P4InfoError> {
    let (id, name, alias) = preamble(Object::Meter, meter.preamble.as_ref())?;
    Ok(Meter {
        id,
        size: size(Object::Meter, &name, meter.size)?,
        name,
        alias,
        unit: meter_unit(meter.spec.as_ref()),
    })
}

pub(super) fn direct_meter(meter: &pb::DirectMeter) -> Result<DirectMeter, P4InfoError> {
    let (id, name, alias) = preamble(Object::DirectMeter, meter.preamble.as_ref())?;
    Ok(DirectMeter {
        id,
        name,
        alias,
        unit: meter_unit(meter.spec.as_ref()),
        table_id: meter.direct_table_id,
    })
}

pub(super) fn register(
    register: &pb::Register,
    context: &Context,
) -> Result<Register, P4InfoError> {
    let (id, name, alias) = preamble(Object::Register, register.preamble.as_ref())?;
    Ok(Register {
        id,
        size: size(Object::Register, &name, register.size.into())?,
        data: data_type(register.type_spec.as_ref(), &context.types, &alias),
        name,
        alias,
    })
}

pub(super) fn digest(digest: &pb::Digest, context: &Context) -> Result<Digest, P4InfoError> {
    let (id, name, alias) = preamble(Object::Digest, digest.preamble.as_ref())?;
    let data = data_type(digest.type_spec.as_ref(), &context.types, &alias);
    Ok(Digest {
        id,
        name,
        alias,
        data,
    })
}

pub(super) fn value_set(set: &pb::ValueSet, context: &Context) -> Result<ValueSet, P4InfoError> {
    let (id, name, alias) = preamble(Object::ValueSet, set.preamble.as_ref())?;
    let match_fields = set
        .r#match
        .iter()
        .map(|field| {
            let mut field = match_field(field, context)?;
            // A set of plain values, not of structs: the program has no name for the field.
            if field.name.is_empty() {
                field.name = "value".to_owned();
            }
            Ok(field)
        })
        .collect::<Result<Vec<_>, P4InfoError>>()
        .map_err(|fault| fault_of(Object::ValueSet, &name, fault.to_string()))?;
    unique_parts(&name, &match_fields)?;
    Ok(ValueSet {
        id,
        match_fields,
        size: size(Object::ValueSet, &name, set.size.into())?,
        name,
        alias,
    })
}

pub(super) fn packet_header(
    header: &pb::ControllerPacketMetadata,
    context: &Context,
) -> Result<PacketHeader, P4InfoError> {
    let (id, name, alias) = preamble(Object::PacketHeader, header.preamble.as_ref())?;
    let fields = header
        .metadata
        .iter()
        .map(|field| {
            let type_name = field.type_name.as_ref();
            let bitwidth = bitwidth(Object::PacketField, &field.name, field.bitwidth, type_name)?;
            let annotations = (&field.annotations[..], &field.structured_annotations[..]);
            Ok(PacketField {
                id: field.id,
                name: field.name.clone(),
                bitwidth,
                format: context.format(bitwidth, &field.name, annotations, type_name),
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

/// The instances of every extern type, one after the other.
pub(super) fn externs(externs: &[pb::Extern]) -> Result<Vec<Extern>, P4InfoError> {
    let of = |one: &pb::Extern| {
        let type_id = one.extern_type_id;
        let type_name = one.extern_type_name.clone();
        let instance = move |instance: &pb::ExternInstance| {
            let (id, name, alias) = preamble(Object::Extern, instance.preamble.as_ref())?;
            Ok(Extern {
                id,
                name,
                alias,
                type_id,
                type_name: type_name.clone(),
            })
        };
        one.instances.iter().map(instance).collect::<Vec<_>>()
    };
    externs.iter().flat_map(of).collect()
}
