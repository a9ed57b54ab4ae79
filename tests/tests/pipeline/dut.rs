//! The device under test: a switch with the pipeline loaded and the gateway of `gateway.rs`
//! configured; frames go in and out at its ports, entries by P4Runtime.
//!
//! The embedded switch runs in this process, its ports are channels. With `SWITCH=bmv2` it is
//! the real one, in a sandbox, with veth pairs (see `ports.rs`).

use std::time::{Duration, Instant};

use p4runtime::client::{Client, ClientConfig, PipelineAction};
use p4runtime::p4::v1 as pb;
use p4runtime::p4info::{P4InfoIndex, parse_p4info_text};
use shunt_controller::hardware::{Walk, walk};
use shunt_p4::frame::{ENCAP_LEN, ETHERNET_LEN};
use shunt_p4::tables::{AnyEntry, flow_to_entry};
use shunt_p4::{Command, FlowAction, FlowEntry, FlowKey, PuntReason, ShuntHeader, VpcId};
use shunt_testbed::{Result, binaries, sandbox};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::gateway::{self, Carried, Link, MARKER, PORTS, SLOW_PATH};
use crate::packet::{Frame, Packet};
use crate::ports::{Ports, Switch};

pub use crate::ports::DEADLINE;

pub use shunt_p4::SwitchDrop as Drop;

/// Packets of a test that `shunt trace` is asked about before they are sent.
const FORETOLD_MAX: usize = 40;

/// Packets and bytes.
pub type Count = (i64, i64);

pub struct Dut {
    ports: Ports,
    client: Client,
    idle: mpsc::Receiver<pb::IdleTimeoutNotification>,
    drops_id: u32,
    index: P4InfoIndex,
    /// Frames that are to come by what `shunt trace` says; none: it is not asked.
    foretold: Option<Vec<(u16, Vec<u8>)>>,
    traced: usize,
    runtime: Runtime,
    // Last: what uses the switch ends before it.
    _switch: Switch,
}

/// Runs a test, named as the test program names it, on the switch that the environment asks for.
pub fn run(name: &str, body: impl FnOnce(&mut Dut)) {
    if std::env::var("SWITCH").as_deref() == Ok("bmv2") {
        if binaries::on_path("simple_switch_grpc").is_none() {
            return sandbox::skip(name, "simple_switch_grpc is not on PATH");
        }
        sandbox::test(name, || {
            body(&mut Dut::start(|runtime| Switch::bmv2(runtime, PORTS))?);
            Ok(())
        });
    } else {
        body(&mut Dut::start(|runtime| Switch::embedded(runtime, PORTS)).unwrap());
    }
}

impl Dut {
    fn start(switch: impl FnOnce(&Runtime) -> Result<(Switch, Ports, String)>) -> Result<Self> {
        let runtime = Runtime::new().unwrap();
        let (switch, ports, address) = switch(&runtime)?;
        let p4info = parse_p4info_text(shunt_p4::P4INFO).unwrap();
        let drops_id = p4info
            .counters
            .iter()
            .filter_map(|counter| counter.preamble.as_ref())
            .find(|preamble| preamble.alias == shunt_p4::drops::COUNTER)
            .unwrap()
            .id;
        let client = runtime.block_on(async {
            let config = ClientConfig::new(address, 1, 1);
            let client = Client::connect(config).await.unwrap();
            client.become_primary().await.unwrap();
            let json = shunt_p4::PIPELINE_JSON.to_vec();
            let cookie = shunt_p4::pipeline_cookie();
            let action = PipelineAction::VerifyAndCommit;
            client
                .set_pipeline(action, p4info, json, cookie)
                .await
                .unwrap();
            client
        });
        let mut dut = Self {
            ports,
            idle: client.take_idle_timeouts().unwrap(),
            client,
            drops_id,
            index: P4InfoIndex::from_text(shunt_p4::P4INFO).unwrap(),
            foretold: Some(Vec::new()),
            traced: 0,
            runtime,
            _switch: switch,
        };
        // Entries that refer to others in a selector are none: any order will do.
        dut.insert_all(gateway::entries());
        Ok(dut)
    }

    // Entries

    fn write(&mut self, kind: pb::update::Type, entities: Vec<pb::entity::Entity>) {
        let updates: Vec<_> = entities
            .into_iter()
            .map(|entity| pb::Update {
                r#type: kind.into(),
                entity: Some(pb::Entity {
                    entity: Some(entity),
                }),
            })
            .collect();
        if let Err(error) = self.runtime.block_on(self.client.write(&updates)) {
            let refused: Vec<_> = error.refused().collect();
            panic!("{kind:?}: {error}: {refused:?}");
        }
    }

    fn write_entry(&mut self, kind: pb::update::Type, entry: pb::TableEntry) {
        self.write(kind, vec![pb::entity::Entity::TableEntry(entry)]);
    }

    pub fn insert_all(&mut self, entries: impl IntoIterator<Item = AnyEntry>) {
        let entities = entries
            .into_iter()
            .map(|entry| pb::entity::Entity::TableEntry(entry.to_entry()));
        self.write(pb::update::Type::Insert, entities.collect());
    }

    pub fn insert(&mut self, entry: impl Into<AnyEntry>) {
        self.write_entry(pb::update::Type::Insert, entry.into().to_entry());
    }

    pub fn modify(&mut self, entry: impl Into<AnyEntry>) {
        self.write_entry(pb::update::Type::Modify, entry.into().to_entry());
    }

    pub fn remove(&mut self, entry: impl Into<AnyEntry>) {
        self.write_entry(pb::update::Type::Delete, entry.into().key_entry());
    }

    /// Offloads the direction that a packet belongs to, in the ingress link's VPC.
    pub fn offload(&mut self, from: &Link, packet: &Packet, action: FlowAction) -> pb::TableEntry {
        self.offload_for(from, packet, action, Duration::ZERO)
    }

    /// As `offload`, with an idle timeout.
    pub fn offload_for(
        &mut self,
        from: &Link,
        packet: &Packet,
        action: FlowAction,
        idle_timeout: Duration,
    ) -> pb::TableEntry {
        let key = FlowKey {
            vpc: from.vpc(),
            tuple: packet.tuple(),
        };
        let flow = FlowEntry {
            key,
            action,
            idle_timeout,
        };
        let entry = flow_to_entry(&flow).unwrap();
        self.write_entry(pb::update::Type::Insert, entry.clone());
        entry
    }

    /// Takes an offloaded direction back.
    pub fn unload(&mut self, entry: pb::TableEntry) {
        let key = pb::TableEntry {
            action: None,
            idle_timeout_ns: 0,
            ..entry
        };
        self.write_entry(pb::update::Type::Delete, key);
    }

    // Counters and notifications

    fn read(&mut self, entity: pb::entity::Entity) -> Vec<pb::entity::Entity> {
        let entity = pb::Entity {
            entity: Some(entity),
        };
        let read = self.runtime.block_on(self.client.read(vec![entity]));
        let entities = read.unwrap().into_iter();
        entities.map(|entity| entity.entity.unwrap()).collect()
    }

    /// The direct counter of an entry.
    pub fn count(&mut self, mut entry: pb::TableEntry) -> Count {
        (entry.action, entry.meter_config, entry.idle_timeout_ns) = (None, None, 0);
        let query = pb::DirectCounterEntry {
            table_entry: Some(entry),
            data: None,
        };
        let read = self.read(pb::entity::Entity::DirectCounterEntry(query));
        match read.as_slice() {
            [pb::entity::Entity::DirectCounterEntry(entry)] => {
                let data = entry.data.as_ref().unwrap();
                (data.packet_count, data.byte_count)
            }
            other => panic!("{other:?} is no counter"),
        }
    }

    /// Packets dropped so far, by reason.
    fn drops(&mut self) -> Vec<(i64, i64)> {
        let query = pb::CounterEntry {
            counter_id: self.drops_id,
            ..Default::default()
        };
        let read = self.read(pb::entity::Entity::CounterEntry(query));
        let count = |entity: &pb::entity::Entity| match entity {
            pb::entity::Entity::CounterEntry(entry) => (
                entry.index.as_ref().unwrap().index,
                entry.data.as_ref().unwrap().packet_count,
            ),
            other => panic!("{other:?} is no counter"),
        };
        read.iter().map(count).filter(|count| count.1 > 0).collect()
    }

    /// Packets dropped so far for one reason.
    pub fn dropped(&mut self, reason: Drop) -> i64 {
        let drops = self.drops();
        let found = drops.iter().find(|count| count.0 == reason as i64);
        found.map_or(0, |count| count.1)
    }

    /// The entries of an idle notification, if one has come.
    pub fn try_idle(&mut self) -> Option<Vec<pb::TableEntry>> {
        Some(self.idle.try_recv().ok()?.table_entry)
    }

    // Packets

    /// Sends bytes to a port.
    pub fn send_bytes(&mut self, port: u16, bytes: &[u8]) {
        self.foretell(port, bytes);
        self.ports.send(port, bytes);
    }

    /// What `shunt trace` says of a frame is to come true.
    fn foretell(&mut self, port: u16, bytes: &[u8]) {
        self.traced += 1;
        if self.traced > FORETOLD_MAX {
            self.foretold = None;
        }
        let Some(foretold) = &mut self.foretold else {
            return;
        };
        let pipeline = (shunt_p4::PIPELINE_JSON, &self.index);
        let walk = walk(&self.client, pipeline, port.into(), bytes);
        let walk = self.runtime.block_on(walk).unwrap();
        for outcome in &walk.record.outcomes {
            if let Some(port) = outcome.port {
                foretold.push((port.try_into().unwrap(), Walk::frame(outcome)));
            }
        }
    }

    /// Meters are not green any more: `shunt trace` does not know.
    pub fn stop_foretelling(&mut self) {
        self.foretold = None;
    }

    #[track_caller]
    fn came(&mut self, port: u16, frame: &[u8]) {
        let Some(foretold) = &mut self.foretold else {
            return;
        };
        let found = foretold
            .iter()
            .position(|(at, told)| *at == port && told == frame);
        match found {
            Some(at) => drop(foretold.remove(at)),
            None => panic!(
                "`shunt trace` did not foretell, at port {port}: {}; but {foretold:02x?}",
                hex(frame)
            ),
        }
    }

    /// The link's host sends, encapsulated as the link wants it.
    pub fn send(&mut self, from: &Link, carried: impl Into<Carried>) {
        let bytes = from.wire_in(&from.inbound(carried));
        self.send_bytes(from.port, &bytes);
    }

    /// The slow path sends.
    pub fn send_from_slow_path(&mut self, header: ShuntHeader, frame: &Frame) {
        let bytes = [header.encode().as_slice(), &frame.bytes()].concat();
        self.send_bytes(SLOW_PATH, &bytes);
    }

    /// The link's host receives this and nobody anything else.
    #[track_caller]
    pub fn expect(&mut self, to: &Link, carried: impl Into<Carried>) {
        self.expect_entropy(to, carried);
    }

    /// As `expect`; returns the UDP source port of a tunnel (0: no tunnel).
    #[track_caller]
    pub fn expect_entropy(&mut self, to: &Link, carried: impl Into<Carried>) -> u16 {
        let got = self.next(to.port);
        let at = to.entropy_at().and_then(|at| got.get(at..at + 2));
        let entropy = at.map_or(0, |at| u16::from_be_bytes([at[0], at[1]]));
        let want = to.wire_out(&to.outbound(carried), entropy);
        assert_eq!(hex(&got), hex(&want), "to link {}", to.id);
        assert!(entropy == 0 || entropy >= 0xc000, "source port {entropy}");
        self.expect_nothing();
        entropy
    }

    /// Waits for the next frame at one of two links and says at which; the frame has to be right.
    #[track_caller]
    pub fn expect_at_either<'a>(
        &mut self,
        links: [&'a Link; 2],
        carried: impl Into<Carried>,
    ) -> &'a Link {
        let start = Instant::now();
        let (link, got) = loop {
            let found = links
                .iter()
                .find_map(|link| Some((*link, self.ports.receive(link.port, Duration::ZERO)?)));
            match found {
                Some(found) => break found,
                None => assert!(start.elapsed() < DEADLINE, "neither link got a frame"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let want = link.wire_out(&link.outbound(carried), 0);
        assert_eq!(hex(&got), hex(&want), "to link {}", link.id);
        self.came(link.port, &got);
        self.expect_nothing();
        link
    }

    /// The slow path gets the frame as it arrived on the link, decapsulated, and nobody anything
    /// else. Returns the flow hash.
    #[track_caller]
    pub fn expect_punt(
        &mut self,
        reason: PuntReason,
        from: &Link,
        carried: impl Into<Carried>,
    ) -> u32 {
        let want = from.inbound(carried).bytes();
        self.expect_punt_bytes(reason, from, &want)
    }

    /// As `expect_punt`, of these bytes.
    #[track_caller]
    pub fn expect_punt_bytes(&mut self, reason: PuntReason, from: &Link, want: &[u8]) -> u32 {
        let (header, frame) = self.next_punt();
        let head = ShuntHeader {
            reason: reason as u8,
            interface: from.id,
            vpc: from.vpc().get(),
            port: from.port,
            flow_hash: header.flow_hash,
        };
        assert_eq!(header, head, "of {}", hex(&frame));
        assert_eq!(hex(&frame), hex(want), "to the slow path");
        self.expect_nothing();
        header.flow_hash
    }

    /// The next frame to the slow path, whatever it is.
    #[track_caller]
    pub fn next_punt(&mut self) -> (ShuntHeader, Vec<u8>) {
        let got = self.next(SLOW_PATH);
        let header = ShuntHeader::parse(&got).unwrap();
        assert_eq!(&got[..12], b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02");
        (header, got[ENCAP_LEN..].to_vec())
    }

    /// Takes what has come to the slow path, and says how many frames.
    pub fn take_punts(&mut self) -> usize {
        if let Some(foretold) = &mut self.foretold {
            foretold.retain(|(port, _)| *port != SLOW_PATH);
        }
        let waiting = || self.ports.receive(SLOW_PATH, Duration::ZERO);
        std::iter::from_fn(waiting).count()
    }

    /// The bytes are dropped for this reason alone.
    #[track_caller]
    pub fn expect_drop(&mut self, reason: Drop, port: u16, bytes: &[u8]) {
        let before = self.drops();
        self.send_bytes(port, bytes);
        self.expect_nothing();
        let mut want = before.clone();
        match want.iter_mut().find(|count| count.0 == reason as i64) {
            Some(count) => count.1 += 1,
            None => want.push((reason as i64, 1)),
        }
        want.sort_unstable();
        wait_until(|| self.drops() == want);
        assert_eq!(self.drops(), want, "drops of {}", hex(bytes));
    }

    /// No frame has left that was not expected.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.mark();
        for port in gateway::PORTS {
            if let Some(frame) = self.ports.receive(*port, Duration::ZERO) {
                panic!("nobody expected, at port {port}: {}", hex(&frame));
            }
        }
        if let Some(foretold) = &self.foretold {
            assert!(
                foretold.is_empty(),
                "`shunt trace` foretold {foretold:02x?}"
            );
        }
    }

    /// Waits until every frame sent so far has been handled: one from the slow path to a link
    /// of its own has come through behind them.
    #[track_caller]
    fn mark(&mut self) {
        let mark = Frame::new(MARKER.host(), MARKER.mac(), 0x88b6, b"mark");
        let header = ShuntHeader::egress(MARKER.interface());
        let bytes = [header.encode().as_slice(), &mark.bytes()].concat();
        self.ports.send(SLOW_PATH, &bytes);
        let got = self.arrived(MARKER.port);
        assert_eq!(hex(&got), hex(&mark.bytes()), "the marker");
    }

    #[track_caller]
    fn next(&mut self, port: u16) -> Vec<u8> {
        let frame = self.arrived(port);
        self.came(port, &frame);
        frame
    }

    #[track_caller]
    fn arrived(&mut self, port: u16) -> Vec<u8> {
        if let Some(frame) = self.ports.receive(port, DEADLINE) {
            return frame;
        }
        let others = gateway::PORTS.iter().filter_map(|other| {
            let frame = self.ports.receive(*other, Duration::ZERO)?;
            Some(format!("\n  port {other} {}", hex(&frame)))
        });
        let others: String = others.collect();
        panic!(
            "nothing came to port {port}; dropped {:?}; elsewhere:{others}",
            self.drops()
        );
    }
}

/// Waits for a state at most until the deadline; whether it came is for the caller to assert.
pub fn wait_until(mut state: impl FnMut() -> bool) {
    let start = Instant::now();
    while !state() && start.elapsed() < DEADLINE {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A header with which the slow path has the pipeline run for a packet of a link.
pub fn pipeline(link: &Link) -> ShuntHeader {
    ShuntHeader {
        reason: Command::Pipeline as u8,
        interface: link.id,
        vpc: link.vpc().get(),
        port: 0,
        flow_hash: 0,
    }
}

/// Routed in a VPC without translation.
pub fn forward(vpc: VpcId) -> FlowAction {
    FlowAction {
        vpc,
        src: None,
        dst: None,
    }
}

fn hex(bytes: &[u8]) -> String {
    // The shunt header's frame starts at ENCAP_LEN; groups of two bytes are easy to compare.
    const { assert!(ENCAP_LEN > ETHERNET_LEN) };
    let groups = bytes.chunks(2).map(|pair| {
        let digits: String = pair.iter().map(|byte| format!("{byte:02x}")).collect();
        digits
    });
    groups.collect::<Vec<_>>().join(" ")
}
