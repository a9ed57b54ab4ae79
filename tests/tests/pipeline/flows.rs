//! Offloaded flows: translation and checksums.

use std::net::IpAddr;

use shunt_p4::FlowAction;
use shunt_p4::PuntReason::FlowMiss;

use crate::dut::{Dut, forward, run};
use crate::gateway::{CLIENT, CLIENT6, OTHER, OTHER6, PUBLIC, PUBLIC6, RED, SERVER, SERVER6, WAN};
use crate::packet::{L4, Packet, echo_reply, echo_request, tcp, udp, udp_without_checksum};

/// What a direction's action makes of a packet of it.
fn translated(packet: &Packet, action: &FlowAction) -> Packet {
    let mut packet = packet.clone();
    if let Some((address, port)) = action.src {
        packet = packet.src(address, port);
    }
    if let Some((address, port)) = action.dst {
        packet = packet.dst(address, port);
    }
    let ttl = packet.ttl - 1;
    packet.ttl(ttl)
}

/// Every action, for one packet of red's host.
fn every_action(dut: &mut Dut, packet: &Packet, public: IpAddr, other: IpAddr) {
    let (src_port, dst_port) = match packet.l4 {
        L4::Echo { reply: false, .. } => (5000, 0),
        L4::Echo { reply: true, .. } => (0, 8000),
        _ => (5000, 8000),
    };
    for src in [None, Some((public, src_port))] {
        for dst in [None, Some((other, dst_port))] {
            let vpc = RED.vpc();
            let action = FlowAction { vpc, src, dst };
            let entry = dut.offload(&RED, packet, action);
            dut.send(&RED, packet);
            dut.expect(&WAN, &translated(packet, &action));
            let bytes = 14 + packet.bytes().len() as i64;
            assert_eq!(dut.count(entry.clone()), (1, bytes), "packets and bytes");
            dut.unload(entry);
            dut.send(&RED, packet);
            dut.expect_punt(FlowMiss, &RED, packet);
        }
    }
}

fn every_action_of(name: &str, packets: impl Fn(IpAddr, IpAddr) -> Vec<Packet>) {
    run(name, |dut| {
        for packet in packets(CLIENT, SERVER) {
            every_action(dut, &packet, PUBLIC, OTHER);
        }
        for packet in packets(CLIENT6, SERVER6) {
            every_action(dut, &packet, PUBLIC6, OTHER6);
        }
    });
}

#[test]
fn tcp_is_translated() {
    every_action_of("flows::tcp_is_translated", |client, server| {
        let segment = tcp((client, 1234), (server, 80));
        vec![
            segment.clone().payload(b""),
            segment.clone(),
            segment.length(1400),
        ]
    });
}

#[test]
fn udp_is_translated() {
    every_action_of("flows::udp_is_translated", |client, server| {
        let datagram = udp((client, 1234), (server, 80));
        vec![
            datagram.clone().payload(b""),
            datagram.clone(),
            datagram.length(1400),
        ]
    });
}

/// RFC 768: zero says that there is none, and stays.
#[test]
fn a_missing_udp_checksum_stays_missing() {
    every_action_of(
        "flows::a_missing_udp_checksum_stays_missing",
        |client, server| vec![udp_without_checksum((client, 1234), (server, 80))],
    );
}

#[test]
fn echos_are_translated() {
    every_action_of("flows::echos_are_translated", |client, server| {
        vec![
            echo_request(client, server, 77),
            echo_reply(client, server, 77),
        ]
    });
}

/// A UDP checksum that comes out as zero is sent as 0xffff (RFC 768), and the values around it
/// are right too.
#[test]
fn udp_checksums_around_zero() {
    run("flows::udp_checksums_around_zero", |dut| {
        let checksum = |packet: &Packet| {
            let bytes = packet.bytes();
            u16::from_be_bytes([bytes[26], bytes[27]])
        };
        let packet = udp((CLIENT, 1234), (SERVER, 80));
        let vpc = RED.vpc();
        let src = Some((PUBLIC, 5000));
        let action = FlowAction {
            vpc,
            src,
            dst: None,
        };
        dut.offload(&RED, &packet, action);
        let after = |payload: u16| translated(&packet, &action).payload(&payload.to_be_bytes());
        let mut seen = Vec::new();
        let near = checksum(&after(0));
        for payload in (near.wrapping_sub(3)..=near.wrapping_add(3)).chain([0, 1, 0xfffe, 0xffff]) {
            let sent = packet.clone().payload(&payload.to_be_bytes());
            dut.send(&RED, &sent);
            dut.expect(&WAN, &after(payload));
            seen.push(checksum(&after(payload)));
        }
        assert!(seen.contains(&0xffff) && seen.contains(&1), "{seen:x?}");
        // And one that arrives as 0xffff.
        let near = checksum(&packet.clone().payload(&[0, 0]));
        let sent = packet.clone().payload(&near.to_be_bytes());
        assert_eq!(checksum(&sent), 0xffff);
        dut.send(&RED, &sent);
        dut.expect(&WAN, &after(near));
    });
}

/// Of an echo, the requester's identifier is its port and the responder's port is 0: a request
/// from outside never looks like the reply to one from inside.
#[test]
fn an_echo_request_is_no_reply() {
    run("flows::an_echo_request_is_no_reply", |dut| {
        dut.offload(
            &WAN,
            &echo_reply(SERVER, PUBLIC, 77),
            FlowAction {
                vpc: RED.vpc(),
                src: None,
                dst: Some((CLIENT, 5)),
            },
        );
        let request = echo_request(SERVER, PUBLIC, 77);
        dut.send(&WAN, &request);
        dut.expect_punt(FlowMiss, &WAN, &request);
        dut.send(&WAN, &echo_reply(SERVER, PUBLIC, 77));
        dut.expect(&RED, &echo_reply(SERVER, CLIENT, 5).ttl(63));
    });
}

/// Flows of one VPC are nothing to another with the same addresses.
#[test]
fn vpcs_with_the_same_addresses_are_apart() {
    run("flows::vpcs_with_the_same_addresses_are_apart", |dut| {
        let packet = tcp((CLIENT, 1234), (SERVER, 80));
        dut.offload(&RED, &packet, forward(RED.vpc()));
        dut.send(&crate::gateway::BLUE, &packet);
        dut.expect_punt(FlowMiss, &crate::gateway::BLUE, &packet);
        dut.send(&RED, &packet);
        dut.expect(&WAN, &packet.clone().ttl(63));
    });
}

/// A connection's two entries as the slow path writes them: out through a masquerade, and back.
#[test]
fn a_masqueraded_connection() {
    run("flows::a_masqueraded_connection", |dut| {
        for (client, server, public) in [(CLIENT, SERVER, PUBLIC), (CLIENT6, SERVER6, PUBLIC6)] {
            let there = tcp((client, 1234), (server, 80));
            let back = tcp((server, 80), (public, 5000));
            let vpc = RED.vpc();
            let (src, dst) = (Some((public, 5000)), Some((client, 1234)));
            let forward = FlowAction {
                vpc,
                src,
                dst: None,
            };
            let reply = FlowAction {
                vpc,
                src: None,
                dst,
            };
            dut.offload(&RED, &there, forward);
            dut.offload(&WAN, &back, reply);
            for _ in 0..3 {
                dut.send(&RED, &there);
                dut.expect(&WAN, &translated(&there, &forward));
                dut.send(&WAN, &back);
                dut.expect(&RED, &translated(&back, &reply));
            }
        }
    });
}
