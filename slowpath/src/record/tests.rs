use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use shunt_p4::flow::proto;
use shunt_p4::{FlowKey, Tuple};

use super::*;
use crate::conntrack::Table;

const CAPACITY: u32 = 8;
const SEED: u64 = 7;

fn begin(path: &Path) -> StateFile {
    StateFile::begin(path, 2, CAPACITY, SEED, 0, &names(&["a", "b"])).unwrap()
}

prop_compose! {
    fn connection()(
        addresses: [u128; 4], ports: [u16; 4], v6: bool, udp: bool, vpcs in [1u16.., 1u16.., 1u16.., 1u16..],
    ) -> ([FlowKey; 2], [VpcId; 2], Tracker) {
        let ip = |bits: u128| match v6 {
            true => std::net::Ipv6Addr::from_bits(bits).into(),
            false => std::net::Ipv4Addr::from_bits(bits as u32).into(),
        };
        let protocol = if udp { proto::UDP } else { proto::TCP };
        let key = |n: usize| FlowKey {
            vpc: VpcId::new(vpcs[n]).unwrap(),
            tuple: Tuple {
                src: ip(addresses[2 * n]), dst: ip(addresses[2 * n + 1]), proto: protocol,
                src_port: ports[2 * n], dst_port: ports[2 * n + 1],
            },
        };
        let routed = [2, 3].map(|n| VpcId::new(vpcs[n]).unwrap());
        ([key(0), key(1)], routed, Tracker::in_hardware(protocol))
    }
}

/// The connections, each in its slot of a table of their own.
fn table(connections: &[([FlowKey; 2], [VpcId; 2], Tracker)]) -> Table {
    let mut table = Table::new(CAPACITY, 1);
    for (keys, route_vpcs, tracker) in connections {
        let _ = table.insert(0, keys, *route_vpcs, *tracker);
    }
    table
}

fn of(connection: &Connection) -> Record {
    Record {
        keys: [Direction::Forward, Direction::Reply].map(|side| *connection.raw_key(side)),
        route_vpcs: connection.route_vpcs(),
        tracker: connection.tracker,
        switch: connection.place.switch(),
        counted: Counters::default(),
    }
}

/// Counters stay while the state changes, and are not those of who had the slot before.
#[test]
fn a_connection_s_counters_are_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut state = begin(&path);
    state.finish().unwrap();
    let v6 = |port| Tuple {
        src: std::net::Ipv6Addr::LOCALHOST.into(),
        dst: std::net::Ipv6Addr::LOCALHOST.into(),
        proto: proto::UDP,
        src_port: port,
        dst_port: 1,
    };
    let keys = [1, 2].map(|port| FlowKey {
        vpc: VpcId::MIN,
        tuple: v6(port),
    });
    let tracker = Tracker::in_hardware(proto::UDP);
    let table = table(&[(keys, [VpcId::MIN; 2], tracker)]);
    let connection = table.get(0).unwrap();
    let records = state.records(0);
    let counted = Counters {
        packets: [1, 2],
        bytes: [300, u64::MAX],
    };
    records.write(0, connection);
    records.count(0, &counted);
    records.note(0, connection);
    let read = |state: &StateFile| all(&FormerFile::open(&state.path).unwrap(), 0);
    let wanted = Record {
        counted,
        ..of(connection)
    };
    assert_eq!(read(&state), [wanted]);
    records.write(0, connection);
    assert_eq!(read(&state), [of(connection)]);
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Switches are known again by their names, whatever their order is.
#[test]
fn a_connection_s_switch_is_the_one_of_that_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut state = begin(&path);
    state.finish().unwrap();
    let vpc = VpcId::MIN;
    let key = |port| FlowKey {
        vpc,
        tuple: Tuple {
            src: std::net::Ipv4Addr::LOCALHOST.into(),
            dst: std::net::Ipv4Addr::LOCALHOST.into(),
            proto: proto::UDP,
            src_port: port,
            dst_port: 1,
        },
    };
    let tracker = Tracker::in_hardware(proto::UDP);
    let mut table = Table::new(CAPACITY, 1);
    let written = [0, 1, 2].map(|port| {
        let keys = [key(2 * port), key(2 * port + 1)];
        let slot = table.insert(0, &keys, [vpc; 2], tracker).unwrap();
        state.records(0).write(slot, table.get(slot).unwrap());
        slot
    });
    for (switch, slot) in [0, 1].map(SwitchIndex::of).into_iter().zip(written) {
        let connection = table.get_mut(slot).unwrap();
        connection.place.set_switch(switch);
        state.records(0).note(slot, connection);
    }
    let former = begin(&path).former.unwrap();
    let of = |now: &[&str]| -> Vec<_> {
        let records = all(&former, 0).into_iter();
        let now = names(now);
        records
            .map(|record| former.switch(record.switch, &now))
            .collect()
    };
    let [first, second] = [0, 1].map(|n| Some(SwitchIndex::of(n)));
    assert_eq!(of(&["a", "b"]), [first, second, None]);
    assert_eq!(of(&["b", "a"]), [second, first, None]);
    assert_eq!(of(&["c", "b"]), [None, second, None]);
}

fn all(former: &FormerFile, worker: u16) -> Vec<Record> {
    let (mut found, mut from) = (Vec::new(), Some(0));
    while let Some(slot) = from {
        let (records, next) = former.records(worker, slot, 3);
        found.extend(records);
        from = next;
    }
    found
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        connections in prop::collection::vec(connection(), 0..8),
        cleared in prop::collection::vec(any::<bool>(), 8),
        broken in prop::option::of((0usize..8 * LINE, 1u64..)),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let table = table(&connections);
        let mut state = begin(&path);
        state.finish().unwrap();
        let records = state.records(1);
        let mut wanted = Vec::new();
        for slot in 0..table.slots() {
            let connection = table.get(slot).unwrap();
            records.write(slot, connection);
            if cleared[slot as usize] {
                records.clear(slot);
            } else {
                wanted.push((slot, of(connection)));
            }
        }
        if let Some((at, bits)) = broken {
            // Half a write, or worse.
            let at = state.layout.line(1, 0) + at;
            let word = &state.words.words()[at];
            let state_only = at % LINE == 3 && bits <= CHANGING;
            if word.fetch_xor(bits, Relaxed) != 0 && !state_only {
                wanted.retain(|(slot, _)| state.layout.line(1, *slot as usize) != at / LINE * LINE);
            }
        }
        let next = begin(&path);
        let former = next.former.as_ref().unwrap();
        let found = all(former, 1);
        let wanted: Vec<_> = wanted.into_iter().map(|(_, record)| record).collect();
        if broken.is_none_or(|(at, bits)| at % LINE != 3 || bits > CHANGING) {
            prop_assert_eq!(found, wanted);
        }
        prop_assert_eq!(all(former, 0), vec![]);
        prop_assert_eq!(next.seed, SEED);
    }

    /// Whatever is in the file, it is read without a panic.
    #[test]
    fn any_file_is_read(bytes: Vec<u8>, header: bool, words: Vec<u64>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        if header {
            begin(&path).finish().unwrap();
            let mapped = MappedWords::open(&path).unwrap();
            for (word, value) in mapped.words()[HEADER..].iter().zip(words) {
                word.store(value, Relaxed);
            }
        } else {
            std::fs::write(&path, bytes).unwrap();
        }
        let state = begin(&path);
        prop_assert_eq!(state.former.is_some(), header);
        if let Some(former) = &state.former {
            prop_assert_eq!(all(former, 0), vec![]);
        }
    }
}

#[test]
fn a_state_that_changes_is_read_as_it_became() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let key = |src: &str, dst: &str| FlowKey {
        vpc: VpcId::MIN,
        tuple: Tuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto: proto::TCP,
            src_port: 1,
            dst_port: 2,
        },
    };
    let keys = [
        key("2001:db8::1", "2001:db8::2"),
        key("2001:db8::2", "2001:db8::1"),
    ];
    let mut table = table(&[(keys, [VpcId::MIN; 2], Tracker::in_hardware(proto::TCP))]);
    let mut state = begin(&path);
    state.finish().unwrap();
    let records = state.records(0);
    records.write(0, table.get(0).unwrap());
    let tracker = Tracker::unpacked(crate::conntrack::State::LastAck as u8 | 1 << 5, proto::TCP);
    table.get_mut(0).unwrap().tracker = tracker.unwrap();
    records.note(0, table.get(0).unwrap());
    let next = begin(&path);
    assert_eq!(
        all(next.former.as_ref().unwrap(), 0),
        vec![of(table.get(0).unwrap())]
    );
}

/// Being killed again while all is taken back loses nothing: the old file is there until then.
#[test]
fn the_old_file_stays_until_all_is_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    begin(&path).finish().unwrap();
    let seed = |state: &StateFile| state.former.as_ref().map(|former| former.seed);
    let second = StateFile::begin(&path, 2, CAPACITY, 99, 0, &[]).unwrap();
    assert_eq!(seed(&second), Some(SEED));
    drop(second);
    let mut third = StateFile::begin(&path, 1, 2 * CAPACITY, 98, 0, &[]).unwrap();
    assert_eq!(third.former.as_ref().map(FormerFile::workers), Some(2));
    third.finish().unwrap();
    let fourth = StateFile::begin(&path, 1, CAPACITY, 97, 0, &[]).unwrap();
    assert_eq!(fourth.former.as_ref().map(FormerFile::workers), Some(1));
    assert_eq!(seed(&fourth), Some(SEED));
}

#[test]
fn how_long_nobody_was_there_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut state = begin(&path);
    state.finish().unwrap();
    state.records(0).beat(3_000_000_000);
    // Its clock began three seconds before the beat, so that it is ahead of ours.
    assert_eq!(begin(&path).former.unwrap().away, Duration::ZERO);
    state.words.words()[AT_ZERO].fetch_sub(3_600_000_000_000, Relaxed);
    let away = begin(&path).former.unwrap().away;
    assert!(
        away >= Duration::from_secs(3_596) && away < Duration::from_secs(7_200),
        "{away:?}"
    );
}
