//! Packets that are copied, cut, sent round again, or dropped.

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::packet_replication_engine_entry::Type as Replication;
use pb::update::Type;

use crate::device::{Device, PORTS, on_both};

#[allow(deprecated, reason = "what bmv2 takes")]
fn replica(port: u32, instance: u32) -> pb::Replica {
    pb::Replica {
        instance,
        port_kind: Some(pb::replica::PortKind::EgressPort(port)),
        ..Default::default()
    }
}

fn replicate(device: &mut Device, kind: Replication) {
    let entry = pb::PacketReplicationEngineEntry { r#type: Some(kind) };
    device.write(Type::Insert, Entity::PacketReplicationEngineEntry(entry));
}

fn group(device: &mut Device, id: u32, replicas: Vec<pb::Replica>) {
    replicate(
        device,
        Replication::MulticastGroupEntry(pb::MulticastGroupEntry {
            multicast_group_id: id,
            replicas,
            ..Default::default()
        }),
    );
}

fn session(device: &mut Device, id: u32, replicas: Vec<pb::Replica>) {
    replicate(
        device,
        Replication::CloneSessionEntry(pb::CloneSessionEntry {
            session_id: id,
            replicas,
            ..Default::default()
        }),
    );
}

/// A frame of `state.p4`; the fields behind `op` are index, value, result, info and sum.
fn state(op: u8, index: u8, value: u32, result: u8, info: u8, sum: u16) -> Vec<u8> {
    let (value, sum) = (value.to_be_bytes(), sum.to_be_bytes());
    [&[op, index], &value[..], &[result, info], &sum, &[0xee; 30]].concat()
}

/// A frame of `language.p4` that stops the parser at once.
fn plain(op: u8, arg: u8) -> Vec<u8> {
    [&[op, arg], &[0x5a; 40][..]].concat()
}

#[test]
fn what_is_cut() {
    on_both("detours::what_is_cut", "language", |device| {
        group(device, 1, vec![replica(3, 1), replica(4, 1)]);
        session(device, 3, vec![replica(5, 0)]);
        device.send(1, &plain(0xc1, 0));
        assert_eq!(device.next(2), plain(0xc1, 0)[..20]);
        // Copies are whole, as in bmv2, and so is what goes round.
        device.send(1, &plain(0xc2, 0));
        assert_eq!(device.next(3), plain(0xc2, 0));
        assert_eq!(device.next(4), plain(0xc2, 0));
        device.send(1, &plain(0xc3, 0));
        assert_eq!(device.next(2), plain(0xc3, 2));
        device.send(1, &plain(0xc4, 0));
        assert_eq!(device.next(2), plain(0xc4, 0)[..20]);
        assert_eq!(device.next(5), plain(0xc4, 0));
        device.expect_nothing(PORTS);
    });
}

#[test]
fn a_priority_without_a_queue() {
    on_both(
        "detours::a_priority_without_a_queue",
        "language",
        |device| {
            device.send(1, &plain(0xc0, 1));
            device.send(1, &plain(0xc0, 0));
            assert_eq!(device.next(2), plain(0xc0, 0));
            device.expect_nothing(PORTS);
        },
    );
}

#[test]
fn clones() {
    on_both("detours::clones", "state", |device| {
        session(device, 5, vec![replica(3, 8), replica(4, 9)]);
        session(device, 6, vec![replica(5, 0)]);
        // The copy is parsed again: without what ingress changed, with what the list names.
        device.send(1, &state(10, 1, 2, 0, 0, 3));
        assert_eq!(device.next(2), state(10, 1, 2, 1, 0, 3));
        assert_eq!(device.next(3), state(10, 0, 8, 0, 42, 3));
        assert_eq!(device.next(4), state(10, 0, 9, 0, 42, 3));
        // At egress the copy has what egress changed.
        device.send(1, &state(31, 1, 2, 0, 0, 3));
        assert_eq!(device.next(2), state(31, 1, 2, 3, 0, 3));
        assert_eq!(device.next(5), state(31, 1, 40, 3, 17, 3));
        device.expect_nothing(PORTS);
    });
}

#[test]
fn copies() {
    on_both("detours::copies", "state", |device| {
        group(device, 7, vec![replica(2, 1), replica(3, 1), replica(3, 2)]);
        device.send(1, &state(11, 7, 0, 0, 0, 0));
        // Instance type 5: a replica.
        assert_eq!(device.next(2), state(11, 7, 1, 5, 2, 0));
        let mut third = [device.next(3), device.next(3)];
        third.sort();
        let expected = [state(11, 7, 1, 5, 3, 0), state(11, 7, 2, 5, 3, 0)];
        assert_eq!(third, expected);
        // A group that does not exist drops.
        device.send(1, &state(11, 8, 0, 0, 0, 0));
        device.send(1, &state(29, 0, 0, 0, 0, 0));
        assert_eq!(device.next(2), state(29, 0, 0, 2, 0, 0));
        device.expect_nothing(PORTS);
    });
}

#[test]
fn another_pass() {
    on_both("detours::another_pass", "state", |device| {
        // Resubmitted twice, as it came in; `port` is from the second pass, whose own is 0.
        device.send(3, &state(12, 9, 9, 9, 9, 9));
        assert_eq!(device.next(2), state(12, 0, 6, 2, 9, 0));
        // Recirculated twice, as it left; the second pass is of instance type 0 at egress.
        device.send(1, &state(30, 1, 2, 9, 0, 3));
        assert_eq!(device.next(2), state(30, 1, 2, 0, 2, 3));
        device.expect_nothing(PORTS);
    });
}

#[test]
fn drops_and_exits() {
    on_both("detours::drops_and_exits", "state", |device| {
        for op in [22, 32] {
            device.send(1, &state(op, 0, 0, 0, 0, 0));
        }
        device.send(1, &state(28, 0, 0, 0, 0, 0));
        assert_eq!(device.next(2), state(28, 0, 0, 1, 0, 0));
        device.send(1, &state(29, 0, 0, 0, 0, 0));
        assert_eq!(device.next(2), state(29, 0, 0, 2, 0, 0));
        device.send(4, &state(25, 0, 0, 0, 0, 0));
        assert_eq!(device.next(2), state(25, 0, 40, 0, 4, 0));
        device.expect_nothing(PORTS);
    });
}
