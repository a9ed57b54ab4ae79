//! The ledger against a model of a switch that refuses, forgets and is misremembered.

mod invariant;
mod refusals;
mod ways;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use p4runtime::p4::v1::{Update, entity};
use proptest::prelude::*;
use shunt_p4::tables::{NexthopAction, Route4Action};
use shunt_p4::{InterfaceId, NetworkOp, Nexthop, NexthopId, Route, SwitchPort, VpcId};

use super::super::book::RETRY_LONGEST;
use super::super::lower::{Lowering, Scope};
use super::*;

const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const ALREADY_EXISTS: i32 = 6;

fn key_of(entry: &TableEntry) -> Vec<u8> {
    prost::Message::encode_to_vec(entry)
}

fn lowering() -> Lowering {
    Lowering::new(SwitchPort::MIN, Vec::new(), Scope::All, None)
}

fn reading(entries: Vec<TableEntry>) -> Reading {
    let mut reading = Reading::default();
    for entry in entries {
        reading.add(entry);
    }
    reading
}

/// A switch: tables by key, and how it answers.
#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<Vec<u8>, TableEntry>,
}

impl Model {
    fn write(&mut self, updates: &[Update], refuse: &mut dyn FnMut() -> bool) -> Vec<pb::Error> {
        let error = |canonical_code| pb::Error {
            canonical_code,
            ..Default::default()
        };
        let mut errors = Vec::new();
        for update in updates {
            let Some(entity::Entity::TableEntry(entry)) =
                update.entity.clone().and_then(|entity| entity.entity)
            else {
                panic!("{update:?}");
            };
            let key = key_of(&TableEntry {
                table_id: entry.table_id,
                r#match: entry.r#match.clone(),
                priority: entry.priority,
                ..Default::default()
            });
            let exists = self.entries.contains_key(&key);
            let code = match update.r#type() {
                _ if refuse() => 8,
                update::Type::Insert if exists => ALREADY_EXISTS,
                update::Type::Modify | update::Type::Delete if !exists => NOT_FOUND,
                update::Type::Delete => {
                    self.entries.remove(&key);
                    0
                }
                _ => {
                    self.entries.insert(key, entry);
                    0
                }
            };
            errors.push(error(code));
        }
        errors
    }

    fn read(&self) -> Vec<TableEntry> {
        self.entries.values().cloned().collect()
    }

    /// No route or group of the switch leads to a next hop that it doesn't have.
    fn check_references(&self) {
        let entries: Vec<AnyEntry> = self
            .entries
            .values()
            .map(|entry| AnyEntry::from_entry(entry).unwrap())
            .collect();
        let has_nexthop = |id| {
            entries
                .iter()
                .any(|entry| matches!(entry, AnyEntry::NexthopEntry(e) if e.key.nexthop == id))
        };
        let has_group = |id| {
            entries
                .iter()
                .any(|entry| matches!(entry, AnyEntry::Ecmp(e) if e.key.group == id))
        };
        for entry in &entries {
            match entry {
                AnyEntry::Route4(route) => match route.action {
                    Route4Action::ToNexthop { nexthop } => assert!(has_nexthop(nexthop)),
                    Route4Action::ToEcmp { group } => assert!(has_group(group)),
                    _ => {}
                },
                AnyEntry::Ecmp(group) => {
                    for (action, _) in &group.members {
                        if let shunt_p4::tables::EcmpAction::ToNexthop { nexthop } = action {
                            assert!(has_nexthop(*nexthop));
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// Prefixes with the next hops they use, out of a few.
type Network = BTreeMap<u8, Vec<u32>>;

fn networks() -> impl Strategy<Value = Vec<Network>> {
    let paths = proptest::collection::btree_set(1u32..6, 1..4)
        .prop_map(|set| set.into_iter().collect::<Vec<_>>());
    let network = proptest::collection::btree_map(0u8..6, paths, 0..5);
    proptest::collection::vec(network, 1..8)
}

/// The ops from one network to the next, as the mirror orders them.
fn ops(from: &Network, to: &Network) -> Vec<NetworkOp> {
    let vpc = VpcId::MIN;
    let used = |network: &Network| -> std::collections::BTreeSet<u32> {
        network.values().flatten().copied().collect()
    };
    let prefix = |n: u8| -> IpNet { format!("10.{n}.0.0/16").parse().unwrap() };
    let id = |n: u32| NexthopId::new(n).unwrap();
    let mut ops = Vec::new();
    for n in used(to).difference(&used(from)) {
        let gateway: IpAddr = [10, 255, 0, *n as u8].into();
        let nexthop = Nexthop {
            interface: InterfaceId::MIN,
            gateway: Some(gateway),
            mtu: None,
        };
        ops.push(NetworkOp::SetNexthop(id(*n), nexthop));
    }
    for (n, paths) in to {
        if from.get(n) != Some(paths) {
            let paths = paths.iter().map(|n| (id(*n), 1)).collect();
            ops.push(NetworkOp::SetRoute(vpc, prefix(*n), Route::Nexthops(paths)));
        }
    }
    for n in from.keys().filter(|n| !to.contains_key(n)) {
        ops.push(NetworkOp::RemoveRoute(vpc, prefix(*n)));
    }
    for n in used(from).difference(&used(to)) {
        ops.push(NetworkOp::RemoveNexthop(id(*n)));
    }
    ops
}

fn assert_equal(ledger: &Ledger, model: &Model) {
    assert_eq!(ledger.differences(&reading(model.read())), []);
    assert_eq!(ledger.wanted_count(), model.entries.len());
    let counted: u64 = ledger.held_by_table().iter().map(|(_, count)| count).sum();
    assert_eq!(counted as usize, model.entries.len());
}

proptest! {
    /// Without refusals every batch is done when its phases are, and no state between two
    /// writes has a dangling reference.
    #[test]
    fn references_hold_after_every_write(networks in networks()) {
        let mut lowering = lowering();
        let mut ledger = Ledger::default();
        let mut model = Model::default();
        ledger.want(lowering.fixed());
        let now = Instant::now();
        let mut before = Network::new();
        for network in networks {
            ledger.want(lowering.apply(ops(&before, &network)));
            before = network;
            while let Some(updates) = ledger.next_phase(now) {
                // One at a time and in any order: a switch may reorder a batch.
                for update in updates.iter().rev() {
                    let errors = model.write(std::slice::from_ref(update), &mut || false);
                    prop_assert_eq!(errors[0].canonical_code, 0);
                    model.check_references();
                }
                prop_assert!(ledger.answered(None, now).is_empty());
            }
            prop_assert_eq!(ledger.pending_count(), 0);
            assert_equal(&ledger, &model);
        }
    }

    /// Whatever is refused, forgotten by the switch or changed behind our back: once the
    /// refusals end, the switch holds what is wanted.
    #[test]
    fn the_switch_converges(networks in networks(), seed: u64) {
        let mut draw = seed;
        let mut random = move || {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            draw >> 33
        };
        let mut lowering = lowering();
        let mut ledger = Ledger::default();
        let mut model = Model::default();
        ledger.want(lowering.fixed());
        let mut now = Instant::now();
        let mut before = Network::new();
        for network in networks {
            ledger.want(lowering.apply(ops(&before, &network)));
            before = network;
            match random() % 6 {
                // It restarts empty, and we know.
                0 => {
                    model.entries.clear();
                    ledger.read_back(reading(model.read()));
                }
                // It loses an entry, and we don't know.
                1 => {
                    let key = model.entries.keys().next().cloned();
                    key.map(|key| model.entries.remove(&key));
                }
                _ => {}
            }
            for _ in 0..random() % 4 {
                let Some(updates) = ledger.next_phase(now) else { break };
                let errors = model.write(&updates, &mut || random() % 3 == 0);
                ledger.answered(Some(&errors), now);
            }
        }
        // What was lost unnoticed shows in the next comparison.
        ledger.read_back(reading(model.read()));
        for _ in 0..1000 {
            now += RETRY_LONGEST;
            let Some(updates) = ledger.next_phase(now) else { break };
            let errors = model.write(&updates, &mut || false);
            ledger.answered(Some(&errors), now);
        }
        prop_assert_eq!(ledger.pending_count(), 0);
        prop_assert_eq!(ledger.refused_count(), 0);
        assert_equal(&ledger, &model);
    }
}

fn nexthop(n: u32) -> AnyEntry {
    AnyEntry::from(shunt_p4::tables::NexthopEntry {
        key: shunt_p4::tables::NexthopKey {
            nexthop: NexthopId::new(n).unwrap(),
        },
        action: NexthopAction::Attached {
            interface: InterfaceId::MIN,
            mtu: 1300,
        },
    })
}

#[test]
fn refusals_are_named_and_wait_longer_each_time() {
    let mut ledger = Ledger::default();
    let mut now = Instant::now();
    ledger.want([Change::Set(nexthop(7))]);
    let full = pb::Error {
        canonical_code: 8,
        message: "no room".to_owned(),
        ..Default::default()
    };
    for expected in [200, 400, 800] {
        ledger.next_phase(now).unwrap();
        let refusals = ledger.answered(Some(std::slice::from_ref(&full)), now);
        assert_eq!(
            refusals,
            [format!(
                "insert nexthop nexthop=7 -> attached(interface=1, mtu=1300): no room (code 8); \
                 tried again in {expected}ms"
            )]
        );
        assert!(ledger.next_phase(now).is_none(), "not before it is due");
        now = ledger.next_retry(now).unwrap();
    }
    assert_eq!((ledger.refused_count(), ledger.pending_count()), (1, 1));
    // A change of mind is tried at once, and a removal of what is not there is nothing.
    ledger.want([Change::Remove(nexthop(7))]);
    assert_eq!((ledger.refused_count(), ledger.pending_count()), (0, 0));
}

#[test]
fn what_is_wanted_otherwise_while_it_is_written_is_written_again() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    ledger.want([Change::Set(nexthop(7))]);
    ledger.next_phase(now).unwrap();
    ledger.want([Change::Remove(nexthop(7))]);
    ledger.answered(None, now);
    let updates = ledger.next_phase(now).unwrap();
    assert_eq!(updates[0].r#type(), update::Type::Delete);
    ledger.answered(None, now);
    assert_eq!(ledger.pending_count(), 0);
}

#[test]
fn an_entry_that_is_none_of_ours_is_removed() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    let mut foreign = nexthop(1).to_entry();
    foreign.action = None;
    ledger.read_back(reading(vec![foreign.clone(), nexthop(2).to_entry()]));
    assert_eq!(ledger.pending_count(), 2);
    let mut model = Model::default();
    for entry in [foreign, nexthop(2).to_entry()] {
        let key = TableEntry {
            action: None,
            ..entry.clone()
        };
        model.entries.insert(key_of(&key), entry);
    }
    while let Some(updates) = ledger.next_phase(now) {
        let errors = model.write(&updates, &mut || false);
        assert!(ledger.answered(Some(&errors), now).is_empty());
    }
    assert!(model.entries.is_empty());
}

/// What the program itself has put into a table, and what another role does not let go, stays.
#[test]
fn entries_of_others_are_left_alone() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    let constant = TableEntry {
        is_const: true,
        ..nexthop(1).to_entry()
    };
    let entries = vec![constant, nexthop(2).to_entry()];
    ledger.read_back(reading(entries.clone()));
    assert_eq!(ledger.pending_count(), 1);
    let denied = pb::Error {
        canonical_code: PERMISSION_DENIED,
        message: "of role monitor".to_owned(),
        ..Default::default()
    };
    assert_eq!(ledger.next_phase(now).unwrap().len(), 1);
    assert!(ledger.answered(Some(&[denied]), now).is_empty());
    assert_eq!((ledger.pending_count(), ledger.others_count()), (0, 1));
    assert_eq!(ledger.next_phase(now), None);
    // Nor is it tried again with every reading, or shown as a difference.
    ledger.read_back(reading(entries.clone()));
    assert_eq!((ledger.pending_count(), ledger.others_count()), (0, 1));
    assert_eq!(ledger.differences(&reading(entries.clone())), []);
    // In a new session it may be free.
    ledger.forget_others();
    ledger.read_back(reading(entries));
    assert_eq!(ledger.next_phase(now).unwrap().len(), 1);
}

/// `Insert route4 …`
fn shown(update: &Update) -> String {
    let entity = update.entity.as_ref().and_then(|e| e.entity.as_ref());
    let Some(entity::Entity::TableEntry(entry)) = entity else {
        panic!("{update:?}");
    };
    match AnyEntry::from_entry(entry) {
        Ok(entry) => format!("{:?} {}", update.r#type(), entry.shown(&Numbers)),
        // A removal has no action.
        Err(_) => format!("{:?} {entry:?}", update.r#type()),
    }
}

fn via(n: u32, gateway: u8) -> AnyEntry {
    AnyEntry::from(shunt_p4::tables::NexthopEntry {
        key: shunt_p4::tables::NexthopKey {
            nexthop: NexthopId::new(n).unwrap(),
        },
        action: NexthopAction::Via4 {
            interface: InterfaceId::MIN,
            mtu: u16::MAX,
            gateway: [10, 0, 0, gateway].into(),
        },
    })
}

fn route(prefix: &str, nexthop: u32) -> AnyEntry {
    AnyEntry::from(shunt_p4::tables::Route4 {
        key: shunt_p4::tables::Route4Key {
            vpc: VpcId::MIN,
            dst: prefix.parse().unwrap(),
        },
        action: Route4Action::ToNexthop {
            nexthop: NexthopId::new(nexthop).unwrap(),
        },
    })
}

/// A predecessor's numbers for next hops, exchanged: no write may send one route's packets to
/// the other's gateway. They go to the slow path while the numbers change their meaning.
#[test]
fn numbers_that_mean_something_else_now_mislead_nobody() {
    let held = [
        via(1, 1),
        via(2, 2),
        route("10.1.0.0/16", 1),
        route("10.2.0.0/16", 2),
    ];
    let wanted = [
        via(1, 2),
        via(2, 1),
        route("10.1.0.0/16", 2),
        route("10.2.0.0/16", 1),
    ];
    let mut model = Model::default();
    for entry in &held {
        model
            .entries
            .insert(key_of(&entry.key_entry()), entry.to_entry());
    }
    let mut ledger = Ledger::default();
    ledger.want(wanted.iter().cloned().map(Change::Set));
    ledger.read_back(reading(model.read()));
    let now = Instant::now();
    while let Some(updates) = ledger.next_phase(now) {
        for update in &updates {
            let errors = model.write(std::slice::from_ref(update), &mut || false);
            assert_eq!(errors[0].canonical_code, 0, "{update:?}");
            for (number, key) in [(1, &held[2]), (2, &held[3])] {
                let raw = &model.entries[&key_of(&key.key_entry())];
                let AnyEntry::Route4(route) = AnyEntry::from_entry(raw).unwrap() else {
                    panic!("{raw:?}");
                };
                let Route4Action::ToNexthop { nexthop } = route.action else {
                    continue;
                };
                let hop = &model.entries[&key_of(&via(nexthop.get(), 0).key_entry())];
                assert_eq!(AnyEntry::from_entry(hop), Ok(via(nexthop.get(), number)));
            }
        }
        ledger.answered(None, now);
    }
    assert_equal(&ledger, &model);
}

/// The longer prefix is there before the shorter one takes its packets, and goes after it.
#[test]
fn nested_prefixes_come_and_go_in_order() {
    let now = Instant::now();
    let mut ledger = Ledger::default();
    let (outer, inner) = (route("10.0.0.0/8", 1), route("10.1.0.0/16", 2));
    ledger.want([via(1, 1), via(2, 2)].map(Change::Set));
    ledger.next_phase(now).unwrap();
    ledger.answered(None, now);
    ledger.want([Change::Set(outer.clone()), Change::Set(inner.clone())]);
    let refused = pb::Error {
        canonical_code: 8,
        ..Default::default()
    };
    let first = ledger.next_phase(now).unwrap();
    assert_eq!(first, [update_of(update::Type::Insert, inner.to_entry())]);
    ledger.answered(Some(&[refused]), now);
    // The refusal holds the shorter one back.
    assert_eq!(ledger.next_phase(now), None);
    let later = now + Duration::from_secs(1);
    for entry in [&inner, &outer] {
        let phase = ledger.next_phase(later).unwrap();
        assert_eq!(phase, [update_of(update::Type::Insert, entry.to_entry())]);
        ledger.answered(None, later);
    }
    ledger.want([Change::Remove(outer.clone()), Change::Remove(inner.clone())]);
    for entry in [&outer, &inner] {
        let phase = ledger.next_phase(later).unwrap();
        assert_eq!(phase, [update_of(update::Type::Delete, entry.key_entry())]);
        ledger.answered(None, later);
    }
    assert_eq!(ledger.next_phase(later), None);
}
