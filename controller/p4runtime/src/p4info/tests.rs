use super::*;

const BASE: &str = r#"
pkg_info { arch: "v1model" }
tables {
  preamble { id: 0x2000001 name: "ingress.acl" alias: "acl" annotations: "@id(1)" }
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
        r#"no action "drop"; there are send, NoAction"#
    );
    assert_eq!(
        text(index.digest("learn").unwrap_err()),
        r#"no digest "learn"; there are none"#
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

const TYPED: &str = r#"
tables {
  preamble { id: 1 name: "t" }
  match_fields { id: 1 name: "a" bitwidth: 32 match_type: EXACT annotations: "@format(IPV4_ADDRESS)" }
  match_fields { id: 2 name: "b" bitwidth: 32 match_type: EXACT annotations: "@format(HEX_STR)" }
  match_fields { id: 3 name: "c" bitwidth: 32 match_type: EXACT type_name { name: "addr_t" } }
  match_fields { id: 4 name: "d" match_type: EXACT type_name { name: "port_t" } }
  match_fields { id: 5 name: "e" bitwidth: 16 match_type: EXACT annotations: "@format(MAC_ADDRESS)" }
  match_fields { id: 6 name: "f" bitwidth: 16 match_type: EXACT structured_annotations {
    name: "refers_to" expression_list { expressions { string_value: "u" } expressions { string_value: "k" } } } }
  action_refs { id: 3 }
}
tables {
  preamble { id: 2 name: "u" }
  match_fields { id: 1 name: "k" bitwidth: 16 match_type: EXACT }
}
actions {
  preamble { id: 3 name: "act" }
  params { id: 1 name: "group" bitwidth: 16
    annotations: "@refers_to(builtin::multicast_group_table, multicast_group_id)" }
  params { id: 2 name: "key" bitwidth: 16 annotations: "@refers_to( u , k )" }
}
externs { extern_type_id: 0x81 extern_type_name: "Cache"
  instances { preamble { id: 0x81000001 name: "ingress.cache" alias: "cache" } } }
registers { preamble { id: 5 name: "r" } size: 2
  type_spec { struct { name: "s" } } }
type_info {
  structs { key: "s" value {
    members { name: "ok" type_spec { bool { } } }
    members { name: "mac" type_spec { bitstring { bit { bitwidth: 48 } } } } } }
  new_types { key: "addr_t" value {
    original_type { bitstring { bit { bitwidth: 32 } } } annotations: "@format(IPV4_ADDRESS)" } }
  new_types { key: "port_t" value {
    translated_type { uri: "p" sdn_string { } } } }
}
"#;

#[test]
fn formats_and_references_come_from_annotations_and_types() {
    use crate::value::Format;
    let index = P4InfoIndex::from_text(TYPED).unwrap();
    let table = index.table("t").unwrap();
    let formats: Vec<_> = table.match_fields.iter().map(|f| f.format).collect();
    let (v4, number) = (Format::Ipv4, Format::Decimal);
    // A format that the width does not allow is not one.
    let wanted = [v4, Format::Hex, v4, Format::Text, number, number];
    assert_eq!(formats, wanted);
    let refers = |to, field: &str| Reference {
        to,
        field: field.to_owned(),
    };
    let to_u = refers(ReferredTo::Table("u".to_owned()), "k");
    assert_eq!(
        table.field("f").unwrap().refers_to,
        std::slice::from_ref(&to_u)
    );
    let params = &index.action("act").unwrap().params;
    let group = refers(ReferredTo::MulticastGroups, "multicast_group_id");
    assert_eq!(params[0].refers_to, [group]);
    assert_eq!(params[1].refers_to, [to_u]);
    assert_eq!(index.extern_instance("cache").unwrap().type_name, "Cache");
    let mac = DataType::Bits {
        bitwidth: 48,
        format: Format::Mac,
    };
    assert_eq!(
        index.register("r").unwrap().data,
        DataType::Struct(vec![
            ("ok".to_owned(), DataType::Bool),
            ("mac".to_owned(), mac)
        ])
    );
}

#[test]
fn a_reference_to_nothing_is_refused() {
    let text = TYPED.replace("@refers_to( u , k )", "@refers_to(u, kk)");
    assert_eq!(
        error(&text),
        r#"action "act": no match field "kk" in table "u"; there is only "k""#
    );
}
