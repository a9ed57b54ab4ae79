//! The plan's invariant, after every single update, whatever the switch refuses, forgets, is
//! left with by a predecessor, and in whatever order it does what it is told.
//!
//! A failing run prints how to repeat it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use shunt_p4::tables::{
    ClassifyPort, ClassifyPortAction, ClassifyPortKey, Ecmp, EcmpAction, EcmpKey, EgressInterface,
    EgressInterfaceAction, EgressInterfaceKey, Neighbor4, Neighbor4Action, Neighbor4Key,
    NexthopEntry, NexthopKey, Route4, Route4Key,
};
use shunt_p4::{EcmpGroupId, MacAddr};

use super::ways::{End, Ways};
use super::*;

const SEEDS: u64 = 1500;
const STEPS: u32 = 25;

const PREFIXES: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.128/25",
    "10.1.1.129/32",
    "10.1.2.0/24",
    "10.2.0.0/16",
];

/// One address in each region that the prefixes make.
const ADDRESSES: [[u8; 4]; 8] = [
    [198, 51, 100, 1],
    [10, 9, 9, 9],
    [10, 1, 9, 9],
    [10, 1, 1, 9],
    [10, 1, 1, 200],
    [10, 1, 1, 129],
    [10, 1, 2, 9],
    [10, 2, 9, 9],
];

/// Where packets come in, and the interfaces by which they leave.
const PORTS: [u16; 2] = [1, 5];
const INTERFACES: [u16; 3] = [2, 3, 4];

fn interface(n: u16) -> InterfaceId {
    InterfaceId::new(n).unwrap()
}

/// Of a station; the last is a destination itself.
fn address(station: u8) -> [u8; 4] {
    match station {
        3 => ADDRESSES[3],
        number => [172, 16, 0, number],
    }
}

fn any<T: Copy>(random: &mut StdRng, of: &[T]) -> T {
    of[random.random_range(0..of.len())]
}

/// What is wanted. Every part may change its meaning under the same number.
#[derive(Clone, Debug)]
struct Wanted {
    /// The port of each interface.
    leaves: BTreeMap<u16, u16>,
    /// Stations on a link by number, and their network cards.
    stations: BTreeMap<(u16, u8), u8>,
    nexthops: BTreeMap<u32, NexthopAction>,
    groups: BTreeMap<u16, Vec<u32>>,
    routes: BTreeMap<(u16, &'static str), Route4Action>,
    /// The VPC of a port, and whether it is stateless.
    enters: BTreeMap<u16, (u16, bool)>,
}

impl Wanted {
    fn new(random: &mut StdRng) -> Self {
        let mut wanted = Self {
            leaves: INTERFACES.map(|n| (n, n)).into(),
            stations: BTreeMap::new(),
            nexthops: (1..6).map(|id| (id, Self::nexthop(random))).collect(),
            groups: (1..3).map(|id| (id, Self::paths(random))).collect(),
            routes: BTreeMap::new(),
            enters: BTreeMap::new(),
        };
        for _ in 0..random.random_range(0..25) {
            wanted.change(random);
        }
        wanted
    }

    fn nexthop(random: &mut StdRng) -> NexthopAction {
        let interface = interface(any(random, &INTERFACES));
        match random.random_range(0..8_u32) {
            0 => NexthopAction::Unreachable,
            1 => NexthopAction::Attached {
                interface,
                mtu: u16::MAX,
            },
            _ => NexthopAction::Via4 {
                interface,
                mtu: any(random, &[1400, u16::MAX]),
                gateway: address(random.random_range(1..3)).into(),
            },
        }
    }

    fn paths(random: &mut StdRng) -> Vec<u32> {
        (0..random.random_range(2..4))
            .map(|_| random.random_range(1..6))
            .collect()
    }

    fn route(random: &mut StdRng) -> Route4Action {
        match random.random_range(0..12_u32) {
            0 => Route4Action::Local,
            1 => Route4Action::Blackhole,
            2 => Route4Action::Unreachable,
            3..5 => Route4Action::ToEcmp {
                group: EcmpGroupId::new(random.random_range(1..3)).unwrap(),
            },
            _ => Route4Action::ToNexthop {
                nexthop: NexthopId::new(random.random_range(1..6)).unwrap(),
            },
        }
    }

    fn change(&mut self, random: &mut StdRng) {
        let vpc = random.random_range(1..3);
        let prefix = any(random, &PREFIXES);
        match random.random_range(0..20_u32) {
            0..7 => {
                self.routes.insert((vpc, prefix), Self::route(random));
            }
            7..10 => {
                self.routes.remove(&(vpc, prefix));
            }
            10..12 => {
                let id = random.random_range(1..6);
                self.nexthops.insert(id, Self::nexthop(random));
            }
            12 => {
                let id = random.random_range(1..3);
                self.groups.insert(id, Self::paths(random));
            }
            13..15 => {
                let station = (any(random, &INTERFACES), random.random_range(1..4));
                self.stations.insert(station, random.random());
            }
            15 => {
                let station = (any(random, &INTERFACES), random.random_range(1..4));
                self.stations.remove(&station);
            }
            16 => {
                let (a, b) = (any(random, &INTERFACES), any(random, &INTERFACES));
                let (to_a, to_b) = (self.leaves[&b], self.leaves[&a]);
                self.leaves.insert(a, to_a);
                self.leaves.insert(b, to_b);
            }
            17 => {
                self.enters.remove(&any(random, &PORTS));
            }
            _ => {
                let way = (vpc, random.random_bool(0.8));
                self.enters.insert(any(random, &PORTS), way);
            }
        }
    }

    /// Next hops and groups that something uses; and all else.
    fn entries(&self) -> Vec<AnyEntry> {
        let groups: BTreeSet<u16> = self
            .routes
            .values()
            .filter_map(|action| match action {
                Route4Action::ToEcmp { group } => Some(group.get()),
                _ => None,
            })
            .collect();
        let by_routes = self.routes.values().filter_map(|action| match action {
            Route4Action::ToNexthop { nexthop } => Some(nexthop.get()),
            _ => None,
        });
        let by_groups = groups.iter().flat_map(|group| self.groups[group].clone());
        let nexthops: BTreeSet<u32> = by_routes.chain(by_groups).collect();

        let mut entries = Vec::new();
        for (&id, &port) in &self.leaves {
            entries.push(AnyEntry::from(EgressInterface {
                key: EgressInterfaceKey {
                    interface: interface(id),
                },
                action: EgressInterfaceAction::Untagged {
                    port: SwitchPort::new(port).unwrap(),
                    mac: MacAddr([2; 6]),
                    mtu: 1500,
                },
            }));
        }
        for (&(id, number), &card) in &self.stations {
            let port = self.leaves[&id] as u8;
            entries.push(AnyEntry::from(Neighbor4 {
                key: Neighbor4Key {
                    interface: interface(id),
                    address: address(number).into(),
                },
                action: Neighbor4Action::SetNeighbor {
                    mac: MacAddr([2, port, number, 0, 0, card]),
                },
            }));
        }
        for id in nexthops {
            entries.push(AnyEntry::from(NexthopEntry {
                key: NexthopKey {
                    nexthop: NexthopId::new(id).unwrap(),
                },
                action: self.nexthops[&id],
            }));
        }
        for id in groups {
            let members = self.groups[&id].iter().map(|id| {
                let nexthop = NexthopId::new(*id).unwrap();
                (EcmpAction::ToNexthop { nexthop }, std::num::NonZeroU16::MIN)
            });
            entries.push(AnyEntry::from(Ecmp {
                key: EcmpKey {
                    group: EcmpGroupId::new(id).unwrap(),
                },
                members: members.collect(),
            }));
        }
        for (&(vpc, prefix), &action) in &self.routes {
            let key = Route4Key {
                vpc: VpcId::new(vpc).unwrap(),
                dst: prefix.parse().unwrap(),
            };
            entries.push(AnyEntry::from(Route4 { key, action }));
        }
        for (&port, &(vpc, stateless)) in &self.enters {
            entries.push(AnyEntry::from(ClassifyPort {
                key: ClassifyPortKey {
                    port: SwitchPort::new(port).unwrap(),
                    outer_vid: None,
                    inner_vid: None,
                },
                action: ClassifyPortAction::SetInterface {
                    interface: interface(port),
                    vpc: VpcId::new(vpc).unwrap(),
                    mac: MacAddr([2; 6]),
                    stateless,
                },
            }));
        }
        entries
    }
}

fn changes(from: &[AnyEntry], to: &[AnyEntry]) -> Vec<Change> {
    let set = to.iter().filter(|entry| !from.contains(entry));
    let key = AnyEntry::key_entry;
    let gone = from
        .iter()
        .filter(|old| !to.iter().any(|new| key(new) == key(old)));
    set.cloned()
        .map(Change::Set)
        .chain(gone.cloned().map(Change::Remove))
        .collect()
}

/// What the switch refuses.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Refuses {
    Nothing,
    /// Some inserts: its tables are full.
    Inserts,
    /// Anything, now and then.
    Anything,
    /// Everything that concerns some keys.
    Keys,
    /// Everything that concerns some next hops.
    Nexthops,
}

type Ends = Vec<BTreeSet<End>>;

fn ends(entries: &[AnyEntry]) -> Ends {
    let ways = Ways::of(entries.iter().cloned());
    let addresses = ADDRESSES.map(Ipv4Addr::from);
    PORTS
        .iter()
        .flat_map(|port| addresses.map(|to| ways.ends(*port, to)))
        .collect()
}

struct Run {
    random: StdRng,
    refuses: Refuses,
    model: Model,
    ledger: Ledger,
    now: Instant,
    wanted: Wanted,
    log: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let all = [
            Refuses::Nothing,
            Refuses::Inserts,
            Refuses::Anything,
            Refuses::Keys,
            Refuses::Nexthops,
        ];
        let wanted = Wanted::new(&mut random);
        let mut run = Self {
            refuses: any(&mut random, &all),
            random,
            model: Model::default(),
            ledger: Ledger::default(),
            now: Instant::now(),
            wanted,
            log: Vec::new(),
        };
        run.ledger
            .want(run.wanted.entries().into_iter().map(Change::Set));
        run.restart();
        run
    }

    fn held(&self) -> Vec<AnyEntry> {
        let entries = self.model.entries.values();
        entries
            .map(|entry| AnyEntry::from_entry(entry).unwrap())
            .collect()
    }

    /// Empty, or with what a predecessor wanted.
    fn restart(&mut self) {
        self.log = vec!["restart".to_owned()];
        self.model = Model::default();
        if self.random.random_bool(0.7) {
            for entry in Wanted::new(&mut self.random).entries() {
                self.model
                    .entries
                    .insert(key_of(&entry.key_entry()), entry.to_entry());
                self.log.push(format!("there: {}", entry.shown(&Numbers)));
            }
        }
        self.read_back();
    }

    fn read_back(&mut self) {
        self.ledger.read_back(reading(self.model.read()));
    }

    fn change(&mut self) {
        let before = self.wanted.entries();
        for _ in 0..self.random.random_range(1..5) {
            self.wanted.change(&mut self.random);
        }
        let changes = changes(&before, &self.wanted.entries());
        self.log.push(format!("wanted: {changes:?}"));
        self.ledger.want(changes);
    }

    fn is_refused(&mut self, update: &Update) -> bool {
        match self.refuses {
            Refuses::Nothing => false,
            Refuses::Inserts => {
                update.r#type() == update::Type::Insert && self.random.random_bool(0.5)
            }
            Refuses::Anything => self.random.random_bool(0.3),
            Refuses::Keys | Refuses::Nexthops => {
                let Some(entity::Entity::TableEntry(entry)) =
                    update.entity.as_ref().and_then(|e| e.entity.as_ref())
                else {
                    panic!("{update:?}")
                };
                let key = AnyEntry::from_entry(entry)
                    .map_or_else(|_| key_of(entry), |entry| key_of(&entry.key_entry()));
                let hash = key.iter().fold(7_u32, |hash, byte| {
                    hash.wrapping_mul(31).wrapping_add((*byte).into())
                });
                let nexthop = entry.table_id == NexthopEntry::ID;
                hash % 4 == 0 && (nexthop || self.refuses == Refuses::Keys)
            }
        }
    }

    /// One phase, in any order, perhaps not to its end. False: nothing is due.
    fn phase(&mut self) -> bool {
        let Some(mut updates) = self.ledger.next_phase(self.now) else {
            return false;
        };
        let wanted = ends(&self.wanted.entries());
        let mut order: Vec<usize> = (0..updates.len()).collect();
        order.sort_by_cached_key(|at| prost::Message::encode_to_vec(&updates[*at]));
        order.shuffle(&mut self.random);
        let lost = self.random.random_bool(0.05);
        if lost {
            order.truncate(self.random.random_range(0..=updates.len()));
        }
        let mut errors = vec![pb::Error::default(); updates.len()];
        for at in order {
            let update = std::mem::take(&mut updates[at]);
            let refuse = self.is_refused(&update);
            let before = ends(&self.held());
            let answers = self
                .model
                .write(std::slice::from_ref(&update), &mut || refuse);
            let code = answers[0].canonical_code;
            self.log.push(format!("{code}: {}", shown(&update)));
            errors[at] = answers[0].clone();
            self.check(&before, &wanted);
        }
        // Something else is wanted before the answer comes.
        if self.random.random_bool(0.1) {
            self.change();
        }
        if lost {
            self.log.push("lost".to_owned());
            self.read_back();
        } else {
            self.ledger.answered(Some(&errors), self.now);
        }
        true
    }

    fn check(&self, before: &Ends, wanted: &Ends) {
        for (at, now) in ends(&self.held()).iter().enumerate() {
            for end in now {
                let right = before[at].contains(end)
                    || wanted[at].contains(end)
                    || matches!(end, End::SlowPath | End::NoInterface);
                assert!(
                    right,
                    "a packet from port {} to {:?} is misled: to {end:?}, before {:?}, wanted \
                     {:?}; after\n{}",
                    PORTS[at / ADDRESSES.len()],
                    ADDRESSES[at % ADDRESSES.len()],
                    before[at],
                    wanted[at],
                    self.log.join("\n"),
                );
            }
        }
    }

    /// All that is due now.
    fn flush(&mut self) {
        for phase in 0.. {
            assert!(phase < 500, "it writes for ever\n{}", self.log.join("\n"));
            if !self.phase() {
                break;
            }
        }
        // Only what cannot be parked may be left as it was.
        if !matches!(self.refuses, Refuses::Anything | Refuses::Keys) {
            let wanted = ends(&self.wanted.entries());
            self.check(&vec![BTreeSet::new(); wanted.len()], &wanted);
        }
        if self.refuses == Refuses::Nothing {
            assert_eq!(self.ledger.pending_count(), 0, "{}", self.log.join("\n"));
        }
    }

    fn play(mut self) {
        for _ in 0..STEPS {
            match self.random.random_range(0..10_u32) {
                0 => self.restart(),
                1..6 => self.change(),
                _ => self.now += Duration::from_millis(self.random.random_range(0..40_000)),
            }
            self.flush();
        }
        self.refuses = Refuses::Nothing;
        self.now += RETRY_LONGEST;
        self.flush();
        assert_equal(&self.ledger, &self.model);
    }
}

#[test]
fn no_update_misleads_a_packet() {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    let seeds = match number("SHUNT_RECONCILER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SHUNT_RECONCILER_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| Run::new(seed).play());
        assert!(
            run.is_ok(),
            "again: SHUNT_RECONCILER_SEED={seed} cargo test -p shunt-controller --lib \
             no_update_misleads_a_packet"
        );
    }
}
