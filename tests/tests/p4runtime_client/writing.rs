//! Writes: their order, their results, their size.

use p4runtime::client::{BatchError, Client, WriteError, code_of};
use p4runtime::order::References;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::update::Type;
use shunt_testbed::Result;
use tonic::Code;

use crate::switch::{Program, Switch, primary};

/// The `number`th flow: any values will do, as long as each has its own.
pub(crate) fn flow(number: u32) -> String {
    let src = std::net::Ipv4Addr::from(number);
    format!(
        "flow4 vpc=1 src={src} dst=10.0.0.1 proto=6 src_port=0 dst_port=443 do flow4_forward vpc=0"
    )
}

/// What is referred to and who refers to it, in one call and in the wrong order.
pub(crate) async fn dependent_updates_are_written_in_order(_: Switch) -> Result<()> {
    let shunt = Program::shunt();
    let client = primary(&shunt).await;
    let references = References::of(&shunt.index);
    let lines = [
        "ecmp group=1 do group=7",
        "group ecmp_selector 7 member=5 --max-size 4",
        "member ecmp_selector 5 do to_nexthop nexthop=3",
    ];
    let inserts = lines.map(|line| shunt.insert(line));
    client.write_ordered(&inserts, &references).await.unwrap();
    let shown = shunt.read(&client, "ecmp").await;
    assert_eq!(shown, ["table ecmp group=1 do group=7"]);

    let mut removals = lines.map(|line| shunt.update(Type::Delete, line));
    removals.reverse();
    client.write_ordered(&removals, &references).await.unwrap();
    assert_eq!(shunt.read(&client, "ecmp").await, [""; 0]);
    Ok(())
}

fn flows(program: &Program, count: u32) -> Vec<pb::Update> {
    (0..count).map(|n| program.insert(&flow(n))).collect()
}

/// With a refusal for each update of a full batch, the trailer is at its largest; where a server
/// stops at the first error, all the others have been written all the same.
pub(crate) async fn refusals_name_their_updates(_: Switch) -> Result<()> {
    let shunt = Program::shunt();
    let client = primary(&shunt).await;
    let updates = flows(&shunt, client.config().batch_updates_max as u32);
    let odd: Vec<_> = updates.iter().skip(1).step_by(2).cloned().collect();
    client.write(&odd).await.unwrap();

    let error = client.write(&updates).await.unwrap_err();
    let WriteError::Batch(BatchError { errors }) = &error else {
        panic!("{error}");
    };
    for (at, result) in errors.iter().enumerate() {
        let wanted = if at % 2 == 1 {
            Code::AlreadyExists
        } else {
            Code::Ok
        };
        assert_eq!(code_of(result), wanted, "update {at}: {result:?}");
    }
    let error = client.write(&updates).await.unwrap_err();
    assert_eq!(error.refused().count(), updates.len());
    let mut codes = error.refused().map(|(_, error)| code_of(error));
    assert!(codes.all(|code| code == Code::AlreadyExists));
    assert_eq!(shunt.read(&client, "flow4").await.len(), updates.len());
    Ok(())
}

/// Who asked for what no longer fits is told, for the very updates.
pub(crate) async fn a_full_table_is_told_to_who_asked(switch: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    let size = forward.index.table("nexthop").unwrap().size as usize;
    let line = |number| format!("nexthop nexthop={number} do drop");
    let updates: Vec<_> = (1..=size + 3)
        .map(|number| forward.insert(&line(number)))
        .collect();
    let error = client.write(&updates).await.unwrap_err();
    // PI has no code for it.
    let wanted = match switch.kind.is_pi() {
        true => Code::Unknown,
        false => Code::ResourceExhausted,
    };
    let refused: Vec<_> = error.refused().map(|(_, error)| code_of(error)).collect();
    assert_eq!(refused, [wanted; 3], "{error}");
    assert_eq!(forward.read(&client, "nexthop").await.len(), size);
    Ok(())
}

pub(crate) async fn several_writes_are_in_flight_at_once(_: Switch) -> Result<()> {
    let shunt = Program::shunt();
    let client = primary(&shunt).await;
    let updates = flows(&shunt, 4000);
    let tasks: Vec<_> = updates
        .chunks(500)
        .map(|part| {
            let (client, part): (Client, Vec<_>) = (client.clone(), part.to_vec());
            tokio::spawn(async move { client.write(part).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(shunt.read(&client, "flow4").await.len(), 4000);
    Ok(())
}
