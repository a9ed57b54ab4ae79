//! Large and interrupted writes, and several at once: the tables stay consistent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::net::SocketAddr;

use common::client::{Client, PATIENCE, Served, batch_errors, exact, table_update, update};
use p4runtime::p4::v1 as pb;
use pb::entity::Entity;
use pb::p4_runtime_client::P4RuntimeClient;
use pb::update::Type;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic::transport::Channel;

fn flow(served: &Served, number: u16, port: u8) -> pb::TableEntry {
    let number = number.to_be_bytes();
    let key = vec![
        exact(&[10, 0, 0, 1]),
        exact(&[10, 0, 1, 2]),
        exact(&number),
        exact(&[1]),
    ];
    served.entry("flow", key, 0, served.call("send", &[&[port], &[1]]))
}

async fn flows(client: &mut Client, served: &Served) -> usize {
    let filter = pb::TableEntry {
        table_id: served.table("flow"),
        ..Default::default()
    };
    client.entries(filter).await.unwrap().len()
}

fn batch(served: &Served, numbers: std::ops::Range<u16>, kind: Type) -> Vec<pb::Update> {
    numbers
        .map(|number| table_update(kind, &flow(served, number, 1)))
        .collect()
}

#[tokio::test]
async fn three_bad_updates_of_ten_thousand_are_reported_and_no_others() {
    let served = Served::start("forward").await;
    let mut client = served.primary().await;
    // Each entry comes, changes and goes, so that the table is never full.
    let kinds = [Type::Insert, Type::Modify, Type::Delete];
    let mut updates: Vec<_> = (0..10_000_u16)
        .map(|i| table_update(kinds[usize::from(i) % 3], &flow(&served, i / 3, 1)))
        .collect();
    let mut wide = flow(&served, 333, 1);
    wide.r#match[2].field_match_type = exact(&[1, 0, 0]);
    updates[1000] = table_update(Type::Modify, &wide);
    updates[5002] = table_update(Type::Modify, &flow(&served, 60_000, 1));
    let mut argument = flow(&served, 3332, 1);
    argument.action = Some(pb::TableAction {
        r#type: Some(pb::table_action::Type::Action(
            served.call("send", &[&[1], &[1; 7]]),
        )),
    });
    updates[9997] = table_update(Type::Modify, &argument);
    let status = client.write(updates).await.unwrap_err();
    let errors = batch_errors(&status);
    assert_eq!(errors.len(), 10_000);
    let failed: Vec<_> = errors
        .iter()
        .enumerate()
        .filter(|(_, error)| error.0 != Code::Ok)
        .map(|(at, (code, message))| (at, *code, message.as_str()))
        .collect();
    let [field, missing, parameter] = failed[..] else {
        panic!("{failed:?}");
    };
    assert_eq!((field.0, field.1), (1000, Code::OutOfRange));
    assert!(field.2.contains("flow, field sport"), "{}", field.2);
    assert_eq!((missing.0, missing.1), (5002, Code::NotFound));
    assert!(missing.2.contains("flow"), "{}", missing.2);
    assert_eq!((parameter.0, parameter.1), (9997, Code::OutOfRange));
    let place = parameter.2.contains("send, parameter dst");
    assert!(place, "{}", parameter.2);
    // The last update was an insert.
    assert_eq!(flows(&mut client, &served).await, 1);
}

/// A client that is not primary itself, but has the primary's election id.
async fn second(address: SocketAddr) -> P4RuntimeClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let channel = channel.http2_max_header_list_size(8 << 20);
    P4RuntimeClient::new(channel.connect().await.unwrap())
}

fn request(updates: Vec<pb::Update>) -> pb::WriteRequest {
    pb::WriteRequest {
        device_id: 1,
        election_id: Some(pb::Uint128 { high: 0, low: 1 }),
        updates,
        ..Default::default()
    }
}

/// Passes one connection on to the server until the client has sent `limit` bytes, then cuts it.
async fn cut_after(server: SocketAddr, limit: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(server).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let back = tokio::spawn(async move {
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        });
        let mut left = limit;
        let mut buffer = [0; 1024];
        while left > 0 {
            let most = left.min(buffer.len());
            match from_client.read(&mut buffer[..most]).await {
                Ok(count) if count > 0 => {
                    to_server.write_all(&buffer[..count]).await.unwrap();
                    left -= count;
                }
                _ => break,
            }
        }
        back.abort();
    });
    address
}

#[tokio::test]
async fn a_client_cut_off_within_a_batch_has_written_nothing() {
    let served = Served::start("forward").await;
    let mut primary = served.primary().await;
    let updates = batch(&served, 0..1000, Type::Insert);
    let bytes = request(updates.clone()).encoded_len();
    for limit in [2000, bytes / 3, bytes - 100] {
        let address = cut_after(served.handle.addr(), limit).await;
        let written = second(address).await.write(request(updates.clone())).await;
        assert!(written.is_err(), "cut after {limit} bytes");
        assert_eq!(flows(&mut primary, &served).await, 0);
    }
    primary.write(updates).await.unwrap();
    assert_eq!(flows(&mut primary, &served).await, 1000);
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_the_answer_has_written_all() {
    let served = Served::start("forward").await;
    let mut primary = served.primary().await;
    // Small enough for the window that a client may use before it hears from the server.
    let updates = batch(&served, 0..300, Type::Insert);
    let mut client = second(served.handle.addr()).await;
    let sent = tokio::spawn(async move { client.write(request(updates)).await });
    let start = tokio::time::Instant::now();
    while flows(&mut primary, &served).await == 0 {
        assert!(start.elapsed() < PATIENCE, "nothing was written");
        tokio::task::yield_now().await;
    }
    sent.abort();
    // Whoever is alone with the tables comes after the whole batch.
    let default = pb::TableEntry {
        table_id: served.table("route"),
        is_default_action: true,
        ..Default::default()
    };
    let alone = table_update(Type::Modify, &default);
    primary.one(alone).await.unwrap();
    assert_eq!(flows(&mut primary, &served).await, 300);
    let removed = batch(&served, 0..300, Type::Delete);
    primary.write(removed).await.unwrap();
    assert_eq!(flows(&mut primary, &served).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_in_flight_do_not_disturb_each_other() {
    let served = Served::start("forward").await;
    let mut primary = served.primary().await;
    let client = second(served.handle.addr()).await;
    let write = |updates| {
        let mut client = client.clone();
        tokio::spawn(async move { client.write(request(updates)).await })
    };
    let member = |id: u32| {
        let member = pb::ActionProfileMember {
            action_profile_id: served.profile(),
            member_id: id,
            action: Some(served.call("send", &[&[1], &[1]])),
        };
        update(Type::Insert, Entity::ActionProfileMember(member))
    };
    for round in 0..10_u32 {
        let mut tasks = Vec::new();
        // All want the same entries: each is inserted by exactly one.
        for part in 0..4 {
            tasks.push(write(batch(&served, 0..500, Type::Insert)));
            tasks.push(write(vec![member(1 + round * 4 + part)]));
        }
        let mut inserted = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => {}
                Err(status) => {
                    let errors = batch_errors(&status);
                    let exists = |e: &&(Code, String)| e.0 == Code::AlreadyExists;
                    let failed = errors.iter().filter(exists).count();
                    let well = errors.iter().filter(|e| e.0 == Code::Ok).count();
                    assert_eq!((failed + well, errors.len()), (500, 500));
                    inserted += well;
                }
            }
        }
        // One request may have inserted all, and answered OK.
        assert!(inserted == 500 || inserted == 0, "{inserted}");
        assert_eq!(flows(&mut primary, &served).await, 500);
        primary
            .write(batch(&served, 0..500, Type::Delete))
            .await
            .unwrap();
        assert_eq!(flows(&mut primary, &served).await, 0);
    }
}
