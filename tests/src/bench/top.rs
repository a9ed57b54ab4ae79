//! `top`: what a `shunt top` on a terminal, drawn 30 times a second, takes of the daemon.
//!
//! The demo's network with the real daemon. A host asks an echo server 500 times a second by the
//! slow path (nothing is offloaded), among [`CONNECTIONS`] other connections. Phases with and
//! without a `shunt top` take turns; figures are medians over them.

use std::io::Read as _;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use shunt_testbed::service::wait_for;
use shunt_testbed::topology::{SERVER, SwitchKind, Topology, configuration};
use shunt_testbed::{Error, binaries};

use crate::report::{BenchError, Report, median};
use crate::sandboxed;

/// Connections that the tables have beside.
const CONNECTIONS: u16 = 20_000;
const FIRST_PORT: u16 = 30_000;
const ECHO_PORT: u16 = 7;
/// Phases of each kind, and how long each is.
const PHASES: usize = 3;
const PHASE: Duration = Duration::from_secs(5);
/// Between two questions.
const EVERY: Duration = Duration::from_millis(2);
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Terminals are of this size.
const SIZE: (u16, u16) = (120, 40);

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::failed(error)
}

pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    sandboxed::run("top", report, measure)
}

/// What a phase came to.
struct Phase {
    /// Round trips, microseconds.
    p50_us: f64,
    p99_us: f64,
    answered: f64,
    /// Of one CPU, percent.
    daemon_cpu: f64,
    top_cpu: f64,
    /// Screens drawn a second.
    frames: f64,
}

/// CPU time of a process so far, seconds.
fn cpu(pid: u32) -> Result<f64, BenchError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(failed)?;
    // Fields 14 and 15 (proc(5)); the name before may have blanks.
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).map_err(failed)?;
    Ok(ticks as f64 / second.unwrap_or(100) as f64)
}

/// `shunt top` on a terminal whose bytes are read and counted.
struct Top {
    child: Child,
    stop: Arc<AtomicBool>,
    frames: Arc<AtomicU64>,
}

impl Top {
    fn start(topology: &Topology) -> Result<Self, BenchError> {
        let size = Winsize {
            ws_row: SIZE.1,
            ws_col: SIZE.0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).map_err(failed)?;
        let end = || pty.slave.try_clone().map(Stdio::from).map_err(failed);
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(binaries::find("shunt").map_err(failed)?)
            .arg("--socket")
            .arg(topology.socket())
            .arg("top")
            .env("TERM", "xterm-256color")
            .stdin(end()?)
            .stdout(end()?)
            .stderr(end()?)
            .spawn()
            .map_err(failed)?;
        let (stop, frames) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&frames));
        let mut screen = std::fs::File::from(pty.master);
        std::thread::spawn(move || {
            let _slave = pty.slave;
            let mut buffer = [0; 8192];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(n @ 1..) = screen.read(&mut buffer) else {
                    return;
                };
                // The cursor is hidden once a frame.
                let seen = buffer.get(..n).unwrap_or_default();
                let hides = seen
                    .windows(6)
                    .filter(|bytes| bytes == b"\x1b[?25l")
                    .count();
                AtomicU64::fetch_add(&counted, hides as u64, Ordering::Relaxed);
            }
        });
        Ok(Self {
            child,
            stop,
            frames,
        })
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for a phase.
fn phase(socket: &UdpSocket, daemon: u32, top: Option<&Top>) -> Result<Phase, BenchError> {
    let top_cpu = || top.map_or(Ok(0.0), |top| cpu(top.child.id()));
    let frames = || top.map_or(0, |top| top.frames.load(Ordering::Relaxed));
    let before = (cpu(daemon)?, top_cpu()?, frames());
    let begun = Instant::now();
    let mut times = Vec::new();
    let mut buffer = [0; 64];
    let mut asked = 0u32;
    while begun.elapsed() < PHASE {
        std::thread::sleep((begun + EVERY * asked).saturating_duration_since(Instant::now()));
        asked += 1;
        let sent = Instant::now();
        socket.send(&asked.to_be_bytes()).map_err(failed)?;
        // What was late before is passed over.
        while let Ok(n) = socket.recv(&mut buffer) {
            if buffer.get(..n) == Some(&asked.to_be_bytes()) {
                times.push(sent.elapsed().as_secs_f64() * 1e6);
                break;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let at = (times.len() as f64 * share) as usize;
        times.get(at.min(times.len().saturating_sub(1))).copied()
    };
    Ok(Phase {
        p50_us: at(0.5).unwrap_or(f64::INFINITY),
        p99_us: at(0.99).unwrap_or(f64::INFINITY),
        answered: times.len() as f64 / f64::from(asked) * 100.0,
        daemon_cpu: (cpu(daemon)? - before.0) / seconds * 100.0,
        top_cpu: (top_cpu()? - before.1) / seconds * 100.0,
        frames: (frames() - before.2) as f64 / seconds,
    })
}

fn measure(report: &mut Report) -> Result<(), BenchError> {
    let folder = std::path::Path::new(sandboxed::FOLDER);
    let topology = Topology::build(folder).map_err(failed)?;
    let _switch = topology
        .start_switch(SwitchKind::Embedded)
        .map_err(failed)?;
    let text = configuration(&topology.socket()).replace("\"5s\"", "\"5m\"");
    let text = text + "\n[offload]\nenabled = false\n";
    let daemon = topology.start_daemon_with(&text, &[]).map_err(failed)?;
    topology.add_routes().map_err(failed)?;
    wait_for("the daemon to report `converged`", PATIENCE, || {
        let status = topology.shunt(&["status"]);
        status.is_ok_and(|status| status["converged"] == serde_json::Value::Bool(true))
    })
    .map_err(failed)?;
    let failed_socket = || Error::file("a UDP socket");
    let echo = topology
        .wan
        .inside(|| UdpSocket::bind((SERVER, ECHO_PORT)).map_err(failed_socket()))
        .map_err(failed)?;
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((n, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(buffer.get(..n).unwrap_or_default(), from);
        }
    });
    let inside = |port| {
        topology.red.inside(|| {
            let socket = UdpSocket::bind(("10.0.0.2", port)).map_err(failed_socket())?;
            socket
                .connect((SERVER, ECHO_PORT))
                .map_err(failed_socket())?;
            let within = Some(Duration::from_millis(200));
            socket.set_read_timeout(within).map_err(failed_socket())?;
            Ok(socket)
        })
    };
    for n in 0..CONNECTIONS {
        let socket = inside(FIRST_PORT + n).map_err(failed)?;
        socket.send(b"x").map_err(failed)?;
        let _ = socket.recv(&mut [0; 8]);
    }
    let socket = inside(0).map_err(failed)?;
    let mut phases = [Vec::new(), Vec::new()];
    for turn in 0..2 * PHASES {
        let with = turn % 2 == 1;
        let top = match with {
            true => Some(Top::start(&topology)?),
            false => None,
        };
        // The first frames and samples are not the rule.
        std::thread::sleep(Duration::from_millis(1_500));
        let found = phase(&socket, daemon.id(), top.as_ref())?;
        if let Some(of) = phases.get_mut(usize::from(with)) {
            of.push(found);
        }
    }
    let [without, with] = &phases;
    let middle = |of: &[Phase], value: fn(&Phase) -> f64| median(of.iter().map(value).collect());
    for (name, value, unit) in [
        (
            "daemon CPU",
            (|of| of.daemon_cpu) as fn(&Phase) -> f64,
            "% of a core",
        ),
        ("round trip p50", |of| of.p50_us, "us"),
        ("round trip p99", |of| of.p99_us, "us"),
        ("answered", |of| of.answered, "%"),
    ] {
        report.metric(format!("{name} with top"), middle(with, value), unit);
        report.metric(format!("{name} without"), middle(without, value), unit);
    }
    report.metric("frames of top", middle(with, |of| of.frames), "1/s");
    report.metric(
        "CPU of top itself",
        middle(with, |of| of.top_cpu),
        "% of a core",
    );
    Ok(())
}
