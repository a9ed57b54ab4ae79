//! The real sink: a P4Runtime client.

use std::collections::HashMap;
use std::time::Duration;

use p4runtime::client::{Client, ClientError, WriteError, code_of};
use p4runtime::p4::v1::{CounterData, Entity, TableEntry, Update, entity, table_entry, update};
use shunt_p4::FlowKey;
use shunt_p4::tables::{
    Flow4, Flow6, FlowUpdate, P4Table as _, flow_key_entry, flow_key_from_entry,
};
use tonic::Code;

use crate::sink::{FlowReading, FlowSink, Outcome, SinkError};

/// Writes into one switch through a client that somebody else keeps connected and primary.
#[derive(Clone, Debug)]
pub struct P4RuntimeSink {
    client: Client,
}

impl P4RuntimeSink {
    /// A sink over `client`, a clone of the session's.
    pub const fn new(client: Client) -> Self {
        Self { client }
    }
}

/// What a write of so many updates came to, one by one.
fn outcomes(answer: Result<(), WriteError>, count: usize) -> Result<Vec<Outcome>, SinkError> {
    let each = |errors: &[p4runtime::p4::v1::Error]| -> Vec<Outcome> {
        errors.iter().map(|error| outcome(code_of(error))).collect()
    };
    let (mut outcomes, rest) = match answer {
        Ok(()) => (Vec::new(), Ok(Outcome::Done)),
        Err(WriteError::Batch(batch)) => (each(&batch.errors), Ok(Outcome::Unknown)),
        Err(WriteError::Failed { decided, source }) => {
            let rest = request_failed(&source);
            if decided.is_empty() {
                (Vec::new(), rest)
            } else {
                // Some was written: every update has an answer or an unknown one.
                (each(&decided), Ok(rest.unwrap_or(Outcome::Unknown)))
            }
        }
    };
    outcomes.resize(count, rest?);
    Ok(outcomes)
}

impl FlowSink for P4RuntimeSink {
    async fn write(&self, updates: Vec<FlowUpdate>) -> Result<Vec<Outcome>, SinkError> {
        outcomes(self.client.write_wire(&updates).await, updates.len())
    }

    async fn delete(&self, keys: Vec<TableEntry>) -> Result<Vec<Outcome>, SinkError> {
        let delete = |key| Update {
            r#type: update::Type::Delete.into(),
            entity: Some(Entity {
                entity: Some(entity::Entity::TableEntry(key)),
            }),
        };
        let updates: Vec<_> = keys.into_iter().map(delete).collect();
        outcomes(self.client.write(&updates).await, updates.len())
    }

    async fn read_counters(
        &self,
        keys: Vec<FlowKey>,
    ) -> Result<Vec<Option<FlowReading>>, SinkError> {
        let asked = |key: &FlowKey| {
            let mut entry = flow_key_entry(key)?;
            entry.counter_data = Some(CounterData::default());
            entry.time_since_last_hit = Some(table_entry::IdleTimeout::default());
            Some(Entity {
                entity: Some(entity::Entity::TableEntry(entry)),
            })
        };
        let entities = keys.iter().filter_map(asked).collect();
        let found = self.client.read(entities).await;
        let found = found.map_err(|error| unreachable(&error))?;
        // A server answers in any order, and leaves out what it has not.
        let mut by_key = HashMap::with_capacity(found.len());
        for entity in found {
            if let Some(entity::Entity::TableEntry(entry)) = entity.entity
                && let Ok(key) = flow_key_from_entry(&entry)
            {
                by_key.insert(key, reading(&entry));
            }
        }
        Ok(keys.iter().map(|key| by_key.get(key).copied()).collect())
    }

    async fn read_flows(&self) -> Result<Vec<TableEntry>, SinkError> {
        let tables = [Flow4::ID, Flow6::ID].map(|table_id| Entity {
            entity: Some(entity::Entity::TableEntry(TableEntry {
                table_id,
                ..Default::default()
            })),
        });
        let entities = self.client.read(tables.to_vec()).await;
        let entities = entities.map_err(|error| unreachable(&error))?;
        Ok(entities
            .into_iter()
            .filter_map(|entity| match entity.entity {
                // Some servers include the default entry in a wildcard read.
                Some(entity::Entity::TableEntry(entry)) if !entry.is_default_action => Some(entry),
                _ => None,
            })
            .collect())
    }
}

fn reading(entry: &TableEntry) -> FlowReading {
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    let data = entry.counter_data.as_ref();
    let idle = entry.time_since_last_hit.as_ref();
    FlowReading {
        packets: data.map_or(0, |data| count(data.packet_count)),
        bytes: data.map_or(0, |data| count(data.byte_count)),
        idle: idle.map(|time| Duration::from_nanos(count(time.elapsed_ns))),
    }
}

/// An update's own answer (P4Runtime 12.3).
const fn outcome(code: Code) -> Outcome {
    match code {
        Code::Ok => Outcome::Done,
        Code::AlreadyExists => Outcome::AlreadyExists,
        Code::NotFound => Outcome::NotFound,
        Code::ResourceExhausted => Outcome::TableFull,
        Code::Aborted | Code::Unavailable | Code::FailedPrecondition => Outcome::Retry,
        // PI answers UNKNOWN to whatever its target refuses.
        Code::Unknown | Code::Internal | Code::DataLoss => Outcome::Failed,
        Code::DeadlineExceeded | Code::Cancelled => Outcome::Unknown,
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::PermissionDenied
        | Code::Unauthenticated => Outcome::Rejected,
    }
}

/// What a request that failed as a whole says about each of its updates.
fn request_failed(error: &ClientError) -> Result<Outcome, SinkError> {
    match error {
        ClientError::Refused { code, .. } => match code {
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Ok(Outcome::Rejected),
            // The request, not the table: too large, or too many at once.
            Code::ResourceExhausted | Code::Aborted => Ok(Outcome::Retry),
            _ => Err(unreachable(error)),
        },
        _ => Err(unreachable(error)),
    }
}

fn unreachable(error: &ClientError) -> SinkError {
    let words = error.to_string();
    match error {
        ClientError::NotPrimary { .. } | ClientError::StreamLost { .. } => {
            SinkError::NotReady(words)
        }
        ClientError::Refused {
            code: Code::FailedPrecondition | Code::NotFound | Code::PermissionDenied,
            ..
        } => SinkError::NotReady(words),
        _ => SinkError::Unavailable(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code) -> ClientError {
        ClientError::Refused {
            rpc: "Write",
            code,
            message: "no".to_owned(),
        }
    }

    #[test]
    fn only_what_is_sure_not_to_be_done_is_said_not_to_be_done() {
        assert_eq!(outcome(Code::ResourceExhausted), Outcome::TableFull);
        assert_eq!(outcome(Code::Unknown), Outcome::Failed);
        assert_eq!(
            request_failed(&refused(Code::InvalidArgument)),
            Ok(Outcome::Rejected)
        );
        assert!(matches!(
            request_failed(&refused(Code::FailedPrecondition)),
            Err(SinkError::NotReady(_))
        ));
        assert!(matches!(
            request_failed(&refused(Code::Internal)),
            Err(SinkError::Unavailable(_))
        ));
    }
}
