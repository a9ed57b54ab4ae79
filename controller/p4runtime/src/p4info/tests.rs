use super::*;

const BASE: &str = r#"
pkg_info { arch: "v1model" }
tables {
  preamble { id: 0x2000001 name: "ingress.acl" alias: "acl" annotations: "@refers_to(a, b)" }
  match_fields { id: 1 name: "port" bitwidth: 9 match_type: EXACT }
  match_fields { id: 2 name: "dst" bitwidth: 128 match_type: TERNARY }
  action_refs { id: 0x1000001 scope: TABLE_ONLY annotations: "@tableonly" }
  const_default_action_id: 0x1000002
  direct_resource_ids: 0x12000001
  size: 1024
  idle_timeout_behavior: NOTIFY_CONTROL
}
actions {
  preamble { id: 0x1000001 name: "ingress.send" alias: "send" }
  params { id: 1 name: "port" bitwidth: 9 }
  params { id: 2 name: "queue" bitwidth: 5 }
}
actions { preamble { id: 0x1000002 name: "NoAction" alias: "NoAction" } }
direct_counters {
  preamble { id: 0x12000001 name: "ingress.acl_counter" alias: "acl_counter" }
  spec { unit: BOTH }
  direct_table_id: 0x2000001
}
controller_packet_metadata {
  preamble { id: 0x4000001 name: "packet_in" alias: "packet_in" }
  metadata { id: 1 name: "ingress_port" bitwidth: 9 }
}
type_info { }
"#;

fn error(text: &str) -> String {
    P4InfoIndex::from_text(text).unwrap_err().to_string()
}

#[test]
fn tables_fields_and_actions_are_found_by_name_alias_and_id() {
    let index = P4InfoIndex::from_text(BASE).unwrap();
    let table = index.table("acl").unwrap();
    assert_eq!(index.table("ingress.acl").unwrap(), table);
    assert_eq!(index.table_by_id(0x2000001).unwrap(), table);
    assert_eq!(table.field("dst").unwrap().kind, MatchKind::Ternary);
    assert_eq!(table.field_by_id(1).unwrap().bitwidth, 9);
    assert!(table.needs_priority() && table.idle_timeout && !table.is_const);
    assert_eq!(table.const_default_action, Some(0x1000002));
    assert_eq!(
        table.action_ref(0x1000001).unwrap().scope,
        ActionScope::TableOnly
    );
    assert_eq!(index.direct_counter_of(table).unwrap().alias, "acl_counter");
    assert!(index.direct_meter_of(table).is_none());
    let send = index.action("send").unwrap();
    assert_eq!(send.param("queue").unwrap().id, 2);
    let packet_in = index.packet_header("packet_in").unwrap();
    assert_eq!(packet_in.field("ingress_port").unwrap().bitwidth, 9);
}

#[test]
fn unknown_names_and_ids_say_where_and_suggest() {
    let index = P4InfoIndex::from_text(BASE).unwrap();
    let table = index.table("acl").unwrap();
    let text = |error: P4InfoError| error.to_string();
    assert_eq!(
        text(index.action("sned").unwrap_err()),
        r#"no action "sned"; did you mean "send"?"#
    );
    assert_eq!(
        text(index.action("drop").unwrap_err()),
        r#"no action "drop""#
    );
    assert_eq!(
        text(table.field("prt").unwrap_err()),
        r#"no match field "prt" in table "acl"; did you mean "port"?"#
    );
    assert_eq!(
        text(table.field_by_id(7).unwrap_err()),
        r#"no match field with id 0x7 in table "acl""#
    );
    assert_eq!(
        text(index.table_by_id(9).unwrap_err()),
        "no table with id 0x9"
    );
}

#[test]
fn broken_infos_are_refused() {
    assert_eq!(
        error("tables {\n  preamble { id: 1 nam: \"t\" }\n}"),
        "not a P4Info in text format: line 2: field 'nam' not found for message 'p4.config.v1.Preamble'"
    );
    assert_eq!(error("tables { }"), r#"table "": no preamble"#);
    assert_eq!(
        error(r#"tables { preamble { name: "t" } }"#),
        r#"table "t": its id is 0"#
    );
    assert_eq!(
        error(
            r#"actions { preamble { id: 1 name: "a" } } actions { preamble { id: 1 name: "b" } }"#
        ),
        r#"action "b" has id 0x1, which is taken"#
    );
    assert_eq!(
        error(
            r#"actions { preamble { id: 1 name: "a" } }
               actions { preamble { id: 2 name: "b" alias: "a" } }"#
        ),
        r#"two actions are named "a""#
    );
    assert_eq!(
        error(
            r#"tables { preamble { id: 1 name: "t" }
               match_fields { id: 1 name: "f" match_type: EXACT } }"#
        ),
        r#"table "t": match field "f": its width is 0 bits"#
    );
    assert_eq!(
        error(
            r#"tables { preamble { id: 1 name: "t" } match_fields { id: 1 name: "f" bitwidth: 1 } }"#
        ),
        r#"table "t": match field "f": no match type"#
    );
    assert_eq!(
        error(r#"tables { preamble { id: 1 name: "t" } action_refs { id: 5 } }"#),
        r#"table "t": no action with id 0x5"#
    );
}

#[test]
fn text_round_trips() {
    let info = parse_p4info_text(BASE).unwrap();
    let text = format_p4info_text(&info).unwrap();
    assert_eq!(parse_p4info_text(&text).unwrap(), info);
}
