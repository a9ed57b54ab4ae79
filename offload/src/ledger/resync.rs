//! Diff and repair after the switch restarted, or at the start.

use p4runtime::p4::v1::TableEntry;
use shunt_p4::tables::{flow_from_entry, flow_key_from_entry};
use shunt_p4::{FlowEntry, FlowKey};

use super::entries::Entries;
use super::units::Held;
use super::{Ledger, Map, UnitRef};
use crate::stats::Times;
use crate::unit::{Presence, Unit};

impl Ledger {
    /// Takes what the switch holds, read while no write was in flight. Entries that nobody
    /// wants are removed, missing and different ones are put right. Returns the keys of entries
    /// that are no flows at all, for the caller to delete.
    pub(crate) fn resync(&mut self, entries: &[TableEntry], now_ns: u64) -> Vec<TableEntry> {
        self.stats.resyncs += 1;
        // Every unit that has something to write queues up again below.
        self.removals.clear();
        self.installs.clear();
        self.delayed.clear();
        let mut foreign = Vec::new();
        let mut found: Map<FlowKey, Option<FlowEntry>> = Map::default();
        for entry in entries {
            match (flow_key_from_entry(entry), flow_from_entry(entry)) {
                (Ok(key), flow) => {
                    found.insert(key, flow.ok());
                }
                (Err(_), _) => foreign.push(TableEntry {
                    table_id: entry.table_id,
                    r#match: entry.r#match.clone(),
                    priority: entry.priority,
                    ..Default::default()
                }),
            }
        }
        for (at, presence) in self.compare(&mut found) {
            if presence.contains(&Presence::Absent) {
                // Its counters began anew, or will.
                self.tell_count(at);
            }
            self.change(at, now_ns, |unit| unit.read_back(presence));
        }
        self.stats.orphans += (found.len() + foreign.len()) as u64;
        // In an order that a replay repeats.
        let mut unwanted: Vec<_> = found.into_keys().collect();
        unwanted.sort_unstable();
        for key in unwanted {
            let at = self.hold(Held {
                unit: Unit::orphan(),
                entries: Entries::Orphan(key),
                owner: None,
                waits: false,
                first_packet_ns: 0,
                times: Times::new(now_ns, now_ns),
            });
            if let Some(place) = self.units.get(at).map(|held| held.entries.place()) {
                self.room.occupy(&place);
            }
            self.units.claim(at);
            self.removals.push_back(at);
        }
        foreign
    }

    /// What of each unit the switch holds; leaves in `found` what belongs to none.
    fn compare(
        &self,
        found: &mut Map<FlowKey, Option<FlowEntry>>,
    ) -> Vec<(UnitRef, [Presence; 2])> {
        let mut presences = Vec::with_capacity(self.units.owned());
        for (at, held) in self.units.iter() {
            let presence = match &held.entries {
                Entries::Pair(pair) => {
                    pair.entries()
                        .map(|wanted| match found.remove(&wanted.key) {
                            None => Presence::Absent,
                            Some(Some(entry)) if same(&entry, &wanted) => Presence::Present,
                            Some(_) => Presence::Stale,
                        })
                }
                Entries::Orphan(key) => match found.remove(key) {
                    None => [Presence::Absent; 2],
                    Some(_) => [Presence::Stale, Presence::Absent],
                },
            };
            presences.push((at, presence));
        }
        presences
    }
}

/// Servers keep idle timeouts in milliseconds.
fn same(read: &FlowEntry, wanted: &FlowEntry) -> bool {
    read.action == wanted.action && read.idle_timeout.as_millis() == wanted.idle_timeout.as_millis()
}
