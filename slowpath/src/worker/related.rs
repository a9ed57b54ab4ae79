//! ICMP errors about our connections' packets, translated outside and in (RFC 5508 section 4).

use shunt_p4::{FlowKey, Tuple};

use super::egress::routed;
use super::{Core, Ingress, Stop, Verdict};
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
        if packet.is_fragment() {
            // Its checksum cannot be checked, nor written.
            return Err(DropReason::Fragment.into());
        }
        let message = frame
            .data()
            .get(..packet.end)
            .ok_or(DropReason::Truncated)?;
        let quoted = Packet::parse_quoted(message, packet.l4 + ICMP_LEN, packet.is_ipv6()).ok();
        let found = quoted.and_then(|quoted| {
            let sent = quoted.tuple()?;
            let key = FlowKey {
                vpc: ingress.vpc,
                tuple: sent.reversed(),
            };
            let (slot, direction) = self.table.find(&key)?;
            Some((quoted, sent, self.table.get(slot)?, direction))
        });
        let Some((quoted, sent, connection, direction)) = found else {
            if ingress.stateless {
                return self.route_only(fib, now_ns, ingress, frame, packet);
            }
            // About the kernel's own packets, perhaps.
            if fib.resolve(ingress.vpc, packet.dst, ingress.hash) == Resolution::Local {
                return Err(Stop::Kernel(ExceptionReason::Local));
            }
            return Err(DropReason::IcmpUnrelated.into());
        };
        if rewrite::icmp_checksum(frame.data(), packet) != Some(0) {
            return Err(DropReason::IcmpChecksum.into());
        }
        // The packet as its sender knows it.
        let original = connection.key(direction.other()).tuple;
        let translation = connection.translation(direction);
        // A sender that sees another destination than the real one must not learn that from the
        // error's source either (RFC 5508 REQ-4, REQ-5).
        let src = if original.dst == sent.dst {
            packet.src
        } else {
            original.dst
        };
        let dst = original.src;
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
        self.deliver(fib, now_ns, frame, packet, &hop)
    }
}

fn translate(
    frame: &mut [u8],
    packet: &Packet,
    quoted: &Packet,
    sent: &Tuple,
    original: &Tuple,
    (src, dst): (std::net::IpAddr, std::net::IpAddr),
) -> Option<()> {
    rewrite::translate(frame, quoted, sent, original)?;
    rewrite::addresses(frame, packet, src, dst)?;
    rewrite::write_icmp_checksum(frame, packet, src, dst)
}
