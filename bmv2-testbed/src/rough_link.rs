//! A link that loses, doubles, delays and reorders frames, for kernels without netem: a tap whose
//! frames go out of a device, and the device's come in by. Which frames suffer follows from a
//! seed alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use pcap::{Active, Capture, Direction};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::{Error, Result};

/// Longest frame.
const FRAME_LEN_MAX: usize = 9234;
/// Frames under way in one direction; more are lost, as on any link.
const UNDER_WAY_MAX: usize = 1024;
/// What every frame takes.
const DELAY: Duration = Duration::from_millis(1);
/// What a frame takes that others overtake.
const LATE: Duration = Duration::from_millis(6);
/// Frames between two lines of counts.
const REPORT_EVERY: u64 = 64;

/// How rough, each in percent of the frames.
#[derive(Clone, Copy, Debug)]
pub struct Roughness {
    /// Lost.
    pub loss: u8,
    /// Sent twice.
    pub duplicate: u8,
    /// Overtaken by those behind.
    pub reorder: u8,
}

#[derive(Debug, Default)]
struct Counts {
    frames: AtomicU64,
    lost: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
}

/// Decides about frames, one after the other.
#[derive(Debug)]
struct Fate {
    rng: StdRng,
    roughness: Roughness,
}

impl Fate {
    fn new(seed: u64, roughness: Roughness) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, roughness }
    }

    /// When each copy of the next frame arrives; none: it is lost.
    fn next(&mut self, counts: &Counts) -> Vec<Duration> {
        let mut hit = |percent: u8| self.rng.random_range(0..100) < percent;
        // All three, so that one setting does not move the others' frames.
        let [lost, twice, late] = [
            hit(self.roughness.loss),
            hit(self.roughness.duplicate),
            hit(self.roughness.reorder),
        ];
        let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        add(&counts.frames);
        if lost {
            add(&counts.lost);
            return Vec::new();
        }
        let first = if late { LATE } else { DELAY };
        if late {
            add(&counts.reordered);
        }
        if twice {
            add(&counts.duplicated);
            return vec![first, DELAY];
        }
        vec![first]
    }
}

fn words(error: impl std::fmt::Display, what: &str) -> Error {
    Error::Other(format!("rough link: {what}: {error}"))
}

type UnderWay = (Instant, Vec<u8>);

/// One direction: what `receive` gives is put under way, and `deliver`ed when it is due.
fn pass_on(
    mut fate: Fate,
    counts: Arc<Counts>,
    deliver: impl FnMut(&[u8]) + Send + 'static,
    mut receive: impl FnMut(&mut dyn FnMut(&[u8])) -> Result<()>,
) -> Result<()> {
    let (sender, due): (SyncSender<UnderWay>, _) = sync_channel(UNDER_WAY_MAX);
    std::thread::spawn(move || arrive(&due, deliver));
    loop {
        receive(&mut |frame| {
            for delay in fate.next(&counts) {
                // A full queue drops.
                let _ = sender.try_send((Instant::now() + delay, frame.to_vec()));
            }
            let frames = counts.frames.load(Ordering::Relaxed);
            if frames.is_multiple_of(REPORT_EVERY) {
                let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
                println!(
                    "{frames} frames, {} lost, {} duplicated, {} reordered",
                    count(&counts.lost),
                    count(&counts.duplicated),
                    count(&counts.reordered)
                );
            }
        })?;
    }
}

/// Delivers each frame when it is due, until the sender goes.
fn arrive(under_way: &Receiver<UnderWay>, mut deliver: impl FnMut(&[u8])) {
    let mut waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut number = 0;
    loop {
        let wait = waiting.peek().map_or(Duration::from_secs(1), |next| {
            next.0.0.saturating_duration_since(Instant::now())
        });
        match under_way.recv_timeout(wait) {
            Ok((due, frame)) if waiting.len() < UNDER_WAY_MAX => {
                // Those of one moment keep their order.
                number += 1;
                waiting.push(Reverse((due, number, frame)));
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        while waiting.peek().is_some_and(|next| next.0.0 <= now) {
            if let Some(Reverse((_, _, frame))) = waiting.pop() {
                deliver(&frame);
            }
        }
    }
}

fn open(device: &str) -> Result<Capture<Active>> {
    Capture::from_device(device)
        .and_then(|inactive| {
            inactive
                .promisc(true)
                .immediate_mode(true)
                .snaplen(i32::try_from(FRAME_LEN_MAX).unwrap_or(i32::MAX))
                .open()
        })
        .map_err(|error| words(error, device))
}

/// Runs until a device goes: makes the tap, prints `ready`, moves frames, and prints counts now
/// and then.
pub fn run(device: &str, tap: &str, seed: u64, roughness: Roughness) -> Result<()> {
    let tap = tun_rs::DeviceBuilder::new()
        .name(tap)
        .layer(tun_rs::Layer::L2)
        .build_sync()
        .map_err(|error| words(error, tap))?;
    let tap = Arc::new(tap);
    let mut receive = open(device)?;
    receive
        .direction(Direction::In)
        .map_err(|error| words(error, device))?;
    let mut send = open(device)?;
    println!("ready");

    let counts = Arc::new(Counts::default());
    let (from_tap, out_counts) = (Arc::clone(&tap), Arc::clone(&counts));
    let out = Fate::new(seed, roughness);
    std::thread::spawn(move || {
        let mut frame = vec![0; FRAME_LEN_MAX];
        let deliver = move |frame: &[u8]| {
            let _ = send.sendpacket(frame);
        };
        pass_on(out, out_counts, deliver, |seen| {
            let length = from_tap
                .recv(&mut frame)
                .map_err(|error| words(error, "tap"))?;
            seen(&frame[..length]);
            Ok(())
        })
    });
    let device = device.to_owned();
    let deliver = move |frame: &[u8]| {
        let _ = tap.send(frame);
    };
    // The other direction has a fate of its own.
    let back = Fate::new(seed.wrapping_add(1), roughness);
    pass_on(back, counts, deliver, |seen| match receive.next_packet() {
        Ok(packet) => {
            seen(packet.data);
            Ok(())
        }
        Err(pcap::Error::TimeoutExpired) => Ok(()),
        Err(error) => Err(words(error, &device)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUGH: Roughness = Roughness {
        loss: 10,
        duplicate: 10,
        reorder: 10,
    };

    #[test]
    fn the_same_seed_has_the_same_fate() {
        let fates = |seed| {
            let (mut fate, counts) = (Fate::new(seed, ROUGH), Counts::default());
            let all: Vec<_> = (0..200).map(|_| fate.next(&counts)).collect();
            (all, counts.lost.into_inner())
        };
        let (one, lost) = fates(7);
        assert_eq!(one, fates(7).0);
        assert_ne!(one, fates(8).0);
        assert!((5..60).contains(&lost), "{lost} of 200");
        for copies in [0, 1, 2] {
            assert!(one.iter().any(|fate| fate.len() == copies), "{copies}");
        }
        assert!(one.iter().flatten().any(|delay| *delay == LATE));
    }

    #[test]
    fn frames_arrive_when_they_are_due() {
        let (sender, receiver) = sync_channel(8);
        let now = Instant::now();
        for (ms, frame) in [(30, 1), (10, 2), (10, 3)] {
            let due = now + Duration::from_millis(ms);
            sender.send((due, vec![frame])).unwrap();
        }
        let (arrived, order) = sync_channel(8);
        let thread = std::thread::spawn(move || {
            arrive(&receiver, |frame| arrived.send(frame[0]).unwrap());
        });
        let order: Vec<u8> = (0..3).map(|_| order.recv().unwrap()).collect();
        assert_eq!(order, [2, 3, 1]);
        drop(sender);
        thread.join().unwrap();
    }
}
