//! The client against a server that behaves as real ones do, for better or worse.
//! The numbers are those of the project's list of P4Runtime's traps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod scripted;

use std::time::Duration;

use p4runtime::client::*;
use p4runtime::p4::config::v1::P4Info;
use p4runtime::p4::v1::stream_message_response::Update as FromSwitch;
use p4runtime::p4::v1::*;
use scripted::{DEADLINE, Switch, batch_status, entity, stops_at_an_even_number, update};
use tokio::time::timeout;
use tonic::{Code, Status};

fn config(switch: &Switch, election_id: u128) -> ClientConfig {
    ClientConfig::new(&switch.address, 1, election_id)
}

async fn primary(switch: &Switch) -> Client {
    let client = Client::connect(config(switch, 10)).await.unwrap();
    client.become_primary().await.unwrap();
    client
}

/// Waits until the arbitration is what the test expects.
async fn reaches(client: &Client, wanted: impl Fn(&Arbitration) -> bool) -> Arbitration {
    let mut watch = client.arbitration();
    let state = timeout(DEADLINE, watch.wait_for(|state| wanted(state))).await;
    state.expect("in time").unwrap().clone()
}

fn codes(error: &WriteError) -> Vec<Code> {
    match error {
        WriteError::Batch(batch) => batch.errors.iter().map(code_of).collect(),
        WriteError::Failed { decided, .. } => decided.iter().map(code_of).collect(),
    }
}

/// A read's parts have statuses of their own, as a write's updates have (P4Runtime 13.3).
#[tokio::test]
async fn a_refused_part_of_a_read_is_named() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    let results = [(Code::Ok, ""), (Code::NotFound, "there is no table 7")];
    switch.with(|state| state.read_status = Some(batch_status(&results)));
    let error = client.read(vec![entity(1), entity(2)]).await.unwrap_err();
    let ClientError::Refused { code, message, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((*code, message.as_str()), (Code::NotFound, results[1].1));

    switch.with(|state| state.read_status = Some(Status::unimplemented("not this")));
    let error = client.read(vec![entity(1)]).await.unwrap_err();
    assert!(error.to_string().contains("not this"), "{error}");

    switch.with(|state| state.read_status = Some(batch_status(&results)));
    let error = client.read(vec![entity(1)]).await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn an_unreachable_switch_is_named() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let error = Client::connect(ClientConfig::new(&closed, 1, 1)).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, ClientError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.is_transient());
    let text = error.to_string();
    assert!(text.contains(&closed) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_backup_learns_who_is_primary_and_takes_over() {
    let switch = Switch::start().await;
    let first = primary(&switch).await;
    assert_eq!(*first.arbitration().borrow(), Arbitration::Primary);

    let second = Client::connect(config(&switch, 9)).await.unwrap();
    let error = second.become_primary().await.unwrap_err();
    let ClientError::NotPrimary { primary, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*primary, Some(10));
    assert!(error.to_string().contains("the primary has election id 10"));

    // Beyond 64 bits, on the stream that is open already.
    let higher = (1 << 64) + 3;
    second.become_primary_as(higher).await.unwrap();
    assert_eq!(*second.arbitration().borrow(), Arbitration::Primary);
    let state = reaches(&first, |state| *state != Arbitration::Primary).await;
    let demoted = Arbitration::Backup {
        primary: Some(higher),
    };
    assert_eq!(state, demoted);
    assert_eq!(switch.with(|state| state.streams.len()), 2);
}

#[tokio::test]
async fn news_of_an_older_election_is_not_the_answer_to_a_bid() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    switch.with(|state| state.mute = true);
    let bid = tokio::spawn({
        let client = client.clone();
        async move { client.become_primary_as(12).await }
    });
    let mut told = client.arbitration();
    told.mark_unchanged();
    let older = scripted::arbitration(11, Code::AlreadyExists);
    switch.tell(older.update.unwrap()).await;
    timeout(DEADLINE, told.changed()).await.unwrap().unwrap();
    switch
        .tell(scripted::arbitration(12, Code::Ok).update.unwrap())
        .await;
    timeout(DEADLINE, bid).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_refusal() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.readable().await.unwrap();
            drop(socket);
        }
    });
    let client = Client::connect(ClientConfig::new(&address, 1, 1)).await;
    // Depending on who is quicker, it breaks while connecting or after.
    let error = match client {
        Ok(client) => client.become_primary().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(error, ClientError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(&address), "{error}");
}

/// 2
#[tokio::test]
async fn a_duplicate_election_id_is_told_apart_from_a_backup() {
    let switch = Switch::start().await;
    let _first = primary(&switch).await;
    let second = Client::connect(config(&switch, 10)).await.unwrap();
    let error = second.become_primary().await.unwrap_err();
    assert!(
        matches!(error, ClientError::DuplicateElectionId { .. }),
        "{error:?}"
    );
}

/// 3, 4
#[tokio::test]
async fn who_is_primary_is_asked_without_a_bid() {
    let switch = Switch::start().await;
    let first = primary(&switch).await;
    let second = Client::connect(config(&switch, 99)).await.unwrap();
    let election = second.election().await.unwrap();
    let wanted = Election {
        primary: Some(10),
        highest: Some(10),
    };
    assert_eq!(election, wanted);
    assert_eq!(*first.arbitration().borrow(), Arbitration::Primary);
    assert_eq!(*second.arbitration().borrow(), Arbitration::Pending);
    let unset = switch.with(|state| {
        let bids = state
            .requests
            .iter()
            .filter_map(|request| match &request.update {
                Some(stream_message_request::Update::Arbitration(bid)) => Some(bid.election_id),
                _ => None,
            });
        bids.collect::<Vec<_>>()
    });
    assert_eq!(unset, [Some(Uint128 { high: 0, low: 10 }), None]);
}

/// 4, 5
#[tokio::test]
async fn the_role_is_a_string_and_the_default_role_stays_unset() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    client.write([update(1)]).await.unwrap();
    let mut named = config(&switch, 11);
    named.role = Some("routes".to_owned());
    let other = Client::connect(named).await.unwrap();
    other.become_primary().await.unwrap();
    other.write([update(2)]).await.unwrap();
    other.read(vec![entity(2)]).await.unwrap();

    switch.with(|state| {
        let roles = state.requests.iter().map(|request| match &request.update {
            Some(stream_message_request::Update::Arbitration(bid)) => {
                bid.role.as_ref().map(|role| role.name.clone())
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(roles.collect::<Vec<_>>(), [None, Some("routes".to_owned())]);
        assert_eq!(state.writes[0].role, "");
        assert_eq!(
            state.writes[0].election_id,
            Some(Uint128 { high: 0, low: 10 })
        );
        assert_eq!(state.writes[0].device_id, 1);
        assert_eq!(state.writes[1].role, "routes");
        assert_eq!(state.reads[0].role, "routes");
    });
}

#[tokio::test]
async fn a_lost_stream_is_seen_and_reconnected() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    let mut packets = client.take_packet_ins().unwrap();
    assert!(client.take_packet_ins().is_none());

    switch.hang_up(Some(Status::internal("rebooting")));
    let lost = reaches(&client, |s| matches!(s, Arbitration::Lost { .. })).await;
    let Arbitration::Lost { reason } = lost else {
        unreachable!()
    };
    assert!(reason.contains("rebooting"), "{reason}");
    let error = client.send_packet(PacketOut::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::StreamLost { .. }), "{error:?}");

    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(8), 1);
    client.reconnect_with(&mut backoff).await.unwrap();
    assert_eq!(*client.arbitration().borrow(), Arbitration::Primary);
    // The queues outlive the stream.
    let packet = PacketIn {
        payload: vec![1, 2, 3],
        ..Default::default()
    };
    switch.tell(FromSwitch::Packet(packet.clone())).await;
    assert_eq!(
        timeout(DEADLINE, packets.recv()).await.unwrap(),
        Some(packet)
    );
}

#[tokio::test]
async fn reconnecting_gives_up_after_its_tries_and_on_what_no_retry_mends() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    let _other = {
        let other = Client::connect(config(&switch, 20)).await.unwrap();
        other.become_primary().await.unwrap();
        other
    };
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2), 1);
    let error = client.reconnect_with(&mut backoff).await.unwrap_err();
    assert!(matches!(error, ClientError::NotPrimary { .. }), "{error:?}");

    // The id in use by another counts as passing: that may be one's own dead stream.
    let error = async {
        let late = Client::connect(config(&switch, 20)).await.unwrap();
        let mut backoff = backoff.clone().with_tries_max(2);
        late.reconnect_with(&mut backoff).await.unwrap_err()
    };
    let error = error.await;
    assert!(
        matches!(error, ClientError::DuplicateElectionId { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_dropped_client_closes_its_stream() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    let stream = switch.with(|state| state.streams[0].to.clone());
    drop(client);
    timeout(DEADLINE, stream.closed()).await.unwrap();
}

#[tokio::test]
async fn who_leaves_is_gone_when_it_says_so() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    client.leave().await;
    assert_eq!(switch.with(|state| state.streams.len()), 0);
    assert!(matches!(
        &*client.arbitration().borrow(),
        Arbitration::Lost { .. }
    ));
    // Without a stream, there is nothing to leave.
    client.leave().await;
    client.become_primary().await.unwrap();
}

#[tokio::test]
async fn a_silent_switch_times_out() {
    let switch = Switch::start().await;
    switch.with(|state| state.mute = true);
    let mut config = config(&switch, 1);
    config.rpc_timeout = Duration::from_millis(50);
    let client = Client::connect(config).await.unwrap();
    let error = client.become_primary().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains(&switch.address));
}

/// 8
#[tokio::test]
async fn each_update_gets_its_own_result() {
    let switch = Switch::start().await;
    let mut config = config(&switch, 10);
    config.batch_updates_max = 3;
    let client = Client::connect(config).await.unwrap();
    client.become_primary().await.unwrap();
    switch.with(|state| {
        state.write_rule = Some(Box::new(|request| {
            let result = |update: &Update| match update.entity.clone().unwrap().entity {
                Some(p4runtime::p4::v1::entity::Entity::TableEntry(entry))
                    if entry.table_id == 5 =>
                {
                    (Code::AlreadyExists, "there already")
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
    // Three requests; the second has a refusal.
    let updates: Vec<_> = (1..=8).map(update).collect();
    let error = client.write(&updates).await.unwrap_err();
    let mut wanted = [Code::Ok; 8];
    wanted[4] = Code::AlreadyExists;
    assert_eq!(codes(&error), wanted);
    assert_eq!(
        error.to_string(),
        "1 of 8 updates were refused; update 4: ALREADY_EXISTS: there already"
    );
    let refused: Vec<_> = error.refused().map(|(at, _)| at).collect();
    assert_eq!(refused, [4]);
    let sent: Vec<_> = switch.with(|state| {
        let writes = std::mem::take(&mut state.writes);
        writes.into_iter().flat_map(|write| write.updates).collect()
    });
    assert_eq!(sent, updates);
    client.write([]).await.unwrap();
    assert_eq!(switch.with(|state| state.writes.len()), 0);
}

/// 7
#[tokio::test]
async fn aborted_updates_are_written_again() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    // Stops at the first error (even numbers) and aborts the rest.
    switch.with(|state| {
        state.write_rule = Some(Box::new(stops_at_an_even_number));
    });
    let updates: Vec<_> = (1..=7).map(update).collect();
    let error = client.write(updates).await.unwrap_err();
    let (ok, no) = (Code::Ok, Code::NotFound);
    assert_eq!(codes(&error), [ok, no, ok, no, ok, no, ok]);
    assert_eq!(switch.with(|state| state.writes.len()), 4);
}

/// However many rounds it takes, and without sending the rest each time.
#[tokio::test]
async fn a_batch_full_of_errors_is_written_to_its_end() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    switch.with(|state| {
        state.write_rule = Some(Box::new(|request| {
            let result = |at: usize| match at {
                0 => (Code::NotFound, "no such entry"),
                _ => (Code::Aborted, "not tried"),
            };
            let results: Vec<_> = (0..request.updates.len()).map(result).collect();
            Err(batch_status(&results))
        }));
    });
    let updates: Vec<_> = (1..=500).map(update).collect();
    let error = client.write(&updates).await.unwrap_err();
    assert_eq!(codes(&error), [Code::NotFound; 500]);
    let sent = switch.with(|state| {
        let writes = state.writes.iter();
        writes.map(|write| write.updates.len()).sum::<usize>()
    });
    assert!(sent < 3 * updates.len(), "{sent} updates were sent");
}

#[tokio::test]
async fn what_stays_aborted_is_given_up() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    switch.with(|state| {
        state.write_rule = Some(Box::new(|request| {
            Err(batch_status(&vec![
                (Code::Aborted, "");
                request.updates.len()
            ]))
        }));
    });
    let error = client.write([update(1), update(2)]).await.unwrap_err();
    assert_eq!(codes(&error), [Code::Aborted; 2]);
    let rounds = limits::ABORTED_ROUNDS_WITHOUT_PROGRESS_MAX as usize;
    assert_eq!(switch.with(|state| state.writes.len()), 1 + rounds);
}

/// 9
#[tokio::test]
async fn the_results_of_a_full_batch_fit_the_trailer() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    let message = "x".repeat(100);
    switch.with(|state| {
        state.write_rule = Some(Box::new(move |request| {
            let one = (Code::InvalidArgument, message.as_str());
            Err(batch_status(&vec![one; request.updates.len()]))
        }));
    });
    let count = client.config().batch_updates_max;
    let updates: Vec<_> = (1..).map(update).take(count).collect();
    let error = client.write(&updates).await.unwrap_err();
    assert_eq!(error.refused().count(), count);
    assert!(error.to_string().ends_with("and 2045 more"), "{error}");
}

/// 6, 8
#[tokio::test]
async fn a_refused_request_says_what_was_decided_before() {
    let switch = Switch::start().await;
    let mut config = config(&switch, 10);
    config.batch_updates_max = 1;
    let client = Client::connect(config).await.unwrap();
    client.become_primary().await.unwrap();
    let mut left = 2;
    switch.with(|state| {
        state.write_rule = Some(Box::new(move |_| match left {
            0 => Err(Status::permission_denied("Not primary")),
            _ => {
                left -= 1;
                Ok(())
            }
        }));
    });
    let updates: Vec<_> = (1..=4).map(update).collect();
    let error = client.write(&updates).await.unwrap_err();
    let WriteError::Failed { decided, source } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(decided.len(), 2);
    assert!(
        matches!(source, ClientError::NotPrimary { .. }),
        "{source:?}"
    );

    switch.with(|state| {
        state.write_rule = Some(Box::new(|_| {
            Err(Status::failed_precondition("No pipeline"))
        }));
    });
    let error = client.write([update(1)]).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("push a pipeline first"), "{text}");

    // Fewer results than updates: none of them can be trusted.
    switch.with(|state| {
        state.write_rule = Some(Box::new(|_| Err(batch_status(&[(Code::Ok, ""); 2]))));
    });
    let error = client.write([update(1)]).await.unwrap_err();
    assert!(
        error.to_string().contains("2 results for 1 updates"),
        "{error}"
    );
}

/// 10
#[tokio::test]
async fn a_whole_table_in_one_message_is_read() {
    let switch = Switch::start().await;
    let mut config = config(&switch, 1);
    config.read_entities_max = 200_001;
    let client = Client::connect(config).await.unwrap();
    let mut large = entity(7);
    if let Some(p4runtime::p4::v1::entity::Entity::TableEntry(entry)) = &mut large.entity {
        entry.metadata = vec![7; 24];
    }
    let part = |count| ReadResponse {
        entities: vec![large.clone(); count],
    };
    switch.with(|state| state.read_parts = vec![part(200_000), part(1)]);
    let read = client.read(vec![entity(0)]).await.unwrap();
    assert_eq!(read.len(), 200_001);
    assert!(prost::Message::encoded_len(&part(200_000)) > 4 << 20);

    switch.with(|state| state.read_parts = vec![part(200_000), part(2)]);
    let error = client.read(vec![entity(0)]).await.unwrap_err();
    assert!(
        matches!(error, ClientError::TooManyEntities { .. }),
        "{error:?}"
    );
    let mut stream = client.read_stream(vec![entity(0)]).await.unwrap();
    let mut sizes = Vec::new();
    while let Some(part) = stream.next_part().await.unwrap() {
        sizes.push(part.len());
    }
    assert_eq!(sizes, [200_000, 2]);
}

/// 16, 17
#[tokio::test]
async fn no_pipeline_is_an_answer_in_both_its_forms() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    let none = client
        .get_pipeline(PipelineParts::CookieOnly)
        .await
        .unwrap();
    assert!(!none.is_loaded());
    switch.with(|state| state.pipeline = Some(Err(Status::failed_precondition("PI"))));
    let none = client
        .get_pipeline(PipelineParts::CookieOnly)
        .await
        .unwrap();
    assert!(!none.is_loaded());
    switch.with(|state| {
        state.pipeline = Some(Ok(Some(ForwardingPipelineConfig {
            cookie: Some(forwarding_pipeline_config::Cookie { cookie: 42 }),
            ..Default::default()
        })));
    });
    let some = client.get_pipeline(PipelineParts::All).await.unwrap();
    assert_eq!(some.cookie(), Some(42));
}

/// 17
#[tokio::test]
async fn pipelines_are_set_committed_and_reconciled_where_offered() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    let info = P4Info::default;
    let verify = PipelineAction::VerifyAndSave;
    client
        .set_pipeline(verify, info(), vec![1], 3)
        .await
        .unwrap();
    client.commit_pipeline().await.unwrap();
    assert!(client.reconcile_pipeline(info(), vec![2], 4).await.unwrap());
    switch.with(|state| {
        let refusal = Status::unimplemented("RECONCILE_AND_COMMIT");
        state.pipeline_answers.push_back(Err(refusal));
    });
    assert!(!client.reconcile_pipeline(info(), vec![3], 5).await.unwrap());

    let actions = switch.with(|state| {
        assert_eq!(state.pipelines[1].config, None, "COMMIT takes no config");
        let one = |request: &SetForwardingPipelineConfigRequest| request.action();
        state.pipelines.iter().map(one).collect::<Vec<_>>()
    });
    assert_eq!(
        actions,
        [
            PipelineAction::VerifyAndSave,
            PipelineAction::Commit,
            PipelineAction::ReconcileAndCommit,
            PipelineAction::ReconcileAndCommit,
            PipelineAction::VerifyAndCommit,
        ]
    );

    switch.with(|state| {
        let refusal = Status::invalid_argument("unknown table 0x1234");
        state.pipeline_answers.push_back(Err(refusal));
    });
    let error = client.set_pipeline(verify, info(), Vec::new(), 1).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "SetForwardingPipelineConfig refused: INVALID_ARGUMENT: unknown table 0x1234"
    );
}

/// 18, 19
#[tokio::test]
async fn a_full_queue_drops_counts_and_never_holds_up_the_arbitration() {
    let switch = Switch::start().await;
    let mut config = config(&switch, 10);
    config.idle_timeout_queue = 2;
    let client = Client::connect(config).await.unwrap();
    client.become_primary().await.unwrap();
    let mut idle = client.take_idle_timeouts().unwrap();
    let mut digests = client.take_digests().unwrap();
    let notice = |timestamp| IdleTimeoutNotification {
        timestamp,
        ..Default::default()
    };
    for timestamp in 0..5 {
        let update = FromSwitch::IdleTimeoutNotification(notice(timestamp));
        switch.tell(update).await;
    }
    let list = DigestList {
        digest_id: 3,
        list_id: 4,
        ..Default::default()
    };
    switch.tell(FromSwitch::Digest(list)).await;
    let list = timeout(DEADLINE, digests.recv()).await.unwrap().unwrap();
    client
        .ack_digest(list.digest_id, list.list_id)
        .await
        .unwrap();
    assert_eq!(client.stream_drops().idle_timeouts, 3);
    assert_eq!(idle.recv().await, Some(notice(0)));
    assert_eq!(idle.recv().await, Some(notice(1)));
    switch.hang_up(None);
    reaches(&client, |s| matches!(s, Arbitration::Lost { .. })).await;
}

#[tokio::test]
async fn the_version_is_told() {
    let switch = Switch::start().await;
    let client = Client::connect(config(&switch, 1)).await.unwrap();
    let capabilities = client.capabilities().await.unwrap();
    assert_eq!(capabilities.p4runtime_api_version, "1.3.0");
}

/// The client's futures can be spawned.
#[tokio::test]
async fn futures_are_send() {
    let switch = Switch::start().await;
    let client = primary(&switch).await;
    let tasks: Vec<_> = (1..=8)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.write(vec![update(number)]).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(switch.with(|state| state.writes.len()), 8);
}
