use std::sync::LazyLock;

use super::*;
use crate::p4info::P4InfoIndex;

const INFO: &str = r#"
tables {
  preamble { id: 1 name: "in.flow4" alias: "flow4" }
  match_fields { id: 1 name: "vpc" bitwidth: 16 match_type: EXACT }
  match_fields { id: 2 name: "src" bitwidth: 32 match_type: EXACT }
  action_refs { id: 11 } action_refs { id: 12 scope: DEFAULT_ONLY } action_refs { id: 13 scope: TABLE_ONLY }
  direct_resource_ids: 41
  idle_timeout_behavior: NOTIFY_CONTROL
}
tables {
  preamble { id: 2 name: "in.acl" alias: "acl" }
  match_fields { id: 1 name: "src" bitwidth: 32 match_type: TERNARY }
  match_fields { id: 2 name: "dport" bitwidth: 16 match_type: RANGE }
  match_fields { id: 3 name: "name" match_type: OPTIONAL type_name { name: "name_t" } }
  action_refs { id: 11 } action_refs { id: 12 }
  direct_resource_ids: 51
}
tables {
  preamble { id: 3 name: "in.ecmp" alias: "ecmp" }
  match_fields { id: 1 name: "group" bitwidth: 16 match_type: EXACT }
  action_refs { id: 11 }
  implementation_id: 21
}
actions {
  preamble { id: 11 name: "in.send" alias: "send" }
  params { id: 1 name: "port" bitwidth: 9 }
  params { id: 2 name: "dmac" bitwidth: 48 }
}
actions { preamble { id: 12 name: "in.drop" alias: "drop" } }
actions { preamble { id: 13 name: "in.count" alias: "count" } }
action_profiles { preamble { id: 21 name: "in.sel" alias: "sel" } table_ids: 3 with_selector: true size: 8 }
counters { preamble { id: 31 name: "in.drops" alias: "drops" } spec { unit: BOTH } size: 4 }
direct_counters { preamble { id: 41 name: "in.c" alias: "c" } spec { unit: BOTH } direct_table_id: 1 }
direct_meters { preamble { id: 51 name: "in.m" alias: "m" } spec { unit: PACKETS } direct_table_id: 2 }
meters { preamble { id: 61 name: "in.limits" alias: "limits" } spec { unit: BYTES } size: 4 }
registers { preamble { id: 71 name: "in.cells" alias: "cells" } size: 4
  type_spec { bitstring { bit { bitwidth: 8 } } } }
digests { preamble { id: 81 name: "learn_t" alias: "learn_t" }
  type_spec { bitstring { bit { bitwidth: 8 } } } }
value_sets { preamble { id: 91 name: "prs.types" alias: "types" } size: 4
  match { id: 1 name: "type" bitwidth: 16 match_type: EXACT }
  match { id: 2 name: "port" bitwidth: 9 match_type: TERNARY } }
externs { extern_type_id: 0x81 extern_type_name: "Cache"
  instances { preamble { id: 0x81000001 name: "in.cache" alias: "cache" } } }
controller_packet_metadata { preamble { id: 101 name: "packet_out" }
  metadata { id: 1 name: "egress_port" bitwidth: 9 } metadata { id: 2 name: "_pad" bitwidth: 7 } }
controller_packet_metadata { preamble { id: 102 name: "packet_in" }
  metadata { id: 1 name: "ingress_port" bitwidth: 9 } }
type_info { new_types { key: "name_t" value { translated_type { uri: "n" sdn_string { } } } } }
"#;

fn index() -> P4InfoIndex {
    static INDEX: LazyLock<P4InfoIndex> = LazyLock::new(|| P4InfoIndex::from_text(INFO).unwrap());
    INDEX.clone()
}

fn said(line: &str, purpose: Purpose) -> String {
    let index = index();
    match parse_line(line, &index, purpose) {
        Ok(entity) => Named::of(&entity, &index).unwrap().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_kind_of_entity_round_trips() {
    for line in [
        "table flow4 vpc=1 src=10.0.0.2 do send port=3 dmac=02:00:00:00:00:01 --idle-timeout 30s --metadata 0x00ff --packets 1 --bytes 64",
        "table acl src=10.0.0.0/8 dport=80..90 name=\"a b\" do drop --priority 10 --cir 1 --cburst 2 --pir 3 --pburst 4 --eburst 5",
        "table acl do drop --priority 1",
        "table ecmp group=1 do 2x send port=1 dmac=02:00:00:00:00:01 do 1x@7 send port=2 dmac=02:00:00:00:00:02",
        "table ecmp group=2 do group=7",
        "table ecmp group=3 do member=5",
        "default acl do drop",
        "default acl",
        "member sel 5 do send port=1 dmac=02:00:00:00:00:01",
        "group sel 7 member=5 member=3x6@9 --max-size 4",
        "counter drops 3 --packets 5 --bytes 70",
        "direct-counter flow4 vpc=1 src=10.0.0.2 --packets 5 --bytes 70",
        "meter limits 0 --cir 10 --cburst 5 --pir 20 --pburst 10",
        "meter limits 0",
        "direct-meter acl src=10.0.0.1 --priority 3 --cir 1 --cburst 2 --pir 3 --pburst 4",
        "register cells 3 --value 7",
        "multicast 1 port=1 port=2:1",
        "clone 5 port=510 --length 128 --class 1",
        "digest learn_t --max-timeout 1s --max-list 10 --ack-timeout 500ms",
        "value-set types type=2048 or type=34525 port=0x1&&&0x5",
        "value-set types",
        "value-set types port=*",
        "extern Cache.cache --type-url example.com/Entry --bytes-hex 0a01ff",
    ] {
        assert_eq!(said(line, Purpose::Write), line);
    }
}

#[test]
fn short_and_other_forms_mean_the_same() {
    let full = "table flow4 vpc=1 src=10.0.0.2 do send port=3 dmac=02:00:00:00:00:01";
    for line in [
        "flow4 src=0x0a000002 vpc=0x1 -> send dmac=2-0-0-0-0-1 port=0b11",
        "in.flow4 vpc=1 src=10.0.0.2 do in.send port=3 dmac=02:00:00:00:00:01 # why",
    ] {
        assert_eq!(said(line, Purpose::Write), full);
    }
    assert_eq!(
        said(
            "ecmp group=1 do send port=1 dmac=02:00:00:00:00:01",
            Purpose::Write
        ),
        "table ecmp group=1 do 1x send port=1 dmac=02:00:00:00:00:01"
    );
    assert_eq!(
        said("flow4 vpc=1 src=10.0.0.2 do send port=3", Purpose::Delete),
        "table flow4 vpc=1 src=10.0.0.2"
    );
    assert_eq!(said("flow4 vpc=1", Purpose::Read), "table flow4 vpc=1");
    for everything in ["table", "counter", "group", "meter limits", "multicast"] {
        let index = index();
        assert!(
            parse_line(everything, &index, Purpose::Read).is_ok(),
            "{everything}"
        );
        assert!(parse_line(everything, &index, Purpose::Write).is_err() || everything == "meter");
    }
}

#[test]
fn errors_name_the_field_and_what_it_takes() {
    let write = Purpose::Write;
    for (line, want) in [
        ("flow5 vpc=1", r#"no table "flow5"; did you mean "flow4"?"#),
        (
            "countr drops 1",
            r#"no table "countr"; did you mean "counter"?"#,
        ),
        (
            "flow4 vpcs=1 src=1.2.3.4 do drop",
            r#"no match field "vpcs" in table "flow4"; did you mean "vpc"?"#,
        ),
        (
            "flow4 vpc=70000 src=1.2.3.4 do drop",
            r#"table "flow4", field "vpc": 70000 is out of range: 16 bits hold 0 to 65535"#,
        ),
        (
            "flow4 vpc=1 do send port=1 dmac=2:0:0:0:0:1",
            r#"table "flow4": the field "src" is missing; it takes an IPv4 address, such as 192.0.2.1"#,
        ),
        (
            "flow4 vpc=1 vpc=1",
            r#"table "flow4": the field "vpc" is given twice"#,
        ),
        (
            "flow4 vpc=1 src=1.2.3.4",
            r#"table "flow4": the action is missing; write `do ACTION`, one of send, count"#,
        ),
        (
            "flow4 vpc=1 src=1.2.3.4 do sendd port=1",
            r#"table "flow4" has no action "sendd"; did you mean "send"?; its actions are send, count"#,
        ),
        (
            "flow4 vpc=1 src=1.2.3.4 do drop",
            r#"table "flow4": the action "drop" is only for the default entry; here may stand send, count"#,
        ),
        (
            "default flow4 do count",
            r#"table "flow4": the action "count" is only for an entry; here may stand send, drop"#,
        ),
        (
            "flow4 vpc=1 src=1.2.3.4 do send port=1",
            r#"action "send": the parameter "dmac" is missing; it takes a MAC address, such as 02:00:00:00:00:01"#,
        ),
        (
            "flow4 vpc=1 src=1.2.3.4 do count --priority 3",
            r#"table "flow4" has no priorities: all of its fields are exact or LPM"#,
        ),
        (
            "acl do drop",
            r#"table "acl": --priority is missing: some of its fields are ternary, range or optional; it takes a number from 1 to 2147483647; the largest wins"#,
        ),
        (
            "acl do drop --priority 0",
            r#"--priority: "0" is not a number from 1 to 2147483647"#,
        ),
        (
            "acl do drop --priority 1 --idle-timeout 5s",
            r#"table "acl" has no idle timeouts: the program does not set support_timeout"#,
        ),
        (
            "acl do drop --prioriti 1",
            r#"table "acl": --priority is missing: some of its fields are ternary, range or optional; it takes a number from 1 to 2147483647; the largest wins"#,
        ),
        (
            "flow4 vpc=1 src=1.2.3.4 do count --idle-timout 5s",
            r#"table "flow4" takes no --idle-timout; did you mean "idle-timeout"?"#,
        ),
        (
            "flow4 vpc=1 src=1.2.3.4 do count --idle-timeout 5",
            r#"--idle-timeout: "5" is not a duration, such as 30s, 500ms, 5m or 1h"#,
        ),
        (
            "flow4 vpc=1 src=1.2.3.4 do group=1",
            r#"table "flow4" has no action profile: it takes no group"#,
        ),
        (
            "counter drops 4 --packets 1",
            r#"counter "drops": the index "4" is out of range: it is 0 to 3"#,
        ),
        (
            "register cells 0 --value 256",
            r#"register "cells": 256 is out of range: 8 bits hold 0 to 255"#,
        ),
        (
            "meter limits 0 --cir 1",
            "a meter takes --cir, --cburst, --pir and --pburst, all four",
        ),
        (
            "member sel 1 do drop",
            r#"action profile "sel": no table that uses it has the action "drop""#,
        ),
        (
            "multicast 0",
            r#"multicast group: "0" is not an id from 1 to 4294967295"#,
        ),
        (
            "counter drops 1 2 --packets 1",
            r#"counter: "2" is one word too many"#,
        ),
        (
            "direct-meter flow4 vpc=1",
            r#"table "flow4" has no direct-meter"#,
        ),
    ] {
        assert_eq!(said(line, write), want, "{line}");
    }
}

#[test]
fn packets_have_metadata_by_name() {
    let index = index();
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let packet = packet_out(vec![1], &words("egress_port=511"), &index).unwrap();
    let values: Vec<_> = packet
        .metadata
        .iter()
        .map(|one| one.value.clone())
        .collect();
    assert_eq!(values, [vec![1, 0xff], vec![0]]);
    let error = |text| {
        packet_out(vec![1], &words(text), &index)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error("egress_port=512"),
        r#"packet_out, field "egress_port": 512 is out of range: 9 bits hold 0 to 511"#
    );
    assert_eq!(
        error("_pad=1"),
        r#"packet_out: the field "egress_port" is missing; it takes a number from 0 to 511"#
    );
    assert_eq!(
        error("egress_prt=1"),
        r#"no controller header field "egress_prt" in header "packet_out"; did you mean "egress_port"?"#
    );
    let packet = crate::p4::v1::PacketIn {
        payload: vec![],
        metadata: vec![crate::p4::v1::PacketMetadata {
            metadata_id: 1,
            value: vec![7],
        }],
    };
    assert_eq!(
        packet_in_fields(&packet, &index).to_string(),
        "ingress_port=7"
    );
}

#[cfg(feature = "serde")]
#[test]
fn json_carries_the_same() {
    let index = index();
    let line = "acl src=10.0.0.0/8 do drop --priority 10";
    let entity = parse_line(line, &index, Purpose::Write).unwrap();
    let named = Named::of(&entity, &index).unwrap();
    assert_eq!(
        serde_json::to_value(named).unwrap(),
        serde_json::json!({
            "entity": "table", "table": "acl", "match": {"src": "10.0.0.0/8"},
            "action": {"action": "drop", "params": {}}, "priority": 10,
        })
    );
}

proptest::proptest! {
    /// Never a panic, whatever is typed.
    #[test]
    fn any_line_is_understood_or_refused(line in "(table|flow4|acl|group|clone|do|send|vpc=|src=|--priority|[ -~]){0,12}( [ -~]{0,20}){0,6}") {
        let index = index();
        for purpose in [Purpose::Write, Purpose::Delete, Purpose::Read] {
            let _ = parse_line(&line, &index, purpose);
        }
    }
}
