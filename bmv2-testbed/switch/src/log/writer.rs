//! Writes the log from a thread of its own, so that a slow disk or terminal never holds a packet.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::PacketTrace;
use crate::state::lock;
use crate::switch::TraceSink;

/// Traces that wait to be written; more are dropped, and their number is noted in the log.
const QUEUE: usize = 8192;
/// Events of all traces that wait, some 100 MB.
const QUEUE_EVENTS: usize = 1 << 20;

/// How packets are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Several lines a packet, for people.
    #[default]
    Text,
    /// One JSON object a line; see [`super::Record`].
    Json,
}

/// When a log file is set aside, as simple_switch's `--log-file-max-size` and `-files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The file is set aside before it grows beyond that.
    pub max_bytes: u64,
    /// Files kept besides the one written; `FILE.1` is the youngest.
    pub max_files: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            max_bytes: 5 << 20,
            max_files: 3,
        }
    }
}

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Console,
    /// A file, started afresh.
    File {
        /// Its name.
        path: PathBuf,
        /// When it is set aside.
        rotation: Rotation,
        /// Whether each packet is on disk before the next is written; else the file is complete
        /// whenever no packet waits.
        flush: bool,
    },
}

/// The log file could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the log file {}: {why}", path.display())]
pub struct LogError {
    path: PathBuf,
    why: std::io::Error,
}

/// Writes packets until it is dropped; dropping it writes what waits.
#[derive(Debug)]
pub struct Logger {
    sender: Arc<Mutex<Option<SyncSender<PacketTrace>>>>,
    backlog: Arc<Backlog>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Backlog {
    /// Events that wait.
    events: AtomicUsize,
    /// Packets that found no room since the last note.
    lost: AtomicU64,
}

enum Output {
    Console(std::io::Stdout),
    File {
        file: BufWriter<File>,
        path: PathBuf,
        rotation: Rotation,
        flush: bool,
        written: u64,
    },
}

fn create(path: &Path) -> std::io::Result<BufWriter<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    Ok(BufWriter::new(file))
}

/// `path` with `.number` behind.
fn aside(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

impl Output {
    fn write(&mut self, text: &str) -> std::io::Result<()> {
        match self {
            Self::Console(out) => out.lock().write_all(text.as_bytes()),
            Self::File {
                file,
                path,
                rotation,
                flush,
                written,
            } => {
                let len = text.len() as u64;
                if *written > 0 && *written + len > rotation.max_bytes {
                    file.flush()?;
                    for number in (1..=rotation.max_files).rev() {
                        let from = match number {
                            1 => path.clone(),
                            _ => aside(path, number - 1),
                        };
                        if from.exists() {
                            std::fs::rename(from, aside(path, number))?;
                        }
                    }
                    *file = create(path)?;
                    *written = 0;
                }
                *written += len;
                file.write_all(text.as_bytes())?;
                if *flush { file.flush() } else { Ok(()) }
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Console(out) => out.lock().flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

impl Logger {
    /// Starts the writing thread. At most `dump` bytes of each frame are shown.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn start(target: Target, form: Form, dump: usize) -> Result<Self, LogError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |why| LogError { path, why }
        };
        let (output, path) = match target {
            Target::Console => (Output::Console(std::io::stdout()), PathBuf::from("stdout")),
            Target::File {
                path,
                rotation,
                flush,
            } => {
                let file = create(&path).map_err(failed(&path))?;
                let output = Output::File {
                    file,
                    path: path.clone(),
                    rotation,
                    flush,
                    written: 0,
                };
                (output, path)
            }
        };
        let (sender, receiver) = sync_channel(QUEUE);
        let backlog = Arc::new(Backlog::default());
        let thread = std::thread::Builder::new()
            .name("log".into())
            .spawn({
                let backlog = Arc::clone(&backlog);
                move || write_all(&receiver, output, form, dump, &backlog)
            })
            .map_err(failed(&path))?;
        Ok(Self {
            sender: Arc::new(Mutex::new(Some(sender))),
            backlog,
            thread: Some(thread),
        })
    }

    /// What takes the packets: [`crate::Options::trace`].
    pub fn sink(&self) -> TraceSink {
        let sender = Arc::clone(&self.sender);
        let backlog = Arc::clone(&self.backlog);
        Arc::new(move |trace: PacketTrace| {
            let events = trace.trace.events.len();
            let waiting = backlog.events.fetch_add(events, Ordering::Relaxed);
            let sent = waiting <= QUEUE_EVENTS
                && lock(&sender)
                    .as_ref()
                    .is_some_and(|s| s.try_send(trace).is_ok());
            if !sent {
                backlog.events.fetch_sub(events, Ordering::Relaxed);
                backlog.lost.fetch_add(1, Ordering::Relaxed);
            }
        })
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        lock(&self.sender).take();
        if let Some(thread) = self.thread.take() {
            // A panic there has told its own story.
            let _ = thread.join();
        }
    }
}

fn render(trace: &PacketTrace, form: Form, dump: usize) -> String {
    let record = trace.record(dump);
    match form {
        Form::Text => record.to_string(),
        Form::Json => {
            let mut line = serde_json::to_string(&record).unwrap_or_default();
            line.push('\n');
            line
        }
    }
}

/// Says how many packets are missing at this place.
fn gap(lost: u64, form: Form) -> String {
    match form {
        Form::Text => format!("({lost} packets are not logged: they came faster than this)\n"),
        Form::Json => format!("{{\"packets_lost\":{lost}}}\n"),
    }
}

fn write_all(
    traces: &Receiver<PacketTrace>,
    mut output: Output,
    form: Form,
    dump: usize,
    backlog: &Backlog,
) {
    let mut told = false;
    let mut note = |result: std::io::Result<()>| {
        // Once: a log that cannot be written is no reason to stop forwarding.
        if let Err(error) = result
            && !std::mem::replace(&mut told, true)
        {
            tracing::error!(%error, "the packet log cannot be written");
        }
    };
    loop {
        let trace = match traces.try_recv() {
            Ok(trace) => trace,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                note(output.flush());
                match traces.recv() {
                    Ok(trace) => trace,
                    Err(_) => break,
                }
            }
        };
        let events = trace.trace.events.len();
        backlog.events.fetch_sub(events, Ordering::Relaxed);
        note(output.write(&render(&trace, form, dump)));
        let missing = backlog.lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            note(output.write(&gap(missing, form)));
        }
    }
    note(output.flush());
}
