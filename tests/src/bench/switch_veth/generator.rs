//! Sends frames into one interface as fast as they come out of another.
//!
//! Only so many frames are on the way at a time: a switch that is overrun would spend its time
//! on frames that are dropped later, and one's rate would depend on how the other end drops.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use pcap::{Active, Capture, Direction};

use crate::report::BenchError;
use crate::{flows, gateway};

/// Frames of one system call.
const BATCH: usize = 16;
/// Frames that lie ready.
const FRAMES: usize = 1 << 14;
/// Between two looks at the counter, when too many are on the way.
const PAUSE: Duration = Duration::from_micros(20);
/// When nothing has come out for so long, what is on the way is lost.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long the first frame may take.
const FIRST: Duration = Duration::from_secs(5);

pub(super) struct Generator {
    send: Capture<Active>,
    outside: String,
    frames: Vec<Vec<u8>>,
}

fn open(device: &str) -> Result<Capture<Active>, BenchError> {
    let inactive = Capture::from_device(device).map_err(BenchError::failed)?;
    inactive
        .promisc(true)
        .immediate_mode(true)
        .snaplen(2048)
        .timeout(10)
        .open()
        .map_err(BenchError::failed)
}

/// Frames that an interface has received.
fn received(device: &str) -> Result<u64, BenchError> {
    // Of this thread's network namespace, which /sys may not show.
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").map_err(BenchError::failed)?;
    let line = text.lines().find_map(|line| {
        let (name, counts) = line.split_once(':')?;
        (name.trim() == device).then_some(counts)
    });
    let packets = line.and_then(|counts| counts.split_whitespace().nth(1)?.parse().ok());
    packets.ok_or_else(|| BenchError::failed(format!("{device} has no counters")))
}

impl Generator {
    /// Frames go in at `inside` and come out at `outside`.
    pub(super) fn open(inside: &str, outside: &str, flows: u32) -> Result<Self, BenchError> {
        let mut send = open(inside)?;
        // It never reads: no frame is to be copied for it.
        send.filter("len > 65535", true)
            .map_err(BenchError::failed)?;
        let frames = flows::shuffled(FRAMES, flows).map(gateway::frame);
        Ok(Self {
            send,
            outside: outside.to_owned(),
            frames: frames.collect::<Result<_, _>>()?,
        })
    }

    /// What comes out is right.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        let mut outside = open(&self.outside)?;
        outside
            .direction(Direction::In)
            .map_err(BenchError::failed)?;
        self.send
            .sendpacket(gateway::frame(1)?)
            .map_err(BenchError::failed)?;
        let start = Instant::now();
        while start.elapsed() < FIRST {
            match outside.next_packet() {
                Ok(packet) if packet.data == gateway::translated(1)? => return Ok(()),
                Ok(packet) => {
                    let why = format!("not as expected: {:02x?}", packet.data);
                    return Err(BenchError::failed(why));
                }
                Err(pcap::Error::TimeoutExpired) => {}
                Err(error) => return Err(BenchError::failed(error)),
            }
        }
        Err(BenchError::failed("the first frame did not come out"))
    }

    fn send(&self, frames: &[Vec<u8>]) -> Result<u64, BenchError> {
        let slices: Vec<_> = frames.iter().map(|f| [IoSlice::new(f)]).collect();
        let mut headers = MultiHeaders::<()>::preallocate(slices.len(), None);
        let addresses = vec![None; slices.len()];
        let (socket, flags) = (self.send.as_raw_fd(), MsgFlags::empty());
        match sendmmsg(socket, &mut headers, &slices, addresses, [], flags) {
            Ok(sent) => Ok(sent.count() as u64),
            // The queue is full for now.
            Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EAGAIN) => Ok(0),
            Err(error) => Err(BenchError::failed(error)),
        }
    }

    /// Sends for so long, at most `window` frames on the way; returns how many came out a second.
    pub(super) fn run(&self, time: Duration, window: u64) -> Result<f64, BenchError> {
        let start = Instant::now();
        let first = received(&self.outside)?;
        let (mut out, mut last_progress) = (first, start);
        // Sent and neither out nor given up.
        let mut on_the_way = 0;
        let mut batches = self.frames.chunks(BATCH).cycle();
        while start.elapsed() < time {
            if on_the_way + BATCH as u64 <= window {
                on_the_way += self.send(batches.next().unwrap_or_default())?;
            }
            let now = received(&self.outside)?;
            if now > out {
                on_the_way = on_the_way.saturating_sub(now - out);
                (out, last_progress) = (now, Instant::now());
            } else if last_progress.elapsed() > PATIENCE {
                on_the_way = 0;
                last_progress = Instant::now();
            } else if on_the_way + BATCH as u64 > window {
                std::thread::sleep(PAUSE);
            }
        }
        Ok((out - first) as f64 / start.elapsed().as_secs_f64())
    }
}
