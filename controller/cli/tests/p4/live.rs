//! Roles, packets, changes, and what the program says about itself.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use p4runtime::client::Arbitration;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use shunt_switch::Tls;

use crate::switch::{DEADLINE, Running, Switch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_controller_keeps_its_role_unless_told_otherwise() {
    let mut switch = Switch::start(Some("forward")).await;
    let controller = switch.controller(10).await;
    let insert = "insert route dst=10.1.0.0/16 do drop";
    switch.golden("primary-taken.table", insert).await;
    // Reading needs no role, and neither asks nor takes.
    switch.golden("primary-read.table", "read route").await;
    switch.golden("primary-info.table", "info").await;
    assert_eq!(*controller.arbitration().borrow(), Arbitration::Primary);
    switch
        .golden("primary-id.table", &format!("--election-id 20 {insert}"))
        .await;
    assert_eq!(*controller.arbitration().borrow(), Arbitration::Primary);

    switch
        .golden("primary-take-over.table", &format!("--take-over {insert}"))
        .await;
    let mut state = controller.arbitration();
    let lost = state.wait_for(|state| *state != Arbitration::Primary);
    tokio::time::timeout(DEADLINE, lost).await.unwrap().unwrap();

    // Nobody is primary now: the id that the switch remembers will do.
    switch.done("insert route dst=10.2.0.0/16 do drop").await;
    switch
        .golden(
            "primary-below.table",
            "--election-id 5 delete route dst=10.2.0.0/16",
        )
        .await;
    // As high as the last one, so that its owner can come back.
    drop(controller);
    switch.controller(11).await;
    switch.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_packets_are_shown_as_they_come() {
    let mut switch = Switch::start(Some("forward")).await;
    let port = switch.handle.switch().attach_channel(1, 16);
    let frame = "0200000000020200000000010806";
    switch
        .golden(
            "packet-send.table",
            &format!("packet send egress_port=1 --hex {frame}"),
        )
        .await;
    let sent = port.receive(DEADLINE).unwrap();
    assert_eq!(
        sent.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
        frame
    );
    switch
        .golden(
            "packet-range.table",
            &format!("packet send egress_port=512 --hex {frame}"),
        )
        .await;
    switch
        .golden(
            "packet-missing.table",
            &format!("packet send --hex {frame}"),
        )
        .await;

    switch.done("insert route dst=10.1.0.0/16 do drop").await;
    let watching = "watch route --interval 10ms --initial --changes 4 --output jsonl";
    let watching = Running::start(switch.command(watching));
    let expect = |change: &str, prefix: &str| {
        let seen = watching.json();
        assert_eq!(seen["change"], change, "{seen}");
        assert_eq!(seen["match"]["dst"], prefix, "{seen}");
    };
    expect("insert", "10.1.0.0/16");
    switch.done("insert route dst=10.2.0.0/16 do drop").await;
    expect("insert", "10.2.0.0/16");
    switch
        .done("modify route dst=10.2.0.0/16 do use_nexthop nexthop=1")
        .await;
    expect("modify", "10.2.0.0/16");
    switch.done("delete route dst=10.2.0.0/16").await;
    expect("delete", "10.2.0.0/16");
    watching.ended();

    let sniffing = Running::start(switch.command("packet sniff --count 2"));
    // What is not IPv4 is punted; sent until the sniffer is there and has had enough.
    let enough = Arc::new(AtomicBool::new(false));
    let sending = std::thread::spawn({
        let enough = Arc::clone(&enough);
        move || {
            while !enough.load(Ordering::Relaxed) {
                port.inject(&sent);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let line = "ingress_port=1 reason=1 14 bytes 0200000000020200000000010806";
    for _ in 0..2 {
        assert_eq!(sniffing.line(), line);
    }
    sniffing.ended();
    enough.store(true, Ordering::Relaxed);
    sending.join().unwrap();
    switch.end();
}

/// Certificate and key of this name, in PEM.
fn signed(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

type Authority = CertifiedIssuer<'static, KeyPair>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_behind_mutual_tls_is_reached_with_a_certificate() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let (certificate, key) = signed(&authority, "switch.test");
    let tls = Tls {
        certificate: certificate.into(),
        key: key.into(),
        client_authority: Some(authority.pem().into()),
    };
    let switch = Switch::over_tls(Some("forward"), tls).await;
    let (certificate, key) = signed(&authority, "controller.test");
    for (name, pem) in [
        ("ca.pem", authority.pem()),
        ("cert.pem", certificate),
        ("key.pem", key),
    ] {
        switch.file(name, &pem);
    }
    let trust = "--ca ca.pem --tls-name switch.test";
    let ours = format!("{trust} --cert cert.pem --key key.pem");
    let insert = "insert route dst=10.0.0.0/8 do drop";
    switch.done(&format!("{ours} {insert}")).await;
    let read = switch.done(&format!("{ours} read route")).await;
    assert!(read.contains("10.0.0.0/8"), "{read}");
    for (without, code) in [
        (trust.to_owned(), 3),
        ("--ca ca.pem --cert cert.pem --key key.pem".to_owned(), 3),
        ("--timeout 2s".to_owned(), 3),
        (ours.replace("ca.pem", "none.pem"), 1),
        (ours.replace(" --key key.pem", ""), 2),
    ] {
        let output = switch.shunt(&format!("{without} read route")).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{without}: {said}");
        assert!(!said.contains("PRIVATE"), "{said}");
    }
    switch.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_is_worth_reading() {
    let mut switch = Switch::start(None).await;
    for verb in [
        "",
        "info",
        "pipeline",
        "tables",
        "read",
        "insert",
        "counters",
        "meters",
        "registers",
        "groups",
        "packet",
        "watch",
        "export",
        "import",
    ] {
        switch
            .golden(&format!("help-{verb}.txt"), &format!("{verb} --help"))
            .await;
    }
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let output = switch.shunt(&format!("--address {closed} info")).await;
    assert_eq!(output.status.code(), Some(2), "the address is given twice");
    let output = Command::new(env!("CARGO_BIN_EXE_shunt"))
        .args(["p4", "--address", &closed.to_string(), "info"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains(&closed.to_string()) && said.contains("refused"),
        "{said}"
    );
    switch.end();
}
