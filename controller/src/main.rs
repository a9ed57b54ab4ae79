//! `shuntd`: the daemon of a shunt gateway.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser};
use nix::sys::signal::{SigSet, Signal};
use shunt_controller::config::{self, By, Configuration, Document};
use shunt_controller::daemon::{self, StartError};
use shunt_controller::logging::{self, LogFormat};
use shunt_controller::store::{MemoryStore, SqliteStore, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs a shunt gateway: mirrors the kernel's routes into a P4 switch, forwards and translates
/// new connections on DPDK, and moves established ones into the switch.
///
/// Stops on SIGINT and SIGTERM. Exit status: 0 stopped; 1 it could not start, the reason is the
/// last line; 2 wrong usage or a faulty configuration.
#[derive(Debug, Parser)]
#[command(name = "shuntd", version, max_term_width = 100)]
struct Args {
    /// The configuration (TOML). With --store it is what an empty store begins with.
    #[arg(
        long,
        short,
        env = "SHUNT_CONFIG",
        default_value = "/etc/shunt/shunt.toml"
    )]
    config: PathBuf,

    /// Keep every revision of the configuration in this file (SQLite), and start with the newest.
    /// Without, changes end with the daemon, and the next one starts from --config again.
    #[arg(long, env = "SHUNT_STORE", value_name = "FILE")]
    store: Option<PathBuf>,

    /// Check the configuration and name every fault; start nothing.
    #[arg(long)]
    check: bool,

    /// How long to try to reach the switch at the start, such as 10s or 1m.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    switch_timeout: Duration,

    /// What to log: error, warn, info, debug, trace; or by module, such as
    /// info,shunt_controller::switch=debug. `shunt log` changes it later.
    #[arg(long, env = "SHUNT_LOG", default_value = "info", value_parser = log_filter)]
    log_level: String,

    /// Print the manual page (roff) and end.
    #[arg(long, hide = true)]
    man: bool,

    /// How to log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

fn log_filter(text: &str) -> Result<String, String> {
    logging::parse(text).map(|_| text.to_owned())
}

/// As documented above.
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.man {
        let page = clap_mangen::Man::new(Args::command()).section("8");
        return match page.render(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(FAILED, error),
        };
    }
    if args.check {
        return check(&args.config);
    }
    let log = match logging::start(&args.log_level, args.log_format) {
        Ok(log) => log,
        Err(error) => return fail(MISUSED, error.as_str()),
    };
    let configuration = match open(&args) {
        Ok(configuration) => configuration,
        Err(error) => return fail(MISUSED, error),
    };
    unblock_signals();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &error),
    };
    let result = runtime.block_on(async {
        let stop = stop_on_signals()?;
        daemon::run(configuration, log, args.switch_timeout, stop)
            .await
            .map_err(Failure::Start)
    });
    // What did not stop in time is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) | Err(Failure::Start(StartError::Stopped)) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error),
    }
}

fn check(path: &Path) -> ExitCode {
    match config::load(path) {
        Ok(document) => {
            println!(
                "{}: {} VPCs, {} interfaces, no faults",
                path.display(),
                document.vpc.len(),
                document.interface.len()
            );
            ExitCode::SUCCESS
        }
        Err(error) => fail(MISUSED, &error),
    }
}

/// The store's newest revision, or the file.
fn open(args: &Args) -> Result<Configuration, Box<dyn std::error::Error>> {
    let store: Box<dyn Store> = match &args.store {
        Some(path) => Box::new(SqliteStore::open(path)?),
        None => Box::<MemoryStore>::default(),
    };
    let is_empty = store.head()? == 0;
    let from_file = || config::load(&args.config);
    let first = is_empty.then(from_file).transpose()?;
    let comment = format!("from {}", args.config.display());
    let configuration = Configuration::open(store, first, By::now("shuntd", comment))?;
    if let Some(path) = &args.store {
        let revision = configuration.current().revision;
        let path = path.display();
        tracing::info!(revision, %path, "configuration");
        // Somebody may have edited it and expect that to count.
        let differs = |document: &Document| *document != *configuration.current().document;
        if !is_empty && from_file().is_ok_and(|document| differs(&document)) {
            let file = args.config.display();
            tracing::warn!(
                "{file} differs from revision {revision} of {path}, which is in force: \
                 `shunt config apply {file}` applies it"
            );
        }
    }
    Ok(configuration)
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Start(StartError),
    #[error("signals cannot be handled: {0}")]
    Signals(#[from] std::io::Error),
}

fn fail(status: u8, error: impl std::fmt::Display) -> ExitCode {
    eprintln!("shuntd: {error}");
    ExitCode::from(status)
}

/// Whoever started us may have blocked them, and a mask is inherited: a daemon that cannot be
/// stopped is worse than one that stops too early.
fn unblock_signals() {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    if let Err(error) = set.thread_unblock() {
        tracing::warn!(%error, "signals cannot be unblocked");
    }
}

/// Cancelled by the first SIGINT or SIGTERM.
fn stop_on_signals() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.cancel();
    });
    Ok(stop)
}
