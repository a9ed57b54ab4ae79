//! One sample: everybody is asked, their answers are put together.

use std::time::Duration;

use shunt_api::v1;
use shunt_offload::stats::BUCKETS_NS;
use shunt_offload::{Latencies, LatencySummary};
use shunt_p4::frame::ENCAP_LEN;
use shunt_slowpath::{DropReason, Glance, SlowPathStats};

use super::flows::Flows;
use super::switch::{self, Counts};
use crate::api::convert::millis;
use crate::api::offload::{self, Engines};
use crate::api::service::Api;
use crate::api::status::status;
use crate::config::Config;

/// What one sample leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    flows: Flows,
}

impl Sampler {
    pub(super) async fn sample(&mut self, api: &Api) -> v1::TopSample {
        let glance = api.slow_path.counters().await.ok();
        // Without a census of the connections: it is more than is wanted every second.
        let slow_path = glance.as_ref().map(|glance| SlowPathStats {
            counters: glance.counters.clone(),
            capacity: glance.capacity,
            ..SlowPathStats::default()
        });
        let parts = api.parts(slow_path).await;
        let state = status(api, &parts);
        let config = &parts.current.config;
        let (counts, unread) = counted(api, config).await;
        let flows = self.flows.busiest(config, &api.switches, &api.slow_path);
        let mut sample = v1::TopSample {
            at_ms: millis(api.started.elapsed()),
            converged: state.converged,
            problems: state.problems,
            hardware: Some(counts.forwarded()),
            received: Some(counts.received),
            unread,
            flows: flows.await,
            ..Default::default()
        };
        if let Some(glance) = &glance {
            forwarded(&mut sample, glance);
        }
        offloaded(&mut sample, &parts.offload);
        let several = state.switches.len() > 1;
        let tables = state.switches.into_iter().flat_map(|switch| {
            let name = switch.name;
            let tables = switch.tables.into_iter();
            tables.map(move |table| named(several.then_some(&name), table))
        });
        sample.tables.extend(tables);
        sample.drops = drops(&counts, glance.as_ref());
        sample.vpcs = vpcs(config, &counts, glance.as_ref());
        sample
    }
}

/// Of all switches together, and why it is not all of them.
async fn counted(api: &Api, config: &Config) -> (Counts, String) {
    let asked = api.switches.iter().map(|member| async move {
        let counts = switch::read(member.handle.client(), config).await;
        counts.map_err(|error| format!("switch {}: {error}", member.switch.name))
    });
    let mut all = Counts::default();
    let mut unread = Vec::new();
    for answer in futures::future::join_all(asked).await {
        match answer {
            Ok(counts) => all.merge(counts),
            Err(error) => unread.push(error),
        }
    }
    (all, unread.join("; "))
}

fn forwarded(sample: &mut v1::TopSample, glance: &Glance) {
    let counters = &glance.counters;
    let headers = counters.sent.packets.saturating_mul(ENCAP_LEN as u64);
    sample.software = Some(v1::Traffic {
        packets: counters.sent.packets,
        bytes: counters.sent.bytes.saturating_sub(headers),
    });
    sample.connections = glance.connections;
    sample.connections_max = glance.capacity;
    sample.connections_created = counters.connections_created;
    sample.connections_ended = counters.connections_ended;
}

/// A table; with its switch where there are several.
fn named(switch: Option<&String>, table: v1::TableOccupancy) -> v1::TableOccupancy {
    match switch {
        Some(switch) => v1::TableOccupancy {
            table: format!("{switch} {}", table.table),
            ..table
        },
        None => table,
    }
}

/// Of all engines together.
fn offloaded(sample: &mut v1::TopSample, engines: &Engines) {
    let several = engines.len() > 1;
    for (name, stats) in engines {
        sample.offloaded += stats.in_hardware;
        sample.pending += stats.queued + stats.installing;
        sample.installs += stats.installs;
        sample.removals += stats.removals;
        sample.refused += stats.refused.iter().sum::<u64>();
        sample.evicted += stats.evicted.iter().sum::<u64>();
        let tables = offload::tables(stats).into_iter();
        let tables = tables.map(|table| named(several.then_some(name), table));
        sample.tables.extend(tables);
        let histograms = histograms(&stats.latencies);
        if sample.install.is_empty() {
            sample.install = histograms;
            continue;
        }
        for (sum, more) in sample.install.iter_mut().zip(histograms) {
            sum.count += more.count;
            for (sum, more) in sum.buckets.iter_mut().zip(more.buckets) {
                sum.count += more.count;
            }
        }
    }
}

fn histograms(latencies: &Latencies) -> Vec<v1::Histogram> {
    let install = &latencies.install;
    let histogram = |stage: &str, of: &LatencySummary| v1::Histogram {
        stage: stage.to_owned(),
        buckets: BUCKETS_NS
            .iter()
            .zip(of.buckets)
            .map(|(le_ns, count)| v1::Bucket {
                le_us: u64::try_from(Duration::from_nanos(*le_ns).as_micros()).unwrap_or(u64::MAX),
                count,
            })
            .collect(),
        count: of.count,
    };
    [
        ("queued", &install.queued),
        ("batched", &install.batched),
        ("on_wire", &install.on_wire),
        ("total", &install.total),
        ("first_packet", &latencies.first_packet),
    ]
    .map(|(stage, of)| histogram(stage, of))
    .to_vec()
}

fn drops(counts: &Counts, glance: Option<&Glance>) -> Vec<v1::TopDrops> {
    let drop = |place: &str, reason: &str, packets| v1::TopDrops {
        r#where: place.to_owned(),
        reason: reason.to_owned(),
        packets,
    };
    let switch = counts.drops.iter();
    let switch = switch.map(|(reason, packets)| drop("switch", reason.as_str(), *packets));
    let software = glance.into_iter().flat_map(|glance| {
        let reasons = DropReason::ALL.iter();
        reasons.map(|reason| {
            let packets = glance.counters.dropped(*reason);
            drop("software", reason.as_str(), packets)
        })
    });
    let all = switch.chain(software);
    all.filter(|drops| drops.packets > 0).collect()
}

fn vpcs(config: &Config, counts: &Counts, glance: Option<&Glance>) -> Vec<v1::TopVpc> {
    let vpcs = config.vpcs.iter().map(|found| {
        let id = found.vpc.id;
        let [received, sent] = counts.vpcs.get(&id).copied().unwrap_or_default();
        let dropped = |glance: &Glance| {
            let of = |reason: &DropReason| glance.counters.dropped_in(id, *reason);
            DropReason::ALL.iter().map(of).sum()
        };
        v1::TopVpc {
            name: found.vpc.name.clone(),
            received: Some(received),
            sent: Some(sent),
            drops: glance.map_or(0, dropped),
        }
    });
    vpcs.collect()
}
