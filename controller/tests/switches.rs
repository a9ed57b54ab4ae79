//! Several switches: each gets what is its own, and one that hangs or is away slows no other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod embedded;

use std::sync::Arc;
use std::time::{Duration, Instant};

use embedded::{PATIENCE, configuration, configured, id, read, routes, switch};
use shunt_controller::config::{Config, Switch};
use shunt_controller::switch::{
    Connected, Member, Scope, SessionParts, SwitchHandle, SwitchState, Switches,
};
use shunt_p4::SwitchIndex;
use shunt_p4::tables::{
    AnyEntry, ClassifyPort, EgressInterface, NexthopAction, NexthopEntry, P4Table as _, Route4,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn member(
    config: &Config,
    name: &str,
    address: &str,
    place: usize,
    stop: &CancellationToken,
) -> (Member, JoinHandle<()>) {
    let switch = Switch {
        name: name.to_owned(),
        address: address.to_owned(),
        ..config.switches[0].clone()
    };
    let parts = SessionParts {
        meters: config.punt_meters.clone(),
        scope: Scope::Of(SwitchIndex::of(place)),
        peerings: None,
        engine: None,
        resolver: Arc::new(|_, _| {}),
        stop: stop.clone(),
    };
    let (handle, task) = SwitchHandle::start(Connected::lazy(&switch).unwrap(), parts);
    let member = Member {
        switch,
        handle,
        engine: None,
    };
    (member, task)
}

async fn wait(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn actions(address: &str) -> Vec<NexthopAction> {
    let entries = read(address, NexthopEntry::ID).await;
    let actions = entries.into_iter().map(|entry| match entry {
        AnyEntry::NexthopEntry(entry) => entry.action,
        other => panic!("{other:?}"),
    });
    actions.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_slows_no_other() {
    let (one, two) = (switch("127.0.0.1:0").await, switch("127.0.0.1:0").await);
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = free.local_addr().unwrap().to_string();
    drop(free);
    let mut config = configuration(&one.addr());
    for found in &mut config.interfaces {
        let second = [3, 4, 5].contains(&found.interface.id.get());
        found.interface.switch = SwitchIndex::of(usize::from(second));
    }
    let stop = CancellationToken::new();
    let (members, tasks): (Vec<_>, Vec<_>) = [
        member(&config, "one", &one.addr(), 0, &stop),
        member(&config, "two", &two.addr(), 1, &stop),
        member(&config, "away", &nowhere, 2, &stop),
    ]
    .into_iter()
    .unzip();
    let switches = Switches::new(members.clone());
    let [first, second, away] = members.as_slice() else {
        panic!("{members:?}");
    };
    switches.apply(&configured(&config)).await;
    switches.complete().await;
    wait("both converge", || {
        first.handle.is_converged() && second.handle.is_converged()
    })
    .await;
    // Each has its own interfaces and the slow path's port.
    for (address, egress, classify) in [(one.addr(), 3, 4), (two.addr(), 2, 3)] {
        assert_eq!(read(&address, EgressInterface::ID).await.len(), egress);
        assert_eq!(read(&address, ClassifyPort::ID).await.len(), classify);
    }

    let hung = two.hang();
    switches.apply(&routes(500)).await;
    wait("the first converges", || first.handle.is_converged()).await;
    assert!(!second.handle.is_converged());
    assert_eq!(read(&one.addr(), Route4::ID).await.len(), 500);
    // The gateways are on the other switch: what goes there goes to the slow path.
    assert_eq!(actions(&one.addr()).await, [NexthopAction::Unreachable; 2]);
    let repair = first.handle.reconcile().await.unwrap();
    assert_eq!((repair.found, repair.left), (Vec::new(), 0));
    assert_ne!(away.handle.view().state, SwitchState::Ready);
    let refused = away.handle.diff().await.unwrap_err().to_string();
    assert!(refused.contains("away is connecting"), "{refused}");

    drop(hung);
    wait("the second converges", || second.handle.is_converged()).await;
    assert_eq!(read(&two.addr(), Route4::ID).await.len(), 500);
    let via = actions(&two.addr()).await;
    assert!(
        via.len() == 2 && via.iter().all(|a| matches!(a, NexthopAction::Via4 { .. })),
        "{via:?}, of next hops {} and {}",
        id(2),
        id(3)
    );
    let unknown = switches.named("three").unwrap_err().to_string();
    assert_eq!(
        unknown,
        "there is no switch named \"three\" (known: one, two, away)"
    );
    assert_eq!(switches.named("").unwrap().len(), 3);
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    one.kill().await;
    two.kill().await;
}
