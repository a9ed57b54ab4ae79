//! A worker that uses a port only as long as the engine's answers allow, and checks them.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use shunt_offload::{Clock, ConnectionId, OffloadCommand, OffloadEvent, OffloadUnit, WorkerPort};
use shunt_p4::{FlowEntry, FlowKey, FlowPair, VpcId};

use super::switch::{Switch, flow};

/// Ports (and so keys) of one worker.
const PORTS: u16 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Installed,
    /// `Remove` waits for room in the ring, or for its answer.
    Removing,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    state: State,
    port: u16,
    flows: FlowPair,
    entries: [FlowEntry; 2],
    epoch: u64,
    /// Packets that hit it.
    hits: u64,
    /// What the engine says of them.
    counted: u64,
    /// Of the daemon before: in hardware or not.
    former: bool,
}

/// What hits may still come between the last look at a unit and its eviction, of a switch
/// without faults.
const EVICTION: Duration = Duration::from_millis(500);

pub struct Worker {
    index: u16,
    ring: WorkerPort,
    switch: Switch,
    clock: Clock,
    connections: BTreeMap<u64, Connection>,
    unsent: Vec<ConnectionId>,
    next: u32,
    /// What is hit more recently is never evicted; checked of a switch without faults.
    pub evict_idle: Option<Duration>,
    /// Packets that hit connections that have left hardware, and what was counted of them.
    pub hits: u64,
    pub counted: u64,
}

impl Worker {
    pub fn new(index: u16, ring: WorkerPort, switch: Switch, clock: Clock) -> Self {
        Self {
            index,
            ring,
            switch,
            clock,
            connections: BTreeMap::new(),
            unsent: Vec::new(),
            next: 0,
            evict_idle: None,
            hits: 0,
            counted: 0,
        }
    }

    /// What is written under a port's keys is different each time.
    fn flows(&self, port: u16, random: &mut StdRng) -> FlowPair {
        FlowPair {
            keys: [false, true].map(|reply| flow(port, reply)),
            vpcs: [(); 2].map(|()| VpcId::new(random.random_range(1..u16::MAX)).unwrap()),
            idle_timeout: Duration::from_secs(random.random_range(1..30)),
        }
    }

    pub fn install(&mut self, random: &mut StdRng) {
        let port = self.index * PORTS + random.random_range(0..PORTS);
        let user = self
            .connections
            .values()
            .find(|connection| connection.port == port && connection.state != State::Removing);
        // Now and then a key that is in use, which the engine has to refuse.
        let clash = user.is_some();
        if clash && !random.random_ratio(1, 50) {
            return;
        }
        let flows = self.flows(port, random);
        let id = ConnectionId::new(self.next, u32::from(self.index));
        let now_ns = self.clock.now_ns();
        let unit = OffloadUnit {
            id,
            flows,
            first_packet_ns: now_ns,
            decided_ns: now_ns,
        };
        if self.ring.submit(OffloadCommand::Install(unit)).is_ok() {
            self.next += 1;
            let epoch = self.switch.epoch();
            let connection = Connection {
                state: State::Asked,
                port,
                flows,
                entries: flows.entries(),
                epoch,
                hits: 0,
                counted: 0,
                former: false,
            };
            self.connections.insert(id.as_u64(), connection);
        }
    }

    /// Some packets of one connection, of few of them more often.
    pub fn packets(&mut self, random: &mut StdRng) {
        let count = self.connections.len().max(1);
        let among = if random.random() { count } else { count.min(8) };
        let busy = random.random_range(0..among);
        let Some(connection) = self.connections.values_mut().nth(busy) else {
            return;
        };
        let entry = connection.entries[random.random_range(0..2)];
        if self.switch.hit(&entry) {
            connection.hits += 1;
        }
    }

    /// The daemon was killed, and this is what the next one knows: every connection, and nothing of
    /// what the engine had said.
    pub fn restart(&mut self, ring: WorkerPort) {
        self.ring = ring;
        self.unsent.clear();
        for (id, connection) in &mut self.connections {
            connection.former = true;
            match connection.state {
                State::Asked | State::Installed => connection.state = State::Installed,
                State::Removing => self.unsent.push(ConnectionId::from_u64(*id)),
            }
        }
    }

    /// Its former connections that the switch has something of; the others are back in software.
    /// A port that is used again before its last user is removed tells by its lease whose it is.
    pub fn claim(&mut self, found: &[FlowEntry]) -> Vec<OffloadUnit> {
        let found: BTreeMap<FlowKey, &FlowEntry> =
            found.iter().map(|entry| (entry.key, entry)).collect();
        let mut units = Vec::new();
        self.connections.retain(|id, connection| {
            let there = connection
                .entries
                .iter()
                .any(|entry| found.get(&entry.key).is_some_and(|held| **held == *entry));
            let claimed = std::mem::take(&mut connection.former) && there;
            if claimed {
                units.push(OffloadUnit {
                    id: ConnectionId::from_u64(*id),
                    flows: connection.flows,
                    first_packet_ns: 0,
                    decided_ns: 0,
                });
            }
            // Without a former life it waits for the engine's answer, and one that is to be
            // removed for its own.
            claimed || connection.state != State::Installed
        });
        units
    }

    pub fn remove(&mut self, random: &mut StdRng) {
        let open = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.state != State::Removing);
        if let Some((&id, _)) = open.choose(random) {
            self.start_removal(id);
        }
    }

    pub fn remove_all(&mut self) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            self.start_removal(id);
        }
    }

    fn start_removal(&mut self, id: u64) {
        let connection = self.connections.get_mut(&id).unwrap();
        if connection.state != State::Removing {
            connection.state = State::Removing;
            self.unsent.push(ConnectionId::from_u64(id));
            self.send_unsent();
        }
    }

    pub fn send_unsent(&mut self) {
        let ring = &mut self.ring;
        let decided_ns = self.clock.now_ns();
        self.unsent.retain(|id| {
            let id = *id;
            ring.submit(OffloadCommand::Remove { id, decided_ns })
                .is_err()
        });
    }

    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub fn some_key(&self, random: &mut StdRng) -> Option<FlowKey> {
        let connection = self.connections.values().choose(random)?;
        Some(connection.entries[random.random_range(0..2)].key)
    }

    pub fn poll(&mut self) {
        self.send_unsent();
        while let Some(event) = self.ring.poll() {
            self.event(event);
        }
    }

    fn event(&mut self, event: OffloadEvent) {
        match event {
            OffloadEvent::Installed(id) => {
                let connection = self.connections.get_mut(&id.as_u64()).expect("unknown id");
                // Said once, and never after an end; Remove may have crossed it.
                match connection.state {
                    State::Asked => connection.state = State::Installed,
                    State::Removing => return,
                    State::Installed => panic!("{id:?} is installed twice"),
                }
                if connection.epoch == self.switch.epoch() {
                    for entry in &connection.entries {
                        let held = self.switch.holds(&entry.key);
                        // It may be evicted already: that event comes next.
                        let was_held = self.switch.idle_when_deleted(entry).is_some();
                        assert!(held == Some(*entry) || was_held, "{id:?}: {held:?}");
                    }
                }
            }
            OffloadEvent::Counted(id, count) => {
                let connection = self.connections.get_mut(&id.as_u64()).expect("unknown id");
                assert_ne!(connection.state, State::Asked, "{id:?} is counted already");
                let packets = count.packets.iter().sum::<u64>();
                assert_eq!(count.bytes.iter().sum::<u64>(), 100 * packets);
                connection.counted += packets;
                assert!(
                    connection.counted <= connection.hits,
                    "{id:?} had {} packets, and {} are counted",
                    connection.hits,
                    connection.counted
                );
            }
            OffloadEvent::Refused(id, _) | OffloadEvent::Lost(id) | OffloadEvent::Evicted(id) => {
                let raw = id.as_u64();
                let connection = *self.connections.get(&raw).expect("an end twice");
                let lost = !matches!(event, OffloadEvent::Refused(..));
                if let OffloadEvent::Evicted(_) = event
                    && connection.state != State::Removing
                    && let Some(shortest) = self.evict_idle
                {
                    for entry in &connection.entries {
                        let idle = self.switch.idle_when_deleted(entry);
                        assert!(
                            idle.is_none_or(|time| time <= EVICTION || time >= shortest),
                            "{id:?} was hit {idle:?} before"
                        );
                    }
                }
                match connection.state {
                    State::Asked => assert!(!lost, "{id:?} is lost before it is installed"),
                    State::Installed => assert!(lost, "{id:?} is refused once installed"),
                    // Remove crossed it and will be answered.
                    State::Removing => return,
                }
                self.connections.remove(&raw);
                self.hits += connection.hits;
                self.counted += connection.counted;
                self.check_gone(id, &connection);
            }
            OffloadEvent::Removed(id) => {
                let connection = self
                    .connections
                    .remove(&id.as_u64())
                    .expect("removed twice");
                assert_eq!(
                    connection.state,
                    State::Removing,
                    "{id:?} was not to be removed"
                );
                self.hits += connection.hits;
                self.counted += connection.counted;
                self.check_gone(id, &connection);
            }
            OffloadEvent::Idle(id) | OffloadEvent::Active(id) => {
                if self
                    .connections
                    .get(&id.as_u64())
                    .is_some_and(|c| c.state == State::Asked)
                {
                    panic!("{id:?} is reported before it is installed");
                }
            }
        }
    }

    /// None of its entries is in hardware, unless the key has another user by now.
    fn check_gone(&self, id: ConnectionId, gone: &Connection) {
        let used = self
            .connections
            .values()
            .any(|connection| connection.port == gone.port);
        if !used {
            for entry in &gone.entries {
                let held = self.switch.holds(&entry.key);
                // What an earlier life left there goes with the first read.
                let held = held.filter(|held| !Switch::is_left_over(held));
                assert_eq!(held, None, "{id:?} left a stale entry");
            }
        }
    }

    pub fn installed_entries(&self) -> Vec<FlowEntry> {
        let installed = |connection: &&Connection| {
            assert_ne!(
                connection.state,
                State::Asked,
                "an install without an answer"
            );
            connection.state == State::Installed
        };
        self.connections
            .values()
            .filter(installed)
            .flat_map(|connection| connection.entries)
            .collect()
    }

    pub fn check_nothing_is_open(&self) {
        assert!(
            self.connections.is_empty(),
            "not answered: {:?}",
            self.connections
        );
    }
}
