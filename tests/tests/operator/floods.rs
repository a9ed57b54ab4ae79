//! A SYN flood and a port scan of one VPC, at full speed: what was open stays open, other VPCs do
//! not notice, and the limits say by their names what was refused.

use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use etherparse::PacketBuilder;
use shunt_testbed::netns::Netns;
use shunt_testbed::service::wait_for;
use shunt_testbed::topology::SERVER;
use shunt_testbed::{Error, Result};

use crate::lab::{self, DEADLINE, HTTP_PORT, Lab, ask, get, tcp, udp};

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

fn syn(src: [u8; 4], src_port: u16, dst_port: u16) -> Vec<u8> {
    let server: Ipv4Addr = SERVER.parse().unwrap();
    let packet = PacketBuilder::ethernet2(CARD, GATEWAY)
        .ipv4(src, server.octets(), 64)
        .tcp(src_port, dst_port, 1, 1024)
        .syn();
    let mut frame = Vec::new();
    packet.write(&mut frame, &[]).unwrap();
    frame
}

/// From everywhere in the network but from the host itself; nobody answers the server.
fn flooding(number: u64) -> Vec<u8> {
    let source = [10, 0, 0, 3 + (number % 200) as u8];
    syn(source, 1024 + (number / 200 % 60_000) as u16, HTTP_PORT)
}

/// One source, port after port.
fn scanning(number: u64) -> Vec<u8> {
    syn([10, 0, 0, 250], 40_000, 1 + (number % 65_535) as u16)
}

fn send(
    host: &Netns,
    frame: fn(u64) -> Vec<u8>,
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
) -> Result<()> {
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

fn flood(
    name: &str,
    limit: &str,
    frame: fn(u64) -> Vec<u8>,
    reason: &str,
    red_opens: bool,
    most: u64,
) {
    let change = |text: String| format!("{text}\n[limits]\n{limit}\n");
    lab::run(name, change, |lab| {
        let mut open = tcp(&lab.topology.red)?;
        let socket = udp(&lab.topology.red)?;
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| send(&lab.topology.red, frame, &stop, &sent));
            let done = others(lab, reason, red_opens, (&mut open, &socket), &sent);
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
        get(&mut open)?;
        ask(&socket)
    });
}

#[test]
fn a_syn_flood_harms_nobody_else() {
    flood(
        "floods::a_syn_flood_harms_nobody_else",
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
        &format!("connections_per_source = {PER_SOURCE}"),
        scanning,
        "source_connections",
        true,
        // And those that the host opened meanwhile.
        PER_SOURCE + 1 + ROUNDS as u64,
    );
}
