//! How fast software gets packets, and what is counted; idle flows.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use shunt_p4::MacAddr;
use shunt_p4::PuntReason::{Arp, FlowMiss, OtherL2};
use shunt_p4::tables::{Meter, P4Table, Punt, PuntAction, PuntKey, flow_key_from_entry};

use crate::dut::{Drop, forward, run, wait_until};
use crate::gateway::{BLUE, CLIENT, RED, SERVER, WAN, punt};
use crate::packet::{Frame, udp};

fn arp() -> Frame {
    Frame::new(MacAddr::BROADCAST, RED.host(), 0x0806, &[1; 28])
}

/// One reason's meter: the burst comes through, the rest is dropped and counted.
#[test]
fn a_reason_has_its_meter() {
    run("meters::a_reason_has_its_meter", |dut| {
        dut.stop_foretelling();
        const SENT: usize = 50;
        let (rate, burst) = (50, 5);
        let metered = Punt {
            meter: Some(Meter::single(rate, burst)),
            ..punt(Arp)
        };
        dut.modify(metered);
        // bmv2's bucket is empty at first.
        std::thread::sleep(Duration::from_secs(1) * burst / rate);
        let entry = metered.key_entry();
        let before = dut.count(entry.clone());
        let start = Instant::now();
        for _ in 0..SENT {
            dut.send(&RED, &arp());
        }
        let (mut passed, mut dropped) = (0, 0);
        wait_until(|| {
            passed += dut.take_punts();
            dropped = usize::try_from(dut.dropped(Drop::Meter)).unwrap();
            passed + dropped == SENT
        });
        let refilled = start.elapsed().as_secs_f64() * f64::from(rate);
        assert_eq!(passed + dropped, SENT, "{passed} passed, {dropped} dropped");
        let most = (f64::from(burst) + refilled).ceil() as usize;
        assert!(
            (burst as usize..=most).contains(&passed),
            "{passed} passed, {most} may"
        );
        assert!(dropped > 0, "the machine is too slow for this test");
        let (packets, bytes) = dut.count(entry);
        assert_eq!(packets - before.0, SENT as i64);
        assert_eq!(bytes - before.1, (SENT * arp().bytes().len()) as i64);
        // Others are not held up.
        let packet = udp((CLIENT, 1), (SERVER, 2));
        for _ in 0..20 {
            dut.send(&RED, &packet);
            dut.expect_punt(FlowMiss, &RED, &packet);
        }
        // With a wider one, everything passes. (Not with none: bmv2 keeps an entry's meter when
        // it is modified without one, and even when it is removed and put back.)
        dut.modify(Punt {
            meter: Some(Meter::single(100_000, 100_000)),
            ..metered
        });
        for _ in 0..20 {
            dut.send(&RED, &arp());
            dut.expect_punt(Arp, &RED, &arp());
        }
    });
}

/// An interface that shouts gets a meter of its own, by a higher priority.
#[test]
fn an_interface_may_have_its_own() {
    run("meters::an_interface_may_have_its_own", |dut| {
        dut.stop_foretelling();
        let own = Punt {
            key: PuntKey {
                reason: Arp,
                interface: Some(RED.interface()),
            },
            priority: NonZeroU16::new(2).unwrap(),
            action: PuntAction::Drop,
            meter: None,
        };
        dut.insert(own);
        dut.expect_drop(Drop::Punt, 1, &arp().bytes());
        assert_eq!(dut.count(own.key_entry()).0, 1);
        dut.send(&BLUE, &arp());
        dut.expect_punt(Arp, &BLUE, &arp());
        dut.remove(own);
        dut.send(&RED, &arp());
        dut.expect_punt(Arp, &RED, &arp());
    });
}

/// A reason without an entry has no way to software.
#[test]
fn a_reason_without_an_entry() {
    run("meters::a_reason_without_an_entry", |dut| {
        dut.stop_foretelling();
        dut.remove(punt(OtherL2));
        let frame = Frame::new(RED.mac(), RED.host(), 0x1234, b"whatever");
        dut.expect_drop(Drop::Punt, 1, &frame.bytes());
    });
}

#[test]
fn flows_count_packets_and_bytes() {
    run("meters::flows_count_packets_and_bytes", |dut| {
        dut.stop_foretelling();
        let packet = udp((CLIENT, 1), (SERVER, 2));
        let entry = dut.offload(&RED, &packet, forward(RED.vpc()));
        let mut bytes = 0;
        for length in [28, 100, 1400] {
            let packet = packet.clone().length(length);
            dut.send(&RED, &packet);
            dut.expect(&WAN, &packet.ttl(63));
            bytes += 14 + length as i64;
        }
        assert_eq!(dut.count(entry), (3, bytes));
    });
}

/// A flow that no packet hits is reported, with its key; one that is used is not.
#[test]
fn idle_flows_are_reported() {
    run("meters::idle_flows_are_reported", |dut| {
        dut.stop_foretelling();
        let packet = udp((CLIENT, 1), (SERVER, 2));
        let used = udp((CLIENT, 3), (SERVER, 2));
        let timeout = Duration::from_secs(2);
        let action = forward(RED.vpc());
        dut.offload_for(&RED, &used, action, timeout);
        // Until the idle one is reported the other one is hit all the time.
        dut.offload_for(&RED, &packet, action, timeout);
        let deadline = Instant::now() + Duration::from_secs(20);
        let entries = loop {
            dut.send(&RED, &used);
            dut.expect(&WAN, &used.clone().ttl(63));
            if let Some(entries) = dut.try_idle() {
                break entries;
            }
            assert!(Instant::now() < deadline, "no notification");
            std::thread::sleep(Duration::from_millis(20));
        };
        let keys: Vec<_> = entries
            .iter()
            .map(|entry| flow_key_from_entry(entry).unwrap())
            .collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!((keys[0].vpc, keys[0].tuple), (RED.vpc(), packet.tuple()));
        // It is still there: the controller decides.
        dut.send(&RED, &packet);
        dut.expect(&WAN, &packet.ttl(63));
    });
}
