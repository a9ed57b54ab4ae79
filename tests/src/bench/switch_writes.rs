//! Flow entries a second: one client, one gRPC channel, batches of 1,000, four requests in
//! flight, client and server on this machine in a process each, packets flowing all the while.
//!
//! The requests are encoded before the clock starts, as they were when bmv2 was measured; the
//! `typed` figures are those of the client library, which encodes them.

pub(crate) mod client;
pub(crate) mod server;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{BATCH, Writer, encoded, typed};
use p4runtime::p4::v1::update::Type;
pub(crate) use server::serve;
use server::{Gaps, Server};
use shunt_testbed::binaries;
use tokio::runtime::Runtime;

use crate::report::{BenchError, Report, median};

/// The most entries.
const ENTRIES: u32 = 1_000_000;
/// The entries of the runs with a smaller table, and of bmv2's.
const FEWER: u32 = 100_000;
/// Runs, each with a fresh switch.
const RUNS: usize = 3;
/// How long packets are watched while nothing is written.
const QUIET: Duration = Duration::from_secs(1);
/// How long bmv2 may take to listen.
const START: Duration = Duration::from_secs(20);

/// What one run measures.
#[derive(Default)]
struct Run {
    inserts: f64,
    removes: f64,
    reads: f64,
    bytes: f64,
    inserting: Gaps,
    reading: Gaps,
    removing: Gaps,
}

fn refuse(what: &str, found: usize, wanted: u32) -> Result<(), BenchError> {
    // Flow 0, the packets', is always there.
    let wanted = wanted as usize + 1;
    if found == wanted {
        return Ok(());
    }
    let why = format!("{found} entries {what}, there should be {wanted}");
    Err(BenchError::failed(why))
}

/// A run against a fresh switch: insert all, read all, remove all.
fn encoded_run(runtime: &Runtime, count: u32) -> Result<Run, BenchError> {
    let inserts = Arc::new(encoded(count, Type::Insert)?);
    let removes = Arc::new(encoded(count, Type::Delete)?);
    let mut server = Server::start()?;
    let writer = runtime.block_on(Writer::connect(&server.address))?;
    let mut run = Run::default();
    server.gaps()?;
    let before = server.resident_bytes()?;
    run.inserts = runtime.block_on(writer.send(&inserts))? * f64::from(BATCH);
    run.inserting = server.gaps()?;
    let after = server.resident_bytes()?;
    run.bytes = after.saturating_sub(before) as f64 / f64::from(count);
    let (found, reads) = runtime.block_on(writer.read())?;
    run.reading = server.gaps()?;
    refuse("after all were inserted", found, count)?;
    run.reads = reads;
    server.gaps()?;
    run.removes = runtime.block_on(writer.send(&removes))? * f64::from(BATCH);
    run.removing = server.gaps()?;
    let (found, _) = runtime.block_on(writer.read())?;
    refuse("after all were removed", found, 0)?;
    Ok(run)
}

/// As `encoded_run`, by way of the typed client.
fn typed_run(runtime: &Runtime, count: u32) -> Result<(f64, f64), BenchError> {
    let inserts = Arc::new(typed(count, Type::Insert)?);
    let removes = Arc::new(typed(count, Type::Delete)?);
    let mut server = Server::start()?;
    let writer = runtime.block_on(Writer::connect(&server.address))?;
    server.gaps()?;
    let inserted = runtime.block_on(writer.write(&inserts))? * f64::from(BATCH);
    let removed = runtime.block_on(writer.write(&removes))? * f64::from(BATCH);
    Ok((inserted, removed))
}

fn quiet() -> Result<Gaps, BenchError> {
    let mut server = Server::start()?;
    let runtime = Runtime::new().map_err(BenchError::failed)?;
    let _writer = runtime.block_on(Writer::connect(&server.address))?;
    server.gaps()?;
    std::thread::sleep(QUIET);
    server.gaps()
}

fn gap_metrics(report: &mut Report, what: &str, gaps: &[Gaps]) {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let worst = gaps.iter().map(|g| ms(g.worst)).fold(0.0, f64::max);
    report.metric(format!("worst packet gap while {what}"), worst, "ms");
    let p999 = median(gaps.iter().map(|g| ms(g.p999)).collect());
    report.metric(format!("p99.9 packet gap while {what}"), p999, "ms");
    let packets = median(gaps.iter().map(|g| g.packets as f64).collect());
    report.metric(format!("packets seen while {what}"), packets, "");
}

/// Real bmv2: `FEWER` entries, since its reading takes time quadratic in them.
fn bmv2(report: &mut Report, runtime: &Runtime) -> Result<(), BenchError> {
    let free = std::net::TcpListener::bind("127.0.0.1:0").map_err(BenchError::failed)?;
    let address = free.local_addr().map_err(BenchError::failed)?.to_string();
    drop(free);
    let mut child = Command::new("simple_switch_grpc")
        .args(["--no-p4", "--device-id", "1", "--log-level", "off", "--"])
        .args(["--grpc-server-addr", &address])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(BenchError::failed)?;
    let measured = (|| {
        let start = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            let ended = child.try_wait().map_err(BenchError::failed)?;
            if ended.is_some() || start.elapsed() > START {
                return Err(BenchError::failed("simple_switch_grpc does not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let inserts = Arc::new(encoded(FEWER, Type::Insert)?);
        let removes = Arc::new(encoded(FEWER, Type::Delete)?);
        let writer = runtime.block_on(Writer::connect(&address))?;
        let before = server::resident_bytes(child.id())?;
        let inserted = runtime.block_on(writer.send(&inserts))? * f64::from(BATCH);
        let after = server::resident_bytes(child.id())?;
        let (found, read) = runtime.block_on(writer.read())?;
        refuse("in bmv2 after all were inserted", found, FEWER)?;
        let removed = runtime.block_on(writer.send(&removes))? * f64::from(BATCH);
        let bytes = after.saturating_sub(before) as f64 / f64::from(FEWER);
        Ok((inserted, removed, read, bytes))
    })();
    // Already ended is fine; there is nothing else to be done about an error here.
    let _ = child.kill();
    let _ = child.wait();
    let (inserted, removed, read, bytes) = measured?;
    report.metric("bmv2: inserted, 100 K entries", inserted, "entries/s");
    report.metric("bmv2: removed, 100 K entries", removed, "entries/s");
    report.metric("bmv2: read back, 100 K entries", read, "entries/s");
    report.metric("bmv2: memory of an entry (RSS)", bytes, "bytes");
    Ok(())
}

/// Runs the benchmark.
pub(crate) fn measure(report: &mut Report) -> Result<(), BenchError> {
    let runtime = Runtime::new().map_err(BenchError::failed)?;
    let runs = |count| (0..RUNS).map(move |_| count);
    let large = runs(ENTRIES)
        .map(|count| encoded_run(&runtime, count))
        .collect::<Result<Vec<_>, _>>()?;
    let of = |pick: fn(&Run) -> f64| median(large.iter().map(pick).collect());
    report.metric("inserted, 1 M entries", of(|r| r.inserts), "entries/s");
    report.metric("removed, 1 M entries", of(|r| r.removes), "entries/s");
    report.metric("read back, 1 M entries", of(|r| r.reads), "entries/s");
    report.metric("memory of an entry (RSS)", of(|r| r.bytes), "bytes");
    let gaps = |pick: fn(&Run) -> Gaps| large.iter().map(pick).collect::<Vec<_>>();
    gap_metrics(report, "inserting", &gaps(|r| r.inserting));
    gap_metrics(report, "reading", &gaps(|r| r.reading));
    gap_metrics(report, "removing", &gaps(|r| r.removing));
    gap_metrics(report, "idle", &[quiet()?]);

    let fewer = runs(FEWER)
        .map(|count| encoded_run(&runtime, count))
        .collect::<Result<Vec<_>, _>>()?;
    let of = |pick: fn(&Run) -> f64| median(fewer.iter().map(pick).collect());
    report.metric("inserted, 100 K entries", of(|r| r.inserts), "entries/s");
    report.metric("removed, 100 K entries", of(|r| r.removes), "entries/s");
    report.metric("read back, 100 K entries", of(|r| r.reads), "entries/s");

    let typed = runs(FEWER)
        .map(|count| typed_run(&runtime, count))
        .collect::<Result<Vec<_>, _>>()?;
    let (inserted, removed) = typed.into_iter().unzip();
    let (inserted, removed): (Vec<_>, Vec<_>) = (inserted, removed);
    report.metric(
        "typed: inserted, 100 K entries",
        median(inserted),
        "entries/s",
    );
    report.metric(
        "typed: removed, 100 K entries",
        median(removed),
        "entries/s",
    );

    if binaries::on_path("simple_switch_grpc").is_none() {
        println!("bmv2: skipped: simple_switch_grpc is not on PATH");
        return Ok(());
    }
    bmv2(report, &runtime)
}
