//! The P4Runtime client against switches that run the project's pipeline: the real bmv2 where
//! it is on PATH, and the embedded one, to the specification and deviating from it. Each in a
//! sandbox, for `--grpc-server-addr` is a port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use p4runtime::client::{
    Arbitration, Backoff, BatchError, Client, ClientConfig, ClientError, PipelineAction,
    PipelineParts, WriteError, code_of,
};
use p4runtime::named::{Named, Purpose, parse_line};
use p4runtime::order::References;
use p4runtime::p4::v1 as pb;
use p4runtime::p4info::P4InfoIndex;
use p4runtime::value::{EntryKey, canonicalize_entity, canonicalize_table_entry, encode};
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::{Result, binaries, sandbox};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

const ADDRESS: &str = "127.0.0.1:9559";
const DEADLINE: Duration = Duration::from_secs(20);
const COOKIE: u64 = 0xfeed_f00d;
/// gRPC's code for what is there already.
const ALREADY_EXISTS: i32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bmv2,
    Embedded,
    /// With what `--deviate` takes.
    Deviating(&'static str),
}

/// A running switch without a pipeline.
struct Switch {
    kind: Kind,
    service: Service,
    logs: TempDir,
}

impl Switch {
    fn start(kind: Kind) -> Result<Self> {
        let logs = tempfile::tempdir().unwrap();
        let service = Self::service(kind, &logs)?;
        Ok(Self {
            kind,
            service,
            logs,
        })
    }

    fn service(kind: Kind, logs: &TempDir) -> Result<Service> {
        let mut command = match kind {
            Kind::Bmv2 => Command::new("simple_switch_grpc"),
            Kind::Embedded | Kind::Deviating(_) => Command::new(binaries::find("shunt-switch")?),
        };
        if let Kind::Deviating(how) = kind {
            command.args(["--deviate", how]);
        }
        command.args(["--no-p4", "--device-id", "1"]);
        command.args(["--", "--grpc-server-addr", ADDRESS]);
        let mut service = Service::start("switch", logs.path(), command)?;
        wait_for("the switch to listen", DEADLINE, || {
            service.ended().is_some() || std::net::TcpStream::connect(ADDRESS).is_ok()
        })?;
        service.check_running()?;
        Ok(service)
    }

    /// Kills it, and starts an empty one in its place.
    fn restart(self) -> Result<Self> {
        let Self {
            kind,
            mut service,
            logs,
        } = self;
        service.signal(nix::sys::signal::Signal::SIGKILL)?;
        service.wait(DEADLINE)?;
        let service = Self::service(kind, &logs)?;
        Ok(Self {
            kind,
            service,
            logs,
        })
    }
}

fn index() -> P4InfoIndex {
    P4InfoIndex::from_text(shunt_p4::P4INFO).unwrap()
}

async fn connect(election_id: u128) -> Client {
    let config = ClientConfig::new(ADDRESS, 1, election_id);
    Client::connect(config).await.unwrap()
}

async fn push(client: &Client) {
    let p4info = index().p4info().clone();
    let json = shunt_p4::PIPELINE_JSON.to_vec();
    let action = PipelineAction::VerifyAndCommit;
    let pushed = client.set_pipeline(action, p4info, json, COOKIE);
    pushed.await.unwrap();
}

async fn primary() -> Client {
    let client = connect(10).await;
    client.become_primary().await.unwrap();
    push(&client).await;
    client
}

/// The `number`th flow: any values will do, as long as each has its own.
fn flow(index: &P4InfoIndex, number: u32) -> pb::Entity {
    let table = index.table("flow4").unwrap();
    let exact = |name: &str, value: u128| {
        let field = table.field(name).unwrap();
        let value = encode(value, field.bitwidth).unwrap();
        pb::FieldMatch {
            field_id: field.id,
            field_match_type: Some(pb::field_match::FieldMatchType::Exact(
                pb::field_match::Exact { value },
            )),
        }
    };
    let action = index.action("flow4_forward").unwrap();
    let params = action.params.iter().map(|param| pb::action::Param {
        param_id: param.id,
        value: encode(0, param.bitwidth).unwrap(),
    });
    table_entry(pb::TableEntry {
        table_id: table.id,
        r#match: vec![
            exact("vpc", 1),
            exact("src", number.into()),
            exact("dst", 0x0a00_0001),
            exact("proto", 6),
            exact("src_port", 0),
            exact("dst_port", 443),
        ],
        action: Some(pb::TableAction {
            r#type: Some(pb::table_action::Type::Action(pb::Action {
                action_id: action.id,
                params: params.collect(),
            })),
        }),
        ..Default::default()
    })
}

fn table_entry(entry: pb::TableEntry) -> pb::Entity {
    pb::Entity {
        entity: Some(pb::entity::Entity::TableEntry(entry)),
    }
}

/// A Read's selection of a whole table.
fn whole(index: &P4InfoIndex, table: &str) -> pb::Entity {
    table_entry(pb::TableEntry {
        table_id: index.table(table).unwrap().id,
        ..Default::default()
    })
}

fn insert(entity: pb::Entity) -> pb::Update {
    pb::Update {
        r#type: pb::update::Type::Insert.into(),
        entity: Some(entity),
    }
}

fn keys(entities: Vec<pb::Entity>, index: &P4InfoIndex) -> HashSet<EntryKey> {
    let key = |entity: pb::Entity| match entity.entity {
        Some(pb::entity::Entity::TableEntry(mut entry)) => {
            canonicalize_table_entry(&mut entry, index).unwrap();
            EntryKey::of(&entry)
        }
        other => panic!("{other:?}"),
    };
    entities.into_iter().map(key).collect()
}

async fn reaches(client: &Client, wanted: impl Fn(&Arbitration) -> bool) -> Arbitration {
    let mut watch = client.arbitration();
    let state = timeout(DEADLINE, watch.wait_for(|state| wanted(state))).await;
    state.expect("in time").unwrap().clone()
}

async fn a_pipeline_is_pushed_and_its_cookie_comes_back(switch: Switch) -> Result<()> {
    let client = connect(10).await;
    let none = client.get_pipeline(PipelineParts::CookieOnly).await;
    assert!(!none.unwrap().is_loaded());
    client.become_primary().await.unwrap();

    push(&client).await;
    let pushed = client.get_pipeline(PipelineParts::All).await.unwrap();
    assert_eq!(pushed.cookie(), Some(COOKIE));
    assert_eq!(pushed.p4info(), Some(index().p4info()));
    let version = client.capabilities().await.unwrap().p4runtime_api_version;
    assert!(version.starts_with("1."), "{version}");

    let p4info = index().p4info().clone();
    let action = PipelineAction::VerifyAndCommit;
    let refused = client.set_pipeline(action, p4info, b"{ not JSON".to_vec(), 1);
    let error = refused.await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error:?}");
    // bmv2 1.15 is left in the middle of an update, and takes no pipeline before a restart.
    if switch.kind != Kind::Bmv2 {
        let kept = client.get_pipeline(PipelineParts::CookieOnly).await;
        assert_eq!(kept.unwrap().cookie(), Some(COOKIE));
        push(&client).await;
    }
    Ok(())
}

async fn the_highest_election_id_is_the_primary(_: Switch) -> Result<()> {
    let first = primary().await;
    let second = connect(9).await;
    let error = second.become_primary().await.unwrap_err();
    let ClientError::NotPrimary { primary, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(primary, Some(10));
    let refused = second.write([insert(flow(&index(), 1))]).await;
    let Err(WriteError::Failed { source, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        matches!(source, ClientError::NotPrimary { .. }),
        "{source:?}"
    );

    let twin = connect(10).await;
    let error = twin.become_primary().await.unwrap_err();
    assert!(
        matches!(error, ClientError::DuplicateElectionId { .. }),
        "{error:?}"
    );

    let higher = (1 << 64) + 1;
    second.become_primary_as(higher).await.unwrap();
    let told = reaches(&first, |state| *state != Arbitration::Primary).await;
    assert_eq!(
        told,
        Arbitration::Backup {
            primary: Some(higher)
        }
    );
    second.write([insert(flow(&index(), 1))]).await.unwrap();
    Ok(())
}

async fn who_is_primary_is_asked_without_becoming_it(_: Switch) -> Result<()> {
    let looker = connect(99).await;
    assert_eq!(looker.election().await.unwrap().primary, None);
    let first = primary().await;
    let election = looker.election().await.unwrap();
    assert_eq!((election.primary, election.highest), (Some(10), Some(10)));
    assert_eq!(*first.arbitration().borrow(), Arbitration::Primary);
    first.write([insert(flow(&index(), 1))]).await.unwrap();
    Ok(())
}

/// What is referred to and who refers to it, in one call and in the wrong order.
async fn dependent_updates_are_written_in_order(_: Switch) -> Result<()> {
    let client = primary().await;
    let index = index();
    let references = References::of(&index);
    let update = |kind: pb::update::Type, line: &str| pb::Update {
        r#type: kind.into(),
        entity: Some(parse_line(line, &index, Purpose::Write).unwrap()),
    };
    let lines = [
        "ecmp group=1 do group=7",
        "group ecmp_selector 7 member=5 --max-size 4",
        "member ecmp_selector 5 do to_nexthop nexthop=3",
    ];
    let inserts = lines.map(|line| update(pb::update::Type::Insert, line));
    client.write_ordered(&inserts, &references).await.unwrap();
    let shown = client.read(vec![whole(&index, "ecmp")]).await.unwrap();
    let shown: Vec<_> = shown
        .iter()
        .map(|entity| Named::of(entity, &index).unwrap().to_string())
        .collect();
    assert_eq!(shown, ["table ecmp group=1 do group=7"]);

    let mut removals = lines.map(|line| update(pb::update::Type::Delete, line));
    removals.reverse();
    client.write_ordered(&removals, &references).await.unwrap();
    let left = client.read(vec![whole(&index, "ecmp")]).await.unwrap();
    assert_eq!(left, []);
    Ok(())
}

/// With a refusal for each update of a full batch, the trailer is at its largest.
async fn refusals_name_their_updates(_: Switch) -> Result<()> {
    let client = primary().await;
    let index = index();
    let count = client.config().batch_updates_max as u32;
    let updates: Vec<_> = (0..count).map(|n| insert(flow(&index, n))).collect();
    let odd: Vec<_> = updates.iter().skip(1).step_by(2).cloned().collect();
    client.write(&odd).await.unwrap();

    let error = client.write(&updates).await.unwrap_err();
    let WriteError::Batch(BatchError { errors }) = &error else {
        panic!("{error}");
    };
    for (at, result) in errors.iter().enumerate() {
        let wanted = if at % 2 == 1 { ALREADY_EXISTS } else { 0 };
        assert_eq!(result.canonical_code, wanted, "update {at}: {result:?}");
    }
    let error = client.write(&updates).await.unwrap_err();
    assert_eq!(error.refused().count(), updates.len());
    assert!(
        error
            .refused()
            .all(|(_, error)| code_of(error) as i32 == ALREADY_EXISTS)
    );
    let read = client.read(vec![whole(&index, "flow4")]).await.unwrap();
    assert_eq!(read.len(), updates.len());
    Ok(())
}

/// More than 4 MiB: what bmv2 sends as one message.
async fn a_large_table_reads_back_as_it_was_written(_: Switch) -> Result<()> {
    const COUNT: u32 = 60_000;
    let client = primary().await;
    let index = index();
    let updates: Vec<_> = (0..COUNT).map(|n| insert(flow(&index, n))).collect();
    client.write(&updates).await.unwrap();
    let mut read = client.read(vec![whole(&index, "flow4")]).await.unwrap();

    let wanted: Vec<_> = (0..COUNT).map(|n| flow(&index, n)).collect();
    assert_eq!(read.len(), wanted.len());
    for entity in &mut read {
        canonicalize_entity(entity, &index).unwrap();
    }
    assert_eq!(keys(read.clone(), &index), keys(wanted.clone(), &index));
    // Not only the keys.
    let first = read.iter().find(|entity| **entity == wanted[0]);
    assert!(first.is_some(), "{:?} is not among them", wanted[0]);

    let removals = updates.into_iter().map(|update| pb::Update {
        r#type: pb::update::Type::Delete.into(),
        ..update
    });
    client.write(removals.collect::<Vec<_>>()).await.unwrap();
    let left = client.read(vec![whole(&index, "flow4")]).await.unwrap();
    assert_eq!(left, []);
    Ok(())
}

async fn several_writes_are_in_flight_at_once(_: Switch) -> Result<()> {
    let client = primary().await;
    let index = index();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let updates: Vec<_> = (task * 500..(task + 1) * 500)
                .map(|number| insert(flow(&index, number)))
                .collect();
            let client = client.clone();
            tokio::spawn(async move { client.write(updates).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let read = client.read(vec![whole(&index, "flow4")]).await.unwrap();
    assert_eq!(read.len(), 4000);
    Ok(())
}

async fn a_restarted_switch_is_found_empty(switch: Switch) -> Result<()> {
    let client = primary().await;
    let index = index();
    client.write([insert(flow(&index, 1))]).await.unwrap();
    let switch = tokio::task::block_in_place(|| switch.restart())?;
    reaches(&client, |state| matches!(state, Arbitration::Lost { .. })).await;

    let mut backoff = Backoff::default().with_tries_max(50);
    client.reconnect_with(&mut backoff).await.unwrap();
    let none = client.get_pipeline(PipelineParts::CookieOnly).await;
    assert!(!none.unwrap().is_loaded());
    let error = client.write([insert(flow(&index, 1))]).await.unwrap_err();
    assert!(
        error.to_string().contains("push a pipeline first"),
        "{error}"
    );

    push(&client).await;
    let read = client.read(vec![whole(&index, "flow4")]).await.unwrap();
    assert_eq!(read, []);
    client.write([insert(flow(&index, 1))]).await.unwrap();
    drop(switch);
    Ok(())
}

/// Runs a test on a switch of its own, in a sandbox of its own.
fn on<F: Future<Output = Result<()>>>(kind: Kind, name: &str, body: impl FnOnce(Switch) -> F) {
    if kind == Kind::Bmv2 && binaries::on_path("simple_switch_grpc").is_none() {
        return sandbox::skip(name, "simple_switch_grpc is not on PATH");
    }
    sandbox::test(name, || {
        let switch = Switch::start(kind)?;
        Runtime::new().unwrap().block_on(body(switch))
    });
}

macro_rules! on_each_switch {
    ($($body:ident)*) => {
        mod bmv2 {
            $(#[test]
            fn $body() {
                super::on(super::Kind::Bmv2, concat!("bmv2::", stringify!($body)), super::$body);
            })*
        }

        mod embedded {
            $(#[test]
            fn $body() {
                let name = concat!("embedded::", stringify!($body));
                super::on(super::Kind::Embedded, name, super::$body);
            })*
        }

        mod as_pi {
            $(#[test]
            fn $body() {
                let name = concat!("as_pi::", stringify!($body));
                super::on(super::Kind::Deviating("pi,pad-bytes"), name, super::$body);
            })*
        }
    };
}

on_each_switch! {
    a_pipeline_is_pushed_and_its_cookie_comes_back
    the_highest_election_id_is_the_primary
    who_is_primary_is_asked_without_becoming_it
    dependent_updates_are_written_in_order
    refusals_name_their_updates
    a_large_table_reads_back_as_it_was_written
    several_writes_are_in_flight_at_once
    a_restarted_switch_is_found_empty
}
