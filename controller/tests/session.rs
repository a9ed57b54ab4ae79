//! The session with the switch, over gRPC, against the embedded switch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod embedded;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use embedded::{PATIENCE, configuration, configured, id, read, routes, switch};
use p4runtime::client::{Arbitration, Client, ClientConfig, PipelineAction};
use p4runtime::p4::v1::{Entity, TableEntry, Update, entity, update};
use p4runtime::p4info::parse_p4info_text;
use shunt_controller::config::Config;
use shunt_controller::switch::{
    Connected, Found, Kind, NotNow, Scope, SessionParts, SwitchError, SwitchHandle, SwitchState,
};
use shunt_offload::{Engine, EngineConfig, EngineHandle, P4RuntimeSink};
use shunt_p4::tables::{
    AnyEntry, Meter, NexthopAction, NexthopEntry, NexthopKey, P4Table as _, Punt, Route4,
    Route4Action, Route4Key,
};
use shunt_p4::{InterfaceId, NetworkOp, Nexthop, Route, VpcId};
use tokio_util::sync::CancellationToken;

type Asked = Arc<Mutex<Vec<(InterfaceId, IpAddr)>>>;

struct Session {
    client: Client,
    handle: SwitchHandle,
    engine: EngineHandle,
    asked: Asked,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Session {
    async fn start(config: &Config) -> Self {
        let connected = Connected::open(&config.switches[0], PATIENCE)
            .await
            .unwrap();
        let client = connected.client().clone();
        let sink = P4RuntimeSink::new(client.clone());
        let engine = Engine::start(EngineConfig::default(), Vec::new(), sink);
        let asked = Asked::default();
        let resolver = Arc::clone(&asked);
        let stop = CancellationToken::new();
        let parts = SessionParts {
            meters: config.punt_meters.clone(),
            scope: Scope::All,
            peerings: None,
            engine: Some(engine.engine()),
            resolver: Arc::new(move |interface, address| {
                resolver.lock().unwrap().push((interface, address));
            }),
            stop: stop.clone(),
        };
        let (handle, task) = SwitchHandle::start(connected, parts);
        Self {
            client,
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_is_filled_and_filled_again_when_it_restarts_empty() {
    let switch_handle = switch("127.0.0.1:0").await;
    let address = switch_handle.addr();
    let config = configuration(&address);
    let session = Session::start(&config).await;
    session.handle.apply(configured(&config)).await;
    session.handle.apply(routes(500)).await;
    session.handle.complete().await;
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
            mtu: u16::MAX,
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
    // Nothing is touched before the whole of the network is known.
    session
        .wait("waiting", |handle| {
            handle.view().state == SwitchState::Waiting && handle.view().applied == 1
        })
        .await;
    let refused = session.handle.diff().await.unwrap_err();
    assert!(matches!(refused, NotNow::NotReady { .. }), "{refused}");
    assert_eq!(read(&address, NexthopEntry::ID).await.len(), 1);
    session.handle.complete().await;
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
    session.handle.complete().await;
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

/// Two daemons for one switch: the second waits for the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_take_over_waits_until_the_other_leaves() {
    let switch_handle = switch("127.0.0.1:0").await;
    let address = switch_handle.addr();
    let mut config = configuration(&address);
    let first = Session::start(&config).await;
    first.handle.apply(routes(2)).await;
    first.handle.complete().await;
    first.converged().await;

    config.switches[0].take_over = false;
    let second = Session::start(&config).await;
    second.handle.apply(routes(4)).await;
    second.handle.complete().await;
    second
        .wait("backup", |handle| {
            handle.view().state == SwitchState::Backup
        })
        .await;
    // The first one works on, and is not disturbed.
    first.handle.apply(routes(3)).await;
    first.converged().await;
    assert_eq!(first.handle.view().sessions, 1);
    assert_eq!(read(&address, Route4::ID).await.len(), 3);
    first.client.close_stream("the daemon ends");
    first.stop().await;
    second.converged().await;
    assert_eq!(read(&address, Route4::ID).await.len(), 4);
    second.stop().await;
    switch_handle.kill().await;
}

/// A role of its own leaves another role's controller alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_writes_as_its_role() {
    let switch_handle = switch("127.0.0.1:0").await;
    let address = switch_handle.addr();
    let other = Client::connect(ClientConfig::new(&address, 1, 7))
        .await
        .unwrap();
    other.become_primary().await.unwrap();
    let mut config = configuration(&address);
    config.switches[0].role = Some("router".to_owned());
    let session = Session::start(&config).await;
    session.handle.apply(routes(2)).await;
    session.handle.complete().await;
    session.converged().await;
    assert_eq!(read(&address, Route4::ID).await.len(), 2);
    let standing = other.arbitration().borrow().clone();
    assert_eq!(standing, Arbitration::Primary);
    let election = |role: Option<&str>| {
        let config = ClientConfig {
            role: role.map(str::to_owned),
            ..ClientConfig::new(&address, 1, 1)
        };
        async { Client::connect(config).await.unwrap().election().await }
    };
    assert_eq!(election(None).await.unwrap().primary, Some(7));
    let router = election(Some("router")).await.unwrap();
    assert_eq!(router.primary, Some(session.client.election_id()));
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
    session.handle.complete().await;
    let (fabric, remote) = (InterfaceId::new(3).unwrap(), IpAddr::from([172, 16, 0, 2]));
    let attached = Nexthop {
        interface: fabric,
        gateway: None,
        mtu: None,
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

/// Regression: meters were read without their rates, and written again at every comparison.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_are_shown_and_put_right_on_demand() {
    let switch_handle = switch("127.0.0.1:0").await;
    let address = switch_handle.addr();
    let config = configuration(&address);
    assert!(!config.punt_meters.is_empty());
    let session = Session::start(&config).await;
    session.handle.apply(configured(&config)).await;
    session.handle.apply(routes(6)).await;
    session.handle.complete().await;
    session.converged().await;
    let comparison = session.handle.diff().await.unwrap();
    assert_eq!(comparison.differences, []);
    assert_eq!(comparison.wanted, comparison.held);

    // Somebody else changes the switch behind our back, with our election id.
    let election_id = session.client.election_id();
    let config = ClientConfig::new(&address, 1, election_id);
    let other = Client::connect(config).await.unwrap();
    let route = |n: u8, nexthop: u32| Route4 {
        key: Route4Key {
            vpc: VpcId::MIN,
            dst: format!("10.0.{n}.0/24").parse().unwrap(),
        },
        action: Route4Action::ToNexthop {
            nexthop: id(nexthop),
        },
    };
    let update = |kind: update::Type, entry: TableEntry| Update {
        r#type: kind.into(),
        entity: Some(Entity {
            entity: Some(entity::Entity::TableEntry(entry)),
        }),
    };
    let meter = read_with_meters(&address).await;
    let mut slower = meter;
    slower.meter = Some(Meter::single(7, 7));
    let updates = vec![
        update(update::Type::Delete, route(0, 2).key_entry()),
        update(update::Type::Modify, route(2, 3).to_entry()),
        update(update::Type::Insert, route(99, 2).to_entry()),
        update(update::Type::Modify, slower.to_entry()),
    ];
    other.write(updates).await.unwrap();
    let comparison = session.handle.diff().await.unwrap();
    let mut kinds: Vec<Kind> = comparison.differences.iter().map(|d| d.kind()).collect();
    kinds.sort_unstable();
    let all = [
        Kind::Missing,
        Kind::Different,
        Kind::Different,
        Kind::Surplus,
    ];
    assert_eq!(kinds, all);
    let surplus = AnyEntry::from(route(99, 2));
    assert!(
        comparison
            .differences
            .iter()
            .any(|d| d.found == Found::Entry(surplus.clone()))
    );
    assert!(comparison.differences.iter().any(|d| {
        d.wanted == Some(AnyEntry::from(meter)) && d.found == Found::Entry(AnyEntry::from(slower))
    }));

    // To look is not to touch.
    assert_eq!(session.handle.diff().await.unwrap(), comparison);
    let repair = session.handle.reconcile().await.unwrap();
    assert_eq!((repair.left, repair.refused), (0, 0));
    let found = [(Kind::Missing, 1), (Kind::Different, 2), (Kind::Surplus, 1)];
    assert_eq!(repair.found, found);
    assert_eq!(session.handle.diff().await.unwrap().differences, []);
    assert_eq!(read_with_meters(&address).await, meter);
    session.stop().await;
    switch_handle.kill().await;
}

/// The entry for ARP, with its meter.
async fn read_with_meters(address: &str) -> Punt {
    let client = Client::connect(ClientConfig::new(address, 1, 1))
        .await
        .unwrap();
    let wildcard = entity::Entity::TableEntry(TableEntry {
        table_id: Punt::ID,
        meter_config: Some(Meter::wanted()),
        ..Default::default()
    });
    let entities = client
        .read(vec![Entity {
            entity: Some(wildcard),
        }])
        .await
        .unwrap();
    let mut punts: Vec<Punt> = entities
        .into_iter()
        .map(|entity| match entity.entity {
            Some(entity::Entity::TableEntry(entry)) => Punt::from_entry(&entry).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(punts.iter().all(|punt| punt.meter.is_some()));
    punts.sort_by_key(|punt| (punt.key.reason as u8, punt.key.interface));
    punts.remove(0)
}

#[tokio::test]
async fn an_unreachable_switch_is_named_with_how_long_it_was_tried() {
    // A port that nobody listens on: bound, and closed again.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let config = configuration(&address);
    let error = Connected::open(&config.switches[0], Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(matches!(error, SwitchError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("sw1") && text.contains(&address) && text.contains("ms"),
        "{text}"
    );
}
