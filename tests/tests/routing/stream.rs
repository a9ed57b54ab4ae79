//! A steady stream of numbered packets to an address that several hosts have: which numbers
//! arrived, and where.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use shunt_testbed::netns::Netns;
use shunt_testbed::topology::SwitchKind;
use shunt_testbed::{Error, Result};

use crate::probe::unspecified;

const PORT: u16 = 7003;
/// Between two packets: 2,000 a second.
const PACE: Duration = Duration::from_micros(500);
/// The same for bmv2: each of its ports queues 64 packets and drops the others. With two cores for
/// everything a port's thread may wait its turn for more than the 32 ms that they last at the pace
/// above (seen with a bmv2 that told of such drops: no packet was lost anywhere else).
const PACE_BMV2: Duration = Duration::from_millis(2);
/// Every so manieth packet is answered, so that the flow is one with two directions.
const ANSWERED: u64 = 16;
/// Room for what a receiver that does not get its turn has to wait for.
const BUFFER_BYTES: usize = 4 << 20;
/// How long nothing more must have come until the rest counts as lost.
const QUIET: Duration = Duration::from_millis(500);

fn failed(error: io::Error) -> Error {
    Error::Other(format!("the stream: {error}"))
}

/// Numbers that arrived, each with the host that had it.
type Arrived = Arc<Mutex<BTreeMap<u64, usize>>>;

/// Sends until it is finished.
pub struct Stream {
    hosts: Vec<String>,
    arrived: Arrived,
    sending: Arc<AtomicBool>,
    receiving: Arc<AtomicBool>,
    sender: Option<JoinHandle<io::Result<u64>>>,
    receivers: Vec<JoinHandle<()>>,
}

/// What became of a stream.
#[derive(Debug)]
pub struct Report {
    pub sent: u64,
    /// The first of those that are nowhere, and how many.
    pub lost: (Vec<u64>, usize),
    /// By host.
    pub arrived: BTreeMap<String, usize>,
    /// How often the next number was at another host.
    pub moves: usize,
}

impl Stream {
    /// From a host to an address, which the others have on their loopback already.
    pub fn start(from: &Netns, to: &[&Netns], address: IpAddr) -> Result<Self> {
        let arrived = Arrived::default();
        let (sending, receiving) = (Arc::default(), Arc::default());
        let mut stream = Self {
            hosts: to.iter().map(|host| host.name().to_owned()).collect(),
            arrived: Arc::clone(&arrived),
            sending: Arc::clone(&sending),
            receiving: Arc::clone(&receiving),
            sender: None,
            receivers: Vec::new(),
        };
        receiving.store(true, Relaxed);
        for (number, host) in to.iter().enumerate() {
            let socket = host.inside(|| UdpSocket::bind((address, PORT)).map_err(failed))?;
            // More than the system's limit needs root.
            let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
            let timeout = Some(Duration::from_millis(50));
            socket.set_read_timeout(timeout).map_err(failed)?;
            let (arrived, receiving) = (Arc::clone(&arrived), Arc::clone(&receiving));
            let receive = move || receive(&socket, number, &arrived, &receiving);
            stream.receivers.push(std::thread::spawn(receive));
        }
        let socket = from.inside(|| {
            let socket = UdpSocket::bind((unspecified(address), 0)).map_err(failed)?;
            socket.connect((address, PORT)).map_err(failed)?;
            Ok(socket)
        })?;
        sending.store(true, Relaxed);
        let pace = match SwitchKind::from_environment() {
            SwitchKind::Bmv2 => PACE_BMV2,
            SwitchKind::Embedded => PACE,
        };
        stream.sender = Some(std::thread::spawn(move || send(&socket, pace, &sending)));
        Ok(stream)
    }

    /// The newest number that arrived anywhere.
    pub fn newest(&self) -> Option<u64> {
        let arrived = self.arrived.lock().ok()?;
        arrived.last_key_value().map(|(number, _)| *number)
    }

    /// Stops sending, waits for what is on the way, and says what arrived.
    pub fn finish(mut self) -> Result<Report> {
        self.sending.store(false, Relaxed);
        let sent = match self.sender.take().map(JoinHandle::join) {
            Some(Ok(sent)) => sent.map_err(failed)?,
            _ => return Err(Error::Other("the sender is gone".into())),
        };
        let count = || self.arrived.lock().map_or(0, |arrived| arrived.len());
        let (mut before, mut since) = (count(), Instant::now());
        while (before as u64) < sent && since.elapsed() < QUIET {
            std::thread::sleep(PACE);
            if count() != before {
                (before, since) = (count(), Instant::now());
            }
        }
        self.receiving.store(false, Relaxed);
        for receiver in self.receivers.drain(..) {
            let _ = receiver.join();
        }
        let arrived = self
            .arrived
            .lock()
            .map_err(|_| Error::Other("a receiver panicked".into()))?;
        let lost: Vec<u64> = (0..sent)
            .filter(|number| !arrived.contains_key(number))
            .collect();
        let mut hosts = BTreeMap::new();
        for host in arrived.values() {
            *hosts.entry(self.hosts[*host].clone()).or_default() += 1;
        }
        let order: Vec<_> = arrived.values().collect();
        Ok(Report {
            sent,
            lost: (lost.iter().take(20).copied().collect(), lost.len()),
            arrived: hosts,
            moves: order.windows(2).filter(|pair| pair[0] != pair[1]).count(),
        })
    }
}

fn send(socket: &UdpSocket, pace: Duration, sending: &AtomicBool) -> io::Result<u64> {
    let mut number = 0_u64;
    let mut due = Instant::now();
    while sending.load(Relaxed) {
        // An ICMP error to an earlier packet is not this one's failure.
        if socket.send(&number.to_be_bytes()).is_err() {
            socket.send(&number.to_be_bytes())?;
        }
        number += 1;
        due += pace;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(number)
}

fn receive(socket: &UdpSocket, host: usize, arrived: &Arrived, receiving: &AtomicBool) {
    let mut buffer = [0; 64];
    while receiving.load(Relaxed) {
        let Ok((8, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Some(number) = buffer.first_chunk().copied().map(u64::from_be_bytes) else {
            continue;
        };
        if let Ok(mut arrived) = arrived.lock() {
            arrived.insert(number, host);
        }
        if number % ANSWERED == 0 {
            let _ = socket.send_to(&buffer[..8], peer);
        }
    }
}
