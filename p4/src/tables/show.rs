//! Entries in words: fields and parameters by name, values as people write them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::frame::PuntReason;
use crate::types::{EcmpGroupId, InterfaceId, MacAddr, NexthopId, SwitchPort, VlanId, Vni, VpcId};

/// What the configuration calls things; by default their numbers.
pub trait Names {
    /// A VPC.
    fn vpc(&self, id: VpcId) -> String {
        id.to_string()
    }
    /// An interface.
    fn interface(&self, id: InterfaceId) -> String {
        id.to_string()
    }
}

/// No names: the numbers themselves.
#[derive(Clone, Copy, Debug)]
pub struct Numbers;

impl Names for Numbers {}

/// An entry, or a key alone, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The table.
    pub table: &'static str,
    /// The match fields.
    pub key: Vec<(&'static str, String)>,
    /// The priority, where the table has one.
    pub priority: Option<u16>,
    /// The action; several, with weights, of a group; none of a key alone.
    pub actions: Vec<ShownAction>,
    /// What else the entry has: idle timeout, meter.
    pub properties: Vec<(&'static str, String)>,
}

/// An action in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownAction {
    /// Its name.
    pub name: &'static str,
    /// Its parameters.
    pub params: Vec<(&'static str, String)>,
    /// Its weight in a group.
    pub weight: Option<u16>,
}

impl Shown {
    pub(crate) fn new(table: &'static str, key: Vec<(&'static str, String)>) -> Self {
        Self {
            table,
            key,
            priority: None,
            actions: Vec::new(),
            properties: Vec::new(),
        }
    }

    /// The key: `vpc=1 dst=10.0.0.0/8`.
    pub fn key_text(&self) -> String {
        let mut words: Vec<String> = self.key.iter().map(pair).collect();
        words.extend(self.priority.map(|priority| format!("priority={priority}")));
        words.join(" ")
    }

    /// All but the key: `to_nexthop(nexthop=3)`.
    pub fn value_text(&self) -> String {
        let mut words: Vec<String> = self.actions.iter().map(ToString::to_string).collect();
        words.extend(self.properties.iter().map(pair));
        words.join(", ")
    }
}

fn pair((name, value): &(&'static str, String)) -> String {
    format!("{name}={value}")
}

impl fmt::Display for Shown {
    /// `route4 vpc=1 dst=10.0.0.0/8 -> to_nexthop(nexthop=3)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.key_text())?;
        if !self.actions.is_empty() {
            write!(f, " -> {}", self.value_text())?;
        }
        Ok(())
    }
}

impl fmt::Display for ShownAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if !self.params.is_empty() {
            let params: Vec<String> = self.params.iter().map(pair).collect();
            write!(f, "({})", params.join(", "))?;
        }
        match self.weight {
            Some(weight) if weight != 1 => write!(f, " weight {weight}"),
            _ => Ok(()),
        }
    }
}

pub(crate) fn duration(duration: Duration) -> String {
    format!("{duration:?}")
}

/// A value as people write it.
pub(crate) trait Show {
    fn show(&self, names: &dyn Names) -> String;
}

impl Show for VpcId {
    fn show(&self, names: &dyn Names) -> String {
        names.vpc(*self)
    }
}

impl Show for InterfaceId {
    fn show(&self, names: &dyn Names) -> String {
        names.interface(*self)
    }
}

/// A ternary field that is left out.
impl Show for Option<InterfaceId> {
    fn show(&self, names: &dyn Names) -> String {
        self.map_or_else(|| "any".to_owned(), |id| id.show(names))
    }
}

/// A tag that is not there.
impl Show for Option<VlanId> {
    fn show(&self, _: &dyn Names) -> String {
        self.map_or_else(|| "none".to_owned(), |id| id.to_string())
    }
}

impl Show for PuntReason {
    fn show(&self, _: &dyn Names) -> String {
        self.as_str().to_owned()
    }
}

/// Without the bits behind its length, as it is in the table.
impl Show for Ipv4Net {
    fn show(&self, _: &dyn Names) -> String {
        self.trunc().to_string()
    }
}

/// Without the bits behind its length, as it is in the table.
impl Show for Ipv6Net {
    fn show(&self, _: &dyn Names) -> String {
        self.trunc().to_string()
    }
}

macro_rules! display {
    ($($type:ty),*) => {$(
        impl Show for $type {
            fn show(&self, _: &dyn Names) -> String {
                self.to_string()
            }
        }
    )*};
}

display! {
    NexthopId, EcmpGroupId, SwitchPort, VlanId, Vni, MacAddr, Ipv4Addr, Ipv6Addr, u8, u16, bool
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::super::*;
    use super::*;

    struct Red;

    impl Names for Red {
        fn vpc(&self, id: VpcId) -> String {
            format!("red{id}")
        }
    }

    #[test]
    fn entries_are_shown_by_name() {
        let route = Route4 {
            key: Route4Key {
                vpc: VpcId::MIN,
                dst: "10.1.2.3/8".parse().unwrap(),
            },
            action: Route4Action::ToNexthop {
                nexthop: NexthopId::MIN,
            },
        };
        assert_eq!(
            route.shown(&Numbers).to_string(),
            "route4 vpc=1 dst=10.0.0.0/8 -> to_nexthop(nexthop=1)"
        );
        assert_eq!(
            Route4::shown_key(&route.key, &Red).to_string(),
            "route4 vpc=red1 dst=10.0.0.0/8"
        );
        let group = Ecmp {
            key: EcmpKey {
                group: EcmpGroupId::MIN,
            },
            members: [1, 2]
                .map(|n| {
                    let nexthop = NexthopId::new(n).unwrap();
                    let weight = NonZeroU16::new(n as u16).unwrap();
                    (EcmpAction::ToNexthop { nexthop }, weight)
                })
                .to_vec(),
        };
        assert_eq!(
            group.shown(&Numbers).value_text(),
            "to_nexthop(nexthop=1), to_nexthop(nexthop=2) weight 2"
        );
        let punt = Punt {
            key: PuntKey {
                reason: PuntReason::Arp,
                interface: None,
            },
            priority: NonZeroU16::MIN,
            action: PuntAction::Drop,
            meter: Some(Meter::single(100, 10)),
        };
        assert_eq!(
            punt.shown(&Numbers).to_string(),
            "punt reason=arp interface=any priority=1 -> punt_drop, meter=100/s burst 10"
        );
    }
}
