//! The first packet of a connection: policy, NAT, route, and a place in the table.

use shunt_p4::{FlowKey, VpcId};

use super::{Core, Ingress, MAX_PORT_TRIES, Rewrite, Stop, Verdict};
use crate::conntrack::{Connection, Direction, InsertError, Offload, Tracker};
use crate::exception::ExceptionReason;
use crate::fib::{Fib, NextHop, Resolution};
use crate::icmp::IcmpError;
use crate::nat::{Destination, LeaseError, SourceRule};
use crate::packet::{Packet, PacketBuf};
use crate::policy::Masquerade;
use crate::stats::DropReason;

impl From<LeaseError> for DropReason {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::NoAddress => DropReason::NoPoolAddress,
            LeaseError::Exhausted => DropReason::PoolExhausted,
            LeaseError::Full => DropReason::TableFull,
        }
    }
}

/// What a new connection will be, before its ports are leased.
struct Plan<'a> {
    key: FlowKey,
    destination: Option<Destination>,
    source: Option<SourceRule<'a>>,
    /// Where the packet is routed.
    route_vpc: VpcId,
    hop: NextHop<'a>,
    tracker: Tracker,
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
        let plan = plan(fib, ingress, packet, key)?;
        // Before anything is leased or remembered for a packet that cannot leave.
        self.check_leaving(packet, &plan.hop)?;
        let slot = self.connect(fib, now_ns, &plan)?;
        self.stats.connections_created += 1;
        let to = self.table.get(slot).map_or(key.tuple, |connection| {
            connection.translation(Direction::Forward).tuple
        });
        self.seen(fib, now_ns, slot, Direction::Forward, packet);
        let rewrite = Rewrite {
            from: key.tuple,
            to,
        };
        self.leave(fib, now_ns, frame, packet, Some(&rewrite), &plan.hop)
    }

    /// Leases what it needs and puts the connection into the table.
    fn connect(&mut self, fib: &Fib, now_ns: u64, plan: &Plan<'_>) -> Result<u32, DropReason> {
        let rule: &Masquerade = match plan.source {
            Some(SourceRule::Masquerade(rule)) => rule,
            Some(SourceRule::Static(address)) => {
                let connection = plan.connection(now_ns, Some((address, plan.key.tuple.src_port)));
                return self.insert(connection);
            }
            None => return self.insert(plan.connection(now_ns, None)),
        };
        let mut tries = 0;
        loop {
            let leased = self.nat.lease(fib.rules(), rule, &plan.key.tuple)?;
            let fresh = leased.fresh;
            let mut connection = plan.connection(now_ns, Some((leased.address, leased.port)));
            connection.lease = Some(leased.lease);
            tries += 1;
            match self.insert(connection) {
                // A tuple that a connection without NAT has; another port may be free.
                Err(DropReason::TupleInUse) if fresh && tries < MAX_PORT_TRIES => {}
                done => return done,
            }
        }
    }

    fn insert(&mut self, connection: Connection) -> Result<u32, DropReason> {
        self.table
            .insert(connection)
            .map_err(|(error, mut connection)| {
                if let Some(lease) = connection.lease.take() {
                    self.nat.release(lease);
                }
                match error {
                    InsertError::Full => DropReason::TableFull,
                    InsertError::TupleInUse => DropReason::TupleInUse,
                }
            })
    }
}

/// Policy, destination NAT and route of a packet that belongs to no connection.
fn plan<'a>(
    fib: &'a Fib,
    ingress: &Ingress<'_>,
    packet: &Packet,
    key: &FlowKey,
) -> Result<Plan<'a>, Stop> {
    let destination = fib.rules().destination(key.vpc, &key.tuple);
    let (route_vpc, dst) = match destination {
        Some(new) => (new.vpc, new.address),
        None => (key.vpc, key.tuple.dst),
    };
    let hop = match fib.resolve(route_vpc, dst, ingress.hash) {
        Resolution::Via(hop) => hop,
        Resolution::Local if destination.is_none() => {
            return Err(Stop::Kernel(ExceptionReason::Local));
        }
        Resolution::Blackhole => return Err(DropReason::Blackhole.into()),
        Resolution::Local | Resolution::Unreachable => {
            return Err(Stop::Answer(
                DropReason::Unreachable,
                IcmpError::Unreachable,
            ));
        }
    };
    let egress_vpc = hop.interface.vpc;
    let source = fib.rules().source(key.vpc, egress_vpc, key.tuple.src);
    if source.is_none() && !fib.rules().may_cross(route_vpc, egress_vpc) {
        return Err(DropReason::NoPeering.into());
    }
    let translated = source.is_some() || destination.is_some();
    // A translated connection that we do not know has lost its port: nothing can be adopted.
    let tracker = Tracker::begin(&packet.transport)
        .or_else(|| Tracker::adopt(&packet.transport).filter(|_| !translated))
        .ok_or(DropReason::NoConnection)?;
    Ok(Plan {
        key: *key,
        destination,
        source,
        route_vpc,
        hop,
        tracker,
    })
}

impl Plan<'_> {
    /// The connection, its source translated to `source`.
    fn connection(&self, now_ns: u64, source: Option<(std::net::IpAddr, u16)>) -> Connection {
        let mut translated = self.key.tuple;
        if let Some(new) = self.destination {
            translated.dst = new.address;
            translated.dst_port = new.port;
        }
        if let Some((address, port)) = source {
            translated.src = address;
            translated.src_port = port;
        }
        let egress_vpc = self.hop.interface.vpc;
        // The reply is routed where its destination is known: inside, if NAT hides that.
        let reply_route_vpc = if source.is_some() {
            self.key.vpc
        } else {
            egress_vpc
        };
        let reply = FlowKey {
            vpc: egress_vpc,
            tuple: translated.reversed(),
        };
        Connection {
            keys: [self.key, reply],
            route_vpcs: [self.route_vpc, reply_route_vpc],
            tracker: self.tracker,
            offload: Offload::Software,
            ending: false,
            lease: None,
            created_ns: now_ns,
            software_since_ns: None,
            last_seen_ns: now_ns,
            offload_after_ns: 0,
            packets: [0; 2],
            bytes: [0; 2],
        }
    }
}
