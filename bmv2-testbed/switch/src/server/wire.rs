//! Table entries as they go on the wire.

use p4runtime::p4::v1 as pb;
use pb::field_match::FieldMatchType;

use super::entry::ones;
use super::value::canonical;
use crate::info::{FieldInfo, Info, TableInfo};
use crate::program::table::Match;
use crate::state::entry::{Entry, Target};
use crate::state::lock;
use crate::state::meter::Rates;
use crate::state::profile::Watch;

/// What a reader wants besides the entry itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) counter: bool,
    pub(crate) meter: bool,
    pub(crate) colours: bool,
    pub(crate) idle: bool,
}

/// An action call on the wire.
pub(crate) fn action(info: &Info, table: &TableInfo, slot: u16, args: &[u8]) -> pb::Action {
    let id = table.action_ids.get(usize::from(slot)).copied();
    let id = id.unwrap_or(0);
    let mut at = 0;
    let mut params = Vec::new();
    if let Some(action) = info.actions.get(&id) {
        for param in &action.params {
            let bytes = usize::from(param.program_width).div_ceil(8);
            let value = args.get(at..at + bytes).unwrap_or_default();
            params.push(pb::action::Param {
                param_id: param.id,
                value: canonical(value),
            });
            at += bytes;
        }
    }
    pb::Action {
        action_id: id,
        params,
    }
}

/// The inverse of [`pack`]. The mask may be empty if all fields are exact.
pub(crate) fn matches(fields: &[FieldInfo], value: &[u8], mask: &[u8]) -> Vec<pb::FieldMatch> {
    let mut out = Vec::with_capacity(fields.len());
    for field in fields {
        let range = field.offset..field.offset + field.bytes;
        let value = value.get(range.clone()).unwrap_or_default();
        let mask = mask.get(range).unwrap_or_default();
        let none = mask.iter().all(|b| *b == 0);
        let kind = match field.kind {
            Match::Exact => FieldMatchType::Exact(pb::field_match::Exact {
                value: canonical(value),
            }),
            Match::Lpm | Match::Ternary | Match::Optional if none => continue,
            Match::Lpm => FieldMatchType::Lpm(pb::field_match::Lpm {
                value: canonical(value),
                prefix_len: mask.iter().map(|b| b.count_ones() as i32).sum(),
            }),
            Match::Ternary => FieldMatchType::Ternary(pb::field_match::Ternary {
                value: canonical(value),
                mask: canonical(mask),
            }),
            Match::Optional => FieldMatchType::Optional(pb::field_match::Optional {
                value: canonical(value),
            }),
            Match::Range => {
                let mut all = vec![0; mask.len()];
                ones(&mut all, field.program_width);
                if value.iter().all(|b| *b == 0) && *mask == *all {
                    continue;
                }
                FieldMatchType::Range(pb::field_match::Range {
                    low: canonical(value),
                    high: canonical(mask),
                })
            }
        };
        out.push(pb::FieldMatch {
            field_id: field.id,
            field_match_type: Some(kind),
        });
    }
    out
}

/// Counts on the wire.
pub(crate) fn counts((packets, bytes): (u64, u64)) -> pb::CounterData {
    pb::CounterData {
        packet_count: i64::try_from(packets).unwrap_or(i64::MAX),
        byte_count: i64::try_from(bytes).unwrap_or(i64::MAX),
    }
}

/// Counts of a meter's colours on the wire.
pub(crate) fn colours([green, yellow, red]: [(u64, u64); 3]) -> pb::MeterCounterData {
    pb::MeterCounterData {
        green: Some(counts(green)),
        yellow: Some(counts(yellow)),
        red: Some(counts(red)),
    }
}

/// Rates on the wire.
pub(crate) fn rates(rates: Rates) -> pb::MeterConfig {
    let rate = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    pb::MeterConfig {
        cir: rate(rates.cir),
        cburst: rate(rates.cburst),
        pir: rate(rates.pir),
        pburst: rate(rates.pburst),
        ..pb::MeterConfig::default()
    }
}

fn target(info: &Info, table: &TableInfo, target: Target<'_>) -> pb::TableAction {
    use pb::table_action::Type;
    let kind = match target {
        Target::Call { slot, args } => Type::Action(action(info, table, slot, args)),
        Target::Member(id) => Type::ActionProfileMemberId(id),
        Target::Group(id) => Type::ActionProfileGroupId(id),
        Target::OneShot(set) => {
            let actions = set.actions.iter().map(|(call, weight)| {
                use pb::action_profile_action::WatchKind;
                pb::ActionProfileAction {
                    action: Some(action(info, table, call.slot, &call.args)),
                    weight: weight.given,
                    watch_kind: match weight.watch {
                        Watch::None => None,
                        Watch::Number(port) => Some(WatchKind::Watch(port)),
                        Watch::Bytes(port) => {
                            Some(WatchKind::WatchPort(canonical(&port.to_be_bytes())))
                        }
                    },
                }
            });
            let (action_selection_mode, size_semantics) = set.wire;
            Type::ActionProfileActionSet(pb::ActionProfileActionSet {
                action_profile_actions: actions.collect(),
                action_selection_mode,
                size_semantics,
                group_action: None,
            })
        }
    };
    pb::TableAction { r#type: Some(kind) }
}

/// The key of an entry, as notifications and direct resources carry it.
pub(crate) fn key(table: &TableInfo, entry: &Entry) -> pb::TableEntry {
    pb::TableEntry {
        table_id: table.id,
        r#match: matches(&table.fields, entry.value(), entry.mask()),
        priority: entry.priority(),
        ..pb::TableEntry::default()
    }
}

/// An entry, as it is read back.
pub(crate) fn entry(
    info: &Info,
    table: &TableInfo,
    entry: &Entry,
    wanted: Wanted,
    now_ns: u64,
) -> pb::TableEntry {
    let mut wire = key(table, entry);
    wire.action = Some(target(info, table, entry.target()));
    wire.controller_metadata = entry.controller_metadata();
    wire.metadata = entry.metadata().to_vec();
    wire.idle_timeout_ns = i64::try_from(entry.idle_timeout_ns()).unwrap_or(i64::MAX);
    wire.is_const = entry.is_const();
    if wanted.counter && table.has_counter {
        wire.counter_data = Some(counts(entry.counter().get()));
    }
    if let Some(meter) = entry.meter().filter(|_| wanted.meter || wanted.colours) {
        let meter = lock(meter);
        wire.meter_config = meter.rates().filter(|_| wanted.meter).map(rates);
        wire.meter_counter_data = wanted.colours.then(|| colours(meter.counts()));
    }
    if wanted.idle && table.idle_timeout {
        wire.time_since_last_hit = Some(pb::table_entry::IdleTimeout {
            elapsed_ns: i64::try_from(entry.idle_ns(now_ns)).unwrap_or(i64::MAX),
        });
    }
    wire
}
