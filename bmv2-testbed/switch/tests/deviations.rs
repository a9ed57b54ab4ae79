//! A server that departs from the specification as real ones do, for clients to be tested on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    deprecated,
    missing_docs
)]

mod common;

use common::client::{Served, batch_errors, exact, lpm, range, table_update, update};
use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::update::Type;
use shunt_switch::Deviation;
use tonic::Code;

fn flow(served: &Served, sport: u16) -> pb::TableEntry {
    let matches = vec![
        exact(&[10, 0, 0, 1]),
        exact(&[10, 0, 1, 2]),
        exact(&sport.to_be_bytes()),
        exact(&[7]),
    ];
    let send = served.call("send", &[&[1], &[2, 0, 0, 0, 0, 1]]);
    served.entry("flow", matches, 0, send)
}

fn all(table_id: u32) -> pb::TableEntry {
    pb::TableEntry {
        table_id,
        ..Default::default()
    }
}

/// What bmv2 does, each taken from PI's source.
#[tokio::test]
async fn as_pi() {
    let served = Served::deviating("forward", [Deviation::Pi]).await;
    let mut client = served.client().await;
    let capabilities = pb::CapabilitiesRequest { device_id: 9 };
    let version = client.rpc.capabilities(capabilities).await.unwrap();
    assert_eq!(version.into_inner().p4runtime_api_version, "1.3.0");
    let get = pb::GetForwardingPipelineConfigRequest {
        device_id: 1,
        response_type: 0,
    };
    let none = client.rpc.get_forwarding_pipeline_config(get).await;
    assert_eq!(none.unwrap_err().code(), Code::FailedPrecondition);

    // Nobody is connected with an election id: whoever gives none may write.
    client
        .set_pipeline(&served.info, &served.json)
        .await
        .unwrap();
    client.insert(&flow(&served, 1)).await;
    client.election_id = Some(pb::Uint128 { high: 0, low: 3 });
    let refused = client.write(vec![]).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    // The next takes over by itself.
    let mut first = served.client().await;
    first.arbitrate(9).await;
    client.say_hello(Some(3)).await;
    assert_eq!(client.arbitration().await.unwrap(), Code::AlreadyExists);
    drop(first);
    assert_eq!(client.arbitration().await.unwrap(), Code::Ok);

    let atomic = pb::write_request::Atomicity::RollbackOnError;
    let refused = client.write_as(atomic, vec![]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let json = client.set_pipeline(&served.info, b"{").await.unwrap_err();
    assert_eq!(json.code(), Code::Unknown);

    // Status codes of its own.
    let mut wide = flow(&served, 2);
    wide.r#match[3].field_match_type = exact(&[1, 0, 0]);
    let mut nowhere = flow(&served, 2);
    nowhere.table_id = 5;
    let mut modify = flow(&served, 1);
    modify.action = None;
    let mut empty = flow(&served, 3);
    empty.r#match[3].field_match_type = exact(&[]);
    let register = Entity::RegisterEntry(pb::RegisterEntry::default());
    let nothing = pb::Update {
        r#type: Type::Insert as i32,
        entity: None,
    };
    let counter = pb::DirectCounterEntry {
        table_entry: Some(flow(&served, 99)),
        data: None,
    };
    let cases = vec![
        (table_update(Type::Insert, &wide), Code::InvalidArgument),
        (table_update(Type::Insert, &nowhere), Code::InvalidArgument),
        (table_update(Type::Modify, &modify), Code::InvalidArgument),
        (table_update(Type::Insert, &empty), Code::Ok),
        (update(Type::Modify, register.clone()), Code::Unimplemented),
        (nothing, Code::Unknown),
        (
            update(Type::Modify, Entity::DirectCounterEntry(counter)),
            Code::InvalidArgument,
        ),
    ];
    let (updates, codes): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let errors = batch_errors(&client.write(updates).await.unwrap_err());
    assert_eq!(errors.iter().map(|e| e.0).collect::<Vec<_>>(), codes);

    // A counter that is deleted is 0 again.
    let count = |index, data| {
        Entity::CounterEntry(pb::CounterEntry {
            counter_id: served.info.counters[0].preamble.as_ref().unwrap().id,
            index,
            data,
        })
    };
    let third = Some(pb::Index { index: 3 });
    let set = Some(pb::CounterData {
        packet_count: 5,
        byte_count: 5,
    });
    client
        .one(update(Type::Modify, count(third, set)))
        .await
        .unwrap();
    client
        .one(update(Type::Delete, count(third, None)))
        .await
        .unwrap();
    let found = client.read(count(third, None)).await.unwrap();
    assert_eq!(found, [count(third, Some(Default::default()))]);
    let every = client.one(update(Type::Modify, count(None, set))).await;
    assert_eq!(every.unwrap_err().0, Code::Unimplemented);

    // bmv2 does not cut copies, and knows a range over all values by its bytes.
    let session = |packet_length_bytes| {
        use pb::packet_replication_engine_entry::Type as Kind;
        let entry = pb::CloneSessionEntry {
            session_id: 5,
            packet_length_bytes,
            ..Default::default()
        };
        Entity::PacketReplicationEngineEntry(pb::PacketReplicationEngineEntry {
            r#type: Some(Kind::CloneSessionEntry(entry)),
        })
    };
    let cut = client.one(update(Type::Insert, session(60))).await;
    assert_eq!(cut.unwrap_err().0, Code::Unknown);
    client.one(update(Type::Insert, session(0))).await.unwrap();
    let whole = |low: &[u8]| {
        let all = range(low, &[0xff, 0xff]);
        served.entry("acl", vec![None, None, all], 1, served.call("drop", &[]))
    };
    let refused = client
        .one(table_update(Type::Insert, &whole(&[0, 0])))
        .await;
    assert_eq!(refused.unwrap_err().0, Code::InvalidArgument);
    client.insert(&whole(&[0])).await;

    // Reads end with the first error, and its status is the read's.
    let refused = client.read(register).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    // Filters other than the key are not looked at.
    let mut filtered = all(served.table("flow"));
    filtered.metadata = b"other".to_vec();
    assert_eq!(client.entries(filtered).await.unwrap().len(), 2);
}

#[tokio::test]
async fn pi_reads_all_at_once_and_is_full_without_a_name() {
    let served = Served::deviating("forward", [Deviation::Pi]).await;
    let mut client = served.client().await;
    client
        .set_pipeline(&served.info, &served.json)
        .await
        .unwrap();
    let updates = |ports: std::ops::Range<u16>| -> Vec<_> {
        let insert = |sport| table_update(Type::Insert, &flow(&served, sport));
        ports.map(insert).collect()
    };
    let errors = batch_errors(&client.write(updates(0..1025)).await.unwrap_err());
    assert_eq!(errors[1024].0, Code::Unknown);
    let request = pb::ReadRequest {
        device_id: 1,
        entities: vec![pb::Entity {
            entity: Some(Entity::TableEntry(all(served.table("flow")))),
        }],
        ..Default::default()
    };
    let mut stream = client.rpc.read(request).await.unwrap().into_inner();
    let message = stream.message().await.unwrap().unwrap();
    assert_eq!(message.entities.len(), 1024);
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn padded_values_mean_the_same() {
    let served = Served::deviating("forward", [Deviation::PadBytes]).await;
    let mut client = served.primary().await;
    client.insert(&flow(&served, 1)).await;
    let route = vec![lpm(&[0, 0, 0, 0], 8)];
    let route = served.entry("route", route, 0, served.call("use_nexthop", &[&[9]]));
    client.insert(&route).await;
    let index = p4runtime::p4info::P4InfoIndex::new(served.info.clone()).unwrap();
    for (table, width) in [("flow", 2), ("route", 4)] {
        let mut found = client.entries(all(served.table(table))).await.unwrap();
        let mut entry = found.pop().unwrap();
        let value = |entry: &pb::TableEntry| match &entry.r#match.last().unwrap().field_match_type {
            Some(pb::field_match::FieldMatchType::Exact(exact)) => exact.value.clone(),
            Some(pb::field_match::FieldMatchType::Lpm(lpm)) => lpm.value.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(value(&entry).len(), width);
        let back = client.one(table_update(Type::Modify, &entry)).await;
        back.unwrap();
        p4runtime::value::canonicalize_table_entry(&mut entry, &index).unwrap();
        assert_eq!(value(&entry).len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_promotes_tells_the_next() {
    let served = Served::deviating("forward", [Deviation::Promote]).await;
    let mut first = served.client().await;
    first.arbitrate(5).await;
    let mut second = served.client().await;
    second.say_hello(Some(4)).await;
    assert_eq!(second.arbitration().await.unwrap(), Code::AlreadyExists);
    drop(first);
    assert_eq!(second.arbitration().await.unwrap(), Code::Ok);
    second
        .set_pipeline(&served.info, &served.json)
        .await
        .unwrap();
}
