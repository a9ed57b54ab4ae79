//! Fragments: their packet's ports are in the first one only.
//!
//! ```text
//!   first ──▶ the walk, as a whole packet ──▶ its tuple or fate, remembered ◀── found by later ones
//!   later, before the first ──▶ held ──▶ first arrives: ready, sent at the next poll
//!                                    └── never: dropped after the time-out
//! ```
//!
//! Where there are several workers, a packet's fragments *meet* at one that a hash of what they
//! have in common names, whichever they arrive at. That one sees the first, and so knows whose the
//! others are; it hands each on, and holds those that came too early. A frame is handed over twice
//! at most: to the worker where it meets the others, and from there to the connection's, which
//! takes it.
//!
//! Nothing is put together here: each fragment is translated and sent on by itself, in any order
//! (RFC 4787 REQ-14). What overlaps is the receiver's affair.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use shunt_p4::VpcId;
use shunt_p4::frame::ShuntHeader;

use super::{Core, Ingress, Output, POLL_BUDGET, Stop, Verdict};
use crate::conntrack::hasher;
use crate::exception::ExceptionReason;
use crate::fib::{Fib, Resolution};
use crate::packet::{Fragment, Packet, PacketBuf, VecBuf};
use crate::stats::DropReason;

/// Packets whose fragments are known of at a time. One more makes the oldest forgotten.
pub const MAX_FRAGMENTED: usize = 1024;
/// Fragments that wait for their first one, over all packets.
pub const MAX_HELD_FRAGMENTS: usize = 128;
/// Fragments of one packet that wait: a UDP datagram of 64 KiB has 45.
pub const MAX_HELD_PER_PACKET: usize = 44;

/// What the fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FragmentKey {
    vpc: VpcId,
    src: IpAddr,
    dst: IpAddr,
    /// IPv4: part of what tells packets apart; IPv6: 0 (RFC 8200 section 4.5).
    proto: u8,
    id: u32,
}

impl FragmentKey {
    /// `None`: not a fragment.
    pub(super) fn of(vpc: VpcId, packet: &Packet) -> Option<Self> {
        let (Fragment::First { id } | Fragment::Later { id }) = packet.fragment else {
            return None;
        };
        Some(Self {
            vpc,
            src: packet.src,
            dst: packet.dst,
            proto: if packet.is_ipv6() { 0 } else { packet.proto },
            id,
        })
    }
}

/// What becomes of a packet's later fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They belong to the connection with that protocol and these ports, as they arrived.
    Ports(u8, u16, u16),
    /// They belong to another worker, as the first one.
    Worker(u16),
    /// As the first one.
    Kernel,
    /// As the first one.
    Dropped,
}

#[derive(Debug)]
struct Entry {
    fate: Option<Fate>,
    /// Which of several entries of the same key it is, in time.
    number: u64,
    held: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Fragments {
    entries: HashMap<FragmentKey, Entry, ahash::RandomState>,
    /// Key, deadline and number, oldest first. At least one for each entry.
    queue: VecDeque<(FragmentKey, u64, u64)>,
    numbers: u64,
    held: usize,
    /// Frames, as they arrived, whose first fragment is known by now.
    ready: VecDeque<Vec<u8>>,
    /// Frames that were held for nothing since the last poll, with their VPC.
    lost: Vec<VpcId>,
}

impl Fragments {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            entries: HashMap::with_capacity_and_hasher(MAX_FRAGMENTED, hasher(seed)),
            queue: VecDeque::with_capacity(MAX_FRAGMENTED),
            numbers: 0,
            held: 0,
            ready: VecDeque::new(),
            lost: Vec::new(),
        }
    }

    fn entry(&mut self, key: FragmentKey, deadline_ns: u64) -> &mut Entry {
        if !self.entries.contains_key(&key) {
            if self.queue.len() >= MAX_FRAGMENTED {
                self.forget_oldest();
            }
            self.numbers += 1;
            self.queue.push_back((key, deadline_ns, self.numbers));
        }
        let number = self.numbers;
        self.entries.entry(key).or_insert_with(|| Entry {
            fate: None,
            number,
            held: Vec::new(),
        })
    }

    fn forget_oldest(&mut self) {
        let Some((key, _, number)) = self.queue.pop_front() else {
            return;
        };
        if self
            .entries
            .get(&key)
            .is_some_and(|entry| entry.number == number)
            && let Some(gone) = self.entries.remove(&key)
        {
            self.held -= gone.held.len();
            self.lost.extend(gone.held.iter().map(|_| key.vpc));
        }
    }

    /// The first fragment came: later ones share its fate.
    pub(super) fn decide(&mut self, key: FragmentKey, deadline_ns: u64, fate: Fate) {
        if self.fate(&key).is_some() {
            // The identification is used again, by a packet with a time of its own (RFC 4963).
            // Nothing waits for a fate that is known.
            self.entries.remove(&key);
        }
        let entry = self.entry(key, deadline_ns);
        entry.fate = Some(fate);
        let held = std::mem::take(&mut entry.held);
        self.held -= held.len();
        self.ready.extend(held);
    }

    pub(super) fn fate(&self, key: &FragmentKey) -> Option<Fate> {
        self.entries.get(key)?.fate
    }

    /// Whether another later fragment of that packet may wait.
    pub(super) fn has_room(&self, key: &FragmentKey) -> bool {
        let waits = self.entries.get(key).map_or(0, |entry| entry.held.len());
        self.held < MAX_HELD_FRAGMENTS && waits < MAX_HELD_PER_PACKET
    }

    /// Keeps a later fragment until the first one comes. `false`: too many wait.
    pub(super) fn hold(&mut self, key: FragmentKey, deadline_ns: u64, frame: Vec<u8>) -> bool {
        if self.held >= MAX_HELD_FRAGMENTS {
            return false;
        }
        let entry = self.entry(key, deadline_ns);
        if entry.held.len() >= MAX_HELD_PER_PACKET {
            return false;
        }
        entry.held.push(frame);
        self.held += 1;
        true
    }

    /// Forgets what is too old.
    pub(super) fn expire(&mut self, now_ns: u64) {
        while self
            .queue
            .front()
            .is_some_and(|(_, deadline_ns, _)| *deadline_ns <= now_ns)
        {
            self.forget_oldest();
        }
    }
}

impl Core {
    /// The worker that a packet's fragments meet at. `None`: it is none, or its ports do not
    /// matter, or this worker is alone.
    #[inline]
    pub(super) fn meeting(&self, ingress: &Ingress<'_>, packet: &Packet) -> Option<u16> {
        if self.share.workers <= 1 || ingress.stateless || self.hairpinned {
            return None;
        }
        let key = FragmentKey::of(ingress.vpc, packet)?;
        let of_vpc = u64::from(key.vpc.get()) << 48;
        let rest = of_vpc | u64::from(key.proto) << 32 | u64::from(key.id);
        Some(self.by_packet([key.src, key.dst], rest))
    }

    /// Remembers what became of a first fragment, for those that follow.
    pub(super) fn first_fragment(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        vpc: VpcId,
        packet: &Packet,
        outcome: Result<Verdict, Stop>,
    ) {
        let Some(key) = FragmentKey::of(vpc, packet) else {
            return;
        };
        let fate = match (outcome, packet.tuple()) {
            (Ok(_), Some(tuple)) => Fate::Ports(tuple.proto, tuple.src_port, tuple.dst_port),
            (Err(Stop::Kernel(_)), _) => Fate::Kernel,
            (Err(Stop::Handover(worker)), _) => Fate::Worker(worker),
            _ => Fate::Dropped,
        };
        let deadline_ns = deadline_ns(fib, now_ns);
        self.fragments.decide(key, deadline_ns, fate);
    }

    /// A fragment without ports.
    pub(super) fn later_fragment<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        ingress: &Ingress<'_>,
        frame: &mut B,
        packet: &Packet,
    ) -> Result<Verdict, Stop> {
        let key = FragmentKey::of(ingress.vpc, packet).ok_or(DropReason::Fragment)?;
        match self.fragments.fate(&key) {
            Some(Fate::Ports(proto, src_port, dst_port)) => {
                let tuple = shunt_p4::Tuple {
                    src: packet.src,
                    dst: packet.dst,
                    proto,
                    src_port,
                    dst_port,
                };
                let key = shunt_p4::FlowKey {
                    vpc: ingress.vpc,
                    tuple,
                };
                let (slot, direction) = self.table.find(&key).ok_or(DropReason::Fragment)?;
                self.established(fib, now_ns, ingress, frame, packet, slot, direction)
            }
            Some(Fate::Worker(worker)) => Err(Stop::Handover(worker)),
            Some(Fate::Kernel) => Err(Stop::Kernel(ExceptionReason::Local)),
            Some(Fate::Dropped) => Err(DropReason::Fragment.into()),
            None => {
                // The kernel puts together what is for the gateway itself.
                if fib.resolve(ingress.vpc, packet.dst, ingress.hash) == Resolution::Local
                    && !fib.rules().is_outside(ingress.vpc, packet.dst)
                {
                    return Err(Stop::Kernel(ExceptionReason::Local));
                }
                // As the switch sent it, so that it can be walked again.
                let header = ingress.header.encode();
                let copy = [header.as_slice(), frame.data()].concat();
                if !self.fragments.hold(key, deadline_ns(fib, now_ns), copy) {
                    return Err(DropReason::Fragment.into());
                }
                self.stats.held += 1;
                Ok(Verdict::Held)
            }
        }
    }

    /// Sends fragments whose first one came, drops those whose first one did not.
    pub(super) fn poll_fragments<O: Output>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        output: &mut O,
    ) -> usize {
        self.fragments.expire(now_ns);
        for vpc in std::mem::take(&mut self.fragments.lost) {
            self.stats.drop(DropReason::FragmentTimeout, Some(vpc));
        }
        let mut done = 0;
        // What waited here has met the others, or was handed on by the worker where it did.
        self.handed = true;
        while done < POLL_BUDGET {
            let Some(frame) = self.fragments.ready.pop_front() else {
                break;
            };
            done += 1;
            let Some(header) = ShuntHeader::parse(&frame) else {
                continue;
            };
            let mut frame = VecBuf::from(frame);
            match self.process_from(fib, now_ns, header, &mut frame) {
                Verdict::Handover(worker) | Verdict::Hairpin(worker)
                    if !output.hand_over(worker, frame.data()) =>
                {
                    let vpc = shunt_p4::VpcId::new(header.vpc);
                    self.stats.drop(DropReason::HandoverFull, vpc);
                }
                seen if seen.is_transmit() => self.send(output, frame.data(), &[]),
                _ => {}
            }
        }
        self.handed = false;
        done
    }
}

fn deadline_ns(fib: &Fib, now_ns: u64) -> u64 {
    let timeout = fib.policy().timeouts.fragment;
    now_ns.saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))
}
