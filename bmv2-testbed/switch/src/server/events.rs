//! Tells the primaries of packet-ins, digests and idle entries.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p4runtime::p4::v1 as pb;
use pb::stream_message_response::Update;
use tokio::sync::mpsc::Receiver;

use super::core::{Core, message};
use super::digest::wire_list;
use super::packet::packet_in;
use super::pad;
use super::wire;
use crate::state::lock;
use crate::switch::{Event, Loaded};

/// Events that wait to be sent; more are dropped and counted.
pub(crate) const EVENT_QUEUE: usize = 8192;
/// How often it is looked for digest lists that have waited long enough.
const DIGEST_TICK: Duration = Duration::from_millis(10);
/// The most entries of one idle notification.
pub(crate) const MAX_IDLE_ENTRIES: usize = 1000;

/// Nanoseconds since 1970.
fn timestamp() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

fn update(core: &Core, loaded: &Loaded, event: Event) -> Option<Update> {
    let info = &loaded.info;
    match event {
        Event::PacketIn(frame) => Some(Update::Packet(packet_in(&info.packet_in, &frame)?)),
        Event::Digest { id, values } => {
            let (digest_id, _) = info.digests.get(&id)?;
            let now_ns = core.switch.options.clock.now_ns();
            let list = lock(&loaded.state.digests).push(*digest_id, values, now_ns)?;
            Some(Update::Digest(wire_list(list, timestamp())))
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
                ..wire::key(table, entry)
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

fn send(core: &Core, loaded: &Loaded, mut update: Update) {
    if core.deviations().pad_bytes {
        pad::message(&loaded.info, &mut update);
    }
    if !core.send_primaries(&message(update)) {
        core.switch.count_event_lost();
    }
}

/// Sends events on until the switch is gone.
pub(crate) async fn forward(core: Arc<Core>, mut events: Receiver<Event>) {
    let mut gathers = false;
    let mut ticks = tokio::time::interval(DIGEST_TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = events.recv() => match event {
                Some(event) => Some(event),
                None => break,
            },
            _ = ticks.tick(), if gathers => None,
        };
        let Some(loaded) = core.switch.loaded.load_full() else {
            gathers = false;
            continue;
        };
        match event {
            Some(event) => {
                if let Some(update) = update(&core, &loaded, event) {
                    send(&core, &loaded, update);
                }
            }
            None => {
                let now_ns = core.switch.options.clock.now_ns();
                let due = lock(&loaded.state.digests).due(now_ns);
                for list in due {
                    send(&core, &loaded, Update::Digest(wire_list(list, timestamp())));
                }
            }
        }
        gathers = lock(&loaded.state.digests).gathers();
    }
}
