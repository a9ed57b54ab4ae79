//! Two workers on a port with one queue: the first one receives for both and sends for both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use shunt_dpdk::{Burst, DEFAULT_DATA_ROOM, Eal, EalConfig, Pool, RingEnd, RingPort};
use shunt_p4::{PuntReason, ShuntHeader};
use shunt_slowpath::{
    FibWriter, FlowCursor, FlowFilter, Manager, PortDevice, SlowPathConfig, exception,
};

const PATIENCE: Duration = Duration::from_secs(20);
const CONNECTIONS: u16 = 64;

fn exchange(end: &mut RingEnd, pool: &Pool, interface: u16, frame: &[u8]) -> Seen {
    let header = ShuntHeader {
        reason: PuntReason::FlowMiss as u8,
        interface,
        vpc: interface,
        port: interface,
        flow_hash: 1,
    };
    let bytes = [header.encode().as_slice(), frame].concat();
    let mut burst = Burst::new();
    burst
        .push(pool.alloc_copy(&bytes).expect("a buffer"))
        .unwrap();
    assert_eq!(end.inject.burst(&mut burst), 1);
    let deadline = Instant::now() + PATIENCE;
    while end.drain.burst(&mut burst) == 0 {
        assert!(Instant::now() < deadline, "nothing came back");
        std::thread::yield_now();
    }
    assert_eq!(burst.len(), 1);
    Seen::new(burst.pop().unwrap().data())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_with_one_queue_serves_two_workers() {
    let eal = Eal::init(EalConfig {
        memory_mib: 64,
        ..EalConfig::default()
    })
    .expect("DPDK starts");
    let pool = Pool::new(&eal, "two", 2047, DEFAULT_DATA_ROOM).unwrap();
    let (port, mut ends) = RingPort::pair(&eal, "two", &pool, 1, 256).unwrap();
    let mut end = ends.remove(0);
    let (mut fib, factory) = FibWriter::new();
    fib.apply(network());
    fib.set_policy(policy());
    fib.publish();
    let mut config = SlowPathConfig::new(PortDevice::Vdev("net_ring_two".into()));
    (config.workers, config.max_connections) = (2, 1000);
    let (mut offload, mut exceptions, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..2 {
        let (worker, installer) = shunt_offload::channel(256);
        let (port, receiver, sender) = exception::channel();
        offload.push(vec![worker]);
        exceptions.push(port);
        others.push((installer, receiver, sender));
    }
    let manager = Manager::start_on(
        &eal,
        vec![port],
        pool,
        &config,
        &factory,
        offload,
        exceptions,
    )
    .unwrap();
    let handle = manager.handle();
    for n in 0..CONNECTIONS {
        let (client, server) = (
            sock(&format!("10.0.0.2:{}", 1000 + n)),
            sock("192.0.2.80:53"),
        );
        // Short ones are handed over as a copy, long ones in their buffer.
        let payload = vec![n as u8; if n % 3 == 0 { 1000 } else { 20 }];
        let there = udp_with(client, server, 64, &payload);
        let out = exchange(&mut end, &pool, RED, &there);
        assert_eq!((out.interface, out.src.ip()), (WAN, ip("203.0.113.10")));
        assert_eq!(out.payload, payload);
        let back = udp_with(server, out.src, 64, &payload);
        let back = exchange(&mut end, &pool, WAN, &back);
        assert_eq!((back.interface, back.dst), (RED, client));
        assert_eq!(back.payload, payload);
    }
    let all = handle.list_flows(FlowFilter::default(), FlowCursor::default(), 1000);
    let flows = all.await.unwrap().flows;
    assert_eq!(flows.len(), usize::from(CONNECTIONS));
    for worker in 0..2 {
        let count = flows.iter().filter(|flow| flow.worker == worker).count();
        assert!(count > 10, "worker {worker} has {count}");
    }
    let stats = handle.stats().await.unwrap();
    assert_eq!(stats.capacity, 2000);
    assert_eq!(stats.connections(), u64::from(CONNECTIONS));
    assert_eq!(stats.counters.received.packets, 2 * u64::from(CONNECTIONS));
    assert_eq!(stats.counters.sent.packets, 2 * u64::from(CONNECTIONS));
    assert!(stats.counters.handed_over > 20);
    let leased: Vec<_> = stats.pools.iter().map(|pool| pool.leased).collect();
    assert_eq!(leased, [u32::from(CONNECTIONS)], "one line an address");
    let deleted = handle.delete_flows(FlowFilter::default()).await.unwrap();
    assert_eq!(deleted, u64::from(CONNECTIONS));
    manager.shutdown().await;
}
