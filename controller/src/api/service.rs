//! The service itself: asks the daemon's parts and translates.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use futures::future::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use p4runtime::p4info::parse_p4info_text;
use shunt_api::v1::shunt_server::{Shunt, ShuntServer};
use shunt_api::v1::{self, GetStatusResponse};
use shunt_slowpath::{ManagerHandle, SlowPathStats};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::access::{Access, Entrance, Role};
use super::configuration;
use super::convert;
use super::devices::Devices;
use super::filters;
use super::flows;
use super::hardware;
use super::nat;
use super::offload::{self, Engines};
use super::status::{Parts, status};
use super::switches;
use super::tls::TlsListener;
use super::top::Top;
use super::trace;
use crate::adopt::Restart;
use crate::config::{Config, Configuration, Switch};
use crate::kernel::{MirrorHandle, Snapshot};
use crate::logging::LogLevel;
use crate::pools::Pools;
use crate::pump::Convergence;
use crate::switch::{Member, SwitchView, Switches};

/// Whether a client over TCP is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Requests of one TCP connection at a time.
const REQUESTS_MAX: usize = 64;

/// What the service asks.
#[derive(Clone, Debug)]
pub struct Api {
    /// The configuration and its revisions.
    pub configuration: Arc<Configuration>,
    /// Whether it has been done.
    pub convergence: Convergence,
    /// What is logged.
    pub log: LogLevel,
    /// When the daemon started.
    pub started: Instant,
    /// The switches.
    pub switches: Switches,
    /// The kernel mirror.
    pub mirror: MirrorHandle,
    /// Whether its first load has been handed on.
    pub synchronised: watch::Receiver<bool>,
    /// The slow path.
    pub slow_path: ManagerHandle,
    /// What is watched of the masquerades' pools.
    pub pools: Pools,
    /// What was taken back of the daemon before.
    pub restart: watch::Receiver<Restart>,
    /// Who watches the rates.
    pub top: Top,
}

/// Where the API listens.
#[derive(Debug)]
pub struct Listeners {
    /// For admins.
    pub socket: UnixListener,
    /// For everybody, to look.
    pub read_only_socket: Option<UnixListener>,
    /// By certificate.
    pub tls: Option<TlsListener>,
}

/// Serves until `stop`.
///
/// # Errors
/// What the transport says.
pub async fn serve(
    api: Api,
    listeners: Listeners,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (top, sampled) = (api.top.clone(), api.clone());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ShuntServer<Api>>().await;
    let mut routes = Routes::new(health_service);
    routes = routes.add_service(ShuntServer::new(api));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(shunt_api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => routes = routes.add_service(reflection),
        Err(error) => tracing::warn!(%error, "the API has no reflection"),
    }
    let unix = |listener, role| {
        let mut server = Server::builder().layer(Access(Entrance::For(role)));
        let server = server.add_routes(routes.clone());
        server.serve_with_incoming(UnixListenerStream::new(listener))
    };
    let mut serving = vec![unix(listeners.socket, Role::Admin).boxed()];
    if let Some(socket) = listeners.read_only_socket {
        serving.push(unix(socket, Role::ReadOnly).boxed());
    }
    if let Some(listener) = listeners.tls {
        let admins = Arc::new(listener.config.admins.clone());
        let mut server = Server::builder()
            .tls_config(listener.identity.clone())?
            .http2_keepalive_interval(Some(KEEPALIVE))
            .concurrency_limit_per_connection(REQUESTS_MAX)
            .layer(Access(Entrance::Certificate(admins)));
        let server = server.add_routes(routes.clone());
        serving.push(server.serve_with_incoming(listener.incoming()).boxed());
    }
    let all = async { futures::future::try_join_all(serving).await.map(drop) };
    let sampling = tokio::spawn(top.run(sampled));
    // A listing that nobody reads must not hold up the end: it is cut off.
    let served = stop.run_until_cancelled(all).await.unwrap_or(Ok(()));
    sampling.abort();
    served
}

pub(super) type Listing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Api {
    /// The configuration in force.
    fn config(&self) -> Arc<Config> {
        self.configuration.current().config
    }

    /// Tables with their sizes, from the P4Info.
    pub(super) fn tables(&self, entries: &[(&'static str, u64)]) -> Vec<v1::TableOccupancy> {
        let sizes = parse_p4info_text(shunt_p4::P4INFO).map(|info| info.tables);
        let size_of = |name: &str| {
            sizes
                .iter()
                .flatten()
                .find(|table| table.preamble.as_ref().is_some_and(|p| p.alias == name))
                .map_or(0, |table| u64::try_from(table.size).unwrap_or(0))
        };
        entries
            .iter()
            .map(|(table, entries)| v1::TableOccupancy {
                table: (*table).to_owned(),
                entries: *entries,
                size: size_of(table),
            })
            .collect()
    }

    /// Each switch's session as of now.
    fn views(&self) -> Vec<(Switch, SwitchView)> {
        let members = self.switches.iter();
        members
            .map(|member| (member.switch.clone(), member.handle.view()))
            .collect()
    }

    /// The numbers of the engines that run.
    pub(crate) async fn engines(&self) -> Engines {
        let each = self.switches.iter().map(|member| async {
            let stats = member.engine.as_ref()?.stats().await.ok()?;
            Some((member.switch.name.clone(), stats))
        });
        let each = futures::future::join_all(each).await;
        each.into_iter().flatten().collect()
    }

    async fn snapshot(&self) -> Result<Snapshot, Status> {
        let snapshot = self.mirror.snapshot().await;
        snapshot.map_err(|error| Status::unavailable(error.to_string()))
    }

    async fn status(&self) -> GetStatusResponse {
        let slow_path = self.slow_path.stats().await.ok();
        status(self, &self.parts(slow_path).await)
    }

    pub(super) async fn parts(&self, slow_path: Option<SlowPathStats>) -> Parts {
        // First, so that what is converged was so before the rest was asked.
        let switches_converged = self.switches.are_converged();
        let synchronised = *self.synchronised.borrow();
        let current = self.configuration.current();
        Parts {
            missing: self.convergence.missing(current.revision).await,
            current,
            switches: self.views(),
            switches_converged,
            mirror: self.mirror.stats(),
            synchronised,
            slow_path,
            offload: self.engines().await,
            restart: self.restart.borrow().clone(),
        }
    }
}

#[tonic::async_trait]
impl Shunt for Api {
    type ListRoutesStream = Listing<v1::Route>;
    type ListNeighborsStream = Listing<v1::Neighbor>;
    type ListFlowsStream = Listing<v1::Flow>;
    type DiffSwitchStream = Listing<v1::DiffSwitchResponse>;
    type ReconcileSwitchStream = Listing<v1::ReconcileSwitchResponse>;
    type ListConfigLogStream = Listing<v1::ConfigRevision>;
    type WaitConfigStream = Listing<v1::WaitConfigResponse>;
    type WatchTopStream = Listing<v1::TopSample>;

    async fn watch_top(
        &self,
        request: Request<v1::WatchTopRequest>,
    ) -> Result<Response<Self::WatchTopStream>, Status> {
        Ok(Response::new(self.top.watch(&request.into_inner())?))
    }

    async fn set_log_level(
        &self,
        request: Request<v1::SetLogLevelRequest>,
    ) -> Result<Response<v1::SetLogLevelResponse>, Status> {
        let level = request.into_inner().level;
        let before = self.log.get();
        if !level.is_empty() {
            let set = self.log.set(&level);
            set.map_err(|error| Status::invalid_argument(convert::said(error)))?;
            tracing::info!(before, level, "log level");
        }
        let level = self.log.get();
        Ok(Response::new(v1::SetLogLevelResponse { before, level }))
    }

    async fn get_config(
        &self,
        request: Request<v1::GetConfigRequest>,
    ) -> Result<Response<v1::GetConfigResponse>, Status> {
        let answer = configuration::get(&self.configuration, request.into_inner().revision);
        Ok(Response::new(answer.await?))
    }

    async fn validate_config(
        &self,
        request: Request<v1::ValidateConfigRequest>,
    ) -> Result<Response<v1::ValidateConfigResponse>, Status> {
        let faults = configuration::faults(&request.into_inner().document);
        Ok(Response::new(v1::ValidateConfigResponse { faults }))
    }

    async fn diff_config(
        &self,
        request: Request<v1::DiffConfigRequest>,
    ) -> Result<Response<v1::DiffConfigResponse>, Status> {
        let answer = configuration::diff(&self.configuration, request.into_inner());
        Ok(Response::new(answer.await?))
    }

    async fn change_config(
        &self,
        request: Request<v1::ChangeConfigRequest>,
    ) -> Result<Response<v1::ChangeConfigResponse>, Status> {
        let author = configuration::author(&request);
        let answer = configuration::change(&self.configuration, author, request.into_inner());
        Ok(Response::new(answer.await?))
    }

    async fn list_config_log(
        &self,
        request: Request<v1::ListConfigLogRequest>,
    ) -> Result<Response<Self::ListConfigLogStream>, Status> {
        let log = configuration::log(Arc::clone(&self.configuration), request.into_inner());
        Ok(Response::new(Box::pin(log)))
    }

    async fn wait_config(
        &self,
        request: Request<v1::WaitConfigRequest>,
    ) -> Result<Response<Self::WaitConfigStream>, Status> {
        let newest = self.configuration.current().revision;
        let told = configuration::wait(self.convergence.clone(), newest, request.into_inner())?;
        Ok(Response::new(Box::pin(told)))
    }

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.status().await))
    }

    async fn list_vpcs(
        &self,
        request: Request<v1::ListVpcsRequest>,
    ) -> Result<Response<v1::ListVpcsResponse>, Status> {
        let only = flows::vpc_named(&self.config(), &request.into_inner().vpc)?;
        let routes = self.snapshot().await?.routes;
        let config = self.config();
        let interfaces = &config.interfaces;
        let wanted = config.vpcs.iter();
        let wanted = wanted.filter(|found| only.is_none_or(|id| found.vpc.id == id));
        let vpcs = wanted.map(|found| v1::Vpc {
            name: found.vpc.name.clone(),
            id: found.vpc.id.get().into(),
            table: found.table,
            stateless: found.vpc.stateless,
            interfaces: interfaces
                .iter()
                .filter(|interface| interface.interface.vpc == found.vpc.id)
                .map(|interface| interface.interface.name.clone())
                .collect(),
            routes: routes
                .iter()
                .filter(|route| route.vpc == found.vpc.id && route.active)
                .count() as u64,
        });
        Ok(Response::new(v1::ListVpcsResponse {
            vpcs: vpcs.collect(),
        }))
    }

    async fn list_interfaces(
        &self,
        request: Request<v1::ListInterfacesRequest>,
    ) -> Result<Response<v1::ListInterfacesResponse>, Status> {
        let views = self.views();
        let devices = Devices::now();
        let config = self.config();
        let interfaces = config.interfaces.iter();
        let mut interfaces = interfaces
            .map(|interface| convert::interface(&config, &views, &devices, interface))
            .collect();
        let asked = request.into_inner();
        filters::interfaces(&config, &self.switches, &asked, &mut interfaces)?;
        Ok(Response::new(v1::ListInterfacesResponse { interfaces }))
    }

    async fn list_routes(
        &self,
        request: Request<v1::ListRoutesRequest>,
    ) -> Result<Response<Self::ListRoutesStream>, Status> {
        let config = self.config();
        let filter = filters::Routes::asked(&config, request.into_inner())?;
        let routes = self.snapshot().await?.routes.into_iter();
        let listing = routes.filter_map(move |route| {
            if !route.active || !filter.wants(&route) {
                return None;
            }
            let route = convert::route(&config, &route);
            filter.wants_kind(&route.kind).then_some(Ok(route))
        });
        Ok(Response::new(Box::pin(futures::stream::iter(listing))))
    }

    async fn list_neighbors(
        &self,
        request: Request<v1::ListNeighborsRequest>,
    ) -> Result<Response<Self::ListNeighborsStream>, Status> {
        let config = self.config();
        let filter = filters::Neighbors::asked(&config, &request.into_inner())?;
        let neighbors = self.snapshot().await?.neighbors.into_iter();
        let listing = neighbors.filter_map(move |neighbor| {
            let wanted = filter.wants(&config, &neighbor);
            wanted.then(|| Ok(convert::neighbor(&config, &neighbor)))
        });
        Ok(Response::new(Box::pin(futures::stream::iter(listing))))
    }

    async fn list_flows(
        &self,
        request: Request<v1::ListFlowsRequest>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        let request = request.into_inner();
        let filter = flows::filter(&self.config(), &request.filter.unwrap_or_default())?;
        let (config, slow_path) = (self.config(), self.slow_path.clone());
        Ok(Response::new(flows::listing(
            config,
            slow_path,
            self.switches.clone(),
            filter,
            request.limit,
        )))
    }

    async fn delete_flows(
        &self,
        request: Request<v1::DeleteFlowsRequest>,
    ) -> Result<Response<v1::DeleteFlowsResponse>, Status> {
        let filter = flows::deleted(&self.config(), request.into_inner())?;
        let deleted = self
            .slow_path
            .delete_flows(filter)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        tracing::info!(deleted, "connections ended by the API");
        Ok(Response::new(v1::DeleteFlowsResponse { deleted }))
    }

    async fn list_nat(
        &self,
        request: Request<v1::ListNatRequest>,
    ) -> Result<Response<v1::ListNatResponse>, Status> {
        let stats = self.slow_path.nat().await;
        let stats = stats.map_err(|error| Status::unavailable(error.to_string()))?;
        let config = self.config();
        let mut pools = nat::pools(&config, &stats);
        filters::pools(&config, &request.into_inner(), &mut pools)?;
        Ok(Response::new(v1::ListNatResponse { pools }))
    }

    async fn list_nat_rules(
        &self,
        request: Request<v1::ListNatRulesRequest>,
    ) -> Result<Response<v1::ListNatRulesResponse>, Status> {
        let config = self.config();
        let mut rules = nat::rules(&config);
        filters::rules(&config, &request.into_inner(), &mut rules)?;
        Ok(Response::new(v1::ListNatRulesResponse { rules }))
    }

    async fn trace_packet(
        &self,
        request: Request<v1::TracePacketRequest>,
    ) -> Result<Response<v1::TracePacketResponse>, Status> {
        let config = self.config();
        let traced = trace::packet(&config, request.into_inner())?;
        let mut frame = traced.punted;
        let mut hardware = None;
        if let Some((interface, arrives)) = traced.arrives
            && let Some(member) = self.switches.iter().nth(interface.switch.place())
        {
            let (port, wire) = hardware::on_wire(&config, &interface, &arrives);
            let (told, punted) = hardware::trace(&config, member, port, &wire).await;
            hardware = Some(told);
            frame = punted.unwrap_or(frame);
        }
        let told = self.slow_path.trace(frame).await;
        let (worker, told) = told.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut told = trace::told(&config, worker, told);
        told.hardware = hardware;
        Ok(Response::new(told))
    }

    async fn get_offload(
        &self,
        _: Request<v1::GetOffloadRequest>,
    ) -> Result<Response<v1::GetOffloadResponse>, Status> {
        let engines = self.engines().await;
        if engines.is_empty() {
            return Err(Status::unavailable("the offload engine has ended"));
        }
        // A slow path that does not answer is in the status.
        let slow_path = self.slow_path.stats().await.unwrap_or_default();
        let counters = &slow_path.counters;
        let not_made = [counters.offload_across, counters.offload_hairpin];
        let mut state = offload::state(&self.config(), &engines, not_made);
        state.restart = Some(convert::restart(&self.restart.borrow()));
        Ok(Response::new(state))
    }

    async fn list_switches(
        &self,
        request: Request<v1::ListSwitchesRequest>,
    ) -> Result<Response<v1::ListSwitchesResponse>, Status> {
        let name = request.into_inner().switch;
        let members = self.switches.named(&name).map_err(switches::unknown)?;
        let state = |member: &Member| {
            let view = member.handle.view();
            switches::state(&member.switch, &view, self.tables(&view.tables))
        };
        Ok(Response::new(v1::ListSwitchesResponse {
            switches: members.iter().map(state).collect(),
        }))
    }

    async fn diff_switch(
        &self,
        request: Request<v1::DiffSwitchRequest>,
    ) -> Result<Response<Self::DiffSwitchStream>, Status> {
        let name = request.into_inner().switch;
        let members = self.switches.named(&name).map_err(switches::unknown)?;
        let config = self.config();
        // All are asked at once: a slow one keeps only its own answer back.
        let asked = members.into_iter().map(|member| async move {
            let comparison = member.handle.diff().await;
            (member.switch.name, comparison)
        });
        let answers = asked.collect::<FuturesUnordered<_>>();
        let listing = answers.flat_map(move |(name, comparison)| {
            switches::diff(Arc::clone(&config), name, comparison)
        });
        Ok(Response::new(Box::pin(listing)))
    }

    async fn reconcile_switch(
        &self,
        request: Request<v1::ReconcileSwitchRequest>,
    ) -> Result<Response<Self::ReconcileSwitchStream>, Status> {
        let name = request.into_inner().switch;
        let members = self.switches.named(&name).map_err(switches::unknown)?;
        let asked = members.into_iter().map(|member| async move {
            let repair = member.handle.reconcile().await;
            Ok(switches::repaired(member.switch.name, repair))
        });
        let answers = asked.collect::<FuturesUnordered<_>>();
        Ok(Response::new(Box::pin(answers)))
    }
}
