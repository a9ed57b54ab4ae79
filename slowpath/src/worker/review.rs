//! After a change of configuration or routes: connections that it contradicts end.
//!
//! A connection stands as long as its first packet would make the same one today. One that does
//! not is revoked: nothing is forwarded for it from the moment that it is found, its entries
//! leave the hardware, and with them it goes. The search is cut into parts of [`REVIEW_SLOTS`],
//! one a poll, so that packets do not wait for it.

use shunt_p4::{MAX_SWITCHES, SwitchIndex, flow_hash};

use super::Core;
use super::wants::is_never;
use crate::conntrack::{Connection, Direction};
use crate::fib::{Fib, Scope};
use crate::nat::SourceRule;
use crate::stats::DropReason;

use super::Stop;

/// Slots of the connection table that one poll looks at: some 50 µs.
pub const REVIEW_SLOTS: u32 = 256;

/// How far a worker is with its connections after a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reviewed {
    /// The tables that every connection has been held against.
    pub generation: u64,
    /// Connections that a change takes out of the hardware, and that are still in it, by switch.
    pub leaving: [u64; MAX_SWITCHES],
}

impl Reviewed {
    /// Of all switches.
    pub fn leaving(&self) -> u64 {
        self.leaving.iter().sum()
    }
}

/// A search under way.
#[derive(Debug)]
struct Search {
    scopes: Vec<Scope>,
    /// The tables when it began.
    generation: u64,
    next: u32,
}

/// What a worker knows of its connections and the tables.
#[derive(Debug, Default)]
pub(super) struct Review {
    done: Reviewed,
    search: Option<Search>,
}

impl Review {
    /// A connection has left the hardware that had to.
    pub(super) fn left(&mut self, switch: SwitchIndex) {
        if let Some(leaving) = self.leaving(switch) {
            *leaving = leaving.saturating_sub(1);
        }
    }

    fn leaving(&mut self, switch: SwitchIndex) -> Option<&mut u64> {
        self.done.leaving.get_mut(switch.place())
    }

    pub(super) fn done(&self) -> Reviewed {
        self.done
    }
}

impl Core {
    /// Holds some connections against the tables, if those have changed.
    pub(super) fn poll_review(&mut self, fib: &Fib, now_ns: u64) -> usize {
        let mut search = match self.review.search.take() {
            Some(search) => search,
            None if self.review.done.generation == fib.generation() => return 0,
            None => {
                let generation = fib.generation();
                let scopes = fib.to_review(self.review.done.generation);
                Search {
                    scopes,
                    generation,
                    next: 0,
                }
            }
        };
        let slots = match search.scopes.is_empty() {
            true => 0,
            false => self.table.slots(),
        };
        let end = search.next.saturating_add(REVIEW_SLOTS).min(slots);
        for slot in search.next..end {
            self.table.prefetch_slot(slot + 1);
            let contradicted = self.table.get(slot).is_some_and(|connection| {
                !connection.is_revoked()
                    && concerns(&search.scopes, connection)
                    && !self.stands(fib, connection)
            });
            if contradicted {
                self.revoke(now_ns, slot);
            } else if self.stays_in_software(fib, slot) {
                self.leave_hardware(now_ns, slot);
            }
        }
        if end >= slots {
            self.review.done.generation = search.generation;
        } else {
            search.next = end;
            self.review.search = Some(search);
        }
        1
    }

    /// Whether the policy does not offer it to hardware any more.
    fn stays_in_software(&self, fib: &Fib, slot: u32) -> bool {
        let connection = self.table.get(slot);
        !fib.policy().offload.enabled || connection.is_some_and(|found| is_never(fib, found))
    }

    fn revoke(&mut self, now_ns: u64, slot: u32) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        self.stats.connections_revoked += 1;
        connection.revoke();
        self.leave_hardware(now_ns, slot);
        self.end(now_ns, slot);
    }

    fn leave_hardware(&mut self, now_ns: u64, slot: u32) {
        if let Some(connection) = self.table.get_mut(slot)
            && connection.leave_hardware()
        {
            let switch = connection.place.switch();
            if let Some(leaving) = self.review.leaving(switch) {
                *leaving += 1;
            }
            self.remove_entries(now_ns, slot);
        }
    }

    /// Whether its first packet would make the same connection. Without a route it does as long
    /// as nothing else speaks against it: routes come and go.
    fn stands(&self, fib: &Fib, connection: &Connection) -> bool {
        let key = connection.key(Direction::Forward);
        let reply = connection.key(Direction::Reply);
        let known = |vpc| fib.vpc(vpc).is_some();
        if fib.vpc(key.vpc).is_none_or(|vpc| vpc.stateless) || !known(reply.vpc) {
            return false;
        }
        let hash = flow_hash(&key.tuple);
        let trusted = connection.is_half() && fib.rules().is_outside(key.vpc, key.tuple.src);
        let found = match self.decide(fib, hash, &key, trusted) {
            Ok(found) => found,
            Err(Stop::Drop(DropReason::NoPeering) | Stop::Kernel(_)) => return false,
            Err(_) => return true,
        };
        let translated = reply.tuple.reversed();
        let original = &key.tuple;
        let destination = match found.inward {
            Some(inward) => (inward.new.address, inward.new.port),
            None => (original.dst, original.dst_port),
        };
        let source = match found.source {
            None => connection.lease.is_none() && same_source(original, &translated),
            Some(SourceRule::Static(address)) => {
                connection.lease.is_none()
                    && (translated.src, translated.src_port) == (address, original.src_port)
            }
            Some(SourceRule::Masquerade(rule)) => {
                connection.lease.is_some()
                    && rule.ports.contains(translated.src_port)
                    && rule.pool.iter().any(|range| range.contains(translated.src))
            }
        };
        let [route_vpc, _] = connection.route_vpcs();
        source
            && destination == (translated.dst, translated.dst_port)
            && found.route_vpc == route_vpc
            && found.hop.interface.vpc == reply.vpc
            && self.elsewhere(fib, &key, hash).is_none()
    }
}

fn same_source(a: &shunt_p4::Tuple, b: &shunt_p4::Tuple) -> bool {
    (a.src, a.src_port) == (b.src, b.src_port)
}

/// Whether a change may contradict the connection: packets of either direction are routed by
/// their destination, and by what that is translated to.
fn concerns(scopes: &[Scope], connection: &Connection) -> bool {
    if scopes == [Scope::All] {
        return true;
    }
    let routed = [Direction::Forward, Direction::Reply].map(|side| {
        let (key, to) = (connection.key(side), connection.translation(side));
        [(key.vpc, key.tuple.dst), (to.route_vpc, to.tuple.dst)]
    });
    let mut routed = routed.as_flattened().iter();
    routed.any(|(vpc, dst)| scopes.iter().any(|scope| scope.has(*vpc, *dst)))
}
