//! The demo's steps, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Options;
use super::flows::{self, LargeFlow};
use super::go_on;
use super::report::Report;
use super::transfer::Transfer;
use crate::binaries;
use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::service::{Service, wait_for};
use crate::topology::{PUBLIC, SERVER, START_MAX, Topology};

pub(super) const HTTP_PORT: u16 = 8080;
const UDP_PORT: u16 = 7;
const FORWARDED_PORT: u16 = 60080;
/// Seconds that curl's rate limit makes the large download take, so that there is time to look.
const LARGE_SECONDS: u64 = 8;
/// Bytes of each other download (they are spread over the three VPCs), and how many at a time.
const SMALL: u64 = 20_000;
const SMALL_AT_A_TIME: usize = 12;
const UDP_COUNT: u32 = 50;
const PING_COUNT: u32 = 10;
/// How long a transfer may go on from the receiver's buffer when nothing arrives any more.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Without a byte for so long, it has stopped; curl's rate limit reads in bursts.
const STALLED: Duration = Duration::from_millis(1200);
/// How long the route is away after that.
const WITHDRAWN: Duration = Duration::from_millis(1500);
const TRANSFER_MAX: Duration = Duration::from_secs(120);
/// Share of the large transfer's packets that the switch has to forward.
const HARDWARE_SHARE_MIN: f64 = 0.99;
/// Flows leave the switch at FIN or after the idle time-out; with time to spare.
const FLOWS_GONE_MAX: Duration = Duration::from_secs(30);
const CONVERGED_MAX: Duration = Duration::from_secs(20);

/// Waits until routes and neighbours are mirrored.
pub(super) fn wait_converged(topology: &Topology) -> Result<()> {
    let took = wait_for("the daemon to report `converged`", CONVERGED_MAX, || {
        topology
            .shunt(&["status"])
            .is_ok_and(|status| flows::converged(&status))
    })?;
    println!("converged after {} ms", took.as_millis());
    Ok(())
}

/// Everything, in order.
pub(super) fn all(
    topology: &Topology,
    servers: &Servers,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    ping(topology, report)?;
    go_on()?;
    http(topology, options, report)?;
    go_on()?;
    udp(topology, report)?;
    go_on()?;
    port_forward(topology, report)?;
    go_on()?;
    servers.check_translations(options, report);
    flows_end(topology, report)?;
    offload(topology, options, report)
}

/// The servers behind the wan and in red.
pub(super) struct Servers {
    http: Service,
    _udp: Service,
    _red: Service,
}

impl Servers {
    pub(super) fn start(topology: &Topology) -> Result<Self> {
        let start = |host: &Netns, name: &str, task: &str, listen: String| {
            let mut command = host.command(&binaries::find("shunt-testbed")?.to_string_lossy());
            command.arg(task).arg(listen);
            let mut service = Service::start(name, &topology.directory, command)?;
            service.wait_for_output("ready", START_MAX)?;
            Ok::<_, Error>(service)
        };
        Ok(Self {
            http: start(
                &topology.wan,
                "http-wan",
                "http-server",
                format!("{SERVER}:{HTTP_PORT}"),
            )?,
            _udp: start(
                &topology.wan,
                "udp-wan",
                "udp-echo",
                format!("{SERVER}:{UDP_PORT}"),
            )?,
            _red: start(
                &topology.red,
                "http-red",
                "http-server",
                "10.0.0.2:80".into(),
            )?,
        })
    }

    /// From what the server saw: no translated tuple in use twice at a time, and each VPC behind
    /// its own pool.
    fn check_translations(&self, options: &Options, report: &mut Report) {
        let output = self.http.output();
        let mut lines = 0;
        let mut mixed = Vec::new();
        let mut by_peer: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        for line in output.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let ["served", name, peer, start, end] = words[..] else {
                continue;
            };
            let (Ok(start), Ok(end)) = (start.parse(), end.parse()) else {
                continue;
            };
            lines += 1;
            let pools: &[&str] = match name.split('-').next() {
                Some("red") => &["203.0.113.10:"],
                Some("blue") => &["203.0.113.11:"],
                _ => &["203.0.113.12:", "203.0.113.13:"],
            };
            if !pools.iter().any(|pool| peer.starts_with(pool)) {
                mixed.push(format!("{name} came from {peer}"));
            }
            by_peer.entry(peer).or_default().push((start, end));
        }
        by_peer.values_mut().for_each(|uses| uses.sort_unstable());
        let shared = |uses: &&Vec<(u64, u64)>| uses.windows(2).any(|pair| pair[1].0 < pair[0].1);
        let overlapping = by_peer.values().filter(shared).count();
        report.check(
            "no NAT tuple in use twice",
            overlapping == 0 && lines > options.small,
            &format!(
                "{lines} connections from {} tuples, {overlapping} shared",
                by_peer.len()
            ),
        );
        report.check(
            "red and blue never mixed",
            mixed.is_empty() && lines > options.small,
            &if mixed.is_empty() {
                "each VPC behind its own pool, every byte its own".into()
            } else {
                mixed.join(", ")
            },
        );
    }
}

fn ping(topology: &Topology, report: &mut Report) -> Result<()> {
    println!("ping through NAT");
    let mut answered = false;
    for (name, host) in vpcs(topology) {
        // The exit status says whether any answer came; the line says how many.
        let mut command = host.command("ping");
        command.args([
            "-c",
            &PING_COUNT.to_string(),
            "-i",
            "0.1",
            "-W",
            "2",
            SERVER,
        ]);
        let output = command.output().map_err(|source| Error::Start {
            program: "ping".into(),
            source,
            remedy: "install the package iputils-ping",
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text
            .lines()
            .find(|line| line.contains("received"))
            .unwrap_or("no answer");
        answered |= output.status.success();
        report.check(
            &format!("ping from {name}"),
            line.contains(&format!(" {PING_COUNT} received")),
            line,
        );
    }
    // Without this, everything after would only run into its deadline.
    if !answered {
        return Err(Error::Other(
            "no ping came back: nothing gets through".into(),
        ));
    }
    Ok(())
}

fn http(topology: &Topology, options: &Options, report: &mut Report) -> Result<()> {
    let (large_mib, small_count) = (options.large_mib, options.small);
    println!("HTTP: {large_mib} MiB and {small_count} small downloads at once");
    let length = large_mib << 20;
    let rate = (length / LARGE_SECONDS).to_string();
    let server = format!("{SERVER}:{HTTP_PORT}");
    let start = Instant::now();
    let large = Transfer::start(&topology.red, &server, "red-large", length, &rate)?;
    let (small_right, withdrawal, watched) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(topology, &large));
        // The small ones first: red's would rightly fail while the route is away.
        let small_right = small_downloads(topology, &server, small_count);
        let withdrawal = withdraw(topology, &large, length);
        (small_right, withdrawal, watcher.join())
    });
    let (small_right, withdrawal) = (small_right?, withdrawal?);
    let mut flow = watched.map_err(|_| Error::Other("a thread of the demo panicked".into()))??;
    let result = large.finish();
    let seconds = start.elapsed().as_secs_f64();
    report.check(
        &format!("{large_mib} MiB over one connection, every byte right"),
        result.is_ok(),
        &result
            .err()
            .map_or(format!("{seconds:.1} s"), |error| error.to_string()),
    );
    report.check(
        "small downloads, every byte right",
        small_right == small_count,
        &format!("{small_right} of {small_count}"),
    );
    report.check(
        "withdrawn route stops the transfer, restored route resumes it",
        withdrawal.stopped && withdrawal.resumed,
        &withdrawal.text,
    );
    flows::software_packets(topology, &mut flow)?;
    let hardware = flow.hardware();
    let share = hardware as f64 / (hardware + flow.software).max(1) as f64;
    report.check(
        "large transfer's packets forwarded by the switch",
        share >= HARDWARE_SHARE_MIN,
        &format!(
            "{:.2} % ({hardware} by the switch, {} by the slow path)",
            share * 100.0,
            flow.software
        ),
    );
    Ok(())
}

/// Samples the flows' entries in the switch until the large transfer ends: its own leave the
/// switch with its FIN, so the last sample counts.
fn watch(topology: &Topology, large: &Transfer) -> Result<LargeFlow> {
    let mut flow = LargeFlow::default();
    while !large.ended() {
        flows::sample(topology, &mut flow)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(flow)
}

fn small_downloads(topology: &Topology, server: &str, count: usize) -> Result<usize> {
    let vpcs = vpcs(topology);
    let mut running: Vec<Transfer> = Vec::new();
    let mut right = 0;
    for number in 0..count {
        if running.len() >= SMALL_AT_A_TIME {
            right += usize::from(
                running
                    .remove(0)
                    .finish()
                    .inspect_err(|e| println!("  {e}"))
                    .is_ok(),
            );
        }
        let (name, host) = vpcs[number % vpcs.len()];
        running.push(Transfer::start(
            host,
            server,
            &format!("{name}-{number}"),
            SMALL,
            "",
        )?);
    }
    for transfer in running {
        right += usize::from(transfer.finish().inspect_err(|e| println!("  {e}")).is_ok());
    }
    Ok(right)
}

struct Withdrawal {
    stopped: bool,
    resumed: bool,
    text: String,
}

/// Takes red's route to the server away in the middle of the transfer and puts it back.
fn withdraw(topology: &Topology, large: &Transfer, length: u64) -> Result<Withdrawal> {
    wait_for("a third of the transfer", TRANSFER_MAX, || {
        large.received() > length / 3 || large.ended()
    })?;
    topology.withdraw_route()?;
    // What curl's socket holds is still read, at curl's rate; then nothing may come.
    let (mut last, mut since) = (large.received(), Instant::now());
    let stalled = wait_for("the transfer to stop", STALL_MAX, || {
        if large.received() != last {
            (last, since) = (large.received(), Instant::now());
        }
        since.elapsed() > STALLED
    });
    let before = large.received();
    std::thread::sleep(WITHDRAWN);
    let during = large.received() - before;
    topology.restore_route()?;
    let back = Instant::now();
    let resumed = wait_for("the transfer to go on", TRANSFER_MAX, || {
        large.received() > before + during + (1 << 18) || large.ended()
    });
    let text = format!(
        "{during} bytes in {} ms without the route, going on {} ms after its return",
        WITHDRAWN.as_millis(),
        back.elapsed().as_millis()
    );
    Ok(Withdrawal {
        stopped: stalled.is_ok() && during == 0,
        resumed: resumed.is_ok(),
        text,
    })
}

fn udp(topology: &Topology, report: &mut Report) -> Result<()> {
    println!("UDP requests and replies");
    let program = binaries::find("shunt-testbed")?;
    for (name, host) in vpcs(topology) {
        let line = format!(
            "{} udp-client {SERVER}:{UDP_PORT} {name} {UDP_COUNT}",
            program.display()
        );
        let right = host.output(&line)?;
        report.check(
            &format!("UDP from {name}"),
            right.trim() == UDP_COUNT.to_string(),
            &format!("{} of {UDP_COUNT} answers right", right.trim()),
        );
    }
    Ok(())
}

fn port_forward(topology: &Topology, report: &mut Report) -> Result<()> {
    println!("inbound by the port forward {PUBLIC}:{FORWARDED_PORT}");
    let server = format!("{PUBLIC}:{FORWARDED_PORT}");
    let result = Transfer::start(&topology.wan, &server, "inbound", 1 << 20, "")?.finish();
    report.check(
        "inbound connection by the port forward, every byte right",
        result.is_ok(),
        &result
            .err()
            .map_or("1 MiB".into(), |error| error.to_string()),
    );
    Ok(())
}

fn flows_end(topology: &Topology, report: &mut Report) -> Result<()> {
    println!("waiting for every flow to leave the switch");
    let mut left = flows::in_switch(topology)?;
    let gone = wait_for("every flow to leave the switch", FLOWS_GONE_MAX, || {
        left = flows::in_switch(topology).unwrap_or(left);
        left == 0
    });
    report.check(
        "every flow gone from the switch after it ended",
        gone.is_ok(),
        &gone.map_or(format!("{left} entries left"), |took| {
            format!("after {} ms", took.as_millis())
        }),
    );
    Ok(())
}

fn offload(topology: &Topology, options: &Options, report: &mut Report) -> Result<()> {
    let stats = topology.shunt(&["offload"])?;
    let figures = flows::offload_figures(&stats)?;
    // A short connection may end before its entries are acknowledged; then it is none of these.
    report.check(
        "connections offloaded, most of them and none refused",
        figures.installed > options.small as u64 / 2 && figures.refused == 0,
        &format!(
            "{} installed, {} refused",
            figures.installed, figures.refused
        ),
    );
    report.figure(
        "install latency p50 (first packet to acknowledged)",
        format!("{} µs", figures.p50_us),
    );
    report.figure(
        "install latency p99 (first packet to acknowledged)",
        format!("{} µs", figures.p99_us),
    );
    let duplicates: BTreeSet<_> = flows::duplicate_translations(&topology.shunt(&["flows"])?);
    report.check(
        "no translated tuple twice in the connection table",
        duplicates.is_empty(),
        &format!("{} duplicates", duplicates.len()),
    );
    Ok(())
}

fn vpcs(topology: &Topology) -> [(&'static str, &Netns); 3] {
    [
        ("red", &topology.red),
        ("blue", &topology.blue),
        ("green", &topology.green),
    ]
}
