//! Which interface a frame belongs to, and how it is decapsulated. With empty flow tables
//! everything goes to the slow path, which shows both.

use shunt_p4::PuntReason::{Arp, FlowMiss};

use crate::dut::run;
use crate::gateway::{
    BLUE, CLIENT, CLIENT6, DOUBLE, FABRIC, GREEN, LIME, LINKS, MARKER, RED, SERVER, SERVER6, Shape,
    vxlan,
};
use crate::packet::{Frame, Packet, tcp, udp};

fn request() -> Packet {
    udp((CLIENT, 1234), (SERVER, 80))
}

#[test]
fn every_kind_of_link() {
    run("classify::every_kind_of_link", |dut| {
        let request6 = tcp((CLIENT6, 1234), (SERVER6, 80));
        for link in LINKS
            .iter()
            .filter(|link| !link.stateless && link.id != MARKER.id)
        {
            for packet in [&request(), &request6] {
                dut.send(link, packet);
                dut.expect_punt(FlowMiss, link, packet);
            }
            let arp = Frame::new(shunt_p4::MacAddr::BROADCAST, link.host(), 0x0806, &[7; 28]);
            dut.send(link, &arp);
            dut.expect_punt(Arp, link, &arp);
        }
    });
}

/// An outer tag may be of either kind (IEEE 802.1Q or 802.1ad).
#[test]
fn two_tags_of_one_kind() {
    run("classify::two_tags_of_one_kind", |dut| {
        let frame = DOUBLE.inbound(&request());
        dut.send_bytes(2, &frame.tagged(&[(0x8100, 30), (0x8100, 40)]));
        dut.expect_punt(FlowMiss, &DOUBLE, &frame);
    });
}

/// VLAN 0 says only a priority (IEEE 802.1Q).
#[test]
fn a_priority_tag_is_no_vlan() {
    run("classify::a_priority_tag_is_no_vlan", |dut| {
        let frame = RED.inbound(&request());
        dut.send_bytes(1, &frame.tagged(&[(0x8100, 0xa000)]));
        dut.expect_punt(FlowMiss, &RED, &frame);
    });
}

#[test]
fn priority_bits_of_a_tag_do_not_matter() {
    run("classify::priority_bits_of_a_tag_do_not_matter", |dut| {
        let frame = BLUE.inbound(&request());
        dut.send_bytes(2, &frame.tagged(&[(0x8100, 0xf000 | 20)]));
        dut.expect_punt(FlowMiss, &BLUE, &frame);
    });
}

/// What a network card padded to 60 bytes reaches the slow path as it arrived.
#[test]
fn padding_is_kept() {
    run("classify::padding_is_kept", |dut| {
        let bytes = [RED.inbound(&request()).bytes(), vec![0; 9]].concat();
        dut.send_bytes(1, &bytes);
        dut.expect_punt_bytes(FlowMiss, &RED, &bytes);
    });
}

/// Another VNI or end point than ours: a packet of the underlay like any other.
#[test]
fn other_tunnels_stay_closed() {
    run("classify::other_tunnels_stay_closed", |dut| {
        let inner = GREEN.inbound(&request());
        let Shape::Vxlan(vni, _, local, remote) = GREEN.shape else {
            panic!("green is a tunnel")
        };
        let elsewhere = std::net::Ipv4Addr::new(172, 16, 0, 77);
        for (vni, dst) in [(vni + 1, local), (vni, elsewhere)] {
            let bytes = vxlan(&inner, vni, 5555, remote, dst);
            let outer = Frame::new(FABRIC.mac(), FABRIC.host(), 0x0800, &bytes);
            dut.send(&FABRIC, &outer);
            dut.expect_punt(FlowMiss, &FABRIC, &outer);
        }
        // The same VNI in another underlay is another tunnel.
        let lime = LIME.inbound(&request());
        dut.send(&LIME, &lime);
        dut.expect_punt(FlowMiss, &LIME, &lime);
    });
}

/// A masquerade may choose 4789 for a client's port: then it is not VXLAN that comes to it.
#[test]
fn the_vxlan_port_alone_makes_no_tunnel() {
    run("classify::the_vxlan_port_alone_makes_no_tunnel", |dut| {
        let flag_missing = [&[0x01][..], &[0; 60]].concat();
        for payload in [&b""[..], b"x", b"\x08234567", &[8; 23], &flag_missing] {
            let packet = udp((SERVER, 53), (CLIENT, 4789)).payload(payload);
            for link in [&RED, &FABRIC] {
                dut.send(link, &packet);
                dut.expect_punt(FlowMiss, link, &packet);
            }
        }
    });
}
