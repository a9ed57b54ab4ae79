//! Table `classify_port`: port and tags of a frame → its interface and VPC.

table! {
    /// An entry of `classify_port`.
    classify_port => ClassifyPort, plain;

    /// Frames as they arrive on the switch.
    key ClassifyPortKey {
        /// Ingress port.
        port: SwitchPort = exact 9,
        /// The tag next to the Ethernet addresses.
        outer_vid: Option<VlanId> = exact 12,
        /// The tag behind it.
        inner_vid: Option<VlanId> = exact 12,
    }

    /// Whose they are.
    action ClassifyPortAction {
        /// An interface's.
        SetInterface = set_interface {
            /// The interface.
            interface: InterfaceId = 16,
            /// Its VPC.
            vpc: VpcId = 16,
            /// The gateway's MAC address on it.
            mac: MacAddr = 48,
            /// Whether routes alone forward.
            stateless: bool = 1,
        },
        /// The slow path's: a shunt header says what to do.
        FromSlowPath = from_slow_path,
    }
}
