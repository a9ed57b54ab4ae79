//! Which updates may be written next.
//!
//! A packet's way is a chain: the port's or tunnel's interface with its VPC, route, perhaps
//! group, next hop, interface and the neighbour on its link. The invariant:
//!
//! > An update leaves a packet's way as it was, or makes it what is wanted, or sends the packet
//! > to the slow path, whatever becomes of the other updates and in whatever order the switch
//! > does them. (It may also drop a packet whose interface is not there as it should be: the
//! > slow path would send by the same interface.)
//!
//! And when nothing can be written any more, no packet is left on a way that is not wanted, as
//! far as the switch lets it be sent to the slow path. A way here ends at a gateway's address
//! on a link: another MAC address for it is the same way. For this:
//!
//! 1. An entry is made or changed when all it leads to is as wanted. A port of a VPC whose
//!    routes alone forward leads to all routes of the VPC.
//! 2. What is led to is made, changed or removed when nothing leads to it that is to lead
//!    elsewhere: its packets would go where neither the old nor the new state has them.
//! 3. A prefix is touched when no longer prefix within it is still to be made: the shorter one
//!    would take its packets. Nor is anything touched that the shorter one leads to meanwhile.
//!    Longer prefixes go first.
//! 4. A prefix is removed when the one that takes over is as wanted, with all it leads to.
//!
//! What a refusal holds back thereby waits. Where nothing can go on (a refusal, or a circle of
//! entries that wait for one another), what is not as wanted is parked: sent to the slow path.
//! A prefix that cannot be made as wanted is made parked; if the switch refuses that too, the
//! shorter one that takes its packets is parked. What leads to a next hop or group that the
//! switch lets neither change nor park is parked itself.

use std::cell::OnceCell;
use std::collections::HashSet;

use shunt_p4::VpcId;
use shunt_p4::tables::P4Table;
use tokio::time::Instant;

use super::book::{Book, Held, hasher};
use super::reach::{Covers, Reach, is_among, leads_all, misleading_cover};
use super::row::{Row, Target};
use super::tables::Books;

/// The books as of one moment.
pub(super) struct Planner<'a> {
    books: &'a Books,
    reach: Reach<'a>,
    now: Instant,
    /// What entries lead to on the switch that are to lead elsewhere.
    in_use: HashSet<Target>,
    /// The deepest table that holds an entry of unknown content: it may lead to anything.
    unknown: u8,
    /// What prefixes lead to that take the packets of longer ones still to be made.
    borrowed: OnceCell<HashSet<Target>>,
    /// VPCs of which a route misleads packets.
    misleading: OnceCell<HashSet<VpcId>>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(books: &'a Books, now: Instant) -> Self {
        let mut planner = Self {
            books,
            reach: Reach::new(books),
            now,
            in_use: HashSet::new(),
            unknown: 0,
            borrowed: OnceCell::new(),
            misleading: OnceCell::new(),
        };
        planner.note_ports(&books.classify_port);
        planner.note_ports(&books.classify_vxlan);
        if !planner.ends_are_settled() {
            planner.note_users(&books.nexthop);
            planner.note_users(&books.ecmp);
            planner.note_users(&books.route4);
            planner.note_users(&books.route6);
        }
        planner
    }

    /// Whether nothing is to be done but routes and what leads to them.
    fn ends_are_settled(&self) -> bool {
        let books = self.books;
        books.egress_interface.pending_count()
            + books.neighbor4.pending_count()
            + books.neighbor6.pending_count()
            + books.nexthop.pending_count()
            + books.ecmp.pending_count()
            == 0
    }

    fn note_users<T: Row>(&mut self, book: &Book<T>) {
        for (_, held) in book.pending() {
            match held {
                Held::Nothing => {}
                Held::Entry(entry) => {
                    let Self { reach, in_use, .. } = self;
                    entry.each_target(&mut |target| reach.follow(target, in_use));
                }
                Held::Unknown => self.unknown = self.unknown.max(T::DEPTH),
            }
        }
    }

    /// A port leads to all that its VPC's routes lead to: anything.
    fn note_ports<T: Row>(&mut self, book: &Book<T>) {
        for (key, held) in book.pending() {
            let leads_elsewhere = match held {
                Held::Nothing => false,
                Held::Unknown => true,
                Held::Entry(entry) => {
                    let leads = !leads_all(entry, |_| false);
                    let wanted = book.wanted(key);
                    leads && !wanted.is_some_and(|wanted| entry.leads_alike(wanted))
                }
            };
            if leads_elsewhere {
                self.unknown = self.unknown.max(T::DEPTH);
            }
        }
    }

    fn may_go<T: Row>(&self, book: &Book<T>, key: &T::Key, held: &Held<T>) -> bool {
        let target = touched::<T>(key, held);
        book.is_due(key, self.now) && target.is_none_or(|target| self.is_free::<T>(target))
    }

    /// Rule 2.
    fn is_free<T: Row>(&self, target: Target) -> bool {
        let stations_change =
            matches!(target, Target::Interface(id) if self.reach.stations_change(id));
        self.unknown <= T::DEPTH && !is_among(&self.in_use, target) && !stations_change
    }

    /// Rule 1.
    fn leads_right<T: Row>(&self, entry: &T) -> bool {
        self.reach.leads_right(entry)
            && leads_all(entry, |target| match target {
                Target::Vpc(vpc) => !self.misleading().contains(&vpc),
                _ => true,
            })
    }

    fn misleading(&self) -> &HashSet<VpcId> {
        self.misleading.get_or_init(|| {
            let mut vpcs = HashSet::new();
            self.note_misleading(&self.books.route4, |key| key.vpc, &mut vpcs);
            self.note_misleading(&self.books.route6, |key| key.vpc, &mut vpcs);
            vpcs
        })
    }

    fn note_misleading<T: Row>(
        &self,
        book: &Book<T>,
        vpc: impl Fn(&T::Key) -> VpcId,
        into: &mut HashSet<VpcId>,
    ) {
        for (key, held) in book.pending() {
            let misleads = match held {
                Held::Nothing => misleading_cover(book, key).is_some(),
                Held::Entry(entry) => !entry.punts(),
                Held::Unknown => true,
            };
            if misleads {
                into.insert(vpc(key));
            }
        }
        if !self.ends_are_settled() {
            let settled = book.settled().filter(|entry| self.is_misled(*entry));
            into.extend(settled.map(|entry| vpc(&entry.key())));
        }
    }

    /// Whether an entry that is as wanted leads to what is not.
    fn is_misled<T: Row>(&self, entry: &T) -> bool {
        !leads_all(entry, |target| self.reach.is_safe(target))
    }

    /// Rule 3, for what prefixes lead to.
    fn is_borrowed<T: Row>(&self, key: &T::Key, held: &Held<T>) -> bool {
        match touched::<T>(key, held) {
            None | Some(Target::Vpc(_)) => false,
            Some(target) => {
                let borrowed = self.borrowed.get_or_init(|| {
                    let mut borrowed = HashSet::new();
                    self.note_borrowed(&self.books.route4, &mut borrowed);
                    self.note_borrowed(&self.books.route6, &mut borrowed);
                    borrowed
                });
                is_among(borrowed, target)
            }
        }
    }

    fn note_borrowed<T: Row>(&self, book: &Book<T>, into: &mut HashSet<Target>) {
        for key in book.missing() {
            // Of unknown content: rule 2 keeps everything as it is.
            if let Some((_, Held::Entry(cover))) = misleading_cover(book, key) {
                cover.each_target(&mut |target| self.reach.follow(target, into));
            }
        }
    }

    /// Keys whose wanted entries can be written now.
    pub(super) fn sets<T: Row>(&self, book: &Book<T>) -> Vec<T::Key> {
        let mut ready = Vec::new();
        let mut stuck = Vec::new();
        for (key, held) in book.pending() {
            let Some(wanted) = book.wanted(key) else {
                continue;
            };
            if self.may_go(book, key, held)
                && self.leads_right(wanted)
                && !self.is_borrowed::<T>(key, held)
            {
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
        for (key, held) in book.pending() {
            if book.wanted(key).is_none() && self.may_go(book, key, held) {
                ready.push(*key);
            }
        }
        if T::LONGEST > 0 && !ready.is_empty() {
            let missing: Vec<T::Key> = book.missing().copied().collect();
            let blocked = Covers::of::<T>(&missing, ready.iter());
            ready.retain(|key| !blocked.contains(key) && self.heir_is_right(book, key));
        }
        ready
    }

    /// Rule 4.
    fn heir_is_right<T: Row>(&self, book: &Book<T>, key: &T::Key) -> bool {
        for length in (0..T::length(key)).rev() {
            if !book.has_length(length) {
                continue;
            }
            let cover = T::cover(key, length);
            if book.is_settled(&cover) {
                match book.wanted(&cover) {
                    Some(heir) => return self.leads_right(heir),
                    None => continue,
                }
            }
            return matches!(book.held(&cover), Held::Entry(heir) if heir.punts());
        }
        true
    }

    /// Keys whose packets are to go to the slow path until what is wanted can be written.
    pub(super) fn parks<T: Row>(&self, book: &Book<T>) -> Vec<T::Key> {
        let mut keys = hashbrown::HashSet::with_hasher(hasher());
        for (key, held) in book.pending() {
            match held {
                Held::Nothing => keys.extend(self.park_for_missing(book, key)),
                held if self.is_stale(book, key, held) => {
                    keys.insert(*key);
                }
                _ => {}
            }
        }
        let stubborn = self.stubborn();
        if !stubborn.is_empty() {
            let misled = |entry: &&T| !leads_all(*entry, |target| !stubborn.contains(&target));
            keys.extend(book.settled().filter(misled).map(P4Table::key));
        }
        keys.retain(|key| book.may_park(key, self.now));
        keys.into_iter().collect()
    }

    fn is_stale<T: Row>(&self, book: &Book<T>, key: &T::Key, held: &Held<T>) -> bool {
        let wanted = book.wanted(key);
        let parked = T::parked(key, wanted, false);
        // What nobody wants has been removed already, if the switch lets it.
        if parked.is_none() && wanted.is_none() {
            return false;
        }
        match held {
            Held::Nothing => false,
            Held::Unknown => true,
            Held::Entry(entry) => !entry.punts() && parked.as_ref() != Some(entry),
        }
    }

    fn park_for_missing<T: Row>(&self, book: &Book<T>, key: &T::Key) -> Option<T::Key> {
        if T::LONGEST == 0 {
            let parked = T::parked(key, book.wanted(key), book.is_refused(key));
            return parked.filter(|_| T::DROPS_MISSES).map(|_| *key);
        }
        let (cover, _) = misleading_cover(book, key)?;
        if !book.is_refused(key) {
            return Some(*key);
        }
        // Another role's is not ours to change.
        (book.wanted(&cover).is_some() || !book.is_settled(&cover)).then_some(cover)
    }

    /// Next hops and groups that the switch lets neither change nor park.
    fn stubborn(&self) -> HashSet<Target> {
        let mut stubborn = HashSet::new();
        self.note_stubborn(&self.books.nexthop, &mut stubborn);
        self.note_stubborn(&self.books.ecmp, &mut stubborn);
        stubborn
    }

    fn note_stubborn<T: Row>(&self, book: &Book<T>, into: &mut HashSet<Target>) {
        let pending = book.pending();
        let stubborn = pending
            .filter(|(key, held)| self.is_stale(book, key, held) && !book.may_park(key, self.now));
        into.extend(stubborn.filter_map(|(key, _)| T::target(key)));
    }
}

/// What packets are led to otherwise when a key is written.
fn touched<T: Row>(key: &T::Key, held: &Held<T>) -> Option<Target> {
    match held {
        Held::Nothing => T::opens(key),
        _ => T::target(key),
    }
}
