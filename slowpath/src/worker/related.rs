//! ICMP errors about our connections' packets, translated outside and in (RFC 5508 section 4).

use std::net::IpAddr;

use shunt_p4::{FlowKey, Tuple};

use super::egress::routed;
use super::{Core, Ingress, Stop, Verdict};
use crate::conntrack::Translation;
use crate::exception::ExceptionReason;
use crate::fib::{Fib, Resolution};
use crate::packet::{ICMP_LEN, Packet, PacketBuf, rewrite};
use crate::stats::DropReason;

impl Core {
    /// An error quotes a packet as we sent it: the sender of the error is on the receiving side
    /// of that packet's direction. Reversed, the quoted tuple is the key of the direction that
    /// the error travels in.
    pub(super) fn related<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        ingress: &Ingress<'_>,
        frame: &mut B,
        packet: &Packet,
    ) -> Result<Verdict, Stop> {
        let Some(found) = self.related_to(fib, ingress, frame.data(), packet)? else {
            if let Some(worker) = quoted_key(ingress, frame.data(), packet)
                .and_then(|(_, _, key)| self.elsewhere(fib, &key, ingress.hash))
            {
                return Err(Stop::Handover(worker));
            }
            if ingress.stateless {
                return self.route_only(fib, now_ns, ingress, frame, packet);
            }
            // About the kernel's own packets, perhaps.
            if fib.resolve(ingress.vpc, packet.dst, ingress.hash) == Resolution::Local {
                return Err(Stop::Kernel(ExceptionReason::Local));
            }
            return Err(DropReason::IcmpUnrelated.into());
        };
        found.check(frame.data(), packet)?;
        let (src, dst) = found.addresses(packet);
        let Related {
            quoted,
            sent,
            original,
            translation,
            across,
        } = found;
        let hop = routed(
            fib,
            translation.route_vpc,
            translation.egress_vpc,
            dst,
            ingress.hash,
        )?;
        self.check_leaving(packet, &hop)?;

        let translated = translate(
            frame.data_mut(),
            packet,
            &quoted,
            &sent,
            &original,
            (src, dst),
        );
        translated.ok_or(DropReason::Malformed)?;
        if let Some(worker) = across {
            let tuple = original.reversed();
            return Ok(self.hand_to_other_half(frame, packet, &tuple, hop.interface, worker)?);
        }
        self.deliver(fib, now_ns, frame, packet, &hop)
    }

    /// The connection that an error is about.
    pub(super) fn related_to(
        &self,
        fib: &Fib,
        ingress: &Ingress<'_>,
        frame: &[u8],
        packet: &Packet,
    ) -> Result<Option<Related>, DropReason> {
        if packet.is_fragment() {
            // Its checksum cannot be checked, nor written.
            return Err(DropReason::Fragment);
        }
        if packet.end > frame.len() {
            return Err(DropReason::Truncated);
        }
        let related = |(quoted, sent, key): (Packet, Tuple, FlowKey)| {
            let (slot, direction) = self.table.find(&key)?;
            let connection = self.table.get(slot)?;
            if connection.is_revoked() {
                return None;
            }
            Some(Related {
                quoted,
                sent,
                original: connection.key(direction.other()).tuple,
                translation: connection.translation(direction),
                across: self.across(fib, connection, direction),
            })
        };
        Ok(quoted_key(ingress, frame, packet).and_then(related))
    }
}

/// The packet that an error quotes, its tuple as it was sent, and the key of the direction that
/// the error travels in.
pub(super) fn quoted_key(
    ingress: &Ingress<'_>,
    frame: &[u8],
    packet: &Packet,
) -> Option<(Packet, Tuple, FlowKey)> {
    let message = frame.get(..packet.end)?;
    let quoted = Packet::parse_quoted(message, packet.l4 + ICMP_LEN, packet.is_ipv6()).ok()?;
    let sent = quoted.tuple()?;
    let key = FlowKey {
        vpc: ingress.vpc,
        tuple: sent.reversed(),
    };
    Some((quoted, sent, key))
}

/// An error about a packet of a connection.
pub(super) struct Related {
    /// The packet that it quotes, as we sent it.
    quoted: Packet,
    sent: Tuple,
    /// That packet as its sender knows it.
    pub(super) original: Tuple,
    /// Of the direction that the error travels in.
    pub(super) translation: Translation,
    /// The worker that it goes to instead of leaving.
    pub(super) across: Option<u16>,
}

impl Related {
    /// Its checksum, before it is written anew (RFC 5508 REQ-3).
    pub(super) fn check(&self, frame: &[u8], packet: &Packet) -> Result<(), DropReason> {
        match rewrite::icmp_checksum(frame, packet) {
            Some(0) => Ok(()),
            _ => Err(DropReason::IcmpChecksum),
        }
    }

    /// Source and destination that it leaves with. A sender that sees another destination than
    /// the real one must not learn that from the error's source either (RFC 5508 REQ-4, REQ-5).
    pub(super) fn addresses(&self, packet: &Packet) -> (IpAddr, IpAddr) {
        let src = if self.original.dst == self.sent.dst {
            packet.src
        } else {
            self.original.dst
        };
        (src, self.original.src)
    }
}

fn translate(
    frame: &mut [u8],
    packet: &Packet,
    quoted: &Packet,
    sent: &Tuple,
    original: &Tuple,
    (src, dst): (IpAddr, IpAddr),
) -> Option<()> {
    rewrite::translate(frame, quoted, sent, original)?;
    rewrite::addresses(frame, packet, src, dst)?;
    rewrite::write_icmp_checksum(frame, packet, src, dst)
}
