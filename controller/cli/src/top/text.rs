//! Rates as text, for `--once`.

use std::fmt::Write as _;

use super::rates::{Rate, Rates, buckets, quantile};
use super::words::{at_most, percent, short, stage};
use crate::flows::tuple;
use crate::output::{Output, duration_ms};

pub(super) fn text(rates: &Rates, out: &Output) -> String {
    let mut text = String::new();
    let state = match rates.converged {
        true => "converged",
        false => "NOT converged",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{state}, up {}, rates over {}",
        duration_ms(rates.at_ms),
        duration_ms(rates.interval_ms)
    );
    for problem in &rates.problems {
        let _ = writeln!(text, "  problem: {problem}");
    }
    if !rates.unread.is_empty() {
        let _ = writeln!(text, "  counters are not known: {}", rates.unread);
    }
    let row = |name: &str, rate: Rate| {
        vec![
            name.to_owned(),
            short(rate.packets_per_second),
            short(rate.bits_per_second),
        ]
    };
    let traffic = [
        row("hardware", rates.hardware),
        row("software", rates.software),
        row("received", rates.received),
    ];
    text.push('\n');
    text += &out.table(&["traffic", "p/s", "bit/s"], traffic.into_iter());
    let _ = write!(
        text,
        "\nhit ratio    {}\nconnections  {} of {}; new {}/s, ended {}/s\n\
         offloaded    {}, {} on their way; installed {}/s, removed {}/s, refused {}/s, evicted {}/s\n",
        percent(rates.hit_ratio),
        rates.connections,
        rates.connections_max,
        short(rates.created_per_second),
        short(rates.ended_per_second),
        rates.offloaded,
        rates.pending,
        short(rates.installs_per_second),
        short(rates.removals_per_second),
        short(rates.refused_per_second),
        short(rates.evicted_per_second),
    );
    text.push('\n');
    text += &out.table(
        &["table", "entries", "size"],
        rates.tables.iter().map(|table| {
            let size = match table.size {
                0 | u64::MAX => "not known".to_owned(),
                size => size.to_string(),
            };
            vec![table.table.clone(), table.entries.to_string(), size]
        }),
    );
    text.push('\n');
    text += &out.table(
        &["install", "count", "p50", "p90", "p99", "p99.9"],
        rates.install.iter().map(|of| {
            let all = buckets(of, None);
            let last = all.iter().rev().find_map(|(end, _)| *end).unwrap_or(0);
            let quantiles = [500, 900, 990, 999].map(|permille| {
                quantile(&all, permille).map_or_else(|| "-".to_owned(), |end| at_most(end, last))
            });
            let head = [stage(&of.stage).to_owned(), of.count.to_string()];
            head.into_iter().chain(quantiles).collect()
        }),
    );
    if !rates.drops.is_empty() {
        text.push('\n');
        text += &out.table(
            &["drops", "reason", "p/s", "total"],
            rates.drops.iter().map(|drops| {
                vec![
                    drops.r#where.clone(),
                    drops.reason.clone(),
                    short(drops.packets_per_second),
                    drops.packets.to_string(),
                ]
            }),
        );
    }
    text.push('\n');
    text += &out.table(
        &[
            "vpc",
            "p/s in",
            "bit/s in",
            "p/s out",
            "bit/s out",
            "drops/s",
        ],
        rates.vpcs.iter().map(|vpc| {
            vec![
                vpc.name.clone(),
                short(vpc.received.packets_per_second),
                short(vpc.received.bits_per_second),
                short(vpc.sent.packets_per_second),
                short(vpc.sent.bits_per_second),
                short(vpc.drops_per_second),
            ]
        }),
    );
    if !rates.flows.is_empty() {
        text.push('\n');
        text += &out.table(
            &[
                "vpc", "to", "original", "reply", "in", "p/s", "bit/s", "age",
            ],
            rates.flows.iter().map(|flow| {
                vec![
                    flow.vpc.clone(),
                    flow.to_vpc.clone(),
                    tuple(flow.original.as_ref(), true),
                    tuple(flow.reply.as_ref(), false),
                    flow.offload.clone(),
                    short(flow.packets_per_second),
                    short(flow.bits_per_second),
                    duration_ms(flow.age_ms),
                ]
            }),
        );
    }
    text
}
