//! The switch, and where frames go in and come out.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pcap::{Active, Capture, Direction};
use shunt_switch::ChannelPort;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::{Error, Result, netns};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long something may take that has to happen.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Where bmv2 serves P4Runtime, in its sandbox.
const ADDRESS: &str = "127.0.0.1:9559";
/// Frames that wait at one port until a test takes them.
const QUEUE_FRAMES: usize = 256;
/// Room for the longest packet that a test sends, and its encapsulations.
const MTU: u16 = 2000;
/// Longest frame that a test sends.
const FRAME_LEN_MAX: i32 = 2048;

/// The switch; ends when dropped.
pub enum Switch {
    Bmv2 { _service: Service, _logs: TempDir },
    Embedded { _handle: shunt_switch::Handle },
}

/// The outside of the switch's ports.
pub enum Ports {
    Veth(BTreeMap<u16, VethPort>),
    Channels(BTreeMap<u16, ChannelPort>),
}

/// The host's end of a veth pair. libpcap reads it: it puts back the VLAN tag that the kernel
/// takes out of received frames.
pub struct VethPort {
    send: Capture<Active>,
    received: Receiver<Vec<u8>>,
}

fn words(error: impl std::fmt::Display) -> Error {
    Error::Other(error.to_string())
}

fn open(device: &str) -> Result<Capture<Active>> {
    let inactive = Capture::from_device(device).map_err(words)?;
    inactive
        .promisc(true)
        .immediate_mode(true)
        .timeout(10)
        .snaplen(FRAME_LEN_MAX)
        .open()
        .map_err(words)
}

impl VethPort {
    fn open(device: &str) -> Result<Self> {
        let mut receive = open(device)?;
        receive.direction(Direction::In).map_err(words)?;
        let (sender, received) = channel();
        // It ends with the sandbox.
        std::thread::spawn(move || {
            loop {
                match receive.next_packet() {
                    Ok(packet) => {
                        if sender.send(packet.data.to_vec()).is_err() {
                            return;
                        }
                    }
                    Err(pcap::Error::TimeoutExpired) => {}
                    Err(_) => return,
                }
            }
        });
        let send = open(device)?;
        Ok(Self { send, received })
    }
}

impl Ports {
    /// Sends into the switch.
    pub fn send(&mut self, port: u16, bytes: &[u8]) {
        match self {
            Self::Channels(ports) => ports[&port].inject(bytes),
            Self::Veth(ports) => ports
                .get_mut(&port)
                .unwrap()
                .send
                .sendpacket(bytes)
                .unwrap(),
        }
    }

    /// Takes the next frame that left by a port.
    pub fn receive(&mut self, port: u16, wait: Duration) -> Option<Vec<u8>> {
        match self {
            Self::Channels(ports) => ports[&port].receive(wait),
            Self::Veth(ports) => ports[&port].received.recv_timeout(wait).ok(),
        }
    }
}

impl Switch {
    /// The real one, in the sandbox that this process runs in.
    pub fn bmv2(_: &Runtime, numbers: &[u16]) -> Result<(Self, Ports, String)> {
        let mut command = Command::new("simple_switch_grpc");
        command.args(["--no-p4", "--device-id", "1"]);
        let mut ports = BTreeMap::new();
        for port in numbers {
            let (switch, host) = (format!("s{port}"), format!("h{port}"));
            netns::run(&format!("ip link add {switch} type veth peer name {host}"))?;
            for device in [&switch, &host] {
                netns::run(&format!("sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1"))?;
                // With these on, libpcap expects frames of 64 KiB, and bmv2's receive ring has
                // room for 32 of them.
                netns::run(&format!(
                    "ethtool -K {device} rx off tx off sg off tso off gso off gro off"
                ))?;
                netns::run(&format!("ip link set {device} mtu {MTU} arp off up"))?;
            }
            ports.insert(*port, VethPort::open(&host)?);
            command.arg("-i").arg(format!("{port}@{switch}"));
        }
        command.args(["--", "--grpc-server-addr", ADDRESS]);
        let logs = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let mut service = Service::start("bmv2", logs.path(), command)?;
        wait_for("bmv2 to listen", DEADLINE, || {
            service.ended().is_some() || std::net::TcpStream::connect(ADDRESS).is_ok()
        })?;
        service.check_running()?;
        let switch = Self::Bmv2 {
            _service: service,
            _logs: logs,
        };
        Ok((switch, Ports::Veth(ports), ADDRESS.to_owned()))
    }

    /// The embedded one, in this process.
    pub fn embedded(runtime: &Runtime, numbers: &[u16]) -> Result<(Self, Ports, String)> {
        let handle = runtime
            .block_on(shunt_switch::run(shunt_switch::Config::default()))
            .map_err(words)?;
        let attach = |port: &u16| {
            let channel = handle.switch().attach_channel((*port).into(), QUEUE_FRAMES);
            (*port, channel)
        };
        let ports = Ports::Channels(numbers.iter().map(attach).collect());
        let address = handle.addr().to_string();
        Ok((Self::Embedded { _handle: handle }, ports, address))
    }
}
