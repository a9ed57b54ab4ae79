//! What `shunt switch diff` is told.

use shunt_api::v1;

fn field(name: &str, value: &str) -> v1::Field {
    v1::Field {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn value(actions: &[(&str, &str, u32)], properties: &[(&str, &str)]) -> Option<v1::EntryValue> {
    let actions = actions
        .iter()
        .map(|(name, nexthop, weight)| v1::EntryAction {
            name: (*name).to_owned(),
            params: vec![field("nexthop", nexthop)],
            weight: *weight,
        });
    Some(v1::EntryValue {
        actions: actions.collect(),
        properties: properties.iter().map(|(n, v)| field(n, v)).collect(),
    })
}

pub(crate) fn differences() -> Vec<v1::Difference> {
    let difference = |table: &str, kind: &str| v1::Difference {
        switch: "sw1".to_owned(),
        table: table.to_owned(),
        kind: kind.to_owned(),
        ..Default::default()
    };
    let route = |dst| vec![field("vpc", "red"), field("dst", dst)];
    vec![
        v1::Difference {
            key: route("10.0.0.0/24"),
            wanted: value(&[("to_nexthop", "3", 0)], &[]),
            ..difference("route4", "missing")
        },
        v1::Difference {
            key: route("10.2.0.0/24"),
            wanted: value(&[("to_nexthop", "3", 0)], &[]),
            held: value(&[("to_nexthop", "4", 0)], &[]),
            ..difference("route4", "different")
        },
        v1::Difference {
            key: vec![field("group", "7")],
            held: value(&[("to_nexthop", "3", 1), ("to_nexthop", "4", 2)], &[]),
            ..difference("ecmp", "surplus")
        },
        v1::Difference {
            fault: "table nexthop: the entry has no action".to_owned(),
            ..difference("nexthop", "foreign")
        },
    ]
}

pub(crate) fn compared(
    summary: v1::DiffSummary,
    found: Vec<v1::Difference>,
) -> Vec<v1::DiffSwitchResponse> {
    use v1::diff_switch_response::Part;
    std::iter::once(Part::Summary(summary))
        .chain(found.into_iter().map(Part::Difference))
        .map(|part| v1::DiffSwitchResponse { part: Some(part) })
        .collect()
}
