// One action for each construct: the first byte of a frame chooses it, results stand in the frame.
#include <core.p4>
#include <v1model.p4>

header op_h { bit<8> op; bit<8> count; }
header values_h {
    bit<8> a; bit<8> b; bit<16> c; bit<32> d; bit<48> e; bit<128> f; bit<128> g;
    int<8> s; int<8> t; bit<3> u; bit<5> v;
}
header item_h { bit<7> value; bit<1> last; }
header wide_h { bit<256> w; bit<256> x; }
header trail_h { bit<16> x; }

struct headers_t { op_h op; values_h v; item_h[4] items; wide_h wide; trail_h trail; }
struct kept_t { @field_list(1) bit<8> kept; bit<8> lost; @field_list(1) bit<9> port; }
struct meta_t { kept_t k; bit<32> hash; }
struct digest_t { bit<8> a; bit<16> c; }

parser P(packet_in p, out headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    state start {
        bit<8> first = p.lookahead<bit<8>>();
        transition select(first, sm.ingress_port) {
            (0xf0 &&& 0xf0, _): accept;
            default: op;
        }
    }
    state op {
        p.extract(hdr.op);
        transition select(hdr.op.count) {
            0: values;
            default: items;
        }
    }
    state items {
        p.extract(hdr.items.next);
        transition select(hdr.items.last.last) {
            0: items;
            1: values;
        }
    }
    state values {
        p.extract(hdr.v);
        transition select(hdr.op.op) {
            90: skip;
            91: wide;
            92: wide;
            default: accept;
        }
    }
    state wide { p.extract(hdr.wide); transition accept; }
    state skip {
        verify(hdr.v.b != 13, error.HeaderTooShort);
        p.advance((bit<32>)hdr.v.a * 8);
        p.extract(hdr.trail);
        transition accept;
    }
}

control Verify(inout headers_t hdr, inout meta_t meta) { apply { } }

control In(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    register<bit<32>>(16) cells;
    meter(4, MeterType.packets) limits;
    counter(4, CounterType.packets_and_bytes) hits;

    action add() { hdr.v.a = hdr.v.a + hdr.v.b; hdr.v.f = hdr.v.f + hdr.v.g; }
    action sub() { hdr.v.a = hdr.v.a - hdr.v.b; hdr.v.f = hdr.v.f - hdr.v.g; }
    action mul() { hdr.v.d = hdr.v.d * (bit<32>)hdr.v.c; }
    action saturate() { hdr.v.a = hdr.v.a |+| hdr.v.b; hdr.v.s = hdr.v.s |-| hdr.v.t; }
    action shift() { hdr.v.f = hdr.v.f << hdr.v.a; hdr.v.g = hdr.v.g >> hdr.v.a; hdr.v.s = hdr.v.s >> 1; }
    action bits() { hdr.v.d = ~hdr.v.d; hdr.v.u = hdr.v.u ^ 5; hdr.v.v = hdr.v.v | 0x10; }
    action slices() { hdr.v.e[15:0] = hdr.v.d[31:16]; hdr.v.c = hdr.v.f[127:112]; }
    action join() { hdr.v.d = hdr.v.c ++ hdr.v.a ++ hdr.v.b; }
    action signs() { hdr.v.a = hdr.v.s < hdr.v.t ? 8w1 : 8w2; hdr.v.c = (bit<16>)(int<16>)hdr.v.s; }
    action crc32() { hash(hdr.v.d, HashAlgorithm.crc32, 32w0, { hdr.v.a, hdr.v.c }, 32w0xffffffff); }
    action crc16() { hash(hdr.v.c, HashAlgorithm.crc16, 16w10, { hdr.v.f, hdr.v.u }, 16w100); }
    action xor16() { hash(hdr.v.c, HashAlgorithm.xor16, 16w0, { hdr.v.d }, 16w0xffff); }
    action identity() { hash(hdr.v.d, HashAlgorithm.identity, 32w0, { hdr.v.c }, 32w0xffffffff); }
    action remember() {
        cells.read(hdr.v.d, (bit<32>)hdr.v.a);
        cells.write((bit<32>)hdr.v.a, hdr.v.d + 1);
    }
    action police() { bit<8> color; limits.execute_meter((bit<32>)hdr.v.a, color); hdr.v.b = color; hits.count((bit<32>)hdr.v.a); }
    action push() { hdr.items.push_front(1); hdr.items[0].setValid(); hdr.items[0].value = 99; hdr.items[0].last = 0; }
    action pop() { hdr.items.pop_front(1); }
    action copy() { hdr.items[3] = hdr.items[0]; }
    action element() { hdr.items[hdr.v.a].value = 55; hdr.v.b = (bit<8>)hdr.items[hdr.v.a].value; }
    action swap() { bit<256> t = hdr.wide.w; hdr.wide.w = hdr.wide.x; hdr.wide.x = t; hdr.v.c = hdr.wide.w[255:240]; }
    action again() { meta.k.kept = meta.k.kept + 1; meta.k.lost = 7; meta.k.port = sm.ingress_port; resubmit_preserving_field_list(1); }
    action mirror() { meta.k.kept = 42; meta.k.lost = 43; clone_preserving_field_list(CloneType.I2E, 5, 1); hdr.v.a = 77; }
    action learn() { digest<digest_t>(1, { hdr.v.a, hdr.v.c }); }
    action say() { log_msg("a is {}, c is {}", { hdr.v.a, hdr.v.c }); }
    action cut() { truncate(32w20); }
    action group() { sm.mcast_grp = 3; }
    action facts() { hdr.v.d = sm.packet_length; hdr.v.c = (bit<16>)sm.instance_type; hdr.v.b = (bit<8>)sm.ingress_port; }
    action refuse() { mark_to_drop(sm); }
    action wide_equal() { hdr.v.a = hdr.wide.w == hdr.wide.x ? 8w1 : 8w0; }

    table ops {
        key = { hdr.op.op: exact; }
        actions = {
            add; sub; mul; saturate; shift; bits; slices; join; signs; crc32; crc16; xor16;
            identity; remember; police; push; pop; copy; element; swap; mirror; learn; say;
            cut; group; facts; refuse; wide_equal; NoAction;
        }
        const default_action = NoAction();
        const entries = {
            1: add(); 2: sub(); 3: mul(); 4: saturate(); 5: shift(); 6: bits(); 7: slices();
            8: join(); 9: signs(); 10: crc32(); 11: crc16(); 12: xor16(); 13: identity();
            14: remember(); 15: police(); 16: push(); 17: pop(); 18: copy(); 19: element();
            91: swap(); 21: mirror(); 22: learn(); 23: say(); 24: cut(); 25: group();
            26: facts(); 27: refuse(); 92: wide_equal();
        }
    }
    apply {
        sm.egress_spec = 2;
        if (!hdr.v.isValid()) {
            // Parser errors leave by a port of their own.
            sm.egress_spec = 100;
            if (sm.parser_error == error.PacketTooShort) { sm.egress_spec = 101; }
            if (sm.parser_error == error.StackOutOfBounds) { sm.egress_spec = 103; }
            exit;
        }
        if (hdr.op.op == 20) {
            if (meta.k.kept < 3) { again(); } else {
                hdr.v.a = meta.k.kept;
                hdr.v.b = meta.k.lost;
                hdr.v.c = (bit<16>)sm.instance_type;
                hdr.v.d = (bit<32>)meta.k.port;
            }
        } else {
            switch (ops.apply().action_run) {
                say: { hdr.v.b = 1; }
                learn: { hdr.v.b = 2; }
                default: { }
            }
        }
    }
}

control Out(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    apply {
        if (sm.instance_type == 1) {
            hdr.v.b = meta.k.kept;
            hdr.v.u = (bit<3>)meta.k.lost;
        }
        if (sm.instance_type == 5) { hdr.v.b = (bit<8>)sm.egress_rid; }
        if (hdr.op.op == 28 && meta.k.kept < 2) {
            meta.k.kept = meta.k.kept + 1;
            hdr.v.a = hdr.v.a + 1;
            recirculate_preserving_field_list(1);
        }
        if (hdr.op.op == 29 && sm.instance_type == 0) {
            clone_preserving_field_list(CloneType.E2E, 6, 1);
            hdr.v.b = 9;
        }
        if (hdr.op.op == 30) { mark_to_drop(sm); }
    }
}

control Update(inout headers_t hdr, inout meta_t meta) { apply { } }

control Emit(packet_out p, in headers_t hdr) {
    apply { p.emit(hdr.op); p.emit(hdr.items); p.emit(hdr.v); p.emit(hdr.wide); p.emit(hdr.trail); }
}

V1Switch(P(), Verify(), In(), Out(), Update(), Emit()) main;
