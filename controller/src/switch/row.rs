//! What the order of writes has to know of each table: what an entry leads to, what it says
//! when it says nothing, and which prefixes cover which.

use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::{Ipv4Net, Ipv6Net};
use shunt_p4::tables::{
    AnyEntry, ClassifyPort, ClassifyPortAction, ClassifyPortKey, ClassifyVxlan,
    ClassifyVxlanAction, ClassifyVxlanKey, Ecmp, EcmpAction, EcmpKey, EgressInterface,
    EgressInterfaceKey, Neighbor4, Neighbor4Key, Neighbor6, Neighbor6Key, NexthopAction,
    NexthopEntry, NexthopKey, P4Table, Punt, Route4, Route4Action, Route4Key, Route6, Route6Action,
    Route6Key,
};
use shunt_p4::{EcmpGroupId, InterfaceId, NexthopId, VpcId};

/// What an entry of another table leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Interface(InterfaceId),
    /// A station on an interface's link.
    Station(InterfaceId, IpAddr),
    /// Any of them: the packet's destination.
    Stations(InterfaceId),
    Nexthop(NexthopId),
    Group(EcmpGroupId),
    /// All routes of a VPC.
    Vpc(VpcId),
}

/// An entry, as the order of writes sees it.
pub(super) trait Row: P4Table + Into<AnyEntry> {
    /// How many tables a packet passes behind this one, at most: who leads to whom.
    const DEPTH: u8 = 0;
    /// The longest prefix of the table's LPM field; 0: it has none.
    const LONGEST: u8 = 0;
    /// Whether packets without an entry are dropped; else they go to the slow path.
    const DROPS_MISSES: bool = false;

    /// What the entry leads to.
    fn each_target(&self, _: &mut dyn FnMut(Target)) {}

    /// What leads to the entry of that key names it by this.
    fn target(_: &Self::Key) -> Option<Target> {
        None
    }

    /// Where packets go on that went to the slow path while there was no entry of that key.
    fn opens(key: &Self::Key) -> Option<Target> {
        Self::target(key)
    }

    /// Whether packets pass two entries alike, whatever else differs between them.
    fn leads_alike(&self, _other: &Self) -> bool {
        false
    }

    /// Whether its packets go to the slow path.
    fn punts(&self) -> bool {
        false
    }

    /// The entry that sends the packets of a key to the slow path. `None`: an entry that is
    /// removed does, or else drops them. `refused`: the switch did not take what is wanted.
    fn parked(_: &Self::Key, _wanted: Option<&Self>, _refused: bool) -> Option<Self> {
        None
    }

    /// The prefix's length.
    fn length(_: &Self::Key) -> u8 {
        0
    }

    /// The shorter prefix of that length.
    fn cover(key: &Self::Key, _length: u8) -> Self::Key {
        *key
    }
}

impl Row for Punt {}

macro_rules! neighbor {
    ($entry:ident, $key:ident) => {
        impl Row for $entry {
            const DEPTH: u8 = 1;

            // A station is one of its link: on another link the same address is another's.
            fn each_target(&self, each: &mut dyn FnMut(Target)) {
                each(Target::Interface(self.key.interface));
            }

            fn opens(key: &$key) -> Option<Target> {
                Some(Target::Station(key.interface, key.address.into()))
            }
        }
    };
}

neighbor!(Neighbor4, Neighbor4Key);
neighbor!(Neighbor6, Neighbor6Key);

macro_rules! classify {
    ($entry:ident, $key:ident, $action:ident, $set:ident) => {
        impl Row for $entry {
            const DEPTH: u8 = 5;
            const DROPS_MISSES: bool = true;

            // Without connections routes alone forward. With them the slow path sees a packet
            // first, and what it offloads is the offload engine's.
            fn each_target(&self, each: &mut dyn FnMut(Target)) {
                if let $action::$set {
                    vpc,
                    stateless: true,
                    ..
                } = self.action
                {
                    each(Target::Vpc(vpc));
                }
            }

            fn leads_alike(&self, other: &Self) -> bool {
                let way = |entry: &Self| {
                    let mut way = None;
                    entry.each_target(&mut |target| way = Some(target));
                    way
                };
                way(self) == way(other)
            }

            // As with connections: a flow that is not known goes to the slow path.
            fn parked(_: &$key, wanted: Option<&Self>, refused: bool) -> Option<Self> {
                let mut entry = *wanted.filter(|_| !refused)?;
                match &mut entry.action {
                    $action::$set { stateless, .. } if *stateless => *stateless = false,
                    _ => return None,
                }
                Some(entry)
            }
        }
    };
}

classify!(
    ClassifyPort,
    ClassifyPortKey,
    ClassifyPortAction,
    SetInterface
);
classify!(
    ClassifyVxlan,
    ClassifyVxlanKey,
    ClassifyVxlanAction,
    SetTunnelInterface
);

impl Row for EgressInterface {
    const DROPS_MISSES: bool = true;

    fn target(key: &EgressInterfaceKey) -> Option<Target> {
        Some(Target::Interface(key.interface))
    }
}

impl Row for NexthopEntry {
    const DEPTH: u8 = 2;

    fn each_target(&self, each: &mut dyn FnMut(Target)) {
        let (interface, station) = match self.action {
            NexthopAction::Attached { interface, .. } => (interface, Target::Stations(interface)),
            NexthopAction::Via4 {
                interface, gateway, ..
            } => (interface, Target::Station(interface, gateway.into())),
            NexthopAction::Via6 {
                interface, gateway, ..
            } => (interface, Target::Station(interface, gateway.into())),
            NexthopAction::Unreachable => return,
        };
        each(Target::Interface(interface));
        each(station);
    }

    fn target(key: &NexthopKey) -> Option<Target> {
        Some(Target::Nexthop(key.nexthop))
    }

    fn punts(&self) -> bool {
        self.action == NexthopAction::Unreachable
    }

    fn parked(key: &NexthopKey, _: Option<&Self>, _: bool) -> Option<Self> {
        Some(Self {
            key: *key,
            action: NexthopAction::Unreachable,
        })
    }
}

impl Row for Ecmp {
    const DEPTH: u8 = 3;

    fn each_target(&self, each: &mut dyn FnMut(Target)) {
        for (action, _) in &self.members {
            match action {
                EcmpAction::ToNexthop { nexthop } => each(Target::Nexthop(*nexthop)),
                EcmpAction::Unreachable => {}
            }
        }
    }

    fn target(key: &EcmpKey) -> Option<Target> {
        Some(Target::Group(key.group))
    }

    fn punts(&self) -> bool {
        let mut members = self.members.iter();
        members.all(|(action, _)| *action == EcmpAction::Unreachable)
    }

    fn parked(key: &EcmpKey, _: Option<&Self>, _: bool) -> Option<Self> {
        Some(Self {
            key: *key,
            members: vec![(EcmpAction::Unreachable, NonZeroU16::MIN)],
        })
    }
}

macro_rules! route {
    ($entry:ident, $key:ident, $action:ident, $net:ident, $longest:literal) => {
        impl Row for $entry {
            const DEPTH: u8 = 4;
            const LONGEST: u8 = $longest;

            fn each_target(&self, each: &mut dyn FnMut(Target)) {
                match self.action {
                    $action::ToNexthop { nexthop } => each(Target::Nexthop(nexthop)),
                    $action::ToEcmp { group } => each(Target::Group(group)),
                    $action::Local | $action::Blackhole | $action::Unreachable => {}
                }
            }

            fn target(key: &$key) -> Option<Target> {
                Some(Target::Vpc(key.vpc))
            }

            fn punts(&self) -> bool {
                matches!(self.action, $action::Local | $action::Unreachable)
            }

            fn parked(key: &$key, _: Option<&Self>, _: bool) -> Option<Self> {
                Some(Self {
                    key: *key,
                    action: $action::Unreachable,
                })
            }

            fn length(key: &$key) -> u8 {
                key.dst.prefix_len()
            }

            fn cover(key: &$key, length: u8) -> $key {
                let dst = $net::new(key.dst.addr(), length).map_or(key.dst, |net| net.trunc());
                $key { vpc: key.vpc, dst }
            }
        }
    };
}

route!(Route4, Route4Key, Route4Action, Ipv4Net, 32);
route!(Route6, Route6Key, Route6Action, Ipv6Net, 128);
