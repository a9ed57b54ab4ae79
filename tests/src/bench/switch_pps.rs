//! `switch-pps`: packets a second of one core of the embedded switch, ports in this process,
//! every packet a hit of a NAT flow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shunt_switch::{ChannelPort, Config, Port, PortError, Switch};

use crate::flows;
use crate::gateway::{self, INSIDE, OUTSIDE};
use crate::report::{BenchError, Report, median};

/// Offloaded flows.
const FLOWS: u32 = 100_000;
/// Frames that lie ready, of flows chosen at random; they are gone through in turn.
const FRAMES: usize = 1 << 18;
/// Frames between two looks at the clock.
const CHUNK: usize = 4096;
/// Frames handed over together, as a driver does.
const BURST: usize = 32;
const RUN: Duration = Duration::from_secs(1);
const RUNS: usize = 7;
/// Longest frame that leaves.
const ROOM: usize = 128;

/// Room for one frame.
struct Slot {
    len: usize,
    bytes: [u8; ROOM],
}

impl Slot {
    fn put(&mut self, frame: &[u8]) -> bool {
        let Some(to) = self.bytes.get_mut(..frame.len()) else {
            return false;
        };
        to.copy_from_slice(frame);
        self.len = frame.len();
        true
    }
}

/// Takes frames: counts them and keeps the last one, as a driver copies it to its ring.
struct Wan {
    frames: AtomicU64,
    last: Mutex<Slot>,
}

impl Port for Wan {
    fn transmit(&self, frame: &[u8]) -> Result<(), PortError> {
        match self.transmit_burst(&[frame]) {
            0 => Err(PortError::Full),
            _ => Ok(()),
        }
    }

    fn transmit_burst(&self, frames: &[&[u8]]) -> usize {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = frames.iter().filter(|frame| last.put(frame)).count();
        self.frames.fetch_add(taken as u64, Ordering::Relaxed);
        taken
    }
}

impl Wan {
    fn last(&self) -> Vec<u8> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.bytes.get(..last.len).unwrap_or_default().to_vec()
    }
}

/// Every flow once: what leaves is right to the last byte.
fn check(port: &ChannelPort, wan: &Wan) -> Result<(), BenchError> {
    for flow in 0..FLOWS {
        let before = wan.frames.load(Ordering::Relaxed);
        port.inject(&gateway::frame(flow)?);
        let left = wan.frames.load(Ordering::Relaxed) - before;
        if left != 1 || wan.last() != gateway::translated(flow)? {
            return Err(BenchError::failed(format!(
                "flow {flow}: {left} frames left, the last one {:02x?}",
                wan.last()
            )));
        }
    }
    Ok(())
}

/// Packets a second of one run.
fn measure(port: &ChannelPort, wan: &Wan, frames: &[Vec<u8>]) -> Result<f64, BenchError> {
    let before = wan.frames.load(Ordering::Relaxed);
    let mut injected = 0;
    let start = Instant::now();
    'run: loop {
        for chunk in frames.chunks(CHUNK) {
            for burst in chunk.chunks(BURST) {
                port.inject_burst(burst.iter().map(Vec::as_slice));
            }
            injected += chunk.len() as u64;
            if start.elapsed() >= RUN {
                break 'run;
            }
        }
    }
    let rate = injected as f64 / start.elapsed().as_secs_f64();
    let left = wan.frames.load(Ordering::Relaxed) - before;
    if left == injected {
        Ok(rate)
    } else {
        Err(BenchError::failed(format!("{injected} in, {left} out")))
    }
}

fn rate(port: &ChannelPort, wan: &Wan, flows: u32) -> Result<f64, BenchError> {
    let frames = flows::shuffled(FRAMES, flows).map(gateway::frame);
    let frames = frames.collect::<Result<Vec<_>, _>>()?;
    let rates = (0..RUNS).map(|_| measure(port, wan, &frames));
    Ok(median(rates.collect::<Result<_, _>>()?))
}

fn ports(switch: &Switch) -> (ChannelPort, Arc<Wan>) {
    let wan = Arc::new(Wan {
        frames: AtomicU64::new(0),
        last: Mutex::new(Slot {
            len: 0,
            bytes: [0; ROOM],
        }),
    });
    switch.attach_port(OUTSIDE.into(), Arc::clone(&wan) as Arc<dyn Port>);
    (switch.attach_channel(INSIDE.into(), 1), wan)
}

/// The benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Runtime::new().map_err(BenchError::failed)?;
    let handle = runtime
        .block_on(shunt_switch::run(Config::default()))
        .map_err(BenchError::failed)?;
    let address = handle.addr().to_string();
    let _client = runtime.block_on(flows::configure(address, FLOWS))?;
    let (port, wan) = ports(handle.switch());
    check(&port, &wan)?;
    let all = rate(&port, &wan, FLOWS)?;
    report.metric("packets", all, "packets/s");
    report.metric("time", 1e9 / all, "ns/packet");
    let one = rate(&port, &wan, 1)?;
    report.metric("packets of a single flow", one, "packets/s");
    Ok(())
}
