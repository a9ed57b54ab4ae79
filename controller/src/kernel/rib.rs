//! The kernel's routes as the kernel orders them: per table and prefix a list, of which the first
//! usable one counts.
//!
//! IPv4 keys a route by (prefix, TOS, metric), and among equals by the order of adding
//! (`fib_table_insert`); IPv6 by (prefix, metric), joins routes through gateways into one
//! multipath route, and always tells of the whole of it when one is added, but only of the part
//! when one is removed (`fib6_add_rt2node`, `fib6_del_route`).

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Range;

use ipnet::IpNet;

use super::message::{Path, Placement, RouteInfo, RouteType};

mod compare;

/// A table's number and a prefix.
pub(crate) type RouteKey = (u32, IpNet);

/// A route without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) tos: u8,
    pub(crate) metric: u32,
    pub(crate) kind: RouteType,
    pub(crate) protocol: u8,
    pub(crate) nexthop: Option<NonZeroU32>,
    pub(crate) mtu: Option<NonZeroU16>,
    extras: u64,
    pub(crate) paths: Box<[Path]>,
}

impl Entry {
    fn new(info: RouteInfo) -> Self {
        Self {
            tos: info.tos,
            metric: info.metric,
            kind: info.kind,
            protocol: info.protocol,
            nexthop: info.nexthop,
            mtu: info.mtu,
            extras: info.extras,
            paths: info.paths.into(),
        }
    }

    /// With its key again.
    #[cfg(test)]
    pub(crate) fn info(&self, key: RouteKey) -> RouteInfo {
        RouteInfo {
            table: key.0,
            prefix: key.1,
            tos: self.tos,
            metric: self.metric,
            kind: self.kind,
            protocol: self.protocol,
            nexthop: self.nexthop,
            mtu: self.mtu,
            extras: self.extras,
            paths: self.paths.to_vec(),
        }
    }

    /// Whether IPv6 joins it with others of its metric (`rt6_qualify_for_ecmp`).
    fn joins(&self) -> bool {
        self.nexthop.is_none()
            && !self.paths.is_empty()
            && self.paths.iter().all(|path| path.gateway.is_some())
    }

    /// The same route, whatever the state of its devices (`fib_find_info`). With a next-hop
    /// object the object says where it leads, and the paths are its expansion at the time.
    fn same_route(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.nexthop == other.nexthop
            && self.protocol == other.protocol
            && self.extras == other.extras
            && (self.nexthop.is_some()
                || self.paths.len() == other.paths.len()
                    && self
                        .paths
                        .iter()
                        .zip(&other.paths)
                        .all(|(a, b)| same_hop(a, b) && a.weight == b.weight))
    }
}

fn same_hop(a: &Path, b: &Path) -> bool {
    a.index == b.index && a.gateway == b.gateway
}

/// What a message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unchanged,
    Changed,
    /// It does not fit what is known: the family must be dumped anew.
    Unclear,
}

/// The routes of a prefix, in the kernel's order.
#[derive(Debug, Default)]
struct List {
    /// Without room to spare: nearly every prefix has one route, and there may be a million.
    entries: Box<[Entry]>,
    /// How many of them the dump that is being read has told of, from the first one on.
    confirmed: u32,
}

/// The routes.
#[derive(Debug, Default)]
pub(crate) struct Rib {
    routes: HashMap<RouteKey, List>,
    /// Whether something may be confirmed.
    comparing: bool,
}

impl Rib {
    /// The routes of a prefix, in the kernel's order.
    pub(crate) fn get(&self, key: &RouteKey) -> &[Entry] {
        self.routes.get(key).map_or(&[], |list| &list.entries)
    }

    /// Every prefix with its routes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RouteKey, &[Entry])> {
        self.routes.iter().map(|(key, list)| (key, &*list.entries))
    }

    /// Adds or replaces.
    pub(crate) fn insert(&mut self, info: RouteInfo, placement: Placement) -> Outcome {
        let key = (info.table, info.prefix);
        let entry = Entry::new(info);
        let list = self.routes.entry(key).or_default();
        list.change(1, |list| match key.1 {
            IpNet::V4(_) => insert_v4(list, entry, placement),
            IpNet::V6(_) => insert_v6(list, entry, placement),
        })
    }

    /// Removes. A route that is not there is none: an older message after a dump.
    pub(crate) fn remove(&mut self, info: RouteInfo) -> Outcome {
        let key = (info.table, info.prefix);
        let entry = Entry::new(info);
        let Some(list) = self.routes.get_mut(&key) else {
            return Outcome::Unchanged;
        };
        let outcome = list.change(0, |list| {
            let range = equals(list, &entry);
            let candidates = list.get(range.clone()).unwrap_or(&[]);
            if candidates.is_empty() {
                Outcome::Unchanged
            } else if let Some(at) = candidates.iter().position(|have| have.same_route(&entry)) {
                list.remove(range.start + at);
                Outcome::Changed
            } else if matches!(key.1, IpNet::V6(_)) && entry.joins() {
                remove_hops(list, range, &entry)
            } else {
                Outcome::Unclear
            }
        });
        if list.entries.is_empty() {
            self.routes.remove(&key);
        }
        outcome
    }

    /// Removes the routes of a next-hop object, and returns their keys.
    pub(crate) fn remove_nexthop(&mut self, id: u32) -> Vec<RouteKey> {
        let mut removed = Vec::new();
        self.routes.retain(|key, list| {
            let uses = |entry: &Entry| entry.nexthop.map(NonZeroU32::get) == Some(id);
            if list.entries.iter().any(uses) {
                list.change(0, |entries| entries.retain(|entry| !uses(entry)));
                removed.push(*key);
            }
            !list.entries.is_empty()
        });
        removed
    }
}

/// Where the routes of the same TOS and metric are, or would be.
fn equals(list: &[Entry], entry: &Entry) -> Range<usize> {
    let rank = |have: &Entry| (std::cmp::Reverse(have.tos), have.metric);
    let start = list.partition_point(|have| rank(have) < rank(entry));
    let end = list.partition_point(|have| rank(have) <= rank(entry));
    start..end
}

fn put(slot: Option<&mut Entry>, entry: Entry) -> Outcome {
    match slot {
        Some(have) if *have != entry => *have = entry,
        _ => return Outcome::Unchanged,
    }
    Outcome::Changed
}

fn insert_v4(list: &mut Vec<Entry>, entry: Entry, placement: Placement) -> Outcome {
    let range = equals(list, &entry);
    // Known already: a message from before a dump, or its next-hop object was replaced, of which
    // the kernel tells as if each route were (`fib_info_notify_update`).
    let known = list
        .get_mut(range.clone())
        .and_then(|equal| equal.iter_mut().find(|have| have.same_route(&entry)));
    if known.is_some() {
        return put(known, entry);
    }
    if placement == Placement::Replace && !range.is_empty() {
        return put(list.get_mut(range.start), entry);
    }
    let at = match placement {
        Placement::Last => range.end,
        Placement::First | Placement::Replace => range.start,
    };
    list.insert(at, entry);
    Outcome::Changed
}

fn insert_v6(list: &mut Vec<Entry>, entry: Entry, placement: Placement) -> Outcome {
    let range = equals(list, &entry);
    let equal = list.get(range.clone()).unwrap_or(&[]);
    let joins = entry.joins();
    let known = equal.iter().position(|have| have.same_route(&entry));
    let at = if placement == Placement::Replace {
        // The first that is joined as this one is, else the first.
        let alike = equal.iter().position(|have| have.joins() == joins);
        let at = alike.or((!equal.is_empty()).then_some(0));
        if known.is_some() && known != at {
            // The next-hop object of the known one changed, or there are now two of it.
            return Outcome::Unclear;
        }
        at
    } else if joins {
        // The message carries every path of the joined route.
        equal.iter().position(Entry::joins)
    } else {
        known
    };
    let Some(at) = at else {
        list.insert(range.end, entry);
        return Outcome::Changed;
    };
    let slot = list.get_mut(range.start + at);
    let mixed = joins
        && placement != Placement::Replace
        && slot.as_ref().is_some_and(|have| have.mtu != entry.mtu);
    // Of paths with different metrics the message tells those of the new one, a dump those of the
    // first.
    let outcome = put(slot, entry);
    if mixed { Outcome::Unclear } else { outcome }
}

/// Takes single paths out of a joined route.
fn remove_hops(list: &mut Vec<Entry>, range: Range<usize>, gone: &Entry) -> Outcome {
    let joined = list
        .get_mut(range.clone())
        .and_then(|equal| equal.iter_mut().enumerate().find(|(_, have)| have.joins()));
    let Some((at, have)) = joined else {
        return Outcome::Unchanged;
    };
    let left: Vec<Path> = have
        .paths
        .iter()
        .filter(|path| !gone.paths.iter().any(|hop| same_hop(path, hop)))
        .cloned()
        .collect();
    if left.len() == have.paths.len() {
        return Outcome::Unchanged;
    }
    if left.is_empty() {
        list.remove(range.start + at);
    } else {
        have.paths = left.into();
        if range.len() > 1 || have.mtu != gone.mtu {
            // The paths need not lie side by side: what is left may stand behind another route,
            // or let larger packets through.
            return Outcome::Unclear;
        }
    }
    Outcome::Changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, metric: u32, hops: &[(u32, Option<&str>)]) -> RouteInfo {
        RouteInfo {
            table: 101,
            prefix: prefix.parse().unwrap(),
            tos: 0,
            metric,
            kind: RouteType::Unicast,
            protocol: 3,
            nexthop: None,
            mtu: None,
            extras: 0,
            paths: hops
                .iter()
                .map(|&(index, gateway)| Path {
                    index,
                    gateway: gateway.map(|text| text.parse().unwrap()),
                    weight: 1,
                    flags: 0,
                    encapsulated: false,
                })
                .collect(),
        }
    }

    fn first(rib: &Rib, prefix: &str) -> Vec<u32> {
        rib.get(&(101, prefix.parse().unwrap()))
            .first()
            .map(|entry| entry.paths.iter().map(|path| path.index).collect())
            .unwrap_or_default()
    }

    #[test]
    fn v4_keeps_the_order_of_the_kernel() {
        let mut rib = Rib::default();
        let p = "10.0.0.0/8";
        rib.insert(route(p, 100, &[(1, None)]), Placement::First);
        rib.insert(route(p, 50, &[(2, None)]), Placement::First);
        assert_eq!(first(&rib, p), [2]);
        rib.insert(route(p, 50, &[(3, None)]), Placement::Last);
        assert_eq!(first(&rib, p), [2]);
        rib.insert(route(p, 50, &[(4, None)]), Placement::First);
        assert_eq!(first(&rib, p), [4]);
        rib.insert(route(p, 50, &[(5, None)]), Placement::Replace);
        assert_eq!(first(&rib, p), [5]);
        assert_eq!(rib.remove(route(p, 50, &[(5, None)])), Outcome::Changed);
        assert_eq!(first(&rib, p), [2]);
        // Which of two is meant is not known.
        assert_eq!(rib.remove(route(p, 50, &[(9, None)])), Outcome::Unclear);
        assert_eq!(rib.remove(route(p, 51, &[(9, None)])), Outcome::Unchanged);
        for index in [2, 3] {
            rib.remove(route(p, 50, &[(index, None)]));
        }
        assert_eq!(first(&rib, p), [1]);
        rib.remove(route(p, 100, &[(1, None)]));
        assert_eq!(rib.iter().count(), 0);
    }

    #[test]
    fn v6_joins_gateways_and_parts_them() {
        let mut rib = Rib::default();
        let p = "2001:db8::/32";
        rib.insert(route(p, 1024, &[(1, Some("fe80::1"))]), Placement::First);
        let both = [(1, Some("fe80::1")), (2, Some("fe80::2"))];
        rib.insert(route(p, 1024, &both), Placement::Last);
        assert_eq!(first(&rib, p), [1, 2]);
        let gone = route(p, 1024, &[(1, Some("fe80::1"))]);
        assert_eq!(rib.remove(gone.clone()), Outcome::Changed);
        assert_eq!(first(&rib, p), [2]);
        assert_eq!(rib.remove(gone), Outcome::Unchanged);
        // A device route of the same metric is a route of its own, behind.
        rib.insert(route(p, 1024, &[(3, None)]), Placement::Last);
        assert_eq!(first(&rib, p), [2]);
        rib.insert(route(p, 1024, &[(4, None)]), Placement::Replace);
        assert_eq!(first(&rib, p), [2]);
        rib.remove(route(p, 1024, &[(2, Some("fe80::2"))]));
        assert_eq!(first(&rib, p), [4]);
    }

    #[test]
    fn a_nexthop_object_takes_its_routes_with_it() {
        let mut rib = Rib::default();
        let mut info = route("10.0.0.0/8", 0, &[(1, None)]);
        info.nexthop = NonZeroU32::new(7);
        rib.insert(info, Placement::First);
        rib.insert(route("10.0.0.0/8", 9, &[(2, None)]), Placement::First);
        assert_eq!(rib.remove_nexthop(7).len(), 1);
        assert_eq!(first(&rib, "10.0.0.0/8"), [2]);
    }
}
