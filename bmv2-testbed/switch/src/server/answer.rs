//! Answers a read request: one snapshot, streamed in bounded messages.

use bytes::Bytes;
use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use tokio::sync::mpsc::Sender;
use tonic::Status;

use super::core::Core;
use super::deviation::Deviations;
use super::fault::batch_status;
use super::format::Format;
use super::read::{As, Found, Reader};
use super::wire::Wanted;
use super::{pad, pi};
use crate::state::entry::Entry;
use crate::state::write;
use crate::switch::Loaded;

/// The most entities of one message.
const MESSAGE_ENTITIES: usize = 1000;
/// A message is full when it has this many bytes; clients take 4 MiB unless told otherwise.
const MESSAGE_BYTES: usize = 1 << 20;
/// The field number of a `ReadResponse`'s entities.
const ENTITIES: u32 = 1;

/// One message of the answer, encoded.
pub(crate) type Part = Result<Bytes, Status>;

/// The client is gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// Takes a message. Blocks while the client is slow.
type Deliver<'d> = &'d mut dyn FnMut(Bytes) -> Result<(), Gone>;

/// The message at hand.
struct Messages<'d> {
    deliver: Deliver<'d>,
    rules: Deviations,
    message: Vec<u8>,
    entities: usize,
}

impl Messages<'_> {
    /// Adds any entity.
    fn entity(&mut self, loaded: &Loaded, mut entity: Entity) -> Result<(), Gone> {
        if self.rules.pi {
            pi::answer(&mut entity);
        }
        if self.rules.pad_bytes {
            pad::entity(&loaded.info, &mut entity);
        }
        let entity = pb::Entity {
            entity: Some(entity),
        };
        prost::encoding::message::encode(ENTITIES, &entity, &mut self.message);
        self.added()
    }

    /// Adds an entry of a plain table.
    fn plain(
        &mut self,
        format: &Format,
        entry: &Entry,
        wanted: Wanted,
        now_ns: u64,
    ) -> Result<(), Gone> {
        format.encode(entry, wanted, now_ns, &mut self.message);
        self.added()
    }

    fn added(&mut self) -> Result<(), Gone> {
        self.entities += 1;
        let full = self.entities >= MESSAGE_ENTITIES || self.message.len() >= MESSAGE_BYTES;
        // PI has a whole read in one message.
        if !full || self.rules.pi {
            return Ok(());
        }
        self.entities = 0;
        // The next message will be about as long.
        let next = Vec::with_capacity(self.message.len());
        (self.deliver)(std::mem::replace(&mut self.message, next).into())
    }

    /// Delivers the rest.
    fn finish(self) -> Result<(), Gone> {
        if self.message.is_empty() && !self.rules.pi {
            return Ok(());
        }
        (self.deliver)(self.message.into())
    }
}

/// Puts what was found into messages.
pub(crate) fn encode(
    reader: &Reader<'_>,
    found: Vec<Found<'_>>,
    rules: Deviations,
    deliver: Deliver<'_>,
) -> Result<(), Gone> {
    let loaded = reader.loaded;
    let mut messages = Messages {
        deliver,
        rules,
        message: Vec::new(),
        entities: 0,
    };
    for part in found {
        match part {
            Found::Entries(table, entries, As::Entries(wanted))
                if !rules.pi
                    && !rules.pad_bytes
                    && let Some(format) = loaded.formats.get(table.id) =>
            {
                for entry in entries {
                    messages.plain(format, &entry, wanted, reader.now_ns)?;
                }
            }
            part => reader.answer(part, &mut |entity| messages.entity(loaded, entity))?,
        }
    }
    messages.finish()
}

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
        let _quiet = write(&core.writing);
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
    let mut deliver = |message| sender.blocking_send(Ok(message)).map_err(|_| Gone);
    if encode(&reader, found, rules, &mut deliver).is_err() {
        return;
    }
    let status = match results.pop() {
        Some(Err(fault)) if rules.pi => Err(Status::from(fault)),
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
