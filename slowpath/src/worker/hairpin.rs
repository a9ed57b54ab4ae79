//! Packets from inside to what NAT shows outside (hairpinning, RFC 4787 REQ-9), where the two ends
//! are different workers'.
//!
//! ```text
//!   A ──▶ A's worker                                  the worker of what it is addressed to ──▶ B
//!         A → out(B)  becomes  out(A) → out(B) ─ring─▶ out(A) → out(B)  becomes  out(A) → B
//! ```
//!
//! One worker makes one connection of it, translated on both sides. Where the mapping of one end is
//! one worker's and that of the other another's, it is two, each a whole one of its worker: the
//! packet is translated as if it left, and instead of leaving goes to the other worker, as if it
//! had arrived from outside. There it is *trusted* as a packet from inside is: whoever may send to
//! a leased port, it may. Replies come the same way back, and so do ICMP errors. The TTL is
//! counted by the second worker alone.
//!
//! Both halves stay in software: in hardware each would lead out of the gateway. Such a frame bears
//! a mark where others have the header's version, so nobody outside can send one.

use shunt_p4::frame::{ENCAP_LEN, ETHERNET_LEN, ShuntHeader, VERSION};
use shunt_p4::{FlowKey, Interface, PuntReason, Tuple, VpcId, flow_hash};

use super::owner::egress;
use super::related::quoted_key;
use super::{Core, Rewrite, Stop, Verdict};
use crate::conntrack::{Connection, Direction};
use crate::fib::Fib;
use crate::nat::{PortShare, Rules};
use crate::packet::{Packet, PacketBuf, rewrite};
use crate::stats::DropReason;

/// Where a header has its version.
const VERSION_AT: usize = ETHERNET_LEN;
/// What a frame between workers has there that carries a packet from inside. No switch's version.
const MARK: u8 = 0xff;

/// The header of a frame that another worker would otherwise have sent out. `None`: it is none.
pub(super) fn header(frame: &[u8]) -> Option<ShuntHeader> {
    let mut head: [u8; ENCAP_LEN] = *frame.first_chunk()?;
    if head[VERSION_AT] != MARK {
        return None;
    }
    head[VERSION_AT] = VERSION;
    ShuntHeader::parse(&head)
}

/// Whether a connection between these keys is a half of one: its packets are for, or of, what NAT
/// shows outside.
pub(super) fn has_half(rules: &Rules, [forward, reply]: &[FlowKey; 2]) -> bool {
    leads_inside(rules, reply.vpc, &reply.tuple.reversed())
        || rules.is_outside(forward.vpc, forward.tuple.src)
}

/// Whether NAT has a host inside, or could have one, for what arrives in that VPC.
fn leads_inside(rules: &Rules, vpc: VpcId, tuple: &Tuple) -> bool {
    rules.is_pooled(vpc, tuple.dst, tuple.dst_port) || rules.destination(vpc, tuple).is_some()
}

impl Core {
    /// Whether a packet that would leave into `to`, and come back at once, is begun here and ended
    /// at the worker that it then belongs to.
    pub(super) fn is_half(&self, rules: &Rules, to: VpcId, tuple: &Tuple) -> bool {
        if self.share.workers <= 1 {
            return false;
        }
        let port = tuple.dst_port;
        // Whose a packet to a forwarded port or a static address is may depend on the port that
        // is leased for its source.
        rules.destination(to, tuple).is_some()
            || rules.is_pooled(to, tuple.dst, port)
                && PortShare::owner(port, self.share.workers) != self.share.worker
    }

    /// The worker that a packet of a half connection goes to instead of leaving; perhaps this one.
    /// `None`: it does leave.
    pub(super) fn across(
        &self,
        fib: &Fib,
        connection: &Connection,
        direction: Direction,
    ) -> Option<u16> {
        if !connection.is_half() || self.hairpinned {
            return None;
        }
        let from = connection.raw_key(direction).tuple();
        let to = connection.translation(direction);
        let tuple = to.tuple;
        if (from.dst, from.dst_port) != (tuple.dst, tuple.dst_port) {
            // It has come from the other half.
            return None;
        }
        let rules = fib.rules();
        let vpc = to.egress_vpc;
        leads_inside(rules, vpc, &tuple)
            .then(|| self.owner_from_outside(fib, &FlowKey { vpc, tuple }))
    }

    /// Whose a packet is that arrives from outside.
    pub(super) fn owner_from_outside(&self, fib: &Fib, key: &FlowKey) -> u16 {
        let hash = flow_hash(&key.tuple);
        self.owner(fib.rules(), key, |vpc, dst, _| egress(fib, vpc, dst, hash))
    }

    /// Translates a packet and makes it one that arrives by `interface`, at the other worker.
    pub(super) fn cross<B: PacketBuf>(
        &mut self,
        frame: &mut B,
        packet: &Packet,
        Rewrite { from, to }: &Rewrite,
        interface: &Interface,
        worker: u16,
    ) -> Result<Verdict, Stop> {
        rewrite::translate(frame.data_mut(), packet, from, to).ok_or(DropReason::Malformed)?;
        Ok(self.hand_to_other_half(frame, packet, to, interface, worker)?)
    }

    /// As [`Core::cross`], of a packet that is translated already; `tuple` spreads it.
    pub(super) fn hand_to_other_half<B: PacketBuf>(
        &mut self,
        frame: &mut B,
        packet: &Packet,
        tuple: &Tuple,
        interface: &Interface,
        worker: u16,
    ) -> Result<Verdict, DropReason> {
        rewrite::set_macs(frame.data_mut(), interface.mac, interface.mac)
            .ok_or(DropReason::Truncated)?;
        // Padding of a short frame is the ingress link's, not the packet's.
        frame.truncate(packet.end);
        let header = ShuntHeader {
            reason: PuntReason::FlowMiss as u8,
            interface: interface.id.get(),
            vpc: interface.vpc.get(),
            port: 0,
            flow_hash: flow_hash(tuple),
        };
        let head = frame.prepend(ENCAP_LEN).ok_or(DropReason::NoHeadroom)?;
        head.copy_from_slice(&header.encode());
        if let Some(version) = head.get_mut(VERSION_AT) {
            *version = MARK;
        }
        self.stats.hairpinned += 1;
        Ok(Verdict::Hairpin(worker))
    }

    /// The walk of a frame that its first half has made of a packet from inside.
    pub(super) fn take_from_other_half<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        header: ShuntHeader,
        frame: &mut B,
    ) -> Verdict {
        let (handed, arrival) = (self.handed, self.arrival.take());
        (self.handed, self.hairpinned) = (true, true);
        let seen = self.walk_once(fib, now_ns, header, frame);
        (self.handed, self.hairpinned, self.arrival) = (handed, false, arrival);
        seen
    }

    /// An ICMP error that is ready to leave by `interface`, about a packet from the other half: it
    /// goes back there. `None`: it cannot.
    pub(super) fn answer_other_half<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        ingress: &super::Ingress<'_>,
        frame: &mut B,
    ) -> Option<Verdict> {
        frame.strip(ENCAP_LEN)?;
        let packet = Packet::parse(frame.data()).ok()?;
        let (_, _, key) = quoted_key(ingress, frame.data(), &packet)?;
        let worker = self.owner_from_outside(fib, &key);
        self.hand_to_other_half(frame, &packet, &key.tuple, ingress.interface, worker)
            .ok()
    }
}
