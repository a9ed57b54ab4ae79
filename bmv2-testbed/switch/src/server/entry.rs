//! Table entries from the wire, checked.

use std::sync::Mutex;

use p4runtime::p4::v1 as pb;
use pb::field_match::FieldMatchType;
use tonic::Code;

use super::fault::Fault;
use super::value::padded;
use crate::info::{FieldInfo, Info, ProfileInfo, Scope, SizeBy, TableInfo};
use crate::program::table::{Lookup, Match, Pattern, prefix_mask};
use crate::state::entry::{Entry, Indirect, Rare, Spec};
use crate::state::meter::{Meter, Rates};
use crate::state::profile::{Call, OneShot, Watch};
use crate::switch::Loaded;

/// The most actions of a one-shot set.
const MAX_ONE_SHOT: usize = 4096;

/// The table of this id.
pub(crate) fn table(info: &Info, id: u32) -> Result<&TableInfo, Fault> {
    info.tables.get(&id).ok_or_else(|| {
        let fault = Fault::not_found(format!("there is no table of id {id:#x}"));
        fault.pi(Code::InvalidArgument)
    })
}

/// The packed key that an entry's matches and priority mean.
pub(crate) fn pattern(
    loaded: &Loaded,
    table: &TableInfo,
    matches: &[pb::FieldMatch],
    priority: i32,
) -> Result<Pattern, Fault> {
    let compiled = loaded.program.tables.get(table.index);
    let compiled =
        compiled.ok_or_else(|| Fault::not_found(format!("table {} is gone", table.name)))?;
    if table.needs_priority && priority <= 0 {
        return Err(Fault::invalid(format!(
            "table {}: the priority must be positive, since a field is ternary, range or optional",
            table.name
        )));
    }
    if !table.needs_priority && priority != 0 {
        return Err(Fault::invalid(format!(
            "table {}: the priority must be 0, since no field is ternary, range or optional",
            table.name
        )));
    }
    let mut value = vec![0; compiled.key_bytes];
    let mut mask = vec![0; compiled.key_bytes];
    let owner = || format!("table {}", table.name);
    let prefix = pack(&table.fields, matches, &mut value, &mut mask, &owner)?;
    Ok(Pattern {
        value: value.into(),
        mask: if compiled.lookup == Lookup::Exact {
            Box::default()
        } else {
            mask.into()
        },
        prefix: if compiled.lookup == Lookup::Lpm {
            prefix
        } else {
            0
        },
        priority,
    })
}

/// Packs matches, each at its field's place; gives the prefix length of the LPM field, if any.
pub(crate) fn pack(
    fields: &[FieldInfo],
    matches: &[pb::FieldMatch],
    value: &mut [u8],
    mask: &mut [u8],
    owner: &dyn Fn() -> String,
) -> Result<u16, Fault> {
    let mut prefix = 0;
    for found in matches {
        if !fields.iter().any(|f| f.id == found.field_id) {
            return Err(Fault::invalid(format!(
                "{}: there is no match field of id {}",
                owner(),
                found.field_id
            )));
        }
    }
    for field in fields {
        let what = || format!("{}, field {}", owner(), field.name);
        let mut given = matches.iter().filter(|m| m.field_id == field.id);
        let found = given.next();
        if given.next().is_some() {
            return Err(Fault::invalid(format!("{}: it is given twice", what())));
        }
        let range = field.offset..field.offset + field.bytes;
        let (Some(value), Some(mask)) = (value.get_mut(range.clone()), mask.get_mut(range)) else {
            continue;
        };
        match found {
            None if field.kind == Match::Exact => {
                return Err(Fault::invalid(format!("{}: it is missing", what())));
            }
            None if field.kind == Match::Range => ones(mask, field.program_width),
            None => {}
            Some(found) => {
                let kind = found.field_match_type.as_ref();
                let kind =
                    kind.ok_or_else(|| Fault::invalid(format!("{}: it has no value", what())))?;
                one_match(field, kind, value, mask, &mut prefix, &what)?;
            }
        }
    }
    Ok(prefix)
}

pub(super) fn ones(mask: &mut [u8], width: u16) {
    prefix_mask(mask, width, width);
}

fn one_match(
    field: &FieldInfo,
    kind: &FieldMatchType,
    value: &mut [u8],
    mask: &mut [u8],
    prefix: &mut u16,
    what: &dyn Fn() -> String,
) -> Result<(), Fault> {
    let bytes = |value: &[u8]| padded(value, field.width, field.program_width, what);
    match (field.kind, kind) {
        (Match::Exact, FieldMatchType::Exact(exact)) => {
            value.copy_from_slice(&bytes(&exact.value)?);
            ones(mask, field.program_width);
        }
        (Match::Optional, FieldMatchType::Optional(optional)) => {
            value.copy_from_slice(&bytes(&optional.value)?);
            ones(mask, field.program_width);
        }
        (Match::Lpm, FieldMatchType::Lpm(lpm)) => {
            let len = u16::try_from(lpm.prefix_len)
                .ok()
                .filter(|len| *len <= field.program_width.min(field.width))
                .ok_or_else(|| {
                    Fault::invalid(format!(
                        "{}: prefix length {} is not within 1 and {}",
                        what(),
                        lpm.prefix_len,
                        field.width
                    ))
                })?;
            if len == 0 {
                return Err(Fault::invalid(format!(
                    "{}: a prefix of length 0 must be left out",
                    what()
                )));
            }
            value.copy_from_slice(&bytes(&lpm.value)?);
            prefix_mask(mask, field.program_width, len);
            *prefix = len;
            check_masked(value, mask, what)?;
        }
        (Match::Ternary, FieldMatchType::Ternary(ternary)) => {
            value.copy_from_slice(&bytes(&ternary.value)?);
            mask.copy_from_slice(&bytes(&ternary.mask)?);
            if mask.iter().all(|b| *b == 0) {
                return Err(Fault::invalid(format!(
                    "{}: a match with mask 0 must be left out",
                    what()
                )));
            }
            check_masked(value, mask, what)?;
        }
        (Match::Range, FieldMatchType::Range(range)) => {
            value.copy_from_slice(&bytes(&range.low)?);
            mask.copy_from_slice(&bytes(&range.high)?);
            if *value > *mask {
                return Err(Fault::invalid(format!(
                    "{}: the range's low end is above its high end",
                    what()
                )));
            }
            let mut all = vec![0; mask.len()];
            ones(&mut all, field.program_width);
            if value.iter().all(|b| *b == 0) && *mask == *all {
                return Err(Fault::invalid(format!(
                    "{}: a range over all values must be left out",
                    what()
                )));
            }
        }
        _ => {
            return Err(Fault::invalid(format!(
                "{}: it is matched as {:?}",
                what(),
                field.kind
            )));
        }
    }
    Ok(())
}

fn check_masked(value: &[u8], mask: &[u8], what: &dyn Fn() -> String) -> Result<(), Fault> {
    if value.iter().zip(mask).any(|(v, m)| v & !m != 0) {
        return Err(Fault::invalid(format!(
            "{}: bits outside the mask are set",
            what()
        )));
    }
    Ok(())
}

/// An action call of a table (or of a profile's members).
pub(crate) fn call(
    info: &Info,
    table: &TableInfo,
    action: &pb::Action,
    default: bool,
) -> Result<Call, Fault> {
    let found = table.actions.get(&action.action_id);
    let (slot, scope) = *found.ok_or_else(|| {
        let name = info.actions.get(&action.action_id).map(|a| a.name.as_str());
        Fault::invalid(format!(
            "table {}: action {} is not one of its actions",
            table.name,
            name.map_or_else(|| format!("{:#x}", action.action_id), str::to_owned)
        ))
    })?;
    let described = info.actions.get(&action.action_id);
    let described = described.ok_or_else(|| Fault::invalid("unknown action"))?;
    match (scope, default) {
        (Scope::TableOnly, true) | (Scope::DefaultOnly, false) => {
            return Err(Fault::denied(format!(
                "table {}: action {} may {} be the default",
                table.name,
                described.name,
                if default { "not" } else { "only" }
            )));
        }
        _ => {}
    }
    let mut args = Vec::new();
    for param in &described.params {
        let what = || {
            format!(
                "table {}, action {}, parameter {}",
                table.name, described.name, param.name
            )
        };
        let mut given = action.params.iter().filter(|p| p.param_id == param.id);
        let value = given
            .next()
            .ok_or_else(|| Fault::invalid(format!("{}: it is missing", what())))?;
        if given.next().is_some() {
            return Err(Fault::invalid(format!("{}: it is given twice", what())));
        }
        args.extend(padded(
            &value.value,
            param.width,
            param.program_width,
            what,
        )?);
    }
    if action.params.len() != described.params.len() {
        return Err(Fault::invalid(format!(
            "table {}, action {}: it has {} parameters, {} were given",
            table.name,
            described.name,
            described.params.len(),
            action.params.len()
        )));
    }
    Ok(Call {
        slot,
        args: args.into(),
    })
}

/// What a table entry's action means: a call, or (with an empty call) something of the table's
/// action profile.
pub(crate) fn target(
    loaded: &Loaded,
    table: &TableInfo,
    action: &pb::TableAction,
) -> Result<(Call, Option<Indirect>), Fault> {
    use pb::table_action::Type;
    let info = &loaded.info;
    let kind = action
        .r#type
        .as_ref()
        .ok_or_else(|| Fault::invalid(format!("table {}: the action is empty", table.name)))?;
    let profile = table.profile.and_then(|p| info.profiles.get(&p));
    let indirect = |target| {
        let none = Call {
            slot: 0,
            args: Box::default(),
        };
        (none, Some(target))
    };
    match (kind, profile) {
        (Type::Action(action), None) => Ok((call(info, table, action, false)?, None)),
        (Type::Action(_), Some(profile)) => Err(Fault::invalid(format!(
            "table {}: its actions come from action profile {}",
            table.name, profile.name
        ))),
        (_, None) => Err(Fault::invalid(format!(
            "table {}: it has no action profile",
            table.name
        ))),
        (Type::ActionProfileMemberId(id), Some(_)) => Ok(indirect(Indirect::Member(*id))),
        (_, Some(profile)) if !profile.with_selector => Err(Fault::invalid(format!(
            "table {}: action profile {} has no selector",
            table.name, profile.name
        ))),
        (Type::ActionProfileGroupId(id), Some(_)) => Ok(indirect(Indirect::Group(*id))),
        (Type::ActionProfileActionSet(set), Some(profile)) => {
            one_shot(info, table, profile, set).map(|set| indirect(Indirect::OneShot(set)))
        }
    }
}

/// A set of actions with their weights (P4Runtime, "One Shot Action Selector Programming").
fn one_shot(
    info: &Info,
    table: &TableInfo,
    profile: &ProfileInfo,
    set: &pb::ActionProfileActionSet,
) -> Result<OneShot, Fault> {
    use pb::action_profile_action::WatchKind;
    use pb::action_profile_action_set::{ActionSelectionMode, SizeSemantics};
    let name = &table.name;
    let actions = &set.action_profile_actions;
    if actions.is_empty() || actions.len() > MAX_ONE_SHOT {
        return Err(Fault::invalid(format!(
            "table {name}: an action set takes 1 to {MAX_ONE_SHOT} actions"
        )));
    }
    if set.group_action.is_some() {
        let why = format!("table {name}: a group action");
        return Err(Fault::unimplemented(why));
    }
    // v1model's selectors hash, and the P4Info says how they count: no set has its own way.
    let own_mode = !matches!(
        set.action_selection_mode(),
        ActionSelectionMode::DefaultModeDeterminedByActionSelector | ActionSelectionMode::Hash
    );
    let own_size = match set.size_semantics() {
        SizeSemantics::DefaultSizeDeterminedByActionSelector => false,
        SizeSemantics::SumOfWeights => profile.size_by != SizeBy::Weights,
        SizeSemantics::SumOfMembers => profile.size_by == SizeBy::Weights,
    };
    if own_mode || own_size {
        return Err(Fault::unimplemented(format!(
            "table {name}: a selection mode or size semantics other than the selector's"
        )));
    }
    let mut out = Vec::new();
    for item in actions {
        let watch = match &item.watch_kind {
            None => Watch::None,
            Some(WatchKind::Watch(port)) => Watch::Number(*port),
            Some(WatchKind::WatchPort(port)) => {
                Watch::Bytes(super::value::port(port, "watch_port")?)
            }
        };
        let weight = profile.weight(item.weight, watch, &format!("table {name}"))?;
        let action = item.action.as_ref();
        let action =
            action.ok_or_else(|| Fault::invalid(format!("table {name}: an action is empty")))?;
        out.push((call(info, table, action, false)?, weight));
    }
    let size = profile.size_of(out.iter().map(|(_, weight)| weight));
    if profile.max_group_size > 0 && size > profile.max_group_size {
        let fault = Fault::invalid(format!(
            "table {name}: the action set's size is {size}, over {}",
            profile.max_group_size
        ));
        return Err(fault.pi(Code::ResourceExhausted));
    }
    let wire = (set.action_selection_mode, set.size_semantics);
    Ok(OneShot::new(out, wire))
}

/// Rates from a meter configuration; negative ones are refused.
pub(crate) fn rates(config: &pb::MeterConfig, what: &str) -> Result<Rates, Fault> {
    let rate = |value: i64, name: &str| {
        u64::try_from(value).map_err(|_| Fault::invalid(format!("{what}: {name} is negative")))
    };
    let rates = Rates {
        cir: rate(config.cir, "cir")?,
        cburst: rate(config.cburst, "cburst")?,
        pir: rate(config.pir, "pir")?,
        pburst: rate(config.pburst, "pburst")?,
    };
    if rates.cir > rates.pir {
        let fault = Fault::invalid(format!("{what}: cir is above pir"));
        return Err(fault.pi(Code::Unknown));
    }
    if config.eburst != 0 {
        return Err(Fault::invalid(format!(
            "{what}: eburst is of single-rate meters, this one has two rates"
        )));
    }
    Ok(rates)
}

/// Packets and bytes from counter data; negative ones are refused.
pub(crate) fn counts(data: &pb::CounterData, what: &str) -> Result<(u64, u64), Fault> {
    match (
        u64::try_from(data.packet_count),
        u64::try_from(data.byte_count),
    ) {
        (Ok(packets), Ok(bytes)) => Ok((packets, bytes)),
        _ => Err(Fault::invalid(format!("{what}: a count is negative"))),
    }
}

/// An entry, as it is to be inserted.
pub(crate) fn entry(
    loaded: &Loaded,
    table: &TableInfo,
    wire: &pb::TableEntry,
    now_ns: u64,
) -> Result<Entry, Fault> {
    let action = wire
        .action
        .as_ref()
        .ok_or_else(|| Fault::invalid(format!("table {}: the action is missing", table.name)))?;
    let pattern = pattern(loaded, table, &wire.r#match, wire.priority)?;
    let (call, indirect) = target(loaded, table, action)?;
    let idle_timeout_ns = u64::try_from(wire.idle_timeout_ns).map_err(|_| {
        Fault::invalid(format!(
            "table {}: the idle timeout is negative",
            table.name
        ))
    })?;
    if idle_timeout_ns > 0 && !table.idle_timeout {
        return Err(no_resource(table, "idle timeout"));
    }
    let (counted, rates) = resources(table, wire)?;
    let meter = table.has_meter.then(|| {
        let mut meter = Meter::default();
        meter.configure(rates, now_ns);
        Mutex::new(meter)
    });
    let rare = Rare {
        controller_metadata: wire.controller_metadata,
        metadata: wire.metadata.clone().into(),
        is_const: false,
        meter,
        indirect,
    };
    let spec = Spec {
        idle_timeout_ns,
        rare: rare.needed().then(|| Box::new(rare)),
        now_ns,
        ..Spec::default()
    };
    let entry = Entry::with_call(&pattern, &call, spec);
    if let Some((packets, bytes)) = counted {
        entry.counter().set(packets, bytes);
    }
    Ok(entry)
}

/// Packets and bytes, and rates.
type Resources = (Option<(u64, u64)>, Option<Rates>);

/// The counts and rates that an entry is written with. Counts of colours may only be cleared.
pub(crate) fn resources(table: &TableInfo, wire: &pb::TableEntry) -> Result<Resources, Fault> {
    let data = wire.counter_data.as_ref();
    if data.is_some() && !table.has_counter {
        return Err(no_resource(table, "direct counter"));
    }
    let meter = wire.meter_config.is_some() || wire.meter_counter_data.is_some();
    if meter && !table.has_meter {
        return Err(no_resource(table, "direct meter"));
    }
    if let Some(data) = &wire.meter_counter_data {
        check_colours(data, &table.name)?;
    }
    let config = wire.meter_config.as_ref();
    Ok((
        data.map(|d| counts(d, &table.name)).transpose()?,
        config.map(|c| rates(c, &table.name)).transpose()?,
    ))
}

/// What a table without this resource is refused with.
pub(crate) fn no_resource(table: &TableInfo, what: &str) -> Fault {
    Fault::invalid(format!("table {}: it has no {what}", table.name))
}

/// As in bmv2, misses are neither counted nor metered.
pub(crate) fn default_resource(table: &TableInfo) -> Fault {
    let name = &table.name;
    let fault = Fault::unimplemented(format!("table {name}: counter or meter of a default entry"));
    fault.pi(Code::Unknown)
}

/// Counts of colours can be cleared, not set.
pub(crate) fn check_colours(data: &pb::MeterCounterData, what: &str) -> Result<(), Fault> {
    let colours = [data.green, data.yellow, data.red];
    if colours
        .into_iter()
        .flatten()
        .any(|c| c != pb::CounterData::default())
    {
        return Err(Fault::invalid(format!(
            "{what}: the counts of a meter's colours can only be set to 0"
        )));
    }
    Ok(())
}
