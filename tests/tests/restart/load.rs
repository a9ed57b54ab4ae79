//! What goes through the gateway while things are killed: one large transfer and many short
//! connections, every byte compared, every peer's address noted.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use shunt_testbed::netns::Netns;
use shunt_testbed::service::wait_for;
use shunt_testbed::topology::{SERVER, Topology};
use shunt_testbed::traffic::content_byte;
use shunt_testbed::{Error, Result};

use crate::DEADLINE;

/// Bytes of the transfer, at least.
pub const TRANSFER: u64 = 64 << 20;
/// Short connections, at least, and how many are open at a time.
pub const SHORT: u64 = 2_000;
const AT_A_TIME: u64 = 8;
const TRANSFER_PORT: u16 = 9000;
const SHORT_PORT: u16 = 9001;
/// A question is its number and as many bytes of its own.
const QUESTION: usize = 64;

type Peers = Arc<Mutex<BTreeSet<IpAddr>>>;

/// What was done so far.
#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    short: AtomicU64,
    /// No more than that has to be done.
    enough: AtomicBool,
}

impl Progress {
    fn is_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }
}

/// The traffic, under way.
pub struct Load {
    progress: Arc<Progress>,
    peers: Peers,
    clients: Vec<JoinHandle<std::result::Result<(), String>>>,
}

fn question(n: u64) -> [u8; QUESTION] {
    let mut bytes = [0; QUESTION];
    for (at, byte) in (0..).zip(&mut bytes) {
        *byte = content_byte(&format!("question {n}"), at);
    }
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn answer(question: &[u8; QUESTION]) -> Vec<u8> {
    question.iter().rev().map(|byte| !byte).collect()
}

fn listen(host: &Netns, port: u16) -> Result<TcpListener> {
    let address: SocketAddr = format!("{SERVER}:{port}").parse().unwrap();
    host.inside(|| TcpListener::bind(address).map_err(Error::file("a TCP socket")))
}

/// A connection of red, with everything bounded by [`DEADLINE`].
fn connect(port: u16) -> std::io::Result<TcpStream> {
    let address: SocketAddr = format!("{SERVER}:{port}").parse().unwrap();
    let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

impl Load {
    /// Begins both, from red to the server behind the wan.
    pub fn start(topology: &Topology) -> Result<Self> {
        let mut load = Self {
            progress: Arc::default(),
            peers: Arc::default(),
            clients: Vec::new(),
        };
        load.serve_transfer(listen(&topology.wan, TRANSFER_PORT)?);
        load.serve_short(listen(&topology.wan, SHORT_PORT)?);
        let progress = Arc::clone(&load.progress);
        load.run(&topology.red, move || transfer(&progress))?;
        for first in 0..AT_A_TIME {
            let progress = Arc::clone(&load.progress);
            load.run(&topology.red, move || {
                for n in (first..).step_by(AT_A_TIME as usize) {
                    if n >= SHORT && progress.is_enough() {
                        break;
                    }
                    short(n).map_err(|error| format!("short connection {n}: {error}"))?;
                    progress.short.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })?;
        }
        Ok(load)
    }

    /// On a thread of that host.
    fn run(
        &mut self,
        host: &Netns,
        work: impl FnOnce() -> std::result::Result<(), String> + Send + 'static,
    ) -> Result<()> {
        // Threads are of the namespace of the one that starts them.
        let client = host.inside(|| Ok(std::thread::spawn(work)))?;
        self.clients.push(client);
        Ok(())
    }

    /// Takes the transfer and answers with a digest of what came.
    fn serve_transfer(&self, listener: TcpListener) {
        let (progress, peers) = (Arc::clone(&self.progress), Arc::clone(&self.peers));
        std::thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, peer) = listener.accept()?;
            peers.lock().unwrap().insert(peer.ip());
            let mut hasher = DefaultHasher::new();
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let n = stream.read(&mut buffer)?;
                if n == 0 {
                    return stream.write_all(&hasher.finish().to_be_bytes());
                }
                hasher.write(&buffer[..n]);
                progress.bytes.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
    }

    /// Answers every question.
    fn serve_short(&self, listener: TcpListener) {
        let peers = Arc::clone(&self.peers);
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                peers.lock().unwrap().insert(peer.ip());
                std::thread::spawn(move || {
                    let mut asked = [0; QUESTION];
                    while stream.read_exact(&mut asked).is_ok() {
                        if stream.write_all(&answer(&asked)).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    /// It goes on.
    pub fn is_under_way(&self) -> bool {
        !self.clients.iter().any(JoinHandle::is_finished)
    }

    /// Waits until so many parts of a hundred are done, of both.
    pub fn reaches(&self, percent: u64) -> Result<()> {
        let done = || {
            let bytes = self.progress.bytes.load(Ordering::Relaxed) * 100 / TRANSFER;
            let short = self.progress.short.load(Ordering::Relaxed) * 100 / SHORT;
            bytes.min(short)
        };
        wait_for(&format!("{percent} % of the load"), DEADLINE, || {
            done() >= percent || !self.is_under_way()
        })
        .map(|_| ())
        .map_err(|error| Error::Other(format!("{error}: {:?}", self.progress)))
    }

    /// Nothing broke, nothing was changed, and everybody came from an address of the pool.
    pub fn finish(self) -> Result<()> {
        self.progress.enough.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap().map_err(Error::Other)?;
        }
        assert!(self.progress.bytes.load(Ordering::Relaxed) >= TRANSFER);
        assert!(self.progress.short.load(Ordering::Relaxed) >= SHORT);
        let peers: Vec<_> = self.peers.lock().unwrap().iter().copied().collect();
        assert_eq!(peers, ["203.0.113.10".parse::<IpAddr>().unwrap()]);
        Ok(())
    }
}

fn transfer(progress: &Progress) -> std::result::Result<(), String> {
    let failed = |error: std::io::Error| {
        let bytes = progress.bytes.load(Ordering::Relaxed);
        format!("the transfer, after {bytes} bytes: {error}")
    };
    let mut stream = connect(TRANSFER_PORT).map_err(failed)?;
    let block: Vec<u8> = (0..1 << 20)
        .map(|at| content_byte("transfer", at))
        .collect();
    let mut hasher = DefaultHasher::new();
    for n in 0.. {
        if n * block.len() as u64 >= TRANSFER && progress.is_enough() {
            break;
        }
        let mut block = block.clone();
        block[..8].copy_from_slice(&n.to_be_bytes());
        hasher.write(&block);
        stream.write_all(&block).map_err(failed)?;
    }
    stream.shutdown(std::net::Shutdown::Write).map_err(failed)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).map_err(failed)?;
    match u64::from_be_bytes(answer) == hasher.finish() {
        true => Ok(()),
        false => Err("the transfer arrived otherwise than it was sent".into()),
    }
}

/// Opened, asked twice, closed.
fn short(n: u64) -> std::io::Result<()> {
    let mut stream = connect(SHORT_PORT)?;
    for turn in 0..2 {
        let asked = question(2 * n + turn);
        stream.write_all(&asked)?;
        let mut told = [0; QUESTION];
        stream.read_exact(&mut told)?;
        if told.as_slice() != answer(&asked) {
            return Err(std::io::Error::other("another's answer"));
        }
    }
    Ok(())
}

/// One connection that stays open.
pub struct Open {
    stream: TcpStream,
    asked: u64,
}

impl Open {
    /// From red to the server behind the wan.
    pub fn start(topology: &Topology) -> Result<Self> {
        let listener = listen(&topology.wan, SHORT_PORT)?;
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut asked = [0; QUESTION];
            while stream.read_exact(&mut asked).is_ok() {
                stream.write_all(&answer(&asked))?;
            }
            std::io::Result::Ok(())
        });
        let failed = Error::file("a TCP socket");
        let stream = topology
            .red
            .inside(|| connect(SHORT_PORT).map_err(failed))?;
        Ok(Self { stream, asked: 0 })
    }

    /// A question is answered.
    pub fn asks(&mut self) -> Result<()> {
        self.asked += 1;
        let asked = question(self.asked);
        let failed = |error| Error::Other(format!("question {}: {error}", self.asked));
        self.stream.write_all(&asked).map_err(failed)?;
        let mut told = [0; QUESTION];
        self.stream.read_exact(&mut told).map_err(failed)?;
        assert_eq!(told.as_slice(), answer(&asked), "another's answer");
        Ok(())
    }
}
