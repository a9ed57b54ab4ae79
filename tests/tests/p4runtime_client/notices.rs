//! What a switch sends of its own accord.

use p4runtime::client::Client;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::update::Type;
use shunt_testbed::Result;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::switch::{DEADLINE, Kind, Program, Switch, primary};

#[track_caller]
fn next<T>(queue: &mut mpsc::Receiver<T>) -> impl Future<Output = T> {
    let at = std::panic::Location::caller();
    async move {
        let next = timeout(DEADLINE, queue.recv()).await;
        next.unwrap_or_else(|_| panic!("nothing came, {at}"))
            .expect("the client is there")
    }
}

/// An idle entry is reported again and again, and says how long it has been idle if it is asked.
pub(crate) async fn an_idle_entry_is_reported_again(_: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    let mut notices = client.take_idle_timeouts().unwrap();
    let key = "flow src=10.0.0.2 dst=192.0.2.80 sport=1 dport=80";
    let line = format!("{key} do send port=1 dst=02:00:00:00:00:01 --idle-timeout 500ms");
    client.write([forward.insert(&line)]).await.unwrap();
    let table = forward.index.table("flow").unwrap().id;
    for _ in 0..2 {
        let notice = next(&mut notices).await;
        assert!(!notice.table_entry.is_empty());
        let of = |entry: &pb::TableEntry| entry.table_id == table;
        assert!(notice.table_entry.iter().all(of), "{notice:?}");
    }
    let read = async |asked: bool| {
        let mut entry = pb::TableEntry {
            table_id: table,
            ..Default::default()
        };
        entry.time_since_last_hit = asked.then(Default::default);
        let entity = pb::Entity {
            entity: Some(pb::entity::Entity::TableEntry(entry)),
        };
        let mut found = client.read(vec![entity]).await.unwrap();
        match found.pop().unwrap().entity {
            Some(pb::entity::Entity::TableEntry(entry)) => entry.time_since_last_hit,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(false).await, None);
    let idle = read(true).await.expect("it was asked for").elapsed_ns;
    assert!(idle >= 500_000_000, "{idle}");
    Ok(())
}

/// A frame of the test program that has a digest of its `value` sent.
async fn digest_of(client: &Client, value: u8) {
    let mut payload = vec![0; 40];
    payload[0] = 23; // the operation
    payload[5] = value;
    let packet = pb::PacketOut {
        payload,
        metadata: Vec::new(),
    };
    client.send_packet(packet).await.unwrap();
}

/// The values in a list of digests.
fn values(list: &pb::DigestList) -> Vec<u8> {
    let value = |data: &pb::P4Data| match &data.data {
        Some(pb::p4_data::Data::Struct(members)) => match &members.members[1].data {
            Some(pb::p4_data::Data::Bitstring(bytes)) => *bytes.last().unwrap(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    list.data.iter().map(value).collect()
}

/// Until a digest is acknowledged the same one is not sent again; another one is.
pub(crate) async fn an_acknowledged_digest_is_sent_again(switch: Switch) -> Result<()> {
    let state = Program::named("state");
    let client = primary(&state).await;
    let mut lists = client.take_digests().unwrap();
    let line = "digest seen_t --max-list 1 --ack-timeout 1h";
    let insert = state.update(Type::Insert, line);
    client.write([insert]).await.unwrap();

    digest_of(&client, 1).await;
    let first = next(&mut lists).await;
    assert_eq!(values(&first), [1]);
    digest_of(&client, 1).await;
    digest_of(&client, 2).await;
    let second = next(&mut lists).await;
    assert_eq!(values(&second), [2], "1 was not acknowledged");
    client
        .ack_digest(first.digest_id, first.list_id)
        .await
        .unwrap();
    // bmv2 1.15 takes packets and acknowledgements in any order, and at times never sends this
    // digest again, whatever is acknowledged.
    if switch.kind != Kind::Bmv2 {
        digest_of(&client, 1).await;
        assert_eq!(values(&next(&mut lists).await), [1]);
    }
    Ok(())
}
