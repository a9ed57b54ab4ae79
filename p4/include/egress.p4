// SPDX-License-Identifier: Apache-2.0
// Rewrite a routed packet, find the port of its egress interface, encapsulate; or wrap
// it for the slow path.

// NAT, TTL and MACs. Checksums of TCP, UDP and ICMPv6 are updated by the difference
// (RFC 1624, equation 3); the IPv4 header's is computed anew in ComputeChecksums.
control Rewrite(inout headers_t hdr, inout metadata_t meta) {
    bit<32> ports;        // one's complement difference of ports
    bit<32> addresses;    // and of addresses, which the pseudo header covers
    bit<32> sum;

// Carries added back in; twice, for the first may carry again.
#define FOLD(s) s = (s & 0xffff) + (s >> 16); s = (s & 0xffff) + (s >> 16)

#define PORTS_DIFFERENCE ((bit<32>)(~meta.src_port) + (bit<32>)meta.new_src_port \
                        + (bit<32>)(~meta.dst_port) + (bit<32>)meta.new_dst_port)

#define SUM4(a) ((bit<32>)(a)[31:16] + (bit<32>)(a)[15:0])

#define SUM6(a) ((bit<32>)(a)[127:112] + (bit<32>)(a)[111:96] + (bit<32>)(a)[95:80] \
               + (bit<32>)(a)[79:64] + (bit<32>)(a)[63:48] + (bit<32>)(a)[47:32] \
               + (bit<32>)(a)[31:16] + (bit<32>)(a)[15:0])

    action translate4() {
        bit<32> old_src = ~hdr.ipv4.src;
        bit<32> old_dst = ~hdr.ipv4.dst;
        ports = PORTS_DIFFERENCE;
        addresses = SUM4(old_src) + SUM4(old_dst) + SUM4(meta.new_src4) + SUM4(meta.new_dst4);
        hdr.ipv4.src = meta.new_src4;
        hdr.ipv4.dst = meta.new_dst4;
    }

    action translate6() {
        bit<128> old_src = ~hdr.ipv6.src;
        bit<128> old_dst = ~hdr.ipv6.dst;
        ports = PORTS_DIFFERENCE;
        addresses = SUM6(old_src) + SUM6(old_dst) + SUM6(meta.new_src6) + SUM6(meta.new_dst6);
        hdr.ipv6.src = meta.new_src6;
        hdr.ipv6.dst = meta.new_dst6;
    }

    action translate_tcp() {
        sum = (bit<32>)(~hdr.tcp.checksum) + ports + addresses;
        FOLD(sum);
        hdr.tcp.checksum = ~sum[15:0];
        hdr.tcp.src_port = meta.new_src_port;
        hdr.tcp.dst_port = meta.new_dst_port;
    }

    action update_udp_checksum() {
        sum = (bit<32>)(~hdr.udp.checksum) + ports + addresses;
        FOLD(sum);
        hdr.udp.checksum = ~sum[15:0];
    }

    action translate_udp_ports() {
        hdr.udp.src_port = meta.new_src_port;
        hdr.udp.dst_port = meta.new_dst_port;
    }

    // ICMP has no pseudo header.
    action translate_icmp() {
        sum = (bit<32>)(~hdr.icmp.checksum) + ports;
        FOLD(sum);
        hdr.icmp.checksum = ~sum[15:0];
        // One of the two is the identifier, the other 0 (see metadata_t).
        hdr.icmp.id = meta.new_src_port | meta.new_dst_port;
    }

    action translate_icmpv6() {
        sum = (bit<32>)(~hdr.icmp.checksum) + ports + addresses;
        FOLD(sum);
        hdr.icmp.checksum = ~sum[15:0];
        hdr.icmp.id = meta.new_src_port | meta.new_dst_port;
    }

    action forward4() {
        hdr.ipv4.ttl = hdr.ipv4.ttl - 1;
        meta.update_ipv4_checksum = 1;
        hdr.ethernet.src = meta.egress_mac;
        hdr.ethernet.dst = meta.next_mac;
    }

    action forward6() {
        hdr.ipv6.hop_limit = hdr.ipv6.hop_limit - 1;
        hdr.ethernet.src = meta.egress_mac;
        hdr.ethernet.dst = meta.next_mac;
    }

    apply {
        if (meta.translate == 1) {
            if (hdr.ipv4.isValid()) {
                translate4();
            } else {
                translate6();
            }
            if (hdr.tcp.isValid()) {
                translate_tcp();
            } else if (hdr.udp.isValid()) {
                // RFC 768: zero means that the sender computed none.
                if (hdr.udp.checksum != 0) {
                    update_udp_checksum();
                    if (hdr.udp.checksum == 0) {
                        hdr.udp.checksum = 0xffff;
                    }
                }
                translate_udp_ports();
            } else if (hdr.ipv4.isValid()) {
                translate_icmp();
            } else {
                translate_icmpv6();
            }
        }
        if (hdr.ipv4.isValid()) {
            forward4();
        } else {
            forward6();
        }
    }
}

control Leave(inout headers_t hdr,
               inout metadata_t meta,
               inout standard_metadata_t standard_metadata) {
    direct_counter(CounterType.packets_and_bytes) egress_interface_counter;

    // What the interface's encapsulation needs, kept until the packet is known to leave.
    bit<2>  tags = 0;
    bit<12> outer_vid = 0;
    bit<12> inner_vid = 0;
    bit<1>  tunnel = 0;
    bit<24> vni = 0;
    bit<32> underlay_src = 0;
    bit<32> underlay_dst = 0;
    bit<48> underlay_src_mac = 0;
    bit<48> underlay_dst_mac = 0;

    action egress_untagged(bit<9> port, bit<48> mac, bit<16> mtu) {
        egress_interface_counter.count();
        standard_metadata.egress_spec = port;
        meta.egress_mac = mac;
        meta.egress_mtu = mtu;
    }

    action egress_vlan(bit<9> port, bit<48> mac, bit<16> mtu, bit<12> vid) {
        egress_interface_counter.count();
        standard_metadata.egress_spec = port;
        meta.egress_mac = mac;
        meta.egress_mtu = mtu;
        tags = 1;
        outer_vid = vid;
    }

    action egress_qinq(bit<9> port, bit<48> mac, bit<16> mtu, bit<12> outer, bit<12> inner) {
        egress_interface_counter.count();
        standard_metadata.egress_spec = port;
        meta.egress_mac = mac;
        meta.egress_mtu = mtu;
        tags = 2;
        outer_vid = outer;
        inner_vid = inner;
    }

    // `vid` is the underlay's VLAN, 0 for none.
    action egress_vxlan(bit<9> port, bit<48> mac, bit<16> mtu, bit<12> vid, bit<24> id,
                        bit<32> src, bit<32> dst, bit<48> src_mac, bit<48> dst_mac) {
        egress_interface_counter.count();
        standard_metadata.egress_spec = port;
        meta.egress_mac = mac;
        meta.egress_mtu = mtu;
        tunnel = 1;
        outer_vid = vid;
        vni = id;
        underlay_src = src;
        underlay_dst = dst;
        underlay_src_mac = src_mac;
        underlay_dst_mac = dst_mac;
    }

    action no_egress() {
        egress_interface_counter.count();
        meta.drop_reason = DROP_NO_EGRESS;
    }

    // Key: interface. Actions: leave untagged, with one or two tags, or through a tunnel. Size:
    // one entry an interface. Written by the controller from its configuration (a tunnel's
    // underlay MACs from the kernel's neighbours). Miss: drop and count.
    table egress_interface {
        key = {
            meta.egress_interface: exact @name("interface");
        }
        actions = {
            egress_untagged;
            egress_vlan;
            egress_qinq;
            egress_vxlan;
            no_egress;
        }
        const default_action = no_egress();
        counters = egress_interface_counter;
        size = 4096;
    }

    action push_one_tag() {
        hdr.vlan_outer.setValid();
        hdr.vlan_outer.pcp = 0;
        hdr.vlan_outer.dei = 0;
        hdr.vlan_outer.vid = outer_vid;
        hdr.vlan_outer.ether_type = hdr.ethernet.ether_type;
        hdr.ethernet.ether_type = ETHERTYPE_VLAN;
    }

    action push_two_tags() {
        hdr.vlan_outer.setValid();
        hdr.vlan_outer.pcp = 0;
        hdr.vlan_outer.dei = 0;
        hdr.vlan_outer.vid = outer_vid;
        hdr.vlan_outer.ether_type = ETHERTYPE_VLAN;
        hdr.vlan_inner.setValid();
        hdr.vlan_inner.pcp = 0;
        hdr.vlan_inner.dei = 0;
        hdr.vlan_inner.vid = inner_vid;
        hdr.vlan_inner.ether_type = hdr.ethernet.ether_type;
        hdr.ethernet.ether_type = ETHERTYPE_QINQ;
    }

    // RFC 7348, over IPv4. UDP and VXLAN headers are 16 bytes, with the IPv4 header 36.
    action encap_vxlan() {
        hdr.underlay_ethernet.setValid();
        hdr.underlay_ethernet.dst = underlay_dst_mac;
        hdr.underlay_ethernet.src = underlay_src_mac;
        hdr.underlay_ethernet.ether_type = ETHERTYPE_IPV4;
        hdr.underlay_ipv4.setValid();
        hdr.underlay_ipv4.version = 4;
        hdr.underlay_ipv4.ihl = 5;
        hdr.underlay_ipv4.tos = 0;
        hdr.underlay_ipv4.total_len = meta.frame_length + 36;
        hdr.underlay_ipv4.id = 0;
        hdr.underlay_ipv4.reserved = 0;
        hdr.underlay_ipv4.dont_fragment = 1;
        hdr.underlay_ipv4.more_fragments = 0;
        hdr.underlay_ipv4.fragment_offset = 0;
        hdr.underlay_ipv4.ttl = 64;
        hdr.underlay_ipv4.proto = PROTO_UDP;
        hdr.underlay_ipv4.checksum = 0;
        hdr.underlay_ipv4.src = underlay_src;
        hdr.underlay_ipv4.dst = underlay_dst;
        hdr.underlay_udp.setValid();
        // Entropy for the underlay's ECMP, in the dynamic range.
        hdr.underlay_udp.src_port = 0xc000 | (meta.flow_hash[15:0] & 0x3fff);
        hdr.underlay_udp.dst_port = VXLAN_PORT;
        hdr.underlay_udp.length = meta.frame_length + 16;
        hdr.underlay_udp.checksum = 0;
        hdr.underlay_vxlan.setValid();
        hdr.underlay_vxlan.flags = VXLAN_FLAG_I;
        hdr.underlay_vxlan.reserved = 0;
        hdr.underlay_vxlan.vni = vni;
        hdr.underlay_vxlan.reserved2 = 0;
    }

    action tag_underlay() {
        hdr.underlay_vlan.setValid();
        hdr.underlay_vlan.pcp = 0;
        hdr.underlay_vlan.dei = 0;
        hdr.underlay_vlan.vid = outer_vid;
        hdr.underlay_vlan.ether_type = ETHERTYPE_IPV4;
        hdr.underlay_ethernet.ether_type = ETHERTYPE_VLAN;
    }

    Rewrite() rewrite;

    apply {
        egress_interface.apply();
        if (meta.drop_reason == DROP_NONE && meta.walk == 1
            && (meta.l3_length > meta.egress_mtu || meta.l3_length > meta.route_mtu)) {
            meta.punt_reason = PUNT_MTU;
        }
        if (meta.drop_reason == DROP_NONE && meta.punt_reason == PUNT_NONE) {
            if (meta.walk == 1) {
                rewrite.apply(hdr, meta);
            }
            if (tunnel == 1) {
                encap_vxlan();
                if (outer_vid != 0) {
                    tag_underlay();
                }
            } else if (tags == 1) {
                push_one_tag();
            } else if (tags == 2) {
                push_two_tags();
            }
        }
    }
}

// Towards the slow path: metered by reason, wrapped in a shunt header.
control Punt(inout headers_t hdr,
             inout metadata_t meta,
             inout standard_metadata_t standard_metadata) {
    direct_counter(CounterType.packets_and_bytes) punt_counter;
    direct_meter<bit<2>>(MeterType.packets) punt_meter;

    action to_slow_path(bit<9> port) {
        punt_counter.count();
        punt_meter.read(meta.color);
        standard_metadata.egress_spec = port;
        hdr.shunt_ethernet.setValid();
        // Locally administered; the slow path does not look at them.
        hdr.shunt_ethernet.dst = 0x020000000001;
        hdr.shunt_ethernet.src = 0x020000000002;
        hdr.shunt_ethernet.ether_type = ETHERTYPE_SHUNT;
        hdr.shunt.setValid();
        hdr.shunt.version = SHUNT_VERSION;
        hdr.shunt.reason = meta.punt_reason;
        hdr.shunt.interface = meta.interface;
        hdr.shunt.vpc = meta.vpc;
        hdr.shunt.port = (bit<16>)standard_metadata.ingress_port;
        hdr.shunt.flow_hash = meta.flow_hash;
    }

    action punt_drop() {
        punt_counter.count();
        punt_meter.read(meta.color);
        meta.drop_reason = DROP_PUNT;
    }

    action punt_miss() {
        meta.drop_reason = DROP_PUNT;
    }

    // Key: (reason, interface). Actions: to the slow path's port, or drop. Size: the 14 reasons,
    // and as many again for interfaces that have meters of their own (up to 290 of them).
    // Written by the controller, each entry with its meter. Miss: drop and count.
    table punt {
        key = {
            meta.punt_reason: exact @name("reason");
            meta.interface: ternary @name("interface");
        }
        actions = {
            to_slow_path;
            punt_drop;
            @defaultonly punt_miss;
        }
        const default_action = punt_miss();
        counters = punt_counter;
        meters = punt_meter;
        size = 4096;
    }

    apply {
        punt.apply();
        if (meta.color == 2) {
            meta.drop_reason = DROP_METER;
        }
    }
}
