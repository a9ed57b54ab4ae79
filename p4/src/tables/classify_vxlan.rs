//! Table `classify_vxlan`: underlay destination and VNI → the tunnel's interface and VPC.

table! {
    /// An entry of `classify_vxlan`.
    classify_vxlan => ClassifyVxlan, plain;

    /// VXLAN packets (RFC 7348) as they arrive in the underlay's VPC.
    key ClassifyVxlanKey {
        /// The underlay's VPC.
        vpc: VpcId = exact 16,
        /// The gateway's tunnel end point.
        underlay_dst: Ipv4Addr = exact 32,
        /// Network identifier.
        vni: Vni = exact 24,
    }

    /// Whose they are.
    action ClassifyVxlanAction {
        /// A tunnel interface's; decapsulated.
        SetTunnelInterface = set_tunnel_interface {
            /// The interface.
            interface: InterfaceId = 16,
            /// Its VPC.
            vpc: VpcId = 16,
            /// The gateway's MAC address on it.
            mac: MacAddr = 48,
            /// Whether routes alone forward.
            stateless: bool = 1,
        },
    }
}
