//! Batches that happen whole or not at all, and a client that goes away in the middle of one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::client::{Client, PATIENCE, Served, batch_errors, exact, table_update, update};
use common::{Udp, check_udp};
use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::update::Type;
use pb::write_request::Atomicity;
use tonic::Code;

/// Sends the frames of [`Udp::default`] with this source port to `port`.
fn flow(served: &Served, sport: u16, port: u8) -> pb::TableEntry {
    let udp = Udp::default();
    let matches = vec![
        exact(&udp.src),
        exact(&udp.dst),
        exact(&sport.to_be_bytes()),
        exact(&udp.dport.to_be_bytes()),
    ];
    let send = served.call("send", &[&[port], &[2, 0, 0, 0, 0, port]]);
    served.entry("flow", matches, 0, send)
}

fn member(served: &Served, id: u32) -> Entity {
    Entity::ActionProfileMember(pb::ActionProfileMember {
        action_profile_id: served.profile(),
        member_id: id,
        action: Some(served.call("send", &[&[id as u8], &[1]])),
    })
}

fn group(served: &Served, members: &[u32]) -> Entity {
    let member = |id: &u32| pb::action_profile_group::Member {
        member_id: *id,
        weight: 1,
        watch_kind: None,
    };
    Entity::ActionProfileGroup(pb::ActionProfileGroup {
        action_profile_id: served.profile(),
        group_id: 1,
        members: members.iter().map(member).collect(),
        max_size: 8,
    })
}

fn multicast(replicas: &[u8]) -> Entity {
    use pb::packet_replication_engine_entry::Type as Kind;
    let replica = |port: &u8| pb::Replica {
        port_kind: Some(pb::replica::PortKind::Port(vec![*port])),
        ..Default::default()
    };
    let entry = pb::MulticastGroupEntry {
        multicast_group_id: 3,
        replicas: replicas.iter().map(replica).collect(),
        ..Default::default()
    };
    Entity::PacketReplicationEngineEntry(pb::PacketReplicationEngineEntry {
        r#type: Some(Kind::MulticastGroupEntry(entry)),
    })
}

fn counter(served: &Served, packets: i64) -> Entity {
    Entity::CounterEntry(pb::CounterEntry {
        counter_id: served.info.counters[0].preamble.as_ref().unwrap().id,
        index: None,
        data: Some(pb::CounterData {
            packet_count: packets,
            byte_count: 2 * packets,
        }),
    })
}

/// All that can be read of the switch, in a fixed order.
async fn everything(client: &mut Client, served: &Served) -> Vec<Entity> {
    let default = |is_default_action| pb::TableEntry {
        is_default_action,
        counter_data: Some(pb::CounterData::default()),
        meter_config: Some(pb::MeterConfig::default()),
        ..Default::default()
    };
    let mut all = Vec::new();
    for wanted in [
        Entity::TableEntry(default(false)),
        Entity::TableEntry(default(true)),
        Entity::ActionProfileMember(Default::default()),
        Entity::ActionProfileGroup(Default::default()),
        multicast(&[]),
        counter(served, 0),
    ] {
        let mut found = client.read(wanted).await.unwrap();
        found.sort_by_key(|entity| format!("{entity:?}"));
        all.append(&mut found);
    }
    all
}

/// One update of every kind, of which the last but one is refused.
fn batch(served: &Served) -> Vec<pb::Update> {
    let mut counted = flow(served, 1000, 4);
    counted.counter_data = Some(pb::CounterData {
        packet_count: 9,
        byte_count: 9,
    });
    let mut default = served.entry("route", vec![], 0, served.call("use_nexthop", &[&[9]]));
    default.is_default_action = true;
    default.metadata = b"note".to_vec();
    let mut indirect = served.entry("ecmp", vec![exact(&[7])], 0, served.call("drop", &[]));
    indirect.action = Some(pb::TableAction {
        r#type: Some(pb::table_action::Type::ActionProfileGroupId(1)),
    });
    vec![
        table_update(Type::Insert, &flow(served, 3000, 3)),
        table_update(Type::Modify, &counted),
        table_update(Type::Delete, &flow(served, 2000, 2)),
        table_update(Type::Modify, &default),
        update(Type::Insert, member(served, 3)),
        update(Type::Modify, group(served, &[2, 3])),
        update(Type::Delete, member(served, 1)),
        table_update(Type::Insert, &indirect),
        update(Type::Modify, multicast(&[3])),
        update(Type::Modify, counter(served, 5)),
        table_update(Type::Insert, &flow(served, 3000, 5)),
        table_update(Type::Insert, &flow(served, 4000, 5)),
    ]
}

#[tokio::test]
async fn a_batch_is_undone_when_one_of_it_fails() {
    for atomicity in [Atomicity::RollbackOnError, Atomicity::DataplaneAtomic] {
        let served = Served::start("forward").await;
        let mut client = served.primary().await;
        let mut counted = flow(&served, 1000, 2);
        counted.counter_data = Some(pb::CounterData {
            packet_count: 3,
            byte_count: 300,
        });
        client.insert(&counted).await;
        client.insert(&flow(&served, 2000, 2)).await;
        for entity in [
            member(&served, 1),
            member(&served, 2),
            group(&served, &[1, 2]),
            multicast(&[1, 2]),
        ] {
            client.one(update(Type::Insert, entity)).await.unwrap();
        }
        let before = everything(&mut client, &served).await;

        let updates = batch(&served);
        let status = client.write_as(atomicity, updates.clone()).await;
        let errors = batch_errors(&status.unwrap_err());
        assert_eq!(errors.len(), updates.len());
        let failed = updates.len() - 2;
        for (at, (code, why)) in errors.iter().enumerate() {
            let wanted = match at {
                _ if at == failed => Code::AlreadyExists,
                _ => Code::Aborted,
            };
            assert_eq!(*code, wanted, "update {at}: {why}");
        }
        let after = everything(&mut client, &served).await;
        let kept = |entity: &&Entity| !after.contains(entity);
        assert_eq!(
            before.iter().filter(kept).collect::<Vec<_>>(),
            Vec::<&Entity>::new()
        );
        assert_eq!(after.len(), before.len());

        let mut good = updates;
        good.remove(failed);
        client.write_as(atomicity, good).await.unwrap();
        assert_ne!(everything(&mut client, &served).await, before);
        // Uses are counted right: what nothing refers to can go, the rest cannot.
        let used = client.one(update(Type::Delete, member(&served, 2))).await;
        assert_eq!(used.unwrap_err().0, Code::FailedPrecondition);
        let used = client.one(update(Type::Delete, group(&served, &[]))).await;
        assert_eq!(used.unwrap_err().0, Code::FailedPrecondition);
    }
}

/// Two flows change places again and again, in one batch each time: a packet of the one must
/// never meet the other half.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_see_an_atomic_batch_whole_or_not_at_all() {
    const ROUNDS: u8 = 100;
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let ports: Vec<_> = [1, 2, 3]
        .map(|port| served.handle.switch().attach_channel(port, 64))
        .into();
    // The route's next hop is in one table, the way to it in another: both are renamed at once.
    let route = |nexthop: u8| {
        let send = served.call("use_nexthop", &[&[nexthop]]);
        let mut entry = served.entry("route", vec![], 0, send);
        entry.is_default_action = true;
        entry
    };
    let nexthop = |id: u8| {
        let send = served.call("send", &[&[2], &[2, 0, 0, 0, 0, id]]);
        served.entry("nexthop", vec![exact(&[id])], 0, send)
    };
    client.insert(&nexthop(1)).await;
    let first = table_update(Type::Modify, &route(1));
    client.one(first).await.unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let switch = served.handle.switch().clone();
    let traffic = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut sent = 0_u32;
            while !done.load(Ordering::Relaxed) {
                switch.inject(1, &Udp::default().frame());
                let frame = ports[1].receive(PATIENCE);
                let frame = frame.expect("no packet may be dropped");
                check_udp(&frame);
                sent += 1;
            }
            sent
        }
    });
    for round in 1..ROUNDS {
        let batch = vec![
            table_update(Type::Delete, &nexthop(round)),
            table_update(Type::Insert, &nexthop(round + 1)),
            table_update(Type::Modify, &route(round + 1)),
        ];
        let atomic = Atomicity::DataplaneAtomic;
        client.write_as(atomic, batch).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let sent = traffic.join().unwrap();
    assert!(sent > 0);
    assert_eq!(served.handle.switch().stats().dropped, 0);
}

#[tokio::test]
async fn the_first_error_may_end_a_batch() {
    let served = Served::deviating("forward", [shunt_switch::Deviation::FirstError]).await;
    let mut client = served.primary().await;
    let updates: Vec<_> = [1000, 1000, 2000]
        .map(|sport| table_update(Type::Insert, &flow(&served, sport, 2)))
        .into();
    let errors = batch_errors(&client.write(updates).await.unwrap_err());
    let codes: Vec<_> = errors.iter().map(|e| e.0).collect();
    assert_eq!(codes, [Code::Ok, Code::AlreadyExists, Code::Aborted]);
    let all = Entity::TableEntry(pb::TableEntry {
        table_id: served.table("flow"),
        ..Default::default()
    });
    assert_eq!(client.read(all).await.unwrap().len(), 1);
}

/// Whatever the point at which the client goes, each entry is whole, and what was not written
/// can be written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_in_the_middle_of_a_batch_leaves_whole_entries() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let updates = |from: u16| -> Vec<_> {
        let ports = from..from + 500;
        let insert = |sport| table_update(Type::Insert, &flow(&served, sport, 2));
        ports.map(insert).collect()
    };
    for patience_us in [0, 200, 500, 1_000, 2_000] {
        let mut gone = served.client().await;
        gone.election_id = client.election_id;
        let write = gone.write(updates(0));
        let patience = std::time::Duration::from_micros(patience_us);
        // Dropping the call resets its stream.
        let _ = tokio::time::timeout(patience, write).await;
        drop(gone);
        // Whoever writes next comes after what is left of it.
        let again = client.write(updates(0)).await;
        let codes = match again {
            Ok(()) => vec![Code::Ok; 500],
            Err(status) => batch_errors(&status).iter().map(|e| e.0).collect(),
        };
        // The batch happened before this one, or after it, or not: never between.
        assert!(codes.iter().all(|c| *c == codes[0]), "{codes:?}");
        let all = Entity::TableEntry(pb::TableEntry {
            table_id: served.table("flow"),
            ..Default::default()
        });
        let found = client.read(all).await.unwrap();
        assert_eq!(found.len(), 500);
        let delete = |mut update: pb::Update| {
            update.r#type = Type::Delete as i32;
            update
        };
        let deletes = updates(0).into_iter().map(delete).collect();
        client.write(deletes).await.unwrap();
    }
}

#[tokio::test]
async fn ten_thousand_updates_report_exactly_the_three_bad_ones() {
    let served = Served::start("shunt").await;
    let mut client = served.primary().await;
    let bad = [17_u32, 5_000, 9_999];
    let updates: Vec<_> = (0..10_000_u32)
        .map(|number| {
            let matches = vec![
                exact(&[1]),
                exact(&number.to_be_bytes()),
                exact(&[10, 0, 0, 1]),
                exact(&[6]),
                exact(&[0]),
                exact(&[1, 187]),
            ];
            let action = served.info.actions.iter();
            let alias = |a: &&p4runtime::p4::config::v1::Action| {
                a.preamble.as_ref().unwrap().alias == "flow4_forward"
            };
            let params = action.into_iter().find(alias).unwrap().params.len();
            let mut values = vec![&[0_u8][..]; params];
            if bad.contains(&number) {
                values[0] = &[0xff; 9];
            }
            let entry = served.entry("flow4", matches, 0, served.call("flow4_forward", &values));
            table_update(Type::Insert, &entry)
        })
        .collect();
    let errors = batch_errors(&client.write(updates).await.unwrap_err());
    assert_eq!(errors.len(), 10_000);
    let failed: Vec<_> = errors
        .iter()
        .enumerate()
        .filter(|e| e.1.0 != Code::Ok)
        .collect();
    let at: Vec<_> = failed.iter().map(|f| f.0 as u32).collect();
    assert_eq!(at, bad);
    for (_, (code, message)) in failed {
        assert_eq!(*code, Code::OutOfRange);
        assert!(
            message.contains("flow4") && message.contains("parameter"),
            "{message}"
        );
    }
    let all = Entity::TableEntry(pb::TableEntry {
        table_id: served.table("flow4"),
        ..Default::default()
    });
    assert_eq!(client.read(all).await.unwrap().len(), 9_997);
}
