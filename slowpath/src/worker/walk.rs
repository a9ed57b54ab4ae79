//! The packet walk up to the decision what a packet is.

use std::net::IpAddr;

use shunt_p4::frame::{ENCAP_LEN, ShuntHeader};
use shunt_p4::{FlowKey, InterfaceId, SwitchIndex, Tuple, VpcId};

use super::{Core, Ingress, Stop, Verdict, hairpin};
use crate::exception::{ExceptionEvent, ExceptionFrame, ExceptionReason};
use crate::fib::{Fib, Resolution};
use crate::icmp::{self, IcmpError};
use crate::packet::{Fragment, Packet, PacketBuf, PacketError, Transport, ethertype, ethertype_of};
use crate::stats::DropReason;

impl From<PacketError> for DropReason {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::Truncated => DropReason::Truncated,
            PacketError::NotIp | PacketError::Malformed | PacketError::ExtensionHeaders => {
                DropReason::Malformed
            }
            PacketError::Checksum => DropReason::Ipv4Checksum,
            PacketError::SourceRoute => DropReason::SourceRoute,
        }
    }
}

impl Core {
    /// The whole walk of one frame.
    pub(super) fn process<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        frame: &mut B,
    ) -> Verdict {
        let Some(header) = ShuntHeader::parse(frame.data()) else {
            if self.handed
                && let Some(header) = hairpin::header(frame.data())
            {
                let seen = self.take_from_other_half(fib, now_ns, header, frame);
                return self.turn(fib, now_ns, seen, frame);
            }
            self.stats.drop(DropReason::ShuntHeader, None);
            return Verdict::Drop(DropReason::ShuntHeader);
        };
        self.count_punt(header.reason);
        self.process_from(fib, now_ns, header, frame)
    }

    /// The walk of a frame whose header was read.
    pub(super) fn process_from<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        header: ShuntHeader,
        frame: &mut B,
    ) -> Verdict {
        let seen = self.walk_once(fib, now_ns, header, frame);
        self.turn(fib, now_ns, seen, frame)
    }

    /// Both halves of a connection may be this worker's.
    #[inline]
    fn turn<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        mut seen: Verdict,
        frame: &mut B,
    ) -> Verdict {
        // There, and an answer back.
        for _ in 0..2 {
            if seen != Verdict::Hairpin(self.share.worker) {
                break;
            }
            let Some(header) = hairpin::header(frame.data()) else {
                break;
            };
            seen = self.take_from_other_half(fib, now_ns, header, frame);
        }
        seen
    }

    pub(super) fn walk_once<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        header: ShuntHeader,
        frame: &mut B,
    ) -> Verdict {
        let mut ingress = match ingress(fib, self.arrival, &header) {
            Ok(ingress) => ingress,
            Err(reason) => {
                self.stats.drop(reason, VpcId::new(header.vpc));
                return Verdict::Drop(reason);
            }
        };
        ingress.stateless &= !self.hairpinned;
        let stop = match self.walk(fib, now_ns, &ingress, frame) {
            Ok(verdict) => return verdict,
            Err(stop) => stop,
        };
        match stop {
            Stop::Kernel(reason) => self.hand_to_kernel(&ingress, frame, reason),
            Stop::Handover(worker) => match frame.prepend(ENCAP_LEN) {
                Some(head) => {
                    head.copy_from_slice(&header.encode());
                    self.stats.handed_over += 1;
                    Verdict::Handover(worker)
                }
                None => {
                    let reason = DropReason::NoHeadroom;
                    self.stats.drop(reason, Some(ingress.vpc));
                    Verdict::Drop(reason)
                }
            },
            Stop::Drop(reason) => {
                self.stats.drop(reason, Some(ingress.vpc));
                Verdict::Drop(reason)
            }
            Stop::Answer(..) if self.starting => {
                // Routes may be missing yet.
                self.stats.drop(DropReason::Starting, Some(ingress.vpc));
                Verdict::Drop(DropReason::Starting)
            }
            Stop::Answer(reason, error) => {
                self.stats.drop(reason, Some(ingress.vpc));
                match self.answer(fib, now_ns, &ingress, frame, error) {
                    Some(()) if self.hairpinned => self
                        .answer_other_half(fib, &ingress, frame)
                        .unwrap_or(Verdict::Drop(reason)),
                    Some(()) => Verdict::Answered(reason),
                    None => Verdict::Drop(reason),
                }
            }
        }
    }

    fn walk<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        ingress: &Ingress<'_>,
        frame: &mut B,
    ) -> Result<Verdict, Stop> {
        let packet = read_packet(frame)?;
        let handed = self.handed;
        match self.meeting(ingress, &packet) {
            // Here it is found out whose they are.
            Some(worker) if worker == self.share.worker => self.handed = false,
            Some(worker) if !handed => return Err(Stop::Handover(worker)),
            _ => {}
        }
        let outcome = match (packet.tuple(), packet.transport) {
            (Some(tuple), _) => self.flow(fib, now_ns, ingress, frame, &packet, &tuple),
            (None, Transport::IcmpError) => self.related(fib, now_ns, ingress, frame, &packet),
            (None, _) => self.untracked(fib, now_ns, ingress, frame, &packet),
        };
        if matches!(packet.fragment, Fragment::First { .. }) && !ingress.stateless {
            self.first_fragment(fib, now_ns, ingress.vpc, &packet, outcome);
        }
        self.handed = handed;
        outcome
    }

    /// A packet that belongs to a connection, or begins one.
    fn flow<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        ingress: &Ingress<'_>,
        frame: &mut B,
        packet: &Packet,
        tuple: &Tuple,
    ) -> Result<Verdict, Stop> {
        let key = FlowKey {
            vpc: ingress.vpc,
            tuple: *tuple,
        };
        if let Some((slot, direction)) = self.table.find(&key) {
            return self.established(fib, now_ns, ingress, frame, packet, slot, direction);
        }
        if let Some(worker) = self.elsewhere(fib, &key, ingress.hash) {
            return Err(Stop::Handover(worker));
        }
        if ingress.stateless {
            return self.route_only(fib, now_ns, ingress, frame, packet);
        }
        self.admit(fib, now_ns, ingress, frame, packet, &key)
    }

    /// A packet without a tuple: a later fragment, or another protocol.
    fn untracked<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        ingress: &Ingress<'_>,
        frame: &mut B,
        packet: &Packet,
    ) -> Result<Verdict, Stop> {
        if ingress.stateless {
            return self.route_only(fib, now_ns, ingress, frame, packet);
        }
        if matches!(packet.fragment, Fragment::Later { .. }) {
            return self.later_fragment(fib, now_ns, ingress, frame, packet);
        }
        if fib.resolve(ingress.vpc, packet.dst, ingress.hash) == Resolution::Local {
            return Err(Stop::Kernel(ExceptionReason::Local));
        }
        Err(DropReason::OtherL4.into())
    }

    /// To the kernel, from the Ethernet header on.
    fn hand_to_kernel<B: PacketBuf>(
        &mut self,
        ingress: &Ingress<'_>,
        frame: &mut B,
        reason: ExceptionReason,
    ) -> Verdict {
        let data = frame.data();
        let event = ExceptionEvent::Frame(ExceptionFrame {
            interface: ingress.interface.id,
            reason,
            // The one copy and allocation on this path; it ends in a write to a tap anyway.
            frame: data.to_vec(),
        });
        match self.exception.push(event) {
            Ok(()) => {
                self.stats.exceptions_up.add(data.len());
                Verdict::Exception
            }
            Err(crate::exception::Full) => {
                self.stats
                    .drop(DropReason::ExceptionFull, Some(ingress.vpc));
                Verdict::Drop(DropReason::ExceptionFull)
            }
        }
    }

    /// Turns the frame into an ICMP error for its sender. `None`: none is to be sent.
    fn answer<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        ingress: &Ingress<'_>,
        frame: &mut B,
        error: IcmpError,
    ) -> Option<()> {
        // Stopped before anything was rewritten: it is as it arrived.
        let packet = Packet::parse(frame.data()).ok()?;
        if !icmp::may_answer(frame.data(), &packet) {
            return None;
        }
        if !self
            .icmp_limit
            .allow(now_ns, fib.policy().limits.icmp_errors_per_second)
        {
            self.stats.icmp_limited += 1;
            return None;
        }
        icmp::answer(frame, &packet, error, ingress.interface)?;
        let head = frame.prepend(ENCAP_LEN)?;
        head.copy_from_slice(&ShuntHeader::egress(ingress.interface.id).encode());
        self.stats.icmp_errors += 1;
        Some(())
    }
}

/// The packet in a frame, its header for us stripped.
pub(super) fn read_packet<B: PacketBuf>(frame: &mut B) -> Result<Packet, Stop> {
    frame.strip(ENCAP_LEN).ok_or(DropReason::Truncated)?;
    match ethertype_of(frame.data()).ok_or(DropReason::Truncated)? {
        ethertype::IPV4 | ethertype::IPV6 => {}
        ethertype::ARP => return Err(Stop::Kernel(ExceptionReason::Neighbor)),
        _ => return Err(Stop::Kernel(ExceptionReason::OtherL2)),
    }
    let packet = Packet::parse(frame.data()).map_err(DropReason::from)?;
    link_scope(frame.data(), &packet)?;
    if icmp::is_martian(packet.src) {
        return Err(DropReason::MartianSource.into());
    }
    Ok(packet)
}

/// Interface and VPC as the switch named them. What it names and software does not know, or knows
/// to be another switch's, is counted, never guessed.
pub(super) fn ingress<'a>(
    fib: &'a Fib,
    arrival: Option<SwitchIndex>,
    header: &ShuntHeader,
) -> Result<Ingress<'a>, DropReason> {
    let vpc = VpcId::new(header.vpc)
        .and_then(|id| fib.vpc(id))
        .ok_or(DropReason::UnknownVpc)?;
    let interface = InterfaceId::new(header.interface)
        .and_then(|id| fib.interface(id))
        .filter(|interface| arrival.is_none_or(|arrival| arrival == interface.switch))
        .ok_or(DropReason::UnknownInterface)?;
    if interface.vpc != vpc.id {
        return Err(DropReason::UnknownVpc);
    }
    Ok(Ingress {
        header: *header,
        interface,
        vpc: vpc.id,
        stateless: vpc.stateless,
        hash: header.flow_hash,
    })
}

/// Packets that never leave their link are for the kernel.
fn link_scope(frame: &[u8], packet: &Packet) -> Result<(), Stop> {
    if packet.transport == Transport::NeighborDiscovery {
        return Err(Stop::Kernel(ExceptionReason::Neighbor));
    }
    let group = match packet.dst {
        IpAddr::V4(dst) => dst.is_multicast() || dst.is_broadcast(),
        IpAddr::V6(dst) => dst.is_multicast(),
    };
    if group || frame.first().is_some_and(|byte| byte & 1 == 1) {
        return Err(Stop::Kernel(ExceptionReason::Multicast));
    }
    let link_local = |address: IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if link_local(packet.src) || link_local(packet.dst) {
        return Err(Stop::Kernel(ExceptionReason::Local));
    }
    Ok(())
}
