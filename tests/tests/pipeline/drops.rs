//! What is dropped, and as what it is counted.

use shunt_p4::PuntReason::FlowMiss;
use shunt_p4::{MacAddr, ShuntHeader};

use crate::dut::{Drop, pipeline, run};
use crate::gateway::{
    CLIENT, CLIENT6, FABRIC, GREEN, RED, SERVER, SERVER6, SLOW_PATH, STATELESS, Shape, vxlan,
};
use crate::packet::{Frame, udp};

fn frame() -> Frame {
    RED.inbound(&udp((CLIENT, 1234), (SERVER, 80)))
}

/// The frame with other bytes from `at` on.
fn changed(frame: &Frame, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = frame.bytes();
    out[at..at + bytes.len()].copy_from_slice(bytes);
    out
}

#[test]
fn unknown_ports_and_tags() {
    run("drops::unknown_ports_and_tags", |dut| {
        let drop = Drop::Classify;
        dut.expect_drop(drop, 1, &frame().tagged(&[(0x8100, 77)]));
        dut.expect_drop(drop, 2, &frame().bytes());
        dut.expect_drop(drop, 2, &frame().tagged(&[(0x88a8, 20), (0x8100, 5)]));
        dut.expect_drop(drop, 2, &frame().tagged(&[(0x88a8, 40), (0x8100, 30)]));
        dut.expect_drop(drop, 2, &frame().tagged(&[(0x88a8, 30)]));
    });
}

#[test]
fn frames_for_other_stations() {
    run("drops::frames_for_other_stations", |dut| {
        let mut other = frame();
        other.dst = RED.host();
        dut.expect_drop(Drop::NotForUs, 1, &other.bytes());
        other.ether_type = 0x0806;
        dut.expect_drop(Drop::NotForUs, 1, &other.bytes());
        // Inside a tunnel too: this is addressed to red's MAC.
        dut.expect_drop(Drop::NotForUs, 3, &GREEN.wire_in(&frame()));
    });
}

#[test]
fn wrong_checksums() {
    run("drops::wrong_checksums", |dut| {
        dut.expect_drop(Drop::Checksum, 1, &changed(&frame(), 24, &[0x12, 0x34]));
        let mut inner = GREEN.inbound(&udp((CLIENT, 1), (SERVER, 2)));
        inner.body[10] ^= 0x40;
        dut.expect_drop(Drop::Checksum, 3, &GREEN.wire_in(&inner));
        // The checksum of UDP is the hosts' own matter.
        let bytes = changed(&frame(), 40, &[0x12, 0x34]);
        dut.send_bytes(1, &bytes);
        dut.expect_punt_bytes(FlowMiss, &RED, &bytes);
    });
}

/// Only the slow path may speak the shunt ethertype.
#[test]
fn forged_shunt_frames() {
    run("drops::forged_shunt_frames", |dut| {
        for header in [ShuntHeader::egress(FABRIC.interface()), pipeline(&FABRIC)] {
            let bytes = [header.encode().as_slice(), &frame().bytes()].concat();
            for port in 1..=4 {
                dut.expect_drop(Drop::ShuntHeader, port, &bytes);
            }
        }
        let mut own = frame();
        own.ether_type = 0x88b5;
        dut.expect_drop(Drop::ShuntHeader, 1, &own.bytes());
    });
}

#[test]
fn slow_path_frames_out_of_order() {
    run("drops::slow_path_frames_out_of_order", |dut| {
        let header = ShuntHeader::egress(RED.interface()).encode();
        let good = [header.as_slice(), &frame().bytes()].concat();
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        let drop = Drop::ShuntHeader;
        dut.expect_drop(drop, SLOW_PATH, &frame().bytes());
        dut.expect_drop(drop, SLOW_PATH, &with(14, 2)); // another version
        dut.expect_drop(drop, SLOW_PATH, &with(15, 7)); // no command
        dut.expect_drop(Drop::NoEgress, SLOW_PATH, &with(17, 99));
        dut.expect_drop(Drop::Parse, SLOW_PATH, &good[..20]);
        dut.expect_drop(Drop::Parse, SLOW_PATH, &good[..26 + 13]);
    });
}

#[test]
fn cut_frames() {
    run("drops::cut_frames", |dut| {
        let bytes = frame().bytes();
        // In the IP header, and in the UDP header.
        for length in [14 + 19, 14 + 20 + 7] {
            dut.expect_drop(Drop::Parse, 1, &bytes[..length]);
        }
        // In the payload: the length of the IP header tells.
        dut.expect_drop(Drop::Malformed, 1, &bytes[..bytes.len() - 1]);
        let v6 = RED.inbound(&udp((CLIENT6, 1), (SERVER6, 2))).bytes();
        dut.expect_drop(Drop::Malformed, 1, &v6[..v6.len() - 1]);
        // In what a tunnel carries.
        let Shape::Vxlan(vni, _, local, remote) = GREEN.shape else {
            panic!("green is a tunnel")
        };
        let mut inner = GREEN.inbound(&udp((CLIENT, 1), (SERVER, 2)));
        inner.body.pop();
        let outer = vxlan(&inner, vni, 5555, remote, local);
        let outer = Frame::new(FABRIC.mac(), FABRIC.host(), 0x0800, &outer);
        dut.expect_drop(Drop::Malformed, 3, &outer.bytes());
        inner.body.truncate(19);
        let outer = vxlan(&inner, vni, 5555, remote, local);
        let outer = Frame::new(FABRIC.mac(), FABRIC.host(), 0x0800, &outer);
        dut.expect_drop(Drop::Parse, 3, &outer.bytes());
    });
}

#[test]
fn impossible_ip_headers() {
    run("drops::impossible_ip_headers", |dut| {
        let drop = Drop::Malformed;
        // Header checksums fitting, so that it is not these that drop the packet.
        let with = |at: usize, value: u16| {
            let mut frame = frame();
            let old = u16::from_be_bytes([frame.body[at], frame.body[at + 1]]);
            frame.body[at..at + 2].copy_from_slice(&value.to_be_bytes());
            let sum = u16::from_be_bytes([frame.body[10], frame.body[11]]);
            let sum = u32::from(!sum) + u32::from(!old) + u32::from(value);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
            frame.body[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.bytes()
        };
        dut.expect_drop(drop, 1, &with(0, 0x5500));
        dut.expect_drop(drop, 1, &with(0, 0x4400));
        dut.expect_drop(drop, 1, &with(2, 19));
        dut.expect_drop(drop, 1, &with(2, 1000));
        let v6 = RED.inbound(&udp((CLIENT6, 1), (SERVER6, 2)));
        dut.expect_drop(drop, 1, &changed(&v6, 14, &[0x50]));
        dut.expect_drop(drop, 1, &changed(&v6, 18, &1000_u16.to_be_bytes()));
        // 65,530 bytes and the header are more than 16 bits say.
        dut.expect_drop(drop, 1, &changed(&v6, 18, &65530_u16.to_be_bytes()));
    });
}

/// A multicast MAC address does not make a unicast packet ours to forward.
#[test]
fn unicast_in_a_broadcast_frame_is_not_forwarded() {
    run(
        "drops::unicast_in_a_broadcast_frame_is_not_forwarded",
        |dut| {
            let packet = udp((CLIENT, 1234), (SERVER, 80));
            let mut frame = STATELESS.inbound(&packet);
            frame.dst = MacAddr::BROADCAST;
            dut.send(&STATELESS, &frame);
            dut.expect_punt(shunt_p4::PuntReason::Multicast, &STATELESS, &frame);
        },
    );
}
