//! How a slow path is started.

use std::path::PathBuf;
use std::time::Duration;

/// Workers that can be started. Each has a table of its own and a ring to every other.
pub const MAX_WORKERS: u16 = 8;

/// Packet buffers unless configured: a burst in each queue, full rings and held frames fit in.
pub const DEFAULT_BUFFERS: u32 = 16 * 1024;

/// Connections unless configured.
pub const DEFAULT_CONNECTIONS: u32 = 256 * 1024;

/// The port towards the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortDevice {
    /// A Linux interface, by AF_PACKET. Its MTU has to be at least that of the largest
    /// interface plus [`shunt_p4::frame::ENCAP_LEN`], or the kernel drops full packets.
    Interface(String),
    /// A DPDK virtual device: `net_memif0,…`.
    Vdev(String),
}

impl PortDevice {
    /// As after DPDK's `--vdev`, as the `n`th port, with a queue pair for each worker where that is
    /// ours to say.
    pub fn vdev(&self, n: usize, workers: u16) -> String {
        match self {
            PortDevice::Interface(name) if workers > 1 => {
                format!("net_af_packet{n},iface={name},qpairs={workers}")
            }
            PortDevice::Interface(name) => format!("net_af_packet{n},iface={name}"),
            PortDevice::Vdev(text) => text.clone(),
        }
    }

    /// The device's name in DPDK, as the `n`th port.
    pub fn name(&self, n: usize) -> String {
        let vdev = self.vdev(n, 1);
        vdev.split(',').next().unwrap_or_default().to_owned()
    }
}

/// A switch as the slow path sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchSide {
    /// Its name, by which the next daemon knows it again.
    pub name: String,
    /// The port towards it.
    pub device: PortDevice,
}

/// Everything that [`crate::Manager::start`] needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowPathConfig {
    /// The switches, 1 to [`shunt_p4::MAX_SWITCHES`].
    pub switches: Vec<SwitchSide>,
    /// Memory for DPDK, MiB.
    pub memory_mib: u32,
    /// Packet buffers.
    pub buffers: u32,
    /// Worker threads, 1 to [`MAX_WORKERS`].
    pub workers: u16,
    /// The CPU of each worker; a worker without one runs where the kernel puts it.
    pub cpus: Vec<usize>,
    /// Connections tracked, by each worker.
    pub max_connections: u32,
    /// Keys hashes and ports; random if none is given, which is what production wants.
    pub seed: Option<u64>,
    /// Where connections are written down, so that the next daemon has them; nowhere if none.
    pub state_file: Option<PathBuf>,
    /// Whether workers make no connection until [`crate::ManagerHandle::started`], because those
    /// of the daemon before are to be taken back.
    pub restores: bool,
    /// How long a worker without work sleeps; zero: it never does.
    pub idle_sleep: Duration,
}

impl SlowPathConfig {
    /// The defaults, with one switch on that device.
    pub fn new(device: PortDevice) -> Self {
        let name = String::new();
        Self::of(vec![SwitchSide { name, device }])
    }

    /// The defaults, with these switches.
    pub fn of(switches: Vec<SwitchSide>) -> Self {
        Self {
            switches,
            memory_mib: shunt_dpdk::DEFAULT_MEMORY_MIB,
            buffers: DEFAULT_BUFFERS,
            workers: 1,
            cpus: Vec::new(),
            max_connections: DEFAULT_CONNECTIONS,
            seed: None,
            state_file: None,
            restores: false,
            idle_sleep: Duration::from_micros(50),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_dpdk_does() {
        let device = PortDevice::Interface("sp0".into());
        assert_eq!(device.vdev(0, 1), "net_af_packet0,iface=sp0");
        assert_eq!(device.vdev(2, 4), "net_af_packet2,iface=sp0,qpairs=4");
        assert_eq!(device.name(1), "net_af_packet1");
        assert_eq!(PortDevice::Vdev("net_null1".into()).name(0), "net_null1");
    }
}
