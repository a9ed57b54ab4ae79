//! What restarts leave alone: connections go on while the daemon, the switch or both are killed
//! and started again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod load;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::topology::{SwitchKind, Topology, configuration};
use shunt_testbed::{Error, Result, sandbox};

use load::Load;

/// Far more than anything here takes: what does not happen by then does not happen.
pub const DEADLINE: Duration = Duration::from_secs(120);

struct Lab {
    topology: Topology,
    kind: SwitchKind,
    text: String,
    // Stopped in this order.
    daemon: Option<Service>,
    switch: Option<Service>,
}

impl Lab {
    fn start(directory: &std::path::Path, change: impl Fn(String) -> String) -> Result<Self> {
        let kind = SwitchKind::from_environment();
        let topology = Topology::build(directory)?;
        // Time-outs longer than any pause here; the demo's are short.
        let text = configuration(&topology.socket()).replace("\"5s\"", "\"5m\"");
        let mut lab = Self {
            topology,
            kind,
            text: change(text),
            daemon: None,
            switch: None,
        };
        lab.start_switch()?;
        lab.start_daemon()?;
        lab.topology.add_routes()?;
        lab.converges()?;
        Ok(lab)
    }

    fn start_switch(&mut self) -> Result<()> {
        self.switch = Some(self.topology.start_switch(self.kind)?);
        Ok(())
    }

    fn start_daemon(&mut self) -> Result<()> {
        self.daemon = Some(self.topology.start_daemon_with(&self.text, &[])?);
        Ok(())
    }

    fn status(&self) -> Result<Value> {
        self.topology.shunt(&["status"])
    }

    fn converges(&self) -> Result<()> {
        wait_for("`converged`", DEADLINE, || {
            self.status()
                .is_ok_and(|status| status["converged"] == Value::Bool(true))
        })
        .map(|_| ())
    }

    fn offload(&self) -> Result<Value> {
        self.topology.shunt(&["offload"])
    }

    /// As many leases as outside ports that connections have.
    fn leases_are_consistent(&self) -> Result<()> {
        let mut told = (0, 0);
        wait_for("leases that fit the connections", DEADLINE, || {
            let (Ok(flows), Ok(status)) = (self.topology.shunt(&["flows"]), self.status()) else {
                return false;
            };
            let flows = flows.as_array().cloned().unwrap_or_default();
            let ports: BTreeSet<String> = flows
                .iter()
                .filter(|flow| flow["original"]["source"] != flow["reply"]["destination"])
                .map(|flow| {
                    let reply = &flow["reply"];
                    format!(
                        "{} {} {}",
                        reply["protocol"], reply["destination"], reply["destination_port"]
                    )
                })
                .collect();
            let leases = status["slow_path"]["nat_leases"].as_u64().unwrap_or(0);
            told = (ports.len() as u64, leases);
            told.0 == told.1
        })
        .map(|_| ())
        .map_err(|error| Error::Other(format!("{error}: (ports, leases) = {told:?}")))
    }
}

fn run(name: &str, body: impl FnOnce(&mut Lab) -> Result<()>) {
    sandbox::test(name, || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        body(&mut Lab::start(directory.path(), |text| text)?)
    });
}

/// What was taken back when the daemon was started the last time: from the state file, and in
/// hardware.
fn taken_back(lab: &Lab) -> Result<(u64, u64)> {
    let restart = &lab.offload()?["restart"];
    let refused = restart["refused"].as_array().into_iter().flatten();
    let refused: Vec<_> = refused.filter(|count| count["value"] != 0).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let count = |name: &str| restart[name].as_u64().unwrap_or(0);
    Ok((count("restored"), count("adopted")))
}

#[derive(Clone, Copy, PartialEq)]
enum Killed {
    Daemon,
    Switch,
    Both,
}

fn no_connection_breaks(lab: &mut Lab, killed: Killed) -> Result<()> {
    let load = Load::start(&lab.topology)?;
    for percent in [15, 45] {
        load.reaches(percent)?;
        assert!(load.is_under_way(), "it ended before {percent} %");
        if killed != Killed::Switch {
            lab.daemon = None;
        }
        if killed != Killed::Daemon {
            lab.switch = None;
            lab.start_switch()?;
        }
        if killed != Killed::Switch {
            lab.start_daemon()?;
        }
        lab.converges()?;
        let (restored, adopted) = taken_back(lab)?;
        println!("{percent} %: {restored} restored, {adopted} adopted");
        match killed {
            Killed::Daemon => assert!(restored > 0 && adopted > 0),
            Killed::Switch => assert_eq!((restored, adopted), (0, 0)),
            // Nothing was in hardware.
            Killed::Both => assert!(restored > 0 && adopted == 0),
        }
    }
    load.finish()?;
    lab.converges()?;
    let installed = lab.offload()?["connections_installed"].as_u64();
    assert!(installed > Some(0), "nothing is offloaded any more");
    lab.leases_are_consistent()
}

#[test]
fn a_killed_daemon_breaks_no_connection() {
    run("a_killed_daemon_breaks_no_connection", |lab| {
        no_connection_breaks(lab, Killed::Daemon)
    });
}

#[test]
fn a_switch_that_starts_empty_breaks_no_connection() {
    run("a_switch_that_starts_empty_breaks_no_connection", |lab| {
        no_connection_breaks(lab, Killed::Switch)
    });
}

#[test]
fn both_killed_break_no_connection() {
    run("both_killed_break_no_connection", |lab| {
        no_connection_breaks(lab, Killed::Both)
    });
}

/// A connection that is open and quiet over restarts, of which the last has no state file and has
/// to believe the switch.
#[test]
fn an_open_connection_outlives_daemons() {
    run("an_open_connection_outlives_daemons", |lab| {
        let mut open = load::Open::start(&lab.topology)?;
        let in_hardware = |lab: &Lab| {
            wait_for("the connection in the switch", DEADLINE, || {
                lab.offload()
                    .is_ok_and(|offload| offload["connections_offloaded"] == 1)
            })
        };
        open.asks()?;
        in_hardware(lab)?;
        // Also the way there: neighbours are resolved.
        let alone = |lab: &Lab, open: &mut load::Open| {
            let seen = |lab: &Lab| Some(lab.status().ok()?["slow_path"]["rx_packets"].clone());
            wait_for("the switch to forward alone", DEADLINE, || {
                let before = seen(lab);
                open.asks().is_ok() && before.is_some() && seen(lab) == before
            })
        };
        alone(lab, &mut open)?;
        let flow = |lab: &Lab| -> Result<(Value, Value)> {
            let flows = lab.topology.shunt(&["flows"])?;
            Ok((flows[0]["original"].clone(), flows[0]["reply"].clone()))
        };
        let before = flow(lab)?;
        // Software's and hardware's packets, and both: they go on where they were. No packet is on
        // its way when they are read.
        let counters = |lab: &Lab| -> Result<[u64; 3]> {
            let flows = lab.topology.shunt(&["flows"])?;
            let packets = |of: &str| flows[0][of]["packets"].as_u64().unwrap_or(0);
            Ok(["software", "hardware", "total"].map(packets))
        };
        let last = std::cell::Cell::new(counters(lab)?);
        let goes_on = |lab: &Lab| -> Result<()> {
            let [software, hardware, total] = last.get();
            let now = counters(lab)?;
            // A question and its answer at least, with nobody there.
            assert!(now[0] >= software, "{:?}, then {now:?}", last.get());
            assert!(now[1] >= hardware + 2, "{:?}, then {now:?}", last.get());
            assert!(now[2] >= total + 2, "{:?}, then {now:?}", last.get());
            last.set(now);
            Ok(())
        };
        assert!(last.get().iter().all(|packets| *packets > 0), "{last:?}");
        // Stopped, killed, and killed without its file.
        let daemon = lab.daemon.take().expect("a daemon");
        let (status, _) = daemon.stop(DEADLINE)?;
        assert!(status.success(), "{status}");
        // The switch needs nobody.
        open.asks()?;
        lab.start_daemon()?;
        lab.topology.add_routes()?;
        lab.converges()?;
        assert_eq!(taken_back(lab)?, (1, 1));
        assert_eq!(flow(lab)?, before);
        goes_on(lab)?;
        alone(lab, &mut open)?;
        last.set(counters(lab)?);
        lab.daemon = None;
        open.asks()?;
        lab.start_daemon()?;
        lab.converges()?;
        assert_eq!(taken_back(lab)?, (1, 1));
        goes_on(lab)?;
        lab.daemon = None;
        let state = lab.topology.socket().with_extension("state");
        std::fs::remove_file(&state).map_err(Error::file(&state))?;
        lab.start_daemon()?;
        lab.converges()?;
        assert_eq!(taken_back(lab)?, (0, 1));
        assert_eq!(flow(lab)?, before);
        open.asks()?;
        // A rule that is gone takes its connections out of the switch.
        lab.daemon = None;
        lab.text = lab
            .text
            .replacen("pool = [\"203.0.113.10\"]", "pool = [\"203.0.113.20\"]", 1);
        lab.start_daemon()?;
        lab.converges()?;
        let offload = lab.offload()?;
        assert_eq!(offload["restart"]["restored"], 0, "{offload:#}");
        assert_eq!(
            offload["restart"]["refused"][0]["name"],
            "not_as_configured"
        );
        assert_eq!(offload["restart"]["refused"][0]["value"], 1, "{offload:#}");
        assert_eq!(offload["connections_offloaded"], 0, "{offload:#}");
        wait_for("an empty flow table", DEADLINE, || {
            lab.offload()
                .is_ok_and(|offload| offload["tables"][0]["entries"] == 0)
        })?;
        Ok(())
    });
}
