//! One daemon with two switches: each has its own connections, and neither waits for the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod lab;

use lab::{DEADLINE, Lab, REDB, WANA, WANB};
use nix::sys::signal::Signal;
use serde_json::Value;
use shunt_testbed::service::wait_for;
use shunt_testbed::{Error, Result};

/// Connections that come and go on one switch while the other one is stopped.
const CHURN: u64 = 30;

/// Refusals for a reason.
fn refusals(lab: &Lab, reason: &str) -> Result<u64> {
    let offload = lab.shunt(&["offload"])?;
    let all = offload["refusals"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|count| count["name"] == reason);
    Ok(found.and_then(|count| count["value"].as_u64()).unwrap_or(0))
}

#[test]
fn connections_are_offloaded_on_the_switch_that_they_are_on() {
    lab::run(
        "connections_are_offloaded_on_the_switch_that_they_are_on",
        |lab| {
            let mut on_a = lab.connect(&lab.reda, WANA)?;
            let mut on_b = lab.connect(&lab.redb, WANB)?;
            lab.is_offloaded(&mut on_a, "a")?;
            lab.is_offloaded(&mut on_b, "b")?;
            for name in ["a", "b"] {
                lab.wait_engine(name, "connections_offloaded", 1)?;
            }

            // Routed, and masqueraded, from one switch to the other.
            let before = refusals(lab, "across_switches")?;
            let mut routed = lab.connect(&lab.reda, REDB)?;
            let mut masqueraded = lab.connect(&lab.reda, WANB)?;
            for connection in [&mut routed, &mut masqueraded] {
                connection.exchange(50)?;
                let flow = lab.flow(connection)?;
                assert_eq!(
                    (&flow["offload"], &flow["switch"]),
                    (&Value::from("software"), &Value::from("")),
                    "{flow}"
                );
                assert!(flow["software"]["packets"].as_u64() > Some(100), "{flow}");
            }
            let across = refusals(lab, "across_switches")?;
            assert!(across >= before + 2, "{before}, {across}");
            assert_eq!(lab.leases()?, 3);

            // A daemon that was killed knows which switch has what.
            let daemon = lab.daemon.take().unwrap();
            daemon.signal(Signal::SIGKILL)?;
            drop(daemon);
            on_a.exchange(20)?;
            on_b.exchange(20)?;
            lab.start_daemon()?;
            lab.converges()?;
            let offload = lab.shunt(&["offload"])?;
            let restart = &offload["restart"];
            assert_eq!(
                (&restart["restored"], &restart["adopted"]),
                (&4.into(), &2.into())
            );
            lab.is_offloaded(&mut on_a, "a")?;
            lab.is_offloaded(&mut on_b, "b")?;
            for connection in [&mut routed, &mut masqueraded] {
                connection.exchange(10)?;
            }

            // Without its rule nothing stays in either switch, and no lease.
            lab.shunt(&["config", "remove", "masquerade.out", "--wait"])?;
            for name in ["a", "b"] {
                lab.wait_engine(name, "connections_offloaded", 0)?;
            }
            assert_eq!(lab.leases()?, 0);
            routed.exchange(10)
        },
    );
}

#[test]
fn a_switch_that_is_stopped_or_gone_holds_up_no_other() {
    lab::run(
        "a_switch_that_is_stopped_or_gone_holds_up_no_other",
        |lab| {
            let mut on_a = lab.connect(&lab.reda, WANA)?;
            let mut ends = lab.connect(&lab.reda, WANA)?;
            let mut on_b = lab.connect(&lab.redb, WANB)?;
            lab.is_offloaded(&mut on_a, "a")?;
            lab.is_offloaded(&mut ends, "a")?;
            lab.is_offloaded(&mut on_b, "b")?;
            let a = lab.a.take().unwrap();
            a.signal(Signal::SIGSTOP)?;
            // Its entries have to leave a switch that does not answer: the lease stays.
            let port = ends.port().to_string();
            lab.shunt(&["flows", "delete", "--port", &port])?;

            let removed = || Ok::<_, Error>(lab.engine("b")?["connections_removed"].as_u64());
            let before = removed()?.unwrap_or(0);
            for _ in 0..CHURN {
                let mut comes = lab.connect(&lab.redb, WANB)?;
                lab.is_offloaded(&mut comes, "b")?;
                // Closing takes it out.
            }
            lab.wait_engine("b", "connections_removed", before + CHURN)?;
            lab.wait_engine("b", "connections_offloaded", 1)?;
            on_b.exchange(20)?;
            // A route that comes meanwhile gets to the other switch.
            lab.route("add 192.0.2.0/24 via 203.0.113.2 dev sh-wan-b onlink table 102")?;
            lab.has_all_routes("b")?;
            let flow = lab.flow(&ends)?;
            assert_eq!(flow["offload"], "removing", "{flow}");
            wait_for("the status to name the switch", DEADLINE, || {
                let status = lab.shunt(&["status"]).unwrap_or_default();
                status["problems"]
                    .to_string()
                    .contains("switch a is connecting")
            })?;

            // Killed, and started anew, empty.
            a.signal(Signal::SIGKILL)?;
            drop(a);
            lab.start_a()?;
            lab.converges()?;
            wait_for("the entries that had to leave", DEADLINE, || {
                lab.flow(&ends).is_ok_and(|flow| flow == Value::Null)
            })?;
            lab.is_offloaded(&mut on_a, "a")?;
            let mut new = lab.connect(&lab.reda, WANA)?;
            lab.is_offloaded(&mut new, "a")?;
            lab.is_offloaded(&mut on_b, "b")
        },
    );
}

#[test]
fn what_is_revoked_waits_for_its_own_switch_only() {
    lab::run("what_is_revoked_waits_for_its_own_switch_only", |lab| {
        let mut on_a = lab.connect(&lab.reda, WANA)?;
        let mut on_b = lab.connect(&lab.redb, WANB)?;
        lab.is_offloaded(&mut on_a, "a")?;
        lab.is_offloaded(&mut on_b, "b")?;
        let a = lab.a.take().unwrap();
        a.signal(Signal::SIGSTOP)?;
        lab.shunt(&["config", "remove", "masquerade.out"])?;
        lab.wait_engine("b", "connections_offloaded", 0)?;
        lab.route("add 192.0.2.0/24 via 203.0.113.2 dev sh-wan-b onlink table 102")?;
        lab.has_all_routes("b")?;
        // A port whose entry may still be there is nobody else's, and `converged` is not said.
        assert_eq!(lab.leases()?, 1);
        let wait = ["config", "wait", "--timeout", "100ms"];
        let said = lab
            .shunt(&wait)
            .map_or_else(|error| error.to_string(), |told| told.to_string());
        assert!(said.contains("still in a"), "{said}");
        a.signal(Signal::SIGCONT)?;
        lab.a = Some(a);
        lab.converges()?;
        lab.wait_engine("a", "connections_offloaded", 0)?;
        assert_eq!(lab.leases()?, 0);
        lab.has_all_routes("a")
    });
}

#[test]
fn a_daemon_starts_without_one_of_its_switches() {
    lab::run("a_daemon_starts_without_one_of_its_switches", |lab| {
        let mut on_a = lab.connect(&lab.reda, WANA)?;
        let mut on_b = lab.connect(&lab.redb, WANB)?;
        lab.is_offloaded(&mut on_a, "a")?;
        lab.is_offloaded(&mut on_b, "b")?;
        for service in [lab.daemon.take(), lab.a.take()].into_iter().flatten() {
            service.signal(Signal::SIGKILL)?;
        }
        on_b.exchange(20)?;
        lab.start_daemon()?;
        // Taken back by what its own switch says, and others are begun.
        lab.wait_engine("b", "connections_offloaded", 1)?;
        lab.is_offloaded(&mut on_b, "b")?;
        let mut new = lab.connect(&lab.redb, WANB)?;
        lab.is_offloaded(&mut new, "b")?;
        let status = lab.shunt(&["status"])?;
        let problems = status["problems"].to_string();
        for problem in [
            "switch a is connecting",
            "not every switch has told what it has",
        ] {
            assert!(problems.contains(problem), "{problem}: {problems}");
        }
        let flow = lab.flow(&on_a)?;
        assert_eq!(
            (&flow["offload"], &flow["switch"]),
            (&"pending".into(), &"a".into())
        );
        assert_eq!(lab.leases()?, 3);

        lab.start_a()?;
        lab.converges()?;
        lab.is_offloaded(&mut on_a, "a")?;
        lab.is_offloaded(&mut on_b, "b")
    });
}

#[test]
fn an_interface_moves_from_one_switch_to_the_other() {
    lab::run("an_interface_moves_from_one_switch_to_the_other", |lab| {
        let mut out = lab.connect(&lab.redb, WANB)?;
        let mut routed = lab.connect(&lab.reda, REDB)?;
        lab.is_offloaded(&mut out, "b")?;
        routed.exchange(10)?;
        for (key, value) in [("port", "3"), ("switch", "a")] {
            let path = format!("interface.red-b.{key}");
            lab.shunt(&["config", "set", &path, value, "--wait"])?;
        }
        for what in [
            "ip link set eth0 down",
            "ip link set eth1 up",
            "ip addr add 10.0.1.2/24 dev eth1",
            "ip route replace default via 10.0.1.1",
        ] {
            lab.redb.run(what)?;
        }
        // What was on one switch is between both now, and the other way round.
        out.exchange(20)?;
        let mut new = lab.connect(&lab.redb, WANB)?;
        new.exchange(20)?;
        assert_eq!(lab.flow(&new)?["offload"], "software");
        lab.is_offloaded(&mut routed, "a")?;
        let interfaces = lab.shunt(&["interfaces"])?;
        let all = interfaces.as_array().cloned().unwrap_or_default();
        let moved = all.iter().find(|one| one["name"] == "red-b").unwrap();
        assert_eq!(
            (&moved["switch"], &moved["state"]),
            (&"a".into(), &"up".into())
        );
        lab.converges()
    });
}
