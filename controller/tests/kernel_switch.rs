//! From the kernel through the mirror to a switch: after every change the mirror holds what `ip`
//! shows, the switch holds what the mirror does, and both lead where `ip route get` leads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod embedded;
mod namespace;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use ipnet::IpNet;
use namespace::changes::{ALL, TOLD, burst, change, repair, sequences};
use namespace::lab::{Bench, taps};
use namespace::model::{Macs, Way, Ways, limit};
use namespace::{eventually, inside, ip, try_ip};
use p4runtime::client::{Client, ClientConfig};
use p4runtime::p4::v1::{Entity, TableEntry, entity};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use shunt_controller::kernel::{Batch, RECEIVE_BUFFER_BYTES};
use shunt_controller::switch::{Connected, Scope, SessionParts, SwitchHandle};
use shunt_p4::tables::{
    AnyEntry, EcmpAction, Neighbor4Action, Neighbor6Action, NexthopAction, Route4Action,
    Route6Action,
};
use shunt_p4::{NetworkOp, Nexthop, NexthopId, Vpc};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const ADDRESS: &str = "127.0.0.1:9559";
/// Destinations asked of the kernel after each sequence.
const ASKED: usize = 3;

/// A switch with a session that is handed every batch.
struct Follower {
    switch: embedded::Switch,
    handle: SwitchHandle,
    client: Client,
    /// Batches that the session has been handed.
    handed: Arc<AtomicUsize>,
}

impl Follower {
    async fn start(mut batches: mpsc::UnboundedReceiver<Batch>) -> Self {
        let switch = embedded::switch(ADDRESS).await;
        let config = embedded::configuration(ADDRESS);
        let connected = Connected::open(&config.switches[0], embedded::PATIENCE).await;
        let parts = SessionParts {
            meters: Vec::new(),
            scope: Scope::All,
            peerings: None,
            engine: None,
            resolver: Arc::new(|_, _| {}),
            stop: CancellationToken::new(),
        };
        let (handle, _) = SwitchHandle::start(connected.unwrap(), parts);
        let mut ops = Vec::new();
        for tap in taps() {
            let interface = tap.interface;
            ops.push(NetworkOp::SetVpc(Vpc {
                id: interface.vpc,
                name: interface.name.clone(),
                stateless: false,
            }));
            ops.push(NetworkOp::SetInterface(interface));
        }
        handle.apply(ops).await;
        let session = handle.clone();
        let handed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&handed);
        tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                session.apply(batch.ops).await;
                if batch.complete {
                    session.complete().await;
                }
                count.fetch_add(1, Relaxed);
            }
        });
        let config = ClientConfig::new(ADDRESS, 1, 1);
        Self {
            switch,
            handle,
            client: Client::connect(config).await.unwrap(),
            handed,
        }
    }

    /// Waits until the switch has everything of so many batches, and says what that is.
    async fn converged(&self, batches: usize, what: &str) -> (Ways, Macs) {
        eventually(what, || {
            let handed = self.handed.load(Relaxed);
            match handed == batches && self.handle.is_converged() {
                true => Ok(()),
                false => Err(format!("{handed} of {batches}, {:?}", self.handle.view())),
            }
        })
        .await;
        let all = entity::Entity::TableEntry(TableEntry::default());
        let entities = self.client.read(vec![Entity { entity: Some(all) }]).await;
        let entries = entities
            .unwrap()
            .into_iter()
            .map(|entity| match entity.entity {
                Some(entity::Entity::TableEntry(entry)) => AnyEntry::from_entry(&entry).unwrap(),
                other => panic!("{other:?}"),
            });
        read_back(entries.collect())
    }
}

enum Target {
    Nexthop(NexthopId),
    Group(shunt_p4::EcmpGroupId),
    Way(Way),
}

/// What the switch's entries say, without numbers of next hops and groups.
fn read_back(entries: Vec<AnyEntry>) -> (Ways, Macs) {
    let (mut nexthops, mut groups) = (BTreeMap::new(), BTreeMap::new());
    let (mut routes, mut macs) = (BTreeMap::new(), Macs::new());
    for entry in entries {
        match entry {
            AnyEntry::NexthopEntry(entry) => {
                let (interface, mtu, gateway): (_, _, Option<IpAddr>) = match entry.action {
                    NexthopAction::Attached { interface, mtu } => (interface, mtu, None),
                    NexthopAction::Via4 {
                        interface,
                        mtu,
                        gateway,
                    } => (interface, mtu, Some(gateway.into())),
                    NexthopAction::Via6 {
                        interface,
                        mtu,
                        gateway,
                    } => (interface, mtu, Some(gateway.into())),
                    NexthopAction::Unreachable => panic!("{entry:?}"),
                };
                let nexthop = Nexthop {
                    interface,
                    gateway,
                    mtu: NonZeroU16::new(mtu).filter(|mtu| *mtu != NonZeroU16::MAX),
                };
                nexthops.insert(entry.key.nexthop, nexthop);
            }
            AnyEntry::Ecmp(entry) => {
                let members = entry.members.iter().map(|(action, weight)| match action {
                    EcmpAction::ToNexthop { nexthop } => (*nexthop, u32::from(weight.get())),
                    EcmpAction::Unreachable => panic!("{entry:?}"),
                });
                groups.insert(entry.key.group, members.collect::<Vec<_>>());
            }
            AnyEntry::Route4(entry) => {
                let target = match entry.action {
                    Route4Action::ToNexthop { nexthop } => Target::Nexthop(nexthop),
                    Route4Action::ToEcmp { group } => Target::Group(group),
                    Route4Action::Local => Target::Way(Way::Local),
                    Route4Action::Blackhole => Target::Way(Way::Blackhole),
                    Route4Action::Unreachable => Target::Way(Way::Unreachable),
                };
                routes.insert((entry.key.vpc, IpNet::V4(entry.key.dst)), target);
            }
            AnyEntry::Route6(entry) => {
                let target = match entry.action {
                    Route6Action::ToNexthop { nexthop } => Target::Nexthop(nexthop),
                    Route6Action::ToEcmp { group } => Target::Group(group),
                    Route6Action::Local => Target::Way(Way::Local),
                    Route6Action::Blackhole => Target::Way(Way::Blackhole),
                    Route6Action::Unreachable => Target::Way(Way::Unreachable),
                };
                routes.insert((entry.key.vpc, IpNet::V6(entry.key.dst)), target);
            }
            AnyEntry::Neighbor4(entry) => {
                let Neighbor4Action::SetNeighbor { mac } = entry.action;
                macs.insert((entry.key.interface, entry.key.address.into()), mac);
            }
            AnyEntry::Neighbor6(entry) => {
                let Neighbor6Action::SetNeighbor { mac } = entry.action;
                macs.insert((entry.key.interface, entry.key.address.into()), mac);
            }
            _ => {}
        }
    }
    let mut used = BTreeSet::new();
    let ways = routes.into_iter().map(|(key, target)| {
        let paths = match target {
            Target::Way(way) => return (key, way),
            Target::Nexthop(id) => vec![(id, 1)],
            Target::Group(group) => groups[&group].clone(),
        };
        used.extend(paths.iter().map(|(id, _)| *id));
        let paths = paths
            .into_iter()
            .map(|(id, weight)| (nexthops[&id], weight));
        (key, Way::Paths(paths.collect()))
    });
    let ways = ways.collect();
    assert_eq!(
        used,
        nexthops.keys().copied().collect(),
        "next hops that nothing uses"
    );
    (ways, macs)
}

/// A device, a gateway, and how large a packet a route lets through.
type Answer = (String, Option<IpAddr>, Option<NonZeroU16>);

/// Where the kernel sends a packet that comes in at this device.
fn asked(device: &str, source: Ipv4Addr, destination: Ipv4Addr) -> Option<Answer> {
    let line = format!("-j route get {destination} from {source} iif {device}");
    // It fails as the packet would: unreachable, prohibited, swallowed.
    let text = try_ip(&line).ok()?;
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let found = &found[0];
    let gateway = found["gateway"].as_str().or(found["via"]["host"].as_str());
    let local = found["type"].as_str() == Some("local");
    let device = if local {
        "lo"
    } else {
        found["dev"].as_str().unwrap()
    };
    let gateway = gateway.map(|text| text.parse().unwrap());
    Some((device.to_owned(), gateway, limit(found)))
}

/// Asks the kernel for destinations that the routes of a VPC cover, and compares.
fn ask(ways: &Ways, random: &mut StdRng, what: &str) {
    let taps = taps();
    let v4 = ways.keys().filter(|(_, net)| matches!(net, IpNet::V4(_)));
    for (vpc, net) in v4.choose_multiple(random, ASKED) {
        let IpNet::V4(net) = net else { continue };
        let host = random.random::<u32>() & net.hostmask().to_bits();
        let destination = Ipv4Addr::from_bits(net.network().to_bits() | host);
        // To these the kernel sends nothing whatever its routes say; 0.0.0.0 to 0.255.255.255 and
        // 240.0.0.0 on are among them.
        let odd = destination.is_multicast() || destination.is_loopback();
        if odd || matches!(destination.octets()[0], 0 | 240..) {
            continue;
        }
        let covering = ways
            .iter()
            .filter(|((other, net), _)| other == vpc && net.contains(&IpAddr::V4(destination)));
        let ((_, covered), way) = covering
            .max_by_key(|((_, net), _)| net.prefix_len())
            .unwrap();
        let from = taps.iter().find(|tap| tap.interface.vpc == *vpc).unwrap();
        // Of the link that it comes in by, and nobody's.
        let source = match from.interface.addresses[0].addr() {
            IpAddr::V4(own) => Ipv4Addr::from_bits(own.to_bits() + 76),
            IpAddr::V6(_) => unreachable!(),
        };
        let kernel = asked(&from.tap, source, destination);
        let ours = |device: &str| taps.iter().find(|tap| tap.tap == device);
        // The kernel keeps what it made of a next-hop object for the first of its routes that it was
        // asked for, metrics and all, and gives it to the others as well.
        let by_object = || {
            let route = format!("route show table {} exact {covered}", from.table);
            ip(&route).contains("nhid")
        };
        // The kernel's own addresses are everybody's there; a VPC has those of its own taps only.
        let of_others = || {
            let shown = ip(&format!("route show table local {destination}"));
            assert!(shown.contains(" dev "), "{destination}: {shown}");
            let mut devices = shown.lines().filter_map(|line| line.split_once(" dev "));
            devices.all(|(_, device)| {
                let name = device.split(' ').next().unwrap();
                ours(name).is_none_or(|tap| tap.interface.vpc != *vpc)
            })
        };
        let agrees = match (&kernel, way) {
            (None, Way::Blackhole | Way::Unreachable) => true,
            (Some((device, ..)), Way::Local) => device == "lo",
            (Some((device, ..)), _) if device == "lo" => of_others(),
            (Some((device, gateway, mtu)), Way::Paths(paths)) => match ours(device) {
                Some(tap) => paths.keys().any(|hop| {
                    let same = hop.interface == tap.interface.id && hop.gateway == *gateway;
                    same && (hop.mtu == *mtu || by_object())
                }),
                // One of several paths, of which the mirror keeps those that the switch has.
                None => {
                    let route = format!("route show table {} exact {covered}", from.table);
                    ip(&route).contains(&format!("dev {device} weight"))
                }
            },
            // Through a device that is none of ours.
            (Some((device, ..)), Way::Unreachable) => {
                // A VPC ends with its table; the kernel goes on behind a throw route.
                let (table, net) = (from.table, covered);
                let thrown = format!("route show table {table} type throw exact {net}");
                ours(device).is_none() || !ip(&thrown).is_empty()
            }
            _ => false,
        };
        assert!(
            agrees,
            "{what}\n{destination} from {source} at {}: the kernel says {kernel:?}, the mirror {way:?}",
            from.tap
        );
    }
}

/// Runs sequences of changes, `SHUNT_SEED=n SHUNT_SEQUENCES=1` one of them again; what `make` does
/// with a seed it does to the kernel, and says what that was.
async fn agree(
    receive_buffer: usize,
    default: u64,
    make: impl Fn(u64, &mut StdRng) -> Vec<String>,
) -> Bench {
    let mut bench = Bench::start(receive_buffer, Duration::from_secs(3600)).await;
    for key in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{key}/rp_filter"), "0").unwrap();
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let (next, batches) = mpsc::unbounded_channel();
    bench.next = Some(next);
    let follower = Follower::start(batches).await;
    for seed in sequences(default) {
        let random = &mut StdRng::seed_from_u64(seed);
        let what = format!("seed {seed} after {:#?}", make(seed, random));
        bench.agree(&what).await;
        let (ways, macs) = follower.converged(bench.model.batches, &what).await;
        assert_eq!(ways, bench.model.ways(), "{what}");
        assert_eq!(macs, bench.model.macs, "{what}");
        ask(&ways, random, &what);
    }
    println!("{:?}", bench.mirror.stats());
    follower.switch.kill().await;
    bench
}

#[test]
fn kernel_mirror_and_switch_agree_after_random_sequences() {
    let name = "kernel_mirror_and_switch_agree_after_random_sequences";
    inside(name, async || {
        let bench = agree(RECEIVE_BUFFER_BYTES, 100, |seed, random| {
            if seed % 2 == 0 {
                repair();
            }
            let kinds = if seed % 10 == 0 { ALL } else { TOLD };
            let lines = (0..random.random_range(5..30)).map(|_| change(random, kinds.clone()));
            lines.filter(|line| try_ip(line).is_ok()).collect()
        });
        assert_eq!(bench.await.mirror.stats().overruns, 0);
    });
}

#[test]
fn kernel_mirror_and_switch_agree_after_overruns() {
    inside(
        "kernel_mirror_and_switch_agree_after_overruns",
        async || {
            let bench = agree(4096, 20, |_, random| {
                repair();
                burst(random, 400);
                Vec::new()
            });
            assert!(bench.await.mirror.stats().overruns > 0);
        },
    );
}
