//! Answers a read request: one snapshot, streamed in bounded messages.

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use tokio::sync::mpsc::Sender;
use tonic::{Code, Status};

use super::core::Core;
use super::fault::{Fault, batch_status};
use super::read::Reader;
use super::{pad, pi};
use crate::state::read;
use crate::switch::Loaded;

/// The most entities of one message of a read's answer.
const READ_CHUNK: usize = 1000;

/// One message of the answer.
pub(crate) type Part = Result<pb::ReadResponse, Status>;

/// Answers to the end, or until the client is gone. Blocks while the client is slow.
pub(crate) fn answer(
    core: &Core,
    loaded: &Loaded,
    request: &pb::ReadRequest,
    sender: &Sender<Part>,
) {
    let rules = core.deviations();
    let reader = Reader {
        loaded,
        all_defaults: rules.pi,
        now_ns: core.switch.options.clock.now_ns(),
    };
    let mut found = Vec::new();
    let mut results = Vec::with_capacity(request.entities.len());
    {
        // Writes before this are seen whole, later ones not at all.
        let _quiet = read(&core.writing);
        for entity in &request.entities {
            let part = match rules.pi {
                true => pi::wanted(&loaded.info, &loaded.state, entity)
                    .and_then(|entity| reader.find(&entity)),
                false => reader.find(entity),
            };
            let result = match part {
                Ok(part) => {
                    found.extend(part);
                    Ok(())
                }
                Err(fault) => Err(fault.told(rules)),
            };
            let failed = result.is_err();
            results.push(result);
            if failed && rules.pi {
                break;
            }
        }
    }
    let limit = if rules.pi { usize::MAX } else { READ_CHUNK };
    let mut chunk = Vec::new();
    let gone = || Fault::new(Code::Cancelled, "the client is gone");
    let mut emit = |mut entity: Entity| {
        if rules.pi {
            pi::answer(&mut entity);
        }
        if rules.pad_bytes {
            pad::entity(&loaded.info, &mut entity);
        }
        chunk.push(pb::Entity {
            entity: Some(entity),
        });
        if chunk.len() < limit {
            return Ok(());
        }
        let entities = std::mem::take(&mut chunk);
        let sent = sender.blocking_send(Ok(pb::ReadResponse { entities }));
        sent.map_err(|_| gone())
    };
    let all = found
        .into_iter()
        .try_for_each(|part| reader.answer(part, &mut emit));
    if all.is_err() {
        return;
    }
    if !chunk.is_empty() || rules.pi {
        let last = pb::ReadResponse { entities: chunk };
        if sender.blocking_send(Ok(last)).is_err() {
            return;
        }
    }
    let status = match results.pop() {
        Some(Err(fault)) if rules.pi => Err(fault.into()),
        last => {
            results.extend(last);
            batch_status(&results)
        }
    };
    if let Err(status) = status {
        // A client that is gone wants no status.
        let _ = sender.blocking_send(Err(status));
    }
}
