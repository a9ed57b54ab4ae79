//! Between hosts inside, by what NAT shows of them outside, where their connections are different
//! workers': the same packets leave as with one worker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;

use common::cluster::Cluster;
use common::fragment::fragments;
use common::*;
use proptest::prelude::*;
use proptest::sample::Index;
use shunt_p4::NetworkOp;
use shunt_p4::frame::ENCAP_LEN;
use shunt_slowpath::DropReason;
use shunt_slowpath::Policy;
use shunt_slowpath::policy::{Filtering, Limits};
use shunt_slowpath::worker::Verdict;

const SERVER: &str = "192.0.2.80:53";
const SERVER6: &str = "[2001:db8:ffff::1]:53";

/// One worker and several, which do the same; they choose outside ports each for themselves.
struct Both {
    one: World,
    many: Cluster,
    /// What one chose, by what many chose.
    ports: HashMap<SocketAddr, SocketAddr>,
}

impl Both {
    fn new(count: u16) -> Self {
        Self::with(policy(), count)
    }

    fn in_software(count: u16) -> Self {
        let mut policy = policy();
        policy.offload.enabled = false;
        Self::with(policy, count)
    }

    fn with(policy: Policy, count: u16) -> Self {
        Self {
            one: World::with(policy.clone(), 1024, 1024),
            many: Cluster::new(policy, count),
            ports: HashMap::new(),
        }
    }

    /// As one knows it.
    fn of_one(&self, address: SocketAddr) -> SocketAddr {
        self.ports.get(&address).copied().unwrap_or(address)
    }

    /// A packet of a host that arrives at a worker, `src` and `dst` as many workers have them;
    /// what leaves, as they have it.
    fn send(
        &mut self,
        at: usize,
        interface: u16,
        [src, dst]: [SocketAddr; 2],
        frame: impl Fn(SocketAddr, SocketAddr) -> Vec<u8>,
    ) -> Option<Seen> {
        let (verdict, out) = self.many.frame(at, interface, &frame(src, dst));
        let ours = frame(self.of_one(src), self.of_one(dst));
        let (wanted, out_of_one) = self.one.frame(interface, &ours);
        assert_eq!(verdict, wanted, "{src} to {dst} at {at}");
        if verdict != Verdict::Transmit {
            return None;
        }
        let (seen, of_one) = (Seen::new(&out), Seen::new(&out_of_one));
        // A mapping is made when it is first seen, and stays.
        let known = *self.ports.entry(seen.src).or_insert(of_one.src);
        assert_eq!(known, of_one.src, "{:?}", seen.src);
        let mut as_one = Seen {
            src: self.of_one(seen.src),
            dst: self.of_one(seen.dst),
            ..seen.clone()
        };
        if as_one.payload.starts_with(&[0x45]) || as_one.payload.starts_with(&[0x60]) {
            // Of an error: it quotes a port.
            as_one.payload.clone_from(&of_one.payload);
        }
        assert_eq!(as_one, of_one, "{src} to {dst}");
        Some(seen)
    }

    /// A host's socket, mapped.
    fn opened(&mut self, at: usize, interface: u16, host: SocketAddr, proto: u8) -> SocketAddr {
        let server = if host.is_ipv4() { SERVER } else { SERVER6 };
        let ends = [host, sock(server)];
        let seen = self.send(at, interface, ends, |src, dst| match proto {
            6 => tcp_with(src, dst, "S", 64, b""),
            _ => udp_with(src, dst, 64, b"hello"),
        });
        seen.expect("it leaves").src
    }
}

fn of(proto: u8, flags: &str, src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    match proto {
        6 => tcp_with(src, dst, flags, 64, b"data"),
        _ => udp_with(src, dst, 64, b"data"),
    }
}

#[derive(Clone, Debug)]
struct Talk {
    from: usize,
    to: usize,
    /// To a forwarded port, or the static address, or else to the other's mapping.
    which: u8,
    proto: u8,
    at: [Index; 4],
}

fn talk() -> impl Strategy<Value = Talk> {
    let who = (
        0..HOSTS.len(),
        0..HOSTS.len(),
        0u8..8,
        prop_oneof![Just(6u8), Just(17)],
    );
    (who, any::<[Index; 4]>()).prop_map(|((from, to, which, proto), at)| Talk {
        from,
        to,
        which,
        proto,
        at,
    })
}

/// red's, blue's, and the one with a static address.
const HOSTS: [(u16, &str); 9] = [
    (RED, "10.0.0.2:2000"),
    (RED, "10.0.0.2:2001"),
    (BLUE, "10.0.0.2:2000"),
    (BLUE, "10.0.0.2:2002"),
    (RED, "10.0.0.3:2000"),
    (RED, "10.0.0.2:80"),
    (RED, "[2001:db8:1::2]:2000"),
    (RED, "[2001:db8:1::2]:2001"),
    (BLUE, "[2001:db8:1::2]:2000"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn hosts_inside_reach_each_other_by_any_worker(
        talks in prop::collection::vec(talk(), 1..12),
        count in 1u16..4,
    ) {
        let mut both = Both::in_software(count);
        let workers = usize::from(count);
        for Talk { from, to, which, proto, at } in talks {
            let [(from_vpc, from), (to_vpc, to)] = [HOSTS[from], HOSTS[to]];
            let at = at.map(|at| at.index(workers));
            let (client, mut server, mut server_vpc) = (sock(from), sock(to), to_vpc);
            let outside = match which {
                _ if client.is_ipv4() != server.is_ipv4() => continue,
                2.. => both.opened(at[0], to_vpc, server, proto),
                _ if client.is_ipv6() => continue,
                0 => {
                    (server, server_vpc) = (sock("10.0.0.2:80"), RED);
                    if proto != 6 { continue }
                    sock("203.0.113.10:8080")
                }
                _ => {
                    (server, server_vpc) = (sock("10.0.0.3:2000"), RED);
                    sock("203.0.113.30:2000")
                }
            };
            if (client, from_vpc) == (server, server_vpc) { continue }
            let seen = both.send(at[1], from_vpc, [client, outside], |src, dst| of(proto, "S", src, dst));
            // Neither lets two connections of a socket lead to the same one by different addresses.
            let Some(seen) = seen else { continue };
            prop_assert_eq!((seen.interface, seen.dst, seen.ttl), (server_vpc, server, 63));
            let shown = ["203.0.113.10", "203.0.113.30", "2001:db8:9::10"].map(ip);
            prop_assert!(shown.contains(&seen.src.ip()));
            // It answers to what it saw.
            let back = both.send(at[2], server_vpc, [server, seen.src], |src, dst| of(proto, "SA", src, dst));
            let back = back.expect("a reply finds its connection");
            prop_assert_eq!((back.src, back.dst, back.ttl), (outside, client, 63));
            prop_assert_eq!(back.interface, from_vpc);
            // An error about what it got.
            let host = seen.dst.ip().to_string();
            let error = |src: SocketAddr, dst: SocketAddr| {
                let (kind, code) = if src.is_ipv4() { (3, 3) } else { (1, 4) };
                icmp_error(&host, &dst.ip().to_string(), kind, code, &of(proto, "S", dst, src)[14..])
            };
            both.send(at[3], server_vpc, [server, seen.src], error).expect("the error gets back");
            let more = both.send(at[0], from_vpc, [client, outside], |src, dst| of(proto, "A", src, dst));
            prop_assert_eq!(more.expect("and so on").src, seen.src);
        }
        for worker in &both.many.workers {
            for reason in DropReason::ALL {
                let dropped = worker.stats().dropped(*reason);
                let in_use = *reason == DropReason::TupleInUse;
                prop_assert!(dropped == 0 || in_use, "{}", reason.as_str());
            }
        }
        if count == 1 {
            prop_assert_eq!(both.many.hairpins, 0);
        }
        // All of it ends.
        both.many.pass(24 * HOUR);
        prop_assert_eq!(both.many.flows().len(), 0);
        let leased = both.many.workers.iter().flat_map(|worker| worker.pool_use());
        prop_assert_eq!(leased.map(|pool| pool.leased).sum::<u32>(), 0);
    }
}

/// Two sockets of different workers, and their outside ends.
fn apart(both: &mut Both) -> [(SocketAddr, SocketAddr); 2] {
    let first = (
        sock("10.0.0.2:2000"),
        both.opened(0, RED, sock("10.0.0.2:2000"), 17),
    );
    let owner = |address: SocketAddr| address.port() / 64 % 2;
    for port in 2001.. {
        let socket = SocketAddr::new(ip("10.0.0.2"), port);
        let second = (socket, both.opened(0, RED, socket, 17));
        if owner(second.1) != owner(first.1) {
            return [first, second];
        }
    }
    unreachable!()
}

#[test]
fn fragments_and_large_packets_go_the_same_way() {
    let mut both = Both::new(2);
    let [(client, _), (server, outside)] = apart(&mut both);
    let payload: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
    let whole = udp_with(client, outside, 64, &payload);
    for (id, order) in [(1, [0, 1, 2]), (2, [2, 1, 0]), (3, [1, 0, 2])] {
        let parts = fragments(&whole, id, 1400);
        let mut sent = 0;
        for n in order {
            let (verdict, out) = both.many.frame(n % 2, RED, &parts[n]);
            sent += usize::from(verdict.is_transmit());
            let later = both.many.pass(0);
            sent += later.len();
            for frame in later
                .into_iter()
                .chain(verdict.is_transmit().then_some(out))
            {
                let destination = &frame[ENCAP_LEN + 30..ENCAP_LEN + 34];
                assert_eq!(destination, [10, 0, 0, 2]);
                assert_eq!(frame[ENCAP_LEN + 22], 63, "counted once");
            }
        }
        assert_eq!(sent, 3, "{order:?}");
    }
    // Too big for where it goes, not for the wan: the sender hears of it by way of both.
    let red = network().into_iter().filter_map(|op| match op {
        NetworkOp::SetInterface(mut interface) if interface.id == interface_id(RED) => {
            interface.mtu = 1000;
            Some(NetworkOp::SetInterface(interface))
        }
        _ => None,
    });
    both.many.fib.apply(red.collect::<Vec<_>>());
    both.many.fib.publish();
    let large = udp_with(client, outside, 64, &[7; 1400]);
    let before = both.many.hairpins;
    let (verdict, out) = both.many.frame(0, RED, &large);
    assert_eq!(
        (verdict, both.many.hairpins),
        (Verdict::Transmit, before + 1)
    );
    let seen = Seen::new(&out);
    assert_eq!((seen.interface, seen.dst.ip()), (RED, client.ip()));
    assert_eq!(
        &out[ENCAP_LEN + 34..ENCAP_LEN + 36],
        [3, 4],
        "fragmentation needed"
    );
    assert_eq!(
        &out[ENCAP_LEN + 40..ENCAP_LEN + 42],
        [0x03, 0xe8],
        "1,000 bytes"
    );
    // What it quotes is what the client sent.
    let quoted = &out[ENCAP_LEN + 42..];
    assert_eq!(&quoted[12..16], [10, 0, 0, 2]);
    assert_eq!(quoted[20..22], client.port().to_be_bytes());
    assert_eq!(quoted[22..24], outside.port().to_be_bytes());
    let _ = server;
}

#[test]
fn halves_stay_in_software_and_are_counted() {
    let mut both = Both::new(2);
    let [(client, _), (server, outside)] = apart(&mut both);
    let there = |both: &mut Both| both.send(0, RED, [client, outside], |a, b| of(17, "", a, b));
    let seen = there(&mut both).unwrap();
    let answer = [server, seen.src];
    both.send(1, RED, answer, |a, b| of(17, "", a, b)).unwrap();
    there(&mut both).unwrap();
    let stats = |many: &Cluster, of: fn(&shunt_slowpath::stats::WorkerStats) -> u64| -> u64 {
        many.workers.iter().map(|worker| of(worker.stats())).sum()
    };
    assert_eq!(stats(&both.many, |stats| stats.offload_installs), 0);
    assert!(stats(&both.many, |stats| stats.offload_hairpin) >= 2);
    assert_eq!(stats(&both.many, |stats| stats.hairpinned), 3);
}

/// The other socket's port is leased, so it is there to be had by those inside; from outside only
/// if its masquerade is open. Nobody outside can say that it is inside.
#[test]
fn only_what_comes_from_inside_is_trusted() {
    let mut both = Both::new(2);
    let [(_, first), (_, second)] = apart(&mut both);
    let spoofed = udp_with(first, second, 64, b"x");
    for at in 0..2 {
        let (verdict, _) = both.many.frame(at, WAN, &spoofed);
        assert_eq!(
            verdict,
            Verdict::Exception,
            "as to any address of the gateway"
        );
    }
    // A switch's frame that bears the mark between workers is none.
    let mut marked = from_switch(WAN, &spoofed);
    marked[14] = 0xff;
    for at in 0..2 {
        let mut buffer = shunt_slowpath::packet::VecBuf::new(&marked);
        let verdict = both.many.workers[at].process(SECOND, &mut buffer);
        assert_eq!(verdict, Verdict::Drop(DropReason::ShuntHeader));
    }
}

/// Nobody has leased the port: what arrives there is for the gateway, as from anywhere.
#[test]
fn a_port_that_nobody_has_is_the_gateway_s() {
    let mut both = Both::new(2);
    let [(client, first), _] = apart(&mut both);
    let other = SocketAddr::new(first.ip(), (first.port() ^ 64) ^ 0x4000);
    let frame = udp_with(client, other, 64, b"x");
    assert_eq!(both.many.frame(0, RED, &frame).0, Verdict::Exception);
}

/// A connection between two workers stands as long as what made it, and counts once.
#[test]
fn changes_and_limits_take_both_halves_for_one() {
    let mut both = Both::new(2);
    let [(client, _), (server, outside)] = apart(&mut both);
    let flows = both.many.flows().len();
    let mut limited = policy();
    limited.limits = Limits {
        connections_per_source: Some(flows as u32 + 1),
        ..Limits::default()
    };
    both.many.fib.set_policy(limited.clone());
    both.many.fib.publish();
    both.many.pass(0);
    let frame = udp_with(client, outside, 64, b"x");
    let (verdict, out) = both.many.frame(0, RED, &frame);
    assert_eq!(verdict, Verdict::Transmit);
    assert_eq!(both.many.flows().len(), flows + 2);
    let seen = Seen::new(&out).src;
    // What changes nothing for it leaves it alone.
    limited.masquerades[1].filtering = Filtering::EndpointIndependent;
    both.many.fib.set_policy(limited.clone());
    both.many.fib.publish();
    both.many.pass(0);
    let answer = udp_with(server, seen, 64, b"y");
    assert_eq!(both.many.frame(1, RED, &answer).0, Verdict::Transmit);
    // The masquerade that it needs goes.
    limited.masquerades.remove(0);
    both.many.fib.set_policy(limited);
    both.many.fib.publish();
    both.many.pass(0);
    let left = both.many.flows();
    let red = left
        .iter()
        .filter(|(_, flow)| flow.reply.vpc == vpc(RED) || flow.forward.vpc == vpc(RED));
    assert_eq!(red.count(), 0, "{left:#?}");
}
