//! Fragments: translated one by one, by the ports of the first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use common::cluster::Cluster;
use common::fragment::fragments;
use common::*;
use proptest::prelude::*;
use proptest::sample::Index;
use shunt_p4::frame::ENCAP_LEN;
use shunt_slowpath::DropReason;
use shunt_slowpath::worker::{MAX_FRAGMENTED, MAX_HELD_PER_PACKET, Verdict};

const SERVER: &str = "192.0.2.80:53";
const SERVER6: &str = "[2001:db8:ffff::1]:53";

/// Puts fragments together again, in any order; the frame of the whole packet.
fn whole(frames: &[Vec<u8>]) -> Vec<u8> {
    let v6 = frames[0][12] == 0x86;
    let mut parts: Vec<(u16, &[u8], &[u8])> = frames
        .iter()
        .map(|frame| match v6 {
            true => {
                let field = u16::from_be_bytes([frame[56], frame[57]]);
                (field >> 3, &frame[..54], &frame[62..])
            }
            false => {
                let field = u16::from_be_bytes([frame[20], frame[21]]);
                (field & 0x1fff, &frame[..34], &frame[34..])
            }
        })
        .collect();
    parts.sort_by_key(|(offset, _, _)| *offset);
    let payload: Vec<u8> = parts
        .iter()
        .flat_map(|(_, _, part)| part.to_vec())
        .collect();
    let mut head = parts[0].1.to_vec();
    if v6 {
        head[20] = frames[0][54];
        head[18..20].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    } else {
        // Addresses are all that differs: the sum has to be right before and after.
        for (_, head, _) in &parts {
            assert_eq!(shunt_slowpath::packet::checksum::of(&head[14..34]), 0);
        }
        head[16..18].copy_from_slice(&(payload.len() as u16 + 20).to_be_bytes());
        head[20..22].fill(0);
        head[24..26].fill(0);
        let checksum = shunt_slowpath::packet::checksum::of(&head[14..34]);
        head[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
    [head, payload].concat()
}

/// Sends frames and says what leaves, at once or at the next poll.
fn through(world: &mut World, interface: u16, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for frame in frames {
        let (verdict, sent) = world.frame(interface, frame);
        if verdict.is_transmit() {
            out.push(sent);
        }
        out.extend(world.pass(0));
    }
    out.iter().map(|sent| sent[ENCAP_LEN..].to_vec()).collect()
}

fn big(src: &str, dst: &str) -> (Vec<u8>, Vec<u8>) {
    let payload: Vec<u8> = (0..3000u32).map(|n| (n * 7) as u8).collect();
    (udp_with(sock(src), sock(dst), 64, &payload), payload)
}

#[test]
fn both_ways_in_any_order_and_both_families() {
    for (client, server) in [("10.0.0.2:1234", SERVER), ("[2001:db8:1::2]:1234", SERVER6)] {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
            let mut world = World::new();
            let (frame, payload) = big(client, server);
            let parts = fragments(&frame, 77, 1400);
            let parts = order.map(|n| parts[n].clone());
            let sent = through(&mut world, RED, &parts);
            assert_eq!(sent.len(), 3, "{client} {order:?}");
            let seen = Seen::inner(&whole(&sent));
            assert_eq!((seen.dst, seen.ttl), (sock(server), 63));
            assert_eq!(seen.payload, payload);
            let flow = world.flows()[0];
            assert_eq!(seen.src.port(), flow.reply.tuple.dst_port);

            let (frame, payload) = big(server, &seen.src.to_string());
            let parts = fragments(&frame, 78, 1400);
            let parts = order.map(|n| parts[n].clone());
            let sent = through(&mut world, WAN, &parts);
            assert_eq!(sent.len(), 3);
            let seen = Seen::inner(&whole(&sent));
            assert_eq!((seen.src, seen.dst), (sock(server), sock(client)));
            assert_eq!(seen.payload, payload);
            assert_eq!(world.flows().len(), 1);
            assert_eq!(world.flows()[0].reply.packets, 3);
        }
    }
}

#[test]
fn a_big_ping_and_its_answer() {
    let mut world = World::new();
    let mut frame = Vec::new();
    let payload = vec![7; 2500];
    etherparse::PacketBuilder::ethernet2(host_mac(ip("10.0.0.2")).0, [2, 0, 0, 0, 0xff, 0])
        .ipv4([10, 0, 0, 2], [192, 0, 2, 80], 64)
        .icmpv4_echo_request(9, 1)
        .write(&mut frame, &payload)
        .unwrap();
    let sent = through(&mut world, RED, &fragments(&frame, 5, 1400));
    let seen = Seen::inner(&whole(&sent));
    assert_eq!(seen.payload, payload);
    assert_eq!(seen.src.ip(), ip("203.0.113.10"));
}

#[test]
fn later_fragments_share_the_first_one_s_fate() {
    let mut world = World::new();
    // A segment of a translated connection that is not known.
    let frame = tcp_with(sock("10.0.0.2:1234"), sock(SERVER), "A", 64, &[1; 2000]);
    let parts = fragments(&frame, 1, 1000);
    let drop = |reason| Verdict::Drop(reason);
    assert_eq!(
        world.verdict(RED, &parts[0]),
        drop(DropReason::NoConnection)
    );
    assert_eq!(world.verdict(RED, &parts[1]), drop(DropReason::Fragment));
    // Nobody asked for it: as with a whole packet to the pool's address, the kernel says so.
    let (frame, _) = big(SERVER, "203.0.113.10:5");
    let parts = fragments(&frame, 1, 1400);
    assert_eq!(world.verdict(WAN, &parts[1]), Verdict::Held);
    assert_eq!(world.verdict(WAN, &parts[0]), Verdict::Exception);
    world.pass(0);
    assert_eq!(world.verdict(WAN, &parts[2]), Verdict::Exception);
    // For the gateway itself: the kernel puts it together, and needs all of it.
    let (frame, _) = big("10.0.0.2:5", "10.0.0.1:6");
    for part in fragments(&frame, 2, 1400).iter().rev() {
        assert_eq!(world.verdict(RED, part), Verdict::Exception);
    }
    // Without state, routes alone tell.
    let (frame, _) = big("10.4.0.9:5", "10.4.0.2:6");
    for part in fragments(&frame, 3, 1400).iter().rev() {
        assert_eq!(world.verdict(PLAIN, part), Verdict::Transmit);
    }
}

#[test]
fn the_same_identification_of_others_is_another_packet() {
    let mut world = World::new();
    let (red, _) = big("10.0.0.2:1234", SERVER);
    world.forwarded_part(RED, &fragments(&red, 7, 1400)[0]);
    // The same addresses and number in another VPC, other hosts, another number, long after.
    let parts = fragments(&red, 7, 1400);
    assert_eq!(world.verdict(BLUE, &parts[1]), Verdict::Held);
    let (other, _) = big("10.0.0.3:1234", SERVER);
    assert_eq!(
        world.verdict(RED, &fragments(&other, 7, 1400)[1]),
        Verdict::Held
    );
    assert_eq!(
        world.verdict(RED, &fragments(&red, 8, 1400)[1]),
        Verdict::Held
    );
    assert_eq!(world.verdict(RED, &parts[1]), Verdict::Transmit);
    world.pass(31 * SECOND);
    let lost = DropReason::FragmentTimeout;
    assert_eq!(world.worker.stats().dropped(lost), 3);
    assert_eq!(world.worker.stats().dropped_in(vpc(BLUE), lost), 1);
    assert_eq!(world.verdict(RED, &parts[2]), Verdict::Held);
}

/// An identification is used again after 65,536 packets, perhaps before the time-out.
#[test]
fn an_identification_that_is_used_again_has_its_own_time() {
    let mut world = World::new();
    let (first, _) = big("10.0.0.2:1234", SERVER);
    world.forwarded_part(RED, &fragments(&first, 7, 1400)[0]);
    world.pass(29 * SECOND);
    let (second, _) = big("10.0.0.2:1235", SERVER);
    let parts = fragments(&second, 7, 1400);
    world.forwarded_part(RED, &parts[0]);
    world.pass(2 * SECOND);
    // By the first one's time it would be forgotten by now.
    assert_eq!(world.verdict(RED, &parts[1]), Verdict::Transmit);
    world.pass(29 * SECOND);
    assert_eq!(world.verdict(RED, &parts[2]), Verdict::Held);
}

/// However often a first fragment comes, it costs no more than another one.
#[test]
fn the_same_first_fragment_again_and_again_is_bounded() {
    let mut world = World::new();
    let (frame, _) = big("10.0.0.2:1234", SERVER);
    let parts = fragments(&frame, 7, 1400);
    for _ in 0..3 * MAX_FRAGMENTED {
        world.verdict(RED, &parts[0]);
    }
    assert_eq!(world.verdict(RED, &parts[1]), Verdict::Transmit);
    world.pass(31 * SECOND);
    assert_eq!(world.verdict(RED, &parts[1]), Verdict::Held);
}

#[test]
fn what_waits_is_bounded() {
    let mut world = World::new();
    let (frame, _) = big("10.0.0.2:1234", SERVER);
    let part = &fragments(&frame, 1, 8)[1];
    for _ in 0..MAX_HELD_PER_PACKET {
        assert_eq!(world.verdict(RED, part), Verdict::Held);
    }
    assert_eq!(
        world.verdict(RED, part),
        Verdict::Drop(DropReason::Fragment)
    );
    // As many first fragments as there is room for, and one more: the oldest is forgotten, what
    // waits for it is lost.
    for n in 0..MAX_FRAGMENTED as u32 {
        world.verdict(RED, &fragments(&frame, 100 + n, 1400)[0]);
    }
    world.pass(0);
    let lost = world.worker.stats().dropped(DropReason::FragmentTimeout);
    assert_eq!(lost, MAX_HELD_PER_PACKET as u64);
    assert_eq!(
        world.verdict(RED, &fragments(&frame, 100, 1400)[1]),
        Verdict::Transmit
    );
    assert_eq!(
        world.verdict(RED, &fragments(&frame, 1, 1400)[1]),
        Verdict::Held
    );
}

#[test]
fn hostile_fragments_are_dropped() {
    let mut world = World::new();
    let client: SocketAddr = sock("10.0.0.2:1234");
    let frame = tcp_with(client, sock(SERVER), "S", 64, &[0; 100]);
    let parts = fragments(&frame, 1, 8);
    // A first fragment without the flags (RFC 1858), a second that would overwrite them (RFC 3128).
    assert_eq!(
        world.verdict(RED, &parts[0]),
        Verdict::Drop(DropReason::Truncated)
    );
    assert_eq!(
        world.verdict(RED, &parts[1]),
        Verdict::Drop(DropReason::Malformed)
    );
    // An ICMP error in parts: its checksum cannot be checked.
    let quoted = udp("203.0.113.10:9", SERVER);
    let error = icmp_error(
        "192.0.2.80",
        "203.0.113.10",
        3,
        1,
        &[&quoted[14..], &[0; 64]].concat(),
    );
    let drop = Verdict::Drop(DropReason::Fragment);
    assert_eq!(world.verdict(WAN, &fragments(&error, 2, 64)[0]), drop);
}

/// Segments in fragments do not say how long they are: tracking has to do without.
#[test]
fn tcp_in_fragments_keeps_its_connection() {
    let mut world = World::new();
    let outside = world.open_tcp("10.0.0.2:1234", SERVER);
    let frame = tcp_with(sock("10.0.0.2:1234"), sock(SERVER), "A", 64, &[1; 2000]);
    let sent = through(&mut world, RED, &fragments(&frame, 3, 1000));
    assert_eq!(sent.len(), 3);
    let end = tcp_with(sock(SERVER), outside, "R", 64, b"");
    world.forwarded(WAN, &end);
    assert_eq!(world.flows()[0].state, shunt_slowpath::State::Closed);
}

/// The same packet, but whoever has to may cut it.
fn loose(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] = 0;
    frame[24..26].fill(0);
    let checksum = shunt_slowpath::packet::checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The wan's way out takes 1,500 bytes; packets may be larger where both links do.
fn narrow(world: &mut World, mtu: u16) {
    let ops = network().into_iter().filter_map(|op| match op {
        shunt_p4::NetworkOp::SetInterface(mut interface) if interface.id == interface_id(WAN) => {
            interface.mtu = mtu;
            Some(shunt_p4::NetworkOp::SetInterface(interface))
        }
        _ => None,
    });
    world.fib.apply(ops.collect::<Vec<_>>());
    world.fib.publish();
}

#[test]
fn what_is_too_big_and_may_be_cut_is_cut() {
    for mtu in [68, 576, 1007, 1499] {
        let mut world = World::new();
        narrow(&mut world, mtu);
        let (frame, payload) = big("10.0.0.2:1234", SERVER);
        let sent = through(&mut world, RED, &[loose(frame)]);
        let part = usize::from(mtu - 20) / 8 * 8;
        assert_eq!(sent.len(), (payload.len() + 8).div_ceil(part), "{mtu}");
        assert!(
            sent.iter()
                .all(|frame| frame.len() - 14 <= usize::from(mtu))
        );
        let seen = Seen::inner(&whole(&sent));
        assert_eq!((seen.dst, seen.ttl), (sock(SERVER), 63));
        assert_eq!(seen.payload, payload);
        assert_eq!(world.worker.stats().cut, 1);
    }
}

#[test]
fn fragments_are_cut_again() {
    let mut world = World::new();
    narrow(&mut world, 700);
    let (frame, payload) = big("10.0.0.2:1234", SERVER);
    let sent = through(&mut world, RED, &fragments(&frame, 77, 1400));
    assert_eq!(Seen::inner(&whole(&sent)).payload, payload);
    // Offsets go on where the fragment lay, and only the very last one is the last.
    let last = sent.iter().filter(|frame| frame[20] & 0x20 == 0).count();
    assert_eq!(last, 1);
}

#[test]
fn what_may_not_be_cut_is_answered_or_dropped() {
    let mut world = World::new();
    narrow(&mut world, 700);
    let (frame, _) = big("[2001:db8:1::2]:1234", SERVER6);
    let verdict = world.verdict(RED, &frame);
    assert_eq!(verdict, Verdict::Answered(DropReason::TooBig));
    let (frame, _) = big("10.0.0.2:1234", SERVER);
    let verdict = world.verdict(RED, &frame);
    assert_eq!(verdict, Verdict::Answered(DropReason::TooBig));
    // Which of its options go into which fragment is not worth knowing.
    let mut frame = loose(frame);
    frame.splice(34..34, [1, 1, 1, 1]);
    frame[14] = 0x46;
    let len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[24..26].fill(0);
    let checksum = shunt_slowpath::packet::checksum::of(&frame[14..38]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    let verdict = world.verdict(RED, &frame);
    assert_eq!(verdict, Verdict::Drop(DropReason::NeedsFragmentation));
}

#[test]
fn fragments_wait_for_a_neighbour_together() {
    let mut world = World::new();
    let frame = udp_with(
        sock("10.0.0.2:1234"),
        sock("203.0.113.77:5"),
        64,
        &[7; 3000],
    );
    let frame = loose(frame);
    let address = ip("203.0.113.2");
    let gone = shunt_p4::NetworkOp::RemoveNeighbor(interface_id(WAN), address);
    world.fib.apply([gone]);
    world.fib.publish();
    assert_eq!(world.verdict(RED, &frame), Verdict::Held);
    let neighbor = shunt_p4::NetworkOp::SetNeighbor(interface_id(WAN), address, host_mac(address));
    world.fib.apply([neighbor]);
    world.fib.publish();
    let sent = world.pass(0);
    let sent: Vec<_> = sent
        .iter()
        .map(|frame| frame[ENCAP_LEN..].to_vec())
        .collect();
    assert_eq!(sent.len(), 3);
    assert_eq!(Seen::inner(&whole(&sent)).payload, [7; 3000]);
}

/// A fragment's identification, in frames of either family.
fn id_of(frame: &[u8]) -> u16 {
    let at = if frame[12] == 0x86 { 60 } else { 18 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// What left, packet by packet, its fragments in the order of their offsets.
fn by_packet(sent: Vec<Vec<u8>>) -> BTreeMap<u16, (usize, Seen)> {
    let mut packets: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
    for frame in sent {
        let frame = frame[ENCAP_LEN..].to_vec();
        packets.entry(id_of(&frame)).or_default().push(frame);
    }
    let seen = |parts: Vec<Vec<u8>>| (parts.len(), Seen::inner(&whole(&parts)));
    packets
        .into_iter()
        .map(|(id, parts)| (id, seen(parts)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// In any order, each at any worker, some polls in between: the same leave as with one.
    #[test]
    fn workers_find_the_parts_of_a_packet_together(
        packets in prop::collection::vec((0u8..5, 0u16..4), 1..8),
        order in prop::collection::vec((any::<Index>(), any::<Index>(), any::<bool>()), 32),
        count in 2u16..5,
    ) {
        let mut parts = Vec::new();
        for (n, (kind, port)) in (100u32..).zip(packets) {
            let client = 2000 + port;
            let (interface, src, dst) = match kind {
                0 => (RED, format!("10.0.0.2:{client}"), SERVER.to_owned()),
                1 => (BLUE, format!("10.0.0.2:{client}"), SERVER.to_owned()),
                2 => (RED, format!("[2001:db8:1::2]:{client}"), SERVER6.to_owned()),
                3 => (RED, format!("10.0.0.3:{client}"), SERVER.to_owned()),
                _ => (WAN, format!("192.0.2.9:{client}"), "203.0.113.30:7".to_owned()),
            };
            let (frame, _) = big(&src, &dst);
            parts.extend(fragments(&frame, n, 1400).into_iter().map(|part| (interface, part)));
        }
        let mut one = World::new();
        let mut many = Cluster::new(policy(), count);
        let (mut sent, mut sent2) = (Vec::new(), Vec::new());
        for (which, at, polls) in order.into_iter().cycle() {
            if parts.is_empty() { break }
            let (interface, part) = parts.remove(which.index(parts.len()));
            let (verdict, out) = one.frame(interface, &part);
            sent.extend(verdict.is_transmit().then_some(out));
            let (verdict, out) = many.frame(at.index(usize::from(count)), interface, &part);
            sent2.extend(verdict.is_transmit().then_some(out));
            if polls {
                sent.extend(one.pass(0));
                sent2.extend(many.pass(0));
            }
        }
        sent.extend(one.pass(0));
        sent2.extend(many.pass(0));
        let (sent, mut sent2) = (by_packet(sent), by_packet(sent2));
        // Ports of the pool are chosen by each for itself.
        let mut ports = std::collections::HashMap::new();
        for (id, (_, seen)) in &mut sent2 {
            if seen.src.port() >= 1024 && let Some((_, of_one)) = sent.get(id) {
                let known = *ports.entry(seen.src).or_insert(of_one.src);
                prop_assert_eq!(known, of_one.src);
                seen.src = of_one.src;
            }
        }
        prop_assert_eq!(sent2, sent);
        many.pass(31 * SECOND);
        for worker in &many.workers {
            prop_assert_eq!(worker.stats().dropped(DropReason::FragmentTimeout), 0);
        }
    }
}

/// They wait where they would have met, and go.
#[test]
fn fragments_whose_first_one_never_comes_leave_nothing_behind() {
    let mut many = Cluster::new(policy(), 3);
    for id in 0..20 {
        let (frame, _) = big("10.0.0.2:1234", SERVER);
        let parts = fragments(&frame, id, 1400);
        for part in &parts[1..] {
            assert_eq!(many.frame(id as usize % 3, RED, part).0, Verdict::Held);
        }
    }
    assert_eq!(many.pass(31 * SECOND).len(), 0);
    let timeouts = |many: &Cluster| -> u64 {
        let stats = many.workers.iter().map(|worker| worker.stats());
        stats
            .map(|stats| stats.dropped(DropReason::FragmentTimeout))
            .sum()
    };
    assert_eq!(timeouts(&many), 40);
}
