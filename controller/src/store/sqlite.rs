//! Revisions in an SQLite file.
//!
//! One writer: the file is locked as long as the daemon runs. A revision is one transaction, in
//! full synchronous mode with a rollback journal, so that a power cut leaves it there as a whole
//! or not at all.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, Transaction, params};

use super::{NewRevision, Revision, Store, StoreError};

/// Marks a file as ours (`PRAGMA application_id`): "shnt".
pub(super) const APPLICATION_ID: i64 = 0x7368_6e74;

/// One step of the format each (`PRAGMA user_version` counts those that were taken).
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE revision (
        number   INTEGER PRIMARY KEY,
        author   TEXT NOT NULL,
        time_ms  INTEGER NOT NULL,
        comment  TEXT NOT NULL,
        changes  TEXT NOT NULL,
        document TEXT NOT NULL
    ) STRICT
"];

/// Keeps revisions in a file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    connection: Connection,
}

impl SqliteStore {
    /// Opens the store, and makes it and its directory when there is none.
    ///
    /// # Errors
    /// [`StoreError`]; the file is as it was then.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_as(path, MIGRATIONS)
    }

    /// The same with other steps.
    pub(super) fn open_as(path: &Path, migrations: &[&str]) -> Result<Self, StoreError> {
        let read_only = |error: std::io::Error| StoreError::ReadOnly {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(read_only)?;
        }
        keep_private(path).map_err(read_only)?;
        let failed = |error| told(path, &error);
        let mut connection = Connection::open(path).map_err(failed)?;
        for (pragma, value) in [
            ("locking_mode", "EXCLUSIVE"),
            ("journal_mode", "DELETE"),
            ("synchronous", "EXTRA"),
            ("foreign_keys", "ON"),
            ("trusted_schema", "OFF"),
            ("cell_size_check", "ON"),
        ] {
            connection
                .pragma_update(None, pragma, value)
                .map_err(failed)?;
        }
        check(path, &connection, migrations.len())?;
        migrate(&mut connection, migrations).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            connection,
        })
    }

    /// The file may have so many pages, as on a full disk.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: i64) {
        let limit = |_: &Row<'_>| Ok(());
        let set = format!("PRAGMA max_page_count = {pages}");
        self.connection.query_row(&set, [], limit).unwrap();
    }

    /// As of a file that may only be read.
    #[cfg(test)]
    pub(super) fn forbid_writing(&self) {
        self.connection
            .pragma_update(None, "query_only", "ON")
            .unwrap();
    }

    fn told(&self, error: &rusqlite::Error) -> StoreError {
        told(&self.path, error)
    }

    fn revision(&self, row: &Row<'_>) -> Result<Revision, StoreError> {
        let failed = |error: rusqlite::Error| self.told(&error);
        let number: i64 = row.get(0).map_err(failed)?;
        let corrupt = |what: &str| StoreError::Corrupt {
            path: self.path.clone(),
            reason: format!("revision {number}: {what}"),
        };
        let time_ms: i64 = row.get(2).map_err(failed)?;
        let changes: String = row.get(4).map_err(failed)?;
        Ok(Revision {
            number: u64::try_from(number).map_err(|_| corrupt("a negative number"))?,
            entry: NewRevision {
                author: row.get(1).map_err(failed)?,
                time_ms: u64::try_from(time_ms).map_err(|_| corrupt("a time before 1970"))?,
                comment: row.get(3).map_err(failed)?,
                changes: serde_json::from_str(&changes)
                    .map_err(|error| corrupt(&format!("its changes: {error}")))?,
                document: row.get(5).map_err(failed)?,
            },
        })
    }
}

const COLUMNS: &str = "number, author, time_ms, comment, changes, document";

impl Store for SqliteStore {
    fn head(&self) -> Result<u64, StoreError> {
        head(&self.connection).map_err(|error| self.told(&error))
    }

    fn get(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM revision WHERE number = ?1");
        let failed = |error| self.told(&error);
        let mut statement = self.connection.prepare(&sql).map_err(failed)?;
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let found = statement.query_row([number], |row| Ok(self.revision(row)));
        found.optional().map_err(failed)?.transpose()
    }

    fn log(&self, before: u64, limit: usize) -> Result<Vec<Revision>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM revision WHERE number < ?1 ORDER BY number DESC LIMIT ?2"
        );
        let failed = |error| self.told(&error);
        let mut statement = self.connection.prepare(&sql).map_err(failed)?;
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map([before, limit], |row| Ok(self.revision(row)));
        let mut log = Vec::new();
        for row in rows.map_err(failed)? {
            log.push(row.map_err(failed)??);
        }
        Ok(log)
    }

    fn append(&mut self, expected: u64, entry: NewRevision) -> Result<u64, StoreError> {
        let path = self.path.clone();
        let failed = |error| told(&path, &error);
        let changes = serde_json::to_string(&entry.changes).map_err(|error| StoreError::Other {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let write = self.connection.transaction().map_err(failed)?;
        let head = head(&write).map_err(failed)?;
        if head != expected {
            return Err(StoreError::Conflict { expected, head });
        }
        insert(&write, head + 1, &entry, &changes).map_err(failed)?;
        write.commit().map_err(failed)?;
        Ok(head + 1)
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }
}

fn insert(
    write: &Transaction<'_>,
    number: u64,
    entry: &NewRevision,
    changes: &str,
) -> rusqlite::Result<()> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    write.execute(
        "INSERT INTO revision (number, author, time_ms, comment, changes, document)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            signed(number),
            entry.author,
            signed(entry.time_ms),
            entry.comment,
            changes,
            entry.document
        ],
    )?;
    Ok(())
}

fn head(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(max(number), 0) FROM revision";
    let number: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// Whose file it is, of what format, and whether it is whole.
fn check(path: &Path, connection: &Connection, known: usize) -> Result<(), StoreError> {
    let failed = |error| told(path, &error);
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    let (application, found) = (pragma("application_id")?, pragma("user_version")?);
    let objects: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if application != APPLICATION_ID && (application != 0 || objects > 0) {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    let known = i64::try_from(known).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    let whole: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(failed)?;
    if whole != "ok" {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            reason: whole,
        });
    }
    Ok(())
}

/// Takes the steps that are missing, all of them or none. The lock is held from here on.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let write = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
    let taken: i64 = write.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = migrations
        .iter()
        .skip(usize::try_from(taken).unwrap_or(usize::MAX));
    for step in missing {
        write.execute_batch(step)?;
    }
    write.pragma_update(None, "application_id", APPLICATION_ID)?;
    let count = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    write.pragma_update(None, "user_version", count)?;
    write.commit()
}

/// The configuration is nobody else's to read: made with that mode, before there is anything in it.
fn keep_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn told(path: &Path, error: &rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse(path),
        Some(ErrorCode::DiskFull) => StoreError::Full(path),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            StoreError::ReadOnly { path, reason }
        }
        Some(ErrorCode::NotADatabase) => StoreError::Foreign(path),
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Corrupt { path, reason },
        _ => StoreError::Other { path, reason },
    }
}
