//! What the daemon counts, for Prometheus: `GET /metrics` in its text format.
//!
//! Whoever counts tells the `metrics` facade; here is its recorder. The P4Runtime clients' metrics
//! are listed in [`p4runtime::client::metrics`], the offload engine's in `metrics/offload.rs`, all
//! others in `metrics/gateway.rs`.

mod gateway;
mod offload;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};

/// The text format of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How often samples are put into their buckets, whether anybody asks or not.
const UPKEEP: Duration = Duration::from_secs(5);
/// A part's numbers are left out when it does not give them within that time.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Upper ends of a latency's buckets, in seconds: from a local switch's answer to the loading of a
/// pipeline.
const LATENCY_BUCKETS: &[f64] = &[
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0,
];

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address cannot be listened at.
    #[error("metrics cannot be served at {address}: {source}; check daemon.metrics")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The recorder cannot be made, or there is one already.
    #[error("metrics cannot be recorded: {0}")]
    Recorder(#[from] BuildError),
}

/// Where metrics are asked for, and who has them.
pub struct Exporter {
    listener: TcpListener,
    handle: PrometheusHandle,
}

impl Exporter {
    /// Listens, and records from here on: before anything is made that counts.
    ///
    /// # Errors
    /// [`MetricsError`].
    pub async fn start(address: SocketAddr) -> Result<Self, MetricsError> {
        let listener = bind(address).await?;
        let handle = builder()?.install_recorder()?;
        p4runtime::client::metrics::describe();
        Ok(Self { listener, handle })
    }

    /// Answers until `stop`, with the numbers of the daemon's parts where there are any.
    pub async fn serve(self, api: Option<Api>, stop: CancellationToken) {
        let handle = self.handle.clone();
        let metrics = move || async move {
            let mut text = handle.render();
            if let Some(api) = &api {
                write(api, &mut text).await;
            }
            ([(CONTENT_TYPE, TEXT)], text)
        };
        let router = Router::new().route("/metrics", get(metrics));
        let stopped = stop.clone().cancelled_owned();
        let serving = axum::serve(self.listener, router).with_graceful_shutdown(stopped);
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                self.handle.run_upkeep();
            }
        };
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                tracing::error!(%error, "metrics are no longer served");
            },
            () = stop.cancelled() => {}
            () = upkeep => {}
        }
    }
}

/// All that the daemon's parts say.
async fn write(seen: &Api, text: &mut String) {
    let current = seen.configuration.current();
    let (offload, stats, nat, missing) = tokio::join!(
        tokio::time::timeout(ANSWER_WITHIN, seen.engines()),
        within(seen.slow_path.stats()),
        within(seen.slow_path.nat()),
        seen.convergence.missing(current.revision),
    );
    let pools = nat.map(|nat| api::pools(&current.config, &nat));
    let switches: Vec<_> = seen
        .switches
        .iter()
        .map(|member| (member.switch.name.clone(), member.handle.view()))
        .collect();
    let synchronised = *seen.synchronised.borrow();
    gateway::write(
        text,
        &gateway::Snapshot {
            config: &current.config,
            revision: current.revision,
            converged: missing.is_none() && synchronised,
            uptime: seen.started.elapsed().as_secs_f64(),
            slow_path: stats.as_ref(),
            pools: pools.as_deref().unwrap_or_default(),
            mirror: seen.mirror.stats(),
            synchronised,
            switches: &switches,
        },
    );
    if let Ok(offload) = offload {
        offload::write(text, &offload);
    }
}

/// What a part says, if it does soon.
async fn within<T, E>(answer: impl Future<Output = Result<T, E>>) -> Option<T> {
    tokio::time::timeout(ANSWER_WITHIN, answer).await.ok()?.ok()
}

async fn bind(address: SocketAddr) -> Result<TcpListener, MetricsError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| MetricsError::Bind { address, source })
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let latency = Matcher::Full(p4runtime::client::metrics::RPC_DURATION.to_owned());
    PrometheusBuilder::new().set_buckets_for_metric(latency, LATENCY_BUCKETS)
}

#[cfg(test)]
mod tests {
    use p4runtime::client::{Client, ClientConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn prometheus_gets_what_clients_count() {
        // Not the process's recorder: other tests count too.
        let recorder = builder().unwrap().build_recorder();
        let _installed = ::metrics::set_default_local_recorder(&recorder);
        p4runtime::client::metrics::describe();
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let handle = recorder.handle();
        let stop = CancellationToken::new();
        let exporter = Exporter { listener, handle };
        let serving = tokio::spawn(exporter.serve(None, stop.clone()));

        let mut config = ClientConfig::new("127.0.0.1:1", 7, 1);
        config.rpc_timeout = Duration::from_millis(10);
        let channel = config.endpoint().unwrap().connect_lazy();
        let client = Client::over(channel, config);
        client.capabilities().await.unwrap_err();
        let answer = ask(address, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for wanted in [
            "content-type: text/plain; version=0.0.4",
            "# HELP p4runtime_client_rpcs_total ",
            "# TYPE p4runtime_client_rpc_duration_seconds histogram",
            "p4runtime_client_rpc_duration_seconds_bucket{address=\"127.0.0.1:1\",device=\"7\",\
             rpc=\"Capabilities\",le=\"120\"} 1",
            "p4runtime_client_primary{address=\"127.0.0.1:1\",device=\"7\"} 0",
        ] {
            assert!(answer.contains(wanted), "{wanted}: {answer}");
        }
        let nothing = ask(address, "/").await;
        assert!(nothing.starts_with("HTTP/1.1 404"), "{nothing}");

        let error = bind(address).await.unwrap_err().to_string();
        let wanted = format!("metrics cannot be served at {address}");
        assert!(
            error.starts_with(&wanted) && error.ends_with("check daemon.metrics"),
            "{error}"
        );
        stop.cancel();
        serving.await.unwrap();
    }
}
