//! A next hop that moves while packets flow: none of them is lost, for the prefix has a route all
//! the time.

use std::net::IpAddr;
use std::time::Duration;

use shunt_testbed::service::wait_for;
use shunt_testbed::{Error, Result};

use crate::lab::{DEADLINE, Lab, Mode, run_in};
use crate::probe::add_address;
use crate::stream::{Report, Stream};

const TABLE: u32 = 104;
/// How often the next hop changes in one stream.
const MOVES: usize = 40;
/// Between two changes; a stream has some dozen packets in it.
const PAUSE: Duration = Duration::from_millis(20);
/// Each version's address behind both routers, and their addresses on the link.
const WAYS: [(&str, [&str; 2]); 2] = [
    ("198.51.100.1", ["203.0.113.2", "203.0.113.3"]),
    ("fd00:99::1", ["fd00:4::2", "fd00:4::3"]),
];

/// How the next hop of a destination is changed: the line for `ip`.
type Change = fn(to: &str, gateway: &str) -> String;

fn by_route(to: &str, gateway: &str) -> String {
    format!("ip route replace {to} via {gateway} dev sh-wan table {TABLE}")
}

/// Of another kind each time: by MTU as well.
fn by_route_with_mtu(to: &str, gateway: &str) -> String {
    let mtu = if gateway.ends_with('2') { 1400 } else { 1300 };
    format!("ip route replace {to} via {gateway} dev sh-wan table {TABLE} mtu {mtu}")
}

/// Its route stays as it is.
fn by_object(to: &str, gateway: &str) -> String {
    let id = if to.contains(':') { 6 } else { 4 };
    format!("ip nexthop replace id {id} via {gateway} dev sh-wan")
}

/// Moves each version's destination to and fro under a stream to it, and says what became of the
/// streams.
fn moved(lab: &Lab, change: Change) -> Result<Vec<Report>> {
    let (topology, other) = (&lab.topology, &lab.other);
    let mut streams = Vec::new();
    for (to, [first, _]) in WAYS {
        topology.gw.run(&change(to, first))?;
        if !change(to, first).contains(" route ") {
            let id = if to.contains(':') { 6 } else { 4 };
            topology
                .gw
                .run(&format!("ip route replace {to} table {TABLE} nhid {id}"))?;
        }
        let address: IpAddr = to.parse().unwrap();
        lab.wait_converged()?;
        streams.push(Stream::start(
            &topology.red,
            &[&topology.wan, other],
            address,
        )?);
    }
    for number in 0..MOVES {
        // Not before the streams flow by the last change.
        std::thread::sleep(PAUSE);
        let seen: Vec<_> = streams.iter().map(Stream::newest).collect();
        wait_for("the streams to go on", DEADLINE, || {
            let mut now = streams.iter().zip(&seen);
            now.all(|(stream, seen)| stream.newest() > *seen)
        })?;
        for (to, gateways) in WAYS {
            topology.gw.run(&change(to, gateways[(number + 1) % 2]))?;
        }
    }
    streams.into_iter().map(Stream::finish).collect()
}

fn test(name: &str, mode: Mode) {
    run_in(name, &[], TABLE, mode, |lab| {
        for (to, _) in WAYS {
            for host in [&lab.topology.wan, &lab.other] {
                add_address(host, to.parse().unwrap())?;
            }
        }
        for (what, change) in [
            ("ip route replace", by_route as Change),
            ("ip route replace with another MTU", by_route_with_mtu),
            ("ip nexthop replace", by_object),
        ] {
            for (report, (to, _)) in moved(lab, change)?.iter().zip(WAYS) {
                println!("{what}, {to}: {report:?}");
                let arrived: usize = report.arrived.values().sum();
                assert_eq!(arrived as u64, report.sent, "{what}, {to}: {report:?}");
                assert!(report.moves >= MOVES / 2, "{what}, {to}: {report:?}");
            }
        }
        let flows = lab.topology.shunt(&["status"])?;
        let installed = flows["offload"]["installed"].as_u64();
        let installed = installed.ok_or_else(|| Error::Other(format!("no count in {flows}")))?;
        // It was the switch that forwarded: by the flows' entries, or by routes alone.
        assert_eq!(installed > 0, mode == Mode::Stateful, "{flows}");
        Ok(())
    });
}

#[test]
fn no_packet_of_a_flow_is_lost() {
    test("moves::no_packet_of_a_flow_is_lost", Mode::Stateful);
}

#[test]
fn no_packet_is_lost_by_routes_alone() {
    test("moves::no_packet_is_lost_by_routes_alone", Mode::Stateless);
}
