//! Real stacks through NAT over a bad link: Linux hosts, a router with a small MTU behind the
//! gateway, frames lost, doubled and reordered on the client's link by a seed.
//!
//! ```text
//!   red 10.0.0.2 ═ rough link ═ gateway (NAT 203.0.113.10) ── wan 203.0.113.2 ── MTU 1200 ── far
//!                                                           192.0.2.80            198.18.0.2
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod lab;
mod traffic;

use shunt_testbed::Result;

use lab::{DEADLINE, IPV4, IPV6, Kind, Lab, said};

/// Everything that a host does to another, one after the other.
fn everything(lab: &Lab) -> Result<()> {
    traffic::download(lab)?;
    traffic::upload(lab, lab.net.server)?;
    traffic::queries(lab)?;
    ping(lab)?;
    traceroute(lab)?;
    // To a host behind a link that is smaller than the path's first.
    path_mtu(lab)?;
    lab.is_rough()?;
    lab.is_translated()
}

fn ping(lab: &Lab) -> Result<()> {
    for target in [lab.net.server, lab.net.far] {
        let text = said(
            &lab.topology.red,
            &format!("ping -n -c 30 -i 0.05 -W 2 {target}"),
        )?;
        let received = text
            .split(", ")
            .find_map(|part| part.strip_suffix(" received"));
        let received: u32 = received.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
        // Some are lost; a doubled answer is none of them.
        assert!(received > 15 && received <= 30, "{text}");
        assert!(!text.contains("wrong"), "wrong content: {text}");
    }
    Ok(())
}

/// What expires behind the NAT is told to the host inside (RFC 5508 REQ-4).
fn traceroute(lab: &Lab) -> Result<()> {
    let (net, far) = (&lab.net, lab.net.far);
    let separator = if net.ipv6 { ':' } else { '.' };
    for kind in ["", "-I", "-T -p 9"] {
        let line = format!("traceroute {kind} -n -q 3 -w 2 -m 6 {far}");
        let hops = |text: &str| -> Vec<Option<String>> {
            let address = |line: &str| {
                let words = line.split_whitespace().skip(1);
                words
                    .map(str::to_owned)
                    .find(|word| word.contains(separator) && !word.contains("ms"))
            };
            text.lines().skip(1).map(address).collect()
        };
        let wanted = [net.gateway, net.wan, far].map(|hop| Some(hop.to_owned()));
        let mut text = String::new();
        // Of three probes a hop all may be lost.
        shunt_testbed::service::wait_for(&line, DEADLINE, || {
            text = said(&lab.topology.red, &line).unwrap_or_default();
            hops(&text).starts_with(&wanted)
        })
        .unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    Ok(())
}

/// A router behind the NAT says what is too big, and the host inside learns it (RFC 1191, RFC 8201).
fn path_mtu(lab: &Lab) -> Result<()> {
    let red = &lab.topology.red;
    let (net, far) = (&lab.net, lab.net.far);
    let family = if net.ipv6 { "-6" } else { "-4" };
    red.run(&format!("ip {family} route flush cache"))?;
    traffic::upload(lab, far)?;
    let route = red.output(&format!("ip route get {far}"))?;
    assert!(route.contains(&format!("mtu {}", net.small_mtu)), "{route}");
    // IP and ICMP headers.
    let size = net.small_mtu - if net.ipv6 { 48 } else { 28 };
    let line = format!("ping -n -M do -c 5 -i 0.2 -W 2 -s {size} {far}");
    let text = said(red, &line)?;
    assert!(text.contains(&format!("bytes from {far}")), "{text}");
    Ok(())
}

#[test]
fn in_hardware() {
    let kind = Kind {
        net: IPV4,
        workers: 1,
        offloads: true,
    };
    lab::run("in_hardware", kind, everything);
}

#[test]
fn over_ipv6_with_two_workers() {
    let kind = Kind {
        net: IPV6,
        workers: 2,
        offloads: true,
    };
    lab::run("over_ipv6_with_two_workers", kind, everything);
}

#[test]
fn in_software() {
    let kind = Kind {
        net: IPV4,
        workers: 1,
        offloads: false,
    };
    lab::run("in_software", kind, everything);
}
