//! A batch of updates with its atomicity (P4Runtime, "Batch Atomicity").
//!
//! - `CONTINUE_ON_ERROR`: every update is tried.
//! - `ROLLBACK_ON_ERROR`: after the first error, what was done is undone, last first.
//! - `DATAPLANE_ATOMIC`: the same between two packets, so that every packet sees all or nothing.

use std::cell::RefCell;

use p4runtime::p4::v1 as pb;
use pb::write_request::Atomicity;

use super::core::Core;
use super::deviation::Deviations;
use super::fault::Fault;
use super::pi;
use super::write::Writer;
use crate::switch::Loaded;

/// Takes one change back.
pub(crate) type Undo = Box<dyn FnOnce(&Writer<'_>)>;

/// What a batch has done, for it to be undone.
#[derive(Default)]
pub(crate) struct UndoLog(Option<RefCell<Vec<Undo>>>);

impl UndoLog {
    fn kept() -> Self {
        Self(Some(RefCell::default()))
    }

    /// Notes how to take a change back, if that may be asked for.
    pub(crate) fn note<F: FnOnce(&Writer<'_>) + 'static>(&self, undo: impl FnOnce() -> F) {
        if let Some(log) = &self.0 {
            log.borrow_mut().push(Box::new(undo()));
        }
    }

    fn roll_back(self, loaded: &Loaded, now_ns: u64) {
        let writer = Writer::new(loaded, now_ns, UndoLog::default());
        let log = self.0.map(RefCell::into_inner).unwrap_or_default();
        for undo in log.into_iter().rev() {
            undo(&writer);
        }
    }
}

/// The atomicity asked for.
pub(crate) fn atomicity(request: &pb::WriteRequest, rules: Deviations) -> Result<Atomicity, Fault> {
    let atomicity = Atomicity::try_from(request.atomicity)
        .map_err(|_| Fault::invalid(format!("atomicity {} is unknown", request.atomicity)))?;
    if rules.pi && atomicity != Atomicity::ContinueOnError {
        return Err(Fault::unimplemented(
            "atomicity other than CONTINUE_ON_ERROR",
        ));
    }
    Ok(atomicity)
}

/// Applies updates, one result for each. With `writing` held.
pub(crate) fn apply(
    core: &Core,
    loaded: &Loaded,
    updates: &[pb::Update],
    atomicity: Atomicity,
) -> Vec<Result<(), Fault>> {
    let now_ns = core.switch.options.clock.now_ns();
    let whole = || {
        let writer = Writer::new(loaded, now_ns, UndoLog::kept());
        let (results, failed) = until_error(&writer, updates);
        match failed {
            None => results,
            Some(at) => {
                writer.log.roll_back(loaded, now_ns);
                rolled_back(results, at)
            }
        }
    };
    match atomicity {
        Atomicity::ContinueOnError => {
            let writer = Writer::new(loaded, now_ns, UndoLog::default());
            let rules = core.deviations();
            if rules.first_error {
                return until_error(&writer, updates).0;
            }
            if rules.pi {
                let one = |u| pi::update(u).and_then(|u| writer.update(&u));
                return updates.iter().map(one).collect();
            }
            updates.iter().map(|u| writer.update(u)).collect()
        }
        Atomicity::RollbackOnError => whole(),
        Atomicity::DataplaneAtomic => core.switch.between_packets(whole),
    }
}

/// Applies updates up to the first error, and says where that was; those after it are `ABORTED`.
fn until_error(
    writer: &Writer<'_>,
    updates: &[pb::Update],
) -> (Vec<Result<(), Fault>>, Option<usize>) {
    let mut results = Vec::with_capacity(updates.len());
    let mut failed = None;
    for (at, update) in updates.iter().enumerate() {
        results.push(match failed {
            None => writer.update(update),
            Some(first) => Err(Fault::aborted(format!(
                "not tried, since update {first} of the batch failed"
            ))),
        });
        if failed.is_none() && results.last().is_some_and(Result::is_err) {
            failed = Some(at);
        }
    }
    (results, failed)
}

fn rolled_back(results: Vec<Result<(), Fault>>, failed: usize) -> Vec<Result<(), Fault>> {
    let fault = || Fault::aborted(format!("undone, since update {failed} of the batch failed"));
    results
        .into_iter()
        .map(|result| result.and_then(|()| Err(fault())))
        .collect()
}
