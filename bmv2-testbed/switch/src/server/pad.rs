//! Values zero-padded to their full width, as servers before P4Runtime 1.3 sent them.

use std::collections::HashMap;

use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::field_match::FieldMatchType;
use pb::stream_message_response::Update;

use crate::info::{Info, PacketField};

fn value(value: &mut Vec<u8>, width: u16) {
    let bytes = usize::from(width).div_ceil(8);
    if let Some(missing) = bytes.checked_sub(value.len()) {
        value.splice(0..0, std::iter::repeat_n(0, missing));
    }
}

fn action(info: &Info, action: &mut pb::Action) {
    let Some(found) = info.actions.get(&action.action_id) else {
        return;
    };
    for param in &mut action.params {
        if let Some(described) = found.params.iter().find(|p| p.id == param.param_id) {
            value(&mut param.value, described.width);
        }
    }
}

fn table_entry(info: &Info, entry: &mut pb::TableEntry) {
    let fields = info.tables.get(&entry.table_id).map(|t| &t.fields);
    let widths: HashMap<u32, u16> = fields
        .into_iter()
        .flatten()
        .map(|f| (f.id, f.width))
        .collect();
    for field in &mut entry.r#match {
        let Some(width) = widths.get(&field.field_id).copied() else {
            continue;
        };
        match &mut field.field_match_type {
            Some(FieldMatchType::Exact(exact)) => value(&mut exact.value, width),
            Some(FieldMatchType::Lpm(lpm)) => value(&mut lpm.value, width),
            Some(FieldMatchType::Ternary(ternary)) => {
                value(&mut ternary.value, width);
                value(&mut ternary.mask, width);
            }
            Some(FieldMatchType::Range(range)) => {
                value(&mut range.low, width);
                value(&mut range.high, width);
            }
            Some(FieldMatchType::Optional(optional)) => value(&mut optional.value, width),
            Some(FieldMatchType::Other(_)) | None => {}
        }
    }
    match entry.action.as_mut().and_then(|a| a.r#type.as_mut()) {
        Some(pb::table_action::Type::Action(call)) => action(info, call),
        Some(pb::table_action::Type::ActionProfileActionSet(set)) => {
            let actions = set.action_profile_actions.iter_mut();
            let actions = actions.flat_map(|a| &mut a.action);
            actions.for_each(|call| action(info, call));
        }
        _ => {}
    }
}

/// Pads an answer to a read.
pub(crate) fn entity(info: &Info, entity: &mut Entity) {
    match entity {
        Entity::TableEntry(entry) => table_entry(info, entry),
        Entity::ActionProfileMember(member) => {
            member.action.iter_mut().for_each(|call| action(info, call));
        }
        Entity::DirectCounterEntry(counter) => {
            let entries = counter.table_entry.iter_mut();
            entries.for_each(|entry| table_entry(info, entry));
        }
        Entity::DirectMeterEntry(meter) => {
            let entries = meter.table_entry.iter_mut();
            entries.for_each(|entry| table_entry(info, entry));
        }
        Entity::RegisterEntry(register) => {
            let data = register.data.as_mut().and_then(|d| d.data.as_mut());
            if let (Some(array), Some(pb::p4_data::Data::Bitstring(bits))) =
                (info.registers.get(&register.register_id), data)
            {
                value(bits, array.width);
            }
        }
        _ => {}
    }
}

/// Pads a message of the stream.
pub(crate) fn message(info: &Info, update: &mut Update) {
    match update {
        Update::Packet(packet) => {
            for metadata in &mut packet.metadata {
                let of = |f: &&PacketField| f.id == metadata.metadata_id;
                if let Some(field) = info.packet_in.iter().find(of) {
                    value(&mut metadata.value, field.width);
                }
            }
        }
        Update::IdleTimeoutNotification(idle) => {
            let entries = idle.table_entry.iter_mut();
            entries.for_each(|entry| table_entry(info, entry));
        }
        _ => {}
    }
}
