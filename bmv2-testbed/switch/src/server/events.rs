//! Tells the primary of packet-ins, digests and idle entries.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use p4runtime::p4::v1 as pb;
use pb::stream_message_response::Update;
use tokio::sync::mpsc::Receiver;

use super::core::{Core, message};
use super::entry::wire_key;
use super::packet::packet_in;
use super::value::canonical;
use crate::switch::{Event, Loaded};

/// Events that wait to be sent; more are dropped and counted.
pub(crate) const EVENT_QUEUE: usize = 8192;
/// The most entries of one idle notification.
pub(crate) const MAX_IDLE_ENTRIES: usize = 1000;

/// Nanoseconds since 1970.
fn timestamp() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

fn update(core: &Core, loaded: &Loaded, list: u64, event: Event) -> Option<Update> {
    let info = &loaded.info;
    match event {
        Event::PacketIn(frame) => Some(Update::Packet(packet_in(&info.packet_in, &frame)?)),
        Event::Digest { id, values } => {
            let (digest_id, _) = info.digests.get(&id)?;
            let member = |value: Vec<u8>| pb::P4Data {
                data: Some(pb::p4_data::Data::Bitstring(canonical(&value))),
            };
            let mut members: Vec<_> = values.into_iter().map(member).collect();
            // A digest of one field is that field, of more a struct of them.
            let data = if members.len() == 1 {
                members.pop()?
            } else {
                pb::P4Data {
                    data: Some(pb::p4_data::Data::Struct(pb::P4StructLike { members })),
                }
            };
            Some(Update::Digest(pb::DigestList {
                digest_id: *digest_id,
                list_id: list,
                data: vec![data],
                timestamp: timestamp(),
            }))
        }
        Event::Idle { table, entries } => {
            let table = info.tables.get(info.table_by_index.get(&table)?)?;
            let now = core.switch.options.clock.now_ns();
            let wire = entries.iter().map(|entry| pb::TableEntry {
                idle_timeout_ns: i64::try_from(entry.idle_timeout_ns()).unwrap_or(i64::MAX),
                controller_metadata: entry.controller_metadata(),
                metadata: entry.metadata().to_vec(),
                time_since_last_hit: Some(pb::table_entry::IdleTimeout {
                    elapsed_ns: i64::try_from(entry.idle_ns(now)).unwrap_or(i64::MAX),
                }),
                ..wire_key(table, entry)
            });
            Some(Update::IdleTimeoutNotification(
                pb::IdleTimeoutNotification {
                    table_entry: wire.collect(),
                    timestamp: timestamp(),
                },
            ))
        }
    }
}

/// Sends events on until the switch is gone.
pub(crate) async fn forward(core: Arc<Core>, mut events: Receiver<Event>) {
    let mut list = 0;
    while let Some(event) = events.recv().await {
        let Some(loaded) = core.switch.loaded.load_full() else {
            continue;
        };
        list += 1;
        if let Some(update) = update(&core, &loaded, list, event)
            && !core.send_primary(message(update))
        {
            core.switch.count_event_lost();
        }
    }
}
