//! The engine with the real sink, over gRPC, against the embedded switch and, where it is on
//! PATH, against bmv2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use p4runtime::client::{Backoff, Client, ClientConfig, PipelineAction};
use p4runtime::p4::v1::update;
use p4runtime::p4info::parse_p4info_text;
use shunt_offload::sink::FlowSink as _;
use shunt_offload::{
    ConnectionId, Engine, EngineConfig, EngineHandle, InstallerPort, OffloadCommand, OffloadEvent,
    OffloadUnit, P4RuntimeSink, RefuseReason, WorkerPort, channel,
};
use shunt_p4::tables::{flow_from_entry, flow_to_entry};
use shunt_p4::{FlowEntry, FlowKey, FlowPair, Tuple, VpcId};
use shunt_switch::{Handle, ManualClock, Options};
use shunt_testbed::{binaries, sandbox};

/// Nothing here takes as long on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running switch without a pipeline.
enum Switch {
    Embedded(Handle),
    Bmv2(Bmv2),
}

/// `simple_switch_grpc`; killed when dropped.
struct Bmv2 {
    process: Child,
    addr: SocketAddr,
    _files: tempfile::TempDir,
}

impl Drop for Bmv2 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Bmv2 {
    const PROGRAM: &str = "simple_switch_grpc";

    /// Whether it is; where it is not, the test of this name is skipped.
    fn is_there_for(test: &str) -> bool {
        let there = binaries::on_path(Self::PROGRAM).is_some();
        if !there {
            sandbox::skip(test, &format!("{} is not on PATH", Self::PROGRAM));
        }
        there
    }

    async fn start(addr: SocketAddr) -> Self {
        let files = tempfile::tempdir().unwrap();
        let notifications = format!("ipc://{}/notifications", files.path().display());
        let mut command = Command::new(Self::PROGRAM);
        command.args(["--no-p4", "--device-id", "1", "--log-level", "off"]);
        // A switch built without Thrift or nanomsg does not know these.
        let help = Command::new(Self::PROGRAM).arg("--help").output().unwrap();
        let help = String::from_utf8_lossy(&help.stdout);
        let thrift = free_address().port().to_string();
        for (option, value) in [
            ("--thrift-port", &thrift),
            ("--notifications-addr", &notifications),
        ] {
            if help.contains(option) {
                command.args([option, value.as_str()]);
            }
        }
        let mut process = command
            .args(["--", "--grpc-server-addr", &addr.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let patience = tokio::time::Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(addr).await.is_err() {
            assert_eq!(process.try_wait().unwrap(), None, "it has ended");
            assert!(tokio::time::Instant::now() < patience, "it does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self {
            process,
            addr,
            _files: files,
        }
    }
}

impl Switch {
    async fn embedded(options: Options) -> Self {
        Self::embedded_at("", options).await
    }

    async fn embedded_at(addr: &str, options: Options) -> Self {
        let config = shunt_switch::Config {
            grpc_addr: addr.to_owned(),
            options,
            ..Default::default()
        };
        Self::Embedded(shunt_switch::run(config).await.unwrap())
    }

    async fn bmv2() -> Self {
        Self::Bmv2(Bmv2::start(free_address()).await)
    }

    fn addr(&self) -> SocketAddr {
        match self {
            Self::Embedded(handle) => handle.addr(),
            Self::Bmv2(bmv2) => bmv2.addr,
        }
    }

    async fn stop(self) {
        if let Self::Embedded(handle) = self {
            handle.stop().await;
        }
    }

    /// An empty one at the same address.
    async fn start_another_at(embedded: bool, addr: SocketAddr) -> Self {
        if embedded {
            Self::embedded_at(&addr.to_string(), Options::default()).await
        } else {
            Self::Bmv2(Bmv2::start(addr).await)
        }
    }
}

async fn push_pipeline(client: &Client, json: Vec<u8>) {
    let p4info = parse_p4info_text(shunt_p4::P4INFO).unwrap();
    let cookie = shunt_p4::pipeline_cookie();
    client
        .set_pipeline(PipelineAction::VerifyAndCommit, p4info, json, cookie)
        .await
        .unwrap();
}

async fn primary(addr: SocketAddr) -> Client {
    let config = ClientConfig::new(addr.to_string(), 1, 1);
    let client = Client::connect(config).await.unwrap();
    client.become_primary().await.unwrap();
    client
}

/// A connection of VPC 1, masqueraded, as its worker would offload it.
fn unit(n: u32, idle_timeout: Duration) -> OffloadUnit {
    let red = VpcId::new(1).unwrap();
    let wan = VpcId::new(2).unwrap();
    let inside: IpAddr = [10, (n >> 16) as u8, (n >> 8) as u8, n as u8].into();
    let server: IpAddr = [192, 0, 2, 80].into();
    let public: IpAddr = [203, 0, 113, 10].into();
    let lease = 1024 + n as u16;
    let tuple = |src, src_port, dst, dst_port| Tuple {
        src,
        dst,
        proto: 6,
        src_port,
        dst_port,
    };
    let now_ns = shunt_offload::Clock::system().now_ns();
    OffloadUnit {
        id: ConnectionId::new(n, 1),
        flows: FlowPair {
            keys: [
                FlowKey {
                    vpc: red,
                    tuple: tuple(inside, 40_000, server, 80),
                },
                FlowKey {
                    vpc: wan,
                    tuple: tuple(server, 80, public, lease),
                },
            ],
            vpcs: [red; 2],
            idle_timeout,
        },
        first_packet_ns: now_ns,
        decided_ns: now_ns,
    }
}

fn removal(id: ConnectionId) -> OffloadCommand {
    let decided_ns = shunt_offload::Clock::system().now_ns();
    OffloadCommand::Remove { id, decided_ns }
}

async fn flows(client: &Client) -> Vec<FlowEntry> {
    let entries = P4RuntimeSink::new(client.clone())
        .read_flows()
        .await
        .unwrap();
    let mut flows: Vec<_> = entries
        .iter()
        .map(|entry| flow_from_entry(entry).unwrap())
        .collect();
    flows.sort_by_key(|flow| flow.key);
    flows
}

fn entries(units: impl IntoIterator<Item = OffloadUnit>) -> Vec<FlowEntry> {
    let mut entries: Vec<_> = units
        .into_iter()
        .flat_map(|unit| unit.flows.entries())
        .collect();
    entries.sort_by_key(|flow| flow.key);
    entries
}

async fn submit(worker: &mut WorkerPort, command: OffloadCommand) {
    let patience = tokio::time::Instant::now() + PATIENCE;
    while worker.submit(command).is_err() {
        assert!(
            tokio::time::Instant::now() < patience,
            "the ring stays full"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn events(worker: &mut WorkerPort, count: usize) -> Vec<OffloadEvent> {
    let patience = tokio::time::Instant::now() + PATIENCE;
    let mut events = Vec::new();
    while events.len() < count {
        match worker.poll() {
            Some(event) => events.push(event),
            None => {
                assert!(tokio::time::Instant::now() < patience, "only {events:?}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    events
}

fn start(client: &Client, port: InstallerPort) -> EngineHandle {
    let sink = P4RuntimeSink::new(client.clone());
    Engine::start(EngineConfig::default(), vec![port], sink)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_come_and_go() {
    come_and_go(Switch::embedded(Options::default()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_come_and_go_of_bmv2() {
    if Bmv2::is_there_for("connections_come_and_go_of_bmv2") {
        come_and_go(Switch::bmv2().await).await;
    }
}

async fn come_and_go(switch: Switch) {
    const CONNECTIONS: u32 = 1_000;
    let client = primary(switch.addr()).await;
    push_pipeline(&client, shunt_p4::PIPELINE_JSON.to_vec()).await;
    // Two entries of an earlier life: one under a key that will be used.
    let timeout = Duration::from_secs(60);
    let mut left_over = unit(0, timeout).flows.entries()[0];
    left_over.action.src = None;
    let other = unit(CONNECTIONS + 1, timeout).flows.entries()[1];
    let inserts = [left_over, other].map(|flow| p4runtime::p4::v1::Update {
        r#type: update::Type::Insert as i32,
        entity: Some(p4runtime::p4::v1::Entity {
            entity: Some(p4runtime::p4::v1::entity::Entity::TableEntry(
                flow_to_entry(&flow).unwrap(),
            )),
        }),
    });
    client.write(&inserts[..]).await.unwrap();

    let (mut worker, port) = channel(1024);
    let engine = start(&client, port);
    for n in 0..CONNECTIONS {
        submit(&mut worker, OffloadCommand::Install(unit(n, timeout))).await;
    }
    let told = events(&mut worker, CONNECTIONS as usize).await;
    assert!(
        told.iter()
            .all(|event| matches!(event, OffloadEvent::Installed(_)))
    );
    engine.settled().await.unwrap();
    assert_eq!(
        flows(&client).await,
        entries((0..CONNECTIONS).map(|n| unit(n, timeout)))
    );

    for n in 0..CONNECTIONS / 2 {
        submit(&mut worker, removal(unit(n, timeout).id)).await;
    }
    let told = events(&mut worker, CONNECTIONS as usize / 2).await;
    assert!(
        told.iter()
            .all(|event| matches!(event, OffloadEvent::Removed(_)))
    );
    let rest = (CONNECTIONS / 2..CONNECTIONS).map(|n| unit(n, timeout));
    assert_eq!(flows(&client).await, entries(rest));

    let stats = engine.stats().await.unwrap();
    assert_eq!(stats.installs, u64::from(CONNECTIONS));
    assert_eq!(stats.in_hardware, u64::from(CONNECTIONS / 2));
    // The one under a used key was removed or overwritten.
    assert!((1..=2).contains(&stats.orphans), "{stats:?}");
    let latency = stats.latencies.install.total;
    assert_eq!(latency.count, u64::from(CONNECTIONS));
    let removal = stats.latencies.removal;
    for stage in [
        removal.queued,
        removal.batched,
        removal.on_wire,
        removal.total,
    ] {
        assert_eq!(stage.count, u64::from(CONNECTIONS / 2));
    }
    assert!(removal.total.max_ns >= removal.on_wire.max_ns);
    engine.shutdown().await;
    assert!(worker.is_closed());
    switch.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_are_read_by_key() {
    read_by_key(Switch::embedded(Options::default()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_are_read_by_key_of_bmv2() {
    if Bmv2::is_there_for("counters_are_read_by_key_of_bmv2") {
        read_by_key(Switch::bmv2().await).await;
    }
}

/// In the keys' order, keys that are not there among them.
async fn read_by_key(switch: Switch) {
    let embedded = matches!(switch, Switch::Embedded(_));
    let client = primary(switch.addr()).await;
    push_pipeline(&client, shunt_p4::PIPELINE_JSON.to_vec()).await;
    let (mut worker, port) = channel(64);
    let engine = start(&client, port);
    let timeout = Duration::from_secs(60);
    for n in [1, 3] {
        submit(&mut worker, OffloadCommand::Install(unit(n, timeout))).await;
    }
    events(&mut worker, 2).await;
    let keys: Vec<_> = (0..5)
        .flat_map(|n| unit(n, timeout).flows.entries())
        .map(|entry| entry.key)
        .collect();
    let sink = P4RuntimeSink::new(client.clone());
    let found = sink.read_counters(keys.clone()).await.unwrap();
    for (n, found) in found.iter().enumerate() {
        let there = matches!(n / 2, 1 | 3);
        assert_eq!(found.is_some(), there, "{n}: {found:?}");
        if let Some(reading) = found {
            assert_eq!((reading.packets, reading.bytes), (0, 0));
            // bmv2 says any time at all of an entry that was never hit.
            let known = |idle: Duration| !embedded || idle < PATIENCE;
            assert!(reading.idle.is_some_and(known), "{reading:?}");
        }
    }
    assert_eq!(engine.read(&keys).await.unwrap().len(), keys.len());
    assert_eq!(engine.stats().await.unwrap().failed_reads, 0);
    engine.shutdown().await;
    switch.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_table_refuses_and_keeps_no_half() {
    fill(Switch::embedded(Options::default()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_table_refuses_and_keeps_no_half_of_bmv2() {
    if Bmv2::is_there_for("a_full_table_refuses_and_keeps_no_half_of_bmv2") {
        fill(Switch::bmv2().await).await;
    }
}

async fn fill(switch: Switch) {
    const ROOM: u32 = 33;
    let embedded = matches!(switch, Switch::Embedded(_));
    let client = primary(switch.addr()).await;
    let json = String::from_utf8(shunt_p4::PIPELINE_JSON.to_vec()).unwrap();
    let small = json.replace("1048576", &ROOM.to_string());
    assert_ne!(small, json, "the flow tables have another size");
    push_pipeline(&client, small.into_bytes()).await;

    let (mut worker, port) = channel(1024);
    let engine = start(&client, port);
    let timeout = Duration::from_secs(60);
    for n in 0..100 {
        submit(&mut worker, OffloadCommand::Install(unit(n, timeout))).await;
    }
    let mut installed = Vec::new();
    for event in events(&mut worker, 100).await {
        match event {
            OffloadEvent::Installed(id) => installed.push(unit(id.slot, timeout)),
            OffloadEvent::Refused(_, RefuseReason::TableFull) if embedded => {}
            // PI keeps its target's reasons to itself.
            OffloadEvent::Refused(_, RefuseReason::Failed | RefuseReason::TableFull)
                if !embedded => {}
            other => panic!("{other:?}"),
        }
    }
    engine.settled().await.unwrap();
    assert!(!installed.is_empty() && installed.len() * 2 <= ROOM as usize);
    assert_eq!(flows(&client).await, entries(installed));
    engine.shutdown().await;
    switch.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_restarts_empty_gets_everything_back() {
    restart(Switch::embedded(Options::default()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_restarts_empty_gets_everything_back_of_bmv2() {
    if Bmv2::is_there_for("a_switch_that_restarts_empty_gets_everything_back_of_bmv2") {
        restart(Switch::bmv2().await).await;
    }
}

async fn restart(switch: Switch) {
    let addr = switch.addr();
    let embedded = matches!(switch, Switch::Embedded(_));
    let client = primary(addr).await;
    push_pipeline(&client, shunt_p4::PIPELINE_JSON.to_vec()).await;
    let (mut worker, port) = channel(1024);
    let engine = start(&client, port);
    let timeout = Duration::from_secs(60);
    for n in 0..50 {
        submit(&mut worker, OffloadCommand::Install(unit(n, timeout))).await;
    }
    events(&mut worker, 50).await;

    switch.stop().await;
    // The engine learns it the hard way: its own writes fail.
    for n in 50..60 {
        submit(&mut worker, OffloadCommand::Install(unit(n, timeout))).await;
    }
    submit(&mut worker, removal(unit(0, timeout).id)).await;
    let second = Switch::start_another_at(embedded, addr).await;
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100), 1);
    client.reconnect_with(&mut backoff).await.unwrap();
    push_pipeline(&client, shunt_p4::PIPELINE_JSON.to_vec()).await;
    engine.resync();

    let told = events(&mut worker, 11).await;
    assert!(
        told.contains(&OffloadEvent::Removed(unit(0, timeout).id)),
        "{told:?}"
    );
    tokio::time::timeout(PATIENCE, engine.settled())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        flows(&client).await,
        entries((1..60).map(|n| unit(n, timeout)))
    );
    engine.shutdown().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_reported() {
    let clock = Arc::new(ManualClock::default());
    let switch = Switch::embedded(Options {
        clock: clock.clone(),
        ..Options::default()
    })
    .await;
    let client = primary(switch.addr()).await;
    push_pipeline(&client, shunt_p4::PIPELINE_JSON.to_vec()).await;
    let (mut worker, port) = channel(64);
    let engine = start(&client, port);
    let reports = engine.engine();
    let mut notifications = client.take_idle_timeouts().unwrap();
    tokio::spawn(async move {
        while let Some(notification) = notifications.recv().await {
            reports.idle_notification(&notification);
        }
    });
    let unit = unit(1, Duration::from_secs(10));
    submit(&mut worker, OffloadCommand::Install(unit)).await;
    assert_eq!(
        events(&mut worker, 1).await,
        [OffloadEvent::Installed(unit.id)]
    );
    clock.advance(11_000_000_000);
    assert_eq!(events(&mut worker, 1).await, [OffloadEvent::Idle(unit.id)]);
    submit(&mut worker, removal(unit.id)).await;
    // The switch may have repeated its report meanwhile.
    loop {
        match events(&mut worker, 1).await[..] {
            [OffloadEvent::Removed(id)] => break assert_eq!(id, unit.id),
            [OffloadEvent::Idle(_)] => {}
            ref other => panic!("{other:?}"),
        }
    }
    assert_eq!(flows(&client).await, []);
    engine.shutdown().await;
    switch.stop().await;
}
