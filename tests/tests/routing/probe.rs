//! Convergence by packets that arrive: echo servers on the announced addresses, which say who
//! they are, and one flow to each of them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shunt_testbed::netns::Netns;
use shunt_testbed::{Error, Result};

use crate::lab::DEADLINE;

const PORT: u16 = 7000;
/// Between two packets of a flow.
const PACE: Duration = Duration::from_millis(2);
/// How long an answer may take until the packet counts as lost.
const LOST: Duration = Duration::from_millis(250);

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Other(format!("{what}: {error}"))
}

/// Gives a host an address of its own, to be used at once.
pub fn add_address(host: &Netns, address: IpAddr) -> Result<()> {
    let nodad = if address.is_ipv6() { "nodad" } else { "" };
    host.run(&format!("ip addr add {address} dev lo {nodad}"))
}

/// Answers on each address with its host's name until dropped.
pub struct Echo {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Gives the host the addresses, and answers on them.
    pub fn start(host: &Netns, addresses: &[IpAddr]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for &address in addresses {
            add_address(host, address)?;
            // One socket an address: the answer's source is the address asked.
            let socket = host.inside(|| {
                let socket = UdpSocket::bind((address, PORT)).map_err(failed("echo"))?;
                let timeout = Some(Duration::from_millis(50));
                socket.set_read_timeout(timeout).map_err(failed("echo"))?;
                Ok(socket)
            })?;
            let (stop, name) = (Arc::clone(&stop), host.name().to_owned());
            threads.push(std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while !stop.load(Relaxed) {
                    if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                        let number = buffer.get(..length).unwrap_or(&[]);
                        let _ = socket.send_to(&[number, name.as_bytes()].concat(), peer);
                    }
                }
            }));
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Every address of the version.
pub fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => [0; 4].into(),
        IpAddr::V6(_) => [0_u16; 8].into(),
    }
}

struct Flow {
    socket: UdpSocket,
    /// Number of the last packet sent, and of the last one answered.
    sent: u64,
    /// When a packet was last answered, by whom.
    answered: Option<(Instant, String)>,
    /// Everybody who has answered, and how often.
    answers: BTreeMap<String, u32>,
}

/// One flow to each address.
pub struct Probes(Vec<Flow>);

impl Probes {
    /// From a host.
    pub fn start(host: &Netns, addresses: &[IpAddr]) -> Result<Self> {
        let open = |&address: &IpAddr| {
            let socket = UdpSocket::bind((unspecified(address), 0))?;
            socket.connect(SocketAddr::from((address, PORT)))?;
            socket.set_nonblocking(true)?;
            Ok(Flow {
                socket,
                sent: 0,
                answered: None,
                answers: BTreeMap::new(),
            })
        };
        host.inside(|| {
            let flows: io::Result<Vec<_>> = addresses.iter().map(open).collect();
            Ok(Self(flows.map_err(failed("probe"))?))
        })
    }

    /// Sends until the newest answer of every flow, to a packet that was sent from now on, is
    /// this host's; returns how long that took.
    pub fn until_answered_by(&mut self, host: &str) -> Result<Duration> {
        self.until(&format!("every flow answered by {host}"), |answered, _| {
            answered.as_ref().is_some_and(|(_, by)| by == host)
        })
    }

    /// Sends until nothing sent from now on has been answered for a while; returns the time to
    /// the last answer.
    pub fn until_silent(&mut self) -> Result<Duration> {
        let took = self.until("every flow to fall silent", |answered, start| {
            let last = answered.as_ref().map_or(start, |(at, _)| *at);
            last.elapsed() > LOST
        })?;
        Ok(took.saturating_sub(LOST))
    }

    /// Sends until every flow has had so many answers; returns who gave them, by flow.
    pub fn answers(&mut self, count: u32) -> Result<Vec<BTreeMap<String, u32>>> {
        let start = Instant::now();
        while self
            .0
            .iter()
            .any(|flow| flow.answers.values().sum::<u32>() < count)
        {
            self.0.iter_mut().for_each(|flow| flow.step(0));
            if start.elapsed() > DEADLINE {
                return Err(Error::Other(format!("no {count} answers to each flow")));
            }
            std::thread::sleep(PACE);
        }
        Ok(self.0.iter().map(|flow| flow.answers.clone()).collect())
    }

    fn until(
        &mut self,
        what: &str,
        holds: impl Fn(&Option<(Instant, String)>, Instant) -> bool,
    ) -> Result<Duration> {
        let start = Instant::now();
        let first: Vec<u64> = self.0.iter().map(|flow| flow.sent).collect();
        for flow in &mut self.0 {
            flow.answered = None;
        }
        loop {
            for (flow, &first) in self.0.iter_mut().zip(&first) {
                flow.step(first);
            }
            if self.0.iter().all(|flow| holds(&flow.answered, start)) {
                return Ok(start.elapsed());
            }
            if start.elapsed() > DEADLINE {
                let seen: Vec<_> = self.0.iter().map(|flow| &flow.answered).collect();
                return Err(Error::Other(format!("{what}: not by now: {seen:?}")));
            }
            std::thread::sleep(PACE);
        }
    }
}

impl Flow {
    /// Reads what has come, and sends the next packet.
    fn step(&mut self, first: u64) {
        let mut buffer = [0; 64];
        // Errors are ICMP errors to earlier packets: unreachable is an answer that we wait out.
        while let Some(length) = match self.socket.recv(&mut buffer) {
            Ok(length) => Some(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(0),
        } {
            let answer = buffer.get(..length).unwrap_or(&[]);
            if let Some((number, name)) = answer.split_first_chunk::<8>()
                && u64::from_be_bytes(*number) >= first
            {
                let name = String::from_utf8_lossy(name).into_owned();
                *self.answers.entry(name.clone()).or_default() += 1;
                self.answered = Some((Instant::now(), name));
            }
        }
        let _ = self.socket.send(&self.sent.to_be_bytes());
        self.sent += 1;
    }
}
