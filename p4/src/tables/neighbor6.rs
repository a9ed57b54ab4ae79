//! Table `neighbor6`: IPv6 address on a link → MAC; a mirror of the kernel's neighbours.

table! {
    /// An entry of `neighbor6`.
    neighbor6 => Neighbor6, plain;

    /// A station.
    key Neighbor6Key {
        /// The egress interface.
        interface: InterfaceId = exact 16,
        /// The gateway's address, or the destination's when it is on the link.
        address: Ipv6Addr = exact 128,
    }

    /// How to reach it.
    action Neighbor6Action {
        /// By its MAC address.
        SetNeighbor = set_neighbor {
            /// The address.
            mac: MacAddr = 48,
        },
    }
}
