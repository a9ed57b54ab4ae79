//! Files that are not as they should be.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use shunt_testbed::{netns, sandbox};

use super::conformance::entry;
use super::sqlite::MIGRATIONS;
use super::*;

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shunt.db");
    Place {
        _directory: directory,
        path,
    }
}

/// A store with three revisions.
fn filled(path: &Path) {
    let mut store = SqliteStore::open(path).unwrap();
    for n in 0..3 {
        store.append(n, entry("a")).unwrap();
    }
}

fn error(path: &Path) -> StoreError {
    SqliteStore::open(path).unwrap_err()
}

#[test]
fn the_file_is_nobody_else_s_to_read() {
    let place = place();
    filled(&place.path);
    let mode = std::fs::metadata(&place.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_second_daemon_is_told_that_it_is_in_use() {
    let place = place();
    let first = SqliteStore::open(&place.path).unwrap();
    let error = error(&place.path);
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("another shuntd runs with it"));
    drop(first);
    SqliteStore::open(&place.path).unwrap();
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let place = place();
    std::fs::write(&place.path, "[[vpc]]\nname = \"red\"\n".repeat(100)).unwrap();
    let before = std::fs::read(&place.path).unwrap();
    let text = error(&place.path).to_string();
    assert!(text.contains("is not a configuration store"), "{text}");
    assert_eq!(std::fs::read(&place.path).unwrap(), before);

    // Another program's database.
    std::fs::remove_file(&place.path).unwrap();
    let other = rusqlite::Connection::open(&place.path).unwrap();
    other.execute_batch("CREATE TABLE notes (text)").unwrap();
    drop(other);
    let before = std::fs::read(&place.path).unwrap();
    let text = error(&place.path).to_string();
    assert!(text.contains("is not a configuration store"), "{text}");
    assert_eq!(std::fs::read(&place.path).unwrap(), before);
}

#[test]
fn a_newer_format_is_left_alone() {
    let place = place();
    let newer = [MIGRATIONS, &["CREATE TABLE later (what TEXT) STRICT"]].concat();
    drop(SqliteStore::open_as(&place.path, &newer).unwrap());
    let before = std::fs::read(&place.path).unwrap();
    let found = error(&place.path);
    let told = matches!(
        &found,
        StoreError::Newer {
            found: 2,
            known: 1,
            ..
        }
    );
    assert!(told, "{found}");
    assert_eq!(std::fs::read(&place.path).unwrap(), before);
}

#[test]
fn an_older_format_is_brought_up_with_all_that_is_in_it() {
    let place = place();
    filled(&place.path);
    let newer = [MIGRATIONS, &["ALTER TABLE revision ADD COLUMN mark TEXT"]].concat();
    let store = SqliteStore::open_as(&place.path, &newer).unwrap();
    assert_eq!(store.head().unwrap(), 3);
    assert_eq!(store.get(2).unwrap().unwrap().entry, entry("a"));
}

/// The steps are one transaction: one that fails leaves the file as it was.
#[test]
fn a_format_step_that_fails_changes_nothing() {
    let place = place();
    filled(&place.path);
    let steps = ["ALTER TABLE revision ADD COLUMN mark TEXT", "no SQL at all"];
    let newer = [MIGRATIONS, &steps].concat();
    SqliteStore::open_as(&place.path, &newer).unwrap_err();
    let store = SqliteStore::open(&place.path).unwrap();
    assert_eq!(store.head().unwrap(), 3);
}

#[test]
fn a_damaged_file_is_told_and_left_alone() {
    let place = place();
    filled(&place.path);
    let whole = std::fs::read(&place.path).unwrap();
    // The second page has the revisions.
    let mut torn = whole.clone();
    torn[4096 + 8..4096 + 64].fill(0xa5);
    std::fs::write(&place.path, &torn).unwrap();
    let found = error(&place.path);
    assert!(matches!(found, StoreError::Corrupt { .. }), "{found}");
    assert_eq!(std::fs::read(&place.path).unwrap(), torn);
    // Cut off.
    std::fs::write(&place.path, &whole[..4096 + 100]).unwrap();
    let found = error(&place.path);
    assert!(matches!(found, StoreError::Corrupt { .. }), "{found}");
    // A copy in its place.
    std::fs::write(&place.path, &whole).unwrap();
    assert_eq!(SqliteStore::open(&place.path).unwrap().head().unwrap(), 3);
}

#[test]
fn a_revision_that_cannot_be_read_is_told() {
    let place = place();
    filled(&place.path);
    let raw = rusqlite::Connection::open(&place.path).unwrap();
    raw.execute("UPDATE revision SET changes = '[' WHERE number = 2", [])
        .unwrap();
    drop(raw);
    let store = SqliteStore::open(&place.path).unwrap();
    let found = store.get(2).unwrap_err();
    assert!(
        found.to_string().contains("revision 2: its changes"),
        "{found}"
    );
    assert_eq!(store.get(3).unwrap().unwrap().number, 3);
}

#[test]
fn what_cannot_be_made_is_told_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let found = error(directory.path());
    assert!(matches!(found, StoreError::ReadOnly { .. }), "{found}");
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let text = error(&file.join("shunt.db")).to_string();
    assert!(text.contains("cannot be written"), "{text}");
}

/// As SQLite sees a full disk: the file may not grow.
#[test]
fn without_room_a_revision_is_refused_and_nothing_else_lost() {
    let place = place();
    filled(&place.path);
    let mut store = SqliteStore::open(&place.path).unwrap();
    store.limit_pages(4);
    let large = NewRevision {
        document: "x".repeat(1 << 20),
        ..entry("b")
    };
    let found = store.append(3, large).unwrap_err();
    assert!(matches!(found, StoreError::Full(_)), "{found}");
    assert_eq!(store.head().unwrap(), 3);
    assert_eq!(store.append(3, entry("small")).unwrap(), 4);
    drop(store);
    assert_eq!(SqliteStore::open(&place.path).unwrap().head().unwrap(), 4);
}

/// A file system without a byte left: journals have no room either.
#[test]
fn on_a_full_disk_nothing_is_lost() {
    sandbox::test(
        "store::sqlite_tests::on_a_full_disk_nothing_is_lost",
        || {
            let place = place();
            let disk = place.path.parent().unwrap().display();
            netns::run(&format!("mount -t tmpfs -o size=512k tmpfs {disk}"))?;
            filled(&place.path);
            let mut store = SqliteStore::open(&place.path).unwrap();
            let filler = place.path.with_extension("filler");
            let mut file = std::fs::File::create(&filler).unwrap();
            let mut chunk = 64 * 1024;
            while chunk > 0 {
                if file.write_all(&vec![1; chunk]).is_err() {
                    chunk /= 2;
                }
            }
            // Pages that are there already may still take a revision or two.
            let mut head = 3;
            let found = loop {
                match store.append(head, entry("b")) {
                    Ok(number) => head = number,
                    Err(found) => break found,
                }
                assert!(head < 1000, "the disk is not full");
            };
            assert!(matches!(found, StoreError::Full(_)), "{found}");
            assert_eq!(store.head().unwrap(), head);
            assert_eq!(store.get(head).unwrap().unwrap().number, head);
            // A daemon that starts meanwhile has all of them.
            drop(store);
            let mut store = SqliteStore::open(&place.path).unwrap();
            assert_eq!(store.log(u64::MAX, 1000).unwrap().len() as u64, head);
            let found = store.append(head, entry("c")).unwrap_err();
            assert!(matches!(found, StoreError::Full(_)), "{found}");
            drop(file);
            std::fs::remove_file(&filler).unwrap();
            assert_eq!(store.append(head, entry("d")).unwrap(), head + 1);
            drop(store);
            let again = SqliteStore::open(&place.path).unwrap();
            assert_eq!(again.head().unwrap(), head + 1);
            drop(again);
            netns::run(&format!("umount {disk}"))
        },
    );
}

#[test]
fn a_file_that_may_only_be_read_refuses_changes() {
    let place = place();
    filled(&place.path);
    let mut store = SqliteStore::open(&place.path).unwrap();
    store.forbid_writing();
    let found = store.append(3, entry("b")).unwrap_err();
    assert!(matches!(found, StoreError::ReadOnly { .. }), "{found}");
    assert_eq!(store.head().unwrap(), 3);
}
