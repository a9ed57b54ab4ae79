//! The switch in a process of its own, with a thread that keeps a flow's packets coming.
//!
//! It is this program once more (`--serve-switch`), since only in-process ports show when each
//! packet leaves. Lines on standard input are commands, lines on standard output the answers.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shunt_switch::{ChannelPort, Config, Handle, run};

use crate::gateway::{self, INSIDE, OUTSIDE};
use crate::report::BenchError;

/// Between two packets: often enough to see a gap, seldom enough to leave the cores alone.
const PACE: Duration = Duration::from_micros(200);
/// A packet that has not left by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Frames that wait at a port.
const QUEUE_FRAMES: usize = 16;

/// Times between packets that left one after another.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gaps {
    pub(crate) packets: usize,
    pub(crate) worst: Duration,
    pub(crate) p999: Duration,
}

/// The switch's process; ends when dropped.
pub(crate) struct Server {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where P4Runtime is served.
    pub(crate) address: String,
}

impl Server {
    /// Starts this program as a switch.
    pub(crate) fn start() -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::failed)?;
        let mut child = Command::new(program)
            .arg("--serve-switch")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(BenchError::failed)?;
        let missing = || BenchError::failed("the switch's process has no pipes");
        let commands = child.stdin.take().ok_or_else(missing)?;
        let answers = child.stdout.take().ok_or_else(missing)?;
        let mut server = Self {
            child,
            commands,
            answers: BufReader::new(answers),
            address: String::new(),
        };
        server.address = server.line()?;
        Ok(server)
    }

    fn line(&mut self) -> Result<String, BenchError> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .map_err(BenchError::failed)?;
        match line.strip_suffix('\n') {
            Some(line) => Ok(line.to_owned()),
            None => Err(BenchError::failed("the switch's process has ended")),
        }
    }

    /// The times between packets since the last call; the first call starts the packets.
    pub(crate) fn gaps(&mut self) -> Result<Gaps, BenchError> {
        writeln!(self.commands, "gaps").map_err(BenchError::failed)?;
        let line = self.line()?;
        if let Some(error) = line.strip_prefix("error ") {
            return Err(BenchError::failed(error));
        }
        let numbers: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [packets, worst, p999] = numbers[..] else {
            return Err(BenchError::failed(format!("what does {line:?} mean")));
        };
        Ok(Gaps {
            packets: packets as usize,
            worst: Duration::from_nanos(worst),
            p999: Duration::from_nanos(p999),
        })
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process's resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64, BenchError> {
        resident_bytes(self.child.id())
    }
}

/// A process's resident memory, in bytes.
pub(crate) fn resident_bytes(process: u32) -> Result<u64, BenchError> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).map_err(BenchError::failed)?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| BenchError::failed(format!("{path} has no VmRSS")))
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is fine; there is nothing else to be done about an error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the packets' thread and the command loop share.
#[derive(Default)]
struct Shared {
    gaps_ns: Mutex<Vec<u64>>,
    lost: AtomicBool,
}

/// Sends flow 0's packets for ever, and notes when they leave.
fn packets(inside: &ChannelPort, outside: &ChannelPort, shared: &Shared) {
    let Ok(frame) = gateway::frame(0) else { return };
    let mut last: Option<Instant> = None;
    loop {
        inside.inject(&frame);
        if outside.receive(PATIENCE).is_none() {
            shared.lost.store(true, Ordering::SeqCst);
            return;
        }
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            let gap = now.duration_since(last).as_nanos() as u64;
            let mut gaps = shared
                .gaps_ns
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            gaps.push(gap);
        }
        std::thread::sleep(PACE);
    }
}

/// The answer to `gaps`.
fn summary(shared: &Shared) -> String {
    if shared.lost.load(Ordering::SeqCst) {
        return "error a packet of the established flow was lost".to_owned();
    }
    let mut gaps = std::mem::take(
        &mut *shared
            .gaps_ns
            .lock()
            .unwrap_or_else(PoisonError::into_inner),
    );
    gaps.sort_unstable();
    let at = |share: f64| {
        let index = (gaps.len() as f64 * share) as usize;
        gaps.get(index).or(gaps.last()).copied().unwrap_or(0)
    };
    format!("{} {} {}", gaps.len(), at(1.0), at(0.999))
}

async fn switch() -> Result<Handle, BenchError> {
    run(Config::default()).await.map_err(BenchError::failed)
}

/// What `--serve-switch` does: a switch, until standard input ends.
pub(crate) fn serve() -> Result<(), BenchError> {
    let runtime = tokio::runtime::Runtime::new().map_err(BenchError::failed)?;
    let handle = runtime.block_on(switch())?;
    let inside = handle.switch().attach_channel(INSIDE.into(), QUEUE_FRAMES);
    let outside = handle.switch().attach_channel(OUTSIDE.into(), QUEUE_FRAMES);
    println!("{}", handle.addr());
    let shared = Arc::new(Shared::default());
    let mut waiting = Some((inside, outside));
    for line in std::io::stdin().lock().lines() {
        match line.map_err(BenchError::failed)?.as_str() {
            "gaps" => {
                if let Some((inside, outside)) = waiting.take() {
                    let shared = Arc::clone(&shared);
                    // It ends with the process.
                    std::thread::spawn(move || packets(&inside, &outside, &shared));
                }
                println!("{}", summary(&shared));
            }
            other => println!("error unknown command {other:?}"),
        }
    }
    Ok(())
}
