//! What people watch the switch with: captures, the packet log, TLS, the program's command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::Udp;
use p4runtime::client::{Client, ClientConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use shunt_switch::log::{Form, Logger, Rotation, Target};
use shunt_switch::{Captures, Config, Options, Switch, Tls, run};

const PATIENCE: Duration = Duration::from_secs(20);

/// The frames of a capture so far; none if it is not whole yet.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let mut capture = pcap::Capture::from_file(path).unwrap();
    let mut out = Vec::new();
    while let Ok(packet) = capture.next_packet() {
        assert_eq!(packet.header.caplen, packet.header.len);
        assert!(
            packet.header.ts.tv_sec > 1_000_000_000,
            "seconds since 1970"
        );
        out.push(packet.data.to_vec());
    }
    out
}

fn wait_for(path: &Path, count: usize) -> Vec<Vec<u8>> {
    let start = Instant::now();
    loop {
        let found = frames(path);
        if found.len() >= count || start.elapsed() > PATIENCE {
            return found;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn captures_hold_what_goes_in_and_out() {
    let folder = tempfile::tempdir().unwrap();
    let captures = Captures::open(folder.path()).unwrap();
    let switch = Switch::new(Options {
        captures: Some(captures),
        ..common::options().0
    });
    let (json, info) = common::program("constructs");
    switch.load(&json, info).unwrap();
    let (one, two) = (switch.attach_channel(1, 4), switch.attach_channel(2, 4));
    let at = |name: &str| folder.path().join(name);
    // Files are there, and empty, before the first frame.
    assert!(frames(&at("port2_out.pcap")).is_empty());
    let mut frame = vec![1, 0];
    frame.extend(0..90);
    one.inject(&frame);
    let sent = two.try_receive().unwrap();
    // While the switch runs.
    assert_eq!(wait_for(&at("port1_in.pcap"), 1), [frame.clone()]);
    assert_eq!(wait_for(&at("port2_out.pcap"), 1), [sent]);
    for _ in 0..3 {
        one.inject(&frame);
    }
    assert_eq!(switch.stats().capture_lost, 0);
    drop((one, two, switch));
    // With the last handle gone, all is written.
    assert_eq!(frames(&at("port1_in.pcap")).len(), 4);
    assert_eq!(frames(&at("port2_out.pcap")).len(), 4);
    assert!(frames(&at("port1_out.pcap")).is_empty());
}

#[test]
fn captures_need_their_folder() {
    let error = Captures::open(Path::new("/no/such/folder")).unwrap_err();
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}

/// Runs frames with a log of this form to a file, which is then read.
fn logged(form: Form, rotation: Rotation, count: usize) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("way.log");
    let target = Target::File {
        path: path.clone(),
        rotation,
        flush: false,
    };
    let logger = Logger::start(target, form, 4).unwrap();
    let switch = Switch::new(Options {
        trace: Some(logger.sink()),
        ..common::options().0
    });
    let (json, info) = common::program("forward");
    switch.load(&json, info).unwrap();
    for _ in 0..count {
        switch.inject(1, &Udp::default().frame());
    }
    drop(logger);
    let text = std::fs::read_to_string(path).unwrap();
    (folder, text)
}

#[test]
fn the_log_file_holds_every_packet() {
    let (_folder, text) = logged(Form::Json, Rotation::default(), 5);
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers: Vec<_> = lines
        .iter()
        .map(|l| l["packet"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert_eq!(lines[0]["data"], "02000000");
    assert_eq!(lines[0]["outcomes"][0]["result"], "dropped");
    let (_folder, text) = logged(Form::Text, Rotation::default(), 2);
    assert_eq!(text.lines().filter(|l| l.starts_with("packet ")).count(), 2);
}

#[test]
fn the_log_file_is_set_aside() {
    let rotation = Rotation {
        max_bytes: 1,
        max_files: 2,
    };
    let (folder, text) = logged(Form::Json, rotation, 5);
    let number = |text: &str| {
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(text).unwrap();
        line["packet"].as_u64().unwrap()
    };
    let aside = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(number(&text), 4);
    assert_eq!(number(&aside("way.log.1")), 3);
    assert_eq!(number(&aside("way.log.2")), 2);
    assert!(!folder.path().join("way.log.3").exists());
}

fn signed(authority: &CertifiedIssuer<'static, KeyPair>) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["switch.test".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem().into(), key.serialize_pem().into())
}

#[tokio::test]
async fn p4runtime_over_tls() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let (certificate, key) = signed(&authority);
    for mutual in [false, true] {
        let handle = run(Config {
            tls: Some(Tls {
                certificate: certificate.clone(),
                key: key.clone(),
                client_authority: mutual.then(|| authority.pem().into()),
            }),
            ..Config::default()
        })
        .await
        .unwrap();
        for identity_pem in [None, Some(signed(&authority))] {
            let welcome = !mutual || identity_pem.is_some();
            let mut config = ClientConfig::new(handle.addr().to_string(), 1, 1);
            config.tls = Some(p4runtime::client::Tls {
                ca_pem: authority.pem().into(),
                identity_pem,
                domain: Some("switch.test".to_owned()),
            });
            let primary = match Client::connect(config).await {
                Ok(client) => client.become_primary().await.is_ok(),
                Err(_) => false,
            };
            assert_eq!(primary, welcome, "mutual: {mutual}");
        }
        handle.stop().await;
    }
    let refused = run(Config {
        tls: Some(Tls {
            certificate: b"nothing".to_vec(),
            key: b"nothing".to_vec(),
            client_authority: None,
        }),
        ..Config::default()
    })
    .await
    .unwrap_err();
    assert!(
        refused.to_string().contains("--grpc-server-cert"),
        "{refused}"
    );
}

fn program(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_shunt-switch"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn the_command_line_explains_itself() {
    let (ok, help, _) = program(&["--help"]);
    assert!(ok);
    for part in ["--pcap", "--log", "--cpu-port", "Examples:", "--use-files"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert_eq!(
        program(&["--json-version"]),
        (true, "2.23\n".into(), String::new())
    );
    let (ok, _, error) = program(&["--no-p4", "-i", "1@none-such0", "--device-id", "1"]);
    assert!(!ok && error.contains("-i 1@none-such0"), "{error}");
    let (ok, _, error) = program(&["--no-p4", "--use-files", "3"]);
    assert!(!ok && error.contains("--use-files"), "{error}");
}
