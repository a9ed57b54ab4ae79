// What outlives a packet, and what leads a packet elsewhere: tables of all kinds, profiles,
// counters, meters, registers, hashes, checksums, clones, copies, another pass. The first byte of a
// frame says what it is about.
#include <core.p4>
#include <v1model.p4>

header frame_h { bit<8> op; bit<8> index; bit<32> value; bit<8> result; bit<8> info; bit<16> sum; }
struct headers_t { frame_h f; }
struct meta_t {
    @field_list(1) bit<8> kept;
    bit<8> lost;
    @field_list(1) bit<9> port;
    bit<2> color;
}
struct seen_t { bit<8> index; bit<32> value; bit<9> port; }

parser P(packet_in p, out headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    state start { p.extract(hdr.f); transition accept; }
}

control Verify(inout headers_t hdr, inout meta_t meta) {
    apply {
        verify_checksum(hdr.f.op == 27, { hdr.f.value, hdr.f.index }, hdr.f.sum, HashAlgorithm.csum16);
    }
}

control In(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    direct_counter(CounterType.packets_and_bytes) acl_counter;
    direct_meter<bit<2>>(MeterType.bytes) police_meter;
    counter(4, CounterType.packets_and_bytes) both;
    counter(4, CounterType.packets) packets;
    counter(4, CounterType.bytes) bytes;
    meter(4, MeterType.packets) packet_meter;
    meter(4, MeterType.bytes) byte_meter;
    register<bit<32>>(4) cells;
    register<int<8>>(4) signed_cells;
    action_profile(16) members;
    action_selector(HashAlgorithm.crc16, 32, 16) spread;

    action set(bit<8> result) { hdr.f.result = result; }
    action set_info(bit<8> info) { hdr.f.info = info; }
    action refuse() { mark_to_drop(sm); }

    table acl {
        key = {
            hdr.f.value: ternary @name("value");
            hdr.f.index: range @name("index");
            sm.ingress_port: optional @name("port");
        }
        actions = { set; refuse; NoAction; }
        counters = acl_counter;
        default_action = NoAction();
    }
    table mixed {
        key = { hdr.f.index: exact @name("index"); hdr.f.value: lpm @name("value"); }
        actions = { set; set_info; @defaultonly NoAction; }
        default_action = NoAction();
    }
    action police() { police_meter.read(meta.color); }
    table policed {
        key = { hdr.f.index: exact @name("index"); }
        actions = { police; @defaultonly NoAction; }
        meters = police_meter;
        default_action = NoAction();
    }
    table profiled {
        key = { hdr.f.index: exact @name("index"); }
        actions = { set; set_info; @defaultonly NoAction; }
        implementation = members;
    }
    table selected {
        key = { hdr.f.index: exact @name("index"); hdr.f.value: selector; }
        actions = { set; set_info; @defaultonly NoAction; }
        implementation = spread;
    }
    table fixed {
        key = { hdr.f.value: ternary @name("value"); hdr.f.index: range @name("index"); }
        actions = { set; NoAction; }
        const default_action = set(1);
        largest_priority_wins = true;
        entries = {
            priority = 10: (0x00000010 &&& 0x000000f0, _): set(2);
            priority = 30: (_, 5 .. 9): set(3);
            priority = 20: (0x00000011, 0 .. 255): set(4);
        }
    }

    action crc16() { hash(hdr.f.value, HashAlgorithm.crc16, 32w0, { hdr.f.index, hdr.f.info }, 32w0x10000); }
    action crc32() { hash(hdr.f.value, HashAlgorithm.crc32, 32w0, { hdr.f.index, hdr.f.info }, 32w0xffffffff); }
    action csum16() { hash(hdr.f.value, HashAlgorithm.csum16, 32w0, { hdr.f.index, hdr.f.info, hdr.f.sum }, 32w0x10000); }
    action xor16() { hash(hdr.f.value, HashAlgorithm.xor16, 32w7, { hdr.f.value, hdr.f.index }, 32w0x10000); }
    action identity() { hash(hdr.f.value, HashAlgorithm.identity, 32w0, { hdr.f.index, hdr.f.info, 4w5, 4w6 }, 32w0xffffffff); }
    action crc16_custom() { hash(hdr.f.value, HashAlgorithm.crc16_custom, 32w0, { hdr.f.index, hdr.f.info }, 32w0x10000); }
    action crc32_custom() { hash(hdr.f.value, HashAlgorithm.crc32_custom, 32w5, { hdr.f.index, hdr.f.info }, 32w1000); }
    action nothing_left() { hash(hdr.f.value, HashAlgorithm.crc16, 32w5, { hdr.f.index }, 32w0); }
    table hashes {
        key = { hdr.f.op: exact; }
        actions = { crc16; crc32; csum16; xor16; identity; crc16_custom; crc32_custom; nothing_left; NoAction; }
        const default_action = NoAction();
        const entries = {
            13: crc16(); 14: crc32(); 15: csum16(); 16: xor16(); 17: identity();
            18: crc16_custom(); 19: crc32_custom(); 20: nothing_left();
        }
    }

    apply {
        sm.egress_spec = 2;
        if (hdr.f.op == 1) { acl.apply(); }
        if (hdr.f.op == 2) { if (mixed.apply().miss) { hdr.f.result = 99; } }
        if (hdr.f.op == 3) { policed.apply(); hdr.f.result = (bit<8>)meta.color; }
        if (hdr.f.op == 4) { packet_meter.execute_meter((bit<32>)hdr.f.index, hdr.f.result); }
        if (hdr.f.op == 5) { byte_meter.execute_meter((bit<32>)hdr.f.index, hdr.f.result); }
        if (hdr.f.op == 6) {
            both.count((bit<32>)hdr.f.index);
            packets.count((bit<32>)hdr.f.index);
            bytes.count((bit<32>)hdr.f.index);
        }
        if (hdr.f.op == 7) {
            bit<32> old;
            int<8> level;
            cells.read(old, (bit<32>)hdr.f.index);
            cells.write((bit<32>)hdr.f.index, hdr.f.value);
            hdr.f.value = old;
            signed_cells.read(level, (bit<32>)hdr.f.index);
            signed_cells.write((bit<32>)hdr.f.index, level |-| 100);
            hdr.f.result = (bit<8>)level;
        }
        if (hdr.f.op == 8) { selected.apply(); }
        if (hdr.f.op == 9) {
            switch (profiled.apply().action_run) {
                set: { hdr.f.info = 77; }
                set_info: { hdr.f.result = 78; }
                default: { hdr.f.result = 79; }
            }
        }
        if (hdr.f.op == 10) {
            meta.kept = 42; meta.lost = 43;
            clone_preserving_field_list(CloneType.I2E, 5, 1);
            hdr.f.result = 1;
        }
        if (hdr.f.op == 11) { sm.mcast_grp = (bit<16>)hdr.f.index; }
        if (hdr.f.op == 12) {
            if (meta.kept < 2) {
                meta.kept = meta.kept + 1; meta.lost = 7; meta.port = sm.ingress_port;
                hdr.f.info = 5;
                resubmit_preserving_field_list(1);
            } else {
                hdr.f.result = meta.kept;
                hdr.f.index = meta.lost;
                hdr.f.value = sm.instance_type;
                hdr.f.sum = (bit<16>)meta.port;
            }
        }
        hashes.apply();
        if (hdr.f.op == 21) { fixed.apply(); }
        if (hdr.f.op == 22) { refuse(); }
        if (hdr.f.op == 23) { digest<seen_t>(1, { hdr.f.index, hdr.f.value, sm.ingress_port }); }
        if (hdr.f.op == 24) { random(hdr.f.value, 32w10, 32w12); }
        if (hdr.f.op == 25) {
            hdr.f.value = sm.packet_length;
            hdr.f.info = (bit<8>)sm.ingress_port;
            hdr.f.result = (bit<8>)sm.instance_type;
        }
        if (hdr.f.op == 27) { hdr.f.result = (bit<8>)sm.checksum_error; }
        if (hdr.f.op == 28) { hdr.f.result = 1; exit; }
        if (hdr.f.op == 28 || hdr.f.op == 29) { hdr.f.result = 2; }
    }
}

control Out(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    apply {
        if (hdr.f.op == 11) { hdr.f.value = (bit<32>)sm.egress_rid; hdr.f.info = (bit<8>)sm.egress_port; hdr.f.result = (bit<8>)sm.instance_type; }
        if (hdr.f.op == 10 && sm.instance_type == 1) { hdr.f.info = meta.kept; hdr.f.index = meta.lost; hdr.f.value = (bit<32>)sm.egress_rid; }
        if (hdr.f.op == 30 && meta.kept < 2) {
            meta.kept = meta.kept + 1;
            hdr.f.info = hdr.f.info + 1;
            hdr.f.result = (bit<8>)sm.instance_type;
            recirculate_preserving_field_list(1);
        }
        if (hdr.f.op == 31) {
            if (sm.instance_type == 2) {
                hdr.f.info = meta.kept;
                hdr.f.value = sm.packet_length;
            } else {
                meta.kept = 17;
                hdr.f.result = 3;
                clone_preserving_field_list(CloneType.E2E, 6, 1);
            }
        }
        if (hdr.f.op == 32) { mark_to_drop(sm); }
    }
}

control Update(inout headers_t hdr, inout meta_t meta) {
    apply {
        update_checksum(hdr.f.op == 26, { hdr.f.value, hdr.f.index }, hdr.f.sum, HashAlgorithm.csum16);
    }
}

control Emit(packet_out p, in headers_t hdr) { apply { p.emit(hdr.f); } }

V1Switch(P(), Verify(), In(), Out(), Update(), Emit()) main;
