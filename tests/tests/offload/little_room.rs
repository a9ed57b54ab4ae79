//! Flow tables of 1,000 entries, and 50,000 connections.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use shunt_offload::{
    EngineConfig, EnginePolicy, EvictReason, RefuseReason, TableSizes, TroubleKind, VpcShare,
};
use shunt_p4::{FlowKey, VpcId};
use shunt_slowpath::policy::OffloadPolicy;
use shunt_slowpath::{FlowView, Offload};
use shunt_testbed::sandbox;

use crate::lab::{INSIDE, Lab, number};

/// Entries of each flow table; a connection has two.
const ENTRIES: u32 = 1_000;
const CONNECTIONS: u32 = 50_000;
/// Connections that go on while all others are silent.
const BUSY: u32 = 200;
/// Who was silent for so long may be evicted.
const EVICT_IDLE: Duration = Duration::from_millis(400);

fn lab(tables: TableSizes, shares: Vec<(VpcId, VpcShare)>) -> Lab {
    let engine = EngineConfig {
        tables,
        sweep_interval: Duration::from_millis(200),
        policy: EnginePolicy {
            shares,
            evict_idle: Some(EVICT_IDLE),
        },
        ..EngineConfig::default()
    };
    let offload = OffloadPolicy {
        retry_after: Duration::from_millis(100),
        retry_after_max: Duration::from_millis(400),
        ..OffloadPolicy::default()
    };
    Lab::new(ENTRIES, engine, offload)
}

fn keys(flow: &FlowView) -> [FlowKey; 2] {
    [flow.forward, flow.reply].map(|side| FlowKey {
        vpc: side.vpc,
        tuple: side.tuple,
    })
}

/// The switch holds the entries of the connections that are in hardware, and no others.
fn nothing_is_stale(lab: &Lab) {
    lab.wait("hardware = offloaded connections", |lab| {
        lab.settled();
        let flows = lab.flows();
        let installed = flows
            .iter()
            .filter(|flow| flow.offload == Offload::Installed);
        let wanted: BTreeSet<_> = installed.flat_map(keys).collect();
        let moving =
            |flow: &FlowView| !matches!(flow.offload, Offload::Installed | Offload::Software);
        // The workers may have to hear of it still.
        !flows.iter().any(moving) && lab.entries() == wanted
    });
}

/// Sends the busy ones' packets again and again until none of a round goes through the slow path.
fn until_all_hit(lab: &Lab, busy: impl Fn() -> std::ops::Range<u32>) -> Vec<u64> {
    let mut punted = Vec::new();
    lab.wait("the busy ones to be in hardware", |lab| {
        punted.push(lab.exchange(busy()));
        punted.last() == Some(&0)
    });
    punted
}

fn everything_works(tables: TableSizes, shares: Vec<(VpcId, VpcShare)>, room: u64) {
    let has_share = !shares.is_empty();
    let lab = lab(tables, shares);
    // All of them work, in software if there is no room.
    lab.exchange(0..CONNECTIONS);
    assert_eq!(lab.connections(), CONNECTIONS as usize);
    assert_eq!(lab.leased(), CONNECTIONS);
    let full = lab.stats();
    let refused_for = match has_share {
        true => RefuseReason::VpcShare,
        false => RefuseReason::TableFull,
    };
    assert!(full.refused[refused_for as usize] > 0, "{full:#?}");
    assert!(full.in_hardware <= room, "{full:#?}");
    let is_full = |kind| matches!(kind, TroubleKind::Flow4Full);
    let said = full.troubles.iter().any(|trouble| is_full(trouble.kind));
    assert_eq!(said, !has_share, "a share that is used up is no trouble");

    // All that are in hardware have packets there, so that whoever is evicted has counters.
    let there = lab.flows().into_iter();
    let there = there.filter(|flow| flow.offload == Offload::Installed);
    lab.exchange(there.filter_map(|flow| number(&flow)).collect::<Vec<_>>());

    // Some of those that found no room go on: the silent ones make room for them.
    let busy = || CONNECTIONS - BUSY.min(room as u32 / 2)..CONNECTIONS;
    let punted = until_all_hit(&lab, busy);
    let evicted = lab.stats().evicted;
    let evicted_for = match has_share {
        true => EvictReason::VpcShare,
        false => EvictReason::TableFull,
    };
    assert!(evicted[evicted_for as usize] > 0, "{evicted:?}");
    assert!(punted[0] > 0, "they were in hardware from the beginning");

    // New ones come and go on being silent; the busy ones stay where they are.
    let mut new = CONNECTIONS..;
    for _ in 0..20 {
        lab.exchange(new.by_ref().take(50));
        assert_eq!(lab.exchange(busy()), 0, "a busy one was evicted");
    }
    nothing_is_stale(&lab);

    // What was counted in hardware and left it is not lost.
    let flows = lab.flows();
    let evicted = flows.iter().filter(|flow| flow.hardware.packets != [0; 2]);
    assert!(evicted.count() > 0);

    // All end: ports and entries are given back.
    lab.delete_all();
    lab.wait("all to end", |lab| lab.connections() == 0);
    lab.settled();
    assert_eq!(lab.leased(), 0);
    assert_eq!(lab.entries(), BTreeSet::new());
    let stats = lab.stats();
    assert_eq!(stats.tables[0].entries, 0, "{stats:#?}");
    assert_eq!((stats.lost, stats.failed_reads), (0, 0), "{stats:#?}");
}

#[test]
fn fifty_thousand_connections_and_a_table_whose_size_nobody_knows() {
    everything_works(TableSizes::UNKNOWN, Vec::new(), u64::from(ENTRIES / 2));
}

#[test]
fn fifty_thousand_connections_and_a_share_of_a_known_table() {
    let tables = TableSizes {
        flow4: ENTRIES.into(),
        flow6: ENTRIES.into(),
    };
    let share = VpcShare {
        connections: None,
        percent: Some(40),
    };
    let shares = vec![(VpcId::new(INSIDE).unwrap(), share)];
    everything_works(tables, shares, u64::from(ENTRIES / 2) * 40 / 100);
}

/// Twice as many busy connections as there is room for: half of them stay in software, and
/// nobody is pushed out for another who is no busier.
#[test]
fn equally_busy_connections_do_not_push_each_other_out() {
    let lab = lab(TableSizes::UNKNOWN, Vec::new());
    lab.exchange(0..ENTRIES);
    lab.wait("the table to be full", |lab| {
        lab.exchange(0..ENTRIES);
        lab.stats().in_hardware * 2 >= u64::from(ENTRIES) * 9 / 10
    });
    let before = lab.stats();
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < 5 * EVICT_IDLE {
        let round = Instant::now();
        lab.exchange(0..ENTRIES);
        // On a machine that takes so long for a round they are idle between two.
        if round.elapsed() > EVICT_IDLE / 2 {
            let why = format!("too slow a machine: a round takes {:?}", round.elapsed());
            return sandbox::skip("equally_busy_connections_do_not_push_each_other_out", &why);
        }
        rounds += 1;
    }
    let after = lab.stats();
    assert_eq!(before.evicted, after.evicted, "in {rounds} rounds");
    assert!(after.entries_read > before.entries_read, "nobody looked");
    assert!(after.in_hardware * 2 <= u64::from(ENTRIES));
}

/// The engine's word on what the switch counts is the number of packets that did not come to the
/// slow path.
#[test]
fn counters_read_by_key_are_the_packets_that_hit() {
    let lab = lab(TableSizes::UNKNOWN, Vec::new());
    lab.exchange(0..10);
    lab.settled();
    lab.wait("all to be in hardware", |lab| lab.exchange(0..10) == 0);
    let before = read(&lab);
    for _ in 0..7 {
        assert_eq!(lab.exchange(0..10), 0);
    }
    let after = read(&lab);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after.packets - before.packets, 7);
        // Ethernet, IPv4, UDP and 22 bytes.
        assert_eq!(after.bytes - before.bytes, 7 * (14 + 20 + 8 + 22));
        assert!(
            after
                .idle
                .is_some_and(|idle| idle < Duration::from_secs(60))
        );
    }
}

fn read(lab: &Lab) -> Vec<shunt_offload::FlowReading> {
    let keys: Vec<_> = lab.flows().iter().flat_map(keys).collect();
    assert_eq!(keys.len(), 20);
    let (runtime, engine) = lab.engine();
    let found = runtime.block_on(engine.read(&keys)).unwrap();
    found.into_iter().map(|reading| reading.unwrap()).collect()
}
