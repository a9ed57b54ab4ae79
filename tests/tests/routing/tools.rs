//! `ping`, `traceroute` and path-MTU discovery as an administrator meets them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};

use shunt_testbed::netns::Netns;
use shunt_testbed::service::wait_for;
use shunt_testbed::{Error, Result};

use crate::lab::{DEADLINE, run};
use crate::probe::add_address;

const TABLE: u32 = 104;
const RED: &str = "10.0.0.1";
const RED6: &str = "fd00:1::1";
const BLUE_HOST: &str = "10.0.2.2";
const BLUE_HOST6: &str = "fd00:2::2";
const WAN_HOST: &str = "203.0.113.2";
const WAN_HOST6: &str = "fd00:4::2";
/// Of the blue interface, in `lab.toml`.
const SMALL_MTU: usize = 1400;
/// IPv4 and ICMP headers, bytes.
const ECHO_HEADERS: usize = 28;
/// IPv6 and ICMPv6 headers, bytes.
const ECHO_HEADERS_V6: usize = 48;

/// What a command printed, whatever its exit status.
pub fn said(host: &Netns, line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let mut command = host.command(words.next().unwrap_or_default());
    let output = command.args(words).output().map_err(Error::file(line))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn ping_reaches_the_gateway_and_beyond() {
    let name = "tools::ping_reaches_the_gateway_and_beyond";
    run(name, &["ping"], TABLE, |lab| {
        // Its own interface, another's, and hosts behind two of them.
        let v6 = [RED6, "fd00:4::1", WAN_HOST6, BLUE_HOST6];
        for target in [RED, "203.0.113.1", WAN_HOST, BLUE_HOST]
            .into_iter()
            .chain(v6)
        {
            let line = format!("ping -n -c 5 -i 0.2 -W 5 {target}");
            let text = said(&lab.topology.red, &line)?;
            assert!(text.contains("5 received"), "{text}");
        }
        // Nobody has that address, and no route leads there.
        let text = said(&lab.topology.red, "ping -n -c 1 -W 5 192.0.2.1")?;
        assert!(text.contains(&format!("From {RED}")), "{text}");
        assert!(text.contains("Destination Net Unreachable"), "{text}");
        let text = said(&lab.topology.red, "ping -n -c 1 -W 5 2001:db8::1")?;
        assert!(text.contains(&format!("From {RED6}")), "{text}");
        assert!(text.contains("Destination unreachable: No route"), "{text}");
        Ok(())
    });
}

#[test]
fn traceroute_shows_the_gateway() {
    let name = "tools::traceroute_shows_the_gateway";
    run(name, &["traceroute"], TABLE, |lab| {
        let hops = |line: &str| {
            let text = said(&lab.topology.red, line)?;
            let hop = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
            let hops: Vec<_> = text.lines().skip(1).filter_map(hop).collect();
            println!("{text}");
            Ok::<_, Error>(hops)
        };
        for kind in ["", "-I", "-T -p 9"] {
            for (gateway, targets) in [
                (RED, [WAN_HOST, BLUE_HOST]),
                (RED6, [WAN_HOST6, BLUE_HOST6]),
            ] {
                for target in targets {
                    let line = format!("traceroute {kind} -n -q 1 -w 5 -m 5 {target}");
                    assert_eq!(hops(&line)?, [gateway, target], "{line}");
                }
                let line = format!("traceroute {kind} -n -q 1 -w 5 -m 5 {gateway}");
                assert_eq!(hops(&line)?, [gateway], "{line}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_smaller_mtu_on_the_way_is_discovered() {
    let name = "tools::a_smaller_mtu_on_the_way_is_discovered";
    run(name, &["ping"], TABLE, |lab| {
        let (red, blue) = (&lab.topology.red, &lab.topology.blue);
        // Its host does not tell by its MSS that the link is small.
        blue.run("ip link set eth0.20 mtu 1500")?;
        for (target, told, headers) in [
            (BLUE_HOST, format!("(mtu = {SMALL_MTU})"), ECHO_HEADERS),
            (BLUE_HOST6, format!("mtu={SMALL_MTU}"), ECHO_HEADERS_V6),
        ] {
            let ping = |length: usize| {
                let size = length - headers;
                said(red, &format!("ping -n -M do -c 1 -W 5 -s {size} {target}"))
            };
            let text = ping(SMALL_MTU)?;
            assert!(text.contains("1 received"), "{text}");
            let text = ping(SMALL_MTU + 1)?;
            let gateway = if target == BLUE_HOST { RED } else { RED6 };
            assert!(
                text.contains(&format!("From {gateway}")) && text.contains(&told),
                "{text}"
            );
            // TCP finds it out anew, and gets through.
            red.run("ip route flush cache")?;
            red.run("ip -6 route flush cache")?;
            transfer(red, blue, target)?;
            let route = red.output(&format!("ip route get {target}"))?;
            assert!(route.contains(&format!("mtu {SMALL_MTU}")), "{route}");
        }
        Ok(())
    });
}

/// A route's own MTU counts for what the gateway forwards, locked or not, as in the kernel.
#[test]
fn a_routes_own_mtu_is_discovered() {
    const ROUTE_MTU: usize = 1300;
    let name = "tools::a_routes_own_mtu_is_discovered";
    run(name, &["ping"], TABLE, |lab| {
        let (red, wan) = (&lab.topology.red, &lab.topology.wan);
        for (target, gateway, error, headers) in [
            ("198.51.100.1", WAN_HOST, "(mtu = 1300)", ECHO_HEADERS),
            ("fd00:99::1", "fd00:4::2", "mtu=1300", ECHO_HEADERS_V6),
        ] {
            add_address(wan, target.parse().unwrap())?;
            let route = |mtu: &str| {
                let way = format!("{target} via {gateway} dev sh-wan table {TABLE} {mtu}");
                lab.topology.gw.run(&format!("ip route replace {way}"))?;
                red.run("ip route flush cache")?;
                red.run("ip -6 route flush cache")
            };
            let ping = |length: usize, want: &str| {
                let size = length - headers;
                let line = format!("ping -n -M do -c 1 -W 1 -s {size} {target}");
                // The route is in the switch a moment later.
                let mut text = String::new();
                let within = wait_for(&format!("{want} to {length} bytes"), DEADLINE, || {
                    text = said(red, &line).unwrap_or_default();
                    text.contains(want)
                });
                within.inspect_err(|_| println!("{text}"))
            };
            for mtu in ["mtu 1300", "mtu lock 1300", "mtu 1300 advmss 1000"] {
                route(mtu)?;
                ping(ROUTE_MTU + 1, error)?;
                ping(ROUTE_MTU, "1 received")?;
            }
            // TCP finds it out, while the switch forwards the connection.
            route("mtu 1300")?;
            ping(ROUTE_MTU + 1, error)?;
            route("mtu 1300")?;
            transfer(red, wan, target)?;
            let found = red.output(&format!("ip route get {target}"))?;
            assert!(found.contains("mtu 1300"), "{found}");
            // Nothing of it is left, and nothing that a route says makes a link's MTU larger.
            for (mtu, limit) in [("mtu 9000", 1500), ("", 1500)] {
                route(mtu)?;
                ping(limit, "1 received")?;
            }
        }
        Ok(())
    });
}

/// Two MiB from red to another host, every byte in its place.
fn transfer(red: &Netns, to: &Netns, address: &str) -> Result<()> {
    const BYTES: usize = 2 << 20;
    let failed = |error: std::io::Error| Error::Other(format!("the transfer: {error}"));
    let address: IpAddr = address.parse().unwrap();
    let listener = to.inside(|| TcpListener::bind((address, 7002)).map_err(failed))?;
    let content: Vec<u8> = (0..BYTES).map(|at| (at * 31 % 251) as u8).collect();
    let received = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        Ok::<_, std::io::Error>(all)
    });
    let mut stream = red.inside(|| TcpStream::connect((address, 7002)).map_err(failed))?;
    stream.write_all(&content).map_err(failed)?;
    drop(stream);
    let all = received.join().unwrap().map_err(failed)?;
    assert!(
        all == content,
        "{} of {BYTES} bytes, or wrong ones",
        all.len()
    );
    Ok(())
}
