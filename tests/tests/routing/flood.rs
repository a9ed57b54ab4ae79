//! A host that shouts ARP or ND without end takes nothing from the others: the switch's meter for
//! its interface drops what is too much before software sees it.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use serde_json::Value;
use shunt_testbed::netns::Netns;
use shunt_testbed::service::wait_for;
use shunt_testbed::{Error, Result};

use crate::lab::{DEADLINE, Lab, run};
use crate::tools::said;

const TABLE: u32 = 104;
/// Frames at once, and between two such bursts: ten thousand a second where the machine can.
const BURST: usize = 50;
const PAUSE: Duration = Duration::from_millis(5);
/// Of the neighbour that resolves and pings meanwhile.
const ROUNDS: usize = 200;
/// By default (`arp` and `nd` in the configuration's `limits.punt_pps`), and the meter's burst.
const METER_PPS: f64 = 1000.0;
const METER_BURST: f64 = 100.0;
/// Cell of the switch's counter `drops`.
const METER: &str = "10";
/// Ticks a second in `/proc/<pid>/stat` (`USER_HZ`, the same on every Linux).
const USER_HZ: f64 = 100.0;

/// What is shouted, and whom the others resolve meanwhile.
struct Kind {
    /// As the counters call it.
    reason: &'static str,
    request: fn(u64) -> Vec<u8>,
    /// The gateway's address on the wan.
    gateway: &'static str,
}

/// A card of one of many.
fn card(number: u64) -> [u8; 6] {
    [2, 0xaa, 0, 0, (number >> 8) as u8, number as u8]
}

/// Who has the gateway's address?
fn arp_request(number: u64) -> Vec<u8> {
    let address = [10, 0, 0, 3 + (number % 250) as u8];
    let mut frame = vec![0xff; 6];
    frame.extend(card(number));
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(card(number));
    frame.extend(address);
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, 1]);
    frame.resize(60, 0);
    frame
}

/// The same by neighbour discovery (RFC 4861, section 4.3).
fn neighbor_solicitation(number: u64) -> Vec<u8> {
    let host = |low: u16| Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, low);
    let solicited = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1);
    let source = host(3 + (number % 250) as u16).octets();
    let packet = PacketBuilder::ethernet2(card(number), [0x33, 0x33, 0xff, 0, 0, 1])
        .ipv6(source, solicited.octets(), 255)
        .icmpv6_raw(135, 0, [0; 4]);
    let mut target = host(1).octets().to_vec();
    target.extend([1, 1]);
    target.extend(card(number));
    let mut frame = Vec::new();
    packet.write(&mut frame, &target).unwrap();
    frame
}

/// Sends until told to stop; counts how many went out.
fn shout(
    host: &Netns,
    request: fn(u64) -> Vec<u8>,
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
                capture.sendpacket(request(number)).map_err(failed)?;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    })
}

/// Forgets the gateway, finds it again and pings it, many times over. Returns how long each ping
/// took, which waits for the neighbour, milliseconds in ascending order.
fn resolve_and_ping(host: &Netns, gateway: &str) -> Result<Vec<f64>> {
    let mut first = Vec::new();
    for _ in 0..ROUNDS {
        host.run("ip neigh flush dev br0")?;
        // One: of several `ping` waits for the last only as long as the others took.
        let text = said(host, &format!("ping -n -c 1 -W 5 {gateway}"))?;
        assert!(text.contains("1 received"), "{text}");
        let took = text
            .split_once("icmp_seq=1 ")
            .and_then(|(_, rest)| rest.split_once("time="))
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        first.push(took.ok_or(Error::Other(text))?);
    }
    first.sort_by(f64::total_cmp);
    Ok(first)
}

fn metered(lab: &Lab) -> Result<u64> {
    let cells = lab.p4(&["counters", "drops", METER])?;
    let packets = &cells[0]["packets"];
    packets
        .as_u64()
        .ok_or_else(|| Error::Other(format!("no such counter: {cells}")))
}

/// Frames of a reason that software has seen.
fn seen(lab: &Lab, reason: &str) -> Result<u64> {
    let status = lab.topology.shunt(&["status"])?;
    let punts = status["slow_path"]["punts"].as_array().cloned();
    let of_reason = |count: &&Value| count["name"] == reason;
    Ok(punts
        .unwrap_or_default()
        .iter()
        .find(of_reason)
        .and_then(|count| count["value"].as_u64())
        .unwrap_or(0))
}

/// CPU time that each kind of thread of the daemon has had, seconds.
fn cpu(lab: &Lab) -> Result<BTreeMap<String, f64>> {
    let tasks = format!("/proc/{}/task", lab.daemon_id());
    let mut by_name = BTreeMap::new();
    for task in std::fs::read_dir(&tasks).map_err(Error::file(&tasks))? {
        let path = task.map_err(Error::file(&tasks))?.path().join("stat");
        // A thread may end meanwhile.
        let Ok(stat) = std::fs::read_to_string(&path) else {
            continue;
        };
        let Some((head, tail)) = stat.rsplit_once(") ") else {
            continue;
        };
        let name = head.split_once('(').map_or(head, |(_, name)| name);
        // utime and stime are fields 14 and 15, the tail begins with field 3.
        let fields: Vec<f64> = tail
            .split(' ')
            .filter_map(|field| field.parse().ok())
            .collect();
        let ticks: f64 = fields.get(10..12).into_iter().flatten().sum();
        let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        *by_name.entry(kind.to_owned()).or_default() += ticks / USER_HZ;
    }
    Ok(by_name)
}

/// What a time with or without a flood was like.
struct Phase {
    start: Instant,
    cpu: BTreeMap<String, f64>,
}

impl Phase {
    fn begin(lab: &Lab) -> Result<Self> {
        Ok(Self {
            start: Instant::now(),
            cpu: cpu(lab)?,
        })
    }

    /// Says what it took of a core, by kind of thread, and how fast others resolved.
    fn end(&self, lab: &Lab, what: &str, first: &[f64]) -> Result<()> {
        let took = self.start.elapsed().as_secs_f64();
        let shares: Vec<String> = cpu(lab)?
            .iter()
            .map(|(name, now)| (name, now - self.cpu.get(name).unwrap_or(&0.0)))
            .filter(|(_, spent)| *spent > 0.0)
            .map(|(name, spent)| format!("{name} {:.1} %", 100.0 * spent / took))
            .collect();
        println!(
            "{what}: {took:.1} s; the wan's first answer p50 {:.2} ms, longest {:.2} ms; of a core: {}",
            first[first.len() / 2],
            first[first.len() - 1],
            shares.join(", ")
        );
        Ok(())
    }
}

fn flood(name: &str, kind: &Kind) {
    run(name, &["ping"], TABLE, |lab| {
        let wan = &lab.topology.wan;
        let quiet = Phase::begin(lab)?;
        quiet.end(lab, "no flood", &resolve_and_ping(wan, kind.gateway)?)?;
        let (before, start) = (seen(lab, kind.reason)?, Instant::now());
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| shout(&lab.topology.red, kind.request, &stop, &sent));
            let others = wait_for("the meter to drop", DEADLINE, || {
                metered(lab).is_ok_and(|dropped| dropped > 0)
            })
            .and_then(|_| {
                let loud = Phase::begin(lab)?;
                loud.end(lab, "flood", &resolve_and_ping(wan, kind.gateway)?)
            });
            stop.store(true, Relaxed);
            flood.join().unwrap()?;
            others
        })?;
        let (dropped, took) = (metered(lab)?, start.elapsed().as_secs_f64());
        let (arrived, sent) = (seen(lab, kind.reason)? - before, sent.load(Relaxed));
        println!(
            "{sent} sent in {took:.1} s, {dropped} dropped by the meter, {arrived} in software"
        );
        assert!(dropped > 0);
        // What the meter lets through, and the wan's own.
        let most = METER_BURST + METER_PPS * took + 4.0 * ROUNDS as f64;
        assert!((arrived as f64) < most, "{arrived} in software, {most} may");
        lab.wait_converged()?;
        Ok(())
    });
}

#[test]
fn an_arp_flood_harms_nobody_else() {
    let kind = Kind {
        reason: "arp",
        request: arp_request,
        gateway: "203.0.113.1",
    };
    flood("flood::an_arp_flood_harms_nobody_else", &kind);
}

#[test]
fn an_nd_flood_harms_nobody_else() {
    let kind = Kind {
        reason: "nd",
        request: neighbor_solicitation,
        gateway: "fd00:4::1",
    };
    flood("flood::an_nd_flood_harms_nobody_else", &kind);
}
