//! Tables by kind of match and of action.

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::table_action::Type as Action;
use pb::update::Type;

use crate::device::{Device, exact, lpm, on_both, optional, range, ternary};

/// A frame of `state.p4`, and what `result` and `info` are when it leaves.
#[track_caller]
fn check(device: &mut Device, port: u16, (op, index, value): (u8, u8, u32), expected: (u8, u8)) {
    let frame = |result: u8, info: u8| {
        let head = [&[op, index], &value.to_be_bytes()[..], &[result, info]].concat();
        [head, vec![0; 30]].concat()
    };
    device.send(port, &frame(0, 0));
    let (result, info) = expected;
    assert_eq!(
        device.next(2),
        frame(result, info),
        "index {index}, value {value:#x}"
    );
}

#[test]
fn ternary_ranges_and_optionals() {
    on_both("tables::ternary_ranges_and_optionals", "state", |device| {
        let low = device.insert(
            "acl",
            &[ternary(&[0x10], &[0xf0]), None, None],
            10,
            ("set", &[1]),
        );
        device.insert("acl", &[None, range(5, 9), None], 30, ("set", &[2]));
        device.insert("acl", &[None, None, optional(3)], 20, ("set", &[3]));
        device.insert(
            "acl",
            &[ternary(&[0xff], &[0xff]), range(7, 7), optional(4)],
            40,
            ("set", &[4]),
        );
        device.set_default("acl", "set", &[9]);
        for (port, index, value, result) in [
            (1, 0, 0x1f, 1),
            (1, 0, 0x2f, 9),
            (1, 5, 0x1f, 2),
            (1, 9, 0x1f, 2),
            (1, 10, 0x1f, 1),
            (3, 0, 0x1f, 3),
            (3, 7, 0x1f, 2),
            (4, 7, 0xff, 4),
            (4, 7, 0xfe, 2),
            (1, 0, 0xffff_ff10, 1),
        ] {
            check(device, port, (1, index, value), (result, 0));
        }
        // Three packets have hit the first entry.
        let counted = |device: &mut Device| {
            let query = pb::DirectCounterEntry {
                table_entry: Some(pb::TableEntry {
                    action: None,
                    ..low.clone()
                }),
                data: None,
            };
            match device.read(Entity::DirectCounterEntry(query)).as_slice() {
                [Entity::DirectCounterEntry(entry)] => entry.data.unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let data = counted(device);
        assert_eq!((data.packet_count, data.byte_count), (3, 3 * 38));
    });
}

#[test]
fn exact_beside_longest_prefix() {
    on_both("tables::exact_beside_longest_prefix", "state", |device| {
        let value = |v: u32| v.to_be_bytes();
        device.insert("mixed", &[exact(&[1]), None], 0, ("set", &[1]));
        device.insert(
            "mixed",
            &[exact(&[1]), lpm(&value(0x0a00_0000), 8)],
            0,
            ("set", &[2]),
        );
        device.insert(
            "mixed",
            &[exact(&[1]), lpm(&value(0x0a01_0000), 16)],
            0,
            ("set_info", &[3]),
        );
        device.insert(
            "mixed",
            &[exact(&[2]), lpm(&value(0x0a01_0203), 32)],
            0,
            ("set", &[4]),
        );
        for (index, value, expected) in [
            (1, 0x0b00_0000, (1, 0)),
            (1, 0x0a02_0000, (2, 0)),
            (1, 0x0a01_ffff, (0, 3)),
            (2, 0x0a01_0203, (4, 0)),
            // A miss is seen by the program.
            (2, 0x0a01_0202, (99, 0)),
            (3, 0x0a01_0203, (99, 0)),
        ] {
            check(device, 1, (2, index, value), expected);
        }
    });
}

#[test]
fn entries_of_the_program() {
    on_both("tables::entries_of_the_program", "state", |device| {
        for (index, value, result) in [
            (0, 0x12, 2),
            (0, 0x11, 4),
            (5, 0x11, 3),
            (9, 0x22, 3),
            (10, 0x22, 1),
        ] {
            check(device, 1, (21, index, value), (result, 0));
        }
    });
}

fn member(device: &mut Device, profile: &str, member_id: u32, call: (&str, u8)) {
    let entry = pb::ActionProfileMember {
        action_profile_id: device.resource(profile),
        member_id,
        action: Some(device.call(call.0, &[call.1])),
    };
    device.write(Type::Insert, Entity::ActionProfileMember(entry));
}

fn refer(device: &mut Device, table: &str, index: u8, action: Action) {
    let entry = device.entry(table, &[exact(&[index])], 0, action);
    device.write(Type::Insert, Entity::TableEntry(entry));
}

#[test]
fn action_profiles() {
    on_both("tables::action_profiles", "state", |device| {
        member(device, "members", 1, ("set", 11));
        member(device, "members", 2, ("set_info", 12));
        refer(device, "profiled", 1, Action::ActionProfileMemberId(1));
        refer(device, "profiled", 2, Action::ActionProfileMemberId(2));
        // The switch statement follows the member's action.
        check(device, 1, (9, 1, 0), (11, 77));
        check(device, 1, (9, 2, 0), (78, 12));
        // A miss has no action here, the compiler says: not even the statement's default runs.
        check(device, 1, (9, 3, 0), (0, 0));
        let changed = pb::ActionProfileMember {
            action_profile_id: device.resource("members"),
            member_id: 2,
            action: Some(device.call("set", &[13])),
        };
        device.write(Type::Modify, Entity::ActionProfileMember(changed));
        check(device, 1, (9, 2, 0), (13, 77));
    });
}

/// CRC-16/ARC, bit by bit.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xa001
            } else {
                crc >> 1
            }
        })
    })
}

#[test]
fn selectors() {
    on_both("tables::selectors", "state", |device| {
        for id in 1..=3 {
            member(device, "spread", id, ("set", id as u8));
        }
        let of = |member_id: u32| pb::action_profile_group::Member {
            member_id,
            weight: 1,
            ..Default::default()
        };
        let group = pb::ActionProfileGroup {
            action_profile_id: device.resource("spread"),
            group_id: 1,
            members: vec![of(1), of(2), of(3)],
            max_size: 3,
        };
        device.write(Type::Insert, Entity::ActionProfileGroup(group.clone()));
        refer(device, "selected", 1, Action::ActionProfileGroupId(1));
        refer(device, "selected", 2, Action::ActionProfileMemberId(3));
        for value in [0, 1, 0x0a00_0001, 0xdead_beef, 77, 78, 79] {
            let hash = crc16(&u32::to_be_bytes(value));
            check(device, 1, (8, 1, value), ((hash % 3) as u8 + 1, 0));
            check(device, 1, (8, 2, value), (3, 0));
        }
        let weighted = pb::ActionProfileGroup {
            group_id: 2,
            members: [(1, 3), (2, 1), (3, 2)]
                .map(|(member_id, weight)| pb::action_profile_group::Member {
                    weight,
                    ..of(member_id)
                })
                .into(),
            max_size: 6,
            ..group.clone()
        };
        device.write(Type::Insert, Entity::ActionProfileGroup(weighted));
        refer(device, "selected", 3, Action::ActionProfileGroupId(2));
        for value in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x0a00_0001] {
            let hash = crc16(&u32::to_be_bytes(value));
            let chosen = [1, 2, 3, 1, 1, 3][usize::from(hash % 6)];
            check(device, 1, (8, 3, value), (chosen, 0));
        }
        let fewer = pb::ActionProfileGroup {
            members: vec![of(1), of(3)],
            ..group
        };
        device.write(Type::Modify, Entity::ActionProfileGroup(fewer));
        for value in [0, 1, 0x0a00_0001, 0xdead_beef] {
            let hash = crc16(&u32::to_be_bytes(value));
            check(device, 1, (8, 1, value), ([1, 3][usize::from(hash % 2)], 0));
        }
    });
}
