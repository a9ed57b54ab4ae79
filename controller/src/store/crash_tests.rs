//! `kill -9` while revisions are written, again and again: what was acknowledged is there, and
//! what was not is there as a whole or not at all.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::conformance::entry;
use super::*;

/// Names the store to the process that is killed.
const STORE: &str = "SHUNT_TEST_CRASH_STORE";
const KILLS: u64 = 300;

/// A document of several pages, so that a revision is many writes.
fn numbered(number: u64) -> NewRevision {
    NewRevision {
        document: format!("{number} ").repeat(4_000),
        ..entry("child")
    }
}

/// Not a test by itself: what [`every_acknowledged_revision_survives_kill_9`] starts and kills.
#[test]
fn appends_until_it_is_killed() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let mut store = SqliteStore::open(Path::new(&path)).unwrap();
    let mut head = store.head().unwrap();
    loop {
        head = store.append(head, numbered(head + 1)).unwrap();
        println!("acknowledged {head}");
    }
}

fn child(path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "store::crash_tests::appends_until_it_is_killed",
            "--nocapture",
        ])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn every_acknowledged_revision_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shunt.db");
    let mut random = StdRng::seed_from_u64(8);
    let (mut acknowledged, mut unacknowledged) = (0, 0);
    for round in 0..KILLS {
        let mut child = child(&path);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = |acknowledged: &mut u64| {
            let line = lines.next()?.ok()?;
            if let Some((_, number)) = line.split_once("acknowledged ") {
                *acknowledged = number.parse().unwrap();
            }
            Some(())
        };
        // It is writing; any moment of the next one will do.
        let before = acknowledged;
        while acknowledged == before {
            told(&mut acknowledged).expect("the child has ended by itself");
        }
        std::thread::sleep(Duration::from_micros(random.random_range(0..3_000)));
        child.kill().unwrap();
        while told(&mut acknowledged).is_some() {}
        child.wait().unwrap();

        let store = SqliteStore::open(&path).unwrap();
        let head = store.head().unwrap();
        // One may have been stored whose acknowledgement was not.
        assert!(
            head == acknowledged || head == acknowledged + 1,
            "round {round}: acknowledged {acknowledged}, stored {head}"
        );
        unacknowledged += head - acknowledged;
        for number in before.max(1)..=head {
            let found = store.get(number).unwrap().map(|revision| revision.entry);
            assert_eq!(found, Some(numbered(number)), "round {round}");
        }
        assert_eq!(store.get(head + 1).unwrap(), None);
        acknowledged = head;
    }
    println!("{KILLS} kills, {acknowledged} revisions, {unacknowledged} stored unacknowledged");
}
