//! Counters, meters, registers, hashes, checksums, digests.

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::update::Type;

use crate::device::{Device, PORTS, exact, on_both};

/// The frame of `state.p4`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Frame {
    op: u8,
    index: u8,
    value: u32,
    result: u8,
    info: u8,
    sum: u16,
}

/// Bytes of a frame.
const LEN: usize = 40;

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let head = [&[self.op, self.index], &self.value.to_be_bytes()[..]].concat();
        let tail = [&[self.result, self.info], &self.sum.to_be_bytes()[..]].concat();
        [head, tail, vec![0x33; LEN - 10]].concat()
    }
}

#[track_caller]
fn check(device: &mut Device, sent: Frame, expected: Frame) {
    device.send(1, &sent.bytes());
    assert_eq!(device.next(2), expected.bytes(), "{sent:?}");
}

fn counts(device: &mut Device, counter: &str) -> Vec<(i64, i64)> {
    let query = pb::CounterEntry {
        counter_id: device.resource(counter),
        ..Default::default()
    };
    let read = device.read(Entity::CounterEntry(query));
    let data = read.into_iter().map(|entity| match entity {
        Entity::CounterEntry(entry) => entry.data.unwrap(),
        other => panic!("{other:?}"),
    });
    data.map(|d| (d.packet_count, d.byte_count)).collect()
}

#[test]
fn counters() {
    on_both("state::counters", "state", |device| {
        for index in [0, 2, 2, 4, 255] {
            let frame = Frame {
                op: 6,
                index,
                ..Default::default()
            };
            // An index out of bounds counts nowhere.
            check(device, frame, frame);
        }
        let (one, two) = (LEN as i64, 2 * LEN as i64);
        let expected = [(1, one), (0, 0), (2, two), (0, 0)];
        assert_eq!(counts(device, "both"), expected);
        // bmv2 counts both, whatever the program declares.
        assert_eq!(counts(device, "packets"), expected);
        assert_eq!(counts(device, "bytes"), expected);
        let zero = pb::CounterEntry {
            counter_id: device.resource("both"),
            index: Some(pb::Index { index: 2 }),
            data: Some(pb::CounterData {
                byte_count: 5,
                packet_count: 6,
            }),
        };
        device.write(Type::Modify, Entity::CounterEntry(zero));
        assert_eq!(counts(device, "both")[2], (6, 5));
    });
}

fn config(cburst: i64, pburst: i64) -> pb::MeterConfig {
    // Without rates nothing comes back: colours do not depend on time.
    pb::MeterConfig {
        cburst,
        pburst,
        ..Default::default()
    }
}

#[track_caller]
fn colours(device: &mut Device, op: u8, index: u8, expected: &[u8]) {
    let sent = Frame {
        op,
        index,
        ..Default::default()
    };
    for result in expected {
        check(
            device,
            sent,
            Frame {
                result: *result,
                ..sent
            },
        );
    }
}

#[test]
fn meters() {
    on_both("state::meters", "state", |device| {
        let packets = pb::MeterEntry {
            meter_id: device.resource("packet_meter"),
            index: Some(pb::Index { index: 1 }),
            config: Some(config(2, 4)),
            ..Default::default()
        };
        device.write(Type::Modify, Entity::MeterEntry(packets));
        colours(device, 4, 1, &[0, 0, 1, 1, 2, 2]);
        // Without rates: green.
        colours(device, 4, 2, &[0, 0, 0]);
        let bytes = pb::MeterEntry {
            meter_id: device.resource("byte_meter"),
            index: Some(pb::Index { index: 0 }),
            config: Some(config(LEN as i64, 3 * LEN as i64 + 1)),
            ..Default::default()
        };
        device.write(Type::Modify, Entity::MeterEntry(bytes));
        colours(device, 5, 0, &[0, 1, 1, 2]);
        // New rates fill the buckets.
        device.write(Type::Modify, Entity::MeterEntry(packets));
        colours(device, 4, 1, &[0, 0, 1]);
        match device.read(Entity::MeterEntry(packets)).as_slice() {
            [Entity::MeterEntry(entry)] => assert_eq!(entry.config, Some(config(2, 4))),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn direct_meters() {
    on_both("state::direct_meters", "state", |device| {
        let mut entry = device.insert("policed", &[exact(&[1])], 0, ("police", &[]));
        device.insert("policed", &[exact(&[2])], 0, ("police", &[]));
        entry.action = None;
        let direct = pb::DirectMeterEntry {
            table_entry: Some(entry),
            config: Some(config(LEN as i64, 2 * LEN as i64)),
            ..Default::default()
        };
        device.write(Type::Modify, Entity::DirectMeterEntry(direct));
        colours(device, 3, 1, &[0, 1, 2, 2]);
        colours(device, 3, 2, &[0, 0]);
        // No entry, no meter: the colour stays what it was.
        colours(device, 3, 3, &[0]);
    });
}

#[test]
fn registers() {
    on_both("state::registers", "state", |device| {
        let send = |index: u8, value: u32| Frame {
            op: 7,
            index,
            value,
            ..Default::default()
        };
        check(device, send(1, 5), send(1, 0));
        let second = Frame {
            result: 0x9c,
            ..send(1, 5)
        };
        check(device, send(1, 6), second);
        let first = send(2, 0);
        check(device, send(2, 7), first);
        // Out of bounds: zero is read (a local variable's first value), nothing is written.
        check(device, send(9, 8), send(9, 0));
        check(device, send(9, 8), send(9, 0));
    });
}

#[test]
fn hashes() {
    on_both("state::hashes", "state", |device| {
        for (op, value) in [
            // Values from Python's binascii and a bitwise CRC-16/ARC, of the bytes 0x12 0x34.
            (13, 0x770d),
            (14, 0x1899_9699),
            (15, 0xb666),
            (17, 0x0012_3456),
            (18, 0x770d),
            (19, 750),
            (20, 5),
        ] {
            let sent = Frame {
                op,
                index: 0x12,
                value: 0x0102_0304,
                info: 0x34,
                sum: 0x3765,
                ..Default::default()
            };
            check(device, sent, Frame { value, ..sent });
        }
        // 0x0102 ^ 0x0304 ^ 0x1200, plus 7.
        let sent = Frame {
            op: 16,
            index: 0x12,
            value: 0x0102_0304,
            ..Default::default()
        };
        check(
            device,
            sent,
            Frame {
                value: 0x1006 + 7,
                ..sent
            },
        );
    });
}

#[test]
fn checksums() {
    on_both("state::checksums", "state", |device| {
        let sent = Frame {
            op: 26,
            index: 0x12,
            value: 0x0001_f203,
            sum: 0xffff,
            ..Default::default()
        };
        // 0x0001 + 0xf203 + 0x1200, folded and inverted.
        let sum = 0xfbfa;
        check(device, sent, Frame { sum, ..sent });
        // Others are left as they are.
        let other = Frame { op: 29, ..sent };
        check(device, other, Frame { result: 2, ..other });
        let right = Frame {
            op: 27,
            sum,
            ..sent
        };
        check(device, right, right);
        let wrong = Frame {
            sum: sum - 1,
            ..right
        };
        check(device, wrong, Frame { result: 1, ..wrong });
    });
}

#[test]
fn digests() {
    on_both("state::digests", "state", |device| {
        let entry = pb::DigestEntry {
            digest_id: device.resource("seen_t"),
            config: Some(pb::digest_entry::Config {
                max_timeout_ns: 0,
                max_list_size: 1,
                ack_timeout_ns: 0,
            }),
        };
        device.write(Type::Insert, Entity::DigestEntry(entry));
        let sent = Frame {
            op: 23,
            index: 0x12,
            value: 0x0001_0203,
            ..Default::default()
        };
        check(device, sent, sent);
        let members = device.next_digest();
        // Shortest form, since P4Runtime 1.0 knows no other between server and client.
        let trim = |bytes: &Vec<u8>| {
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            bytes[zeros..].to_vec()
        };
        let members: Vec<Vec<_>> = members
            .iter()
            .map(|m| m.iter().map(trim).collect())
            .collect();
        assert_eq!(members, [[vec![0x12], vec![1, 2, 3], vec![1]]]);
    });
}

#[test]
fn random_numbers() {
    on_both("state::random_numbers", "state", |device| {
        for _ in 0..20 {
            let sent = Frame {
                op: 24,
                ..Default::default()
            };
            device.send(1, &sent.bytes());
            let got = device.next(2);
            let value = u32::from_be_bytes(got[2..6].try_into().unwrap());
            assert!((10..=12).contains(&value), "{value}");
        }
        device.expect_nothing(PORTS);
    });
}
