//! The busiest flows: those in hardware as the engine's sweeps found them, read anew each time;
//! those in software by a glance at a part of the workers' tables, which takes turns.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use shunt_api::v1;
use shunt_offload::{BUSIEST_MAX, ConnectionId, FlowReading};
use shunt_p4::FlowKey;
use shunt_slowpath::{FlowCursor, FlowFilter, FlowView, ManagerHandle};

use crate::api::convert::{millis, tuple};
use crate::config::Config;
use crate::switch::Switches;

/// Flows in software that one glance takes at most, and that are remembered.
const GLANCE_FLOWS: usize = 4_096;
const SOFTWARE_MAX: usize = 16_384;
/// A flow without a packet in software for so long is not busy there.
const QUIET: Duration = Duration::from_secs(2);
/// What was not seen for so long is forgotten.
const FORGET: Duration = Duration::from_secs(30);

/// Packets and bytes of a flow, both directions, at a moment.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    packets: u64,
    bytes: u64,
}

/// A flow with its rates.
#[derive(Clone, Debug)]
struct Rated {
    keys: [FlowKey; 2],
    age: Duration,
    hardware: bool,
    packets_per_second: f64,
    bits_per_second: f64,
}

impl Seen {
    /// Packets and bits a second since `before`; of a flow that is seen first, since it began.
    fn rates(&self, before: Option<&Self>, age: Duration) -> (f64, f64) {
        let (packets, bytes, time) = match before {
            Some(before) => (
                self.packets.saturating_sub(before.packets),
                self.bytes.saturating_sub(before.bytes),
                self.at.saturating_duration_since(before.at),
            ),
            // Longer ago says nothing of now.
            None if age <= QUIET => (self.packets, self.bytes, age),
            None => return (0.0, 0.0),
        };
        // A burst of a millisecond is no rate.
        let seconds = time.as_secs_f64().max(0.1);
        (packets as f64 / seconds, bytes as f64 * 8.0 / seconds)
    }
}

/// What was seen of flows before.
#[derive(Debug, Default)]
pub(super) struct Flows {
    hardware: HashMap<[FlowKey; 2], Seen>,
    cursor: FlowCursor,
    software: HashMap<(u16, ConnectionId), (Seen, Rated)>,
}

impl Flows {
    /// The busiest first.
    pub(super) async fn busiest(
        &mut self,
        config: &Config,
        switches: &Switches,
        slow_path: &ManagerHandle,
    ) -> Vec<v1::TopFlow> {
        let mut all = self.in_hardware(switches).await;
        self.glance(slow_path).await;
        // One that has gone to hardware is that one's.
        let offloaded: std::collections::HashSet<_> = all.iter().map(|flow| flow.keys).collect();
        let software = self.software.values().map(|(_, rated)| rated);
        let software = software.filter(|rated| !offloaded.contains(&rated.keys));
        all.extend(software.cloned());
        all.retain(|flow| flow.packets_per_second > 0.0);
        all.sort_by(|a, b| {
            let by_bits = b.bits_per_second.total_cmp(&a.bits_per_second);
            by_bits.then(b.packets_per_second.total_cmp(&a.packets_per_second))
        });
        all.truncate(super::FLOWS_MAX as usize);
        all.iter().map(|flow| told(config, flow)).collect()
    }

    async fn in_hardware(&mut self, switches: &Switches) -> Vec<Rated> {
        let mut seen = HashMap::new();
        let mut rated = Vec::new();
        for engine in switches.iter().filter_map(|member| member.engine.as_ref()) {
            // An engine that has ended is among the problems.
            let found = engine.busiest(BUSIEST_MAX).await.unwrap_or_default();
            let keys: Vec<FlowKey> = found.iter().flat_map(|flow| flow.keys).collect();
            let readings = engine.read(&keys).await.unwrap_or_default();
            let at = Instant::now();
            for (flow, pair) in found.iter().zip(readings.chunks(2)) {
                let sum = |of: fn(&FlowReading) -> u64| pair.iter().flatten().map(of).sum::<u64>();
                let now = Seen {
                    at,
                    packets: sum(|reading| reading.packets),
                    bytes: sum(|reading| reading.bytes),
                };
                let before = self.hardware.get(&flow.keys);
                let (packets_per_second, bits_per_second) = now.rates(before, flow.age);
                seen.insert(flow.keys, now);
                rated.push(Rated {
                    keys: flow.keys,
                    age: flow.age,
                    hardware: true,
                    packets_per_second,
                    bits_per_second,
                });
            }
        }
        self.hardware = seen;
        rated
    }

    /// Looks at the next part of the workers' tables.
    async fn glance(&mut self, slow_path: &ManagerHandle) {
        let filter = FlowFilter {
            offloaded: Some(false),
            max_idle: Some(QUIET),
            ..FlowFilter::default()
        };
        let page = slow_path.glance(filter, self.cursor, GLANCE_FLOWS).await;
        // A slow path that does not answer is among the problems.
        let page = page.unwrap_or_default();
        let at = Instant::now();
        for view in &page.flows {
            self.note(view, at);
        }
        // In one glance the rest of the flows is known to be quiet.
        let whole = self.cursor == FlowCursor::default() && page.next.is_none();
        let forget = if whole { QUIET } else { FORGET };
        self.software
            .retain(|_, (seen, _)| at.saturating_duration_since(seen.at) < forget);
        self.cursor = page.next.unwrap_or_default();
    }

    fn note(&mut self, view: &FlowView, at: Instant) {
        let key = (view.worker, view.id);
        let now = Seen {
            at,
            packets: view.forward.packets + view.reply.packets,
            bytes: view.forward.bytes + view.reply.bytes,
        };
        let before = self.software.get(&key).map(|(seen, _)| seen);
        let known = before.is_some();
        let (packets_per_second, bits_per_second) = now.rates(before, view.age);
        let rated = Rated {
            keys: [view.forward, view.reply].map(|side| FlowKey {
                vpc: side.vpc,
                tuple: side.tuple,
            }),
            age: view.age,
            hardware: false,
            packets_per_second,
            bits_per_second,
        };
        if known || self.software.len() < SOFTWARE_MAX {
            self.software.insert(key, (now, rated));
        }
    }
}

fn told(config: &Config, flow: &Rated) -> v1::TopFlow {
    let [forward, reply] = &flow.keys;
    v1::TopFlow {
        vpc: config.vpc_name(forward.vpc),
        to_vpc: config.vpc_name(reply.vpc),
        original: Some(tuple(config, forward.vpc, &forward.tuple)),
        reply: Some(tuple(config, reply.vpc, &reply.tuple)),
        offload: if flow.hardware {
            "hardware"
        } else {
            "software"
        }
        .to_owned(),
        packets_per_second: flow.packets_per_second,
        bits_per_second: flow.bits_per_second,
        age_ms: millis(flow.age),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_time_between() {
        let start = Instant::now();
        let seen = |ms, packets, bytes| Seen {
            at: start + Duration::from_millis(ms),
            packets,
            bytes,
        };
        let old = Duration::from_secs(60);
        let before = seen(0, 100, 10_000);
        assert_eq!(
            seen(2_000, 300, 30_000).rates(Some(&before), old),
            (100.0, 80_000.0)
        );
        // Entries that were written anew count from nought.
        assert_eq!(seen(1_000, 1, 1).rates(Some(&before), old), (0.0, 0.0));
        // Seen first: since it began, if that is not long ago.
        let young = Duration::from_secs(1);
        assert_eq!(seen(0, 10, 1_000).rates(None, young), (10.0, 8_000.0));
        assert_eq!(seen(0, 10, 1_000).rates(None, old), (0.0, 0.0));
        let now = seen(0, 10, 1_000).rates(None, Duration::ZERO);
        assert_eq!(now, (100.0, 80_000.0));
    }
}
