//! P4Runtime byte strings: at least one byte, shortest form (P4Runtime, "Bytestrings").

use super::fault::Fault;

/// Checks a value against its width, and pads it to `bytes` bytes. The value may be padded with
/// zeros; one that is empty or too large is `OUT_OF_RANGE`.
pub(crate) fn padded(
    value: &[u8],
    width: u16,
    program_width: u16,
    what: impl Fn() -> String,
) -> Result<Vec<u8>, Fault> {
    if value.is_empty() {
        return Err(Fault::out_of_range(format!(
            "{}: the value is empty",
            what()
        )));
    }
    let zeros = value.iter().take_while(|b| **b == 0).count();
    let significant = value.get(zeros..).unwrap_or_default();
    let bits = significant.first().map_or(0, |first| {
        significant.len() * 8 - first.leading_zeros() as usize
    });
    let limit = width.min(program_width);
    if bits > usize::from(limit) {
        return Err(Fault::out_of_range(format!(
            "{}: the value takes {bits} bits, there are {limit}",
            what()
        )));
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
}
