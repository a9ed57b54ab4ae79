//! Two samples into rates.

use serde::Serialize;
use shunt_api::v1::{Histogram, TableOccupancy, TopFlow, TopSample, Traffic};

/// Packets and bits a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) packets_per_second: f64,
    pub(super) bits_per_second: f64,
}

/// What was dropped, for a reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Drops {
    /// "switch" or "software".
    pub(super) r#where: String,
    pub(super) reason: String,
    pub(super) packets_per_second: f64,
    /// In all.
    pub(super) packets: u64,
}

/// What a VPC's interfaces have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Vpc {
    pub(super) name: String,
    pub(super) received: Rate,
    pub(super) sent: Rate,
    pub(super) drops_per_second: f64,
}

/// Everything that is shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Of the daemon's start, milliseconds; and how long the rates are taken over.
    pub(super) at_ms: u64,
    pub(super) interval_ms: u64,
    pub(super) converged: bool,
    pub(super) problems: Vec<String>,
    /// Why the switch's counters are not known; empty: they are.
    pub(super) unread: String,
    pub(super) hardware: Rate,
    pub(super) software: Rate,
    pub(super) received: Rate,
    /// The hardware's share of the packets forwarded, 0 to 1; none: nothing was, or is known.
    pub(super) hit_ratio: Option<f64>,
    pub(super) connections: u64,
    pub(super) connections_max: u64,
    pub(super) created_per_second: f64,
    pub(super) ended_per_second: f64,
    pub(super) offloaded: u64,
    pub(super) pending: u64,
    pub(super) installs_per_second: f64,
    pub(super) removals_per_second: f64,
    pub(super) refused_per_second: f64,
    pub(super) evicted_per_second: f64,
    pub(super) tables: Vec<TableOccupancy>,
    pub(super) drops: Vec<Drops>,
    /// Since the daemon started.
    pub(super) install: Vec<Histogram>,
    pub(super) vpcs: Vec<Vpc>,
    pub(super) flows: Vec<TopFlow>,
}

impl Rates {
    /// None: the later one is of another daemon than the earlier one.
    pub(super) fn between(before: &TopSample, now: &TopSample) -> Option<Self> {
        let interval_ms = now.at_ms.checked_sub(before.at_ms).filter(|ms| *ms > 0)?;
        let seconds = interval_ms as f64 / 1e3;
        let per_second = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        let rate = |before: Option<Traffic>, now: Option<Traffic>| {
            let (before, now) = (before.unwrap_or_default(), now.unwrap_or_default());
            Rate {
                packets_per_second: per_second(before.packets, now.packets),
                bits_per_second: per_second(before.bytes, now.bytes) * 8.0,
            }
        };
        let counted = before.unread.is_empty() && now.unread.is_empty();
        let of_switch = |before, now| match counted {
            true => rate(before, now),
            false => Rate::default(),
        };
        let hardware = of_switch(before.hardware, now.hardware);
        let software = rate(before.software, now.software);
        let forwarded = hardware.packets_per_second + software.packets_per_second;
        let drops = now.drops.iter().map(|drops| {
            let same = |other: &&shunt_api::v1::TopDrops| {
                (&other.r#where, &other.reason) == (&drops.r#where, &drops.reason)
            };
            let packets = before.drops.iter().find(same).map_or(0, |old| old.packets);
            let known = counted || drops.r#where != "switch";
            Drops {
                r#where: drops.r#where.clone(),
                reason: drops.reason.clone(),
                packets_per_second: match known {
                    true => per_second(packets, drops.packets),
                    false => 0.0,
                },
                packets: drops.packets,
            }
        });
        let vpcs = now.vpcs.iter().map(|vpc| {
            let old = before.vpcs.iter().find(|old| old.name == vpc.name);
            let old = old.cloned().unwrap_or_else(|| vpc.clone());
            Vpc {
                name: vpc.name.clone(),
                received: of_switch(old.received, vpc.received),
                sent: of_switch(old.sent, vpc.sent),
                drops_per_second: per_second(old.drops, vpc.drops),
            }
        });
        Some(Self {
            at_ms: now.at_ms,
            interval_ms,
            converged: now.converged,
            problems: now.problems.clone(),
            unread: now.unread.clone(),
            hardware,
            software,
            received: of_switch(before.received, now.received),
            hit_ratio: (counted && forwarded > 0.0)
                .then(|| hardware.packets_per_second / forwarded),
            connections: now.connections,
            connections_max: now.connections_max,
            created_per_second: per_second(before.connections_created, now.connections_created),
            ended_per_second: per_second(before.connections_ended, now.connections_ended),
            offloaded: now.offloaded,
            pending: now.pending,
            installs_per_second: per_second(before.installs, now.installs),
            removals_per_second: per_second(before.removals, now.removals),
            refused_per_second: per_second(before.refused, now.refused),
            evicted_per_second: per_second(before.evicted, now.evicted),
            tables: now.tables.clone(),
            drops: drops.collect(),
            install: now.install.clone(),
            vpcs: vpcs.collect(),
            flows: now.flows.clone(),
        })
    }

    /// Packets dropped a second, for whatever reason.
    pub(super) fn drops_per_second(&self) -> f64 {
        self.drops
            .iter()
            .map(|drops| drops.packets_per_second)
            .sum()
    }
}

/// How many took how long: the upper end of each bucket, microseconds (none: longer than all),
/// and how many are in it that were not in the earlier one.
pub(super) fn buckets(now: &Histogram, before: Option<&Histogram>) -> Vec<(Option<u64>, u64)> {
    let old = |at: usize| {
        let bucket = before.and_then(|before| before.buckets.get(at));
        bucket.map_or(0, |bucket| bucket.count)
    };
    let mut below = 0;
    let mut all = Vec::with_capacity(now.buckets.len() + 1);
    for (at, bucket) in now.buckets.iter().enumerate() {
        let count = bucket.count.saturating_sub(old(at));
        all.push((Some(bucket.le_us), count.saturating_sub(below)));
        below = below.max(count);
    }
    let count = now
        .count
        .saturating_sub(before.map_or(0, |before| before.count));
    all.push((None, count.saturating_sub(below)));
    all
}

/// The upper end of the bucket that has the quantile; outer none: there is nothing, inner none:
/// it took longer than the last bucket.
pub(super) fn quantile(buckets: &[(Option<u64>, u64)], permille: u64) -> Option<Option<u64>> {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let rank = (all * permille).div_ceil(1000);
    let mut seen = 0;
    let found = buckets.iter().find(|(_, count)| {
        seen += count;
        rank > 0 && seen >= rank
    });
    found.map(|(end, _)| *end)
}

#[cfg(test)]
mod tests {
    use shunt_api::v1::{Bucket, TopDrops, TopVpc};

    use super::*;

    fn sample(at_ms: u64, packets: u64, unread: &str) -> TopSample {
        let traffic = |packets| {
            Some(Traffic {
                packets,
                bytes: packets * 100,
            })
        };
        let drops = |place: &str| TopDrops {
            r#where: place.to_owned(),
            reason: "meter".to_owned(),
            packets,
        };
        TopSample {
            at_ms,
            hardware: traffic(packets * 3),
            software: traffic(packets),
            unread: unread.to_owned(),
            connections_created: packets,
            drops: vec![drops("switch"), drops("software")],
            vpcs: vec![TopVpc {
                name: "red".to_owned(),
                received: traffic(packets),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn rates_are_differences_by_time() {
        let rates = Rates::between(&sample(1_000, 100, ""), &sample(3_000, 300, "")).unwrap();
        assert_eq!(rates.interval_ms, 2_000);
        assert_eq!(rates.software.packets_per_second, 100.0);
        assert_eq!(rates.software.bits_per_second, 80_000.0);
        assert_eq!(rates.hardware.packets_per_second, 300.0);
        assert_eq!(rates.hit_ratio, Some(0.75));
        assert_eq!(rates.created_per_second, 100.0);
        assert_eq!(rates.drops_per_second(), 200.0);
        assert_eq!(rates.vpcs[0].received.packets_per_second, 100.0);
    }

    #[test]
    fn what_is_not_known_is_no_rate() {
        for (before, now) in [("away", ""), ("", "away")] {
            let rates = Rates::between(&sample(0, 0, before), &sample(1_000, 50, now)).unwrap();
            assert_eq!(rates.hardware, Rate::default());
            assert_eq!(rates.vpcs[0].received, Rate::default());
            assert_eq!(rates.hit_ratio, None);
            assert_eq!(rates.drops[0].packets_per_second, 0.0);
            assert_eq!(rates.drops[1].packets_per_second, 50.0);
        }
        // A switch that was restarted counts anew.
        let rates = Rates::between(&sample(0, 100, ""), &sample(1_000, 1, "")).unwrap();
        assert_eq!(rates.hardware, Rate::default());
        assert_eq!(rates.hit_ratio, None);
        // So does another daemon, whose time is its own.
        assert_eq!(
            Rates::between(&sample(9_000, 1, ""), &sample(1_000, 2, "")),
            None
        );
        assert_eq!(Rates::between(&sample(1, 1, ""), &sample(1, 2, "")), None);
    }

    fn histogram(counts: [u64; 3], count: u64) -> Histogram {
        let bucket = |(le_us, count)| Bucket { le_us, count };
        Histogram {
            stage: "total".to_owned(),
            buckets: [10, 100, 1_000]
                .into_iter()
                .zip(counts)
                .map(bucket)
                .collect(),
            count,
        }
    }

    #[test]
    fn buckets_are_no_longer_cumulative() {
        let now = histogram([1, 4, 9], 10);
        let all = buckets(&now, None);
        assert_eq!(
            all,
            [(Some(10), 1), (Some(100), 3), (Some(1_000), 5), (None, 1)]
        );
        assert_eq!(quantile(&all, 500), Some(Some(1_000)));
        assert_eq!(quantile(&all, 100), Some(Some(10)));
        assert_eq!(quantile(&all, 999), Some(None));
        let since = buckets(&now, Some(&histogram([1, 3, 3], 3)));
        assert_eq!(
            since,
            [(Some(10), 0), (Some(100), 1), (Some(1_000), 5), (None, 1)]
        );
        assert_eq!(quantile(&buckets(&now, Some(&now)), 500), None);
    }
}
