//! `shunt trace packet`: what it tells happens, and asking changes nothing.

use serde_json::Value;
use shunt_testbed::Error;

use crate::lab::{self, Lab, udp};

/// A trace's answer.
fn trace(lab: &Lab, words: &str) -> Value {
    let answer = lab.shunt(&format!("trace packet {words}"));
    answer.unwrap().into_iter().next().unwrap()
}

/// The look-up in a table of the switch.
fn table<'a>(told: &'a Value, name: &str) -> &'a Value {
    let tables = told["hardware"]["tables"].as_array().unwrap();
    let found = tables.iter().find(|table| table["table"] == name);
    found.unwrap_or_else(|| panic!("{name}: {told:#}"))
}

fn says(told: &Value, stage: &str, text: &str) {
    let steps = told["steps"].as_array().unwrap();
    let found = steps
        .iter()
        .any(|step| step["stage"] == stage && step["text"].as_str().unwrap().contains(text));
    assert!(found, "{stage}: {text}: {told:#}");
}

#[test]
fn packets_are_traced() {
    lab::run(
        "trace::packets_are_traced",
        |text| text,
        |lab| {
            let socket = udp(&lab.topology.red)?;
            let port = socket.local_addr().map_err(Error::file("a socket"))?.port();
            let flow = &lab.shunt("flows --vpc red")?[0];
            let outside = flow["reply"]["destination_port"].clone();
            lab.wait_count("flows --offloaded true", 1)?;

            let known = trace(
                lab,
                &format!("--interface red udp 10.0.0.2:{port} 192.0.2.80:7"),
            );
            assert_eq!(known["verdict"], "transmit", "{known:#}");
            assert_eq!(known["egress"], "wan");
            assert_eq!(known["translated"]["source"], "203.0.113.10");
            assert_eq!(known["translated"]["source_port"], outside);
            assert_eq!(known["any_port"], false);
            // The switch has it: two look-ups hit, and it leaves translated.
            let hardware = &known["hardware"];
            assert_eq!(hardware["verdict"], "forwarded", "{known:#}");
            assert_eq!(
                (&hardware["egress"], &hardware["port"]),
                (&"wan".into(), &4.into())
            );
            let flow = table(&known, "flow4");
            assert_eq!(flow["result"], "hit");
            assert_eq!(flow["key"][0]["value"], "red");
            assert_eq!(flow["action"]["name"], "flow4_snat");
            assert_eq!(flow["action"]["params"][2]["value"], outside.to_string());
            let route = table(&known, "route4");
            assert_eq!(route["match"][0]["value"], "192.0.2.0/24", "{known:#}");
            says(&known, "connection", "replied, and stays so");
            says(&known, "offload", "both entries are in the switch");

            let new = trace(
                lab,
                "--interface red tcp 10.0.0.2:1234 192.0.2.80:443 --length 100",
            );
            assert_eq!(new["hardware"]["verdict"], "slow_path", "{new:#}");
            assert_eq!(new["hardware"]["reason"], "tcp_flags");
            assert_eq!(table(&new, "punt")["action"]["name"], "to_slow_path");
            let text = lab.run_shunt(
                &"trace packet --interface red tcp 10.0.0.2:1234 192.0.2.80:443 -o table"
                    .split(' ')
                    .collect::<Vec<_>>(),
            )?;
            assert!(
                text.contains("to the slow path at port 10: tcp_flags"),
                "{text}"
            );
            assert!(text.contains("\nsoftware\n"), "{text}");
            // Tags and a tunnel, as they are on the wire.
            for (interface, table_hit) in [("blue", "classify_port"), ("green", "classify_vxlan")] {
                let words = format!("--interface {interface} udp 10.1.0.2:9 192.0.2.80:9");
                let told = trace(lab, &words);
                assert_eq!(table(&told, table_hit)["result"], "hit", "{told:#}");
                assert_eq!(told["hardware"]["reason"], "flow_miss", "{told:#}");
            }
            assert_eq!(new["verdict"], "transmit", "{new:#}");
            assert_eq!(new["translated"]["source"], "203.0.113.10");
            assert_eq!(new["any_port"], true);
            says(&new, "nat", "masquerade red-out");
            says(
                &new,
                "route",
                "192.0.2.0/24, out of wan (VPC wan) by way of 203.0.113.2",
            );
            says(&new, "mtu", "100 bytes of at most 1500");

            let forwarded = trace(lab, "--interface wan tcp 192.0.2.80:9 203.0.113.10:60080");
            says(&forwarded, "nat", "port forward red-web");
            assert_eq!(forwarded["translated"]["destination"], "10.0.0.2");
            for (words, verdict, reason, stage, text) in [
                (
                    "red tcp 10.0.0.2:1 192.0.2.80:443 --flags A",
                    "drop",
                    "no_connection",
                    "connection",
                    "SYN",
                ),
                (
                    "red udp 10.0.0.2:1 192.0.2.80:5 --ttl 1",
                    "answered",
                    "ttl_exceeded",
                    "ttl",
                    "used up",
                ),
                (
                    "red udp 10.0.0.2:1 192.0.2.80:5 --length 1501",
                    "answered",
                    "too_big",
                    "mtu",
                    "1501",
                ),
                (
                    "red udp 10.0.0.2:1 198.51.100.1:5",
                    "answered",
                    "unreachable",
                    "route",
                    "no route",
                ),
                (
                    "red icmp 10.0.0.2 10.0.0.1",
                    "kernel",
                    "",
                    "route",
                    "the gateway itself",
                ),
            ] {
                let told = trace(lab, &format!("--interface {words}"));
                assert_eq!(told["verdict"], verdict, "{told:#}");
                assert_eq!(told["drop_reason"], reason, "{told:#}");
                says(&told, stage, text);
            }

            // A captured one: ARP, which the switch hands on without any ado.
            let file = lab.topology.directory.join("arp.pcap");
            let dead = pcap::Capture::dead(pcap::Linktype::ETHERNET).unwrap();
            let mut save = dead.savefile(&file).unwrap();
            let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &[0; 46]].concat();
            let time = nix::libc::timeval {
                tv_sec: 0,
                tv_usec: 0,
            };
            let header = pcap::PacketHeader {
                ts: time,
                caplen: 60,
                len: 60,
            };
            save.write(&pcap::Packet::new(&header, &frame));
            save.flush().unwrap();
            let told = trace(lab, &format!("--interface red --pcap {}", file.display()));
            assert_eq!(told["verdict"], "kernel", "{told:#}");
            says(&told, "parse", "ARP");

            // Nothing of all that happened.
            assert_eq!(lab.shunt("flows")?.len(), 1);
            let pools = lab.shunt("nat")?;
            let leased: u64 = pools
                .iter()
                .filter_map(|pool| pool["leased"].as_u64())
                .sum();
            assert_eq!(leased, 1);
            let said = lab.refused("trace packet --interface redd udp 10.0.0.2:1 10.0.0.3:2");
            assert!(said.contains("known: red"), "{said}");
            Ok(())
        },
    );
}
