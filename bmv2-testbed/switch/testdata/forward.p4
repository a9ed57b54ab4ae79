// A small router: what most tests of the switch and its server run.
#include <core.p4>
#include <v1model.p4>

header ethernet_h { bit<48> dst; bit<48> src; bit<16> ether_type; }
header ipv4_h {
    bit<4> version; bit<4> ihl; bit<8> tos; bit<16> total_len;
    bit<16> id; bit<3> flags; bit<13> fragment_offset;
    bit<8> ttl; bit<8> proto; bit<16> checksum;
    bit<32> src; bit<32> dst;
}
header options_h { varbit<320> bytes; }
header udp_h { bit<16> src_port; bit<16> dst_port; bit<16> length; bit<16> checksum; }
@controller_header("packet_in") header packet_in_h { bit<9> ingress_port; bit<7> reason; }
@controller_header("packet_out") header packet_out_h { bit<9> egress_port; bit<7> pad; }

struct headers_t {
    packet_in_h packet_in; packet_out_h packet_out;
    ethernet_h ethernet; ipv4_h ipv4; options_h options; udp_h udp;
}
struct meta_t { bit<16> group; bit<2> color; bit<32> nexthop; }

const bit<9> CPU = 510;

parser P(packet_in p, out headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    state start {
        transition select(sm.ingress_port) {
            CPU: from_cpu;
            default: ethernet;
        }
    }
    state from_cpu { p.extract(hdr.packet_out); transition ethernet; }
    state ethernet {
        p.extract(hdr.ethernet);
        transition select(hdr.ethernet.ether_type) {
            0x0800: ipv4;
            default: accept;
        }
    }
    state ipv4 {
        p.extract(hdr.ipv4);
        verify(hdr.ipv4.ihl >= 5, error.HeaderTooShort);
        transition select(hdr.ipv4.ihl) {
            5: l4;
            default: options;
        }
    }
    state options {
        p.extract(hdr.options, (bit<32>)(((bit<9>)hdr.ipv4.ihl - 5) * 32));
        transition l4;
    }
    state l4 {
        transition select(hdr.ipv4.fragment_offset, hdr.ipv4.proto) {
            (0, 17): udp;
            default: accept;
        }
    }
    state udp { p.extract(hdr.udp); transition accept; }
}

control Verify(inout headers_t hdr, inout meta_t meta) {
    apply {
        verify_checksum(hdr.ipv4.isValid(),
            { hdr.ipv4.version, hdr.ipv4.ihl, hdr.ipv4.tos, hdr.ipv4.total_len, hdr.ipv4.id,
              hdr.ipv4.flags, hdr.ipv4.fragment_offset, hdr.ipv4.ttl, hdr.ipv4.proto,
              hdr.ipv4.src, hdr.ipv4.dst, hdr.options.bytes },
            hdr.ipv4.checksum, HashAlgorithm.csum16);
    }
}

control In(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    direct_counter(CounterType.packets_and_bytes) flow_counter;
    direct_meter<bit<2>>(MeterType.packets) acl_meter;
    counter(8, CounterType.packets_and_bytes) drops;
    action_selector(HashAlgorithm.crc32, 64, 32) ecmp_selector;

    action drop() { mark_to_drop(sm); exit; }
    action punt(bit<7> reason) {
        sm.egress_spec = CPU;
        hdr.packet_in.setValid();
        hdr.packet_in.ingress_port = sm.ingress_port;
        hdr.packet_in.reason = reason;
        exit;
    }
    action send(bit<9> port, bit<48> dst) {
        sm.egress_spec = port;
        hdr.ethernet.dst = dst;
        hdr.ipv4.ttl = hdr.ipv4.ttl - 1;
    }
    action use_nexthop(bit<32> nexthop) { meta.nexthop = nexthop; }
    action use_group(bit<16> group) { meta.group = group; }
    action replicate(bit<16> group) { sm.mcast_grp = group; }
    action metered() { acl_meter.read(meta.color); }

    table acl {
        key = {
            sm.ingress_port: optional @name("port");
            hdr.ipv4.src: ternary @name("src");
            hdr.udp.dst_port: range @name("dst_port");
        }
        actions = { drop; punt; replicate; metered; @defaultonly NoAction; }
        meters = acl_meter;
        default_action = NoAction();
        size = 16;
    }
    table flow {
        key = {
            hdr.ipv4.src: exact @name("src"); hdr.ipv4.dst: exact @name("dst");
            hdr.udp.src_port: exact @name("sport"); hdr.udp.dst_port: exact @name("dport");
        }
        actions = { send; @defaultonly NoAction; }
        counters = flow_counter;
        const default_action = NoAction();
        support_timeout = true;
        size = 1024;
    }
    table route {
        key = { hdr.ipv4.dst: lpm @name("dst"); }
        actions = { use_nexthop; use_group; drop; }
        default_action = drop();
        size = 1024;
    }
    table ecmp {
        key = {
            meta.group: exact @name("group");
            hdr.ipv4.src: selector; hdr.udp.src_port: selector;
        }
        actions = { send; drop; }
        implementation = ecmp_selector;
        size = 64;
    }
    table nexthop {
        key = { meta.nexthop: exact @name("nexthop"); }
        actions = { send; drop; }
        const default_action = drop();
        size = 256;
    }
    table classes {
        key = { hdr.ipv4.tos: exact @name("tos"); }
        actions = { drop; NoAction; }
        const default_action = NoAction();
        const entries = { 0xff: drop(); }
    }
    apply {
        if (hdr.packet_out.isValid()) {
            sm.egress_spec = hdr.packet_out.egress_port;
            hdr.packet_out.setInvalid();
            return;
        }
        if (sm.parser_error != error.NoError) { drops.count(1); drop(); }
        if (sm.checksum_error == 1) { drops.count(2); drop(); }
        if (!hdr.ipv4.isValid()) { punt(1); }
        classes.apply();
        acl.apply();
        if (meta.color == 2) { drops.count(3); drop(); }
        if (sm.mcast_grp == 0 && !flow.apply().hit) {
            route.apply();
            if (meta.group != 0) { ecmp.apply(); } else { nexthop.apply(); }
        }
    }
}

control Out(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    apply {
        if (sm.egress_rid != 0) { hdr.ethernet.src = (bit<48>)sm.egress_rid; }
    }
}

control Update(inout headers_t hdr, inout meta_t meta) {
    apply {
        update_checksum(hdr.ipv4.isValid(),
            { hdr.ipv4.version, hdr.ipv4.ihl, hdr.ipv4.tos, hdr.ipv4.total_len, hdr.ipv4.id,
              hdr.ipv4.flags, hdr.ipv4.fragment_offset, hdr.ipv4.ttl, hdr.ipv4.proto,
              hdr.ipv4.src, hdr.ipv4.dst, hdr.options.bytes },
            hdr.ipv4.checksum, HashAlgorithm.csum16);
        update_checksum_with_payload(hdr.udp.isValid() && hdr.udp.checksum != 0,
            { hdr.ipv4.src, hdr.ipv4.dst, 8w0, hdr.ipv4.proto, hdr.udp.length,
              hdr.udp.src_port, hdr.udp.dst_port, hdr.udp.length },
            hdr.udp.checksum, HashAlgorithm.csum16);
    }
}

control Emit(packet_out p, in headers_t hdr) {
    apply {
        p.emit(hdr.packet_in); p.emit(hdr.ethernet);
        p.emit(hdr.ipv4); p.emit(hdr.options); p.emit(hdr.udp);
    }
}

V1Switch(P(), Verify(), In(), Out(), Update(), Emit()) main;
