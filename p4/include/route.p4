// SPDX-License-Identifier: Apache-2.0
// Route: longest prefix match in the VPC, ECMP, next hop, neighbour. A mirror of the
// kernel's tables; a route whose next hop is an interface of another VPC carries the
// packet there.

control Route(inout headers_t hdr, inout metadata_t meta) {
    action to_nexthop(bit<32> nexthop) {
        meta.nexthop = nexthop;
        meta.has_nexthop = 1;
    }

    action to_ecmp(bit<16> group) {
        meta.ecmp_group = group;
        meta.has_ecmp = 1;
    }

    action local() {
        meta.punt_reason = PUNT_LOCAL;
    }

    action blackhole() {
        meta.drop_reason = DROP_BLACKHOLE;
    }

    // Software answers with the ICMP error.
    action unreachable() {
        meta.punt_reason = PUNT_UNREACHABLE;
    }

    // Key: (VPC, destination prefix). Actions: next hop, ECMP group, or what else a route may
    // be. Size: two full Internet tables. Written by the controller, a mirror of the kernel's
    // route tables. Miss: unreachable.
    table route4 {
        key = {
            meta.route_vpc: exact @name("vpc");
            meta.new_dst4: lpm @name("dst");
        }
        actions = {
            to_nexthop;
            to_ecmp;
            local;
            blackhole;
            unreachable;
        }
        const default_action = unreachable();
        size = 2097152;
    }

    // As route4, for IPv6. Size: two full Internet tables.
    table route6 {
        key = {
            meta.route_vpc: exact @name("vpc");
            meta.new_dst6: lpm @name("dst");
        }
        actions = {
            to_nexthop;
            to_ecmp;
            local;
            blackhole;
            unreachable;
        }
        const default_action = unreachable();
        size = 524288;
    }

    action_selector(HashAlgorithm.crc32, 32w65536, 32w16) ecmp_selector;

    // Key: group; the selector spreads by the flow hash. Action: next hop. Size: one entry a
    // group of up to 16 weighted paths. Written by the controller. A group that is missing or
    // empty: unreachable (apply, below).
    table ecmp {
        key = {
            meta.ecmp_group: exact @name("group");
            meta.flow_hash: selector;
        }
        actions = {
            to_nexthop;
            unreachable;
            @defaultonly NoAction;
        }
        implementation = ecmp_selector;
        size = 4096;
    }

    // On the link: the destination is its own next hop. `mtu` is the route's own, 0xffff where
    // it has none; the interface's counts beside it.
    action attached(bit<16> interface, bit<16> mtu) {
        meta.egress_interface = interface;
        meta.route_mtu = mtu;
        meta.gateway4 = meta.new_dst4;
        meta.gateway6 = meta.new_dst6;
        meta.gateway_is_v6 = (bit<1>)(hdr.ipv6.isValid() ? 1w1 : 1w0);
    }

    action via4(bit<16> interface, bit<16> mtu, bit<32> gateway) {
        meta.egress_interface = interface;
        meta.route_mtu = mtu;
        meta.gateway4 = gateway;
        meta.gateway_is_v6 = 0;
    }

    action via6(bit<16> interface, bit<16> mtu, bit<128> gateway) {
        meta.egress_interface = interface;
        meta.route_mtu = mtu;
        meta.gateway6 = gateway;
        meta.gateway_is_v6 = 1;
    }

    // Key: next hop id. Actions: on the link, or through a gateway of either IP version. Size:
    // one entry a next hop of the kernel's. Written by the controller before the routes that
    // use it. Miss: unreachable.
    table nexthop {
        key = {
            meta.nexthop: exact @name("nexthop");
        }
        actions = {
            attached;
            via4;
            via6;
            unreachable;
        }
        const default_action = unreachable();
        size = 65536;
    }

    action set_neighbor(bit<48> mac) {
        meta.next_mac = mac;
    }

    // Software has the kernel resolve it.
    action unresolved() {
        meta.punt_reason = PUNT_UNRESOLVED;
    }

    // Key: (egress interface, IPv4 address on its link). Action: its MAC address. Size: one
    // entry a neighbour. Written by the controller, a mirror of the kernel's neighbours.
    // Miss: slow path.
    table neighbor4 {
        key = {
            meta.egress_interface: exact @name("interface");
            meta.gateway4: exact @name("address");
        }
        actions = {
            set_neighbor;
            unresolved;
        }
        const default_action = unresolved();
        size = 65536;
    }

    // As neighbor4, for IPv6: key, actions, size and writer.
    table neighbor6 {
        key = {
            meta.egress_interface: exact @name("interface");
            meta.gateway6: exact @name("address");
        }
        actions = {
            set_neighbor;
            unresolved;
        }
        const default_action = unresolved();
        size = 65536;
    }

    apply {
        if (hdr.ipv4.isValid()) {
            route4.apply();
        } else {
            route6.apply();
        }
        if (meta.has_ecmp == 1) {
            ecmp.apply();
            if (meta.has_nexthop == 0) {
                unreachable();
            }
        }
        if (meta.has_nexthop == 1) {
            nexthop.apply();
            if (meta.punt_reason == PUNT_NONE) {
                if (meta.gateway_is_v6 == 0) {
                    neighbor4.apply();
                } else {
                    neighbor6.apply();
                }
            }
        }
    }
}
