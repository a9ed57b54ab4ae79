//! The first packet of a connection: policy, NAT, route, and a place in the table.

use std::net::IpAddr;

use shunt_p4::{FlowKey, Tuple, VpcId};

use super::offload::Arrived;
use super::quota::Counted;
use super::{Core, Ingress, MAX_PORT_TRIES, Rewrite, Stop, Verdict};
use crate::conntrack::{Direction, InsertError, Tracker, words};
use crate::exception::ExceptionReason;
use crate::fib::{Fib, NextHop, Resolution};
use crate::icmp::IcmpError;
use crate::nat::{Destination, LeaseError, SourceRule};
use crate::packet::{Packet, PacketBuf};
use crate::policy::{Masquerade, WhenExhausted};
use crate::stats::DropReason;

impl From<LeaseError> for DropReason {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::NoAddress => DropReason::NoPoolAddress,
            LeaseError::Exhausted => DropReason::PoolExhausted,
            LeaseError::Full | LeaseError::TooManyAddresses => DropReason::TableFull,
        }
    }
}

/// What a new connection will be, before its ports are leased.
pub(super) struct Plan<'a> {
    key: FlowKey,
    destination: Option<Destination>,
    /// The leased port that it is addressed to: VPC, address, port.
    mapping: Option<(VpcId, IpAddr, u16)>,
    source: Option<SourceRule<'a>>,
    /// Where the packet is routed.
    route_vpc: VpcId,
    hop: NextHop<'a>,
    /// It is, or has, the other half of its way at another worker (`hairpin.rs`).
    half: bool,
    tracker: Tracker,
}

/// Where a packet to an outside address goes.
#[derive(Clone, Copy)]
pub(super) struct Inward {
    pub(super) new: Destination,
    mapping: Option<(VpcId, IpAddr, u16)>,
}

/// What the tables say of a connection.
pub(super) struct Decision<'a> {
    pub(super) inward: Option<Inward>,
    pub(super) source: Option<SourceRule<'a>>,
    pub(super) route_vpc: VpcId,
    pub(super) hop: NextHop<'a>,
    /// It goes on at another worker.
    half: bool,
}

impl Core {
    pub(super) fn admit<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        ingress: &Ingress<'_>,
        frame: &mut B,
        packet: &Packet,
        key: &FlowKey,
    ) -> Result<Verdict, Stop> {
        if self.may_be_former(fib, key, ingress.hash) {
            return Err(DropReason::Starting.into());
        }
        let plan = self.plan(fib, ingress, packet, key, self.hairpinned)?;
        // Before anything is leased or remembered for a packet that cannot leave.
        self.check_leaving(packet, &plan.hop)?;
        let (vpc, dst) = plan.routed();
        self.hops.learn(fib, vpc, words(dst), dst.is_ipv6());
        let slot = self.connect(fib, now_ns, &plan)?;
        self.stats.connections_created += 1;
        let to = self.table.get(slot).map_or(key.tuple, |connection| {
            connection.translation(Direction::Forward).tuple
        });
        let arrived = Arrived::new(packet, ingress.interface, plan.hop.interface);
        self.seen(fib, now_ns, slot, Direction::Forward, &arrived);
        let rewrite = Rewrite {
            from: key.tuple,
            to,
        };
        if plan.half
            && let Some(connection) = self.table.get(slot)
            && let Some(worker) = self.across(fib, connection, Direction::Forward)
        {
            return self.cross(frame, packet, &rewrite, plan.hop.interface, worker);
        }
        self.leave(fib, now_ns, frame, packet, Some(&rewrite), &plan.hop)
    }

    /// Counts the connection, leases what it needs and puts it into the table.
    fn connect(&mut self, fib: &Fib, now_ns: u64, plan: &Plan<'_>) -> Result<u32, Stop> {
        let key = &plan.key;
        let source = (key.vpc, key.tuple.src);
        let opens = plan.tracker.state().is_half_open();
        let limits = &fib.policy().limits;
        let counted = match self.hairpinned {
            // Its first half has been held against them.
            true => self.quotas.readmit(now_ns, limits, source, opens),
            false => self.quotas.admit(now_ns, limits, source, opens)?,
        };
        let made = self.make(fib, now_ns, plan, counted);
        match &made {
            Ok(slot) => self.record(*slot),
            Err(_) => {
                self.quotas.release(counted, source);
                if opens {
                    self.quotas.half_open(key.vpc, false);
                }
            }
        }
        made
    }

    fn make(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        plan: &Plan<'_>,
        counted: Counted,
    ) -> Result<u32, Stop> {
        let tuple = &plan.key.tuple;
        let rule: &Masquerade = match plan.source {
            Some(SourceRule::Masquerade(rule)) => rule,
            Some(SourceRule::Static(address)) => {
                let source = Some((address, tuple.src_port));
                return Ok(self.insert(now_ns, plan, counted, source)?);
            }
            None => return Ok(self.insert(now_ns, plan, counted, None)?),
        };
        let mut tries = 0;
        loop {
            let leased = match self.nat.lease(fib.rules(), rule, tuple) {
                Ok(leased) => leased,
                Err(LeaseError::Exhausted) => {
                    let reason = DropReason::PoolExhausted;
                    let ipv4 = tuple.src.is_ipv4();
                    self.stats.exhaust(&rule.name, tuple.proto, ipv4);
                    return Err(match rule.when_exhausted {
                        WhenExhausted::Reject => Stop::Answer(reason, IcmpError::Prohibited),
                        WhenExhausted::Drop => reason.into(),
                    });
                }
                Err(error) => return Err(DropReason::from(error).into()),
            };
            let source = Some((leased.address, leased.port));
            tries += 1;
            match self.insert(now_ns, plan, counted, source) {
                Ok(slot) => {
                    if let Some(connection) = self.table.get_mut(slot) {
                        connection.lease = Some(leased.lease);
                    }
                    return Ok(slot);
                }
                Err(reason) => {
                    self.nat.release(leased.lease);
                    // A tuple that a connection without NAT has; another port may be free.
                    if reason != DropReason::TupleInUse || !leased.fresh || tries >= MAX_PORT_TRIES
                    {
                        return Err(reason.into());
                    }
                }
            }
        }
    }

    /// Puts the connection into the table, its source translated to `source`.
    fn insert(
        &mut self,
        now_ns: u64,
        plan: &Plan<'_>,
        counted: Counted,
        source: Option<(IpAddr, u16)>,
    ) -> Result<u32, DropReason> {
        let (keys, route_vpcs) = plan.keys(source);
        let slot = self
            .table
            .insert(now_ns, &keys, route_vpcs, plan.tracker)
            .map_err(|error| match error {
                InsertError::Full => DropReason::TableFull,
                InsertError::TupleInUse => DropReason::TupleInUse,
            })?;
        let proto = plan.key.tuple.proto;
        let peer = plan
            .mapping
            .filter(|(to, address, port)| self.nat.join(*to, *address, proto, *port));
        if let Some(connection) = self.table.get_mut(slot) {
            connection.set_counted(counted.source);
            connection.set_half(plan.half);
            connection.set_peer_vpc(peer.map(|(to, ..)| to));
        }
        Ok(slot)
    }

    /// Policy, NAT rules and route of a packet that belongs to no connection; `hairpinned`: it is
    /// from inside, by way of its first half.
    pub(super) fn plan<'a>(
        &self,
        fib: &'a Fib,
        ingress: &Ingress<'_>,
        packet: &Packet,
        key: &FlowKey,
        hairpinned: bool,
    ) -> Result<Plan<'a>, Stop> {
        let decision = self.decide(fib, ingress.hash, key, hairpinned)?;
        let translated = decision.source.is_some() || decision.inward.is_some();
        // A translated connection that we do not know has lost its port: nothing can be adopted.
        let tracker = Tracker::begin(&packet.transport)
            .or_else(|| Tracker::adopt(&packet.transport).filter(|_| !translated))
            .ok_or(DropReason::NoConnection)?;
        Ok(Plan {
            key: *key,
            destination: decision.inward.map(|inward| inward.new),
            mapping: decision.inward.and_then(|inward| inward.mapping),
            source: decision.source,
            route_vpc: decision.route_vpc,
            hop: decision.hop,
            half: decision.half || hairpinned,
            tracker,
        })
    }

    /// What policy, NAT rules and routes say of a connection's first packet, whatever its state.
    /// `trusted`: it comes from inside, wherever it arrives.
    pub(super) fn decide<'a>(
        &self,
        fib: &'a Fib,
        hash: u32,
        key: &FlowKey,
        trusted: bool,
    ) -> Result<Decision<'a>, Stop> {
        let rules = fib.rules();
        let mut inward = self.inward(fib, key.vpc, &key.tuple, trusted);
        let routed = |inward: &Option<Inward>| match inward {
            Some(Inward { new, .. }) => (new.vpc, new.address),
            None => (key.vpc, key.tuple.dst),
        };
        let (vpc, dst) = routed(&inward);
        let mut hop = way(fib, vpc, dst, hash, inward.is_some())?;
        // The VPC that it leaves to, and is translated for.
        let to = hop.interface.vpc;
        let source = rules.source(key.vpc, to, key.tuple.src);
        let mut half = false;
        if inward.is_none() && to != key.vpc && rules.is_outside(to, dst) {
            // It would come back at once (hairpinning, RFC 4787 REQ-9).
            half = source.is_some() && self.is_half(rules, to, &key.tuple);
            if half {
                // It does not leave there.
                hop.mtu = u16::MAX;
            } else {
                inward = self.inward(fib, to, &key.tuple, true);
            }
            if let Some(Inward { new, .. }) = &inward {
                hop = way(fib, new.vpc, new.address, hash, true)?;
            }
        }
        let hairpin = inward.is_some() && to != hop.interface.vpc;
        let (route_vpc, dst) = routed(&inward);
        let allowed = match hairpin {
            true => rules.may_cross(key.vpc, to, key.tuple.dst),
            false => rules.may_cross(route_vpc, hop.interface.vpc, dst),
        };
        if source.is_none() && !allowed {
            return Err(DropReason::NoPeering.into());
        }
        Ok(Decision {
            inward,
            source,
            route_vpc,
            hop,
            half,
        })
    }

    /// Whose a packet is that arrives in `vpc` from outside: by a rule, or by a leased port, if
    /// the masquerade or the sender (`trusted`: another inside host) is such that it may.
    fn inward(&self, fib: &Fib, vpc: VpcId, tuple: &Tuple, trusted: bool) -> Option<Inward> {
        if let Some(new) = fib.rules().destination(vpc, tuple) {
            let mapping = None;
            return Some(Inward { new, mapping });
        }
        let (address, port) = (tuple.dst, tuple.dst_port);
        if !trusted && !fib.rules().is_open(vpc, address, port) {
            return None;
        }
        let (inside_vpc, inside, inside_port) = self.nat.inside(vpc, address, tuple.proto, port)?;
        match fib.rules().source(inside_vpc, vpc, inside) {
            Some(SourceRule::Masquerade(rule)) if rule.gives(address, port) => {}
            // The configuration took it away: it lives on for its holders only.
            _ => return None,
        }
        let new = Destination {
            vpc: inside_vpc,
            address: inside,
            port: inside_port,
        };
        let mapping = Some((vpc, address, port));
        Some(Inward { new, mapping })
    }
}

/// The next hop of a new connection; `translated`: the destination is not the packet's own.
fn way(
    fib: &Fib,
    vpc: VpcId,
    dst: IpAddr,
    hash: u32,
    translated: bool,
) -> Result<NextHop<'_>, Stop> {
    match fib.resolve(vpc, dst, hash) {
        Resolution::Via(hop) => Ok(hop),
        Resolution::Local if !translated => Err(Stop::Kernel(ExceptionReason::Local)),
        Resolution::Blackhole => Err(DropReason::Blackhole.into()),
        Resolution::Local | Resolution::Unreachable => Err(Stop::Answer(
            DropReason::Unreachable,
            IcmpError::Unreachable,
        )),
    }
}

impl<'a> Plan<'a> {
    pub(super) const fn key(&self) -> &FlowKey {
        &self.key
    }

    pub(super) const fn tracker(&self) -> Tracker {
        self.tracker
    }

    pub(super) const fn hop(&self) -> &NextHop<'a> {
        &self.hop
    }

    /// Whether it is a half of a connection's way, or has one.
    pub(super) const fn is_half(&self) -> bool {
        self.half
    }

    pub(super) const fn source(&self) -> Option<SourceRule<'a>> {
        self.source
    }

    /// The new destination, and whether a leased port leads there rather than a rule.
    pub(super) fn destination(&self) -> Option<(Destination, bool)> {
        Some((self.destination?, self.mapping.is_some()))
    }

    /// Where its packets are routed: VPC and destination.
    pub(super) fn routed(&self) -> (VpcId, IpAddr) {
        let dst = self
            .destination
            .map_or(self.key.tuple.dst, |new| new.address);
        (self.route_vpc, dst)
    }

    /// What replies look like on arrival, the source translated to `source`.
    pub(super) fn reply(&self, source: Option<(IpAddr, u16)>) -> FlowKey {
        let mut translated = self.key.tuple;
        if let Some(new) = self.destination {
            translated.dst = new.address;
            translated.dst_port = new.port;
        }
        if let Some((address, port)) = source {
            translated.src = address;
            translated.src_port = port;
        }
        FlowKey {
            vpc: self.hop.interface.vpc,
            tuple: translated.reversed(),
        }
    }

    /// What each direction's packets look like, the source translated to `source`, and the VPCs
    /// that they are routed in.
    fn keys(&self, source: Option<(IpAddr, u16)>) -> ([FlowKey; 2], [VpcId; 2]) {
        let reply = self.reply(source);
        let egress_vpc = reply.vpc;
        // The reply is routed where its destination is known: inside, if NAT hides that.
        let reply_route_vpc = if source.is_some() {
            self.key.vpc
        } else {
            egress_vpc
        };
        ([self.key, reply], [self.route_vpc, reply_route_vpc])
    }
}
