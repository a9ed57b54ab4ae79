//! The rings between workers: what arrives at one and belongs to another is handed over.
//!
//! ```text
//!   frame of another ──▶ collected ──▶ ring, a burst at a time ──▶ a burst of the other worker
//!                                      short ones copied, long ones as the buffer they are in
//! ```
//!
//! A buffer has four cache lines that both workers would write: its head, its pool's link and the
//! packet. They would go to the other core and come back, and the pool would hand out what is in
//! no cache. So a short frame is copied into the ring, two lines, and out of it into a buffer that
//! the other worker has at hand.

use shunt_dpdk::{Burst, Mbuf, Pool, copy_short, prefetch_all, prefetch_to_write};

/// Frames that wait for another worker, in each direction between two workers.
pub const HANDOVER_FRAMES: usize = 1024;

/// Longest frame that is copied, in bytes: an acknowledgement over IPv6 with time stamps has 112.
pub const HANDOVER_COPIED: usize = 118;

/// A place in a ring.
#[derive(Debug)]
#[repr(C, align(64))]
struct Parcel {
    /// A frame of more than [`HANDOVER_COPIED`] bytes.
    whole: Option<Mbuf>,
    /// Bytes of the frame that was copied.
    len: u16,
    copied: [u8; HANDOVER_COPIED],
}

const _: () = assert!(size_of::<Parcel>() == 128);

impl Default for Parcel {
    #[inline]
    fn default() -> Self {
        Self {
            whole: None,
            len: 0,
            copied: [0; HANDOVER_COPIED],
        }
    }
}

/// Towards another worker.
#[derive(Debug)]
struct Outgoing {
    ring: rtrb::Producer<Parcel>,
    collected: Burst,
}

/// A worker's ends of the rings between workers: one producer and one consumer each.
#[derive(Debug, Default)]
pub struct Peers {
    /// By worker; none for itself.
    to: Vec<Option<Outgoing>>,
    from: Vec<rtrb::Consumer<Parcel>>,
}

impl Peers {
    /// Rings from every one of so many workers to every other.
    pub fn mesh(workers: u16) -> Vec<Self> {
        let mut all: Vec<Self> = (0..workers).map(|_| Self::default()).collect();
        for from in 0..usize::from(workers) {
            for to in 0..usize::from(workers) {
                let ends = (from != to).then(|| rtrb::RingBuffer::new(HANDOVER_FRAMES));
                let (producer, consumer) = ends.unzip();
                if let Some(peers) = all.get_mut(from) {
                    peers.to.push(producer.map(|ring| Outgoing {
                        ring,
                        collected: Burst::new(),
                    }));
                }
                if let Some(peers) = all.get_mut(to) {
                    peers.from.extend(consumer);
                }
            }
        }
        all
    }

    /// Rings that frames come from.
    pub(super) fn sources(&self) -> usize {
        self.from.len()
    }

    /// Hands a frame over, with the next [`Peers::flush`] at the latest. Says how many frames
    /// found no room.
    #[inline]
    pub(super) fn push(&mut self, worker: u16, mbuf: Mbuf) -> usize {
        let Some(Some(peer)) = self.to.get_mut(usize::from(worker)) else {
            return 1;
        };
        let Err(mbuf) = peer.collected.push(mbuf) else {
            return 0;
        };
        let lost = peer.flush();
        // Empty now, so it fits.
        let _ = peer.collected.push(mbuf);
        lost
    }

    /// Hands over what was collected. Says how many frames found no room.
    #[inline]
    pub(super) fn flush(&mut self) -> usize {
        let peers = self.to.iter_mut().flatten();
        let waiting = peers.filter(|peer| !peer.collected.is_empty());
        waiting.map(Outgoing::flush).sum()
    }

    /// Adds frames of one of the rings to the burst, as many as it has room for and there are
    /// buffers; the rest stays. Says how many.
    pub(super) fn receive(&mut self, ring: usize, burst: &mut Burst, pool: &Pool) -> usize {
        let Some(ring) = self.from.get_mut(ring) else {
            return 0;
        };
        // Looks at the other worker's end only when it has to.
        let waiting = match ring.cached_slots() {
            0 => ring.slots(),
            known => known,
        };
        let room = shunt_dpdk::CAPACITY - burst.len();
        let Ok(mut parcels) = ring.read_chunk(waiting.min(room)) else {
            return 0;
        };
        let (first, second) = parcels.as_mut_slices();
        for parcel in first.iter().chain(&*second) {
            prefetch_all(parcel);
        }
        let copies = first.iter().chain(&*second);
        let copies = copies.filter(|parcel| parcel.whole.is_none()).count();
        let mut buffers = Burst::new();
        // If there are not that many, they are asked for one by one.
        let _ = pool.alloc_into(&mut buffers, copies);
        let mut taken = 0;
        for parcel in first.iter_mut().chain(second) {
            let mbuf = match parcel.whole.take() {
                Some(mbuf) => mbuf,
                None => {
                    let Some(mut mbuf) = buffers.pop().or_else(|| pool.alloc()) else {
                        break;
                    };
                    let frame = parcel.copied.get(..usize::from(parcel.len));
                    // A buffer without the room stays empty, and that is no frame of the switch.
                    let _ = mbuf.extend_from_slice(frame.unwrap_or_default());
                    mbuf
                }
            };
            // There is room.
            let _ = burst.push(mbuf);
            taken += 1;
        }
        parcels.commit(taken);
        taken
    }
}

impl Outgoing {
    fn flush(&mut self) -> usize {
        let Self { ring, collected } = self;
        let wanted = collected.len();
        if ring.cached_slots() < wanted {
            ring.slots();
        }
        let room = ring.cached_slots().min(wanted);
        let Ok(mut parcels) = ring.write_chunk(room) else {
            return 0;
        };
        let (first, second) = parcels.as_mut_slices();
        // Those that are copied, to be freed together.
        let mut copied = Burst::new();
        let mut frames = collected.drain();
        for (parcel, mbuf) in first.iter_mut().chain(second).zip(&mut frames) {
            let frame = mbuf.data();
            match parcel.copied.get_mut(..frame.len()) {
                Some(place) => {
                    copy_short(place, frame);
                    parcel.len = frame.len() as u16;
                    // It is as large as the burst that they are from.
                    let _ = copied.push(mbuf);
                }
                None => parcel.whole = Some(mbuf),
            }
        }
        drop(frames);
        parcels.commit_all();
        // The other worker has read what these places had: they come back while other packets
        // are walked.
        let ahead = ring.cached_slots().min(shunt_dpdk::CAPACITY);
        if let Ok(mut ahead) = ring.write_chunk_uninit(ahead) {
            let (first, second) = ahead.as_mut_slices();
            for place in first.iter().chain(&*second) {
                prefetch_to_write(place);
            }
        }
        wanted - room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shunt_dpdk::{DEFAULT_DATA_ROOM, Eal, EalConfig};

    /// Frames that tell which they are; short ones and long ones.
    fn frame(n: usize) -> Vec<u8> {
        let len = [1, 64, 90, HANDOVER_COPIED, HANDOVER_COPIED + 1, 1500][n % 6];
        (0..len).map(|at| (n * 31 + at) as u8).collect()
    }

    fn receive(peers: &mut Peers, ring: usize, pool: &Pool) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut burst = Burst::new();
        while peers.receive(ring, &mut burst, pool) > 0 {
            all.extend(burst.drain().map(|mbuf| mbuf.data().to_vec()));
        }
        all
    }

    #[test]
    fn frames_arrive_whole_in_their_order_and_where_they_belong() {
        let config = EalConfig {
            memory_mib: 32,
            ..EalConfig::default()
        };
        let eal = Eal::init(config).unwrap();
        let pool = Pool::new(&eal, "peers", 2047, DEFAULT_DATA_ROOM).unwrap();
        let few = Pool::new(&eal, "peers-few", 15, DEFAULT_DATA_ROOM).unwrap();
        let mut all = Peers::mesh(3);
        let send = |peers: &mut Peers, to, n| peers.push(to, pool.alloc_copy(&frame(n)).unwrap());
        for n in 0..100 {
            assert_eq!(send(&mut all[0], 1 + (n % 2) as u16, n), 0);
            assert_eq!(send(&mut all[2], 1, 1000 + n), 0);
        }
        assert_eq!(all[0].flush() + all[2].flush(), 0);
        let sent =
            |from: usize, step| -> Vec<_> { (from..from + 100).step_by(step).map(frame).collect() };
        let [zero, one, two] = &mut all[..] else {
            panic!("three workers")
        };
        assert_eq!((zero.sources(), one.sources(), two.sources()), (2, 2, 2));
        assert_eq!(receive(one, 0, &pool), sent(0, 2));
        assert_eq!(receive(one, 1, &pool), sent(1000, 1));
        assert_eq!(receive(two, 0, &pool), sent(1, 2));
        assert!(receive(zero, 0, &pool).is_empty() && receive(zero, 1, &pool).is_empty());
        assert_eq!(send(zero, 0, 0), 1, "nobody hands anything to himself");
        assert_eq!(send(zero, 3, 0), 1, "there is no fourth one");

        // Full: the newest are lost, and counted.
        let mut lost = 0;
        for n in 0..HANDOVER_FRAMES + 40 {
            lost += send(zero, 1, n);
        }
        assert_eq!(lost + zero.flush(), 40);
        // Without buffers frames wait.
        let held: Vec<_> = std::iter::from_fn(|| few.alloc()).collect();
        let mut burst = Burst::new();
        assert_eq!(one.receive(0, &mut burst, &few), 0);
        drop(held);
        let came = receive(one, 0, &pool);
        assert_eq!(came.len(), HANDOVER_FRAMES);
        assert!(came.iter().enumerate().all(|(n, came)| *came == frame(n)));
        assert_eq!(pool.available(), pool.count(), "every buffer is back");
    }
}
