//! What the hosts run: an HTTP server with known content, a UDP echo server and its client.

use std::convert::Infallible;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

use crate::error::{Error, Result};

/// Largest body the server makes, bytes.
const BODY_MAX: u64 = 1 << 32;
/// Bytes handed to the stack at a time.
const CHUNK: u64 = 64 * 1024;

/// Byte `at` of the content that a name stands for; two names differ nearly everywhere.
pub fn content_byte(name: &str, at: u64) -> u8 {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mixed = (at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u8
}

fn chunk(name: &str, from: u64, to: u64) -> Bytes {
    (from..to).map(|at| content_byte(name, at)).collect()
}

/// Prints when a body has been sent or given up.
struct Served {
    name: String,
    peer: SocketAddr,
    start: Duration,
    clock: Instant,
}

impl Drop for Served {
    fn drop(&mut self) {
        // One line a connection: who it was to the server, and when.
        println!(
            "served {} {} {} {}",
            self.name,
            self.peer,
            self.start.as_micros(),
            self.clock.elapsed().as_micros()
        );
    }
}

async fn body(
    State(clock): State<Instant>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path((name, length)): Path<(String, u64)>,
) -> Response {
    if length > BODY_MAX {
        return (StatusCode::BAD_REQUEST, "too long\n").into_response();
    }
    let served = Served {
        name: name.clone(),
        peer,
        start: clock.elapsed(),
        clock,
    };
    let chunks =
        futures::stream::unfold((name, 0, served), move |(name, from, served)| async move {
            if from >= length {
                return None;
            }
            let to = length.min(from + CHUNK);
            let bytes = chunk(&name, from, to);
            Some((Ok::<_, Infallible>(bytes), (name, to, served)))
        });
    let mut response = Body::from_stream(chunks).into_response();
    response
        .headers_mut()
        .insert("content-length", length.into());
    response
}

/// Serves `/NAME/LENGTH`; prints `ready`, then one line a request.
pub async fn http_server(listen: SocketAddr) -> Result<()> {
    let router = Router::new()
        .route("/{name}/{length}", get(body))
        .with_state(Instant::now());
    let failed = |error: std::io::Error| Error::Other(format!("http server {listen}: {error}"));
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(failed)?;
    println!("ready");
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await.map_err(failed)
}

/// Answers every datagram with itself; prints `ready`.
pub fn udp_echo(listen: SocketAddr) -> Result<()> {
    let failed = |error: std::io::Error| Error::Other(format!("udp echo {listen}: {error}"));
    let socket = UdpSocket::bind(listen).map_err(failed)?;
    println!("ready");
    let mut buffer = [0; 65536];
    loop {
        // An ICMP error of an earlier answer shows up here; it is not ours to fail on.
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let _ = socket.send_to(&buffer[..length], peer);
    }
}

/// Sends `count` datagrams, each after the answer to the one before, from one socket; prints how
/// many answers were right.
pub fn udp_client(server: SocketAddr, name: &str, count: u32) -> Result<()> {
    let failed = |error: std::io::Error| Error::Other(format!("udp client to {server}: {error}"));
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.connect(server).map_err(failed)?;
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .map_err(failed)?;
    let mut right = 0;
    let mut buffer = [0; 2048];
    for number in 0..count {
        let message = format!("{name} {number}");
        // Datagrams may be lost; what counts is how many come back right.
        if socket.send(message.as_bytes()).is_ok()
            && let Ok(length) = socket.recv(&mut buffer)
            && &buffer[..length] == message.as_bytes()
        {
            right += 1;
        }
    }
    println!("{right}");
    Ok(())
}
