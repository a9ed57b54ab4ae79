//! Updates that depend on one another, see `p4runtime::order`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod scripted;

use p4runtime::client::{Client, ClientConfig};
use p4runtime::named::{Purpose, parse_line};
use p4runtime::order::References;
use p4runtime::p4::v1::*;
use scripted::{Switch, batch_status};
use tonic::{Code, Status};

async fn primary(switch: &Switch) -> Client {
    let config = ClientConfig::new(&switch.address, 1, 10);
    let client = Client::connect(config).await.unwrap();
    client.become_primary().await.unwrap();
    client
}

/// 7
#[tokio::test]
async fn dependent_updates_go_in_writes_of_their_own_with_results_in_their_order() {
    let index = p4runtime::p4info::P4InfoIndex::from_text(
        r#"
        tables { preamble { id: 1 name: "route" } action_refs { id: 3 }
          match_fields { id: 1 name: "dst" bitwidth: 32 match_type: EXACT } }
        tables { preamble { id: 2 name: "nexthop" } action_refs { id: 4 }
          match_fields { id: 1 name: "id" bitwidth: 16 match_type: EXACT } }
        actions { preamble { id: 3 name: "via" }
          params { id: 1 name: "nexthop" bitwidth: 16 annotations: "@refers_to(nexthop, id)" } }
        actions { preamble { id: 4 name: "send" } }
        "#,
    )
    .unwrap();
    let update = |kind: update::Type, line: &str| Update {
        r#type: kind.into(),
        entity: Some(parse_line(line, &index, Purpose::Write).unwrap()),
    };
    let (insert, delete) = (update::Type::Insert, update::Type::Delete);
    let updates = [
        update(delete, "nexthop id=8 do send"),
        update(insert, "route dst=10.0.0.1 do via nexthop=7"),
        update(insert, "nexthop id=7 do send"),
        update(delete, "route dst=10.0.0.2 do via nexthop=8"),
    ];
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    // Refuses every route, and nothing else.
    switch.with(|state| {
        state.write_rule = Some(Box::new(|request| {
            let result = |update: &Update| match update.entity.clone().unwrap().entity {
                Some(p4runtime::p4::v1::entity::Entity::TableEntry(entry))
                    if entry.table_id == 1 =>
                {
                    (Code::NotFound, "no")
                }
                _ => (Code::Ok, ""),
            };
            let results: Vec<_> = request.updates.iter().map(result).collect();
            match results.iter().all(|(code, _)| *code == Code::Ok) {
                true => Ok(()),
                false => Err(batch_status(&results)),
            }
        }));
    });
    let references = References::of(&index);
    let error = client
        .write_ordered(&updates, &references)
        .await
        .unwrap_err();
    let refused: Vec<_> = error.refused().map(|(at, _)| at).collect();
    assert_eq!(refused, [1, 3]);
    assert_eq!(
        error.to_string(),
        "2 of 4 updates were refused; update 1: NOT_FOUND: no; update 3: NOT_FOUND: no"
    );
    let sent: Vec<_> = switch.with(|state| {
        let writes = std::mem::take(&mut state.writes);
        writes.into_iter().map(|write| write.updates).collect()
    });
    let wanted = [2, 1, 3, 0].map(|at: usize| vec![updates[at].clone()]);
    assert_eq!(sent, wanted);

    // A switch that goes away leaves the rest undecided.
    let mut left = 1;
    switch.with(|state| {
        state.write_rule = Some(Box::new(move |_| match left {
            0 => Err(Status::unavailable("gone")),
            _ => {
                left -= 1;
                Ok(())
            }
        }));
    });
    let error = client
        .write_ordered(&updates, &references)
        .await
        .unwrap_err();
    let decided: Vec<_> = error.results.iter().map(Option::is_some).collect();
    assert_eq!(decided, [false, false, true, false]);
    assert!(error.to_string().contains("3 were not decided"), "{error}");
}
