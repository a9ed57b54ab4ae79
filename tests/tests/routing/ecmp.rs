//! Two equal next hops: flows are spread over both, and each stays on one, whoever forwards its
//! packets: software the first ones and every SYN and FIN, the switch the others.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use shunt_testbed::netns::Netns;
use shunt_testbed::service::wait_for;
use shunt_testbed::{Error, Result};

use crate::lab::{DEADLINE, Lab, Version, run};
use crate::probe::{Echo, Probes};

const TABLE: u32 = 104;
const UDP_FLOWS: usize = 48;
const TCP_FLOWS: usize = 24;
const TCP_PORT: u16 = 7001;

fn failed(error: std::io::Error) -> Error {
    Error::Other(format!("a TCP connection to the routers: {error}"))
}

/// The numbers of flows that each router had; every flow must have had one router.
fn spread(flows: &[BTreeMap<String, u32>]) -> BTreeMap<&str, usize> {
    let mut of_router = BTreeMap::new();
    for (number, flow) in flows.iter().enumerate() {
        assert_eq!(flow.len(), 1, "flow {number} changed its router: {flow:?}");
        let router = flow.keys().next().unwrap().as_str();
        *of_router.entry(router).or_default() += 1;
    }
    of_router
}

/// Answers each line on the anycast address with its host's name, on threads that end with the
/// process.
fn serve(host: &Netns, anycast: IpAddr) -> Result<()> {
    let listener = host.inside(|| TcpListener::bind((anycast, TCP_PORT)).map_err(failed))?;
    let name = host.name().to_owned();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let name = name.clone();
            std::thread::spawn(move || {
                let mut byte = [0];
                while let Ok(1) = connection.read(&mut byte) {
                    let _ = connection.write_all(&name.as_bytes()[..1]);
                }
            });
        }
    });
    Ok(())
}

/// One connection, with pauses in which it is offloaded; whoever answers, it must be one.
fn talk(red: &Netns, anycast: IpAddr) -> Result<BTreeMap<String, u32>> {
    let target = SocketAddr::from((anycast, TCP_PORT));
    let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(10)).map_err(failed);
    let mut stream = red.inside(connect)?;
    let timeout = Some(Duration::from_secs(10));
    stream.set_read_timeout(timeout).map_err(failed)?;
    let mut answers = BTreeMap::new();
    for _ in 0..30 {
        stream.write_all(b"?").map_err(failed)?;
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(failed)?;
        *answers
            .entry(String::from_utf8_lossy(&byte).into_owned())
            .or_default() += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(answers)
}

#[test]
fn flows_are_spread_and_each_stays() {
    let name = "ecmp::flows_are_spread_and_each_stays";
    spreads(name, Version::V4, "198.51.100.1", "203.0.113.");
}

#[test]
fn flows_of_ipv6_are_spread_and_each_stays() {
    let name = "ecmp::flows_of_ipv6_are_spread_and_each_stays";
    spreads(name, Version::V6, "fd00:99::1", "fd00:4::");
}

/// With an address behind both routers, as an anycast address is, and the network that they are in.
fn spreads(name: &str, version: Version, anycast: &str, link: &str) {
    let anycast: IpAddr = anycast.parse().unwrap();
    run(name, &[], TABLE, |lab| {
        let Lab {
            topology, other, ..
        } = lab;
        let _echoes = [
            Echo::start(&topology.wan, &[anycast])?,
            Echo::start(other, &[anycast])?,
        ];
        topology.gw.run(&format!(
            "ip route add {anycast} table {TABLE} \
             nexthop via {link}2 dev sh-wan nexthop via {link}3 dev sh-wan"
        ))?;
        wait_for("the route in the switch", DEADLINE, || {
            let wanted = version.of(format!("{anycast}/32"), format!("{anycast}/128"));
            lab.switch_routes(version)
                .is_ok_and(|routes| routes.contains(&wanted))
        })?;
        lab.wait_converged()?;

        let mut probes = Probes::start(&topology.red, &[anycast; UDP_FLOWS])?;
        let udp = probes.answers(50)?;
        let flows = topology.shunt(&["status"])?;
        let offloaded = flows["offload"]["installed"].to_string();
        println!("UDP: {:?}, {offloaded} in the switch", spread(&udp));
        assert_eq!(spread(&udp).len(), 2, "{udp:?}");

        for host in [&topology.wan, other] {
            serve(host, anycast)?;
        }
        let tcp = (0..TCP_FLOWS).map(|_| talk(&topology.red, anycast));
        let tcp: Vec<_> = tcp.collect::<Result<_>>()?;
        println!("TCP: {:?}", spread(&tcp));
        assert_eq!(spread(&tcp).len(), 2, "{tcp:?}");
        Ok(())
    });
}
