//! Programs that bmv2 refuses or crashes on, and what the switch does not do: refused by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use serde_json::{Value, json};
use shunt_switch::{Options, Switch};

/// Why a test program is refused once `change` has been made to it.
fn refusal(program: &str, change: impl FnOnce(&mut Value)) -> String {
    let (text, info) = common::program(program);
    let mut document = serde_json::from_slice(&text).unwrap();
    change(&mut document);
    let text = serde_json::to_vec(&document).unwrap();
    let loaded = Switch::new(Options::default()).load(&text, info);
    loaded.unwrap_err().to_string()
}

#[track_caller]
fn check(program: &str, change: impl FnOnce(&mut Value), parts: &[&str]) {
    let message = refusal(program, change);
    for part in parts {
        assert!(message.contains(part), "`{message}` lacks `{part}`");
    }
}

fn table<'d>(document: &'d mut Value, name: &str) -> &'d mut Value {
    let pipelines = document["pipelines"].as_array_mut().unwrap();
    let mut tables = pipelines
        .iter_mut()
        .flat_map(|p| p["tables"].as_array_mut().unwrap());
    tables.find(|t| t["name"] == name).unwrap()
}

#[test]
fn renamed_parts() {
    let rename = |pointer: &'static str| {
        move |document: &mut Value| *document.pointer_mut(pointer).unwrap() = json!("other")
    };
    let cases = [
        ("/pipelines/0/name", "ingress"),
        ("/pipelines/1/name", "egress"),
        ("/parsers/0/name", "parser named `other`"),
        ("/deparsers/0/name", "deparser named `other`"),
    ];
    for (pointer, part) in cases {
        check("state", rename(pointer), &[part]);
    }
}

#[test]
fn unknown_kinds() {
    check(
        "state",
        |d| table(d, "In.acl")["key"][0]["match_type"] = json!("fuzzy"),
        &["match kind `fuzzy`", "f.value", "table In.acl"],
    );
    check(
        "state",
        |d| table(d, "In.acl")["match_type"] = json!("fuzzy"),
        &["table match type `fuzzy`", "table In.acl"],
    );
    check(
        "state",
        |d| table(d, "In.acl")["type"] = json!("fuzzy"),
        &["table type `fuzzy`", "table In.acl"],
    );
    check(
        "state",
        |d| d["calculations"][0]["algo"] = json!("random"),
        &["hash algorithm", "random", "calculation calc"],
    );
    check(
        "state",
        |d| d["actions"][3]["primitives"] = json!([{"op": "teleport", "parameters": []}]),
        &["primitive `teleport`", "action "],
    );
    check(
        "language",
        |d| d["parsers"][0]["parse_states"][0]["parser_ops"][0]["op"] = json!("rewind"),
        &["parser operation `rewind`", "parser state start"],
    );
}

#[test]
fn broken_tables() {
    check(
        "state",
        |d| {
            let entries = table(d, "In.fixed")["entries"].as_array_mut().unwrap();
            entries.push(entries[0].clone());
        },
        &["const entry of table In.fixed", "it has the key of another"],
    );
    check(
        "state",
        |d| {
            let entry = &mut table(d, "In.fixed")["entries"][0];
            entry["match_key"][0]["match_type"] = json!("exact");
        },
        &[
            "entry of table In.fixed",
            "match `exact` on value",
            "Ternary",
        ],
    );
    check(
        "state",
        |d| {
            let next = table(d, "In.acl")["next_tables"].as_object_mut().unwrap();
            next.remove("In.set");
        },
        &["table In.acl", "next_tables lacks action In.set"],
    );
}

#[test]
fn broken_headers() {
    let header = |name: &'static str| {
        move |d: &mut Value| -> usize {
            let types = d["header_types"].as_array().unwrap();
            types.iter().position(|t| t["name"] == name).unwrap()
        }
    };
    check(
        "language",
        |d| {
            let at = header("op_h")(d);
            d["header_types"][at]["fields"][0] = json!(["op", 8, false, true]);
        },
        &["saturating field", "op_h"],
    );
    check(
        "language",
        |d| {
            let at = header("opt_h")(d);
            d["header_types"][at]["fields"][2] = json!(["last", 3, false]);
        },
        &["whole bytes", "opt_h"],
    );
    check(
        "language",
        |d| d["header_union_stacks"][0]["union_type"] = json!("none"),
        &["header union type `none`", "header union stack eithers"],
    );
    check(
        "language",
        |d| d["parse_vsets"][1]["compressed_bitwidth"] = json!(25),
        &["value set P.pairs", "parser state pair", "25 bits"],
    );
}
