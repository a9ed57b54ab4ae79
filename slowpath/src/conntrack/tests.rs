use std::collections::HashMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use shunt_p4::flow::proto;

use shunt_p4::Tuple;

use super::*;
use crate::packet::Transport;

fn vpc(n: u16) -> VpcId {
    VpcId::new(n).unwrap()
}

fn key(n: u16) -> FlowKey {
    let tuple = Tuple {
        src: Ipv4Addr::new(10, 0, (n >> 8) as u8, n as u8).into(),
        dst: Ipv4Addr::new(192, 0, 2, 80).into(),
        proto: proto::UDP,
        src_port: 1000 + n,
        dst_port: 53,
    };
    FlowKey { vpc: vpc(1), tuple }
}

fn tracker() -> Tracker {
    Tracker::begin(&Transport::Udp {
        src_port: 1,
        dst_port: 53,
    })
    .unwrap()
}

fn keys(n: u16) -> [FlowKey; 2] {
    let forward = key(n);
    let reply = FlowKey {
        vpc: vpc(2),
        tuple: forward.tuple.reversed(),
    };
    [forward, reply]
}

fn insert(table: &mut Table, n: u16) -> Result<u32, InsertError> {
    table.insert(0, &keys(n), [vpc(1), vpc(2)], tracker())
}

#[test]
fn both_directions_find_it_and_nothing_does_afterwards() {
    let mut table = Table::new(4, 1);
    let slot = insert(&mut table, 1).unwrap();
    let id = table.id(slot);
    let reply = table.get(slot).unwrap().key(Direction::Reply);
    assert_eq!(table.find(&key(1)), Some((slot, Direction::Forward)));
    assert_eq!(table.find(&reply), Some((slot, Direction::Reply)));
    assert_eq!(table.slot_of(id), Some(slot));
    table.arm(slot, 1);
    assert!(table.remove(slot));
    assert_eq!(table.find(&key(1)), None);
    assert_eq!(table.find(&reply), None);
    assert_eq!(table.slot_of(id), None);
    assert_eq!(table.timers(), 0);
    // The slot's next user has another id.
    let next = insert(&mut table, 2).unwrap();
    assert_eq!(next, slot);
    assert_ne!(table.id(next), id);
}

#[test]
fn a_full_table_and_a_taken_tuple_are_refused() {
    let mut table = Table::new(2, 1);
    insert(&mut table, 1).unwrap();
    let error = insert(&mut table, 1).unwrap_err();
    assert_eq!(error, InsertError::TupleInUse);
    insert(&mut table, 2).unwrap();
    let error = insert(&mut table, 3).unwrap_err();
    assert_eq!(error, InsertError::Full);
    assert_eq!(table.len(), 2);
}

#[test]
fn translation_is_the_other_key_reversed() {
    let [forward, mut reply] = keys(1);
    reply.tuple.dst = Ipv4Addr::new(203, 0, 113, 10).into();
    reply.tuple.dst_port = 5000;
    let mut table = Table::new(2, 1);
    let slot = table.insert(0, &[forward, reply], [vpc(1), vpc(1)], tracker());
    let nat = table.get(slot.unwrap()).unwrap();
    let out = nat.translation(Direction::Forward);
    assert_eq!(out.tuple.src, IpAddrOf::v4(203, 0, 113, 10));
    assert_eq!(
        (out.tuple.src_port, out.route_vpc, out.egress_vpc),
        (5000, vpc(1), vpc(2))
    );
    let back = nat.translation(Direction::Reply);
    assert_eq!(back.tuple, key(1).tuple.reversed());
    assert_eq!((back.route_vpc, back.egress_vpc), (vpc(1), vpc(1)));
    assert!(nat.is_translated());
    let mut table = Table::new(2, 1);
    let slot = insert(&mut table, 1).unwrap();
    assert!(!table.get(slot).unwrap().is_translated());
}

struct IpAddrOf;

impl IpAddrOf {
    fn v4(a: u8, b: u8, c: u8, d: u8) -> std::net::IpAddr {
        Ipv4Addr::new(a, b, c, d).into()
    }
}

proptest! {
    #[test]
    fn behaves_as_a_map(ops in prop::collection::vec((any::<bool>(), 0u16..40), 1..300), seed: u64) {
        let mut table = Table::new(32, seed);
        let mut model: HashMap<u16, u32> = HashMap::new();
        for (add, n) in ops {
            if add {
                match insert(&mut table, n) {
                    Ok(slot) => prop_assert!(model.insert(n, slot).is_none()),
                    Err(InsertError::TupleInUse) => prop_assert!(model.contains_key(&n)),
                    Err(InsertError::Full) => prop_assert_eq!(model.len(), 32),
                }
            } else if let Some(slot) = model.remove(&n) {
                prop_assert_eq!(table.get(slot).unwrap().key(Direction::Forward), key(n));
                prop_assert!(table.remove(slot));
            }
            prop_assert_eq!(table.len(), model.len());
            for n in 0..40 {
                let found = table.find(&key(n)).map(|(slot, _)| slot);
                prop_assert_eq!(found, model.get(&n).copied());
            }
        }
    }
}
