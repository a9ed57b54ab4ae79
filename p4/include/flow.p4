// SPDX-License-Identifier: Apache-2.0
// Flow: the offloaded connections, one entry a direction. The destination is rewritten
// for routing now, the source after it; `vpc` is where the packet is routed.

control Flow(inout headers_t hdr, inout metadata_t meta) {
    direct_counter(CounterType.packets_and_bytes) flow4_counter;
    direct_counter(CounterType.packets_and_bytes) flow6_counter;

    // No translation.
    action flow4_forward(bit<16> vpc) {
        flow4_counter.count();
        meta.route_vpc = vpc;
    }

    action flow4_snat(bit<16> vpc, bit<32> src, bit<16> src_port) {
        flow4_counter.count();
        meta.route_vpc = vpc;
        meta.translate = 1;
        meta.new_src4 = src;
        meta.new_src_port = src_port;
    }

    action flow4_dnat(bit<16> vpc, bit<32> dst, bit<16> dst_port) {
        flow4_counter.count();
        meta.route_vpc = vpc;
        meta.translate = 1;
        meta.new_dst4 = dst;
        meta.new_dst_port = dst_port;
    }

    // Both ends (hairpin, port forward with masquerade).
    action flow4_nat(bit<16> vpc, bit<32> src, bit<16> src_port, bit<32> dst, bit<16> dst_port) {
        flow4_counter.count();
        meta.route_vpc = vpc;
        meta.translate = 1;
        meta.new_src4 = src;
        meta.new_src_port = src_port;
        meta.new_dst4 = dst;
        meta.new_dst_port = dst_port;
    }

    action flow4_miss() {
        flow4_counter.count();
        meta.punt_reason = PUNT_FLOW_MISS;
    }

    // Key: the connection's direction as it arrives. Actions: forward as it is, or translate
    // source, destination or both. Size: two entries a connection, for half a million of them.
    // Written by the offload engine with an idle timeout. Miss: slow path.
    table flow4 {
        key = {
            meta.vpc: exact @name("vpc");
            hdr.ipv4.src: exact @name("src");
            hdr.ipv4.dst: exact @name("dst");
            meta.proto: exact @name("proto");
            meta.src_port: exact @name("src_port");
            meta.dst_port: exact @name("dst_port");
        }
        actions = {
            flow4_forward;
            flow4_snat;
            flow4_dnat;
            flow4_nat;
            flow4_miss;
        }
        const default_action = flow4_miss();
        counters = flow4_counter;
        support_timeout = true;
        size = 1048576;
    }

    action flow6_forward(bit<16> vpc) {
        flow6_counter.count();
        meta.route_vpc = vpc;
    }

    action flow6_snat(bit<16> vpc, bit<128> src, bit<16> src_port) {
        flow6_counter.count();
        meta.route_vpc = vpc;
        meta.translate = 1;
        meta.new_src6 = src;
        meta.new_src_port = src_port;
    }

    action flow6_dnat(bit<16> vpc, bit<128> dst, bit<16> dst_port) {
        flow6_counter.count();
        meta.route_vpc = vpc;
        meta.translate = 1;
        meta.new_dst6 = dst;
        meta.new_dst_port = dst_port;
    }

    action flow6_nat(bit<16> vpc, bit<128> src, bit<16> src_port, bit<128> dst, bit<16> dst_port) {
        flow6_counter.count();
        meta.route_vpc = vpc;
        meta.translate = 1;
        meta.new_src6 = src;
        meta.new_src_port = src_port;
        meta.new_dst6 = dst;
        meta.new_dst_port = dst_port;
    }

    action flow6_miss() {
        flow6_counter.count();
        meta.punt_reason = PUNT_FLOW_MISS;
    }

    // As flow4, for IPv6: key, actions, size and writer.
    table flow6 {
        key = {
            meta.vpc: exact @name("vpc");
            hdr.ipv6.src: exact @name("src");
            hdr.ipv6.dst: exact @name("dst");
            meta.proto: exact @name("proto");
            meta.src_port: exact @name("src_port");
            meta.dst_port: exact @name("dst_port");
        }
        actions = {
            flow6_forward;
            flow6_snat;
            flow6_dnat;
            flow6_nat;
            flow6_miss;
        }
        const default_action = flow6_miss();
        counters = flow6_counter;
        support_timeout = true;
        size = 1048576;
    }

    apply {
        if (hdr.ipv4.isValid()) {
            flow4.apply();
        } else {
            flow6.apply();
        }
    }
}
