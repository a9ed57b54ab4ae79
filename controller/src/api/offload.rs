//! What the offload engine does, for `shunt offload` and `shunt status`.

use std::time::Duration;

use shunt_api::v1;
use shunt_offload::{EvictReason, OffloadStats, RefuseReason, TableUse, Trouble, TroubleKind};

use super::convert::{self, count};
use crate::config::Config;

pub(super) fn state(config: &Config, stats: &OffloadStats) -> v1::GetOffloadResponse {
    let refusals = RefuseReason::ALL.iter().zip(stats.refused);
    let evictions = EvictReason::ALL.iter().zip(stats.evicted);
    v1::GetOffloadResponse {
        restart: None,
        enabled: config.policy.offload.enabled,
        connections_offloaded: stats.in_hardware,
        connections_pending: stats.queued + stats.installing,
        connections_installed: stats.installs,
        connections_refused: stats.refused.iter().sum(),
        connections_removed: stats.removals,
        connections_lost: stats.lost,
        connections_evicted: stats.evicted.iter().sum(),
        refusals: refusals
            .map(|(reason, value)| count(reason.as_str(), value))
            .collect(),
        evictions: evictions
            .map(|(reason, value)| count(reason.as_str(), value))
            .collect(),
        counts: [
            ("batches", stats.batches),
            ("updates", stats.updates),
            ("retries", stats.retries),
            ("failed_batches", stats.failed_batches),
            ("resyncs", stats.resyncs),
            ("orphans_removed", stats.orphans),
            ("idle_reports", stats.idle_reports),
            ("idle_connections", stats.idle_connections),
            ("eviction_spared", stats.spared),
            ("sweeps", stats.sweeps),
            ("entries_read", stats.entries_read),
            ("failed_reads", stats.failed_reads),
        ]
        .map(|(name, value)| count(name, value))
        .to_vec(),
        latency: Some(convert::latencies(&stats.latencies)),
        tables: tables(stats),
        shares: stats
            .shares
            .iter()
            .map(|share| v1::OffloadShare {
                vpc: config.vpc_name(share.vpc),
                connections: share.connections,
                max: share.max,
            })
            .collect(),
        problems: problems(stats),
    }
}

fn tables(stats: &OffloadStats) -> Vec<v1::TableOccupancy> {
    let table = |(name, of): (&str, TableUse)| v1::TableOccupancy {
        table: name.to_owned(),
        entries: of.entries,
        size: of.limit,
    };
    ["flow4", "flow6"]
        .into_iter()
        .zip(stats.tables)
        .map(table)
        .collect()
}

/// Why connections stay in software that would be in hardware, and since when: a line each.
pub(super) fn problems(stats: &OffloadStats) -> Vec<String> {
    let line = |trouble: &Trouble| line(trouble, stats);
    stats.troubles.iter().map(line).collect()
}

fn line(trouble: &Trouble, stats: &OffloadStats) -> String {
    let seconds = Duration::from_secs(trouble.lasts.as_secs());
    let lasts = humantime::format_duration(seconds);
    let because = stats.last_error.as_deref();
    let because = because.unwrap_or("it does not answer");
    let [flow4, flow6] = stats.tables;
    let full = |name: &str, table: TableUse| {
        format!(
            "the switch's table {name} has been full for {lasts}: of {} entries {} are taken; \
             other connections stay in software",
            table.limit, table.entries
        )
    };
    match trouble.kind {
        TroubleKind::SwitchAway => {
            format!("offloads have waited for the switch for {lasts}: {because}")
        }
        TroubleKind::Refusing => format!(
            "new connections stay in software: the switch has taken no flows for {lasts}: {because}"
        ),
        TroubleKind::Flow4Full => full("flow4", flow4),
        TroubleKind::Flow6Full => full("flow6", flow6),
        TroubleKind::QueueFull => format!(
            "connections have been offered faster than the switch takes them for {lasts}: some \
             stay in software for longer"
        ),
        TroubleKind::CountersUnread => format!(
            "the switch has not given its counters for {lasts}: those of flows are old, and no \
             idle one makes room for others"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_why_and_since_when() {
        let mut stats = OffloadStats {
            last_error: Some("connection refused".to_owned()),
            ..OffloadStats::default()
        };
        stats.tables[0] = TableUse {
            entries: 998,
            limit: 1_000,
        };
        let trouble = |kind| Trouble {
            kind,
            lasts: Duration::from_millis(72_900),
        };
        stats.troubles = vec![
            trouble(TroubleKind::Refusing),
            trouble(TroubleKind::Flow4Full),
        ];
        assert_eq!(
            problems(&stats),
            [
                "new connections stay in software: the switch has taken no flows for 1m 12s: \
                 connection refused",
                "the switch's table flow4 has been full for 1m 12s: of 1000 entries 998 are \
                 taken; other connections stay in software",
            ]
        );
    }
}
