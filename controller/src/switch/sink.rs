//! The offload engine's way to the switch.

use p4runtime::client::{Client, ClientError, WriteError, code_of};
use p4runtime::p4::v1::{Entity, TableEntry, Update, entity};
use shunt_offload::{FlowSink, Outcome, SinkError};
use shunt_p4::tables::{Flow4, Flow6, P4Table};
use tonic::Code;

/// Writes and reads `flow4` and `flow6`.
#[derive(Clone, Debug)]
pub struct SwitchSink(Client);

impl SwitchSink {
    /// Over a session's client; it survives the session's reconnections.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl FlowSink for SwitchSink {
    async fn write(&self, updates: Vec<Update>) -> Result<Vec<Outcome>, SinkError> {
        let count = updates.len();
        match self.0.write(&updates).await {
            Ok(()) => Ok(vec![Outcome::Done; count]),
            Err(WriteError::Batch(batch)) => Ok(batch.errors.iter().map(outcome).collect()),
            Err(WriteError::Failed { source, .. }) => Err(sink_error(&source)),
        }
    }

    async fn read_flows(&self) -> Result<Vec<TableEntry>, SinkError> {
        read_tables(&self.0, [Flow4::ID, Flow6::ID])
            .await
            .map_err(|error| sink_error(&error))
    }
}

/// The canonical code of one update's answer (P4Runtime 12.3).
fn outcome(error: &p4runtime::p4::v1::Error) -> Outcome {
    match code_of(error) {
        Code::Ok => Outcome::Done,
        Code::AlreadyExists => Outcome::AlreadyExists,
        Code::NotFound => Outcome::NotFound,
        Code::ResourceExhausted => Outcome::TableFull,
        Code::Aborted | Code::Unavailable | Code::Cancelled => Outcome::Retry,
        Code::DeadlineExceeded => Outcome::Unknown,
        _ => Outcome::Rejected,
    }
}

fn sink_error(error: &ClientError) -> SinkError {
    match error {
        ClientError::NotPrimary { .. } | ClientError::StreamLost { .. } => {
            SinkError::NotReady(error.to_string())
        }
        _ => SinkError::Unavailable(error.to_string()),
    }
}

/// All entries of some tables, without default entries.
pub(crate) async fn read_tables(
    client: &Client,
    tables: impl IntoIterator<Item = u32>,
) -> Result<Vec<TableEntry>, ClientError> {
    let wildcards = tables
        .into_iter()
        .map(|table_id| Entity {
            entity: Some(entity::Entity::TableEntry(TableEntry {
                table_id,
                ..Default::default()
            })),
        })
        .collect();
    let entities = client.read(wildcards).await?;
    Ok(entities
        .into_iter()
        .filter_map(|entity| match entity.entity {
            Some(entity::Entity::TableEntry(entry)) if !entry.is_default_action => Some(entry),
            _ => None,
        })
        .collect())
}
