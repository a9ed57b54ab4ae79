//! Some of the stable answers.

pub(crate) mod switches;
pub(crate) mod top;
pub(crate) mod values;

use shunt_api::v1;
use shunt_api::v1::change_config_request::Edit;
use tonic::Status;

const TOML: &str = "[limits]\nhold_timeout = \"3s\"\n\n[[vpc]]\nname = \"red\"\nid = 1\n";
const JSON: &str = r#"{"limits":{"hold_timeout":"3s"},"vpc":[{"name":"red","id":1}]}"#;

/// An item that has each field that is asked for.
pub(crate) fn kept<T>(fields: &[(&String, &str)], item: T) -> Vec<T> {
    let wanted = |(asked, has): &(&String, &str)| asked.is_empty() || asked.as_str() == *has;
    if fields.iter().all(wanted) {
        vec![item]
    } else {
        Vec::new()
    }
}

fn change(path: &str, before: Option<&str>, after: Option<&str>) -> v1::ConfigChange {
    v1::ConfigChange {
        path: path.to_owned(),
        before: before.map(ToOwned::to_owned),
        after: after.map(ToOwned::to_owned),
    }
}

fn revision(number: u64) -> v1::ConfigRevision {
    let changes = match number {
        1 => vec![change("vpc.red", None, Some(r#"{"id":1,"name":"red"}"#))],
        2 => vec![
            change("limits.hold_timeout", Some("\"5s\""), Some("\"3s\"")),
            change("vpc.blue", Some(r#"{"id":2,"name":"blue"}"#), None),
        ],
        _ => Vec::new(),
    };
    v1::ConfigRevision {
        number,
        author: if number == 1 { "shuntd" } else { "alice" }.to_owned(),
        time_ms: 1_790_000_000_000 + number * 60_000,
        comment: if number == 1 { "from shunt.toml" } else { "" }.to_owned(),
        changes,
    }
}

pub(crate) fn get(number: u64) -> Result<v1::GetConfigResponse, Status> {
    if number > 2 {
        return Err(Status::not_found(
            "there is no revision 7 (the newest is 2)",
        ));
    }
    Ok(v1::GetConfigResponse {
        revision: Some(revision(if number == 0 { 2 } else { number })),
        toml: TOML.to_owned(),
        json: JSON.to_owned(),
        newest: 2,
        waiting: vec!["slow_path".to_owned()],
        store: "/var/lib/shunt/shunt.db".to_owned(),
    })
}

pub(crate) fn faults(document: &str) -> v1::ValidateConfigResponse {
    let fault = |path: &str, message: &str| v1::ConfigFault {
        path: path.to_owned(),
        message: message.to_owned(),
    };
    let faults = match document.contains("redd") {
        true => vec![
            fault("interface[2].vpc", "no VPC named \"redd\" (known: red)"),
            fault("masquerade[0].pool", "it is empty"),
        ],
        false => Vec::new(),
    };
    v1::ValidateConfigResponse { faults }
}

pub(crate) fn diff(request: &v1::DiffConfigRequest) -> v1::DiffConfigResponse {
    let changes = match (request.from, &request.document) {
        (1, None) => revision(2).changes,
        (_, Some(_)) => vec![change("vpc.red.id", Some("1"), Some("3"))],
        _ => Vec::new(),
    };
    v1::DiffConfigResponse { changes }
}

pub(crate) fn changed(
    request: v1::ChangeConfigRequest,
) -> Result<v1::ChangeConfigResponse, Status> {
    if request.base != 2 {
        return Err(Status::aborted("revision 2 by alice was there first"));
    }
    let (changes, store) = match request.edit.unwrap() {
        Edit::Document(_) => (Vec::new(), ""),
        Edit::Set(set) => {
            let after = serde_json::json!([request.comment, set.value]).to_string();
            (vec![change(&set.path, None, Some(&after))], "/s.db")
        }
        Edit::Remove(remove) if !remove.cascade => {
            return Err(Status::failed_precondition(
                "vpc.red is referred to by interface.a.vpc; change or remove those first, or have \
                 them removed too (--cascade)",
            ));
        }
        Edit::Remove(remove) => (vec![change(&remove.path, Some("{}"), None)], ""),
        Edit::Rewind(number) => (revision(number + 1).changes, "/s.db"),
    };
    let revision = if changes.is_empty() || request.dry_run {
        2
    } else {
        3
    };
    Ok(v1::ChangeConfigResponse {
        revision,
        changes,
        waiting: if revision == 3 {
            vec!["slow_path".to_owned()]
        } else {
            Vec::new()
        },
        store: store.to_owned(),
    })
}

pub(crate) fn log(request: &v1::ListConfigLogRequest) -> Vec<v1::ConfigRevision> {
    let all = [2, 1].map(revision).into_iter();
    let all = all.filter(|one| request.before == 0 || one.number < request.before);
    all.take(request.limit as usize).collect()
}

pub(crate) fn wait(request: &v1::WaitConfigRequest) -> Vec<v1::WaitConfigResponse> {
    let answer = |converged, missing: &str| v1::WaitConfigResponse {
        converged,
        missing: missing.to_owned(),
    };
    let leaving = "7 connections that it contradicts are still in the switch";
    match request.patience_ms {
        1 => vec![answer(false, leaving)],
        _ => vec![answer(false, leaving), answer(true, "")],
    }
}

/// Names of files, and the words that they are the answer to.
pub(crate) const COMMANDS: [(&str, &[&str]); 25] = [
    ("show.table", &["show"]),
    ("show.json", &["show", "-o", "json"]),
    ("show.jsonl", &["show", "-o", "jsonl"]),
    ("show-old.table", &["show", "--revision", "1"]),
    ("show-part.table", &["show", "vpc.red"]),
    ("show-value.table", &["show", "limits.hold_timeout"]),
    ("show-nothing.table", &["show", "vpc.blue"]),
    ("show-7.table", &["show", "--revision", "7"]),
    ("export.table", &["export"]),
    ("validate.table", &["validate", "good.toml"]),
    ("validate-bad.table", &["validate", "bad.toml"]),
    ("validate-bad.json", &["validate", "bad.toml", "-o", "json"]),
    ("validate-none.table", &["validate", "no.toml"]),
    ("diff.table", &["diff"]),
    ("diff.json", &["diff", "1", "2", "-o", "json"]),
    ("diff-file.table", &["diff", "--file", "good.toml"]),
    ("apply.table", &["apply", "good.toml"]),
    ("apply-old.table", &["apply", "exported.toml"]),
    (
        "set.table",
        &[
            "set",
            "vpc.green",
            "{ id = 3 }",
            "--comment",
            "why",
            "--wait",
        ],
    ),
    (
        "set-late.table",
        &["set", "vpc.green", "x", "--wait", "--timeout", "1ms"],
    ),
    (
        "set-dry.json",
        &["set", "vpc.green", "x", "--dry-run", "-o", "json"],
    ),
    ("remove.table", &["remove", "vpc.red"]),
    ("remove-cascade.table", &["remove", "vpc.red", "--cascade"]),
    ("rewind.table", &["rewind", "1"]),
    ("wait.json", &["wait", "-o", "json"]),
];

/// Lists, whose forms are tried by themselves.
pub(crate) const LISTS: [&str; 3] = ["log", "log --changes", "log --before 2"];

pub(crate) fn nat_pools() -> v1::ListNatResponse {
    let pool = |addresses: &str, protocol: &str, leased, refused| v1::NatPool {
        rule: "red-out".to_owned(),
        vpc: "red".to_owned(),
        to: "wan".to_owned(),
        addresses: addresses.to_owned(),
        protocol: protocol.to_owned(),
        leased,
        capacity: 129_024,
        refused,
        used: vec![v1::NatAddress {
            address: "203.0.113.12".to_owned(),
            leased,
            capacity: 64_512,
        }],
    };
    v1::ListNatResponse {
        pools: vec![
            pool("203.0.113.12-203.0.113.13", "tcp", 64_512, 0),
            pool("203.0.113.12-203.0.113.13", "udp", 7, 12),
        ],
    }
}

pub(crate) fn nat_rules() -> v1::ListNatRulesResponse {
    let rule = |kind: &str, name: &str, original: &str, translated: &str| v1::NatRule {
        kind: kind.to_owned(),
        name: name.to_owned(),
        vpc: "red".to_owned(),
        to: "wan".to_owned(),
        original: original.to_owned(),
        translated: translated.to_owned(),
    };
    v1::ListNatRulesResponse {
        rules: vec![
            rule(
                "masquerade",
                "red-out",
                "any source",
                "203.0.113.12-203.0.113.13 ports 1024-65535",
            ),
            rule("static", "mail", "10.0.0.9", "203.0.113.30"),
        ],
    }
}

pub(crate) fn log_level(
    request: v1::SetLogLevelRequest,
) -> Result<v1::SetLogLevelResponse, Status> {
    match request.level.as_str() {
        "loud" => Err(Status::invalid_argument("\"loud\" is no log level")),
        level => Ok(v1::SetLogLevelResponse {
            before: "info".to_owned(),
            level: if level.is_empty() { "info" } else { level }.to_owned(),
        }),
    }
}

/// As [`COMMANDS`].
pub(crate) const LOG: [(&str, &[&str]); 4] = [
    (".table", &["log"]),
    ("-debug.table", &["log", "debug"]),
    ("-debug.json", &["log", "debug", "-o", "json"]),
    ("-loud.table", &["log", "loud"]),
];

pub(crate) fn trace(request: v1::TracePacketRequest) -> v1::TracePacketResponse {
    use v1::trace_packet_request::Packet;
    let asked = match request.packet.unwrap() {
        Packet::Frame(frame) => {
            format!("a frame of {} bytes: {:02x?}", frame.len(), &frame[12..14])
        }
        Packet::Description(packet) => format!("{packet:?}"),
    };
    let step = |stage: &str, text: &str| v1::TraceStep {
        stage: stage.to_owned(),
        text: text.to_owned(),
    };
    v1::TracePacketResponse {
        steps: vec![
            step("ingress", &format!("interface {:?}", request.interface)),
            step("parse", &asked),
            step("verdict", "dropped (no_connection)"),
        ],
        verdict: "drop".to_owned(),
        drop_reason: "no_connection".to_owned(),
        hardware: hardware(&asked),
        ..Default::default()
    }
}

/// What the switch does: of UDP it knows the flow, of TCP not, of echoes nothing is known.
fn hardware(asked: &str) -> Option<v1::HardwareTrace> {
    let field = |name: &str, value: &str| v1::Field {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let action = |name: &str, params: Vec<v1::Field>| {
        Some(v1::EntryAction {
            name: name.to_owned(),
            params,
            weight: 0,
        })
    };
    let known = asked.contains("\"udp\"");
    let flow = v1::HardwareTable {
        table: "flow4".to_owned(),
        key: vec![field("vpc", "red"), field("src", "10.0.0.2")],
        result: if known { "hit" } else { "miss" }.to_owned(),
        action: match known {
            true => action(
                "flow4_snat",
                vec![field("vpc", "red"), field("src", "203.0.113.10")],
            ),
            false => action("flow4_miss", Vec::new()),
        },
        ..Default::default()
    };
    let told = v1::HardwareTrace {
        switch: "sw1".to_owned(),
        read_ms: 1_790_000_000_000,
        entries_read: 3,
        ..Default::default()
    };
    if known {
        let route = v1::HardwareTable {
            table: "route4".to_owned(),
            key: vec![field("vpc", "red"), field("dst", "10.0.0.3")],
            result: "hit".to_owned(),
            r#match: vec![field("dst", "10.0.0.0/24")],
            group: Some(7),
            member: Some(2),
            action: action("to_nexthop", vec![field("nexthop", "3")]),
            ..Default::default()
        };
        return Some(v1::HardwareTrace {
            tables: vec![flow, route],
            verdict: "forwarded".to_owned(),
            port: Some(4),
            egress: "wan".to_owned(),
            frame: vec![1, 2, 3],
            ..told
        });
    }
    if asked.contains("\"tcp\"") {
        let punt = v1::HardwareTable {
            table: "punt".to_owned(),
            key: vec![field("reason", "1"), field("interface", "red")],
            result: "hit".to_owned(),
            r#match: vec![field("interface", "*")],
            priority: Some(1),
            action: action("to_slow_path", vec![field("port", "10")]),
            ..Default::default()
        };
        return Some(v1::HardwareTrace {
            tables: vec![flow, punt],
            verdict: "slow_path".to_owned(),
            reason: "flow_miss".to_owned(),
            port: Some(10),
            ..told
        });
    }
    if asked.contains("\"icmp\"") {
        return Some(v1::HardwareTrace {
            switch: "sw1".to_owned(),
            error: "it has not answered for 10 s".to_owned(),
            ..Default::default()
        });
    }
    None
}

pub(crate) fn wanted(flow: &v1::Flow, filter: &v1::FlowFilter) -> bool {
    let original = flow.original.clone().unwrap_or_default();
    (filter.vpc.is_empty() || flow.vpc == filter.vpc)
        && filter
            .offloaded
            .is_none_or(|yes| (flow.offload == "hardware") == yes)
        && (filter.state.is_empty() || flow.state == filter.state)
        && (filter.prefix.is_empty() || original.source == filter.prefix)
        && filter
            .port
            .is_none_or(|port| original.destination_port == port)
        && (filter.protocol.is_empty() || original.protocol == filter.protocol)
        && flow.age_ms >= filter.min_age_ms
}

pub(crate) fn interfaces() -> v1::ListInterfacesResponse {
    v1::ListInterfacesResponse {
        interfaces: vec![v1::Interface {
            name: "blue".to_owned(),
            id: 2,
            vpc: "blue".to_owned(),
            switch: "sw1".to_owned(),
            port: 2,
            encap: "vlan 20".to_owned(),
            mac: "02:00:00:00:00:02".to_owned(),
            mtu: 1500,
            addresses: vec!["10.0.0.1/24".to_owned()],
            tap: "sh-blue".to_owned(),
            state: "up".to_owned(),
        }],
    }
}
