//! Two equal next hops: flows are spread over both, and each stays on one, whoever forwards its
//! packets: software the first ones and every SYN and FIN, the switch the others.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use shunt_testbed::netns::Netns;
use shunt_testbed::service::wait_for;
use shunt_testbed::{Error, Result};

use crate::lab::{DEADLINE, Lab, run};
use crate::probe::{Echo, Probes};

const TABLE: u32 = 104;
/// Behind both routers, as an anycast address is.
const ANYCAST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const UDP_FLOWS: usize = 48;
const TCP_FLOWS: usize = 24;
const TCP_PORT: u16 = 7001;

fn failed(error: std::io::Error) -> Error {
    Error::Other(format!("a TCP connection to {ANYCAST}: {error}"))
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
fn serve(host: &Netns) -> Result<()> {
    let listener = host.inside(|| TcpListener::bind((ANYCAST, TCP_PORT)).map_err(failed))?;
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
fn talk(red: &Netns) -> Result<BTreeMap<String, u32>> {
    let target = SocketAddr::from((ANYCAST, TCP_PORT));
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
    run(name, &[], TABLE, |lab| {
        let Lab {
            topology, other, ..
        } = lab;
        let _echoes = [
            Echo::start(&topology.wan, &[ANYCAST])?,
            Echo::start(other, &[ANYCAST])?,
        ];
        topology.gw.run(&format!(
            "ip route add {ANYCAST}/32 table {TABLE} \
             nexthop via 203.0.113.2 dev sh-wan nexthop via 203.0.113.3 dev sh-wan"
        ))?;
        wait_for("the route in the switch", DEADLINE, || {
            let wanted = format!("{ANYCAST}/32");
            lab.switch_routes()
                .is_ok_and(|routes| routes.contains(&wanted))
        })?;
        lab.wait_converged()?;

        let mut probes = Probes::start(&topology.red, &[ANYCAST; UDP_FLOWS])?;
        let udp = probes.answers(50)?;
        let flows = topology.shunt(&["status"])?;
        let offloaded = flows["offload"]["installed"].to_string();
        println!("UDP: {:?}, {offloaded} in the switch", spread(&udp));
        assert_eq!(spread(&udp).len(), 2, "{udp:?}");

        for host in [&topology.wan, other] {
            serve(host)?;
        }
        let tcp = (0..TCP_FLOWS).map(|_| talk(&topology.red));
        let tcp: Vec<_> = tcp.collect::<Result<_>>()?;
        println!("TCP: {:?}", spread(&tcp));
        assert_eq!(spread(&tcp).len(), 2, "{tcp:?}");
        Ok(())
    });
}
