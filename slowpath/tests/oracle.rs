//! NAT by the book: a model that answers from the configuration as it is written, rule by rule,
//! beside the worker that has it lowered into tables. Random configurations, random packets, and
//! a reply to everything that got through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use common::*;
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use shunt_p4::{NetworkOp, NexthopId, Route};
use shunt_slowpath::DropReason;
use shunt_slowpath::policy::{
    AddressRange, Filtering, Masquerade, Peering, Policy, PortForward, PortRange, StaticMethod,
    StaticNat,
};
use shunt_slowpath::worker::Verdict;

/// Routes besides the common network's: what red and blue reach of each other without NAT.
const LEAKS: [(u16, &str, u16); 3] = [
    (RED, "10.0.0.3/32", BLUE),
    (BLUE, "10.7.0.2/32", RED),
    (RED, "10.4.0.0/24", PLAIN),
];

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn masquerades() -> Vec<Masquerade> {
    let rule =
        |name: &str, from, to, sources: &[&str], pool: &[&str], ports: (u16, u16)| Masquerade {
            name: name.into(),
            vpc: vpc(from),
            to: vpc(to),
            sources: sources.iter().map(|text| net(text)).collect(),
            pool: pool
                .iter()
                .map(|text| AddressRange::from(ip(text)))
                .collect(),
            ports: PortRange::new(ports.0, ports.1).unwrap(),
            filtering: Filtering::AddressAndPortDependent,
            when_exhausted: Default::default(),
        };
    vec![
        rule(
            "one host",
            RED,
            WAN,
            &["10.0.0.2/32"],
            &["203.0.113.11"],
            (2500, 2503),
        ),
        rule(
            "red",
            RED,
            WAN,
            &["10.0.0.0/24"],
            &["203.0.113.10", "2001:db8:9::10"],
            (80, 84),
        ),
        rule(
            "the rest of red",
            RED,
            WAN,
            &[],
            &["203.0.113.12", "2001:db8:9::12"],
            (1024, 65535),
        ),
        Masquerade {
            filtering: Filtering::EndpointIndependent,
            ..rule("blue", BLUE, WAN, &[], &["203.0.113.10"], (5500, 5503))
        },
        rule("red in blue", RED, BLUE, &[], &["10.200.0.1"], (6000, 6999)),
    ]
}

fn statics() -> Vec<StaticNat> {
    let rule = |from, to, inside: &str, outside: &str, method| StaticNat {
        name: format!("{inside} is {outside}"),
        vpc: vpc(from),
        to: vpc(to),
        inside: net(inside),
        outside: net(outside),
        method,
    };
    let same = StaticMethod::SamePosition;
    vec![
        rule(RED, WAN, "10.0.0.3/32", "203.0.113.30/32", same),
        rule(RED, WAN, "10.0.0.0/28", "198.51.100.16/28", same),
        rule(RED, WAN, "10.0.0.0/26", "198.51.100.64/26", same),
        rule(BLUE, RED, "10.0.0.0/24", "10.99.0.0/24", same),
        rule(RED, BLUE, "10.0.0.0/24", "10.98.0.0/24", same),
        rule(
            BLUE,
            WAN,
            "2001:db8:1::/48",
            "2001:db8:77::/48",
            StaticMethod::Nptv6,
        ),
    ]
}

fn forwards() -> Vec<PortForward> {
    let rule =
        |from, address: &str, protocol, ports: (u16, u16), to, inside: &str, first| PortForward {
            name: format!("{address} {ports:?}"),
            vpc: vpc(from),
            address: ip(address),
            protocol,
            ports: PortRange::new(ports.0, ports.1).unwrap(),
            to_vpc: vpc(to),
            to_address: ip(inside),
            to_ports: PortRange::new(first, first + ports.1 - ports.0).unwrap(),
        };
    vec![
        rule(WAN, "203.0.113.10", 6, (8080, 8089), RED, "10.0.0.2", 80),
        rule(WAN, "203.0.113.10", 17, (53, 53), BLUE, "10.0.0.3", 5353),
        rule(RED, "10.55.0.1", 17, (7, 8), BLUE, "10.0.0.2", 1007),
    ]
}

fn peerings() -> Vec<Peering> {
    let rule = |from, to, prefixes: &[&str]| Peering {
        from: vpc(from),
        to: vpc(to),
        prefixes: prefixes.iter().map(|text| net(text)).collect(),
    };
    vec![
        rule(RED, BLUE, &["10.0.0.3/32"]),
        rule(BLUE, RED, &[]),
        rule(RED, WAN, &["192.0.2.0/25"]),
        rule(PLAIN, WAN, &[]),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let some = |count: usize| subsequence((0..count).collect::<Vec<_>>(), 0..=count);
    (some(5), some(6), some(3), some(4)).prop_map(|(m, s, f, p)| {
        let mut policy = Policy {
            masquerades: m.iter().map(|n| masquerades()[*n].clone()).collect(),
            static_nat: s.iter().map(|n| statics()[*n].clone()).collect(),
            port_forwards: f.iter().map(|n| forwards()[*n].clone()).collect(),
            peerings: p.iter().map(|n| peerings()[*n].clone()).collect(),
            ..Policy::default()
        };
        policy.offload.enabled = false;
        policy
    })
}

/// A packet that may open a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Packet {
    vpc: u16,
    src: SocketAddr,
    dst: SocketAddr,
    tcp: bool,
}

fn packet() -> impl Strategy<Value = Packet> {
    const HOSTS4: &[&str] = &[
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.20",
        "192.0.2.9",
        "192.0.2.200",
    ];
    const TARGETS4: &[&str] = &[
        "192.0.2.80",
        "192.0.2.200",
        "203.0.113.10",
        "203.0.113.11",
        "203.0.113.30",
        "198.51.100.18",
        "10.0.0.2",
        "10.0.0.3",
        "10.99.0.3",
        "10.98.0.2",
        "10.55.0.1",
        "10.7.0.2",
        "10.4.0.2",
        "10.0.0.1",
    ];
    const HOSTS6: &[&str] = &["2001:db8:1::2", "2001:db8:5::7"];
    const TARGETS6: &[&str] = &["2001:db8:ffff::1", "2001:db8:77:ff89::2", "2001:db8:9::10"];
    let pair = |hosts, targets| (select(hosts), select(targets));
    let family = prop_oneof![pair(HOSTS4, TARGETS4), pair(HOSTS6, TARGETS6)];
    let ports = select(vec![7u16, 53, 80, 8080, 8085, 2500, 2501, 5500, 5501]);
    (
        select(vec![RED, BLUE, WAN]),
        family,
        1000u16..1006,
        ports,
        any::<bool>(),
    )
        .prop_map(|(vpc, (src, dst), src_port, dst_port, tcp)| Packet {
            vpc,
            src: SocketAddr::new(ip(src), src_port),
            dst: SocketAddr::new(ip(dst), dst_port),
            tcp,
        })
}

impl Packet {
    fn proto(&self) -> u8 {
        if self.tcp { 6 } else { 17 }
    }

    fn frame(&self, flags: &str) -> Vec<u8> {
        match self.tcp {
            true => tcp_with(self.src, self.dst, flags, 64, b"data"),
            false => udp_with(self.src, self.dst, 64, b"data"),
        }
    }
}

/// What the model says of a packet.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    /// It leaves by this interface with this destination, and this source.
    Leaves(u16, SocketAddr, Source),
    Kernel,
    Dropped,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Exactly(SocketAddr),
    /// An address and port of this rule's pool, the same for all of the sender's packets.
    PoolOf(Masquerade),
}

/// Everything as written.
struct Model {
    policy: Policy,
    routes: Vec<(u16, IpNet, Option<u16>)>,
    /// What masquerades have leased: (rule's VPCs, sender, protocol) to outside.
    mappings: HashMap<(u16, u16, SocketAddr, u8), SocketAddr>,
}

impl Model {
    fn new(policy: Policy) -> Self {
        let mut routes = Vec::new();
        for (n, nets) in [
            (RED, ["10.0.0.0/24", "2001:db8:1::/64"]),
            (BLUE, ["10.0.0.0/24", "2001:db8:1::/64"]),
            (PLAIN, ["10.4.0.0/24", "2001:db8:4::/64"]),
            (WAN, ["203.0.113.0/24", "2001:db8:9::/64"]),
        ] {
            for text in nets {
                let prefix = net(text);
                routes.push((n, prefix, Some(n)));
                // The gateway is the first host.
                let gateway = prefix
                    .hosts()
                    .find(|host| *host != prefix.network())
                    .unwrap();
                routes.push((n, gateway.into(), None));
            }
            if n != PLAIN {
                routes.push((n, net("0.0.0.0/0"), Some(WAN)));
                routes.push((n, net("::/0"), Some(WAN)));
            }
        }
        for address in ["203.0.113.10", "203.0.113.30"] {
            routes.push((WAN, ip(address).into(), None));
        }
        for (from, prefix, to) in LEAKS {
            routes.push((from, net(prefix), Some(to)));
        }
        Self {
            policy,
            routes,
            mappings: HashMap::new(),
        }
    }

    /// The interface that a VPC's packets to an address leave by; `None`: the gateway itself.
    fn route(&self, from: u16, dst: IpAddr) -> Option<u16> {
        let fits = self
            .routes
            .iter()
            .filter(|(n, net, _)| *n == from && net.contains(&dst));
        fits.max_by_key(|(_, net, _)| net.prefix_len()).unwrap().2
    }

    fn forwarded(&self, from: u16, packet: &Packet) -> Option<(u16, SocketAddr)> {
        let rule = self.policy.port_forwards.iter().find(|rule| {
            rule.vpc == vpc(from)
                && rule.address == packet.dst.ip()
                && rule.protocol == packet.proto()
                && rule.ports.contains(packet.dst.port())
        })?;
        let port = rule.to_ports.first() + (packet.dst.port() - rule.ports.first());
        Some((rule.to_vpc.get(), SocketAddr::new(rule.to_address, port)))
    }

    /// The other side's address, the longest prefix's rule first.
    fn static_nat(
        &self,
        of: impl Fn(&StaticNat) -> bool,
        address: IpAddr,
        outwards: bool,
    ) -> Option<(StaticNat, IpAddr)> {
        let ends = |rule: &StaticNat| match outwards {
            true => (rule.inside, rule.outside),
            false => (rule.outside, rule.inside),
        };
        let rules = self.policy.static_nat.iter();
        let fits = rules.filter(|rule| of(rule) && ends(rule).0.contains(&address));
        let rule = fits.max_by_key(|rule| rule.inside.prefix_len())?;
        let (from, to) = ends(rule);
        Some((rule.clone(), counterpart(rule.method, from, to, address)))
    }

    fn inwards(&self, from: u16, packet: &Packet, trusted: bool) -> Option<(u16, SocketAddr)> {
        if let Some(found) = self.forwarded(from, packet) {
            return Some(found);
        }
        let dst = packet.dst;
        let into = |rule: &StaticNat| rule.to == vpc(from);
        if let Some((rule, inside)) = self.static_nat(into, dst.ip(), false) {
            return Some((rule.vpc.get(), SocketAddr::new(inside, dst.port())));
        }
        let open = self.policy.masquerades.iter().any(|rule| {
            rule.to == vpc(from)
                && rule.filtering == Filtering::EndpointIndependent
                && rule.pool.iter().any(|range| range.contains(dst.ip()))
                && rule.ports.contains(dst.port())
        });
        if !open && !trusted {
            return None;
        }
        let found = self.mappings.iter().find(|((_, to, _, proto), outside)| {
            *to == from && *proto == packet.proto() && **outside == dst
        });
        found.map(|((inside_vpc, _, inside, _), _)| (*inside_vpc, *inside))
    }

    fn is_outside(&self, n: u16, address: IpAddr) -> bool {
        let policy = &self.policy;
        policy
            .masquerades
            .iter()
            .any(|rule| rule.to == vpc(n) && rule.pool.iter().any(|range| range.contains(address)))
            || policy
                .port_forwards
                .iter()
                .any(|rule| (rule.vpc, rule.address) == (vpc(n), address))
            || policy
                .static_nat
                .iter()
                .any(|rule| rule.to == vpc(n) && rule.outside.contains(&address))
    }

    fn answer(&self, packet: &Packet) -> Answer {
        let policy = &self.policy;
        let mut new = self.inwards(packet.vpc, packet, false);
        let (route_vpc, dst) = new.unwrap_or((packet.vpc, packet.dst));
        let Some(mut out) = self.route(route_vpc, dst.ip()) else {
            return if new.is_some() {
                Answer::Dropped
            } else {
                Answer::Kernel
            };
        };
        let leaves_to = out;
        let mut allowed = self.may_cross(route_vpc, out, dst.ip());
        if new.is_none() && out != packet.vpc && self.is_outside(out, packet.dst.ip()) {
            new = self.inwards(out, packet, true);
            if let Some((inside_vpc, inside)) = new {
                let Some(back) = self.route(inside_vpc, inside.ip()) else {
                    return Answer::Dropped;
                };
                allowed = if back == leaves_to {
                    self.may_cross(inside_vpc, back, inside.ip())
                } else {
                    self.may_cross(packet.vpc, leaves_to, packet.dst.ip())
                };
                out = back;
            }
        }
        let dst = new.map_or(packet.dst, |(_, dst)| dst);
        let ours = |rule: &StaticNat| (rule.vpc, rule.to) == (vpc(packet.vpc), vpc(leaves_to));
        if let Some((_, outside)) = self.static_nat(ours, packet.src.ip(), true) {
            let src = SocketAddr::new(outside, packet.src.port());
            return Answer::Leaves(out, dst, Source::Exactly(src));
        }
        let masquerade = policy.masquerades.iter().find(|rule| {
            (rule.vpc, rule.to) == (vpc(packet.vpc), vpc(leaves_to))
                && (rule.sources.is_empty()
                    || rule
                        .sources
                        .iter()
                        .any(|net| net.contains(&packet.src.ip())))
        });
        if let Some(rule) = masquerade {
            let family = rule
                .pool
                .iter()
                .any(|range| range.first().is_ipv4() == packet.src.is_ipv4());
            return match family {
                true => Answer::Leaves(out, dst, Source::PoolOf(rule.clone())),
                false => Answer::Dropped,
            };
        }
        match allowed {
            true => Answer::Leaves(out, dst, Source::Exactly(packet.src)),
            false => Answer::Dropped,
        }
    }

    fn may_cross(&self, from: u16, to: u16, dst: IpAddr) -> bool {
        from == to
            || self.policy.peerings.iter().any(|rule| {
                (rule.from, rule.to) == (vpc(from), vpc(to))
                    && (rule.prefixes.is_empty()
                        || rule.prefixes.iter().any(|net| net.contains(&dst)))
            })
    }
}

fn counterpart(method: StaticMethod, from: IpNet, to: IpNet, address: IpAddr) -> IpAddr {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let moved = bits(address) - bits(from.network()) + bits(to.network());
    let IpAddr::V6(_) = address else {
        return std::net::Ipv4Addr::from_bits(moved as u32).into();
    };
    let mut words = std::net::Ipv6Addr::from_bits(moved).segments();
    if method == StaticMethod::Nptv6 {
        // A /48: the subnet takes what the prefix has changed of the sum (RFC 6296 section 3.4),
        // here by way of ordinary remainders instead of one's complement.
        let sum = |net: IpNet| match net.network() {
            IpAddr::V6(address) => address
                .segments()
                .iter()
                .map(|word| u64::from(*word))
                .sum::<u64>(),
            IpAddr::V4(_) => panic!("IPv4"),
        };
        let word = u64::from(words[3]) + sum(from) + 2 * 0xffff - sum(to) % 0xffff;
        words[3] = (word % 0xffff) as u16;
    }
    std::net::Ipv6Addr::from(words).into()
}

fn world(policy: Policy) -> World {
    let mut world = World::with(policy, 4096, 64);
    let leaks = LEAKS.map(|(from, prefix, to)| {
        let hop = NexthopId::new(u32::from(to)).unwrap();
        NetworkOp::SetRoute(vpc(from), net(prefix), Route::Nexthops(vec![(hop, 1)]))
    });
    world.fib.apply(leaks);
    // Everybody's MAC address is known.
    for n in [RED, BLUE, PLAIN, WAN] {
        for host in [
            "10.0.0.20",
            "10.7.0.2",
            "10.4.0.2",
            "2001:db8:1::2",
            "10.0.0.2",
            "10.0.0.3",
        ] {
            let host = ip(host);
            world.fib.apply([NetworkOp::SetNeighbor(
                interface_id(n),
                host,
                host_mac(host),
            )]);
        }
    }
    world.fib.publish();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("SHUNT_ORACLE_CASES").map_or(1000, |cases| cases.parse().unwrap())
    ))]

    #[test]
    fn the_worker_does_what_the_configuration_says(
        policy in policy(),
        packets in prop::collection::vec((packet(), any::<Option<prop::sample::Index>>()), 1..40),
    ) {
        let mut model = Model::new(policy.clone());
        let mut world = world(policy);
        let mut sent: HashMap<Packet, Vec<u8>> = HashMap::new();
        let mut replies: HashMap<Packet, Packet> = HashMap::new();
        for (mut packet, leased) in packets {
            if let Some(n) = leased && !model.mappings.is_empty() {
                // To a port that somebody has, as a stranger or another inside host.
                let mut mappings: Vec<_> = model.mappings.iter().collect();
                mappings.sort();
                let ((_, _, _, proto), outside) = n.get(&mappings);
                if packet.src.is_ipv4() == outside.is_ipv4() {
                    (packet.dst, packet.tcp) = (**outside, *proto == 6);
                }
            }
            // What belongs to a connection is no new one.
            if sent.contains_key(&packet) || replies.contains_key(&packet) {
                continue;
            }
            // Nobody can answer to a source that is routed elsewhere.
            if model.route(packet.vpc, packet.src.ip()) != Some(packet.vpc) {
                continue;
            }
            let (verdict, out) = world.frame(packet.vpc, &packet.frame("S"));
            let (interface, dst, source) = match model.answer(&packet) {
                Answer::Kernel => {
                    prop_assert_eq!(verdict, Verdict::Exception, "{:?}", packet);
                    continue;
                }
                Answer::Dropped => {
                    prop_assert!(matches!(verdict, Verdict::Drop(_) | Verdict::Answered(_)), "{packet:?} {verdict:?}");
                    continue;
                }
                Answer::Leaves(interface, dst, source) => (interface, dst, source),
            };
            if verdict != Verdict::Transmit {
                // Only for want of a port or a tuple that is free, or a neighbour.
                let taken = matches!(
                    verdict,
                    Verdict::Drop(
 DropReason::TupleInUse | DropReason::PoolExhausted | DropReason::NeighborQueueFull)
                );
                prop_assert!(taken || verdict == Verdict::Held, "{packet:?}: {verdict:?}");
                continue;
            }
            let seen = Seen::new(&out);
            prop_assert_eq!(seen.interface, interface, "{:?}", packet);
            prop_assert_eq!(seen.dst, dst, "{:?}", packet);
            match source {
                Source::Exactly(src) => prop_assert_eq!(seen.src, src, "{:?}", packet),
                Source::PoolOf(rule) => {
                    let pooled = rule.pool.iter().any(|range| range.contains(seen.src.ip()));
                    prop_assert!(pooled, "{packet:?} {:?}", seen.src);
                    prop_assert!(rule.ports.contains(seen.src.port()));
                    let key = (packet.vpc, rule.to.get(), packet.src, packet.proto());
                    let mapped = *model.mappings.entry(key).or_insert(seen.src);
                    prop_assert_eq!(mapped, seen.src, "endpoint-independent, {:?}", packet);
                }
            }
            // A sender that nothing translates is looked for where its packets went to.
            let from = if seen.src == packet.src { interface } else { packet.vpc };
            let answerable = model.route(from, packet.src.ip()) == Some(packet.vpc);
            // The other end answers to what it saw.
            let reply = Packet { vpc: interface, src: seen.dst, dst: seen.src, tcp: packet.tcp };
            let (verdict, back) = world.frame(interface, &reply.frame("SA"));
            if !answerable {
                continue;
            }
            prop_assert_eq!(verdict, Verdict::Transmit, "the reply to {:?}: {:?}", packet, reply);
            let back = Seen::new(&back);
            prop_assert_eq!((back.src, back.dst), (packet.dst, packet.src));
            sent.insert(packet, out);
            replies.insert(reply, packet);
        }
        // No two connections have a tuple in common.
        let mut tuples = std::collections::HashSet::new();
        for flow in world.flows() {
            for side in [flow.forward, flow.reply] {
                prop_assert!(tuples.insert((side.vpc, side.tuple)));
            }
        }
        let held: std::collections::HashSet<_> = model.mappings.values().collect();
        prop_assert!(world.leased() as usize >= held.len());
        world.pass(24 * HOUR);
        prop_assert_eq!((world.flows().len(), world.leased()), (0, 0));
    }
}
