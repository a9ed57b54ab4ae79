//! The configuration in force, and every one before it.
//!
//! ```text
//!   file, edit, old revision ──▶ Document ──validate──▶ Config ──append──▶ store
//!                                                          └──publish──▶ in force
//! ```
//! A change is made to the newest revision, checked as a whole, stored, then published; when a
//! step fails nothing has changed. What the daemon reads only when it starts (its sockets, the
//! slow path's size, the switches) waits for that: [`Current::waiting`] names it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::change::{Change, diff};
use super::edit::{self, EditError};
use super::{Config, Document, Fault, SyntaxError, document_of, validate};
use crate::store::{AUTHOR_MAX, COMMENT_MAX, NewRevision, Revision, Store, StoreError};

/// What is in force.
#[derive(Clone, Debug)]
pub struct Current {
    /// The newest revision.
    pub revision: u64,
    /// Its document.
    pub document: Arc<Document>,
    /// What the daemon does: the document's, but for what waits.
    pub config: Arc<Config>,
    /// Paths that differ from what the daemon was started with and take effect at its next start.
    pub waiting: Vec<String>,
}

/// Why there is no such configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not TOML, or not of the document's shape.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// Its values do not hold together.
    #[error("{}", faulty(.0))]
    Faulty(Vec<Fault>),
    /// An edit that cannot be made.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// There is no such revision.
    #[error("there is no revision {0} (the newest is {1})")]
    NoRevision(u64, u64),
    /// Too long.
    #[error("a comment has at most {COMMENT_MAX} bytes")]
    Comment,
}

fn faulty(faults: &[Fault]) -> String {
    let plural = if faults.len() == 1 { "" } else { "s" };
    let mut text = format!("{} fault{plural}:", faults.len());
    for fault in faults {
        text.push_str(&format!("\n  {fault}"));
    }
    text
}

/// Who makes a change, and why.
#[derive(Clone, Debug, Default)]
pub struct By {
    /// Who.
    pub author: String,
    /// Milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// Why.
    pub comment: String,
}

impl By {
    /// Now, by the system's clock.
    pub fn now(author: &str, comment: String) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let time_ms = since.map_or(0, |since| since.as_millis());
        Self {
            author: author.to_owned(),
            time_ms: u64::try_from(time_ms).unwrap_or(u64::MAX),
            comment,
        }
    }
}

/// What a change is made of.
#[derive(Clone, Debug)]
pub enum Edit {
    /// The whole document anew, as TOML.
    Document(String),
    /// A value at a path.
    Set(String, String),
    /// Nothing at a path; and whether what refers to it goes too.
    Remove(String, bool),
    /// As in that revision.
    Rewind(u64),
}

/// A change that was made, or would be.
#[derive(Clone, Debug)]
pub struct Made {
    /// What is in force then.
    pub current: Current,
    /// In what it differs from before; nothing: no revision was made.
    pub changes: Vec<Change>,
}

/// The configuration and its revisions; one writer.
pub struct Configuration {
    store: Mutex<Box<dyn Store>>,
    current: watch::Sender<Current>,
    /// What the daemon was started with.
    started: Config,
}

impl std::fmt::Debug for Configuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let current = self.current.borrow();
        f.debug_struct("Configuration")
            .field("revision", &current.revision)
            .finish_non_exhaustive()
    }
}

impl Configuration {
    /// The newest revision of a store; an empty one begins with `first`.
    ///
    /// # Errors
    /// [`ConfigurationError`]; a store whose newest revision this version cannot run is left as it
    /// is.
    pub fn open(
        mut store: Box<dyn Store>,
        first: Option<Document>,
        by: By,
    ) -> Result<Self, ConfigurationError> {
        if store.head()? == 0 {
            let document = first.unwrap_or_default();
            validate(&document).map_err(ConfigurationError::Faulty)?;
            let changes = diff(&Document::default(), &document);
            store.append(0, entry(by, changes, &document)?)?;
        }
        let head = store.head()?;
        let document = stored(&revision(store.as_ref(), head)?)?;
        let started = validate(&document).map_err(ConfigurationError::Faulty)?;
        let (current, _) = watch::channel(Current {
            revision: head,
            document: Arc::new(document),
            config: Arc::new(started.clone()),
            waiting: Vec::new(),
        });
        Ok(Self {
            store: Mutex::new(store),
            current,
            started,
        })
    }

    /// What is in force, now and after every change.
    pub fn watch(&self) -> watch::Receiver<Current> {
        self.current.subscribe()
    }

    /// What is in force now.
    pub fn current(&self) -> Current {
        self.current.borrow().clone()
    }

    /// Where revisions are kept; `None`: only as long as the daemon runs.
    pub fn path(&self) -> Option<std::path::PathBuf> {
        self.store().path()
    }

    /// Makes a change to revision `base`, which has to be the newest. May wait for a disk.
    ///
    /// # Errors
    /// [`ConfigurationError`]; nothing has changed then.
    pub fn change(&self, base: u64, edit: &Edit, by: By) -> Result<Made, ConfigurationError> {
        self.make(base, edit, Some(by))
    }

    /// What [`Configuration::change`] would make.
    ///
    /// # Errors
    /// As [`Configuration::change`].
    pub fn try_change(&self, base: u64, edit: &Edit) -> Result<Made, ConfigurationError> {
        self.make(base, edit, None)
    }

    fn make(&self, base: u64, edit: &Edit, by: Option<By>) -> Result<Made, ConfigurationError> {
        let mut store = self.store();
        let before = self.current();
        if base != before.revision {
            return Err(ConfigurationError::Store(StoreError::Conflict {
                expected: base,
                head: before.revision,
            }));
        }
        let document = match edit {
            Edit::Document(text) => document_of(text)?,
            Edit::Set(path, text) => edit::set(&before.document, path, edit::value(text))?,
            Edit::Remove(path, cascade) => edit::remove(&before.document, path, *cascade)?,
            Edit::Rewind(number) => stored(&revision(store.as_ref(), *number)?)?,
        };
        let config = validate(&document).map_err(ConfigurationError::Faulty)?;
        let changes = diff(&before.document, &document);
        let mut made = Made {
            current: self.in_force(before.revision, document, config),
            changes,
        };
        let Some(by) = by.filter(|_| !made.changes.is_empty()) else {
            return Ok(made);
        };
        let entry = entry(by, made.changes.clone(), &made.current.document)?;
        made.current.revision = store.append(base, entry)?;
        self.current.send_replace(made.current.clone());
        Ok(made)
    }

    /// What of a configuration the running daemon does.
    fn in_force(&self, revision: u64, document: Document, config: Config) -> Current {
        let (config, waiting) = self.started.changed_to(config);
        Current {
            revision,
            document: Arc::new(document),
            config: Arc::new(config),
            waiting,
        }
    }

    /// A revision; 0: the newest.
    ///
    /// # Errors
    /// [`ConfigurationError`].
    pub fn revision(&self, number: u64) -> Result<(Revision, Document), ConfigurationError> {
        let store = self.store();
        let number = if number == 0 { store.head()? } else { number };
        let found = revision(store.as_ref(), number)?;
        let document = stored(&found)?;
        Ok((found, document))
    }

    /// At most `limit` revisions before `before`, the newest first.
    ///
    /// # Errors
    /// [`ConfigurationError`].
    pub fn log(&self, before: u64, limit: usize) -> Result<Vec<Revision>, ConfigurationError> {
        Ok(self.store().log(before, limit)?)
    }

    fn store(&self) -> MutexGuard<'_, Box<dyn Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn revision(store: &dyn Store, number: u64) -> Result<Revision, ConfigurationError> {
    match store.get(number)? {
        Some(found) => Ok(found),
        None => Err(ConfigurationError::NoRevision(number, store.head()?)),
    }
}

fn stored(revision: &Revision) -> Result<Document, ConfigurationError> {
    serde_json::from_str(&revision.entry.document).map_err(|error| {
        let message = format!(
            "revision {} is of another version: {error}",
            revision.number
        );
        ConfigurationError::Syntax(SyntaxError {
            line: error.line(),
            column: error.column(),
            message,
        })
    })
}

fn entry(
    by: By,
    changes: Vec<Change>,
    document: &Document,
) -> Result<NewRevision, ConfigurationError> {
    if by.comment.len() > COMMENT_MAX {
        return Err(ConfigurationError::Comment);
    }
    let mut author = by.author;
    author.truncate(author.floor_char_boundary(AUTHOR_MAX));
    let document = serde_json::to_string(document).map_err(|error| StoreError::Other {
        path: Default::default(),
        reason: error.to_string(),
    })?;
    Ok(NewRevision {
        author,
        time_ms: by.time_ms,
        comment: by.comment,
        changes,
        document,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;
    use crate::store::MemoryStore;

    fn opened() -> Configuration {
        Configuration::open(Box::<MemoryStore>::default(), Some(good()), By::default()).unwrap()
    }

    fn by(author: &str) -> By {
        By {
            author: author.into(),
            time_ms: 7,
            comment: "why".into(),
        }
    }

    fn set(path: &str, value: &str) -> Edit {
        Edit::Set(path.into(), value.into())
    }

    #[test]
    fn a_change_is_stored_published_and_taken_back() {
        let configuration = opened();
        let watch = configuration.watch();
        let edit = set("vpc.red.weight", "9");
        let made = configuration.change(1, &edit, by("alice")).unwrap();
        assert_eq!((made.current.revision, made.changes.len()), (2, 1));
        assert!(watch.has_changed().unwrap());
        assert_eq!(watch.borrow().config.vpcs[0].weight, 9);
        let (revision, document) = configuration.revision(0).unwrap();
        assert_eq!(
            (revision.number, revision.entry.author.as_str()),
            (2, "alice")
        );
        assert_eq!(document.vpc[0].weight, 9);

        let made = configuration
            .change(2, &Edit::Rewind(1), by("bob"))
            .unwrap();
        assert_eq!(made.current.revision, 3);
        assert_eq!(*made.current.document, good());
        let numbers: Vec<u64> = configuration
            .log(u64::MAX, 2)
            .unwrap()
            .iter()
            .map(|revision| revision.number)
            .collect();
        assert_eq!(numbers, [3, 2]);
    }

    #[test]
    fn of_two_changes_to_one_revision_the_second_is_refused() {
        let configuration = opened();
        configuration
            .change(1, &set("vpc.red.weight", "9"), by("alice"))
            .unwrap();
        let error = configuration
            .change(1, &set("vpc.red.weight", "8"), by("bob"))
            .unwrap_err();
        assert!(matches!(
            error,
            ConfigurationError::Store(StoreError::Conflict {
                expected: 1,
                head: 2
            })
        ));
        assert_eq!(configuration.current().config.vpcs[0].weight, 9);
    }

    #[test]
    fn what_is_faulty_or_only_tried_changes_nothing() {
        let configuration = opened();
        let error = configuration
            .change(1, &set("vpc.red.weight", "0"), by("a"))
            .unwrap_err();
        assert!(
            error.to_string().starts_with("1 fault:\n  vpc[0].weight:"),
            "{error}"
        );
        let tried = configuration
            .try_change(1, &set("vpc.red.weight", "9"))
            .unwrap();
        assert_eq!(tried.changes.len(), 1);
        let error = configuration
            .change(1, &Edit::Rewind(5), by("a"))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no revision 5 (the newest is 1)"
        );
        assert_eq!(configuration.current().revision, 1);
        assert_eq!(*configuration.current().document, good());
    }

    #[test]
    fn the_same_again_is_no_revision() {
        let configuration = opened();
        let text = toml::to_string(&good()).unwrap();
        let made = configuration
            .change(1, &Edit::Document(text), by("a"))
            .unwrap();
        assert_eq!((made.current.revision, made.changes.len()), (1, 0));
        assert_eq!(configuration.log(u64::MAX, 9).unwrap().len(), 1);
    }

    #[test]
    fn what_needs_a_start_waits_for_it() {
        let configuration = opened();
        let made = configuration
            .change(1, &set("slow_path.workers", "2"), by("a"))
            .unwrap();
        assert_eq!(made.current.waiting, ["slow_path"]);
        assert_eq!(made.current.config.slow_path.workers, 1);
        let made = configuration
            .change(2, &set("vpc.red.weight", "9"), by("a"))
            .unwrap();
        assert_eq!(made.current.waiting, ["slow_path"]);
        let made = configuration
            .change(3, &set("slow_path.workers", "1"), by("a"))
            .unwrap();
        assert!(made.current.waiting.is_empty());
    }

    #[test]
    fn an_empty_store_without_a_document_says_what_is_missing() {
        let error = Configuration::open(Box::<MemoryStore>::default(), None, By::default());
        let text = error.unwrap_err().to_string();
        assert!(text.contains("no switch is configured"), "{text}");
    }
}
