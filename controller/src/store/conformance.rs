//! What every store has to do, whatever it is made of. A backend's tests are these, once more.

use super::*;

/// An entry of that author.
pub(super) fn entry(author: &str) -> NewRevision {
    NewRevision {
        author: author.to_owned(),
        time_ms: 1_790_000_000_123,
        comment: format!("by {author}: \u{e9} \" ' \n;"),
        changes: vec![Change {
            path: "vpc.red.weight".to_owned(),
            before: None,
            after: Some(serde_json::json!({ "a": [1, null, "b"] })),
        }],
        document: format!("{{\"author\":\"{author}\"}}"),
    }
}

fn numbers(log: &[Revision]) -> Vec<u64> {
    log.iter().map(|revision| revision.number).collect()
}

/// `open` gives the same store each time; one that is not kept is opened once.
pub(super) fn holds(mut open: impl FnMut() -> Box<dyn Store>) {
    let mut store = open();
    let kept = store.path().is_some();

    // Empty.
    assert_eq!(store.head().unwrap(), 0);
    assert_eq!(store.get(0).unwrap(), None);
    assert_eq!(store.get(1).unwrap(), None);
    assert_eq!(store.get(u64::MAX).unwrap(), None);
    assert_eq!(store.log(u64::MAX, 10).unwrap(), []);

    // One after another, from 1.
    for (n, author) in (0u64..).zip(["a", "b", "c", "d"]) {
        assert_eq!(store.append(n, entry(author)).unwrap(), n + 1);
        assert_eq!(store.head().unwrap(), n + 1);
    }
    let second = store.get(2).unwrap().unwrap();
    assert_eq!((second.number, second.entry), (2, entry("b")));

    // Behind or ahead of the head: refused, with the head, and nothing changes.
    for expected in [0, 3, 5, u64::MAX] {
        let refused = store.append(expected, entry("late")).unwrap_err();
        let told =
            matches!(refused, StoreError::Conflict { expected: at, head: 4 } if at == expected);
        assert!(told, "{refused:?}");
    }
    assert_eq!(store.head().unwrap(), 4);
    assert_eq!(store.get(5).unwrap(), None);

    // The log, from any place on, the newest first.
    assert_eq!(numbers(&store.log(u64::MAX, 10).unwrap()), [4, 3, 2, 1]);
    assert_eq!(numbers(&store.log(4, 2).unwrap()), [3, 2]);
    assert!(store.log(1, 2).unwrap().is_empty());
    assert!(store.log(u64::MAX, 0).unwrap().is_empty());

    // Large, and empty where that is allowed.
    let large = NewRevision {
        author: String::new(),
        comment: String::new(),
        changes: Vec::new(),
        document: "x".repeat(3 << 20),
        time_ms: 0,
    };
    assert_eq!(store.append(4, large.clone()).unwrap(), 5);
    assert_eq!(store.get(5).unwrap().unwrap().entry, large);

    if kept {
        drop(store);
        let mut again = open();
        assert_eq!(numbers(&again.log(u64::MAX, 10).unwrap()), [5, 4, 3, 2, 1]);
        assert_eq!(again.get(1).unwrap().unwrap().entry, entry("a"));
        assert_eq!(again.get(5).unwrap().unwrap().entry, large);
        assert_eq!(again.append(5, entry("e")).unwrap(), 6);
    }
}

#[test]
fn memory() {
    holds(|| Box::<MemoryStore>::default());
}

#[test]
fn sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/shunt.db");
    holds(|| Box::new(SqliteStore::open(&path).unwrap()));
}

mod model {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Append { off_by: i8 },
        Reopen,
        Get(u64),
        Log(u64, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (-2i8..=2).prop_map(|off_by| Op::Append { off_by }),
            1 => Just(Op::Reopen),
            2 => (0u64..12).prop_map(Op::Get),
            2 => (0u64..12, 0usize..5).prop_map(|(before, limit)| Op::Log(before, limit)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// The file answers as the list in memory does.
        #[test]
        fn sqlite_is_as_memory(ops in prop::collection::vec(op(), 1..24)) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("shunt.db");
            let mut memory = MemoryStore::default();
            let mut sqlite = SqliteStore::open(&path).unwrap();
            for (n, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Append { off_by } => {
                        let expected = memory.head().unwrap().saturating_add_signed(off_by.into());
                        let of = |store: &mut dyn Store| {
                            store.append(expected, entry(&n.to_string())).map_err(|e| e.to_string())
                        };
                        prop_assert_eq!(of(&mut memory), of(&mut sqlite));
                    }
                    Op::Reopen => {
                        drop(sqlite);
                        sqlite = SqliteStore::open(&path).unwrap();
                    }
                    Op::Get(number) => {
                        prop_assert_eq!(memory.get(number).unwrap(), sqlite.get(number).unwrap());
                    }
                    Op::Log(before, limit) => {
                        let of = |store: &dyn Store| store.log(before, limit).unwrap();
                        prop_assert_eq!(of(&memory), of(&sqlite));
                    }
                }
            }
        }
    }
}
