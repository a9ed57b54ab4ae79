//! P4Runtime byte strings: at least one byte, shortest form (P4Runtime, "Bytestrings").

use p4runtime::p4::v1 as pb;
use pb::p4_data::Data;
use tonic::Code;

use super::fault::Fault;
use crate::info::{ArrayInfo, DataKind};

/// Checks a value against its width, and pads it to `bytes` bytes. The value may be padded with
/// zeros; one that is empty or too large is `OUT_OF_RANGE`.
pub(crate) fn padded(
    value: &[u8],
    width: u16,
    program_width: u16,
    what: impl Fn() -> String,
) -> Result<Vec<u8>, Fault> {
    if value.is_empty() {
        let fault = Fault::out_of_range(format!("{}: the value is empty", what()));
        return Err(fault.pi(Code::InvalidArgument));
    }
    let zeros = value.iter().take_while(|b| **b == 0).count();
    let significant = value.get(zeros..).unwrap_or_default();
    let bits = significant.first().map_or(0, |first| {
        significant.len() * 8 - first.leading_zeros() as usize
    });
    let limit = width.min(program_width);
    if bits > usize::from(limit) {
        let fault = Fault::out_of_range(format!(
            "{}: the value takes {bits} bits, there are {limit}",
            what()
        ));
        return Err(fault.pi(Code::InvalidArgument));
    }
    let bytes = usize::from(program_width).div_ceil(8);
    let mut out = vec![0; bytes.saturating_sub(significant.len())];
    out.extend_from_slice(significant);
    Ok(out)
}

/// The shortest form: no leading zeros, at least one byte.
pub(crate) fn canonical(value: &[u8]) -> Vec<u8> {
    let zeros = value.iter().take_while(|b| **b == 0).count();
    let zeros = zeros.min(value.len().saturating_sub(1));
    match value.get(zeros..) {
        Some(rest) if !rest.is_empty() => rest.to_vec(),
        _ => vec![0],
    }
}

/// A port of at most 32 bits.
pub(crate) fn port(value: &[u8], what: &str) -> Result<u32, Fault> {
    let bytes = padded(value, 32, 32, || what.to_owned())?;
    Ok(bytes.iter().fold(0, |port, b| port << 8 | u32::from(*b)))
}

/// The bits of a register's cell, from `P4Data` of the cell's type.
pub(crate) fn data_bits(data: Option<&pb::P4Data>, array: &ArrayInfo) -> Result<u128, Fault> {
    let what = || format!("register {}", array.name);
    let fold = |bytes: &[u8]| bytes.iter().fold(0_u128, |v, b| v << 8 | u128::from(*b));
    let data = data.and_then(|d| d.data.as_ref());
    let data = data.ok_or_else(|| Fault::invalid(format!("{}: the data is missing", what())))?;
    match (array.data, data) {
        (DataKind::Bits, Data::Bitstring(value)) | (DataKind::Enum, Data::EnumValue(value)) => {
            padded(value, array.width, array.width, what).map(|bytes| fold(&bytes))
        }
        (DataKind::Bool, Data::Bool(value)) => Ok(u128::from(*value)),
        (DataKind::Signed, Data::Bitstring(value)) => signed(value, array.width, &what),
        (kind, _) => Err(Fault::invalid(format!(
            "{}: its data is {}",
            what(),
            match kind {
                DataKind::Bits | DataKind::Signed => "a bit string",
                DataKind::Bool => "a boolean",
                DataKind::Enum => "an enumeration's value",
            }
        ))),
    }
}

/// A signed value's two's complement of `width` bits, without the copies of its sign.
fn signed(value: &[u8], width: u16, what: &dyn Fn() -> String) -> Result<u128, Fault> {
    let out_of_range = |why: String| Fault::out_of_range(format!("{}: {why}", what()));
    let first = value.first();
    let first = *first.ok_or_else(|| out_of_range("the value is empty".into()))?;
    let fill = if first & 0x80 == 0 { 0 } else { 0xff };
    let copies = value.iter().take_while(|b| **b == fill).count();
    let rest = value.get(copies..).unwrap_or_default();
    let bits = match rest.first() {
        None => 1,
        Some(first) => rest.len() * 8 - (first ^ fill).leading_zeros() as usize + 1,
    };
    if bits > usize::from(width) {
        let why = format!("the value takes {bits} bits with its sign, there are {width}");
        return Err(out_of_range(why));
    }
    let all = u128::MAX.checked_shr(128 - u32::from(width)).unwrap_or(0);
    let start = if fill == 0 { 0 } else { u128::MAX };
    let value = rest.iter().fold(start, |v, b| v << 8 | u128::from(*b));
    Ok(value & all)
}

/// A register's cell as `P4Data` of the cell's type.
pub(crate) fn wire_data(value: u128, array: &ArrayInfo) -> pb::P4Data {
    let bytes = value.to_be_bytes();
    let data = match array.data {
        DataKind::Bits => Data::Bitstring(canonical(&bytes)),
        DataKind::Enum => Data::EnumValue(canonical(&bytes)),
        DataKind::Bool => Data::Bool(value != 0),
        DataKind::Signed => {
            let unused = 128_u32.saturating_sub(array.width.into()).min(127);
            let value = (value << unused) as i128 >> unused;
            let bits = 129 - (value ^ (value >> 127)).leading_zeros();
            let skip = 16 - (bits.div_ceil(8) as usize).clamp(1, 16);
            let bytes = value.to_be_bytes();
            Data::Bitstring(bytes.get(skip..).unwrap_or_default().to_vec())
        }
    };
    pb::P4Data { data: Some(data) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn padding_is_accepted_and_excess_is_not() {
        let name = || "f".to_owned();
        assert_eq!(padded(&[0, 0, 1], 9, 9, name), Ok(vec![0, 1]));
        assert_eq!(padded(&[1, 0xff], 9, 9, name), Ok(vec![1, 0xff]));
        let code = |r: Result<Vec<u8>, Fault>| r.unwrap_err().code;
        assert_eq!(code(padded(&[2, 0], 9, 9, name)), Code::OutOfRange);
        assert_eq!(code(padded(&[], 9, 9, name)), Code::OutOfRange);
        assert_eq!(canonical(&[0, 0, 5]), [5]);
        assert_eq!(canonical(&[0, 0]), [0]);
    }

    fn register(width: u16, data: DataKind) -> ArrayInfo {
        ArrayInfo {
            name: "r".into(),
            index: 0,
            size: 1,
            width,
            data,
        }
    }

    /// The specification's examples ("Valid Bytestring Encoding").
    #[test]
    fn signed_values_are_twos_complement_in_the_shortest_form() {
        let data = |value: &[u8]| pb::P4Data {
            data: Some(Data::Bitstring(value.to_vec())),
        };
        let cases: [(u16, &[u8], u128, &[u8]); 7] = [
            (8, &[0x63], 0x63, &[0x63]),
            (8, &[0x9d], 0x9d, &[0x9d]),
            (8, &[0xff, 0x9d], 0x9d, &[0x9d]),
            (12, &[0xfd, 0x1d], 0xd1d, &[0xfd, 0x1d]),
            (16, &[0, 0], 0, &[0]),
            (16, &[0xff], 0xffff, &[0xff]),
            (128, &[0x80; 1], u128::MAX - 0x7f, &[0x80]),
        ];
        for (width, wire, value, back) in cases {
            let register = register(width, DataKind::Signed);
            assert_eq!(data_bits(Some(&data(wire)), &register), Ok(value));
            assert_eq!(wire_data(value, &register), data(back), "{width} {value}");
        }
        let bad: [(u16, &[u8]); 4] = [(8, &[0, 0x9d]), (12, &[0x8d, 0x1d]), (16, &[]), (1, &[1])];
        for (width, wire) in bad {
            let refused = data_bits(Some(&data(wire)), &register(width, DataKind::Signed));
            assert_eq!(refused.unwrap_err().code, Code::OutOfRange, "{wire:?}");
        }
    }

    #[test]
    fn a_registers_data_is_of_its_type() {
        let flag = pb::P4Data {
            data: Some(Data::Bool(true)),
        };
        let bools = register(1, DataKind::Bool);
        assert_eq!(data_bits(Some(&flag), &bools), Ok(1));
        assert_eq!(wire_data(1, &bools), flag);
        let bits = register(8, DataKind::Bits);
        for wrong in [Some(&flag), None] {
            let refused = data_bits(wrong, &bits).unwrap_err();
            assert_eq!(refused.code, Code::InvalidArgument);
        }
    }
}
