//! A connection, as the table keeps it.

use std::mem::offset_of;

use shunt_p4::{FlowKey, Tuple, VpcId};

use super::{Direction, Key, Offload, Place, Tracker};
use crate::nat::Lease;

/// What a packet's tuple becomes, and where it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The VPC whose table has the new destination.
    pub route_vpc: VpcId,
    /// The VPC of the interface that it has to leave by.
    pub egress_vpc: VpcId,
    /// The new tuple.
    pub tuple: Tuple,
}

/// A connection, of which its slot makes three cache lines. What timers and the offload engine ask
/// for lies in the third, from the tracker's state on, so that they touch no other.
#[derive(Debug)]
#[repr(C)]
pub struct Connection {
    /// What each direction's packets look like on arrival.
    keys: [Key; 2],
    /// Bytes of IP in software, each direction.
    pub bytes: [u64; 2],
    /// The VPC that each direction is routed in.
    route_vpcs: [VpcId; 2],
    /// It has a share in the port that it is addressed to, of somebody else inside: the VPC of
    /// that outside address; 0: it has none.
    peer_vpc: u16,
    /// Its state, sequence numbers first.
    pub tracker: Tracker,
    /// Its place in hardware.
    pub place: Place,
    /// `ENDING`, `COUNTED`, `REVOKED`, `LEAVING`, `HALF`, and refusals by hardware.
    flags: u8,
    /// The port that it has of a pool.
    pub lease: Option<Lease>,
    /// Its last packet in software, or the last that hardware told of.
    pub last_seen_ns: u64,
    offload_from_ns: u64,
    /// Packets in software, each direction.
    pub packets: Packets,
    /// Each direction's next hop as the worker numbers it.
    pub(super) hops: [u16; 2],
}

/// Where the third line begins.
const _: () = assert!(offset_of!(Connection, tracker) + Tracker::STATE_AT == 128);
const _: () = assert!(size_of::<Connection>() == 168);

/// Packets of each direction, 48 bits.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Packets {
    low: [u32; 2],
    high: [u16; 2],
}

impl Packets {
    /// So many of each; no more than 48 bits tell.
    pub fn new(packets: [u64; 2]) -> Self {
        Self {
            low: packets.map(|packets| packets as u32),
            high: packets.map(|packets| (packets >> 32) as u16),
        }
    }

    /// One more.
    #[inline]
    pub fn count(&mut self, direction: Direction) {
        let at = direction.index();
        let (low, carry) = self.low[at].overflowing_add(1);
        self.low[at] = low;
        self.high[at] = self.high[at].wrapping_add(u16::from(carry));
    }

    /// Of each direction.
    #[inline]
    pub fn both(&self) -> [u64; 2] {
        let of = |at: usize| u64::from(self.high[at]) << 32 | u64::from(self.low[at]);
        [of(0), of(1)]
    }
}

/// It is over.
const ENDING: u8 = 1;
/// It is counted for its source.
const COUNTED: u8 = 2;
/// What it was made by does not hold any more.
const REVOKED: u8 = 4;
/// A change of the tables takes it out of hardware.
const LEAVING: u8 = 8;
/// Refusals by hardware in a row, three bits.
const REFUSALS_SHIFT: u8 = 4;
const REFUSALS_MAX: u8 = 7;

/// The other half of its way is another connection's.
const HALF: u8 = 128;

/// In `offload_from_ns`: not before the next packet, whenever that comes.
const NEXT_PACKET: u64 = u64::MAX;

impl Connection {
    #[inline(always)]
    pub(super) fn new(route_vpcs: [VpcId; 2], tracker: Tracker, now_ns: u64) -> Self {
        Self {
            keys: [Key::NONE; 2],
            bytes: [0; 2],
            route_vpcs,
            peer_vpc: 0,
            tracker,
            place: Place::SOFTWARE,
            flags: 0,
            lease: None,
            last_seen_ns: now_ns,
            offload_from_ns: NEXT_PACKET,
            packets: Packets::default(),
            hops: [0; 2],
        }
    }

    /// Of a connection that is made. Each by itself: an array of both would be put together first.
    #[inline(always)]
    pub(super) fn set_keys(&mut self, [forward, reply]: [&Key; 2]) {
        let [to_forward, to_reply] = &mut self.keys;
        *to_forward = *forward;
        *to_reply = *reply;
    }

    /// What a direction's packets are turned into.
    #[inline]
    pub fn translation(&self, direction: Direction) -> Translation {
        let [forward, reply] = &self.keys;
        let [forward_vpc, reply_vpc] = self.route_vpcs;
        match direction {
            Direction::Forward => Translation {
                route_vpc: forward_vpc,
                egress_vpc: reply.vpc(),
                tuple: reply.tuple().reversed(),
            },
            Direction::Reply => Translation {
                route_vpc: reply_vpc,
                egress_vpc: forward.vpc(),
                tuple: forward.tuple().reversed(),
            },
        }
    }

    /// What a direction's packets look like on arrival.
    #[inline]
    pub fn key(&self, direction: Direction) -> FlowKey {
        self.raw_key(direction).flow_key()
    }

    /// What each direction's packets look like on arrival, as it is kept.
    #[inline]
    pub(super) const fn keys(&self) -> &[Key; 2] {
        &self.keys
    }

    /// As [`Connection::key`], as it is kept.
    #[inline]
    pub(crate) fn raw_key(&self, direction: Direction) -> &Key {
        // No branch: which direction comes next is anybody's guess.
        &self.keys[direction.index()]
    }

    /// The VPC that each direction is routed in.
    #[inline]
    pub(crate) fn route_vpcs(&self) -> [VpcId; 2] {
        self.route_vpcs
    }

    /// Of both directions: IP protocol number.
    #[inline]
    pub fn proto(&self) -> u8 {
        let [forward, _] = &self.keys;
        forward.proto()
    }

    /// Whether any address or port changes.
    pub fn is_translated(&self) -> bool {
        let [forward, reply] = &self.keys;
        forward.tuple().reversed() != reply.tuple()
    }

    /// It is over: gone as soon as the hardware has let go of it.
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.flags & ENDING != 0
    }

    /// See [`Connection::is_ending`].
    pub fn end(&mut self) {
        self.flags |= ENDING;
    }

    /// The configuration or the routes contradict it: nothing is forwarded for it any more, and
    /// it is gone as soon as the hardware has let go of it.
    #[inline]
    pub fn is_revoked(&self) -> bool {
        self.flags & REVOKED != 0
    }

    /// See [`Connection::is_revoked`].
    pub fn revoke(&mut self) {
        self.flags |= ENDING | REVOKED;
    }

    /// A change of the tables takes it out of hardware. Says whether that is new.
    pub(crate) fn leave_hardware(&mut self) -> bool {
        let new = self.place.offload() != Offload::Software && self.flags & LEAVING == 0;
        self.flags |= if new { LEAVING } else { 0 };
        new
    }

    /// It is counted for its source, not for its VPC only.
    pub fn is_counted(&self) -> bool {
        self.flags & COUNTED != 0
    }

    /// See [`Connection::is_counted`].
    pub fn set_counted(&mut self, counted: bool) {
        self.flags = self.flags & !COUNTED | if counted { COUNTED } else { 0 };
    }

    /// It is between two hosts inside, whose packets belong to two workers: its own way is from
    /// one of them to what NAT shows of the other.
    #[inline]
    pub fn is_half(&self) -> bool {
        self.flags & HALF != 0
    }

    /// See [`Connection::is_half`].
    pub fn set_half(&mut self, half: bool) {
        self.flags = self.flags & !HALF | if half { HALF } else { 0 };
    }

    /// Whether none of its packets takes a worker's short way.
    #[inline]
    pub(crate) fn takes_the_walk(&self) -> bool {
        self.flags & (REVOKED | HALF) != 0
    }

    /// It has a share in the outside port that it is addressed to, of somebody else inside: the
    /// VPC of that address.
    pub fn peer_vpc(&self) -> Option<VpcId> {
        VpcId::new(self.peer_vpc)
    }

    /// See [`Connection::peer_vpc`].
    pub fn set_peer_vpc(&mut self, vpc: Option<VpcId>) {
        self.peer_vpc = vpc.map_or(0, VpcId::get);
    }

    /// Its tuple was opened anew.
    pub fn begin_again(&mut self) {
        self.offload_from_ns = NEXT_PACKET;
        self.flags &= !ENDING;
        self.set_refusals(0);
    }

    /// How often in a row hardware has refused it, at most 7.
    pub fn refusals(&self) -> u8 {
        self.flags >> REFUSALS_SHIFT & REFUSALS_MAX
    }

    /// See [`Connection::refusals`].
    pub fn set_refusals(&mut self, refusals: u8) {
        let bits = refusals.min(REFUSALS_MAX) << REFUSALS_SHIFT;
        self.flags = self.flags & !(REFUSALS_MAX << REFUSALS_SHIFT) | bits;
    }

    /// It is in software (again) and may be offered to hardware from its next packet on. Says
    /// whether that is because of a change of the tables.
    pub fn back_in_software(&mut self) -> bool {
        let leaving = self.flags & LEAVING != 0;
        self.flags &= !LEAVING;
        self.place.set_offload(Offload::Software);
        self.offload_from_ns = NEXT_PACKET;
        leaving
    }

    /// It is not offered to hardware before that moment.
    pub fn not_offered_before(&mut self, ns: u64) {
        self.offload_from_ns = ns;
    }

    /// Since when it could be in hardware: its first packet in software, or the end of the wait
    /// after a refusal. Asked at every packet.
    #[inline]
    pub fn offered_since_ns(&mut self, now_ns: u64) -> u64 {
        if self.offload_from_ns == NEXT_PACKET {
            self.offload_from_ns = now_ns;
        }
        self.offload_from_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_beyond_32_bits() {
        let mut packets = Packets::new([u64::from(u32::MAX), 7]);
        packets.count(Direction::Forward);
        packets.count(Direction::Reply);
        assert_eq!(packets.both(), [1 << 32, 8]);
    }
}
