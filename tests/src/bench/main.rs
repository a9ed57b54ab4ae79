//! `shunt-bench`: the benchmarks, by name. `make bench` runs all, `make bench BENCH=<name>` one.
//!
//! Each prints its figures as `name: value unit` and writes `target/bench/<name>.json`, the
//! headline first. Machines are shared and noisy: a figure is the median of several runs.

mod bmv2;
mod client_writes;
mod connections;
mod flows;
mod gateway;
mod lpm;
mod mirror;
mod offload;
mod prefixes;
mod reconcile;
mod report;
mod sandboxed;
mod slowpath;
mod switch_pps;
mod switch_veth;
mod switch_writes;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use report::{BenchError, Report};

/// A benchmark: its name, what it measures, and how.
struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Report) -> Result<(), BenchError>,
}

/// All of them, in the order in which they run.
const BENCHES: &[Bench] = &[
    Bench {
        name: "switch-writes",
        about: "flow entries a second over gRPC, encoded before, 4 requests of 1,000 in flight",
        run: switch_writes::measure,
    },
    Bench {
        name: "client-writes",
        about: "flow entries a second from the typed table through the client, beside encoded ones",
        run: client_writes::run,
    },
    Bench {
        name: "switch-pps",
        about: "embedded switch, one core, ports in this process: hits of 100 K NAT flows",
        run: switch_pps::run,
    },
    Bench {
        name: "switch-veth",
        about: "embedded switch through veth interfaces, beside bmv2: hits of 10 K NAT flows",
        run: switch_veth::run,
    },
    Bench {
        name: "reconcile",
        about: "1 M entries in the switch of which 1 % are wrong: read, diff and repair, memory",
        run: reconcile::run,
    },
    Bench {
        name: "lpm",
        about: "longest-prefix look-ups of one core in the workers' table: 1 M IPv4, 200 K IPv6 routes",
        run: lpm::run,
    },
    Bench {
        name: "mirror-load",
        about: "1 M IPv4 and 200 K IPv6 routes in the kernel: until workers and switch have them",
        run: mirror::load,
    },
    Bench {
        name: "mirror-churn",
        about: "20 K route changes a second in the kernel for 30 s, then 1 K: until the switch has them",
        run: mirror::churn,
    },
    Bench {
        name: "offload-rate",
        about: "offload engine and embedded switch: installs and removals, 1 M entries live, 30 s",
        run: offload::rate,
    },
    Bench {
        name: "offload-latency",
        about: "offload engine: a worker's decision to its acknowledgement, at steady rates",
        run: offload::latency,
    },
    Bench {
        name: "offload-bmv2",
        about: "offload engine into bmv2, as a share of what bmv2 takes encoded before",
        run: offload::bmv2,
    },
    Bench {
        name: "connections-e2e",
        about: "new connections through switch, slow path and offload engine, until packets hit",
        run: connections::run,
    },
    Bench {
        name: "slowpath-new",
        about: "whole lives of NAT connections in one worker, every packet a new one, 4 M live",
        run: slowpath::new,
    },
    Bench {
        name: "slowpath-established",
        about: "packets of established NAT connections in one worker, 1 M of them and 10 K",
        run: slowpath::established,
    },
    Bench {
        name: "slowpath-scale",
        about: "the same with one worker and with two, each on a CPU of its own",
        run: slowpath::scale,
    },
    Bench {
        name: "top",
        about: "the daemon with and without a `shunt top` of 30 frames a second: CPU, packets' round trips",
        run: top::run,
    },
    Bench {
        name: "slowpath-mixed",
        about: "8,000 sources at 100 Hz beside 200 K new connections a second, in real time: loss, latency, CPU",
        run: slowpath::mixed,
    },
];

#[derive(Debug, Parser)]
#[command(name = "shunt-bench", about = "Runs shunt's benchmarks.")]
struct Arguments {
    /// List the benchmarks.
    #[arg(long)]
    list: bool,

    /// Where the JSON files go.
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    out: PathBuf,

    /// Be a switch until standard input ends; benchmarks start themselves so.
    #[arg(long, hide = true)]
    serve_switch: bool,

    /// Which to run; all if none is named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

fn run(bench: &Bench, out: &std::path::Path) -> Result<(), BenchError> {
    println!("== {}: {}", bench.name, bench.about);
    let mut report = Report::new(bench.name);
    (bench.run)(&mut report)?;
    let path = report.write(out)?;
    println!("written to {}", path.display());
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.serve_switch {
        return match switch_writes::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("--serve-switch: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if arguments.list {
        for bench in BENCHES {
            println!("{:<20} {}", bench.name, bench.about);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = arguments
        .names
        .iter()
        .find(|name| BENCHES.iter().all(|b| b.name != **name))
    {
        let names: Vec<_> = BENCHES.iter().map(|b| b.name).collect();
        eprintln!(
            "there is no benchmark `{unknown}`; there are {}",
            names.join(", ")
        );
        return ExitCode::FAILURE;
    }
    let wanted =
        |b: &&Bench| arguments.names.is_empty() || arguments.names.iter().any(|n| n == b.name);
    let mut code = ExitCode::SUCCESS;
    for bench in BENCHES.iter().filter(wanted) {
        match run(bench, &arguments.out) {
            Ok(()) => {}
            Err(BenchError::Skipped(why)) => println!("skipped: {why}"),
            Err(error) => {
                eprintln!("{}: {error}", bench.name);
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
