//! Tables against the plainest thing that could be right: a list of entries.

use proptest::prelude::*;

use super::*;
use crate::program::Program;
use crate::program::table::{Pattern, prefix_mask};
use crate::state::entry::Target;

const JSON: &[u8] = include_bytes!("../../../testdata/forward.json");

/// The compiled table of the test program.
fn compiled(name: &str, max_size: usize) -> Table {
    let program = Program::load(JSON).unwrap();
    let mut tables = program.tables.into_iter();
    let mut table = tables.find(|t| t.name.ends_with(name)).unwrap();
    table.max_size = max_size;
    table
}

/// A pattern of few different ones: `at` says which.
fn pattern(table: &Table, at: u8) -> Pattern {
    let mut value = vec![0; table.key_bytes];
    let mut mask = vec![0xff; table.key_bytes];
    let (mut prefix, mut priority) = (0, 0);
    match table.lookup {
        // The last byte of each field, so that fields are told apart.
        Lookup::Exact => {
            for (i, key) in table.key.iter().enumerate() {
                value[key.offset + key.bytes - 1] = at >> (2 * i) & 3;
            }
            mask.clear();
        }
        Lookup::Lpm => {
            prefix = u16::from(at & 3) * 8;
            prefix_mask(&mut mask, 32, prefix);
            value = vec![at >> 2 & 1, at >> 3 & 1, at >> 4 & 1, 0];
            for (v, m) in value.iter_mut().zip(&mask) {
                *v &= m;
            }
        }
        Lookup::Ternary => {
            priority = i32::from(at & 3) + 1;
            for key in &table.key {
                let last = key.offset + key.bytes - 1;
                mask[key.offset..=last].fill(0);
                match key.kind {
                    // From value to mask.
                    Match::Range => (value[last], mask[last]) = (at >> 2 & 3, 2),
                    _ => {
                        mask[last] = at >> 4 & 1;
                        value[last] = at >> 5 & mask[last];
                    }
                }
            }
        }
    }
    Pattern {
        value: value.into(),
        mask: mask.into(),
        prefix,
        priority,
    }
}

/// A packet's key of few different ones.
fn packet(table: &Table, at: u8) -> Vec<u8> {
    let mut key = vec![0; table.key_bytes];
    if table.lookup == Lookup::Lpm {
        return vec![at & 1, at >> 1 & 1, at >> 2 & 1, at >> 3 & 1];
    }
    for (i, part) in table.key.iter().enumerate() {
        key[part.offset + part.bytes - 1] = at >> (2 * i) & 3;
    }
    key
}

fn entry(pattern: &Pattern, slot: u16, timeout: u8, now_ns: u64) -> Entry {
    let call = Call {
        slot,
        args: vec![slot as u8; 3].into(),
    };
    let spec = Spec {
        idle_timeout_ns: timeout.into(),
        now_ns,
        ..Spec::default()
    };
    Entry::with_call(pattern, &call, spec)
}

/// An entry of the model.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    pattern: Pattern,
    slot: u16,
    timeout: u64,
    hits: u64,
    /// When it was last hit or written, and notified.
    last: u64,
    notified: u64,
}

/// Whether a packet's key is what the pattern means.
fn meant(table: &Table, pattern: &Pattern, key: &[u8]) -> bool {
    table.key.iter().all(|part| {
        let range = part.offset..part.offset + part.bytes;
        let (k, v) = (&key[range.clone()], &pattern.value[range.clone()]);
        match pattern.mask.get(range) {
            None => k == v,
            Some(high) if part.kind == Match::Range => v <= k && k <= high,
            Some(mask) => k.iter().zip(v).zip(mask).all(|((k, v), m)| k & m == v & m),
        }
    })
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u8),
    Modify(u8, u8),
    Remove(u8),
    Packet(u8),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), 0_u8..9).prop_map(|(at, timeout)| Step::Insert(at, timeout)),
        1 => (any::<u8>(), 0_u8..9).prop_map(|(at, timeout)| Step::Modify(at, timeout)),
        2 => any::<u8>().prop_map(Step::Remove),
        4 => any::<u8>().prop_map(Step::Packet),
        1 => Just(Step::Sweep),
    ]
}

/// The slot of an entry, and its hits.
fn told(entry: &Entry) -> (u16, u64) {
    match entry.target() {
        Target::Call { slot, args } => {
            assert_eq!(args, [slot as u8; 3]);
            (slot, entry.counter().get().0)
        }
        other => panic!("{other:?}"),
    }
}

fn run(name: &str, steps: Vec<Step>) {
    let max_size = 20;
    let table = compiled(name, max_size);
    let state = TableState::new(&table);
    let mut rows: Vec<Row> = Vec::new();
    for (i, step) in steps.into_iter().enumerate() {
        let (slot, now) = (i as u16, i as u64);
        let find =
            |rows: &[Row], pattern: &Pattern| rows.iter().position(|r| r.pattern == *pattern);
        match step {
            Step::Insert(at, timeout) => {
                let pattern = pattern(&table, at);
                let got = state.insert(entry(&pattern, slot, timeout, now));
                let want = if find(&rows, &pattern).is_some() {
                    Err(TableError::Exists)
                } else if rows.len() == max_size {
                    Err(TableError::Full)
                } else {
                    rows.push(Row {
                        pattern,
                        slot,
                        timeout: timeout.into(),
                        hits: 0,
                        last: now,
                        notified: 0,
                    });
                    Ok(())
                };
                assert_eq!(got, want);
            }
            Step::Modify(at, timeout) => {
                let pattern = pattern(&table, at);
                let got = state.modify(&entry(&pattern, slot, timeout, now));
                match find(&rows, &pattern) {
                    None => assert_eq!(got.unwrap_err(), TableError::NotFound),
                    Some(at) => {
                        assert_eq!(told(&got.unwrap()), (rows[at].slot, rows[at].hits));
                        rows[at].slot = slot;
                        rows[at].timeout = timeout.into();
                        rows[at].notified = 0;
                    }
                }
            }
            Step::Remove(at) => {
                let pattern = pattern(&table, at);
                let got = state.remove(Key::from(&pattern));
                match find(&rows, &pattern) {
                    None => assert_eq!(got.unwrap_err(), TableError::NotFound),
                    Some(at) => {
                        let row = rows.remove(at);
                        assert_eq!(told(&got.unwrap()), (row.slot, row.hits));
                    }
                }
            }
            Step::Packet(at) => {
                let key = packet(&table, at);
                let got = state.look_up(&key, |entry| {
                    entry.map(|entry| {
                        entry.hit(true, 1, 10, now);
                        told(entry)
                    })
                });
                // The longest prefix, the highest priority, of equals the oldest.
                let meant = rows
                    .iter_mut()
                    .rev()
                    .filter(|r| meant(&table, &r.pattern, &key));
                let best = meant.max_by_key(|r| (r.pattern.prefix, r.pattern.priority));
                let want = best.map(|row| {
                    row.hits += 1;
                    row.last = now;
                    (row.slot, row.hits)
                });
                assert_eq!(got, want);
            }
            Step::Sweep => {
                let mut idle = Vec::new();
                state.sweep(now, 3, |group| {
                    assert!((1..=3).contains(&group.len()));
                    idle.extend(group.iter().map(|entry| told(entry).0));
                });
                let mut want = Vec::new();
                for row in rows.iter_mut().filter(|r| r.timeout > 0) {
                    if now - row.last.max(row.notified) >= row.timeout {
                        row.notified = now;
                        want.push(row.slot);
                    }
                }
                idle.sort_unstable();
                want.sort_unstable();
                assert_eq!(idle, want, "at {now}");
            }
        }
    }
    let mut found = Vec::new();
    let visit = |entry: &Entry| found.push((entry.pattern(), told(entry)));
    state.scan(visit, || Ok::<_, ()>(())).unwrap();
    assert_eq!(found.len(), rows.len());
    for row in &rows {
        assert!(found.contains(&(row.pattern.clone(), (row.slot, row.hits))));
        let got = state.get(Key::from(&row.pattern)).unwrap();
        assert_eq!(told(&got), (row.slot, row.hits));
    }
    let falling = |pair: &[(Pattern, (u16, u64))]| pair[0].0.priority >= pair[1].0.priority;
    assert!(found.windows(2).all(falling));
}

proptest! {
    #[test]
    fn an_exact_table_is_a_list(steps in prop::collection::vec(step(), 1..200)) {
        run("flow", steps);
    }

    #[test]
    fn an_lpm_table_is_a_list(steps in prop::collection::vec(step(), 1..200)) {
        run("route", steps);
    }

    #[test]
    fn a_ternary_table_is_a_list(steps in prop::collection::vec(step(), 1..200)) {
        run("acl", steps);
    }
}

#[test]
fn a_large_table_is_found_whole_while_it_is_written() {
    const ENTRIES: u32 = 20_000;
    let mut table = compiled("flow", 100_000);
    table.entries.clear();
    let state = TableState::new(&table);
    let of = |number: u32| {
        let mut value = vec![0; table.key_bytes];
        value[..4].copy_from_slice(&number.to_be_bytes());
        Pattern {
            value: value.into(),
            mask: Box::default(),
            prefix: 0,
            priority: 0,
        }
    };
    for number in 0..ENTRIES {
        state.insert(entry(&of(number), 1, 0, 0)).unwrap();
    }
    std::thread::scope(|scope| {
        // Others come and go, from two writers; what was there before is seen all the time.
        for writer in 1..=2 {
            let (state, of) = (&state, &of);
            scope.spawn(move || {
                let numbers = (writer * ENTRIES)..((writer + 1) * ENTRIES);
                for number in numbers.clone() {
                    state.insert(entry(&of(number), 2, 0, 0)).unwrap();
                }
                for number in numbers {
                    state.remove(Key::from(&of(number))).unwrap();
                }
            });
        }
        for round in 0..20 {
            let mut old = 0;
            let visit = |entry: &Entry| old += u32::from(told(entry).0 == 1);
            state.scan(visit, || Ok::<_, ()>(())).unwrap();
            assert_eq!(old, ENTRIES, "round {round}");
            let key = of(round).value;
            assert!(state.look_up(&key, |entry| entry.is_some()));
        }
    });
    assert_eq!(state.len.load(Ordering::Relaxed), ENTRIES as usize);
}
