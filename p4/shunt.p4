// SPDX-License-Identifier: Apache-2.0
// shunt: classify, decapsulate, forward the flows that the slow path has offloaded.
// The hardware is a cache of the slow path's connection table: a miss is always correct.
//
// After a change, compile in this folder and commit the results. p4c warns once, that its bmv2
// target has no default action for tables with an action selector; p4c itself adds the one it
// warns of, to each such table:
//   p4c-bm2-ss --p4runtime-files shunt.p4info.txtpb -o shunt.json shunt.p4
//
// Ingress, in order: Classify → Inspect → FlowHash → Flow → Route → Leave, or Punt.
#include <core.p4>
#include <v1model.p4>

#include "include/headers.p4"
#include "include/parser.p4"
#include "include/classify.p4"
#include "include/flow.p4"
#include "include/route.p4"
#include "include/egress.p4"

// Only the header's own bytes: nothing of the payload is read.
#define IPV4_WORDS(h) { h.version, h.ihl, h.tos, h.total_len, h.id, h.reserved, \
                        h.dont_fragment, h.more_fragments, h.fragment_offset, \
                        h.ttl, h.proto, h.src, h.dst }

control VerifyChecksums(inout headers_t hdr, inout metadata_t meta) {
    apply {
        verify_checksum(hdr.ipv4.isValid() && hdr.ipv4.ihl == 5,
                        IPV4_WORDS(hdr.ipv4), hdr.ipv4.checksum, HashAlgorithm.csum16);
        verify_checksum(hdr.inner_ipv4.isValid() && hdr.inner_ipv4.ihl == 5,
                        IPV4_WORDS(hdr.inner_ipv4), hdr.inner_ipv4.checksum,
                        HashAlgorithm.csum16);
    }
}

control ShuntIngress(inout headers_t hdr,
                inout metadata_t meta,
                inout standard_metadata_t standard_metadata) {
    // Packets and bytes dropped, by reason (DROP_* in headers.p4).
    counter(32w16, CounterType.packets_and_bytes) drops;

    Classify() classify;
    Inspect() inspect;
    FlowHash() flow_hash;
    Flow() flow;
    Route() route;
    Leave() leave;
    Punt() punt;

    apply {
        if (standard_metadata.parser_error != error.NoError) {
            meta.drop_reason = DROP_PARSE;
        } else if (standard_metadata.checksum_error == 1) {
            meta.drop_reason = DROP_CHECKSUM;
        } else {
            classify.apply(hdr, meta, standard_metadata);
            if (meta.walk == 1 && meta.drop_reason == DROP_NONE) {
                inspect.apply(hdr, meta);
                flow_hash.apply(hdr, meta);
                if (meta.punt_reason == PUNT_NONE && meta.drop_reason == DROP_NONE
                    && meta.stateless == 0) {
                    flow.apply(hdr, meta);
                }
                if (meta.punt_reason == PUNT_NONE && meta.drop_reason == DROP_NONE) {
                    route.apply(hdr, meta);
                }
            }
            if (meta.punt_reason == PUNT_NONE && meta.drop_reason == DROP_NONE) {
                leave.apply(hdr, meta, standard_metadata);
            }
        }
        if (meta.punt_reason != PUNT_NONE && meta.drop_reason == DROP_NONE) {
            punt.apply(hdr, meta, standard_metadata);
        }
        if (meta.drop_reason != DROP_NONE) {
            drops.count((bit<32>)meta.drop_reason);
            mark_to_drop(standard_metadata);
        }
    }
}

control ShuntEgress(inout headers_t hdr,
                      inout metadata_t meta,
                      inout standard_metadata_t standard_metadata) {
    apply { }
}

control ComputeChecksums(inout headers_t hdr, inout metadata_t meta) {
    apply {
        update_checksum(meta.update_ipv4_checksum == 1 && hdr.ipv4.isValid(),
                        IPV4_WORDS(hdr.ipv4), hdr.ipv4.checksum, HashAlgorithm.csum16);
        update_checksum(hdr.underlay_ipv4.isValid(),
                        IPV4_WORDS(hdr.underlay_ipv4), hdr.underlay_ipv4.checksum,
                        HashAlgorithm.csum16);
    }
}

control ShuntDeparser(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.shunt_ethernet);
        packet.emit(hdr.shunt);
        packet.emit(hdr.underlay_ethernet);
        packet.emit(hdr.underlay_vlan);
        packet.emit(hdr.underlay_ipv4);
        packet.emit(hdr.underlay_udp);
        packet.emit(hdr.underlay_vxlan);
        packet.emit(hdr.ethernet);
        packet.emit(hdr.vlan_outer);
        packet.emit(hdr.vlan_inner);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.ipv6);
        packet.emit(hdr.tcp);
        packet.emit(hdr.udp);
        packet.emit(hdr.icmp);
        packet.emit(hdr.vxlan);
        packet.emit(hdr.inner_ethernet);
        packet.emit(hdr.inner_ipv4);
        packet.emit(hdr.inner_ipv6);
        packet.emit(hdr.inner_tcp);
        packet.emit(hdr.inner_udp);
        packet.emit(hdr.inner_icmp);
    }
}

V1Switch(ShuntParser(), VerifyChecksums(), ShuntIngress(), ShuntEgress(), ComputeChecksums(),
         ShuntDeparser()) main;
