//! `make demo`: the whole of shunt on real traffic, with a report.

mod flows;
mod report;
mod steps;
mod transfer;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::binaries;
use crate::error::{Error, Result};
use crate::service::wait_for;
use crate::topology::{SERVER, SwitchKind, Topology};
use report::Report;

/// How the demo runs.
#[derive(Debug)]
pub struct Options {
    /// Which switch.
    pub switch: SwitchKind,
    /// Leave it up at the end.
    pub keep: bool,
    /// Size of the large transfer, MiB.
    pub large_mib: u64,
    /// Small downloads beside it.
    pub small: usize,
    /// Where logs and the socket go.
    pub directory: PathBuf,
}

/// File with the process id of the sandbox, as seen from outside.
const SANDBOX_PID: &str = "sandbox.pid";
/// Set by SIGINT or SIGTERM.
static STOP: AtomicBool = AtomicBool::new(false);
/// How long a clean stop of the daemon may take.
const STOP_MAX: Duration = Duration::from_secs(2);
/// How long the demo has to come to its report after a signal: a step may be waiting for what
/// the signal has ended too. Then it goes without.
const HEED_MAX: Duration = Duration::from_secs(2);

/// Turns SIGINT and SIGTERM into a flag: as first process of the sandbox we would not even
/// notice them otherwise.
fn catch_signals() -> Result<()> {
    let set = stop_signals()?;
    std::thread::spawn(move || {
        if set.wait().is_ok() {
            STOP.store(true, Ordering::Relaxed);
        }
        // A second one ends the demo at once; the sandbox takes everything with it.
        if set.wait().is_ok() {
            std::process::exit(130);
        }
    });
    Ok(())
}

/// To be called outside once the sandbox runs, with the process id of its `unshare`: ends the
/// demo by way of its first process, which reports and takes everything down in order. Without
/// this we would die first, and it with us. A second signal, or one that is not heeded, kills.
pub fn pass_signals_on(unshare: u32) -> Result<()> {
    let set = stop_signals()?;
    std::thread::spawn(move || {
        let Ok(signal) = set.wait() else { return };
        // The terminal's Ctrl-C has reached it already; one more would be its second.
        if signal != Signal::SIGINT || !std::io::stdin().is_terminal() {
            let children = format!("/proc/{unshare}/task/{unshare}/children");
            let children = std::fs::read_to_string(children).unwrap_or_default();
            for child in children
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
            {
                let _ = kill(Pid::from_raw(child), signal); // it has ended: as wanted
            }
        }
        std::thread::spawn(|| {
            std::thread::sleep(HEED_MAX);
            std::process::exit(130);
        });
        let _ = set.wait();
        std::process::exit(130);
    });
    Ok(())
}

fn stop_signals() -> Result<SigSet> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block()
        .map_err(|error| Error::Other(format!("signals: {error}")))?;
    Ok(set)
}

/// Fails when the user asked to stop.
fn go_on() -> Result<()> {
    if STOP.load(Ordering::Relaxed) {
        return Err(Error::Other("interrupted".into()));
    }
    Ok(())
}

/// Runs the demo inside a prepared sandbox; success only if everything held.
pub fn run(options: &Options) -> Result<ExitCode> {
    catch_signals()?;
    let directory =
        std::path::absolute(&options.directory).map_err(Error::file(&options.directory))?;
    println!("building the network: red, blue, green, wan, gw");
    let topology = Topology::build(&directory)?;
    println!(
        "starting the switch ({:?}) and shuntd; logs are in {}",
        options.switch,
        directory.display()
    );
    let mut switch = topology.start_switch(options.switch)?;
    let mut daemon = topology.start_daemon()?;
    topology.add_routes()?;
    steps::wait_converged(&topology)?;

    let mut report = Report::default();
    // They stay up with the rest: the hints that `keep` prints use them.
    let servers = steps::Servers::start(&topology)?;
    if let Err(error) = steps::all(&topology, &servers, options, &mut report) {
        report.check("every step could be taken", false, &error.to_string());
    }

    for (name, service) in [("switch", &mut switch), ("shuntd", &mut daemon)] {
        if let Some(status) = service.ended() {
            report.check(
                &format!("{name} ran to the end"),
                false,
                &format!("it ended: {status}"),
            );
        }
    }
    if options.keep {
        keep(&topology, &report)?;
    }
    let (status, took) = daemon.stop(STOP_MAX)?;
    report.check(
        "shuntd stopped cleanly on SIGTERM",
        status.success(),
        &format!("{status}, {} ms", took.as_millis()),
    );
    report.print();
    Ok(if report.all_held() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn keep(topology: &Topology, report: &Report) -> Result<()> {
    report.print();
    let shunt = binaries::find("shunt")?;
    let (shunt, socket) = (shunt.display(), topology.socket());
    let pid = std::fs::read_to_string(topology.directory.join(SANDBOX_PID)).unwrap_or_default();
    println!("\nStill up. From another terminal:");
    for noun in ["status", "flows", "routes", "neighbors", "offload"] {
        println!("  {shunt} --socket {} {noun}", socket.display());
    }
    println!("Inside a host (red, blue, green, wan, gw):");
    // Without a user namespace of its own there is none to enter.
    let user = if crate::sandbox::is_in_user_namespace() {
        "--user --preserve-credentials "
    } else {
        ""
    };
    println!(
        "  nsenter --target {pid} {user}--net --mount -- nsenter --net=/run/netns/red \
         curl -sS -o /dev/null -w '%{{http_code}}, %{{size_download}} bytes\\n' \
         http://{SERVER}:{}/hello/20000",
        steps::HTTP_PORT
    );
    println!("Ctrl-C ends it and removes everything.");
    while !STOP.load(Ordering::Relaxed) {
        let _ = wait_for("Ctrl-C", Duration::from_secs(1), || {
            STOP.load(Ordering::Relaxed)
        });
    }
    Ok(())
}

/// Notes the sandbox's process id where [`run`], inside it, finds it: inside, we are number 1.
pub fn note_sandbox(directory: &Path, pid: u32) {
    // Without the file, only the printed hint is poorer.
    let _ = std::fs::create_dir_all(directory);
    let _ = std::fs::write(directory.join(SANDBOX_PID), pid.to_string());
}
