//! The engine against bmv2, beside what bmv2 takes of requests that were encoded before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use p4runtime::p4::v1::update::Type;

use super::{ENTRIES, Lab};
use crate::bmv2::{Bmv2, is_there};
use crate::report::{BenchError, Report, median};
use crate::switch_writes::client::{Writer, encoded};

/// Connections in hardware all the time; bmv2 reads back in quadratic time.
const LIVE: u64 = 20_000;
/// How long installs and removals go on.
const DURATION: Duration = Duration::from_secs(8);
/// Decided but unanswered, at most.
const AHEAD: u64 = 8 * 1024;
/// Entries that are written encoded before, and removed.
const ENCODED: u32 = 100_000;
/// Runs of each, one after the other.
const RUNS: usize = 3;

fn engine() -> Result<f64, BenchError> {
    let mut lab = Lab::on(Bmv2::start()?)?;
    lab.fill(LIVE)?;
    let before = lab.installed + lab.removed;
    let start = Instant::now();
    lab.run(|lab| {
        while lab.installing + lab.removing < AHEAD && lab.install() && lab.remove() {}
        Ok(start.elapsed() >= DURATION)
    })?;
    let done = lab.installed + lab.removed - before;
    let rate = (done * ENTRIES) as f64 / start.elapsed().as_secs_f64();
    lab.finish()?;
    Ok(rate)
}

/// Half of it is inserted, half removed.
fn alone() -> Result<f64, BenchError> {
    let switch = Bmv2::start()?;
    let runtime = tokio::runtime::Runtime::new().map_err(BenchError::failed)?;
    let writer = runtime.block_on(Writer::connect(&switch.address))?;
    let inserts = Arc::new(encoded(ENCODED, Type::Insert)?);
    let removals = Arc::new(encoded(ENCODED, Type::Delete)?);
    let start = Instant::now();
    for requests in [inserts, removals] {
        runtime.block_on(writer.send(&requests))?;
    }
    Ok(f64::from(2 * ENCODED) / start.elapsed().as_secs_f64())
}

/// Runs the benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    if !is_there() {
        return Err(BenchError::Skipped(
            "there is no bmv2 to measure".to_owned(),
        ));
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(engine()?);
        bare.push(alone()?);
    }
    let (ours, bare) = (median(ours), median(bare));
    report.metric("the engine into bmv2", ours, "updates/s");
    report.metric("encoded before, into bmv2", bare, "updates/s");
    report.metric("share of what bmv2 can take", 100.0 * ours / bare, "%");
    Ok(())
}
