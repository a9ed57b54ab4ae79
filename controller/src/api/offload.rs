//! What the offload engine does, for `shunt offload` and `shunt status`.

use std::time::Duration;

use shunt_api::v1;
use shunt_offload::{EvictReason, OffloadStats, RefuseReason, TableUse, Trouble, TroubleKind};

use super::convert::{self, count};
use crate::config::Config;

/// Each engine's numbers, with its switch's name.
pub(super) type Engines = Vec<(String, OffloadStats)>;

/// `not_made`: offers that were not made, because the connection lies across switches, or is one
/// of two between hosts inside.
pub(super) fn state(
    config: &Config,
    engines: &Engines,
    not_made: [u64; 2],
) -> v1::GetOffloadResponse {
    let [across, hairpins] = not_made;
    let all = engines.iter().map(|(_, stats)| stats);
    let sum = |of: fn(&OffloadStats) -> u64| -> u64 { all.clone().map(of).sum() };
    let refusals = RefuseReason::ALL.iter().enumerate().map(|(at, reason)| {
        let each = all.clone().filter_map(|stats| stats.refused.get(at));
        count(reason.as_str(), each.sum())
    });
    let refusals = refusals.chain([count("across_switches", across), count("hairpin", hairpins)]);
    let evictions = EvictReason::ALL.iter().enumerate().map(|(at, reason)| {
        let each = all.clone().filter_map(|stats| stats.evicted.get(at));
        count(reason.as_str(), each.sum())
    });
    let switches: Vec<_> = engines
        .iter()
        .map(|(name, stats)| switch(config, name, stats))
        .collect();
    v1::GetOffloadResponse {
        restart: None,
        enabled: config.policy.offload.enabled,
        connections_offloaded: sum(|stats| stats.in_hardware),
        connections_pending: sum(|stats| stats.queued + stats.installing),
        connections_installed: sum(|stats| stats.installs),
        connections_refused: sum(refused) + across + hairpins,
        connections_removed: sum(|stats| stats.removals),
        connections_lost: sum(|stats| stats.lost),
        connections_evicted: sum(|stats| stats.evicted.iter().sum()),
        refusals: refusals.collect(),
        evictions: evictions.collect(),
        counts: [
            ("batches", sum(|stats| stats.batches)),
            ("updates", sum(|stats| stats.updates)),
            ("retries", sum(|stats| stats.retries)),
            ("failed_batches", sum(|stats| stats.failed_batches)),
            ("resyncs", sum(|stats| stats.resyncs)),
            ("orphans_removed", sum(|stats| stats.orphans)),
            ("idle_reports", sum(|stats| stats.idle_reports)),
            ("idle_connections", sum(|stats| stats.idle_connections)),
            ("eviction_spared", sum(|stats| stats.spared)),
            ("sweeps", sum(|stats| stats.sweeps)),
            ("entries_read", sum(|stats| stats.entries_read)),
            ("failed_reads", sum(|stats| stats.failed_reads)),
        ]
        .map(|(name, value)| count(name, value))
        .to_vec(),
        latency: match switches.as_slice() {
            [only] => only.latency,
            _ => None,
        },
        tables: together(
            switches.iter().map(|switch| &switch.tables),
            |sum, table| {
                sum.entries = sum.entries.saturating_add(table.entries);
                sum.size = sum.size.saturating_add(table.size);
            },
        ),
        shares: together(
            switches.iter().map(|switch| &switch.shares),
            |sum, share| {
                sum.connections = sum.connections.saturating_add(share.connections);
                sum.max = sum.max.saturating_add(share.max);
            },
        ),
        problems: problems(engines),
        switches,
    }
}

fn refused(stats: &OffloadStats) -> u64 {
    stats.refused.iter().sum()
}

fn switch(config: &Config, name: &str, stats: &OffloadStats) -> v1::SwitchOffload {
    let shares = stats.shares.iter();
    v1::SwitchOffload {
        switch: name.to_owned(),
        state: stats.link.as_str().to_owned(),
        connections_offloaded: stats.in_hardware,
        connections_pending: stats.queued + stats.installing,
        connections_installed: stats.installs,
        connections_refused: refused(stats),
        connections_evicted: stats.evicted.iter().sum(),
        connections_removed: stats.removals,
        connections_lost: stats.lost,
        latency: Some(convert::latencies(&stats.latencies)),
        tables: tables(stats),
        shares: shares
            .map(|share| v1::OffloadShare {
                vpc: config.vpc_name(share.vpc),
                connections: share.connections,
                max: share.max,
            })
            .collect(),
    }
}

/// Rows of all switches, each line of them added up: all have the same ones.
fn together<'a, T: Clone + 'a>(
    mut each: impl Iterator<Item = &'a Vec<T>>,
    add: impl Fn(&mut T, &T),
) -> Vec<T> {
    let mut sums = each.next().cloned().unwrap_or_default();
    for rows in each {
        for (sum, row) in sums.iter_mut().zip(rows) {
            add(sum, row);
        }
    }
    sums
}

pub(super) fn tables(stats: &OffloadStats) -> Vec<v1::TableOccupancy> {
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
pub(super) fn problems(engines: &Engines) -> Vec<String> {
    let several = engines.len() > 1;
    let lines = engines.iter().flat_map(|(name, stats)| {
        let of = move |trouble: &Trouble| match several {
            true => format!("switch {name}: {}", line(trouble, stats)),
            false => line(trouble, stats),
        };
        stats.troubles.iter().map(of)
    });
    lines.collect()
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
        let mut engines = vec![("sw1".to_owned(), stats)];
        assert_eq!(
            problems(&engines),
            [
                "new connections stay in software: the switch has taken no flows for 1m 12s: \
                 connection refused",
                "the switch's table flow4 has been full for 1m 12s: of 1000 entries 998 are \
                 taken; other connections stay in software",
            ]
        );
        engines.push(("sw2".to_owned(), OffloadStats::default()));
        let lines = problems(&engines);
        assert!(
            lines.len() == 2 && lines[0].starts_with("switch sw1: new connections stay"),
            "{lines:?}"
        );
    }

    #[test]
    fn switches_add_up_and_are_told_apart() {
        let config = crate::config::validate(&crate::config::switch_tests::two_switches()).unwrap();
        let engine = |installs: u64| {
            let mut stats = OffloadStats {
                installs,
                ..OffloadStats::default()
            };
            stats.refused[RefuseReason::TableFull as usize] = 1;
            stats.tables[0] = TableUse {
                entries: installs,
                limit: 100,
            };
            stats
        };
        let engines = vec![("sw1".to_owned(), engine(3)), ("sw2".to_owned(), engine(4))];
        let told = state(&config, &engines, [3, 2]);
        assert_eq!(
            (told.connections_installed, told.connections_refused),
            (7, 7)
        );
        let count = |name: &str| {
            let found = told.refusals.iter().find(|count| count.name == name);
            found.map(|count| count.value)
        };
        assert_eq!(
            ["table_full", "across_switches", "hairpin"].map(count),
            [2, 3, 2].map(Some)
        );
        assert_eq!((told.tables[0].entries, told.tables[0].size), (7, 200));
        assert_eq!(told.latency, None);
        let each: Vec<_> = told
            .switches
            .iter()
            .map(|one| {
                (
                    one.switch.as_str(),
                    one.connections_installed,
                    one.latency.is_some(),
                )
            })
            .collect();
        assert_eq!(each, [("sw1", 3, true), ("sw2", 4, true)]);
        assert!(
            state(&config, &engines[..1].to_vec(), [0; 2])
                .latency
                .is_some()
        );
    }
}
