//! The demo's network.
//!
//! ```text
//!   red   10.0.0.2/24 ───────────── port 1 ┐
//!   blue  10.0.0.2/24 ── VLAN 20 ── port 2 │ switch ── port 10 ── sp0 ── slow path (DPDK)
//!   green 10.1.0.2/24 ═ VXLAN 5001 ═ port 3 │            (all of this in host `gw`)
//!   wan   203.0.113.2/24 ────────── port 4 ┘
//!         192.0.2.80/32 (server's network, behind wan)
//! ```

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::binaries;
use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::service::{Service, wait_for};

/// Which switch runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SwitchKind {
    /// `shunt-switch`, of this workspace.
    Embedded,
    /// The real `simple_switch_grpc`, from PATH.
    Bmv2,
}

impl SwitchKind {
    /// What the environment's `SWITCH` asks for.
    pub fn from_environment() -> Self {
        match std::env::var("SWITCH").as_deref() {
            Ok("bmv2") => Self::Bmv2,
            _ => Self::Embedded,
        }
    }
}

/// Address of the server behind the wan.
pub const SERVER: &str = "192.0.2.80";
/// The network that it is in, routed by way of the wan host.
pub const SERVER_NETWORK: &str = "192.0.2.0/24";
/// The server's and its network's, once [`Topology::add_ipv6`] was called.
pub const SERVER6: &str = "2001:db8:ffff::80";
const SERVER6_NETWORK: &str = "2001:db8:ffff::/64";
/// First address of the masquerade pool, and the port forward's address.
pub const PUBLIC: &str = "203.0.113.10";
/// Where the switch serves P4Runtime, in `gw`.
pub const P4RUNTIME: &str = "127.0.0.1:9559";
/// How long a program may take to get ready.
pub const START_MAX: Duration = Duration::from_secs(30);

const PORTS: [(u16, &str); 5] = [(1, "p1"), (2, "p2"), (3, "p3"), (4, "p4"), (10, "p10")];

/// The hosts, cabled; nothing runs in `gw` yet.
#[derive(Debug)]
pub struct Topology {
    /// VPC red, untagged.
    pub red: Netns,
    /// VPC blue, VLAN 20, the same address as red.
    pub blue: Netns,
    /// VPC green, behind a kernel VXLAN device.
    pub green: Netns,
    /// The outside, with the server.
    pub wan: Netns,
    /// The gateway: switch, daemon, taps.
    pub gw: Netns,
    /// Logs, the configuration, the API's socket.
    pub directory: PathBuf,
    services: Vec<Service>,
}

impl Topology {
    /// Makes hosts and links. The sandbox must be prepared.
    pub fn build(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).map_err(Error::file(directory))?;
        let mut topology = Self {
            red: Netns::create("red")?,
            blue: Netns::create("blue")?,
            green: Netns::create("green")?,
            wan: Netns::create("wan")?,
            gw: Netns::create("gw")?,
            directory: directory.to_owned(),
            services: Vec::new(),
        };
        topology.cable()?;
        topology.address()?;
        Ok(topology)
    }

    fn cable(&self) -> Result<()> {
        let hosts = [
            (&self.red, "p1"),
            (&self.blue, "p2"),
            (&self.green, "p3"),
            (&self.wan, "p4"),
        ];
        for (host, port) in hosts {
            self.gw.run(&format!(
                "ip link add {port} type veth peer name eth0 netns {}",
                host.name()
            ))?;
            host.offloads_off("eth0")?;
            host.run("ip link set eth0 up")?;
        }
        self.gw.run("ip link add p10 type veth peer name sp0")?;
        // The switch's ends belong to the switch alone: no addresses, no kernel chatter, and room
        // for the shunt header and tags.
        for device in ["p1", "p2", "p3", "p4", "p10", "sp0"] {
            self.gw
                .sysctl(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1")?;
            // The taps' addresses are not to be answered for here: the port is a wire.
            self.gw
                .sysctl(&format!("net.ipv4.conf.{device}.arp_ignore"), "8")?;
            self.gw.offloads_off(device)?;
            self.gw.run(&format!("ip link set {device} mtu 1600 up"))?;
        }
        Ok(())
    }

    fn address(&mut self) -> Result<()> {
        self.red.run("ip addr add 10.0.0.2/24 dev eth0")?;
        self.red.run("ip route add default via 10.0.0.1")?;
        // A small receive buffer: what is on the way when the demo takes a route away is soon read.
        self.red.sysctl("net.ipv4.tcp_rmem", "4096 131072 262144")?;

        self.tagged_device()?;
        self.blue.run("ip addr add 10.0.0.2/24 dev eth0.20")?;
        self.blue.run("ip route add default via 10.0.0.1")?;

        self.green.run("ip addr add 172.16.0.2/24 dev eth0")?;
        self.green.run(
            "ip link add vxlan5001 type vxlan id 5001 dstport 4789 \
             local 172.16.0.2 remote 172.16.0.1 dev eth0",
        )?;
        self.green.offloads_off("vxlan5001")?;
        self.green.run("ip link set vxlan5001 mtu 1450 up")?;
        self.green.run("ip addr add 10.1.0.2/24 dev vxlan5001")?;
        self.green.run("ip route add default via 10.1.0.1")?;

        self.wan.run("ip addr add 203.0.113.2/24 dev eth0")?;
        self.wan.run(&format!("ip addr add {SERVER}/32 dev lo"))
    }

    /// Blue's VLAN: the kernel's device where it has one, else our shim.
    fn tagged_device(&mut self) -> Result<()> {
        if self
            .blue
            .run("ip link add link eth0 name eth0.20 type vlan id 20")
            .is_err()
        {
            let mut command = self
                .blue
                .command(&binaries::find("shunt-testbed")?.to_string_lossy());
            command.args([
                "vlan-shim",
                "--device",
                "eth0",
                "--tap",
                "eth0.20",
                "--vid",
                "20",
            ]);
            let mut shim = Service::start("vlan-shim", &self.directory, command)?;
            shim.wait_for_output("ready", START_MAX)?;
            self.services.push(shim);
        }
        self.blue.run("ip link set eth0.20 mtu 1500 up")
    }

    /// The command that starts a switch on the ports, not yet started.
    pub fn switch_command(&self, kind: SwitchKind) -> Result<Command> {
        let program = match kind {
            SwitchKind::Embedded => binaries::find("shunt-switch")?,
            SwitchKind::Bmv2 => binaries::on_path("simple_switch_grpc").ok_or_else(|| {
                Error::Other(
                    "simple_switch_grpc is not on PATH: build and install p4lang's \
                     behavioral-model with P4Runtime, or run without SWITCH=bmv2"
                        .into(),
                )
            })?,
        };
        let mut command = self.gw.command(&program.to_string_lossy());
        for (port, device) in PORTS {
            command.arg("-i").arg(format!("{port}@{device}"));
        }
        command.args(["--device-id", "1", "--no-p4"]);
        if kind == SwitchKind::Bmv2 {
            command.args(["--log-console", "-L", "warn"]);
        }
        command.args(["--", "--grpc-server-addr", P4RUNTIME]);
        Ok(command)
    }

    /// Starts the switch and waits until it answers.
    pub fn start_switch(&self, kind: SwitchKind) -> Result<Service> {
        let mut switch = Service::start("switch", &self.directory, self.switch_command(kind)?)?;
        // bmv2 buffers what it prints: ask the port itself.
        let listens = || self.gw.inside(|| Ok(TcpStream::connect(P4RUNTIME).is_ok()));
        wait_for("the switch to listen", START_MAX, || {
            switch.ended().is_some() || listens().unwrap_or(false)
        })?;
        switch.check_running()?;
        Ok(switch)
    }

    /// Where the daemon's API listens. A short path: a socket's is limited to 107 bytes.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("shuntd.sock")
    }

    /// Writes the demo's configuration and returns its path.
    pub fn write_configuration(&self) -> Result<PathBuf> {
        self.write_configuration_of(&configuration(&self.socket()))
    }

    fn write_configuration_of(&self, text: &str) -> Result<PathBuf> {
        let path = self.directory.join("shunt.toml");
        fs::write(&path, text).map_err(Error::file(&path))?;
        Ok(path)
    }

    /// Starts the daemon with the demo's configuration and waits until it is ready.
    pub fn start_daemon(&self) -> Result<Service> {
        self.start_daemon_with(&configuration(&self.socket()), &[])
    }

    /// The same with another configuration and more arguments; its API listens at
    /// [`Topology::socket`].
    pub fn start_daemon_with(&self, text: &str, arguments: &[String]) -> Result<Service> {
        let configuration = self.write_configuration_of(text)?;
        let mut command = self
            .gw
            .command(&binaries::find("shuntd")?.to_string_lossy());
        command.arg("--config").arg(configuration).args(arguments);
        let mut daemon = Service::start("shuntd", &self.directory, command)?;
        // It answers when it is ready.
        wait_for("the daemon to answer", START_MAX, || {
            daemon.ended().is_some() || self.shunt(&["version"]).is_ok()
        })?;
        daemon.check_running()?;
        Ok(daemon)
    }

    /// The gateway's routes: in each VPC, the wan's own network and the server's behind it.
    pub fn add_routes(&self) -> Result<()> {
        for table in [101, 102, 103] {
            self.gw.run(&format!(
                "ip route add 203.0.113.0/24 dev sh-wan table {table}"
            ))?;
        }
        for table in [101, 102, 103, 104] {
            self.gw.run(&format!(
                "ip route add {SERVER_NETWORK} via 203.0.113.2 dev sh-wan onlink table {table}"
            ))?;
        }
        Ok(())
    }

    /// The same network over IPv6, for red (on that device), blue and the wan; the daemon runs
    /// with [`with_ipv6`].
    pub fn add_ipv6(&self, red_device: &str) -> Result<()> {
        for (host, device, net) in [
            (&self.red, red_device, "2001:db8:1:"),
            (&self.blue, "eth0.20", "2001:db8:2:"),
            (&self.wan, "eth0", "2001:db8:9:"),
        ] {
            // A dot in a name is no separator: so with slashes.
            host.sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "0")?;
            host.run(&format!("ip addr add {net}:2/64 dev {device} nodad"))?;
            if net != "2001:db8:9:" {
                host.run(&format!("ip -6 route add default via {net}:1 dev {device}"))?;
            }
        }
        self.wan
            .run(&format!("ip addr add {SERVER6}/128 dev lo nodad"))?;
        for table in [101, 102] {
            self.gw.run(&format!(
                "ip -6 route add 2001:db8:9::/64 dev sh-wan table {table}"
            ))?;
        }
        for table in [101, 102, 104] {
            self.gw.run(&format!(
                "ip -6 route add {SERVER6_NETWORK} via 2001:db8:9::2 dev sh-wan onlink table {table}"
            ))?;
        }
        Ok(())
    }

    /// Takes the server's network out of red's table.
    pub fn withdraw_route(&self) -> Result<()> {
        self.gw
            .run(&format!("ip route del {SERVER_NETWORK} table 101"))
    }

    /// Puts it back.
    pub fn restore_route(&self) -> Result<()> {
        self.gw.run(&format!(
            "ip route add {SERVER_NETWORK} via 203.0.113.2 dev sh-wan onlink table 101"
        ))
    }

    /// Asks the daemon by its command line; the answer is JSON.
    pub fn shunt(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        ask(&self.socket(), arguments, &[0])
    }
}

/// Asks the daemon at a socket by its command line, which has to end with one of these exit codes;
/// the answer is JSON.
///
/// # Errors
/// It ended otherwise, or printed something else.
pub fn ask(socket: &Path, arguments: &[&str], codes: &[i32]) -> Result<serde_json::Value> {
    let mut command = Command::new(binaries::find("shunt")?);
    command.arg("--socket").arg(socket);
    command.args(["--output", "json"]).args(arguments);
    let line = format!("shunt {}", arguments.join(" "));
    let output = command.output().map_err(|source| Error::Start {
        program: line.clone(),
        source,
        remedy: "is it built?",
    })?;
    if !output
        .status
        .code()
        .is_some_and(|code| codes.contains(&code))
    {
        return Err(Error::Command {
            command: line,
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::Other(format!("`{line}` printed no JSON: {error}")))
}

/// A configuration like the demo's, with IPv6 beside IPv4 for red, blue and the wan.
pub fn with_ipv6(text: &str) -> String {
    let pairs = [
        ("00:01\"\naddresses = [", "\"2001:db8:1::1/64\", "),
        ("00:02\"\naddresses = [", "\"2001:db8:2::1/64\", "),
        ("00:04\"\naddresses = [", "\"2001:db8:9::1/64\", "),
        (
            "to = \"wan\"\npool = [\"203.0.113.10\"",
            ", \"2001:db8:9::10\"",
        ),
        (
            "to = \"wan\"\npool = [\"203.0.113.11\"",
            ", \"2001:db8:9::11\"",
        ),
    ];
    pairs.into_iter().fold(text.to_owned(), |text, (at, more)| {
        text.replace(at, &format!("{at}{more}"))
    })
}

/// The demo's configuration document.
pub fn configuration(socket: &Path) -> String {
    format!(
        include_str!("../demo.toml"),
        socket = socket.display(),
        p4runtime = P4RUNTIME
    )
}
