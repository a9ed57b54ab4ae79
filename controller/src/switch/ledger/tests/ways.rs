//! Where packets go by the entries of a switch: what the P4 program does with them, in short.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use shunt_p4::tables::{
    AnyEntry, ClassifyPortAction, EcmpAction, EgressInterfaceAction, NexthopAction, Route4Action,
};
use shunt_p4::{EcmpGroupId, InterfaceId, NexthopId, VpcId};

/// Where a packet's way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    /// Out of a port, to a station: its MAC address says whose it is.
    Out {
        port: u16,
        station: [u8; 3],
    },
    SlowPath,
    Blackhole,
    /// No port, or no interface.
    NoInterface,
}

/// The entries by key, of stateless traffic over IPv4.
#[derive(Debug, Default)]
pub(super) struct Ways {
    ports: HashMap<u16, ClassifyPortAction>,
    routes: HashMap<(VpcId, Ipv4Net), Route4Action>,
    groups: HashMap<EcmpGroupId, Vec<EcmpAction>>,
    nexthops: HashMap<NexthopId, NexthopAction>,
    stations: HashMap<(InterfaceId, Ipv4Addr), [u8; 6]>,
    interfaces: HashMap<InterfaceId, u16>,
}

impl Ways {
    pub(super) fn of(entries: impl IntoIterator<Item = AnyEntry>) -> Self {
        let mut ways = Self::default();
        for entry in entries {
            match entry {
                AnyEntry::ClassifyPort(e) => {
                    ways.ports.insert(e.key.port.get(), e.action);
                }
                AnyEntry::Route4(e) => {
                    ways.routes.insert((e.key.vpc, e.key.dst), e.action);
                }
                AnyEntry::Ecmp(e) => {
                    let members = e.members.iter().map(|(action, _)| *action);
                    ways.groups.insert(e.key.group, members.collect());
                }
                AnyEntry::NexthopEntry(e) => {
                    ways.nexthops.insert(e.key.nexthop, e.action);
                }
                AnyEntry::Neighbor4(e) => {
                    let shunt_p4::tables::Neighbor4Action::SetNeighbor { mac } = e.action;
                    ways.stations
                        .insert((e.key.interface, e.key.address), mac.0);
                }
                AnyEntry::EgressInterface(e) => match e.action {
                    EgressInterfaceAction::Untagged { port, .. } => {
                        ways.interfaces.insert(e.key.interface, port.get());
                    }
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        }
        ways
    }

    /// Where a packet from a port to an address may end; several: by its hash.
    pub(super) fn ends(&self, port: u16, to: Ipv4Addr) -> BTreeSet<End> {
        let vpc = match self.ports.get(&port) {
            None => return [End::NoInterface].into(),
            Some(ClassifyPortAction::SetInterface {
                vpc,
                stateless: true,
                ..
            }) => *vpc,
            Some(_) => return [End::SlowPath].into(),
        };
        let prefixes = (0..=32).rev();
        let mut covers = prefixes.map(|length| Ipv4Net::new(to, length).unwrap().trunc());
        let route = covers.find_map(|prefix| self.routes.get(&(vpc, prefix)));
        match route {
            None | Some(Route4Action::Local | Route4Action::Unreachable) => [End::SlowPath].into(),
            Some(Route4Action::Blackhole) => [End::Blackhole].into(),
            Some(Route4Action::ToNexthop { nexthop }) => [self.leave(*nexthop, to)].into(),
            Some(Route4Action::ToEcmp { group }) => match self.groups.get(group) {
                None => [End::SlowPath].into(),
                Some(members) => members
                    .iter()
                    .map(|action| match action {
                        EcmpAction::ToNexthop { nexthop } => self.leave(*nexthop, to),
                        EcmpAction::Unreachable => End::SlowPath,
                    })
                    .collect(),
            },
        }
    }

    fn leave(&self, nexthop: NexthopId, to: Ipv4Addr) -> End {
        let (interface, address) = match self.nexthops.get(&nexthop) {
            None | Some(NexthopAction::Unreachable) => return End::SlowPath,
            Some(NexthopAction::Attached { interface, .. }) => (*interface, to),
            Some(NexthopAction::Via4 {
                interface, gateway, ..
            }) => (*interface, *gateway),
            Some(other) => panic!("{other:?}"),
        };
        let Some([_, a, b, c, ..]) = self.stations.get(&(interface, address)) else {
            return End::SlowPath;
        };
        match self.interfaces.get(&interface) {
            None => End::NoInterface,
            Some(port) => End::Out {
                port: *port,
                station: [*a, *b, *c],
            },
        }
    }
}
