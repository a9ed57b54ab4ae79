//! The P4Runtime server's duties that need a state to be seen: roles, pipelines that are saved
//! or reconciled, partial modifications, filters, selectors, meters.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    deprecated,
    missing_docs
)]

mod common;

use common::Udp;
use common::client::{Served, batch_errors, exact, lpm, table_update, ternary, update};
use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::stream_message_response::Update as Response;
use pb::update::Type;
use tonic::Code;

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

fn code(result: Result<(), (Code, String)>) -> Code {
    result.unwrap_err().0
}

fn table(table_id: u32) -> pb::TableEntry {
    pb::TableEntry {
        table_id,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_role_has_a_primary_of_its_own() {
    let served = Served::start("forward").await;
    let mut default = served.primary().await;
    let mut client = served.client().await;
    let named = |device_id| {
        let hello = pb::MasterArbitrationUpdate {
            device_id,
            role: Some(pb::Role {
                name: "routes".into(),
                ..Default::default()
            }),
            election_id: Some(pb::Uint128 { high: 1, low: 0 }),
            ..Default::default()
        };
        pb::stream_message_request::Update::Arbitration(hello)
    };
    client.send(named(1)).await;
    assert_eq!(client.arbitration().await.unwrap(), Code::Ok);
    let mut request = pb::WriteRequest {
        device_id: 1,
        role: "routes".into(),
        election_id: default.election_id,
        updates: vec![table_update(Type::Insert, &flow(&served, 1, 1))],
        ..Default::default()
    };
    let denied = client.rpc.write(request.clone()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    request.election_id = Some(pb::Uint128 { high: 1, low: 0 });
    client.rpc.write(request.clone()).await.unwrap();
    request.role = "strangers".into();
    let unknown = client.rpc.write(request).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    // The default role goes on beside it, and both hear of packets.
    default.insert(&flow(&served, 2, 1)).await;
    let port = served.handle.switch().attach_channel(1, 8);
    port.inject(&[0; 60]);
    let packet = |r: &Response| matches!(r, Response::Packet(_)).then_some(());
    default.next(packet).await.unwrap();
    client.next(packet).await.unwrap();
    // A live stream keeps its device.
    client.send(named(2)).await;
    let lost = client.arbitration().await.unwrap_err();
    assert_eq!(lost.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_saved_pipeline_takes_writes_and_packets_come_with_its_commit() {
    use pb::set_forwarding_pipeline_config_request::Action;
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let (one, two) = {
        let switch = served.handle.switch();
        (switch.attach_channel(1, 8), switch.attach_channel(2, 8))
    };
    client.insert(&flow(&served, 1000, 2)).await;
    let config = |cookie| {
        Some(pb::ForwardingPipelineConfig {
            p4info: Some(served.info.clone()),
            p4_device_config: served.json.clone(),
            cookie: Some(pb::forwarding_pipeline_config::Cookie { cookie }),
        })
    };
    client
        .pipeline(Action::VerifyAndSave, config(5))
        .await
        .unwrap();
    // Reads and writes are about the saved one, packets still meet the old one.
    let wanted = table(served.table("flow"));
    assert_eq!(client.entries(wanted.clone()).await.unwrap(), []);
    one.inject(&Udp::default().frame());
    assert!(two.try_receive().is_some());
    client.insert(&flow(&served, 7, 2)).await;
    client.pipeline(Action::Commit, None).await.unwrap();
    assert_eq!(client.entries(wanted.clone()).await.unwrap().len(), 1);
    one.inject(&Udp::default().frame());
    assert!(two.try_receive().is_none());
    let seventh = Udp {
        sport: 7,
        ..Udp::default()
    };
    one.inject(&seventh.frame());
    assert!(two.try_receive().is_some());
    // What is committed is no longer saved.
    let again = client.pipeline(Action::Commit, None).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
}

#[tokio::test]
async fn reconciling_keeps_the_forwarding_state_or_the_pipeline() {
    use pb::set_forwarding_pipeline_config_request::Action;
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let mut entry = flow(&served, 1000, 2);
    entry.counter_data = Some(pb::CounterData {
        packet_count: 3,
        byte_count: 300,
    });
    entry.metadata = b"mine".to_vec();
    client.insert(&entry).await;
    let member = pb::ActionProfileMember {
        action_profile_id: served.profile(),
        member_id: 1,
        action: Some(served.call("send", &[&[1], &[1]])),
    };
    let member = Entity::ActionProfileMember(member);
    client
        .one(update(Type::Insert, member.clone()))
        .await
        .unwrap();
    let mut indirect = served.entry("ecmp", vec![exact(&[7])], 0, served.call("drop", &[]));
    indirect.action = Some(pb::TableAction {
        r#type: Some(pb::table_action::Type::ActionProfileMemberId(1)),
    });
    client.insert(&indirect).await;
    let mut default = served.entry("route", vec![], 0, served.call("use_nexthop", &[&[9]]));
    default.is_default_action = true;
    client
        .one(table_update(Type::Modify, &default))
        .await
        .unwrap();

    let everything = pb::TableEntry {
        counter_data: Some(pb::CounterData::default()),
        ..Default::default()
    };
    let before = client.entries(everything.clone()).await.unwrap();
    let config = |info: &p4runtime::p4::config::v1::P4Info, cookie| {
        Some(pb::ForwardingPipelineConfig {
            p4info: Some(info.clone()),
            p4_device_config: served.json.clone(),
            cookie: Some(pb::forwarding_pipeline_config::Cookie { cookie }),
        })
    };
    let reconcile = Action::ReconcileAndCommit;
    client
        .pipeline(reconcile, config(&served.info, 8))
        .await
        .unwrap();
    assert_eq!(client.entries(everything.clone()).await.unwrap(), before);
    let wanted = pb::TableEntry {
        is_default_action: true,
        ..table(served.table("route"))
    };
    assert_eq!(client.entries(wanted).await.unwrap(), [default]);
    let members = Entity::ActionProfileMember(Default::default());
    assert_eq!(client.read(members).await.unwrap(), [member]);

    // A pipeline that has no place for an entry is refused, and the old one stays.
    let mut narrow = served.info.clone();
    let table = narrow.tables.iter_mut();
    for table in table.filter(|t| t.preamble.as_ref().unwrap().alias == "flow") {
        table.preamble.as_mut().unwrap().id += 1;
    }
    narrow.direct_counters.clear();
    let refused = client.pipeline(reconcile, config(&narrow, 9)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("cannot be kept"), "{refused}");
    assert_eq!(client.entries(everything).await.unwrap(), before);
}

/// Regression: they were left behind.
#[tokio::test]
async fn value_sets_are_carried_over_to_a_new_pipeline() {
    let served = Served::start("language").await;
    let mut client = served.primary().await;
    let sets = served.info.value_sets.iter();
    let kinds = sets.filter_map(|set| set.preamble.as_ref());
    let kinds = kinds.into_iter().find(|p| p.alias == "kinds").unwrap().id;
    let set = Entity::ValueSetEntry(pb::ValueSetEntry {
        value_set_id: kinds,
        members: vec![pb::ValueSetMember {
            r#match: vec![pb::FieldMatch {
                field_id: 1,
                field_match_type: exact(&[0x12, 0x34]),
            }],
        }],
    });
    client.one(update(Type::Modify, set.clone())).await.unwrap();
    let config = pb::ForwardingPipelineConfig {
        p4info: Some(served.info.clone()),
        p4_device_config: served.json.clone(),
        cookie: None,
    };
    client
        .pipeline(
            pb::set_forwarding_pipeline_config_request::Action::ReconcileAndCommit,
            Some(config),
        )
        .await
        .unwrap();
    let wanted = Entity::ValueSetEntry(pb::ValueSetEntry {
        value_set_id: kinds,
        ..Default::default()
    });
    assert_eq!(client.read(wanted).await.unwrap(), [set]);
}

#[tokio::test]
async fn a_modify_replaces_all_and_a_delete_looks_at_the_key_only() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let mut entry = flow(&served, 1000, 2);
    entry.idle_timeout_ns = 5;
    entry.metadata = b"mine".to_vec();
    client.insert(&entry).await;
    // Without an action, nothing but direct resources changes.
    let mut counts = table(entry.table_id);
    counts.r#match = entry.r#match.clone();
    counts.counter_data = Some(pb::CounterData {
        packet_count: 7,
        byte_count: 70,
    });
    client
        .one(table_update(Type::Modify, &counts))
        .await
        .unwrap();
    let mut wanted = table(entry.table_id);
    wanted.counter_data = Some(Default::default());
    let found = client.entries(wanted.clone()).await.unwrap();
    assert_eq!(
        (&found[0].action, found[0].idle_timeout_ns),
        (&entry.action, 5)
    );
    assert_eq!(found[0].metadata, b"mine");
    assert_eq!(found[0].counter_data, counts.counter_data);
    // With one, all of it is as given; counts go on.
    let plain = flow(&served, 1000, 3);
    client
        .one(table_update(Type::Modify, &plain))
        .await
        .unwrap();
    let found = client.entries(wanted).await.unwrap();
    assert_eq!(
        (&found[0].action, found[0].idle_timeout_ns),
        (&plain.action, 0)
    );
    assert!(found[0].metadata.is_empty());
    assert_eq!(found[0].counter_data, counts.counter_data);

    let mut constant = plain.clone();
    constant.is_const = true;
    let refused = client.one(table_update(Type::Delete, &constant)).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let mut nonsense = plain;
    nonsense.idle_timeout_ns = -1;
    nonsense.time_since_last_hit = Some(Default::default());
    nonsense.action = Some(pb::TableAction::default());
    client
        .one(table_update(Type::Delete, &nonsense))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_constant_table_takes() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let drop = served.call("drop", &[]);
    let mut entry = served.entry("classes", vec![exact(&[0xff])], 0, drop);
    for kind in [Type::Insert, Type::Modify, Type::Delete] {
        let refused = client.one(table_update(kind, &entry)).await;
        assert_eq!(code(refused), Code::PermissionDenied, "{kind:?}");
    }
    entry.action = None;
    client
        .one(table_update(Type::Modify, &entry))
        .await
        .unwrap();
    // An action out of its scope is not invalid but forbidden.
    let scope = served.entry(
        "acl",
        vec![None, None, None],
        1,
        served.call("NoAction", &[]),
    );
    let refused = client.one(table_update(Type::Insert, &scope)).await;
    assert_eq!(code(refused), Code::PermissionDenied);
    let mut indirect = served.entry("ecmp", vec![], 0, served.call("drop", &[]));
    indirect.is_default_action = true;
    let refused = client.one(table_update(Type::Modify, &indirect)).await;
    assert_eq!(code(refused), Code::PermissionDenied);
}

/// The same program with its `const` left away: entries are there at first, and can go.
#[tokio::test]
async fn entries_that_a_program_brings_can_be_changed_unless_constant() {
    let served = Served::start("forward").await;
    let mut info = served.info.clone();
    for table in &mut info.tables {
        if table.is_const_table {
            table.is_const_table = false;
            table.has_initial_entries = true;
        }
    }
    let mut client = served.client().await;
    client.arbitrate(1).await;
    client.set_pipeline(&info, &served.json).await.unwrap();
    let wanted = table(served.table("classes"));
    let mut found = client.entries(wanted.clone()).await.unwrap();
    let entry = found.pop().unwrap();
    assert!(!entry.is_const);
    client
        .one(table_update(Type::Delete, &entry))
        .await
        .unwrap();
    assert_eq!(client.entries(wanted.clone()).await.unwrap(), []);
    client.insert(&entry).await;
    assert_eq!(client.entries(wanted).await.unwrap(), [entry]);
}

#[tokio::test]
async fn reads_are_filtered_and_each_has_a_status() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let acl = |src: u8, priority, action| {
        let matches = vec![None, ternary(&[src, 0, 0, 0], &[255, 0, 0, 0]), None];
        served.entry("acl", matches, priority, action)
    };
    let entries = [
        acl(10, 1, served.call("drop", &[])),
        acl(10, 2, served.call("punt", &[&[3]])),
        acl(11, 2, served.call("drop", &[])),
    ];
    for entry in &entries {
        client.insert(entry).await;
    }
    let mut by_action = table(served.table("acl"));
    by_action.action = entries[0].action.clone();
    let found = client.entries(by_action.clone()).await.unwrap();
    assert_eq!(found.len(), 2);
    by_action.priority = 2;
    assert_eq!(client.entries(by_action).await.unwrap(), entries[2..]);
    let mut by_match = table(served.table("acl"));
    by_match.r#match = entries[0].r#match.clone();
    assert_eq!(client.entries(by_match.clone()).await.unwrap().len(), 2);
    by_match.priority = 2;
    assert_eq!(client.entries(by_match).await.unwrap(), entries[1..2]);

    let mut idle = table(served.table("acl"));
    idle.time_since_last_hit = Some(Default::default());
    let refused = client.unread(Entity::TableEntry(idle)).await;
    assert_eq!(refused.0, Code::InvalidArgument);
    assert!(refused.1.contains("In.acl"), "{refused:?}");
    let absent = pb::DirectCounterEntry {
        table_entry: Some(flow(&served, 1, 1)),
        data: None,
    };
    let refused = client.unread(Entity::DirectCounterEntry(absent)).await;
    assert_eq!(refused.0, Code::NotFound);
    // All externs are none.
    let externs = Entity::ExternEntry(pb::ExternEntry::default());
    assert_eq!(client.read(externs).await.unwrap(), []);

    // The parts that can be answered are.
    let part = |entity| pb::Entity {
        entity: Some(entity),
    };
    let request = pb::ReadRequest {
        device_id: 1,
        entities: vec![
            part(Entity::TableEntry(table(served.table("acl")))),
            part(Entity::TableEntry(table(77))),
            pb::Entity::default(),
        ],
        ..Default::default()
    };
    let mut stream = client.rpc.read(request).await.unwrap().into_inner();
    let answered = stream.message().await.unwrap().unwrap();
    assert_eq!(answered.entities.len(), 3);
    let errors = batch_errors(&stream.message().await.unwrap_err());
    let codes: Vec<_> = errors.iter().map(|e| e.0).collect();
    assert_eq!(codes, [Code::Ok, Code::NotFound, Code::InvalidArgument]);
}

#[tokio::test]
async fn groups_keep_to_the_selectors_sizes() {
    let served = Served::start("forward").await;
    let mut info = served.info.clone();
    info.action_profiles[0].max_group_size = 4;
    let mut client = served.client().await;
    client.arbitrate(1).await;
    client.set_pipeline(&info, &served.json).await.unwrap();
    let member = pb::ActionProfileMember {
        action_profile_id: served.profile(),
        member_id: 1,
        action: Some(served.call("send", &[&[1], &[1]])),
    };
    let member = Entity::ActionProfileMember(member);
    client.one(update(Type::Insert, member)).await.unwrap();
    let group = |weight, max_size| {
        Entity::ActionProfileGroup(pb::ActionProfileGroup {
            action_profile_id: served.profile(),
            group_id: 1,
            members: vec![pb::action_profile_group::Member {
                member_id: 1,
                weight,
                watch_kind: None,
            }],
            max_size,
        })
    };
    for (max_size, wanted) in [(0, Code::InvalidArgument), (5, Code::InvalidArgument)] {
        let refused = client.one(update(Type::Insert, group(1, max_size))).await;
        assert_eq!(code(refused), wanted);
    }
    let full = client.one(update(Type::Insert, group(4, 3))).await;
    assert_eq!(code(full), Code::ResourceExhausted);
    client.one(update(Type::Insert, group(3, 3))).await.unwrap();
    let changed = client.one(update(Type::Modify, group(3, 4))).await;
    assert_eq!(code(changed), Code::InvalidArgument);

    // Without weights, and sizes that count members.
    use p4runtime::p4::config::v1::action_profile::{SelectorSizeSemantics, SumOfMembers};
    info.action_profiles[0].weights_disallowed = true;
    info.action_profiles[0].selector_size_semantics =
        Some(SelectorSizeSemantics::SumOfMembers(SumOfMembers {
            max_member_weight: 0,
        }));
    client.set_pipeline(&info, &served.json).await.unwrap();
    let set = |weight, mode| {
        let action = pb::ActionProfileAction {
            action: Some(served.call("send", &[&[1], &[1]])),
            weight,
            watch_kind: None,
        };
        let mut entry = served.entry("ecmp", vec![exact(&[7])], 0, served.call("drop", &[]));
        entry.action = Some(pb::TableAction {
            r#type: Some(pb::table_action::Type::ActionProfileActionSet(
                pb::ActionProfileActionSet {
                    action_profile_actions: vec![action.clone(), action],
                    action_selection_mode: mode,
                    ..Default::default()
                },
            )),
        });
        entry
    };
    let weighted = client.one(table_update(Type::Insert, &set(1, 0))).await;
    assert_eq!(code(weighted), Code::InvalidArgument);
    let random = client.one(table_update(Type::Insert, &set(0, 2))).await;
    assert_eq!(code(random), Code::Unimplemented);
    client.insert(&set(0, 1)).await;
    let found = client.entries(table(served.table("ecmp"))).await.unwrap();
    assert_eq!(found, [set(0, 1)]);
}

#[tokio::test]
async fn meters_count_their_colours() {
    let served = Served::start("constructs").await;
    let mut client = served.primary().await;
    let meter_id = served.info.meters[0].preamble.as_ref().unwrap().id;
    let meter = |config, counter_data| {
        Entity::MeterEntry(pb::MeterEntry {
            meter_id,
            index: Some(pb::Index { index: 1 }),
            config,
            counter_data,
        })
    };
    let config = pb::MeterConfig {
        cir: 1,
        cburst: 1,
        pir: 1,
        pburst: 2,
        ..Default::default()
    };
    client
        .one(update(Type::Modify, meter(Some(config), None)))
        .await
        .unwrap();
    let port = served.handle.switch().attach_channel(1, 8);
    let _out = served.handle.switch().attach_channel(2, 8);
    let mut frame = vec![15, 0];
    frame.extend(1..=49);
    for _ in 0..4 {
        port.inject(&frame);
    }
    let counts = |packet_count| {
        Some(pb::CounterData {
            packet_count,
            byte_count: packet_count * frame.len() as i64,
        })
    };
    let counted = pb::MeterCounterData {
        green: counts(1),
        yellow: counts(1),
        red: counts(2),
    };
    let wanted = meter(None, Some(Default::default()));
    let found = client.read(wanted.clone()).await.unwrap();
    assert_eq!(found, [meter(Some(config), Some(counted))]);
    // They are cleared, not set; and a rate that the meter does not have is refused.
    let set = meter(Some(config), Some(counted));
    let refused = client.one(update(Type::Modify, set)).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let excess = pb::MeterConfig {
        eburst: 1,
        ..config
    };
    let refused = client
        .one(update(Type::Modify, meter(Some(excess), None)))
        .await;
    assert_eq!(code(refused), Code::InvalidArgument);
    client
        .one(update(
            Type::Modify,
            meter(Some(config), Some(Default::default())),
        ))
        .await
        .unwrap();
    let cleared = pb::MeterCounterData {
        green: counts(0),
        yellow: counts(0),
        red: counts(0),
    };
    let found = client.read(wanted).await.unwrap();
    assert_eq!(found, [meter(Some(config), Some(cleared))]);

    // An index below the array is invalid, one above it out of range.
    for (index, wanted) in [(-1, Code::InvalidArgument), (99, Code::OutOfRange)] {
        let outside = Entity::MeterEntry(pb::MeterEntry {
            meter_id,
            index: Some(pb::Index { index }),
            config: None,
            counter_data: None,
        });
        let refused = client.one(update(Type::Modify, outside)).await;
        assert_eq!(code(refused), wanted);
    }
}

#[tokio::test]
async fn replicas_and_their_backups_are_all_different() {
    use pb::packet_replication_engine_entry::Type as Kind;
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let replica = |port: u8, instance, backups: &[(u8, u32)]| pb::Replica {
        instance,
        port_kind: Some(pb::replica::PortKind::Port(vec![port])),
        backup_replicas: backups
            .iter()
            .map(|(port, instance)| pb::BackupReplica {
                port: vec![*port],
                instance: *instance,
            })
            .collect(),
    };
    let group = |replicas: Vec<pb::Replica>| {
        let entry = pb::MulticastGroupEntry {
            multicast_group_id: 1,
            replicas,
            metadata: b"mine".to_vec(),
        };
        Entity::PacketReplicationEngineEntry(pb::PacketReplicationEngineEntry {
            r#type: Some(Kind::MulticastGroupEntry(entry)),
        })
    };
    for bad in [
        vec![replica(1, 65_536, &[])],
        vec![replica(1, 1, &[(1, 2)])],
        vec![replica(1, 1, &[(2, 2)]), replica(2, 2, &[])],
    ] {
        let refused = client.one(update(Type::Insert, group(bad))).await;
        assert_eq!(code(refused), Code::InvalidArgument);
    }
    let good = group(vec![replica(1, 1, &[(3, 2), (2, 2)])]);
    client
        .one(update(Type::Insert, good.clone()))
        .await
        .unwrap();
    assert_eq!(client.read(group(vec![])).await.unwrap(), [good]);
}

#[tokio::test]
async fn capabilities_are_of_the_server_or_of_a_known_device() {
    let served = Served::start("forward").await;
    let mut client = served.client().await;
    for (device_id, known) in [(0, true), (1, true), (2, false)] {
        let request = pb::CapabilitiesRequest { device_id };
        match client.rpc.capabilities(request).await {
            Ok(answer) => {
                assert!(known);
                assert_eq!(answer.into_inner().p4runtime_api_version, "1.5.0");
            }
            Err(status) => assert_eq!((status.code(), known), (Code::NotFound, false)),
        }
    }
}

/// A default route of a table without a key field given is a match on nothing, and not the
/// default entry.
#[tokio::test]
async fn a_match_on_nothing_is_an_entry() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let any = served.entry("route", vec![None], 0, served.call("drop", &[]));
    client.insert(&any).await;
    let narrow = served.entry(
        "route",
        vec![lpm(&[10, 0, 0, 0], 8)],
        0,
        served.call("drop", &[]),
    );
    client.insert(&narrow).await;
    let found = client.entries(table(served.table("route"))).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.contains(&any) && found.contains(&narrow));
    client.one(table_update(Type::Delete, &any)).await.unwrap();
    let found = client.entries(table(served.table("route"))).await.unwrap();
    assert_eq!(found, [narrow]);
}
