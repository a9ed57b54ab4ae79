//! Table `ecmp`: the members of a group of next hops (P4Runtime 9.2.3, one-shot selector).

table! {
    /// A group: an entry of `ecmp` with its members.
    ecmp => Ecmp, members;

    /// Which group.
    key EcmpKey {
        /// The group.
        group: EcmpGroupId = exact 16,
    }

    /// What a member does.
    action EcmpAction {
        /// To a next hop.
        ToNexthop = to_nexthop {
            /// The next hop.
            nexthop: NexthopId = 32,
        },
        /// To the slow path, which answers with ICMP destination unreachable.
        Unreachable = unreachable,
    }
}
