//! Reads: how much at once, and what a wildcard means.

use std::collections::HashSet;

use p4runtime::client::{Client, ClientError, PipelineParts};
use p4runtime::named::Purpose;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4::v1::update::Type;
use p4runtime::value::{canonicalize_entity, is_canonical};
use shunt_testbed::Result;
use tonic::Code;

use crate::switch::{Program, Switch, primary};
use crate::writing::flow;

/// More than 4 MiB, which bmv2 sends as one message; and, however the switch pads what it sends,
/// the same bytes after both sides are canonical.
pub(crate) async fn a_large_table_reads_back_as_it_was_written(_: Switch) -> Result<()> {
    const COUNT: u32 = 60_000;
    let shunt = Program::shunt();
    let client = primary(&shunt).await;
    let updates: Vec<_> = (0..COUNT).map(|n| shunt.insert(&flow(n))).collect();
    client.write(&updates).await.unwrap();
    let whole = shunt.entity("flow4", Purpose::Read);
    let mut read = client.read(vec![whole.clone()]).await.unwrap();
    for entity in &mut read {
        canonicalize_entity(entity, &shunt.index).unwrap();
    }
    let bytes = |entity: &pb::Entity| prost::Message::encode_to_vec(entity);
    let read: HashSet<_> = read.iter().map(bytes).collect();
    let written = updates.iter().map(|update| update.entity.as_ref().unwrap());
    let written: HashSet<_> = written.map(bytes).collect();
    assert_eq!(read.len(), written.len());
    assert!(read == written, "they differ");

    let removals = updates.into_iter().map(|update| pb::Update {
        r#type: Type::Delete.into(),
        ..update
    });
    client.write(removals.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(client.read(vec![whole]).await.unwrap(), []);
    Ok(())
}

async fn refusal(client: &Client, entity: pb::Entity) -> Code {
    match client.read(vec![entity]).await {
        Err(ClientError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

/// A table's default entry is read where it is asked for, and nowhere else; the wildcard of all
/// tables takes no filter.
pub(crate) async fn a_wildcard_read_leaves_out_default_entries(switch: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    let lines = ["route dst=10.0.0.0/8 do drop", "nexthop nexthop=1 do drop"];
    let inserts = lines.map(|line| forward.insert(line));
    client.write(&inserts).await.unwrap();
    assert_eq!(
        forward.read(&client, "route").await,
        ["table route dst=10.0.0.0/8 do drop"]
    );
    assert_eq!(
        forward.read(&client, "default route").await,
        ["default route do drop"]
    );
    let every = forward.read(&client, "table").await;
    for line in lines {
        let line = format!("table {line}");
        assert!(every.contains(&line), "{line} is not among {every:?}");
    }
    assert!(every.iter().all(|line| line.starts_with("table ")));

    let entity = |kind| pb::Entity { entity: kind };
    let filtered = Kind::TableEntry(pb::TableEntry {
        priority: 7,
        ..Default::default()
    });
    if !switch.kind.is_pi() {
        let refused = refusal(&client, entity(Some(filtered))).await;
        assert_eq!(refused, Code::InvalidArgument);
        let refused = refusal(&client, entity(None)).await;
        assert_eq!(refused, Code::InvalidArgument);
    } else {
        // PI looks at no filter, and has a code of its own for nothing.
        let found = client.read(vec![entity(Some(filtered))]).await.unwrap();
        assert_eq!(found.len(), every.len());
        let refused = refusal(&client, entity(None)).await;
        assert_eq!(refused, Code::Unknown);
    }
    Ok(())
}

/// What a switch cannot read is refused so that a caller can go on without.
pub(crate) async fn what_is_not_offered_is_told_apart(switch: Switch) -> Result<()> {
    let state = Program::named("state");
    let client = primary(&state).await;
    let cells = state.entity("register cells", Purpose::Read);
    if switch.kind.is_pi() {
        let error = client.read(vec![cells]).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains("this switch does not offer it"), "{said}");
        return Ok(());
    }
    let written = state.update(Type::Modify, "register cells 3 --value 7");
    client.write([written]).await.unwrap();
    let read = state.read(&client, "register cells").await;
    assert_eq!(read.len(), 4);
    assert!(
        read.contains(&"register cells 3 --value 7".to_owned()),
        "{read:?}"
    );
    Ok(())
}

/// Shortest form from the client, whatever came in; too wide or empty never leaves it.
pub(crate) async fn values_leave_in_their_shortest_form(_: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    let none = client.get_pipeline(PipelineParts::CookieOnly).await;
    assert!(none.unwrap().is_loaded());
    let insert = forward
        .insert("flow src=0 dst=0.0.0.10 sport=0x0007 dport=0 do send port=001 dst=0:0:0:0:0:1");
    let Some(Kind::TableEntry(entry)) = insert.entity.as_ref().unwrap().entity.as_ref() else {
        panic!("{insert:?}");
    };
    for one in &entry.r#match {
        let Some(pb::field_match::FieldMatchType::Exact(exact)) = &one.field_match_type else {
            panic!("{one:?}");
        };
        assert!(is_canonical(&exact.value), "{one:?}");
    }
    client.write([insert]).await.unwrap();
    assert_eq!(
        forward.read(&client, "flow").await,
        [
            "table flow src=0.0.0.0 dst=0.0.0.10 sport=7 dport=0 do send port=1 dst=00:00:00:00:00:01"
        ]
    );
    assert_eq!(
        forward.refusal("flow src=0 dst=0 sport=65536 dport=0 do send port=1 dst=1"),
        "table \"flow\", field \"sport\": 65536 is out of range: 16 bits hold 0 to 65535"
    );
    Ok(())
}
