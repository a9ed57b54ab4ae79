//! Which worker a packet is for, where there are several.
//!
//! ```text
//!   packet ──▶ a connection of mine? ──yes──▶ mine
//!                     │ no: whose would it be?
//!                     ├── to a leased port ─────────▶ the worker that has the port's block
//!                     ├── its source is masqueraded ▶ by the inside socket: one mapping for all its connections
//!                     └── else ─────────────────────▶ by both ends, the same for either direction
//! ```
//!
//! A reply is a packet like any other here, so each rule gives for it what it gave for the
//! connection's first packet. Where that is told only by the first packet (a forwarded port), the
//! question is asked about the reply that it would have. Fragments, whose ports only the first one
//! has, meet at a worker of their own before (`fragment.rs`). A connection is only made by its owner,
//! so workers share nothing: no connection, no port, no lock.

use std::net::IpAddr;

use shunt_p4::{FlowKey, Tuple, VpcId};

use super::Core;
use crate::conntrack::words;
use crate::fib::{Fib, Resolution};
use crate::nat::{Origin, PortShare, Rules, SourceRule};

impl Core {
    /// The other worker that a packet without a connection here belongs to; `None`: it is ours.
    #[inline]
    pub(super) fn elsewhere(&self, fib: &Fib, key: &FlowKey, hash: u32) -> Option<u16> {
        if self.share.workers <= 1 || self.handed || self.ours {
            return None;
        }
        let owner = self.owner(fib.rules(), key, |vpc, dst, _| egress(fib, vpc, dst, hash));
        (owner != self.share.worker).then_some(owner)
    }

    /// Whose a connection is that leaves through the VPC of its reply. `None`: its leased port is
    /// one worker's, the inside socket that has it another's.
    pub(super) fn owner_of(
        &self,
        rules: &Rules,
        [forward, reply]: &[FlowKey; 2],
        origin: &Origin<'_>,
    ) -> Option<u16> {
        let (old, new) = (&forward.tuple, &reply.tuple.reversed());
        if self.share.workers <= 1 {
            return Some(self.share.worker);
        }
        let of_lease = |port, vpc, address, inside_port| {
            let by_port = PortShare::owner(port, self.share.workers);
            let by_socket = self.by_socket(vpc, address, inside_port, old.proto);
            (by_port == by_socket).then_some(by_port)
        };
        let source = origin
            .source
            .map(|rule| of_lease(new.src_port, rule.vpc, old.src, old.src_port));
        let peer = origin
            .peer
            .map(|(_, rule)| of_lease(old.dst_port, rule.vpc, new.dst, new.dst_port));
        match (source, peer) {
            (Some(source), Some(peer)) => source.filter(|source| peer == Some(*source)),
            (Some(owner), None) | (None, Some(owner)) => owner,
            (None, None) => Some(self.owner(rules, forward, |_, _, back| {
                Some(if back { forward.vpc } else { reply.vpc })
            })),
        }
    }

    /// `egress`: the VPC through which a destination is reached in a VPC; of the packet, or
    /// (`true`) of its reply.
    pub(super) fn owner(
        &self,
        rules: &Rules,
        key: &FlowKey,
        egress: impl Fn(VpcId, IpAddr, bool) -> Option<VpcId>,
    ) -> u16 {
        let (vpc, tuple) = (key.vpc, &key.tuple);
        let Some(new) = rules.destination(vpc, tuple) else {
            return self.owner_out(rules, vpc, tuple, |vpc, dst| egress(vpc, dst, false));
        };
        let Some(to) = egress(new.vpc, new.address, false) else {
            return self.by_ends(tuple);
        };
        let src = match rules.source(vpc, to, tuple.src) {
            Some(SourceRule::Masquerade(_)) => {
                return self.by_socket(vpc, tuple.src, tuple.src_port, tuple.proto);
            }
            Some(SourceRule::Static(outside)) => outside,
            None => tuple.src,
        };
        let reply = Tuple {
            src: new.address,
            dst: src,
            src_port: new.port,
            dst_port: tuple.src_port,
            proto: tuple.proto,
        };
        self.owner_out(rules, to, &reply, |vpc, dst| egress(vpc, dst, true))
    }

    /// Of a packet whose destination no rule forwards.
    fn owner_out(
        &self,
        rules: &Rules,
        vpc: VpcId,
        tuple: &Tuple,
        egress: impl Fn(VpcId, IpAddr) -> Option<VpcId>,
    ) -> u16 {
        if rules.is_pooled(vpc, tuple.dst, tuple.dst_port) {
            return PortShare::owner(tuple.dst_port, self.share.workers);
        }
        // As its receiver knows it.
        let (route_vpc, dst) = rules.inside(vpc, tuple.dst).unwrap_or((vpc, tuple.dst));
        let inner = Tuple { dst, ..*tuple };
        let Some(to) = egress(route_vpc, dst) else {
            return self.by_ends(&inner);
        };
        let hidden = |from, to, address| {
            matches!(
                rules.source(from, to, address),
                Some(SourceRule::Masquerade(_))
            )
        };
        if hidden(vpc, to, tuple.src) {
            self.by_socket(vpc, tuple.src, tuple.src_port, tuple.proto)
        } else if hidden(to, vpc, dst) {
            // The other end would be hidden if it began: that is how its packets are judged.
            self.by_socket(to, dst, tuple.dst_port, tuple.proto)
        } else {
            self.by_ends(&inner)
        }
    }

    fn by_socket(&self, vpc: VpcId, address: IpAddr, port: u16, proto: u8) -> u16 {
        self.by_socket_words(vpc, words(address), port, proto)
    }

    /// Of the inside socket that a masquerade hides.
    #[inline]
    pub(super) fn by_socket_words(
        &self,
        vpc: VpcId,
        address: [u64; 2],
        port: u16,
        proto: u8,
    ) -> u16 {
        let rest = u64::from(vpc.get()) << 32 | u64::from(port) << 8 | u64::from(proto);
        self.worker(self.spread.words(address, [rest, 0], 1))
    }

    /// Of a packet in fragments, whatever their ports.
    pub(super) fn by_packet(&self, ends: [IpAddr; 2], rest: u64) -> u16 {
        let [src, dst] = ends.map(words);
        self.worker(self.spread.words(src, dst, rest))
    }

    /// Their sum does not tell which one sent.
    pub(super) fn by_ends(&self, tuple: &Tuple) -> u16 {
        let end = |address, port: u16| {
            let rest = u64::from(port) << 8 | u64::from(tuple.proto);
            self.spread.words(words(address), [rest, 0], 2)
        };
        let (src, dst) = (
            end(tuple.src, tuple.src_port),
            end(tuple.dst, tuple.dst_port),
        );
        self.worker(src.wrapping_add(dst))
    }

    fn worker(&self, hash: u64) -> u16 {
        // Less than the number of workers.
        (((hash >> 32) * u64::from(self.share.workers)) >> 32) as u16
    }
}

/// The VPC of the interface that a packet leaves by.
pub(super) fn egress(fib: &Fib, vpc: VpcId, dst: IpAddr, hash: u32) -> Option<VpcId> {
    match fib.resolve(vpc, dst, hash) {
        Resolution::Via(hop) => Some(hop.interface.vpc),
        _ => None,
    }
}
