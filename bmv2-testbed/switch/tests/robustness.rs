//! Nothing that comes from outside makes the switch panic: programs, P4Infos, packets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::LazyLock;

use p4runtime::p4::config::v1::P4Info;
use proptest::prelude::*;
use serde_json::{Value, json};
use shunt_switch::log::PacketTrace;
use shunt_switch::{Options, Switch};

struct Sample {
    value: Value,
    info: P4Info,
    nodes: usize,
}

fn sample(name: &str) -> Sample {
    let (json, info) = common::program(name);
    let value: Value = serde_json::from_slice(&json).unwrap();
    let nodes = count(&value);
    Sample { value, info, nodes }
}

static FORWARD: LazyLock<Sample> = LazyLock::new(|| sample("forward"));
static CONSTRUCTS: LazyLock<Sample> = LazyLock::new(|| sample("constructs"));

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum::<usize>(),
        Value::Object(members) => members.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// The `index`th node, counted depth first.
fn node<'v>(value: &'v mut Value, index: &mut usize) -> Option<&'v mut Value> {
    if *index == 0 {
        return Some(value);
    }
    *index -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|v| node(v, index)),
        Value::Object(members) => members.values_mut().find_map(|v| node(v, index)),
        _ => None,
    }
}

fn other_value(choice: u8, number: i64) -> Value {
    match choice % 9 {
        0 => Value::Null,
        1 => json!(number),
        2 => json!(format!("{number:#x}")),
        3 => json!([]),
        4 => json!({}),
        5 => json!("$valid$"),
        6 => json!(["scalars", "no"]),
        7 => json!({"type": "hexstr", "value": format!("0x{:0>80}", number)}),
        _ => json!(true),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_program_is_refused_or_runs(
        forward in any::<bool>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<i64>()), 1..4),
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 4),
    ) {
        let sample = if forward { &*FORWARD } else { &*CONSTRUCTS };
        let mut value = sample.value.clone();
        for (at, choice, number) in damage {
            if let Some(place) = node(&mut value, &mut at.index(sample.nodes)) {
                *place = other_value(choice, number);
            }
        }
        let switch = Switch::new(Options { trace: Some(std::sync::Arc::new(|trace: PacketTrace| drop(trace.record(64).to_string()))), ..Options::default() });
        if switch.load(value.to_string().as_bytes(), sample.info.clone()).is_ok() {
            for frame in frames {
                switch.inject(1, &frame);
            }
        }
    }

    #[test]
    fn text_that_is_no_program_is_refused(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let switch = Switch::new(Options::default());
        prop_assert!(switch.load(&text, P4Info::default()).is_err());
    }

    #[test]
    fn any_frame_runs(
        forward in any::<bool>(),
        port in 0u32..600,
        op in any::<u8>(),
        frame in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let switch = Switch::new(Options::default());
        let name = if forward { "forward" } else { "constructs" };
        let (json, info) = common::program(name);
        switch.load(&json, info).unwrap();
        let mut frame = frame;
        // Often enough a frame that gets somewhere.
        if forward && frame.len() > 14 {
            frame[12] = 8;
            frame[13] = 0;
        } else if let Some(first) = frame.first_mut() {
            *first = op % 100;
        }
        switch.inject(port, &frame);
        let stats = switch.stats();
        prop_assert_eq!(stats.received, 1);
    }
}

#[test]
fn a_p4info_of_another_program_is_refused() {
    let switch = Switch::new(Options::default());
    let (json, _) = common::program("forward");
    let (_, info) = common::program("constructs");
    let refused = switch.load(&json, info).unwrap_err();
    assert!(refused.to_string().contains("In."), "{refused}");
}
