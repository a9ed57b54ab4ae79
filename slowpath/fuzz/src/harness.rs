//! What the fuzz targets run, and `make test` with their corpora: the worker of the tests, driven
//! by bytes, with what has to hold checked after every step.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod input;
mod seeds;
mod walk;

use std::net::SocketAddr;

use common::*;
use input::Input;
use shunt_p4::Tuple;
use shunt_p4::frame::{ENCAP_LEN, ShuntHeader};
use shunt_slowpath::packet::{Packet, Transport, VecBuf, checksum, rewrite};
use shunt_slowpath::worker::Verdict;

pub use seeds::seeds;
pub use walk::walk;

const ETHERNET: usize = 14;

/// Any bytes as a frame: what is read lies within, and a rewrite is undone by its inverse.
pub fn parser(data: &[u8]) {
    let _ = ShuntHeader::parse(data);
    for l3 in [0, ETHERNET, data.len() / 2] {
        for v6 in [false, true] {
            if let Ok(packet) = Packet::parse_quoted(data, l3, v6) {
                within(&packet, data);
            }
        }
    }
    let Ok(packet) = Packet::parse(data) else {
        return;
    };
    within(&packet, data);
    let mut frame = data.to_vec();
    assert!(packet.ttl == 0 || rewrite::decrement_ttl(&mut frame, &packet).is_some());
    let Some(from) = packet.tuple() else { return };
    // Ports as an echo has them: an identifier, and 0.
    let swap = |port: u16| if port == 0 { 0 } else { port ^ 0x5555 };
    let other = if from.src.is_ipv4() {
        "198.51.100.7"
    } else {
        "2001:db8:77::7"
    };
    let to = Tuple {
        src: ip(other),
        src_port: swap(from.src_port),
        dst_port: swap(from.dst_port),
        ..from
    };
    let mut frame = data.to_vec();
    if rewrite::translate(&mut frame, &packet, &from, &to).is_none() {
        return;
    }
    let seen = Packet::parse(&frame).expect("it can still be read");
    if from.src_port != 0x5555 && from.dst_port != 0x5555 {
        assert_eq!(seen.tuple(), Some(to));
    }
    rewrite::translate(&mut frame, &seen, &to, &from).expect("back again");
    // One of the two zeros of a checksum may have become the other.
    let differ = frame.iter().zip(data).filter(|(a, b)| a != b).count();
    assert!(differ <= 4, "{differ} bytes differ");
}

fn within(packet: &Packet, data: &[u8]) {
    assert!(packet.l3 <= packet.l4 && packet.l4 <= packet.end && packet.end <= data.len());
    assert_eq!(packet.len(), packet.end - packet.l3);
    assert_eq!(packet.src.is_ipv4(), packet.dst.is_ipv4());
    if packet.tuple().is_some() {
        assert!(packet.end - packet.l4 >= 4 || packet.is_fragment());
    }
}

/// An ICMP error that quotes any bytes, its own checksum right, from either side of two live
/// connections. What is translated has a right checksum, and about a connection's own packet.
pub fn icmp(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    let (client, server) = ("10.0.0.2:1234", "192.0.2.80:80");
    let (client6, server6) = ("[2001:db8:1::2]:1234", "[2001:db8:ffff::1]:80");
    let outside = world.forwarded(RED, &udp(client, server)).src;
    let outside6 = world.forwarded(RED, &tcp(client6, server6, "S")).src;
    let how = input.byte();
    let (v6, inside) = (how & 1 == 1, how & 2 == 2);
    let (from, to, quoted) = match (v6, inside) {
        (false, false) => (
            sock("203.0.113.2:0"),
            outside,
            udp(&outside.to_string(), server),
        ),
        (false, true) => (sock(client), sock(server), udp(server, client)),
        (true, false) => (
            sock("[2001:db8:9::2]:0"),
            outside6,
            tcp(&outside6.to_string(), server6, "S"),
        ),
        (true, true) => (sock(client6), sock(server6), tcp(server6, client6, "SA")),
    };
    let (kind, code) = (input.byte(), input.byte());
    let mut quoted = quoted[ETHERNET..].to_vec();
    if how & 4 == 4 {
        // The right packet, damaged and cut or made longer.
        for _ in 0..input.byte() % 8 {
            let at = usize::from(input.byte()) % quoted.len();
            quoted[at] = input.byte();
        }
        let len = usize::from(input.byte());
        quoted.resize(len.clamp(1, 200), 0xee);
    } else if how & 8 == 8 {
        quoted = input.rest().to_vec();
    }
    let frame = icmp_error(
        &from.ip().to_string(),
        &to.ip().to_string(),
        kind,
        code,
        &quoted,
    );
    let (verdict, out) = world.frame(if inside { RED } else { WAN }, &frame);
    if verdict != Verdict::Transmit {
        return;
    }
    let frame = &out[ENCAP_LEN..];
    let packet = Packet::parse(frame).expect("what leaves can be read");
    if packet.transport == Transport::IcmpError {
        assert_eq!(rewrite::icmp_checksum(frame, &packet), Some(0));
        let inner = Packet::parse_quoted(&frame[..packet.end], packet.l4 + 8, v6).unwrap();
        let inner = inner.tuple().expect("it had a tuple, and has one");
        let known = [sock(client), sock(client6), outside, outside6];
        assert!(
            known.contains(&SocketAddr::new(inner.src, inner.src_port))
                || known.contains(&SocketAddr::new(inner.dst, inner.dst_port))
        );
    }
}

/// Fragments of a few packets in any order, overlapping, cut, with time between: each leaves,
/// is dropped and counted, or waits; and after the time-out none waits.
pub fn fragments(data: &[u8]) {
    const SOURCES: [&str; 2] = ["10.0.0.2:1000", "[2001:db8:1::2]:1000"];
    const TARGETS: [&str; 2] = ["192.0.2.80:53", "[2001:db8:ffff::1]:53"];
    let mut input = Input::new(data);
    let mut policy = policy();
    policy.offload.enabled = false;
    let mut world = World::with(policy, 64, 64);
    let (mut arrived, mut left, mut held) = (0u64, 0u64, 0u64);
    while let Some(op) = input.next() {
        if op & 0x80 != 0 {
            left += world.pass(u64::from(op & 0x7f) * SECOND / 4).len() as u64;
            continue;
        }
        let v6 = usize::from(op & 1);
        let whole = udp_with(sock(SOURCES[v6]), sock(TARGETS[v6]), 64, &[7; 900]);
        let id = u32::from(op >> 1 & 3);
        let parts = common::fragment::fragments(&whole, id, 304);
        let mut frame = parts[usize::from(op >> 3) % parts.len()].clone();
        // Damage behind the fields that say whose fragment it is.
        if op & 0x40 != 0 {
            let at = ETHERNET + if v6 == 1 { 40 } else { 20 } + usize::from(input.byte() % 32);
            frame[at] = input.byte();
            frame.truncate(usize::from(input.byte()).max(60).min(frame.len()));
        }
        arrived += 1;
        match world
            .frame(if op & 0x20 != 0 { BLUE } else { RED }, &frame)
            .0
        {
            Verdict::Transmit => left += 1,
            Verdict::Held => held += 1,
            Verdict::Drop(_) | Verdict::Answered(_) | Verdict::Exception => {}
            Verdict::Handover(worker) | Verdict::Hairpin(worker) => {
                panic!("there is no worker {worker}")
            }
        }
    }
    left += world.pass(40 * SECOND).len() as u64;
    let stats = world.worker.stats();
    let dropped: u64 = shunt_slowpath::DropReason::ALL
        .iter()
        .map(|reason| stats.dropped(*reason))
        .sum();
    let kernel = stats.exceptions_up.packets;
    assert_eq!(arrived, left + dropped + kernel, "{held} were held");
}

/// A frame's IPv4 header checksum put right.
fn fix_header(frame: &mut [u8]) {
    if frame.len() >= 34 && frame[12..14] == [8, 0] {
        frame[24..26].fill(0);
        let len = usize::from(frame[14] & 0xf) * 4;
        if let Some(header) = frame.get(14..14 + len) {
            let sum = checksum::of(header);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// What the worker makes of a frame has to be what a trace says.
fn traced(world: &mut World, framed: &[u8]) -> (Verdict, Vec<u8>) {
    let told = world.worker.trace(world.now, framed);
    let mut buffer = VecBuf::from(framed.to_vec());
    let verdict = world.worker.process(world.now, &mut buffer);
    let unlucky = Verdict::Drop(shunt_slowpath::DropReason::TupleInUse);
    if !(told.any_port && verdict == unlucky) {
        assert_eq!(told.verdict, verdict, "{:#?}", told.steps);
    }
    (verdict, buffer.into_vec())
}
