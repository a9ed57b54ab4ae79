//! `shunt`: looks at a running `shuntd`; `shunt p4` at any P4Runtime switch.
//!
//! Exit codes: 0 success; 1 the daemon or switch refused or failed; 2 wrong usage (clap); 3 the
//! daemon or switch cannot be reached; 4 not as it should be: `status` not converged or degraded,
//! `switch diff` with differences, `switch reconcile` with some left, `config … --wait` not
//! converged in time. A `--watch`, and `top`, that a signal ends: 0.

mod config;
mod connect;
mod error;
mod flows;
mod interfaces;
mod log;
mod nat;
mod neighbors;
mod offload;
mod output;
mod p4;
mod routes;
mod status;
mod switch;
mod top;
mod trace;
mod vpc;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use error::Error;
use output::{Format, Output};

/// Looks at a running shuntd: what it forwards, in hardware and in software.
///
/// Exit codes: 0 success, 1 the daemon or switch refused or failed, 2 wrong usage, 3 the daemon
/// or switch cannot be reached, 4 not as it should be (status: not converged or degraded;
/// switch diff: there are differences; switch reconcile: some are left; config --wait: not
/// converged in time). A --watch, and top, that Ctrl-C or SIGTERM ends: 0.
#[derive(Parser)]
#[command(name = "shunt", version)]
struct Arguments {
    /// How to print: a table, one JSON document, or one JSON object a line.
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: Format,

    #[command(flatten)]
    daemon: connect::Daemon,

    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    /// Is everything converged, what is degraded and why.
    Status(status::Arguments),
    /// The configuration: show, change, compare, return to an older one.
    #[command(subcommand)]
    Config(config::Verb),
    /// The gateway's interfaces, their encapsulation and state.
    Interfaces(interfaces::Arguments),
    /// The VPCs, their kernel tables and interfaces.
    Vpc(vpc::Arguments),
    /// The mirrored routes.
    Routes(routes::Arguments),
    /// The mirrored neighbours.
    Neighbors(neighbors::Arguments),
    /// The connections, in hardware or not.
    Flows(Box<flows::Arguments>),
    /// What masquerades use of their pools, and the NAT rules.
    Nat(nat::Arguments),
    /// What would become of a packet, step by step and why; nothing is done.
    Trace(Box<trace::Arguments>),
    /// Counts, occupancy and latencies of the offload engine.
    Offload(offload::Arguments),
    /// The switches: their states, where they differ from what is wanted, and a repair.
    Switch(switch::Arguments),
    /// Live: rates, hit ratio, latencies, occupancy, the busiest VPCs and flows, drops.
    Top(top::Arguments),
    /// What the daemon logs, or shall log until it ends.
    Log(log::Arguments),
    /// Any P4Runtime switch by hand, without the daemon.
    P4(Box<p4::Arguments>),
    /// Versions of this program and of the daemon.
    Version,
    /// Manual pages, one a command, into a folder.
    #[command(hide = true)]
    Man {
        /// Where.
        folder: PathBuf,
    },
    /// A completion script for a shell, on standard output.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

async fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let out = Output::new(arguments.output);
    let connect = || arguments.daemon.connect();
    /// Once, or again and again.
    macro_rules! watched {
        ($watch:expr, $noun:ident, $which:ident) => {{
            let show = async |daemon: &mut _, out: &_| {
                $noun::run(daemon, out, &$which).await?;
                Ok(ExitCode::SUCCESS)
            };
            return $watch.run(connect, &out, show).await;
        }};
    }
    match arguments.noun {
        Noun::Status(which) => {
            let show = async |daemon: &mut _, out: &_| status::run(daemon, out).await;
            return which.watch.run(connect, &out, show).await;
        }
        Noun::Config(what) => return config::run(&mut connect().await?, &out, what).await,
        Noun::Interfaces(which) => watched!(which.watch, interfaces, which),
        Noun::Vpc(which) => watched!(which.watch, vpc, which),
        Noun::Routes(which) => watched!(which.watch, routes, which),
        Noun::Neighbors(which) => watched!(which.watch, neighbors, which),
        Noun::Flows(which) => watched!(which.watch, flows, which),
        Noun::Nat(what) => watched!(what.watch(), nat, what),
        Noun::Trace(what) => trace::run(&mut connect().await?, &out, *what).await?,
        Noun::Offload(which) => {
            let show = async |daemon: &mut _, out: &_| {
                offload::run(daemon, out).await?;
                Ok(ExitCode::SUCCESS)
            };
            return which.watch.run(connect, &out, show).await;
        }
        Noun::Top(which) => {
            let daemon = arguments.daemon.clone();
            let connect = move || {
                let daemon = daemon.clone();
                async move { daemon.connect().await }
            };
            top::run(connect, &out, which).await?;
        }
        Noun::Log(what) => log::run(&mut connect().await?, &out, what).await?,
        Noun::P4(what) => p4::run(*what, &out).await?,
        Noun::Switch(what) => {
            let show = async |daemon: &mut _, out: &_| switch::run(daemon, out, &what).await;
            return what.watch.run(connect, &out, show).await;
        }
        Noun::Version => status::version(&mut connect().await?, &out).await?,
        Noun::Man { folder } => {
            clap_mangen::generate_to(Arguments::command(), &folder).map_err(|source| {
                Error::File {
                    path: folder.clone(),
                    source,
                }
            })?;
        }
        Noun::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "shunt", &mut script);
            out.text(&String::from_utf8_lossy(&script))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Print)
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match result {
        Ok(code) => code,
        // `shunt flows | head` is no failure.
        Err(Error::Print(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("shunt: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
