//! Packet-in and packet-out: the controller header in front of a frame of the CPU port.

use p4runtime::p4::v1 as pb;

use super::fault::Fault;
use super::value::{canonical, padded};
use crate::bits::copy_bits;
use crate::info::PacketField;
use crate::port::MAX_FRAME_BYTES;

fn header_bits(fields: &[PacketField]) -> usize {
    fields.iter().map(|f| usize::from(f.width)).sum()
}

/// Splits a frame of the CPU port into metadata and payload; none if it is too short.
pub(crate) fn packet_in(fields: &[PacketField], frame: &[u8]) -> Option<pb::PacketIn> {
    let bytes = header_bits(fields).div_ceil(8);
    let payload = frame.get(bytes..)?.to_vec();
    let mut at = 0;
    let mut metadata = Vec::with_capacity(fields.len());
    for field in fields {
        let width = usize::from(field.width);
        let mut value = vec![0; width.div_ceil(8)];
        let padding = value.len() * 8 - width;
        copy_bits(frame, at, &mut value, padding, width);
        at += width;
        metadata.push(pb::PacketMetadata {
            metadata_id: field.id,
            value: canonical(&value),
        });
    }
    Some(pb::PacketIn { payload, metadata })
}

/// Puts metadata in front of the payload. Every field has to be given, unless the server is
/// `lenient`: then it is 0.
pub(crate) fn packet_out(
    fields: &[PacketField],
    packet: &pb::PacketOut,
    lenient: bool,
) -> Result<Vec<u8>, Fault> {
    let mut frame = vec![0; header_bits(fields).div_ceil(8)];
    if frame.len() + packet.payload.len() > MAX_FRAME_BYTES {
        return Err(Fault::invalid("the packet-out is longer than a frame"));
    }
    let mut at = 0;
    for field in fields {
        let what = || format!("packet_out field {}", field.name);
        let mut given = packet.metadata.iter().filter(|m| m.metadata_id == field.id);
        let Some(found) = given.next() else {
            if !lenient {
                return Err(Fault::invalid(format!("{}: it is missing", what())));
            }
            at += usize::from(field.width);
            continue;
        };
        if given.next().is_some() {
            return Err(Fault::invalid(format!("{}: it is given twice", what())));
        }
        let value = padded(&found.value, field.width, field.width, what)?;
        let width = usize::from(field.width);
        copy_bits(&value, value.len() * 8 - width, &mut frame, at, width);
        at += width;
    }
    let known = |id: u32| fields.iter().any(|f| f.id == id);
    if let Some(unknown) = packet.metadata.iter().find(|m| !known(m.metadata_id)) {
        return Err(Fault::invalid(format!(
            "packet_out has no metadata field of id {}",
            unknown.metadata_id
        )));
    }
    frame.extend_from_slice(&packet.payload);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_packed_in_order() {
        let field = |id, width| PacketField {
            id,
            name: format!("f{id}"),
            width,
        };
        let fields = [field(1, 9), field(2, 7)];
        let meta = |metadata_id, value: &[u8]| pb::PacketMetadata {
            metadata_id,
            value: value.to_vec(),
        };
        let out = pb::PacketOut {
            payload: vec![0xaa],
            metadata: vec![meta(2, &[3]), meta(1, &[1, 0])],
        };
        let frame = packet_out(&fields, &out, false).unwrap();
        assert_eq!(frame, [0x80, 0x03, 0xaa]);
        let back = packet_in(&fields, &frame).unwrap();
        assert_eq!(back.payload, [0xaa]);
        assert_eq!(back.metadata, [meta(1, &[1, 0]), meta(2, &[3])]);
        assert!(packet_in(&fields, &[1]).is_none());
        let short = pb::PacketOut {
            payload: vec![],
            metadata: vec![meta(1, &[1])],
        };
        assert!(packet_out(&fields, &short, false).is_err());
        assert_eq!(packet_out(&fields, &short, true).unwrap(), [0, 0x80]);
        let mut unknown = short;
        unknown.metadata.push(meta(3, &[1]));
        assert!(packet_out(&fields, &unknown, true).is_err());
    }
}
