//! Table `egress_interface`: interface → port and encapsulation.

table! {
    /// An entry of `egress_interface`.
    egress_interface => EgressInterface, plain;

    /// Which interface.
    key EgressInterfaceKey {
        /// The interface.
        interface: InterfaceId = exact 16,
    }

    /// How frames leave by it.
    action EgressInterfaceAction {
        /// As they are.
        Untagged = egress_untagged {
            /// Switch port.
            port: SwitchPort = 9,
            /// The gateway's MAC address.
            mac: MacAddr = 48,
            /// Largest IP packet, bytes.
            mtu: u16 = 16,
        },
        /// With one tag (IEEE 802.1Q).
        Vlan = egress_vlan {
            /// Switch port.
            port: SwitchPort = 9,
            /// The gateway's MAC address.
            mac: MacAddr = 48,
            /// Largest IP packet, bytes.
            mtu: u16 = 16,
            /// The tag.
            vid: VlanId = 12,
        },
        /// With two tags (IEEE 802.1ad).
        Qinq = egress_qinq {
            /// Switch port.
            port: SwitchPort = 9,
            /// The gateway's MAC address.
            mac: MacAddr = 48,
            /// Largest IP packet, bytes.
            mtu: u16 = 16,
            /// The tag next to the Ethernet addresses.
            outer: VlanId = 12,
            /// The tag behind it.
            inner: VlanId = 12,
        },
        /// In a VXLAN tunnel (RFC 7348).
        Vxlan = egress_vxlan {
            /// Switch port of the underlay.
            port: SwitchPort = 9,
            /// The gateway's MAC address inside the tunnel.
            mac: MacAddr = 48,
            /// Largest IP packet inside the tunnel, bytes.
            mtu: u16 = 16,
            /// The underlay's tag.
            vid: Option<VlanId> = 12,
            /// Network identifier.
            id: Vni = 24,
            /// The gateway's tunnel end point.
            src: Ipv4Addr = 32,
            /// The peer's tunnel end point.
            dst: Ipv4Addr = 32,
            /// The gateway's MAC address on the underlay.
            src_mac: MacAddr = 48,
            /// The MAC address of the underlay's next hop.
            dst_mac: MacAddr = 48,
        },
    }
}
