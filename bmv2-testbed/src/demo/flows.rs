//! What the switch and the daemon say about flows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4::v1::p4_runtime_client::P4RuntimeClient;
use p4runtime::p4::v1::{DirectCounterEntry, Entity, ReadRequest, TableEntry};
use prost::Message as _;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::topology::{P4RUNTIME, Topology};

/// Largest answer of a switch, bytes: bmv2 sends a whole read as one message.
const ANSWER_MAX: usize = 64 << 20;

/// The large transfer's two directions.
#[derive(Debug, Default)]
pub(super) struct LargeFlow {
    /// Every entry that was seen.
    entries: HashMap<Vec<u8>, Seen>,
    /// Packets that the slow path forwarded, both directions.
    pub(super) software: u64,
}

/// Packets that hit an entry.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// In former lives: an idle entry leaves the switch, and counts from 0 when it is back.
    before: u64,
    now: u64,
}

impl Seen {
    fn count(&mut self, packets: u64) {
        if packets < self.now {
            self.before += self.now;
        }
        self.now = packets;
    }

    fn total(self) -> u64 {
        self.before + self.now
    }
}

impl LargeFlow {
    /// Packets that the switch forwarded: those of the busiest two entries.
    pub(super) fn hardware(&self) -> u64 {
        let mut totals: Vec<_> = self.entries.values().map(|seen| seen.total()).collect();
        totals.sort_unstable();
        totals.iter().rev().take(2).sum()
    }
}

/// Reads entities of the table `flow4` from the switch, as any client may.
fn read(topology: &Topology, entity: Kind) -> Result<Vec<Kind>> {
    topology.gw.inside(move || {
        let failed =
            |what: String| Error::Other(format!("reading the switch at {P4RUNTIME}: {what}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        runtime.block_on(async {
            let client = P4RuntimeClient::connect(format!("http://{P4RUNTIME}"))
                .await
                .map_err(|error| failed(error.to_string()))?;
            let request = ReadRequest {
                device_id: 1,
                entities: vec![Entity {
                    entity: Some(entity),
                }],
                ..Default::default()
            };
            let mut stream = client
                .max_decoding_message_size(ANSWER_MAX)
                .read(request)
                .await
                .map_err(|status| failed(status.to_string()))?
                .into_inner();
            let mut entities = Vec::new();
            while let Some(response) = stream
                .message()
                .await
                .map_err(|status| failed(status.to_string()))?
            {
                entities.extend(
                    response
                        .entities
                        .into_iter()
                        .filter_map(|entity| entity.entity),
                );
            }
            Ok(entities)
        })
    })
}

fn flow4() -> TableEntry {
    TableEntry {
        table_id: shunt_p4::tables::ids::flow4::ID,
        ..Default::default()
    }
}

/// Entries in the switch's flow table now.
pub(super) fn in_switch(topology: &Topology) -> Result<usize> {
    Ok(read(topology, Kind::TableEntry(flow4()))?.len())
}

/// Reads the counters of all entries.
pub(super) fn sample(topology: &Topology, flow: &mut LargeFlow) -> Result<()> {
    let counters = DirectCounterEntry {
        table_entry: Some(flow4()),
        ..Default::default()
    };
    for entity in read(topology, Kind::DirectCounterEntry(counters))? {
        let Kind::DirectCounterEntry(DirectCounterEntry {
            table_entry: Some(entry),
            data: Some(data),
        }) = entity
        else {
            continue;
        };
        let key = TableEntry {
            r#match: entry.r#match,
            ..Default::default()
        };
        let seen = flow.entries.entry(key.encode_to_vec()).or_default();
        seen.count(data.packet_count.max(0).cast_unsigned());
    }
    Ok(())
}

/// Asks the daemon how many of the large transfer's packets went through the slow path.
pub(super) fn software_packets(topology: &Topology, flow: &mut LargeFlow) -> Result<()> {
    let flows = topology.shunt(&["flows"])?;
    let most = rows(&flows).iter().filter_map(|row| {
        let bytes = row.pointer("/software/packets")?.as_u64()?;
        (row.get("vpc")?.as_str()? == "red").then_some(bytes)
    });
    flow.software = most.max().unwrap_or(0);
    Ok(())
}

/// Whether `shunt status` says that everything is converged.
pub(super) fn converged(status: &Value) -> bool {
    status.get("converged").and_then(Value::as_bool) == Some(true)
}

/// What `shunt offload` says.
#[derive(Debug)]
pub(super) struct OffloadFigures {
    pub(super) installed: u64,
    pub(super) refused: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
}

/// Picks the figures out of `shunt offload --output json`.
pub(super) fn offload_figures(stats: &Value) -> Result<OffloadFigures> {
    let number = |pointer: &str| {
        stats
            .pointer(pointer)
            .and_then(Value::as_u64)
            .ok_or_else(|| Error::Other(format!("`shunt offload` does not say {pointer}: {stats}")))
    };
    Ok(OffloadFigures {
        installed: number("/connections_installed")?,
        refused: number("/connections_refused")?,
        p50_us: number("/latency/first_packet_to_acknowledged/p50_us")?,
        p99_us: number("/latency/first_packet_to_acknowledged/p99_us")?,
    })
}

/// Translated tuples that more than one connection has.
pub(super) fn duplicate_translations(flows: &Value) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows(flows) {
        if let Some(reply) = row.get("reply") {
            *seen.entry(reply.to_string()).or_default() += 1;
        }
    }
    seen.into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(tuple, _)| tuple)
        .collect()
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transfer that had stood still for longer than the idle time-out was said to have gone
    /// by the slow path: only the longest life of its entries was counted.
    #[test]
    fn an_entry_that_came_back_counts_on() {
        let mut flow = LargeFlow::default();
        for (key, counts) in [(1, &[100, 900, 10, 50][..]), (2, &[300, 500]), (3, &[7])] {
            let seen = flow.entries.entry(vec![key]).or_default();
            counts.iter().for_each(|packets| seen.count(*packets));
        }
        assert_eq!(flow.hardware(), 950 + 500);
    }
}
