//! `shunt config`: changes while packets flow.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;
use shunt_testbed::service::wait_for;
use shunt_testbed::{Error, Result};

use crate::lab::{self, DEADLINE, Lab, ask, get, tcp, udp};

/// Sends a number; returns every number that has come back.
fn exchange(socket: &UdpSocket, number: u32) -> Result<Vec<u32>> {
    let failed = Error::file("a UDP socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(1)))
        .map_err(failed)?;
    // Refused or unreachable is what may come of it.
    let _ = socket.send(&number.to_be_bytes());
    let mut answers = Vec::new();
    let mut buffer = [0; 64];
    while let Ok(len) = socket.recv(&mut buffer) {
        answers.extend(
            buffer[..len]
                .first_chunk()
                .map(|four| u32::from_be_bytes(*four)),
        );
    }
    Ok(answers)
}

fn offloaded(lab: &Lab, line: &str, count: usize) -> Result<()> {
    lab.wait_count(&format!("flows {line} --offloaded true"), count)
}

#[test]
fn what_a_change_revokes_stops_and_the_rest_goes_on() {
    let name = "config::what_a_change_revokes_stops_and_the_rest_goes_on";
    lab::run(
        name,
        |text| text,
        |lab| {
            let (red, blue) = (udp(&lab.topology.red)?, udp(&lab.topology.blue)?);
            let mut web = tcp(&lab.topology.red)?;
            let mut other = tcp(&lab.topology.blue)?;
            offloaded(lab, "", 4)?;
            let made = lab.shunt("config remove masquerade.red-out --comment test --dry-run")?;
            assert_eq!(made[0]["changes"][0]["path"], "masquerade.red-out");
            ask(&red)?;

            // In the hardware until the last moment.
            let mut number = 0;
            while number < 50 {
                exchange(&red, number)?;
                number += 1;
            }
            let words = [
                "config",
                "remove",
                "masquerade.red-out",
                "--wait",
                "-c",
                "test",
            ];
            let made: Value = serde_json::from_str(&lab.run_shunt(&words)?).unwrap();
            assert_eq!(made["converged"], true, "{made}");
            let first_after = number;
            let before = lab.drops("no_peering")?;
            let mut answered = Vec::new();
            wait_for("its packets to be dropped", DEADLINE, || {
                answered.extend(exchange(&red, number).unwrap_or_default());
                number += 1;
                lab.drops("no_peering").is_ok_and(|now| now >= before + 20)
            })?;
            answered.retain(|answer| *answer >= first_after);
            assert!(answered.is_empty(), "sent after `converged`: {answered:?}");
            lab.wait_count("flows --vpc red", 0)?;
            let pools = lab.shunt("nat")?;
            assert!(
                pools.iter().all(|pool| pool["rule"] != "red-out"),
                "{pools:?}"
            );

            // The others' connections have not noticed.
            ask(&blue)?;
            get(&mut other)?;
            offloaded(lab, "--vpc blue", 2)?;

            let log = lab.shunt("config log")?;
            assert_eq!(log[0]["comment"], "test");
            assert_eq!(log[0]["number"], 2);
            lab.run_shunt(&["config", "rewind", "1", "--wait"])?;
            ask(&red)?;
            let mut again = tcp(&lab.topology.red)?;
            get(&mut again)?;
            // Its port was given back.
            web.set_read_timeout(Some(Duration::from_millis(200)))
                .map_err(Error::file("a TCP socket"))?;
            assert!(get(&mut web).is_err());
            Ok(())
        },
    );
}

#[test]
fn a_vpc_and_its_interfaces_go_and_come() {
    let name = "config::a_vpc_and_its_interfaces_go_and_come";
    lab::run(
        name,
        |text| text,
        |lab| {
            let gw = &lab.topology.gw;
            let green = udp(&lab.topology.green)?;
            let blue = udp(&lab.topology.blue)?;
            offloaded(lab, "", 2)?;
            let index = || {
                gw.output("ip -o link show sh-wan")
                    .map(|line| line.split(':').next().map(str::to_owned))
            };
            let before = index()?;

            let said = lab.refused("config remove vpc.green");
            assert!(said.contains("interface.green.vpc"), "{said}");
            lab.run_shunt(&["config", "remove", "vpc.green", "--cascade", "--wait"])?;
            assert!(!gw.output("ip -o link")?.contains("sh-green"));
            assert!(!gw.output("ip rule")?.contains("sh-green"));
            lab.wait_count("flows --vpc blue", 1)?;
            let vpcs = lab.shunt("vpc")?;
            assert!(vpcs.iter().all(|vpc| vpc["name"] != "green"), "{vpcs:?}");
            // The switch knows its tunnel no more: nothing of it reaches software.
            for number in 0..20 {
                assert!(exchange(&green, number)?.is_empty());
            }
            ask(&blue)?;

            lab.run_shunt(&["config", "rewind", "1", "--wait"])?;
            assert!(gw.output("ip -o link")?.contains("sh-green"));
            ask(&green)?;
            offloaded(lab, "--vpc green", 1)?;
            // A tap that is the same stays the same, and what is spoken over it.
            assert_eq!(index()?, before);
            Ok(())
        },
    );
}

#[test]
fn an_interface_becomes_another_while_it_is_used() {
    let name = "config::an_interface_becomes_another_while_it_is_used";
    lab::run(
        name,
        |text| text,
        |lab| {
            let (gw, wan) = (&lab.topology.gw, &lab.topology.wan);
            let red = udp(&lab.topology.red)?;
            offloaded(lab, "--vpc red", 1)?;
            let second = "[\"203.0.113.1/24\", \"203.0.113.99/24\"]";
            lab.run_shunt(&["config", "set", "interface.wan.addresses", second, "--wait"])?;
            wan.run("ping -c 1 -W 5 203.0.113.99")?;
            lab.run_shunt(&["config", "set", "interface.wan.mtu", "1400", "--wait"])?;
            assert!(gw.output("ip link show sh-wan")?.contains("mtu 1400"));
            // Neither concerns the connection.
            offloaded(lab, "--vpc red", 1)?;
            ask(&red)?;
            lab.run_shunt(&["config", "rewind", "1", "--wait"])?;
            let addresses = gw.output("ip -o addr show dev sh-wan")?;
            assert!(!addresses.contains("203.0.113.99"), "{addresses}");
            assert!(gw.output("ip link show sh-wan")?.contains("mtu 1500"));
            wan.run("ping -c 1 -W 5 203.0.113.1")?;
            // Of another VPC: what arrives is that one's.
            lab.run_shunt(&["config", "set", "interface.red.vpc", "green", "--wait"])?;
            let status = lab.shunt("interfaces")?;
            let moved = status.iter().find(|one| one["name"] == "red").unwrap();
            assert_eq!(moved["vpc"], "green");
            lab.wait_count("flows --vpc green", 0)?;
            ask(&red)?;
            lab.wait_count("flows --vpc green", 1)?;
            Ok(())
        },
    );
}

/// Regression: the next try waited for five seconds without a route that changes.
#[test]
fn what_the_kernel_refuses_is_told_and_tried_again() {
    let name = "config::what_the_kernel_refuses_is_told_and_tried_again";
    lab::run(
        name,
        |text| text,
        |lab| {
            let gw = &lab.topology.gw;
            gw.run("ip link add sh-extra type veth peer name other0")?;
            let extra = "{ id = 9, vpc = \"red\", port = 7, mac = \"02:53:48:00:00:09\", \
                         addresses = [\"10.9.0.1/24\"] }";
            lab.run_shunt(&["config", "set", "interface.extra", extra])?;
            wait_for("the refusal to be told", DEADLINE, || {
                lab.problems()
                    .is_ok_and(|all| all.iter().any(|one| one.contains("tap sh-extra")))
            })?;
            // The others go on.
            udp(&lab.topology.blue)?;
            gw.run("ip link del sh-extra")?;
            let mut up = false;
            wait_for("the tap while routes change", DEADLINE, || {
                up = !up;
                let verb = if up { "replace" } else { "del" };
                let route = "198.51.100.0/24 via 203.0.113.2 dev sh-wan onlink table 101";
                let _ = gw.run(&format!("ip route {verb} {route}"));
                lab.problems().is_ok_and(|all| all.is_empty())
            })?;
            let addresses = gw.output("ip -o addr show dev sh-extra")?;
            assert!(addresses.contains("10.9.0.1/24"), "{addresses}");
            Ok(())
        },
    );
}

#[test]
fn a_change_to_an_older_revision_is_refused_and_a_faulty_one_named() {
    let name = "config::a_change_to_an_older_revision_is_refused_and_a_faulty_one_named";
    lab::run(
        name,
        |text| text,
        |lab| {
            let exported = lab.run_shunt(&["config", "export"])?;
            let file = lab.directory().join("edited.toml");
            let write = |text: &str| std::fs::write(&file, text).map_err(Error::file(&file));
            write(&exported.replace("\"5m\"", "\"6m\""))?;
            lab.run_shunt(&["config", "set", "vpc.red.weight", "7"])?;
            let apply = format!("config apply {}", file.display());
            let said = lab.refused(&apply);
            assert!(
                said.contains("revision 2 by root was there first"),
                "{said}"
            );
            let weight = lab.run_shunt(&["config", "show", "vpc.red.weight"])?;
            assert_eq!(weight.trim(), "7");

            let exported = lab.run_shunt(&["config", "export"])?;
            write(
                &exported
                    .replace("vpc = \"red\"", "vpc = \"redd\"")
                    .replace("60080", "0"),
            )?;
            let said = lab.refused(&apply);
            assert!(
                said.contains("no VPC named \"redd\"") && said.contains("port 0"),
                "{said}"
            );
            write(&exported.replace("workers = 1", "workers = 2"))?;
            let made = lab.shunt(&apply)?;
            assert_eq!(made[0]["waiting"], serde_json::json!(["slow_path"]));
            assert_eq!(made[0]["store"], "");
            let problems = lab.problems()?;
            assert!(
                problems.iter().any(|problem| problem.contains("slow_path")),
                "{problems:?}"
            );
            Ok(())
        },
    );
}

/// The store is what counts at the next start, whatever became of the daemon.
#[test]
fn revisions_survive_the_daemon() {
    let name = "config::revisions_survive_the_daemon";
    lab::run_with_store(name, |lab| {
        lab.run_shunt(&["config", "set", "vpc.red.weight", "7", "-c", "first"])?;
        lab.run_shunt(&["config", "remove", "masquerade.blue-out", "--wait"])?;
        lab.restart()?; // kill -9
        let log = lab.shunt("config log")?;
        let numbers: Vec<&Value> = log.iter().map(|one| &one["number"]).collect();
        assert_eq!(numbers, [3, 2, 1]);
        assert_eq!(log[1]["comment"], "first");
        assert_eq!(log[2]["author"], "shuntd");
        let shown = lab.run_shunt(&["config", "show", "vpc.red.weight"])?;
        assert_eq!(shown.trim(), "7");
        let rules = lab.shunt("nat rules")?;
        assert!(
            rules.iter().all(|rule| rule["name"] != "blue-out"),
            "{rules:?}"
        );
        // The file that it began with says otherwise.
        assert!(lab.log().contains("differs from revision 3"));
        lab.run_shunt(&["config", "rewind", "1", "--wait"])?;
        udp(&lab.topology.blue)?;
        Ok(())
    });
}
