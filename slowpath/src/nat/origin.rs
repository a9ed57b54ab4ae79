//! Whether the rules, as they are now, would translate a connection as it is translated.
//!
//! No routes are asked: that a connection left through that VPC is told by its reply's key. Right
//! after a start routes may not be there yet, and when they are, packets go by them.

use shunt_p4::{FlowKey, Tuple, VpcId};

use super::rules::{Rules, SourceRule};
use crate::policy::Masquerade;

/// What a connection has of the rules' pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The masquerade that hides its source.
    pub source: Option<&'a Masquerade>,
    /// It is addressed to a leased port: the port's VPC, and the masquerade that leased it.
    pub peer: Option<(VpcId, &'a Masquerade)>,
    /// It would leave through a VPC and come back at once, and is translated for both.
    pub hairpin: bool,
}

impl Rules {
    /// What a connection between these keys, whose directions are routed in those VPCs, has of
    /// the pools. `None`: the rules would not have it so.
    pub fn origin(&self, keys: &[FlowKey; 2], route_vpcs: [VpcId; 2]) -> Option<Origin<'_>> {
        let [forward, reply] = keys;
        let (old, new) = (&forward.tuple, &reply.tuple.reversed());
        let family = old.src.is_ipv4();
        let families = [old.dst, new.src, new.dst];
        if old.proto != new.proto || families.iter().any(|ip| ip.is_ipv4() != family) {
            return None;
        }
        // From what NAT shows outside: it has come from another worker (worker/hairpin.rs).
        let trusted = self.is_outside(forward.vpc, old.src);
        let plain = self.inward(forward.vpc, route_vpcs[0], old, new, trusted);
        let plain = match plain {
            // Its destination is its own.
            None if same_destination(old, new) && route_vpcs[0] == forward.vpc => Some(None),
            found => found,
        };
        if let Some(peer) = plain
            && let Some(source) = self.outward(keys, route_vpcs, reply.vpc, || {
                self.may_cross(route_vpcs[0], reply.vpc, new.dst)
            })
        {
            let hairpin = false;
            return Some(Origin {
                source,
                peer,
                hairpin,
            });
        }
        let others = self.outsides().iter().filter(|to| **to != forward.vpc);
        others
            .filter(|to| self.is_outside(**to, old.dst))
            .find_map(|&to| {
                let peer = self.inward(to, route_vpcs[0], old, new, true)?;
                let crosses = || self.may_cross(forward.vpc, to, old.dst);
                let source = self.outward(keys, route_vpcs, to, crosses)?;
                let hairpin = true;
                Some(Origin {
                    source,
                    peer,
                    hairpin,
                })
            })
    }

    /// Of a packet that is let in from `outside`: the leased port that it is addressed to, if it
    /// is one. `None`: it is not let in, or not to there.
    fn inward(
        &self,
        outside: VpcId,
        route_vpc: VpcId,
        old: &Tuple,
        new: &Tuple,
        trusted: bool,
    ) -> Option<Option<(VpcId, &Masquerade)>> {
        if let Some(to) = self.destination(outside, old) {
            let there = (route_vpc, new.dst, new.dst_port);
            return ((to.vpc, to.address, to.port) == there).then_some(None);
        }
        if same_destination(old, new) {
            return None;
        }
        let (address, port) = (old.dst, old.dst_port);
        if !trusted && !self.is_open(outside, address, port) {
            return None;
        }
        match self.source(route_vpc, outside, new.dst) {
            Some(SourceRule::Masquerade(rule)) if rule.gives(address, port) => {
                Some(Some((outside, rule)))
            }
            _ => None,
        }
    }

    /// The masquerade that hides the source of what leaves through `to`, if one does. `None`: its
    /// source would be another, or it may not leave there.
    fn outward(
        &self,
        [forward, reply]: &[FlowKey; 2],
        route_vpcs: [VpcId; 2],
        to: VpcId,
        may_cross: impl FnOnce() -> bool,
    ) -> Option<Option<&Masquerade>> {
        let (old, new) = (&forward.tuple, &reply.tuple.reversed());
        let same_port = old.src_port == new.src_port;
        let back_inside = route_vpcs[1] == forward.vpc;
        match self.source(forward.vpc, to, old.src) {
            Some(SourceRule::Masquerade(rule)) => {
                let (address, port) = (new.src, new.src_port);
                let given = rule.gives(address, port)
                    && !self.is_forwarded(rule.to, address, new.proto, port);
                (given && back_inside).then_some(Some(rule))
            }
            Some(SourceRule::Static(outside)) => {
                (new.src == outside && same_port && back_inside).then_some(None)
            }
            None => {
                let same = old.src == new.src && same_port && route_vpcs[1] == reply.vpc;
                (same && may_cross()).then_some(None)
            }
        }
    }
}

fn same_destination(old: &Tuple, new: &Tuple) -> bool {
    (old.dst, old.dst_port) == (new.dst, new.dst_port)
}
