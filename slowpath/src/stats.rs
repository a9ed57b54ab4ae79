//! What a worker counts.

use std::collections::HashMap;

use shunt_offload::RefuseReason;
use shunt_p4::flow::proto;
use shunt_p4::{PuntReason, VpcId};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Why the slow path did not forward a packet. Every packet that does not leave is
        /// counted under exactly one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// Every reason.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)*];

            /// Its name in output and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(DropReason::$name => $text,)* }
            }
        }
    };
}

drop_reasons! {
    /// Not a frame of the switch: another ethertype or version, or too short.
    ShuntHeader = "shunt_header";
    /// The switch named an interface that software does not know, or another switch's.
    UnknownInterface = "unknown_interface";
    /// The switch named a VPC that software does not know, or not of that interface.
    UnknownVpc = "unknown_vpc";
    /// No tables any more: the daemon stops.
    NoTables = "no_tables";
    /// Shorter than a header says.
    Truncated = "truncated";
    /// A header that no sender may write.
    Malformed = "malformed";
    /// Wrong IPv4 header checksum.
    Ipv4Checksum = "ipv4_checksum";
    /// A source route (RFC 7126, RFC 5095).
    SourceRoute = "source_route";
    /// A source address that no host has.
    MartianSource = "martian_source";
    /// A fragment whose first one was dropped, or too many that wait for their first one; of an
    /// ICMP error: any.
    Fragment = "fragment";
    /// A fragment whose first one did not come in time, or not before too many others' came.
    FragmentTimeout = "fragment_timeout";
    /// TTL or hop limit used up (answered).
    TtlExceeded = "ttl_exceeded";
    /// No route, or an unreachable one (answered).
    Unreachable = "unreachable";
    /// A blackhole route.
    Blackhole = "blackhole";
    /// It would leave through another VPC, and neither a peering nor a NAT rule allows it.
    NoPeering = "no_peering";
    /// It may be of a connection that is not taken back yet: the daemon was just started.
    Starting = "starting";
    /// Its connection was made by a rule or route that is no more, and is not yet out of the
    /// hardware.
    Revoked = "revoked";
    /// It belongs to no connection and cannot begin one.
    NoConnection = "no_connection";
    /// A protocol, or ICMP type, of which no connection is made.
    OtherL4 = "other_l4";
    /// As many connections as configured, or leases of as many addresses as a worker keeps.
    TableFull = "table_full";
    /// As many connections as its VPC may have.
    VpcConnections = "vpc_connections";
    /// As many new connections a second as its VPC may make.
    VpcRate = "vpc_rate";
    /// As many connections as its source may have.
    SourceConnections = "source_connections";
    /// As many new connections a second as its source may make.
    SourceRate = "source_rate";
    /// As many half-open TCP connections as its VPC may have.
    HalfOpen = "half_open";
    /// Another connection has the translated tuple.
    TupleInUse = "tuple_in_use";
    /// All ports of the pool are leased.
    PoolExhausted = "pool_exhausted";
    /// The pool has no address of the packet's family.
    NoPoolAddress = "no_pool_address";
    /// An ICMP error that quotes no packet of ours.
    IcmpUnrelated = "icmp_unrelated";
    /// An ICMP error with a wrong checksum (RFC 5508 REQ-3).
    IcmpChecksum = "icmp_checksum";
    /// Larger than the egress MTU, and may not be fragmented (answered).
    TooBig = "too_big";
    /// Larger than the egress MTU, and may be cut, but has options, or too many fragments wait.
    NeedsFragmentation = "needs_fragmentation";
    /// Too many packets wait for neighbours.
    NeighborQueueFull = "neighbor_queue_full";
    /// The next hop's MAC did not become known in time.
    NeighborTimeout = "neighbor_timeout";
    /// The controller does not take frames for the gateway fast enough.
    ExceptionFull = "exception_full";
    /// No room in front of the frame for the header to the switch.
    NoHeadroom = "no_headroom";
    /// No packet buffer for a frame of our own.
    NoBuffer = "no_buffer";
    /// It would leave by an interface that is gone, or whose switch comes with the next start.
    NoSwitch = "no_switch";
    /// The port does not take frames fast enough.
    TxFull = "tx_full";
    /// Its VPC sends more than its share of the worker.
    VpcQueueFull = "vpc_queue_full";
    /// The worker that it belongs to does not take frames fast enough.
    HandoverFull = "handover_full";
}

/// Number of drop reasons.
pub const DROP_REASONS: usize = DropReason::ALL.len();
const PUNT_REASONS: usize = 256;

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of frames, with the header of the slow-path port.
    pub bytes: u64,
}

impl Traffic {
    /// One more frame.
    pub fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    fn merge(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// One worker's counters, since its start.
#[derive(Clone, Debug)]
pub struct WorkerStats {
    /// Frames from the switch.
    pub received: Traffic,
    /// Frames to the switch.
    pub sent: Traffic,
    /// Frames handed to the controller, for the kernel.
    pub exceptions_up: Traffic,
    /// Frames from the controller.
    pub exceptions_down: Traffic,
    /// Frames handed over to the worker that they belong to.
    pub handed_over: u64,
    /// Packets from inside to inside that went by way of another worker.
    pub hairpinned: u64,
    /// Packets that waited for a neighbour.
    pub held: u64,
    /// Packets that were cut into fragments.
    pub cut: u64,
    /// ICMP errors sent.
    pub icmp_errors: u64,
    /// ICMP errors not sent because of the rate limit.
    pub icmp_limited: u64,
    /// TCP segments that were forwarded but, by their sequence numbers, were not their
    /// connection's and so changed nothing of its state (RFC 5961).
    pub tcp_ignored: u64,
    /// Connections begun.
    pub connections_created: u64,
    /// Connections ended.
    pub connections_ended: u64,
    /// Of those, that a change of configuration or routes contradicted.
    pub connections_revoked: u64,
    /// Connections offered to hardware.
    pub offload_installs: u64,
    /// Connections taken out of hardware.
    pub offload_removals: u64,
    /// Both entries acknowledged.
    pub offload_installed: u64,
    /// Connections that hardware lost.
    pub offload_lost: u64,
    /// Idle connections that hardware let go of for others.
    pub offload_evicted: u64,
    /// The queue to hardware was full.
    pub offload_queue_full: u64,
    /// Offers that were not made, because packets of the connection come from one switch and leave
    /// to another.
    pub offload_across: u64,
    /// Offers that were not made, because the other half of the connection's way is another
    /// worker's.
    pub offload_hairpin: u64,
    refused: [u64; RefuseReason::ALL.len()],
    punts: [u64; PUNT_REASONS],
    drops: [u64; DROP_REASONS],
    drops_by_vpc: HashMap<VpcId, [u64; DROP_REASONS], ahash::RandomState>,
    /// By masquerade and [`exhaustion`]; one is allocated at a rule's first.
    exhausted: HashMap<String, [u64; EXHAUSTIONS], ahash::RandomState>,
}

/// TCP, UDP and echo; of IPv4 and IPv6.
const EXHAUSTIONS: usize = 6;

const fn exhaustion(protocol: u8, ipv4: bool) -> usize {
    let at = match protocol {
        proto::TCP => 0,
        proto::UDP => 1,
        _ => 2,
    };
    if ipv4 { at } else { at + 3 }
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self {
            received: Traffic::default(),
            sent: Traffic::default(),
            exceptions_up: Traffic::default(),
            exceptions_down: Traffic::default(),
            handed_over: 0,
            hairpinned: 0,
            held: 0,
            cut: 0,
            icmp_errors: 0,
            icmp_limited: 0,
            tcp_ignored: 0,
            connections_created: 0,
            connections_ended: 0,
            connections_revoked: 0,
            offload_installs: 0,
            offload_removals: 0,
            offload_installed: 0,
            offload_lost: 0,
            offload_evicted: 0,
            offload_queue_full: 0,
            offload_across: 0,
            offload_hairpin: 0,
            refused: [0; RefuseReason::ALL.len()],
            punts: [0; PUNT_REASONS],
            drops: [0; DROP_REASONS],
            drops_by_vpc: HashMap::default(),
            exhausted: HashMap::default(),
        }
    }
}

impl WorkerStats {
    /// A packet was dropped; `vpc` if it was known by then.
    pub fn drop(&mut self, reason: DropReason, vpc: Option<VpcId>) {
        self.drops[reason as usize] += 1;
        if let Some(vpc) = vpc {
            self.drops_by_vpc.entry(vpc).or_insert([0; DROP_REASONS])[reason as usize] += 1;
        }
    }

    /// The switch sent a packet, and said why.
    pub fn punt(&mut self, reason: u8) {
        self.punts[usize::from(reason)] += 1;
    }

    /// Hardware refused a connection.
    pub fn refuse(&mut self, reason: RefuseReason) {
        self.refused[reason as usize] += 1;
    }

    /// A masquerade had no port for a connection of that protocol and family.
    pub fn exhaust(&mut self, rule: &str, protocol: u8, ipv4: bool) {
        let at = exhaustion(protocol, ipv4);
        match self.exhausted.get_mut(rule) {
            Some(counts) => counts[at] += 1,
            None => {
                let mut counts = [0; EXHAUSTIONS];
                counts[at] = 1;
                self.exhausted.insert(rule.to_owned(), counts);
            }
        }
    }

    /// Connections refused because a masquerade had no port for them.
    pub fn exhausted(&self, rule: &str, protocol: u8, ipv4: bool) -> u64 {
        self.exhausted
            .get(rule)
            .map_or(0, |counts| counts[exhaustion(protocol, ipv4)])
    }

    /// Packets dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Packets dropped for a reason in a VPC.
    pub fn dropped_in(&self, vpc: VpcId, reason: DropReason) -> u64 {
        self.drops_by_vpc
            .get(&vpc)
            .map_or(0, |drops| drops[reason as usize])
    }

    /// The VPCs that packets were dropped in.
    pub fn vpcs_with_drops(&self) -> impl Iterator<Item = VpcId> {
        self.drops_by_vpc.keys().copied()
    }

    /// Packets that the switch sent for a reason.
    pub fn punted(&self, reason: PuntReason) -> u64 {
        self.punts[reason as usize]
    }

    /// Connections that hardware refused for a reason.
    pub fn refused(&self, reason: RefuseReason) -> u64 {
        self.refused[reason as usize]
    }

    /// Adds another worker's.
    pub fn merge(&mut self, other: &Self) {
        self.received.merge(&other.received);
        self.sent.merge(&other.sent);
        self.exceptions_up.merge(&other.exceptions_up);
        self.exceptions_down.merge(&other.exceptions_down);
        for (mine, theirs) in [
            (&mut self.handed_over, other.handed_over),
            (&mut self.held, other.held),
            (&mut self.cut, other.cut),
            (&mut self.icmp_errors, other.icmp_errors),
            (&mut self.icmp_limited, other.icmp_limited),
            (&mut self.tcp_ignored, other.tcp_ignored),
            (&mut self.connections_created, other.connections_created),
            (&mut self.connections_ended, other.connections_ended),
            (&mut self.connections_revoked, other.connections_revoked),
            (&mut self.offload_installs, other.offload_installs),
            (&mut self.offload_removals, other.offload_removals),
            (&mut self.offload_installed, other.offload_installed),
            (&mut self.offload_lost, other.offload_lost),
            (&mut self.offload_evicted, other.offload_evicted),
            (&mut self.offload_queue_full, other.offload_queue_full),
            (&mut self.offload_across, other.offload_across),
            (&mut self.offload_hairpin, other.offload_hairpin),
            (&mut self.hairpinned, other.hairpinned),
        ] {
            *mine += theirs;
        }
        add(&mut self.refused, &other.refused);
        add(&mut self.punts, &other.punts);
        add(&mut self.drops, &other.drops);
        for (vpc, drops) in &other.drops_by_vpc {
            add(
                self.drops_by_vpc.entry(*vpc).or_insert([0; DROP_REASONS]),
                drops,
            );
        }
        for (rule, counts) in &other.exhausted {
            let mine = self.exhausted.entry(rule.clone());
            add(mine.or_insert([0; EXHAUSTIONS]), counts);
        }
    }
}

fn add<const N: usize>(mine: &mut [u64; N], theirs: &[u64; N]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine += theirs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let names: std::collections::HashSet<_> =
            DropReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), DROP_REASONS);
    }

    #[test]
    fn merging_adds_every_reason() {
        let vpc = VpcId::MIN;
        let mut a = WorkerStats::default();
        let mut b = WorkerStats::default();
        for &reason in DropReason::ALL {
            a.drop(reason, Some(vpc));
            b.drop(reason, None);
        }
        b.punt(PuntReason::Mtu as u8);
        a.exhaust("out", proto::UDP, true);
        b.exhaust("out", proto::UDP, true);
        b.exhaust("out", proto::ICMPV6, false);
        a.merge(&b);
        assert_eq!(a.exhausted("out", proto::UDP, true), 2);
        assert_eq!(a.exhausted("out", proto::UDP, false), 0);
        assert_eq!(a.exhausted("out", proto::ICMPV6, false), 1);
        assert!(
            DropReason::ALL
                .iter()
                .all(|r| a.dropped(*r) == 2 && a.dropped_in(vpc, *r) == 1)
        );
        assert_eq!(a.punted(PuntReason::Mtu), 1);
    }
}
