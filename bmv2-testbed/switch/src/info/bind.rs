//! Checks a P4Info against the program it is said to describe.

use std::collections::HashMap;

use p4runtime::p4::config::v1 as pb;
use pb::action_profile::SelectorSizeSemantics;

use super::{
    ActionInfo, ArrayInfo, DataKind, FieldInfo, Info, PacketField, ParamInfo, ProfileInfo, Scope,
    SizeBy, TableInfo,
};
use crate::program::error::{LoadError, malformed, unsupported};
use crate::program::table::Match;
use crate::program::{Array, Program};

pub(super) fn preamble<'a>(
    preamble: &'a Option<pb::Preamble>,
    what: &str,
) -> Result<&'a pb::Preamble, LoadError> {
    preamble
        .as_ref()
        .filter(|p| p.id != 0)
        .ok_or_else(|| malformed(format!("P4Info {what}"), "it has no id"))
}

fn missing(what: &'static str, name: &str) -> LoadError {
    LoadError::Unknown {
        what,
        name: name.to_owned(),
        place: "the JSON, though the P4Info has it".into(),
    }
}

pub(super) fn width_of(width: i32, place: &str) -> Result<u16, LoadError> {
    u16::try_from(width)
        .ok()
        .filter(|w| *w > 0)
        .ok_or_else(|| unsupported("value without a width (a translated string?)", place))
}

impl Info {
    /// Binds a P4Info to a program.
    pub(crate) fn bind(p4info: pb::P4Info, program: &Program) -> Result<Self, LoadError> {
        let mut info = Self::default();
        info.bind_actions(&p4info, program)?;
        info.bind_profiles(&p4info, program)?;
        for table in &p4info.tables {
            let Some(bound) = info.bind_table(table, program)? else {
                // The compiler leaves tables out of the JSON that no packet can reach.
                continue;
            };
            info.table_ids.push(bound.id);
            info.table_by_index.insert(bound.index, bound.id);
            if info.tables.insert(bound.id, bound).is_some() {
                return Err(malformed("P4Info", "two tables have one id"));
            }
        }
        if info.tables.is_empty()
            && program.tables.iter().any(|t| !t.key.is_empty())
            && let Some(table) = p4info.tables.first()
        {
            return Err(missing("table", &preamble(&table.preamble, "table")?.name));
        }
        info.bind_resources(&p4info, program)?;
        info.bind_value_sets(&p4info, program)?;
        for header in &p4info.controller_packet_metadata {
            let name = preamble(&header.preamble, "packet metadata")?.name.clone();
            let mut fields = Vec::new();
            for field in &header.metadata {
                fields.push(PacketField {
                    id: field.id,
                    name: field.name.clone(),
                    width: width_of(field.bitwidth, &format!("{name}.{}", field.name))?,
                });
            }
            match name.as_str() {
                "packet_in" => info.packet_in = fields,
                "packet_out" => info.packet_out = fields,
                _ => {}
            }
        }
        info.p4info = p4info;
        Ok(info)
    }

    fn bind_actions(&mut self, p4info: &pb::P4Info, program: &Program) -> Result<(), LoadError> {
        for action in &p4info.actions {
            let head = preamble(&action.preamble, "action")?;
            // Several actions of the JSON may bear one name; their parameters are alike.
            let found = program.actions.iter().find(|a| a.name == head.name);
            let mut params = Vec::new();
            for (i, param) in action.params.iter().enumerate() {
                let place = format!("parameter {} of action {}", param.name, head.name);
                let width = width_of(param.bitwidth, &place)?;
                params.push(ParamInfo {
                    id: param.id,
                    name: param.name.clone(),
                    width,
                    program_width: found.and_then(|a| a.params.get(i)).map_or(width, |p| p.1),
                });
            }
            if let Some(found) = found
                && found.params.len() != params.len()
            {
                return Err(malformed(
                    format!("P4Info action {}", head.name),
                    format!(
                        "it has {} parameters, the JSON's has {}",
                        params.len(),
                        found.params.len()
                    ),
                ));
            }
            self.actions.insert(
                head.id,
                ActionInfo {
                    name: head.name.clone(),
                    params,
                },
            );
        }
        Ok(())
    }

    fn bind_profiles(&mut self, p4info: &pb::P4Info, program: &Program) -> Result<(), LoadError> {
        for profile in &p4info.action_profiles {
            let head = preamble(&profile.preamble, "action profile")?;
            let Some(index) = program.profiles.iter().position(|p| p.name == head.name) else {
                // A profile that no table applies is left out of the JSON.
                continue;
            };
            let limit = program.profiles.get(index).map_or(0, |p| p.max_size);
            self.profiles.insert(
                head.id,
                ProfileInfo {
                    id: head.id,
                    name: head.name.clone(),
                    index,
                    with_selector: profile.with_selector,
                    size: usize::try_from(profile.size)
                        .ok()
                        .filter(|s| *s > 0)
                        .unwrap_or(limit),
                    max_group_size: usize::try_from(profile.max_group_size).unwrap_or(0),
                    weights_disallowed: profile.weights_disallowed,
                    size_by: match &profile.selector_size_semantics {
                        Some(SelectorSizeSemantics::SumOfMembers(sum)) => SizeBy::Members {
                            max_weight: sum.max_member_weight,
                        },
                        _ => SizeBy::Weights,
                    },
                    table: profile.table_ids.first().copied().unwrap_or(0),
                },
            );
        }
        Ok(())
    }

    /// Binds a table; none if the JSON does not have it.
    fn bind_table(
        &self,
        table: &pb::Table,
        program: &Program,
    ) -> Result<Option<TableInfo>, LoadError> {
        let head = preamble(&table.preamble, "table")?;
        let place = format!("P4Info table {}", head.name);
        let mut tables = program.tables.iter().enumerate();
        let Some((index, compiled)) = tables.find(|(_, t)| t.name == head.name) else {
            return Ok(None);
        };
        if compiled.key.len() != table.match_fields.len() {
            return Err(malformed(&place, "its key and the JSON's differ in length"));
        }
        let mut fields = Vec::new();
        for (i, field) in table.match_fields.iter().enumerate() {
            let key = compiled
                .key
                .iter()
                .find(|k| k.name == field.name)
                .or_else(|| compiled.key.get(i))
                .ok_or_else(|| missing("match field", &field.name))?;
            let kind = match_kind(field, &place)?;
            // The JSON may have an optional field as a ternary one.
            if kind != key.kind && (kind, key.kind) != (Match::Optional, Match::Ternary) {
                return Err(malformed(
                    &place,
                    format!("field {} does not match as in the JSON", field.name),
                ));
            }
            fields.push(FieldInfo {
                id: field.id,
                name: field.name.clone(),
                kind,
                // Enumerations and errors have no width in the P4Info.
                width: if field.bitwidth == 0 && field.type_name.is_none() {
                    key.field.width
                } else {
                    width_of(field.bitwidth, &format!("field {} of {place}", field.name))?
                },
                offset: key.offset,
                bytes: key.bytes,
                program_width: key.field.width,
            });
        }
        let mut actions = HashMap::new();
        let mut action_ids = vec![0; compiled.actions.len()];
        for action in &table.action_refs {
            let name = self.actions.get(&action.id).map(|a| a.name.as_str());
            let name = name.ok_or_else(|| malformed(&place, "it refers to an unknown action"))?;
            let slot = compiled
                .actions
                .iter()
                .position(|a| program.actions.get(*a).is_some_and(|a| a.name == name));
            let slot = slot.ok_or_else(|| missing("action", name))?;
            if let Some(id) = action_ids.get_mut(slot) {
                *id = action.id;
            }
            let scope = match pb::action_ref::Scope::try_from(action.scope) {
                Ok(pb::action_ref::Scope::TableOnly) => Scope::TableOnly,
                Ok(pb::action_ref::Scope::DefaultOnly) => Scope::DefaultOnly,
                _ => Scope::TableAndDefault,
            };
            let slot = u16::try_from(slot)
                .map_err(|_| unsupported("table of more than 65535 actions", &place))?;
            actions.insert(action.id, (slot, scope));
        }
        let needs_priority = fields
            .iter()
            .any(|f| matches!(f.kind, Match::Ternary | Match::Range | Match::Optional));
        let notify = pb::table::IdleTimeoutBehavior::NotifyControl as i32;
        Ok(Some(TableInfo {
            id: head.id,
            name: head.name.clone(),
            index,
            fields,
            actions,
            action_ids,
            needs_priority,
            const_default: table.const_default_action_id != 0 || compiled.const_default,
            is_const: table.is_const_table
                || (!compiled.entries.is_empty() && !table.has_initial_entries),
            profile: (table.implementation_id != 0).then_some(table.implementation_id),
            has_counter: false,
            has_meter: false,
            idle_timeout: table.idle_timeout_behavior == notify,
        }))
    }

    fn bind_resources(&mut self, p4info: &pb::P4Info, program: &Program) -> Result<(), LoadError> {
        for counter in &p4info.direct_counters {
            let head = preamble(&counter.preamble, "direct counter")?;
            if let Some(table) = self.tables.get_mut(&counter.direct_table_id) {
                table.has_counter = true;
                self.direct_counters
                    .insert(head.id, counter.direct_table_id);
            }
        }
        for meter in &p4info.direct_meters {
            let head = preamble(&meter.preamble, "direct meter")?;
            if let Some(table) = self.tables.get_mut(&meter.direct_table_id) {
                check_rates(meter.spec.as_ref(), &head.name)?;
                table.has_meter = true;
                self.direct_meters.insert(head.id, meter.direct_table_id);
            }
        }
        for counter in &p4info.counters {
            let head = preamble(&counter.preamble, "counter")?;
            let array = array(&program.counters, head, "counter")?;
            self.counters.insert(head.id, array);
        }
        for meter in &p4info.meters {
            let head = preamble(&meter.preamble, "meter")?;
            let array = array(&program.meters, head, "meter")?;
            check_rates(meter.spec.as_ref(), &head.name)?;
            self.meters.insert(head.id, array);
        }
        for register in &p4info.registers {
            let head = preamble(&register.preamble, "register")?;
            let mut array = array(&program.registers, head, "register")?;
            array.data = data_kind(register, &head.name)?;
            self.registers.insert(head.id, array);
        }
        for digest in &p4info.digests {
            let head = preamble(&digest.preamble, "digest")?;
            let list = program.digests.iter().find(|(_, d)| d.0 == head.name);
            if let Some((list, _)) = list {
                self.digests.insert(*list, (head.id, head.name.clone()));
            }
        }
        Ok(())
    }
}

fn array(
    arrays: &[Array],
    head: &pb::Preamble,
    what: &'static str,
) -> Result<ArrayInfo, LoadError> {
    let index = arrays.iter().position(|a| a.name == head.name);
    let (index, found) = index
        .and_then(|i| Some((i, arrays.get(i)?)))
        .ok_or_else(|| missing(what, &head.name))?;
    Ok(ArrayInfo {
        name: head.name.clone(),
        index,
        size: found.size,
        width: found.width,
        data: DataKind::Bits,
    })
}

/// What a register's cells are on the wire.
fn data_kind(register: &pb::Register, name: &str) -> Result<DataKind, LoadError> {
    use pb::p4_bitstring_like_type_spec::TypeSpec as Bits;
    use pb::p4_data_type_spec::TypeSpec;
    let spec = register
        .type_spec
        .as_ref()
        .and_then(|s| s.type_spec.as_ref());
    match spec {
        None => Ok(DataKind::Bits),
        Some(TypeSpec::Bitstring(bits)) => match bits.type_spec {
            Some(Bits::Int(_)) => Ok(DataKind::Signed),
            _ => Ok(DataKind::Bits),
        },
        // Without a look into the type's definition: v1model's registers are of bit strings.
        Some(TypeSpec::NewType(_)) => Ok(DataKind::Bits),
        Some(TypeSpec::Bool(_)) => Ok(DataKind::Bool),
        Some(TypeSpec::SerializableEnum(_)) => Ok(DataKind::Enum),
        Some(_) => Err(unsupported(
            "register of something else than a bit string, a boolean or an enumeration with values",
            format!("P4Info register {name}"),
        )),
    }
}

/// v1model's meters have two rates. One of a single rate and two colours is the same with both
/// rates alike.
fn check_rates(spec: Option<&pb::MeterSpec>, name: &str) -> Result<(), LoadError> {
    use pb::meter_spec::Type;
    match spec.map(|s| s.r#type()) {
        Some(Type::SingleRateThreeColor) => Err(unsupported(
            "meter of a single rate and three colours",
            format!("P4Info meter {name}"),
        )),
        _ => Ok(()),
    }
}

pub(super) fn match_kind(field: &pb::MatchField, place: &str) -> Result<Match, LoadError> {
    use pb::match_field::{Match as Kind, MatchType};
    let kind = match &field.r#match {
        Some(Kind::MatchType(kind)) => MatchType::try_from(*kind).ok(),
        _ => None,
    };
    match kind {
        Some(MatchType::Exact) => Ok(Match::Exact),
        Some(MatchType::Lpm) => Ok(Match::Lpm),
        Some(MatchType::Ternary) => Ok(Match::Ternary),
        Some(MatchType::Range) => Ok(Match::Range),
        Some(MatchType::Optional) => Ok(Match::Optional),
        _ => Err(unsupported(
            format!("match kind of field {}", field.name),
            place,
        )),
    }
}
