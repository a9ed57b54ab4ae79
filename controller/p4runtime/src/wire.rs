//! Updates straight to bytes. Whoever writes a million entries a second keeps them
//! in types of their own, and builds no message for each.

pub use prost::bytes::BytesMut;

use crate::p4::v1 as pb;

/// `WriteRequest.updates`.
const UPDATES_TAG: u32 = 4;
/// The longest update that [`put_table_update`] writes by itself.
const UPDATE_BYTES_MAX: usize = 1024;

/// Something that a Write can carry as an update.
pub trait WireUpdate {
    /// Appends itself as one `updates` field of a `WriteRequest`.
    fn append_to(&self, request: &mut BytesMut);
}

impl WireUpdate for pb::Update {
    fn append_to(&self, request: &mut BytesMut) {
        prost::encoding::message::encode(UPDATES_TAG, self, request);
    }
}

/// A table's entry in numbers: exact matches and a direct action.
#[derive(Clone, Debug)]
pub struct ExactEntry<'a> {
    /// The table's id.
    pub table_id: u32,
    /// Ids and values of the match fields, in order.
    pub matches: &'a [(u32, u128)],
    /// The action's id, ids and values of its parameters; DELETE needs none.
    pub action: Option<(u32, &'a [(u32, u128)])>,
    /// 0 is none.
    pub idle_timeout_ns: i64,
}

impl ExactEntry<'_> {
    /// The same as a message, for everything but speed.
    pub fn to_entry(&self) -> pb::TableEntry {
        let value = |bits: u128| {
            let zeros = (bits.leading_zeros() / 8).min(15) as usize;
            bits.to_be_bytes().iter().skip(zeros).copied().collect()
        };
        let matches = self.matches.iter().map(|(field_id, bits)| pb::FieldMatch {
            field_id: *field_id,
            field_match_type: Some(pb::field_match::FieldMatchType::Exact(
                pb::field_match::Exact {
                    value: value(*bits),
                },
            )),
        });
        let action = self.action.map(|(action_id, params)| pb::TableAction {
            r#type: Some(pb::table_action::Type::Action(pb::Action {
                action_id,
                params: params
                    .iter()
                    .map(|(param_id, bits)| pb::action::Param {
                        param_id: *param_id,
                        value: value(*bits),
                    })
                    .collect(),
            })),
        });
        pb::TableEntry {
            table_id: self.table_id,
            r#match: matches.collect(),
            action,
            idle_timeout_ns: self.idle_timeout_ns,
            ..Default::default()
        }
    }
}

/// Appends the update of an entry to a `WriteRequest`: the bytes that prost writes
/// for the message, without the message.
pub fn put_table_update(r#type: pb::update::Type, entry: &ExactEntry<'_>, request: &mut BytesMut) {
    let mut bytes = Backwards::new();
    bytes.update(r#type, entry);
    match bytes.written() {
        Some(written) => request.extend_from_slice(written),
        // Longer than any table's entry that this is meant for.
        None => pb::Update {
            r#type: r#type.into(),
            entity: Some(pb::Entity {
                entity: Some(pb::entity::Entity::TableEntry(entry.to_entry())),
            }),
        }
        .append_to(request),
    }
}

/// Fields written from the last to the first: a message's length is known when its
/// turn comes.
struct Backwards {
    bytes: [u8; UPDATE_BYTES_MAX],
    /// Where the written part begins; `None` once it did not fit.
    at: Option<usize>,
}

impl Backwards {
    fn new() -> Self {
        Self {
            bytes: [0; UPDATE_BYTES_MAX],
            at: Some(UPDATE_BYTES_MAX),
        }
    }

    fn written(&self) -> Option<&[u8]> {
        self.bytes.get(self.at?..)
    }

    fn put(&mut self, bytes: &[u8]) {
        let start = self.at.and_then(|at| at.checked_sub(bytes.len()));
        if let (Some(start), Some(at)) = (start, self.at)
            && let Some(place) = self.bytes.get_mut(start..at)
        {
            place.copy_from_slice(bytes);
        }
        self.at = start;
    }

    fn varint(&mut self, value: u64) {
        let mut bytes = [0; 10];
        let mut left = value;
        let mut count = 0;
        for byte in &mut bytes {
            *byte = (left & 0x7f) as u8;
            left >>= 7;
            count += 1;
            if left == 0 {
                break;
            }
            *byte |= 0x80;
        }
        self.put(bytes.get(..count).unwrap_or_default());
    }

    /// A number's field.
    fn number(&mut self, tag: u8, value: u64) {
        if value != 0 {
            self.varint(value);
            self.put(&[tag << 3]);
        }
    }

    /// Where a message's last byte will be: what it is closed with.
    fn open(&self) -> usize {
        self.at.unwrap_or(0)
    }

    /// The head of a message that was written since `end`.
    fn close(&mut self, tag: u8, end: usize) {
        if let Some(at) = self.at {
            self.varint(end.saturating_sub(at) as u64);
            self.put(&[tag << 3 | 2]);
        }
    }

    /// A byte string's field, canonical.
    fn value(&mut self, tag: u8, bits: u128) {
        let bytes = bits.to_be_bytes();
        let zeros = (bits.leading_zeros() / 8).min(15) as usize;
        let end = self.open();
        self.put(bytes.get(zeros..).unwrap_or(&bytes));
        self.close(tag, end);
    }

    fn update(&mut self, r#type: pb::update::Type, entry: &ExactEntry<'_>) {
        let update = self.open();
        self.number(9, entry.idle_timeout_ns.cast_unsigned());
        if let Some((action_id, params)) = entry.action {
            let action = self.open();
            for (param_id, bits) in params.iter().rev() {
                let param = self.open();
                self.value(3, *bits);
                self.number(2, u64::from(*param_id));
                self.close(4, param);
            }
            self.number(1, u64::from(action_id));
            self.close(1, action); // TableAction.action
            self.close(3, action); // TableEntry.action
        }
        for (field_id, bits) in entry.matches.iter().rev() {
            let field = self.open();
            self.value(1, *bits);
            self.close(2, field); // FieldMatch.exact
            self.number(1, u64::from(*field_id));
            self.close(2, field); // TableEntry.match
        }
        self.number(1, u64::from(entry.table_id));
        self.close(2, update); // Entity.table_entry
        self.close(2, update); // Update.entity
        self.number(1, r#type as u64);
        self.close(UPDATES_TAG as u8, update);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both(r#type: pb::update::Type, entry: &ExactEntry<'_>) -> (BytesMut, BytesMut) {
        let (mut fast, mut slow) = (BytesMut::new(), BytesMut::new());
        put_table_update(r#type, entry, &mut fast);
        let update = pb::Update {
            r#type: r#type.into(),
            entity: Some(pb::Entity {
                entity: Some(pb::entity::Entity::TableEntry(entry.to_entry())),
            }),
        };
        update.append_to(&mut slow);
        (fast, slow)
    }

    #[test]
    fn what_is_too_long_is_written_all_the_same() {
        let matches: Vec<_> = (1..80).map(|id| (id, u128::MAX)).collect();
        let entry = ExactEntry {
            table_id: 1,
            matches: &matches,
            action: None,
            idle_timeout_ns: 0,
        };
        let (fast, slow) = both(pb::update::Type::Insert, &entry);
        assert!(slow.len() > UPDATE_BYTES_MAX);
        assert_eq!(fast, slow);
    }

    proptest! {
        /// Byte for byte what prost writes.
        #[test]
        fn it_is_what_prost_writes(
            table_id: u32,
            kind in 0i32..4,
            matches in proptest::collection::vec((0u32.., 0u128..), 0..12),
            shift in 0u32..128,
            action in proptest::option::of((0u32.., proptest::collection::vec((0u32.., 0u128..), 0..8))),
            idle_timeout_ns: i64,
        ) {
            let matches: Vec<_> = matches.into_iter().map(|(id, bits)| (id, bits >> shift)).collect();
            let action = action.as_ref().map(|(id, params)| (*id, params.as_slice()));
            let entry = ExactEntry { table_id, matches: &matches, action, idle_timeout_ns };
            let kind = pb::update::Type::try_from(kind).unwrap();
            let (fast, slow) = both(kind, &entry);
            prop_assert_eq!(fast, slow);
        }
    }
}
