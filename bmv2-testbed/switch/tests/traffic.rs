//! Packets through entries that a P4Runtime client wrote.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    deprecated,
    missing_docs
)]

mod common;

use std::collections::HashMap;

use common::client::{Client, Served, exact, lpm, optional, range, table_update, ternary, update};
use common::{Udp, check_udp};
use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::stream_message_response::Update as Response;
use pb::update::Type;
use tonic::Code;

const MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];

async fn route_to(served: &Served, client: &mut Client, prefix: &[u8], len: i32, port: u8) {
    let nexthop = [port];
    let hop = served.call("use_nexthop", &[&nexthop]);
    client
        .insert(&served.entry("route", vec![lpm(prefix, len)], 0, hop))
        .await;
    let send = served.call("send", &[&[port], &MAC]);
    client
        .insert(&served.entry("nexthop", vec![exact(&nexthop)], 0, send))
        .await;
}

#[tokio::test]
async fn routes_by_longest_prefix_with_right_checksums() {
    let served = Served::start("forward").await;
    let switch = served.handle.switch().clone();
    let (one, two, three) = (
        switch.attach_channel(1, 8),
        switch.attach_channel(2, 8),
        switch.attach_channel(3, 8),
    );
    let mut client = served.primary().await;
    route_to(&served, &mut client, &[10, 0, 0, 0], 8, 2).await;
    route_to(&served, &mut client, &[10, 0, 1, 0], 24, 3).await;
    one.inject(&Udp::default().frame());
    assert_eq!(check_udp(&three.try_receive().unwrap()), (63, MAC));
    let far = Udp {
        dst: [10, 9, 9, 9],
        // IPv4 options are a varbit; an odd payload ends the checksum in half a word.
        options: vec![0x94, 4, 0, 0, 1, 1, 1, 0],
        payload: b"odd".to_vec(),
        ..Udp::default()
    };
    one.inject(&far.frame());
    let out = two.try_receive().unwrap();
    assert_eq!(check_udp(&out), (63, MAC));
    assert_eq!(out.len(), far.frame().len());
    let nowhere = Udp {
        dst: [11, 0, 0, 1],
        ..Udp::default()
    };
    one.inject(&nowhere.frame());
    let mut broken = Udp::default().frame();
    broken[24] ^= 1;
    one.inject(&broken);
    let mut class = Udp::default().frame();
    class[15] = 0xff;
    class[24..26].copy_from_slice(&[0, 0]);
    let sum = class[14..34]
        .chunks(2)
        .fold(0_u32, |s, w| s + u32::from(w[0]) * 256 + u32::from(w[1]));
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    class[24..26].copy_from_slice(&sum.to_be_bytes());
    one.inject(&class);
    assert!(two.try_receive().is_none() && three.try_receive().is_none());
    assert_eq!(switch.stats().dropped, 3);
    let all = Entity::CounterEntry(pb::CounterEntry::default());
    let counts = client.read(all).await.unwrap();
    let Entity::CounterEntry(bad_checksum) = &counts[2] else {
        panic!("{counts:?}");
    };
    let expected = pb::CounterData {
        packet_count: 1,
        byte_count: broken.len() as i64,
    };
    assert_eq!(bad_checksum.data, Some(expected));
}

#[tokio::test]
async fn flows_count_and_time_out() {
    let served = Served::start("forward").await;
    let switch = served.handle.switch().clone();
    let (one, four) = (switch.attach_channel(1, 8), switch.attach_channel(4, 8));
    let mut client = served.primary().await;
    let matches = vec![
        exact(&[10, 0, 0, 1]),
        exact(&[10, 0, 1, 2]),
        exact(&[3, 232]),
        exact(&[7, 208]),
    ];
    let send = served.call("send", &[&[4], &MAC]);
    let mut entry = served.entry("flow", matches, 0, send);
    entry.idle_timeout_ns = 2_000_000_000;
    client.insert(&entry).await;
    served.clock.advance(1_500_000_000);
    one.inject(&Udp::default().frame());
    assert_eq!(check_udp(&four.try_receive().unwrap()), (63, MAC));
    served.clock.advance(1_900_000_000);
    let direct = |table_entry| {
        Entity::DirectCounterEntry(pb::DirectCounterEntry {
            table_entry,
            data: None,
        })
    };
    let by_table = pb::TableEntry {
        table_id: entry.table_id,
        ..Default::default()
    };
    let counts = client.read(direct(Some(by_table))).await.unwrap();
    let Entity::DirectCounterEntry(count) = &counts[0] else {
        panic!("{counts:?}");
    };
    let len = Udp::default().frame().len() as i64;
    assert_eq!(count.data.unwrap().byte_count, len);
    served.clock.advance(200_000_000);
    let notified = client
        .next(|r| match r {
            Response::IdleTimeoutNotification(n) => Some(n.table_entry.clone()),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(notified.len(), 1);
    assert_eq!(notified[0].r#match.len(), 4);
    assert_eq!(
        notified[0].time_since_last_hit.unwrap().elapsed_ns,
        2_100_000_000
    );
    // Once a timeout, not more often.
    served.clock.advance(2_000_000_000);
    let again = client
        .next(|r| match r {
            Response::IdleTimeoutNotification(n) => Some(n.table_entry.clone()),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(
        again[0].time_since_last_hit.unwrap().elapsed_ns,
        4_100_000_000
    );
    // A modified entry keeps its counts.
    client
        .one(table_update(Type::Modify, &entry))
        .await
        .unwrap();
    let mut with_counts = entry.clone();
    with_counts.counter_data = Some(Default::default());
    let found = client.entries(with_counts).await.unwrap();
    assert_eq!(found[0].counter_data.unwrap().packet_count, 1);
}

#[tokio::test]
async fn a_burst_over_a_large_table_leaves_in_order() {
    let served = Served::start("forward").await;
    let switch = served.handle.switch().clone();
    let one = switch.attach_channel(1, 8);
    let outs = [switch.attach_channel(2, 512), switch.attach_channel(3, 512)];
    let mut client = served.primary().await;
    // As many as the table takes.
    let flows = 1024_u16;
    let updates = (0..flows).map(|sport| {
        let matches = vec![
            exact(&[10, 0, 0, 1]),
            exact(&[10, 0, 1, 2]),
            exact(&sport.to_be_bytes()),
            exact(&[7, 208]),
        ];
        let send = served.call("send", &[&[2 + (sport % 2) as u8], &MAC]);
        table_update(Type::Insert, &served.entry("flow", matches, 0, send))
    });
    client.write(updates.collect()).await.unwrap();
    // Some of no flow among them, which no route takes either.
    let sports: Vec<u16> = (0..300_u16).map(|i| i * 7 % 1100).collect();
    let frame = |sport: &u16| {
        let packet = Udp {
            sport: *sport,
            ..Udp::default()
        };
        packet.frame()
    };
    let frames: Vec<_> = sports.iter().map(frame).collect();
    one.inject_burst(frames.iter().map(Vec::as_slice));
    for (parity, out) in (0..2_u16).zip(&outs) {
        let wanted = sports.iter().filter(|s| **s < flows && **s % 2 == parity);
        let wanted: Vec<u16> = wanted.copied().collect();
        let left = std::iter::from_fn(|| out.try_receive());
        let left = left.map(|frame| {
            assert_eq!(check_udp(&frame), (63, MAC));
            u16::from_be_bytes([frame[34], frame[35]])
        });
        assert_eq!(left.collect::<Vec<_>>(), wanted);
    }
    let missed = sports.iter().filter(|s| **s >= flows).count();
    assert_eq!(switch.stats().dropped, missed as u64);
}

#[tokio::test]
async fn acl_priorities_ranges_and_meters() {
    let served = Served::start("forward").await;
    let switch = served.handle.switch().clone();
    let (one, two) = (switch.attach_channel(1, 8), switch.attach_channel(2, 8));
    let mut client = served.primary().await;
    route_to(&served, &mut client, &[10, 0, 0, 0], 8, 2).await;
    let drop = served.call("drop", &[]);
    let metered = served.call("metered", &[]);
    let low = range(&[7, 0], &[7, 255]);
    let low = served.entry("acl", vec![None, None, low], 10, drop.clone());
    client.insert(&low).await;
    one.inject(&Udp::default().frame());
    assert!(two.try_receive().is_none());
    let net = ternary(&[10, 0, 0, 0], &[255, 255, 255, 0]);
    let mut high = served.entry("acl", vec![optional(&[1]), net, None], 20, metered);
    high.meter_config = Some(pb::MeterConfig {
        cir: 1,
        cburst: 1,
        pir: 1,
        pburst: 2,
        ..Default::default()
    });
    client.insert(&high).await;
    for _ in 0..4 {
        one.inject(&Udp::default().frame());
    }
    // Green, yellow, red, red: only red is dropped.
    assert!(two.try_receive().is_some() && two.try_receive().is_some());
    assert!(two.try_receive().is_none());
    served.clock.advance(1_000_000_000);
    one.inject(&Udp::default().frame());
    assert!(two.try_receive().is_some());
    // Same matches, another priority: another entry. Without it the range drops again.
    let mut other = high.clone();
    other.priority = 5;
    client.insert(&other).await;
    client.one(table_update(Type::Delete, &high)).await.unwrap();
    one.inject(&Udp::default().frame());
    assert!(two.try_receive().is_none());
    let filter = pb::TableEntry {
        table_id: high.table_id,
        meter_config: Some(Default::default()),
        ..Default::default()
    };
    let mut found = client.entries(filter).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found.remove(1), other);
    assert_eq!(found.remove(0), low);
}

#[tokio::test]
async fn a_group_spreads_by_hash_and_weight() {
    let served = Served::start("forward").await;
    let switch = served.handle.switch().clone();
    let one = switch.attach_channel(1, 8);
    let outs = [switch.attach_channel(2, 512), switch.attach_channel(3, 512)];
    let mut client = served.primary().await;
    let group = served.call("use_group", &[&[7]]);
    client
        .insert(&served.entry("route", vec![lpm(&[10, 0, 0, 0], 8)], 0, group))
        .await;
    let action_profile_id = served.profile();
    for member_id in [2, 3] {
        let member = pb::ActionProfileMember {
            action_profile_id,
            member_id,
            action: Some(served.call("send", &[&[member_id as u8], &MAC])),
        };
        let member = update(Type::Insert, Entity::ActionProfileMember(member));
        client.one(member).await.unwrap();
    }
    let members = [(2, 1), (3, 3)].map(|(member_id, weight)| pb::action_profile_group::Member {
        member_id,
        weight,
        watch_kind: None,
    });
    let mut group = pb::ActionProfileGroup {
        action_profile_id,
        group_id: 1,
        members: members.to_vec(),
        max_size: 0,
    };
    client
        .one(update(
            Type::Insert,
            Entity::ActionProfileGroup(group.clone()),
        ))
        .await
        .unwrap();
    let mut entry = served.entry("ecmp", vec![exact(&[7])], 0, served.call("drop", &[]));
    entry.action.as_mut().unwrap().r#type = Some(pb::table_action::Type::ActionProfileGroupId(1));
    client.insert(&entry).await;
    let mut ports = HashMap::new();
    for round in 0..2 {
        for sport in 0..400 {
            one.inject(
                &Udp {
                    sport,
                    ..Udp::default()
                }
                .frame(),
            );
            let port = usize::from(outs[1].try_receive().is_some());
            if port == 0 {
                assert!(outs[0].try_receive().is_some());
            }
            // A flow stays on its member.
            assert_eq!(*ports.entry(sport).or_insert(port), port, "round {round}");
        }
    }
    let heavy: usize = ports.values().sum();
    assert!(
        (260..340).contains(&heavy),
        "{heavy} of 400 on the member of weight 3 of 4"
    );
    // An empty group is a miss: this table has no default action, so the frame keeps port 0.
    group.members.clear();
    client
        .one(update(Type::Modify, Entity::ActionProfileGroup(group)))
        .await
        .unwrap();
    one.inject(&Udp::default().frame());
    assert!(outs[0].try_receive().is_none() && outs[1].try_receive().is_none());
}

#[tokio::test]
async fn packets_in_and_out() {
    let served = Served::start("forward").await;
    let switch = served.handle.switch().clone();
    let one = switch.attach_channel(1, 8);
    let mut client = served.primary().await;
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6, 1, 2, 3]);
    one.inject(&arp);
    let packet = client
        .next(|r| match r {
            Response::Packet(p) => Some(p.clone()),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(packet.payload, arp);
    let meta = |metadata_id, value: u8| pb::PacketMetadata {
        metadata_id,
        value: vec![value],
    };
    assert_eq!(packet.metadata, [meta(1, 1), meta(2, 1)]);
    let out = |metadata: Vec<pb::PacketMetadata>| {
        pb::stream_message_request::Update::Packet(pb::PacketOut {
            payload: arp.clone(),
            metadata,
        })
    };
    client.send(out(vec![meta(1, 1), meta(2, 0)])).await;
    let frame = tokio::task::spawn_blocking(move || one.receive(common::client::PATIENCE));
    assert_eq!(frame.await.unwrap().unwrap(), arp);
    client.send(out(vec![meta(1, 1)])).await;
    let error = client
        .next(|r| match r {
            Response::Error(e) => Some(e.clone()),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(Code::from(error.canonical_code), Code::InvalidArgument);
    assert!(error.message.contains("pad"), "{}", error.message);
    let mut backup = served.client().await;
    backup.say_hello(None).await;
    assert_eq!(backup.arbitration().await.unwrap(), Code::AlreadyExists);
    backup.send(out(vec![meta(1, 1), meta(2, 0)])).await;
    let error = backup
        .next(|r| match r {
            Response::Error(e) => Some(e.canonical_code),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(Code::from(error), Code::PermissionDenied);
}

fn replica(port: u8, instance: u32) -> pb::Replica {
    pb::Replica {
        instance,
        port_kind: Some(pb::replica::PortKind::Port(vec![port])),
        ..Default::default()
    }
}

fn replication(kind: pb::packet_replication_engine_entry::Type) -> pb::Update {
    let entry = pb::PacketReplicationEngineEntry { r#type: Some(kind) };
    update(Type::Insert, Entity::PacketReplicationEngineEntry(entry))
}

fn values(op: u8) -> Vec<u8> {
    let mut out = vec![op, 0];
    out.extend(1..=49);
    out
}

#[tokio::test]
async fn multicast_and_clones() {
    use pb::packet_replication_engine_entry::Type as Kind;
    let served = Served::start("constructs").await;
    let switch = served.handle.switch().clone();
    let (one, two, three) = (
        switch.attach_channel(1, 8),
        switch.attach_channel(2, 8),
        switch.attach_channel(3, 8),
    );
    let mut client = served.primary().await;
    let group = pb::MulticastGroupEntry {
        multicast_group_id: 3,
        replicas: vec![replica(2, 21), replica(3, 31), replica(3, 32)],
        ..Default::default()
    };
    let session = |session_id, packet_length_bytes| {
        Kind::CloneSessionEntry(pb::CloneSessionEntry {
            session_id,
            replicas: vec![replica(3, 0)],
            packet_length_bytes,
            ..Default::default()
        })
    };
    client
        .one(replication(Kind::MulticastGroupEntry(group)))
        .await
        .unwrap();
    client.one(replication(session(5, 0))).await.unwrap();
    client.one(replication(session(6, 30))).await.unwrap();

    one.inject(&values(25));
    let mut instances = vec![two.try_receive().unwrap()[3]];
    instances.extend([
        three.try_receive().unwrap()[3],
        three.try_receive().unwrap()[3],
    ]);
    assert_eq!(instances, [21, 31, 32]);

    // From ingress: the frame as it came, with the listed metadata only.
    one.inject(&values(21));
    let original = two.try_receive().unwrap();
    let copy = three.try_receive().unwrap();
    assert_eq!((original[2], original[3]), (77, 2));
    assert_eq!((copy[2], copy[3], copy[50] >> 5), (1, 42, 0));

    // From egress: the frame as it is there, cut to the session's length.
    one.inject(&values(29));
    let original = two.try_receive().unwrap();
    let copy = three.try_receive().unwrap();
    assert_eq!((original[3], original.len()), (9, 51));
    assert_eq!((copy[3], copy.len()), (9, 30));
}

/// Lets the switch's time pass until `wait` is over.
async fn passing<T>(served: &Served, wait: impl Future<Output = T>) -> T {
    let mut wait = std::pin::pin!(wait);
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(10));
    loop {
        tokio::select! {
            over = &mut wait => return over,
            _ = ticks.tick() => served.clock.advance(100_000_000),
        }
    }
}

#[tokio::test]
async fn digests_reach_the_primary_in_lists() {
    let served = Served::start("constructs").await;
    let switch = served.handle.switch().clone();
    let (one, two) = (switch.attach_channel(1, 8), switch.attach_channel(2, 8));
    let mut client = served.primary().await;
    let digest_id = served.info.digests[0].preamble.as_ref().unwrap().id;
    // Not enabled yet: nothing comes of it.
    one.inject(&values(22));
    assert_eq!(two.try_receive().unwrap()[3], 2);
    let config = |max_list_size| {
        Entity::DigestEntry(pb::DigestEntry {
            digest_id,
            config: Some(pb::digest_entry::Config {
                max_timeout_ns: 1_000_000_000,
                max_list_size,
                ack_timeout_ns: 1 << 60,
            }),
        })
    };
    let code = |r: Result<(), (Code, String)>| r.unwrap_err().0;
    let early = client.one(update(Type::Modify, config(2))).await;
    assert_eq!(code(early), Code::NotFound);
    client.one(update(Type::Insert, config(2))).await.unwrap();
    let again = client.one(update(Type::Insert, config(2))).await;
    assert_eq!(code(again), Code::AlreadyExists);
    let all = Entity::DigestEntry(pb::DigestEntry::default());
    assert_eq!(client.read(all).await.unwrap(), [config(2)]);

    let bits = |value: &[u8]| pb::P4Data {
        data: Some(pb::p4_data::Data::Bitstring(value.to_vec())),
    };
    let learned = |a: u8| pb::P4Data {
        data: Some(pb::p4_data::Data::Struct(pb::P4StructLike {
            members: vec![bits(&[a]), bits(&[3, 4])],
        })),
    };
    let frame = |a: u8| {
        let mut frame = values(22);
        frame[2] = a;
        frame
    };
    let list = |r: &Response| match r {
        Response::Digest(d) => Some(d.clone()),
        _ => None,
    };
    // A full list, without duplicates.
    for a in [1, 1, 2] {
        one.inject(&frame(a));
        two.try_receive().unwrap();
    }
    let full = client.next(list).await.unwrap();
    assert_eq!(full.digest_id, digest_id);
    assert_eq!(full.data, [learned(1), learned(2)]);
    // What was sent is not sent again before it is acknowledged; a list that isn't full waits.
    one.inject(&frame(1));
    one.inject(&frame(3));
    let late = passing(&served, client.next(list)).await.unwrap();
    assert_eq!(late.data, [learned(3)]);
    let ack = |digest_id, list_id| {
        let ack = pb::DigestListAck { digest_id, list_id };
        pb::stream_message_request::Update::DigestAck(ack)
    };
    client.send(ack(digest_id, full.list_id)).await;
    client.send(ack(digest_id + 1, 1)).await;
    let error = client
        .next(|r| match r {
            Response::Error(e) => Some(e.clone()),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(error.canonical_code, Code::InvalidArgument as i32);
    // Stream messages are dealt with in order: the acknowledgement has been, too.
    one.inject(&frame(1));
    let again = passing(&served, client.next(list)).await.unwrap();
    assert_eq!(again.data, [learned(1)]);
    client.one(update(Type::Delete, config(2))).await.unwrap();
}

#[tokio::test]
async fn a_new_pipeline_starts_afresh_and_packets_go_on() {
    let served = Served::start("forward").await;
    let switch = served.handle.switch().clone();
    let (one, two) = (switch.attach_channel(1, 8), switch.attach_channel(2, 8));
    let mut client = served.primary().await;
    route_to(&served, &mut client, &[10, 0, 0, 0], 8, 2).await;
    one.inject(&Udp::default().frame());
    assert!(two.try_receive().is_some());
    client
        .set_pipeline(&served.info, &served.json)
        .await
        .unwrap();
    one.inject(&Udp::default().frame());
    assert!(two.try_receive().is_none());
    route_to(&served, &mut client, &[10, 0, 0, 0], 8, 2).await;
    one.inject(&Udp::default().frame());
    assert!(two.try_receive().is_some());
}
