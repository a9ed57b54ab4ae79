use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::named::{Purpose, parse_line};
use pb::update::Type;

/// route → nexthop → neighbor, and route → multicast; free stands alone; ecmp has
/// a selector whose actions refer to nexthop.
const INFO: &str = r#"
tables { preamble { id: 1 name: "route" } action_refs { id: 11 } action_refs { id: 12 }
  match_fields { id: 1 name: "dst" bitwidth: 16 match_type: EXACT } }
tables { preamble { id: 2 name: "nexthop" } action_refs { id: 13 }
  match_fields { id: 1 name: "id" bitwidth: 16 match_type: EXACT } }
tables { preamble { id: 3 name: "neighbor" } action_refs { id: 14 }
  match_fields { id: 1 name: "id" bitwidth: 16 match_type: EXACT } }
tables { preamble { id: 4 name: "free" } action_refs { id: 14 }
  match_fields { id: 1 name: "id" bitwidth: 16 match_type: EXACT } }
tables { preamble { id: 5 name: "ecmp" } action_refs { id: 11 } implementation_id: 21
  match_fields { id: 1 name: "id" bitwidth: 16 match_type: EXACT } direct_resource_ids: 31 }
direct_counters { preamble { id: 31 name: "hits" } spec { unit: BOTH } direct_table_id: 5 }
action_profiles { preamble { id: 21 name: "sel" } table_ids: 5 with_selector: true size: 8 }
actions { preamble { id: 11 name: "via" }
  params { id: 1 name: "nexthop" bitwidth: 16 annotations: "@refers_to(nexthop, id)" } }
actions { preamble { id: 12 name: "flood" }
  params { id: 1 name: "group" bitwidth: 16
    annotations: "@refers_to(builtin::multicast_group_table, multicast_group_id)" } }
actions { preamble { id: 13 name: "on" }
  params { id: 1 name: "neighbor" bitwidth: 16 annotations: "@refers_to(neighbor, id)" } }
actions { preamble { id: 14 name: "go" } }
"#;

fn index() -> P4InfoIndex {
    static INDEX: LazyLock<P4InfoIndex> = LazyLock::new(|| P4InfoIndex::from_text(INFO).unwrap());
    INDEX.clone()
}

fn updates(lines: &[&str]) -> Vec<pb::Update> {
    let index = index();
    let one = |line: &&str| {
        let (kind, line) = line.split_at(1);
        let (r#type, purpose) = match kind {
            "+" => (Type::Insert, Purpose::Write),
            "~" => (Type::Modify, Purpose::Write),
            _ => (Type::Delete, Purpose::Delete),
        };
        pb::Update {
            r#type: r#type.into(),
            entity: Some(parse_line(line, &index, purpose).unwrap()),
        }
    };
    lines.iter().map(one).collect()
}

fn waves(lines: &[&str]) -> Vec<Vec<usize>> {
    References::of(&index()).waves(&updates(lines))
}

#[test]
fn what_is_referred_to_goes_first_and_is_removed_last() {
    let lines = [
        "+route dst=1 do via nexthop=7",
        "-neighbor id=9",
        "+nexthop id=7 do on neighbor=8",
        "-route dst=2",
        "+neighbor id=8 do go",
        "-nexthop id=6",
        "+route dst=3 do flood group=1",
        "+multicast 1 port=1",
        "+free id=1 do go",
    ];
    assert_eq!(
        waves(&lines),
        [
            vec![4, 7, 8],
            vec![2],
            vec![0, 6],
            vec![3],
            vec![5],
            vec![1]
        ]
    );
}

#[test]
fn groups_and_members_stand_between() {
    let lines = [
        "+direct-counter ecmp id=1 --packets 0",
        "+ecmp id=1 do group=3",
        "+group sel 3 member=4",
        "+member sel 4 do via nexthop=7",
        "+nexthop id=7 do on neighbor=8",
    ];
    assert_eq!(waves(&lines), [vec![4], vec![3], vec![2], vec![1], vec![0]]);
}

#[test]
fn one_table_is_one_wave_and_one_key_waits() {
    assert_eq!(waves(&["+free id=1 do go", "-free id=2"]), [vec![0, 1]]);
    assert_eq!(
        waves(&["-free id=1", "+free id=1 do go", "+free id=2 do go"]),
        [vec![0], vec![1, 2]]
    );
    assert_eq!(waves(&[]), [[0usize; 0]; 0]);
}

#[test]
fn the_caller_may_declare_more() {
    let index = index();
    let declared = References::of(&index)
        .declare(&index, "free", "route")
        .unwrap();
    let lines = ["+free id=1 do go", "+route dst=1 do via nexthop=7"];
    assert_eq!(declared.waves(&updates(&lines)), [vec![1], vec![0]]);
    // A circle has no order, and ends.
    let circle = declared.declare(&index, "neighbor", "free").unwrap();
    let all: Vec<_> = circle.waves(&updates(&lines)).concat();
    assert_eq!(all.len(), 2);
    let error = References::of(&index).declare(&index, "free", "rout");
    assert!(error.is_err());
}

proptest! {
    /// Every update is in one wave, and no wave depends on a later one.
    #[test]
    fn no_update_is_lost_or_too_early(picks in proptest::collection::vec((0usize..3, 0u16..4, 0usize..2), 0..30)) {
        let lines: Vec<String> = picks.iter().map(|(table, key, kind)| {
            let sign = ["+", "-"][*kind];
            match table {
                0 => format!("{sign}route dst={key} do via nexthop={key}"),
                1 => format!("{sign}nexthop id={key} do on neighbor={key}"),
                _ => format!("{sign}neighbor id={key} do go"),
            }
        }).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let waves = waves(&lines);
        let mut seen: Vec<usize> = waves.concat();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..lines.len()).collect::<Vec<_>>());
        for wave in &waves {
            let sorts: HashSet<_> = wave.iter().map(|at| (picks[*at].0, picks[*at].2)).collect();
            prop_assert_eq!(sorts.len(), 1);
        }
    }
}
