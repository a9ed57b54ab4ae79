//! `shunt top`: what it shows is what happens.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use shunt_testbed::{Error, binaries};

use crate::lab::{self, DEADLINE, Lab, ask, udp};

/// Rates line by line until one is as wanted.
fn wait_rates(lab: &Lab, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<(), Error> {
    let mut command = Command::new(binaries::find("shunt")?);
    command.arg("--socket").arg(lab.topology.socket());
    let mut top = command
        .args(["--output", "jsonl", "top"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::file("shunt top"))?;
    let begun = Instant::now();
    let mut last = Value::Null;
    for line in BufReader::new(top.stdout.take().unwrap()).lines() {
        last = serde_json::from_str(&line.unwrap()).unwrap();
        if wanted(&last) {
            top.kill().map_err(Error::file("shunt top"))?;
            top.wait().map_err(Error::file("shunt top"))?;
            return Ok(());
        }
        if begun.elapsed() > DEADLINE {
            break;
        }
    }
    let _ = top.kill();
    let _ = top.wait();
    Err(Error::Other(format!("waited for {what}; last: {last:#}")))
}

fn rate(of: &Value) -> f64 {
    of["packets_per_second"].as_f64().unwrap()
}

/// Does something again and again while `body` runs.
fn meanwhile<T>(again: impl Fn() + Sync, body: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                again();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let done = body();
        stop.store(true, Ordering::Relaxed);
        done
    })
}

#[test]
fn rates_are_those_of_the_packets() {
    lab::run(
        "top::rates_are_those_of_the_packets",
        |text| text,
        |lab| {
            let socket = udp(&lab.topology.red)?;
            lab.wait_count("flows --offloaded true", 1)?;
            let busy = || ask(&socket).unwrap();
            meanwhile(busy, || {
                wait_rates(lab, "a flow in hardware", |rates| {
                    let flow = &rates["flows"][0];
                    let vpc = |name: &str| {
                        let vpcs = rates["vpcs"].as_array().into_iter().flatten();
                        vpcs.clone().any(|vpc| {
                            vpc["name"] == name
                                && rate(&vpc["received"]) > 20.0
                                && rate(&vpc["sent"]) > 20.0
                        })
                    };
                    flow["offload"] == "hardware"
                        && flow["original"]["destination_port"] == lab::UDP_PORT
                        && rate(flow) > 20.0
                        && rate(&rates["hardware"]) > 20.0
                        && rates["hit_ratio"].as_f64().is_some_and(|ratio| ratio > 0.9)
                        && rates["offloaded"] == 1
                        && rates["tables"][0]["entries"] == 2
                        && rates["install"][3]["count"] == 1
                        && vpc("red")
                        && vpc("wan")
                })
            })?;
            // No way to the destination: software answers, and counts why.
            let lost = lab.topology.red.inside(|| {
                let failed = || Error::file("a UDP socket");
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").map_err(failed())?;
                socket.connect(("198.51.100.1", 9)).map_err(failed())?;
                Ok(socket)
            })?;
            let busy = || drop(lost.send(b"x"));
            meanwhile(busy, || {
                wait_rates(lab, "drops", |rates| {
                    let mut drops = rates["drops"].as_array().into_iter().flatten();
                    drops.any(|drops| {
                        drops["where"] == "software"
                            && drops["reason"] == "unreachable"
                            && rate(drops) > 10.0
                    })
                })
            })?;
            let text = lab.run_shunt(&["top", "--once", "--output", "table"])?;
            assert!(text.contains("converged, up"), "{text}");
            Ok(())
        },
    );
}

#[test]
fn flows_in_software_are_seen_too() {
    lab::run(
        "top::flows_in_software_are_seen_too",
        |text| text + "\n[offload]\nenabled = false\n",
        |lab| {
            let socket = udp(&lab.topology.red)?;
            let busy = || ask(&socket).unwrap();
            meanwhile(busy, || {
                wait_rates(lab, "a flow in software", |rates| {
                    let flow = &rates["flows"][0];
                    flow["offload"] == "software"
                        && rate(flow) > 20.0
                        && rate(&rates["software"]) > 20.0
                        && rates["offloaded"] == 0
                })
            })
        },
    );
}
