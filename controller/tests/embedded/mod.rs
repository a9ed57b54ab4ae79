//! An embedded switch, and a network for it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use p4runtime::client::{Client, ClientConfig};
use p4runtime::p4::v1::{Entity, TableEntry, entity};
use shunt_controller::config::{self, Config};
use shunt_p4::tables::AnyEntry;
use shunt_p4::{InterfaceId, NetworkOp, Nexthop, NexthopId, Route, VpcId};
use shunt_switch::Handle;

/// Nothing here takes as long on any machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A switch on a runtime of its own: when that is shut down, everything of it is gone at once,
/// as when its process is killed.
pub struct Switch {
    runtime: tokio::runtime::Runtime,
    handle: Handle,
}

impl Switch {
    pub fn addr(&self) -> String {
        self.handle.addr().to_string()
    }

    /// The switch stops answering, and keeps its connections, until the result is dropped.
    pub fn hang(&self) -> std::sync::mpsc::Sender<()> {
        let (resume, resumed) = std::sync::mpsc::channel();
        let (hung, hangs) = std::sync::mpsc::channel();
        // Its runtime has one thread.
        self.runtime.spawn(async move {
            hung.send(()).unwrap();
            let _ = resumed.recv();
        });
        hangs.recv().unwrap();
        resume
    }

    pub async fn kill(self) {
        self.runtime.shutdown_background();
        drop(self.handle);
    }
}

pub async fn switch(addr: &str) -> Switch {
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

pub fn configuration(address: &str) -> Config {
    let text = include_str!("../../src/config/testdata/good.toml");
    let text = text.replace("127.0.0.1:9559", address);
    config::validate(&config::document_of(&text).unwrap()).unwrap()
}

pub fn configured(config: &Config) -> Vec<NetworkOp> {
    let vpcs = config.vpcs.iter().map(|v| NetworkOp::SetVpc(v.vpc.clone()));
    let interfaces = config
        .interfaces
        .iter()
        .map(|i| NetworkOp::SetInterface(i.interface.clone()));
    vpcs.chain(interfaces).collect()
}

pub fn id(n: u32) -> NexthopId {
    NexthopId::new(n).unwrap()
}

/// A next hop on wan, and routes over it and over a group.
pub fn routes(count: u16) -> Vec<NetworkOp> {
    let wan = InterfaceId::new(4).unwrap();
    let hop = |n: u32| {
        let gateway = Some(IpAddr::from([203, 0, 113, n as u8]));
        NetworkOp::SetNexthop(
            id(n),
            Nexthop {
                interface: wan,
                gateway,
                mtu: None,
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

pub async fn read(address: &str, table_id: u32) -> Vec<AnyEntry> {
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
