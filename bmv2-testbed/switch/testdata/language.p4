// What is rare: numbers of more than 128 bits, value sets, stacks of varbits and of unions,
// registers of any width, priorities. The first byte of a frame says what it is about.
#include <core.p4>
#include <v1model.p4>

header op_h { bit<8> op; bit<8> arg; }
header wide_h { bit<256> a; bit<256> b; int<200> s; int<200> t; bit<8> n; }
header kind_h { bit<16> kind; bit<8> sub; bit<8> found; }
header opt_h { bit<4> len; varbit<96> data; bit<4> last; }
header one_h { bit<8> tag; bit<8> x; }
header two_h { bit<8> tag; bit<16> y; }
header_union either_u { one_h one; two_h two; }

struct headers_t { op_h op; kind_h kind; wide_h wide; opt_h[3] opts; either_u[3] eithers; }
struct pair_t { @match(ternary) bit<16> kind; @match(range) bit<8> sub; }
struct meta_t { @field_list(1) bit<8> found; @field_list(1) bit<8> passes; }

parser P(packet_in p, out headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    value_set<bit<16>>(4) kinds;
    value_set<pair_t>(2) pairs;
    bit<4> len;

    state start {
        p.extract(hdr.op);
        transition select(hdr.op.op) {
            0x00 &&& 0xc0: wide;
            0x40 &&& 0xc0: opts;
            0x80 &&& 0xe0: eithers;
            0xa0 .. 0xbf: kind;
            default: accept;
        }
    }
    state wide { p.extract(hdr.wide); transition accept; }
    state opts {
        len = p.lookahead<bit<4>>();
        p.extract(hdr.opts.next, (bit<32>)len * 8);
        transition select(hdr.opts.last.last) {
            0: opts;
            default: accept;
        }
    }
    state eithers {
        transition select(p.lookahead<bit<8>>()) {
            1: one;
            2: two;
            default: accept;
        }
    }
    state one { p.extract(hdr.eithers.next.one); transition eithers; }
    state two { p.extract(hdr.eithers.next.two); transition eithers; }
    state kind {
        p.extract(hdr.kind);
        transition select(hdr.kind.kind) {
            kinds: known;
            7: seven;
            default: pair;
        }
    }
    state known { meta.found = 1; transition accept; }
    state seven { meta.found = 7; transition accept; }
    state pair {
        transition select(hdr.kind.kind, hdr.kind.sub) {
            pairs: known_pair;
            default: accept;
        }
    }
    state known_pair { meta.found = 2; transition accept; }
}

control Verify(inout headers_t hdr, inout meta_t meta) { apply { } }

control In(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    register<bit<256>>(4) long_cells;
    register<bit<48>>(4) cells;

    action add() { hdr.wide.a = hdr.wide.a + hdr.wide.b; hdr.wide.s = hdr.wide.s + hdr.wide.t; }
    action subtract() { hdr.wide.a = hdr.wide.a - hdr.wide.b; hdr.wide.s = hdr.wide.s - hdr.wide.t; }
    action multiply() { hdr.wide.a = hdr.wide.a * hdr.wide.b; hdr.wide.s = hdr.wide.s * hdr.wide.t; }
    action saturate() { hdr.wide.a = hdr.wide.a |+| hdr.wide.b; hdr.wide.s = hdr.wide.s |-| hdr.wide.t; }
    action bits() { hdr.wide.a = ~(hdr.wide.a & hdr.wide.b); hdr.wide.b = hdr.wide.b ^ (bit<256>)hdr.wide.n; }
    action shift() {
        hdr.wide.a = hdr.wide.a << hdr.wide.n;
        hdr.wide.b = hdr.wide.b >> hdr.wide.n;
        hdr.wide.s = hdr.wide.s >> hdr.wide.n;
    }
    action compare() {
        bit<8> r = 0;
        if (hdr.wide.a < hdr.wide.b) { r = r | 1; }
        if (hdr.wide.s < hdr.wide.t) { r = r | 2; }
        if (hdr.wide.a == hdr.wide.b) { r = r | 4; }
        if (hdr.wide.s >= 0) { r = r | 8; }
        hdr.wide.n = r;
    }
    action narrow() {
        // The upper half of a product: more than its low bits counts.
        hdr.wide.n = (bit<8>)((hdr.wide.a * hdr.wide.b) >> 248);
        hdr.wide.t = (int<200>)(int<8>)hdr.wide.n;
    }
    action join() { hdr.wide.a = hdr.wide.b[127:0] ++ hdr.wide.a[255:128]; hdr.wide.b[199:100] = hdr.wide.a[99:0]; }
    action choose() { hdr.wide.a = hdr.wide.n > 5 ? hdr.wide.b : 256w0x1_0000000000000000_0000000000000000_0000000000000000; }
    action remember(bit<256> more) {
        bit<256> old;
        bit<48> count;
        long_cells.read(old, (bit<32>)hdr.wide.n);
        long_cells.write((bit<32>)hdr.wide.n, hdr.wide.a + more);
        hdr.wide.b = old;
        cells.read(count, (bit<32>)hdr.wide.n);
        cells.write((bit<32>)hdr.wide.n, count + 1);
        hdr.wide.a = (bit<256>)count;
    }
    action long_hash() { hash(hdr.wide.a, HashAlgorithm.crc32, 256w1, { hdr.wide.b }, 256w0xffffffff); }
    action say() { log_msg("a is {}, s is {}", { hdr.wide.a, hdr.wide.s }); }

    table wide {
        key = { hdr.op.op: exact; }
        actions = {
            add; subtract; multiply; saturate; bits; shift; compare; narrow; join; choose;
            remember; long_hash; say; NoAction;
        }
        const default_action = NoAction();
        const entries = {
            1: add(); 2: subtract(); 3: multiply(); 4: saturate(); 5: bits(); 6: shift();
            7: compare(); 8: narrow(); 9: join(); 10: choose();
            11: remember(256w0x1_0000000000000000_0000000000000000); 12: long_hash(); 13: say();
        }
    }

    action push_opt() { hdr.opts.push_front(1); hdr.opts[0].setValid(); hdr.opts[0].last = 5; }
    action pop_opt() { hdr.opts.pop_front(1); }
    action copy_opt() { hdr.opts[2] = hdr.opts[0]; }
    action reset_opt() { hdr.opts[1].setInvalid(); hdr.opts[1].setValid(); hdr.opts[1].last = 6; }
    table opts {
        key = { hdr.op.op: exact; }
        actions = { push_opt; pop_opt; copy_opt; reset_opt; NoAction; }
        const default_action = NoAction();
        const entries = { 0x41: push_opt(); 0x42: pop_opt(); 0x43: copy_opt(); 0x44: reset_opt(); }
    }

    action copy_either() { hdr.eithers[1] = hdr.eithers[0]; }
    action set_either() { hdr.eithers[0].two.setValid(); hdr.eithers[0].two.tag = 9; hdr.eithers[0].two.y = 0x1234; }
    action ask_either() { hdr.op.arg = hdr.eithers[1].one.isValid() || hdr.eithers[1].two.isValid() ? 8w1 : 8w0; }
    action drop_either() { hdr.eithers[0].one.setInvalid(); }
    table eithers {
        key = { hdr.op.op: exact; hdr.eithers[0].one.isValid(): exact @name("one"); }
        actions = { copy_either; set_either; ask_either; drop_either; NoAction; }
        const default_action = NoAction();
        const entries = {
            (0x81, true): copy_either(); (0x82, true): set_either(); (0x83, true): ask_either();
            (0x84, true): drop_either(); (0x84, false): ask_either();
        }
    }

    apply {
        sm.egress_spec = 2;
        if (sm.parser_error != error.NoError) { sm.egress_spec = 3; }
        if (hdr.wide.isValid()) { wide.apply(); }
        if (hdr.opts[0].isValid()) { opts.apply(); }
        if (hdr.op.op & 0xe0 == 0x80) { eithers.apply(); }
        if (hdr.kind.isValid()) { hdr.kind.found = meta.found; }
        if (hdr.op.op == 0xc0) { sm.priority = (bit<3>)hdr.op.arg; }
        if (hdr.op.op == 0xc1) { truncate(32w20); }
        if (hdr.op.op == 0xc2) { truncate(32w20); sm.mcast_grp = 1; }
    }
}

control Out(inout headers_t hdr, inout meta_t meta, inout standard_metadata_t sm) {
    apply {
        if (hdr.op.op == 0xc3 && meta.passes < 2) {
            truncate(32w20);
            meta.passes = meta.passes + 1;
            hdr.op.arg = hdr.op.arg + 1;
            recirculate_preserving_field_list(1);
        }
        if (hdr.op.op == 0xc4 && sm.instance_type == 0) {
            truncate(32w20);
            clone(CloneType.E2E, 3);
        }
    }
}

control Update(inout headers_t hdr, inout meta_t meta) { apply { } }

control Emit(packet_out p, in headers_t hdr) {
    apply { p.emit(hdr.op); p.emit(hdr.kind); p.emit(hdr.wide); p.emit(hdr.opts); p.emit(hdr.eithers); }
}

V1Switch(P(), Verify(), In(), Out(), Update(), Emit()) main;
