//! What software must see whatever the tables say, and why.

use std::net::IpAddr;

use shunt_p4::MacAddr;
use shunt_p4::PuntReason::{
    self, Arp, FlowMiss, Fragment, Local, Multicast, Nd, Options, OtherL2, OtherL4, TcpFlags, Ttl,
};

use crate::dut::{Dut, forward, run};
use crate::gateway::{CLIENT, CLIENT6, PUBLIC, RED, SERVER, SERVER6, STATELESS};
use crate::packet::{Frame, Packet, echo_reply, echo_request, other, tcp, udp};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn request() -> Packet {
    udp((CLIENT, 1234), (SERVER, 80))
}

fn request6() -> Packet {
    udp((CLIENT6, 1234), (SERVER6, 80))
}

fn punts(dut: &mut Dut, reason: PuntReason, packet: &Packet) -> u32 {
    dut.send(&RED, packet);
    dut.expect_punt(reason, &RED, packet)
}

fn to(mac: &str, ether_type: u16, body: &[u8]) -> Frame {
    Frame::new(mac.parse().unwrap(), RED.host(), ether_type, body)
}

#[test]
fn flow_misses() {
    run("punts::flow_misses", |dut| {
        for (src, dst) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
            punts(dut, FlowMiss, &udp((src, 1234), (dst, 80)));
            punts(dut, FlowMiss, &tcp((src, 1234), (dst, 80)));
            punts(dut, FlowMiss, &echo_request(src, dst, 7));
            punts(dut, FlowMiss, &echo_reply(src, dst, 7));
        }
    });
}

#[test]
fn arp() {
    run("punts::arp", |dut| {
        for mac in ["ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01"] {
            let frame = to(mac, 0x0806, &[1; 28]);
            dut.send(&RED, &frame);
            dut.expect_punt(Arp, &RED, &frame);
        }
    });
}

#[test]
fn neighbour_discovery() {
    run("punts::neighbour_discovery", |dut| {
        let (router, host, all) = (ip("fe80::1"), ip("fe80::9"), ip("ff02::1"));
        // Router solicitation to redirect (RFC 4861).
        for kind in 133..=137 {
            let message = [&[kind, 0, 0, 0][..], &[0; 20]].concat();
            for (src, dst) in [(host, all), (host, router), (CLIENT6, SERVER6)] {
                let packet = other(src, dst, 58, &message).ttl(255);
                punts(dut, Nd, &packet);
            }
        }
        let report = [&[143, 0, 0, 0][..], &[0; 20]].concat();
        punts(
            dut,
            Multicast,
            &other(host, ip("ff02::16"), 58, &report).ttl(1),
        );
    });
}

#[test]
fn expired_packets() {
    run("punts::expired_packets", |dut| {
        let entry = dut.offload(&RED, &request(), forward(RED.vpc()));
        for ttl in [0, 1] {
            punts(dut, Ttl, &request().ttl(ttl));
            punts(dut, Ttl, &request6().ttl(ttl));
        }
        assert_eq!(dut.count(entry), (0, 0), "the flow table was not asked");
    });
}

#[test]
fn options_and_fragments() {
    run("punts::options_and_fragments", |dut| {
        dut.offload(&RED, &request(), forward(RED.vpc()));
        punts(dut, Options, &request().options(&[7, 7, 4, 0, 0, 0, 0, 0]));
        punts(dut, Fragment, &request().fragment(true, 0));
        punts(dut, Fragment, &request().fragment(false, 100));
        punts(dut, Fragment, &request().fragment(true, 100));
    });
}

/// The slow path has to see a connection's beginning and end, also when it is offloaded.
#[test]
fn tcp_flags() {
    run("punts::tcp_flags", |dut| {
        for (src, dst) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
            let segment = tcp((src, 1234), (dst, 80));
            dut.offload(&RED, &segment, forward(RED.vpc()));
            for flags in ["S", "SA", "F", "FA", "R", "RA"] {
                punts(dut, TcpFlags, &segment.clone().flags(flags));
            }
        }
    });
}

#[test]
fn multicast_and_broadcast() {
    run("punts::multicast_and_broadcast", |dut| {
        let ospf = |dst| other(ip("10.0.0.2"), ip(dst), 89, b"hello").ttl(1);
        let mut frame = RED.inbound(&ospf("224.0.0.5"));
        frame.dst = MacAddr([1, 0, 0x5e, 0, 0, 5]);
        dut.send(&RED, &frame);
        dut.expect_punt(Multicast, &RED, &frame);
        punts(dut, Multicast, &ospf("239.1.2.3"));
        punts(
            dut,
            Multicast,
            &udp((ip("0.0.0.0"), 68), (ip("255.255.255.255"), 67)),
        );
        let mut frame = RED.inbound(&udp((CLIENT, 138), (ip("10.0.0.255"), 138)));
        frame.dst = MacAddr::BROADCAST;
        dut.send(&RED, &frame);
        dut.expect_punt(Multicast, &RED, &frame);
        punts(
            dut,
            Multicast,
            &other(ip("fe80::9"), ip("ff02::5"), 89, b"hello").ttl(1),
        );
    });
}

#[test]
fn link_local_never_leaves_its_link() {
    run("punts::link_local_never_leaves_its_link", |dut| {
        for (src, dst) in [
            ("fe80::9", "fe80::1"),
            ("febf::9", "2001:db8::1"),
            ("2001:db8::2", "fe80::1"),
        ] {
            punts(dut, Local, &udp((ip(src), 1), (ip(dst), 2)));
        }
        punts(dut, FlowMiss, &udp((ip("fec0::9"), 1), (SERVER6, 2)));
    });
}

#[test]
fn protocols_without_flows() {
    run("punts::protocols_without_flows", |dut| {
        punts(dut, OtherL4, &other(CLIENT, SERVER, 47, b"GRE"));
        // Destination unreachable with the packet that it is about; time stamp request.
        let error = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &request().bytes()].concat();
        punts(dut, OtherL4, &other(CLIENT, SERVER, 1, &error));
        punts(dut, OtherL4, &other(CLIENT, SERVER, 1, &[13; 20]));
        // An echo with a code is none.
        punts(
            dut,
            OtherL4,
            &other(CLIENT, SERVER, 1, &[8, 1, 0, 0, 0, 7, 0, 1]),
        );
        // An ICMP echo in IPv6, and the other way round.
        punts(
            dut,
            OtherL4,
            &other(CLIENT6, SERVER6, 58, &[8, 0, 0, 0, 0, 7, 0, 1]),
        );
        punts(
            dut,
            OtherL4,
            &other(CLIENT, SERVER, 1, &[128, 0, 0, 0, 0, 7, 0, 1]),
        );
        let error = [&[2, 0, 0, 0, 0, 0, 5, 0][..], &request6().bytes()].concat();
        punts(dut, OtherL4, &other(CLIENT6, SERVER6, 58, &error));
        // Extension headers: hop by hop, fragment.
        punts(
            dut,
            OtherL4,
            &other(CLIENT6, SERVER6, 0, &[17, 0, 1, 4, 0, 0, 0, 0]),
        );
        punts(
            dut,
            OtherL4,
            &other(CLIENT6, SERVER6, 44, &[17, 0, 0, 1, 0, 0, 0, 9]),
        );
    });
}

#[test]
fn frames_without_ip() {
    run("punts::frames_without_ip", |dut| {
        for (mac, ether_type) in [("01:80:c2:00:00:0e", 0x88cc), ("02:00:00:00:00:01", 0x1234)] {
            let frame = to(mac, ether_type, b"whatever it is");
            dut.send(&RED, &frame);
            dut.expect_punt(OtherL2, &RED, &frame);
        }
    });
}

/// Routes alone forward there, but what software must see it still must see.
#[test]
fn stateless_vpcs_punt_too() {
    run("punts::stateless_vpcs_punt_too", |dut| {
        let fragment = request().fragment(true, 0);
        let group = other(CLIENT, ip("224.0.0.5"), 89, b"hello");
        let cases = [
            (Ttl, request().ttl(1)),
            (Fragment, fragment),
            (Multicast, group),
        ];
        for (reason, packet) in cases {
            dut.send(&STATELESS, &packet);
            dut.expect_punt(reason, &STATELESS, &packet);
        }
    });
}

fn tuple(
    proto: u8,
    (src, src_port): (IpAddr, u16),
    (dst, dst_port): (IpAddr, u16),
) -> shunt_p4::Tuple {
    shunt_p4::Tuple {
        src,
        dst,
        proto,
        src_port,
        dst_port,
    }
}

/// Both directions of an untranslated connection have one hash, so that one worker gets both.
#[test]
fn the_flow_hash_is_symmetric() {
    run("punts::the_flow_hash_is_symmetric", |dut| {
        let mut hashes = Vec::new();
        for (src, dst) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
            for port in [1234, 1235] {
                let there = punts(dut, FlowMiss, &tcp((src, port), (dst, 80)));
                let back = punts(dut, FlowMiss, &tcp((dst, 80), (src, port)));
                assert_eq!(there, back);
                assert_eq!(
                    there,
                    shunt_p4::flow_hash(&tuple(6, (src, port), (dst, 80)))
                );
                hashes.push(there);
            }
            let there = punts(dut, FlowMiss, &echo_request(src, dst, 7));
            let proto = if src == CLIENT { 1 } else { 58 };
            assert_eq!(
                there,
                shunt_p4::flow_hash(&tuple(proto, (src, 7), (dst, 0)))
            );
            assert_eq!(there, punts(dut, FlowMiss, &echo_reply(dst, src, 7)));
            // SYN and data of one connection reach the same worker.
            let syn = punts(dut, TcpFlags, &tcp((src, 1234), (dst, 80)).flags("S"));
            assert!(hashes.contains(&syn));
            hashes.push(there);
        }
        hashes.push(punts(dut, FlowMiss, &tcp((CLIENT, 1234), (PUBLIC, 80))));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 7, "different connections, different hashes");
    });
}
