//! The switch, the weather, and the oracle that watches where packets go.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etherparse::PacketBuilder;
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use p4runtime::client::{Client, ClientConfig};
use p4runtime::p4::v1::p4_runtime_client::P4RuntimeClient;
use p4runtime::p4::v1::p4_runtime_server::P4RuntimeServer;
use p4runtime::p4::v1::{self as pb, entity};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use shunt_p4::tables::{ClassifyPort, Ecmp, Neighbor4, NexthopEntry, P4Table as _, Route4};
use shunt_switch::{ChannelPort, Local, Options, Switch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::network::{INSIDE, Network, OUTSIDE, SLOW_PATH, Station, Way, mac, probes};
use super::proxy::{Proxy, Weather};

/// Bytes on their way between client and server.
const PIPE_BYTES: usize = 1 << 20;
/// Frames that wait at a port.
const PORT_FRAMES: usize = 16;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where chance comes from, and what it does.
pub struct Sky {
    pub weather: Weather,
    pub random: StdRng,
    /// Requests so far.
    pub rpcs: u64,
}

struct Rig {
    server: Local,
    ports: Vec<(u16, ChannelPort)>,
}

impl Rig {
    fn new() -> Self {
        let switch = Switch::new(Options::default());
        let numbers = INSIDE.into_iter().chain(OUTSIDE).chain([SLOW_PATH]);
        let ports = numbers.map(|port| (port, switch.attach_channel(port.into(), PORT_FRAMES)));
        let ports = ports.collect();
        Self {
            server: Local::new(&switch),
            ports,
        }
    }

    fn send(&self, from: u16, to: std::net::Ipv4Addr) -> Way {
        let frame = PacketBuilder::ethernet2([2, 9, 9, 9, 9, 9], mac(from))
            .ipv4([192, 168, 0, 2], to.octets(), 64)
            .udp(1000, 2000);
        let mut bytes = Vec::new();
        frame.write(&mut bytes, b"probe").unwrap();
        let (_, port) = self.ports.iter().find(|(port, _)| *port == from).unwrap();
        port.inject(&bytes);
        let mut seen = Way::Nowhere;
        for (number, port) in &self.ports {
            while let Some(frame) = port.try_receive() {
                let mac = frame.first_chunk().copied().unwrap_or_default();
                let way = match (*number, Station::of_mac(*number, mac)) {
                    (SLOW_PATH, _) => Way::SlowPath,
                    (_, Some(station)) => Way::Out(station),
                    _ => Way::Elsewhere(format!("port {number}: {frame:02x?}")),
                };
                seen = match seen {
                    Way::Nowhere => way,
                    other => Way::Elsewhere(format!("twice: {other:?} and {way:?}")),
                };
            }
        }
        seen
    }
}

/// What was wanted, and what was seen.
struct Oracle {
    /// Every wanted state: the ways of each probe.
    wanted: Vec<Vec<HashSet<Way>>>,
    /// What each probe did last.
    before: Vec<Way>,
    /// The wanted state when the last request was answered. What a Write says was chosen after
    /// that, and what was wanted then had been taken over.
    known: usize,
    /// Interfaces come and go: packets may be dropped.
    moves: bool,
    faults: Vec<String>,
}

/// The wanted states by which the updates of a Write may have been chosen.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    from: usize,
    to: usize,
}

pub struct Lab {
    sky: Mutex<Sky>,
    rig: Mutex<Rig>,
    oracle: Mutex<Oracle>,
    cut: Mutex<CancellationToken>,
}

impl Lab {
    pub fn new(seed: u64, weather: Weather, network: &Network) -> Arc<Self> {
        Arc::new(Self {
            sky: Mutex::new(Sky {
                weather,
                random: StdRng::seed_from_u64(!seed),
                rpcs: 0,
            }),
            rig: Mutex::new(Rig::new()),
            oracle: Mutex::new(Oracle {
                wanted: vec![vec![HashSet::new(); probes().count()]],
                before: vec![Way::Nowhere; probes().count()],
                known: 0,
                moves: network.moves(),
                faults: Vec::new(),
            }),
            cut: Mutex::default(),
        })
    }

    /// A client whose connections lead to the proxy, in this process.
    pub fn client(self: &Arc<Self>) -> Client {
        let config = ClientConfig::new("switch.invalid:1", 1, 1);
        let lab = Arc::clone(self);
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let server = tonic::transport::Server::builder()
                .add_service(P4RuntimeServer::new(Proxy(Arc::clone(&lab))))
                .serve_with_incoming(tokio_stream::once(Ok::<_, std::io::Error>(far)));
            tokio::spawn(server);
            async move { Ok::<_, std::io::Error>(TokioIo::new(near)) }
        });
        let endpoint = config.endpoint().unwrap();
        Client::over(endpoint.connect_with_connector_lazy(connector), config)
    }

    pub fn sky(&self) -> MutexGuard<'_, Sky> {
        lock(&self.sky)
    }

    /// Requests so far.
    pub fn rpcs(&self) -> u64 {
        self.sky().rpcs
    }

    /// The switch's server, without the weather.
    pub fn service(&self) -> P4RuntimeClient<Routes> {
        P4RuntimeClient::new(lock(&self.rig).server.routes())
    }

    /// What ends the streams of now.
    pub fn cut(&self) -> CancellationToken {
        lock(&self.cut).clone()
    }

    /// Ends every stream.
    pub fn cut_streams(&self) {
        std::mem::take(&mut *lock(&self.cut)).cancel();
    }

    /// The switch restarts, and has forgotten everything.
    pub fn restart(&self) {
        *lock(&self.rig) = Rig::new();
        lock(&self.oracle).before.fill(Way::Nowhere);
        self.cut_streams();
    }

    /// The weather clears.
    pub fn heal(&self) {
        self.sky().weather = Weather::default();
        self.assert_no_fault();
    }

    fn assert_no_fault(&self) {
        let faults = &lock(&self.oracle).faults;
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    /// Something else is wanted from now on.
    pub fn wants(&self, network: &Network) {
        self.assert_no_fault();
        lock(&self.oracle).wanted.push(network.ways());
    }

    /// A Write has come.
    pub fn window(&self) -> Window {
        let oracle = lock(&self.oracle);
        Window {
            from: oracle.known,
            to: oracle.wanted.len() - 1,
        }
    }

    /// A request is answered, or will never be.
    pub fn answered(&self) {
        let mut oracle = lock(&self.oracle);
        oracle.known = oracle.wanted.len() - 1;
    }

    fn send_all(&self) -> Vec<Way> {
        let rig = lock(&self.rig);
        probes().map(|(from, to)| rig.send(from, to)).collect()
    }

    /// Sends every probe, and notes those that an update has sent where nobody wants them.
    pub fn probe(&self, update: &str, window: Window) {
        let now = self.send_all();
        let mut oracle = lock(&self.oracle);
        for ((at, now), (from, to)) in now.into_iter().enumerate().zip(probes()) {
            let before = std::mem::replace(&mut oracle.before[at], now.clone());
            let wanted = &oracle.wanted[window.from..=window.to];
            let right = now == before
                || now == Way::SlowPath
                || oracle.moves && now == Way::Nowhere
                || wanted.iter().any(|state| state[at].contains(&now));
            if !right {
                let wanted: Vec<_> = wanted.iter().map(|state| &state[at]).collect();
                let fault = format!(
                    "{update}\n  sends a packet from port {from} to {to} elsewhere: {now:?}; \
                     before it went {before:?}, and wanted is {wanted:?}"
                );
                oracle.faults.push(fault);
            }
        }
    }

    /// Nothing is left to be done but what the switch refuses to insert: every packet goes
    /// where it should, or to the slow path.
    pub fn leaves_nothing_wrong(&self) {
        self.assert_no_fault();
        let all = self.send_all();
        let oracle = lock(&self.oracle);
        let wanted = oracle.wanted.last().unwrap();
        // The port itself may be what does not fit.
        let is_closed = |port: u16| {
            let mut of_port = all.iter().zip(probes());
            of_port.all(|(way, (from, _))| from != port || *way == Way::Nowhere)
        };
        for ((now, wanted), (from, to)) in all.iter().zip(wanted).zip(probes()) {
            let may_be_dropped = oracle.moves || is_closed(from);
            let right = *now == Way::SlowPath
                || *now == Way::Nowhere && may_be_dropped
                || wanted.contains(now);
            assert!(
                right,
                "a packet from port {from} to {to} is left on a wrong way: {now:?} instead of \
                 {wanted:?}"
            );
        }
    }

    /// Wants that everything goes nowhere, and says what is found.
    pub fn find_faults(&self) -> String {
        {
            let mut oracle = lock(&self.oracle);
            let nowhere = HashSet::from([Way::Nowhere]);
            oracle.wanted.push(vec![nowhere; probes().count()]);
            oracle.before.fill(Way::Nowhere);
            oracle.known = oracle.wanted.len() - 1;
        }
        self.probe("the end", self.window());
        std::mem::take(&mut lock(&self.oracle).faults).join("\n")
    }

    /// Packets go exactly where they should, and no table has anything else.
    pub async fn holds_exactly(&self, network: &Network) {
        self.assert_no_fault();
        let now = self.send_all();
        for ((now, wanted), (from, to)) in now.iter().zip(network.ways()).zip(probes()) {
            assert!(
                wanted.contains(now),
                "a packet from port {from} to {to} goes {now:?} instead of {wanted:?}"
            );
        }
        let sizes = (
            self.count(Route4::ID).await,
            self.count(Ecmp::ID).await,
            self.count(NexthopEntry::ID).await,
            self.count(Neighbor4::ID).await,
        );
        assert_eq!(
            sizes,
            network.sizes(),
            "routes, groups, next hops, neighbours"
        );
        let ports = INSIDE.len() + OUTSIDE.len() + 1;
        assert_eq!(self.count(ClassifyPort::ID).await, ports);
    }

    async fn count(&self, table_id: u32) -> usize {
        let wildcard = entity::Entity::TableEntry(pb::TableEntry {
            table_id,
            ..Default::default()
        });
        let request = pb::ReadRequest {
            device_id: 1,
            entities: vec![pb::Entity {
                entity: Some(wildcard),
            }],
            ..Default::default()
        };
        let request = tonic::Request::new(request);
        let answers = self.service().read(request).await.unwrap();
        let answers: Vec<_> = answers.into_inner().collect().await;
        let answers = answers.into_iter();
        answers.map(|answer| answer.unwrap().entities.len()).sum()
    }
}
