//! Parser value sets, written and read by P4Runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::client::{Client, Served, exact, range, ternary, update};
use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::field_match::FieldMatchType;
use pb::update::Type;
use shunt_switch::ChannelPort;
use tonic::Code;

fn id(served: &Served, alias: &str) -> u32 {
    let sets = served.info.value_sets.iter();
    let mut heads = sets.map(|s| s.preamble.as_ref().unwrap());
    heads.find(|head| head.alias == alias).unwrap().id
}

fn members(of: &[&[Option<FieldMatchType>]]) -> Vec<pb::ValueSetMember> {
    let member = |fields: &&[Option<FieldMatchType>]| {
        let fields = fields.iter().zip(1..).filter_map(|(kind, field_id)| {
            Some(pb::FieldMatch {
                field_id,
                field_match_type: Some(kind.clone()?),
            })
        });
        pb::ValueSetMember {
            r#match: fields.collect(),
        }
    };
    of.iter().map(member).collect()
}

async fn write(
    client: &mut Client,
    value_set_id: u32,
    members: Vec<pb::ValueSetMember>,
) -> Result<(), (Code, String)> {
    let entry = pb::ValueSetEntry {
        value_set_id,
        members,
    };
    client
        .one(update(Type::Modify, Entity::ValueSetEntry(entry)))
        .await
}

/// What the parser found: a frame's fourth byte behind the type when it leaves.
fn found(ports: &[ChannelPort], kind: u16, sub: u8) -> u8 {
    let [high, low] = kind.to_be_bytes();
    ports[0].inject(&[0xa0, 0, high, low, sub, 0xee, b'x']);
    ports[1].try_receive().unwrap()[5]
}

#[tokio::test(flavor = "multi_thread")]
async fn members_choose_the_next_state() {
    let served = Served::start("language").await;
    let ports: Vec<_> = [1, 2]
        .map(|p| served.handle.switch().attach_channel(p, 8))
        .into();
    let mut client = served.primary().await;
    let (kinds, pairs) = (id(&served, "kinds"), id(&served, "pairs"));
    assert_eq!(found(&ports, 0x1234, 1), 0);
    assert_eq!(found(&ports, 7, 1), 7);
    let both = [&[exact(&[0x12, 0x34])][..], &[exact(&[7])]];
    write(&mut client, kinds, members(&both)).await.unwrap();
    assert_eq!(found(&ports, 0x1234, 1), 1);
    // The set's case stands in front of the program's own.
    assert_eq!(found(&ports, 7, 1), 1);
    assert_eq!(found(&ports, 8, 1), 0);
    let wild = [
        &[ternary(&[0x40, 0], &[0xf0, 0]), range(&[5], &[9])][..],
        &[None, range(&[200], &[200])],
    ];
    write(&mut client, pairs, members(&wild)).await.unwrap();
    for (kind, sub, expected) in [
        (0x4fff, 5, 2),
        (0x4000, 9, 2),
        (0x4000, 10, 0),
        (0x5000, 5, 0),
        (0x5000, 200, 2),
    ] {
        assert_eq!(found(&ports, kind, sub), expected, "{kind:#x} {sub}");
    }
    // Read back as written, one or all.
    let filter = |value_set_id| {
        Entity::ValueSetEntry(pb::ValueSetEntry {
            value_set_id,
            members: Vec::new(),
        })
    };
    let written = |value_set_id, members| {
        Entity::ValueSetEntry(pb::ValueSetEntry {
            value_set_id,
            members,
        })
    };
    let expected = written(pairs, members(&wild));
    let read = client.read(filter(pairs)).await.unwrap();
    assert_eq!(read, std::slice::from_ref(&expected));
    let mut all = vec![written(kinds, members(&both)), expected];
    all.sort_by_key(|entity| match entity {
        Entity::ValueSetEntry(entry) => entry.value_set_id,
        other => panic!("{other:?}"),
    });
    assert_eq!(client.read(filter(0)).await.unwrap(), all);
    // A write replaces all members.
    write(&mut client, kinds, Vec::new()).await.unwrap();
    assert_eq!(found(&ports, 7, 1), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_members_are_refused_by_name() {
    let served = Served::start("language").await;
    let mut client = served.primary().await;
    let (kinds, pairs) = (id(&served, "kinds"), id(&served, "pairs"));
    let one = |kind| members(&[&[kind][..]]);
    let mut many = one(exact(&[0]));
    for value in 1..5 {
        many.extend(one(exact(&[value])));
    }
    for (set, members, code, text) in [
        (1, Vec::new(), Code::NotFound, "0x1"),
        (kinds, many, Code::ResourceExhausted, "value set P.kinds: 5"),
        (
            kinds,
            one(exact(&[1, 0, 0])),
            Code::OutOfRange,
            "value set P.kinds, member 0, field",
        ),
        (kinds, one(None), Code::InvalidArgument, "it is missing"),
        (
            kinds,
            one(ternary(&[1], &[1])),
            Code::InvalidArgument,
            "it is matched as Exact",
        ),
        (
            kinds,
            [one(exact(&[1])), one(exact(&[0, 1]))].concat(),
            Code::InvalidArgument,
            "value set P.kinds, member 1: it is given twice",
        ),
        (
            pairs,
            members(&[&[None, range(&[9], &[5])][..]]),
            Code::InvalidArgument,
            "value set P.pairs, member 0, field sub",
        ),
    ] {
        let (got, message) = write(&mut client, set, members).await.unwrap_err();
        assert_eq!(got, code, "{message}");
        assert!(message.contains(text), "{message} lacks {text}");
    }
    let entry = pb::ValueSetEntry {
        value_set_id: kinds,
        members: Vec::new(),
    };
    for kind in [Type::Insert, Type::Delete] {
        let refused = client
            .one(update(kind, Entity::ValueSetEntry(entry.clone())))
            .await;
        assert_eq!(refused.unwrap_err().0, Code::InvalidArgument);
    }
}

/// Registers of more than 128 bits go over the wire too.
#[tokio::test(flavor = "multi_thread")]
async fn long_registers_are_written_and_read() {
    let served = Served::start("language").await;
    let mut client = served.primary().await;
    let mut heads = served.info.registers.iter().map(|r| r.preamble.as_ref());
    let head = heads.find(|h| h.unwrap().alias == "long_cells");
    let register_id = head.unwrap().unwrap().id;
    let entry = |index: Option<i64>, value: &[u8]| pb::RegisterEntry {
        register_id,
        index: index.map(|index| pb::Index { index }),
        data: Some(pb::P4Data {
            data: Some(pb::p4_data::Data::Bitstring(value.to_vec())),
        }),
    };
    let long = [&[9][..], &[0; 31]].concat();
    let write = update(Type::Modify, Entity::RegisterEntry(entry(Some(2), &long)));
    client.one(write).await.unwrap();
    let too_long = [&[1][..], &[0; 32]].concat();
    let write = update(Type::Modify, Entity::RegisterEntry(entry(None, &too_long)));
    assert_eq!(client.one(write).await.unwrap_err().0, Code::OutOfRange);
    let filter = pb::RegisterEntry {
        register_id,
        ..Default::default()
    };
    let read = client.read(Entity::RegisterEntry(filter)).await.unwrap();
    let expected = (0..4).map(|i| {
        let value = if i == 2 { long.as_slice() } else { &[0] };
        Entity::RegisterEntry(entry(Some(i), value))
    });
    assert_eq!(read, expected.collect::<Vec<_>>());
}
