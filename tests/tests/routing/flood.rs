//! A host that shouts ARP without end takes nothing from the others: the switch's meter for its
//! interface drops what is too much before software sees it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;
use shunt_testbed::netns::Netns;
use shunt_testbed::service::wait_for;
use shunt_testbed::{Error, Result};

use crate::lab::{DEADLINE, Lab, run};

const TABLE: u32 = 104;
/// Frames at once, and between two such bursts: ten thousand a second where the machine can.
const BURST: usize = 50;
const PAUSE: Duration = Duration::from_millis(5);
/// Of the neighbour that resolves and pings meanwhile.
const ROUNDS: usize = 30;
/// By default (`arp` in the configuration's `limits.punt_pps`), and the meter's burst.
const ARP_PPS: f64 = 1000.0;
const ARP_BURST: f64 = 100.0;
/// Cell of the switch's counter `drops`.
const METER: &str = "10";

/// Who has the gateway's address, asked by one of many.
fn request(number: u64) -> Vec<u8> {
    let sender = [2, 0xaa, 0, 0, (number >> 8) as u8, number as u8];
    let address = [10, 0, 0, 3 + (number % 250) as u8];
    let mut frame = vec![0xff; 6];
    frame.extend(sender);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(sender);
    frame.extend(address);
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, 1]);
    frame.resize(60, 0);
    frame
}

/// Sends until told to stop; returns how many went out.
fn shout(host: &Netns, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
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

/// Forgets the gateway, finds it again and pings it, many times over.
fn resolve_and_ping(host: &Netns) -> Result<()> {
    for _ in 0..ROUNDS {
        host.run("ip neigh flush dev br0")?;
        host.run("ping -n -q -c 3 -i 0.01 -W 5 203.0.113.1")?;
    }
    Ok(())
}

fn metered(lab: &Lab) -> Result<u64> {
    let cells = lab.p4(&["counters", "drops", METER])?;
    let packets = &cells[0]["packets"];
    packets
        .as_u64()
        .ok_or_else(|| Error::Other(format!("no such counter: {cells}")))
}

/// ARP frames that software has seen.
fn seen(lab: &Lab) -> Result<u64> {
    let status = lab.topology.shunt(&["status"])?;
    let punts = status["slow_path"]["punts"].as_array().cloned();
    let arp = |count: &&Value| count["name"] == "arp";
    Ok(punts
        .unwrap_or_default()
        .iter()
        .find(arp)
        .and_then(|count| count["value"].as_u64())
        .unwrap_or(0))
}

#[test]
fn an_arp_flood_harms_nobody_else() {
    let name = "flood::an_arp_flood_harms_nobody_else";
    run(name, &["ping"], TABLE, |lab| {
        let (before, start) = (seen(lab)?, Instant::now());
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| shout(&lab.topology.red, &stop, &sent));
            let others = wait_for("the meter to drop", DEADLINE, || {
                metered(lab).is_ok_and(|dropped| dropped > 0)
            })
            .and_then(|_| resolve_and_ping(&lab.topology.wan));
            stop.store(true, Relaxed);
            flood.join().unwrap()?;
            others
        })?;
        let (dropped, took) = (metered(lab)?, start.elapsed().as_secs_f64());
        let (arrived, sent) = (seen(lab)? - before, sent.load(Relaxed));
        println!(
            "{sent} sent in {took:.1} s, {dropped} dropped by the meter, {arrived} in software"
        );
        assert!(dropped > 0);
        // What the meter lets through, and the wan's own.
        let most = ARP_BURST + ARP_PPS * took + 10.0 * ROUNDS as f64;
        assert!((arrived as f64) < most, "{arrived} in software, {most} may");
        lab.wait_converged()?;
        Ok(())
    });
}
