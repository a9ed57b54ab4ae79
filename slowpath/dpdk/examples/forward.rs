//! Forwards frames on one core and prints Mpps: over net_null, then through
//! in-process rings from injection to draining, with the same 32 buffers.
//!
//! `cargo run --release -p shunt-dpdk --example forward [cpu]`

use std::time::{Duration, Instant};

use shunt_dpdk::{
    Burst, CAPACITY, DEFAULT_DATA_ROOM, Eal, EalConfig, Pool, Port, PortConfig, RingPort,
    spawn_worker,
};

const RUN: Duration = Duration::from_secs(3);
const FRAME: usize = 60;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let cpu = std::env::args()
        .nth(1)
        .map(|text| text.parse())
        .transpose()?;
    let eal = Eal::init(EalConfig::default())?;
    let pool = Pool::new(&eal, "bench", 16_383, DEFAULT_DATA_ROOM)?;
    let worker = spawn_worker(
        &eal,
        "bench",
        cpu,
        move |_registered| -> Result<(), Failure> {
            println!(
                "net_null, frames untouched {:7.1} Mpps",
                null(&eal, &pool, |_| ())?
            );
            println!(
                "net_null, MACs swapped     {:7.1} Mpps",
                null(&eal, &pool, swap_macs)?
            );
            println!(
                "rings, MACs swapped        {:7.1} Mpps",
                rings(&eal, &pool)?
            );
            Ok(())
        },
    )?;
    worker.join().map_err(|_| "the worker panicked")?
}

/// Receive, let `work` have the frames, send.
fn null(eal: &Eal, pool: &Pool, work: impl Fn(&mut Burst)) -> Result<f64, Failure> {
    eal.create_vdev("net_null0,size=60")?;
    let port = Port::open(eal, "net_null0", pool, &PortConfig::default())?;
    let (mut rx, mut tx) = (
        port.rx_queue(0).ok_or("no rx")?,
        port.tx_queue(0).ok_or("no tx")?,
    );
    let mut burst = Burst::new();
    let mut frames = 0;
    let start = Instant::now();
    while start.elapsed() < RUN {
        for _ in 0..1000 {
            rx.burst(&mut burst);
            work(&mut burst);
            frames += tx.burst(&mut burst);
        }
    }
    Ok(mpps(frames, start))
}

fn rings(eal: &Eal, pool: &Pool) -> Result<f64, Failure> {
    let (port, mut ends) = RingPort::pair(eal, "bench", pool, 1, 1024)?;
    let mut end = ends.pop().ok_or("no end")?;
    let (mut rx, mut tx) = (
        port.rx_queue(0).ok_or("no rx")?,
        port.tx_queue(0).ok_or("no tx")?,
    );
    let (mut far, mut near) = (Burst::new(), Burst::new());
    pool.alloc_into(&mut far, CAPACITY);
    for mbuf in far.iter_mut() {
        mbuf.append(FRAME).ok_or("no tailroom")?;
    }
    let mut frames = 0;
    let start = Instant::now();
    while start.elapsed() < RUN {
        for _ in 0..1000 {
            end.inject.burst(&mut far);
            rx.burst(&mut near);
            swap_macs(&mut near);
            tx.burst(&mut near);
            frames += end.drain.burst(&mut far);
        }
    }
    Ok(mpps(frames, start))
}

fn swap_macs(burst: &mut Burst) {
    for mbuf in burst.iter_mut() {
        if let Some((destination, rest)) = mbuf.data_mut().split_first_chunk_mut::<6>()
            && let Some(source) = rest.first_chunk_mut::<6>()
        {
            std::mem::swap(destination, source);
        }
    }
}

fn mpps(frames: usize, start: Instant) -> f64 {
    frames as f64 / start.elapsed().as_secs_f64() / 1e6
}
