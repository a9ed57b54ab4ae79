//! Operations against the written form.

use std::cell::RefCell;

use proptest::prelude::*;

use super::build::Builder;
use super::{Code, Op};
use crate::bits::{Field, GUARD_BYTES};
use crate::exec::expr::{Binary, Compare, Expr, Sign};
use crate::exec::{Context, Memos, Packet, Registers};
use crate::program::Program;
use crate::program::layout::STATE_BYTES;
use crate::state::State;

/// Enough that a range that is one bit too short is found.
const CASES: u32 = 10_000;
/// Bytes of headers, then of metadata with bytes of its own, then a byte for verdicts.
const HEADERS: usize = GUARD_BYTES;
const HEADER_BYTES: usize = 40;
const METADATA: usize = HEADERS + HEADER_BYTES;
const VERDICT: usize = METADATA + 15;
const BYTES: usize = VERDICT + 1 + GUARD_BYTES;
const UNUSED: usize = STATE_BYTES - BYTES;

/// Metadata: 9 bits in two bytes, 1 bit in one, 24 in four, 48 in eight.
fn metadata(index: usize) -> Field {
    let [at, own, width] = [[0, 2, 9], [2, 1, 1], [3, 4, 24], [7, 8, 48]][index];
    Field::alone(METADATA + at, own as u8, width as u16, false)
}

fn buffer() -> impl Strategy<Value = Vec<u8>> {
    // Ones and zeros carry.
    let byte = prop_oneof![2 => any::<u8>(), 2 => Just(0xff), 1 => Just(0)];
    prop::collection::vec(byte, BYTES).prop_map(|mut buf| {
        for field in (0..4).map(metadata) {
            let value = field.load(&buf);
            let last = field.last as usize;
            buf[last + 1 - usize::from(field.own)..=last].fill(0);
            field.store(&mut buf, value);
        }
        buf.extend([0; UNUSED]);
        buf
    })
}

fn field() -> impl Strategy<Value = Field> {
    let width = prop_oneof![3 => 1..=33_u16, 1 => 1..=128_u16];
    let signed = prop::bool::weighted(0.05);
    let any_place = (0..HEADER_BYTES * 8, width, signed).prop_map(|(bit, width, signed)| {
        let width = width.min((HEADER_BYTES * 8 - bit) as u16);
        Field::at(HEADERS * 8 + bit, width, signed)
    });
    let bytes = (
        0..HEADER_BYTES - 16,
        prop::sample::select(vec![1, 1, 2, 2, 4, 4, 3, 6, 8, 14, 16]),
    );
    let bytes = bytes.prop_map(|(at, len)| Field::at((HEADERS + at) * 8, len * 8, false));
    prop_oneof![2 => any_place, 3 => bytes, 1 => (0..4_usize).prop_map(metadata)]
}

/// Bits of masks and shifts: often those that fields have, or one more.
fn bits() -> impl Strategy<Value = u32> {
    prop_oneof![3 => prop::sample::select(vec![8, 9, 16, 17, 32, 33]), 1 => 0..100_u32]
}

fn constant() -> impl Strategy<Value = i128> {
    let ones = (0..127_u32).prop_map(|bits| (1_i128 << bits) - 1);
    prop_oneof![
        ones,
        0..40_i128,
        any::<u32>().prop_map(i128::from),
        -5..0_i128,
        any::<i128>()
    ]
}

/// Expressions as the compiler lets them pass: shifts by constants, no division.
fn expression() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        3 => field().prop_map(Expr::Field),
        1 => constant().prop_map(Expr::Const),
    ];
    leaf.prop_recursive(5, 24, 2, |inner| {
        use Binary::{Add, And, Multiply, Or, Subtract, Xor};
        let op = prop::sample::select(vec![Add, And, Multiply, Or, Subtract, Xor]);
        let binary = (op, inner.clone(), inner.clone())
            .prop_map(|(op, a, b)| Expr::Binary(op, Box::new(a), Box::new(b)));
        let masked = (inner.clone(), bits()).prop_map(|(a, bits)| {
            let mask = Box::new(Expr::Const((1 << bits) - 1));
            Expr::Binary(And, Box::new(a), mask)
        });
        let shift = prop::sample::select(vec![Binary::ShiftLeft, Binary::ShiftRight]);
        let shift = (shift, inner.clone(), bits().prop_map(i128::from))
            .prop_map(|(op, a, by)| Expr::Binary(op, Box::new(a), Box::new(Expr::Const(by))));
        let not = inner.prop_map(|a| Expr::BitNot(Box::new(a)));
        prop_oneof![3 => binary, 3 => masked, 2 => shift, 1 => not]
    })
}

fn condition() -> impl Strategy<Value = Expr> {
    use Compare::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
    let op = prop::sample::select(vec![
        Equal,
        Greater,
        GreaterEqual,
        Less,
        LessEqual,
        NotEqual,
    ]);
    let compare = (op.clone(), expression(), expression())
        .prop_map(|(op, a, b)| Expr::Compare(op, Sign::Signed, Box::new(a), Box::new(b)));
    let to_constant = (op, field(), 0..300_i128).prop_map(|(op, field, value)| {
        let (field, value) = (Box::new(Expr::Field(field)), Box::new(Expr::Const(value)));
        Expr::Compare(op, Sign::Signed, field, value)
    });
    let truth = expression().prop_map(|e| Expr::ToBool(Box::new(e)));
    prop_oneof![2 => compare, 2 => to_constant, 1 => truth].prop_recursive(3, 8, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone()
                .prop_map(|(a, b)| Expr::And(Box::new(a), Box::new(b))),
            pair.prop_map(|(a, b)| Expr::Or(Box::new(a), Box::new(b))),
            inner.prop_map(|a| Expr::Not(Box::new(a))),
        ]
    })
}

/// What runs operations on a buffer.
struct Machine(Program, State);

impl Machine {
    fn new() -> RefCell<Self> {
        let json = include_bytes!("../../testdata/forward.json");
        let program = Program::load(json).unwrap();
        let state = State::new(&program);
        RefCell::new(Self(program, state))
    }

    /// The buffer after the operations.
    fn run(&mut self, build: Builder, buf: &[u8]) -> Vec<u8> {
        self.0.code = Code {
            ops: build.finish(0).0,
            ..Code::default()
        };
        let mut context = Context {
            program: &self.0,
            state: &self.1,
            drop_port: 511,
            priority_queues: 1,
            now_ns: 0,
            trace: None,
            large: 0,
            memos: Memos::default(),
            registers: Registers::default(),
        };
        let mut packet = Packet {
            buf: buf.to_vec(),
            ..Packet::default()
        };
        context.execute(0, false, &mut packet).unwrap();
        packet.buf
    }
}

#[test]
fn assignments_are_as_written() {
    let machine = Machine::new();
    proptest!(ProptestConfig::with_cases(CASES), |(buf in buffer(), to in field(), from in expression())| {
        let mut build = Builder::default();
        // What has no operations is run as it is written.
        if build.set(to, &from).is_some() {
            build.push(Op::End);
            let mut expected = buf.clone();
            to.store(&mut expected, from.eval(&buf));
            prop_assert_eq!(machine.borrow_mut().run(build, &buf), expected);
        }
    });
}

#[test]
fn jumps_go_where_the_condition_says() {
    let machine = Machine::new();
    proptest!(ProptestConfig::with_cases(CASES), |(buf in buffer(), condition in condition(), when in any::<bool>())| {
        let mut build = Builder::default();
        let there = build.label();
        build.push(Op::Put1(VERDICT as u32, 1));
        build.jump(&condition, when, there);
        build.push(Op::Put1(VERDICT as u32, 0));
        build.bind(there);
        build.push(Op::End);
        let verdict = machine.borrow_mut().run(build, &buf)[VERDICT] == 1;
        prop_assert_eq!(verdict, condition.test(&buf) == when);
    });
}

/// An IPv4/UDP frame; its header checksum is right unless `wrong`.
fn frame(wrong: bool) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 1, 2,
    ]);
    let sum = crate::hash::internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&(sum ^ u16::from(wrong)).to_be_bytes());
    frame.extend([3, 232, 7, 208, 0, 8, 0, 0]);
    frame
}

/// A select that has no operations is run as it is written, and what comes after the parser, the
/// checksums, is not forgotten.
#[test]
fn selects_in_their_written_form_go_the_same_way() {
    let json = include_bytes!("../../testdata/forward.json");
    let program = Program::load(json).unwrap();
    let mut written = Program::load(json).unwrap();
    let code = &mut written.code;
    let mut replaced = 0;
    for (index, start) in code.states.iter().enumerate() {
        let ops = code.ops[*start as usize..].iter_mut();
        let ends = |op: &&mut Op| matches!(op, Op::Switch(..) | Op::Jump(_));
        if let Some(op @ Op::Switch(..)) = ops.into_iter().find(ends) {
            *op = Op::Select(index as u32);
            replaced += 1;
        }
    }
    assert!(replaced > 1);
    let frames = [
        frame(false),
        frame(true),
        frame(false)[..20].to_vec(),
        vec![1; 60],
    ];
    let parsed = |program: &Program| {
        let state = State::new(program);
        let mut context = Context {
            program,
            state: &state,
            drop_port: 511,
            now_ns: 0,
            trace: None,
            large: 0,
            memos: Memos::default(),
            priority_queues: 1,
            registers: Registers::default(),
        };
        let mut results = Vec::new();
        for frame in &frames {
            let mut packet = Packet::default();
            packet.reset(program, frame);
            context.parse(&mut packet);
            let error = (packet.parser_error, packet.checksum_error);
            results.push((error, packet.parsed, packet.buf));
        }
        results
    };
    let results = parsed(&program);
    assert_eq!(results, parsed(&written));
    let wrong: Vec<_> = results.iter().map(|r| r.0.1).collect();
    assert_eq!(wrong, [false, true, false, false]);
}
