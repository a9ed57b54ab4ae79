//! One VPC's flood through a worker's loop on DPDK rings: the other VPC's packets get through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use shunt_dpdk::{Burst, CAPACITY, DEFAULT_DATA_ROOM, Eal, EalConfig, Pool, RingEnd, RingPort};
use shunt_p4::{PuntReason, ShuntHeader};
use shunt_slowpath::worker::run::{Peers, Queues, Runner, Wire};
use shunt_slowpath::worker::{Worker, WorkerConfig};
use shunt_slowpath::{DropReason, FibWriter, exception};

const RING: u32 = 1024;

fn inject(end: &mut RingEnd, pool: &Pool, interface: u16, frame: &[u8]) -> bool {
    let header = ShuntHeader {
        reason: PuntReason::FlowMiss as u8,
        interface,
        vpc: interface,
        port: interface,
        flow_hash: 1,
    };
    let mut burst = Burst::new();
    let bytes = [header.encode().as_slice(), frame].concat();
    burst
        .push(pool.alloc_copy(&bytes).expect("a buffer"))
        .unwrap();
    end.inject.burst(&mut burst) == 1
}

/// Packets that left, by the interface that their client is behind.
fn drain(end: &mut RingEnd, left: &mut [u64; 2]) {
    let mut burst = Burst::new();
    while end.drain.burst(&mut burst) > 0 {
        for mbuf in burst.drain() {
            let seen = Seen::new(mbuf.data());
            // blue's server has another port.
            left[usize::from(seen.dst.port() == 81)] += 1;
        }
    }
}

#[test]
fn a_flood_in_one_vpc_leaves_another_untouched() {
    let eal = Eal::init(EalConfig {
        memory_mib: 64,
        ..EalConfig::default()
    })
    .expect("DPDK starts");
    let pool = Pool::new(&eal, "fair", 8191, DEFAULT_DATA_ROOM).unwrap();
    let (port, mut ends) = RingPort::pair(&eal, "fair", &pool, 1, RING).unwrap();
    let mut end = ends.remove(0);
    let (mut fib, factory) = FibWriter::new();
    fib.apply(network());
    fib.set_policy(shunt_slowpath::Policy {
        weights: vec![(vpc(RED), 32), (vpc(BLUE), 1)],
        ..policy()
    });
    fib.publish();
    let (offload, _installer) = shunt_offload::channel(64);
    let (exception, _receiver, _sender) = exception::channel();
    let config = WorkerConfig {
        max_connections: 100,
        seed: 1,
    };
    let worker = Worker::new(config, factory.reader(), offload, exception);
    let queues = Queues {
        wires: vec![Wire::Port {
            rx: port.rx_queue(0).unwrap(),
            tx: port.tx_queue(0).unwrap(),
            others: Vec::new(),
        }],
        peers: Peers::default(),
        pool,
        tables: factory.reader(),
    };
    let mut runner = Runner::new(worker, queues);
    let flood = udp("10.0.0.2:1000", "192.0.2.80:80");
    let trickle = udp("10.0.0.2:2000", "192.0.2.80:81");
    let (mut flooded, mut trickled) = (0, 0);
    let mut left = [0; 2];
    for _ in 0..2000 {
        // Six times what a round walks, and one packet of the other VPC at the end of it.
        for _ in 0..6 * CAPACITY {
            flooded += u64::from(inject(&mut end, &pool, RED, &flood));
        }
        trickled += u64::from(inject(&mut end, &pool, BLUE, &trickle));
        runner.round(|| SECOND);
        drain(&mut end, &mut left);
    }
    assert_eq!(trickled, 2000, "the ring was emptied in every round");
    for _ in 0..100 {
        runner.round(|| SECOND);
        drain(&mut end, &mut left);
    }
    let stats = runner.worker().stats();
    let dropped = |n| stats.dropped_in(vpc(n), DropReason::VpcQueueFull);
    assert_eq!(
        (left[1], dropped(BLUE)),
        (trickled, 0),
        "nothing of blue is lost"
    );
    assert_eq!(
        left[0] + dropped(RED),
        flooded,
        "all of red is accounted for"
    );
    assert!(dropped(RED) > flooded / 2);
    assert_eq!(stats.received.packets, flooded + trickled);
}
