//! What a client tells of itself: metrics and spans.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod scripted;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use p4runtime::client::{
    Arbitration, Backoff, Client, ClientConfig, ClientError, PipelineParts, metrics,
};
use p4runtime::p4::v1::stream_message_response::Update as FromSwitch;
use p4runtime::p4::v1::*;
use scripted::{DEADLINE, Switch, entity, stops_at_an_even_number, update};
use tokio::time::timeout;
use tonic::Status;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Everything runs on the test's own thread, which is where the recorder is.
fn recorder() -> (PrometheusRecorder, PrometheusHandle) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    (recorder, handle)
}

/// The value of a metric; `labels` as they are printed behind address and device.
fn value(handle: &PrometheusHandle, switch: &Switch, name: &str, labels: &str) -> Option<f64> {
    let text = handle.render();
    let of = format!(
        "{name}{{address=\"{}\",device=\"1\"{labels}}} ",
        switch.address
    );
    let line = text.lines().find(|line| line.starts_with(&of))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn reaches(client: &Client, wanted: impl Fn(&Arbitration) -> bool) {
    let mut watch = client.arbitration();
    let state = timeout(DEADLINE, watch.wait_for(|state| wanted(state))).await;
    state.expect("in time").unwrap();
}

#[tokio::test]
async fn every_documented_metric_is_counted() {
    let (recorder, handle) = recorder();
    let _installed = ::metrics::set_default_local_recorder(&recorder);
    metrics::describe();
    let switch = Switch::start().await;
    let mut config = ClientConfig::new(&switch.address, 1, 10);
    config.digest_queue = 1;
    let client = Client::connect(config).await.unwrap();
    let is = |name: &str, labels: &str, wanted: f64| {
        let found = value(&handle, &switch, name, labels);
        assert_eq!(
            found,
            Some(wanted),
            "{name}{{{labels}}}:\n{}",
            handle.render()
        );
    };
    is(metrics::PRIMARY, "", 0.0);
    client.become_primary().await.unwrap();
    is(metrics::PRIMARY, "", 1.0);
    is(metrics::STREAMS_OPENED, "", 1.0);

    // Seven updates, of which the even ones are refused and what follows is aborted.
    switch.with(|state| {
        state.write_rule = Some(Box::new(stops_at_an_even_number));
    });
    let updates: Vec<_> = (1..=7).map(update).collect();
    client.write(&updates).await.unwrap_err();
    is(metrics::UPDATES, ",code=\"OK\"", 4.0);
    is(metrics::UPDATES, ",code=\"NOT_FOUND\"", 3.0);
    // 4 of the 5 that came back (twice what was decided), then 3, then 1.
    is(metrics::UPDATES_RETRIED, "", 8.0);
    let (ok, unknown) = (
        ",rpc=\"Write\",code=\"OK\"",
        ",rpc=\"Write\",code=\"UNKNOWN\"",
    );
    is(metrics::RPCS, unknown, 3.0);
    is(metrics::RPCS, ok, 1.0);
    let bytes = value(&handle, &switch, metrics::WRITE_BYTES, "").unwrap();
    assert!((100.0..1000.0).contains(&bytes), "{bytes}");

    // A read to its end, one that is given up, one that is refused.
    let part = ReadResponse {
        entities: vec![entity(1); 3],
    };
    switch.with(|state| state.read_parts = vec![part.clone(), part]);
    client.read(vec![entity(0)]).await.unwrap();
    is(metrics::ENTITIES_READ, "", 6.0);
    let mut stream = client.read_stream(vec![entity(0)]).await.unwrap();
    stream.next_part().await.unwrap();
    drop(stream);
    switch.with(|state| {
        state.read_parts.clear();
        state.read_status = Some(Status::unimplemented("not this"));
    });
    client.read(vec![entity(0)]).await.unwrap_err();
    for code in ["OK", "CANCELLED", "UNIMPLEMENTED"] {
        is(
            metrics::RPCS,
            &format!(",rpc=\"Read\",code=\"{code}\""),
            1.0,
        );
    }
    client
        .get_pipeline(PipelineParts::CookieOnly)
        .await
        .unwrap();
    let get = "GetForwardingPipelineConfig";
    is(metrics::RPCS, &format!(",rpc=\"{get}\",code=\"OK\""), 1.0);
    let took = format!("{}_count", metrics::RPC_DURATION);
    is(&took, ",rpc=\"Write\"", 4.0);

    // The stream, both ways, and one message too many.
    client.send_packet(PacketOut::default()).await.unwrap();
    client.ack_digest(1, 2).await.unwrap();
    for (kind, wanted) in [("arbitration", 1.0), ("packet", 1.0), ("digest_ack", 1.0)] {
        is(metrics::STREAM_SENT, &format!(",kind=\"{kind}\""), wanted);
    }
    let mut idle = client.take_idle_timeouts().unwrap();
    switch.tell(FromSwitch::Packet(PacketIn::default())).await;
    switch.tell(FromSwitch::Digest(DigestList::default())).await;
    switch.tell(FromSwitch::Digest(DigestList::default())).await;
    switch.tell(FromSwitch::Error(StreamError::default())).await;
    let last = FromSwitch::IdleTimeoutNotification(IdleTimeoutNotification::default());
    switch.tell(last).await;
    timeout(DEADLINE, idle.recv()).await.unwrap().unwrap();
    for (kind, received) in [
        ("arbitration", 1.0),
        ("packet", 1.0),
        ("digest", 2.0),
        ("idle_timeout", 1.0),
        ("error", 1.0),
    ] {
        is(
            metrics::STREAM_RECEIVED,
            &format!(",kind=\"{kind}\""),
            received,
        );
    }
    is(metrics::STREAM_DROPPED, ",kind=\"digest\"", 1.0);

    // Lost, and opened again.
    switch.hang_up(Some(Status::internal("rebooting")));
    reaches(&client, |s| matches!(s, Arbitration::Lost { .. })).await;
    is(metrics::PRIMARY, "", 0.0);
    is(metrics::STREAMS_LOST, "", 1.0);
    let internal = ",rpc=\"StreamChannel\",code=\"INTERNAL\"";
    is(metrics::RPCS, internal, 1.0);
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2), 1);
    client.reconnect_with(&mut backoff).await.unwrap();
    is(metrics::RECONNECT_TRIES, "", 1.0);
    is(metrics::STREAMS_OPENED, "", 2.0);
    is(metrics::PRIMARY, "", 1.0);

    // Every metric of the documentation has been seen, with its help text.
    let text = handle.render();
    for name in documented() {
        assert!(text.contains(&format!("# HELP {name} ")), "{name}:\n{text}");
        assert!(text.contains(&format!("\n{name}")), "{name}:\n{text}");
    }
}

/// The names in the module's documentation.
fn documented() -> Vec<String> {
    let source = include_str!("../src/client/metrics.rs");
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"));
    let names: Vec<_> = rows
        .map(|row| row.split('`').next().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 13, "{names:?}");
    names
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_counted_as_late() {
    let (recorder, handle) = recorder();
    let _installed = ::metrics::set_default_local_recorder(&recorder);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut config = ClientConfig::new(&address, 1, 1);
    config.rpc_timeout = Duration::from_millis(20);
    let endpoint = config.endpoint().unwrap();
    let client = Client::over(endpoint.connect_lazy(), config);
    let error = client.capabilities().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    let line = "rpc=\"Capabilities\",code=\"DEADLINE_EXCEEDED\"} 1\n";
    assert!(handle.render().contains(line), "{}", handle.render());
}

/// Names and values.
type Recorded = BTreeMap<String, String>;

/// Fields of the spans named `p4runtime`, in the order in which they were made.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(Id, Recorded)>>>);

struct Fields<'a>(&'a mut Recorded);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: tracing::Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().name() != "p4runtime" {
            return;
        }
        let mut fields = Recorded::new();
        attributes.record(&mut Fields(&mut fields));
        self.0.lock().unwrap().push((id.clone(), fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut spans = self.0.lock().unwrap();
        // Ids are used again; the newest is meant.
        if let Some((_, fields)) = spans.iter_mut().rev().find(|(known, _)| known == id) {
            values.record(&mut Fields(fields));
        }
    }
}

#[tokio::test]
async fn every_rpc_has_its_span() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _installed = tracing::subscriber::set_default(subscriber);
    let switch = Switch::start().await;
    let client = Client::connect(ClientConfig::new(&switch.address, 1, 10)).await;
    let client = client.unwrap();
    client.become_primary().await.unwrap();
    client.write([update(1), update(2)]).await.unwrap();
    client.read(vec![entity(0)]).await.unwrap();
    client.capabilities().await.unwrap();
    client.get_pipeline(PipelineParts::All).await.unwrap();
    let refusal = Status::invalid_argument("unknown table");
    switch.with(|state| state.pipeline_answers.push_back(Err(refusal)));
    client.commit_pipeline().await.unwrap_err();
    client.election().await.unwrap();
    client.leave().await;

    let seen = spans.0.lock().unwrap();
    let of =
        |fields: &Recorded, name: &str| fields.get(name).cloned().unwrap_or_else(|| "-".to_owned());
    let shown: Vec<_> = seen
        .iter()
        .map(|(_, fields)| {
            assert_eq!(of(fields, "address"), switch.address);
            assert_eq!(of(fields, "device"), "1");
            let parts = ["rpc", "updates", "code"].map(|name| of(fields, name));
            parts.join(" ")
        })
        .collect();
    assert_eq!(
        shown,
        [
            "StreamChannel - OK",
            "Write 2 OK",
            "Read - OK",
            "Capabilities - OK",
            "GetForwardingPipelineConfig - OK",
            "SetForwardingPipelineConfig - INVALID_ARGUMENT",
            "StreamChannel - OK",
        ]
    );
}
