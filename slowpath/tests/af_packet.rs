//! A slow path on a Linux interface, in a sandbox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use shunt_p4::InterfaceId;
use shunt_slowpath::{DropReason, FibWriter, Manager, PortDevice, SlowPathConfig, exception};
use shunt_testbed::sandbox;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_slow_path_runs_on_a_veth_in_an_unprivileged_namespace() {
    sandbox::test(
        "a_slow_path_runs_on_a_veth_in_an_unprivileged_namespace",
        || {
            tokio::runtime::Runtime::new().unwrap().block_on(inside());
            Ok(())
        },
    );
}

fn ip(arguments: &str) {
    let out = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("iproute2");
    assert!(
        out.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Bytes that an interface of this namespace has received.
fn received_bytes(interface: &str) -> u64 {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap();
    let line = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{interface}:")));
    line.expect("the interface")
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

async fn inside() {
    ip("link add sp0 type veth peer name peer0");
    for device in ["sp0", "peer0"] {
        ip(&format!("link set {device} mtu 1600 up"));
    }
    ip("addr add 192.0.2.1/24 dev peer0");

    let (_fib, factory) = FibWriter::new();
    let start = |device: &str| {
        let (offload, _installer) = shunt_offload::channel(16);
        let (exception, receiver, sender) = exception::channel();
        let mut config = SlowPathConfig::new(PortDevice::Interface(device.into()));
        config.memory_mib = 64;
        config.buffers = 4095;
        config.max_connections = 100;
        Manager::start(&config, &factory, vec![vec![offload]], vec![exception])
            .map(|manager| (manager, receiver, sender))
    };
    let (manager, _receiver, mut sender) = start("sp0").unwrap();
    let handle = manager.handle();

    // The kernel's ARP for this is no frame of a switch's: counted, so received.
    UdpSocket::bind("192.0.2.1:0")
        .unwrap()
        .send_to(b"x", "192.0.2.2:9")
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while handle
        .stats()
        .await
        .unwrap()
        .counters
        .dropped(DropReason::ShuntHeader)
        == 0
    {
        assert!(Instant::now() < deadline, "no frame arrived");
    }
    // A full-sized frame with the header in front fits the interface.
    const FRAMES: u64 = 20;
    let before = received_bytes("peer0");
    for _ in 0..FRAMES {
        sender.send(InterfaceId::MIN, vec![0x55; 1514]).unwrap();
    }
    while received_bytes("peer0") < before + FRAMES * 1540 {
        assert!(
            Instant::now() < deadline,
            "{} bytes left",
            received_bytes("peer0") - before
        );
    }
    assert_eq!(
        handle
            .stats()
            .await
            .unwrap()
            .counters
            .exceptions_down
            .packets,
        FRAMES
    );
    manager.shutdown().await;
    let again = start("sp0").expect_err("DPDK starts once a process");
    assert!(again.to_string().contains("already started"), "{again}");
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    let (_fib, factory) = FibWriter::new();
    let (offload, _installer) = shunt_offload::channel(16);
    let (exception, _receiver, _sender) = exception::channel();
    let mut config = SlowPathConfig::new(PortDevice::Interface("shunt-none".into()));
    config.memory_mib = 32;
    let error = Manager::start(&config, &factory, vec![vec![offload]], vec![exception])
        .err()
        .unwrap();
    assert!(error.to_string().contains("shunt-none"), "{error}");
    config.workers = 9;
    let error = Manager::start(&config, &factory, vec![], vec![])
        .err()
        .unwrap();
    assert!(error.to_string().contains("not 9"), "{error}");
}
