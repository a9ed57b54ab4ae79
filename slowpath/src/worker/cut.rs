//! IPv4 packets that are larger than the way out takes, and may be cut (RFC 791 section 3.2).
//!
//! The first fragment stays in the packet's own buffer; the others are made here and leave at the
//! next poll.

use std::collections::VecDeque;

use shunt_p4::frame::{ENCAP_LEN, ShuntHeader};

use super::{Core, Output};
use crate::exception::ExceptionEvent;
use crate::fib::{Fib, NextHop};
use crate::packet::rewrite::put_u16;
use crate::packet::{IPV4_LEN, Packet, PacketBuf, checksum, read_u16};
use crate::stats::DropReason;

/// Fragments that wait to be sent. A full packet cut for the smallest MTU is some 130.
pub const MAX_CUT: usize = 1024;
/// Fragments' offsets count in these, bytes.
const UNIT: usize = 8;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Frames for the switch, header in front.
#[derive(Debug, Default)]
pub(super) struct Outbox(VecDeque<Vec<u8>>);

impl Outbox {
    /// Whether a packet of so many fragments may be cut.
    pub(super) fn has_room(&self, pieces: usize) -> bool {
        self.0.len() + pieces <= MAX_CUT
    }
}

/// Payload bytes of each fragment but the last. `None`: it cannot be cut, for its options would
/// have to be told apart, or for want of room.
fn part_len(packet: &Packet, mtu: u16) -> Option<usize> {
    let room = usize::from(mtu).checked_sub(IPV4_LEN)? / UNIT * UNIT;
    (packet.l4 == packet.l3 + IPV4_LEN && room > 0).then_some(room)
}

/// Whether a packet that is larger than `mtu`, and whose sender allows it, can be cut.
pub(super) fn can_be_cut(packet: &Packet, mtu: u16) -> bool {
    !packet.is_ipv6() && !packet.dont_fragment && part_len(packet, mtu).is_some()
}

/// How many packets leave for one on a way that takes `mtu` bytes.
pub(super) fn pieces(packet: &Packet, mtu: u16) -> usize {
    if packet.len() <= usize::from(mtu) {
        return 1;
    }
    let payload = packet.end - packet.l4;
    part_len(packet, mtu).map_or(1, |part| payload.div_ceil(part))
}

/// Writes an IPv4 header's length, flags and offset, and its checksum anew.
fn write_header(header: &mut [u8], len: usize, field: u16) -> Option<()> {
    put_u16(header, 2, u16::try_from(len).ok()?)?;
    put_u16(header, 6, field)?;
    put_u16(header, 10, 0)?;
    let checksum = checksum::of(header.get(..IPV4_LEN)?);
    put_u16(header, 10, checksum)
}

impl Core {
    /// Cuts a packet that is ready to leave but for the switch's header: what is behind the first
    /// fragment is queued (or waits for the neighbour, `resolved` says), the first one stays in
    /// the buffer.
    pub(super) fn cut<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        frame: &mut B,
        packet: &Packet,
        hop: &NextHop<'_>,
        resolved: bool,
    ) -> Result<(), DropReason> {
        let full = DropReason::NeedsFragmentation;
        let part = part_len(packet, hop.mtu).ok_or(full)?;
        let data = frame.data();
        let header = data.get(..packet.l4).ok_or(DropReason::Truncated)?;
        let payload = data
            .get(packet.l4..packet.end)
            .ok_or(DropReason::Truncated)?;
        let pieces = pieces(packet, hop.mtu);
        if !self.outbox.has_room(pieces) {
            return Err(full);
        }
        let field = read_u16(data, packet.l3 + 6).ok_or(DropReason::Truncated)?;
        let at = |n: usize| -> Option<u16> {
            let units = u16::try_from(n * part / UNIT).ok()?;
            let offset = (field & OFFSET).checked_add(units)?;
            let last = n + 1 == pieces && field & MORE_FRAGMENTS == 0;
            let more = if last { 0 } else { MORE_FRAGMENTS };
            (offset <= OFFSET).then_some(offset | more)
        };
        let head = ShuntHeader::egress(hop.interface.id).encode();
        for (n, bytes) in payload.chunks(part).enumerate().skip(1) {
            let mut piece = Vec::with_capacity(ENCAP_LEN + header.len() + bytes.len());
            piece.extend_from_slice(&head);
            piece.extend_from_slice(header);
            piece.extend_from_slice(bytes);
            let field = at(n).ok_or(DropReason::Malformed)?;
            let ip = piece.get_mut(ENCAP_LEN + packet.l3..);
            ip.and_then(|ip| write_header(ip, IPV4_LEN + bytes.len(), field))
                .ok_or(DropReason::Malformed)?;
            if resolved {
                self.outbox.0.push_back(piece);
            } else {
                let limits = &fib.policy().limits;
                let (interface, address) = (hop.interface.id, hop.address);
                if !self.hold.push(now_ns, limits, interface, address, &piece) {
                    return Err(DropReason::NeighborQueueFull);
                }
            }
        }
        let first = payload.len().min(part);
        let field = at(0).ok_or(DropReason::Malformed)?;
        frame.truncate(packet.l4 + first);
        let ip = frame.data_mut().get_mut(packet.l3..);
        ip.and_then(|ip| write_header(ip, IPV4_LEN + first, field))
            .ok_or(DropReason::Malformed)?;
        self.stats.cut += 1;
        Ok(())
    }

    /// Has the kernel asked for a next hop's MAC address, not too often.
    pub(super) fn ask_for(&mut self, now_ns: u64, hop: &NextHop<'_>) {
        let interface = hop.interface.id;
        if self.hold.should_resolve(now_ns, interface, hop.address) {
            // A full ring only means that the controller is asked again at the next packet.
            let resolve = ExceptionEvent::Resolve(interface, hop.address);
            let _ = self.exception.push(resolve);
        }
    }

    /// Sends what was cut off.
    pub(super) fn poll_outbox<O: Output>(&mut self, output: &mut O) -> usize {
        let count = self.outbox.0.len();
        while let Some(frame) = self.outbox.0.pop_front() {
            self.send(output, &frame, &[]);
        }
        count
    }
}
