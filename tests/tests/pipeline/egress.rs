//! How routed packets leave: MAC addresses, tags, tunnels; across VPCs.

use shunt_p4::FlowAction;
use shunt_p4::PuntReason::Mtu;

use crate::dut::{forward, run};
use crate::gateway::{
    BLUE, CLIENT, CLIENT6, DOUBLE, GREEN, LIME, PUBLIC, PUBLIC6, RED, SERVER, SERVER6, WAN,
};
use crate::packet::{tcp, udp};

/// The reply of a masqueraded connection comes back to each kind of link.
#[test]
fn every_kind_of_link() {
    run("egress::every_kind_of_link", |dut| {
        for link in [RED, BLUE, DOUBLE, GREEN, LIME] {
            let port = 5000 + link.id;
            for (client, server, public) in [(CLIENT, SERVER, PUBLIC), (CLIENT6, SERVER6, PUBLIC6)]
            {
                let reply = tcp((server, 80), (public, port));
                let (vpc, dst) = (link.vpc(), Some((client, 1234)));
                dut.offload(
                    &WAN,
                    &reply,
                    FlowAction {
                        vpc,
                        src: None,
                        dst,
                    },
                );
                dut.send(&WAN, &reply);
                dut.expect(&link, &reply.clone().dst(client, 1234).ttl(63));
            }
        }
    });
}

/// Each kind of link to each other kind.
#[test]
fn from_every_link_to_every_other() {
    run("egress::from_every_link_to_every_other", |dut| {
        let links = [RED, BLUE, DOUBLE, GREEN, LIME];
        for (number, from) in links.iter().enumerate() {
            for (other, to) in links.iter().enumerate() {
                let port = (1000 + 10 * number + other) as u16;
                let packet = udp((CLIENT, port), (SERVER, 80));
                let (vpc, dst) = (to.vpc(), Some((CLIENT, 81)));
                dut.offload(
                    from,
                    &packet,
                    FlowAction {
                        vpc,
                        src: None,
                        dst,
                    },
                );
                dut.send(from, &packet);
                dut.expect(to, &packet.dst(CLIENT, 81).ttl(63));
            }
        }
    });
}

/// The MTU of a tunnel is that of what it carries.
#[test]
fn the_mtu_of_a_tunnel() {
    run("egress::the_mtu_of_a_tunnel", |dut| {
        let packet = udp((CLIENT, 9), (SERVER, 9));
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
        let largest = packet.clone().length(GREEN.mtu.into());
        dut.send(&RED, &largest);
        dut.expect(&GREEN, &largest.dst(CLIENT, 9).ttl(63));
        let larger = packet.length(usize::from(GREEN.mtu) + 1);
        dut.send(&RED, &larger);
        dut.expect_punt(Mtu, &RED, &larger);
    });
}

/// The underlay may spread flows of a tunnel by the UDP source port (RFC 7348): one for a flow,
/// many for many.
#[test]
fn a_tunnels_source_port_follows_the_flow() {
    run("egress::a_tunnels_source_port_follows_the_flow", |dut| {
        let mut ports = Vec::new();
        for port in 3000..3030 {
            let packet = udp((CLIENT, port), (SERVER, 9));
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
            let sent = packet.clone().dst(CLIENT, 9).ttl(63);
            dut.send(&RED, &packet);
            let entropy = dut.expect_entropy(&GREEN, &sent);
            dut.send(&RED, &packet);
            assert_eq!(dut.expect_entropy(&GREEN, &sent), entropy);
            ports.push(entropy);
        }
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() > 25, "{} ports for 30 flows", ports.len());
    });
}

/// What a tunnel's frame was padded with, or its tags, do not come out at the other side.
#[test]
fn the_ingress_encapsulation_ends_at_the_gateway() {
    run(
        "egress::the_ingress_encapsulation_ends_at_the_gateway",
        |dut| {
            let packet = tcp((CLIENT, 1234), (SERVER, 80));
            for link in [BLUE, DOUBLE, GREEN, LIME] {
                dut.offload(&link, &packet, forward(link.vpc()));
                dut.send(&link, &packet);
                dut.expect(&WAN, &packet.clone().ttl(63));
            }
        },
    );
}
