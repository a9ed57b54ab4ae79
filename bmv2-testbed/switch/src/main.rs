//! `shunt-switch`: an embedded v1model switch, started as `simple_switch_grpc` is.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use shunt_switch::log::{Form, Logger, Target as LogTarget};
use shunt_switch::{Config, DROP_PORT, Options};
use tokio::signal::unix::{SignalKind, signal};

/// The port of `simple_switch_grpc`.
const DEFAULT_GRPC: &str = "127.0.0.1:9559";

#[derive(Clone, Debug, Parser)]
#[command(
    name = "shunt-switch",
    version,
    about = "An embedded v1model switch: runs the JSON of p4c's bmv2 backend, serves P4Runtime.",
    after_help = "simple_switch_grpc's target options are taken after `--` too:\n  \
                  shunt-switch --no-p4 -i 1@veth1 -i 2@veth2 -- --grpc-server-addr 127.0.0.1:9559 \
                  --cpu-port 510"
)]
struct Arguments {
    /// Attach interface IFNAME as port PORT (repeatable).
    #[arg(short = 'i', long = "interface", value_name = "PORT@IFNAME", value_parser = interface)]
    interfaces: Vec<(u32, String)>,

    /// P4Runtime's device id.
    #[arg(long, default_value_t = 1)]
    device_id: u64,

    /// Start without a program (also what happens when no JSON is given).
    #[arg(long)]
    no_p4: bool,

    /// The P4Info (text format) of the JSON.
    #[arg(long, value_name = "FILE")]
    p4info: Option<PathBuf>,

    /// Print each packet's way through the program.
    #[arg(long)]
    log_console: bool,

    #[command(flatten)]
    target: Target,

    /// The JSON to start with.
    #[arg(value_name = "JSON")]
    json: Option<PathBuf>,

    /// Target options, as simple_switch_grpc takes them.
    #[arg(last = true, value_name = "TARGET OPTIONS")]
    after: Vec<String>,
}

/// simple_switch's target options.
#[derive(Clone, Debug, Default, clap::Args)]
struct Target {
    /// The egress port that means "drop".
    #[arg(long, value_name = "PORT")]
    drop_port: Option<u32>,

    /// The port whose frames go to the controller as packet-ins.
    #[arg(long, value_name = "PORT")]
    cpu_port: Option<u32>,

    /// Where to serve P4Runtime.
    #[arg(long, value_name = "HOST:PORT")]
    grpc_server_addr: Option<String>,
}

#[derive(Debug, Parser)]
#[command(name = "--", no_binary_name = true)]
struct After {
    #[command(flatten)]
    target: Target,
}

fn interface(text: &str) -> Result<(u32, String), String> {
    let (port, name) = text
        .split_once('@')
        .ok_or_else(|| "expected PORT@IFNAME, as in 1@veth1".to_owned())?;
    let port = port
        .parse()
        .map_err(|_| format!("`{port}` is not a port number"))?;
    if name.is_empty() {
        return Err("the interface's name is missing".into());
    }
    Ok((port, name.to_owned()))
}

fn config(arguments: Arguments, logger: Option<&Logger>) -> Result<Config, String> {
    let after = After::try_parse_from(&arguments.after)
        .map_err(|e| format!("target options: {e}"))?
        .target;
    let target = Target {
        drop_port: after.drop_port.or(arguments.target.drop_port),
        cpu_port: after.cpu_port.or(arguments.target.cpu_port),
        grpc_server_addr: after.grpc_server_addr.or(arguments.target.grpc_server_addr),
    };
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    };
    let program = match (&arguments.json, &arguments.p4info) {
        _ if arguments.no_p4 => None,
        (None, None) => None,
        (Some(json), Some(p4info)) => {
            let text = String::from_utf8(read(p4info)?)
                .map_err(|_| format!("{} is not text", p4info.display()))?;
            let info = p4runtime::p4info::parse_p4info_text(&text)
                .map_err(|e| format!("{}: {e}", p4info.display()))?;
            Some((read(json)?, info))
        }
        (Some(_), None) => return Err("a JSON needs its P4Info too (--p4info FILE)".into()),
        (None, Some(_)) => return Err("--p4info needs the JSON too".into()),
    };
    Ok(Config {
        grpc_addr: target
            .grpc_server_addr
            .unwrap_or_else(|| DEFAULT_GRPC.to_owned()),
        interfaces: arguments.interfaces,
        options: Options {
            device_id: arguments.device_id,
            drop_port: target.drop_port.unwrap_or(DROP_PORT),
            cpu_port: target.cpu_port,
            trace: logger.map(Logger::sink),
            ..Options::default()
        },
        program,
    })
}

async fn serve(config: Config) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("cannot wait for signals: {e}");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let handle = shunt_switch::run(config).await.map_err(|e| e.to_string())?;
    println!("listening on {}", handle.addr());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let stats = handle.switch().stats();
    handle.stop().await;
    tracing::info!(?stats, "stopped");
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    let logger = arguments
        .log_console
        .then(|| Logger::start(LogTarget::Console, Form::Text, 0))
        .transpose();
    let result = logger.map_err(|e| e.to_string()).and_then(|logger| {
        let config = config(arguments, logger.as_ref())?;
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("cannot start: {e}"))?
            .block_on(serve(config))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("shunt-switch: {why}");
            ExitCode::FAILURE
        }
    }
}
