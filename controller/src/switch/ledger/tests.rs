//! The ledger against a model of a switch that refuses, forgets and is misremembered.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use p4runtime::p4::v1::{Update, entity};
use proptest::prelude::*;
use shunt_p4::tables::{NexthopAction, Route4Action};
use shunt_p4::{InterfaceId, NetworkOp, Nexthop, NexthopId, Route, SwitchPort, VpcId};

use super::super::lower::Lowering;
use super::*;

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
            })
            .to_vec();
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
    let wanted: BTreeMap<Vec<u8>, TableEntry> = ledger
        .wanted
        .iter()
        .map(|(key, entry)| (key.to_vec(), entry.to_entry()))
        .collect();
    assert_eq!(wanted, model.entries);
    let counted: u64 = ledger.held_by_table().values().sum();
    assert_eq!(counted as usize, model.entries.len());
}

proptest! {
    /// Without refusals every batch is done when its phases are, and no state between two
    /// writes has a dangling reference.
    #[test]
    fn references_hold_after_every_write(networks in networks()) {
        let mut lowering = Lowering::new(SwitchPort::MIN, Vec::new());
        let mut ledger = Ledger::default();
        let mut model = Model::default();
        ledger.want(lowering.fixed());
        let now = Instant::now();
        let mut before = Network::new();
        for network in networks {
            ledger.want(lowering.apply(ops(&before, &network)));
            before = network;
            while let Some(Phase { updates, sent }) = ledger.next_phase(now) {
                // One at a time and in any order: a switch may reorder a batch.
                for update in updates.iter().rev() {
                    let errors = model.write(std::slice::from_ref(update), &mut || false);
                    prop_assert_eq!(errors[0].canonical_code, 0);
                    model.check_references();
                }
                prop_assert!(ledger.answered(sent, None, now).is_empty());
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
        let mut lowering = Lowering::new(SwitchPort::MIN, Vec::new());
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
                    ledger.read_back(model.read());
                }
                // It loses an entry, and we don't know.
                1 => {
                    let key = model.entries.keys().next().cloned();
                    key.map(|key| model.entries.remove(&key));
                }
                _ => {}
            }
            for _ in 0..random() % 4 {
                let Some(Phase { updates, sent }) = ledger.next_phase(now) else { break };
                let errors = model.write(&updates, &mut || random() % 3 == 0);
                ledger.answered(sent, Some(&errors), now);
            }
        }
        // What was lost unnoticed shows in the next comparison.
        ledger.read_back(model.read());
        for _ in 0..1000 {
            now += RETRY_LONGEST;
            let Some(Phase { updates, sent }) = ledger.next_phase(now) else { break };
            let errors = model.write(&updates, &mut || false);
            ledger.answered(sent, Some(&errors), now);
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
        let Phase { sent, .. } = ledger.next_phase(now).unwrap();
        let refusals = ledger.answered(sent, Some(std::slice::from_ref(&full)), now);
        assert_eq!(
            refusals,
            [format!(
                "insert nexthop (7): no room (code 8); tried again in {expected}ms"
            )]
        );
        assert!(ledger.next_phase(now).is_none(), "not before it is due");
        now = ledger.next_retry().unwrap();
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
    let Phase { sent, .. } = ledger.next_phase(now).unwrap();
    ledger.want([Change::Remove(nexthop(7))]);
    ledger.answered(sent, None, now);
    let Phase { updates, sent } = ledger.next_phase(now).unwrap();
    assert_eq!(updates[0].r#type(), update::Type::Delete);
    ledger.answered(sent, None, now);
    assert_eq!(ledger.pending_count(), 0);
}

#[test]
fn an_entry_that_is_none_of_ours_is_removed() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    let mut foreign = nexthop(1).to_entry();
    foreign.action = None;
    ledger.read_back(vec![foreign.clone(), nexthop(2).to_entry()]);
    assert_eq!(ledger.pending_count(), 2);
    let mut model = Model::default();
    for entry in [foreign, nexthop(2).to_entry()] {
        let key = TableEntry {
            action: None,
            ..entry.clone()
        };
        model.entries.insert(key_of(&key).to_vec(), entry);
    }
    while let Some(Phase { updates, sent }) = ledger.next_phase(now) {
        let errors = model.write(&updates, &mut || false);
        assert!(ledger.answered(sent, Some(&errors), now).is_empty());
    }
    assert!(model.entries.is_empty());
}
