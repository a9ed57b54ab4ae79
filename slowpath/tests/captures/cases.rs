//! What arrives in each case. Pools have one port, so what the other side answers to is known.

use std::net::SocketAddr;

use shunt_p4::{NetworkOp, NexthopId, Route};
use shunt_slowpath::Policy;
use shunt_slowpath::policy::{PortRange, StaticMethod, StaticNat};

use crate::common::fragment::fragments;
use crate::common::*;
use crate::file::Arrived;

/// One feature.
pub struct Case {
    pub name: &'static str,
    /// What is to be seen, and where it is written.
    pub about: &'static str,
    change: fn(&mut Policy),
    frames: fn() -> Vec<(u16, Vec<u8>)>,
}

impl Case {
    pub fn world(&self) -> World {
        let mut policy = policy();
        for rule in &mut policy.masquerades {
            rule.ports = PortRange::new(5000, 5000).unwrap();
        }
        (self.change)(&mut policy);
        let mut world = World::with(policy, 64, 64);
        // Unique local addresses on red's link, for prefix translation.
        let hop = NexthopId::new(u32::from(RED)).unwrap();
        let prefix = "fd01:203:405::/48".parse().unwrap();
        let host = ip("fd01:203:405:1::1234");
        world.fib.apply([
            NetworkOp::SetRoute(vpc(RED), prefix, Route::Nexthops(vec![(hop, 1)])),
            NetworkOp::SetNeighbor(interface_id(RED), host, host_mac(host)),
        ]);
        world.fib.publish();
        world
    }

    /// A millisecond apart.
    pub fn frames(&self) -> Vec<Arrived> {
        let frames = (self.frames)().into_iter().zip(1..);
        frames
            .map(|((interface, bytes), at)| Arrived {
                at_us: at * 1000,
                interface,
                bytes,
            })
            .collect()
    }
}

fn unchanged(_: &mut Policy) {}

const CLIENT: &str = "10.0.0.2:1234";
const SERVER: &str = "192.0.2.80:80";
const OUTSIDE: &str = "203.0.113.10:5000";
const CLIENT6: &str = "[2001:db8:1::2]:1234";
const SERVER6: &str = "[2001:db8:ffff::1]:80";
const OUTSIDE6: &str = "[2001:db8:9::10]:5000";

/// A whole TCP connection between an inside and an outside end.
fn tcp_life(client: &str, server: &str, outside: &str, other: &str) -> Vec<(u16, Vec<u8>)> {
    vec![
        (RED, tcp(client, server, "S")),
        (WAN, tcp(server, outside, "SA")),
        (RED, tcp(client, server, "A")),
        (WAN, tcp(server, outside, "A")),
        (RED, tcp(client, server, "FA")),
        (WAN, tcp(server, outside, "FA")),
        (RED, tcp(client, server, "A")),
        // Nobody's: another server, and another port.
        (WAN, tcp(other, outside, "SA")),
        (WAN, tcp(server, &outside.replace("5000", "5001"), "SA")),
    ]
}

fn quote(frame: &[u8]) -> Vec<u8> {
    frame[14..].to_vec()
}

fn sized(src: &str, dst: &str, ttl: u8, len: usize) -> Vec<u8> {
    udp_with(sock(src), sock(dst), ttl, &vec![7; len])
}

/// The error, with the number in the second half of its header's first eight bytes.
fn error_with(mut frame: Vec<u8>, v6: bool, value: u32) -> Vec<u8> {
    let at = if v6 { 54 } else { 34 };
    frame[at + 4..at + 8].copy_from_slice(&value.to_be_bytes());
    // RFC 1071 over the message, and IPv6's pseudo header.
    frame[at + 2..at + 4].fill(0);
    let mut covered = Vec::new();
    if v6 {
        let len = (frame.len() - at) as u32;
        covered.extend_from_slice(&frame[22..54]);
        covered.extend(len.to_be_bytes());
        covered.extend(58u32.to_be_bytes());
    }
    covered.extend_from_slice(&frame[at..]);
    let sum = shunt_slowpath::packet::checksum::of(&covered);
    frame[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn static_nat(from: u16, to: u16, inside: &str, outside: &str, method: StaticMethod) -> StaticNat {
    StaticNat {
        name: "static".into(),
        vpc: vpc(from),
        to: vpc(to),
        inside: inside.parse().unwrap(),
        outside: outside.parse().unwrap(),
        method,
    }
}

/// Errors from outside about what a client sent, and from the client about what it got.
fn errors(client: &str, server: &str, outside: &str) -> Vec<(u16, Vec<u8>)> {
    let v6 = sock(client).is_ipv6();
    let router = if v6 { "2001:db8:9::2" } else { "203.0.113.2" };
    let [unreachable, too_big, expired] = if v6 {
        [(1, 4), (2, 0), (3, 0)]
    } else {
        [(3, 3), (3, 4), (11, 0)]
    };
    let (inside_ip, outside_ip) = (
        sock(client).ip().to_string(),
        sock(outside).ip().to_string(),
    );
    let server_ip = sock(server).ip().to_string();
    let sent = quote(&udp(outside, server));
    let got = quote(&udp(server, client));
    let from_router = |(kind, code)| icmp_error(router, &outside_ip, kind, code, &sent);
    let mut broken = from_router(expired);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    vec![
        (RED, udp(client, server)),
        (WAN, udp(server, outside)),
        (
            WAN,
            icmp_error(&server_ip, &outside_ip, unreachable.0, unreachable.1, &sent),
        ),
        (WAN, error_with(from_router(too_big), v6, 1400)),
        (WAN, from_router(expired)),
        // Only eight bytes of the transport, as RFC 792 has it.
        (
            WAN,
            icmp_error(
                router,
                &outside_ip,
                expired.0,
                expired.1,
                &sent[..sent.len() - 5],
            ),
        ),
        (WAN, broken),
        (
            WAN,
            icmp_error(
                router,
                &outside_ip,
                expired.0,
                expired.1,
                &quote(&udp(outside, &server.replace("80", "81"))),
            ),
        ),
        (
            RED,
            icmp_error(&inside_ip, &server_ip, unreachable.0, unreachable.1, &got),
        ),
    ]
}

/// A datagram in three parts each way, the second in the worst order.
fn parts(client: &str, server: &str, outside: &str) -> Vec<(u16, Vec<u8>)> {
    let there = fragments(&sized(client, server, 64, 1600), 77, 600);
    let back = fragments(&sized(server, outside, 64, 1600), 78, 600);
    let there = there.into_iter().map(|part| (RED, part));
    let back = back.into_iter().rev().map(|part| (WAN, part));
    there.chain(back).collect()
}

fn without_sum(mut frame: Vec<u8>) -> Vec<u8> {
    frame[40..42].fill(0);
    frame
}

pub fn cases() -> Vec<Case> {
    let mut all = masquerades();
    all.extend(others());
    all.extend(about_packets());
    all
}

fn masquerades() -> Vec<Case> {
    vec![
        Case {
            name: "masquerade-tcp4",
            about: "RFC 5382: source and checksums, both ways; nobody else gets in.",
            change: unchanged,
            frames: || tcp_life(CLIENT, SERVER, OUTSIDE, "192.0.2.81:80"),
        },
        Case {
            name: "masquerade-tcp6",
            about: "The same over IPv6, whose header has no checksum.",
            change: unchanged,
            frames: || tcp_life(CLIENT6, SERVER6, OUTSIDE6, "[2001:db8:ffff::2]:80"),
        },
        Case {
            name: "masquerade-udp4",
            about: "RFC 4787 REQ-1: one outside port for all destinations; REQ-8 (c): filtered by \
                    address and port.",
            change: unchanged,
            frames: || {
                vec![
                    (RED, udp(CLIENT, SERVER)),
                    (WAN, udp(SERVER, OUTSIDE)),
                    (RED, udp(CLIENT, "192.0.2.81:53")),
                    (WAN, udp("192.0.2.81:53", OUTSIDE)),
                    (WAN, udp("192.0.2.82:53", OUTSIDE)),
                    // The pool's only port is taken.
                    (RED, udp("10.0.0.2:1235", SERVER)),
                ]
            },
        },
        Case {
            name: "masquerade-udp6",
            about: "The same over IPv6, where a UDP checksum is a must (RFC 8200 section 8.1).",
            change: unchanged,
            frames: || vec![(RED, udp(CLIENT6, SERVER6)), (WAN, udp(SERVER6, OUTSIDE6))],
        },
        Case {
            name: "masquerade-icmp4",
            about: "RFC 5508 REQ-1: the identifier is the port.",
            change: unchanged,
            frames: || {
                vec![
                    (RED, echo("10.0.0.2", "192.0.2.80", 7, true)),
                    (WAN, echo("192.0.2.80", "203.0.113.10", 5000, false)),
                    // A request from outside is no reply.
                    (WAN, echo("192.0.2.80", "203.0.113.10", 5000, true)),
                ]
            },
        },
        Case {
            name: "masquerade-icmp6",
            about: "The same; ICMPv6's checksum has the addresses in it (RFC 4443 section 2.3).",
            change: unchanged,
            frames: || {
                vec![
                    (RED, echo("2001:db8:1::2", "2001:db8:ffff::1", 7, true)),
                    (WAN, echo("2001:db8:ffff::1", "2001:db8:9::10", 5000, false)),
                ]
            },
        },
    ]
}

fn others() -> Vec<Case> {
    vec![
        Case {
            name: "static",
            about: "One inside address is one outside address, ports as they are, from both sides.",
            change: unchanged,
            frames: || {
                vec![
                    (RED, tcp("10.0.0.3:1234", SERVER, "S")),
                    (WAN, tcp(SERVER, "203.0.113.30:1234", "SA")),
                    (WAN, udp("192.0.2.81:9", "203.0.113.30:53")),
                    (RED, udp("10.0.0.3:53", "192.0.2.81:9")),
                    (WAN, echo("192.0.2.81", "203.0.113.30", 3, true)),
                    (RED, echo("10.0.0.3", "192.0.2.81", 3, false)),
                ]
            },
        },
        Case {
            name: "port-forward-range",
            about: "203.0.113.10:8080-8089 is 10.0.0.2:80-89, port for port; 8090 is not.",
            change: unchanged,
            frames: || {
                vec![
                    (WAN, tcp("192.0.2.81:9", "203.0.113.10:8080", "S")),
                    (RED, tcp("10.0.0.2:80", "192.0.2.81:9", "SA")),
                    (WAN, tcp("192.0.2.81:9", "203.0.113.10:8089", "S")),
                    (RED, tcp("10.0.0.2:89", "192.0.2.81:9", "SA")),
                    (WAN, tcp("192.0.2.81:9", "203.0.113.10:8090", "S")),
                    (WAN, udp("192.0.2.81:9", "203.0.113.10:8080")),
                ]
            },
        },
        Case {
            name: "hairpin",
            about: "RFC 4787 REQ-9, RFC 5382 REQ-8: by outside addresses, between inside hosts.",
            change: unchanged,
            frames: || {
                vec![
                    (RED, tcp("10.0.0.3:1234", "203.0.113.10:8080", "S")),
                    (RED, tcp("10.0.0.2:80", "203.0.113.30:1234", "SA")),
                    (RED, tcp("10.0.0.3:1234", "203.0.113.10:8080", "A")),
                    (BLUE, udp("10.0.0.2:7", "203.0.113.30:53")),
                    (RED, udp("10.0.0.3:53", OUTSIDE)),
                ]
            },
        },
        Case {
            name: "between-vpcs",
            about: "Red and blue have the same addresses and see each other as 10.99 and 10.98. \
                    Without a rule there is no way across.",
            change: |policy| {
                let same = StaticMethod::SamePosition;
                policy.static_nat = vec![
                    static_nat(BLUE, RED, "10.0.0.0/24", "10.99.0.0/24", same),
                    static_nat(RED, BLUE, "10.0.0.0/24", "10.98.0.0/24", same),
                ];
            },
            frames: || {
                vec![
                    (RED, tcp(CLIENT, "10.99.0.3:80", "S")),
                    (BLUE, tcp("10.0.0.3:80", "10.98.0.2:1234", "SA")),
                    (BLUE, udp("10.0.0.3:7", "10.98.0.2:9")),
                    (RED, udp("10.0.0.2:9", "10.99.0.3:7")),
                    (PLAIN, udp("10.4.0.2:9", "10.99.0.3:7")),
                ]
            },
        },
        Case {
            name: "nptv6",
            about: "RFC 6296: fd01:203:405::/48 is 2001:db8:1::/48; checksums stay valid untouched.",
            change: |policy| {
                policy.static_nat = vec![static_nat(
                    RED,
                    WAN,
                    "fd01:203:405::/48",
                    "2001:db8:1::/48",
                    StaticMethod::Nptv6,
                )];
            },
            frames: || {
                vec![
                    (RED, udp("[fd01:203:405:1::1234]:5", SERVER6)),
                    // The RFC's own example (section 4).
                    (WAN, udp(SERVER6, "[2001:db8:1:d550::1234]:5")),
                    (
                        WAN,
                        tcp("[2001:db8:ffff::1]:9", "[2001:db8:1:d550::1234]:80", "S"),
                    ),
                    (
                        RED,
                        tcp("[fd01:203:405:1::1234]:80", "[2001:db8:ffff::1]:9", "SA"),
                    ),
                ]
            },
        },
    ]
}

fn about_packets() -> Vec<Case> {
    vec![
        Case {
            name: "icmp-errors4",
            about: "RFC 5508 REQ-3 to REQ-5, REQ-7: to the inside about its own packet; from the \
                    inside without showing it; none without a connection or with a wrong checksum.",
            change: unchanged,
            frames: || errors(CLIENT, SERVER, OUTSIDE),
        },
        Case {
            name: "icmp-errors6",
            about: "The same over IPv6.",
            change: unchanged,
            frames: || errors(CLIENT6, SERVER6, OUTSIDE6),
        },
        Case {
            name: "fragments4",
            about: "RFC 4787 REQ-14: by the first one's ports, in any order.",
            change: unchanged,
            frames: || parts(CLIENT, SERVER, OUTSIDE),
        },
        Case {
            name: "fragments6",
            about: "The same, with the fragment header of RFC 8200 section 4.5.",
            change: unchanged,
            frames: || parts(CLIENT6, SERVER6, OUTSIDE6),
        },
        Case {
            name: "udp-without-checksum",
            about: "RFC 768: none stays none.",
            change: unchanged,
            frames: || {
                vec![
                    (RED, without_sum(udp(CLIENT, SERVER))),
                    (WAN, without_sum(udp(SERVER, OUTSIDE))),
                ]
            },
        },
        Case {
            name: "ttl",
            about: "RFC 1812 section 5.3.1, RFC 4443 section 3.3: one hop, and an error at the last.",
            change: unchanged,
            frames: || {
                vec![
                    (RED, sized(CLIENT, SERVER, 2, 10)),
                    (WAN, sized(SERVER, OUTSIDE, 1, 10)),
                    (RED, sized(CLIENT, SERVER, 1, 10)),
                    (RED, sized(CLIENT6, SERVER6, 1, 10)),
                    // Never about an error.
                    (RED, icmp_error_ttl()),
                ]
            },
        },
        Case {
            name: "too-big",
            about: "RFC 1191, RFC 8201: the MTU is told; RFC 791: what may be cut is cut.",
            change: unchanged,
            frames: || {
                let mut cut = sized(CLIENT, SERVER, 64, 1473);
                cut[20] = 0;
                cut[24..26].fill(0);
                let sum = shunt_slowpath::packet::checksum::of(&cut[14..34]);
                cut[24..26].copy_from_slice(&sum.to_be_bytes());
                vec![
                    (RED, sized(CLIENT, SERVER, 64, 1472)),
                    (RED, sized(CLIENT, SERVER, 64, 1473)),
                    (RED, sized(CLIENT6, SERVER6, 64, 1453)),
                    (RED, cut),
                ]
            },
        },
    ]
}

/// An error that would run out of hops.
fn icmp_error_ttl() -> Vec<u8> {
    let (server, client): (SocketAddr, SocketAddr) = (sock(SERVER), sock(CLIENT));
    let got = quote(&udp(SERVER, CLIENT));
    let mut frame = icmp_error(
        &client.ip().to_string(),
        &server.ip().to_string(),
        3,
        3,
        &got,
    );
    frame[22] = 1;
    frame[24..26].fill(0);
    let sum = shunt_slowpath::packet::checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}
