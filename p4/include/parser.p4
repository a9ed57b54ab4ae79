// SPDX-License-Identifier: Apache-2.0
// Parser: Ethernet (behind a shunt header or not), up to two VLAN tags, IPv4, IPv6,
// TCP, UDP, ICMP, ICMPv6, and VXLAN with one inner frame.
// L4 is parsed only where a flow can be made of it: not behind IP options, not in fragments.
// A header that is cut short is an error, and its packet dropped.

parser ShuntParser(packet_in packet,
                   out headers_t hdr,
                   inout metadata_t meta,
                   inout standard_metadata_t standard_metadata) {
    state start {
        transition select(packet.lookahead<ethernet_h>().ether_type) {
            ETHERTYPE_SHUNT: parse_shunt;
            default: parse_ethernet;
        }
    }

    state parse_shunt {
        packet.extract(hdr.shunt_ethernet);
        packet.extract(hdr.shunt);
        transition parse_ethernet;
    }

    state parse_ethernet {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.ether_type) {
            ETHERTYPE_VLAN: parse_vlan_outer;
            ETHERTYPE_QINQ: parse_vlan_outer;
            ETHERTYPE_IPV4: parse_ipv4;
            ETHERTYPE_IPV6: parse_ipv6;
            default: accept;
        }
    }

    state parse_vlan_outer {
        packet.extract(hdr.vlan_outer);
        meta.outer_vid = hdr.vlan_outer.vid;
        transition select(hdr.vlan_outer.ether_type) {
            ETHERTYPE_VLAN: parse_vlan_inner;
            ETHERTYPE_IPV4: parse_ipv4;
            ETHERTYPE_IPV6: parse_ipv6;
            default: accept;
        }
    }

    state parse_vlan_inner {
        packet.extract(hdr.vlan_inner);
        meta.inner_vid = hdr.vlan_inner.vid;
        transition select(hdr.vlan_inner.ether_type) {
            ETHERTYPE_IPV4: parse_ipv4;
            ETHERTYPE_IPV6: parse_ipv6;
            default: accept;
        }
    }

    state parse_ipv4 {
        packet.extract(hdr.ipv4);
        transition select(hdr.ipv4.ihl, hdr.ipv4.more_fragments,
                          hdr.ipv4.fragment_offset, hdr.ipv4.proto) {
            (5, 0, 0, PROTO_TCP): parse_tcp;
            (5, 0, 0, PROTO_UDP): parse_udp;
            (5, 0, 0, PROTO_ICMP): parse_icmp;
            default: accept;
        }
    }

    state parse_ipv6 {
        packet.extract(hdr.ipv6);
        transition select(hdr.ipv6.next_header) {
            PROTO_TCP: parse_tcp;
            PROTO_UDP: parse_udp;
            PROTO_ICMPV6: parse_icmp;
            default: accept;
        }
    }

    state parse_tcp {
        packet.extract(hdr.tcp);
        transition accept;
    }

    state parse_icmp {
        packet.extract(hdr.icmp);
        transition accept;
    }

    state parse_udp {
        packet.extract(hdr.udp);
        // The port alone says little: it may be a NAT's choice, and the payload anything.
        // An inner frame makes the UDP length 30 and more; shorter than 32 is no use.
        transition select(hdr.udp.dst_port, hdr.udp.length[15:5]) {
            (VXLAN_PORT, 0): accept;
            (VXLAN_PORT, _): look_for_vxlan;
            default: accept;
        }
    }

    // RFC 7348: the flag I is set; all the other bits are ignored on receipt.
    state look_for_vxlan {
        transition select(packet.lookahead<bit<8>>()) {
            VXLAN_FLAG_I &&& VXLAN_FLAG_I: parse_vxlan;
            default: accept;
        }
    }

    state parse_vxlan {
        packet.extract(hdr.vxlan);
        packet.extract(hdr.inner_ethernet);
        transition select(hdr.inner_ethernet.ether_type) {
            ETHERTYPE_IPV4: parse_inner_ipv4;
            ETHERTYPE_IPV6: parse_inner_ipv6;
            default: accept;
        }
    }

    state parse_inner_ipv4 {
        packet.extract(hdr.inner_ipv4);
        transition select(hdr.inner_ipv4.ihl, hdr.inner_ipv4.more_fragments,
                          hdr.inner_ipv4.fragment_offset, hdr.inner_ipv4.proto) {
            (5, 0, 0, PROTO_TCP): parse_inner_tcp;
            (5, 0, 0, PROTO_UDP): parse_inner_udp;
            (5, 0, 0, PROTO_ICMP): parse_inner_icmp;
            default: accept;
        }
    }

    state parse_inner_ipv6 {
        packet.extract(hdr.inner_ipv6);
        transition select(hdr.inner_ipv6.next_header) {
            PROTO_TCP: parse_inner_tcp;
            PROTO_UDP: parse_inner_udp;
            PROTO_ICMPV6: parse_inner_icmp;
            default: accept;
        }
    }

    state parse_inner_tcp {
        packet.extract(hdr.inner_tcp);
        transition accept;
    }

    state parse_inner_udp {
        packet.extract(hdr.inner_udp);
        transition accept;
    }

    state parse_inner_icmp {
        packet.extract(hdr.inner_icmp);
        transition accept;
    }
}
