//! The whole slow path on DPDK: manager, worker thread, exception path, offload port; frames go
//! in and out of an in-process ring port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use shunt_dpdk::{Burst, DEFAULT_DATA_ROOM, Eal, EalConfig, Pool, RingEnd, RingPort};
use shunt_offload::{OffloadCommand, OffloadEvent};
use shunt_p4::{PuntReason, ShuntHeader};
use shunt_slowpath::exception::{self, ExceptionEvent};
use shunt_slowpath::{
    DropReason, FibWriter, FlowCursor, FlowFilter, Manager, ManagerError, Offload, PortDevice,
    SlowPathConfig, State,
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Wire {
    end: RingEnd,
    pool: Pool,
}

impl Wire {
    fn inject(&mut self, interface: u16, frame: &[u8]) {
        let header = ShuntHeader {
            reason: PuntReason::FlowMiss as u8,
            interface,
            vpc: interface,
            port: interface,
            flow_hash: 1,
        };
        let mut burst = Burst::new();
        let mut mbuf = self.pool.alloc().expect("a buffer");
        mbuf.extend_from_slice(&header.encode()).unwrap();
        mbuf.extend_from_slice(frame).unwrap();
        burst.push(mbuf).unwrap();
        assert_eq!(self.end.inject.burst(&mut burst), 1);
    }

    fn drain(&mut self) -> Vec<u8> {
        let mut burst = Burst::new();
        let mut one = until(|| {
            self.end.drain.burst(&mut burst);
            (!burst.is_empty()).then(|| std::mem::take(&mut burst))
        });
        assert_eq!(one.len(), 1);
        one.pop().unwrap().data().to_vec()
    }
}

/// Waits for something with a deadline.
fn until<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// One test, because EAL starts once a process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_flows_and_counters_through_a_running_slow_path() {
    let eal = Eal::init(EalConfig {
        memory_mib: 64,
        ..EalConfig::default()
    })
    .expect("DPDK starts");
    let pool = Pool::new(&eal, "slowpath", 2047, DEFAULT_DATA_ROOM).unwrap();
    let (port, mut ends) = RingPort::pair(&eal, "slowpath", &pool, 1, 256).unwrap();
    let mut wire = Wire {
        end: ends.remove(0),
        pool,
    };

    let (mut fib, factory) = FibWriter::new();
    fib.apply(network());
    fib.set_policy(policy());
    fib.publish();
    let (offload, mut installer) = shunt_offload::channel(64);
    let (exception, mut receiver, mut sender) = exception::channel();
    let mut config = SlowPathConfig::new(PortDevice::Vdev("net_ring_slowpath".into()));
    config.max_connections = 1000;

    let none = Manager::start_on(&eal, vec![port], pool, &config, &factory, vec![], vec![]);
    assert!(matches!(
        none,
        Err(ManagerError::Ports {
            workers: 1,
            switches: 1
        })
    ));
    let (port, mut ends) = RingPort::pair(&eal, "slowpath2", &pool, 1, 256).unwrap();
    wire.end = ends.remove(0);
    let manager = Manager::start_on(
        &eal,
        vec![port],
        pool,
        &config,
        &factory,
        vec![vec![offload]],
        vec![exception],
    )
    .unwrap();
    let handle = manager.handle();

    // A TCP connection through NAT.
    let (client, server) = ("10.0.0.2:1234", "192.0.2.80:80");
    wire.inject(RED, &tcp(client, server, "S"));
    let out = Seen::new(&wire.drain());
    assert_eq!((out.interface, out.src.ip()), (WAN, ip("203.0.113.10")));
    wire.inject(WAN, &tcp(server, &out.src.to_string(), "SA"));
    assert_eq!(Seen::new(&wire.drain()).dst, sock(client));
    wire.inject(RED, &tcp(client, server, "A"));
    wire.drain();
    let Some(OffloadCommand::Install(unit)) = until(|| installer.take().map(Some)) else {
        panic!("no installation")
    };
    assert!(unit.decided_ns >= unit.first_packet_ns);
    installer.send(OffloadEvent::Installed(unit.id)).unwrap();

    // The kernel's frames, up and down.
    let ping = echo("10.0.0.2", "10.0.0.1", 3, true);
    wire.inject(RED, &ping);
    let event = tokio::time::timeout(PATIENCE, receiver.recv())
        .await
        .expect("in time");
    let Some(ExceptionEvent::Frame(frame)) = event else {
        panic!("no frame but {event:?}")
    };
    assert_eq!((frame.interface, &frame.frame), (interface_id(RED), &ping));
    let pong = echo("10.0.0.1", "10.0.0.2", 3, false);
    sender.send(interface_id(RED), pong).unwrap();
    assert_eq!(Seen::new(&wire.drain()).dst, sock("10.0.0.2:3"));

    // A neighbour that is resolved while a packet waits for it.
    wire.inject(RED, &udp("10.0.0.2:9", "10.0.0.77:9"));
    let event = tokio::time::timeout(PATIENCE, receiver.recv())
        .await
        .expect("in time");
    assert_eq!(
        event,
        Some(ExceptionEvent::Resolve(interface_id(RED), ip("10.0.0.77")))
    );
    fib.apply([shunt_p4::NetworkOp::SetNeighbor(
        interface_id(RED),
        ip("10.0.0.77"),
        host_mac(ip("10.0.0.77")),
    )]);
    fib.publish();
    assert_eq!(Seen::new(&wire.drain()).dst_mac, host_mac(ip("10.0.0.77")));

    // What the agent asks.
    let page = handle
        .list_flows(FlowFilter::default(), FlowCursor::default(), 1)
        .await
        .unwrap();
    assert_eq!(page.flows.len(), 1);
    let rest = handle
        .list_flows(FlowFilter::default(), page.next.expect("more"), 100)
        .await
        .unwrap();
    assert_eq!((rest.flows.len(), rest.next), (1, None));
    assert_eq!(page.flows[0].offload, Offload::Installed);
    assert_eq!(page.flows[0].state, State::Established);

    wire.inject(RED, b"too short");
    let stats = loop {
        let stats = handle.stats().await.unwrap();
        if stats.counters.dropped(DropReason::Truncated) > 0 {
            break stats;
        }
    };
    assert_eq!(stats.connections(), 2);
    assert_eq!(
        (stats.in_state(State::Established), stats.census.offloaded),
        (1, 1)
    );
    assert_eq!(stats.counters.received.packets, 6);
    assert_eq!(stats.counters.sent.packets, 5);
    assert_eq!(stats.counters.punted(PuntReason::FlowMiss), 6);
    assert_eq!(stats.pools.iter().map(|pool| pool.leased).sum::<u32>(), 1);
    assert_eq!(stats.capacity, 1000);
    assert_eq!(stats.ports[0].expect("the ring's counters").rx_packets, 6);

    assert_eq!(handle.delete_flows(FlowFilter::default()).await.unwrap(), 2);
    let removal = until(|| installer.take());
    assert!(
        matches!(removal, OffloadCommand::Remove { id, .. } if id == unit.id),
        "{removal:?}"
    );
    installer.send(OffloadEvent::Removed(unit.id)).unwrap();
    while handle.stats().await.unwrap().connections() > 0 {}

    let stop = Instant::now();
    manager.shutdown().await;
    assert!(
        stop.elapsed() < Duration::from_secs(2),
        "{:?}",
        stop.elapsed()
    );
    assert!(matches!(handle.stats().await, Err(ManagerError::Stopped)));
    assert_eq!(receiver.recv().await, None, "the worker's end is gone");
}
