//! The configuration's part of the API.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use shunt_api::v1;
use shunt_api::v1::change_config_request::Edit as Asked;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use super::access::Caller;
use super::convert::said;
use crate::config::{
    By, Change, Configuration, ConfigurationError, Document, Edit, diff as difference, document_of,
    validate,
};
use crate::pump::Convergence;
use crate::store::{Revision, StoreError};

/// Bytes of a path in a document at most.
const PATH_MAX: usize = 1_024;
/// Revisions of one listing, unless another number is asked for, and at most.
const LOG_LIMIT: (u32, u32) = (100, 10_000);
/// Revisions that are read from the store at a time.
const LOG_PAGE: usize = 50;
/// How long [`wait`] waits, unless told, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));
/// How often [`wait`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Who sent a request: the name in the certificate, or the user at the other end of the socket.
pub(super) fn author<T>(request: &Request<T>) -> String {
    let caller = request.extensions().get::<Caller>();
    if let Some(name) = caller.and_then(|caller| caller.name.as_ref()) {
        return name.clone();
    }
    let credentials = request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred);
    let Some(credentials) = credentials else {
        return "unknown".to_owned();
    };
    let uid = nix::unistd::Uid::from_raw(credentials.uid());
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

fn refused(error: &ConfigurationError, configuration: &Configuration) -> Status {
    let text = said(error.to_string());
    match error {
        ConfigurationError::Store(store) => match store {
            StoreError::Conflict { expected, head } => {
                let won = configuration.revision(*head).map(|(won, _)| won.entry);
                let by = won
                    .map(|won| format!(" by {}", won.author))
                    .unwrap_or_default();
                Status::aborted(format!(
                    "revision {head}{by} was there first: yours was made to {expected}. Nothing was \
                     changed; look at `shunt config diff {expected} {head}`, then make yours again"
                ))
            }
            StoreError::Full(_) => Status::resource_exhausted(text),
            StoreError::Corrupt { .. } => Status::data_loss(text),
            _ => Status::failed_precondition(text),
        },
        ConfigurationError::Edit(crate::config::EditError::Referred { .. }) => {
            Status::failed_precondition(text)
        }
        ConfigurationError::NoRevision(..) => Status::not_found(text),
        _ => Status::invalid_argument(text),
    }
}

/// Runs what may wait for a disk.
async fn on_disk<T: Send + 'static>(
    configuration: &Arc<Configuration>,
    work: impl FnOnce(&Configuration) -> Result<T, ConfigurationError> + Send + 'static,
) -> Result<T, Status> {
    let shared = Arc::clone(configuration);
    let done = tokio::task::spawn_blocking(move || {
        work(&shared).map_err(|error| refused(&error, &shared))
    });
    done.await
        .map_err(|error| Status::internal(error.to_string()))?
}

fn told(change: &Change) -> v1::ConfigChange {
    let text = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string);
    v1::ConfigChange {
        path: change.path.clone(),
        before: text(&change.before),
        after: text(&change.after),
    }
}

/// Those that anybody has to be told.
fn all(changes: &[Change]) -> Vec<v1::ConfigChange> {
    changes
        .iter()
        .filter(|change| !change.follows())
        .map(told)
        .collect()
}

fn revision(revision: &Revision) -> v1::ConfigRevision {
    v1::ConfigRevision {
        number: revision.number,
        author: revision.entry.author.clone(),
        time_ms: revision.entry.time_ms,
        comment: revision.entry.comment.clone(),
        changes: all(&revision.entry.changes),
    }
}

fn store(configuration: &Configuration) -> String {
    let path = configuration.path();
    path.map(|path| path.display().to_string())
        .unwrap_or_default()
}

pub(super) async fn get(
    configuration: &Arc<Configuration>,
    number: u64,
) -> Result<v1::GetConfigResponse, Status> {
    let (found, document) = on_disk(configuration, move |all| all.revision(number)).await?;
    let current = configuration.current();
    let internal = |error: String| Status::internal(error);
    Ok(v1::GetConfigResponse {
        revision: Some(revision(&found)),
        toml: toml::to_string(&document).map_err(|error| internal(error.to_string()))?,
        json: serde_json::to_string(&document).map_err(|error| internal(error.to_string()))?,
        newest: current.revision,
        waiting: current.waiting,
        store: store(configuration),
    })
}

/// Everything that is wrong with a text.
pub(super) fn faults(text: &str) -> Vec<v1::ConfigFault> {
    let document = match document_of(text) {
        Ok(document) => document,
        Err(error) => {
            return vec![v1::ConfigFault {
                path: format!("line {}, column {}", error.line, error.column),
                message: error.message,
            }];
        }
    };
    let faults = validate(&document).err().unwrap_or_default();
    let fault = |fault: crate::config::Fault| v1::ConfigFault {
        path: fault.path,
        message: fault.message,
    };
    faults.into_iter().map(fault).collect()
}

pub(super) async fn diff(
    configuration: &Arc<Configuration>,
    request: v1::DiffConfigRequest,
) -> Result<v1::DiffConfigResponse, Status> {
    if request.to > 0 && request.document.is_some() {
        return Err(Status::invalid_argument(
            "a revision is compared either with another (to) or with a document, not with both",
        ));
    }
    let changes = on_disk(configuration, move |all| {
        let (_, from) = all.revision(request.from)?;
        let to: Document = match &request.document {
            Some(text) => document_of(text)?,
            None => all.revision(request.to)?.1,
        };
        Ok(difference(&from, &to))
    });
    let changes = all(&changes.await?);
    Ok(v1::DiffConfigResponse { changes })
}

pub(super) async fn change(
    configuration: &Arc<Configuration>,
    author: String,
    request: v1::ChangeConfigRequest,
) -> Result<v1::ChangeConfigResponse, Status> {
    let edit = match request.edit {
        Some(Asked::Document(text)) => Edit::Document(text),
        Some(Asked::Set(set)) => Edit::Set(set.path, set.value),
        Some(Asked::Remove(remove)) => Edit::Remove(remove.path, remove.cascade),
        Some(Asked::Rewind(0)) => {
            return Err(Status::invalid_argument(
                "the request does not say which revision to return to: they begin with 1",
            ));
        }
        Some(Asked::Rewind(number)) => Edit::Rewind(number),
        None => return Err(Status::invalid_argument("the request has no change in it")),
    };
    let path = match &edit {
        Edit::Set(path, _) | Edit::Remove(path, _) => path.len(),
        _ => 0,
    };
    if path > PATH_MAX {
        return Err(Status::invalid_argument(format!(
            "a path of {path} bytes leads nowhere: at most {PATH_MAX}"
        )));
    }
    if request.base == 0 {
        return Err(Status::invalid_argument(
            "the request does not say which revision it changes (base)",
        ));
    }
    let by = By::now(&author, request.comment);
    let made = on_disk(configuration, move |all| match request.dry_run {
        true => all.try_change(request.base, &edit),
        false => all.change(request.base, &edit, by),
    });
    let made = made.await?;
    Ok(v1::ChangeConfigResponse {
        revision: made.current.revision,
        changes: all(&made.changes),
        waiting: made.current.waiting,
        store: store(configuration),
    })
}

pub(super) fn log(
    configuration: Arc<Configuration>,
    request: v1::ListConfigLogRequest,
) -> impl Stream<Item = Result<v1::ConfigRevision, Status>> {
    let (usual, most) = LOG_LIMIT;
    let limit = match request.limit {
        0 => usual,
        limit => limit.min(most),
    };
    let before = match request.before {
        0 => u64::MAX,
        before => before,
    };
    let page = move |(before, left): (u64, usize)| {
        let configuration = Arc::clone(&configuration);
        async move {
            if left == 0 {
                return Ok(None);
            }
            let page = on_disk(&configuration, move |all| {
                all.log(before, left.min(LOG_PAGE))
            });
            let page = page.await?;
            let next = page.last().map(|last| (last.number, left - page.len()));
            Ok::<_, Status>(next.map(|next| (page, next)))
        }
    };
    let pages = futures::stream::try_unfold((before, limit as usize), page);
    futures::TryStreamExt::try_flatten(futures::TryStreamExt::map_ok(pages, |page| {
        futures::stream::iter(page.into_iter().map(|one| Ok(revision(&one))))
    }))
}

pub(super) fn wait(
    convergence: Convergence,
    newest: u64,
    request: v1::WaitConfigRequest,
) -> Result<impl Stream<Item = Result<v1::WaitConfigResponse, Status>>, Status> {
    let number = match request.revision {
        0 => newest,
        number => number,
    };
    if number > newest {
        return Err(Status::not_found(format!(
            "there is no revision {number} (the newest is {newest})"
        )));
    }
    let (usual, most) = PATIENCE;
    let patience = match request.patience_ms {
        0 => usual,
        ms => Duration::from_millis(ms).min(most),
    };
    let deadline = tokio::time::Instant::now() + patience;
    /// What was told last; `None` after the end.
    struct Told(Option<String>, bool);
    let begin = Told(None, false);
    Ok(futures::stream::unfold(begin, move |Told(last, ended)| {
        let convergence = convergence.clone();
        async move {
            if ended {
                return None;
            }
            loop {
                let missing = convergence.missing(number).await;
                let late = tokio::time::Instant::now() >= deadline;
                let ends = missing.is_none() || late;
                if ends || missing != last {
                    let answer = v1::WaitConfigResponse {
                        converged: missing.is_none(),
                        missing: missing.clone().unwrap_or_default(),
                    };
                    return Some((Ok(answer), Told(missing, ends)));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }))
}
