//! Table `flow4`: the offloaded IPv4 connections, one entry a direction.

table! {
    /// An entry of `flow4`.
    flow4 => Flow4, idle_timeout;

    /// Packets of one direction as they arrive, decapsulated.
    key Flow4Key {
        /// The ingress interface's VPC.
        vpc: VpcId = exact 16,
        /// Source address.
        src: Ipv4Addr = exact 32,
        /// Destination address.
        dst: Ipv4Addr = exact 32,
        /// IP protocol number.
        proto: u8 = exact 8,
        /// Source port, or the identifier of an echo request.
        src_port: u16 = exact 16,
        /// Destination port, or the identifier of an echo reply.
        dst_port: u16 = exact 16,
    }

    /// What becomes of them; `vpc` is where they are routed.
    action Flow4Action {
        /// No translation.
        Forward = flow4_forward {
            /// The VPC to route in.
            vpc: VpcId = 16,
        },
        /// New source.
        Snat = flow4_snat {
            /// The VPC to route in.
            vpc: VpcId = 16,
            /// New source address.
            src: Ipv4Addr = 32,
            /// New source port.
            src_port: u16 = 16,
        },
        /// New destination.
        Dnat = flow4_dnat {
            /// The VPC to route in.
            vpc: VpcId = 16,
            /// New destination address.
            dst: Ipv4Addr = 32,
            /// New destination port.
            dst_port: u16 = 16,
        },
        /// Both ends new.
        Nat = flow4_nat {
            /// The VPC to route in.
            vpc: VpcId = 16,
            /// New source address.
            src: Ipv4Addr = 32,
            /// New source port.
            src_port: u16 = 16,
            /// New destination address.
            dst: Ipv4Addr = 32,
            /// New destination port.
            dst_port: u16 = 16,
        },
    }
}
