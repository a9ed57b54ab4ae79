//! `shunt flows` and `shunt flows delete`.

use std::io::Write as _;

use shunt_testbed::Error;
use shunt_testbed::service::wait_for;

use crate::lab::{self, DEADLINE, ask, get, tcp, udp};

#[test]
fn flows_are_filtered_and_ended() {
    lab::run(
        "flows::flows_are_filtered_and_ended",
        |text| text,
        |lab| {
            let red = udp(&lab.topology.red)?;
            let blue = udp(&lab.topology.blue)?;
            let mut web = tcp(&lab.topology.red)?;
            for (filter, count) in [
                ("", 3),
                ("--vpc red", 2),
                ("--vpc blue", 1),
                ("--vpc wan", 3),
                ("--vpc red --protocol udp", 1),
                ("--protocol tcp", 1),
                ("--state tcp_established", 1),
                ("--state replied", 2),
                ("--port 7", 2),
                ("--port 8080", 1),
                ("--prefix 192.0.2.0/24", 3),
                ("--prefix 203.0.113.11", 1),
                ("--prefix 198.51.100.0/24", 0),
                ("--min-age 1h", 0),
                ("--min-age 1ms", 3),
                ("--limit 2", 2),
                // Both entries of each are in the switch, sooner or later.
                ("--offloaded true", 3),
                ("--offloaded false", 0),
            ] {
                lab.wait_count(&format!("flows {filter}"), count)?;
            }
            for (line, word) in [
                ("flows delete", "at least one of"),
                ("flows --state tcp_open", "tcp_established"),
                ("flows --protocol sctp", "icmpv6"),
                ("flows --vpc redd", "known: red"),
                ("flows --prefix 10.0.0.0/33", "2001:db8::/32"),
                ("flows delete --port 65536", "0..=65535"),
            ] {
                let said = lab.refused(line);
                assert!(said.contains(word), "`shunt {line}`: {said}");
            }
            lab.wait_count("flows", 3)?;

            let ended = lab.shunt("flows delete --vpc blue --port 7")?;
            assert_eq!(ended[0]["deleted"], 1);
            // It leaves when the switch has acknowledged that its entries are gone.
            lab.wait_count("flows --vpc blue", 0)?;
            lab.wait_count("flows --vpc red", 2)?;
            get(&mut web)?;
            ask(&red)?;
            // Its next packet is a new connection.
            ask(&blue)?;
            lab.wait_count("flows --vpc blue", 1)?;

            let ended = lab.shunt("flows delete --all")?;
            assert_eq!(ended[0]["deleted"], 3);
            lab.wait_count("flows", 0)?;
            assert_eq!(lab.shunt("flows delete --all")?[0]["deleted"], 0);
            // A translated TCP connection that nobody knows has lost its port.
            let before = lab.drops("no_connection")?;
            web.write_all(b"GET /x/10 HTTP/1.1\r\n")
                .map_err(Error::file("a TCP socket"))?;
            wait_for("its packet to be dropped", DEADLINE, || {
                lab.drops("no_connection").is_ok_and(|now| now > before)
            })?;
            Ok(())
        },
    );
}
