//! Captures of what goes in and out of each port, as simple_switch's `--pcap`.
//!
//! A thread of its own writes, so that a slow disk never holds a packet: frames wait in a bounded
//! queue, and those that find it full are counted. Files are flushed whenever nothing waits, so
//! that a reader sees whole records a moment after the frame.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use pcap::{Capture, Linktype, Packet, PacketHeader, Precision, Savefile};

use crate::state::lock;

/// Frames that wait to be written; at most 36 MiB.
const QUEUE: usize = 4096;

/// Captures cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write captures to {}: {why}", path.display())]
pub struct CaptureError {
    path: PathBuf,
    why: String,
}

fn error(path: &Path, why: impl ToString) -> CaptureError {
    CaptureError {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    In,
    Out,
}

enum Message {
    Open(u32, Way, Savefile),
    Frame {
        port: u32,
        way: Way,
        /// Since 1970.
        seconds: i64,
        nanoseconds: i64,
        data: Vec<u8>,
    },
}

struct Shared {
    folder: PathBuf,
    sender: Mutex<Option<SyncSender<Message>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    lost: AtomicU64,
}

/// Writes captures of every port to a folder: `NAME_in.pcap` and `NAME_out.pcap`, where the name
/// is the interface's, or `port` and the number of an in-process port. Clones are handles; when
/// the last is gone, what waits has been written.
#[derive(Clone)]
pub struct Captures(Arc<Shared>);

impl std::fmt::Debug for Captures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Captures({})", self.0.folder.display())
    }
}

impl Captures {
    /// Captures in a folder that exists.
    ///
    /// # Errors
    /// There is no such folder, or no thread can be started.
    pub fn open(folder: &Path) -> Result<Self, CaptureError> {
        if !folder.is_dir() {
            return Err(error(folder, "there is no such folder; create it"));
        }
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("pcap".into())
            .spawn(move || write_all(&receiver))
            .map_err(|e| error(folder, e))?;
        Ok(Self(Arc::new(Shared {
            folder: folder.to_owned(),
            sender: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            lost: AtomicU64::new(0),
        })))
    }

    /// Starts a port's files afresh.
    pub(crate) fn add(&self, port: u32, name: &str) -> Result<(), CaptureError> {
        for (way, end) in [(Way::In, "in"), (Way::Out, "out")] {
            let path = self.0.folder.join(format!("{name}_{end}.pcap"));
            let dead = Capture::dead_with_precision(Linktype::ETHERNET, Precision::Nano)
                .map_err(|e| error(&path, e))?;
            let mut file = dead.savefile(&path).map_err(|e| error(&path, e))?;
            // A reader sees an empty capture rather than an empty file.
            file.flush().map_err(|e| error(&path, e))?;
            if let Some(sender) = &*lock(&self.0.sender) {
                // Only fails when the thread is gone, and then there is nothing to say.
                let _ = sender.send(Message::Open(port, way, file));
            }
        }
        Ok(())
    }

    /// Notes a frame; never waits.
    pub(crate) fn frame(&self, port: u32, way: Way, data: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let message = Message::Frame {
            port,
            way,
            seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(now.subsec_nanos()),
            data: data.to_vec(),
        };
        let sender = lock(&self.0.sender);
        if sender.as_ref().is_none_or(|s| s.try_send(message).is_err()) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Frames that the queue had no room for.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        lock(&self.sender).take();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic there has told its own story.
            let _ = thread.join();
        }
    }
}

struct File {
    savefile: Savefile,
    dirty: bool,
}

fn write_all(messages: &Receiver<Message>) {
    let mut files: HashMap<(u32, Way), File> = HashMap::new();
    loop {
        let message = match messages.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                flush(&mut files);
                match messages.recv() {
                    Ok(message) => message,
                    Err(_) => break,
                }
            }
        };
        match message {
            Message::Open(port, way, savefile) => {
                let dirty = false;
                files.insert((port, way), File { savefile, dirty });
            }
            Message::Frame {
                port,
                way,
                seconds,
                nanoseconds,
                data,
            } => {
                // Frames of ports without an interface (the controller's) have no file.
                if let Some(file) = files.get_mut(&(port, way)) {
                    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
                    let header = PacketHeader {
                        // With nanosecond precision libpcap takes these for nanoseconds.
                        ts: timeval(seconds, nanoseconds),
                        caplen: len,
                        len,
                    };
                    file.savefile.write(&Packet::new(&header, &data));
                    file.dirty = true;
                }
            }
        }
    }
    flush(&mut files);
}

fn flush(files: &mut HashMap<(u32, Way), File>) {
    for ((port, _), file) in files {
        if std::mem::take(&mut file.dirty)
            && let Err(error) = file.savefile.flush()
        {
            tracing::error!(port, %error, "a capture cannot be written");
        }
    }
}

fn timeval(tv_sec: i64, tv_usec: i64) -> nix::libc::timeval {
    nix::libc::timeval { tv_sec, tv_usec }
}
