//! Packet buffers, bursts and pools, without any port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use proptest::prelude::*;
use shunt_dpdk::{Burst, CAPACITY, DEFAULT_DATA_ROOM, HEADROOM, Mbuf, Pool, PoolError};

#[test]
fn fresh_mbuf_is_empty_between_head_and_tail_room() {
    let mbuf = common::pool("fresh", 16).alloc().unwrap();
    assert_eq!((mbuf.len(), mbuf.headroom()), (0, HEADROOM));
    assert_eq!(mbuf.tailroom(), usize::from(DEFAULT_DATA_ROOM));
    assert!(mbuf.data().is_empty());
}

#[test]
fn room_is_checked_to_the_byte() {
    let mut mbuf = common::pool("room", 16).alloc().unwrap();
    let tail = mbuf.tailroom();
    assert!(mbuf.append(tail + 1).is_none());
    assert!(mbuf.prepend(HEADROOM + 1).is_none());
    assert!(mbuf.adj(1).is_none());
    assert!(mbuf.trim(1).is_none());
    assert!(mbuf.append(usize::MAX).is_none());
    assert!(mbuf.prepend(usize::MAX).is_none());
    assert!(mbuf.is_empty(), "a refusal changes nothing");

    assert_eq!(mbuf.append(tail).unwrap().len(), tail);
    assert_eq!(mbuf.prepend(HEADROOM).unwrap().len(), HEADROOM);
    assert_eq!(
        (mbuf.headroom(), mbuf.tailroom(), mbuf.len()),
        (0, 0, tail + HEADROOM)
    );
    assert!(
        common::pool("copy", 1)
            .alloc_copy(&vec![0; tail + 1])
            .is_none()
    );
    assert!(mbuf.append(1).is_none() && mbuf.prepend(1).is_none());
    assert!(mbuf.extend_from_slice(&[1]).is_none());
    mbuf.data_mut().fill(0xa5);
    mbuf.adj(tail + HEADROOM).unwrap();
    assert!(mbuf.is_empty() && mbuf.tailroom() == 0);
}

#[test]
fn appended_bytes_carry_nothing_of_an_earlier_packet() {
    let pool = common::pool("stale", 1);
    let mut mbuf = pool.alloc().unwrap();
    mbuf.append(512).unwrap().fill(0xff);
    drop(mbuf);
    let mut again = pool.alloc().expect("the same buffer");
    assert!(again.append(512).unwrap().iter().all(|&byte| byte == 0));
}

#[test]
fn exhausted_pool_gives_none_and_recovers() {
    const COUNT: usize = 63;
    let pool = common::pool("exhaust", COUNT as u32);
    let mut held: Vec<Mbuf> = (0..COUNT).map(|_| pool.alloc().unwrap()).collect();
    assert!(pool.alloc().is_none());
    let mut burst = Burst::new();
    assert!(!pool.alloc_into(&mut burst, 1) && burst.is_empty());
    assert_eq!(pool.available(), 0);

    held.truncate(COUNT - 10);
    assert!(!pool.alloc_into(&mut burst, 11), "all or none");
    assert_eq!(pool.available(), 10);
    assert!(pool.alloc_into(&mut burst, 10));
    assert_eq!(burst.len(), 10);
    drop((held, burst));
    assert_eq!(pool.available(), COUNT as u32);
}

#[test]
fn pools_out_of_range_are_refused_and_memory_is_finite() {
    let eal = common::eal();
    assert!(matches!(
        Pool::new(&eal, "", 1, 2048),
        Err(PoolError::Name(_))
    ));
    assert!(matches!(
        Pool::new(&eal, &"x".repeat(21), 1, 2048),
        Err(PoolError::Name(_))
    ));
    assert!(matches!(
        Pool::new(&eal, "a\0b", 1, 2048),
        Err(PoolError::Name(_))
    ));
    assert!(matches!(
        Pool::new(&eal, "none", 0, 2048),
        Err(PoolError::Count(0))
    ));
    assert!(matches!(
        Pool::new(&eal, "thin", 1, 1),
        Err(PoolError::DataRoom(1))
    ));
    let error = Pool::new(&eal, "huge", 1 << 20, 2048).unwrap_err();
    assert!(
        matches!(&error, PoolError::Create { name, .. } if name == "huge"),
        "{error}"
    );
    // What it could not have is given back.
    common::pool("after-huge", 64);
    common::pool("twice", 1);
    assert!(matches!(
        Pool::new(&eal, "twice", 1, 2048),
        Err(PoolError::Create { .. })
    ));
    // The longest name and the widest buffer work.
    let wide = Pool::new(&eal, &"w".repeat(20), 2, shunt_dpdk::MAX_DATA_ROOM).unwrap();
    let mut mbuf = wide.alloc().unwrap();
    mbuf.append(usize::from(shunt_dpdk::MAX_DATA_ROOM)).unwrap();
    mbuf.prepend(HEADROOM).unwrap();
    assert_eq!(mbuf.len(), usize::from(u16::MAX));
}

/// A burst with mbufs of one byte each: 0, 1, 2…
fn numbered(pool: &Pool, n: usize) -> Burst {
    let mut burst = Burst::new();
    assert!(pool.alloc_into(&mut burst, n));
    for (number, mbuf) in burst.iter_mut().enumerate() {
        mbuf.extend_from_slice(&[number as u8]).unwrap();
    }
    burst
}

fn numbers(burst: &Burst) -> Vec<u8> {
    burst.iter().map(|mbuf| mbuf.data()[0]).collect()
}

#[test]
fn burst_keeps_order_and_frees_what_it_holds() {
    let pool = common::pool("burst", 127);
    let mut burst = numbered(&pool, CAPACITY);
    assert!(burst.is_full() && !pool.alloc_into(&mut burst, 1));
    let extra = pool.alloc().unwrap();
    assert!(burst.push(extra).is_err());

    burst.retain(|mbuf| mbuf.data()[0] % 2 == 0);
    assert_eq!(numbers(&burst), (0..32).step_by(2).collect::<Vec<u8>>());
    assert_eq!(burst.swap_remove(1).unwrap().data(), [2]);
    assert_eq!(numbers(&burst)[..3], [0, 30, 4]);
    assert!(burst.swap_remove(15).is_none());
    assert_eq!(burst.pop().unwrap().data(), [28]);

    let mut other = numbered(&pool, 30);
    assert_eq!(burst.append(&mut other), CAPACITY - 14);
    assert_eq!((burst.len(), numbers(&other)[0]), (CAPACITY, 18));

    let mut drained = other.drain();
    assert_eq!(drained.len(), 12);
    assert_eq!(drained.next().unwrap().data(), [18]);
    drop(drained);
    assert!(other.is_empty());
    burst.clear();
    assert_eq!(pool.available(), 127);
}

#[test]
fn mbufs_are_freed_on_other_threads() {
    let pool = common::pool("threads", 255);
    let (to, from) = std::sync::mpsc::sync_channel::<Mbuf>(64);
    let eal = common::eal();
    let freer =
        shunt_dpdk::spawn_worker(&eal, "freer", None, move |_| from.iter().count()).unwrap();
    for _ in 0..5_000 {
        // The other thread's cache may hold all but a few: then the pool is
        // empty for a moment.
        let mbuf = loop {
            if let Some(mbuf) = pool.alloc() {
                break mbuf;
            }
            std::thread::yield_now();
        };
        to.send(mbuf).unwrap();
    }
    drop(to);
    assert_eq!(freer.join().unwrap(), 5_000);
    assert_eq!(pool.available(), 255);
}

#[derive(Debug, Clone)]
enum Step {
    Prepend(usize),
    Append(usize),
    Extend(Vec<u8>),
    Adj(usize),
    Trim(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..200usize).prop_map(Step::Prepend),
        (0..1500usize).prop_map(Step::Append),
        proptest::collection::vec(any::<u8>(), 0..600).prop_map(Step::Extend),
        (0..300usize).prop_map(Step::Adj),
        (0..300usize).prop_map(Step::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// An mbuf behaves as a vector with bounded room at both ends.
    #[test]
    fn mbuf_matches_a_vector(steps in proptest::collection::vec(step(), 1..40)) {
        static POOL: std::sync::OnceLock<Pool> = std::sync::OnceLock::new();
        let mut mbuf = POOL.get_or_init(|| common::pool("model", 7)).alloc().unwrap();
        let total = mbuf.headroom() + mbuf.tailroom();
        let (mut model, mut head) = (Vec::<u8>::new(), HEADROOM);
        for step in steps {
            let tail = total - head - model.len();
            match step {
                Step::Prepend(n) => {
                    let got = mbuf.prepend(n).map(|bytes| bytes.fill(0x11));
                    prop_assert_eq!(got.is_some(), n <= head);
                    if n <= head {
                        model.splice(0..0, vec![0x11; n]);
                        head -= n;
                    }
                }
                Step::Append(n) => {
                    prop_assert_eq!(mbuf.append(n).is_some(), n <= tail);
                    if n <= tail {
                        model.extend(vec![0; n]);
                    }
                }
                Step::Extend(bytes) => {
                    prop_assert_eq!(mbuf.extend_from_slice(&bytes).is_some(), bytes.len() <= tail);
                    if bytes.len() <= tail {
                        model.extend(bytes);
                    }
                }
                Step::Adj(n) => {
                    prop_assert_eq!(mbuf.adj(n).is_some(), n <= model.len());
                    if n <= model.len() {
                        model.drain(..n);
                        head += n;
                    }
                }
                Step::Trim(n) => {
                    prop_assert_eq!(mbuf.trim(n).is_some(), n <= model.len());
                    if n <= model.len() {
                        model.truncate(model.len() - n);
                    }
                }
            }
            prop_assert_eq!(mbuf.data(), model.as_slice());
            prop_assert_eq!(mbuf.headroom(), head);
            prop_assert_eq!(mbuf.headroom() + mbuf.len() + mbuf.tailroom(), total);
        }
    }
}

/// What may cross threads, checked by the compiler.
#[test]
fn handles_are_send() {
    fn send<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    send::<(Mbuf, Burst, shunt_dpdk::RxQueue, shunt_dpdk::TxQueue)>();
    send::<(shunt_dpdk::Inject, shunt_dpdk::RingDrain)>();
    shared::<(Pool, shunt_dpdk::Port, shunt_dpdk::Eal)>();
}
