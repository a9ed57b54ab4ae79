use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn source(vpc: u16, host: u8) -> Source {
    (VpcId::new(vpc).unwrap(), IpAddr::from([10, 0, 0, host]))
}

/// So many workers.
fn team(workers: u16, max_connections: u32) -> Vec<Quotas> {
    let shared = Arc::new(SharedQuotas::new(workers, max_connections, 1));
    let of = |worker| Quotas::new(Arc::clone(&shared), worker);
    (0..workers).map(of).collect()
}

#[test]
fn each_limit_has_its_own_reason_and_holds_for_its_own() {
    let [mut quotas] = team(1, 100).try_into().unwrap();
    let mut limits = Limits {
        connections_per_vpc: Some(3),
        connections_per_source: Some(2),
        ..Limits::default()
    };
    let mut admit = |limits: &Limits, vpc, host| {
        quotas
            .admit(SECOND, limits, source(vpc, host), true)
            .map(|_| ())
    };
    assert_eq!(admit(&limits, 1, 1), Ok(()));
    assert_eq!(admit(&limits, 1, 1), Ok(()));
    assert_eq!(admit(&limits, 1, 1), Err(DropReason::SourceConnections));
    assert_eq!(admit(&limits, 1, 2), Ok(()));
    assert_eq!(admit(&limits, 1, 2), Err(DropReason::VpcConnections));
    // The same address in another VPC is another source.
    assert_eq!(admit(&limits, 2, 1), Ok(()));
    limits.half_open_per_vpc = Some(0);
    assert_eq!(admit(&limits, 2, 2), Err(DropReason::HalfOpen));
    limits.half_open_per_vpc = Some(2);
    assert_eq!(admit(&limits, 2, 2), Ok(()));
    assert_eq!(admit(&limits, 2, 2), Err(DropReason::HalfOpen));
}

#[test]
fn a_source_over_its_rate_takes_nothing_of_its_vpc_s() {
    let [mut quotas] = team(1, 1000).try_into().unwrap();
    let limits = Limits {
        new_per_second_per_source: Some(10),
        new_per_second_per_vpc: Some(100),
        ..Limits::default()
    };
    let mut count = |host, n| {
        let admit = |_: &usize| {
            let source = source(1, host);
            quotas.admit(SECOND, &limits, source, false).is_ok()
        };
        (0..n).filter(admit).count()
    };
    // A burst is a tenth of a second's.
    assert_eq!(count(1, 500), 1);
    assert_eq!((2..20).map(|host| count(host, 3)).sum::<usize>(), 9);
}

#[test]
fn rates_hold_over_time_whoever_begins() {
    let mut team = team(3, 1000);
    let limits = Limits {
        new_per_second_per_vpc: Some(100),
        ..Limits::default()
    };
    let mut allowed = 0;
    for ms in 1_000..11_000u64 {
        let quotas = &mut team[ms as usize % 3];
        let admitted = quotas.admit(ms * 1_000_000, &limits, source(1, 1), false);
        allowed += u32::from(admitted.is_ok());
    }
    // Ten seconds at 100 a second, and the first burst of 10.
    assert!((1000..=1010).contains(&allowed), "{allowed}");
}

/// Sources that have nothing any more make room, those that have stay.
#[test]
fn sources_beyond_the_room_are_not_counted() {
    let [mut quotas] = team(1, 4).try_into().unwrap();
    let limits = Limits {
        connections_per_source: Some(1),
        ..Limits::default()
    };
    let all: Vec<Source> = (0..=255).map(|host| source(1, host)).collect();
    let mut counted = Vec::new();
    for source in &all {
        let admitted = quotas.admit(SECOND, &limits, *source, false).unwrap();
        if admitted.source {
            counted.push(*source);
        }
    }
    assert_eq!(counted.len(), 8, "two buckets of four");
    let again = quotas.admit(SECOND, &limits, counted[0], false);
    assert_eq!(again, Err(DropReason::SourceConnections));
    for source in counted {
        quotas.release(Counted { source: true }, source);
    }
    let admitted = quotas.admit(SECOND, &limits, source(2, 1), false).unwrap();
    assert!(admitted.source);
}

/// What a limit by source finds when it comes: nothing, until the worker has looked.
#[test]
fn what_was_begun_before_a_limit_by_source_is_looked_for_once() {
    let [mut quotas] = team(1, 100).try_into().unwrap();
    let (none, some) = (
        Limits::default(),
        Limits {
            connections_per_source: Some(9),
            ..Limits::default()
        },
    );
    assert_eq!(quotas.next_uncounted(&some), None);
    quotas.admit(SECOND, &none, source(1, 1), false).unwrap();
    assert_eq!(quotas.next_uncounted(&none), None);
    assert_eq!(quotas.next_uncounted(&some), Some(0));
    quotas.next = Some(256);
    assert_eq!(quotas.next_uncounted(&some), Some(256));
    // It went and came back: from the start, for others may have begun since.
    assert_eq!(quotas.next_uncounted(&none), None);
    assert_eq!(quotas.next_uncounted(&some), Some(0));
    quotas.next = None;
    assert_eq!(quotas.next_uncounted(&some), None);
}

/// Real threads, which begin and end connections as fast as they can. `at`: the source of a
/// worker's n-th, one of four. At no moment a source, or its VPC, has more than `max`.
fn race(workers: u16, rounds: usize, max: u32, limits: &Limits, at: fn(u16, usize) -> (u16, u8)) {
    use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
    // Sources come and go in few slots, so that several workers begin with one at once.
    let team = team(workers, 2);
    let shared = Arc::clone(&team[0].shared);
    let live: Vec<AtomicI64> = (0..8).map(|_| AtomicI64::new(0)).collect();
    let begun = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for (worker, mut quotas) in (0u16..).zip(team) {
            let (live, begun) = (&live, &begun);
            scope.spawn(move || {
                let mut mine = Vec::new();
                let end = |quotas: &mut Quotas, mine: &mut Vec<_>| {
                    for (place, counts, counted, source) in mine.drain(..) {
                        let place: &AtomicI64 = &live[place];
                        place.fetch_sub(i64::from(counts), SeqCst);
                        quotas.release(counted, source);
                    }
                };
                for round in 0..rounds {
                    let (vpc, host) = at(worker, round);
                    let source = source(vpc, host);
                    let place = usize::from(vpc - 1) + usize::from(host);
                    if let Ok(counted) = quotas.admit(SECOND, limits, source, false) {
                        // One that found no room for its source is not held against it.
                        let counts = limits.connections_per_source.is_none() || counted.source;
                        if counts {
                            let now = live[place].fetch_add(1, SeqCst) + 1;
                            assert!(now <= max.into(), "{now}");
                            begun.fetch_add(1, SeqCst);
                        }
                        mine.push((place, counts, counted, source));
                    }
                    if mine.len() > 2 || round % 2 == 0 {
                        end(&mut quotas, &mut mine);
                    }
                }
                end(&mut quotas, &mut mine);
            });
        }
    });
    assert!(begun.into_inner() > 1000);
    for host in 0..4 {
        let sum = shared.sum(VpcId::new(1 + host).unwrap());
        assert_eq!(sum, shared::Count::default());
        let asked = shared.sources().ask(SECOND, None, source(1, host as u8));
        assert_eq!(asked, Some((0, true)));
    }
}

#[test]
fn threads_together_never_have_more_than_a_vpc_may() {
    let limits = |max| Limits {
        connections_per_vpc: Some(max),
        ..Limits::default()
    };
    race(2, 200_000, 1, &limits(1), |_, _| (1, 0));
    race(4, 20_000, 7, &limits(7), |_, n| (1 + n as u16 / 3 % 4, 0));
}

#[test]
fn threads_together_never_have_more_than_a_source_may() {
    let limits = |max| Limits {
        connections_per_source: Some(max),
        ..Limits::default()
    };
    race(2, 200_000, 1, &limits(1), |_, n| (1, n as u8 / 7 % 4));
    race(4, 20_000, 7, &limits(7), |worker, n| {
        (1, ((n / 3 + usize::from(worker)) % 4) as u8)
    });
}

#[derive(Clone, Debug)]
struct Op {
    worker: prop::sample::Index,
    open: bool,
    tcp: bool,
    vpc: u16,
    host: u8,
    wait_ns: u64,
}

fn op() -> impl Strategy<Value = Op> {
    let who = (any::<prop::sample::Index>(), 1u16..3, 0u8..6);
    (who, any::<[bool; 2]>(), 0u64..SECOND / 10).prop_map(
        |((worker, vpc, host), [open, tcp], wait_ns)| Op {
            worker,
            open,
            tcp,
            vpc,
            host,
            wait_ns,
        },
    )
}

fn some_limit() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![Just(None), (1u32..30).prop_map(Some)]
}

proptest! {
    /// One after the other, many workers admit what one does, and foretell it.
    #[test]
    fn many_workers_count_as_one(
        ops in prop::collection::vec(op(), 1..300),
        workers in 1u16..5,
        limits in prop::array::uniform5(some_limit()),
        room in prop_oneof![Just(4u32), Just(1000)],
    ) {
        let [connections_per_vpc, connections_per_source, half_open_per_vpc, of_vpc, of_source] = limits;
        let limits = Limits {
            connections_per_vpc,
            connections_per_source,
            half_open_per_vpc,
            new_per_second_per_vpc: of_vpc,
            new_per_second_per_source: of_source,
            ..Limits::default()
        };
        let mut one = team(1, room * u32::from(workers));
        let mut many = team(workers, room);
        let mut now = SECOND;
        let mut live: Vec<(Source, bool, Counted, usize)> = Vec::new();
        for Op { worker, open, tcp, vpc, host, wait_ns } in ops {
            now += wait_ns;
            let source = source(vpc, host);
            let worker = worker.index(usize::from(workers));
            if open {
                let quotas = &mut many[worker];
                let foretold = quotas.check(now, &limits, source, tcp);
                let admitted = quotas.admit(now, &limits, source, tcp);
                prop_assert_eq!(foretold, admitted.map(|_| ()));
                prop_assert_eq!(admitted, one[0].admit(now, &limits, source, tcp));
                if let Ok(counted) = admitted {
                    live.push((source, tcp, counted, worker));
                }
            } else if let Some(at) = live.iter().position(|(other, ..)| *other == source) {
                let (source, tcp, counted, worker) = live.remove(at);
                for quotas in [&mut many[worker], &mut one[0]] {
                    quotas.release(counted, source);
                    if tcp {
                        quotas.half_open(source.0, false);
                    }
                }
            }
            for vpc in 1..3 {
                let vpc = VpcId::new(vpc).unwrap();
                let of = |tcp: bool| live.iter().filter(|((other, _), opens, ..)| {
                    *other == vpc && (*opens || !tcp)
                }).count() as u32;
                let sum = many[0].shared.sum(vpc);
                prop_assert_eq!((sum.live, sum.half_open), (of(false), of(true)));
                prop_assert!(!over(limits.connections_per_vpc, sum.live));
                prop_assert!(!over(limits.half_open_per_vpc, sum.half_open));
            }
            for host in 0..6 {
                let key = self::source(vpc, host);
                let counted = live.iter().filter(|(other, _, counted, _)| *other == key && counted.source);
                let wanted = counted.count() as u32;
                let asked = many[0].shared.sources().ask(now, None, key).map_or(0, |(live, _)| live);
                prop_assert_eq!(asked, wanted);
                prop_assert!(!over(limits.connections_per_source, wanted));
            }
        }
    }
}
