//! Runs a test inside a sandbox of its own, where everything it made goes when it ends.

#![allow(dead_code, unreachable_pub)]

pub mod changes;
pub mod lab;
pub mod model;

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use shunt_controller::kernel::TapConfig;
use shunt_p4::{Encap, Interface, InterfaceId, MacAddr, SwitchIndex, SwitchPort, VpcId};
use shunt_testbed::sandbox;

/// Runs `body` in a sandbox of its own, or counts it as skipped. `test` is the test's full name.
pub fn inside(test: &str, body: impl AsyncFnOnce()) {
    sandbox::test(test, || {
        if let Err(reason) = try_ip("tuntap add probe0 mode tap") {
            sandbox::skip(test, &format!("taps are not allowed: {reason}"));
            return Ok(());
        }
        ip("link del probe0");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let log = tracing_subscriber::fmt().with_test_writer();
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = log.with_env_filter(filter).try_init();
        runtime.block_on(body());
        Ok(())
    });
}

/// Runs `ip` with these words; returns what it says, or its error.
pub fn try_ip(words: &str) -> Result<String, String> {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// As [`try_ip`], and it must succeed.
pub fn ip(words: &str) -> String {
    try_ip(words).unwrap_or_else(|error| panic!("ip {words}: {error}"))
}

/// Runs many lines through `ip -batch`, whatever the kernel says to each.
pub fn ip_batch(lines: &[String]) {
    // Not named by the process id: other sandboxes have the same ones.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, lines.join("\n") + "\nlink show lo\n").unwrap();
    let output = Command::new("ip")
        .args(["-force", "-batch"])
        .arg(file.path())
        .output()
        .unwrap();
    // A line that it cannot parse ends the batch, one that the kernel refuses does not.
    let (said, errors) = (
        String::from_utf8(output.stdout),
        String::from_utf8(output.stderr),
    );
    assert!(said.unwrap().contains("LOOPBACK"), "{}", errors.unwrap());
}

/// Waits until `done` says so; `what` is told when it never does.
pub async fn eventually<T>(what: &str, mut done: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match done() {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => panic!("{what}: {why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// An untagged interface with its tap.
pub fn tap(
    id: u16,
    name: &str,
    vpc: u16,
    table: u32,
    addresses: &[&str],
    extra: &[&str],
) -> TapConfig {
    TapConfig {
        interface: Interface {
            id: InterfaceId::new(id).unwrap(),
            name: name.into(),
            vpc: VpcId::new(vpc).unwrap(),
            switch: SwitchIndex::MIN,
            port: SwitchPort::new(id).unwrap(),
            encap: Encap::Untagged,
            mac: MacAddr([2, 0, 0, 0, 0, u8::try_from(id).unwrap()]),
            mtu: 1400,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        },
        tap: format!("sh-{name}"),
        table,
        extra_addresses: extra
            .iter()
            .map(|text| text.parse::<IpAddr>().unwrap())
            .collect(),
    }
}
