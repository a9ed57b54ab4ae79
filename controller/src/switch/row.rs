//! What the order of writes has to know of each table: what an entry leads to, what it says
//! when it says nothing, and which prefixes cover which.

use std::num::NonZeroU16;

use ipnet::{Ipv4Net, Ipv6Net};
use shunt_p4::tables::{
    AnyEntry, ClassifyPort, ClassifyVxlan, Ecmp, EcmpAction, EcmpKey, EgressInterface,
    EgressInterfaceKey, Neighbor4, Neighbor6, NexthopAction, NexthopEntry, NexthopKey, P4Table,
    Punt, Route4, Route4Action, Route4Key, Route6, Route6Action, Route6Key,
};
use shunt_p4::{EcmpGroupId, InterfaceId, NexthopId};

/// What an entry of another table leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Interface(InterfaceId),
    Nexthop(NexthopId),
    Group(EcmpGroupId),
}

/// An entry, as the order of writes sees it.
pub(super) trait Row: P4Table + Into<AnyEntry> {
    /// How many tables a packet passes behind this one, at most: who leads to whom.
    const DEPTH: u8 = 0;
    /// The longest prefix of the table's LPM field; 0: it has none.
    const LONGEST: u8 = 0;

    /// What the entry leads to.
    fn each_target(&self, _: &mut dyn FnMut(Target)) {}

    /// What leads to the entry of that key names it by this.
    fn target(_: &Self::Key) -> Option<Target> {
        None
    }

    /// The entry that sends its packets to the slow path, where the table has one: what is
    /// right whatever else is.
    fn parked(_: &Self::Key) -> Option<Self> {
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

impl Row for Neighbor4 {}
impl Row for Neighbor6 {}
impl Row for Punt {}
impl Row for ClassifyPort {}
impl Row for ClassifyVxlan {}

impl Row for EgressInterface {
    fn target(key: &EgressInterfaceKey) -> Option<Target> {
        Some(Target::Interface(key.interface))
    }
}

impl Row for NexthopEntry {
    const DEPTH: u8 = 1;

    fn each_target(&self, each: &mut dyn FnMut(Target)) {
        match self.action {
            NexthopAction::Attached { interface }
            | NexthopAction::Via4 { interface, .. }
            | NexthopAction::Via6 { interface, .. } => each(Target::Interface(interface)),
            NexthopAction::Unreachable => {}
        }
    }

    fn target(key: &NexthopKey) -> Option<Target> {
        Some(Target::Nexthop(key.nexthop))
    }

    fn parked(key: &NexthopKey) -> Option<Self> {
        Some(Self {
            key: *key,
            action: NexthopAction::Unreachable,
        })
    }
}

impl Row for Ecmp {
    const DEPTH: u8 = 2;

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

    fn parked(key: &EcmpKey) -> Option<Self> {
        Some(Self {
            key: *key,
            members: vec![(EcmpAction::Unreachable, NonZeroU16::MIN)],
        })
    }
}

macro_rules! route {
    ($entry:ident, $key:ident, $action:ident, $net:ident, $longest:literal) => {
        impl Row for $entry {
            const DEPTH: u8 = 3;
            const LONGEST: u8 = $longest;

            fn each_target(&self, each: &mut dyn FnMut(Target)) {
                match self.action {
                    $action::ToNexthop { nexthop } => each(Target::Nexthop(nexthop)),
                    $action::ToEcmp { group } => each(Target::Group(group)),
                    $action::Local | $action::Blackhole | $action::Unreachable => {}
                }
            }

            fn parked(key: &$key) -> Option<Self> {
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
