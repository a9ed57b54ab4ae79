//! net_af_packet on veth pairs, in a sandbox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::time::{Duration, Instant};

use shunt_dpdk::{
    Burst, DEFAULT_DATA_ROOM, Eal, EalConfig, Pool, Port, PortConfig, RxQueue, TxQueue,
};
use shunt_testbed::sandbox;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn frames_cross_veth_in_an_unprivileged_namespace() {
    sandbox::test("frames_cross_veth_in_an_unprivileged_namespace", || {
        inside();
        Ok(())
    });
}

fn ip(arguments: &str) -> String {
    let out = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("iproute2 is installed");
    assert!(
        out.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

struct Side {
    port: Port,
    rx: RxQueue,
    tx: TxQueue,
}

impl Side {
    fn open(eal: &Eal, name: &str, pool: &Pool) -> Self {
        let port = Port::open(eal, name, pool, &PortConfig::default()).unwrap();
        let (rx, tx) = (port.rx_queue(0).unwrap(), port.tx_queue(0).unwrap());
        Self { port, rx, tx }
    }

    fn send(&mut self, pool: &Pool, frame: &[u8]) {
        let mut burst = Burst::new();
        burst.push(pool.alloc_copy(frame).unwrap()).unwrap();
        assert_eq!(self.tx.burst(&mut burst), 1);
    }

    /// The next frame that `wanted` says yes to.
    fn receive(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        let mut burst = Burst::new();
        while Instant::now() < deadline {
            self.rx.burst(&mut burst);
            for mbuf in burst.drain() {
                if wanted(mbuf.data()) {
                    return mbuf.data().to_vec();
                }
            }
            std::thread::yield_now();
        }
        panic!("no such frame on {} in {PATIENCE:?}", self.port.name());
    }
}

fn inside() {
    for pair in [
        "link add name k0 type veth peer name k1",
        "link add name d0 type veth peer name d1",
    ] {
        ip(pair);
    }
    for link in ["k0", "k1", "d0", "d1"] {
        ip(&format!("link set {link} mtu 1600 up"));
    }
    ip("address add 192.0.2.1/24 dev k1");

    let vdev = |link: &str| format!("net_af_packet_{link},iface={link}");
    let eal = Eal::init(EalConfig {
        memory_mib: 64,
        vdevs: vec![vdev("k0"), vdev("d0"), vdev("d1")],
        ..EalConfig::default()
    })
    .unwrap();
    let pool = Pool::new(&eal, "veth", 2047, DEFAULT_DATA_ROOM).unwrap();

    kernel_answers_arp(&eal, &pool);
    frames_cross_whole(&eal, &pool);
    queues_share_an_interface(&eal, &pool);
    assert_eq!(pool.available(), 2047);
}

/// An independent stack at the other end: who has 192.0.2.1, tell 192.0.2.9?
fn kernel_answers_arp(eal: &Eal, pool: &Pool) {
    let mut side = Side::open(eal, "net_af_packet_k0", pool);
    let mac = side.port.mac().unwrap();
    let text = mac.map(|byte| format!("{byte:02x}")).join(":");
    assert!(ip("link show dev k0").contains(&text), "{text}");

    let mut request = vec![0xff; 6];
    request.extend(mac);
    request.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend(mac);
    request.extend([192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    side.send(pool, &request);
    let reply =
        side.receive(|frame| frame.get(12..14) == Some(&[8, 6]) && frame.get(21) == Some(&2));
    assert_eq!(reply[..6], mac);
    assert_eq!(reply[28..32], [192, 0, 2, 1]);
    assert_eq!(reply[32..38], mac);
    let stats = side.port.stats().unwrap();
    assert!(stats.rx_packets >= 1 && stats.tx_packets == 1, "{stats:?}");
}

/// The kernel takes the VLAN tag off on the way in; the frame here has it again.
fn frames_cross_whole(eal: &Eal, pool: &Pool) {
    let mut near = Side::open(eal, "net_af_packet_d0", pool);
    let mut far = Side::open(eal, "net_af_packet_d1", pool);
    let ours = |frame: &[u8]| frame.windows(2).take(22).any(|w| w == [0x88, 0xb5]);
    let mut count = 0;
    for tags in [
        &[][..],
        &[0x81, 0, 0x00, 10],
        &[0x81, 0, 0xef, 0xff, 0x81, 0, 0, 20],
    ] {
        for len in [60, 1000, 1600] {
            let mut frame = vec![0xff; 6];
            frame.extend([2, 0, 0, 0, 0, 1]);
            frame.extend(tags);
            frame.extend([0x88, 0xb5, count]);
            frame.resize(len, count);
            count += 1;
            near.send(pool, &frame);
            assert_eq!(far.receive(ours), frame, "{tags:x?}, {len} bytes");
            far.send(pool, &frame);
            assert_eq!(near.receive(ours), frame, "{tags:x?}, {len} bytes back");
        }
    }
    assert_eq!((near.rx.dropped(), far.rx.dropped()), (0, 0));
}

/// Two queues on one interface, and an interface opened anew after its port closed.
fn queues_share_an_interface(eal: &Eal, pool: &Pool) {
    eal.create_vdev("net_af_packet_two,iface=d0,qpairs=2")
        .unwrap();
    eal.create_vdev("net_af_packet_one,iface=d1").unwrap();
    let config = PortConfig {
        rx_queues: 2,
        tx_queues: 2,
        ..PortConfig::default()
    };
    let port = Port::open(eal, "net_af_packet_two", pool, &config).unwrap();
    let mut queues = [port.rx_queue(0).unwrap(), port.rx_queue(1).unwrap()];
    let mut far = Side::open(eal, "net_af_packet_one", pool);
    const FRAMES: usize = 16;
    for number in 0..FRAMES {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, number as u8, 0x88, 0xb5]);
        frame.resize(60, 0);
        far.send(pool, &frame);
    }
    let mut seen = [false; FRAMES];
    let deadline = Instant::now() + PATIENCE;
    while seen.contains(&false) {
        assert!(Instant::now() < deadline, "{seen:?}");
        for queue in &mut queues {
            let mut burst = Burst::new();
            queue.burst(&mut burst);
            for mbuf in burst
                .drain()
                .filter(|mbuf| mbuf.data().get(12..14) == Some(&[0x88, 0xb5]))
            {
                assert!(
                    !std::mem::replace(&mut seen[usize::from(mbuf.data()[11])], true),
                    "twice"
                );
            }
        }
        std::thread::yield_now();
    }
}
