//! `shunt nat`, and a pool that is used up.

use std::net::UdpSocket;

use serde_json::Value;
use shunt_testbed::Error;
use shunt_testbed::service::wait_for;
use shunt_testbed::topology::SERVER;

use crate::lab::{self, DEADLINE, Lab, UDP_PORT, udp};

fn pool(lab: &Lab, rule: &str, protocol: &str) -> Value {
    let pools = lab.shunt("nat").unwrap_or_default();
    pools
        .into_iter()
        .find(|pool| pool["rule"] == rule && pool["protocol"] == protocol)
        .unwrap_or_default()
}

#[test]
fn an_exhausted_pool_is_told() {
    let few = |text: String| text.replace("1024-40000", "5000-5003");
    lab::run("nat::an_exhausted_pool_is_told", few, |lab| {
        assert_eq!(pool(lab, "red-out", "udp")["capacity"], 4);
        assert_eq!(pool(lab, "red-out", "udp")["leased"], 0);
        assert_eq!(lab.problems()?, [] as [String; 0]);
        let red = &lab.topology.red;
        let sockets = (0..4).map(|_| udp(red)).collect::<Result<Vec<_>, _>>()?;
        wait_for("four leases", DEADLINE, || {
            pool(lab, "red-out", "udp")["leased"] == 4
        })?;
        assert_eq!(pool(lab, "red-out", "udp")["refused"], 0);
        assert_eq!(pool(lab, "blue-out", "udp")["leased"], 0);

        let refused = red.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").map_err(Error::file("a UDP socket"))?;
            socket
                .connect((SERVER, UDP_PORT))
                .map_err(Error::file("a UDP socket"))?;
            Ok(socket)
        })?;
        wait_for("a refused connection", DEADLINE, || {
            refused.send(b"no port left").is_ok()
                && pool(lab, "red-out", "udp")["refused"].as_u64() > Some(0)
        })?;
        let wanted = "the pool 203.0.113.10 of masquerade red-out is exhausted for udp";
        wait_for("the status to say so", DEADLINE, || {
            lab.problems()
                .is_ok_and(|problems| problems.iter().any(|said| said.starts_with(wanted)))
        })?;
        let log = lab.log();
        assert!(log.contains(wanted), "{log}");
        // Another rule's pool is not touched by it.
        let _blue = udp(&lab.topology.blue)?;

        // A port that comes back is leased again.
        drop(sockets);
        lab.shunt("flows delete --vpc red")?;
        let _again = udp(red)?;
        let rules = lab.shunt("nat rules")?;
        let web = rules.iter().find(|rule| rule["name"] == "red-web").unwrap();
        assert_eq!(web["kind"], "port_forward");
        assert_eq!(web["original"], "tcp 203.0.113.10:60080");
        assert_eq!(web["translated"], "tcp 10.0.0.2:80");
        Ok(())
    });
}
