//! A port on a network interface, through libpcap.
//!
//! libpcap puts VLAN tags back that the kernel took off, and hides our own frames
//! (`Direction::In`). A thread a port receives and runs packets to completion, as many together
//! as have come; what they make leaves with one system call a port.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use pcap::{Active, BreakLoop, Capture, Direction, Linktype};
use socket2::{SockFilter, SockRef};

use super::{Burst, CaptureError, MAX_FRAME_BYTES, Port, PortError};
use crate::exec::Worker;
use crate::state::lock;
use crate::switch::Inner;

/// Bytes of the kernel's receive ring a port.
const RING_BYTES: i32 = 8 << 20;
/// Frames that are run together at most.
const RECEIVE_FRAMES: usize = 64;
/// Ring of the handle that only sends.
const SEND_RING_BYTES: i32 = 64 << 10;

/// Drops the frames that this port sends. libpcap looks at the direction only behind the ring: each
/// would be copied to it, and wake the receiving thread. It has a filter of the same meaning, but
/// the first frame after it is set would be lost to it.
const NOT_OUTGOING: [SockFilter; 4] = [
    // Load the packet's type (SKF_AD_PKTTYPE); if it is PACKET_OUTGOING, take nothing of it.
    SockFilter::new(0x20, 0, 0, 0xffff_f004),
    SockFilter::new(0x15, 1, 0, 4),
    SockFilter::new(0x06, 0, 0, u32::MAX),
    SockFilter::new(0x06, 0, 0, 0),
];

/// Why an interface could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of this name here.
    #[error(
        "port {port}: there is no interface `{interface}` (in this network namespace); \
         create it or change `-i {port}@{interface}`"
    )]
    Missing {
        /// The port.
        port: u32,
        /// The interface.
        interface: String,
    },
    /// It exists, but cannot be opened.
    #[error(
        "port {port}: cannot open interface `{interface}`: {why} (is it up, and may this user \
         capture on it? run as root, in a user namespace, or with CAP_NET_RAW)"
    )]
    Open {
        /// The port.
        port: u32,
        /// The interface.
        interface: String,
        /// What libpcap says.
        why: String,
    },
    /// Its captures cannot be written.
    #[error("port {port}: {why}")]
    Capture {
        /// The port.
        port: u32,
        /// What is wrong.
        why: CaptureError,
    },
}

struct Sender {
    capture: Mutex<Capture<Active>>,
    /// libpcap would put a header of its own in front: only it can send then.
    cooked: bool,
}

impl Sender {
    fn new(capture: Capture<Active>) -> Self {
        Self {
            cooked: capture.get_datalink() == Linktype::LINUX_SLL,
            capture: Mutex::new(capture),
        }
    }
}

impl Port for Sender {
    fn transmit(&self, frame: &[u8]) -> Result<(), PortError> {
        lock(&self.capture)
            .sendpacket(frame)
            .map_err(|e| PortError::Interface(e.to_string()))
    }

    fn transmit_burst(&self, frames: &[&[u8]]) -> usize {
        if self.cooked {
            let taken = frames.iter().filter(|frame| self.transmit(frame).is_ok());
            return taken.count();
        }
        let capture = lock(&self.capture);
        let slices: Vec<_> = frames.iter().map(|f| [IoSlice::new(f)]).collect();
        let mut taken = 0;
        let mut rest = slices.as_slice();
        while !rest.is_empty() {
            let sent = match send(capture.as_raw_fd(), rest) {
                Err(Errno::EINTR) => continue,
                Ok(sent) => sent,
                Err(error) => {
                    tracing::debug!(%error, "a frame could not be sent");
                    0
                }
            };
            taken += sent;
            // Without any, it is the first frame that cannot be sent: the next ones may.
            rest = rest.get(sent.max(1)..).unwrap_or_default();
        }
        taken
    }
}

/// Sends the first of these frames with one system call, and says how many.
fn send(socket: RawFd, frames: &[[IoSlice<'_>; 1]]) -> Result<usize, Errno> {
    let mut headers = MultiHeaders::<()>::preallocate(frames.len(), None);
    let addresses = vec![None; frames.len()];
    let sent = sendmmsg(
        socket,
        &mut headers,
        frames,
        addresses,
        [],
        MsgFlags::empty(),
    );
    Ok(sent?.count())
}

/// A port's receiving thread; it ends when this is dropped.
pub struct InterfacePort {
    port: u32,
    interface: String,
    stop: Arc<AtomicBool>,
    /// Wakes the thread: on a quiet port it sleeps in the kernel without a time-out.
    wake: BreakLoop,
    thread: Option<JoinHandle<()>>,
}

fn open(interface: &str, ring: i32) -> Result<Capture<Active>, pcap::Error> {
    Capture::from_device(interface)?
        .promisc(true)
        .snaplen(MAX_FRAME_BYTES as i32)
        .immediate_mode(true)
        .buffer_size(ring)
        .open()
}

impl fmt::Debug for InterfacePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InterfacePort({}@{})", self.port, self.interface)
    }
}

impl InterfacePort {
    /// Opens the interface and starts receiving.
    pub(crate) fn attach(
        inner: &Arc<Inner>,
        port: u32,
        interface: &str,
    ) -> Result<Self, InterfaceError> {
        // Asked of the system, since /sys may show another network namespace.
        if nix::net::if_::if_nametoindex(interface).is_err() {
            return Err(InterfaceError::Missing {
                port,
                interface: interface.to_owned(),
            });
        }
        let failed = |why: pcap::Error| InterfaceError::Open {
            port,
            interface: interface.to_owned(),
            why: why.to_string(),
        };
        let mut receiver = open(interface, RING_BYTES).map_err(failed)?;
        receiver.direction(Direction::In).map_err(failed)?;
        let ignored = SockRef::from(&receiver).attach_filter(&NOT_OUTGOING);
        if let Err(error) = ignored {
            tracing::debug!(port, %error, "sent frames wake the receiver");
        }
        let mut sender = open(interface, SEND_RING_BYTES).map_err(failed)?;
        // This handle never reads: no frame is to be copied for it.
        sender.filter("len > 65535", true).map_err(failed)?;
        if let Some(captures) = &inner.options.captures {
            let captured = captures.add(port, interface);
            captured.map_err(|why| InterfaceError::Capture { port, why })?;
        }
        inner.attach(port, Arc::new(Sender::new(sender)));
        let stop = Arc::new(AtomicBool::new(false));
        let wake = receiver.breakloop_handle();
        let thread = std::thread::Builder::new()
            .name(format!("port-{port}"))
            .spawn({
                let (inner, stop) = (Arc::clone(inner), Arc::clone(&stop));
                move || receive(&inner, port, receiver, &stop)
            })
            .map_err(|e| InterfaceError::Open {
                port,
                interface: interface.to_owned(),
                why: e.to_string(),
            })?;
        Ok(Self {
            port,
            interface: interface.to_owned(),
            stop,
            wake,
            thread: Some(thread),
        })
    }

    /// The port's number.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }
}

fn receive(inner: &Inner, port: u32, mut capture: Capture<Active>, stop: &AtomicBool) {
    let mut worker = Worker::default();
    let mut burst = Burst::default();
    while !stop.load(Ordering::Relaxed) {
        // What has come, or the next frame if nothing has.
        let received = capture.dispatch(Some(RECEIVE_FRAMES), |packet| {
            if packet.header.len as usize > packet.data.len() {
                inner.count_oversized();
            } else {
                burst.push(port, packet.data);
            }
        });
        burst.drain(|port, frames| inner.process(&mut worker, port, frames.iter().copied()));
        match received {
            Ok(_) => {}
            // Woken, or nothing came after all.
            Err(pcap::Error::TimeoutExpired | pcap::Error::NoMorePackets) => {}
            // Woken too; what that is for is seen above.
            Err(_) if stop.load(Ordering::Relaxed) => {}
            Err(error) => {
                tracing::error!(port, %error, "the interface is gone; the port stops receiving");
                return;
            }
        }
    }
}

impl Drop for InterfacePort {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake.breakloop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
