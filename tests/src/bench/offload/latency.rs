//! Decision to acknowledgement, at a steady rate of installs and removals.

use std::time::{Duration, Instant};

use shunt_offload::LatencySummary;

use super::{ENTRIES, Lab};
use crate::report::{BenchError, Report};

/// Entry updates a second.
const RATES: [u64; 3] = [10_000, 100_000, 300_000];
/// How long each.
const DURATION: Duration = Duration::from_secs(10);
/// How long a connection is in hardware.
const LIFE: Duration = Duration::from_secs(1);

fn figures(report: &mut Report, what: &str, latency: &LatencySummary) {
    for (name, ns) in [
        ("p99", latency.p99_ns),
        ("p50", latency.p50_ns),
        ("p99.9", latency.p999_ns),
        ("worst", latency.max_ns),
    ] {
        report.metric(format!("{what}: {name}"), ns as f64 / 1000.0, "µs");
    }
}

fn measure(report: &mut Report, rate: u64) -> Result<(), BenchError> {
    let mut lab = Lab::new()?;
    let start = Instant::now();
    // One connection in and one out are so many updates.
    let per_second = (rate / (2 * ENTRIES)) as f64;
    let (mut came, mut left) = (0, 0);
    lab.run(|lab| {
        let elapsed = start.elapsed();
        let due = (elapsed.as_secs_f64() * per_second) as u64;
        while came < due && lab.install() {
            came += 1;
        }
        let due = (elapsed.saturating_sub(LIFE).as_secs_f64() * per_second) as u64;
        while left < due && lab.remove() {
            left += 1;
        }
        Ok(elapsed >= LIFE + DURATION)
    })?;
    lab.run(|lab| Ok(lab.installing + lab.removing == 0))?;
    let elapsed = start.elapsed().as_secs_f64();
    let latencies = lab.stats()?.latencies;
    lab.finish()?;
    // While only installs are due, half the rate is.
    let reached = (lab.installed + lab.removed) * ENTRIES;
    let wanted = rate as f64 * (DURATION + LIFE / 2).as_secs_f64();
    let at = format!("at {} K updates/s", rate / 1000);
    figures(report, &at, &latencies.install.total);
    figures(
        report,
        &format!("{at}, decided to taken from the ring"),
        &latencies.install.queued,
    );
    figures(report, &format!("{at}, removal"), &latencies.removal.total);
    let share = 100.0 * reached as f64 / wanted;
    report.metric(format!("{at}: done of what was due"), share, "%");
    let late = elapsed - (LIFE + DURATION).as_secs_f64();
    report.metric(
        format!("{at}: last one behind its time"),
        1000.0 * late,
        "ms",
    );
    Ok(())
}

/// Runs the benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    RATES.iter().try_for_each(|rate| measure(report, *rate))
}
