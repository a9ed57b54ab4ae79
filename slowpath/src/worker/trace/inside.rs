//! The second half of a packet's way from inside to inside.

use shunt_p4::frame::ShuntHeader;
use shunt_p4::{FlowKey, Interface, PuntReason, Tuple, flow_hash};

use super::Tracer;
use crate::packet::Packet;
use crate::worker::{Ingress, Stop, Verdict};

impl<'a> Tracer<'a> {
    /// Where a packet goes that would leave by `interface` as `tuple`, but is for a host inside.
    pub(super) fn other_half(
        &mut self,
        packet: &Packet,
        tuple: &Tuple,
        interface: &'a Interface,
        worker: u16,
    ) -> Result<Verdict, Stop> {
        let Some((ingress, key)) = self.arrives_inside(tuple, interface, worker) else {
            return Ok(Verdict::Hairpin(worker));
        };
        match self.core.table.find(&key) {
            Some((slot, direction)) => self.established(&ingress, packet, slot, direction),
            None => {
                self.step("connection", "it belongs to none that is known");
                self.admit(&ingress, packet, &key)
            }
        }
    }

    /// The same of an ICMP error about a packet of the connection whose packets in its direction
    /// are like `tuple`.
    pub(super) fn other_half_of_error(
        &mut self,
        packet: &Packet,
        tuple: &Tuple,
        interface: &'a Interface,
        worker: u16,
    ) -> Result<Verdict, Stop> {
        let Some((ingress, key)) = self.arrives_inside(tuple, interface, worker) else {
            return Ok(Verdict::Hairpin(worker));
        };
        let table = &self.core.table;
        let found = table.find(&key).and_then(|(slot, direction)| {
            let connection = table.get(slot).filter(|found| !found.is_revoked())?;
            Some(connection.translation(direction))
        });
        let to = found.ok_or(crate::stats::DropReason::IcmpUnrelated)?;
        let hop = self.routed(&ingress, to.route_vpc, to.egress_vpc, to.tuple.dst)?;
        self.leaving(packet, &hop)?;
        self.deliver(packet, &hop)
    }

    /// Where it arrives, and what it is looked for as. `None`: at another worker.
    fn arrives_inside(
        &mut self,
        tuple: &Tuple,
        interface: &'a Interface,
        worker: u16,
    ) -> Option<(Ingress<'a>, FlowKey)> {
        self.trace.egress = Some(interface.id);
        let text = format!(
            "what it is addressed to is inside: worker {worker} takes it as if it had arrived by {}",
            interface.name
        );
        self.step("hairpin", text);
        if worker != self.core.share.worker {
            return None;
        }
        self.hairpinned = true;
        let flow_hash = flow_hash(tuple);
        let key = FlowKey {
            vpc: interface.vpc,
            tuple: *tuple,
        };
        let ingress = Ingress {
            header: ShuntHeader {
                reason: PuntReason::FlowMiss as u8,
                interface: interface.id.get(),
                vpc: interface.vpc.get(),
                port: 0,
                flow_hash,
            },
            interface,
            vpc: interface.vpc,
            stateless: false,
            hash: flow_hash,
        };
        Some((ingress, key))
    }
}
