//! The way out: route, limits, rewrite, neighbour, header for the switch.

use shunt_p4::frame::{ENCAP_LEN, ShuntHeader};

use super::cut::can_be_cut;
use super::offload::Arrived;
use super::{Core, DST_MAC, Ingress, Rewrite, Stop, Verdict};
use crate::conntrack::Direction;
use crate::exception::ExceptionReason;
use crate::fib::{Fib, NextHop, Resolution};
use crate::icmp::IcmpError;
use crate::packet::{Packet, PacketBuf, rewrite};
use crate::stats::DropReason;

impl Core {
    /// A packet of a connection that we have.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn established<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        ingress: &Ingress<'_>,
        frame: &mut B,
        packet: &Packet,
        slot: u32,
        direction: Direction,
    ) -> Result<Verdict, Stop> {
        let connection = self.table.get(slot).ok_or(DropReason::NoConnection)?;
        if connection.is_revoked() {
            return Err(DropReason::Revoked.into());
        }
        let translation = connection.translation(direction);
        let from = connection.key(direction).tuple;
        let across = self.across(fib, connection, direction);
        let mut hop = routed(
            fib,
            translation.route_vpc,
            translation.egress_vpc,
            translation.tuple.dst,
            ingress.hash,
        )?;
        if across.is_some() {
            // It does not leave there.
            hop.mtu = u16::MAX;
        }
        self.check_leaving(packet, &hop)?;
        let arrived = Arrived::new(packet, ingress.interface, hop.interface);
        self.seen(fib, now_ns, slot, direction, &arrived);
        let rewrite = Rewrite {
            from,
            to: translation.tuple,
        };
        if let Some(worker) = across {
            return self.cross(frame, packet, &rewrite, hop.interface, worker);
        }
        self.leave(fib, now_ns, frame, packet, Some(&rewrite), &hop)
    }

    /// A packet of a stateless VPC: routes alone forward.
    pub(super) fn route_only<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        ingress: &Ingress<'_>,
        frame: &mut B,
        packet: &Packet,
    ) -> Result<Verdict, Stop> {
        if fib.resolve(ingress.vpc, packet.dst, ingress.hash) == Resolution::Local {
            return Err(Stop::Kernel(ExceptionReason::Local));
        }
        let hop = routed(fib, ingress.vpc, ingress.vpc, packet.dst, ingress.hash)?;
        self.check_leaving(packet, &hop)?;
        self.leave(fib, now_ns, frame, packet, None, &hop)
    }

    /// TTL and MTU, before anything is changed.
    pub(super) fn check_leaving(&self, packet: &Packet, hop: &NextHop<'_>) -> Result<(), Stop> {
        if packet.ttl <= 1 {
            return Err(Stop::Answer(
                DropReason::TtlExceeded,
                IcmpError::TimeExceeded,
            ));
        }
        let mtu = hop.mtu;
        if packet.len() > usize::from(mtu) {
            if packet.dont_fragment {
                return Err(Stop::Answer(DropReason::TooBig, IcmpError::TooBig(mtu)));
            }
            if !can_be_cut(packet, mtu) {
                return Err(DropReason::NeedsFragmentation.into());
            }
        }
        Ok(())
    }

    /// Rewrites the packet and sends it to its next hop.
    pub(super) fn leave<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        frame: &mut B,
        packet: &Packet,
        rewrite: Option<&Rewrite>,
        hop: &NextHop<'_>,
    ) -> Result<Verdict, Stop> {
        let data = frame.data_mut();
        if let Some(Rewrite { from, to }) = rewrite
            && from != to
        {
            rewrite::translate(data, packet, from, to).ok_or(DropReason::Malformed)?;
        }
        self.deliver(fib, now_ns, frame, packet, hop)
    }

    /// Sends a packet whose addresses are right to its next hop.
    pub(super) fn deliver<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        frame: &mut B,
        packet: &Packet,
        hop: &NextHop<'_>,
    ) -> Result<Verdict, Stop> {
        let data = frame.data_mut();
        rewrite::decrement_ttl(data, packet).ok_or(DropReason::Malformed)?;
        let interface = hop.interface;
        let mac = fib.neighbor(interface.id, hop.address);
        rewrite::set_macs(data, mac.unwrap_or_default(), interface.mac)
            .ok_or(DropReason::Truncated)?;
        // Padding of a short frame is the ingress link's, not the packet's.
        frame.truncate(packet.end);
        if packet.len() > usize::from(hop.mtu) {
            self.cut(fib, now_ns, frame, packet, hop, mac.is_some())?;
        }
        let head = frame.prepend(ENCAP_LEN).ok_or(DropReason::NoHeadroom)?;
        head.copy_from_slice(&ShuntHeader::egress(interface.id).encode());
        if mac.is_some() {
            return Ok(Verdict::Transmit);
        }
        let limits = &fib.policy().limits;
        if !self
            .hold
            .push(now_ns, limits, interface.id, hop.address, frame.data())
        {
            return Err(DropReason::NeighborQueueFull.into());
        }
        self.ask_for(now_ns, hop);
        self.stats.held += 1;
        Ok(Verdict::Held)
    }

    /// Sends held packets whose neighbour is known by now, drops those that waited too long.
    pub(super) fn poll_held<O: super::Output>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        output: &mut O,
    ) -> usize {
        let changed = self.generation != fib.generation();
        self.generation = fib.generation();
        if self.hold.is_empty() || !(changed || self.hold.is_due(now_ns)) {
            return 0;
        }
        let mut done = 0;
        let mut at = 0;
        while let Some(held) = self.hold.get_mut(at) {
            if let Some(mac) = fib.neighbor(held.interface, held.address) {
                if let Some(bytes) = held.frame.get_mut(DST_MAC) {
                    bytes.copy_from_slice(&mac.0);
                }
                let frame = self.hold.take(at);
                self.send(output, &frame, &[]);
                self.hold.recycle(frame);
            } else if held.deadline_ns <= now_ns {
                let frame = self.hold.take(at);
                self.hold.recycle(frame);
                self.stats.drop(DropReason::NeighborTimeout, None);
            } else {
                at += 1;
                continue;
            }
            done += 1;
        }
        done
    }
}

/// The next hop in `vpc`'s table, which has to lie in `egress_vpc`, or in one that may be
/// crossed into: after a change of routes, a connection does not leak into another VPC.
pub(super) fn routed<'a>(
    fib: &'a Fib,
    vpc: shunt_p4::VpcId,
    egress_vpc: shunt_p4::VpcId,
    dst: std::net::IpAddr,
    hash: u32,
) -> Result<NextHop<'a>, Stop> {
    match fib.resolve(vpc, dst, hash) {
        Resolution::Via(hop) => {
            let to = hop.interface.vpc;
            if to == egress_vpc || fib.rules().may_cross(vpc, to, dst) {
                Ok(hop)
            } else {
                Err(DropReason::NoPeering.into())
            }
        }
        Resolution::Blackhole => Err(DropReason::Blackhole.into()),
        Resolution::Local | Resolution::Unreachable => Err(Stop::Answer(
            DropReason::Unreachable,
            IcmpError::Unreachable,
        )),
    }
}
