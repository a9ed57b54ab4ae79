//! Table `flow6`: the offloaded IPv6 connections, one entry a direction.

table! {
    /// An entry of `flow6`.
    flow6 => Flow6, idle_timeout;

    /// Packets of one direction as they arrive, decapsulated.
    key Flow6Key {
        /// The ingress interface's VPC.
        vpc: VpcId = exact 16,
        /// Source address.
        src: Ipv6Addr = exact 128,
        /// Destination address.
        dst: Ipv6Addr = exact 128,
        /// IP protocol number.
        proto: u8 = exact 8,
        /// Source port, or the identifier of an echo request.
        src_port: u16 = exact 16,
        /// Destination port, or the identifier of an echo reply.
        dst_port: u16 = exact 16,
    }

    /// What becomes of them; `vpc` is where they are routed.
    action Flow6Action {
        /// No translation.
        Forward = flow6_forward {
            /// The VPC to route in.
            vpc: VpcId = 16,
        },
        /// New source.
        Snat = flow6_snat {
            /// The VPC to route in.
            vpc: VpcId = 16,
            /// New source address.
            src: Ipv6Addr = 128,
            /// New source port.
            src_port: u16 = 16,
        },
        /// New destination.
        Dnat = flow6_dnat {
            /// The VPC to route in.
            vpc: VpcId = 16,
            /// New destination address.
            dst: Ipv6Addr = 128,
            /// New destination port.
            dst_port: u16 = 16,
        },
        /// Both ends new.
        Nat = flow6_nat {
            /// The VPC to route in.
            vpc: VpcId = 16,
            /// New source address.
            src: Ipv6Addr = 128,
            /// New source port.
            src_port: u16 = 16,
            /// New destination address.
            dst: Ipv6Addr = 128,
            /// New destination port.
            dst_port: u16 = 16,
        },
    }
}
