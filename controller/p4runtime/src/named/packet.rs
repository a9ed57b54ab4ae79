//! Packets to and from the controller, their metadata by name.

use super::error::fault;
use super::{NamedError, Pairs};
use crate::p4::v1 as pb;
use crate::p4info::P4InfoIndex;
use crate::value::{Format, format_value, parse_value};

/// The metadata of a packet in, by name.
pub fn packet_in_fields(packet: &pb::PacketIn, index: &P4InfoIndex) -> Pairs {
    let header = index.packet_header("packet_in").ok();
    let pair = |metadata: &pb::PacketMetadata| {
        let field = header.and_then(|header| header.field_by_id(metadata.metadata_id).ok());
        match field {
            Some(field) => (
                field.name.clone(),
                format_value(&metadata.value, field.bitwidth, field.format),
            ),
            None => (
                format!("#{}", metadata.metadata_id),
                format_value(&metadata.value, u32::MAX, Format::Hex),
            ),
        }
    };
    Pairs(packet.metadata.iter().map(pair).collect())
}

/// A packet out with metadata given as `name=value`. A field that is padding by
/// its name (`pad`, `_pad`, `padding`) may be left out and is 0.
///
/// # Errors
/// [`NamedError`] for a name that the header has not, a value that does not fit,
/// and a field that is missing.
pub fn packet_out(
    payload: Vec<u8>,
    words: &[String],
    index: &P4InfoIndex,
) -> Result<pb::PacketOut, NamedError> {
    let mut metadata: Vec<pb::PacketMetadata> = Vec::with_capacity(words.len());
    let header = match index.packet_header("packet_out") {
        Ok(header) => header,
        Err(_) if words.is_empty() => {
            return Ok(pb::PacketOut { payload, metadata });
        }
        Err(_) => {
            return fault("the pipeline has no packet_out header: a packet out takes no fields");
        }
    };
    for word in words {
        let Some((name, text)) = word.split_once('=') else {
            return fault(format!("{word:?} is not field=value"));
        };
        let field = header.field(name)?;
        let place = format!("packet_out, field {name:?}");
        let value = parse_value(text, field.bitwidth, field.format)
            .map_err(|source| NamedError::Value { place, source })?;
        if metadata.iter().any(|one| one.metadata_id == field.id) {
            return fault(format!("packet_out: the field {name:?} is given twice"));
        }
        metadata.push(pb::PacketMetadata {
            metadata_id: field.id,
            value,
        });
    }
    for field in &header.fields {
        if metadata.iter().any(|one| one.metadata_id == field.id) {
            continue;
        }
        if !field.name.trim_start_matches('_').starts_with("pad") {
            let takes = crate::value::expected(field.bitwidth, field.format);
            return fault(format!(
                "packet_out: the field {:?} is missing; it takes {takes}",
                field.name
            ));
        }
        metadata.push(pb::PacketMetadata {
            metadata_id: field.id,
            value: vec![0],
        });
    }
    metadata.sort_by_key(|one| one.metadata_id);
    Ok(pb::PacketOut { payload, metadata })
}
