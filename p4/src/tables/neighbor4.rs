//! Table `neighbor4`: IPv4 address on a link → MAC; a mirror of the kernel's neighbours.

table! {
    /// An entry of `neighbor4`.
    neighbor4 => Neighbor4, plain;

    /// A station.
    key Neighbor4Key {
        /// The egress interface.
        interface: InterfaceId = exact 16,
        /// The gateway's address, or the destination's when it is on the link.
        address: Ipv4Addr = exact 32,
    }

    /// How to reach it.
    action Neighbor4Action {
        /// By its MAC address.
        SetNeighbor = set_neighbor {
            /// The address.
            mac: MacAddr = 48,
        },
    }
}
