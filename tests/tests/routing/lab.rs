//! The network of these tests: the testbed's hosts in one VPC, and a second router on the wan.
//!
//! ```text
//!   red   10.0.0.2/24 ───────────── port 1 ┐
//!   blue  10.0.2.2/24 ── VLAN 20 ── port 2 │ switch ── slow path, daemon (host `gw`)
//!   wan   203.0.113.2/24 ┬───────── port 4 ┘
//!   other 203.0.113.3/24 ┘ (a bridge in wan)
//! ```
//!
//! By IPv6 they are fd00:1::2, fd00:2::2, fd00:4::2 and fd00:4::3.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use shunt_testbed::netns::Netns;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::topology::{P4RUNTIME, SwitchKind, Topology};
use shunt_testbed::{Error, Result, binaries, sandbox};

/// Far more than anything here takes: what does not happen by then does not happen.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Everything that runs.
pub struct Lab {
    pub topology: Topology,
    pub other: Netns,
    _switch: Service,
    daemon: Service,
}

/// Whether the VPC tracks connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Stateful,
    /// Routes alone forward.
    Stateless,
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V4,
    V6,
}

impl Version {
    /// What belongs to this version.
    pub fn of<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

/// Runs a test in a sandbox with the network up, or skips it when a program is missing.
pub fn run(name: &str, programs: &[&str], table: u32, body: impl FnOnce(&Lab) -> Result<()>) {
    run_in(name, programs, table, Mode::Stateful, body);
}

/// As [`run`], in either mode.
pub fn run_in(
    name: &str,
    programs: &[&str],
    table: u32,
    mode: Mode,
    body: impl FnOnce(&Lab) -> Result<()>,
) {
    if let Some(program) = programs
        .iter()
        .find(|program| binaries::installed(program).is_none())
    {
        let why = format!("{program} is not installed (`make test` as root installs it)");
        return sandbox::skip(name, &why);
    }
    sandbox::test(name, || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        body(&Lab::start(directory.path(), table, mode)?)
    });
}

impl Lab {
    fn start(directory: &Path, table: u32, mode: Mode) -> Result<Self> {
        let kind = SwitchKind::from_environment();
        let topology = Topology::build(directory)?;
        let other = bridge(&topology.wan)?;
        let blue = &topology.blue;
        blue.run("ip addr flush dev eth0.20")?;
        blue.run("ip link set eth0.20 mtu 1400")?;
        blue.run("ip addr add 10.0.2.2/24 dev eth0.20")?;
        blue.run("ip route add default via 10.0.2.1")?;
        for host in [&topology.wan, &other] {
            host.run("ip route add default via 203.0.113.1")?;
        }
        for (host, device, network, address) in [
            (&topology.red, "eth0", 1, 2),
            (blue, "eth0.20", 2, 2),
            (&topology.wan, "br0", 4, 2),
            (&other, "eth0", 4, 3),
        ] {
            let address = format!("fd00:{network}::{address}/64");
            host.run(&format!("ip addr add {address} dev {device} nodad"))?;
            host.run(&format!("ip route add default via fd00:{network}::1"))?;
        }
        let switch = topology.start_switch(kind)?;
        let configuration = include_str!("lab.toml")
            .replace("{socket}", &topology.socket().display().to_string())
            .replace("{p4runtime}", P4RUNTIME)
            .replace("{table}", &table.to_string())
            .replace("{stateless}", &(mode == Mode::Stateless).to_string());
        let daemon = topology.start_daemon_with(&configuration, &[])?;
        let lab = Self {
            topology,
            other,
            _switch: switch,
            daemon,
        };
        lab.wait_converged()?;
        Ok(lab)
    }

    /// The daemon's process.
    pub fn daemon_id(&self) -> u32 {
        self.daemon.id()
    }

    /// Waits until the switch is as the kernel.
    pub fn wait_converged(&self) -> Result<Duration> {
        wait_for("the daemon to report `converged`", DEADLINE, || {
            // Its exit status says so too.
            self.topology
                .shunt(&["status"])
                .is_ok_and(|status| status["converged"] == Value::Bool(true))
        })
    }

    /// What `shunt p4` prints, as JSON.
    pub fn p4(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self
            .topology
            .gw
            .command(&binaries::find("shunt")?.to_string_lossy());
        command.args(["--output", "json", "p4", "--address", P4RUNTIME]);
        let output = command
            .args(arguments)
            .output()
            .map_err(Error::file("shunt"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "shunt p4 {arguments:?}: {said}");
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::Other(format!("shunt p4 {arguments:?}: {error}")))
    }

    /// The kernel's prefixes of a protocol in a table.
    pub fn kernel_routes(
        &self,
        version: Version,
        table: u32,
        protocol: &str,
    ) -> Result<BTreeSet<String>> {
        let family = version.of("-4", "-6");
        let line = format!("ip {family} route show table {table} proto {protocol}");
        let text = match self.topology.gw.output(&line) {
            // A table without any route is none to `ip`.
            Err(Error::Command { stderr, .. }) if stderr.contains("does not exist") => {
                String::new()
            }
            other => other?,
        };
        Ok(text
            .lines()
            .filter(|line| !line.starts_with('\t'))
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect())
    }

    /// The prefixes that the daemon's mirror has of a protocol by way of a gateway.
    pub fn mirror_routes(&self, protocol: &str, gateway: &str) -> Result<BTreeSet<String>> {
        let routes = self.topology.shunt(&["routes", "--vpc", "core"])?;
        let routes = routes.as_array().cloned().unwrap_or_default();
        Ok(routes
            .iter()
            .filter(|route| route["protocol"] == protocol && route["kind"] == "unicast")
            .filter(|route| route["paths"][0]["gateway"] == gateway)
            .filter_map(|route| route["prefix"].as_str().map(str::to_owned))
            .collect())
    }

    /// The switch's entries of `route4` or `route6` that forward, by destination.
    pub fn switch_routes(&self, version: Version) -> Result<BTreeSet<String>> {
        let entries = self.p4(&["read", version.of("route4", "route6")])?;
        let entries = entries.as_array().cloned().unwrap_or_default();
        Ok(entries.iter().filter_map(forwards).collect())
    }
}

/// The destination of an entry that leads to a next hop or a group.
fn forwards(entry: &Value) -> Option<String> {
    let action = entry["action"]["action"].as_str()?;
    matches!(action, "to_nexthop" | "to_ecmp").then_some(())?;
    entry["match"]["dst"].as_str().map(str::to_owned)
}

/// Makes the wan's link a bridge with a second router on it.
fn bridge(wan: &Netns) -> Result<Netns> {
    let other = Netns::create("other")?;
    wan.run("ip addr flush dev eth0")?;
    wan.run("ip link add br0 type bridge")?;
    wan.run("ip link add port1 type veth peer name eth0 netns other")?;
    for device in ["eth0", "port1"] {
        wan.offloads_off(device)?;
        wan.run(&format!("ip link set {device} master br0 up"))?;
    }
    wan.run("ip link set br0 up")?;
    wan.run("ip addr add 203.0.113.2/24 dev br0")?;
    other.offloads_off("eth0")?;
    other.run("ip link set eth0 up")?;
    other.run("ip addr add 203.0.113.3/24 dev eth0")?;
    Ok(other)
}
