//! Where entries lead: on the switch as it is, and as it should be.

use std::collections::HashSet;
use std::net::IpAddr;

use shunt_p4::tables::{EcmpKey, EgressInterfaceKey, Neighbor4Key, Neighbor6Key, NexthopKey};
use shunt_p4::{EcmpGroupId, InterfaceId, NexthopId};

use super::book::{Book, Held};
use super::row::{Row, Target};
use super::tables::Books;

const fn interface_key(interface: InterfaceId) -> EgressInterfaceKey {
    EgressInterfaceKey { interface }
}

const fn nexthop_key(nexthop: NexthopId) -> NexthopKey {
    NexthopKey { nexthop }
}

const fn group_key(group: EcmpGroupId) -> EcmpKey {
    EcmpKey { group }
}

/// Whether all that an entry leads to is something.
pub(super) fn leads_all<T: Row>(entry: &T, mut is: impl FnMut(Target) -> bool) -> bool {
    let mut all = true;
    entry.each_target(&mut |target| all = all && is(target));
    all
}

/// Follows entries of the books from table to table.
#[derive(Debug)]
pub(super) struct Reach<'a> {
    books: &'a Books,
    /// Interfaces with stations on the switch that are to be others.
    stations: HashSet<InterfaceId>,
}

impl<'a> Reach<'a> {
    pub(super) fn new(books: &'a Books) -> Self {
        let mut stations = HashSet::new();
        let held = books.neighbor4.pending();
        let held = held.filter(|(_, held)| **held != Held::Nothing);
        stations.extend(held.map(|(key, _)| key.interface));
        let held = books.neighbor6.pending();
        let held = held.filter(|(_, held)| **held != Held::Nothing);
        stations.extend(held.map(|(key, _)| key.interface));
        Self { books, stations }
    }

    /// Whether stations on an interface's link are to be others.
    pub(super) fn stations_change(&self, interface: InterfaceId) -> bool {
        self.stations.contains(&interface)
    }

    /// Whether everything that an entry leads to is as wanted, to the end. Routes are not
    /// looked at here: see [`super::plan::Planner`].
    pub(super) fn leads_right<T: Row>(&self, entry: &T) -> bool {
        leads_all(entry, |target| self.is_right(target))
    }

    fn is_right(&self, target: Target) -> bool {
        let books = self.books;
        match target {
            Target::Interface(id) => books.egress_interface.is_settled(&interface_key(id)),
            Target::Station(..) | Target::Stations(_) => self.has_right_stations(target),
            Target::Nexthop(id) => self.is_right_in(&books.nexthop, &nexthop_key(id)),
            Target::Group(id) => self.is_right_in(&books.ecmp, &group_key(id)),
            Target::Vpc(_) => true,
        }
    }

    /// One that is not there is right: packets to it go to the slow path.
    fn has_right_stations(&self, target: Target) -> bool {
        match target {
            Target::Station(interface, _) if !self.stations_change(interface) => true,
            Target::Station(interface, IpAddr::V4(address)) => {
                is_right_or_missing(&self.books.neighbor4, Neighbor4Key { interface, address })
            }
            Target::Station(interface, IpAddr::V6(address)) => {
                is_right_or_missing(&self.books.neighbor6, Neighbor6Key { interface, address })
            }
            Target::Stations(interface) => !self.stations_change(interface),
            _ => true,
        }
    }

    fn is_right_in<T: Row>(&self, book: &Book<T>, key: &T::Key) -> bool {
        book.is_settled(key) && book.wanted(key).is_none_or(|entry| self.leads_right(entry))
    }

    /// Whether packets that are led to a target go where they should or to the slow path (or
    /// nowhere, where they should leave by an interface that is not there yet).
    pub(super) fn is_safe(&self, target: Target) -> bool {
        let books = self.books;
        match target {
            Target::Interface(id) => {
                is_right_or_missing(&books.egress_interface, interface_key(id))
            }
            Target::Station(..) | Target::Stations(_) => self.has_right_stations(target),
            Target::Nexthop(id) => self.is_safe_in(&books.nexthop, &nexthop_key(id)),
            Target::Group(id) => self.is_safe_in(&books.ecmp, &group_key(id)),
            Target::Vpc(_) => true,
        }
    }

    fn is_safe_in<T: Row>(&self, book: &Book<T>, key: &T::Key) -> bool {
        match book.held(key) {
            Held::Nothing => true,
            Held::Unknown => false,
            Held::Entry(entry) if book.is_settled(key) => {
                leads_all(&entry, |target| self.is_safe(target))
            }
            Held::Entry(entry) => entry.punts(),
        }
    }

    /// Adds a target to a set, with all that it leads to on the switch.
    pub(super) fn follow(&self, target: Target, into: &mut HashSet<Target>) {
        if !into.insert(target) {
            return;
        }
        let mut next = |target| self.follow(target, into);
        match target {
            Target::Nexthop(id) => {
                if let Held::Entry(entry) = self.books.nexthop.held(&nexthop_key(id)) {
                    entry.each_target(&mut next);
                }
            }
            Target::Group(id) => {
                if let Held::Entry(entry) = self.books.ecmp.held(&group_key(id)) {
                    entry.each_target(&mut next);
                }
            }
            _ => {}
        }
    }
}

fn is_right_or_missing<T: Row>(book: &Book<T>, key: T::Key) -> bool {
    book.is_settled(&key) || book.held(&key) == Held::Nothing
}

/// Whether a target is in a set that [`Reach::follow`] made.
pub(super) fn is_among(targets: &HashSet<Target>, target: Target) -> bool {
    targets.contains(&target)
        || matches!(target, Target::Station(id, _) if targets.contains(&Target::Stations(id)))
}

/// The prefix that takes the packets of a missing one, where it does not send them to the slow
/// path.
pub(super) fn misleading_cover<T: Row>(
    book: &Book<T>,
    missing: &T::Key,
) -> Option<(T::Key, Held<T>)> {
    let lengths = (0..T::length(missing)).rev();
    let covers = lengths.filter(|length| book.holds_length(*length));
    let held = covers.map(|length| {
        let cover = T::cover(missing, length);
        (cover, book.held(&cover))
    });
    let mut held = held.filter(|(_, held)| *held != Held::Nothing);
    let (cover, held) = held.next()?;
    match held {
        Held::Entry(entry) if entry.punts() => None,
        held => Some((cover, held)),
    }
}

/// Prefixes that cover others.
pub(super) struct Covers<K>(HashSet<K>);

impl<K: Copy + Eq + std::hash::Hash> Covers<K> {
    /// Those of `among` lengths that cover one of `inner`.
    pub(super) fn of<'k, T: Row<Key = K>>(inner: &[K], among: impl Iterator<Item = &'k K>) -> Self
    where
        K: 'k,
    {
        let mut covers = HashSet::new();
        if inner.is_empty() {
            return Self(covers);
        }
        let mut lengths: Vec<u8> = among.map(T::length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        for key in inner {
            for length in lengths.iter().filter(|length| **length < T::length(key)) {
                covers.insert(T::cover(key, *length));
            }
        }
        Self(covers)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.0.contains(key)
    }
}
