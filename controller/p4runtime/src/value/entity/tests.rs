use proptest::prelude::*;

use super::*;
use crate::value::{decode, encode, prefix_mask};

fn index() -> P4InfoIndex {
    P4InfoIndex::from_text(
        r#"
        tables {
          preamble { id: 1 name: "t" }
          match_fields { id: 1 name: "e" bitwidth: 9 match_type: EXACT }
          match_fields { id: 2 name: "l" bitwidth: 32 match_type: LPM }
          match_fields { id: 3 name: "t" bitwidth: 20 match_type: TERNARY }
          match_fields { id: 4 name: "r" bitwidth: 16 match_type: RANGE }
          match_fields { id: 5 name: "o" bitwidth: 8 match_type: OPTIONAL }
          action_refs { id: 2 }
        }
        actions {
          preamble { id: 2 name: "a" }
          params { id: 1 name: "p" bitwidth: 48 }
          params { id: 2 name: "q" bitwidth: 1 }
        }
        "#,
    )
    .unwrap()
}

fn field(field_id: u32, value: FieldMatchType) -> pb::FieldMatch {
    pb::FieldMatch {
        field_id,
        field_match_type: Some(value),
    }
}

fn exact(value: &[u8]) -> FieldMatchType {
    FieldMatchType::Exact(pb::field_match::Exact {
        value: value.to_vec(),
    })
}

fn lpm(value: &[u8], prefix_len: i32) -> FieldMatchType {
    FieldMatchType::Lpm(pb::field_match::Lpm {
        value: value.to_vec(),
        prefix_len,
    })
}

fn ternary(value: &[u8], mask: &[u8]) -> FieldMatchType {
    FieldMatchType::Ternary(pb::field_match::Ternary {
        value: value.to_vec(),
        mask: mask.to_vec(),
    })
}

fn range(low: &[u8], high: &[u8]) -> FieldMatchType {
    FieldMatchType::Range(pb::field_match::Range {
        low: low.to_vec(),
        high: high.to_vec(),
    })
}

fn entry(matches: Vec<pb::FieldMatch>) -> pb::TableEntry {
    pb::TableEntry {
        table_id: 1,
        r#match: matches,
        ..Default::default()
    }
}

fn canonicalized(matches: Vec<pb::FieldMatch>) -> Result<Vec<pb::FieldMatch>, EntityError> {
    let mut entry = entry(matches);
    canonicalize_table_entry(&mut entry, &index())?;
    Ok(entry.r#match)
}

#[test]
fn fields_are_ordered_shortened_and_masked() {
    let got = canonicalized(vec![
        field(4, range(&[0, 0], &[0, 5])),
        field(3, ternary(&[0x0f, 0xff, 0xff], &[0x0f, 0x00])),
        field(1, exact(&[0, 0, 1])),
        field(2, lpm(&[10, 1, 2, 3], 24)),
    ]);
    assert_eq!(
        got.unwrap(),
        [
            field(1, exact(&[1])),
            field(2, lpm(&[10, 1, 2, 0], 24)),
            field(3, ternary(&[0x0f, 0x00], &[0x0f, 0x00])),
            field(4, range(&[0], &[5])),
        ]
    );
}

#[test]
fn dont_cares_are_left_out() {
    let got = canonicalized(vec![
        field(2, lpm(&[0], 0)),
        field(3, ternary(&[7], &[0, 0])),
        field(4, range(&[0], &[0xff, 0xff])),
    ]);
    assert_eq!(got.unwrap(), []);
}

#[test]
fn what_does_not_fit_is_named() {
    let error = |matches| canonicalized(matches).unwrap_err().to_string();
    assert_eq!(
        error(vec![field(1, exact(&[2, 0]))]),
        r#""t", "e": the value takes 10 bits and the field has 9"#
    );
    assert_eq!(
        error(vec![field(2, lpm(&[1], 33))]),
        r#""t", "l": a prefix of 33 bits does not fit a field of 32"#
    );
    assert_eq!(
        error(vec![field(4, range(&[1, 0], &[0xff]))]),
        r#""t", "r": the range's low end is above its high end"#
    );
    assert_eq!(
        error(vec![field(5, exact(&[1]))]),
        r#"table "t", field "o": the match is not optional"#
    );
    assert_eq!(
        error(vec![field(1, exact(&[1])), field(1, exact(&[2]))]),
        r#""t" has "e" twice"#
    );
    assert_eq!(
        error(vec![field(9, exact(&[1]))]),
        r#"no match field with id 0x9 in table "t""#
    );
}

#[test]
fn actions_and_replicas_are_ordered_and_shortened() {
    let param = |param_id, value: &[u8]| pb::action::Param {
        param_id,
        value: value.to_vec(),
    };
    let mut action = pb::Action {
        action_id: 2,
        params: vec![param(2, &[0, 1]), param(1, &[0, 0, 9, 9])],
    };
    canonicalize_action(&mut action, &index()).unwrap();
    assert_eq!(action.params, [param(1, &[9, 9]), param(2, &[1])]);

    let replica = |port: &[u8], instance| pb::Replica {
        instance,
        port_kind: Some(pb::replica::PortKind::Port(port.to_vec())),
        ..Default::default()
    };
    let group = |replicas| pb::Entity {
        entity: Some(Kind::PacketReplicationEngineEntry(
            pb::PacketReplicationEngineEntry {
                r#type: Some(
                    pb::packet_replication_engine_entry::Type::MulticastGroupEntry(
                        pb::MulticastGroupEntry {
                            multicast_group_id: 1,
                            replicas,
                            ..Default::default()
                        },
                    ),
                ),
            },
        )),
    };
    let mut entity = group(vec![
        replica(&[1, 0], 0),
        replica(&[0, 2], 1),
        replica(&[2], 0),
    ]);
    canonicalize_entity(&mut entity, &index()).unwrap();
    let ordered = vec![replica(&[2], 0), replica(&[2], 1), replica(&[1, 0], 0)];
    assert_eq!(entity, group(ordered));
}

proptest! {
    /// Padding, order and masked-off bits never make two keys of one.
    #[test]
    fn equal_matches_have_equal_keys(
        value in 0u128..(1 << 32),
        noise: u32,
        prefix_len in 0u32..=32,
        mask in 0u128..(1 << 20),
        pad in 0usize..3,
    ) {
        let kept = prefix_mask(prefix_len, 32);
        let padded = |value: u128, width| [vec![0; pad], encode(value, width).unwrap()].concat();
        let noisy = (value & kept) | (u128::from(noise) & !kept & 0xffff_ffff);
        let low = value & 0xf_ffff;
        let first = entry(vec![
            field(2, lpm(&padded(value, 32), prefix_len as i32)),
            field(3, ternary(&padded(low, 20), &padded(mask, 20))),
        ]);
        let second = entry(vec![
            field(3, ternary(&encode(low & mask, 20).unwrap(), &encode(mask, 20).unwrap())),
            field(2, lpm(&padded(noisy, 32), prefix_len as i32)),
        ]);
        let key = |mut entry: pb::TableEntry| {
            canonicalize_table_entry(&mut entry, &index()).unwrap();
            let once = entry.clone();
            canonicalize_table_entry(&mut entry, &index()).unwrap();
            assert_eq!(once, entry, "canonical stays canonical");
            EntryKey::of(&entry)
        };
        let key_first = key(first);
        prop_assert_eq!(&key_first, &key(second));
        prop_assert_eq!(
            key_first.matches.len(),
            usize::from(prefix_len > 0) + usize::from(mask > 0)
        );
        if let Some(FieldMatchType::Lpm(lpm)) =
            key_first.matches.first().and_then(|m| m.field_match_type.as_ref())
        {
            prop_assert_eq!(decode(&lpm.value, 32).unwrap(), value & kept);
        }
    }
}
