//! The packet log explains why a packet went where it went: packets of our own program, in both
//! forms, against files. `UPDATE_GOLDEN=1` writes the files anew, to be read before they are
//! committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;
#[path = "../fuzz/src/gateway.rs"]
mod gateway;

use std::sync::{Arc, Mutex};

use common::client::Served;
use p4runtime::p4info::parse_p4info_text;
use shunt_switch::log::{PacketTrace, Record, Step};
use shunt_switch::{Config, ManualClock, Options, run};

/// The records of frames that go in at ports, in our own program with the small gateway.
fn records(frames: &[(u32, Vec<u8>)]) -> Vec<Record> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let clock = Arc::new(ManualClock::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let handle = run(Config {
            options: Options {
                clock: clock.clone(),
                trace: Some(Arc::new(move |trace: PacketTrace| {
                    sink.lock().unwrap().push(trace.record(16));
                })),
                ..Options::default()
            },
            ..Config::default()
        })
        .await
        .unwrap();
        let served = Served {
            handle,
            clock: clock.clone(),
            info: parse_p4info_text(shunt_p4::P4INFO).unwrap(),
            json: shunt_p4::PIPELINE_JSON.to_vec(),
        };
        let mut client = served.primary().await;
        client.write(gateway::updates()).await.unwrap();
        let ports = [1, 2, 3, 4, 10].map(|p| served.handle.switch().attach_channel(p, 16));
        for (port, frame) in frames {
            clock.advance(1_000_000);
            let index = ports
                .iter()
                .position(|p| format!("{p:?}").contains(&format!("({port})")));
            ports[index.unwrap()].inject(frame);
        }
        served.handle.stop().await;
    });
    drop(runtime);
    let records = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(records.len(), frames.len());
    records
}

/// The text without line numbers of the program's source: `x.p4:N`, and `action xN` where the
/// compiler named a bare statement after its file and line.
fn without_lines(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(at);
        out.push_str(before);
        let end = number
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(number.len());
        let word = out.rsplit([' ', '"']).next().unwrap_or_default();
        let files = ["shunt", "classify", "egress", "flow", "route", "punt"];
        let named = files.contains(&word) && !number[end..].starts_with('_');
        let line = out.ends_with(".p4:") || (named && end > 1);
        out.push_str(if line { "N" } else { &number[..end] });
        rest = &number[end..];
    }
    out + rest
}

fn golden(name: &str, text: &str) {
    let text = without_lines(text);
    let path = format!("{}/testdata/log/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == text,
        "{path} differs (UPDATE_GOLDEN=1 writes it anew); this is what came:\n{text}"
    );
}

#[test]
fn our_program_explained() {
    let (client, server) = ((gateway::CLIENT, 1234), (gateway::SERVER, 80));
    let mut broken = gateway::udp(1, client, server, 64);
    broken[25] ^= 1;
    let frames = [
        (1, gateway::udp(1, client, server, 64)),
        (1, gateway::udp(1, client, (gateway::SERVER, 81), 64)),
        (1, broken),
    ];
    let records = records(&frames);
    for (name, record) in ["translated", "flow_miss", "wrong_checksum"]
        .iter()
        .zip(&records)
    {
        golden(&format!("{name}.txt"), &record.to_string());
    }
    let json = serde_json::to_string_pretty(&records[2]).unwrap();
    golden("wrong_checksum.json", &format!("{json}\n"));
    let [translated, miss, wrong] = &records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(
        (translated.outcomes[0].result, translated.outcomes[0].port),
        ("sent", Some(4))
    );
    assert_eq!(
        (miss.outcomes[0].result, miss.outcomes[0].port),
        ("sent", Some(10))
    );
    assert_eq!(wrong.outcomes[0].result, "dropped");
    // The reason names the statement and its place.
    assert!(wrong.outcomes[0].reason.contains(".p4:"), "{wrong}");
    let hit = |step: &Step| matches!(step, Step::Table { table, result: "hit", .. } if table.ends_with("flow4"));
    assert!(translated.passes[0].steps.iter().any(hit), "{translated}");
}

#[test]
fn a_json_record_is_one_line_and_keeps_its_schema() {
    let (client, server) = ((gateway::CLIENT, 1234), (gateway::SERVER, 80));
    let records = records(&[(1, gateway::udp(1, client, server, 64))]);
    let line = serde_json::to_string(&records[0]).unwrap();
    assert!(!line.contains('\n'));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["port"], 1);
    let steps = value["passes"][0]["steps"].as_array().unwrap();
    for step in steps {
        let kind = step["step"].as_str().unwrap();
        assert!(
            kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{kind}"
        );
    }
    let flow = steps
        .iter()
        .find(|s| s["table"].as_str().is_some_and(|t| t.ends_with("flow4")));
    let key = flow.unwrap()["key"].as_array().unwrap();
    let src = key.iter().find(|k| k["name"] == "src").unwrap();
    assert_eq!(src["value"], "10.0.0.2");
}
