//! Flow entries a second by way of the typed table and the client: from plain values of
//! `shunt-p4` through encoding, batching and error handling, beside what requests reach that
//! were encoded before the clock started. One channel, four requests of 1,000 in flight.

use std::sync::Arc;
use std::time::Instant;

use p4runtime::p4::v1::update::Type;
use shunt_p4::tables::FlowUpdate;
use tokio::runtime::Runtime;

use crate::bmv2::{self, Bmv2};
use crate::gateway;
use crate::report::{BenchError, Report, median};
use crate::switch_writes::client::{BATCH, Writer, encoded};
use crate::switch_writes::server::Server;

/// Entries into the embedded switch.
const ENTRIES: u32 = 1_000_000;
/// Entries into bmv2, which reads back in quadratic time.
const FEWER: u32 = 100_000;
/// Runs, each with a fresh switch.
const RUNS: usize = 3;

/// Entries a second: typed, and encoded before.
struct Run {
    typed: f64,
    encoded: f64,
}

/// Batches that tasks share without a copy.
type Batches = Arc<Vec<Arc<Vec<FlowUpdate>>>>;

fn typed(count: u32, kind: Type) -> Result<Batches, BenchError> {
    let one = |number| {
        let update = FlowUpdate::new(kind, gateway::flow(number)?);
        update.ok_or_else(|| BenchError::failed("the flow has two address families"))
    };
    let batch = |first: u32| {
        let batch = (first..(first + BATCH).min(count + 1)).map(one);
        batch.collect::<Result<_, _>>().map(Arc::new)
    };
    let batches = (1..=count).step_by(BATCH as usize).map(batch);
    Ok(Arc::new(batches.collect::<Result<_, _>>()?))
}

/// Inserts all typed, checks that all are there, removes all; then the same encoded before.
fn measure(runtime: &Runtime, address: &str, count: u32) -> Result<Run, BenchError> {
    let writer = runtime.block_on(Writer::connect(address))?;
    let (inserts, removes) = (typed(count, Type::Insert)?, typed(count, Type::Delete)?);
    let before = Arc::new(encoded(count, Type::Insert)?);
    let typed = runtime.block_on(writer.write_flows(&inserts))? * f64::from(BATCH);
    let (found, _) = runtime.block_on(writer.read())?;
    // Flow 0 is always there.
    if found != count as usize + 1 {
        return Err(BenchError::failed(format!(
            "{found} entries of {count} were inserted"
        )));
    }
    runtime.block_on(writer.write_flows(&removes))?;
    let encoded = runtime.block_on(writer.send(&before))? * f64::from(BATCH);
    Ok(Run { typed, encoded })
}

fn figures(report: &mut Report, what: &str, runs: &[Run]) {
    let of = |pick: fn(&Run) -> f64| median(runs.iter().map(pick).collect());
    let (typed, encoded) = (of(|run| run.typed), of(|run| run.encoded));
    report.metric(format!("{what}: typed flows"), typed, "entries/s");
    report.metric(format!("{what}: encoded before"), encoded, "entries/s");
    report.metric(
        format!("{what}: typed of encoded before"),
        100.0 * typed / encoded,
        "%",
    );
}

/// How fast entries become bytes, with nobody to send them to.
fn encoding(report: &mut Report) -> Result<(), BenchError> {
    use p4runtime::wire::{BytesMut, WireUpdate as _};
    let batches = typed(ENTRIES, Type::Insert)?;
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let mut request = BytesMut::with_capacity(256 * BATCH as usize);
        let start = Instant::now();
        for batch in batches.iter() {
            request.clear();
            batch
                .iter()
                .for_each(|update| update.append_to(&mut request));
        }
        rates.push(f64::from(ENTRIES) / start.elapsed().as_secs_f64());
    }
    report.metric("encoding alone, one core", median(rates), "entries/s");
    Ok(())
}

/// Runs the benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    let runtime = Runtime::new().map_err(BenchError::failed)?;
    let embedded = |_| {
        let server = Server::start()?;
        measure(&runtime, &server.address, ENTRIES)
    };
    let runs = (0..RUNS).map(embedded).collect::<Result<Vec<_>, _>>()?;
    figures(report, "embedded switch, 1 M", &runs);
    encoding(report)?;
    if !bmv2::is_there() {
        return Ok(());
    }
    let bmv2 = |_| {
        let switch = Bmv2::start()?;
        measure(&runtime, &switch.address, FEWER)
    };
    let runs = (0..RUNS).map(bmv2).collect::<Result<Vec<_>, _>>()?;
    figures(report, "bmv2, 100 K", &runs);
    Ok(())
}
