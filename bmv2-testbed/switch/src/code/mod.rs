//! The program as straight code: what packets run that nobody traces.
//!
//! [`crate::program`] is the program as it is written: expressions are trees, a control flow is a
//! graph of tables, conditions and actions. That form is what tests and traces follow step by
//! step. When a program is loaded, this module flattens it once more: parser, pipelines and
//! actions become one list of small operations with jumps between them, conditions become
//! jumps, a sum of fields becomes loads and additions of 64-bit registers, and what is computed
//! twice within a statement is computed once.
//!
//! Whatever has no operation of its own (varbits, stack elements, values over 64 bits, …) stays
//! one step of the written form, so nothing has to be known here to be right. The two forms are
//! held against each other by the tests.

mod build;
mod control;
mod effect;
mod expr;
mod parser;
mod special;
#[cfg(test)]
mod tests;

use crate::bits::Field;
use crate::exec::expr::Expr;

/// A place in the code.
pub(crate) type At = u32;

/// A register: 64 bits, valid within one statement.
pub(crate) type Reg = u8;

/// How many registers there are; a power of two, so that any number names one.
pub(crate) const REGISTERS: usize = 64;

/// The code of a program. A part that is absent runs in its written form.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub(crate) ops: Vec<Op>,
    pub(crate) parser: Option<At>,
    pub(crate) ingress: Option<At>,
    /// Parser, checksums and ingress in one.
    pub(crate) whole: Option<At>,
    pub(crate) egress: Option<At>,
    /// The checksums to verify, after an error of the parser (else its code goes on there), and
    /// those to update.
    pub(crate) verify: Option<At>,
    pub(crate) update: Option<At>,
    /// Where the parser goes on when it accepts: the same as `verify`.
    pub(crate) accept: At,
    /// Where each parser state starts.
    pub(crate) states: Vec<At>,
    /// Where to go on after each table; behind them, after those of [`special`].
    pub(crate) tables: Vec<Targets>,
    /// The headers of the frame, in order.
    pub(crate) emit: Vec<Emit>,
}

/// Headers of the frame, one after the other.
#[derive(Debug)]
pub(crate) enum Emit {
    /// At most eight, whose validity bytes follow each other from `valid` on: where each is, and
    /// how long.
    Plain {
        valid: usize,
        parts: Vec<(usize, usize)>,
    },
    /// One with a varbit, by its index.
    Header(usize),
}

/// Headers in one [`Emit::Plain`]: as many validity bytes as are looked at together.
pub(crate) const EMIT_HEADERS: usize = 8;

/// Where to go on after a table, by slot: the action's code, then the next node's.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) hit: Box<[At]>,
    pub(crate) miss: Box<[At]>,
    /// When no action runs.
    pub(crate) nothing: At,
}

/// One case of a select.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) value: u64,
    pub(crate) mask: u64,
    pub(crate) to: At,
}

/// Bytes of the packet-state buffer that an operation reads or writes as one number, most
/// significant byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Size {
    One,
    Two,
    Four,
    Eight,
}

impl Size {
    /// The size that holds so many bytes.
    pub(crate) fn of(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            3 | 4 => Some(Self::Four),
            5..=8 => Some(Self::Eight),
            _ => None,
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// An operation that yields a number and does nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pure {
    Const(u64),
    /// The number of `Size` bytes at `at`, shifted right and masked.
    Load1(At, u8, u8),
    Load2(At, u8, u16),
    Load4(At, u8, u32),
    Load8(At, u8, u64),
    Add(Reg, Reg),
    Subtract(Reg, Reg),
    Multiply(Reg, Reg),
    And(Reg, Reg),
    Or(Reg, Reg),
    Xor(Reg, Reg),
    AddConst(Reg, u64),
    AndConst(Reg, u64),
    OrConst(Reg, u64),
    XorConst(Reg, u64),
    ShiftLeft(Reg, u8),
    ShiftRight(Reg, u8),
}

/// One operation. A jump's last argument is where it goes.
///
/// The representation puts the tag first, as a byte: finding the operation's code takes the
/// fewest steps.
#[derive(Clone, Debug)]
#[repr(u8)]
pub(crate) enum Op {
    Jump(At),
    /// The parser accepts, the pipeline ends.
    End,
    /// The pipeline ends behind the action.
    Exit,
    /// Where it does.
    EndIfExited,
    /// Counts a parser state, in parsers that can loop.
    Visit,

    /// Jumps if the masked bytes are these. Masks and values are in the machine's byte order.
    IfEqual1(At, u8, u8, At),
    IfEqual2(At, u16, u16, At),
    IfEqual4(At, u32, u32, At),
    IfEqual8(At, u64, u64, At),
    /// Jumps if they are not.
    UnlessEqual1(At, u8, u8, At),
    UnlessEqual2(At, u16, u16, At),
    UnlessEqual4(At, u32, u32, At),
    UnlessEqual8(At, u64, u64, At),
    IfSame(Reg, Reg, At),
    UnlessSame(Reg, Reg, At),
    IfLess(Reg, Reg, At),
    UnlessLess(Reg, Reg, At),
    IfConst(Reg, u64, At),
    UnlessConst(Reg, u64, At),
    IfLessConst(Reg, u64, At),
    UnlessLessConst(Reg, u64, At),
    /// Jumps if an expression in its written form is (is not) true.
    Test(Box<Expr>, bool, At),
    Switch(Reg, Box<[Case]>, At),

    Const(Reg, u64),
    Load1(Reg, At, u8, u8),
    Load2(Reg, At, u8, u16),
    Load4(Reg, At, u8, u32),
    Load8(Reg, At, u8, u64),
    Add(Reg, Reg, Reg),
    Subtract(Reg, Reg, Reg),
    Multiply(Reg, Reg, Reg),
    And(Reg, Reg, Reg),
    Or(Reg, Reg, Reg),
    Xor(Reg, Reg, Reg),
    AddConst(Reg, Reg, u64),
    AndConst(Reg, Reg, u64),
    OrConst(Reg, Reg, u64),
    XorConst(Reg, Reg, u64),
    ShiftLeft(Reg, Reg, u8),
    ShiftRight(Reg, Reg, u8),
    Store1(At, Reg),
    Store2(At, Reg),
    Store4(At, Reg),
    Store8(At, Reg),
    StoreField(Field, Reg),
    Put1(At, u8),
    Put2(At, [u8; 2]),
    Put4(At, [u8; 4]),
    Put8(At, [u8; 8]),
    PutField(Field, u64),
    Put(At, Box<[u8]>),
    Zero(At, u32),
    /// To, from.
    Copy1(At, At),
    Copy2(At, At),
    Copy4(At, At),
    Copy6(At, At),
    Copy8(At, At),
    Copy16(At, At),
    Copy(At, At, u32),

    /// Copies the packet's next bytes to a header, which becomes valid.
    Extract {
        to: At,
        len: u32,
        valid: At,
    },
    /// Copies bytes further on in the packet, without taking them.
    Peek {
        to: At,
        offset: u32,
        len: u32,
    },
    AddHeader {
        start: At,
        len: u32,
        valid: At,
    },
    RemoveHeader {
        len: u32,
        valid: At,
    },
    /// Copies a header with its validity.
    AssignHeader {
        to: (At, At),
        from: (At, At),
        len: u32,
    },
    MarkToDrop,
    Hash {
        to: Field,
        base: u64,
        size: u64,
        calculation: u32,
    },

    /// Verifies or updates a checksum, whatever its condition says.
    Verify(u32),
    Update(u32),
    /// Looks the packet up in a table and goes where its [`Targets`], by their number, say.
    Table(u32, u32),
    /// The parser has accepted: the program is told so.
    Parsed,
    /// One instruction in its written form: action, position.
    Step(u32, u32),
    /// A whole action in its written form.
    Run(u32),
    /// One operation of a parser state in its written form: state, position.
    ParserStep(u32, u32),
    /// A parser state's select in its written form; goes to the state that it chooses.
    Select(u32),
}

impl Op {
    /// The operation that puts a result into a register.
    fn set(to: Reg, from: Pure) -> Self {
        match from {
            Pure::Const(value) => Self::Const(to, value),
            Pure::Load1(at, shift, mask) => Self::Load1(to, at, shift, mask),
            Pure::Load2(at, shift, mask) => Self::Load2(to, at, shift, mask),
            Pure::Load4(at, shift, mask) => Self::Load4(to, at, shift, mask),
            Pure::Load8(at, shift, mask) => Self::Load8(to, at, shift, mask),
            Pure::Add(a, b) => Self::Add(to, a, b),
            Pure::Subtract(a, b) => Self::Subtract(to, a, b),
            Pure::Multiply(a, b) => Self::Multiply(to, a, b),
            Pure::And(a, b) => Self::And(to, a, b),
            Pure::Or(a, b) => Self::Or(to, a, b),
            Pure::Xor(a, b) => Self::Xor(to, a, b),
            Pure::AddConst(a, value) => Self::AddConst(to, a, value),
            Pure::AndConst(a, value) => Self::AndConst(to, a, value),
            Pure::OrConst(a, value) => Self::OrConst(to, a, value),
            Pure::XorConst(a, value) => Self::XorConst(to, a, value),
            Pure::ShiftLeft(a, by) => Self::ShiftLeft(to, a, by),
            Pure::ShiftRight(a, by) => Self::ShiftRight(to, a, by),
        }
    }

    /// Where the operation may jump to.
    fn target(&mut self) -> Option<&mut At> {
        match self {
            Self::Jump(to)
            | Self::IfEqual1(.., to)
            | Self::IfEqual2(.., to)
            | Self::IfEqual4(.., to)
            | Self::IfEqual8(.., to)
            | Self::UnlessEqual1(.., to)
            | Self::UnlessEqual2(.., to)
            | Self::UnlessEqual4(.., to)
            | Self::UnlessEqual8(.., to)
            | Self::IfSame(.., to)
            | Self::UnlessSame(.., to)
            | Self::IfLess(.., to)
            | Self::UnlessLess(.., to)
            | Self::IfConst(.., to)
            | Self::UnlessConst(.., to)
            | Self::IfLessConst(.., to)
            | Self::UnlessLessConst(.., to)
            | Self::Test(.., to)
            | Self::Switch(.., to) => Some(to),
            _ => None,
        }
    }
}
