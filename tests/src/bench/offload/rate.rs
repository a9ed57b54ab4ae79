//! Installs and removals, half and half, with a million entries live.

use std::time::{Duration, Instant};

use super::{ENTRIES, Lab, cpu_time};
use crate::report::{BenchError, Report, median};

/// Connections in hardware all the time.
const LIVE: u64 = 500_000;
/// How long.
const DURATION: Duration = Duration::from_secs(30);
/// The rate is said for each such part, to see whether it holds.
const PART: Duration = Duration::from_secs(1);
/// Decided but unanswered, at most: the worker is not to run away from the engine.
const AHEAD: u64 = 16 * 1024;

/// Runs the benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    let mut lab = Lab::new()?;
    let start = Instant::now();
    lab.fill(LIVE)?;
    let filled = (ENTRIES * LIVE) as f64 / start.elapsed().as_secs_f64();

    let (installed, removed) = (lab.installed, lab.removed);
    let (own, switch) = (std::process::id(), lab.switch.id());
    let before = (cpu_time(own)?, cpu_time(switch)?);
    let batches = lab.stats()?.batches;
    let start = Instant::now();
    let mut parts = Vec::new();
    let mut part = (start, 0);
    lab.run(|lab| {
        let now = Instant::now();
        let done = lab.installed - installed + lab.removed - removed;
        if now - part.0 >= PART {
            let rate = (done - part.1) as f64 / (now - part.0).as_secs_f64();
            parts.push(rate * ENTRIES as f64);
            part = (now, done);
        }
        while lab.installing + lab.removing < AHEAD && lab.install() && lab.remove() {}
        Ok(now - start >= DURATION)
    })?;
    let elapsed = start.elapsed().as_secs_f64();
    let after = (cpu_time(own)?, cpu_time(switch)?);
    let done = lab.installed - installed + lab.removed - removed;
    let stats = lab.stats()?;
    lab.finish()?;

    let updates = (done * ENTRIES) as f64;
    report.metric("entry updates, 1 M live", updates / elapsed, "updates/s");
    report.metric("median second", median(parts.clone()), "updates/s");
    let worst = parts.into_iter().fold(f64::INFINITY, f64::min);
    report.metric("worst second", worst, "updates/s");
    report.metric("filling the table", filled, "updates/s");
    let size = updates / (stats.batches - batches).max(1) as f64;
    report.metric("updates in a batch", size, "updates");
    let share = |from: Duration, to: Duration| 100.0 * (to - from).as_secs_f64() / elapsed;
    report.metric("engine and worker", share(before.0, after.0), "% of a core");
    report.metric("switch", share(before.1, after.1), "% of a core");
    let acknowledged = stats.latencies.install.total;
    for (name, ns) in [
        ("p50", acknowledged.p50_ns),
        ("p99", acknowledged.p99_ns),
        ("p99.9", acknowledged.p999_ns),
    ] {
        let name = format!("install, decision to acknowledged under that load: {name}");
        report.metric(name, ns as f64 / 1000.0, "µs");
    }
    Ok(())
}
