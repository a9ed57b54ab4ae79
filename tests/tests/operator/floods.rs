//! A SYN flood and a port scan of one VPC, at full speed: what was open stays open, other VPCs do
//! not notice, and the limits say by their names what was refused.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use etherparse::PacketBuilder;
use shunt_testbed::netns::Netns;
use shunt_testbed::service::wait_for;
use shunt_testbed::topology::{SERVER, SERVER6, with_ipv6};
use shunt_testbed::{Error, Result};

use crate::lab::{self, DEADLINE, HTTP_PORT, Lab, ask, get, tcp_to, udp_to};

/// Frames at once, and between two such bursts: some ten thousand a second.
const BURST: u64 = 50;
const PAUSE: Duration = Duration::from_millis(5);
/// What others open meanwhile, of each kind.
const ROUNDS: usize = 20;
/// Frames of a flood, at least.
const FLOOD: u64 = 20_000;
const HALF_OPEN: u64 = 300;
const PER_SOURCE: u64 = 200;

/// The card and the gateway's, as in the demo's configuration.
const CARD: [u8; 6] = [2, 0xaa, 0, 0, 0, 1];
const GATEWAY: [u8; 6] = [2, 0x53, 0x48, 0, 0, 1];

/// From a host of red's network to the server.
fn syn(server: IpAddr, host: u8, src_port: u16, dst_port: u16) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(CARD, GATEWAY);
    let packet = match server {
        IpAddr::V4(server) => packet.ipv4([10, 0, 0, host], server.octets(), 64),
        IpAddr::V6(server) => {
            let mut src = [0; 16];
            src[..6].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 1]);
            src[15] = host;
            packet.ipv6(src, server.octets(), 64)
        }
    };
    let packet = packet.tcp(src_port, dst_port, 1, 1024).syn();
    let mut frame = Vec::new();
    packet.write(&mut frame, &[]).unwrap();
    frame
}

/// From everywhere in the network but from the host itself; nobody answers the server.
fn flooding(server: IpAddr, number: u64) -> Vec<u8> {
    let host = 3 + (number % 200) as u8;
    let port = 1024 + (number / 200 % 60_000) as u16;
    syn(server, host, port, HTTP_PORT)
}

/// One source, port after port.
fn scanning(server: IpAddr, number: u64) -> Vec<u8> {
    // Many ports of its own too, so that each worker has some.
    let port = 40_000 + (number % 64) as u16;
    syn(server, 250, port, 1 + (number % 65_535) as u16)
}

fn send(
    host: &Netns,
    frame: impl Fn(u64) -> Vec<u8> + Sync,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<()> {
    host.inside(|| {
        let failed = |error: pcap::Error| Error::Other(format!("pcap on eth0: {error}"));
        let capture = pcap::Capture::from_device("eth0").map_err(failed)?;
        let mut capture = capture.open().map_err(failed)?;
        while !stop.load(Relaxed) {
            for _ in 0..BURST {
                let number = sent.fetch_add(1, Relaxed);
                capture.sendpacket(frame(number)).map_err(failed)?;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    })
}

/// What everybody else does while packets rain: what is new opens, what is open goes on.
fn others(
    lab: &Lab,
    reason: &str,
    red_opens: bool,
    (stream, socket): (&mut TcpStream, &UdpSocket),
    sent: &AtomicU64,
    server: &str,
) -> Result<()> {
    let tcp = |host| tcp_to(host, server);
    let udp = |host| udp_to(host, server);
    let (red, blue) = (&lab.topology.red, &lab.topology.blue);
    wait_for(&format!("drops for {reason}"), DEADLINE, || {
        lab.drops(reason).is_ok_and(|dropped| dropped > 0)
    })?;
    for _ in 0..ROUNDS {
        let mut stream = tcp(blue)?;
        get(&mut stream)?;
        udp(blue)?;
        // Another protocol of the flooded VPC.
        udp(red)?;
        if red_opens {
            get(&mut tcp(red)?)?;
        }
    }
    let mut foreign = tcp(blue)?;
    while sent.load(Relaxed) < FLOOD {
        get(stream)?;
        ask(socket)?;
        get(&mut foreign)?;
    }
    Ok(())
}

/// Over IPv4 with one worker, or over IPv6 with two.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Ipv4,
    Ipv6TwoWorkers,
}

fn flood(
    name: &str,
    kind: Kind,
    limit: &str,
    frame: fn(IpAddr, u64) -> Vec<u8>,
    reason: &str,
    red_opens: bool,
    most: u64,
) {
    let two = "connections = 65536\nworkers = 2";
    let change = |text: String| {
        let text = format!("{text}\n[limits]\n{limit}\n");
        match kind {
            Kind::Ipv4 => text,
            Kind::Ipv6TwoWorkers => with_ipv6(&text).replace("connections = 65536", two),
        }
    };
    lab::run(name, change, |lab| {
        let mut _servers = Vec::new();
        let server = match kind {
            Kind::Ipv4 => SERVER,
            Kind::Ipv6TwoWorkers => {
                lab.topology.add_ipv6("eth0")?;
                _servers = lab::serve(&lab.topology, SERVER6)?;
                SERVER6
            }
        };
        let mut open = tcp_to(&lab.topology.red, server)?;
        let socket = udp_to(&lab.topology.red, server)?;
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let address = server.parse().unwrap();
        let frame = move |number| frame(address, number);
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| send(&lab.topology.red, frame, &stop, &sent));
            let done = others(lab, reason, red_opens, (&mut open, &socket), &sent, server);
            stop.store(true, Relaxed);
            flood.join().unwrap()?;
            done
        })?;
        let flows = lab.shunt("flows --vpc red --protocol tcp")?.len() as u64;
        println!(
            "{} sent, {} dropped for {reason}, {flows} TCP connections of red",
            sent.load(Relaxed),
            lab.drops(reason)?
        );
        assert!(flows <= most, "{flows}");
        if kind == Kind::Ipv6TwoWorkers {
            let flows = lab.shunt("flows --vpc red --protocol tcp")?;
            let worker = |flow: &serde_json::Value| flow["worker"].as_u64();
            let workers: BTreeSet<_> = flows.iter().filter_map(worker).collect();
            assert_eq!(workers, BTreeSet::from([0, 1]), "both have a part of it");
        }
        get(&mut open)?;
        ask(&socket)
    });
}

#[test]
fn a_syn_flood_harms_nobody_else() {
    flood(
        "floods::a_syn_flood_harms_nobody_else",
        Kind::Ipv4,
        &format!("half_open_per_vpc = {HALF_OPEN}"),
        flooding,
        "half_open",
        false,
        // And the one that was open.
        HALF_OPEN + 1,
    );
}

#[test]
fn a_port_scan_harms_nobody_else() {
    flood(
        "floods::a_port_scan_harms_nobody_else",
        Kind::Ipv4,
        &format!("connections_per_source = {PER_SOURCE}"),
        scanning,
        "source_connections",
        true,
        // And those that the host opened meanwhile.
        PER_SOURCE + 1 + ROUNDS as u64,
    );
}

#[test]
fn a_syn_flood_over_ipv6_harms_nobody_else_with_two_workers() {
    flood(
        "floods::a_syn_flood_over_ipv6_harms_nobody_else_with_two_workers",
        Kind::Ipv6TwoWorkers,
        &format!("half_open_per_vpc = {HALF_OPEN}"),
        flooding,
        "half_open",
        false,
        // Both workers together.
        HALF_OPEN + 1,
    );
}

#[test]
fn a_port_scan_over_ipv6_harms_nobody_else_with_two_workers() {
    flood(
        "floods::a_port_scan_over_ipv6_harms_nobody_else_with_two_workers",
        Kind::Ipv6TwoWorkers,
        &format!("connections_per_source = {PER_SOURCE}"),
        scanning,
        "source_connections",
        true,
        PER_SOURCE + 1 + ROUNDS as u64,
    );
}
