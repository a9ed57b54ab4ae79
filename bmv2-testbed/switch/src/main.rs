//! `shunt-switch`: an embedded v1model switch, started as `simple_switch_grpc` is.

mod cli;

use std::process::ExitCode;

use cli::Arguments;
use shunt_switch::Config;
use tokio::signal::unix::{SignalKind, signal};

async fn serve(config: Config, to_stdout: bool) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("cannot wait for signals: {e}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let handle = shunt_switch::run(config).await.map_err(|e| e.to_string())?;
    let listening = format!("listening on {}", handle.addr());
    if to_stdout {
        println!("{listening}");
    } else {
        eprintln!("{listening}");
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let stats = handle.switch().stats();
    handle.stop().await;
    tracing::info!(?stats, "stopped");
    Ok(())
}

fn run(arguments: Arguments) -> Result<(), String> {
    for notice in arguments.notices() {
        tracing::warn!("{notice}");
    }
    // Dropped last, so that it writes what packets there were.
    let logger = arguments.logger()?;
    let to_stdout = !arguments.is_stdout_json();
    let config = arguments.config(logger.as_ref())?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?
        .block_on(serve(config, to_stdout))
}

fn main() -> ExitCode {
    let arguments = Arguments::read();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(arguments.level())),
        )
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("shunt-switch: {why}");
            ExitCode::FAILURE
        }
    }
}
