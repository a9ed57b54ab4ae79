//! Table `nexthop`: next hop → egress interface and gateway.

table! {
    /// An entry of `nexthop`.
    nexthop => NexthopEntry, plain;

    /// Which next hop.
    key NexthopKey {
        /// The next hop.
        nexthop: NexthopId = exact 32,
    }

    /// Where it is.
    action NexthopAction {
        /// On the link: the destination is its own next hop.
        Attached = attached {
            /// The egress interface.
            interface: InterfaceId = 16,
            /// Largest IP packet by the route, bytes; 65535 where it says nothing.
            mtu: u16 = 16,
        },
        /// An IPv4 gateway.
        Via4 = via4 {
            /// The egress interface.
            interface: InterfaceId = 16,
            /// Largest IP packet by the route, bytes; 65535 where it says nothing.
            mtu: u16 = 16,
            /// The gateway on it.
            gateway: Ipv4Addr = 32,
        },
        /// An IPv6 gateway, also of IPv4 routes (RFC 5549).
        Via6 = via6 {
            /// The egress interface.
            interface: InterfaceId = 16,
            /// Largest IP packet by the route, bytes; 65535 where it says nothing.
            mtu: u16 = 16,
            /// The gateway on it.
            gateway: Ipv6Addr = 128,
        },
        /// To the slow path, which answers with ICMP destination unreachable.
        Unreachable = unreachable,
    }
}
