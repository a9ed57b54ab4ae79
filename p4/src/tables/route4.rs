//! Table `route4`: longest prefix match in a VPC; a mirror of the kernel's IPv4 routes.

table! {
    /// An entry of `route4`.
    route4 => Route4, plain;

    /// Destinations in a VPC.
    key Route4Key {
        /// The VPC.
        vpc: VpcId = exact 16,
        /// The prefix; bits behind its length are ignored.
        dst: Ipv4Net = lpm 32,
    }

    /// Where they lead.
    action Route4Action {
        /// To one next hop.
        ToNexthop = to_nexthop {
            /// The next hop.
            nexthop: NexthopId = 32,
        },
        /// To one of a group of next hops, by flow hash.
        ToEcmp = to_ecmp {
            /// The group.
            group: EcmpGroupId = 16,
        },
        /// The gateway itself: to the slow path.
        Local = local,
        /// Dropped silently.
        Blackhole = blackhole,
        /// To the slow path, which answers with ICMP destination unreachable.
        Unreachable = unreachable,
    }
}
