//! What entries are made of: keys, defaults, members, replicas.

use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4::v1::update::Type;
use shunt_testbed::Result;
use tonic::Code;

use crate::switch::{Program, Switch, primary, refused};

/// Where a field is ternary, a range or optional, the priority is part of the key; elsewhere
/// there is none.
pub(crate) async fn the_priority_is_part_of_the_key(_: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    let of = |priority| format!("acl src=10.0.0.0/8 do drop --priority {priority}");
    let both = [1, 2].map(|priority| forward.insert(&of(priority)));
    client.write(&both).await.unwrap();
    let shown = [1, 2].map(|priority| format!("table {}", of(priority)));
    assert_eq!(forward.read(&client, "acl").await, shown);
    let one = forward.update(Type::Delete, "acl src=10.0.0.0/8 --priority 1");
    client.write([one]).await.unwrap();
    assert_eq!(forward.read(&client, "acl").await, shown[1..]);

    let said = forward.refusal("acl src=10.0.0.0/8 do drop");
    assert!(said.contains("--priority"), "{said}");
    let said = forward.refusal("route dst=10.0.0.0/8 do drop --priority 1");
    assert!(said.contains("has no priorities"), "{said}");
    // And the switch would have refused them.
    for (line, priority) in [
        ("acl src=11.0.0.0/8 do drop --priority 3", 0),
        ("route dst=10.0.0.0/8 do drop", 3),
    ] {
        let mut update = forward.insert(line);
        if let Some(Kind::TableEntry(entry)) = &mut update.entity.as_mut().unwrap().entity {
            entry.priority = priority;
        }
        let (code, said) = refused(client.write([update]).await);
        assert_eq!(code, Code::InvalidArgument, "{said}");
    }
    Ok(())
}

/// A match of everything is left out, and masked-off bits are 0.
pub(crate) async fn a_match_of_everything_is_left_out(_: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    let everything = forward.insert("route dst=0.0.0.0/0 do drop");
    let Some(Kind::TableEntry(entry)) = &everything.entity.as_ref().unwrap().entity else {
        panic!("{everything:?}");
    };
    assert_eq!(entry.r#match, []);
    let host_bits = forward.insert("route dst=10.1.2.3/8 do drop");
    let any = forward.insert("acl port=* src=10.1.2.3/255.0.0.0 dst_port=* do drop --priority 1");
    client.write([everything, host_bits, any]).await.unwrap();
    assert_eq!(
        forward.read(&client, "route").await,
        ["table route do drop", "table route dst=10.0.0.0/8 do drop"]
    );
    assert_eq!(
        forward.read(&client, "acl").await,
        ["table acl src=10.0.0.0/8 do drop --priority 1"]
    );
    Ok(())
}

/// A default entry is only modified, reset by no action at all, and left alone where the program
/// fixes it; so are the entries of a constant table.
pub(crate) async fn a_default_entry_is_modified_and_reset(_: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    let changed = "default route do use_nexthop nexthop=1";
    let modify = |line: &str| forward.update(Type::Modify, line);
    client.write([modify(changed)]).await.unwrap();
    assert_eq!(forward.read(&client, "default route").await, [changed]);
    client.write([modify("default route")]).await.unwrap();
    let initial = "default route do drop";
    assert_eq!(forward.read(&client, "default route").await, [initial]);

    let said = [
        forward.refusal("default flow do send port=1 dst=0:0:0:0:0:1"),
        forward.refusal("classes tos=1 do drop"),
    ];
    for said in said {
        assert!(said.contains("const"), "{said}");
    }
    // And the switch would have refused them.
    let id = |name: &str| forward.index.table(name).unwrap().id;
    let default = pb::TableEntry {
        table_id: id("nexthop"),
        is_default_action: true,
        ..match modify("default route do drop").entity.unwrap().entity {
            Some(Kind::TableEntry(entry)) => entry,
            other => panic!("{other:?}"),
        }
    };
    let update = pb::Update {
        r#type: Type::Modify.into(),
        entity: Some(pb::Entity {
            entity: Some(Kind::TableEntry(default)),
        }),
    };
    let (code, said) = refused(client.write([update]).await);
    assert_eq!(code, Code::PermissionDenied, "{said}");
    Ok(())
}

/// What a modification does not give is gone; a removal looks at the key alone.
pub(crate) async fn a_modification_replaces_the_whole_entry(_: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    let key = "flow src=10.0.0.2 dst=192.0.2.80 sport=1 dport=80";
    let first = format!("{key} do send port=1 dst=02:00:00:00:00:01 --idle-timeout 5s");
    let second = format!("{key} do send port=2 dst=02:00:00:00:00:02");
    client.write([forward.insert(&first)]).await.unwrap();
    assert_eq!(
        forward.read(&client, "flow").await,
        [format!("table {first}")]
    );
    let modify = forward.update(Type::Modify, &second);
    client.write([modify]).await.unwrap();
    assert_eq!(
        forward.read(&client, "flow").await,
        [format!("table {second}")]
    );
    // Another action and another timeout: still that entry.
    let mut delete = forward.insert(&first);
    delete.r#type = Type::Delete.into();
    client.write([delete]).await.unwrap();
    assert_eq!(forward.read(&client, "flow").await, [""; 0]);
    Ok(())
}

/// Actions with weights, written in one go, read back in one go.
pub(crate) async fn a_one_shot_set_reads_back_as_one(_: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    let line = "ecmp group=2 do 2x send port=1 dst=02:00:00:00:00:01 do 1x drop";
    client.write([forward.insert(line)]).await.unwrap();
    let read = forward.read(&client, "ecmp").await;
    assert_eq!(read, [format!("table {line}")]);
    let said = forward.refusal("ecmp group=3 do 0x drop");
    assert!(said.contains("weight"), "{said}");
    Ok(())
}

/// Ports of replicas are bytes since 1.4; a server of 1.3 that knows only the number is told, and
/// understood, all the same.
pub(crate) async fn replicas_have_the_ports_that_were_given(_: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    let lines = ["multicast 1 port=1 port=2:1", "clone 5 port=510"];
    let inserts = lines.map(|line| forward.insert(line));
    client.write(&inserts).await.unwrap();
    for (read, line) in ["multicast 1", "clone 5"].into_iter().zip(lines) {
        assert_eq!(forward.read(&client, read).await, [line]);
    }
    let deletes = inserts.map(|update| pb::Update {
        r#type: Type::Delete.into(),
        ..update
    });
    client.write(&deletes).await.unwrap();
    Ok(())
}
