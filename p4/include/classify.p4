// SPDX-License-Identifier: Apache-2.0
// Classify: which interface and VPC a frame belongs to; decapsulate it; decide what
// software must see whatever the flow tables say.

control Classify(inout headers_t hdr,
                 inout metadata_t meta,
                 inout standard_metadata_t standard_metadata) {
    direct_counter(CounterType.packets_and_bytes) classify_port_counter;
    direct_counter(CounterType.packets_and_bytes) classify_vxlan_counter;

    // The frame arrived on `interface`, which belongs to `vpc` and answers to `mac`.
    action set_interface(bit<16> interface, bit<16> vpc, bit<48> mac, bit<1> stateless) {
        classify_port_counter.count();
        meta.interface = interface;
        meta.vpc = vpc;
        meta.mac = mac;
        meta.stateless = stateless;
        meta.walk = 1;
    }

    // The port is the slow path's: a shunt header says what to do.
    action from_slow_path() {
        classify_port_counter.count();
        meta.from_slow_path = 1;
    }

    action classify_miss() {
        classify_port_counter.count();
        meta.drop_reason = DROP_CLASSIFY;
    }

    // Key: (port, outer VLAN, inner VLAN), 0 for no tag. Actions: the frame's interface, or
    // that the slow path speaks. Size: one entry an interface. Written by the controller from
    // its configuration. Miss: drop and count.
    table classify_port {
        key = {
            standard_metadata.ingress_port: exact @name("port");
            meta.outer_vid: exact @name("outer_vid");
            meta.inner_vid: exact @name("inner_vid");
        }
        actions = {
            set_interface;
            from_slow_path;
            classify_miss;
        }
        const default_action = classify_miss();
        counters = classify_port_counter;
        size = 4096;
    }

    action set_tunnel_interface(bit<16> interface, bit<16> vpc, bit<48> mac, bit<1> stateless) {
        classify_vxlan_counter.count();
        meta.interface = interface;
        meta.vpc = vpc;
        meta.mac = mac;
        meta.stateless = stateless;
    }

    action not_a_tunnel() {
        classify_vxlan_counter.count();
    }

    // Key: (underlay VPC, underlay destination, VNI). Action: the tunnel's interface. Size: one
    // entry a tunnel. Written by the controller from its configuration. Miss: the frame stays
    // an ordinary UDP packet of the underlay.
    table classify_vxlan {
        key = {
            meta.vpc: exact @name("vpc");
            hdr.ipv4.dst: exact @name("underlay_dst");
            hdr.vxlan.vni: exact @name("vni");
        }
        actions = {
            set_tunnel_interface;
            not_a_tunnel;
        }
        const default_action = not_a_tunnel();
        counters = classify_vxlan_counter;
        size = 4096;
    }

    // Ethernet, IPv4 without options, UDP and VXLAN headers.
    action decap_vxlan() {
        meta.frame_length = meta.frame_length - 50;
        hdr.ethernet = hdr.inner_ethernet;
        hdr.vlan_outer.setInvalid();
        hdr.vlan_inner.setInvalid();
        hdr.ipv4 = hdr.inner_ipv4;
        hdr.ipv6 = hdr.inner_ipv6;
        hdr.tcp = hdr.inner_tcp;
        hdr.udp = hdr.inner_udp;
        hdr.icmp = hdr.inner_icmp;
        hdr.vxlan.setInvalid();
        hdr.inner_ethernet.setInvalid();
        hdr.inner_ipv4.setInvalid();
        hdr.inner_ipv6.setInvalid();
        hdr.inner_tcp.setInvalid();
        hdr.inner_udp.setInvalid();
        hdr.inner_icmp.setInvalid();
    }

    action pop_two_tags() {
        meta.frame_length = meta.frame_length - 8;
        hdr.ethernet.ether_type = hdr.vlan_inner.ether_type;
        hdr.vlan_outer.setInvalid();
        hdr.vlan_inner.setInvalid();
    }

    action pop_one_tag() {
        meta.frame_length = meta.frame_length - 4;
        hdr.ethernet.ether_type = hdr.vlan_outer.ether_type;
        hdr.vlan_outer.setInvalid();
    }

    action strip_shunt() {
        meta.flow_hash = hdr.shunt.flow_hash;
        meta.frame_length = meta.frame_length - 26;
        hdr.shunt_ethernet.setInvalid();
        hdr.shunt.setInvalid();
    }

    apply {
        meta.frame_length = (bit<16>)standard_metadata.packet_length;
        // Tags inside a slow-path frame belong to the frame, not to the port.
        if (hdr.shunt.isValid()) {
            meta.outer_vid = 0;
            meta.inner_vid = 0;
        }
        classify_port.apply();
        if (meta.from_slow_path == 1) {
            if (!hdr.shunt.isValid() || hdr.shunt.version != SHUNT_VERSION) {
                meta.drop_reason = DROP_SHUNT_HEADER;
            } else if (hdr.shunt.reason == COMMAND_EGRESS) {
                meta.egress_interface = hdr.shunt.interface;
            } else if (hdr.shunt.reason == COMMAND_PIPELINE) {
                meta.interface = hdr.shunt.interface;
                meta.vpc = hdr.shunt.vpc;
                meta.walk = 1;
            } else {
                meta.drop_reason = DROP_SHUNT_HEADER;
            }
            strip_shunt();
        } else if (hdr.shunt.isValid()) {
            // Nobody but the slow path may speak this ethertype.
            meta.drop_reason = DROP_SHUNT_HEADER;
        } else if (meta.drop_reason == DROP_NONE) {
            if (hdr.vlan_inner.isValid()) {
                pop_two_tags();
            } else if (hdr.vlan_outer.isValid()) {
                pop_one_tag();
            }
            if (hdr.vxlan.isValid() && hdr.ipv4.isValid() && hdr.ethernet.dst == meta.mac) {
                if (classify_vxlan.apply().hit) {
                    decap_vxlan();
                }
            }
            // A unicast frame for another station (a flooding switch on the wire).
            if (hdr.ethernet.dst != meta.mac && hdr.ethernet.dst[40:40] == 0) {
                meta.drop_reason = DROP_NOT_FOR_US;
            }
        }
    }
}

// What software must see before any table is asked.
control Inspect(inout headers_t hdr, inout metadata_t meta) {
    action echo_request_key() {
        meta.src_port = hdr.icmp.id;
        meta.dst_port = 0;
    }

    action echo_reply_key() {
        meta.src_port = 0;
        meta.dst_port = hdr.icmp.id;
    }

    bit<16> l3_available;

    apply {
        l3_available = meta.frame_length - 14;
        if (hdr.ipv4.isValid()) {
            meta.proto = hdr.ipv4.proto;
            meta.l3_length = hdr.ipv4.total_len;
            meta.new_src4 = hdr.ipv4.src;
            meta.new_dst4 = hdr.ipv4.dst;
            if (hdr.ipv4.version != 4 || hdr.ipv4.ihl < 5 || meta.l3_length < 20
                || meta.l3_length > l3_available) {
                meta.drop_reason = DROP_MALFORMED;
            } else if (hdr.ethernet.dst[40:40] == 1 || hdr.ipv4.dst[31:28] == 0xe
                       || hdr.ipv4.dst == 0xffffffff) {
                meta.punt_reason = PUNT_MULTICAST;
            } else if (hdr.ipv4.ihl != 5) {
                meta.punt_reason = PUNT_OPTIONS;
            } else if (hdr.ipv4.more_fragments == 1 || hdr.ipv4.fragment_offset != 0) {
                meta.punt_reason = PUNT_FRAGMENT;
            } else if (hdr.ipv4.ttl <= 1) {
                meta.punt_reason = PUNT_TTL;
            }
        } else if (hdr.ipv6.isValid()) {
            meta.proto = hdr.ipv6.next_header;
            meta.l3_length = hdr.ipv6.payload_len + 40;
            meta.new_src6 = hdr.ipv6.src;
            meta.new_dst6 = hdr.ipv6.dst;
            // Shorter than its header: the sum overflowed.
            if (hdr.ipv6.version != 6 || meta.l3_length < 40
                || meta.l3_length > l3_available) {
                meta.drop_reason = DROP_MALFORMED;
            } else if (hdr.icmp.isValid() && hdr.icmp.type_ >= 133 && hdr.icmp.type_ <= 137) {
                meta.punt_reason = PUNT_ND;
            } else if (hdr.ethernet.dst[40:40] == 1 || hdr.ipv6.dst[127:120] == 0xff) {
                meta.punt_reason = PUNT_MULTICAST;
            } else if (hdr.ipv6.src[127:118] == 0x3fa || hdr.ipv6.dst[127:118] == 0x3fa) {
                // Link-local (fe80::/10) never leaves its link: it is for the gateway.
                meta.punt_reason = PUNT_LOCAL;
            } else if (hdr.ipv6.hop_limit <= 1) {
                meta.punt_reason = PUNT_TTL;
            }
        } else if (hdr.ethernet.ether_type == ETHERTYPE_ARP) {
            meta.punt_reason = PUNT_ARP;
        } else {
            meta.punt_reason = PUNT_OTHER_L2;
        }

        if (meta.punt_reason == PUNT_NONE && meta.drop_reason == DROP_NONE) {
            if (hdr.tcp.isValid()) {
                meta.src_port = hdr.tcp.src_port;
                meta.dst_port = hdr.tcp.dst_port;
                if (meta.stateless == 0
                    && (hdr.tcp.syn == 1 || hdr.tcp.fin == 1 || hdr.tcp.rst == 1)) {
                    meta.punt_reason = PUNT_TCP_FLAGS;
                }
            } else if (hdr.udp.isValid()) {
                meta.src_port = hdr.udp.src_port;
                meta.dst_port = hdr.udp.dst_port;
            } else if (hdr.icmp.isValid() && hdr.icmp.code == 0
                       && ((hdr.ipv4.isValid() && hdr.icmp.type_ == 8)
                           || (hdr.ipv6.isValid() && hdr.icmp.type_ == 128))) {
                echo_request_key();
            } else if (hdr.icmp.isValid() && hdr.icmp.code == 0
                       && ((hdr.ipv4.isValid() && hdr.icmp.type_ == 0)
                           || (hdr.ipv6.isValid() && hdr.icmp.type_ == 129))) {
                echo_reply_key();
            } else if (meta.stateless == 0) {
                meta.punt_reason = PUNT_OTHER_L4;
            }
        }
        meta.new_src_port = meta.src_port;
        meta.new_dst_port = meta.dst_port;
        meta.route_vpc = meta.vpc;
    }
}

// A hash that is the same for both directions of an untranslated connection: it sees both
// ends only combined.
control FlowHash(in headers_t hdr, inout metadata_t meta) {
    action hash4() {
        hash(meta.flow_hash, HashAlgorithm.crc32, (bit<32>)0,
             { hdr.ipv4.src ^ hdr.ipv4.dst, hdr.ipv4.src + hdr.ipv4.dst,
               meta.src_port ^ meta.dst_port, meta.proto }, (bit<32>)0xffffffff);
    }

    action hash6() {
        hash(meta.flow_hash, HashAlgorithm.crc32, (bit<32>)0,
             { hdr.ipv6.src ^ hdr.ipv6.dst, hdr.ipv6.src + hdr.ipv6.dst,
               meta.src_port ^ meta.dst_port, meta.proto }, (bit<32>)0xffffffff);
    }

    apply {
        if (hdr.ipv4.isValid()) {
            hash4();
        } else if (hdr.ipv6.isValid()) {
            hash6();
        }
    }
}
