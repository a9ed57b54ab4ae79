//! What the benchmarks of the packet path share: a switch with offloaded flows, and packets of
//! them in no foreseeable order.

use p4runtime::client::{Client, ClientConfig, PipelineAction};
use p4runtime::p4::v1 as pb;
use p4runtime::p4info::parse_p4info_text;
use shunt_p4::tables::{AnyEntry, flow_to_entry};

use crate::gateway;
use crate::report::BenchError;

/// Updates of one write.
const BATCH: usize = 1000;

/// Loads the pipeline into the switch at `address`, then the gateway's entries and the flows.
pub(crate) async fn configure(address: String, flows: u32) -> Result<Client, BenchError> {
    let client = Client::connect(ClientConfig::new(address, 1, 1))
        .await
        .map_err(BenchError::failed)?;
    client.become_primary().await.map_err(BenchError::failed)?;
    let p4info = parse_p4info_text(shunt_p4::P4INFO).map_err(BenchError::failed)?;
    let json = shunt_p4::PIPELINE_JSON.to_vec();
    let (action, cookie) = (PipelineAction::VerifyAndCommit, shunt_p4::pipeline_cookie());
    client
        .set_pipeline(action, p4info, json, cookie)
        .await
        .map_err(BenchError::failed)?;
    let mut entries: Vec<_> = gateway::entries()?.iter().map(AnyEntry::to_entry).collect();
    for number in 0..flows {
        let entry = flow_to_entry(&gateway::flow(number)?);
        entries.push(entry.ok_or_else(|| BenchError::failed("a flow is wrong"))?);
    }
    for batch in entries.chunks(BATCH) {
        let updates: Vec<_> = batch
            .iter()
            .map(|entry| pb::Update {
                r#type: pb::update::Type::Insert.into(),
                entity: Some(pb::Entity {
                    entity: Some(pb::entity::Entity::TableEntry(entry.clone())),
                }),
            })
            .collect();
        client.write(updates).await.map_err(BenchError::failed)?;
    }
    Ok(client)
}

/// Numbers below `below`, in an order that no cache foresees but that is always the same
/// (xorshift64).
pub(crate) fn shuffled(count: usize, below: u32) -> impl Iterator<Item = u32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32 % below
    })
    .take(count)
}
