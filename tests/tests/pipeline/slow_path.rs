//! Frames from the slow path.

use shunt_p4::PuntReason::FlowMiss;
use shunt_p4::{FlowAction, MacAddr, ShuntHeader};

use crate::dut::{pipeline, run};
use crate::gateway::{
    BLUE, CLIENT, CLIENT6, DOUBLE, FABRIC, GREEN, LIME, Link, PUBLIC, RED, SERVER, SERVER6,
    TAGGED_FABRIC, WAN,
};
use crate::packet::{Frame, Packet, other, tcp, udp};

const EVERY: [Link; 8] = [RED, BLUE, DOUBLE, FABRIC, GREEN, WAN, TAGGED_FABRIC, LIME];

fn out(link: &Link) -> ShuntHeader {
    ShuntHeader::egress(link.interface())
}

/// "Egress": encapsulated, and otherwise as it is.
#[test]
fn frames_leave_as_they_are() {
    run("slow_path::frames_leave_as_they_are", |dut| {
        let reply = udp((SERVER, 80), (CLIENT, 1234));
        for link in EVERY {
            for packet in [
                reply.clone(),
                reply.clone().ttl(1),
                reply.clone().options(&[7, 7, 4, 0, 0, 0, 0, 0]),
                reply.clone().fragment(true, 10),
                tcp((SERVER6, 80), (CLIENT6, 1234)).flags("S"),
                other(SERVER, CLIENT, 1, &[11; 36]),
            ] {
                dut.send_from_slow_path(out(&link), &link.outbound(&packet));
                dut.expect(&link, &packet);
            }
            for (mac, ether_type) in [(MacAddr::BROADCAST, 0x0806), (link.host(), 0x88cc)] {
                let frame = Frame::new(mac, link.mac(), ether_type, &[3; 46]);
                dut.send_from_slow_path(out(&link), &frame);
                dut.expect(&link, &frame);
            }
        }
    });
}

/// The slow path has looked at the MTU and at L4 checksums already, or has its reasons.
#[test]
fn frames_are_not_judged_again() {
    run("slow_path::frames_are_not_judged_again", |dut| {
        let large = udp((SERVER, 80), (CLIENT, 1234)).length(1600);
        dut.send_from_slow_path(out(&WAN), &WAN.outbound(&large));
        dut.expect(&WAN, &large);
        let mut frame = WAN.outbound(&udp((SERVER, 80), (CLIENT, 1234)));
        frame.body[26] ^= 0x55;
        dut.send_from_slow_path(out(&WAN), &frame);
        dut.expect(&WAN, &frame);
    });
}

/// A tunnel that a host behind the gateway made itself.
#[test]
fn a_tunnel_packet_is_a_packet() {
    run("slow_path::a_tunnel_packet_is_a_packet", |dut| {
        let inner = GREEN.outbound(&udp((SERVER, 80), (CLIENT, 1234)));
        let outer = GREEN.wire_out(&inner, 50000);
        let outer = Frame::new(FABRIC.host(), FABRIC.mac(), 0x0800, &outer[14..]);
        dut.send_from_slow_path(out(&FABRIC), &outer);
        dut.expect(&FABRIC, &outer);
    });
}

/// The slow path's frames of a flow can take the same way through the underlay as its
/// hardware's: the hash comes back with them.
#[test]
fn the_flow_hash_goes_into_a_tunnels_source_port() {
    run(
        "slow_path::the_flow_hash_goes_into_a_tunnels_source_port",
        |dut| {
            let packet = udp((CLIENT, 9), (SERVER, 9));
            dut.send(&RED, &packet);
            let flow_hash = dut.expect_punt(FlowMiss, &RED, &packet);
            let header = ShuntHeader {
                flow_hash,
                ..out(&GREEN)
            };
            let sent = packet.clone().dst(CLIENT, 9).ttl(63);
            dut.send_from_slow_path(header, &GREEN.outbound(&sent));
            let software = dut.expect_entropy(&GREEN, &sent);
            let (vpc, dst) = (GREEN.vpc(), Some((CLIENT, 9)));
            dut.offload(
                &RED,
                &packet,
                FlowAction {
                    vpc,
                    src: None,
                    dst,
                },
            );
            dut.send(&RED, &packet);
            assert_eq!(dut.expect_entropy(&GREEN, &sent), software);
        },
    );
}

/// "Pipeline": as if the frame had just arrived on the interface.
#[test]
fn the_pipeline_runs_for_a_frame() {
    run("slow_path::the_pipeline_runs_for_a_frame", |dut| {
        let packet: Packet = udp((CLIENT, 1234), (SERVER, 80));
        let (vpc, src) = (RED.vpc(), Some((PUBLIC, 5000)));
        dut.offload(
            &RED,
            &packet,
            FlowAction {
                vpc,
                src,
                dst: None,
            },
        );
        dut.send_from_slow_path(pipeline(&RED), &RED.inbound(&packet));
        dut.expect(&WAN, &packet.clone().src(PUBLIC, 5000).ttl(63));
        // A miss comes back as what it is, from the port where it came in.
        dut.send_from_slow_path(pipeline(&BLUE), &BLUE.inbound(&packet));
        let (header, frame) = dut.next_punt();
        let want = (FlowMiss as u8, BLUE.id, BLUE.vpc().get(), 10);
        assert_eq!(
            (header.reason, header.interface, header.vpc, header.port),
            want
        );
        assert_eq!(frame, BLUE.inbound(&packet).bytes());
        dut.expect_nothing();
    });
}
