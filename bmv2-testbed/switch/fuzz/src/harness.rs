//! What the fuzz targets run, and the replay of their corpora in `make test`.
//!
//! Inputs are short: not programs or requests in full, but edits of the test programs, frames,
//! and protobuf messages whose device and election id are put right where that is what lets
//! them in. Nothing here may panic, hang or take memory without bound, whatever the input.
#![allow(
    dead_code,
    deprecated,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used
)]

use std::cell::OnceCell;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use p4runtime::p4::config::v1::P4Info;
use p4runtime::p4::v1 as pb;
use p4runtime::p4info::parse_p4info_text;
use prost::Message;
use serde_json::{Value, json};
use shunt_switch::log::PacketTrace;
use shunt_switch::{Local, ManualClock, Options, Switch};
use tonic::codegen::http;
use tower::ServiceExt;

/// A test program, parsed once: an input takes copies.
struct Program {
    json: &'static str,
    document: Value,
    info: P4Info,
}

impl Program {
    fn new(json: &'static str, info: &str) -> Self {
        Self {
            json,
            document: serde_json::from_str(json).unwrap(),
            info: parse_p4info_text(info).unwrap(),
        }
    }
}

static FORWARD: LazyLock<Program> = LazyLock::new(|| {
    Program::new(
        include_str!("../../testdata/forward.json"),
        include_str!("../../testdata/forward.p4info.txtpb"),
    )
});
static CONSTRUCTS: LazyLock<Program> = LazyLock::new(|| {
    Program::new(
        include_str!("../../testdata/constructs.json"),
        include_str!("../../testdata/constructs.p4info.txtpb"),
    )
});
static LANGUAGE: LazyLock<Program> = LazyLock::new(|| {
    Program::new(
        include_str!("../../testdata/language.json"),
        include_str!("../../testdata/language.p4info.txtpb"),
    )
});
static STATE: LazyLock<Program> = LazyLock::new(|| {
    Program::new(
        include_str!("../../testdata/state.json"),
        include_str!("../../testdata/state.p4info.txtpb"),
    )
});
static SHUNT: LazyLock<Program> = LazyLock::new(|| {
    let json = std::str::from_utf8(shunt_p4::PIPELINE_JSON).unwrap();
    Program::new(json, shunt_p4::P4INFO)
});

/// Edits of one program, steps of one server input, frames of one input.
const MAX_STEPS: usize = 32;
/// Ports that exist: 1 to this.
const PORTS: u32 = 4;
const CPU_PORT: u32 = 510;

/// Reads an input from its front; at its end everything is zero or empty.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        front
    }

    fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn u16(&mut self) -> usize {
        usize::from(self.u8()) << 8 | usize::from(self.u8())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A switch with a clock of its own. Traced, each packet's log is rendered and thrown away.
fn switch(traced: bool) -> (Switch, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let render: shunt_switch::TraceSink = Arc::new(|trace: PacketTrace| {
        let record = trace.record(16);
        drop((record.to_string(), serde_json::to_string(&record).unwrap()));
    });
    let switch = Switch::new(Options {
        cpu_port: Some(CPU_PORT),
        clock: clock.clone(),
        trace: traced.then_some(render),
        ..Options::default()
    });
    (switch, clock)
}

// Loader

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum::<usize>(),
        Value::Object(members) => members.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// The `index`th node, counted depth first.
fn node<'v>(value: &'v mut Value, index: &mut usize) -> Option<&'v mut Value> {
    if *index == 0 {
        return Some(value);
    }
    *index -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|v| node(v, index)),
        Value::Object(members) => members.values_mut().find_map(|v| node(v, index)),
        _ => None,
    }
}

fn edit(program: &mut Value, nodes: usize, input: &mut Input<'_>) {
    let mut at = input.u16() % nodes;
    let mut from = input.u16() % nodes;
    let choice = input.u8();
    let number = i64::from(input.u8() as i8);
    let other = node(program, &mut from).cloned().unwrap_or_default();
    let Some(place) = node(program, &mut at) else {
        return;
    };
    match (choice % 12, &mut *place) {
        (0, Value::Array(items)) => {
            items.pop();
        }
        (1, Value::Array(items)) => {
            if let Some(first) = items.first().cloned() {
                items.push(first);
            }
        }
        (2, Value::Array(items)) => items.reverse(),
        (3, Value::Object(members)) => {
            let key = members
                .keys()
                .nth(number.unsigned_abs() as usize % members.len().max(1));
            if let Some(key) = key.cloned() {
                members.remove(&key);
            }
        }
        (4, _) => *place = json!(number),
        (5, _) => *place = json!(number << 40),
        (6, _) => *place = json!(format!("{number:#x}")),
        (7, _) => *place = json!({"type": "hexstr", "value": format!("0x{number:0>80}")}),
        (8, _) => *place = Value::Null,
        (9, _) => *place = json!("$valid$"),
        (10, _) => *place = json!(number > 0),
        _ => *place = other,
    }
}

/// A program and its P4Info, mostly a damaged test program; runs some frames if it is accepted.
pub fn loader(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8();
    let program: &Program = match (mode & 1, mode >> 3 & 1) {
        (0, 0) => &FORWARD,
        (_, 0) => &CONSTRUCTS,
        (0, _) => &LANGUAGE,
        _ => &STATE,
    };
    let (json, info) = (program.json, program.info.clone());
    let (json, info) = match mode >> 1 & 3 {
        0 => (input.0.to_vec(), info),
        1 => {
            let mut wire = info.encode_to_vec();
            for _ in 0..MAX_STEPS {
                if input.is_empty() {
                    break;
                }
                let at = input.u16() % wire.len();
                wire[at] = input.u8();
            }
            match P4Info::decode(wire.as_slice()) {
                Ok(info) => (json.into(), info),
                Err(_) => return,
            }
        }
        2 => match parse_p4info_text(&String::from_utf8_lossy(input.0)) {
            Ok(info) => (json.into(), info),
            Err(_) => return,
        },
        _ => {
            let mut program = program.document.clone();
            for _ in 0..MAX_STEPS {
                if input.is_empty() {
                    break;
                }
                let nodes = count(&program);
                if nodes > 1 << 16 {
                    break;
                }
                edit(&mut program, nodes, &mut input);
            }
            (program.to_string().into_bytes(), info)
        }
    };
    for traced in [true, false] {
        let (switch, _) = switch(traced);
        match switch.load(&json, info.clone()) {
            Ok(()) => {
                let _ports: Vec<_> = (1..=PORTS).map(|p| switch.attach_channel(p, 4)).collect();
                for frame in [
                    [0x11; 100].as_slice(),
                    &ipv4_frame(),
                    &[23, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
                    &[],
                ] {
                    switch.inject(1, frame);
                }
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
}

fn ipv4_frame() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 33, 0, 0, 0x40, 0, 64, 17, 0x26, 0xc9]);
    frame.extend([10, 0, 0, 1, 10, 0, 1, 2, 3, 232, 7, 208, 0, 13, 0, 0]);
    frame.extend(b"hello");
    frame
}

// Packets

/// One program in two switches: packets that are traced take another way through the code, and
/// must come out the same.
struct Loaded([One; 2]);

struct One {
    switch: Switch,
    clock: Arc<ManualClock>,
    ports: Vec<shunt_switch::ChannelPort>,
}

impl One {
    fn new(program: &Program, updates: &[pb::Update], traced: bool) -> Self {
        let (switch, clock) = switch(traced);
        let info = program.info.clone();
        switch.load(program.json.as_bytes(), info).unwrap();
        let ports = [1, 2, 3, 4, 10].map(|p| switch.attach_channel(p, 64));
        if !updates.is_empty() {
            runtime().block_on(async {
                let mut server = Server::start(&switch).await;
                let write = pb::WriteRequest {
                    device_id: 1,
                    election_id: Some(ELECTION),
                    updates: updates.to_vec(),
                    ..pb::WriteRequest::default()
                };
                let status = server.call("Write", &write).await;
                assert_eq!(status, Some(0), "the gateway's entries are taken");
            });
        }
        Self {
            switch,
            clock,
            ports: ports.into(),
        }
    }

    /// What comes out of each port when a frame goes in.
    fn run(&self, port: u8, frame: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let before = self.switch.stats();
        match self.ports.get(usize::from(port)) {
            Some(port) => port.inject(frame),
            None => self.switch.inject(u32::from(port) << 1, frame),
        }
        assert_eq!(self.switch.stats().received, before.received + 1);
        self.clock.advance(1_000_000);
        let ports = self.ports.iter();
        ports
            .map(|port| std::iter::from_fn(|| port.try_receive()).collect())
            .collect()
    }
}

fn loaded(program: &Program, updates: &[pb::Update]) -> Loaded {
    Loaded([true, false].map(|traced| One::new(program, updates, traced)))
}

/// Where `state.p4` is among the programs, and its frames in which chance decides what comes out.
const STATE_INDEX: usize = 4;
const RANDOM: u8 = 24;

thread_local! {
    static PROGRAMS: OnceCell<[Loaded; 5]> = const { OnceCell::new() };
}

/// Frames on the ports of the test programs and of our own, which has a gateway's entries.
pub fn packets(data: &[u8]) {
    let mut input = Input(data);
    let which = usize::from(input.u8() % 5);
    PROGRAMS.with(|programs| {
        let programs = programs.get_or_init(|| {
            [
                loaded(&FORWARD, &[]),
                loaded(&CONSTRUCTS, &[]),
                loaded(&SHUNT, &gateway::updates()),
                loaded(&LANGUAGE, &[]),
                loaded(&STATE, &[]),
            ]
        });
        let Loaded([traced, plain]) = &programs[which];
        for _ in 0..MAX_STEPS {
            if input.is_empty() {
                break;
            }
            let port = input.u8();
            let len = usize::from(input.u8());
            let frame = input.take(len);
            if which == STATE_INDEX && frame.first() == Some(&RANDOM) {
                continue;
            }
            assert_eq!(
                traced.run(port, frame),
                plain.run(port, frame),
                "what comes out depends on whether it is traced"
            );
        }
    });
}

// Server

const ELECTION: pb::Uint128 = pb::Uint128 { high: 0, low: 1 };

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

type Frames = tokio::sync::mpsc::Sender<Result<http_body::Frame<Bytes>, tonic::Status>>;

/// A P4Runtime server without a network, and the stream of its primary.
struct Server {
    local: Local,
    stream: Frames,
    answers: tonic::body::Body,
}

/// A gRPC message: uncompressed, its length, its bytes.
fn framed(message: &[u8]) -> Bytes {
    let mut out = vec![0];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend(message);
    out.into()
}

fn request(method: &str, body: tonic::body::Body) -> http::Request<tonic::body::Body> {
    http::Request::post(format!("http://x/p4.v1.P4Runtime/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

fn stream_body() -> (Frames, tonic::body::Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(MAX_STEPS + 1);
    let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
    (sender, tonic::body::Body::new(StreamBody::new(frames)))
}

async fn send(stream: &Frames, message: &[u8]) {
    let frame = http_body::Frame::data(framed(message));
    let _ = stream.send(Ok(frame)).await;
}

impl Server {
    /// Becomes primary.
    async fn start(switch: &Switch) -> Self {
        let local = Local::new(switch);
        let (stream, body) = stream_body();
        let hello = pb::StreamMessageRequest {
            update: Some(pb::stream_message_request::Update::Arbitration(
                pb::MasterArbitrationUpdate {
                    device_id: 1,
                    election_id: Some(ELECTION),
                    ..pb::MasterArbitrationUpdate::default()
                },
            )),
        };
        send(&stream, &hello.encode_to_vec()).await;
        let answer = local.routes().oneshot(request("StreamChannel", body)).await;
        let mut answers = answer.unwrap().into_body();
        answers.frame().await.unwrap().unwrap();
        Self {
            local,
            stream,
            answers,
        }
    }

    async fn call(&mut self, method: &str, message: &impl Message) -> Option<i32> {
        self.raw(method, &message.encode_to_vec()).await
    }

    /// The status of a call.
    async fn raw(&mut self, method: &str, message: &[u8]) -> Option<i32> {
        let body = tonic::body::Body::new(Full::new(framed(message)));
        let answer = self.local.routes().oneshot(request(method, body)).await;
        let (head, body) = answer.unwrap().into_parts();
        let body = body.collect().await.ok();
        let status = body.as_ref().and_then(|b| b.trailers()?.get("grpc-status"));
        let status = head.headers.get("grpc-status").or(status)?;
        status.to_str().ok()?.parse().ok()
    }
}

async fn serve(input: &mut Input<'_>) {
    let (switch, clock) = switch(true);
    let info = FORWARD.info.clone();
    switch.load(FORWARD.json.as_bytes(), info).unwrap();
    let ports: Vec<_> = (1..=PORTS).map(|p| switch.attach_channel(p, 4)).collect();
    let mut server = Server::start(&switch).await;
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let op = input.u8() % 10;
        let len = input.u16();
        let bytes = input.take(len);
        match op {
            0 => {
                if let Ok(mut write) = pb::WriteRequest::decode(bytes) {
                    (write.device_id, write.election_id) = (1, Some(ELECTION));
                    server.call("Write", &write).await;
                }
            }
            1 => {
                if let Ok(mut read) = pb::ReadRequest::decode(bytes) {
                    read.device_id = 1;
                    server.call("Read", &read).await;
                }
            }
            2 => {
                server.raw("Write", bytes).await;
                server.raw("Read", bytes).await;
            }
            3 => send(&server.stream, bytes).await,
            4 => {
                let (sender, body) = stream_body();
                send(&sender, bytes).await;
                drop(sender);
                let routes = server.local.routes();
                let answer = routes.oneshot(request("StreamChannel", body)).await;
                let _ = answer.unwrap().into_body().collect().await;
            }
            5 => {
                if let Ok(mut set) = pb::SetForwardingPipelineConfigRequest::decode(bytes) {
                    (set.device_id, set.election_id) = (1, Some(ELECTION));
                    if let Some(config) = &mut set.config
                        && config.p4_device_config.is_empty()
                    {
                        let cookie = config.cookie.map_or(0, |cookie| cookie.cookie);
                        let program: &Program = match cookie % 3 {
                            0 => &FORWARD,
                            1 => &LANGUAGE,
                            _ => &STATE,
                        };
                        config.p4_device_config = program.json.into();
                        config.p4info.get_or_insert_with(|| program.info.clone());
                    }
                    server.call("SetForwardingPipelineConfig", &set).await;
                }
            }
            6 => {
                server.raw("SetForwardingPipelineConfig", bytes).await;
                server.raw("GetForwardingPipelineConfig", bytes).await;
                server.raw("Capabilities", bytes).await;
            }
            7 => clock.advance(len as u64 * 100_000_000),
            _ => {
                let port = usize::from(op & 1);
                if let Some(port) = ports.get(port) {
                    port.inject(bytes);
                }
            }
        }
    }
    drop(server.stream);
    // The server ends the stream, since the client did.
    let rest = tokio::time::timeout(Duration::from_secs(10), server.answers.collect()).await;
    assert!(rest.is_ok(), "the stream does not end");
}

/// Requests, stream messages and frames, one after the other, to a server with a program.
pub fn server(data: &[u8]) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = runtime();
    }
    RUNTIME.with(|runtime| runtime.block_on(serve(&mut Input(data))));
}

// Seeds

#[path = "gateway.rs"]
pub mod gateway;
#[path = "seeds.rs"]
mod seeds;

#[allow(unused_imports, reason = "the replay uses it, the targets don't")]
pub use seeds::seeds;
