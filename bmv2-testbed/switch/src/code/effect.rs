//! What operations test, and what they write.

use super::{At, Op, Size};
use crate::bits::Field;
use crate::program::Program;
use crate::program::layout::STATE_BYTES;

/// Bytes of the packet state that an operation compares with constants.
pub(super) struct Test {
    pub(super) at: At,
    pub(super) masks: Vec<u8>,
    pub(super) values: Vec<u8>,
    /// Whether it jumps if they are equal, or if they are not.
    pub(super) jumps_if: bool,
    pub(super) to: At,
}

/// What is written.
pub(super) enum Source {
    Bytes(Vec<u8>),
    /// The bytes that were here before the operation.
    From(At),
    Unknown,
}

/// Where, how many bytes, and what.
pub(super) type Write = (At, u32, Source);

/// The bytes that a write of a field may change.
pub(super) fn bytes_of(field: Field) -> (At, u32) {
    let first = (field.first_bit() / 8) as At;
    let first = first.min(field.last + 1 - u32::from(field.own));
    (first, field.last + 1 - first)
}

fn unknown(field: Field) -> Write {
    let (at, len) = bytes_of(field);
    (at, len, Source::Unknown)
}

impl Op {
    /// Its comparison, if it is a jump on one.
    pub(super) fn test(&self) -> Option<Test> {
        let (at, masks, values, to): (_, Vec<u8>, Vec<u8>, _) = match self {
            Self::IfEqual1(at, mask, value, to) | Self::UnlessEqual1(at, mask, value, to) => {
                (*at, vec![*mask], vec![*value], *to)
            }
            Self::IfEqual2(at, mask, value, to) | Self::UnlessEqual2(at, mask, value, to) => {
                let (mask, value) = (mask.to_ne_bytes(), value.to_ne_bytes());
                (*at, mask.into(), value.into(), *to)
            }
            Self::IfEqual4(at, mask, value, to) | Self::UnlessEqual4(at, mask, value, to) => {
                let (mask, value) = (mask.to_ne_bytes(), value.to_ne_bytes());
                (*at, mask.into(), value.into(), *to)
            }
            Self::IfEqual8(at, mask, value, to) | Self::UnlessEqual8(at, mask, value, to) => {
                let (mask, value) = (mask.to_ne_bytes(), value.to_ne_bytes());
                (*at, mask.into(), value.into(), *to)
            }
            _ => return None,
        };
        let jumps_if = matches!(
            self,
            Self::IfEqual1(..) | Self::IfEqual2(..) | Self::IfEqual4(..) | Self::IfEqual8(..)
        );
        Some(Test {
            at,
            masks,
            values,
            jumps_if,
            to,
        })
    }

    /// To, from and length of a copy.
    pub(super) fn as_copy(&self) -> Option<(At, At, u32)> {
        Some(match self {
            Self::Copy1(to, from) => (*to, *from, 1),
            Self::Copy2(to, from) => (*to, *from, 2),
            Self::Copy4(to, from) => (*to, *from, 4),
            Self::Copy6(to, from) => (*to, *from, 6),
            Self::Copy8(to, from) => (*to, *from, 8),
            Self::Copy16(to, from) => (*to, *from, 16),
            Self::Copy(to, from, len) => (*to, *from, *len),
            _ => return None,
        })
    }

    /// Place and bytes of a constant.
    pub(super) fn as_put(&self) -> Option<(At, Vec<u8>)> {
        Some(match self {
            Self::Put1(at, byte) => (*at, vec![*byte]),
            Self::Put2(at, bytes) => (*at, bytes.to_vec()),
            Self::Put4(at, bytes) => (*at, bytes.to_vec()),
            Self::Put8(at, bytes) => (*at, bytes.to_vec()),
            Self::Put(at, bytes) => (*at, bytes.to_vec()),
            Self::Zero(at, len) => (*at, vec![0; *len as usize]),
            _ => return None,
        })
    }

    /// What it writes to the packet state; none if that may be anything.
    pub(super) fn writes(&self, program: &Program) -> Option<Vec<Write>> {
        if let Some((to, from, len)) = self.as_copy() {
            return Some(vec![(to, len, Source::From(from))]);
        }
        if let Some((at, bytes)) = self.as_put() {
            return Some(vec![(at, bytes.len() as u32, Source::Bytes(bytes))]);
        }
        let store = |at: At, size: Size| vec![(at, size.bytes() as u32, Source::Unknown)];
        let valid = |at: At, valid: bool| (at, 1, Source::Bytes(vec![valid.into()]));
        let standard = &program.standard;
        Some(match self {
            Self::Store1(at, _) => store(*at, Size::One),
            Self::Store2(at, _) => store(*at, Size::Two),
            Self::Store4(at, _) => store(*at, Size::Four),
            Self::Store8(at, _) => store(*at, Size::Eight),
            Self::StoreField(to, _) | Self::PutField(to, _) | Self::Hash { to, .. } => {
                vec![unknown(*to)]
            }
            Self::Extract { to, len, valid: at } => {
                vec![(*to, *len, Source::Unknown), valid(*at, true)]
            }
            Self::Peek { to, len, .. } => vec![(*to, *len, Source::Unknown)],
            Self::AddHeader {
                start,
                len,
                valid: at,
            } => vec![(*start, *len, Source::Unknown), valid(*at, true)],
            Self::RemoveHeader { valid: at, .. } => vec![valid(*at, false)],
            Self::AssignHeader { to, from, len } => {
                vec![
                    (to.0, *len, Source::Unknown),
                    (to.1, 1, Source::From(from.1)),
                ]
            }
            Self::MarkToDrop => {
                let group = standard.mcast_grp.map(unknown);
                [unknown(standard.egress_spec)]
                    .into_iter()
                    .chain(group)
                    .collect()
            }
            Self::Table(index, _) => {
                let args = program.layout.args_start as u32;
                let table = program.tables.get(*index as usize);
                let meter = table.and_then(|t| t.meter).map(|(_, to)| unknown(to));
                let args = (args, STATE_BYTES as u32 - args, Source::Unknown);
                [args].into_iter().chain(meter).collect()
            }
            Self::Update(index) => {
                let checksum = program.update.get(*index as usize);
                checksum.map(|c| unknown(c.target)).into_iter().collect()
            }
            Self::Parsed => {
                let none = program.errors.none;
                let error = standard.parser_error.map(|field| {
                    let mut bytes = vec![0; STATE_BYTES];
                    field.store(&mut bytes, i128::from(none));
                    let (at, len) = bytes_of(field);
                    // Bits beside it are not its own.
                    let whole = field.own > 0;
                    let value = bytes.get(at as usize..(at + len) as usize);
                    match value.filter(|_| whole) {
                        Some(value) => (at, len, Source::Bytes(value.into())),
                        None => unknown(field),
                    }
                });
                let checksum = standard.checksum_error.map(unknown);
                error.into_iter().chain(checksum).collect()
            }
            Self::Step(..) | Self::Run(_) | Self::ParserStep(..) => return None,
            _ => Vec::new(),
        })
    }
}
