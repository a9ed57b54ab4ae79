// SPDX-License-Identifier: Apache-2.0
// Headers on the wire and the metadata that the stages hand to each other.

const bit<16> ETHERTYPE_IPV4  = 0x0800;
const bit<16> ETHERTYPE_ARP   = 0x0806;
const bit<16> ETHERTYPE_VLAN  = 0x8100;
const bit<16> ETHERTYPE_QINQ  = 0x88a8;
const bit<16> ETHERTYPE_IPV6  = 0x86dd;
// IEEE 802 local experimental: frames between the switch and the slow path.
const bit<16> ETHERTYPE_SHUNT = 0x88b5;

const bit<8> PROTO_ICMP   = 1;
const bit<8> PROTO_TCP    = 6;
const bit<8> PROTO_UDP    = 17;
const bit<8> PROTO_ICMPV6 = 58;

const bit<16> VXLAN_PORT = 4789;      // RFC 7348
const bit<8> VXLAN_FLAG_I = 0x08;     // the VNI is valid

const bit<8> SHUNT_VERSION = 1;
// In a frame from the slow path, `reason` says what to do with it.
const bit<8> COMMAND_PIPELINE = 0;    // walk the pipeline from the flow stage on
const bit<8> COMMAND_EGRESS   = 1;    // leave by `interface`, only encapsulated

header ethernet_h {
    bit<48> dst;
    bit<48> src;
    bit<16> ether_type;
}

// 12 bytes, so that the IP header of the frame behind it is 4-byte aligned.
header shunt_h {
    bit<8>  version;
    bit<8>  reason;       // to the slow path: why (punt reasons); back: a command
    bit<16> interface;    // to the slow path: ingress; back: egress (or ingress to pretend)
    bit<16> vpc;
    bit<16> port;         // ingress port of the switch
    bit<32> flow_hash;    // symmetric in source and destination; back: a tunnel's entropy
}

header vlan_h {
    bit<3>  pcp;
    bit<1>  dei;
    bit<12> vid;
    bit<16> ether_type;
}

header ipv4_h {
    bit<4>  version;
    bit<4>  ihl;
    bit<8>  tos;
    bit<16> total_len;
    bit<16> id;
    bit<1>  reserved;
    bit<1>  dont_fragment;
    bit<1>  more_fragments;
    bit<13> fragment_offset;
    bit<8>  ttl;
    bit<8>  proto;
    bit<16> checksum;
    bit<32> src;
    bit<32> dst;
}

header ipv6_h {
    bit<4>   version;
    bit<8>   traffic_class;
    bit<20>  flow_label;
    bit<16>  payload_len;
    bit<8>   next_header;
    bit<8>   hop_limit;
    bit<128> src;
    bit<128> dst;
}

header tcp_h {
    bit<16> src_port;
    bit<16> dst_port;
    bit<32> seq;
    bit<32> ack;
    bit<4>  data_offset;
    bit<4>  reserved;
    bit<1>  cwr;
    bit<1>  ece;
    bit<1>  urg;
    bit<1>  ack_flag;
    bit<1>  psh;
    bit<1>  rst;
    bit<1>  syn;
    bit<1>  fin;
    bit<16> window;
    bit<16> checksum;
    bit<16> urgent;
}

header udp_h {
    bit<16> src_port;
    bit<16> dst_port;
    bit<16> length;
    bit<16> checksum;
}

// ICMP and ICMPv6; `id` and `seq` mean something only in echo messages.
header icmp_h {
    bit<8>  type_;
    bit<8>  code;
    bit<16> checksum;
    bit<16> id;
    bit<16> seq;
}

header vxlan_h {
    bit<8>  flags;
    bit<24> reserved;
    bit<24> vni;
    bit<8>  reserved2;
}

struct headers_t {
    // Between switch and slow path.
    ethernet_h shunt_ethernet;
    shunt_h    shunt;
    // Underlay of a frame that leaves through a VXLAN tunnel.
    ethernet_h underlay_ethernet;
    vlan_h     underlay_vlan;
    ipv4_h     underlay_ipv4;
    udp_h      underlay_udp;
    vxlan_h    underlay_vxlan;
    // The frame itself; after decapsulation, what the tunnel carried.
    ethernet_h ethernet;
    vlan_h     vlan_outer;
    vlan_h     vlan_inner;
    ipv4_h     ipv4;
    ipv6_h     ipv6;
    tcp_h      tcp;
    udp_h      udp;
    icmp_h     icmp;
    // What a VXLAN frame carries, until it is decapsulated.
    vxlan_h    vxlan;
    ethernet_h inner_ethernet;
    ipv4_h     inner_ipv4;
    ipv6_h     inner_ipv6;
    tcp_h      inner_tcp;
    udp_h      inner_udp;
    icmp_h     inner_icmp;
}

// Why a packet goes to the slow path (shunt_h.reason; Rust: PuntReason).
const bit<8> PUNT_NONE        = 0;
const bit<8> PUNT_FLOW_MISS   = 1;
const bit<8> PUNT_ARP         = 2;
const bit<8> PUNT_ND          = 3;
const bit<8> PUNT_LOCAL       = 4;
const bit<8> PUNT_TTL         = 5;
const bit<8> PUNT_OPTIONS     = 6;
const bit<8> PUNT_FRAGMENT    = 7;
const bit<8> PUNT_TCP_FLAGS   = 8;
const bit<8> PUNT_MTU         = 9;
const bit<8> PUNT_UNRESOLVED  = 10;
const bit<8> PUNT_UNREACHABLE = 11;
const bit<8> PUNT_MULTICAST   = 12;
const bit<8> PUNT_OTHER_L4    = 13;
const bit<8> PUNT_OTHER_L2    = 14;

// Why a packet is dropped (index of the counter `drops`; Rust: SwitchDrop).
const bit<8> DROP_NONE          = 0;
const bit<8> DROP_PARSE         = 1;
const bit<8> DROP_CHECKSUM      = 2;
const bit<8> DROP_CLASSIFY      = 3;
const bit<8> DROP_SHUNT_HEADER  = 4;
const bit<8> DROP_NOT_FOR_US    = 5;
const bit<8> DROP_MALFORMED     = 6;
const bit<8> DROP_BLACKHOLE     = 7;
const bit<8> DROP_NO_EGRESS     = 8;
const bit<8> DROP_PUNT          = 9;
const bit<8> DROP_METER         = 10;

struct metadata_t {
    // Classification.
    bit<16>  frame_length;   // bytes, from hdr.ethernet on
    bit<16>  interface;
    bit<16>  vpc;
    bit<48>  mac;            // of the ingress interface
    bit<1>   stateless;
    bit<1>   from_slow_path;
    bit<1>   walk;           // routed packet, as opposed to a frame that only leaves
    bit<12>  outer_vid;
    bit<12>  inner_vid;
    // Verdicts; the first one wins.
    bit<8>   punt_reason;
    bit<8>   drop_reason;
    bit<2>   color;
    // The flow key. An echo request is (id, 0), its reply (0, id): the responder's
    // "port" is 0, so a reply is the request with both sides swapped, and a request
    // from outside never looks like a reply.
    bit<8>   proto;
    bit<16>  src_port;
    bit<16>  dst_port;
    bit<32>  flow_hash;
    // What the flow stage decided; applied after routing, so that a packet that is
    // punted later still reaches the slow path as it arrived.
    bit<1>   translate;
    bit<32>  new_src4;
    bit<32>  new_dst4;
    bit<128> new_src6;
    bit<128> new_dst6;
    bit<16>  new_src_port;
    bit<16>  new_dst_port;
    // Routing.
    bit<16>  route_vpc;
    bit<16>  ecmp_group;
    bit<32>  nexthop;
    bit<1>   has_nexthop;
    bit<1>   has_ecmp;
    bit<1>   gateway_is_v6;
    bit<32>  gateway4;
    bit<128> gateway6;
    bit<16>  egress_interface;
    bit<48>  next_mac;
    bit<16>  l3_length;
    bit<16>  egress_mtu;
    bit<16>  route_mtu;
    bit<48>  egress_mac;
    bit<1>   update_ipv4_checksum;
}
