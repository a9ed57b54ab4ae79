//! The way out: route, TTL, MTU, neighbour; hardware; and the error for who sent what has none.

use super::{Tracer, words};
use crate::conntrack::{Offload, Tracker};
use crate::fib::NextHop;
use crate::icmp::{self, IcmpError};
use crate::packet::{Packet, PacketBuf, VecBuf};
use crate::stats::DropReason;
use crate::worker::cut::pieces;
use crate::worker::egress::routed;
use crate::worker::wants::{far_enough, is_never_port};
use crate::worker::{Ingress, Stop, Verdict};

/// What says whether a connection goes into hardware.
pub(super) struct Carried {
    pub(super) protocol: u8,
    /// That it was opened to, before and after translation.
    pub(super) ports: [u16; 2],
    /// With the traced packet.
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// It comes from one switch and leaves to another.
    pub(super) across: bool,
    /// The other half of its way is another connection's.
    pub(super) half: bool,
}

impl<'a> Tracer<'a> {
    /// Where a packet that needs no new decision is routed.
    pub(super) fn routed(
        &mut self,
        ingress: &Ingress<'a>,
        vpc: shunt_p4::VpcId,
        egress_vpc: shunt_p4::VpcId,
        dst: std::net::IpAddr,
    ) -> Result<NextHop<'a>, Stop> {
        match routed(self.fib, vpc, egress_vpc, dst, ingress.hash) {
            Ok(hop) => {
                self.step("route", self.way_text(vpc, dst, &hop));
                Ok(hop)
            }
            Err(stop) => {
                self.step("route", self.no_way_text(vpc, dst, stop));
                Err(stop)
            }
        }
    }

    /// TTL and MTU.
    pub(super) fn leaving(&mut self, packet: &Packet, hop: &NextHop<'_>) -> Result<(), Stop> {
        let outcome = self.core.check_leaving(packet, hop);
        match outcome {
            Err(Stop::Answer(DropReason::TtlExceeded, _)) => {
                self.step("ttl", format!("{} is used up here", packet.ttl));
            }
            Err(_) => self.step(
                "mtu",
                format!(
                    "{} bytes are more than the {} of {}{}",
                    packet.len(),
                    hop.mtu,
                    hop.interface.name,
                    if packet.dont_fragment {
                        ", and it may not be fragmented"
                    } else {
                        "; it cannot be cut"
                    }
                ),
            ),
            Ok(()) => {
                self.step("ttl", format!("{} becomes {}", packet.ttl, packet.ttl - 1));
                let (len, mtu) = (packet.len(), hop.mtu);
                self.step(
                    "mtu",
                    match pieces(packet, mtu) {
                        1 => format!("{len} bytes of at most {mtu}"),
                        n => format!("{len} bytes of at most {mtu}: cut into {n} fragments"),
                    },
                );
            }
        }
        outcome
    }

    /// Whether the connection goes into hardware now.
    pub(super) fn offload(
        &mut self,
        offload: Offload,
        tracker: &Tracker,
        carried: &Carried,
        vpcs: [shunt_p4::VpcId; 2],
    ) {
        let policy = &self.fib.policy().offload;
        let state = tracker.state();
        let (protocol, amount) = (carried.protocol, (carried.packets, carried.bytes));
        let stateless = |vpc: &shunt_p4::VpcId| self.fib.vpc(*vpc).is_none_or(|vpc| vpc.stateless);
        let text = match offload {
            Offload::Installing | Offload::Installed if !state.is_open() => {
                "its entries leave the switch: it is no longer open".to_owned()
            }
            Offload::Installed => "both entries are in the switch: packets of it come here only \
                                   if the switch may not forward them itself"
                .to_owned(),
            Offload::Installing => "its entries are on their way to the switch".to_owned(),
            Offload::RemoveQueued | Offload::Removing => {
                "its entries are being removed from the switch".to_owned()
            }
            Offload::Software if !policy.enabled => "off by configuration".to_owned(),
            Offload::Software if vpcs.iter().any(stateless) => {
                "not between these VPCs: one of them is stateless".to_owned()
            }
            Offload::Software if is_never_port(self.fib, protocol, carried.ports) => {
                "never, by configuration: its port is one of those that stay in software".to_owned()
            }
            Offload::Software if carried.half => {
                "not where two workers share its way, between hosts inside".to_owned()
            }
            Offload::Software if carried.across => {
                "not between these interfaces: they are on different switches".to_owned()
            }
            Offload::Software if far_enough(policy, protocol, state, amount) => {
                if policy.min_bytes_per_second > 0 {
                    format!(
                        "offered to the switch, both directions, when it carries {} bytes within a \
                         second",
                        policy.min_bytes_per_second
                    )
                } else {
                    "offered to the switch now, both directions, unless it was refused a moment ago"
                        .to_owned()
                }
            }
            Offload::Software => words::waits(policy, protocol),
        };
        self.step("offload", text);
    }

    /// To the next hop, or into the queue for it.
    pub(super) fn deliver(&mut self, packet: &Packet, hop: &NextHop<'_>) -> Result<Verdict, Stop> {
        let (interface, address) = (hop.interface, hop.address);
        let pieces = pieces(packet, hop.mtu);
        if pieces > 1 && !self.core.outbox.has_room(pieces) {
            self.step("mtu", "too many fragments wait to be sent");
            return Err(DropReason::NeedsFragmentation.into());
        }
        self.trace.egress = Some(interface.id);
        if let Some(mac) = self.fib.neighbor(interface.id, address) {
            self.step(
                "neighbor",
                format!("{address} on {} is {mac}", interface.name),
            );
            return Ok(Verdict::Transmit);
        }
        let limits = &self.fib.policy().limits;
        if !self
            .core
            .hold
            .has_room(limits, interface.id, address, pieces)
        {
            self.step(
                "neighbor",
                format!("{address} is not resolved, and too many packets wait for neighbours"),
            );
            return Err(DropReason::NeighborQueueFull.into());
        }
        self.step(
            "neighbor",
            format!("{address} is not resolved: the kernel is asked, the packet waits"),
        );
        Ok(Verdict::Held)
    }

    /// The ICMP error for its sender; `None`: it gets none.
    pub(super) fn answer(
        &mut self,
        ingress: &Ingress<'a>,
        buffer: &mut VecBuf,
        error: IcmpError,
    ) -> Option<()> {
        let packet = Packet::parse(buffer.data()).ok()?;
        if !icmp::may_answer(buffer.data(), &packet) {
            self.step("icmp", "such a packet is never answered with an error");
            return None;
        }
        let rate = self.fib.policy().limits.icmp_errors_per_second;
        if !self.core.icmp_limit.clone().allow(self.now_ns, rate) {
            self.step(
                "icmp",
                format!("no error: {rate} a second have been sent already"),
            );
            return None;
        }
        if icmp::answer(buffer, &packet, error, ingress.interface).is_none() {
            self.step(
                "icmp",
                format!(
                    "no error: {} has no address to send it from",
                    ingress.interface.name
                ),
            );
            return None;
        }
        self.step(
            "icmp",
            format!("its sender is told: {}", words::error(error)),
        );
        Some(())
    }
}
