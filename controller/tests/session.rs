//! The session with the switch, over gRPC, against the embedded switch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use p4runtime::client::{Client, ClientConfig, PipelineAction};
use p4runtime::p4::v1::{Entity, TableEntry, Update, entity, update};
use p4runtime::p4info::parse_p4info_text;
use shunt_controller::config::{self, Config};
use shunt_controller::switch::{Connected, SwitchError, SwitchHandle, SwitchState};
use shunt_offload::{Engine, EngineConfig, EngineHandle, P4RuntimeSink};
use shunt_p4::tables::{AnyEntry, NexthopAction, NexthopEntry, NexthopKey, P4Table as _, Route4};
use shunt_p4::{InterfaceId, NetworkOp, Nexthop, NexthopId, Route, VpcId};
use shunt_switch::Handle;
use tokio_util::sync::CancellationToken;

/// Nothing here takes as long on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A switch on a runtime of its own: when that is shut down, everything of it is gone at once,
/// as when its process is killed.
struct Switch {
    runtime: tokio::runtime::Runtime,
    handle: Handle,
}

impl Switch {
    fn addr(&self) -> String {
        self.handle.addr().to_string()
    }

    async fn kill(self) {
        self.runtime.shutdown_background();
        drop(self.handle);
    }
}

async fn switch(addr: &str) -> Switch {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let begun = Instant::now();
    loop {
        let config = shunt_switch::Config {
            grpc_addr: addr.to_owned(),
            ..Default::default()
        };
        match runtime.spawn(shunt_switch::run(config)).await.unwrap() {
            Ok(handle) => return Switch { runtime, handle },
            // Its predecessor may not have let go of the port yet.
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn configuration(address: &str) -> Config {
    let text = include_str!("../src/config/testdata/good.toml");
    let text = text.replace("127.0.0.1:9559", address);
    config::parse("good.toml".as_ref(), &text).unwrap()
}

type Asked = Arc<Mutex<Vec<(InterfaceId, IpAddr)>>>;

struct Session {
    handle: SwitchHandle,
    engine: EngineHandle,
    asked: Asked,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Session {
    async fn start(config: &Config) -> Self {
        let connected = Connected::open(&config.switch, PATIENCE).await.unwrap();
        let sink = P4RuntimeSink::new(connected.client().clone());
        let engine = Engine::start(EngineConfig::default(), Vec::new(), sink);
        let asked = Asked::default();
        let resolver = Arc::clone(&asked);
        let stop = CancellationToken::new();
        let (handle, task) = SwitchHandle::start(
            connected,
            config.punt_meters.clone(),
            engine.engine(),
            Arc::new(move |interface, address| resolver.lock().unwrap().push((interface, address))),
            stop.clone(),
        );
        Self {
            handle,
            engine,
            asked,
            stop,
            task,
        }
    }

    async fn wait(&self, what: &str, condition: impl Fn(&SwitchHandle) -> bool) {
        let begun = Instant::now();
        while !condition(&self.handle) {
            let view = self.handle.view();
            assert!(begun.elapsed() < PATIENCE, "{what}: {view:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn converged(&self) {
        self.wait("converged", SwitchHandle::is_converged).await;
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.engine.shutdown().await;
    }
}

fn configured(config: &Config) -> Vec<NetworkOp> {
    let vpcs = config.vpcs.iter().map(|v| NetworkOp::SetVpc(v.vpc.clone()));
    let interfaces = config
        .interfaces
        .iter()
        .map(|i| NetworkOp::SetInterface(i.interface.clone()));
    vpcs.chain(interfaces).collect()
}

fn id(n: u32) -> NexthopId {
    NexthopId::new(n).unwrap()
}

/// A next hop on wan, and routes over it and over a group.
fn routes(count: u16) -> Vec<NetworkOp> {
    let wan = InterfaceId::new(4).unwrap();
    let hop = |n: u32| {
        let gateway = Some(IpAddr::from([203, 0, 113, n as u8]));
        NetworkOp::SetNexthop(
            id(n),
            Nexthop {
                interface: wan,
                gateway,
            },
        )
    };
    let mut ops = vec![hop(2), hop(3)];
    for n in 0..count {
        let [high, low] = n.to_be_bytes();
        let paths = if n % 2 == 0 {
            vec![(id(2), 1)]
        } else {
            vec![(id(2), 1), (id(3), 2)]
        };
        let prefix = format!("10.{high}.{low}.0/24").parse().unwrap();
        ops.push(NetworkOp::SetRoute(
            VpcId::MIN,
            prefix,
            Route::Nexthops(paths),
        ));
    }
    ops
}

async fn read(address: &str, table_id: u32) -> Vec<AnyEntry> {
    let client = Client::connect(ClientConfig::new(address, 1, 1))
        .await
        .unwrap();
    let wildcard = entity::Entity::TableEntry(TableEntry {
        table_id,
        ..Default::default()
    });
    let entities = client
        .read(vec![Entity {
            entity: Some(wildcard),
        }])
        .await
        .unwrap();
    entities
        .into_iter()
        .map(|entity| match entity.entity {
            Some(entity::Entity::TableEntry(entry)) => AnyEntry::from_entry(&entry).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_is_filled_and_filled_again_when_it_restarts_empty() {
    let switch_handle = switch("127.0.0.1:0").await;
    let address = switch_handle.addr();
    let config = configuration(&address);
    let session = Session::start(&config).await;
    session.handle.apply(configured(&config)).await;
    session.handle.apply(routes(500)).await;
    session.converged().await;

    assert_eq!(read(&address, Route4::ID).await.len(), 500);
    let view = session.handle.view();
    assert_eq!(view.pipeline_cookie, Some(shunt_p4::pipeline_cookie()));
    let count = |table: &str| {
        view.tables
            .iter()
            .find(|(name, _)| *name == table)
            .map(|t| t.1)
    };
    assert_eq!((count("ecmp"), count("nexthop")), (Some(1), Some(2)));
    // The tunnel's way is not known: no egress entry, and it is a fact of the view.
    assert_eq!(count("egress_interface"), Some(5));
    assert_eq!(view.unresolved, [InterfaceId::new(5).unwrap()]);

    switch_handle.kill().await;
    session
        .wait("lost", |handle| {
            handle.view().state == SwitchState::Connecting
        })
        .await;
    // What happens meanwhile is not lost.
    let gone = NetworkOp::RemoveRoute(VpcId::MIN, "10.0.0.0/24".parse().unwrap());
    session.handle.apply(vec![gone]).await;
    assert!(!session.handle.is_converged());
    let switch_handle = switch(&address).await;
    session.converged().await;
    assert_eq!(read(&address, Route4::ID).await.len(), 499);
    assert_eq!(session.handle.view().sessions, 2);
    session.stop().await;
    switch_handle.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_is_removed_and_what_is_right_stays() {
    let switch_handle = switch("127.0.0.1:0").await;
    let address = switch_handle.addr();
    // A predecessor with our pipeline, and an entry that nobody wants any more.
    let client = Client::connect(ClientConfig::new(&address, 1, 1))
        .await
        .unwrap();
    client.become_primary().await.unwrap();
    client
        .set_pipeline(
            PipelineAction::VerifyAndCommit,
            parse_p4info_text(shunt_p4::P4INFO).unwrap(),
            shunt_p4::PIPELINE_JSON.to_vec(),
            shunt_p4::pipeline_cookie(),
        )
        .await
        .unwrap();
    let stale = NexthopEntry {
        key: NexthopKey { nexthop: id(77) },
        action: NexthopAction::Attached {
            interface: InterfaceId::MIN,
        },
    };
    let insert = Update {
        r#type: update::Type::Insert.into(),
        entity: Some(Entity {
            entity: Some(entity::Entity::TableEntry(stale.to_entry())),
        }),
    };
    client.write(vec![insert]).await.unwrap();

    // It is still connected, as a killed daemon's stream may seem to be: we take over.
    let config = configuration(&address);
    let session = Session::start(&config).await;
    session.handle.apply(routes(4)).await;
    session.converged().await;
    let hops = read(&address, NexthopEntry::ID).await;
    assert_eq!(hops.len(), 2, "{hops:?}");
    session.stop().await;
    switch_handle.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_controller_that_takes_over_is_not_fought() {
    let switch_handle = switch("127.0.0.1:0").await;
    let address = switch_handle.addr();
    let config = configuration(&address);
    let session = Session::start(&config).await;
    session.handle.apply(routes(2)).await;
    session.converged().await;

    let other = Client::connect(ClientConfig::new(&address, 1, u128::MAX - 1))
        .await
        .unwrap();
    other.become_primary().await.unwrap();
    session
        .wait("backup", |handle| {
            handle.view().state == SwitchState::Backup
        })
        .await;
    session.handle.apply(routes(4)).await;
    let error = session.handle.view().last_error.unwrap();
    assert!(error.contains("another controller"), "{error}");
    assert_eq!(read(&address, Route4::ID).await.len(), 2);
    // It leaves: we are back, above its id, and nothing was forgotten.
    drop(other);
    session.converged().await;
    assert_eq!(read(&address, Route4::ID).await.len(), 4);
    session.stop().await;
    switch_handle.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnels_way_is_asked_for_and_then_used() {
    let switch_handle = switch("127.0.0.1:0").await;
    let address = switch_handle.addr();
    let config = configuration(&address);
    let session = Session::start(&config).await;
    session.handle.apply(configured(&config)).await;
    let (fabric, remote) = (InterfaceId::new(3).unwrap(), IpAddr::from([172, 16, 0, 2]));
    let attached = Nexthop {
        interface: fabric,
        gateway: None,
    };
    let wan_vpc = VpcId::new(4).unwrap();
    session
        .handle
        .apply(vec![
            NetworkOp::SetNexthop(id(1), attached),
            NetworkOp::SetRoute(
                wan_vpc,
                "172.16.0.0/24".parse().unwrap(),
                Route::Nexthops(vec![(id(1), 1)]),
            ),
        ])
        .await;
    session.converged().await;
    assert!(session.asked.lock().unwrap().contains(&(fabric, remote)));
    let mac = "02:00:00:00:00:99".parse().unwrap();
    session
        .handle
        .apply(vec![NetworkOp::SetNeighbor(fabric, remote, mac)])
        .await;
    session.converged().await;
    assert_eq!(session.handle.view().unresolved, []);
    session.stop().await;
    switch_handle.kill().await;
}

#[tokio::test]
async fn an_unreachable_switch_is_named_with_how_long_it_was_tried() {
    // A port that nobody listens on: bound, and closed again.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let config = configuration(&address);
    let error = Connected::open(&config.switch, Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(matches!(error, SwitchError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("sw1") && text.contains(&address) && text.contains("ms"),
        "{text}"
    );
}
