//! Revisions that end with the daemon: of one that runs from a file.

use std::path::PathBuf;

use super::{NewRevision, Revision, Store, StoreError};

/// Keeps revisions in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Vec<NewRevision>,
}

/// Revisions are numbered from 1.
fn at(number: u64) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1)
}

impl Store for MemoryStore {
    fn head(&self) -> Result<u64, StoreError> {
        Ok(self.entries.len() as u64)
    }

    fn get(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        let entry = at(number).and_then(|at| self.entries.get(at));
        Ok(entry.cloned().map(|entry| Revision { number, entry }))
    }

    fn log(&self, before: u64, limit: usize) -> Result<Vec<Revision>, StoreError> {
        let entries = (1u64..).zip(&self.entries);
        let mut log: Vec<Revision> = entries
            .filter(|(number, _)| *number < before)
            .map(|(number, entry)| Revision {
                number,
                entry: entry.clone(),
            })
            .collect();
        log.reverse();
        log.truncate(limit);
        Ok(log)
    }

    fn append(&mut self, expected: u64, entry: NewRevision) -> Result<u64, StoreError> {
        let head = self.head()?;
        if head != expected {
            return Err(StoreError::Conflict { expected, head });
        }
        self.entries.push(entry);
        Ok(head + 1)
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }
}
