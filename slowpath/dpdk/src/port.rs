//! Ports and their queues.

use std::ffi::{CStr, CString, c_char};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::burst::Burst;
use crate::eal::{Control, Eal, control};
use crate::ffi::{self, RawPortConfig};
use crate::pool::Pool;
use crate::ring::Rings;

/// Most ports a DPDK build has (`RTE_MAX_ETHPORTS` is 32 on Debian).
pub const MAX_PORTS: u16 = 64;

/// Most queues a direction here.
pub const MAX_QUEUES: u16 = 64;

/// How to run a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortConfig {
    /// Receive queues, 1 to [`MAX_QUEUES`]. For net_af_packet: its `qpairs`.
    pub rx_queues: u16,
    /// Transmit queues, 1 to [`MAX_QUEUES`].
    pub tx_queues: u16,
    /// Descriptors a receive queue; drivers round it. net_af_packet goes by `framecnt`.
    pub rx_descriptors: u16,
    /// Descriptors a transmit queue; drivers round it.
    pub tx_descriptors: u16,
    /// MTU to set, in bytes. `None` leaves it, which net_af_packet needs above
    /// 1500: there the kernel's interface and `framesz` decide.
    pub mtu: Option<u16>,
    /// Receive frames for other MACs too.
    pub promiscuous: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            promiscuous: true,
        }
    }
}

/// A port's counters, as its driver keeps them, since it was opened.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames lost because nobody polled.
    pub rx_missed: u64,
    /// Frames received broken.
    pub rx_errors: u64,
    /// Frames not sent.
    pub tx_errors: u64,
    /// Receives that found the pool empty.
    pub rx_no_mbuf: u64,
}

/// Why a port does not open, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No device of that name: its driver refused it, or nobody created it.
    #[error("there is no DPDK port `{0}`; name it as its virtual device or PCI address")]
    Missing(String),
    /// Somebody holds it already.
    #[error("DPDK port `{0}` is already open")]
    Busy(String),
    /// More queues than the device has, or none.
    #[error(
        "DPDK port `{name}` has {rx} receive and {tx} transmit queues, at least one each; {wanted_rx} and {wanted_tx} were asked for"
    )]
    Queues {
        /// The port.
        name: String,
        /// Receive queues it has.
        rx: u16,
        /// Transmit queues it has.
        tx: u16,
        /// Receive queues asked for.
        wanted_rx: u16,
        /// Transmit queues asked for.
        wanted_tx: u16,
    },
    /// A step of opening or asking failed. An open that fails removes the device.
    #[error("DPDK port `{name}`: cannot {step}: {source}")]
    Step {
        /// The port.
        name: String,
        /// What was tried.
        step: String,
        /// DPDK's error number.
        source: std::io::Error,
    },
}

/// An open, started port. It stops, closes and goes away once this handle and
/// all of its queues are dropped.
#[derive(Debug)]
pub struct Port {
    inner: Arc<Inner>,
}

/// A claimed port; dropping it stops, closes and removes it.
#[derive(Debug)]
pub(crate) struct Inner {
    id: u16,
    name: CString,
    /// Queue `i` has a handle.
    rx_taken: Vec<AtomicBool>,
    tx_taken: Vec<AtomicBool>,
    /// Outlive the port, which refers to them.
    _rings: Option<Arc<Rings>>,
}

impl Port {
    /// Opens the port called `name` and starts it. Frames are received into
    /// mbufs of `pool`.
    pub fn open(
        eal: &Eal,
        name: &str,
        pool: &Pool,
        config: &PortConfig,
    ) -> Result<Self, PortError> {
        let inner = Inner::claim(&mut control(), eal, name, config, None)?;
        Self::start(inner, pool, config)
    }

    /// Starts a claimed port; if that fails, the device goes.
    pub(crate) fn start(inner: Inner, pool: &Pool, config: &PortConfig) -> Result<Self, PortError> {
        let raw = RawPortConfig {
            rx_queues: config.rx_queues,
            tx_queues: config.tx_queues,
            rx_descriptors: config.rx_descriptors,
            tx_descriptors: config.tx_descriptors,
            mtu: config.mtu.unwrap_or(0),
            promiscuous: u16::from(config.promiscuous),
        };
        let mut step: *const c_char = std::ptr::null();
        let ret = {
            let _control = control();
            // SAFETY: the port is claimed; the pool lives for ever.
            unsafe { ffi::shunt_port_start(inner.id, &raw, pool.as_ptr(), &mut step) }
        };
        if ret < 0 {
            let step = if step.is_null() {
                "start".into()
            } else {
                // SAFETY: set to one of the shim's string literals.
                unsafe { CStr::from_ptr(step) }.to_string_lossy()
            };
            return Err(inner.fail(&step, ret));
        }
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The handle of receive queue `index`; `None` if there is no such queue,
    /// or its handle is out. Dropping the handle gives it back.
    pub fn rx_queue(&self, index: u16) -> Option<RxQueue> {
        take(self.inner.rx_taken.get(usize::from(index))?)?;
        Some(RxQueue {
            port: Arc::clone(&self.inner),
            index,
            dropped: 0,
        })
    }

    /// The handle of transmit queue `index`, as [`rx_queue`](Self::rx_queue).
    pub fn tx_queue(&self, index: u16) -> Option<TxQueue> {
        take(self.inner.tx_taken.get(usize::from(index))?)?;
        Some(TxQueue {
            port: Arc::clone(&self.inner),
            index,
        })
    }

    /// The name it was opened by.
    pub fn name(&self) -> String {
        self.inner.name.to_string_lossy().into_owned()
    }

    /// The driver's counters.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let mut stats = PortStats::default();
        let _control = control();
        // SAFETY: open; `stats` has the shim's layout.
        let ret = unsafe { ffi::shunt_port_stats(self.inner.id, &mut stats) };
        if ret < 0 {
            return Err(self.inner.fail("be asked for its counters", ret));
        }
        Ok(stats)
    }

    /// The port's MAC address.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        let mut mac = [0; 6];
        let _control = control();
        // SAFETY: open; six bytes are written on success.
        let ret = unsafe { ffi::shunt_port_mac(self.inner.id, mac.as_mut_ptr()) };
        if ret < 0 {
            return Err(self.inner.fail("be asked for its MAC", ret));
        }
        Ok(mac)
    }
}

/// Claims the flag, if it was free.
fn take(flag: &AtomicBool) -> Option<()> {
    // Acquire: what the previous holder did to the queue happened before.
    (!flag.swap(true, Ordering::Acquire)).then_some(())
}

impl Inner {
    /// Finds the port and makes it ours. `rings` are what it refers to, if it
    /// is a ring port.
    pub(crate) fn claim(
        control: &mut Control,
        _eal: &Eal,
        name: &str,
        config: &PortConfig,
        rings: Option<Arc<Rings>>,
    ) -> Result<Self, PortError> {
        let missing = || PortError::Missing(name.to_owned());
        let c_name = CString::new(name).map_err(|_| missing())?;
        let mut id = 0;
        // SAFETY: NUL-terminated name; `id` is written on success.
        if unsafe { ffi::shunt_port_by_name(c_name.as_ptr(), &mut id) } != 0 || id >= MAX_PORTS {
            return Err(missing());
        }
        if control.open_ports & (1 << id) != 0 {
            return Err(PortError::Busy(name.to_owned()));
        }
        let (mut rx, mut tx) = (0, 0);
        // SAFETY: both are written on success.
        let ret = unsafe { ffi::shunt_port_max_queues(id, &mut rx, &mut tx) };
        if ret < 0 {
            return Err(PortError::Step {
                name: name.to_owned(),
                step: "be described".into(),
                source: ffi::os_error(ret),
            });
        }
        let (rx, tx) = (rx.min(MAX_QUEUES), tx.min(MAX_QUEUES));
        let (wanted_rx, wanted_tx) = (config.rx_queues, config.tx_queues);
        if !(1..=rx).contains(&wanted_rx) || !(1..=tx).contains(&wanted_tx) {
            return Err(PortError::Queues {
                name: name.to_owned(),
                rx,
                tx,
                wanted_rx,
                wanted_tx,
            });
        }
        control.open_ports |= 1 << id;
        Ok(Self {
            id,
            name: c_name,
            rx_taken: (0..wanted_rx).map(|_| AtomicBool::new(false)).collect(),
            tx_taken: (0..wanted_tx).map(|_| AtomicBool::new(false)).collect(),
            _rings: rings,
        })
    }

    fn fail(&self, step: &str, ret: i32) -> PortError {
        PortError::Step {
            name: self.name.to_string_lossy().into_owned(),
            step: step.to_owned(),
            source: ffi::os_error(ret),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut control = control();
        // Stop first: net_af_packet closes its sockets there. A device on the
        // PCI bus is no virtual device, and says so.
        // SAFETY: every queue handle holds an Arc of this, so none is in use.
        unsafe {
            ffi::shunt_port_stop(self.id);
            ffi::shunt_port_close(self.id);
            ffi::shunt_vdev_uninit(self.name.as_ptr());
        }
        control.open_ports &= !(1 << self.id);
    }
}

/// One receive queue: the only handle to it.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<Inner>,
    index: u16,
    dropped: u64,
}

impl RxQueue {
    /// Adds waiting frames to `out`, as many as it has room for, and says how
    /// many. Never waits. VLAN tags that the driver stripped are back in place.
    #[inline]
    pub fn burst(&mut self, out: &mut Burst) -> usize {
        let room = out.spare() as u16;
        // SAFETY: the port is started while `port` lives; this is the queue's
        // only handle; the spare part takes `room` pointers, and the shim lets
        // through only mbufs that are direct, unshared and one segment.
        unsafe {
            let n = ffi::shunt_rx_burst(
                self.port.id,
                self.index,
                out.spare_ptr(),
                room,
                &mut self.dropped,
            );
            out.grow(usize::from(n));
            usize::from(n)
        }
    }

    /// Frames received so far that could not be made one contiguous slice, and were freed.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Which queue of the port this is.
    pub fn index(&self) -> u16 {
        self.index
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        if let Some(flag) = self.port.rx_taken.get(usize::from(self.index)) {
            flag.store(false, Ordering::Release);
        }
    }
}

/// One transmit queue: the only handle to it.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<Inner>,
    index: u16,
}

impl TxQueue {
    /// Sends from the front of `burst` and says how many the driver took. The
    /// rest stays in `burst`, for the caller to keep or free.
    ///
    /// "Took" is not "delivered": net_af_packet takes, then drops, frames longer
    /// than its `framesz` or the interface's MTU, or shorter than an Ethernet header.
    #[inline]
    pub fn burst(&mut self, burst: &mut Burst) -> usize {
        let len = burst.len() as u16;
        if len == 0 {
            return 0;
        }
        // SAFETY: the port is started while `port` lives; this is the queue's
        // only handle; the first `n` mbufs now belong to the driver.
        unsafe {
            let n = usize::from(ffi::shunt_tx_burst(
                self.port.id,
                self.index,
                burst.ptr(),
                len,
            ));
            burst.forget_front(n);
            n
        }
    }

    /// Which queue of the port this is.
    pub fn index(&self) -> u16 {
        self.index
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        if let Some(flag) = self.port.tx_taken.get(usize::from(self.index)) {
            flag.store(false, Ordering::Release);
        }
    }
}
