//! The P4Runtime server, with a client of its own: the specification's rules, one by one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    deprecated,
    missing_docs
)]

mod common;

use common::client::{
    Served, batch_errors, exact, lpm, optional, range, table_update, ternary, update,
};
use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::update::Type;
use tonic::Code;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 1, 2];

fn flow(served: &Served, port: u8) -> pb::TableEntry {
    let matches = vec![
        exact(&A),
        exact(&B),
        exact(&1000_u16.to_be_bytes()),
        exact(&2000_u16.to_be_bytes()),
    ];
    let send = served.call("send", &[&[port], &[2, 0, 0, 0, 0, port]]);
    served.entry("flow", matches, 0, send)
}

#[tokio::test]
async fn arbitration_over_the_wire() {
    let served = Served::start("forward").await;
    let mut first = served.client().await;
    first.arbitrate(5).await;
    let mut second = served.client().await;
    second.say_hello(Some(5)).await;
    let refused = second.arbitration().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut third = served.client().await;
    third.arbitrate(6).await;
    assert_eq!(first.arbitration().await.unwrap(), Code::AlreadyExists);
    let denied = first.set_pipeline(&served.info, &served.json).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    drop(third);
    assert_eq!(first.arbitration().await.unwrap(), Code::NotFound);
    first.arbitrate(7).await;
    served.handle.stop().await;
}

#[tokio::test]
async fn checks_come_in_the_specified_order() {
    let served = Served::start("forward").await;
    let mut client = served.client().await;
    let mut request = pb::WriteRequest {
        device_id: 9,
        ..Default::default()
    };
    let code = |r: Result<tonic::Response<pb::WriteResponse>, tonic::Status>| r.unwrap_err().code();
    assert_eq!(
        code(client.rpc.write(request.clone()).await),
        Code::NotFound
    );
    request.device_id = 1;
    request.role = "other".into();
    assert_eq!(
        code(client.rpc.write(request.clone()).await),
        Code::NotFound
    );
    request.role.clear();
    assert_eq!(
        code(client.rpc.write(request.clone()).await),
        Code::PermissionDenied
    );
    client.arbitrate(1).await;
    request.election_id = client.election_id;
    assert_eq!(
        code(client.rpc.write(request.clone()).await),
        Code::FailedPrecondition
    );
    request.atomicity = 9;
    assert_eq!(code(client.rpc.write(request).await), Code::InvalidArgument);
}

#[tokio::test]
async fn pipeline_actions_and_cookie() {
    use pb::get_forwarding_pipeline_config_request::ResponseType;
    use pb::set_forwarding_pipeline_config_request::Action;
    let served = Served::start("forward").await;
    let mut client = served.client().await;
    client.arbitrate(1).await;
    let get = |kind: ResponseType| pb::GetForwardingPipelineConfigRequest {
        device_id: 1,
        response_type: kind as i32,
    };
    let answer = client
        .rpc
        .get_forwarding_pipeline_config(get(ResponseType::All))
        .await
        .unwrap();
    assert!(answer.into_inner().config.is_none());
    let commit = client.pipeline(Action::Commit, None).await;
    assert_eq!(commit.unwrap_err().code(), Code::NotFound);
    let config = pb::ForwardingPipelineConfig {
        p4info: Some(served.info.clone()),
        p4_device_config: served.json.clone(),
        cookie: Some(pb::forwarding_pipeline_config::Cookie { cookie: 5 }),
    };
    let config = Some(config);
    client
        .pipeline(Action::Verify, config.clone())
        .await
        .unwrap();
    let unset = client.entries(pb::TableEntry::default()).await;
    assert_eq!(unset.unwrap_err().code(), Code::FailedPrecondition);
    client
        .pipeline(Action::VerifyAndSave, config.clone())
        .await
        .unwrap();
    let both = client.pipeline(Action::Commit, config.clone()).await;
    assert_eq!(both.unwrap_err().code(), Code::InvalidArgument);
    client.pipeline(Action::Commit, None).await.unwrap();
    let request = get(ResponseType::CookieOnly);
    let answer = client.rpc.get_forwarding_pipeline_config(request).await;
    let config = answer.unwrap().into_inner().config.unwrap();
    assert_eq!(config.cookie.unwrap().cookie, 5);
    assert!(config.p4info.is_none() && config.p4_device_config.is_empty());
    let request = get(ResponseType::All);
    let answer = client.rpc.get_forwarding_pipeline_config(request).await;
    let config = answer.unwrap().into_inner().config.unwrap();
    assert_eq!(config.p4_device_config, served.json);
    let capabilities = client
        .rpc
        .capabilities(pb::CapabilitiesRequest { device_id: 1 });
    assert_eq!(
        capabilities
            .await
            .unwrap()
            .into_inner()
            .p4runtime_api_version,
        "1.5.0"
    );
}

#[tokio::test]
async fn a_bad_pipeline_is_refused_and_named() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let text = String::from_utf8(served.json.clone()).unwrap();
    let bad = text.replace("\"mark_to_drop\"", "\"launch_rocket\"");
    let refused = client.set_pipeline(&served.info, bad.as_bytes()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let message = refused.message();
    assert!(
        message.contains("launch_rocket") && message.contains("forward.p4:"),
        "{message}"
    );
    for bad in [&b"{"[..], b"[]", b"{}", b"\xff"] {
        let refused = client.set_pipeline(&served.info, bad).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
    // The old one stays.
    client.insert(&flow(&served, 2)).await;
}

#[tokio::test]
async fn entries_are_inserted_modified_read_and_deleted() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let entry = flow(&served, 2);
    client.insert(&entry).await;
    let again = client.one(table_update(Type::Insert, &entry)).await;
    assert_eq!(again.unwrap_err().0, Code::AlreadyExists);
    let mut changed = flow(&served, 3);
    changed.idle_timeout_ns = 5_000_000_000;
    changed.controller_metadata = 17;
    client
        .one(table_update(Type::Modify, &changed))
        .await
        .unwrap();
    let filter = pb::TableEntry {
        table_id: entry.table_id,
        ..Default::default()
    };
    let mut expected = changed.clone();
    for field in &mut expected.r#match {
        if let Some(pb::field_match::FieldMatchType::Exact(e)) = &mut field.field_match_type {
            let zeros = e.value.iter().take_while(|b| **b == 0).count();
            e.value.drain(..zeros);
        }
    }
    assert_eq!(client.entries(filter.clone()).await.unwrap(), [expected]);
    // By its key, and with what is asked for.
    let mut by_key = entry.clone();
    by_key.action = None;
    by_key.counter_data = Some(Default::default());
    by_key.time_since_last_hit = Some(Default::default());
    served.clock.advance(1_000);
    let found = client.entries(by_key).await.unwrap();
    assert_eq!(found[0].counter_data, Some(pb::CounterData::default()));
    assert_eq!(found[0].time_since_last_hit.unwrap().elapsed_ns, 1_000);
    client
        .one(table_update(Type::Delete, &entry))
        .await
        .unwrap();
    let gone = client.one(table_update(Type::Delete, &entry)).await;
    assert_eq!(gone.unwrap_err().0, Code::NotFound);
    assert!(client.entries(filter).await.unwrap().is_empty());
}

#[tokio::test]
async fn bad_entries_are_refused_by_name() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let drop = || served.call("drop", &[]);
    let route = |kind| served.entry("route", vec![kind], 0, drop());
    let acl = |matches, priority| served.entry("acl", matches, priority, drop());
    let good = flow(&served, 2);
    let mut missing = good.clone();
    missing.r#match.pop();
    let mut twice = good.clone();
    twice.r#match.push(twice.r#match[0].clone());
    let mut unknown_field = good.clone();
    unknown_field.r#match[0].field_id = 99;
    let mut too_large = good.clone();
    too_large.r#match[3].field_match_type = exact(&[1, 0, 0]);
    let mut empty = good.clone();
    empty.r#match[3].field_match_type = exact(&[]);
    let mut kind = good.clone();
    kind.r#match[0].field_match_type = lpm(&A, 32);
    let mut priority = good.clone();
    priority.priority = 1;
    let mut no_action = good.clone();
    no_action.action = None;
    let mut unknown_table = good.clone();
    unknown_table.table_id = 5;
    let mut other = good.clone();
    other.action.as_mut().unwrap().r#type = Some(pb::table_action::Type::Action(drop()));
    let mut short = good.clone();
    short.action.as_mut().unwrap().r#type =
        Some(pb::table_action::Type::Action(served.call("send", &[&[1]])));
    let mut wide = good.clone();
    wide.action.as_mut().unwrap().r#type = Some(pb::table_action::Type::Action(
        served.call("send", &[&[2, 0], &[1]]),
    ));
    let mut idle = route(lpm(&A, 32));
    idle.idle_timeout_ns = 1;
    let mut constant = served.entry("classes", vec![exact(&[1])], 0, drop());
    constant.priority = 0;
    let mut on_profile = served.entry("ecmp", vec![exact(&[1])], 0, drop());
    on_profile.priority = 0;
    let invalid = Code::InvalidArgument;
    let cases = [
        (missing, invalid, "In.flow, field dport: it is missing"),
        (twice, invalid, "In.flow, field src: it is given twice"),
        (unknown_field, invalid, "no match field of id 99"),
        (
            too_large,
            Code::OutOfRange,
            "field dport: the value takes 17 bits, there are 16",
        ),
        (empty, Code::OutOfRange, "field dport: the value is empty"),
        (kind, invalid, "field src: it is matched as Exact"),
        (priority, invalid, "In.flow: the priority must be 0"),
        (no_action, invalid, "In.flow: the action is missing"),
        (unknown_table, Code::NotFound, "no table of id 0x5"),
        (other, invalid, "action In.drop is not one of its actions"),
        (short, invalid, "parameter dst: it is missing"),
        (
            wide,
            Code::OutOfRange,
            "parameter port: the value takes 10 bits, there are 9",
        ),
        (idle, invalid, "In.route: it has no idle timeout"),
        (constant, Code::PermissionDenied, "In.classes is constant"),
        (
            on_profile,
            invalid,
            "actions come from action profile In.ecmp_selector",
        ),
        (route(lpm(&A, 0)), invalid, "must be left out"),
        (route(lpm(&A, 33)), invalid, "prefix length 33"),
        (route(lpm(&A, 24)), invalid, "bits outside the mask are set"),
        (
            acl(vec![None, None, None], 0),
            invalid,
            "In.acl: the priority must be positive",
        ),
        (
            acl(vec![None, ternary(&A, &[0]), None], 1),
            invalid,
            "mask 0 must be left out",
        ),
        (
            acl(vec![None, ternary(&A, &[255, 0, 0, 0]), None], 1),
            invalid,
            "outside the mask",
        ),
        (
            acl(vec![None, None, range(&[9], &[8])], 1),
            invalid,
            "above its high end",
        ),
        (
            acl(vec![None, None, range(&[0], &[255, 255])], 1),
            invalid,
            "left out",
        ),
        (
            acl(vec![optional(&[2, 0]), None, None], 1),
            Code::OutOfRange,
            "field port",
        ),
    ];
    let updates = cases.iter().map(|c| table_update(Type::Insert, &c.0));
    let mut updates: Vec<_> = updates.collect();
    updates.insert(0, table_update(Type::Insert, &good));
    let status = client.write(updates).await.unwrap_err();
    let errors = batch_errors(&status);
    assert_eq!(errors.len(), cases.len() + 1);
    assert_eq!(errors[0].0, Code::Ok);
    for ((_, code, text), (found, message)) in cases.iter().zip(&errors[1..]) {
        assert_eq!(
            (found, message.contains(text)),
            (code, true),
            "{message} / {text}"
        );
    }
}

#[tokio::test]
async fn default_entries() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let mut default = served.entry("route", vec![], 0, served.call("use_nexthop", &[&[9]]));
    default.is_default_action = true;
    let insert = client.one(table_update(Type::Insert, &default)).await;
    assert_eq!(insert.unwrap_err().0, Code::InvalidArgument);
    client
        .one(table_update(Type::Modify, &default))
        .await
        .unwrap();
    let filter = |table_id| pb::TableEntry {
        table_id,
        is_default_action: true,
        ..Default::default()
    };
    let route = served.table("route");
    assert_eq!(
        client.entries(filter(route)).await.unwrap(),
        [default.clone()]
    );
    // A wildcard read leaves defaults out; one of all defaults has one a table with a default.
    let wildcard = pb::TableEntry::default();
    let all = client.entries(wildcard).await.unwrap();
    assert!(all.iter().all(|e| !e.is_default_action && e.is_const));
    assert_eq!(all.len(), 1);
    let defaults = client.entries(filter(0)).await.unwrap();
    assert_eq!(defaults.len(), served.info.tables.len() - 1);
    default.action = None;
    client
        .one(table_update(Type::Modify, &default))
        .await
        .unwrap();
    let found = client.entries(filter(route)).await.unwrap();
    let action = found[0].action.clone().unwrap().r#type;
    assert_eq!(
        action,
        Some(pb::table_action::Type::Action(served.call("drop", &[])))
    );
    let mut constant = served.entry("flow", vec![], 0, served.call("send", &[&[1], &[1]]));
    constant.is_default_action = true;
    let denied = client.one(table_update(Type::Modify, &constant)).await;
    assert_eq!(denied.unwrap_err().0, Code::PermissionDenied);
}

#[tokio::test]
async fn wildcard_reads_are_strict_and_chunked() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let send = served.call("send", &[&[1], &[1]]);
    let updates: Vec<_> = (0..1024_u16)
        .map(|i| {
            let key = i.to_be_bytes();
            let matches = vec![exact(&A), exact(&B), exact(&key), exact(&[1])];
            table_update(
                Type::Insert,
                &served.entry("flow", matches, 0, send.clone()),
            )
        })
        .collect();
    client.write(updates).await.unwrap();
    let full = flow(&served, 1);
    let full = client.one(table_update(Type::Insert, &full)).await;
    assert_eq!(full.unwrap_err().0, Code::ResourceExhausted);
    let found = client.entries(pb::TableEntry::default()).await.unwrap();
    assert_eq!(found.len(), 1025);
    let priority = pb::TableEntry {
        priority: 1,
        ..Default::default()
    };
    let refused = client.unread(Entity::TableEntry(priority)).await;
    assert_eq!(refused.0, Code::InvalidArgument);
    let request = pb::ReadRequest {
        device_id: 1,
        entities: vec![pb::Entity { entity: None }],
        ..Default::default()
    };
    let mut stream = client.rpc.read(request).await.unwrap().into_inner();
    let refused = batch_errors(&stream.message().await.unwrap_err());
    assert_eq!(refused[0].0, Code::InvalidArgument);
}

#[tokio::test]
async fn profiles_members_groups_and_one_shot() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let profile = served.profile();
    let member = |id: u32| {
        Entity::ActionProfileMember(pb::ActionProfileMember {
            action_profile_id: profile,
            member_id: id,
            action: Some(served.call("send", &[&[id as u8], &[1]])),
        })
    };
    let group = |members: &[(u32, i32)]| {
        let members = members
            .iter()
            .map(|(id, weight)| pb::action_profile_group::Member {
                member_id: *id,
                weight: *weight,
                watch_kind: None,
            });
        Entity::ActionProfileGroup(pb::ActionProfileGroup {
            action_profile_id: profile,
            group_id: 1,
            members: members.collect(),
            max_size: 8,
        })
    };
    let code = |r: Result<(), (Code, String)>| r.unwrap_err().0;
    client.one(update(Type::Insert, member(1))).await.unwrap();
    client.one(update(Type::Insert, member(2))).await.unwrap();
    assert_eq!(
        code(client.one(update(Type::Insert, member(2))).await),
        Code::AlreadyExists
    );
    let unknown = group(&[(1, 1), (3, 1)]);
    assert_eq!(
        code(client.one(update(Type::Insert, unknown)).await),
        Code::NotFound
    );
    let zero = group(&[(1, 0)]);
    assert_eq!(
        code(client.one(update(Type::Insert, zero)).await),
        Code::InvalidArgument
    );
    let large = group(&[(1, 9)]);
    assert_eq!(
        code(client.one(update(Type::Insert, large)).await),
        Code::ResourceExhausted
    );
    let both = group(&[(1, 1), (2, 3)]);
    client
        .one(update(Type::Insert, both.clone()))
        .await
        .unwrap();
    assert_eq!(
        code(client.one(update(Type::Delete, member(1))).await),
        Code::FailedPrecondition
    );

    let mut entry = served.entry("ecmp", vec![exact(&[7])], 0, served.call("drop", &[]));
    let with = |kind| Some(pb::TableAction { r#type: Some(kind) });
    entry.action = with(pb::table_action::Type::ActionProfileGroupId(9));
    assert_eq!(
        code(client.one(table_update(Type::Insert, &entry)).await),
        Code::NotFound
    );
    entry.action = with(pb::table_action::Type::ActionProfileGroupId(1));
    client.insert(&entry).await;
    assert_eq!(
        code(client.one(update(Type::Delete, both.clone())).await),
        Code::FailedPrecondition
    );
    let wanted = pb::ActionProfileGroup::default();
    let found = client
        .read(Entity::ActionProfileGroup(wanted))
        .await
        .unwrap();
    assert_eq!(found, std::slice::from_ref(&both));

    let action = |port: u8, weight| pb::ActionProfileAction {
        action: Some(served.call("send", &[&[port], &[1]])),
        weight,
        watch_kind: None,
    };
    let set = pb::ActionProfileActionSet {
        action_profile_actions: vec![action(1, 2), action(2, 1)],
        ..Default::default()
    };
    let one_shot = with(pb::table_action::Type::ActionProfileActionSet(set));
    let mixed = pb::TableEntry {
        action: one_shot.clone(),
        ..entry.clone()
    };
    assert_eq!(
        code(client.one(table_update(Type::Modify, &mixed)).await),
        Code::InvalidArgument
    );
    client
        .one(table_update(Type::Delete, &entry))
        .await
        .unwrap();
    // Nothing refers to the group any more.
    client.one(update(Type::Delete, both)).await.unwrap();
    client.one(update(Type::Delete, member(1))).await.unwrap();
    client.one(update(Type::Delete, member(2))).await.unwrap();
    entry.action = one_shot;
    client.insert(&entry).await;
    assert_eq!(
        code(client.one(update(Type::Insert, member(1))).await),
        Code::InvalidArgument
    );
    let filter = pb::TableEntry {
        table_id: entry.table_id,
        ..Default::default()
    };
    assert_eq!(client.entries(filter).await.unwrap(), [entry]);
}

#[tokio::test]
async fn a_large_batch_reports_exactly_what_failed() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    let updates: Vec<_> = (0..1000_u16)
        .map(|i| {
            let key = i.to_be_bytes();
            let matches = vec![exact(&A), exact(&B), exact(&key), exact(&[1])];
            let mac = if i % 400 == 399 { &[1; 7][..] } else { &[1] };
            let send = served.call("send", &[&[1], mac]);
            table_update(Type::Insert, &served.entry("flow", matches, 0, send))
        })
        .collect();
    let status = client.write(updates).await.unwrap_err();
    let errors = batch_errors(&status);
    assert_eq!(errors.len(), 1000);
    let failed: Vec<_> = errors
        .iter()
        .enumerate()
        .filter(|e| e.1.0 != Code::Ok)
        .collect();
    assert_eq!(failed.iter().map(|f| f.0).collect::<Vec<_>>(), [399, 799]);
    assert_eq!(failed[0].1.0, Code::OutOfRange);
}

#[tokio::test]
async fn counters_meters_and_groups_are_written_and_read() {
    let served = Served::start("constructs").await;
    let mut client = served.primary().await;
    let id = |head: &Option<p4runtime::p4::config::v1::Preamble>| head.as_ref().unwrap().id;
    let counter_id = id(&served.info.counters[0].preamble);
    let counter = |index, packets| {
        Entity::CounterEntry(pb::CounterEntry {
            counter_id,
            index: Some(pb::Index { index }),
            data: Some(pb::CounterData {
                packet_count: packets,
                byte_count: 0,
            }),
        })
    };
    client
        .one(update(Type::Modify, counter(2, 5)))
        .await
        .unwrap();
    let out = client.one(update(Type::Modify, counter(4, 5))).await;
    assert_eq!(out.unwrap_err().0, Code::OutOfRange);
    let inserted = client.one(update(Type::Insert, counter(1, 5))).await;
    assert_eq!(inserted.unwrap_err().0, Code::InvalidArgument);
    let all = pb::CounterEntry::default();
    let found = client.read(Entity::CounterEntry(all)).await.unwrap();
    assert_eq!(
        found,
        [counter(0, 0), counter(1, 0), counter(2, 5), counter(3, 0)]
    );

    let meter_id = id(&served.info.meters[0].preamble);
    let meter = |config| {
        Entity::MeterEntry(pb::MeterEntry {
            meter_id,
            index: Some(pb::Index { index: 1 }),
            config,
            counter_data: None,
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
        .one(update(Type::Modify, meter(Some(config))))
        .await
        .unwrap();
    let found = client.read(meter(None)).await.unwrap();
    assert_eq!(found, [meter(Some(config))]);

    let register_id = id(&served.info.registers[0].preamble);
    let register = |value: &[u8]| {
        let value = pb::p4_data::Data::Bitstring(value.to_vec());
        Entity::RegisterEntry(pb::RegisterEntry {
            register_id,
            index: Some(pb::Index { index: 3 }),
            data: Some(pb::P4Data { data: Some(value) }),
        })
    };
    client
        .one(update(Type::Modify, register(&[0, 7])))
        .await
        .unwrap();
    let found = client.read(register(&[0])).await.unwrap();
    assert_eq!(found, [register(&[7])]);

    let group = |replicas: &[(u8, u32)]| {
        let replicas = replicas.iter().map(|(port, instance)| pb::Replica {
            instance: *instance,
            port_kind: Some(pb::replica::PortKind::Port(vec![*port])),
            ..Default::default()
        });
        Entity::PacketReplicationEngineEntry(pb::PacketReplicationEngineEntry {
            r#type: Some(
                pb::packet_replication_engine_entry::Type::MulticastGroupEntry(
                    pb::MulticastGroupEntry {
                        multicast_group_id: 3,
                        replicas: replicas.collect(),
                        ..Default::default()
                    },
                ),
            ),
        })
    };
    let twice = group(&[(1, 1), (1, 1)]);
    let refused = client.one(update(Type::Insert, twice)).await;
    assert_eq!(refused.unwrap_err().0, Code::InvalidArgument);
    client
        .one(update(Type::Insert, group(&[(1, 1), (2, 5)])))
        .await
        .unwrap();
    assert_eq!(
        client.read(group(&[])).await.unwrap(),
        [group(&[(1, 1), (2, 5)])]
    );
    client.one(update(Type::Delete, group(&[]))).await.unwrap();
    let gone = client.one(update(Type::Modify, group(&[]))).await;
    assert_eq!(gone.unwrap_err().0, Code::NotFound);
}
