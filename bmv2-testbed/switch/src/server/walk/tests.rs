//! The walk against the generated messages: the same effects, the same errors, whatever comes.

use std::cell::{Cell, RefCell};

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::field_match::{Exact, FieldMatchType, Ternary};
use pb::table_action::Type as ActionType;
use proptest::prelude::*;
use prost::Message;

use super::super::answer::encode;
use super::super::atomic::UndoLog;
use super::super::deviation::Deviations;
use super::super::read::Reader;
use super::super::wire::{self, Wanted};
use super::super::write::Writer;
use super::*;
use crate::switch::Loaded;

fn loaded() -> Loaded {
    let json = include_bytes!("../../../testdata/forward.json");
    let info = include_str!("../../../testdata/forward.p4info.txtpb");
    Loaded::new(json, p4runtime::p4info::parse_p4info_text(info).unwrap()).unwrap()
}

/// What a request did: it was refused as a whole, or each update has its result.
type Outcome = Result<Vec<Result<(), Fault>>, String>;

fn by_messages(loaded: &Loaded, bytes: &[u8], now_ns: u64) -> Outcome {
    let request = pb::WriteRequest::decode(bytes).map_err(|e| e.to_string())?;
    let writer = Writer::new(loaded, now_ns, UndoLog::default());
    Ok(request.updates.iter().map(|u| writer.update(u)).collect())
}

/// As the service does it; whether the walk could.
fn by_walk(loaded: &Loaded, bytes: &[u8], now_ns: u64) -> (Outcome, bool) {
    match plan(bytes, &loaded.formats, now_ns) {
        Some(plan) => (Ok(plan.apply(&loaded.state)), true),
        None => (by_messages(loaded, bytes, now_ns), false),
    }
}

/// All entries and default entries, read through the messages.
fn contents(loaded: &Loaded, now_ns: u64) -> Vec<pb::TableEntry> {
    let wanted = Wanted {
        counter: true,
        meter: true,
        colours: true,
        idle: true,
    };
    let mut found = Vec::new();
    for table in loaded.info.tables.values() {
        let visit = |entry: &Entry| {
            found.push(wire::entry(&loaded.info, table, entry, wanted, now_ns));
        };
        let state = loaded.state.tables.get(table.index).unwrap();
        state.scan(visit, || Ok::<_, ()>(())).unwrap();
    }
    found.sort_by_key(prost::Message::encode_to_vec);
    found
}

/// The same, as a client gets it.
fn answered(loaded: &Loaded, now_ns: u64) -> Vec<pb::TableEntry> {
    let wildcard = pb::TableEntry {
        counter_data: Some(pb::CounterData::default()),
        meter_config: Some(pb::MeterConfig::default()),
        meter_counter_data: Some(pb::MeterCounterData::default()),
        time_since_last_hit: Some(pb::table_entry::IdleTimeout::default()),
        ..pb::TableEntry::default()
    };
    let wildcard = pb::Entity {
        entity: Some(Entity::TableEntry(wildcard)),
    };
    let reader = Reader {
        loaded,
        now_ns,
        all_defaults: false,
    };
    let mut messages = Vec::new();
    let mut deliver = |message| {
        messages.push(message);
        Ok(())
    };
    let found = reader.find(&wildcard).unwrap();
    encode(&reader, found, Deviations::default(), &mut deliver).unwrap();
    let entities = messages
        .iter()
        .flat_map(|bytes| pb::ReadResponse::decode(bytes.as_ref()).unwrap().entities);
    let mut found: Vec<_> = entities
        .map(|entity| match entity.entity {
            Some(Entity::TableEntry(entry)) => entry,
            other => panic!("{other:?}"),
        })
        .collect();
    found.sort_by_key(prost::Message::encode_to_vec);
    found
}

fn id(info: &crate::info::Info, name: &str) -> u32 {
    let mut tables = info.tables.values();
    tables.find(|t| t.name.ends_with(name)).unwrap().id
}

fn action_id(info: &crate::info::Info, name: &str) -> u32 {
    let mut actions = info.actions.iter();
    *actions.find(|a| a.1.name.ends_with(name)).unwrap().0
}

/// A value that mostly fits, of few different ones.
fn value(width: u16) -> BoxedStrategy<Vec<u8>> {
    let bytes = usize::from(width).div_ceil(8);
    let mut most = vec![0xff; bytes];
    most[0] >>= bytes * 8 - usize::from(width);
    prop_oneof![
        80 => (0_u8..4).prop_map(|v| vec![v]),
        40 => (0_u8..4).prop_map(move |v| {
            let mut value = vec![0; bytes];
            value[bytes - 1] = v;
            value
        }),
        20 => Just(most),
        1 => Just(Vec::new()),
        10 => Just(vec![0; bytes + 3]),
        1 => Just(vec![1; bytes + 1]),
    ]
    .boxed()
}

/// What may be wrong with an entry.
#[derive(Clone, Debug)]
enum Flaw {
    None,
    DropMatch(usize),
    RepeatMatch(usize),
    SwapMatches(usize, usize),
    MatchId(usize, u32),
    Ternary(usize),
    NoKind(usize),
    NoAction,
    EmptyAction,
    Member,
    ActionId(u32),
    DropParam(usize),
    RepeatParam(usize),
    SwapParams(usize, usize),
    ParamId(usize, u32),
    Priority(i32),
    Default,
    Const,
    Counter(i64),
    Meter,
    Hit,
    Idle(i64),
    Metadata(u64, Vec<u8>),
    Table(u32),
}

fn flaw() -> impl Strategy<Value = Flaw> {
    let at = 0_usize..6;
    prop_oneof![
        200 => Just(Flaw::None),
        1 => at.clone().prop_map(Flaw::DropMatch),
        1 => at.clone().prop_map(Flaw::RepeatMatch),
        2 => (at.clone(), at.clone()).prop_map(|(a, b)| Flaw::SwapMatches(a, b)),
        1 => (at.clone(), 0_u32..9).prop_map(|(a, id)| Flaw::MatchId(a, id)),
        1 => at.clone().prop_map(Flaw::Ternary),
        1 => at.clone().prop_map(Flaw::NoKind),
        1 => Just(Flaw::NoAction),
        1 => Just(Flaw::EmptyAction),
        1 => Just(Flaw::Member),
        1 => any::<u32>().prop_map(Flaw::ActionId),
        1 => at.clone().prop_map(Flaw::DropParam),
        1 => at.clone().prop_map(Flaw::RepeatParam),
        2 => (at.clone(), at.clone()).prop_map(|(a, b)| Flaw::SwapParams(a, b)),
        1 => (at, 0_u32..4).prop_map(|(a, id)| Flaw::ParamId(a, id)),
        1 => (-1..2).prop_map(Flaw::Priority),
        1 => Just(Flaw::Default),
        1 => Just(Flaw::Const),
        1 => (-1_i64..3).prop_map(Flaw::Counter),
        1 => Just(Flaw::Meter),
        1 => Just(Flaw::Hit),
        2 => (-1_i64..9).prop_map(Flaw::Idle),
        2 => (0_u64..3, prop::collection::vec(any::<u8>(), 0..3))
            .prop_map(|(number, bytes)| Flaw::Metadata(number, bytes)),
        1 => any::<u32>().prop_map(Flaw::Table),
    ]
}

fn exact(id: usize, value: Vec<u8>) -> pb::FieldMatch {
    pb::FieldMatch {
        field_id: id as u32 + 1,
        field_match_type: Some(FieldMatchType::Exact(Exact { value })),
    }
}

#[allow(deprecated, reason = "controller_metadata is in use")]
fn spoil(entry: &mut pb::TableEntry, flaw: Flaw) {
    let matches = &mut entry.r#match;
    let count = matches.len();
    let mut none = pb::Action::default();
    let action = match entry.action.as_mut().and_then(|a| a.r#type.as_mut()) {
        Some(ActionType::Action(action)) => action,
        _ => &mut none,
    };
    let params = action.params.len();
    match flaw {
        Flaw::None => {}
        Flaw::DropMatch(at) => drop(matches.remove(at % count)),
        Flaw::RepeatMatch(at) => matches.push(matches[at % count].clone()),
        Flaw::SwapMatches(a, b) => matches.swap(a % count, b % count),
        Flaw::MatchId(at, id) => matches[at % count].field_id = id,
        Flaw::Ternary(at) => {
            let ternary = Ternary {
                value: vec![1],
                mask: vec![1],
            };
            matches[at % count].field_match_type = Some(FieldMatchType::Ternary(ternary));
        }
        Flaw::NoKind(at) => matches[at % count].field_match_type = None,
        Flaw::NoAction => entry.action = None,
        Flaw::EmptyAction => entry.action = Some(pb::TableAction::default()),
        Flaw::Member => {
            entry.action = Some(pb::TableAction {
                r#type: Some(ActionType::ActionProfileMemberId(1)),
            });
        }
        Flaw::ActionId(id) => action.action_id = id,
        Flaw::DropParam(at) if params > 0 => drop(action.params.remove(at % params)),
        Flaw::RepeatParam(at) if params > 0 => {
            action.params.push(action.params[at % params].clone());
        }
        Flaw::SwapParams(a, b) if params > 0 => action.params.swap(a % params, b % params),
        Flaw::ParamId(at, id) if params > 0 => action.params[at % params].param_id = id,
        Flaw::DropParam(_) | Flaw::RepeatParam(_) | Flaw::SwapParams(..) | Flaw::ParamId(..) => {}
        Flaw::Priority(priority) => entry.priority = priority,
        Flaw::Default => entry.is_default_action = true,
        Flaw::Const => entry.is_const = true,
        Flaw::Counter(count) => {
            entry.counter_data = Some(pb::CounterData {
                packet_count: count,
                byte_count: 7,
            });
        }
        Flaw::Meter => entry.meter_config = Some(pb::MeterConfig::default()),
        Flaw::Hit => entry.time_since_last_hit = Some(pb::table_entry::IdleTimeout::default()),
        Flaw::Idle(timeout) => entry.idle_timeout_ns = timeout,
        Flaw::Metadata(number, bytes) => {
            entry.controller_metadata = number;
            entry.metadata = bytes;
        }
        Flaw::Table(id) => entry.table_id = id,
    }
}

/// An entry of the flow or the next-hop table, of few different ones.
fn entry(loaded: &Loaded) -> impl Strategy<Value = pb::TableEntry> + use<> {
    let info = &loaded.info;
    let (flow, nexthop) = (id(info, "flow"), id(info, "nexthop"));
    let (send, drop) = (action_id(info, "send"), action_id(info, "drop"));
    let widths = |table: u32| -> Vec<u16> {
        let fields = info.tables.get(&table).unwrap().fields.iter();
        fields.map(|f| f.width).collect()
    };
    let key = |table: u32| {
        let values: Vec<_> = widths(table).into_iter().map(value).collect();
        values.prop_map(move |values| {
            let matches = values.into_iter().enumerate().map(|(i, v)| exact(i, v));
            (table, matches.collect::<Vec<_>>())
        })
    };
    let params = info.actions.get(&send).unwrap().params.iter();
    let args: Vec<_> = params.map(|p| value(p.width)).collect();
    let action = (args, any::<bool>()).prop_map(move |(args, dropped)| {
        let params = args.into_iter().enumerate();
        let params = params.map(|(i, value)| pb::action::Param {
            param_id: i as u32 + 1,
            value,
        });
        if dropped {
            pb::Action {
                action_id: drop,
                params: Vec::new(),
            }
        } else {
            pb::Action {
                action_id: send,
                params: params.collect(),
            }
        }
    });
    let key = prop_oneof![4 => key(flow), 1 => key(nexthop)];
    (key, action, flaw()).prop_map(|((table_id, matches), action, flaw)| {
        let mut entry = pb::TableEntry {
            table_id,
            r#match: matches,
            action: Some(pb::TableAction {
                r#type: Some(ActionType::Action(action)),
            }),
            ..pb::TableEntry::default()
        };
        spoil(&mut entry, flaw);
        entry
    })
}

fn update(loaded: &Loaded) -> impl Strategy<Value = pb::Update> + use<> {
    let kind = prop_oneof![16 => Just(1), 6 => Just(2), 8 => Just(3), 1 => -1..6];
    (kind, entry(loaded), 0..100).prop_map(|(kind, mut entry, other)| {
        if kind == 3 && other % 16 > 0 {
            entry.action = None;
        }
        let entity = match other {
            0 => None,
            1 => Some(Entity::CounterEntry(pb::CounterEntry::default())),
            2 => Some(Entity::DirectCounterEntry(pb::DirectCounterEntry {
                table_entry: Some(entry),
                data: Some(pb::CounterData::default()),
            })),
            _ => Some(Entity::TableEntry(entry)),
        };
        pb::Update {
            r#type: kind,
            entity: Some(pb::Entity { entity }),
        }
    })
}

/// A change to a message's bytes.
#[derive(Clone, Debug)]
enum Damage {
    None,
    Set(usize, u8),
    Cut(usize),
    Insert(usize, u8),
    Remove(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>();
    prop_oneof![
        6 => Just(Damage::None),
        2 => (at, any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => at.prop_map(Damage::Cut),
        1 => (at, any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => at.prop_map(Damage::Remove),
    ]
}

fn damaged(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    let len = bytes.len().max(1);
    match *damage {
        Damage::Set(at, byte) if !bytes.is_empty() => bytes[at % len] = byte,
        Damage::Cut(at) => bytes.truncate(at % len),
        Damage::Insert(at, byte) => bytes.insert(at % len, byte),
        Damage::Remove(at) if !bytes.is_empty() => drop(bytes.remove(at % len)),
        _ => {}
    }
    bytes
}

fn request(updates: Vec<pb::Update>) -> Vec<u8> {
    let request = pb::WriteRequest {
        device_id: 1,
        election_id: Some(pb::Uint128 { high: 0, low: 1 }),
        updates,
        ..pb::WriteRequest::default()
    };
    request.encode_to_vec()
}

#[test]
fn whatever_comes_has_the_same_effect_and_the_same_errors() {
    let updates = prop::collection::vec(update(&loaded()), 1..6);
    let requests = prop::collection::vec((updates, damage()), 1..8);
    let both = RefCell::new((loaded(), loaded()));
    let (walked, refused) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig::with_cases(400);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let ran = runner.run(&requests, |requests| {
        let (one, other) = &mut *both.borrow_mut();
        one.state = State::new(&one.program);
        other.state = State::new(&other.program);
        for (i, (updates, damage)) in requests.into_iter().enumerate() {
            let now = i as u64;
            let bytes = damaged(request(updates), &damage);
            let wanted = by_messages(other, &bytes, now);
            let (found, by_hand) = by_walk(one, &bytes, now);
            prop_assert_eq!(&found, &wanted);
            if by_hand {
                let failed = wanted.is_ok_and(|w| w.iter().any(Result::is_err));
                walked.set(walked.get() + 1);
                refused.set(refused.get() + usize::from(failed));
            }
        }
        let (left, right) = (contents(one, 9), contents(other, 9));
        prop_assert_eq!(&left, &right);
        prop_assert_eq!(answered(one, 9), right);
        Ok(())
    });
    ran.unwrap();
    // Both ways were gone, and some of the walk's updates failed too.
    let (walked, refused) = (walked.get(), refused.get());
    assert!(
        walked > 100 && refused > 10,
        "{walked} walked, {refused} with failures"
    );
}

#[test]
fn every_way_to_write_a_number() {
    for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(value, &mut bytes);
        let mut wire = Wire(&bytes);
        assert_eq!(wire.varint(), Some(value));
        assert!(wire.0.is_empty());
        assert_eq!(Wire(&bytes[..bytes.len() - 1]).varint(), None);
    }
    assert_eq!(Wire(&[0x80, 0]).varint(), Some(0));
    assert_eq!(Wire(&[0xff; 10]).varint(), None);
    assert_eq!(Wire(&[3, 1, 2]).bytes(), None);
}

#[test]
fn what_clients_send_is_walked() {
    let loaded = loaded();
    let (flow, send) = (id(&loaded.info, "flow"), action_id(&loaded.info, "send"));
    let param = |param_id, value: &[u8]| pb::action::Param {
        param_id,
        value: value.to_vec(),
    };
    let entry = pb::TableEntry {
        table_id: flow,
        r#match: [&[10, 0, 0, 1][..], &[10, 0, 0, 2], &[4, 210], &[80]]
            .iter()
            .enumerate()
            .map(|(i, v)| exact(i, v.to_vec()))
            .collect(),
        action: Some(pb::TableAction {
            r#type: Some(ActionType::Action(pb::Action {
                action_id: send,
                params: vec![param(1, &[1]), param(2, &[2, 0, 0, 0, 0, 1])],
            })),
        }),
        ..pb::TableEntry::default()
    };
    let update = |kind: Type, entry: &pb::TableEntry| pb::Update {
        r#type: kind as i32,
        entity: Some(pb::Entity {
            entity: Some(Entity::TableEntry(entry.clone())),
        }),
    };
    let key = pb::TableEntry {
        action: None,
        ..entry.clone()
    };
    let updates = vec![
        update(Type::Insert, &entry),
        update(Type::Insert, &entry),
        update(Type::Modify, &entry),
        update(Type::Delete, &key),
        update(Type::Delete, &key),
    ];
    let (found, walked) = by_walk(&loaded, &request(updates), 0);
    assert!(walked);
    let codes: Vec<_> = found
        .unwrap()
        .into_iter()
        .map(|r| r.map_err(|f| f.code))
        .collect();
    let (exists, missing) = (tonic::Code::AlreadyExists, tonic::Code::NotFound);
    assert_eq!(codes, [Ok(()), Err(exists), Ok(()), Ok(()), Err(missing)]);
}
