//! Which updates may be written next: those that leave every packet where it was or take it
//! where it belongs, whatever becomes of the others and in whatever order the switch does them.
//!
//! A packet's way is a chain: route, perhaps group, next hop, interface. Four rules:
//!
//! 1. An entry is made or changed when all it leads to is as wanted.
//! 2. What is led to is made, changed or removed when nothing leads to it that is to lead
//!    elsewhere: its packets would go where neither the old nor the new state has them.
//! 3. A prefix is touched when no longer prefix within it is still to be made: the shorter one
//!    would take its packets. Longer prefixes go first.
//! 4. A prefix is removed when the one that takes over is as wanted, with all it leads to.
//!
//! What a refusal holds back thereby waits. Where nothing can go on (a refusal, or a circle of
//! entries that wait for one another), entries in the way are parked: sent to the slow path.

use std::collections::HashSet;

use tokio::time::Instant;

use super::book::{Book, Held};
use super::row::{Row, Target};
use super::tables::Books;

/// The books as of one moment.
pub(super) struct Planner<'a> {
    books: &'a Books,
    now: Instant,
    /// What entries lead to on the switch that are to be otherwise.
    in_use: HashSet<Target>,
    /// The deepest table that holds an entry of unknown content: it may lead to anything.
    unknown: u8,
}

impl<'a> Planner<'a> {
    pub(super) fn new(books: &'a Books, now: Instant) -> Self {
        let mut planner = Self {
            books,
            now,
            in_use: HashSet::new(),
            unknown: 0,
        };
        if planner.targets_are_settled() {
            return planner;
        }
        planner.note_users(&books.nexthop);
        planner.note_users(&books.ecmp);
        planner.note_users(&books.route4);
        planner.note_users(&books.route6);
        planner
    }

    fn targets_are_settled(&self) -> bool {
        let Books {
            egress_interface,
            nexthop,
            ecmp,
            ..
        } = self.books;
        egress_interface.pending_count() + nexthop.pending_count() + ecmp.pending_count() == 0
    }

    fn note_users<T: Row>(&mut self, book: &Book<T>) {
        for (_, held) in book.pending() {
            match held {
                Held::Nothing => {}
                Held::Entry(entry) => entry.each_target(&mut |target| self.use_of(target)),
                Held::Unknown => self.unknown = self.unknown.max(T::DEPTH),
            }
        }
    }

    fn use_of(&mut self, target: Target) {
        if self.in_use.insert(target) {
            let books = self.books;
            each_held_target(books, target, &mut |next| self.use_of(next));
        }
    }

    /// Rule 2.
    fn is_free<T: Row>(&self, key: &T::Key) -> bool {
        match T::target(key) {
            Some(target) => self.unknown <= T::DEPTH && !self.in_use.contains(&target),
            None => true,
        }
    }

    /// Rule 1: whether everything that the entry leads to is as wanted, to the end.
    fn leads_right<T: Row>(&self, entry: &T) -> bool {
        let mut right = true;
        entry.each_target(&mut |target| right = right && self.is_right(target));
        right
    }

    fn is_right(&self, target: Target) -> bool {
        match target {
            Target::Interface(interface) => {
                let key = shunt_p4::tables::EgressInterfaceKey { interface };
                self.books.egress_interface.is_settled(&key)
            }
            Target::Nexthop(nexthop) => {
                let key = shunt_p4::tables::NexthopKey { nexthop };
                let book = &self.books.nexthop;
                book.is_settled(&key) && book.wanted(&key).is_none_or(|e| self.leads_right(e))
            }
            Target::Group(group) => {
                let key = shunt_p4::tables::EcmpKey { group };
                let book = &self.books.ecmp;
                book.is_settled(&key) && book.wanted(&key).is_none_or(|e| self.leads_right(e))
            }
        }
    }

    fn may_go<T: Row>(&self, book: &Book<T>, key: &T::Key) -> bool {
        book.is_due(key, self.now) && self.is_free::<T>(key)
    }

    /// Keys whose wanted entries can be written now.
    pub(super) fn sets<T: Row>(&self, book: &Book<T>) -> Vec<T::Key> {
        let mut ready = Vec::new();
        let mut stuck = Vec::new();
        for (key, held) in book.pending() {
            let Some(wanted) = book.wanted(key) else {
                continue;
            };
            if self.may_go(book, key) && self.leads_right(wanted) {
                ready.push((*key, *held == Held::Nothing));
            } else if *held == Held::Nothing {
                stuck.push(*key);
            }
        }
        if T::LONGEST > 0 {
            let blocked = Covers::of::<T>(&stuck, ready.iter().map(|(key, _)| key));
            ready.retain(|(key, _)| !blocked.contains(key));
            let missing = ready.iter().filter(|(_, missing)| *missing);
            if let Some(longest) = missing.map(|(key, _)| T::length(key)).max() {
                ready.retain(|(key, _)| T::length(key) >= longest);
            }
        }
        ready.into_iter().map(|(key, _)| key).collect()
    }

    /// Keys whose entries nobody wants and that can be removed now.
    pub(super) fn removals<T: Row>(&self, book: &Book<T>) -> Vec<T::Key> {
        let mut ready = Vec::new();
        let mut missing = Vec::new();
        let mut lengths = [false; 129];
        for (key, held) in book.pending() {
            if let Some(length) = lengths.get_mut(usize::from(T::length(key))) {
                *length = true;
            }
            if book.wanted(key).is_some() {
                if *held == Held::Nothing {
                    missing.push(*key);
                }
            } else if self.may_go(book, key) {
                ready.push(*key);
            }
        }
        if T::LONGEST > 0 {
            let blocked = Covers::of::<T>(&missing, ready.iter());
            let has = |length: u8| {
                lengths.get(usize::from(length)).is_some_and(|has| *has) || book.has_length(length)
            };
            ready.retain(|key| !blocked.contains(key) && self.heir_is_right(book, key, &has));
        }
        ready
    }

    /// Rule 4.
    fn heir_is_right<T: Row>(
        &self,
        book: &Book<T>,
        key: &T::Key,
        has: &dyn Fn(u8) -> bool,
    ) -> bool {
        for length in (0..T::length(key)).rev().filter(|length| has(*length)) {
            let cover = T::cover(key, length);
            if !book.is_settled(&cover) {
                return false;
            }
            if let Some(heir) = book.wanted(&cover) {
                return self.leads_right(heir);
            }
        }
        true
    }

    /// Keys whose entries are in the way of others, and are to be parked.
    pub(super) fn parks<T: Row>(&self, book: &Book<T>) -> Vec<T::Key> {
        let in_the_way = |key: &T::Key, held: &Held<T>| match held {
            Held::Nothing => false,
            Held::Unknown => true,
            Held::Entry(entry) => {
                T::parked(key).as_ref() != Some(entry) && {
                    let mut right = true;
                    entry.each_target(&mut |target| right = right && self.is_held_right(target));
                    !right
                }
            }
        };
        book.pending()
            .filter(|(key, held)| T::parked(key).is_some() && in_the_way(key, held))
            .filter(|(key, _)| self.may_go(book, key))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Whether everything that a target leads to on the switch stays as it is.
    fn is_held_right(&self, target: Target) -> bool {
        let settled = match target {
            Target::Interface(_) => return self.is_right(target),
            Target::Nexthop(nexthop) => {
                let key = shunt_p4::tables::NexthopKey { nexthop };
                self.books.nexthop.is_settled(&key)
            }
            Target::Group(group) => {
                let key = shunt_p4::tables::EcmpKey { group };
                self.books.ecmp.is_settled(&key)
            }
        };
        let mut right = settled;
        each_held_target(self.books, target, &mut |next| {
            right = right && self.is_held_right(next);
        });
        right
    }
}

/// What a target leads to on the switch.
fn each_held_target(books: &Books, target: Target, each: &mut dyn FnMut(Target)) {
    match target {
        Target::Interface(_) => {}
        Target::Nexthop(nexthop) => {
            let key = shunt_p4::tables::NexthopKey { nexthop };
            if let Held::Entry(entry) = books.nexthop.held(&key) {
                entry.each_target(each);
            }
        }
        Target::Group(group) => {
            let key = shunt_p4::tables::EcmpKey { group };
            if let Held::Entry(entry) = books.ecmp.held(&key) {
                entry.each_target(each);
            }
        }
    }
}

/// Prefixes that cover others.
struct Covers<K>(HashSet<K>);

impl<K: Copy + Eq + std::hash::Hash> Covers<K> {
    /// Those of `among` lengths that cover one of `inner`.
    fn of<'k, T: Row<Key = K>>(inner: &[K], among: impl Iterator<Item = &'k K>) -> Self
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

    fn contains(&self, key: &K) -> bool {
        self.0.contains(key)
    }
}
