//! One order for what a switch answers in any: by the program's tables, then by key.

use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4::v1::field_match::FieldMatchType;
use p4runtime::p4info::P4InfoIndex;

/// Compares as the numbers do whose canonical bytes these are.
type Number = (usize, Vec<u8>);

fn number(value: u64) -> Number {
    (size_of::<u64>(), value.to_be_bytes().to_vec())
}

/// Sorts entities: tables as in the program, the highest priority first, keys as numbers.
pub(super) fn sort(entities: &mut [pb::Entity], index: &P4InfoIndex) {
    entities.sort_by_cached_key(|entity| place(entity, index));
}

fn place(entity: &pb::Entity, index: &P4InfoIndex) -> Vec<Number> {
    use pb::packet_replication_engine_entry::Type;
    let cell = |id: u32, index: Option<pb::Index>| {
        let cell = index.map_or(0, |index| index.index.unsigned_abs());
        vec![number(id.into()), number(cell)]
    };
    let one =
        |entry: Option<&pb::TableEntry>| entry.map_or_else(Vec::new, |entry| key(entry, index));
    match &entity.entity {
        Some(Kind::TableEntry(entry)) => key(entry, index),
        Some(Kind::DirectCounterEntry(counter)) => one(counter.table_entry.as_ref()),
        Some(Kind::DirectMeterEntry(meter)) => one(meter.table_entry.as_ref()),
        Some(Kind::CounterEntry(counter)) => cell(counter.counter_id, counter.index),
        Some(Kind::MeterEntry(meter)) => cell(meter.meter_id, meter.index),
        Some(Kind::RegisterEntry(register)) => cell(register.register_id, register.index),
        Some(Kind::ActionProfileMember(member)) => vec![
            number(member.action_profile_id.into()),
            number(member.member_id.into()),
        ],
        Some(Kind::ActionProfileGroup(group)) => vec![
            number(group.action_profile_id.into()),
            number(group.group_id.into()),
        ],
        Some(Kind::PacketReplicationEngineEntry(entry)) => match &entry.r#type {
            Some(Type::MulticastGroupEntry(group)) => {
                vec![number(group.multicast_group_id.into())]
            }
            Some(Type::CloneSessionEntry(session)) => vec![number(session.session_id.into())],
            None => Vec::new(),
        },
        Some(Kind::DigestEntry(digest)) => vec![number(digest.digest_id.into())],
        Some(Kind::ValueSetEntry(set)) => vec![number(set.value_set_id.into())],
        Some(Kind::ExternEntry(one)) => {
            let message = one.entry.as_ref();
            let message = message.map_or_else(Vec::new, |any| any.value.clone());
            vec![number(one.extern_id.into()), (message.len(), message)]
        }
        None => Vec::new(),
    }
}

fn key(entry: &pb::TableEntry, index: &P4InfoIndex) -> Vec<Number> {
    let bytes = |bytes: &[u8]| (bytes.len(), bytes.to_vec());
    let tables = index.tables().iter();
    let table = tables
        .take_while(|table| table.id != entry.table_id)
        .count();
    let priority = i64::from(i32::MAX) - i64::from(entry.priority);
    let mut place = vec![number(table as u64), number(priority.unsigned_abs())];
    for one in &entry.r#match {
        place.push(number(one.field_id.into()));
        match &one.field_match_type {
            Some(FieldMatchType::Exact(exact)) => place.push(bytes(&exact.value)),
            Some(FieldMatchType::Lpm(lpm)) => {
                place.push(bytes(&lpm.value));
                place.push(number(u64::from(lpm.prefix_len.unsigned_abs())));
            }
            Some(FieldMatchType::Ternary(ternary)) => {
                place.push(bytes(&ternary.value));
                place.push(bytes(&ternary.mask));
            }
            Some(FieldMatchType::Range(range)) => {
                place.push(bytes(&range.low));
                place.push(bytes(&range.high));
            }
            Some(FieldMatchType::Optional(optional)) => place.push(bytes(&optional.value)),
            Some(FieldMatchType::Other(_)) | None => {}
        }
    }
    place
}
