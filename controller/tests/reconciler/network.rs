//! A small network that changes: what is wanted, in ops for the session and as ways for the
//! oracle, which knows nothing of tables.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use rand::Rng as _;
use rand::rngs::StdRng;
use shunt_p4::{
    Encap, Interface, InterfaceId, MacAddr, NetworkOp, Nexthop, NexthopId, Route, SwitchIndex,
    SwitchPort, Vpc, VpcId,
};

/// Where packets come in; the interfaces have the same numbers.
pub const INSIDE: [u16; 2] = [1, 5];
/// The interfaces by which they leave, and the ports.
pub const OUTSIDE: [u16; 3] = [2, 3, 4];
/// The port to the slow path.
pub const SLOW_PATH: u16 = 10;
/// Gateways on each outside link.
const GATEWAYS: u8 = 3;
const VPCS: [u16; 2] = [1, 2];

/// Nested in many ways.
const PREFIXES: [&str; 9] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.128/25",
    "10.1.1.129/32",
    "10.1.2.0/24",
    "10.2.0.0/16",
    "10.2.2.2/32",
];

/// An address in each region that the prefixes make.
const ADDRESSES: [Ipv4Addr; 9] = [
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(10, 9, 9, 9),
    Ipv4Addr::new(10, 1, 9, 9),
    Ipv4Addr::new(10, 1, 1, 9),
    Ipv4Addr::new(10, 1, 1, 200),
    Ipv4Addr::new(10, 1, 1, 129),
    Ipv4Addr::new(10, 1, 2, 9),
    Ipv4Addr::new(10, 2, 9, 9),
    Ipv4Addr::new(10, 2, 2, 2),
];

/// The packets that are watched: the port where they come in, and where they are to go.
pub fn probes() -> impl Iterator<Item = (u16, Ipv4Addr)> {
    INSIDE
        .into_iter()
        .flat_map(|port| ADDRESSES.map(|to| (port, to)))
}

/// A station that packets may be sent to: it stays at its port whatever the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Station {
    pub port: u16,
    pub number: u8,
}

impl Station {
    /// One of its MAC addresses: a station may change its card, and stays itself.
    fn mac(self, card: u8) -> MacAddr {
        MacAddr([2, 1, card, 0, self.port as u8, self.number])
    }

    /// Whose MAC address that is.
    pub fn of_mac(port: u16, mac: [u8; 6]) -> Option<Self> {
        let [2, 1, _, 0, on, number @ 1..=GATEWAYS] = mac else {
            return None;
        };
        (u16::from(on) == port).then_some(Self { port, number })
    }
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    Out(Station),
    SlowPath,
    Nowhere,
    /// Where nobody wants any packet, and what was seen.
    Elsewhere(String),
}

/// A gateway: by which interface, and its number on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Gateway {
    interface: u16,
    number: u8,
}

impl Gateway {
    fn all() -> impl Iterator<Item = Self> {
        let numbers = |interface| (1..=GATEWAYS).map(move |number| Self { interface, number });
        OUTSIDE.into_iter().flat_map(numbers)
    }

    fn any(random: &mut StdRng) -> Self {
        Self {
            interface: any(random, &OUTSIDE),
            number: random.random_range(1..=GATEWAYS),
        }
    }

    fn address(self) -> IpAddr {
        IpAddr::from([172, 16, self.interface as u8, self.number])
    }

    fn nexthop(self) -> Nexthop {
        Nexthop {
            interface: interface(self.interface),
            gateway: Some(self.address()),
            mtu: None,
        }
    }
}

/// Where a prefix leads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leads {
    To(BTreeMap<Gateway, u16>),
    Other(Route),
}

fn any<T: Copy>(random: &mut StdRng, of: &[T]) -> T {
    of[random.random_range(0..of.len())]
}

fn interface(number: u16) -> InterfaceId {
    InterfaceId::new(number).unwrap()
}

fn vpc(number: u16) -> VpcId {
    VpcId::new(number).unwrap()
}

/// The switch's MAC address on an interface.
pub fn mac(interface: u16) -> [u8; 6] {
    [2, 0, 0, 0, 0, interface as u8]
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Network {
    routes: BTreeMap<(u16, Ipv4Net), Leads>,
    /// Gateways whose MAC address is known, and their cards.
    neighbors: BTreeMap<Gateway, u8>,
    /// The ports of the outside interfaces.
    ports: BTreeMap<u16, u16>,
    /// The VPCs of the inside interfaces.
    members: BTreeMap<u16, u16>,
    stateless: BTreeMap<u16, bool>,
    /// Which number the first gateway's next hop has: another daemon may number otherwise.
    first_nexthop: u32,
    /// Interfaces change too.
    moves: bool,
}

impl Network {
    pub fn new(moves: bool) -> Self {
        Self {
            routes: BTreeMap::new(),
            neighbors: BTreeMap::new(),
            ports: OUTSIDE.map(|number| (number, number)).into(),
            members: INSIDE.into_iter().zip(VPCS).collect(),
            stateless: VPCS.map(|vpc| (vpc, true)).into(),
            first_nexthop: 0,
            moves,
        }
    }

    fn nexthop_id(&self, gateway: Gateway) -> NexthopId {
        let at = Gateway::all().position(|known| known == gateway).unwrap() as u32;
        let count = Gateway::all().count() as u32;
        NexthopId::new(1 + (at + self.first_nexthop) % count).unwrap()
    }

    fn station(&self, gateway: Gateway) -> Station {
        Station {
            port: self.ports[&gateway.interface],
            number: gateway.number,
        }
    }

    fn used(&self) -> BTreeSet<Gateway> {
        let gateways = self.routes.values().filter_map(|leads| match leads {
            Leads::To(gateways) => Some(gateways.keys().copied()),
            Leads::Other(_) => None,
        });
        gateways.flatten().collect()
    }

    fn leads(random: &mut StdRng) -> Leads {
        match random.random_range(0..10_u32) {
            0 => Leads::Other(Route::Blackhole),
            1 => Leads::Other(Route::Unreachable),
            2 => Leads::Other(Route::Local),
            3..7 => Leads::To(BTreeMap::from([(Gateway::any(random), 1)])),
            _ => {
                let count = random.random_range(2..4);
                let paths = (0..count).map(|_| (Gateway::any(random), random.random_range(1..3)));
                Leads::To(paths.collect())
            }
        }
    }

    /// Changes some of it at once; the ops are in the mirror's order.
    pub fn change(&mut self, random: &mut StdRng) -> Vec<NetworkOp> {
        let before = self.clone();
        for _ in 0..random.random_range(1..6) {
            let prefix: Ipv4Net = any(random, &PREFIXES).parse().unwrap();
            let key = (any(random, &VPCS), prefix);
            if random.random_bool(0.3) {
                self.routes.remove(&key);
            } else {
                self.routes.insert(key, Self::leads(random));
            }
        }
        for gateway in Gateway::all() {
            match random.random_range(0..20_u32) {
                0 => {
                    self.neighbors.remove(&gateway);
                }
                1..4 => {
                    self.neighbors.insert(gateway, random.random_range(0..4));
                }
                _ => {}
            }
        }
        if self.moves && random.random_bool(0.3) {
            self.move_interfaces(random);
        }
        self.since(&before)
    }

    fn move_interfaces(&mut self, random: &mut StdRng) {
        match random.random_range(0..3_u32) {
            0 => {
                let (a, b) = (any(random, &OUTSIDE), any(random, &OUTSIDE));
                let (to_a, to_b) = (self.ports[&b], self.ports[&a]);
                self.ports.insert(a, to_a);
                self.ports.insert(b, to_b);
            }
            1 => {
                self.members
                    .insert(any(random, &INSIDE), any(random, &VPCS));
            }
            _ => {
                let stateless = random.random_bool(0.7);
                self.stateless.insert(any(random, &VPCS), stateless);
            }
        }
    }

    /// A daemon starts, with numbers of its own; a little has changed meanwhile. The ops for
    /// the whole of it.
    pub fn begin(&mut self, random: &mut StdRng) -> Vec<NetworkOp> {
        self.first_nexthop = random.random_range(0..9);
        self.change(random);
        let nothing = Self {
            ports: BTreeMap::new(),
            members: BTreeMap::new(),
            stateless: BTreeMap::new(),
            ..Self::new(false)
        };
        self.since(&nothing)
    }

    fn interfaces(&self) -> Vec<Interface> {
        let interface = |number: u16, vpc_number: u16, port: u16| Interface {
            id: interface(number),
            name: format!("if{number}"),
            vpc: vpc(vpc_number),
            switch: SwitchIndex::MIN,
            port: SwitchPort::new(port).unwrap(),
            encap: Encap::Untagged,
            mac: MacAddr(mac(number)),
            mtu: 1500,
            addresses: Vec::new(),
        };
        let inside = self.members.iter();
        let outside = self.ports.iter();
        inside
            .map(|(number, vpc)| interface(*number, *vpc, *number))
            .chain(outside.map(|(number, port)| interface(*number, VPCS[0], *port)))
            .collect()
    }

    fn since(&self, before: &Self) -> Vec<NetworkOp> {
        let mut ops = Vec::new();
        for (&number, &stateless) in &self.stateless {
            if before.stateless.get(&number) != Some(&stateless) {
                ops.push(NetworkOp::SetVpc(Vpc {
                    id: vpc(number),
                    name: format!("vpc{number}"),
                    stateless,
                }));
            }
        }
        let former = before.interfaces();
        for interface in self.interfaces() {
            if !former.contains(&interface) {
                ops.push(NetworkOp::SetInterface(interface));
            }
        }
        for gateway in self.used().difference(&before.used()) {
            let id = self.nexthop_id(*gateway);
            ops.push(NetworkOp::SetNexthop(id, gateway.nexthop()));
        }
        let known = |network: &Self, gateway: Gateway| {
            let card = network.neighbors.get(&gateway)?;
            Some(network.station(gateway).mac(*card))
        };
        for gateway in Gateway::all() {
            let (now, then) = (known(self, gateway), known(before, gateway));
            let id = interface(gateway.interface);
            match now {
                Some(mac) if then != now => {
                    ops.push(NetworkOp::SetNeighbor(id, gateway.address(), mac));
                }
                None if then.is_some() => {
                    ops.push(NetworkOp::RemoveNeighbor(id, gateway.address()));
                }
                _ => {}
            }
        }
        for (key @ (number, prefix), leads) in &self.routes {
            if before.routes.get(key) != Some(leads) {
                let route = match leads {
                    Leads::Other(route) => route.clone(),
                    Leads::To(gateways) => {
                        let paths = gateways.iter();
                        let paths = paths.map(|(to, weight)| (self.nexthop_id(*to), *weight));
                        Route::Nexthops(paths.collect())
                    }
                };
                ops.push(NetworkOp::SetRoute(vpc(*number), IpNet::V4(*prefix), route));
            }
        }
        for (number, prefix) in before.routes.keys() {
            if !self.routes.contains_key(&(*number, *prefix)) {
                ops.push(NetworkOp::RemoveRoute(vpc(*number), IpNet::V4(*prefix)));
            }
        }
        for gateway in before.used().difference(&self.used()) {
            ops.push(NetworkOp::RemoveNexthop(before.nexthop_id(*gateway)));
        }
        ops
    }

    /// The ways that a packet may go: several by its hash.
    fn ways_of(&self, port: u16, to: Ipv4Addr) -> HashSet<Way> {
        let vpc = self.members[&port];
        if !self.stateless[&vpc] {
            return [Way::SlowPath].into();
        }
        let covering = self.routes.iter();
        let covering = covering.filter(|((of, prefix), _)| *of == vpc && prefix.contains(&to));
        match covering.max_by_key(|((_, prefix), _)| prefix.prefix_len()) {
            Some((_, Leads::Other(Route::Blackhole))) => [Way::Nowhere].into(),
            Some((_, Leads::To(gateways))) => gateways
                .keys()
                .map(|gateway| match self.neighbors.get(gateway) {
                    Some(_) => Way::Out(self.station(*gateway)),
                    None => Way::SlowPath,
                })
                .collect(),
            _ => [Way::SlowPath].into(),
        }
    }

    /// The same for every probe.
    pub fn ways(&self) -> Vec<HashSet<Way>> {
        probes().map(|(port, to)| self.ways_of(port, to)).collect()
    }

    /// Whether a packet may be dropped while something changes: its interface may move.
    pub fn moves(&self) -> bool {
        self.moves
    }

    /// How many entries each table of routing has.
    pub fn sizes(&self) -> (usize, usize, usize, usize) {
        let groups: HashSet<Vec<(Gateway, u16)>> = self
            .routes
            .values()
            .filter_map(|leads| match leads {
                Leads::To(gateways) if gateways.len() > 1 => Some(
                    gateways
                        .iter()
                        .map(|(gateway, weight)| (*gateway, *weight))
                        .collect(),
                ),
                _ => None,
            })
            .collect();
        (
            self.routes.len(),
            groups.len(),
            self.used().len(),
            self.neighbors.len(),
        )
    }
}
