//! A gateway with two workers: hosts cannot tell.

use std::collections::BTreeSet;

use crate::lab::{self, ask, get, tcp, udp};
use serde_json::Value;

/// Enough that each worker has some: a thousand millionths of a chance that one has none.
const SOCKETS: usize = 30;

#[test]
fn two_workers_are_as_one() {
    let two =
        |text: String| text.replace("connections = 65536", "connections = 65536\nworkers = 2");
    lab::run("workers::two_workers_are_as_one", two, |lab| {
        let hosts = [&lab.topology.red, &lab.topology.blue, &lab.topology.green];
        let mut sockets = Vec::new();
        let mut streams = Vec::new();
        for n in 0..SOCKETS {
            sockets.push(udp(hosts[n % 3])?);
            streams.push(tcp(hosts[n % 3])?);
        }
        lab.wait_count("flows --offloaded true", 2 * SOCKETS)?;
        let flows = lab.shunt("flows")?;
        let workers: BTreeSet<u64> = flows
            .iter()
            .filter_map(|flow| flow["worker"].as_u64())
            .collect();
        assert_eq!(workers, BTreeSet::from([0, 1]), "{flows:#?}");
        // No two have the same outside address and port.
        let outside = |flow: &Value| {
            let reply = &flow["reply"];
            let part = |key: &str| reply[key].to_string();
            [
                part("protocol"),
                part("destination"),
                part("destination_port"),
            ]
            .join(" ")
        };
        let taken: BTreeSet<String> = flows.iter().map(outside).collect();
        assert_eq!(taken.len(), flows.len(), "{flows:#?}");
        for (socket, stream) in sockets.iter().zip(&mut streams) {
            ask(socket)?;
            get(stream)?;
        }
        let status = lab.topology.shunt(&["status"])?;
        assert_eq!(status["slow_path"]["connections_max"], 2 * 65536);

        // A change reaches the connections of both.
        lab.run_shunt(&["config", "remove", "masquerade.red-out", "--wait"])?;
        lab.wait_count("flows --vpc red", 0)?;
        lab.wait_count("flows", 2 * SOCKETS * 2 / 3)?;
        // As does their end.
        drop(streams);
        lab.wait_count("flows --protocol tcp --state tcp_established", 0)?;
        lab.shunt("flows delete --all")?;
        lab.wait_count("flows", 0)?;
        let pools = lab.shunt("nat")?;
        assert!(pools.iter().all(|pool| pool["leased"] == 0), "{pools:#?}");
        Ok(())
    });
}
