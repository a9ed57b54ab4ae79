//! Canonical entities: what two entities must look like before they are compared.

use super::{ValueError, canonical, strip};
use crate::p4::v1 as pb;
use crate::p4::v1::entity::Entity as Kind;
use crate::p4::v1::field_match::FieldMatchType;
use crate::p4::v1::table_action::Type as ActionKind;
use crate::p4info::{MatchField, MatchKind, P4InfoError, P4InfoIndex};

/// An entity that does not fit the P4Info.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntityError {
    /// An id that the P4Info does not have.
    #[error(transparent)]
    Unknown(#[from] P4InfoError),
    /// A value that does not fit its field or parameter.
    #[error("{owner:?}, {part:?}: {source}")]
    Value {
        /// The table, action or value set.
        owner: String,
        /// The match field or parameter.
        part: String,
        /// What is wrong with it.
        source: ValueError,
    },
    /// A match of another kind than the field's, or of none.
    #[error("{owner}, field {field:?}: the match is not {kind}")]
    MatchKind {
        /// Such as `table "flow4"`.
        owner: String,
        /// The match field.
        field: String,
        /// The field's kind.
        kind: MatchKind,
    },
    /// A field or parameter that is given twice.
    #[error("{owner:?} has {part:?} twice")]
    Twice {
        /// The table or action.
        owner: String,
        /// The match field or parameter.
        part: String,
    },
}

/// The key of a table entry (P4Runtime 9.1): table, match and priority. Taken
/// from a canonical entry, two keys are equal exactly when the entries' are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryKey {
    /// The table's id.
    pub table_id: u32,
    /// The priority; 0 in tables without.
    pub priority: i32,
    /// Whether this is the table's default entry, which has no match.
    pub is_default_action: bool,
    /// The match fields, by id, don't-cares left out.
    pub matches: Vec<pb::FieldMatch>,
}

impl EntryKey {
    /// The key of a canonical entry.
    pub fn of(entry: &pb::TableEntry) -> Self {
        Self {
            table_id: entry.table_id,
            priority: entry.priority,
            is_default_action: entry.is_default_action,
            matches: entry.r#match.clone(),
        }
    }
}

/// Makes an entity canonical: byte strings in their shortest form, match fields
/// and parameters by id, don't-care matches left out, masked-off bits 0, members,
/// replicas and value sets in order.
///
/// # Errors
/// [`EntityError`], where it does not fit the P4Info; the entity is then partly
/// changed.
pub fn canonicalize_entity(
    entity: &mut pb::Entity,
    index: &P4InfoIndex,
) -> Result<(), EntityError> {
    match &mut entity.entity {
        Some(Kind::TableEntry(entry)) => canonicalize_table_entry(entry, index),
        Some(Kind::DirectCounterEntry(counter)) => match &mut counter.table_entry {
            Some(entry) => canonicalize_table_entry(entry, index),
            None => Ok(()),
        },
        Some(Kind::DirectMeterEntry(meter)) => match &mut meter.table_entry {
            Some(entry) => canonicalize_table_entry(entry, index),
            None => Ok(()),
        },
        Some(Kind::ActionProfileMember(member)) => match &mut member.action {
            Some(action) => canonicalize_action(action, index),
            None => Ok(()),
        },
        Some(Kind::ActionProfileGroup(group)) => {
            group.members.sort_by_key(|member| member.member_id);
            Ok(())
        }
        Some(Kind::PacketReplicationEngineEntry(entry)) => {
            use pb::packet_replication_engine_entry::Type;
            match &mut entry.r#type {
                Some(Type::MulticastGroupEntry(group)) => {
                    canonicalize_replicas(&mut group.replicas)
                }
                Some(Type::CloneSessionEntry(session)) => {
                    canonicalize_replicas(&mut session.replicas);
                }
                None => {}
            }
            Ok(())
        }
        Some(Kind::ValueSetEntry(entry)) => canonicalize_value_set(entry, index),
        Some(Kind::RegisterEntry(register)) => {
            register.data.iter_mut().for_each(canonicalize_data);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The members are a set: they have no order.
fn canonicalize_value_set(
    entry: &mut pb::ValueSetEntry,
    index: &P4InfoIndex,
) -> Result<(), EntityError> {
    // 0 is the wildcard of a Read.
    if entry.value_set_id == 0 {
        return Ok(());
    }
    let set = index.value_set_by_id(entry.value_set_id)?;
    for member in &mut entry.members {
        canonicalize_matches(&mut member.r#match, ("value set", &set.alias), |id| {
            set.field_by_id(id)
        })?;
    }
    entry.members.sort_by_cached_key(|member| {
        let matches = member.r#match.iter();
        let matches = matches.map(|one| (one.field_id, prost::Message::encode_to_vec(one)));
        matches.collect::<Vec<_>>()
    });
    Ok(())
}

fn canonicalize_data(data: &mut pb::P4Data) {
    use pb::p4_data::Data;
    match &mut data.data {
        Some(Data::Bitstring(bytes) | Data::EnumValue(bytes)) => shorten(bytes),
        Some(Data::Tuple(members) | Data::Struct(members)) => {
            members.members.iter_mut().for_each(canonicalize_data);
        }
        Some(Data::Header(header)) => header.bitstrings.iter_mut().for_each(shorten),
        _ => {}
    }
}

fn canonicalize_replicas(replicas: &mut [pb::Replica]) {
    use pb::replica::PortKind;
    for replica in replicas.iter_mut() {
        if let Some(PortKind::Port(port)) = &mut replica.port_kind {
            shorten(port);
        }
    }
    replicas.sort_by_cached_key(|replica| {
        #[allow(deprecated)] // servers before 1.4 still send the number
        let port = match &replica.port_kind {
            Some(PortKind::Port(port)) => port.clone(),
            Some(PortKind::EgressPort(port)) => strip(&port.to_be_bytes()).to_vec(),
            None => Vec::new(),
        };
        (port.len(), port, replica.instance)
    });
}

/// Makes a table entry canonical, see [`canonicalize_entity`]. An entry with
/// table id 0, the wildcard of a Read, stays as it is.
///
/// # Errors
/// [`EntityError`], where it does not fit the P4Info.
pub fn canonicalize_table_entry(
    entry: &mut pb::TableEntry,
    index: &P4InfoIndex,
) -> Result<(), EntityError> {
    if entry.table_id == 0 {
        return Ok(());
    }
    let table = index.table_by_id(entry.table_id)?;
    canonicalize_matches(&mut entry.r#match, ("table", &table.alias), |id| {
        table.field_by_id(id)
    })?;
    match entry
        .action
        .as_mut()
        .and_then(|action| action.r#type.as_mut())
    {
        Some(ActionKind::Action(action)) => canonicalize_action(action, index),
        Some(ActionKind::ActionProfileActionSet(set)) => {
            for action in set.action_profile_actions.iter_mut() {
                if let Some(action) = &mut action.action {
                    canonicalize_action(action, index)?;
                }
            }
            match &mut set.group_action {
                Some(action) => canonicalize_action(action, index),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Matches of a table's entry or a value set's member, by id, don't-cares left out.
fn canonicalize_matches<'a>(
    matches: &mut Vec<pb::FieldMatch>,
    owner: (&str, &str),
    field_by_id: impl Fn(u32) -> Result<&'a MatchField, P4InfoError>,
) -> Result<(), EntityError> {
    let mut kept = Vec::with_capacity(matches.len());
    for mut field_match in std::mem::take(matches) {
        let field = field_by_id(field_match.field_id)?;
        if canonicalize_match(&mut field_match, field, owner)? {
            kept.push(field_match);
        }
    }
    kept.sort_by_key(|field_match| field_match.field_id);
    refuse_twice(
        &kept,
        |field_match| field_match.field_id,
        |id| {
            let field = field_by_id(id);
            (
                owner.1.to_owned(),
                field.map_or(String::new(), |field| field.name.clone()),
            )
        },
    )?;
    *matches = kept;
    Ok(())
}

/// Makes an action's parameters canonical: by id, in their shortest form.
///
/// # Errors
/// [`EntityError`], where it does not fit the P4Info.
pub fn canonicalize_action(
    action: &mut pb::Action,
    index: &P4InfoIndex,
) -> Result<(), EntityError> {
    let known = index.action_by_id(action.action_id)?;
    for argument in &mut action.params {
        let param = known.param_by_id(argument.param_id)?;
        shorten_within(&mut argument.value, param.bitwidth).map_err(|source| {
            EntityError::Value {
                owner: known.alias.clone(),
                part: param.name.clone(),
                source,
            }
        })?;
    }
    action.params.sort_by_key(|argument| argument.param_id);
    refuse_twice(
        &action.params,
        |argument| argument.param_id,
        |id| {
            let param = known.param_by_id(id);
            (
                known.alias.clone(),
                param.map_or(String::new(), |param| param.name.clone()),
            )
        },
    )
}

fn refuse_twice<T>(
    sorted: &[T],
    id: impl Fn(&T) -> u32,
    names: impl Fn(u32) -> (String, String),
) -> Result<(), EntityError> {
    let mut ids = sorted.iter().map(&id);
    let mut last = ids.next();
    for id in ids {
        if last == Some(id) {
            let (owner, part) = names(id);
            return Err(EntityError::Twice { owner, part });
        }
        last = Some(id);
    }
    Ok(())
}

/// Whether the match says anything: false for a don't-care.
fn canonicalize_match(
    field_match: &mut pb::FieldMatch,
    field: &MatchField,
    (what, owner): (&str, &str),
) -> Result<bool, EntityError> {
    let width = field.bitwidth;
    let kind_error = || EntityError::MatchKind {
        owner: format!("{what} {owner:?}"),
        field: field.name.clone(),
        kind: field.kind.clone(),
    };
    let value_error = |source| EntityError::Value {
        owner: owner.to_owned(),
        part: field.name.clone(),
        source,
    };
    let Some(value) = &mut field_match.field_match_type else {
        return Err(kind_error());
    };
    match (value, &field.kind) {
        (FieldMatchType::Exact(exact), MatchKind::Exact) => {
            shorten_within(&mut exact.value, width).map(|()| true)
        }
        (FieldMatchType::Optional(optional), MatchKind::Optional) => {
            shorten_within(&mut optional.value, width).map(|()| true)
        }
        (FieldMatchType::Lpm(lpm), MatchKind::Lpm) => canonicalize_lpm(lpm, width),
        (FieldMatchType::Ternary(ternary), MatchKind::Ternary) => {
            canonicalize_ternary(ternary, width)
        }
        (FieldMatchType::Range(range), MatchKind::Range) => canonicalize_range(range, width),
        (FieldMatchType::Other(_), MatchKind::Other(_)) => Ok(true),
        _ => return Err(kind_error()),
    }
    .map_err(value_error)
}

fn canonicalize_lpm(lpm: &mut pb::field_match::Lpm, width: u32) -> Result<bool, ValueError> {
    let prefix_len = u32::try_from(lpm.prefix_len)
        .ok()
        .filter(|prefix_len| *prefix_len <= width)
        .ok_or(ValueError::PrefixLength {
            prefix_len: lpm.prefix_len,
            width,
        })?;
    shorten_within(&mut lpm.value, width)?;
    clear_low_bits(&mut lpm.value, width - prefix_len);
    Ok(prefix_len > 0)
}

fn canonicalize_ternary(
    ternary: &mut pb::field_match::Ternary,
    width: u32,
) -> Result<bool, ValueError> {
    shorten_within(&mut ternary.mask, width)?;
    shorten_within(&mut ternary.value, width)?;
    // Both end in the same bit; where the mask is shorter, it is 0.
    let mask = ternary.mask.iter().rev().chain(std::iter::repeat(&0));
    for (byte, mask) in ternary.value.iter_mut().rev().zip(mask) {
        *byte &= mask;
    }
    shorten(&mut ternary.value);
    Ok(ternary.mask != [0])
}

fn canonicalize_range(range: &mut pb::field_match::Range, width: u32) -> Result<bool, ValueError> {
    shorten_within(&mut range.low, width)?;
    shorten_within(&mut range.high, width)?;
    // In canonical form the longer string is the larger number.
    if (range.low.len(), &range.low) > (range.high.len(), &range.high) {
        return Err(ValueError::EmptyRange);
    }
    let everything = range.low == [0]
        && super::bit_length(&range.high) == width
        && range.high.iter().map(|byte| byte.count_ones()).sum::<u32>() == width;
    Ok(!everything)
}

/// Clears the last `bits` bits of a canonical byte string.
fn clear_low_bits(value: &mut Vec<u8>, bits: u32) {
    let mut left = bits;
    for byte in value.iter_mut().rev() {
        let here = left.min(u8::BITS);
        *byte &= u8::MAX.checked_shl(here).unwrap_or(0);
        left -= here;
    }
    shorten(value);
}

/// Canonical form in place; a width of 0 is a string, which stays as it is.
fn shorten_within(value: &mut Vec<u8>, width: u32) -> Result<(), ValueError> {
    if width == 0 {
        return Ok(());
    }
    let keep = canonical(value, width)?.len();
    value.drain(..value.len() - keep);
    Ok(())
}

fn shorten(value: &mut Vec<u8>) {
    let keep = strip(value).len();
    value.drain(..value.len() - keep);
}

#[cfg(test)]
mod tests;
