//! Reading entities, as a stream or collected (P4Runtime 11).

use tonic::{Code, Status, Streaming};

use super::call::Call;
use super::write::decode_batch;
use super::{Client, ClientError, code_of};
use crate::p4::v1 as pb;

const RPC: &str = "Read";

/// The entities of a Read, as the switch sends them.
#[derive(Debug)]
pub struct EntityStream {
    client: Client,
    /// Until the end.
    call: Option<Call>,
    /// How many entities the request has.
    asked: usize,
    incoming: Streaming<pb::ReadResponse>,
}

impl EntityStream {
    /// The next part, `None` at the end. Real servers send anything from a few
    /// entities to all of them at once.
    ///
    /// # Errors
    /// [`ClientError`]; the stream is then over.
    pub async fn next_part(&mut self) -> Result<Option<Vec<pb::Entity>>, ClientError> {
        let Some(call) = &mut self.call else {
            return Ok(None);
        };
        let inner = &self.client.0;
        let timeout = inner.config.rpc_timeout;
        let part = call.within(&inner.config, timeout, self.incoming.message());
        match part.await {
            Ok(Ok(Some(part))) => {
                let count = part.entities.len() as u64;
                inner.metrics.entities_read.increment(count);
                Ok(Some(part.entities))
            }
            Ok(Ok(None)) => {
                if let Some(call) = self.call.take() {
                    call.end();
                }
                Ok(None)
            }
            Ok(Err(status)) => {
                self.call = None;
                Err(self.refusal(&status))
            }
            Err(timeout) => {
                self.call = None;
                Err(timeout)
            }
        }
    }

    /// What one part of the request was refused with, if that is why the read ended so
    /// (P4Runtime 13.3); the others were answered.
    fn refusal(&self, status: &Status) -> ClientError {
        let errors = match decode_batch(status, self.asked) {
            Ok(Some(errors)) => errors,
            Ok(None) => return self.client.translate(RPC, status),
            Err(fault) => return ClientError::Protocol { rpc: RPC, fault },
        };
        let refused = |error: &&pb::Error| code_of(error) != Code::Ok;
        match errors.iter().find(refused) {
            None => self.client.translate(RPC, status),
            Some(error) => ClientError::Refused {
                rpc: RPC,
                code: code_of(error),
                message: error.message.clone(),
            },
        }
    }
}

impl Client {
    /// Reads what the entities select, as a stream. Ids of 0 are wildcards: a
    /// table entry with only its table's id set reads the whole table, without
    /// the default entry (P4Runtime 11.1). Needs no primary role.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn read_stream(
        &self,
        entities: Vec<pb::Entity>,
    ) -> Result<EntityStream, ClientError> {
        let asked = entities.len();
        let request = pb::ReadRequest {
            device_id: self.0.config.device_id,
            role: self.role(),
            entities,
        };
        let mut stub = self.stub();
        let config = &self.0.config;
        let mut call = self.call(RPC);
        let response = call.within(config, config.rpc_timeout, stub.read(request));
        let response = response.await?;
        let incoming = response.map_err(|status| self.translate(RPC, &status))?;
        Ok(EntityStream {
            client: self.clone(),
            call: Some(call),
            asked,
            incoming: incoming.into_inner(),
        })
    }

    /// Reads what the entities select, all of it; see [`Client::read_stream`].
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::TooManyEntities`] past `read_entities_max`.
    pub async fn read(&self, entities: Vec<pb::Entity>) -> Result<Vec<pb::Entity>, ClientError> {
        let limit = self.0.config.read_entities_max;
        let mut stream = self.read_stream(entities).await?;
        let mut all = Vec::new();
        while let Some(mut part) = stream.next_part().await? {
            if all.len().saturating_add(part.len()) > limit {
                return Err(ClientError::TooManyEntities { limit });
            }
            all.append(&mut part);
        }
        Ok(all)
    }
}
