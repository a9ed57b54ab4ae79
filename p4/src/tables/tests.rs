//! Every value of every table round-trips; what is no entry of ours is refused.

use std::net::IpAddr;
use std::time::Duration;

use p4runtime::p4::v1::field_match::{FieldMatchType, Lpm, Ternary};
use p4runtime::p4::v1::{FieldMatch, table_action::Type};
use p4runtime::p4info::parse_p4info_text;
use proptest::prelude::*;

use super::codec::ternary::Whole;
use super::value::all_ones;
use super::*;
use crate::flow::{FlowAction, FlowEntry, FlowKey, Tuple};
use crate::types::{InterfaceId, VpcId};

#[path = "../../build/check.rs"]
mod check;
#[allow(
    clippy::duplicate_mod,
    reason = "the same files, of which this makes data and the crate types"
)]
#[path = "../../build/declared.rs"]
mod declared;

/// A value made of random numbers.
pub(super) trait Sample: Sized {
    fn sample(draw: &mut dyn FnMut() -> u128) -> Self;
}

pub(super) fn exact<T: P4Value>(draw: &mut dyn FnMut() -> u128) -> T {
    let start = draw();
    (0..256_u128)
        .find_map(|step| T::from_bits(start.wrapping_add(step) & all_ones(T::BITS)))
        .unwrap()
}

pub(super) fn lpm<T: P4Prefix>(draw: &mut dyn FnMut() -> u128) -> T {
    let length = (draw() % u128::from(T::BITS + 1)) as u32;
    let ones = all_ones(T::BITS) ^ all_ones(T::BITS - length);
    T::from_prefix(draw() & ones, length as u8).unwrap()
}

pub(super) fn ternary<T: Whole>(draw: &mut dyn FnMut() -> u128) -> T {
    T::from((draw() & 1 == 1).then(|| exact(draw)))
}

/// Random numbers with the ends of the range among them.
fn numbers() -> impl Strategy<Value = Vec<u128>> {
    let number = prop_oneof![Just(0), Just(1), Just(u128::MAX), any::<u128>()];
    proptest::collection::vec(number, 64)
}

fn sample<T: Sample>(numbers: &[u128]) -> T {
    let mut numbers = numbers.iter().cycle();
    T::sample(&mut || *numbers.next().unwrap())
}

fn round_trip<T>(numbers: &[u128]) -> Result<(), TestCaseError>
where
    T: Sample + P4Table + PartialEq + Clone + std::fmt::Debug + Into<AnyEntry>,
{
    let value: T = sample(numbers);
    let mut entry = value.to_entry();
    prop_assert_eq!(T::from_entry(&entry), Ok(value.clone()));
    let any: AnyEntry = value.clone().into();
    prop_assert_eq!(any.to_entry(), entry.clone());
    prop_assert_eq!(AnyEntry::from_entry(&entry), Ok(any));
    // Deleting needs exactly the match and the priority.
    let key = value.key_entry();
    prop_assert_eq!(&key, &T::entry_of_key(&value.key()));
    prop_assert_eq!(&key.r#match, &entry.r#match);
    prop_assert_eq!((key.priority, key.action), (entry.priority, None));
    for field in &entry.r#match {
        prop_assert!(canonical_field(field), "{:?}", field);
    }
    // The order of the fields means nothing.
    entry.r#match.reverse();
    prop_assert_eq!(T::from_entry(&entry), Ok(value));
    Ok(())
}

/// Made from the list of tables itself, so that none can be left out.
type RoundTrip = fn(&[u128]) -> Result<(), TestCaseError>;
const ROUND_TRIPS: &[(&str, RoundTrip)] = super::each_entry!(round_trip);

fn canonical_field(field: &FieldMatch) -> bool {
    let short = |bytes: &[u8]| bytes.len() == 1 || bytes.len() > 1 && bytes[0] != 0;
    match field.field_match_type.as_ref().unwrap() {
        FieldMatchType::Exact(exact) => short(&exact.value),
        FieldMatchType::Lpm(lpm) => short(&lpm.value) && lpm.prefix_len > 0,
        FieldMatchType::Ternary(Ternary { value, mask }) => short(value) && short(mask),
        _ => false,
    }
}

proptest! {
    #[test]
    fn every_table_round_trips(numbers in numbers()) {
        for (table, round_trip) in ROUND_TRIPS {
            round_trip(&numbers).map_err(|error| {
                TestCaseError::fail(format!("table {table}: {error}"))
            })?;
        }
    }

    #[test]
    fn flows_round_trip(numbers in numbers(), nat in 0..4_u8, v6: bool, nanos in 0..1_u64 << 62) {
        let mut numbers = numbers.iter().cycle();
        let mut draw = || *numbers.next().unwrap();
        let mut address = || match v6 {
            true => IpAddr::V6(exact(&mut draw)),
            false => IpAddr::V4(exact(&mut draw)),
        };
        let (src, dst, new_src, new_dst) = (address(), address(), address(), address());
        let flow = FlowEntry {
            key: FlowKey {
                vpc: exact(&mut draw),
                tuple: Tuple {
                    src,
                    dst,
                    proto: exact(&mut draw),
                    src_port: exact(&mut draw),
                    dst_port: exact(&mut draw),
                },
            },
            action: FlowAction {
                vpc: exact(&mut draw),
                src: (nat & 1 == 1).then(|| (new_src, exact(&mut draw))),
                dst: (nat & 2 == 2).then(|| (new_dst, exact(&mut draw))),
            },
            idle_timeout: Duration::from_nanos(nanos),
        };
        let entry = flow_to_entry(&flow).unwrap();
        prop_assert!(is_flow(&entry));
        prop_assert_eq!(flow_from_entry(&entry), Ok(flow));
        let key = flow_key_entry(&flow.key).unwrap();
        prop_assert_eq!(flow_key_from_entry(&key), Ok(flow.key));
    }

    #[test]
    fn any_bytes_are_an_entry_or_an_error(id in 0..8_u32, value: Vec<u8>, prefix_len: i32) {
        for (_, table_id) in AnyEntry::TABLES {
            let lpm = Lpm { value: value.clone(), prefix_len };
            let field = FieldMatch {
                field_id: id,
                field_match_type: Some(FieldMatchType::Lpm(lpm)),
            };
            let entry = TableEntry {
                table_id: *table_id,
                r#match: vec![field.clone(), field],
                ..Default::default()
            };
            prop_assert!(AnyEntry::from_entry(&entry).is_err());
        }
    }
}

fn route() -> TableEntry {
    Route4 {
        key: Route4Key {
            vpc: VpcId::MIN,
            dst: "10.0.0.0/8".parse().unwrap(),
        },
        action: Route4Action::Local,
    }
    .to_entry()
}

#[test]
fn a_default_route_matches_the_vpc_alone() {
    let entry = Route4 {
        key: Route4Key {
            vpc: VpcId::MIN,
            dst: "0.0.0.0/0".parse().unwrap(),
        },
        action: Route4Action::Blackhole,
    }
    .to_entry();
    assert_eq!(entry.r#match.len(), 1);
}

#[test]
fn a_prefix_with_host_bits_is_written_without() {
    let with = Route4Key {
        vpc: VpcId::MIN,
        dst: "10.1.2.3/8".parse().unwrap(),
    };
    assert_eq!(with.to_matches(), route().r#match);
}

#[test]
fn foreign_entries_are_refused() {
    let refused = |change: fn(&mut TableEntry)| {
        let mut entry = route();
        change(&mut entry);
        Route4::from_entry(&entry).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|entry| entry.table_id = 1),
        "table route4: the entry is of the table with id 0x1"
    );
    assert_eq!(
        refused(|entry| entry.priority = 3),
        "table route4: priority 3 is out of range"
    );
    assert_eq!(
        refused(|entry| entry.action = None),
        "table route4: the entry has no action"
    );
    assert_eq!(
        refused(|entry| drop(entry.r#match.remove(0))),
        "table route4: vpc is missing"
    );
    assert_eq!(
        refused(|entry| entry.r#match[0].field_id = 9),
        "table route4: unknown or repeated match field 9"
    );
    assert_eq!(
        refused(|entry| entry.r#match[1].field_id = 1),
        "table route4: unknown or repeated match field 1"
    );
    assert_eq!(
        refused(|entry| match &mut entry.r#match[1].field_match_type {
            Some(FieldMatchType::Lpm(lpm)) => lpm.prefix_len = 0,
            _ => unreachable!(),
        }),
        "table route4: dst is not a valid LPM match"
    );
    assert_eq!(
        refused(
            |entry| match entry.action.as_mut().unwrap().r#type.as_mut() {
                Some(Type::Action(action)) => action.action_id = 0,
                _ => unreachable!(),
            }
        ),
        "table route4: no action has id 0x0"
    );
}

#[test]
fn padded_values_are_accepted() {
    let mut entry = route();
    match entry.r#match[0].field_match_type.as_mut() {
        Some(FieldMatchType::Exact(exact)) => exact.value = vec![0, 0, 0, 1],
        _ => unreachable!(),
    }
    assert_eq!(Route4::from_entry(&entry).unwrap().to_entry(), route());
}

#[test]
fn addresses_of_two_families_are_no_flow() {
    let key = FlowKey {
        vpc: VpcId::MIN,
        tuple: Tuple {
            src: "10.0.0.1".parse().unwrap(),
            dst: "::1".parse().unwrap(),
            proto: 6,
            src_port: 1,
            dst_port: 2,
        },
    };
    assert_eq!(flow_key_entry(&key), None);
}

#[test]
fn punt_covers_one_interface_or_any() {
    let mut punt = Punt {
        key: PuntKey {
            reason: crate::PuntReason::Arp,
            interface: None,
        },
        priority: std::num::NonZeroU16::MIN,
        action: PuntAction::Drop,
        meter: Some(Meter::single(100, 10)),
    };
    assert_eq!(punt.to_entry().r#match.len(), 1);
    punt.key.interface = InterfaceId::new(7);
    assert_eq!(punt.to_entry().r#match.len(), 2);
}

#[test]
fn ids_are_those_of_the_p4info() {
    let info = parse_p4info_text(crate::P4INFO).unwrap();
    assert_eq!(info.tables.len(), AnyEntry::TABLES.len());
    for (name, id) in AnyEntry::TABLES {
        let preamble = |table: &&p4runtime::p4::config::v1::Table| {
            let preamble = table.preamble.as_ref().unwrap();
            preamble.alias == *name && preamble.id == *id
        };
        assert!(info.tables.iter().any(|table| preamble(&table)), "{name}");
    }
}

mod p4info {
    //! What the build says when P4Info and types disagree.

    use super::check::{Action, Table, generate};
    use super::declared::DECLARED;
    use p4runtime::p4::config::v1::P4Info;
    use p4runtime::p4::config::v1::match_field::{Match, MatchType};
    use p4runtime::p4info::parse_p4info_text;

    const FLOW: Table = Table {
        name: "flow4",
        mode: "idle_timeout",
        fields: &[("src", "exact", 32)],
        actions: &[Action {
            name: "forward",
            params: &[("vpc", 16)],
        }],
    };

    fn faults(declared: Table, change: impl Fn(String) -> String) -> Vec<String> {
        let text = r#"
            tables {
              preamble { id: 33554433 name: "a.flow4" alias: "flow4" }
              match_fields { id: 1 name: "src" bitwidth: 32 match_type: EXACT }
              action_refs { id: 16777218 }
              action_refs { id: 16777219 scope: DEFAULT_ONLY }
              idle_timeout_behavior: NOTIFY_CONTROL
            }
            actions {
              preamble { id: 16777218 name: "a.forward" alias: "forward" }
              params { id: 1 name: "vpc" bitwidth: 16 }
            }
            actions { preamble { id: 16777219 name: "NoAction" alias: "NoAction" } }
        "#;
        let info = parse_p4info_text(&change(text.to_owned())).unwrap();
        generate(&info, &[declared]).err().unwrap_or_default()
    }

    fn declared(declared: Table) -> Vec<String> {
        faults(declared, |text| text)
    }

    fn ours() -> P4Info {
        parse_p4info_text(crate::P4INFO).unwrap()
    }

    /// The build fails for a change of the P4Info, and each of the words is in what it says.
    fn fails(change: impl FnOnce(&mut P4Info), words: &[&str]) {
        let mut info = ours();
        change(&mut info);
        let faults = generate(&info, DECLARED).expect_err(&words.join(" "));
        let named = |fault: &String| words.iter().all(|word| fault.contains(word));
        assert!(faults.iter().any(named), "{words:?}: {faults:#?}");
    }

    /// Whatever single thing of the real P4Info changes that the types rely on.
    #[test]
    fn every_disagreement_with_the_real_tables_is_named() {
        let info = ours();
        assert!(generate(&info, DECLARED).is_ok());
        let mut tried = 0;
        for (t, table) in info.tables.iter().enumerate() {
            let alias = table.preamble.as_ref().unwrap().alias.as_str();
            fails(
                |info| info.tables[t].preamble.as_mut().unwrap().alias = "other".into(),
                &["no table", alias],
            );
            fails(
                |info| info.tables[t].preamble.as_mut().unwrap().id = 7,
                &["table", alias, "0x00000007"],
            );
            for (f, field) in table.match_fields.iter().enumerate() {
                let name = field.name.as_str();
                let of = ["table", alias, "key", name];
                fails(|info| info.tables[t].match_fields[f].name = "x".into(), &of);
                fails(|info| info.tables[t].match_fields[f].bitwidth += 1, &of);
                fails(|info| info.tables[t].match_fields[f].id = 0, &of);
                let kind = match field.r#match {
                    Some(Match::MatchType(kind)) if kind == MatchType::Exact as i32 => {
                        MatchType::Lpm
                    }
                    _ => MatchType::Exact,
                };
                let kind = Some(Match::MatchType(kind as i32));
                fails(|info| info.tables[t].match_fields[f].r#match = kind, &of);
                tried += 4;
            }
        }
        let declared = DECLARED.iter().flat_map(|table| {
            let actions = table.actions.iter();
            actions.map(|action| (table.name, action.name))
        });
        for (table, action) in declared {
            let alias = |a: &p4runtime::p4::config::v1::Action| {
                a.preamble.as_ref().unwrap().alias == action
            };
            let a = info.actions.iter().position(alias).unwrap();
            fails(
                |info| info.actions[a].preamble.as_mut().unwrap().alias = "other".into(),
                &["table", table, "no action", action],
            );
            fails(
                |info| info.actions[a].preamble.as_mut().unwrap().id = 7,
                &["action", action, "0x00000007"],
            );
            for (p, param) in info.actions[a].params.iter().enumerate() {
                let of = ["action", action, "parameter", param.name.as_str()];
                fails(|info| info.actions[a].params[p].name = "x".into(), &of);
                fails(|info| info.actions[a].params[p].bitwidth += 1, &of);
                fails(|info| info.actions[a].params[p].id = 0, &of);
                tried += 3;
            }
        }
        assert!(tried > 300, "{tried} changes were tried");
    }

    #[test]
    fn agreement_yields_ids() {
        assert_eq!(declared(FLOW), [""; 0]);
    }

    #[test]
    fn widths_and_kinds() {
        assert_eq!(
            declared(Table {
                fields: &[("src", "exact", 16)],
                ..FLOW
            }),
            ["p4info: table flow4 key src is 32 bits exact, the Rust type says 16 bits exact"]
        );
        assert_eq!(
            declared(Table {
                fields: &[("src", "lpm", 32)],
                ..FLOW
            }),
            ["p4info: table flow4 key src is 32 bits exact, the Rust type says 32 bits lpm"]
        );
        let wide = &[Action {
            name: "forward",
            params: &[("vpc", 32)],
        }];
        assert_eq!(
            declared(Table {
                actions: wide,
                ..FLOW
            }),
            [
                "p4info: table flow4 action forward parameter vpc is 16 bits, the Rust type says 32 bits"
            ]
        );
    }

    #[test]
    fn names() {
        assert_eq!(
            declared(Table {
                name: "flow5",
                ..FLOW
            }),
            [
                "p4info: table flow4 has no Rust type",
                "p4info: no table flow5, which a Rust type declares"
            ]
        );
        assert_eq!(
            declared(Table {
                fields: &[("source", "exact", 32)],
                ..FLOW
            }),
            [
                "p4info: table flow4 has a key src, the Rust type has none",
                "p4info: table flow4 has no key source, the Rust type has one"
            ]
        );
        let renamed = &[Action {
            name: "NoAction",
            params: &[],
        }];
        assert_eq!(
            declared(Table {
                actions: renamed,
                ..FLOW
            }),
            [
                "p4info: table flow4 has an action forward, the Rust type has none",
                "p4info: table flow4 has no action NoAction, the Rust type has one"
            ]
        );
        let renamed = &[Action {
            name: "forward",
            params: &[("vrf", 16)],
        }];
        assert_eq!(
            declared(Table {
                actions: renamed,
                ..FLOW
            }),
            [
                "p4info: table flow4 action forward has a parameter vpc, the Rust type has none",
                "p4info: table flow4 action forward has no parameter vrf, the Rust type has one"
            ]
        );
    }

    #[test]
    fn ids() {
        let of = |from: &'static str, to: &'static str| faults(FLOW, |text| text.replace(from, to));
        assert_eq!(
            of("preamble { id: 33554433", "preamble { id: 16777217"),
            [
                "p4info: table flow4 has the id 0x01000001, which is no table's \
                 (table ids begin with 0x02)"
            ]
        );
        assert_eq!(
            of("preamble { id: 16777219", "preamble { id: 16777218"),
            [
                "p4info: actions forward and NoAction have the same id 0x01000002",
                "p4info: table flow4 refers to an action with id 0x01000003, and there is none",
            ]
        );
        assert_eq!(
            of("match_fields { id: 1", "match_fields { id: 0"),
            ["p4info: table flow4 key src has no id"]
        );
        assert_eq!(
            of(
                "params { id: 1",
                "params { id: 7 name: \"x\" bitwidth: 8 } params { id: 7"
            ),
            [
                "p4info: action forward parameters x and vpc have the same id 7",
                "p4info: table flow4 action forward has a parameter x, the Rust type has none",
            ]
        );
    }

    #[test]
    fn modes() {
        let faults = faults(FLOW, |text| {
            text.replace("idle_timeout_behavior: NOTIFY_CONTROL", "")
        });
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].starts_with(
                "p4info: table flow4 has plain entries, the Rust type says idle_timeout"
            )
        );
    }
}
