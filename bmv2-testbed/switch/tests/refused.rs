//! Programs that are refused when they are loaded: what the message says of each, the construct
//! and where it stands. Where bmv2 stops with an assertion or goes on with something else than
//! the program says, this is the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use serde_json::{Value, json};
use shunt_switch::{Options, Switch};

/// A change of a document. A path's parts are members, indices or names of objects in a list.
enum Edit {
    Set(&'static str, Value),
    Push(&'static str, Value),
    /// Repeats the object at the end of its list.
    Repeat(&'static str, &'static str),
    Remove(&'static str, &'static str),
}

use Edit::{Push, Remove, Repeat, Set};

fn find<'v>(value: &'v mut Value, path: &str) -> &'v mut Value {
    path.split('/')
        .filter(|p| !p.is_empty())
        .fold(value, |value, part| match value {
            Value::Array(items) => {
                let named = items.iter().position(|i| i["name"] == part);
                let index = named.or_else(|| part.parse().ok());
                &mut items[index.unwrap_or_else(|| panic!("no `{part}` in {path}"))]
            }
            Value::Object(members) => members.entry(part).or_insert(Value::Null),
            other => panic!("`{part}` of {path} is in {other}"),
        })
}

impl Edit {
    fn apply(self, document: &mut Value) {
        match self {
            Set(path, value) => *find(document, path) = value,
            Push(path, value) => find(document, path).as_array_mut().unwrap().push(value),
            Repeat(list, name) => {
                let again = find(document, &format!("{list}/{name}")).clone();
                find(document, list).as_array_mut().unwrap().push(again);
            }
            Remove(list, name) => match find(document, list) {
                Value::Array(items) => items.retain(|i| i["name"] != name),
                Value::Object(members) => drop(members.remove(name)),
                other => panic!("{other}"),
            },
        }
    }
}

fn refusal(program: &str, edits: Vec<Edit>) -> String {
    let (json, info) = common::program(program);
    let mut document = serde_json::from_slice(&json).unwrap();
    for edit in edits {
        edit.apply(&mut document);
    }
    let switch = Switch::new(Options::default());
    match switch.load(document.to_string().as_bytes(), info) {
        Ok(()) => "it was taken".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn field(header: &str, name: &str) -> Value {
    json!({"type": "field", "value": [header, name]})
}

fn hex(value: &str) -> Value {
    json!({"type": "hexstr", "value": value})
}

fn expression(op: &str, left: &Value, right: &Value) -> Value {
    json!({"type": "expression", "value":
        {"type": "expression", "value": {"op": op, "left": left, "right": right}}})
}

type Case = (&'static str, Vec<Edit>, &'static [&'static str]);

/// Parsers, headers, arrays: the program's parts in front of the tables.
fn declarations() -> Vec<Case> {
    vec![
        (
            "forward",
            vec![Set("__meta__/version", json!([1, 0]))],
            &["format version [1, 0]"],
        ),
        (
            "forward",
            vec![Set("header_types", json!(7))],
            &["the JSON cannot be read", "line"],
        ),
        (
            "forward",
            vec![Push("extern_instances", json!({"name": "my_extern"}))],
            &["extern instance", "my_extern"],
        ),
        (
            "forward",
            vec![Repeat("parsers", "parser")],
            &["second parser"],
        ),
        (
            "forward",
            vec![Set("parsers", json!([]))],
            &["parsers: there is none"],
        ),
        (
            "forward",
            vec![Repeat("deparsers", "deparser")],
            &["deparsers: there is not exactly one"],
        ),
        (
            "forward",
            vec![Push("deparsers/deparser/order", json!("trailer"))],
            &["unknown header `trailer` in deparser"],
        ),
        (
            "forward",
            vec![Set("headers/udp/header_type", json!("udp_h9"))],
            &["unknown header type `udp_h9` in header udp"],
        ),
        (
            "forward",
            vec![Repeat("headers", "udp")],
            &["header id", "is defined twice"],
        ),
        (
            "forward",
            vec![Repeat("header_types", "udp_h")],
            &["header type `udp_h` is defined twice"],
        ),
        (
            "forward",
            vec![Set("header_types/udp_h/fields/0/1", json!(5000))],
            &[
                "field width other than 1 to 2048 bits",
                "src_port of header type udp_h",
            ],
        ),
        (
            "forward",
            vec![
                Set("header_types/udp_h/fields/0/1", json!("*")),
                Set("header_types/udp_h/fields/1/1", json!("*")),
            ],
            &["header type udp_h: it has two varbit fields"],
        ),
        (
            "forward",
            vec![Set("header_types/udp_h/fields/1/1", json!("*"))],
            &["header type udp_h: it has a varbit but no max_length"],
        ),
        (
            "forward",
            vec![Set("header_types/udp_h/length_exp", hex("0x20"))],
            &["`length_exp`", "header type udp_h"],
        ),
        (
            "constructs",
            vec![Set("header_stacks/items/header_ids", json!([]))],
            &["header stack items: it has no element"],
        ),
        (
            "constructs",
            vec![Set("header_stacks/items/header_ids", json!([900]))],
            &["unknown header id `900` in header stack items"],
        ),
        (
            "constructs",
            vec![Set("header_stacks/items/header_ids", json!([2, 3]))],
            &["header stack items: its elements differ in type"],
        ),
        (
            "forward",
            vec![Set("parsers/parser/init_state", json!("begin"))],
            &["unknown parser state `begin` in parser parser"],
        ),
        (
            "forward",
            vec![Repeat("parsers/parser/parse_states", "udp")],
            &["parser state `udp` is defined twice"],
        ),
        (
            "forward",
            vec![Set(
                "parsers/parser/parse_states/udp/parser_ops/0/op",
                json!("teleport"),
            )],
            &["parser operation `teleport`", "parser state udp"],
        ),
        (
            "forward",
            vec![Set(
                "parsers/parser/parse_states/udp/parser_ops/0/parameters",
                json!([]),
            )],
            &["parser state udp: `extract` lacks an argument"],
        ),
        (
            "forward",
            vec![Set(
                "parsers/parser/parse_states/udp/parser_ops/0/parameters/0/value",
                json!("sctp"),
            )],
            &["unknown header `sctp` in parser state udp"],
        ),
        (
            "forward",
            vec![Set(
                "parsers/parser/parse_states/udp/transitions/0/type",
                json!("fuzzy"),
            )],
            &["transition type `fuzzy`", "parser state udp"],
        ),
        (
            "forward",
            vec![Set(
                "parsers/parser/parse_states/l4/transition_key/0/type",
                json!("register"),
            )],
            &["select key of type `register`", "parser state l4"],
        ),
        (
            "forward",
            vec![Set(
                "parsers/parser/parse_states/l4/transitions/0/value",
                json!("0x1234567890"),
            )],
            &["`0x1234567890` does not fit", "parser state l4"],
        ),
        (
            "forward",
            vec![Repeat("counter_arrays", "In.drops")],
            &["counter array `In.drops` is defined twice"],
        ),
        (
            "forward",
            vec![Set("counter_arrays/In.drops/size", json!(1_u64 << 40))],
            &[
                "more than 2^24 array elements in all",
                "In.drops (forward.p4:",
            ],
        ),
        (
            "constructs",
            vec![Set("meter_arrays/In.limits/rate_count", json!(3))],
            &["meter without two rates", "In.limits (constructs.p4:"],
        ),
        (
            "constructs",
            vec![Set("meter_arrays/In.limits/type", json!("flits"))],
            &["meter of `flits`", "meter array In.limits (constructs.p4:"],
        ),
        (
            "constructs",
            vec![Set("register_arrays/In.cells/bitwidth", json!(0))],
            &["register", "In.cells (constructs.p4:"],
        ),
        (
            "forward",
            vec![Set("calculations/calc/algo", json!("md5"))],
            &["hash algorithm", "md5", "calculation calc"],
        ),
        (
            "forward",
            vec![Repeat("calculations", "calc")],
            &["calculation `calc` is defined twice"],
        ),
        (
            "forward",
            vec![Set("calculations/calc/input/0/type", json!("table"))],
            &["input of type `table`", "calculation calc"],
        ),
        (
            "forward",
            vec![Set("checksums/cksum/calculation", json!("calc_9"))],
            &["unknown calculation `calc_9` in checksum cksum (forward.p4:"],
        ),
        (
            "forward",
            vec![Set("checksums/cksum/type", json!("rolling"))],
            &["checksum type `rolling`", "checksum cksum (forward.p4:"],
        ),
        (
            "forward",
            vec![Set("checksums/cksum/target", json!(["ipv4", "sum"]))],
            &["unknown field `ipv4.sum` in checksum cksum (forward.p4:"],
        ),
        (
            "constructs",
            vec![Set("learn_lists/0/elements/0", hex("0x1"))],
            &["element other than a field", "field list"],
        ),
    ]
}

/// Pipelines, tables and actions.
fn control() -> Vec<Case> {
    vec![
        (
            "forward",
            vec![Set("pipelines/ingress/name", json!("MyIngress"))],
            &[
                "pipeline other than v1model's `ingress` and `egress`",
                "pipeline MyIngress (forward.p4:",
            ],
        ),
        (
            "forward",
            vec![Remove("pipelines", "egress")],
            &["pipelines: there is no `egress`"],
        ),
        (
            "forward",
            vec![Set("pipelines", json!([]))],
            &["pipelines: there is no `ingress`"],
        ),
        (
            "forward",
            vec![Set("pipelines/egress/name", json!("ingress"))],
            &["pipeline `ingress` is defined twice"],
        ),
        (
            "forward",
            vec![Set("pipelines/ingress/init_table", json!("In.nothing"))],
            &["unknown control node `In.nothing` in ingress"],
        ),
        (
            "forward",
            vec![Repeat("pipelines/ingress/tables", "In.route")],
            &["control node `In.route` is defined twice"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.route/key/0/match_type",
                json!("fuzzy"),
            )],
            &[
                "match kind `fuzzy` of ipv4.dst",
                "table In.route (forward.p4:",
            ],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.route/key/0/target",
                json!(["ipv4", "destination"]),
            )],
            &["unknown field `ipv4.destination` in table In.route (forward.p4:"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.route/match_type",
                json!("learned"),
            )],
            &["table match type `learned`", "table In.route (forward.p4:"],
        ),
        (
            "forward",
            vec![
                Set(
                    "pipelines/ingress/tables/In.flow/key/0/match_type",
                    json!("lpm"),
                ),
                Set(
                    "pipelines/ingress/tables/In.flow/key/1/match_type",
                    json!("lpm"),
                ),
            ],
            &["key with two LPM fields", "table In.flow (forward.p4:"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.ecmp/type",
                json!("direct_ws"),
            )],
            &["table type `direct_ws`", "table In.ecmp (forward.p4:"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.ecmp/action_profile",
                json!("nobody"),
            )],
            &["unknown action profile `nobody` in table In.ecmp (forward.p4:"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.route/action_profile",
                json!("x"),
            )],
            &[
                "table In.route (forward.p4:",
                "a simple table has an action profile",
            ],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.route/action_ids",
                json!([4, 999, 17]),
            )],
            &[
                "table In.route (forward.p4:",
                "there is no action of id 999",
            ],
        ),
        (
            "forward",
            vec![Push(
                "pipelines/ingress/tables/In.route/actions",
                json!("In.more"),
            )],
            &[
                "table In.route (forward.p4:",
                "4 actions by name and 3 by id",
            ],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.route/next_tables/In.fly",
                Value::Null,
            )],
            &[
                "table In.route (forward.p4:",
                "`In.fly`, which is none of its actions",
            ],
        ),
        (
            "forward",
            vec![
                Set(
                    "pipelines/ingress/tables/In.route/base_default_next",
                    json!("node_99"),
                ),
                Set("pipelines/ingress/tables/In.route/next_tables", json!({})),
            ],
            &["unknown control node `node_99` in table In.route (forward.p4:"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.acl/direct_meters",
                json!("In.speed"),
            )],
            &["unknown meter array `In.speed` in table In.acl (forward.p4:"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.route/default_entry/action_id",
                json!(0),
            )],
            &["table In.route (forward.p4:", "is not among its actions"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.route/default_entry/action_data",
                json!(["0x1"]),
            )],
            &["action In.drop gets 1 arguments"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.classes/entries/0/match_key",
                json!([]),
            )],
            &[
                "const entry of table In.classes (forward.p4:",
                "another length",
            ],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.classes/entries/0/match_key/0/match_type",
                json!("lpm"),
            )],
            &[
                "const entry of table In.classes (forward.p4:",
                "match `lpm` on",
            ],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/tables/In.classes/entries/0/match_key/0/key",
                json!("0x12345"),
            )],
            &[
                "const entry of table In.classes (forward.p4:",
                "`0x12345` does not fit in 1 bytes",
            ],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/conditionals/node_4/true_next",
                json!("node_99"),
            )],
            &["unknown control node `node_99` in condition node_4 (forward.p4:"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/conditionals/node_4/expression",
                json!({}),
            )],
            &["condition node_4 (forward.p4:", "an expression has no type"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/conditionals/node_4/expression",
                expression("**", &field("ipv4", "ttl"), &hex("0x2")),
            )],
            &["operator `**`", "condition node_4 (forward.p4:"],
        ),
        (
            "forward",
            vec![Set(
                "pipelines/ingress/conditionals/node_4/expression",
                json!({"type": "regexp", "value": 1}),
            )],
            &["operand of type `regexp`", "condition node_4 (forward.p4:"],
        ),
        (
            "forward",
            vec![Set("actions/In.use_group/id", json!(17))],
            &["action id `17` is defined twice"],
        ),
        (
            "forward",
            vec![Set("actions/In.use_group/primitives/0/op", json!("summon"))],
            &["primitive `summon`", "of action In.use_group (forward.p4:"],
        ),
        (
            "forward",
            vec![Set(
                "actions/In.use_group/primitives/0/parameters",
                json!([]),
            )],
            &[
                "primitive `assign` of action In.use_group (forward.p4:",
                "argument 0 is missing",
            ],
        ),
        (
            "forward",
            vec![Set(
                "actions/In.use_group/primitives/0/parameters/1",
                json!({"type": "runtime_data", "value": 9}),
            )],
            &["of action In.use_group (forward.p4:", "no such argument"],
        ),
        (
            "forward",
            vec![Set(
                "actions/In.use_group/primitives/0/parameters/1",
                hex("0x"),
            )],
            &[
                "of action In.use_group (forward.p4:",
                "`0x` is not a hexadecimal number",
            ],
        ),
        (
            "forward",
            vec![Set(
                "actions/In.use_group/runtime_data/0/bitwidth",
                json!(0),
            )],
            &["action In.use_group", "is 0 bits wide"],
        ),
        (
            "forward",
            vec![Set(
                "actions/forward150/primitives/0/parameters/0/value",
                json!("In.lost"),
            )],
            &[
                "unknown counter array `In.lost` in primitive `count` of action forward150 (forward.p4:",
            ],
        ),
        (
            "constructs",
            vec![Set(
                "actions/In.signs/primitives/2/parameters/0/value",
                json!("0x99"),
            )],
            &["action In.signs: a jump leaves the action"],
        ),
        (
            "constructs",
            vec![Set(
                "actions/In.push/primitives/0/parameters/0/value",
                json!("stack9"),
            )],
            &[
                "unknown header stack `stack9` in primitive `push` of action In.push (constructs.p4:",
            ],
        ),
        (
            "constructs",
            vec![Set(
                "actions/In.copy/primitives/0/parameters/1/value",
                json!("op"),
            )],
            &[
                "of action In.copy (constructs.p4:",
                "headers of different types are assigned",
            ],
        ),
    ]
}

fn check(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for (i, (program, edits, expected)) in cases.into_iter().enumerate() {
        let refused = refusal(program, edits);
        if !expected.iter().all(|part| refused.contains(part)) {
            wrong.push(format!("case {i}: expected {expected:?}, got: {refused}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_declarations_are_named() {
    check(declarations());
}

#[test]
fn bad_control_flow_is_named() {
    check(control());
}

/// What the cases start from is taken as it is.
#[test]
fn the_programs_themselves_are_taken() {
    for program in ["forward", "constructs"] {
        assert_eq!(refusal(program, Vec::new()), "it was taken");
    }
}
