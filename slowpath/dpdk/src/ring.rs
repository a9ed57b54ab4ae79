//! A port inside the process, for tests and benchmarks: what is injected at the
//! far end is received by the port, and what the port sends is drained there.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::burst::{Burst, CAPACITY};
use crate::eal::{Eal, control};
use crate::ffi::{self, RawRing};
use crate::pool::Pool;
use crate::port::{Inner, Port, PortConfig, PortError};

/// Longest name of a ring port, in bytes.
pub const MAX_RING_NAME: usize = 16;

/// Most queues a ring port has (`RTE_PMD_RING_MAX_RX_RINGS`).
pub const MAX_RING_QUEUES: u16 = 16;

/// Most frames in one ring.
pub const MAX_RING_DEPTH: u32 = 1 << 16;

/// Why there is no ring port.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The name, the queue count or the depth is out of range.
    #[error(
        "ring port {name:?} with {queues} queues of {depth}: a name has 1 to {MAX_RING_NAME} bytes, there are 1 to {MAX_RING_QUEUES} queues, of 1 to {MAX_RING_DEPTH} frames"
    )]
    Limits {
        /// The name.
        name: String,
        /// Queues a direction.
        queues: u16,
        /// Frames a queue.
        depth: u32,
    },
    /// DPDK refused, mostly because the name is taken or memory is short.
    #[error("ring port `{name}` could not be made: {source}")]
    Create {
        /// The name.
        name: String,
        /// DPDK's error number.
        source: std::io::Error,
    },
    /// The port was made but does not open.
    #[error(transparent)]
    Open(#[from] PortError),
}

/// Makes ports of in-process rings.
#[derive(Debug)]
pub struct RingPort;

impl RingPort {
    /// A started port of `queues` queues in each direction, and for each queue
    /// its far end. Each ring holds `depth` frames.
    pub fn pair(
        eal: &Eal,
        name: &str,
        pool: &Pool,
        queues: u16,
        depth: u32,
    ) -> Result<(Port, Vec<RingEnd>), RingError> {
        if name.is_empty()
            || name.len() > MAX_RING_NAME
            || name.contains('\0')
            || !(1..=MAX_RING_QUEUES).contains(&queues)
            || !(1..=MAX_RING_DEPTH).contains(&depth)
        {
            return Err(RingError::Limits {
                name: name.to_owned(),
                queues,
                depth,
            });
        }
        let fail = |ret| RingError::Create {
            name: name.to_owned(),
            source: ffi::os_error(ret),
        };
        let c_name = CString::new(name).map_err(|_| fail(-nix::libc::EINVAL))?;
        let mut rings = Rings {
            inbound: Vec::new(),
            outbound: Vec::new(),
        };
        for queue in 0..queues {
            rings
                .inbound
                .push(Ring::new(&format!("{name}-in{queue}"), depth).map_err(fail)?);
            rings
                .outbound
                .push(Ring::new(&format!("{name}-out{queue}"), depth).map_err(fail)?);
        }
        let mut inbound: Vec<_> = rings.inbound.iter().map(|r| r.0.as_ptr()).collect();
        let mut outbound: Vec<_> = rings.outbound.iter().map(|r| r.0.as_ptr()).collect();
        let rings = Arc::new(rings);
        let config = PortConfig {
            rx_queues: queues,
            tx_queues: queues,
            ..PortConfig::default()
        };
        let inner = {
            // Held over both steps, so that nobody opens the port without its rings.
            let mut control = control();
            // SAFETY: `queues` rings each way, which `inner` keeps alive.
            let ret = unsafe {
                ffi::shunt_port_from_rings(
                    c_name.as_ptr(),
                    inbound.as_mut_ptr(),
                    outbound.as_mut_ptr(),
                    u32::from(queues),
                )
            };
            if ret < 0 {
                return Err(fail(ret));
            }
            let port_name = format!("net_ring_{name}");
            Inner::claim(
                &mut control,
                eal,
                &port_name,
                &config,
                Some(Arc::clone(&rings)),
            )
            .inspect_err(|_| {
                if let Ok(port_name) = CString::new(port_name.as_str()) {
                    // SAFETY: the device just made, which nobody has opened.
                    unsafe { ffi::shunt_vdev_uninit(port_name.as_ptr()) };
                }
            })?
        };
        let port = Port::start(inner, pool, &config)?;
        let ends = (0..usize::from(queues))
            .map(|queue| RingEnd {
                inject: Inject {
                    rings: Arc::clone(&rings),
                    queue,
                },
                drain: RingDrain {
                    rings: Arc::clone(&rings),
                    queue,
                },
            })
            .collect();
        Ok((port, ends))
    }
}

/// The far end of one queue. The halves may go to different threads.
#[derive(Debug)]
pub struct RingEnd {
    /// Into the port's receive queue.
    pub inject: Inject,
    /// Out of the port's transmit queue.
    pub drain: RingDrain,
}

/// Puts frames where the port's receive queue finds them: its only producer.
#[derive(Debug)]
pub struct Inject {
    rings: Arc<Rings>,
    queue: usize,
}

impl Inject {
    /// Moves frames from the front of `burst` into the ring and says how many
    /// fitted; the rest stays.
    #[inline]
    pub fn burst(&mut self, burst: &mut Burst) -> usize {
        let Some(ring) = self.rings.inbound.get(self.queue) else {
            return 0;
        };
        let len = burst.len() as u32;
        // SAFETY: the only producer of this ring; the first `n` mbufs belong to it now.
        unsafe {
            let n = ffi::shunt_ring_enqueue(ring.0.as_ptr(), burst.ptr(), len) as usize;
            burst.forget_front(n);
            n
        }
    }
}

/// Takes the frames that the port's transmit queue sent: its only consumer.
#[derive(Debug)]
pub struct RingDrain {
    rings: Arc<Rings>,
    queue: usize,
}

impl RingDrain {
    /// Adds sent frames to `out`, as many as it has room for, and says how many.
    #[inline]
    pub fn burst(&mut self, out: &mut Burst) -> usize {
        let Some(ring) = self.rings.outbound.get(self.queue) else {
            return 0;
        };
        let room = out.spare() as u32;
        // SAFETY: the only consumer of this ring; only owned mbufs that hold
        // Mbuf's invariant ever enter it, by `TxQueue::burst`.
        unsafe {
            let n = ffi::shunt_ring_dequeue(ring.0.as_ptr(), out.spare_ptr(), room) as usize;
            out.grow(n);
            n
        }
    }
}

/// Both directions' rings; index: queue.
#[derive(Debug)]
pub(crate) struct Rings {
    inbound: Vec<Ring>,
    outbound: Vec<Ring>,
}

#[derive(Debug)]
struct Ring(NonNull<RawRing>);

// SAFETY: a ring is made for one producer and one consumer on any threads. Of
// each there is one handle, which takes `&mut self`: for `inbound` Inject and
// the port's RxQueue, for `outbound` its TxQueue and RingDrain.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    fn new(name: &str, depth: u32) -> Result<Self, i32> {
        let name = CString::new(name).map_err(|_| -nix::libc::EINVAL)?;
        let mut raw = std::ptr::null_mut();
        let _control = control();
        // SAFETY: NUL-terminated and copied; `raw` is written on success.
        let ret = unsafe { ffi::shunt_ring_create(name.as_ptr(), depth, &mut raw) };
        if ret < 0 {
            return Err(ret);
        }
        NonNull::new(raw).map(Self).ok_or(-nix::libc::ENOMEM)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut left = Burst::new();
        loop {
            // SAFETY: the last handle to the ring: port and ends hold the Arc
            // around it. What is in it are owned mbufs.
            let n = unsafe {
                let n = ffi::shunt_ring_dequeue(self.0.as_ptr(), left.spare_ptr(), CAPACITY as u32)
                    as usize;
                left.grow(n);
                n
            };
            if n == 0 {
                break;
            }
            left.clear();
        }
        let _control = control();
        // SAFETY: empty, and nobody else has it.
        unsafe { ffi::shunt_ring_free(self.0.as_ptr()) }
    }
}
