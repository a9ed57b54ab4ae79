//! Starting DPDK, and devices that do not exist.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use nix::sched::sched_getaffinity;
use nix::unistd::Pid;
use shunt_dpdk::{
    Eal, EalConfig, EalError, MAX_QUEUES, Pool, Port, PortConfig, PortError, RingPort,
};

/// One test: the whole life of one EAL.
#[test]
fn starts_once_names_what_fails_and_leaves_nothing() {
    let prefix = format!("shunt-test-{}", std::process::id());
    let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let config = |vdevs: &[&str]| EalConfig {
        memory_mib: 64,
        file_prefix: Some(prefix.clone()),
        vdevs: vdevs.iter().map(|v| (*v).to_owned()).collect(),
        ..EalConfig::default()
    };

    // A bad text does not use up the one start.
    assert!(matches!(
        Eal::init(config(&["net_ring0,internal=0x10"])),
        Err(EalError::BadArgument { .. })
    ));
    let eal = Eal::init(config(&["net_null0,size=60"])).unwrap();
    assert!(matches!(
        Eal::init(config(&[])),
        Err(EalError::AlreadyStarted)
    ));
    assert_eq!(
        sched_getaffinity(Pid::from_raw(0)).unwrap(),
        before,
        "the caller is not pinned"
    );

    let error = eal
        .create_vdev("net_af_packet7,iface=no-such-if")
        .unwrap_err();
    assert!(
        matches!(&error, EalError::Device { name, .. } if name == "net_af_packet7"),
        "{error}"
    );
    assert!(error.to_string().contains("no-such-if"), "{error}");
    let error = eal.create_vdev("net_nonsense0").unwrap_err();
    assert!(error.to_string().contains("net_nonsense0"), "{error}");

    let pool = Pool::new(&eal, "eal", 255, 2048).unwrap();
    let missing = Port::open(&eal, "net_af_packet7", &pool, &PortConfig::default()).unwrap_err();
    assert!(
        matches!(&missing, PortError::Missing(name) if name == "net_af_packet7"),
        "{missing}"
    );

    let many = PortConfig {
        rx_queues: MAX_QUEUES + 1,
        ..PortConfig::default()
    };
    let queues = Port::open(&eal, "net_null0", &pool, &many).unwrap_err();
    assert!(
        matches!(queues, PortError::Queues { rx: MAX_QUEUES, .. }),
        "{queues}"
    );
    let none = PortConfig {
        tx_queues: 0,
        ..PortConfig::default()
    };
    assert!(matches!(
        Port::open(&eal, "net_null0", &pool, &none),
        Err(PortError::Queues { .. })
    ));
    let port = Port::open(&eal, "net_null0", &pool, &PortConfig::default()).unwrap();
    drop(port);

    frames_longer_than_their_buffer_are_dropped(&eal);
    a_failed_step_names_the_port(&eal, &pool);

    for dir in ["/run/dpdk", "/var/run/dpdk", "/tmp/dpdk"] {
        let own = Path::new(dir).join(&prefix);
        assert!(!own.exists(), "{} is left", own.display());
    }
}

/// net_null claims any length it is told to, whatever the buffer's.
fn frames_longer_than_their_buffer_are_dropped(eal: &Eal) {
    eal.create_vdev("net_null1,size=4000").unwrap();
    let pool = Pool::new(eal, "short", 255, 2048).unwrap();
    let port = Port::open(eal, "net_null1", &pool, &PortConfig::default()).unwrap();
    let mut rx = port.rx_queue(0).unwrap();
    let mut burst = shunt_dpdk::Burst::new();
    assert_eq!(rx.burst(&mut burst), 0);
    assert_eq!(rx.dropped(), 32);
    assert_eq!(pool.available(), 255);
}

fn a_failed_step_names_the_port(eal: &Eal, pool: &Pool) {
    eal.create_vdev("net_null2").unwrap();
    let config = PortConfig {
        mtu: Some(9),
        ..PortConfig::default()
    };
    let error = Port::open(eal, "net_null2", pool, &config).unwrap_err();
    assert!(matches!(error, PortError::Step { .. }), "{error}");
    assert!(
        error.to_string().contains("net_null2") && error.to_string().contains("MTU"),
        "{error}"
    );
    // The device went with it, and its number is free again.
    assert!(matches!(
        Port::open(eal, "net_null2", pool, &config),
        Err(PortError::Missing(_))
    ));
    RingPort::pair(eal, "afterwards", pool, 1, 8).unwrap();
}
