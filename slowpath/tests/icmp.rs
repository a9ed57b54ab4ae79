//! ICMP errors: those that the gateway sends, and those that it translates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use shunt_p4::frame::ENCAP_LEN;
use shunt_slowpath::DropReason;
use shunt_slowpath::worker::Verdict;

const ETHERNET: usize = 14;
const TOO_BIG: &[u8] = &[7; 1480];

fn kind_and_code(frame: &[u8]) -> (u8, u8, Vec<u8>) {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    verify_checksums(&headers);
    let payload = headers.payload.slice().to_vec();
    match headers.transport.unwrap() {
        TransportHeader::Icmpv4(icmp) => {
            let bytes = icmp.to_bytes();
            (bytes[0], bytes[1], [&bytes[4..], &payload].concat())
        }
        TransportHeader::Icmpv6(icmp) => {
            let bytes = icmp.to_bytes();
            (bytes[0], bytes[1], [&bytes[4..], &payload].concat())
        }
        other => panic!("no ICMP but {other:?}"),
    }
}

#[test]
fn time_exceeded_quotes_the_packet_as_it_arrived() {
    for (src, dst, gateway, kind) in [
        ("10.0.0.2:5", "192.0.2.80:6", "10.0.0.1", 11),
        (
            "[2001:db8:1::2]:5",
            "[2001:db8:ffff::1]:6",
            "2001:db8:1::1",
            3,
        ),
    ] {
        let mut world = World::new();
        let packet = udp_with(sock(src), sock(dst), 1, b"traceroute");
        let (verdict, out) = world.frame(RED, &packet);
        assert_eq!(verdict, Verdict::Answered(DropReason::TtlExceeded));
        let answer = Seen::new(&out);
        assert_eq!(
            (answer.src.ip(), answer.dst.ip()),
            (ip(gateway), sock(src).ip())
        );
        assert_eq!(
            (answer.interface, answer.dst_mac),
            (RED, host_mac(sock(src).ip()))
        );
        assert_eq!(answer.src_mac, gateway_mac(RED));
        let (seen, code, rest) = kind_and_code(&out[ENCAP_LEN..]);
        assert_eq!((seen, code), (kind, 0));
        assert_eq!(rest[4..], packet[ETHERNET..]);
        assert_eq!(world.worker.connections(), 0, "nothing remembered for it");
    }
}

#[test]
fn too_big_says_the_mtu() {
    let mut world = World::new();
    let mut frame = udp_with(sock("10.0.0.2:5"), sock("192.0.2.80:6"), 64, TOO_BIG);
    // Without the bit it is cut (tests/fragments.rs). etherparse sets it.
    let (verdict, out) = world.frame(RED, &frame);
    assert_eq!(verdict, Verdict::Answered(DropReason::TooBig));
    let (kind, code, rest) = kind_and_code(&out[ENCAP_LEN..]);
    assert_eq!((kind, code), (3, 4));
    assert_eq!(rest[..4], [0, 0, 0x05, 0xdc]);
    assert_eq!(out.len(), ENCAP_LEN + ETHERNET + 576, "RFC 1812");

    frame[20] &= !0x40;
    let mut ip_header = etherparse::Ipv4Header::from_slice(&frame[ETHERNET..])
        .unwrap()
        .0;
    ip_header.header_checksum = ip_header.calc_header_checksum();
    frame[24..26].copy_from_slice(&ip_header.header_checksum.to_be_bytes());
    assert_eq!(world.verdict(RED, &frame), Verdict::Transmit);

    let frame = udp_with(
        sock("[2001:db8:1::2]:5"),
        sock("[2001:db8:ffff::1]:6"),
        64,
        TOO_BIG,
    );
    let (verdict, out) = world.frame(RED, &frame);
    assert_eq!(verdict, Verdict::Answered(DropReason::TooBig));
    let (kind, code, rest) = kind_and_code(&out[ENCAP_LEN..]);
    assert_eq!((kind, code, &rest[..4]), (2, 0, &[0, 0, 0x05, 0xdc][..]));
    assert_eq!(out.len(), ENCAP_LEN + ETHERNET + 1280, "RFC 4443");
}

#[test]
fn errors_are_limited_and_never_answer_errors() {
    let mut policy = policy();
    policy.limits.icmp_errors_per_second = 50;
    let mut world = World::with(policy, 64, 64);
    let frame = udp_with(sock("10.0.0.2:5"), sock("192.0.2.80:6"), 1, b"x");
    let answered = (0..100)
        .filter(|_| world.verdict(RED, &frame).is_transmit())
        .count();
    assert_eq!(answered, 5, "a tenth of a second's worth");
    let stats = world.worker.stats();
    assert_eq!((stats.icmp_errors, stats.icmp_limited), (5, 95));
    assert_eq!(stats.dropped(DropReason::TtlExceeded), 100);
    world.now += SECOND;
    assert!(world.verdict(RED, &frame).is_transmit());
}

/// (inside client, outside address, server, router on the way, error type)
const FAMILIES: [(&str, &str, &str, &str, u8); 2] = [
    (
        "10.0.0.2:1234",
        "203.0.113.10",
        "192.0.2.80:53",
        "198.51.100.1",
        11,
    ),
    (
        "[2001:db8:1::2]:1234",
        "2001:db8:9::10",
        "[2001:db8:ffff::80]:53",
        "2001:db8:77::1",
        3,
    ),
];

#[test]
fn an_error_from_outside_reaches_the_inside_host_about_its_own_packet() {
    for (client, outside, server, router, kind) in FAMILIES {
        let mut world = World::new();
        let sent = udp(client, server);
        let (_, out) = world.frame(RED, &sent);
        let quoted = &out[ENCAP_LEN + ETHERNET..];
        let error = icmp_error(router, outside, kind, 0, quoted);
        let (verdict, back) = world.frame(WAN, &error);
        assert_eq!(verdict, Verdict::Transmit);
        let seen = Seen::new(&back);
        assert_eq!((seen.interface, seen.ttl), (RED, 59));
        assert_eq!(
            (seen.src.ip(), seen.dst.ip()),
            (ip(router), sock(client).ip())
        );
        let (seen_kind, _, rest) = kind_and_code(&back[ENCAP_LEN..]);
        assert_eq!(seen_kind, kind);
        // But for the TTL, which had gone down by then, it is what the client sent.
        let mut expected = sent[ETHERNET..].to_vec();
        if sock(client).is_ipv4() {
            expected[8] = 63;
            let mut header = etherparse::Ipv4Header::from_slice(&expected).unwrap().0;
            header.header_checksum = header.calc_header_checksum();
            expected[10..12].copy_from_slice(&header.header_checksum.to_be_bytes());
        } else {
            expected[7] = 63;
        }
        assert_eq!(rest[4..], expected);
    }
}

#[test]
fn an_error_that_quotes_only_eight_bytes_of_tcp_is_translated() {
    let mut world = World::new();
    let (_, out) = world.frame(RED, &tcp("10.0.0.2:1234", "192.0.2.80:80", "S"));
    let quoted = &out[ENCAP_LEN + ETHERNET..ENCAP_LEN + ETHERNET + 28];
    let (verdict, back) = world.frame(
        WAN,
        &icmp_error("198.51.100.1", "203.0.113.10", 3, 4, quoted),
    );
    assert_eq!(verdict, Verdict::Transmit);
    let (kind, code, rest) = kind_and_code(&back[ENCAP_LEN..]);
    assert_eq!((kind, code), (3, 4));
    assert_eq!(rest[4 + 20..4 + 22], 1234u16.to_be_bytes());
    assert_eq!(rest[4 + 12..4 + 16], [10, 0, 0, 2]);
}

#[test]
fn an_error_from_inside_does_not_show_the_inside() {
    let mut world = World::new();
    let client = "192.0.2.80:999";
    let (_, out) = world.frame(WAN, &tcp(client, "203.0.113.10:8080", "S"));
    let quoted = &out[ENCAP_LEN + ETHERNET..];
    for router in ["10.0.0.2", "10.0.0.254"] {
        let (verdict, back) = world.frame(RED, &icmp_error(router, "192.0.2.80", 3, 3, quoted));
        assert_eq!(verdict, Verdict::Transmit);
        let seen = Seen::new(&back);
        assert_eq!((seen.interface, seen.src.ip()), (WAN, ip("203.0.113.10")));
        let (_, _, rest) = kind_and_code(&back[ENCAP_LEN..]);
        let headers = PacketHeaders::from_ip_slice(&rest[4..]).unwrap();
        let Some(NetHeaders::Ipv4(quoted_ip, _)) = headers.net else {
            panic!("no IPv4")
        };
        assert_eq!(quoted_ip.destination, [203, 0, 113, 10]);
        let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
            panic!("no TCP")
        };
        assert_eq!(tcp.destination_port, 8080);
    }
}

#[test]
fn an_error_about_a_ping_is_translated() {
    let mut world = World::new();
    let sent = echo("10.0.0.2", "192.0.2.80", 77, true);
    let (_, out) = world.frame(RED, &sent);
    let quoted = &out[ENCAP_LEN + ETHERNET..];
    let (verdict, back) = world.frame(
        WAN,
        &icmp_error("198.51.100.1", "203.0.113.10", 11, 0, quoted),
    );
    assert_eq!(verdict, Verdict::Transmit);
    let (_, _, rest) = kind_and_code(&back[ENCAP_LEN..]);
    assert_eq!(
        rest[4 + 20..],
        sent[ETHERNET + 20..],
        "the ICMP message as it was sent"
    );
}

#[test]
fn unrelated_and_broken_errors_are_dropped() {
    let mut world = World::new();
    let (_, out) = world.frame(RED, &udp("10.0.0.2:5", "192.0.2.80:53"));
    let quoted = out[ENCAP_LEN + ETHERNET..].to_vec();
    let mut broken = icmp_error("198.51.100.1", "203.0.113.10", 3, 1, &quoted);
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(
        world.verdict(WAN, &broken),
        Verdict::Drop(DropReason::IcmpChecksum)
    );
    // Nothing of ours; sent to a host behind us.
    let foreign = udp("10.0.0.2:9", "192.0.2.80:53");
    let error = icmp_error("198.51.100.1", "10.0.0.2", 3, 1, &foreign[ETHERNET..]);
    assert_eq!(
        world.verdict(RED, &error),
        Verdict::Drop(DropReason::IcmpUnrelated)
    );
    // To the gateway itself: perhaps about the kernel's own packets.
    let error = icmp_error("198.51.100.1", "203.0.113.1", 3, 1, &foreign[ETHERNET..]);
    assert_eq!(world.verdict(WAN, &error), Verdict::Exception);
}
