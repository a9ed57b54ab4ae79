//! What the switch still has of the daemon before: read once at the start, then taken over.
//!
//! ```text
//!   engine ── first read-back ──▶ ReadBack ──▶ whoever knows connections
//!      ▲                                          │ workers take them back
//!      ├── EngineRef::adopt(their units) ◀────────┤
//!      └── ReadBack dropped: the rest is removed ◀┘
//! ```
//!
//! Until then the engine takes no command of a worker: a removal of what it does not know yet
//! would be answered too early, and its port given to somebody else.

use std::collections::HashMap;

use p4runtime::p4::v1::TableEntry;
use shunt_p4::tables::flow_from_entry;
use shunt_p4::{FlowEntry, Tuple};
use tokio::sync::oneshot;

/// The flow entries that the switch had when the engine read it for the first time. Whatever was
/// not adopted when this is dropped, the engine removes.
#[derive(Debug)]
pub struct ReadBack {
    /// All that are flows, in no order.
    pub entries: Vec<FlowEntry>,
    /// Its end is the answer.
    _done: oneshot::Sender<()>,
}

impl ReadBack {
    /// And what resolves when it is dropped.
    pub(crate) fn new(entries: &[TableEntry]) -> (Self, oneshot::Receiver<()>) {
        let (done, dropped) = oneshot::channel();
        let flows = entries
            .iter()
            .filter_map(|entry| flow_from_entry(entry).ok());
        let read_back = Self {
            entries: flows.collect(),
            _done: done,
        };
        (read_back, dropped)
    }
}

/// No other entry.
const NONE: usize = usize::MAX;

/// Entries that are each other's inverse, as the two of a connection are; and how many have no
/// counterpart, or more than one that may be it (VPCs with the same addresses and ports).
pub fn pairs(entries: &[FlowEntry]) -> (Vec<[FlowEntry; 2]>, usize) {
    // By tuple on arrival: the last entry that has it, and the one before each.
    let mut last: HashMap<Tuple, usize, ahash::RandomState> = HashMap::default();
    let mut before = vec![NONE; entries.len()];
    for (at, (entry, before)) in entries.iter().zip(&mut before).enumerate() {
        *before = last.insert(entry.key.tuple, at).unwrap_or(NONE);
    }
    let of_tuple = |tuple: &Tuple| {
        let first = last.get(tuple).copied().unwrap_or(NONE);
        std::iter::successors(Some(first), |at| before.get(*at).copied())
            .map_while(|at| Some((at, entries.get(at)?)))
    };
    let counterpart = |at: usize, entry: &FlowEntry| {
        let reversed = leaves(entry).reversed();
        let fits = |(other, candidate): &(usize, &FlowEntry)| {
            *other != at
                && leaves(candidate).reversed() == entry.key.tuple
                && related(entry, candidate)
        };
        // Without NAT nothing but the VPC tells; a connection within one is likelier than two
        // across.
        let near = |(_, candidate): &(usize, &FlowEntry)| candidate.key.vpc == entry.key.vpc;
        let same_vpc = of_tuple(&reversed).filter(fits).find(near);
        let mut others = of_tuple(&reversed).filter(fits);
        let only = others.next().filter(|_| others.next().is_none());
        same_vpc.or(only).map(|(other, _)| other)
    };
    let mut pairs = Vec::with_capacity(entries.len() / 2);
    for (at, entry) in entries.iter().enumerate() {
        let Some(other) = counterpart(at, entry).filter(|other| at < *other) else {
            continue;
        };
        let Some(reply) = entries.get(other) else {
            continue;
        };
        if counterpart(other, reply) == Some(at) {
            pairs.push([*entry, *reply]);
        }
    }
    let halves = entries.len() - 2 * pairs.len();
    (pairs, halves)
}

/// An entry's packets as they leave.
fn leaves(entry: &FlowEntry) -> Tuple {
    let mut tuple = entry.key.tuple;
    if let Some((address, port)) = entry.action.src {
        (tuple.src, tuple.src_port) = (address, port);
    }
    if let Some((address, port)) = entry.action.dst {
        (tuple.dst, tuple.dst_port) = (address, port);
    }
    tuple
}

/// Whether two entries whose tuples fit may be one connection's by their VPCs: where the
/// destination stays, packets are routed in the VPC that they arrive in; where it changes, a
/// packet is routed where its receiver sends from, or to.
fn related(one: &FlowEntry, other: &FlowEntry) -> bool {
    let routed = |entry: &FlowEntry, back: &FlowEntry| match entry.action.dst {
        None => entry.action.vpc == entry.key.vpc,
        Some(_) => entry.action.vpc == back.key.vpc || entry.action.vpc == back.action.vpc,
    };
    routed(one, other) && routed(other, one)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;
    use shunt_p4::{FlowAction, FlowKey, VpcId};

    type End = (&'static str, u16);

    fn entry(
        vpc: u16,
        (src, src_port): End,
        (dst, dst_port): End,
        to: (u16, Option<End>, Option<End>),
    ) -> FlowEntry {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let end = |end: End| (ip(end.0), end.1);
        let tuple = Tuple {
            src: ip(src),
            dst: ip(dst),
            proto: 6,
            src_port,
            dst_port,
        };
        FlowEntry {
            key: FlowKey {
                vpc: VpcId::new(vpc).unwrap(),
                tuple,
            },
            action: FlowAction {
                vpc: VpcId::new(to.0).unwrap(),
                src: to.1.map(end),
                dst: to.2.map(end),
            },
            idle_timeout: Duration::from_secs(1),
        }
    }

    /// red and blue have the same addresses and ports, masqueraded to different ports; within
    /// each the same connection without NAT.
    #[test]
    fn entries_find_their_counterparts_among_equal_tuples() {
        let (client, server) = (("10.0.0.2", 1), ("192.0.2.80", 80));
        let (near, far) = (("10.0.0.2", 5), ("10.0.0.3", 6));
        let mut entries = Vec::new();
        for (vpc, port) in [(1, 5000), (2, 5001)] {
            let outside = ("203.0.113.10", port);
            entries.push(entry(vpc, client, server, (vpc, Some(outside), None)));
            entries.push(entry(9, server, outside, (vpc, None, Some(client))));
            entries.push(entry(vpc, near, far, (vpc, None, None)));
        }
        for vpc in [1, 2] {
            entries.push(entry(vpc, far, near, (vpc, None, None)));
        }
        let (found, halves) = pairs(&entries);
        assert_eq!((found.len(), halves), (4, 0));
        for [one, other] in found {
            assert_eq!(leaves(&one).reversed(), other.key.tuple);
            assert_eq!(one.action.vpc, other.action.vpc);
        }
    }

    #[test]
    fn a_half_has_no_counterpart() {
        let (client, server) = (("10.0.0.2", 1), ("192.0.2.80", 80));
        let outside = ("203.0.113.10", 5000);
        let half = entry(1, client, server, (1, Some(outside), None));
        assert_eq!(pairs(&[half]), (vec![], 1));
        // To another port than the other one's.
        let stray = entry(9, server, ("203.0.113.10", 5001), (1, None, Some(client)));
        assert_eq!(pairs(&[half, stray]), (vec![], 2));
        let reply = entry(9, server, outside, (1, None, Some(client)));
        assert_eq!(pairs(&[half, stray, reply]).1, 1);
        // Of an address to itself: never its own counterpart.
        let same = entry(1, client, client, (1, None, None));
        assert_eq!(pairs(&[same]), (vec![], 1));
    }
}
