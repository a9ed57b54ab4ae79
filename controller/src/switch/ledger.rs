//! What the switch should hold, what it holds, and the writes that lead from one to the other.
//! Pure: time comes as an argument, and the writes are somebody else's.

use std::net::Ipv4Addr;

use p4runtime::p4::v1::{self as pb, TableEntry, update};
use shunt_p4::VpcId;
use shunt_p4::tables::{AnyEntry, Numbers, P4Table, Route4Action, Route4Key};
use tokio::time::Instant;
use tonic::Code;

use super::book::{Book, Held};
use super::diff::{Difference, Found, Kind};
use super::lower::Change;
use super::plan::Planner;
use super::row::Row;
use super::tables::{Books, Reading, Table, each_table};

/// Updates of one phase: encoded requests of some megabytes at a time, not of everything.
const PHASE_UPDATES_MAX: usize = 16_384;

/// What a plan does with its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    Set,
    Remove,
    Park,
}

/// Wanted against held.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    books: Books,
    /// Entries of the switch that no type of ours can say; to be removed.
    foreign: Vec<TableEntry>,
    /// Of these, the ones that another role does not let go.
    foreign_left: Vec<TableEntry>,
    /// The keys in one book's plan, and what is done with them. Gone when a change is wanted.
    plan: Option<(Table, Intent)>,
    /// Whose answer is awaited.
    in_flight: Option<InFlight>,
}

#[derive(Clone, Copy, Debug)]
enum InFlight {
    Foreign,
    Table(Table, Intent),
}

/// Applies a macro-like body to every book; `$book` is bound to each in turn.
macro_rules! for_each_book {
    ($books:expr, $book:ident => $body:expr) => {{
        macro_rules! one {
            ($field:ident, $entry:ident) => {{
                let $book = &$books.$field;
                $body;
            }};
        }
        each_table!(one);
    }};
}

macro_rules! for_each_book_mut {
    ($books:expr, $book:ident => $body:expr) => {{
        macro_rules! one {
            ($field:ident, $entry:ident) => {{
                let $book = &mut $books.$field;
                $body;
            }};
        }
        each_table!(one);
    }};
}

/// Does something with the book of one table.
macro_rules! with_book_mut {
    ($books:expr, $table:expr, $book:ident => $body:expr) => {
        match $table {
            Table::egress_interface => {
                let $book = &mut $books.egress_interface;
                $body
            }
            Table::neighbor4 => {
                let $book = &mut $books.neighbor4;
                $body
            }
            Table::neighbor6 => {
                let $book = &mut $books.neighbor6;
                $body
            }
            Table::punt => {
                let $book = &mut $books.punt;
                $body
            }
            Table::nexthop => {
                let $book = &mut $books.nexthop;
                $body
            }
            Table::ecmp => {
                let $book = &mut $books.ecmp;
                $body
            }
            Table::route4 => {
                let $book = &mut $books.route4;
                $body
            }
            Table::route6 => {
                let $book = &mut $books.route6;
                $body
            }
            Table::classify_port => {
                let $book = &mut $books.classify_port;
                $body
            }
            Table::classify_vxlan => {
                let $book = &mut $books.classify_vxlan;
                $body
            }
        }
    };
}

impl Ledger {
    /// Notes what is wanted from now on.
    pub(crate) fn want(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.drop_plan();
        for change in changes {
            match change {
                Change::Set(entry) => self.books.set(entry),
                Change::Remove(entry) => self.books.unset(&entry),
            }
        }
    }

    fn drop_plan(&mut self) {
        if self.plan.take().is_some() {
            for_each_book_mut!(self.books, book => book.plan.clear());
        }
    }

    /// Takes the switch's word for what it holds: everything, from now on.
    pub(crate) fn read_back(&mut self, reading: Reading) {
        self.drop_plan();
        self.in_flight = None;
        macro_rules! one {
            ($field:ident, $entry:ident) => {
                self.books.$field.read_back(&reading.$field)
            };
        }
        each_table!(one);
        let (left, foreign) = reading
            .foreign
            .into_iter()
            .map(|(raw, _)| raw)
            .partition(|raw| self.foreign_left.contains(raw));
        self.foreign_left = left;
        self.foreign = foreign;
    }

    /// A new session: what another role did not let go may be free now.
    pub(crate) fn forget_others(&mut self) {
        self.foreign_left.clear();
        for_each_book_mut!(self.books, book => book.forget_others());
    }

    /// Where a reading is not as wanted. Changes nothing.
    pub(crate) fn differences(&self, reading: &Reading) -> Vec<Difference> {
        let mut found = Vec::new();
        macro_rules! one {
            ($field:ident, $entry:ident) => {{
                let book = &self.books.$field;
                book.differences(&reading.$field, |key, held| {
                    if book.is_left(&key, &held) {
                        return;
                    }
                    found.push(Difference {
                        wanted: book.wanted(&key).cloned().map(AnyEntry::from),
                        found: match held {
                            Held::Entry(entry) => Found::Entry(entry.into()),
                            Held::Nothing | Held::Unknown => Found::Nothing,
                        },
                    });
                });
            }};
        }
        each_table!(one);
        let foreign = reading.foreign.iter();
        let foreign = foreign.filter(|(raw, _)| !self.foreign_left.contains(raw));
        found.extend(foreign.map(|(raw, error)| Difference {
            wanted: None,
            found: Found::Foreign(Box::new(raw.clone()), error.clone()),
        }));
        found
    }

    /// How many differences there are of each kind.
    pub(crate) fn pending_kinds(&self) -> Vec<(Kind, u64)> {
        let mut counts =
            [Kind::Missing, Kind::Different, Kind::Surplus, Kind::Foreign].map(|kind| (kind, 0));
        let [missing, different, surplus, foreign] = &mut counts;
        for_each_book!(self.books, book => for (key, held) in book.pending() {
            match (book.wanted(key), held) {
                (Some(_), Held::Nothing) => missing.1 += 1,
                (Some(_), _) => different.1 += 1,
                (None, _) => surplus.1 += 1,
            }
        });
        foreign.1 = self.foreign.len() as u64;
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// How a VPC is to route an address.
    pub(crate) fn routing(&self, vpc: VpcId, to: Ipv4Addr) -> Option<Route4Action> {
        let dst = to.into();
        let route = self.books.route4.longest(&Route4Key { vpc, dst });
        route.map(|route| route.action)
    }

    /// Entries wanted.
    pub(crate) fn wanted_count(&self) -> usize {
        let mut count = 0;
        for_each_book!(self.books, book => count += book.wanted_count());
        count
    }

    /// Entries that are not as they should be, or not known to be.
    pub(crate) fn pending_count(&self) -> usize {
        let mut count = self.foreign.len();
        for_each_book!(self.books, book => count += book.pending_count());
        count
    }

    /// Those of them that the switch has refused.
    pub(crate) fn refused_count(&self) -> usize {
        let mut count = 0;
        for_each_book!(self.books, book => count += book.refused_count());
        count
    }

    /// Entries of the switch that belong to another role.
    pub(crate) fn others_count(&self) -> usize {
        let mut count = self.foreign_left.len();
        for_each_book!(self.books, book => count += book.others_count());
        count
    }

    /// Entries that the switch is known to hold, by table.
    pub(crate) fn held_by_table(&self) -> Vec<(&'static str, u64)> {
        let mut counts = Vec::new();
        macro_rules! one {
            ($field:ident, $entry:ident) => {{
                let held = self.books.$field.held_count() as u64;
                if held > 0 {
                    counts.push((shunt_p4::tables::$entry::NAME, held));
                }
            }};
        }
        each_table!(one);
        counts
    }

    /// When the next refused update is due, after nothing was to be written at a moment.
    pub(crate) fn next_retry(&self, after: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for_each_book!(self.books, book => {
            let at = book.next_retry(after);
            next = [next, at].into_iter().flatten().min();
        });
        next
    }

    /// The next writes, which the switch may do in any order; none: nothing is due. What they
    /// came to goes to [`Ledger::answered`].
    pub(crate) fn next_phase(&mut self, now: Instant) -> Option<Vec<pb::Update>> {
        if !self.foreign.is_empty() {
            self.in_flight = Some(InFlight::Foreign);
            let raws = self.foreign.iter();
            return Some(
                raws.map(|raw| update_of(update::Type::Delete, raw.clone()))
                    .collect(),
            );
        }
        loop {
            if self.plan.is_none() {
                self.plan = self.make_plan(now);
            }
            let Some((table, intent)) = self.plan else {
                for_each_book_mut!(self.books, book => book.forget_needless_retries(now));
                return None;
            };
            let updates = with_book_mut!(self.books, table, book => take(book, intent));
            if updates.is_empty() {
                self.plan = None;
                continue;
            }
            self.in_flight = Some(InFlight::Table(table, intent));
            return Some(updates);
        }
    }

    /// What can go first: additions from what is led to upwards, traffic let in last; then
    /// removals in the reverse; then what stands in the way of both.
    fn make_plan(&mut self, now: Instant) -> Option<(Table, Intent)> {
        if self.pending_count() == 0 {
            return None;
        }
        let planner = Planner::new(&self.books, now);
        macro_rules! plan {
            ($method:ident, $intent:ident, $($field:ident)*) => {$(
                let keys = planner.$method(&self.books.$field);
                if !keys.is_empty() {
                    self.books.$field.plan = keys;
                    return Some((Table::$field, Intent::$intent));
                }
            )*};
        }
        plan!(sets, Set, egress_interface neighbor4 neighbor6 punt nexthop ecmp route4 route6
            classify_vxlan classify_port);
        plan!(removals, Remove, classify_port classify_vxlan route6 route4 ecmp nexthop punt
            neighbor6 neighbor4 egress_interface);
        plan!(parks, Park, classify_port classify_vxlan route6 route4 ecmp nexthop neighbor6
            neighbor4 egress_interface);
        None
    }

    /// Notes what the switch said to a phase: nothing when all went well, else one answer for
    /// each update. Returns the refusals in words.
    pub(crate) fn answered(&mut self, errors: Option<&[pb::Error]>, now: Instant) -> Vec<String> {
        match self.in_flight.take() {
            Some(InFlight::Foreign) => self.foreign_answered(errors.unwrap_or_default()),
            Some(InFlight::Table(table, intent)) => {
                with_book_mut!(self.books, table, book => answered(book, intent, errors, now))
            }
            None => Vec::new(),
        }
    }

    fn foreign_answered(&mut self, errors: &[pb::Error]) -> Vec<String> {
        let mut refusals = Vec::new();
        for (at, raw) in std::mem::take(&mut self.foreign).into_iter().enumerate() {
            let error = errors.get(at).cloned().unwrap_or_default();
            match Code::from_i32(error.canonical_code) {
                Code::Ok | Code::NotFound => {}
                Code::PermissionDenied => self.foreign_left.push(raw),
                // It comes back with the next reading.
                _ => refusals.push(format!("a foreign entry stays: {}", error.message)),
            }
        }
        refusals
    }
}

/// The next updates of a book's plan.
fn take<T: Row>(book: &mut Book<T>, intent: Intent) -> Vec<pb::Update> {
    let mut updates = Vec::new();
    while updates.len() < PHASE_UPDATES_MAX {
        let Some(key) = book.plan.pop() else { break };
        // What is as wanted is written only to be parked for what isn't.
        if intent != Intent::Park && book.is_settled(&key) {
            continue;
        }
        let held = book.held(&key) != Held::Nothing;
        let wanted = book.wanted(&key);
        let entry = match intent {
            Intent::Set if wanted.is_none() => continue,
            Intent::Set => wanted.cloned(),
            Intent::Park => T::parked(&key, wanted, book.is_refused(&key)),
            Intent::Remove => None,
        };
        let kind = match (&entry, held) {
            (Some(_), false) => update::Type::Insert,
            (Some(_), true) => update::Type::Modify,
            (None, true) => update::Type::Delete,
            (None, false) => continue,
        };
        let raw = entry
            .as_ref()
            .map_or_else(|| T::entry_of_key(&key), P4Table::to_entry);
        updates.push(update_of(kind, raw));
        book.send(key, entry);
    }
    updates
}

fn answered<T: Row>(
    book: &mut Book<T>,
    intent: Intent,
    errors: Option<&[pb::Error]>,
    now: Instant,
) -> Vec<String> {
    let mut refusals = Vec::new();
    for (at, (key, entry)) in book.take_sent().into_iter().enumerate() {
        let error = errors.and_then(|errors| errors.get(at));
        let code = error.map_or(Code::Ok, |error| Code::from_i32(error.canonical_code));
        let held = book.held(&key) != Held::Nothing;
        match code {
            Code::Ok if intent == Intent::Park => book.parked(key, entry),
            Code::Ok => book.done(key, entry),
            // The switch's table is not as it was thought to be.
            Code::AlreadyExists if entry.is_some() && !held => {
                book.mistaken(key, Held::Unknown, now);
            }
            Code::NotFound if held => book.mistaken(key, Held::Nothing, now),
            Code::PermissionDenied if entry.is_none() && book.wanted(&key).is_none() => {
                book.leave(key);
            }
            // Wanted otherwise meanwhile, and that is how it is.
            _ if intent != Intent::Park && book.is_settled(&key) => {}
            _ => {
                let verb = match (&entry, held) {
                    (None, _) => "delete",
                    (Some(_), true) => "modify",
                    (Some(_), false) => "insert",
                };
                let what = match &entry {
                    Some(entry) => entry.shown(&Numbers),
                    None => T::shown_key(&key, &Numbers),
                };
                let delay = match intent {
                    Intent::Park => book.unparked(key, now),
                    Intent::Set | Intent::Remove => book.refused(key, now),
                };
                let message = error.map_or("", |error| error.message.as_str());
                refusals.push(format!(
                    "{verb} {what}: {message} (code {}); tried again in {delay:?}",
                    code as i32
                ));
            }
        }
    }
    refusals
}

fn update_of(kind: update::Type, entry: TableEntry) -> pb::Update {
    pb::Update {
        r#type: kind.into(),
        entity: Some(pb::Entity {
            entity: Some(pb::entity::Entity::TableEntry(entry)),
        }),
    }
}

#[cfg(test)]
mod tests;
