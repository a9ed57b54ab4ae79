//! `switch-veth`: packets a second through veth interfaces, the embedded switch beside the real
//! bmv2 where that is on PATH.
//!
//! Each switch is a process of its own with two veth pairs of its own, alike in everything; the
//! same generator sends the same frames, of the same flows. They take turns, so that what else
//! the machine does hits both.

mod generator;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use generator::Generator;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::{binaries, netns};

use crate::flows;
use crate::report::{BenchError, Report, median};
use crate::sandboxed;

/// Offloaded flows.
const FLOWS: u32 = 10_000;
const RUN: Duration = Duration::from_secs(2);
const RUNS: usize = 5;
/// Frames on the way: as many as bmv2's egress queues have room for (it drops the rest), and as
/// many as make long bursts. Each switch has the one that suits it.
const WINDOWS: [u64; 2] = [64, 512];
/// How long a switch may take to listen.
const START: Duration = Duration::from_secs(30);
/// The kernel's and libpcap's default.
const MTU: u16 = 1500;

/// A switch under test.
struct Subject {
    name: &'static str,
    generator: Generator,
    /// By window.
    rates: [Vec<f64>; 2],
    _service: Service,
}

impl Subject {
    /// Starts a switch and loads it; `number` tells its interfaces and its address from others'.
    fn start(
        name: &'static str,
        number: u16,
        logs: &Path,
        command: impl FnOnce(&str) -> Command,
    ) -> Result<Self, BenchError> {
        let [inside, outside] = [1, 2].map(|port| format!("{number}p{port}"));
        for port in [&inside, &outside] {
            let (switch, host) = (format!("s{port}"), format!("h{port}"));
            netns::run(&format!("ip link add {switch} type veth peer name {host}"))
                .map_err(BenchError::failed)?;
            for device in [&switch, &host] {
                let lines = [
                    format!("sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1"),
                    // Frames are to be on the wire as they are sent.
                    format!("ethtool -K {device} rx off tx off sg off tso off gso off gro off"),
                    format!("ip link set {device} mtu {MTU} arp off up"),
                ];
                for line in lines {
                    netns::run(&line).map_err(BenchError::failed)?;
                }
            }
        }
        let address = format!("127.0.0.1:{}", 9559 + number);
        let mut command = command(&address);
        let interfaces = [(1, &inside), (2, &outside)];
        let interfaces = interfaces.map(|(port, device)| format!("{port}@s{device}"));
        // Before `--`, behind which the target's options are.
        let mut arguments: Vec<OsString> = command.get_args().map(Into::into).collect();
        for interface in interfaces {
            arguments.splice(0..0, ["-i".into(), interface.into()]);
        }
        let mut whole = Command::new(command.get_program());
        whole.args(arguments);
        command = whole;
        let mut service = Service::start(name, logs, command).map_err(BenchError::failed)?;
        wait_for("the switch to listen", START, || {
            service.ended().is_some() || std::net::TcpStream::connect(&address).is_ok()
        })
        .map_err(BenchError::failed)?;
        service.check_running().map_err(BenchError::failed)?;
        let runtime = tokio::runtime::Runtime::new().map_err(BenchError::failed)?;
        // The client goes, the entries stay.
        runtime.block_on(flows::configure(address, FLOWS))?;
        let mut generator = Generator::open(&format!("h{inside}"), &format!("h{outside}"), FLOWS)?;
        generator.check()?;
        Ok(Self {
            name,
            generator,
            rates: Default::default(),
            _service: service,
        })
    }
}

fn target(program: impl Into<OsString>, address: &str) -> Command {
    let mut command = Command::new(program.into());
    command.args(["--no-p4", "--device-id", "1", "--"]);
    command.args(["--grpc-server-addr", address]);
    command
}

/// The benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    sandboxed::run("switch-veth", report, measure)
}

fn measure(report: &mut Report) -> Result<(), BenchError> {
    let logs = Path::new(sandboxed::FOLDER);
    let shunt = binaries::find("shunt-switch").map_err(BenchError::failed)?;
    let mut subjects = vec![Subject::start("shunt-switch", 1, logs, |address| {
        target(shunt, address)
    })?];
    if let Some(bmv2) = binaries::on_path("simple_switch_grpc") {
        subjects.push(Subject::start("bmv2", 2, logs, |address| {
            target(bmv2, address)
        })?);
    }
    for run in 0..RUNS * WINDOWS.len() {
        for subject in &mut subjects {
            let turn = run % WINDOWS.len();
            let window = WINDOWS.get(turn).copied().unwrap_or_default();
            let rate = subject.generator.run(RUN, window)?;
            let name = subject.name;
            println!("  {name}: {rate:.0} packets/s, {window} on the way");
            if let Some(rates) = subject.rates.get_mut(turn) {
                rates.push(rate);
            }
        }
    }
    let best = |subject: &Subject| {
        let medians = subject.rates.iter().cloned().map(median);
        medians.fold(0.0, f64::max)
    };
    let mut medians = subjects.iter().map(best);
    let own = medians.next().unwrap_or(0.0);
    report.metric("packets", own, "packets/s");
    match medians.next() {
        Some(other) => {
            report.metric("packets of bmv2", other, "packets/s");
            report.metric("times bmv2", own / other.max(1.0), "times");
        }
        None => println!("simple_switch_grpc is not on PATH: nothing to compare with"),
    }
    Ok(())
}
