//! What goes into the switch, and what is counted there.

use std::time::Duration;

use serde_json::Value;
use shunt_testbed::service::wait_for;

use crate::lab::{self, DEADLINE, Lab, ask, tcp, udp};

/// Bytes of an IPv4 packet with a datagram of the echo server's.
const PACKET: u64 = 20 + 8 + 5;
/// The shortest frame that a link carries, without its checksum; the echo's frames are shorter.
const FRAME_MIN: u64 = 60 - 14;

fn number(value: &Value, pointer: &str) -> u64 {
    let found = value.pointer(pointer).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("{pointer}: {value:#}"))
}

fn count(offload: &Value, list: &str, name: &str) -> u64 {
    let counts = offload[list].as_array().into_iter().flatten();
    let found = counts.into_iter().find(|count| count["name"] == name);
    number(found.unwrap_or(&Value::Null), "/value")
}

fn with_section(text: String, vpc: &str, offload: &str) -> String {
    let red = "name = \"red\"\nid = 1\ntable = 101\n";
    assert!(text.contains(red));
    let text = text.replacen(red, &format!("{red}{vpc}\n"), 1);
    format!("{text}\n[offload]\n{offload}\n")
}

#[test]
fn shares_and_ports_are_kept_to() {
    lab::run(
        "offload::shares_and_ports_are_kept_to",
        |text| {
            let offload = "never_ports = [\"tcp/8080\"]\nevict_idle = \"never\"";
            with_section(text, "offload_max = 2", offload)
        },
        |lab| {
            let _web = tcp(&lab.topology.red)?;
            let red: Vec<_> = (0..4)
                .map(|_| udp(&lab.topology.red))
                .collect::<Result<_, _>>()?;
            let _blue = udp(&lab.topology.blue)?;
            lab.wait_count("flows --vpc red --protocol udp", 4)?;
            lab.wait_count("flows --vpc red --offloaded true", 2)?;
            lab.wait_count("flows --vpc blue --offloaded true", 1)?;
            lab.wait_count("flows --protocol tcp --offloaded false", 1)?;
            let offload = &lab.shunt("offload")?[0];
            assert!(count(offload, "refusals", "vpc_share") > 0, "{offload:#}");
            assert_eq!(offload["shares"][0]["vpc"], "red");
            assert_eq!(number(offload, "/shares/0/connections"), 2);
            assert_eq!(number(offload, "/shares/0/max"), 2);
            // A share that is used up is as configured.
            assert_eq!(lab.problems()?, [""; 0]);
            // Those without a place work.
            for socket in &red {
                ask(socket)?;
            }
            Ok(())
        },
    );
}

#[test]
fn idle_connections_make_room_for_busy_ones() {
    lab::run(
        "offload::idle_connections_make_room_for_busy_ones",
        |text| {
            let text = text.replace("offload_idle = \"3s\"", "offload_idle = \"5m\"");
            let offload = "retry_after = \"1s\"\nevict_idle = \"2s\"";
            with_section(text, "offload_max = 2", offload)
        },
        |lab| {
            let _silent = [udp(&lab.topology.red)?, udp(&lab.topology.red)?];
            let busy = udp(&lab.topology.red)?;
            let port = busy.local_addr().map(|address| address.port());
            let of_busy = format!("flows --offloaded true --port {}", port.unwrap_or(0));
            wait_for("the busy one to be in the switch", DEADLINE, || {
                ask(&busy).is_ok() && lab.shunt(&of_busy).is_ok_and(|flows| flows.len() == 1)
            })?;
            let offload = &lab.shunt("offload")?[0];
            assert!(count(offload, "evictions", "vpc_share") > 0, "{offload:#}");
            // Evicted is not ended.
            lab.wait_count("flows --vpc red", 3)
        },
    );
}

fn flow(lab: &Lab, port: u16) -> Value {
    let flows = lab.shunt(&format!("flows --port {port}"));
    let flows = flows.unwrap_or_default();
    assert_eq!(flows.len(), 1, "{flows:#?}");
    flows[0].clone()
}

#[test]
fn flows_have_what_software_and_hardware_counted() {
    const ROUNDS: u64 = 20;
    lab::run(
        "offload::flows_have_what_software_and_hardware_counted",
        |text| text,
        |lab| {
            let socket = udp(&lab.topology.red)?;
            let port = socket.local_addr().map_or(0, |address| address.port());
            lab.wait_count(&format!("flows --port {port} --offloaded true"), 1)?;
            let before = flow(lab, port);
            for _ in 0..ROUNDS {
                ask(&socket)?;
            }
            let after = flow(lab, port);
            let new = |pointer: &str| number(&after, pointer) - number(&before, pointer);
            // A lost answer is asked for again; there and back, all in hardware.
            let packets = new("/hardware/packets");
            assert!(packets >= 2 * ROUNDS, "{after:#}");
            assert_eq!(new("/software/packets"), 0, "{after:#}");
            assert_eq!(new("/total/packets"), packets);
            let bytes = new("/hardware/bytes");
            let possible = PACKET * packets..=FRAME_MIN * packets;
            assert!(possible.contains(&bytes), "{after:#}");
            for what in ["packets", "bytes"] {
                let part = |part: &str| number(&after, &format!("/{part}/{what}"));
                assert_eq!(part("total"), part("software") + part("hardware"));
            }
            // The last hit is hardware's: the last packet of software is older than it.
            let begun = std::time::Instant::now();
            ask(&socket)?;
            let idle = Duration::from_millis(number(&flow(lab, port), "/idle_ms"));
            assert!(idle <= begun.elapsed(), "{idle:?}");
            assert!(number(&after, "/idle_ms") <= number(&after, "/age_ms"));
            Ok(())
        },
    );
}
