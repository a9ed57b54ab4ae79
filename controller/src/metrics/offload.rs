//! The offload engine's numbers as Prometheus reads them.
//!
//! Millions of latencies a second are counted in the engine's own histograms, and not one by one
//! through the `metrics` facade; so this is written from a snapshot of them. [`METRICS`] lists
//! every name with its unit and meaning.

use std::fmt::Write as _;

use shunt_offload::{
    BUCKETS_NS, EvictReason, LatencySummary, LinkState, OffloadStats, RefuseReason, StageLatencies,
};

const TABLES: [&str; 2] = ["flow4", "flow6"];

/// Latencies of commands, a histogram.
const LATENCY: &str = "shunt_offload_latency_seconds";

/// Every metric: its name, type and meaning. Counters are since the daemon started; connections
/// have two entries each.
pub(super) const METRICS: &[(&str, &str, &str)] = &[
    (
        LATENCY,
        "histogram",
        "Time of a connection's way into the switch (operation=\"install\") or out of it \
         (\"removal\") by stage: \"queued\" from the worker's decision to the engine, \"batched\" \
         from there into a batch, \"on_wire\" from there to the switch's last answer, \"total\" \
         from the decision to that answer, \"first_packet\" from the connection's first packet.",
    ),
    (
        "shunt_offload_up",
        "gauge",
        "1 while the engine writes to the switch, else 0.",
    ),
    (
        "shunt_offload_connections",
        "gauge",
        "Connections of the engine by state: \"in_hardware\", \"queued\", \"installing\", \
         \"removing\".",
    ),
    (
        "shunt_offload_installs_total",
        "counter",
        "Connections whose both entries were acknowledged.",
    ),
    (
        "shunt_offload_removals_total",
        "counter",
        "Connections whose both entries were acknowledged gone, as the slow path wanted.",
    ),
    (
        "shunt_offload_refused_total",
        "counter",
        "Connections that stayed in software, by reason.",
    ),
    (
        "shunt_offload_evicted_total",
        "counter",
        "Idle connections that left the switch to make room for others, by reason.",
    ),
    (
        "shunt_offload_table_entries",
        "gauge",
        "Entries of the flow tables that connections have, on their way in and out included.",
    ),
    (
        "shunt_offload_table_entries_max",
        "gauge",
        "Entries that the flow tables take, as far as is known; left out where it is not.",
    ),
    (
        "shunt_offload_entries_read_total",
        "counter",
        "Entries whose counters were read.",
    ),
    (
        "shunt_offload_lost_total",
        "counter",
        "Connections whose entries the switch lost and did not take again.",
    ),
    (
        "shunt_offload_idle_connections_total",
        "counter",
        "Connections that the switch reported idle in both directions.",
    ),
    (
        "shunt_offload_updates_total",
        "counter",
        "Updates of entries that were written.",
    ),
    (
        "shunt_offload_batches_total",
        "counter",
        "Requests that they were written in.",
    ),
    (
        "shunt_offload_retries_total",
        "counter",
        "Updates of entries that had to be written again.",
    ),
    (
        "shunt_offload_failed_batches_total",
        "counter",
        "Requests that had no answer.",
    ),
    (
        "shunt_offload_resyncs_total",
        "counter",
        "Times that the flow tables were read back as a whole.",
    ),
    (
        "shunt_offload_orphans_total",
        "counter",
        "Entries of the switch that nobody wanted, removed.",
    ),
];

/// Appends all of [`METRICS`] in Prometheus's text format, with the switch as a label; the engines
/// with their switches' names.
pub(super) fn write(text: &mut String, engines: &[(String, OffloadStats)]) {
    for (name, kind, help) in METRICS {
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (switch, stats) in engines {
            samples(text, name, &format!("switch=\"{switch}\""), stats);
        }
        text.push('\n');
    }
}

fn samples(text: &mut String, name: &str, of: &str, stats: &OffloadStats) {
    let mut plain = |value: u64| {
        let _ = writeln!(text, "{name}{{{of}}} {value}");
    };
    match name.trim_start_matches("shunt_offload_") {
        "up" => plain(u64::from(stats.link == LinkState::Up)),
        "installs_total" => plain(stats.installs),
        "removals_total" => plain(stats.removals),
        "lost_total" => plain(stats.lost),
        "entries_read_total" => plain(stats.entries_read),
        "idle_connections_total" => plain(stats.idle_connections),
        "updates_total" => plain(stats.updates),
        "batches_total" => plain(stats.batches),
        "retries_total" => plain(stats.retries),
        "failed_batches_total" => plain(stats.failed_batches),
        "resyncs_total" => plain(stats.resyncs),
        "orphans_total" => plain(stats.orphans),
        "connections" => labelled(
            text,
            name,
            of,
            "state",
            [
                ("in_hardware", stats.in_hardware),
                ("queued", stats.queued),
                ("installing", stats.installing),
                ("removing", stats.removing),
            ],
        ),
        "refused_total" => {
            let reasons = RefuseReason::ALL.iter().map(|reason| reason.as_str());
            labelled(text, name, of, "reason", reasons.zip(stats.refused));
        }
        "evicted_total" => {
            let reasons = EvictReason::ALL.iter().map(|reason| reason.as_str());
            labelled(text, name, of, "reason", reasons.zip(stats.evicted));
        }
        "table_entries" => {
            let entries = stats.tables.map(|table| table.entries);
            labelled(text, name, of, "table", TABLES.into_iter().zip(entries));
        }
        "table_entries_max" => {
            let limits = stats.tables.map(|table| table.limit);
            let limits = TABLES.into_iter().zip(limits);
            let known = limits.filter(|(_, limit)| *limit < u64::MAX);
            labelled(text, name, of, "table", known);
        }
        "latency_seconds" => {
            let latencies = &stats.latencies;
            for (operation, stages) in [
                ("install", &latencies.install),
                ("removal", &latencies.removal),
            ] {
                for (stage, summary) in by_stage(stages) {
                    histogram(text, of, operation, stage, summary);
                }
            }
            histogram(text, of, "install", "first_packet", &latencies.first_packet);
        }
        _ => {}
    }
}

const fn by_stage(stages: &StageLatencies) -> [(&str, &LatencySummary); 4] {
    [
        ("queued", &stages.queued),
        ("batched", &stages.batched),
        ("on_wire", &stages.on_wire),
        ("total", &stages.total),
    ]
}

fn labelled<'a>(
    text: &mut String,
    name: &str,
    of: &str,
    label: &str,
    samples: impl IntoIterator<Item = (&'a str, u64)>,
) {
    for (value, count) in samples {
        let _ = writeln!(text, "{name}{{{of},{label}=\"{value}\"}} {count}");
    }
}

fn histogram(text: &mut String, of: &str, operation: &str, stage: &str, summary: &LatencySummary) {
    let of = format!("{of},operation=\"{operation}\",stage=\"{stage}\"");
    let seconds = |ns: u64| ns as f64 / 1e9;
    for (bound, count) in BUCKETS_NS.iter().zip(summary.buckets) {
        let _ = writeln!(
            text,
            "{LATENCY}_bucket{{{of},le=\"{}\"}} {count}",
            seconds(*bound)
        );
    }
    let (count, sum) = (summary.count, seconds(summary.sum_ns));
    let _ = write!(
        text,
        "{LATENCY}_bucket{{{of},le=\"+Inf\"}} {count}\n{LATENCY}_sum{{{of}}} {sum}\n\
         {LATENCY}_count{{{of}}} {count}\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_samples_and_histograms_are_cumulative() {
        let mut stats = OffloadStats {
            link: LinkState::Up,
            installs: 7,
            ..OffloadStats::default()
        };
        stats.refused[RefuseReason::TableFull as usize] = 3;
        let total = &mut stats.latencies.removal.total;
        total.count = 5;
        total.sum_ns = 1_500_000_000;
        total.buckets = [2; BUCKETS_NS.len()];
        let mut text = String::new();
        let other = ("sw2".to_owned(), OffloadStats::default());
        write(&mut text, &[("sw1".to_owned(), stats), other]);
        for (name, kind, _) in METRICS {
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
            let sample = |line: &&str| line.starts_with(name);
            assert!(text.lines().any(|line| sample(&line)), "{name}: {text}");
        }
        let of = "switch=\"sw1\",operation=\"removal\",stage=\"total\"";
        for line in [
            "shunt_offload_up{switch=\"sw1\"} 1".to_owned(),
            "shunt_offload_up{switch=\"sw2\"} 0".to_owned(),
            "shunt_offload_installs_total{switch=\"sw1\"} 7".to_owned(),
            "shunt_offload_refused_total{switch=\"sw1\",reason=\"table_full\"} 3".to_owned(),
            format!("{LATENCY}_bucket{{{of},le=\"0.00005\"}} 2"),
            format!("{LATENCY}_bucket{{{of},le=\"+Inf\"}} 5"),
            format!("{LATENCY}_sum{{{of}}} 1.5"),
            format!("{LATENCY}_count{{{of}}} 5"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
