//! `shunt-testbed`: the demo, and the small programs that its hosts run.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shunt_testbed::rough_link::{self, Roughness};
use shunt_testbed::topology::SwitchKind;
use shunt_testbed::{Error, Result, demo, sandbox, traffic, vlan_shim};

/// Runs shunt in network namespaces of its own and sends real traffic through it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the demo's network, start switch and daemon, send traffic, report.
    Demo {
        /// Which switch to run.
        #[arg(long, value_enum, default_value = "embedded", env = "SWITCH")]
        switch: SwitchKind,
        /// Leave everything up at the end until Ctrl-C.
        #[arg(long)]
        keep: bool,
        /// Size of the large transfer, MiB.
        #[arg(long, default_value_t = 64)]
        large_mib: u64,
        /// Small downloads beside the large one.
        #[arg(long, default_value_t = 199)]
        small: usize,
        /// Folder for logs, the configuration and the API's socket.
        #[arg(long, default_value = "target/demo")]
        directory: PathBuf,
    },
    /// A VLAN sub-interface as a tap, where the kernel has none.
    #[command(hide = true)]
    VlanShim {
        #[arg(long)]
        device: String,
        #[arg(long)]
        tap: String,
        #[arg(long)]
        vid: u16,
    },
    /// A device's link, made rough, as a tap.
    #[command(hide = true)]
    RoughLink {
        #[arg(long)]
        device: String,
        #[arg(long)]
        tap: String,
        #[arg(long)]
        seed: u64,
        /// Percent of the frames.
        #[arg(long)]
        loss: u8,
        /// Percent of the frames.
        #[arg(long)]
        duplicate: u8,
        /// Percent of the frames.
        #[arg(long)]
        reorder: u8,
    },
    /// Serves /NAME/LENGTH.
    #[command(hide = true)]
    HttpServer { listen: SocketAddr },
    /// Answers datagrams with themselves.
    #[command(hide = true)]
    UdpEcho { listen: SocketAddr },
    /// Sends datagrams and counts right answers.
    #[command(hide = true)]
    UdpClient {
        server: SocketAddr,
        name: String,
        count: u32,
    },
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new()
        .map_err(|error| Error::Other(format!("no async runtime: {error}")))
}

fn run() -> Result<ExitCode> {
    match Arguments::parse().command {
        Task::Demo {
            switch,
            keep,
            large_mib,
            small,
            directory,
        } => {
            if sandbox::is_inside() {
                sandbox::prepare()?;
                return demo::run(&demo::Options {
                    switch,
                    keep,
                    large_mib,
                    small,
                    directory,
                });
            }
            let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
            let mut passed_on = Ok(());
            let status = sandbox::reexec(arguments, |pid| {
                demo::note_sandbox(&directory, pid);
                passed_on = demo::pass_signals_on(pid);
            })?;
            passed_on?;
            Ok(if status.success() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Task::VlanShim { device, tap, vid } => {
            vlan_shim::run(&device, &tap, vid).map(|()| ExitCode::SUCCESS)
        }
        Task::RoughLink {
            device,
            tap,
            seed,
            loss,
            duplicate,
            reorder,
        } => {
            let roughness = Roughness {
                loss,
                duplicate,
                reorder,
            };
            rough_link::run(&device, &tap, seed, roughness).map(|()| ExitCode::SUCCESS)
        }
        Task::HttpServer { listen } => runtime()?
            .block_on(traffic::http_server(listen))
            .map(|()| ExitCode::SUCCESS),
        Task::UdpEcho { listen } => traffic::udp_echo(listen).map(|()| ExitCode::SUCCESS),
        Task::UdpClient {
            server,
            name,
            count,
        } => traffic::udp_client(server, &name, count).map(|()| ExitCode::SUCCESS),
    }
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("shunt-testbed: {error}");
        ExitCode::FAILURE
    })
}
