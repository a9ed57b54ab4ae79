//! Registers whose cells take more than 128 bits, on the wire.

use num_bigint::{BigInt, BigUint};
use p4runtime::p4::v1 as pb;
use pb::p4_data::Data;

use super::fault::Fault;
use super::value::{canonical, padded};
use super::write::Writer;
use crate::info::{ArrayInfo, DataKind};
use crate::state::{State, lock};

/// What a cell holds.
pub(crate) fn register_data(state: &State, array: &ArrayInfo, index: usize) -> pb::P4Data {
    let cells = state.wide_registers.get(array.index);
    let cell = cells.and_then(|cells| lock(cells).get(index).cloned());
    let value = cell.unwrap_or_default();
    let bytes = match array.data {
        DataKind::Signed if value.bit(u64::from(array.width) - 1) => {
            let value = BigInt::from(value) - (BigInt::from(1) << array.width);
            value.to_signed_bytes_be()
        }
        DataKind::Signed => BigInt::from(value).to_signed_bytes_be(),
        _ => canonical(&value.to_bytes_be()),
    };
    pb::P4Data {
        data: Some(Data::Bitstring(bytes)),
    }
}

/// A cell's bit pattern.
fn pattern(data: Option<&pb::P4Data>, array: &ArrayInfo) -> Result<BigUint, Fault> {
    let name = || format!("register {}", array.name);
    let Some(Data::Bitstring(bytes)) = data.and_then(|d| d.data.as_ref()) else {
        return Err(Fault::invalid(format!(
            "{}: its data is no bit string",
            name()
        )));
    };
    if array.data != DataKind::Signed || bytes.is_empty() {
        let bytes = padded(bytes, array.width, array.width, name)?;
        return Ok(BigUint::from_bytes_be(&bytes));
    }
    let value = BigInt::from_signed_bytes_be(bytes);
    let half = BigInt::from(1) << (array.width - 1);
    if value < -half.clone() || value >= half {
        return Err(Fault::out_of_range(format!(
            "{}: the value does not fit in {} signed bits",
            name(),
            array.width
        )));
    }
    let span = BigInt::from(1) << array.width;
    let pattern: BigInt = value & (span - 1);
    Ok(pattern.into_parts().1)
}

impl Writer<'_> {
    /// Writes one cell, or all.
    pub(super) fn wide_register(
        &self,
        array: &ArrayInfo,
        wire: &pb::RegisterEntry,
    ) -> Result<(), Fault> {
        let value = pattern(wire.data.as_ref(), array)?;
        self.fill(array, wire.index, value, |state| &state.wide_registers)
    }
}
