//! Each construct of the language, one frame each: expectations are computed here by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::{Arc, Mutex};

use shunt_switch::log::{PacketTrace, Step};
use shunt_switch::{ChannelPort, Options, Switch};

/// The values header of `constructs.p4`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Values {
    a: u8,
    b: u8,
    c: u16,
    d: u32,
    e: u64,
    f: u128,
    g: u128,
    s: i8,
    t: i8,
    u: u8,
    v: u8,
}

const VALUES: Values = Values {
    a: 200,
    b: 100,
    c: 0x1234,
    d: 0xdead_beef,
    e: 0x0102_0304_0506,
    f: 5,
    g: u128::MAX,
    s: -100,
    t: 100,
    u: 3,
    v: 7,
};

impl Values {
    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.a, self.b];
        out.extend(self.c.to_be_bytes());
        out.extend(self.d.to_be_bytes());
        out.extend(&self.e.to_be_bytes()[2..]);
        out.extend(self.f.to_be_bytes());
        out.extend(self.g.to_be_bytes());
        out.extend([self.s as u8, self.t as u8, self.u << 5 | self.v]);
        out
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut e = [0; 8];
        e[2..].copy_from_slice(&bytes[8..14]);
        Self {
            a: bytes[0],
            b: bytes[1],
            c: u16::from_be_bytes(bytes[2..4].try_into().unwrap()),
            d: u32::from_be_bytes(bytes[4..8].try_into().unwrap()),
            e: u64::from_be_bytes(e),
            f: u128::from_be_bytes(bytes[14..30].try_into().unwrap()),
            g: u128::from_be_bytes(bytes[30..46].try_into().unwrap()),
            s: bytes[46] as i8,
            t: bytes[47] as i8,
            u: bytes[48] >> 5,
            v: bytes[48] & 0x1f,
        }
    }
}

fn frame(op: u8, items: &[u8], values: &Values, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![op, items.len() as u8];
    out.extend(items);
    out.extend(values.bytes());
    out.extend(rest);
    out
}

struct Bench {
    switch: Switch,
    ports: Vec<ChannelPort>,
}

impl Bench {
    fn new() -> Self {
        let (switch, ports) = common::switch("constructs", &[1, 2, 3]);
        Self { switch, ports }
    }

    /// Sends a frame in at port 1 and takes what comes out of port 2.
    fn send(&self, frame: &[u8]) -> Option<Vec<u8>> {
        self.ports[0].inject(frame);
        self.ports[1].try_receive()
    }

    fn run(&self, op: u8, values: &Values) -> Values {
        let out = self.send(&frame(op, &[], values, b"rest")).unwrap();
        assert!(out.ends_with(b"rest"));
        Values::parse(&out[2..])
    }
}

/// `VALUES` with some fields changed.
macro_rules! with {
    ($($field:ident: $value:expr),* $(,)?) => {
        Values { $($field: $value,)* ..VALUES }
    };
}

#[test]
fn arithmetic_wraps_at_the_fields_width() {
    let bench = Bench::new();
    assert_eq!(bench.run(1, &VALUES), with! { a: 44, f: 4 });
    assert_eq!(bench.run(2, &VALUES), with! { a: 100, f: 6 });
    let small = with! { a: 1, b: 2, f: 0, g: 1 };
    let expected = Values {
        a: 255,
        f: u128::MAX,
        ..small.clone()
    };
    assert_eq!(bench.run(2, &small), expected);
    let product = 0xdead_beef_u32.wrapping_mul(0x1234);
    assert_eq!(bench.run(3, &VALUES), with! { d: product });
}

#[test]
fn saturation_stops_at_both_ends() {
    let bench = Bench::new();
    assert_eq!(bench.run(4, &VALUES), with! { a: 255, s: -128 });
    let inside = with! { a: 1, b: 2, s: 5, t: 3 };
    let expected = Values {
        a: 3,
        s: 2,
        ..inside.clone()
    };
    assert_eq!(bench.run(4, &inside), expected);
}

#[test]
fn shifts_of_wide_and_signed_values() {
    let bench = Bench::new();
    let values = with! { a: 100 };
    let expected = with! { a: 100, f: 5 << 100, g: u128::MAX >> 100, s: -50 };
    assert_eq!(bench.run(5, &values), expected);
    // More than the width.
    assert_eq!(bench.run(5, &VALUES), with! { f: 0, g: 0, s: -50 });
}

#[test]
fn bitwise_operators_and_slices() {
    let bench = Bench::new();
    assert_eq!(
        bench.run(6, &VALUES),
        with! { d: !0xdead_beef, u: 6, v: 0x17 }
    );
    let values = with! { f: 0xabcd << 112 };
    let expected = Values {
        e: 0x0102_0304_dead,
        c: 0xabcd,
        ..values.clone()
    };
    assert_eq!(bench.run(7, &values), expected);
    assert_eq!(bench.run(8, &VALUES), with! { d: 0x1234_c864 });
}

#[test]
fn signed_comparison_and_extension() {
    let bench = Bench::new();
    assert_eq!(bench.run(9, &VALUES), with! { a: 1, c: 0xff9c });
    let values = with! { s: 100, t: -100 };
    let expected = Values {
        a: 2,
        c: 100,
        ..values.clone()
    };
    assert_eq!(bench.run(9, &values), expected);
}

#[test]
fn hashes() {
    let bench = Bench::new();
    // Values from Python's zlib.crc32 and a bitwise CRC-16/ARC.
    let out = bench.run(10, &with! { a: 1, c: 0x0203 });
    assert_eq!(out.d, 0x55bc_801d);
    let out = bench.run(12, &VALUES);
    assert_eq!(out.c, 0xdead ^ 0xbeef);
    let out = bench.run(13, &VALUES);
    assert_eq!(out.d, 0x1234);
    let out = bench.run(11, &VALUES);
    assert!((10..110).contains(&out.c));
}

#[test]
fn registers_remember() {
    let bench = Bench::new();
    let at = |a| with! { a: a, d: 9 };
    assert_eq!(bench.run(14, &at(3)).d, 0);
    assert_eq!(bench.run(14, &at(3)).d, 1);
    assert_eq!(bench.run(14, &at(4)).d, 0);
    assert_eq!(bench.run(14, &at(3)).d, 2);
    // Out of bounds: the field stays.
    assert_eq!(bench.run(14, &at(16)).d, 9);
}

#[test]
fn an_unconfigured_meter_is_green() {
    let bench = Bench::new();
    assert_eq!(bench.run(15, &with! { a: 1 }).b, 0);
}

#[test]
fn stacks_are_parsed_pushed_and_popped() {
    let bench = Bench::new();
    let items = [0x10, 0x20, 0x31];
    let send = |op| bench.send(&frame(op, &items, &VALUES, &[])).unwrap();
    assert_eq!(send(0x7f), frame(0x7f, &items, &VALUES, &[]));
    // The element that is pushed out of four is gone; the count in the header is not touched.
    assert_eq!(send(16)[2..6], [99 << 1, 0x10, 0x20, 0x31]);
    assert_eq!(send(17)[..5], [17, 3, 0x20, 0x31, 200]);
    assert_eq!(send(18)[2..7], [0x10, 0x20, 0x31, 0x10, 200]);
}

#[test]
fn an_element_is_chosen_at_run_time() {
    let bench = Bench::new();
    let items = [0x10, 0x20, 0x31];
    let out = bench
        .send(&frame(19, &items, &with! { a: 1 }, &[]))
        .unwrap();
    assert_eq!(out[2..5], [0x10, 55 << 1, 0x31]);
    assert_eq!(out[6], 55);
    // Out of bounds: nothing is written, and reads give 0.
    let out = bench
        .send(&frame(19, &items, &with! { a: 4 }, &[]))
        .unwrap();
    assert_eq!(out[2..7], [0x10, 0x20, 0x31, 4, 0]);
}

#[test]
fn a_full_stack_is_a_parser_error() {
    let bench = Bench::new();
    let hundred_and_three = bench.switch.attach_channel(103, 4);
    bench.ports[0].inject(&frame(1, &[2, 4, 6, 8, 11], &VALUES, &[]));
    assert!(hundred_and_three.try_receive().is_some());
}

#[test]
fn a_short_packet_is_a_parser_error() {
    let bench = Bench::new();
    let out = bench.switch.attach_channel(101, 4);
    let whole = frame(1, &[], &VALUES, &[]);
    bench.ports[0].inject(&whole[..20]);
    // What was parsed is deparsed, the rest follows as it came.
    assert_eq!(out.try_receive().unwrap(), &whole[..20]);
    bench.ports[0].inject(&[]);
    assert_eq!(out.try_receive().unwrap(), b"");
}

#[test]
fn lookahead_chooses_the_state() {
    let bench = Bench::new();
    let hundred = bench.switch.attach_channel(100, 4);
    bench.ports[0].inject(&[0xf3, 1, 2, 3]);
    assert_eq!(hundred.try_receive().unwrap(), [0xf3, 1, 2, 3]);
}

#[test]
fn advance_skips_bytes() {
    let bench = Bench::new();
    let values = with! { a: 3 };
    let out = bench.send(&frame(90, &[], &values, &[1, 2, 3, 0xaa, 0xbb, 9]));
    assert_eq!(out.unwrap(), frame(90, &[], &values, &[0xaa, 0xbb, 9]));
}

#[test]
fn fields_wider_than_128_bits_are_copied_and_sliced() {
    let bench = Bench::new();
    let wide: Vec<u8> = (0..64).collect();
    let out = bench.send(&frame(91, &[], &VALUES, &wide)).unwrap();
    let (first, second) = wide.split_at(32);
    assert_eq!(out[51..], [second, first].concat());
    assert_eq!(Values::parse(&out[2..]), with! { c: 0x2021 });
}

#[test]
fn fields_wider_than_128_bits_are_compared() {
    let bench = Bench::new();
    let mut wide = vec![7; 64];
    let out = bench.send(&frame(92, &[], &VALUES, &wide)).unwrap();
    assert_eq!(Values::parse(&out[2..]).a, 1);
    wide[63] = 8;
    let out = bench.send(&frame(92, &[], &VALUES, &wide)).unwrap();
    assert_eq!(Values::parse(&out[2..]).a, 0);
}

#[test]
fn resubmit_keeps_what_the_list_names() {
    let bench = Bench::new();
    let out = bench.run(20, &VALUES);
    // Three passes; `lost` is not in the list; instance type RESUBMIT; the port was preserved
    // from the pass before, whose own ingress port is 0 from the second pass on.
    assert_eq!((out.a, out.b, out.c, out.d), (3, 0, 6, 0));
}

#[test]
fn recirculation_goes_round() {
    let bench = Bench::new();
    let out = bench.run(28, &with! { a: 1 });
    assert_eq!(out.a, 3);
}

#[test]
fn egress_can_drop() {
    let bench = Bench::new();
    assert!(bench.send(&frame(30, &[], &VALUES, &[])).is_none());
    assert!(bench.send(&frame(27, &[], &VALUES, &[])).is_none());
    assert_eq!(bench.switch.stats().dropped, 2);
}

#[test]
fn truncation_cuts_what_leaves() {
    let bench = Bench::new();
    let whole = frame(24, &[], &VALUES, &[1; 100]);
    assert_eq!(bench.send(&whole).unwrap(), &whole[..20]);
}

#[test]
fn standard_metadata() {
    let bench = Bench::new();
    let out = bench.run(26, &VALUES);
    assert_eq!((out.d, out.c, out.b), (55, 0, 1));
}

#[test]
fn a_switch_statement_follows_the_action() {
    let passes = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&passes);
    let switch = Switch::new(Options {
        trace: Some(Arc::new(move |packet: PacketTrace| {
            sink.lock().unwrap().extend(packet.record(0).passes);
        })),
        ..Options::default()
    });
    let (json, info) = common::program("constructs");
    switch.load(&json, info).unwrap();
    let (one, two) = (switch.attach_channel(1, 4), switch.attach_channel(2, 4));
    one.inject(&frame(23, &[], &VALUES, &[]));
    assert_eq!(Values::parse(&two.try_receive().unwrap()[2..]).b, 1);
    let passes = passes.lock().unwrap();
    let steps: Vec<&Step> = passes.iter().flat_map(|p| &p.steps).collect();
    let message = "a is 200, c is 4660";
    assert!(
        steps
            .iter()
            .any(|s| matches!(s, Step::Message { text } if text == message)),
        "{steps:?}"
    );
    assert!(
        steps
            .iter()
            .any(|s| matches!(s, Step::Table { table, result: "hit", .. } if table == "In.ops")),
        "{steps:?}"
    );
}

#[test]
fn without_a_port_or_a_program_frames_are_counted() {
    let switch = Switch::new(Options::default());
    switch.inject(1, b"x");
    assert_eq!(switch.stats().no_program, 1);
    let (json, info) = common::program("constructs");
    switch.load(&json, info).unwrap();
    switch.inject(1, &frame(1, &[], &VALUES, &[]));
    assert_eq!(switch.stats().no_port, 1);
    let two = switch.attach_channel(2, 1);
    for _ in 0..3 {
        switch.inject(1, &frame(1, &[], &VALUES, &[]));
    }
    assert_eq!(switch.stats().port_refused, 2);
    assert!(two.try_receive().is_some());
}
