//! Ports of in-process rings: inject, receive, send, drain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use shunt_dpdk::{
    Burst, CAPACITY, Pool, Port, PortConfig, PortError, RingError, RingPort, ThreadError,
    register_thread, spawn_worker,
};

fn frame(pool: &Pool, bytes: &[u8]) -> Burst {
    let mut burst = Burst::new();
    burst.push(pool.alloc_copy(bytes).unwrap()).unwrap();
    shunt_dpdk::prefetch(burst[0].data());
    burst
}

#[test]
fn frames_go_in_and_out_unchanged() {
    let pool = common::pool("through", 1023);
    let (port, mut ends) = RingPort::pair(&common::eal(), "through", &pool, 2, 256).unwrap();
    for (queue, end) in ends.iter_mut().enumerate() {
        let (mut rx, mut tx) = (
            port.rx_queue(queue as u16).unwrap(),
            port.tx_queue(queue as u16).unwrap(),
        );
        let mut burst = frame(&pool, &[queue as u8; 60]);
        assert_eq!(end.inject.burst(&mut burst), 1);
        assert!(burst.is_empty());
        assert_eq!(rx.burst(&mut burst), 1);
        assert_eq!(burst[0].data(), [queue as u8; 60]);
        burst[0].prepend(4).unwrap().copy_from_slice(b"head");
        assert_eq!(tx.burst(&mut burst), 1);
        assert_eq!(end.drain.burst(&mut burst), 1);
        assert_eq!(&burst[0].data()[..5], [b'h', b'e', b'a', b'd', queue as u8]);
        assert_eq!(rx.dropped(), 0);
    }
    let stats = port.stats().unwrap();
    assert_eq!((stats.rx_packets, stats.tx_packets), (2, 2));
    assert_eq!(port.name(), "net_ring_through");
    port.mac().unwrap();
}

#[test]
fn full_ring_leaves_the_rest_in_the_burst_in_order() {
    const DEPTH: u32 = 40;
    let pool = common::pool("full", 255);
    let (port, mut ends) = RingPort::pair(&common::eal(), "full", &pool, 1, DEPTH).unwrap();
    let mut tx = port.tx_queue(0).unwrap();
    let mut sent = 0u8;
    let mut burst = Burst::new();
    for round in 0..2 {
        assert!(pool.alloc_into(&mut burst, CAPACITY));
        for mbuf in burst.iter_mut() {
            mbuf.extend_from_slice(&[sent; 14]).unwrap();
            sent += 1;
        }
        let took = tx.burst(&mut burst);
        assert_eq!(took, [CAPACITY, DEPTH as usize - CAPACITY][round]);
        assert_eq!(burst.len(), CAPACITY - took);
    }
    assert_eq!(burst[0].data()[0], DEPTH as u8);
    assert_eq!(tx.burst(&mut burst), 0);
    let mut drained = Burst::new();
    assert_eq!(ends[0].drain.burst(&mut drained), CAPACITY);
    assert!(
        drained
            .iter()
            .enumerate()
            .all(|(i, mbuf)| mbuf.data()[0] == i as u8)
    );
    assert_eq!(ends[0].drain.burst(&mut drained), 0, "the burst is full");
    drained.clear();
    assert_eq!(ends[0].drain.burst(&mut drained), 8);
}

#[test]
fn queues_have_one_handle_and_give_it_back() {
    let pool = common::pool("handles", 63);
    let (port, ends) = RingPort::pair(&common::eal(), "handles", &pool, 1, 8).unwrap();
    let rx = port.rx_queue(0).unwrap();
    assert!(port.rx_queue(0).is_none() && port.rx_queue(1).is_none());
    drop(rx);
    let mut rx = port.rx_queue(0).unwrap();
    // The queue keeps its port up, and the ring outlives the port.
    drop(port);
    let mut end = ends.into_iter().next().unwrap();
    let mut burst = frame(&pool, &[7; 14]);
    end.inject.burst(&mut burst);
    assert_eq!(rx.burst(&mut burst), 1);
    end.inject.burst(&mut burst);
    drop(rx);
    burst = frame(&pool, &[8; 14]);
    assert_eq!(end.inject.burst(&mut burst), 1);
    drop((end, burst));
    assert_eq!(pool.available(), 63, "what the rings held is freed");
}

#[test]
fn closed_port_frees_its_name() {
    let pool = common::pool("again", 63);
    for _ in 0..3 {
        let (port, ends) = RingPort::pair(&common::eal(), "again", &pool, 1, 8).unwrap();
        let clash = RingPort::pair(&common::eal(), "again", &pool, 1, 8).unwrap_err();
        assert!(matches!(clash, RingError::Create { .. }), "{clash}");
        let busy = Port::open(
            &common::eal(),
            "net_ring_again",
            &pool,
            &PortConfig::default(),
        )
        .unwrap_err();
        assert!(matches!(busy, PortError::Busy(_)), "{busy}");
        drop((port, ends));
        let gone = Port::open(
            &common::eal(),
            "net_ring_again",
            &pool,
            &PortConfig::default(),
        )
        .unwrap_err();
        assert!(matches!(gone, PortError::Missing(_)), "{gone}");
    }
}

#[test]
fn limits_are_refused() {
    let (eal, pool) = (common::eal(), common::pool("limits", 63));
    for (name, queues, depth) in [
        ("", 1, 8),
        ("seventeen-letters", 1, 8),
        ("x", 0, 8),
        ("x", 17, 8),
        ("x", 1, 0),
        ("x", 1, 1 << 20),
        ("a\0b", 1, 8),
    ] {
        let error = RingPort::pair(&eal, name, &pool, queues, depth).unwrap_err();
        assert!(
            matches!(error, RingError::Limits { .. }),
            "{name} {queues} {depth}: {error}"
        );
    }
    // The largest of everything works.
    let (port, ends) = RingPort::pair(&eal, "sixteen-letters-", &pool, 16, 8).unwrap();
    assert_eq!(ends.len(), 16);
    assert!(port.rx_queue(15).is_some());
}

#[test]
fn worker_forwards_between_threads() {
    const FRAMES: u64 = 20_000;
    let (eal, pool) = (common::eal(), common::pool("worker", 2047));
    let (port, ends) = RingPort::pair(&eal, "worker", &pool, 1, 128).unwrap();
    let mut end = ends.into_iter().next().unwrap();
    let (mut rx, mut tx) = (port.rx_queue(0).unwrap(), port.tx_queue(0).unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    let worker = spawn_worker(&eal, "worker", None, move |_| {
        let (mut burst, mut forwarded) = (Burst::new(), 0);
        while forwarded < FRAMES && Instant::now() < deadline {
            rx.burst(&mut burst);
            forwarded += tx.burst(&mut burst) as u64;
            std::thread::yield_now();
        }
        forwarded
    })
    .unwrap();
    let (mut burst, mut sent, mut seen) = (Burst::new(), 0u64, 0u64);
    while seen < FRAMES && Instant::now() < deadline {
        while sent < FRAMES && !burst.is_full() {
            let Some(mut mbuf) = pool.alloc() else { break };
            mbuf.extend_from_slice(&sent.to_be_bytes()).unwrap();
            burst.push(mbuf).unwrap();
            sent += 1;
        }
        end.inject.burst(&mut burst);
        let mut out = Burst::new();
        end.drain.burst(&mut out);
        for mbuf in out.drain() {
            assert_eq!(
                mbuf.data(),
                seen.to_be_bytes(),
                "in order, none lost, none twice"
            );
            seen += 1;
        }
        std::thread::yield_now();
    }
    assert_eq!((seen, worker.join().unwrap()), (FRAMES, FRAMES));
    drop((port, end, burst));
    assert_eq!(pool.available(), 2047);
}

#[test]
fn thread_registers_once_at_a_time() {
    let eal = common::eal();
    std::thread::spawn(move || {
        let first = register_thread(&eal).unwrap();
        assert!(matches!(
            register_thread(&eal),
            Err(ThreadError::AlreadyRegistered)
        ));
        drop(first);
        register_thread(&eal).unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn worker_on_a_missing_cpu_is_refused() {
    let error = spawn_worker(&common::eal(), "lost", Some(1000), |_| ()).unwrap_err();
    assert!(
        matches!(error, ThreadError::Pin { cpu: 1000, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("lost"), "{error}");
}

#[test]
fn clock_runs() {
    let (hz, first) = (shunt_dpdk::tsc_hz(&common::eal()), shunt_dpdk::tsc());
    assert!(hz > 100_000_000, "{hz}");
    assert!(shunt_dpdk::tsc() > first);
}
