//! Who is primary.

use p4runtime::client::{
    Arbitration, Backoff, Client, ClientConfig, ClientError, PipelineParts, WriteError,
};
use shunt_testbed::Result;

use crate::switch::{ADDRESS, Program, Switch, connect, primary, reaches};

const ROUTE: &str = "route dst=10.0.0.0/8 do drop";

pub(crate) async fn the_highest_election_id_is_the_primary(_: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let first = primary(&forward).await;
    let second = connect(9).await;
    let error = second.become_primary().await.unwrap_err();
    let ClientError::NotPrimary { primary, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(primary, Some(10));
    let refused = second.write([forward.insert(ROUTE)]).await;
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
    let demoted = Arbitration::Backup {
        primary: Some(higher),
    };
    assert_eq!(told, demoted);
    second.write([forward.insert(ROUTE)]).await.unwrap();
    Ok(())
}

pub(crate) async fn who_is_primary_is_asked_without_becoming_it(_: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let looker = connect(99).await;
    assert_eq!(looker.election().await.unwrap().primary, None);
    let first = primary(&forward).await;
    let election = looker.election().await.unwrap();
    assert_eq!((election.primary, election.highest), (Some(10), Some(10)));
    assert_eq!(*first.arbitration().borrow(), Arbitration::Primary);
    first.write([forward.insert(ROUTE)]).await.unwrap();
    Ok(())
}

/// A bid that changes nothing is well, also where the switch does not answer it.
pub(crate) async fn a_primary_may_bid_again(_: Switch) -> Result<()> {
    let first = connect(10).await;
    first.become_primary().await.unwrap();
    first.become_primary().await.unwrap();
    first.become_primary_as(11).await.unwrap();
    let election = connect(99).await.election().await.unwrap();
    assert_eq!(election.primary, Some(11));
    Ok(())
}

/// Also where those who ask are in each other's way.
pub(crate) async fn many_ask_at_once_who_is_primary(_: Switch) -> Result<()> {
    let first = connect(10).await;
    first.become_primary().await.unwrap();
    let looker = connect(99).await;
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let looker = looker.clone();
            tokio::spawn(async move { looker.election().await })
        })
        .collect();
    for answer in asking {
        assert_eq!(answer.await.unwrap().unwrap().primary, Some(10));
    }
    Ok(())
}

/// A switch that keeps to the specification promotes nobody; others do.
pub(crate) async fn a_backup_is_told_when_the_primary_leaves(switch: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let first = primary(&forward).await;
    let second = connect(9).await;
    second.become_primary().await.unwrap_err();
    first.leave().await;
    if switch.kind.promotes() {
        reaches(&second, |state| *state == Arbitration::Primary).await;
    } else {
        let nobody = Arbitration::Backup { primary: None };
        reaches(&second, |state| *state == nobody).await;
        let election = connect(99).await.election().await.unwrap();
        assert_eq!((election.primary, election.highest), (None, Some(10)));
        let error = second.become_primary().await.unwrap_err();
        let ClientError::NotPrimary { primary: None, .. } = error else {
            panic!("{error:?}");
        };
        // As high as the last primary's is enough.
        second.become_primary_as(10).await.unwrap();
    }
    second.write([forward.insert(ROUTE)]).await.unwrap();
    Ok(())
}

/// The lowest id is an id, and makes a primary; no id never does.
pub(crate) async fn zero_is_an_election_id(switch: Switch) -> Result<()> {
    let lowest = connect(0).await;
    lowest.become_primary().await.unwrap();
    Program::named("forward").push(&lowest).await;
    let other = connect(1).await;
    let asked = other.election().await;
    if switch.kind.is_pi() {
        // No id is 0 to PI, and that is in use.
        let said = asked.unwrap_err().to_string();
        assert!(said.contains("election id 0 is in use"), "{said}");
    } else {
        let election = asked.unwrap();
        assert_eq!((election.primary, election.highest), (Some(0), Some(0)));
    }
    assert_eq!(*lowest.arbitration().borrow(), Arbitration::Primary);
    other.become_primary().await.unwrap();
    reaches(&lowest, |state| *state != Arbitration::Primary).await;
    Ok(())
}

async fn with_role(role: &str, election_id: u128) -> Client {
    let mut config = ClientConfig::new(ADDRESS, 1, election_id);
    config.role = Some(role.to_owned());
    Client::connect(config).await.unwrap()
}

/// Each role elects its own primary; bmv2 knows none, and says who is in the way.
pub(crate) async fn a_role_has_a_primary_of_its_own(switch: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let default = primary(&forward).await;
    let routes = with_role("routes", 1).await;
    let answer = routes.become_primary().await;
    if switch.kind.is_pi() {
        let error = answer.unwrap_err();
        let ClientError::NotPrimary { role, primary, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!((role.as_deref(), *primary), (Some("routes"), Some(10)));
        assert!(error.to_string().contains("role \"routes\""), "{error}");
        return Ok(());
    }
    answer.unwrap();
    assert_eq!(*default.arbitration().borrow(), Arbitration::Primary);
    routes.write([forward.insert(ROUTE)]).await.unwrap();
    assert_eq!(forward.read(&routes, "route").await.len(), 1);
    let rival = with_role("routes", 2).await;
    rival.become_primary().await.unwrap();
    let lost = Arbitration::Backup { primary: Some(2) };
    reaches(&routes, |state| *state == lost).await;
    assert_eq!(*default.arbitration().borrow(), Arbitration::Primary);
    Ok(())
}

/// Whatever else is wrong too: first the device, then the role, then the pipeline.
pub(crate) async fn a_refusal_names_what_to_do(switch: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let write = async |client: &Client| {
        let error = client.write([forward.insert(ROUTE)]).await.unwrap_err();
        error.to_string()
    };
    let elsewhere = Client::connect(ClientConfig::new(ADDRESS, 7, 10)).await;
    let said = write(&elsewhere.unwrap()).await;
    // To PI an unknown device is one without a primary.
    let wanted = match switch.kind.is_pi() {
        true => "on device 7 with election id 10: the switch has no primary that is known",
        false => "check the device id",
    };
    assert!(said.contains(wanted), "{said}");

    let first = connect(10).await;
    first.become_primary().await.unwrap();
    let second = connect(9).await;
    second.become_primary().await.unwrap_err();
    let said = write(&second).await;
    assert!(said.contains("the primary has election id 10"), "{said}");

    let said = write(&first).await;
    assert!(said.contains("push a pipeline first"), "{said}");
    Ok(())
}

pub(crate) async fn a_restarted_switch_is_found_empty(switch: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = primary(&forward).await;
    client.write([forward.insert(ROUTE)]).await.unwrap();
    let switch = tokio::task::block_in_place(|| switch.restart())?;
    reaches(&client, |state| matches!(state, Arbitration::Lost { .. })).await;

    let mut backoff = Backoff::default().with_tries_max(50);
    client.reconnect_with(&mut backoff).await.unwrap();
    let none = client.get_pipeline(PipelineParts::CookieOnly).await;
    assert!(!none.unwrap().is_loaded());
    let error = client.write([forward.insert(ROUTE)]).await.unwrap_err();
    assert!(
        error.to_string().contains("push a pipeline first"),
        "{error}"
    );

    forward.push(&client).await;
    assert_eq!(forward.read(&client, "route").await, [""; 0]);
    client.write([forward.insert(ROUTE)]).await.unwrap();
    drop(switch);
    Ok(())
}
